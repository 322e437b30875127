/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-balloon: memory that really goes back, exactly that which was given up; statistics, free
 * page reporting, targets; moves; hostile requests. */
#include <sys/stat.h>

#include "tests/unit/test_split_small_rig.h"

enum { INFLATEQ, DEFLATEQ, STATSQ, FREEPAGEQ, REPORTINGQ, QUEUES };
enum { F_STATS = 1, F_OOM = 2, F_POISON = 4, F_REPORTING = 5 };

#define RAM_BYTES (16u << 20)
#define PFN(gpa)  ((uint32_t)((gpa) / 4096))
#define DATA      (RIG_GPA + (8u << 20)) /* rings and requests below, pages to give up from here */
#define PAGES     1024u

struct balloon {
	struct rig r;
	struct split_balloon_options o;
	int memfd;   /* -1: private memory */
	uint64_t at; /* place for requests */
	atomic_uint config_changes;
};

static void balloon_config(void *ctx)
{
	/* the rig is the first member */
	atomic_fetch_add(&((struct balloon *)ctx)->config_changes, 1);
}

static void balloon_create(void *ctx)
{
	struct balloon *b = ctx;
	char why[BACKEND_WHY_MAX] = "";

	b->o.ring = small_ring(&b->r);
	CU_ASSERT_EQUAL_FATAL(
		split_balloon_create(&b->r.dev, b->r.io, &b->r.mem, &b->r.signal, &b->o, why), 0);
}

static void balloon_open(struct balloon *b, unsigned bits, uint64_t without)
{
	memset(b, 0, sizeof(*b));
	small_open(&b->r, bits, RAM_BYTES);
	b->memfd = memfd_create("ram", MFD_CLOEXEC);
	CU_ASSERT_FATAL(b->memfd >= 0 && !ftruncate(b->memfd, RAM_BYTES));
	CU_ASSERT_FATAL(mmap(b->r.ram, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				b->memfd, 0) == b->r.ram);
	b->r.signal.config = balloon_config;
	if (!b->o.pages_max)
		b->o.pages_max = RAM_BYTES / 4096;
	balloon_create(b);
	b->at = rig_alloc(&b->r, 1u << 20, 4096);
	CU_ASSERT_EQUAL_FATAL(split_features_set(b->r.dev, b->r.dev->features & ~without), 0);
	for (unsigned i = 0; i < QUEUES; i++) {
		rig_queue_init(&b->r, i, 64);
		rig_queue_start(&b->r, i);
	}
	CU_ASSERT_FATAL(b->r.next < DATA - RIG_GPA);
}

static void balloon_close(struct balloon *b)
{
	small_close(&b->r);
	close(b->memfd);
}

static uint8_t *page(struct balloon *b, unsigned i)
{
	return rig_host(&b->r, DATA + i * 4096ull);
}

static void pages_touch(struct balloon *b)
{
	for (unsigned i = 0; i < PAGES; i++)
		memset(page(b, i), (int)(i % 255 + 1), 4096);
}

/* What the host holds for the guest, in pages. */
static uint64_t pages_held(struct balloon *b)
{
	struct stat st;

	CU_ASSERT_EQUAL_FATAL(fstat(b->memfd, &st), 0);
	return (uint64_t)st.st_blocks * 512 / 4096;
}

static void queue_done(struct balloon *b, unsigned q, unsigned n)
{
	struct ring_done done[64];

	while (n) {
		unsigned got = rig_wait(&b->r, q, done, 64);

		CU_ASSERT_FATAL(got > 0 && got <= n);
		for (unsigned i = 0; i < got; i++)
			CU_ASSERT_EQUAL(done[i].len, 0);
		n -= got;
	}
}

/* n page numbers to a queue, cut into segments at odd places. */
static void pfns_send(struct balloon *b, unsigned q, const uint32_t *pfns, uint32_t n)
{
	struct ring_sg sg[3] = {{b->at, n * 4}};
	uint32_t nsg = 1;

	memcpy(rig_host(&b->r, b->at), pfns, n * 4);
	if (n > 2 && b->r.features.indirect) {
		sg[0].len = 5;
		sg[1] = (struct ring_sg){b->at + 5, n};
		sg[2] = (struct ring_sg){b->at + 5 + n, n * 4 - n - 5};
		nsg = 3;
	}
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b->r.q[q].drv, sg, nsg, 0, 1), 0);
	rig_kick(&b->r, q);
}

