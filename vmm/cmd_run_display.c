/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice run --display curses`: the view that `sluice watch` is, in the terminal that the monitor
 * was started in, while the guest runs. The view is a process of its own, with a control socket of
 * its own where the user gave none. The terminal is the view's: what the monitor has to say
 * meanwhile waits in a pipe (what does not fit is dropped), and is told when it has ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/cli_run_priv.h"

#define PROGRAM "sluice-screen"

extern char **environ;

/* A folder that is nobody else's, for the socket. */
int run_display_prepare(struct run_display *d, struct run_options *o)
{
	const char *base = getenv("XDG_RUNTIME_DIR");

	*d = (struct run_display){.pid = -1, .pid_fd = -1, .err = -1};
	if (!o->display)
		return CLI_OK;
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return cli_fail("run", CLI_USAGE,
			"--display curses: standard input and output are to be a terminal");
	if (!cli_program_find(PROGRAM, d->program))
		return cli_fail("run", CLI_HOST,
			"--display curses: %s is not there; build it with `make build`, or set "
			"SLUICE_LIBEXEC to its folder",
			PROGRAM);
	if (o->control)
		return CLI_OK;
	/* a socket's path is short */
	if (!base || strlen(base) > 64)
		base = "/tmp";
	snprintf(d->folder, sizeof(d->folder), "%s/sluice-XXXXXX", base);
	if (!mkdtemp(d->folder)) {
		d->folder[0] = '\0';
		return cli_fail("run", CLI_HOST, "--display curses: %s: %s", base, strerror(errno));
	}
	snprintf(d->socket, sizeof(d->socket), "%s/control", d->folder);
	o->control = d->socket;
	return CLI_OK;
}

/* With the signals' actions and mask that a program expects. */
static int display_spawn(struct run_display *d, const char *socket)
{
	char *argv[] = {d->program, "watch", "--control", (char *)(uintptr_t)socket, NULL};
	posix_spawnattr_t attr;
	sigset_t none, all;
	int rc;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	rc = posix_spawn(&d->pid, d->program, NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	if (rc)
		d->pid = -1;
	return rc;
}

/* Standard error becomes a pipe. */
static void display_err_keep(struct run_display *d)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return;
	fflush(stderr);
	d->err = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	d->kept = ends[0];
	if (d->err < 0 || dup2(ends[1], STDERR_FILENO) < 0) {
		close(ends[0]);
		if (d->err >= 0)
			close(d->err);
		d->err = -1;
	}
	close(ends[1]);
}

static void display_err_tell(struct run_display *d)
{
	char text[4096];
	ssize_t n;

	if (d->err < 0)
		return;
	fflush(stderr);
	dup2(d->err, STDERR_FILENO);
	close(d->err);
	d->err = -1;
	while ((n = read(d->kept, text, sizeof(text))) > 0)
		fwrite(text, 1, (size_t)n, stderr);
	close(d->kept);
}

int run_display_start(struct run_display *d, const struct run_options *o)
{
	int rc;

	if (!o->display)
		return CLI_OK;
	d->tty_known = !tcgetattr(STDIN_FILENO, &d->tty);
	rc = display_spawn(d, o->control);
	if (!rc) {
		d->pid_fd = pidfd_open(d->pid, 0);
		rc = d->pid_fd < 0 ? errno : 0;
	}
	if (rc) {
		run_display_stop(d);
		return cli_fail(
			"run", CLI_HOST, "--display curses: %s: %s", d->program, strerror(rc));
	}
	display_err_keep(d);
	return CLI_OK;
}

int run_display_stop(struct run_display *d)
{
	int status = 0;

	if (d->pid > 0) {
		kill(d->pid,
			SIGTERM); /* it may have ended by itself; it is ours until waited for */
		while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR)
			;
		d->pid = -1;
	}
	if (d->pid_fd >= 0)
		close(d->pid_fd);
	d->pid_fd = -1;
	/* one that was killed has left the terminal as it was then */
	if (d->tty_known)
		tcsetattr(STDIN_FILENO, TCSANOW, &d->tty);
	d->tty_known = false;
	display_err_tell(d);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	return WTERMSIG(status) == SIGTERM ? CLI_OK : CLI_HOST;
}

void run_display_free(struct run_display *d)
{
	if (*d->folder)
		rmdir(d->folder);
}
