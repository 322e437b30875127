/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-vsock: the table of connections and the host's side of each.
 *
 * Sockets are watched edge-triggered in an epoll descriptor of the device's own: what an event said
 * is remembered (`readable`) until the socket says EAGAIN, so that a socket nobody can serve now
 * (no credit, no buffers) does not keep the thread awake.
 */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/split_vsock_priv.h"

#define EVENTS    (EPOLLIN | EPOLLRDHUP | EPOLLET)
#define ANSWER_NS 10000000000ull /* for the guest to answer a request or a shutdown */
#define DRAIN_NS  60000000000ull /* for the host to take what a finished guest had sent */
#define TICK_NS   250000000ull

/* ------------------------------------------------------------------ table */

static uint16_t *bucket(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	uint32_t h = (guest_port * 2654435761u) ^ (host_port * 2246822519u);

	return &v->hash[(h ^ h >> 15) & v->hash_mask];
}

struct vsock_conn *vsock_conn_find(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	for (uint16_t i = *bucket(v, guest_port, host_port); i != VSOCK_NONE;
		i = v->conns[i].hash_next) {
		struct vsock_conn *c = &v->conns[i];

		if (c->guest_port == guest_port && c->host_port == host_port)
			return c;
	}
	return NULL;
}

void vsock_conn_hash(struct vsock *v, struct vsock_conn *c)
{
	uint16_t *b = bucket(v, c->guest_port, c->host_port);

	c->hash_next = *b;
	*b = (uint16_t)(c - v->conns);
}

static void conn_unhash(struct vsock *v, struct vsock_conn *c)
{
	uint16_t *at = bucket(v, c->guest_port, c->host_port);

	if (c->state != VSOCK_ASKED && c->state != VSOCK_OPEN)
		return;
	while (*at != (uint16_t)(c - v->conns))
		at = &v->conns[*at].hash_next;
	*at = c->hash_next;
}

void vsock_deadline_set(struct vsock *v, struct vsock_conn *c, uint64_t after_ns)
{
	uint64_t now = clock_now_ns();

	v->deadlines += (after_ns != 0) - (c->deadline_ns != 0);
	c->deadline_ns = after_ns ? now + after_ns : 0;
	if (after_ns && !v->tick.at_ns)
		io_timer_set(v->common.io, &v->tick, now + TICK_NS);
}

struct vsock_conn *vsock_conn_new(struct vsock *v, int fd)
{
	struct epoll_event ev = {.events = EVENTS};
	uint16_t i = v->free_list;
	struct vsock_conn *c;

	if (i == VSOCK_NONE)
		return NULL;
	c = &v->conns[i];
	ev.data.u64 = i;
	counter_add(&v->common.counters.system_calls, 1);
	if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		return NULL;
	v->free_list = c->list_next;
	v->nopen++;

	*c = (struct vsock_conn){.fd = fd, .hash_next = VSOCK_NONE};
	return c;
}

void vsock_conn_free(struct vsock *v, struct vsock_conn *c)
{
	uint16_t i = (uint16_t)(c - v->conns);

	conn_unhash(v, c);
	vsock_deadline_set(v, c, 0);
	close(c->fd); /* which also takes it out of the epoll descriptor */
	counter_add(&v->common.counters.system_calls, 1);
	if (c->buffer_used)
		madvise(v->buffers + (size_t)i * VSOCK_BUFFER, VSOCK_BUFFER, MADV_DONTNEED);
	if (c->listed) {
		uint16_t *at = &v->list_head, last = VSOCK_NONE;

		while (*at != i) {
			last = *at;
			at = &v->conns[*at].list_next;
		}
		*at = c->list_next;
		if (v->list_tail == i)
			v->list_tail = last;
	}
	*c = (struct vsock_conn){.fd = -1, .list_next = v->free_list};
	v->free_list = i;
	v->nopen--;
}

void vsock_rst_queue(
	struct vsock *v, uint64_t src_cid, uint32_t src_port, uint32_t dst_port, uint16_t type)
{
	struct vsock_rst *r;

	if (v->nrsts == v->rst_room) {
		counter_add(&v->common.counters.dropped, 1);
		return;
	}
	r = &v->rsts[(v->rst_head + v->nrsts++) % v->rst_room];
	*r = (struct vsock_rst){
		.src_cid = src_cid, .src_port = src_port, .dst_port = dst_port, .type = type};
	counter_add(&v->common.counters.errors, 1);
}

void vsock_conn_kill(struct vsock *v, struct vsock_conn *c)
{
	bool known = c->state == VSOCK_OPEN ||
		     (c->state == VSOCK_ASKED && !(c->pending & VSOCK_P_REQUEST));

	if (known)
		vsock_rst_queue(v, VSOCK_CID_HOST, c->host_port, c->guest_port, VSOCK_TYPE_STREAM);
	vsock_conn_free(v, c);
}

