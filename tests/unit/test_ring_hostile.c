/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a device side must survive: rings written by hand, byte by byte as the specification lays
 * them out, malformed in every way we know; a driver that changes descriptors while they are read;
 * and, the other way round, a driver side that meets a device that lies.
 */
#include <pthread.h>

#include "tests/unit/unit.h"
#include "tests/unit/test_ring_rig.h"

#define SIZE     16u
#define CHAINS   32u
#define SEGS     64u
#define HUGE_GPA 0x1000000000ull
#define HUGE_LEN (5ull << 30)
#define TOP_GPA  (UINT64_MAX - 0xfff)

#define F_NEXT     1u
#define F_WRITE    2u
#define F_INDIRECT 4u

struct raw {
	enum ring_layout layout;
	struct rig_map desc, driver, device, data, rom, top, table;
	void *huge; /* zeros without memory behind them */
	struct ring_mem mem;
	struct ring_device dev;
	struct ring_device_slot slots[SIZE];
	struct ring_device_config cfg;
	uint16_t made; /* chains made available */
};

static struct ring_chain chains[CHAINS];
static struct ring_seg segs[SEGS];

#define DATA RIG_DATA_GPA

static void raw_attach(struct raw *r, unsigned features)
{
	r->cfg.features = rig_features(features);
	CU_ASSERT_EQUAL_FATAL(ring_device_init(&r->dev, &r->cfg, &r->mem), 0);
}

static void raw_new(struct raw *r, enum ring_layout layout)
{
	bool split = layout == RING_SPLIT;

	memset(r, 0, sizeof(*r));
	r->layout = layout;
	rig_map_new(&r->desc, 16 * SIZE);
	rig_map_new(&r->driver, split ? 6 + 2 * SIZE : 4);
	rig_map_new(&r->device, split ? 8 + 8 * SIZE : 4);
	rig_map_new(&r->data, 8192);
	rig_map_new(&r->rom, 4096);
	rig_map_new(&r->top, 4096);
	rig_map_new(&r->table, 16 * SIZE);
	r->huge =
		mmap(NULL, HUGE_LEN, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->huge == MAP_FAILED ||
		ring_mem_add(&r->mem, DATA, r->data.bytes, r->data.at, false) ||
		ring_mem_add(&r->mem, DATA + r->data.bytes, r->rom.bytes, r->rom.at, true) ||
		ring_mem_add(&r->mem, TOP_GPA, r->top.bytes, r->top.at, false) ||
		ring_mem_add(&r->mem, HUGE_GPA, HUGE_LEN, r->huge, false) ||
		ring_mem_add(&r->mem, RIG_TABLE_GPA, r->table.bytes, r->table.at, false) ||
		ring_mem_add(&r->mem, 0x10000, r->desc.bytes, r->desc.at, false) ||
		ring_mem_add(&r->mem, 0x20000, r->driver.bytes, r->driver.at, false) ||
		ring_mem_add(&r->mem, 0x30000, r->device.bytes, r->device.at, false))
		abort();
	r->cfg = (struct ring_device_config){
		.layout = layout,
		.size = SIZE,
		.desc_gpa = 0x10000,
		.driver_gpa = 0x20000,
		.device_gpa = 0x30000,
		.chain_max = 32,
		.slots = r->slots,
	};
	raw_attach(r, 2);
}

static void raw_free(struct raw *r)
{
	struct rig_map *maps[] = {
		&r->desc, &r->driver, &r->device, &r->data, &r->rom, &r->top, &r->table};

	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
		rig_map_free(maps[i]);
	munmap(r->huge, HUGE_LEN);
}

static void put16(uint8_t *at, uint16_t v)
{
	at[0] = v;
	at[1] = v >> 8;
}

static void put32(uint8_t *at, uint32_t v)
{
	put16(at, v);
	put16(at + 2, v >> 16);
}

static void put64(uint8_t *at, uint64_t v)
{
	put32(at, v);
	put32(at + 4, v >> 32);
}

static uint32_t get16(const uint8_t *at)
{
	return at[0] | at[1] << 8;
}

static uint32_t get32(const uint8_t *at)
{
	return get16(at) | get16(at + 2) << 16;
}

/* One descriptor of either layout, at index i of a table or ring. Packed: available in the first
 * lap. */
static void desc_put(struct raw *r, uint8_t *table, uint32_t i, uint64_t gpa, uint32_t len,
	uint16_t flags, uint16_t next_or_id)
{
	uint8_t *d = table + 16 * i;

	put64(d, gpa);
	put32(d + 8, len);
	if (r->layout == RING_SPLIT) {
		put16(d + 12, flags);
		put16(d + 14, next_or_id);
	} else {
		put16(d + 12, next_or_id);
		put16(d + 14, flags | (table == r->desc.at ? 0x80 : 0));
	}
}

/* In the ring: the split chain goes on at i + 1, the packed buffer has id `id`. */
static void ring_put(
	struct raw *r, uint32_t i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t id)
{
	desc_put(r, r->desc.at, i, gpa, len, flags, r->layout == RING_SPLIT ? i + 1 : id);
}

/* In the indirect table: the split chain goes on at i + 1. */
static void table_put(struct raw *r, uint32_t i, uint64_t gpa, uint32_t len, uint16_t flags)
{
	desc_put(r, r->table.at, i, gpa, len, flags, r->layout == RING_SPLIT ? i + 1 : 0);
}

