/* SPDX-License-Identifier: BSD-2-Clause */
/* The switch, one worker, driven by hand: learning, VLANs, isolation, rates, queues, offloads. */
#include "tests/unit/unit.h"
#include "netbridge/netbridge.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define PORTS 6u
#define ROOM  70000u

struct rig {
	struct net_switch *sw;
	struct net_port *port[PORTS];
	unsigned n;
};

static char why[NET_WHY_MAX];
static uint8_t got[ROOM];

static void rig_open(struct rig *r, unsigned ageing_s, unsigned macs)
{
	const struct net_switch_options o = {.workers = 1, .ageing_s = ageing_s, .macs = macs};

	*r = (struct rig){0};
	CU_ASSERT_EQUAL_FATAL(net_switch_create(&r->sw, &o, why), 0);
}

/* Ports are named a, b, c ... */
static unsigned rig_add(struct rig *r, struct net_switch_port_options o)
{
	unsigned i = r->n++;

	o.name[0] = (char)('a' + i);
	CU_ASSERT_EQUAL_FATAL(net_switch_port_add(r->sw, &o, &r->port[i], why), 0);
	return i;
}

static void rig_close(struct rig *r)
{
	char name[2] = "a";

	net_switch_sleep(r->sw, 0);
	for (unsigned i = 0; i < r->n; i++, name[0]++) {
		net_port_close(r->port[i]);
		CU_ASSERT_EQUAL(net_switch_port_remove(r->sw, name), 0);
	}
	CU_ASSERT_EQUAL(net_switch_ports_get(r->sw, NULL, 0), 0);
	net_switch_destroy(r->sw);
}

static struct net_switch_port_info info(struct rig *r, unsigned i)
{
	struct net_switch_port_info all[PORTS];
	unsigned n = net_switch_ports_get(r->sw, all, PORTS);

	CU_ASSERT_FATAL(i < n);
	return all[i];
}

/* ------------------------------------------------------------------ frames */

struct frame {
	uint8_t data[ROOM];
	uint32_t len;
};

static void mac_put(uint8_t *to, unsigned who)
{
	const uint8_t mac[6] = {
		0x02, 0, 0, (uint8_t)(who >> 16), (uint8_t)(who >> 8), (uint8_t)who};

	if (who == UINT32_MAX)
		memset(to, 0xff, 6);
	else
		memcpy(to, mac, 6);
}

/* vlan < 0: no tag. */
static void frame_make(struct frame *f, unsigned to, unsigned from, int vlan, uint32_t len)
{
	uint32_t at = 12;

	for (uint32_t i = 0; i < len; i++)
		f->data[i] = (uint8_t)(i * 7 + from);
	mac_put(f->data, to);
	mac_put(f->data + 6, from);
	if (vlan >= 0) {
		f->data[12] = 0x81;
		f->data[13] = 0x00;
		f->data[14] = (uint8_t)(0xa0 | vlan >> 8); /* priority 5 */
		f->data[15] = (uint8_t)vlan;
		at = 16;
	}
	f->data[at] = 0x88;
	f->data[at + 1] = 0xb5;
	f->len = len;
}

static void send_hdr(struct rig *r, unsigned port, const struct frame *f, struct net_vnet_hdr hdr)
{
	/* in two pieces, cut within the addresses */
	struct iovec segs[2] = {
		{(void *)(uintptr_t)f->data, 7}, {(void *)(uintptr_t)(f->data + 7), f->len - 7}};
	struct net_packet pkt = {.segs = segs, .nsegs = 2, .len = f->len, .hdr = hdr};
	struct net_packet *list = &pkt;

	CU_ASSERT_EQUAL(net_port_send(r->port[port], 0, &list, 1), 1);
}

static void send(struct rig *r, unsigned port, const struct frame *f)
{
	send_hdr(r, port, f, (struct net_vnet_hdr){0});
}

