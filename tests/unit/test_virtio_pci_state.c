/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Saved state of the virtio devices: in the middle of a transfer, into a fresh machine, and the
 * transfer ends right; states that somebody has tampered with; the dirty bitmap.
 */
#include "tests/unit/test_virtio_pci_rig.h"

#define REQUESTS 96u

static struct rig rig;

/* Saves the paused machine, destroys it, and brings it up again as another one. */
static bool migrate(struct rig *r, unsigned nqueues, unsigned size)
{
	struct state_writer w = {0};
	struct state_reader reader;
	char why[VMM_WHY_MAX];
	uint8_t *memory = malloc(RIG_MEMORY);
	bool ok = memory && machine_save(r->m, &w) == 0;

	if (ok) {
		memcpy(memory, rig_host(r, 0, RIG_MEMORY), RIG_MEMORY);
		rig_machine_destroy(r);
		ok = machine_create(&r->m, &r->cfg, why) == 0;
	}
	if (ok) {
		memcpy(rig_host(r, 0, RIG_MEMORY), memory, RIG_MEMORY);
		state_reader_init(&reader, w.data, w.len);
		ok = machine_load(r->m, &reader, why) == 0;
		if (!ok)
			printf("\nmachine_load: %s\n", why);
	}
	/* the driver's own positions are the guest's: only its pointers are the host's */
	for (unsigned q = 0; ok && q < nqueues; q++) {
		struct ring_driver_config *c = &r->queues[q].drv.cfg;
		struct ring_geometry g;
		uint8_t *host;

		ring_geometry_get(c->layout, size, &g);
		host = rig_host(r, r->queues[q].gpa, g.bytes);
		c->desc = host + g.desc;
		c->driver = host + g.driver;
		c->device = host + g.device;
	}
	free(memory);
	state_writer_free(&w);
	return ok;
}

/* ------------------------------------------------------------------ block */

static void blk_add_some(struct rig *r, struct rig_blk *b, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++) {
		b[i] = rig_blk_add(r, 0, i & 1 ? RIG_BLK_OUT : RIG_BLK_IN, i * 16, 8192, i);
		if (!(i & 1))
			continue;
		memset(rig_host(r, b[i].data, 8192), (int)i, 8192);
	}
	rig_kick(r, 0);
}

static void blk_collect(struct rig *r, bool *seen, unsigned n)
{
	while (n--) {
		int64_t token = rig_done(r, 0, NULL);

		CU_ASSERT_FATAL(token >= 0 && token < (int64_t)REQUESTS);
		CU_ASSERT_FALSE(seen[token]);
		seen[token] = true;
	}
}

static void blk_check(struct rig *r, const struct rig_blk *b)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		CU_ASSERT_EQUAL(rig_blk_status(r, &b[i]), 0);
		if (i & 1) {
			uint8_t on_disk = 0;

			CU_ASSERT_EQUAL(pread(r->image, &on_disk, 1, i * 8192 + 8191), 1);
			CU_ASSERT_EQUAL(on_disk, i);
		} else {
			CU_ASSERT(rig_blk_holds(r, &b[i], i * 16));
		}
	}
}

static void blk_mid_transfer(bool packed, bool msix)
{
	struct rig *r = &rig;
	struct rig_blk b[REQUESTS];
	bool seen[REQUESTS] = {false};

	CU_ASSERT_FATAL(rig_blk_up(r, packed, msix));
	blk_add_some(r, b, 0, 20);
	blk_collect(r, seen, 7);
	blk_add_some(r, b, 20, 16);
	/* some are in flight, some not yet seen */
	CU_ASSERT_EQUAL(machine_pause(r->m), 0);
	/* these ring at nobody's door */
	blk_add_some(r, b, 36, 4);
	CU_ASSERT_FATAL(migrate(r, 1, 128));
	CU_ASSERT_EQUAL(rig_status(r), 0xf);
	blk_collect(r, seen, 33);
	blk_add_some(r, b, 40, REQUESTS - 40 - 30);
	blk_collect(r, seen, REQUESTS - 40 - 30);
	/* and once more, across the wrap of the ring */
	blk_add_some(r, b, REQUESTS - 30, 30);
	CU_ASSERT_EQUAL(machine_pause(r->m), 0);
	CU_ASSERT_FATAL(migrate(r, 1, 128));
	blk_collect(r, seen, 30);
	CU_ASSERT_FALSE(ring_driver_has_done(&r->queues[0].drv));
	blk_check(r, b);
	if (msix) {
		CU_ASSERT_EQUAL(atomic_load(&r->line_rises), 0);
		CU_ASSERT(atomic_load(&r->msi[1]) > 0);
	} else {
		CU_ASSERT(atomic_load(&r->line_rises) > 0);
	}
	rig_destroy(r);
}

static void blk_split(void)
{
	for (unsigned i = 0; i < 4; i++)
		blk_mid_transfer(false, i & 1);
}

static void blk_packed(void)
{
	for (unsigned i = 0; i < 4; i++)
		blk_mid_transfer(true, i & 1);
}

