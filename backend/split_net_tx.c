/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net: frames from the driver to the port, and the control queue (5.1.6.2, 5.1.6.5). */
#include <endian.h>
#include <errno.h>

#include "backend/backend.h"
#include "backend/split_net_priv.h"

#define TX_ROUNDS      4u
#define TX_RETRY_NS    100000u
#define GSO_HDR_OFFSET 14u

enum { VIRTIO_NET_CTRL_MQ = 4, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0 };
enum { VIRTIO_NET_OK = 0, VIRTIO_NET_ERR = 1 };

/* ------------------------------------------------------------------ transmit */

/*
 * The header is the driver's claim: nothing goes on to the port that was not negotiated or lies
 * outside the frame.
 */
static bool vnet_hdr_valid(const struct vnet *v, struct net_packet *pkt)
{
	struct net_vnet_hdr *h = &pkt->hdr;
	uint8_t type = h->gso_type & (uint8_t)~NET_GSO_ECN;

	h->flags &= NET_HDR_F_NEEDS_CSUM;
	h->num_buffers = 0;
	if (!h->flags && !h->gso_type) {
		h->hdr_len = h->gso_size = h->csum_start = h->csum_offset = 0;
		return true;
	}
	h->hdr_len = le16toh(h->hdr_len);
	h->gso_size = le16toh(h->gso_size);
	h->csum_start = le16toh(h->csum_start);
	h->csum_offset = le16toh(h->csum_offset);
	if (h->flags && (!split_has(&v->common, VIRTIO_NET_F_CSUM) ||
				(uint32_t)h->csum_start + h->csum_offset + 2 > pkt->len))
		return false;
	if (!h->gso_type)
		return true;
	if (type > NET_GSO_UDP_L4 || !(v->gso_allowed & 1u << type) || !h->gso_size || !h->flags)
		return false;
	if (h->gso_type & NET_GSO_ECN && !split_has(&v->common, VIRTIO_NET_F_HOST_ECN))
		return false;
	return h->csum_start >= GSO_HDR_OFFSET;
}

/* False: no frame that could be sent. */
static bool vnet_packet_make(
	const struct vnet *v, const struct ring_chain *chain, struct net_packet *pkt)
{
	struct ring_seg *segs = chain->segs;
	uint32_t n = chain->nout;

	if (chain->out_len < VNET_HDR_BYTES + NET_FRAME_MIN ||
		chain->out_len > VNET_HDR_BYTES + NET_FRAME_MAX)
		return false;
	segs_pull(&segs, &n, &pkt->hdr, VNET_HDR_BYTES);
	pkt->segs = segs_iov(segs);
	pkt->nsegs = n;
	pkt->len = chain->out_len - VNET_HDR_BYTES;
	return vnet_hdr_valid(v, pkt);
}

/* How many of n chains are done with; *bytes and *bad count among those. */
static unsigned vnet_tx_send(struct vnet *v, struct vnet_pair *p, unsigned n)
{
	unsigned npkts = 0, sent, done = n, bad;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!vnet_packet_make(v, &v->chains[i], &v->packets[npkts]))
			continue;
		v->packet_chain[npkts++] = (uint8_t)i;
	}
	sent = npkts ? net_port_send(v->port, p->rx.queue, v->packet_list, npkts) : 0;
	if (sent < npkts)
		done = v->packet_chain[sent];
	for (unsigned i = 0; i < sent; i++)
		bytes += v->packets[i].len;
	bad = done - sent;
	counter_add(&v->common.counters.requests, sent);
	counter_add(&v->common.counters.bytes, bytes);
	if (bad) {
		counter_add(&v->common.counters.malformed, bad);
		counter_add(&v->common.counters.dropped, bad);
	}
	return done;
}

/* A disabled queue: taken, and gone. */
static unsigned vnet_tx_discard(struct vnet *v, unsigned n)
{
	counter_add(&v->common.counters.dropped, n);
	return n;
}

