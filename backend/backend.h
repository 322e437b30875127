/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's halves of split devices, the I/O threads that drive them, and what every device
 * (emulated ones too) shares: work handed to an I/O thread, counters, saved state. This is the
 * only header of backend/ that other folders include.
 *
 * A split device here cannot tell whether it lives in the monitor or in a process of its own: it
 * sees guest memory, queues, an interrupt function and nothing of PCI or KVM.
 *
 * Errors: 0 or -errno. Units: bytes, nanoseconds (_ns), microseconds (_us).
 */
#ifndef BACKEND_H
#define BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blk/blk.h"
#include "netbridge/netbridge.h"
#include "ring/ring.h"

#define BACKEND_WHY_MAX    256u
#define BACKEND_QUEUES_MAX 64u

/* ------------------------------------------------------------------ counters */

#define HISTOGRAM_BUCKETS 128u

/* Log-linear: four buckets to each power of two nanoseconds. One writer; readers may see it
 * mid-update. */
struct histogram {
	uint64_t count;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t ns);
/* The upper edge of the bucket in which the fraction (0..1) of samples lies; 0 when empty. */
uint64_t histogram_percentile_ns(const struct histogram *h, double fraction);

/*
 * What every device counts. Each field has one writer at a time (the I/O thread, or a vCPU thread
 * under the device's lock), and is read from anywhere: use counter_add() and counter_get().
 */
struct device_counters {
	_Atomic uint64_t requests;
	_Atomic uint64_t bytes;
	_Atomic uint64_t
		doorbells;      /* split: doorbells heard; emulated: registers that start work */
	_Atomic uint64_t exits; /* accesses that reached user space */
	_Atomic uint64_t coalesced;  /* posted writes drained from KVM's ring */
	_Atomic uint64_t interrupts; /* raised */
	_Atomic uint64_t interrupts_suppressed;
	_Atomic uint64_t system_calls; /* made for this device alone */
	_Atomic uint64_t poll_hits;
	_Atomic uint64_t poll_misses;
	_Atomic uint64_t throttled_ns;
	_Atomic uint64_t errors;    /* reported to the guest */
	_Atomic uint64_t malformed; /* the guest's own mistakes */
	_Atomic uint64_t dropped;   /* frames */
};