static void check_pages(struct balloon *b, const bool *gone)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uint8_t want = gone[i] ? 0 : (uint8_t)(i % 255 + 1);

		CU_ASSERT_EQUAL_FATAL(page(b, i)[0], want);
		CU_ASSERT_EQUAL_FATAL(page(b, i)[4095], want);
	}
}

/* ------------------------------------------------------------------ inflate and deflate */

static void test_inflate(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		bool gone[PAGES] = {false};
		struct split_balloon_info info;
		uint32_t pfns[256], n = 0;
		struct balloon b;
		uint64_t held;

		balloon_open(&b, bits, 0);
		pages_touch(&b);
		/* neighbours, backwards, scattered, the same twice */
		for (unsigned i = 0; i < 100; i++)
			pfns[n++] = PFN(DATA) + 300 - i;
		for (unsigned i = 0; i < 100; i++)
			pfns[n++] = PFN(DATA) + 400 + i * 37 % 500;
		for (unsigned i = 0; i < 20; i++)
			pfns[n++] = pfns[i * 3];
		for (unsigned i = 0; i < n; i++)
			gone[pfns[i] - PFN(DATA)] = true;
		memset(rig_host(&b.r, b.at), 0xff, 4096);
		held = pages_held(&b);
		pfns_send(&b, INFLATEQ, pfns, n);
		queue_done(&b, INFLATEQ, 1);
		CU_ASSERT_EQUAL(held - pages_held(&b), 200);
		split_balloon_info_get(b.r.dev, &info);
		CU_ASSERT_EQUAL(info.released, 200 * 4096);
		CU_ASSERT_EQUAL(info.reported, 0);
		CU_ASSERT_EQUAL(counter_get(&b.r.dev->counters.malformed), 0);
		CU_ASSERT_EQUAL(counter_get(&b.r.dev->counters.errors), 0);
		check_pages(&b, gone);
		/* back: they are there when they are touched */
		pfns_send(&b, DEFLATEQ, pfns, n);
		queue_done(&b, DEFLATEQ, 1);
		pages_touch(&b);
		memset(gone, 0, sizeof(gone));
		check_pages(&b, gone);
		balloon_close(&b);
	}
}

/* Memory that is no file's, and host pages larger than the guest's. */
static void test_other_memory(void)
{
	bool gone[PAGES] = {false};
	uint32_t pfns[PAGES];
	unsigned char core[PAGES];
	struct balloon b;
	uint64_t held;
	unsigned first;

	balloon_open(&b, 3, 0);
	CU_ASSERT_FATAL(mmap(page(&b, 0), PAGES * 4096, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page(&b, 0));
	pages_touch(&b);
	for (unsigned i = 0; i < PAGES; i++)
		pfns[i] = PFN(DATA) + i;
	pfns_send(&b, INFLATEQ, pfns + 10, 100);
	queue_done(&b, INFLATEQ, 1);
	CU_ASSERT_EQUAL(mincore(page(&b, 0), PAGES * 4096, core), 0);
	for (unsigned i = 0; i < PAGES; i++) {
		gone[i] = i >= 10 && i < 110;
		CU_ASSERT_EQUAL(core[i] & 1, !gone[i]);
	}
	check_pages(&b, gone);
	balloon_close(&b);

	memset(&b, 0, sizeof(b));
	balloon_open(&b, 3, 0);
	split_destroy(b.r.dev);
	b.o.host_page_bytes = 64 << 10;
	balloon_create(&b);
	CU_ASSERT_EQUAL(split_features_set(b.r.dev, b.r.dev->features), 0);
	for (unsigned q = 0; q < QUEUES; q++)
		rig_queue_start(&b.r, q);
	pages_touch(&b);
	/* the last page of one, all of the next, all but the last page of the third */
	first = (0x10000 - ((uintptr_t)page(&b, 0) & 0xffff)) % 0x10000 / 4096;
	memset(rig_host(&b.r, b.at), 0xff, 4096);
	held = pages_held(&b);
	pfns_send(&b, INFLATEQ, pfns + first + 15, 32);
	queue_done(&b, INFLATEQ, 1);
	CU_ASSERT_EQUAL(held - pages_held(&b), 16);
	for (unsigned i = 0; i < PAGES; i++)
		gone[i] = i >= first + 16 && i < first + 32;
	check_pages(&b, gone);
	balloon_close(&b);
}

/* ------------------------------------------------------------------ free page reporting */

/* Reporting has one of three numbers: see split_balloon.c. */
static void test_reporting(void)
{
	static const struct {
		unsigned queue;
		uint64_t without;
	} roles[] = {
		{3, 0},
		{4, 0},
		{2, VIRTIO_BIT(F_STATS)},
		{4, VIRTIO_BIT(F_STATS)},
	};

	for (unsigned i = 0; i < 32; i++) {
		const unsigned q = roles[i % 4].queue;
		bool gone[PAGES] = {false};
		struct split_balloon_info info;
		struct ring_sg sg[3];
		struct balloon b;
		uint64_t held;

		balloon_open(&b, i / 4 | (i & 1) << 4, roles[i % 4].without);
		pages_touch(&b);
		/* the second begins and ends inside pages that stay */
		sg[0] = (struct ring_sg){DATA, 512 * 4096};
		sg[1] = (struct ring_sg){DATA + 600 * 4096 + 100, 10 * 4096};
		sg[2] = (struct ring_sg){DATA + 700 * 4096, 100};
		held = pages_held(&b);
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b.r.q[q].drv, sg, 0, 3, 1), 0);
		rig_kick(&b.r, q);
		queue_done(&b, q, 1);
		CU_ASSERT_EQUAL(held - pages_held(&b), 512 + 9);
		for (unsigned k = 0; k < PAGES; k++)
			gone[k] = k < 512 || (k > 600 && k < 610);
		check_pages(&b, gone);
		split_balloon_info_get(b.r.dev, &info);
		CU_ASSERT_EQUAL(info.reported, 521 * 4096);
		CU_ASSERT_EQUAL(info.released, 521 * 4096);
		/* for reading: refused */
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b.r.q[q].drv, sg, 2, 1, 1), 0);
		rig_kick(&b.r, q);
		queue_done(&b, q, 1);
		CU_ASSERT_EQUAL(counter_get(&b.r.dev->counters.malformed), 1);
		balloon_close(&b);
	}
}

