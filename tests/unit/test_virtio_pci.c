/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio PCI transport, driven by its registers alone: virtio 1.2 sections 3.1 and 4.1. */
#include "tests/unit/test_virtio_pci_rig.h"

static struct rig rig;

/* ------------------------------------------------------------------ identity and registers */

static void identity(void)
{
	struct rig *r = &rig;

	rig_init(r);
	rig_disk(r, false, 3);
	CU_ASSERT_FATAL(rig_create(r));
	CU_ASSERT_EQUAL(rig_config_read(r, 0, 4), 0x10421af4);
	CU_ASSERT_EQUAL(rig_config_read(r, 8, 4), 0x01000001);
	CU_ASSERT_EQUAL(rig_config_read(r, 0x2c, 2), 0x1af4);
	CU_ASSERT(rig_config_read(r, 0x2e, 2) >= 0x40);
	CU_ASSERT_EQUAL(rig_config_read(r, 0x3d, 1), 1);
	CU_ASSERT(r->common && r->isr && r->device && r->notify && r->window && r->msix_cap);
	CU_ASSERT_EQUAL(r->notify_step, 4);
	/* one vector for each queue and one for the configuration */
	CU_ASSERT_EQUAL((rig_config_read(r, r->msix_cap + 2, 2) & 0x7ff) + 1, 4);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_NQUEUES, 2), 3);
	for (unsigned q = 0; q < 3; q++) {
		rig_write(r, r->common + C_QSELECT, q, 2);
		CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 256);
		CU_ASSERT_EQUAL(rig_read(r, r->common + C_QNOTIFY, 2), q);
		CU_ASSERT_EQUAL(rig_read(r, r->common + C_QMSIX, 2), 0xffff);
		CU_ASSERT_EQUAL(rig_read(r, r->common + C_QENABLE, 2), 0);
	}
	/* 5.2.4: capacity */
	CU_ASSERT_EQUAL(rig_read(r, r->device, 8), RIG_DISK / 512);
	CU_ASSERT_EQUAL(rig_read(r, r->device, 4), RIG_DISK / 512);
	rig_destroy(r);

	rig_init(r);
	rig_net(r, false);
	CU_ASSERT_FATAL(rig_create(r));
	CU_ASSERT_EQUAL(rig_config_read(r, 0, 4), 0x10411af4);
	CU_ASSERT_EQUAL(rig_config_read(r, 8, 4), 0x02000001);
	rig_destroy(r);
}

static void negotiation(void)
{
	struct rig *r = &rig;
	uint64_t offered;

	rig_init(r);
	rig_disk(r, false, 1);
	CU_ASSERT_FATAL(rig_create(r));
	offered = rig_offered(r);
	CU_ASSERT((offered & VIRTIO_BIT(VIRTIO_F_VERSION_1)) != 0);
	CU_ASSERT((offered & VIRTIO_BIT(VIRTIO_F_EVENT_IDX)) != 0);
	CU_ASSERT((offered & VIRTIO_BIT(VIRTIO_F_RING_PACKED)) == 0);
	/* beyond the second window there is nothing */
	rig_write(r, r->common + C_DFSELECT, 2, 4);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_DF, 4), 0);
	rig_write(r, r->common + C_DFSELECT, 0xffffffff, 4);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_DF, 4), 0);

	/* refused: without VERSION_1, with a bit that was not offered */
	CU_ASSERT_FALSE(rig_negotiate(r, offered & ~VIRTIO_BIT(VIRTIO_F_VERSION_1)));
	CU_ASSERT_EQUAL(rig_status(r), 3);
	CU_ASSERT_FALSE(rig_negotiate(r, offered | VIRTIO_BIT(VIRTIO_F_RING_PACKED)));
	CU_ASSERT_FALSE(rig_negotiate(r, offered | 1ull << 63));
	/* DRIVER_OK without FEATURES_OK is not taken */
	rig_status_set(r, 7);
	CU_ASSERT_EQUAL(rig_status(r), 3);
	/* after a refusal the driver may ask for less */
	rig_accept(r, offered);
	rig_status_set(r, 0xb);
	CU_ASSERT_EQUAL(rig_status(r), 0xb);
	/* and then they are settled */
	rig_accept(r, 0);
	rig_write(r, r->common + C_GFSELECT, 1, 4);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_GF, 4), offered >> 32);
	rig_destroy(r);
}