/* The next frame at a port; its length, 0: none. */
static uint32_t receive_queue(struct rig *r, unsigned port, unsigned q, struct net_vnet_hdr *hdr)
{
	struct iovec seg = {got, sizeof(got)};
	struct net_buffer b = {.segs = &seg, .nsegs = 1, .room = NET_FRAME_MAX};

	if (!net_port_receive(r->port[port], q, &b, 1))
		return 0;
	if (hdr)
		*hdr = b.hdr;
	return b.len;
}

static uint32_t receive(struct rig *r, unsigned port)
{
	return receive_queue(r, port, 0, NULL);
}

static bool arrives(struct rig *r, unsigned port, const struct frame *f)
{
	return receive(r, port) == f->len && !memcmp(got, f->data, f->len);
}

/* Which ports got a frame, a bit each; all are emptied. */
static unsigned who_got(struct rig *r)
{
	unsigned bits = 0;

	for (unsigned i = 0; i < r->n; i++)
		while (receive(r, i))
			bits |= 1u << i;
	return bits;
}

static struct frame f;

static unsigned reach(struct rig *r, unsigned port, unsigned to, unsigned from, int vlan)
{
	frame_make(&f, to, from, vlan, 100);
	send(r, port, &f);
	return who_got(r);
}

/* ------------------------------------------------------------------ learning */

static void test_learning(void)
{
	struct net_switch_mac macs[8];
	struct rig r;

	rig_open(&r, 0, 0);
	for (unsigned i = 0; i < 4; i++)
		rig_add(&r, (struct net_switch_port_options){0});
	CU_ASSERT_EQUAL(reach(&r, 0, 11, 10, -1), 0xe); /* nobody knows 11 */
	CU_ASSERT_EQUAL(reach(&r, 1, 10, 11, -1), 0x1);
	CU_ASSERT_EQUAL(reach(&r, 0, 11, 10, -1), 0x2);
	CU_ASSERT_EQUAL(reach(&r, 0, UINT32_MAX, 10, -1), 0xe);
	CU_ASSERT_EQUAL(reach(&r, 1, 11, 12, -1), 0); /* never back to where it came from */
	CU_ASSERT_EQUAL(net_switch_macs_get(r.sw, macs, 8), 3);
	/* 11 moves to another port */
	CU_ASSERT_EQUAL(reach(&r, 3, 10, 11, -1), 0x1);
	CU_ASSERT_EQUAL(reach(&r, 0, 11, 10, -1), 0x8);
	/* and what is sent arrives byte for byte */
	for (uint32_t len = 14; len < 65000; len = len * 3 / 2) {
		frame_make(&f, 11, 10, -1, len);
		send(&r, 0, &f);
		CU_ASSERT(arrives(&r, 3, &f));
	}
	net_switch_macs_flush(r.sw);
	CU_ASSERT_EQUAL(net_switch_macs_get(r.sw, macs, 8), 0);
	CU_ASSERT_EQUAL(reach(&r, 0, 11, 10, -1), 0xe);
	/* a removed port's addresses go with it */
	reach(&r, 3, 10, 77, -1);
	net_switch_sleep(r.sw, 0);
	net_port_close(r.port[3]);
	CU_ASSERT_EQUAL(net_switch_port_remove(r.sw, "d"), 0);
	CU_ASSERT_EQUAL(net_switch_port_remove(r.sw, "d"), -ENOENT);
	CU_ASSERT_EQUAL(net_switch_port_remove(r.sw, "c"), -EBUSY);
	r.n--;
	CU_ASSERT_EQUAL(net_switch_macs_get(r.sw, macs, 8), 1);
	CU_ASSERT_EQUAL(reach(&r, 0, 77, 10, -1), 0x6);
	rig_close(&r);
}

static void test_ageing(void)
{
	struct net_switch_mac macs[8];
	struct rig r;
	unsigned i;

	rig_open(&r, 1, 0);
	for (i = 0; i < 3; i++)
		rig_add(&r, (struct net_switch_port_options){0});
	net_switch_poll(r.sw, 0);
	reach(&r, 1, 10, 11, -1);
	CU_ASSERT_EQUAL(reach(&r, 0, 11, 10, -1), 0x2);
	CU_ASSERT_EQUAL(net_switch_macs_get(r.sw, macs, 8), 2);
	for (i = 0; i < 100 && net_switch_macs_get(r.sw, macs, 8); i++)
		usleep(100000);
	CU_ASSERT(i < 100);
	net_switch_poll(r.sw, 0);
	CU_ASSERT_EQUAL(reach(&r, 0, 11, 10, -1), 0x6);
	rig_close(&r);
}

