/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net as its driver sees it, over ports in memory. */
#include "tests/unit/test_split_net_rig.h"

static void test_every_ring(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct card c;

		card_open(&c, mem_port(NET_MEM_ECHO, 1), bits & 16, bits & 1 ? 100 : 0, bits);
		card_start(&c, 2048, 0);
		card_rx_fill(&c, 0, 60);
		card_echo(&c, 0, 300, 16);
		CU_ASSERT_EQUAL(counter_get(&c.r.dev->counters.requests), 600);
		CU_ASSERT_EQUAL(counter_get(&c.r.dev->counters.dropped), 0);
		card_close(&c);
	}
}

static void test_buffers(void)
{
	/* buffer size; features not taken: mergeable or not, with offloads (64 KiB must fit) or not
	 */
	static const uint64_t offloads = 1 << F_GUEST_CSUM | 1 << F_GUEST_TSO4 | 1 << 8 | 1 << 9 |
					 1 << 10 | 1ull << 54 | 1ull << 55;
	static const struct {
		uint32_t size;
		uint64_t without;
	} kinds[] = {
		{64, offloads},
		{257, offloads},
		{1530, offloads},
		{4096, offloads},
		{1530, offloads | 1 << F_MRG},
		{1700, 0},
		{65600, 0},
		{65600, 1 << F_MRG},
		{33000, 0},
	};

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct card c;

		card_open(&c, mem_port(NET_MEM_ECHO, 1), i & 1, 50, i & 1 ? 3 : 8 + 7);
		c.queue_size = 128;
		card_start(&c, kinds[i].size, kinds[i].without);
		card_rx_fill(&c, 0, 100);
		card_echo(&c, 0, 300, 8);
		card_close(&c);
	}
}

/* A frame of 60,000 bytes with its segmentation work, there and back unchanged. */
static void test_gso(void)
{
	for (unsigned bits = 0; bits < 16; bits += 5) {
		static const struct net_vnet_hdr h = {.flags = NET_HDR_F_NEEDS_CSUM,
			.gso_type = NET_GSO_TCPV4,
			.hdr_len = 54,
			.gso_size = 1448,
			.csum_start = 34,
			.csum_offset = 16};
		struct ring_done done[64] = {0};
		struct card c;
		uint8_t *f;

		card_open(&c, mem_port(NET_MEM_ECHO, 1), bits & 1, 0, bits);
		c.queue_size = 128;
		card_start(&c, 2048, 0);
		card_rx_fill(&c, 0, 128);
		for (unsigned n = 0; n < 20; n++) {
			uint32_t len = 60000 + n * 100;
			bool whole = false;
			int slot = card_tx_free(&c, 0);

			CU_ASSERT_FATAL(slot >= 0);
			f = (uint8_t *)rig_host(&c.r, c.tx[0] + (unsigned)slot * TX_BYTES) + 12;
			frame_fill(f, len, n, 0);
			memcpy(f + 12, "\x08\0\x45\0", 4);
			f[16] = (uint8_t)((len - 14) >> 8);
			f[17] = (uint8_t)(len - 14);
			f[23] = 6;
			f[46] = 0x50;
			CU_ASSERT_FATAL(card_tx_queue(&c, 0, (unsigned)slot, &h, len));
			rig_kick(&c.r, TXQ(0));
			while (!whole) {
				unsigned got = rig_wait(&c.r, RXQ(0), done, 64);

				CU_ASSERT_FATAL(got > 0);
				for (unsigned i = 0; i < got; i++) {
					whole = card_rx_take(&c, 0, &done[i]);
					card_rx_post(&c, 0, (unsigned)done[i].token);
				}
				rig_kick(&c.r, RXQ(0));
			}
			CU_ASSERT_EQUAL(c.frame_len, len);
			CU_ASSERT_EQUAL(memcmp(c.frame, f, len), 0);
			CU_ASSERT_EQUAL(c.hdr.gso_type, NET_GSO_TCPV4);
			CU_ASSERT_EQUAL(c.hdr.gso_size, 1448);
			CU_ASSERT_EQUAL(c.hdr.flags, NET_HDR_F_NEEDS_CSUM);
			CU_ASSERT_EQUAL(c.hdr.csum_start, 34);
			CU_ASSERT_EQUAL(c.hdr.num_buffers, (len + 12 + 2047) / 2048);
		}
		card_close(&c);
	}
}

