/* SPDX-License-Identifier: BSD-2-Clause */
/* Discarding and zeroing: whole clusters by their entries in the table, the rest as data. */
#include <errno.h>

#include "blk/qcow2_priv.h"

#define ZERO_SIZE (128u << 10)

/* Never written: all of it is the kernel's one page of zeroes. */
static uint8_t zero_bytes[ZERO_SIZE] __attribute__((aligned(4096)));

enum zero_how { ZERO_DISCARD, ZERO_UNMAP, ZERO_KEEP };

enum zero_action {
	ZERO_LEAVE, /* it is as it should be, or nothing better can be done */
	ZERO_FREE,  /* no entry */
	ZERO_FLAG,  /* an entry that says zeroes, without a place */
	ZERO_MARK,  /* an entry that says zeroes, the place kept */
	ZERO_WRITE, /* zeroes as data */
};

static enum zero_action discard_action(const struct qcow2 *q, const struct qcow2_extent *e)
{
	if (e->type == QCOW2_UNALLOCATED || e->type == QCOW2_ZERO_PLAIN)
		return ZERO_LEAVE;
	/* What lies below must not come to light again. */
	if (q->backing)
		return q->version >= 3 ? ZERO_FLAG : ZERO_LEAVE;
	return ZERO_FREE;
}

static enum zero_action zero_action(
	const struct qcow2 *q, const struct qcow2_extent *e, enum zero_how how)
{
	if (how == ZERO_DISCARD)
		return discard_action(q, e);
	if (e->type == QCOW2_ZERO_PLAIN || e->type == QCOW2_ZERO_ALLOCATED)
		return ZERO_LEAVE;
	if (e->type == QCOW2_UNALLOCATED && !q->backing)
		return ZERO_LEAVE;
	if (q->version >= 3)
		return how == ZERO_KEEP && e->type == QCOW2_NORMAL && e->copied ? ZERO_MARK
										: ZERO_FLAG;
	if (!q->backing && (how == ZERO_UNMAP || e->type == QCOW2_PACKED))
		return ZERO_FREE;
	return ZERO_WRITE;
}

/* Lock held. Entries of one slice. */
static int zero_entries(struct qcow2 *q, uint64_t first, uint64_t n, enum zero_action action)
{
	struct qcow2_slice *slice;
	uint64_t *entries;
	uint32_t index;
	int rc = qcow2_l2_writable(q, first, &slice, &index);

	if (rc)
		return rc;
	entries = (uint64_t *)(void *)slice->data + index;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t old = qcow2_be64(entries[i]);

		if (action != ZERO_MARK)
			qcow2_entry_release(q, old);
		if (action == ZERO_MARK)
			entries[i] = qcow2_be64(old | QCOW2_ZERO);
		else
			entries[i] = action == ZERO_FLAG ? qcow2_be64(QCOW2_ZERO) : 0;
	}
	qcow2_slice_dirty(q, slice);
	return 0;
}

static int zero_data(struct qcow2 *q, uint64_t offset, uint64_t length)
{
	int rc = 0;

	while (length && !rc) {
		uint64_t n = qcow2_min(length, ZERO_SIZE);

		rc = qcow2_write(q, zero_bytes, n, offset);
		offset += n;
		length -= n;
	}
	return rc;
}

/* Whole clusters [first, end): some of them. */
static int zero_some(
	struct qcow2 *q, uint64_t first, uint64_t end, enum zero_how how, uint64_t *done)
{
	uint64_t per_slice = q->slice_size / 8, n;
	enum zero_action action = ZERO_LEAVE;
	struct qcow2_extent e;
	int rc;

	pthread_mutex_lock(&q->lock);
	qcow2_settle(q, first, 1);
	rc = q->corrupt ? -EIO
			: qcow2_map(q, first << q->cluster_bits, (end - first) << q->cluster_bits,
				  true, &e);
	if (!rc) {
		n = qcow2_settled_run(q, first, e.length >> q->cluster_bits);
		action = zero_action(q, &e, how);
		if (action != ZERO_LEAVE)
			n = qcow2_min(n, per_slice - first % per_slice);
		*done = n;
		if (action != ZERO_LEAVE && action != ZERO_WRITE)
			rc = zero_entries(q, first, n, action);
	}
	pthread_mutex_unlock(&q->lock);
	if (!rc && action == ZERO_WRITE) {
		uint64_t at = first << q->cluster_bits;

		rc = zero_data(q, at, qcow2_min(n << q->cluster_bits, q->size - at));
	}
	return rc;
}

static int zero_clusters(struct qcow2 *q, uint64_t first, uint64_t end, enum zero_how how)
{
	int rc = 0;

	while (first < end && !rc) {
		uint64_t done = 0;

		rc = qcow2_flush_if_due(q);
		if (!rc)
			rc = zero_some(q, first, end, how, &done);
		first += done;
	}
	return rc;
}

/* The whole clusters of a range; the image's last one is whole when the range reaches the end. */
static void zero_inner(
	const struct qcow2 *q, uint64_t offset, uint64_t length, uint64_t *first, uint64_t *end)
{
	uint64_t last = offset + length;

	*first = qcow2_up(q, offset) >> q->cluster_bits;
	*end = (last == q->size ? qcow2_up(q, last) : last) >> q->cluster_bits;
}

/* Part of a cluster: not to be given a place only to hold zeroes. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t length)
{
	struct qcow2_extent e;
	bool zeroes = false;
	int rc;

	if (!length)
		return 0;
	pthread_mutex_lock(&q->lock);
	qcow2_settle(q, offset >> q->cluster_bits, 1);
	rc = qcow2_map(q, offset, length, true, &e);
	if (!rc)
		zeroes = e.type == QCOW2_ZERO_PLAIN || e.type == QCOW2_ZERO_ALLOCATED ||
			 (e.type == QCOW2_UNALLOCATED && !q->backing);
	pthread_mutex_unlock(&q->lock);
	return rc || zeroes ? rc : zero_data(q, offset, length);
}

int qcow2_zero(struct qcow2 *q, uint64_t offset, uint64_t length, bool unmap)
{
	uint64_t first, end, inner, outer;
	int rc;

	zero_inner(q, offset, length, &first, &end);
	if (first > end) /* all of it inside one cluster */
		return zero_part(q, offset, length);
	inner = qcow2_min(first << q->cluster_bits, offset + length);
	outer = qcow2_min(end << q->cluster_bits, offset + length);
	rc = zero_part(q, offset, inner - offset);
	if (!rc)
		rc = zero_clusters(q, first, end, unmap ? ZERO_UNMAP : ZERO_KEEP);
	return rc ? rc : zero_part(q, outer, offset + length - outer);
}

int qcow2_discard(struct qcow2 *q, uint64_t offset, uint64_t length)
{
	uint64_t first, end;

	zero_inner(q, offset, length, &first, &end);
	return zero_clusters(q, first, end, ZERO_DISCARD);
}
