/* SPDX-License-Identifier: BSD-2-Clause */
/* The e1000 model sending: descriptors, checksums, segmentation, tags. */
#include "tests/unit/test_e1000_packet.h"

/* ------------------------------------------------------------------ plain frames */

static void test_legacy(void)
{
	struct desc *ring;
	struct e1 d;

	e1_open(&d, 0);
	e1_tx_start(&d, 8);
	ring = mem(&d, TX_RING, 128);
	for (uint32_t n = 0; n < 120; n++) {
		uint32_t len = n < 60 ? 14 + n : 1514 - (n - 60);

		tx_frame(&d, n, len);
		nic_peer_expect(&d.rig, nic_other, n, len);
		CU_ASSERT_EQUAL(ring[n % 8].high, 1);
	}
	CU_ASSERT_EQUAL(rd(&d, 0x4080), 120);
	CU_ASSERT_EQUAL(rd(&d, 0x4080), 0);
	/* several descriptors, also empty ones; only the one that asks is reported */
	nic_frame(mem(&d, TX_DATA, 1000), nic_other, 9, 1000);
	for (uint32_t i = 0; i < 5; i++)
		tx_put(&d, TX_DATA + i * 200, 200 | X_IFCS, 0);
	tx_put(&d, TX_DATA, 0 | X_IFCS | X_EOP | X_RS, 0);
	tx_go(&d);
	tx_wait(&d);
	nic_peer_expect(&d.rig, nic_other, 9, 1000);
	CU_ASSERT_EQUAL(ring[4].high, 0);
	CU_ASSERT_EQUAL(ring[5].high, 1);
	/* short packets are padded when told to */
	wr(&d, TCTL, 0xa);
	tx_frame(&d, 3, 20);
	{
		uint8_t got[64], want[60] = {0};

		nic_frame(want, nic_other, 3, 20);
		CU_ASSERT_EQUAL(nic_peer_take(&d.rig, got, sizeof(got), NULL), 60);
		CU_ASSERT_EQUAL(memcmp(want, got, 60), 0);
	}
	/* off: nothing moves; on: it does */
	wr(&d, TCTL, 8);
	nic_frame(mem(&d, TX_DATA, 100), nic_other, 4, 100);
	tx_put(&d, TX_DATA, 100 | X_EOP, 0);
	tx_go(&d);
	CU_ASSERT(nic_peer_silent(&d.rig));
	nic_config_write(&d.rig, 4, 3);
	wr(&d, TCTL, 0xa);
	CU_ASSERT(nic_peer_silent(&d.rig));
	nic_config_write(&d.rig, 4, 7);
	nic_peer_expect(&d.rig, nic_other, 4, 100);
	nic_close(&d.rig);
}

static void test_checksum(void)
{
	for (unsigned kind = 0; kind < 16; kind++) {
		const struct shape s = {.v6 = kind & 1, .tcp = kind & 2, .payload = 701 + kind};
		bool accepts = kind & 4, legacy = kind & 8;
		uint8_t got[2048], *f;
		struct net_vnet_hdr hdr;
		uint32_t len;
		struct e1 d;

		e1_open(&d, accepts ? E1000_OFFLOAD : 0);
		e1_tx_start(&d, 8);
		f = mem(&d, TX_DATA, 2048);
		len = packet(f, &s, kind);
		nic_put16(f + sum_at(&s), pseudo_sum(f, &s, len - l4_at(&s)));
		if (legacy) {
			if (!s.v6)
				nic_put16(f + 24, ~sum(f + 14, 20, 0));
			tx_put(&d, TX_DATA, len | sum_at(&s) << 16 | X_IC | X_EOP | X_RS,
				l4_at(&s) << 8);
		} else {
			put_context(&d, &s, 0);
			put_data(&d, TX_DATA, len, 400, 0, popts(&s));
		}
		tx_go(&d);
		CU_ASSERT_EQUAL(nic_peer_take(&d.rig, got, sizeof(got), &hdr), len);
		CU_ASSERT_EQUAL(hdr.flags & NET_HDR_F_NEEDS_CSUM, accepts);
		CU_ASSERT_EQUAL(hdr.gso_type, 0);
		if (accepts) {
			CU_ASSERT_EQUAL(hdr.csum_start, l4_at(&s));
			CU_ASSERT_EQUAL(hdr.csum_offset, sum_at(&s) - l4_at(&s));
			nic_put16(got + sum_at(&s), ~sum(got + l4_at(&s), len - l4_at(&s), 0));
		}
		packet_check(got, len, &s);
		CU_ASSERT_EQUAL(memcmp(got + header_len(&s), f + header_len(&s), s.payload), 0);
		nic_close(&d.rig);
	}
}

