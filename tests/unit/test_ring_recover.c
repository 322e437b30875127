/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Queues whose device died and kept no record: what the next one is given must be exactly what was
 * outstanding, or nothing.
 */
#include <string.h>

#include "ring/ring.h"
#include "tests/unit/unit.h"

#define SIZE_MAX_HERE 64u
#define GPA           0x100000ull
#define BYTES         (64u << 10)

struct queue {
	enum ring_layout layout;
	struct ring_features features;
	uint32_t size;
	_Alignas(4096) uint8_t ram[BYTES];
	struct ring_mem mem;
	struct ring_geometry g;
	struct ring_driver drv;
	struct ring_driver_slot dslots[SIZE_MAX_HERE];
	struct ring_device dev;
	struct ring_device_slot slots[SIZE_MAX_HERE];
	/* what the device holds */
	struct ring_chain held[SIZE_MAX_HERE];
	unsigned nheld;
	uint32_t popped;
	/* tokens the driver waits for */
	bool out[4096];
	unsigned nout;
	uint64_t next_token;
	uint32_t seed;
};

static uint32_t rnd(struct queue *q, uint32_t below)
{
	q->seed = q->seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(q->seed >> 8) * below >> 24);
}

static void device_init(struct queue *q)
{
	struct ring_device_config c = {.layout = q->layout,
		.features = q->features,
		.size = q->size,
		.desc_gpa = GPA + q->g.desc,
		.driver_gpa = GPA + q->g.driver,
		.device_gpa = GPA + q->g.device,
		.chain_max = 16,
		.slots = q->slots};

	CU_ASSERT_EQUAL_FATAL(ring_device_init(&q->dev, &c, &q->mem), 0);
}

static void queue_init(struct queue *q, enum ring_layout layout, uint32_t size, bool indirect,
	uint16_t position, uint32_t seed)
{
	struct ring_driver_config c = {.layout = layout, .size = size, .slots = q->dslots};

	memset(q, 0, sizeof(*q));
	q->layout = layout;
	q->size = size;
	q->seed = seed;
	q->features.indirect = indirect;
	ring_geometry_get(layout, size, &q->g);
	CU_ASSERT_EQUAL_FATAL(ring_mem_add(&q->mem, GPA, BYTES, q->ram, false), 0);
	c.features = q->features;
	c.desc = q->ram + q->g.desc;
	c.driver = q->ram + q->g.driver;
	c.device = q->ram + q->g.device;
	if (indirect) {
		c.indirect = q->ram + 16384;
		c.indirect_gpa = GPA + 16384;
		c.indirect_max = 4;
	}
	CU_ASSERT_EQUAL_FATAL(ring_driver_init(&q->drv, &c), 0);
	CU_ASSERT_EQUAL_FATAL(ring_driver_position_set(&q->drv, position), 0);
	device_init(q);
	CU_ASSERT_EQUAL_FATAL(
		ring_device_state_set(&q->dev, &(struct ring_device_state){position, position}), 0);
}

/* The segment says which request it is. */
static bool driver_add(struct queue *q, unsigned segments)
{
	struct ring_sg sg[3];

	for (unsigned i = 0; i < 3; i++)
		sg[i] = (struct ring_sg){GPA + 32768 + q->next_token, 1 + i};
	if (ring_driver_add(&q->drv, sg, segments, 0, q->next_token))
		return false;
	q->out[q->next_token++] = true;
	q->nout++;
	return true;
}

static void driver_collect(struct queue *q)
{
	struct ring_done done[SIZE_MAX_HERE];
	int n = ring_driver_collect(&q->drv, done, SIZE_MAX_HERE);

	CU_ASSERT_FATAL(n >= 0);
	for (int i = 0; i < n; i++) {
		CU_ASSERT_TRUE_FATAL(q->out[done[i].token]);
		q->out[done[i].token] = false;
		q->nout--;
	}
}

