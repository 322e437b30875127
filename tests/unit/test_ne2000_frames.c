/* SPDX-License-Identifier: BSD-2-Clause */
/* The NE2000 model: frames both ways, moves in mid-transfer, a guest gone wild. */
#include "tests/unit/test_ne2000_rig.h"

/* ------------------------------------------------------------------ frames */

/* The smallest, the largest, and some between. */
static uint32_t length_of(uint32_t n)
{
	return n < 60 ? 14 + n : n < 120 ? 1514 - (n - 60) : 74 + n * 131 % 1380;
}

static void test_transmit(void)
{
	uint8_t f[60];
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0x04);
	for (uint32_t n = 0; n < 200; n++) {
		send(&d, n, length_of(n));
		nic_peer_expect(&d.rig, nic_other, n, length_of(n));
	}
	/* a tag more */
	send(&d, 9, 1518);
	nic_peer_expect(&d.rig, nic_other, 9, 1518);
	/* what cannot be sent */
	for (unsigned i = 0; i < 3; i++) {
		transmit(&d, i == 0 ? 0 : i == 1 ? 1519 : 60);
		if (i == 2)
			continue;
		CU_ASSERT_EQUAL(in(&d, ISR) & (PTX | TXE), TXE);
		out(&d, ISR, 0xff);
	}
	NIC_UNTIL(in(&d, ISR) & PTX);
	CU_ASSERT_EQUAL(nic_peer_take(&d.rig, f, sizeof(f), NULL), 60);
	out(&d, ISR, 0xff);
	out(&d, TPSR, 0x7f);
	out(&d, TBCR1, 2);
	out(&d, CR, 0x26);
	CU_ASSERT_EQUAL(in(&d, ISR) & (PTX | TXE), TXE);
	out(&d, TPSR, 0x10);
	out(&d, ISR, 0xff);
	out(&d, CR, 0x26);
	CU_ASSERT_EQUAL(in(&d, ISR) & (PTX | TXE), TXE);
	/* less than a header goes nowhere, but goes */
	out(&d, ISR, 0xff);
	transmit(&d, 13);
	CU_ASSERT_EQUAL(in(&d, ISR) & (PTX | TXE), PTX);
	/* loopback stays inside */
	out(&d, ISR, 0xff);
	out(&d, TCR, 0x02);
	transmit(&d, 64);
	CU_ASSERT_EQUAL(in(&d, ISR) & (PTX | TXE), PTX);
	CU_ASSERT(nic_peer_silent(&d.rig));
	nic_close(&d.rig);
}

static void test_receive(void)
{
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0x04);
	for (uint32_t n = 0; n < 600; n++) {
		peer_send(&d, n & 1 ? nic_mac : nic_broadcast, n, length_of(n));
		for (uint32_t i = n - 4; n % 5 == 4 && i <= n; i++)
			expect(&d, i & 1 ? nic_mac : nic_broadcast, i, length_of(i));
	}
	CU_ASSERT_EQUAL(current(&d), d.next);
	nic_close(&d.rig);
}

/* Sends it, then one that surely arrives: did it arrive? */
static bool arrives(struct ne *d, const uint8_t to[6])
{
	static uint32_t n;
	uint8_t got[2048];
	bool first;

	peer_send(d, to, ++n, 100);
	peer_send(d, nic_mac, ++n, 101);
	first = take(d, got) == 100;
	if (first) {
		CU_ASSERT_EQUAL(memcmp(got, to, 6), 0);
		take(d, got);
	}
	return first;
}

/* The station's hash as the datasheet draws it: the CRC register's upper six bits, bit by bit. */
static unsigned hash_of(const uint8_t mac[6])
{
	uint32_t crc = 0xffffffff;

	for (unsigned bit = 0; bit < 48; bit++) {
		unsigned in_bit = mac[bit / 8] >> (bit % 8) & 1, top = crc >> 31;

		crc <<= 1;
		if (in_bit != top)
			crc ^= 0x04c11db7;
	}
	return crc >> 26;
}

