/* SPDX-License-Identifier: BSD-2-Clause */
/* Two ports back to back: order, content, wake-ups, full lanes, queues, closing. */
#include "tests/unit/unit.h"
#include "netbridge/netbridge.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#define BURST   32u
#define WAIT_MS 20000

struct frame {
	struct net_packet pkt;
	struct iovec segs[2];
	uint8_t data[2048];
	unsigned released;
};

static void frame_release(struct net_packet *pkt)
{
	((struct frame *)pkt->owner)->released++;
}

static void frame_fill(struct frame *f, uint32_t len, uint64_t seq)
{
	memset(f, 0, sizeof(*f));
	for (uint32_t i = 0; i < len; i++)
		f->data[i] = (uint8_t)(seq * 13 + i);
	if (len >= 22)
		memcpy(f->data + 14, &seq, 8);
	f->segs[0] = (struct iovec){f->data, 13};
	f->segs[1] = (struct iovec){f->data + 13, len - 13};
	f->pkt = (struct net_packet){
		.segs = f->segs, .nsegs = 2, .len = len, .release = frame_release, .owner = f};
}

static void pair(struct net_port **a, struct net_port **b, unsigned queues)
{
	char why[NET_WHY_MAX] = "";

	CU_ASSERT_EQUAL_FATAL(net_pair_open(a, b, queues, why), 0);
}

static short polled(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, 0) == 1 ? p.revents : 0;
}

static unsigned receive_one(
	struct net_port *port, unsigned queue, uint8_t *data, uint32_t room, struct net_buffer *out)
{
	struct iovec seg = {data, room};

	*out = (struct net_buffer){.segs = &seg, .nsegs = 1, .room = room};
	return net_port_receive(port, queue, out, 1);
}

static void test_both_ways(void)
{
	static struct frame f[BURST];
	struct net_packet *pkts[BURST];
	struct net_port *ends[2];
	struct net_counters c;
	struct net_buffer buf;
	uint8_t data[2048];
	unsigned bad = 0;

	pair(&ends[0], &ends[1], 1);
	CU_ASSERT_STRING_EQUAL(net_port_kind(ends[0]), "pair");
	CU_ASSERT_PTR_NULL(net_tap_name(ends[0]));
	for (unsigned way = 0; way < 2; way++) {
		for (unsigned i = 0; i < BURST; i++) {
			frame_fill(&f[i], 14 + i * 61, i);
			pkts[i] = &f[i].pkt;
		}
		CU_ASSERT_FALSE(net_port_rx_ready(ends[!way], 0));
		CU_ASSERT_EQUAL(net_port_send(ends[way], 0, pkts, BURST), BURST);
		CU_ASSERT_TRUE(net_port_rx_ready(ends[!way], 0));
		CU_ASSERT_FALSE(net_port_rx_ready(ends[way], 0));
		for (unsigned i = 0; i < BURST; i++) {
			bad += receive_one(ends[!way], 0, data, sizeof(data), &buf) != 1;
			bad += buf.len != f[i].pkt.len || memcmp(data, f[i].data, buf.len);
			bad += f[i].released != 1 || buf.hdr.flags || buf.hdr.num_buffers != 1;
		}
		CU_ASSERT_EQUAL(receive_one(ends[!way], 0, data, sizeof(data), &buf), 0);
	}
	CU_ASSERT_EQUAL(bad, 0);
	/* Too large for the buffer: dropped, the next one comes. */
	frame_fill(&f[0], 100, 0);
	frame_fill(&f[1], 99, 1);
	CU_ASSERT_EQUAL(net_port_send(ends[0], 0, pkts, 2), 2);
	CU_ASSERT_EQUAL(receive_one(ends[1], 0, data, 99, &buf), 1);
	CU_ASSERT_EQUAL(memcmp(data, f[1].data, 99), 0);
	net_port_counters_get(ends[1], &c);
	CU_ASSERT_EQUAL(c.rx_packets, BURST + 1);
	CU_ASSERT_EQUAL(c.tx_packets, BURST);
	CU_ASSERT_EQUAL(c.rx_dropped, 1);
	net_port_close(ends[0]);
	net_port_close(ends[1]);
}

