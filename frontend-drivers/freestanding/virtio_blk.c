/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-blk (virtio 1.2, 5.2): every request is a header, its data and a status byte. */
#include "frontend-drivers/freestanding/virtio_pci_priv.h"

#define BLK_SEGS            4u
#define BLK_QUEUES_MAX      16u
#define BLK_CONFIG_CAPACITY 0u
#define BLK_CONFIG_QUEUES   34u

/*
 * Frames are taken from a free list. The ring carries the frame's number; the caller's token waits
 * here.
 */
struct blk_queue {
	struct virtio_blk_frame *frames;
	uint64_t *tokens;
	uint16_t *free;
	uint32_t nfree;
	bool dirty; /* added since the last kick */
};

struct virtio_blk {
	struct frontend_blk blk;
	struct virtio_dev dev;
	unsigned next; /* queue that poll() looks at first: none is starved */
	struct blk_queue queues[BLK_QUEUES_MAX];
};

static struct virtio_blk *blk_of(struct frontend_blk *b)
{
	return (struct virtio_blk *)((uint8_t *)b - offsetof(struct virtio_blk, blk));
}

static bool blk_can(const struct frontend_blk *b, enum frontend_blk_op op)
{
	switch (op) {
	case FRONTEND_BLK_WRITE:
		return !b->readonly;
	case FRONTEND_BLK_FLUSH:
		return b->has_flush;
	case FRONTEND_BLK_DISCARD:
		return b->has_discard;
	case FRONTEND_BLK_WRITE_ZEROES:
		return b->has_write_zeroes;
	default:
		return true;
	}
}

static int blk_submit(struct frontend_blk *b, unsigned queue, enum frontend_blk_op op,
	uint64_t sector, void *buf, uint32_t bytes, uint64_t token)
{
	struct virtio_blk *v = blk_of(b);
	struct blk_queue *q = &v->queues[queue];
	struct ring_sg sg[BLK_SEGS];
	uint32_t nout, nin;
	uint16_t n;
	int r;

	if (queue >= b->queues)
		return -GUEST_EINVAL;
	if (!blk_can(b, op))
		return -GUEST_ENOTSUP;
	if (!q->nfree)
		return -GUEST_ENOSPC;
	n = q->free[q->nfree - 1];
	r = virtio_blk_request(&q->frames[n], op, sector, buf, bytes, sg, &nout, &nin);
	if (r)
		return r;
	r = ring_driver_add(&v->dev.queues[queue].ring, sg, nout, nin, n);
	if (r)
		return r;
	q->tokens[n] = token;
	q->nfree--;
	q->dirty = true;
	return 0;
}

static void blk_kick(struct frontend_blk *b)
{
	struct virtio_blk *v = blk_of(b);

	for (unsigned i = 0; i < b->queues; i++) {
		if (!v->queues[i].dirty)
			continue;
		v->queues[i].dirty = false;
		virtio_queue_flush(&v->dev.queues[i]);
	}
	b->doorbells = v->dev.doorbells;
}

static int blk_poll_queue(
	struct virtio_blk *v, unsigned n, struct frontend_blk_done *done, unsigned max)
{
	struct blk_queue *q = &v->queues[n];
	struct ring_done got[64];
	int r;

	if (max > 64)
		max = 64;
	r = ring_driver_collect(&v->dev.queues[n].ring, got, max);
	if (r < 0)
		return -GUEST_EIO;
	for (int i = 0; i < r; i++) {
		uint16_t frame = (uint16_t)got[i].token;

		done[i].token = q->tokens[frame];
		done[i].status = virtio_blk_status(&q->frames[frame]);
		q->free[q->nfree++] = frame;
	}
	return r;
}

static int blk_poll(struct frontend_blk *b, struct frontend_blk_done *done, unsigned max)
{
	struct virtio_blk *v = blk_of(b);
	unsigned total = 0;

	for (unsigned i = 0; i < b->queues && total < max; i++) {
		unsigned n = v->next + i < b->queues ? v->next + i : v->next + i - b->queues;
		int r = blk_poll_queue(v, n, done + total, max - total);

		if (r < 0)
			return r;
		total += (unsigned)r;
	}
	v->next = v->next + 1 < b->queues ? v->next + 1 : 0;
	return (int)total;
}

