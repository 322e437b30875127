/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's drivers, as far as they need no machine. */
#include <string.h>

#include "frontend-drivers/frontend.h"
#include "tests/unit/unit.h"

static void blk_segments(void)
{
	struct virtio_blk_frame f;
	struct ring_sg sg[4];
	uint32_t out, in;
	uint8_t buf[4096];

	CU_ASSERT_EQUAL(
		virtio_blk_request(&f, FRONTEND_BLK_READ, 77, buf, sizeof(buf), sg, &out, &in), 0);
	CU_ASSERT(out == 1 && in == 2 && sg[0].len == 16 && sg[1].len == 4096 && sg[2].len == 1);
	CU_ASSERT(f.type == VIRTIO_BLK_T_IN && f.sector == 77);
	CU_ASSERT_EQUAL(virtio_blk_status(&f), -GUEST_EIO);
	CU_ASSERT_EQUAL(
		virtio_blk_request(&f, FRONTEND_BLK_WRITE, 78, buf, sizeof(buf), sg, &out, &in), 0);
	CU_ASSERT(out == 2 && in == 1 && f.type == VIRTIO_BLK_T_OUT);
	CU_ASSERT_EQUAL(virtio_blk_request(&f, FRONTEND_BLK_FLUSH, 0, NULL, 0, sg, &out, &in), 0);
	CU_ASSERT(out == 1 && in == 1 && f.type == VIRTIO_BLK_T_FLUSH);
	CU_ASSERT_EQUAL(
		virtio_blk_request(&f, FRONTEND_BLK_DISCARD, 9, NULL, 8192, sg, &out, &in), 0);
	CU_ASSERT(out == 2 && in == 1 && sg[1].len == 16 && f.range_sector == 9 &&
		  f.range_sectors == 16);
	CU_ASSERT_EQUAL(virtio_blk_request(&f, FRONTEND_BLK_READ, 0, buf, 100, sg, &out, &in),
		-GUEST_EINVAL);
	f.status = VIRTIO_BLK_S_OK;
	CU_ASSERT_EQUAL(virtio_blk_status(&f), 0);
	f.status = VIRTIO_BLK_S_UNSUPP;
	CU_ASSERT_EQUAL(virtio_blk_status(&f), -GUEST_ENOTSUP);
}

static void features_need_each_other(void)
{
	const uint64_t all = VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) |
			     VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) |
			     VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) |
			     VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_NET_F_MQ) |
			     VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_HOST_USO);
	uint64_t f;

	CU_ASSERT_EQUAL(virtio_features_prune(all, VIRTIO_NET_TYPE), all);
	f = virtio_features_prune(all & ~VIRTIO_BIT(VIRTIO_NET_F_CSUM), VIRTIO_NET_TYPE);
	CU_ASSERT(!(f & (VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_HOST_USO))));
	f = virtio_features_prune(all & ~VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF), VIRTIO_NET_TYPE);
	CU_ASSERT(!(f & VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4)));
	f = virtio_features_prune(all & ~VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ), VIRTIO_NET_TYPE);
	CU_ASSERT(!(f & VIRTIO_BIT(VIRTIO_NET_F_MQ)));
	CU_ASSERT_EQUAL(virtio_features_prune(all, VIRTIO_BLK_TYPE), all);
}

/* The field then holds what is left when the rest of the segment is summed from csum_start on. */
static void segmentation_header(void)
{
	static uint8_t frame[4000];
	struct frontend_net_tx tx = {
		.frame = frame, .len = sizeof(frame), .gso_size = 1448, .gso_tcp = true};
	struct virtio_net_hdr h;
	uint32_t sum;

	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 7);
	frame[14 + 9] = 6;
	virtio_net_header(&h, &tx);
	CU_ASSERT(h.flags == VIRTIO_NET_HDR_F_NEEDS_CSUM && h.gso_type == VIRTIO_NET_HDR_GSO_TCPV4);
	CU_ASSERT(
		h.hdr_len == 54 && h.gso_size == 1448 && h.csum_start == 34 && h.csum_offset == 16);
	sum = 6 + sizeof(frame) - 34;
	for (unsigned i = 26; i < 34; i += 2)
		sum += (uint32_t)frame[i] << 8 | frame[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	CU_ASSERT_EQUAL(sum, (uint32_t)frame[50] << 8 | frame[51]);
	tx.gso_size = 0;
	virtio_net_header(&h, &tx);
	CU_ASSERT(!h.flags && !h.gso_type && !h.gso_size);
}

static void odd_sum(void)
{
	const uint8_t b[] = {0x12, 0x34, 0x56};

	CU_ASSERT_EQUAL(net_sum16(b, 3, 0), 0x1234 + 0x5600);
	CU_ASSERT_EQUAL(net_sum16(b, 0, 0x1ffff), 1);
}

static const struct unit_case cases[] = {
	{"blk_segments", blk_segments},
	{"features_need_each_other", features_need_each_other},
	{"segmentation_header", segmentation_header},
	{"odd_sum", odd_sum},
};

UNIT_MAIN("frontend_logic", cases)