static inline void counter_add(_Atomic uint64_t *c, uint64_t n)
{
	/* one writer: a plain read and a plain write that no reader sees torn */
	atomic_store_explicit(
		c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t counter_get(const _Atomic uint64_t *c)
{
	return atomic_load_explicit((_Atomic uint64_t *)c, memory_order_relaxed);
}

uint64_t clock_now_ns(void); /* CLOCK_MONOTONIC */

/* ------------------------------------------------------------------ saved state */

/*
 * A device's state is a sequence of versioned sections of little-endian values. The writer grows a
 * buffer; the reader checks every length and remembers the first error, so that a device reads
 * all its fields and checks once, at the end. What is read is as hostile as guest memory.
 */
struct state_writer {
	uint8_t *data;
	size_t len;
	size_t room;
	size_t section; /* offset of the open section's length field */
	int error;
};

struct state_reader {
	const uint8_t *data;
	size_t len;
	size_t pos;
	size_t section_end;
	int error; /* first error: -EINVAL short, malformed or wrong section; -ENOTSUP a newer
		      version */
};

void state_writer_free(struct state_writer *w);
void state_section_begin(struct state_writer *w, const char *name, uint32_t version);
void state_section_end(struct state_writer *w);
void state_put_u8(struct state_writer *w, uint8_t v);
void state_put_u16(struct state_writer *w, uint16_t v);
void state_put_u32(struct state_writer *w, uint32_t v);
void state_put_u64(struct state_writer *w, uint64_t v);
void state_put_bytes(struct state_writer *w, const void *p, size_t n);

void state_reader_init(struct state_reader *r, const void *data, size_t len);
/* Enters the next section, which must have this name; its version, at most max_version; 0 on error.
 */
uint32_t state_section_enter(struct state_reader *r, const char *name, uint32_t max_version);
/* Leaves it: unread bytes are an error. */
void state_section_leave(struct state_reader *r);
uint8_t state_get_u8(struct state_reader *r);
uint16_t state_get_u16(struct state_reader *r);
uint32_t state_get_u32(struct state_reader *r);
uint64_t state_get_u64(struct state_reader *r);
void state_get_bytes(struct state_reader *r, void *p, size_t n);

/* ------------------------------------------------------------------ I/O thread */

/*
 * One thread, one wait: an io_uring when the host allows it (submission of block requests and
 * waiting are one system call), else epoll. It runs work posted to it, watches descriptors, and
 * calls pollers. After the last work it keeps polling for a while, a window it tunes to how well
 * polling has been paying, then lets every poller re-arm its notifications and look once more, and
 * sleeps.
 */
struct io_thread;

struct io_thread_options {
	const char *name; /* at most 15 bytes, as ps shows it */
	/* Upper bound of the polling window; 0: never poll. Pauses that are long beside a sleep's
	 * cost and beside the work between them are slept through all the same, and below
	 * 1,000,000 a window ends when work is overdue, many times the mean pause. */
	uint32_t poll_max_us;
	bool no_uring; /* use epoll even where io_uring is allowed */
};

struct io_thread_counters {
	uint64_t system_calls;
	uint64_t sleeps;
	uint64_t wakeups;
	uint64_t poll_hits;   /* polling windows in which work came */
	uint64_t poll_misses; /* windows that ended in sleep */
	uint64_t idle_ns;     /* polled for nothing: processor time beyond this was work */
	uint64_t cpu_ns;      /* CPU time of the thread */
};

int io_thread_create(
	struct io_thread **out, const struct io_thread_options *opts, char why[BACKEND_WHY_MAX]);
/* Everything attached must be detached before. Joins the thread. */
void io_thread_destroy(struct io_thread *io);
void io_thread_counters_get(struct io_thread *io, struct io_thread_counters *out); /* any thread */
struct io_uring *io_thread_ring(struct io_thread *io); /* NULL with epoll; for blk_channel_open() */
const char *io_thread_wait_name(const struct io_thread *io); /* "io_uring" or "epoll" */
bool io_thread_is_current(const struct io_thread *io);

/* Work for the thread: embedded by its owner, who may reuse it once run() has begun. */
struct io_work {
	void (*run)(struct io_work *work);
	struct io_work *next;
	atomic_bool queued;
};

/* Runs work on the thread soon; wakes it if it sleeps (and only then makes a system call). Any
 * thread, never blocks, lock-free. Posting work that is still queued does nothing. True if a
 * wake-up was needed. */
bool io_thread_post(struct io_thread *io, struct io_work *work);

/* Runs fn(ctx) on the thread and waits for it to return (directly when called on it). Blocks: for
 * control paths, not vCPUs. */
void io_thread_call(struct io_thread *io, void (*fn)(void *ctx), void *ctx);

/*
 * A source of work. Embedded by its owner. All functions run on the I/O thread.
 *   poll:   do what can be done now, bounded (a batch); how much was done (0: nothing).
 *   sleep:  about to sleep: re-arm notifications, look once more; true: work is there, do not
 * sleep. May be NULL. wake:   after sleeping, or when sleeping was called off: notifications may be
 * turned off again. May be NULL. batch_end: after a round of polls and completions: push and signal
 * what has gathered. May be NULL. poll is called in every round while the thread is awake.
 */
struct io_poller {
	unsigned (*poll)(struct io_poller *p);
	bool (*sleep)(struct io_poller *p);
	void (*wake)(struct io_poller *p);
	void (*batch_end)(struct io_poller *p);
	struct io_poller *next;
};

void io_poller_add(struct io_thread *io, struct io_poller *p);    /* on the I/O thread */
void io_poller_remove(struct io_thread *io, struct io_poller *p); /* on the I/O thread */

/*
 * A watched descriptor: while the thread sleeps, its readiness (POLLIN) wakes it. ready() runs on
 * the I/O thread when it has become readable; the owner reads it. With drain set it is an eventfd
 * that the thread reads itself, and ready() may be NULL. Level-triggered: reported again in the
 * next sleep if still readable.
 */
struct io_watch {
	int fd;
	bool drain;
	void (*ready)(struct io_watch *w);
	struct io_watch *next;
	uint64_t private_data[2];
};

int io_watch_add(struct io_thread *io, struct io_watch *w); /* on the I/O thread */
void io_watch_remove(struct io_thread *io,
	struct io_watch *w); /* on the I/O thread; ready() is not called again */

/* A one-shot timer; re-armed by setting again, 0: disarmed. On the I/O thread. */
struct io_timer {
	void (*expired)(struct io_timer *t);
	uint64_t at_ns; /* clock_now_ns() */
	struct io_timer *next;
};

void io_timer_set(struct io_thread *io, struct io_timer *t, uint64_t at_ns);

/* ------------------------------------------------------------------ split devices */

/* virtio 1.2 section 6: feature bits every split device shares. */
enum {
	VIRTIO_F_INDIRECT_DESC = 28,
	VIRTIO_F_EVENT_IDX = 29,
	VIRTIO_F_VERSION_1 = 32,
	VIRTIO_F_ACCESS_PLATFORM = 33,
	VIRTIO_F_RING_PACKED = 34,
	VIRTIO_F_IN_ORDER = 35,
	VIRTIO_F_NOTIFICATION_DATA = 38,
};
#define VIRTIO_BIT(n) (1ull << (n))

enum { VIRTIO_ID_NET = 1, VIRTIO_ID_BLOCK = 2 };
enum { VIRTIO_ID_VSOCK = 19, VIRTIO_ID_FS = 26 };
enum { VIRTIO_ID_CONSOLE = 3, VIRTIO_ID_RNG = 4, VIRTIO_ID_BALLOON = 5 };

/* How a device tells its driver something. Called on the I/O thread; must not block. */
struct split_signal {
	/* a queue's interrupt; the device has already asked ring_device_needs_interrupt() */
	void (*queue)(void *ctx, unsigned queue);
	/* configuration change interrupt */
	void (*config)(void *ctx);
	/* the driver broke the protocol: DEVICE_NEEDS_RESET, then a configuration change interrupt
	 */
	void (*broken)(void *ctx);
	/*
	 * An eventfd whose every write interrupts for the queue, for a device served by another
	 * process; it stays the transport's. -1: there is none now, queue() is to be called. NULL:
	 * as if always -1. When the answer changes the transport calls split_signal_changed().
	 */
	int (*queue_fd)(void *ctx, unsigned queue);
	void *ctx;
};

struct split_queue_config {
	uint32_t size;
	uint64_t desc_gpa, driver_gpa, device_gpa;
	int doorbell_fd; /* eventfd, the transport's; readable when the driver rings */
	struct ring_device_state state; /* positions to start from */
	bool restore;                   /* use state; else the beginning */
	bool disabled;                  /* see split_queue_enable() */
	/*
	 * Memory, which outlives this process, for what is in flight (see struct inflight in
	 * backend_priv.h); NULL: not recorded; not with in-order (-ENOTSUP). What it holds as in
	 * flight at the start is done first, in its order, and decides the positions.
	 */
	void *inflight;
	size_t inflight_bytes;
};

struct split_device;

/*
 * For a kind whose queues another process serves: starting and stopping ends here instead of at a
 * ring. d->queues[q].ring is initialised, its areas checked, and its positions are those to start
 * from, or where the other process has stopped. All (io), and none waits for the other process:
 * what cannot be said now is said when it is there.
 */
struct split_remote_ops {
	/* Is this queue served in this process after all? */
	bool (*here)(struct split_device *d, unsigned q);
	int (*queue_start)(struct split_device *d, unsigned q, int doorbell_fd);
	/* Begins to stop the queue; ops->inflight() is 0 once all have and positions are known. */
	void (*queue_stop)(struct split_device *d, unsigned q);
	/* signal.queue_fd() has changed its answer */
	void (*signal_changed)(struct split_device *d);
	/* a doorbell that did not come by eventfd */
	void (*doorbell)(struct split_device *d);
	/* What the other process has written goes into the dirty bitmaps of d->mem. */
	void (*dirty_sync)(struct split_device *d);
};

/*
 * What a kind of split device provides. Functions marked (io) run on the device's I/O thread, the
 * others on any thread, never two at once for one device.
 */
struct split_ops {
	const char *name; /* "virtio-blk" */
	uint32_t virtio_id;
	uint32_t config_size;
	void (*config_read)(struct split_device *d, uint32_t offset, void *to, uint32_t len);
	void (*config_write)(
		struct split_device *d, uint32_t offset, const void *from, uint32_t len);
	/* the driver has accepted d->driver_features; queues start afterwards */
	int (*negotiated)(struct split_device *d);
	/* What every request popped from a queue is looked at first for; NULL: nothing. */
	struct ring_fetch (*fetch)(struct split_device *d, unsigned q);
	int (*queue_start)(
		struct split_device *d, unsigned q); /* (io) d->queues[q] is initialised */
	/* (io) stop taking requests from the queue. In-flight ones go on. */
	void (*queue_stop)(struct split_device *d, unsigned q);
	/* (io) d->queues[q].disabled has changed. NULL: a queue of this kind cannot run disabled */
	void (*queue_enable)(struct split_device *d, unsigned q);
	uint32_t (*inflight)(struct split_device *d); /* (io) requests not yet completed */
	void (*reset)(struct split_device *d);        /* (io) back to power-on, nothing in flight */
	unsigned (*poll)(struct split_device *d);     /* (io) as io_poller.poll, all queues */
	bool (*sleep)(struct split_device *d); /* (io) beyond re-arming doorbells; may be NULL */
	void (*batch_end)(struct split_device *d);                    /* (io) push and signal */
	void (*save)(struct split_device *d, struct state_writer *w); /* quiesced */
	void (*load)(struct split_device *d, struct state_reader *r); /* errors through r->error */
	void (*destroy)(struct split_device *d);                      /* (io) */
	const struct split_remote_ops *remote;                        /* NULL: served here */
};

struct split_queue {
	struct split_device *device;
	unsigned index;
	bool running;
	struct ring_device ring;
	struct ring_device_slot *slots;
	struct io_watch doorbell;
	struct histogram latency;
	bool pushed;               /* something to signal at batch_end */
	bool disabled;             /* as split_queue_enable() says */
	struct inflight *inflight; /* NULL: not recorded */
	bool remote;               /* another process serves it */
	bool passive; /* waits for something else than the driver: sleep without asking for
			 doorbells */
};

/* A quiesce or reset on its way. */
struct split_control;

/* The common part of every split device: a kind embeds it first. */
struct split_device {
	const struct split_ops *ops;
	struct io_thread *io;
	const struct ring_mem *mem;
	struct split_signal signal;
	uint64_t features;        /* offered */
	uint64_t driver_features; /* accepted */
	unsigned nqueues;
	uint32_t queue_size_max;
	struct split_queue *queues;
	bool broken;
	struct device_counters counters;
	_Atomic uint64_t resubmitted; /* requests a dead back-end left, taken again */
	struct io_poller poller;

	/* the common part's own, except that the kind sets chain_max before split_init() */
	uint32_t chain_max;
	bool dirty_log; /* some memory region has a dirty bitmap: marking is worth while */
	struct split_control *controls;
	struct io_work doorbell_work;
	_Atomic uint32_t doorbells_posted;
	struct io_work signal_work;
};

/*
 * The transport's side (virtio-pci in the monitor, vhost-user in a process of its own). All of
 * these may be called from any thread but the I/O thread unless said otherwise; one at a time for
 * one device.
 */

/* The driver wrote its features and FEATURES_OK. -EINVAL: a bit that was not offered, or VERSION_1
 * missing. */
int split_features_set(struct split_device *d, uint64_t features);

/* Starts a queue: areas checked and translated. -EINVAL, -EFAULT: the driver's mistake. Does not
 * wait for I/O. */
int split_queue_start(struct split_device *d, unsigned q, const struct split_queue_config *cfg);

/*
 * Of a running queue, and a kind with queue_enable(): a disabled queue (vhost-user, "Ring states")
 * runs without effect: what is to be sent is discarded, nothing is received.
 */
void split_queue_enable(struct split_device *d, unsigned q, bool on);

/*
 * Stops every queue, waits until nothing is in flight (for as long as the storage takes), and calls
 * done(ctx) on the I/O thread; positions can then be read. Does not block the caller: a vCPU may
 * call it.
 */
void split_quiesce(struct split_device *d, void (*done)(void *ctx), void *ctx);
/* The same, waiting. Not from a vCPU thread. */
void split_quiesce_wait(struct split_device *d);
/* Quiesced: positions of a queue, to start it again with. */
void split_queue_state_get(struct split_device *d, unsigned q, struct ring_device_state *out);

/* Back to power-on: quiesces, forgets features and queues, then done(ctx) on the I/O thread. Does
 * not block. */
void split_reset(struct split_device *d, void (*done)(void *ctx), void *ctx);

/* Quiesced: device state beyond what the transport knows (features, queue addresses and positions
 * are the transport's). */
void split_save(struct split_device *d, struct state_writer *w);
void split_load(struct split_device *d, struct state_reader *r);

/* A doorbell that arrived by another way than the eventfd (a trapped write). Any thread. */
void split_doorbell(struct split_device *d, unsigned q);

/* signal.queue_fd() answers anew. Any thread, never blocks. */
void split_signal_changed(struct split_device *d);

/* What was written so far on this device's behalf is in the dirty bitmaps of its memory. Waits for
 * the I/O thread. */
void split_dirty_sync(struct split_device *d);

/* Quiesces, closes what the device opened (not the image or port). Not from the I/O thread. */
void split_destroy(struct split_device *d);

/* ------------------------------------------------------------------ kinds */

enum split_ring_choice { SPLIT_RING_SPLIT, SPLIT_RING_PACKED };

struct split_blk_options {
	struct blk_image *image;     /* stays the caller's */
	unsigned queues;             /* 1 .. BACKEND_QUEUES_MAX */
	uint32_t queue_size;         /* 2 .. 1024 for one queue; default 256 */
	enum split_ring_choice ring; /* packed offered or not */
	bool no_indirect, no_event_idx;
	bool in_order; /* offered only when asked for: it makes a fast request wait for a slow one
			*/
	const char *serial; /* up to 20 bytes, for GET_ID */
	bool registered_memory;
};

/* virtio-blk (5.2). mem and signal must outlive it. */
int split_blk_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_blk_options *opts,
	char why[BACKEND_WHY_MAX]);

struct split_net_options {
	struct net_port *port; /* stays the caller's */
	unsigned pairs;        /* queue pairs, 1 .. NET_QUEUES_MAX */
	uint32_t queue_size;   /* default 256, up to 1024 */
	enum split_ring_choice ring;
	bool no_indirect, no_event_idx;
	bool in_order;
	bool no_mergeable;
	bool no_offload;
	uint8_t mac[6];
	uint16_t mtu; /* 0: not offered */
	/*
	 * The control queue is the transport's (a vhost-user front-end answers it itself): there is
	 * none here, and every pair whose queues run is used.
	 */
	bool no_control;
};

/* virtio-net (5.1), with a control queue when pairs > 1. */
int split_net_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_net_options *opts,
	char why[BACKEND_WHY_MAX]);