/* Split: makes the chain at `head` available. Packed: the flags did so already. */
static void raw_make(struct raw *r, uint16_t head)
{
	if (r->layout != RING_SPLIT)
		return;
	put16(r->driver.at + 4 + 2 * (r->made++ % SIZE), head);
	put16(r->driver.at + 2, r->made);
}

static int raw_pop(struct raw *r)
{
	return ring_device_pop(&r->dev, chains, CHAINS, segs, SEGS);
}

static void indirect(struct raw *r, uint32_t entries)
{
	ring_put(r, 0, RIG_TABLE_GPA, 16 * entries, F_INDIRECT, 0);
}

/* ------------------------------------------------------------------ each writes one bad chain at 0
 */

static void bad_loop(struct raw *r)
{
	if (r->layout == RING_SPLIT) {
		desc_put(r, r->desc.at, 0, DATA, 1, F_NEXT, 1);
		desc_put(r, r->desc.at, 1, DATA, 1, F_NEXT, 0);
		return;
	}
	for (uint32_t i = 0; i < SIZE; i++)
		ring_put(r, i, DATA, 1, F_NEXT, 0);
}

static void bad_loop_self(struct raw *r)
{
	bad_loop(r);
	if (r->layout == RING_SPLIT)
		desc_put(r, r->desc.at, 0, DATA, 1, F_NEXT, 0);
}

static void bad_loop_table(struct raw *r)
{
	indirect(r, 2);
	table_put(r, 0, DATA, 1, F_NEXT);
	desc_put(r, r->table.at, 1, DATA, 1, F_NEXT, 0);
	if (r->layout == RING_PACKED) { /* no loops there, so: longer than allowed */
		r->dev.cfg.chain_max = 3;
		indirect(r, 4);
		for (uint32_t i = 0; i < 4; i++)
			table_put(r, i, DATA, 1, 0);
	}
}

static void bad_long(struct raw *r)
{
	r->dev.cfg.chain_max = 3;
	for (uint32_t i = 0; i < 4; i++)
		ring_put(r, i, DATA, 1, i < 3 ? F_NEXT : 0, 0);
}

static void bad_gpa(struct raw *r)
{
	ring_put(r, 0, 0xdead00000000ull, 1, 0, 0);
}

static void bad_end(struct raw *r)
{
	ring_put(r, 0, TOP_GPA - 1, 2, 0, 0);
}

static void bad_past_end(struct raw *r)
{
	ring_put(r, 0, HUGE_GPA + HUGE_LEN - 15, 16, 0, 0);
}

static void bad_straddle(struct raw *r)
{
	ring_put(r, 0, DATA + r->data.bytes - 1, 2, 0, 0);
}

static void bad_wrap(struct raw *r)
{
	ring_put(r, 0, UINT64_MAX - 3, 5, 0, 0);
}

static void bad_wrap_far(struct raw *r)
{
	ring_put(r, 0, UINT64_MAX, UINT32_MAX, F_WRITE, 0);
}

static void bad_readonly(struct raw *r)
{
	ring_put(r, 0, DATA + r->data.bytes, 16, F_WRITE, 0);
}

static void bad_zero(struct raw *r)
{
	ring_put(r, 0, DATA, 0, 0, 0);
}

static void bad_zero_second(struct raw *r)
{
	ring_put(r, 0, DATA, 8, F_NEXT, 0);
	ring_put(r, 1, DATA, 0, F_WRITE, 0);
}

static void bad_total(struct raw *r)
{
	ring_put(r, 0, HUGE_GPA, 0xf0000000u, F_NEXT, 0);
	ring_put(r, 1, HUGE_GPA, 0x10000000u, F_WRITE, 0);
}

static void bad_total_table(struct raw *r)
{
	indirect(r, 3);
	table_put(r, 0, HUGE_GPA, 0x80000000u, F_NEXT);
	table_put(r, 1, HUGE_GPA, 0x7fffffffu, F_NEXT);
	table_put(r, 2, HUGE_GPA, 1, 0);
}

static void bad_order(struct raw *r)
{
	ring_put(r, 0, DATA, 8, F_WRITE | F_NEXT, 0);
	ring_put(r, 1, DATA, 8, 0, 0);
}

static void bad_order_table(struct raw *r)
{
	indirect(r, 2);
	table_put(r, 0, DATA, 8, F_WRITE | F_NEXT);
	table_put(r, 1, DATA, 8, 0);
}

static void bad_order_mixed(struct raw *r)
{
	ring_put(r, 0, DATA, 8, F_WRITE | F_NEXT, 0);
	ring_put(r, 1, RIG_TABLE_GPA, 16, F_INDIRECT, 0);
	table_put(r, 0, DATA, 8, 0);
}

static void bad_nested(struct raw *r)
{
	indirect(r, 1);
	table_put(r, 0, RIG_TABLE_GPA, 16, F_INDIRECT);
}

static void bad_indirect_next(struct raw *r)
{
	ring_put(r, 0, RIG_TABLE_GPA, 16, F_INDIRECT | F_NEXT, 0);
	table_put(r, 0, DATA, 8, 0);
	ring_put(r, 1, DATA, 8, 0, 0);
}

static void bad_indirect_odd(struct raw *r)
{
	ring_put(r, 0, RIG_TABLE_GPA, 17, F_INDIRECT, 0);
	table_put(r, 0, DATA, 8, 0);
}

