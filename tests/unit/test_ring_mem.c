/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory: translation at its edges, exact dirty bits, copies; and the geometry of queues. */
#include "tests/unit/unit.h"
#include "tests/unit/test_ring_rig.h"

static uint8_t block[64 * 4096] __attribute__((aligned(4096)));

static void test_add(void)
{
	struct ring_mem mem = {0};

	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x1000, 0x1000, block, false), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x3000, 0, block, false), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x3000, 16, NULL, false), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x1fff, 1, block, false), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x0fff, 2, block, false), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x0, 0x10000, block, false), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x1800, 0x10, block, false), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, UINT64_MAX - 15, 17, block, false), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, UINT64_MAX, UINT64_MAX, block, false), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, UINT64_MAX - 15, 16, block, false), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x2000, 0x1000, block, false), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x0, 0x1000, block, false), 0);
	for (uint64_t i = mem.nregions; i < RING_MEM_REGIONS_MAX; i++)
		CU_ASSERT_EQUAL(ring_mem_add(&mem, i << 20, 4096, block, false), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 1ull << 40, 4096, block, false), -RING_ENOSPC);
}

static void test_translate(void)
{
	struct ring_mem mem = {0};

	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0, 1, RING_READ));
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x1000, 0x1000, block, false), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x2000, 0x800, block + 0x4000, true), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, UINT64_MAX - 0xff, 0x100, block + 0x8000, false), 0);

	CU_ASSERT_PTR_EQUAL(ring_mem_translate(&mem, 0x1000, 1, RING_READ), block);
	CU_ASSERT_PTR_EQUAL(ring_mem_translate(&mem, 0x1000, 0x1000, RING_WRITE), block);
	CU_ASSERT_PTR_EQUAL(ring_mem_translate(&mem, 0x1fff, 1, RING_WRITE), block + 0xfff);
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x1000, 0, RING_READ));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x1000, 0x1001, RING_READ));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x0fff, 1, RING_READ));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x0fff, 2, RING_READ));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x1fff, 2, RING_READ));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x1000, UINT64_MAX, RING_READ));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x1001, UINT64_MAX, RING_READ));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x1008, (uint64_t)-8, RING_READ));
	CU_ASSERT_PTR_EQUAL(ring_mem_translate(&mem, 0x2000, 0x800, RING_READ), block + 0x4000);
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x2000, 1, RING_WRITE));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, 0x2800, 1, RING_READ));
	CU_ASSERT_PTR_EQUAL(ring_mem_translate(&mem, UINT64_MAX, 1, RING_READ), block + 0x80ff);
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, UINT64_MAX, 2, RING_READ));
	CU_ASSERT_PTR_NULL(ring_mem_translate(&mem, UINT64_MAX - 0xff, 0x101, RING_READ));
}

/* Every range of a small region, against bits set one byte at a time, from any bit on. */
static void test_dirty_exact(void)
{
	enum { PAGES = 130 };
	static uint8_t host[PAGES * 4096];
	uint64_t bits[4] = {0}, want[4];
	struct ring_mem mem = {0};
	uint64_t seed = 42;

	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x10800, sizeof(host), host, false), 0);
	ring_mem_dirty(&mem, host, 100); /* nobody asks */
	mem.regions[0].dirty = bits;
	for (int round = 0; round < 3000; round++) {
		uint64_t from = rig_below(&seed, sizeof(host));
		uint64_t len = rig_below(&seed, round % 3 ? 9000 : sizeof(host));

		if (len > sizeof(host) - from)
			len = sizeof(host) - from;
		memset(bits, 0, sizeof(bits));
		memset(want, 0, sizeof(want));
		mem.regions[0].dirty_bit = (uint8_t)(round % 2 ? rig_below(&seed, 64) : 0);
		for (uint64_t p = from / 4096; len && p <= (from + len - 1) / 4096; p++) {
			uint64_t bit = p + mem.regions[0].dirty_bit;

			want[bit / 64] |= 1ull << bit % 64;
		}
		ring_mem_dirty(&mem, host + from, len);
		CU_ASSERT_EQUAL(memcmp(bits, want, sizeof(bits)), 0);
	}
	memset(bits, 0, sizeof(bits));
	mem.regions[0].dirty_bit = 0;
	ring_mem_dirty(&mem, host + 4095, 1);
	CU_ASSERT_EQUAL(bits[0], 1);
	ring_mem_dirty(&mem, host + 4096, 1);
	CU_ASSERT_EQUAL(bits[0], 3);
	memset(bits, 0, sizeof(bits));
	ring_mem_dirty(&mem, block, 4096); /* not this region's */
	ring_mem_dirty(&mem, host + sizeof(host) - 1, 2);
	CU_ASSERT_EQUAL(bits[0] | bits[1] | bits[2], 0);
	ring_mem_dirty(&mem, host, sizeof(host));
	CU_ASSERT_TRUE(bits[0] == UINT64_MAX && bits[1] == UINT64_MAX && bits[2] == 3);
}

