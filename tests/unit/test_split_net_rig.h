/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtio-net driver for tests: frames numbered and patterned, buffers of any size, one port. */
#ifndef TEST_SPLIT_NET_RIG_H
#define TEST_SPLIT_NET_RIG_H

#include "tests/unit/test_backend_rig.h"

#define TX_SLOTS  32u
#define TX_BYTES  (12 + 66000u)
#define RX_MAX    256u
#define PAIRS_MAX 2u
#define RXQ(p)    (2 * (p))
#define TXQ(p)    (2 * (p) + 1)

enum {
	F_CSUM = 0,
	F_GUEST_CSUM = 1,
	F_MTU = 3,
	F_GUEST_TSO4 = 7,
	F_HOST_TSO4 = 11,
	F_MRG = 15,
	F_CTRL = 17,
	F_MQ = 22,
};

struct card {
	struct rig r;
	struct net_port *port;
	struct split_net_options o;
	uint32_t queue_size;
	uint64_t tx[PAIRS_MAX], rx[PAIRS_MAX], ctrl;
	bool tx_busy[PAIRS_MAX][TX_SLOTS];
	uint32_t rx_size, rx_count;
	uint64_t sent[PAIRS_MAX], got[PAIRS_MAX];
	/* a frame being put together */
	uint8_t frame[70000];
	struct net_vnet_hdr hdr;
	uint32_t frame_len;
	unsigned buffers_left;
	uint32_t seed;
};

static inline uint32_t card_rnd(struct card *c, uint32_t below)
{
	c->seed = c->seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(c->seed >> 8) * below >> 24);
}

static inline void card_create(struct card *c)
{
	char why[BACKEND_WHY_MAX] = "";

	c->o.port = c->port;
	c->o.queue_size = c->queue_size;
	c->o.ring = c->r.layout == RING_PACKED ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
	c->o.no_event_idx = !c->r.features.event_idx;
	c->o.no_indirect = !c->r.features.indirect;
	c->o.in_order = c->r.features.in_order;
	if (!c->o.pairs)
		c->o.pairs = 1;
	memcpy(c->o.mac, "\x02\0\0\0\0\x09", 6);
	CU_ASSERT_EQUAL_FATAL(
		split_net_create(&c->r.dev, c->r.io, &c->r.mem, &c->r.signal, &c->o, why), 0);
}

static inline void card_open(
	struct card *c, struct net_port *port, bool no_uring, uint32_t poll_us, unsigned bits)
{
	memset(c, 0, sizeof(*c));
	c->seed = 4711;
	c->port = port;
	c->queue_size = 64;
	rig_open(&c->r, no_uring, poll_us, 24u << 20);
	c->r.layout = bits & 8 ? RING_PACKED : RING_SPLIT;
	c->r.features = (struct ring_features){bits & 1, bits & 2, bits & 4};
}

/* Memory, device, features, queues. Buffers of rx_size, not yet given. */
static inline void card_start(struct card *c, uint32_t rx_size, uint64_t without)
{
	c->rx_size = rx_size;
	card_create(c);
	CU_ASSERT_EQUAL_FATAL(split_features_set(c->r.dev, c->r.dev->features & ~without), 0);
	for (unsigned p = 0; p < c->o.pairs; p++) {
		c->tx[p] = rig_alloc(&c->r, TX_SLOTS * TX_BYTES, 4096);
		c->rx[p] = rig_alloc(&c->r, (size_t)RX_MAX * rx_size, 4096);
		rig_queue_init(&c->r, RXQ(p), c->queue_size);
		rig_queue_init(&c->r, TXQ(p), c->queue_size);
		c->r.q[TXQ(p)].silent = true;
		rig_queue_start(&c->r, RXQ(p));
		rig_queue_start(&c->r, TXQ(p));
	}
	if (c->o.pairs > 1) {
		c->ctrl = rig_alloc(&c->r, 64, 64);
		rig_queue_init(&c->r, 2 * c->o.pairs, 8);
		rig_queue_start(&c->r, 2 * c->o.pairs);
	}
}

static inline void card_close(struct card *c)
{
	rig_close(&c->r);
	net_port_close(c->port);
}

/* ------------------------------------------------------------------ frames */

static inline void frame_fill(uint8_t *f, uint32_t len, uint64_t number, unsigned pair)
{
	memset(f, 0xff, 6);
	memset(f + 6, 0x02, 6);
	f[12] = 0x88;
	f[13] = 0xb5;
	for (uint32_t i = 14; i < len; i++)
		f[i] = (uint8_t)(number * 31 + i * 7 + (i >> 8) + pair * 101);
}

static inline uint32_t frame_len(struct card *c, uint64_t number)
{
	(void)c;
	return 14 + (uint32_t)(number * 2654435761u >> 8) % 1501;
}

/* Gives the driver's buffer i to the device. False: no room in the queue. */
static inline bool card_rx_post(struct card *c, unsigned p, unsigned i)
{
	uint64_t gpa = c->rx[p] + (uint64_t)i * c->rx_size;
	struct ring_sg sg[3] = {{gpa, c->rx_size}};
	unsigned n = 1;

	/* the header may be cut anywhere */
	if (c->r.features.indirect && i % 3) {
		sg[0].len = i % 11 + 1;
		sg[1] = (struct ring_sg){gpa + sg[0].len, c->rx_size - sg[0].len};
		n = 2;
	}
	memset(rig_host(&c->r, gpa), 0xcc, c->rx_size);
	return !ring_driver_add(&c->r.q[RXQ(p)].drv, sg, 0, n, i);
}

