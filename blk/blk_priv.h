/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inside blk/: the image, the channel, the interface of an engine and the helpers they share.
 * Unless said otherwise everything here runs on the channel's thread.
 */
#ifndef BLK_PRIV_H
#define BLK_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "blk/blk.h"

#define BLK_DEPTH_DEFAULT 256u
#define BLK_BATCH_DEFAULT 8u
#define BLK_DEPTH_MAX     4096u

/* A transfer through an aligned copy moves this much at a time, from a pool of so many copies. */
#define BLK_BOUNCE_SIZE  (64u << 10)
#define BLK_BOUNCE_COUNT 16u

#define BLK_POOL_THREADS_MAX 16u

/* Linux limits one vectored call to this many segments, and one call to just under 2 GiB. */
#define BLK_IOV_MAX   1024u
#define BLK_PIECE_MAX (1u << 30)

/* What a host can do with ranges of an image. Cleared for good by the first "not supported". */
#define BLK_CAN_PUNCH      1u /* fallocate PUNCH_HOLE: reads as zeroes afterwards */
#define BLK_CAN_ZERO_RANGE 2u /* fallocate ZERO_RANGE */
#define BLK_CAN_DISCARD    4u /* BLKDISCARD, block devices only */

struct blk_image {
	int fd;          /* O_DIRECT when info.direct */
	int fd_buffered; /* for requests finer than block_size; -1: none needed */
	bool block_device;
	bool claimed;
	bool inline_reads; /* reading is copying memory: worth doing in place (see engine_threads.c)
			    */
	uint32_t mem_align; /* of buffers, when direct */
	_Atomic unsigned can;
	bool engine_auto;
	bool sqpoll;
	bool registered_memory;
	struct blk_fault *fault; /* NULL: none */
	struct blk_nbd *nbd;     /* served by another; fd is -1 then. NULL: no */
	struct qcow2 *qcow2;     /* NULL: raw */
	bool guard_first;        /* raw because it did not look like anything else */
	struct blk_info info;    /* note and engine are guarded by lock, the rest does not change */
	pthread_mutex_t lock;
	char name[160]; /* for messages: the path, or "fd N" */
};

struct blk_queue {
	struct blk_request *head, *tail;
};

/* How the next step of a request is done; also the order in which zeroing falls back. */
enum blk_stage {
	BLK_STAGE_DATA,    /* reading and writing */
	BLK_STAGE_PUNCH,   /* fallocate PUNCH_HOLE */
	BLK_STAGE_ZERO,    /* fallocate ZERO_RANGE */
	BLK_STAGE_ZEROES,  /* writing zeroes as data */
	BLK_STAGE_DISCARD, /* BLKDISCARD */
	BLK_STAGE_SYNC,    /* fdatasync */
	BLK_STAGE_FORMAT,  /* all of it, by the image's format, on a worker thread */
	BLK_STAGE_WAKE,    /* an engine's own entry, not a request of the caller */
};

/* One contiguous transfer: at most BLK_IOV_MAX segments. one is used when niov is 1. */
struct blk_piece {
	int fd;
	bool buffered; /* fd is the image's fd_buffered */
	bool write;
	uint64_t offset;
	const struct iovec *iov;
	unsigned niov;
	struct iovec one;
};

/* A lock whose system calls can be counted. */
struct blk_lock {
	_Atomic uint32_t state; /* 0 free, 1 held, 2 held and somebody sleeps */
};

/*
 * Worker threads of one channel: all of the threads engine, and what the others cannot ask the
 * kernel to do by itself. The event descriptor is written once for each time that the list of
 * finished requests stops being empty.
 */
struct blk_pool {
	struct blk_lock lock;
	struct blk_queue todo;     /* under lock */
	struct blk_queue finished; /* under lock */
	unsigned ntodo, idle;      /* under lock */
	bool stop;                 /* under lock */
	_Atomic bool any_finished;
	_Atomic uint32_t sequence; /* what idle workers sleep on */
	_Atomic uint64_t system_calls;
	struct blk_queue batch; /* channel's thread: handed over by blk_pool_commit() */
	unsigned nbatch;
	unsigned outstanding; /* channel's thread */
	unsigned nthreads;    /* channel's thread */
	int event_fd;         /* -1: not open */
	int64_t unread;       /* channel's thread: signals known to be due less those read */
	pthread_t threads[BLK_POOL_THREADS_MAX];
};

