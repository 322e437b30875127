/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is in the blocks and frames of a benchmark, so that whoever gets one can tell that it is the
 * right one. Shared by the guest and the host; needs no library.
 *
 * Blocks: each sector of 512 bytes says where it belongs and which write put it there.
 * Frames: Ethernet, IPv4 and UDP (or TCP, when a frame is to be segmented), with a sequence number.
 *
 * Any thread; nothing blocks or keeps state. Byte order: little endian where not a protocol's own.
 */
#ifndef PERF_PATTERN_H
#define PERF_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PATTERN_SECTOR 512u
#define PATTERN_STEP   0x9e3779b97f4a7c15ull /* odd: all words of a run differ */

typedef uint64_t pattern_pair __attribute__((vector_size(16), aligned(8), may_alias));
typedef uint64_t pattern_word __attribute__((aligned(1), may_alias));

/* A bijection that scatters every bit of x (the finaliser of SplitMix64). */
static inline uint64_t pattern_mix64(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* ------------------------------------------------------------------ blocks */

/*
 * Word 0 of a sector is generation << 48 | sector number; word i is mix64(word 0) + i * STEP.
 * buf: 8-byte aligned. sector: below 2^48.
 */
static inline void pattern_sector_fill(void *buf, uint64_t sector, uint16_t generation)
{
	const uint64_t word0 = (uint64_t)generation << 48 | sector;
	const uint64_t base = pattern_mix64(word0);
	const pattern_pair step = {4 * PATTERN_STEP, 4 * PATTERN_STEP};
	pattern_pair a = {base, base + PATTERN_STEP};
	pattern_pair b = {base + 2 * PATTERN_STEP, base + 3 * PATTERN_STEP};
	pattern_pair *p = buf;

	for (unsigned i = 0; i < PATTERN_SECTOR / 16; i += 2) {
		p[i] = a;
		p[i + 1] = b;
		a += step;
		b += step;
	}
	*(pattern_word *)buf = word0;
}

enum {
	PATTERN_EPLACE = -1,   /* word 0 names another sector */
	PATTERN_ECONTENT = -2, /* a later word does not fit word 0 */
	PATTERN_EHEADER = -3,  /* frames: not one of ours */
	PATTERN_ELENGTH = -4,  /* frames: the lengths contradict each other */
	PATTERN_ECHECKSUM = -5,
};

/* The generation (0 to 65,535) of a sector that is all right, else PATTERN_EPLACE or
 * PATTERN_ECONTENT. */
static inline int pattern_sector_check(const void *buf, uint64_t sector)
{
	const uint64_t word0 = *(const pattern_word *)buf;
	const uint64_t base = pattern_mix64(word0);
	const pattern_pair step = {4 * PATTERN_STEP, 4 * PATTERN_STEP};
	pattern_pair a = {word0, base + PATTERN_STEP};
	pattern_pair b = {base + 2 * PATTERN_STEP, base + 3 * PATTERN_STEP};
	pattern_pair bad = {0, 0};
	const pattern_pair *p = buf;

	if ((word0 & 0xffffffffffffull) != sector)
		return PATTERN_EPLACE;
	bad |= (p[0] ^ a) | (p[1] ^ b);
	a[0] = base;
	for (unsigned i = 2; i < PATTERN_SECTOR / 16; i += 2) {
		a += step;
		b += step;
		bad |= (p[i] ^ a) | (p[i + 1] ^ b);
	}
	if (bad[0] | bad[1])
		return PATTERN_ECONTENT;
	return (int)(word0 >> 48);
}

/* bytes: a multiple of 512. */
static inline void pattern_block_fill(void *buf, size_t bytes, uint64_t sector, uint16_t generation)
{
	for (size_t at = 0; at < bytes; at += PATTERN_SECTOR)
		pattern_sector_fill((uint8_t *)buf + at, sector++, generation);
}

/* 0 when every sector is all right, whatever its generation; else the first error. */
static inline int pattern_block_check(const void *buf, size_t bytes, uint64_t sector)
{
	for (size_t at = 0; at < bytes; at += PATTERN_SECTOR) {
		int r = pattern_sector_check((const uint8_t *)buf + at, sector++);

		if (r < 0)
			return r;
	}
	return 0;
}

/* ------------------------------------------------------------------ frames */

/*
 * A frame is headers and a payload. The payload's first 8 bytes are the sequence number (48 bits)
 * and, above it, the low 16 bits of mix64(sequence number); the rest, in words of 8 bytes counted
 * from the payload's start, is mix64(low 16 bits of the sequence number) + i * STEP, the last word
 * cut short. A segment of a TCP frame tells by its TCP sequence number, (low 16 bits of the frame's
 * number) << 16 | offset, which frame it is from and which part it is, so that a frame can be
 * checked whole or in pieces.
 *
 * UDP checksums are 0 (none), which IPv4 allows. TCP frames carry the sum over the pseudo header,
 * to be completed by whoever segments them.
 */
#define PATTERN_FRAME_MIN    64u
#define PATTERN_FRAME_MAX    65536u
#define PATTERN_FRAME_PLAIN  1514u /* longer ones need segmentation */
#define PATTERN_MSS          1448u /* a multiple of 8: segments begin at a whole word */
#define PATTERN_UDP_HEADERS  42u
#define PATTERN_TCP_HEADERS  54u
#define PATTERN_PORT         49999u
#define PATTERN_IP_PROTO_TCP 6u
#define PATTERN_IP_PROTO_UDP 17u

static inline void pattern_put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline unsigned pattern_get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static inline void pattern_put32(uint8_t *p, uint32_t v)
{
	pattern_put16(p, v >> 16);
	pattern_put16(p + 2, v & 0xffff);
}

static inline uint32_t pattern_get32(const uint8_t *p)
{
	return (uint32_t)pattern_get16(p) << 16 | pattern_get16(p + 2);
}

/* Sum of 16-bit words, folded, not complemented (RFC 1071). n: even. */
static inline unsigned pattern_sum16(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i < n; i += 2)
		sum += pattern_get16(p + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

struct pattern_peers {
	uint8_t mac_to[6];
	uint8_t mac_from[6];
	uint32_t ip_to; /* host order */
	uint32_t ip_from;
};

static inline uint8_t *pattern_payload(uint8_t *frame, bool tcp)
{
	return frame + (tcp ? PATTERN_TCP_HEADERS : PATTERN_UDP_HEADERS);
}

/* Writes the headers of a frame of `len` bytes in all (without the frame check sequence). */
static inline void pattern_frame_headers(
	uint8_t *f, size_t len, bool tcp, const struct pattern_peers *peers)
{
	const size_t ip_len = len - 14;
	uint8_t *ip = f + 14, *l4 = f + 34;

	for (unsigned i = 0; i < 6; i++) {
		f[i] = peers->mac_to[i];
		f[6 + i] = peers->mac_from[i];
	}
	pattern_put16(f + 12, 0x0800);
	pattern_put16(ip, 0x4500);
	pattern_put16(ip + 2, (unsigned)ip_len);
	pattern_put16(ip + 4, 0);
	pattern_put16(ip + 6, 0x4000); /* do not fragment */
	ip[8] = 64;
	ip[9] = tcp ? PATTERN_IP_PROTO_TCP : PATTERN_IP_PROTO_UDP;
	pattern_put16(ip + 10, 0);
	pattern_put32(ip + 12, peers->ip_from);
	pattern_put32(ip + 16, peers->ip_to);
	pattern_put16(ip + 10, ~pattern_sum16(ip, 20, 0) & 0xffff);
	pattern_put16(l4, PATTERN_PORT);
	pattern_put16(l4 + 2, PATTERN_PORT);
	if (!tcp) {
		pattern_put16(l4 + 4, (unsigned)(ip_len - 20));
		pattern_put16(l4 + 6, 0);
		return;
	}
	pattern_put32(l4 + 4, 0);
	pattern_put32(l4 + 8, 0);
	pattern_put16(l4 + 12, 0x5010); /* 20 bytes of header, ACK */
	pattern_put16(l4 + 14, 0xffff);
	pattern_put16(
		l4 + 16, pattern_sum16(ip + 12, 8, (uint32_t)(PATTERN_IP_PROTO_TCP + ip_len - 20)));
	pattern_put16(l4 + 18, 0);
}

/* The first word of a payload. */
static inline uint64_t pattern_frame_word0(uint64_t seq)
{
	return (seq & 0xffffffffffffull) | pattern_mix64(seq & 0xffffffffffffull) << 48;
}

/* Numbers a frame whose headers are written, and fills its payload. */
static inline void pattern_frame_stamp(uint8_t *f, size_t len, bool tcp, uint64_t seq)
{
	uint8_t *p = pattern_payload(f, tcp);
	size_t n = len - (size_t)(p - f);
	uint64_t v = pattern_mix64(seq & 0xffff);

	if (tcp)
		pattern_put32(f + 38, (uint32_t)((seq & 0xffff) << 16));
	*(pattern_word *)p = pattern_frame_word0(seq);
	for (n -= 8, p += 8; n >= 8; n -= 8, p += 8)
		*(pattern_word *)p = v += PATTERN_STEP;
	for (v += PATTERN_STEP; n; n--, v >>= 8)
		*p++ = (uint8_t)v;
}

/* Builds a whole frame. len: PATTERN_FRAME_MIN to PATTERN_FRAME_MAX. */
static inline void pattern_frame_build(
	uint8_t *f, size_t len, bool tcp, const struct pattern_peers *peers, uint64_t seq)
{
	pattern_frame_headers(f, len, tcp, peers);
	pattern_frame_stamp(f, len, tcp, seq);
}

/*
 * Checks a frame, or one segment of a TCP frame. `len` may exceed the frame by padding up to 64
 * bytes. Returns the offset of this piece's payload in the frame's (0: whole frame or first
 * segment) and sets *seq (pieces after the first know only its low 16 bits); or PATTERN_EHEADER,
 * PATTERN_ELENGTH, PATTERN_ECHECKSUM, PATTERN_ECONTENT. PATTERN_EHEADER: somebody else's frame, not
 * an error of the path.
 */
static inline int pattern_frame_check(const uint8_t *f, size_t len, uint64_t *seq)
{
	const uint8_t *ip = f + 14, *l4 = f + 34, *p;
	uint64_t v, s, bad = 0;
	size_t ip_len, n, offset = 0;
	bool tcp;

	if (len < PATTERN_UDP_HEADERS || pattern_get16(f + 12) != 0x0800 || ip[0] != 0x45)
		return PATTERN_EHEADER;
	tcp = ip[9] == PATTERN_IP_PROTO_TCP;
	if ((!tcp && ip[9] != PATTERN_IP_PROTO_UDP) || pattern_get16(l4 + 2) != PATTERN_PORT)
		return PATTERN_EHEADER;
	if (pattern_sum16(ip, 20, 0) != 0xffff)
		return PATTERN_ECHECKSUM;
	ip_len = pattern_get16(ip + 2);
	if (ip_len + 14 > len || (ip_len + 14 < len && len > 64))
		return PATTERN_ELENGTH;
	if (!tcp && pattern_get16(l4 + 4) != ip_len - 20)
		return PATTERN_ELENGTH;
	p = f + (tcp ? PATTERN_TCP_HEADERS : PATTERN_UDP_HEADERS);
	if (f + 14 + ip_len < p + 8)
		return PATTERN_ELENGTH;
	n = ip_len + 14 - (size_t)(p - f);
	if (tcp)
		offset = pattern_get32(l4 + 4) & 0xffff;
	if (offset % 8)
		return PATTERN_ECONTENT;
	s = offset ? pattern_get32(l4 + 4) >> 16 : *(const pattern_word *)p;
	if (!offset && s != pattern_frame_word0(s))
		return PATTERN_ECONTENT;
	s &= 0xffffffffffffull;
	if (tcp && (s & 0xffff) != pattern_get32(l4 + 4) >> 16)
		return PATTERN_ECONTENT;
	v = pattern_mix64(s & 0xffff) + offset / 8 * PATTERN_STEP;
	if (!offset) {
		v += PATTERN_STEP;
		p += 8;
		n -= 8;
	}
	for (; n >= 8; n -= 8, p += 8, v += PATTERN_STEP)
		bad |= *(const pattern_word *)p ^ v;
	for (; n; n--, v >>= 8)
		bad |= (uint8_t)v ^ *p++;
	if (bad)
		return PATTERN_ECONTENT;
	*seq = s;
	return (int)offset;
}

#endif
