/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net (virtio 1.2 section 5.1) on netbridge/: features, configuration, queues, state. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "backend/split_net_priv.h"

#define CONFIG_SIZE           12u
#define VIRTIO_NET_S_LINK_UP  1u
#define RX_WANT_START         8u
#define ETHERNET_HEADER_BYTES 14u
#define MTU_DEFAULT           1500u
#define MTU_MIN               68u

/* ------------------------------------------------------------------ features */

/* Which offload of the port stands behind which feature bits: towards the host, towards the guest.
 */
static const struct {
	uint32_t offload;
	uint8_t host[2];
	uint8_t guest[2];
} vnet_offloads[] = {
	{NET_OFFLOAD_CSUM, {VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CSUM},
		{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_CSUM}},
	{NET_OFFLOAD_TSO4, {VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO4},
		{VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO4}},
	{NET_OFFLOAD_TSO6, {VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_TSO6},
		{VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_TSO6}},
	{NET_OFFLOAD_ECN, {VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_ECN},
		{VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_ECN}},
	{NET_OFFLOAD_UFO, {VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_UFO},
		{VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_UFO}},
	{NET_OFFLOAD_USO, {VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_HOST_USO},
		{VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6}},
};

#define NOFFLOADS (sizeof(vnet_offloads) / sizeof(vnet_offloads[0]))

static uint64_t vnet_features(const struct split_net_options *o)
{
	uint64_t f = split_features_common(o->ring, o->no_indirect, o->no_event_idx, o->in_order);
	uint32_t port = net_port_offloads(o->port);

	f |= VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_STATUS);
	if (!o->no_mergeable)
		f |= VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF);
	if (o->mtu)
		f |= VIRTIO_BIT(VIRTIO_NET_F_MTU);
	if (o->pairs > 1)
		f |= VIRTIO_BIT(VIRTIO_NET_F_MQ);
	if (o->pairs > 1 && !o->no_control)
		f |= VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ);
	for (size_t i = 0; !o->no_offload && i < NOFFLOADS; i++)
		if (port & vnet_offloads[i].offload)
			for (unsigned k = 0; k < 2; k++)
				f |= VIRTIO_BIT(vnet_offloads[i].host[k]) |
				     VIRTIO_BIT(vnet_offloads[i].guest[k]);
	return f;
}

/* 5.1.3.1: feature bit requirements. */
static bool vnet_features_consistent(const struct vnet *v)
{
	const struct split_device *d = &v->common;
	static const uint8_t needs_csum[] = {VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
		VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO};
	static const uint8_t needs_guest_csum[] = {VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
		VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6};

	for (size_t i = 0; i < sizeof(needs_csum); i++)
		if (split_has(d, needs_csum[i]) && !split_has(d, VIRTIO_NET_F_CSUM))
			return false;
	for (size_t i = 0; i < sizeof(needs_guest_csum); i++)
		if (split_has(d, needs_guest_csum[i]) && !split_has(d, VIRTIO_NET_F_GUEST_CSUM))
			return false;
	if (split_has(d, VIRTIO_NET_F_HOST_ECN) && !split_has(d, VIRTIO_NET_F_HOST_TSO4) &&
		!split_has(d, VIRTIO_NET_F_HOST_TSO6))
		return false;
	if (split_has(d, VIRTIO_NET_F_GUEST_ECN) && !split_has(d, VIRTIO_NET_F_GUEST_TSO4) &&
		!split_has(d, VIRTIO_NET_F_GUEST_TSO6))
		return false;
	/* a control queue of the transport's has its own bit */
	return !split_has(d, VIRTIO_NET_F_MQ) || split_has(d, VIRTIO_NET_F_CTRL_VQ) ||
	       v->no_control;
}