static void test_poison(void)
{
	struct ring_sg sg = {DATA, 16 * 4096};
	bool gone[PAGES] = {false};
	uint32_t poison = 0xaaaaaaaa;
	struct balloon b;

	balloon_open(&b, 3, 0);
	pages_touch(&b);
	b.r.dev->ops->config_write(b.r.dev, 12, &poison, 4);
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b.r.q[3].drv, &sg, 0, 1, 1), 0);
	rig_kick(&b.r, 3);
	queue_done(&b, 3, 1);
	check_pages(&b, gone); /* zeros are not what the guest would expect there */
	poison = 0;
	b.r.dev->ops->config_write(b.r.dev, 12, &poison, 4);
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b.r.q[3].drv, &sg, 0, 1, 1), 0);
	rig_kick(&b.r, 3);
	queue_done(&b, 3, 1);
	for (unsigned i = 0; i < 16; i++)
		gone[i] = true;
	check_pages(&b, gone);
	balloon_close(&b);
}

/* ------------------------------------------------------------------ statistics */

static void stats_send(struct balloon *b, uint64_t value, uint32_t len)
{
	struct ring_sg sg = {b->at + 65536, len};
	uint8_t *p = rig_host(&b->r, sg.gpa);

	memset(p, 0xee, 4096);
	for (uint16_t tag = 0; tag < 400; tag++) {
		uint16_t t = tag % 3 ? tag : 0xfff0; /* some are unknown, some left out */
		uint64_t v = value + tag;

		memcpy(p + tag * 10, &t, 2);
		memcpy(p + tag * 10 + 2, &v, 8);
	}
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b->r.q[STATSQ].drv, &sg, 1, 0, 1), 0);
	rig_kick(&b->r, STATSQ);
}

static void stats_wait(struct balloon *b, struct split_balloon_info *info, uint64_t updates)
{
	uint64_t end_ns = clock_now_ns() + RIG_WAIT_MS * 1000000ull;

	/* asked for once each: more would ask for the next ones */
	while (clock_now_ns() < end_ns) {
		usleep(2000);
		split_balloon_info_get(b->r.dev, info);
		if (info->stats_updates >= updates)
			return;
	}
	CU_FAIL("no statistics");
}

