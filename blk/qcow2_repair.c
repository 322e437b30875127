/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An image marked dirty: whoever wrote it kept its refcounts for later and did not come to write
 * them. They are made anew from what the tables refer to, before anything else is done with it.
 * While it is opened: one thread, no locks needed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk/qcow2_priv.h"

#define REPAIR_CLUSTERS_MAX (1u << 26)
/* No image makes this take forever: the entries that all tables may have together. */
#define REPAIR_ENTRIES_MAX (1ull << 28)
#define REPAIR_L1_READ     4096u

#define SNAPSHOT_ENTRY 40u
#define HEADER_DIRTY   79u /* the byte with the bit */

struct repair {
	struct qcow2 *q;
	uint32_t *counts;
	uint64_t n, room; /* clusters; those there is room for */
	uint64_t entries; /* looked at so far */
	const char *what; /* is wrong */
};

static int repair_bad(struct repair *r, const char *what)
{
	r->what = what;
	return -EIO;
}

static int count_cluster(struct repair *r, uint64_t cluster)
{
	if (cluster >= r->n)
		return repair_bad(r, "something refers to places outside the file");
	r->counts[cluster]++;
	return 0;
}

static int count_range(struct repair *r, uint64_t offset, uint64_t length)
{
	unsigned bits = r->q->cluster_bits;
	int rc = 0;

	for (uint64_t c = offset >> bits; !rc && length && c <= (offset + length - 1) >> bits; c++)
		rc = count_cluster(r, c);
	return rc;
}

static int count_entry(struct repair *r, uint64_t entry)
{
	uint64_t offset, length;

	if (entry & QCOW2_COMPRESSED) {
		qcow2_packed_place(r->q, entry, &offset, &length);
		return count_range(r, offset, length);
	}
	if (!(entry & QCOW2_OFFSET_MASK))
		return 0;
	if (entry & QCOW2_OFFSET_MASK & (r->q->cluster_size - 1))
		return repair_bad(r, "an entry is misaligned");
	return count_cluster(r, (entry & QCOW2_OFFSET_MASK) >> r->q->cluster_bits);
}

static int count_l2(struct repair *r, uint64_t offset, uint64_t *table)
{
	uint64_t n = r->q->cluster_size / 8;
	int rc;

	if (offset & (r->q->cluster_size - 1))
		return repair_bad(r, "an L2 table is misaligned");
	r->entries += n;
	if (r->entries > REPAIR_ENTRIES_MAX)
		return repair_bad(r, "its tables are too large");
	rc = count_cluster(r, offset >> r->q->cluster_bits);
	if (!rc)
		rc = qcow2_file_read(r->q->fd, table, r->q->cluster_size, offset);
	for (uint64_t i = 0; i < n && !rc; i++)
		rc = count_entry(r, qcow2_be64(table[i]));
	return rc;
}

static int count_l1(struct repair *r, uint64_t offset, uint64_t size)
{
	uint64_t *part, *table = malloc(r->q->cluster_size), n;
	int rc = table ? count_range(r, offset, size * 8) : -ENOMEM;

	part = malloc(REPAIR_L1_READ * 8ull);
	if (!part)
		rc = -ENOMEM;
	for (uint64_t at = 0; at < size && !rc; at += n) {
		n = qcow2_min(size - at, REPAIR_L1_READ);
		rc = qcow2_file_read(r->q->fd, part, n * 8, offset + at * 8);
		for (uint64_t i = 0; i < n && !rc; i++) {
			uint64_t l2 = qcow2_be64(part[i]) & QCOW2_OFFSET_MASK;

			rc = l2 ? count_l2(r, l2, table) : 0;
		}
	}
	free(part);
	free(table);
	return rc;
}

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | *p++;
	return v;
}

static int count_snapshots(struct repair *r)
{
	struct qcow2 *q = r->q;
	uint64_t at = q->snapshots_offset;
	uint8_t h[SNAPSHOT_ENTRY];
	int rc = 0;

	for (uint32_t i = 0; i < q->snapshots && !rc; i++) {
		uint64_t l1_offset, l1_size;

		rc = qcow2_file_read(q->fd, h, sizeof(h), at);
		if (rc)
			return rc;
		l1_offset = get(h, 8);
		l1_size = get(h + 8, 4);
		at += SNAPSHOT_ENTRY + get(h + 36, 4) + get(h + 12, 2) + get(h + 14, 2);
		at = (at + 7) & ~7ull;
		if (at > q->file_end || l1_size * 8 > QCOW2_L1_BYTES_MAX ||
			l1_offset & (q->cluster_size - 1))
			return repair_bad(r, "its snapshot table is malformed");
		rc = count_l1(r, l1_offset, l1_size);
	}
	return rc ? rc : count_range(r, q->snapshots_offset, at - q->snapshots_offset);
}

static int count_all(struct repair *r)
{
	struct qcow2 *q = r->q;
	int rc = count_l1(r, q->l1_offset, q->l1_size);

	if (!rc && q->snapshots)
		rc = count_snapshots(r);
	if (!rc)
		rc = count_range(r, 0, q->cluster_size);
	if (!rc)
		rc = count_range(r, q->reftable_offset, q->reftable_size * 8ull);
	for (uint32_t i = 0; i < q->reftable_size && !rc; i++) {
		if (!q->reftable[i])
			continue;
		if (q->reftable[i] & (q->cluster_size - 1))
			return repair_bad(r, "a refcount block is misaligned");
		rc = count_cluster(r, q->reftable[i] >> q->cluster_bits);
	}
	/* Nothing else may be where refcounts are about to be written. */
	for (uint32_t i = 0; i < q->reftable_size && !rc; i++)
		if (q->reftable[i] && r->counts[q->reftable[i] >> q->cluster_bits] != 1)
			return repair_bad(r, "tables overlap");
	return rc;
}

