/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Firmware's surroundings without a processor: the image and the memory attributes below 1 MiB,
 * fw_cfg by its ports and by DMA, the ACPI tables as the table loader leaves them, POST codes and
 * the log.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

#define IMAGE   0x20000u
#define SCRATCH 0x200000u
#define MEMORY  (64u << 20)

static struct machine *m;
static char path[64], why[VMM_WHY_MAX];

/* Each byte of the image says where it is. */
static uint8_t image_byte(uint32_t at)
{
	return (uint8_t)(at * 7 + (at >> 8));
}

static void image_make(size_t size)
{
	uint8_t *bytes = malloc(size + 1);
	int fd;

	snprintf(path, sizeof(path), "build/tmp/firmware.%d", (int)getpid());
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0 && bytes);
	for (size_t i = 0; i < size; i++)
		bytes[i] = image_byte((uint32_t)i);
	CU_ASSERT_FATAL(write(fd, bytes, size) == (ssize_t)size);
	close(fd);
	free(bytes);
}

static int machine_try(size_t size, int log, const char *vars_path)
{
	struct machine_config cfg;
	int rc;

	image_make(size);
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = MEMORY;
	cfg.cpus = 3;
	cfg.firmware = path;
	cfg.firmware_log = log;
	cfg.firmware_vars = vars_path;
	rc = machine_create(&m, &cfg, why);
	unlink(path);
	return rc;
}

static void machine_open(void)
{
	CU_ASSERT_EQUAL_FATAL(machine_try(IMAGE, -1, NULL), 0);
}

static void *ram(uint64_t gpa, uint64_t len)
{
	void *p = ring_mem_translate(machine_memory(m), gpa, len, RING_WRITE);

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	return p;
}

static void test_sizes(void)
{
	static const size_t good[] = {0x10000, 0x20000, 0x30000, 0x40000, 0x37c000};
	static const size_t bad[] = {0, 1, 0xf000, 0xffff, 0x10001, 0xc01000};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		CU_ASSERT_EQUAL_FATAL(machine_try(good[i], -1, NULL), 0);
		CU_ASSERT_EQUAL(machine_mmio_read(m, 0xfffff, 1), image_byte(good[i] - 1));
		machine_destroy(m);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CU_ASSERT_EQUAL(machine_try(bad[i], -1, NULL), -EINVAL);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, "64 KiB to 12 MiB"));
	}
}

/* ------------------------------------------------------------------ memory below 1 MiB */

static void pam_write(unsigned reg, uint8_t value)
{
	machine_port_write(m, 0xcf8, 0x80000000u | ((0x59 + reg) & ~3u), 4);
	machine_port_write(m, 0xcfc + ((0x59 + reg) & 3), value, 1);
}

static uint8_t pam_read(unsigned reg)
{
	machine_port_write(m, 0xcf8, 0x80000000u | ((0x59 + reg) & ~3u), 4);
	return (uint8_t)machine_port_read(m, 0xcfc + ((0x59 + reg) & 3), 1);
}

static void segment_check(uint32_t base, uint32_t size, unsigned reg, unsigned shift)
{
	const uint32_t last = base + size - 1;
	const bool image = base >= 0xe0000;
	const uint8_t rom = image ? image_byte(last - 0xe0000) : 0xff;
	uint8_t *under = ram(last, 1);

	*under = 0x11;
	/* neither: what is there is read, and writes are lost */
	CU_ASSERT_EQUAL(machine_mmio_read(m, last, 1), rom);
	machine_mmio_write(m, last, 0x22, 1);
	CU_ASSERT_EQUAL(*under, 0x11);
	/* written to RAM, still read from what is there: how a BIOS is copied */
	pam_write(reg, (uint8_t)(2u << shift));
	CU_ASSERT_EQUAL(machine_mmio_read(m, last, 1), rom);
	machine_mmio_write(m, last, 0x33, 1);
	CU_ASSERT_EQUAL(machine_mmio_read(m, last, 1), rom);
	CU_ASSERT_EQUAL(*under, 0x33);
	/* read only */
	pam_write(reg, (uint8_t)(1u << shift));
	CU_ASSERT_EQUAL(machine_mmio_read(m, last, 1), 0x33);
	machine_mmio_write(m, last, 0x44, 1);
	CU_ASSERT_EQUAL(machine_mmio_read(m, last, 1), 0x33);
	/* RAM; the neighbours are what they were */
	pam_write(reg, (uint8_t)(3u << shift));
	CU_ASSERT_EQUAL(pam_read(reg), 3u << shift);
	machine_mmio_write(m, last, 0x55, 1);
	CU_ASSERT_EQUAL(machine_mmio_read(m, last, 1), 0x55);
	machine_mmio_write(m, base, 0x66, 1);
	CU_ASSERT_EQUAL(machine_mmio_read(m, base, 1), 0x66);
	if (base > 0xc0000)
		CU_ASSERT_EQUAL(machine_mmio_read(m, base - 1, 1),
			base > 0xe0000 ? image_byte(base - 1 - 0xe0000) : 0xff);
	pam_write(reg, 0);
	CU_ASSERT_EQUAL(machine_mmio_read(m, last, 1), rom);
}

