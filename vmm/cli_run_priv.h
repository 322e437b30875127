/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of `sluice run` share. One thread, the main one. */
#ifndef CLI_RUN_PRIV_H
#define CLI_RUN_PRIV_H

#include <sys/types.h>

#include "vmm/cli_priv.h"
#include "vmm/vmm.h"

#define RUN_GO (-1) /* not an exit status: go on */

/* Where a console's or port's cable leads. */
enum run_place_kind { RUN_STDIO, RUN_NONE, RUN_FILE, RUN_UNIX, RUN_PTY };
struct run_place {
	enum run_place_kind kind;
	const char *path;
	/* opened */
	struct unix_socket *socket;
	int pty_user; /* the pseudo-terminal's other side, kept open; 0: none */
};

struct run_options {
	struct machine_config cfg;
	struct run_place serials[VMM_SERIALS_MAX];
	unsigned nserials;
	struct run_place console; /* the first of them, where --serial is not given */
	bool console_given;
	struct run_place hvc;      /* with cfg.hvc.on */
	struct run_place parallel; /* with cfg.parallel.on */
	const char *firmware_log;
	bool display;        /* the screen in this terminal */
	const char *control; /* socket; NULL: none */
	char firmware[4096]; /* the path of --firmware PATH,vars=PATH */
	bool no_reboot;
	bool counters;
	bool verbose;
};

/* RUN_GO, or the exit status (--help, or a mistake that was told). The caller frees cfg. */
int run_options_parse(struct run_options *o, int argc, char **argv);
static inline bool run_hvc_has_terminal(const struct run_options *o)
{
	return o->cfg.hvc.on && o->hvc.kind == RUN_STDIO;
}
/* The serial port that has it; -1: none. */
static inline int run_serial_of_terminal(const struct run_options *o)
{
	for (unsigned i = 0; i < o->nserials; i++)
		if (o->serials[i].kind == RUN_STDIO)
			return (int)i;
	return -1;
}

/*
 * What consoles and ports lead to, opened before anything runs (cmd_run_consoles.c); a status. Once
 * it is there, a pseudo-terminal's name is said on standard error.
 */
int run_consoles_open(struct run_options *o);
void run_consoles_close(struct run_options *o);

/* The control socket (control_api.c); control_server_destroy() before the machine. */
int run_control_open(struct control_server **out, const char *path, struct machine *m,
	char why[BACKEND_WHY_MAX]);

/* The view of --display curses (cmd_run_display.c). Without that option these do nothing. */
struct run_display {
	pid_t pid;
	int pid_fd; /* readable when it has ended; -1: none */
	int err;    /* the real standard error, while the view has the terminal; -1 */
	int kept;   /* what was said meanwhile */
	struct termios tty;
	bool tty_known;
	char program[PATH_MAX];
	char folder[96], socket[108];
};
/* A status. The first: before the control socket is made, whose path it may choose. */
int run_display_prepare(struct run_display *d, struct run_options *o);
int run_display_start(struct run_display *d, const struct run_options *o);
/* Waits for its end: the terminal is as it was. The view's status. */
int run_display_stop(struct run_display *d);
/* When the control socket is gone. */
void run_display_free(struct run_display *d);

/* What the run cost, as a table on stderr. */
void run_counters_print(struct machine *m);

#endif
