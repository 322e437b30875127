/* SPDX-License-Identifier: BSD-2-Clause */
/* RTL8139: frames sent from the four descriptors, and received into the ring. */
#include <string.h>
#include <sys/param.h>

#include "vmm/rtl8139_priv.h"

#define TCR_LOOPBACK 0x60000u

/* ------------------------------------------------------------------ transmit */

static bool transmitter_on(const struct rtl8139 *e)
{
	return e->regs[RTL_CR] & CR_TE && rtl_is_master(e);
}

static void frame_receive(struct rtl8139 *e, const uint8_t *frame, uint32_t len);

/* False: the port would not take it now. */
static bool frame_send(struct rtl8139 *e, uint32_t len)
{
	struct iovec seg = {.iov_base = e->frame, .iov_len = len};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = len}, *p = &pkt;

	if ((rtl_get(e, RTL_TCR, 4) & TCR_LOOPBACK) == TCR_LOOPBACK)
		frame_receive(e, e->frame, len);
	else if (!legacy_net_send(e->net, &p, 1))
		return false;
	counter_add(&e->dev.counters.requests, 1);
	counter_add(&e->dev.counters.bytes, len);
	return true;
}

/* The next descriptor's frame; false: it stays for later. */
static bool descriptor_send(struct rtl8139 *e, unsigned i)
{
	uint32_t tsd = rtl_get(e, RTL_TSD + 4 * i, 4), len = tsd & TSD_SIZE;
	uint32_t address = rtl_get(e, RTL_TSAD + 4 * i, 4);

	/* one that cannot be sent is over all the same */
	if (len < NET_FRAME_MIN || len > RTL_TX_MAX ||
		ring_mem_read(machine_mem(e->dev.machine), address, e->frame, len))
		counter_add(&e->dev.counters.malformed, 1);
	else if (!frame_send(e, len))
		return false;
	rtl_put(e, RTL_TSD + 4 * i, tsd | TSD_OWN | TSD_TOK, 4);
	e->tx_pending &= (uint8_t) ~(1u << i);
	return true;
}

void rtl_transmit(void *ctx)
{
	struct rtl8139 *e = ctx;
	bool sent = false;

	pthread_mutex_lock(&e->dev.lock);
	/* in the order of the descriptors, whatever order they were given in */
	while (transmitter_on(e) && e->tx_pending >> e->tx_next & 1) {
		if (!descriptor_send(e, e->tx_next))
			break;
		e->tx_next = (e->tx_next + 1) % RTL_TX;
		sent = true;
	}
	if (sent)
		rtl_raise(e, ISR_TOK);
	pthread_mutex_unlock(&e->dev.lock);
}

/* ------------------------------------------------------------------ receive */

static uint32_t ring_size(const struct rtl8139 *e)
{
	return 8192u << (rtl_get(e, RTL_RCR, 4) >> 11 & 3);
}

/* CAPR is 16 behind where the guest reads (programming guide, receive). */
static uint32_t ring_read_at(const struct rtl8139 *e)
{
	return (rtl_get(e, RTL_CAPR, 2) + 16) % ring_size(e);
}

bool rtl_rx_empty(const struct rtl8139 *e)
{
	return rtl_get(e, RTL_CBR, 2) % ring_size(e) == ring_read_at(e);
}

static uint32_t ring_room(const struct rtl8139 *e)
{
	uint32_t size = ring_size(e);

	if (rtl_rx_empty(e))
		return size;
	return (ring_read_at(e) + size - rtl_get(e, RTL_CBR, 2) % size) % size;
}

/* What a frame takes of the ring. */
static uint32_t frame_space(uint32_t len)
{
	return (len + RTL_HEADER + RTL_CRC + 3) & ~3u;
}

bool rtl_rx_roomy(const struct rtl8139 *e)
{
	return ring_room(e) > frame_space(RTL_FRAME_MAX);
}

static bool receiver_on(const struct rtl8139 *e)
{
	return e->regs[RTL_CR] & CR_RE && e->cable && rtl_is_master(e) &&
	       (rtl_get(e, RTL_TCR, 4) & TCR_LOOPBACK) != TCR_LOOPBACK;
}

