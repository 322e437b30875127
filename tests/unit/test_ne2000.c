/* SPDX-License-Identifier: BSD-2-Clause */
/* The NE2000 model as a driver sees it: registers, remote DMA, frames both ways, moves. */
#include "tests/unit/test_nic_rig.h"

#define NE_ID    0x802910ecu
#define TX_PAGE  0x40u
#define RX_PAGE  0x46u
#define END_PAGE 0x80u

enum {
	CR,
	PSTART,
	PSTOP,
	BNRY,
	TPSR,
	TBCR0,
	TBCR1,
	ISR,
	RSAR0,
	RSAR1,
	RBCR0,
	RBCR1,
	RCR,
	TCR,
	DCR,
	IMR,
	DATA,
	RESET = 0x18,
	CURR = ISR,
	PAR = 1,
	MAR = 8,
	TSR = TPSR,
};

enum { PRX = 1, PTX = 2, TXE = 8, OVW = 0x10, RDC = 0x40, RST = 0x80 };

struct ne {
	struct nic_rig rig;
	uint16_t port;
	uint8_t next; /* page of the next frame in the ring */
};

static void out(struct ne *d, unsigned reg, uint32_t v)
{
	machine_port_write(d->rig.m, d->port + reg, v, 1);
}

static uint8_t in(struct ne *d, unsigned reg)
{
	return machine_port_read(d->rig.m, d->port + reg, 1);
}

static void ne_attach(struct ne *d)
{
	d->port = nic_config(&d->rig, 0x10) & ~3u;
}

static void ne_open(struct ne *d)
{
	nic_open(&d->rig, "ne2k_pci", NE_ID, 0);
	ne_attach(d);
}

/* As stock drivers do it, with 16-bit transfers. */
static void ne_start(struct ne *d, uint8_t rcr)
{
	out(d, CR, 0x21);
	out(d, DCR, 0x49);
	out(d, RBCR0, 0);
	out(d, RBCR1, 0);
	out(d, RCR, 0x20);
	out(d, TCR, 0x02);
	out(d, TPSR, TX_PAGE);
	out(d, PSTART, RX_PAGE);
	out(d, BNRY, RX_PAGE);
	out(d, PSTOP, END_PAGE);
	out(d, ISR, 0xff);
	out(d, IMR, 0);
	out(d, CR, 0x61);
	for (unsigned i = 0; i < 6; i++)
		out(d, PAR + i, nic_mac[i]);
	for (unsigned i = 0; i < 8; i++)
		out(d, MAR + i, 0);
	d->next = RX_PAGE + 1;
	out(d, CURR, d->next);
	out(d, CR, 0x22);
	out(d, TCR, 0);
	out(d, RCR, rcr);
}

static void remote(struct ne *d, uint16_t at, uint16_t len, uint8_t command)
{
	out(d, RBCR0, len & 0xff);
	out(d, RBCR1, len >> 8);
	out(d, RSAR0, at & 0xff);
	out(d, RSAR1, at >> 8);
	out(d, CR, command);
}

static void data_out(struct ne *d, const uint8_t *p, uint32_t len, unsigned size)
{
	for (uint32_t i = 0; i < len; i += size) {
		uint32_t v = 0;

		memcpy(&v, p + i, len - i < size ? len - i : size);
		machine_port_write(d->rig.m, d->port + DATA, v, size);
	}
}

static void data_in(struct ne *d, uint8_t *p, uint32_t len, unsigned size)
{
	for (uint32_t i = 0; i < len; i += size) {
		uint32_t v = machine_port_read(d->rig.m, d->port + DATA, size);

		memcpy(p + i, &v, len - i < size ? len - i : size);
	}
}

static void mem_out(struct ne *d, uint16_t at, const uint8_t *p, uint32_t len)
{
	remote(d, at, (len + 1) & ~1u, 0x12);
	data_out(d, p, len, 2);
	CU_ASSERT(in(d, ISR) & RDC);
	out(d, ISR, RDC);
}

