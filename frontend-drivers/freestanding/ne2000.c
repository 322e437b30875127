/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * RTL8029, an NE2000 on PCI (Realtek RTL8029AS datasheet; National DP8390D): one frame in the
 * sender at a time, data by remote DMA through one port, 16 bits wide.
 *
 * Sending a frame, beyond registers that only take a value: start of the copy, the copy, one look
 * at the interrupt status, start of the sending; and for its end one look and one acknowledgement.
 */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define NE_VENDOR 0x10ecu
#define NE_DEVICE 0x8029u

/* Page 0, written; page 1 where it says so */
enum {
	NE_CR = 0x00,
	NE_PSTART = 0x01,
	NE_PSTOP = 0x02,
	NE_BNRY = 0x03,
	NE_TPSR = 0x04,
	NE_TSR = 0x04,
	NE_TBCR0 = 0x05,
	NE_TBCR1 = 0x06,
	NE_ISR = 0x07,
	NE_CURR = 0x07, /* page 1 */
	NE_PAR0 = 0x01, /* page 1 */
	NE_RSAR0 = 0x08,
	NE_RSAR1 = 0x09,
	NE_RBCR0 = 0x0a,
	NE_RBCR1 = 0x0b,
	NE_RCR = 0x0c,
	NE_TCR = 0x0d,
	NE_DCR = 0x0e,
	NE_IMR = 0x0f,
	NE_DATA = 0x10,
	NE_RESET = 0x1f,
};

#define NE_CR_STOP      0x01u
#define NE_CR_START     0x02u
#define NE_CR_TRANSMIT  0x04u
#define NE_CR_READ      0x08u
#define NE_CR_WRITE     0x10u
#define NE_CR_NO_REMOTE 0x20u
#define NE_CR_PAGE1     0x40u
#define NE_I_PRX        0x01u
#define NE_I_PTX        0x02u
#define NE_I_RXE        0x04u
#define NE_I_TXE        0x08u
#define NE_I_OVW        0x10u
#define NE_I_RDC        0x40u
#define NE_I_RST        0x80u
#define NE_I_RECEIVE    (NE_I_PRX | NE_I_RXE | NE_I_OVW)
#define NE_I_SENT       (NE_I_PTX | NE_I_TXE)

/* 16 KiB on the card from page 0x40: one frame to send, the rest is the receive ring. */
#define NE_PAGE_TX   0x40u
#define NE_PAGE_RX   0x46u
#define NE_PAGE_STOP 0x80u

#define NE_TX_QUEUE   256u
#define NE_RX_FRAMES  64u
#define NE_FRAME_MIN  60u
#define NE_FRAME_MAX  1514u
#define NE_TIMEOUT_US 20000u
#define NE_RX_SLOT    1536u

struct ne2000 {
	struct frontend_net net;
	uint16_t port;
	uint8_t vector;
	uint8_t imr;
	uint32_t irq_seen;
	bool sending;
	bool rx_pending; /* the status said so, the ring was not looked at */
	uint8_t rx_page; /* next packet in the ring */
	unsigned head, tail;
	unsigned nsent;
	struct frontend_net_tx queue[NE_TX_QUEUE];
	uint64_t sent[NE_TX_QUEUE];
	uint8_t *frames;
};

static struct ne2000 *ne_of(struct frontend_net *n)
{
	return (struct ne2000 *)((uint8_t *)n - offsetof(struct ne2000, net));
}

static inline void out(const struct ne2000 *d, unsigned reg, uint8_t v)
{
	io_out8((uint16_t)(d->port + reg), v);
}

static inline uint8_t in(const struct ne2000 *d, unsigned reg)
{
	return io_in8((uint16_t)(d->port + reg));
}

static void remote_setup(const struct ne2000 *d, uint16_t at, uint16_t bytes, uint8_t direction)
{
	out(d, NE_RBCR0, (uint8_t)bytes);
	out(d, NE_RBCR1, (uint8_t)(bytes >> 8));
	out(d, NE_RSAR0, (uint8_t)at);
	out(d, NE_RSAR1, (uint8_t)(at >> 8));
	out(d, NE_CR, NE_CR_START | direction);
}

static void remote_read(const struct ne2000 *d, uint16_t at, void *to, uint16_t bytes)
{
	remote_setup(d, at, bytes, NE_CR_READ);
	io_in16_rep((uint16_t)(d->port + NE_DATA), to, bytes / 2);
}

/* Reads the interrupt status, acknowledges what is in `ack` of it, remembers the rest. */
static uint8_t status_take(struct ne2000 *d, uint8_t ack)
{
	uint8_t isr = in(d, NE_ISR);

	if (isr & ack)
		out(d, NE_ISR, isr & ack);
	if (isr & ack & NE_I_RECEIVE)
		d->rx_pending = true;
	return isr;
}

static void tx_done(struct ne2000 *d, bool failed)
{
	d->net.errors += failed;
	d->sent[d->nsent++] = d->queue[d->head % NE_TX_QUEUE].token;
	d->head++;
	d->sending = false;
}

/*
 * The copy is complete when RDC says so; without it the frame would be sent in part. It is
 * acknowledged together with the end of sending, in one write.
 */
