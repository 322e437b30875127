/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Driver against device in one kernel: both layouts, every combination of features, several sizes;
 * first by turns, then on two threads that sleep whenever the protocol allows, so that a lost
 * wake-up shows as a time-out. Every request's content is checked at both ends.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/err.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "frontend-drivers/linux/selftest_priv.h"

#define TEST_SIZE_MAX  256u
#define TEST_TABLE_MAX 4u  /* entries of an indirect table */
#define TEST_SEG       16u /* bytes of a segment: two words */
#define TEST_SEGS      4u  /* of one request, at most */
#define TEST_CELL      (TEST_SEG * TEST_SEGS)
#define TEST_BATCH     16u
#define TEST_TURNS     1000u /* requests of one run by turns */
#define TEST_THREADED  1500u /* on two threads, at most so many */
#define TEST_EACH      64u   /* and so many for each descriptor: a short queue sleeps often */
#define TEST_PATIENCE  (20 * HZ)
#define TEST_FEATURES  8u

struct test {
	enum ring_layout layout;
	struct ring_features features;
	uint32_t size;
	uint32_t cells;
	uint64_t random;

	/* one block of memory, as a guest's driver would have it: rings, tables, payload */
	uint8_t *memory;
	uint64_t gpa;
	size_t bytes;
	size_t table_at, data_at;
	struct ring_mem mem;
	struct ring_driver driver;
	struct ring_driver_slot *driver_slots;
	uint16_t *free_cells;
	uint32_t nfree;
	uint64_t added, collected;

	struct ring_device device;
	struct ring_device_slot *device_slots;
	struct ring_chain chains[TEST_BATCH];
	struct ring_seg segs[TEST_BATCH * TEST_SEGS];
	struct ring_used used[TEST_BATCH];
	struct ring_done done[TEST_BATCH];

	struct completion doorbell, interrupt;
	bool stop;
	const char *wrong; /* the first thing that was; either side writes it */
};

static uint32_t test_below(struct test *t, uint32_t n)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return (uint32_t)(t->random >> 33) % n;
}

static int test_wrong(struct test *t, const char *what)
{
	if (!READ_ONCE(t->wrong))
		WRITE_ONCE(t->wrong, what);
	return -EIO;
}

/* The other side's turn, after this one has seen nothing and before it goes to sleep: on a single
 * processor nothing else would show what the second look is for. */
static void test_give_way(void)
{
	yield();
}

/* ------------------------------------------------------------------ what is in a request */

static uint64_t test_word(uint64_t seq, uint32_t seg, uint32_t word)
{
	return seg || word ? (seq + 1) * 0x9e3779b97f4a7c15ull + seg * 2 + word : seq;
}

/* A queue of two descriptors has room for no more than one of each. */
static void test_shape(const struct test *t, uint64_t seq, uint32_t *nout, uint32_t *nin)
{
	bool wide = t->size >= TEST_SEGS || t->features.indirect;

	*nout = wide ? 1 + seq % 2 : 1;
	*nin = wide ? 1 + seq / 2 % 2 : 1;
}

static void test_fill(void *at, uint64_t seq, uint32_t seg)
{
	uint64_t *words = at;

	words[0] = test_word(seq, seg, 0);
	words[1] = test_word(seq, seg, 1);
}

static bool test_matches(const void *at, uint64_t seq, uint32_t seg)
{
	const uint64_t *words = at;

	return words[0] == test_word(seq, seg, 0) && words[1] == test_word(seq, seg, 1);
}

/* ------------------------------------------------------------------ the driver's side */

static int test_add(struct test *t, uint64_t seq)
{
	struct ring_sg sg[TEST_SEGS];
	uint32_t nout, nin;
	uint16_t cell;
	size_t at;
	int rc;

	if (!t->nfree)
		return -RING_ENOSPC;
	cell = t->free_cells[t->nfree - 1];
	at = t->data_at + (size_t)cell * TEST_CELL;
	test_shape(t, seq, &nout, &nin);
	memset(t->memory + at, 0, TEST_CELL);
	for (uint32_t i = 0; i < nout + nin; i++) {
		sg[i].gpa = t->gpa + at + i * TEST_SEG;
		sg[i].len = TEST_SEG;
		if (i < nout)
			test_fill(t->memory + at + i * TEST_SEG, seq, i);
	}
	rc = ring_driver_add(&t->driver, sg, nout, nin, seq << 16 | cell);
	if (!rc)
		t->nfree--;
	return rc;
}

