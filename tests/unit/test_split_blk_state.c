/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-blk stopped, moved and reset while it works; the dirty bitmap to the page; costs at rest.
 */
#include "tests/unit/test_split_blk_rig.h"

static void ring_of(struct disk *d, unsigned bits)
{
	d->r.layout = bits & 8 ? RING_PACKED : RING_SPLIT;
	d->r.features = (struct ring_features){bits & 1, bits & 2, bits & 4};
}

static void noted(void *ctx)
{
	uint64_t one = 1;

	if (write(*(int *)ctx, &one, sizeof(one)) < 0)
		CU_FAIL("eventfd");
}

static void control_wait(
	struct disk *d, void (*start)(struct split_device *, void (*)(void *), void *))
{
	int fd = eventfd(0, 0);
	uint64_t n;

	start(d->r.dev, noted, &fd);
	CU_ASSERT_EQUAL(read(fd, &n, sizeof(n)), 8);
	close(fd);
}

/* ------------------------------------------------------------------ move */

static struct io_thread *other_io;
static bool use_async;

/* What a snapshot does, in the middle of everything: the driver does not notice. */
static void move(struct disk *d)
{
	struct ring_device_state state[RIG_QUEUES];
	struct split_blk_options o = {.queue_size = 64};
	uint64_t features = d->r.dev->driver_features;
	struct state_writer w = {0};
	struct state_reader r;
	struct io_thread *io = d->r.io;

	if (use_async)
		control_wait(d, split_quiesce);
	else
		split_quiesce_wait(d->r.dev);
	for (unsigned q = 0; q < d->queues; q++)
		split_queue_state_get(d->r.dev, q, &state[q]);
	split_save(d->r.dev, &w);
	CU_ASSERT_EQUAL(w.error, 0);
	split_destroy(d->r.dev);
	d->r.io = other_io;
	other_io = io;
	disk_create(d, &o);
	CU_ASSERT_EQUAL_FATAL(split_features_set(d->r.dev, features), 0);
	state_reader_init(&r, w.data, w.len);
	split_load(d->r.dev, &r);
	CU_ASSERT_EQUAL(r.error, 0);
	for (unsigned q = 0; q < d->queues; q++) {
		d->r.q[q].cfg.restore = true;
		d->r.q[q].cfg.state = state[q];
		rig_queue_start(&d->r, q);
	}
	state_writer_free(&w);
}

static void test_move(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct disk d;

		CU_ASSERT_FATAL(
			disk_open(&d, bits & 16, bits & 1 ? 100 : 0, BLK_ENGINE_AUTO, false));
		ring_of(&d, bits);
		d.queues = bits & 2 ? 3 : 1;
		use_async = bits & 4;
		other_io = rig_io(!(bits & 16), 0);
		disk_start(&d, 64);
		for (unsigned n = 0; n < 4; n++)
			disk_transfer(&d, 77, move);
		disk_compare(&d);
		disk_close(&d);
		io_thread_destroy(other_io);
	}
}

static void test_load_other(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	struct disk d;
	uint8_t off = 0, on = 1;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, false));
	disk_start(&d, 8);
	d.r.dev->ops->config_write(d.r.dev, 32, &off, 1);
	split_quiesce_wait(d.r.dev);
	split_save(d.r.dev, &w);
	d.r.dev->ops->config_write(d.r.dev, 32, &on, 1);
	state_reader_init(&r, w.data, w.len);
	split_load(d.r.dev, &r);
	CU_ASSERT_EQUAL(r.error, 0);
	d.r.dev->ops->config_read(d.r.dev, 32, &on, 1);
	CU_ASSERT_EQUAL(on, 0);
	/* a disk of another size */
	w.data[w.len - 9] ^= 1;
	state_reader_init(&r, w.data, w.len);
	split_load(d.r.dev, &r);
	CU_ASSERT_EQUAL(r.error, -EINVAL);
	for (size_t len = 0; len < w.len; len++) {
		state_reader_init(&r, w.data, len);
		split_load(d.r.dev, &r);
		CU_ASSERT_EQUAL(r.error, -EINVAL);
	}
	state_writer_free(&w);
	disk_close(&d);
}

