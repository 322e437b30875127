/* SPDX-License-Identifier: BSD-2-Clause */
/* RTL8139: registers, the serial EEPROM, interrupts, life. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#include "vmm/rtl8139_priv.h"

#define VERSION_C     0x74000000u /* TCR's hardware version: RTL8139C */
#define TCR_WRITABLE  0x030707f0u
#define RCR_WRITABLE  0x0f03ffbfu
#define CONFIG_UNLOCK 0xc0u /* 9346CR: the configuration registers may be written */
#define EEPROM_MODE   0x80u
#define EE_CS         0x08u
#define EE_SK         0x04u
#define EE_DI         0x02u
#define EE_DO         0x01u
#define EE_READ       0x2u
#define TCTR_HZ       33000000ull
#define BMSR_LINK     0x0004u
#define BMSR_DONE     0x0020u
#define BMSR_FIXED    0x7809u
#define MSR_NO_LINK   0x04u
#define STATE_VERSION 1u

/* ------------------------------------------------------------------ the register file */

uint32_t rtl_get(const struct rtl8139 *e, unsigned reg, unsigned size)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint32_t)e->regs[reg + i] << (8 * i);
	return v;
}

void rtl_put(struct rtl8139 *e, unsigned reg, uint32_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		e->regs[reg + i] = (uint8_t)(v >> (8 * i));
}

bool rtl_is_master(const struct rtl8139 *e)
{
	return e->pci.config[0x04] & 0x04;
}

void rtl_irq_update(struct rtl8139 *e)
{
	pci_intx_set(&e->pci, rtl_get(e, RTL_ISR, 2) & rtl_get(e, RTL_IMR, 2));
}

void rtl_raise(struct rtl8139 *e, uint16_t bits)
{
	rtl_put(e, RTL_ISR, rtl_get(e, RTL_ISR, 2) | bits, 2);
	rtl_irq_update(e);
}

/* ------------------------------------------------------------------ the EEPROM */

static void eeprom_fill(struct rtl8139 *e)
{
	uint16_t *w = e->eeprom.words;

	memset(w, 0, sizeof(e->eeprom.words));
	w[0] = 0x8129; /* its signature; then what PCI shows */
	w[1] = 0x10ec;
	w[2] = 0x8139;
	w[3] = 0x10ec;
	w[4] = 0x8139;
	w[5] = 0x4020;
	w[6] = 0xe112;
	for (unsigned i = 0; i < 3; i++)
		w[7 + i] = (uint16_t)(e->mac[2 * i] | e->mac[2 * i + 1] << 8);
}

/*
 * 93C46: a start bit, two bits of command and six of address come in with SK's rising edges; a word
 * that is read goes out, its highest bit first, after a zero. Nothing else does anything.
 */
static void eeprom_clock(struct rtl_eeprom *p, bool di)
{
	if (p->out) {
		p->bit = p->shift >> 15;
		p->shift = (uint16_t)(p->shift << 1);
		return;
	}
	if (!p->bits && !di)
		return; /* no start bit yet */
	p->shift = (uint16_t)(p->shift << 1 | di);
	if (++p->bits < 9)
		return;
	p->bits = 0;
	if ((p->shift >> 6 & 3) == EE_READ) {
		p->out = true;
		p->bit = false;
		p->shift = p->words[p->shift & 63];
	} else {
		p->shift = 0;
	}
}

static void eeprom_lines(struct rtl_eeprom *p, uint8_t lines)
{
	if (!(lines & EE_CS)) {
		p->out = false;
		p->bits = 0;
		p->shift = 0;
		p->bit = true;
	} else if (lines & EE_SK && !(p->lines & EE_SK)) {
		eeprom_clock(p, lines & EE_DI);
	}
	p->lines = lines & (EE_CS | EE_SK | EE_DI);
}

/* ------------------------------------------------------------------ reset */

static void link_show(struct rtl8139 *e)
{
	rtl_put(e, RTL_BMSR, BMSR_FIXED | (e->cable ? BMSR_LINK | BMSR_DONE : 0), 2);
	rtl_put(e, RTL_ANLPAR, e->cable ? 0x45e1 : 0, 2);
	e->regs[RTL_MSR] = e->cable ? 0 : MSR_NO_LINK;
}