/* Paused and resumed in place, many times, with requests all the while. */
static void blk_pause_resume(void)
{
	struct rig *r = &rig;

	for (int packed = 0; packed < 2; packed++) {
		CU_ASSERT_FATAL(rig_blk_up(r, packed, true));
		for (unsigned round = 0; round < 50; round++) {
			bool seen[REQUESTS] = {false};
			struct rig_blk b[REQUESTS];

			r->heap = RIG_HEAP + (4u << 20);
			blk_add_some(r, b, 0, 8);
			CU_ASSERT_EQUAL(machine_pause(r->m), 0);
			blk_add_some(r, b, 8, 8);
			CU_ASSERT_EQUAL(machine_resume(r->m), 0);
			blk_collect(r, seen, 16);
		}
		CU_ASSERT_EQUAL(rig_status(r), 0xf);
		rig_destroy(r);
	}
}

/* A device that is not set up, or half, or broken, comes back as that. */
static void blk_other_moments(void)
{
	struct rig *r = &rig;
	struct ring_sg sg = {.gpa = 0xdead0000000, .len = 64};

	rig_init(r);
	rig_disk(r, false, 1);
	CU_ASSERT_FATAL(rig_create(r));
	CU_ASSERT_FATAL(migrate(r, 0, 0));
	CU_ASSERT_EQUAL(rig_status(r), 0);
	CU_ASSERT(rig_negotiate(r, rig_offered(r) & RIG_RING_FEATURES));
	CU_ASSERT(rig_queue_set(r, 0, 32));
	CU_ASSERT_FATAL(migrate(r, 1, 32));
	CU_ASSERT_EQUAL(rig_status(r), 0xb);
	rig_status_set(r, 0xf);
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 5);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 5);
	CU_ASSERT_EQUAL(ring_driver_add(&r->queues[0].drv, &sg, 1, 0, 1), 0);
	rig_kick(r, 0);
	CU_ASSERT(RIG_WAIT(rig_status(r) == 0x4f));
	CU_ASSERT_FATAL(migrate(r, 1, 32));
	CU_ASSERT_EQUAL(rig_status(r), 0x4f);
	CU_ASSERT_EQUAL(rig_read(r, r->isr, 1) & 2, 2);
	CU_ASSERT(rig_reset(r));
	rig_destroy(r);
}

/* ------------------------------------------------------------------ net */

static bool net_up(struct rig *r, bool packed)
{
	rig_init(r);
	rig_net(r, packed);
	if (!rig_create(r) || !rig_negotiate(r, rig_offered(r) & RIG_RING_FEATURES))
		return false;
	if (!rig_queue_set(r, 0, 64) || !rig_queue_set(r, 1, 64))
		return false;
	rig_status_set(r, 0xf);
	return rig_status(r) == 0xf;
}

/* n frames out, with room for as many to come back. */
static void net_send(struct rig *r, uint64_t *rx, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++) {
		struct ring_sg sg = {.gpa = rig_alloc(r, 2048), .len = 2048};
		uint8_t *frame;

		rx[i] = sg.gpa;
		if (ring_driver_add(&r->queues[0].drv, &sg, 0, 1, i))
			abort();
		sg = (struct ring_sg){.gpa = rig_alloc(r, 12 + 100), .len = 12 + 100};
		frame = (uint8_t *)rig_host(r, sg.gpa, sg.len) + 12;
		memset(frame, 0xff, 6);
		memset(frame + 6, 2, 6);
		memset(frame + 12, (int)i + 1, 88);
		if (ring_driver_add(&r->queues[1].drv, &sg, 1, 0, i))
			abort();
	}
	rig_kick(r, 0);
	rig_kick(r, 1);
}

static void net_collect(struct rig *r, const uint64_t *rx, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++) {
		uint32_t len = 0;
		int64_t token = rig_done(r, 0, &len);

		CU_ASSERT_EQUAL_FATAL(token, i);
		CU_ASSERT_EQUAL(len, 112);
		CU_ASSERT_EQUAL(*((uint8_t *)rig_host(r, rx[i], 112) + 12 + 99), (uint8_t)(i + 1));
		CU_ASSERT_EQUAL(rig_done(r, 1, NULL), i);
	}
}

static void net_mid_transfer(bool packed)
{
	struct rig *r = &rig;
	uint64_t rx[256];

	CU_ASSERT_FATAL(net_up(r, packed));
	for (unsigned i = 0; i < 100; i += 10) {
		net_send(r, rx, i, 10);
		net_collect(r, rx, i, 10);
	}
	CU_ASSERT_EQUAL(machine_pause(r->m), 0);
	/* the port's own frames do not travel; what the rings hold does */
	net_send(r, rx, 100, 40);
	CU_ASSERT_FATAL(migrate(r, 2, 64));
	CU_ASSERT_EQUAL(rig_status(r), 0xf);
	net_collect(r, rx, 100, 40);
	net_send(r, rx, 140, 20);
	net_collect(r, rx, 140, 20);
	rig_destroy(r);
}

