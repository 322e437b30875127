/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the NE2000 model share: its registers, driven as drivers do. */
#ifndef TEST_NE2000_RIG_H
#define TEST_NE2000_RIG_H

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

static inline void out(struct ne *d, unsigned reg, uint32_t v)
{
	machine_port_write(d->rig.m, d->port + reg, v, 1);
}

static inline uint8_t in(struct ne *d, unsigned reg)
{
	return machine_port_read(d->rig.m, d->port + reg, 1);
}

static inline void ne_attach(struct ne *d)
{
	d->port = nic_config(&d->rig, 0x10) & ~3u;
}

static inline void ne_open(struct ne *d)
{
	nic_open(&d->rig, "ne2k_pci", NE_ID, 0);
	ne_attach(d);
}

/* As stock drivers do it, with 16-bit transfers. */
static inline void ne_start(struct ne *d, uint8_t rcr)
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

static inline void remote(struct ne *d, uint16_t at, uint16_t len, uint8_t command)
{
	out(d, RBCR0, len & 0xff);
	out(d, RBCR1, len >> 8);
	out(d, RSAR0, at & 0xff);
	out(d, RSAR1, at >> 8);
	out(d, CR, command);
}

static inline void data_out(struct ne *d, const uint8_t *p, uint32_t len, unsigned size)
{
	for (uint32_t i = 0; i < len; i += size) {
		uint32_t v = 0;

		memcpy(&v, p + i, len - i < size ? len - i : size);
		machine_port_write(d->rig.m, d->port + DATA, v, size);
	}
}

static inline void data_in(struct ne *d, uint8_t *p, uint32_t len, unsigned size)
{
	for (uint32_t i = 0; i < len; i += size) {
		uint32_t v = machine_port_read(d->rig.m, d->port + DATA, size);

		memcpy(p + i, &v, len - i < size ? len - i : size);
	}
}

static inline void mem_out(struct ne *d, uint16_t at, const uint8_t *p, uint32_t len)
{
	remote(d, at, (len + 1) & ~1u, 0x12);
	data_out(d, p, len, 2);
	CU_ASSERT(in(d, ISR) & RDC);
	out(d, ISR, RDC);
}

static inline void mem_in(struct ne *d, uint16_t at, uint8_t *p, uint32_t len)
{
	remote(d, at, (len + 1) & ~1u, 0x0a);
	data_in(d, p, len, 2);
	out(d, ISR, RDC);
}

static inline void transmit(struct ne *d, uint32_t len)
{
	out(d, TPSR, TX_PAGE);
	out(d, TBCR0, len & 0xff);
	out(d, TBCR1, len >> 8);
	out(d, CR, 0x26);
}

static inline void send(struct ne *d, uint32_t n, uint32_t len)
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

static inline uint8_t current(struct ne *d)
{
	uint8_t v;

	/* neither start nor stop: only the page changes */
	out(d, CR, 0x60);
	v = in(d, CURR);
	out(d, CR, 0x20);
	return v;
}

/* The next frame in the ring: its length as stored. */
static inline uint32_t take(struct ne *d, uint8_t *f)
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

static inline void expect(struct ne *d, const uint8_t to[6], uint32_t n, uint32_t len)
{
	uint8_t want[2048] = {0}, got[2048];
	uint32_t stored = len < 60 ? 60 : len;

	nic_frame(want, to, n, len);
	CU_ASSERT_EQUAL(take(d, got), stored);
	CU_ASSERT_EQUAL_FATAL(memcmp(want, got, stored), 0);
}

static inline void peer_send(struct ne *d, const uint8_t to[6], uint32_t n, uint32_t len)
{
	uint8_t f[2048];

	nic_frame(f, to, n, len);
	nic_peer_send(&d->rig, f, len);
}

#endif
