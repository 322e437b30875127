/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kinds of device a vhost-user front-end knows: which features are the back-end's to offer,
 * what the configuration space holds, and for a network device its control queue.
 */
#include <endian.h>
#include <errno.h>

#include "backend/vhost_client_priv.h"

/* 5.2.3 */
enum {
	VIRTIO_BLK_F_SIZE_MAX = 1,
	VIRTIO_BLK_F_SEG_MAX = 2,
	VIRTIO_BLK_F_GEOMETRY = 4,
	VIRTIO_BLK_F_RO = 5,
	VIRTIO_BLK_F_BLK_SIZE = 6,
	VIRTIO_BLK_F_FLUSH = 9,
	VIRTIO_BLK_F_TOPOLOGY = 10,
	VIRTIO_BLK_F_MQ = 12,
	VIRTIO_BLK_F_DISCARD = 13,
	VIRTIO_BLK_F_WRITE_ZEROES = 14,
};

#define BLK_CONFIG_SIZE       60u
#define BLK_CONFIG_NUM_QUEUES 34u
#define NET_CONFIG_SIZE       10u
#define FS_CONFIG_SIZE        40u
#define FS_CONFIG_QUEUES      36u
#define NET_LINK_UP           1u

#define BIT(n) VIRTIO_BIT(n)

static const uint64_t ring_bits = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED) |
				  BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX) |
				  BIT(VIRTIO_F_IN_ORDER);

static const uint64_t net_offload_bits =
	BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
	BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO) |
	BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |
	BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_GUEST_USO4) | BIT(VIRTIO_NET_F_GUEST_USO6) |
	BIT(VIRTIO_NET_F_HOST_USO);

/* ------------------------------------------------------------------ features */

static uint64_t features_refused(const struct vhost_client *c)
{
	const struct split_vhost_options *o = &c->opts;
	uint64_t f = 0;

	if (o->ring != SPLIT_RING_PACKED)
		f |= BIT(VIRTIO_F_RING_PACKED);
	if (o->no_indirect)
		f |= BIT(VIRTIO_F_INDIRECT_DESC);
	if (o->no_event_idx)
		f |= BIT(VIRTIO_F_EVENT_IDX);
	if (!o->in_order)
		f |= BIT(VIRTIO_F_IN_ORDER);
	if (o->no_mergeable)
		f |= BIT(VIRTIO_NET_F_MRG_RXBUF);
	if (o->no_offload)
		f |= net_offload_bits;
	if (c->kind->ops.virtio_id == VIRTIO_ID_BLOCK && o->queues < 2)
		f |= BIT(VIRTIO_BLK_F_MQ);
	if (c->kind->ops.virtio_id == VIRTIO_ID_NET && c->pairs < 2)
		f |= BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_MQ);
	return f;
}

/* What the back-end must be able to do, whatever the guest wants. */
static int kind_able(struct vhost_client *c, char why[BACKEND_WHY_MAX])
{
	const struct split_vhost_options *o = &c->opts;
	uint64_t have = c->s.features, need = c->kind->protocol_needed;

	if (!(have & BIT(VIRTIO_F_VERSION_1))) {
		backend_why(why, "the back-end is a legacy one (no VIRTIO_F_VERSION_1)");
		return -ENOTSUP;
	}
	if ((c->s.protocol & need) != need) {
		backend_why(why, "the back-end does not tell its configuration space");
		return -ENOTSUP;
	}
	if (o->queues > 1 &&
		(!vhost_offers(c, VHOST_USER_PROTOCOL_F_MQ) || c->s.queues_max < o->queues)) {
		backend_why(why, "queues=%u: the back-end has %llu", o->queues,
			vhost_offers(c, VHOST_USER_PROTOCOL_F_MQ)
				? (unsigned long long)c->s.queues_max
				: 1ull);
		return -ENOTSUP;
	}
	return 0;
}

