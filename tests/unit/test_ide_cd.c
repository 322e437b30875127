/* SPDX-License-Identifier: BSD-2-Clause */
/* The CD-ROM drive: its registers, packets, and data in pieces. */
#include "tests/unit/test_ide_rig.h"

#define CD     2u /* the second channel's first place, as PCs have it */
#define BLOCKS 600u
#define BLOCK  2048u

static struct ide_rig r;
static uint8_t data[64 * BLOCK];

static void rig_open(void)
{
	static const uint8_t descriptor[6] = {1, 'C', 'D', '0', '0', '1'};

	ide_rig_init(&r, 1, BLOCKS * 4);
	CU_ASSERT_EQUAL_FATAL(pwrite(r.fd[0], descriptor, 6, 16 * BLOCK), 6);
	r.model = "ide-cd";
	ide_rig_machine(&r);
}

/* Sends a packet; the status when the drive answers. */
static uint8_t packet(const uint8_t cdb[12], unsigned limit)
{
	ide_out(&r, CD, IDE_DEV, 0xa0);
	ide_out(&r, CD, IDE_ERR, 0);
	ide_out(&r, CD, IDE_MID, (uint8_t)limit);
	ide_out(&r, CD, IDE_HIGH, (uint8_t)(limit >> 8));
	ide_out(&r, CD, IDE_CMD, 0xa0);
	CU_ASSERT_EQUAL(ide_poll(&r, CD) & (ST_BSY | ST_DRQ | ST_ERR), ST_DRQ);
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_COUNT) & 3, 1); /* a command is wanted */
	for (unsigned i = 0; i < 12; i += 2)
		machine_port_write(r.m, 0x170, cdb[i] | (unsigned)cdb[i + 1] << 8, 2);
	return ide_irq_take(&r, CD);
}

/* Takes what the drive gives, by interrupts; how much. */
static unsigned data_take(uint8_t status, unsigned limit, unsigned *pieces)
{
	unsigned got = 0, n;

	*pieces = 0;
	while (status & ST_DRQ) {
		CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_COUNT) & 3, 2); /* data, to the host */
		n = ide_in(&r, CD, IDE_MID) | (unsigned)ide_in(&r, CD, IDE_HIGH) << 8;
		CU_ASSERT_FATAL(n && n <= limit && got + n <= sizeof(data));
		for (unsigned i = 0; i < n; i += 2) {
			uint16_t word = (uint16_t)machine_port_read(r.m, 0x170, 2);

			memcpy(data + got + i, &word, n - i < 2 ? 1 : 2);
		}
		got += n;
		(*pieces)++;
		status = ide_irq_take(&r, CD);
	}
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_COUNT) & 3, 3);
	CU_ASSERT_EQUAL(status & (ST_BSY | ST_DRQ), 0);
	return got;
}

static unsigned ask(const uint8_t cdb[12])
{
	unsigned pieces;

	return data_take(packet(cdb, 0xfffe), 0xfffe, &pieces);
}

/* What REQUEST SENSE says: key, code, qualifier. */
static unsigned sense(void)
{
	static const uint8_t cdb[12] = {0x03, 0, 0, 0, 18};

	CU_ASSERT_EQUAL(ask(cdb), 18);
	CU_ASSERT_EQUAL(data[0], 0x70);
	return (unsigned)data[2] << 16 | (unsigned)data[12] << 8 | data[13];
}

static void refused(const uint8_t cdb[12], unsigned expected)
{
	uint8_t status = packet(cdb, 0xfffe);

	CU_ASSERT_TRUE(status & ST_ERR);
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_ERR) >> 4, expected >> 16);
	CU_ASSERT_EQUAL(sense(), expected);
	CU_ASSERT_EQUAL(sense(), 0); /* told once */
}

/* ------------------------------------------------------------------ what it is */

