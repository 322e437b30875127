/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One virtio-blk request (virtio 1.2 section 5.2.6), from chain to status byte. The driver may cut
 * header, data and status into segments as it likes (2.7.4.2): the header is the first 16 readable
 * bytes, the status the last writable one.
 */
#include <endian.h>
#include <errno.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"
#include "backend/split_blk_priv.h"

enum {
	VIRTIO_BLK_T_IN = 0,
	VIRTIO_BLK_T_OUT = 1,
	VIRTIO_BLK_T_FLUSH = 4,
	VIRTIO_BLK_T_GET_ID = 8,
	VIRTIO_BLK_T_DISCARD = 11,
	VIRTIO_BLK_T_WRITE_ZEROES = 13,
};

enum { VIRTIO_BLK_S_OK = 0, VIRTIO_BLK_S_IOERR = 1, VIRTIO_BLK_S_UNSUPP = 2 };

#define RANGE_F_UNMAP 1u

struct vblk_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};

/* What is left of a chain after the header and without the status byte. */
struct vblk_data {
	struct ring_seg *out;
	uint32_t nout;
	uint32_t out_len;
	struct ring_seg *in;
	uint32_t nin;
	uint32_t in_len;
};

/* ------------------------------------------------------------------ completion */

static void vblk_request_finish(struct vblk *v, struct vblk_request *r, uint8_t status)
{
	struct vblk_queue *vq = r->vq;

	*(volatile uint8_t *)r->status = status;
	if (v->common.dirty_log)
		ring_mem_dirty(v->common.mem, r->status, 1);
	if (status != VIRTIO_BLK_S_OK)
		counter_add(&v->common.counters.errors, 1);
	if (!v->now_ns)
		v->now_ns = clock_now_ns();
	histogram_add(&vq->q->latency, v->now_ns - r->started_ns);
	vq->used[vq->nused++] = (struct ring_used){
		.id = r->id,
		.len = status == VIRTIO_BLK_S_OK ? r->used_ok : r->used_error,
	};
	r->next = vq->free;
	vq->free = r;
	vq->busy--;
	v->inflight--;
	v->finished = true;
}

static void vblk_malformed(struct vblk *v, struct vblk_request *r)
{
	counter_add(&v->common.counters.malformed, 1);
	vblk_request_finish(v, r, VIRTIO_BLK_S_IOERR);
}

static void vblk_range_submit(struct vblk *v, struct vblk_request *r);

