/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The device side of the split layout (2.7). */
#include "ring/device_priv.h"

/* How far ahead descriptors are fetched: two cache lines, if the driver takes them in turn. */
#define RING_SPLIT_AHEAD 8u
/* Used entries in a cache line. */
#define RING_SPLIT_USED_LINE 8

int ring_split_device_areas(struct ring_device *dev)
{
	const struct ring_device_config *cfg = &dev->cfg;
	const uint64_t size = cfg->size, event = cfg->features.event_idx ? 2 : 0;
	int rc;

	rc = ring_device_area(dev, cfg->desc_gpa, RING_DESC_BYTES * size, 16, RING_READ, &dev->desc,
		&dev->desc_region);
	if (!rc)
		rc = ring_device_area(dev, cfg->driver_gpa, 4 + 2 * size + event, 2, RING_READ,
			&dev->driver, NULL);
	if (!rc)
		rc = ring_device_area(dev, cfg->device_gpa, 4 + 8 * size + event, 4, RING_WRITE,
			&dev->device, &dev->device_region);
	return rc;
}

static struct ring_desc *ring_split_desc(const struct ring_device *dev, uint32_t i)
{
	return (struct ring_desc *)dev->desc + i;
}

/* The chain that begins with descriptor `at`. */
RING_INLINE int ring_split_walk_from(
	struct ring_device *dev, struct ring_walk *w, uint32_t at, uint32_t *ndesc)
{
	const uint32_t size = dev->cfg.size;
	uint32_t n;
	int rc;

	for (n = 1; n <= size; n++) {
		uint64_t addr, rest;
		uint16_t flags;

		if (ring_unlikely(at >= size))
			return -RING_EINVAL;
		addr = ring_load_relaxed(&ring_split_desc(dev, at)->addr);
		rest = ring_load_relaxed(&ring_split_desc(dev, at)->rest);
		flags = rest >> 32;
		rc = ring_walk_desc(dev, w, addr, rest, flags);
		if (ring_unlikely(rc))
			return rc;
		if (!(flags & RING_DESC_NEXT)) {
			*ndesc = n;
			return 1;
		}
		at = rest >> 48;
	}
	return -RING_ELOOP;
}

/* Fetches the descriptor that stands `by` further on. Only a hint: the entry is loaded again, and
 * checked, when its turn comes. */
RING_INLINE void ring_split_ahead(const struct ring_device *dev, uint32_t by)
{
	const uint32_t size = dev->cfg.size;

	ring_prefetch(ring_split_desc(dev,
		ring_load_relaxed(ring_avail_entry(dev->driver, (dev->avail + by) & (size - 1))) &
			(size - 1)));
}

static int ring_split_walk(
	struct ring_device *dev, struct ring_walk *w, uint32_t *id, uint32_t *ndesc)
{
	const uint32_t size = dev->cfg.size;

	if (dev->avail == dev->avail_seen)
		return 0;
	*id = ring_load_relaxed(ring_avail_entry(dev->driver, dev->avail & (size - 1)));
	ring_split_ahead(dev, RING_SPLIT_AHEAD);
	return ring_split_walk_from(dev, w, *id, ndesc);
}

int ring_device_retake_split(struct ring_device *dev, uint16_t head, struct ring_chain *chain,
	struct ring_seg *segs, uint32_t max_segs)
{
	struct ring_walk w = {.segs = segs, .room = max_segs};
	uint32_t ndesc = 0;
	int rc;

	if (dev->cfg.layout != RING_SPLIT || head >= dev->cfg.size)
		return -RING_EINVAL;
	rc = ring_split_walk_from(dev, &w, head, &ndesc);
	return rc < 0 ? rc : ring_device_retaken(dev, &w, head, ndesc, chain, max_segs);
}

uint16_t ring_device_split_used(const struct ring_device *dev)
{
	return ring_load_relaxed(ring_used_idx(dev->device));
}

static void ring_split_avail_advance(struct ring_device *dev, uint32_t ndesc)
{
	(void)ndesc;
	dev->avail++;
}

