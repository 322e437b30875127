/* SPDX-License-Identifier: BSD-2-Clause */
/* The files of virtio-console. Everything here runs on the I/O thread. */
#ifndef SPLIT_CONSOLE_PRIV_H
#define SPLIT_CONSOLE_PRIV_H

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define CON_CHAIN_MAX 64u
#define CON_BATCH     16u
#define CON_SEGS      256u
#define CON_INPUT     4096u
#define CON_EMERG     256u
#define CON_BOUNCE    4096u

enum { RXQ, TXQ, QUEUES };

enum con_out {
	CON_NOWHERE,
	CON_HOOK,
	CON_WRITE,  /* a file, or a descriptor that says EAGAIN */
	CON_SOCKET, /* told so at each call */
	CON_SLOW,   /* a blocking pipe or terminal: asked first, and given little */
};

struct vcon {
	struct split_device common;
	struct split_console_options o;
	enum con_out out;
	int epoll_fd; /* one-shot: room in out_fd, bytes in in_fd; -1: neither */
	struct io_watch watch;
	uint64_t look_ns;
	bool out_watched; /* out_fd is of a kind that can be waited for */
	bool out_blocked; /* full: the transmit queue waits */
	uint32_t tx_done; /* bytes of the transmit queue's first buffer that are out */

	int in_fd; /* our own duplicate; -1: none, or at its end */
	bool in_watched, in_armed, in_ready;

	struct io_work work; /* any thread has something new for the I/O thread */
	atomic_bool resumed, resized;
	_Atomic uint32_t size; /* columns, rows << 16 */

	/* below: under the lock, which is held for copies only */
	pthread_mutex_t lock;
	uint32_t input_head, input_len;
	uint32_t emerg_len;
	uint8_t input[CON_INPUT]; /* a ring */
	uint8_t emerg[CON_EMERG];

	/* scratch of one poll */
	struct ring_chain chains[CON_BATCH];
	struct ring_seg segs[CON_SEGS];
	struct ring_used used[CON_BATCH];
	uint8_t bounce[CON_BOUNCE];
};

/* split_console_out.c */
void vcon_arm(struct vcon *v, int fd, uint32_t events);
void vcon_watch_ready(struct io_watch *w);
/* Looks at the descriptors now and then: they wake a sleeping thread only. */
void vcon_look(struct vcon *v);
unsigned vcon_tx_poll(struct vcon *v);
unsigned vcon_emerg_poll(struct vcon *v);

#endif
