/* SPDX-License-Identifier: BSD-2-Clause */
/* The e1000 model as a driver sees it: registers, EEPROM, PHY, interrupts, receiving. */
#include "tests/unit/test_e1000_rig.h"

/* ------------------------------------------------------------------ EEPROM and PHY */

static void ee_clock(struct e1 *d, uint32_t *eecd, bool bit)
{
	*eecd = (*eecd & ~4u) | (bit ? 4 : 0);
	wr(d, EECD, *eecd);
	wr(d, EECD, *eecd |= 1);
	wr(d, EECD, *eecd &= ~1u);
}

/* By hand, in the order stock drivers do it. */
static uint16_t ee_read_by_hand(struct e1 *d, unsigned word, unsigned words, uint16_t *out)
{
	uint32_t eecd = rd(d, EECD) | 0x40, command = 6u << 6 | word;

	wr(d, EECD, eecd);
	CU_ASSERT(rd(d, EECD) & 0x80);
	wr(d, EECD, eecd &= ~5u);
	wr(d, EECD, eecd |= 2);
	for (unsigned i = 0; i < 9; i++)
		ee_clock(d, &eecd, command >> (8 - i) & 1);
	CU_ASSERT_EQUAL(rd(d, EECD) & 8, 0);
	wr(d, EECD, eecd &= ~4u);
	for (unsigned w = 0; w < words; w++)
		for (unsigned i = 0; i < 16; i++) {
			wr(d, EECD, eecd |= 1);
			out[w] = (uint16_t)(out[w] << 1 | (rd(d, EECD) >> 3 & 1));
			wr(d, EECD, eecd &= ~1u);
		}
	/* standby: deselect, clock, select, and back */
	wr(d, EECD, eecd &= ~3u);
	wr(d, EECD, eecd |= 1);
	wr(d, EECD, eecd |= 2);
	wr(d, EECD, eecd &= ~1u);
	wr(d, EECD, eecd & ~0x47u);
	return out[0];
}

static uint32_t mdic(struct e1 *d, uint32_t v)
{
	wr(d, MDIC, v);
	v = rd(d, MDIC);
	CU_ASSERT(v & 1u << 28);
	return v;
}

static uint16_t phy_read(struct e1 *d, unsigned reg)
{
	uint32_t v = mdic(d, 2u << 26 | 1u << 21 | reg << 16);

	CU_ASSERT_EQUAL(v & 1u << 30, 0);
	return (uint16_t)v;
}

static void test_identity(void)
{
	uint16_t sum = 0, word, words[64] = {0};
	struct e1 d;

	e1_open(&d, 0);
	CU_ASSERT_EQUAL(nic_config(&d.rig, 8) >> 8, 0x020000);
	CU_ASSERT_EQUAL(nic_config(&d.rig, 0x10) & 1, 0);
	CU_ASSERT_EQUAL(nic_config(&d.rig, 0x14) & 1, 1);
	CU_ASSERT(rd(&d, STATUS) & 2);
	for (unsigned i = 0; i < 64; i++) {
		wr(&d, EERD, i << 8 | 1);
		CU_ASSERT(rd(&d, EERD) & 0x10);
		word = rd(&d, EERD) >> 16;
		sum += word;
		words[0] = 0;
		CU_ASSERT_EQUAL(ee_read_by_hand(&d, i, 1, words), word);
		if (i < 3)
			CU_ASSERT_EQUAL(word, nic_mac[2 * i] | nic_mac[2 * i + 1] << 8);
	}
	CU_ASSERT_EQUAL(sum, 0xbaba);
	/* one command, all words */
	memset(words, 0, sizeof(words));
	ee_read_by_hand(&d, 0, 64, words);
	sum = 0;
	for (unsigned i = 0; i < 64; i++)
		sum += words[i];
	CU_ASSERT_EQUAL(sum, 0xbaba);
	CU_ASSERT_EQUAL(rd(&d, RAL), 0xab005452);
	CU_ASSERT_EQUAL(rd(&d, RAH), 0x8000eecd);
	CU_ASSERT_EQUAL(phy_read(&d, 2), 0x0141);
	CU_ASSERT_EQUAL(phy_read(&d, 3) & 0xfff0, 0x0c20);
	CU_ASSERT_EQUAL(phy_read(&d, 1) & 0x24, 0x24);
	CU_ASSERT_EQUAL(phy_read(&d, 17) & 0xec00, 0xac00);
	CU_ASSERT(mdic(&d, 2u << 26 | 2u << 21 | 2u << 16) & 1u << 30);
	/* restarting negotiation: the bit clears itself, the link comes back */
	rd(&d, ICR);
	mdic(&d, 1u << 26 | 1u << 21 | 0x1340);
	CU_ASSERT_EQUAL(phy_read(&d, 0), 0x1140);
	CU_ASSERT_EQUAL(rd(&d, ICR), LSC);
	mdic(&d, 1u << 26 | 1u << 21 | 4u << 16 | 0x0501);
	CU_ASSERT_EQUAL(phy_read(&d, 4), 0x0501);
	mdic(&d, 1u << 26 | 1u << 21 | 0x8000);
	CU_ASSERT_EQUAL(phy_read(&d, 4), 0x0de1);
	wr(&d, MDIC, 1u << 29 | 2u << 26 | 1u << 21);
	CU_ASSERT(rd(&d, ICR) & 0x200);
	nic_close(&d.rig);
}

