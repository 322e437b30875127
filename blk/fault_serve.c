/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What becomes of a request: fails on purpose, stays in the write cache, or goes to the file. One
 * after the other on the layer's thread, but for reads of what is not cached, which go on below.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk/fault_priv.h"

static const uint8_t serve_zeroes[BLK_SECTOR];

/* xorshift64*: the same seed and requests write the same subsets back, in the same order. */
static uint64_t serve_random(struct blk_fault *f, uint64_t below)
{
	f->random ^= f->random >> 12;
	f->random ^= f->random << 25;
	f->random ^= f->random >> 27;
	return (uint64_t)((unsigned __int128)(f->random * 0x2545f4914f6cdd1dull) * below >> 64);
}

/* ------------------------------------------------------------------ errors */

static int serve_error(struct blk_fault *f, const struct blk_request *req)
{
	struct fault_spec *spec = &f->spec;
	bool fills = req->op == BLK_WRITE || req->op == BLK_WRITE_ZEROES;

	if (req->op == BLK_FLUSH)
		return 0;
	for (unsigned i = 0; i < spec->nranges; i++)
		if (req->offset < spec->ranges[i].offset + spec->ranges[i].length &&
			spec->ranges[i].offset < req->offset + req->length)
			return -EIO;
	if (spec->eio_every && ++f->counted % spec->eio_every == 0)
		return -EIO;
	if (spec->enospc && fills) {
		if (req->length > spec->enospc_left)
			return -ENOSPC;
		spec->enospc_left -= req->length;
	}
	return 0;
}

/* ------------------------------------------------------------------ to the file */

/* The request itself, below, with the caller's memory. */
static void serve_pass(struct blk_fault *f, struct blk_request *req, bool wait)
{
	struct fault_io *io = fault_io_get(f);

	io->req.op = req->op;
	io->req.unmap = req->unmap;
	io->req.offset = req->offset;
	io->req.length = req->length;
	io->req.iov = req->iov;
	io->req.niov = req->niov;
	io->nentries = 0;
	fault_io_start(f, io, wait ? NULL : req);
}

int fault_below_flush(struct blk_fault *f)
{
	struct fault_io *io = fault_io_get(f);

	memset(&io->req, 0, sizeof(io->req));
	io->req.op = BLK_FLUSH;
	io->nentries = 0;
	fault_io_start(f, io, NULL);
	return fault_batch_wait(f);
}

static int serve_compare(const void *a, const void *b, void *arg)
{
	const struct fault_cache *c = arg;
	uint64_t x = c->entries[*(const uint32_t *)a].sector;
	uint64_t y = c->entries[*(const uint32_t *)b].sector;

	return (x > y) - (x < y);
}

/* Cuts the sorted order into runs of one kind, at random places, but never through a torn unit. */
static uint32_t serve_cut(struct blk_fault *f, uint32_t n)
{
	const struct fault_cache *c = &f->cache;
	const uint32_t unit = f->spec.torn / BLK_SECTOR;
	uint32_t nruns = 0, most = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct fault_entry *e = &c->entries[f->order[i]];
		const struct fault_entry *before = i ? &c->entries[f->order[i - 1]] : NULL;
		struct fault_run *run = nruns ? &f->runs[nruns - 1] : NULL;

		if (run && before->sector + 1 == e->sector && before->kind == e->kind &&
			(run->count < most || e->sector % unit)) {
			run->count++;
			continue;
		}
		f->runs[nruns++] = (struct fault_run){.first = i, .count = 1};
		most = 1 + (uint32_t)serve_random(f, FAULT_RUN_MAX - 8);
	}
	return nruns;
}

