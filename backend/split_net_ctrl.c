/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net: the control queue (5.1.6.5), wherever the other queues are served. */
#include <endian.h>

#include "backend/backend.h"
#include "backend/split_net_priv.h"

enum { VIRTIO_NET_CTRL_MQ = 4, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0 };
enum { VIRTIO_NET_OK = 0, VIRTIO_NET_ERR = 1 };

#define CTRL_BATCH 64u
#define CTRL_SEGS  128u

int vnet_ctrl_index(const struct split_device *d, unsigned pairs)
{
	if (pairs < 2 || !split_has(d, VIRTIO_NET_F_CTRL_VQ))
		return -1;
	return split_has(d, VIRTIO_NET_F_MQ) ? (int)(2 * pairs) : 2;
}

static uint8_t vnet_ctrl_command(const struct vnet_ctrl *c, const struct ring_chain *chain)
{
	struct ring_seg *segs = chain->segs;
	uint32_t n = chain->nout;
	uint8_t cmd[2];
	uint16_t pairs;

	if (!segs_pull(&segs, &n, cmd, sizeof(cmd)))
		goto malformed;
	if (cmd[0] != VIRTIO_NET_CTRL_MQ || cmd[1] != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
		!split_has(c->device, VIRTIO_NET_F_MQ))
		return VIRTIO_NET_ERR;
	if (!segs_pull(&segs, &n, &pairs, sizeof(pairs)))
		goto malformed;
	pairs = le16toh(pairs);
	if (pairs < 1 || pairs > c->pairs)
		return VIRTIO_NET_ERR;
	return c->pairs_set(c->device, pairs) ? VIRTIO_NET_ERR : VIRTIO_NET_OK;

malformed:
	counter_add(&c->device->counters.malformed, 1);
	return VIRTIO_NET_ERR;
}

static void vnet_ctrl_one(
	const struct vnet_ctrl *c, struct split_queue *q, const struct ring_chain *chain)
{
	struct ring_used used = {.id = chain->id, .len = 1};
	uint8_t *ack, result;

	if (!chain->in_len) {
		used.len = 0;
		split_queue_push(q, &used, 1);
		split_break(c->device);
		return;
	}
	ack = chain->segs[chain->nout].base;
	result = vnet_ctrl_command(c, chain);
	*(volatile uint8_t *)ack = result;
	if (c->device->dirty_log)
		ring_mem_dirty(c->device->mem, ack, 1);
	if (result != VIRTIO_NET_OK)
		counter_add(&c->device->counters.errors, 1);
	split_queue_push(q, &used, 1);
}

unsigned vnet_ctrl_poll(const struct vnet_ctrl *c)
{
	struct split_queue *q = &c->device->queues[c->index];
	struct ring_seg segs[CTRL_SEGS];
	struct ring_chain chain;
	unsigned n = 0;

	/* one at a time: a command changes what the next ones mean */
	while (n < CTRL_BATCH && split_queue_live(q) && ring_device_has_work(&q->ring)) {
		if (!split_popped(c->device, ring_device_pop(&q->ring, &chain, 1, segs, CTRL_SEGS)))
			break;
		vnet_ctrl_one(c, q, &chain);
		n++;
	}
	return n;
}