static void test_registers(void)
{
	struct e1 d;

	e1_open(&d, 0);
	wr(&d, TDBAL, 0x12345670);
	wr(&d, MTA + 4, 0xdeadbeef);
	CU_ASSERT_EQUAL(rd(&d, TDBAL), 0x12345670);
	/* parts of a register are read, not written */
	CU_ASSERT_EQUAL(machine_mmio_read(d.rig.m, d.base + TDBAL + 1, 1), 0x56);
	CU_ASSERT_EQUAL(machine_mmio_read(d.rig.m, d.base + TDBAL + 2, 2), 0x1234);
	machine_mmio_write(d.rig.m, d.base + TDBAL, 0, 2);
	CU_ASSERT_EQUAL(rd(&d, TDBAL), 0x12345670);
	machine_mmio_write(d.rig.m, d.base + TDBAL, 0x100001000, 8);
	CU_ASSERT_EQUAL(rd(&d, TDBAL), 0x1000);
	CU_ASSERT_EQUAL(rd(&d, TDBAH), 1);
	CU_ASSERT_EQUAL(machine_mmio_read(d.rig.m, d.base + TDBAL, 8), 0x100001000);
	CU_ASSERT_EQUAL(rd(&d, 0x5ffc), 0);
	CU_ASSERT_EQUAL(rd(&d, 0x1fffc), 0);
	/* the same through two ports; so stock drivers reset the card */
	machine_port_write(d.rig.m, d.io, MTA + 4, 4);
	CU_ASSERT_EQUAL(machine_port_read(d.rig.m, d.io, 4), MTA + 4);
	CU_ASSERT_EQUAL(machine_port_read(d.rig.m, d.io + 4, 4), 0xdeadbeef);
	machine_port_write(d.rig.m, d.io, CTRL, 4);
	machine_port_write(d.rig.m, d.io + 4, rd(&d, CTRL) | 1u << 26, 4);
	CU_ASSERT_EQUAL(rd(&d, CTRL) & 1u << 26, 0);
	CU_ASSERT_EQUAL(rd(&d, TDBAL), 0);
	CU_ASSERT_EQUAL(rd(&d, RAH), 0x8000eecd);
	/* no link until the driver sets it up */
	wr(&d, CTRL, 0);
	CU_ASSERT_EQUAL(rd(&d, STATUS) & 2, 0);
	wr(&d, CTRL, 0x40);
	CU_ASSERT_EQUAL(rd(&d, STATUS) & 2, 2);
	CU_ASSERT_EQUAL(rd(&d, ICR), LSC);
	nic_close(&d.rig);
}

