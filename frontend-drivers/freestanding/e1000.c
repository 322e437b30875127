/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intel 82540EM (317453, the PCI/PCI-X family's software developer's manual): legacy descriptors,
 * the interrupt line, and context descriptors for segmentation. Interrupts stay masked while there
 * is work: completions are seen in memory, and one write of a tail pointer covers a batch.
 */
#include "frontend-drivers/freestanding/runtime_priv.h"
#include "frontend-drivers/frontend.h" /* checksums */

#define E1000_VENDOR 0x8086u
#define E1000_DEVICE 0x100eu

enum {
	E1000_CTRL = 0x0000,
	E1000_STATUS = 0x0008,
	E1000_ICR = 0x00c0,
	E1000_ITR = 0x00c4,
	E1000_IMS = 0x00d0,
	E1000_IMC = 0x00d8,
	E1000_RCTL = 0x0100,
	E1000_TCTL = 0x0400,
	E1000_TIPG = 0x0410,
	E1000_RDBAL = 0x2800,
	E1000_RDLEN = 0x2808,
	E1000_RDH = 0x2810,
	E1000_RDT = 0x2818,
	E1000_RDTR = 0x2820,
	E1000_TIDV = 0x3820,
	E1000_TADV = 0x382c,
	E1000_TDBAL = 0x3800,
	E1000_TDLEN = 0x3808,
	E1000_TDH = 0x3810,
	E1000_TDT = 0x3818,
	E1000_RAL0 = 0x5400,
	E1000_RAH0 = 0x5404,
};

#define E1000_CTRL_ASDE  0x00000020u
#define E1000_CTRL_SLU   0x00000040u
#define E1000_CTRL_RST   0x04000000u
#define E1000_I_TXDW     0x00000001u
#define E1000_I_LSC      0x00000004u
#define E1000_I_RXDMT0   0x00000010u
#define E1000_I_RXO      0x00000040u
#define E1000_I_RXT0     0x00000080u
#define E1000_RCTL_EN    0x00000002u
#define E1000_RCTL_UPE   0x00000008u
#define E1000_RCTL_MPE   0x00000010u
#define E1000_RCTL_BAM   0x00008000u
#define E1000_RCTL_SECRC 0x04000000u
#define E1000_TCTL_EN    0x00000002u
#define E1000_TCTL_PSP   0x00000008u
#define E1000_TCTL_CT    0x000000f0u /* 15 tries */
#define E1000_TCTL_COLD  0x00040000u /* full duplex: 64 byte times */
#define E1000_TIPG_IPG   0x0060200au

#define E1000_D_DD   0x01u /* status: done */
#define E1000_D_EOP  0x02u /* receive status: last of a packet */
#define E1000_X_EOP  0x01000000u
#define E1000_X_IFCS 0x02000000u
#define E1000_X_TSE  0x04000000u
#define E1000_X_RS   0x08000000u
#define E1000_X_DEXT 0x20000000u
#define E1000_X_IDE  0x80000000u /* the interrupt may wait */
#define E1000_X_DATA 0x00100000u /* descriptor type */
#define E1000_X_TCP  0x01000000u /* in a context descriptor */
#define E1000_X_IP   0x02000000u
#define E1000_P_IXSM 0x0100u
#define E1000_P_TXSM 0x0200u

/* As Linux sets them to begin with: 20,000 interrupts a second, in units of 256 ns; 8 us after the
 * last frame sent and 32 us after the first, in units of 1.024 us. */
#define E1000_ITR_20K   195u
#define E1000_TIDV_8US  8u
#define E1000_TADV_32US 32u

#define E1000_RING     256u
#define E1000_BUFFER   2048u
#define E1000_PIECE    8192u /* a data descriptor takes at most 16,288 bytes */
#define E1000_RESET_US 10000u
#define E1000_BURST    64u

struct e1000_desc {
	uint64_t addr;
	uint32_t command; /* receive: length and checksum */
	uint32_t status;  /* low byte */
};

