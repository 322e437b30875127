/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands that are the work of other programs, which get the arguments as they are: the benchmark,
 * and those that look at a guest's screen, so that the monitor itself is linked with none of the
 * libraries that takes.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/cli_priv.h"

static const char where[] =
	"The work is done by a program of its own, looked for in $SLUICE_LIBEXEC,\n"
	"beside sluice, and in ../libexec/sluice from there.\n";

/* Its path, when it is there. */
static bool program_in(const char *program, const char *dir, const char *below, char path[PATH_MAX])
{
	int len = snprintf(path, PATH_MAX, "%s%s/%s", dir, below, program);

	return len > 0 && len < PATH_MAX && access(path, X_OK) == 0;
}

bool cli_program_find(const char *program, char path[PATH_MAX])
{
	const char *libexec = getenv("SLUICE_LIBEXEC");
	char self[PATH_MAX];
	ssize_t len;
	char *slash;

	/* who sets the variable means it: nothing else is tried */
	if (libexec && *libexec)
		return program_in(program, libexec, "", path);
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len <= 0)
		return false;
	self[len] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return false;
	*slash = '\0';
	return program_in(program, self, "", path) ||
	       program_in(program, self, "/../libexec/sluice", path);
}

static bool help_asked(int argc, char **argv)
{
	return argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
}

/* argv[0] is the command; with_command: the program gets it as its first argument. */
static int program_run(
	const char *program, const char *help, bool with_command, int argc, char **argv)
{
	const char *command = argv[0];
	char path[PATH_MAX], **args = argv;

	if (!cli_program_find(program, path)) {
		if (help_asked(argc, argv)) {
			printf("%s\n%s", help, where);
			return CLI_OK;
		}
		return cli_fail(command, CLI_HOST,
			"%s is not there; build it with `make build`, or set SLUICE_LIBEXEC to its "
			"folder",
			program);
	}
	if (with_command)
		args--; /* main's argv[0] is before the command */
	args[0] = path;
	execv(path, args);
	return cli_fail(command, CLI_HOST, "%s: cannot be run: %s", path, strerror(errno));
}

int cmd_bench(int argc, char **argv)
{
	return program_run("sluice-bench",
		"Usage: sluice bench [OPTION]...\n"
		"\n"
		"Measures emulated devices against split ones with the same guest, image and\n"
		"network port, and prints one table.\n",
		false, argc, argv);
}

int cmd_screen(int argc, char **argv)
{
	return program_run("sluice-screen",
		"Usage: sluice screenshot|screen|watch|type|key --control PATH ...\n"
		"\n"
		"A guest's screen and keyboard, through the socket of `sluice run --control`.\n",
		true, argc, argv);
}