static void queue_registers(void)
{
	struct rig *r = &rig;
	static const unsigned bad[] = {0, 3, 255, 257, 512, 0xffff};

	rig_init(r);
	rig_disk(r, true, 2);
	CU_ASSERT_FATAL(rig_create(r));
	CU_ASSERT(rig_negotiate(r, VIRTIO_BIT(VIRTIO_F_VERSION_1)));
	rig_write(r, r->common + C_QSELECT, 1, 2);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		rig_write(r, r->common + C_QSIZE, bad[i], 2);
		CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 256);
	}
	rig_write(r, r->common + C_QSIZE, 64, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 64);
	/* packed: any size up to the largest */
	CU_ASSERT(rig_negotiate(
		r, VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_PACKED)));
	rig_write(r, r->common + C_QSELECT, 1, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 256);
	rig_write(r, r->common + C_QSIZE, 7, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 7);
	rig_write(r, r->common + C_QSIZE, 257, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 7);
	/* vectors out of range read back as none */
	rig_write(r, r->common + C_QMSIX, 2, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QMSIX, 2), 2);
	rig_write(r, r->common + C_QMSIX, 3, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QMSIX, 2), 0xffff);
	rig_write(r, r->common + C_MSIX, 9, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_MSIX, 2), 0xffff);
	/* a queue that is not there */
	rig_write(r, r->common + C_QSELECT, 2, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 0);
	rig_write(r, r->common + C_QENABLE, 1, 2);
	rig_write(r, r->common + C_QDESC, ~0ull, 8);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QDESC, 8), 0);
	rig_destroy(r);
}

static void odd_accesses(void)
{
	struct rig *r = &rig;

	rig_init(r);
	rig_disk(r, false, 1);
	CU_ASSERT_FATAL(rig_create(r));
	CU_ASSERT(rig_negotiate(r, rig_offered(r)));
	rig_write(r, r->common + C_QDESC, 0x1122334455667788, 8);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QDESC, 8), 0x1122334455667788);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QDESC + 4, 4), 0x11223344);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QDESC + 3, 2), 0x4455);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QDESC + 7, 1), 0x11);
	/* part of a field: left alone */
	rig_write(r, r->common + C_QDESC, 0xff, 1);
	rig_write(r, r->common + C_QDESC + 2, 0xffff, 2);
	rig_write(r, r->common + C_QSIZE, 0x10, 1);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QDESC, 8), 0x1122334455667788);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 256);
	/* several fields at once: all that are covered */
	rig_write(r, r->common + C_QSIZE, 0x00000040, 4);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 64);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QMSIX, 2), 0);
	/* read-only and beyond */
	rig_write(r, r->common + C_NQUEUES, 7, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_NQUEUES, 2), 1);
	for (unsigned size = 1; size <= 8; size *= 2)
		for (uint64_t at = 0; at < 0x4000; at += at % 0x1000 < 0x80 ? 1 : 61)
			(void)rig_read(r, r->bar + at, size);
	CU_ASSERT_EQUAL(rig_read(r, r->common + 0x200, 4), 0);
	CU_ASSERT_EQUAL(rig_read(r, r->device + 0xf00, 4), 0);
	CU_ASSERT_EQUAL(rig_read(r, r->notify, 4), 0);
	CU_ASSERT_EQUAL(rig_read(r, r->bar + 0x3ffc, 8), 0xffffffff00000000);
	rig_write(r, r->device + 0x800, ~0ull, 8);
	rig_write(r, r->bar + 0x1fff, ~0ull, 8);
	CU_ASSERT_EQUAL(rig_status(r), 0xb);
	rig_destroy(r);
}

/* 4.1.4.9: the device through its configuration space. */
static uint32_t window_read(struct rig *r, unsigned bar, uint32_t offset, uint32_t len)
{
	rig_config_write(r, r->window + 4, bar, 1);
	rig_config_write(r, r->window + 8, offset, 4);
	rig_config_write(r, r->window + 12, len, 4);
	return rig_config_read(r, r->window + 16, len == 1 || len == 2 ? len : 4);
}