/* Sums that no port could finish: up to a given end, and in front of what they are over. */
static void test_checksum_odd(void)
{
	uint8_t want[200], got[200];
	struct net_vnet_hdr hdr;
	struct e1 d;

	e1_open(&d, E1000_OFFLOAD);
	e1_tx_start(&d, 8);
	nic_frame(want, nic_other, 1, sizeof(want));
	memcpy(mem(&d, TX_DATA, 200), want, 200);
	tx_put(&d, (uint64_t)60 << 32 | (uint64_t)62 << 40 | (uint64_t)100 << 48, X_DEXT, 0);
	put_data(&d, TX_DATA, 200, 200, 0, P_TXSM);
	tx_put(&d, (uint64_t)60 << 32 | (uint64_t)20 << 40, X_DEXT, 0);
	put_data(&d, TX_DATA, 200, 200, 0, P_TXSM);
	tx_put(&d, TX_DATA, 200 | 20 << 16 | X_IC | X_EOP, 60 << 8);
	/* outside the frame: nothing is done */
	tx_put(&d, (uint64_t)60 << 32 | (uint64_t)199 << 40, X_DEXT, 0);
	tx_go(&d);
	tx_wait(&d);
	put_data(&d, TX_DATA, 200, 200, 0, P_TXSM);
	tx_go(&d);
	nic_put16(want + 62, ~sum(want + 60, 41, 0));
	CU_ASSERT_EQUAL(nic_peer_take(&d.rig, got, sizeof(got), &hdr), 200);
	CU_ASSERT_EQUAL(memcmp(want, got, 200), 0);
	nic_frame(want, nic_other, 1, sizeof(want));
	nic_put16(want + 20, ~sum(want + 60, 140, 0));
	for (unsigned i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(nic_peer_take(&d.rig, got, sizeof(got), &hdr), 200);
		CU_ASSERT_EQUAL(hdr.flags, 0);
		CU_ASSERT_EQUAL(memcmp(want, got, 200), 0);
	}
	nic_peer_expect(&d.rig, nic_other, 1, 200);
	nic_close(&d.rig);
}

/* ------------------------------------------------------------------ segmentation */

/* Takes the segments with `take` and checks each against the packet they are cut from. */
static void segments_check(struct e1 *d, const struct shape *s, uint32_t n, uint32_t mss,
	uint32_t (*take)(struct e1 *d, uint8_t *to))
{
	static uint8_t whole[0x20000], got[65536];
	uint32_t header = header_len(s), l4 = l4_at(s), at = 0, index = 0, len, part;

	packet(whole, s, n);
	do {
		part = s->payload - at < mss ? s->payload - at : mss;
		len = take(d, got);
		CU_ASSERT_EQUAL_FATAL(len, header + part);
		packet_check(got, len, s);
		CU_ASSERT_EQUAL(memcmp(got, whole, 14), 0);
		CU_ASSERT_EQUAL_FATAL(memcmp(got + header, whole + header + at, part), 0);
		if (!s->v6)
			CU_ASSERT_EQUAL(nic_get16(got + 18), (0xfffe + index) & 0xffff);
		if (s->tcp) {
			uint32_t seq =
				(uint32_t)nic_get16(got + l4 + 4) << 16 | nic_get16(got + l4 + 6);

			CU_ASSERT_EQUAL(seq, 0xfffff000u + at);
			CU_ASSERT_EQUAL(got[l4 + 13], at + part == s->payload ? 0x19 : 0x10);
		}
		at += part;
		index++;
	} while (at < s->payload);
}

static uint32_t take_from_peer(struct e1 *d, uint8_t *to)
{
	struct net_vnet_hdr hdr;
	uint32_t len = nic_peer_take(&d->rig, to, 65536, &hdr);

	CU_ASSERT_EQUAL(hdr.flags & NET_HDR_F_NEEDS_CSUM, 0);
	CU_ASSERT_EQUAL(hdr.gso_type, 0);
	return len;
}

static uint32_t take_from_ring(struct e1 *d, uint8_t *to)
{
	uint32_t status;

	return rx_take(d, to, &status, NULL);
}

static void test_segments(void)
{
	static const uint32_t payloads[] = {65000, 4344, 1448, 1449, 700};

	for (unsigned kind = 0; kind < 4; kind++) {
		struct e1 d;

		e1_open(&d, 0);
		e1_tx_start(&d, 64);
		for (unsigned i = 0; i < 5; i++) {
			const struct shape s = {kind & 1, kind & 2, payloads[i]};

			segmented_prepare(&d, &s, i);
			segmented_send(&d, &s, 1448);
			segments_check(&d, &s, i, 1448, take_from_peer);
		}
		tx_frame(&d, 3, 77);
		nic_peer_expect(&d.rig, nic_other, 3, 77);
		nic_close(&d.rig);
	}
}

