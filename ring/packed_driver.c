/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The driver side of the packed layout (2.8). Descriptors are used in ring order; buffer ids come
 * from a free list of their own. All descriptors of a batch but the first are written as available
 * at once: the device cannot pass the first, whose second half is stored by publish().
 */
#include "ring/driver_priv.h"

/* Writes the descriptor at drv->avail and steps over it. */
static void ring_packed_desc_put(
	struct ring_driver *drv, uint64_t gpa, uint32_t len, uint16_t id, uint32_t flags)
{
	struct ring_desc *d = (struct ring_desc *)drv->cfg.desc + drv->avail;
	uint64_t rest;

	flags |= ring_packed_flags_available(drv->avail_wrap);
	rest = len | (uint64_t)id << 32 | (uint64_t)flags << 48;
	ring_store_relaxed(&d->addr, gpa);
	if (drv->unpublished) {
		ring_store_relaxed(&d->rest, rest);
	} else {
		drv->batch_first = drv->avail;
		drv->batch_rest = rest;
	}
	drv->unpublished++;
	ring_packed_advance(&drv->avail, &drv->avail_wrap, 1, drv->cfg.size);
}

void ring_packed_driver_fill(struct ring_driver *drv, const struct ring_sg *sg, uint32_t nout,
	uint32_t n, uint16_t id, bool indirect)
{
	drv->free_head = drv->cfg.slots[id].next;
	if (indirect) {
		struct ring_desc *table = ring_driver_table(drv, id);

		for (uint32_t i = 0; i < n; i++) {
			uint64_t flags = i < nout ? 0 : RING_DESC_WRITE;

			ring_store_relaxed(&table[i].addr, sg[i].gpa);
			ring_store_relaxed(&table[i].rest, sg[i].len | flags << 48);
		}
		ring_packed_desc_put(drv, ring_driver_table_gpa(drv, id), n * RING_DESC_BYTES, id,
			RING_DESC_INDIRECT);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t flags = i < nout ? 0 : RING_DESC_WRITE;

		if (i + 1 < n)
			flags |= RING_DESC_NEXT;
		ring_packed_desc_put(drv, sg[i].gpa, sg[i].len, id, flags);
	}
}

void ring_packed_driver_publish(struct ring_driver *drv)
{
	struct ring_desc *d = (struct ring_desc *)drv->cfg.desc + drv->batch_first;

	/* Pairs with the acquire load of the same word in ring_packed_device_pop(). */
	ring_store_release(&d->rest, drv->batch_rest);
}

bool ring_packed_driver_wants_doorbell(const struct ring_driver *drv)
{
	uint32_t size = drv->cfg.size, now = drv->avail;
	bool wrap = drv->avail_wrap;

	if (now < drv->unpublished) {
		now += size;
		wrap = !wrap;
	}
	now -= drv->unpublished;
	return ring_packed_event_passed(
		ring_load_relaxed((uint32_t *)drv->cfg.device), now, wrap, drv->unkicked, size);
}

static uint64_t ring_packed_used_rest(const struct ring_driver *drv)
{
	struct ring_desc *d = (struct ring_desc *)drv->cfg.desc + drv->used;

	/* Pairs with the release store in ring_packed_device_push(). */
	return ring_load_acquire(&d->rest);
}

static int ring_packed_used_peek(struct ring_driver *drv, uint32_t *id, uint32_t *len)
{
	uint64_t rest;

	if (!drv->inflight) /* nothing can come: leave the shared line alone */
		return 0;
	rest = ring_packed_used_rest(drv);
	if (!ring_packed_is_used(rest, drv->used_wrap))
		return 0;
	*id = (uint16_t)(rest >> 32);
	*len = (uint32_t)rest;
	return 1;
}

static void ring_packed_used_advance(struct ring_driver *drv, uint32_t ndesc)
{
	ring_packed_advance(&drv->used, &drv->used_wrap, ndesc, drv->cfg.size);
}

int ring_packed_driver_collect(struct ring_driver *drv, struct ring_done *done, uint32_t max)
{
	return ring_driver_collect_with(
		drv, done, max, ring_packed_used_peek, ring_packed_used_advance);
}

bool ring_packed_driver_has_done(const struct ring_driver *drv)
{
	return drv->inflight && ring_packed_is_used(ring_packed_used_rest(drv), drv->used_wrap);
}

void ring_packed_driver_interrupt(struct ring_driver *drv, bool on, uint32_t after)
{
	uint32_t word = on ? RING_EVENT_ENABLE : RING_EVENT_DISABLE;
	uint16_t at = drv->used;
	bool wrap = drv->used_wrap;

	if (on && drv->cfg.features.event_idx) {
		ring_packed_advance(&at, &wrap, after - 1, drv->cfg.size);
		word = RING_EVENT_DESC | at | (wrap ? RING_WRAP_BIT : 0);
	}
	ring_store_relaxed((uint32_t *)drv->cfg.driver, word);
}

void ring_packed_driver_start(struct ring_driver *drv)
{
	struct ring_desc *desc = drv->cfg.desc;

	/* As the lap that ended here left them. */
	for (uint32_t i = 0; i < drv->cfg.size; i++) {
		bool lap = i < drv->avail ? drv->avail_wrap : !drv->avail_wrap;

		ring_store_relaxed(&desc[i].rest, (uint64_t)ring_packed_flags_used(lap) << 48);
	}
}
