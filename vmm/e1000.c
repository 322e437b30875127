/* SPDX-License-Identifier: BSD-2-Clause */
/* 82540EM: registers, EEPROM, PHY and life. The rings are in e1000_tx.c and e1000_rx.c, interrupts
 * in e1000_irq.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/e1000_priv.h"

#define EEPROM_SUM         0xbabau
#define EE_OP_BITS         9u /* start bit, two of opcode, six of address */
#define EE_OP_READ         6u
#define MDIC_OP_WRITE      1u
#define MDIC_OP_READ       2u
#define MDIC_READY         (1u << 28)
#define MDIC_ERROR         (1u << 30)
#define MDIC_I             (1u << 29)
#define EERD_START         (1u << 0)
#define EERD_DONE          (1u << 4)
#define PHY_CTRL           0u
#define PCI_COMMAND        0x04u
#define PCI_COMMAND_MASTER 0x04u
#define PHY_RESET          0x8000u
#define PHY_AN_ENABLE      0x1000u
#define PHY_AN_RESTART     0x0200u
#define DELAY_FPD          (1u << 31)
#define VLAN_TYPE          0x8100u

/* ------------------------------------------------------------------ statistics */

void e1000_stat_add(struct e1000 *e, unsigned reg, uint32_t n)
{
	e->regs[reg / 4] += n;
}

/* Octets are counted in 64 bits, two registers (manual 13.7). */
static void stat_add64(struct e1000 *e, unsigned reg, uint32_t n)
{
	uint32_t low = e->regs[reg / 4] + n;

	e->regs[reg / 4 + 1] += low < n;
	e->regs[reg / 4] = low;
}

void e1000_stat_frame(struct e1000 *e, const uint8_t *frame, uint32_t len, bool sent)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint16_t sizes[] = {64, 127, 255, 511, 1023};
	unsigned size = 0;

	len += E1000_CRC;
	while (size < sizeof(sizes) / sizeof(sizes[0]) && len > sizes[size])
		size++;
	e1000_stat_add(e, (sent ? REG_PTC64 : REG_PRC64) + 4 * size, 1);
	e1000_stat_add(e, sent ? REG_GPTC : REG_GPRC, 1);
	e1000_stat_add(e, sent ? REG_TPT : REG_TPR, 1);
	stat_add64(e, sent ? REG_GOTCL : REG_GORCL, len);
	stat_add64(e, sent ? REG_TOTL : REG_TORL, len);
	if (!memcmp(frame, broadcast, 6))
		e1000_stat_add(e, sent ? REG_BPTC : REG_BPRC, 1);
	else if (frame[0] & 1)
		e1000_stat_add(e, sent ? REG_MPTC : REG_MPRC, 1);
}

