/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames on their way through: read, placed in a VLAN, learnt from, looked up, and handed on in
 * groups of one destination each (IEEE 802.1Q, 8.6).
 *
 * A frame for another worker's port is copied once into the queue between the two; a flooded one
 * goes there once, whatever ports that worker has.
 */
#include <errno.h>
#include <string.h>

#include "netbridge/switch_priv.h"

#define TYPE_VLAN 0x8100u
#define VID_MASK  0x0fffu
#define NOWHERE   0xfffeu /* no port has this index */

/* ------------------------------------------------------------------ reading */

/* Table 8-1: addresses whose frames a bridge does not pass on. */
static bool addr_reserved(const uint8_t *addr)
{
	static const uint8_t reserved[5] = {0x01, 0x80, 0xc2, 0x00, 0x00};

	return !memcmp(addr, reserved, sizeof(reserved)) && addr[5] < 0x10;
}

/* False: no frame. */
static bool frame_read(struct switch_frame *f, struct net_packet *pkt)
{
	uint8_t head[SWITCH_HEAD];
	uint32_t n = SWITCH_HEAD;

	if (pkt->nsegs && pkt->segs[0].iov_len >= SWITCH_HEAD)
		memcpy(head, pkt->segs[0].iov_base, SWITCH_HEAD);
	else
		n = net_segs_gather(head, SWITCH_HEAD, pkt->segs, pkt->nsegs);
	if (n < NET_FRAME_MIN || pkt->len < NET_FRAME_MIN || pkt->len > NET_FRAME_MAX)
		return false;
	pkt->hdr.flags &= NET_HDR_F_NEEDS_CSUM;
	f->pkt = pkt;
	memcpy(f->addrs, head, SWITCH_ADDRS);
	f->body = NET_FRAME_MIN;
	f->tci = 0;
	memcpy(f->type, head + SWITCH_ADDRS, sizeof(f->type));
	if (net_get16(f->type) != TYPE_VLAN)
		return true;
	if (n < SWITCH_HEAD || pkt->len < SWITCH_HEAD)
		return false;
	f->tci = net_get16(head + SWITCH_ADDRS + 2);
	memcpy(f->type, head + SWITCH_ADDRS + SWITCH_VLAN_TAG, sizeof(f->type));
	f->body = SWITCH_HEAD;
	return true;
}

/* What is still to be done to the frame must be possible, and lie behind what is read here. */
static bool work_valid(const struct switch_frame *f)
{
	const struct net_vnet_hdr *h = &f->pkt->hdr;

	if (!(h->flags | h->gso_type))
		return true;
	return !(net_hdr_offloads(h) & ~SWITCH_OFFLOADS) && !net_hdr_check(h, f->pkt->len) &&
	       h->csum_start >= f->body;
}

/* 6.9: which VLAN the frame belongs to; 0: none that the port is in. A tag of VLAN 0 says nothing
 * but a priority. */
static uint16_t vlan_in(const struct switch_conf *c, const struct switch_frame *f)
{
	uint16_t vid = f->tci & VID_MASK;

	if (!c->o.trunk)
		return vid ? 0 : c->o.vlan;
	if (!vid)
		return c->o.vlan;
	return vid <= NET_VLAN_MAX && switch_vlan_allowed(c, vid) ? vid : 0;
}

/* ------------------------------------------------------------------ learning and looking up */

static void last_check(const struct switch_worker *w, struct switch_last *last)
{
	uint64_t generation = atomic_load_explicit(&w->sw->macs.generation, memory_order_acquire);

	if (last->generation == generation && last->now_s == w->now_s)
		return;
	*last = (struct switch_last){.generation = generation, .now_s = w->now_s};
}

static void source_learn(
	struct switch_worker *w, struct switch_port *from, const struct switch_frame *f)
{
	const uint8_t *addr = f->addrs + 6;
	uint64_t key;

	if (addr[0] & 1)
		return; /* a group sends nothing */
	key = switch_key(addr, f->vlan);
	if (key == from->last.source || !(key >> 12))
		return;
	switch_macs_learn(&w->sw->macs, key, from->index, w->now_s);
	from->last.source = key;
}

static void dest_find(struct switch_worker *w, struct switch_port *from, struct switch_frame *f)
{
	uint64_t key;

	if (f->addrs[0] & 1) {
		f->dest = SWITCH_FLOOD;
		return;
	}
	key = switch_key(f->addrs, f->vlan);
	if (key != from->last.key) {
		from->last.key = key;
		from->last.dest = switch_macs_find(&w->sw->macs, key, w->now_s);
	}
	f->dest = (uint16_t)from->last.dest;
}

/* False: the frame ends here, and is counted. */
static bool frame_enter(struct switch_worker *w, struct switch_port *from,
	const struct switch_conf *c, struct switch_frame *f, struct net_packet *pkt)
{
	if (!frame_read(f, pkt) || !work_valid(f)) {
		net_count(&from->c.errors, 1);
		return false;
	}
	if (switch_rate_set(&c->o.in) &&
		!switch_rate_take(&from->in, &c->o.in, w->now_ns, pkt->len)) {
		net_count(&from->limited_in, 1);
		return false;
	}
	f->vlan = vlan_in(c, f);
	f->source = (uint16_t)from->index;
	f->isolated = c->o.isolated;
	if (!f->vlan || addr_reserved(f->addrs)) {
		net_count(&from->filtered, 1);
		return false;
	}
	source_learn(w, from, f);
	dest_find(w, from, f);
	return true;
}

/* ------------------------------------------------------------------ between workers */

/* The rest is read anew there: from a copy that nobody changes any more. */
struct lane_note {
	uint16_t dest, source, vlan, isolated, unused[2];
};