/*
 * Whoever makes up addresses displaces his own. He does so first: while he has fewer than another
 * port, that port gives way. Where an address goes is random, and five of the other port's sixteen
 * in one bucket of four happen once in 4,000 runs: one may be lost.
 */
static void test_table_full(void)
{
	struct net_switch_mac *macs = calloc(4096, sizeof(*macs));
	unsigned n, others = 0, reached = 0;
	struct rig r;

	rig_open(&r, 0, 256);
	for (unsigned i = 0; i < 3; i++)
		rig_add(&r, (struct net_switch_port_options){0});
	for (unsigned i = 0; i < 500; i++)
		reach(&r, 0, 1000, 5000 + i, -1);
	for (unsigned i = 0; i < 16; i++)
		reach(&r, 1, 10, 1000 + i, -1);
	for (unsigned i = 500; i < 20000; i++)
		reach(&r, 0, 1000, 5000 + i, -1);
	n = net_switch_macs_get(r.sw, macs, 4096);
	CU_ASSERT(n <= 256);
	for (unsigned i = 0; i < n; i++)
		others += macs[i].port[0] == 'b';
	CU_ASSERT(others >= 15);
	for (unsigned i = 0; i < 16; i++)
		reached += reach(&r, 2, 1000 + i, 12, -1) == 0x2;
	CU_ASSERT_EQUAL(reached, others);
	rig_close(&r);
	free(macs);
}

/* ------------------------------------------------------------------ VLANs */

static struct net_switch_port_options trunk(uint16_t native, uint16_t a, uint16_t b)
{
	struct net_switch_port_options o = {.trunk = true, .vlan = native};

	o.allowed[a / 64] |= 1ull << a % 64;
	o.allowed[b / 64] |= 1ull << b % 64;
	return o;
}

static void test_vlans(void)
{
	struct frame want;
	struct rig r;

	rig_open(&r, 0, 0);
	rig_add(&r, (struct net_switch_port_options){.vlan = 10});
	rig_add(&r, (struct net_switch_port_options){.vlan = 10});
	rig_add(&r, (struct net_switch_port_options){.vlan = 20});
	rig_add(&r, trunk(30, 10, 20));
	rig_add(&r, (struct net_switch_port_options){.vlan = 30});
	rig_add(&r, (struct net_switch_port_options){.trunk = true}); /* all, tagged */
	CU_ASSERT_EQUAL(reach(&r, 0, UINT32_MAX, 10, -1), 0x2a);
	CU_ASSERT_EQUAL(reach(&r, 2, UINT32_MAX, 12, -1), 0x28);
	CU_ASSERT_EQUAL(reach(&r, 4, UINT32_MAX, 14, -1), 0x28);
	CU_ASSERT_EQUAL(reach(&r, 3, UINT32_MAX, 13, 10), 0x23);
	CU_ASSERT_EQUAL(reach(&r, 3, UINT32_MAX, 13, 20), 0x24);
	CU_ASSERT_EQUAL(reach(&r, 3, UINT32_MAX, 13, -1), 0x30);
	CU_ASSERT_EQUAL(reach(&r, 3, UINT32_MAX, 13, 0), 0x30);
	/* what would hop */
	CU_ASSERT_EQUAL(reach(&r, 0, UINT32_MAX, 10, 20), 0);
	CU_ASSERT_EQUAL(reach(&r, 0, UINT32_MAX, 10, 10), 0);
	CU_ASSERT_EQUAL(reach(&r, 3, UINT32_MAX, 13, 30), 0);
	CU_ASSERT_EQUAL(reach(&r, 3, UINT32_MAX, 13, 4095), 0);
	CU_ASSERT_EQUAL(reach(&r, 5, UINT32_MAX, 15, -1), 0);
	CU_ASSERT(info(&r, 0).filtered >= 2);
	/* the same address in two VLANs is two */
	reach(&r, 0, UINT32_MAX, 50, -1);
	reach(&r, 2, UINT32_MAX, 50, -1);
	CU_ASSERT_EQUAL(reach(&r, 3, 50, 13, 10), 0x1);
	CU_ASSERT_EQUAL(reach(&r, 3, 50, 13, 20), 0x4);
	/* the tag is put in and taken out, and the rest stays */
	frame_make(&f, 13, 50, -1, 200);
	send(&r, 2, &f);
	frame_make(&want, 13, 50, 20, 204);
	CU_ASSERT_EQUAL(receive(&r, 3), 204);
	CU_ASSERT(!memcmp(got, want.data, 12) && got[12] == 0x81 && got[13] == 0);
	CU_ASSERT_EQUAL(got[14] << 8 | got[15], 20);
	CU_ASSERT(!memcmp(got + 16, f.data + 12, 188));
	frame_make(&f, 50, 13, 20, 204);
	send(&r, 3, &f);
	CU_ASSERT_EQUAL(receive(&r, 2), 200);
	CU_ASSERT(!memcmp(got, f.data, 12) && !memcmp(got + 12, f.data + 16, 188));
	/* from trunk to trunk with its priority */
	CU_ASSERT_EQUAL(who_got(&r), 0);
	reach(&r, 5, UINT32_MAX, 15, 20);
	frame_make(&f, 15, 13, 20, 204);
	send(&r, 3, &f);
	CU_ASSERT(arrives(&r, 5, &f));
	rig_close(&r);
}

