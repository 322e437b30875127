/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI configuration space, MSI-X tables and the machine's own ports. Input: records of eight bytes:
 * what (bits 0-2: configuration, memory near a BAR, a port of the machine's; bit 3 write; bits 4-5
 * size), slot and function, register or offset (two bytes), value (four bytes).
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/vmm.h"

#define RECORD         8u
#define OPERATIONS_MAX 512u
#define CONFIG_ADDRESS 0xcf8u
#define CONFIG_DATA    0xcfcu

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine *fuzz_machine(void)
{
	static struct machine *m;
	struct machine_config cfg;
	char why[VMM_WHY_MAX];

	if (m) {
		if (machine_reset(m, why))
			abort();
		machine_resume(m);
		return m;
	}
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = 2 << 20;
	cfg.nets[0].memory = "sink";
	cfg.nets[1].memory = "sink";
	cfg.nets[1].model = "e1000";
	cfg.nets[2].memory = "sink";
	cfg.nets[2].model = "ne2k_pci";
	cfg.nnets = 3;
	cfg.poll_set = true;
	if (machine_create(&m, &cfg, why))
		abort();
	return m;
}

static uint32_t config(
	struct machine *m, unsigned devfn, unsigned reg, bool write, uint32_t value, unsigned size)
{
	uint16_t port = (uint16_t)(CONFIG_DATA + (reg & 3));

	machine_port_write(m, CONFIG_ADDRESS, 0x80000000u | (devfn & 0xff) << 8 | (reg & 0xfc), 4);
	if (!write)
		return machine_port_read(m, port, size);
	machine_port_write(m, port, value, size);
	return 0;
}

static void record(struct machine *m, const uint8_t *r)
{
	unsigned what = r[0] & 7, size = 1u << (r[0] >> 4 & 3), offset = r[2] | r[3] << 8;
	bool write = r[0] & 8;
	uint32_t value, bar;

	memcpy(&value, r + 4, sizeof(value));
	if (what < 3) {
		config(m, r[1], offset, write, value, size > 4 ? 4 : size);
	} else if (what < 6) {
		/* r[1]: slot in bits 3-7, BAR in bits 0-2 */
		bar = config(m, r[1] & 0xf8, 0x10 + 4 * (r[1] & 7), false, 0, 4);
		if (bar & 1 && write)
			machine_port_write(m, (uint16_t)((bar & ~3u) + (offset & 0x1f)), value,
				size > 4 ? 4 : size);
		else if (bar & 1)
			machine_port_read(
				m, (uint16_t)((bar & ~3u) + (offset & 0x1f)), size > 4 ? 4 : size);
		else if (write)
			machine_mmio_write(
				m, (bar & ~15ull) + offset, value * 0x100000001ull, size);
		else
			machine_mmio_read(m, (bar & ~15ull) + offset, size);
	} else if (write) {
		machine_port_write(m, (uint16_t)offset, value, size > 4 ? 4 : size);
	} else {
		machine_port_read(m, (uint16_t)offset, size > 4 ? 4 : size);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m = fuzz_machine();

	for (size_t i = 0; i + RECORD <= size && i < OPERATIONS_MAX * RECORD; i += RECORD)
		record(m, data + i);
	/* the host bridge is still there, and still itself */
	if (config(m, 0, 0, false, 0, 4) != 0x12378086)
		abort();
	return 0;
}
