/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The device side: what is the same in both layouts, and the choice between them. */
#include "ring/device_priv.h"

int ring_device_area(struct ring_device *dev, uint64_t gpa, uint64_t bytes, uint32_t align,
	enum ring_dir dir, uint8_t **host, uint32_t *region)
{
	*host = ring_device_translate(dev, gpa, bytes, dir);
	if (!*host)
		return -RING_EFAULT;
	if (gpa % align || (uintptr_t)*host % align)
		return -RING_EINVAL;
	if (region)
		*region = dev->region;
	return 0;
}

int ring_device_init(
	struct ring_device *dev, const struct ring_device_config *cfg, const struct ring_mem *mem)
{
	int rc;

	if (!ring_size_valid(cfg->layout, cfg->size) || !cfg->slots || !mem->nregions ||
		!cfg->chain_max || cfg->chain_max > 65535)
		return -RING_EINVAL;

	*dev = (struct ring_device){
		.cfg = *cfg,
		.mem = mem,
		.avail_wrap = true,
		.used_wrap = true,
		.signalled_valid = true,
		.bell_on = true,
	};
	rc = cfg->layout == RING_SPLIT ? ring_split_device_areas(dev)
				       : ring_packed_device_areas(dev);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < cfg->size; i++)
		cfg->slots[i] = (struct ring_device_slot){0};
	return 0;
}

int ring_device_pop(struct ring_device *dev, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs)
{
	int rc;

	if (ring_unlikely(dev->broken))
		return -RING_EPROTO;
	if (ring_unlikely(dev->region >= dev->mem->nregions))
		dev->region = 0;
	if (dev->cfg.layout == RING_SPLIT)
		rc = ring_split_device_pop(dev, chains, max, segs, max_segs);
	else
		rc = ring_packed_device_pop(dev, chains, max, segs, max_segs);
	if (ring_unlikely(rc < 0)) {
		dev->broken = true;
		dev->counters.malformed++;
	}
	return rc;
}

int ring_device_retaken(struct ring_device *dev, const struct ring_walk *w, uint32_t id,
	uint32_t ndesc, struct ring_chain *chain, uint32_t max_segs)
{
	if (id >= dev->cfg.size)
		return -RING_EINVAL;
	if (dev->cfg.slots[id].state)
		return -RING_EEXIST;
	if (w->nout + w->nin > max_segs)
		return -RING_ENOSPC;
	ring_device_take(dev, w, chain, id, ndesc);
	dev->counters.popped++;
	return 0;
}

void ring_device_unpop(struct ring_device *dev, const struct ring_chain *chains, uint32_t n)
{
	const uint32_t size = dev->cfg.size;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t back = ring_device_release(dev, chains[i].id);

		if (dev->cfg.layout == RING_SPLIT) {
			dev->avail -= back;
		} else if (dev->avail >= back) {
			dev->avail -= back;
		} else {
			dev->avail += size - back;
			dev->avail_wrap = !dev->avail_wrap;
		}
	}
	if (dev->cfg.features.in_order)
		dev->order_tail =
			dev->order_tail >= n ? dev->order_tail - n : dev->order_tail + size - n;
	dev->counters.popped -= n;
}

int ring_device_push(struct ring_device *dev, const struct ring_used *used, uint32_t n)
{
	if (dev->cfg.layout == RING_SPLIT)
		return ring_split_device_push(dev, used, n);
	return ring_packed_device_push(dev, used, n);
}

bool ring_device_needs_interrupt(struct ring_device *dev)
{
	bool wanted;

	if (!dev->unsignalled)
		return false;
	/*
	 * The used entries must be visible before the driver's wish is read: pairs with the barrier
	 * in ring_driver_interrupt_on().
	 */
	ring_mb();
	if (ring_unlikely(!dev->signalled_valid))
		wanted = true; /* what was signalled before the state was loaded is not known */
	else if (dev->cfg.layout == RING_SPLIT)
		wanted = ring_split_device_wants_interrupt(dev);
	else
		wanted = ring_packed_device_wants_interrupt(dev);
	dev->signalled_valid = true;
	dev->unsignalled = 0;
	if (wanted)
		dev->counters.interrupts_wanted++;
	else
		dev->counters.interrupts_suppressed++;
	return wanted;
}

bool ring_device_has_work(const struct ring_device *dev)
{
	if (ring_unlikely(dev->broken))
		return false;
	if (dev->cfg.layout == RING_SPLIT)
		return ring_split_device_has_work(dev);
	return ring_packed_device_has_work(dev);
}

static void ring_device_bell_set(struct ring_device *dev, bool on)
{
	if (dev->cfg.layout == RING_SPLIT)
		ring_split_device_bell(dev, on);
	else
		ring_packed_device_bell(dev, on);
	dev->bell_on = on;
}

void ring_device_doorbell_off(struct ring_device *dev)
{
	if (dev->bell_on)
		ring_device_bell_set(dev, false);
}

bool ring_device_doorbell_on(struct ring_device *dev)
{
	ring_device_bell_set(dev, true);
	/*
	 * The wish must be visible before the available entries are looked at again: pairs with the
	 * barrier in ring_driver_needs_doorbell().
	 */
	ring_mb();
	return ring_device_has_work(dev);
}

void ring_device_state_get(const struct ring_device *dev, struct ring_device_state *out)
{
	out->avail = dev->avail;
	out->used = dev->used;
	if (dev->cfg.layout == RING_PACKED) {
		out->avail |= dev->avail_wrap ? RING_WRAP_BIT : 0;
		out->used |= dev->used_wrap ? RING_WRAP_BIT : 0;
	}
}

int ring_device_state_set(struct ring_device *dev, const struct ring_device_state *state)
{
	uint16_t avail = state->avail, used = state->used;

	if (dev->cfg.layout == RING_PACKED) {
		avail &= RING_WRAP_BIT - 1;
		used &= RING_WRAP_BIT - 1;
		if (avail >= dev->cfg.size || used >= dev->cfg.size)
			return -RING_EINVAL;
		dev->avail_wrap = state->avail & RING_WRAP_BIT;
		dev->used_wrap = state->used & RING_WRAP_BIT;
	} else if ((uint16_t)(avail - used) > dev->cfg.size) {
		return -RING_EINVAL;
	}
	dev->avail = dev->avail_seen = avail;
	dev->used = used;
	dev->signalled_valid = false;
	return 0;
}
