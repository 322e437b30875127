/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Network ports behind one burst interface. This is the only header of netbridge/ that other
 * folders include; it knows no guest, no ring and no device.
 *
 * A packet is the same thing everywhere between ring and wire: segments, a vnet header that says
 * what checksum and segmentation work is still to do, and an owner with a release function.
 *
 * Threads: one queue of a port is used by one thread at a time; different queues by different
 * threads. Nothing here blocks.
 * Errors: 0 or a count, or -errno. Units: bytes.
 */
#ifndef NETBRIDGE_H
#define NETBRIDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define NET_WHY_MAX    256u
#define NET_FRAME_MIN  14u
#define NET_FRAME_MTU  1514u  /* Ethernet header and 1,500 bytes, without FCS */
#define NET_FRAME_MAX  65550u /* the largest a segmentation offload hands over */
#define NET_QUEUES_MAX 16u

/* virtio 1.2, 5.1.6: struct virtio_net_hdr, little-endian, as taps take it (12 bytes with
 * num_buffers). */
struct net_vnet_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
};

enum {
	NET_HDR_F_NEEDS_CSUM = 1,
	NET_HDR_F_DATA_VALID = 2,
	NET_GSO_NONE = 0,
	NET_GSO_TCPV4 = 1,
	NET_GSO_UDP = 3,
	NET_GSO_TCPV6 = 4,
	NET_GSO_UDP_L4 = 5,
	NET_GSO_ECN = 0x80,
};

/* What a port can take and give; a bit each. */
enum {
	NET_OFFLOAD_CSUM = 1u << 0,
	NET_OFFLOAD_TSO4 = 1u << 1,
	NET_OFFLOAD_TSO6 = 1u << 2,
	NET_OFFLOAD_ECN = 1u << 3,
	NET_OFFLOAD_UFO = 1u << 4,
	NET_OFFLOAD_USO = 1u << 5,
};

/*
 * A frame. Whoever made it owns segs and what they point at until release() is called, once, by the
 * last holder (from the thread that holds it). release NULL: the memory belongs to the caller of
 * the call that passes it, and is only good for that call.
 */
struct net_packet {
	const struct iovec *segs;
	uint32_t nsegs;
	uint32_t len; /* bytes of frame over all segs */
	struct net_vnet_hdr hdr;
	void (*release)(struct net_packet *pkt);
	void *owner;
	const void *lender; /* the folder's own: whose frame it is while it is lent (net_priv.h) */
};

/* Room for one received frame: filled by the port. */
struct net_buffer {
	const struct iovec *segs;
	uint32_t nsegs;
	uint32_t room;           /* in: bytes over all segs */
	uint32_t len;            /* out: bytes of frame stored */
	struct net_vnet_hdr hdr; /* out */
};

struct net_counters {
	uint64_t tx_packets, tx_bytes, tx_dropped; /* tx: into the port */
	uint64_t rx_packets, rx_bytes,
		rx_dropped; /* rx: out of the port; dropped: too large for the buffer */
	uint64_t system_calls;
	uint64_t errors; /* frames that failed a check hook */
};

struct net_port;

/*
 * Sends up to n packets in order. Returns how many the port took; the others remain the caller's (a
 * full tap: try again when net_port_tx_fd polls writable). A packet taken is copied, or released
 * later through its release(); with release NULL it is always finished with when this returns.
 */
unsigned net_port_send(
	struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n);

/*
 * Receives up to n frames straight into the caller's buffers; how many. A frame longer than its
 * buffer's room is dropped and counted in rx_dropped. hdr.num_buffers is 1: who spreads a frame
 * over more buffers sets it.
 */
unsigned net_port_receive(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n);

/* Polls readable when net_port_receive() has something; -1: the port is polled (in-memory source)
 * and net_port_rx_ready() tells. */
int net_port_fd(const struct net_port *port, unsigned queue);

/*
 * Polls writable when net_port_send() may take more, after it took fewer than it was given; ask
 * anew each time. -1: the port always takes everything (sink, source, echo).
 */
