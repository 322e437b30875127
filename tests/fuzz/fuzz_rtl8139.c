/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that drives the RTL8139 as it likes: registers of any width, frames in memory, while
 * others come from outside.
 *
 * Input: operations: a byte that says which, then what it needs.
 */
#include "tests/fuzz/fuzz_nic_rig.h"

static uint64_t base(void)
{
	return config_read(0x14) & ~15u;
}

static void set_up(struct input *in)
{
	machine_mmio_write(machine, base() + 0x30, take(in, 3), 4);
	machine_mmio_write(machine, base() + 0x37, 0x0c, 1);
	machine_mmio_write(machine, base() + 0x44, take(in, 2), 4);
	machine_mmio_write(machine, base() + 0x3c, 0xffff, 2);
}

static void operation(struct input *in)
{
	unsigned op = take(in, 1), size = 1u << (op >> 4 & 3);
	uint16_t io = config_read(0x10) & ~3u;
	uint64_t at;

	switch (op & 15) {
	case 0:
	case 1:
	case 2:
		at = take(in, 1);
		machine_mmio_write(machine, base() + at, take(in, size), size);
		break;
	case 3:
		(void)machine_mmio_read(machine, base() + (take(in, 2) & 0xfff), size);
		break;
	case 4:
		set_up(in);
		break;
	case 5: /* a frame from a descriptor */
		at = take(in, 1) & 3;
		machine_mmio_write(machine, base() + 0x20 + 4 * at, take(in, 3), 4);
		machine_mmio_write(machine, base() + 0x10 + 4 * at, take(in, 2), 4);
		break;
	case 6: /* how far it has read */
		machine_mmio_write(machine, base() + 0x38, take(in, 2), 2);
		break;
	case 7:
	case 8:
		peer_send(in);
		break;
	case 9:
		nic_wait();
		break;
	case 10:
		nic_move(in);
		break;
	case 11:
		config_write(take(in, 1) & 0x3c, take(in, 4));
		break;
	case 12:
		at = take(in, 1);
		machine_port_write(machine, io + at, take(in, 4), size > 4 ? 4 : size);
		(void)machine_port_read(machine, io + at, size > 4 ? 4 : size);
		break;
	default:
		peer_drain(1 + take(in, 1));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	if (!machine)
		nic_make("rtl8139", 0x813910ec);
	nic_reset();
	for (unsigned n = 0; n < OPS_MAX && in.left; n++)
		operation(&in);
	nic_wait();
	return 0;
}
