/* SPDX-License-Identifier: BSD-2-Clause */
/* The RTL8139, by its registers, its four descriptors and its ring. */
#include "tests/unit/test_nic_rig.h"

#define RTL_ID   0x813910ecu
#define TX_DATA  0x10000u
#define RX_RING  0x20000u
#define RX_SIZE  8192u
#define CAPR     0x38
#define CBR      0x3a
#define IMR      0x3c
#define ISR      0x3e
#define TCR      0x40
#define RCR      0x44
#define CR       0x37
#define ROK      1u
#define TOK      4u
#define RCR_ALL  0x0fu /* all addresses */
#define RCR_MINE 0x0au
#define RCR_WRAP 0x80u

static struct nic_rig r;
static uint8_t f[2048];

static uint64_t base(void)
{
	return nic_config(&r, 0x14) & ~15u;
}

static uint32_t rd(unsigned reg, unsigned size)
{
	return (uint32_t)machine_mmio_read(r.m, base() + reg, size);
}

static void wr(unsigned reg, uint32_t v, unsigned size)
{
	machine_mmio_write(r.m, base() + reg, v, size);
}

static uint8_t *mem(uint32_t gpa)
{
	return ring_mem_translate(machine_memory(r.m), gpa, 1, RING_WRITE);
}

static void card_start(uint32_t rcr)
{
	wr(CR, 0x10, 1);
	CU_ASSERT_EQUAL(rd(CR, 1), 1); /* over at once, the ring empty */
	wr(0x30, RX_RING, 4);
	wr(CR, 0x0c, 1);
	wr(RCR, rcr, 4);
	wr(IMR, ROK | TOK | 0x10, 2);
}

static void rig_open(uint32_t rcr)
{
	nic_open(&r, "rtl8139", RTL_ID, 0);
	card_start(rcr);
}

static void transmit(unsigned i, uint32_t n, uint32_t len)
{
	nic_frame(mem(TX_DATA + i * 2048), nic_other, n, len);
	wr(0x20 + 4 * i, TX_DATA + i * 2048, 4);
	wr(0x10 + 4 * i, len, 4);
}

/* ------------------------------------------------------------------ registers */

static void line(uint8_t bits)
{
	wr(0x50, 0x80 | bits, 1);
}

/* As drivers read the 93C46: start, read, six bits of address, then a zero and 16 bits. */
static uint16_t eeprom(unsigned at)
{
	unsigned command = 0x180 | at;
	uint16_t word = 0;

	line(0);
	line(8);
	for (int i = 8; i >= 0; i--) {
		uint8_t di = command >> i & 1 ? 2 : 0;

		line(8 | di);
		line(8 | 4 | di);
	}
	line(8);
	CU_ASSERT_EQUAL(rd(0x50, 1) & 1, 0);
	for (unsigned i = 0; i < 16; i++) {
		line(8 | 4);
		word = (uint16_t)(word << 1 | (rd(0x50, 1) & 1));
		line(8);
	}
	wr(0x50, 0, 1);
	return word;
}

