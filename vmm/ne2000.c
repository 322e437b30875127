/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * NE2000 on PCI: Realtek RTL8029AS (datasheet 1997-01-03), whose core is National's DP8390D
 * (datasheet 1995-07; register numbers and bits below are from its section 10). 16 KiB of packet
 * memory at 0x4000, the station address PROM at 0, one I/O BAR of 32 ports: the core's registers,
 * the data port at 0x10, the reset port at 0x18.
 *
 * Threads: registers under the device's lock on vCPU threads; frames come and go on the I/O thread,
 * which takes the same lock. A frame to be sent is copied out of packet memory when the guest says
 * so.
 *
 * What is posted (see ne2000_posted): every register whose write only matters once the command
 * register is written or something is read. Not the command, boundary, interrupt status and mask
 * registers: the guest may write one of them last and then wait.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/vmm_priv.h"

#define NE_PORTS     32u
#define NE_RAM_START 0x4000u
#define NE_RAM_SIZE  0x4000u
#define NE_RAM_END   (NE_RAM_START + NE_RAM_SIZE)
#define NE_PROM_SIZE 32u
#define NE_PAGE      256u
#define NE_FRAME_MIN 60u
#define NE_FRAME_MAX 1514u
#define NE_HEADER    4u
#define NE_DATA_PORT 0x10u
#define NE_RESET     0x18u

enum {
	CR_STP = 0x01,
	CR_STA = 0x02,
	CR_TXP = 0x04,
	CR_RD_MASK = 0x38,
	CR_RD_READ = 0x08,
	CR_RD_WRITE = 0x10,
	CR_RD_SEND = 0x18,
	CR_RD_ABORT = 0x20,
	CR_PAGE_SHIFT = 6,

	ISR_PRX = 0x01,
	ISR_PTX = 0x02,
	ISR_RXE = 0x04,
	ISR_TXE = 0x08,
	ISR_OVW = 0x10,
	ISR_RDC = 0x40,
	ISR_RST = 0x80,

	DCR_WTS = 0x01,
	TCR_LOOPBACK = 0x06,
	TSR_PTX = 0x01,
	RSR_PRX = 0x01,
	RSR_PHY = 0x20,
	RCR_AB = 0x04,
	RCR_AM = 0x08,
	RCR_PRO = 0x10,
	RCR_MON = 0x20,
};

struct ne2000 {
	struct device dev;
	struct pci_device pci;
	struct legacy_net *net;
	uint8_t mac[6];
	uint8_t prom[NE_PROM_SIZE];
	uint8_t ram[NE_RAM_SIZE];
	uint8_t cr, isr, imr, dcr, rcr, tcr, tsr, rsr;
	uint8_t pstart, pstop, bnry, curr, tpsr;
	uint16_t tbcr, rsar, rbcr;
	uint8_t par[6], mar[8];
	bool sending;
};

static const struct bus_span ne2000_posted[] = {
	{0x01, 2}, {0x04, 3}, {0x08, 7}, {NE_DATA_PORT, 8}, {0, 0}};
/* While the end of remote DMA may interrupt, the last word of the data port must be seen at once.
 */
static const struct bus_span ne2000_posted_rdc[] = {{0x01, 2}, {0x04, 3}, {0x08, 7}, {0, 0}};

static void irq_update(struct ne2000 *n)
{
	pci_intx_set(&n->pci, (n->isr & n->imr & 0x7f) != 0);
}

static void isr_raise(struct ne2000 *n, uint8_t bits)
{
	n->isr |= bits;
	irq_update(n);
}

/* ------------------------------------------------------------------ packet memory */

static uint8_t mem_read(const struct ne2000 *n, uint16_t addr)
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
		isr_raise(n, ISR_RDC);
}

static uint32_t data_read(struct ne2000 *n, unsigned size)
{
	uint32_t v = 0;
	unsigned unit = n->dcr & DCR_WTS ? size : 1;

	for (unsigned i = 0; i < unit; i++) {
		if ((n->cr & CR_RD_MASK) != CR_RD_READ || !n->rbcr)
			v |= 0xffu << (8 * i);
		else {
			v |= (uint32_t)mem_read(n, n->rsar) << (8 * i);
			remote_advance(n);
		}
	}
	return v;
}

static void data_write(struct ne2000 *n, uint32_t v, unsigned size)
{
	unsigned unit = n->dcr & DCR_WTS ? size : 1;

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
	isr_raise(n, ok ? ISR_PTX : ISR_TXE);
}

