/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading and writing, blocking, on worker threads. A cluster that is to be written and has no
 * place of its own gets one in three steps: taken and marked busy under the lock; filled without
 * it; entered in the table under the lock. Whoever wants the same cluster waits for the third.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk/qcow2_priv.h"

static bool busy_meets(const struct qcow2_busy *b, uint64_t first, uint64_t count)
{
	return first < b->first + b->count && b->first < first + count;
}

void qcow2_settle(struct qcow2 *q, uint64_t first, uint64_t count)
{
	struct qcow2_busy *b = q->busy;

	while (b) {
		if (busy_meets(b, first, count)) {
			pthread_cond_wait(&q->settled, &q->lock);
			b = q->busy;
		} else {
			b = b->next;
		}
	}
}

uint64_t qcow2_settled_run(const struct qcow2 *q, uint64_t first, uint64_t count)
{
	for (const struct qcow2_busy *b = q->busy; b; b = b->next)
		if (b->first > first && b->first - first < count)
			count = b->first - first;
	return count;
}

static void busy_end(struct qcow2 *q, struct qcow2_busy *busy)
{
	struct qcow2_busy **at = &q->busy;

	while (*at != busy)
		at = &(*at)->next;
	*at = busy->next;
	pthread_cond_broadcast(&q->settled);
}

/* The image's own descriptor, but for what direct I/O cannot do. */
static int data_fd(const struct qcow2 *q, const void *memory, uint64_t length, uint64_t offset)
{
	return ((uintptr_t)memory | length | offset) & (q->align - 1) ? q->fd : q->fd_data;
}

static int data_read(struct qcow2 *q, void *to, uint64_t length, uint64_t offset, uint64_t end)
{
	int fd = offset + length > end ? q->fd : data_fd(q, to, length, offset);

	return qcow2_file_read(fd, to, length, offset);
}

static int data_write(struct qcow2 *q, const void *from, uint64_t length, uint64_t offset)
{
	return qcow2_file_write(data_fd(q, from, length, offset), from, length, offset);
}

static int read_extent(
	struct qcow2 *q, void *to, uint64_t offset, const struct qcow2_extent *e, uint64_t file_end)
{
	switch (e->type) {
	case QCOW2_NORMAL:
		return data_read(q, to, e->length, e->host, file_end);
	case QCOW2_PACKED:
		return qcow2_unpack_read(q, e->host, to, e->length, offset & (q->cluster_size - 1));
	case QCOW2_UNALLOCATED:
		return qcow2_backing_read(q, to, e->length, offset);
	default:
		memset(to, 0, e->length);
		return 0;
	}
}

int qcow2_read(struct qcow2 *q, void *to, uint64_t length, uint64_t offset)
{
	uint8_t *at = to;
	int rc = 0;

	while (length && !rc) {
		struct qcow2_extent e;
		unsigned token = 0;
		uint64_t end;

		pthread_mutex_lock(&q->lock);
		rc = qcow2_map(q, offset, length, true, &e);
		end = q->file_end;
		if (!rc)
			token = qcow2_enter(q);
		pthread_mutex_unlock(&q->lock);
		if (rc)
			break;
		rc = read_extent(q, at, offset, &e, end);
		qcow2_leave(q, token);
		at += e.length;
		offset += e.length;
		length -= e.length;
	}
	return rc;
}

/* ------------------------------------------------------------------ writing */

/* A place for some guest clusters, and what goes there. */
struct io_place {
	struct qcow2_busy busy;
	uint64_t host;    /* of the first byte of the first cluster */
	uint64_t offset;  /* of the guest's first byte */
	uint64_t length;  /* of the guest's data */
	const void *from; /* the data */
	bool reused;      /* it was theirs before */
	bool fresh;       /* a part of the file that was not there: zeroes */
	bool zeroes;      /* what is around the data reads as zeroes */
};

/* Lock held. */
static int place_take(struct qcow2 *q, struct io_place *p, const struct qcow2_extent *e)
{
	uint64_t per_slice = q->slice_size / 8, cluster = p->offset >> q->cluster_bits;
	uint64_t in_cluster = p->offset & (q->cluster_size - 1);
	uint64_t n = (in_cluster + e->length + q->cluster_size - 1) >> q->cluster_bits, first;
	struct qcow2_slice *slice;
	uint32_t index;
	int rc;

	n = qcow2_min(n, per_slice - cluster % per_slice);
	n = qcow2_settled_run(q, cluster, n);
	rc = qcow2_l2_writable(q, cluster, &slice, &index);
	if (rc)
		return rc;
	p->zeroes = e->type == QCOW2_ZERO_PLAIN || e->type == QCOW2_ZERO_ALLOCATED ||
		    (e->type == QCOW2_UNALLOCATED && !q->backing);
	p->reused = e->type == QCOW2_ZERO_ALLOCATED && e->copied;
	if (p->reused) {
		p->host = e->host - in_cluster;
	} else {
		uint64_t end = q->file_end;

		rc = qcow2_alloc(q, n, &first, &n);
		if (rc)
			return rc;
		p->host = first << q->cluster_bits;
		rc = qcow2_file_extend(q, p->host + (n << q->cluster_bits));
		if (rc) {
			qcow2_unalloc(q, first, n);
			return rc;
		}
		p->fresh = p->host >= end;
	}
	p->length = qcow2_min(e->length, (n << q->cluster_bits) - in_cluster);
	p->busy = (struct qcow2_busy){cluster, n, q->busy};
	q->busy = &p->busy;
	return 0;
}

