/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which flow a frame belongs to: addresses, protocol and ports of an IP packet, else the Ethernet
 * addresses. Both directions of a flow have the same hash.
 */
#include <string.h>

#include "netbridge/switch_priv.h"

#define LOOK      64u
#define TYPE_VLAN 0x8100u
#define TYPE_IPV4 0x0800u
#define TYPE_IPV6 0x86ddu
#define PROTO_TCP 6
#define PROTO_UDP 17
#define IPV4_FRAG 0x3fffu /* offset, and more to come */
#define IPV4_LEN  20u
#define IPV6_LEN  40u

static uint64_t mix(uint64_t h)
{
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	return h ^ h >> 32;
}

static uint64_t hash_bytes(const uint8_t *p, uint32_t n)
{
	uint64_t h = n, part;

	for (uint32_t i = 0; i < n; i += sizeof(part)) {
		part = 0;
		memcpy(&part, p + i, n - i < sizeof(part) ? n - i : sizeof(part));
		h = mix(h + part);
	}
	return h;
}

/* Of two ends and what is between them; the order of the ends does not matter. */
static uint64_t hash_ends(const uint8_t *addrs, uint32_t len, const uint8_t *ports)
{
	uint8_t a[18] = {0}, b[18] = {0};

	memcpy(a, addrs, len);
	memcpy(b, addrs + len, len);
	if (ports) {
		memcpy(a + len, ports, 2);
		memcpy(b + len, ports + 2, 2);
	}
	return hash_bytes(a, len + 2) + hash_bytes(b, len + 2);
}

static bool has_ports(uint8_t proto)
{
	return proto == PROTO_TCP || proto == PROTO_UDP;
}

uint32_t switch_flow_hash(const struct net_packet *pkt)
{
	uint8_t h[SWITCH_HEAD + LOOK] = {0};
	uint32_t n = net_segs_gather(h, sizeof(h), pkt->segs, pkt->nsegs), at = NET_FRAME_MIN;
	uint16_t type = net_get16(h + SWITCH_ADDRS);
	const uint8_t *ip;
	uint64_t hash;

	if (type == TYPE_VLAN) {
		type = net_get16(h + SWITCH_ADDRS + SWITCH_VLAN_TAG);
		at = SWITCH_HEAD;
	}
	ip = h + at;
	if (type == TYPE_IPV4 && n >= at + IPV4_LEN) {
		uint32_t l4 = (uint32_t)(ip[0] & 15) * 4;
		bool ports =
			has_ports(ip[9]) && !(net_get16(ip + 6) & IPV4_FRAG) && at + l4 + 4 <= n;

		hash = hash_ends(ip + 12, 4, ports ? ip + l4 : NULL) + ip[9];
	} else if (type == TYPE_IPV6 && n >= at + IPV6_LEN) {
		bool ports = has_ports(ip[6]) && at + IPV6_LEN + 4 <= n;

		hash = hash_ends(ip + 8, 16, ports ? ip + IPV6_LEN : NULL) + ip[6];
	} else {
		hash = hash_ends(h, 6, NULL);
	}
	return (uint32_t)(mix(hash) >> 32);
}
