/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Segmentation in software, for a receiver that did not accept large frames: TCP over IPv4 and IPv6
 * (RFC 9293, RFC 791, RFC 8200) and UDP datagrams of equal size (USO). Frames come from guests:
 * each offset is checked against the frame before it is used.
 */
#include "netbridge/net_priv.h"

#include <errno.h>
#include <string.h>

enum {
	ETHER_TYPE_AT = 12,
	ETHER_VLAN = 0x8100,
	ETHER_QINQ = 0x88a8,
	ETHER_IPV4 = 0x0800,
	ETHER_IPV6 = 0x86dd,
	IPV4_LEN = 20,
	IPV6_LEN = 40,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	TCP_LEN = 20,
	TCP_SEQ = 4,
	TCP_OFFSET = 12,
	TCP_FLAGS = 13,
	TCP_CSUM = 16,
	TCP_FIN = 0x01,
	TCP_PSH = 0x08,
	TCP_CWR = 0x80,
	UDP_LEN = 8,
	UDP_CSUM = 6,
};

/* Finds the IP header behind up to two VLAN tags and checks it against the type of segmentation. */
static int segment_ip_check(struct net_segmenter *s, uint8_t gso)
{
	uint32_t at = ETHER_TYPE_AT;
	uint16_t type;
	const uint8_t *ip;

	for (int tags = 0; tags <= 2; tags++, at += 4) {
		if (at + 2 + IPV4_LEN > s->len)
			return -EINVAL;
		type = net_get16(s->frame + at);
		if (type != ETHER_VLAN && type != ETHER_QINQ)
			break;
	}
	s->l3 = (uint16_t)(at + 2);
	ip = s->frame + s->l3;
	if (type == ETHER_IPV4 && gso != NET_GSO_TCPV6) {
		s->v6 = false;
		if (ip[0] >> 4 != 4 || (ip[0] & 15) * 4 < IPV4_LEN ||
			s->l3 + (ip[0] & 15) * 4 != s->l4 ||
			ip[9] != (s->udp ? PROTO_UDP : PROTO_TCP))
			return -EINVAL;
		/* More fragments, or not the first. */
		return net_get16(ip + 6) & 0x3fff ? -EINVAL : 0;
	}
	if (type != ETHER_IPV6 || gso == NET_GSO_TCPV4)
		return -EINVAL;
	s->v6 = true;
	/* Extension headers may lie between: the sender says where they end. */
	if (s->l4 < s->l3 + IPV6_LEN || ip[0] >> 4 != 6)
		return -EINVAL;
	if (s->l4 == s->l3 + IPV6_LEN && ip[6] != (s->udp ? PROTO_UDP : PROTO_TCP))
		return -EINVAL;
	return 0;
}

int net_segment_begin(
	struct net_segmenter *s, const uint8_t *frame, uint32_t len, const struct net_vnet_hdr *hdr)
{
	uint8_t gso = hdr->gso_type & (uint8_t)~NET_GSO_ECN;
	uint32_t headers;

	memset(s, 0, sizeof(*s));
	if (gso != NET_GSO_TCPV4 && gso != NET_GSO_TCPV6 && gso != NET_GSO_UDP_L4)
		return -EINVAL;
	if (net_hdr_check(hdr, len) || hdr->gso_size < NET_SEGMENT_SIZE_MIN)
		return -EINVAL;
	s->frame = frame;
	s->len = len;
	s->size = hdr->gso_size;
	s->udp = gso == NET_GSO_UDP_L4;
	s->l4 = hdr->csum_start;
	if (hdr->csum_offset != (s->udp ? UDP_CSUM : TCP_CSUM) || segment_ip_check(s, gso))
		return -EINVAL;
	headers = s->l4 + (uint32_t)(s->udp ? UDP_LEN : TCP_LEN);
	if (headers > len)
		return -EINVAL;
	if (!s->udp) {
		uint32_t tcp = (uint32_t)(frame[s->l4 + TCP_OFFSET] >> 4) * 4;

		if (tcp < TCP_LEN)
			return -EINVAL;
		headers = s->l4 + tcp;
	}
	if (headers > len || headers > NET_SEGMENT_HEADERS_MAX)
		return -EINVAL;
	s->headers = (uint16_t)headers;
	s->at = headers;
	s->more = true;
	return 0;
}

/* Lengths, identification and header checksum of one segment; its pseudo header's sum. */
static uint16_t segment_ip_build(const struct net_segmenter *s, uint8_t *headers, uint32_t l4_len)
{
	uint8_t *ip = headers + s->l3, pseudo[4] = {0};
	uint32_t ip_header = (uint32_t)(s->l4 - s->l3);
	uint16_t sum;

	pseudo[1] = s->udp ? PROTO_UDP : PROTO_TCP;
	net_put16(pseudo + 2, (uint16_t)l4_len);
	sum = net_sum(pseudo, sizeof(pseudo));
	if (s->v6) {
		net_put16(ip + 4, (uint16_t)(ip_header - IPV6_LEN + l4_len));
		return net_sum_add(sum, net_sum(ip + 8, 32));
	}
	net_put16(ip + 2, (uint16_t)(ip_header + l4_len));
	net_put16(ip + 4, (uint16_t)(net_get16(s->frame + s->l3 + 4) + s->index));
	sum = net_sum_add(sum, net_sum(ip + 12, 8));
	net_put16(ip + 10, 0);
	{
		uint16_t check = (uint16_t)~net_sum(ip, ip_header);

		memcpy(ip + 10, &check, 2);
	}
	return sum;
}

bool net_segment_next(struct net_segmenter *s, struct net_segment *out)
{
	uint32_t payload = s->len - s->at, l4_len;
	uint8_t *l4 = out->headers + s->l4, *check;
	bool last = payload <= s->size;
	uint16_t sum;

	if (!s->more)
		return false;
	if (!last)
		payload = s->size;
	out->headers_len = s->headers;
	out->payload_len = payload;
	out->payload = s->frame + s->at;
	memcpy(out->headers, s->frame, s->headers);
	l4_len = (uint32_t)(s->headers - s->l4) + payload;
	sum = segment_ip_build(s, out->headers, l4_len);
	if (s->udp) {
		net_put16(l4 + 4, (uint16_t)l4_len);
		check = l4 + UDP_CSUM;
	} else {
		net_put32(l4 + TCP_SEQ, net_get32(l4 + TCP_SEQ) + (s->at - s->headers));
		if (!last)
			l4[TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
		/* RFC 3168, 6.1.2: the window was reduced once, and says so once. */
		if (s->index)
			l4[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
		check = l4 + TCP_CSUM;
	}
	net_put16(check, 0);
	/* Both headers have an even length, so that the payload begins at an even offset. */
	sum = net_sum_add(sum, net_sum(l4, (size_t)(s->headers - s->l4)));
	sum = (uint16_t)~net_sum_add(sum, net_sum(out->payload, payload));
	if (!sum && s->udp)
		sum = 0xffff;
	memcpy(check, &sum, 2);
	s->at += payload;
	s->index++;
	s->more = !last;
	return true;
}
