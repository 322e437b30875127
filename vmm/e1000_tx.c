/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 82540EM transmit: legacy, context and data descriptors (manual 3.3). A frame is copied out of
 * guest memory before it is looked at. A descriptor is done when its bytes have been copied, as in
 * hardware when they are in the FIFO: a frame that the port does not take stays with the device.
 */
#include <string.h>

#include "vmm/e1000_priv.h"

#define TX_BATCH 64u /* descriptors, and segments, in one go: the lock is held */

enum {
	CMD_EOP = 1u << 0,
	CMD_IC = 1u << 2, /* legacy: insert a checksum; context and data: TSE */
	CMD_TSE = 1u << 2,
	CMD_RS = 1u << 3,
	CMD_RPS = 1u << 4,
	CMD_DEXT = 1u << 5,
	CMD_VLE = 1u << 6,
	CMD_IDE = 1u << 7,
	TUCMD_TCP = 1u << 0,
	TUCMD_IP = 1u << 1,
	STA_DD = 1u << 0,
};

/* The three formats share address, length, DTYP and DCMD; the rest depends. */
struct tx_desc {
	uint64_t address;
	uint32_t lower;
	uint32_t upper;
};

static void context_set(struct e1000_context *c, const struct tx_desc *d)
{
	c->ipcss = (uint8_t)d->address;
	c->ipcso = (uint8_t)(d->address >> 8);
	c->ipcse = (uint16_t)(d->address >> 16);
	c->tucss = (uint8_t)(d->address >> 32);
	c->tucso = (uint8_t)(d->address >> 40);
	c->tucse = (uint16_t)(d->address >> 48);
	c->paylen = d->lower & 0xfffff;
	c->tcp = d->lower >> 24 & TUCMD_TCP;
	c->ipv4 = d->lower >> 24 & TUCMD_IP;
	c->hdrlen = (uint8_t)(d->upper >> 8);
	c->mss = (uint16_t)(d->upper >> 16);
}

static void frame_gather(struct e1000 *e, uint64_t gpa, uint32_t len)
{
	if (!len || e->frame_bad)
		return;
	if (len > E1000_FRAME_MAX - 4 - e->frame_len ||
		ring_mem_read(machine_mem(e->dev.machine), gpa, e->frame + e->frame_len, len)) {
		e->frame_bad = true;
		counter_add(&e->dev.counters.malformed, 1);
		return;
	}
	e->frame_len += len;
}

void e1000_frame_forget(struct e1000 *e)
{
	e->frame_len = e->frame_sent = 0;
	e->frame_index = 0;
	e->frame_bad = e->frame_started = e->frame_ready = e->frame_cut = e->frame_tagged = false;
	memset(&e->frame_hdr, 0, sizeof(e->frame_hdr));
}

static void frame_drop(struct e1000 *e)
{
	counter_add(&e->dev.counters.dropped, 1);
	e1000_frame_forget(e);
}

/* To the port, or back in. False: the port would not take it now. */
static bool frame_output(
	struct e1000 *e, uint8_t *bytes, uint32_t len, const struct net_vnet_hdr *hdr)
{
	struct iovec seg = {.iov_base = bytes, .iov_len = len};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = len, .hdr = *hdr};
	struct net_packet *p = &pkt;

	if (e1000_is_loopback(e)) {
		if (!net_checksum_finish(&pkt) && !pkt.hdr.gso_type)
			e1000_frame_receive(e, bytes, len);
	} else if (!legacy_net_send(e->net, &p, 1)) {
		return false;
	}
	counter_add(&e->dev.counters.requests, 1);
	counter_add(&e->dev.counters.bytes, len);
	e1000_stat_frame(e, bytes, len, true);
	return true;
}

/* Cuts the frame, at most *budget segments now. True: it is gone. */
static bool frame_send_cut(struct e1000 *e, uint32_t *budget)
{
	static const struct net_vnet_hdr none;
	uint32_t headers = e->context.hdrlen + (e->frame_tagged ? 4u : 0u), payload, len;

	for (; *budget; (*budget)--) {
		len = e1000_frame_segment(e, e->segment, &payload);
		if (!len) {
			frame_drop(e);
			return true;
		}
		if (!frame_output(e, e->segment, len, &none))
			return false;
		e->frame_sent += payload;
		e->frame_index++;
		if (headers + e->frame_sent >= e->frame_len)
			return true;
	}
	legacy_net_kick(e->net);
	return false;
}

/* Hands the gathered frame over; false: not all of it, this runs again. */
static bool frame_send(struct e1000 *e, uint32_t *budget)
{
	if (e->frame_cut) {
		if (!frame_send_cut(e, budget))
			return false;
		e1000_stat_add(e, REG_TSCTC, 1);
	} else if (!frame_output(e, e->frame, e->frame_len, &e->frame_hdr)) {
		return false;
	}
	e1000_frame_forget(e);
	return true;
}