static void window(void)
{
	struct rig *r = &rig;
	uint32_t common;

	rig_init(r);
	rig_disk(r, false, 1);
	CU_ASSERT_FATAL(rig_create(r));
	common = (uint32_t)(r->common - r->bar);
	CU_ASSERT_EQUAL(window_read(r, 4, common + C_NQUEUES, 2), 1);
	CU_ASSERT_EQUAL(window_read(r, 4, common + C_STATUS, 1), 0);
	rig_config_write(r, r->window + 16, 1, 1);
	CU_ASSERT_EQUAL(rig_status(r), 1);
	CU_ASSERT_EQUAL(window_read(r, 4, common + C_STATUS, 1), 1);
	CU_ASSERT_EQUAL(window_read(r, 4, common + C_DFSELECT, 4), 0);
	rig_config_write(r, r->window + 16, 1, 4);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_DFSELECT, 4), 1);
	/* windows that show nothing */
	(void)window_read(r, 0, common, 4);
	rig_config_write(r, r->window + 16, 0x55, 4);
	(void)window_read(r, 5, 0, 4);
	rig_config_write(r, r->window + 16, 0x55, 4);
	(void)window_read(r, 4, common, 3);
	rig_config_write(r, r->window + 16, 0x55, 4);
	(void)window_read(r, 4, common, 0);
	rig_config_write(r, r->window + 16, 0x55, 4);
	(void)window_read(r, 4, common + 2, 4);
	rig_config_write(r, r->window + 16, 0x55, 4);
	(void)window_read(r, 4, 0xfffffffc, 4);
	rig_config_write(r, r->window + 16, 0x55, 4);
	(void)window_read(r, 4, 0x4000, 1);
	rig_config_write(r, r->window + 16, 0x55, 1);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_DFSELECT, 4), 1);
	CU_ASSERT_EQUAL(rig_status(r), 1);
	rig_destroy(r);
}

/* ------------------------------------------------------------------ transfers */

static void transfer(bool packed, bool msix)
{
	struct rig *r = &rig;
	struct rig_blk b;
	uint32_t len = 0;

	CU_ASSERT_FATAL(rig_blk_up(r, packed, msix));
	for (unsigned i = 0; i < 300; i++) {
		b = rig_blk_add(r, 0, RIG_BLK_IN, i * 8, 4096, i);
		rig_kick(r, 0);
		CU_ASSERT_EQUAL_FATAL(rig_done(r, 0, &len), i);
		CU_ASSERT_EQUAL(len, 4097);
		CU_ASSERT_EQUAL(rig_blk_status(r, &b), 0);
		CU_ASSERT(rig_blk_holds(r, &b, i * 8));
		r->heap = b.header;
	}
	b = rig_blk_add(r, 0, RIG_BLK_OUT, 16, 4096, 1000);
	memset(rig_host(r, b.data, 4096), 0xa5, 4096);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 1000);
	CU_ASSERT_EQUAL(rig_blk_status(r, &b), 0);
	b = rig_blk_add(r, 0, RIG_BLK_IN, 16, 512, 1001);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 1001);
	CU_ASSERT_EQUAL(*(uint8_t *)rig_host(r, b.data, 1), 0xa5);
}

static void transfer_msix(void)
{
	for (int packed = 0; packed < 2; packed++) {
		struct rig *r = &rig;
		unsigned before;

		transfer(packed, true);
		/* with an interrupt asked for, it comes on the queue's vector */
		before = atomic_load(&r->msi[1]);
		CU_ASSERT_FALSE(ring_driver_interrupt_on(&r->queues[0].drv, 1));
		rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 1);
		rig_kick(r, 0);
		CU_ASSERT(RIG_WAIT(atomic_load(&r->msi[1]) > before));
		CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 1);
		CU_ASSERT_EQUAL(atomic_load(&r->msi[0]), 0);
		CU_ASSERT_EQUAL(atomic_load(&r->line_rises), 0);
		CU_ASSERT_EQUAL(rig_read(r, r->isr, 1), 0);
		rig_destroy(r);
	}
}

static void transfer_intx(void)
{
	for (int packed = 0; packed < 2; packed++) {
		struct rig *r = &rig;

		transfer(packed, false);
		(void)rig_read(r, r->isr, 1);
		CU_ASSERT_FALSE(atomic_load(&r->line));
		CU_ASSERT_FALSE(ring_driver_interrupt_on(&r->queues[0].drv, 1));
		rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 1);
		rig_kick(r, 0);
		CU_ASSERT(RIG_WAIT(atomic_load(&r->line)));
		CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 1);
		/* reading clears and lowers */
		CU_ASSERT_EQUAL(rig_read(r, r->isr, 1), 1);
		CU_ASSERT_FALSE(atomic_load(&r->line));
		CU_ASSERT_EQUAL(rig_read(r, r->isr, 1), 0);
		rig_destroy(r);
	}
}

/* Queues are started one after the other, by a vCPU that holds the device's lock and waits for the
 * I/O thread; the first already interrupts by INTx, which needs that lock. Nobody may hang. */