struct e1000 {
	struct frontend_net net;
	uintptr_t regs;
	uint8_t vector;
	uint32_t irq_seen;
	struct e1000_desc *tx;
	struct e1000_desc *rx;
	uint8_t *buffers;
	uint64_t tokens[E1000_RING];
	bool last[E1000_RING]; /* the descriptor ends a frame: its token counts */
	/* free-running */
	uint32_t tx_head, tx_tail, tx_told;
	uint32_t rx_next, rx_held;
};

static struct e1000 *e1000_of(struct frontend_net *n)
{
	return (struct e1000 *)((uint8_t *)n - offsetof(struct e1000, net));
}

static struct e1000_desc *tx_take(struct e1000 *e)
{
	uint32_t i = e->tx_tail++ % E1000_RING;

	e->last[i] = false;
	return &e->tx[i];
}

static void tx_end(struct e1000 *e, uint64_t token)
{
	uint32_t i = (e->tx_tail - 1) % E1000_RING;

	e->last[i] = true;
	e->tokens[i] = token;
}

/*
 * Segmentation (3.3.6): a context descriptor says where the headers are, data descriptors follow.
 * The device adds lengths and sums to each segment, so the template has none: total length 0, and a
 * pseudo header sum without the length.
 */
static void send_segmented(struct e1000 *e, const struct frontend_net_tx *tx)
{
	const uint32_t l4 = 34, header = l4 + (tx->gso_tcp ? 20 : 8),
		       csum = l4 + (tx->gso_tcp ? 16 : 6);
	uint8_t *ip = tx->frame + 14;
	struct e1000_desc *d = tx_take(e);
	uint32_t left = tx->len;
	uint64_t at = mem_phys(tx->frame);

	net_put16(ip + 2, 0);
	net_put16(ip + 10, 0);
	net_put16(tx->frame + csum, net_pseudo_sum(ip, 0));
	d->addr =
		14 | 24 << 8 | (uint64_t)(l4 - 1) << 16 | (uint64_t)l4 << 32 | (uint64_t)csum << 40;
	d->command = (tx->len - header) | E1000_X_DEXT | E1000_X_TSE | E1000_X_IP | E1000_X_RS |
		     (tx->gso_tcp ? E1000_X_TCP : 0);
	d->status = header << 8 | (uint32_t)tx->gso_size << 16;
	while (left) {
		uint32_t part = left < E1000_PIECE ? left : E1000_PIECE;

		d = tx_take(e);
		d->addr = at;
		d->command = part | E1000_X_DATA | E1000_X_DEXT | E1000_X_TSE | E1000_X_IFCS |
			     E1000_X_RS | E1000_X_IDE | (part == left ? E1000_X_EOP : 0);
		d->status = E1000_P_IXSM | E1000_P_TXSM;
		at += part;
		left -= part;
	}
}

static int e1000_send(struct frontend_net *n, unsigned queue, const struct frontend_net_tx *tx)
{
	struct e1000 *e = e1000_of(n);
	uint32_t need = tx->gso_size ? 1 + (tx->len + E1000_PIECE - 1) / E1000_PIECE : 1;
	struct e1000_desc *d;

	if (queue || (!tx->gso_size && tx->len > 1514))
		return -GUEST_EINVAL;
	/* Head equal to tail means empty: one descriptor is never used. */
	if (e->tx_tail - e->tx_head + need > E1000_RING - 1)
		return -GUEST_ENOSPC;
	if (tx->gso_size) {
		send_segmented(e, tx);
	} else {
		d = tx_take(e);
		d->addr = mem_phys(tx->frame);
		d->command = tx->len | E1000_X_EOP | E1000_X_IFCS | E1000_X_RS | E1000_X_IDE;
		d->status = 0;
	}
	tx_end(e, tx->token);
	return 0;
}

static void e1000_kick(struct frontend_net *n)
{
	struct e1000 *e = e1000_of(n);

	if (e->tx_told == e->tx_tail)
		return;
	e->tx_told = e->tx_tail;
	n->doorbells++;
	/* x86 keeps stores in order: the descriptors are there before the tail moves. */
	mmio_write32(e->regs + E1000_TDT, e->tx_tail % E1000_RING);
}