void vsock_conns_close(struct vsock *v)
{
	for (uint16_t i = 0; i < v->nconns; i++)
		if (v->conns[i].state != VSOCK_FREE)
			vsock_conn_free(v, &v->conns[i]);
	v->nrsts = 0;
}

/* ------------------------------------------------------------------ credit and line */

uint32_t vsock_credit(const struct vsock_conn *c)
{
	uint32_t flying = c->sent - c->guest_fwd;

	return flying < c->guest_alloc ? c->guest_alloc - flying : 0;
}

bool vsock_conn_may_read(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && c->readable && !c->eof &&
	       !(c->guest_shut & VSOCK_SHUT_RCV);
}

void vsock_conn_queue(struct vsock *v, struct vsock_conn *c)
{
	uint16_t i = (uint16_t)(c - v->conns);

	if (vsock_conn_may_read(c) && !vsock_credit(c) && !c->credit_asked) {
		/* asked once; the answer, or any other packet, says how much there is */
		c->credit_asked = true;
		c->pending |= VSOCK_P_CREDIT_ASK;
	}
	if (c->listed || (!c->pending && !(vsock_conn_may_read(c) && vsock_credit(c))))
		return;
	c->listed = true;
	c->list_next = VSOCK_NONE;
	if (v->list_head == VSOCK_NONE)
		v->list_head = i;
	else
		v->conns[v->list_tail].list_next = i;
	v->list_tail = i;
}

/* Told when the guest believes that less than half of the buffer is free, and more is. */
static void conn_forwarded(struct vsock *v, struct vsock_conn *c, uint32_t n)
{
	c->forwarded += n;
	if (c->state != VSOCK_OPEN || c->guest_shut & VSOCK_SHUT_SEND)
		return;
	if (c->forwarded != c->told && c->got - c->told > VSOCK_BUFFER / 2) {
		c->pending |= VSOCK_P_CREDIT;
		vsock_conn_queue(v, c);
	}
}

/* ------------------------------------------------------------------ to the host */

static void conn_out_watch(struct vsock *v, struct vsock_conn *c, bool on)
{
	struct epoll_event ev = {
		.events = EVENTS | (on ? EPOLLOUT : 0), .data.u64 = (uint64_t)(c - v->conns)};

	if (c->wants_out == on)
		return;
	c->wants_out = on;
	counter_add(&v->common.counters.system_calls, 1);
	epoll_ctl(v->epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

/* The host's program reads no more: what the guest sent and sends is thrown away. */
static void conn_deaf(struct vsock *v, struct vsock_conn *c)
{
	uint32_t lost = c->held;

	c->held = 0;
	conn_out_watch(v, c, false);
	if (c->state != VSOCK_OPEN)
		return;
	c->host_shut |= VSOCK_SHUT_RCV;
	c->pending |= VSOCK_P_SHUTDOWN;
	conn_forwarded(v, c, lost);
	if (lost)
		counter_add(&v->common.counters.dropped, 1);
	vsock_conn_queue(v, c);
}

/* Bytes taken; 0: none now; negative: none ever. */
static ssize_t conn_send(struct vsock *v, struct vsock_conn *c, struct iovec *iov, uint32_t niov)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = niov};
	ssize_t n;

	counter_add(&v->common.counters.system_calls, 1);
	do
		n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	return n;
}

static uint8_t *conn_buffer(struct vsock *v, struct vsock_conn *c)
{
	return v->buffers + (size_t)(c - v->conns) * VSOCK_BUFFER;
}

static void buffer_put(
	struct vsock *v, struct vsock_conn *c, struct iovec *iov, uint32_t niov, uint32_t len)
{
	uint8_t *b = conn_buffer(v, c);

	c->buffer_used = true;
	while (len && niov) {
		uint32_t at = (c->head + c->held) % VSOCK_BUFFER;
		size_t part = VSOCK_BUFFER - at;

		if (part > iov->iov_len)
			part = iov->iov_len;
		memcpy(b + at, iov->iov_base, part);
		iov->iov_base = (uint8_t *)iov->iov_base + part;
		iov->iov_len -= part;
		c->held += (uint32_t)part;
		len -= (uint32_t)part;
		if (!iov->iov_len) {
			iov++;
			niov--;
		}
	}
}

void vsock_conn_write(
	struct vsock *v, struct vsock_conn *c, struct iovec *iov, uint32_t niov, uint32_t len)
{
	ssize_t n = 0;

	c->got += len;
	if (c->host_shut & VSOCK_SHUT_RCV) {
		conn_forwarded(v, c, len);
		return;
	}
	if (!c->held) {
		n = conn_send(v, c, iov, niov);
		if (n < 0) {
			conn_forwarded(v, c, len);
			conn_deaf(v, c);
			return;
		}
		conn_forwarded(v, c, (uint32_t)n);
	}
	if ((uint32_t)n == len)
		return;
	segs_pull((struct ring_seg **)&iov, &niov, NULL, (size_t)n);
	buffer_put(v, c, iov, niov, len - (uint32_t)n);
	conn_out_watch(v, c, true);
}