static void test_change(void)
{
	struct net_switch_port_options o = {.name = "b", .vlan = 7};
	struct rig r;

	rig_open(&r, 0, 0);
	for (unsigned i = 0; i < 3; i++)
		rig_add(&r, (struct net_switch_port_options){0});
	CU_ASSERT_EQUAL(reach(&r, 0, UINT32_MAX, 10, -1), 0x6);
	net_switch_sleep(r.sw, 0);
	CU_ASSERT_EQUAL(net_switch_port_set(r.sw, &o, why), 0);
	CU_ASSERT_EQUAL(reach(&r, 0, UINT32_MAX, 10, -1), 0x4);
	CU_ASSERT_EQUAL(info(&r, 1).options.vlan, 7);
	o.vlan = 1;
	o.isolated = true;
	net_switch_sleep(r.sw, 0);
	CU_ASSERT_EQUAL(net_switch_port_set(r.sw, &o, why), 0);
	CU_ASSERT_EQUAL(reach(&r, 0, UINT32_MAX, 10, -1), 0x6);
	o.name[0] = 'c';
	CU_ASSERT_EQUAL(net_switch_port_set(r.sw, &o, why), 0);
	CU_ASSERT_EQUAL(reach(&r, 0, UINT32_MAX, 10, -1), 0x6);
	CU_ASSERT_EQUAL(reach(&r, 1, UINT32_MAX, 11, -1), 0x1);
	CU_ASSERT_EQUAL(reach(&r, 2, 11, 12, -1), 0); /* nor when it is known */
	o.vlan = 4095;
	CU_ASSERT_EQUAL(net_switch_port_set(r.sw, &o, why), -EINVAL);
	o.name[0] = 'x';
	o.vlan = 1;
	CU_ASSERT_EQUAL(net_switch_port_set(r.sw, &o, why), -ENOENT);
	rig_close(&r);
}

/* ------------------------------------------------------------------ rates */