static bool tx_done(const struct e1000 *e)
{
	return e->tx_head != e->tx_told &&
	       __atomic_load_n(&e->tx[e->tx_head % E1000_RING].status, __ATOMIC_ACQUIRE) &
		       E1000_D_DD;
}

static int e1000_sent(struct frontend_net *n, unsigned queue, uint64_t *tokens, unsigned max)
{
	struct e1000 *e = e1000_of(n);
	unsigned got = 0;

	(void)queue;
	while (got < max && tx_done(e)) {
		uint32_t i = e->tx_head++ % E1000_RING;

		if (e->last[i])
			tokens[got++] = e->tokens[i];
	}
	return (int)got;
}

static void rx_recycle(struct e1000 *e)
{
	if (!e->rx_held)
		return;
	for (uint32_t i = e->rx_next - e->rx_held; i != e->rx_next; i++)
		e->rx[i % E1000_RING].status = 0;
	e->rx_held = 0;
	e->net.doorbells++;
	mmio_write32(e->regs + E1000_RDT, (e->rx_next - 1) % E1000_RING);
}

static bool rx_done(const struct e1000 *e)
{
	return __atomic_load_n(&e->rx[e->rx_next % E1000_RING].status, __ATOMIC_ACQUIRE) &
	       E1000_D_DD;
}

static int e1000_receive(
	struct frontend_net *n, unsigned queue, struct frontend_net_rx *rx, unsigned max)
{
	struct e1000 *e = e1000_of(n);
	unsigned got = 0;

	(void)queue;
	if (!rx_done(e) && !e->rx_held)
		return 0;
	rx_recycle(e);
	while (got < max && e->rx_held < E1000_BURST && rx_done(e)) {
		uint32_t i = e->rx_next++ % E1000_RING;
		uint32_t status = e->rx[i].status;

		e->rx_held++;
		/* Status byte, then errors. Nothing longer than a buffer is accepted by default. */
		if (!(status & E1000_D_EOP) || status & 0xff00) {
			n->errors++;
			continue;
		}
		rx[got++] = (struct frontend_net_rx){
			e->buffers + (size_t)i * E1000_BUFFER, e->rx[i].command & 0xffff};
	}
	return (int)got;
}

static void line_ack(struct e1000 *e)
{
	uint32_t irqs = cpu_irq_count(e->vector);

	if (irqs == e->irq_seen)
		return;
	e->irq_seen = irqs;
	mmio_read32(e->regs + E1000_ICR);
}

static bool e1000_wait_begin(struct frontend_net *n, bool rx, bool tx)
{
	struct e1000 *e = e1000_of(n);

	rx_recycle(e);
	line_ack(e);
	mmio_write32(e->regs + E1000_IMS,
		(rx ? E1000_I_RXT0 | E1000_I_RXDMT0 | E1000_I_RXO : 0) | (tx ? E1000_I_TXDW : 0));
	return (rx && rx_done(e)) || (tx && tx_done(e));
}

static void e1000_wait_end(struct frontend_net *n)
{
	struct e1000 *e = e1000_of(n);

	mmio_write32(e->regs + E1000_IMC, 0xffffffff);
	line_ack(e);
}

static uint32_t e1000_irqs(struct frontend_net *n)
{
	return cpu_irq_count(e1000_of(n)->vector);
}

static const struct frontend_net_ops e1000_ops = {
	.send = e1000_send,
	.kick = e1000_kick,
	.sent = e1000_sent,
	.receive = e1000_receive,
	.wait_begin = e1000_wait_begin,
	.wait_end = e1000_wait_end,
	.irqs = e1000_irqs,
};