static uint32_t vnet_offloads_accepted(const struct split_device *d)
{
	uint32_t offloads = 0;

	for (size_t i = 0; i < NOFFLOADS; i++) {
		/* USO is one offload of a port and two bits of a driver: both or none */
		if (split_has(d, vnet_offloads[i].guest[0]) &&
			split_has(d, vnet_offloads[i].guest[1]))
			offloads |= vnet_offloads[i].offload;
	}
	return offloads;
}

int vnet_active_set(struct vnet *v, unsigned pairs)
{
	int err = net_port_queues_set(v->port, pairs);

	if (!err)
		v->active = pairs;
	return err;
}

static int vnet_negotiated(struct split_device *d)
{
	struct vnet *v = (struct vnet *)d;
	uint32_t offloads = vnet_offloads_accepted(d);
	uint32_t mtu = v->mtu > MTU_DEFAULT ? v->mtu : MTU_DEFAULT;
	int err;

	if (!vnet_features_consistent(v))
		return -EINVAL;
	err = net_port_offloads_set(v->port, offloads);
	if (err)
		return err;
	v->gso_allowed = 0;
	if (split_has(d, VIRTIO_NET_F_HOST_TSO4))
		v->gso_allowed |= 1u << NET_GSO_TCPV4;
	if (split_has(d, VIRTIO_NET_F_HOST_TSO6))
		v->gso_allowed |= 1u << NET_GSO_TCPV6;
	if (split_has(d, VIRTIO_NET_F_HOST_UFO))
		v->gso_allowed |= 1u << NET_GSO_UDP;
	if (split_has(d, VIRTIO_NET_F_HOST_USO))
		v->gso_allowed |= 1u << NET_GSO_UDP_L4;
	v->tx_plain = !v->gso_allowed && !split_has(d, VIRTIO_NET_F_CSUM);
	v->rx_typical = VNET_HDR_BYTES + ETHERNET_HEADER_BYTES + VNET_FRAME_VLAN + mtu;
	v->rx_need = offloads & ~(uint32_t)NET_OFFLOAD_CSUM ? VNET_HDR_BYTES + NET_FRAME_MAX
							    : v->rx_typical;
	return vnet_active_set(v, 1);
}

/* ------------------------------------------------------------------ configuration */

/* 5.1.4: struct virtio_net_config, as far as the features offered need it. */
static void vnet_config_read(struct split_device *d, uint32_t offset, void *to, uint32_t len)
{
	const struct vnet *v = (const struct vnet *)d;
	bool up = atomic_load(&((struct vnet *)d)->link_up);
	uint16_t status = htole16(up ? VIRTIO_NET_S_LINK_UP : 0),
		 pairs = htole16((uint16_t)v->pairs), mtu = htole16(v->mtu);
	uint8_t c[CONFIG_SIZE];

	memcpy(c, v->mac, sizeof(v->mac));
	memcpy(c + 6, &status, sizeof(status));
	memcpy(c + 8, &pairs, sizeof(pairs));
	memcpy(c + 10, &mtu, sizeof(mtu));
	memset(to, 0, len);
	if (offset < CONFIG_SIZE)
		memcpy(to, c + offset, len < CONFIG_SIZE - offset ? len : CONFIG_SIZE - offset);
}

/* Nothing in it is the driver's to write. */
static void vnet_config_write(
	struct split_device *d, uint32_t offset, const void *from, uint32_t len)
{
	(void)d;
	(void)offset;
	(void)from;
	(void)len;
}

/* ------------------------------------------------------------------ queues */

static int vnet_pairs_set(struct split_device *d, unsigned pairs)
{
	return vnet_active_set((struct vnet *)d, pairs);
}

static unsigned vnet_ctrl(struct vnet *v)
{
	const struct vnet_ctrl c = {
		.device = &v->common,
		.index = (unsigned)vnet_ctrl_index(&v->common, v->pairs),
		.pairs = v->pairs,
		.pairs_set = vnet_pairs_set,
	};

	return c.index < v->common.nqueues && v->common.queues[c.index].running ? vnet_ctrl_poll(&c)
										: 0;
}

