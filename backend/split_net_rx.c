/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-net: frames from the port straight into the driver's buffers (5.1.6.3, 5.1.6.4).
 *
 * The port does not say how large the next frame is. Where a frame needs one buffer, a burst of
 * buffers is offered, one for each frame. Where it may need several (mergeable buffers), buffers
 * are gathered until the largest frame would fit, one frame is received, and those it did not use
 * serve the next.
 */
#include <endian.h>

#include "backend/backend.h"
#include "backend/split_net_priv.h"

#define RX_FRAMES_MAX     128u
#define RX_WANT_MIN       8u
#define RX_BACKOFF_MIN_NS 100000u
#define RX_BACKOFF_MAX_NS 6400000u

/* Buffers taken from the driver: chains [head, end) are not yet filled. */
struct vnet_window {
	uint32_t head, end;
	uint32_t nsegs;
	uint64_t room;
	bool dry; /* the driver has no more */
};

static bool vnet_window_more(
	struct vnet *v, struct vnet_pair *p, struct vnet_window *w, uint32_t want)
{
	uint32_t left = VNET_RX_CHAINS - w->end;
	struct ring_chain *first = &v->chains[w->end];
	unsigned n;

	if (want > left)
		want = left;
	if (!want || VNET_SEGS - w->nsegs < VNET_CHAIN_MAX)
		return false;
	if (!split_queue_live(p->rxq) || !ring_device_has_work(&p->rxq->ring)) {
		w->dry = true;
		return false;
	}
	n = split_popped(&v->common, ring_device_pop(&p->rxq->ring, first, want, v->segs + w->nsegs,
					     VNET_SEGS - w->nsegs));
	w->end += n;
	w->dry = !n;
	for (unsigned i = 0; i < n; i++) {
		w->nsegs += first[i].nout + first[i].nin;
		w->room += first[i].in_len;
		/* 5.1.6.3.1: all of a buffer is for the device to write, and holds the header */
		if (first[i].nout || first[i].in_len < VNET_HDR_BYTES) {
			split_break(&v->common);
			return false;
		}
	}
	return n > 0;
}

static void vnet_window_return(struct vnet *v, struct vnet_pair *p, struct vnet_window *w)
{
	if (w->end > w->head)
		ring_device_unpop(&p->rxq->ring, v->chains + w->head, w->end - w->head);
	*w = (struct vnet_window){0};
}

/* Splits the header's place off the front of a buffer; the rest is room for the frame. */
static void vnet_place_cut(struct vnet_hdr_place *place, struct ring_seg **segs, uint32_t *n)
{
	uint32_t left = VNET_HDR_BYTES;

	place->n = 0;
	while (left && *n) {
		struct ring_seg *s = *segs;
		uint32_t part = s->len < left ? (uint32_t)s->len : left;

		place->pieces[place->n++] = (struct ring_seg){s->base, part};
		segs_pull(segs, n, NULL, part);
		left -= part;
	}
}

static struct net_vnet_hdr vnet_hdr_make(
	const struct vnet *v, const struct net_vnet_hdr *from, uint16_t num_buffers)
{
	const bool csum = split_has(&v->common, VIRTIO_NET_F_GUEST_CSUM);

	return (struct net_vnet_hdr){
		.flags = csum ? from->flags : 0,
		.gso_type = from->gso_type,
		.hdr_len = htole16(from->hdr_len),
		.gso_size = htole16(from->gso_size),
		.csum_start = htole16(from->csum_start),
		.csum_offset = htole16(from->csum_offset),
		.num_buffers = htole16(num_buffers),
	};
}

/*
 * Drivers leave the header of a buffer as they found it, and most frames have the same: where it is
 * there already it is not written, so that its line stays in both processors' caches.
 */
static void vnet_hdr_store(uint8_t *to, const struct net_vnet_hdr *h)
{
	if (memcmp(to, h, VNET_HDR_BYTES))
		memcpy(to, h, VNET_HDR_BYTES);
}