/* What every kind below shares: queues and ring. Zeroes are the defaults. */
struct split_ring_options {
	uint32_t queue_size; /* a power of two, 2 .. 1024; 0: the kind's default */
	enum split_ring_choice ring;
	bool no_indirect, no_event_idx;
	bool in_order;
};

struct split_console_options {
	struct split_ring_options ring; /* default queue size 128 */
	/*
	 * Where the guest's output goes: a descriptor (-1: nowhere), which stays the caller's.
	 * Files, sockets and non-blocking descriptors never make the thread wait; others are
	 * written little by little when they say that they are ready.
	 */
	int out_fd;
	/* Instead of out_fd. Bytes taken; fewer than n: full, and no more is offered before
	 * split_console_resume(). On the I/O thread; must not block. */
	size_t (*output)(void *ctx, const uint8_t *bytes, size_t n);
	void *ctx;
	/* Read when readable, while there is room; -1: input by split_console_input(). */
	int in_fd;
	uint16_t cols, rows; /* 0: not known */
};

/* virtio-console (5.3): one port; receiveq 0, transmitq 1. mem and signal must outlive it. */
int split_console_create(struct split_device **out, struct io_thread *io,
	const struct ring_mem *mem, const struct split_signal *signal,
	const struct split_console_options *opts, char why[BACKEND_WHY_MAX]);
