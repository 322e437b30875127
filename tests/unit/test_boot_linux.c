/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stock kernels: a made-up bzImage in machines without KVM, what lies in guest memory afterwards,
 * and what is refused in which words.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/test_machine_rig.h"

#define SETUP_SECTS 3u
#define KERNEL_LEN  5000u
#define PREFERRED   0x200000u
#define INIT_SIZE   0x10000u
#define IMAGE_LEN   ((SETUP_SECTS + 1) * 512 + KERNEL_LEN)
#define PARAMS      0x6000u

static uint8_t image[IMAGE_LEN];

static void put(uint8_t *p, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t guest_get(const struct ring_mem *mem, uint64_t gpa, unsigned size)
{
	uint8_t b[8] = {0};
	uint64_t v = 0;

	CU_ASSERT_EQUAL(ring_mem_read(mem, gpa, b, size), 0);
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)b[i] << (8 * i);
	return v;
}

static void image_build(void)
{
	memset(image, 0, sizeof(image));
	image[0x1f1] = SETUP_SECTS;
	put(image + 0x1fe, 0xaa55, 2);
	put(image + 0x200, 0x66eb, 2); /* the header ends at 0x268 */
	memcpy(image + 0x202, "HdrS", 4);
	put(image + 0x206, 0x020f, 2);
	image[0x211] = 1;
	put(image + 0x22c, 0x7fffffff, 4);
	image[0x234] = 1;
	put(image + 0x236, 1, 2);
	put(image + 0x238, 255, 4);
	put(image + 0x250, 0x1234, 8); /* not the guest's to keep */
	put(image + 0x258, PREFERRED, 8);
	put(image + 0x260, INIT_SIZE, 4);
	for (unsigned i = 0; i < KERNEL_LEN; i++)
		image[(SETUP_SECTS + 1) * 512 + i] = (uint8_t)(i * 7 + 1);
}

/* A file that lives as long as its descriptor. */
static int file_make(const void *bytes, size_t n, char path[64])
{
	int fd = memfd_create("boot", MFD_CLOEXEC);

	if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
		abort();
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

struct rig {
	struct machine_config cfg;
	struct machine *m;
	int kernel, initrd;
	char kernel_path[64], initrd_path[64];
	char why[VMM_WHY_MAX];
};

static int rig_create(struct rig *r, size_t len, size_t initrd)
{
	uint8_t *bytes = malloc(initrd + 1);
	int rc;

	if (!bytes)
		abort();
	memset(bytes, 0x5a, initrd + 1);
	memset(r, 0, sizeof(*r));
	r->kernel = file_make(image, len, r->kernel_path);
	r->initrd = file_make(bytes, initrd, r->initrd_path);
	free(bytes);
	machine_config_init(&r->cfg);
	r->cfg.no_kvm = true;
	r->cfg.memory = 8 << 20;
	r->cfg.kernel = r->kernel_path;
	r->cfg.initrd = initrd ? r->initrd_path : NULL;
	r->cfg.cmdline = "console=ttyS0 quiet";
	rc = machine_create(&r->m, &r->cfg, r->why);
	return rc;
}

static void rig_destroy(struct rig *r)
{
	machine_destroy(r->m);
	close(r->kernel);
	close(r->initrd);
}

static void test_load(void)
{
	const struct ring_mem *mem;
	char text[32] = "";
	struct rig r;

	image_build();
	CU_ASSERT_EQUAL_FATAL(rig_create(&r, sizeof(image), 10000), 0);
	mem = machine_memory(r.m);
	for (unsigned i = 0; i < KERNEL_LEN; i += 100)
		CU_ASSERT_EQUAL(guest_get(mem, PREFERRED + i, 1), (uint8_t)(i * 7 + 1));
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x1fe, 2), 0xaa55);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x210, 1), 0xff);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x250, 8), 0);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x260, 4), INIT_SIZE);
	/* behind the header nothing was copied */
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x268, 8), 0);
	CU_ASSERT_EQUAL(ring_mem_read(mem, guest_get(mem, PARAMS + 0x228, 4), text, 20), 0);
	CU_ASSERT_STRING_EQUAL(text, "console=ttyS0 quiet");
	/* the initrd: at the top, on a page */
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x218, 4), (8 << 20) - 12288);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x21c, 4), 10000);
	CU_ASSERT_EQUAL(guest_get(mem, (8 << 20) - 12288, 1), 0x5a);
	CU_ASSERT_EQUAL(guest_get(mem, (8 << 20) - 12288 + 9999, 1), 0x5a);
	CU_ASSERT_EQUAL(guest_get(mem, (8 << 20) - 12288 + 10000, 1), 0);
	rig_destroy(&r);
}

