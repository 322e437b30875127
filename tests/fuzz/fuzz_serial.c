/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The serial ports' registers, with input typed in between. Input: pairs of bytes. First byte: bits
 * 0-2 register, bits 3-4 size (1, 2, 4; 3: typed input), bit 5 write, bits 6-7 the port, or (sizes
 * 2 and 4, the first port's) the value's high bits; second byte: the value, or how much is typed.
 */
#include <stdlib.h>

#include "vmm/vmm.h"

#define OPERATIONS_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_output(void *ctx, const uint8_t *bytes, size_t n)
{
	volatile uint8_t last;

	(void)ctx;
	for (size_t i = 0; i < n; i++)
		last = bytes[i];
	(void)last;
}

static struct machine *fuzz_machine(void)
{
	static struct machine *m;
	struct machine_config cfg;
	char why[VMM_WHY_MAX];

	if (m) {
		if (machine_reset(m, why))
			abort();
		return m;
	}
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = 2 << 20;
	cfg.console_hook = fuzz_output;
	for (unsigned i = 0; i < VMM_SERIALS_MAX; i++)
		cfg.serials[i].on = true;
	if (machine_create(&m, &cfg, why))
		abort();
	return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t bases[VMM_SERIALS_MAX] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
	static const uint8_t typed[255];
	struct machine *m = fuzz_machine();

	for (size_t i = 0; i + 1 < size && i < 2 * OPERATIONS_MAX; i += 2) {
		unsigned shift = data[i] >> 3 & 3, at = data[i] >> 6;
		uint16_t port = bases[shift % 3 ? 0 : at] + (data[i] & 7);

		if (shift == 3)
			machine_serial_input(m, at, typed, data[i + 1]);
		else if (data[i] & 0x20)
			machine_port_write(
				m, port, data[i + 1] | (data[i] & 0xc0u) << 8, 1u << shift);
		else
			machine_port_read(m, port, 1u << shift);
	}
	/* whatever happened: the transmitters are empty and the receivers run dry */
	for (unsigned k = 0; k < VMM_SERIALS_MAX; k++) {
		machine_port_write(m, bases[k] + 3, 0, 1);
		for (unsigned i = 0; i < 2048 && machine_port_read(m, bases[k] + 5, 1) & 1; i++)
			machine_port_read(m, bases[k], 1);
		if ((machine_port_read(m, bases[k] + 5, 1) & 0x61) != 0x60)
			abort();
	}
	return 0;
}
