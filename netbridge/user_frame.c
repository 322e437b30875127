/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames on their way into the router: work that was left to do, what they may cost it, and whether
 * it sees them at all. Its library is old code in C: what guests of good will do not send never
 * reaches it. Above all no fragments: version 4.7 can be made to write anywhere by some of them.
 */
#include "netbridge/user_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#define ETH_LEN       14u
#define TYPE_IPV4     0x0800
#define TYPE_ARP      0x0806
#define TYPE_IPV6     0x86dd
#define DONT_FRAGMENT 0x4000
#define PORT_DHCP     67
#define PORT_TFTP     69
#define ARP_LEN       28u
#define UDP_LEN       8u
#define ICMP_LEN      8u
#define IPV4_LEN      20u
#define IPV6_LEN      40u
#define TCP_LEN       20u

/* Where the transport header begins and which it is; 0: neither IPv4 nor IPv6, each plain: no
 * options, no fragments, no extension headers. */
static uint32_t transport_find(const uint8_t *f, uint32_t len, uint8_t *protocol)
{
	const uint8_t *ip = f + ETH_LEN;

	if (len >= ETH_LEN + IPV4_LEN && net_get16(f + 12) == TYPE_IPV4 && ip[0] == 0x45 &&
		!(net_get16(ip + 6) & (uint16_t)~DONT_FRAGMENT)) {
		*protocol = ip[9];
		return ETH_LEN + IPV4_LEN;
	}
	if (len >= ETH_LEN + IPV6_LEN && net_get16(f + 12) == TYPE_IPV6 && ip[0] >> 4 == 6) {
		*protocol = ip[6];
		return ETH_LEN + IPV6_LEN;
	}
	return 0;
}

static enum user_frame_kind tcp_kind(const uint8_t *tcp, uint32_t len)
{
	if (len < TCP_LEN || (uint32_t)(tcp[12] >> 4) * 4 < TCP_LEN ||
		(uint32_t)(tcp[12] >> 4) * 4 > len)
		return USER_FRAME_BAD;
	/* SYN without ACK */
	return (tcp[13] & 0x12) == 0x02 ? USER_FRAME_OPENS : USER_FRAME_PLAIN;
}

static enum user_frame_kind udp_kind(const uint8_t *udp, uint32_t len)
{
	if (len < UDP_LEN || net_get16(udp + 4) < UDP_LEN || net_get16(udp + 4) > len)
		return USER_FRAME_BAD;
	switch (net_get16(udp + 2)) {
	case PORT_TFTP: /* the router has no files to give */
		return USER_FRAME_BAD;
	case PORT_DHCP: /* answered by the router itself */
		return USER_FRAME_PLAIN;
	default:
		return USER_FRAME_OPENS;
	}
}

enum user_frame_kind user_frame_kind(const uint8_t *f, uint32_t len)
{
	uint8_t protocol = 0;
	uint32_t at, end;

	if (len >= ETH_LEN + ARP_LEN && net_get16(f + 12) == TYPE_ARP)
		return USER_FRAME_PLAIN;
	at = transport_find(f, len, &protocol);
	if (!at)
		return USER_FRAME_BAD;
	/* where the packet ends: a short frame may be padded */
	end = ETH_LEN + (net_get16(f + 12) == TYPE_IPV4 ? net_get16(f + ETH_LEN + 2)
							: IPV6_LEN + net_get16(f + ETH_LEN + 4));
	if (end < at || end > len)
		return USER_FRAME_BAD;
	switch (protocol) {
	case IPPROTO_TCP:
		return tcp_kind(f + at, end - at);
	case IPPROTO_UDP:
		return udp_kind(f + at, end - at);
	case IPPROTO_ICMP:
		return end - at >= ICMP_LEN ? USER_FRAME_OPENS : USER_FRAME_BAD;
	case IPPROTO_ICMPV6:
		return end - at >= ICMP_LEN ? USER_FRAME_PLAIN : USER_FRAME_BAD;
	default:
		return USER_FRAME_BAD;
	}
}

/* A frame that was to be cut becomes one with true lengths and checksums: guests leave them to
 * whoever cuts, some as zero. */
static int frame_whole(uint8_t *f, uint32_t len)
{
	uint8_t protocol = 0, pseudo[IPV6_LEN] = {0};
	uint32_t at = transport_find(f, len, &protocol), l4 = len - at, pseudo_len;
	uint8_t *ip = f + ETH_LEN;
	uint16_t sum;

	if (!at || protocol != IPPROTO_TCP || l4 < TCP_LEN || len - ETH_LEN > UINT16_MAX)
		return -EINVAL;
	if (net_get16(f + 12) == TYPE_IPV4) {
		net_put16(ip + 2, (uint16_t)(len - ETH_LEN));
		memset(ip + 10, 0, 2);
		sum = (uint16_t)~net_sum(ip, at - ETH_LEN);
		memcpy(ip + 10, &sum, 2);
		memcpy(pseudo, ip + 12, 8);
		pseudo[9] = protocol;
		net_put16(pseudo + 10, (uint16_t)l4);
		pseudo_len = 12;
	} else {
		net_put16(ip + 4, (uint16_t)l4);
		memcpy(pseudo, ip + 8, 32);
		net_put16(pseudo + 34, (uint16_t)l4);
		pseudo[39] = protocol;
		pseudo_len = 40;
	}
	memset(f + at + 16, 0, 2);
	sum = (uint16_t)~net_sum_add(net_sum(pseudo, pseudo_len), net_sum(f + at, l4));
	memcpy(f + at + 16, &sum, 2);
	return 0;
}

int user_frame_finish(const struct net_vnet_hdr *hdr, uint8_t *frame, uint32_t len)
{
	struct iovec seg = {frame, len};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = len, .hdr = *hdr};

	if (hdr->gso_type != NET_GSO_NONE)
		return frame_whole(frame, len);
	return hdr->flags & NET_HDR_F_NEEDS_CSUM ? net_checksum_finish(&pkt) : 0;
}