/* Pause and go on in place, again and again, with the driver always at work. */
static void resume(struct disk *d)
{
	for (unsigned i = 0; i < 5; i++) {
		split_quiesce_wait(d->r.dev);
		for (unsigned q = 0; q < d->queues; q++) {
			d->r.q[q].cfg.restore = true;
			split_queue_state_get(d->r.dev, q, &d->r.q[q].cfg.state);
			rig_queue_start(&d->r, q);
		}
	}
}

static void test_resume(void)
{
	struct disk d;

	CU_ASSERT_FATAL(disk_open(&d, false, 50, BLK_ENGINE_AUTO, false));
	ring_of(&d, 8 + 7);
	d.queues = 2;
	disk_start(&d, 64);
	for (unsigned i = 0; i < 20; i++)
		disk_transfer(&d, 60, resume);
	disk_compare(&d);
	disk_close(&d);
}

/* ------------------------------------------------------------------ reset */

static void test_reset(void)
{
	for (unsigned bits = 0; bits < 32; bits += 3) {
		struct disk d;

		CU_ASSERT_FATAL(disk_open(&d, bits & 16, 50, BLK_ENGINE_AUTO, false));
		ring_of(&d, bits);
		disk_start(&d, 64);
		for (unsigned n = 0; n < 30; n++) {
			/* a full queue, abandoned: what was accepted may or may not be written */
			for (unsigned s = 0; s < SLOTS && disk_random(&d, 0, s); s++)
				;
			rig_kick(&d.r, 0);
			if (n % 3 == 0)
				usleep(50);
			control_wait(&d, split_reset);
			for (unsigned s = 0; s < SLOTS; s++)
				d.slots[s].busy = false;
			CU_ASSERT_EQUAL(
				pread(d.fd, d.shadow, DISK_SECTORS * 512, 0), DISK_SECTORS * 512);
			d.r.next = rig_host(&d.r, d.r.q[0].cfg.desc_gpa) - (void *)d.r.ram;
			CU_ASSERT_EQUAL(split_features_set(d.r.dev, d.r.dev->features), 0);
			rig_queue_init(&d.r, 0, 64);
			rig_queue_start(&d.r, 0);
			disk_transfer(&d, 30, NULL);
			disk_compare(&d);
		}
		disk_close(&d);
	}
}

/* ------------------------------------------------------------------ dirty pages */

/* The device marks its part of the ring after the driver may have seen the completion: stop it
 * first. */
static uint8_t do_and_stop(struct disk *d, uint32_t type, uint32_t out_len, uint32_t in_len)
{
	uint8_t status;

	memset(d->r.dirty, 0, d->r.bytes / 4096 / 8);
	d->r.q[0].cfg.restore = true;
	split_queue_state_get(d->r.dev, 0, &d->r.q[0].cfg.state);
	rig_queue_start(&d->r, 0);
	status = disk_do(d, type, 0, out_len, in_len, NULL);
	split_quiesce_wait(d->r.dev);
	return status;
}