static void test_stats(void)
{
	for (unsigned bits = 0; bits < 32; bits += 3) {
		struct split_balloon_info info;
		struct balloon b;

		balloon_open(&b, bits, 0);
		split_balloon_info_get(b.r.dev, &info);
		for (unsigned i = 0; i < SPLIT_BALLOON_STATS; i++)
			CU_ASSERT_EQUAL(info.stats[i], UINT64_MAX);
		/* the wish is there already: it goes back as soon as it comes */
		for (uint64_t round = 1; round < 20; round++) {
			stats_send(&b, round * 1000, round % 5 ? 4000 : 95);
			queue_done(&b, STATSQ, 1);
			stats_wait(&b, &info, round);
			CU_ASSERT_EQUAL(info.stats_updates, round);
			for (unsigned i = 0; i < SPLIT_BALLOON_STATS; i++)
				if (i % 3)
					CU_ASSERT_EQUAL(info.stats[i], round * 1000 + i);
			CU_ASSERT_EQUAL(info.stats[0], UINT64_MAX);
		}
		balloon_close(&b);
	}
}

/* ------------------------------------------------------------------ configuration */

static uint32_t config32(struct balloon *b, uint32_t offset)
{
	uint32_t v = 0;

	b->r.dev->ops->config_read(b->r.dev, offset, &v, sizeof(v));
	return v;
}

static void nothing(void *ctx)
{
	(void)ctx;
}

static void test_config(void)
{
	struct split_balloon_info info;
	struct balloon b;
	uint32_t v = 1234;

	balloon_open(&b, 3, 0);
	CU_ASSERT_EQUAL(config32(&b, 0), 0);
	split_balloon_target_set(b.r.dev, 1000);
	small_until(atomic_load(&b.config_changes));
	CU_ASSERT_EQUAL(atomic_load(&b.config_changes), 1);
	CU_ASSERT_EQUAL(config32(&b, 0), 1000);
	split_balloon_target_set(b.r.dev, 1000);
	io_thread_call(b.r.io, nothing, NULL);
	CU_ASSERT_EQUAL(atomic_load(&b.config_changes), 1);
	split_balloon_target_set(b.r.dev, UINT32_MAX);
	CU_ASSERT_EQUAL(config32(&b, 0), RAM_BYTES / 4096);
	/* the driver writes what it has, whole or in parts, and nothing else */
	b.r.dev->ops->config_write(b.r.dev, 4, &v, 4);
	b.r.dev->ops->config_write(b.r.dev, 0, &v, 4);
	CU_ASSERT_EQUAL(config32(&b, 0), RAM_BYTES / 4096);
	CU_ASSERT_EQUAL(config32(&b, 4), 1234);
	v = 0xff;
	b.r.dev->ops->config_write(b.r.dev, 5, &v, 1);
	CU_ASSERT_EQUAL(config32(&b, 4), (1234 & 0xff) | 0xff00);
	b.r.dev->ops->config_write(b.r.dev, 14, "abcdefgh", 8);
	CU_ASSERT_EQUAL(config32(&b, 12), 0x62610000);
	b.r.dev->ops->config_write(b.r.dev, 0xfffffff8u, "abcdefgh", 8);
	CU_ASSERT_EQUAL(config32(&b, 8), 0);
	CU_ASSERT_EQUAL(config32(&b, 0xfffffffcu), 0);
	split_balloon_info_get(b.r.dev, &info);
	CU_ASSERT_EQUAL(info.target_pages, RAM_BYTES / 4096);
	CU_ASSERT_EQUAL(info.actual_pages, 0xffd2);
	small_reset(&b.r, QUEUES, 64);
	CU_ASSERT_EQUAL(config32(&b, 0), RAM_BYTES / 4096); /* the host still wants it */
	CU_ASSERT_EQUAL(config32(&b, 4), 0);
	CU_ASSERT_EQUAL(config32(&b, 12), 0);
	balloon_close(&b);
}