static void test_attributes(void)
{
	machine_open();
	segment_check(0xf0000, 0x10000, 0, 4);
	for (unsigned i = 0; i < 12; i++)
		segment_check(0xc0000 + i * 0x4000, 0x4000, 1 + i / 2, i % 2 * 4);
	/* reserved bits stay 0 */
	pam_write(0, 0xff);
	CU_ASSERT_EQUAL(pam_read(0), 0x30);
	pam_write(6, 0xff);
	CU_ASSERT_EQUAL(pam_read(6), 0x33);
	/* a reset begins with the image */
	*(uint8_t *)ram(0xfffff, 1) = 0x77;
	CU_ASSERT_EQUAL(machine_mmio_read(m, 0xfffff, 1), 0x77);
	CU_ASSERT_EQUAL(machine_reset(m, why), 0);
	CU_ASSERT_EQUAL(pam_read(0), 0);
	CU_ASSERT_EQUAL(machine_mmio_read(m, 0xfffff, 1), image_byte(0x1ffff));
	machine_destroy(m);
}

/* ------------------------------------------------------------------ fw_cfg */

static void pio_read(uint16_t key, void *to, size_t len)
{
	machine_port_write(m, 0x510, key, 2);
	for (size_t i = 0; i < len; i++)
		((uint8_t *)to)[i] = (uint8_t)machine_port_read(m, 0x511, 1);
}

/* The key of a file; its size. 0: there is none. */
static uint16_t file_find(const char *name, uint32_t *size)
{
	uint8_t entry[64];
	uint32_t n;

	*size = 0;
	pio_read(0x19, &n, 4);
	n = be32toh(n);
	CU_ASSERT_FATAL(n < 64);
	for (uint32_t i = 0; i < n; i++) {
		for (size_t b = 0; b < sizeof(entry); b++)
			entry[b] = (uint8_t)machine_port_read(m, 0x511, 1);
		if (strncmp((char *)entry + 8, name, 56) != 0)
			continue;
		memcpy(size, entry, 4);
		*size = be32toh(*size);
		return (uint16_t)(entry[4] << 8 | entry[5]);
	}
	return 0;
}

static uint8_t *file_get(const char *name, uint32_t *size)
{
	uint16_t key = file_find(name, size);
	uint8_t *bytes = malloc(*size + 1);

	if (!bytes)
		abort();
	CU_ASSERT_FATAL(key >= 0x20);
	pio_read(key, bytes, *size);
	return bytes;
}

