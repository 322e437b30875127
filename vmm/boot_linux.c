/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading a bzImage by the 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst). The
 * kernel goes to the address it prefers, so that it unpacks itself without moving first; what it is
 * entered with lies below 640 KiB, where it keeps nothing and copies everything early.
 */
#include <errno.h>
#include <string.h>

#include "vmm/machine_priv.h"

/* Low memory. */
#define LINUX_GDT         0x5000u
#define LINUX_PARAMS      0x6000u
#define LINUX_CMDLINE     0x7000u
#define LINUX_CMDLINE_MAX 0x8000u /* with the zero byte */
#define LINUX_PAGE_TABLES 0x10000u
#define LINUX_MAPPED_GIB  4u

/* The setup header, by its offset in the image and in the zero page. */
enum {
	HDR_SETUP_SECTS = 0x1f1,
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP = 0x201, /* its operand: where the header ends, from 0x202 on */
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_RAMDISK = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_CMDLINE = 0x228,
	HDR_INITRD_MAX = 0x22c,
	HDR_ALIGNMENT = 0x230,
	HDR_RELOCATABLE = 0x234,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_SETUP_DATA = 0x250,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_END = 0x268,
};

/* Other fields of the zero page. */
enum {
	ZP_RSDP = 0x070,
	ZP_EXT_RAMDISK = 0x0c0,
	ZP_EXT_RAMDISK_SIZE = 0x0c4,
	ZP_E820_ENTRIES = 0x1e8,
	ZP_E820 = 0x2d0,
	ZP_SIZE = 4096,
};

#define HDR_VERSION_MIN  0x020cu /* the first with XLF_KERNEL_64 */
#define HDR_VERSION_ELF  0x020fu /* what is written for a kernel that has no header */
#define HDR_LOADER_OTHER 0xffu
#define ELF_ALIGNMENT    0x1000000u
#define ELF_CMDLINE_MAX  2047u /* COMMAND_LINE_SIZE, without the zero byte */
#define XLF_KERNEL_64    0x0001u
#define LOADED_HIGH      0x01u
#define ENTRY_64         0x200u
#define SECTOR           512u
#define E820_ENTRY       20u

