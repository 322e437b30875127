/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net when one side is slow, asleep, moved or reset; dirty pages; costs at rest. */
#include "tests/unit/test_split_net_rig.h"

/* The other end of a pair: what a test sends and receives by hand. */
static struct net_port *pair_open(struct net_port **b)
{
	struct net_port *a;
	char why[NET_WHY_MAX];

	CU_ASSERT_EQUAL_FATAL(net_pair_open(&a, b, 1, why), 0);
	return a;
}

static void peer_send(struct net_port *b, uint64_t number)
{
	static uint8_t f[2000];
	struct iovec iov = {f, frame_len(NULL, number)};
	struct net_packet pkt = {.segs = &iov, .nsegs = 1, .len = (uint32_t)iov.iov_len};
	struct net_packet *list = &pkt;

	frame_fill(f, pkt.len, number, 0);
	CU_ASSERT_EQUAL_FATAL(net_port_send(b, 0, &list, 1), 1);
}

static bool peer_receive(struct net_port *b, uint64_t number)
{
	static uint8_t f[2000], want[2000];
	struct iovec iov = {f, sizeof(f)};
	struct net_buffer buf = {.segs = &iov, .nsegs = 1, .room = sizeof(f)};
	uint32_t len = frame_len(NULL, number);

	if (!net_port_receive(b, 0, &buf, 1))
		return false;
	frame_fill(want, len, number, 0);
	CU_ASSERT_EQUAL(buf.len, len);
	CU_ASSERT_EQUAL(memcmp(f, want, len), 0);
	return true;
}

static void rx_until(struct card *c, uint64_t n)
{
	while (c->got[0] < n)
		card_rx_some(c, 0);
}

/* ------------------------------------------------------------------ waiting for the other side */

/* Frames wait for buffers, however late; then buffers wait for frames. */
static void test_late_buffers(void)
{
	for (unsigned i = 0; i < 8; i++) {
		struct net_port *b;
		struct card c;
		uint64_t n = 0;

		card_open(&c, pair_open(&b), i & 1, i & 2 ? 50 : 0, i & 4 ? 3 : 8);
		card_start(&c, 2048, i & 4 ? 1 << F_MRG : 0);
		for (unsigned k = 0; k < 20; k++)
			peer_send(b, n++);
		usleep(20000);
		card_rx_fill(&c, 0, 60);
		if (!(i & 4))
			rx_until(&c, n);
		else
			usleep(1000); /* without merging, offloads and small buffers: dropped */
		card_close(&c);
		net_port_close(b);
	}
}

/* Few buffers, and a frame each time only once the thread has had time to sleep. */
static void test_sleepers(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct net_port *b;
		struct card c;

		card_open(&c, pair_open(&b), i & 1, i & 2 ? 30 : 0, 3);
		card_start(&c, 2048, 0);
		card_rx_fill(&c, 0, 60);
		for (uint64_t n = 0; n < 300; n++) {
			if (n % 8 == 0)
				usleep(300);
			peer_send(b, n);
			rx_until(&c, n + 1);
		}
		card_close(&c);
		net_port_close(b);
	}
}

/* The driver's buffers never have room for the largest frame: small ones arrive all the same. */
static void test_few_buffers(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct net_port *b;
		struct card c;

		card_open(&c, pair_open(&b), i, 20, 3);
		card_start(&c, 2048, 0);
		card_rx_fill(&c, 0, 4);
		for (uint64_t n = 0; n < 100; n++) {
			peer_send(b, n);
			rx_until(&c, n + 1);
		}
		card_close(&c);
		net_port_close(b);
	}
}

/* A port that is full takes no more: nothing is lost or reordered when it is emptied late. */
static void test_full_port(void)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t taken = 0, end_ns = clock_now_ns() + 15000000000ull;
		struct net_port *b;
		struct card c;

		card_open(&c, pair_open(&b), i & 1, 20, i & 2 ? 11 : 3);
		card_start(&c, 2048, 0);
		while (c.sent[0] < 12000 && clock_now_ns() < end_ns) {
			if (!card_tx_some(&c, 0, 32) && peer_receive(b, taken))
				taken++;
		}
		while (taken < c.sent[0] && clock_now_ns() < end_ns)
			if (peer_receive(b, taken))
				taken++;
		CU_ASSERT(taken >= 12000);
		CU_ASSERT_EQUAL(taken, c.sent[0]);
		card_close(&c);
		net_port_close(b);
	}
}

/* ------------------------------------------------------------------ move, reset */

static struct io_thread *other_io;

static void move(struct card *c)
{
	struct ring_device_state state[RIG_QUEUES];
	uint64_t features = c->r.dev->driver_features;
	struct io_thread *io = c->r.io;
	struct state_writer w = {0};
	struct state_reader r;
	unsigned nq = c->r.dev->nqueues;

	split_quiesce_wait(c->r.dev);
	for (unsigned q = 0; q < nq; q++)
		split_queue_state_get(c->r.dev, q, &state[q]);
	split_save(c->r.dev, &w);
	CU_ASSERT_EQUAL(w.error, 0);
	split_destroy(c->r.dev);
	c->r.io = other_io;
	other_io = io;
	card_create(c);
	CU_ASSERT_EQUAL_FATAL(split_features_set(c->r.dev, features), 0);
	state_reader_init(&r, w.data, w.len);
	split_load(c->r.dev, &r);
	CU_ASSERT_EQUAL(r.error, 0);
	for (unsigned q = 0; q < nq; q++) {
		c->r.q[q].cfg.restore = true;
		c->r.q[q].cfg.state = state[q];
		rig_queue_start(&c->r, q);
	}
	for (size_t len = 0; len < w.len; len++) {
		state_reader_init(&r, w.data, len);
		split_load(c->r.dev, &r);
		CU_ASSERT_EQUAL(r.error, -EINVAL);
	}
	state_writer_free(&w);
}