/* ------------------------------------------------------------------ sink, source */

struct order {
	uint64_t next;
};

static bool order_check(void *ctx, unsigned queue, const struct net_packet *pkt)
{
	struct order *o = ctx;
	static uint8_t want[2000], have[2000];
	uint32_t len = frame_len(NULL, o->next), at = 0;

	frame_fill(want, len, o->next++, queue);
	for (uint32_t i = 0; i < pkt->nsegs; i++) {
		if (at + pkt->segs[i].iov_len > sizeof(have))
			return false;
		memcpy(have + at, pkt->segs[i].iov_base, pkt->segs[i].iov_len);
		at += (uint32_t)pkt->segs[i].iov_len;
	}
	return at == len && pkt->len == len && !memcmp(want, have, len);
}

static void test_sink(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct order order = {0};
		struct net_mem_options o = {
			.kind = NET_MEM_SINK, .queues = 1, .check = order_check, .ctx = &order};
		struct net_counters n;
		struct net_port *port;
		char why[NET_WHY_MAX];
		struct card c;

		CU_ASSERT_EQUAL_FATAL(net_mem_open(&port, &o, why), 0);
		card_open(&c, port, i & 1, i & 2 ? 100 : 0, i & 2 ? 3 : 11);
		card_start(&c, 2048, 0);
		for (unsigned k = 0; c.sent[0] < 5000 && k < 10000000; k++)
			card_tx_some(&c, 0, 32);
		for (unsigned k = 0; k < 10000; k++) {
			split_quiesce_wait(c.r.dev); /* only then may `order` be looked at */
			if (order.next == c.sent[0])
				break;
			c.r.q[TXQ(0)].cfg.restore = true;
			split_queue_state_get(c.r.dev, TXQ(0), &c.r.q[TXQ(0)].cfg.state);
			rig_queue_start(&c.r, TXQ(0));
			usleep(1000);
		}
		CU_ASSERT_EQUAL(order.next, c.sent[0]);
		net_port_counters_get(port, &n);
		CU_ASSERT_EQUAL(n.tx_packets, c.sent[0]);
		CU_ASSERT_EQUAL(n.errors, 0);
		CU_ASSERT_EQUAL(counter_get(&c.r.dev->counters.requests), c.sent[0]);
		card_close(&c);
	}
}

static void test_source(void)
{
	struct ring_done done[32] = {0};
	struct card c;
	uint64_t next = 0, seq;

	card_open(&c, mem_port(NET_MEM_SOURCE, 1), false, 50, 3);
	card_start(&c, 1536, 0);
	card_rx_fill(&c, 0, 60);
	while (next < 5000) {
		unsigned n = rig_wait(&c.r, RXQ(0), done, 32);

		CU_ASSERT_FATAL(n > 0);
		for (unsigned i = 0; i < n; i++) {
			CU_ASSERT_FATAL(card_rx_take(&c, 0, &done[i]));
			CU_ASSERT_EQUAL(c.frame_len, 64);
			memcpy(&seq, c.frame + 14, 8);
			CU_ASSERT_EQUAL(seq, next);
			next++;
			card_rx_post(&c, 0, (unsigned)done[i].token);
		}
		rig_kick(&c.r, RXQ(0));
	}
	card_close(&c);
}

/* ------------------------------------------------------------------ several pairs */

static uint8_t control(struct card *c, uint8_t class, uint8_t cmd, uint16_t value, uint32_t len)
{
	unsigned q = 2 * c->o.pairs;
	uint8_t *p = rig_host(&c->r, c->ctrl);
	struct ring_sg sg[2] = {{c->ctrl, len}, {c->ctrl + 32, 1}};
	struct ring_done done;

	p[0] = class;
	p[1] = cmd;
	memcpy(p + 2, &value, 2);
	p[32] = 0xee;
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&c->r.q[q].drv, sg, 1, 1, 7), 0);
	rig_kick(&c->r, q);
	CU_ASSERT_EQUAL_FATAL(rig_wait(&c->r, q, &done, 1), 1);
	CU_ASSERT_EQUAL(done.len, 1);
	return p[32];
}

