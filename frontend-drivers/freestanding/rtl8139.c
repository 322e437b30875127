/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * RTL8139 (Realtek RTL8139C datasheet; programming guide): four frames in the sender at a time,
 * each copied to where its descriptor points; received frames lie in one ring of bytes, and what is
 * longer than its end goes on behind it.
 *
 * Sending a frame is one register write. For its end, and for all that came meanwhile: one look at
 * the interrupt status and one acknowledgement for each interrupt, and a look at all descriptors.
 */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define RTL_VENDOR 0x10ecu
#define RTL_DEVICE 0x8139u

enum {
	RTL_IDR = 0x00,
	RTL_MAR = 0x08,
	RTL_TSD = 0x10,
	RTL_TSAD = 0x20,
	RTL_RBSTART = 0x30,
	RTL_CR = 0x37,
	RTL_CAPR = 0x38,
	RTL_IMR = 0x3c,
	RTL_ISR = 0x3e,
	RTL_TCR = 0x40,
	RTL_RCR = 0x44,
	RTL_SUMMARY = 0x60,
};

#define RTL_CR_EMPTY    0x01u
#define RTL_CR_TE       0x04u
#define RTL_CR_RE       0x08u
#define RTL_CR_RESET    0x10u
#define RTL_I_ROK       0x0001u
#define RTL_I_TOK       0x0004u
#define RTL_I_TER       0x0008u
#define RTL_I_RXOVW     0x0010u
#define RTL_I_RECEIVE   (RTL_I_ROK | RTL_I_RXOVW)
#define RTL_I_SENT      (RTL_I_TOK | RTL_I_TER)
#define RTL_TSD_EARLY   0x00080000u /* 256 bytes in the FIFO before it starts */
#define RTL_TCR_DMA     0x00000700u /* as much as it likes at a time; the usual gap */
#define RTL_TCR_GAP     0x03000000u
#define RTL_RCR_32K     0x00001000u
#define RTL_RCR_NO_WRAP 0x00000080u
#define RTL_RCR_DMA     0x0000e700u /* likewise, no threshold */
#define RTL_RCR_ALL     0x0000000fu
#define RTL_RX_OK       0x0001u

#define RTL_TX        4u
#define RTL_TX_BUFFER 2048u
#define RTL_TX_QUEUE  256u
#define RTL_RX_RING   32768u
#define RTL_RX_SLACK  2048u
#define RTL_FRAME_MIN 60u
#define RTL_FRAME_MAX 1514u
#define RTL_CRC       4u
#define RTL_RESET_US  20000u

struct rtl8139 {
	struct frontend_net net;
	uint16_t port;
	uint8_t vector;
	uint32_t irq_seen;
	bool rx_pending; /* the status said so, the ring was not looked at */
	uint32_t rx_at;  /* next packet in the ring */
	uint32_t rx_told;
	/* frames: [done, given) are with the card, [given, tail) wait for a descriptor */
	unsigned done, given, tail;
	unsigned nsent;
	struct frontend_net_tx queue[RTL_TX_QUEUE];
	uint64_t sent[RTL_TX_QUEUE];
	uint8_t *buffers, *ring;
};

static struct rtl8139 *rtl_of(struct frontend_net *n)
{
	return (struct rtl8139 *)((uint8_t *)n - offsetof(struct rtl8139, net));
}

/* ------------------------------------------------------------------ sending */

static int rtl_send(struct frontend_net *n, unsigned queue, const struct frontend_net_tx *tx)
{
	struct rtl8139 *d = rtl_of(n);

	if (queue || tx->len > RTL_FRAME_MAX)
		return -GUEST_EINVAL;
	if (tx->gso_size)
		return -GUEST_ENOTSUP;
	if (d->tail - d->done + d->nsent >= RTL_TX_QUEUE)
		return -GUEST_ENOSPC;
	d->queue[d->tail++ % RTL_TX_QUEUE] = *tx;
	return 0;
}