static void bad_indirect_empty(struct raw *r)
{
	ring_put(r, 0, RIG_TABLE_GPA, 0, F_INDIRECT, 0);
}

static void bad_indirect_gpa(struct raw *r)
{
	ring_put(r, 0, RIG_TABLE_GPA + 16, 16 * SIZE, F_INDIRECT, 0);
}

static void bad_indirect_align(struct raw *r)
{
	ring_put(r, 0, RIG_TABLE_GPA + 4, 16, F_INDIRECT, 0);
}

static void bad_indirect_off(struct raw *r)
{
	raw_attach(r, 0);
	indirect(r, 1);
	table_put(r, 0, DATA, 8, 0);
}

static void bad_table_index(struct raw *r)
{
	indirect(r, 2);
	desc_put(r, r->table.at, 0, DATA, 1, F_NEXT, 2);
	if (r->layout == RING_PACKED) /* has no indices: a segment that is out of range instead */
		table_put(r, 1, DATA, 0, 0);
}

static void bad_next(struct raw *r)
{
	desc_put(r, r->desc.at, 0, DATA, 1, r->layout == RING_SPLIT ? F_NEXT : 0, SIZE);
}

static const struct {
	const char *name;
	void (*make)(struct raw *r);
	int error;
} bad[] = {
	{"loop", bad_loop, -RING_ELOOP},
	{"loop to itself", bad_loop_self, -RING_ELOOP},
	{"loop in a table", bad_loop_table, -RING_ELOOP},
	{"longer than chain_max", bad_long, -RING_ELOOP},
	{"address outside", bad_gpa, -RING_EFAULT},
	{"starts before a region", bad_end, -RING_EFAULT},
	{"ends after a region", bad_past_end, -RING_EFAULT},
	{"straddles two regions", bad_straddle, -RING_EFAULT},
	{"wraps the address space", bad_wrap, -RING_EFAULT},
	{"wraps it with a huge length", bad_wrap_far, -RING_EFAULT},
	{"writes read-only memory", bad_readonly, -RING_EFAULT},
	{"zero length", bad_zero, -RING_EINVAL},
	{"zero length later", bad_zero_second, -RING_EINVAL},
	{"total overflows", bad_total, -RING_EOVERFLOW},
	{"total of a table overflows", bad_total_table, -RING_EOVERFLOW},
	{"writable before readable", bad_order, -RING_EINVAL},
	{"the same in a table", bad_order_table, -RING_EINVAL},
	{"the same across ring and table", bad_order_mixed, -RING_EINVAL},
	{"indirect inside indirect", bad_nested, -RING_EINVAL},
	{"indirect with next", bad_indirect_next, -RING_EINVAL},
	{"indirect of odd length", bad_indirect_odd, -RING_EINVAL},
	{"indirect of no length", bad_indirect_empty, -RING_EINVAL},
	{"indirect outside memory", bad_indirect_gpa, -RING_EFAULT},
	{"indirect misaligned", bad_indirect_align, -RING_EINVAL},
	{"indirect not negotiated", bad_indirect_off, -RING_EINVAL},
	{"bad entry of a table", bad_table_index, -RING_EINVAL},
	{"index or id past the size", bad_next, -RING_EINVAL},
};

static void hostile_all(enum ring_layout layout)
{
	struct raw r;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int rc, again;

		raw_new(&r, layout);
		bad[i].make(&r);
		raw_make(&r, 0);
		CU_ASSERT_TRUE(ring_device_has_work(&r.dev));
		rc = raw_pop(&r);
		again = raw_pop(&r);
		if (rc != bad[i].error || again != -RING_EPROTO)
			printf("\n    %s: %d, then %d", bad[i].name, rc, again);
		CU_ASSERT_EQUAL(rc, bad[i].error);
		CU_ASSERT_EQUAL(again, -RING_EPROTO);
		CU_ASSERT_EQUAL(r.dev.counters.malformed, 1);
		CU_ASSERT_EQUAL(r.dev.counters.popped, 0);
		CU_ASSERT_FALSE(ring_device_has_work(&r.dev));
		CU_ASSERT_FALSE(ring_device_doorbell_on(&r.dev));
		raw_free(&r);

		/* Found even when there is no room for the segments that come before it. */
		raw_new(&r, layout);
		bad[i].make(&r);
		raw_make(&r, 0);
		CU_ASSERT_EQUAL(ring_device_pop(&r.dev, chains, 1, segs, 0), bad[i].error);
		raw_free(&r);
	}
}

static void test_bad_split(void)
{
	hostile_all(RING_SPLIT);
}

static void test_bad_packed(void)
{
	hostile_all(RING_PACKED);
}

/* A good chain first: it is delivered, completes, and the bad one behind it is met by the next pop.
 */
