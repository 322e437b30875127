/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What both layouts of the device side share and want inlined: the check of a chain, the record of
 * the buffers held, popping and pushing. Everything in shared memory is the driver's claim.
 */
#ifndef RING_DEVICE_PRIV_H
#define RING_DEVICE_PRIV_H

#include "ring/ring_priv.h"

#define RING_SLOT_HELD     1u
#define RING_SLOT_DONE     2u /* in_order: pushed, waiting for an earlier one */
#define RING_SLOT_WRITABLE 4u

/* A chain in the making. Segments past `room` are checked and counted but not stored. */
struct ring_walk {
	struct ring_seg *segs;
	uint32_t room;
	uint32_t nout;
	uint32_t nin;
	uint64_t out_len;
	uint64_t in_len;
};

/* Positions written to the used side and not yet visible. */
struct ring_fill {
	uint32_t positions;
	uint16_t first;
	uint64_t first_rest; /* packed: the second half of the first descriptor */
};

RING_INLINE void *ring_device_translate(
	struct ring_device *dev, uint64_t gpa, uint64_t len, enum ring_dir dir)
{
	const struct ring_mem *mem = dev->mem;
	void *host = ring_region_translate(&mem->regions[dev->region], gpa, len, dir);

	if (ring_likely(host))
		return host;
	for (uint32_t i = 0; i < mem->nregions; i++) {
		host = ring_region_translate(&mem->regions[i], gpa, len, dir);
		if (host) {
			dev->region = i;
			return host;
		}
	}
	return NULL;
}

RING_INLINE void ring_device_fetch(
	const struct ring_fetch *fetch, const uint8_t *host, uint32_t len)
{
	if (fetch->start)
		ring_prefetch(host);
	if (!fetch->at_set || len <= fetch->at)
		return;
	if (fetch->write)
		ring_prefetch_write(host + fetch->at);
	else
		ring_prefetch(host + fetch->at);
}

/* Adds one segment to the chain, or says what is wrong with it. */
RING_INLINE int ring_walk_add(
	struct ring_device *dev, struct ring_walk *w, uint64_t gpa, uint32_t len, bool writable)
{
	uint32_t n = w->nout + w->nin;
	void *host;

	if (ring_unlikely(!len || (!writable && w->nin)))
		return -RING_EINVAL;
	if (ring_unlikely(n >= dev->cfg.chain_max))
		return -RING_ELOOP;
	host = ring_device_translate(dev, gpa, len, writable ? RING_WRITE : RING_READ);
	if (ring_unlikely(!host))
		return -RING_EFAULT;
	if (writable) {
		w->nin++;
		w->in_len += len;
	} else {
		w->nout++;
		w->out_len += len;
	}
	if (ring_unlikely(w->in_len + w->out_len > UINT32_MAX))
		return -RING_EOVERFLOW;
	if (ring_likely(n < w->room))
		w->segs[n] = (struct ring_seg){host, len};
	if (!n)
		ring_device_fetch(&dev->cfg.fetch, host, len);
	return 0;
}

/* Adds the segments of an indirect table (2.7.5.3, 2.8.7). In chain.c. */
int ring_walk_indirect(struct ring_device *dev, struct ring_walk *w, uint64_t gpa, uint32_t len);

/* Adds what one descriptor of the ring stands for. */
RING_INLINE int ring_walk_desc(
	struct ring_device *dev, struct ring_walk *w, uint64_t gpa, uint32_t len, uint16_t flags)
{
	if (!(flags & RING_DESC_INDIRECT))
		return ring_walk_add(dev, w, gpa, len, flags & RING_DESC_WRITE);
	if (ring_unlikely(!dev->cfg.features.indirect || (flags & RING_DESC_NEXT)))
		return -RING_EINVAL;
	return ring_walk_indirect(dev, w, gpa, len);
}

/* Records a checked chain as held by the device. */
RING_INLINE void ring_device_take(struct ring_device *dev, const struct ring_walk *w,
	struct ring_chain *chain, uint16_t id, uint16_t ndesc)
{
	struct ring_device_slot *slot = &dev->cfg.slots[id];

	*chain = (struct ring_chain){
		.id = id,
		.ndesc = ndesc,
		.nout = w->nout,
		.nin = w->nin,
		.out_len = w->out_len,
		.in_len = w->in_len,
		.segs = w->segs,
	};
	slot->ndesc = ndesc;
	slot->state = RING_SLOT_HELD | (w->nin ? RING_SLOT_WRITABLE : 0);
	dev->inflight++;
	dev->held += ndesc;
	if (dev->cfg.features.in_order) {
		dev->cfg.slots[dev->order_tail].order = id;
		dev->order_tail = dev->order_tail + 1u < dev->cfg.size ? dev->order_tail + 1u : 0;
	}
}

/* A chain taken again, checked: records it. The rest of what popping checks. */
int ring_device_retaken(struct ring_device *dev, const struct ring_walk *w, uint32_t id,
	uint32_t ndesc, struct ring_chain *chain, uint32_t max_segs);

/*
 * The loop of popping. walk() reads the chain at the avail position: 1 with its id and the ring
 * positions it takes, 0 when there is none, or an error; advance() steps over it.
 */