static void vnet_place_write(const struct vnet *v, const struct vnet_hdr_place *place,
	const struct net_vnet_hdr *from, uint16_t num_buffers)
{
	const struct net_vnet_hdr h = vnet_hdr_make(v, from, num_buffers);
	const uint8_t *p = (const uint8_t *)&h;

	if (place->n == 1 && !v->common.dirty_log) {
		vnet_hdr_store(place->pieces[0].base, &h);
		return;
	}
	for (uint32_t i = 0; i < place->n; i++) {
		memcpy(place->pieces[i].base, p, place->pieces[i].len);
		p += place->pieces[i].len;
		if (v->common.dirty_log)
			ring_mem_dirty(v->common.mem, place->pieces[i].base, place->pieces[i].len);
	}
}

static void vnet_dirty(const struct vnet *v, const struct iovec *iov, uint32_t n, uint32_t len)
{
	for (uint32_t i = 0; i < n && len; i++) {
		uint32_t part = iov[i].iov_len < len ? (uint32_t)iov[i].iov_len : len;

		ring_mem_dirty(v->common.mem, iov[i].iov_base, part);
		len -= part;
	}
}

/* Chains [first, first + n) as one buffer. */
static void vnet_buffer_make(struct vnet *v, uint32_t first, uint32_t n, struct net_buffer *buf,
	struct vnet_hdr_place *place)
{
	struct ring_seg *segs = v->chains[first].segs;
	uint32_t nsegs = 0;
	uint64_t room = 0;

	for (uint32_t i = first; i < first + n; i++) {
		nsegs += v->chains[i].nin;
		room += v->chains[i].in_len;
	}
	room -= VNET_HDR_BYTES;
	vnet_place_cut(place, &segs, &nsegs);
	buf->segs = segs_iov(segs);
	buf->nsegs = nsegs;
	buf->room = room < NET_FRAME_MAX ? (uint32_t)room : NET_FRAME_MAX;
	buf->len = 0;
}

/* A frame has been stored from chain w->head on: how much of it lies in each. */
static void vnet_rx_done(struct vnet *v, struct vnet_pair *p, struct vnet_window *w,
	const struct net_buffer *buf, const struct vnet_hdr_place *place)
{
	uint32_t left = buf->len + VNET_HDR_BYTES;
	uint16_t count = 0;

	while (left) {
		const struct ring_chain *chain = &v->chains[w->head++];
		uint32_t part = chain->in_len < left ? chain->in_len : left;

		p->rx_used[p->nrx_used++] = (struct ring_used){.id = chain->id, .len = part};
		w->room -= chain->in_len;
		left -= part;
		count++;
	}
	vnet_place_write(v, place, &buf->hdr, count);
	if (v->common.dirty_log)
		vnet_dirty(v, buf->segs, buf->nsegs, buf->len);
	counter_add(&v->common.counters.requests, 1);
	counter_add(&v->common.counters.bytes, buf->len);
}

void vnet_rx_flush(struct vnet_pair *p)
{
	split_queue_push(p->rxq, p->rx_used, p->nrx_used);
	p->nrx_used = 0;
}

/* One buffer for each frame. How many frames; *asked is 0 when there was nothing to ask with. */
static unsigned vnet_rx_burst(
	struct vnet *v, struct vnet_pair *p, struct vnet_window *w, uint32_t need, unsigned *asked)
{
	unsigned n = 0, got;

	*asked = 0;
	if (w->end == w->head)
		vnet_window_more(v, p, w, p->rx_want);
	if (v->common.broken)
		return 0;
	while (n < VNET_BATCH && w->head + n < w->end && v->chains[w->head + n].in_len >= need) {
		vnet_buffer_make(v, w->head + n, 1, &v->buffers[n], &v->places[n]);
		n++;
	}
	if (!n)
		return 0;
	*asked = n;
	got = net_port_receive(v->port, p->rx.queue, v->buffers, n);
	for (unsigned i = 0; i < got; i++)
		vnet_rx_done(v, p, w, &v->buffers[i], &v->places[i]);
	if (got == n)
		p->rx_want = n * 2 < VNET_BATCH ? n * 2 : VNET_BATCH;
	else
		p->rx_want = got + 4 > RX_WANT_MIN ? got + 4 : RX_WANT_MIN;
	return got;
}

/* Buffers together for one frame. */
static unsigned vnet_rx_merge(
	struct vnet *v, struct vnet_pair *p, struct vnet_window *w, unsigned *asked)
{
	uint64_t room = 0;
	unsigned n = 0, got;

