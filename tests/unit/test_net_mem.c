/* SPDX-License-Identifier: BSD-2-Clause */
/* Sink, source and echo: what they take, give, count and release. */
#include "tests/unit/unit.h"
#include "netbridge/netbridge.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define BURST 64u

struct frame {
	struct net_packet pkt;
	struct iovec segs[3];
	uint8_t data[2048];
	unsigned released;
};

static void frame_release(struct net_packet *pkt)
{
	((struct frame *)pkt->owner)->released++;
}

/* A frame of len bytes in up to three odd-sized segments, its bytes following from the seed. */
static void frame_fill(struct frame *f, uint32_t len, unsigned seed)
{
	uint32_t a = len / 3 | 1, b = len / 5 | 1;

	memset(f, 0, sizeof(*f));
	for (uint32_t i = 0; i < len; i++)
		f->data[i] = (uint8_t)(seed * 31 + i * 7);
	f->segs[0] = (struct iovec){f->data, a};
	f->segs[1] = (struct iovec){f->data + a, b};
	f->segs[2] = (struct iovec){f->data + a + b, len - a - b};
	f->pkt = (struct net_packet){
		.segs = f->segs, .nsegs = 3, .len = len, .release = frame_release, .owner = f};
}

static struct net_port *mem_port(const struct net_mem_options *opts)
{
	struct net_port *port = NULL;
	char why[NET_WHY_MAX] = "";

	CU_ASSERT_EQUAL_FATAL(net_mem_open(&port, opts, why), 0);
	CU_ASSERT_EQUAL(why[0], 0);
	return port;
}

static void test_open_errors(void)
{
	struct net_port *port = NULL;
	char why[NET_WHY_MAX] = "";
	struct net_mem_options o = {.kind = NET_MEM_SINK, .queues = 0};

	CU_ASSERT_EQUAL(net_mem_open(&port, &o, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "queues"));
	o.queues = NET_QUEUES_MAX + 1;
	CU_ASSERT_EQUAL(net_mem_open(&port, &o, why), -EINVAL);
	o = (struct net_mem_options){.kind = NET_MEM_SOURCE, .queues = 1, .frame_len = 13};
	CU_ASSERT_EQUAL(net_mem_open(&port, &o, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "13 bytes"));
	o = (struct net_mem_options){.kind = (enum net_mem_kind)7, .queues = 1};
	CU_ASSERT_EQUAL(net_mem_open(&port, &o, why), -EINVAL);
	CU_ASSERT_PTR_NULL(port);
	net_port_close(NULL);
}

/* True for frames that are what frame_fill() made with the seed in ctx, which then grows. */
static bool sink_check(void *ctx, unsigned queue, const struct net_packet *pkt)
{
	unsigned *seed = ctx;
	uint8_t all[2048];
	uint32_t at = 0;
	bool good = queue == 1;

	for (uint32_t i = 0; i < pkt->nsegs; i++) {
		memcpy(all + at, pkt->segs[i].iov_base, pkt->segs[i].iov_len);
		at += (uint32_t)pkt->segs[i].iov_len;
	}
	good = good && at == pkt->len;
	for (uint32_t i = 0; i < at; i++)
		good = good && all[i] == (uint8_t)(*seed * 31 + i * 7);
	(*seed)++;
	return good;
}