static uint64_t bytes_get(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static void bytes_put(uint8_t *p, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = v >> (8 * i);
}

bool bzimage_is(const void *image, size_t size)
{
	const uint8_t *p = image;

	return size >= HDR_END && bytes_get(p + HDR_BOOT_FLAG, 2) == 0xaa55 &&
	       !memcmp(p + HDR_MAGIC, "HdrS", 4);
}

static int bzimage_header_check(const uint8_t *p, char why[VMM_WHY_MAX])
{
	unsigned version = bytes_get(p + HDR_VERSION, 2);

	if (version < HDR_VERSION_MIN)
		return why_set(why, -EINVAL,
			"a bzImage of boot protocol %u.%02u; 2.12 (Linux 3.8) or later is needed",
			version >> 8, version & 0xff);
	if (!(p[HDR_LOADFLAGS] & LOADED_HIGH) ||
		!(bytes_get(p + HDR_XLOADFLAGS, 2) & XLF_KERNEL_64))
		return why_set(why, -EINVAL,
			"a bzImage without a 64-bit entry; a 64-bit kernel is "
			"needed");
	return 0;
}

int bzimage_load(const struct ring_mem *mem, const void *image, size_t size, struct bzimage *out,
	char why[VMM_WHY_MAX])
{
	const uint8_t *p = image;
	uint64_t setup, payload, init_size;
	uint8_t *host;
	size_t header;
	int rc;

	memset(out, 0, sizeof(*out));
	if (!bzimage_is(image, size))
		return why_set(why, -EINVAL, "not a bzImage");
	rc = bzimage_header_check(p, why);
	if (rc)
		return rc;
	setup = ((p[HDR_SETUP_SECTS] ? p[HDR_SETUP_SECTS] : 4) + 1ull) * SECTOR;
	if (setup >= size || size - setup <= ENTRY_64)
		return why_set(why, -EINVAL, "a bzImage cut short: its kernel is not in it");
	payload = size - setup;
	init_size = bytes_get(p + HDR_INIT_SIZE, 4);
	if (init_size < payload)
		init_size = payload;
	out->load = bytes_get(p + HDR_PREF_ADDRESS, 8);
	if (out->load < 0x100000 || out->load >= MACHINE_HIGH_MEMORY)
		return why_set(why, -EINVAL, "a damaged bzImage: it loads at 0x%llx",
			(unsigned long long)out->load);
	/* what it unpacks itself in must be there too */
	if (!ring_mem_translate(mem, out->load, init_size, RING_WRITE))
		return why_set(why, -EINVAL,
			"too large for the guest's memory: it needs %llu MiB; --memory takes more",
			(unsigned long long)((out->load + init_size + (1 << 20) - 1) >> 20));
	host = ring_mem_translate(mem, out->load, payload, RING_WRITE);
	memcpy(host, p + setup, payload);
	ring_mem_dirty(mem, host, payload);
	out->entry = out->load + ENTRY_64;
	out->end = out->load + init_size;
	out->initrd_limit = bytes_get(p + HDR_INITRD_MAX, 4) + 1ull;
	out->cmdline_max = bytes_get(p + HDR_CMDLINE_SIZE, 4);
	if (out->cmdline_max >= LINUX_CMDLINE_MAX)
		out->cmdline_max = LINUX_CMDLINE_MAX - 1;
	out->params = LINUX_PARAMS;
	out->page_tables = LINUX_PAGE_TABLES;
	out->gdt = LINUX_GDT;
	header = HDR_MAGIC + p[HDR_JUMP] - HDR_SETUP_SECTS;
	if (header > sizeof(out->header))
		header = sizeof(out->header);
	if (header > size - HDR_SETUP_SECTS)
		header = size - HDR_SETUP_SECTS;
	memcpy(out->header, p + HDR_SETUP_SECTS, header);
	return 0;
}

/* The kernel that a bzImage would unpack takes the same zero page; the header in it is made up. */
void bzimage_from_elf(const struct elf_info *elf, struct bzimage *out)
{
	uint8_t *h = out->header; /* begins at HDR_SETUP_SECTS */

	*out = (struct bzimage){
		.load = elf->lowest,
		.entry = elf->entry,
		.end = elf->highest,
		.initrd_limit = UINT32_MAX,
		.cmdline_max = ELF_CMDLINE_MAX,
		.params = LINUX_PARAMS,
		.page_tables = LINUX_PAGE_TABLES,
		.gdt = LINUX_GDT,
	};
	bytes_put(h + HDR_BOOT_FLAG - HDR_SETUP_SECTS, 0xaa55, 2);
	memcpy(h + HDR_MAGIC - HDR_SETUP_SECTS, "HdrS", 4);
	bytes_put(h + HDR_VERSION - HDR_SETUP_SECTS, HDR_VERSION_ELF, 2);
	h[HDR_LOADFLAGS - HDR_SETUP_SECTS] = LOADED_HIGH;
	bytes_put(h + HDR_ALIGNMENT - HDR_SETUP_SECTS, ELF_ALIGNMENT, 4);
}

/* ------------------------------------------------------------------ what it is entered with */

static int linux_zero_page_write(
	const struct ring_mem *mem, const struct bzimage *bz, const struct linux_boot *boot)
{
	struct boot_range map[BOOT_RANGES_MAX];
	unsigned n = boot_memory_map(mem, map);
	uint8_t zp[ZP_SIZE] = {0}, *e = zp + ZP_E820;

	memcpy(zp + HDR_SETUP_SECTS, bz->header, sizeof(bz->header));
	zp[HDR_LOADER] = HDR_LOADER_OTHER;
	bytes_put(zp + HDR_SETUP_DATA, 0, 8);
	bytes_put(zp + HDR_CMDLINE, LINUX_CMDLINE, 4);
	bytes_put(zp + HDR_RAMDISK, boot->initrd, 4);
	bytes_put(zp + HDR_RAMDISK_SIZE, boot->initrd_size, 4);
	bytes_put(zp + ZP_EXT_RAMDISK, boot->initrd >> 32, 4);
	bytes_put(zp + ZP_EXT_RAMDISK_SIZE, boot->initrd_size >> 32, 4);
	bytes_put(zp + ZP_RSDP, boot->rsdp, 8);
	zp[ZP_E820_ENTRIES] = n;
	for (unsigned i = 0; i < n; i++, e += E820_ENTRY) {
		bytes_put(e, map[i].addr, 8);
		bytes_put(e + 8, map[i].size, 8);
		bytes_put(e + 16, map[i].type, 4);
	}
	return ring_mem_write(mem, LINUX_PARAMS, zp, sizeof(zp));
}

/* The first 4 GiB, one to one, with pages of 2 MiB. */
static int linux_page_tables_write(const struct ring_mem *mem)
{
	uint64_t page[512] = {LINUX_PAGE_TABLES + MACHINE_PAGE + 3};
	uint64_t at = LINUX_PAGE_TABLES;
	int rc = ring_mem_write(mem, at, page, sizeof(page));

	for (unsigned i = 0; i < LINUX_MAPPED_GIB; i++)
		page[i] = LINUX_PAGE_TABLES + (2 + i) * MACHINE_PAGE + 3;
	if (!rc)
		rc = ring_mem_write(mem, at += MACHINE_PAGE, page, sizeof(page));
	for (unsigned i = 0; i < LINUX_MAPPED_GIB && !rc; i++) {
		for (unsigned j = 0; j < 512; j++)
			page[j] = (i * 512ull + j) * MACHINE_HUGE_PAGE + 0x83;
		rc = ring_mem_write(mem, at += MACHINE_PAGE, page, sizeof(page));
	}
	return rc;
}

int bzimage_params_write(
	const struct ring_mem *mem, const struct bzimage *bz, const struct linux_boot *boot)
{
	static const uint64_t gdt[5] = {
		0, 0, 0x00af9b000000ffffull, /* 0x10: 64-bit code */
		0x00cf93000000ffffull,       /* 0x18: data */
		0x00008b0000000067ull,       /* 0x20: a task state nobody uses */
	};
	size_t len = strlen(boot->cmdline);
	int rc;

	if (len > bz->cmdline_max || !mem->nregions || mem->regions[0].gpa ||
		mem->regions[0].size <= 0x100000)
		return -EINVAL;
	rc = linux_zero_page_write(mem, bz, boot);
	if (!rc)
		rc = linux_page_tables_write(mem);
	if (!rc)
		rc = ring_mem_write(mem, LINUX_GDT, gdt, sizeof(gdt));
	if (!rc)
		rc = ring_mem_write(mem, LINUX_CMDLINE, boot->cmdline, len + 1);
	return rc;
}
