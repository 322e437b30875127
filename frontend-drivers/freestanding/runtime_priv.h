/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of the runtime know of each other. */
#ifndef FRONTEND_RUNTIME_PRIV_H
#define FRONTEND_RUNTIME_PRIV_H

#include "frontend-drivers/frontend.h"
#include "frontend-drivers/freestanding/entry_priv.h"

/* PVH start information (Xen's public/arch-x86/hvm/start_info.h describes the layout). */
#define HVM_START_MAGIC 0x336ec578u

struct hvm_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist;
	uint64_t cmdline;
	uint64_t rsdp;
	uint64_t memmap; /* version 1 */
	uint32_t memmap_entries;
	uint32_t reserved;
};

struct hvm_memmap_entry {
	uint64_t addr;
	uint64_t size;
	uint32_t type; /* 1: RAM */
	uint32_t reserved;
};

void cpu_init(void);
void uart_init(void);
void cmdline_init(const struct hvm_start_info *si);
void mem_init(const struct hvm_start_info *si);

static inline void cpuid(uint32_t leaf, uint32_t out[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
			 : "a"(leaf), "c"(0));
}

/* The oldest of *nsent tokens, at most max, go to tokens; how many. The others move up. */
static inline unsigned net_tokens_take(
	uint64_t *sent, unsigned *nsent, uint64_t *tokens, unsigned max)
{
	unsigned got = *nsent < max ? *nsent : max;

	for (unsigned i = 0; i < got; i++)
		tokens[i] = sent[i];
	for (unsigned i = got; i < *nsent; i++)
		sent[i - got] = sent[i];
	*nsent -= got;
	return got;
}

#endif