static void serve_run(struct blk_fault *f, const struct fault_run *run)
{
	static const enum blk_op ops[] = {
		[FAULT_DATA] = BLK_WRITE,
		[FAULT_ZERO] = BLK_WRITE_ZEROES,
		[FAULT_ZERO_UNMAP] = BLK_WRITE_ZEROES,
		[FAULT_DISCARD] = BLK_DISCARD,
	};
	const struct fault_entry *e = &f->cache.entries[f->order[run->first]];
	struct fault_io *io = fault_io_get(f);

	memset(&io->req, 0, sizeof(io->req));
	io->req.op = ops[e->kind];
	io->req.unmap = e->kind == FAULT_ZERO_UNMAP;
	io->req.offset = e->sector * BLK_SECTOR;
	io->req.length = (uint64_t)run->count * BLK_SECTOR;
	for (uint32_t i = 0; i < run->count; i++) {
		io->entries[i] = f->order[run->first + i];
		io->iov[i].iov_base = fault_cache_data(&f->cache, io->entries[i]);
		io->iov[i].iov_len = BLK_SECTOR;
	}
	io->nentries = run->count;
	if (io->req.op == BLK_WRITE) {
		io->req.iov = io->iov;
		io->req.niov = run->count;
	}
	fault_io_start(f, io, NULL);
}

/* Writes the chosen n entries of order[] back, in random order; what fails stays in the cache. */
static int serve_write_back(struct blk_fault *f, uint32_t n)
{
	uint32_t nruns;

	for (uint32_t i = 0; i < n; i++)
		f->cache.entries[f->order[i]].chosen = false;
	qsort_r(f->order, n, sizeof(*f->order), serve_compare, &f->cache);
	nruns = serve_cut(f, n);
	for (uint32_t i = nruns; i > 1; i--) {
		uint32_t k = (uint32_t)serve_random(f, i);
		struct fault_run run = f->runs[k];

		f->runs[k] = f->runs[i - 1];
		f->runs[i - 1] = run;
	}
	for (uint32_t i = 0; i < nruns; i++)
		serve_run(f, &f->runs[i]);
	return fault_batch_wait(f);
}

int fault_write_back_all(struct blk_fault *f)
{
	if (!f->cache.used)
		return 0;
	memcpy(f->order, f->cache.dense, f->cache.used * sizeof(*f->order));
	return serve_write_back(f, f->cache.used);
}

/* About `count` units, at random out of all that are cached. */
static int serve_write_back_some(struct blk_fault *f, uint32_t count)
{
	struct fault_cache *c = &f->cache;
	const uint32_t unit = f->spec.torn / BLK_SECTOR;
	uint32_t n = 0, i;

	for (; count && c->used; count--) {
		uint64_t sector = c->entries[c->dense[serve_random(f, c->used)]].sector;

		sector -= sector % unit;
		for (uint32_t k = 0; k < unit; k++) {
			i = fault_cache_find(c, sector + k);
			if (i == FAULT_NONE || c->entries[i].chosen)
				continue;
			c->entries[i].chosen = true;
			f->order[n++] = i;
		}
	}
	f->counters.early += n;
	return n ? serve_write_back(f, n) : 0;
}

/* ------------------------------------------------------------------ through the cache */

/* Walks a request's memory. */
struct serve_cursor {
	const struct iovec *iov;
	size_t at;
};

static void serve_copy(struct serve_cursor *cur, void *sector, bool to_caller)
{
	uint8_t *p = sector;
	size_t left = BLK_SECTOR;

	while (left) {
		size_t n = cur->iov->iov_len - cur->at;
		uint8_t *base = (uint8_t *)cur->iov->iov_base + cur->at;

		if (n > left)
			n = left;
		if (p && to_caller)
			memcpy(base, p, n);
		else if (p)
			memcpy(p, base, n);
		p = p ? p + n : NULL;
		left -= n;
		cur->at += n;
		while (left && cur->at == cur->iov->iov_len) {
			cur->iov++;
			cur->at = 0;
		}
	}
}

static uint64_t serve_cached(const struct blk_fault *f, const struct blk_request *req)
{
	uint64_t sector = req->offset / BLK_SECTOR, n = 0;

	if (f->cache.used)
		for (uint64_t i = 0; i < req->length / BLK_SECTOR; i++)
			n += fault_cache_find(&f->cache, sector + i) != FAULT_NONE;
	return n;
}

