/* SPDX-License-Identifier: BSD-2-Clause */
/* NE2000: packet memory, remote DMA, frames sent and received. */
#include <string.h>

#include "vmm/ne2000_priv.h"

/* ------------------------------------------------------------------ packet memory */

uint8_t ne2000_mem_read(const struct ne2000 *n, uint16_t addr)
{
	if (addr < NE_PROM_SIZE)
		return n->prom[addr];
	if (addr >= NE_RAM_START && addr < NE_RAM_END)
		return n->ram[addr - NE_RAM_START];
	return 0xff;
}

static void mem_write(struct ne2000 *n, uint16_t addr, uint8_t v)
{
	if (addr >= NE_RAM_START && addr < NE_RAM_END)
		n->ram[addr - NE_RAM_START] = v;
}

/* One byte of remote DMA has moved: the address wraps at the end of the receive ring (6.2.2). */
static void remote_advance(struct ne2000 *n)
{
	n->rsar++;
	if (n->rsar == (uint16_t)(n->pstop << 8))
		n->rsar = (uint16_t)(n->pstart << 8);
	if (n->rbcr && !--n->rbcr)
		ne2000_isr_raise(n, ISR_RDC);
}

/*
 * With the word transfer select a cycle of the data port moves a word, also when only a byte of it
 * is wanted: drivers read the PROM, in which each byte is there twice, byte by byte (6.2.1). A
 * double word is two cycles.
 */
static unsigned data_unit(const struct ne2000 *n, unsigned size)
{
	if (!(n->dcr & DCR_WTS))
		return 1;
	return size < 2 ? 2 : size;
}

uint32_t ne2000_data_read(struct ne2000 *n, unsigned size)
{
	unsigned unit = data_unit(n, size);
	uint32_t v = 0;

	for (unsigned i = 0; i < unit; i++) {
		if ((n->cr & CR_RD_MASK) != CR_RD_READ || !n->rbcr)
			v |= 0xffu << (8 * i);
		else {
			v |= (uint32_t)ne2000_mem_read(n, n->rsar) << (8 * i);
			remote_advance(n);
		}
	}
	return v;
}

void ne2000_data_write(struct ne2000 *n, uint32_t v, unsigned size)
{
	unsigned unit = data_unit(n, size);

	for (unsigned i = 0; i < unit; i++) {
		if ((n->cr & CR_RD_MASK) != CR_RD_WRITE || !n->rbcr)
			return;
		mem_write(n, n->rsar, (uint8_t)(v >> (8 * i)));
		remote_advance(n);
	}
}

/* ------------------------------------------------------------------ frames */

static void transmit_done(struct ne2000 *n, bool ok)
{
	n->sending = false;
	n->cr &= (uint8_t)~CR_TXP;
	n->tsr = ok ? TSR_PTX : 0;
	ne2000_isr_raise(n, ok ? ISR_PTX : ISR_TXE);
}

void ne2000_transmit(struct ne2000 *n)
{
	uint32_t at = (uint32_t)n->tpsr << 8, len = n->tbcr;

	if (at < NE_RAM_START || len < 1 || len > NE_FRAME_MAX || at + len > NE_RAM_END) {
		counter_add(&n->dev.counters.malformed, 1);
		transmit_done(n, false);
		return;
	}
	/* nobody on the wire would take less than a header; the card sends it all the same */
	if (n->tcr & TCR_LOOPBACK || len < NET_FRAME_MIN) {
		transmit_done(n, true);
		return;
	}
	n->sending = legacy_net_waiting(n->net) >= NE_FIFO;
	if (n->sending)
		return;
	if (legacy_net_queue(n->net, n->ram + (at - NE_RAM_START), len)) {
		counter_add(&n->dev.counters.dropped, 1);
		transmit_done(n, false);
		return;
	}
	counter_add(&n->dev.counters.requests, 1);
	counter_add(&n->dev.counters.bytes, len);
	transmit_done(n, true);
}

/* I/O thread: what was queued has left. */
void ne2000_sent(void *ctx)
{
	struct ne2000 *n = ctx;

	pthread_mutex_lock(&n->dev.lock);
	if (n->sending)
		ne2000_transmit(n);
	pthread_mutex_unlock(&n->dev.lock);
}

static bool ring_valid(const struct ne2000 *n)
{
	return n->pstart >= NE_RAM_START >> 8 && n->pstop <= NE_RAM_END >> 8 &&
	       n->pstart < n->pstop && n->curr >= n->pstart && n->curr < n->pstop;
}

/* Pages from CURR up to BNRY. Equal means empty: so a frame may not fill the last of them. */
static unsigned ring_free_pages(const struct ne2000 *n)
{
	unsigned size = n->pstop - n->pstart, bnry = n->bnry;

	/* Drivers that keep BNRY one page behind what they read next write PSTART - 1 there when
	 * that is the ring's first page (Linux). */
	if (bnry < n->pstart || bnry >= n->pstop)
		bnry = n->pstop - 1;
	return bnry == n->curr ? size : (bnry + size - n->curr) % size;
}

static bool receiver_on(const struct ne2000 *n)
{
	return (n->cr & (CR_STP | CR_STA)) == CR_STA && !(n->rcr & RCR_MON) &&
	       !(n->tcr & TCR_LOOPBACK) && ring_valid(n);
}