static void transmit_start(struct ne2000 *n)
{
	uint32_t at = (uint32_t)n->tpsr << 8, len = n->tbcr;

	counter_add(&n->dev.counters.doorbells, 1);
	if (at < NE_RAM_START || len < 1 || len > NE_FRAME_MAX + 4 || at + len > NE_RAM_END) {
		counter_add(&n->dev.counters.malformed, 1);
		transmit_done(n, false);
		return;
	}
	if (n->tcr & TCR_LOOPBACK) {
		transmit_done(n, true);
		return;
	}
	if (legacy_net_queue(n->net, n->ram + (at - NE_RAM_START), len)) {
		counter_add(&n->dev.counters.dropped, 1);
		transmit_done(n, false);
		return;
	}
	n->sending = true;
	counter_add(&n->dev.counters.requests, 1);
	counter_add(&n->dev.counters.bytes, len);
}

/* I/O thread. */
static void net_sent(void *ctx)
{
	struct ne2000 *n = ctx;

	pthread_mutex_lock(&n->dev.lock);
	if (n->sending)
		transmit_done(n, true);
	pthread_mutex_unlock(&n->dev.lock);
}

static bool ring_valid(const struct ne2000 *n)
{
	return n->pstart >= NE_RAM_START >> 8 && n->pstop <= NE_RAM_END >> 8 &&
	       n->pstart < n->pstop && n->curr >= n->pstart && n->curr < n->pstop &&
	       n->bnry >= n->pstart && n->bnry < n->pstop;
}

/* Pages between CURR and BNRY; one always stays free, for equal means empty. */
static unsigned ring_free_pages(const struct ne2000 *n)
{
	unsigned size = n->pstop - n->pstart;

	return (n->bnry + size - n->curr - 1) % size + (n->bnry == n->curr ? 1 : 0);
}

/* I/O thread: frames are asked for only while the largest one has room, so none is lost to a slow
 * guest. */
static bool net_receive_room(void *ctx)
{
	struct ne2000 *n = ctx;
	bool room;

	pthread_mutex_lock(&n->dev.lock);
	room = (n->cr & (CR_STP | CR_STA)) == CR_STA && !(n->rcr & RCR_MON) &&
	       !(n->tcr & TCR_LOOPBACK) && ring_valid(n) &&
	       ring_free_pages(n) > (NE_FRAME_MAX + NE_HEADER + NE_PAGE - 1) / NE_PAGE;
	pthread_mutex_unlock(&n->dev.lock);
	return room;
}

/* CRC-32 of an address, as the multicast filter hashes it (10.12). */
static unsigned multicast_hash(const uint8_t *mac)
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

	if (n->rcr & RCR_PRO)
		return true;
	if (!memcmp(frame, broadcast, 6))
		return n->rcr & RCR_AB;
	if (frame[0] & 1) {
		hash = multicast_hash(frame);
		return (n->rcr & RCR_AM) && (n->mar[hash >> 3] >> (hash & 7) & 1);
	}
	return !memcmp(frame, n->par, 6);
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

/* I/O thread. */
static void net_received(void *ctx, const uint8_t *frame, uint32_t len)
{
	struct ne2000 *n = ctx;
	uint32_t at, total, pad = len < NE_FRAME_MIN ? NE_FRAME_MIN - len : 0;
	uint8_t header[NE_HEADER];
	unsigned pages, next;

	pthread_mutex_lock(&n->dev.lock);
	total = len + pad + NE_HEADER;
	pages = (total + NE_PAGE - 1) / NE_PAGE;
	if (len < 14 || len > NE_FRAME_MAX || !ring_valid(n) || ring_free_pages(n) <= pages) {
		counter_add(&n->dev.counters.dropped, 1);
		goto out;
	}
	if (!filter_accepts(n, frame))
		goto out;
	next = n->curr + pages;
	if (next >= n->pstop)
		next -= n->pstop - n->pstart;
	n->rsr = RSR_PRX | (frame[0] & 1 ? RSR_PHY : 0);
	header[0] = n->rsr;
	header[1] = (uint8_t)next;
	header[2] = (uint8_t)total;
	header[3] = (uint8_t)(total >> 8);
	at = (uint32_t)n->curr << 8;
	ring_put(n, &at, header, NE_HEADER);
	ring_put(n, &at, frame, len);
	ring_put(n, &at, NULL, pad);
	n->curr = (uint8_t)next;
	counter_add(&n->dev.counters.requests, 1);
	counter_add(&n->dev.counters.bytes, len);
	isr_raise(n, ISR_PRX);
out:
	pthread_mutex_unlock(&n->dev.lock);
}

