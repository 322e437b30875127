/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clock, the keyboard controller and power management by their ports, with saving and loading
 * in between. Input: groups of three bytes. First byte: bits 0-3 port, bits 4-5 size (1, 2, 4; 3:
 * save and load), bit 6 write; then the value.
 */
#include <stdlib.h>

#include "tests/fuzz/fuzz_machine_rig.h"

#define OPERATIONS_MAX 2048u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine *fuzz_machine(void)
{
	static struct machine *m;
	struct machine_config cfg;
	char why[VMM_WHY_MAX];

	if (m) {
		fuzz_machine_again(m);
		return m;
	}
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = 2 << 20;
	if (machine_create(&m, &cfg, why))
		abort();
	return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t ports[16] = {0x60, 0x64, 0x70, 0x71, 0x92, 0x600, 0x602, 0x604, 0x608,
		0x60, 0x64, 0x70, 0x71, 0x71, 0x64, 0x63f};
	struct machine *m = fuzz_machine();
	unsigned saves = 0;

	for (size_t i = 0; i + 2 < size && i < 3 * OPERATIONS_MAX; i += 3) {
		uint16_t port = ports[data[i] & 15];
		unsigned shift = data[i] >> 4 & 3;

		if (shift == 3) {
			if (saves++ < 8)
				fuzz_save_load(m);
		} else if (data[i] & 0x40) {
			machine_port_write(m, port, data[i + 1] | data[i + 2] << 8, 1u << shift);
		} else {
			machine_port_read(m, port, 1u << shift);
		}
	}
	/* whatever happened: the keyboard controller passes its self test, the clock is valid */
	machine_port_write(m, 0x64, 0xaa, 1);
	if (!(machine_port_read(m, 0x64, 1) & 1) || machine_port_read(m, 0x60, 1) != 0x55)
		abort();
	machine_port_write(m, 0x70, 0x0d, 1);
	if (machine_port_read(m, 0x71, 1) != 0x80)
		abort();
	return 0;
}