static void test_filters(void)
{
	static const uint8_t group[6] = {0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb};
	static const uint8_t group6[6] = {0x33, 0x33, 0xff, 0x12, 0x34, 0x56};
	unsigned hash = hash_of(group);
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0x00);
	CU_ASSERT_FALSE(arrives(&d, nic_broadcast));
	CU_ASSERT_FALSE(arrives(&d, nic_other));
	CU_ASSERT_FALSE(arrives(&d, group));
	out(&d, RCR, 0x04);
	CU_ASSERT(arrives(&d, nic_broadcast));
	CU_ASSERT_FALSE(arrives(&d, group));
	out(&d, RCR, 0x08);
	CU_ASSERT_FALSE(arrives(&d, group));
	out(&d, CR, 0x62);
	out(&d, MAR + hash / 8, 1u << (hash & 7));
	out(&d, CR, 0x22);
	CU_ASSERT(arrives(&d, group));
	CU_ASSERT_FALSE(arrives(&d, group6));
	CU_ASSERT_FALSE(arrives(&d, nic_broadcast));
	/* promiscuous: any station, but groups as before */
	out(&d, RCR, 0x10);
	CU_ASSERT(arrives(&d, nic_other));
	CU_ASSERT_FALSE(arrives(&d, group));
	out(&d, CR, 0x62);
	for (unsigned i = 0; i < 8; i++)
		out(&d, MAR + i, 0xff);
	out(&d, CR, 0x22);
	out(&d, RCR, 0x1c);
	CU_ASSERT(arrives(&d, group6) && arrives(&d, nic_broadcast) && arrives(&d, nic_other));
	nic_close(&d.rig);
}

static void test_slow_guest(void)
{
	uint32_t n = 0, i = 0;
	uint8_t f[1024];
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0x04);
	/* until the ring and the port's queue are full */
	for (; n < 5000; n++) {
		nic_frame(f, nic_mac, n, 1000);
		if (!nic_peer_try(&d.rig, f, 1000))
			break;
	}
	CU_ASSERT(n > 100 && n < 5000);
	for (; i < 100; i++)
		expect(&d, nic_mac, i, 1000);
	CU_ASSERT_EQUAL(in(&d, ISR) & OVW, 0);
	/* a stopped receiver, one in monitor mode, one in loopback lose nothing either */
	NIC_UNTIL((current(&d) + 58 - d.next) % 58 == 52);
	out(&d, CR, 0x21);
	nic_sync(&d.rig);
	out(&d, RCR, 0x24);
	out(&d, TCR, 0x02);
	out(&d, CR, 0x22);
	for (uint32_t left = 30; current(&d) != d.next && left; left--)
		expect(&d, nic_mac, i++, 1000);
	CU_ASSERT_EQUAL(current(&d), d.next);
	out(&d, RCR, 0x04);
	nic_sync(&d.rig);
	CU_ASSERT_EQUAL(current(&d), d.next);
	out(&d, TCR, 0x00);
	for (; i < n; i++)
		expect(&d, nic_mac, i, 1000);
	nic_close(&d.rig);
}

/*
 * As Linux's driver reads: nine frames at most, BNRY always one page below what comes next (below
 * the ring, when that is its first page), then whatever came is acknowledged.
 */
static void test_nine_at_a_time(void)
{
	uint8_t f[1024], want[1024], h[4];
	uint32_t n = 0, i = 0;
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0x04);
	for (; n < 5000; n++) {
		nic_frame(f, nic_mac, n, 1000);
		if (!nic_peer_try(&d.rig, f, 1000))
			break;
	}
	CU_ASSERT(n > 100 && n < 5000);
	while (i < n) {
		NIC_UNTIL(in(&d, ISR) & PRX);
		for (unsigned k = 0; k < 9 && current(&d) != d.next; k++, i++) {
			mem_in(&d, d.next << 8, h, 4);
			CU_ASSERT_EQUAL_FATAL(h[2] | h[3] << 8, 1004);
			mem_in(&d, (d.next << 8) + 4, f, 1000);
			nic_frame(want, nic_mac, i, 1000);
			CU_ASSERT_EQUAL_FATAL(memcmp(want, f, 1000), 0);
			d.next = h[1];
			out(&d, BNRY, d.next - 1u);
		}
		nic_sync(&d.rig);
		out(&d, ISR, PRX);
	}
	CU_ASSERT_EQUAL(in(&d, ISR) & (PRX | OVW), 0);
	nic_close(&d.rig);
}

/* ------------------------------------------------------------------ moves */

static void test_move(void)
{
	uint8_t f[1514];
	struct ne d, to;

	ne_open(&d);
	ne_start(&d, 0x04);
	machine_dirty_log(d.rig.m, true);
	for (uint32_t i = 0; i < 45; i++) {
		peer_send(&d, nic_mac, i, 300);
		expect(&d, nic_mac, i, 300);
	}
	for (uint32_t i = 50; i < 55; i++)
		peer_send(&d, nic_mac, i, 900);
	out(&d, IMR, PRX);
	expect(&d, nic_mac, 50, 900);
	/* four frames of four pages */
	NIC_UNTIL((current(&d) + 58 - d.next) % 58 == 16);
	nic_frame(f, nic_other, 77, 1000);
	out(&d, ISR, RDC);
	remote(&d, TX_PAGE << 8, 1000, 0x12);
	data_out(&d, f, 500, 2);
	/* a card that is only programmed touches no memory of the guest */
	CU_ASSERT(nic_dirty_is(&d.rig, 0, 0));

	to.next = d.next;
	nic_move(&d.rig, &to.rig, "ne2k_pci", NE_ID, 0);
	ne_attach(&to);
	CU_ASSERT_EQUAL(to.port, d.port);
	CU_ASSERT_EQUAL(atomic_load(&to.rig.level), 1);
	CU_ASSERT_EQUAL(in(&to, ISR) & RDC, 0);
	data_out(&to, f + 500, 500, 2);
	CU_ASSERT(in(&to, ISR) & RDC);
	transmit(&to, 1000);
	nic_peer_expect(&to.rig, nic_other, 77, 1000);
	for (uint32_t i = 51; i < 55; i++)
		expect(&to, nic_mac, i, 900);
	peer_send(&to, nic_mac, 60, 1514);
	expect(&to, nic_mac, 60, 1514);
	out(&to, ISR, 0xff);
	CU_ASSERT_EQUAL(atomic_load(&to.rig.level), 0);
	nic_close(&d.rig);
	nic_close(&to.rig);
}