	while (w->room < v->rx_need && vnet_window_more(v, p, w, 16))
		;
	if (v->common.broken)
		return 0;
	if (w->room >= v->rx_need)
		p->rx_roomy = true;
	else if (!w->dry && w->head)
		return 0; /* the arrays are used up: start over with empty ones */
	else if (w->room < v->rx_typical || (w->dry && p->rx_roomy))
		return 0; /* a large frame would be lost, and the driver will give more */
	while (w->head + n < w->end && room < v->rx_need)
		room += v->chains[w->head + n++].in_len;
	if (!n)
		return 0;
	vnet_buffer_make(v, w->head, n, &v->buffers[0], &v->places[0]);
	*asked = 1;
	got = net_port_receive(v->port, p->rx.queue, v->buffers, 1);
	if (got)
		vnet_rx_done(v, p, w, &v->buffers[0], &v->places[0]);
	return got;
}

static unsigned vnet_rx_step(
	struct vnet *v, struct vnet_pair *p, struct vnet_window *w, unsigned *asked)
{
	bool mergeable = split_has(&v->common, VIRTIO_NET_F_MRG_RXBUF);
	unsigned got;

	/* without merging, a frame that does not fit its buffer is the port's to drop */
	got = vnet_rx_burst(v, p, w, mergeable ? v->rx_need : 0, asked);
	if (*asked || !mergeable || v->common.broken)
		return got;
	return vnet_rx_merge(v, p, w, asked);
}

/* Buffers, but too few for the largest frame. No doorbell tells when there are more: look again in
 * a while. */
static void vnet_rx_starved(struct vnet *v, struct vnet_pair *p)
{
	uint64_t backoff = p->rx_backoff_ns * 2;

	if (!p->rx.maybe && !p->rx.exact)
		return; /* nor is there a frame that is known of: its arrival will tell */
	if (backoff < RX_BACKOFF_MIN_NS)
		backoff = RX_BACKOFF_MIN_NS;
	if (backoff > RX_BACKOFF_MAX_NS)
		backoff = RX_BACKOFF_MAX_NS;
	p->rx_backoff_ns = backoff;
	p->rx_retry_ns = io_thread_now_ns(v->common.io) + backoff;
}

static unsigned vnet_rx_frames(struct vnet *v, struct vnet_pair *p)
{
	struct vnet_window w = {0};
	unsigned total = 0, asked, got;

	while (total < RX_FRAMES_MAX) {
		got = vnet_rx_step(v, p, &w, &asked);
		total += got;
		if (asked) {
			p->rx_backoff_ns = 0;
			port_rx_asked(&p->rx, asked, got);
			if (got < asked)
				break;
			continue;
		}
		if (v->common.broken)
			break;
		if (!w.dry && w.head) {
			/* what is used is pushed only after what is unused went back */
			vnet_window_return(v, p, &w);
			vnet_rx_flush(p);
			continue;
		}
		if (w.head < w.end)
			vnet_rx_starved(v, p);
		break;
	}
	vnet_window_return(v, p, &w);
	vnet_rx_flush(p);
	return total;
}

/* ------------------------------------------------------------------ frames that are handed over */

/* How many chains from w->head on to use for a frame; 0: the driver has given too few. */
static unsigned vnet_offer_chains(
	struct vnet *v, struct vnet_pair *p, struct vnet_window *w, uint32_t need, unsigned want)
{
	uint64_t room = 0;
	unsigned n = 0;

	if (!split_has(&v->common, VIRTIO_NET_F_MRG_RXBUF)) {
		if (w->head == w->end)
			vnet_window_more(v, p, w, want);
		return w->head < w->end && !v->common.broken;
	}
	while (w->room < need && vnet_window_more(v, p, w, want))
		;
	if (w->room < need || v->common.broken)
		return 0;
	while (room < need)
		room += v->chains[w->head + n++].in_len;
	return n;
}

