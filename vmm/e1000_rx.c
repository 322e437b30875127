/* SPDX-License-Identifier: BSD-2-Clause */
/* 82540EM receive: address filters (manual 13.5), legacy receive descriptors (manual 3.2.3). */
#include <string.h>

#include "vmm/e1000_priv.h"

enum {
	RX_STA_DD = 1u << 0,
	RX_STA_EOP = 1u << 1,
	RX_STA_IXSM = 1u << 2, /* no checksum was checked here */
	RX_STA_VP = 1u << 3,   /* a tag was taken out, it is in `special` */
};

struct rx_desc {
	uint64_t address;
	uint16_t length;
	uint16_t checksum;
	uint8_t status;
	uint8_t errors;
	uint16_t special;
};

static uint32_t buffer_size(uint32_t rctl)
{
	uint32_t shift = rctl >> 16 & 3;

	if (rctl & RCTL_BSEX)
		return shift ? 32768u >> shift : 2048u;
	return 2048u >> shift;
}

static uint32_t ring_given(const struct e1000_ring *r)
{
	return (r->tail + r->n - r->head) % r->n;
}

static uint32_t frame_max(const struct e1000 *e)
{
	return e1000_reg(e, REG_RCTL) & RCTL_LPE ? E1000_FRAME_LONG : E1000_FRAME_STD;
}

static uint32_t buffers_needed(const struct e1000 *e, uint32_t len)
{
	uint32_t size = buffer_size(e1000_reg(e, REG_RCTL));

	return (len + E1000_CRC + size - 1) / size;
}

/* On, and with a ring. */
static bool receiver_on(const struct e1000 *e, const struct e1000_ring *r)
{
	return (e1000_reg(e, REG_RCTL) & RCTL_EN) && (e1000_reg(e, REG_STATUS) & STATUS_LU) &&
	       r->n && e1000_is_master(e);
}

/*
 * Frames are asked for only while the largest one has room, so none is lost to a slow guest; in a
 * ring that never has so much room, while the guest has given all it can.
 */
bool e1000_receive_room(void *ctx)
{
	struct e1000 *e = ctx;
	struct e1000_ring r;
	uint32_t need;
	bool room;

	pthread_mutex_lock(&e->dev.lock);
	r = e1000_ring_get(e, REG_RDBAL);
	room = receiver_on(e, &r) && !e1000_is_loopback(e);
	if (room) {
		need = buffers_needed(e, frame_max(e));
		room = ring_given(&r) >= (need < r.n - 1 ? need : r.n - 1);
	}
	pthread_mutex_unlock(&e->dev.lock);
	return room;
}

/* Manual 13.4.22: RCTL.MO picks which 12 bits of the address index the table. */
static bool multicast_accepts(const struct e1000 *e, const uint8_t *mac)
{
	static const uint8_t shifts[4] = {4, 3, 2, 0};
	unsigned shift = shifts[e1000_reg(e, REG_RCTL) >> 12 & 3];
	unsigned hash = ((mac[5] << 8 | mac[4]) >> shift) & 0xfff;

	return e1000_reg(e, REG_MTA + (hash >> 5) * 4) >> (hash & 31) & 1;
}

static bool filter_accepts(const struct e1000 *e, const uint8_t *f)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint32_t rctl = e1000_reg(e, REG_RCTL);
	uint32_t low = f[0] | f[1] << 8 | f[2] << 16 | (uint32_t)f[3] << 24,
		 high = f[4] | f[5] << 8;

	if (!memcmp(f, broadcast, 6) && rctl & RCTL_BAM)
		return true;
	if (f[0] & 1 ? rctl & RCTL_MPE : rctl & RCTL_UPE)
		return true;
	for (unsigned reg = REG_RA; reg < REG_RA_END; reg += 8)
		if (e1000_reg(e, reg + 4) >> 31 && e1000_reg(e, reg) == low &&
			(e1000_reg(e, reg + 4) & 0xffff) == high)
			return true;
	return (f[0] & 1) && multicast_accepts(e, f);
}

static bool frame_tagged(const struct e1000 *e, const uint8_t *frame, uint32_t len)
{
	return len >= 18 && e1000_get16(frame + 12) == (e1000_reg(e, REG_VET) & 0xffff);
}

/* Manual 9.3: with RCTL.VFE a tagged frame must be of a VLAN in the table. */
static bool vlan_accepts(const struct e1000 *e, const uint8_t *frame, uint32_t len)
{
	unsigned id;

	if (!(e1000_reg(e, REG_RCTL) & RCTL_VFE) || !frame_tagged(e, frame, len))
		return true;
	id = e1000_get16(frame + 14) & 0xfff;
	return e1000_reg(e, REG_VFTA + (id >> 5) * 4) >> (id & 31) & 1;
}

/* A frame as it goes to memory: two pieces, for a tag may be missing, then zeros. */
struct rx_frame {
	const uint8_t *first, *second;
	uint32_t first_len, len, total;
	uint16_t tag;
	uint8_t status;
};