/* Entries that n chains will soon be used by: the driver's processor has read those before. */
static void ring_split_used_ahead(const struct ring_device *dev, int n)
{
	for (int i = 0; i < n; i += RING_SPLIT_USED_LINE)
		ring_prefetch_write(ring_used_entry(
			dev->device, (dev->used + (uint32_t)i) & (dev->cfg.size - 1)));
}

int ring_split_device_pop(struct ring_device *dev, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs)
{
	int rc;

	if ((uint16_t)(dev->avail_seen - dev->avail) < max) {
		/* Pairs with the release store in ring_split_driver_publish(). */
		uint16_t seen = ring_load_acquire(ring_avail_idx(dev->driver));

		if (ring_unlikely((uint16_t)(seen - dev->avail) > dev->cfg.size))
			return -RING_EPROTO;
		dev->avail_seen = seen;
	}
	for (uint32_t i = 1; i < RING_SPLIT_AHEAD && i < max; i++)
		ring_split_ahead(dev, i);
	rc = ring_device_pop_with(
		dev, chains, max, segs, max_segs, ring_split_walk, ring_split_avail_advance);
	if (dev->cfg.fetch.write)
		ring_split_used_ahead(dev, rc);
	return rc;
}

static void ring_split_used_emit(struct ring_device *dev, struct ring_fill *fill, uint32_t id,
	uint32_t len, uint32_t positions)
{
	uint32_t *entry = ring_used_entry(dev->device, dev->used & (dev->cfg.size - 1));

	ring_store_relaxed(&entry[0], id);
	ring_store_relaxed(&entry[1], len);
	dev->used += positions;
	fill->positions += positions;
}

static void ring_split_used_dirty(const struct ring_device *dev, const struct ring_fill *fill)
{
	uint32_t first = fill->first & (dev->cfg.size - 1);
	uint32_t part = dev->cfg.size - first;

	if (part > fill->positions)
		part = fill->positions;
	ring_mem_dirty(dev->mem, dev->device, 4);
	ring_mem_dirty(dev->mem, ring_used_entry(dev->device, first), 8 * (uint64_t)part);
	ring_mem_dirty(
		dev->mem, ring_used_entry(dev->device, 0), 8 * (uint64_t)(fill->positions - part));
}

int ring_split_device_push(struct ring_device *dev, const struct ring_used *used, uint32_t n)
{
	struct ring_fill fill = {.first = dev->used};
	int rc = ring_device_push_with(dev, &fill, used, n, ring_split_used_emit);

	if (!fill.positions)
		return rc;
	/* Pairs with the acquire load of the index in ring_split_used_peek(). */
	ring_store_release(ring_used_idx(dev->device), dev->used);
	if (ring_unlikely(dev->mem->regions[dev->device_region].dirty))
		ring_split_used_dirty(dev, &fill);
	return rc;
}

bool ring_split_device_wants_interrupt(const struct ring_device *dev)
{
	if (!dev->cfg.features.event_idx)
		return !(ring_load_relaxed(ring_avail_flags(dev->driver)) & RING_SPLIT_QUIET);
	return ring_event_passed(ring_load_relaxed(ring_used_event(dev->driver, dev->cfg.size)),
		dev->used, dev->unsignalled);
}

bool ring_split_device_has_work(const struct ring_device *dev)
{
	return dev->avail_seen != dev->avail ||
	       ring_load_relaxed(ring_avail_idx(dev->driver)) != dev->avail;
}

void ring_split_device_bell(struct ring_device *dev, bool on)
{
	uint16_t *word;

	if (dev->cfg.features.event_idx) {
		/* Off: the event farthest ahead is the one just passed. */
		word = ring_avail_event(dev->device, dev->cfg.size);
		ring_store_relaxed(word, (uint16_t)(dev->avail - (on ? 0 : 1)));
	} else {
		word = ring_used_flags(dev->device);
		ring_store_relaxed(word, on ? 0 : RING_SPLIT_QUIET);
	}
	ring_device_dirty(dev, dev->device_region, word, sizeof(*word));
}
