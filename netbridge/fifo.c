/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames in a ring of bytes. The producer copies frames in and publishes them together; the
 * consumer copies them into the receiver's buffers, finishing checksums and segmentation on the way
 * if the receiver wants no such work.
 *
 * Barriers: head and tail are stored and loaded sequentially consistent. The release/acquire half
 * passes the frames' bytes; the rest orders them against the flags in pair.c by which each side
 * says it is going to sleep.
 */
#include "netbridge/net_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* In front of each frame. len 0: nothing here, go on at the ring's start. */
struct record {
	uint32_t size;
	uint32_t len;
	struct net_vnet_hdr hdr;
	uint8_t note[NET_FIFO_NOTE];
};

#define RECORD_ALIGN ((uint32_t)sizeof(struct record))

_Static_assert(sizeof(struct record) == 32, "records are multiples of their own header");
_Static_assert(NET_FIFO_BYTES % sizeof(struct record) == 0, "and so is the ring");

static struct record *record_at(const struct net_fifo *f, uint64_t pos)
{
	return (struct record *)(f->base + (pos & (NET_FIFO_BYTES - 1)));
}

int net_fifo_init(struct net_fifo *f)
{
	void *p = mmap(NULL, NET_FIFO_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	memset(f, 0, sizeof(*f));
	f->base = p;
	return 0;
}

void net_fifo_destroy(struct net_fifo *f)
{
	if (f->base)
		munmap(f->base, NET_FIFO_BYTES);
	f->base = NULL;
}

/* Room for `size` bytes in one piece at stage, or after a jump to the ring's start. */
static int fifo_room(struct net_fifo *f, uint32_t size)
{
	uint32_t to_end = NET_FIFO_BYTES - (uint32_t)(f->stage & (NET_FIFO_BYTES - 1));
	uint32_t jump = size > to_end ? to_end : 0;

	if (f->stage + jump + size - f->tail_seen > NET_FIFO_BYTES) {
		f->tail_seen = atomic_load(&f->tail);
		if (f->stage + jump + size - f->tail_seen > NET_FIFO_BYTES)
			return -ENOSPC;
	}
	if (jump) {
		struct record *r = record_at(f, f->stage);

		r->size = jump;
		r->len = 0;
		f->stage += jump;
	}
	return 0;
}

static int fifo_push(
	struct net_fifo *f, const struct net_packet *pkt, uint32_t offloads, const uint8_t *note)
{
	uint32_t size = (pkt->len + 2 * RECORD_ALIGN - 1) & ~(RECORD_ALIGN - 1);
	struct record *r;

	if (pkt->len < NET_FRAME_MIN || pkt->len > NET_FRAME_MAX)
		return -EINVAL;
	/* The header goes to another guest as it is: only what can be true of this frame. */
	if (net_hdr_offloads(&pkt->hdr) & ~offloads || net_hdr_check(&pkt->hdr, pkt->len))
		return -EINVAL;
	if (fifo_room(f, size))
		return -ENOSPC;
	r = record_at(f, f->stage);
	r->size = size;
	r->hdr = pkt->hdr;
	r->hdr.flags &= NET_HDR_F_NEEDS_CSUM;
	r->hdr.num_buffers = 1;
	if (note)
		memcpy(r->note, note, sizeof(r->note));
	r->len = net_segs_gather(r + 1, pkt->len, pkt->segs, pkt->nsegs);
	if (r->len != pkt->len)
		return -EINVAL;
	f->stage += size;
	return 0;
}

int net_fifo_push(struct net_fifo *f, const struct net_packet *pkt, uint32_t offloads)
{
	return fifo_push(f, pkt, offloads, NULL);
}

int net_fifo_push_note(struct net_fifo *f, const struct net_packet *pkt, uint32_t offloads,
	const uint8_t note[NET_FIFO_NOTE])
{
	return fifo_push(f, pkt, offloads, note);
}

void net_fifo_publish(struct net_fifo *f)
{
	/* Pairs with the loads of head in net_fifo_ready() and net_fifo_receive(). */
	atomic_store(&f->head, f->stage);
}

static bool fifo_must_segment(const struct record *r, uint32_t accepted)
{
	return r->hdr.gso_type != NET_GSO_NONE && net_hdr_offloads(&r->hdr) & ~accepted;
}

/* One segment of the frame at the tail. false: dropped. */
static bool fifo_give_segment(struct net_fifo *f, struct net_buffer *buf)
{
	struct net_segment part;

	if (!net_segment_next(&f->seg, &part) || part.headers_len + part.payload_len > buf->room)
		return false;
	buf->len = net_segs_scatter(buf->segs, buf->nsegs, 0, part.headers, part.headers_len);
	buf->len += net_segs_scatter(
		buf->segs, buf->nsegs, part.headers_len, part.payload, part.payload_len);
	memset(&buf->hdr, 0, sizeof(buf->hdr));
	buf->hdr.num_buffers = 1;
	return true;
}

/* The whole frame at the tail. false: dropped. */
static bool fifo_give_frame(struct record *r, uint32_t accepted, struct net_buffer *buf)
{
	if (r->hdr.flags & NET_HDR_F_NEEDS_CSUM && !(accepted & NET_OFFLOAD_CSUM)) {
		struct iovec seg = {r + 1, r->len};
		struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = r->len, .hdr = r->hdr};

		if (net_checksum_finish(&pkt))
			return false;
		r->hdr = pkt.hdr;
	}
	if (r->len > buf->room)
		return false;
	buf->len = net_segs_scatter(buf->segs, buf->nsegs, 0, r + 1, r->len);
	buf->hdr = r->hdr;
	return true;
}

