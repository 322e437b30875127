/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests of a channel to a qcow2 image: those whose place is known go to the engine as they are,
 * with the place as their offset; the rest goes to the channel's worker threads.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk/qcow2_priv.h"

/* Longer zeroing of memory would keep the channel's thread from its other work. */
#define INLINE_ZEROES_MAX (128u << 10)

static void request_zero_memory(const struct blk_request *req)
{
	for (uint32_t i = 0; i < req->niov; i++)
		memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
}

static bool reads_zeroes(const struct qcow2 *q, const struct qcow2_extent *e, uint64_t offset)
{
	if (e->type == QCOW2_UNALLOCATED)
		return !q->backing || offset >= q->backing->size;
	return e->type == QCOW2_ZERO_PLAIN || e->type == QCOW2_ZERO_ALLOCATED;
}

/* Lock held. The stage, or -1: finished. */
static int start_transfer(struct qcow2 *q, struct blk_request *req)
{
	bool write = req->op == BLK_WRITE;
	struct qcow2_extent e;

	if (write && q->corrupt)
		return BLK_STAGE_FORMAT;
	if (qcow2_map(q, req->offset, req->length, false, &e) || e.length < req->length)
		return BLK_STAGE_FORMAT;
	if (e.type == QCOW2_NORMAL && (write ? e.copied : e.host + req->length <= q->file_end)) {
		req->at = e.host;
		req->mapped = (uint8_t)(1 + qcow2_enter(q));
		return BLK_STAGE_DATA;
	}
	if (!write && req->length <= INLINE_ZEROES_MAX && reads_zeroes(q, &e, req->offset)) {
		request_zero_memory(req);
		return -1;
	}
	return BLK_STAGE_FORMAT;
}

int blk_qcow2_start(struct blk_image *image, struct blk_request *req)
{
	struct qcow2 *q = image->qcow2;
	int stage = BLK_STAGE_FORMAT;

	/* Whoever has the lock may be waiting for the disk. */
	if (pthread_mutex_trylock(&q->lock) == 0) {
		if (req->op == BLK_READ || req->op == BLK_WRITE)
			stage = start_transfer(q, req);
		else if (req->op == BLK_FLUSH && qcow2_is_clean(q))
			stage = BLK_STAGE_SYNC;
		pthread_mutex_unlock(&q->lock);
	}
	if (stage < 0)
		return 1;
	req->stage = (uint8_t)stage;
	return 0;
}

void blk_qcow2_end(struct blk_image *image, struct blk_request *req)
{
	qcow2_leave(image->qcow2, req->mapped - 1u);
	req->mapped = 0;
}

/* ------------------------------------------------------------------ on a worker */

static void run_copy(const struct blk_request *req, uint64_t skip, uint8_t *memory, size_t length,
	bool to_memory)
{
	for (uint32_t i = 0; i < req->niov && length; i++) {
		uint8_t *base = req->iov[i].iov_base;
		size_t n = req->iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		base += skip;
		n = (size_t)qcow2_min(n - skip, length);
		skip = 0;
		if (to_memory)
			memcpy(memory, base, n);
		else
			memcpy(base, memory, n);
		memory += n;
		length -= n;
	}
}

static int run_piece(struct qcow2 *q, const struct blk_request *req, uint64_t at, void *memory,
	uint64_t length, bool copy)
{
	bool write = req->op == BLK_WRITE;
	int rc;

	if (write && copy)
		run_copy(req, at, memory, length, true);
	rc = write ? qcow2_write(q, memory, length, req->offset + at)
		   : qcow2_read(q, memory, length, req->offset + at);
	if (!rc && !write && copy)
		run_copy(req, at, memory, length, false);
	return rc;
}

static int run_transfer(struct qcow2 *q, const struct blk_request *req)
{
	/* Memory that direct I/O can use is used as it is. */
	bool copy = req->niov != 1 || (uintptr_t)req->iov[0].iov_base & (q->align - 1);
	uint64_t at = 0, n;
	void *memory = NULL;
	int rc = 0;

	if (copy && posix_memalign(&memory, 4096, qcow2_min(req->length, QCOW2_CHUNK)))
		return -ENOMEM;
	while (at < req->length && !rc) {
		n = qcow2_min(
			req->length - at, QCOW2_CHUNK - ((req->offset + at) & (QCOW2_CHUNK - 1)));
		rc = run_piece(
			q, req, at, copy ? memory : (uint8_t *)req->iov[0].iov_base + at, n, copy);
		at += n;
	}
	free(memory);
	return rc;
}

int blk_qcow2_run(struct blk_image *image, const struct blk_request *req, uint64_t *system_calls)
{
	uint64_t before = qcow2_calls_get();
	struct qcow2 *q = image->qcow2;
	int rc;

	switch (req->op) {
	case BLK_READ:
	case BLK_WRITE:
		rc = run_transfer(q, req);
		break;
	case BLK_DISCARD:
		rc = qcow2_discard(q, req->offset, req->length);
		break;
	case BLK_WRITE_ZEROES:
		rc = qcow2_zero(q, req->offset, req->length, req->unmap);
		break;
	default:
		rc = qcow2_flush(q);
		break;
	}
	*system_calls += qcow2_calls_get() - before;
	/* Tried again it would be the same. */
	return rc == -EAGAIN || rc == -EINTR ? -EIO : rc;
}