RING_INLINE int ring_device_pop_with(struct ring_device *dev, struct ring_chain *chains,
	uint32_t max, struct ring_seg *segs, uint32_t max_segs,
	int (*walk)(struct ring_device *dev, struct ring_walk *w, uint32_t *id, uint32_t *ndesc),
	void (*advance)(struct ring_device *dev, uint32_t ndesc))
{
	uint32_t n = 0, id = 0, ndesc = 0, nsegs;
	int rc = 0;

	while (n < max) {
		struct ring_walk w = {.segs = segs, .room = max_segs};

		rc = walk(dev, &w, &id, &ndesc);
		if (rc <= 0)
			break;
		rc = 0;
		if (ring_unlikely(id >= dev->cfg.size)) {
			rc = -RING_EINVAL;
			break;
		}
		if (ring_unlikely(dev->cfg.slots[id].state)) {
			rc = -RING_EEXIST;
			break;
		}
		nsegs = w.nout + w.nin;
		if (nsegs > max_segs)
			break;
		ring_device_take(dev, &w, &chains[n++], id, ndesc);
		advance(dev, ndesc);
		segs += nsegs;
		max_segs -= nsegs;
	}
	dev->counters.popped += n;
	/* With good chains in hand the error waits: the next pop meets it first. */
	return n ? (int)n : rc;
}

/* Forgets a buffer that goes back to the driver. Returns the used positions it stands for. */
RING_INLINE uint32_t ring_device_release(struct ring_device *dev, uint16_t id)
{
	struct ring_device_slot *slot = &dev->cfg.slots[id];

	slot->state = 0;
	dev->inflight--;
	dev->held -= slot->ndesc;
	return dev->cfg.layout == RING_SPLIT ? 1 : slot->ndesc;
}

/* in_order: passes on what is complete at the head of the queue. */
RING_INLINE void ring_device_flush_with(struct ring_device *dev, struct ring_fill *fill,
	void (*emit)(struct ring_device *dev, struct ring_fill *fill, uint32_t id, uint32_t len,
		uint32_t positions))
{
	struct ring_device_slot *slots = dev->cfg.slots;
	uint32_t id = slots[dev->order_head].order, next, positions = 0;
	bool more = dev->inflight && (slots[id].state & RING_SLOT_DONE);

	while (more) {
		bool skippable = !(slots[id].state & RING_SLOT_WRITABLE);

		positions += ring_device_release(dev, id);
		dev->order_done--;
		dev->order_head = dev->order_head + 1u < dev->cfg.size ? dev->order_head + 1u : 0;
		next = slots[dev->order_head].order;
		more = dev->inflight && (slots[next].state & RING_SLOT_DONE);
		if (!skippable || !more) {
			emit(dev, fill, id, slots[id].len, positions);
			positions = 0;
		}
		id = next;
	}
}

/* in_order: passes on at once what comes in the order it was popped in. Returns how many did. */
RING_INLINE uint32_t ring_device_pass_with(struct ring_device *dev, struct ring_fill *fill,
	const struct ring_used *used, uint32_t n,
	void (*emit)(struct ring_device *dev, struct ring_fill *fill, uint32_t id, uint32_t len,
		uint32_t positions))
{
	struct ring_device_slot *slots = dev->cfg.slots;
	uint32_t i, id, positions = 0;
	uint8_t state;

	for (i = 0; i < n; i++) {
		id = used[i].id;
		if (id >= dev->cfg.size || slots[dev->order_head].order != id)
			break;
		state = slots[id].state;
		if ((state & (RING_SLOT_HELD | RING_SLOT_DONE)) != RING_SLOT_HELD)
			break;
		positions += ring_device_release(dev, id);
		dev->order_head = dev->order_head + 1u < dev->cfg.size ? dev->order_head + 1u : 0;
		if (state & RING_SLOT_WRITABLE) {
			emit(dev, fill, id, used[i].len, positions);
			positions = 0;
		}
	}
	/* of several that nothing was written to, the last stands for all (2.7.9, 2.8.8) */
	if (positions)
		emit(dev, fill, used[i - 1].id, used[i - 1].len, positions);
	dev->counters.pushed += i;
	return i;
}

/*
 * The loop of pushing. emit() writes one used entry at the used position and moves it on by
 * `positions`; nothing is visible to the driver until the caller commits the fill.
 */
RING_INLINE int ring_device_push_with(struct ring_device *dev, struct ring_fill *fill,
	const struct ring_used *used, uint32_t n,
	void (*emit)(struct ring_device *dev, struct ring_fill *fill, uint32_t id, uint32_t len,
		uint32_t positions))
{
	int rc = 0;

	if (dev->cfg.features.in_order && !dev->order_done) {
		uint32_t passed = ring_device_pass_with(dev, fill, used, n, emit);

		used += passed;
		n -= passed;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct ring_device_slot *slot;

		if (ring_unlikely(used[i].id >= dev->cfg.size)) {
			rc = -RING_EINVAL;
			continue;
		}
		slot = &dev->cfg.slots[used[i].id];
		if (ring_unlikely(
			    (slot->state & (RING_SLOT_HELD | RING_SLOT_DONE)) != RING_SLOT_HELD)) {
			rc = -RING_EINVAL;
			continue;
		}
		dev->counters.pushed++;
		if (dev->cfg.features.in_order) {
			slot->state |= RING_SLOT_DONE;
			dev->order_done++;
			slot->len = used[i].len;
		} else {
			emit(dev, fill, used[i].id, used[i].len,
				ring_device_release(dev, used[i].id));
		}
	}
	if (dev->order_done)
		ring_device_flush_with(dev, fill, emit);
	dev->unsignalled += fill->positions;
	return rc;
}

/* Marks shared memory of a queue as written; `region` is the one its area lies in. */
RING_INLINE void ring_device_dirty(
	const struct ring_device *dev, uint32_t region, const void *host, uint64_t len)
{
	if (ring_unlikely(dev->mem->regions[region].dirty))
		ring_mem_dirty(dev->mem, host, len);
}

/* Translates and checks one area at attach time. Its region goes to *region. */
int ring_device_area(struct ring_device *dev, uint64_t gpa, uint64_t bytes, uint32_t align,
	enum ring_dir dir, uint8_t **host, uint32_t *region);

#endif
