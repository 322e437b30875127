/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The serial port's registers, with input typed in between. Input: pairs of bytes. First byte: bits
 * 0-2 register, bits 3-4 size (1, 2, 4; 3: typed input), bit 5 write, bits 6-7 value's high bits;
 * second byte: the value, or how much is typed.
 */
#include <stdlib.h>

#include "vmm/vmm.h"

#define OPERATIONS_MAX 4096u
#define SERIAL_PORT    0x3f8u

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
	if (machine_create(&m, &cfg, why))
		abort();
	return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t typed[255];
	struct machine *m = fuzz_machine();
	unsigned lsr;

	for (size_t i = 0; i + 1 < size && i < 2 * OPERATIONS_MAX; i += 2) {
		uint16_t port = SERIAL_PORT + (data[i] & 7);
		unsigned shift = data[i] >> 3 & 3;

		if (shift == 3)
			machine_console_input(m, typed, data[i + 1]);
		else if (data[i] & 0x20)
			machine_port_write(
				m, port, data[i + 1] | (data[i] & 0xc0u) << 8, 1u << shift);
		else
			machine_port_read(m, port, 1u << shift);
	}
	/* whatever happened: the transmitter is empty and the receiver runs dry */
	machine_port_write(m, SERIAL_PORT + 3, 0, 1);
	for (unsigned i = 0; i < 2048 && machine_port_read(m, SERIAL_PORT + 5, 1) & 1; i++)
		machine_port_read(m, SERIAL_PORT, 1);
	lsr = machine_port_read(m, SERIAL_PORT + 5, 1);
	if ((lsr & 0x61) != 0x60)
		abort();
	return 0;
}
