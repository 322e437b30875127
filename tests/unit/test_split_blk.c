/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-blk as its driver sees it: every kind of request, every ring, errors, hostile requests. */
#include "tests/unit/test_split_blk_rig.h"

static void ring_of(struct disk *d, unsigned bits)
{
	d->r.layout = bits & 8 ? RING_PACKED : RING_SPLIT;
	d->r.features = (struct ring_features){bits & 1, bits & 2, bits & 4};
}

/* ------------------------------------------------------------------ transfers */

static void test_every_ring(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct disk d;

		CU_ASSERT_FATAL(disk_open(&d, bits & 16, 100, BLK_ENGINE_AUTO, false));
		ring_of(&d, bits);
		disk_start(&d, 64);
		disk_transfer(&d, 200, NULL);
		disk_compare(&d);
		CU_ASSERT_EQUAL(counter_get(&d.r.dev->counters.requests), 200);
		CU_ASSERT_EQUAL(counter_get(&d.r.dev->counters.errors), 0);
		CU_ASSERT_EQUAL(d.r.dev->queues[0].latency.count, 200);
		disk_close(&d);
	}
}

static void test_every_engine(void)
{
	static const enum blk_engine engines[] = {
		BLK_ENGINE_URING, BLK_ENGINE_AIO, BLK_ENGINE_THREADS};

	for (unsigned i = 0; i < 6; i++) {
		struct disk d;

		if (!disk_open(&d, i & 1, i & 1 ? 0 : 50, engines[i / 2], false))
			continue;
		ring_of(&d, 3);
		disk_start(&d, 32);
		disk_transfer(&d, 500, NULL);
		disk_compare(&d);
		disk_close(&d);
	}
}

static void test_queues(void)
{
	for (unsigned bits = 0; bits < 2; bits++) {
		struct disk d;

		CU_ASSERT_FATAL(disk_open(&d, bits, 20, BLK_ENGINE_AUTO, false));
		ring_of(&d, bits ? 8 + 3 : 3);
		d.queues = 4;
		disk_start(&d, 16);
		CU_ASSERT(d.r.dev->features & VIRTIO_BIT(F_MQ));
		disk_transfer(&d, 1000, NULL);
		disk_compare(&d);
		for (unsigned q = 0; q < 4; q++)
			CU_ASSERT(d.r.dev->queues[q].latency.count > 0);
		disk_close(&d);
	}
}

/* One at a time, each to a thread that may have gone to sleep: none is lost. */
static void test_sleepers(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct disk d;

		CU_ASSERT_FATAL(disk_open(&d, i & 1, i & 2 ? 30 : 0, BLK_ENGINE_AUTO, false));
		ring_of(&d, 3);
		disk_start(&d, 8);
		for (unsigned n = 0; n < 400; n++)
			CU_ASSERT_FATAL(disk_do(&d, T_IN, n, 0, 512, NULL) == 0);
		CU_ASSERT_EQUAL(counter_get(&d.r.dev->counters.requests), 400);
		CU_ASSERT(counter_get(&d.r.dev->counters.interrupts) > 0);
		disk_close(&d);
	}
}

/* A trapped doorbell instead of the eventfd. */
static void test_doorbell_call(void)
{
	struct disk d;
	struct ring_done done;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, false));
	ring_of(&d, 1);
	disk_start(&d, 8);
	for (unsigned n = 0; n < 200; n++) {
		CU_ASSERT_FATAL(disk_add(&d, 0, 0, T_IN, n, 0, 512));
		ring_driver_publish(&d.r.q[0].drv);
		if (ring_driver_needs_doorbell(&d.r.q[0].drv))
			split_doorbell(d.r.dev, 0);
		CU_ASSERT_EQUAL_FATAL(rig_wait(&d.r, 0, &done, 1), 1);
	}
	split_doorbell(d.r.dev, 99);
	disk_close(&d);
}

/* ------------------------------------------------------------------ the other requests */

static void test_get_id(void)
{
	struct disk d;
	uint32_t len;
	uint8_t *data;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, false));
	ring_of(&d, 3);
	disk_start(&d, 8);
	data = rig_host(&d.r, d.slots[0].data);
	memset(data, 0x55, 64);
	CU_ASSERT_EQUAL(disk_do(&d, T_GET_ID, 0, 0, 20, &len), 0);
	CU_ASSERT_EQUAL(len, 21);
	CU_ASSERT_EQUAL(memcmp(data, "serial-0123456789abc", 20), 0);
	CU_ASSERT_EQUAL(data[20], 0x55);
	CU_ASSERT_EQUAL(disk_do(&d, T_GET_ID, 0, 0, 19, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_GET_ID, 0, 0, 40, &len), 0);
	CU_ASSERT(len <= 20);
	disk_close(&d);
}

