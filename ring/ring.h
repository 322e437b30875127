/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The shared-memory queue: virtio 1.2 virtqueues, split (section 2.7) and packed (2.8), driver side
 * and device side. This is the only header of ring/ that other folders include.
 *
 * The interface hides the layout: code above it never sees a descriptor. Nothing here allocates,
 * blocks, logs or calls back; the caller owns all memory and passes it in.
 *
 * Threads: one ring_driver or ring_device is used by one thread at a time. The two sides of one
 * queue run concurrently and meet only in shared memory.
 *
 * Errors: 0 or a count on success, a negative RING_E* (numbered as Linux's errno) otherwise.
 * Units: lengths and addresses in bytes, positions in descriptors.
 */
#ifndef RING_H
#define RING_H

#include "ring_platform.h"

#define RING_SIZE_MAX 32768u

enum ring_layout { RING_SPLIT, RING_PACKED };

/* ------------------------------------------------------------------ guest memory */

#define RING_MEM_REGIONS_MAX 32u
#define RING_MEM_PAGE_SHIFT  12u

enum ring_dir {
	RING_READ,  /* the device reads what the driver wrote */
	RING_WRITE, /* the device writes */
};

/* Guest-physical [gpa, gpa + size) is at host address hva. */
struct ring_mem_region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *hva;
	/*
	 * One bit for each 4 KiB page from gpa on, the first of them bit dirty_bit (0 .. 63) of the
	 * first word; set with an atomic OR; NULL: nobody asks.
	 */
	uint64_t *dirty;
	uint8_t dirty_bit;
	bool readonly;
};

/*
 * What a device may touch of the guest. Filled by the owner while no queue runs; read by every
 * I/O thread. dirty pointers change only while the devices are quiesced.
 */
struct ring_mem {
	uint32_t nregions;
	struct ring_mem_region regions[RING_MEM_REGIONS_MAX];
};

/* Adds a region. -RING_ENOSPC: table full; -RING_EINVAL: empty, wraps, or overlaps another. */
int ring_mem_add(struct ring_mem *mem, uint64_t gpa, uint64_t size, void *hva, bool readonly);

/*
 * The one translation from a guest-physical range to host memory. NULL unless [gpa, gpa + len) lies
 * within one region (and, for RING_WRITE, a writable one). len 0 is refused. Does not mark dirty:
 * whoever writes through the result calls ring_mem_dirty() after the last byte.
 */
void *ring_mem_translate(const struct ring_mem *mem, uint64_t gpa, uint64_t len, enum ring_dir dir);

/* Marks [host, host + len), host memory got from ring_mem_translate(), as written. Any thread. */
void ring_mem_dirty(const struct ring_mem *mem, const void *host, uint64_t len);

/* Copies, possibly across adjoining regions. -RING_EFAULT when any byte is outside (the bytes
 * before it may have been copied). ring_mem_write() marks dirty. */
int ring_mem_read(const struct ring_mem *mem, uint64_t gpa, void *to, uint64_t len);
int ring_mem_write(const struct ring_mem *mem, uint64_t gpa, const void *from, uint64_t len);

/* ------------------------------------------------------------------ geometry */

/* Where the three areas of a queue go relative to one block of memory (2.7.2, 2.8.2). */
struct ring_geometry {
	uint64_t desc;   /* descriptor table (split), descriptor ring (packed) */
	uint64_t driver; /* available ring (split), driver event suppression (packed) */
	uint64_t device; /* used ring (split), device event suppression (packed) */
	uint64_t bytes;  /* total; align the block to 4096 */
};

/* Valid size: split: a power of two from 1 to 32,768; packed: any from 1 to 32,768. */
bool ring_size_valid(enum ring_layout layout, uint32_t size);
void ring_geometry_get(enum ring_layout layout, uint32_t size, struct ring_geometry *out);

/* Features that change how the ring is used; both sides must agree on all of them. */
struct ring_features {
	bool event_idx; /* VIRTIO_F_EVENT_IDX */
	bool indirect;  /* VIRTIO_F_INDIRECT_DESC */
	bool in_order;  /* VIRTIO_F_IN_ORDER */
};

/* ------------------------------------------------------------------ device side */

/* Same layout as struct iovec, which freestanding code does not have. */
struct ring_seg {
	void *base;
	size_t len;
};

/*
 * The device's own record of each buffer it holds, indexed by buffer id: it is never in memory the
 * driver can write. The caller provides `size` of them.
 */