static void test_sink(void)
{
	static struct frame f[BURST];
	struct net_packet *pkts[BURST];
	struct net_counters c;
	unsigned seed = 0;
	struct net_mem_options o = {
		.kind = NET_MEM_SINK, .queues = 2, .check = sink_check, .ctx = &seed};
	struct net_port *port = mem_port(&o);
	struct net_buffer buf = {0};

	CU_ASSERT_STRING_EQUAL(net_port_kind(port), "sink");
	CU_ASSERT_EQUAL(net_port_queues(port), 2);
	CU_ASSERT_EQUAL(net_port_fd(port, 0), -1);
	CU_ASSERT_EQUAL(net_port_tx_fd(port, 0), -1);
	CU_ASSERT_FALSE(net_port_rx_ready(port, 0));
	for (unsigned i = 0; i < BURST; i++) {
		frame_fill(&f[i], 60 + i, i);
		pkts[i] = &f[i].pkt;
	}
	f[9].data[20] ^= 1;
	CU_ASSERT_EQUAL(net_port_send(port, 1, pkts, BURST), BURST);
	for (unsigned i = 0; i < BURST; i++)
		CU_ASSERT_EQUAL(f[i].released, 1);
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.tx_packets, BURST);
	CU_ASSERT_EQUAL(c.tx_bytes, BURST * 60 + BURST * (BURST - 1) / 2);
	CU_ASSERT_EQUAL(c.errors, 1);
	CU_ASSERT_EQUAL(c.tx_dropped + c.rx_packets + c.rx_dropped + c.system_calls, 0);
	CU_ASSERT_EQUAL(net_port_receive(port, 0, &buf, 1), 0);
	/* No release function: nothing to call. */
	f[0].pkt.release = NULL;
	CU_ASSERT_EQUAL(net_port_send(port, 0, pkts, 1), 1);
	CU_ASSERT_EQUAL(f[0].released, 1);
	/* Queues that do not exist take nothing, queues not in use take and drop. */
	CU_ASSERT_EQUAL(net_port_send(port, 2, pkts + 1, 1), 0);
	CU_ASSERT_EQUAL(f[1].released, 1);
	CU_ASSERT_EQUAL(net_port_queues_set(port, 0), -EINVAL);
	CU_ASSERT_EQUAL(net_port_queues_set(port, 3), -EINVAL);
	CU_ASSERT_EQUAL(net_port_queues_set(port, 1), 0);
	CU_ASSERT_EQUAL(net_port_send(port, 1, pkts + 1, 2), 2);
	CU_ASSERT_EQUAL(f[1].released, 2);
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.tx_packets, BURST + 1);
	CU_ASSERT_EQUAL(c.tx_dropped, 2);
	net_port_close(port);
}

static void test_offloads(void)
{
	struct net_mem_options o = {.kind = NET_MEM_ECHO, .queues = 1};
	struct net_port *port = mem_port(&o);

	CU_ASSERT_EQUAL(net_port_offloads(port) & NET_OFFLOAD_UFO, 0);
	CU_ASSERT_NOT_EQUAL(net_port_offloads(port) & NET_OFFLOAD_TSO6, 0);
	CU_ASSERT_EQUAL(net_port_offloads_set(port, NET_OFFLOAD_UFO), -ENOTSUP);
	CU_ASSERT_EQUAL(net_port_offloads_set(port, net_port_offloads(port)), 0);
	CU_ASSERT_EQUAL(net_port_offloads_set(port, 0), 0);
	net_port_close(port);
}

static void test_source(void)
{
	struct net_mem_options o = {.kind = NET_MEM_SOURCE, .queues = 1, .frame_len = 100};
	struct net_port *port = mem_port(&o);
	uint8_t data[8][128];
	struct iovec segs[8][2];
	struct net_buffer bufs[8];
	struct net_counters c;
	uint64_t seq;

	for (unsigned i = 0; i < 8; i++) {
		segs[i][0] = (struct iovec){data[i], 17};
		segs[i][1] = (struct iovec){data[i] + 17, 111};
		bufs[i] = (struct net_buffer){.segs = segs[i], .nsegs = 2, .room = 128};
	}
	CU_ASSERT_TRUE(net_port_rx_ready(port, 0));
	CU_ASSERT_EQUAL(net_port_receive(port, 0, bufs, 8), 8);
	for (unsigned i = 0; i < 8; i++) {
		CU_ASSERT_EQUAL(bufs[i].len, 100);
		CU_ASSERT_EQUAL(bufs[i].hdr.num_buffers, 1);
		memcpy(&seq, data[i] + 14, 8);
		CU_ASSERT_EQUAL(seq, i);
		CU_ASSERT_EQUAL(data[i][0], 0xff);
		CU_ASSERT_EQUAL(data[i][12] << 8 | data[i][13], 0x88b5);
	}
	for (unsigned i = 0; i < 8; i++)
		bufs[i].room = i & 1 ? 99 : 128;
	segs[1][1].iov_len = 82;
	CU_ASSERT_EQUAL(net_port_receive(port, 0, bufs, 1), 1);
	CU_ASSERT_EQUAL(net_port_receive(port, 0, bufs + 1, 1), 0);
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.rx_packets, 9);
	CU_ASSERT_EQUAL(c.rx_bytes, 900);
	CU_ASSERT_EQUAL(c.rx_dropped, 1);
	net_port_close(port);
}

