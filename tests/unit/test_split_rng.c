/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-rng: bytes where they belong, fresh ones each time, the limit, moves, hostile requests. */
#include "tests/unit/test_split_small_rig.h"

#define BUFFERS 32u
#define BYTES   256u

struct dice {
	struct rig r;
	struct split_rng_options o;
	uint64_t at; /* BUFFERS of BYTES, one page between each two */
};

#define BUFFER(d, i) ((d)->at + (i)*8192ull)

static void dice_create(void *ctx)
{
	struct dice *d = ctx;
	char why[BACKEND_WHY_MAX] = "";

	d->o.ring = small_ring(&d->r);
	CU_ASSERT_EQUAL_FATAL(
		split_rng_create(&d->r.dev, d->r.io, &d->r.mem, &d->r.signal, &d->o, why), 0);
}

static void dice_open(struct dice *d, unsigned bits, uint64_t rate)
{
	memset(d, 0, sizeof(*d));
	small_open(&d->r, bits, 1u << 20);
	d->o.rate_bytes_per_s = rate;
	dice_create(d);
	d->at = rig_alloc(&d->r, BUFFERS * 8192, 4096);
	small_start(&d->r, 1, 64);
}

static void dice_ask(struct dice *d, unsigned i, uint32_t len)
{
	struct ring_sg sg[2] = {{BUFFER(d, i), len}};
	unsigned n = 1;

	memset(rig_host(&d->r, BUFFER(d, i)), 0, 8192);
	if (len > 1 && i % 2) {
		sg[0].len = len / 3 + 1;
		sg[1] = (struct ring_sg){sg[0].gpa + sg[0].len, len - sg[0].len};
		n = sg[1].len ? 2 : 1;
	}
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&d->r.q[0].drv, sg, 0, n, i), 0);
}

/* 64 random bits that are all zero, or seen before: not in this universe. */
static void dice_check(struct dice *d, const struct ring_done *done, uint32_t most)
{
	static uint64_t seen[4096];
	static unsigned nseen;
	const uint8_t *b = rig_host(&d->r, BUFFER(d, done->token));
	uint64_t word;

	CU_ASSERT_FATAL(done->len > 0 && done->len <= most);
	CU_ASSERT_EQUAL(b[done->len], 0);
	for (uint32_t i = 0; i + 8 <= done->len; i += 8) {
		memcpy(&word, b + i, sizeof(word));
		CU_ASSERT_NOT_EQUAL(word, 0);
		for (unsigned k = 0; k < nseen; k++)
			CU_ASSERT_NOT_EQUAL_FATAL(word, seen[k]);
		if (nseen < 4096)
			seen[nseen++] = word;
	}
}

static unsigned dice_take(struct dice *d, uint32_t most)
{
	struct ring_done done[BUFFERS];
	unsigned n = rig_wait(&d->r, 0, done, BUFFERS);

	for (unsigned i = 0; i < n; i++)
		dice_check(d, &done[i], most);
	return n;
}

static void test_bytes(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct dice d;

		dice_open(&d, bits, 0);
		for (unsigned round = 0; round < 4; round++) {
			unsigned left = BUFFERS / 4;

			for (unsigned i = 0; i < left; i++)
				dice_ask(&d, i, 8 + (i * 37 + round) % 90);
			rig_kick(&d.r, 0);
			while (left)
				left -= dice_take(&d, BYTES);
		}
		CU_ASSERT_EQUAL(counter_get(&d.r.dev->counters.errors), 0);
		CU_ASSERT(counter_get(&d.r.dev->counters.requests) == BUFFERS);
		small_close(&d.r);
	}
}

/* More than a request may get: less is given, and said. */
static void test_large(void)
{
	struct ring_done done;
	struct dice d;
	uint8_t *b;
	uint32_t zeros = 0;

	dice_open(&d, 3, 0);
	dice_ask(&d, 0, 8192);
	rig_kick(&d.r, 0);
	CU_ASSERT_EQUAL_FATAL(rig_wait(&d.r, 0, &done, 1), 1);
	CU_ASSERT_FATAL(done.len >= 64 && done.len < 8192);
	b = rig_host(&d.r, BUFFER(&d, 0));
	for (uint32_t i = 0; i < 8192; i++)
		zeros += i < done.len ? !b[i] : b[i] != 0;
	CU_ASSERT(zeros < 200);
	small_close(&d.r);
}

/* The limit holds, over the first burst; nothing is lost. */
static void test_rate(void)
{
	for (unsigned bits = 0; bits < 2; bits++) {
		struct dice d;
		uint64_t began, bytes = 0;

		dice_open(&d, bits ? 11 : 3, 20000);
		began = clock_now_ns();
		for (unsigned i = 0; i < BUFFERS; i++)
			dice_ask(&d, i, BYTES);
		rig_kick(&d.r, 0);
		for (unsigned left = BUFFERS; left;)
			left -= dice_take(&d, BYTES);
		bytes = counter_get(&d.r.dev->counters.bytes);
		CU_ASSERT(bytes > 2000); /* the burst */
		/* at most the burst and what the time allowed: true on any machine */
		CU_ASSERT((bytes - 2000) * 1000000000ull / 20000 <= clock_now_ns() - began);
		CU_ASSERT(counter_get(&d.r.dev->counters.throttled_ns) > 0);
		small_close(&d.r);
	}
}

