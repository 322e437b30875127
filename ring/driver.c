/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The driver side: what is the same in both layouts, and the choice between them. */
#include "ring/driver_priv.h"

static bool ring_driver_config_valid(const struct ring_driver_config *cfg)
{
	if (!ring_size_valid(cfg->layout, cfg->size))
		return false;
	if (!cfg->desc || !cfg->driver || !cfg->device || !cfg->slots)
		return false;
	if ((uintptr_t)cfg->desc % 16 || (uintptr_t)cfg->device % 4 ||
		(uintptr_t)cfg->driver % (cfg->layout == RING_SPLIT ? 2 : 4))
		return false;
	if (!cfg->features.indirect || !cfg->indirect_max)
		return true;
	return cfg->indirect && (uintptr_t)cfg->indirect % 16 == 0 && cfg->indirect_max <= 65535;
}

int ring_driver_init(struct ring_driver *drv, const struct ring_driver_config *cfg)
{
	if (!ring_driver_config_valid(cfg))
		return -RING_EINVAL;

	*drv = (struct ring_driver){
		.cfg = *cfg,
		.nfree = cfg->size,
		.avail_wrap = true,
		.used_wrap = true,
		.event_on = true,
	};
	if (!cfg->features.indirect)
		drv->cfg.indirect_max = 0;
	for (uint32_t i = 0; i < cfg->size; i++)
		cfg->slots[i] = (struct ring_driver_slot){.next = i + 1 < cfg->size ? i + 1 : 0};
	return 0;
}

int ring_driver_position_set(struct ring_driver *drv, uint16_t position)
{
	if (drv->cfg.layout == RING_SPLIT) {
		drv->avail = drv->used = drv->used_seen = position;
		ring_split_driver_start(drv);
		return 0;
	}
	if ((position & (RING_WRAP_BIT - 1)) >= drv->cfg.size)
		return -RING_EINVAL;
	drv->avail = drv->used = position & (RING_WRAP_BIT - 1);
	drv->avail_wrap = drv->used_wrap = position & RING_WRAP_BIT;
	ring_packed_driver_start(drv);
	return 0;
}

int ring_driver_add(struct ring_driver *drv, const struct ring_sg *sg, uint32_t nout, uint32_t nin,
	uint64_t token)
{
	const uint32_t n = nout + nin;
	const bool indirect = n > 1 && n <= drv->cfg.indirect_max;
	const uint32_t need = indirect ? 1 : n;
	struct ring_driver_slot *slot;
	uint64_t total = 0, out_total = 0;
	uint16_t id;

	if (ring_unlikely(!n || n < nout || need > drv->cfg.size))
		return -RING_EINVAL;
	for (uint32_t i = 0; i < n; i++) {
		if (ring_unlikely(!sg[i].len))
			return -RING_EINVAL;
		total += sg[i].len;
		if (i < nout)
			out_total = total;
	}
	if (ring_unlikely(total > UINT32_MAX))
		return -RING_EINVAL;
	if (need > drv->nfree)
		return -RING_ENOSPC;

	id = drv->free_head;
	slot = &drv->cfg.slots[id];
	slot->token = token;
	slot->in_len = total - out_total;
	slot->ndesc = need;
	slot->inflight = true;
	drv->nfree -= need;
	drv->inflight++;
	if (drv->cfg.layout == RING_SPLIT)
		ring_split_driver_fill(drv, sg, nout, n, id, indirect);
	else
		ring_packed_driver_fill(drv, sg, nout, n, id, indirect);
	return 0;
}

uint32_t ring_driver_free(const struct ring_driver *drv)
{
	return drv->nfree;
}

void ring_driver_publish(struct ring_driver *drv)
{
	if (!drv->unpublished)
		return;
	if (drv->cfg.layout == RING_SPLIT)
		ring_split_driver_publish(drv);
	else
		ring_packed_driver_publish(drv);
	drv->unkicked += drv->unpublished;
	drv->unpublished = 0;
}

bool ring_driver_needs_doorbell(struct ring_driver *drv)
{
	bool wanted;

	if (!drv->unkicked)
		return false;
	/*
	 * The published descriptors must be visible before the device's wish is read: pairs with
	 * the barrier in ring_device_doorbell_on().
	 */
	ring_mb();
	if (drv->cfg.layout == RING_SPLIT)
		wanted = ring_split_driver_wants_doorbell(drv);
	else
		wanted = ring_packed_driver_wants_doorbell(drv);
	drv->unkicked = 0;
	if (wanted)
		drv->doorbells_wanted++;
	else
		drv->doorbells_suppressed++;
	return wanted;
}

int ring_driver_collect(struct ring_driver *drv, struct ring_done *done, uint32_t max)
{
	if (drv->cfg.layout == RING_SPLIT)
		return ring_split_driver_collect(drv, done, max);
	return ring_packed_driver_collect(drv, done, max);
}

bool ring_driver_has_done(const struct ring_driver *drv)
{
	if (drv->order_pending || drv->broken) /* a broken ring: collect() has the error to tell */
		return true;
	if (drv->cfg.layout == RING_SPLIT)
		return ring_split_driver_has_done(drv);
	return ring_packed_driver_has_done(drv);
}

static void ring_driver_interrupt_set(struct ring_driver *drv, bool on, uint32_t after)
{
	if (drv->cfg.layout == RING_SPLIT)
		ring_split_driver_interrupt(drv, on, after);
	else
		ring_packed_driver_interrupt(drv, on, after);
	drv->event_on = on;
}

void ring_driver_interrupt_off(struct ring_driver *drv)
{
	if (drv->event_on)
		ring_driver_interrupt_set(drv, false, 0);
}

bool ring_driver_interrupt_on(struct ring_driver *drv, uint32_t after)
{
	/* More than is in flight would never come. */
	if (after > drv->inflight)
		after = drv->inflight;
	if (!after)
		after = 1;
	ring_driver_interrupt_set(drv, true, after);
	/*
	 * The wish must be visible before the used entries are looked at again: pairs with the
	 * barrier in ring_device_needs_interrupt().
	 */
	ring_mb();
	return ring_driver_has_done(drv);
}