static void put_range(struct disk *d, unsigned i, uint64_t sector, uint32_t n, uint32_t flags)
{
	uint8_t *p = (uint8_t *)rig_host(&d->r, d->slots[0].data) + i * 16;

	memcpy(p, &sector, 8);
	memcpy(p + 8, &n, 4);
	memcpy(p + 12, &flags, 4);
}

static void test_ranges(void)
{
	struct disk d;
	bool discard;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, false));
	ring_of(&d, 3);
	disk_start(&d, 8);
	CU_ASSERT_FATAL((d.r.dev->features & VIRTIO_BIT(F_WZ)) != 0);
	discard = d.r.dev->features & VIRTIO_BIT(F_DISCARD);
	pattern(d.shadow, 0, DISK_SECTORS, 7);
	CU_ASSERT_EQUAL(pwrite(d.fd, d.shadow, DISK_SECTORS * 512, 0), (int)DISK_SECTORS * 512);

	put_range(&d, 0, 8, 16, 0);
	put_range(&d, 1, 1001, 3, 1);
	put_range(&d, 2, 5, 0, 0);
	CU_ASSERT_EQUAL(disk_do(&d, T_WRITE_ZEROES, 0, 48, 0, NULL), 0);
	memset(d.shadow + 8 * 512, 0, 16 * 512);
	memset(d.shadow + 1001 * 512, 0, 3 * 512);
	disk_compare(&d);
	if (discard) {
		put_range(&d, 0, 64, 64, 0);
		CU_ASSERT_EQUAL(disk_do(&d, T_DISCARD, 0, 16, 0, NULL), 0);
		memset(d.shadow + 64 * 512, 0, 64 * 512); /* of a file: a hole */
		disk_compare(&d);
		put_range(&d, 0, 128, 8, 1);
		CU_ASSERT_EQUAL(disk_do(&d, T_DISCARD, 0, 16, 0, NULL), 2);
	}
	/* all or nothing: the second range is wrong */
	put_range(&d, 0, 256, 8, 0);
	put_range(&d, 1, DISK_SECTORS - 1, 2, 0);
	CU_ASSERT_EQUAL(disk_do(&d, T_WRITE_ZEROES, 0, 32, 0, NULL), 1);
	put_range(&d, 1, UINT64_MAX, 2, 0);
	CU_ASSERT_EQUAL(disk_do(&d, T_WRITE_ZEROES, 0, 32, 0, NULL), 1);
	put_range(&d, 1, 0, 8, 2);
	CU_ASSERT_EQUAL(disk_do(&d, T_WRITE_ZEROES, 0, 32, 0, NULL), 2);
	CU_ASSERT_EQUAL(disk_do(&d, T_WRITE_ZEROES, 0, 0, 0, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_WRITE_ZEROES, 0, 17, 0, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_WRITE_ZEROES, 0, 16 * 17, 0, NULL), 1);
	disk_compare(&d);
	disk_close(&d);
}

static void test_write_through(void)
{
	struct disk d;
	uint8_t wce = 0xff, off = 0;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, false));
	ring_of(&d, 0);
	disk_start(&d, 8);
	d.r.dev->ops->config_read(d.r.dev, 32, &wce, 1);
	CU_ASSERT_EQUAL(wce, 1);
	d.r.dev->ops->config_write(d.r.dev, 32, &off, 1);
	d.r.dev->ops->config_read(d.r.dev, 32, &wce, 1);
	CU_ASSERT_EQUAL(wce, 0);
	disk_transfer(&d, 200, NULL); /* each write is write and flush */
	disk_compare(&d);
	disk_close(&d);
}