/* control, length, address; the control word afterwards. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
	uint32_t *access = ram(SCRATCH, 16), word;

	access[0] = htobe32(control);
	access[1] = htobe32(length);
	access[2] = htobe32((uint32_t)(address >> 32));
	access[3] = htobe32((uint32_t)address);
	machine_port_write(m, 0x514, 0, 4);
	machine_port_write(m, 0x518, htobe32(SCRATCH), 4);
	memcpy(&word, access, 4);
	return be32toh(word);
}

static void test_fw_cfg(void)
{
	uint8_t bytes[32], *target;
	uint64_t ram_size;
	uint32_t size = 0;
	uint16_t cpus, key;

	machine_open();
	pio_read(0, bytes, 6);
	CU_ASSERT_EQUAL(memcmp(bytes, "QEMU\0\0", 6), 0); /* zeros beyond the end */
	pio_read(1, bytes, 4);
	CU_ASSERT_EQUAL(bytes[0], 3);
	pio_read(3, &ram_size, 8);
	CU_ASSERT_EQUAL(le64toh(ram_size), MEMORY);
	pio_read(5, &cpus, 2);
	CU_ASSERT_EQUAL(le16toh(cpus), 3);
	pio_read(0x3fff, bytes, 1);
	CU_ASSERT_EQUAL(bytes[0], 0);
	/* the signature of the DMA interface, from the top */
	CU_ASSERT_EQUAL(be32toh((uint32_t)machine_port_read(m, 0x514, 4)), 0x51454d55);
	CU_ASSERT_EQUAL(be32toh((uint32_t)machine_port_read(m, 0x518, 4)), 0x20434647);

	target = ram(SCRATCH + 4096, 64);
	memset(target, 0xaa, 64);
	CU_ASSERT_EQUAL(dma(0u << 16 | 8 | 2, 8, SCRATCH + 4096), 0);
	CU_ASSERT_EQUAL(memcmp(target, "QEMU\0\0\0\0\xaa", 9), 0);
	/* in two, and with a gap */
	CU_ASSERT_EQUAL(dma(8, 0, 0), 0);
	CU_ASSERT_EQUAL(dma(2, 1, SCRATCH + 4096), 0);
	CU_ASSERT_EQUAL(dma(4, 2, 0), 0);
	CU_ASSERT_EQUAL(dma(2, 1, SCRATCH + 4097), 0);
	CU_ASSERT_EQUAL(memcmp(target, "QU", 2), 0);
	CU_ASSERT_EQUAL(dma(4, UINT32_MAX, 0), 0);
	CU_ASSERT_EQUAL(dma(2, 1, SCRATCH + 4096), 0);
	CU_ASSERT_EQUAL(target[0], 0);
	/* not into what is no memory; nothing is written */
	CU_ASSERT_EQUAL(dma(8 | 2, 4, 0xf0000000), 1);
	CU_ASSERT_EQUAL(dma(8 | 2, UINT32_MAX, SCRATCH), 1);
	CU_ASSERT_EQUAL(dma(8 | 0x10, 4, SCRATCH + 4096), 1);
	machine_port_write(m, 0x514, 0, 4);
	machine_port_write(m, 0x518, htobe32(0xf0000000), 4);
	/* files */
	key = file_find("etc/e820", &size);
	CU_ASSERT(key >= 0x20);
	CU_ASSERT_EQUAL(size, 20);
	pio_read(key, bytes, 20);
	CU_ASSERT_EQUAL(memcmp(bytes, "\0\0\0\0\0\0\0\0\0\0\0\4\0\0\0\0\1\0\0\0", 20), 0);
	CU_ASSERT_EQUAL(file_find("etc/nothing", &size), 0);
	machine_destroy(m);
}

/* ------------------------------------------------------------------ the table loader */

static uint8_t sum(const uint8_t *bytes, uint32_t len)
{
	uint8_t s = 0;

	while (len--)
		s += *bytes++;
	return s;
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, 4);
	return v;
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, 8);
	return v;
}

/* What SeaBIOS does: files come to lie somewhere, pointers become addresses, sums are made good. */
static void test_loader(void)
{
	const uint64_t where[2] = {0x3ff0000, 0xf5000};
	uint32_t size[2], len, allocated = 0;
	uint8_t *file[2], *script, *tables, *xsdt, *fadt = NULL;

	machine_open();
	tables = file[0] = file_get("etc/acpi/tables", &size[0]);
	file[1] = file_get("etc/acpi/rsdp", &size[1]);
	script = file_get("etc/table-loader", &len);
	CU_ASSERT_EQUAL(len % 128, 0);
	for (uint32_t at = 0; at < len; at += 128) {
		const uint8_t *e = script + at + 4;
		unsigned which = !strcmp((const char *)e, "etc/acpi/rsdp");
		uint32_t a = get32(e + (get32(script + at) == 2 ? 112 : 56));

		if (get32(script + at) == 1) {
			CU_ASSERT_EQUAL(where[which] % a, 0);
			CU_ASSERT_EQUAL(e[60], which + 1);
			allocated |= 1u << which;
		} else if (get32(script + at) == 2) {
			uint64_t v = e[116] == 8 ? get64(file[which] + a) : get32(file[which] + a);

			CU_ASSERT_STRING_EQUAL((const char *)e + 56, "etc/acpi/tables");
			CU_ASSERT_FATAL(a + e[116] <= size[which] && v < size[0]);
			v += where[0];
			memcpy(file[which] + a, &v, e[116]);
		} else {
			uint32_t start = get32(e + 60), n = get32(e + 64);

			CU_ASSERT_EQUAL_FATAL(get32(script + at), 3);
			CU_ASSERT_FATAL(start + n <= size[which] && a < size[which]);
			file[which][a] -= sum(file[which] + start, n);
		}
	}
	CU_ASSERT_EQUAL(allocated, 3);
	CU_ASSERT_EQUAL(size[1], 36);
	CU_ASSERT_EQUAL(memcmp(file[1], "RSD PTR ", 8), 0);
	CU_ASSERT_EQUAL(sum(file[1], 20), 0);
	CU_ASSERT_EQUAL(sum(file[1], 36), 0);
	xsdt = tables + (get64(file[1] + 24) - where[0]);
	CU_ASSERT_EQUAL(memcmp(xsdt, "XSDT", 4), 0);
	CU_ASSERT_EQUAL(sum(xsdt, get32(xsdt + 4)), 0);
	CU_ASSERT_EQUAL(get32(xsdt + 4), 36 + 2 * 8);
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *table = tables + (get64(xsdt + 36 + 8 * i) - where[0]);

		CU_ASSERT_EQUAL(sum(table, get32(table + 4)), 0);
		if (!memcmp(table, "FACP", 4))
			fadt = table;
	}
	if (!fadt) {
		CU_FAIL_FATAL("no FADT");
		return;
	}
	CU_ASSERT_EQUAL(memcmp(tables + (get32(fadt + 36) - where[0]), "FACS", 4), 0);
	CU_ASSERT_EQUAL(get32(fadt + 40), get64(fadt + 140));
	CU_ASSERT_EQUAL(memcmp(tables + (get32(fadt + 40) - where[0]), "DSDT", 4), 0);
	free(script);
	free(file[0]);
	free(file[1]);
	machine_destroy(m);
}

