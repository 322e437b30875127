/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A queue with both of its sides in one process, for the tests of ring/: guest memory in mappings
 * that end at a guard page, so that the first byte read or written past the end is a crash.
 */
#ifndef TEST_RING_RIG_H
#define TEST_RING_RIG_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring/ring.h"

#define RIG_RING_GPA   0x100000ull
#define RIG_TABLE_GPA  0x10000000ull
#define RIG_DATA_GPA   0x40000000ull
#define RIG_ROM_GPA    0x200000000ull
#define RIG_DATA_BYTES (1u << 20)
#define RIG_ROM_BYTES  (1u << 16)
#define RIG_TABLE_MAX  8u

struct rig_map {
	uint8_t *map;
	size_t map_bytes;
	uint8_t *at; /* `bytes` bytes that end where the guard begins */
	size_t bytes;
};

static inline uint32_t rig_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 16;
}

static inline uint32_t rig_below(uint64_t *state, uint32_t n)
{
	return rig_random(state) % n;
}

/* Out of memory ends the test program: there is nothing to test without. */
static inline void rig_map_new(struct rig_map *m, size_t bytes)
{
	size_t page = sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;

	m->map_bytes = body + 2 * page;
	m->map = mmap(NULL, m->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->map == MAP_FAILED || mprotect(m->map + page, body, PROT_READ | PROT_WRITE))
		abort();
	m->at = m->map + page + body - bytes;
	m->bytes = bytes;
}

static inline void rig_map_free(struct rig_map *m)
{
	munmap(m->map, m->map_bytes);
}

struct rig {
	enum ring_layout layout;
	struct ring_features features;
	uint32_t size;
	struct ring_geometry geometry;
	struct rig_map ring, table, data, rom;
	struct ring_mem mem;
	struct ring_driver drv;
	struct ring_device dev;
	struct ring_driver_slot *drv_slots;
	struct ring_device_slot *dev_slots;
	struct ring_driver_config drv_cfg;
	struct ring_device_config dev_cfg;
};

static inline struct ring_features rig_features(unsigned bits)
{
	return (struct ring_features){
		.event_idx = bits & 1,
		.indirect = bits & 2,
		.in_order = bits & 4,
	};
}

static inline void rig_new(struct rig *r, enum ring_layout layout, uint32_t size, unsigned features)
{
	memset(r, 0, sizeof(*r));
	r->layout = layout;
	r->features = rig_features(features);
	r->size = size;
	ring_geometry_get(layout, size, &r->geometry);
	rig_map_new(&r->ring, r->geometry.bytes);
	rig_map_new(&r->table, (size_t)size * RIG_TABLE_MAX * 16);
	rig_map_new(&r->data, RIG_DATA_BYTES);
	rig_map_new(&r->rom, RIG_ROM_BYTES);
	r->drv_slots = calloc(size, sizeof(*r->drv_slots));
	r->dev_slots = calloc(size, sizeof(*r->dev_slots));
	if (!r->drv_slots || !r->dev_slots)
		abort();
	if (ring_mem_add(&r->mem, RIG_DATA_GPA, r->data.bytes, r->data.at, false) ||
		ring_mem_add(&r->mem, RIG_ROM_GPA, r->rom.bytes, r->rom.at, true) ||
		ring_mem_add(&r->mem, RIG_RING_GPA, r->ring.bytes, r->ring.at, false) ||
		ring_mem_add(&r->mem, RIG_TABLE_GPA, r->table.bytes, r->table.at, false))
		abort();
	r->drv_cfg = (struct ring_driver_config){
		.layout = layout,
		.features = r->features,
		.size = size,
		.desc = r->ring.at + r->geometry.desc,
		.driver = r->ring.at + r->geometry.driver,
		.device = r->ring.at + r->geometry.device,
		.slots = r->drv_slots,
		.indirect = r->table.at,
		.indirect_gpa = RIG_TABLE_GPA,
		.indirect_max = RIG_TABLE_MAX,
	};
	r->dev_cfg = (struct ring_device_config){
		.layout = layout,
		.features = r->features,
		.size = size,
		.desc_gpa = RIG_RING_GPA + r->geometry.desc,
		.driver_gpa = RIG_RING_GPA + r->geometry.driver,
		.device_gpa = RIG_RING_GPA + r->geometry.device,
		.chain_max = 1024,
		.slots = r->dev_slots,
	};
	if (ring_driver_init(&r->drv, &r->drv_cfg) ||
		ring_device_init(&r->dev, &r->dev_cfg, &r->mem))
		abort();
}

/* Both sides start at `position` (packed: bit 15 is the wrap counter). */
static inline void rig_start(struct rig *r, uint16_t position)
{
	struct ring_device_state state = {position, position};

	if (ring_driver_position_set(&r->drv, position) || ring_device_state_set(&r->dev, &state))
		abort();
}

static inline void rig_free(struct rig *r)
{
	rig_map_free(&r->ring);
	rig_map_free(&r->table);
	rig_map_free(&r->data);
	rig_map_free(&r->rom);
	free(r->drv_slots);
	free(r->dev_slots);
}

#endif