static void vnet_segs_copy(const struct iovec *to, const struct net_packet *pkt)
{
	size_t at = 0;

	for (uint32_t i = 0; i < pkt->nsegs; i++) {
		const uint8_t *from = pkt->segs[i].iov_base;
		size_t left = pkt->segs[i].iov_len;

		while (left) {
			size_t part = to->iov_len - at < left ? to->iov_len - at : left;

			memcpy((uint8_t *)to->iov_base + at, from, part);
			from += part;
			left -= part;
			at += part;
			if (at == to->iov_len) {
				to++;
				at = 0;
			}
		}
	}
}

/* One buffer in one piece, which is how drivers give them. False: another way. */
static bool vnet_offer_plain(struct vnet *v, struct vnet_pair *p, struct vnet_window *w,
	const struct net_packet *pkt, uint32_t need)
{
	const struct ring_chain *chain = &v->chains[w->head];
	const struct net_vnet_hdr h = vnet_hdr_make(v, &pkt->hdr, 1);
	uint8_t *to = chain->segs->base;

	if (chain->nin != 1 || chain->in_len < need)
		return false;
	vnet_hdr_store(to, &h);
	to += VNET_HDR_BYTES;
	for (uint32_t i = 0; i < pkt->nsegs; i++) {
		memcpy(to, pkt->segs[i].iov_base, pkt->segs[i].iov_len);
		to += pkt->segs[i].iov_len;
	}
	if (v->common.dirty_log)
		ring_mem_dirty(v->common.mem, chain->segs->base, need);
	p->rx_used[p->nrx_used++] = (struct ring_used){.id = chain->id, .len = need};
	w->head++;
	w->room -= chain->in_len;
	return true;
}

static void vnet_offer_store(struct vnet *v, struct vnet_pair *p, struct vnet_window *w,
	const struct net_packet *pkt, unsigned nchains)
{
	struct net_buffer *buf = &v->buffers[0];

	vnet_buffer_make(v, w->head, nchains, buf, &v->places[0]);
	vnet_segs_copy(buf->segs, pkt);
	buf->len = pkt->len;
	buf->hdr = pkt->hdr;
	vnet_rx_done(v, p, w, buf, &v->places[0]);
}

unsigned vnet_rx_offer(void *ctx, struct net_packet *const *pkts, unsigned n)
{
	struct vnet_pair *p = ctx;
	struct vnet *v = p->vnet;
	struct vnet_window w = {0};
	unsigned done = 0, plain = 0, nchains;
	uint64_t bytes = 0;

	while (done < n && vnet_rx_live(p) && !v->common.broken) {
		uint32_t need = pkts[done]->len + VNET_HDR_BYTES;

		if (w.head < w.end && vnet_offer_plain(v, p, &w, pkts[done], need)) {
			bytes += pkts[done++]->len;
			plain++;
			continue;
		}
		if (w.head == w.end && vnet_window_more(v, p, &w, n - done))
			continue;
		nchains = vnet_offer_chains(v, p, &w, need, n - done);
		if (nchains == 1 && v->chains[w.head].in_len < need) {
			/* without merging, one that does not fit its buffer is lost */
			counter_add(&v->common.counters.dropped, 1);
			done++;
		} else if (nchains) {
			vnet_offer_store(v, p, &w, pkts[done++], nchains);
		} else if (!w.dry && w.head) {
			/* the arrays are used up: start over with empty ones */
			vnet_window_return(v, p, &w);
			vnet_rx_flush(p);
		} else {
			break;
		}
	}
	counter_add(&v->common.counters.requests, plain);
	counter_add(&v->common.counters.bytes, bytes);
	vnet_window_return(v, p, &w);
	vnet_rx_flush(p);
	return done;
}

/* ------------------------------------------------------------------ when to look */

unsigned vnet_rx_poll(struct vnet *v, struct vnet_pair *p)
{
	p->rx_waits_buffers = false;
	if (!vnet_rx_live(p) || !port_rx_due(&p->rx)) {
		p->rx_retry_ns = 0;
		return 0;
	}
	if (p->rx_retry_ns) {
		if (io_thread_now_ns(v->common.io) < p->rx_retry_ns)
			return 0;
		p->rx_retry_ns = 0;
	}
	if (!ring_device_has_work(&p->rxq->ring)) {
		p->rx_waits_buffers = true;
		return 0;
	}
	return vnet_rx_frames(v, p);
}