static void test_signature(void)
{
	uint16_t id[256];

	rig_open();
	ide_select(&r, CD);
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_MID), 0x14);
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_HIGH), 0xeb);
	ide_out(&r, CD, IDE_MID, 0);
	CU_ASSERT_TRUE(ide_simple(&r, CD, 0xec, 0, 0) & ST_ERR); /* IDENTIFY DEVICE */
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_MID), 0x14);
	CU_ASSERT_TRUE(ide_simple(&r, CD, 0xc8, 0, 1) & ST_ERR);
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_ERR), ER_ABRT);
	ide_out(&r, CD, IDE_CMD, 0xa1);
	CU_ASSERT_TRUE(ide_irq_take(&r, CD) & ST_DRQ);
	ide_in_data(&r, CD, id, sizeof(id));
	CU_ASSERT_EQUAL(id[0], 0x85c0);
	CU_ASSERT_EQUAL(id[49] & 0x100, 0); /* no DMA */
	/* DEVICE RESET: no interrupt, and the signature again */
	ide_out(&r, CD, IDE_MID, 0);
	ide_out(&r, CD, IDE_CMD, 0x08);
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_MID), 0x14);
	CU_ASSERT_FALSE(ide_line(&r, CD));
	/* DMA was not offered */
	ide_out(&r, CD, IDE_ERR, 1);
	ide_out(&r, CD, IDE_CMD, 0xa0);
	CU_ASSERT_TRUE(ide_irq_take(&r, CD) & ST_ERR);
	ide_rig_close(&r);
}

static void test_answers(void)
{
	static const uint8_t ready[12] = {0x00}, inquiry[12] = {0x12, 0, 0, 0, 36},
			     capacity[12] = {0x25}, toc[12] = {0x43, 2, 0, 0, 0, 0, 0, 0, 20},
			     session[12] = {0x43, 0, 1, 0, 0, 0, 0, 0, 12},
			     event[12] = {0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8},
			     mode[12] = {0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 100},
			     config[12] = {0x46, 0, 0, 0, 0, 0, 0, 0, 100},
			     disc[12] = {0x51, 0, 0, 0, 0, 0, 0, 0, 34};

	rig_open();
	CU_ASSERT_EQUAL(ask(ready), 0);
	CU_ASSERT_EQUAL(ask(inquiry), 36);
	CU_ASSERT_EQUAL(data[0], 5);
	CU_ASSERT_EQUAL(memcmp(data + 8, "SLUICE  CD-ROM", 14), 0);
	CU_ASSERT_EQUAL(ask(capacity), 8);
	CU_ASSERT_EQUAL(data[2] << 8 | data[3], BLOCKS - 1);
	CU_ASSERT_EQUAL(data[6] << 8 | data[7], BLOCK);
	CU_ASSERT_EQUAL(ask(toc), 20);
	CU_ASSERT_EQUAL(data[1], 18);
	CU_ASSERT_EQUAL(data[10], 2); /* track 1 at 00:02.00 */
	CU_ASSERT_EQUAL(data[14], 0xaa);
	CU_ASSERT_EQUAL(data[18], 10); /* 600 and 150 blocks: 00:10.00 */
	CU_ASSERT_EQUAL(ask(session), 12);
	CU_ASSERT_EQUAL(data[2], 1);
	CU_ASSERT_EQUAL(ask(event), 8);
	CU_ASSERT_EQUAL(data[5], 2);
	CU_ASSERT_EQUAL(ask(mode), 36);
	CU_ASSERT_EQUAL(ask(config), 16);
	CU_ASSERT_EQUAL(data[7], 8);
	CU_ASSERT_EQUAL(ask(disc), 34);
	ide_rig_close(&r);
}