/* Moved while requests wait for tokens: each is answered once, by the other device. */
static void test_move(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct dice d;

		dice_open(&d, bits, bits & 1 ? 50000 : 0);
		for (unsigned round = 0; round < 3; round++) {
			unsigned left = 12;

			for (unsigned i = 0; i < left; i++)
				dice_ask(&d, i, 64);
			rig_kick(&d.r, 0);
			small_move(&d.r, 1, dice_create, &d);
			while (left)
				left -= dice_take(&d, BYTES);
		}
		CU_ASSERT_EQUAL(atomic_load(&d.r.broken), 0);
		small_close(&d.r);
	}
}

static void test_reset(void)
{
	struct dice d;

	dice_open(&d, 3, 1000);
	for (unsigned n = 0; n < 30; n++) {
		for (unsigned i = 0; i < 12; i++)
			dice_ask(&d, i, 64);
		rig_kick(&d.r, 0);
		small_reset(&d.r, 1, 64);
	}
	CU_ASSERT_EQUAL(atomic_load(&d.r.broken), 0);
	small_close(&d.r);
}

/* Readable buffers, and no room at all: completed with nothing, counted, and the device goes on. */
static void test_hostile(void)
{
	for (unsigned bits = 0; bits < 16; bits++) {
		struct ring_done done[2];
		struct ring_sg sg[2];
		struct dice d;

		dice_open(&d, bits, 0);
		sg[0] = sg[1] = (struct ring_sg){BUFFER(&d, 0), 64};
		memset(rig_host(&d.r, BUFFER(&d, 0)), 0x5a, 64);
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&d.r.q[0].drv, sg, 1, 0, 0), 0);
		rig_kick(&d.r, 0);
		CU_ASSERT_EQUAL_FATAL(rig_wait(&d.r, 0, done, 1), 1);
		CU_ASSERT_EQUAL(*(uint8_t *)rig_host(&d.r, BUFFER(&d, 0)), 0x5a);
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&d.r.q[0].drv, sg, 1, 1, 1), 0);
		rig_kick(&d.r, 0);
		CU_ASSERT_EQUAL_FATAL(rig_wait(&d.r, 0, done, 1), 1);
		CU_ASSERT_EQUAL(*(uint8_t *)rig_host(&d.r, BUFFER(&d, 0)), 0x5a);
		CU_ASSERT_EQUAL(counter_get(&d.r.dev->counters.malformed), 2);
		dice_ask(&d, 1, 64);
		rig_kick(&d.r, 0);
		CU_ASSERT_EQUAL(dice_take(&d, 64), 1);
		/* outside memory: broken */
		sg[0].gpa = RIG_GPA + d.r.bytes;
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&d.r.q[0].drv, sg, 0, 1, 2), 0);
		rig_kick(&d.r, 0);
		small_until(atomic_load(&d.r.broken));
		CU_ASSERT_EQUAL(atomic_load(&d.r.broken), 1);
		small_close(&d.r);
	}
}

static void test_dirty(void)
{
	for (unsigned layout = 0; layout < 2; layout++) {
		struct dice d;

		dice_open(&d, layout ? 8 : 0, 0);
		small_dirty_log(&d.r, 1);
		dice_ask(&d, 3, 64);
		rig_kick(&d.r, 0);
		CU_ASSERT_EQUAL(dice_take(&d, 64), 1);
		split_quiesce_wait(d.r.dev);
		for (uint64_t page = d.at; page < d.at + BUFFERS * 8192; page += 4096)
			CU_ASSERT_EQUAL(rig_page_dirty(&d.r, page), page == BUFFER(&d, 3));
		small_close(&d.r);
	}
}

static void test_options(void)
{
	struct split_rng_options o = {.ring.queue_size = 3};
	struct split_device *dev = NULL;
	char why[BACKEND_WHY_MAX] = "";
	struct rig r;

	small_open(&r, 0, 1u << 20);
	CU_ASSERT_EQUAL(split_rng_create(&dev, r.io, &r.mem, &r.signal, &o, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "queue-size=3"));
	o = (struct split_rng_options){.rate_bytes_per_s = 1ull << 40};
	CU_ASSERT_EQUAL(split_rng_create(&dev, r.io, &r.mem, &r.signal, &o, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "rate="));
	CU_ASSERT_PTR_NULL(dev);
	small_close(&r);
}

static const struct unit_case cases[] = {
	{"bytes", test_bytes},
	{"a large request", test_large},
	{"rate", test_rate},
	{"moved while waiting", test_move},
	{"reset", test_reset},
	{"hostile requests", test_hostile},
	{"dirty pages", test_dirty},
	{"options", test_options},
};

UNIT_MAIN("split_rng", cases)
