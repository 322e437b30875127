/* SPDX-License-Identifier: BSD-2-Clause */
/* The files of virtio-net. Everything here runs on the I/O thread unless said otherwise. */
#ifndef SPLIT_NET_PRIV_H
#define SPLIT_NET_PRIV_H

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define VNET_HDR_BYTES  12u /* with num_buffers: always so with VERSION_1 (5.1.6) */
#define VNET_CHAIN_MAX  128u
#define VNET_BATCH      64u
#define VNET_SEGS       1024u
#define VNET_RX_CHAINS  128u
#define VNET_FRAME_VLAN 4u

/* 5.1.3 */
enum {
	VIRTIO_NET_F_CSUM = 0,
	VIRTIO_NET_F_GUEST_CSUM = 1,
	VIRTIO_NET_F_MTU = 3,
	VIRTIO_NET_F_MAC = 5,
	VIRTIO_NET_F_GUEST_TSO4 = 7,
	VIRTIO_NET_F_GUEST_TSO6 = 8,
	VIRTIO_NET_F_GUEST_ECN = 9,
	VIRTIO_NET_F_GUEST_UFO = 10,
	VIRTIO_NET_F_HOST_TSO4 = 11,
	VIRTIO_NET_F_HOST_TSO6 = 12,
	VIRTIO_NET_F_HOST_ECN = 13,
	VIRTIO_NET_F_HOST_UFO = 14,
	VIRTIO_NET_F_MRG_RXBUF = 15,
	VIRTIO_NET_F_STATUS = 16,
	VIRTIO_NET_F_CTRL_VQ = 17,
	VIRTIO_NET_F_MQ = 22,
	VIRTIO_NET_F_GUEST_USO4 = 54,
	VIRTIO_NET_F_GUEST_USO6 = 55,
	VIRTIO_NET_F_HOST_USO = 56,
};

/* Where the header of a received frame goes: pieces of guest memory. */
struct vnet_hdr_place {
	struct ring_seg pieces[VNET_HDR_BYTES];
	uint32_t n;
};

struct vnet;

struct vnet_pair {
	struct vnet *vnet;
	struct split_queue *rxq, *txq;
	struct port_rx rx;
	uint64_t rx_retry_ns;  /* too few buffers for a large frame: not before */
	uint64_t tx_retry_ns;  /* the port was full: not before */
	bool rx_waits_buffers; /* the port has frames, the driver gave no buffers */
	bool rx_roomy;         /* the driver has once offered room for the largest frame */
	uint32_t rx_want;      /* buffers to take at once: follows what the port gives */
	uint64_t rx_backoff_ns;
	struct ring_used rx_used[VNET_RX_CHAINS];
	uint32_t nrx_used;
};

struct vnet {
	struct split_device common;
	struct net_port *port;
	uint8_t mac[6];
	uint16_t mtu;
	unsigned pairs;
	unsigned active;     /* pairs the driver uses */
	bool no_control;     /* whoever serves the control queue, it is not here */
	uint32_t rx_need;    /* room for the largest frame the port may give, with header */
	uint32_t rx_typical; /* the same without segmentation offload */
	uint8_t gso_allowed; /* a bit for each gso_type, 1 << type */
	/* Nothing was negotiated that a sent frame's header could ask for (5.1.6.2.1: it is all
	 * zeroes): it is not read, and its line stays with the driver's processor. */
	bool tx_plain;
	struct vnet_pair *pair;
	struct io_timer retry;
	struct port_link link;
	_Atomic bool link_up; /* also a vCPU thread's, through the configuration space */

	/* scratch of one poll */
	struct ring_chain chains[VNET_RX_CHAINS];
	struct ring_seg segs[VNET_SEGS];
	struct net_packet packets[VNET_BATCH];
	struct net_packet *packet_list[VNET_BATCH];
	uint8_t packet_chain[VNET_BATCH];
	struct ring_used used[VNET_BATCH];
	struct net_buffer buffers[VNET_BATCH];
	struct vnet_hdr_place places[VNET_BATCH];
};

unsigned vnet_tx_poll(struct vnet *v, struct vnet_pair *p);
unsigned vnet_rx_poll(struct vnet *v, struct vnet_pair *p);
void vnet_rx_flush(struct vnet_pair *p);
/* Of struct net_taker, for a pair: frames that the port hands over. */
unsigned vnet_rx_offer(void *ctx, struct net_packet *const *pkts, unsigned n);
int vnet_active_set(struct vnet *v, unsigned pairs);

/* A queue that may be given frames. */
static inline bool vnet_rx_live(const struct vnet_pair *p)
{
	return split_queue_live(p->rxq) && !p->rxq->disabled;
}

/* The control queue of any network device, also of one whose frames another process carries. */
struct vnet_ctrl {
	struct split_device *device;
	unsigned index; /* of the queue */
	unsigned pairs; /* most that there are */
	int (*pairs_set)(struct split_device *d, unsigned pairs);
};
/* Which queue it is (5.1.2): after all pairs there could be with MQ, after the first without; -1:
 * none. */
int vnet_ctrl_index(const struct split_device *d, unsigned pairs);
unsigned vnet_ctrl_poll(const struct vnet_ctrl *c);

#endif
