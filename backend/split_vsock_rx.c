/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-vsock: packets to the driver. Resets first (their ports may be in use again), then the
 * connections in line, a packet each, read from the host's socket straight into the driver's
 * buffer.
 */
#include <endian.h>
#include <errno.h>
#include <sys/socket.h>

#include "backend/split_vsock_priv.h"

#define RX_BATCH 64u

/* ------------------------------------------------------------------ the driver's buffers */

static bool rx_take(struct vsock *v, struct ring_chain *chain)
{
	struct split_queue *q = &v->common.queues[VSOCK_Q_RX];

	if (!split_queue_live(q) || !ring_device_has_work(&q->ring))
		return false;
	if (!split_popped(
		    &v->common, ring_device_pop(&q->ring, chain, 1, v->segs, VSOCK_CHAIN_MAX)))
		return false;
	/* all of it for the device to write, with room for a header and something behind it */
	if (chain->nout || chain->in_len <= VSOCK_HDR_BYTES) {
		ring_device_unpop(&q->ring, chain, 1);
		split_break(&v->common);
		return false;
	}
	return true;
}

static void rx_push(
	struct vsock *v, const struct ring_chain *chain, const struct vsock_hdr *h, uint32_t len)
{
	struct ring_used used = {.id = chain->id, .len = VSOCK_HDR_BYTES + len};
	const uint8_t *from = (const uint8_t *)h;
	uint32_t left = VSOCK_HDR_BYTES, marked = used.len;

	for (uint32_t i = 0; left; i++) {
		uint32_t part = chain->segs[i].len < left ? (uint32_t)chain->segs[i].len : left;

		memcpy(chain->segs[i].base, from, part);
		from += part;
		left -= part;
	}
	for (uint32_t i = 0; marked && v->common.dirty_log; i++) {
		uint32_t part = chain->segs[i].len < marked ? (uint32_t)chain->segs[i].len : marked;

		ring_mem_dirty(v->common.mem, chain->segs[i].base, part);
		marked -= part;
	}
	split_queue_push(&v->common.queues[VSOCK_Q_RX], &used, 1);
	counter_add(&v->common.counters.requests, 1);
	counter_add(&v->common.counters.bytes, len);
}

/* ------------------------------------------------------------------ one packet */

static struct vsock_hdr conn_hdr(
	struct vsock *v, struct vsock_conn *c, uint16_t op, uint32_t len, uint32_t flags)
{
	c->told = c->forwarded;
	c->pending &= (uint8_t)~VSOCK_P_CREDIT;
	return (struct vsock_hdr){
		.src_cid = htole64(VSOCK_CID_HOST),
		.dst_cid = htole64(v->cid),
		.src_port = htole32(c->host_port),
		.dst_port = htole32(c->guest_port),
		.len = htole32(len),
		.type = htole16(VSOCK_TYPE_STREAM),
		.op = htole16(op),
		.flags = htole32(flags),
		.buf_alloc = htole32(VSOCK_BUFFER),
		.fwd_cnt = htole32(c->forwarded),
	};
}

/* Pieces of the buffer behind the header, at most max bytes. */
static uint32_t payload_iov(struct vsock *v, const struct ring_chain *chain, uint32_t max)
{
	uint32_t skip = VSOCK_HDR_BYTES, n = 0;

	for (uint32_t i = 0; i < chain->nin && max; i++) {
		struct ring_seg *s = &chain->segs[i];
		size_t len = s->len > skip ? s->len - skip : 0;

		if (len > max)
			len = max;
		if (len)
			v->iov[n++] = (struct iovec){(uint8_t *)s->base + skip, len};
		skip -= s->len < skip ? (uint32_t)s->len : skip;
		max -= (uint32_t)len;
	}
	return n;
}

/* Bytes from the host for the guest. True: the buffer was used. */
static bool conn_read(struct vsock *v, struct vsock_conn *c, const struct ring_chain *chain)
{
	uint32_t max = vsock_credit(c);
	struct msghdr msg = {.msg_iov = v->iov};
	struct vsock_hdr h;
	ssize_t n;

	msg.msg_iovlen = payload_iov(v, chain, max < VSOCK_PACKET_MAX ? max : VSOCK_PACKET_MAX);
	counter_add(&v->common.counters.system_calls, 1);
	do
		n = recvmsg(c->fd, &msg, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		c->sent += (uint32_t)n;
		h = conn_hdr(v, c, VSOCK_OP_RW, (uint32_t)n, 0);
		rx_push(v, chain, &h, (uint32_t)n);
		return true;
	}
	if (!n)
		vsock_conn_eof(v, c);
	else if (errno == EAGAIN)
		c->readable = false;
	else
		vsock_conn_kill(v, c); /* the program threw away what the guest had sent */
	return false;
}