static void tx_start(struct ne2000 *d)
{
	const struct frontend_net_tx *tx = &d->queue[d->head % NE_TX_QUEUE];
	uint16_t len = (uint16_t)(tx->len < NE_FRAME_MIN ? NE_FRAME_MIN : tx->len);
	uint16_t bytes = (uint16_t)((len + 1) & ~1u);
	uint64_t end = 0;

	remote_setup(d, NE_PAGE_TX << 8, bytes, NE_CR_WRITE);
	io_out16_rep((uint16_t)(d->port + NE_DATA), tx->frame, bytes / 2);
	while (!(in(d, NE_ISR) & NE_I_RDC)) {
		if (!end)
			end = clock_now() + clock_from_ns(NE_TIMEOUT_US * 1000ull);
		if (clock_now() > end) {
			d->sending = true;
			tx_done(d, true);
			return;
		}
	}
	out(d, NE_TBCR0, (uint8_t)len);
	out(d, NE_TBCR1, (uint8_t)(len >> 8));
	out(d, NE_CR, NE_CR_START | NE_CR_TRANSMIT | NE_CR_NO_REMOTE);
	d->sending = true;
	d->net.doorbells++;
}

static int ne_send(struct frontend_net *n, unsigned queue, const struct frontend_net_tx *tx)
{
	struct ne2000 *d = ne_of(n);

	if (queue || tx->len > NE_FRAME_MAX)
		return -GUEST_EINVAL;
	if (tx->gso_size)
		return -GUEST_ENOTSUP;
	if (d->tail - d->head + d->nsent >= NE_TX_QUEUE)
		return -GUEST_ENOSPC;
	d->queue[d->tail++ % NE_TX_QUEUE] = *tx;
	return 0;
}

static void ne_kick(struct frontend_net *n)
{
	struct ne2000 *d = ne_of(n);

	if (!d->sending && d->head != d->tail)
		tx_start(d);
}

/* Looks at the card after an interrupt, or when a frame is on its way. */
static void service(struct ne2000 *d, bool look)
{
	uint32_t irqs = cpu_irq_count(d->vector);
	bool irq = irqs != d->irq_seen;
	uint8_t isr;

	if (!irq && !look)
		return;
	d->irq_seen = irqs;
	isr = status_take(d, NE_I_RECEIVE | NE_I_SENT | NE_I_RDC);
	if (irq)
		cpu_irq_eoi();
	if (d->sending && isr & NE_I_SENT)
		tx_done(d, isr & NE_I_TXE);
	ne_kick(&d->net);
}

static int ne_sent(struct frontend_net *n, unsigned queue, uint64_t *tokens, unsigned max)
{
	struct ne2000 *d = ne_of(n);

	(void)queue;
	service(d, d->sending && !(d->imr & NE_I_PTX));
	return (int)net_tokens_take(d->sent, &d->nsent, tokens, max);
}

/* The page the card writes next; a register of page 1. */
static uint8_t rx_current(const struct ne2000 *d)
{
	uint8_t curr;

	out(d, NE_CR, NE_CR_PAGE1 | NE_CR_NO_REMOTE | NE_CR_START);
	curr = in(d, NE_CURR);
	out(d, NE_CR, NE_CR_NO_REMOTE | NE_CR_START);
	return curr;
}

/* One packet from the ring: 4 bytes of header (status, next page, length), then the frame. */
static bool rx_packet(struct ne2000 *d, uint8_t *to, uint32_t *len)
{
	uint16_t at = (uint16_t)(d->rx_page << 8), first;
	uint8_t h[4];
	uint16_t n;

	remote_read(d, at, h, 4);
	n = (uint16_t)(h[2] | h[3] << 8);
	if (!(h[0] & 1) || h[1] < NE_PAGE_RX || h[1] >= NE_PAGE_STOP || n < 4 + 14 ||
		n > NE_RX_SLOT) {
		/* What follows cannot be found any more: give the ring up to where the card is. */
		d->net.errors++;
		d->rx_page = rx_current(d);
		return false;
	}
	n = (uint16_t)(n - 4);
	*len = n;
	at = (uint16_t)(at + 4);
	n = (uint16_t)((n + 1) & ~1u);
	first = (uint16_t)((NE_PAGE_STOP << 8) - at);
	if (first > n)
		first = n;
	remote_read(d, at, to, first);
	if (first < n)
		remote_read(d, NE_PAGE_RX << 8, to + first, (uint16_t)(n - first));
	d->rx_page = h[1];
	return true;
}

static void boundary_write(const struct ne2000 *d)
{
	out(d, NE_BNRY, d->rx_page == NE_PAGE_RX ? NE_PAGE_STOP - 1 : (uint8_t)(d->rx_page - 1));
}

static int ne_receive(
	struct frontend_net *n, unsigned queue, struct frontend_net_rx *rx, unsigned max)
{
	struct ne2000 *d = ne_of(n);
	unsigned got = 0;
	uint8_t curr;