static void device_pop(struct queue *q, unsigned max)
{
	struct ring_seg segs[3 * SIZE_MAX_HERE];
	int n = ring_device_pop(&q->dev, q->held + q->nheld, max, segs, 3 * SIZE_MAX_HERE);

	CU_ASSERT_FATAL(n >= 0);
	for (int i = 0; i < n; i++)
		q->held[q->nheld + i].out_len =
			(uint32_t)((uint8_t *)q->held[q->nheld + i].segs[0].base - q->ram - 32768);
	for (int i = 0; i < n; i++)
		q->held[q->nheld + i].in_len = q->popped++;
	q->nheld += (unsigned)n;
}

static void device_push(struct queue *q, unsigned which)
{
	struct ring_used used = {.id = q->held[which].id};

	CU_ASSERT_EQUAL_FATAL(ring_device_push(&q->dev, &used, 1), 0);
	q->nheld--;
	memmove(q->held + which, q->held + which + 1, (q->nheld - which) * sizeof(q->held[0]));
}

/* A new device takes over. True: it knew what to do; it was right. */
static bool takes_over(struct queue *q)
{
	static uint16_t scratch[4 * SIZE_MAX_HERE];
	struct ring_device_state state;
	int n;

	device_init(q);
	n = ring_device_recover(&q->dev, scratch, false, &state);
	if (n < 0) {
		CU_ASSERT_EQUAL(n, -RING_EEXIST);
		return false;
	}
	CU_ASSERT_EQUAL_FATAL(ring_device_state_set(&q->dev, &state), 0);
	q->nheld = 0;
	for (unsigned before = ~0u; before != q->nheld;) {
		before = q->nheld;
		if (q->nheld < q->size)
			device_pop(q, q->size - q->nheld);
	}
	driver_collect(q);
	CU_ASSERT_EQUAL_FATAL(q->nheld, q->nout);
	CU_ASSERT_EQUAL_FATAL((unsigned)n, q->nout);
	for (unsigned i = 0; i < q->nheld; i++)
		CU_ASSERT_TRUE_FATAL(q->out[q->held[i].out_len]);
	return true;
}

/*
 * Some life: `depth` requests at once, of which the device completes one of the oldest `apart`. Its
 * end may come anywhere.
 */
static void live(struct queue *q, unsigned steps, unsigned depth, unsigned apart, unsigned segments)
{
	for (unsigned i = 0; i < steps; i++) {
		while (q->nout < depth && q->next_token < 4000 &&
			driver_add(q, segments ? segments : 1 + rnd(q, 3)))
			;
		ring_driver_publish(&q->drv);
		device_pop(q, 1 + rnd(q, 4));
		for (unsigned k = rnd(q, 4); k && q->nheld; k--) {
			/* not overtaken by a whole ring */
			bool old = q->popped - q->held[0].in_len > q->size / 2;

			device_push(q, old ? 0 : rnd(q, q->nheld < apart ? q->nheld : apart));
		}
		if (rnd(q, 3))
			driver_collect(q);
	}
}

static struct queue q;

static void test_split(void)
{
	unsigned known = 0, runs = 0;

	for (uint32_t seed = 1; seed < 1500; seed++) {
		unsigned size = 8u << seed % 4, depth = 1 + seed % size;

		queue_init(&q, RING_SPLIT, size, seed & 1, (uint16_t)(seed * 7919), seed);
		/* depths that change are what makes it hard */
		live(&q, seed % 97, depth, 1 + seed % 8, seed % 4);
		live(&q, seed % 53, 1 + depth / 2, 1 + seed % 8, seed % 4);
		runs++;
		if (!takes_over(&q))
			continue;
		known++;
		/* and it goes on, whoever was there before */
		live(&q, 40, depth, 3, 1);
	}
	printf(" %u of %u known ", known, runs);
	/* the same seeds always: less would be a step back */
	CU_ASSERT(known * 10 >= runs * 6);
}

