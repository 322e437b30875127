/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 82540EM transmit: legacy, context and data descriptors (manual 3.3), checksum insertion and TCP
 * segmentation. A frame is copied out of guest memory before it is looked at; what checksums and
 * segmentation remain is handed to the port in the vnet header.
 */
#include <string.h>

#include "vmm/e1000_priv.h"

#define TX_BATCH 64u /* descriptors in one go: the lock is held */

enum {
	CMD_EOP = 1u << 0,
	CMD_IC = 1u << 2, /* legacy: insert a checksum; context and data: TSE */
	CMD_TSE = 1u << 2,
	CMD_RS = 1u << 3,
	CMD_RPS = 1u << 4,
	CMD_DEXT = 1u << 5,
	CMD_VLE = 1u << 6,
	TUCMD_TCP = 1u << 0,
	TUCMD_IP = 1u << 1,
	POPTS_IXSM = 1u << 0,
	POPTS_TXSM = 1u << 1,
	STA_DD = 1u << 0,
};

/* The three formats share address, length, DTYP and DCMD; the rest depends. */
struct tx_desc {
	uint64_t address;
	uint32_t lower;
	uint32_t upper;
};

static uint16_t load16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void store16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t sum_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint32_t)sum;
}

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

/* IPv4 header checksum, and the lengths that hardware fills in when it segments (manual 3.5.7). */
static void frame_ip_finish(struct e1000 *e, bool segment)
{
	const struct e1000_context *c = &e->context;
	uint32_t end = c->ipcse ? c->ipcse + 1u : e->frame_len;
	uint64_t sum = 0;

	if (segment && c->ipv4 && c->ipcss + 20u <= e->frame_len)
		store16(e->frame + c->ipcss + 2, e->frame_len - c->ipcss);
	if (segment && !c->ipv4 && c->ipcss + 40u <= e->frame_len)
		store16(e->frame + c->ipcss + 4, e->frame_len - c->ipcss - 40);
	if (!(e->frame_popts & POPTS_IXSM) || end > e->frame_len || c->ipcso + 2u > e->frame_len ||
		c->ipcss >= end)
		return;
	store16(e->frame + c->ipcso, 0);
	for (uint32_t i = c->ipcss; i + 1 < end; i += 2)
		sum += load16(e->frame + i);
	if ((end - c->ipcss) & 1)
		sum += (uint32_t)e->frame[end - 1] << 8;
	store16(e->frame + c->ipcso, ~sum_fold(sum) & 0xffff);
}

static void frame_offload(struct e1000 *e)
{
	const struct e1000_context *c = &e->context;
	bool segment =
		e->frame_tse && c->mss && c->tcp && e->frame_len > (uint32_t)c->hdrlen + c->mss;

	frame_ip_finish(e, e->frame_tse);
	if (!(e->frame_popts & POPTS_TXSM) || c->tucso < c->tucss || c->tucso + 2u > e->frame_len)
		return;
	if (e->frame_tse) {
		/* the driver's pseudo header sum leaves the length out: hardware knows it per
		 * segment */
		uint64_t sum = (uint64_t)load16(e->frame + c->tucso) + (e->frame_len - c->tucss);

		store16(e->frame + c->tucso, sum_fold(sum));
	}
	e->frame_hdr.flags = NET_HDR_F_NEEDS_CSUM;
	e->frame_hdr.csum_start = c->tucss;
	e->frame_hdr.csum_offset = (uint16_t)(c->tucso - c->tucss);
	if (!segment)
		return;
	e->frame_hdr.gso_type = c->ipv4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6;
	e->frame_hdr.gso_size = c->mss;
	e->frame_hdr.hdr_len = c->hdrlen;
}

static void frame_tag(struct e1000 *e, uint16_t tag)
{
	if (!(e1000_reg(e, REG_CTRL) & CTRL_VME) || e->frame_len < 14)
		return;
	memmove(e->frame + 16, e->frame + 12, e->frame_len - 12);
	store16(e->frame + 12, 0x8100);
	store16(e->frame + 14, tag);
	e->frame_len += 4;
	if (e->frame_hdr.flags)
		e->frame_hdr.csum_start += 4;
	if (e->frame_hdr.hdr_len)
		e->frame_hdr.hdr_len += 4;
}