/* The data with what surrounds it, as whole clusters. */
static int place_fill_around(struct qcow2 *q, const struct io_place *p)
{
	uint64_t start = p->busy.first << q->cluster_bits, total = p->busy.count << q->cluster_bits;
	uint64_t head = p->offset - start, after = head + p->length;
	uint64_t there = qcow2_min(total, q->size - start);
	uint8_t *buffer;
	int rc;

	if (posix_memalign((void **)&buffer, 4096, total))
		return -ENOMEM;
	rc = qcow2_read(q, buffer, head, start);
	memcpy(buffer + head, p->from, p->length);
	if (!rc && there > after)
		rc = qcow2_read(q, buffer + after, there - after, start + after);
	if (there < after)
		there = after;
	memset(buffer + there, 0, total - there);
	if (!rc)
		rc = data_write(q, buffer, total, p->host);
	free(buffer);
	return rc;
}

static int place_fill(struct qcow2 *q, const struct io_place *p)
{
	uint64_t in_cluster = p->offset & (q->cluster_size - 1);
	bool whole = !in_cluster && p->length == p->busy.count << q->cluster_bits;

	if (whole || (p->fresh && p->zeroes))
		return data_write(q, p->from, p->length, p->host + in_cluster);
	return place_fill_around(q, p);
}

/* Lock held. All entries are in one slice. */
static int place_enter(struct qcow2 *q, const struct io_place *p)
{
	struct qcow2_slice *slice;
	uint64_t *entries;
	uint32_t index;
	int rc = qcow2_l2_writable(q, p->busy.first, &slice, &index);

	if (rc)
		return rc;
	entries = (uint64_t *)(void *)slice->data + index;
	for (uint64_t i = 0; i < p->busy.count; i++) {
		uint64_t old = qcow2_be64(entries[i]);

		if (!p->reused)
			qcow2_entry_release(q, old);
		entries[i] = qcow2_be64((p->host + (i << q->cluster_bits)) | QCOW2_COPIED);
	}
	qcow2_slice_dirty(q, slice);
	return 0;
}

static int write_place(struct qcow2 *q, struct io_place *p)
{
	int rc = place_fill(q, p);

	pthread_mutex_lock(&q->lock);
	if (!rc)
		rc = place_enter(q, p);
	if (rc && !p->reused)
		qcow2_unalloc(q, p->host >> q->cluster_bits, p->busy.count);
	busy_end(q, &p->busy);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

/* Writes some of it: at least a byte, or an error. */
static int write_some(
	struct qcow2 *q, const void *from, uint64_t length, uint64_t offset, uint64_t *done)
{
	struct io_place p = {.offset = offset, .from = from};
	struct qcow2_extent e;
	unsigned token;
	int rc;

	pthread_mutex_lock(&q->lock);
	qcow2_settle(q, offset >> q->cluster_bits, 1);
	rc = q->corrupt ? -EIO : qcow2_map(q, offset, length, true, &e);
	if (!rc && e.type == QCOW2_NORMAL && e.copied) {
		token = qcow2_enter(q);
		pthread_mutex_unlock(&q->lock);
		rc = data_write(q, from, e.length, e.host);
		qcow2_leave(q, token);
		*done = e.length;
		return rc;
	}
	if (!rc)
		rc = place_take(q, &p, &e);
	pthread_mutex_unlock(&q->lock);
	if (rc)
		return rc;
	*done = p.length;
	return write_place(q, &p);
}

int qcow2_write(struct qcow2 *q, const void *from, uint64_t length, uint64_t offset)
{
	uint64_t most = q->cluster_size > QCOW2_CHUNK ? q->cluster_size : QCOW2_CHUNK;
	const uint8_t *at = from;
	int rc = 0;

	while (length && !rc) {
		uint64_t done = 0;

		rc = qcow2_flush_if_due(q);
		if (!rc)
			rc = write_some(q, at, qcow2_min(length, most), offset, &done);
		at += done;
		offset += done;
		length -= done;
	}
	return rc;
}
