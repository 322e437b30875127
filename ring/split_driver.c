/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The driver side of the split layout (2.7). A buffer's id is the index of its first descriptor. */
#include "ring/driver_priv.h"

static void ring_split_desc_store(
	struct ring_desc *d, const struct ring_sg *sg, uint32_t flags, uint32_t next)
{
	ring_store_relaxed(&d->addr, sg->gpa);
	ring_store_relaxed(&d->rest, sg->len | (uint64_t)flags << 32 | (uint64_t)next << 48);
}

static void ring_split_table_fill(
	struct ring_desc *table, const struct ring_sg *sg, uint32_t nout, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t flags = i < nout ? 0 : RING_DESC_WRITE;

		if (i + 1 < n)
			flags |= RING_DESC_NEXT;
		ring_split_desc_store(&table[i], &sg[i], flags, i + 1 < n ? i + 1 : 0);
	}
}

void ring_split_driver_fill(struct ring_driver *drv, const struct ring_sg *sg, uint32_t nout,
	uint32_t n, uint16_t id, bool indirect)
{
	struct ring_desc *desc = drv->cfg.desc;
	uint16_t at = id, next = drv->cfg.slots[id].next;

	if (indirect) {
		struct ring_sg table = {ring_driver_table_gpa(drv, id), n * RING_DESC_BYTES};

		ring_split_table_fill(ring_driver_table(drv, id), sg, nout, n);
		ring_split_desc_store(&desc[id], &table, RING_DESC_INDIRECT, 0);
	} else {
		for (uint32_t i = 0; i < n; i++) {
			uint32_t flags = i < nout ? 0 : RING_DESC_WRITE;

			next = drv->cfg.slots[at].next;
			if (i + 1 < n)
				flags |= RING_DESC_NEXT;
			ring_split_desc_store(&desc[at], &sg[i], flags, i + 1 < n ? next : 0);
			at = next;
		}
	}
	drv->free_head = next;
	ring_store_relaxed(ring_avail_entry(drv->cfg.driver, drv->avail & (drv->cfg.size - 1)), id);
	drv->avail++;
	drv->unpublished++;
}

void ring_split_driver_publish(struct ring_driver *drv)
{
	/* Pairs with the acquire load of the index in ring_split_device_pop(). */
	ring_store_release(ring_avail_idx(drv->cfg.driver), drv->avail);
}

bool ring_split_driver_wants_doorbell(const struct ring_driver *drv)
{
	uint16_t published = drv->avail - drv->unpublished;

	if (!drv->cfg.features.event_idx)
		return !(ring_load_relaxed(ring_used_flags(drv->cfg.device)) & RING_SPLIT_QUIET);
	return ring_event_passed(
		ring_load_relaxed(ring_avail_event(drv->cfg.device, drv->cfg.size)), published,
		drv->unkicked);
}

static int ring_split_used_peek(struct ring_driver *drv, uint32_t *id, uint32_t *len)
{
	uint32_t *entry;

	if (drv->used_seen == drv->used) {
		/* Pairs with the release store in ring_split_device_push(). */
		drv->used_seen = ring_load_acquire(ring_used_idx(drv->cfg.device));
		if (drv->used_seen == drv->used)
			return 0;
	}
	if (ring_unlikely((uint16_t)(drv->used_seen - drv->used) > drv->inflight))
		return -RING_EPROTO;
	entry = ring_used_entry(drv->cfg.device, drv->used & (drv->cfg.size - 1));
	*id = ring_load_relaxed(&entry[0]);
	*len = ring_load_relaxed(&entry[1]);
	return 1;
}

static void ring_split_used_advance(struct ring_driver *drv, uint32_t ndesc)
{
	(void)ndesc;
	drv->used++;
}

int ring_split_driver_collect(struct ring_driver *drv, struct ring_done *done, uint32_t max)
{
	return ring_driver_collect_with(
		drv, done, max, ring_split_used_peek, ring_split_used_advance);
}

bool ring_split_driver_has_done(const struct ring_driver *drv)
{
	return ring_load_acquire(ring_used_idx(drv->cfg.device)) != drv->used;
}

void ring_split_driver_interrupt(struct ring_driver *drv, bool on, uint32_t after)
{
	/* Off: the event farthest ahead is the one just passed. */
	if (drv->cfg.features.event_idx)
		ring_store_relaxed(ring_used_event(drv->cfg.driver, drv->cfg.size),
			(uint16_t)(drv->used + (on ? after : 0) - 1));
	else
		ring_store_relaxed(ring_avail_flags(drv->cfg.driver), on ? 0 : RING_SPLIT_QUIET);
}

void ring_split_driver_start(struct ring_driver *drv)
{
	ring_store_relaxed(ring_used_idx(drv->cfg.device), drv->avail);
	if (drv->cfg.features.event_idx) {
		ring_store_relaxed(ring_avail_event(drv->cfg.device, drv->cfg.size), drv->avail);
		ring_store_relaxed(ring_used_event(drv->cfg.driver, drv->cfg.size), drv->avail);
	}
	ring_store_release(ring_avail_idx(drv->cfg.driver), drv->avail);
}