/* What comes before data. 0: nothing. */
static uint16_t op_first(struct vsock_conn *c)
{
	if (c->pending & VSOCK_P_REQUEST) {
		c->pending &= (uint8_t)~VSOCK_P_REQUEST;
		return VSOCK_OP_REQUEST;
	}
	if (c->pending & VSOCK_P_RESPONSE) {
		c->pending &= (uint8_t)~VSOCK_P_RESPONSE;
		c->readable = true;
		return VSOCK_OP_RESPONSE;
	}
	return 0;
}

static uint16_t op_last(struct vsock_conn *c)
{
	if (c->pending & VSOCK_P_SHUTDOWN) {
		c->pending &= (uint8_t)~VSOCK_P_SHUTDOWN;
		return VSOCK_OP_SHUTDOWN;
	}
	if (c->pending & VSOCK_P_CREDIT_ASK) {
		c->pending &= (uint8_t)~VSOCK_P_CREDIT_ASK;
		return VSOCK_OP_CREDIT_REQUEST;
	}
	return c->pending & VSOCK_P_CREDIT ? VSOCK_OP_CREDIT_UPDATE : 0;
}

/* True: the buffer was used. The connection may be gone, or have more for another turn. */
static bool conn_serve(struct vsock *v, struct vsock_conn *c, const struct ring_chain *chain)
{
	uint16_t op = op_first(c);
	struct vsock_hdr h;

	if (!op && vsock_conn_may_read(c) && vsock_credit(c)) {
		if (conn_read(v, c, chain)) {
			vsock_conn_queue(v, c);
			return true;
		}
		if (c->state == VSOCK_FREE)
			return false;
	}
	if (!op)
		op = op_last(c);
	if (!op)
		return false;
	h = conn_hdr(v, c, op, 0, op == VSOCK_OP_SHUTDOWN ? c->host_shut : 0);
	rx_push(v, chain, &h, 0);
	vsock_conn_queue(v, c);
	return true;
}

static void rst_serve(struct vsock *v, const struct ring_chain *chain)
{
	const struct vsock_rst *r = &v->rsts[v->rst_head];
	struct vsock_hdr h = {
		.src_cid = htole64(r->src_cid),
		.dst_cid = htole64(v->cid),
		.src_port = htole32(r->src_port),
		.dst_port = htole32(r->dst_port),
		.type = htole16(r->type),
		.op = htole16(VSOCK_OP_RST),
	};

	v->rst_head = (v->rst_head + 1) % v->rst_room;
	v->nrsts--;
	rx_push(v, chain, &h, 0);
}

/* The next in line; the line is not empty. */
static struct vsock_conn *line_next(struct vsock *v)
{
	struct vsock_conn *c = &v->conns[v->list_head];

	v->list_head = c->list_next;
	if (v->list_head == VSOCK_NONE)
		v->list_tail = VSOCK_NONE;
	c->listed = false;
	return c;
}

/* ------------------------------------------------------------------ polls */

unsigned vsock_rx_poll(struct vsock *v)
{
	struct ring_chain chain;
	unsigned n = 0;

	v->rx_dry = false;
	while (n < RX_BATCH && (v->nrsts || v->list_head != VSOCK_NONE)) {
		if (!rx_take(v, &chain)) {
			v->rx_dry = true;
			break;
		}
		n++;
		if (v->nrsts)
			rst_serve(v, &chain);
		else if (!conn_serve(v, line_next(v), &chain))
			ring_device_unpop(&v->common.queues[VSOCK_Q_RX].ring, &chain, 1);
	}
	return n;
}

unsigned vsock_event_poll(struct vsock *v)
{
	static const uint32_t event = VSOCK_EVENT_TRANSPORT_RESET;
	struct split_queue *q = &v->common.queues[VSOCK_Q_EVENT];
	const uint8_t *from = (const uint8_t *)&event;
	struct ring_used used = {.len = sizeof(event)};
	uint32_t left = sizeof(event);
	struct ring_chain chain;

	if (!v->event_owed || !split_queue_live(q) || !ring_device_has_work(&q->ring))
		return 0;
	if (!split_popped(
		    &v->common, ring_device_pop(&q->ring, &chain, 1, v->segs, VSOCK_CHAIN_MAX)))
		return 0;
	if (chain.nout || chain.in_len < sizeof(event)) {
		ring_device_unpop(&q->ring, &chain, 1);
		split_break(&v->common);
		return 0;
	}
	for (uint32_t i = 0; left; i++) {
		uint32_t part = chain.segs[i].len < left ? (uint32_t)chain.segs[i].len : left;

		memcpy(chain.segs[i].base, from, part);
		if (v->common.dirty_log)
			ring_mem_dirty(v->common.mem, chain.segs[i].base, part);
		from += part;
		left -= part;
	}
	used.id = chain.id;
	split_queue_push(q, &used, 1);
	v->event_owed = false;
	return 1;
}
