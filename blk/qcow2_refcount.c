/* SPDX-License-Identifier: BSD-2-Clause */
/* Which clusters of the file are in use. Lock held throughout. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk/qcow2_priv.h"

/* Tables refer to places below this. */
#define REFCOUNT_OFFSET_MAX (1ull << 56)
/* The tables of a larger image are not searched for every cluster that is taken. */
#define REFCOUNT_SEARCH_MAX 65536u
/* No search takes forever: more clusters than a full image of 8 TiB has. */
#define ALLOC_STEPS_MAX (1u << 27)

#define HEADER_REFTABLE_OFFSET  48u
#define HEADER_INCOMPATIBLE_LOW 79u

static unsigned block_bits(const struct qcow2 *q)
{
	return q->cluster_bits + 3 - q->refcount_order;
}

static bool ranges_meet(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

/* The header and the tables whose place is in it. */
bool qcow2_overlaps_tables(const struct qcow2 *q, uint64_t offset, uint64_t length)
{
	return ranges_meet(offset, length, 0, q->cluster_size) ||
	       ranges_meet(offset, length, q->l1_offset, q->l1_size * 8ull) ||
	       ranges_meet(offset, length, q->reftable_offset, q->reftable_size * 8ull) ||
	       (q->snapshots && ranges_meet(offset, length, q->snapshots_offset, 1));
}

static bool overlaps_second_level(const struct qcow2 *q, uint64_t offset, uint64_t length)
{
	for (uint32_t i = 0; q->l1_used <= REFCOUNT_SEARCH_MAX && i < q->l1_used; i++) {
		uint64_t at = q->l1[i] & QCOW2_OFFSET_MASK;

		if (at && ranges_meet(offset, length, at, q->cluster_size))
			return true;
	}
	for (uint32_t i = 0; q->reftable_size <= REFCOUNT_SEARCH_MAX && i < q->reftable_size; i++)
		if (q->reftable[i] &&
			ranges_meet(offset, length, q->reftable[i] & ~511ull, q->cluster_size))
			return true;
	return false;
}

int qcow2_corrupted(struct qcow2 *q)
{
	uint8_t bits = (uint8_t)(q->incompatible | QCOW2_INCOMPATIBLE_CORRUPT);

	if (q->corrupt || q->readonly)
		return -EIO;
	q->corrupt = true;
	/* For whoever opens it next; if that fails too, this run still writes nothing more. */
	if (q->version >= 3)
		(void)qcow2_file_write(q->fd, &bits, 1, HEADER_INCOMPATIBLE_LOW);
	return -EIO;
}

/* The slice with a cluster's refcount, and where in it, in bits. 1: there is no block for it. */
static int refcount_find(
	struct qcow2 *q, uint64_t cluster, struct qcow2_slice **slice, uint32_t *bit)
{
	uint64_t index = cluster >> block_bits(q);
	uint64_t in_block = (cluster & ((1ull << block_bits(q)) - 1)) << q->refcount_order;
	uint64_t block;

	if (index >= q->reftable_size)
		return 1;
	block = q->reftable[index] & ~511ull;
	if (!block)
		return 1;
	if (block & (q->cluster_size - 1) || block >= qcow2_up(q, q->file_end) ||
		qcow2_overlaps_tables(q, block, q->cluster_size))
		return qcow2_corrupted(q);
	block += in_block / 8 & ~(uint64_t)(q->slice_size - 1);
	*bit = (uint32_t)(in_block & (q->slice_size * 8ull - 1));
	return qcow2_slice_get(q, QCOW2_REF_SLICE, block, true, slice);
}

static uint64_t refcount_load(const struct qcow2 *q, const uint8_t *data, uint32_t bit)
{
	const uint8_t *p = data + bit / 8;
	uint64_t v = 0;

	if (q->refcount_order < 3)
		return *p >> bit % 8 & ((1u << (1u << q->refcount_order)) - 1);
	for (unsigned i = 0; i < 1u << (q->refcount_order - 3); i++)
		v = v << 8 | p[i];
	return v;
}

static void refcount_store(const struct qcow2 *q, uint8_t *data, uint32_t bit, uint64_t v)
{
	uint8_t *p = data + bit / 8;
	unsigned mask;

	if (q->refcount_order < 3) {
		mask = (1u << (1u << q->refcount_order)) - 1;
		*p = (uint8_t)((*p & ~(mask << bit % 8)) | (unsigned)v << bit % 8);
		return;
	}
	for (unsigned i = 1u << (q->refcount_order - 3); i-- > 0; v >>= 8)
		p[i] = (uint8_t)v;
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
	struct qcow2_slice *slice;
	uint32_t bit;
	int rc = refcount_find(q, cluster, &slice, &bit);

	*count = 0;
	if (rc)
		return rc < 0 ? rc : 0;
	*count = refcount_load(q, slice->data, bit);
	return 0;
}

/* There is a block for it, as whoever got it there has seen to. */
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
	unsigned width = 1u << q->refcount_order;
	struct qcow2_slice *slice;
	uint32_t bit;
	int rc;

	if (width < 64 && count >> width)
		return -ERANGE;
	rc = refcount_find(q, cluster, &slice, &bit);
	if (rc)
		return rc < 0 ? rc : qcow2_corrupted(q);
	refcount_store(q, slice->data, bit, count);
	qcow2_slice_dirty(q, slice);
	return 0;
}