static void test_rates(void)
{
	struct net_switch_port_info i;
	unsigned n = 0;
	struct rig r;

	rig_open(&r, 0, 0);
	rig_add(&r, (struct net_switch_port_options){.in.frames_per_s = 10});
	rig_add(&r, (struct net_switch_port_options){0});
	rig_add(&r, (struct net_switch_port_options){.out.bytes_per_s = 100000});
	net_switch_poll(r.sw, 0);
	/* time does not pass between two polls: what gets through is a burst */
	frame_make(&f, UINT32_MAX, 10, -1, 1000);
	for (unsigned k = 0; k < 200; k++)
		send(&r, 0, &f);
	while (receive(&r, 1))
		n++;
	CU_ASSERT_EQUAL(n, 32);
	CU_ASSERT_EQUAL(info(&r, 0).limited_in, 200 - 32);
	who_got(&r);
	for (unsigned k = 0; k < 200; k++)
		send(&r, 1, &f);
	for (n = 0; receive(&r, 2);)
		n++;
	i = info(&r, 2);
	CU_ASSERT_EQUAL(n + 32, NET_FRAME_MAX / 1000);
	CU_ASSERT_EQUAL(i.limited_out, 200 + 32 - NET_FRAME_MAX / 1000);
	who_got(&r);
	/* and after a while there is more */
	usleep(300000);
	net_switch_poll(r.sw, 0);
	send(&r, 0, &f);
	CU_ASSERT_EQUAL(who_got(&r), 0x6);
	rig_close(&r);
}

/* ------------------------------------------------------------------ bad frames */

static void test_bad(void)
{
	struct net_vnet_hdr bad[] = {
		{.flags = NET_HDR_F_NEEDS_CSUM, .csum_start = 90, .csum_offset = 10},
		{.flags = NET_HDR_F_NEEDS_CSUM, .csum_start = 4, .csum_offset = 2},
		{.flags = NET_HDR_F_NEEDS_CSUM,
			.gso_type = NET_GSO_UDP,
			.gso_size = 100,
			.csum_start = 34,
			.csum_offset = 6},
		{.flags = NET_HDR_F_NEEDS_CSUM, .gso_type = 77, .gso_size = 100, .csum_start = 34},
	};
	const uint8_t reserved[6] = {0x01, 0x80, 0xc2, 0, 0, 0x0e};
	struct net_switch_mac macs[8];
	struct rig r;

	rig_open(&r, 0, 0);
	rig_add(&r, (struct net_switch_port_options){0});
	rig_add(&r, (struct net_switch_port_options){.trunk = true, .vlan = 1});
	frame_make(&f, UINT32_MAX, 10, -1, 100);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		send_hdr(&r, 0, &f, bad[i]);
	f.len = 13;
	send(&r, 0, &f);
	frame_make(&f, UINT32_MAX, 10, 5, 17); /* half a tag */
	send(&r, 1, &f);
	CU_ASSERT_EQUAL(who_got(&r), 0);
	CU_ASSERT_EQUAL(info(&r, 0).counters.errors, 5);
	CU_ASSERT_EQUAL(info(&r, 1).counters.errors, 1);
	/* link-local protocols end at a switch */
	frame_make(&f, 11, 10, -1, 100);
	memcpy(f.data, reserved, 6);
	send(&r, 0, &f);
	CU_ASSERT_EQUAL(who_got(&r), 0);
	/* a group is nobody's address, nor is 0 */
	net_switch_macs_flush(r.sw);
	frame_make(&f, UINT32_MAX, UINT32_MAX, -1, 100);
	send(&r, 0, &f);
	memset(f.data + 6, 0, 6);
	send(&r, 0, &f);
	CU_ASSERT_EQUAL(net_switch_macs_get(r.sw, macs, 8), 0);
	rig_close(&r);
}

