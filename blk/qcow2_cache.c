/* SPDX-License-Identifier: BSD-2-Clause */
/* Slices of tables in memory, and the order in which they reach the file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk/qcow2_priv.h"

/* So many of the oldest are looked at for one that can go. */
#define CACHE_VICTIMS 64u
/* More changed slices than this are written before the next operation. */
#define CACHE_DIRTY_MAX   (QCOW2_SLICES / 2)
#define CACHE_DIRTY_LIMIT (QCOW2_SLICES * 4)

#define L1_PART 64u /* entries written at once: 512 bytes */

static unsigned cache_bucket(uint64_t offset)
{
	return (unsigned)((offset >> 9) * 0x9e3779b97f4a7c15ull >> 54) % QCOW2_BUCKETS;
}

static void cache_unlink_age(struct qcow2 *q, struct qcow2_slice *s)
{
	if (s->newer)
		s->newer->older = s->older;
	else
		q->newest = s->older;
	if (s->older)
		s->older->newer = s->newer;
	else
		q->oldest = s->newer;
}

static void cache_link_newest(struct qcow2 *q, struct qcow2_slice *s)
{
	s->newer = NULL;
	s->older = q->newest;
	if (q->newest)
		q->newest->newer = s;
	else
		q->oldest = s;
	q->newest = s;
}

static void cache_drop(struct qcow2 *q, struct qcow2_slice *s)
{
	struct qcow2_slice **at = &q->buckets[cache_bucket(s->offset)];

	while (*at != s)
		at = &(*at)->hash_next;
	*at = s->hash_next;
	cache_unlink_age(q, s);
	q->nslices--;
	q->ndirty -= s->dirty;
	free(s);
}

/* Makes room. Where everything is to be written first, the cache grows until the flush that is
 * due then. */
static void cache_shrink(struct qcow2 *q)
{
	struct qcow2_slice *s = q->oldest, *newer;

	for (unsigned i = 0; s && i < CACHE_VICTIMS && q->nslices >= QCOW2_SLICES; i++, s = newer) {
		newer = s->newer;
		if (!s->dirty && !s->writing)
			cache_drop(q, s);
	}
}

static struct qcow2_slice *cache_find(struct qcow2 *q, uint64_t offset)
{
	struct qcow2_slice *s = q->newest;

	if (s && s->offset == offset)
		return s;
	s = q->buckets[cache_bucket(offset)];
	while (s && s->offset != offset)
		s = s->hash_next;
	if (s) {
		cache_unlink_age(q, s);
		cache_link_newest(q, s);
	}
	return s;
}

int qcow2_slice_get(
	struct qcow2 *q, enum qcow2_kind kind, uint64_t offset, bool load, struct qcow2_slice **out)
{
	struct qcow2_slice *s = cache_find(q, offset);
	unsigned bucket = cache_bucket(offset);
	int rc;

	/* One place cannot be both: some table lies about where it is. */
	if (s && s->kind != kind)
		return qcow2_corrupted(q);
	*out = s;
	if (s)
		return 0;
	if (!load)
		return -EAGAIN;
	cache_shrink(q);
	s = calloc(1, sizeof(*s) + q->slice_size);
	if (!s)
		return -ENOMEM;
	rc = qcow2_file_read(q->fd, s->data, q->slice_size, offset);
	if (rc) {
		free(s);
		return rc;
	}
	s->offset = offset;
	s->kind = kind;
	s->hash_next = q->buckets[bucket];
	q->buckets[bucket] = s;
	cache_link_newest(q, s);
	q->nslices++;
	*out = s;
	return 0;
}

void qcow2_slice_dirty(struct qcow2 *q, struct qcow2_slice *slice)
{
	q->ndirty += !slice->dirty;
	slice->dirty = true;
}

/* What was a table once, at a place that is now to be another. */
void qcow2_slices_forget(struct qcow2 *q, uint64_t offset, uint64_t length)
{
	for (uint64_t at = offset; at < offset + length; at += q->slice_size) {
		struct qcow2_slice *s = q->buckets[cache_bucket(at)];

		while (s && s->offset != at)
			s = s->hash_next;
		if (s && !s->writing)
			cache_drop(q, s);
	}
}

void qcow2_slices_free(struct qcow2 *q)
{
	struct qcow2_slice *s, *newer;

	for (s = q->oldest; s; s = newer) {
		newer = s->newer;
		free(s);
	}
	q->oldest = q->newest = NULL;
	memset(q->buckets, 0, sizeof(q->buckets));
	q->nslices = q->ndirty = 0;
}

void qcow2_l1_set(struct qcow2 *q, uint32_t index, uint64_t entry)
{
	q->l1[index] = entry;
	q->l1_dirty[index / L1_PART] = true;
	q->any_l1_dirty = true;
}

bool qcow2_is_clean(const struct qcow2 *q)
{
	return !q->ndirty && !q->any_l1_dirty && !q->npending && !q->flushes;
}

/* ------------------------------------------------------------------ writing */

/* A copy of a slice, or of a part of the L1 table, on its way to the file. */
struct cache_write {
	uint64_t offset;
	uint32_t length;
	bool tables; /* refers to clusters: second */
	struct qcow2_slice *slice;
	uint32_t part;
	uint8_t *data;
};

