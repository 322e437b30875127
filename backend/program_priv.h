/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the programs of this folder (sluice-blkd, sluice-bridge) share: options, one line for each
 * mistake, exit statuses, signals.
 */
#ifndef PROGRAM_PRIV_H
#define PROGRAM_PRIV_H

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

/* Exit statuses: ended as it should; the host would not; a mistake in the options. */
enum { PROGRAM_OK = 0, PROGRAM_HOST = 1, PROGRAM_USAGE = 2 };

/* One line on stderr, made printable; returns status. */
int program_vfail(const char *program, int status, const char *fmt, va_list ap);
/* -EINVAL and the like: what was asked for cannot be. The host's own failures are others. */
int program_status_of(int err);

/* A decimal number in a range. */
bool program_number(const char *text, unsigned min, unsigned max, unsigned *out);
/* Ends the item at `s` (a doubled comma stands for one) and returns the start of the next, or NULL.
 */
char *program_item_cut(char *s);

struct program_option {
	const char *name; /* "--control" */
	bool has_value;
	bool repeats;
};

/*
 * Takes argv[*at] (and the value after it): *option is its place in the table of n <= 32. given:
 * those taken so far. A status; one line was printed then.
 */
int program_option_take(const char *program, const struct program_option *options, int n,
	char **argv, int *at, uint32_t *given, int *option, const char **value);

/* SIGTERM, SIGINT and SIGHUP: blocked in every thread that is made from now on, to be waited for
 * with sigwait(). SIGPIPE: ignored. */
void program_signals_block(sigset_t *set);
/* 0 or -errno. */
int program_pidfile_write(const char *path);

#endif