static void test_options(void)
{
	struct net_switch_port_options o = {.name = "a b"};
	struct net_switch_options so = {.workers = 0};
	struct net_switch *sw;
	struct net_port *p;
	struct rig r;

	CU_ASSERT_EQUAL(net_switch_create(&sw, &so, why), -EINVAL);
	so.workers = NET_SWITCH_WORKERS_MAX + 1;
	CU_ASSERT_EQUAL(net_switch_create(&sw, &so, why), -EINVAL);
	rig_open(&r, 0, 0);
	CU_ASSERT_EQUAL(net_switch_port_add(r.sw, &o, &p, why), -EINVAL);
	o = (struct net_switch_port_options){.name = "a", .worker = 1};
	CU_ASSERT_EQUAL(net_switch_port_add(r.sw, &o, &p, why), -EINVAL);
	o = (struct net_switch_port_options){.name = "a", .queues = NET_QUEUES_MAX + 1};
	CU_ASSERT_EQUAL(net_switch_port_add(r.sw, &o, &p, why), -EINVAL);
	rig_add(&r, (struct net_switch_port_options){0});
	o = (struct net_switch_port_options){.name = "a"};
	CU_ASSERT_EQUAL(net_switch_port_add(r.sw, &o, &p, why), -EEXIST);
	rig_close(&r);
}

/* ------------------------------------------------------------------ queues */

static void ip_make(unsigned flow, bool back)
{
	frame_make(&f, back ? 10 : 11, back ? 11 : 10, -1, 80);
	memset(f.data + 12, 0, 68);
	f.data[12] = 0x08;
	f.data[13] = 0x00;
	f.data[14] = 0x45;
	f.data[23] = 6;
	f.data[26 + (back ? 4 : 0)] = 10;
	f.data[29 + (back ? 4 : 0)] = 1;
	f.data[30 - (back ? 4 : 0)] = 10;
	f.data[33 - (back ? 4 : 0)] = 2;
	f.data[34 + (back ? 2 : 0)] = (uint8_t)(flow >> 8);
	f.data[35 + (back ? 2 : 0)] = (uint8_t)flow;
	f.data[37 - (back ? 2 : 0)] = 80;
}

static unsigned queue_of(struct rig *r, unsigned port)
{
	unsigned at = NET_QUEUES_MAX;

	for (unsigned q = 0; q < 4; q++)
		while (receive_queue(r, port, q, NULL))
			at = q;
	return at;
}

static void test_queues(void)
{
	unsigned count[4] = {0};
	struct rig r;

	rig_open(&r, 0, 0);
	rig_add(&r, (struct net_switch_port_options){.queues = 4});
	rig_add(&r, (struct net_switch_port_options){.queues = 4});
	reach(&r, 0, 11, 10, -1);
	reach(&r, 1, 10, 11, -1);
	queue_of(&r, 0);
	queue_of(&r, 1);
	for (unsigned flow = 0; flow < 400; flow++) {
		unsigned q;

		ip_make(flow, false);
		send(&r, 0, &f);
		q = queue_of(&r, 1);
		CU_ASSERT_FATAL(q < 4);
		count[q]++;
		send(&r, 0, &f);
		CU_ASSERT_EQUAL(queue_of(&r, 1), q);
		ip_make(flow, true);
		send(&r, 1, &f);
		CU_ASSERT_EQUAL(queue_of(&r, 0), q);
	}
	for (unsigned q = 0; q < 4; q++)
		CU_ASSERT(count[q] > 50);
	/* only queues that are in use get any */
	CU_ASSERT_EQUAL(net_port_queues_set(r.port[1], 2), 0);
	for (unsigned flow = 0; flow < 100; flow++) {
		ip_make(flow, false);
		send(&r, 0, &f);
		CU_ASSERT(queue_of(&r, 1) < 2);
	}
	rig_close(&r);
}

/* ------------------------------------------------------------------ handing over */

struct taken {
	unsigned most, n;
	uint8_t seq[256];
};

static unsigned take(void *ctx, struct net_packet *const *pkts, unsigned n)
{
	struct taken *t = ctx;
	unsigned k = 0;

	while (k < n && t->n < t->most) {
		const struct iovec *last = &pkts[k]->segs[pkts[k]->nsegs - 1];

		t->seq[t->n++] = ((uint8_t *)last->iov_base)[last->iov_len - 1];
		k++;
	}
	return k;
}