static void test_interrupts(void)
{
	struct e1 d;

	e1_open(&d, 0);
	wr(&d, ICS, RXT0 | TXDW);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	wr(&d, IMS, RXT0);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);
	wr(&d, IMS, LSC);
	CU_ASSERT_EQUAL(rd(&d, IMS), RXT0 | LSC);
	wr(&d, IMC, RXT0);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	wr(&d, ICS, LSC);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);
	wr(&d, ICR, LSC);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	wr(&d, ICS, LSC);
	CU_ASSERT_EQUAL(rd(&d, ICR), RXT0 | TXDW | LSC);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	CU_ASSERT_EQUAL(rd(&d, ICR), 0);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.edges), 3);
	/* received and sent */
	wr(&d, IMC, ~0u);
	wr(&d, IMS, RXT0);
	e1_rx_start(&d, 8, RCTL_BAM);
	e1_peer_send(&d, nic_mac, 1, 100);
	NIC_UNTIL(atomic_load(&d.rig.level));
	rx_expect(&d, nic_mac, 1, 100);
	CU_ASSERT(rd(&d, ICR) & RXT0);
	wr(&d, IMC, ~0u);
	wr(&d, IMS, RXDMT0);
	/* half of the ring is left: four of eight */
	for (uint32_t i = 0; i < 2; i++)
		e1_peer_send(&d, nic_mac, i, 100);
	NIC_UNTIL(rd(&d, RDH) == 3);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	e1_peer_send(&d, nic_mac, 2, 100);
	NIC_UNTIL(atomic_load(&d.rig.level));
	CU_ASSERT(rd(&d, ICR) & RXDMT0);
	wr(&d, IMC, ~0u);
	wr(&d, IMS, TXDW);
	e1_tx_start(&d, 8);
	nic_frame(mem(&d, TX_DATA, 64), nic_other, 1, 64);
	tx_put(&d, TX_DATA, 64 | X_EOP, 0);
	tx_go(&d);
	tx_wait(&d);
	CU_ASSERT_EQUAL(rd(&d, ICR) & (TXDW | TXQE), TXQE);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	tx_frame(&d, 2, 64);
	NIC_UNTIL(atomic_load(&d.rig.level));
	CU_ASSERT_EQUAL(rd(&d, ICR) & (TXDW | TXQE), TXDW | TXQE);
	nic_close(&d.rig);
}

/* ------------------------------------------------------------------ receiving */

static uint32_t length_of(uint32_t n, uint32_t most)
{
	return n < 60 ? 14 + n : n < 90 ? most - (n - 60) : 74 + n * 131 % (most - 100);
}

static void receive_many(uint32_t ring, uint32_t rctl, uint32_t most)
{
	struct e1 d;

	e1_open(&d, 0);
	e1_rx_start(&d, ring, rctl);
	for (uint32_t n = 0; n < 200; n++) {
		e1_peer_send(&d, n & 1 ? nic_mac : nic_broadcast, n, length_of(n, most));
		for (uint32_t i = n - 4; n % 5 == 4 && i <= n; i++)
			rx_expect(&d, i & 1 ? nic_mac : nic_broadcast, i, length_of(i, most));
	}
	CU_ASSERT_EQUAL(rd(&d, RDH), d.rx_next);
	/* read clears */
	CU_ASSERT_EQUAL(rd(&d, 0x4074), 200);
	CU_ASSERT_EQUAL(rd(&d, 0x4074), 0);
	CU_ASSERT_EQUAL(rd(&d, 0x4078), 100);
	nic_close(&d.rig);
}

/* Interrupts no oftener than ITR says: what comes meanwhile waits, and is not lost. */
static void test_moderation(void)
{
	struct timespec began, ended;
	struct e1 d;
	unsigned edges;

	e1_open(&d, 0);
	wr(&d, IMS, LSC);
	wr(&d, ITR, 0xffff); /* 16.8 ms */
	clock_gettime(CLOCK_MONOTONIC, &began);
	wr(&d, ICS, LSC);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1); /* the first is not held back */
	edges = atomic_load(&d.rig.edges);
	CU_ASSERT_EQUAL(rd(&d, ICR), LSC);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 0);
	wr(&d, ICS, LSC);
	CU_ASSERT_EQUAL(rd(&d, IMS), LSC);
	NIC_UNTIL(atomic_load(&d.rig.edges) == edges + 1);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	/* never sooner, however fast or slow the host is */
	CU_ASSERT((ended.tv_sec - began.tv_sec) * 1000000000 + ended.tv_nsec - began.tv_nsec >
		  16000000);
	/* read before its time: no interrupt for it; one for what comes then */
	CU_ASSERT_EQUAL(rd(&d, ICR), LSC);
	wr(&d, ICS, LSC);
	CU_ASSERT_EQUAL(rd(&d, ICR), LSC);
	usleep(40000);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.edges), edges + 1);
	wr(&d, ICS, LSC);
	NIC_UNTIL(atomic_load(&d.rig.edges) == edges + 2);
	/* turned off: at once again */
	CU_ASSERT_EQUAL(rd(&d, ICR), LSC);
	wr(&d, ITR, 0);
	for (unsigned i = 3; i < 50; i++) {
		wr(&d, ICS, LSC);
		CU_ASSERT_EQUAL(atomic_load(&d.rig.edges), edges + i);
		CU_ASSERT_EQUAL(rd(&d, ICR), LSC);
	}
	/* gone with one that waits */
	wr(&d, ITR, 0xffff);
	wr(&d, ICS, LSC);
	CU_ASSERT_EQUAL(rd(&d, ICR), LSC);
	wr(&d, ICS, LSC);
	nic_close(&d.rig);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A frame sent by a descriptor that asks for a delay. */
