/* SPDX-License-Identifier: BSD-2-Clause */
/* PIIX3 IDE: registers, IDENTIFY, PIO transfers, other commands, errors, resets. */
#include "tests/unit/test_ide_rig.h"

#define SECTORS 4100u

static uint8_t buf[600 * IDE_SECTOR], data[600 * IDE_SECTOR];

static uint16_t id_word(unsigned i)
{
	return buf[2 * i] | buf[2 * i + 1] << 8;
}

static void id_string(unsigned word, unsigned n, char *to)
{
	for (unsigned i = 0; i < n; i++) {
		to[2 * i] = id_word(word + i) >> 8;
		to[2 * i + 1] = id_word(word + i);
	}
	to[2 * n] = 0;
}

static void identify(struct ide_rig *r, unsigned disk)
{
	ide_select(r, disk);
	ide_out(r, disk, IDE_CMD, 0xec);
	CU_ASSERT_EQUAL(ide_irq_take(r, disk), 0x58);
	ide_in_data(r, disk, buf, IDE_SECTOR);
	CU_ASSERT_EQUAL(ide_in(r, disk, IDE_CMD), 0x50);
	CU_ASSERT_FALSE(ide_line(r, disk));
}

static void test_identify(void)
{
	struct ide_rig r;
	char text[41];
	uint8_t sum = 0;

	ide_rig_open(&r, 1, SECTORS);
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(0), 0x0040);
	CU_ASSERT_EQUAL(id_word(1), SECTORS / 1008);
	CU_ASSERT_EQUAL(id_word(3), 16);
	CU_ASSERT_EQUAL(id_word(6), 63);
	id_string(10, 10, text);
	CU_ASSERT_STRING_EQUAL(text, "SN-0123456789       ");
	id_string(27, 20, text);
	CU_ASSERT_EQUAL(strncmp(text, "SLUICE IDE DISK ", 16), 0);
	CU_ASSERT_EQUAL(id_word(47), 0x8010);
	CU_ASSERT_EQUAL(id_word(49) & 0x0b00, 0x0b00);
	CU_ASSERT_EQUAL(id_word(53) & 7, 7);
	CU_ASSERT_EQUAL(id_word(59), 0);
	CU_ASSERT_EQUAL(id_word(60) | id_word(61) << 16, SECTORS);
	CU_ASSERT_EQUAL(id_word(63), 0x0407);
	CU_ASSERT_EQUAL(id_word(64), 3);
	CU_ASSERT_EQUAL(id_word(80) & 0x40, 0x40);
	CU_ASSERT_EQUAL(id_word(83), 0x7400);
	CU_ASSERT_EQUAL(id_word(85) & 0x20, 0x20);
	CU_ASSERT_EQUAL(id_word(86) & 0x3400, 0x3400);
	CU_ASSERT_EQUAL(id_word(88), 0x003f);
	CU_ASSERT_EQUAL(id_word(100) | id_word(101) << 16, SECTORS);
	CU_ASSERT_EQUAL(buf[510], 0xa5);
	for (unsigned i = 0; i < IDE_SECTOR; i++)
		sum += buf[i];
	CU_ASSERT_EQUAL(sum, 0);
	ide_rig_close(&r);
}

static void test_identify_large(void)
{
	struct ide_rig r;

	/* beyond 28 bits; sparse */
	ide_rig_open(&r, 1, 0x12345678aull);
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(1), 16383);
	CU_ASSERT_EQUAL(id_word(60) | (uint32_t)id_word(61) << 16, 0x0fffffff);
	CU_ASSERT_EQUAL(id_word(100), 0x678a);
	CU_ASSERT_EQUAL(id_word(101), 0x2345);
	CU_ASSERT_EQUAL(id_word(102), 1);
	CU_ASSERT_EQUAL(id_word(103), 0);

	/* the last sector, in 48 bits */
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x24, r.sectors - 1, 1, 1, buf), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, r.sectors - 1, 1));
	/* READ NATIVE MAX ADDRESS EXT and its 28-bit sister */
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0x27, 0, 0), 0x50);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_LOW), 0x89);
	ide_out(&r, 0, IDE_CTL, 0x80);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_LOW), 0x23);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_MID), 1);
	ide_out(&r, 0, IDE_CTL, 0);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xf8, 0, 0), 0x50);
	CU_ASSERT_EQUAL(ide_lba_registers(&r, 0), 0x0ffffffe);
	ide_rig_close(&r);
}