static void test_header_kept(void)
{
	static uint8_t data[30000], got[30000];
	struct iovec seg = {data, sizeof(data)};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = sizeof(data)}, *p = &pkt;
	struct net_port *a, *b;
	struct net_buffer buf;
	struct net_counters c;

	pair(&a, &b, 1);
	CU_ASSERT_EQUAL(net_port_offloads_set(b, net_port_offloads(b)), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * i);
	pkt.hdr = (struct net_vnet_hdr){.flags = NET_HDR_F_NEEDS_CSUM,
		.gso_type = NET_GSO_TCPV4 | NET_GSO_ECN,
		.hdr_len = 66,
		.gso_size = 1448,
		.csum_start = 34,
		.csum_offset = 16};
	CU_ASSERT_EQUAL(net_port_send(a, 0, &p, 1), 1);
	CU_ASSERT_EQUAL(receive_one(b, 0, got, sizeof(got), &buf), 1);
	CU_ASSERT_EQUAL(buf.len, sizeof(data));
	CU_ASSERT_EQUAL(memcmp(got, data, sizeof(data)), 0);
	pkt.hdr.num_buffers = 1;
	CU_ASSERT_EQUAL(memcmp(&buf.hdr, &pkt.hdr, sizeof(pkt.hdr)), 0);
	/* What was not offered, and what cannot be true. */
	pkt.hdr.gso_type = NET_GSO_UDP;
	CU_ASSERT_EQUAL(net_port_send(a, 0, &p, 1), 1);
	pkt.hdr.gso_type = NET_GSO_TCPV4;
	pkt.hdr.csum_start = 29990;
	CU_ASSERT_EQUAL(net_port_send(a, 0, &p, 1), 1);
	CU_ASSERT_EQUAL(receive_one(b, 0, got, sizeof(got), &buf), 0);
	net_port_counters_get(a, &c);
	CU_ASSERT_EQUAL(c.tx_dropped, 2);
	CU_ASSERT_EQUAL(c.tx_packets, 1);
	net_port_close(b);
	net_port_close(a);
}

static void test_wake(void)
{
	struct frame f;
	struct net_packet *p = &f.pkt;
	struct net_port *a, *b;
	struct net_buffer buf;
	struct net_counters before, after;
	uint8_t data[64];
	int fd;

	pair(&a, &b, 1);
	fd = net_port_fd(b, 0);
	CU_ASSERT_EQUAL(polled(fd, POLLIN), 0);
	frame_fill(&f, 64, 1);
	net_port_send(a, 0, &p, 1);
	CU_ASSERT_EQUAL(polled(fd, POLLIN), POLLIN);
	/* One signal is enough for all that comes while the receiver has not looked. */
	net_port_counters_get(a, &before);
	for (unsigned i = 0; i < 9; i++)
		net_port_send(a, 0, &p, 1);
	net_port_counters_get(a, &after);
	CU_ASSERT_EQUAL(before.system_calls, 1);
	CU_ASSERT_EQUAL(after.system_calls, 1);
	for (unsigned i = 0; i < 10; i++) {
		CU_ASSERT_EQUAL(polled(fd, POLLIN), POLLIN);
		CU_ASSERT_EQUAL(receive_one(b, 0, data, 64, &buf), 1);
	}
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(receive_one(b, 0, data, 64, &buf), 0);
	CU_ASSERT_EQUAL(polled(fd, POLLIN), 0);
	net_port_counters_get(b, &after);
	CU_ASSERT_EQUAL(after.system_calls, 1);
	net_port_send(a, 0, &p, 1);
	CU_ASSERT_EQUAL(polled(fd, POLLIN), POLLIN);
	CU_ASSERT_EQUAL(f.released, 11);
	net_port_close(a);
	net_port_close(b);
}

static void test_full(void)
{
	static struct frame f[BURST];
	struct net_packet *pkts[BURST];
	struct net_port *a, *b;
	struct net_buffer buf;
	struct net_counters c;
	uint8_t data[2048];
	unsigned sent = 0, got = 0, n, bad = 0;
	uint64_t seq;

	pair(&a, &b, 1);
	do {
		for (unsigned i = 0; i < BURST; i++) {
			frame_fill(&f[i], 1000, sent + i);
			pkts[i] = &f[i].pkt;
		}
		n = net_port_send(a, 0, pkts, BURST);
		for (unsigned i = 0; i < BURST; i++)
			bad += f[i].released != (i < n);
		sent += n;
	} while (n == BURST && sent < 100000);
	CU_ASSERT(sent > 1000 && sent < 10000);
	CU_ASSERT_EQUAL(polled(net_port_tx_fd(a, 0), POLLOUT), 0);
	CU_ASSERT_EQUAL(net_port_send(a, 0, pkts + n, BURST - n), 0);
	for (; receive_one(b, 0, data, sizeof(data), &buf); got++) {
		memcpy(&seq, data + 14, 8);
		bad += seq != got;
		if (got == 10)
			CU_ASSERT_EQUAL(polled(net_port_tx_fd(a, 0), POLLOUT), 0);
	}
	CU_ASSERT_EQUAL(got, sent);
	CU_ASSERT_EQUAL(polled(net_port_tx_fd(a, 0), POLLOUT), POLLOUT);
	CU_ASSERT_EQUAL(net_port_send(a, 0, pkts + n, BURST - n), BURST - n);
	CU_ASSERT_EQUAL(receive_one(b, 0, data, sizeof(data), &buf), 1);
	memcpy(&seq, data + 14, 8);
	CU_ASSERT_EQUAL(seq, sent);
	CU_ASSERT_EQUAL(bad, 0);
	net_port_counters_get(a, &c);
	CU_ASSERT_EQUAL(c.tx_packets, sent + BURST - n);
	CU_ASSERT_EQUAL(c.tx_dropped, 0);
	net_port_close(a);
	net_port_close(b);
}

