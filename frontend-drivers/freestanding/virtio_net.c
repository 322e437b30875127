/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net (virtio 1.2, 5.1): queue pairs, mergeable receive buffers, segmentation by the device.
 */
#include "frontend-drivers/freestanding/virtio_pci_priv.h"

#define NET_PAIRS_MAX        8u
#define NET_CONFIG_MAC       0u
#define NET_CONFIG_PAIRS_MAX 8u
#define NET_HDR              12u
#define NET_BUFFER           2048u
#define NET_BURST            64u

#define CTRL_CLASS_MQ     4u
#define CTRL_MQ_PAIRS_SET 0u
#define CTRL_OK           0u
#define CTRL_TIMEOUT_US   1000000u

struct net_rx {
	uint8_t *buffers;
	uint16_t held[NET_BURST]; /* buffers handed out by the last receive() */
	unsigned nheld;
	uint8_t *bounce; /* a frame that came in several buffers, in one piece */
	uint32_t bounce_len;
	unsigned bounce_left; /* its buffers still to come */
};

struct virtio_net {
	struct frontend_net net;
	struct virtio_dev dev;
	bool mergeable;
	uint32_t tx_dirty; /* one bit for each pair */
	struct net_rx rx[NET_PAIRS_MAX];
	uint8_t ctrl[8];
};

/* Queues are receiveq1, transmitq1, receiveq2, ... (5.1.2) */
static inline struct virtio_queue *rx_queue(struct virtio_net *v, unsigned pair)
{
	return &v->dev.queues[2 * pair];
}

static inline struct virtio_queue *tx_queue(struct virtio_net *v, unsigned pair)
{
	return &v->dev.queues[2 * pair + 1];
}

static struct virtio_net *net_of(struct frontend_net *n)
{
	return (struct virtio_net *)((uint8_t *)n - offsetof(struct virtio_net, net));
}

/* The header goes into the headroom: header and frame are one segment, one descriptor. */
static int net_send(struct frontend_net *n, unsigned queue, const struct frontend_net_tx *tx)
{
	struct virtio_net *v = net_of(n);
	struct virtio_net_hdr *h = (void *)(tx->frame - NET_HDR);
	struct ring_sg sg = {mem_phys(h), tx->len + NET_HDR};
	int r;

	if (tx->gso_size && !(tx->gso_tcp ? n->gso_tcp : n->gso_udp))
		return -GUEST_ENOTSUP;
	r = ring_driver_add(&tx_queue(v, queue)->ring, &sg, 1, 0, tx->token);
	if (r)
		return r;
	/* Not visible to the device before the next publish. */
	virtio_net_header(h, tx);
	v->tx_dirty |= 1u << queue;
	return 0;
}

static void net_kick(struct frontend_net *n)
{
	struct virtio_net *v = net_of(n);

	for (unsigned i = 0; v->tx_dirty; i++) {
		if (v->tx_dirty & 1u << i)
			virtio_queue_flush(tx_queue(v, i));
		v->tx_dirty &= ~(1u << i);
	}
	n->doorbells = v->dev.doorbells;
}

static int net_sent(struct frontend_net *n, unsigned queue, uint64_t *tokens, unsigned max)
{
	struct virtio_net *v = net_of(n);
	struct ring_done done[NET_BURST];
	int r;

	r = ring_driver_collect(&tx_queue(v, queue)->ring, done, max < NET_BURST ? max : NET_BURST);
	if (r < 0)
		return -GUEST_EIO;
	for (int i = 0; i < r; i++)
		tokens[i] = done[i].token;
	return r;
}

static void rx_post(struct virtio_net *v, unsigned pair, uint16_t buffer)
{
	struct ring_sg sg = {
		mem_phys(v->rx[pair].buffers + (size_t)buffer * NET_BUFFER), NET_BUFFER};

	/* There are as many buffers as ring positions: it cannot be full. */
	if (ring_driver_add(&rx_queue(v, pair)->ring, &sg, 0, 1, buffer))
		v->net.errors++;
}

static void rx_recycle(struct virtio_net *v, unsigned pair)
{
	struct net_rx *x = &v->rx[pair];

	if (!x->nheld)
		return;
	for (unsigned i = 0; i < x->nheld; i++)
		rx_post(v, pair, x->held[i]);
	x->nheld = 0;
	virtio_queue_flush(rx_queue(v, pair));
	v->net.doorbells = v->dev.doorbells;
}

