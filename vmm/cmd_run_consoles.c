/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the consoles and ports of `sluice run` lead: files, the terminal, sockets,
 * pseudo-terminals. All of them are open before the guest runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/cli_run_priv.h"

/* "--console file=" and the like, before the path. */
static int place_file_open(const char *option, const char *path, int *out)
{
	*out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);
	if (*out >= 0)
		return CLI_OK;
	return cli_fail(
		"run", CLI_HOST, "%s%.100s: cannot be written: %s", option, path, strerror(errno));
}

/*
 * Standard output for a console. A terminal or pipe is opened once more, for a descriptor of our
 * own that does not block: the flag on the one we were given is others' as well.
 */
static int stdout_open(void)
{
	struct stat st;
	int fd = -1;

	if (!fstat(STDOUT_FILENO, &st) && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd >= 0 ? fd : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
}

/*
 * A pseudo-terminal that passes every byte on. Its other side is held open, too: else the end of
 * whoever looks at it would be an error here.
 */
static int pty_open(const char *option, struct run_place *p, int *fd)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct termios raw;
	char name[64];

	*fd = master;
	if (master < 0 || grantpt(master) || unlockpt(master) ||
		ptsname_r(master, name, sizeof(name)))
		return cli_fail("run", CLI_HOST, "%s pty: %s", option, strerror(errno));
	p->pty_user = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (p->pty_user < 0 || tcgetattr(p->pty_user, &raw))
		return cli_fail("run", CLI_HOST, "%s pty: %s", option, strerror(errno));
	cfmakeraw(&raw);
	tcsetattr(p->pty_user, TCSANOW, &raw);
	fprintf(stderr, "sluice: %s is %s\n", option + 2, name);
	return CLI_OK;
}

static int unix_open(const char *option, struct run_place *p, int *fd)
{
	char why[BACKEND_WHY_MAX] = "", label[64];

	snprintf(label, sizeof(label), "%.40s unix=", option);
	if (unix_socket_open(&p->socket, label, p->path, why))
		return cli_fail("run", CLI_HOST, "%s", why);
	*fd = unix_socket_fd(p->socket);
	return CLI_OK;
}

static int place_open(const char *option, struct run_place *p, struct line_config *line)
{
	char label[64];
	int status;

	switch (p->kind) {
	case RUN_STDIO:
		line->out = stdout_open();
		return CLI_OK;
	case RUN_FILE:
		snprintf(label, sizeof(label), "%.40s file=", option);
		return place_file_open(label, p->path, &line->out);
	case RUN_UNIX:
		return unix_open(option, p, &line->listener);
	case RUN_PTY:
		status = pty_open(option, p, &line->out);
		line->in = line->out;
		return status;
	default:
		return CLI_OK;
	}
}

static void place_close(struct run_place *p, const struct line_config *line)
{
	if (line->out >= 0)
		close(line->out);
	if (p->pty_user > 0)
		close(p->pty_user);
	unix_socket_free(p->socket);
}

int run_consoles_open(struct run_options *o)
{
	struct line_config hvc = {.out = -1};
	char option[16];
	int status = 0;

	for (unsigned i = 0; i < o->nserials && !status; i++) {
		snprintf(option, sizeof(option), i ? "--serial %u" : "--serial", i + 1);
		status = place_open(o->console_given ? "--console" : option, &o->serials[i],
			&o->cfg.serials[i].line);
	}
	if (!status && o->cfg.parallel.on)
		status = place_open("--parallel", &o->parallel, &o->cfg.parallel.line);
	if (!status && o->firmware_log)
		status = place_file_open("--firmware-log ", o->firmware_log, &o->cfg.firmware_log);
	if (status || !o->cfg.hvc.on)
		return status;
	status = place_open("--hvc", &o->hvc, &hvc);
	o->cfg.hvc.out = hvc.out;
	if (o->hvc.kind == RUN_STDIO)
		terminal_size_get(STDOUT_FILENO, &o->cfg.hvc.cols, &o->cfg.hvc.rows);
	return status;
}

void run_consoles_close(struct run_options *o)
{
	for (unsigned i = 0; i < o->nserials; i++)
		place_close(&o->serials[i], &o->cfg.serials[i].line);
	place_close(&o->parallel, &o->cfg.parallel.line);
	if (o->cfg.hvc.out >= 0)
		close(o->cfg.hvc.out);
	if (o->cfg.firmware_log >= 0)
		close(o->cfg.firmware_log);
}