/* CR.RST: what is sent and received begins anew; addresses and configuration stay (5.7). */
static void core_reset(struct rtl8139 *e)
{
	e->tx_next = e->tx_pending = 0;
	for (unsigned i = 0; i < RTL_TX; i++)
		rtl_put(e, RTL_TSD + 4 * i, TSD_OWN, 4);
	e->regs[RTL_CR] = 0;
	rtl_put(e, RTL_CAPR, 0xfff0, 2);
	rtl_put(e, RTL_CBR, 0, 2);
	rtl_put(e, RTL_IMR, 0, 2);
	rtl_put(e, RTL_ISR, 0, 2);
	rtl_put(e, RTL_TCR, VERSION_C, 4);
	rtl_put(e, RTL_RCR, 0, 4);
	rtl_put(e, RTL_MPC, 0, 4);
	e->tctr_zero_ns = clock_now_ns();
	rtl_irq_update(e);
}

static void power_on(struct rtl8139 *e)
{
	memset(e->regs, 0, sizeof(e->regs));
	memcpy(e->regs + RTL_IDR, e->mac, 6);
	memset(e->regs + RTL_MAR, 0xff, 8);
	eeprom_fill(e);
	eeprom_lines(&e->eeprom, 0);
	e->regs[RTL_CONFIG1] = 0x0c; /* both spaces are decoded */
	rtl_put(e, RTL_BMCR, 0x1000, 2);
	rtl_put(e, RTL_ANAR, 0x05e1, 2);
	rtl_put(e, RTL_ANER, 0x0001, 2);
	link_show(e);
	core_reset(e);
}

/* ------------------------------------------------------------------ reads */

/* 5.13: four bits of each descriptor, side by side. */
static uint16_t summary_get(const struct rtl8139 *e)
{
	uint16_t v = 0;

	for (unsigned i = 0; i < RTL_TX; i++) {
		uint32_t tsd = rtl_get(e, RTL_TSD + 4 * i, 4);

		v |= (uint16_t)((tsd & TSD_OWN ? 1u : 0) << i | (tsd & TSD_TOK ? 1u : 0)
									<< (12 + i));
	}
	return v;
}

static uint8_t byte_read(struct rtl8139 *e, unsigned reg)
{
	uint64_t ticks;

	switch (reg) {
	case RTL_CR:
		return e->regs[RTL_CR] | (rtl_rx_empty(e) ? CR_BUFE : 0);
	case RTL_9346CR:
		return (uint8_t)((e->regs[RTL_9346CR] & 0xc0) | e->eeprom.lines |
				 (e->eeprom.bit ? EE_DO : 0));
	case RTL_TCTR:
	case RTL_TCTR + 1:
	case RTL_TCTR + 2:
	case RTL_TCTR + 3:
		ticks = (clock_now_ns() - e->tctr_zero_ns) * (TCTR_HZ / 1000000) / 1000;
		return (uint8_t)(ticks >> (8 * (reg - RTL_TCTR)));
	case RTL_TSUMMARY:
	case RTL_TSUMMARY + 1:
		return (uint8_t)(summary_get(e) >> (8 * (reg - RTL_TSUMMARY)));
	default:
		return e->regs[reg];
	}
}

static uint64_t rtl_read(void *opaque, uint64_t offset, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size && offset + i < RTL_SPACE; i++)
		v |= (uint64_t)byte_read(opaque, (unsigned)offset + i) << (8 * i);
	return v;
}

/* ------------------------------------------------------------------ writes */

static void command_write(struct rtl8139 *e, uint8_t v)
{
	if (v & CR_RST) {
		core_reset(e);
		return;
	}
	e->regs[RTL_CR] = v & (CR_RE | CR_TE);
	if (!(v & CR_TE)) {
		e->tx_next = e->tx_pending = 0;
	}
	legacy_net_kick(e->net);
	legacy_net_rx_resume(e->net);
}

static void descriptor_write(struct rtl8139 *e, unsigned i, uint32_t v)
{
	rtl_put(e, RTL_TSD + 4 * i, v & (TSD_KEPT | TSD_OWN), 4);
	/* OWN says that the guest has it; without, it is to be sent */
	if (v & TSD_OWN || !(e->regs[RTL_CR] & CR_TE))
		return;
	e->tx_pending |= (uint8_t)(1u << i);
	counter_add(&e->dev.counters.doorbells, 1);
	posted_ring(&e->posted);
	legacy_net_kick(e->net);
}