struct cache_batch {
	struct cache_write *writes;
	size_t n, room;
	bool tables;
};

static int batch_add(struct cache_batch *b, const void *data, const struct cache_write *w)
{
	struct cache_write *to = &b->writes[b->n];

	*to = *w;
	to->data = malloc(w->length);
	if (!to->data)
		return -ENOMEM;
	memcpy(to->data, data, w->length);
	b->tables |= w->tables;
	b->n++;
	return 0;
}

static int batch_add_slice(struct qcow2 *q, struct cache_batch *b, struct qcow2_slice *s)
{
	struct cache_write w = {.offset = s->offset,
		.length = q->slice_size,
		.tables = s->kind == QCOW2_L2_SLICE,
		.slice = s};
	int rc = batch_add(b, s->data, &w);

	if (!rc) {
		s->dirty = false;
		s->writing = true;
		q->ndirty--;
	}
	return rc;
}

static int batch_add_l1(struct qcow2 *q, struct cache_batch *b, uint32_t part)
{
	uint32_t first = part * L1_PART;
	uint32_t n = (uint32_t)qcow2_min(L1_PART, q->l1_used - first);
	struct cache_write w = {.offset = q->l1_offset + first * 8ull,
		.length = n * 8,
		.tables = true,
		.part = part};
	uint64_t raw[L1_PART];
	int rc;

	for (uint32_t i = 0; i < n; i++)
		raw[i] = qcow2_be64(q->l1[first + i]);
	rc = batch_add(b, raw, &w);
	if (!rc)
		q->l1_dirty[part] = false;
	return rc;
}

/* Lock held. Takes everything that is to be written. */
static int batch_take(struct qcow2 *q, struct cache_batch *b)
{
	uint32_t parts = (q->l1_used + L1_PART - 1) / L1_PART;
	struct qcow2_slice *s;
	int rc = 0;

	b->room = q->ndirty;
	for (uint32_t i = 0; q->any_l1_dirty && i < parts; i++)
		b->room += q->l1_dirty[i];
	b->writes = calloc(b->room + 1, sizeof(*b->writes));
	if (!b->writes)
		return -ENOMEM;
	for (s = q->newest; s && !rc; s = s->older)
		if (s->dirty)
			rc = batch_add_slice(q, b, s);
	for (uint32_t i = 0; q->any_l1_dirty && i < parts && !rc; i++)
		if (q->l1_dirty[i])
			rc = batch_add_l1(q, b, i);
	if (!rc)
		q->any_l1_dirty = false;
	return rc;
}

/* Lock held. After a failure everything is to be written again. */
static void batch_end(struct qcow2 *q, struct cache_batch *b, bool failed)
{
	for (size_t i = 0; i < b->n; i++) {
		struct cache_write *w = &b->writes[i];

		if (w->slice)
			w->slice->writing = false;
		if (failed && w->slice)
			qcow2_slice_dirty(q, w->slice);
		else if (failed)
			q->any_l1_dirty = q->l1_dirty[w->part] = true;
		free(w->data);
	}
	free(b->writes);
}

static int batch_write(struct qcow2 *q, const struct cache_batch *b, bool tables)
{
	int rc = 0;

	for (size_t i = 0; i < b->n && !rc; i++)
		if (b->writes[i].tables == tables)
			rc = qcow2_file_write(
				q->fd, b->writes[i].data, b->writes[i].length, b->writes[i].offset);
	return rc;
}

/* No table refers to what is not stable yet, and none that refers to it is lost before it is. */
static int flush_ordered(struct qcow2 *q, const struct cache_batch *b)
{
	int rc = batch_write(q, b, false);

	if (!rc)
		rc = qcow2_file_sync(q);
	if (!rc && b->tables) {
		rc = batch_write(q, b, true);
		if (!rc)
			rc = qcow2_file_sync(q);
	}
	return rc;
}

int qcow2_flush(struct qcow2 *q)
{
	struct cache_batch b = {NULL, 0, 0, false};
	size_t npending;
	int rc;

	pthread_mutex_lock(&q->flushing);
	pthread_mutex_lock(&q->lock);
	q->flushes++;
	/* What is released from now on is not among the tables taken here. */
	npending = q->npending;
	rc = q->corrupt && (q->ndirty || q->any_l1_dirty) ? -EIO : 0;
	if (!rc)
		rc = batch_take(q, &b);
	pthread_mutex_unlock(&q->lock);
	if (!rc)
		rc = flush_ordered(q, &b);
	pthread_mutex_lock(&q->lock);
	batch_end(q, &b, rc != 0);
	if (!rc)
		qcow2_release_pending(q, npending);
	q->flushes--;
	pthread_mutex_unlock(&q->lock);
	pthread_mutex_unlock(&q->flushing);
	return rc;
}

int qcow2_flush_if_due(struct qcow2 *q)
{
	bool due, overdue;
	int rc;

	pthread_mutex_lock(&q->lock);
	due = q->ndirty > CACHE_DIRTY_MAX || q->npending > QCOW2_PENDING_MAX;
	overdue = q->ndirty > CACHE_DIRTY_LIMIT;
	pthread_mutex_unlock(&q->lock);
	rc = due ? qcow2_flush(q) : 0;
	/* Whoever flushes is told; whoever writes only when memory would grow without end. */
	return overdue ? rc : 0;
}
