/* SPDX-License-Identifier: BSD-2-Clause */
/* The console, the entropy device and the balloon as a guest finds them on PCI, and what the
 * machine's owner asks of them. */
#include <errno.h>

#include "tests/unit/test_virtio_pci_rig.h"

static char why[VMM_WHY_MAX];
static atomic_uint out_room;
static uint8_t out_bytes[4096];
static atomic_uint out_n;

static size_t output(void *ctx, const uint8_t *bytes, size_t n)
{
	unsigned room = atomic_load(&out_room), at = atomic_load(&out_n);

	(void)ctx;
	if (n > room)
		n = room;
	if (n > sizeof(out_bytes) - at)
		n = sizeof(out_bytes) - at;
	memcpy(out_bytes + at, bytes, n);
	atomic_fetch_sub(&out_room, (unsigned)n); /* the test may have made room meanwhile */
	atomic_store(&out_n, at + (unsigned)n);
	return n;
}

static void hvc(struct rig *r)
{
	atomic_store(&out_room, 0);
	atomic_store(&out_n, 0);
	r->cfg.hvc.on = true;
	r->cfg.hvc.output = output;
}

/* One request of one segment, which the device reads or writes. */
static void request(struct rig *r, unsigned q, uint64_t gpa, uint32_t len, bool in)
{
	struct ring_sg sg = {gpa, len};

	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&r->queues[q].drv, &sg, !in, in, 1), 0);
	rig_kick(r, q);
}

static void start(struct rig *r, unsigned queues)
{
	CU_ASSERT_FATAL(rig_negotiate(r, rig_offered(r) & ~VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)));
	for (unsigned q = 0; q < queues; q++)
		CU_ASSERT_FATAL(rig_queue_set(r, q, 8));
	rig_status_set(r, 0xf);
	rig_msix(r, 3);
	rig_write(r, r->common + C_MSIX, 2, 2);
}

static void test_identity(void)
{
	static const uint32_t want[][2] = {
		{0x10431af4, 0x078000}, {0x10441af4, 0x00ff00}, {0x10451af4, 0x00ff00}};
	unsigned found = 0;
	struct rig r;

	rig_init(&r);
	hvc(&r);
	r.cfg.rng.on = r.cfg.balloon.on = true;
	CU_ASSERT_FATAL(rig_create(&r));
	for (r.slot = 0; r.slot < 32; r.slot++) {
		if (rig_config_read(&r, 0, 2) != 0x1af4)
			continue;
		if (found == 3) {
			CU_FAIL("one device too many");
			break;
		}
		CU_ASSERT_EQUAL(rig_config_read(&r, 0, 4), want[found][0]);
		CU_ASSERT_EQUAL(rig_config_read(&r, 8, 4) >> 8, want[found][1]);
		r.bar = rig_config_read(&r, 0x20, 4) & ~15u;
		rig_capabilities(&r);
		/* the entropy device has no configuration, and says so by having no capability */
		CU_ASSERT_EQUAL(r.device != 0, found != 1);
		found++;
	}
	CU_ASSERT_EQUAL(found, 3);
	CU_ASSERT_EQUAL(machine_devices(r.m), 3);
	for (unsigned i = 0; i < 3; i++) {
		struct device_report report;

		machine_device_report(r.m, i, &report);
		CU_ASSERT_STRING_EQUAL(report.kind, "other");
		CU_ASSERT_PTR_NOT_NULL(report.counters);
	}
	rig_destroy(&r);
}

static void test_rng(void)
{
	static const uint8_t zeros[16];
	uint32_t len = 0;
	uint64_t gpa;
	struct rig r;

	rig_init(&r);
	r.cfg.rng.on = true;
	CU_ASSERT_FATAL(rig_create(&r));
	start(&r, 1);
	gpa = rig_alloc(&r, 4096);
	request(&r, 0, gpa, 16, true);
	CU_ASSERT_EQUAL(rig_done(&r, 0, &len), 1);
	CU_ASSERT_EQUAL(len, 16);
	CU_ASSERT_NOT_EQUAL(memcmp(rig_host(&r, gpa, 16), zeros, 16), 0);
	CU_ASSERT_EQUAL(machine_hvc_input(r.m, zeros, 5), 0); /* there is none */
	machine_hvc_resize(r.m, 80, 25);
	machine_hvc_resume(r.m);
	rig_destroy(&r);
}

/* A line is half out when the machine is saved; the other half comes from the one it is loaded
 * into. */
