/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net: frames from the driver to the port (5.1.6.2). */
#include <endian.h>
#include <errno.h>

#include "backend/backend.h"
#include "backend/split_net_priv.h"

#define TX_ROUNDS      4u
#define TX_RETRY_NS    100000u
#define GSO_HDR_OFFSET 14u

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
	segs_pull(&segs, &n, v->tx_plain ? NULL : &pkt->hdr, VNET_HDR_BYTES);
	pkt->segs = segs_iov(segs);
	pkt->nsegs = n;
	pkt->len = chain->out_len - VNET_HDR_BYTES;
	if (v->tx_plain)
		pkt->hdr = (struct net_vnet_hdr){0};
	return v->tx_plain || vnet_hdr_valid(v, pkt);
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
