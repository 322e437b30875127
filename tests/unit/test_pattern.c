/* SPDX-License-Identifier: BSD-2-Clause */
/* The pattern in blocks and frames: what was filled is accepted, and any changed byte is noticed.
 */
#include <string.h>

#include "perf/pattern.h"
#include "tests/unit/unit.h"

static const struct pattern_peers peers = {
	.mac_to = {2, 0, 0, 0, 0, 1},
	.mac_from = {2, 0, 0, 0, 0, 2},
	.ip_to = 0x0a000001,
	.ip_from = 0x0a000002,
};

static uint64_t room[16384];

static void sectors(void)
{
	unsigned wrong = 0;

	for (unsigned g = 0; g < 65536; g += 771) {
		pattern_block_fill(room, 4096, 3ull * g, (uint16_t)g);
		for (unsigned i = 0; i < 8; i++)
			wrong += pattern_sector_check((uint8_t *)room + 512 * i, 3ull * g + i) !=
				 (int)g;
		wrong += pattern_block_check(room, 4096, 3ull * g) != 0;
		wrong += pattern_block_check(room, 4096, 3ull * g + 1) != PATTERN_EPLACE;
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

static void sector_is_as_documented(void)
{
	const uint64_t word0 = 7ull << 48 | 1234;

	pattern_sector_fill(room, 1234, 7);
	CU_ASSERT_EQUAL(room[0], word0);
	for (unsigned i = 1; i < 64; i++)
		CU_ASSERT_EQUAL(room[i], pattern_mix64(word0) + i * PATTERN_STEP);
}

static void sector_damage(void)
{
	unsigned missed = 0;

	for (unsigned i = 0; i < 512; i++) {
		pattern_sector_fill(room, 99, 5);
		((uint8_t *)room)[i] ^= 1u << i % 8;
		missed += pattern_sector_check(room, 99) >= 0;
	}
	CU_ASSERT_EQUAL(missed, 0);
}

/* Bytes whose change nobody can see: addresses of the link, ports' first half, TCP's unused fields.
 */
static bool unprotected(unsigned at, bool tcp)
{
	return at < 12 || (at >= 34 && at < 36) || (at >= 40 && at < 42 && !tcp) ||
	       (tcp && at >= 42 && at < 54);
}

static void frame_damage(void)
{
	static const unsigned lens[] = {64, 65, 71, 72, 73, 100, 1513, 1514};
	uint8_t *f = (uint8_t *)room + 2;
	unsigned wrong = 0, missed = 0;
	uint64_t seq;

	for (unsigned l = 0; l < sizeof(lens) / sizeof(lens[0]); l++)
		for (int tcp = 0; tcp < 2; tcp++) {
			unsigned len = lens[l];

			pattern_frame_build(f, len, tcp, &peers, len * 70001ull);
			wrong += pattern_frame_check(f, len, &seq) != 0 || seq != len * 70001ull;
			for (unsigned at = 0; at < len; at++) {
				if (unprotected(at, tcp))
					continue;
				f[at] ^= 1;
				missed += pattern_frame_check(f, len, &seq) >= 0;
				f[at] ^= 1;
			}
		}
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT_EQUAL(missed, 0);
}

/* Cut into segments as a device does it, each piece is right on its own and knows where it belongs.
 */
static void segments(void)
{
	uint8_t *f = (uint8_t *)room;
	uint8_t piece[PATTERN_TCP_HEADERS + PATTERN_MSS];
	const size_t payload = PATTERN_FRAME_MAX - PATTERN_TCP_HEADERS;
	unsigned wrong = 0;
	uint64_t seq;

	pattern_frame_build(f, PATTERN_FRAME_MAX, true, &peers, 0x123456);
	CU_ASSERT_EQUAL(pattern_frame_check(f, PATTERN_FRAME_MAX, &seq), 0);
	CU_ASSERT_EQUAL(seq, 0x123456);
	for (size_t at = 0; at < payload; at += PATTERN_MSS) {
		size_t n = payload - at < PATTERN_MSS ? payload - at : PATTERN_MSS;

		memcpy(piece, f, PATTERN_TCP_HEADERS);
		memcpy(piece + PATTERN_TCP_HEADERS, f + PATTERN_TCP_HEADERS + at, n);
		pattern_put16(piece + 16, (unsigned)(n + 40));
		pattern_put16(piece + 24, 0);
		pattern_put16(piece + 24, ~pattern_sum16(piece + 14, 20, 0) & 0xffff);
		pattern_put32(piece + 38, pattern_get32(f + 38) + (uint32_t)at);
		wrong += pattern_frame_check(piece, PATTERN_TCP_HEADERS + n, &seq) != (int)at;
		wrong += seq != (at ? 0x3456 : 0x123456);
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

static void foreign_frames(void)
{
	uint8_t *f = (uint8_t *)room;
	uint64_t seq;

	memset(f, 0, 2048);
	CU_ASSERT_EQUAL(pattern_frame_check(f, 60, &seq), PATTERN_EHEADER);
	CU_ASSERT_EQUAL(pattern_frame_check(f, 0, &seq), PATTERN_EHEADER);
	pattern_frame_build(f, 200, false, &peers, 1);
	for (size_t len = 0; len < 200; len++)
		CU_ASSERT(pattern_frame_check(f, len, &seq) < 0);
	CU_ASSERT_EQUAL(pattern_frame_check(f, 201, &seq), PATTERN_ELENGTH);
}

static const struct unit_case cases[] = {
	{"sectors", sectors},
	{"sector_is_as_documented", sector_is_as_documented},
	{"sector_damage", sector_damage},
	{"frame_damage", frame_damage},
	{"segments", segments},
	{"foreign_frames", foreign_frames},
};

UNIT_MAIN("pattern", cases)
