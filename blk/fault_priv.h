/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults on purpose: a layer between an image's channels and its engine, with one thread for each
 * image that has it. Channels hand their requests to that thread; it keeps the write cache, decides
 * what fails, and does the I/O through a channel of its own below.
 */
#ifndef BLK_FAULT_PRIV_H
#define BLK_FAULT_PRIV_H

#include "blk/blk_priv.h"

#define FAULT_RANGES_MAX 8u
#define FAULT_NONE       UINT32_MAX

struct fault_range {
	uint64_t offset, length;
};

/* What a specification says. */
struct fault_spec {
	bool cache;
	bool lose_flush;
	uint64_t seed;
	uint64_t size;        /* of the cache, bytes */
	uint32_t torn;        /* 512 or 4096: what is written whole or not at all */
	uint64_t eio_every;   /* 0: never */
	uint64_t enospc_left; /* bytes that may still be written */
	bool enospc;
	unsigned delay_us;
	unsigned nranges;
	struct fault_range ranges[FAULT_RANGES_MAX];
};

/* -EINVAL, and `why` names the item and what would do. */
int fault_spec_parse(struct fault_spec *spec, const char *text, char why[BLK_WHY_MAX]);

/* ------------------------------------------------------------------ the cache: fault_cache.c */

enum fault_kind { FAULT_DATA, FAULT_ZERO, FAULT_ZERO_UNMAP, FAULT_DISCARD };

/* One sector that was acknowledged and is not in the file. */
struct fault_entry {
	uint64_t sector;
	uint32_t next; /* in its bucket */
	uint32_t pos;  /* in dense */
	uint8_t kind;
	bool chosen; /* to be written back now */
};

/* All memory is got at once. dense[0 .. used) are the entries in use, the free ones come after. */
struct fault_cache {
	uint32_t capacity, used, mask;
	struct fault_entry *entries;
	uint32_t *dense;
	uint32_t *buckets;
	uint8_t *data; /* entry i: BLK_SECTOR bytes at i * BLK_SECTOR */
};

int fault_cache_open(struct fault_cache *c, uint64_t bytes);
void fault_cache_close(struct fault_cache *c);
uint32_t fault_cache_find(const struct fault_cache *c, uint64_t sector);
/* The sector's entry, made if there is none; the caller has seen to it that there is room. */
uint32_t fault_cache_put(struct fault_cache *c, uint64_t sector, enum fault_kind kind);
void fault_cache_drop(struct fault_cache *c, uint32_t entry);
void fault_cache_drop_range(struct fault_cache *c, uint64_t sector, uint64_t count);

static inline uint8_t *fault_cache_data(const struct fault_cache *c, uint32_t entry)
{
	return c->data + (size_t)entry * BLK_SECTOR;
}

/* ------------------------------------------------------------------ the thread: fault_thread.c */

#define FAULT_IOS     64u
#define FAULT_RUN_MAX 64u /* sectors written back by one request */

struct blk_fault;

/* One request of the layer's own to the channel below. */
struct fault_io {
	struct blk_request req;
	struct blk_fault *fault;
	struct blk_request *parent; /* ends with this one; NULL: somebody waits for the batch */
	unsigned nentries;          /* written back by it */
	uint32_t entries[FAULT_RUN_MAX];
	struct iovec iov[FAULT_RUN_MAX];
	struct fault_io *next;
};

struct fault_run {
	uint32_t first, count; /* in order[] */
};

struct blk_fault {
	struct blk_image *image;
	struct fault_spec spec; /* enospc_left is the thread's */
	pthread_t thread;
	struct blk_relay relay; /* its lock is the layer's: */
	pthread_cond_t cond;
	bool stop;                     /* under lock */
	bool ready;                    /* under lock: the thread has a channel, or why not */
	int ready_result;              /* under lock */
	unsigned sync_asked, synced;   /* under lock */
	int sync_result;               /* under lock */
	char ready_why[BLK_WHY_MAX];   /* under lock */
	struct blk_fault_counters sum; /* under lock: a copy for readers */

	/* the thread's */
	struct blk_channel *below;
	struct fault_cache cache;
	struct blk_fault_counters counters;
	struct blk_queue delayed; /* moved: when it is due, in ns */
	struct fault_io ios[FAULT_IOS];
	struct fault_io *free_ios;
	unsigned batch_left; /* requests of the batch under way */
	int batch_error;
	uint32_t *order; /* what is written back, by sector; then cut into runs */
	struct fault_run *runs;
	uint64_t random;
	uint64_t counted; /* requests that eio-every counts */
};

void *fault_thread(void *arg);

/* fault_serve.c: what a request does, on the layer's thread. */
void fault_serve(struct blk_fault *f, struct blk_request *req);
int fault_write_back_all(struct blk_fault *f);
int fault_below_flush(struct blk_fault *f);

/* fault_thread.c */
struct fault_io *fault_io_get(struct blk_fault *f);
/* With a parent it ends that; without, it belongs to the batch that fault_batch_wait() ends. */
void fault_io_start(struct blk_fault *f, struct fault_io *io, struct blk_request *parent);
int fault_batch_wait(struct blk_fault *f);
void fault_finish(struct blk_fault *f, struct blk_request *req, int res);

#endif