/* Bytes for the guest; how many were taken (the rest later). Queued until the guest has buffers, up
 * to 4 KiB. Any thread, never blocks. */
size_t split_console_input(struct split_device *d, const uint8_t *bytes, size_t n);
/* output() may take more. Any thread. */
void split_console_resume(struct split_device *d);
/* The terminal's size changed: configuration change interrupt. Any thread. */
void split_console_size_set(struct split_device *d, uint16_t cols, uint16_t rows);

struct split_rng_options {
	struct split_ring_options ring; /* default queue size 64 */
	uint64_t rate_bytes_per_s;      /* 0: as fast as the host's getrandom() */
};

/* virtio-rng (5.4). Nothing that was or will be given to a guest is in a saved state. */
int split_rng_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_rng_options *opts,
	char why[BACKEND_WHY_MAX]);

#define SPLIT_BALLOON_PAGE 4096u

struct split_balloon_options {
	struct split_ring_options ring; /* default queue size 128 */
	uint32_t pages;                 /* target at start, in pages of 4 KiB */
	uint32_t pages_max;             /* the guest's memory: targets are cut to it */
	/* The host gives memory back in pages of this size (a power of two from 4096 on; 0: 4096).
	 */
	uint32_t host_page_bytes;
	bool no_deflate_on_oom; /* the guest may not take pages back when it runs out of memory */
	bool no_reporting;      /* no free page reporting */
	bool no_stats;
};

