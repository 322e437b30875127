/* SPDX-License-Identifier: BSD-2-Clause */
/* NE2000: registers, interrupts and life. Frames are in ne2000_frames.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/ne2000_priv.h"

static const struct bus_span ne2000_posted[] = {{0x04, 3}, {0x08, 4}, {NE_DATA_PORT, 8}, {0, 0}};
/* While the end of remote DMA may interrupt, the last word of the data port must be seen at once.
 */
static const struct bus_span ne2000_posted_rdc[] = {{0x04, 3}, {0x08, 4}, {0, 0}};

void ne2000_irq_update(struct ne2000 *n)
{
	pci_intx_set(&n->pci, (n->isr & n->imr & 0x7f) != 0);
}

void ne2000_isr_raise(struct ne2000 *n, uint8_t bits)
{
	n->isr |= bits;
	ne2000_irq_update(n);
}

/* ------------------------------------------------------------------ registers */

static void imr_write(struct ne2000 *n, uint8_t v)
{
	n->imr = v & 0x7f;
	bus_posted_change(n->dev.machine, &n->pci.bars[0].region,
		n->imr & ISR_RDC ? ne2000_posted_rdc : ne2000_posted);
	ne2000_irq_update(n);
}

/* What a reset leaves alone is in the table of 11.0. A frame on its way still leaves. */
static void core_reset(struct ne2000 *n)
{
	n->cr = CR_STP | CR_RD_ABORT;
	n->isr = ISR_RST;
	n->tcr &= (uint8_t)~TCR_LOOPBACK;
	n->sending = false;
	imr_write(n, 0);
}

/* Starts what the remote DMA bits ask for. */
static void remote_command(struct ne2000 *n)
{
	unsigned rd = n->cr & CR_RD_MASK;

	if (rd == CR_RD_SEND) {
		/* send packet: remote read of the next frame in the ring (6.2.3) */
		n->rsar = (uint16_t)(n->bnry << 8);
		n->rbcr = (uint16_t)(ne2000_mem_read(n, (uint16_t)(n->rsar + 2)) |
				     ne2000_mem_read(n, (uint16_t)(n->rsar + 3)) << 8);
		n->cr = (uint8_t)((n->cr & ~CR_RD_MASK) | CR_RD_READ);
	}
	if ((rd & (CR_RD_READ | CR_RD_WRITE)) && !(rd & CR_RD_ABORT) && !n->rbcr)
		ne2000_isr_raise(n, ISR_RDC);
}

/*
 * STP and STA set the state; with neither it stays what it was (10.3), as drivers rely on that only
 * change the page.
 */
static void command_write(struct ne2000 *n, uint8_t v)
{
	uint8_t state = n->cr & (CR_STP | CR_STA), txp = n->cr & CR_TXP;
	bool was_stopped = state & CR_STP;

	if (v & CR_STP)
		state = CR_STP;
	else if (v & CR_STA)
		state = CR_STA;
	n->cr = (uint8_t)((v & ~(CR_TXP | CR_STP | CR_STA)) | txp | state);
	if (state & CR_STP)
		n->isr |= ISR_RST;
	else
		n->isr &= (uint8_t)~ISR_RST;
	remote_command(n);
	if (state & CR_STP)
		return;
	if ((v & CR_TXP) && !txp) {
		n->cr |= CR_TXP;
		counter_add(&n->dev.counters.doorbells, 1);
		ne2000_transmit(n);
	}
	if (was_stopped)
		legacy_net_rx_resume(n->net);
}