int net_port_tx_fd(const struct net_port *port, unsigned queue);

/* Something to receive right now? For ports without a descriptor; taps answer true (ask the
 * descriptor). */
bool net_port_rx_ready(const struct net_port *port, unsigned queue);

unsigned net_port_queues(const struct net_port *port);
uint32_t net_port_offloads(const struct net_port *port);

/*
 * Tells the port which offloads its user accepts in received frames (NET_OFFLOAD_*), after
 * negotiation. A port that cannot keep frames from being larger or unchecksummed must finish them
 * itself. -ENOTSUP: a bit that net_port_offloads() did not offer.
 */
int net_port_offloads_set(struct net_port *port, uint32_t offloads);

/*
 * Number of queues really in use, 1 .. net_port_queues(), all of them after opening. The others
 * take and drop what is sent and give nothing; a tap detaches them, and the descriptor of a
 * detached queue must not be polled (it would always report an error). Called from any thread; the
 * counters are kept. -EINVAL: out of range.
 */
int net_port_queues_set(struct net_port *port, unsigned queues);

/*
 * Who uses a queue of a port may let the port hand frames over at once, instead of being asked for
 * them: offer() takes up to n packets, in order, copying each before it returns, and says how many;
 * the rest is kept (bounded) for net_port_receive(). Called on the queue's thread only, from
 * whatever that thread calls of netbridge/, never from net_port_receive() itself. Packets may have
 * work left that net_port_offloads_set() did not accept: offer() takes none of those. NULL: no
 * more. Ports that have no use for it ignore it.
 */
struct net_taker {
	unsigned (*offer)(void *ctx, struct net_packet *const *pkts, unsigned n);
	void *ctx;
};
void net_port_taker_set(struct net_port *port, unsigned queue, const struct net_taker *taker);

/*
 * Is the cable in? A tap's link is its interface on the host: `ip link set NAME down` there pulls
 * the cable. Other kinds' always is. While it is out, frames sent are dropped and counted.
 * The descriptor polls readable when the answer may have changed, until it is asked for again; -1:
 * it never changes. One thread at a time; nothing blocks.
 */
bool net_port_link(struct net_port *port);
int net_port_link_fd(const struct net_port *port);

void net_port_counters_get(const struct net_port *port, struct net_counters *out);
const char *net_port_kind(
	const struct net_port *port); /* "tap", "sink", "source", "echo", "pair", "user" */
void net_port_close(struct net_port *port);

/* ------------------------------------------------------------------ tap */

struct net_tap_options {
	const char *name; /* an existing tap, or a name to create (then it goes with the port) */
	const int *fds; /* open tap descriptors instead, one for each queue, taken over on success;
			   NULL: none */
	unsigned nfds;
	unsigned queues; /* 1 .. NET_QUEUES_MAX */
};

/* IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, IFF_MULTI_QUEUE above one queue, 12-byte vnet header,
 * non-blocking. An interface given by descriptor may lack the vnet header: offloads are then 0.
 * An interface that is created is also brought up. -EPERM, -ENOENT (no /dev/net/tun),
 * -ENAMETOOLONG, -EBUSY, -EINVAL: why says what to do. Nothing is left behind after an error. */
int net_tap_open(struct net_port **out, const struct net_tap_options *opts, char why[NET_WHY_MAX]);

/* The interface's name as the kernel has it; NULL: not a tap. Lives as long as the port. */
const char *net_tap_name(const struct net_port *port);

/* ------------------------------------------------------------------ in memory */

enum net_mem_kind {
	NET_MEM_SINK,   /* takes and checks */
	NET_MEM_SOURCE, /* gives frames as fast as they are taken; takes and drops */
	NET_MEM_ECHO,   /* gives back what it took, in order; drops when its queue of frames is full
			 */
};