/* Frames are asked for only while the largest one has room, so none is lost to a slow guest. */
bool rtl_receive_room(void *ctx)
{
	struct rtl8139 *e = ctx;
	bool room;

	pthread_mutex_lock(&e->dev.lock);
	room = receiver_on(e) && rtl_rx_roomy(e);
	pthread_mutex_unlock(&e->dev.lock);
	return room;
}

/* The status bits of a frame that is wanted; 0: it is not. */
static uint16_t filter(const struct rtl8139 *e, const uint8_t *frame)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint32_t rcr = rtl_get(e, RTL_RCR, 4);
	unsigned hash;

	if (!memcmp(frame, broadcast, 6))
		return rcr & (RCR_AB | RCR_AAP) ? RX_ROK | RX_BAR : 0;
	if (frame[0] & 1) {
		hash = ether_multicast_hash(frame);
		if (rcr & RCR_AAP || (rcr & RCR_AM && e->regs[RTL_MAR + hash / 8] >> hash % 8 & 1))
			return RX_ROK | RX_MAR;
		return 0;
	}
	if (!memcmp(frame, e->regs + RTL_IDR, 6))
		return rcr & (RCR_APM | RCR_AAP) ? RX_ROK | RX_PAM : 0;
	return rcr & RCR_AAP ? RX_ROK : 0;
}

/* Into the ring from *at on; past its end it goes on behind it (RCR.WRAP), or at its beginning. */
static void ring_put(struct rtl8139 *e, uint32_t *at, const void *from, uint32_t len)
{
	const struct ring_mem *mem = machine_mem(e->dev.machine);
	uint32_t base = rtl_get(e, RTL_RBSTART, 4), size = ring_size(e), part = len;
	bool beyond = rtl_get(e, RTL_RCR, 4) & RCR_WRAP && size < 65536;

	if (!beyond && *at % size + len > size)
		part = size - *at % size;
	if (ring_mem_write(mem, (uint64_t)base + (beyond ? *at : *at % size), from, part))
		counter_add(&e->dev.counters.malformed, 1);
	if (part < len && ring_mem_write(mem, base, (const uint8_t *)from + part, len - part))
		counter_add(&e->dev.counters.malformed, 1);
	*at += len;
}

static void frame_store(struct rtl8139 *e, const uint8_t *frame, uint32_t len, uint16_t status)
{
	static const uint8_t zeros[64];
	uint32_t pad = len < 60 ? 60 - len : 0, total = len + pad + RTL_CRC;
	uint32_t at = rtl_get(e, RTL_CBR, 2) % ring_size(e);
	const uint8_t header[RTL_HEADER] = {
		(uint8_t)status, (uint8_t)(status >> 8), (uint8_t)total, (uint8_t)(total >> 8)};

	if (ring_room(e) <= frame_space(total)) {
		/* one that the room was not asked for: as a full ring loses it */
		counter_add(&e->dev.counters.dropped, 1);
		rtl_put(e, RTL_MPC, rtl_get(e, RTL_MPC, 4) + 1, 4);
		rtl_raise(e, ISR_RXOVW);
		return;
	}
	ring_put(e, &at, header, RTL_HEADER);
	ring_put(e, &at, frame, len);
	/* nobody checks the CRC: the chip has */
	ring_put(e, &at, zeros, pad + RTL_CRC);
	rtl_put(e, RTL_CBR, ((at + 3) & ~3u) % ring_size(e), 2);
	counter_add(&e->dev.counters.requests, 1);
	counter_add(&e->dev.counters.bytes, len);
	rtl_raise(e, ISR_ROK);
}

static void frame_receive(struct rtl8139 *e, const uint8_t *frame, uint32_t len)
{
	uint16_t status = e->regs[RTL_CR] & CR_RE ? filter(e, frame) : 0;

	if (status && len <= RTL_FRAME_MAX)
		frame_store(e, frame, len, status);
}

/* I/O thread. The guest may have stopped the receiver since there was room. */
void rtl_received(void *ctx, const uint8_t *frame, uint32_t len)
{
	struct rtl8139 *e = ctx;

	pthread_mutex_lock(&e->dev.lock);
	if (len < NET_FRAME_MIN || len > RTL_FRAME_MAX || !receiver_on(e))
		counter_add(&e->dev.counters.dropped, 1);
	else
		frame_receive(e, frame, len);
	pthread_mutex_unlock(&e->dev.lock);
}