static void frame_forget(struct e1000 *e)
{
	e->frame_len = 0;
	e->frame_bad = e->frame_started = e->frame_ready = false;
}

/* Hands the gathered frame over; false: the port would not take it now. */
static bool frame_send(struct e1000 *e)
{
	struct iovec seg = {.iov_base = e->frame, .iov_len = e->frame_len};
	struct net_packet pkt = {
		.segs = &seg, .nsegs = 1, .len = e->frame_len, .hdr = e->frame_hdr};
	struct net_packet *p = &pkt;

	if (!legacy_net_send(e->net, &p, 1))
		return false;
	counter_add(&e->dev.counters.requests, 1);
	counter_add(&e->dev.counters.bytes, e->frame_len);
	e1000_stat_add(e, REG_GPTC, 1);
	e1000_stat_add(e, REG_TPT, 1);
	e1000_stat_add(e, REG_GOTCL, e->frame_len);
	frame_forget(e);
	return true;
}

/* The end of a packet: what is due is done to the frame in place. */
static void frame_end(struct e1000 *e, const struct tx_desc *d, bool extended)
{
	uint32_t cmd = d->lower >> 24;
	uint8_t css = (uint8_t)(d->upper >> 8), cso = (uint8_t)(d->lower >> 16);

	memset(&e->frame_hdr, 0, sizeof(e->frame_hdr));
	if (e->frame_bad || e->frame_len < NET_FRAME_MIN) {
		counter_add(&e->dev.counters.dropped, 1);
		frame_forget(e);
		return;
	}
	if (extended) {
		frame_offload(e);
	} else if ((cmd & CMD_IC) && cso >= css && cso + 2u <= e->frame_len) {
		e->frame_hdr.flags = NET_HDR_F_NEEDS_CSUM;
		e->frame_hdr.csum_start = css;
		e->frame_hdr.csum_offset = (uint16_t)(cso - css);
	}
	if (cmd & CMD_VLE)
		frame_tag(e, (uint16_t)(d->upper >> 16));
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

/* Reports a descriptor done, if it asks for that; the interrupt cause it raises. */
static uint32_t desc_done(struct e1000 *e, uint64_t gpa, const struct tx_desc *d)
{
	uint32_t upper = d->upper | STA_DD;

	if (!(d->lower >> 24 & (CMD_RS | CMD_RPS)))
		return 0;
	if (ring_mem_write(machine_mem(e->dev.machine), gpa + 12, &upper, sizeof(upper)))
		counter_add(&e->dev.counters.malformed, 1);
	return ICR_TXDW;
}

void e1000_transmit(void *ctx)
{
	struct e1000 *e = ctx;
	struct e1000_ring r;
	uint32_t causes = 0, done = 0;

	pthread_mutex_lock(&e->dev.lock);
	r = e1000_ring_get(e, REG_TDBAL);
	if (e->frame_ready && !frame_send(e)) {
		pthread_mutex_unlock(&e->dev.lock);
		return;
	}
	for (; r.n && (e1000_reg(e, REG_TCTL) & TCTL_EN) && r.head != r.tail && done < TX_BATCH;
		done++) {
		uint64_t gpa = r.base + (uint64_t)r.head * E1000_DESC;
		struct tx_desc d;

		if (ring_mem_read(machine_mem(e->dev.machine), gpa, &d, sizeof(d))) {
			counter_add(&e->dev.counters.malformed, 1);
			r.head = r.tail;
			break;
		}
		desc_take(e, &d);
		causes |= desc_done(e, gpa, &d);
		r.head = r.head + 1 == r.n ? 0 : r.head + 1;
		if (e->frame_ready && !frame_send(e)) {
			done++;
			break;
		}
	}
	e1000_reg_set(e, REG_TDH, r.head);
	if (done)
		e1000_interrupt(e, causes | (r.head == r.tail ? ICR_TXQE : 0));
	if (r.n && r.head != r.tail && !e->frame_ready)
		legacy_net_kick(e->net);
	pthread_mutex_unlock(&e->dev.lock);
}