struct ring_device_slot {
	uint32_t len;
	uint16_t ndesc;
	uint16_t order; /* slots[k].order: the k-th id in order of popping, a ring of its own */
	uint8_t state;
};

/*
 * What a device looks at first in every chain it pops: cache lines that the driver's processor has,
 * and that are under way while the rest of a burst is popped. Only speed depends on it.
 */
struct ring_fetch {
	bool start;  /* the first byte, to be read */
	bool at_set; /* the byte at `at` of the first segment */
	bool write;  /* that one is to be written */
	uint16_t at;
};

struct ring_device_config {
	enum ring_layout layout;
	struct ring_features features;
	struct ring_fetch fetch;
	uint32_t size;
	uint64_t desc_gpa;
	uint64_t driver_gpa; /* areas as in struct ring_geometry */
	uint64_t device_gpa;
	uint32_t chain_max; /* segments accepted in one chain, 1 .. 65535 (a bound) */
	struct ring_device_slot *slots;
};

/* Positions that survive save and load; everything else is in guest memory or in the config. */
struct ring_device_state {
	uint16_t avail; /* next position to pop; packed: bit 15 is the wrap counter */
	uint16_t used;  /* next position to push; packed: bit 15 is the wrap counter */
};

struct ring_device_counters {
	uint64_t popped;
	uint64_t pushed;
	uint64_t interrupts_wanted;
	uint64_t interrupts_suppressed;
	uint64_t malformed;
};

/* Opaque to callers; here so that they can embed it. */
struct ring_device {
	struct ring_device_config cfg;
	const struct ring_mem *mem;
	uint8_t *desc;
	uint8_t *driver;
	uint8_t *device;
	uint16_t avail; /* private position: the driver's index is a claim to check against it */
	uint16_t avail_seen;
	uint16_t used;
	uint16_t order_head;
	uint16_t order_tail;
	uint32_t order_done; /* in_order: pushed, waiting for an earlier one */
	bool avail_wrap;
	bool used_wrap;
	bool signalled_valid;
	bool bell_on;
	bool broken;
	uint32_t region;      /* the memory region hit last */
	uint32_t desc_region; /* those of the areas the device writes */
	uint32_t device_region;
	uint64_t unsignalled; /* positions used since the last interrupt decision */
	uint32_t inflight;    /* buffers popped and not yet given back to the driver */
	uint32_t held;        /* the ring positions they occupy */
	struct ring_device_counters counters;
};

/* One request, checked and translated: readable segments, then writable ones. */
struct ring_chain {
	uint16_t id;
	uint16_t ndesc; /* ring positions it occupies */
	uint16_t nout;  /* readable segments: segs[0 .. nout) */
	uint16_t nin;   /* writable segments: segs[nout .. nout + nin) */
	uint32_t out_len;
	uint32_t in_len;
	struct ring_seg *segs;
};

struct ring_used {
	uint16_t id;
	uint32_t len; /* bytes written into the writable part, 0 for none */
};

/*
 * Attaches to a queue. The areas are translated and bounds-checked here, once.
 * -RING_EINVAL: bad size or alignment (2.7, 2.8); -RING_EFAULT: an area outside guest memory.
 * Starts at positions 0 (packed: both wrap counters 1); ring_device_state_set() overrides.
 */
int ring_device_init(
	struct ring_device *dev, const struct ring_device_config *cfg, const struct ring_mem *mem);

/*
 * Takes up to `max` requests. Segments are stored one chain after the other in segs[0 .. max_segs);
 * each chains[i].segs points into it. Stops early when a chain does not fit in what is left of
 * segs. Each descriptor is copied once, then checked, then used. Descriptor flags of no meaning
 * here are ignored. An indirect table is the last descriptor of its chain and lies on an 8-byte
 * boundary.
 *
 * Returns how many (0: none, or the first needs more than max_segs), or, when the first one is
 * malformed: -RING_EFAULT address outside guest memory or wrong direction, -RING_EINVAL zero
 * length, bad flags, readable after writable or bad index (a packed buffer id must be below size,
 * as Linux's are), -RING_ELOOP a chain longer than chain_max or looping, -RING_EOVERFLOW a total
 * length above 2^32 - 1, -RING_EEXIST a buffer already in flight, -RING_EPROTO an available index
 * further ahead than the queue is long. A malformed ring stays broken: every later pop returns
 * -RING_EPROTO until ring_device_init(). Chains popped before it remain valid and are pushed as
 * usual.
 */