/* ------------------------------------------------------------------ registers */

static void core_reset(struct ne2000 *n)
{
	n->cr = CR_STP | CR_RD_ABORT;
	n->isr = ISR_RST;
	n->imr = 0;
	n->sending = false;
	irq_update(n);
}

static void command_write(struct ne2000 *n, uint8_t v)
{
	bool was_running = (n->cr & (CR_STP | CR_STA)) == CR_STA;
	uint8_t txp = n->cr & CR_TXP;

	if (v & CR_STP) {
		n->cr = (uint8_t)((v & ~(CR_TXP | CR_STA)) | (n->sending ? CR_TXP : 0));
		n->isr |= ISR_RST;
		return;
	}
	n->isr &= (uint8_t)~ISR_RST;
	n->cr = (uint8_t)((v & ~CR_TXP) | txp);
	if ((v & CR_RD_MASK) == CR_RD_SEND) {
		/* send packet: remote read of the next frame in the ring (6.2.3) */
		n->rsar = (uint16_t)(n->bnry << 8);
		n->rbcr = (uint16_t)(mem_read(n, (uint16_t)(n->rsar + 2)) |
				     mem_read(n, (uint16_t)(n->rsar + 3)) << 8);
		n->cr = (uint8_t)((n->cr & ~CR_RD_MASK) | CR_RD_READ);
	} else if ((v & CR_RD_MASK) && !(v & CR_RD_ABORT) && !n->rbcr) {
		isr_raise(n, ISR_RDC);
	}
	if ((v & CR_TXP) && !txp) {
		n->cr |= CR_TXP;
		transmit_start(n);
	}
	if (!was_running && (n->cr & CR_STA))
		legacy_net_rx_resume(n->net);
}

static void imr_write(struct ne2000 *n, uint8_t v)
{
	const struct bus_span *posted = v & ISR_RDC ? ne2000_posted_rdc : ne2000_posted;
	struct bus_region *region = &n->pci.bars[0].region;

	n->imr = v & 0x7f;
	if (region->posted != posted) {
		bool mapped = region->mapped;

		if (mapped)
			bus_unmap(n->dev.machine, region);
		region->posted = posted;
		if (mapped)
			bus_map(n->dev.machine, region);
	}
	irq_update(n);
}

static void page0_write(struct ne2000 *n, unsigned reg, uint8_t v)
{
	switch (reg) {
	case 0x01:
		n->pstart = v;
		break;
	case 0x02:
		n->pstop = v;
		break;
	case 0x03:
		n->bnry = v;
		legacy_net_rx_resume(n->net);
		break;
	case 0x04:
		n->tpsr = v;
		break;
	case 0x05:
		n->tbcr = (uint16_t)((n->tbcr & 0xff00) | v);
		break;
	case 0x06:
		n->tbcr = (uint16_t)((n->tbcr & 0x00ff) | v << 8);
		break;
	case 0x07:
		n->isr &= (uint8_t) ~(v & 0x7f);
		irq_update(n);
		break;
	case 0x08:
		n->rsar = (uint16_t)((n->rsar & 0xff00) | v);
		break;
	case 0x09:
		n->rsar = (uint16_t)((n->rsar & 0x00ff) | v << 8);
		break;
	case 0x0a:
		n->rbcr = (uint16_t)((n->rbcr & 0xff00) | v);
		break;
	case 0x0b:
		n->rbcr = (uint16_t)((n->rbcr & 0x00ff) | v << 8);
		break;
	case 0x0c:
		n->rcr = v;
		legacy_net_rx_resume(n->net);
		break;
	case 0x0d:
		n->tcr = v;
		legacy_net_rx_resume(n->net);
		break;
	case 0x0e:
		n->dcr = v;
		break;
	case 0x0f:
		imr_write(n, v);
		break;
	}
}

static void register_write(struct ne2000 *n, unsigned reg, uint8_t v)
{
	unsigned page = n->cr >> CR_PAGE_SHIFT;

	if (reg == 0)
		command_write(n, v);
	else if (page == 0)
		page0_write(n, reg, v);
	else if (page == 1 && reg <= 6)
		n->par[reg - 1] = v;
	else if (page == 1 && reg == 7)
		n->curr = v;
	else if (page == 1)
		n->mar[reg - 8] = v;
}

