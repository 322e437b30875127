/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading a kernel, whose kind its first bytes tell: an ELF image, by its PVH note (Xen's
 * "x86/HVM direct boot ABI"), here, a bzImage, and a Linux without that note, in boot_linux.c; and
 * what goes with it: the initrd, the memory map, the ACPI tables and the start information. All
 * files are as hostile as guest memory.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define ELF_PHDRS_MAX     128u
#define PVH_NOTE_ENTRY    18u /* XEN_ELFNOTE_PHYS32_ENTRY */
#define PVH_MAGIC         0x336ec578u
#define PVH_START_INFO    0x6000u
#define PVH_MEMORY_MAP    0x6100u
#define PVH_CMDLINE       0x7000u
#define PVH_CMDLINE_MAX   0x8000u /* with the zero byte */
#define PVH_LOWEST_FREE   0x10000u
#define PVH_MODULES       0x6200u
#define LINUX_LOWEST      0x100000u
#define BOOT_KERNEL_MAX   (1ull << 30)
#define BOOT_KERNEL_BIG   (4ull << 20)
#define BOOT_INITRD_MAX   (2ull << 30)
#define BOOT_ACPI_MAX     0x4000u
#define BOOT_FIRMWARE_MAX (16ull << 20)

struct pvh_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_paddr;
	uint64_t cmdline_paddr;
	uint64_t rsdp_paddr;
	uint64_t memmap_paddr;
	uint32_t memmap_entries;
	uint32_t reserved;
};

struct pvh_memory_entry {
	uint64_t addr;
	uint64_t size;
	uint32_t type; /* as in e820 */
	uint32_t reserved;
};

struct pvh_module {
	uint64_t addr;
	uint64_t size;
	uint64_t cmdline_paddr;
	uint64_t reserved;
};

/* ------------------------------------------------------------------ ELF */

struct elf_image {
	const uint8_t *data;
	size_t size;
	bool wide;      /* 64-bit */
	bool fixed;     /* 64-bit, not to be moved */
	uint64_t entry; /* the header's */
	uint64_t phoff;
	unsigned phnum, phentsize;
};

static bool elf_range_inside(const struct elf_image *elf, uint64_t offset, uint64_t len)
{
	return offset <= elf->size && len <= elf->size - offset;
}

static int elf_header_parse(struct elf_image *elf, char why[VMM_WHY_MAX])
{
	Elf64_Ehdr h64;
	Elf32_Ehdr h32;

	if (elf->size < sizeof(h32) || memcmp(elf->data, ELFMAG, SELFMAG))
		return why_set(why, -EINVAL, "not an ELF image; an uncompressed vmlinux would do");
	elf->wide = elf->data[EI_CLASS] == ELFCLASS64;
	if (elf->data[EI_DATA] != ELFDATA2LSB ||
		(!elf->wide && elf->data[EI_CLASS] != ELFCLASS32) ||
		(elf->wide && elf->size < sizeof(h64)))
		return why_set(why, -EINVAL, "not an ELF image for x86");
	if (elf->wide) {
		memcpy(&h64, elf->data, sizeof(h64));
		elf->fixed = h64.e_type == ET_EXEC;
		elf->entry = h64.e_entry;
		elf->phoff = h64.e_phoff;
		elf->phnum = h64.e_phnum;
		elf->phentsize = h64.e_phentsize;
	} else {
		memcpy(&h32, elf->data, sizeof(h32));
		elf->phoff = h32.e_phoff;
		elf->phnum = h32.e_phnum;
		elf->phentsize = h32.e_phentsize;
	}
	if ((elf->wide ? h64.e_machine != EM_X86_64
		       : h32.e_machine != EM_386 && h32.e_machine != EM_X86_64))
		return why_set(why, -EINVAL, "an ELF image for another machine than x86");
	if (!elf->phnum || elf->phnum > ELF_PHDRS_MAX ||
		elf->phentsize < (elf->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) ||
		!elf_range_inside(elf, elf->phoff, (uint64_t)elf->phnum * elf->phentsize))
		return why_set(
			why, -EINVAL, "a damaged ELF image: its program headers are not in it");
	return 0;
}