static void test_taker(void)
{
	struct taken t = {.most = 5};
	struct rig r;
	unsigned n;

	rig_open(&r, 0, 0);
	rig_add(&r, (struct net_switch_port_options){0});
	rig_add(&r, (struct net_switch_port_options){0});
	net_port_taker_set(r.port[1], 0, &(struct net_taker){take, &t});
	for (unsigned i = 0; i < 20; i++) {
		frame_make(&f, UINT32_MAX, 10, -1, 60);
		f.data[59] = (uint8_t)i;
		send(&r, 0, &f);
	}
	CU_ASSERT_EQUAL(t.n, 5);
	/* there is room again, and what waits comes first */
	t.most = 12;
	f.data[59] = 20;
	send(&r, 0, &f);
	CU_ASSERT_EQUAL(t.n, 12);
	/* also if its user asks */
	CU_ASSERT_EQUAL(receive(&r, 1), 60);
	CU_ASSERT_EQUAL(got[59], 12);
	t.seq[t.n++] = got[59];
	t.most = 256;
	f.data[59] = 21;
	send(&r, 0, &f);
	CU_ASSERT_EQUAL(t.n, 22);
	for (n = 0; n < 22; n++)
		CU_ASSERT_EQUAL(t.seq[n], n);
	/* what nobody takes is bounded */
	net_port_taker_set(r.port[1], 0, NULL);
	frame_make(&f, UINT32_MAX, 10, -1, 1500);
	for (unsigned i = 0; i < 1000; i++)
		send(&r, 0, &f);
	for (n = 0; receive(&r, 1);)
		n++;
	CU_ASSERT(n > 100 && n < 300);
	CU_ASSERT_EQUAL(info(&r, 1).full + n, 1000);
	rig_close(&r);
}

/* ------------------------------------------------------------------ offloads, joined ports */

static void tso_make(uint32_t payload)
{
	frame_make(&f, UINT32_MAX, 10, -1, 54 + payload);
	memset(f.data + 12, 0, 42);
	f.data[12] = 0x08;
	f.data[13] = 0x00;
	f.data[14] = 0x45;
	f.data[16] = (uint8_t)((40 + payload) >> 8);
	f.data[17] = (uint8_t)(40 + payload);
	f.data[22] = 64;
	f.data[23] = 6;
	f.data[26] = f.data[30] = 10;
	f.data[46] = 0x50;
}

static const struct net_vnet_hdr tso = {
	.flags = NET_HDR_F_NEEDS_CSUM,
	.gso_type = NET_GSO_TCPV4,
	.gso_size = 1448,
	.hdr_len = 54,
	.csum_start = 34,
	.csum_offset = 16,
};

static void test_offloads(void)
{
	struct net_vnet_hdr hdr = {0};
	uint32_t len, payload = 0;
	struct rig r;

	rig_open(&r, 0, 0);
	rig_add(&r, (struct net_switch_port_options){0});
	rig_add(&r, (struct net_switch_port_options){0});
	rig_add(&r, (struct net_switch_port_options){.trunk = true});
	rig_add(&r, (struct net_switch_port_options){0});
	CU_ASSERT_EQUAL(net_port_offloads_set(r.port[1], NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4), 0);
	CU_ASSERT_EQUAL(net_port_offloads_set(r.port[2], NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4), 0);
	tso_make(40000);
	send_hdr(&r, 0, &f, tso);
	/* whole */
	CU_ASSERT_EQUAL(receive_queue(&r, 1, 0, &hdr), 40054);
	CU_ASSERT(!memcmp(got, f.data, f.len));
	CU_ASSERT(hdr.gso_type == NET_GSO_TCPV4 && hdr.gso_size == 1448 && hdr.csum_start == 34);
	/* with a tag everything is four bytes later */
	CU_ASSERT_EQUAL(receive_queue(&r, 2, 0, &hdr), 40058);
	CU_ASSERT(hdr.csum_start == 38 && hdr.hdr_len == 58);
	/* in pieces */
	while ((len = receive_queue(&r, 3, 0, &hdr))) {
		CU_ASSERT(len <= 1448 + 54 && !hdr.gso_type && !hdr.flags);
		CU_ASSERT(!memcmp(got + 54, f.data + 54 + payload, len - 54));
		payload += len - 54;
	}
	CU_ASSERT_EQUAL(payload, 40000);
	rig_close(&r);
}