	(void)queue;
	service(d, false);
	if (!d->rx_pending)
		return 0;
	/* Whatever comes after this look raises the status bit, and an interrupt, again. */
	d->rx_pending = false;
	curr = rx_current(d);
	while (d->rx_page != curr) {
		uint8_t *to = d->frames + (size_t)got * NE_RX_SLOT;
		uint32_t len;

		if (got == max || got == NE_RX_FRAMES) {
			d->rx_pending = true;
			break;
		}
		if (!rx_packet(d, to, &len))
			break;
		rx[got++] = (struct frontend_net_rx){to, len};
	}
	boundary_write(d);
	return (int)got;
}

static void imr_set(struct ne2000 *d, uint8_t imr)
{
	if (d->imr == imr)
		return;
	d->imr = imr;
	out(d, NE_IMR, imr);
}

static bool ne_wait_begin(struct frontend_net *n, bool rx, bool tx)
{
	struct ne2000 *d = ne_of(n);

	(void)rx;
	imr_set(d, NE_I_RECEIVE | (tx && d->sending ? NE_I_SENT : 0));
	return d->rx_pending || d->nsent || cpu_irq_count(d->vector) != d->irq_seen;
}

/* The line may be up for what was not looked at: it must go down before the interrupt is ended. */
static void ne_wait_end(struct frontend_net *n)
{
	struct ne2000 *d = ne_of(n);

	service(d, false);
	imr_set(d, NE_I_RECEIVE);
}

static uint32_t ne_irqs(struct frontend_net *n)
{
	return cpu_irq_count(ne_of(n)->vector);
}

static const struct frontend_net_ops ne_ops = {
	.send = ne_send,
	.kick = ne_kick,
	.sent = ne_sent,
	.receive = ne_receive,
	.wait_begin = ne_wait_begin,
	.wait_end = ne_wait_end,
	.irqs = ne_irqs,
};

/* The datasheet's start-up sequence (DP8390D, 10.0), with the address read from the PROM in
 * between. */
static int start(struct ne2000 *d)
{
	uint64_t end = clock_now() + clock_from_ns(NE_TIMEOUT_US * 1000ull);
	uint16_t prom[16];

	out(d, NE_RESET, in(d, NE_RESET));
	while (!(in(d, NE_ISR) & NE_I_RST))
		if (clock_now() > end)
			return -GUEST_EIO;
	out(d, NE_CR, NE_CR_NO_REMOTE | NE_CR_STOP);
	out(d, NE_DCR, 0x49); /* 16 bits, no loopback, FIFO threshold 8 bytes */
	out(d, NE_RBCR0, 0);
	out(d, NE_RBCR1, 0);
	out(d, NE_RCR, 0x20); /* monitor: nothing is stored yet */
	out(d, NE_TCR, 0x02); /* loopback */
	out(d, NE_IMR, 0);
	out(d, NE_ISR, 0xff);
	remote_read(d, 0, prom, sizeof(prom));
	for (unsigned i = 0; i < 6; i++)
		d->net.mac[i] = (uint8_t)prom[i];
	out(d, NE_TPSR, NE_PAGE_TX);
	out(d, NE_PSTART, NE_PAGE_RX);
	out(d, NE_BNRY, NE_PAGE_RX);
	out(d, NE_PSTOP, NE_PAGE_STOP);
	out(d, NE_CR, NE_CR_PAGE1 | NE_CR_NO_REMOTE | NE_CR_STOP);
	for (unsigned i = 0; i < 6; i++)
		out(d, NE_PAR0 + i, d->net.mac[i]);
	out(d, NE_CURR, NE_PAGE_RX + 1);
	d->rx_page = NE_PAGE_RX + 1;
	out(d, NE_CR, NE_CR_NO_REMOTE | NE_CR_START);
	out(d, NE_ISR, 0xff);
	out(d, NE_RCR, 0x1c); /* broadcast, multicast, promiscuous */
	out(d, NE_TCR, 0x00);
	imr_set(d, NE_I_RECEIVE);
	return 0;
}

int ne2000_open(unsigned index, struct frontend_net **out_net)
{
	struct ne2000 *d = mem_alloc(sizeof(*d), 64);
	struct pci_dev pci;
	struct pci_bar bar;
	int r;

	if (!d)
		return -GUEST_ENOMEM;
	r = pci_find(NE_VENDOR, NE_DEVICE, index, &pci);
	if (r)
		return r;
	pci_bar_get(&pci, 0, false, &bar);
	if (!bar.addr || !bar.io)
		return -GUEST_ENODEV;
	d->port = (uint16_t)bar.addr;
	pci_command_set(&pci, PCI_COMMAND_IO, PCI_COMMAND_NO_INTX);
	d->frames = mem_alloc(NE_RX_FRAMES * NE_RX_SLOT, 64);
	d->vector = cpu_line_vector(pci.line, true);
	if (!d->frames || !d->vector)
		return -GUEST_ENOMEM;
	d->irq_seen = cpu_irq_count(d->vector);
	r = start(d);
	if (r)
		return r;
	d->net.ops = &ne_ops;
	d->net.model = "ne2k_pci";
	d->net.queues = 1;
	d->net.tx_max = NE_TX_QUEUE;
	*out_net = &d->net;
	return 0;
}