static void test_config(void)
{
	struct disk d;
	uint64_t capacity = 0;
	uint32_t v = 0;
	uint8_t all[128];

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, false));
	ring_of(&d, 0);
	disk_start(&d, 8);
	d.r.dev->ops->config_read(d.r.dev, 0, &capacity, 8);
	CU_ASSERT_EQUAL(capacity, DISK_SECTORS);
	d.r.dev->ops->config_read(d.r.dev, 12, &v, 4);
	CU_ASSERT_EQUAL(v, 126);
	d.r.dev->ops->config_read(d.r.dev, 20, &v, 4);
	CU_ASSERT_EQUAL(v, 512);
	for (uint32_t at = 0; at < 70; at++)
		for (uint32_t n = 0; n < 70; n++)
			d.r.dev->ops->config_read(d.r.dev, at, all, n);
	d.r.dev->ops->config_read(d.r.dev, UINT32_MAX, all, 8);
	for (uint32_t at = 0; at < 70; at++)
		d.r.dev->ops->config_write(d.r.dev, at, all, 4);
	d.r.dev->ops->config_write(d.r.dev, UINT32_MAX, all, 8);
	CU_ASSERT_EQUAL(split_features_set(d.r.dev, d.r.dev->features), -EBUSY);
	disk_close(&d);
}

/* ------------------------------------------------------------------ errors */

static void test_refused(void)
{
	struct disk d;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, false));
	ring_of(&d, 3);
	disk_start(&d, 8);
	CU_ASSERT_EQUAL(disk_do(&d, T_IN, DISK_SECTORS, 0, 512, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_IN, DISK_SECTORS - 1, 0, 1024, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_IN, UINT64_MAX, 0, 512, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_IN, UINT64_MAX / 512 + 1, 0, 512, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_IN, 0, 0, 511, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_OUT, 0, 513, 0, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_IN, DISK_SECTORS, 0, 0, NULL), 0);
	CU_ASSERT_EQUAL(disk_do(&d, 3, 0, 0, 512, NULL), 2);
	CU_ASSERT_EQUAL(disk_do(&d, 0x80000000u, 0, 16, 0, NULL), 2);
	CU_ASSERT_EQUAL(disk_do(&d, T_IN, 1, 0, 512, NULL), 0);
	CU_ASSERT_EQUAL(counter_get(&d.r.dev->counters.errors), 8);
	CU_ASSERT_EQUAL(atomic_load(&d.r.broken), 0);
	disk_close(&d);
}

static void test_readonly(void)
{
	struct disk d;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, true));
	ring_of(&d, 3);
	disk_start(&d, 8);
	CU_ASSERT(d.r.dev->features & VIRTIO_BIT(F_RO));
	CU_ASSERT_EQUAL(disk_do(&d, T_OUT, 0, 512, 0, NULL), 1);
	put_range(&d, 0, 0, 8, 0);
	CU_ASSERT_EQUAL(disk_do(&d, T_WRITE_ZEROES, 0, 16, 0, NULL), 1);
	CU_ASSERT_EQUAL(disk_do(&d, T_IN, 0, 0, 512, NULL), 0);
	disk_compare(&d);
	disk_close(&d);
}

static void test_io_error(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct disk d;
		uint32_t len;

		CU_ASSERT_FATAL(disk_open(&d, i, 0, BLK_ENGINE_AUTO, false));
		ring_of(&d, 3);
		disk_start(&d, 8);
		CU_ASSERT_EQUAL(ftruncate(d.fd, 4096 * 512), 0); /* half of it is gone */
		CU_ASSERT_EQUAL(disk_do(&d, T_IN, 5000, 0, 4096, &len), 1);
		CU_ASSERT_EQUAL(len, 0);
		CU_ASSERT_EQUAL(disk_do(&d, T_IN, 4000, 0, 4096, NULL), 0);
		CU_ASSERT_EQUAL(counter_get(&d.r.dev->counters.errors), 1);
		disk_close(&d);
	}
}

/* Chains without header or status, descriptors outside memory: an error or NEEDS_RESET, then a
 * reset heals. */
static void noted(void *ctx)
{
	uint64_t one = 1;

	if (write(*(int *)ctx, &one, sizeof(one)) < 0)
		CU_FAIL("eventfd");
}

static void reset_wait(struct disk *d)
{
	int fd = eventfd(0, 0);
	uint64_t n;

	split_reset(d->r.dev, noted, &fd);
	CU_ASSERT_EQUAL(read(fd, &n, sizeof(n)), 8);
	close(fd);
}