struct blk_bounce {
	void *free[BLK_BOUNCE_COUNT];
	unsigned nfree, nmade;
};

struct blk_engine_ops {
	int (*open)(struct blk_channel *ch, const struct blk_channel_options *opts, char *why);
	void (*close)(struct blk_channel *ch);
	/* Takes one step of a request; false: no room now. May finish it at once. */
	bool (*start)(struct blk_channel *ch, struct blk_request *req);
	/* Hands what was started to the kernel. */
	void (*commit)(struct blk_channel *ch);
	/* The same in the middle of a batch, on a borrowed ring too. */
	void (*push)(struct blk_channel *ch);
	/* Calls blk_request_advance() for every step that has ended. */
	void (*reap)(struct blk_channel *ch);
	/* Makes the channel's descriptor readable, or has blk_uring_complete() called. */
	void (*nudge)(struct blk_channel *ch);
	int (*fd)(const struct blk_channel *ch);
	int (*register_memory)(struct blk_channel *ch, const struct iovec *regions, unsigned n);
	bool any_buffer; /* copies or passes on: needs no aligned copies */
};

struct blk_channel {
	struct blk_image *image;
	const struct blk_engine_ops *ops;
	void *engine;
	struct blk_queue queue;    /* submitted, or to go on */
	struct blk_queue finished; /* done() is owed */
	uint32_t depth;
	uint32_t batch;    /* how many are started before they are handed over */
	uint32_t started;  /* with the engine */
	uint32_t inflight; /* submitted, not done */
	bool starved;      /* the queue holds what a kick could not start */
	bool delivering;
	_Atomic uint64_t requests, system_calls, bounced;
	struct blk_bounce bounce;
	struct blk_pool pool;
};

extern const struct blk_engine_ops blk_engine_uring, blk_engine_aio, blk_engine_threads;
extern const struct blk_engine_ops blk_engine_fault, blk_engine_nbd;

/* A counter with one writer, read by others. */
static inline void blk_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

static inline void blk_queue_push(struct blk_queue *q, struct blk_request *req)
{
	req->next = NULL;
	if (q->tail)
		q->tail->next = req;
	else
		q->head = req;
	q->tail = req;
}

static inline void blk_queue_push_front(struct blk_queue *q, struct blk_request *req)
{
	req->next = q->head;
	q->head = req;
	if (!q->tail)
		q->tail = req;
}

static inline struct blk_request *blk_queue_pop(struct blk_queue *q)
{
	struct blk_request *req = q->head;

	if (req) {
		q->head = req->next;
		if (!q->head)
			q->tail = NULL;
	}
	return req;
}

/* Appends all of `from` and empties it. */
static inline void blk_queue_splice(struct blk_queue *to, struct blk_queue *from)
{
	if (!from->head)
		return;
	if (to->tail)
		to->tail->next = from->head;
	else
		to->head = from->head;
	to->tail = from->tail;
	from->head = from->tail = NULL;
}

