/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line: what the commands of `sluice` share. One thread, the main one.
 */
#ifndef CLI_PRIV_H
#define CLI_PRIV_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

/* Exit statuses. */
enum {
	CLI_OK = 0,
	CLI_HOST = 1,   /* the host would not: no KVM, no memory, an image in use */
	CLI_USAGE = 2,  /* the user got something wrong */
	CLI_TRIPLE = 3, /* the guest ended in a triple fault */
};

/* Each gets its own arguments, argv[0] being the command's name; the exit status. */
int cmd_run(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_bench(int argc, char **argv);
/* screenshot, screen, watch, type, key: argv[-1] is main's argv[0]. */
int cmd_screen(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* Where a program of ours is (cmd_programs.c). */
bool cli_program_find(const char *program, char path[PATH_MAX]);

/* ------------------------------------------------------------------ options (cli.c) */

struct cli_option {
	const char *name; /* with its dashes */
	bool has_value;
};

/* Walks over argv[1..]: "--key value" and "--key=value" alike. */
struct cli_args {
	const char *command;
	int argc;
	char **argv;
	int at;
	const struct cli_option *options; /* ends with a NULL name */
	int option;                       /* index of the one found */
	const char *value;
	const char *word; /* an argument that is no option */
};

enum cli_next { CLI_END, CLI_OPTION, CLI_WORD, CLI_BAD };
/* CLI_BAD: told on stderr, in one line. */
enum cli_next cli_args_next(struct cli_args *a);

/* One line on stderr, "sluice <command>: ...", control bytes shown as '?'; returns status. */
int cli_fail(const char *command, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ------------------------------------------------------------------ terminal (terminal.c) */

/*
 * The user's terminal in raw mode, so that every key reaches the guest, with Ctrl-A as the way out.
 * Where standard input is no terminal, bytes go through as they are.
 */
struct terminal {
	int fd;
	bool is_tty;
	bool raw;
	bool prefixed; /* the last key was Ctrl-A */
};

enum terminal_key { TERMINAL_NONE, TERMINAL_QUIT };

void terminal_open(struct terminal *t, int fd);
/* Raw mode on, when this process is the terminal's foreground one. */
void terminal_raw(struct terminal *t);
/* The mode found at the start. Also at exit and on a crash, by itself. */
void terminal_restore(struct terminal *t);
/* 0 and 0: no terminal, or one that does not know. */
void terminal_size_get(int fd, uint16_t *cols, uint16_t *rows);
/* Takes Ctrl-A sequences out of what was typed, in place; *n is what is left for the guest. */
enum terminal_key terminal_filter(struct terminal *t, uint8_t *bytes, size_t *n);

#endif
