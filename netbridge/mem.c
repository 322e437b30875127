/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ports without a wire, for tests and measurements: sink, source, echo. They have no descriptor and
 * make no system call.
 */
#include "netbridge/net_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SOURCE_LEN_DEFAULT 64u
/* IEEE 802: Local Experimental Ethertype 1. */
#define ETHER_LOCAL_1 0x88b5
#define SOURCE_SEQ_AT 14u

/* A source whose frames nobody writes a hook for. */
#define MEM_SOURCE_LENDING (NET_MEM_ECHO + 1)

struct mem_queue {
	_Alignas(NET_CACHE_LINE) uint64_t seq; /* source: number of the next frame */
	uint8_t *frames;                       /* source: as many as are lent at a time */
	struct net_fifo fifo;                  /* echo */
};

struct mem_port {
	struct net_port port; /* first */
	struct net_mem_options opts;
	struct mem_queue queue[];
};

static struct mem_port *mem_of(const struct net_port *port)
{
	return (struct mem_port *)port;
}

/* ------------------------------------------------------------------ taking */

static unsigned mem_send_sink(
	struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n)
{
	struct mem_port *m = mem_of(port);
	struct net_counters *c = &port->counters[queue].c;
	uint64_t bytes = 0, errors = 0;

	for (unsigned i = 0; i < n; i++) {
		bytes += pkts[i]->len;
		if (m->opts.check && !m->opts.check(m->opts.ctx, queue, pkts[i]))
			errors++;
		net_packet_done(pkts[i]);
	}
	net_count(&c->tx_packets, n);
	net_count(&c->tx_bytes, bytes);
	if (errors)
		net_count(&c->errors, errors);
	return n;
}

static unsigned mem_send_echo(
	struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n)
{
	struct mem_port *m = mem_of(port);
	struct net_fifo *f = &m->queue[queue].fifo;
	struct net_counters *c = &port->counters[queue].c;
	uint64_t bytes = 0, taken = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!net_fifo_push(f, pkts[i], port->offloads)) {
			bytes += pkts[i]->len;
			taken++;
		}
		net_packet_done(pkts[i]);
	}
	net_fifo_publish(f);
	net_count(&c->tx_packets, taken);
	net_count(&c->tx_bytes, bytes);
	if (taken < n)
		net_count(&c->tx_dropped, n - taken);
	return n;
}

/* ------------------------------------------------------------------ giving */

static unsigned mem_receive_none(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n)
{
	(void)port;
	(void)queue;
	(void)bufs;
	(void)n;
	return 0;
}

static unsigned mem_receive_echo(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n)
{
	struct net_fifo *f = &mem_of(port)->queue[queue].fifo;
	unsigned done;

	done = net_fifo_receive(f, atomic_load_explicit(&port->accepted, memory_order_relaxed),
		bufs, n, &port->counters[queue].c);
	net_fifo_rewind(f);
	return done;
}

/* The next frame, in the i-th place. */
static uint8_t *source_next(struct mem_queue *q, unsigned i, uint32_t len)
{
	uint8_t *frame = q->frames + (size_t)i * len;

	if (len >= SOURCE_SEQ_AT + sizeof(q->seq))
		memcpy(frame + SOURCE_SEQ_AT, &q->seq, sizeof(q->seq));
	q->seq++;
	return frame;
}

/* The frames nobody wrote a hook for: broadcast, numbered. */
static uint32_t source_frame(struct mem_port *m, unsigned queue, struct net_buffer *buf)
{
	struct mem_queue *q = &m->queue[queue];
	uint32_t len = m->opts.frame_len;

	if (len > buf->room)
		return len;
	return net_segs_scatter(buf->segs, buf->nsegs, 0, source_next(q, 0, len), len);
}

/* A hook may ask for work the receiver did not accept: checksums are finished. */
static bool source_finish(struct net_buffer *buf, uint32_t accepted)
{
	struct net_packet pkt = {.segs = buf->segs, .nsegs = buf->nsegs, .len = buf->len};
	uint32_t missing = net_hdr_offloads(&buf->hdr) & ~accepted;

	if (!missing)
		return true;
	if (missing != NET_OFFLOAD_CSUM)
		return false;
	pkt.hdr = buf->hdr;
	if (net_checksum_finish(&pkt))
		return false;
	buf->hdr = pkt.hdr;
	return true;
}

static unsigned mem_receive_source(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n)
{
	struct mem_port *m = mem_of(port);
	struct net_counters *c = &port->counters[queue].c;
	uint32_t accepted = atomic_load_explicit(&port->accepted, memory_order_relaxed);
	uint64_t bytes = 0, dropped = 0;
	unsigned done = 0;

	for (unsigned i = 0; i < n; i++) {
		struct net_buffer *buf = &bufs[done];

		memset(&buf->hdr, 0, sizeof(buf->hdr));
		buf->hdr.num_buffers = 1;
		buf->len = m->opts.fill ? m->opts.fill(m->opts.ctx, queue, buf)
					: source_frame(m, queue, buf);
		if (!buf->len)
			break;
		if (buf->len > buf->room ||
			(buf->hdr.flags | buf->hdr.gso_type && !source_finish(buf, accepted))) {
			dropped++;
			continue;
		}
		bytes += buf->len;
		done++;
	}
	net_count(&c->rx_packets, done);
	net_count(&c->rx_bytes, bytes);
	if (dropped)
		net_count(&c->rx_dropped, dropped);
	return done;
}

