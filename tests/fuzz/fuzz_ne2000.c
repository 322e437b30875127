/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that touches the NE2000's ports as it likes, while frames come from outside.
 *
 * Input: operations: a byte that says which, then what it needs.
 */
#include "tests/fuzz/fuzz_nic_rig.h"

static uint16_t port_base(void)
{
	return config_read(0x10) & ~3u;
}

static void out(unsigned reg, uint8_t v)
{
	machine_port_write(machine, port_base() + reg, v, 1);
}

/* What a driver does first; ring and address differ a little. */
static void set_up(struct input *in)
{
	static const uint8_t script[][2] = {{0, 0x21}, {0x0e, 0x49}, {0x0c, 0x20}, {0x0d, 0x02},
		{0x01, 0x46}, {0x03, 0x46}, {0x02, 0x80}, {0x07, 0xff}, {0x0f, 0x1f}, {0, 0x61},
		{1, 0x52}, {2, 0x54}, {3, 0}, {4, 0x12}, {5, 0x34}, {6, 0x56}, {7, 0x47}, {0, 0x22},
		{0x0d, 0}, {0x0c, 0x1c}};
	unsigned spoil = take(in, 1), by = take(in, 1);

	for (unsigned i = 0; i < sizeof(script) / sizeof(script[0]); i++)
		out(script[i][0], script[i][1] ^ (i == spoil ? by : 0));
}

static void remote(struct input *in, uint8_t command)
{
	uint32_t at = take(in, 2), len = take(in, 2), size = 1u << take(in, 1) % 3;

	out(0x0a, len & 0xff);
	out(0x0b, len >> 8);
	out(0x08, at & 0xff);
	out(0x09, at >> 8);
	out(0x00, command);
	for (uint32_t i = 0; i < (len & 0x3ff) + 4; i += size) {
		if (command & 8)
			machine_port_read(machine, port_base() + 0x10, size);
		else
			machine_port_write(machine, port_base() + 0x10, i * 0x01010101u, size);
	}
}

static void operation(struct input *in)
{
	unsigned op = take(in, 1), reg = take(in, 1) & 0x1f, size = 1u << (op >> 4) % 3;

	switch (op & 15) {
	case 0:
	case 1:
	case 2:
		machine_port_write(machine, port_base() + reg, take(in, size), size);
		break;
	case 3:
		(void)machine_port_read(machine, port_base() + reg, size);
		break;
	case 4:
		set_up(in);
		break;
	case 5:
		remote(in, 0x12);
		break;
	case 6:
		remote(in, op & 0x80 ? 0x1a : 0x0a);
		break;
	case 7:
		out(0x04, 0x40 + reg);
		out(0x05, take(in, 1));
		out(0x06, take(in, 1) & 7);
		out(0x00, 0x26);
		break;
	case 8:
	case 9:
		peer_send(in);
		break;
	case 10:
		nic_wait();
		break;
	case 11:
		nic_move(in);
		break;
	case 12:
		config_write(take(in, 1) & 0x3c, take(in, 4));
		break;
	case 13:
		/* what has come is given back */
		out(0x00, 0x22);
		out(0x03, 0x46 + reg);
		break;
	default:
		peer_drain(1 + reg);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	if (!machine)
		nic_make("ne2k_pci", 0x802910ec);
	nic_reset();
	for (unsigned n = 0; n < OPS_MAX && in.left; n++)
		operation(&in);
	nic_wait();
	return 0;
}
