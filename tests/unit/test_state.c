/* SPDX-License-Identifier: BSD-2-Clause */
/* Saved state as it is written and read, also damaged; histograms. */
#include <errno.h>
#include <string.h>

#include "backend/backend.h"
#include "tests/unit/unit.h"

static void write_two(struct state_writer *w)
{
	memset(w, 0, sizeof(*w));
	state_section_begin(w, "first", 3);
	state_put_u8(w, 0xa5);
	state_put_u16(w, 0x1234);
	state_put_u32(w, 0xdeadbeef);
	state_put_u64(w, 0x0123456789abcdefull);
	state_section_end(w);
	state_section_begin(w, "second", 1);
	for (unsigned i = 0; i < 1000; i++)
		state_put_bytes(w, "abcdefg", 7);
	state_section_end(w);
}

static void read_two(struct state_reader *r)
{
	char text[7];

	state_section_enter(r, "first", 3);
	state_get_u8(r);
	state_get_u16(r);
	state_get_u32(r);
	state_get_u64(r);
	state_section_leave(r);
	state_section_enter(r, "second", 1);
	for (unsigned i = 0; i < 1000; i++)
		state_get_bytes(r, text, 7);
	state_section_leave(r);
}

static void test_round_trip(void)
{
	struct state_writer w;
	struct state_reader r;
	char text[7];

	write_two(&w);
	CU_ASSERT_EQUAL(w.error, 0);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL(state_section_enter(&r, "first", 4), 3);
	CU_ASSERT_EQUAL(state_get_u8(&r), 0xa5);
	CU_ASSERT_EQUAL(state_get_u16(&r), 0x1234);
	CU_ASSERT_EQUAL(state_get_u32(&r), 0xdeadbeef);
	CU_ASSERT_EQUAL(state_get_u64(&r), 0x0123456789abcdefull);
	state_section_leave(&r);
	CU_ASSERT_EQUAL(state_section_enter(&r, "second", 1), 1);
	for (unsigned i = 0; i < 1000; i++) {
		state_get_bytes(&r, text, 7);
		CU_ASSERT_EQUAL(memcmp(text, "abcdefg", 7), 0);
	}
	state_section_leave(&r);
	CU_ASSERT_EQUAL(r.error, 0);
	CU_ASSERT_EQUAL(r.pos, w.len);
	state_writer_free(&w);
}

static void test_little_endian(void)
{
	static const uint8_t want[] = {
		1, 'x', 7, 0, 0, 0, 6, 0, 0, 0, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12};
	struct state_writer w = {0};

	state_section_begin(&w, "x", 7);
	state_put_u16(&w, 0x1234);
	state_put_u32(&w, 0x12345678);
	state_section_end(&w);
	CU_ASSERT_EQUAL_FATAL(w.len, sizeof(want));
	CU_ASSERT_EQUAL(memcmp(w.data, want, sizeof(want)), 0);
	state_writer_free(&w);
}

static void test_truncated(void)
{
	struct state_writer w;
	struct state_reader r;

	write_two(&w);
	for (size_t len = 0; len < w.len; len += len < 64 ? 1 : 97) {
		uint8_t *copy = malloc(len ? len : 1); /* so that a sanitizer sees a read too far */

		memcpy(copy, w.data, len);
		state_reader_init(&r, copy, len);
		read_two(&r);
		CU_ASSERT_EQUAL(r.error, -EINVAL);
		free(copy);
	}
	state_writer_free(&w);
}

static void test_errors(void)
{
	struct state_writer w;
	struct state_reader r;

	write_two(&w);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL(state_section_enter(&r, "first", 2), 0);
	CU_ASSERT_EQUAL(r.error, -ENOTSUP);
	state_reader_init(&r, w.data, w.len);
	state_section_enter(&r, "other", 3);
	CU_ASSERT_EQUAL(r.error, -EINVAL);
	state_reader_init(&r, w.data, w.len);
	state_section_enter(&r, "firs", 3);
	CU_ASSERT_EQUAL(r.error, -EINVAL);
	/* unread bytes */
	state_reader_init(&r, w.data, w.len);
	state_section_enter(&r, "first", 3);
	state_get_u8(&r);
	state_section_leave(&r);
	CU_ASSERT_EQUAL(r.error, -EINVAL);
	/* beyond the section, though there are bytes: and the first error stays, values are 0 */
	state_reader_init(&r, w.data, w.len);
	state_section_enter(&r, "first", 3);
	state_get_u64(&r);
	state_get_u32(&r);
	CU_ASSERT_EQUAL(r.error, 0);
	CU_ASSERT_EQUAL(state_get_u32(&r), 0);
	CU_ASSERT_EQUAL(r.error, -EINVAL);
	CU_ASSERT_EQUAL(state_get_u8(&r), 0);
	/* a section length beyond the end */
	w.data[1 + 5 + 4 + 3] = 0xff;
	state_reader_init(&r, w.data, w.len);
	state_section_enter(&r, "first", 3);
	CU_ASSERT_EQUAL(r.error, -EINVAL);
	state_writer_free(&w);
}

static void test_every_byte_damaged(void)
{
	struct state_writer w;
	struct state_reader r;

	/* whatever the damage, reading ends, inside the buffer */
	write_two(&w);
	for (size_t i = 0; i < 48; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			w.data[i] ^= 1u << bit;
			state_reader_init(&r, w.data, w.len);
			read_two(&r);
			CU_ASSERT(r.pos <= r.len);
			w.data[i] ^= 1u << bit;
		}
	}
	state_writer_free(&w);
}

static void test_histogram(void)
{
	struct histogram h = {0};
	uint64_t p;

	CU_ASSERT_EQUAL(histogram_percentile_ns(&h, 0.5), 0);
	for (unsigned i = 1; i <= 1000; i++)
		histogram_add(&h, i * 1000);
	CU_ASSERT_EQUAL(h.count, 1000);
	p = histogram_percentile_ns(&h, 0.5);
	CU_ASSERT(p >= 500000 && p < 500000 * 5 / 4);
	p = histogram_percentile_ns(&h, 0.99);
	CU_ASSERT(p >= 990000 && p < 990000 * 5 / 4);
	p = histogram_percentile_ns(&h, 1.0);
	CU_ASSERT(p >= 1000000 && p < 1000000 * 5 / 4);
	CU_ASSERT(histogram_percentile_ns(&h, 0) >= 1000);
	/* each value lies in the bucket whose edge is the next above it */
	for (uint64_t ns = 0; ns < 1ull << 32; ns = ns * 9 / 8 + 1) {
		struct histogram one = {0};

		histogram_add(&one, ns);
		p = histogram_percentile_ns(&one, 1);
		CU_ASSERT(p >= ns && p <= ns + ns / 4 + 1);
	}
	histogram_add(&h, UINT64_MAX);
	CU_ASSERT_EQUAL(h.buckets[HISTOGRAM_BUCKETS - 1], 1);
}

static const struct unit_case cases[] = {
	{"round trip", test_round_trip},
	{"the bytes", test_little_endian},
	{"truncated anywhere", test_truncated},
	{"errors are found and kept", test_errors},
	{"damaged anywhere", test_every_byte_damaged},
	{"histogram", test_histogram},
};

UNIT_MAIN("state", cases)
