/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtio 1.2 as a driver sees it: the numbers, and the logic that needs no machine below it.
 * Private to frontend-drivers/. Nothing here blocks, allocates or keeps state.
 */
#ifndef FRONTEND_VIRTIO_PRIV_H
#define FRONTEND_VIRTIO_PRIV_H

#include "frontend-drivers/frontend.h"
#include "ring/ring.h"

/* Device status (2.1) */
#define VIRTIO_S_ACKNOWLEDGE 1u
#define VIRTIO_S_DRIVER      2u
#define VIRTIO_S_DRIVER_OK   4u
#define VIRTIO_S_FEATURES_OK 8u
#define VIRTIO_S_NEEDS_RESET 64u
#define VIRTIO_S_FAILED      128u

/* Reserved feature bits (6) */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32
#define VIRTIO_F_RING_PACKED   34
#define VIRTIO_F_IN_ORDER      35

/* Network device (5.1.3) */
#define VIRTIO_NET_F_CSUM       0
#define VIRTIO_NET_F_GUEST_CSUM 1
#define VIRTIO_NET_F_MAC        5
#define VIRTIO_NET_F_GUEST_TSO4 7
#define VIRTIO_NET_F_HOST_TSO4  11
#define VIRTIO_NET_F_MRG_RXBUF  15
#define VIRTIO_NET_F_CTRL_VQ    17
#define VIRTIO_NET_F_MQ         22
#define VIRTIO_NET_F_HOST_USO   56

/* Block device (5.2.3) */
#define VIRTIO_BLK_F_RO           5
#define VIRTIO_BLK_F_FLUSH        9
#define VIRTIO_BLK_F_MQ           12
#define VIRTIO_BLK_F_DISCARD      13
#define VIRTIO_BLK_F_WRITE_ZEROES 14

/* Device types (5) */
#define VIRTIO_NET_TYPE 1u
#define VIRTIO_BLK_TYPE 2u

#define VIRTIO_BIT(n) (1ull << (n))

/* The common configuration structure (4.1.4.3), by offset. */
enum virtio_common {
	VIRTIO_C_DEVICE_FEATURE_SELECT = 0,
	VIRTIO_C_DEVICE_FEATURE = 4,
	VIRTIO_C_DRIVER_FEATURE_SELECT = 8,
	VIRTIO_C_DRIVER_FEATURE = 12,
	VIRTIO_C_CONFIG_VECTOR = 16,
	VIRTIO_C_NUM_QUEUES = 18,
	VIRTIO_C_STATUS = 20,
	VIRTIO_C_QUEUE_SELECT = 22,
	VIRTIO_C_QUEUE_SIZE = 24,
	VIRTIO_C_QUEUE_VECTOR = 26,
	VIRTIO_C_QUEUE_ENABLE = 28,
	VIRTIO_C_QUEUE_NOTIFY_OFF = 30,
	VIRTIO_C_QUEUE_DESC = 32,
	VIRTIO_C_QUEUE_DRIVER = 40,
	VIRTIO_C_QUEUE_DEVICE = 48,
};

/* ------------------------------------------------------------------ block requests (5.2.6) */

enum {
	VIRTIO_BLK_T_IN,
	VIRTIO_BLK_T_OUT,
	VIRTIO_BLK_T_FLUSH = 4,
	VIRTIO_BLK_T_GET_ID = 8,
	VIRTIO_BLK_T_DISCARD = 11,
	VIRTIO_BLK_T_WRITE_ZEROES = 13
};

#define VIRTIO_BLK_S_OK     0u
#define VIRTIO_BLK_S_IOERR  1u
#define VIRTIO_BLK_S_UNSUPP 2u
/* Not a status of the device's: proves that it wrote one. */
#define VIRTIO_BLK_S_UNSET 0xffu

/* What surrounds the data of one request, in memory the device reaches. 64 bytes: no false sharing.
 */
struct virtio_blk_frame {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
	uint64_t range_sector; /* discard and write zeroes take one range */
	uint32_t range_sectors;
	uint32_t range_flags;
	uint8_t status;
	uint8_t pad[31];
};

/*
 * Fills `f` and the segments of one request: sg[0 .. *nout) for the device to read, then *nin to
 * write. Four segments at most. -GUEST_ENOTSUP: no such operation; -GUEST_EINVAL: a length it
 * cannot have.
 */
int virtio_blk_request(struct virtio_blk_frame *f, enum frontend_blk_op op, uint64_t sector,
	void *buf, uint32_t bytes, struct ring_sg *sg, uint32_t *nout, uint32_t *nin);
/* 0 or -GUEST_E* for the status byte of a completed request. */
int virtio_blk_status(const struct virtio_blk_frame *f);

/* ------------------------------------------------------------------ network headers (5.1.6) */

#define VIRTIO_NET_HDR_F_NEEDS_CSUM 1u
#define VIRTIO_NET_HDR_GSO_TCPV4    1u
#define VIRTIO_NET_HDR_GSO_UDP_L4   5u

struct virtio_net_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
};

/* The header of one frame to send. For segmentation, also completes the frame's own sum over the
 * pseudo header. */
void virtio_net_header(struct virtio_net_hdr *h, const struct frontend_net_tx *tx);

/* ------------------------------------------------------------------ features */

/* The ring features among `options` that a driver wants, as feature bits. */
uint64_t virtio_ring_features(const struct frontend_virtio_options *o);

/* `features` without those whose prerequisites are missing from it, for a device type (5.1.3.1). */
uint64_t virtio_features_prune(uint64_t features, unsigned type);

/* ------------------------------------------------------------------ checksums */

/* Sum of 16-bit big-endian words, folded, not complemented. */
uint16_t net_sum16(const uint8_t *p, size_t n, uint32_t sum);
/* The IPv4 pseudo header's sum over addresses, protocol and `l4_len` (0: leave the length out). */
uint16_t net_pseudo_sum(const uint8_t *ip, uint32_t l4_len);

static inline void net_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

#endif