static void net_split(void)
{
	net_mid_transfer(false);
}

static void net_packed(void)
{
	net_mid_transfer(true);
}

/* ------------------------------------------------------------------ hostile states */

/* Whatever is in it: an error or a machine that still answers. */
static void tampered(void)
{
	struct rig *r = &rig;
	struct state_writer w = {0};
	struct state_reader reader;
	char why[VMM_WHY_MAX];
	unsigned refused = 0;

	CU_ASSERT_FATAL(rig_blk_up(r, true, true));
	CU_ASSERT_EQUAL(machine_pause(r->m), 0);
	CU_ASSERT_EQUAL_FATAL(machine_save(r->m, &w), 0);
	for (size_t i = 0; i < w.len; i++) {
		uint8_t was = w.data[i];

		w.data[i] ^= (uint8_t)(1u << i % 8 | 0x80);
		state_reader_init(&reader, w.data, w.len);
		refused += machine_load(r->m, &reader, why) != 0;
		w.data[i] = was;
		if (i % 16)
			continue;
		machine_resume(r->m);
		(void)rig_status(r);
		rig_write(r, r->notify, 0, 2);
		machine_pause(r->m);
	}
	/* every way of being cut short is noticed */
	for (size_t len = 0; len < w.len; len += 1 + w.len / 64) {
		state_reader_init(&reader, w.data, len);
		CU_ASSERT(machine_load(r->m, &reader, why) != 0);
	}
	CU_ASSERT(refused > 100);
	/* the true one still fits */
	state_reader_init(&reader, w.data, w.len);
	CU_ASSERT_EQUAL(machine_load(r->m, &reader, why), 0);
	machine_resume(r->m);
	rig_capabilities(r);
	CU_ASSERT_EQUAL(rig_status(r), 0xf);
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 9);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 9);
	state_writer_free(&w);
	rig_destroy(r);
}

/* ------------------------------------------------------------------ machine reset, dirty pages */

static void machine_resets(void)
{
	struct rig *r = &rig;
	char why[VMM_WHY_MAX];

	CU_ASSERT_FATAL(rig_blk_up(r, false, true));
	for (unsigned i = 0; i < 16; i++)
		rig_blk_add(r, 0, RIG_BLK_IN, i * 8, 4096, i);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(machine_pause(r->m), 0);
	CU_ASSERT_EQUAL(machine_reset(r->m, why), 0);
	CU_ASSERT_EQUAL(machine_resume(r->m), 0);
	CU_ASSERT_FATAL(rig_find(r));
	CU_ASSERT_EQUAL(rig_status(r), 0);
	CU_ASSERT_EQUAL(rig_config_read(r, r->msix_cap + 2, 2) & 0x8000, 0);
	r->heap = RIG_HEAP;
	CU_ASSERT(rig_negotiate(r, rig_offered(r) & RIG_RING_FEATURES));
	CU_ASSERT(rig_queue_set(r, 0, 64));
	rig_status_set(r, 0xf);
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 3);
	rig_kick(r, 0);
	CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 3);
	rig_destroy(r);
}

static bool dirty(const uint64_t *bits, uint64_t gpa)
{
	return bits[gpa / 4096 / 64] >> (gpa / 4096 % 64) & 1;
}

static void dirty_pages(void)
{
	struct rig *r = &rig;
	uint64_t bits[RIG_MEMORY / 4096 / 64] = {0};
	struct rig_blk b;

	for (int packed = 0; packed < 2; packed++) {
		CU_ASSERT_FATAL(rig_blk_up(r, packed, true));
		CU_ASSERT_EQUAL(machine_pause(r->m), 0);
		CU_ASSERT_EQUAL_FATAL(machine_dirty_log(r->m, true), 0);
		CU_ASSERT_EQUAL(machine_resume(r->m), 0);
		b = rig_blk_add(r, 0, RIG_BLK_IN, 8, 8192, 1);
		rig_kick(r, 0);
		CU_ASSERT_EQUAL(rig_done(r, 0, NULL), 1);
		CU_ASSERT_EQUAL(machine_pause(r->m), 0);
		machine_dirty_fetch(r->m, bits, RIG_MEMORY / 4096);
		CU_ASSERT(dirty(bits, b.data));
		CU_ASSERT(dirty(bits, b.data + 4096));
		CU_ASSERT(dirty(bits, b.status));
		CU_ASSERT_FALSE(dirty(bits, b.header));
		rig_destroy(r);
	}
}

static const struct unit_case cases[] = {
	{"blk in mid-transfer, split", blk_split},
	{"blk in mid-transfer, packed", blk_packed},
	{"blk paused and resumed", blk_pause_resume},
	{"blk at other moments", blk_other_moments},
	{"net in mid-transfer, split", net_split},
	{"net in mid-transfer, packed", net_packed},
	{"tampered states", tampered},
	{"machine reset", machine_resets},
	{"dirty pages", dirty_pages},
};

UNIT_MAIN("virtio_pci_state", cases)
