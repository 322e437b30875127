/* SPDX-License-Identifier: BSD-2-Clause */
/* The program `sluice`: finds the command. */
#include <stdio.h>
#include <string.h>

#include "vmm/cli_priv.h"

#define COMMANDS "run, bench, devices, screen, watch, screenshot, type, key, version or help"

static const char help[] =
	"Usage: sluice COMMAND [OPTION]...\n"
	"\n"
	"A virtual machine monitor for Linux hosts with KVM, built around I/O: each\n"
	"disk and network port is an emulated device or a split one, in one word.\n"
	"\n"
	"Commands:\n"
	"  run          run a guest\n"
	"  bench        measure emulated devices against split ones\n"
	"  devices      list device models and their options\n"
	"  screenshot   a guest's screen as a picture\n"
	"  screen       what a guest's screen says\n"
	"  watch        a guest's text screen and keyboard in this terminal\n"
	"  type         type text on a guest's keyboard\n"
	"  key          press keys, such as ctrl-alt-delete\n"
	"  version      print the version\n"
	"  help         this text, or `sluice help COMMAND`\n"
	"\n"
	"Each command has --help.\n"
	"\n"
	"Examples:\n"
	"  sluice run --kernel vmlinux --memory 512M --disk path=web.img\n"
	"  sluice bench --quick\n"
	"  sluice devices virtio-blk\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"run", cmd_run},
	{"bench", cmd_bench},
	{"devices", cmd_devices},
	{"screenshot", cmd_screen},
	{"screen", cmd_screen},
	{"watch", cmd_screen},
	{"type", cmd_screen},
	{"key", cmd_screen},
	{"version", cmd_version},
	{"--version", cmd_version},
};

static int command_run(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[0], commands[i].name))
			return commands[i].run(argc, argv);
	return cli_fail("", CLI_USAGE, "%.60s: unknown command; use " COMMANDS, argv[0]);
}

int main(int argc, char **argv)
{
	char *command_help[] = {argv[0], NULL, (char *)"--help", NULL};

	if (argc < 2)
		return cli_fail("", CLI_USAGE, "a command is missing; use " COMMANDS);
	if (strcmp(argv[1], "help") != 0 && strcmp(argv[1], "--help") != 0 &&
		strcmp(argv[1], "-h") != 0)
		return command_run(argc - 1, argv + 1);
	if (argc > 2) {
		command_help[1] = argv[2];
		return command_run(2, command_help + 1);
	}
	fputs(help, stdout);
	return CLI_OK;
}