/* One more piece of a frame in several buffers. True when it was the last. */
static bool rx_merge(struct virtio_net *v, struct net_rx *x, const uint8_t *p, uint32_t len)
{
	if (x->bounce_len + len <= FRONTEND_NET_FRAME_MAX) {
		memcpy(x->bounce + x->bounce_len, p, len);
		x->bounce_len += len;
	} else {
		v->net.errors++;
	}
	return !--x->bounce_left;
}

/*
 * A merged frame ends the burst: there is one place to put it together in, and the caller may look
 * at it until the next call.
 */
static int net_receive(
	struct frontend_net *n, unsigned queue, struct frontend_net_rx *rx, unsigned max)
{
	struct virtio_net *v = net_of(n);
	struct net_rx *x = &v->rx[queue];
	struct ring_done done;
	int got = 0, r;

	rx_recycle(v, queue);
	if (max > NET_BURST)
		max = NET_BURST;
	while ((unsigned)got < max && x->nheld < NET_BURST) {
		const struct virtio_net_hdr *h;
		const uint8_t *p;

		r = ring_driver_collect(&rx_queue(v, queue)->ring, &done, 1);
		if (r < 0)
			return -GUEST_EIO;
		if (!r)
			break;
		x->held[x->nheld++] = (uint16_t)done.token;
		p = x->buffers + done.token * NET_BUFFER;
		if (x->bounce_left) {
			if (!rx_merge(v, x, p, done.len))
				continue;
			rx[got++] = (struct frontend_net_rx){x->bounce, x->bounce_len};
			break;
		}
		if (done.len < NET_HDR) {
			n->errors++;
			continue;
		}
		h = (const void *)p;
		p += NET_HDR;
		if (!v->mergeable || h->num_buffers <= 1) {
			rx[got++] = (struct frontend_net_rx){p, done.len - NET_HDR};
			continue;
		}
		x->bounce_len = 0;
		x->bounce_left = h->num_buffers;
		rx_merge(v, x, p, done.len - NET_HDR);
	}
	return got;
}

/* Sent frames are in no hurry: one interrupt when three quarters of them are done. */
static bool tx_interrupt_on(struct virtio_queue *q)
{
	uint32_t inflight = q->size - ring_driver_free(&q->ring);

	return ring_driver_interrupt_on(&q->ring, inflight > 4 ? inflight * 3 / 4 : 1);
}

static bool net_wait_begin(struct frontend_net *n, bool rx, bool tx)
{
	struct virtio_net *v = net_of(n);
	bool more = false;

	virtio_dev_line_ack(&v->dev);
	for (unsigned i = 0; i < n->queues; i++) {
		rx_recycle(v, i);
		if (rx)
			more |= ring_driver_interrupt_on(&rx_queue(v, i)->ring, 1);
		if (tx)
			more |= tx_interrupt_on(tx_queue(v, i));
	}
	return more;
}

static void net_wait_end(struct frontend_net *n)
{
	struct virtio_net *v = net_of(n);

	for (unsigned i = 0; i < n->queues; i++) {
		ring_driver_interrupt_off(&rx_queue(v, i)->ring);
		ring_driver_interrupt_off(&tx_queue(v, i)->ring);
	}
	virtio_dev_line_ack(&v->dev);
}

static uint32_t net_irqs(struct frontend_net *n)
{
	return virtio_dev_irqs(&net_of(n)->dev);
}

static const struct frontend_net_ops net_ops = {
	.send = net_send,
	.kick = net_kick,
	.sent = net_sent,
	.receive = net_receive,
	.wait_begin = net_wait_begin,
	.wait_end = net_wait_end,
	.irqs = net_irqs,
};

/* VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET (5.1.6.5.6), polled: it happens once. */
static int pairs_set(struct virtio_net *v, unsigned ctrl_queue, unsigned pairs)
{
	struct virtio_queue *q = &v->dev.queues[ctrl_queue];
	struct ring_sg sg[3] = {
		{mem_phys(&v->ctrl[0]), 2}, {mem_phys(&v->ctrl[2]), 2}, {mem_phys(&v->ctrl[4]), 1}};
	uint64_t end = clock_now() + clock_from_ns(CTRL_TIMEOUT_US * 1000ull);
	struct ring_done done;

	v->ctrl[0] = CTRL_CLASS_MQ;
	v->ctrl[1] = CTRL_MQ_PAIRS_SET;
	v->ctrl[2] = (uint8_t)pairs;
	v->ctrl[4] = 0xff;
	if (ring_driver_add(&q->ring, sg, 2, 1, 0))
		return -GUEST_EIO;
	virtio_queue_flush(q);
	while (!ring_driver_has_done(&q->ring)) {
		if (clock_now() > end)
			return -GUEST_ETIMEDOUT;
		cpu_relax();
	}
	if (ring_driver_collect(&q->ring, &done, 1) != 1)
		return -GUEST_EIO;
	return ring_load_relaxed(&v->ctrl[4]) == CTRL_OK ? 0 : -GUEST_EIO;
}