static void test_refused(void)
{
	static const uint8_t unknown[12] = {0x2a}, far[12] = {0x28, 0, 0, 0, 2, 0x57, 0, 0, 2},
			     seek[12] = {0x2b, 0, 0, 0, 2, 0x58}, raw[12] = {0x43, 0, 2},
			     page[12] = {0x5a, 0, 0x0e, 0, 0, 0, 0, 0, 100},
			     much[12] = {0xa8, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
			     audio[12] = {0xbe, 4, 0, 0, 0, 0, 0, 0, 1, 0x10};

	rig_open();
	refused(unknown, 0x052000);
	refused(far, 0x052100);
	refused(seek, 0x052100);
	refused(raw, 0x052400);
	refused(page, 0x052400);
	refused(much, 0x052100);
	refused(audio, 0x052400);
	ide_rig_close(&r);
}

/* ------------------------------------------------------------------ reading */

static void read_check(unsigned block, unsigned n, unsigned limit, unsigned expected)
{
	const uint8_t cdb[12] = {
		0x28, 0, 0, 0, (uint8_t)(block >> 8), (uint8_t)block, 0, 0, (uint8_t)n};
	unsigned pieces, got = data_take(packet(cdb, limit), limit ? limit : 0xffff, &pieces);

	CU_ASSERT_EQUAL(got, n * BLOCK);
	CU_ASSERT_EQUAL(pieces, expected);
	CU_ASSERT_TRUE(ide_is_pattern(data, 0, block * 4, n * 4));
}

static void test_read(void)
{
	static const uint8_t none[12] = {0x28}, cd[12] = {0xbe, 0, 0, 0, 0, 1, 0, 0, 1, 0x10};

	rig_open();
	read_check(20, 1, BLOCK, 1);
	read_check(BLOCKS - 1, 1, BLOCK, 1);
	read_check(100, 8, BLOCK, 8);
	read_check(100, 3, 1000, 7);
	read_check(100, 2, 4095, 2); /* even: 4094 and 2 */
	read_check(100, 40, 0, 2);   /* no limit is the largest */
	CU_ASSERT_EQUAL(ask(none), 0);
	CU_ASSERT_EQUAL(ask(cd), BLOCK);
	CU_ASSERT_TRUE(ide_is_pattern(data, 0, 4, 4));
	ide_rig_close(&r);
}

/* A read of two fetches, saved between its pieces. */
static void test_move(void)
{
	const uint8_t cdb[12] = {0x28, 0, 0, 0, 0, 100, 0, 0, 20};
	struct state_writer w = {0};
	struct state_reader reader;
	struct machine *before;
	char why[VMM_WHY_MAX];
	unsigned pieces;

	rig_open();
	CU_ASSERT_TRUE(packet(cdb, BLOCK) & ST_DRQ);
	ide_in_data(&r, CD, data, BLOCK);
	CU_ASSERT_TRUE(ide_is_pattern(data, 0, 400, 4));
	before = r.m;
	CU_ASSERT_EQUAL_FATAL(machine_save(before, &w), 0);
	machine_destroy(before);
	ide_rig_machine(&r);
	state_reader_init(&reader, w.data, w.len);
	CU_ASSERT_EQUAL_FATAL(machine_load(r.m, &reader, why), 0);
	CU_ASSERT_EQUAL(data_take(ide_irq_take(&r, CD), BLOCK, &pieces), 19 * BLOCK);
	CU_ASSERT_EQUAL(pieces, 19);
	CU_ASSERT_TRUE(ide_is_pattern(data, 0, 404, 19 * 4));
	state_writer_free(&w);
	ide_rig_close(&r);
}

/* A reset in mid-packet, and commands that end another. */
static void test_interrupted(void)
{
	static const uint8_t ready[12] = {0x00};

	rig_open();
	ide_select(&r, CD);
	ide_out(&r, CD, IDE_ERR, 0);
	ide_out(&r, CD, IDE_CMD, 0xa0);
	machine_port_write(r.m, 0x170, 0, 2);
	ide_out(&r, CD, IDE_CTL, 4);
	ide_out(&r, CD, IDE_CTL, 0);
	ide_poll(&r, CD);
	CU_ASSERT_EQUAL(ide_in(&r, CD, IDE_HIGH), 0xeb);
	CU_ASSERT_EQUAL(ask(ready), 0);
	ide_out(&r, CD, IDE_CMD, 0xa0);
	machine_port_write(r.m, 0x170, 0, 2);
	CU_ASSERT_EQUAL(ask(ready), 0);
	ide_rig_close(&r);
}

static void test_no_disc(void)
{
	struct machine_config cfg;
	struct machine *m;
	char why[VMM_WHY_MAX] = "";

	ide_rig_init(&r, 1, 200);
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = IDE_MEMORY;
	cfg.ndisks = 1;
	cfg.disks[0].fd = r.fd[0];
	cfg.disks[0].model = "ide-cd";
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "no CD image: there is no ISO 9660"));
}

static const struct unit_case cases[] = {
	{"signature", test_signature},
	{"answers", test_answers},
	{"refused", test_refused},
	{"read", test_read},
	{"saved between pieces", test_move},
	{"interrupted", test_interrupted},
	{"no disc", test_no_disc},
};

UNIT_MAIN("ide_cd", cases)
