/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory from the boot memory map: two bump allocators that grow towards each other. */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define MEM_LIMIT    (4ull << 30)
#define MEM_ENTRIES  64u
#define MEM_FALLBACK (64ull << 20)

extern uint8_t guest_image_end[];

static uintptr_t low;  /* first free byte, grows up */
static uintptr_t high; /* end of the free bytes, grows down */

void mem_init(const struct hvm_start_info *si)
{
	const struct hvm_memmap_entry *e = (const void *)(uintptr_t)si->memmap;
	uint32_t n = si->version >= 1 && e ? si->memmap_entries : 0;
	uint64_t image = (uintptr_t)guest_image_end;

	low = high = 0;
	for (uint32_t i = 0; i < n && i < MEM_ENTRIES; i++) {
		uint64_t from = e[i].addr;
		uint64_t to = from + e[i].size;

		if (e[i].type != 1 || from >= MEM_LIMIT || to < from)
			continue;
		if (to > MEM_LIMIT)
			to = MEM_LIMIT;
		if (from < image)
			from = image;
		/* The largest piece; the image is in the low one, which is the only one on most
		 * machines. */
		if (to > from && to - from > high - low) {
			low = from;
			high = to;
		}
	}
	if (!high) {
		print("memory: no map, assuming %lu MiB\n", (unsigned long)(MEM_FALLBACK >> 20));
		low = image;
		high = MEM_FALLBACK;
	}
	low = (low + 4095) & ~(uintptr_t)4095;
	high &= ~(uintptr_t)4095;
}

void *mem_alloc(size_t bytes, size_t align)
{
	uintptr_t a = (low + align - 1) & ~(uintptr_t)(align - 1);

	if (a < low || a > high || bytes > high - a)
		return NULL;
	low = a + bytes;
	return memset((void *)a, 0, bytes);
}

void *mem_temp_alloc(size_t bytes, size_t align)
{
	uintptr_t a;

	if (bytes > high - low)
		return NULL;
	a = (high - bytes) & ~(uintptr_t)(align - 1);
	if (a < low)
		return NULL;
	high = a;
	return memset((void *)a, 0, bytes);
}

uintptr_t mem_temp_mark(void)
{
	return high;
}

void mem_temp_release(uintptr_t mark)
{
	high = mark;
}

size_t mem_free_bytes(void)
{
	return high - low;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *r = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return r;
}

void *memmove(void *to, const void *from, size_t n)
{
	uint8_t *t = to;
	const uint8_t *f = from;

	if (t <= f || t >= f + n)
		return memcpy(to, from, n);
	while (n--) {
		t[n] = f[n];
		__asm__ volatile("" : : : "memory");
	}
	return to;
}

void *memset(void *to, int c, size_t n)
{
	void *r = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return r;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;

	for (size_t i = 0; i < n; i++)
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	return 0;
}