static void test_close(void)
{
	static struct frame f[BURST];
	struct net_packet *pkts[BURST];
	struct net_port *a, *b;
	struct net_buffer buf;
	struct net_counters c;
	uint8_t data[2048];
	unsigned n, bad = 0;

	pair(&a, &b, 2);
	for (unsigned i = 0; i < BURST; i++) {
		frame_fill(&f[i], 2000, i);
		pkts[i] = &f[i].pkt;
	}
	net_port_send(b, 1, pkts, 3);
	do {
		n = net_port_send(a, 0, pkts, BURST);
	} while (n == BURST);
	CU_ASSERT_EQUAL(polled(net_port_tx_fd(a, 0), POLLOUT), 0);
	net_port_close(b);
	/* Who waited for room hears of it; what is sent is dropped; what had come can be had. */
	CU_ASSERT_EQUAL(polled(net_port_tx_fd(a, 0), POLLOUT), POLLOUT);
	for (unsigned i = 0; i < BURST; i++)
		f[i].released = 0;
	CU_ASSERT_EQUAL(net_port_send(a, 0, pkts, BURST), BURST);
	for (unsigned i = 0; i < BURST; i++)
		bad += f[i].released != 1;
	CU_ASSERT_EQUAL(bad, 0);
	net_port_counters_get(a, &c);
	CU_ASSERT_EQUAL(c.tx_dropped, BURST);
	CU_ASSERT_EQUAL(polled(net_port_fd(a, 1), POLLIN), POLLIN);
	for (unsigned i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(receive_one(a, 1, data, sizeof(data), &buf), i < 3);
	net_port_close(a);
}

static void test_queues(void)
{
	struct frame f;
	struct net_packet *p = &f.pkt;
	struct net_port *a, *b;
	struct net_buffer buf;
	uint8_t data[64];
	char why[NET_WHY_MAX];

	CU_ASSERT_EQUAL(net_pair_open(&a, &b, 0, why), -EINVAL);
	CU_ASSERT_EQUAL(net_pair_open(&a, &b, NET_QUEUES_MAX + 1, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "17 queues"));
	pair(&a, &b, 3);
	frame_fill(&f, 64, 5);
	CU_ASSERT_EQUAL(net_port_send(a, 2, &p, 1), 1);
	CU_ASSERT_EQUAL(receive_one(b, 0, data, 64, &buf), 0);
	CU_ASSERT_EQUAL(receive_one(b, 2, data, 64, &buf), 1);
	/* Queues fold onto those in use at the other side. */
	net_port_send(a, 1, &p, 1);
	CU_ASSERT_EQUAL(net_port_queues_set(b, 1), 0);
	net_port_send(a, 2, &p, 1);
	net_port_send(a, 1, &p, 1);
	CU_ASSERT_EQUAL(receive_one(b, 1, data, 64, &buf), 0);
	CU_ASSERT_EQUAL(receive_one(b, 0, data, 64, &buf), 1);
	CU_ASSERT_EQUAL(receive_one(b, 0, data, 64, &buf), 1);
	CU_ASSERT_EQUAL(receive_one(b, 0, data, 64, &buf), 0);
	/* And what lay in a queue when it went out of use is not news later. */
	CU_ASSERT_EQUAL(net_port_queues_set(b, 3), 0);
	CU_ASSERT_EQUAL(receive_one(b, 1, data, 64, &buf), 0);
	net_port_send(a, 1, &p, 1);
	CU_ASSERT_EQUAL(polled(net_port_fd(b, 1), POLLIN), POLLIN);
	CU_ASSERT_EQUAL(receive_one(b, 1, data, 64, &buf), 1);
	net_port_close(a);
	net_port_close(b);
}

/* ------------------------------------------------------------------ threads */

struct flow {
	struct net_port *port;
	unsigned queue;
	unsigned frames;
	unsigned good;
	bool sends;
};

static bool flow_wait(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, WAIT_MS) == 1;
}