/* Hands frames to free descriptors; they are used round. */
static void rtl_kick(struct frontend_net *n)
{
	struct rtl8139 *d = rtl_of(n);

	while (d->given != d->tail && d->given - d->done < RTL_TX) {
		const struct frontend_net_tx *tx = &d->queue[d->given % RTL_TX_QUEUE];
		unsigned i = d->given % RTL_TX;
		uint8_t *to = d->buffers + i * RTL_TX_BUFFER;
		uint32_t len = tx->len < RTL_FRAME_MIN ? RTL_FRAME_MIN : tx->len;

		for (uint32_t k = 0; k < tx->len; k++)
			to[k] = tx->frame[k];
		for (uint32_t k = tx->len; k < len; k++)
			to[k] = 0;
		io_out32((uint16_t)(d->port + RTL_TSD + 4 * i), RTL_TSD_EARLY | len);
		d->given++;
		n->doorbells++;
	}
}

/* Of the descriptors that were given those that are done, in their order. */
static void tx_collect(struct rtl8139 *d)
{
	uint16_t summary = io_in16((uint16_t)(d->port + RTL_SUMMARY));

	while (d->done != d->given) {
		unsigned i = d->done % RTL_TX;

		/* the card has given it back: sent, or aborted */
		if (!(summary >> i & 1))
			break;
		d->net.errors += !(summary >> (12 + i) & 1);
		d->sent[d->nsent++] = d->queue[d->done % RTL_TX_QUEUE].token;
		d->done++;
	}
}

static void service(struct rtl8139 *d)
{
	uint32_t irqs = cpu_irq_count(d->vector);
	uint16_t isr;

	if (irqs == d->irq_seen)
		return;
	d->irq_seen = irqs;
	isr = io_in16((uint16_t)(d->port + RTL_ISR));
	io_out16((uint16_t)(d->port + RTL_ISR), isr);
	cpu_irq_eoi();
	if (isr & RTL_I_RECEIVE)
		d->rx_pending = true;
	if (isr & RTL_I_SENT)
		tx_collect(d);
	rtl_kick(&d->net);
}

static int rtl_sent(struct frontend_net *n, unsigned queue, uint64_t *tokens, unsigned max)
{
	struct rtl8139 *d = rtl_of(n);

	(void)queue;
	service(d);
	return (int)net_tokens_take(d->sent, &d->nsent, tokens, max);
}

/* ------------------------------------------------------------------ receiving */

/* What was handed out at the last call is the card's again. CAPR is 16 behind. */
static void rx_give_back(struct rtl8139 *d)
{
	if (d->rx_told == d->rx_at)
		return;
	d->rx_told = d->rx_at;
	io_out16((uint16_t)(d->port + RTL_CAPR), (uint16_t)(d->rx_at - 16));
}

static int rtl_receive(
	struct frontend_net *n, unsigned queue, struct frontend_net_rx *rx, unsigned max)
{
	struct rtl8139 *d = rtl_of(n);
	uint32_t status, len;
	const uint8_t *at;

	(void)queue;
	service(d);
	rx_give_back(d);
	if (!d->rx_pending)
		return 0;
	/* One at a time: whether there is another the card tells only when it knows what was taken.
	 */
	if (!max || io_in8((uint16_t)(d->port + RTL_CR)) & RTL_CR_EMPTY) {
		d->rx_pending = d->rx_pending && !max;
		return 0;
	}
	at = d->ring + d->rx_at;
	status = at[0] | (uint32_t)at[1] << 8;
	len = at[2] | (uint32_t)at[3] << 8;
	if (!(status & RTL_RX_OK) || len < RTL_FRAME_MIN + RTL_CRC ||
		len > RTL_FRAME_MAX + 4 + RTL_CRC) {
		n->errors++;
		d->rx_pending = false;
		return 0;
	}
	*rx = (struct frontend_net_rx){at + 4, len - RTL_CRC};
	d->rx_at = ((d->rx_at + 4 + len + 3) & ~3u) % RTL_RX_RING;
	return 1;
}

