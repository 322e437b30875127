/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-blk (virtio 1.2 section 5.2) on blk/. One block channel serves all queues of a device;
 * with an io_uring it shares the I/O thread's ring. What a request asks is in split_blk_request.c.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"
#include "backend/split_blk_priv.h"

#define POP_BATCH   VBLK_POP_CHAINS
#define POP_ROUNDS  4u
#define POP_CACHED  8u
#define CONFIG_SIZE 60u
#define CONFIG_WCE  32u

/* ------------------------------------------------------------------ queues */

static struct vblk_request *vblk_request_get(struct vblk_queue *vq)
{
	struct vblk_request *r = vq->free;

	if (r)
		vq->free = r->next;
	else if (vq->fresh < vq->size)
		r = &vq->requests[vq->fresh++]; /* never used so far: its pages are touched now */
	return r;
}

static uint32_t vblk_requests_free(const struct vblk_queue *vq)
{
	return vq->size - vq->busy;
}

/*
 * How many are taken in a round. What is in the page cache is there when the call that asks for it
 * returns: in parts, so that the driver has the first while the next are fetched. With direct I/O
 * blk_channel_options.batch does as much.
 */
static uint32_t vblk_round_max(const struct vblk *v)
{
	return v->info.direct || v->info.engine == BLK_ENGINE_NBD ? POP_ROUNDS * POP_BATCH
								  : POP_CACHED;
}

static unsigned vblk_queue_poll(struct vblk *v, unsigned index)
{
	struct split_queue *q = &v->common.queues[index];
	struct vblk_queue *vq = &v->vqs[index];
	const uint32_t max = vblk_round_max(v);
	unsigned total = 0;

	while (total < max) {
		uint32_t room = vblk_requests_free(vq);
		uint64_t now;
		unsigned n;

		if (room > max - total)
			room = max - total;
		if (!room || !split_queue_live(q) || !split_queue_has_work(q))
			break;
		n = split_queue_pop(
			q, v->chains, room < POP_BATCH ? room : POP_BATCH, v->segs, VBLK_POP_SEGS);
		if (!n)
			break;
		now = clock_now_ns();
		counter_add(&v->common.counters.requests, n);
		for (unsigned i = 0; i < n; i++) {
			struct vblk_request *r = vblk_request_get(vq);

			vq->busy++;
			v->inflight++;
			r->vq = vq;
			r->started_ns = now;
			vblk_request_start(v, r, &v->chains[i]);
		}
		total += n;
	}
	return total;
}

static unsigned vblk_poll(struct split_device *d)
{
	struct vblk *v = (struct vblk *)d;
	unsigned n = 0;

	for (unsigned i = 0; i < d->nqueues; i++)
		n += vblk_queue_poll(v, i);
	if (v->inflight)
		blk_kick(v->channel); /* also what the channel had no room for before */
	/* a descriptor that became readable is read even if its completions were seen before */
	if (!v->shared_ring && (v->inflight || v->readable)) {
		v->readable = false;
		n += blk_poll(v->channel);
	}
	/* beside the page cache it is a worker of the kernel's or of ours that has the request */
	if (v->inflight && !v->info.direct)
		v->common.io->polite = true;
	return n;
}

static void vblk_batch_end(struct split_device *d)
{
	struct vblk *v = (struct vblk *)d;
	struct blk_channel_counters c;

	v->now_ns = 0;
	if (!v->finished)
		return;
	v->finished = false;
	for (unsigned i = 0; i < d->nqueues; i++) {
		struct vblk_queue *vq = &v->vqs[i];

		split_queue_push(&d->queues[i], vq->used, vq->nused);
		vq->nused = 0;
	}
	if (!v->shared_ring) {
		blk_channel_counters_get(v->channel, &c);
		counter_add(&d->counters.system_calls, c.system_calls - v->channel_calls);
		v->channel_calls = c.system_calls;
	}
}

static void vblk_readable(struct io_watch *w)
{
	struct vblk *v = (struct vblk *)((char *)w - offsetof(struct vblk, watch));

	v->readable = true;
}

static uint32_t vblk_inflight(struct split_device *d)
{
	return ((struct vblk *)d)->inflight;
}

static int vblk_queue_start(struct split_device *d, unsigned index)
{
	struct vblk *v = (struct vblk *)d;
	struct vblk_queue *vq = &v->vqs[index];

	if (!vq->requests) {
		vq->requests = calloc(d->queue_size_max, sizeof(*vq->requests));
		vq->used = calloc(d->queue_size_max, sizeof(*vq->used));
		if (!vq->requests || !vq->used) {
			free(vq->requests);
			free(vq->used);
			vq->requests = NULL;
			vq->used = NULL;
			return -ENOMEM;
		}
	}
	vq->size = d->queue_size_max;
	vq->q = &d->queues[index];
	vq->device = v;
	return 0;
}

