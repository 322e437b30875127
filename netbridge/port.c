/* SPDX-License-Identifier: BSD-2-Clause */
/* The burst interface: dispatch to the kinds of port, counters, and what they all share. */
#include "netbridge/net_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int net_why(char why[NET_WHY_MAX], int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, NET_WHY_MAX, fmt, ap);
	va_end(ap);
	return err;
}

void *net_port_alloc(size_t size)
{
	void *p;

	if (posix_memalign(&p, NET_CACHE_LINE, size))
		return NULL;
	memset(p, 0, size);
	return p;
}

void net_port_init(
	struct net_port *port, const struct net_ops *ops, unsigned queues, uint32_t offloads)
{
	port->ops = ops;
	port->queues = queues;
	port->offloads = offloads;
	atomic_init(&port->accepted, 0);
	atomic_init(&port->in_use, queues);
}

static bool queue_used(const struct net_port *port, unsigned queue)
{
	return queue < atomic_load_explicit(&port->in_use, memory_order_acquire);
}

unsigned net_packets_drop(struct net_counters *c, struct net_packet *const *pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		net_packet_done(pkts[i]);
	net_count(&c->tx_dropped, n);
	return n;
}

unsigned net_port_send(
	struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n)
{
	if (queue_used(port, queue))
		return port->ops->send(port, queue, pkts, n);
	if (queue >= port->queues)
		return 0;
	return net_packets_drop(&port->counters[queue].c, pkts, n);
}

unsigned net_port_receive(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n)
{
	if (!queue_used(port, queue))
		return 0;
	return port->ops->receive(port, queue, bufs, n);
}

int net_port_fd(const struct net_port *port, unsigned queue)
{
	if (queue >= port->queues || !port->ops->fd)
		return -1;
	return port->ops->fd(port, queue);
}

void net_port_taker_set(struct net_port *port, unsigned queue, const struct net_taker *taker)
{
	if (queue < port->queues && port->ops->taker_set)
		port->ops->taker_set(port, queue, taker);
}

bool net_port_link(struct net_port *port)
{
	return port->ops->link ? port->ops->link(port) : true;
}

int net_port_link_fd(const struct net_port *port)
{
	return port->ops->link_fd ? port->ops->link_fd(port) : -1;
}

int net_port_tx_fd(const struct net_port *port, unsigned queue)
{
	if (queue >= port->queues || !port->ops->tx_fd)
		return -1;
	return port->ops->tx_fd(port, queue);
}

bool net_port_rx_ready(const struct net_port *port, unsigned queue)
{
	return queue_used(port, queue) && port->ops->rx_ready(port, queue);
}

unsigned net_port_queues(const struct net_port *port)
{
	return port->queues;
}

uint32_t net_port_offloads(const struct net_port *port)
{
	return port->offloads;
}

int net_port_offloads_set(struct net_port *port, uint32_t offloads)
{
	int err = 0;

	if (offloads & ~port->offloads)
		return -ENOTSUP;
	/* Segmentation without checksums has no meaning (virtio 1.2, 5.1.3.1), nor has ECN without
	 * it. */
	if (!(offloads & NET_OFFLOAD_CSUM))
		offloads = 0;
	if (!(offloads & (NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6)))
		offloads &= ~(uint32_t)NET_OFFLOAD_ECN;
	if (port->ops->offloads_set)
		err = port->ops->offloads_set(port, offloads);
	if (!err)
		atomic_store_explicit(&port->accepted, offloads, memory_order_relaxed);
	return err;
}

int net_port_queues_set(struct net_port *port, unsigned queues)
{
	if (queues < 1 || queues > port->queues)
		return -EINVAL;
	if (port->ops->queues_set)
		return port->ops->queues_set(port, queues);
	atomic_store_explicit(&port->in_use, queues, memory_order_release);
	return 0;
}

void net_port_counters_get(const struct net_port *port, struct net_counters *out)
{
	uint64_t *sum = (uint64_t *)out;

	memset(out, 0, sizeof(*out));
	for (unsigned q = 0; q < port->queues; q++) {
		const uint64_t *c = (const uint64_t *)&port->counters[q].c;

		for (size_t i = 0; i < sizeof(*out) / sizeof(*sum); i++)
			sum[i] += __atomic_load_n(&c[i], __ATOMIC_RELAXED);
	}
	if (port->ops->counters_add)
		port->ops->counters_add(port, out);
}

const char *net_port_kind(const struct net_port *port)
{
	return port->ops->kind;
}

void net_port_close(struct net_port *port)
{
	if (port)
		port->ops->close(port);
}

uint32_t net_segs_gather(void *to, uint32_t len, const struct iovec *segs, uint32_t nsegs)
{
	uint32_t done = 0;

	for (uint32_t i = 0; i < nsegs && done < len; i++) {
		size_t piece = segs[i].iov_len;

		if (piece > len - done)
			piece = len - done;
		memcpy((uint8_t *)to + done, segs[i].iov_base, piece);
		done += (uint32_t)piece;
	}
	return done;
}

uint32_t net_segs_scatter(
	const struct iovec *segs, uint32_t nsegs, uint32_t at, const void *from, uint32_t len)
{
	uint32_t done = 0;

	for (uint32_t i = 0; i < nsegs && done < len; i++) {
		size_t piece = segs[i].iov_len;

		if (at >= piece) {
			at -= (uint32_t)piece;
			continue;
		}
		piece -= at;
		if (piece > len - done)
			piece = len - done;
		memcpy((uint8_t *)segs[i].iov_base + at, (const uint8_t *)from + done, piece);
		done += (uint32_t)piece;
		at = 0;
	}
	return done;
}