/*
 * virtio-balloon (5.5): memory the guest gives up goes back to the host: regions of mem that are
 * shared mappings of a file (a memfd) get holes punched, private ones are dropped. Not for memory
 * that is pinned (registered with an io_uring, say): the pin would keep the old pages.
 */
int split_balloon_create(struct split_device **out, struct io_thread *io,
	const struct ring_mem *mem, const struct split_signal *signal,
	const struct split_balloon_options *opts, char why[BACKEND_WHY_MAX]);

/* A new target in pages of 4 KiB; the guest gets there as it can. Any thread, never blocks. */
void split_balloon_target_set(struct split_device *d, uint32_t pages);

/* Tags of 5.5.6.3. A value the guest did not tell is UINT64_MAX. */
#define SPLIT_BALLOON_STATS 10u

struct split_balloon_info {
	uint32_t target_pages;
	uint32_t actual_pages;  /* as the guest says */
	uint64_t released;      /* bytes given back to the host so far: balloon and reporting */
	uint64_t reported;      /* of these, reported as free */
	uint64_t stats_updates; /* how often the guest has sent statistics */
	uint64_t stats[SPLIT_BALLOON_STATS];
};

/* The state of things, and a request for fresh statistics, which a later call shows. Any thread. */
void split_balloon_info_get(struct split_device *d, struct split_balloon_info *out);