static void test_pairs(void)
{
	for (unsigned bits = 0; bits < 16; bits += 5) {
		struct card c;

		card_open(&c, mem_port(NET_MEM_ECHO, 2), bits & 1, 20, bits);
		c.o.pairs = 2;
		card_start(&c, 2048, 0);
		card_rx_fill(&c, 0, 60);
		card_rx_fill(&c, 1, 60);
		card_echo(&c, 0, 100, 8);
		CU_ASSERT_EQUAL(control(&c, 4, 0, 2, 4), 0);
		for (unsigned i = 0; i < 10; i++) {
			card_echo(&c, i & 1, 30, 8);
			card_echo(&c, !(i & 1), 30, 8);
		}
		CU_ASSERT_EQUAL(control(&c, 4, 0, 0, 4), 1);
		CU_ASSERT_EQUAL(control(&c, 4, 0, 3, 4), 1);
		CU_ASSERT_EQUAL(control(&c, 4, 1, 1, 4), 1);
		CU_ASSERT_EQUAL(control(&c, 0, 0, 1, 4), 1);
		CU_ASSERT_EQUAL(control(&c, 4, 0, 1, 3), 1);
		CU_ASSERT_EQUAL(control(&c, 4, 0, 1, 1), 1);
		CU_ASSERT_EQUAL(control(&c, 4, 0, 1, 4), 0);
		card_echo(&c, 0, 30, 8);
		card_close(&c);
	}
}

/* ------------------------------------------------------------------ what drivers get wrong */

static uint64_t dropped(struct card *c)
{
	return counter_get(&c->r.dev->counters.dropped);
}

static void tx_one(struct card *c, const struct net_vnet_hdr *h, uint32_t len)
{
	struct ring_done done = {0};

	CU_ASSERT_FATAL(card_tx_queue(c, 0, 0, h, len));
	rig_kick(&c->r, TXQ(0));
	CU_ASSERT_EQUAL_FATAL(rig_wait(&c->r, TXQ(0), &done, 1), 1);
	CU_ASSERT_EQUAL(done.len, 0);
	c->tx_busy[0][0] = false;
}

static void test_bad_frames(void)
{
	struct net_vnet_hdr h = {0};
	struct net_counters n;
	struct card c;

	card_open(&c, mem_port(NET_MEM_SINK, 1), false, 0, 3);
	card_start(&c, 2048, 1ull << 56 | 1 << 14 | 1 << 12 | 1 << 13);
	tx_one(&c, &h, 100);
	CU_ASSERT_EQUAL(dropped(&c), 0);
	tx_one(&c, &h, 13);
	CU_ASSERT_EQUAL(dropped(&c), 1);
	h.flags = NET_HDR_F_NEEDS_CSUM;
	h.csum_start = 99;
	h.csum_offset = 0;
	tx_one(&c, &h, 100);
	CU_ASSERT_EQUAL(dropped(&c), 2);
	h.csum_start = 0xffff;
	h.csum_offset = 0xffff;
	tx_one(&c, &h, 100);
	CU_ASSERT_EQUAL(dropped(&c), 3);
	h.csum_start = 34;
	h.csum_offset = 16;
	tx_one(&c, &h, 100);
	CU_ASSERT_EQUAL(dropped(&c), 3);
	/* segmentation that was not negotiated, of no size, of no kind */
	h.gso_type = NET_GSO_TCPV6;
	h.gso_size = 1000;
	tx_one(&c, &h, 2000);
	CU_ASSERT_EQUAL(dropped(&c), 4);
	h.gso_type = NET_GSO_TCPV4;
	h.gso_size = 0;
	tx_one(&c, &h, 2000);
	CU_ASSERT_EQUAL(dropped(&c), 5);
	h.gso_type = 0x7f;
	h.gso_size = 1000;
	tx_one(&c, &h, 2000);
	CU_ASSERT_EQUAL(dropped(&c), 6);
	net_port_counters_get(c.port, &n);
	CU_ASSERT_EQUAL(n.tx_packets, 2);
	CU_ASSERT_EQUAL(atomic_load(&c.r.broken), 0);
	card_close(&c);
}

/* Nothing negotiated that a header could ask for: what it says is not looked at, and what lies
 * where a received one belongs does not stay. */