static int ring_able(struct vhost_client *c, char why[BACKEND_WHY_MAX])
{
	const struct split_vhost_options *o = &c->opts;
	bool packed = o->ring == SPLIT_RING_PACKED;

	if (packed && !(c->s.features & BIT(VIRTIO_F_RING_PACKED))) {
		backend_why(why, "ring=packed: the back-end has split rings only");
		return -ENOTSUP;
	}
	if (o->in_order && !(c->s.features & BIT(VIRTIO_F_IN_ORDER))) {
		backend_why(why, "in-order=on: the back-end does not use buffers in order");
		return -ENOTSUP;
	}
	/* a packed ring alone does not say what is in flight */
	if (packed && c->kind->keeps && !c->opts.no_reconnect && !c->one_connection &&
		!vhost_offers(c, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) {
		backend_why(why, "ring=packed: the back-end keeps no record of requests in flight, "
				 "without which it cannot be replaced; use ring=split or "
				 "reconnect=off");
		return -ENOTSUP;
	}
	return 0;
}

int vhost_kind_offer(struct vhost_client *c, char why[BACKEND_WHY_MAX])
{
	int err = kind_able(c, why);

	if (!err)
		err = ring_able(c, why);
	if (err)
		return err;
	c->common.features = ((c->s.features & (c->kind->passed | ring_bits)) | c->kind->own) &
			     ~features_refused(c);
	return 0;
}

int vhost_kind_fits(struct vhost_client *c, char why[BACKEND_WHY_MAX])
{
	/* a guest that has not chosen yet may have read what was offered */
	uint64_t want = c->common.driver_features ? c->common.driver_features : c->common.features;
	uint64_t lacks = want & ~c->kind->own & ~c->s.features;
	int err = kind_able(c, why);

	if (!err && lacks) {
		backend_why(why, "it lacks features that the guest uses: 0x%llx",
			(unsigned long long)lacks);
		err = -ENOTSUP;
	}
	return err;
}

/* ------------------------------------------------------------------ configuration space */

uint32_t vhost_config_wanted(const struct vhost_client *c)
{
	return c->kind->ops.virtio_id == VIRTIO_ID_BLOCK ? BLK_CONFIG_SIZE : 0;
}

void vhost_config_take(struct vhost_client *c, const uint8_t *bytes, uint32_t n)
{
	uint16_t queues = htole16((uint16_t)c->common.nqueues);
	bool changed;

	pthread_mutex_lock(&c->config_lock);
	changed = memcmp(c->config, bytes, BLK_CONFIG_NUM_QUEUES) != 0;
	memcpy(c->config, bytes, n);
	memcpy(c->config + BLK_CONFIG_NUM_QUEUES, &queues, sizeof(queues));
	pthread_mutex_unlock(&c->config_lock);
	/* also one that came with another back-end */
	if (changed && c->created)
		c->common.signal.config(c->common.signal.ctx);
}

void vhost_config_make(struct vhost_client *c)
{
	uint16_t status = htole16(NET_LINK_UP), pairs = htole16((uint16_t)c->pairs);
	uint32_t queues = htole32(c->common.nqueues - 1);

	switch (c->kind->ops.virtio_id) {
	case VIRTIO_ID_NET:
		memcpy(c->config, c->opts.mac, sizeof(c->opts.mac));
		memcpy(c->config + 6, &status, sizeof(status));
		memcpy(c->config + 8, &pairs, sizeof(pairs));
		break;
	case VIRTIO_ID_FS:
		memcpy(c->config, c->tag, FS_CONFIG_QUEUES);
		memcpy(c->config + FS_CONFIG_QUEUES, &queues, sizeof(queues));
		break;
	}
}

static void config_read(struct split_device *d, uint32_t offset, void *to, uint32_t len)
{
	struct vhost_client *c = vhost_client_of(d);
	uint32_t size = d->ops->config_size;

	memset(to, 0, len);
	if (offset >= size)
		return;
	pthread_mutex_lock(&c->config_lock);
	memcpy(to, c->config + offset, len < size - offset ? len : size - offset);
	pthread_mutex_unlock(&c->config_lock);
}

/* Nothing that is offered is the driver's to write. */
static void config_write(struct split_device *d, uint32_t offset, const void *from, uint32_t len)
{
	(void)d;
	(void)offset;
	(void)from;
	(void)len;
}

/* ------------------------------------------------------------------ the control queue */

static int pairs_set(struct split_device *d, unsigned pairs)
{
	struct vhost_client *c = vhost_client_of(d);

	c->active = pairs;
	for (unsigned q = 0; q < 2 * c->pairs; q++)
		c->vqs[q].enabled = q / 2 < pairs;
	vhost_link_advance(c);
	return 0;
}

static bool queue_here(struct split_device *d, unsigned q)
{
	return (int)q == vnet_ctrl_index(d, vhost_client_of(d)->pairs);
}

static unsigned client_poll(struct split_device *d)
{
	struct vhost_client *c = vhost_client_of(d);
	int index = vnet_ctrl_index(d, c->pairs);
	const struct vnet_ctrl ctrl = {
		.device = d, .index = (unsigned)index, .pairs = c->pairs, .pairs_set = pairs_set};

	return index >= 0 && d->queues[index].running ? vnet_ctrl_poll(&ctrl) : 0;
}

static void client_batch_end(struct split_device *d)
{
	(void)d;
}

/* ------------------------------------------------------------------ life, shared by all kinds */

static int client_negotiated(struct split_device *d)
{
	return d->driver_features & BIT(VIRTIO_NET_F_MQ) && d->ops->virtio_id == VIRTIO_ID_NET &&
			       !split_has(d, VIRTIO_NET_F_CTRL_VQ)
		       ? -EINVAL
		       : 0;
}

static uint32_t client_inflight(struct split_device *d)
{
	return vhost_queues_stopping(vhost_client_of(d));
}

static void client_reset(struct split_device *d)
{
	struct vhost_client *c = vhost_client_of(d);

	/* nothing is in flight: what was kept of it is of another life */
	vhost_kept_drop(c);
	for (unsigned q = 0; q < d->nqueues; q++)
		c->vqs[q].taken = false;
	if (d->ops->virtio_id == VIRTIO_ID_NET)
		pairs_set(d, 1);
}

static void client_save(struct split_device *d, struct state_writer *w)
{
	struct vhost_client *c = vhost_client_of(d);

	state_section_begin(w, d->ops->name, 1);
	state_put_u32(w, d->nqueues);
	state_put_u16(w, (uint16_t)c->active);
	state_put_bytes(w, c->opts.mac, sizeof(c->opts.mac));
	state_section_end(w);
}

static void client_load(struct split_device *d, struct state_reader *r)
{
	struct vhost_client *c = vhost_client_of(d);
	uint32_t nqueues;
	uint16_t active;
	uint8_t mac[6];

	state_section_enter(r, d->ops->name, 1);
	nqueues = state_get_u32(r);
	active = state_get_u16(r);
	state_get_bytes(r, mac, sizeof(mac));
	state_section_leave(r);
	if (r->error)
		return;
	if (nqueues != d->nqueues || active > c->pairs || (c->pairs && !active)) {
		r->error = -EINVAL;
		return;
	}
	if (!c->pairs)
		return;
	memcpy(c->opts.mac, mac, sizeof(mac)); /* the guest has seen it */
	vhost_config_make(c);
	pairs_set(d, active);
}

static void client_destroy(struct split_device *d)
{
	vhost_client_free(vhost_client_of(d));
}

static const struct split_remote_ops remote = {
	.here = queue_here,
	.queue_start = vhost_queue_begin,
	.queue_stop = vhost_queue_end,
	.signal_changed = vhost_client_signal_changed,
	.doorbell = vhost_queues_kick,
	.dirty_sync = vhost_log_sync,
};

#define COMMON_OPS                                                                                 \
	.config_read = config_read, .config_write = config_write, .negotiated = client_negotiated, \
	.inflight = client_inflight, .reset = client_reset, .poll = client_poll,                   \
	.batch_end = client_batch_end, .save = client_save, .load = client_load,                   \
	.destroy = client_destroy, .remote = &remote

static const struct vhost_kind kinds[] = {
	{
		.ops = {.name = "vhost-user-blk",
			.virtio_id = VIRTIO_ID_BLOCK,
			.config_size = BLK_CONFIG_SIZE,
			COMMON_OPS},
		.passed = BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) |
			  BIT(VIRTIO_BLK_F_GEOMETRY) | BIT(VIRTIO_BLK_F_RO) |
			  BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) |
			  BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_MQ) |
			  BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES),
		.protocol_needed = BIT(VHOST_USER_PROTOCOL_F_CONFIG),
		.keeps = true,
		.queue_size = 256,
	},
	{
		.ops = {.name = "vhost-user-net",
			.virtio_id = VIRTIO_ID_NET,
			.config_size = NET_CONFIG_SIZE,
			COMMON_OPS},
		.passed = net_offload_bits | BIT(VIRTIO_NET_F_MRG_RXBUF),
		.own = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) |
		       BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_MQ),
		.queue_size = 256,
	},
	{
		.ops = {.name = "vhost-user-fs",
			.virtio_id = VIRTIO_ID_FS,
			.config_size = FS_CONFIG_SIZE,
			COMMON_OPS},
		.queue_size = 128,
	},
};

const struct vhost_kind *vhost_kind_find(uint32_t virtio_id)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].ops.virtio_id == virtio_id)
			return &kinds[i];
	return NULL;
}