static void elf_phdr_get(const struct elf_image *elf, unsigned i, Elf64_Phdr *out)
{
	const uint8_t *at = elf->data + elf->phoff + (uint64_t)i * elf->phentsize;
	Elf32_Phdr p;

	if (elf->wide) {
		memcpy(out, at, sizeof(*out));
		return;
	}
	memcpy(&p, at, sizeof(p));
	*out = (Elf64_Phdr){
		.p_type = p.p_type,
		.p_flags = p.p_flags,
		.p_offset = p.p_offset,
		.p_vaddr = p.p_vaddr,
		.p_paddr = p.p_paddr,
		.p_filesz = p.p_filesz,
		.p_memsz = p.p_memsz,
		.p_align = p.p_align,
	};
}

/* Looks for the PVH entry among the notes of one segment. */
static bool elf_notes_search(const struct elf_image *elf, const Elf64_Phdr *ph, uint64_t *entry)
{
	uint64_t align = ph->p_align == 8 ? 8 : 4;
	uint64_t at = 0, name, desc, next;
	const uint8_t *notes = elf->data + ph->p_offset;
	Elf64_Nhdr n;

	while (ph->p_filesz - at >= sizeof(n)) {
		memcpy(&n, notes + at, sizeof(n));
		name = at + sizeof(n);
		desc = (name + n.n_namesz + align - 1) & ~(align - 1);
		next = (desc + n.n_descsz + align - 1) & ~(align - 1);
		if (desc > ph->p_filesz || n.n_descsz > ph->p_filesz - desc)
			return false;
		if (n.n_type == PVH_NOTE_ENTRY && n.n_namesz == 4 &&
			!memcmp(notes + name, "Xen", 4) && (n.n_descsz == 4 || n.n_descsz == 8)) {
			*entry = 0;
			memcpy(entry, notes + desc, n.n_descsz);
			return true;
		}
		if (next > ph->p_filesz)
			return false;
		at = next;
	}
	return false;
}

/* Linux without a note: a physical entry in a segment that is linked into the upper half. */
static bool elf_is_linux(const struct elf_image *elf)
{
	Elf64_Phdr ph;

	for (unsigned i = 0; i < elf->phnum && elf->fixed; i++) {
		elf_phdr_get(elf, i, &ph);
		if (ph.p_type == PT_LOAD && ph.p_vaddr >> 63 && elf->entry >= ph.p_paddr &&
			elf->entry - ph.p_paddr < ph.p_filesz)
			return true;
	}
	return false;
}

static int elf_segment_load(const struct ring_mem *mem, const struct elf_image *elf,
	const Elf64_Phdr *ph, struct elf_info *out, char why[VMM_WHY_MAX])
{
	uint8_t *host;

	if (!ph->p_memsz)
		return 0;
	if (ph->p_filesz > ph->p_memsz || !elf_range_inside(elf, ph->p_offset, ph->p_filesz))
		return why_set(why, -EINVAL, "a damaged ELF image: a segment is not in it");
	host = ring_mem_translate(mem, ph->p_paddr, ph->p_memsz, RING_WRITE);
	if (!host)
		return why_set(why, -EINVAL,
			"too large for the guest's memory: a segment goes to 0x%llx, %llu KiB "
			"long; "
			"--memory takes more",
			(unsigned long long)ph->p_paddr, (unsigned long long)(ph->p_memsz >> 10));
	memcpy(host, elf->data + ph->p_offset, ph->p_filesz);
	ring_mem_dirty(mem, host, ph->p_filesz);
	if (ph->p_memsz > ph->p_filesz)
		memory_zero(mem, host + ph->p_filesz, ph->p_memsz - ph->p_filesz);
	if (ph->p_paddr < out->lowest)
		out->lowest = ph->p_paddr;
	if (ph->p_paddr + ph->p_memsz > out->highest)
		out->highest = ph->p_paddr + ph->p_memsz;
	return 0;
}

int elf_load(const struct ring_mem *mem, const void *image, size_t size, struct elf_info *out,
	char why[VMM_WHY_MAX])
{
	struct elf_image elf = {.data = image, .size = size};
	Elf64_Phdr ph;
	int rc;

	*out = (struct elf_info){.lowest = UINT64_MAX};
	rc = elf_header_parse(&elf, why);
	if (rc)
		return rc;
	for (unsigned i = 0; i < elf.phnum && !out->pvh; i++) {
		elf_phdr_get(&elf, i, &ph);
		if (ph.p_type == PT_NOTE && elf_range_inside(&elf, ph.p_offset, ph.p_filesz))
			out->pvh = elf_notes_search(&elf, &ph, &out->entry);
	}
	if (!out->pvh && !elf_is_linux(&elf))
		return why_set(why, -EINVAL,
			"an ELF image without a PVH note; Linux has one with CONFIG_PVH=y");
	if (!out->pvh)
		out->entry = elf.entry;
	for (unsigned i = 0; i < elf.phnum; i++) {
		elf_phdr_get(&elf, i, &ph);
		if (ph.p_type != PT_LOAD)
			continue;
		rc = elf_segment_load(mem, &elf, &ph, out, why);
		if (rc)
			return rc;
	}
	if (out->entry < out->lowest || out->entry >= out->highest || out->entry > UINT32_MAX)
		return why_set(why, -EINVAL, "its %sentry 0x%llx is not in what it loads",
			out->pvh ? "PVH " : "", (unsigned long long)out->entry);
	return 0;
}