/* image.c */
enum blk_engine blk_image_engine(struct blk_image *image);
void blk_image_engine_set(struct blk_image *image, enum blk_engine engine);
void blk_why(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
void blk_image_note(struct blk_image *image, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* probe.c: filled into the image, once, while it is opened. */
int blk_probe_direct(struct blk_image *image, enum blk_direct direct, char *why);
void blk_probe_ranges(struct blk_image *image);
void blk_probe_file_system(struct blk_image *image);
int blk_probe_engine(struct blk_image *image, enum blk_engine engine, char *why);

/* engine_uring.c, engine_aio.c: 0 or -errno, and in `reason` what the user may do about it. */
int blk_uring_probe(char *reason, size_t size);
int blk_aio_probe(char *reason, size_t size);

/* format.c */
int blk_format_probe(struct blk_image *image, enum blk_format format, char *why);
bool blk_format_is_magic(const void *data);

/* qcow2_open.c */
int blk_qcow2_open(struct blk_image *image, const struct blk_options *opts, char *why);
/* Writes what is left of the tables. */
void blk_qcow2_close(struct blk_image *image);
int blk_qcow2_sync(struct blk_image *image);

/* qcow2.c */
/* 0: to be started, in the stage set; 1: done already. Never blocks. */
int blk_qcow2_start(struct blk_image *image, struct blk_request *req);
/* The engine is done with a request that had its place (req->mapped). */
void blk_qcow2_end(struct blk_image *image, struct blk_request *req);
/* Does all of it, blocking: 0 or -errno. Any thread. Counts system calls. */
int blk_qcow2_run(struct blk_image *image, const struct blk_request *req, uint64_t *system_calls);

/* claim.c: locks as QEMU does, or -EBUSY. 1: the file system has no such locks. */
int blk_claim(int fd, bool readonly);
void blk_claim_release(int fd);

/* request.c */
int blk_request_check(struct blk_channel *ch, struct blk_request *req);
/* The next transfer of a request in stage DATA or ZEROES. Any thread. */
void blk_request_piece(const struct blk_request *req, struct blk_piece *piece);
int blk_request_falloc_mode(const struct blk_request *req);
/* Does one step of it, blocking: a byte count, 0 or -errno. Any thread. Counts system calls. */
ssize_t blk_request_run(const struct blk_request *req, uint64_t *system_calls);
/* One step has ended with res: on to the next, or to the finished ones. */
void blk_request_advance(struct blk_channel *ch, struct blk_request *req, int64_t res);
/* Gets a request its aligned copy where it needs one; false: wait for one to come free. */
bool blk_request_bounce(struct blk_channel *ch, struct blk_request *req);
void blk_request_finish(struct blk_channel *ch, struct blk_request *req, int res);
void blk_bounce_free(struct blk_channel *ch);

/* channel.c: what blk_poll() does after reaping; the number of done() calls. */
unsigned blk_channel_go_on(struct blk_channel *ch);
/* A channel with defaults that leaves the image's fault layer out: the one that layer uses. */
int blk_channel_open_below(
	struct blk_channel **out, struct blk_image *image, char why[BLK_WHY_MAX]);

/* relay.c */
/* A thread that does the requests of many channels: they put them into its inbox and wake it. */
struct blk_relay {
	pthread_mutex_t lock;
	struct blk_queue inbox; /* under lock */
	int event_fd;           /* the thread waits for it */
};

int blk_relay_open(struct blk_relay *relay);
void blk_relay_close(struct blk_relay *relay);
void blk_relay_wake(struct blk_relay *relay);  /* any thread */
void blk_relay_woken(struct blk_relay *relay); /* its thread: takes the signal off */
/* Its thread, with the lock held: a request with its result goes back to its channel. */
void blk_relay_deliver(struct blk_relay *relay, struct blk_request *req);
/* An engine's functions for such channels. */
int blk_relay_attach(struct blk_channel *ch, struct blk_relay *relay, char *why);
void blk_relay_detach(struct blk_channel *ch);
bool blk_relay_start(struct blk_channel *ch, struct blk_request *req);
void blk_relay_commit(struct blk_channel *ch);
void blk_relay_reap(struct blk_channel *ch);
void blk_relay_nudge(struct blk_channel *ch);
int blk_relay_fd(const struct blk_channel *ch);

/* nbd.c */
struct blk_nbd;
/* Connects and fills image->info. Blocks, 10 s at most (beside the resolver's time). */
int blk_nbd_open(struct blk_image *image, const struct blk_options *opts, char *why);
/* Every channel is closed. */
void blk_nbd_close(struct blk_nbd *nbd);
void blk_nbd_abandon(struct blk_nbd *nbd);
int blk_nbd_sync(struct blk_image *image);

/* fault.c */
struct blk_fault;
int blk_fault_open(struct blk_image *image, const char *text, char *why);
/* Writes back what is cached. Every channel is closed. */
void blk_fault_close(struct blk_fault *fault);
/* What is cached to the file, then a flush. Any thread; blocks. */
int blk_fault_sync(struct blk_fault *fault);

/* pool.c */
int blk_pool_open(struct blk_pool *pool);
void blk_pool_close(struct blk_pool *pool);
void blk_pool_start(struct blk_pool *pool, struct blk_request *req);
void blk_pool_commit(struct blk_channel *ch);
/* Advances what workers have finished; the number of requests. */
unsigned blk_pool_reap(struct blk_channel *ch);
/* Takes signals off the event descriptor; true: some were taken, so look for work once more. */
bool blk_pool_drain(struct blk_channel *ch);
void blk_pool_nudge(struct blk_channel *ch);

#endif
