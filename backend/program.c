/* SPDX-License-Identifier: BSD-2-Clause */
/* Options, messages and signals of the programs that serve back-ends. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/program_priv.h"

int program_vfail(const char *program, int status, const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	fprintf(stderr, "%s: %s\n", program, text);
	return status;
}

static int fail(const char *program, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	program_vfail(program, PROGRAM_USAGE, fmt, ap);
	va_end(ap);
	return PROGRAM_USAGE;
}

int program_status_of(int err)
{
	switch (-err) {
	case EINVAL:
	case ENOENT:
	case ENOTSUP:
	case ENAMETOOLONG:
	case EISDIR:
	case ENOTDIR:
	case EEXIST:
	case EBADF:
		return PROGRAM_USAGE;
	default:
		return PROGRAM_HOST;
	}
}

bool program_number(const char *text, unsigned min, unsigned max, unsigned *out)
{
	unsigned long v;
	char *end;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || errno || *end || v < min || v > max)
		return false;
	*out = (unsigned)v;
	return true;
}

char *program_item_cut(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (*s == ',') {
			if (s[1] != ',') {
				*to = '\0';
				return s + 1;
			}
			s++;
		}
		*to++ = *s;
	}
	*to = '\0';
	return NULL;
}

/* The option that arg names, up to its '='; -1: none. */
static int option_find(const struct program_option *options, int n, const char *arg, size_t len)
{
	for (int i = 0; i < n; i++)
		if (strlen(options[i].name) == len && !strncmp(options[i].name, arg, len))
			return i;
	return -1;
}

int program_option_take(const char *program, const struct program_option *options, int n,
	char **argv, int *at, uint32_t *given, int *option, const char **value)
{
	const char *arg = argv[*at], *eq = strchr(arg, '=');
	size_t len = eq ? (size_t)(eq - arg) : strlen(arg);
	const struct program_option *o;
	int found = option_find(options, n, arg, len);

	if (found < 0)
		return fail(program, "%.*s: unknown option; `%s --help` lists them",
			(int)(len < 60 ? len : 60), arg, program);
	o = &options[found];
	if (*given & 1u << found && !o->repeats)
		return fail(program, "%s: given twice; give it once", o->name);
	*given |= 1u << found;
	if (!o->has_value && eq)
		return fail(program, "%s: takes no value", o->name);
	*value = eq ? eq + 1 : NULL;
	if (o->has_value && !eq && argv[*at + 1])
		*value = argv[++*at];
	if (o->has_value && (!*value || !**value))
		return fail(program, "%s: a value is missing; see `%s --help`", o->name, program);
	*option = found;
	return PROGRAM_OK;
}

void program_signals_block(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int program_pidfile_write(const char *path)
{
	char text[24];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)n) != n)
		rc = -EIO;
	close(fd);
	return rc;
}
