/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The switch's own. Three kinds of thread meet here:
 * - a worker forwards: from its ports' senders through switch_forward.c to ports of its own, or
 *   through a queue of frames to the worker whose port it is. Everything of a port but `conf` and
 *   `closed` is its worker's.
 * - whoever adds, changes or removes ports holds `control`, publishes a pointer, and waits until
 *   every worker has begun another round before it frees what was there. Workers take no lock.
 * - readers of counters hold `control`, too, so that ports stay.
 */
#ifndef SWITCH_PRIV_H
#define SWITCH_PRIV_H

#include <pthread.h>

#include "netbridge/net_priv.h"

#define SWITCH_BATCH 64u
/* The segments of what virtio-net sends at once, and a head for each frame. */
#define SWITCH_SEGS 2048u
/* What waits for a port whose user does not take it: 2 ms at 1 Gbit/s. */
#define SWITCH_BACKLOG_BYTES (256u << 10)
#define SWITCH_VLAN_TAG      4u
#define SWITCH_ADDRS         12u /* both addresses */
#define SWITCH_HEAD          18u /* addresses, a tag, the type */
#define SWITCH_OFFLOADS      (NET_OFFLOAD_ALL & ~(uint32_t)NET_OFFLOAD_UFO)

enum { SWITCH_FLOOD = 0xffffu };

/* ------------------------------------------------------------------ addresses (switch_mac.c) */

#define SWITCH_WAYS 4u

/*
 * A bucket is a cache line. A key is address << 12 | VLAN, 0: free. A value is port, the second
 * it was last seen and some bits of the key's hash, so that a value read beside another key's is
 * known for what it is.
 */
struct switch_bucket {
	_Alignas(NET_CACHE_LINE) _Atomic uint64_t key[SWITCH_WAYS];
	_Atomic uint64_t value[SWITCH_WAYS];
};

struct switch_macs {
	struct switch_bucket *buckets;
	uint32_t mask;
	uint32_t ageing_s;
	uint64_t seed[2];
	/* One writer of keys at a time: a worker that finds it taken learns with a later frame. */
	_Alignas(NET_CACHE_LINE) atomic_flag writing;
	uint32_t sweep;
	uint32_t learnt[NET_SWITCH_PORTS_MAX];
	/* Changes with every key or port that changes: what was looked up before is void. */
	_Alignas(NET_CACHE_LINE) _Atomic uint64_t generation;
};

int switch_macs_init(struct switch_macs *m, unsigned macs, unsigned ageing_s);
void switch_macs_fini(struct switch_macs *m);
/* The port, or SWITCH_FLOOD: not known. Workers. */
unsigned switch_macs_find(const struct switch_macs *m, uint64_t key, uint32_t now_s);
/* Never waits. Workers. */
void switch_macs_learn(struct switch_macs *m, uint64_t key, unsigned port, uint32_t now_s);
/* Frees some entries that are too old. Workers. */
void switch_macs_sweep(struct switch_macs *m, uint32_t now_s);
/* Of one port, or SWITCH_FLOOD: of all. Any thread but a worker's. */
void switch_macs_forget(struct switch_macs *m, unsigned port);
/* How many are known; out (NULL: none) gets up to max of them as key, port and age. */
struct switch_mac_seen {
	uint64_t key;
	unsigned port;
	uint32_t age_s;
};
unsigned switch_macs_list(
	struct switch_macs *m, uint32_t now_s, struct switch_mac_seen *out, unsigned max);

static inline uint64_t switch_key(const uint8_t *mac, uint16_t vlan)
{
	return ((uint64_t)net_get16(mac) << 32 | net_get32(mac + 2)) << 12 | vlan;
}

/* ------------------------------------------------------------------ rates (switch_rate.c) */

/* Tokens in bytes and frames, each in 1 / 10^9. */
struct switch_tokens {
	uint64_t at_ns;
	uint64_t bytes, frames;
};

/* Takes the tokens of one frame; false: it is over. */
bool switch_rate_take(
	struct switch_tokens *t, const struct net_switch_rate *rate, uint64_t now_ns, uint32_t len);

static inline bool switch_rate_set(const struct net_switch_rate *r)
{
	return r->bytes_per_s || r->frames_per_s;
}

/* ------------------------------------------------------------------ ports */

struct switch_worker;

/* What is changed while frames flow: replaced as a whole. */
struct switch_conf {
	struct net_switch_port_options o;
	bool all_vlans;
};

struct switch_queue {
	_Alignas(NET_CACHE_LINE) struct net_taker taker; /* offered */
	struct net_fifo fifo;                            /* offered */
	bool hot;                                        /* joined: ask it for frames */
};

/* What was looked up last, good for a generation of the addresses and a second. */
struct switch_last {
	uint64_t generation;
	uint32_t now_s;
	uint64_t source; /* 0: none */
	uint64_t key;    /* 0: none */
	unsigned dest;
};

struct switch_port {
	struct net_port port; /* first; offered: what the device uses */
	struct net_switch *sw;
	struct switch_worker *worker;
	struct net_port *join; /* NULL: offered */
	unsigned index;
	unsigned queues;
	atomic_bool closed; /* offered: by its user */
	_Atomic(struct switch_conf *) conf;
	/* Its worker's from here on; counters are read by anybody. tx: towards the port's user. */
	_Alignas(NET_CACHE_LINE) struct switch_last last;
	struct switch_tokens in, out;
	struct net_counters c;
	uint64_t limited_in, limited_out, filtered, flooded, full;
	struct switch_queue q[NET_QUEUES_MAX];
};