bool e1000_is_master(const struct e1000 *e)
{
	return e->pci.config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

bool e1000_is_loopback(const struct e1000 *e)
{
	return e1000_reg(e, REG_RCTL) & RCTL_LBM || e->phy[PHY_CTRL] & PHY_CTRL_LOOPBACK;
}

struct e1000_ring e1000_ring_get(const struct e1000 *e, unsigned base_reg)
{
	struct e1000_ring r = {
		.base = (e1000_reg(e, base_reg) & ~15ull) | (uint64_t)e1000_reg(e, base_reg + 4)
								    << 32,
		.n = (e1000_reg(e, base_reg + 8) & 0xfff80) / E1000_DESC,
		.head = e1000_reg(e, base_reg + 0x10) & 0xffff,
		.tail = e1000_reg(e, base_reg + 0x18) & 0xffff,
	};

	if (r.head >= r.n || r.tail >= r.n)
		r.n = 0;
	return r;
}

/* ------------------------------------------------------------------ EEPROM and PHY */

void e1000_eeprom_fill(struct e1000 *e)
{
	uint16_t sum = 0;

	memset(e->eeprom, 0, sizeof(e->eeprom));
	for (unsigned i = 0; i < 3; i++)
		e->eeprom[i] = (uint16_t)(e->mac[2 * i] | e->mac[2 * i + 1] << 8);
	e->eeprom[0x0a] = 0x6a00; /* load the subsystem ids; manual 5.6.8 */
	e->eeprom[0x0b] = 0x100e;
	e->eeprom[0x0c] = 0x8086;
	e->eeprom[0x0d] = 0x100e;
	e->eeprom[0x0e] = 0x8086;
	e->eeprom[0x0f] = 0x3040;
	for (unsigned i = 0; i < E1000_EEPROM_SIZE - 1; i++)
		sum = (uint16_t)(sum + e->eeprom[i]);
	e->eeprom[E1000_EEPROM_SIZE - 1] = (uint16_t)(EEPROM_SUM - sum);
}

/* Microwire by hand (manual 5.3.1): a rising clock shifts a bit in, and the next one out. */
static void eecd_write(struct e1000 *e, uint32_t v)
{
	bool clock = v & EECD_SK;
	uint32_t kept = e1000_reg(e, REG_EECD) & EECD_DO;

	if (!(v & EECD_CS)) {
		e->ee_in = 0;
		e->ee_bits = e->ee_out_bits = 0;
		kept = EECD_DO;
	} else if (clock && !e->ee_clock) {
		if (e->ee_out_bits) {
			kept = e->ee_out & 0x8000 ? EECD_DO : 0;
			e->ee_out = (uint16_t)(e->ee_out << 1);
			if (!--e->ee_out_bits) {
				/* while selected, the next word follows */
				e->ee_in++;
				e->ee_out = e->eeprom[e->ee_in & (E1000_EEPROM_SIZE - 1)];
				e->ee_out_bits = 16;
			}
		} else if (e->ee_bits < EE_OP_BITS) {
			/* leading zeros before the start bit do not count */
			e->ee_in = e->ee_in << 1 | (v & EECD_DI ? 1 : 0);
			if (e->ee_in)
				e->ee_bits++;
			if (e->ee_bits == EE_OP_BITS && e->ee_in >> 6 == EE_OP_READ) {
				e->ee_out = e->eeprom[e->ee_in & (E1000_EEPROM_SIZE - 1)];
				e->ee_out_bits = 16;
				kept = 0;
			}
		}
	}
	e->ee_clock = clock;
	e1000_reg_set(e, REG_EECD,
		(v & (EECD_SK | EECD_CS | EECD_DI | EECD_REQ)) | kept | EECD_PRES |
			(v & EECD_REQ ? EECD_GNT : 0));
}

static void eerd_write(struct e1000 *e, uint32_t v)
{
	uint32_t addr = v >> 8 & 0xff;

	if (!(v & EERD_START))
		return;
	e1000_reg_set(e, REG_EERD,
		(v & 0xff00) | EERD_DONE |
			(addr < E1000_EEPROM_SIZE ? (uint32_t)e->eeprom[addr] << 16 : 0));
}

/* IEEE 802.3 22.2.4.2: link status, negotiation complete. M88E1000 register 17: the link in real
 * time, resolved. */
static void phy_link_update(struct e1000 *e)
{
	bool up = e->cable;

	e->phy[1] = (uint16_t)((e->phy[1] & ~0x24u) | (up ? 0x24u : 0));
	e->phy[17] = (uint16_t)((e->phy[17] & ~0xc00u) | (up ? 0xc00u : 0));
}

/* The link is there when the driver has set it up and the port's is. */
static void link_update(struct e1000 *e)
{
	bool up = (e1000_reg(e, REG_CTRL) & CTRL_SLU) && e->cable;

	phy_link_update(e);
	e1000_reg_set(e, REG_STATUS,
		(e1000_reg(e, REG_STATUS) & ~(uint32_t)STATUS_LU) | (up ? STATUS_LU : 0));
}

void e1000_link_check(struct e1000 *e)
{
	uint32_t before = e1000_reg(e, REG_STATUS);

	link_update(e);
	if ((e1000_reg(e, REG_STATUS) ^ before) & STATUS_LU)
		e1000_interrupt(e, ICR_LSC);
}

static void e1000_link(void *ctx, bool up)
{
	struct e1000 *e = ctx;

	pthread_mutex_lock(&e->dev.lock);
	e->cable = up;
	e1000_link_check(e);
	pthread_mutex_unlock(&e->dev.lock);
}

/* M88E1000-compatible PHY at 1000 Mb/s full duplex (manual chapter 13.4.3 and IEEE 802.3 clause
 * 22). */
static void phy_reset(struct e1000 *e)
{
	static const uint16_t values[E1000_PHY_REGS] = {[0] = 0x1140,
		[1] = 0x796d,
		[2] = 0x0141,
		[3] = 0x0c20,
		[4] = 0x0de1,
		[5] = 0x45e1,
		[6] = 0x0001,
		[9] = 0x0e00,
		[10] = 0x3c00,
		[15] = 0x3000,
		[16] = 0x0360,
		[17] = 0xac00,
		[20] = 0x0d60};

	memcpy(e->phy, values, sizeof(e->phy));
	phy_link_update(e);
}

static void phy_write(struct e1000 *e, uint32_t reg, uint16_t v)
{
	if (reg == PHY_CTRL) {
		if (v & PHY_RESET)
			phy_reset(e);
		else
			e->phy[PHY_CTRL] = (uint16_t)(v & ~PHY_AN_RESTART);
		/* the link went away and came back: negotiation is over at once */
		if (v & PHY_RESET || (v & PHY_AN_RESTART && v & PHY_AN_ENABLE))
			e1000_interrupt(e, ICR_LSC);
		legacy_net_rx_resume(e->net);
	} else if (reg == 4 || reg == 9 || reg == 16 || reg == 18 || reg == 20 || reg >= 29) {
		e->phy[reg] = v;
	}
}

static void mdic_write(struct e1000 *e, uint32_t v)
{
	uint32_t reg = v >> 16 & 31, op = v >> 26 & 3;

	v &= ~(MDIC_READY | MDIC_ERROR);
	if ((v >> 21 & 31) != 1) {
		v |= MDIC_ERROR;
	} else if (op == MDIC_OP_READ) {
		v = (v & ~0xffffu) | e->phy[reg];
	} else if (op == MDIC_OP_WRITE) {
		phy_write(e, reg, (uint16_t)v);
	}
	e1000_reg_set(e, REG_MDIC, v | MDIC_READY);
	if (v & MDIC_I)
		e1000_interrupt(e, ICR_MDAC);
}

/* ------------------------------------------------------------------ registers */

static void core_reset(struct e1000 *e)
{
	memset(e->regs, 0, sizeof(e->regs));
	e1000_reg_set(e, REG_CTRL, CTRL_SLU | 1u | 2u << 8);
	e1000_reg_set(e, REG_STATUS, STATUS_FD | STATUS_SPEED_1000);
	link_update(e);
	e1000_reg_set(e, REG_EECD, EECD_PRES | EECD_DO);
	e1000_reg_set(e, REG_PBA, 0x00100030);
	e1000_reg_set(e, REG_TIPG, 0x00602008);
	e1000_reg_set(e, REG_VET, VLAN_TYPE);
	e1000_reg_set(e, REG_LEDCTL, 0x07068302);
	e1000_reg_set(e, REG_RA,
		(uint32_t)(e->mac[0] | e->mac[1] << 8 | e->mac[2] << 16) | (uint32_t)e->mac[3]
										   << 24);
	e1000_reg_set(e, REG_RA + 4, (uint32_t)(e->mac[4] | e->mac[5] << 8) | 1u << 31);
	e->ee_in = 0;
	e->ee_bits = e->ee_out_bits = 0;
	e->ee_clock = false;
	e1000_interrupts_forget(e);
	e1000_frame_forget(e);
	memset(&e->context, 0, sizeof(e->context));
	e1000_irq_update(e);
}

static void ctrl_write(struct e1000 *e, uint32_t v)
{
	if (v & CTRL_RST) {
		core_reset(e);
		return;
	}
	if (v & CTRL_PHY_RST)
		phy_reset(e);
	e1000_reg_set(e, REG_CTRL, v & ~(CTRL_RST | CTRL_PHY_RST));
	e1000_link_check(e);
	legacy_net_rx_resume(e->net);
}

/* Registers that simply keep what is written. */
static bool register_kept(uint32_t reg)
{
	static const uint16_t kept[] = {REG_CTRL_EXT, REG_FCAL, REG_FCAL + 4, REG_FCAL + 8,
		REG_FCTTV, REG_VET, REG_ITR, REG_TXCW, REG_TIPG, REG_AIT, REG_LEDCTL, REG_PBA,
		REG_FCRTL, REG_FCRTH, REG_RDBAL, REG_RDBAH, REG_RXDCTL, REG_RADV, REG_TDBAL,
		REG_TDBAH, REG_TDLEN, REG_TXDCTL, REG_TADV, REG_RXCSUM, REG_WUC, REG_WUFC,
		REG_MANC};

	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (kept[i] == reg)
			return true;
	return (reg >= REG_MTA && reg < REG_RA_END) || (reg >= REG_VFTA && reg < REG_VFTA_END);
}

/* Delays of interrupts. FPD (13.4.30, 13.4.44): what is due is set now. */
static void delay_write(struct e1000 *e, uint32_t reg, uint32_t v)
{
	e1000_reg_set(e, reg, v & 0xffff);
	if (v & DELAY_FPD)
		e1000_interrupt(
			e, e1000_interrupts_due(e) & (reg == REG_RDTR ? ICR_RXT0 : ICR_TXDW));
}

static void register_write(struct e1000 *e, uint32_t reg, uint32_t v)
{
	switch (reg) {
	case REG_CTRL:
		ctrl_write(e, v);
		break;
	case REG_EECD:
		eecd_write(e, v);
		break;
	case REG_EERD:
		eerd_write(e, v);
		break;
	case REG_MDIC:
		mdic_write(e, v);
		break;
	case REG_ICR:
		e->regs[REG_ICR / 4] &= ~v;
		e1000_irq_update(e);
		break;
	case REG_ICS:
		e1000_interrupt(e, v);
		break;
	case REG_IMS:
		posted_ring(&e->posted);
		e->regs[REG_IMS / 4] |= v;
		e1000_irq_update(e);
		break;
	case REG_IMC:
		e->regs[REG_IMS / 4] &= ~v;
		e1000_irq_update(e);
		break;
	case REG_RDTR:
	case REG_TIDV:
		delay_write(e, reg, v);
		break;
	case REG_RDT:
		posted_ring(&e->posted);
		/* fall through */
	case REG_RDH:
		v &= 0xffff;
		/* fall through */
	case REG_RCTL:
	case REG_RDLEN:
		e1000_reg_set(e, reg, v);
		legacy_net_rx_resume(e->net);
		break;
	case REG_TDT:
		v &= 0xffff;
		posted_ring(&e->posted);
		counter_add(&e->dev.counters.doorbells, 1);
		/* fall through */
	case REG_TCTL:
		e1000_reg_set(e, reg, v);
		legacy_net_kick(e->net);
		break;
	case REG_TDH:
		e1000_reg_set(e, reg, v & 0xffff);
		break;
	default:
		if (register_kept(reg))
			e1000_reg_set(e, reg, v);
		break;
	}
}

static uint32_t register_read(struct e1000 *e, uint32_t reg)
{
	uint32_t v = e1000_reg(e, reg);

	if (reg == REG_ICR) {
		e1000_reg_set(e, REG_ICR, 0);
		e1000_irq_update(e);
	} else if (reg == REG_ICS || reg == REG_IMC) {
		return 0;
	} else if (reg >= REG_STATS && reg < REG_STATS_END) {
		e1000_reg_set(e, reg, 0);
	}
	return v;
}

/* Registers are 32 bits wide and accessed as such (manual 13.3); a narrower read gets its part. */
static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	struct e1000 *e = opaque;
	uint64_t v;

	if (offset >= E1000_REGS_SIZE)
		return 0;
	v = register_read(e, (uint32_t)offset & ~3u);
	if (size == 8 && offset + 4 < E1000_REGS_SIZE)
		v |= (uint64_t)register_read(e, ((uint32_t)offset & ~3u) + 4) << 32;
	return v >> (8 * (offset & 3));
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct e1000 *e = opaque;

	if (offset >= E1000_REGS_SIZE || offset & 3 || size < 4)
		return;
	register_write(e, (uint32_t)offset, (uint32_t)value);
	if (size == 8 && offset + 4 < E1000_REGS_SIZE)
		register_write(e, (uint32_t)offset + 4, (uint32_t)(value >> 32));
}