/* Hooks run on the thread that calls send or receive. All may be NULL. */
struct net_mem_options {
	enum net_mem_kind kind;
	unsigned queues;
	uint32_t frame_len; /* source: length of each frame; default 64 */
	/* sink, source: looks at a frame taken; false counts as an error */
	bool (*check)(void *ctx, unsigned queue, const struct net_packet *pkt);
	/* source: writes a frame into buf (segs, room); its length, 0: none now */
	uint32_t (*fill)(void *ctx, unsigned queue, struct net_buffer *buf);
	void *ctx;
};

int net_mem_open(struct net_port **out, const struct net_mem_options *opts, char why[NET_WHY_MAX]);

/* Two ports joined back to back, each with `queues` queues: what one sends the other receives. Each
 * has an eventfd. */
int net_pair_open(struct net_port **a, struct net_port **b, unsigned queues, char why[NET_WHY_MAX]);

/* ------------------------------------------------------------------ user-mode NAT */

#define NET_USER_FORWARDS_MAX 32u
#define NET_USER_HOSTNAME_MAX 63u

/* A port of the host that leads to one of the guest. Addresses here and below are numbers:
 * 10.0.2.15 is 0x0a00020f. */
struct net_user_forward {
	bool udp;
	uint32_t host; /* the host's address to listen at; 0: all of them */
	uint16_t host_port;
	uint32_t guest; /* 0: dhcp_start, whom DHCP tells first */
	uint16_t guest_port;
};

/* All zero is a good choice: what is 0 or empty gets its default. */
struct net_user_options {
	uint32_t net;        /* 10.0.2.0 */
	unsigned prefix;     /* 24; 8 to 28 */
	uint32_t host;       /* net + 2: the router, and the host's loopback */
	uint32_t dns;        /* net + 3: the host's resolver */
	uint32_t dhcp_start; /* net + 15 (net + 4 in a /28): first of 16 that DHCP gives away */
	char hostname[NET_USER_HOSTNAME_MAX + 1]; /* that DHCP tells the guest; empty: none */
	bool restricted; /* only DHCP, DNS' own address and the forwards: nothing else gets out */
	bool ipv6;       /* also fec0::/64, router advertisements, host fec0::2, DNS fec0::3 */
	struct net_user_forward forwards[NET_USER_FORWARDS_MAX];
	unsigned nforwards;
};

/*
 * A port with one queue behind a NAT router in this process (libslirp, loaded when the first is
 * opened): the guest gets its address by DHCP and reaches what the process may reach by TCP, UDP
 * and ping. Needs no privilege. The router runs on a thread of the port's own; frames cross in
 * bounded queues. Sent frames may have checksum and segmentation work left; received ones never
 * have.
 *
 * Bounds on what a guest can make grow: 1,024 descriptors beyond those open at the time (or fewer,
 * the process's limit less 64, a limit that is raised for it as far as it goes without privilege):
 * then new flows are dropped until others end. Fragments, IP options and what is neither ARP nor
 * TCP, UDP or ICMP over IP are not let in. What is dropped so is counted in tx_dropped; what the
 * router finds wrong, in errors.
 *
 * -EADDRINUSE, -EADDRNOTAVAIL, -EACCES: a forward's address on the host; -EINVAL: as
 * net_user_options_check(); -ELIBACC: no libslirp; -ENOMEM, -EMFILE. why begins with the option's
 * name. Closing waits for the thread.
 */
int net_user_open(
	struct net_port **out, const struct net_user_options *opts, char why[NET_WHY_MAX]);

/* Fills in the defaults. -EINVAL: addresses that do not fit the network; why: "host=...: ...". */
int net_user_options_check(struct net_user_options *opts, char why[NET_WHY_MAX]);

/* "tcp:127.0.0.1:8080-:80", "udp:[ADDRESS]:PORT-[ADDRESS]:PORT". No address of the host is
 * 127.0.0.1; 0.0.0.0 is all. No address of the guest is dhcp_start. -EINVAL: why says what would
 * do. */
int net_user_forward_parse(struct net_user_forward *out, const char *text, char why[NET_WHY_MAX]);