_Static_assert(sizeof(struct lane_note) == NET_FIFO_NOTE, "a note holds it");

static void lane_put(struct switch_worker *w, struct switch_worker *to,
	struct switch_frame **frames, unsigned n, uint64_t *full)
{
	struct net_fifo *lane = &to->lanes[w->index];
	uint8_t note[NET_FIFO_NOTE];
	unsigned lost = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct switch_frame *f = frames[i];
		const struct lane_note l = {
			.dest = f->dest,
			.source = f->source,
			.vlan = f->vlan,
			.isolated = f->isolated,
		};

		memcpy(note, &l, sizeof(note));
		lost += net_fifo_push_note(lane, f->pkt, SWITCH_OFFLOADS, note) != 0;
	}
	if (lost)
		net_count(full, lost);
	w->lanes_touched |= 1u << to->index;
}

static void lanes_publish(struct switch_worker *w)
{
	struct net_switch *sw = w->sw;

	while (w->lanes_touched) {
		unsigned i = (unsigned)__builtin_ctz(w->lanes_touched);
		struct switch_worker *to = &sw->workers[i];

		w->lanes_touched &= w->lanes_touched - 1;
		net_fifo_publish(&to->lanes[w->index]);
		if (atomic_load(&to->asleep) && sw->o.wake)
			sw->o.wake(sw->o.ctx, i);
	}
}

bool switch_lanes_ready(const struct switch_worker *w)
{
	for (unsigned i = 0; i < w->sw->o.workers; i++)
		if (net_fifo_ready(&w->lanes[i]))
			return true;
	return false;
}

/* ------------------------------------------------------------------ handing on */

/* To every port of this worker's; what is not for one (its own frames, another VLAN) it finds out.
 */
static void flood_here(struct switch_worker *w, struct switch_frame **frames, unsigned n)
{
	unsigned end = atomic_load_explicit(&w->sw->ports_end, memory_order_acquire);

	for (unsigned i = 0; i < end; i++) {
		struct switch_port *p = switch_port_at(w->sw, i);

		if (p && p->worker == w)
			switch_egress(w, p, frames, n);
	}
}

static void flood_there(
	struct switch_worker *w, struct switch_port *from, struct switch_frame **frames, unsigned n)
{
	for (unsigned i = 0; i < w->sw->o.workers; i++)
		if (i != w->index)
			lane_put(w, &w->sw->workers[i], frames, n, &from->full);
}

/*
 * Groups n frames by destination; from: who sent them, NULL: another worker. No group reaches over
 * a change between flooded frames and others: an address that becomes known in between must not
 * make frames overtake (8.6.6).
 */
static void frames_hand_on(struct switch_worker *w, struct switch_port *from, unsigned n)
{
	uint64_t left = switch_all(n), rest;

	while (left) {
		uint16_t dest = w->frames[__builtin_ctzll(left)].dest;
		struct switch_port *to;
		unsigned k = 0;

		for (rest = left; rest; rest &= rest - 1) {
			unsigned i = (unsigned)__builtin_ctzll(rest);
			bool flood = w->frames[i].dest == SWITCH_FLOOD;

			if (flood != (dest == SWITCH_FLOOD))
				break;
			if (w->frames[i].dest != dest)
				continue;
			w->group[k++] = &w->frames[i];
			left &= ~(1ull << i);
		}
		if (dest == SWITCH_FLOOD) {
			flood_here(w, w->group, k);
			if (from) {
				flood_there(w, from, w->group, k);
				net_count(&from->flooded, k);
			}
			continue;
		}
		to = switch_port_at(w->sw, dest);
		if (to && to->worker == w)
			switch_egress(w, to, w->group, k);
		else if (to && from)
			lane_put(w, to->worker, w->group, k, &from->full);
	}
}

void switch_forward(struct switch_worker *w, struct switch_port *from,
	struct net_packet *const *pkts, unsigned n)
{
	const struct switch_conf *c = switch_conf(from);
	uint64_t bytes = 0;

	for (unsigned done = 0; done < n;) {
		unsigned batch = n - done < SWITCH_BATCH ? n - done : SWITCH_BATCH, k = 0;

		last_check(w, &from->last);
		for (unsigned i = 0; i < batch; i++) {
			bytes += pkts[done + i]->len;
			k += frame_enter(w, from, c, &w->frames[k], pkts[done + i]);
		}
		frames_hand_on(w, from, k);
		for (unsigned i = 0; i < batch; i++)
			net_packet_done(pkts[done + i]);
		done += batch;
	}
	lanes_publish(w);
	net_count(&from->c.rx_packets, n);
	net_count(&from->c.rx_bytes, bytes);
}

unsigned switch_lanes_poll(struct switch_worker *w)
{
	const uint8_t *notes[SWITCH_BATCH];
	unsigned total = 0, n;

	for (unsigned i = 0; i < w->sw->o.workers; i++) {
		n = net_fifo_peek(&w->lanes[i], w->in, w->in_segs, notes, SWITCH_BATCH);
		if (!n)
			continue;
		for (unsigned k = 0; k < n; k++) {
			struct switch_frame *f = &w->frames[k];
			struct lane_note l;

			memcpy(&l, notes[k], sizeof(l));
			/* its sender may have changed it before it was copied */
			f->dest = frame_read(f, &w->in[k]) && work_valid(f) ? l.dest : NOWHERE;
			f->source = l.source;
			f->vlan = l.vlan;
			f->isolated = l.isolated;
		}
		frames_hand_on(w, NULL, n);
		net_fifo_skip(&w->lanes[i], n);
		total += n;
	}
	return total;
}
