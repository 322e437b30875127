/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that drives the e1000 as it likes: registers, rings and descriptors in memory, while
 * frames come from outside.
 *
 * Input: operations: a byte that says which, then what it needs.
 */
#include "tests/fuzz/fuzz_nic_rig.h"

#define TX_RING 0x10000u
#define RX_RING 0x11000u
#define DATA    0x20000u
#define RING_N  64u

static uint32_t tx_tail;

static uint64_t base(void)
{
	return config_read(0x10) & ~15u;
}

static void wr(unsigned reg, uint32_t v)
{
	machine_mmio_write(machine, base() + reg, v, 4);
}

static void memory_write(uint64_t gpa, const void *from, uint64_t len)
{
	void *host = ring_mem_translate(machine_memory(machine), gpa, len, RING_WRITE);

	if (host)
		memcpy(host, from, len);
}

static void set_up(struct input *in)
{
	uint32_t rctl = take(in, 4);

	for (uint32_t i = 0; i < RING_N; i++) {
		const uint64_t d[2] = {DATA + 0x10000 + i * 0x4000};

		memory_write(RX_RING + i * 16, d, sizeof(d));
	}
	tx_tail = 0;
	wr(0x2800, RX_RING);
	wr(0x2804, 0);
	wr(0x2808, RING_N * 16);
	wr(0x2810, 0);
	wr(0x2818, RING_N - 1);
	wr(0x0100, rctl | 2);
	wr(0x3800, TX_RING);
	wr(0x3804, 0);
	wr(0x3808, RING_N * 16);
	wr(0x3810, 0);
	wr(0x3818, 0);
	wr(0x0400, 2 | (take(in, 1) & 8));
}

static void tx_put(uint64_t address, uint32_t low, uint32_t high)
{
	const struct {
		uint64_t address;
		uint32_t low, high;
	} d = {address, low, high};

	memory_write(TX_RING + tx_tail * 16, &d, sizeof(d));
	tx_tail = (tx_tail + 1) % RING_N;
}

/* A context that makes sense but for a byte or two, and the data for it. */
static void segmented(struct input *in)
{
	uint32_t mss = take(in, 2), payload = take(in, 2), bits = take(in, 1);
	uint32_t l4 = bits & 2 ? 34 : 54, header = l4 + (bits & 1 ? 20 : 8);
	uint64_t where = 14 | 24 << 8 | (uint64_t)(l4 - 1) << 16 | (uint64_t)l4 << 32 |
			 (uint64_t)(l4 + (bits & 1 ? 16 : 6)) << 40;
	uint8_t frame[80] = {0x52};

	frame[12] = bits & 2 ? 0x08 : 0x86;
	frame[13] = bits & 2 ? 0x00 : 0xdd;
	frame[14] = bits & 2 ? 0x45 : 0x60;
	frame[bits & 2 ? 23 : 20] = bits & 1 ? 6 : 17;
	frame[l4 + 12] = 0x50;
	memory_write(DATA, frame, sizeof(frame));
	if (bits & 0x10)
		where ^= take(in, 1) << (take(in, 1) & 63);
	if (bits & 0x20)
		header ^= take(in, 1);
	tx_put(where, 0x24000000 | (bits & 3) << 24, header << 8 | mss << 16);
	tx_put(DATA,
		(payload + header) | (bits & 0x80 ? 0x21100000 : 0x25100000) |
			(bits & 0x40 ? 0x40000000 : 0),
		(bits >> 2 & 3) << 8);
	wr(0x3818, tx_tail);
}

static void operation(struct input *in)
{
	static const uint16_t regs[] = {0x0000, 0x0008, 0x0010, 0x0014, 0x0020, 0x0038, 0x00c0,
		0x00c8, 0x00d0, 0x00d8, 0x0100, 0x0400, 0x2800, 0x2804, 0x2808, 0x2810, 0x2818,
		0x3800, 0x3804, 0x3808, 0x3810, 0x3818, 0x4010, 0x5200, 0x5400, 0x5404, 0x5600};
	unsigned op = take(in, 1), size = 1u << (op >> 4 & 3);
	uint16_t io = config_read(0x14) & ~3u;
	uint8_t bytes[32];
	uint64_t at;

	switch (op & 15) {
	case 0:
	case 1:
		at = regs[take(in, 1) % (sizeof(regs) / sizeof(regs[0]))];
		wr(at, take(in, 4));
		break;
	case 2:
		at = take(in, 3) & 0x1ffff;
		machine_mmio_write(machine, base() + at, take(in, size), size);
		break;
	case 3:
		at = take(in, 3) & 0x1ffff;
		(void)machine_mmio_read(machine, base() + at, size);
		break;
	case 4:
		set_up(in);
		break;
	case 5:
		at = take(in, 8);
		tx_put(at & 1 ? at : DATA + (at & 0xffff), take(in, 4), take(in, 4));
		if (op & 0x80)
			wr(0x3818, tx_tail);
		break;
	case 6:
		segmented(in);
		break;
	case 7:
		at = take(in, 3);
		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = take(in, 1);
		memory_write(at, bytes, sizeof(bytes));
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
		at = take(in, 1);
		machine_port_write(machine, io + (at & 0x3f), take(in, 4), size > 4 ? 4 : size);
		(void)machine_port_read(machine, io + (at & 0x3f), size > 4 ? 4 : size);
		break;
	case 14:
		wr(0x2818, take(in, 1) % RING_N);
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
		nic_make("e1000", 0x100e8086);
	nic_reset();
	tx_tail = 0;
	for (unsigned n = 0; n < OPS_MAX && in.left; n++)
		operation(&in);
	nic_wait();
	return 0;
}