/* The other way; at most 64 bytes with the end. Returns text. */
char *net_user_forward_print(const struct net_user_forward *f, char text[64]);

/* "10.0.2.0/24", "10.0.2.2". -EINVAL: why says what would do. */
int net_user_network_parse(
	uint32_t *net, unsigned *prefix, const char *text, char why[NET_WHY_MAX]);
int net_user_address_parse(uint32_t *out, const char *text, char why[NET_WHY_MAX]);

/* ------------------------------------------------------------------ DPDK */

/*
 * DPDK's environment, once in a process and before anything else of this part. Its threads are not
 * used: a thread of the caller's becomes an lcore with net_dpdk_thread_enter().
 */
struct net_dpdk_options {
	const char *program;     /* argv[0] for messages */
	bool no_huge;            /* without huge pages (slower) */
	unsigned memory_mib;     /* 0: 256 without huge pages, else as needed */
	const char *file_prefix; /* of its run-time files and telemetry socket; NULL: "sluice" */
	bool telemetry;          /* DPDK's telemetry socket */
	const char *const *args; /* more arguments for it, NULL at the end; NULL: none */
};
/* -ENOMEM: no huge pages (why names no_huge); -ENOTSUP, -EALREADY. */
int net_dpdk_init(const struct net_dpdk_options *opts, char why[NET_WHY_MAX]);
void net_dpdk_exit(void);
/*
 * Answers /sluice/ports, /sluice/port,NAME and /sluice/macs on DPDK's telemetry socket from this
 * switch; NULL, before the switch ends: from none. Any thread, DPDK started. -ENOMEM, -EINVAL:
 * DPDK takes no such commands.
 */
struct net_switch;
int net_dpdk_publish(struct net_switch *sw);
/* The calling thread is an lcore from now on; leave before it ends. -ENOMEM: too many. */
int net_dpdk_thread_enter(void);
void net_dpdk_thread_leave(void);

/* A DPDK ethernet device by what its bus calls it: "net_tap0,iface=x", "0000:03:00.0",
 * "net_af_xdp0, iface=eth0". Polled: it has no descriptor. -ENODEV, -EINVAL ... */
int net_dpdk_open(
	struct net_port **out, const char *device, unsigned queues, char why[NET_WHY_MAX]);

/* An AF_XDP socket on an interface (DPDK's af_xdp driver). */
int net_xdp_open(
	struct net_port **out, const char *interface, unsigned queues, char why[NET_WHY_MAX]);

/* ------------------------------------------------------------------ the switch */

/*
 * A learning Ethernet switch (IEEE 802.1Q: filtering database with ageing, flooding, VLANs). It has
 * no thread: frames are forwarded by who brings them, on one of its workers, which are threads of
 * the caller's. A port belongs to one worker. A frame for a port of the same worker is handed over
 * at once, without a copy of its own; for another worker's it is copied into the queue of frames
 * between the two. Workers may be DPDK's lcores, and must be where a joined port is DPDK's; the
 * switch itself knows nothing of it.
 *
 * A port is either joined (an open net_port: tap, ethdev ..., which the switch sends to and its
 * worker receives from) or offered (the switch makes a net_port, and a device uses it like any
 * other: what the device sends enters the switch).
 */
struct net_switch;

#define NET_SWITCH_PORTS_MAX   256u
#define NET_SWITCH_WORKERS_MAX 32u
#define NET_SWITCH_NAME_MAX    31u
#define NET_VLAN_MAX           4094u

struct net_switch_options {
	unsigned workers;  /* 1 .. NET_SWITCH_WORKERS_MAX */
	unsigned macs;     /* entries of the MAC table; 0: 16,384 */
	unsigned ageing_s; /* 0: 300 (802.1Q table 8-3) */
	/* Frames were put into a worker's queue, or it was given a port, while it may sleep: wake
	 * it. Any worker's thread, and those that add ports. */
	void (*wake)(void *ctx, unsigned worker);
	void *ctx;
};

