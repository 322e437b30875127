/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A DPDK ethernet device as a port: polled, in bursts. What it received is lent to the switch in
 * its packet buffers: copied once, into a guest's memory, or not at all, when another such device
 * sends it. What guests send is copied into packet buffers: a device is done with them later, and a
 * guest gets its own back at once. Checksums and segmentation that are left to do are done before
 * (no offloads are offered, so that any driver will do).
 */
#include <errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netbridge/net_priv.h"

#define DESCRIPTORS 1024u
#define BURST       64u
#define POOL_CACHE  256u
#define POOL_SPARE  2048u

/* What is lent of a queue's. */
struct dpdk_lent {
	_Alignas(NET_CACHE_LINE) struct rte_mbuf *m[NET_LEND_MAX];
	unsigned n;
};

struct dpdk_port {
	struct net_port port;
	uint16_t id;
	struct rte_device *device;
	struct rte_mempool *pool;
	struct dpdk_lent lent[NET_QUEUES_MAX];
};

static const struct net_ops dpdk_ops;

static struct dpdk_port *of(const struct net_port *port)
{
	return (struct dpdk_port *)(uintptr_t)port;
}

/* ------------------------------------------------------------------ frames */

/* The frame into a chain of buffers; NULL: none left. */
static struct rte_mbuf *mbuf_make(struct dpdk_port *d, const struct net_packet *pkt)
{
	struct rte_mbuf *first = rte_pktmbuf_alloc(d->pool), *last = first;

	if (!first)
		return NULL;
	for (uint32_t i = 0; i < pkt->nsegs; i++) {
		const uint8_t *from = pkt->segs[i].iov_base;
		size_t left = pkt->segs[i].iov_len;

		while (left) {
			uint16_t room = rte_pktmbuf_tailroom(last);
			uint16_t part = left < room ? (uint16_t)left : room;

			memcpy(rte_pktmbuf_mtod_offset(last, uint8_t *, last->data_len), from,
				part);
			last->data_len = (uint16_t)(last->data_len + part);
			first->pkt_len += part;
			from += part;
			left -= part;
			if (!left)
				break;
			last->next = rte_pktmbuf_alloc(d->pool);
			if (!last->next) {
				rte_pktmbuf_free(first);
				return NULL;
			}
			last = last->next;
			first->nb_segs++;
		}
	}
	return first;
}

/* A frame that a device of DPDK's lends goes on as it is: one holder more. */
static struct rte_mbuf *mbuf_of(struct dpdk_port *d, const struct net_packet *pkt)
{
	struct rte_mbuf *m = pkt->owner;

	if (pkt->lender != &dpdk_ops)
		return mbuf_make(d, pkt);
	rte_mbuf_refcnt_update(m, 1);
	return m;
}

static unsigned dpdk_send(
	struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n)
{
	struct dpdk_port *d = of(port);
	struct net_counters *c = &port->counters[queue].c;
	struct rte_mbuf *m[BURST];
	uint64_t bytes = 0;
	unsigned made = 0;
	uint16_t sent;

	if (n > BURST)
		n = BURST;
	while (made < n && (m[made] = mbuf_of(d, pkts[made])))
		made++;
	sent = rte_eth_tx_burst(d->id, (uint16_t)queue, m, (uint16_t)made);
	for (unsigned i = sent; i < made; i++)
		rte_pktmbuf_free(m[i]);
	for (unsigned i = 0; i < sent; i++) {
		bytes += pkts[i]->len;
		net_packet_done(pkts[i]);
	}
	net_count(&c->tx_packets, sent);
	net_count(&c->tx_bytes, bytes);
	return sent;
}

static void mbuf_copy(const struct rte_mbuf *m, struct net_buffer *buf)
{
	uint32_t at = 0;

	for (; m; m = m->next)
		at += net_segs_scatter(
			buf->segs, buf->nsegs, at, rte_pktmbuf_mtod(m, const void *), m->data_len);
	buf->len = at;
	memset(&buf->hdr, 0, sizeof(buf->hdr));
	buf->hdr.num_buffers = 1;
}

