/* SPDX-License-Identifier: BSD-2-Clause */
/* The header of a qcow2 image: everything in it is checked before anything is believed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blk/qcow2_priv.h"

#define HEADER_V2_LENGTH 72u
#define HEADER_V3_LENGTH 104u
/* Extensions and the backing file's name are looked for in so much of the first cluster. */
#define HEADER_READ_MAX (64u << 10)

#define EXTENSION_END            0u
#define EXTENSION_BACKING_FORMAT 0xe2792acau
#define EXTENSION_FEATURE_NAMES  0x6803f857u
#define FEATURE_NAME_LENGTH      48u

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return __builtin_bswap32(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return qcow2_be64(v);
}

static void header_parse(struct qcow2 *q, const uint8_t *h)
{
	q->version = get32(h + 4);
	q->cluster_bits = get32(h + 20);
	q->size = get64(h + 24);
	q->l1_size = get32(h + 36);
	q->l1_offset = get64(h + 40);
	q->reftable_offset = get64(h + 48);
	q->reftable_clusters = get32(h + 56);
	q->snapshots = get32(h + 60);
	q->snapshots_offset = get64(h + 64);
	q->refcount_order = 4;
	q->header_length = HEADER_V2_LENGTH;
	if (q->version < 3)
		return;
	q->incompatible = get64(h + 72);
	q->compatible = get64(h + 80);
	q->autoclear = get64(h + 88);
	q->refcount_order = get32(h + 96);
	q->header_length = get32(h + 100);
}

static int header_bad(struct qcow2 *q, char *why, const char *what, uint64_t value)
{
	blk_why(why, "%s: malformed qcow2: %s (%llu); try `qemu-img check`", q->name, what,
		(unsigned long long)value);
	return -EINVAL;
}

static bool header_cluster_aligned(const struct qcow2 *q, uint64_t offset)
{
	return !(offset & (q->cluster_size - 1));
}

/* A table of `length` bytes lies inside the file, after the header. */
static bool header_table_inside(const struct qcow2 *q, uint64_t offset, uint64_t length)
{
	uint64_t end = qcow2_up(q, q->file_end);

	return header_cluster_aligned(q, offset) && offset >= q->cluster_size && offset <= end &&
	       length <= end - offset;
}

