/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the e1000 model share: its registers and its rings, driven by hand. */
#ifndef TEST_E1000_RIG_H
#define TEST_E1000_RIG_H

#include "tests/unit/test_nic_rig.h"

#define E1000_ID      0x100e8086u
#define E1000_OFFLOAD (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_USO)
#define TX_RING       0x10000u
#define RX_RING       0x20000u
#define TX_DATA       0x40000u
#define RX_DATA       0x100000u
#define RX_STRIDE     0x4000u /* room for the largest buffer */

enum {
	CTRL = 0x0000,
	STATUS = 0x0008,
	EECD = 0x0010,
	EERD = 0x0014,
	MDIC = 0x0020,
	VET = 0x0038,
	ICR = 0x00c0,
	ITR = 0x00c4,
	ICS = 0x00c8,
	IMS = 0x00d0,
	IMC = 0x00d8,
	RCTL = 0x0100,
	TCTL = 0x0400,
	RDBAL = 0x2800,
	RDBAH = 0x2804,
	RDLEN = 0x2808,
	RDH = 0x2810,
	RDT = 0x2818,
	RDTR = 0x2820,
	RADV = 0x282c,
	TDBAL = 0x3800,
	TDBAH = 0x3804,
	TDLEN = 0x3808,
	TDH = 0x3810,
	TDT = 0x3818,
	TIDV = 0x3820,
	TADV = 0x382c,
	MTA = 0x5200,
	RAL = 0x5400,
	RAH = 0x5404,
	VFTA = 0x5600,
};

enum {
	TXDW = 1,
	TXQE = 2,
	LSC = 4,
	RXDMT0 = 0x10,
	RXO = 0x40,
	RXT0 = 0x80,
	RCTL_EN = 2,
	RCTL_UPE = 8,
	RCTL_MPE = 0x10,
	RCTL_LPE = 0x20,
	RCTL_LBM_MAC = 0x40,
	RCTL_BAM = 0x8000,
	RCTL_BSIZE_256 = 0x30000,
	RCTL_BSIZE_4096 = 0x2030000,
	RCTL_VFE = 0x40000,
	RCTL_SECRC = 0x4000000,
	CTRL_VME = 0x40000000,
};

/* Descriptor bits: DTYP and DCMD as they stand in the second word. */
#define X_EOP  0x01000000u
#define X_IFCS 0x02000000u
#define X_IC   0x04000000u
#define X_TSE  0x04000000u
#define X_RS   0x08000000u
#define X_DEXT 0x20000000u
#define X_VLE  0x40000000u
#define X_IDE  0x80000000u
#define X_DATA 0x00100000u
#define X_TCP  0x01000000u
#define X_IP   0x02000000u
#define P_IXSM 0x100u
#define P_TXSM 0x200u

struct desc {
	uint64_t address;
	uint32_t low; /* receive: length, checksum */
	uint32_t high;
};

struct e1 {
	struct nic_rig rig;
	uint64_t base;
	uint16_t io;
	uint32_t tx_n, tx_tail;
	uint32_t rx_n, rx_next; /* rings that this driver has set up */
};

static inline uint32_t rd(struct e1 *d, unsigned reg)
{
	return (uint32_t)machine_mmio_read(d->rig.m, d->base + reg, 4);
}

static inline void wr(struct e1 *d, unsigned reg, uint32_t v)
{
	machine_mmio_write(d->rig.m, d->base + reg, v, 4);
}

static inline void *mem(struct e1 *d, uint64_t gpa, uint64_t len)
{
	void *p = ring_mem_translate(machine_memory(d->rig.m), gpa, len, RING_WRITE);

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	return p;
}

static inline void e1_attach(struct e1 *d)
{
	d->base = nic_config(&d->rig, 0x10) & ~15u;
	d->io = nic_config(&d->rig, 0x14) & ~3u;
}

static inline void e1_open(struct e1 *d, uint32_t offloads)
{
	memset(d, 0, sizeof(*d));
	nic_open(&d->rig, "e1000", E1000_ID, offloads);
	e1_attach(d);
}