static void test_pio_read(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x20, 0, 1, 1, buf), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, 0, 1));
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x21, 77, 9, 1, buf), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, 77, 9));
	/* a count of 0 is 256 */
	ide_issue(&r, 0, 0x20, 1000, 0);
	for (unsigned i = 0; i < 256; i++) {
		CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x58);
		ide_in_data(&r, 0, buf + i * IDE_SECTOR, IDE_SECTOR);
	}
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CMD), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, 1000, 256));
	/* more than the buffer holds, up to the last sector */
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x24, SECTORS - 600, 600, 1, buf), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, SECTORS - 600, 600));
	/* nothing is left to read */
	CU_ASSERT_EQUAL(machine_port_read(r.m, 0x1f0, 2), 0xffff);
	ide_rig_close(&r);
}

static void test_pio_write(void)
{
	struct ide_rig r;
	struct device_report report;

	ide_rig_open(&r, 1, SECTORS);
	ide_fill(data, 600, 1);
	CU_ASSERT_EQUAL(ide_write_pio(&r, 0, 0x30, 5, 1, 1, data), 0x50);
	CU_ASSERT(ide_on_disk(&r, 0, 5, 1, data));
	CU_ASSERT_EQUAL(ide_write_pio(&r, 0, 0x31, 100, 8, 1, data), 0x50);
	CU_ASSERT(ide_on_disk(&r, 0, 100, 8, data));
	CU_ASSERT_EQUAL(ide_write_pio(&r, 0, 0x34, 1000, 600, 1, data), 0x50);
	CU_ASSERT(ide_on_disk(&r, 0, 1000, 600, data));
	ide_pattern(buf, 0, 999);
	ide_pattern(buf + IDE_SECTOR, 0, 1600);
	CU_ASSERT(ide_on_disk(&r, 0, 999, 1, buf));
	CU_ASSERT(ide_on_disk(&r, 0, 1600, 1, buf + IDE_SECTOR));

	machine_device_report(r.m, 0, &report);
	CU_ASSERT_STRING_EQUAL(report.model, "ide");
	CU_ASSERT_EQUAL(counter_get(&report.counters->requests), 3);
	CU_ASSERT_EQUAL(counter_get(&report.counters->bytes), 609 * IDE_SECTOR);
	CU_ASSERT_EQUAL(counter_get(&report.counters->doorbells), 3);
	CU_ASSERT_EQUAL(counter_get(&report.counters->interrupts), 609);
	CU_ASSERT_EQUAL(counter_get(&report.counters->errors), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(machine_device_latency(r.m, 0, 0));
	CU_ASSERT_EQUAL(machine_device_latency(r.m, 0, 0)->count, 3);
	ide_rig_close(&r);
}

static void test_multiple(void)
{
	static const uint8_t bad[] = {3, 5, 17, 32, 255};
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	/* off at first */
	ide_issue(&r, 0, 0xc4, 0, 1);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_ABRT);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xc6, 0, 16), 0x50);
	for (unsigned i = 0; i < sizeof(bad); i++) {
		CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xc6, 0, bad[i]), 0x51);
		CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_ABRT);
	}
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(59), 0x0110);
	ide_fill(data, 600, 2);
	for (unsigned n = 1; n <= 16; n *= 2) {
		CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xc6, 0, n), 0x50);
		CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0xc4, 7, 37, n, buf), 0x50);
		CU_ASSERT(ide_is_pattern(buf, 0, 7, 37));
		CU_ASSERT_EQUAL(ide_write_pio(&r, 0, 0xc5, 2000, 37, n, data + n * 512), 0x50);
		CU_ASSERT(ide_on_disk(&r, 0, 2000, 37, data + n * 512));
	}
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x29, 8, 530, 16, buf), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, 8, 530));
	CU_ASSERT_EQUAL(ide_write_pio(&r, 0, 0x39, 3000, 530, 16, data), 0x50);
	CU_ASSERT(ide_on_disk(&r, 0, 3000, 530, data));
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xc6, 0, 0), 0x50);
	ide_issue(&r, 0, 0xc5, 0, 1);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	ide_rig_close(&r);
}