static bool blk_wait_begin(struct frontend_blk *b)
{
	struct virtio_blk *v = blk_of(b);
	bool more = false;

	virtio_dev_line_ack(&v->dev);
	for (unsigned i = 0; i < b->queues; i++)
		more |= ring_driver_interrupt_on(&v->dev.queues[i].ring, 1);
	return more;
}

static void blk_wait_end(struct frontend_blk *b)
{
	struct virtio_blk *v = blk_of(b);

	for (unsigned i = 0; i < b->queues; i++)
		ring_driver_interrupt_off(&v->dev.queues[i].ring);
	virtio_dev_line_ack(&v->dev);
}

static uint32_t blk_irqs(struct frontend_blk *b)
{
	return virtio_dev_irqs(&blk_of(b)->dev);
}

static const struct frontend_blk_ops blk_ops = {
	.submit = blk_submit,
	.kick = blk_kick,
	.poll = blk_poll,
	.wait_begin = blk_wait_begin,
	.wait_end = blk_wait_end,
	.irqs = blk_irqs,
};

static int blk_queue_make(struct virtio_blk *v, unsigned n)
{
	struct blk_queue *q = &v->queues[n];
	uint32_t size;
	int r;

	r = virtio_dev_queue(&v->dev, n, BLK_SEGS);
	if (r)
		return r;
	size = v->dev.queues[n].size;
	q->frames = mem_alloc(size * sizeof(*q->frames), 64);
	q->tokens = mem_alloc(size * sizeof(*q->tokens), 64);
	q->free = mem_alloc(size * sizeof(*q->free), 64);
	if (!q->frames || !q->tokens || !q->free)
		return -GUEST_ENOMEM;
	for (uint32_t i = 0; i < size; i++)
		q->free[i] = (uint16_t)(size - 1 - i);
	q->nfree = size;
	return 0;
}

int virtio_blk_open(unsigned index, unsigned queues, const struct frontend_virtio_options *o,
	struct frontend_blk **out)
{
	const uint64_t wanted = VIRTIO_BIT(VIRTIO_BLK_F_RO) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
				VIRTIO_BIT(VIRTIO_BLK_F_MQ) | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) |
				VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	struct virtio_blk *v = mem_alloc(sizeof(*v), 64);
	struct frontend_blk *b;
	unsigned offered = 1;
	int r;

	if (!v)
		return -GUEST_ENOMEM;
	b = &v->blk;
	r = virtio_dev_open(&v->dev, VIRTIO_BLK_TYPE, index, wanted, o);
	if (r)
		return r;
	if (virtio_dev_has(&v->dev, VIRTIO_BLK_F_MQ))
		offered = mmio_read16(v->dev.config + BLK_CONFIG_QUEUES);
	b->queues = queues < 1 ? 1 : queues;
	if (b->queues > offered || b->queues > BLK_QUEUES_MAX)
		return -GUEST_ENOTSUP;
	for (unsigned i = 0; i < b->queues; i++) {
		r = blk_queue_make(v, i);
		if (r)
			return r;
	}
	b->ops = &blk_ops;
	b->model = "virtio-blk";
	b->sectors = mmio_read32(v->dev.config + BLK_CONFIG_CAPACITY) |
		     (uint64_t)mmio_read32(v->dev.config + BLK_CONFIG_CAPACITY + 4) << 32;
	b->readonly = virtio_dev_has(&v->dev, VIRTIO_BLK_F_RO);
	b->has_flush = virtio_dev_has(&v->dev, VIRTIO_BLK_F_FLUSH);
	b->has_discard = virtio_dev_has(&v->dev, VIRTIO_BLK_F_DISCARD);
	b->has_write_zeroes = virtio_dev_has(&v->dev, VIRTIO_BLK_F_WRITE_ZEROES);
	virtio_dev_start(&v->dev);
	*out = b;
	return 0;
}

struct pci_msix *virtio_blk_msix(struct frontend_blk *b)
{
	return &blk_of(b)->dev.msix;
}

uint8_t virtio_blk_vector(struct frontend_blk *b)
{
	struct virtio_dev *d = &blk_of(b)->dev;

	return d->use_msix ? d->queues[0].vector : d->line_vector;
}

uint8_t virtio_blk_isr(struct frontend_blk *b)
{
	return mmio_read8(blk_of(b)->dev.isr);
}
