/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames on their way out: what may not leave here is filtered, the tag is put in or left out, and
 * the port's user gets them. The bytes behind the type stay where they are: one copy, into the
 * receiver's own memory, is all that is made of a frame between two guests of a worker.
 */
#include <string.h>

#include "netbridge/switch_priv.h"

#define TYPE_VLAN    0x8100u
#define TCI_PRIORITY 0xf000u /* with the drop eligible bit */

/* 8.8.2, and 6.9: may the frame leave here, and with a tag? */
static bool vlan_out(const struct switch_conf *c, const struct switch_frame *f, bool *tag)
{
	*tag = false;
	if (f->vlan == c->o.vlan)
		return true;
	*tag = true;
	return c->o.trunk && switch_vlan_allowed(c, f->vlan);
}

/* The frame with its new head as w->out[at]; false: no room for its segments. */
static bool packet_build(
	struct switch_worker *w, const struct switch_frame *f, bool tag, unsigned at)
{
	struct net_packet *p = &w->out[at];
	uint8_t *head = w->heads[at];
	struct iovec *segs = &w->segs[w->nsegs];
	uint32_t len = SWITCH_ADDRS, skip = f->body, n = 1;

	if (f->pkt->nsegs + 1 > SWITCH_SEGS - w->nsegs)
		return false;
	memcpy(head, f->addrs, SWITCH_ADDRS);
	if (tag) {
		net_put16(head + len, TYPE_VLAN);
		net_put16(head + len + 2, (uint16_t)((f->tci & TCI_PRIORITY) | f->vlan));
		len += SWITCH_VLAN_TAG;
	}
	memcpy(head + len, f->type, sizeof(f->type));
	len += sizeof(f->type);
	segs[0] = (struct iovec){head, len};
	for (uint32_t i = 0; i < f->pkt->nsegs; i++) {
		const struct iovec *s = &f->pkt->segs[i];

		if (s->iov_len <= skip) {
			skip -= (uint32_t)s->iov_len;
			continue;
		}
		segs[n++] = (struct iovec){(uint8_t *)s->iov_base + skip, s->iov_len - skip};
		skip = 0;
	}
	w->nsegs += n;
	p->segs = segs;
	p->nsegs = n;
	p->len = f->pkt->len - f->body + len;
	p->hdr = f->pkt->hdr;
	if (len != f->body && p->hdr.flags) {
		p->hdr.csum_start = (uint16_t)(p->hdr.csum_start + len - f->body);
		p->hdr.hdr_len = (uint16_t)(p->hdr.hdr_len ? p->hdr.hdr_len + len - f->body : 0);
	}
	return p->len <= NET_FRAME_MAX;
}

/* ------------------------------------------------------------------ to the port's user */

/* How many of them the user takes. */
static unsigned offer(
	struct switch_port *to, struct switch_queue *q, struct net_packet *const *list, unsigned n)
{
	uint32_t accepted = atomic_load_explicit(&to->port.accepted, memory_order_relaxed);
	unsigned k = 0;

	while (k < n && !switch_work_beyond(list[k], accepted))
		k++;
	return k ? q->taker.offer(q->taker.ctx, list, k) : 0;
}

/* Those who wait come first. True: nobody waits. */
static bool offer_waiting(struct switch_port *to, struct switch_queue *q)
{
	struct net_packet pkts[SWITCH_BATCH], *list[SWITCH_BATCH];
	struct iovec segs[SWITCH_BATCH];
	unsigned n, took;

	while (net_fifo_ready(&q->fifo)) {
		/* one that is given in pieces is not to be given whole */
		n = q->fifo.segmenting ? 0
				       : net_fifo_peek(&q->fifo, pkts, segs, NULL, SWITCH_BATCH);
		for (unsigned i = 0; i < n; i++)
			list[i] = &pkts[i];
		took = n ? offer(to, q, list, n) : 0;
		if (took)
			net_fifo_skip(&q->fifo, took);
		if (!n || took < n)
			return false;
	}
	return true;
}

