/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The device side of the packed layout (2.8). */
#include "ring/device_priv.h"

/* How far ahead descriptors are fetched: two cache lines. */
#define RING_PACKED_AHEAD 8u

int ring_packed_device_areas(struct ring_device *dev)
{
	const struct ring_device_config *cfg = &dev->cfg;
	int rc;

	rc = ring_device_area(dev, cfg->desc_gpa, RING_DESC_BYTES * (uint64_t)cfg->size, 16,
		RING_WRITE, &dev->desc, &dev->desc_region);
	if (!rc)
		rc = ring_device_area(dev, cfg->driver_gpa, 4, 4, RING_READ, &dev->driver, NULL);
	if (!rc)
		rc = ring_device_area(
			dev, cfg->device_gpa, 4, 4, RING_WRITE, &dev->device, &dev->device_region);
	return rc;
}

static struct ring_desc *ring_packed_desc(const struct ring_device *dev, uint32_t i)
{
	return (struct ring_desc *)dev->desc + i;
}

static int ring_packed_walk(
	struct ring_device *dev, struct ring_walk *w, uint32_t *id, uint32_t *ndesc)
{
	const uint32_t size = dev->cfg.size;
	struct ring_desc *desc = ring_packed_desc(dev, dev->avail);
	/* Flags come first, in the same load as the id and length that were stored with or before
	 * them. Pairs with the release store in ring_packed_driver_publish(). */
	uint64_t rest = ring_load_acquire(&desc->rest), addr;
	uint32_t at = dev->avail, n;
	int rc;

	if (!ring_packed_is_available(rest, dev->avail_wrap))
		return 0;
	if (ring_unlikely(dev->held >= size))
		return -RING_EPROTO;
	ring_prefetch(desc + RING_PACKED_AHEAD);

	for (n = 1;; n++) {
		uint16_t flags = rest >> 48;

		addr = ring_load_relaxed(&ring_packed_desc(dev, at)->addr);
		rc = ring_walk_desc(dev, w, addr, rest, flags);
		if (ring_unlikely(rc))
			return rc;
		if (!(flags & RING_DESC_NEXT))
			break;
		/* A longer one would run into buffers that are held, or into itself. */
		if (ring_unlikely(n >= size - dev->held))
			return -RING_ELOOP;
		at = at + 1 < size ? at + 1 : 0;
		rest = ring_load_relaxed(&ring_packed_desc(dev, at)->rest);
	}
	*id = (uint16_t)(rest >> 32); /* the last descriptor's counts (2.8.6) */
	*ndesc = n;
	return 1;
}

static void ring_packed_avail_advance(struct ring_device *dev, uint32_t ndesc)
{
	ring_packed_advance(&dev->avail, &dev->avail_wrap, ndesc, dev->cfg.size);
}

int ring_packed_device_pop(struct ring_device *dev, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs)
{
	return ring_device_pop_with(
		dev, chains, max, segs, max_segs, ring_packed_walk, ring_packed_avail_advance);
}

int ring_device_retake_packed(struct ring_device *dev, const struct ring_packed_desc *descs,
	uint32_t n, struct ring_chain *chain, struct ring_seg *segs, uint32_t max_segs)
{
	struct ring_walk w = {.segs = segs, .room = max_segs};

	if (dev->cfg.layout != RING_PACKED || !n || n > dev->cfg.size - dev->held)
		return -RING_EINVAL;
	for (uint32_t i = 0; i < n; i++) {
		struct ring_packed_desc d = descs[i]; /* copied once: it may lie in shared memory */
		int rc = ring_walk_desc(dev, &w, d.addr, d.len, d.flags);

		if (rc)
			return rc;
	}
	return ring_device_retaken(dev, &w, descs[n - 1].id, n, chain, max_segs);
}

void ring_device_packed_peek(
	const struct ring_device *dev, uint16_t position, struct ring_packed_desc *out)
{
	const struct ring_desc *desc = ring_packed_desc(dev, position);
	uint64_t rest = ring_load_relaxed(&desc->rest);

	*out = (struct ring_packed_desc){
		.addr = ring_load_relaxed(&desc->addr),
		.len = (uint32_t)rest,
		.id = (uint16_t)(rest >> 32),
		.flags = (uint16_t)(rest >> 48),
	};
}

static void ring_packed_used_emit(struct ring_device *dev, struct ring_fill *fill, uint32_t id,
	uint32_t len, uint32_t positions)
{
	uint64_t flags = ring_packed_flags_used(dev->used_wrap);
	uint64_t rest = len | (uint64_t)id << 32 | flags << 48;

	/* The first is written last, by the commit: until then the driver cannot pass it. */
	if (fill->positions)
		ring_store_relaxed(&ring_packed_desc(dev, dev->used)->rest, rest);
	else
		fill->first_rest = rest;
	ring_packed_advance(&dev->used, &dev->used_wrap, positions, dev->cfg.size);
	fill->positions += positions;
}

static void ring_packed_used_dirty(const struct ring_device *dev, const struct ring_fill *fill)
{
	uint32_t part = dev->cfg.size - fill->first;

	if (part > fill->positions)
		part = fill->positions;
	ring_mem_dirty(
		dev->mem, ring_packed_desc(dev, fill->first), RING_DESC_BYTES * (uint64_t)part);
	ring_mem_dirty(dev->mem, ring_packed_desc(dev, 0),
		RING_DESC_BYTES * (uint64_t)(fill->positions - part));
}

int ring_packed_device_push(struct ring_device *dev, const struct ring_used *used, uint32_t n)
{
	struct ring_fill fill = {.first = dev->used};
	int rc = ring_device_push_with(dev, &fill, used, n, ring_packed_used_emit);

	if (!fill.positions)
		return rc;
	/* Pairs with the acquire load of the same word in ring_packed_used_peek(). */
	ring_store_release(&ring_packed_desc(dev, fill.first)->rest, fill.first_rest);
	if (ring_unlikely(dev->mem->regions[dev->desc_region].dirty))
		ring_packed_used_dirty(dev, &fill);
	return rc;
}

bool ring_packed_device_wants_interrupt(const struct ring_device *dev)
{
	return ring_packed_event_passed(ring_load_relaxed((uint32_t *)dev->driver), dev->used,
		dev->used_wrap, dev->unsignalled, dev->cfg.size);
}

bool ring_packed_device_has_work(const struct ring_device *dev)
{
	return ring_packed_is_available(
		ring_load_relaxed(&ring_packed_desc(dev, dev->avail)->rest), dev->avail_wrap);
}

void ring_packed_device_bell(struct ring_device *dev, bool on)
{
	uint32_t word = on ? RING_EVENT_ENABLE : RING_EVENT_DISABLE;

	if (on && dev->cfg.features.event_idx)
		word = RING_EVENT_DESC | dev->avail | (dev->avail_wrap ? RING_WRAP_BIT : 0);
	ring_store_relaxed((uint32_t *)dev->device, word);
	ring_device_dirty(dev, dev->device_region, dev->device, sizeof(word));
}