/* Without a control queue a pair is used when its queues run: as many as do from the first on. */
static void vnet_pairs_count(struct vnet *v)
{
	unsigned n = 0;

	if (!v->no_control)
		return;
	while (n < v->pairs && v->pair[n].rxq->running && !v->pair[n].rxq->disabled &&
		v->pair[n].txq->running)
		n++;
	if (n && n != v->active)
		vnet_active_set(v, n);
}

static void vnet_queue_enable(struct split_device *d, unsigned index)
{
	(void)index;
	vnet_pairs_count((struct vnet *)d);
}

static int vnet_queue_start(struct split_device *d, unsigned index)
{
	struct vnet *v = (struct vnet *)d;
	struct vnet_pair *p = &v->pair[index / 2];

	if (index / 2 >= v->pairs || index % 2)
		return 0;
	port_rx_stop(&p->rx);
	port_rx_init(&p->rx, d->io, v->port, index / 2);
	p->rx_retry_ns = p->rx_backoff_ns = 0;
	p->rx_waits_buffers = p->rx_roomy = false;
	p->rx_want = RX_WANT_START;
	net_port_taker_set(
		v->port, index / 2, &(struct net_taker){.offer = vnet_rx_offer, .ctx = p});
	return 0;
}

/*
 * Drivers put the header right in front of a frame, at the end of a cache line. It is read where it
 * can say something; what is there already is not written again (vnet_hdr_store()).
 */
static struct ring_fetch vnet_fetch(struct split_device *d, unsigned index)
{
	const struct vnet *v = (const struct vnet *)d;
	bool rx = index % 2 == 0;

	if (index / 2 >= v->pairs)
		return (struct ring_fetch){0};
	return (struct ring_fetch){
		.start = rx || !v->tx_plain, .at_set = true, .write = rx, .at = VNET_HDR_BYTES};
}

static void vnet_queue_stop(struct split_device *d, unsigned index)
{
	struct vnet *v = (struct vnet *)d;

	if (index / 2 >= v->pairs)
		return;
	if (index % 2) {
		v->pair[index / 2].tx_retry_ns = 0;
		return;
	}
	net_port_taker_set(v->port, index / 2, NULL);
	port_rx_stop(&v->pair[index / 2].rx);
}

/* Frames are copied or written by the time a call to the port returns. */
static uint32_t vnet_inflight(struct split_device *d)
{
	(void)d;
	return 0;
}

static unsigned vnet_poll(struct split_device *d)
{
	struct vnet *v = (struct vnet *)d;
	unsigned n = 0;

	for (unsigned i = 0; i < v->active; i++) {
		n += vnet_tx_poll(v, &v->pair[i]);
		n += vnet_rx_poll(v, &v->pair[i]);
	}
	/* of pairs that are not used, what is sent is taken all the same */
	for (unsigned i = v->active; i < v->pairs && v->no_control; i++)
		n += vnet_tx_poll(v, &v->pair[i]);
	return n + vnet_ctrl(v);
}

static void vnet_retry_expired(struct io_timer *t)
{
	(void)t; /* being awake is enough */
}

/* True: there are frames for this pair now. *at: when to look again, if sooner. */
static bool vnet_pair_sleep(const struct vnet *v, struct vnet_pair *p, uint64_t *at)
{
	bool retry = p->rx_retry_ns != 0;
	bool receives = p < v->pair + v->active && vnet_rx_live(p);

	/* a full port and missing room are waited out; buffers matter once there are frames */
	p->txq->passive = p->tx_retry_ns != 0;
	p->rxq->passive = !p->rx_waits_buffers;
	if (p->tx_retry_ns && p->tx_retry_ns < *at)
		*at = p->tx_retry_ns;
	if (retry && p->rx_retry_ns < *at)
		*at = p->rx_retry_ns;
	if (!receives) {
		port_rx_stop(&p->rx);
		return false;
	}
	return port_rx_sleep(&p->rx, !p->rx_waits_buffers && !retry);
}

