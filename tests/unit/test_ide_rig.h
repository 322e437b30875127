/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the IDE model share: a machine without vCPUs, disks in memory with a pattern in
 * them, and a small driver that talks to ports as a guest would.
 */
#ifndef TEST_IDE_RIG_H
#define TEST_IDE_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

#define IDE_HANG_S 30
#define IDE_MEMORY (4ull << 20)
#define IDE_SECTOR 512u

/* Offsets in the command block; the control block is IDE_CTL. */
enum { IDE_DATA, IDE_ERR, IDE_COUNT, IDE_LOW, IDE_MID, IDE_HIGH, IDE_DEV, IDE_CMD, IDE_CTL };

enum {
	ST_ERR = 0x01,
	ST_DRQ = 0x08,
	ST_DF = 0x20,
	ST_DRDY = 0x40,
	ST_BSY = 0x80,
	ER_ABRT = 0x04,
	ER_IDNF = 0x10,
	ER_UNC = 0x40,
};

struct ide_rig {
	struct machine *m;
	int fd[4]; /* the images, as the host sees them */
	uint64_t sectors;
	unsigned disks;
	bool readonly;
	const char *model; /* NULL: ide */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool level[16];
	unsigned edges[16];
};

static inline void ide_hook(void *ctx, int gsi, bool level, uint64_t address, uint32_t data)
{
	struct ide_rig *r = ctx;

	(void)address;
	(void)data;
	if (gsi < 0 || gsi > 15)
		return;
	pthread_mutex_lock(&r->lock);
	r->edges[gsi] += level && !r->level[gsi];
	r->level[gsi] = level;
	pthread_cond_broadcast(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

/* What sector lba of disk d holds at first. */
static inline void ide_pattern(uint8_t to[IDE_SECTOR], unsigned d, uint64_t lba)
{
	uint64_t word;

	for (unsigned i = 0; i < IDE_SECTOR / 8; i++) {
		word = (lba * 64 + i + 1) * 0x9e3779b97f4a7c15ull + d;
		memcpy(to + 8 * i, &word, 8);
	}
}

static inline void ide_rig_machine(struct ide_rig *r)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX] = "";
	int rc;

	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = IDE_MEMORY;
	cfg.interrupt_hook = ide_hook;
	cfg.interrupt_ctx = r;
	cfg.ndisks = r->disks;
	for (unsigned i = 0; i < r->disks; i++) {
		cfg.disks[i].fd = dup(r->fd[i]);
		cfg.disks[i].model = r->model ? r->model : "ide";
		cfg.disks[i].readonly = r->readonly;
		cfg.disks[i].serial = i ? NULL : "SN-0123456789";
	}
	rc = machine_create(&r->m, &cfg, why);
	if (rc)
		printf(" (%s) ", why);
	CU_ASSERT_EQUAL_FATAL(rc, 0);
}

static inline void ide_rig_init(struct ide_rig *r, unsigned disks, uint64_t sectors)
{
	uint8_t sector[IDE_SECTOR];

	memset(r, 0, sizeof(*r));
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->cond, NULL);
	r->disks = disks;
	r->sectors = sectors;
	for (unsigned d = 0; d < disks; d++) {
		r->fd[d] = memfd_create("ide", MFD_CLOEXEC);
		CU_ASSERT_FATAL(r->fd[d] >= 0);
		CU_ASSERT_FATAL(ftruncate(r->fd[d], sectors * IDE_SECTOR) == 0);
		/* the whole of small disks, both ends of large ones */
		for (uint64_t lba = 0; lba < sectors; lba++) {
			if (lba == 4096 && sectors > 8192)
				lba = sectors - 1024;
			ide_pattern(sector, d, lba);
			CU_ASSERT_FATAL(pwrite(r->fd[d], sector, IDE_SECTOR, lba * IDE_SECTOR) ==
					IDE_SECTOR);
		}
	}
}

static inline void ide_rig_open(struct ide_rig *r, unsigned disks, uint64_t sectors)
{
	ide_rig_init(r, disks, sectors);
	ide_rig_machine(r);
}

static inline void ide_rig_close(struct ide_rig *r)
{
	machine_destroy(r->m);
	for (unsigned d = 0; d < r->disks; d++)
		close(r->fd[d]);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->cond);
}

/* ------------------------------------------------------------------ ports */

static inline uint16_t ide_port(unsigned disk, unsigned reg)
{
	uint16_t base = disk & 2 ? 0x170 : 0x1f0;

	return base + (reg == IDE_CTL ? 0x206 : reg);
}

static inline uint8_t ide_in(struct ide_rig *r, unsigned disk, unsigned reg)
{
	return machine_port_read(r->m, ide_port(disk, reg), 1);
}

static inline void ide_out(struct ide_rig *r, unsigned disk, unsigned reg, uint8_t value)
{
	machine_port_write(r->m, ide_port(disk, reg), value, 1);
}