/* What was held has gone: what waited for it. True: the connection is gone too. */
static bool conn_flushed(struct vsock *v, struct vsock_conn *c)
{
	conn_out_watch(v, c, false);
	if (c->state == VSOCK_DRAIN) {
		vsock_conn_free(v, c);
		return true;
	}
	if (c->guest_shut & VSOCK_SHUT_SEND)
		shutdown(c->fd, SHUT_WR);
	return false;
}

/* True: the connection is gone. */
static bool conn_flush(struct vsock *v, struct vsock_conn *c)
{
	uint8_t *b = conn_buffer(v, c);

	while (c->held) {
		uint32_t first = VSOCK_BUFFER - c->head;
		struct iovec iov[2];
		ssize_t n;

		if (first > c->held)
			first = c->held;
		iov[0] = (struct iovec){b + c->head, first};
		iov[1] = (struct iovec){b, c->held - first};
		n = conn_send(v, c, iov, iov[1].iov_len ? 2 : 1);
		if (!n)
			return false;
		if (n < 0) {
			conn_deaf(v, c);
			break;
		}
		c->head = (c->head + (uint32_t)n) % VSOCK_BUFFER;
		c->held -= (uint32_t)n;
		conn_forwarded(v, c, (uint32_t)n);
	}
	return conn_flushed(v, c);
}

/* ------------------------------------------------------------------ ends */

void vsock_conn_guest_shut(struct vsock *v, struct vsock_conn *c, uint8_t flags)
{
	uint8_t fresh = flags & (uint8_t)~c->guest_shut & VSOCK_SHUT_BOTH;

	c->guest_shut |= fresh;
	if (c->guest_shut == VSOCK_SHUT_BOTH) {
		/* a reset ends it well (5.10.6.5); the guest is free to use its port again */
		vsock_rst_queue(v, VSOCK_CID_HOST, c->host_port, c->guest_port, VSOCK_TYPE_STREAM);
		if (!c->held) {
			vsock_conn_free(v, c);
			return;
		}
		conn_unhash(v, c);
		c->state = VSOCK_DRAIN;
		c->pending = 0;
		vsock_deadline_set(v, c, DRAIN_NS);
		return;
	}
	if (fresh & VSOCK_SHUT_RCV)
		shutdown(c->fd, SHUT_RD);
	if (fresh & VSOCK_SHUT_SEND && !c->held)
		shutdown(c->fd, SHUT_WR);
}

void vsock_conn_eof(struct vsock *v, struct vsock_conn *c)
{
	struct pollfd p = {.fd = c->fd};
	uint8_t shut = VSOCK_SHUT_SEND;

	c->eof = true;
	c->readable = false;
	counter_add(&v->common.counters.system_calls, 1);
	/* closed altogether, or for sending alone? After a shutdown of our own the kernel calls it
	 * a hang-up as well; the guest has then nothing more to send anyway. */
	if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR))
		shut = VSOCK_SHUT_BOTH;
	if ((c->host_shut | shut) == c->host_shut)
		return;
	c->host_shut |= shut;
	c->pending |= VSOCK_P_SHUTDOWN;
	if (c->host_shut == VSOCK_SHUT_BOTH) {
		c->held = 0;
		vsock_deadline_set(v, c, ANSWER_NS);
	}
	vsock_conn_queue(v, c);
}

/* A program that has written and gone is still worth asking for, but not where nobody can answer.
 */
static void conn_asked_event(struct vsock *v, struct vsock_conn *c, uint32_t events)
{
	c->readable = true;
	if (events & EPOLLHUP && !split_queue_live(&v->common.queues[VSOCK_Q_RX]))
		vsock_conn_kill(v, c);
}

void vsock_conn_event(struct vsock *v, struct vsock_conn *c, uint32_t events)
{
	switch (c->state) {
	case VSOCK_HANDSHAKE:
		vsock_handshake(v, c, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
		if (c->state == VSOCK_ASKED)
			conn_asked_event(v, c, events);
		return;
	case VSOCK_ASKED:
		conn_asked_event(v, c, events);
		return;
	case VSOCK_DRAIN:
		if (events & EPOLLOUT || events & EPOLLHUP)
			conn_flush(v, c);
		return;
	case VSOCK_OPEN:
		break;
	default:
		return; /* an event that was on its way when the slot was freed */
	}
	if (events & EPOLLOUT && c->held && conn_flush(v, c))
		return;
	if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		return;
	if (c->eof) {
		vsock_conn_eof(v, c);
		return;
	}
	c->readable = true;
	vsock_conn_queue(v, c);
}
