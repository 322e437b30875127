/* SPDX-License-Identifier: BSD-2-Clause */
/* TCP and UDP packets for the tests of the e1000 model, and the descriptors that send them. */
#ifndef TEST_E1000_PACKET_H
#define TEST_E1000_PACKET_H

#include "tests/unit/test_e1000_rig.h"

/* What a packet is made of. Offsets into it follow. */
struct shape {
	bool v6, tcp;
	uint32_t payload;
};

static inline uint32_t l4_at(const struct shape *s)
{
	return s->v6 ? 54 : 34;
}

static inline uint32_t sum_at(const struct shape *s)
{
	return l4_at(s) + (s->tcp ? 16 : 6);
}

static inline uint32_t header_len(const struct shape *s)
{
	return l4_at(s) + (s->tcp ? 20 : 8);
}

/* RFC 1071, the slow way. */
static inline uint32_t sum(const uint8_t *p, uint32_t len, uint32_t start)
{
	for (uint32_t i = 0; i < len; i++)
		start += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (start >> 16)
		start = (start & 0xffff) + (start >> 16);
	return start;
}

static inline uint32_t pseudo_sum(const uint8_t *f, const struct shape *s, uint32_t l4_len)
{
	uint32_t start = (s->tcp ? 6 : 17) + l4_len;

	return s->v6 ? sum(f + 22, 32, start) : sum(f + 26, 8, start);
}

/* Headers and payload; lengths as for one packet, sums left out. */
static inline uint32_t packet(uint8_t *f, const struct shape *s, uint32_t n)
{
	uint32_t len = header_len(s) + s->payload, l4 = l4_at(s);

	nic_frame(f, nic_other, n, len);
	memset(f + 14, 0, header_len(s) - 14);
	nic_put16(f + 12, s->v6 ? 0x86dd : 0x0800);
	if (s->v6) {
		f[14] = 0x60;
		nic_put16(f + 18, len - 54);
		f[20] = s->tcp ? 6 : 17;
		f[21] = 64;
		memset(f + 22, 0x20, 16);
		memset(f + 38, 0x31, 16);
	} else {
		f[14] = 0x45;
		nic_put16(f + 16, len - 14);
		nic_put16(f + 18, 0xfffe); /* wraps in the third segment */
		f[22] = 64;
		f[23] = s->tcp ? 6 : 17;
		memcpy(f + 26, "\x0a\0\0\1\x0a\0\0\2", 8);
	}
	nic_put16(f + l4, 1000 + n);
	nic_put16(f + l4 + 2, 2000);
	if (s->tcp) {
		nic_put16(f + l4 + 4, 0xffff); /* so does the sequence number */
		nic_put16(f + l4 + 6, 0xf000);
		f[l4 + 12] = 0x50;
		f[l4 + 13] = 0x19; /* FIN, PSH, ACK */
	} else {
		nic_put16(f + l4 + 4, len - l4);
	}
	return len;
}

/* All lengths and sums of a packet that has arrived, and its payload. */
static inline void packet_check(const uint8_t *f, uint32_t len, const struct shape *s)
{
	uint32_t l4 = l4_at(s);

	if (s->v6) {
		CU_ASSERT_EQUAL(nic_get16(f + 18), len - 54);
	} else {
		CU_ASSERT_EQUAL(nic_get16(f + 16), len - 14);
		CU_ASSERT_EQUAL(sum(f + 14, 20, 0), 0xffff);
	}
	if (!s->tcp)
		CU_ASSERT_EQUAL(nic_get16(f + l4 + 4), len - l4);
	CU_ASSERT_EQUAL(sum(f + l4, len - l4, pseudo_sum(f, s, len - l4)), 0xffff);
}

static inline void put_context(struct e1 *d, const struct shape *s, uint32_t mss)
{
	uint32_t l4 = l4_at(s), bits = X_DEXT | X_RS | (s->tcp ? X_TCP : 0) | (s->v6 ? 0 : X_IP);
	uint64_t where = 14 | 24 << 8 | (uint64_t)(l4 - 1) << 16 | (uint64_t)l4 << 32 |
			 (uint64_t)sum_at(s) << 40;

	if (mss)
		bits |= X_TSE | s->payload;
	tx_put(d, where, bits, header_len(s) << 8 | mss << 16);
}

static inline uint32_t popts(const struct shape *s)
{
	return P_TXSM | (s->v6 ? 0 : P_IXSM);
}

/* Data descriptors of at most `piece` bytes. */
static inline void put_data(
	struct e1 *d, uint64_t at, uint32_t len, uint32_t piece, uint32_t bits, uint32_t high)
{
	for (; len; at += piece, len -= piece) {
		piece = len < piece ? len : piece;
		tx_put(d, at,
			piece | X_DEXT | X_DATA | X_RS | X_IFCS | bits | (piece == len ? X_EOP : 0),
			high);
	}
}

/* The packet at TX_DATA as drivers leave it: no lengths, no header sum, a pseudo header sum without
 * length. */
static inline void segmented_prepare(struct e1 *d, const struct shape *s, uint32_t n)
{
	uint8_t *f = mem(d, TX_DATA, 0x20000);

	packet(f, s, n);
	if (s->v6)
		nic_put16(f + 18, 0);
	else
		nic_put16(f + 16, 0);
	nic_put16(f + sum_at(s), pseudo_sum(f, s, 0));
}

static inline void segmented_send(struct e1 *d, const struct shape *s, uint32_t mss)
{
	put_context(d, s, mss);
	put_data(d, TX_DATA, header_len(s) + s->payload, 8000, X_TSE, popts(s));
	tx_go(d);
}

#endif