/* ------------------------------------------------------------------ the files */

/* "--kernel PATH: reason", with what a loader or boot_read() wrote after the prefix. */
static int boot_why(struct machine *m, int error, char why[VMM_WHY_MAX])
{
	char reason[VMM_WHY_MAX];

	memcpy(reason, why, sizeof(reason));
	return why_set(why, error, "--kernel %.100s: %.140s", m->kernel_path, reason);
}

/* The descriptor, or -errno. */
static int boot_file_open(const char *option, const char *path, uint64_t max, const char *wanted,
	char why[VMM_WHY_MAX])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int rc;

	if (fd < 0) {
		rc = -errno;
		return why_set(why, rc, "%s %.150s: %s", option, path, strerror(-rc));
	}
	if (fstat(fd, &st)) {
		rc = -errno;
		why_set(why, rc, "%s %.150s: %s", option, path, strerror(-rc));
	} else if (!S_ISREG(st.st_mode)) {
		rc = why_set(why, -EINVAL, "%s %.150s: not a regular file; %s would do", option,
			path, wanted);
	} else if (!st.st_size || (uint64_t)st.st_size > max) {
		rc = why_set(why, -EINVAL, "%s %.150s: %s; %s would do", option, path,
			st.st_size ? "too large" : "empty", wanted);
	} else {
		return fd;
	}
	close(fd);
	return rc;
}

int boot_open(struct machine *m, char why[VMM_WHY_MAX])
{
	size_t len = strlen(m->cmdline);
	int fd;

	if (len >= PVH_CMDLINE_MAX)
		return why_set(why, -EINVAL, "--cmdline: %zu bytes; at most %u are accepted", len,
			PVH_CMDLINE_MAX - 1);
	if (m->initrd_path && !m->kernel_path)
		return why_set(why, -EINVAL,
			"--initrd %.150s: there is no kernel to take it; give --kernel FILE",
			m->initrd_path);
	if (m->firmware_path) {
		if (m->kernel_path)
			return why_set(why, -EINVAL,
				"--firmware %.150s: with --kernel there is nothing for it to do; "
				"give one of "
				"them",
				m->firmware_path);
		fd = boot_file_open("--firmware", m->firmware_path, BOOT_FIRMWARE_MAX,
			"an image of 64 KiB to 12 MiB", why);
		if (fd < 0)
			return fd;
		m->firmware_fd = fd;
	}
	if (!m->kernel_path)
		return 0;
	fd = boot_file_open(
		"--kernel", m->kernel_path, BOOT_KERNEL_MAX, "a bzImage or an ELF image", why);
	if (fd < 0)
		return fd;
	m->kernel_fd = fd;
	if (!m->initrd_path)
		return 0;
	fd = boot_file_open("--initrd", m->initrd_path, BOOT_INITRD_MAX, "a cpio archive", why);
	if (fd < 0)
		return fd;
	m->initrd_fd = fd;
	return 0;
}