/* Writes bytes [at, at + n) of it. */
static int frame_part_write(
	const struct ring_mem *mem, uint64_t gpa, const struct rx_frame *f, uint32_t at, uint32_t n)
{
	static const uint8_t zeros[E1000_FRAME_MIN + E1000_CRC];
	const uint8_t *from;
	uint32_t part;
	int err = 0;

	for (; n && !err; n -= part, at += part, gpa += part) {
		if (at < f->first_len) {
			from = f->first + at;
			part = f->first_len - at;
		} else if (at < f->len) {
			from = f->second + (at - f->first_len);
			part = f->len - at;
		} else {
			from = zeros;
			part = sizeof(zeros);
		}
		part = part < n ? part : n;
		err = ring_mem_write(mem, gpa, from, part);
	}
	return err;
}

/* Stores the frame over as many descriptors as it takes. False: the guest's ring is unusable. */
static bool frame_store(struct e1000 *e, struct e1000_ring *r, const struct rx_frame *f)
{
	const struct ring_mem *mem = machine_mem(e->dev.machine);
	uint32_t size = buffer_size(e1000_reg(e, REG_RCTL)), part;

	for (uint32_t at = 0; at < f->total; at += part) {
		uint64_t gpa = r->base + (uint64_t)r->head * E1000_DESC;
		struct rx_desc d;

		part = f->total - at < size ? f->total - at : size;
		if (ring_mem_read(mem, gpa, &d, sizeof(d)) ||
			frame_part_write(mem, d.address, f, at, part))
			return false;
		d.length = (uint16_t)part;
		d.checksum = 0;
		d.errors = 0;
		d.special = f->tag;
		d.status = RX_STA_DD | f->status | (at + part == f->total ? RX_STA_EOP : 0);
		/* the bytes before the status; pairs with the guest's order of reading them */
		atomic_thread_fence(memory_order_release);
		if (ring_mem_write(mem, gpa + 8, &d.length, 8))
			return false;
		r->head = r->head + 1 == r->n ? 0 : r->head + 1;
	}
	return true;
}

static void frame_prepare(
	const struct e1000 *e, struct rx_frame *f, const uint8_t *frame, uint32_t len)
{
	bool crc = !(e1000_reg(e, REG_RCTL) & RCTL_SECRC);

	*f = (struct rx_frame){.first = frame, .first_len = len, .len = len};
	f->total = (len < E1000_FRAME_MIN ? E1000_FRAME_MIN : len) + (crc ? E1000_CRC : 0);
	f->status = RX_STA_IXSM;
	if (!(e1000_reg(e, REG_CTRL) & CTRL_VME) || !frame_tagged(e, frame, len))
		return;
	f->tag = e1000_get16(frame + 14);
	f->status |= RX_STA_VP;
	f->first_len = 12;
	f->second = frame + 16;
	f->len -= 4;
	f->total -= 4;
}

static void overrun(struct e1000 *e)
{
	counter_add(&e->dev.counters.dropped, 1);
	e1000_stat_add(e, REG_MPC, 1);
	e1000_stat_add(e, REG_RNBC, 1);
	e1000_interrupt(e, ICR_RXO);
}

void e1000_frame_receive(struct e1000 *e, const uint8_t *frame, uint32_t len)
{
	struct e1000_ring r = e1000_ring_get(e, REG_RDBAL);
	uint32_t rctl = e1000_reg(e, REG_RCTL);
	struct rx_frame f;

	if (!receiver_on(e, &r) || len < NET_FRAME_MIN || len > frame_max(e)) {
		counter_add(&e->dev.counters.dropped, 1);
		if (len > frame_max(e))
			e1000_stat_add(e, REG_ROC, 1);
		return;
	}
	if (!filter_accepts(e, frame) || !vlan_accepts(e, frame, len))
		return;
	frame_prepare(e, &f, frame, len);
	if (ring_given(&r) < buffers_needed(e, f.total - E1000_CRC)) {
		overrun(e);
		return;
	}
	if (!frame_store(e, &r, &f)) {
		/* as a master abort would: the ring stops until the driver sets it up anew */
		counter_add(&e->dev.counters.malformed, 1);
		e1000_reg_set(e, REG_RCTL, rctl & ~(uint32_t)RCTL_EN);
		return;
	}
	e1000_reg_set(e, REG_RDH, r.head);
	counter_add(&e->dev.counters.requests, 1);
	counter_add(&e->dev.counters.bytes, len);
	e1000_stat_frame(e, frame, len < E1000_FRAME_MIN ? E1000_FRAME_MIN : len, false);
	/* RCTL.RDMTS: a half, a quarter or an eighth of the ring is left */
	if (ring_given(&r) <= r.n >> ((rctl >> 8 & 3) + 1))
		e1000_interrupt(e, ICR_RXDMT0 | ICR_RXT0);
	else
		e1000_interrupt_received(e);
}

/* The guest may have turned to loopback since there was room. */
void e1000_received(void *ctx, const uint8_t *frame, uint32_t len)
{
	struct e1000 *e = ctx;

	pthread_mutex_lock(&e->dev.lock);
	if (e1000_is_loopback(e))
		counter_add(&e->dev.counters.dropped, 1);
	else
		e1000_frame_receive(e, frame, len);
	pthread_mutex_unlock(&e->dev.lock);
}