static void send_delayed(struct e1 *d, uint32_t n)
{
	nic_frame(mem(d, TX_DATA, 64), nic_other, n, 64);
	tx_put(d, TX_DATA, 64 | X_EOP | X_RS | X_IDE, 0);
	tx_go(d);
	tx_wait(d);
}

/* A while after the last frame, or a longer one after the first. */
static void test_delays(void)
{
	uint64_t began;
	struct e1 d;

	e1_open(&d, 0);
	e1_tx_start(&d, 8);
	e1_rx_start(&d, 8, RCTL_BAM);
	wr(&d, IMS, TXDW | RXT0);
	/* sent: 20 ms after it */
	wr(&d, TIDV, 20000);
	began = now_ns();
	send_delayed(&d, 1);
	CU_ASSERT(rd(&d, ICR) == TXQE || now_ns() - began > 20480000);
	NIC_UNTIL(atomic_load(&d.rig.level));
	CU_ASSERT(now_ns() - began >= 20480000);
	CU_ASSERT_EQUAL(rd(&d, ICR), TXDW);
	/* one that asks for none brings the other's along, and there is no second */
	wr(&d, TIDV, 0xffff);
	send_delayed(&d, 2);
	tx_frame(&d, 3, 64);
	NIC_UNTIL(atomic_load(&d.rig.level));
	CU_ASSERT_EQUAL(rd(&d, ICR) & TXDW, TXDW);
	usleep(100000);
	CU_ASSERT_EQUAL(rd(&d, ICR) & TXDW, 0);
	/* TADV bounds what frame after frame puts off */
	wr(&d, TADV, 5000);
	began = now_ns();
	send_delayed(&d, 4);
	send_delayed(&d, 5);
	NIC_UNTIL(atomic_load(&d.rig.level));
	CU_ASSERT(now_ns() - began >= 5120000);
	CU_ASSERT_EQUAL(rd(&d, ICR) & TXDW, TXDW);
	/* flushed by its driver: bit 31, which does not stay */
	wr(&d, TADV, 0);
	send_delayed(&d, 6);
	CU_ASSERT_EQUAL(rd(&d, ICR) & TXDW, 0);
	wr(&d, TIDV, 0xffff | 1u << 31);
	CU_ASSERT_EQUAL(rd(&d, TIDV), 0xffff);
	CU_ASSERT_EQUAL(rd(&d, ICR) & TXDW, TXDW);
	wr(&d, TIDV, 0xffff | 1u << 31);
	CU_ASSERT_EQUAL(rd(&d, ICR) & TXDW, 0);
	/* received */
	wr(&d, RDTR, 20000);
	began = now_ns();
	e1_peer_send(&d, nic_mac, 1, 100);
	rx_expect(&d, nic_mac, 1, 100);
	NIC_UNTIL(atomic_load(&d.rig.level));
	CU_ASSERT(now_ns() - began >= 20480000);
	CU_ASSERT_EQUAL(rd(&d, ICR), RXT0);
	wr(&d, RDTR, 0xffff);
	wr(&d, RADV, 5000);
	e1_peer_send(&d, nic_mac, 2, 100);
	rx_expect(&d, nic_mac, 2, 100);
	NIC_UNTIL(atomic_load(&d.rig.level));
	CU_ASSERT_EQUAL(rd(&d, ICR), RXT0);
	/* a reset forgets */
	wr(&d, RADV, 0);
	e1_peer_send(&d, nic_mac, 3, 100);
	rx_expect(&d, nic_mac, 3, 100);
	wr(&d, CTRL, 1u << 26);
	usleep(100000);
	CU_ASSERT_EQUAL(rd(&d, ICR) & RXT0, 0);
	/* gone with one that waits */
	e1_tx_start(&d, 8);
	wr(&d, TIDV, 0xffff);
	send_delayed(&d, 7);
	nic_close(&d.rig);
}