/* IOADDR and IODATA: the same registers through two ports (manual 13.2.2). */
static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
	struct e1000 *e = opaque;

	if (offset == 0)
		return e->ioaddr;
	return offset == 4 ? mmio_read(opaque, e->ioaddr, size) : 0;
}

static void io_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct e1000 *e = opaque;

	if (offset == 0)
		e->ioaddr = (uint32_t)value & (E1000_MMIO_SIZE - 1);
	else if (offset == 4)
		mmio_write(opaque, e->ioaddr, value, size);
}

/* ------------------------------------------------------------------ life */

static void e1000_reset(struct device *d)
{
	struct e1000 *e = (struct e1000 *)d;

	pthread_mutex_lock(&d->lock);
	phy_reset(e);
	core_reset(e);
	e->ioaddr = 0;
	pci_device_reset(&e->pci);
	pthread_mutex_unlock(&d->lock);
}

static void e1000_quiesce(struct device *d)
{
	struct e1000 *e = (struct e1000 *)d;

	/* a card that could not be made whole has none */
	if (e->net)
		legacy_net_quiesce(e->net);
	e1000_irq_quiesce(e);
}

static void e1000_resume(struct device *d)
{
	struct e1000 *e = (struct e1000 *)d;

	e1000_irq_resume(e);
	legacy_net_resume(e->net);
	/* descriptors the guest gave before, that nobody will announce again */
	legacy_net_kick(e->net);
}

