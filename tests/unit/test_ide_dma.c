/* SPDX-License-Identifier: BSD-2-Clause */
/* PIIX3 IDE: the bus master, hostile descriptor tables, saving and loading. */
#include "tests/unit/test_ide_rig.h"

#define SECTORS 9000u
#define TABLE   0x8000u
#define AT      0x100000u /* where data goes */
#define LAST    IDE_PRD_LAST

static uint8_t buf[2600 * IDE_SECTOR], data[2600 * IDE_SECTOR];

static void table_set(struct ide_rig *r, const struct ide_prd *prd, unsigned n)
{
	memcpy(ide_memory(r, TABLE, n * sizeof(*prd)), prd, n * sizeof(*prd));
}

/* Whole regions of at most 64 KiB from AT on. */
static unsigned table_plain(struct ide_rig *r, uint32_t bytes)
{
	struct ide_prd prd[64];
	uint32_t at = AT;
	unsigned n = 0;

	while (bytes) {
		uint32_t part = bytes < 0x10000 ? bytes : 0x10000;

		bytes -= part;
		prd[n++] = (struct ide_prd){at, (part & 0xffff) | (bytes ? 0 : LAST)};
		at += part;
	}
	table_set(r, prd, n);
	return n;
}

static void test_read(void)
{
	struct ide_rig r;
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	table_plain(&r, 4096);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 64, 8, TABLE, &bm), 0x50);
	CU_ASSERT_EQUAL(
		bm & 7, 4); /* interrupt, not active: the table was as long as the command */
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 64, 8));
	table_plain(&r, 0x10000);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc9, 100, 128, TABLE, &bm), 0x50);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 0x10000), 0, 100, 128));
	/* more than one step of the model, less than the image */
	table_plain(&r, 2600 * IDE_SECTOR);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0x25, 1200, 2600, TABLE, &bm), 0x50);
	CU_ASSERT_EQUAL(bm & 7, 4);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 2600 * IDE_SECTOR), 0, 1200, 2600));
	ide_rig_close(&r);
}

static void test_write(void)
{
	struct ide_rig r;
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	ide_fill(data, 2600, 1);
	memcpy(ide_memory(&r, AT, sizeof(data)), data, sizeof(data));
	table_plain(&r, 4096);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xca, 8, 8, TABLE, &bm), 0x50);
	CU_ASSERT_EQUAL(bm & 7, 4);
	CU_ASSERT(ide_on_disk(&r, 0, 8, 8, data));
	table_plain(&r, 2600 * IDE_SECTOR);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0x35, 5000, 2600, TABLE, &bm), 0x50);
	CU_ASSERT(ide_on_disk(&r, 0, 5000, 2600, data));
	/* with the cache off */
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x82, 0), 0x50);
	table_plain(&r, 4096);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xcb, 24, 8, TABLE, &bm), 0x50);
	CU_ASSERT(ide_on_disk(&r, 0, 24, 8, data));
	ide_rig_close(&r);
}

/* Pieces of every even length from 2 on, out of order in memory, sectors across several. */
static void test_fragments(void)
{
	struct ide_rig r;
	struct ide_prd prd[2048];
	uint32_t left = 64 * IDE_SECTOR, size, at;
	unsigned n = 0;
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	while (left) {
		size = n < 300 ? 2 : 2 + 2 * (n * 7 % 200);
		size = size < left ? size : left;
		at = AT + (n * 37 % 2048) * 512;
		left -= size;
		prd[n++] = (struct ide_prd){at, size | (left ? 0 : LAST)};
		CU_ASSERT_FATAL(n < 2048);
	}
	table_set(&r, prd, n);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 500, 64, TABLE, &bm), 0x50);
	CU_ASSERT_EQUAL(bm & 7, 4);
	for (unsigned i = 0, pos = 0; i < n; i++) {
		size = prd[i].count & 0xffff;
		memcpy(buf + pos, ide_memory(&r, prd[i].address, size), size);
		pos += size;
	}
	CU_ASSERT(ide_is_pattern(buf, 0, 500, 64));
	/* the same pieces, written elsewhere */
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xca, 700, 64, TABLE, &bm), 0x50);
	CU_ASSERT(ide_on_disk(&r, 0, 700, 64, buf));
	ide_rig_close(&r);
}