int ring_device_pop(struct ring_device *dev, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs);

/* Gives the last `n` popped chains back, as if never popped. chains are those last popped, in order
 * of popping. Not after any of them was pushed. */
void ring_device_unpop(struct ring_device *dev, const struct ring_chain *chains, uint32_t n);

/*
 * For a device that takes over from one that died: requests its predecessor had popped and not
 * pushed are taken again. Right after ring_device_state_set(), to positions that count them as
 * popped, and before the first pop. Checked as by ring_device_pop(), with the same errors (which do
 * not break the ring); -RING_ENOSPC: more than max_segs.
 *
 * Split: the driver's descriptors stay as they are until the buffer is used; the head names it.
 * Packed: others may have been used in their place, so they must have been kept, n of them, in the
 * order of the chain.
 */
struct ring_packed_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t id;
	uint16_t flags;
};

int ring_device_retake_split(struct ring_device *dev, uint16_t head, struct ring_chain *chain,
	struct ring_seg *segs, uint32_t max_segs);
int ring_device_retake_packed(struct ring_device *dev, const struct ring_packed_desc *descs,
	uint32_t n, struct ring_chain *chain, struct ring_seg *segs, uint32_t max_segs);
/* Split: the used index in shared memory, where a predecessor left it. */
uint16_t ring_device_split_used(const struct ring_device *dev);
/* Packed: the descriptor at a position (below size), as it lies there now. */
void ring_device_packed_peek(
	const struct ring_device *dev, uint16_t position, struct ring_packed_desc *out);

/*
 * For a device that takes over from one that died and left no record: finds the buffers it had not
 * pushed, and arranges the available ring (split) so that a device that starts at *state takes
 * exactly those, oldest first, and then what comes. scratch: 4 * size. How many; right after
 * ring_device_init(), while no device works on the queue.
 *
 * Packed: only after a device that uses buffers in the order in which they lie in the ring, with
 * VIRTIO_F_INDIRECT_DESC, and as long as each buffer takes one position; else -RING_EEXIST.
 * -RING_EAGAIN: the driver is just adding; ask again. lossy: a device may die after it has marked
 * some of a batch used and before it marks the first, which it does last. That first one is then
 * marked here, with the id and length that lie there, as the device was about to: for queues whose
 * contents may be lost (network), not for those whose requests must have been done. Without it such
 * a ring is -RING_EEXIST.
 *
 * -RING_EEXIST: it cannot be told which: of a split ring, when younger buffers have overtaken older
 * ones all the time, and fewer are outstanding now than there were at other times. A buffer that as
 * many younger ones have overtaken as the ring is long is not seen: where that can happen a record
 * must be kept. -RING_EPROTO, -RING_EINVAL: the rings are not well.
 */
int ring_device_recover(
	struct ring_device *dev, uint16_t *scratch, bool lossy, struct ring_device_state *state);

/*
 * Completes n buffers, in any order; they become visible to the driver together, at the end. With
 * in_order, those that overtook an earlier one are held back here until it is pushed too, and one
 * used entry stands for a run of buffers only where no length is lost: buffers without a writable
 * part are skipped in favour of the next one pushed with them; any other gets an entry of its own.
 * -RING_EINVAL: an id that is not in flight (the others are pushed).
 * Marks the used ring dirty; the payload is the caller's to mark.
 */
int ring_device_push(struct ring_device *dev, const struct ring_used *used, uint32_t n);

/* After pushing: must the driver be interrupted? Contains the full barrier, and looks at the
 * driver's event index or flags (2.7.7, 2.8.10). Pairs with ring_driver_interrupt_on(). */
bool ring_device_needs_interrupt(struct ring_device *dev);

/* Is there something to pop? One cache line read; no barrier. */
bool ring_device_has_work(const struct ring_device *dev);

/* Doorbells off: a hint; the driver may still ring. */
void ring_device_doorbell_off(struct ring_device *dev);

/* Doorbells on, full barrier, second look: true means work arrived meanwhile (the caller must pop
 * and must not sleep). Pairs with ring_driver_needs_doorbell(). */
bool ring_device_doorbell_on(struct ring_device *dev);

void ring_device_state_get(const struct ring_device *dev, struct ring_device_state *out);
/* -RING_EINVAL: a position outside the queue. Only right after init, with nothing in flight. */
int ring_device_state_set(struct ring_device *dev, const struct ring_device_state *state);

/* ------------------------------------------------------------------ driver side */

