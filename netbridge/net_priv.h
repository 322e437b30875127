/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kinds of port share. A new kind (an ethdev, a switch's port) is one more struct net_ops
 * and one more opening function; nothing else in the folder has to know it.
 */
#ifndef NET_PRIV_H
#define NET_PRIV_H

#include "netbridge/netbridge.h"

#include <stdatomic.h>

#define NET_CACHE_LINE 64u
#define NET_LEND_MAX   64u

#define NET_OFFLOAD_ALL                                                                            \
	(NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN |                \
		NET_OFFLOAD_UFO | NET_OFFLOAD_USO)

/*
 * A kind of port. Called with a queue below net_port.in_use (as it was a moment ago). NULL members:
 * no descriptor, nothing more to do.
 */
struct net_ops {
	const char *kind;
	unsigned (*send)(
		struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n);
	unsigned (*receive)(
		struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n);
	/*
	 * Without a copy: up to n received frames (at most NET_LEND_MAX) where the port has them,
	 * one segment each. They are read only, and good until lent_back(), which comes before the
	 * next lend(). A port of the same kind may know them by lender and owner, and send them on
	 * as they are. NULL: it lends none.
	 */
	unsigned (*lend)(struct net_port *port, unsigned queue, struct net_packet *pkts,
		struct iovec *segs, unsigned n);
	void (*lent_back)(struct net_port *port, unsigned queue);
	int (*fd)(const struct net_port *port, unsigned queue);
	int (*tx_fd)(const struct net_port *port, unsigned queue);
	bool (*rx_ready)(const struct net_port *port, unsigned queue);
	bool (*link)(struct net_port *port); /* with link_fd; NULL: always up */
	int (*link_fd)(const struct net_port *port);
	int (*offloads_set)(struct net_port *port, uint32_t offloads);
	int (*queues_set)(struct net_port *port, unsigned queues); /* stores in_use itself */
	void (*taker_set)(struct net_port *port, unsigned queue, const struct net_taker *taker);
	/* adds what was counted elsewhere than in the port's queues; any thread */
	void (*counters_add)(const struct net_port *port, struct net_counters *sum);
	void (*close)(struct net_port *port); /* frees the port */
};

/* One writer, the queue's thread; read by anybody. */
struct net_queue_counters {
	_Alignas(NET_CACHE_LINE) struct net_counters c;
};

/* The first member of each kind's own structure. */
struct net_port {
	const struct net_ops *ops;
	unsigned queues;
	uint32_t offloads; /* offered */
	_Atomic uint32_t accepted;
	_Atomic unsigned in_use;
	struct net_queue_counters counters[NET_QUEUES_MAX];
};

/* Zeroed and aligned for struct net_port; free() frees it. NULL: no memory. */
void *net_port_alloc(size_t size);
void net_port_init(
	struct net_port *port, const struct net_ops *ops, unsigned queues, uint32_t offloads);

/* Writes why (printf-like) and returns err, for `return net_why(why, -EINVAL, ...)`. */
int net_why(char why[NET_WHY_MAX], int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static inline void net_count(uint64_t *counter, uint64_t n)
{
	/* A plain addition for the one writer, without tearing for the readers. */
	__atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline void net_packet_done(struct net_packet *pkt)
{
	if (pkt->release)
		pkt->release(pkt);
}

/* Takes all n packets and drops them. Returns n. */
unsigned net_packets_drop(struct net_counters *c, struct net_packet *const *pkts, unsigned n);

/* ------------------------------------------------------------------ bytes and segments */

/* Copies up to len bytes out of the segments; how many there were. */
uint32_t net_segs_gather(void *to, uint32_t len, const struct iovec *segs, uint32_t nsegs);

/* Copies len bytes into the segments from byte `at` on; how many fitted. */
uint32_t net_segs_scatter(
	const struct iovec *segs, uint32_t nsegs, uint32_t at, const void *from, uint32_t len);

static inline uint16_t net_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void net_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline uint32_t net_get32(const uint8_t *p)
{
	return (uint32_t)net_get16(p) << 16 | net_get16(p + 2);
}

static inline void net_put32(uint8_t *p, uint32_t v)
{
	net_put16(p, (uint16_t)(v >> 16));
	net_put16(p + 2, (uint16_t)v);
}

/*
 * The Internet checksum's sum (RFC 1071) of len bytes in memory order, folded to 16 bits:
 * complemented and stored with memcpy it is the checksum. A piece at an odd offset is to be swapped
 * before adding.
 */
uint16_t net_sum(const void *data, size_t len);
uint16_t net_sum_add(uint16_t a, uint16_t b);

/* ------------------------------------------------------------------ vnet header */

/* Offloads a receiver must have accepted to be given a frame with this header. */
uint32_t net_hdr_offloads(const struct net_vnet_hdr *hdr);

/* Does the header fit a frame of len bytes, and is it of a type known? -EINVAL: no. */
int net_hdr_check(const struct net_vnet_hdr *hdr, uint32_t len);

/* ------------------------------------------------------------------ segmentation */

#define NET_SEGMENT_HEADERS_MAX 256u
/* What a link with the smallest IPv4 MTU (RFC 791: 68) would carry; smaller sizes only multiply
 * frames. */
#define NET_SEGMENT_SIZE_MIN 28u

struct net_segmenter {
	const uint8_t *frame;
	uint32_t len;
	uint32_t at; /* payload given so far ends here */
	uint16_t l3, l4, headers;
	uint16_t size;
	uint16_t index;
	bool v6, udp, more;
};

/* One segment: its headers, built here, and its payload, in the frame. */
struct net_segment {
	uint32_t headers_len, payload_len;
	const uint8_t *payload;
	uint8_t headers[NET_SEGMENT_HEADERS_MAX];
};

/*
 * Begins to cut a TCPv4, TCPv6 or UDP (USO) frame, contiguous, into frames of at most headers +
 * gso_size. The frame must stay as it is until the last segment. -EINVAL: not such a frame.
 */
int net_segment_begin(struct net_segmenter *s, const uint8_t *frame, uint32_t len,
	const struct net_vnet_hdr *hdr);

/* Builds the next segment, checksums finished. false: there is none. */
bool net_segment_next(struct net_segmenter *s, struct net_segment *out);

/* ------------------------------------------------------------------ queue of frames */

#define NET_FIFO_BYTES (2u << 20)
#define NET_FIFO_NOTE  12u

/*
 * A queue of copied frames in a ring of bytes: one producer, one consumer, no lock. Pages are
 * touched as they are first used. Positions only grow; a frame is never split over the end.
 */
struct net_fifo {
	_Alignas(NET_CACHE_LINE) _Atomic uint64_t head; /* producer: frames up to here are ready */
	uint64_t stage;                                 /* producer: pushed, not yet published */
	uint64_t tail_seen;
	_Alignas(NET_CACHE_LINE) _Atomic uint64_t tail; /* consumer: room up to here is free */
	bool segmenting;
	struct net_segmenter seg; /* consumer: of the frame at tail */
	_Alignas(NET_CACHE_LINE) uint8_t *base;
};

int net_fifo_init(struct net_fifo *f);
void net_fifo_destroy(struct net_fifo *f);

/* Copies the frame in. -ENOSPC: no room now. -EINVAL: never (length, header); drop it. */
int net_fifo_push(struct net_fifo *f, const struct net_packet *pkt, uint32_t offloads);

/* The same with a note for the consumer. */
int net_fifo_push_note(struct net_fifo *f, const struct net_packet *pkt, uint32_t offloads,
	const uint8_t note[NET_FIFO_NOTE]);

/* Makes what was pushed visible; sequentially consistent, so that a look at a flag may follow. */
void net_fifo_publish(struct net_fifo *f);

/* Takes up to n frames out, finishing in software what is not in `accepted`, counting in c (rx_*).
 */
unsigned net_fifo_receive(struct net_fifo *f, uint32_t accepted, struct net_buffer *bufs,
	unsigned n, struct net_counters *c);

/*
 * Instead of receiving: up to n frames as they lie in the queue, as packets of one segment each,
 * and their notes (NULL: not wanted). They are good until net_fifo_skip(), which takes the first n
 * of them out.
 */
unsigned net_fifo_peek(struct net_fifo *f, struct net_packet *pkts, struct iovec *segs,
	const uint8_t **notes, unsigned n);
void net_fifo_skip(struct net_fifo *f, unsigned n);

bool net_fifo_ready(const struct net_fifo *f);
uint64_t net_fifo_used(const struct net_fifo *f);

/* Consumer: forgets everything published. */
void net_fifo_drain(struct net_fifo *f);

/* When empty, begins at the ring's start again: memory stays warm. Only where producer and consumer
 * are the same thread. */
void net_fifo_rewind(struct net_fifo *f);

#endif
