/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Indirect tables, as the device reads them. */
#include "ring/device_priv.h"

int ring_walk_indirect(struct ring_device *dev, struct ring_walk *w, uint64_t gpa, uint32_t len)
{
	const bool split = dev->cfg.layout == RING_SPLIT;
	const uint32_t count = len / RING_DESC_BYTES;
	const struct ring_desc *table;
	uint32_t at = 0;
	int rc;

	if (!len || len % RING_DESC_BYTES)
		return -RING_EINVAL;
	table = ring_device_translate(dev, gpa, len, RING_READ);
	if (!table)
		return -RING_EFAULT;
	if ((uintptr_t)table % sizeof(uint64_t))
		return -RING_EINVAL;

	/* A chain that visits more entries than there are visits one twice. */
	for (uint32_t seen = 0; seen < count; seen++) {
		uint64_t addr = ring_load_relaxed(&table[at].addr);
		uint64_t rest = ring_load_relaxed(&table[at].rest);
		uint16_t flags = split ? rest >> 32 : rest >> 48;

		if (ring_unlikely(flags & RING_DESC_INDIRECT))
			return -RING_EINVAL;
		rc = ring_walk_add(dev, w, addr, rest, flags & RING_DESC_WRITE);
		if (ring_unlikely(rc))
			return rc;
		if (!split) { /* every entry counts, NEXT means nothing (2.8.7) */
			at++;
			continue;
		}
		if (!(flags & RING_DESC_NEXT))
			return 0;
		at = rest >> 48;
		if (ring_unlikely(at >= count))
			return -RING_EINVAL;
	}
	return split ? -RING_ELOOP : 0;
}
