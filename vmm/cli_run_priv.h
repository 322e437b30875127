/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of `sluice run` share. One thread, the main one. */
#ifndef CLI_RUN_PRIV_H
#define CLI_RUN_PRIV_H

#include "vmm/cli_priv.h"
#include "vmm/vmm.h"

#define RUN_GO (-1) /* not an exit status: go on */

enum run_console { RUN_CONSOLE_STDIO, RUN_CONSOLE_NONE, RUN_CONSOLE_FILE };

struct run_options {
	struct machine_config cfg;
	enum run_console console;
	const char *console_file;
	enum run_console hvc; /* with cfg.hvc.on */
	const char *hvc_file;
	const char *firmware_log;
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
	return o->cfg.hvc.on && o->hvc == RUN_CONSOLE_STDIO;
}

/* The control socket (control_api.c); control_server_destroy() before the machine. */
int run_control_open(struct control_server **out, const char *path, struct machine *m,
	char why[BACKEND_WHY_MAX]);

/* What the run cost, as a table on stderr. */
void run_counters_print(struct machine *m);

#endif
