/* SPDX-License-Identifier: BSD-2-Clause */
/* The user's terminal: raw while a guest has it, restored however the program ends. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/cli_priv.h"

#define CTRL_A 0x01

/* A process has one controlling terminal: what it was like, for exit handlers and signals. */
static struct termios terminal_saved;
static volatile sig_atomic_t terminal_raw_fd = -1;

static void terminal_put_back(void)
{
	int fd = terminal_raw_fd;

	terminal_raw_fd = -1;
	if (fd >= 0)
		tcsetattr(fd, TCSANOW, &terminal_saved);
}

static void terminal_crash(int sig)
{
	terminal_put_back();
	raise(sig); /* SA_RESETHAND: the default action this time */
}

void terminal_open(struct terminal *t, int fd)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
	struct sigaction sa = {.sa_handler = terminal_crash, .sa_flags = (int)SA_RESETHAND};

	*t = (struct terminal){.fd = fd, .is_tty = isatty(fd)};
	if (!t->is_tty || tcgetattr(fd, &terminal_saved) < 0) {
		t->is_tty = false;
		return;
	}
	atexit(terminal_put_back);
	for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		sigaction(crashes[i], &sa, NULL);
}

void terminal_raw(struct terminal *t)
{
	struct termios raw = terminal_saved;

	/* in the background, touching the terminal would stop us */
	if (!t->is_tty || tcgetpgrp(t->fd) != getpgrp())
		return;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST; /* our own messages end their lines as usual */
	t->raw = tcsetattr(t->fd, TCSANOW, &raw) == 0;
	if (t->raw)
		terminal_raw_fd = t->fd;
}

void terminal_restore(struct terminal *t)
{
	terminal_put_back();
	t->raw = false;
}

void terminal_size_get(int fd, uint16_t *cols, uint16_t *rows)
{
	struct winsize size = {0};

	if (ioctl(fd, TIOCGWINSZ, &size) < 0)
		size = (struct winsize){0};
	*cols = size.ws_col;
	*rows = size.ws_row;
}

static void terminal_help(void)
{
	static const char text[] = "\n"
				   "Ctrl-A x       quit\n"
				   "Ctrl-A a       send Ctrl-A to the guest (also Ctrl-A Ctrl-A)\n"
				   "Ctrl-A h       this help\n";

	fputs(text, stderr);
}

enum terminal_key terminal_filter(struct terminal *t, uint8_t *bytes, size_t *n)
{
	size_t kept = 0;

	if (!t->raw)
		return TERMINAL_NONE;
	for (size_t i = 0; i < *n; i++) {
		uint8_t c = bytes[i];

		if (!t->prefixed) {
			t->prefixed = c == CTRL_A;
			if (!t->prefixed)
				bytes[kept++] = c;
			continue;
		}
		t->prefixed = false;
		switch (c) {
		case 'x':
		case 'X':
			*n = kept;
			return TERMINAL_QUIT;
		case 'a':
		case CTRL_A:
			bytes[kept++] = CTRL_A;
			break;
		case 'h':
		case '?':
			terminal_help();
			break;
		default:
			break; /* not ours: swallowed with its prefix */
		}
	}
	*n = kept;
	return TERMINAL_NONE;
}