static bool vblk_sleep(struct split_device *d)
{
	struct vblk *v = (struct vblk *)d;

	if (v->inflight)
		blk_kick(v->channel);
	return false;
}

/* ------------------------------------------------------------------ configuration */

static void put16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

/* 5.2.4: struct virtio_blk_config */
static void vblk_config_fill(const struct vblk *v, uint8_t c[CONFIG_SIZE])
{
	uint64_t sectors = v->sectors, cylinders = sectors / (16 * 63);
	uint32_t exponent = (uint32_t)__builtin_ctz(v->info.block_size / BLK_SECTOR);

	memset(c, 0, CONFIG_SIZE);
	put64(c + 0, sectors);
	put32(c + 12, VBLK_SEG_MAX);
	put16(c + 16, (uint16_t)(cylinders > 16383 ? 16383 : cylinders));
	c[18] = 16;
	c[19] = 63;
	/* Always 512: partition tables count in it. What the host prefers is in the topology. */
	put32(c + 20, BLK_SECTOR);
	c[24] = (uint8_t)exponent;
	put16(c + 26, (uint16_t)(v->info.block_size / BLK_SECTOR));
	c[CONFIG_WCE] = atomic_load_explicit(&v->wce, memory_order_relaxed);
	put16(c + 34, (uint16_t)v->common.nqueues);
	put32(c + 36, VBLK_RANGE_SECTORS_MAX);
	put32(c + 40, VBLK_RANGES_MAX);
	put32(c + 44, v->info.block_size / BLK_SECTOR);
	put32(c + 48, VBLK_RANGE_SECTORS_MAX);
	put32(c + 52, VBLK_RANGES_MAX);
	c[56] = v->info.discard;
}

static void vblk_config_read(struct split_device *d, uint32_t offset, void *to, uint32_t len)
{
	uint8_t c[CONFIG_SIZE];

	vblk_config_fill((struct vblk *)d, c);
	memset(to, 0, len);
	if (offset >= CONFIG_SIZE)
		return;
	memcpy(to, c + offset, len < CONFIG_SIZE - offset ? len : CONFIG_SIZE - offset);
}

static void vblk_config_write(
	struct split_device *d, uint32_t offset, const void *from, uint32_t len)
{
	struct vblk *v = (struct vblk *)d;
	const uint8_t *p = from;

	if (!split_has(d, VIRTIO_BLK_F_CONFIG_WCE) || offset > CONFIG_WCE ||
		CONFIG_WCE - offset >= len)
		return;
	atomic_store_explicit(&v->wce, p[CONFIG_WCE - offset] & 1, memory_order_relaxed);
}

/* ------------------------------------------------------------------ state */

static void vblk_reset(struct split_device *d)
{
	struct vblk *v = (struct vblk *)d;

	atomic_store_explicit(&v->wce, true, memory_order_relaxed);
	for (unsigned i = 0; i < d->nqueues; i++)
		v->vqs[i].nused = 0;
}

static void vblk_save(struct split_device *d, struct state_writer *w)
{
	struct vblk *v = (struct vblk *)d;

	state_section_begin(w, "virtio-blk", 1);
	state_put_u64(w, v->sectors);
	state_put_u8(w, atomic_load_explicit(&v->wce, memory_order_relaxed));
	state_section_end(w);
}

static void vblk_load(struct split_device *d, struct state_reader *r)
{
	struct vblk *v = (struct vblk *)d;
	uint64_t sectors;
	uint8_t wce;

	state_section_enter(r, "virtio-blk", 1);
	sectors = state_get_u64(r);
	wce = state_get_u8(r);
	state_section_leave(r);
	if (r->error)
		return;
	if (sectors != v->sectors || wce > 1) {
		r->error = -EINVAL; /* another disk's */
		return;
	}
	atomic_store_explicit(&v->wce, wce, memory_order_relaxed);
}

/* ------------------------------------------------------------------ life */

static void vblk_free(struct vblk *v)
{
	for (unsigned i = 0; v->vqs && i < v->common.nqueues; i++) {
		free(v->vqs[i].requests);
		free(v->vqs[i].used);
	}
	free(v->vqs);
	free(v);
}

static void vblk_destroy(struct split_device *d)
{
	struct vblk *v = (struct vblk *)d;

	if (!v->shared_ring)
		io_watch_remove(d->io, &v->watch);
	blk_channel_close(v->channel);
	split_fini(d);
	vblk_free(v);
}

static const struct split_ops vblk_ops = {
	.name = "virtio-blk",
	.virtio_id = VIRTIO_ID_BLOCK,
	.config_size = CONFIG_SIZE,
	.config_read = vblk_config_read,
	.config_write = vblk_config_write,
	.queue_start = vblk_queue_start,
	.inflight = vblk_inflight,
	.reset = vblk_reset,
	.poll = vblk_poll,
	.sleep = vblk_sleep,
	.batch_end = vblk_batch_end,
	.save = vblk_save,
	.load = vblk_load,
	.destroy = vblk_destroy,
};