/* ------------------------------------------------------------------ what it says */

static void test_said(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	char text[16];
	int pipe_fd[2];

	CU_ASSERT_FATAL(pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK) == 0);
	CU_ASSERT_EQUAL_FATAL(machine_try(IMAGE, pipe_fd[1], NULL), 0);
	CU_ASSERT_EQUAL(machine_port_read(m, 0x402, 1), 0xe9);
	machine_port_write(m, 0x402, 'h', 1);
	machine_port_write(m, 0x402, 'i', 1);
	CU_ASSERT_EQUAL(read(pipe_fd[0], text, sizeof(text)), 2);
	CU_ASSERT_EQUAL(memcmp(text, "hi", 2), 0);
	CU_ASSERT_EQUAL(machine_port_read(m, 0x80, 1), 0);
	machine_port_write(m, 0x80, 0xa5, 1);
	CU_ASSERT_EQUAL(machine_port_read(m, 0x80, 1), 0xa5);
	/* half a file is read; the other half follows where it was loaded */
	pam_write(0, 0x30);
	machine_port_write(m, 0x510, 0, 2);
	CU_ASSERT_EQUAL(machine_port_read(m, 0x511, 1), 'Q');
	CU_ASSERT_EQUAL(machine_pause(m), 0);
	CU_ASSERT_EQUAL_FATAL(machine_save(m, &w), 0);
	machine_destroy(m);
	machine_open();
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL_FATAL(machine_load(m, &r, why), 0);
	CU_ASSERT_EQUAL(machine_resume(m), 0);
	CU_ASSERT_EQUAL(machine_port_read(m, 0x511, 1), 'E');
	CU_ASSERT_EQUAL(machine_port_read(m, 0x80, 1), 0xa5);
	machine_mmio_write(m, 0xfffff, 0x12, 1);
	CU_ASSERT_EQUAL(machine_mmio_read(m, 0xfffff, 1), 0x12);
	state_writer_free(&w);
	machine_destroy(m);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

/* ------------------------------------------------------------------ flash */

#define VARS      0x3000u
#define VARS_BASE (0x100000000ull - IMAGE - VARS)

static char vars[64];

static int vars_machine(void)
{
	return machine_try(IMAGE, -1, vars);
}

static void vars_make(size_t size)
{
	snprintf(vars, sizeof(vars), "build/tmp/vars.%d", (int)getpid());
	image_make(size);
	CU_ASSERT_FATAL(rename(path, vars) == 0);
}

static uint8_t fl(uint32_t at)
{
	return (uint8_t)machine_mmio_read(m, VARS_BASE + at, 1);
}

static void fl_write(uint32_t at, uint8_t v)
{
	machine_mmio_write(m, VARS_BASE + at, v, 1);
}

