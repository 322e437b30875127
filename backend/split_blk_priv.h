/* SPDX-License-Identifier: BSD-2-Clause */
/* The two files of virtio-blk. Everything here runs on the I/O thread unless said otherwise. */
#ifndef SPLIT_BLK_PRIV_H
#define SPLIT_BLK_PRIV_H

#include "backend/backend.h"

#define VBLK_SEG_MAX           126u
#define VBLK_CHAIN_MAX         (VBLK_SEG_MAX + 2) /* and header and status */
#define VBLK_POP_CHAINS        32u
#define VBLK_POP_SEGS          512u
#define VBLK_RANGES_MAX        16u
#define VBLK_RANGE_SECTORS_MAX (1u << 22) /* 2 GiB */
#define VBLK_SERIAL            20u

/* 5.2.3 */
enum {
	VIRTIO_BLK_F_SEG_MAX = 2,
	VIRTIO_BLK_F_GEOMETRY = 4,
	VIRTIO_BLK_F_RO = 5,
	VIRTIO_BLK_F_BLK_SIZE = 6,
	VIRTIO_BLK_F_FLUSH = 9,
	VIRTIO_BLK_F_TOPOLOGY = 10,
	VIRTIO_BLK_F_CONFIG_WCE = 11,
	VIRTIO_BLK_F_MQ = 12,
	VIRTIO_BLK_F_DISCARD = 13,
	VIRTIO_BLK_F_WRITE_ZEROES = 14,
};

/* 5.2.6.  A discard or write zeroes range as the driver lays it out. */
struct vblk_range {
	uint64_t sector;
	uint32_t nsectors;
	uint32_t flags;
};

struct vblk;
struct vblk_queue;

struct vblk_request {
	struct blk_request blk;
	struct vblk_queue *vq;
	struct vblk_request *next;
	uint8_t *status; /* in guest memory, checked */
	uint64_t started_ns;
	uint32_t used_ok;    /* bytes written when it succeeds */
	uint32_t used_error; /* ... when it fails */
	uint16_t id;
	uint8_t nranges;
	uint8_t range;
	bool flush_after; /* a write-through disk's write */
	union {
		struct iovec iov[VBLK_CHAIN_MAX];
		struct vblk_range ranges[VBLK_RANGES_MAX];
	};
};

struct vblk_queue {
	struct vblk *device;
	struct split_queue *q;
	struct vblk_request *requests;
	struct vblk_request *free;
	uint32_t size;
	uint32_t fresh; /* requests[fresh..] were never used */
	uint32_t busy;
	uint32_t nused; /* gathered since the last batch_end */
	struct ring_used *used;
};

struct vblk {
	struct split_device common;
	struct blk_channel *channel;
	struct io_watch watch; /* of a channel with a descriptor of its own */
	bool shared_ring;
	bool readable; /* the channel's descriptor has woken us */
	struct blk_info info;
	uint64_t sectors;
	atomic_bool wce; /* also a vCPU thread's, through the configuration space */
	char serial[VBLK_SERIAL];
	struct vblk_queue *vqs;
	uint32_t inflight;
	bool finished;   /* something to push */
	uint64_t now_ns; /* read once for a batch of completions */
	uint64_t channel_calls;
	struct ring_chain chains[VBLK_POP_CHAINS];
	struct ring_seg segs[VBLK_POP_SEGS];
};

/* Checks a popped request and starts it, or completes it with an error. */
void vblk_request_start(struct vblk *v, struct vblk_request *r, const struct ring_chain *chain);

#endif
