/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qcow2, versions 2 and 3, as QEMU's docs/interop/qcow2.txt describes them.
 *
 * Guest clusters that are in the file, and their own, are read and written by the channel's engine
 * directly, once their place is known (blk_qcow2_start). Everything else (loading tables,
 * allocating, copying, zeroing, flushing) runs on the channel's worker threads (blk_qcow2_run), so
 * that the submitting thread never waits.
 *
 * What keeps a crash from corrupting the image: tables change in memory only. A flush writes the
 * refcounts, waits until they and all data are on stable storage, and only then writes the tables
 * that refer to them; what those no longer refer to is freed after they are stable too, and used
 * again after every transfer that may still be going there has ended. So a crash leaks clusters at
 * most.
 *
 * Locks: `flushing` is taken before `lock`. Nothing is held during a transfer of data or a sync.
 */
#ifndef BLK_QCOW2_PRIV_H
#define BLK_QCOW2_PRIV_H

#include "blk/blk_priv.h"

#define QCOW2_MAGIC 0x514649fbu

#define QCOW2_CLUSTER_BITS_MIN 9u
#define QCOW2_CLUSTER_BITS_MAX 21u
#define QCOW2_L1_BYTES_MAX     (32u << 20)
#define QCOW2_REFTABLE_MAX     (8u << 20)
#define QCOW2_SNAPSHOTS_MAX    65536u
#define QCOW2_BACKING_NAME_MAX 1023u
#define QCOW2_CHAIN_MAX        64u

#define QCOW2_INCOMPATIBLE_DIRTY       (1ull << 0)
#define QCOW2_INCOMPATIBLE_CORRUPT     (1ull << 1)
#define QCOW2_INCOMPATIBLE_COMPRESSION (1ull << 3)

#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull /* of L1 and L2 entries */
#define QCOW2_COPIED      (1ull << 63)
#define QCOW2_COMPRESSED  (1ull << 62)
#define QCOW2_ZERO        1ull

/* Tables are cached in slices of a cluster or this much, whichever is less. */
#define QCOW2_SLICE_MAX   4096u
#define QCOW2_SLICES      1024u
#define QCOW2_BUCKETS     1024u
#define QCOW2_PENDING_MAX 8192u /* a flush is made before there are more */
#define QCOW2_CHUNK       (256u << 10)

enum qcow2_kind { QCOW2_L2_SLICE, QCOW2_REF_SLICE };

struct qcow2_slice {
	struct qcow2_slice *hash_next;
	struct qcow2_slice *newer, *older; /* by use */
	uint64_t offset;                   /* in the file */
	enum qcow2_kind kind;
	bool dirty;   /* changed since it was last taken for writing */
	bool writing; /* a copy is on its way to the file: must not be dropped */
	uint8_t data[] __attribute__((aligned(8)));
};

/* A cluster that lost one reference in memory, not yet in the file. */
struct qcow2_pending {
	uint64_t cluster;
	uint64_t epoch;
};

/* Guest clusters whose place is being made by a worker; others wait. On that worker's stack. */
struct qcow2_busy {
	uint64_t first, count;
	struct qcow2_busy *next;
};

struct qcow2;

/* What lies below an overlay; never written. */
struct qcow2_backing {
	struct qcow2 *qcow2; /* or NULL: raw */
	int fd;
	uint64_t size;
};

struct qcow2 {
	int fd;         /* buffered, for tables; may be the image's own */
	int fd_data;    /* for clusters: the image's, with O_DIRECT or without */
	bool fd_is_own; /* to be closed */
	uint32_t align; /* of memory, length and offset, for fd_data */
	bool readonly;
	bool block_device;
	_Atomic unsigned *can; /* what the host can do with ranges; NULL: nothing */
	char name[160];
	dev_t dev;
	ino_t ino;

	unsigned version, cluster_bits, refcount_order, compression;
	uint64_t cluster_size, size;
	uint32_t slice_size, header_length;
	uint64_t incompatible, compatible, autoclear;
	uint64_t l1_offset, reftable_offset, snapshots_offset;
	uint32_t l1_size; /* entries in the file */
	uint32_t snapshots;
	struct qcow2_backing *backing;
	char backing_name[QCOW2_BACKING_NAME_MAX + 1], backing_format[16];
	unsigned depth;            /* files below */
	const struct qcow2 *above; /* while opening: whose backing file this is */

	pthread_mutex_t flushing;
	pthread_mutex_t lock; /* everything from here on */
	pthread_cond_t settled;
	uint32_t l1_used; /* entries the virtual size needs */
	uint64_t *l1;     /* host's byte order */
	bool *l1_dirty;   /* by 64 entries */
	bool any_l1_dirty;
	uint64_t *reftable; /* host's byte order */
	uint32_t reftable_size, reftable_clusters;
	uint64_t file_end;  /* what lies before is in the file */
	uint64_t free_hint; /* no cluster before is free */
	bool corrupt;       /* nothing is written any more */
	struct qcow2_slice *buckets[QCOW2_BUCKETS];
	struct qcow2_slice *newest, *oldest;
	unsigned nslices, ndirty;
	unsigned flushes; /* under way */
	struct qcow2_pending *pending;
	size_t npending, pending_room;
	struct qcow2_busy *busy;
	uint64_t epoch;
	_Atomic uint32_t users[2]; /* transfers to mapped places, by epoch */

	pthread_mutex_t unpack_lock; /* the cluster unpacked last */
	uint64_t unpacked_entry;
	uint8_t *unpacked;
};