/* ------------------------------------------------------------------ more blocks, more table */

static int reftable_entry_write(struct qcow2 *q, uint64_t index, uint64_t block)
{
	uint64_t raw = qcow2_be64(block);
	int rc = qcow2_file_write(q->fd, &raw, sizeof(raw), q->reftable_offset + index * 8);

	if (!rc)
		q->reftable[index] = block;
	return rc;
}

/* Writes a block of refcounts in which the `ones` from `first` on are 1, to where it is to be. */
static int block_write(struct qcow2 *q, uint64_t at, uint64_t first, uint64_t ones)
{
	uint8_t *block = calloc(1, q->cluster_size);
	int rc;

	if (!block)
		return -ENOMEM;
	for (uint64_t i = 0; i < ones; i++)
		refcount_store(q, block, (uint32_t)((first + i) << q->refcount_order), 1);
	qcow2_slices_forget(q, at, q->cluster_size);
	rc = qcow2_file_extend(q, at + q->cluster_size);
	if (!rc)
		rc = qcow2_file_write(q->fd, block, q->cluster_size, at);
	free(block);
	return rc;
}

int qcow2_block_place(struct qcow2 *q, uint64_t index, uint64_t at)
{
	int rc = block_write(q, at, 0, 0);

	return rc ? rc : reftable_entry_write(q, index, at);
}

/* A block for a range of clusters none of which is in use, in the first of them. */
static int block_add(struct qcow2 *q, uint64_t index)
{
	uint64_t at = index << block_bits(q) << q->cluster_bits;
	int rc;

	if (qcow2_overlaps_tables(q, at, q->cluster_size) ||
		overlaps_second_level(q, at, q->cluster_size))
		return qcow2_corrupted(q);
	rc = block_write(q, at, 0, 1);
	if (!rc)
		rc = qcow2_file_sync(q);
	return rc ? rc : reftable_entry_write(q, index, at);
}

/* The header's two fields lie together: one write, whole or not at all. */
static int reftable_switch(struct qcow2 *q, uint64_t offset, uint32_t clusters)
{
	uint8_t fields[12];
	int rc;

	for (unsigned i = 0; i < 8; i++)
		fields[i] = (uint8_t)(offset >> (56 - 8 * i));
	for (unsigned i = 0; i < 4; i++)
		fields[8 + i] = (uint8_t)(clusters >> (24 - 8 * i));
	rc = qcow2_file_write(q->fd, fields, sizeof(fields), HEADER_REFTABLE_OFFSET);
	return rc ? rc : qcow2_file_sync(q);
}

/* A new table and the blocks that cover it and them, where the old one's reach ended. */
static int reftable_fill(
	struct qcow2 *q, uint64_t *table, uint64_t start, uint64_t clusters, uint64_t blocks)
{
	uint64_t per_block = 1ull << block_bits(q), ones = clusters + blocks;
	uint64_t bytes = clusters << q->cluster_bits;
	uint64_t *raw = calloc(1, bytes);
	int rc = raw ? 0 : -ENOMEM;

	for (uint64_t i = 0; !rc && i < blocks; i++) {
		uint64_t at = (start + clusters + i) << q->cluster_bits;
		uint64_t done = i * per_block;

		table[q->reftable_size + i] = at;
		rc = block_write(q, at, 0, done < ones ? qcow2_min(per_block, ones - done) : 0);
	}
	for (uint64_t i = 0; !rc && i < bytes / 8; i++)
		raw[i] = qcow2_be64(table[i]);
	if (!rc)
		rc = qcow2_file_write(q->fd, raw, bytes, start << q->cluster_bits);
	if (!rc)
		rc = qcow2_file_sync(q);
	free(raw);
	return rc;
}

static int reftable_grow(struct qcow2 *q)
{
	uint64_t start = (uint64_t)q->reftable_size << block_bits(q);
	uint64_t per_table = q->cluster_size / 8, old_first = q->reftable_offset >> q->cluster_bits;
	uint64_t clusters = q->reftable_clusters + q->reftable_clusters / 2 + 1, blocks = 1;
	uint32_t old_clusters = q->reftable_clusters;
	uint64_t *table;
	int rc;

	while (blocks << block_bits(q) < clusters + blocks)
		blocks++;
	while (clusters * per_table < q->reftable_size + blocks)
		clusters++;
	if (clusters << q->cluster_bits > QCOW2_REFTABLE_MAX)
		return -ENOSPC;
	if (overlaps_second_level(
		    q, start << q->cluster_bits, (clusters + blocks) << q->cluster_bits) ||
		qcow2_overlaps_tables(
			q, start << q->cluster_bits, (clusters + blocks) << q->cluster_bits))
		return qcow2_corrupted(q);
	table = calloc(clusters * per_table, 8);
	if (!table)
		return -ENOMEM;
	memcpy(table, q->reftable, q->reftable_size * 8ull);
	rc = reftable_fill(q, table, start, clusters, blocks);
	if (!rc)
		rc = reftable_switch(q, start << q->cluster_bits, (uint32_t)clusters);
	if (rc) {
		free(table);
		return rc;
	}
	free(q->reftable);
	q->reftable = table;
	q->reftable_offset = start << q->cluster_bits;
	q->reftable_clusters = (uint32_t)clusters;
	q->reftable_size = (uint32_t)(clusters * per_table);
	for (uint32_t i = 0; i < old_clusters; i++)
		qcow2_release(q, old_first + i);
	return 0;
}