static void test_receive(void)
{
	receive_many(8, RCTL_BAM, 1514);
	receive_many(64, RCTL_BAM | RCTL_SECRC, 1518);
	receive_many(16, RCTL_BAM | RCTL_BSIZE_256, 1518);
	receive_many(40, RCTL_BAM | RCTL_LPE, 16000);
	receive_many(16, RCTL_BAM | RCTL_LPE | RCTL_BSIZE_4096 | RCTL_SECRC, 9000);
}

static void test_sizes_refused(void)
{
	struct e1 d;

	e1_open(&d, 0);
	e1_rx_start(&d, 8, RCTL_BAM);
	e1_peer_send(&d, nic_mac, 1, 1519);
	e1_peer_send(&d, nic_mac, 2, 9000);
	e1_peer_send(&d, nic_mac, 3, 1518);
	rx_expect(&d, nic_mac, 3, 1518);
	CU_ASSERT_EQUAL(rd(&d, 0x40ac), 2);
	CU_ASSERT_EQUAL(rd(&d, ICR) & RXO, 0);
	wr(&d, RCTL, RCTL_EN | RCTL_LPE | RCTL_BAM);
	/* a ring of eight has no room for more than 14 KiB: that is lost, and said */
	e1_peer_send(&d, nic_mac, 4, 16384);
	e1_peer_send(&d, nic_mac, 5, 14000);
	rx_expect(&d, nic_mac, 5, 14000);
	CU_ASSERT(rd(&d, ICR) & RXO);
	CU_ASSERT_EQUAL(rd(&d, 0x4010), 1);
	nic_close(&d.rig);
}

static bool arrives(struct e1 *d, const uint8_t to[6])
{
	static uint32_t n;
	static uint8_t got[2048];
	uint32_t status;
	bool first;

	e1_peer_send(d, to, ++n, 100);
	e1_peer_send(d, nic_mac, ++n, 101);
	first = rx_take(d, got, &status, NULL) == 100;
	if (first) {
		CU_ASSERT_EQUAL(memcmp(got, to, 6), 0);
		rx_take(d, got, &status, NULL);
	}
	return first;
}

static void test_filters(void)
{
	static const uint8_t group[6] = {0x01, 0x00, 0x5e, 0x12, 0xa5, 0xc3};
	/* bits 47:36, 46:35, 45:34 and 43:32 of the address, the last byte highest */
	static const uint16_t hash[4] = {0xc3a, 0x874, 0x0e9, 0x3a5};
	const uint32_t on = RCTL_EN | RCTL_SECRC;
	struct e1 d;

	e1_open(&d, 0);
	e1_rx_start(&d, 32, RCTL_SECRC);
	CU_ASSERT_FALSE(arrives(&d, nic_broadcast));
	CU_ASSERT_FALSE(arrives(&d, nic_other));
	CU_ASSERT_FALSE(arrives(&d, group));
	wr(&d, RCTL, on | RCTL_BAM);
	CU_ASSERT(arrives(&d, nic_broadcast));
	CU_ASSERT_FALSE(arrives(&d, group));
	wr(&d, RCTL, on | RCTL_UPE);
	CU_ASSERT(arrives(&d, nic_other));
	CU_ASSERT_FALSE(arrives(&d, group) || arrives(&d, nic_broadcast));
	wr(&d, RCTL, on | RCTL_MPE);
	CU_ASSERT(arrives(&d, group) && arrives(&d, nic_broadcast));
	CU_ASSERT_FALSE(arrives(&d, nic_other));
	for (uint32_t mo = 0; mo < 4; mo++) {
		wr(&d, RCTL, on | mo << 12);
		CU_ASSERT_FALSE(arrives(&d, group));
		wr(&d, MTA + (hash[mo] >> 5) * 4, 1u << (hash[mo] & 31));
		CU_ASSERT(arrives(&d, group));
		wr(&d, MTA + (hash[mo] >> 5) * 4, ~(1u << (hash[mo] & 31)));
		CU_ASSERT_FALSE(arrives(&d, group));
		wr(&d, MTA + (hash[mo] >> 5) * 4, 0);
	}
	/* the last of the exact addresses */
	wr(&d, RAL + 8 * 15, 0x33221102);
	CU_ASSERT_FALSE(arrives(&d, nic_other));
	wr(&d, RAH + 8 * 15, 0x80005544);
	wr(&d, RAL + 8 * 15, 0x22110200 | 0);
	CU_ASSERT_FALSE(arrives(&d, nic_other));
	wr(&d, RAL + 8 * 15, 0x33221102);
	CU_ASSERT(arrives(&d, nic_other));
	nic_close(&d.rig);
}