/* A legacy descriptor's checksum reaches to the end of the frame (manual 3.3.3.1). */
static void legacy_checksum(struct e1000 *e, uint8_t css, uint8_t cso)
{
	if (css >= e->frame_len || cso + 2u > e->frame_len)
		return;
	if (cso < css || !(e->port_offloads & NET_OFFLOAD_CSUM)) {
		e1000_checksum(e->frame, css, e->frame_len, cso);
		return;
	}
	e->frame_hdr.flags = NET_HDR_F_NEEDS_CSUM;
	e->frame_hdr.csum_start = css;
	e->frame_hdr.csum_offset = (uint16_t)(cso - css);
}

/* The end of a packet: what is due is done to the frame in place. */
static void frame_end(struct e1000 *e, const struct tx_desc *d, bool extended)
{
	uint32_t cmd = d->lower >> 24;

	if (e->frame_bad || e->frame_len < NET_FRAME_MIN ||
		(!e->frame_tse && e->frame_len > E1000_FRAME_LONG)) {
		frame_drop(e);
		return;
	}
	if (!e->frame_tse && e->frame_len < E1000_FRAME_MIN && e1000_reg(e, REG_TCTL) & TCTL_PSP) {
		memset(e->frame + e->frame_len, 0, E1000_FRAME_MIN - e->frame_len);
		e->frame_len = E1000_FRAME_MIN;
	}
	if (extended && e1000_frame_finish(e)) {
		counter_add(&e->dev.counters.malformed, 1);
		frame_drop(e);
		return;
	}
	if (!extended && cmd & CMD_IC)
		legacy_checksum(e, (uint8_t)(d->upper >> 8), (uint8_t)(d->lower >> 16));
	if (cmd & CMD_VLE && e1000_reg(e, REG_CTRL) & CTRL_VME)
		e1000_frame_tag(e, (uint16_t)(d->upper >> 16));
	e->frame_ready = true;
}

static void desc_take(struct e1000 *e, const struct tx_desc *d)
{
	uint32_t cmd = d->lower >> 24, type = d->lower >> 20 & 0xf;
	bool extended = cmd & CMD_DEXT;

	if (extended && type == 0) {
		context_set(&e->context, d);
		return;
	}
	if (!e->frame_started) {
		e->frame_started = true;
		e->frame_popts = extended ? (uint8_t)(d->upper >> 8) : 0;
		e->frame_tse = extended && (cmd & CMD_TSE);
	}
	frame_gather(e, d->address, d->lower & (extended ? 0xfffff : 0xffff));
	if (cmd & CMD_EOP)
		frame_end(e, d, extended);
}

/* Reports a descriptor done, if it asks for that; the interrupt cause it raises. *delay: one that
 * may come later. */
static uint32_t desc_done(struct e1000 *e, uint64_t gpa, const struct tx_desc *d, bool *delay)
{
	uint32_t upper = d->upper | STA_DD;

	if (!(d->lower >> 24 & (CMD_RS | CMD_RPS)))
		return 0;
	if (ring_mem_write(machine_mem(e->dev.machine), gpa + 12, &upper, sizeof(upper)))
		counter_add(&e->dev.counters.malformed, 1);
	if (d->lower >> 24 & CMD_IDE) {
		*delay = true;
		return 0;
	}
	return ICR_TXDW;
}

/* Works through the ring; the interrupt causes that come of it. */
static uint32_t ring_work(struct e1000 *e, struct e1000_ring *r, uint32_t *budget, bool *delay)
{
	uint32_t causes = 0;

	while (*budget && r->head != r->tail) {
		uint64_t gpa = r->base + (uint64_t)r->head * E1000_DESC;
		struct tx_desc d;

		if (ring_mem_read(machine_mem(e->dev.machine), gpa, &d, sizeof(d))) {
			/* as after a master abort: nothing more until the driver starts anew */
			counter_add(&e->dev.counters.malformed, 1);
			e1000_reg_set(e, REG_TCTL, e1000_reg(e, REG_TCTL) & ~(uint32_t)TCTL_EN);
			return causes;
		}
		(*budget)--;
		desc_take(e, &d);
		causes |= desc_done(e, gpa, &d, delay);
		r->head = r->head + 1 == r->n ? 0 : r->head + 1;
		if (r->head == r->tail)
			causes |= ICR_TXQE;
		if (e->frame_ready && !frame_send(e, budget))
			return causes;
	}
	if (r->head != r->tail)
		legacy_net_kick(e->net);
	return causes;
}

void e1000_transmit(void *ctx)
{
	struct e1000 *e = ctx;
	uint32_t causes, budget = TX_BATCH;
	struct e1000_ring r;
	bool delay = false;

	pthread_mutex_lock(&e->dev.lock);
	r = e1000_ring_get(e, REG_TDBAL);
	if (e->frame_ready && !frame_send(e, &budget))
		goto out;
	if (!r.n || !(e1000_reg(e, REG_TCTL) & TCTL_EN) || !e1000_is_master(e))
		goto out;
	causes = ring_work(e, &r, &budget, &delay);
	e1000_reg_set(e, REG_TDH, r.head);
	if (causes)
		e1000_interrupt(e, causes);
	if (delay && !(causes & ICR_TXDW))
		e1000_interrupt_sent(e);
out:
	pthread_mutex_unlock(&e->dev.lock);
}