/* The other end takes nothing: pausing does not wait for it, and the frame is sent by whoever goes
 * on. */
static void test_port_full(void)
{
	static uint8_t f[2048];
	uint32_t n = 0, got = 0;
	struct ne d, to;

	ne_open(&d);
	ne_start(&d, 0x04);
	for (; n < 5000; n++) {
		nic_frame(f, nic_other, n, 1500);
		mem_out(&d, TX_PAGE << 8, f, 1500);
		transmit(&d, 1500);
		nic_sync(&d.rig);
		if (!(in(&d, ISR) & PTX))
			break;
		out(&d, ISR, 0xff);
	}
	CU_ASSERT_FATAL(n > 100 && n < 5000);
	CU_ASSERT(in(&d, CR) & 4);
	nic_move(&d.rig, &to.rig, "ne2k_pci", NE_ID, 0);
	ne_attach(&to);
	/* what the card had taken in, and what was to follow */
	for (uint32_t i = n - 8; i <= n; i++)
		nic_peer_expect(&to.rig, nic_other, i, 1500);
	NIC_UNTIL(in(&to, ISR) & PTX);
	CU_ASSERT_EQUAL(in(&to, CR) & 4, 0);
	CU_ASSERT(nic_peer_silent(&to.rig));
	nic_close(&to.rig);
	/* the first machine goes on as if nothing had been */
	machine_resume(d.rig.m);
	for (; got <= n; got++)
		nic_peer_expect(&d.rig, nic_other, got, 1500);
	NIC_UNTIL(in(&d, ISR) & PTX);
	nic_close(&d.rig);
}

/* ------------------------------------------------------------------ a guest gone wild */

static void test_hostile(void)
{
	uint32_t x = 1;
	uint8_t f[1514];
	struct ne d;

	ne_open(&d);
	for (unsigned round = 0; round < 300; round++) {
		ne_start(&d, 0x1c);
		for (unsigned i = 0; i < 40; i++) {
			x = x * 1664525u + 1013904223u;
			machine_port_write(d.rig.m, d.port + (x >> 27), x >> 8, 1u << (x >> 4) % 3);
			if (x & 0x100)
				machine_port_read(
					d.rig.m, d.port + (x >> 12 & 31), 1u << (x >> 6) % 3);
		}
		nic_frame(f, nic_mac, round, 1514);
		nic_peer_try(&d.rig, f, 14 + x % 1501);
		while (nic_peer_poll(&d.rig, f, sizeof(f), NULL))
			;
	}
	/* rings that are none */
	for (unsigned i = 0; i < 256; i++) {
		ne_start(&d, 0x1c);
		out(&d, PSTART, i);
		out(&d, PSTOP, i * 7);
		out(&d, BNRY, i * 13);
		out(&d, CR, 0x62);
		out(&d, CURR, i * 29);
		out(&d, CR, 0x22);
		nic_frame(f, nic_mac, i, 1514);
		nic_peer_try(&d.rig, f, 1514);
		nic_sync(&d.rig);
	}
	/* still a card */
	machine_pause(d.rig.m);
	CU_ASSERT_EQUAL(machine_reset(d.rig.m, (char[VMM_WHY_MAX]){0}), 0);
	machine_resume(d.rig.m);
	ne_attach(&d);
	ne_start(&d, 0x04);
	while (nic_peer_poll(&d.rig, f, sizeof(f), NULL))
		;
	send(&d, 1, 64);
	nic_peer_expect(&d.rig, nic_other, 1, 64);
	nic_close(&d.rig);
}

static const struct unit_case cases[] = {
	{"transmit", test_transmit},
	{"receive", test_receive},
	{"filters", test_filters},
	{"slow guest", test_slow_guest},
	{"nine frames at a time", test_nine_at_a_time},
	{"move in mid-transfer", test_move},
	{"port full", test_port_full},
	{"hostile", test_hostile},
};

UNIT_MAIN("ne2000_frames", cases)