/* -EINVAL, -ENOMEM. */
int net_switch_create(
	struct net_switch **out, const struct net_switch_options *opts, char why[NET_WHY_MAX]);
/* No ports, no worker running. */
void net_switch_destroy(struct net_switch *sw);

/* Every round of a worker's loop, on its thread: takes what other workers brought and receives from
 * its joined ports (those that are due); how many frames. */
unsigned net_switch_poll(struct net_switch *sw, unsigned worker);
/* Before the worker sleeps, on its thread: true: there is work, do not. From then on wake() is
 * called for it until net_switch_awake(). */
bool net_switch_sleep(struct net_switch *sw, unsigned worker);
void net_switch_awake(struct net_switch *sw, unsigned worker);
/* Polls readable when a joined port of this worker's may have frames: ends its sleep. */
int net_switch_fd(const struct net_switch *sw, unsigned worker);

struct net_switch_rate {
	uint64_t bytes_per_s; /* 0: no limit */
	uint64_t frames_per_s;
	uint64_t burst_bytes; /* 0: a tenth of a second's, at least NET_FRAME_MAX */
};

struct net_switch_port_options {
	char name[NET_SWITCH_NAME_MAX + 1]; /* letters, digits, - _ . */
	unsigned worker;
	struct net_port *join; /* taken over on success; NULL: offered */
	unsigned queues;       /* offered: 1 .. NET_QUEUES_MAX; 0: 1 */
	/* 802.1Q: access: untagged frames of one VLAN. Trunk: tagged frames of the VLANs in the
	 * set, and, if native is not 0, untagged ones of that. */
	bool trunk;
	uint16_t vlan;                  /* access: 1 .. 4094, 0: 1; trunk: native, 0: none */
	uint64_t allowed[64];           /* trunk: a bit for each VLAN; all zero: all */
	bool isolated;                  /* nothing to and from other isolated ports */
	struct net_switch_rate in, out; /* policed: what is over is dropped; in: from the port */
};

/*
 * Adds a port; offered: *out is what the device is given (and closes last, before the removal).
 * Blocks for a round of the workers. Any thread that is no worker. -EEXIST, -ENOSPC, -EINVAL.
 */
int net_switch_port_add(struct net_switch *sw, const struct net_switch_port_options *opts,
	struct net_port **out, char why[NET_WHY_MAX]);
/* Its frames in flight are dropped, what it was learnt for is forgotten, a joined port is closed.
 * Blocks for a round of the workers. -ENOENT; -EBUSY: offered, and its user has not closed it. */
int net_switch_port_remove(struct net_switch *sw, const char *name);
/* Changes VLANs, isolation, rates. -ENOENT, -EINVAL. */
int net_switch_port_set(
	struct net_switch *sw, const struct net_switch_port_options *opts, char why[NET_WHY_MAX]);

struct net_switch_port_info {
	struct net_switch_port_options options; /* join NULL */
	const char *kind; /* "vhost-user" is the program's word: "offered", or the join's */
	struct net_counters counters;     /* tx: towards the port's user */
	uint64_t limited_in, limited_out; /* frames dropped by a rate */
	uint64_t filtered;                /* by VLAN or isolation */
	uint64_t flooded;
	uint64_t full; /* the port took no more */
};

struct net_switch_mac {
	uint8_t mac[6];
	uint16_t vlan;
	char port[NET_SWITCH_NAME_MAX + 1];
	uint32_t age_s;
};

/* Any thread. How many there are; up to max are stored. */
unsigned net_switch_ports_get(
	struct net_switch *sw, struct net_switch_port_info *out, unsigned max);
unsigned net_switch_macs_get(struct net_switch *sw, struct net_switch_mac *out, unsigned max);
/* Forgets what was learnt. Any thread. */
void net_switch_macs_flush(struct net_switch *sw);

/* ------------------------------------------------------------------ helpers */

/* Finishes checksum work a receiver did not ask for, in place. -EINVAL: offsets outside the frame.
 */
int net_checksum_finish(struct net_packet *pkt);

#endif