static void vblk_request_done(struct blk_request *blk, int res)
{
	struct vblk_request *r = blk->owner;
	struct vblk *v = r->vq->device;

	if (blk->op == BLK_READ && v->common.dirty_log)
		for (uint32_t i = 0; i < blk->niov; i++) /* after an error too: part may be there */
			ring_mem_dirty(v->common.mem, r->iov[i].iov_base, r->iov[i].iov_len);
	if (res < 0) {
		vblk_request_finish(v, r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (blk->op == BLK_READ || blk->op == BLK_WRITE)
		counter_add(&v->common.counters.bytes, blk->length);
	if (r->range < r->nranges) {
		vblk_range_submit(v, r);
	} else if (r->flush_after) {
		/* write-through: only what is stable is complete */
		r->flush_after = false;
		r->blk.op = BLK_FLUSH;
		blk_submit(v->channel, &r->blk);
	} else {
		vblk_request_finish(v, r, VIRTIO_BLK_S_OK);
	}
}

/* ------------------------------------------------------------------ kinds of request */

static bool vblk_range_valid(const struct vblk *v, uint64_t sector, uint64_t nsectors)
{
	return sector <= v->sectors && nsectors <= v->sectors - sector;
}

/* 5.2.6.2: the cache mode when the driver cannot, or did not, choose one. */
static bool vblk_write_through(const struct vblk *v)
{
	if (split_has(&v->common, VIRTIO_BLK_F_CONFIG_WCE))
		return !atomic_load_explicit(&v->wce, memory_order_relaxed);
	return !split_has(&v->common, VIRTIO_BLK_F_FLUSH);
}

static void vblk_transfer(struct vblk *v, struct vblk_request *r, enum blk_op op, uint64_t sector,
	struct ring_seg *segs, uint32_t nsegs, uint32_t len)
{
	if (len % BLK_SECTOR || !vblk_range_valid(v, sector, len / BLK_SECTOR)) {
		vblk_malformed(v, r);
		return;
	}
	if (op == BLK_WRITE && v->info.readonly) {
		vblk_request_finish(v, r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!len) {
		vblk_request_finish(v, r, VIRTIO_BLK_S_OK);
		return;
	}
	memcpy(r->iov, segs_iov(segs), nsegs * sizeof(r->iov[0]));
	r->blk.op = op;
	r->blk.offset = sector * BLK_SECTOR;
	r->blk.length = len;
	r->blk.iov = r->iov;
	r->blk.niov = nsegs;
	r->flush_after = op == BLK_WRITE && vblk_write_through(v);
	blk_submit(v->channel, &r->blk);
}

static void vblk_flush(struct vblk *v, struct vblk_request *r)
{
	r->blk.op = BLK_FLUSH;
	blk_submit(v->channel, &r->blk);
}

static void vblk_get_id(struct vblk *v, struct vblk_request *r, const struct vblk_data *data)
{
	struct ring_seg *segs = data->in;
	const char *from = v->serial;
	size_t left = VBLK_SERIAL;

	if (data->in_len < VBLK_SERIAL) {
		vblk_malformed(v, r);
		return;
	}
	while (left) {
		size_t part = segs->len < left ? segs->len : left;

		memcpy(segs->base, from, part);
		if (v->common.dirty_log)
			ring_mem_dirty(v->common.mem, segs->base, part);
		from += part;
		left -= part;
		segs++;
	}
	if (data->in_len > VBLK_SERIAL)
		r->used_ok = VBLK_SERIAL; /* the status byte lies beyond what was written */
	vblk_request_finish(v, r, VIRTIO_BLK_S_OK);
}

static void vblk_range_submit(struct vblk *v, struct vblk_request *r)
{
	const struct vblk_range *range = &r->ranges[r->range++];

	r->blk.offset = range->sector * BLK_SECTOR;
	r->blk.length = (uint64_t)range->nsectors * BLK_SECTOR;
	r->blk.unmap = range->flags & RANGE_F_UNMAP;
	blk_submit(v->channel, &r->blk);
}

/* 5.2.6.2: status for ranges that are refused; nothing is done unless all are good. */
static uint8_t vblk_ranges_check(const struct vblk *v, const struct vblk_request *r, bool discard)
{
	for (unsigned i = 0; i < r->nranges; i++) {
		const struct vblk_range *range = &r->ranges[i];

		if (range->flags & ~(discard ? 0u : RANGE_F_UNMAP))
			return VIRTIO_BLK_S_UNSUPP;
		if (range->nsectors > VBLK_RANGE_SECTORS_MAX ||
			!vblk_range_valid(v, range->sector, range->nsectors))
			return VIRTIO_BLK_S_IOERR;
	}
	return VIRTIO_BLK_S_OK;
}

/* Ranges without sectors are no work: dropped. */
static void vblk_ranges_compact(struct vblk_request *r)
{
	uint8_t n = 0;

	for (uint8_t i = 0; i < r->nranges; i++)
		if (r->ranges[i].nsectors)
			r->ranges[n++] = r->ranges[i];
	r->nranges = n;
}

static void vblk_ranges(
	struct vblk *v, struct vblk_request *r, struct vblk_data *data, bool discard)
{
	uint32_t len = data->out_len;
	uint8_t status;

	if (!split_has(&v->common, discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES)) {
		vblk_request_finish(
			v, r, v->info.readonly ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (!len || len % sizeof(struct vblk_range) || len > sizeof(r->ranges)) {
		vblk_malformed(v, r);
		return;
	}
	segs_pull(&data->out, &data->nout, r->ranges, len);
	r->nranges = (uint8_t)(len / sizeof(struct vblk_range));
	for (unsigned i = 0; i < r->nranges; i++) {
		r->ranges[i].sector = le64toh(r->ranges[i].sector);
		r->ranges[i].nsectors = le32toh(r->ranges[i].nsectors);
		r->ranges[i].flags = le32toh(r->ranges[i].flags);
	}
	status = vblk_ranges_check(v, r, discard);
	vblk_ranges_compact(r);
	if (status != VIRTIO_BLK_S_OK || !r->nranges) {
		vblk_request_finish(v, r, status);
		return;
	}
	r->blk.op = discard ? BLK_DISCARD : BLK_WRITE_ZEROES;
	r->flush_after = vblk_write_through(v);
	vblk_range_submit(v, r);
}

/* ------------------------------------------------------------------ start */

/* Cuts the status byte off the end of the writable part, which has at least one byte. */
static uint8_t *vblk_status_cut(struct vblk_data *data)
{
	struct ring_seg *last = &data->in[data->nin - 1];
	uint8_t *status = (uint8_t *)last->base + --last->len;

	if (!last->len)
		data->nin--;
	data->in_len--;
	return status;
}

/* A chain without room for a status: nothing can be said to the driver in it. */
static void vblk_mute(struct vblk *v, struct vblk_request *r)
{
	struct vblk_queue *vq = r->vq;

	vq->used[vq->nused++] = (struct ring_used){.id = r->id, .len = 0};
	r->next = vq->free;
	vq->free = r;
	vq->busy--;
	v->inflight--;
	v->finished = true;
	split_break(&v->common);
}

void vblk_request_start(struct vblk *v, struct vblk_request *r, const struct ring_chain *chain)
{
	struct vblk_data data = {
		.out = chain->segs,
		.nout = chain->nout,
		.out_len = chain->out_len,
		.in = chain->segs + chain->nout,
		.nin = chain->nin,
		.in_len = chain->in_len,
	};
	struct vblk_header h;

	memset(&r->blk, 0, sizeof(r->blk));
	r->blk.done = vblk_request_done;
	r->blk.owner = r;
	r->id = chain->id;
	r->nranges = r->range = 0;
	r->flush_after = false;
	if (!chain->in_len) {
		vblk_mute(v, r);
		return;
	}
	r->used_ok = chain->in_len;
	r->used_error =
		chain->in_len == 1; /* data was not written: a prefix of it must not be claimed */
	r->status = vblk_status_cut(&data);
	if (!segs_pull(&data.out, &data.nout, &h, sizeof(h))) {
		vblk_malformed(v, r);
		return;
	}
	data.out_len -= sizeof(h);
	switch (le32toh(h.type)) {
	case VIRTIO_BLK_T_IN:
		vblk_transfer(v, r, BLK_READ, le64toh(h.sector), data.in, data.nin, data.in_len);
		break;
	case VIRTIO_BLK_T_OUT:
		vblk_transfer(
			v, r, BLK_WRITE, le64toh(h.sector), data.out, data.nout, data.out_len);
		break;
	case VIRTIO_BLK_T_FLUSH:
		vblk_flush(v, r);
		break;
	case VIRTIO_BLK_T_GET_ID:
		vblk_get_id(v, r, &data);
		break;
	case VIRTIO_BLK_T_DISCARD:
		vblk_ranges(v, r, &data, true);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		vblk_ranges(v, r, &data, false);
		break;
	default:
		vblk_request_finish(v, r, VIRTIO_BLK_S_UNSUPP);
	}
}