static void test_registers(void)
{
	rig_open(RCR_ALL);
	for (unsigned i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(rd(i, 1), nic_mac[i]);
	CU_ASSERT_EQUAL(rd(TCR, 4) & 0x7cc00000, 0x74000000); /* a C */
	CU_ASSERT_EQUAL(eeprom(0), 0x8129);
	CU_ASSERT_EQUAL(eeprom(7), nic_mac[0] | nic_mac[1] << 8);
	CU_ASSERT_EQUAL(eeprom(9), nic_mac[4] | nic_mac[5] << 8);
	CU_ASSERT_EQUAL(rd(0x64, 2) & 0x24, 0x24); /* link, negotiated */
	CU_ASSERT_EQUAL(rd(0x58, 1) & 4, 0);
	/* the address is locked, and is not when it is unlocked */
	wr(0, 0x11, 1);
	CU_ASSERT_EQUAL(rd(0, 1), nic_mac[0]);
	wr(0x50, 0xc0, 1);
	wr(0, 0x11, 1);
	CU_ASSERT_EQUAL(rd(0, 1), 0x11);
	wr(0x50, 0, 1);
	/* a narrow write changes its bytes alone */
	wr(RCR, 0x0000e70e, 4);
	wr(RCR, 0x01, 1);
	CU_ASSERT_EQUAL(rd(RCR, 4), 0xe701);
	/* I/O space is the same */
	CU_ASSERT_EQUAL(machine_port_read(r.m, (nic_config(&r, 0x10) & ~3u) + RCR, 4), 0xe701);
	wr(0x48, 0, 4);
	CU_ASSERT_TRUE(rd(0x48, 4) < 33000000);
	nic_close(&r);
}

/* ------------------------------------------------------------------ transmit */

static void test_transmit(void)
{
	rig_open(RCR_ALL);
	CU_ASSERT_EQUAL(rd(0x60, 2), 0x000f); /* all are the guest's */
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 4; i++)
			transmit(i, round * 4 + i, 60 + 400 * i);
		for (unsigned i = 0; i < 4; i++)
			nic_peer_expect(&r, nic_other, round * 4 + i, 60 + 400 * i);
		NIC_UNTIL(rd(0x60, 2) == 0xf00f);
		CU_ASSERT_EQUAL(rd(0x1c, 4), 1260 | 0xa000);
		CU_ASSERT_TRUE(rd(ISR, 2) & TOK);
		CU_ASSERT_TRUE(r.level);
		wr(ISR, TOK, 2);
		CU_ASSERT_FALSE(r.level);
	}
	/* in the order of the descriptors: the second waits for the first */
	transmit(1, 101, 100);
	CU_ASSERT_TRUE(nic_peer_silent(&r));
	transmit(0, 100, 100);
	nic_peer_expect(&r, nic_other, 100, 100);
	nic_peer_expect(&r, nic_other, 101, 100);
	/* a descriptor that the guest keeps, or a transmitter that is off, sends nothing */
	wr(0x18, 0x2000 | 100, 4);
	wr(CR, 0x08, 1);
	wr(0x18, 100, 4);
	CU_ASSERT_TRUE(nic_peer_silent(&r));
	nic_close(&r);
}

static void test_transmit_bad(void)
{
	rig_open(RCR_ALL);
	wr(0x20, 0xfffffff0, 4);
	wr(0x10, 100, 4);
	transmit(1, 1, 5);
	transmit(2, 2, 1793);
	transmit(3, 3, 300);
	nic_peer_expect(&r, nic_other, 3, 300);
	NIC_UNTIL(rd(0x60, 2) == 0xf00f);
	/* without bus mastering it waits */
	nic_config_write(&r, 4, 3);
	transmit(0, 4, 64);
	CU_ASSERT_TRUE(nic_peer_silent(&r));
	nic_config_write(&r, 4, 7);
	nic_peer_expect(&r, nic_other, 4, 64);
	nic_close(&r);
}

/* ------------------------------------------------------------------ receive */

/* The next frame in the ring, as a driver takes it; its length. */
static uint32_t ring_take(uint8_t *to, uint16_t *status)
{
	uint32_t at = (rd(CAPR, 2) + 16) % RX_SIZE, len;
	bool wrap = rd(RCR, 4) & RCR_WRAP;

	NIC_UNTIL(!(rd(CR, 1) & 1));
	*status = (uint16_t)(mem(RX_RING)[at] | mem(RX_RING)[at + 1] << 8);
	len = (uint32_t)(mem(RX_RING)[at + 2] | mem(RX_RING)[at + 3] << 8) - 4;
	for (uint32_t i = 0; i < len; i++) {
		uint32_t from = at + 4 + i;

		to[i] = mem(RX_RING)[wrap ? from : from % RX_SIZE];
	}
	at = (at + len + 4 + 4 + 3) & ~3u;
	wr(CAPR, (at - 16) & 0xffff, 2);
	return len;
}

static void receive_check(const uint8_t to[6], uint32_t n, uint32_t len, uint16_t expected)
{
	uint8_t got[2048], want[2048] = {0};
	uint16_t status;
	uint32_t got_len = ring_take(got, &status);

	nic_frame(want, to, n, len);
	CU_ASSERT_EQUAL(status, expected);
	CU_ASSERT_EQUAL(got_len, len < 60 ? 60 : len);
	CU_ASSERT_EQUAL(memcmp(got, want, got_len), 0);
}

/* Round the ring many times, past its end or at its beginning. */
static void rounds(uint32_t wrap)
{
	rig_open(RCR_MINE | wrap);
	for (uint32_t n = 0; n < 200; n++) {
		uint32_t len = 42 + n * 97 % 1470;

		nic_frame(f, nic_mac, n, len);
		nic_peer_send(&r, f, len);
		receive_check(nic_mac, n, len, 0x4001);
		CU_ASSERT_TRUE(rd(ISR, 2) & ROK);
		wr(ISR, ROK, 2);
	}
	CU_ASSERT_EQUAL(rd(CR, 1) & 1, 1);
	nic_close(&r);
}

