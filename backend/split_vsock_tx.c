/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-vsock: packets from the driver (5.10.6). */
#include <endian.h>

#include "backend/split_vsock_priv.h"

#define TX_BATCH 32u

static void hdr_from_wire(struct vsock_hdr *h)
{
	h->src_cid = le64toh(h->src_cid);
	h->dst_cid = le64toh(h->dst_cid);
	h->src_port = le32toh(h->src_port);
	h->dst_port = le32toh(h->dst_port);
	h->len = le32toh(h->len);
	h->type = le16toh(h->type);
	h->op = le16toh(h->op);
	h->flags = le32toh(h->flags);
	h->buf_alloc = le32toh(h->buf_alloc);
	h->fwd_cnt = le32toh(h->fwd_cnt);
}

static void packet_malformed(struct vsock *v)
{
	counter_add(&v->common.counters.malformed, 1);
}

/* No reset answers a reset. */
static void packet_refuse(struct vsock *v, const struct vsock_hdr *h)
{
	if (h->op != VSOCK_OP_RST)
		vsock_rst_queue(v, h->dst_cid, h->dst_port, h->src_port, h->type);
}

/*
 * What the driver says of its buffer. A count that is behind what it said before is an old packet's
 * (senders may overtake one another); one ahead of what it was sent is a lie. False: a lie.
 */
static bool credit_learn(struct vsock_conn *c, const struct vsock_hdr *h)
{
	uint32_t flying = c->sent - c->guest_fwd, advance = h->fwd_cnt - c->guest_fwd;

	c->guest_alloc = h->buf_alloc;
	if (advance <= flying)
		c->guest_fwd = h->fwd_cnt;
	else if ((int32_t)advance > 0)
		return false;
	if (vsock_credit(c))
		c->credit_asked = false;
	return true;
}

static void packet_request(struct vsock *v, const struct vsock_hdr *h)
{
	struct vsock_conn *c = vsock_connect(v, h->src_port, h->dst_port);

	if (!c) {
		packet_refuse(v, h);
		return;
	}
	c->guest_alloc = h->buf_alloc;
	vsock_conn_queue(v, c);
}

/* False: a mistake of the driver. */
static bool packet_data(struct vsock *v, struct vsock_conn *c, const struct vsock_hdr *h,
	struct ring_seg *segs, uint32_t n)
{
	uint32_t left = h->len;

	if (c->guest_shut & VSOCK_SHUT_SEND || h->len > VSOCK_BUFFER - (c->got - c->forwarded))
		return false;
	if (!h->len)
		return true;
	/* the chain may be longer than the packet */
	for (uint32_t i = 0; i < n; i++) {
		if (segs[i].len >= left) {
			segs[i].len = left;
			n = i + 1;
			break;
		}
		left -= (uint32_t)segs[i].len;
	}
	counter_add(&v->common.counters.bytes, h->len);
	vsock_conn_write(v, c, segs_iov(segs), n, h->len);
	return true;
}

/* The driver's packets for a connection there is. False: a mistake. c may be gone afterwards. */
static bool packet_known(struct vsock *v, struct vsock_conn *c, const struct vsock_hdr *h,
	struct ring_seg *segs, uint32_t n)
{
	if (h->op == VSOCK_OP_RST) {
		vsock_conn_free(v, c);
		return true;
	}
	if (!credit_learn(c, h))
		return false;
	if (c->state == VSOCK_ASKED) {
		if (h->op != VSOCK_OP_RESPONSE || c->pending & VSOCK_P_REQUEST)
			return false;
		vsock_handshake_done(v, c);
		return true;
	}
	switch (h->op) {
	case VSOCK_OP_RW:
		if (!packet_data(v, c, h, segs, n))
			return false;
		break;
	case VSOCK_OP_CREDIT_UPDATE:
		break;
	case VSOCK_OP_CREDIT_REQUEST:
		c->pending |= VSOCK_P_CREDIT;
		break;
	case VSOCK_OP_SHUTDOWN:
		vsock_conn_guest_shut(v, c, (uint8_t)(h->flags & VSOCK_SHUT_BOTH));
		/* with both directions it is another's slot now, or nobody's */
		if (c->state != VSOCK_OPEN)
			return true;
		break;
	default:
		return false;
	}
	vsock_conn_queue(v, c);
	return true;
}

static void packet_take(struct vsock *v, const struct ring_chain *chain)
{
	struct ring_seg *segs = chain->segs;
	uint32_t n = chain->nout;
	struct vsock_conn *c;
	struct vsock_hdr h;

	if (!segs_pull(&segs, &n, &h, sizeof(h))) {
		packet_malformed(v);
		return;
	}
	hdr_from_wire(&h);
	counter_add(&v->common.counters.requests, 1);
	if (h.src_cid != v->cid) {
		/* nobody to answer to */
		counter_add(&v->common.counters.dropped, 1);
		return;
	}
	if (h.dst_cid != VSOCK_CID_HOST || h.type != VSOCK_TYPE_STREAM) {
		counter_add(&v->common.counters.dropped, 1);
		packet_refuse(v, &h);
		return;
	}
	c = vsock_conn_find(v, h.src_port, h.dst_port);
	if (h.op == VSOCK_OP_RW && h.len > chain->out_len - VSOCK_HDR_BYTES) {
		packet_malformed(v);
		if (c)
			vsock_conn_kill(v, c);
		else
			packet_refuse(v, &h);
		return;
	}
	if (!c) {
		if (h.op == VSOCK_OP_REQUEST)
			packet_request(v, &h);
		else
			packet_refuse(v, &h);
		return;
	}
	if (!packet_known(v, c, &h, segs, n)) {
		packet_malformed(v);
		vsock_conn_kill(v, c);
	}
}

unsigned vsock_tx_poll(struct vsock *v)
{
	struct split_queue *q = &v->common.queues[VSOCK_Q_TX];
	struct ring_chain chain;
	unsigned n = 0;

	/* one at a time: each may leave a reset behind, and those have bounded room */
	while (n < TX_BATCH && v->nrsts < VSOCK_RST_HOLD && split_queue_live(q) &&
		ring_device_has_work(&q->ring)) {
		struct ring_used used;

		if (!split_popped(&v->common,
			    ring_device_pop(&q->ring, &chain, 1, v->segs, VSOCK_CHAIN_MAX)))
			break;
		packet_take(v, &chain);
		used = (struct ring_used){.id = chain.id};
		split_queue_push(q, &used, 1);
		n++;
	}
	return n;
}