static void chs(struct ide_rig *r, unsigned c, unsigned h, unsigned s, unsigned n, uint8_t op)
{
	ide_out(r, 0, IDE_DEV, 0xa0 | h);
	ide_out(r, 0, IDE_COUNT, n);
	ide_out(r, 0, IDE_LOW, s);
	ide_out(r, 0, IDE_MID, c);
	ide_out(r, 0, IDE_HIGH, c >> 8);
	ide_out(r, 0, IDE_CMD, op);
}

static void test_chs(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	chs(&r, 2, 5, 63, 1, 0x20);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x58);
	ide_in_data(&r, 0, buf, IDE_SECTOR);
	CU_ASSERT(ide_is_pattern(buf, 0, (2 * 16 + 5) * 63 + 62, 1));
	/* sectors count from 1, up to 63; cylinders up to 4 */
	chs(&r, 0, 0, 0, 1, 0x20);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_IDNF);
	chs(&r, 0, 0, 64, 1, 0x20);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	chs(&r, 4, 0, 1, 1, 0x20);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);

	/* INITIALIZE DEVICE PARAMETERS: 4 heads, 17 sectors */
	chs(&r, 0, 3, 1, 17, 0x91);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	chs(&r, 10, 3, 17, 2, 0x20);
	for (unsigned i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x58);
		ide_in_data(&r, 0, buf + i * IDE_SECTOR, IDE_SECTOR);
	}
	CU_ASSERT(ide_is_pattern(buf, 0, (10 * 4 + 3) * 17 + 16, 2));
	chs(&r, 0, 4, 1, 1, 0x20);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(54), SECTORS / 68);
	CU_ASSERT_EQUAL(id_word(55), 4);
	CU_ASSERT_EQUAL(id_word(56), 17);
	CU_ASSERT_EQUAL(id_word(57) | id_word(58) << 16, SECTORS / 68 * 68);
	chs(&r, 0, 3, 1, 0, 0x91);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	ide_rig_close(&r);
}

static void test_range(void)
{
	static const uint8_t ops[] = {0x20, 0x24, 0x30, 0x34, 0x40, 0x42, 0xc8, 0x25, 0xca, 0x35};
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	for (unsigned i = 0; i < sizeof(ops); i++) {
		ide_issue(&r, 0, ops[i], SECTORS, 1);
		CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
		CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_IDNF);
		ide_issue(&r, 0, ops[i], SECTORS - 2, 3);
		CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
		CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_IDNF);
		CU_ASSERT_EQUAL(ide_lba_registers(&r, 0) & 0xffffff, SECTORS);
	}
	/* far beyond */
	ide_issue(&r, 0, 0x24, 0xffffffffffffull, 0);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_IDNF);
	ide_issue(&r, 0, 0x70, SECTORS, 0);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	ide_issue(&r, 0, 0x70, SECTORS - 1, 0);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	/* it still works */
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x20, SECTORS - 2, 2, 1, buf), 0x50);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), 0);
	ide_rig_close(&r);
}

static void test_other_commands(void)
{
	static const uint8_t good[] = {
		0x10, 0x1f, 0x40, 0x42, 0x94, 0x95, 0x96, 0x97, 0xe0, 0xe1, 0xe2, 0xe3, 0xe7, 0xea};
	static const uint8_t aborted[] = {
		0x00, 0x08, 0x22, 0x32, 0x3d, 0x50, 0x92, 0xa2, 0xb0, 0xe4, 0xe8, 0xf1, 0xf9, 0xff};
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	for (unsigned i = 0; i < sizeof(good); i++) {
		ide_address(&r, 0, 0, 1, true);
		CU_ASSERT_EQUAL(ide_simple(&r, 0, good[i], 0, 1), 0x50);
	}
	for (unsigned i = 0; i < sizeof(aborted); i++) {
		CU_ASSERT_EQUAL(ide_simple(&r, 0, aborted[i], 0, 1), 0x51);
		CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_ABRT);
	}
	/* a packet device would have answered otherwise: the signature says what this is */
	ide_address(&r, 0, 0x123456, 9, false);
	ide_out(&r, 0, IDE_CMD, 0xa1);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_ABRT);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_COUNT), 1);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_LOW), 1);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_MID), 0);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_HIGH), 0);

	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xe5, 0, 0), 0x50);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_COUNT), 0xff);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xe0, 0, 0), 0x50);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xe5, 0, 0x77), 0x50);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_COUNT), 0);
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x20, 0, 1, 1, buf), 0x50);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xe5, 0, 0), 0x50);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_COUNT), 0xff);
	ide_rig_close(&r);
}