static void test_memory_map(void)
{
	const struct ring_mem *mem;
	unsigned n, ram = 0;
	uint64_t rsdp, end = 0;
	struct rig r;

	image_build();
	CU_ASSERT_EQUAL_FATAL(rig_create(&r, sizeof(image), 0), 0);
	mem = machine_memory(r.m);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x21c, 4), 0);
	rsdp = guest_get(mem, PARAMS + 0x070, 8);
	CU_ASSERT(rsdp >= 0xe0000 && rsdp < 0x100000 && rsdp % 16 == 0);
	CU_ASSERT_EQUAL(guest_get(mem, rsdp, 8), 0x2052545020445352); /* "RSD PTR " */
	n = (unsigned)guest_get(mem, PARAMS + 0x1e8, 1);
	CU_ASSERT(n >= 3 && n <= 8);
	for (unsigned i = 0; i < n; i++) {
		uint64_t e = PARAMS + 0x2d0 + 20 * i, base = guest_get(mem, e, 8);

		CU_ASSERT(base >= end);
		end = base + guest_get(mem, e + 8, 8);
		if (guest_get(mem, e + 16, 4) == 1) {
			ram++;
			CU_ASSERT(end <= 0xa0000 || base >= 0x100000);
			CU_ASSERT(end <= 8 << 20);
		}
	}
	CU_ASSERT_EQUAL(ram, 2);
	rig_destroy(&r);
}

/* From CR3's value down: 0x10000 is the monitor's choice. */
static void test_page_tables(void)
{
	const struct ring_mem *mem;
	uint64_t gpa, entry;
	struct rig r;

	image_build();
	CU_ASSERT_EQUAL_FATAL(rig_create(&r, sizeof(image), 0), 0);
	mem = machine_memory(r.m);
	for (gpa = 0; gpa < 1ull << 32; gpa += 511ull << 20) {
		entry = guest_get(mem, 0x10000 + 8 * (gpa >> 39 & 511), 8);
		CU_ASSERT_EQUAL(entry & 0xfff, 3);
		entry = guest_get(mem, (entry & ~0xfffull) + 8 * (gpa >> 30 & 511), 8);
		CU_ASSERT_EQUAL(entry & 0xfff, 3);
		entry = guest_get(mem, (entry & ~0xfffull) + 8 * (gpa >> 21 & 511), 8);
		CU_ASSERT_EQUAL(entry, (gpa & ~((2ull << 20) - 1)) | 0x83);
	}
	/* flat 64-bit code at 0x10, data at 0x18 */
	CU_ASSERT_EQUAL(guest_get(mem, 0x5010, 8), 0x00af9b000000ffff);
	CU_ASSERT_EQUAL(guest_get(mem, 0x5018, 8), 0x00cf93000000ffff);
	rig_destroy(&r);
}

static void refused(size_t len, size_t initrd, const char *reason)
{
	struct rig r;

	CU_ASSERT_EQUAL(rig_create(&r, len, initrd), -EINVAL);
	CU_ASSERT_PTR_NULL(r.m);
	CU_ASSERT(strstr(r.why, reason) != NULL);
	CU_ASSERT(strchr(r.why, '\n') == NULL && !strncmp(r.why, "--", 2));
	if (!strstr(r.why, reason))
		printf("\n%s\n", r.why);
	rig_destroy(&r);
}

static void test_refused(void)
{
	image_build();
	refused((SETUP_SECTS + 1) * 512 + 0x200, 0, "cut short");
	refused(0x240, 0, "not an ELF image and no bzImage");
	put(image + 0x206, 0x020b, 2);
	refused(sizeof(image), 0, "a bzImage of boot protocol 2.11; 2.12");
	image_build();
	image[0x236] = 0;
	refused(sizeof(image), 0, "without a 64-bit entry");
	image_build();
	put(image + 0x258, 0x1000, 8);
	refused(sizeof(image), 0, "damaged bzImage: it loads at 0x1000");
	put(image + 0x258, UINT64_MAX, 8);
	refused(sizeof(image), 0, "damaged bzImage");
	image_build();
	put(image + 0x260, 7 << 20, 4);
	refused(sizeof(image), 0, "it needs 9 MiB; --memory takes more");
	image_build();
	put(image + 0x238, 18, 4);
	refused(sizeof(image), 0, "--cmdline: 19 bytes; this kernel takes 18");
	image_build();
	refused(sizeof(image), 6 << 20, "find no room");
	put(image + 0x22c, PREFERRED + INIT_SIZE + 4095, 4);
	refused(sizeof(image), 8192, "find no room");
	image[0] = 0x1f;
	image[1] = 0x8b;
	image[0x202] = 0;
	refused(sizeof(image), 0, "gunzip");
}

static void test_initrd_files(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX];
	struct machine *m;

	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = 8 << 20;
	cfg.initrd = "/dev/null";
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -EINVAL);
	CU_ASSERT_STRING_EQUAL(
		why, "--initrd /dev/null: there is no kernel to take it; give --kernel FILE");
	cfg.kernel = "/proc/self/exe";
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -EINVAL);
	CU_ASSERT_STRING_EQUAL(
		why, "--initrd /dev/null: not a regular file; a cpio archive would do");
	cfg.initrd = "/nonexistent/initrd";
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -ENOENT);
	CU_ASSERT_STRING_EQUAL(why, "--initrd /nonexistent/initrd: No such file or directory");
}