static void test_good_then_bad(void)
{
	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++) {
		struct ring_used used = {0, 4};
		struct raw r;

		raw_new(&r, layout);
		ring_put(&r, 0, DATA, 8, 0, 0);
		ring_put(&r, 1, DATA, 0, 0, 1);
		raw_make(&r, 0);
		raw_make(&r, 1);
		CU_ASSERT_EQUAL(raw_pop(&r), 1);
		CU_ASSERT_PTR_EQUAL(chains[0].segs[0].base, r.data.at);
		CU_ASSERT_EQUAL(r.dev.counters.malformed, 0);
		CU_ASSERT_EQUAL(raw_pop(&r), -RING_EINVAL);
		CU_ASSERT_EQUAL(raw_pop(&r), -RING_EPROTO);
		CU_ASSERT_EQUAL(ring_device_push(&r.dev, &used, 1), 0);
		CU_ASSERT_EQUAL(ring_device_push(&r.dev, &used, 1), -RING_EINVAL);
		if (layout == RING_SPLIT) {
			CU_ASSERT_EQUAL(get16(r.device.at + 2), 1);
			CU_ASSERT_EQUAL(get32(r.device.at + 4), 0);
			CU_ASSERT_EQUAL(get32(r.device.at + 8), 4);
		} else {
			CU_ASSERT_EQUAL(get32(r.desc.at + 8), 4);
			CU_ASSERT_EQUAL(get16(r.desc.at + 12), 0);
			CU_ASSERT_EQUAL(get16(r.desc.at + 14), 0x8080);
		}
		CU_ASSERT_EQUAL(ring_device_init(&r.dev, &r.cfg, &r.mem), 0);
		raw_free(&r);
	}
}

/* Odd, but allowed: unknown flags, the last byte of memory, WRITE on a table, direct then indirect.
 */
static void test_tolerated(void)
{
	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++) {
		struct raw r;

		raw_new(&r, layout);
		ring_put(&r, 0, TOP_GPA, 0x1000, 0x7f78 & ~0x80u, 0);
		ring_put(&r, 1, DATA, 8, F_NEXT, 9);
		ring_put(&r, 2, RIG_TABLE_GPA, 32, F_INDIRECT | F_WRITE, 9);
		table_put(&r, 0, DATA + r.data.bytes, 16, F_NEXT);
		table_put(&r, 1, HUGE_GPA, 0xffffff00u - 16 - 8, F_WRITE);
		raw_make(&r, 0);
		raw_make(&r, 1);
		CU_ASSERT_EQUAL(raw_pop(&r), 2);
		CU_ASSERT_TRUE(chains[0].nout == 1 && chains[0].nin == 0 && chains[0].ndesc == 1);
		CU_ASSERT_PTR_EQUAL(chains[0].segs[0].base, r.top.at);
		CU_ASSERT_TRUE(chains[1].nout == 2 && chains[1].nin == 1 && chains[1].ndesc == 2);
		CU_ASSERT_EQUAL(chains[1].id, layout == RING_SPLIT ? 1 : 9);
		CU_ASSERT_EQUAL(chains[1].out_len, 24);
		CU_ASSERT_EQUAL(chains[1].in_len, 0xffffff00u - 24);
		CU_ASSERT_PTR_EQUAL(chains[1].segs[1].base, r.rom.at);
		CU_ASSERT_PTR_EQUAL(chains[1].segs[2].base, r.huge);
		raw_free(&r);
	}
}

static void test_split_index(void)
{
	static const uint16_t ahead[] = {SIZE + 1, 0x7fff, 0x8000, 0xffff};
	struct raw r;

	for (size_t i = 0; i < sizeof(ahead) / sizeof(ahead[0]); i++) {
		raw_new(&r, RING_SPLIT);
		ring_put(&r, 0, DATA, 8, 0, 0);
		put16(r.driver.at + 2, ahead[i]);
		CU_ASSERT_EQUAL(raw_pop(&r), -RING_EPROTO);
		CU_ASSERT_EQUAL(r.dev.counters.malformed, 1);
		raw_free(&r);
	}
	raw_new(&r, RING_SPLIT); /* a head past the table */
	raw_make(&r, SIZE);
	CU_ASSERT_EQUAL(raw_pop(&r), -RING_EINVAL);
	raw_free(&r);
	raw_new(&r, RING_SPLIT); /* the index goes back */
	ring_put(&r, 0, DATA, 8, 0, 0);
	raw_make(&r, 0);
	CU_ASSERT_EQUAL(raw_pop(&r), 1);
	put16(r.driver.at + 2, 0);
	CU_ASSERT_EQUAL(raw_pop(&r), -RING_EPROTO);
	raw_free(&r);
}

static void test_packed_overrun(void)
{
	struct raw r;

	/* All positions are held, and one is made available again. */
	raw_new(&r, RING_PACKED);
	for (uint32_t i = 0; i < SIZE; i++)
		ring_put(&r, i, DATA, 8, 0, i);
	CU_ASSERT_EQUAL(raw_pop(&r), SIZE);
	CU_ASSERT_FALSE(ring_device_has_work(&r.dev));
	put16(r.desc.at + 14, 0x8000);
	CU_ASSERT_EQUAL(raw_pop(&r), -RING_EPROTO);
	raw_free(&r);

	/* A chain that runs on into what is held. */
	raw_new(&r, RING_PACKED);
	for (uint32_t i = 0; i < SIZE; i++)
		ring_put(&r, i, DATA, 8, i < 2 ? 0 : F_NEXT, i);
	CU_ASSERT_EQUAL(raw_pop(&r), 2);
	CU_ASSERT_EQUAL(raw_pop(&r), -RING_ELOOP);
	raw_free(&r);
}

static void test_same_twice(void)
{
	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++) {
		struct raw r;

		raw_new(&r, layout);
		ring_put(&r, 0, DATA, 8, 0, 3);
		ring_put(&r, 1, DATA, 8, 0, 3);
		raw_make(&r, 0);
		raw_make(&r, 0);
		CU_ASSERT_EQUAL(raw_pop(&r), 1);
		CU_ASSERT_EQUAL(raw_pop(&r), -RING_EEXIST);
		raw_free(&r);
	}
}