/* Five frames with a checksum to finish, then none. */
static uint32_t source_fill(void *ctx, unsigned queue, struct net_buffer *buf)
{
	unsigned *left = ctx;
	uint8_t *p = buf->segs[0].iov_base;

	if (queue || !*left)
		return 0;
	memset(p, 0, 64);
	p[20] = 0x12;
	p[21] = (uint8_t)(*left)--;
	buf->hdr.flags = NET_HDR_F_NEEDS_CSUM;
	buf->hdr.csum_start = 20;
	buf->hdr.csum_offset = 6;
	return 64;
}

static void test_source_fill(void)
{
	unsigned left = 5;
	struct net_mem_options o = {
		.kind = NET_MEM_SOURCE, .queues = 1, .fill = source_fill, .ctx = &left};
	struct net_port *port = mem_port(&o);
	uint8_t data[8][64];
	struct iovec segs[8];
	struct net_buffer bufs[8];

	for (unsigned i = 0; i < 8; i++) {
		segs[i] = (struct iovec){data[i], 64};
		bufs[i] = (struct net_buffer){.segs = &segs[i], .nsegs = 1, .room = 64};
	}
	CU_ASSERT_EQUAL(net_port_receive(port, 0, bufs, 3), 3);
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(bufs[i].hdr.flags, 0);
		CU_ASSERT_EQUAL(data[i][26], 0xed);
		CU_ASSERT_EQUAL(data[i][27], 0xff - (5 - i));
	}
	CU_ASSERT_EQUAL(net_port_offloads_set(port, NET_OFFLOAD_CSUM), 0);
	CU_ASSERT_EQUAL(net_port_receive(port, 0, bufs, 8), 2);
	CU_ASSERT_EQUAL(bufs[0].hdr.flags, NET_HDR_F_NEEDS_CSUM);
	CU_ASSERT_EQUAL(bufs[0].hdr.csum_start, 20);
	CU_ASSERT_EQUAL(data[0][26], 0);
	net_port_close(port);
}

static void test_echo(void)
{
	static struct frame f[BURST];
	static uint8_t data[BURST][2048];
	struct net_packet *pkts[BURST];
	struct iovec segs[BURST][2];
	struct net_buffer bufs[BURST];
	struct net_counters c;
	struct net_mem_options o = {.kind = NET_MEM_ECHO, .queues = 1};
	struct net_port *port = mem_port(&o);
	uint64_t sent = 0;

	for (unsigned i = 0; i < BURST; i++) {
		segs[i][0] = (struct iovec){data[i], 11};
		segs[i][1] = (struct iovec){data[i] + 11, 2037};
		bufs[i] = (struct net_buffer){.segs = segs[i], .nsegs = 2, .room = 2048};
	}
	/* All lengths, many times; the ring is empty in between (test_net_pair.c goes round it). */
	for (unsigned round = 0; round < 200; round++) {
		unsigned bad = 0;

		for (unsigned i = 0; i < BURST; i++) {
			frame_fill(&f[i], 14 + (round * 67 + i * 31) % 2000, round + i);
			pkts[i] = &f[i].pkt;
			sent += f[i].pkt.len;
		}
		CU_ASSERT_FALSE(net_port_rx_ready(port, 0));
		CU_ASSERT_EQUAL(net_port_send(port, 0, pkts, BURST), BURST);
		CU_ASSERT_TRUE(net_port_rx_ready(port, 0));
		CU_ASSERT_EQUAL(net_port_receive(port, 0, bufs, 10), 10);
		CU_ASSERT_EQUAL(net_port_receive(port, 0, bufs + 10, BURST), BURST - 10);
		for (unsigned i = 0; i < BURST; i++) {
			bad += f[i].released != 1 || bufs[i].len != f[i].pkt.len;
			bad += memcmp(data[i], f[i].data, f[i].pkt.len) != 0;
		}
		CU_ASSERT_EQUAL(bad, 0);
	}
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.tx_bytes, sent);
	CU_ASSERT_EQUAL(c.rx_bytes, sent);
	CU_ASSERT_EQUAL(c.tx_dropped + c.rx_dropped + c.errors, 0);
	net_port_close(port);
}