static void test_receive(void)
{
	rounds(0);
	rounds(RCR_WRAP);
}

static void test_filter(void)
{
	static const uint8_t group[6] = {0x01, 0x00, 0x5e, 0x01, 0x02, 0x03};

	rig_open(RCR_MINE);
	nic_frame(f, nic_other, 1, 100);
	nic_peer_send(&r, f, 100);
	nic_frame(f, group, 2, 100);
	nic_peer_send(&r, f, 100);
	nic_frame(f, nic_broadcast, 3, 100);
	nic_peer_send(&r, f, 100);
	receive_check(nic_broadcast, 3, 100, 0x2001);
	/* all groups, by the table that is full after power-on */
	wr(RCR, RCR_MINE | 4, 4);
	nic_frame(f, group, 4, 100);
	nic_peer_send(&r, f, 100);
	receive_check(group, 4, 100, 0x8001);
	wr(0x08, 0, 4);
	wr(0x0c, 0, 4);
	nic_peer_send(&r, f, 100);
	/* what comes after it says that it was looked at */
	nic_frame(f, nic_broadcast, 6, 100);
	nic_peer_send(&r, f, 100);
	receive_check(nic_broadcast, 6, 100, 0x2001);
	/* everybody's */
	wr(RCR, RCR_ALL, 4);
	nic_frame(f, nic_other, 5, 100);
	nic_peer_send(&r, f, 100);
	receive_check(nic_other, 5, 100, 0x0001);
	nic_close(&r);
}

/* A guest that does not take them: they wait at the port, and none is lost. */
static void test_full(void)
{
	rig_open(RCR_MINE);
	for (uint32_t n = 0; n < 40; n++) {
		nic_frame(f, nic_mac, n, 1000);
		nic_peer_send(&r, f, 1000);
	}
	/* acknowledged, and nothing taken: no frame will come that could tell again */
	NIC_UNTIL(rd(CBR, 2) > RX_SIZE - 1600);
	nic_sync(&r);
	wr(ISR, ROK, 2);
	CU_ASSERT_TRUE(rd(ISR, 2) & ROK);
	CU_ASSERT_TRUE(r.level);
	for (uint32_t n = 0; n < 40; n++)
		receive_check(nic_mac, n, 1000, 0x4001);
	CU_ASSERT_EQUAL(rd(ISR, 2) & 0x10, 0);
	wr(ISR, ROK, 2);
	CU_ASSERT_FALSE(rd(ISR, 2) & ROK);
	nic_close(&r);
}

static void test_loopback(void)
{
	rig_open(RCR_ALL);
	wr(TCR, 0x60000, 4);
	transmit(0, 9, 200);
	receive_check(nic_other, 9, 200, 0x0001);
	CU_ASSERT_TRUE(nic_peer_silent(&r));
	nic_close(&r);
}

static void test_move(void)
{
	struct nic_rig to;

	rig_open(RCR_MINE);
	nic_frame(f, nic_mac, 1, 500);
	nic_peer_send(&r, f, 500);
	NIC_UNTIL(!(rd(CR, 1) & 1));
	transmit(0, 2, 300);
	nic_peer_expect(&r, nic_other, 2, 300);
	transmit(2, 3, 300); /* waits for descriptor 1 */
	nic_move(&r, &to, "rtl8139", RTL_ID, 0);
	nic_close(&r);
	r = to;
	machine_resume(r.m);
	receive_check(nic_mac, 1, 500, 0x4001);
	transmit(1, 4, 300);
	nic_peer_expect(&r, nic_other, 4, 300);
	nic_peer_expect(&r, nic_other, 3, 300);
	CU_ASSERT_TRUE(rd(ISR, 2) & TOK);
	nic_close(&r);
}

static const struct unit_case cases[] = {
	{"registers, EEPROM", test_registers},
	{"sent", test_transmit},
	{"sent, badly", test_transmit_bad},
	{"received, round the ring", test_receive},
	{"filters", test_filter},
	{"a slow guest", test_full},
	{"loopback", test_loopback},
	{"saved and loaded", test_move},
};

UNIT_MAIN("rtl8139", cases)