static void test_set_features(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x03, 0x45), 0x50);
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(88), 0x203f);
	CU_ASSERT_EQUAL(id_word(63), 0x0007);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x03, 0x21), 0x50);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x03, 0x0c), 0x50);
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(88), 0x003f);
	CU_ASSERT_EQUAL(id_word(63), 0x0207);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x03, 0x46), 0x51);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x03, 0x23), 0x51);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x05, 1), 0x51);
	/* cache off, and a write still ends (through a flush); on again */
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x82, 0), 0x50);
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(85) & 0x60, 0x40);
	ide_fill(data, 3, 7);
	CU_ASSERT_EQUAL(ide_write_pio(&r, 0, 0x30, 50, 3, 1, data), 0x50);
	CU_ASSERT(ide_on_disk(&r, 0, 50, 3, data));
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x02, 0), 0x50);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xef, 0x55, 0), 0x50);
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(85) & 0x60, 0x20);
	ide_rig_close(&r);
}

static void test_presence(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	CU_ASSERT_EQUAL(ide_pci_read(&r, 0), 0x70108086);
	CU_ASSERT_EQUAL(ide_pci_read(&r, 8) >> 8, 0x010180);
	CU_ASSERT_EQUAL(ide_pci_read(&r, 0x40) & 0x80008000, 0x80008000);
	CU_ASSERT_NOT_EQUAL(ide_bm(&r, 0), 0);
	/* the absent slave: status 0, commands ignored, device 0's other registers */
	ide_select(&r, 1);
	CU_ASSERT_EQUAL(ide_in(&r, 1, IDE_CMD), 0);
	CU_ASSERT_EQUAL(ide_in(&r, 1, IDE_CTL), 0);
	ide_out(&r, 1, IDE_COUNT, 0x55);
	CU_ASSERT_EQUAL(ide_in(&r, 1, IDE_COUNT), 0x55);
	ide_out(&r, 1, IDE_CMD, 0xec);
	CU_ASSERT_EQUAL(ide_in(&r, 1, IDE_CMD), 0);
	CU_ASSERT_FALSE(ide_line(&r, 0));
	/* nobody at all on the other channel */
	ide_out(&r, 2, IDE_COUNT, 0x55);
	CU_ASSERT_EQUAL(ide_in(&r, 2, IDE_COUNT), 0xff);
	CU_ASSERT_EQUAL(ide_in(&r, 2, IDE_CMD), 0xff);
	CU_ASSERT_EQUAL(ide_in(&r, 2, IDE_CTL), 0xff);
	/* the channel's enable bit */
	machine_port_write(r.m, 0xcf8, 0x80000940, 4);
	machine_port_write(r.m, 0xcfc, 0, 2);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CTL), 0xff);
	machine_port_write(r.m, 0xcfc, 0x8000, 2);
	ide_select(&r, 0);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CTL), 0x50);
	ide_rig_close(&r);
}

static void test_four_disks(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 4, SECTORS);
	for (unsigned d = 0; d < 4; d++) {
		CU_ASSERT_EQUAL(ide_read_pio(&r, d, 0x20, 30 + d, 3, 1, buf), 0x50);
		CU_ASSERT(ide_is_pattern(buf, d, 30 + d, 3));
		ide_fill(data, 2, d);
		CU_ASSERT_EQUAL(ide_write_pio(&r, d, 0x30, 90, 2, 1, data), 0x50);
		CU_ASSERT(ide_on_disk(&r, d, 90, 2, data));
	}
	/* both channels at once, blocks turn about */
	ide_issue(&r, 1, 0x20, 200, 4);
	ide_issue(&r, 2, 0x20, 300, 4);
	for (unsigned i = 0; i < 4; i++) {
		CU_ASSERT_EQUAL(ide_irq_take(&r, 1), 0x58);
		ide_in_data(&r, 1, buf + i * IDE_SECTOR, IDE_SECTOR);
		CU_ASSERT_EQUAL(ide_irq_take(&r, 2), 0x58);
		ide_in_data(&r, 2, data + i * IDE_SECTOR, IDE_SECTOR);
	}
	CU_ASSERT(ide_is_pattern(buf, 1, 200, 4));
	CU_ASSERT(ide_is_pattern(data, 2, 300, 4));
	/* INTRQ is the selected device's alone */
	ide_select(&r, 0);
	ide_out(&r, 0, IDE_CMD, 0xe1);
	CU_ASSERT(ide_line(&r, 0));
	ide_select(&r, 1);
	CU_ASSERT_FALSE(ide_line(&r, 0));
	CU_ASSERT_EQUAL(ide_in(&r, 1, IDE_CMD), 0x50);
	ide_select(&r, 0);
	CU_ASSERT(ide_line(&r, 0));
	/* EXECUTE DEVICE DIAGNOSTIC: both, and device 0 is selected */
	ide_select(&r, 1);
	ide_out(&r, 1, IDE_CMD, 0x90);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), 1);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_DEV), 0);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_COUNT), 1);
	ide_rig_close(&r);
}