/* Exactly the pages that the device wrote: read data, status bytes, its part of the ring. */
static void test_dirty(void)
{
	for (unsigned layout = 0; layout < 2; layout++) {
		struct disk d;
		uint64_t page, status;
		struct slot *s;

		CU_ASSERT_FATAL(disk_open(&d, layout, 0, BLK_ENGINE_AUTO, false));
		ring_of(&d, layout ? 8 : 0);
		disk_start(&d, 16);
		split_quiesce_wait(d.r.dev);
		d.r.mem.regions[0].dirty = d.r.dirty;
		s = &d.slots[0];
		d.r.next = (d.r.next + 4095) & ~4095ul;
		s->header = rig_alloc(&d.r, 4096, 4096);
		s->data = rig_alloc(&d.r, 16384, 4096);
		s->status = rig_alloc(&d.r, 4096, 4096) + 4095;
		/* 3 pages and a byte of the fourth are read into, from an odd place on */
		s->data += 4096 - 512;
		CU_ASSERT_EQUAL(do_and_stop(&d, T_IN, 0, 8192 + 512), 0);
		status = s->status & ~4095ull;
		for (page = RIG_GPA; page < RIG_GPA + d.r.bytes; page += 4096) {
			uint64_t first = s->data & ~4095ull;
			bool ring = page == (d.r.q[0].cfg.device_gpa & ~4095ull) ||
				    (layout && page == (d.r.q[0].cfg.desc_gpa & ~4095ull));
			bool want = (page >= first && page < first + 3 * 4096) || page == status;

			if (!ring)
				CU_ASSERT_EQUAL(rig_page_dirty(&d.r, page), want);
		}
		page = layout ? d.r.q[0].cfg.desc_gpa : d.r.q[0].cfg.device_gpa;
		CU_ASSERT(rig_page_dirty(&d.r, page));
		/* a write dirties its status, not its data */
		CU_ASSERT_EQUAL(do_and_stop(&d, T_OUT, 8192, 0), 0);
		CU_ASSERT(rig_page_dirty(&d.r, status));
		CU_ASSERT_FALSE(rig_page_dirty(&d.r, s->data));
		CU_ASSERT_FALSE(rig_page_dirty(&d.r, s->header));
		/* the serial number is data */
		CU_ASSERT_EQUAL(do_and_stop(&d, T_GET_ID, 0, 20), 0);
		CU_ASSERT(rig_page_dirty(&d.r, s->data));
		CU_ASSERT_FALSE(rig_page_dirty(&d.r, s->data + 4096));
		disk_close(&d);
	}
}

/* ------------------------------------------------------------------ costs */

static void test_idle(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct io_thread_counters a, b;
		struct disk d;

		CU_ASSERT_FATAL(disk_open(&d, i, 200, BLK_ENGINE_AUTO, false));
		ring_of(&d, 3);
		disk_start(&d, 64);
		disk_transfer(&d, 300, NULL);
		usleep(50000);
		for (unsigned n = 0; n < 40; n++) {
			io_thread_counters_get(d.r.io, &a);
			usleep(200000);
			io_thread_counters_get(d.r.io, &b);
			if (a.system_calls == b.system_calls)
				break;
		}
		CU_ASSERT_EQUAL(a.system_calls, b.system_calls);
		CU_ASSERT_EQUAL(a.sleeps, b.sleeps);
		disk_close(&d);
	}
}

/* Requests that come together leave together: far fewer system calls than requests. */
static void test_batches(void)
{
	struct io_thread_counters a, b;
	struct ring_done done[SLOTS];
	unsigned got = 0;
	struct disk d;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_URING, false));
	if (!io_thread_ring(d.r.io)) {
		unit_skip("no io_uring here");
		disk_close(&d);
		return;
	}
	ring_of(&d, 3);
	disk_start(&d, 64);
	usleep(20000);
	io_thread_counters_get(d.r.io, &a);
	for (unsigned s = 0; s < SLOTS; s++)
		CU_ASSERT_FATAL(disk_add(&d, 0, s, T_IN, s, 0, 512));
	rig_kick(&d.r, 0);
	while (got < SLOTS)
		got += rig_wait(&d.r, 0, done, SLOTS);
	io_thread_counters_get(d.r.io, &b);
	CU_ASSERT(b.system_calls - a.system_calls < SLOTS);
	CU_ASSERT(counter_get(&d.r.dev->counters.doorbells) <= 2);
	disk_close(&d);
}

static const struct unit_case cases[] = {
	{"moved in mid-transfer", test_move},
	{"paused and resumed", test_resume},
	{"state of another disk", test_load_other},
	{"reset under load", test_reset},
	{"dirty pages", test_dirty},
	{"idle costs nothing", test_idle},
	{"batches", test_batches},
};

UNIT_MAIN("split_blk_state", cases)
