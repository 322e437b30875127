/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice bench`: runs the benchmark, a program of its own, with the arguments as they are. The
 * monitor knows nothing of it but its name.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/cli_priv.h"

#define BENCH_PROGRAM "sluice-bench"

static const char help[] =
	"Usage: sluice bench [OPTION]...\n"
	"\n"
	"Measures emulated devices against split ones with the same guest, image and\n"
	"network port, and prints one table. The work is done by the program\n"
	"sluice-bench, looked for in $SLUICE_LIBEXEC, beside sluice, and in\n"
	"../libexec/sluice from there.\n"
	"\n";

/* Its path, when it is there. */
static bool bench_in(const char *dir, const char *below, char path[PATH_MAX])
{
	int len = snprintf(path, PATH_MAX, "%s%s/%s", dir, below, BENCH_PROGRAM);

	return len > 0 && len < PATH_MAX && access(path, X_OK) == 0;
}

static bool bench_find(char path[PATH_MAX])
{
	const char *libexec = getenv("SLUICE_LIBEXEC");
	char self[PATH_MAX];
	ssize_t len;
	char *slash;

	/* who sets the variable means it: nothing else is tried */
	if (libexec && *libexec)
		return bench_in(libexec, "", path);
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len <= 0)
		return false;
	self[len] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return false;
	*slash = '\0';
	return bench_in(self, "", path) || bench_in(self, "/../libexec/sluice", path);
}

static bool help_asked(int argc, char **argv)
{
	return argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
}

int cmd_bench(int argc, char **argv)
{
	char path[PATH_MAX];

	if (!bench_find(path)) {
		if (help_asked(argc, argv)) {
			fputs(help, stdout);
			return CLI_OK;
		}
		return cli_fail("bench", CLI_HOST,
			"%s is not there; build it with `make build`, or set SLUICE_LIBEXEC to its "
			"folder",
			BENCH_PROGRAM);
	}
	argv[0] = path;
	execv(path, argv);
	return cli_fail("bench", CLI_HOST, "%s: cannot be run: %s", path, strerror(errno));
}
