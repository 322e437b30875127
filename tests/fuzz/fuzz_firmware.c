/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fw_cfg, its DMA, POST codes and the memory attributes, with saving and loading in between. Input:
 * groups of four bytes. First byte: bits 0-3 what, bits 4-5 size (1, 2, 4; 3: save and load), bit 6
 * write; then an offset or the value's upper bytes, and the value.
 */
#include <string.h>

#include "tests/fuzz/fuzz_machine_rig.h"

#define OPERATIONS_MAX 2048u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A DMA request in guest memory is what it was made of: the input's own bytes. */
static void fuzz_dma(struct machine *m, const uint8_t *bytes, size_t left)
{
	uint8_t *at = ring_mem_translate(machine_memory(m), 0x1000, 16, RING_WRITE);

	memset(at, 0, 16);
	memcpy(at, bytes, left < 16 ? left : 16);
	machine_port_write(m, 0x514, 0, 4);
	machine_port_write(m, 0x518, 0x00100000, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t ports[8] = {0x510, 0x511, 0x514, 0x518, 0x80, 0x402, 0xcf8, 0xcfc};
	struct machine *m = fuzz_firmware_machine();
	unsigned saves = 0;

	for (size_t i = 0; i + 3 < size && i < 4 * OPERATIONS_MAX; i += 4) {
		unsigned what = data[i] & 15, shift = data[i] >> 4 & 3;
		uint32_t value = data[i + 3] | data[i + 2] << 8 | (uint32_t)data[i + 1] << 16;
		uint64_t gpa = 0xc0000 + (value & 0x3ffff);

		if (shift == 3) {
			if (saves++ < 8)
				fuzz_save_load(m);
		} else if (what == 8) {
			fuzz_dma(m, data + i + 1, size - i - 1);
		} else if (what > 8) {
			if (data[i] & 0x40)
				machine_mmio_write(m, gpa, value, 1u << shift);
			else
				machine_mmio_read(m, gpa, 1u << shift);
		} else if (data[i] & 0x40) {
			/* the host bridge's attributes */
			machine_port_write(m, ports[what],
				what == 6 ? 0x80000058u | (value & 4) : value, 1u << shift);
		} else {
			machine_port_read(m, ports[what], 1u << shift);
		}
	}
	/* whatever happened: it is still what it says it is */
	machine_port_write(m, 0x510, 0, 2);
	if (machine_port_read(m, 0x511, 1) != 'Q')
		abort();
	return 0;
}