static void test_plain_header(void)
{
	struct net_vnet_hdr h = {.flags = 0xff, .gso_type = NET_GSO_TCPV4, .gso_size = 1};
	struct ring_done done = {0};
	struct card c;

	card_open(&c, mem_port(NET_MEM_ECHO, 1), false, 0, 0);
	card_start(&c, 2048, ~VIRTIO_BIT(VIRTIO_F_VERSION_1));
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_FATAL(card_rx_post(&c, 0, 0));
		/* as it was left: by somebody, by a frame, by somebody else */
		memset(rig_host(&c.r, c.rx[0]), i == 1 ? 0 : 0x5a, 12);
		rig_kick(&c.r, RXQ(0));
		tx_one(&c, &h, 100);
		CU_ASSERT_EQUAL_FATAL(rig_wait(&c.r, RXQ(0), &done, 1), 1);
		CU_ASSERT_TRUE(card_rx_take(&c, 0, &done));
		CU_ASSERT_EQUAL(c.frame_len, 100);
		CU_ASSERT_EQUAL(c.hdr.flags, 0);
		CU_ASSERT_EQUAL(c.hdr.gso_type, NET_GSO_NONE);
		CU_ASSERT_EQUAL(c.hdr.num_buffers, 1);
	}
	CU_ASSERT_EQUAL(dropped(&c), 0);
	card_close(&c);
}

static void test_bad_buffers(void)
{
	for (unsigned kind = 0; kind < 2; kind++) {
		struct ring_sg sg[2];
		struct card c;

		card_open(&c, mem_port(NET_MEM_SOURCE, 1), false, 0, 3);
		card_start(&c, 2048, 0);
		sg[0] = (struct ring_sg){c.rx[0], 11};
		sg[1] = (struct ring_sg){c.rx[0] + 4096, 2048};
		CU_ASSERT_EQUAL(ring_driver_add(&c.r.q[0].drv, sg, kind, 1, 0), 0);
		rig_kick(&c.r, RXQ(0));
		for (unsigned i = 0; i < 100000 && !atomic_load(&c.r.broken); i++)
			usleep(100);
		CU_ASSERT_EQUAL(atomic_load(&c.r.broken), 1);
		card_close(&c);
	}
}

static void test_features(void)
{
	uint64_t f, v1 = VIRTIO_BIT(VIRTIO_F_VERSION_1);
	uint8_t config[32];
	uint16_t word;
	struct card c;

	card_open(&c, mem_port(NET_MEM_SINK, 2), false, 0, 0);
	c.o.pairs = 2;
	c.o.mtu = 9000;
	card_create(&c);
	f = c.r.dev->features;
	CU_ASSERT(f & 1ull << F_MQ && f & 1ull << F_CTRL && f & 1ull << F_MTU);
	CU_ASSERT_EQUAL(split_features_set(c.r.dev, v1 | 1 << F_GUEST_TSO4), -EINVAL);
	CU_ASSERT_EQUAL(split_features_set(c.r.dev, v1 | 1 << F_HOST_TSO4), -EINVAL);
	CU_ASSERT_EQUAL(split_features_set(c.r.dev, v1 | 1 << F_MQ), -EINVAL);
	CU_ASSERT_EQUAL(split_features_set(c.r.dev, v1 | 1 << F_CSUM | 1 << F_HOST_TSO4), 0);
	CU_ASSERT_EQUAL(split_features_set(c.r.dev, v1), 0);
	c.r.dev->ops->config_read(c.r.dev, 0, config, sizeof(config));
	CU_ASSERT_EQUAL(memcmp(config, c.o.mac, 6), 0);
	memcpy(&word, config + 6, 2);
	CU_ASSERT_EQUAL(word, 1);
	memcpy(&word, config + 8, 2);
	CU_ASSERT_EQUAL(word, 2);
	memcpy(&word, config + 10, 2);
	CU_ASSERT_EQUAL(word, 9000);
	c.r.dev->ops->config_read(c.r.dev, UINT32_MAX, config, 32);
	card_close(&c);
}

static const struct unit_case cases[] = {
	{"every ring, both waits", test_every_ring},
	{"buffers of every size", test_buffers},
	{"segmentation offload", test_gso},
	{"sink", test_sink},
	{"source", test_source},
	{"several pairs, control queue", test_pairs},
	{"bad frames", test_bad_frames},
	{"headers where nothing was negotiated", test_plain_header},
	{"bad buffers", test_bad_buffers},
	{"features and configuration", test_features},
};

UNIT_MAIN("split_net", cases)
