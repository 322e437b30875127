/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Machines with KVM for tests: guests of a few instructions, 32-bit protected mode without paging
 * as PVH starts them, wrapped into an ELF image in a memfd.
 */
#ifndef TEST_MACHINE_RIG_H
#define TEST_MACHINE_RIG_H

#include <elf.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

#define GUEST_BASE    0x20000u
#define GUEST_TIMEOUT 30000
#define GUEST_PORT    0x5e0u /* answered by the test */

/* A guest's code: assembled where it is defined, linked nowhere, position-dependent at GUEST_BASE.
 */
#define GUEST_CODE(name, text)                                                                     \
	extern const uint8_t name##_begin[], name##_end[];                                         \
	__asm__(".pushsection .rodata\n.balign 16\n.code32\n" #name "_begin:\n" text "\n" #name    \
		"_end:\n.code64\n.popsection\n")

#define GUEST_POWEROFF "mov $0x604, %dx\nmov $0x2000, %ax\nout %ax, %dx\n9: jmp 9b\n"

struct guest_elf {
	Elf32_Ehdr ehdr;
	Elf32_Phdr load, note;
	Elf32_Nhdr nhdr;
	char name[4];
	uint32_t entry;
};

/* An image of code alone, loaded at base; its size. to: room for sizeof(struct guest_elf) + len. */
static inline size_t guest_elf_build(void *to, const uint8_t *code, size_t len, uint32_t base)
{
	struct guest_elf e = {
		.ehdr = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
			.e_type = ET_EXEC,
			.e_machine = EM_386,
			.e_version = EV_CURRENT,
			.e_entry = base,
			.e_phoff = sizeof(Elf32_Ehdr),
			.e_ehsize = sizeof(Elf32_Ehdr),
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 2},
		.load = {.p_type = PT_LOAD,
			.p_offset = sizeof(struct guest_elf),
			.p_paddr = base,
			.p_vaddr = base,
			.p_filesz = (uint32_t)len,
			.p_memsz = (uint32_t)len + 4096},
		.note = {.p_type = PT_NOTE,
			.p_offset = offsetof(struct guest_elf, nhdr),
			.p_filesz = sizeof(Elf32_Nhdr) + 8,
			.p_align = 4},
		.nhdr = {.n_namesz = 4, .n_descsz = 4, .n_type = 18},
		.name = "Xen",
		.entry = base,
	};

	memcpy(to, &e, sizeof(e));
	memcpy((uint8_t *)to + sizeof(e), code, len);
	return sizeof(e) + len;
}

struct guest {
	struct machine *m;
	struct machine_config cfg;
	int kernel;
	char path[64];
	char out[8192];
	atomic_size_t nout;
	/* what the guest wrote to GUEST_PORT */
	uint32_t words[4096];
	atomic_uint nwords;
	struct port_hook hook;
};

static inline void guest_output(void *ctx, const uint8_t *bytes, size_t n)
{
	struct guest *g = ctx;

	for (size_t i = 0; i < n && g->nout < sizeof(g->out) - 1; i++)
		g->out[g->nout++] = (char)bytes[i];
}

static inline void guest_word(void *ctx, uint16_t port, uint32_t value, unsigned size)
{
	struct guest *g = ctx;

	(void)port;
	(void)size;
	if (g->nwords < sizeof(g->words) / sizeof(g->words[0]))
		g->words[g->nwords] = value;
	atomic_fetch_add(&g->nwords, 1);
}

static inline uint32_t guest_word_read(void *ctx, uint16_t port, unsigned size)
{
	(void)ctx;
	(void)port;
	(void)size;
	return 0x600d0000;
}

static inline bool guest_kvm_missing(void)
{
	struct kvm_facts facts;
	char why[VMM_WHY_MAX];

	if (kvm_facts_get(&facts, why) == 0)
		return false;
	unit_skip(why);
	return true;
}

/* Everything but the machine itself. */
static inline void guest_init(struct guest *g, const uint8_t *begin, const uint8_t *end)
{
	uint8_t image[16384];
	size_t n;

	memset(g, 0, sizeof(*g));
	g->kernel = memfd_create("guest", MFD_CLOEXEC);
	if ((size_t)(end - begin) > sizeof(image) - sizeof(struct guest_elf))
		abort();
	n = guest_elf_build(image, begin, (size_t)(end - begin), GUEST_BASE);
	if (g->kernel < 0 || write(g->kernel, image, n) != (ssize_t)n)
		abort();
	snprintf(g->path, sizeof(g->path), "/proc/self/fd/%d", g->kernel);
	machine_config_init(&g->cfg);
	g->cfg.memory = 8ull << 20;
	g->cfg.kernel = g->path;
	g->cfg.console_hook = guest_output;
	g->cfg.console_ctx = g;
	g->hook = (struct port_hook){.port = GUEST_PORT,
		.count = 4,
		.read = guest_word_read,
		.write = guest_word,
		.ctx = g};
	g->cfg.hooks = &g->hook;
	g->cfg.nhooks = 1;
}

static inline bool guest_create(struct guest *g)
{
	char why[VMM_WHY_MAX] = "";

	if (machine_create(&g->m, &g->cfg, why) == 0)
		return true;
	printf("\nmachine_create: %s\n", why);
	return false;
}

static inline bool guest_start(struct guest *g)
{
	char why[VMM_WHY_MAX] = "";

	if (machine_start(g->m, why) == 0)
		return true;
	printf("\nmachine_start: %s\n", why);
	return false;
}

static inline void guest_destroy(struct guest *g)
{
	machine_destroy(g->m);
	close(g->kernel);
}

/* Waits until the guest has written n words. */
static inline bool guest_words_wait(struct guest *g, unsigned n)
{
	for (unsigned i = 0; i < GUEST_TIMEOUT * 10u && g->nwords < n; i++)
		usleep(100);
	return g->nwords >= n;
}

#endif
