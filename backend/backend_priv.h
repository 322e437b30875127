/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of backend/ share among themselves. */
#ifndef BACKEND_PRIV_H
#define BACKEND_PRIV_H

#include <pthread.h>
#include <string.h>

#include "backend/backend.h"

void histogram_add_n(struct histogram *h, uint64_t ns, uint64_t n);

void backend_why(char why[BACKEND_WHY_MAX], const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ------------------------------------------------------------------ I/O thread */

/*
 * A watch as the wait sees it. Outlives the io_watch: an event may be on its way when the
 * watch is removed, and then finds no watch here.
 */
struct io_slot {
	struct io_watch *watch; /* NULL: removed */
	int fd;
	bool armed; /* io_uring: a poll request is in the kernel and will complete */
	struct io_slot *next;
};

#define IO_NO_TIMEOUT UINT64_MAX

/* One way of waiting. All functions run on the I/O thread. */
struct io_wait_ops {
	const char *name;
	int (*open)(struct io_thread *io);
	void (*close)(struct io_thread *io);
	int (*watch_add)(struct io_thread *io, struct io_slot *slot);
	void (*watch_remove)(struct io_thread *io, struct io_slot *slot);
	/* Submits what is pending and reaps what is done, without waiting; how much was reaped or
	 * submitted. */
	unsigned (*round)(struct io_thread *io);
	/* Submits, waits for an event or the timeout, reaps. One system call. */
	void (*wait)(struct io_thread *io, uint64_t timeout_ns);
};

extern const struct io_wait_ops io_wait_uring;
extern const struct io_wait_ops io_wait_epoll;

struct io_thread {
	/* written by any thread */
	_Atomic(struct io_work *) posted __attribute__((aligned(64)));
	atomic_bool sleeping;

	/* the I/O thread's own */
	struct io_thread_options opts __attribute__((aligned(64)));
	char name[16];
	pthread_t thread;
	bool stop;
	int error; /* of starting */
	const struct io_wait_ops *wait;
	void *wait_data;
	struct io_uring *ring;
	int wake_fd;
	struct io_watch wake_watch;
	struct io_poller *pollers;
	struct io_poller *cursor; /* next poller of the walk going on: removal moves it */
	struct io_slot *slots;
	bool slots_dead; /* some slot has lost its watch */
	struct io_timer *timers;
	uint64_t now_ns; /* cached: fresh in idle rounds, every few rounds otherwise */
	uint64_t window_ns;
	uint64_t window_max_ns;
	unsigned misses; /* long windows in a row that did not pay */
	bool polite; /* what is polled for is other threads' work, this round: see io_give_way() */
	unsigned crowded; /* sleeps until the window may grow again */
	unsigned rounds;
	/* means, the newest counting most: pauses between work, work between pauses */
	uint64_t pause_ns, busy_ns;
	uint64_t pause_since, busy_since; /* 0: not in one */

	_Atomic uint64_t system_calls;
	_Atomic uint64_t sleeps;
	_Atomic uint64_t wakeups;
	_Atomic uint64_t poll_hits;
	_Atomic uint64_t poll_misses;
	_Atomic uint64_t idle_ns;
};

/* For the waits: an event of a slot. Reads a draining watch's eventfd, then tells its owner. */
void io_slot_event(struct io_thread *io, struct io_slot *slot);
/* Frees slots without watch or armed request. */
void io_slots_sweep(struct io_thread *io);
/* The thread's cached clock: good to some tens of microseconds while it is busy. */
uint64_t io_thread_now_ns(const struct io_thread *io);
/* Value read from a draining watch's eventfd at its last event. */
static inline uint64_t io_watch_value(const struct io_watch *w)
{
	return w->private_data[1];
}

/* ------------------------------------------------------------------ segments */

_Static_assert(sizeof(struct ring_seg) == sizeof(struct iovec) &&
		       offsetof(struct ring_seg, base) == offsetof(struct iovec, iov_base) &&
		       offsetof(struct ring_seg, len) == offsetof(struct iovec, iov_len),
	"a segment is an iovec");

static inline struct iovec *segs_iov(struct ring_seg *segs)
{
	return (struct iovec *)segs;
}

/*
 * Takes len bytes off the front of segments, changing them in place. to NULL: skips. False when
 * they are too short (what there was is taken).
 */
static inline bool segs_pull(struct ring_seg **segs, uint32_t *n, void *to, size_t len)
{
	uint8_t *p = to;

	while (len && *n) {
		struct ring_seg *s = *segs;
		size_t part = s->len < len ? s->len : len;

		if (p) {
			memcpy(p, s->base, part);
			p += part;
		}
		s->base = (uint8_t *)s->base + part;
		s->len -= part;
		len -= part;
		if (!s->len) {
			(*segs)++;
			(*n)--;
		}
	}
	return !len;
}

/* ------------------------------------------------------------------ requests in flight */

/*
 * What a queue has taken and not given back, recorded in memory that outlives the process (the
 * region of one queue, see vhost_user_priv.h) in steps between which the process may die. The
 * region is read once, when it is opened, and then only written: what decides is kept here. (io)
 */
struct inflight;

/*
 * ring: just initialised. *state: where the transport says the queue is, for a region that was not
 * used so far; else set to where it is. -EINVAL: what the region says cannot be.
 */
int inflight_open(struct inflight **out, void *region, size_t bytes, const struct ring_device *ring,
	struct ring_device_state *state);
void inflight_close(struct inflight *f);
/* How many are to be done again, and not yet taken. */
uint32_t inflight_waiting(const struct inflight *f);
/* Takes them, in their order; as ring_device_pop(). */
int inflight_retake(struct inflight *f, struct ring_device *ring, struct ring_chain *chains,
	uint32_t max, struct ring_seg *segs, uint32_t max_segs);
/* Chains just popped; `before` is where the ring was. */
void inflight_popped(struct inflight *f, const struct ring_device *ring,
	const struct ring_device_state *before, const struct ring_chain *chains, uint32_t n);
/* Before and after ring_device_push(). */
void inflight_push_begin(struct inflight *f, const struct ring_used *used, uint32_t n);
void inflight_push_end(struct inflight *f, const struct ring_used *used, uint32_t n);

/* ------------------------------------------------------------------ split devices */

/* For kinds. Takes over nothing on failure. d->ops, nqueues, features and so on are set before. */
int split_init(struct split_device *d, char why[BACKEND_WHY_MAX]);
/* The last step of creation: from now on the I/O thread polls it. */
void split_attach(struct split_device *d);
void split_fini(struct split_device *d);
/* (io) Completes buffers of a queue; the interrupt follows at batch_end. */
void split_queue_push(struct split_queue *q, const struct ring_used *used, uint32_t n);
/* (io) Takes requests as ring_device_pop() does: first those a dead back-end left. An error breaks
 * the device and gives 0. */
unsigned split_queue_pop(struct split_queue *q, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs);
/* (io) The driver broke the protocol. */
void split_break(struct split_device *d);
/* (io) Result of ring_device_pop(): the number popped; a negative one breaks the device and gives
 * 0. */
unsigned split_popped(struct split_device *d, int n);
/* Common features: VERSION_1, layout, indirect, event index, in-order. */
uint64_t split_features_common(
	enum split_ring_choice ring, bool no_indirect, bool no_event_idx, bool in_order);

/* Sets what split_ring_options say; -EINVAL for a queue size that cannot be. */
int split_ring_options_apply(struct split_device *d, const struct split_ring_options *o,
	uint32_t queue_size, char why[BACKEND_WHY_MAX]);

static inline bool split_has(const struct split_device *d, unsigned bit)
{
	return d->driver_features & VIRTIO_BIT(bit);
}

static inline bool split_queue_live(const struct split_queue *q)
{
	return q->running && !q->device->broken;
}

/* (io) Is there something for split_queue_pop()? */
static inline bool split_queue_has_work(const struct split_queue *q)
{
	return ring_device_has_work(&q->ring) || (q->inflight && inflight_waiting(q->inflight));
}

/* ------------------------------------------------------------------ memory of others */

/*
 * Shared memory whose file another process may shorten: a touch beyond its end would be the end of
 * this process (SIGBUS). Memory that is guarded turns into zeroes of this process's own instead,
 * and hit(ctx) is called, in a signal handler, on the thread that touched it.
 */
struct mem_guard;
int mem_guard_add(
	struct mem_guard **out, void *base, size_t bytes, void (*hit)(void *ctx), void *ctx);
/* Nobody touches the memory any more. */
void mem_guard_remove(struct mem_guard *g);

/* ------------------------------------------------------------------ receiving from a port */

/*
 * When to ask a port for frames. A port that only its descriptor can tell about (a tap) is asked
 * after that was readable, and now and then while the thread is awake anyway; others are asked when
 * they say so. The descriptor is watched during sleep only while there is room for what it would
 * give.
 */
struct port_rx {
	struct io_thread *io;
	struct net_port *port;
	unsigned queue;
	int fd;
	bool exact; /* net_port_rx_ready() tells the truth */
	bool maybe; /* the descriptor was readable and has not been found empty since */
	bool watching;
	uint64_t next_try_ns;
	struct io_watch watch;
	struct io_timer timer;
};

void port_rx_init(struct port_rx *rx, struct io_thread *io, struct net_port *port, unsigned queue);
bool port_rx_due(struct port_rx *rx);
/* After a receive: fewer frames than asked for mean that the port is empty. */
void port_rx_asked(struct port_rx *rx, unsigned asked, unsigned got);
/* Before sleep, room: frames could be stored. True: there are frames now, do not sleep. */
bool port_rx_sleep(struct port_rx *rx, bool room);
void port_rx_stop(struct port_rx *rx);

/* ------------------------------------------------------------------ a port's link */

struct port_link {
	struct io_thread *io;
	struct net_port *port;
	struct io_watch watch;
	bool up;
	void (*changed)(struct port_link *l); /* on the I/O thread; set before the start */
};

/* On the I/O thread, both. */
int port_link_start(struct port_link *l, struct io_thread *io, struct net_port *port);
void port_link_stop(struct port_link *l);

#endif
