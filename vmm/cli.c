/* SPDX-License-Identifier: BSD-2-Clause */
/* Options and messages of the command line. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm/cli_priv.h"

int cli_fail(const char *command, int status, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	fprintf(stderr, "sluice%s%s: %s\n", *command ? " " : "", command, text);
	return status;
}

static int option_find(const struct cli_args *a, const char *arg, size_t len)
{
	for (int i = 0; a->options[i].name; i++)
		if (strlen(a->options[i].name) == len && !strncmp(a->options[i].name, arg, len))
			return i;
	return -1;
}

enum cli_next cli_args_next(struct cli_args *a)
{
	const char *arg, *eq;
	size_t len;

	if (++a->at >= a->argc)
		return CLI_END;
	arg = a->argv[a->at];
	a->value = NULL;
	if (arg[0] != '-' || !arg[1]) {
		a->word = arg;
		return CLI_WORD;
	}
	eq = strchr(arg, '=');
	len = eq ? (size_t)(eq - arg) : strlen(arg);
	a->option = option_find(a, arg, len);
	if (a->option < 0) {
		cli_fail(a->command, CLI_USAGE,
			"%.*s: unknown option; `sluice %s --help` lists them",
			(int)(len < 60 ? len : 60), arg, a->command);
		return CLI_BAD;
	}
	if (!a->options[a->option].has_value) {
		if (!eq)
			return CLI_OPTION;
		cli_fail(a->command, CLI_USAGE, "%.*s: takes no value; leave %.60s out", (int)len,
			arg, eq);
		return CLI_BAD;
	}
	if (eq)
		a->value = eq + 1;
	else if (a->at + 1 < a->argc)
		a->value = a->argv[++a->at];
	if (a->value && *a->value)
		return CLI_OPTION;
	/* an empty command line for the kernel is one */
	if (a->value && !strcmp(a->options[a->option].name, "--cmdline"))
		return CLI_OPTION;
	cli_fail(a->command, CLI_USAGE, "%.*s: a value is missing; see `sluice %s --help`",
		(int)len, arg, a->command);
	return CLI_BAD;
}