static void test_init_refused(void)
{
	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++) {
		const int fault = -RING_EFAULT, invalid = -RING_EINVAL;
		struct ring_device_config c;
		struct ring_device dev;
		struct ring_mem none = {0};
		struct raw r;

		raw_new(&r, layout);
#define REFUSED(change, error)                                                                     \
	do {                                                                                       \
		c = r.cfg;                                                                         \
		change;                                                                            \
		CU_ASSERT_EQUAL(ring_device_init(&dev, &c, &r.mem), error);                        \
	} while (0)
		REFUSED(c.size = 0, invalid);
		REFUSED(c.size = 65536, invalid);
		REFUSED(c.size = 2 * SIZE, fault);
		REFUSED(c.chain_max = 0, invalid);
		REFUSED(c.chain_max = 65536, invalid);
		REFUSED(c.slots = NULL, invalid);
		REFUSED(c.desc_gpa = 0x9990000, fault);
		REFUSED(c.desc_gpa += 16, fault);
		REFUSED(c.driver_gpa = UINT64_MAX, fault);
		REFUSED(c.device_gpa = UINT64_MAX - 1, fault);
		REFUSED(c.device_gpa = DATA + r.data.bytes, fault);
		REFUSED(c.desc_gpa = DATA + 8, invalid);
		REFUSED(c.driver_gpa = DATA + 1, invalid);
		REFUSED(c.device_gpa = DATA + 2, invalid);
		REFUSED((void)0, 0);
		if (layout == RING_SPLIT)
			REFUSED(c.size = 12, invalid);
		else
			REFUSED(c.size = 12, 0);
		CU_ASSERT_EQUAL(ring_device_init(&dev, &r.cfg, &none), invalid);
		raw_free(&r);
	}
}

static void test_state(void)
{
	struct ring_device_state s = {0, 0};
	struct raw r;

	raw_new(&r, RING_PACKED);
	ring_device_state_get(&r.dev, &s);
	CU_ASSERT_TRUE(s.avail == 0x8000 && s.used == 0x8000);
	s = (struct ring_device_state){SIZE, 0};
	CU_ASSERT_EQUAL(ring_device_state_set(&r.dev, &s), -RING_EINVAL);
	s = (struct ring_device_state){0, 0x8000 | SIZE};
	CU_ASSERT_EQUAL(ring_device_state_set(&r.dev, &s), -RING_EINVAL);
	s = (struct ring_device_state){3, 0x8000 | 15};
	CU_ASSERT_EQUAL(ring_device_state_set(&r.dev, &s), 0);
	ring_device_state_get(&r.dev, &s);
	CU_ASSERT_TRUE(s.avail == 3 && s.used == (0x8000 | 15));
	raw_free(&r);

	raw_new(&r, RING_SPLIT);
	s = (struct ring_device_state){SIZE + 1, 0};
	CU_ASSERT_EQUAL(ring_device_state_set(&r.dev, &s), -RING_EINVAL);
	s = (struct ring_device_state){3, 0xffff};
	CU_ASSERT_EQUAL(ring_device_state_set(&r.dev, &s), 0);
	ring_device_state_get(&r.dev, &s);
	CU_ASSERT_TRUE(s.avail == 3 && s.used == 0xffff);
	raw_free(&r);
}

/* Saved with requests taken but not completed, loaded elsewhere: none is lost, none comes twice. */
static void test_unpop(void)
{
	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++)
		for (unsigned features = 0; features < 8; features++) {
			struct ring_device_state before, after;
			struct ring_used used[4] = {{3, 0}, {2, 0}, {1, 0}, {0, 0}};
			struct raw r;

			raw_new(&r, layout);
			raw_attach(&r, features);
			for (uint16_t i = 0; i < 4; i++) {
				ring_put(&r, i, DATA + i, 8, 0, i);
				raw_make(&r, i);
			}
			ring_device_state_get(&r.dev, &before);
			CU_ASSERT_EQUAL(raw_pop(&r), 4);
			ring_device_unpop(&r.dev, chains, 4);
			ring_device_state_get(&r.dev, &after);
			CU_ASSERT_EQUAL(memcmp(&before, &after, sizeof(before)), 0);
			CU_ASSERT_EQUAL(r.dev.counters.popped, 0);
			CU_ASSERT_EQUAL(ring_device_push(&r.dev, used, 1), -RING_EINVAL);
			CU_ASSERT_EQUAL(raw_pop(&r), 4);
			ring_device_unpop(&r.dev, chains + 1, 3);
			CU_ASSERT_EQUAL(raw_pop(&r), 3);
			CU_ASSERT_PTR_EQUAL(chains[0].segs[0].base, r.data.at + 1);
			CU_ASSERT_EQUAL(ring_device_push(&r.dev, used, 4), 0);
			ring_device_state_get(&r.dev, &after);
			CU_ASSERT_EQUAL(after.used & 0x7fff, 4);
			CU_ASSERT_EQUAL(r.dev.inflight, 0);
			CU_ASSERT_EQUAL(r.dev.held, 0);
			raw_free(&r);
		}
}