/* One page of an empty ring may be between BNRY and CURR. */
static bool ring_empty(const struct ne2000 *n)
{
	return ring_free_pages(n) + 1 >= (unsigned)(n->pstop - n->pstart);
}

static bool ring_room(const struct ne2000 *n)
{
	const unsigned largest = (NE_FRAME_MAX + NE_HEADER + NE_PAGE - 1) / NE_PAGE;

	return ring_free_pages(n) > largest || ring_empty(n);
}

/*
 * Drivers take a number of frames and then acknowledge all that came, relying on the next frame to
 * interrupt again (Linux: nine). Into a full ring none comes, for those that wait are kept: so a
 * ring that still holds frames says once more that it has been received into.
 */
void ne2000_isr_acknowledge(struct ne2000 *n, uint8_t bits)
{
	n->isr &= (uint8_t)~bits;
	if (bits & ISR_PRX && receiver_on(n) && !ring_empty(n))
		n->isr |= ISR_PRX;
	ne2000_irq_update(n);
}

/*
 * I/O thread: frames are asked for only while the largest one has room, so none is lost to a slow
 * guest. (A ring too small for that is to be empty first: one page of it is between BNRY and CURR.)
 */
bool ne2000_receive_room(void *ctx)
{
	struct ne2000 *n = ctx;
	bool room;

	machine_coalesced_drain(n->dev.machine);
	pthread_mutex_lock(&n->dev.lock);
	room = receiver_on(n) && ring_room(n);
	pthread_mutex_unlock(&n->dev.lock);
	return room;
}

/* CRC-32 of an address, as the multicast filter hashes it (10.12). */
unsigned ether_multicast_hash(const uint8_t *mac)
{
	uint32_t crc = 0xffffffff;

	for (unsigned i = 0; i < 6; i++)
		for (unsigned bit = 0; bit < 8; bit++) {
			uint32_t carry = (crc >> 31) ^ ((mac[i] >> bit) & 1);

			crc = (crc << 1) ^ (carry ? 0x04c11db7 : 0);
		}
	return crc >> 26;
}

static bool filter_accepts(const struct ne2000 *n, const uint8_t *frame)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	unsigned hash;

	if (!memcmp(frame, broadcast, 6))
		return n->rcr & RCR_AB;
	if (frame[0] & 1) {
		hash = ether_multicast_hash(frame);
		return (n->rcr & RCR_AM) && (n->mar[hash >> 3] >> (hash & 7) & 1);
	}
	/* promiscuous means physical addresses only */
	return n->rcr & RCR_PRO || !memcmp(frame, n->par, 6);
}

static void ring_put(struct ne2000 *n, uint32_t *at, const uint8_t *from, uint32_t len)
{
	for (uint32_t done = 0; done < len;) {
		uint32_t room = ((uint32_t)n->pstop << 8) - *at, part = len - done;

		part = part < room ? part : room;
		if (from)
			memcpy(n->ram + (*at - NE_RAM_START), from + done, part);
		else
			memset(n->ram + (*at - NE_RAM_START), 0, part);
		*at += part;
		done += part;
		if (*at == (uint32_t)n->pstop << 8)
			*at = (uint32_t)n->pstart << 8;
	}
}

static void frame_store(struct ne2000 *n, const uint8_t *frame, uint32_t len)
{
	uint32_t pad = len < NE_FRAME_MIN ? NE_FRAME_MIN - len : 0, total = len + pad + NE_HEADER;
	uint32_t at = (uint32_t)n->curr << 8;
	unsigned pages = (total + NE_PAGE - 1) / NE_PAGE, next = n->curr + pages;
	uint8_t header[NE_HEADER];

	if (ring_free_pages(n) <= pages) {
		/* one that the room was not asked for: as a full ring loses it */
		counter_add(&n->dev.counters.dropped, 1);
		ne2000_isr_raise(n, ISR_OVW);
		return;
	}
	if (next >= n->pstop)
		next -= n->pstop - n->pstart;
	n->rsr = RSR_PRX | (frame[0] & 1 ? RSR_PHY : 0);
	header[0] = n->rsr;
	header[1] = (uint8_t)next;
	header[2] = (uint8_t)total;
	header[3] = (uint8_t)(total >> 8);
	ring_put(n, &at, header, NE_HEADER);
	ring_put(n, &at, frame, len);
	ring_put(n, &at, NULL, pad);
	n->curr = (uint8_t)next;
	counter_add(&n->dev.counters.requests, 1);
	counter_add(&n->dev.counters.bytes, len);
	ne2000_isr_raise(n, ISR_PRX);
}

/* I/O thread. The guest may have stopped the receiver since there was room. */
void ne2000_received(void *ctx, const uint8_t *frame, uint32_t len)
{
	struct ne2000 *n = ctx;

	pthread_mutex_lock(&n->dev.lock);
	if (len < NET_FRAME_MIN || len > NE_FRAME_MAX || !receiver_on(n))
		counter_add(&n->dev.counters.dropped, 1);
	else if (filter_accepts(n, frame))
		frame_store(n, frame, len);
	pthread_mutex_unlock(&n->dev.lock);
}