enum qcow2_type {
	QCOW2_UNALLOCATED,
	QCOW2_ZERO_PLAIN,
	QCOW2_ZERO_ALLOCATED,
	QCOW2_NORMAL,
	QCOW2_PACKED,
};

/* Where a run of guest bytes is. */
struct qcow2_extent {
	enum qcow2_type type;
	bool copied;     /* may be written in place */
	uint64_t length; /* bytes of guest */
	uint64_t host;   /* of the first byte; packed: the table's entry */
};

static inline uint64_t qcow2_be64(uint64_t v)
{
	return __builtin_bswap64(v);
}

static inline uint64_t qcow2_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t qcow2_up(const struct qcow2 *q, uint64_t v)
{
	return (v + q->cluster_size - 1) & ~(q->cluster_size - 1);
}

/* qcow2_file.c: whole transfers, or -errno; what lies past the end reads as zeroes. They count. */
uint64_t qcow2_calls_get(void);
int qcow2_file_read(int fd, void *to, uint64_t length, uint64_t offset);
int qcow2_file_write(int fd, const void *from, uint64_t length, uint64_t offset);
int qcow2_file_sync(struct qcow2 *q);
int qcow2_file_extend(struct qcow2 *q, uint64_t end);
void qcow2_file_punch(struct qcow2 *q, uint64_t offset, uint64_t length);
int qcow2_file_size(int fd, uint64_t *size);

/* qcow2_header.c: 0, or -errno and `why`. */
int qcow2_header_read(struct qcow2 *q, char *why);

/* qcow2_open.c */
int qcow2_node_open(struct qcow2 **out, int fd, const char *name, const char *directory,
	bool readonly, const struct qcow2 *above, char *why);
void qcow2_node_close(struct qcow2 *q);

/* qcow2_backing.c: a file's directory is what its backing file's name is relative to. */
int qcow2_backing_open(struct qcow2 *q, const char *directory, char *why);
void qcow2_backing_close(struct qcow2 *q);
int qcow2_backing_read(struct qcow2 *q, void *to, uint64_t length, uint64_t offset);

/* qcow2_cache.c: lock held, but for the flush. A slice is good until the next one is got. */
int qcow2_slice_get(struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, bool load,
	struct qcow2_slice **out);
void qcow2_slice_dirty(struct qcow2 *q, struct qcow2_slice *slice);
void qcow2_slices_forget(struct qcow2 *q, uint64_t offset, uint64_t length);
void qcow2_slices_free(struct qcow2 *q);
void qcow2_l1_set(struct qcow2 *q, uint32_t index, uint64_t entry);
bool qcow2_is_clean(const struct qcow2 *q);
/* Makes everything that has been written stable. */
int qcow2_flush(struct qcow2 *q);
/* Before an operation: keeps what a flush has to write within bounds. */
int qcow2_flush_if_due(struct qcow2 *q);

/* qcow2_refcount.c: lock held. */
int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count);
/* Up to `want` clusters in a row, with refcount 1. */
int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got);
/* What was allocated and never referred to. */
void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t count);
/* An empty block of refcounts for a range of clusters, at a given place. */
int qcow2_block_place(struct qcow2 *q, uint64_t index, uint64_t at);
/* One reference less, once the tables that say so are stable. */
void qcow2_release(struct qcow2 *q, uint64_t cluster);
/* Carries out those of the first n that are safe. */
void qcow2_release_pending(struct qcow2 *q, size_t n);
/* -EIO from now on for whatever would change the image. */
int qcow2_corrupted(struct qcow2 *q);
bool qcow2_overlaps_tables(const struct qcow2 *q, uint64_t offset, uint64_t length);

/* qcow2_map.c: lock held. */
/* -EAGAIN: not in memory, and load is false. */
int qcow2_map(
	struct qcow2 *q, uint64_t offset, uint64_t length, bool load, struct qcow2_extent *out);
/* The slice with the entry of a guest cluster, in a table that may be changed. */
int qcow2_l2_writable(
	struct qcow2 *q, uint64_t guest_cluster, struct qcow2_slice **slice, uint32_t *index);
/* Releases what an entry refers to. */
void qcow2_entry_release(struct qcow2 *q, uint64_t entry);
unsigned qcow2_enter(struct qcow2 *q);
void qcow2_leave(struct qcow2 *q, unsigned token);

/* qcow2_unpack.c */
int qcow2_unpack_read(
	struct qcow2 *q, uint64_t entry, void *to, uint64_t length, uint64_t offset_in_cluster);
void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length);

/* qcow2_io.c: blocking; no locks held. */
int qcow2_read(struct qcow2 *q, void *to, uint64_t length, uint64_t offset);
int qcow2_write(struct qcow2 *q, const void *from, uint64_t length, uint64_t offset);
/* Waits until nobody is at these guest clusters. Lock held. */
void qcow2_settle(struct qcow2 *q, uint64_t first, uint64_t count);
/* So many of them, the first among them, nobody is at. Lock held. */
uint64_t qcow2_settled_run(const struct qcow2 *q, uint64_t first, uint64_t count);

/* qcow2_zero.c */
int qcow2_zero(struct qcow2 *q, uint64_t offset, uint64_t length, bool unmap);
int qcow2_discard(struct qcow2 *q, uint64_t offset, uint64_t length);

/* qcow2_repair.c: refcounts anew, from what is referred to. */
int qcow2_repair(struct qcow2 *q, char *why);

#endif