/* What the user does not take waits, bounded, for its next look; how many were lost. */
static unsigned wait_for_user(struct switch_queue *q, struct net_packet *const *list, unsigned n)
{
	uint64_t used = net_fifo_used(&q->fifo);
	unsigned lost = 0;

	if (used >= SWITCH_BACKLOG_BYTES)
		return n;
	net_fifo_rewind(&q->fifo);
	for (unsigned i = 0; i < n; i++) {
		used += list[i]->len;
		lost += used >= SWITCH_BACKLOG_BYTES ||
			net_fifo_push(&q->fifo, list[i], SWITCH_OFFLOADS);
	}
	net_fifo_publish(&q->fifo);
	return lost;
}

static void offered_send(
	struct switch_port *to, unsigned queue, struct net_packet *const *list, unsigned n)
{
	struct switch_queue *q = &to->q[queue];
	unsigned done = 0, lost = 0;
	uint64_t bytes = 0;

	if (q->taker.offer && offer_waiting(to, q))
		done = offer(to, q, list, n);
	if (done < n)
		lost = wait_for_user(q, list + done, n - done);
	if (lost) {
		net_count(&to->full, lost);
		net_count(&to->c.tx_dropped, lost);
	}
	for (unsigned i = 0; i < n - lost; i++)
		bytes += list[i]->len;
	net_count(&to->c.tx_packets, n - lost);
	net_count(&to->c.tx_bytes, bytes);
}

static void queue_send(struct switch_worker *w, struct switch_port *to, unsigned queue,
	struct net_packet *const *list, unsigned n)
{
	if (to->join)
		switch_join_send(w, to, queue, list, n);
	else
		offered_send(to, queue, list, n);
}

/* Receive-side scaling: a flow keeps its queue, and with it its order. */
static void flows_send(struct switch_worker *w, struct switch_port *to, unsigned queues,
	struct net_packet *const *list, unsigned n)
{
	uint8_t queue[SWITCH_BATCH];
	uint64_t left = switch_all(n), rest;

	for (unsigned i = 0; i < n; i++)
		queue[i] = (uint8_t)(switch_flow_hash(list[i]) % queues);
	while (left) {
		unsigned q = queue[__builtin_ctzll(left)], k = 0;

		for (rest = left; rest; rest &= rest - 1) {
			unsigned i = (unsigned)__builtin_ctzll(rest);

			if (queue[i] != q)
				continue;
			w->flow_list[k++] = list[i];
			left &= ~(1ull << i);
		}
		queue_send(w, to, q, w->flow_list, k);
	}
}

static void list_send(struct switch_worker *w, struct switch_port *to, unsigned n)
{
	unsigned queues = to->join ? to->queues
				   : atomic_load_explicit(&to->port.in_use, memory_order_relaxed);

	if (n && queues > 1)
		flows_send(w, to, queues, w->list, n);
	else if (n)
		queue_send(w, to, 0, w->list, n);
	w->nsegs = 0;
}

void switch_egress(
	struct switch_worker *w, struct switch_port *to, struct switch_frame **frames, unsigned n)
{
	const struct switch_conf *c = switch_conf(to);
	bool limited = switch_rate_set(&c->o.out), tag;
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct switch_frame *f = frames[i];

		if (f->source == to->index)
			continue; /* 8.6.1: never back to where it came from */
		if (!vlan_out(c, f, &tag) || (f->isolated && c->o.isolated)) {
			net_count(&to->filtered, 1);
			continue;
		}
		if (limited && !switch_rate_take(&to->out, &c->o.out, w->now_ns, f->pkt->len)) {
			net_count(&to->limited_out, 1);
			continue;
		}
		if (!c->o.trunk && f->body == NET_FRAME_MIN) {
			/* as it is: where nobody looks for a tag, none can be slipped in */
			w->list[k++] = f->pkt;
			continue;
		}
		if (!packet_build(w, f, tag, k)) {
			list_send(w, to, k);
			k = 0;
			if (!packet_build(w, f, tag, 0)) {
				net_count(&to->c.errors, 1);
				continue;
			}
		}
		w->list[k] = &w->out[k];
		k++;
	}
	list_send(w, to, k);
}