static void test_push_unknown(void)
{
	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++)
		for (unsigned features = 0; features < 8; features += 4) {
			struct ring_used used[] = {
				{SIZE, 1}, {65535, 1}, {1, 5}, {0, 4}, {1, 5}, {7, 1}};
			struct ring_device_state s;
			struct raw r;

			raw_new(&r, layout);
			raw_attach(&r, features);
			for (uint16_t i = 0; i < 2; i++) {
				ring_put(&r, i, DATA + i, 8, F_WRITE, i);
				raw_make(&r, i);
			}
			CU_ASSERT_EQUAL(raw_pop(&r), 2);
			CU_ASSERT_EQUAL(ring_device_push(&r.dev, used, 6), -RING_EINVAL);
			ring_device_state_get(&r.dev, &s);
			CU_ASSERT_EQUAL(s.used & 0x7fff, 2);
			CU_ASSERT_EQUAL(r.dev.counters.pushed, 2);
			CU_ASSERT_EQUAL(ring_device_push(&r.dev, used, 6), -RING_EINVAL);
			CU_ASSERT_EQUAL(r.dev.counters.pushed, 2);
			raw_free(&r);
		}
}

/* in_order on the wire: what cannot be written to is skipped, the rest has its own entry. */
static void test_in_order_entries(void)
{
	struct ring_used late[] = {{2, 0}, {3, 0}, {1, 9}}, first = {0, 0};
	struct raw r;

	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++) {
		raw_new(&r, layout);
		raw_attach(&r, 4);
		for (uint16_t i = 0; i < 4; i++) {
			ring_put(&r, i, DATA, 16, i == 1 ? F_WRITE : 0, i);
			raw_make(&r, i);
		}
		CU_ASSERT_EQUAL(raw_pop(&r), 4);
		CU_ASSERT_EQUAL(ring_device_push(&r.dev, late, 3), 0);
		CU_ASSERT_EQUAL(r.dev.used, 0);
		CU_ASSERT_FALSE(ring_device_needs_interrupt(&r.dev));
		CU_ASSERT_EQUAL(ring_device_push(&r.dev, &first, 1), 0);
		CU_ASSERT_EQUAL(r.dev.used, 4);
		CU_ASSERT_TRUE(ring_device_needs_interrupt(&r.dev));
		if (layout == RING_SPLIT) {
			CU_ASSERT_EQUAL(get16(r.device.at + 2), 4);
			CU_ASSERT_EQUAL(get32(r.device.at + 4), 1); /* for 0 and 1 */
			CU_ASSERT_EQUAL(get32(r.device.at + 8), 9);
			CU_ASSERT_EQUAL(get32(r.device.at + 4 + 16), 3); /* for 2 and 3 */
			CU_ASSERT_EQUAL(get32(r.device.at + 8 + 16), 0);
		} else {
			CU_ASSERT_EQUAL(get16(r.desc.at + 12), 1);
			CU_ASSERT_EQUAL(get32(r.desc.at + 8), 9);
			CU_ASSERT_EQUAL(get16(r.desc.at + 14), 0x8080);
			CU_ASSERT_EQUAL(get16(r.desc.at + 32 + 12), 3);
			CU_ASSERT_EQUAL(get16(r.desc.at + 32 + 14), 0x8080);
		}
		raw_free(&r);
	}
}

/* Every page of guest memory that the device writes, and no other. */
static void test_dirty(void)
{
	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++) {
		uint64_t dirty[RING_MEM_REGIONS_MAX] = {0};
		struct ring_used used = {0, 0};
		struct raw r;

		raw_new(&r, layout);
		for (uint32_t i = 0; i < r.mem.nregions; i++)
			r.mem.regions[i].dirty = &dirty[i];
		r.mem.regions[3].dirty = NULL; /* the huge one */
		ring_put(&r, 0, DATA, 8, 0, 0);
		raw_make(&r, 0);
		CU_ASSERT_EQUAL(raw_pop(&r), 1);
		for (uint32_t i = 0; i < r.mem.nregions; i++)
			CU_ASSERT_EQUAL(dirty[i], 0);
		CU_ASSERT_EQUAL(ring_device_push(&r.dev, &used, 1), 0);
		for (uint32_t i = 0; i < r.mem.nregions; i++)
			CU_ASSERT_EQUAL(dirty[i], i == (layout == RING_SPLIT ? 7 : 5));
		memset(dirty, 0, sizeof(dirty));
		ring_device_needs_interrupt(&r.dev);
		CU_ASSERT_EQUAL(dirty[7], 0);
		ring_device_doorbell_off(&r.dev);
		CU_ASSERT_EQUAL(dirty[7], 1);
		dirty[7] = 0;
		ring_device_doorbell_on(&r.dev);
		for (uint32_t i = 0; i < r.mem.nregions; i++)
			CU_ASSERT_EQUAL(dirty[i], i == 7);
		raw_free(&r);
	}
}

/* ------------------------------------------------------------------ changed while it is read */

struct mutator {
	struct raw *r;
	bool stop;
	uint64_t seed;
};

