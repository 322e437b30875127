/* SPDX-License-Identifier: BSD-2-Clause */
#include "frontend-drivers/frontend.h"

#define IP_OFFSET       14u
#define IP_HEADER       20u
#define L4_OFFSET       (IP_OFFSET + IP_HEADER)
#define TCP_HEADER      20u
#define TCP_CSUM_OFFSET 16u
#define UDP_HEADER      8u
#define UDP_CSUM_OFFSET 6u
#define BLK_ID_BYTES    20u

uint64_t virtio_ring_features(const struct frontend_virtio_options *o)
{
	uint64_t f = VIRTIO_BIT(VIRTIO_F_VERSION_1);

	if (o->packed)
		f |= VIRTIO_BIT(VIRTIO_F_RING_PACKED);
	if (o->event_idx)
		f |= VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	if (o->indirect)
		f |= VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
	if (o->in_order)
		f |= VIRTIO_BIT(VIRTIO_F_IN_ORDER);
	return f;
}

uint64_t virtio_features_prune(uint64_t features, unsigned type)
{
	if (type != VIRTIO_NET_TYPE)
		return features;
	if (!(features & VIRTIO_BIT(VIRTIO_NET_F_CSUM)))
		features &=
			~(VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_HOST_USO));
	/* Frames larger than a buffer also need buffers that merge: that is the driver's own wish.
	 */
	if (!(features & VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)) ||
		!(features & VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF)))
		features &= ~VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4);
	if (!(features & VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ)))
		features &= ~VIRTIO_BIT(VIRTIO_NET_F_MQ);
	return features;
}

int virtio_blk_request(struct virtio_blk_frame *f, enum frontend_blk_op op, uint64_t sector,
	void *buf, uint32_t bytes, struct ring_sg *sg, uint32_t *nout, uint32_t *nin)
{
	static const uint32_t types[] = {
		[FRONTEND_BLK_READ] = VIRTIO_BLK_T_IN,
		[FRONTEND_BLK_WRITE] = VIRTIO_BLK_T_OUT,
		[FRONTEND_BLK_FLUSH] = VIRTIO_BLK_T_FLUSH,
		[FRONTEND_BLK_DISCARD] = VIRTIO_BLK_T_DISCARD,
		[FRONTEND_BLK_WRITE_ZEROES] = VIRTIO_BLK_T_WRITE_ZEROES,
		[FRONTEND_BLK_GET_ID] = VIRTIO_BLK_T_GET_ID,
	};
	uint32_t out = 1, in = 0;

	if ((unsigned)op >= sizeof(types) / sizeof(types[0]))
		return -GUEST_ENOTSUP;
	f->type = types[op];
	f->sector = sector;
	f->status = VIRTIO_BLK_S_UNSET;
	sg[0] = (struct ring_sg){mem_phys(f), 16};
	switch (op) {
	case FRONTEND_BLK_READ:
	case FRONTEND_BLK_WRITE:
		if (!bytes || bytes % 512)
			return -GUEST_EINVAL;
		sg[1] = (struct ring_sg){mem_phys(buf), bytes};
		if (op == FRONTEND_BLK_READ)
			in = 1;
		else
			out = 2;
		break;
	case FRONTEND_BLK_GET_ID:
		if (bytes != BLK_ID_BYTES)
			return -GUEST_EINVAL;
		f->sector = 0;
		sg[1] = (struct ring_sg){mem_phys(buf), bytes};
		in = 1;
		break;
	case FRONTEND_BLK_DISCARD:
	case FRONTEND_BLK_WRITE_ZEROES:
		if (!bytes || bytes % 512)
			return -GUEST_EINVAL;
		f->sector = 0;
		f->range_sector = sector;
		f->range_sectors = bytes / 512;
		f->range_flags = 0;
		sg[1] = (struct ring_sg){mem_phys(&f->range_sector), 16};
		out = 2;
		break;
	case FRONTEND_BLK_FLUSH:
		f->sector = 0;
		break;
	}
	sg[out + in] = (struct ring_sg){mem_phys(&f->status), 1};
	*nout = out;
	*nin = in + 1;
	return 0;
}

int virtio_blk_status(const struct virtio_blk_frame *f)
{
	switch (ring_load_relaxed(&f->status)) {
	case VIRTIO_BLK_S_OK:
		return 0;
	case VIRTIO_BLK_S_UNSUPP:
		return -GUEST_ENOTSUP;
	default:
		return -GUEST_EIO;
	}
}

uint16_t net_sum16(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	if (n & 1)
		sum += (uint32_t)p[n - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint16_t net_pseudo_sum(const uint8_t *ip, uint32_t l4_len)
{
	return net_sum16(ip + 12, 8, (uint32_t)ip[9] + l4_len);
}

void virtio_net_header(struct virtio_net_hdr *h, const struct frontend_net_tx *tx)
{
	uint16_t csum_offset = tx->gso_tcp ? TCP_CSUM_OFFSET : UDP_CSUM_OFFSET;
	uint32_t l4_len = tx->len - L4_OFFSET;

	*h = (struct virtio_net_hdr){0};
	if (!tx->gso_size)
		return;
	/* NEEDS_CSUM: the field holds the sum over the pseudo header, the rest is summed from
	 * csum_start on. */
	net_put16(
		tx->frame + L4_OFFSET + csum_offset, net_pseudo_sum(tx->frame + IP_OFFSET, l4_len));
	h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->gso_type = tx->gso_tcp ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_UDP_L4;
	h->hdr_len = (uint16_t)(L4_OFFSET + (tx->gso_tcp ? TCP_HEADER : UDP_HEADER));
	h->gso_size = tx->gso_size;
	h->csum_start = L4_OFFSET;
	h->csum_offset = csum_offset;
}