/* As many as there is room for, up to `end` in all; how many. */
static int test_add_some(struct test *t, uint64_t end)
{
	int n = 0, rc = 0;

	while (t->added < end && !(rc = test_add(t, t->added))) {
		t->added++;
		n++;
	}
	if (rc && rc != -RING_ENOSPC)
		return test_wrong(t, "the driver refused a request");
	if (n)
		ring_driver_publish(&t->driver);
	return n;
}

static int test_collect(struct test *t)
{
	int n = ring_driver_collect(&t->driver, t->done, TEST_BATCH);

	if (n < 0)
		return test_wrong(t, "the driver found the used ring malformed");
	for (int i = 0; i < n; i++) {
		uint64_t seq = t->done[i].token >> 16;
		uint32_t cell = t->done[i].token & 0xffff, nout, nin;
		const uint8_t *at = t->memory + t->data_at + (size_t)cell * TEST_CELL;

		test_shape(t, seq, &nout, &nin);
		if (seq >= t->added || cell >= t->cells || t->nfree >= t->cells)
			return test_wrong(t, "a completion of something never asked for");
		if (t->done[i].len != nin * TEST_SEG)
			return test_wrong(t, "a completion of the wrong length");
		if (t->features.in_order && seq != t->collected)
			return test_wrong(t, "a completion out of order");
		for (uint32_t k = nout; k < nout + nin; k++)
			if (!test_matches(at + k * TEST_SEG, ~seq, k))
				return test_wrong(
					t, "the driver read what the device did not write");
		t->free_cells[t->nfree++] = (uint16_t)cell;
		t->collected++;
	}
	return n;
}

/* ------------------------------------------------------------------ the device's side */

static int test_serve_one(struct test *t, const struct ring_chain *c)
{
	uint32_t nout, nin;
	uint64_t seq;

	if (!c->nout || c->segs[0].len != TEST_SEG)
		return test_wrong(t, "the device got a request of another shape");
	seq = *(const uint64_t *)c->segs[0].base;
	test_shape(t, seq, &nout, &nin);
	if (c->nout != nout || c->nin != nin || c->out_len != nout * TEST_SEG ||
		c->in_len != nin * TEST_SEG)
		return test_wrong(t, "the device got a request of another shape");
	for (uint32_t i = 0; i < nout; i++)
		if (!test_matches(c->segs[i].base, seq, i))
			return test_wrong(t, "the device read what the driver did not write");
	for (uint32_t i = nout; i < nout + nin; i++)
		test_fill(c->segs[i].base, ~seq, i);
	return 0;
}

/* Takes a batch and answers it in another order; how many. */
static int test_serve(struct test *t)
{
	int n = ring_device_pop(&t->device, t->chains, TEST_BATCH, t->segs, TEST_BATCH * TEST_SEGS);

	if (n < 0)
		return test_wrong(t, "the device found the ring malformed");
	for (int i = 0; i < n; i++) {
		/* Upwards or downwards. */
		struct ring_used *u = &t->used[t->chains[0].id & 1 ? i : n - 1 - i];

		u->id = t->chains[i].id;
		u->len = t->chains[i].in_len;
		if (test_serve_one(t, &t->chains[i]))
			return -EIO;
	}
	if (n && ring_device_push(&t->device, t->used, (uint32_t)n))
		return test_wrong(t, "the device could not push");
	return n;
}

