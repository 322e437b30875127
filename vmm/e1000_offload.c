/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 82540EM transmit offloads (manual 3.3.6, 3.5): checksums, VLAN tags and segmentation of one frame
 * that lies whole in our own memory. What the port can finish is left to it (vnet header); the rest
 * is done here, so that the guest sees the same card in front of every port.
 */
#include <errno.h>
#include <string.h>

#include "vmm/e1000_priv.h"

#define IPV4_LEN    20u
#define IPV6_LEN    40u
#define TCP_LEN     20u
#define UDP_LEN     8u
#define TCP_CSUM    16u
#define UDP_CSUM    6u
#define TCP_FIN_PSH 0x09u

static uint64_t sum_add(uint64_t sum, const uint8_t *p, uint32_t len)
{
	uint32_t i = 0;

	for (; i + 1 < len; i += 2)
		sum += e1000_get16(p + i);
	return i < len ? sum + ((uint32_t)p[i] << 8) : sum;
}

static uint16_t sum_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

void e1000_checksum(uint8_t *frame, uint32_t start, uint32_t end, uint32_t at)
{
	uint16_t sum = (uint16_t)~sum_fold(sum_add(0, frame + start, end - start));

	/* zero would say "no checksum" in UDP; to the others both are the same */
	e1000_put16(frame + at, sum ? sum : 0xffff);
}

static void ip_checksum(uint8_t *frame, const struct e1000_context *c, uint32_t len)
{
	uint32_t end = c->ipcse ? c->ipcse + 1u : len;

	if (end > len || c->ipcso + 2u > len || c->ipcss >= end)
		return;
	e1000_put16(frame + c->ipcso, 0);
	e1000_put16(frame + c->ipcso,
		(uint16_t)~sum_fold(sum_add(0, frame + c->ipcss, end - c->ipcss)));
}

/* Lengths that hardware fills in when it segments (manual 3.5.7): headers and `payload` bytes. */
static void lengths_set(uint8_t *frame, const struct e1000_context *c, uint32_t len)
{
	if (c->ipv4)
		e1000_put16(frame + c->ipcss + 2, len - c->ipcss);
	else
		e1000_put16(frame + c->ipcss + 4, len - c->ipcss - IPV6_LEN);
	if (!c->tcp)
		e1000_put16(frame + c->tucss + 4, len - c->tucss);
}

/* Everything the header of a segment is touched at lies in it. */
static bool context_valid(const struct e1000_context *c, uint32_t len)
{
	return c->hdrlen >= NET_FRAME_MIN && c->hdrlen <= len && c->mss &&
	       c->ipcss + (c->ipv4 ? IPV4_LEN : IPV6_LEN) <= c->tucss &&
	       c->tucss + (c->tcp ? TCP_LEN : UDP_LEN) <= c->hdrlen && c->tucso >= c->tucss &&
	       c->tucso + 2u <= c->hdrlen;
}

/* Can the port cut it? Ports look for TCP's and UDP's own checksum fields. */
static bool port_segments(const struct e1000 *e)
{
	const struct e1000_context *c = &e->context;
	uint32_t need = NET_OFFLOAD_CSUM | (!c->tcp          ? NET_OFFLOAD_USO
						   : c->ipv4 ? NET_OFFLOAD_TSO4
							     : NET_OFFLOAD_TSO6);

	return (e->port_offloads & need) == need && e->frame_popts & E1000_POPTS_TXSM &&
	       c->tucso == c->tucss + (c->tcp ? TCP_CSUM : UDP_CSUM) &&
	       e->frame_len + 4 <= NET_FRAME_MAX && !e1000_is_loopback(e);
}

static void hdr_checksum(struct e1000 *e)
{
	e->frame_hdr.flags = NET_HDR_F_NEEDS_CSUM;
	e->frame_hdr.csum_start = e->context.tucss;
	e->frame_hdr.csum_offset = (uint16_t)(e->context.tucso - e->context.tucss);
}

/* The driver's pseudo header sum leaves the length out: hardware knows it for each segment. */
static void pseudo_length_add(struct e1000 *e)
{
	uint8_t *at = e->frame + e->context.tucso;

	e1000_put16(at, sum_fold((uint64_t)e1000_get16(at) + (e->frame_len - e->context.tucss)));
}