static bool vnet_sleep(struct split_device *d)
{
	struct vnet *v = (struct vnet *)d;
	int ctrl = vnet_ctrl_index(d, v->pairs);
	uint64_t at = UINT64_MAX;
	bool work = false;

	for (unsigned i = 0; i < d->nqueues; i++)
		d->queues[i].passive = true;
	if (ctrl >= 0)
		d->queues[ctrl].passive = false;
	for (unsigned i = 0; i < v->pairs; i++) {
		if (i < v->active || v->no_control)
			work |= vnet_pair_sleep(v, &v->pair[i], &at);
		else
			port_rx_stop(&v->pair[i].rx);
	}
	io_timer_set(d->io, &v->retry, at == UINT64_MAX ? 0 : at);
	return work;
}

static void vnet_batch_end(struct split_device *d)
{
	(void)d; /* transmit and receive push batch by batch; the common part signals once */
}

/* ------------------------------------------------------------------ state */

static void vnet_reset(struct split_device *d)
{
	struct vnet *v = (struct vnet *)d;

	net_port_offloads_set(v->port, 0);
	vnet_active_set(v, 1);
	io_timer_set(d->io, &v->retry, 0);
}

static void vnet_save(struct split_device *d, struct state_writer *w)
{
	struct vnet *v = (struct vnet *)d;

	state_section_begin(w, "virtio-net", 2);
	state_put_bytes(w, v->mac, sizeof(v->mac));
	state_put_u16(w, v->mtu);
	state_put_u16(w, (uint16_t)v->pairs);
	state_put_u16(w, (uint16_t)v->active);
	state_put_u8(w, atomic_load(&v->link_up));
	state_section_end(w);
}

static void vnet_load(struct split_device *d, struct state_reader *r)
{
	struct vnet *v = (struct vnet *)d;
	uint16_t mtu, pairs, active;
	uint8_t mac[6], link_up = 1;
	uint32_t version;

	version = state_section_enter(r, "virtio-net", 2);
	state_get_bytes(r, mac, sizeof(mac));
	mtu = state_get_u16(r);
	pairs = state_get_u16(r);
	active = state_get_u16(r);
	if (version > 1)
		link_up = state_get_u8(r);
	state_section_leave(r);
	if (r->error)
		return;
	if (mtu != v->mtu || pairs != v->pairs || active < 1 || active > pairs) {
		r->error = -EINVAL;
		return;
	}
	r->error = vnet_active_set(v, active);
	if (r->error)
		return;
	memcpy(v->mac, mac, sizeof(mac)); /* the guest has seen it */
	if (link_up != v->link.up)
		d->signal.config(d->signal.ctx);
}

/* ------------------------------------------------------------------ life */

static void vnet_free(struct vnet *v)
{
	free(v->pair);
	free(v);
}

static void vnet_destroy(struct split_device *d)
{
	struct vnet *v = (struct vnet *)d;

	for (unsigned i = 0; i < v->pairs; i++) {
		net_port_taker_set(v->port, i, NULL);
		port_rx_stop(&v->pair[i].rx);
	}
	io_timer_set(d->io, &v->retry, 0);
	port_link_stop(&v->link);
	split_fini(d);
	vnet_free(v);
}

static const struct split_ops vnet_ops = {
	.name = "virtio-net",
	.virtio_id = VIRTIO_ID_NET,
	.config_size = CONFIG_SIZE,
	.config_read = vnet_config_read,
	.config_write = vnet_config_write,
	.negotiated = vnet_negotiated,
	.fetch = vnet_fetch,
	.queue_start = vnet_queue_start,
	.queue_stop = vnet_queue_stop,
	.queue_enable = vnet_queue_enable,
	.inflight = vnet_inflight,
	.reset = vnet_reset,
	.poll = vnet_poll,
	.sleep = vnet_sleep,
	.batch_end = vnet_batch_end,
	.save = vnet_save,
	.load = vnet_load,
	.destroy = vnet_destroy,
};