static void test_vlan(void)
{
	uint8_t f[200], got[2048], want[200];
	uint32_t status;
	uint16_t tag;
	struct e1 d;

	e1_open(&d, 0);
	e1_rx_start(&d, 32, RCTL_SECRC);
	nic_frame(f, nic_mac, 7, sizeof(f));
	memcpy(f + 12, "\x81\x00\x60\x65", 4);
	nic_peer_send(&d.rig, f, sizeof(f));
	CU_ASSERT_EQUAL(rx_take(&d, got, &status, &tag), 200);
	CU_ASSERT_EQUAL(status & 8, 0);
	CU_ASSERT_EQUAL(memcmp(f, got, 200), 0);
	/* the tag is taken out */
	wr(&d, CTRL, rd(&d, CTRL) | CTRL_VME);
	memcpy(want, f, 12);
	memcpy(want + 12, f + 16, 184);
	nic_peer_send(&d.rig, f, sizeof(f));
	CU_ASSERT_EQUAL(rx_take(&d, got, &status, &tag), 196);
	CU_ASSERT_EQUAL(status & 8, 8);
	CU_ASSERT_EQUAL(tag, 0x6065);
	CU_ASSERT_EQUAL(memcmp(want, got, 196), 0);
	nic_peer_send(&d.rig, f, 20);
	memset(want + 16, 0, 60);
	CU_ASSERT_EQUAL(rx_take(&d, got, &status, &tag), 56);
	CU_ASSERT_EQUAL(memcmp(want, got, 56), 0);
	/* only VLANs in the table */
	wr(&d, RCTL, RCTL_EN | RCTL_SECRC | RCTL_VFE);
	nic_peer_send(&d.rig, f, 199);
	e1_peer_send(&d, nic_mac, 1, 77);
	rx_expect(&d, nic_mac, 1, 77);
	wr(&d, VFTA + 4 * (0x65 >> 5), 1u << (0x65 & 31));
	nic_peer_send(&d.rig, f, 199);
	CU_ASSERT_EQUAL(rx_take(&d, got, &status, &tag), 195);
	nic_close(&d.rig);
}

static void test_slow_guest(void)
{
	uint32_t n = 0, i = 0;
	static uint8_t f[1000];
	struct e1 d;

	e1_open(&d, 0);
	e1_rx_start(&d, 16, RCTL_BAM);
	for (; n < 5000; n++) {
		nic_frame(f, nic_mac, n, 1000);
		if (!nic_peer_try(&d.rig, f, 1000))
			break;
	}
	CU_ASSERT(n > 100 && n < 5000);
	NIC_UNTIL(rd(&d, RDH) == rd(&d, RDT));
	for (; i < 200; i++)
		rx_expect(&d, nic_mac, i, 1000);
	/* without room, then off, then without the bus: what waits is lost to none of it */
	NIC_UNTIL(rd(&d, RDH) == rd(&d, RDT));
	nic_config_write(&d.rig, 4, 0x003);
	rx_expect(&d, nic_mac, i++, 1000);
	nic_sync(&d.rig);
	CU_ASSERT(rd(&d, RDH) != rd(&d, RDT));
	wr(&d, RCTL, RCTL_BAM);
	nic_config_write(&d.rig, 4, 0x007);
	nic_sync(&d.rig);
	CU_ASSERT(rd(&d, RDH) != rd(&d, RDT));
	wr(&d, RCTL, RCTL_BAM | RCTL_EN);
	for (; i < n; i++)
		rx_expect(&d, nic_mac, i, 1000);
	CU_ASSERT_EQUAL(rd(&d, 0x4010), 0);
	nic_close(&d.rig);
}