static void mem_in(struct ne *d, uint16_t at, uint8_t *p, uint32_t len)
{
	remote(d, at, (len + 1) & ~1u, 0x0a);
	data_in(d, p, len, 2);
	out(d, ISR, RDC);
}

static void transmit(struct ne *d, uint32_t len)
{
	out(d, TPSR, TX_PAGE);
	out(d, TBCR0, len & 0xff);
	out(d, TBCR1, len >> 8);
	out(d, CR, 0x26);
}

static void send(struct ne *d, uint32_t n, uint32_t len)
{
	uint8_t f[2048];

	nic_frame(f, nic_other, n, len);
	mem_out(d, TX_PAGE << 8, f, len);
	transmit(d, len);
	NIC_UNTIL(in(d, ISR) & (PTX | TXE));
	CU_ASSERT_EQUAL(in(d, ISR) & (PTX | TXE), PTX);
	CU_ASSERT_EQUAL(in(d, TSR) & 1, 1);
	CU_ASSERT_EQUAL(in(d, CR) & 4, 0);
	out(d, ISR, PTX | TXE);
}

static uint8_t current(struct ne *d)
{
	uint8_t v;

	/* neither start nor stop: only the page changes */
	out(d, CR, 0x60);
	v = in(d, CURR);
	out(d, CR, 0x20);
	return v;
}

/* The next frame in the ring: its length as stored. */
static uint32_t take(struct ne *d, uint8_t *f)
{
	uint8_t h[4];
	uint32_t len;

	NIC_UNTIL(current(d) != d->next);
	mem_in(d, d->next << 8, h, 4);
	len = (h[2] | h[3] << 8) - 4u;
	CU_ASSERT_EQUAL(h[0] & 1, 1);
	CU_ASSERT_FATAL(h[1] >= RX_PAGE && h[1] < END_PAGE && len <= 1518);
	/* in one go: the address wraps by itself */
	mem_in(d, (d->next << 8) + 4, f, len);
	d->next = h[1];
	out(d, BNRY, d->next == RX_PAGE ? END_PAGE - 1 : d->next - 1u);
	return len;
}

static void expect(struct ne *d, const uint8_t to[6], uint32_t n, uint32_t len)
{
	uint8_t want[2048] = {0}, got[2048];
	uint32_t stored = len < 60 ? 60 : len;

	nic_frame(want, to, n, len);
	CU_ASSERT_EQUAL(take(d, got), stored);
	CU_ASSERT_EQUAL_FATAL(memcmp(want, got, stored), 0);
}

static void peer_send(struct ne *d, const uint8_t to[6], uint32_t n, uint32_t len)
{
	uint8_t f[2048];

	nic_frame(f, to, n, len);
	nic_peer_send(&d->rig, f, len);
}

/* ------------------------------------------------------------------ registers */

static void test_identity(void)
{
	uint8_t prom[32];
	struct ne d;

	ne_open(&d);
	CU_ASSERT_EQUAL(nic_config(&d.rig, 8) >> 8, 0x020000);
	CU_ASSERT_EQUAL(nic_config(&d.rig, 0x3c) >> 8 & 0xff, 1);
	CU_ASSERT_EQUAL(in(&d, CR), 0x21);
	CU_ASSERT(in(&d, ISR) & RST);
	CU_ASSERT_EQUAL(in(&d, 0x0a), 'P');
	CU_ASSERT_EQUAL(in(&d, 0x0b), 'C');
	/* an 8390 by its tally counters, which clear when they are read */
	out(&d, CR, 0x61);
	out(&d, 0x0d, 0xff);
	out(&d, CR, 0x20);
	in(&d, 0x0d);
	CU_ASSERT_EQUAL(in(&d, 0x0d), 0);
	/* the PROM: doubled when read by bytes */
	out(&d, DCR, 0x48);
	remote(&d, 0, 32, 0x0a);
	data_in(&d, prom, 32, 1);
	for (unsigned i = 0; i < 6; i++)
		CU_ASSERT(prom[2 * i] == nic_mac[i] && prom[2 * i + 1] == nic_mac[i]);
	CU_ASSERT(prom[28] == 0x57 && prom[30] == 0x57);
	CU_ASSERT(in(&d, ISR) & RDC);
	/* a byte of each word when words are selected: so the PCI drivers read it */
	out(&d, DCR, 0x49);
	remote(&d, 0, 32, 0x0a);
	data_in(&d, prom, 16, 1);
	CU_ASSERT_EQUAL(memcmp(prom, nic_mac, 6), 0);
	CU_ASSERT(prom[14] == 0x57 && prom[15] == 0x57);
	remote(&d, 0, 32, 0x0a);
	data_in(&d, prom, 32, 4);
	for (unsigned i = 0; i < 6; i++)
		CU_ASSERT(prom[2 * i] == nic_mac[i] && prom[2 * i + 1] == nic_mac[i]);
	nic_close(&d.rig);
}

