/* SPDX-License-Identifier: BSD-2-Clause */
/* Checksums over scattered segments, and large frames cut for a receiver that takes none. */
#include "tests/unit/unit.h"
#include "netbridge/netbridge.h"

#include <errno.h>
#include <string.h>

static uint32_t rnd_state = 12345;

static uint32_t rnd(void)
{
	rnd_state = rnd_state * 1664525 + 1013904223;
	return rnd_state >> 8;
}

/* The slow way: 16 bits at a time, big-endian. */
static uint32_t sum16(uint32_t sum, const uint8_t *p, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		sum += (uint32_t)p[i] << (i & 1 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint32_t get(const uint8_t *p, unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

static void put(uint8_t *p, unsigned bytes, uint32_t v)
{
	for (unsigned i = bytes; i-- > 0; v >>= 8)
		p[i] = (uint8_t)v;
}

/* ------------------------------------------------------------------ checksum */

static void test_checksum_scattered(void)
{
	uint8_t plain[3000], spread[6000];
	struct iovec segs[64];
	unsigned bad = 0;

	for (unsigned round = 0; round < 2000; round++) {
		uint32_t len = 40 + rnd() % 2900, start = rnd() % 38, at = 0, to = 0, n = 0, want;
		struct net_packet pkt = {.segs = segs, .len = len};

		pkt.hdr.flags = NET_HDR_F_NEEDS_CSUM | NET_HDR_F_DATA_VALID;
		pkt.hdr.csum_start = (uint16_t)start;
		pkt.hdr.csum_offset = (uint16_t)(rnd() % (len - start - 1));
		for (uint32_t i = 0; i < len; i++)
			plain[i] = round & 1 ? (uint8_t)rnd() : 0xff;
		while (at < len) {
			uint32_t piece = n == 63 ? len - at : rnd() % (n & 1 ? 9 : 150);

			if (piece > len - at)
				piece = len - at;
			memcpy(spread + to, plain + at, piece);
			segs[n++] = (struct iovec){spread + to, piece};
			at += piece;
			to += piece + rnd() % 3;
		}
		pkt.nsegs = n;
		want = ~sum16(0, plain + start, len - start) & 0xffff;
		put(plain + start + pkt.hdr.csum_offset, 2, want ? want : 0xffff);
		bad += net_checksum_finish(&pkt) != 0;
		bad += pkt.hdr.flags != NET_HDR_F_DATA_VALID;
		for (at = 0, n = 0; n < pkt.nsegs; at += (uint32_t)segs[n++].iov_len)
			bad += memcmp(plain + at, segs[n].iov_base, segs[n].iov_len) != 0;
	}
	CU_ASSERT_EQUAL(bad, 0);
}

static void test_checksum_bounds(void)
{
	uint8_t data[100], copy[100];
	struct iovec seg = {data, 100};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = 100};

	memset(data, 7, 100);
	memset(copy, 7, 100);
	CU_ASSERT_EQUAL(net_checksum_finish(&pkt), 0);
	pkt.hdr.flags = NET_HDR_F_NEEDS_CSUM;
	pkt.hdr.csum_start = 90;
	pkt.hdr.csum_offset = 9;
	CU_ASSERT_EQUAL(net_checksum_finish(&pkt), -EINVAL);
	pkt.hdr.csum_start = 0xffff;
	pkt.hdr.csum_offset = 0xffff;
	CU_ASSERT_EQUAL(net_checksum_finish(&pkt), -EINVAL);
	CU_ASSERT_EQUAL(pkt.hdr.flags, NET_HDR_F_NEEDS_CSUM);
	CU_ASSERT_EQUAL(memcmp(data, copy, 100), 0);
	pkt.hdr.csum_start = 90;
	pkt.hdr.csum_offset = 8;
	CU_ASSERT_EQUAL(net_checksum_finish(&pkt), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(data, copy, 100), 0);
}

/* ------------------------------------------------------------------ segmentation */

struct shape {
	bool v6, udp, ecn;
	unsigned vlans, options; /* options: bytes behind the IPv4 and the TCP header */
	uint32_t payload;
	uint16_t size;
};

struct big {
	uint8_t data[NET_FRAME_MAX];
	uint32_t len, l3, l4, headers;
	struct iovec seg;
	struct net_packet pkt;
};

static struct big big;

#define SEQ   0xfffffe00u
#define IP_ID 0xfffeu

/* As a guest's stack hands it over: lengths of the whole, checksum of the pseudo header only. */
static void big_make(const struct shape *s)
{
	uint8_t *p = big.data, *ip, *l4;
	uint32_t l4_header = s->udp ? 8 : 20 + s->options;
	uint32_t ip_header = s->v6 ? 40 : 20 + s->options;

	for (uint32_t i = 0; i < sizeof(big.data); i++)
		p[i] = (uint8_t)rnd();
	for (unsigned v = 0; v < s->vlans; v++)
		put(p + 12 + 4 * v, 2, v + 1 < s->vlans ? 0x88a8 : 0x8100);
	big.l3 = 14 + 4 * s->vlans;
	put(p + big.l3 - 2, 2, s->v6 ? 0x86dd : 0x0800);
	big.l4 = big.l3 + ip_header;
	big.headers = big.l4 + l4_header;
	big.len = big.headers + s->payload;
	ip = p + big.l3;
	l4 = p + big.l4;
	if (s->v6) {
		ip[0] = 0x60;
		ip[6] = s->udp ? 17 : 6;
		put(ip + 4, 2, big.len - big.l4);
	} else {
		ip[0] = (uint8_t)(0x40 | ip_header / 4);
		put(ip + 2, 2, big.len - big.l3);
		put(ip + 4, 2, IP_ID);
		put(ip + 6, 2, 0x4000);
		ip[9] = s->udp ? 17 : 6;
	}
	if (s->udp) {
		put(l4 + 4, 2, big.len - big.l4);
	} else {
		put(l4 + 4, 4, SEQ);
		l4[12] = (uint8_t)(l4_header / 4 << 4);
		l4[13] = 0x10 | 0x08 | 0x01 | (s->ecn ? 0x80 : 0);
	}
	big.seg = (struct iovec){p, big.len};
	big.pkt = (struct net_packet){.segs = &big.seg, .nsegs = 1, .len = big.len};
	big.pkt.hdr.flags = NET_HDR_F_NEEDS_CSUM;
	big.pkt.hdr.gso_type = (uint8_t)(s->udp  ? NET_GSO_UDP_L4
					 : s->v6 ? NET_GSO_TCPV6
						 : NET_GSO_TCPV4);
	if (s->ecn)
		big.pkt.hdr.gso_type |= NET_GSO_ECN;
	big.pkt.hdr.hdr_len = (uint16_t)big.headers;
	big.pkt.hdr.gso_size = s->size;
	big.pkt.hdr.csum_start = (uint16_t)big.l4;
	big.pkt.hdr.csum_offset = s->udp ? 6 : 16;
}

/* Is this the nth segment of the big frame, `bytes` of payload from `at` on? */
static bool segment_good(const struct shape *s, const uint8_t *p, uint32_t len, uint32_t n,
	uint32_t at, uint32_t bytes, bool last)
{
	const uint8_t *ip = p + big.l3, *l4 = p + big.l4;
	uint32_t l4_len = len - big.l4, sum = (s->udp ? 17 : 6) + l4_len;
	bool good = len == big.headers + bytes && !memcmp(p, big.data, big.l3);

	good = good && !memcmp(p + big.headers, big.data + big.headers + at, bytes);
	if (s->v6) {
		sum = sum16(sum, ip + 8, 32);
		good = good && get(ip + 4, 2) == l4_len &&
		       !memcmp(ip + 6, big.data + big.l3 + 6, 34);
	} else {
		sum = sum16(sum, ip + 12, 8);
		good = good && get(ip + 2, 2) == len - big.l3 && get(ip + 6, 2) == 0x4000 &&
		       get(ip + 4, 2) == ((IP_ID + n) & 0xffff) &&
		       sum16(0, ip, big.l4 - big.l3) == 0xffff;
	}
	good = good && sum16(sum, l4, l4_len) == 0xffff;
	if (s->udp)
		return good && get(l4 + 4, 2) == l4_len && get(l4 + 6, 2) != 0;
	return good && get(l4 + 4, 4) == SEQ + at &&
	       get(l4 + 8, 4) == get(big.data + big.l4 + 8, 4) &&
	       (l4[13] & 0x09) == (last ? 0x09 : 0) && (l4[13] & 0x10) &&
	       !!(l4[13] & 0x80) == (s->ecn && !n) &&
	       !memcmp(l4 + 20, big.data + big.l4 + 20, big.headers - big.l4 - 20);
}

static void pair(struct net_port **a, struct net_port **b, uint32_t accepted)
{
	char why[NET_WHY_MAX];

	CU_ASSERT_EQUAL_FATAL(net_pair_open(a, b, 1, why), 0);
	CU_ASSERT_EQUAL_FATAL(net_port_offloads_set(*b, accepted), 0);
}

static void segment_check(const struct shape *s, uint32_t accepted)
{
	static uint8_t got[3][70000];
	struct iovec segs[3][2];
	struct net_buffer bufs[3];
	struct net_port *a, *b;
	struct net_packet *p = &big.pkt;
	struct net_counters c;
	uint32_t n = 0, at = 0, bad = 0, count;

	big_make(s);
	pair(&a, &b, accepted);
	for (unsigned i = 0; i < 3; i++) {
		segs[i][0] = (struct iovec){got[i], 31};
		segs[i][1] = (struct iovec){got[i] + 31, sizeof(got[i]) - 31};
		bufs[i] = (struct net_buffer){.segs = segs[i], .nsegs = 2, .room = sizeof(got[i])};
	}
	CU_ASSERT_EQUAL(net_port_send(a, 0, &p, 1), 1);
	while ((count = net_port_receive(b, 0, bufs, 3)))
		for (uint32_t i = 0; i < count; i++, n++) {
			uint32_t bytes = s->payload - at < s->size ? s->payload - at : s->size;

			bad += !segment_good(
				s, got[i], bufs[i].len, n, at, bytes, at + bytes == s->payload);
			bad += bufs[i].hdr.flags || bufs[i].hdr.gso_type || bufs[i].hdr.gso_size;
			at += bytes;
		}
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT_EQUAL(at, s->payload);
	CU_ASSERT_EQUAL(n, s->payload ? (s->payload + s->size - 1) / s->size : 1);
	net_port_counters_get(b, &c);
	CU_ASSERT_EQUAL(c.rx_packets, n);
	CU_ASSERT_EQUAL(c.rx_dropped, 0);
	net_port_close(a);
	net_port_close(b);
}

static void test_tcp4(void)
{
	const struct shape s[] = {
		{.payload = 65483, .size = 1460},
		{.payload = 14600, .size = 1460},
		{.payload = 1461, .size = 1460, .options = 12},
		{.payload = 1460, .size = 1460, .options = 40},
		{.payload = 1, .size = 1460},
		{.payload = 0, .size = 1460},
		{.payload = 5001, .size = 29, .vlans = 1, .ecn = true},
		{.payload = 9999, .size = 999, .vlans = 2, .options = 4},
	};

	for (unsigned i = 0; i < sizeof(s) / sizeof(s[0]); i++) {
		segment_check(&s[i], 0);
		segment_check(&s[i], NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO6);
	}
	/* Large frames accepted, but not with ECN. */
	segment_check(&s[6], NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
}

static void test_tcp6(void)
{
	const struct shape s[] = {
		{.v6 = true, .payload = 65449, .size = 1440},
		{.v6 = true, .payload = 1441, .size = 1440, .options = 12, .ecn = true},
		{.v6 = true, .payload = 3333, .size = 101, .vlans = 2},
	};

	for (unsigned i = 0; i < sizeof(s) / sizeof(s[0]); i++)
		segment_check(&s[i], NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
}

static void test_udp(void)
{
	const struct shape s[] = {
		{.udp = true, .payload = 60001, .size = 1472},
		{.udp = true, .payload = 3000, .size = 1000, .options = 8},
		{.udp = true, .v6 = true, .payload = 3001, .size = 1000, .vlans = 1},
	};

	for (unsigned i = 0; i < sizeof(s) / sizeof(s[0]); i++)
		segment_check(&s[i], NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
}

/* A checksum alone is finished too, or left alone where it is accepted. */
static void test_plain(void)
{
	const struct shape s = {.payload = 501, .size = 1460};
	struct net_packet *p = &big.pkt;
	struct net_port *a, *b;
	uint8_t got[600];
	struct iovec seg = {got, sizeof(got)};
	struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = sizeof(got)};
	uint32_t sum;

	big_make(&s);
	big.pkt.hdr.gso_type = NET_GSO_NONE;
	sum = sum16(6 + big.len - big.l4, big.data + big.l3 + 12, 8);
	put(big.data + big.l4 + 16, 2, sum);
	pair(&a, &b, 0);
	CU_ASSERT_EQUAL(net_port_send(a, 0, &p, 1), 1);
	CU_ASSERT_EQUAL(net_port_receive(b, 0, &buf, 1), 1);
	CU_ASSERT_EQUAL(buf.hdr.flags, 0);
	CU_ASSERT_EQUAL(buf.len, big.len);
	CU_ASSERT_EQUAL(sum16(sum, got + big.l4, big.len - big.l4), 0xffff);
	CU_ASSERT_EQUAL(memcmp(got, big.data, big.l4 + 16), 0);
	CU_ASSERT_EQUAL(get(big.data + big.l4 + 16, 2), sum); /* the sender's copy is untouched */
	CU_ASSERT_EQUAL(net_port_offloads_set(b, NET_OFFLOAD_CSUM), 0);
	CU_ASSERT_EQUAL(net_port_send(a, 0, &p, 1), 1);
	CU_ASSERT_EQUAL(net_port_receive(b, 0, &buf, 1), 1);
	CU_ASSERT_EQUAL(buf.hdr.flags, NET_HDR_F_NEEDS_CSUM);
	CU_ASSERT_EQUAL(memcmp(got, big.data, big.len), 0);
	net_port_close(a);
	net_port_close(b);
}

static void break_l3(void)
{
	big.data[big.l3] = 0x95;
}

static void break_ihl(void)
{
	big.data[big.l3] = 0x46;
}

static void break_fragment(void)
{
	big.data[big.l3 + 6] = 0x20;
}

static void break_proto(void)
{
	big.data[big.l3 + 9] = 17;
}

static void break_type(void)
{
	big.data[13] = 6;
}

static void break_vlans(void)
{
	for (unsigned i = 12; i < 40; i += 4)
		put(big.data + i, 2, 0x8100);
}

static void break_doff(void)
{
	big.data[big.l4 + 12] = 0x40;
}

static void break_doff_long(void)
{
	big.data[big.l4 + 12] = 0xf0;
	big.len = big.l4 + 59;
}

static void break_size(void)
{
	big.pkt.hdr.gso_size = 27;
}

static void break_start(void)
{
	big.pkt.hdr.csum_start += 2;
}

static void break_offset(void)
{
	big.pkt.hdr.csum_offset = 6;
}

static void break_short(void)
{
	big.len = big.l4 + 19;
	big.pkt.hdr.hdr_len = 0;
}

static void break_v6(void)
{
	big.pkt.hdr.gso_type = NET_GSO_TCPV6;
}

static void break_udp(void)
{
	big.pkt.hdr.gso_type = NET_GSO_UDP_L4;
}

/* Nothing a guest may write makes more than a dropped frame. */
static void test_hostile(void)
{
	static void (*const breaks[])(void) = {break_l3, break_ihl, break_fragment, break_proto,
		break_type, break_vlans, break_doff, break_doff_long, break_size, break_start,
		break_offset, break_short, break_v6, break_udp};
	const struct shape s = {.payload = 4000, .size = 1460};
	struct net_packet *p = &big.pkt;
	struct net_port *a, *b;
	static uint8_t got[70000];
	struct iovec seg = {got, sizeof(got)};
	struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = sizeof(got)};
	struct net_counters c;

	pair(&a, &b, 0);
	for (unsigned i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
		big_make(&s);
		breaks[i]();
		big.seg.iov_len = big.len;
		big.pkt.len = big.len;
		CU_ASSERT_EQUAL(net_port_send(a, 0, &p, 1), 1);
		CU_ASSERT_EQUAL(net_port_receive(b, 0, &buf, 1), 0);
		net_port_counters_get(b, &c);
		CU_ASSERT_EQUAL(c.rx_dropped, i + 1);
	}
	/* Headers from a generator: whatever comes out fits and ends. */
	for (unsigned i = 0; i < 3000; i++) {
		big_make(&s);
		for (unsigned k = rnd() % 4; k-- > 0;)
			big.data[12 + rnd() % 60] = (uint8_t)rnd();
		big.pkt.hdr.csum_start = (uint16_t)(rnd() % 3 ? big.l4 : rnd() % 300);
		big.pkt.hdr.gso_size = (uint16_t)(rnd() % 2 ? rnd() : 28 + rnd() % 100);
		big.pkt.len = big.seg.iov_len = big.len - rnd() % 2 * (rnd() % 4030);
		net_port_send(a, 0, &p, 1);
		for (unsigned n = 0; net_port_receive(b, 0, &buf, 1); n++)
			CU_ASSERT_FATAL(n < 4096 && buf.len <= buf.room);
	}
	net_port_close(a);
	net_port_close(b);
}

/* Room for one segment but not the other; the frame behind comes through. */
static void test_room(void)
{
	const struct shape s = {.payload = 1500, .size = 1000};
	struct net_packet *p = &big.pkt;
	struct net_port *a, *b;
	uint8_t got[1000];
	struct iovec seg = {got, sizeof(got)};
	struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = sizeof(got)};
	struct net_counters c;

	big_make(&s);
	pair(&a, &b, 0);
	CU_ASSERT_EQUAL(net_port_send(a, 0, &p, 1), 1);
	CU_ASSERT_EQUAL(net_port_receive(b, 0, &buf, 1), 1);
	CU_ASSERT_EQUAL(buf.len, 554);
	net_port_counters_get(b, &c);
	CU_ASSERT_EQUAL(c.rx_dropped, 1);
	CU_ASSERT_EQUAL(net_port_receive(b, 0, &buf, 1), 0);
	net_port_close(a);
	net_port_close(b);
}

static const struct unit_case cases[] = {
	{"checksum, scattered", test_checksum_scattered},
	{"checksum, bounds", test_checksum_bounds},
	{"TCP over IPv4", test_tcp4},
	{"TCP over IPv6", test_tcp6},
	{"UDP", test_udp},
	{"checksum in a pair", test_plain},
	{"hostile headers", test_hostile},
	{"room", test_room},
};

UNIT_MAIN("net_segment", cases)
