/* SPDX-License-Identifier: BSD-2-Clause */
/* 82540EM receive: address filters (manual 13.5), legacy receive descriptors (manual 3.2.3). */
#include <string.h>

#include "vmm/e1000_priv.h"

#define RX_FRAME_MIN 60u
#define RX_FRAME_STD 1522u
#define RX_FRAME_MAX 16384u
#define RX_CRC       4u

enum {
	RX_STA_DD = 1u << 0,
	RX_STA_EOP = 1u << 1,
	RX_STA_IXSM = 1u << 2, /* no checksum was checked here */
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

bool e1000_receive_room(void *ctx)
{
	struct e1000 *e = ctx;
	struct e1000_ring r;
	uint32_t rctl, longest, size;
	bool room;

	pthread_mutex_lock(&e->dev.lock);
	r = e1000_ring_get(e, REG_RDBAL);
	rctl = e1000_reg(e, REG_RCTL);
	longest = (rctl & RCTL_LPE ? RX_FRAME_MAX : RX_FRAME_STD) + RX_CRC;
	size = buffer_size(rctl);
	room = (rctl & RCTL_EN) && (e1000_reg(e, REG_STATUS) & STATUS_LU) && r.n &&
	       ring_given(&r) >= (longest + size - 1) / size;
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

	if (!memcmp(f, broadcast, 6))
		return rctl & (RCTL_BAM | RCTL_MPE);
	if (f[0] & 1 ? rctl & RCTL_MPE : rctl & RCTL_UPE)
		return true;
	for (unsigned reg = REG_RA; reg < REG_RA_END; reg += 8)
		if (e1000_reg(e, reg + 4) >> 31 && e1000_reg(e, reg) == low &&
			(e1000_reg(e, reg + 4) & 0xffff) == high)
			return true;
	return (f[0] & 1) && multicast_accepts(e, f);
}

/* Stores len bytes (frame, then zeros) over as many descriptors as it takes. False: the guest's
 * ring is unusable. */
static bool frame_store(
	struct e1000 *e, struct e1000_ring *r, const uint8_t *frame, uint32_t len, uint32_t total)
{
	const struct ring_mem *mem = machine_mem(e->dev.machine);
	uint32_t size = buffer_size(e1000_reg(e, REG_RCTL));
	static const uint8_t zeros[RX_FRAME_MIN + RX_CRC];

	for (uint32_t at = 0; at < total;) {
		uint64_t gpa = r->base + (uint64_t)r->head * E1000_DESC;
		uint32_t part = total - at < size ? total - at : size;
		uint32_t real = at >= len ? 0 : len - at < part ? len - at : part;
		struct rx_desc d;

		if (ring_mem_read(mem, gpa, &d, sizeof(d)) ||
			(real && ring_mem_write(mem, d.address, frame + at, real)) ||
			(part > real && ring_mem_write(mem, d.address + real, zeros, part - real)))
			return false;
		at += part;
		d.length = (uint16_t)part;
		d.checksum = 0;
		d.errors = 0;
		d.special = 0;
		d.status = RX_STA_DD | RX_STA_IXSM | (at == total ? RX_STA_EOP : 0);
		if (ring_mem_write(mem, gpa + 8, &d.length, 8))
			return false;
		r->head = r->head + 1 == r->n ? 0 : r->head + 1;
	}
	return true;
}

void e1000_received(void *ctx, const uint8_t *frame, uint32_t len)
{
	struct e1000 *e = ctx;
	struct e1000_ring r;
	uint32_t rctl, total, size, threshold;

	pthread_mutex_lock(&e->dev.lock);
	r = e1000_ring_get(e, REG_RDBAL);
	rctl = e1000_reg(e, REG_RCTL);
	size = buffer_size(rctl);
	total = (len < RX_FRAME_MIN ? RX_FRAME_MIN : len) + (rctl & RCTL_SECRC ? 0 : RX_CRC);
	if (!(rctl & RCTL_EN) || !r.n || len < NET_FRAME_MIN ||
		len > (rctl & RCTL_LPE ? RX_FRAME_MAX : RX_FRAME_STD) ||
		ring_given(&r) < (total + size - 1) / size) {
		counter_add(&e->dev.counters.dropped, 1);
		e1000_stat_add(e, REG_MPC, 1);
		e1000_interrupt(e, rctl & RCTL_EN ? ICR_RXO : 0);
		goto out;
	}
	if (!filter_accepts(e, frame))
		goto out;
	if (!frame_store(e, &r, frame, len, total)) {
		/* as a master abort would: the ring stops until the driver sets it up anew */
		counter_add(&e->dev.counters.malformed, 1);
		e1000_reg_set(e, REG_RCTL, rctl & ~(uint32_t)RCTL_EN);
		goto out;
	}
	e1000_reg_set(e, REG_RDH, r.head);
	counter_add(&e->dev.counters.requests, 1);
	counter_add(&e->dev.counters.bytes, len);
	e1000_stat_add(e, REG_GPRC, 1);
	e1000_stat_add(e, REG_TPR, 1);
	e1000_stat_add(e, REG_GORCL, len);
	threshold = r.n >> ((rctl >> 8 & 3) + 1);
	e1000_interrupt(e, ICR_RXT0 | (ring_given(&r) <= threshold ? ICR_RXDMT0 : 0));
out:
	pthread_mutex_unlock(&e->dev.lock);
}