static void serve_read(struct blk_fault *f, struct blk_request *req)
{
	uint64_t sector = req->offset / BLK_SECTOR, count = req->length / BLK_SECTOR;
	uint64_t cached = serve_cached(f, req);
	struct serve_cursor cur = {.iov = req->iov};
	int rc = 0;

	if (!cached) {
		serve_pass(f, req, false);
		return;
	}
	f->counters.hits += cached;
	if (cached < count) {
		serve_pass(f, req, true);
		rc = fault_batch_wait(f);
	}
	for (uint64_t i = 0; !rc && i < count; i++) {
		uint32_t e = fault_cache_find(&f->cache, sector + i);
		uint8_t *data = NULL;

		if (e != FAULT_NONE)
			data = f->cache.entries[e].kind == FAULT_DATA
				       ? fault_cache_data(&f->cache, e)
				       : (uint8_t *)serve_zeroes;
		serve_copy(&cur, data, true);
	}
	fault_finish(f, req, rc);
}

/* Too much for the cache: to the file at once, and what it replaces is forgotten. */
static void serve_through(struct blk_fault *f, struct blk_request *req)
{
	int rc;

	serve_pass(f, req, true);
	rc = fault_batch_wait(f);
	if (!rc)
		fault_cache_drop_range(
			&f->cache, req->offset / BLK_SECTOR, req->length / BLK_SECTOR);
	fault_finish(f, req, rc);
}

static int serve_room(struct blk_fault *f, uint32_t count)
{
	int rc = 0;

	while (!rc && f->cache.capacity - f->cache.used < count) {
		f->counters.full++;
		rc = serve_write_back_some(f, f->cache.capacity / (f->spec.torn / BLK_SECTOR) / 2);
	}
	return rc;
}

static void serve_write(struct blk_fault *f, struct blk_request *req)
{
	uint64_t sector = req->offset / BLK_SECTOR;
	enum fault_kind kind = req->op == BLK_WRITE     ? FAULT_DATA
			       : req->op == BLK_DISCARD ? FAULT_DISCARD
			       : req->unmap             ? FAULT_ZERO_UNMAP
							: FAULT_ZERO;
	const uint32_t unit = f->spec.torn / BLK_SECTOR;
	struct serve_cursor cur = {.iov = req->iov};
	uint32_t count;
	int rc;

	if (req->length > f->spec.size / 4) {
		serve_through(f, req);
		return;
	}
	count = (uint32_t)(req->length / BLK_SECTOR);
	rc = serve_room(f, count);
	for (uint32_t i = 0; !rc && i < count; i++) {
		uint32_t e = fault_cache_put(&f->cache, sector + i, kind);

		if (kind == FAULT_DATA)
			serve_copy(&cur, fault_cache_data(&f->cache, e), false);
	}
	f->counters.cached += rc ? 0 : count;
	fault_finish(f, req, rc);
	/* Half of what comes leaves, so a part is always left. An error is for the flush to find:
	 * what could not be written is still cached. */
	if (!rc)
		serve_write_back_some(f, (uint32_t)serve_random(f, (count + unit - 1) / unit + 1));
}

static void serve_flush(struct blk_fault *f, struct blk_request *req)
{
	int rc = 0;

	if (f->spec.lose_flush) {
		f->counters.lost_flushes++;
	} else {
		rc = fault_write_back_all(f);
		if (!rc)
			rc = fault_below_flush(f);
	}
	fault_finish(f, req, rc);
}

void fault_serve(struct blk_fault *f, struct blk_request *req)
{
	int rc = serve_error(f, req);

	f->counters.requests++;
	if (rc) {
		f->counters.errors++;
		fault_finish(f, req, rc);
	} else if (!f->spec.cache) {
		serve_pass(f, req, false);
	} else if (req->op == BLK_READ) {
		serve_read(f, req);
	} else if (req->op == BLK_FLUSH) {
		serve_flush(f, req);
	} else {
		serve_write(f, req);
	}
}
