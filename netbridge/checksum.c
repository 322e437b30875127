/* SPDX-License-Identifier: BSD-2-Clause */
/* The Internet checksum (RFC 1071) and the vnet header's rules about it (virtio 1.2, 5.1.6.2). */
#include "netbridge/net_priv.h"

#include <errno.h>
#include <string.h>

static uint16_t sum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint16_t net_sum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t sum = 0, w;
	uint8_t last[8] = {0};

	/* One's complement addition does not care how wide the words are, so they are wide. */
	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&w, p, 8);
		sum += (w & 0xffffffff) + (w >> 32);
	}
	memcpy(last, p, len);
	memcpy(&w, last, 8);
	sum += (w & 0xffffffff) + (w >> 32);
	return sum_fold(sum);
}

uint16_t net_sum_add(uint16_t a, uint16_t b)
{
	return sum_fold((uint64_t)a + b);
}

uint32_t net_hdr_offloads(const struct net_vnet_hdr *hdr)
{
	uint32_t bits = hdr->flags & NET_HDR_F_NEEDS_CSUM ? NET_OFFLOAD_CSUM : 0;

	if (hdr->gso_type & NET_GSO_ECN)
		bits |= NET_OFFLOAD_ECN;
	switch (hdr->gso_type & ~NET_GSO_ECN) {
	case NET_GSO_TCPV4:
		return bits | NET_OFFLOAD_TSO4;
	case NET_GSO_TCPV6:
		return bits | NET_OFFLOAD_TSO6;
	case NET_GSO_UDP:
		return bits | NET_OFFLOAD_UFO;
	case NET_GSO_UDP_L4:
		return bits | NET_OFFLOAD_USO;
	default:
		return bits;
	}
}

int net_hdr_check(const struct net_vnet_hdr *hdr, uint32_t len)
{
	uint8_t gso = hdr->gso_type & (uint8_t)~NET_GSO_ECN;

	if (hdr->flags & NET_HDR_F_NEEDS_CSUM &&
		(uint32_t)hdr->csum_start + hdr->csum_offset + 2 > len)
		return -EINVAL;
	if (hdr->gso_type == NET_GSO_NONE)
		return 0;
	if (gso != NET_GSO_TCPV4 && gso != NET_GSO_TCPV6 && gso != NET_GSO_UDP &&
		gso != NET_GSO_UDP_L4)
		return -EINVAL;
	if (!(hdr->flags & NET_HDR_F_NEEDS_CSUM) || !hdr->gso_size || hdr->hdr_len > len)
		return -EINVAL;
	return 0;
}

int net_checksum_finish(struct net_packet *pkt)
{
	struct net_vnet_hdr *hdr = &pkt->hdr;
	uint32_t skip = hdr->csum_start, at = 0;
	uint16_t sum = 0, piece;

	if (!(hdr->flags & NET_HDR_F_NEEDS_CSUM))
		return 0;
	if ((uint32_t)hdr->csum_start + hdr->csum_offset + 2 > pkt->len)
		return -EINVAL;
	for (uint32_t i = 0; i < pkt->nsegs; i++) {
		const uint8_t *p = pkt->segs[i].iov_base;
		size_t len = pkt->segs[i].iov_len;

		if (skip >= len) {
			skip -= (uint32_t)len;
			continue;
		}
		p += skip;
		len -= skip;
		skip = 0;
		piece = net_sum(p, len);
		sum = net_sum_add(sum, at & 1 ? __builtin_bswap16(piece) : piece);
		at += (uint32_t)len;
	}
	/* 0 would say "no checksum" in UDP; both forms of zero are the same to the others. */
	sum = (uint16_t)~sum;
	if (!sum)
		sum = 0xffff;
	if (net_segs_scatter(pkt->segs, pkt->nsegs, (uint32_t)hdr->csum_start + hdr->csum_offset,
		    &sum, 2) != 2)
		return -EINVAL;
	hdr->flags &= (uint8_t)~NET_HDR_F_NEEDS_CSUM;
	hdr->csum_start = 0;
	hdr->csum_offset = 0;
	return 0;
}
