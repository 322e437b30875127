/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net whose control queue is another's (vhost-user): pairs are used as their queues run, and
 * a disabled queue runs without effect. */
#include "tests/unit/test_split_net_rig.h"

static void pair_start(struct card *c, unsigned p)
{
	c->tx[p] = rig_alloc(&c->r, TX_SLOTS * TX_BYTES, 4096);
	c->rx[p] = rig_alloc(&c->r, (size_t)RX_MAX * c->rx_size, 4096);
	rig_queue_init(&c->r, RXQ(p), c->queue_size);
	rig_queue_init(&c->r, TXQ(p), c->queue_size);
	c->r.q[TXQ(p)].silent = true;
	rig_queue_start(&c->r, RXQ(p));
	rig_queue_start(&c->r, TXQ(p));
	card_rx_fill(c, p, 32);
}

static void open_pairs(struct card *c, unsigned bits)
{
	card_open(c, mem_port(NET_MEM_ECHO, 2), bits & 1, 0, bits | 3);
	c->o.pairs = 2;
	c->o.no_control = true;
	c->rx_size = 1600;
	card_create(c);
	CU_ASSERT_EQUAL(c->r.dev->nqueues, 4);
	CU_ASSERT(c->r.dev->features & VIRTIO_BIT(F_MQ));
	CU_ASSERT(!(c->r.dev->features & VIRTIO_BIT(F_CTRL)));
	CU_ASSERT_EQUAL_FATAL(split_features_set(c->r.dev, c->r.dev->features), 0);
}

static void test_pairs(void)
{
	for (unsigned bits = 0; bits < 16; bits += 8) {
		struct card c;

		open_pairs(&c, bits);
		pair_start(&c, 0);
		card_echo(&c, 0, 100, 8);
		pair_start(&c, 1);
		card_echo(&c, 1, 100, 8);
		card_echo(&c, 0, 100, 8);
		card_close(&c);
	}
}

/* All frames sent are taken from the driver. */
static void wait_sent(struct card *c, unsigned p)
{
	uint64_t end_ns = clock_now_ns() + RIG_WAIT_MS * 1000000ull;
	bool busy = true;

	while (busy && clock_now_ns() < end_ns) {
		card_tx_free(c, p);
		busy = false;
		for (unsigned i = 0; i < TX_SLOTS; i++)
			busy |= c->tx_busy[p][i];
	}
	CU_ASSERT(!busy);
}

static void test_disabled(void)
{
	for (unsigned bits = 0; bits < 16; bits += 8) {
		struct ring_done done[4];
		struct card c;
		uint64_t dropped;

		open_pairs(&c, bits);
		pair_start(&c, 0);
		pair_start(&c, 1);
		card_echo(&c, 1, 50, 8);
		/* nothing sent gets out */
		split_queue_enable(c.r.dev, TXQ(1), false);
		dropped = counter_get(&c.r.dev->counters.dropped);
		CU_ASSERT_EQUAL(card_tx_some(&c, 1, 8), 8);
		wait_sent(&c, 1);
		CU_ASSERT_EQUAL(counter_get(&c.r.dev->counters.dropped), dropped + 8);
		CU_ASSERT_EQUAL(ring_driver_collect(&c.r.q[RXQ(1)].drv, done, 4), 0);
		c.sent[1] = c.got[1];
		split_queue_enable(c.r.dev, TXQ(1), true);
		card_echo(&c, 1, 50, 8);
		/* nothing gets in; what waits in the port comes later */
		split_queue_enable(c.r.dev, RXQ(0), false);
		CU_ASSERT_EQUAL(card_tx_some(&c, 0, 8), 8);
		wait_sent(&c, 0);
		card_echo(&c, 1, 50, 8);
		CU_ASSERT_EQUAL(ring_driver_collect(&c.r.q[RXQ(0)].drv, done, 4), 0);
		split_queue_enable(c.r.dev, RXQ(0), true);
		while (c.got[0] < c.sent[0])
			card_rx_some(&c, 0);
		card_echo(&c, 0, 50, 8);
		card_close(&c);
	}
}

static const struct unit_case cases[] = {
	{"pairs are used as they run", test_pairs},
	{"a disabled queue sends and receives nothing", test_disabled},
};

UNIT_MAIN("split_net_pairs", cases)