static void e1000_destroy(struct device *d)
{
	struct e1000 *e = (struct e1000 *)d;

	posted_stop(&e->posted);
	legacy_net_close(e->net);
	e1000_irq_fini(e);
	pci_device_free(&e->pci);
	free(e->segment);
	free(e->frame);
	free(e);
}

static const struct device_ops e1000_ops = {
	.reset = e1000_reset,
	.quiesce = e1000_quiesce,
	.resume = e1000_resume,
	.save = e1000_save,
	.load = e1000_load,
	.destroy = e1000_destroy,
};

/* Bus mastering may be turned on: what waits for that is looked at again, after this lock is
 * released. */
static bool config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
	struct e1000 *e = (struct e1000 *)((char *)pci - offsetof(struct e1000, pci));

	(void)size;
	(void)value;
	if ((offset & ~3u) == PCI_COMMAND) {
		legacy_net_kick(e->net);
		legacy_net_rx_resume(e->net);
	}
	return false;
}

static const struct pci_ops e1000_pci_ops = {.config_write = config_write};

/* Masking interrupts and filling tables may always wait for the next exit; tails and unmasking only
 * for a thread that looks. */
#define POSTED_ALWAYS                                                                              \
	{REG_ITR, 4}, {REG_IMC, 4}, {REG_MTA, REG_MTA_END - REG_MTA},                              \
	{                                                                                          \
		REG_VFTA, REG_VFTA_END - REG_VFTA                                                  \
	}