static void test_dirty(void)
{
	struct e1 d;

	e1_open(&d, 0);
	e1_rx_start(&d, 8, RCTL_BAM);
	e1_tx_start(&d, 8);
	CU_ASSERT_EQUAL(machine_dirty_log(d.rig.m, true), 0);
	e1_peer_send(&d, nic_mac, 1, 1514);
	NIC_UNTIL(rd(&d, RDH) == 1);
	/* the frame's page and the ring's */
	uint64_t map[NIC_MEMORY / 4096 / 64];

	machine_dirty_fetch(d.rig.m, map, NIC_MEMORY / 4096);
	for (uint64_t page = 0; page < NIC_MEMORY / 4096; page++)
		CU_ASSERT_EQUAL(map[page / 64] >> (page % 64) & 1,
			page == RX_RING / 4096 || page == RX_DATA / 4096);
	rx_expect(&d, nic_mac, 1, 1514);
	tx_frame(&d, 2, 1514);
	CU_ASSERT(nic_dirty_is(&d.rig, TX_RING, TX_RING + 4096));
	/* nothing is written back that was not asked for */
	tx_put(&d, TX_DATA, 64 | X_EOP, 0);
	tx_go(&d);
	tx_wait(&d);
	CU_ASSERT(nic_dirty_is(&d.rig, 0, 0));
	nic_close(&d.rig);
}

/* ------------------------------------------------------------------ a guest gone wild */

static void test_hostile(void)
{
	struct desc *ring;
	struct e1 d;

	e1_open(&d, 0);
	/* rings of no length, with positions outside, and outside memory */
	for (uint32_t i = 0; i < 64; i++) {
		e1_rx_start(&d, 8, RCTL_BAM);
		wr(&d, RDLEN, i & 1 ? 0 : 0xffffffff);
		wr(&d, RDH, i & 2 ? 0xffff : 7);
		wr(&d, RDBAH, i & 4 ? 0xffffffff : 0);
		wr(&d, RDBAL, i & 8 ? 0xfffffff0 : NIC_MEMORY - 16);
		wr(&d, RDT, i * 2654435761u);
		nic_peer_try(&d.rig, (const uint8_t[64]){0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 64);
		nic_sync(&d.rig);
	}
	/* buffers outside memory: the receiver stops, until it is set up again */
	e1_rx_start(&d, 8, RCTL_BAM | RCTL_UPE);
	ring = mem(&d, RX_RING, 128);
	nic_sync(&d.rig);
	while (rd(&d, RDH) != rd(&d, RDT)) {
		e1_peer_send(&d, nic_mac, 1, 64);
		nic_sync(&d.rig);
	}
	e1_rx_start(&d, 8, RCTL_BAM);
	ring[0].address = NIC_MEMORY - 10;
	wr(&d, RDT, 7);
	e1_peer_send(&d, nic_mac, 1, 64);
	NIC_UNTIL(!(rd(&d, RCTL) & RCTL_EN));
	CU_ASSERT_EQUAL(rd(&d, RDH), 0);
	e1_rx_start(&d, 8, RCTL_BAM);
	e1_peer_send(&d, nic_mac, 2, 64);
	rx_expect(&d, nic_mac, 2, 64);
	nic_close(&d.rig);
}

static const struct unit_case cases[] = {
	{"identity, EEPROM, PHY", test_identity},
	{"registers", test_registers},
	{"interrupts", test_interrupts},
	{"interrupt moderation", test_moderation},
	{"delayed interrupts", test_delays},
	{"receive", test_receive},
	{"sizes refused", test_sizes_refused},
	{"filters", test_filters},
	{"VLAN", test_vlan},
	{"slow guest", test_slow_guest},
	{"dirty bitmap", test_dirty},
	{"hostile receive rings", test_hostile},
};

UNIT_MAIN("e1000", cases)
