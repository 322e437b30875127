/* SPDX-License-Identifier: BSD-2-Clause */
/* The e1000 model with a full port, moved in mid-transfer, and with a guest gone wild. */
#include "tests/unit/test_e1000_packet.h"

/* ------------------------------------------------------------------ a full port, moves */

static void test_port_full(void)
{
	uint32_t n = 0, got = 0;
	struct e1 d;

	e1_open(&d, 0);
	e1_tx_start(&d, 64);
	/* a buffer for each descriptor, so that what is sent late is still what it was */
	for (; n < 3000; n++) {
		uint32_t at = TX_DATA + d.tx_tail * 2048;

		if ((d.tx_tail + 1) % 64 == rd(&d, TDH)) {
			nic_sync(&d.rig);
			if ((d.tx_tail + 1) % 64 == rd(&d, TDH))
				break;
		}
		nic_frame(mem(&d, at, 1500), nic_other, n, 1500);
		tx_put(&d, at, 1500 | X_EOP | X_RS, 0);
		tx_go(&d);
	}
	CU_ASSERT_FATAL(n > 200 && n < 3000);
	for (; got < n; got++)
		nic_peer_expect(&d.rig, nic_other, got, 1500);
	tx_wait(&d);
	CU_ASSERT(nic_peer_silent(&d.rig));
	nic_close(&d.rig);
}

/* Half a frame gathered, receive ring partly used, interrupt pending, EEPROM half read. */
static void test_move(void)
{
	uint8_t *f;
	struct e1 d, to;

	e1_open(&d, 0);
	e1_rx_start(&d, 16, RCTL_BAM);
	e1_tx_start(&d, 8);
	tx_frame(&d, 1, 300);
	nic_peer_expect(&d.rig, nic_other, 1, 300);
	for (uint32_t i = 0; i < 8; i++)
		e1_peer_send(&d, nic_mac, i, 500);
	for (uint32_t i = 0; i < 5; i++)
		rx_expect(&d, nic_mac, i, 500);
	NIC_UNTIL(rd(&d, RDH) == 8);
	rd(&d, ICR);
	wr(&d, IMS, RXT0 | TXDW);
	f = mem(&d, TX_DATA, 1000);
	nic_frame(f, nic_other, 2, 1000);
	tx_put(&d, TX_DATA, 400 | X_RS, 0);
	tx_go(&d);
	tx_wait(&d);
	/* what has been gathered is the card's */
	memset(f, 0, 400);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);

	to = d;
	nic_move(&d.rig, &to.rig, "e1000", E1000_ID, 0);
	e1_attach(&to);
	CU_ASSERT_EQUAL(to.base, d.base);
	CU_ASSERT_EQUAL(atomic_load(&to.rig.level), 1);
	CU_ASSERT_EQUAL(rd(&to, ICR), TXDW | TXQE);
	CU_ASSERT_EQUAL(atomic_load(&to.rig.level), 0);
	tx_put(&to, TX_DATA + 400, 600 | X_EOP | X_RS, 0);
	tx_go(&to);
	nic_peer_expect(&to.rig, nic_other, 2, 1000);
	for (uint32_t i = 5; i < 8; i++)
		rx_expect(&to, nic_mac, i, 500);
	for (uint32_t i = 10; i < 40; i++) {
		e1_peer_send(&to, nic_mac, i, 1514);
		rx_expect(&to, nic_mac, i, 1514);
	}
	nic_close(&d.rig);
	nic_close(&to.rig);
}

/* The port is full in the middle of it all: what is queued, the frame on its way and the context
 * move. */
static void test_move_full(void)
{
	const struct shape s = {.tcp = true, .payload = 60000};
	static uint8_t got[65536];
	uint32_t n = 0, whole = header_len(&s) + s.payload;
	struct net_vnet_hdr hdr;
	struct e1 d, to;

	e1_open(&d, E1000_OFFLOAD);
	e1_tx_start(&d, 64);
	/* one more each time, nine descriptors, until one stays */
	segmented_prepare(&d, &s, 1);
	do {
		CU_ASSERT_FATAL(n < 1000);
		segmented_send(&d, &s, 1448);
		n++;
		nic_sync(&d.rig);
	} while (rd(&d, TDH) == d.tx_tail && n < 34);
	for (unsigned i = 0; i < 3; i++)
		segmented_send(&d, &s, 1448);
	nic_sync(&d.rig);
	CU_ASSERT(rd(&d, TDH) != d.tx_tail);
	to = d;
	nic_move(&d.rig, &to.rig, "e1000", E1000_ID, E1000_OFFLOAD);
	e1_attach(&to);
	tx_wait(&to);
	nic_sync(&to.rig);
	/* the first machine's port has what it took; the second sends the rest, whole */
	for (n += 3; nic_peer_poll(&d.rig, got, sizeof(got), NULL); n--)
		;
	CU_ASSERT(n >= 3);
	for (; n; n--) {
		CU_ASSERT_EQUAL(nic_peer_take(&to.rig, got, sizeof(got), &hdr), whole);
		CU_ASSERT_EQUAL(hdr.gso_type, NET_GSO_TCPV4);
	}
	CU_ASSERT(nic_peer_silent(&to.rig));
	nic_close(&d.rig);
	nic_close(&to.rig);
}