/* Start before command, as well as after; the command waits for it with DRQ. */
static void test_order(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	table_plain(&r, 4096);
	ide_bm_setup(&r, 0, TABLE, NULL, 0);
	ide_bm_command(&r, 0, 9);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0) & 7, 1);
	ide_issue(&r, 0, 0xc8, 40, 8);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0) & 7, 4);
	ide_bm_command(&r, 0, 8);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 40, 8));

	machine_port_write(r.m, ide_bm(&r, 0) + 2, 0x66, 1);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0), 0x60);
	ide_issue(&r, 0, 0xc8, 80, 8);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CTL), 0x58);
	CU_ASSERT_EQUAL(machine_port_read(r.m, 0x1f0, 2), 0xffff);
	ide_bm_command(&r, 0, 9);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 80, 8));
	/* registers: wide access, reserved bits */
	ide_bm_command(&r, 0, 0xf6);
	CU_ASSERT_EQUAL(machine_port_read(r.m, ide_bm(&r, 0), 4) & 0xff, 0);
	machine_port_write(r.m, ide_bm(&r, 0) + 4, 0xffffffff, 4);
	CU_ASSERT_EQUAL(machine_port_read(r.m, ide_bm(&r, 0) + 4, 4), 0xfffffffc);
	machine_port_write(r.m, ide_bm(&r, 0) + 5, 0x12, 1);
	CU_ASSERT_EQUAL(machine_port_read(r.m, ide_bm(&r, 0) + 4, 4), 0xffff12fc);
	/* one write that clears, and starts */
	ide_bm_setup(&r, 0, TABLE, NULL, 0);
	ide_issue(&r, 0, 0xc8, 96, 8);
	machine_port_write(r.m, ide_bm(&r, 0), 0x00060009, 4);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0), 4);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 96, 8));
	ide_rig_close(&r);
}

/* Waits until the bus master is idle, which no interrupt tells. */
static void bm_idle(struct ide_rig *r)
{
	time_t end = time(NULL) + IDE_HANG_S;

	while (ide_bm_status(r, 0) & 1) {
		CU_ASSERT_FATAL(time(NULL) < end);
		usleep(50);
	}
}

static void test_lengths(void)
{
	struct ide_rig r;
	struct ide_prd prd[2];
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	/* longer than the command: interrupt and active */
	table_plain(&r, 8192);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 0, 8, TABLE, &bm), 0x50);
	CU_ASSERT_EQUAL(bm & 7, 5);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0) & 1, 0);
	/* shorter: what there is room for, no interrupt, not active; and on with another table */
	prd[0] = (struct ide_prd){AT, (3 * 512 + 100) | LAST};
	ide_bm_setup(&r, 0, TABLE, prd, 1);
	memset(ide_memory(&r, AT, 0x2000), 0xee, 0x2000);
	ide_issue(&r, 0, 0xc8, 200, 8);
	ide_bm_command(&r, 0, 9);
	bm_idle(&r);
	CU_ASSERT_FALSE(ide_line(&r, 0));
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0) & 7, 0);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CTL), 0x58);
	memcpy(buf, ide_memory(&r, AT, 0x1000), 0x1000);
	CU_ASSERT(ide_is_pattern(buf, 0, 200, 3));
	ide_pattern(data, 0, 203);
	CU_ASSERT_EQUAL(memcmp(buf + 3 * 512, data, 100), 0);
	CU_ASSERT_EQUAL(buf[3 * 512 + 100], 0xee);
	ide_bm_command(&r, 0, 8);
	prd[0] = (struct ide_prd){AT + 3 * 512, (5 * 512) | LAST};
	ide_bm_setup(&r, 0, TABLE, prd, 1);
	ide_bm_command(&r, 0, 9);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0) & 7, 4);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 200, 8));
	ide_bm_command(&r, 0, 8);

	/* a write stops before a sector it has not got whole */
	ide_fill(data, 8, 5);
	memcpy(ide_memory(&r, AT, 4096), data, 4096);
	prd[0] = (struct ide_prd){AT, (2 * 512 + 2) | LAST};
	ide_bm_setup(&r, 0, TABLE, prd, 1);
	ide_issue(&r, 0, 0xca, 300, 8);
	ide_bm_command(&r, 0, 1);
	bm_idle(&r);
	CU_ASSERT_EQUAL(ide_poll(&r, 0), 0x58);
	CU_ASSERT(ide_on_disk(&r, 0, 300, 2, data));
	ide_pattern(buf, 0, 302);
	CU_ASSERT(ide_on_disk(&r, 0, 302, 1, buf));
	/* the guest gives up */
	ide_bm_command(&r, 0, 0);
	ide_out(&r, 0, IDE_CTL, 4);
	ide_out(&r, 0, IDE_CTL, 0);
	CU_ASSERT_EQUAL(ide_poll(&r, 0), 0x50);
	table_plain(&r, 4096);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 0, 8, TABLE, &bm), 0x50);
	ide_rig_close(&r);
}

