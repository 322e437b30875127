/* SPDX-License-Identifier: BSD-2-Clause */
/* Where guest clusters are: the L1 and L2 tables. Lock held throughout. */
#include <errno.h>
#include <stdlib.h>

#include "blk/qcow2_priv.h"

/* A table or cluster that an entry refers to: aligned, inside the file, not over other tables. */
static bool map_place_is_good(const struct qcow2 *q, uint64_t offset)
{
	return !(offset & (q->cluster_size - 1)) && offset < qcow2_up(q, q->file_end) &&
	       !qcow2_overlaps_tables(q, offset, q->cluster_size);
}

/* The slice with the entry of a guest cluster; NULL: there is no table. */
static int map_slice(
	struct qcow2 *q, uint64_t cluster, bool load, struct qcow2_slice **slice, uint32_t *index)
{
	unsigned l2_bits = q->cluster_bits - 3;
	uint64_t table = q->l1[cluster >> l2_bits] & QCOW2_OFFSET_MASK;
	uint64_t in_table = (cluster & ((1ull << l2_bits) - 1)) * 8;

	*slice = NULL;
	if (!table)
		return 0;
	if (!map_place_is_good(q, table))
		return qcow2_corrupted(q);
	*index = (uint32_t)(in_table & (q->slice_size - 1)) / 8;
	return qcow2_slice_get(q, QCOW2_L2_SLICE,
		table + (in_table & ~(uint64_t)(q->slice_size - 1)), load, slice);
}

static uint64_t slice_entry(const struct qcow2_slice *slice, uint32_t index)
{
	return qcow2_be64(((const uint64_t *)(const void *)slice->data)[index]);
}

static int map_entry(struct qcow2 *q, uint64_t entry, struct qcow2_extent *out)
{
	uint64_t host = entry & QCOW2_OFFSET_MASK;
	bool zero = q->version >= 3 && entry & QCOW2_ZERO;

	out->copied = false;
	out->host = host;
	if (entry & QCOW2_COMPRESSED) {
		out->type = QCOW2_PACKED;
		out->host = entry;
		return 0;
	}
	if (!host) {
		out->type = zero ? QCOW2_ZERO_PLAIN : QCOW2_UNALLOCATED;
		return 0;
	}
	if (!map_place_is_good(q, host))
		return qcow2_corrupted(q);
	out->type = zero ? QCOW2_ZERO_ALLOCATED : QCOW2_NORMAL;
	out->copied = entry & QCOW2_COPIED;
	return 0;
}

/* The next cluster goes on where the first one's ends. */
static bool map_follows(
	const struct qcow2 *q, const struct qcow2_extent *first, uint64_t n, uint64_t entry)
{
	struct qcow2_extent next;
	uint64_t host = entry & QCOW2_OFFSET_MASK;

	/* What is wrong with an entry is said when it is asked for itself. */
	if (first->type == QCOW2_PACKED || entry & QCOW2_COMPRESSED)
		return false;
	next.type = q->version >= 3 && entry & QCOW2_ZERO
			    ? (host ? QCOW2_ZERO_ALLOCATED : QCOW2_ZERO_PLAIN)
			    : (host ? QCOW2_NORMAL : QCOW2_UNALLOCATED);
	if (next.type != first->type)
		return false;
	if (!host)
		return true;
	return host == first->host + (n << q->cluster_bits) && map_place_is_good(q, host) &&
	       first->copied == !!(entry & QCOW2_COPIED);
}

int qcow2_map(
	struct qcow2 *q, uint64_t offset, uint64_t length, bool load, struct qcow2_extent *out)
{
	uint64_t cluster = offset >> q->cluster_bits, in_cluster = offset & (q->cluster_size - 1);
	uint64_t table_span = q->cluster_size << (q->cluster_bits - 3), n = 1;
	struct qcow2_slice *slice;
	uint32_t index = 0;
	int rc = map_slice(q, cluster, load, &slice, &index);

	if (rc)
		return rc;
	if (!slice) {
		*out = (struct qcow2_extent){.type = QCOW2_UNALLOCATED};
		out->length = qcow2_min(length, table_span - (offset & (table_span - 1)));
		return 0;
	}
	rc = map_entry(q, slice_entry(slice, index), out);
	if (rc)
		return rc;
	while (index + n < q->slice_size / 8 && (n << q->cluster_bits) - in_cluster < length &&
		map_follows(q, out, n, slice_entry(slice, index + (uint32_t)n)))
		n++;
	out->length = qcow2_min(length, (n << q->cluster_bits) - in_cluster);
	if (out->type == QCOW2_NORMAL || out->type == QCOW2_ZERO_ALLOCATED)
		out->host += in_cluster;
	return 0;
}

/* A table of one's own: a new one, or a copy of one that a snapshot has too. */
static int l2_make(struct qcow2 *q, uint32_t l1_index)
{
	uint64_t old = q->l1[l1_index] & QCOW2_OFFSET_MASK, first, got, at;
	uint8_t *table = calloc(1, q->cluster_size);
	int rc = table ? qcow2_alloc(q, 1, &first, &got) : -ENOMEM;

	if (rc) {
		free(table);
		return rc;
	}
	at = first << q->cluster_bits;
	qcow2_slices_forget(q, at, q->cluster_size);
	rc = old ? qcow2_file_read(q->fd, table, q->cluster_size, old) : 0;
	if (!rc)
		rc = qcow2_file_extend(q, at + q->cluster_size);
	if (!rc)
		rc = qcow2_file_write(q->fd, table, q->cluster_size, at);
	free(table);
	if (rc) {
		qcow2_unalloc(q, first, 1);
		return rc;
	}
	qcow2_l1_set(q, l1_index, at | QCOW2_COPIED);
	if (old)
		qcow2_release(q, old >> q->cluster_bits);
	return 0;
}

int qcow2_l2_writable(
	struct qcow2 *q, uint64_t guest_cluster, struct qcow2_slice **slice, uint32_t *index)
{
	uint32_t l1_index = (uint32_t)(guest_cluster >> (q->cluster_bits - 3));
	int rc = 0;

	if (q->corrupt)
		return -EIO;
	if (q->l1[l1_index] & QCOW2_OFFSET_MASK &&
		!map_place_is_good(q, q->l1[l1_index] & QCOW2_OFFSET_MASK))
		return qcow2_corrupted(q);
	if (!(q->l1[l1_index] & QCOW2_OFFSET_MASK) || !(q->l1[l1_index] & QCOW2_COPIED))
		rc = l2_make(q, l1_index);
	return rc ? rc : map_slice(q, guest_cluster, true, slice, index);
}

void qcow2_entry_release(struct qcow2 *q, uint64_t entry)
{
	uint64_t offset, length, end;

	if (entry & QCOW2_COMPRESSED) {
		qcow2_packed_place(q, entry, &offset, &length);
		/* Every cluster that it touches, in whole sectors, counts it once. */
		end = (offset + length - 1) >> q->cluster_bits;
		for (uint64_t c = offset >> q->cluster_bits; c <= end; c++)
			qcow2_release(q, c);
	} else if (entry & QCOW2_OFFSET_MASK) {
		qcow2_release(q, (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits);
	}
}

unsigned qcow2_enter(struct qcow2 *q)
{
	unsigned token = q->epoch & 1;

	atomic_fetch_add(&q->users[token], 1);
	return token;
}

/* Any thread, no lock needed. */
void qcow2_leave(struct qcow2 *q, unsigned token)
{
	atomic_fetch_sub(&q->users[token], 1);
}