static void test_nien(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	ide_out(&r, 0, IDE_CTL, 0x02);
	ide_issue(&r, 0, 0x20, 3, 1);
	CU_ASSERT_EQUAL(ide_poll(&r, 0), 0x58);
	CU_ASSERT_FALSE(ide_line(&r, 0));
	/* pending all the while */
	ide_out(&r, 0, IDE_CTL, 0);
	CU_ASSERT(ide_line(&r, 0));
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CTL), 0x58);
	CU_ASSERT(ide_line(&r, 0));
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_CMD), 0x58);
	CU_ASSERT_FALSE(ide_line(&r, 0));
	ide_in_data(&r, 0, buf, IDE_SECTOR);
	CU_ASSERT(ide_is_pattern(buf, 0, 3, 1));
	CU_ASSERT_EQUAL(r.edges[14], 1);
	ide_rig_close(&r);
}

static void srst(struct ide_rig *r)
{
	ide_out(r, 0, IDE_CTL, 0x04);
	CU_ASSERT_EQUAL(ide_in(r, 0, IDE_CTL), ST_BSY);
	/* a device in reset takes no commands */
	ide_out(r, 0, IDE_CMD, 0xec);
	ide_out(r, 0, IDE_CTL, 0x00);
	CU_ASSERT_EQUAL(ide_poll(r, 0), 0x50);
	CU_ASSERT_EQUAL(ide_in(r, 0, IDE_ERR), 1);
	CU_ASSERT_EQUAL(ide_in(r, 0, IDE_COUNT), 1);
	CU_ASSERT_EQUAL(ide_in(r, 0, IDE_LOW), 1);
	CU_ASSERT_EQUAL(ide_in(r, 0, IDE_MID), 0);
	CU_ASSERT_EQUAL(ide_in(r, 0, IDE_HIGH), 0);
	CU_ASSERT_EQUAL(ide_in(r, 0, IDE_DEV), 0);
	CU_ASSERT_FALSE(ide_line(r, 0));
}

static void test_srst(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	/* with a request in flight (or just back), in mid-read, in mid-write */
	ide_issue(&r, 0, 0x24, 0, 600);
	srst(&r);
	ide_issue(&r, 0, 0x20, 0, 2);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x58);
	ide_in_data(&r, 0, buf, 100);
	srst(&r);
	CU_ASSERT_EQUAL(machine_port_read(r.m, 0x1f0, 2), 0xffff);
	ide_issue(&r, 0, 0x30, 0, 2);
	CU_ASSERT_EQUAL(ide_poll(&r, 0), 0x58);
	ide_fill(data, 2, 3);
	ide_out_data(&r, 0, data, IDE_SECTOR + 8);
	srst(&r);
	ide_out_data(&r, 0, data, IDE_SECTOR);
	ide_pattern(buf, 0, 0);
	CU_ASSERT(ide_on_disk(&r, 0, 0, 1, buf));
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x20, 0, 2, 1, buf), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, 0, 2));

	/* a command instead of the rest of the data ends the transfer before */
	ide_issue(&r, 0, 0x30, 0, 2);
	CU_ASSERT_EQUAL(ide_poll(&r, 0), 0x58);
	identify(&r, 0);
	CU_ASSERT_EQUAL(id_word(0), 0x0040);
	ide_rig_close(&r);
}