static unsigned vnet_tx_batch(struct vnet *v, struct vnet_pair *p)
{
	struct split_queue *q = p->txq;
	uint64_t started_ns;
	unsigned n, done;

	n = split_popped(
		&v->common, ring_device_pop(&q->ring, v->chains, VNET_BATCH, v->segs, VNET_SEGS));
	if (!n)
		return 0;
	started_ns = clock_now_ns();
	done = q->disabled ? vnet_tx_discard(v, n) : vnet_tx_send(v, p, n);
	if (done < n) {
		/* full: they stay the driver's, in order, until there is room */
		ring_device_unpop(&q->ring, v->chains + done, n - done);
		p->tx_retry_ns = started_ns + TX_RETRY_NS;
	}
	for (unsigned i = 0; i < done; i++)
		v->used[i] = (struct ring_used){.id = v->chains[i].id};
	split_queue_push(q, v->used, done);
	if (done)
		histogram_add_n(&q->latency, clock_now_ns() - started_ns, done);
	return done;
}

unsigned vnet_tx_poll(struct vnet *v, struct vnet_pair *p)
{
	unsigned total = 0;

	if (p->tx_retry_ns) {
		if (io_thread_now_ns(v->common.io) < p->tx_retry_ns)
			return 0;
		p->tx_retry_ns = 0;
	}
	for (unsigned i = 0; i < TX_ROUNDS && !p->tx_retry_ns; i++) {
		unsigned n;

		if (!split_queue_live(p->txq) || !ring_device_has_work(&p->txq->ring))
			break;
		n = vnet_tx_batch(v, p);
		if (!n)
			break;
		total += n;
	}
	return total;
}

/* ------------------------------------------------------------------ control */

static uint8_t vnet_ctrl_command(struct vnet *v, const struct ring_chain *chain)
{
	struct ring_seg *segs = chain->segs;
	uint32_t n = chain->nout;
	uint8_t cmd[2];
	uint16_t pairs;

	if (!segs_pull(&segs, &n, cmd, sizeof(cmd)))
		goto malformed;
	if (cmd[0] != VIRTIO_NET_CTRL_MQ || cmd[1] != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
		!split_has(&v->common, VIRTIO_NET_F_MQ))
		return VIRTIO_NET_ERR;
	if (!segs_pull(&segs, &n, &pairs, sizeof(pairs)))
		goto malformed;
	pairs = le16toh(pairs);
	if (pairs < 1 || pairs > v->pairs)
		return VIRTIO_NET_ERR;
	return vnet_active_set(v, pairs) ? VIRTIO_NET_ERR : VIRTIO_NET_OK;

malformed:
	counter_add(&v->common.counters.malformed, 1);
	return VIRTIO_NET_ERR;
}

static void vnet_ctrl_one(struct vnet *v, struct split_queue *q, const struct ring_chain *chain)
{
	struct ring_used used = {.id = chain->id, .len = 1};
	uint8_t *ack, result;

	if (!chain->in_len) {
		used.len = 0;
		split_queue_push(q, &used, 1);
		split_break(&v->common);
		return;
	}
	ack = chain->segs[chain->nout].base;
	result = vnet_ctrl_command(v, chain);
	*(volatile uint8_t *)ack = result;
	if (v->common.dirty_log)
		ring_mem_dirty(v->common.mem, ack, 1);
	if (result != VIRTIO_NET_OK)
		counter_add(&v->common.counters.errors, 1);
	split_queue_push(q, &used, 1);
}

unsigned vnet_ctrl_poll(struct vnet *v, struct split_queue *q)
{
	unsigned n = 0;

	/* one at a time: a command changes what the next ones mean */
	while (n < VNET_BATCH && split_queue_live(q) && ring_device_has_work(&q->ring)) {
		if (!split_popped(&v->common,
			    ring_device_pop(&q->ring, v->chains, 1, v->segs, VNET_SEGS)))
			break;
		vnet_ctrl_one(v, q, &v->chains[0]);
		n++;
	}
	return n;
}