static void hostile(struct ide_rig *r, uint8_t op, uint32_t table)
{
	uint8_t bm, status = ide_dma(r, 0, op, 100, 16, table, &bm);

	CU_ASSERT_EQUAL(status, 0x51);
	CU_ASSERT_EQUAL(ide_in(r, 0, IDE_ERR), ER_ABRT);
	CU_ASSERT_EQUAL(bm & 7, 6);
}

static void test_hostile(void)
{
	/* the first region is good, and takes 8 of 16 sectors */
	static const struct ide_prd second[] = {
		{0xfffff000, 4096 | LAST},           /* not memory */
		{(uint32_t)IDE_MEMORY, 4096 | LAST}, /* just behind it */
		{IDE_MEMORY - 2048, 4096 | LAST},    /* across its end */
		{AT + 0xf000, 0x2000 | LAST},        /* across 64 KiB */
		{AT + 2, 0 | LAST},                  /* 0 is 64 KiB, which does not fit behind 2 */
		{0xb0000000, 0},                     /* no memory, and no end */
	};
	struct ide_rig r;
	struct ide_prd prd[2] = {{AT, 4096}};
	struct device_report report;
	uint64_t errors;
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	for (unsigned i = 0; i < sizeof(second) / sizeof(second[0]); i++) {
		prd[1] = second[i];
		table_set(&r, prd, 2);
		memset(ide_memory(&r, AT, 4096), 0, 4096);
		hostile(&r, 0xc8, TABLE);
		hostile(&r, 0xca, TABLE);
	}
	/* the table itself elsewhere */
	hostile(&r, 0xc8, 0xfffffff8);
	hostile(&r, 0xca, IDE_MEMORY);
	hostile(&r, 0xc8, IDE_MEMORY - 4);
	/* a table without an end reaches its 64 KiB boundary */
	prd[0] = (struct ide_prd){AT, 2};
	for (uint32_t at = 0x1fc00; at < 0x20000; at += 8)
		memcpy(ide_memory(&r, at, 8), prd, 8);
	hostile(&r, 0xc8, 0x1fc00);
	machine_device_report(r.m, 0, &report);
	errors = counter_get(&report.counters->malformed);
	CU_ASSERT_EQUAL(errors, 16);
	/* 2-byte pieces to the very end of such a table are fine */
	for (unsigned i = 0; i < 8192; i++) {
		prd[0] = (struct ide_prd){AT + 2 * i, 2 | (i == 8191 ? LAST : 0)};
		memcpy(ide_memory(&r, 0x10000 + 8 * i, 8), prd, 8);
	}
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 33, 32, 0x10000, &bm), 0x50);
	CU_ASSERT_EQUAL(bm & 7, 4);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 32 * IDE_SECTOR), 0, 33, 32));
	ide_rig_close(&r);
}

static void test_dma_error(void)
{
	struct ide_rig r;
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	CU_ASSERT_EQUAL_FATAL(ftruncate(r.fd[0], 2064 * IDE_SECTOR), 0);
	table_plain(&r, 64 * IDE_SECTOR);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 2040, 64, TABLE, &bm), 0x51);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_UNC);
	CU_ASSERT_EQUAL(ide_lba_registers(&r, 0), 2064);
	CU_ASSERT_EQUAL(bm & 6, 4);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 24 * IDE_SECTOR), 0, 2040, 24));
	ide_rig_close(&r);
}