static unsigned mem_lend_source(struct net_port *port, unsigned queue, struct net_packet *pkts,
	struct iovec *segs, unsigned n)
{
	struct mem_port *m = mem_of(port);
	struct net_counters *c = &port->counters[queue].c;
	const uint32_t len = m->opts.frame_len;

	if (n > NET_LEND_MAX)
		n = NET_LEND_MAX;
	for (unsigned i = 0; i < n; i++) {
		segs[i] = (struct iovec){source_next(&m->queue[queue], i, len), len};
		pkts[i] = (struct net_packet){.segs = &segs[i], .nsegs = 1, .len = len};
	}
	net_count(&c->rx_packets, n);
	net_count(&c->rx_bytes, (uint64_t)n * len);
	return n;
}

/* They are written anew when they are lent again. */
static void mem_lent_back(struct net_port *port, unsigned queue)
{
	(void)port;
	(void)queue;
}

/* ------------------------------------------------------------------ the rest */

static bool mem_ready_never(const struct net_port *port, unsigned queue)
{
	(void)port;
	(void)queue;
	return false;
}

static bool mem_ready_always(const struct net_port *port, unsigned queue)
{
	(void)port;
	(void)queue;
	return true;
}

static bool mem_ready_echo(const struct net_port *port, unsigned queue)
{
	return net_fifo_ready(&mem_of(port)->queue[queue].fifo);
}

static void mem_close(struct net_port *port)
{
	struct mem_port *m = mem_of(port);

	for (unsigned q = 0; q < port->queues; q++) {
		net_fifo_destroy(&m->queue[q].fifo);
		free(m->queue[q].frames);
	}
	free(m);
}

static const struct net_ops mem_ops[] = {
	[NET_MEM_SINK] = {.kind = "sink",
		.send = mem_send_sink,
		.receive = mem_receive_none,
		.rx_ready = mem_ready_never,
		.close = mem_close},
	[NET_MEM_SOURCE] = {.kind = "source",
		.send = mem_send_sink,
		.receive = mem_receive_source,
		.rx_ready = mem_ready_always,
		.close = mem_close},
	[MEM_SOURCE_LENDING] = {.kind = "source",
		.send = mem_send_sink,
		.receive = mem_receive_source,
		.lend = mem_lend_source,
		.lent_back = mem_lent_back,
		.rx_ready = mem_ready_always,
		.close = mem_close},
	[NET_MEM_ECHO] = {.kind = "echo",
		.send = mem_send_echo,
		.receive = mem_receive_echo,
		.rx_ready = mem_ready_echo,
		.close = mem_close},
};

static int mem_queue_init(struct mem_port *m, struct mem_queue *q)
{
	static const uint8_t source_mac[6] = {0x02, 0, 0, 0, 0, 1};

	if (m->opts.kind == NET_MEM_ECHO)
		return net_fifo_init(&q->fifo);
	if (m->opts.kind != NET_MEM_SOURCE)
		return 0;
	q->frames = calloc(NET_LEND_MAX, m->opts.frame_len);
	if (!q->frames)
		return -ENOMEM;
	for (unsigned i = 0; i < NET_LEND_MAX; i++) {
		uint8_t *frame = q->frames + (size_t)i * m->opts.frame_len;

		memset(frame, 0xff, 6);
		memcpy(frame + 6, source_mac, 6);
		net_put16(frame + 12, ETHER_LOCAL_1);
	}
	return 0;
}

int net_mem_open(struct net_port **out, const struct net_mem_options *opts, char why[NET_WHY_MAX])
{
	/* UFO cannot be finished in software here, so that an echo must not offer it. */
	uint32_t offloads = NET_OFFLOAD_ALL;
	struct mem_port *m;
	int err;

	if ((unsigned)opts->kind > NET_MEM_ECHO)
		return net_why(why, -EINVAL, "in-memory port: no kind %u", (unsigned)opts->kind);
	if (opts->queues < 1 || opts->queues > NET_QUEUES_MAX)
		return net_why(why, -EINVAL, "%s: %u queues; 1 to %u are possible",
			mem_ops[opts->kind].kind, opts->queues, NET_QUEUES_MAX);
	if (opts->frame_len && (opts->frame_len < NET_FRAME_MIN || opts->frame_len > NET_FRAME_MAX))
		return net_why(why, -EINVAL, "%s: frames of %u bytes; %u to %u are possible",
			mem_ops[opts->kind].kind, opts->frame_len, NET_FRAME_MIN, NET_FRAME_MAX);
	m = net_port_alloc(sizeof(*m) + opts->queues * sizeof(m->queue[0]));
	if (!m)
		return net_why(why, -ENOMEM, "%s: no memory", mem_ops[opts->kind].kind);
	if (opts->kind == NET_MEM_ECHO)
		offloads &= ~(uint32_t)NET_OFFLOAD_UFO;
	net_port_init(&m->port,
		&mem_ops[opts->kind == NET_MEM_SOURCE && !opts->fill ? MEM_SOURCE_LENDING
								     : (unsigned)opts->kind],
		opts->queues, offloads);
	m->opts = *opts;
	if (!m->opts.frame_len)
		m->opts.frame_len = SOURCE_LEN_DEFAULT;
	for (unsigned q = 0; q < opts->queues; q++) {
		err = mem_queue_init(m, &m->queue[q]);
		if (err) {
			mem_close(&m->port);
			return net_why(why, err, "%s: no memory", mem_ops[opts->kind].kind);
		}
	}
	*out = &m->port;
	return 0;
}