struct split_vsock_options {
	const char *socket;   /* path; copied */
	uint32_t cid;         /* the guest's address: 3 .. 2^32 - 2 */
	unsigned connections; /* at once, both ways together; 0: 1024 */
	uint32_t queue_size;  /* default 256, up to 1024 */
	enum split_ring_choice ring;
	bool no_indirect, no_event_idx;
	bool in_order;
};

/*
 * virtio-vsock (5.10): stream connections between the guest and AF_UNIX sockets of the host,
 * without the kernel's vhost. A program on the host connects to `socket`, writes "CONNECT
 * <port>\n", and reads "OK <its port>\n" once the guest has accepted; an end of file: refused. What
 * the guest connects to at (2, port) is the socket `socket`_<port>; if nobody listens there, it
 * gets a reset. The socket is made with mode 0600 here (-EEXIST: the path is taken) and removed by
 * split_destroy(). A loaded device resets the driver's connections by a transport reset event.
 *
 * The most it ever uses are 64 KiB for each connection whose program on the host does not read.
 */
int split_vsock_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_vsock_options *opts,
	char why[BACKEND_WHY_MAX]);
/* Slots of the table in use. Waits for the I/O thread. */
unsigned split_vsock_connections(struct split_device *d);

/* ------------------------------------------------------------------ vhost-user: the back-end */

/*
 * Offers split devices of this process to front-ends (Sluice, or any other monitor or program) by
 * the vhost-user protocol (QEMU, docs/interop/vhost-user.rst). Each connection has a thread of its
 * own for the protocol and a device of its own, which lives on an I/O thread of the caller's; one
 * front-end can neither delay nor harm another. What it may send is checked; a breach closes its
 * connection and is counted.
 */
struct vhost_server;

enum vhost_socket_mode {
	VHOST_LISTEN, /* this side listens */
	VHOST_CONNECT /* this side connects, again and again until the other is there */
};

struct vhost_server_options {
	const char *path; /* of the socket; made with mode 0600, removed at the end. Copied. */
	int fd;           /* a listening (or, with VHOST_CONNECT, connected) socket instead; -1 */
	enum vhost_socket_mode mode;
	unsigned connections; /* at once; further ones wait to be accepted; 0: 1 */
	/*
	 * Makes the device of a new connection, with transport and memory given; called on the
	 * connection's thread. The I/O thread is the caller's choice. An error closes the
	 * connection.
	 */
	int (*create)(void *ctx, unsigned connection, struct split_device **out,
		const struct ring_mem *mem, const struct split_signal *signal,
		char why[BACKEND_WHY_MAX]);
	/* The device is gone; on the connection's thread. May be NULL. */
	void (*destroyed)(void *ctx, unsigned connection);
	/* One line about the connection, no newline ("front-end connected", what it did wrong); on
	 * any thread. May be NULL. */
	void (*note)(void *ctx, unsigned connection, const char *line);
	void *ctx;
};

struct vhost_server_counters {
	uint64_t connections; /* accepted so far */
	uint64_t connected;   /* now */
	uint64_t messages;
	uint64_t refused;     /* connections closed for a breach of the protocol */
	uint64_t resubmitted; /* requests of a back-end that died, done again */
};

/* -EADDRINUSE: somebody listens there (a socket left behind by the dead is replaced); -EACCES,
 * -ENAMETOOLONG ... */
int vhost_server_create(struct vhost_server **out, const struct vhost_server_options *opts,
	char why[BACKEND_WHY_MAX]);
/* Closes every connection (their devices quiesce first). Not from an I/O thread. */
void vhost_server_destroy(struct vhost_server *s);
void vhost_server_counters_get(struct vhost_server *s, struct vhost_server_counters *out);
/* The device of a connection while fn runs, for counters; false: there is none. Any thread. */
bool vhost_server_device(struct vhost_server *s, unsigned connection,
	void (*fn)(void *ctx, struct split_device *d), void *ctx);