/* Stops and resets around requests in flight: memory is not written once BSY is gone. */
static void test_stop(void)
{
	struct ide_rig r;
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	for (unsigned i = 0; i < 50; i++) {
		table_plain(&r, 2600 * IDE_SECTOR);
		ide_bm_setup(&r, 0, TABLE, NULL, 0);
		ide_issue(&r, 0, 0x25, 0, 2600);
		ide_bm_command(&r, 0, 9);
		ide_bm_command(&r, 0, 8);
		if (i % 2) {
			/* on from where it stopped, wherever that was */
			bm_idle(&r);
			if (ide_in(&r, 0, IDE_CTL) & ST_DRQ) {
				ide_bm_command(&r, 0, 9);
				CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
				ide_bm_command(&r, 0, 8);
			}
		}
		ide_out(&r, 0, IDE_CTL, 4);
		ide_out(&r, 0, IDE_CTL, 0);
		CU_ASSERT_EQUAL(ide_poll(&r, 0), 0x50);
		memset(ide_memory(&r, AT, 2600 * IDE_SECTOR), 0xaa, 2600 * IDE_SECTOR);
	}
	memset(buf, 0xaa, 4096);
	CU_ASSERT_EQUAL(memcmp(ide_memory(&r, AT, 4096), buf, 4096), 0);
	table_plain(&r, 4096);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 1, 8, TABLE, &bm), 0x50);
	ide_rig_close(&r);
}

static void test_two_channels(void)
{
	struct ide_rig r;
	struct ide_prd prd;

	ide_rig_open(&r, 4, SECTORS);
	for (unsigned d = 0; d < 4; d += 2) {
		prd = (struct ide_prd){AT + d * 0x8000, 4096 | LAST};
		ide_bm_setup(&r, d, TABLE + 64 * d, &prd, 1);
		ide_issue(&r, d + 1, 0xc8, 10 * d, 8);
		ide_bm_command(&r, d, 9);
	}
	for (unsigned d = 0; d < 4; d += 2) {
		CU_ASSERT_EQUAL(ide_irq_take(&r, d), 0x50);
		CU_ASSERT_EQUAL(ide_bm_status(&r, d) & 7, 4);
		CU_ASSERT(ide_is_pattern(ide_memory(&r, AT + d * 0x8000, 4096), d + 1, 10 * d, 8));
	}
	ide_rig_close(&r);
}

static void test_dirty(void)
{
	struct ide_rig r;
	struct ide_prd prd[3] = {
		{AT + 0x1800, 0x800}, {AT + 0x5000, 0x400}, {AT + 0x7ffe, 0x400 | LAST}};
	uint64_t bits[IDE_MEMORY / 4096 / 64], want[IDE_MEMORY / 4096 / 64] = {0};
	static const uint32_t pages[] = {0x1000, 0x5000, 0x7000, 0x8000};
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	table_set(&r, prd, 3);
	CU_ASSERT_EQUAL(machine_dirty_log(r.m, true), 0);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 0, 8, TABLE, &bm), 0x50);
	for (unsigned i = 0; i < 4; i++)
		want[(AT + pages[i]) / 4096 / 64] |= 1ull << (AT + pages[i]) / 4096 % 64;
	machine_dirty_fetch(r.m, bits, IDE_MEMORY / 4096);
	CU_ASSERT_EQUAL(memcmp(bits, want, sizeof(bits)), 0);
	/* a DMA write and PIO touch no memory */
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xca, 0, 8, TABLE, &bm), 0x50);
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x20, 0, 1, 1, buf), 0x50);
	machine_dirty_fetch(r.m, bits, IDE_MEMORY / 4096);
	memset(want, 0, sizeof(want));
	CU_ASSERT_EQUAL(memcmp(bits, want, sizeof(bits)), 0);
	CU_ASSERT_EQUAL(machine_dirty_log(r.m, false), 0);
	ide_rig_close(&r);
}

/* ------------------------------------------------------------------ state */

/* Into a fresh machine over the same images; the old one is gone afterwards. */
static void move(struct ide_rig *r)
{
	struct state_writer w = {0};
	struct state_reader reader;
	struct machine *old = r->m;
	char why[VMM_WHY_MAX] = "";

	CU_ASSERT_EQUAL_FATAL(machine_pause(old), 0);
	CU_ASSERT_EQUAL_FATAL(machine_save(old, &w), 0);
	ide_rig_machine(r);
	memcpy(ide_memory(r, 0, IDE_MEMORY),
		ring_mem_translate(machine_memory(old), 0, IDE_MEMORY, RING_READ), IDE_MEMORY);
	machine_destroy(old);
	/* the new machine's lines start low */
	memset(r->level, 0, sizeof(r->level));
	state_reader_init(&reader, w.data, w.len);
	CU_ASSERT_EQUAL_FATAL(machine_load(r->m, &reader, why), 0);
	state_writer_free(&w);
}