static void *mutate(void *arg)
{
	static const uint64_t gpas[] = {DATA, DATA + 8, DATA + 8191, TOP_GPA, TOP_GPA + 0xfff,
		UINT64_MAX - 1, RIG_TABLE_GPA, RIG_TABLE_GPA + 16, 0, HUGE_GPA};
	static const uint32_t lens[] = {1, 8, 16, 32, 0, 4096, 8192, 8193, UINT32_MAX, 17};
	struct mutator *m = arg;
	struct raw *r = m->r;

	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		uint32_t i = rig_below(&m->seed, 4), in_table = rig_below(&m->seed, 2);
		uint64_t *d = (uint64_t *)(in_table ? r->table.at : r->desc.at) + 2 * i;
		uint64_t flags = rig_below(&m->seed, 8), next = rig_below(&m->seed, 5), rest;

		rest = lens[rig_below(&m->seed, 10)];
		if (r->layout == RING_SPLIT)
			rest |= flags << 32 | next << 48;
		else
			rest |= next << 32 | (flags | 0x80) << 48;
		__atomic_store_n(&d[0], gpas[rig_below(&m->seed, 10)], __ATOMIC_RELAXED);
		__atomic_store_n(&d[1], rest, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Whatever was popped is inside guest memory and adds up, whenever it was read. */
static uint32_t chain_check(const struct raw *r, const struct ring_chain *c)
{
	uint64_t out_len = 0, in_len = 0;
	uint32_t wrong = c->id >= SIZE || c->nout + c->nin > 32;

	for (uint32_t i = 0; i < (uint32_t)c->nout + c->nin; i++) {
		uint8_t *base = c->segs[i].base;
		bool inside = false, writes = i >= c->nout;

		for (uint32_t k = 0; k < r->mem.nregions; k++) {
			const struct ring_mem_region *m = &r->mem.regions[k];

			if (base >= m->hva && c->segs[i].len <= m->size &&
				(size_t)(base - m->hva) <= m->size - c->segs[i].len &&
				!(writes && m->readonly))
				inside = true;
		}
		wrong += !inside || !c->segs[i].len;
		*(writes ? &in_len : &out_len) += c->segs[i].len;
	}
	return wrong + (out_len != c->out_len || in_len != c->in_len);
}

static void race(enum ring_layout layout)
{
	uint32_t good = 0, errors = 0, wrong = 0;
	struct mutator m = {.seed = 99};
	pthread_t thread;
	struct raw r;

	raw_new(&r, layout);
	m.r = &r;
	for (uint16_t i = 0; i < 4; i++)
		ring_put(&r, i, DATA, 8, 0, i);
	for (uint16_t i = 0; i < 2; i++)
		raw_make(&r, i);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, mutate, &m), 0);
	for (int round = 0; round < 200000; round++) {
		int n;

		if (ring_device_init(&r.dev, &r.cfg, &r.mem))
			wrong++;
		n = raw_pop(&r);
		if (n < 0)
			errors++;
		for (int i = 0; i < n; i++, good++)
			wrong += chain_check(&r, &chains[i]);
	}
	__atomic_store_n(&m.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT_TRUE(good > 0);
	CU_ASSERT_TRUE(errors > 0);
	raw_free(&r);
}

static void test_race_split(void)
{
	race(RING_SPLIT);
}

static void test_race_packed(void)
{
	race(RING_PACKED);
}

/* ------------------------------------------------------------------ the driver meets a liar */

static void driver_new(struct rig *r, enum ring_layout layout, unsigned features)
{
	struct ring_sg sg = {RIG_DATA_GPA, 100};

	rig_new(r, layout, SIZE, features);
	for (uint64_t i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(ring_driver_add(&r->drv, &sg, 0, 1, 70 + i), 0);
	ring_driver_publish(&r->drv);
}

/* The device's word, written by hand: used entry `at`, and (split) the index after it. */
static void lie(struct rig *r, uint32_t at, uint32_t id, uint32_t len, uint16_t idx)
{
	uint8_t *used = r->ring.at + r->geometry.device, *desc = r->ring.at + 16 * at;

	if (r->layout == RING_SPLIT) {
		put32(used + 4 + 8 * at, id);
		put32(used + 8 + 8 * at, len);
		put16(used + 2, idx);
	} else {
		put32(desc + 8, len);
		put16(desc + 12, id);
		put16(desc + 14, 0x8080);
	}
}

static void test_driver_refuses(void)
{
	static const uint32_t ids[] = {SIZE, 5, 65535, UINT32_MAX};
	struct ring_done done[4];
	struct rig r;

	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++)
		for (unsigned features = 0; features < 8; features++) {
			for (int i = 0; i < 4; i++) {
				driver_new(&r, layout, features);
				lie(&r, 0, ids[i], 0, 1);
				CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 4), -RING_EPROTO);
				CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 4), -RING_EPROTO);
				rig_free(&r);
			}
			/* The same buffer twice, the second time as a liar. */
			driver_new(&r, layout, features);
			lie(&r, 0, 0, 1, 1);
			lie(&r, 1, 0, 1, 2);
			CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 4), 1);
			CU_ASSERT_EQUAL(done[0].token, 70);
			CU_ASSERT_TRUE(ring_driver_has_done(&r.drv));
			CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 4), -RING_EPROTO);
			rig_free(&r);
			/* More written than there is room for. */
			driver_new(&r, layout, features);
			lie(&r, 0, 0, UINT32_MAX, 1);
			CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 4), 1);
			CU_ASSERT_EQUAL(done[0].len, 100);
			rig_free(&r);
		}
	driver_new(&r, RING_SPLIT, 0);
	lie(&r, 0, 0, 1, 4);
	CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 4), -RING_EPROTO);
	rig_free(&r);
}

