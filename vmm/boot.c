/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading a kernel: an ELF image with a PVH note (Xen's "x86/HVM direct boot ABI"), and the start
 * information that goes with it. The image is as hostile as guest memory.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define ELF_PHDRS_MAX       128u
#define PVH_NOTE_ENTRY      18u /* XEN_ELFNOTE_PHYS32_ENTRY */
#define PVH_MAGIC           0x336ec578u
#define PVH_START_INFO      0x6000u
#define PVH_MEMORY_MAP      0x6100u
#define PVH_CMDLINE         0x7000u
#define PVH_CMDLINE_MAX     0x8000u /* with the zero byte */
#define PVH_LOWEST_FREE     0x10000u
#define PVH_MEMORY_RAM      1u
#define PVH_MEMORY_RESERVED 2u
#define BOOT_KERNEL_MAX     (1ull << 30)

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
	uint32_t type;
	uint32_t reserved;
};

/* ------------------------------------------------------------------ ELF */

struct elf_image {
	const uint8_t *data;
	size_t size;
	bool wide; /* 64-bit */
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
	bool found = false;
	Elf64_Phdr ph;
	int rc;

	*out = (struct elf_info){.lowest = UINT64_MAX};
	rc = elf_header_parse(&elf, why);
	if (rc)
		return rc;
	for (unsigned i = 0; i < elf.phnum && !found; i++) {
		elf_phdr_get(&elf, i, &ph);
		if (ph.p_type == PT_NOTE && elf_range_inside(&elf, ph.p_offset, ph.p_filesz))
			found = elf_notes_search(&elf, &ph, &out->entry);
	}
	if (!found)
		return why_set(why, -EINVAL,
			"an ELF image without a PVH note; Linux has one with CONFIG_PVH=y");
	for (unsigned i = 0; i < elf.phnum; i++) {
		elf_phdr_get(&elf, i, &ph);
		if (ph.p_type != PT_LOAD)
			continue;
		rc = elf_segment_load(mem, &elf, &ph, out, why);
		if (rc)
			return rc;
	}
	if (out->entry < out->lowest || out->entry >= out->highest || out->entry > UINT32_MAX)
		return why_set(why, -EINVAL, "its PVH entry 0x%llx is not in what it loads",
			(unsigned long long)out->entry);
	return 0;
}

/* ------------------------------------------------------------------ the kernel file */

/* "--kernel PATH: reason", with what elf_load() or boot_read() wrote after the prefix. */
static int boot_why(struct machine *m, int error, char why[VMM_WHY_MAX])
{
	char reason[VMM_WHY_MAX];

	memcpy(reason, why, sizeof(reason));
	return why_set(why, error, "--kernel %.100s: %.140s", m->kernel_path, reason);
}

int boot_open(struct machine *m, char why[VMM_WHY_MAX])
{
	size_t len = strlen(m->cmdline);
	struct stat st;
	int error;

	if (len >= PVH_CMDLINE_MAX)
		return why_set(why, -EINVAL, "--cmdline: %zu bytes; at most %u are accepted", len,
			PVH_CMDLINE_MAX - 1);
	if (!m->kernel_path)
		return 0;
	m->kernel_fd = open(m->kernel_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (m->kernel_fd < 0) {
		error = -errno;
		return why_set(why, error, "--kernel %.150s: %s", m->kernel_path, strerror(-error));
	}
	if (fstat(m->kernel_fd, &st))
		return why_set(why, -errno, "--kernel %.150s: %s", m->kernel_path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return why_set(why, -EINVAL,
			"--kernel %.150s: not a regular file; an ELF image would do",
			m->kernel_path);
	if (!st.st_size || (uint64_t)st.st_size > BOOT_KERNEL_MAX)
		return why_set(why, -EINVAL, "--kernel %.150s: %s; an ELF image would do",
			m->kernel_path, st.st_size ? "larger than 1 GiB" : "empty");
	return 0;
}

/* Read, not mapped: a file cut short meanwhile must not kill the monitor. */
static void *boot_read(struct machine *m, size_t *size, char why[VMM_WHY_MAX], int *error)
{
	struct stat st;
	size_t at = 0;
	uint8_t *image;
	ssize_t n;

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
	while (at < *size) {
		n = pread(m->kernel_fd, image + at, *size - at, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			*error = n ? -errno : -EIO;
			why_set(why, 0, "cannot be read: %s", n ? strerror(errno) : "cut short");
			munmap(image, *size);
			return NULL;
		}
		at += n;
	}
	*error = 0;
	return image;
}

/* ------------------------------------------------------------------ start information */

static int boot_info_write(struct machine *m)
{
	struct pvh_memory_entry map[4];
	struct pvh_start_info info = {
		.magic = PVH_MAGIC,
		.version = 1,
		.cmdline_paddr = PVH_CMDLINE,
		.memmap_paddr = PVH_MEMORY_MAP,
	};
	const struct ring_mem *mem = &m->mem;
	unsigned n = 0;
	int rc;

	map[n++] = (struct pvh_memory_entry){0, 0xA0000, PVH_MEMORY_RAM, 0};
	map[n++] = (struct pvh_memory_entry){0xA0000, 0x60000, PVH_MEMORY_RESERVED, 0};
	map[n++] = (struct pvh_memory_entry){
		0x100000, mem->regions[0].size - 0x100000, PVH_MEMORY_RAM, 0};
	if (mem->nregions > 1)
		map[n++] = (struct pvh_memory_entry){
			mem->regions[1].gpa, mem->regions[1].size, PVH_MEMORY_RAM, 0};
	info.memmap_entries = n;
	rc = ring_mem_write(mem, PVH_START_INFO, &info, sizeof(info));
	if (!rc)
		rc = ring_mem_write(mem, PVH_MEMORY_MAP, map, n * sizeof(map[0]));
	if (!rc)
		rc = ring_mem_write(mem, PVH_CMDLINE, m->cmdline, strlen(m->cmdline) + 1);
	return rc;
}

int boot_load(struct machine *m, char why[VMM_WHY_MAX])
{
	struct elf_info info;
	size_t size = 0;
	void *image;
	int rc;

	if (m->kernel_fd < 0)
		return 0;
	image = boot_read(m, &size, why, &rc);
	if (!image)
		return boot_why(m, rc, why);
	rc = elf_load(&m->mem, image, size, &info, why);
	munmap(image, size);
	if (rc)
		return boot_why(m, rc, why);
	if (info.lowest < PVH_LOWEST_FREE) {
		why_set(why, 0, "loads at 0x%llx; the first 64 KiB are the monitor's",
			(unsigned long long)info.lowest);
		return boot_why(m, -EINVAL, why);
	}
	rc = boot_info_write(m);
	if (!rc && m->vm_fd >= 0)
		rc = kvm_boot_registers(m, info.entry, PVH_START_INFO);
	return rc ? why_set(why, rc, "boot information: %s", strerror(-rc)) : 0;
}