static unsigned dpdk_receive(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n)
{
	struct dpdk_port *d = of(port);
	struct net_counters *c = &port->counters[queue].c;
	struct rte_mbuf *m[BURST];
	uint64_t bytes = 0, dropped = 0;
	unsigned done = 0;
	uint16_t got;

	got = rte_eth_rx_burst(d->id, (uint16_t)queue, m, (uint16_t)(n < BURST ? n : BURST));
	for (unsigned i = 0; i < got; i++) {
		if (m[i]->pkt_len > bufs[done].room || m[i]->pkt_len < NET_FRAME_MIN) {
			dropped++;
			continue;
		}
		mbuf_copy(m[i], &bufs[done]);
		bytes += bufs[done++].len;
	}
	rte_pktmbuf_free_bulk(m, got);
	net_count(&c->rx_packets, done);
	net_count(&c->rx_bytes, bytes);
	net_count(&c->rx_dropped, dropped);
	return done;
}

static unsigned dpdk_lend(struct net_port *port, unsigned queue, struct net_packet *pkts,
	struct iovec *segs, unsigned n)
{
	struct dpdk_port *d = of(port);
	struct net_counters *c = &port->counters[queue].c;
	struct dpdk_lent *lent = &d->lent[queue];
	uint64_t bytes = 0, dropped = 0;
	unsigned done = 0;
	uint16_t got;

	got = rte_eth_rx_burst(
		d->id, (uint16_t)queue, lent->m, (uint16_t)(n < NET_LEND_MAX ? n : NET_LEND_MAX));
	for (unsigned i = 0; i < got; i++) {
		struct rte_mbuf *m = lent->m[i];

		if (m->pkt_len > NET_FRAME_MAX || m->pkt_len < NET_FRAME_MIN ||
			rte_pktmbuf_linearize(m)) {
			dropped++;
			continue;
		}
		segs[done] = (struct iovec){rte_pktmbuf_mtod(m, void *), m->pkt_len};
		pkts[done] = (struct net_packet){
			.segs = &segs[done],
			.nsegs = 1,
			.len = m->pkt_len,
			.owner = m,
			.lender = &dpdk_ops,
		};
		bytes += m->pkt_len;
		done++;
	}
	lent->n = got;
	if (!done)
		rte_pktmbuf_free_bulk(lent->m, got); /* nobody comes to give them back */
	net_count(&c->rx_packets, done);
	net_count(&c->rx_bytes, bytes);
	net_count(&c->rx_dropped, dropped);
	return done;
}

static void dpdk_lent_back(struct net_port *port, unsigned queue)
{
	struct dpdk_lent *lent = &of(port)->lent[queue];

	rte_pktmbuf_free_bulk(lent->m, lent->n);
}

/* Only asking tells. */
static bool dpdk_rx_ready(const struct net_port *port, unsigned queue)
{
	(void)port;
	(void)queue;
	return true;
}

static bool dpdk_link(struct net_port *port)
{
	struct rte_eth_link link;

	return rte_eth_link_get_nowait(of(port)->id, &link) || link.link_status == RTE_ETH_LINK_UP;
}

/* ------------------------------------------------------------------ life */

static void dpdk_close(struct net_port *port)
{
	struct dpdk_port *d = of(port);

	rte_eth_dev_stop(d->id);
	rte_eth_dev_close(d->id);
	if (d->device)
		rte_dev_remove(d->device);
	rte_mempool_free(d->pool);
	free(d);
}

static const struct net_ops dpdk_ops = {
	.kind = "dpdk",
	.send = dpdk_send,
	.receive = dpdk_receive,
	.lend = dpdk_lend,
	.lent_back = dpdk_lent_back,
	.rx_ready = dpdk_rx_ready,
	.link = dpdk_link,
	.close = dpdk_close,
};