static inline void card_rx_fill(struct card *c, unsigned p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!card_rx_post(c, p, i))
			break;
	rig_kick(&c->r, RXQ(p));
}

static inline int card_tx_free(struct card *c, unsigned p)
{
	struct ring_done done[TX_SLOTS] = {0};
	int n = ring_driver_collect(&c->r.q[TXQ(p)].drv, done, TX_SLOTS);

	CU_ASSERT_FATAL(n >= 0);
	for (int i = 0; i < n; i++)
		c->tx_busy[p][done[i].token] = false;
	for (unsigned i = 0; i < TX_SLOTS; i++)
		if (!c->tx_busy[p][i])
			return (int)i;
	return -1;
}

/* Queues a frame (in c->tx slot memory already, behind 12 bytes of header). */
static inline bool card_tx_queue(
	struct card *c, unsigned p, unsigned slot, const struct net_vnet_hdr *hdr, uint32_t len)
{
	uint64_t gpa = c->tx[p] + slot * TX_BYTES;
	struct ring_sg sg[8];
	unsigned n = 0, pieces = c->r.features.indirect ? 6 : 2;
	uint32_t left = len + 12;

	memcpy(rig_host(&c->r, gpa), hdr, 12);
	while (left) {
		uint32_t part = n + 1 < pieces && left > 1 ? 1 + card_rnd(c, left) : left;

		sg[n++] = (struct ring_sg){gpa, part};
		gpa += part;
		left -= part;
	}
	if (ring_driver_add(&c->r.q[TXQ(p)].drv, sg, n, 0, slot))
		return false;
	c->tx_busy[p][slot] = true;
	return true;
}

/* As many numbered frames as go, up to `most`. */
static inline unsigned card_tx_some(struct card *c, unsigned p, unsigned most)
{
	static const struct net_vnet_hdr plain;
	unsigned n = 0;
	int slot;

	while (n < most && (slot = card_tx_free(c, p)) >= 0) {
		uint32_t len = frame_len(c, c->sent[p]);

		frame_fill((uint8_t *)rig_host(&c->r, c->tx[p] + (unsigned)slot * TX_BYTES) + 12,
			len, c->sent[p], p);
		if (!card_tx_queue(c, p, (unsigned)slot, &plain, len))
			break;
		c->sent[p]++;
		n++;
	}
	if (n)
		rig_kick(&c->r, TXQ(p));
	return n;
}

/* Takes one used receive buffer into the frame being put together; true: the frame is complete. */
static inline bool card_rx_take(struct card *c, unsigned p, const struct ring_done *d)
{
	uint8_t *b = rig_host(&c->r, c->rx[p] + d->token * c->rx_size);
	uint32_t skip = 0;

	CU_ASSERT_FATAL(d->len > 0 && d->len <= c->rx_size);
	if (!c->buffers_left) {
		CU_ASSERT_FATAL(d->len >= 12);
		memcpy(&c->hdr, b, 12);
		c->buffers_left = c->hdr.num_buffers;
		CU_ASSERT_FATAL(c->buffers_left >= 1 && c->buffers_left <= RX_MAX);
		c->frame_len = 0;
		skip = 12;
	}
	CU_ASSERT_FATAL(c->frame_len + d->len - skip <= sizeof(c->frame));
	memcpy(c->frame + c->frame_len, b + skip, d->len - skip);
	c->frame_len += d->len - skip;
	/* nothing behind what the device says it wrote */
	if (d->len < c->rx_size)
		CU_ASSERT_EQUAL(b[d->len], 0xcc);
	return !--c->buffers_left;
}

static inline void card_frame_check(struct card *c, unsigned p)
{
	static uint8_t want[70000];
	uint32_t len = frame_len(c, c->got[p]);

	frame_fill(want, len, c->got[p], p);
	CU_ASSERT_EQUAL(c->frame_len, len);
	CU_ASSERT_EQUAL(memcmp(want, c->frame, len), 0);
	CU_ASSERT_EQUAL(c->hdr.flags, 0);
	CU_ASSERT_EQUAL(c->hdr.gso_type, 0);
	c->got[p]++;
}

/* Waits for buffers, checks frames, gives the buffers again. */
static inline void card_rx_some(struct card *c, unsigned p)
{
	struct ring_done done[32] = {0};
	unsigned n = rig_wait(&c->r, RXQ(p), done, 32);

	CU_ASSERT_FATAL(n > 0);
	for (unsigned i = 0; i < n; i++) {
		if (card_rx_take(c, p, &done[i]))
			card_frame_check(c, p);
		CU_ASSERT(card_rx_post(c, p, (unsigned)done[i].token));
	}
	rig_kick(&c->r, RXQ(p));
}

static inline struct net_port *mem_port(enum net_mem_kind kind, unsigned queues)
{
	struct net_mem_options o = {.kind = kind, .queues = queues};
	struct net_port *port = NULL;
	char why[NET_WHY_MAX];

	CU_ASSERT_EQUAL_FATAL(net_mem_open(&port, &o, why), 0);
	return port;
}

/* Out and back through an echo, a window of frames on the way. */
static inline void card_echo(struct card *c, unsigned p, unsigned frames, unsigned window)
{
	uint64_t end = c->sent[p] + frames;

	while (c->got[p] < end) {
		uint64_t flying = c->sent[p] - c->got[p];
		uint64_t more = end - c->sent[p];

		if (flying < window && more)
			card_tx_some(
				c, p, (unsigned)(more < window - flying ? more : window - flying));
		card_rx_some(c, p);
	}
}

#endif
