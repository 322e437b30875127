/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cable at a serial or parallel port: descriptors of the host's, or a socket at which somebody
 * connects, at the other end. What the other end cannot take now waits in a bounded buffer; nobody
 * is waited for. The device's lock is held around every function but those that say otherwise.
 */
#ifndef LINE_PRIV_H
#define LINE_PRIV_H

#include "vmm/vmm_priv.h"

#define LINE_BACKLOG 16384u

struct line_watch {
	struct io_watch watch;
	struct line *line;
	bool on; /* the I/O thread's */
};

struct line {
	struct device *device;
	struct io_thread *io;     /* NULL: no input, and the backlog goes out with later output */
	struct line_config where; /* descriptors: the machine's creator's */
	int peer;                 /* who connected; -1: nobody */
	bool regular;             /* output to a file: never makes us wait */
	/* instead of all that */
	void (*hook)(void *ctx, const uint8_t *bytes, size_t n);
	void *hook_ctx;
	/* What the device takes of input now, and input. NULL: it has none. */
	size_t (*room)(struct line *l);
	void (*input)(struct line *l, const uint8_t *bytes, size_t n);
	/* The backlog was full and is not any more. May be NULL. */
	void (*drained)(struct line *l);
	/* output that could not go yet */
	uint8_t *backlog;
	unsigned backlog_head, backlog_len;
	bool full; /* drained() is due */
	bool retry_armed;
	bool stalled; /* input waits for room */
	bool quiesced;
	struct io_work retry_work, input_work;
	struct io_timer retry_timer;
	struct line_watch in, listener, from_peer;
};

/* hook, room, input and drained are set before. No lock. */
void line_open(struct line *l, struct device *d, struct io_thread *io, const struct line_config *c);
/* Nothing of it is used any more; the device is quiesced. No lock. */
void line_close(struct line *l);
/* How many bytes are on their way; the others are lost. */
size_t line_write(struct line *l, const uint8_t *bytes, size_t n);
static inline bool line_is_full(const struct line *l)
{
	return l->backlog_len == LINE_BACKLOG;
}
/* There is room for input again. */
void line_input_resume(struct line *l);
/* Gives the other end a moment to take the rest, and takes no more input. No lock; blocks. */
void line_quiesce(struct line *l);
void line_resume(struct line *l);

#endif
