/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ELF loader on arbitrary bytes, into two regions of guest memory that have heap blocks of
 * their exact size. Input: the image.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/vmm.h"

#define LOW_GPA  0x10000u
#define LOW_LEN  (64u << 10)
#define HIGH_GPA 0x100000u
#define HIGH_LEN (128u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t dirty[2] = {0};
	struct ring_mem mem = {0};
	char why[VMM_WHY_MAX] = "";
	uint8_t *low = malloc(LOW_LEN), *high = malloc(HIGH_LEN);
	struct elf_info info;
	int rc;

	if (!low || !high)
		abort();
	ring_mem_add(&mem, LOW_GPA, LOW_LEN, low, false);
	ring_mem_add(&mem, HIGH_GPA, HIGH_LEN, high, false);
	mem.regions[0].dirty = &dirty[0];
	mem.regions[1].dirty = &dirty[1];
	rc = elf_load(&mem, data, size, &info, why);
	if (rc > 0 || (rc < 0) != (why[0] != '\0') || strchr(why, '\n'))
		abort();
	if (!rc && (info.entry < info.lowest || info.entry >= info.highest))
		abort();
	free(low);
	free(high);
	return 0;
}