static int test_device_thread(void *arg)
{
	struct test *t = arg;

	ring_device_doorbell_off(&t->device);
	while (!READ_ONCE(t->stop)) {
		int n = test_serve(t);

		if (n < 0)
			break;
		if (n) {
			if (ring_device_needs_interrupt(&t->device))
				complete(&t->interrupt);
			cond_resched();
			continue;
		}
		test_give_way();
		if (ring_device_doorbell_on(&t->device))
			continue;
		if (!wait_for_completion_timeout(&t->doorbell, TEST_PATIENCE)) {
			test_wrong(t, "the device's wake-up was lost");
			break;
		}
		ring_device_doorbell_off(&t->device);
	}
	/* kthread_stop() must find the thread. */
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

/* ------------------------------------------------------------------ runs */

static int test_by_turns(struct test *t)
{
	uint64_t end = t->added + TEST_TURNS;

	while (t->collected < end) {
		uint64_t next = t->added + 1 + test_below(t, 2 * TEST_BATCH);
		int n, sum = test_add_some(t, min(next, end));

		for (int i = 0; i < 2 && sum >= 0; i++) {
			n = test_serve(t);
			sum = n < 0 ? n : sum + n;
		}
		n = sum < 0 ? sum : test_collect(t);
		if (n < 0)
			return n;
		if (!(sum + n))
			return test_wrong(t, "nothing moves");
		cond_resched();
	}
	return 0;
}

static int test_driver_loop(struct test *t, uint64_t end)
{
	ring_driver_interrupt_off(&t->driver);
	while (t->collected < end) {
		int added = test_add_some(t, end), n;

		if (added < 0)
			return added;
		if (added && ring_driver_needs_doorbell(&t->driver))
			complete(&t->doorbell);
		n = test_collect(t);
		if (n < 0)
			return n;
		test_give_way();
		if (n || added || ring_driver_interrupt_on(&t->driver, 1))
			continue;
		if (!wait_for_completion_timeout(&t->interrupt, TEST_PATIENCE))
			return test_wrong(t, "the driver's wake-up was lost");
		ring_driver_interrupt_off(&t->driver);
	}
	return 0;
}

static int test_threaded(struct test *t)
{
	struct task_struct *thread;
	int rc;

	init_completion(&t->doorbell);
	init_completion(&t->interrupt);
	t->stop = false;
	thread = kthread_run(test_device_thread, t, "sluice_ring");
	if (IS_ERR(thread))
		return (int)PTR_ERR(thread);
	rc = test_driver_loop(t, t->added + min(TEST_THREADED, t->size * TEST_EACH));
	WRITE_ONCE(t->stop, true);
	complete(&t->doorbell);
	kthread_stop(thread);
	return READ_ONCE(t->wrong) ? -EIO : rc;
}

/* An address outside what the device may touch is an error, and the queue stays broken. */
static int test_hostile(struct test *t)
{
	struct ring_sg sg = {.gpa = t->gpa + t->bytes, .len = TEST_SEG};

	if (ring_driver_add(&t->driver, &sg, 1, 0, 0))
		return test_wrong(t, "the driver refused a request");
	ring_driver_publish(&t->driver);
	if (ring_device_pop(&t->device, t->chains, 1, t->segs, TEST_SEGS) != -RING_EFAULT ||
		ring_device_pop(&t->device, t->chains, 1, t->segs, TEST_SEGS) != -RING_EPROTO)
		return test_wrong(t, "the device took an address outside its memory");
	return 0;
}

/* ------------------------------------------------------------------ making one */

static int test_queue_make(struct test *t, uint16_t position)
{
	struct ring_driver_config drv = {
		.layout = t->layout,
		.features = t->features,
		.size = t->size,
		.slots = t->driver_slots,
	};
	struct ring_device_config dev = {
		.layout = t->layout,
		.features = t->features,
		.size = t->size,
		.chain_max = TEST_SEGS,
		.slots = t->device_slots,
	};
	struct ring_device_state state = {.avail = position, .used = position};
	struct ring_geometry g;

	ring_geometry_get(t->layout, t->size, &g);
	if (g.bytes > t->table_at)
		return test_wrong(t, "the rings are larger than they should be");
	memset(t->memory, 0, t->bytes);
	drv.desc = t->memory + g.desc;
	drv.driver = t->memory + g.driver;
	drv.device = t->memory + g.device;
	if (t->features.indirect) {
		drv.indirect = t->memory + t->table_at;
		drv.indirect_gpa = t->gpa + t->table_at;
		drv.indirect_max = TEST_TABLE_MAX;
	}
	dev.desc_gpa = t->gpa + g.desc;
	dev.driver_gpa = t->gpa + g.driver;
	dev.device_gpa = t->gpa + g.device;
	if (ring_driver_init(&t->driver, &drv) || ring_driver_position_set(&t->driver, position) ||
		ring_device_init(&t->device, &dev, &t->mem) ||
		ring_device_state_set(&t->device, &state))
		return test_wrong(t, "the queue could not be made");
	t->nfree = 0;
	for (t->cells = 0; t->cells < t->size; t->cells++)
		t->free_cells[t->nfree++] = (uint16_t)t->cells;
	t->added = t->collected = 0;
	return 0;
}

/* One queue through all of it; the number of requests, or -errno. */
static long test_queue(struct test *t)
{
	/* Split indices run through 65,536; packed positions begin anywhere in the ring. */
	uint16_t position = t->layout == RING_SPLIT ? 65000 : 0x8000u | (t->size - 1);
	int rc = test_queue_make(t, position);

	if (!rc)
		rc = test_by_turns(t);
	if (!rc)
		rc = test_threaded(t);
	if (!rc)
		rc = test_hostile(t);
	if (!rc)
		return (long)t->collected;
	pr_err("%s, size %u, event index %d, indirect %d, in order %d: %s\n",
		t->layout == RING_SPLIT ? "split" : "packed", t->size, t->features.event_idx,
		t->features.indirect, t->features.in_order, t->wrong ? t->wrong : "no thread");
	return rc;
}

static long test_all(struct test *t)
{
	static const uint32_t split_sizes[] = {2, 8, 256}, packed_sizes[] = {2, 7, 256};
	long passed = 0, n;

	for (uint32_t i = 0; i < 2 * TEST_FEATURES * ARRAY_SIZE(split_sizes); i++) {
		uint32_t bits = i / 2 % TEST_FEATURES, nth = i / 2 / TEST_FEATURES;

		t->layout = i % 2 ? RING_PACKED : RING_SPLIT;
		t->size = i % 2 ? packed_sizes[nth] : split_sizes[nth];
		t->features.event_idx = bits & 1;
		t->features.indirect = bits & 2;
		t->features.in_order = bits & 4;
		n = test_queue(t);
		if (n < 0)
			return n;
		passed += n;
	}
	return passed;
}

long sluice_ring_selftest(void)
{
	struct test *t = kzalloc(sizeof(*t), GFP_KERNEL);
	struct ring_geometry split, packed;
	long rc = -ENOMEM;

	if (!t)
		return rc;
	ring_geometry_get(RING_SPLIT, TEST_SIZE_MAX, &split);
	ring_geometry_get(RING_PACKED, TEST_SIZE_MAX, &packed);
	t->random = 88172645463325252ull;
	t->table_at = PAGE_ALIGN(max(split.bytes, packed.bytes));
	t->data_at = t->table_at + PAGE_ALIGN(TEST_SIZE_MAX * TEST_TABLE_MAX * 16);
	t->bytes = t->data_at + PAGE_ALIGN(TEST_SIZE_MAX * TEST_CELL);
	t->memory = kzalloc(t->bytes, GFP_KERNEL);
	t->driver_slots = kcalloc(TEST_SIZE_MAX, sizeof(*t->driver_slots), GFP_KERNEL);
	t->device_slots = kcalloc(TEST_SIZE_MAX, sizeof(*t->device_slots), GFP_KERNEL);
	t->free_cells = kcalloc(TEST_SIZE_MAX, sizeof(*t->free_cells), GFP_KERNEL);
	if (!t->memory || !t->driver_slots || !t->device_slots || !t->free_cells)
		goto out;
	t->gpa = virt_to_phys(t->memory);
	rc = ring_mem_add(&t->mem, t->gpa, t->bytes, t->memory, false);
	if (!rc)
		rc = test_all(t);
out:
	kfree(t->free_cells);
	kfree(t->device_slots);
	kfree(t->driver_slots);
	kfree(t->memory);
	kfree(t);
	return rc;
}