static uint8_t page0_read(const struct ne2000 *n, unsigned reg)
{
	switch (reg) {
	case 0x01:
	case 0x08:
		return (uint8_t)n->rsar;
	case 0x02:
	case 0x09:
		return (uint8_t)(n->rsar >> 8);
	case 0x03:
		return n->bnry;
	case 0x04:
		return n->tsr;
	case 0x07:
		return n->isr;
	case 0x0a:
		return 0x50; /* RTL8029 says what it is: "PC" */
	case 0x0b:
		return 0x43;
	case 0x0c:
		return n->rsr;
	default:
		return 0; /* collisions, FIFO, error tallies: there are none */
	}
}

static uint8_t page2_read(const struct ne2000 *n, unsigned reg)
{
	const uint8_t map[16] = {[1] = n->pstart,
		[2] = n->pstop,
		[4] = n->tpsr,
		[12] = n->rcr,
		[13] = n->tcr,
		[14] = n->dcr,
		[15] = n->imr};

	return map[reg];
}

static uint8_t register_read(const struct ne2000 *n, unsigned reg)
{
	unsigned page = n->cr >> CR_PAGE_SHIFT;

	if (reg == 0)
		return n->cr;
	if (page == 0)
		return page0_read(n, reg);
	if (page == 2)
		return page2_read(n, reg);
	if (page == 3)
		return 0; /* EEPROM and configuration: full duplex off, nothing latched */
	if (reg <= 6)
		return n->par[reg - 1];
	return reg == 7 ? n->curr : n->mar[reg - 8];
}

static uint64_t ne2000_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ne2000 *n = opaque;
	uint64_t v = 0;

	if (offset >= NE_DATA_PORT && offset < NE_RESET)
		return data_read(n, size);
	if (offset >= NE_RESET) {
		core_reset(n);
		return 0;
	}
	for (unsigned i = 0; i < size && offset + i < NE_DATA_PORT; i++)
		v |= (uint64_t)register_read(n, (unsigned)offset + i) << (8 * i);
	return v;
}