static void test_move_pio(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 4, SECTORS);
	CU_ASSERT_EQUAL(ide_simple(&r, 1, 0xc6, 0, 8), 0x50);
	/* in mid-read, within a block; an interrupt pending on the other channel */
	ide_issue(&r, 1, 0x29, 200, 520);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 1), 0x58);
	ide_in_data(&r, 1, buf, 8 * IDE_SECTOR);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 1), 0x58);
	ide_in_data(&r, 1, buf + 8 * IDE_SECTOR, 1000);
	ide_select(&r, 3);
	ide_out(&r, 3, IDE_CMD, 0xe1);
	move(&r);
	CU_ASSERT(ide_line(&r, 3));
	CU_ASSERT_EQUAL(ide_irq_take(&r, 3), 0x50);
	ide_in_data(&r, 1, buf + 8 * IDE_SECTOR + 1000, 8 * IDE_SECTOR - 1000);
	for (unsigned i = 16; i < 520; i += 8) {
		CU_ASSERT_EQUAL(ide_irq_take(&r, 1), 0x58);
		ide_in_data(&r, 1, buf + i * IDE_SECTOR, 8 * IDE_SECTOR);
		if (i == 248)
			move(&r);
	}
	CU_ASSERT_EQUAL(ide_in(&r, 1, IDE_CMD), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 1, 200, 520));

	/* in mid-write */
	ide_fill(data, 300, 9);
	ide_issue(&r, 2, 0x34, 1000, 300);
	CU_ASSERT_EQUAL(ide_poll(&r, 2), 0x58);
	for (unsigned i = 0; i < 300; i++) {
		ide_out_data(&r, 2, data + i * IDE_SECTOR, 40);
		if (i == 17 || i == 290)
			move(&r);
		ide_out_data(&r, 2, data + i * IDE_SECTOR + 40, IDE_SECTOR - 40);
		if (i == 20 || i == 299)
			move(&r);
		CU_ASSERT_EQUAL(ide_irq_take(&r, 2), i == 299 ? 0x50 : 0x58);
	}
	CU_ASSERT(ide_on_disk(&r, 2, 1000, 300, data));
	/* settings came along */
	CU_ASSERT_EQUAL(ide_read_pio(&r, 1, 0xc4, 0, 8, 8, buf), 0x50);
	ide_rig_close(&r);
}

static void test_move_dma(void)
{
	struct ide_rig r;
	struct ide_prd prd = {AT, 4096 | LAST};
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	/* between commands */
	ide_bm_setup(&r, 0, TABLE, &prd, 1);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 5, 8, TABLE, &bm), 0x50);
	move(&r);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 5, 8));
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0) & 7, 4);
	CU_ASSERT_EQUAL(machine_port_read(r.m, ide_bm(&r, 0) + 4, 4), TABLE);
	/* a command that waits for its start */
	ide_issue(&r, 0, 0xc8, 50, 8);
	move(&r);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CTL), 0x58);
	ide_bm_command(&r, 0, 9);
	/* the pause waits for what is in flight */
	move(&r);
	CU_ASSERT(ide_line(&r, 0));
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0) & 7, 4);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 50, 8));
	ide_bm_command(&r, 0, 8);
	/* after a descriptor that was refused */
	prd.address += 2;
	prd.count = LAST;
	ide_bm_setup(&r, 0, TABLE, &prd, 1);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 5, 8, TABLE, &bm), 0x51);
	move(&r);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0) & 7, 6);
	prd = (struct ide_prd){AT, 4096 | LAST};
	ide_bm_setup(&r, 0, TABLE, &prd, 1);
	/* started, and no command yet */
	ide_bm_command(&r, 0, 9);
	move(&r);
	ide_issue(&r, 0, 0xc8, 70, 8);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 70, 8));
	ide_rig_close(&r);
}