static void test_echo_full(void)
{
	static uint8_t big[NET_FRAME_MAX + 1];
	static struct frame f;
	struct iovec seg = {big, sizeof(big)};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = NET_FRAME_MAX}, *p = &pkt;
	struct net_packet *small = &f.pkt;
	struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = NET_FRAME_MAX};
	struct net_mem_options o = {.kind = NET_MEM_ECHO, .queues = 1};
	struct net_port *port = mem_port(&o);
	struct net_counters c;
	unsigned got = 0;

	for (unsigned i = 0; i < 1000; i++) {
		big[100] = (uint8_t)i;
		CU_ASSERT_EQUAL(net_port_send(port, 0, &p, 1), 1);
	}
	net_port_counters_get(port, &c);
	CU_ASSERT(c.tx_packets >= 16 && c.tx_packets <= 128);
	CU_ASSERT_EQUAL(c.tx_packets + c.tx_dropped, 1000);
	for (; net_port_receive(port, 0, &buf, 1); got++)
		CU_ASSERT_EQUAL(big[100], (uint8_t)got);
	CU_ASSERT_EQUAL(got, c.tx_packets);
	/* Too long, too short, a header that cannot be true: taken, released, dropped. */
	pkt.len = NET_FRAME_MAX + 1;
	CU_ASSERT_EQUAL(net_port_send(port, 0, &p, 1), 1);
	frame_fill(&f, 13, 0);
	CU_ASSERT_EQUAL(net_port_send(port, 0, &small, 1), 1);
	CU_ASSERT_EQUAL(f.released, 1);
	frame_fill(&f, 64, 0);
	f.pkt.hdr.flags = NET_HDR_F_NEEDS_CSUM;
	f.pkt.hdr.csum_start = 60;
	f.pkt.hdr.csum_offset = 3;
	CU_ASSERT_EQUAL(net_port_send(port, 0, &small, 1), 1);
	f.pkt.hdr.gso_type = 9;
	f.pkt.hdr.csum_offset = 2;
	CU_ASSERT_EQUAL(net_port_send(port, 0, &small, 1), 1);
	CU_ASSERT_EQUAL(f.released, 2);
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.tx_packets + c.tx_dropped, 1004);
	CU_ASSERT_FALSE(net_port_rx_ready(port, 0));
	/* And a frame larger than the room for it. */
	frame_fill(&f, 64, 0);
	buf.room = 63;
	CU_ASSERT_EQUAL(net_port_send(port, 0, &small, 1), 1);
	CU_ASSERT_EQUAL(net_port_receive(port, 0, &buf, 1), 0);
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.rx_dropped, 1);
	net_port_close(port);
}

struct mover {
	struct net_port *port;
	unsigned queue;
	uint64_t moved;
};

static void *mover_run(void *arg)
{
	struct mover *m = arg;
	static struct frame frames[2][32];
	struct net_packet *pkts[32];
	uint8_t data[2048];
	struct iovec seg = {data, sizeof(data)};
	struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = sizeof(data)};

	for (unsigned round = 0; round < 500; round++) {
		for (unsigned i = 0; i < 32; i++) {
			frame_fill(&frames[m->queue][i], 60, round + i);
			pkts[i] = &frames[m->queue][i].pkt;
		}
		if (net_port_send(m->port, m->queue, pkts, 32) != 32)
			return NULL;
		for (unsigned i = 0; i < 32; i++)
			m->moved += net_port_receive(m->port, m->queue, &buf, 1) == 1 &&
				    !memcmp(data, frames[m->queue][i].data, 60);
	}
	return NULL;
}

/* Each queue by a thread of its own while a third reads the counters. */
static void test_threads(void)
{
	struct net_mem_options o = {.kind = NET_MEM_ECHO, .queues = 2};
	struct net_port *port = mem_port(&o);
	struct mover m[2] = {{.port = port, .queue = 0}, {.port = port, .queue = 1}};
	pthread_t t[2];
	struct net_counters c;

	for (unsigned i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&t[i], NULL, mover_run, &m[i]), 0);
	for (unsigned i = 0; i < 1000; i++) {
		net_port_counters_get(port, &c);
		CU_ASSERT_FATAL(c.rx_packets <= 32000);
	}
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(t[i], NULL);
		CU_ASSERT_EQUAL(m[i].moved, 16000);
	}
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.rx_packets, 32000);
	CU_ASSERT_EQUAL(c.tx_bytes, 32000 * 60);
	net_port_close(port);
}

static const struct unit_case cases[] = {
	{"open errors", test_open_errors},
	{"sink", test_sink},
	{"offloads", test_offloads},
	{"source", test_source},
	{"source with a hook", test_source_fill},
	{"echo", test_echo},
	{"echo full, odd frames", test_echo_full},
	{"two threads", test_threads},
};

UNIT_MAIN("net_mem", cases)