/* A peer that takes it whole is told what is still to do. */
static void test_segments_left(void)
{
	static uint8_t got[65536], want[65536];

	for (unsigned kind = 0; kind < 4; kind++) {
		const struct shape s = {kind & 1, kind & 2, 60001};
		uint32_t len, l4 = l4_at(&s);
		struct net_vnet_hdr hdr;
		struct e1 d;

		e1_open(&d, E1000_OFFLOAD);
		e1_tx_start(&d, 64);
		segmented_prepare(&d, &s, 5);
		segmented_send(&d, &s, 1400);
		len = nic_peer_take(&d.rig, got, sizeof(got), &hdr);
		CU_ASSERT_EQUAL_FATAL(len, header_len(&s) + s.payload);
		CU_ASSERT_EQUAL(hdr.gso_type, !s.tcp ? NET_GSO_UDP_L4
					      : s.v6 ? NET_GSO_TCPV6
						     : NET_GSO_TCPV4);
		CU_ASSERT_EQUAL(hdr.gso_size, 1400);
		CU_ASSERT_EQUAL(hdr.hdr_len, header_len(&s));
		CU_ASSERT_EQUAL(hdr.flags & NET_HDR_F_NEEDS_CSUM, NET_HDR_F_NEEDS_CSUM);
		CU_ASSERT_EQUAL(hdr.csum_start, l4);
		CU_ASSERT_EQUAL(hdr.csum_offset, sum_at(&s) - l4);
		/* the pseudo header's sum with the whole length: finishing it gives a right sum */
		CU_ASSERT_EQUAL(nic_get16(got + sum_at(&s)), pseudo_sum(got, &s, len - l4));
		nic_put16(got + sum_at(&s), ~sum(got + l4, len - l4, 0));
		packet_check(got, len, &s);
		packet(want, &s, 5);
		CU_ASSERT_EQUAL(memcmp(got + header_len(&s), want + header_len(&s), s.payload), 0);
		nic_close(&d.rig);
	}
}

/* What no port cuts is cut by the card: shown in loopback, where the card hears itself. */
static void test_segments_own(void)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		const struct shape s = {
			kind & 1, kind & 2, 30100}; /* the last segment needs no padding */
		struct e1 d;

		e1_open(&d, E1000_OFFLOAD);
		e1_rx_start(&d, 64, RCTL_UPE | RCTL_LBM_MAC | RCTL_SECRC);
		e1_tx_start(&d, 64);
		segmented_prepare(&d, &s, 6);
		segmented_send(&d, &s, 1000);
		segments_check(&d, &s, 6, 1000, take_from_ring);
		tx_frame(&d, 1, 200);
		rx_expect(&d, nic_other, 1, 200);
		/* and not the wire */
		e1_peer_send(&d, nic_mac, 2, 200);
		CU_ASSERT(nic_peer_silent(&d.rig));
		CU_ASSERT_EQUAL(rd(&d, RDH), d.rx_next);
		wr(&d, RCTL, RCTL_EN | RCTL_SECRC);
		rx_expect(&d, nic_mac, 2, 200);
		nic_close(&d.rig);
	}
}

static void test_vlan(void)
{
	const struct shape s = {.tcp = true, .payload = 3000};
	static uint8_t got[4096];
	struct net_vnet_hdr hdr;
	uint8_t *f;
	struct e1 d;

	e1_open(&d, E1000_OFFLOAD);
	e1_tx_start(&d, 32);
	f = mem(&d, TX_DATA, 4096);
	nic_frame(f, nic_other, 1, 100);
	/* only in VLAN mode */
	tx_put(&d, TX_DATA, 100 | X_EOP | X_VLE, 0x6065u << 16);
	tx_go(&d);
	nic_peer_expect(&d.rig, nic_other, 1, 100);
	wr(&d, CTRL, rd(&d, CTRL) | CTRL_VME);
	tx_put(&d, TX_DATA, 100 | X_EOP | X_VLE, 0x6065u << 16);
	tx_go(&d);
	CU_ASSERT_EQUAL(nic_peer_take(&d.rig, got, sizeof(got), NULL), 104);
	CU_ASSERT_EQUAL(memcmp(got, f, 12), 0);
	CU_ASSERT_EQUAL(memcmp(got + 12, "\x81\x00\x60\x65", 4), 0);
	CU_ASSERT_EQUAL(memcmp(got + 16, f + 12, 88), 0);
	/* offsets follow */
	packet(f, &s, 2);
	nic_put16(f + sum_at(&s), pseudo_sum(f, &s, 0));
	put_context(&d, &s, 1448);
	put_data(&d, TX_DATA, header_len(&s) + s.payload, 4000, X_TSE | X_VLE,
		popts(&s) | 0x6065u << 16);
	tx_go(&d);
	CU_ASSERT_EQUAL(nic_peer_take(&d.rig, got, sizeof(got), &hdr), 58 + 3000);
	CU_ASSERT_EQUAL(hdr.csum_start, 38);
	CU_ASSERT_EQUAL(hdr.hdr_len, 58);
	CU_ASSERT_EQUAL(memcmp(got + 12, "\x81\x00\x60\x65", 4), 0);
	memmove(got + 12, got + 16, 3042);
	nic_put16(got + 50, ~sum(got + 34, 3020, 0));
	packet_check(got, 3054, &s);
	nic_close(&d.rig);
}

static const struct unit_case cases[] = {
	{"legacy descriptors", test_legacy},
	{"checksums", test_checksum},
	{"odd checksums", test_checksum_odd},
	{"segments", test_segments},
	{"segmentation left to the peer", test_segments_left},
	{"segmentation by the card", test_segments_own},
	{"VLAN", test_vlan},
};

UNIT_MAIN("e1000_tx", cases)