static void phy_command_write(struct rtl8139 *e, uint16_t v)
{
	/* a reset, or another negotiation, is over at once */
	rtl_put(e, RTL_BMCR, v & 0x8000 ? 0x1000 : v & 0x3d00, 2);
}

/*
 * Drivers acknowledge what came while they found nothing, relying on the next frame to interrupt
 * again (Linux). Into a full ring none comes, for those that wait are kept: so a ring that is full
 * says once more that it has been received into.
 */
static void rtl_acknowledge(struct rtl8139 *e, uint16_t bits)
{
	uint32_t isr = rtl_get(e, RTL_ISR, 2) & ~(uint32_t)bits;

	if (bits & ISR_ROK && e->regs[RTL_CR] & CR_RE && !rtl_rx_roomy(e))
		isr |= ISR_ROK;
	rtl_put(e, RTL_ISR, isr, 2);
	rtl_irq_update(e);
}

static void word_write(struct rtl8139 *e, unsigned reg, uint16_t v)
{
	switch (reg) {
	case RTL_CAPR:
		rtl_put(e, reg, v, 2);
		legacy_net_rx_resume(e->net);
		break;
	case RTL_IMR:
		rtl_put(e, reg, v & ISR_ALL, 2);
		rtl_irq_update(e);
		break;
	case RTL_ISR:
		rtl_acknowledge(e, v);
		break;
	case RTL_BMCR:
		phy_command_write(e, v);
		break;
	case RTL_ANAR:
	case RTL_MULINT:
		rtl_put(e, reg, v, 2);
		break;
	default:
		break;
	}
}

static void byte_write(struct rtl8139 *e, unsigned reg, uint8_t v)
{
	switch (reg) {
	case RTL_CR:
		command_write(e, v);
		break;
	case RTL_9346CR:
		e->regs[reg] = v & 0xc0;
		eeprom_lines(&e->eeprom, (v & 0xc0) == EEPROM_MODE ? v : 0);
		break;
	case RTL_CONFIG0:
	case RTL_CONFIG1:
	case RTL_CONFIG3:
	case RTL_CONFIG4:
	case RTL_CONFIG5:
		if ((e->regs[RTL_9346CR] & 0xc0) == CONFIG_UNLOCK)
			e->regs[reg] = v;
		break;
	default:
		/* the station's address only unlocked, the filter always */
		if (reg < RTL_IDR + 6 && (e->regs[RTL_9346CR] & 0xc0) == CONFIG_UNLOCK)
			e->regs[reg] = v;
		if (reg >= RTL_MAR && reg < RTL_MAR + 8)
			e->regs[reg] = v;
	}
}

/* True: a register that is written as a whole, 32 bits. */
static bool long_write(struct rtl8139 *e, unsigned reg, uint32_t v)
{
	if (reg >= RTL_TSD && reg < RTL_TSAD) {
		descriptor_write(e, (reg - RTL_TSD) / 4, v);
	} else if (reg >= RTL_TSAD && reg < RTL_TSAD + 4 * RTL_TX) {
		rtl_put(e, reg, v, 4);
	} else if (reg == RTL_RBSTART) {
		/* another ring is read and written from its beginning */
		rtl_put(e, reg, v, 4);
		rtl_put(e, RTL_CBR, 0, 2);
		rtl_put(e, RTL_CAPR, 0xfff0, 2);
	} else if (reg == RTL_TCR) {
		rtl_put(e, reg, VERSION_C | (v & TCR_WRITABLE), 4);
	} else if (reg == RTL_RCR) {
		rtl_put(e, reg, v & RCR_WRITABLE, 4);
		legacy_net_rx_resume(e->net);
	} else if (reg == RTL_TCTR) {
		e->tctr_zero_ns = clock_now_ns();
	} else if (reg == RTL_MPC) {
		rtl_put(e, reg, 0, 4);
	} else {
		return false;
	}
	return true;
}