static inline bool ide_line(struct ide_rig *r, unsigned disk)
{
	bool level;

	pthread_mutex_lock(&r->lock);
	level = r->level[disk & 2 ? 15 : 14];
	pthread_mutex_unlock(&r->lock);
	return level;
}

/* Waits for INTRQ and takes it: the status it was for. */
static inline uint8_t ide_irq_take(struct ide_rig *r, unsigned disk)
{
	bool *level = &r->level[disk & 2 ? 15 : 14];
	struct timespec end;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += IDE_HANG_S;
	pthread_mutex_lock(&r->lock);
	while (!*level && !rc)
		rc = pthread_cond_timedwait(&r->cond, &r->lock, &end);
	pthread_mutex_unlock(&r->lock);
	CU_ASSERT_EQUAL_FATAL(rc, 0);
	return ide_in(r, disk, IDE_CMD);
}

/* Waits without interrupts, and without taking one. */
static inline uint8_t ide_poll(struct ide_rig *r, unsigned disk)
{
	time_t end = time(NULL) + IDE_HANG_S;
	uint8_t status;

	while ((status = ide_in(r, disk, IDE_CTL)) & ST_BSY) {
		CU_ASSERT_FATAL(time(NULL) < end);
		usleep(50);
	}
	return status;
}

static inline void ide_in_data(struct ide_rig *r, unsigned disk, void *buf, size_t bytes)
{
	uint8_t *to = buf;
	uint32_t value;

	/* both widths, turn about */
	for (size_t i = 0; i < bytes; i += 4) {
		if (i & 4) {
			value = machine_port_read(r->m, ide_port(disk, 0), 4);
		} else {
			value = machine_port_read(r->m, ide_port(disk, 0), 2) & 0xffff;
			value |= machine_port_read(r->m, ide_port(disk, 0), 2) << 16;
		}
		memcpy(to + i, &value, 4);
	}
}

static inline void ide_out_data(struct ide_rig *r, unsigned disk, const void *buf, size_t bytes)
{
	const uint8_t *from = buf;
	uint32_t value;

	for (size_t i = 0; i < bytes; i += 4) {
		memcpy(&value, from + i, 4);
		if (i & 4) {
			machine_port_write(r->m, ide_port(disk, 0), value, 4);
		} else {
			machine_port_write(r->m, ide_port(disk, 0), value & 0xffff, 2);
			machine_port_write(r->m, ide_port(disk, 0), value >> 16, 2);
		}
	}
}

/* ------------------------------------------------------------------ commands */

static inline void ide_select(struct ide_rig *r, unsigned disk)
{
	ide_out(r, disk, IDE_DEV, 0xe0 | (disk & 1) << 4);
}

/* 28 bits unless ext. */
static inline void ide_address(
	struct ide_rig *r, unsigned disk, uint64_t lba, unsigned count, bool ext)
{
	ide_out(r, disk, IDE_DEV, 0xe0 | (disk & 1) << 4 | (ext ? 0 : lba >> 24 & 15));
	if (ext) {
		ide_out(r, disk, IDE_COUNT, count >> 8);
		ide_out(r, disk, IDE_LOW, lba >> 24);
		ide_out(r, disk, IDE_MID, lba >> 32);
		ide_out(r, disk, IDE_HIGH, lba >> 40);
	}
	ide_out(r, disk, IDE_COUNT, count);
	ide_out(r, disk, IDE_LOW, lba);
	ide_out(r, disk, IDE_MID, lba >> 8);
	ide_out(r, disk, IDE_HIGH, lba >> 16);
}

static inline bool ide_opcode_ext(uint8_t op)
{
	return op == 0x24 || op == 0x25 || op == 0x27 || op == 0x29 || op == 0x34 || op == 0x35 ||
	       op == 0x39 || op == 0x42;
}

static inline void ide_issue(
	struct ide_rig *r, unsigned disk, uint8_t op, uint64_t lba, unsigned count)
{
	ide_address(r, disk, lba, count, ide_opcode_ext(op));
	ide_out(r, disk, IDE_CMD, op);
}

/* A command without data: its status. */
static inline uint8_t ide_simple(
	struct ide_rig *r, unsigned disk, uint8_t op, uint8_t feature, uint8_t count)
{
	ide_select(r, disk);
	ide_out(r, disk, IDE_ERR, feature);
	ide_out(r, disk, IDE_COUNT, count);
	ide_out(r, disk, IDE_CMD, op);
	return ide_irq_take(r, disk);
}

/* PIO data-in by interrupts, `block` sectors each: the last status. */
static inline uint8_t ide_read_pio(struct ide_rig *r, unsigned disk, uint8_t op, uint64_t lba,
	unsigned count, unsigned block, uint8_t *to)
{
	uint8_t status = 0;

	ide_issue(r, disk, op, lba, count);
	while (count) {
		unsigned n = count < block ? count : block;

		status = ide_irq_take(r, disk);
		if (!(status & ST_DRQ))
			return status;
		CU_ASSERT_EQUAL(status, 0x58);
		ide_in_data(r, disk, to, n * IDE_SECTOR);
		to += n * IDE_SECTOR;
		count -= n;
	}
	CU_ASSERT_FALSE(ide_line(r, disk));
	return ide_in(r, disk, IDE_CMD);
}

