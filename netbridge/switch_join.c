/* SPDX-License-Identifier: BSD-2-Clause */
/* Joined ports: others' net_ports, which the switch sends to and its worker receives from. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "netbridge/switch_priv.h"

#define JOIN_BATCH SWITCH_BATCH

_Static_assert(JOIN_BATCH <= NET_LEND_MAX, "no more is lent at a time");

#define EVENTS 64

/* ------------------------------------------------------------------ receiving */

/* A port that polls readable is asked when it does; one without a descriptor whenever it says so.
 */
int switch_join_watch(struct switch_port *p, bool on)
{
	for (unsigned q = 0; q < p->queues; q++) {
		struct epoll_event e = {
			.events = EPOLLIN, .data.u64 = (uint64_t)p->index << 32 | q};
		int fd = net_port_fd(p->join, q);

		if (fd < 0)
			continue;
		if (!epoll_ctl(p->worker->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &e))
			atomic_fetch_add(&p->worker->nfds, on ? 1 : -1u);
		else if (on)
			return -errno;
	}
	return 0;
}

void switch_join_look(struct switch_worker *w)
{
	struct epoll_event e[EVENTS];
	int n = epoll_wait(w->epoll_fd, e, EVENTS, 0);

	for (int i = 0; i < n; i++) {
		struct switch_port *p = switch_port_at(w->sw, (unsigned)(e[i].data.u64 >> 32));
		unsigned q = (uint32_t)e[i].data.u64;

		if (p && p->worker == w && q < p->queues)
			p->q[q].hot = true;
	}
}

static bool queue_due(const struct switch_port *p, unsigned q)
{
	return p->q[q].hot || (net_port_fd(p->join, q) < 0 && net_port_rx_ready(p->join, q));
}

bool switch_join_ready(const struct switch_port *p)
{
	for (unsigned q = 0; q < p->queues; q++)
		if (queue_due(p, q))
			return true;
	return false;
}

/* Frames into memory of the worker's. */
static unsigned frames_receive(struct switch_worker *w, struct net_port *join, unsigned q)
{
	unsigned n;

	for (unsigned i = 0; i < JOIN_BATCH; i++) {
		w->in_segs[i] =
			(struct iovec){w->memory + (size_t)i * NET_FRAME_MAX, NET_FRAME_MAX};
		w->buffers[i] = (struct net_buffer){
			.segs = &w->in_segs[i], .nsegs = 1, .room = NET_FRAME_MAX};
	}
	n = net_port_receive(join, q, w->buffers, JOIN_BATCH);
	for (unsigned i = 0; i < n; i++) {
		w->in_segs[i].iov_len = w->buffers[i].len;
		w->in[i] = (struct net_packet){
			.segs = &w->in_segs[i],
			.nsegs = 1,
			.len = w->buffers[i].len,
			.hdr = w->buffers[i].hdr,
		};
	}
	return n;
}

unsigned switch_join_poll(struct switch_worker *w, struct switch_port *p)
{
	const struct net_ops *ops = p->join->ops;
	unsigned total = 0, n;

	for (unsigned q = 0; q < p->queues; q++) {
		if (!queue_due(p, q))
			continue;
		n = ops->lend ? ops->lend(p->join, q, w->in, w->in_segs, JOIN_BATCH)
			      : frames_receive(w, p->join, q);
		p->q[q].hot = n > 0;
		if (n)
			switch_forward(w, p, w->in_list, n);
		if (n && ops->lend)
			ops->lent_back(p->join, q);
		total += n;
	}
	return total;
}

/* ------------------------------------------------------------------ sending */

struct sent {
	uint64_t packets, bytes, lost;
};

static void run_send(struct switch_port *to, unsigned queue, struct net_packet *const *list,
	unsigned n, struct sent *s)
{
	unsigned took = n ? net_port_send(to->join, queue, list, n) : 0;

	for (unsigned i = 0; i < took; i++)
		s->bytes += list[i]->len;
	s->packets += took;
	s->lost += n - took;
}

/* Checksums and segmentation that the port does not do: the queue of frames does it on the way. */
static void finished_send(struct switch_worker *w, struct switch_port *to, unsigned queue,
	const struct net_packet *pkt, struct sent *s)
{
	struct iovec seg = {w->finish_memory, NET_FRAME_MAX};
	struct net_counters counters = {0};
	uint32_t offloads = net_port_offloads(to->join);

	net_fifo_rewind(&w->finish);
	if (net_fifo_push(&w->finish, pkt, SWITCH_OFFLOADS)) {
		s->lost++;
		return;
	}
	net_fifo_publish(&w->finish);
	for (;;) {
		struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = NET_FRAME_MAX};
		struct net_packet out = {.segs = &seg, .nsegs = 1}, *list = &out;

		seg.iov_len = NET_FRAME_MAX;
		if (!net_fifo_receive(&w->finish, offloads, &buf, 1, &counters))
			break;
		seg.iov_len = buf.len;
		out.len = buf.len;
		out.hdr = buf.hdr;
		run_send(to, queue, &list, 1, s);
	}
	s->lost += counters.rx_dropped;
}

void switch_join_send(struct switch_worker *w, struct switch_port *to, unsigned queue,
	struct net_packet *const *list, unsigned n)
{
	uint32_t offloads = net_port_offloads(to->join);
	struct sent s = {0};
	unsigned from = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!switch_work_beyond(list[i], offloads))
			continue;
		run_send(to, queue, list + from, i - from, &s);
		finished_send(w, to, queue, list[i], &s);
		from = i + 1;
	}
	run_send(to, queue, list + from, n - from, &s);
	net_count(&to->c.tx_packets, s.packets);
	net_count(&to->c.tx_bytes, s.bytes);
	if (s.lost) {
		net_count(&to->full, s.lost);
		net_count(&to->c.tx_dropped, s.lost);
	}
}
