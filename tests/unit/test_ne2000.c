/* SPDX-License-Identifier: BSD-2-Clause */
/* The NE2000 model: registers, remote DMA, interrupts, reset. */
#include "tests/unit/test_ne2000_rig.h"

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

/* ------------------------------------------------------------------ interrupts, reset */

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
	/* a frame that was acknowledged unread is still announced */
	out(&d, ISR, PRX | PTX);
	CU_ASSERT_EQUAL(in(&d, ISR) & (PRX | PTX), PRX);
	CU_ASSERT_EQUAL(atomic_load(&d.rig.level), 1);
	expect(&d, nic_mac, 2, 64);
	out(&d, ISR, PRX);
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

static const struct unit_case cases[] = {
	{"identity", test_identity},
	{"registers", test_registers},
	{"remote DMA", test_remote_dma},
	{"interrupts", test_interrupts},
	{"reset", test_reset},
};

UNIT_MAIN("ne2000", cases)
