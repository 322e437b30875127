/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bzImage loader on arbitrary bytes, into guest memory that is a heap block of its exact size,
 * and what is written for a kernel that it took. Input: the image.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/vmm.h"

#define MEMORY (2u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct linux_boot boot = {.cmdline = "quiet", .initrd = 0x180000, .initrd_size = 1};
	static uint64_t dirty[MEMORY / 4096 / 64];
	char why[VMM_WHY_MAX] = "";
	struct ring_mem mem = {0};
	uint8_t *memory = malloc(MEMORY);
	struct bzimage bz;
	int rc;

	if (!memory)
		abort();
	ring_mem_add(&mem, 0, MEMORY, memory, false);
	mem.regions[0].dirty = dirty;
	rc = bzimage_load(&mem, data, size, &bz, why);
	if (rc > 0 || (rc < 0) != (why[0] != '\0') || strchr(why, '\n'))
		abort();
	if (!rc) {
		if (bz.load < 0x100000 || bz.end > MEMORY || bz.entry >= bz.end ||
			bz.cmdline_max > 32767)
			abort();
		rc = bzimage_params_write(&mem, &bz, &boot);
		if ((rc != 0) != (strlen(boot.cmdline) > bz.cmdline_max))
			abort();
	}
	free(memory);
	return 0;
}