static inline uint8_t ide_write_pio(struct ide_rig *r, unsigned disk, uint8_t op, uint64_t lba,
	unsigned count, unsigned block, const uint8_t *from)
{
	uint8_t status;

	ide_issue(r, disk, op, lba, count);
	status = ide_poll(r, disk);
	CU_ASSERT_FALSE(ide_line(r, disk) && (status & ST_DRQ));
	while (count && (status & ST_DRQ)) {
		unsigned n = count < block ? count : block;

		ide_out_data(r, disk, from, n * IDE_SECTOR);
		from += n * IDE_SECTOR;
		count -= n;
		status = ide_irq_take(r, disk);
	}
	return status;
}

/* ------------------------------------------------------------------ checks */

static inline bool ide_is_pattern(const uint8_t *data, unsigned d, uint64_t lba, unsigned count)
{
	uint8_t sector[IDE_SECTOR];

	for (unsigned i = 0; i < count; i++) {
		ide_pattern(sector, d, lba + i);
		if (memcmp(sector, data + i * IDE_SECTOR, IDE_SECTOR))
			return false;
	}
	return true;
}

/* Do the image's sectors hold these bytes? */
static inline bool ide_on_disk(
	struct ide_rig *r, unsigned d, uint64_t lba, unsigned count, const uint8_t *data)
{
	uint8_t sector[IDE_SECTOR];

	for (unsigned i = 0; i < count; i++)
		if (pread(r->fd[d], sector, IDE_SECTOR, (lba + i) * IDE_SECTOR) != IDE_SECTOR ||
			memcmp(sector, data + i * IDE_SECTOR, IDE_SECTOR))
			return false;
	return true;
}

static inline void ide_fill(uint8_t *to, unsigned count, unsigned seed)
{
	for (unsigned i = 0; i < count; i++)
		ide_pattern(to + i * IDE_SECTOR, 1000 + seed, i);
}

static inline uint64_t ide_lba_registers(struct ide_rig *r, unsigned disk)
{
	return ide_in(r, disk, IDE_LOW) | ide_in(r, disk, IDE_MID) << 8 |
	       ide_in(r, disk, IDE_HIGH) << 16 | (uint64_t)(ide_in(r, disk, IDE_DEV) & 15) << 24;
}

/* ------------------------------------------------------------------ bus master */

static inline uint32_t ide_pci_read(struct ide_rig *r, unsigned offset)
{
	machine_port_write(r->m, 0xcf8, 0x80000000 | 1 << 11 | 1 << 8 | offset, 4);
	return machine_port_read(r->m, 0xcfc, 4);
}

static inline uint16_t ide_bm(struct ide_rig *r, unsigned disk)
{
	return (ide_pci_read(r, 0x20) & 0xfff0) + (disk & 2 ? 8 : 0);
}

static inline uint8_t *ide_memory(struct ide_rig *r, uint32_t gpa, uint32_t len)
{
	uint8_t *host = ring_mem_translate(machine_memory(r->m), gpa, len, RING_WRITE);

	CU_ASSERT_PTR_NOT_NULL_FATAL(host);
	return host;
}

struct ide_prd {
	uint32_t address;
	uint32_t count; /* bit 31: the last */
};

#define IDE_PRD_LAST 0x80000000u

static inline void ide_bm_setup(
	struct ide_rig *r, unsigned disk, uint32_t table, const struct ide_prd *prd, unsigned n)
{
	if (n)
		memcpy(ide_memory(r, table, n * sizeof(*prd)), prd, n * sizeof(*prd));
	machine_port_write(r->m, ide_bm(r, disk) + 4, table, 4);
	machine_port_write(r->m, ide_bm(r, disk) + 2, 0x06, 1);
}

static inline void ide_bm_command(struct ide_rig *r, unsigned disk, uint8_t value)
{
	machine_port_write(r->m, ide_bm(r, disk), value, 1);
}

static inline uint8_t ide_bm_status(struct ide_rig *r, unsigned disk)
{
	return machine_port_read(r->m, ide_bm(r, disk) + 2, 1);
}

/* A whole DMA command as drivers do it; the bus master's status in *bm when it ends. */
static inline uint8_t ide_dma(struct ide_rig *r, unsigned disk, uint8_t op, uint64_t lba,
	unsigned count, uint32_t table, uint8_t *bm)
{
	uint8_t dir = op == 0xca || op == 0x35 ? 0 : 8, status;

	ide_bm_setup(r, disk, table, NULL, 0);
	ide_bm_command(r, disk, dir);
	ide_issue(r, disk, op, lba, count);
	ide_bm_command(r, disk, dir | 1);
	status = ide_irq_take(r, disk);
	*bm = ide_bm_status(r, disk);
	ide_bm_command(r, disk, dir);
	return status;
}

#endif