static void test_registers(void)
{
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0x04);
	/* neither bit: nothing changes but the page */
	out(&d, CR, 0x20);
	CU_ASSERT_EQUAL(in(&d, CR) & 3, 2);
	CU_ASSERT_EQUAL(in(&d, ISR) & RST, 0);
	out(&d, CR, 0x62);
	for (unsigned i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(in(&d, PAR + i), nic_mac[i]);
	CU_ASSERT_EQUAL(in(&d, CURR), RX_PAGE + 1);
	for (unsigned i = 0; i < 8; i++)
		out(&d, MAR + i, 0x11 * i);
	for (unsigned i = 0; i < 8; i++)
		CU_ASSERT_EQUAL(in(&d, MAR + i), 0x11 * i);
	out(&d, CR, 0xa2);
	CU_ASSERT_EQUAL(in(&d, PSTART), RX_PAGE);
	CU_ASSERT_EQUAL(in(&d, PSTOP), END_PAGE);
	CU_ASSERT_EQUAL(in(&d, TPSR), TX_PAGE);
	CU_ASSERT_EQUAL(in(&d, RCR), 0x04);
	CU_ASSERT_EQUAL(in(&d, DCR), 0x49);
	out(&d, CR, 0x21);
	CU_ASSERT_EQUAL(in(&d, CR), 0x21);
	CU_ASSERT(in(&d, ISR) & RST);
	out(&d, ISR, 0xff);
	CU_ASSERT(in(&d, ISR) & RST);
	out(&d, CR, 0x20);
	CU_ASSERT_EQUAL(in(&d, CR), 0x21);
	out(&d, CR, 0x22);
	CU_ASSERT_EQUAL(in(&d, ISR) & RST, 0);
	nic_close(&d.rig);
}

static void test_remote_dma(void)
{
	static const unsigned sizes[] = {1, 2, 4};
	uint8_t a[1024], b[1024];
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0);
	for (unsigned w = 0; w < 3; w++)
		for (unsigned r = 0; r < 3; r++) {
			/* from below the ring's end to behind its start */
			uint16_t at = (END_PAGE << 8) - 256;

			nic_frame(a, nic_mac, w * 3 + r, sizeof(a));
			out(&d, DCR, sizes[w] == 1 ? 0x48 : 0x49);
			out(&d, ISR, RDC);
			remote(&d, at, sizeof(a), 0x12);
			data_out(&d, a, sizeof(a) - 4, sizes[w]);
			CU_ASSERT_EQUAL(in(&d, ISR) & RDC, 0);
			data_out(&d, a + sizeof(a) - 4, 4, sizes[w]);
			CU_ASSERT(in(&d, ISR) & RDC);
			/* no more than was asked for */
			data_out(&d, b, 4, sizes[w]);
			out(&d, DCR, sizes[r] == 1 ? 0x48 : 0x49);
			remote(&d, at, 256, 0x0a);
			data_in(&d, b, 256, sizes[r]);
			remote(&d, RX_PAGE << 8, sizeof(a) - 256, 0x0a);
			data_in(&d, b + 256, sizeof(a) - 256, sizes[r]);
			CU_ASSERT_EQUAL(memcmp(a, b, sizeof(a)), 0);
			CU_ASSERT_EQUAL(in(&d, DATA), 0xff);
		}
	/* nothing at all is done at once; outside of packet memory there is nothing */
	out(&d, ISR, RDC);
	remote(&d, 0x4000, 0, 0x0a);
	CU_ASSERT(in(&d, ISR) & RDC);
	remote(&d, 0x9000, 4, 0x12);
	data_out(&d, a, 4, 2);
	remote(&d, 0x9000, 4, 0x0a);
	CU_ASSERT_EQUAL(machine_port_read(d.rig.m, d.port + DATA, 4), 0xffffffff);
	/* send packet: what the ring's first header says */
	memcpy(a, "\1\x48\x22\0", 4);
	mem_out(&d, RX_PAGE << 8, a, 64);
	out(&d, CR, 0x1a);
	data_in(&d, b, 0x22, 2);
	CU_ASSERT_EQUAL(memcmp(a, b, 0x22), 0);
	CU_ASSERT(in(&d, ISR) & RDC);
	nic_close(&d.rig);
}

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

