/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Guest memory: the table of regions, the one translation, dirty marking, copies. */
#include "ring/ring_priv.h"

int ring_mem_add(struct ring_mem *mem, uint64_t gpa, uint64_t size, void *hva, bool readonly)
{
	struct ring_mem_region *r;

	if (!size || !hva || size - 1 > UINT64_MAX - gpa)
		return -RING_EINVAL;
	for (uint32_t i = 0; i < mem->nregions; i++) {
		r = &mem->regions[i];
		if (gpa <= r->gpa + (r->size - 1) && r->gpa <= gpa + (size - 1))
			return -RING_EINVAL;
	}
	if (mem->nregions >= RING_MEM_REGIONS_MAX)
		return -RING_ENOSPC;
	mem->regions[mem->nregions++] = (struct ring_mem_region){
		.gpa = gpa,
		.size = size,
		.hva = hva,
		.readonly = readonly,
	};
	return 0;
}

void *ring_mem_translate(const struct ring_mem *mem, uint64_t gpa, uint64_t len, enum ring_dir dir)
{
	void *host;

	if (!len)
		return NULL;
	for (uint32_t i = 0; i < mem->nregions; i++) {
		host = ring_region_translate(&mem->regions[i], gpa, len, dir);
		if (host)
			return host;
	}
	return NULL;
}

static void ring_region_dirty(const struct ring_mem_region *r, uint64_t offset, uint64_t len)
{
	uint64_t page = (offset >> RING_MEM_PAGE_SHIFT) + r->dirty_bit;
	uint64_t last = ((offset + len - 1) >> RING_MEM_PAGE_SHIFT) + r->dirty_bit;

	while (page <= last) {
		uint64_t word = page / 64, end = last / 64 == word ? last % 64 : 63;
		uint64_t bits = (UINT64_MAX >> (63 - end)) & (UINT64_MAX << page % 64);

		/*
		 * Always an atomic OR, never "only if clear": the page's bytes must be visible
		 * before the bit is seen, or whoever clears the bit and then copies the page would
		 * miss them.
		 */
		ring_or_release(&r->dirty[word], bits);
		page = (word + 1) * 64;
	}
}

void ring_mem_dirty(const struct ring_mem *mem, const void *host, uint64_t len)
{
	if (!len)
		return;
	/* Two regions may show the same host memory: each keeps its own bits. */
	for (uint32_t i = 0; i < mem->nregions; i++) {
		const struct ring_mem_region *r = &mem->regions[i];
		uint64_t offset = (uintptr_t)host - (uintptr_t)r->hva;

		if (r->dirty && offset < r->size && len <= r->size - offset)
			ring_region_dirty(r, offset, len);
	}
}

/* The longest part of [gpa, gpa + *len) that lies in one region, *len cut to it. */
static void *ring_mem_part(
	const struct ring_mem *mem, uint64_t gpa, uint64_t *len, enum ring_dir dir)
{
	for (uint32_t i = 0; i < mem->nregions; i++) {
		const struct ring_mem_region *r = &mem->regions[i];
		uint8_t *host = ring_region_translate(r, gpa, 1, dir);

		if (!host)
			continue;
		if (*len > r->size - (gpa - r->gpa))
			*len = r->size - (gpa - r->gpa);
		return host;
	}
	return NULL;
}

int ring_mem_read(const struct ring_mem *mem, uint64_t gpa, void *to, uint64_t len)
{
	uint8_t *at = to;

	if (len && len - 1 > UINT64_MAX - gpa)
		return -RING_EFAULT;
	while (len) {
		uint64_t part = len;
		void *host = ring_mem_part(mem, gpa, &part, RING_READ);

		if (!host)
			return -RING_EFAULT;
		ring_copy(at, host, part);
		at += part;
		gpa += part;
		len -= part;
	}
	return 0;
}

int ring_mem_write(const struct ring_mem *mem, uint64_t gpa, const void *from, uint64_t len)
{
	const uint8_t *at = from;

	if (len && len - 1 > UINT64_MAX - gpa)
		return -RING_EFAULT;
	while (len) {
		uint64_t part = len;
		void *host = ring_mem_part(mem, gpa, &part, RING_WRITE);

		if (!host)
			return -RING_EFAULT;
		ring_copy(host, at, part);
		ring_mem_dirty(mem, host, part);
		at += part;
		gpa += part;
		len -= part;
	}
	return 0;
}