static uint32_t flow_len(uint64_t seq)
{
	return 22 + (uint32_t)(seq * 71 % 1900);
}

static void flow_send(struct flow *w)
{
	struct frame *f = calloc(BURST, sizeof(*f));
	struct net_packet *pkts[BURST];
	unsigned n, done;

	for (unsigned at = 0; f && at < w->frames; at += n) {
		n = w->frames - at < BURST ? w->frames - at : BURST;
		for (unsigned i = 0; i < n; i++) {
			frame_fill(&f[i], flow_len(at + i), at + i);
			pkts[i] = &f[i].pkt;
		}
		for (done = 0; done < n;) {
			done += net_port_send(w->port, w->queue, pkts + done, n - done);
			if (done < n && !flow_wait(net_port_tx_fd(w->port, w->queue), POLLOUT))
				goto out;
		}
		for (unsigned i = 0; i < n; i++)
			w->good += f[i].released == 1;
	}
out:
	free(f);
}

static void flow_receive(struct flow *w)
{
	uint8_t data[4][2048];
	struct iovec segs[4];
	struct net_buffer bufs[4];
	uint64_t at = 0, seq;
	unsigned n;

	for (unsigned i = 0; i < 4; i++) {
		segs[i] = (struct iovec){data[i], 2048};
		bufs[i] = (struct net_buffer){.segs = &segs[i], .nsegs = 1, .room = 2048};
	}
	while (at < w->frames) {
		n = net_port_receive(w->port, w->queue, bufs, 4);
		if (!n && !flow_wait(net_port_fd(w->port, w->queue), POLLIN))
			return;
		for (unsigned i = 0; i < n; i++, at++) {
			memcpy(&seq, data[i] + 14, 8);
			w->good += seq == at && bufs[i].len == flow_len(at) &&
				   data[i][bufs[i].len - 1] ==
					   (bufs[i].len > 22 ? (uint8_t)(at * 13 + bufs[i].len - 1)
							     : (uint8_t)(seq >> 56));
		}
	}
}

static void *flow_run(void *arg)
{
	struct flow *w = arg;

	if (w->sends)
		flow_send(w);
	else
		flow_receive(w);
	return NULL;
}

/* Two queues, a sender and a receiver each, sleeping whenever they may: no frame and no wake-up is
 * lost. */
static void test_threads(void)
{
	struct net_port *a, *b;
	struct flow w[4];
	pthread_t t[4];
	struct net_counters c;

	pair(&a, &b, 2);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct flow){
			.port = i & 1 ? b : a, .queue = i / 2, .frames = 40000, .sends = !(i & 1)};
		CU_ASSERT_EQUAL_FATAL(pthread_create(&t[i], NULL, flow_run, &w[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		CU_ASSERT_EQUAL(w[i].good, 40000);
	}
	net_port_counters_get(b, &c);
	CU_ASSERT_EQUAL(c.rx_packets, 80000);
	net_port_close(a);
	net_port_close(b);
}

/* One frame at a time: each of them needs its wake-up. */
static void *ping_run(void *arg)
{
	struct flow *w = arg;
	struct frame *f = calloc(1, sizeof(*f));
	struct net_packet *p = &f->pkt;
	struct net_buffer buf;
	uint8_t data[64];

	for (unsigned i = 0; i < w->frames; i++) {
		frame_fill(f, 64, i);
		if (w->sends && net_port_send(w->port, 0, &p, 1) != 1)
			break;
		while (!receive_one(w->port, 0, data, 64, &buf))
			if (!flow_wait(net_port_fd(w->port, 0), POLLIN))
				goto out;
		w->good += !memcmp(data, f->data, 64);
		if (!w->sends && net_port_send(w->port, 0, &p, 1) != 1)
			break;
	}
out:
	free(f);
	return NULL;
}

static void test_ping(void)
{
	struct net_port *a, *b;
	struct flow w[2];
	pthread_t t[2];

	pair(&a, &b, 1);
	for (unsigned i = 0; i < 2; i++) {
		w[i] = (struct flow){.port = i ? b : a, .frames = 5000, .sends = !i};
		CU_ASSERT_EQUAL_FATAL(pthread_create(&t[i], NULL, ping_run, &w[i]), 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(t[i], NULL);
		CU_ASSERT_EQUAL(w[i].good, 5000);
	}
	net_port_close(a);
	net_port_close(b);
}

static const struct unit_case cases[] = {
	{"both ways", test_both_ways},
	{"vnet header kept", test_header_kept},
	{"wake", test_wake},
	{"full", test_full},
	{"close", test_close},
	{"queues", test_queues},
	{"threads", test_threads},
	{"ping", test_ping},
};

UNIT_MAIN("net_pair", cases)