unsigned net_fifo_receive(struct net_fifo *f, uint32_t accepted, struct net_buffer *bufs,
	unsigned n, struct net_counters *c)
{
	uint64_t start = atomic_load_explicit(&f->tail, memory_order_relaxed), tail = start;
	uint64_t head = atomic_load(&f->head), bytes = 0, dropped = 0;
	unsigned done = 0;

	/* Ends: what is published after the look at head waits for the next call. */
	while (done < n && tail != head) {
		struct record *r = record_at(f, tail);
		bool given = true;

		if (!r->len) {
			tail += r->size;
			continue;
		}
		if (!f->segmenting && fifo_must_segment(r, accepted)) {
			f->segmenting = !net_segment_begin(
				&f->seg, (const uint8_t *)(r + 1), r->len, &r->hdr);
			given = f->segmenting;
		}
		if (f->segmenting)
			given = fifo_give_segment(f, &bufs[done]);
		else if (given)
			given = fifo_give_frame(r, accepted, &bufs[done]);
		if (given)
			bytes += bufs[done++].len;
		else
			dropped++;
		if (f->segmenting)
			f->segmenting = f->seg.more;
		if (!f->segmenting)
			tail += r->size;
	}
	if (tail != start) /* pairs with the load of tail in fifo_room() */
		atomic_store(&f->tail, tail);
	if (done) {
		net_count(&c->rx_packets, done);
		net_count(&c->rx_bytes, bytes);
	}
	if (dropped)
		net_count(&c->rx_dropped, dropped);
	return done;
}

unsigned net_fifo_peek(struct net_fifo *f, struct net_packet *pkts, struct iovec *segs,
	const uint8_t **notes, unsigned n)
{
	uint64_t tail = atomic_load_explicit(&f->tail, memory_order_relaxed);
	uint64_t head = atomic_load(&f->head);
	unsigned done = 0;

	while (done < n && tail != head) {
		struct record *r = record_at(f, tail);

		tail += r->size;
		if (!r->len)
			continue;
		segs[done] = (struct iovec){r + 1, r->len};
		pkts[done] = (struct net_packet){
			.segs = &segs[done], .nsegs = 1, .len = r->len, .hdr = r->hdr};
		if (notes)
			notes[done] = r->note;
		done++;
	}
	return done;
}

void net_fifo_skip(struct net_fifo *f, unsigned n)
{
	uint64_t tail = atomic_load_explicit(&f->tail, memory_order_relaxed);

	while (n) {
		const struct record *r = record_at(f, tail);

		tail += r->size;
		n -= r->len != 0;
	}
	/* pairs with the load of tail in fifo_room() */
	atomic_store(&f->tail, tail);
}

bool net_fifo_ready(const struct net_fifo *f)
{
	return atomic_load(&f->head) != atomic_load_explicit(&f->tail, memory_order_relaxed);
}

uint64_t net_fifo_used(const struct net_fifo *f)
{
	return atomic_load(&f->head) - atomic_load(&f->tail);
}

void net_fifo_drain(struct net_fifo *f)
{
	f->segmenting = false;
	atomic_store(&f->tail, atomic_load(&f->head));
}

void net_fifo_rewind(struct net_fifo *f)
{
	if (net_fifo_ready(f))
		return;
	f->stage = 0;
	f->tail_seen = 0;
	atomic_store_explicit(&f->head, 0, memory_order_relaxed);
	atomic_store_explicit(&f->tail, 0, memory_order_relaxed);
}