/* One used entry for three buffers, collected in pieces: those skipped count as filled. */
static void test_driver_batch_entry(void)
{
	struct ring_done done[4];
	struct rig r;

	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++) {
		driver_new(&r, layout, 4);
		lie(&r, 0, 2, 42, 3);
		CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 1), 1);
		CU_ASSERT_TRUE(done[0].token == 70 && done[0].len == 100);
		CU_ASSERT_TRUE(ring_driver_has_done(&r.drv));
		CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 4), 2);
		CU_ASSERT_TRUE(done[0].token == 71 && done[0].len == 100);
		CU_ASSERT_TRUE(done[1].token == 72 && done[1].len == 42);
		CU_ASSERT_FALSE(ring_driver_has_done(&r.drv));
		CU_ASSERT_EQUAL(ring_driver_free(&r.drv), SIZE);
		rig_free(&r);
	}
}

/* What the driver side writes, byte by byte. */
static void test_driver_bytes(void)
{
	struct ring_sg sg[] = {{0x1122334455667788ull, 0x99}, {0x40, 0xaabbccdd}};
	struct rig r;
	uint8_t *d;

	rig_new(&r, RING_SPLIT, 4, 0);
	CU_ASSERT_EQUAL(ring_driver_add(&r.drv, sg, 1, 1, 0), 0);
	CU_ASSERT_EQUAL(get16(r.ring.at + r.geometry.driver + 2), 0);
	ring_driver_publish(&r.drv);
	CU_ASSERT_EQUAL(get16(r.ring.at + r.geometry.driver + 2), 1);
	d = r.ring.at;
	CU_ASSERT_TRUE(get32(d) == 0x55667788 && get32(d + 4) == 0x11223344);
	CU_ASSERT_TRUE(get32(d + 8) == 0x99 && get16(d + 12) == F_NEXT && get16(d + 14) == 1);
	CU_ASSERT_TRUE(get32(d + 24) == 0xaabbccdd && get16(d + 28) == F_WRITE);
	rig_free(&r);

	rig_new(&r, RING_PACKED, 3, 0);
	CU_ASSERT_EQUAL(ring_driver_add(&r.drv, sg, 1, 1, 0), 0);
	CU_ASSERT_EQUAL(get16(r.ring.at + 14), 0);
	ring_driver_publish(&r.drv);
	d = r.ring.at;
	CU_ASSERT_TRUE(get32(d) == 0x55667788 && get32(d + 4) == 0x11223344);
	CU_ASSERT_TRUE(get32(d + 8) == 0x99 && get16(d + 12) == 0);
	CU_ASSERT_EQUAL(get16(d + 14), 0x80 | F_NEXT);
	CU_ASSERT_TRUE(get32(d + 24) == 0xaabbccdd && get16(d + 30) == (0x80 | F_WRITE));
	rig_free(&r);
}

static void test_driver_refused(void)
{
	struct ring_sg sg[] = {{0, 0x80000000u}, {0, 0x80000000u}, {0, 0}};
	struct ring_driver_config c;
	struct ring_driver drv;
	struct rig r;

	for (int layout = RING_SPLIT; layout <= RING_PACKED; layout++) {
		rig_new(&r, layout, 2, 2);
		CU_ASSERT_EQUAL(ring_driver_add(&r.drv, sg, 0, 0, 0), -RING_EINVAL);
		CU_ASSERT_EQUAL(ring_driver_add(&r.drv, sg + 2, 1, 0, 0), -RING_EINVAL);
		CU_ASSERT_EQUAL(ring_driver_add(&r.drv, sg, 1, 1, 0), -RING_EINVAL);
		CU_ASSERT_EQUAL(ring_driver_add(&r.drv, sg, UINT32_MAX, 2, 0), -RING_EINVAL);
		CU_ASSERT_EQUAL(ring_driver_add(&r.drv, sg, 9, 0, 0), -RING_EINVAL);
		CU_ASSERT_EQUAL(ring_driver_free(&r.drv), 2);
		c = r.drv_cfg;
		c.slots = NULL;
		CU_ASSERT_EQUAL(ring_driver_init(&drv, &c), -RING_EINVAL);
		c = r.drv_cfg;
		c.indirect = NULL;
		CU_ASSERT_EQUAL(ring_driver_init(&drv, &c), -RING_EINVAL);
		c = r.drv_cfg;
		c.size = layout == RING_SPLIT ? 3 : 32769;
		CU_ASSERT_EQUAL(ring_driver_init(&drv, &c), -RING_EINVAL);
		rig_free(&r);
	}
}

static const struct unit_case cases[] = {
	{"split: malformed chains", test_bad_split},
	{"packed: malformed chains", test_bad_packed},
	{"a good chain before a bad one", test_good_then_bad},
	{"odd but allowed", test_tolerated},
	{"split: index too far, back, past the size", test_split_index},
	{"packed: more available than there is", test_packed_overrun},
	{"the same buffer twice", test_same_twice},
	{"attach refused", test_init_refused},
	{"state set and got", test_state},
	{"unpop", test_unpop},
	{"push of an unknown id", test_push_unknown},
	{"in-order entries on the wire", test_in_order_entries},
	{"dirty pages of the ring", test_dirty},
	{"split: descriptors changed while read", test_race_split},
	{"packed: descriptors changed while read", test_race_packed},
	{"driver: a device that lies", test_driver_refuses},
	{"driver: one entry for several buffers", test_driver_batch_entry},
	{"driver: bytes on the wire", test_driver_bytes},
	{"driver: requests and memory refused", test_driver_refused},
};

UNIT_MAIN("ring_hostile", cases)