static void start_while_interrupting(void)
{
	struct rig *r = &rig;

	rig_init(r);
	rig_disk(r, false, RIG_QUEUES);
	CU_ASSERT_FATAL(rig_create(r));
	for (unsigned round = 0; round < 200; round++) {
		r->heap = RIG_HEAP;
		CU_ASSERT_FATAL(rig_negotiate(r, VIRTIO_BIT(VIRTIO_F_VERSION_1)));
		for (unsigned q = 0; q < RIG_QUEUES; q++)
			CU_ASSERT_FATAL(rig_queue_set(r, q, 32));
		for (unsigned i = 0; i < 8; i++)
			rig_blk_add(r, 0, RIG_BLK_IN, i, 512, i);
		ring_driver_publish(&r->queues[0].drv);
		rig_status_set(r, 0xf);
		for (unsigned i = 0; i < 8; i++)
			CU_ASSERT(rig_done(r, 0, NULL) >= 0);
		CU_ASSERT(RIG_WAIT(atomic_load(&r->line)));
	}
	rig_destroy(r);
}

/* The doorbell goes where the BAR goes; with decoding off nothing answers. */
static void bar_moves(void)
{
	struct rig *r = &rig;
	uint64_t old;

	CU_ASSERT_FATAL(rig_blk_up(r, false, false));
	old = r->bar;
	rig_config_write(r, 0x20, 0xe0000000, 4);
	rig_capabilities(r);
	CU_ASSERT_EQUAL(rig_read(r, old + C_STATUS, 1), 0xff);
	r->bar = rig_config_read(r, 0x20, 4) & ~15u;
	CU_ASSERT_EQUAL(r->bar, 0xe0000000);
	rig_capabilities(r);
	CU_ASSERT_EQUAL(rig_status(r), 0xf);
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 1);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 1);
	rig_config_write(r, 4, rig_config_read(r, 4, 2) & ~2u, 2);
	CU_ASSERT_EQUAL(rig_status(r), 0xff);
	rig_config_write(r, 4, rig_config_read(r, 4, 2) | 2, 2);
	CU_ASSERT_EQUAL(rig_status(r), 0xf);
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 2);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 2);
	/* the doorbell also rings through the window */
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 3);
	ring_driver_publish(&r->queues[0].drv);
	rig_config_write(r, r->window + 4, 4, 1);
	rig_config_write(r, r->window + 8, (uint32_t)(r->notify - r->bar), 4);
	rig_config_write(r, r->window + 12, 2, 4);
	rig_config_write(r, r->window + 16, 0, 2);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 3);
	rig_destroy(r);
}

/* ------------------------------------------------------------------ reset */

static void reset_in_flight(void)
{
	struct rig *r = &rig;

	for (int packed = 0; packed < 2; packed++) {
		struct rig_blk b;

		CU_ASSERT_FATAL(rig_blk_up(r, packed, true));
		for (unsigned round = 0; round < 20; round++) {
			r->heap = RIG_HEAP + (8u << 20);
			for (unsigned i = 0; i < 32; i++)
				rig_blk_add(r, 0, RIG_BLK_IN, i * 32, 16384, i);
			rig_kick(r, 0);
			rig_status_set(r, 0);
			/* until it is done nothing else can be changed; once it is, this is a new
			 * beginning */
			rig_status_set(r, 1);
			CU_ASSERT(RIG_WAIT(rig_status(r) <= 1));
			rig_status_set(r, 0);
			CU_ASSERT(RIG_WAIT(rig_status(r) == 0));
			CU_ASSERT(rig_negotiate(r, rig_offered(r) & RIG_RING_FEATURES));
			r->heap = RIG_HEAP;
			CU_ASSERT(rig_queue_set(r, 0, 128));
			rig_status_set(r, 0xf);
		}
		b = rig_blk_add(r, 0, RIG_BLK_IN, 8, 512, 7);
		rig_kick(r, 0);
		CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 7);
		CU_ASSERT(rig_blk_holds(r, &b, 8));
		rig_destroy(r);
	}
}

/* ------------------------------------------------------------------ hostile drivers */

static bool live_again(struct rig *r)
{
	if (!rig_negotiate(r, rig_offered(r) & RIG_RING_FEATURES) || !rig_queue_set(r, 0, 128))
		return false;
	rig_status_set(r, 0xf);
	if (rig_status(r) != 0xf)
		return false;
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 77);
	rig_kick(r, 0);
	return rig_done(r, 0, NULL) == 77;
}