/* The parts of a wide register that a narrow write leaves are as they were. */
static bool long_register(unsigned reg)
{
	return (reg >= RTL_TSD && reg < RTL_RBSTART + 4) || (reg >= RTL_TCR && reg < RTL_9346CR);
}

static bool word_register(unsigned reg)
{
	return (reg >= RTL_CAPR && reg < RTL_TCR) || (reg >= RTL_MULINT && reg < RTL_MULINT + 2) ||
	       (reg >= RTL_TSUMMARY && reg < RTL_ANER + 2);
}

static void narrow_write(struct rtl8139 *e, unsigned reg, uint32_t v, unsigned size)
{
	unsigned whole = reg & ~3u;
	uint32_t old = rtl_get(e, whole, 4), shift = 8 * (reg & 3);
	uint32_t mask = (size < 4 ? (1u << (8 * size)) - 1 : ~0u) << shift;

	long_write(e, whole, (old & ~mask) | (v << shift & mask));
}

static void rtl_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct rtl8139 *e = opaque;
	unsigned reg = (unsigned)offset;

	if (long_register(reg) && (reg & 3) + size <= 4) {
		narrow_write(e, reg, (uint32_t)value, size);
		return;
	}
	for (unsigned i = 0; i < size && reg + i < RTL_SPACE;) {
		uint64_t v = value >> (8 * i);

		if (word_register(reg + i) && size - i >= 2 && !((reg + i) & 1)) {
			word_write(e, reg + i, (uint16_t)v);
			i += 2;
		} else {
			/* half a word register changes, or clears, its half */
			if (word_register(reg + i))
				word_write(e, (reg + i) & ~1u,
					(uint16_t)((reg + i) & 1 ? (v & 0xff) << 8
						   : ((reg + i) & ~1u) == RTL_ISR
							   ? v & 0xff
							   : (v & 0xff) | (e->regs[(reg + i) | 1]
										  << 8)));
			else
				byte_write(e, reg + i, (uint8_t)v);
			i++;
		}
	}
}

/* ------------------------------------------------------------------ life */

static void rtl_link(void *ctx, bool up)
{
	struct rtl8139 *e = ctx;

	pthread_mutex_lock(&e->dev.lock);
	if (e->cable != up) {
		e->cable = up;
		link_show(e);
		rtl_raise(e, ISR_LINK);
	}
	pthread_mutex_unlock(&e->dev.lock);
	if (up)
		legacy_net_rx_resume(e->net);
}

static void rtl_reset(struct device *d)
{
	struct rtl8139 *e = (struct rtl8139 *)d;

	pthread_mutex_lock(&d->lock);
	power_on(e);
	pci_device_reset(&e->pci);
	pthread_mutex_unlock(&d->lock);
}

static void rtl_quiesce(struct device *d)
{
	struct rtl8139 *e = (struct rtl8139 *)d;

	/* a card that could not be made whole has none */
	if (e->net)
		legacy_net_quiesce(e->net);
}

static void rtl_resume(struct device *d)
{
	struct rtl8139 *e = (struct rtl8139 *)d;

	legacy_net_resume(e->net);
	legacy_net_kick(e->net);
	legacy_net_rx_resume(e->net);
}

static void rtl_save(struct device *d, struct state_writer *w)
{
	struct rtl8139 *e = (struct rtl8139 *)d;

	state_section_begin(w, d->name, STATE_VERSION);
	state_put_bytes(w, e->mac, sizeof(e->mac));
	state_put_bytes(w, e->regs, sizeof(e->regs));
	state_put_u8(w, e->tx_next);
	state_put_u8(w, e->tx_pending);
	state_put_u64(w, clock_now_ns() - e->tctr_zero_ns);
	state_put_u16(w, e->eeprom.shift);
	state_put_u8(w, e->eeprom.bits);
	state_put_u8(w, e->eeprom.lines);
	state_put_u8(w, e->eeprom.out);
	state_put_u8(w, e->eeprom.bit);
	state_section_end(w);
	pci_device_save(&e->pci, w);
}