/* Blocks for the clusters in use that have none, at the end of the file. */
static int blocks_make(struct repair *r)
{
	unsigned bits = r->q->cluster_bits + 3 - r->q->refcount_order;
	int rc = 0;

	for (uint64_t i = 0; i << bits < r->n && !rc; i++) {
		uint64_t end = qcow2_min((i + 1) << bits, r->n), c = i << bits;

		if (i >= r->q->reftable_size)
			return repair_bad(r, "its refcount table is too small");
		while (c < end && !r->counts[c])
			c++;
		if (c == end || r->q->reftable[i])
			continue;
		if (r->n == r->room)
			return repair_bad(r, "too many refcount blocks are missing");
		rc = qcow2_block_place(r->q, i, r->n << r->q->cluster_bits);
		if (!rc)
			r->counts[r->n++] = 1;
	}
	return rc;
}

static int counts_write(struct repair *r)
{
	unsigned bits = r->q->cluster_bits + 3 - r->q->refcount_order;
	uint64_t was;
	int rc = 0;

	for (uint64_t c = 0; c < r->n && !rc; c++) {
		if (!r->q->reftable[c >> bits])
			continue;
		rc = qcow2_refcount_get(r->q, c, &was);
		if (!rc && was != r->counts[c])
			rc = qcow2_refcount_set(r->q, c, r->counts[c]);
		if (!rc && c % REPAIR_L1_READ == 0)
			rc = qcow2_flush_if_due(r->q);
	}
	return rc;
}

static uint32_t count_of(const struct repair *r, uint64_t offset)
{
	uint64_t cluster = offset >> r->q->cluster_bits;

	/* Tables that overlap may have changed by being written. */
	return cluster < r->n ? r->counts[cluster] : 0;
}

static int copied_mend_l2(struct repair *r, uint64_t table)
{
	struct qcow2 *q = r->q;
	struct qcow2_slice *slice;
	int rc = 0;

	for (uint64_t at = 0; at < q->cluster_size && !rc; at += q->slice_size) {
		rc = qcow2_slice_get(q, QCOW2_L2_SLICE, table + at, true, &slice);
		for (uint32_t i = 0; i < q->slice_size / 8 && !rc; i++) {
			uint64_t *entry = (uint64_t *)(void *)slice->data + i;
			uint64_t old = qcow2_be64(*entry), place = old & QCOW2_OFFSET_MASK;
			uint64_t now = old & ~QCOW2_COPIED;

			if (old & QCOW2_COMPRESSED || !place)
				continue;
			if (count_of(r, place) == 1)
				now |= QCOW2_COPIED;
			if (now == old)
				continue;
			*entry = qcow2_be64(now);
			qcow2_slice_dirty(q, slice);
		}
	}
	return rc ? rc : qcow2_flush_if_due(q);
}

/* Which clusters are the active tables' own, as the counts now say. */
static int copied_mend(struct repair *r)
{
	struct qcow2 *q = r->q;
	int rc = 0;

	for (uint32_t i = 0; i < q->l1_used && !rc; i++) {
		uint64_t place = q->l1[i] & QCOW2_OFFSET_MASK;
		bool own = place && count_of(r, place) == 1;

		if (!place)
			continue;
		if (own != !!(q->l1[i] & QCOW2_COPIED))
			qcow2_l1_set(q, i, place | (own ? QCOW2_COPIED : 0));
		rc = copied_mend_l2(r, place);
	}
	return rc;
}

static int repair_all(struct repair *r)
{
	struct qcow2 *q = r->q;
	uint8_t bits = (uint8_t)(q->incompatible & ~QCOW2_INCOMPATIBLE_DIRTY);
	int rc;

	if (q->autoclear & 1)
		return repair_bad(r, "it has bitmaps");
	r->n = qcow2_up(q, q->file_end) >> q->cluster_bits;
	r->room = r->n + (r->n >> (q->cluster_bits + 3 - q->refcount_order)) + 8;
	if (r->n > REPAIR_CLUSTERS_MAX || q->block_device)
		return repair_bad(r, "it is too large");
	r->counts = calloc(r->room, sizeof(*r->counts));
	if (!r->counts)
		return -ENOMEM;
	rc = count_all(r);
	if (!rc)
		rc = blocks_make(r);
	if (!rc)
		rc = counts_write(r);
	if (!rc)
		rc = copied_mend(r);
	if (!rc)
		rc = qcow2_flush(q);
	if (!rc)
		rc = qcow2_file_write(q->fd, &bits, 1, HEADER_DIRTY);
	if (!rc)
		rc = qcow2_file_sync(q);
	if (!rc)
		q->incompatible &= ~QCOW2_INCOMPATIBLE_DIRTY;
	return rc;
}

int qcow2_repair(struct qcow2 *q, char *why)
{
	struct repair r = {.q = q};
	int rc = repair_all(&r);

	free(r.counts);
	if (rc)
		blk_why(why, "%s: marked dirty, and not repaired here: %s; `qemu-img check -r all`",
			q->name, r.what ? r.what : strerror(-rc));
	return rc;
}