/* One segment as the driver hands it over: guest-physical. */
struct ring_sg {
	uint64_t gpa;
	uint32_t len;
};

struct ring_driver_slot {
	uint64_t token;
	uint32_t in_len;
	uint16_t ndesc;
	uint16_t next;
	bool inflight;
};

struct ring_driver_config {
	enum ring_layout layout;
	struct ring_features features;
	uint32_t size;
	void *desc; /* the three areas as the driver addresses them, zeroed, see ring_geometry */
	void *driver;
	void *device;
	struct ring_driver_slot *slots; /* `size` of them */
	/*
	 * Indirect tables, one for each slot, `indirect_max` entries of 16 bytes each, 16-byte
	 * aligned, and the guest-physical address of the first; NULL and 0 when features.indirect
	 * is off.
	 */
	void *indirect;
	uint64_t indirect_gpa;
	uint32_t indirect_max;
};

/* Opaque to callers; here so that they can embed it. */
struct ring_driver {
	struct ring_driver_config cfg;
	uint16_t avail;       /* next position to fill */
	uint16_t used;        /* next used position to look at */
	uint16_t used_seen;   /* split: the device's index as last read */
	uint16_t free_head;   /* next buffer id to hand out */
	uint32_t nfree;       /* free ring positions */
	uint32_t inflight;    /* buffers added and not yet collected */
	uint32_t unpublished; /* positions filled since the last publish */
	uint64_t unkicked;    /* positions published since the last doorbell decision */
	bool avail_wrap;
	bool used_wrap;
	bool event_on;
	bool broken;
	/* packed: the second half of the batch's first descriptor, written last */
	uint16_t batch_first;
	uint64_t batch_rest;
	/* in-order: the oldest buffer in flight, and the used entry that is being collected */
	uint16_t order_head;
	uint16_t order_last_id;
	uint32_t order_last_len;
	bool order_pending;
	uint64_t doorbells_wanted;
	uint64_t doorbells_suppressed;
};

struct ring_done {
	uint64_t token;
	uint32_t len; /* bytes the device says it wrote, never more than the buffer has room for */
};

/* -RING_EINVAL: bad size, missing memory. The areas must be zeroed. */
int ring_driver_init(struct ring_driver *drv, const struct ring_driver_config *cfg);

/*
 * Starts the queue at another position than 0 (packed: bit 15 is the wrap counter), both
 * directions, and writes the ring memory to match. Right after init, before the device looks.
 * -RING_EINVAL: not in the queue.
 */
int ring_driver_position_set(struct ring_driver *drv, uint16_t position);

/*
 * Queues one request: nout readable segments, then nin writable ones, nout + nin >= 1. Uses an
 * indirect table when that is negotiated, the request has more than one segment, and it fits
 * indirect_max. Nothing is visible to the device before ring_driver_publish().
 * -RING_ENOSPC: no room now; -RING_EINVAL: no segments, a zero length, or more than the queue can
 * hold.
 */
int ring_driver_add(struct ring_driver *drv, const struct ring_sg *sg, uint32_t nout, uint32_t nin,
	uint64_t token);

/* Free ring positions (a request takes one with indirect, else one for each segment). */
uint32_t ring_driver_free(const struct ring_driver *drv);

/* Makes everything added visible, with one release store. */
void ring_driver_publish(struct ring_driver *drv);

/* After publishing: must the doorbell be rung? Contains the full barrier. Pairs with
 * ring_device_doorbell_on(). */
bool ring_driver_needs_doorbell(struct ring_driver *drv);

/*
 * Collects up to max completions. A used entry that names nothing in flight, or a used index that
 * is too far ahead: -RING_EPROTO, from then on (what was collected before it is returned first).
 * With in_order one used entry may stand for several buffers (2.7.9, 2.8.11): those it skips count
 * as written completely.
 */
int ring_driver_collect(struct ring_driver *drv, struct ring_done *done, uint32_t max);

/* Is there something to collect? No barrier. */
bool ring_driver_has_done(const struct ring_driver *drv);

/* Interrupts off: a hint. */
void ring_driver_interrupt_off(struct ring_driver *drv);

/*
 * Interrupts on, full barrier, second look: true means completions are there already (collect, do
 * not sleep). `after` asks for an interrupt only when that many more buffers are used (1: the next;
 * honoured with event_idx, else as 1). Pairs with ring_device_needs_interrupt().
 */
bool ring_driver_interrupt_on(struct ring_driver *drv, uint32_t after);

#endif