/* ------------------------------------------------------------------ frames */

/*
 * A frame between entering and leaving. Its addresses, tag and type are read once, and what leaves
 * with a tag, or came with one, has these in front: a sender that changes its memory meanwhile
 * changes no decision about VLANs.
 */
struct switch_frame {
	struct net_packet *pkt;
	uint8_t addrs[SWITCH_ADDRS];
	uint8_t type[2];
	uint16_t body; /* where in the packet what follows the type begins */
	uint16_t dest; /* a port's index, SWITCH_FLOOD */
	uint16_t source;
	uint16_t vlan;
	uint16_t tci; /* priority, of a tag that it came with */
	bool isolated;
};

/* Is there work left that somebody who accepts these offloads cannot be given? */
static inline bool switch_work_beyond(const struct net_packet *pkt, uint32_t accepted)
{
	return (pkt->hdr.flags | pkt->hdr.gso_type) && net_hdr_offloads(&pkt->hdr) & ~accepted;
}

/* Which of n are left to be done, a bit each. */
static inline uint64_t switch_all(unsigned n)
{
	return n < 64 ? (1ull << n) - 1 : ~0ull;
}

/* ------------------------------------------------------------------ workers */

struct switch_worker {
	/* read by others */
	_Alignas(NET_CACHE_LINE) _Atomic uint64_t round;
	atomic_bool asleep; /* or never ran */

	/* its own */
	_Alignas(NET_CACHE_LINE) struct net_switch *sw;
	unsigned index;
	int epoll_fd;          /* the descriptors of joined ports */
	_Atomic unsigned nfds; /* in it */
	uint64_t now_ns;
	uint32_t now_s;
	uint64_t looked_ns;
	/* lanes[i]: from worker i; its producer's and its consumer's ends */
	struct net_fifo *lanes;
	uint32_t lanes_touched; /* a bit for each worker that was given frames in this batch */

	/* scratch of one batch */
	struct switch_frame frames[SWITCH_BATCH];
	struct switch_frame *group[SWITCH_BATCH];
	struct net_packet out[SWITCH_BATCH];
	struct net_packet *list[SWITCH_BATCH];
	struct net_packet *flow_list[SWITCH_BATCH];
	uint8_t heads[SWITCH_BATCH][32];
	struct iovec segs[SWITCH_SEGS];
	uint32_t nsegs;
	/* frames that came in: from joined ports, or where they lie in a lane */
	struct net_packet in[SWITCH_BATCH];
	struct net_packet *in_list[SWITCH_BATCH];
	struct iovec in_segs[SWITCH_BATCH];
	struct net_buffer buffers[SWITCH_BATCH];
	uint8_t *memory; /* of the buffers */
	/* work that a joined port cannot be left with */
	struct net_fifo finish;
	uint8_t *finish_memory;
};

struct net_switch {
	struct net_switch_options o;
	pthread_mutex_t control;
	_Atomic(struct switch_port *) ports[NET_SWITCH_PORTS_MAX];
	_Atomic unsigned ports_end; /* indices from here on are empty */
	struct switch_macs macs;
	struct switch_worker *workers;
};

/* Blocks until each worker has left what it was doing, or sleeps. */
void switch_rounds_wait(struct net_switch *sw);

static inline struct switch_port *switch_port_at(const struct net_switch *sw, unsigned index)
{
	return index < NET_SWITCH_PORTS_MAX
		       ? atomic_load_explicit(&sw->ports[index], memory_order_acquire)
		       : NULL;
}

static inline const struct switch_conf *switch_conf(const struct switch_port *p)
{
	return atomic_load_explicit(&p->conf, memory_order_acquire);
}

static inline bool switch_vlan_allowed(const struct switch_conf *c, uint16_t vlan)
{
	return c->all_vlans || c->o.allowed[vlan / 64] >> vlan % 64 & 1;
}

/* ------------------------------------------------------------------ forwarding */

/* Frames that came in at a port, on its worker; they are done with when it returns. */
void switch_forward(struct switch_worker *w, struct switch_port *from,
	struct net_packet *const *pkts, unsigned n);

/* What other workers brought; how many frames. */
unsigned switch_lanes_poll(struct switch_worker *w);
bool switch_lanes_ready(const struct switch_worker *w);

/* switch_egress.c: frames that leave at a port of this worker's, in order. */
void switch_egress(
	struct switch_worker *w, struct switch_port *to, struct switch_frame **frames, unsigned n);

/* switch_join.c */
unsigned switch_join_poll(struct switch_worker *w, struct switch_port *p);
void switch_join_look(struct switch_worker *w);
bool switch_join_ready(const struct switch_port *p);
void switch_join_send(struct switch_worker *w, struct switch_port *to, unsigned queue,
	struct net_packet *const *list, unsigned n);
int switch_join_watch(struct switch_port *p, bool on);

/* switch_port.c: an offered port's struct net_ops. */
extern const struct net_ops switch_offered_ops;

/* A hash of addresses, protocol and ports of what is in an IP packet. */
uint32_t switch_flow_hash(const struct net_packet *pkt);

#endif