static int segmented_finish(struct e1000 *e)
{
	const struct e1000_context *c = &e->context;

	if (!context_valid(c, e->frame_len))
		return -EINVAL;
	if (!port_segments(e)) {
		e->frame_cut = true;
		return 0;
	}
	lengths_set(e->frame, c, e->frame_len);
	if (e->frame_popts & E1000_POPTS_IXSM)
		ip_checksum(e->frame, c, e->frame_len);
	pseudo_length_add(e);
	hdr_checksum(e);
	if (e->frame_len <= (uint32_t)c->hdrlen + c->mss)
		return 0;
	e->frame_hdr.gso_type = !c->tcp ? NET_GSO_UDP_L4 : c->ipv4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6;
	e->frame_hdr.gso_size = c->mss;
	e->frame_hdr.hdr_len = c->hdrlen;
	return 0;
}

int e1000_frame_finish(struct e1000 *e)
{
	const struct e1000_context *c = &e->context;
	uint32_t end;

	if (e->frame_tse)
		return segmented_finish(e);
	if (e->frame_popts & E1000_POPTS_IXSM)
		ip_checksum(e->frame, c, e->frame_len);
	if (!(e->frame_popts & E1000_POPTS_TXSM))
		return 0;
	end = c->tucse ? c->tucse + 1u : e->frame_len;
	if (end > e->frame_len || c->tucss >= end || c->tucso + 2u > e->frame_len)
		return 0;
	if (end == e->frame_len && c->tucso >= c->tucss && e->port_offloads & NET_OFFLOAD_CSUM &&
		!e1000_is_loopback(e))
		hdr_checksum(e);
	else
		e1000_checksum(e->frame, c->tucss, end, c->tucso);
	return 0;
}

void e1000_frame_tag(struct e1000 *e, uint16_t tag)
{
	memmove(e->frame + 16, e->frame + 12, e->frame_len - 12);
	e1000_put16(e->frame + 12, e1000_reg(e, REG_VET));
	e1000_put16(e->frame + 14, tag);
	e->frame_len += 4;
	e->frame_tagged = true;
	if (e->frame_hdr.flags)
		e->frame_hdr.csum_start += 4;
	if (e->frame_hdr.hdr_len)
		e->frame_hdr.hdr_len += 4;
}

/* TCP's sequence number and flags (manual 3.5.7.2). */
static void tcp_set(uint8_t *tcp, uint32_t at, bool last)
{
	uint32_t seq = ((uint32_t)e1000_get16(tcp + 4) << 16 | e1000_get16(tcp + 6)) + at;

	e1000_put16(tcp + 4, seq >> 16);
	e1000_put16(tcp + 6, seq);
	if (!last)
		tcp[13] &= (uint8_t)~TCP_FIN_PSH;
}

uint32_t e1000_frame_segment(const struct e1000 *e, uint8_t to[E1000_FRAME_MAX], uint32_t *payload)
{
	const struct e1000_context *c = &e->context;
	/* a tag lies in front of everything the context knows */
	uint32_t tag = e->frame_tagged ? 4 : 0, headers = c->hdrlen + tag;
	uint32_t left, len;
	uint8_t *base = to + tag;
	uint64_t sum;

	/* seen to before, but for a state that was loaded */
	if (e->frame_len < headers || e->frame_sent > e->frame_len - headers ||
		!context_valid(c, e->frame_len - tag))
		return 0;
	left = e->frame_len - headers - e->frame_sent;
	*payload = left < c->mss ? left : c->mss;
	len = c->hdrlen + *payload;
	memcpy(to, e->frame, headers);
	memcpy(to + headers, e->frame + headers + e->frame_sent, *payload);
	lengths_set(base, c, len);
	if (c->ipv4)
		e1000_put16(base + c->ipcss + 4,
			(uint32_t)e1000_get16(base + c->ipcss + 4) + e->frame_index);
	if (c->tcp)
		tcp_set(base + c->tucss, e->frame_sent, *payload == left);
	if (e->frame_popts & E1000_POPTS_IXSM)
		ip_checksum(base, c, len);
	if (e->frame_popts & E1000_POPTS_TXSM) {
		sum = (uint64_t)e1000_get16(base + c->tucso) + (len - c->tucss);
		e1000_put16(base + c->tucso, sum_fold(sum));
		e1000_checksum(base, c->tucss, len, c->tucso);
	}
	return len + tag;
}