/* ------------------------------------------------------------------ vhost-user: the front-end */

/*
 * A split device whose queues a process of its own serves. To the transport it is a split device
 * like any other; guest memory, doorbells and interrupts go straight to the other process. When
 * that dies the guest waits, and goes on when another has taken its place: with an inflight region
 * the new one does what the old one left; without, requests of a block device are given to it again
 * from the ring. Nothing here waits for the other process, but for split_vhost_create().
 */
struct split_vhost_memory {
	int fd;     /* the file that guest memory is, shared; stays the caller's */
	void *base; /* where byte 0 of the file is mapped: every region lies in this mapping */
};

struct split_vhost_options {
	uint32_t virtio_id; /* VIRTIO_ID_BLOCK, VIRTIO_ID_NET, VIRTIO_ID_FS */
	const char *path;   /* the socket; copied */
	int fd;             /* a connected socket instead, taken over; -1 */
	enum vhost_socket_mode mode;
	uint32_t wait_ms;      /* for the first connection; 0: 10,000 */
	uint32_t reconnect_ms; /* between tries; 0: 500 */
	bool no_reconnect;     /* a lost back-end breaks the device; so with fd */
	struct split_vhost_memory memory;
	unsigned queues;     /* block, fs: request queues; net: pairs */
	uint32_t queue_size; /* 0: the kind's default */
	enum split_ring_choice ring;
	bool no_indirect, no_event_idx, in_order;
	/* net; without a control queue of the back-end's, it is answered here */
	bool no_mergeable, no_offload;
	uint8_t mac[6];
	/* fs: 1 to 36 bytes */
	const char *tag;
	/* One line about the connection ("back-end lost, waiting for another"). On the I/O thread.
	 */
	void (*note)(void *ctx, const char *line);
	void *ctx;
};

/* -ETIMEDOUT: nobody listens, or nobody comes; -ENOTSUP: the back-end lacks what is needed;
 * -EPROTO: it does not speak vhost-user. mem and signal must outlive it. */
int split_vhost_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_vhost_options *opts,
	char why[BACKEND_WHY_MAX]);

struct split_vhost_info {
	bool connected;
	uint64_t connections; /* so far */
	uint64_t resubmitted; /* requests given again to a back-end without inflight region */
	uint64_t breaches;    /* connections closed for a breach of the protocol */
	bool inflight;        /* the back-end keeps one */
};
void split_vhost_info_get(struct split_device *d, struct split_vhost_info *out); /* any thread */

/* ------------------------------------------------------------------ sockets in the file system */

/*
 * Listens at a path, with mode 0600 from its first moment on; a socket that nobody answers at any
 * more is replaced. Closing removes the path, unless it has become somebody else's. why begins with
 * label and path. -EADDRINUSE: another process answers there; -EEXIST: it is no socket; ... Any
 * thread.
 */
struct unix_socket;
int unix_socket_open(
	struct unix_socket **out, const char *label, const char *path, char why[BACKEND_WHY_MAX]);
int unix_socket_fd(const struct unix_socket *s); /* non-blocking; the socket's */
void unix_socket_free(struct unix_socket *s);    /* NULL: nothing */

/* ------------------------------------------------------------------ control sockets */

/*
 * HTTP and JSON over a unix socket (libmicrohttpd, cJSON): what the programs that serve back-ends
 * are asked and told while they run. Requests are answered one at a time on a thread of the
 * server's. The library is loaded with the first socket.
 */
struct control_server;
struct cJSON;

struct control_request {
	const char *method; /* "GET", "PUT", "PATCH", "DELETE" */
	const char *path;   /* what follows the route's own, without the slash: "" or "NAME" */
	struct cJSON *body; /* an object; NULL: none. Stays the server's */
	/* answer: 200 (as it comes), 201, 204, 400, 404, 409 ...; text: a body that is not JSON,
	 * from malloc(), text_type its type (NULL: Prometheus'); json: a body; both taken over. An
	 * error's body is {"fault_message": "..."}. */
	unsigned status;
	struct cJSON *json;
	char *text;
	const char *text_type;
};

struct control_route {
	const char *method;
	const char *path; /* "/ports", matches "/ports" and "/ports/NAME" */
	void (*answer)(void *ctx, struct control_request *req);
};

/*
 * routes ends with a NULL method and must outlive the server. The socket is made with mode 0600
 * (one that nobody answers at any more is replaced) and removed at the end. What no route has is
 * 404, a method it has not 405, a body over 64 KiB 413, one that is no JSON object 400. At most 16
 * clients are connected; further ones wait. Who takes longer than 5 s from one answer to the next
 * is cut off. -EADDRINUSE: another process answers there; -EEXIST: it is no socket; -EACCES ...
 */