static int reset(struct e1000 *e)
{
	uint64_t end;

	mmio_write32(e->regs + E1000_IMC, 0xffffffff);
	mmio_write32(e->regs + E1000_CTRL, E1000_CTRL_RST);
	end = clock_now() + clock_from_ns(E1000_RESET_US * 1000ull);
	while (mmio_read32(e->regs + E1000_CTRL) & E1000_CTRL_RST)
		if (clock_now() > end)
			return -GUEST_EIO;
	mmio_write32(e->regs + E1000_IMC, 0xffffffff);
	mmio_read32(e->regs + E1000_ICR);
	mmio_write32(e->regs + E1000_CTRL, E1000_CTRL_SLU | E1000_CTRL_ASDE);
	return 0;
}

static void ring_set(struct e1000 *e, uintptr_t base, const struct e1000_desc *ring)
{
	mmio_write32(e->regs + base, (uint32_t)mem_phys(ring));
	mmio_write32(e->regs + base + 4, 0);
	mmio_write32(e->regs + base + 8, E1000_RING * sizeof(*ring));
	mmio_write32(e->regs + base + 0x10, 0);
	mmio_write32(e->regs + base + 0x18, 0);
}

int e1000_open(unsigned index, struct frontend_net **out)
{
	struct e1000 *e = mem_alloc(sizeof(*e), 64);
	struct pci_dev pci;
	struct pci_bar bar;
	uint32_t low, high;
	int r;

	if (!e)
		return -GUEST_ENOMEM;
	r = pci_find(E1000_VENDOR, E1000_DEVICE, index, &pci);
	if (r)
		return r;
	pci_bar_get(&pci, 0, false, &bar);
	if (!bar.addr || bar.io)
		return -GUEST_ENODEV;
	e->regs = bar.addr;
	pci_command_set(&pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, PCI_COMMAND_NO_INTX);
	e->tx = mem_alloc(E1000_RING * sizeof(*e->tx), 4096);
	e->rx = mem_alloc(E1000_RING * sizeof(*e->rx), 4096);
	e->buffers = mem_alloc((size_t)E1000_RING * E1000_BUFFER, 4096);
	if (!e->tx || !e->rx || !e->buffers)
		return -GUEST_ENOMEM;
	r = reset(e);
	if (r)
		return r;
	e->vector = cpu_line_vector(pci.line, true);
	if (!e->vector)
		return -GUEST_ENOTSUP;
	e->irq_seen = cpu_irq_count(e->vector);
	/* Loaded from the EEPROM by the reset. */
	low = mmio_read32(e->regs + E1000_RAL0);
	high = mmio_read32(e->regs + E1000_RAH0);
	for (unsigned i = 0; i < 6; i++)
		e->net.mac[i] = (uint8_t)(i < 4 ? low >> 8 * i : high >> 8 * (i - 4));
	for (unsigned i = 0; i < E1000_RING; i++)
		e->rx[i].addr = mem_phys(e->buffers + (size_t)i * E1000_BUFFER);
	ring_set(e, E1000_TDBAL, e->tx);
	ring_set(e, E1000_RDBAL, e->rx);
	mmio_write32(e->regs + E1000_RDTR, 0);
	mmio_write32(e->regs + E1000_ITR, E1000_ITR_20K);
	mmio_write32(e->regs + E1000_TIDV, E1000_TIDV_8US);
	mmio_write32(e->regs + E1000_TADV, E1000_TADV_32US);
	mmio_write32(e->regs + E1000_TIPG, E1000_TIPG_IPG);
	mmio_write32(e->regs + E1000_TCTL,
		E1000_TCTL_EN | E1000_TCTL_PSP | E1000_TCTL_CT | E1000_TCTL_COLD);
	mmio_write32(e->regs + E1000_RCTL, E1000_RCTL_EN | E1000_RCTL_UPE | E1000_RCTL_MPE |
						   E1000_RCTL_BAM | E1000_RCTL_SECRC);
	mmio_write32(e->regs + E1000_RDT, E1000_RING - 1);
	e->net.ops = &e1000_ops;
	e->net.model = "e1000";
	e->net.queues = 1;
	e->net.tx_max = E1000_RING - 1;
	e->net.gso_tcp = e->net.gso_udp = true;
	*out = &e->net;
	return 0;
}