static void test_options(void)
{
	struct split_balloon_options o = {.pages = 2, .pages_max = 1};
	struct split_device *dev = NULL;
	char why[BACKEND_WHY_MAX] = "";
	struct rig r;

	small_open(&r, 0, 1u << 20);
	CU_ASSERT_EQUAL(split_balloon_create(&dev, r.io, &r.mem, &r.signal, &o, why), -EINVAL);
	o = (struct split_balloon_options){.pages_max = 1, .host_page_bytes = 5000};
	CU_ASSERT_EQUAL(split_balloon_create(&dev, r.io, &r.mem, &r.signal, &o, why), -EINVAL);
	o = (struct split_balloon_options){.pages_max = 1, .ring.queue_size = 2000};
	CU_ASSERT_EQUAL(split_balloon_create(&dev, r.io, &r.mem, &r.signal, &o, why), -EINVAL);
	CU_ASSERT_PTR_NULL(dev);
	o = (struct split_balloon_options){
		.pages_max = 1, .no_reporting = true, .no_stats = true, .no_deflate_on_oom = true};
	CU_ASSERT_EQUAL_FATAL(split_balloon_create(&dev, r.io, &r.mem, &r.signal, &o, why), 0);
	CU_ASSERT_EQUAL(dev->features & 0xff, 0);
	r.dev = dev;
	small_close(&r);
}

/* ------------------------------------------------------------------ move, hostile use */

static void test_move(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		bool gone[PAGES] = {false};
		struct split_balloon_info info;
		uint32_t v = 77, pfns[64];
		struct balloon b;
		struct ring_done done;

		balloon_open(&b, bits, 0);
		pages_touch(&b);
		split_balloon_target_set(b.r.dev, 300);
		b.r.dev->ops->config_write(b.r.dev, 4, &v, 4);
		stats_send(&b, 5000, 4000); /* stays with the device */
		for (unsigned round = 0; round < 6; round++) {
			for (unsigned i = 0; i < 64; i++) {
				pfns[i] = PFN(DATA) + round * 100 + i;
				gone[round * 100 + i] = true;
			}
			pfns_send(&b, INFLATEQ, pfns, 64);
			small_move(&b.r, QUEUES, balloon_create, &b);
			queue_done(&b, INFLATEQ, 1);
		}
		check_pages(&b, gone);
		CU_ASSERT_EQUAL(config32(&b, 0), 300);
		CU_ASSERT_EQUAL(config32(&b, 4), 77);
		/* the new device has read the statistics, and gives the buffer back once, when
		 * asked */
		CU_ASSERT_EQUAL(ring_driver_collect(&b.r.q[STATSQ].drv, &done, 1), 0);
		stats_wait(&b, &info, 1);
		CU_ASSERT_EQUAL(info.stats[1], 5001);
		queue_done(&b, STATSQ, 1);
		CU_ASSERT_EQUAL(atomic_load(&b.r.broken), 0);
		balloon_close(&b);
	}
}

static void test_load_hostile(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	struct balloon b;

	balloon_open(&b, 3, 0);
	split_quiesce_wait(b.r.dev);
	state_section_begin(&w, "virtio-balloon", 1);
	state_put_u32(&w, RAM_BYTES / 4096 + 1);
	state_put_u32(&w, 0);
	state_put_u32(&w, 0);
	state_section_end(&w);
	state_reader_init(&r, w.data, w.len);
	split_load(b.r.dev, &r);
	CU_ASSERT_EQUAL(r.error, -EINVAL);
	CU_ASSERT_EQUAL(config32(&b, 0), 0);
	state_writer_free(&w);
	balloon_close(&b);
}

static void test_hostile(void)
{
	for (unsigned bits = 0; bits < 16; bits++) {
		static uint32_t pfns[5000];
		bool gone[PAGES] = {false};
		struct ring_sg sg[2];
		struct balloon b;
		uint64_t malformed = 0;

		balloon_open(&b, bits, 0);
		pages_touch(&b);
		/* not the guest's memory; one of them is */
		pfns[0] = 0;
		pfns[1] = UINT32_MAX;
		pfns[2] = PFN(RIG_GPA) - 1;
		pfns[3] = PFN(RIG_GPA + RAM_BYTES);
		pfns[4] = PFN(DATA) + 7;
		gone[7] = true;
		pfns_send(&b, INFLATEQ, pfns, 5);
		queue_done(&b, INFLATEQ, 1);
		malformed += 4;
		CU_ASSERT_EQUAL(counter_get(&b.r.dev->counters.malformed), malformed);
		/* more than one request may ask for */
		for (unsigned i = 0; i < 5000; i++)
			pfns[i] = PFN(DATA) + (i < 4096 ? 20 + i % 10 : 500);
		for (unsigned i = 20; i < 30; i++)
			gone[i] = true;
		pfns_send(&b, INFLATEQ, pfns, 5000);
		queue_done(&b, INFLATEQ, 1);
		malformed++;
		CU_ASSERT_EQUAL(counter_get(&b.r.dev->counters.malformed), malformed);
		check_pages(&b, gone);
		/* no numbers at all, and a number and a half */
		sg[0] = sg[1] = (struct ring_sg){b.at, 64};
		memset(rig_host(&b.r, b.at), 0, 64);
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b.r.q[INFLATEQ].drv, sg, 0, 1, 1), 0);
		rig_kick(&b.r, INFLATEQ);
		queue_done(&b, INFLATEQ, 1);
		sg[0].len = 6;
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b.r.q[INFLATEQ].drv, sg, 1, 0, 1), 0);
		rig_kick(&b.r, INFLATEQ);
		queue_done(&b, INFLATEQ, 1);
		malformed += 2;
		CU_ASSERT_EQUAL(counter_get(&b.r.dev->counters.malformed), malformed);
		CU_ASSERT_EQUAL(atomic_load(&b.r.broken), 0);
		check_pages(&b, gone);
		sg[0] = (struct ring_sg){DATA + RAM_BYTES, 4096};
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b.r.q[REPORTINGQ].drv, sg, 0, 1, 1), 0);
		rig_kick(&b.r, REPORTINGQ);
		small_until(atomic_load(&b.r.broken));
		CU_ASSERT_EQUAL(atomic_load(&b.r.broken), 1);
		balloon_close(&b);
	}
}

