/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sizes and places of a queue's areas. */
#include "ring/ring_priv.h"

bool ring_size_valid(enum ring_layout layout, uint32_t size)
{
	if (size < 1 || size > RING_SIZE_MAX)
		return false;
	return layout == RING_PACKED || (size & (size - 1)) == 0;
}

static uint64_t ring_line_up(uint64_t at)
{
	return (at + RING_CACHE_LINE - 1) & ~(uint64_t)(RING_CACHE_LINE - 1);
}

/* Each area starts a cache line, so that the two sides never write the same one by accident. */
void ring_geometry_get(enum ring_layout layout, uint32_t size, struct ring_geometry *out)
{
	uint64_t driver_bytes = layout == RING_SPLIT ? 6 + 2 * (uint64_t)size : 4;
	uint64_t device_bytes = layout == RING_SPLIT ? 6 + 8 * (uint64_t)size : 4;

	out->desc = 0;
	out->driver = ring_line_up(RING_DESC_BYTES * (uint64_t)size);
	out->device = ring_line_up(out->driver + driver_bytes);
	out->bytes = ring_line_up(out->device + device_bytes);
}