static int vnet_options_check(const struct split_net_options *o, char why[BACKEND_WHY_MAX])
{
	if (o->pairs < 1 || o->pairs > NET_QUEUES_MAX || o->pairs > net_port_queues(o->port)) {
		backend_why(why, "queues=%u: the %s port has %u", o->pairs, net_port_kind(o->port),
			net_port_queues(o->port));
		return -EINVAL;
	}
	if (o->queue_size && (o->queue_size < 2 || o->queue_size > 1024 ||
				     (o->queue_size & (o->queue_size - 1)))) {
		backend_why(why, "queue-size=%u: a power of two from 2 to 1024 is possible",
			o->queue_size);
		return -EINVAL;
	}
	if (o->mtu && o->mtu < MTU_MIN) {
		backend_why(why, "mtu=%u: at least %u", o->mtu, MTU_MIN);
		return -EINVAL;
	}
	return 0;
}

static void vnet_link_changed(struct port_link *l)
{
	struct vnet *v = (struct vnet *)((char *)l - offsetof(struct vnet, link));

	atomic_store(&v->link_up, l->up);
	v->common.signal.config(v->common.signal.ctx);
}

struct vnet_open {
	struct vnet *v;
	int err;
};

static void vnet_open_io(void *ctx)
{
	struct vnet_open *o = ctx;

	o->v->link.changed = vnet_link_changed;
	o->err = port_link_start(&o->v->link, o->v->common.io, o->v->port);
	atomic_store(&o->v->link_up, o->v->link.up);
}

/* Members that point to one another: after split_init() has made the queues. */
static void vnet_wire(struct vnet *v)
{
	for (unsigned i = 0; i < VNET_BATCH; i++)
		v->packet_list[i] = &v->packets[i];
	for (unsigned i = 0; i < v->pairs; i++) {
		port_rx_init(&v->pair[i].rx, v->common.io, v->port, i);
		v->pair[i].vnet = v;
		v->pair[i].rxq = &v->common.queues[2 * i];
		v->pair[i].txq = &v->common.queues[2 * i + 1];
	}
	v->active = 1;
	v->retry.expired = vnet_retry_expired;
}

int split_net_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_net_options *opts,
	char why[BACKEND_WHY_MAX])
{
	struct vnet_open open;
	struct vnet *v;
	int err;

	err = vnet_options_check(opts, why);
	if (err)
		return err;
	v = calloc(1, sizeof(*v));
	if (!v)
		goto no_memory;
	v->pair = calloc(opts->pairs, sizeof(*v->pair));
	if (!v->pair)
		goto no_memory;
	v->common.ops = &vnet_ops;
	v->common.io = io;
	v->common.mem = mem;
	v->common.signal = *signal;
	v->no_control = opts->no_control;
	v->common.nqueues = 2 * opts->pairs + (opts->pairs > 1 && !opts->no_control);
	v->common.queue_size_max = opts->queue_size ? opts->queue_size : 256;
	v->common.chain_max = VNET_CHAIN_MAX;
	v->common.features = vnet_features(opts);
	v->port = opts->port;
	v->mtu = opts->mtu;
	v->pairs = opts->pairs;
	memcpy(v->mac, opts->mac, sizeof(v->mac));
	err = split_init(&v->common, why);
	if (err)
		goto free_device;
	vnet_wire(v);
	open.v = v;
	io_thread_call(io, vnet_open_io, &open);
	err = open.err;
	if (err) {
		backend_why(why, "virtio-net: cannot watch the port: %s", strerror(-err));
		split_fini(&v->common);
		goto free_device;
	}
	split_attach(&v->common);
	*out = &v->common;
	return 0;

free_device:
	vnet_free(v);
	return err;
no_memory:
	free(v);
	backend_why(why, "virtio-net: no memory");
	return -ENOMEM;
}