static uint64_t vblk_features(const struct split_blk_options *o, const struct blk_info *info)
{
	uint64_t f = split_features_common(o->ring, o->no_indirect, o->no_event_idx, o->in_order);

	f |= VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_GEOMETRY) |
	     VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
	     VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE);
	if (o->queues > 1)
		f |= VIRTIO_BIT(VIRTIO_BLK_F_MQ);
	if (info->readonly)
		return f | VIRTIO_BIT(VIRTIO_BLK_F_RO);
	if (info->discard)
		f |= VIRTIO_BIT(VIRTIO_BLK_F_DISCARD);
	if (info->write_zeroes)
		f |= VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	return f;
}

struct vblk_open {
	struct vblk *v;
	const struct split_blk_options *opts;
	char *why;
	int err;
};

static void vblk_memory_register(struct vblk *v)
{
	const struct ring_mem *mem = v->common.mem;
	struct iovec iov[RING_MEM_REGIONS_MAX];
	unsigned n = 0;

	for (uint32_t i = 0; i < mem->nregions; i++)
		if (!mem->regions[i].readonly)
			iov[n++] = (struct iovec){mem->regions[i].hva, mem->regions[i].size};
	/* refused: the channel goes on without, and the image's note says so */
	(void)blk_channel_register_memory(v->channel, iov, n);
}

/* On the I/O thread: the channel belongs to the thread that opens it. */
static void vblk_open_io(void *ctx)
{
	struct vblk_open *o = ctx;
	struct vblk *v = o->v;
	struct blk_channel_options co = {.ring = io_thread_ring(v->common.io)};

	o->err = blk_channel_open(&v->channel, o->opts->image, &co, o->why);
	if (o->err)
		return;
	v->watch.fd = blk_channel_fd(v->channel);
	v->watch.ready = vblk_readable;
	v->shared_ring = v->watch.fd < 0;
	if (!v->shared_ring) {
		o->err = io_watch_add(v->common.io, &v->watch);
		if (o->err) {
			backend_why(
				o->why, "virtio-blk: cannot watch the disk: %s", strerror(-o->err));
			blk_channel_close(v->channel);
			return;
		}
	}
	if (o->opts->registered_memory)
		vblk_memory_register(v);
}

static void vblk_close_io(void *ctx)
{
	struct vblk *v = ctx;

	if (!v->shared_ring)
		io_watch_remove(v->common.io, &v->watch);
	blk_channel_close(v->channel);
}

int split_blk_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_blk_options *opts,
	char why[BACKEND_WHY_MAX])
{
	struct vblk_open open = {.opts = opts, .why = why};
	struct vblk *v;
	int err;

	if (opts->queues < 1 || opts->queues > BACKEND_QUEUES_MAX) {
		backend_why(
			why, "queues=%u: 1 to %u are possible", opts->queues, BACKEND_QUEUES_MAX);
		return -EINVAL;
	}
	if (opts->queue_size && (opts->queue_size < 2 || opts->queue_size > 1024 ||
					(opts->queue_size & (opts->queue_size - 1)))) {
		backend_why(why, "queue-size=%u: a power of two from 2 to 1024 is possible",
			opts->queue_size);
		return -EINVAL;
	}
	v = calloc(1, sizeof(*v));
	if (!v)
		goto no_memory;
	v->common.ops = &vblk_ops;
	v->common.io = io;
	v->common.mem = mem;
	v->common.signal = *signal;
	v->common.nqueues = opts->queues;
	v->common.queue_size_max = opts->queue_size ? opts->queue_size : 256;
	v->common.chain_max = VBLK_CHAIN_MAX;
	blk_info_get(opts->image, &v->info);
	v->common.features = vblk_features(opts, &v->info);
	v->sectors = v->info.size / BLK_SECTOR;
	atomic_init(&v->wce, true);
	if (opts->serial)
		memcpy(v->serial, opts->serial, strnlen(opts->serial, sizeof(v->serial)));
	v->vqs = calloc(v->common.nqueues, sizeof(*v->vqs));
	if (!v->vqs)
		goto no_memory;
	open.v = v;
	io_thread_call(io, vblk_open_io, &open);
	err = open.err;
	if (err)
		goto free_device;
	err = split_init(&v->common, why);
	if (err)
		goto close_channel;
	split_attach(&v->common);
	*out = &v->common;
	return 0;

close_channel:
	io_thread_call(io, vblk_close_io, v);
free_device:
	vblk_free(v);
	return err;
no_memory:
	free(v);
	backend_why(why, "virtio-blk: no memory");
	return -ENOMEM;
}