/* ------------------------------------------------------------------ taking and giving back */

/* The first free cluster from the hint on, in a range that has a block. */
static int alloc_find(struct qcow2 *q, uint64_t *found)
{
	uint64_t cluster = q->free_hint, count, index, steps = 0;
	int rc;

	for (;; cluster++) {
		if (cluster >= REFCOUNT_OFFSET_MAX >> q->cluster_bits || ++steps > ALLOC_STEPS_MAX)
			return -ENOSPC;
		if (q->block_device && cluster >= q->file_end >> q->cluster_bits)
			return -ENOSPC;
		index = cluster >> block_bits(q);
		rc = 0;
		if (index >= q->reftable_size)
			rc = reftable_grow(q);
		else if (!(q->reftable[index] & ~511ull))
			rc = block_add(q, index);
		if (!rc)
			rc = qcow2_refcount_get(q, cluster, &count);
		if (rc)
			return rc;
		q->free_hint = cluster;
		if (!count)
			break;
	}
	*found = cluster;
	return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got)
{
	uint64_t n = 0, count = 0;
	int rc;

	if (q->corrupt)
		return -EIO;
	rc = alloc_find(q, first);
	while (!rc && n < want) {
		uint64_t cluster = *first + n;

		if (n && cluster >> block_bits(q) != *first >> block_bits(q))
			break;
		if (n && q->block_device && cluster >= q->file_end >> q->cluster_bits)
			break;
		rc = n ? qcow2_refcount_get(q, cluster, &count) : 0;
		if (rc || count)
			break;
		n++;
	}
	*got = n;
	if (rc)
		return rc;
	if (qcow2_overlaps_tables(q, *first << q->cluster_bits, n << q->cluster_bits) ||
		overlaps_second_level(q, *first << q->cluster_bits, n << q->cluster_bits))
		return qcow2_corrupted(q);
	for (uint64_t i = 0; i < n; i++) {
		rc = qcow2_refcount_set(q, *first + i, 1);
		if (rc) {
			qcow2_unalloc(q, *first, i);
			return rc;
		}
	}
	q->free_hint = *first + n;
	return 0;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (qcow2_refcount_set(q, first + i, 0) == 0 && first + i < q->free_hint)
			q->free_hint = first + i;
}

void qcow2_release(struct qcow2 *q, uint64_t cluster)
{
	if (q->npending == q->pending_room) {
		size_t room = q->pending_room ? q->pending_room * 2 : 256;
		struct qcow2_pending *more = realloc(q->pending, room * sizeof(*more));

		/* Without memory the cluster leaks, which harms nobody. */
		if (!more)
			return;
		q->pending = more;
		q->pending_room = room;
	}
	q->pending[q->npending++] = (struct qcow2_pending){cluster, q->epoch};
}

/* Nobody who found a place in an epoch before the last is still at it. */
static void epoch_advance(struct qcow2 *q)
{
	for (int i = 0; i < 2; i++) {
		if (atomic_load(&q->users[(q->epoch + 1) & 1]))
			return;
		q->epoch++;
	}
}

/* True: the cluster is free now. */
static bool release_one(struct qcow2 *q, uint64_t cluster)
{
	uint64_t count;

	if (qcow2_refcount_get(q, cluster, &count))
		return false;
	/* A count that was too low before leaves nothing to take away. */
	if (!count || qcow2_refcount_set(q, cluster, count - 1))
		return false;
	return count == 1;
}

void qcow2_release_pending(struct qcow2 *q, size_t n)
{
	uint64_t run = 0, run_length = 0;
	size_t kept = 0;

	epoch_advance(q);
	for (size_t i = 0; i < q->npending; i++) {
		struct qcow2_pending p = q->pending[i];

		if (i >= n || p.epoch + 2 > q->epoch) {
			q->pending[kept++] = p;
			continue;
		}
		if (!release_one(q, p.cluster))
			continue;
		if (p.cluster < q->free_hint)
			q->free_hint = p.cluster;
		if (run_length && p.cluster == run + run_length) {
			run_length++;
			continue;
		}
		if (run_length)
			qcow2_file_punch(q, run << q->cluster_bits, run_length << q->cluster_bits);
		run = p.cluster;
		run_length = 1;
	}
	if (run_length)
		qcow2_file_punch(q, run << q->cluster_bits, run_length << q->cluster_bits);
	q->npending = kept;
}