static void test_hob(void)
{
	struct ide_rig r;

	ide_rig_open(&r, 1, SECTORS);
	ide_select(&r, 0);
	ide_out(&r, 0, IDE_LOW, 0x12);
	ide_out(&r, 0, IDE_LOW, 0x34);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_LOW), 0x34);
	ide_out(&r, 0, IDE_CTL, 0x80);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_LOW), 0x12);
	ide_out(&r, 0, IDE_COUNT, 1);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_LOW), 0x34);
	ide_rig_close(&r);
}

/* The image loses its end under the machine's feet: sectors before it are good. */
static void test_io_error(void)
{
	struct ide_rig r;
	uint8_t status;

	ide_rig_open(&r, 1, SECTORS);
	CU_ASSERT_EQUAL_FATAL(ftruncate(r.fd[0], 2064 * IDE_SECTOR), 0);
	memset(buf, 0, sizeof(buf));
	status = ide_read_pio(&r, 0, 0x20, 2060, 10, 1, buf);
	CU_ASSERT_EQUAL(status, 0x51);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_UNC);
	CU_ASSERT_EQUAL(ide_lba_registers(&r, 0), 2064);
	CU_ASSERT(ide_is_pattern(buf, 0, 2060, 4));
	/* blocks: the one with the bad sector in it is not given */
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xc6, 0, 8), 0x50);
	status = ide_read_pio(&r, 0, 0xc4, 2050, 32, 8, buf);
	CU_ASSERT_EQUAL(status, 0x51);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_UNC);
	CU_ASSERT_EQUAL(ide_lba_registers(&r, 0), 2064);
	CU_ASSERT(ide_is_pattern(buf, 0, 2050, 8));
	/* READ VERIFY */
	ide_issue(&r, 0, 0x40, 2000, 0);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
	CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_UNC);
	CU_ASSERT_EQUAL(ide_lba_registers(&r, 0), 2064);
	ide_issue(&r, 0, 0x40, 2000, 64);
	CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x50);
	ide_rig_close(&r);
}

static void test_readonly(void)
{
	static const uint8_t ops[] = {0x30, 0x31, 0x34, 0x35, 0x39, 0xc5, 0xca, 0xcb};
	struct ide_rig r;

	ide_rig_init(&r, 1, SECTORS);
	r.readonly = true;
	ide_rig_machine(&r);
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xc6, 0, 8), 0x50);
	for (unsigned i = 0; i < sizeof(ops); i++) {
		ide_issue(&r, 0, ops[i], 0, 1);
		CU_ASSERT_EQUAL(ide_irq_take(&r, 0), 0x51);
		CU_ASSERT_EQUAL(ide_in(&r, 0, IDE_ERR), ER_ABRT);
	}
	CU_ASSERT_EQUAL(ide_read_pio(&r, 0, 0x20, 0, 1, 1, buf), 0x50);
	CU_ASSERT(ide_is_pattern(buf, 0, 0, 1));
	CU_ASSERT_EQUAL(ide_simple(&r, 0, 0xe7, 0, 0), 0x50);
	ide_rig_close(&r);
}

static void test_too_many(void)
{
	struct machine_config cfg;
	struct machine *m = NULL;
	char why[VMM_WHY_MAX] = "";
	int fd;

	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = IDE_MEMORY;
	cfg.ndisks = 5;
	for (unsigned i = 0; i < 5; i++) {
		fd = memfd_create("ide", MFD_CLOEXEC);
		CU_ASSERT_FATAL(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
		cfg.disks[i].fd = fd;
		cfg.disks[i].model = "ide";
	}
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "ide"));
	/* how many were taken over before it failed is the machine's business */
	for (unsigned i = 0; i < 5; i++)
		close(cfg.disks[i].fd);
}

static const struct unit_case cases[] = {
	{"IDENTIFY DEVICE", test_identify},
	{"a disk beyond 28 bits", test_identify_large},
	{"PIO reads", test_pio_read},
	{"PIO writes", test_pio_write},
	{"MULTIPLE", test_multiple},
	{"cylinders, heads and sectors", test_chs},
	{"addresses beyond the end", test_range},
	{"other commands", test_other_commands},
	{"SET FEATURES", test_set_features},
	{"who answers", test_presence},
	{"four disks", test_four_disks},
	{"nIEN", test_nien},
	{"software reset", test_srst},
	{"HOB", test_hob},
	{"sectors that cannot be read", test_io_error},
	{"a read-only image", test_readonly},
	{"a fifth disk", test_too_many},
};

UNIT_MAIN("ide", cases)