/* Any register value is one a guest could have written: uses check them. */
static void rtl_load(struct device *d, struct state_reader *r)
{
	struct rtl8139 *e = (struct rtl8139 *)d;

	if (!state_section_enter(r, d->name, STATE_VERSION))
		return;
	state_get_bytes(r, e->mac, sizeof(e->mac));
	state_get_bytes(r, e->regs, sizeof(e->regs));
	e->tx_next = state_get_u8(r) % RTL_TX;
	e->tx_pending = state_get_u8(r) & 0x0f;
	e->tctr_zero_ns = clock_now_ns() - state_get_u64(r);
	e->eeprom.shift = state_get_u16(r);
	e->eeprom.bits = state_get_u8(r) % 9;
	e->eeprom.lines = state_get_u8(r) & (EE_CS | EE_SK | EE_DI);
	e->eeprom.out = state_get_u8(r) & 1;
	e->eeprom.bit = state_get_u8(r) & 1;
	state_section_leave(r);
	eeprom_fill(e);
	link_show(e);
	pci_device_load(&e->pci, r);
	rtl_irq_update(e);
	legacy_net_rx_resume(e->net);
}

static void rtl_destroy(struct device *d)
{
	struct rtl8139 *e = (struct rtl8139 *)d;

	posted_stop(&e->posted);
	legacy_net_close(e->net);
	pci_device_free(&e->pci);
	free(e);
}

static const struct device_ops rtl_ops = {
	.reset = rtl_reset,
	.quiesce = rtl_quiesce,
	.resume = rtl_resume,
	.save = rtl_save,
	.load = rtl_load,
	.destroy = rtl_destroy,
};

/* Bus mastering may be turned on: what waits for that is looked at again. */
static bool config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
	struct rtl8139 *e = (struct rtl8139 *)((char *)pci - offsetof(struct rtl8139, pci));

	(void)size;
	(void)value;
	if ((offset & ~3u) == 4) {
		legacy_net_kick(e->net);
		legacy_net_rx_resume(e->net);
	}
	return false;
}

static const struct pci_ops rtl_pci_ops = {.config_write = config_write};

/* Where a frame is may always wait for the next exit; the doorbells (a descriptor's status, and how
 * far the guest has read) only for a thread that looks. */
static const struct bus_span posted_seldom[] = {{RTL_TSAD, 4 * RTL_TX}, {0, 0}};
static const struct bus_span posted_often[] = {
	{RTL_TSD, 4 * RTL_TX}, {RTL_TSAD, 4 * RTL_TX}, {RTL_CAPR, 2}, {0, 0}};

static void rtl_bar(struct rtl8139 *e, unsigned i, uint32_t size, bool io)
{
	struct pci_bar *bar = pci_bar_init(&e->pci, i, size, io);

	bar->region.read = rtl_read;
	bar->region.write = rtl_write;
	bar->region.opaque = e;
	posted_region_add(&e->posted, &bar->region, posted_seldom, posted_often);
}

int rtl8139_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX])
{
	struct rtl8139 *e = calloc(1, sizeof(*e));
	const struct legacy_net_callbacks cb = {
		.receive_room = rtl_receive_room,
		.received = rtl_received,
		.transmit = rtl_transmit,
		.link = rtl_link,
		.ctx = e,
	};
	int err;

	if (!e)
		return -ENOMEM;
	memcpy(e->mac, args->mac, sizeof(e->mac));
	device_add(m, &e->dev, &rtl_ops, args->name);
	pci_init(&e->pci, m, &e->dev.lock, 0x10ec, 0x8139, 0x020000, 0x10, 0x10ec, 0x8139, 1);
	e->pci.ops = &rtl_pci_ops;
	e->pci.counters = &e->dev.counters;
	rtl_bar(e, 0, RTL_SPACE, true);
	rtl_bar(e, 1, 4096, false); /* 256 bytes of it, as all that is mapped is pages */
	e->cable = net_port_link(args->port);
	power_on(e);
	*out = &e->dev;
	err = pci_add(&e->pci, -1, 0);
	/* last: frames may come before this returns */
	if (!err)
		err = legacy_net_open(&e->net, args->io, args->port, &cb, why);
	if (err)
		return err;
	pthread_mutex_lock(&e->dev.lock);
	e->cable = legacy_net_link(e->net);
	link_show(e);
	pthread_mutex_unlock(&e->dev.lock);
	return posted_start(&e->posted, m, args->io);
}