/* A guest that always has as many requests as it may: what it does while its device is dead. */
static void test_split_full(void)
{
	unsigned known = 0, runs = 0;

	for (uint32_t seed = 1; seed < 1000; seed++) {
		unsigned depth = 1 + seed % 32;

		queue_init(&q, RING_SPLIT, 64, true, (uint16_t)(seed * 7919), seed);
		live(&q, 200, depth, 1 + seed % 8, 1);
		driver_collect(&q);
		while (q.nout < depth && driver_add(&q, 1))
			;
		ring_driver_publish(&q.drv);
		known += takes_over(&q);
		runs++;
	}
	CU_ASSERT_EQUAL(known, runs);
}

/* A device that uses buffers in turn, or nearly, is always understood. */
static void test_split_nearly(void)
{
	for (uint32_t seed = 1; seed < 600; seed++) {
		queue_init(&q, RING_SPLIT, 32, seed & 1, (uint16_t)(65500 + seed), seed);
		live(&q, seed % 150, 1 + seed % 16, 1, seed % 4);
		CU_ASSERT_TRUE_FATAL(takes_over(&q));
	}
}

/*
 * One request that a whole ring of younger ones has overtaken: found by its descriptors when the
 * others are all outstanding too, and only if no idle descriptor looks like it.
 */
static void test_split_stuck(void)
{
	for (unsigned used = 0; used < 2; used++) {
		queue_init(&q, RING_SPLIT, 16, true, 0, 3);
		/* descriptors that were used once look like requests */
		if (used)
			live(&q, 20, 8, 1, 1);
		while (q.nheld || ring_device_has_work(&q.dev)) {
			device_pop(&q, 16);
			while (q.nheld)
				device_push(&q, 0);
		}
		driver_collect(&q);
		CU_ASSERT_TRUE(driver_add(&q, 1));
		ring_driver_publish(&q.drv);
		device_pop(&q, 1);
		for (unsigned i = 0; i < 40; i++) {
			CU_ASSERT_TRUE(driver_add(&q, 1));
			ring_driver_publish(&q.drv);
			device_pop(&q, 1);
			if (i == 39)
				break;
			device_push(&q, 1);
			driver_collect(&q);
		}
		CU_ASSERT_EQUAL(takes_over(&q), !used);
	}
}

/* What cannot be: an index too far ahead, heads outside the table. */
static void test_split_hostile(void)
{
	static uint16_t scratch[4 * SIZE_MAX_HERE];
	struct ring_device_state state;
	uint16_t v;

	queue_init(&q, RING_SPLIT, 16, false, 0, 1);
	v = 17;
	memcpy(q.ram + q.g.driver + 2, &v, 2);
	CU_ASSERT_EQUAL(ring_device_recover(&q.dev, scratch, false, &state), -RING_EPROTO);
	v = 3;
	memcpy(q.ram + q.g.driver + 2, &v, 2);
	v = 16;
	memcpy(q.ram + q.g.driver + 4, &v, 2);
	CU_ASSERT_EQUAL(ring_device_recover(&q.dev, scratch, false, &state), -RING_EINVAL);
	for (unsigned seed = 1; seed < 3000; seed++) {
		queue_init(&q, RING_SPLIT, 1u << seed % 7, false, 0, seed);
		for (unsigned i = 0; i < q.g.bytes; i++)
			q.ram[i] = rnd(&q, 4) ? 0 : (uint8_t)rnd(&q, 256);
		ring_device_recover(&q.dev, scratch, false, &state);
	}
}

static void test_packed(void)
{
	for (uint32_t seed = 1; seed < 800; seed++) {
		uint32_t size = 5 + seed % 40;

		queue_init(&q, RING_PACKED, size, true, 0x8000, seed);
		live(&q, seed % 120, 1 + seed % size, 1, seed % 4);
		CU_ASSERT_TRUE_FATAL(takes_over(&q));
	}
}