static void test_console(void)
{
	struct state_writer w = {0};
	struct state_reader rd;
	struct rig r;
	uint64_t tx, rx;
	uint32_t len = 0;
	struct machine *old;
	uint8_t *memory;

	rig_init(&r);
	hvc(&r);
	CU_ASSERT_FATAL(rig_create(&r));
	start(&r, 2);
	tx = rig_alloc(&r, 4096);
	rx = rig_alloc(&r, 4096);
	/* input, with and without a buffer waiting */
	CU_ASSERT_EQUAL(machine_hvc_input(r.m, (const uint8_t *)"one", 3), 3);
	request(&r, 0, rx, 64, true);
	CU_ASSERT_EQUAL(rig_done(&r, 0, &len), 1);
	CU_ASSERT_EQUAL(len, 3);
	CU_ASSERT_EQUAL(memcmp(rig_host(&r, rx, 3), "one", 3), 0);
	/* a terminal of another size is an interrupt, and new numbers */
	machine_hvc_resize(r.m, 132, 50);
	CU_ASSERT(RIG_WAIT(atomic_load(&r.msi[2]) == 1));
	CU_ASSERT_EQUAL(rig_read(&r, r.device, 4), 132 | 50 << 16);

	memcpy(rig_host(&r, tx, 12), "hello, world", 12);
	atomic_store(&out_room, 5);
	request(&r, 1, tx, 12, false);
	CU_ASSERT(RIG_WAIT(atomic_load(&out_n) == 5));
	CU_ASSERT_EQUAL(machine_hvc_input(r.m, (const uint8_t *)"two", 3), 3);
	CU_ASSERT_EQUAL(machine_pause(r.m), 0);
	CU_ASSERT_EQUAL_FATAL(machine_save(r.m, &w), 0);
	old = r.m;
	r.m = NULL;
	r.cfg.hvc.cols = 132;
	r.cfg.hvc.rows = 50;
	CU_ASSERT_FATAL(rig_create(&r));
	memory = ring_mem_translate(machine_memory(r.m), 0, RIG_MEMORY, RING_WRITE);
	memcpy(memory, ring_mem_translate(machine_memory(old), 0, RIG_MEMORY, RING_READ),
		RIG_MEMORY);
	machine_destroy(old);
	state_reader_init(&rd, w.data, w.len);
	CU_ASSERT_EQUAL_FATAL(machine_load(r.m, &rd, why), 0);
	state_writer_free(&w);
	atomic_store(&out_room, 100);
	machine_hvc_resume(r.m);
	CU_ASSERT(RIG_WAIT(atomic_load(&out_n) == 12));
	CU_ASSERT_EQUAL(memcmp(out_bytes, "hello, world", 12), 0);
	rig_destroy(&r);
}

static void test_balloon(void)
{
	struct split_balloon_info info;
	uint64_t gpa, page;
	uint32_t pfn;
	struct rig r;

	rig_init(&r);
	r.cfg.balloon = (struct balloon_config){.on = true, .size = 1 << 20};
	CU_ASSERT_FATAL(rig_create(&r));
	start(&r, 2);
	CU_ASSERT_EQUAL(rig_read(&r, r.device, 4), 256);
	CU_ASSERT_EQUAL(machine_balloon_set(r.m, 2 << 20, why), 0);
	CU_ASSERT(RIG_WAIT(atomic_load(&r.msi[2]) == 1));
	CU_ASSERT_EQUAL(rig_read(&r, r.device, 4), 512);
	CU_ASSERT_EQUAL(machine_balloon_set(r.m, 4097, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "multiple of 4K"));
	CU_ASSERT_EQUAL(machine_balloon_set(r.m, RIG_MEMORY, why), -EINVAL);
	CU_ASSERT_EQUAL(machine_balloon_set(r.m, UINT64_MAX - 4095, why), -EINVAL);
	CU_ASSERT_EQUAL(rig_read(&r, r.device, 4), 512);

	gpa = rig_alloc(&r, 4096);
	page = rig_alloc(&r, 4096);
	memset(rig_host(&r, page, 4096), 7, 4096);
	pfn = (uint32_t)(page / 4096);
	memcpy(rig_host(&r, gpa, 4), &pfn, 4);
	request(&r, 0, gpa, 4, false);
	CU_ASSERT_EQUAL(rig_done(&r, 0, NULL), 1);
	CU_ASSERT_EQUAL(*(uint8_t *)rig_host(&r, page, 1), 0);
	rig_write(&r, r.device + 4, 1, 4);
	CU_ASSERT_EQUAL(machine_balloon_get(r.m, &info), 0);
	CU_ASSERT_EQUAL(info.target_pages, 512);
	CU_ASSERT_EQUAL(info.actual_pages, 1);
	CU_ASSERT_EQUAL(info.released, 4096);
	rig_destroy(&r);
}

static void refused(struct rig *r, const char *pattern)
{
	struct machine *m = NULL;

	CU_ASSERT_EQUAL(machine_create(&m, &r->cfg, why), -EINVAL);
	CU_ASSERT_PTR_NULL(m);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, pattern));
}

static void test_refused(void)
{
	struct split_balloon_info info;
	struct rig r;

	rig_init(&r);
	r.cfg.balloon = (struct balloon_config){.on = true, .size = RIG_MEMORY};
	refused(&r, "the guest has 32M in all");
	r.cfg.balloon.size = 1000;
	refused(&r, "multiple of 4K");
	r.cfg.balloon.size = 0;
	rig_disk(&r, false, 1);
	r.cfg.disks[0].registered_memory = true;
	refused(&r, "registered=on");
	r.cfg.balloon.on = false;
	r.cfg.disks[0].registered_memory = false;
	r.cfg.rng = (struct rng_config){.on = true, .rate = UINT64_MAX};
	refused(&r, "--rng rate=");
	r.cfg.rng.on = false;
	CU_ASSERT_FATAL(rig_create(&r));
	CU_ASSERT_EQUAL(machine_balloon_set(r.m, 4096, why), -ENODEV);
	CU_ASSERT_EQUAL(machine_balloon_get(r.m, &info), -ENODEV);
	rig_destroy(&r);
}

static const struct unit_case cases[] = {
	{"identity", test_identity},
	{"entropy", test_rng},
	{"console, moved in mid-line", test_console},
	{"balloon", test_balloon},
	{"refused", test_refused},
};

UNIT_MAIN("machine_others", cases)