static void test_malformed(void)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		struct disk d;
		struct ring_sg sg[2];
		struct ring_done done;
		unsigned i;

		CU_ASSERT_FATAL(disk_open(&d, false, 50, BLK_ENGINE_AUTO, false));
		ring_of(&d, kind & 1 ? 8 : 0);
		disk_start(&d, 8);
		sg[0] = (struct ring_sg){d.slots[0].header, 15};
		sg[1] = (struct ring_sg){d.slots[0].status, 1};
		/* a short header with a status byte: an error */
		CU_ASSERT_EQUAL(ring_driver_add(&d.r.q[0].drv, sg, 1, 1, 0), 0);
		rig_kick(&d.r, 0);
		CU_ASSERT_EQUAL_FATAL(rig_wait(&d.r, 0, &done, 1), 1);
		CU_ASSERT_EQUAL(*(uint8_t *)rig_host(&d.r, d.slots[0].status), 1);
		CU_ASSERT_EQUAL(atomic_load(&d.r.broken), 0);
		if (kind & 2) {
			sg[0].len = 16;
			sg[0].gpa = 0x1000; /* outside */
		}
		CU_ASSERT_EQUAL(ring_driver_add(&d.r.q[0].drv, sg, kind & 2 ? 2 : 1, 0, 0), 0);
		rig_kick(&d.r, 0);
		for (i = 0; i < 100000 && !atomic_load(&d.r.broken); i++)
			usleep(100);
		CU_ASSERT_EQUAL(atomic_load(&d.r.broken), 1);
		CU_ASSERT(counter_get(&d.r.dev->counters.malformed) >= 2);
		CU_ASSERT_EQUAL(split_queue_start(d.r.dev, 0, &d.r.q[0].cfg), -EBUSY);
		reset_wait(&d);
		CU_ASSERT_EQUAL(split_queue_start(d.r.dev, 0, &d.r.q[0].cfg), -EINVAL);
		CU_ASSERT_EQUAL(split_features_set(d.r.dev, d.r.dev->features), 0);
		rig_queue_init(&d.r, 0, 8);
		rig_queue_start(&d.r, 0);
		disk_transfer(&d, 50, NULL);
		disk_compare(&d);
		CU_ASSERT_EQUAL(atomic_load(&d.r.broken), 1);
		disk_close(&d);
	}
}

static void test_options(void)
{
	struct split_blk_options o = {.queues = 1};
	struct split_queue_config cfg;
	char why[BACKEND_WHY_MAX] = "";
	struct split_device *dev;
	struct disk d;

	CU_ASSERT_FATAL(disk_open(&d, false, 0, BLK_ENGINE_AUTO, false));
	o.image = d.image;
	o.queues = BACKEND_QUEUES_MAX + 1;
	CU_ASSERT_EQUAL(split_blk_create(&dev, d.r.io, &d.r.mem, &d.r.signal, &o, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "65"));
	o.queues = 1;
	o.queue_size = 100;
	CU_ASSERT_EQUAL(split_blk_create(&dev, d.r.io, &d.r.mem, &d.r.signal, &o, why), -EINVAL);
	disk_start(&d, 8);
	/* features nobody offered, or too few */
	split_quiesce_wait(d.r.dev);
	CU_ASSERT_EQUAL(split_features_set(d.r.dev, ~0ull), -EINVAL);
	CU_ASSERT_EQUAL(split_features_set(d.r.dev, 0), -EINVAL);
	/* queues that are not where memory is, too large, or not there */
	cfg = d.r.q[0].cfg;
	cfg.desc_gpa = 0x1000;
	CU_ASSERT_EQUAL(split_queue_start(d.r.dev, 0, &cfg), -EFAULT);
	cfg = d.r.q[0].cfg;
	cfg.size = 512;
	CU_ASSERT_EQUAL(split_queue_start(d.r.dev, 0, &cfg), -EINVAL);
	cfg.size = 0;
	CU_ASSERT_EQUAL(split_queue_start(d.r.dev, 0, &cfg), -EINVAL);
	cfg = d.r.q[0].cfg;
	CU_ASSERT_EQUAL(split_queue_start(d.r.dev, 1, &cfg), -EINVAL);
	CU_ASSERT_EQUAL(split_queue_start(d.r.dev, 0, &cfg), 0);
	disk_close(&d);
}

static const struct unit_case cases[] = {
	{"every ring, both waits", test_every_ring},
	{"every engine", test_every_engine},
	{"several queues", test_queues},
	{"a thread asleep each time", test_sleepers},
	{"doorbell by call", test_doorbell_call},
	{"get id", test_get_id},
	{"discard and write zeroes", test_ranges},
	{"write-through", test_write_through},
	{"configuration", test_config},
	{"refused requests", test_refused},
	{"read-only", test_readonly},
	{"error of the image", test_io_error},
	{"malformed requests, reset", test_malformed},
	{"options and queue addresses", test_options},
};

UNIT_MAIN("split_blk", cases)