/* PVH: the initrd is the first module; a reset brings back what the guest overwrote. */
static void test_pvh_module(void)
{
	uint8_t elf[sizeof(struct guest_elf) + 1], junk[64] = {0xee};
	const struct ring_mem *mem;
	char why[VMM_WHY_MAX];
	uint64_t module;
	struct rig r;
	size_t n;

	n = guest_elf_build(elf, (const uint8_t *)"\xf4", 1, GUEST_BASE);
	memcpy(image, elf, n);
	CU_ASSERT_EQUAL_FATAL(rig_create(&r, n, 5000), 0);
	mem = machine_memory(r.m);
	for (unsigned pass = 0; pass < 2; pass++) {
		CU_ASSERT_EQUAL(guest_get(mem, PARAMS, 4), 0x336ec578);
		CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 12, 4), 1);
		module = guest_get(mem, PARAMS + 16, 8);
		CU_ASSERT_EQUAL(guest_get(mem, module, 8), (8 << 20) - 8192);
		CU_ASSERT_EQUAL(guest_get(mem, module + 8, 8), 5000);
		CU_ASSERT_EQUAL(guest_get(mem, (8 << 20) - 8192, 1), 0x5a);
		CU_ASSERT_EQUAL(
			guest_get(mem, guest_get(mem, PARAMS + 32, 8), 8), 0x2052545020445352);
		ring_mem_write(mem, PARAMS, junk, sizeof(junk));
		ring_mem_write(mem, (8 << 20) - 8192, junk, sizeof(junk));
		ring_mem_write(mem, 0xe0000, junk, sizeof(junk));
		CU_ASSERT_EQUAL(machine_reset(r.m, why), 0);
	}
	rig_destroy(&r);
}

/* A vmlinux without a PVH note: one segment, linked high, entered in long mode with a zero page
 * made up for it. */
static size_t vmlinux_build(uint64_t vaddr, uint64_t paddr, uint64_t entry)
{
	Elf64_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_entry = entry,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1};
	Elf64_Phdr ph = {.p_type = PT_LOAD,
		.p_offset = 512,
		.p_vaddr = vaddr,
		.p_paddr = paddr,
		.p_filesz = 1000,
		.p_memsz = 5000};

	memset(image, 0x77, sizeof(image));
	memcpy(image, &eh, sizeof(eh));
	memcpy(image + sizeof(eh), &ph, sizeof(ph));
	return 1512;
}

static void test_vmlinux(void)
{
	const uint64_t high = 0xffffffff80000000ull;
	const struct ring_mem *mem;
	char text[32] = "";
	struct rig r;
	size_t n;

	n = vmlinux_build(high + PREFERRED, PREFERRED, PREFERRED + 16);
	CU_ASSERT_EQUAL_FATAL(rig_create(&r, n, 10000), 0);
	mem = machine_memory(r.m);
	CU_ASSERT_EQUAL(guest_get(mem, PREFERRED + 999, 1), 0x77);
	CU_ASSERT_EQUAL(guest_get(mem, PREFERRED + 1000, 1), 0);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x1fe, 2), 0xaa55);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x202, 4), 0x53726448); /* "HdrS" */
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x206, 2), 0x020f);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x210, 2), 0x01ff);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x1ef, 1), 0);
	CU_ASSERT_EQUAL(ring_mem_read(mem, guest_get(mem, PARAMS + 0x228, 4), text, 20), 0);
	CU_ASSERT_STRING_EQUAL(text, "console=ttyS0 quiet");
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x218, 4), (8 << 20) - 12288);
	CU_ASSERT_EQUAL(guest_get(mem, PARAMS + 0x21c, 4), 10000);
	CU_ASSERT(guest_get(mem, PARAMS + 0x1e8, 1) >= 3);
	rig_destroy(&r);

	/* linked where it is loaded: a program, not a kernel */
	n = vmlinux_build(PREFERRED, PREFERRED, PREFERRED);
	refused(n, 0, "an ELF image without a PVH note");
	n = vmlinux_build(high, PREFERRED, PREFERRED + 1000);
	refused(n, 0, "an ELF image without a PVH note");
	n = vmlinux_build(high, 0x90000, 0x90000);
	refused(n, 0, "loads at 0x90000; the first 1024 KiB are the monitor's");
	n = vmlinux_build(high, 8 << 20, 8 << 20);
	refused(n, 0, "--memory takes more");
}

static const struct unit_case cases[] = {
	{"kernel, command line, initrd", test_load},
	{"memory map and RSDP", test_memory_map},
	{"page tables and GDT", test_page_tables},
	{"refused images", test_refused},
	{"refused initrds", test_initrd_files},
	{"PVH with an initrd", test_pvh_module},
	{"vmlinux without a PVH note", test_vmlinux},
};

UNIT_MAIN("boot_linux", cases)
