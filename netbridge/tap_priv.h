/* SPDX-License-Identifier: BSD-2-Clause */
/* A tap port: tap_open.c makes it, tap.c moves frames. Facts: Documentation/networking/tuntap.rst,
 * tun(4)'s ioctls. */
#ifndef NET_TAP_PRIV_H
#define NET_TAP_PRIV_H

#include "netbridge/net_priv.h"

#include <net/if.h>

/* UIO_MAXIOV, less the vnet header in front and the spare byte behind. */
#define TAP_IOV_MAX  1024u
#define TAP_SEGS_MAX (TAP_IOV_MAX - 2u)

/* TUNSETOFFLOAD's bits, by number: headers older than the kernel lack the last two (Linux 6.2). */
enum {
	TAP_F_CSUM = 0x01,
	TAP_F_TSO4 = 0x02,
	TAP_F_TSO6 = 0x04,
	TAP_F_TSO_ECN = 0x08,
	TAP_F_UFO = 0x10,
	TAP_F_USO4 = 0x20,
	TAP_F_USO6 = 0x40,
};

struct tap_queue {
	_Alignas(NET_CACHE_LINE) int fd;
	bool gone;      /* the interface was deleted under us; fd is quiet */
	uint8_t *spill; /* NET_FRAME_MAX bytes, for frames finished in software */
	struct iovec iov[TAP_IOV_MAX];
};

struct tap_port {
	struct net_port port; /* first */
	char name[IFNAMSIZ];
	bool vnet;
	int quiet_fd; /* an eventfd nobody writes */
	int link_fd;  /* hears of changes of interfaces; -1: cannot */
	struct tap_queue queue[];
};

static inline struct tap_port *tap_of(const struct net_port *port)
{
	return (struct tap_port *)port;
}

extern const struct net_ops net_tap_ops;

/* tap_link.c. Opening never fails: where the link cannot be known it is up. */
void net_tap_link_open(struct tap_port *t);
bool net_tap_link(struct net_port *port);
int net_tap_link_fd(const struct net_port *port);

/* NET_OFFLOAD_* to TUNSETOFFLOAD's bits. */
unsigned net_tap_offload_bits(uint32_t offloads);

#endif