/* A queue that means nothing is full, statistics come in plenty: the thread sleeps all the same. */
static void test_idle(void)
{
	for (unsigned bits = 0; bits < 32; bits += 8) {
		struct io_thread_counters x, y;
		struct ring_sg sg = {0};
		struct balloon b;

		balloon_open(&b, bits, VIRTIO_BIT(F_REPORTING));
		sg = (struct ring_sg){b.at, 40};
		for (unsigned i = 0; i < 10; i++) {
			ring_driver_add(&b.r.q[STATSQ].drv, &sg, 1, 0, i);
			ring_driver_add(&b.r.q[FREEPAGEQ].drv, &sg, 1, 0, i);
			ring_driver_add(&b.r.q[REPORTINGQ].drv, &sg, 0, 1, i);
		}
		rig_kick(&b.r, STATSQ);
		rig_kick(&b.r, FREEPAGEQ);
		rig_kick(&b.r, REPORTINGQ);
		for (unsigned n = 0; n < 40; n++) {
			io_thread_counters_get(b.r.io, &x);
			usleep(100000);
			io_thread_counters_get(b.r.io, &y);
			if (x.system_calls == y.system_calls && x.cpu_ns == y.cpu_ns)
				break;
		}
		CU_ASSERT_EQUAL(x.sleeps, y.sleeps);
		CU_ASSERT_EQUAL(x.cpu_ns, y.cpu_ns);
		balloon_close(&b);
	}
}

static void test_dirty(void)
{
	for (unsigned layout = 0; layout < 2; layout++) {
		uint32_t pfns[3] = {PFN(DATA) + 5, PFN(DATA) + 6, PFN(DATA) + 900};
		struct ring_sg sg = {DATA + 100 * 4096, 2 * 4096};
		struct balloon b;

		balloon_open(&b, layout ? 8 : 0, 0);
		pages_touch(&b);
		small_dirty_log(&b.r, QUEUES);
		pfns_send(&b, INFLATEQ, pfns, 3);
		queue_done(&b, INFLATEQ, 1);
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&b.r.q[3].drv, &sg, 0, 1, 1), 0);
		rig_kick(&b.r, 3);
		queue_done(&b, 3, 1);
		split_quiesce_wait(b.r.dev);
		for (unsigned i = 0; i < PAGES; i++)
			CU_ASSERT_EQUAL(rig_page_dirty(&b.r, DATA + i * 4096ull),
				i == 5 || i == 6 || i == 900 || i == 100 || i == 101);
		balloon_close(&b);
	}
}

static const struct unit_case cases[] = {
	{"inflate and deflate", test_inflate},
	{"other kinds of memory", test_other_memory},
	{"free page reporting", test_reporting},
	{"poisoned pages", test_poison},
	{"statistics", test_stats},
	{"configuration", test_config},
	{"options", test_options},
	{"moved in mid-operation", test_move},
	{"hostile state", test_load_hostile},
	{"hostile requests", test_hostile},
	{"idle", test_idle},
	{"dirty pages", test_dirty},
};

UNIT_MAIN("split_balloon", cases)