/* ------------------------------------------------------------------ a guest gone wild */

static void test_hostile(void)
{
	const struct shape s = {.tcp = true, .payload = 3000};
	static uint8_t got[65536];
	uint32_t x = 1;
	struct e1 d;

	e1_open(&d, 0);
	/* a frame without end: it is swallowed, and so is one longer than any */
	e1_tx_start(&d, 64);
	for (unsigned i = 0; i < 200; i++) {
		tx_put(&d, TX_DATA, 16000 | (i == 199 ? X_EOP : 0), 0);
		if (i % 50 == 49) {
			tx_go(&d);
			tx_wait(&d);
		}
	}
	CU_ASSERT(nic_peer_silent(&d.rig));
	tx_put(&d, TX_DATA, 0xfffff | X_DEXT | X_DATA | X_EOP, 0);
	tx_put(&d, NIC_MEMORY - 100, 200 | X_EOP, 0);
	tx_put(&d, ~0ull - 50, 200 | X_EOP, 0);
	tx_put(&d, TX_DATA, 13 | X_EOP, 0);
	tx_put(&d, TX_DATA, 0 | X_EOP, 0);
	/* segments without sense */
	for (unsigned i = 0; i < 4; i++) {
		tx_put(&d, i & 1 ? ~0ull : 0, X_DEXT | X_TSE, i & 2 ? ~0u : 0);
		put_data(&d, TX_DATA, 4000, 4000, X_TSE, P_IXSM | P_TXSM);
	}
	tx_go(&d);
	tx_wait(&d);
	CU_ASSERT(nic_peer_silent(&d.rig));
	tx_frame(&d, 1, 64);
	nic_peer_expect(&d.rig, nic_other, 1, 64);
	/* a ring outside memory stops the transmitter */
	wr(&d, TDBAH, 0x10);
	tx_put(&d, TX_DATA, 64 | X_EOP, 0);
	tx_go(&d);
	NIC_UNTIL(!(rd(&d, TCTL) & 2));
	for (unsigned i = 0; i < 32; i++) {
		e1_tx_start(&d, 8);
		wr(&d, TDLEN, i & 1 ? 0 : 0xffffffff);
		wr(&d, TDBAL, i & 2 ? NIC_MEMORY - 64 : TX_RING);
		wr(&d, TDH, i & 4 ? 0xffff : 7);
		wr(&d, TDT, i * 2654435761u >> 8);
		nic_sync(&d.rig);
	}
	/* descriptors at random */
	for (unsigned round = 0; round < 200; round++) {
		uint8_t *ring;

		e1_tx_start(&d, 64);
		packet(mem(&d, TX_DATA, 4096), &s, round);
		ring = mem(&d, TX_RING, 1024);
		for (unsigned i = 0; i < 1024; i++) {
			x = x * 1664525u + 1013904223u;
			ring[i] = (uint8_t)(x >> 24);
			if (i % 16 == 2)
				memcpy(ring + i - 2, (const uint8_t[]){0, 0, 4}, 3);
			if (i % 16 > 2 && i % 16 < 8 && x & 0x700)
				ring[i] = 0;
		}
		wr(&d, TDT, 63);
		nic_sync(&d.rig);
		while (nic_peer_poll(&d.rig, got, sizeof(got), NULL))
			;
	}
	nic_sync(&d.rig);
	while (nic_peer_poll(&d.rig, got, sizeof(got), NULL))
		nic_sync(&d.rig);
	wr(&d, CTRL, 1u << 26);
	e1_tx_start(&d, 64);
	tx_frame(&d, 2, 64);
	nic_peer_expect(&d.rig, nic_other, 2, 64);
	nic_close(&d.rig);
}

static const struct unit_case cases[] = {
	{"port full", test_port_full},
	{"move in mid-transfer", test_move},
	{"move with a full port", test_move_full},
	{"hostile transmit rings", test_hostile},
};

UNIT_MAIN("e1000_move", cases)