int control_server_create(struct control_server **out, const char *path,
	const struct control_route *routes, void *ctx, char why[BACKEND_WHY_MAX]);
/* Waits for an answer that is being made. Not from an answer. */
void control_server_destroy(struct control_server *s);
/* status and {"fault_message": printf-like} */
void control_fault(struct control_request *req, unsigned status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A growing text, for metrics in Prometheus' format. */
struct control_text {
	char *data;
	size_t len, room;
	bool failed; /* no memory */
};
void control_text_add(struct control_text *t, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ------------------------------------------------------------------ legacy devices' way to the
 * same storage */

/*
 * An emulated disk's or network card's link to the I/O thread: requests are made on a vCPU
 * thread under the device's lock and run on the I/O thread, through the same blk_submit() as split
 * devices'.
 */
struct legacy_disk;

struct legacy_request {
	struct blk_request blk; /* op, offset, length, iov, niov filled by the caller */
	void (*done)(struct legacy_request *req, int res); /* on the I/O thread */
	struct legacy_request *next;
	uint64_t started_ns;
};

int legacy_disk_open(struct legacy_disk **out, struct io_thread *io, struct blk_image *image,
	char why[BACKEND_WHY_MAX]);
/* Waits for what is in flight. Not from the I/O thread. */
void legacy_disk_close(struct legacy_disk *disk);
/* Any thread; never blocks. */
void legacy_disk_submit(struct legacy_disk *disk, struct legacy_request *req);
/* Waits until nothing is in flight. Not from the I/O thread, nor under a lock that done() takes. */
void legacy_disk_drain(struct legacy_disk *disk);
void legacy_disk_counters_get(struct legacy_disk *disk, struct blk_channel_counters *out);

/*
 * An emulated network card's link to its port. All callbacks run on the I/O thread.
 *   receive_room: may a frame be stored now? Called before each receive; when false, nothing is
 * received until legacy_net_rx_resume(). received:     one frame, contiguous; only valid during the
 * call. sent:         all frames handed over so far have left (the card's transmit interrupt).
 */
struct legacy_net;

struct legacy_net_callbacks {
	bool (*receive_room)(void *ctx);
	void (*received)(void *ctx, const uint8_t *frame, uint32_t len);
	/* the card's own transmit work, asked for by legacy_net_kick(): gather frames,
	 * legacy_net_send() them. May be NULL for a card that sends from the vCPU thread by
	 * legacy_net_queue(). */
	void (*transmit)(void *ctx);
	void (*sent)(void *ctx);
	void *ctx;
	/* The port's link has come or gone. May be NULL. */
	void (*link)(void *ctx, bool up);
};

int legacy_net_open(struct legacy_net **out, struct io_thread *io, struct net_port *port,
	const struct legacy_net_callbacks *cb, char why[BACKEND_WHY_MAX]);
void legacy_net_close(struct legacy_net *net); /* not from the I/O thread */

/* Any thread, never blocks: callbacks.transmit() will run soon on the I/O thread. */
void legacy_net_kick(struct legacy_net *net);
/* Any thread, never blocks: copies one frame into a bounded queue; sent() follows. -ENOSPC: full
 * (dropped and counted). */
int legacy_net_queue(struct legacy_net *net, const void *frame, uint32_t len);
/* Frames that legacy_net_queue() took and the port did not yet. Any thread. */
unsigned legacy_net_waiting(const struct legacy_net *net);
/* The i-th of them, oldest first; quiesced. */
const void *legacy_net_frame(const struct legacy_net *net, unsigned i, uint32_t *len);
/* (io) from transmit(): hands frames over now; how many the port took (the rest: transmit() runs
 * again when it can). */
unsigned legacy_net_send(struct legacy_net *net, struct net_packet *const *pkts, unsigned n);
/* Is the port's link up? Any thread. */
bool legacy_net_link(const struct legacy_net *net);
/* Frames that legacy_net_queue() had no room for. Any thread. */
uint64_t legacy_net_dropped(const struct legacy_net *net);
/* Any thread: receive_room() may be true again. */
void legacy_net_rx_resume(struct legacy_net *net);
/* Waits until nothing queued is unsent, or the port is full: what is left stays queued, and a card
 * that is saved now saves it too. No callback runs until legacy_net_resume(). Not from the I/O
 * thread. */
void legacy_net_quiesce(struct legacy_net *net);
void legacy_net_resume(struct legacy_net *net);

#endif