static inline void e1_tx_start(struct e1 *d, uint32_t n)
{
	d->tx_n = n;
	d->tx_tail = 0;
	memset(mem(d, TX_RING, n * 16), 0, n * 16);
	wr(d, TDBAL, TX_RING);
	wr(d, TDBAH, 0);
	wr(d, TDLEN, n * 16);
	wr(d, TDH, 0);
	wr(d, TDT, 0);
	wr(d, TCTL, 2 | 0x40 << 12 | 0xf0);
}

/* All descriptors but one are given. */
static inline void e1_rx_start(struct e1 *d, uint32_t n, uint32_t rctl)
{
	struct desc *ring = mem(d, RX_RING, n * 16);

	d->rx_n = n;
	d->rx_next = 0;
	wr(d, RCTL, 0);
	for (uint32_t i = 0; i < n; i++)
		ring[i] = (struct desc){.address = RX_DATA + i * RX_STRIDE};
	wr(d, RDBAL, RX_RING);
	wr(d, RDBAH, 0);
	wr(d, RDLEN, n * 16);
	wr(d, RDH, 0);
	wr(d, RDT, n - 1);
	wr(d, RCTL, rctl | RCTL_EN);
}

/* ------------------------------------------------------------------ transmit */

static inline void tx_put(struct e1 *d, uint64_t address, uint32_t low, uint32_t high)
{
	struct desc *ring = mem(d, TX_RING, d->tx_n * 16);

	ring[d->tx_tail] = (struct desc){address, low, high};
	d->tx_tail = (d->tx_tail + 1) % d->tx_n;
}

static inline void tx_go(struct e1 *d)
{
	wr(d, TDT, d->tx_tail);
}

static inline void tx_wait(struct e1 *d)
{
	NIC_UNTIL(rd(d, TDH) == d->tx_tail);
}

/* Number n with a legacy descriptor. */
static inline void tx_frame(struct e1 *d, uint32_t n, uint32_t len)
{
	nic_frame(mem(d, TX_DATA, len), nic_other, n, len);
	tx_put(d, TX_DATA, len | X_EOP | X_IFCS | X_RS, 0);
	tx_go(d);
	tx_wait(d);
}

/* ------------------------------------------------------------------ receive */

/* The next frame, out of as many descriptors as it lies in; its length without CRC. */
static inline uint32_t rx_take(struct e1 *d, uint8_t *to, uint32_t *status, uint16_t *special)
{
	struct desc *ring = mem(d, RX_RING, d->rx_n * 16), *r;
	uint32_t len = 0, part;

	/* the register is read under the device's lock: what it wrote before is seen after */
	NIC_UNTIL(rd(d, RDH) != d->rx_next);
	do {
		r = &ring[d->rx_next];
		CU_ASSERT_FATAL(r->high & 1);
		part = r->low & 0xffff;
		memcpy(to + len, mem(d, r->address, part ? part : 1), part);
		len += part;
		*status = r->high;
		if (special)
			*special = (uint16_t)(r->high >> 16);
		r->high = r->low = 0;
		wr(d, RDT, d->rx_next);
		d->rx_next = (d->rx_next + 1) % d->rx_n;
	} while (!(*status & 2));
	return rd(d, RCTL) & RCTL_SECRC ? len : len - 4;
}

static inline void rx_expect(struct e1 *d, const uint8_t to[6], uint32_t n, uint32_t len)
{
	static uint8_t want[65536], got[65536];
	uint32_t stored = len < 60 ? 60 : len, status;

	memset(want, 0, sizeof(want));
	nic_frame(want, to, n, len);
	CU_ASSERT_EQUAL_FATAL(rx_take(d, got, &status, NULL), stored);
	CU_ASSERT_EQUAL_FATAL(memcmp(want, got, stored), 0);
	CU_ASSERT_EQUAL(status & 0xff00, 0);
}

static inline void e1_peer_send(struct e1 *d, const uint8_t to[6], uint32_t n, uint32_t len)
{
	static uint8_t f[65536];

	nic_frame(f, to, n, len);
	nic_peer_send(&d->rig, f, len);
}

#endif