/* Every byte of a saved mid-transfer damaged in turn: refused or taken, and nothing breaks. */
static void test_hostile_state(void)
{
	struct ide_rig r;
	struct state_writer w = {0};
	struct state_reader reader;
	struct machine *first;
	char why[VMM_WHY_MAX];
	size_t refused = 0;
	uint8_t *bytes, *section;
	size_t start, step;

	ide_rig_open(&r, 2, 64);
	first = r.m;
	ide_issue(&r, 1, 0x30, 60, 4);
	CU_ASSERT_EQUAL(ide_poll(&r, 1), 0x58);
	ide_fill(data, 4, 1);
	ide_out_data(&r, 1, data, 700);
	CU_ASSERT_EQUAL_FATAL(machine_pause(first), 0);
	CU_ASSERT_EQUAL_FATAL(machine_save(first, &w), 0);
	ide_rig_machine(&r);
	machine_destroy(first);
	bytes = malloc(w.len);
	CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
	if (!bytes)
		return;
	section = memmem(w.data, w.len, "\003ide", 4);
	CU_ASSERT_PTR_NOT_NULL_FATAL(section);
	start = section - w.data;
	for (size_t i = start; i < w.len; i += step) {
		/* what comes after the registers is the disk's data, which may be anything */
		step = i > start + 380 && i + 200 < w.len ? 61 : 1;
		for (unsigned k = 0; k < 3; k++) {
			memcpy(bytes, w.data, w.len);
			bytes[i] = k == 0 ? 0xff : k == 1 ? bytes[i] + 1 : bytes[i] ^ 0x80;
			state_reader_init(&reader, bytes, w.len);
			refused += machine_load(r.m, &reader, why) != 0;
			/* use it, whatever it is now */
			ide_out_data(&r, 1, data, 2048);
			ide_in_data(&r, 1, buf, 64);
			ide_bm_command(&r, 0, 0);
			ide_bm_command(&r, 0, 9);
			CU_ASSERT_EQUAL(machine_reset(r.m, why), 0);
		}
	}
	CU_ASSERT(refused > 30);
	/* whole again */
	state_reader_init(&reader, w.data, w.len);
	CU_ASSERT_EQUAL(machine_load(r.m, &reader, why), 0);
	CU_ASSERT_EQUAL(machine_reset(r.m, why), 0);
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x20, 0, 2, 1, buf), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, 0, 2));
	free(bytes);
	state_writer_free(&w);
	ide_rig_close(&r);
}

static void test_machine_reset(void)
{
	struct ide_rig r;
	char why[VMM_WHY_MAX] = "";
	uint8_t bm;

	ide_rig_open(&r, 1, SECTORS);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xc6, 0, 8), 0x50);
	table_plain(&r, 4096);
	ide_bm_setup(&r, 0, TABLE, NULL, 0);
	ide_issue(&r, 0, 0xc8, 0, 8);
	ide_bm_command(&r, 0, 9);
	CU_ASSERT_EQUAL_FATAL(machine_reset(r.m, why), 0);
	CU_ASSERT_FALSE(ide_line(&r, 0));
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CTL), 0x50);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_LOW), 1);
	CU_ASSERT_EQUAL(ide_bm_status(&r, 0), 0);
	ide_issue(&r, 0, 0xc4, 0, 1);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	table_plain(&r, 4096);
	CU_ASSERT_EQUAL(ide_dma(&r, 0, 0xc8, 9, 8, TABLE, &bm), 0x50);
	CU_ASSERT(ide_is_pattern(ide_memory(&r, AT, 4096), 0, 9, 8));
	ide_rig_close(&r);
}

static const struct unit_case cases[] = {
	{"DMA reads", test_read},
	{"DMA writes", test_write},
	{"fragments", test_fragments},
	{"start and command in either order", test_order},
	{"tables longer and shorter than the command", test_lengths},
	{"hostile tables", test_hostile},
	{"sectors that cannot be read", test_dma_error},
	{"stop and reset in mid-transfer", test_stop},
	{"both channels", test_two_channels},
	{"dirty pages", test_dirty},
	{"moved in mid-PIO", test_move_pio},
	{"moved around DMA", test_move_dma},
	{"hostile state", test_hostile_state},
	{"machine reset", test_machine_reset},
};

UNIT_MAIN("ide_dma", cases)