static bool rtl_wait_begin(struct frontend_net *n, bool rx, bool tx)
{
	struct rtl8139 *d = rtl_of(n);

	(void)rx;
	(void)tx;
	rx_give_back(d);
	return d->rx_pending || d->nsent || cpu_irq_count(d->vector) != d->irq_seen;
}

static void rtl_wait_end(struct frontend_net *n)
{
	service(rtl_of(n));
}

static uint32_t rtl_irqs(struct frontend_net *n)
{
	return cpu_irq_count(rtl_of(n)->vector);
}

static const struct frontend_net_ops rtl_ops = {
	.send = rtl_send,
	.kick = rtl_kick,
	.sent = rtl_sent,
	.receive = rtl_receive,
	.wait_begin = rtl_wait_begin,
	.wait_end = rtl_wait_end,
	.irqs = rtl_irqs,
};

/* ------------------------------------------------------------------ start */

static int start(struct rtl8139 *d)
{
	uint64_t end = clock_now() + clock_from_ns(RTL_RESET_US * 1000ull);

	io_out8((uint16_t)(d->port + RTL_CR), RTL_CR_RESET);
	while (io_in8((uint16_t)(d->port + RTL_CR)) & RTL_CR_RESET)
		if (clock_now() > end)
			return -GUEST_EIO;
	for (unsigned i = 0; i < 6; i++)
		d->net.mac[i] = io_in8((uint16_t)(d->port + RTL_IDR + i));
	io_out32((uint16_t)(d->port + RTL_RBSTART), (uint32_t)mem_phys(d->ring));
	io_out8((uint16_t)(d->port + RTL_CR), RTL_CR_RE | RTL_CR_TE);
	io_out32((uint16_t)(d->port + RTL_TCR), RTL_TCR_DMA | RTL_TCR_GAP);
	io_out32((uint16_t)(d->port + RTL_RCR),
		RTL_RCR_32K | RTL_RCR_NO_WRAP | RTL_RCR_DMA | RTL_RCR_ALL);
	for (unsigned i = 0; i < RTL_TX; i++)
		io_out32((uint16_t)(d->port + RTL_TSAD + 4 * i),
			(uint32_t)mem_phys(d->buffers + i * RTL_TX_BUFFER));
	io_out16((uint16_t)(d->port + RTL_ISR), 0xffff);
	io_out16((uint16_t)(d->port + RTL_IMR), RTL_I_RECEIVE | RTL_I_SENT);
	return 0;
}

int rtl8139_open(unsigned index, struct frontend_net **out)
{
	struct rtl8139 *d = mem_alloc(sizeof(*d), 64);
	struct pci_dev pci;
	struct pci_bar bar;
	int r;

	if (!d)
		return -GUEST_ENOMEM;
	r = pci_find(RTL_VENDOR, RTL_DEVICE, index, &pci);
	if (r)
		return r;
	pci_bar_get(&pci, 0, false, &bar);
	if (!bar.addr || !bar.io)
		return -GUEST_ENODEV;
	d->port = (uint16_t)bar.addr;
	pci_command_set(&pci, PCI_COMMAND_IO | PCI_COMMAND_MASTER, PCI_COMMAND_NO_INTX);
	d->buffers = mem_alloc(RTL_TX * RTL_TX_BUFFER, 4096);
	d->ring = mem_alloc(RTL_RX_RING + RTL_RX_SLACK, 4096);
	d->vector = cpu_line_vector(pci.line, true);
	if (!d->buffers || !d->ring || !d->vector)
		return -GUEST_ENOMEM;
	d->irq_seen = cpu_irq_count(d->vector);
	r = start(d);
	if (r)
		return r;
	d->net.ops = &rtl_ops;
	d->net.model = "rtl8139";
	d->net.queues = 1;
	d->net.tx_max = RTL_TX_QUEUE;
	*out = &d->net;
	return 0;
}