static int rx_make(struct virtio_net *v, unsigned pair)
{
	struct net_rx *x = &v->rx[pair];
	uint32_t size = rx_queue(v, pair)->size;

	x->buffers = mem_alloc((size_t)size * NET_BUFFER, 4096);
	x->bounce = mem_alloc(FRONTEND_NET_FRAME_MAX + 2 * NET_BUFFER, 64);
	return x->buffers && x->bounce ? 0 : -GUEST_ENOMEM;
}

static void rx_fill(struct virtio_net *v, unsigned pair)
{
	for (uint32_t i = 0; i < rx_queue(v, pair)->size; i++)
		rx_post(v, pair, (uint16_t)i);
	virtio_queue_flush(rx_queue(v, pair));
}

/* Receiving segments larger than one buffer needs mergeable buffers: without, they are not asked
 * for. */
static uint64_t features_wanted(unsigned pairs)
{
	uint64_t f = VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) |
		     VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) |
		     VIRTIO_BIT(VIRTIO_NET_F_HOST_USO) | VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) |
		     VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4);

	if (pairs > 1)
		f |= VIRTIO_BIT(VIRTIO_NET_F_MQ) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ);
	return f;
}

static int queues_make(struct virtio_net *v, unsigned pairs)
{
	unsigned ctrl = 0;
	int r;

	if (pairs > 1) {
		unsigned most;

		if (!virtio_dev_has(&v->dev, VIRTIO_NET_F_MQ) ||
			!virtio_dev_has(&v->dev, VIRTIO_NET_F_CTRL_VQ))
			return -GUEST_ENOTSUP;
		most = mmio_read16(v->dev.config + NET_CONFIG_PAIRS_MAX);
		if (pairs > most)
			return -GUEST_ENOTSUP;
		ctrl = 2 * most;
	}
	for (unsigned i = 0; i < 2 * pairs; i++) {
		r = virtio_dev_queue(&v->dev, i, 1);
		if (r)
			return r;
	}
	for (unsigned i = 0; i < pairs; i++) {
		r = rx_make(v, i);
		if (r)
			return r;
	}
	if (ctrl) {
		r = virtio_dev_queue(&v->dev, ctrl, 4);
		if (r)
			return r;
	}
	virtio_dev_start(&v->dev);
	for (unsigned i = 0; i < pairs; i++)
		rx_fill(v, i);
	return ctrl ? pairs_set(v, ctrl, pairs) : 0;
}

int virtio_net_open(unsigned index, unsigned queues, const struct frontend_virtio_options *o,
	struct frontend_net **out)
{
	struct virtio_net *v = mem_alloc(sizeof(*v), 64);
	struct frontend_net *n;
	int r;

	if (!v)
		return -GUEST_ENOMEM;
	n = &v->net;
	if (queues < 1)
		queues = 1;
	if (queues > NET_PAIRS_MAX)
		return -GUEST_ENOTSUP;
	r = virtio_dev_open(&v->dev, VIRTIO_NET_TYPE, index, features_wanted(queues), o);
	if (r)
		return r;
	v->mergeable = virtio_dev_has(&v->dev, VIRTIO_NET_F_MRG_RXBUF);
	r = queues_make(v, queues);
	if (r)
		return r;
	n->ops = &net_ops;
	n->model = "virtio-net";
	n->queues = queues;
	n->tx_max = tx_queue(v, 0)->size;
	n->gso_tcp = virtio_dev_has(&v->dev, VIRTIO_NET_F_HOST_TSO4);
	n->gso_udp = virtio_dev_has(&v->dev, VIRTIO_NET_F_HOST_USO);
	for (unsigned i = 0; i < 6; i++)
		n->mac[i] = mmio_read8(v->dev.config + NET_CONFIG_MAC + i);
	*out = n;
	return 0;
}