static int queues_start(struct dpdk_port *d, unsigned queues, const struct rte_eth_dev_info *info)
{
	const bool rss = queues > 1 && info->flow_type_rss_offloads;
	struct rte_eth_conf conf = {
		.rxmode.mq_mode = rss ? RTE_ETH_MQ_RX_RSS : RTE_ETH_MQ_RX_NONE,
		.rx_adv_conf.rss_conf.rss_hf = rss ? info->flow_type_rss_offloads : 0,
		.txmode.offloads = info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS,
	};
	int socket = rte_eth_dev_socket_id(d->id);
	uint16_t nrx = DESCRIPTORS, ntx = DESCRIPTORS;
	int err;

	err = rte_eth_dev_configure(d->id, (uint16_t)queues, (uint16_t)queues, &conf);
	if (!err)
		err = rte_eth_dev_adjust_nb_rx_tx_desc(d->id, &nrx, &ntx);
	for (uint16_t q = 0; q < queues && !err; q++) {
		err = rte_eth_rx_queue_setup(d->id, q, nrx, (unsigned)socket, NULL, d->pool);
		if (!err)
			err = rte_eth_tx_queue_setup(d->id, q, ntx, (unsigned)socket, NULL);
	}
	if (!err)
		err = rte_eth_dev_start(d->id);
	if (!err)
		rte_eth_promiscuous_enable(d->id); /* a switch's port hears all; some always do */
	return err;
}

static int port_start(struct dpdk_port *d, const char *name, unsigned queues, char *why)
{
	struct rte_eth_dev_info info;
	char pool[RTE_MEMPOOL_NAMESIZE];
	int err = rte_eth_dev_info_get(d->id, &info);

	if (err)
		return net_why(why, err, "%.100s: %s", name, strerror(-err));
	if (queues > info.max_rx_queues || queues > info.max_tx_queues)
		return net_why(why, -EINVAL, "queues=%u: %.100s has %u", queues, name,
			info.max_rx_queues < info.max_tx_queues ? info.max_rx_queues
								: info.max_tx_queues);
	d->device = info.device;
	snprintf(pool, sizeof(pool), "sluice%u", d->id);
	d->pool = rte_pktmbuf_pool_create(pool, queues * 2 * DESCRIPTORS + POOL_SPARE, POOL_CACHE,
		0, RTE_MBUF_DEFAULT_BUF_SIZE, (int)SOCKET_ID_ANY);
	if (!d->pool)
		return net_why(why, -ENOMEM, "%.100s: no memory for packet buffers", name);
	err = queues_start(d, queues, &info);
	if (err)
		return net_why(why, err, "%.100s: %s", name, strerror(-err));
	return 0;
}

int net_dpdk_open(struct net_port **out, const char *device, unsigned queues, char why[NET_WHY_MAX])
{
	struct dpdk_port *d;
	char name[RTE_ETH_NAME_MAX_LEN];
	int err;

	if (queues < 1 || queues > NET_QUEUES_MAX)
		return net_why(why, -EINVAL, "queues=%u: use 1 to %u", queues, NET_QUEUES_MAX);
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(device, ","), device);
	if (!rte_eth_dev_get_port_by_name(name, &(uint16_t){0}))
		return net_why(why, -EEXIST, "%.100s: it is in use", name);
	err = rte_dev_probe(device);
	d = err ? NULL : net_port_alloc(sizeof(*d));
	if (!err && !d)
		err = -ENOMEM;
	if (!err)
		err = rte_eth_dev_get_port_by_name(name, &d->id);
	if (err) {
		free(d);
		return net_why(why, err,
			"%.100s: DPDK has no such device, or no driver for it (%s)", name,
			strerror(-err));
	}
	net_port_init(&d->port, &dpdk_ops, queues, 0);
	err = port_start(d, name, queues, why);
	if (err) {
		dpdk_close(&d->port);
		return err;
	}
	*out = &d->port;
	return 0;
}

int net_xdp_open(
	struct net_port **out, const char *interface, unsigned queues, char why[NET_WHY_MAX])
{
	char device[RTE_ETH_NAME_MAX_LEN + 96];

	if (strlen(interface) > 15 || strpbrk(interface, ",="))
		return net_why(why, -EINVAL, "%.40s: no name of an interface", interface);
	/* copying: a driver that can do without does */
	snprintf(device, sizeof(device), "net_af_xdp_%s,iface=%s,start_queue=0,queue_count=%u",
		interface, interface, queues);
	return net_dpdk_open(out, device, queues, why);
}