int boot_pread(int fd, uint8_t *to, uint64_t size)
{
	uint64_t at = 0;
	ssize_t n;

	while (at < size) {
		n = pread(fd, to + at, size - at, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		at += n;
	}
	return 0;
}

/* Read, not mapped: a file cut short meanwhile must not kill the monitor. */
static void *boot_read(struct machine *m, size_t *size, char why[VMM_WHY_MAX], int *error)
{
	struct stat st;
	uint8_t *image;

	*error = -EIO;
	if (fstat(m->kernel_fd, &st) || st.st_size <= 0 || (uint64_t)st.st_size > BOOT_KERNEL_MAX) {
		why_set(why, 0, "cannot be read any more");
		return NULL;
	}
	*size = st.st_size;
	image = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (image == MAP_FAILED) {
		*error = -ENOMEM;
		why_set(why, 0, "no memory to read it");
		return NULL;
	}
	*error = boot_pread(m->kernel_fd, image, *size);
	if (*error) {
		why_set(why, 0, "cannot be read: %s", strerror(-*error));
		munmap(image, *size);
		return NULL;
	}
	return image;
}

/* The initrd goes as high as it may, out of the way of a kernel that unpacks itself. */
static int boot_initrd_load(
	struct machine *m, uint64_t kernel_end, uint64_t limit, char why[VMM_WHY_MAX])
{
	uint64_t top = MIN(limit, m->mem.regions[0].size) & ~(MACHINE_PAGE - 1);
	struct stat st;
	uint8_t *host;
	uint64_t size;
	int rc;

	m->initrd_addr = m->initrd_size = 0;
	if (m->initrd_fd < 0)
		return 0;
	if (fstat(m->initrd_fd, &st) || st.st_size <= 0 || (uint64_t)st.st_size > BOOT_INITRD_MAX)
		return why_set(
			why, -EIO, "--initrd %.150s: cannot be read any more", m->initrd_path);
	size = st.st_size;
	if (size > top || ((top - size) & ~(MACHINE_PAGE - 1)) < kernel_end)
		return why_set(why, -EINVAL,
			"--initrd %.100s: %llu KiB find no room between the kernel and %llu MiB; "
			"--memory takes more",
			m->initrd_path, (unsigned long long)(size >> 10),
			(unsigned long long)(top >> 20));
	m->initrd_addr = (top - size) & ~(MACHINE_PAGE - 1);
	m->initrd_size = size;
	host = ring_mem_translate(&m->mem, m->initrd_addr, size, RING_WRITE);
	if (!host)
		return why_set(why, -EINVAL, "--initrd %.150s: no room", m->initrd_path);
	rc = boot_pread(m->initrd_fd, host, size);
	ring_mem_dirty(&m->mem, host, size);
	return rc ? why_set(why, rc, "--initrd %.100s: cannot be read: %s", m->initrd_path,
			    strerror(-rc))
		  : 0;
}

/* ------------------------------------------------------------------ what a kernel is told */

unsigned boot_memory_map(const struct ring_mem *mem, struct boot_range map[BOOT_RANGES_MAX])
{
	unsigned n = 0;

	map[n++] = (struct boot_range){0, 0xA0000, BOOT_RAM};
	map[n++] = (struct boot_range){0xA0000, 0x60000, BOOT_RESERVED};
	map[n++] = (struct boot_range){0x100000, mem->regions[0].size - 0x100000, BOOT_RAM};
	/* KVM's own pages for real mode, and the place of firmware */
	map[n++] = (struct boot_range){0xFEFFC000, 0x1004000, BOOT_RESERVED};
	if (mem->nregions > 1)
		map[n++] = (struct boot_range){mem->regions[1].gpa, mem->regions[1].size, BOOT_RAM};
	return n;
}

static int boot_acpi_write(struct machine *m)
{
	struct acpi_config cfg = machine_acpi_config(m);
	uint8_t *tables = malloc(BOOT_ACPI_MAX);
	size_t len;
	int rc;

	if (!tables)
		return -ENOMEM;
	len = acpi_tables_build(tables, BOOT_ACPI_MAX, BOOT_ACPI, &cfg);
	rc = len ? ring_mem_write(&m->mem, BOOT_ACPI, tables, len) : -ENOSPC;
	free(tables);
	return rc;
}

static int boot_pvh_write(struct machine *m)
{
	struct boot_range ranges[BOOT_RANGES_MAX];
	struct pvh_memory_entry map[BOOT_RANGES_MAX];
	struct pvh_start_info info = {
		.magic = PVH_MAGIC,
		.version = 1,
		.cmdline_paddr = PVH_CMDLINE,
		.rsdp_paddr = BOOT_ACPI,
		.memmap_paddr = PVH_MEMORY_MAP,
	};
	struct pvh_module module = {.addr = m->initrd_addr, .size = m->initrd_size};
	const struct ring_mem *mem = &m->mem;
	int rc = 0;

	info.memmap_entries = boot_memory_map(mem, ranges);
	for (unsigned i = 0; i < info.memmap_entries; i++)
		map[i] = (struct pvh_memory_entry){
			ranges[i].addr, ranges[i].size, ranges[i].type, 0};
	if (m->initrd_size) {
		info.nr_modules = 1;
		info.modlist_paddr = PVH_MODULES;
		rc = ring_mem_write(mem, PVH_MODULES, &module, sizeof(module));
	}
	if (!rc)
		rc = ring_mem_write(mem, PVH_START_INFO, &info, sizeof(info));
	if (!rc)
		rc = ring_mem_write(mem, PVH_MEMORY_MAP, map, info.memmap_entries * sizeof(map[0]));
	if (!rc)
		rc = ring_mem_write(mem, PVH_CMDLINE, m->cmdline, strlen(m->cmdline) + 1);
	return rc;
}

/* ------------------------------------------------------------------ one kind and the other */

static int boot_pvh(struct machine *m, const struct elf_info *info, char why[VMM_WHY_MAX])
{
	int rc = boot_initrd_load(m, info->highest, UINT32_MAX, why);

	if (rc)
		return rc;
	rc = boot_pvh_write(m);
	if (!rc && m->vm_fd >= 0)
		rc = kvm_boot_registers(m, info->entry, PVH_START_INFO);
	return rc ? why_set(why, rc, "boot information: %s", strerror(-rc)) : 0;
}

/* Linux by its 64-bit entry, in a bzImage or in an ELF image. */
static int boot_linux(struct machine *m, const struct bzimage *bz, char why[VMM_WHY_MAX])
{
	struct linux_boot boot = {.cmdline = m->cmdline, .rsdp = BOOT_ACPI};
	int rc;

	if (strlen(m->cmdline) > bz->cmdline_max)
		return why_set(why, -EINVAL, "--cmdline: %zu bytes; this kernel takes %u",
			strlen(m->cmdline), bz->cmdline_max);
	rc = boot_initrd_load(m, bz->end, bz->initrd_limit, why);
	if (rc)
		return rc;
	boot.initrd = m->initrd_addr;
	boot.initrd_size = m->initrd_size;
	rc = bzimage_params_write(&m->mem, bz, &boot);
	if (!rc && m->vm_fd >= 0)
		rc = kvm_boot_registers_long(m, bz->entry, bz->params, bz->page_tables, bz->gdt);
	return rc ? why_set(why, rc, "boot information: %s", strerror(-rc)) : 0;
}

static int boot_elf(struct machine *m, const void *image, size_t size, char why[VMM_WHY_MAX])
{
	struct elf_info info;
	struct bzimage bz;
	int rc = elf_load(&m->mem, image, size, &info, why);
	uint64_t free;

	if (rc)
		return boot_why(m, rc, why);
	free = info.pvh ? PVH_LOWEST_FREE : LINUX_LOWEST;
	if (info.lowest < free) {
		why_set(why, 0, "loads at 0x%llx; the first %llu KiB are the monitor's",
			(unsigned long long)info.lowest, (unsigned long long)free >> 10);
		return boot_why(m, -EINVAL, why);
	}
	if (info.pvh)
		return boot_pvh(m, &info, why);
	bzimage_from_elf(&info, &bz);
	return boot_linux(m, &bz, why);
}

static int boot_bzimage(struct machine *m, const void *image, size_t size, char why[VMM_WHY_MAX])
{
	struct bzimage bz;
	int rc = bzimage_load(&m->mem, image, size, &bz, why);

	return rc ? boot_why(m, rc, why) : boot_linux(m, &bz, why);
}

bool machine_kernel_is_big(const struct machine *m)
{
	return m->kernel_is_big;
}

int boot_load(struct machine *m, char why[VMM_WHY_MAX])
{
	size_t size = 0;
	uint8_t *image;
	int rc;

	if (m->kernel_fd < 0)
		return 0;
	image = boot_read(m, &size, why, &rc);
	if (!image)
		return boot_why(m, rc, why);
	m->kernel_is_big = bzimage_is(image, size) || size > BOOT_KERNEL_BIG;
	rc = boot_acpi_write(m);
	if (rc)
		why_set(why, rc, "ACPI tables: %s", strerror(-rc));
	else if (size >= SELFMAG && !memcmp(image, ELFMAG, SELFMAG))
		rc = boot_elf(m, image, size, why);
	else if (bzimage_is(image, size))
		rc = boot_bzimage(m, image, size, why);
	else if (size > 2 && image[0] == 0x1f && image[1] == 0x8b)
		rc = boot_why(
			m, why_set(why, -EINVAL, "compressed with gzip; gunzip it first"), why);
	else
		rc = boot_why(m,
			why_set(why, -EINVAL,
				"not an ELF image and no bzImage; vmlinuz or vmlinux would do"),
			why);
	munmap(image, size);
	return rc;
}
