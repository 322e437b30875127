/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What both layouts of the driver side share and want inlined: buffer ids, tables and collecting.
 */
#ifndef RING_DRIVER_PRIV_H
#define RING_DRIVER_PRIV_H

#include "ring/ring_priv.h"

RING_INLINE uint64_t ring_driver_table_gpa(const struct ring_driver *drv, uint16_t id)
{
	return drv->cfg.indirect_gpa + (uint64_t)id * drv->cfg.indirect_max * RING_DESC_BYTES;
}

RING_INLINE struct ring_desc *ring_driver_table(const struct ring_driver *drv, uint16_t id)
{
	return (struct ring_desc *)drv->cfg.indirect + (size_t)id * drv->cfg.indirect_max;
}

/*
 * With in_order, ids are handed out round and round: a split buffer's id is its first descriptor
 * and descriptors are used in ring order (2.7.9), a packed buffer's id is a number of its own.
 */
RING_INLINE uint16_t ring_driver_id_after(
	const struct ring_driver *drv, uint32_t id, uint32_t ndesc)
{
	id += drv->cfg.layout == RING_SPLIT ? ndesc : 1;
	return id >= drv->cfg.size ? id - drv->cfg.size : id;
}

/* Gives a buffer's id and positions back; returns what it was. */
RING_INLINE void ring_driver_complete(
	struct ring_driver *drv, uint16_t id, uint32_t len, struct ring_done *done)
{
	struct ring_driver_slot *slot = &drv->cfg.slots[id];
	uint16_t tail = id;

	done->token = slot->token;
	done->len = len < slot->in_len ? len : slot->in_len;
	slot->inflight = false;
	drv->nfree += slot->ndesc;
	drv->inflight--;
	if (drv->cfg.features.in_order) {
		drv->order_head = ring_driver_id_after(drv, id, slot->ndesc);
		return;
	}
	if (drv->cfg.layout == RING_SPLIT)
		for (uint32_t i = 1; i < slot->ndesc; i++)
			tail = drv->cfg.slots[tail].next;
	drv->cfg.slots[tail].next = drv->free_head;
	drv->free_head = id;
}

/*
 * The loop of collecting. peek() says whether the device has written the used entry at drv->used
 * (1, with what it says; 0; or an error), advance() steps over a buffer of ndesc descriptors.
 */
RING_INLINE int ring_driver_collect_with(struct ring_driver *drv, struct ring_done *done,
	uint32_t max, int (*peek)(struct ring_driver *drv, uint32_t *id, uint32_t *len),
	void (*advance)(struct ring_driver *drv, uint32_t ndesc))
{
	const bool in_order = drv->cfg.features.in_order;
	uint32_t n = 0, id = 0, len = 0;
	int rc = drv->broken ? -RING_EPROTO : 0;

	while (n < max && !rc) {
		if (!drv->order_pending) {
			rc = peek(drv, &id, &len);
			if (rc <= 0)
				break;
			rc = 0;
			if (ring_unlikely(id >= drv->cfg.size || !drv->cfg.slots[id].inflight)) {
				rc = -RING_EPROTO;
				break;
			}
			if (in_order) {
				drv->order_pending = true;
				drv->order_last_id = id;
				drv->order_last_len = len;
			}
		}
		if (in_order) {
			id = drv->order_head;
			len = drv->cfg.slots[id].in_len;
			if (id == drv->order_last_id) {
				len = drv->order_last_len;
				drv->order_pending = false;
			}
		}
		advance(drv, drv->cfg.slots[id].ndesc);
		ring_driver_complete(drv, id, len, &done[n++]);
	}
	if (ring_unlikely(rc < 0)) {
		drv->broken = true;
		return n ? (int)n : rc;
	}
	return n;
}

#endif