/* The same host memory at two addresses: both bitmaps know. */
static void test_dirty_alias(void)
{
	uint64_t a = 0, b = 0;
	struct ring_mem mem = {0};

	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0, 0x8000, block, false), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x100000, 0x4000, block + 0x2000, true), 0);
	mem.regions[0].dirty = &a;
	mem.regions[1].dirty = &b;
	ring_mem_dirty(&mem, block + 0x3000, 0x1000);
	CU_ASSERT_EQUAL(a, 8);
	CU_ASSERT_EQUAL(b, 2);
}

static void test_copy(void)
{
	static uint8_t buf[0x3000], back[0x3000];
	uint64_t dirty[2] = {0};
	struct ring_mem mem = {0};

	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x2000, 0x1000, block + 0x5000, false), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x1000, 0x1000, block, false), 0);
	CU_ASSERT_EQUAL(ring_mem_add(&mem, 0x3000, 0x1000, block + 0x9000, true), 0);
	mem.regions[0].dirty = &dirty[0];
	mem.regions[1].dirty = &dirty[1];
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = i * 7 + i / 256;
	CU_ASSERT_EQUAL(ring_mem_write(&mem, 0x1800, buf, 0x1000), 0);
	CU_ASSERT_EQUAL(dirty[0], 1);
	CU_ASSERT_EQUAL(dirty[1], 1);
	CU_ASSERT_EQUAL(ring_mem_read(&mem, 0x1800, back, 0x1800), 0);
	CU_ASSERT_EQUAL(memcmp(buf, back, 0x1000), 0);
	CU_ASSERT_EQUAL(ring_mem_read(&mem, 0x1800, back, 0x2801), -RING_EFAULT);
	CU_ASSERT_EQUAL(ring_mem_read(&mem, 0x0fff, back, 1), -RING_EFAULT);
	CU_ASSERT_EQUAL(ring_mem_read(&mem, UINT64_MAX, back, 2), -RING_EFAULT);
	CU_ASSERT_EQUAL(ring_mem_read(&mem, 0x1000, back, UINT64_MAX), -RING_EFAULT);
	CU_ASSERT_EQUAL(ring_mem_write(&mem, 0x2ff0, buf, 0x11), -RING_EFAULT);
	CU_ASSERT_EQUAL(ring_mem_write(&mem, UINT64_MAX - 3, buf, 16), -RING_EFAULT);
	CU_ASSERT_EQUAL(ring_mem_read(&mem, 0x99999, back, 0), 0);
}

static void test_geometry(void)
{
	struct ring_geometry g;

	for (uint32_t size = 0; size <= 70000; size++) {
		bool power = size && !(size & (size - 1));

		CU_ASSERT_EQUAL(ring_size_valid(RING_SPLIT, size), power && size <= 32768);
		CU_ASSERT_EQUAL(ring_size_valid(RING_PACKED, size), size >= 1 && size <= 32768);
	}
	for (uint32_t size = 1; size <= 32768; size *= 2) {
		ring_geometry_get(RING_SPLIT, size, &g);
		CU_ASSERT_TRUE(g.desc == 0 && g.driver >= 16 * size && g.driver % 2 == 0);
		CU_ASSERT_TRUE(g.device >= g.driver + 6 + 2 * size && g.device % 4 == 0);
		CU_ASSERT_TRUE(g.bytes >= g.device + 6 + 8 * size);
	}
	for (uint32_t size = 1; size <= 32768; size++) {
		ring_geometry_get(RING_PACKED, size, &g);
		CU_ASSERT_TRUE(g.desc == 0 && g.driver >= 16 * size && g.driver % 4 == 0);
		CU_ASSERT_TRUE(g.device >= g.driver + 4 && g.device % 4 == 0);
		CU_ASSERT_TRUE(g.bytes >= g.device + 4);
	}
}

static const struct unit_case cases[] = {
	{"regions: added, overlapping, wrapping, too many", test_add},
	{"translation at every edge", test_translate},
	{"dirty bits exact", test_dirty_exact},
	{"dirty bits of aliased memory", test_dirty_alias},
	{"copies across regions", test_copy},
	{"sizes and geometry", test_geometry},
};

UNIT_MAIN("ring_mem", cases)