static bool ranges_meet(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

static int header_check_geometry(struct qcow2 *q, char *why)
{
	if (q->cluster_bits < QCOW2_CLUSTER_BITS_MIN || q->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
		return header_bad(q, why, "cluster_bits is not in 9..21", q->cluster_bits);
	q->cluster_size = 1ull << q->cluster_bits;
	q->slice_size = (uint32_t)qcow2_min(q->cluster_size, QCOW2_SLICE_MAX);
	if (q->version == 3 && (q->header_length < HEADER_V3_LENGTH || q->header_length % 8 ||
				       q->header_length > q->cluster_size))
		return header_bad(q, why, "header_length is impossible", q->header_length);
	if (q->refcount_order > 6)
		return header_bad(q, why, "refcount_order is over 6", q->refcount_order);
	if (!q->size)
		return header_bad(q, why, "the virtual size is 0", 0);
	if (q->size % BLK_SECTOR)
		return header_bad(q, why, "the virtual size is not a multiple of 512", q->size);
	if (q->size > INT64_MAX - q->cluster_size)
		return header_bad(q, why, "the virtual size is too large", q->size);
	return 0;
}

static int header_check_tables(struct qcow2 *q, char *why)
{
	unsigned l1_shift = 2 * q->cluster_bits - 3;
	uint64_t used = (q->size + (1ull << l1_shift) - 1) >> l1_shift;
	uint64_t l1_bytes = q->l1_size * 8ull;
	uint64_t reftable_bytes = (uint64_t)q->reftable_clusters << q->cluster_bits;

	if (used > q->l1_size)
		return header_bad(q, why, "the L1 table is too small for the size", q->l1_size);
	if (l1_bytes > QCOW2_L1_BYTES_MAX)
		return header_bad(q, why, "the L1 table is over 32 MiB", q->l1_size);
	if (!header_table_inside(q, q->l1_offset, l1_bytes))
		return header_bad(q, why, "the L1 table is not inside the file", q->l1_offset);
	if (!q->reftable_clusters || reftable_bytes > QCOW2_REFTABLE_MAX)
		return header_bad(
			q, why, "the refcount table's size is impossible", q->reftable_clusters);
	if (!header_table_inside(q, q->reftable_offset, reftable_bytes))
		return header_bad(
			q, why, "the refcount table is not inside the file", q->reftable_offset);
	if (ranges_meet(q->l1_offset, l1_bytes, q->reftable_offset, reftable_bytes))
		return header_bad(q, why, "the L1 and refcount tables overlap", q->l1_offset);
	if (q->snapshots > QCOW2_SNAPSHOTS_MAX)
		return header_bad(q, why, "too many snapshots", q->snapshots);
	if (q->snapshots && !header_table_inside(q, q->snapshots_offset, 1))
		return header_bad(
			q, why, "the snapshot table is not inside the file", q->snapshots_offset);
	q->l1_used = (uint32_t)used;
	q->reftable_size = (uint32_t)(reftable_bytes / 8);
	return 0;
}

static int header_refuse(struct qcow2 *q, char *why, const char *what)
{
	blk_why(why, "%s: qcow2: %s is not supported; `qemu-img convert` makes an image without it",
		q->name, what);
	return -ENOTSUP;
}

/* The name an image gives a feature, printable, or nothing. */
static void header_feature_name(
	const uint8_t *names, uint32_t length, unsigned bit, char *to, size_t size)
{
	to[0] = 0;
	for (uint32_t i = 0; names && i + FEATURE_NAME_LENGTH <= length; i += FEATURE_NAME_LENGTH) {
		size_t n = 0;

		if (names[i] != 0 || names[i + 1] != bit)
			continue;
		while (n < 46 && n + 1 < size && names[i + 2 + n] >= 0x20 &&
			names[i + 2 + n] < 0x7f) {
			to[n] = (char)names[i + 2 + n];
			n++;
		}
		to[n] = 0;
		return;
	}
}

static int header_check_features(
	struct qcow2 *q, uint32_t crypt, const uint8_t *names, uint32_t names_length, char *why)
{
	char text[96], name[48];

	if (crypt)
		return header_refuse(q, why, crypt == 2 ? "encryption (LUKS)" : "encryption");
	if (q->incompatible & 1ull << 2)
		return header_refuse(q, why, "an external data file (incompatible feature bit 2)");
	if (q->incompatible & 1ull << 4)
		return header_refuse(q, why, "extended L2 entries (incompatible feature bit 4)");
	for (unsigned bit = 5; bit < 64; bit++) {
		if (!(q->incompatible & 1ull << bit))
			continue;
		header_feature_name(names, names_length, bit, name, sizeof(name));
		snprintf(text, sizeof(text), "incompatible feature bit %u%s%s%s", bit,
			*name ? " (" : "", name, *name ? ")" : "");
		return header_refuse(q, why, text);
	}
	if (q->compression > 1 || (q->compression == 0 && q->incompatible & 1ull << 3))
		return header_refuse(q, why, "this compression type");
	return 0;
}

/* Extensions, until their end or what is not one any more. */
static void header_extensions(struct qcow2 *q, const uint8_t *h, uint32_t length,
	const uint8_t **names, uint32_t *names_length)
{
	uint64_t at = q->header_length;

	while (at + 8 <= length) {
		uint32_t type = get32(h + at), bytes = get32(h + at + 4);
		const uint8_t *data = h + at + 8;

		if (type == EXTENSION_END || bytes > length - at - 8)
			return;
		if (type == EXTENSION_BACKING_FORMAT)
			snprintf(q->backing_format, sizeof(q->backing_format), "%.*s",
				(int)qcow2_min(bytes, sizeof(q->backing_format) - 1),
				(const char *)data);
		if (type == EXTENSION_FEATURE_NAMES) {
			*names = data;
			*names_length = bytes;
		}
		at += 8 + (((uint64_t)bytes + 7) & ~7ull);
	}
}

static int header_backing_name(struct qcow2 *q, const uint8_t *h, uint32_t length, char *why)
{
	uint64_t offset = get64(h + 8);
	uint32_t bytes = get32(h + 16);

	if (!offset || !bytes)
		return 0;
	if (bytes > QCOW2_BACKING_NAME_MAX || offset > length || bytes > length - offset)
		return header_bad(
			q, why, "the backing file's name is not in the first cluster", offset);
	memcpy(q->backing_name, h + offset, bytes);
	if (strlen(q->backing_name) != bytes)
		return header_bad(q, why, "the backing file's name has a zero byte", bytes);
	return 0;
}

static int header_all(struct qcow2 *q, const uint8_t *h, uint32_t length, char *why)
{
	const uint8_t *names = NULL;
	uint32_t names_length = 0;
	int rc;

	if (length < HEADER_V2_LENGTH || get32(h) != QCOW2_MAGIC) {
		blk_why(why, "%s: not a qcow2 image; use format=raw or format=auto", q->name);
		return -EINVAL;
	}
	if (get32(h + 4) < 2 || get32(h + 4) > 3) {
		blk_why(why, "%s: qcow2 version %u is not supported; only 2 and 3 are", q->name,
			get32(h + 4));
		return -ENOTSUP;
	}
	if (get32(h + 4) == 3 && length < HEADER_V3_LENGTH)
		return header_bad(q, why, "the header is cut off at", length);
	header_parse(q, h);
	rc = header_check_geometry(q, why);
	if (rc)
		return rc;
	length = (uint32_t)qcow2_min(length, q->cluster_size);
	if (q->header_length > HEADER_V3_LENGTH && length > HEADER_V3_LENGTH)
		q->compression = h[HEADER_V3_LENGTH];
	header_extensions(q, h, length, &names, &names_length);
	/* What a feature changes may be anything: it comes before the rest. */
	rc = header_check_features(q, get32(h + 32), names, names_length, why);
	if (!rc)
		rc = header_check_tables(q, why);
	return rc ? rc : header_backing_name(q, h, length, why);
}

int qcow2_header_read(struct qcow2 *q, char *why)
{
	uint32_t length = (uint32_t)qcow2_min(q->file_end, HEADER_READ_MAX);
	uint8_t *h = calloc(1, HEADER_READ_MAX);
	int rc;

	if (!h) {
		blk_why(why, "%s: no memory", q->name);
		return -ENOMEM;
	}
	rc = qcow2_file_read(q->fd, h, length, 0);
	if (rc)
		blk_why(why, "%s: cannot be read: %s", q->name, strerror(-rc));
	else
		rc = header_all(q, h, length, why);
	free(h);
	return rc;
}