static void hostile_areas(void)
{
	static const uint64_t bad[] = {0, RIG_MEMORY, RIG_MEMORY - 2, 1, 0xfffffffffffff000,
		0xffffffffffffffff, 0xc0000000, 0x100000000};
	struct rig *r = &rig;

	for (int packed = 0; packed < 2; packed++) {
		CU_ASSERT_FATAL(rig_blk_up(r, packed, false));
		for (size_t i = 0; i < 3 * sizeof(bad) / sizeof(bad[0]); i++) {
			uint64_t areas[3] = {RIG_HEAP, RIG_HEAP + 8192, RIG_HEAP + 16384};

			areas[i % 3] = bad[i / 3];
			/* address 0 is memory like any other */
			if (!bad[i / 3])
				continue;
			CU_ASSERT(rig_negotiate(r, rig_offered(r) & RIG_RING_FEATURES));
			rig_queue_areas(r, 0, areas[0], areas[1], areas[2], 128);
			rig_write(r, r->common + C_QENABLE, 1, 2);
			CU_ASSERT_EQUAL(rig_read(r, r->common + C_QENABLE, 2), 1);
			CU_ASSERT_EQUAL(rig_status(r), 0xb);
			rig_status_set(r, 0xf);
			CU_ASSERT_EQUAL(rig_status(r), 0x4f);
			/* told as a configuration change */
			CU_ASSERT_EQUAL(rig_read(r, r->isr, 1) & 2, 2);
			rig_write(r, r->notify, 0, 2);
		}
		r->heap = RIG_HEAP;
		CU_ASSERT(live_again(r));
		rig_destroy(r);
	}
}

static void off_queues(void)
{
	struct rig *r = &rig;

	rig_init(r);
	rig_disk(r, false, 2);
	CU_ASSERT_FATAL(rig_create(r));
	/* doorbells of a device nobody has set up, of queues that are off or not there */
	for (unsigned q = 0; q < 1024; q++)
		rig_write(r, r->notify + 4 * q, q, q & 1 ? 2 : 4);
	CU_ASSERT(rig_negotiate(r, rig_offered(r) & RIG_RING_FEATURES));
	CU_ASSERT(rig_queue_set(r, 1, 16));
	/* enabled, but the driver is not ready: nothing is taken */
	rig_blk_add(r, 1, RIG_BLK_IN, 0, 512, 1);
	rig_kick(r, 1);
	usleep(20000);
	CU_ASSERT_FALSE(ring_driver_has_done(&r->queues[1].drv));
	rig_status_set(r, 0xf);
	CU_ASSERT_EQUAL(rig_done(r, 1, NULL), 1);
	/* an enabled queue's registers stay as they are */
	rig_write(r, r->common + C_QSELECT, 1, 2);
	rig_write(r, r->common + C_QSIZE, 8, 2);
	rig_write(r, r->common + C_QDESC, 0, 8);
	rig_write(r, r->common + C_QENABLE, 0, 2);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QSIZE, 2), 16);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QDESC, 8), r->queues[1].gpa);
	CU_ASSERT_EQUAL(rig_read(r, r->common + C_QENABLE, 2), 1);
	rig_write(r, r->notify, 0, 2);
	/* a queue that comes late */
	CU_ASSERT(rig_queue_set(r, 0, 16));
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 2);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 2);
	rig_destroy(r);
}

static void malformed_ring(void)
{
	struct rig *r = &rig;

	for (int packed = 0; packed < 2; packed++) {
		struct ring_sg sg = {.gpa = 0xdead0000000, .len = 64};
		unsigned generation;

		CU_ASSERT_FATAL(rig_blk_up(r, packed, true));
		generation = (unsigned)rig_read(r, r->common + C_GENERATION, 1);
		CU_ASSERT_EQUAL(ring_driver_add(&r->queues[0].drv, &sg, 1, 0, 1), 0);
		rig_kick(r, 0);
		CU_ASSERT(RIG_WAIT(rig_status(r) & 0x40));
		CU_ASSERT(RIG_WAIT(atomic_load(&r->msi[0]) == 1));
		CU_ASSERT(rig_read(r, r->common + C_GENERATION, 1) != generation);
		rig_write(r, r->notify, 0, 2);
		/* only a reset heals */
		rig_status_set(r, 0xf);
		CU_ASSERT_EQUAL(rig_status(r), 0x4f);
		CU_ASSERT(live_again(r));
		rig_destroy(r);
	}
}

static const struct unit_case cases[] = {
	{"identity and capabilities", identity},
	{"negotiation", negotiation},
	{"queue registers", queue_registers},
	{"odd accesses", odd_accesses},
	{"window in configuration space", window},
	{"transfer with MSI-X", transfer_msix},
	{"transfer with INTx", transfer_intx},
	{"start while interrupting", start_while_interrupting},
	{"the BAR moves", bar_moves},
	{"reset while in flight", reset_in_flight},
	{"queue areas outside memory", hostile_areas},
	{"queues that are off", off_queues},
	{"malformed ring", malformed_ring},
};

UNIT_MAIN("virtio_pci", cases)