static const struct bus_span posted_seldom[] = {POSTED_ALWAYS, {0, 0}};
static const struct bus_span posted_often[] = {
	POSTED_ALWAYS, {REG_IMS, 4}, {REG_RDT, 4}, {REG_TDT, 4}, {0, 0}};

static void e1000_bars(struct e1000 *e)
{
	struct pci_bar *mmio = pci_bar_init(&e->pci, 0, E1000_MMIO_SIZE, false);
	struct pci_bar *io = pci_bar_init(&e->pci, 1, E1000_IO_SIZE, true);

	mmio->region.read = mmio_read;
	mmio->region.write = mmio_write;
	mmio->region.opaque = e;
	posted_region_add(&e->posted, &mmio->region, posted_seldom, posted_often);
	io->region.read = io_read;
	io->region.write = io_write;
	io->region.opaque = e;
}

int e1000_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX])
{
	struct e1000 *e = calloc(1, sizeof(*e));
	const struct legacy_net_callbacks cb = {
		.receive_room = e1000_receive_room,
		.received = e1000_received,
		.transmit = e1000_transmit,
		.link = e1000_link,
		.ctx = e,
	};
	int err;

	if (!e)
		return -ENOMEM;
	memcpy(e->mac, args->mac, sizeof(e->mac));
	e->port_offloads = net_port_offloads(args->port);
	e1000_irq_init(e, args->io);
	device_add(m, &e->dev, &e1000_ops, args->name);
	pci_init(&e->pci, m, &e->dev.lock, 0x8086, 0x100e, 0x020000, 2, 0x8086, 0x100e, 1);
	e->pci.ops = &e1000_pci_ops;
	e->pci.counters = &e->dev.counters;
	e1000_bars(e);
	e1000_eeprom_fill(e);
	e->cable = net_port_link(args->port);
	phy_reset(e);
	core_reset(e);
	*out = &e->dev;
	e->frame = malloc(E1000_FRAME_MAX);
	e->segment = malloc(E1000_FRAME_MAX);
	if (!e->frame || !e->segment)
		return -ENOMEM;
	err = pci_add(&e->pci, -1, 0);
	/* last: frames may come before this returns */
	if (!err)
		err = legacy_net_open(&e->net, args->io, args->port, &cb, why);
	if (err)
		return err;
	pthread_mutex_lock(&e->dev.lock);
	e->cable = legacy_net_link(e->net);
	e1000_link_check(e);
	pthread_mutex_unlock(&e->dev.lock);
	return posted_start(&e->posted, m, args->io);
}