/* Out of turn, or with chains, a packed ring is not understood, and that is noticed. */
static void test_packed_not(void)
{
	static uint16_t scratch[4 * SIZE_MAX_HERE];
	struct ring_device_state state;

	queue_init(&q, RING_PACKED, 16, false, 0x8000, 1);
	live(&q, 30, 4, 1, 1);
	device_init(&q);
	CU_ASSERT_EQUAL(ring_device_recover(&q.dev, scratch, false, &state), -RING_EEXIST);
	/* the first of a batch is written last: until then the driver is just adding */
	queue_init(&q, RING_PACKED, 16, true, 0x8000, 1);
	live(&q, 4, 4, 1, 1);
	while (driver_add(&q, 1) && q.nout < 8)
		;
	device_init(&q);
	CU_ASSERT_EQUAL(ring_device_recover(&q.dev, scratch, false, &state), -RING_EAGAIN);
}

static uint16_t flags_at(uint32_t i)
{
	uint16_t flags;

	memcpy(&flags, q.ram + q.g.desc + 16 * i + 14, 2);
	return flags;
}

static void flags_set(uint32_t i, uint16_t flags)
{
	memcpy(q.ram + q.g.desc + 16 * i + 14, &flags, 2);
}

/*
 * A batch of which all but the first is marked used. A queue that may lose what is in it goes on as
 * if the device had got that far; the driver then finds the whole batch, and each buffer once.
 */
static void test_packed_batch(void)
{
	static uint16_t scratch[4 * SIZE_MAX_HERE];
	struct ring_device_state state;

	for (uint32_t seed = 1; seed < 400; seed++) {
		uint32_t size = 8 + seed % 40, batch = 2 + seed % 4, head;
		uint32_t inflight = 1 + seed % 3;

		queue_init(&q, RING_PACKED, size, true, 0x8000, seed);
		live(&q, seed % 120, 1 + seed % 4, 1, 0);
		/* all that there is is done and seen */
		while (q.nheld || ring_device_has_work(&q.dev)) {
			device_pop(&q, size);
			while (q.nheld)
				device_push(&q, 0);
		}
		driver_collect(&q);
		CU_ASSERT_EQUAL_FATAL(q.nout, 0);
		ring_device_state_get(&q.dev, &state);
		head = state.used & 0x7fff;
		for (uint32_t i = 0; i < batch + inflight; i++)
			CU_ASSERT_TRUE_FATAL(driver_add(&q, 1));
		ring_driver_publish(&q.drv);
		device_pop(&q, size);
		for (uint32_t i = 0; i < batch; i++)
			device_push(&q, 0);
		/* the first one's mark is not there yet */
		flags_set(head, flags_at(head) ^ 0x8000);
		device_init(&q);
		CU_ASSERT_EQUAL(ring_device_recover(&q.dev, scratch, false, &state), -RING_EEXIST);
		CU_ASSERT_EQUAL(ring_device_recover(&q.dev, scratch, true, &state), (int)inflight);
		CU_ASSERT_EQUAL(!(flags_at(head) & 0x80), !(flags_at(head) & 0x8000));
		CU_ASSERT_EQUAL(state.used & 0x7fff, (head + batch) % size);
		CU_ASSERT_EQUAL(ring_device_state_set(&q.dev, &state), 0);
		driver_collect(&q);
		CU_ASSERT_EQUAL(q.nout, inflight);
		/* there is nothing left to mark */
		CU_ASSERT_EQUAL(ring_device_recover(&q.dev, scratch, false, &state), (int)inflight);
	}
}

static const struct unit_case cases[] = {
	{"split, used in any order: exactly what is outstanding, or nothing", test_split},
	{"split, a guest at its full depth: always", test_split_full},
	{"split, used in turn: always", test_split_nearly},
	{"split, one request that a whole ring has overtaken", test_split_stuck},
	{"split, hostile rings", test_split_hostile},
	{"packed, used in turn", test_packed},
	{"packed, what cannot be told", test_packed_not},
	{"packed, a batch without its first", test_packed_batch},
};

UNIT_MAIN("ring_recover", cases)