/* A joined port is anybody's: here the other end of a pair, without offloads of its own. */
static void test_joined(void)
{
	struct net_switch_port_options o = {.name = "j"};
	struct net_port *end;
	struct rig r;
	unsigned n = 0;

	rig_open(&r, 0, 0);
	rig_add(&r, (struct net_switch_port_options){0});
	CU_ASSERT_EQUAL_FATAL(net_pair_open(&o.join, &end, 1, why), 0);
	CU_ASSERT_EQUAL_FATAL(net_switch_port_add(r.sw, &o, NULL, why), 0);
	r.port[1] = end;
	r.n = 2;
	frame_make(&f, UINT32_MAX, 10, -1, 1000);
	send(&r, 0, &f);
	CU_ASSERT(arrives(&r, 1, &f));
	frame_make(&f, 10, 11, -1, 900);
	for (unsigned i = 0; i < 50; i++)
		send(&r, 1, &f);
	for (unsigned i = 0; i < 1000 && n < 50; i++) {
		net_switch_poll(r.sw, 0);
		while (arrives(&r, 0, &f))
			n++;
		usleep(1000);
	}
	CU_ASSERT_EQUAL(n, 50);
	while (net_switch_poll(r.sw, 0))
		;
	CU_ASSERT_FALSE(net_switch_sleep(r.sw, 0));
	send(&r, 1, &f);
	CU_ASSERT_EQUAL(poll(&(struct pollfd){net_switch_fd(r.sw, 0), POLLIN, 0}, 1, 20000), 1);
	net_switch_awake(r.sw, 0);
	for (unsigned i = 0; i < 1000 && !net_switch_poll(r.sw, 0); i++)
		usleep(1000);
	CU_ASSERT(arrives(&r, 0, &f));
	net_switch_sleep(r.sw, 0);
	net_port_close(end);
	CU_ASSERT_EQUAL(net_switch_port_remove(r.sw, "j"), 0);
	r.n = 1;
	rig_close(&r);
}

static void woken(void *ctx, unsigned worker)
{
	((unsigned *)ctx)[worker]++;
}

/* A port that is polled, for a worker that sleeps already. */
static void test_joined_asleep(void)
{
	const struct net_mem_options source = {.kind = NET_MEM_SOURCE, .queues = 1};
	struct net_switch_port_options o = {.name = "source", .worker = 1};
	unsigned wakes[2] = {0};
	const struct net_switch_options two = {.workers = 2, .wake = woken, .ctx = wakes};
	struct net_switch *sw;

	CU_ASSERT_EQUAL_FATAL(net_switch_create(&sw, &two, why), 0);
	CU_ASSERT_FALSE(net_switch_sleep(sw, 0));
	CU_ASSERT_FALSE(net_switch_sleep(sw, 1));
	CU_ASSERT_EQUAL_FATAL(net_mem_open(&o.join, &source, why), 0);
	CU_ASSERT_EQUAL_FATAL(net_switch_port_add(sw, &o, NULL, why), 0);
	CU_ASSERT_EQUAL(wakes[0], 0);
	CU_ASSERT_EQUAL(wakes[1], 1);
	CU_ASSERT_TRUE(net_switch_poll(sw, 1) > 0);
	CU_ASSERT_TRUE(net_switch_sleep(sw, 1));
	CU_ASSERT_EQUAL(net_switch_port_remove(sw, "source"), 0);
	net_switch_destroy(sw);
}

static const struct unit_case cases[] = {
	{"learning, moving, forgetting", test_learning},
	{"ageing", test_ageing},
	{"a table that one port would fill", test_table_full},
	{"VLANs", test_vlans},
	{"changes, isolation", test_change},
	{"rates", test_rates},
	{"bad frames", test_bad},
	{"bad options", test_options},
	{"queues by flow", test_queues},
	{"frames handed over", test_taker},
	{"offloads", test_offloads},
	{"joined ports", test_joined},
	{"a joined port for a sleeper", test_joined_asleep},
};

UNIT_MAIN("switch", cases)
