/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the files of ring/ share: the bytes in shared memory (virtio 1.2, 2.7 and 2.8) and the
 * functions each layout provides. Little-endian hosts with 64-bit loads that do not tear.
 */
#ifndef RING_PRIV_H
#define RING_PRIV_H

#include "ring/ring.h"

/*
 * A descriptor of either layout is two 64-bit words, each read or written by one access. The second
 * word holds len in bits 0-31, then split: flags, next; packed: id, flags.
 */
struct ring_desc {
	uint64_t addr;
	uint64_t rest;
};

#define RING_DESC_BYTES 16u

#define RING_DESC_NEXT     0x1u
#define RING_DESC_WRITE    0x2u
#define RING_DESC_INDIRECT 0x4u
#define RING_DESC_AVAIL    0x80u   /* packed */
#define RING_DESC_USED     0x8000u /* packed */

/* Split: avail->flags and used->flags. */
#define RING_SPLIT_QUIET 1u

/* Packed: the flags of an event suppression area, a 32-bit word: off_wrap in bits 0-15, flags
 * above. */
#define RING_EVENT_ENABLE  (0u << 16)
#define RING_EVENT_DISABLE (1u << 16)
#define RING_EVENT_DESC    (2u << 16)
#define RING_EVENT_MASK    (3u << 16)

#define RING_WRAP_BIT 0x8000u

/* Did position `now`, reached by `count` steps, pass the one asked for? (2.7.7.1, 2.7.10.1) */
static inline bool ring_event_passed(uint16_t event, uint16_t now, uint64_t count)
{
	return (uint16_t)(now - event - 1) < count;
}

/* The same for a packed ring, whose positions stay below its size (2.8.10). `word` is the
 * suppression area. */
static inline bool ring_packed_event_passed(
	uint32_t word, uint16_t now, bool wrap, uint64_t count, uint32_t size)
{
	uint16_t event = word & (RING_WRAP_BIT - 1);

	if ((word & RING_EVENT_MASK) == RING_EVENT_DISABLE)
		return false;
	if ((word & RING_EVENT_MASK) != RING_EVENT_DESC || count > size)
		return true;
	if (!!(word & RING_WRAP_BIT) != wrap)
		event -= size;
	return ring_event_passed(event, now, count);
}

/* Moves a packed position on by at most the size of the queue. */
static inline void ring_packed_advance(uint16_t *pos, bool *wrap, uint32_t by, uint32_t size)
{
	uint32_t next = *pos + by;

	if (next >= size) {
		next -= size;
		*wrap = !*wrap;
	}
	*pos = next;
}

static inline uint16_t ring_packed_flags_available(bool wrap)
{
	return wrap ? RING_DESC_AVAIL : RING_DESC_USED;
}

static inline uint16_t ring_packed_flags_used(bool wrap)
{
	return wrap ? RING_DESC_AVAIL | RING_DESC_USED : 0;
}

static inline bool ring_packed_is_available(uint64_t rest, bool wrap)
{
	uint16_t flags = rest >> 48;

	return (flags & (RING_DESC_AVAIL | RING_DESC_USED)) == ring_packed_flags_available(wrap);
}

static inline bool ring_packed_is_used(uint64_t rest, bool wrap)
{
	uint16_t flags = rest >> 48;

	return (flags & (RING_DESC_AVAIL | RING_DESC_USED)) == ring_packed_flags_used(wrap);
}

/* ------------------------------------------------------------------ the split areas */

/* available ring (2.7.6): flags, idx, ring[size], used_event */
static inline uint16_t *ring_avail_flags(void *area)
{
	return area;
}

static inline uint16_t *ring_avail_idx(void *area)
{
	return (uint16_t *)area + 1;
}

static inline uint16_t *ring_avail_entry(void *area, uint32_t i)
{
	return (uint16_t *)area + 2 + i;
}

static inline uint16_t *ring_used_event(void *area, uint32_t size)
{
	return (uint16_t *)area + 2 + size;
}

/* used ring (2.7.8): flags, idx, { id, len }[size], avail_event; the pairs are 4-byte aligned only
 */
static inline uint16_t *ring_used_flags(void *area)
{
	return area;
}

static inline uint16_t *ring_used_idx(void *area)
{
	return (uint16_t *)area + 1;
}

static inline uint32_t *ring_used_entry(void *area, uint32_t i)
{
	return (uint32_t *)area + 1 + 2 * i;
}

static inline uint16_t *ring_avail_event(void *area, uint32_t size)
{
	return (uint16_t *)((uint32_t *)area + 1 + 2 * size);
}

/* ------------------------------------------------------------------ memory */

static inline void *ring_region_translate(
	const struct ring_mem_region *r, uint64_t gpa, uint64_t len, enum ring_dir dir)
{
	uint64_t offset = gpa - r->gpa; /* below the region it wraps to more than its size */

	if (offset >= r->size || len > r->size - offset || (dir == RING_WRITE && r->readonly))
		return NULL;
	return r->hva + offset;
}

/* ------------------------------------------------------------------ what a layout provides */

int ring_split_device_areas(struct ring_device *dev);
int ring_split_device_pop(struct ring_device *dev, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs);
int ring_split_device_push(struct ring_device *dev, const struct ring_used *used, uint32_t n);
bool ring_split_device_wants_interrupt(const struct ring_device *dev);
bool ring_split_device_has_work(const struct ring_device *dev);
void ring_split_device_bell(struct ring_device *dev, bool on);

int ring_packed_device_areas(struct ring_device *dev);
int ring_packed_device_pop(struct ring_device *dev, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs);
int ring_packed_device_push(struct ring_device *dev, const struct ring_used *used, uint32_t n);
bool ring_packed_device_wants_interrupt(const struct ring_device *dev);
bool ring_packed_device_has_work(const struct ring_device *dev);
void ring_packed_device_bell(struct ring_device *dev, bool on);

void ring_split_driver_fill(struct ring_driver *drv, const struct ring_sg *sg, uint32_t nout,
	uint32_t n, uint16_t id, bool indirect);
void ring_split_driver_publish(struct ring_driver *drv);
bool ring_split_driver_wants_doorbell(const struct ring_driver *drv);
int ring_split_driver_collect(struct ring_driver *drv, struct ring_done *done, uint32_t max);
bool ring_split_driver_has_done(const struct ring_driver *drv);
void ring_split_driver_interrupt(struct ring_driver *drv, bool on, uint32_t after);
void ring_split_driver_start(struct ring_driver *drv);

void ring_packed_driver_fill(struct ring_driver *drv, const struct ring_sg *sg, uint32_t nout,
	uint32_t n, uint16_t id, bool indirect);
void ring_packed_driver_publish(struct ring_driver *drv);
bool ring_packed_driver_wants_doorbell(const struct ring_driver *drv);
int ring_packed_driver_collect(struct ring_driver *drv, struct ring_done *done, uint32_t max);
bool ring_packed_driver_has_done(const struct ring_driver *drv);
void ring_packed_driver_interrupt(struct ring_driver *drv, bool on, uint32_t after);
void ring_packed_driver_start(struct ring_driver *drv);

#endif