static void test_move(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct card c;

		card_open(&c, mem_port(NET_MEM_ECHO, 1), bits & 16, bits & 1 ? 50 : 0, bits);
		other_io = rig_io(!(bits & 16), 0);
		card_start(&c, 2048, 0);
		card_rx_fill(&c, 0, 60);
		for (unsigned n = 0; n < 5; n++) {
			card_echo(&c, 0, 40, 8);
			card_tx_some(&c, 0, 12); /* on their way, on either side of the port */
			move(&c);
			rx_until(&c, c.sent[0]);
		}
		card_close(&c);
		io_thread_destroy(other_io);
	}
}

static void noted(void *ctx)
{
	uint64_t one = 1;

	if (write(*(int *)ctx, &one, sizeof(one)) < 0)
		CU_FAIL("eventfd");
}

static void test_reset(void)
{
	struct card c;
	uint64_t n;
	int fd = eventfd(0, 0);

	card_open(&c, mem_port(NET_MEM_SOURCE, 1), false, 50, 3);
	card_start(&c, 2048, 0);
	for (unsigned i = 0; i < 50; i++) {
		card_rx_fill(&c, 0, 60);
		card_tx_some(&c, 0, 20);
		split_reset(c.r.dev, noted, &fd);
		CU_ASSERT_EQUAL(read(fd, &n, sizeof(n)), 8);
		CU_ASSERT_EQUAL(split_features_set(c.r.dev, c.r.dev->features), 0);
		memset(c.tx_busy, 0, sizeof(c.tx_busy));
		c.r.next = (size_t)(c.r.q[0].cfg.desc_gpa - RIG_GPA);
		for (unsigned q = 0; q < 2; q++) {
			rig_queue_init(&c.r, q, 64);
			rig_queue_start(&c.r, q);
		}
	}
	CU_ASSERT_EQUAL(atomic_load(&c.r.broken), 0);
	close(fd);
	card_close(&c);
}

/* ------------------------------------------------------------------ dirty pages */

static void test_dirty(void)
{
	for (unsigned layout = 0; layout < 2; layout++) {
		struct ring_done done[8] = {0};
		struct net_port *b;
		struct card c;
		uint64_t first;

		card_open(&c, pair_open(&b), layout, 0, layout ? 8 : 0);
		card_start(&c, 8192, 0);
		split_quiesce_wait(c.r.dev);
		c.r.mem.regions[0].dirty = c.r.dirty;
		rig_queue_start(&c.r, 0);
		rig_queue_start(&c.r, 1);
		/* 66 KiB of buffers, one of which gets a frame of 14 to 1514 bytes */
		card_rx_fill(&c, 0, 20);
		peer_send(b, 0);
		CU_ASSERT_EQUAL_FATAL(rig_wait(&c.r, 0, done, 8), 1);
		CU_ASSERT(card_rx_take(&c, 0, &done[0]));
		card_frame_check(&c, 0);
		split_quiesce_wait(c.r.dev);
		first = c.rx[0] + done[0].token * c.rx_size;
		for (uint64_t page = c.rx[0]; page < c.rx[0] + 20 * 8192; page += 4096)
			CU_ASSERT_EQUAL(rig_page_dirty(&c.r, page), page == first);
		CU_ASSERT(rig_page_dirty(
			&c.r, layout ? c.r.q[0].cfg.desc_gpa : c.r.q[0].cfg.device_gpa));
		for (uint64_t page = c.tx[0]; page < c.tx[0] + TX_SLOTS * TX_BYTES; page += 4096)
			CU_ASSERT_FALSE(rig_page_dirty(&c.r, page));
		card_close(&c);
		net_port_close(b);
	}
}

/* ------------------------------------------------------------------ costs */

static void test_idle(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct io_thread_counters x, y;
		struct net_port *b;
		struct card c;

		card_open(&c, pair_open(&b), i & 1, 200, 3);
		card_start(&c, 2048, 0);
		card_rx_fill(&c, 0, i & 2 ? 60 : 3);
		for (uint64_t n = 0; n < 50; n++) {
			peer_send(b, n);
			rx_until(&c, n + 1);
		}
		for (unsigned n = 0; n < 40; n++) {
			io_thread_counters_get(c.r.io, &x);
			usleep(200000);
			io_thread_counters_get(c.r.io, &y);
			if (x.system_calls == y.system_calls)
				break;
		}
		CU_ASSERT_EQUAL(x.system_calls, y.system_calls);
		CU_ASSERT_EQUAL(x.sleeps, y.sleeps);
		card_close(&c);
		net_port_close(b);
	}
}

static const struct unit_case cases[] = {
	{"late buffers", test_late_buffers},
	{"a thread asleep each time", test_sleepers},
	{"few buffers", test_few_buffers},
	{"full port", test_full_port},
	{"moved in mid-transfer", test_move},
	{"reset under load", test_reset},
	{"dirty pages", test_dirty},
	{"idle costs nothing", test_idle},
};

UNIT_MAIN("split_net_state", cases)