static void ne2000_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ne2000 *n = opaque;

	if (offset >= NE_DATA_PORT && offset < NE_RESET) {
		data_write(n, (uint32_t)value, size);
		return;
	}
	/* a write to the reset port ends the reset pulse: nothing more to do */
	for (unsigned i = 0; i < size && offset + i < NE_DATA_PORT; i++)
		register_write(n, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

static void ne2000_read_string(
	void *opaque, uint64_t offset, void *buf, unsigned size, unsigned count)
{
	uint8_t *p = buf;

	for (unsigned i = 0; i < count; i++, p += size) {
		uint64_t v = ne2000_read(opaque, offset, size);

		memcpy(p, &v, size);
	}
}

static void ne2000_write_string(
	void *opaque, uint64_t offset, const void *buf, unsigned size, unsigned count)
{
	const uint8_t *p = buf;

	for (unsigned i = 0; i < count; i++, p += size) {
		uint64_t v = 0;

		memcpy(&v, p, size);
		ne2000_write(opaque, offset, v, size);
	}
}

/* ------------------------------------------------------------------ life */

static void power_on(struct ne2000 *n)
{
	memset(n->ram, 0, sizeof(n->ram));
	n->dcr = n->rcr = n->tcr = n->tsr = n->rsr = 0;
	n->pstart = n->pstop = n->bnry = n->curr = n->tpsr = 0;
	n->tbcr = n->rsar = n->rbcr = 0;
	memcpy(n->par, n->mac, sizeof(n->par));
	memset(n->mar, 0, sizeof(n->mar));
	imr_write(n, 0);
	core_reset(n);
}

static void ne2000_reset(struct device *d)
{
	struct ne2000 *n = (struct ne2000 *)d;

	pthread_mutex_lock(&d->lock);
	power_on(n);
	pci_device_reset(&n->pci);
	pthread_mutex_unlock(&d->lock);
}

static void ne2000_quiesce(struct device *d)
{
	legacy_net_quiesce(((struct ne2000 *)d)->net);
}

static void ne2000_resume(struct device *d)
{
	legacy_net_resume(((struct ne2000 *)d)->net);
}

/* The single-byte registers, in the order in which they are saved. */
static void state_bytes(struct ne2000 *n, uint8_t *regs[13])
{
	uint8_t *const all[13] = {&n->cr, &n->isr, &n->imr, &n->dcr, &n->rcr, &n->tcr, &n->tsr,
		&n->rsr, &n->pstart, &n->pstop, &n->bnry, &n->curr, &n->tpsr};

	memcpy(regs, all, sizeof(all));
}

static void ne2000_save(struct device *d, struct state_writer *w)
{
	struct ne2000 *n = (struct ne2000 *)d;
	uint8_t *regs[13];

	state_section_begin(w, d->name, 1);
	state_bytes(n, regs);
	for (unsigned i = 0; i < 13; i++)
		state_put_u8(w, *regs[i]);
	state_put_u16(w, n->tbcr);
	state_put_u16(w, n->rsar);
	state_put_u16(w, n->rbcr);
	state_put_bytes(w, n->mac, sizeof(n->mac));
	state_put_bytes(w, n->par, sizeof(n->par));
	state_put_bytes(w, n->mar, sizeof(n->mar));
	state_put_bytes(w, n->ram, sizeof(n->ram));
	state_section_end(w);
	pci_device_save(&n->pci, w);
}

static void prom_fill(struct ne2000 *n)
{
	memset(n->prom, 0x57, sizeof(n->prom));
	for (unsigned i = 0; i < 6; i++)
		n->prom[2 * i] = n->prom[2 * i + 1] = n->mac[i];
}

/* Any register value is one a guest could have written: uses check them, so loading needs not. */
static void ne2000_load(struct device *d, struct state_reader *r)
{
	struct ne2000 *n = (struct ne2000 *)d;
	uint8_t *regs[13], imr;

	if (!state_section_enter(r, d->name, 1))
		return;
	state_bytes(n, regs);
	for (unsigned i = 0; i < 13; i++)
		*regs[i] = state_get_u8(r);
	n->tbcr = state_get_u16(r);
	n->rsar = state_get_u16(r);
	n->rbcr = state_get_u16(r);
	state_get_bytes(r, n->mac, sizeof(n->mac));
	state_get_bytes(r, n->par, sizeof(n->par));
	state_get_bytes(r, n->mar, sizeof(n->mar));
	state_get_bytes(r, n->ram, sizeof(n->ram));
	state_section_leave(r);
	prom_fill(n);
	n->sending = false;
	n->cr &= (uint8_t)~CR_TXP;
	pci_device_load(&n->pci, r);
	imr = n->imr;
	imr_write(n, imr);
}

static void ne2000_destroy(struct device *d)
{
	struct ne2000 *n = (struct ne2000 *)d;

	legacy_net_close(n->net);
	pci_device_free(&n->pci);
	free(n);
}

static const struct device_ops ne2000_ops = {
	.reset = ne2000_reset,
	.quiesce = ne2000_quiesce,
	.resume = ne2000_resume,
	.save = ne2000_save,
	.load = ne2000_load,
	.destroy = ne2000_destroy,
};

static const struct pci_ops ne2000_pci_ops = {0};

int ne2000_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX])
{
	struct ne2000 *n = calloc(1, sizeof(*n));
	const struct legacy_net_callbacks cb = {
		.receive_room = net_receive_room,
		.received = net_received,
		.sent = net_sent,
		.ctx = n,
	};
	struct pci_bar *bar;
	int err;

	if (!n)
		return -ENOMEM;
	memcpy(n->mac, args->mac, sizeof(n->mac));
	prom_fill(n);
	err = legacy_net_open(&n->net, args->io, args->port, &cb, why);
	if (err) {
		free(n);
		return err;
	}
	device_add(m, &n->dev, &ne2000_ops, args->name);
	pci_init(&n->pci, m, &n->dev.lock, 0x10ec, 0x8029, 0x020000, 0, 0x10ec, 0x8029, 1);
	n->pci.ops = &ne2000_pci_ops;
	n->pci.counters = &n->dev.counters;
	bar = pci_bar_init(&n->pci, 0, NE_PORTS, true);
	bar->region.read = ne2000_read;
	bar->region.write = ne2000_write;
	bar->region.read_string = ne2000_read_string;
	bar->region.write_string = ne2000_write_string;
	bar->region.opaque = n;
	bar->region.posted = ne2000_posted;
	power_on(n);
	err = pci_add(&n->pci, -1, 0);
	*out = &n->dev;
	return err;
}