static void test_flash(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	struct machine *other;
	uint8_t byte;
	int fd;

	vars_make(VARS);
	CU_ASSERT_EQUAL_FATAL(vars_machine(), 0);
	other = m;
	CU_ASSERT_EQUAL(vars_machine(), -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "in use by another guest"));
	m = other;
	/* read as memory, at any width */
	for (uint32_t i = 0; i < VARS; i += 97)
		CU_ASSERT_EQUAL(fl(i), image_byte(i));
	CU_ASSERT_EQUAL(machine_mmio_read(m, VARS_BASE + 8, 4),
		(uint32_t)(image_byte(8) | image_byte(9) << 8 | image_byte(10) << 16) |
			(uint32_t)image_byte(11) << 24);
	/* how it is known from RAM and ROM */
	fl_write(0, 0x50);
	CU_ASSERT_EQUAL(fl(0), image_byte(0));
	fl_write(0, 0x70);
	CU_ASSERT_EQUAL(fl(0), 0);
	fl_write(0, 0xff);
	CU_ASSERT_EQUAL(fl(0), image_byte(0));
	fl_write(0, 0x90);
	CU_ASSERT_EQUAL(fl(0), 0x89);
	/* programming clears bits only */
	fl_write(0x1005, 0x10);
	fl_write(0x1005, 0xf0);
	CU_ASSERT_EQUAL(fl(0), 0x80);
	fl_write(0x1005, 0x40);
	fl_write(0x1005, 0x3f);
	fl_write(0, 0xff);
	CU_ASSERT_EQUAL(fl(0x1005), image_byte(0x1005) & 0x30);
	/* a block is erased, its neighbours are not; without confirmation nothing is */
	fl_write(0x1800, 0x20);
	fl_write(0x1800, 0xff);
	CU_ASSERT_EQUAL(fl(0), 0xb0);
	fl_write(0x1800, 0x50);
	fl_write(0x1800, 0x20);
	fl_write(0x1800, 0xd0);
	CU_ASSERT_EQUAL(fl(0), 0x80);
	fl_write(0, 0xff);
	CU_ASSERT_EQUAL(fl(0x0fff), image_byte(0x0fff));
	CU_ASSERT_EQUAL(fl(0x1000), 0xff);
	CU_ASSERT_EQUAL(fl(0x1fff), 0xff);
	CU_ASSERT_EQUAL(fl(0x2000), image_byte(0x2000));
	/* in the file at once */
	fl_write(0x1234, 0x10);
	fl_write(0x1234, 0x5a);
	fd = open(vars, O_RDONLY | O_CLOEXEC);
	CU_ASSERT(pread(fd, &byte, 1, 0x1234) == 1 && byte == 0x5a);
	/* saved in the middle of a command */
	fl_write(0x1235, 0x10);
	CU_ASSERT_EQUAL(machine_pause(m), 0);
	CU_ASSERT_EQUAL_FATAL(machine_save(m, &w), 0);
	machine_destroy(m);
	CU_ASSERT_EQUAL_FATAL(vars_machine(), 0);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL_FATAL(machine_load(m, &r, why), 0);
	CU_ASSERT_EQUAL(machine_resume(m), 0);
	fl_write(0x1235, 0x77);
	CU_ASSERT(pread(fd, &byte, 1, 0x1235) == 1 && byte == 0x77);
	CU_ASSERT_EQUAL(machine_pause(m), 0);
	CU_ASSERT_EQUAL(machine_reset(m, why), 0);
	CU_ASSERT_EQUAL(fl(0x1235), 0x77);
	state_writer_free(&w);
	machine_destroy(m);
	close(fd);
	vars_make(VARS + 1);
	CU_ASSERT_EQUAL(vars_machine(), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "multiple of 4 KiB"));
	unlink(vars);
	CU_ASSERT_EQUAL(vars_machine(), -ENOENT);
}

static void test_both(void)
{
	struct machine_config cfg;

	image_make(IMAGE);
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.firmware = cfg.kernel = path;
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "give one of them"));
	unlink(path);
	cfg.kernel = NULL;
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -ENOENT);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "--firmware"));
}

static const struct unit_case cases[] = {
	{"sizes of the image", test_sizes},
	{"memory attributes", test_attributes},
	{"fw_cfg", test_fw_cfg},
	{"table loader", test_loader},
	{"what it says; saved and loaded", test_said},
	{"flash", test_flash},
	{"a kernel as well", test_both},
};

UNIT_MAIN("firmware", cases)