static void page0_write(struct ne2000 *n, unsigned reg, uint8_t v)
{
	switch (reg) {
	case 0x01:
		n->pstart = v;
		legacy_net_rx_resume(n->net);
		break;
	case 0x02:
		n->pstop = v;
		legacy_net_rx_resume(n->net);
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
		ne2000_isr_acknowledge(n, v & 0x7f);
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
	else if (page == 1 && reg == 7) {
		n->curr = v;
		legacy_net_rx_resume(n->net);
	} else if (page == 1) {
		n->mar[reg - 8] = v;
	}
}

static uint8_t page0_read(const struct ne2000 *n, unsigned reg)
{
	switch (reg) {
	case 0x02:
		return n->curr; /* local DMA rests at the start of a page */
	case 0x08:
		return (uint8_t)n->rsar;
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
		return ne2000_data_read(n, size);
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
		ne2000_data_write(n, (uint32_t)value, size);
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
	n->nloaded = 0;
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
	struct ne2000 *n = (struct ne2000 *)d;

	/* a card that could not be made whole has none */
	if (n->net)
		legacy_net_quiesce(n->net);
}

static void ne2000_resume(struct device *d)
{
	struct ne2000 *n = (struct ne2000 *)d;

	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < n->nloaded; i++)
		(void)legacy_net_queue(n->net, n->loaded[i].frame, n->loaded[i].len);
	n->nloaded = 0;
	pthread_mutex_unlock(&d->lock);
	legacy_net_resume(n->net);
}

/* The single-byte registers, in the order in which they are saved. */
static void state_bytes(struct ne2000 *n, uint8_t *regs[13])
{
	uint8_t *const all[13] = {&n->cr, &n->isr, &n->imr, &n->dcr, &n->rcr, &n->tcr, &n->tsr,
		&n->rsr, &n->pstart, &n->pstop, &n->bnry, &n->curr, &n->tpsr};

	memcpy(regs, all, sizeof(all));
}

/* What a full port did not take yet. */
static void frames_save(struct ne2000 *n, struct state_writer *w)
{
	unsigned waiting = legacy_net_waiting(n->net);
	uint32_t len;

	waiting = waiting < NE_FIFO ? waiting : NE_FIFO;
	/* loaded and not yet queued: a machine saved before it ever ran */
	state_put_u8(w, (uint8_t)(n->nloaded ? n->nloaded : waiting));
	for (unsigned i = 0; i < n->nloaded; i++) {
		state_put_u16(w, (uint16_t)n->loaded[i].len);
		state_put_bytes(w, n->loaded[i].frame, n->loaded[i].len);
	}
	for (unsigned i = 0; i < waiting && !n->nloaded; i++) {
		const void *frame = legacy_net_frame(n->net, i, &len);

		state_put_u16(w, (uint16_t)len);
		state_put_bytes(w, frame, len);
	}
	state_put_u8(w, n->sending);
}

static void frames_load(struct ne2000 *n, struct state_reader *r)
{
	n->nloaded = state_get_u8(r);
	if (n->nloaded > NE_FIFO)
		r->error = r->error ? r->error : -EINVAL;
	for (unsigned i = 0; i < n->nloaded && !r->error; i++) {
		n->loaded[i].len = state_get_u16(r);
		if (!n->loaded[i].len || n->loaded[i].len > NE_FRAME_MAX) {
			r->error = -EINVAL;
			break;
		}
		state_get_bytes(r, n->loaded[i].frame, n->loaded[i].len);
	}
	n->sending = state_get_u8(r);
	if (r->error)
		n->nloaded = 0;
	/* it waits for them: without them nothing would end the wait */
	n->sending = n->sending && n->nloaded;
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
	frames_save(n, w);
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
	uint8_t *regs[13];

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
	frames_load(n, r);
	state_section_leave(r);
	prom_fill(n);
	n->cr = (uint8_t)((n->cr & ~CR_TXP) | (n->sending ? CR_TXP : 0));
	pci_device_load(&n->pci, r);
	imr_write(n, n->imr);
	legacy_net_rx_resume(n->net);
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
		.receive_room = ne2000_receive_room,
		.received = ne2000_received,
		.sent = ne2000_sent,
		.ctx = n,
	};
	struct pci_bar *bar;
	int err;

	if (!n)
		return -ENOMEM;
	memcpy(n->mac, args->mac, sizeof(n->mac));
	prom_fill(n);
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
	*out = &n->dev;
	err = pci_add(&n->pci, -1, 0);
	/* last: frames may come before this returns */
	if (!err)
		err = legacy_net_open(&n->net, args->io, args->port, &cb, why);
	return err;
}