static void test_interrupts(void)
{
	uint8_t f[64] = {0};
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0x04);
	send(&d, 1, 64);
	peer_send(&d, nic_mac, 2, 64);
	NIC_UNTIL(in(&d, ISR) & PRX);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.edges), 0);
	/* unmasking what is pending raises the line, masking lowers it */
	out(&d, IMR, PRX);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);
	out(&d, IMR, PTX);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	out(&d, IMR, PRX | PTX);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);
	transmit(&d, 64);
	NIC_UNTIL(in(&d, ISR) & PTX);
	out(&d, ISR, PRX);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);
	out(&d, ISR, PTX);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	/* the end of remote DMA */
	out(&d, ISR, 0xff);
	out(&d, IMR, RDC);
	remote(&d, 0x4000, 64, 0x12);
	data_out(&d, f, 62, 2);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	data_out(&d, f, 2, 2);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);
	/* a reset masks all of it */
	in(&d, RESET);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	/* INTx disabled in the command register */
	ne_start(&d, 0x04);
	out(&d, IMR, PRX);
	peer_send(&d, nic_mac, 3, 64);
	NIC_UNTIL(in(&d, ISR) & PRX);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);
	nic_config_write(&d.rig, 4, 0x403);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	CU_ASSERT(nic_config(&d.rig, 4) & 0x80000);
	nic_close(&d.rig);
}

static void test_reset(void)
{
	uint8_t f[64] = {0};
	struct ne d;

	ne_open(&d);
	ne_start(&d, 0x04);
	remote(&d, 0x4000, 64, 0x12);
	data_out(&d, f, 30, 2);
	out(&d, RESET, in(&d, RESET));
	CU_ASSERT(in(&d, ISR) & RST);
	CU_ASSERT_EQUAL(in(&d, CR), 0x21);
	data_out(&d, f, 30, 2);
	ne_start(&d, 0x04);
	send(&d, 1, 700);
	nic_peer_expect(&d.rig, nic_other, 1, 700);
	peer_send(&d, nic_mac, 2, 700);
	expect(&d, nic_mac, 2, 700);
	/* while a frame is on its way: it leaves, and nothing else is confused */
	transmit(&d, 700);
	in(&d, RESET);
	ne_start(&d, 0x04);
	nic_peer_expect(&d.rig, nic_other, 1, 700);
	send(&d, 3, 80);
	nic_peer_expect(&d.rig, nic_other, 3, 80);
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
	nic_peer_expect(&to.rig, nic_other, n, 1500);
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
	{"identity", test_identity},
	{"registers", test_registers},
	{"remote DMA", test_remote_dma},
	{"transmit", test_transmit},
	{"receive", test_receive},
	{"filters", test_filters},
	{"slow guest", test_slow_guest},
	{"interrupts", test_interrupts},
	{"reset", test_reset},
	{"move in mid-transfer", test_move},
	{"port full", test_port_full},
	{"hostile", test_hostile},
};

UNIT_MAIN("ne2000", cases)
