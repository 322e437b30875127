/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes with a flush after each round, until the plug is pulled; and, after another boot, whether
 * every round that was reported as flushed is there. Which blocks a round writes follows from its
 * number, so the second boot needs no notes of the first.
 */
#include "perf/guest/guest_priv.h"

#define FLUSH_STRIDE 2654435761ull /* odd: a round never writes a block twice */

struct flush_run {
	const struct job *job;
	struct result *result;
	struct frontend_blk *blk;
	uint64_t nblocks; /* a power of two */
	uint32_t sectors;
	uint16_t *flushed; /* by block: the generation it must have at least */
	uint8_t *bufs[JOB_DEPTH_MAX];
	uint64_t block[JOB_DEPTH_MAX]; /* that a request is for */
	uint16_t free[JOB_DEPTH_MAX];
	unsigned nfree;
	bool reported;
};

static struct flush_run flush_run;

static uint64_t flush_block(const struct flush_run *r, uint32_t round, uint32_t i)
{
	return (pattern_mix64(round) + i * FLUSH_STRIDE) & (r->nblocks - 1);
}

/* What a disk is formatted with is generation 1. */
static uint16_t flush_generation(uint32_t round)
{
	return (uint16_t)(round + 1);
}

static void flush_fault(struct flush_run *r, const char *what, uint64_t sector, int code)
{
	if (!r->reported)
		job_error(r->job, "%s sector=%lu code=%d", what, sector, code);
	r->reported = true;
}

static void flush_check(struct flush_run *r, unsigned token)
{
	uint64_t block = r->block[token], first = block * r->sectors;

	for (uint32_t i = 0; i < r->sectors; i++) {
		int g = pattern_sector_check(r->bufs[token] + i * PATTERN_SECTOR, first + i);

		if (g < 0) {
			r->result->errors++;
			flush_fault(r, "wrong data", first + i, g);
		} else if (g < r->flushed[block]) {
			r->result->lost++;
			flush_fault(r, "flushed and lost", first + i, r->flushed[block]);
		} else {
			r->result->verified++;
		}
	}
}

static int flush_collect(struct flush_run *r)
{
	struct frontend_blk_done done[JOB_BURST];
	uint64_t since = clock_now();
	int n;

	while (!(n = r->blk->ops->poll(r->blk, done, JOB_BURST))) {
		uint32_t seen = cpu_irq_total();

		if (clock_now() - since > clock_from_ns(JOB_STALL_NS)) {
			job_error(r->job, "no progress");
			return -GUEST_ETIMEDOUT;
		}
		if (clock_now() - since > r->job->poll && !r->blk->ops->wait_begin(r->blk))
			cpu_idle_guarded(seen);
		r->blk->ops->wait_end(r->blk);
	}
	for (int i = 0; i < n; i++) {
		unsigned token = (unsigned)done[i].token;

		r->result->requests++;
		if (done[i].status) {
			r->result->errors++;
			flush_fault(
				r, "request failed", r->block[token] * r->sectors, done[i].status);
		} else if (r->flushed) {
			flush_check(r, token);
		}
		r->free[r->nfree++] = (uint16_t)token;
	}
	return n < 0 ? n : 0;
}

static int flush_drain(struct flush_run *r)
{
	int e = 0;

	r->blk->ops->kick(r->blk);
	while (!e && r->nfree < r->job->depth)
		e = flush_collect(r);
	return e;
}

static int flush_submit(struct flush_run *r, enum frontend_blk_op op, uint64_t block, uint16_t g)
{
	const uint32_t size = op == FRONTEND_BLK_FLUSH ? 0 : r->job->size;
	int e = 0;

	for (;;) {
		unsigned token;

		while (!e && !r->nfree) {
			r->blk->ops->kick(r->blk);
			e = flush_collect(r);
		}
		if (e)
			return e;
		token = r->free[r->nfree - 1];
		r->block[token] = block;
		if (op == FRONTEND_BLK_WRITE)
			pattern_block_fill(r->bufs[token], size, block * r->sectors, g);
		e = r->blk->ops->submit(r->blk, 0, op, block * r->sectors,
			size ? r->bufs[token] : NULL, size, token);
		if (!e)
			r->nfree--;
		if (e != -GUEST_ENOSPC || r->nfree == r->job->depth)
			return e;
		r->blk->ops->kick(r->blk);
		e = flush_collect(r);
	}
}

/* A round is said to be flushed when the disk has said so, and not before. */
static int flush_write(struct flush_run *r)
{
	const struct job *j = r->job;
	uint32_t rounds = j->round ? j->round : JOB_ROUND_MAX;
	int e = 0;

	for (uint32_t round = 1; !e && round <= rounds; round++) {
		uint64_t errors = r->result->errors;

		for (uint32_t i = 0; !e && i < j->every; i++)
			e = flush_submit(r, FRONTEND_BLK_WRITE, flush_block(r, round, i),
				flush_generation(round));
		if (!e)
			e = flush_drain(r);
		if (!e)
			e = flush_submit(r, FRONTEND_BLK_FLUSH, 0, 0);
		if (!e)
			e = flush_drain(r);
		if (!e && errors == r->result->errors)
			print("SLUICE-FLUSHED job=%u round=%u\n", j->index, round);
	}
	return e;
}

static int flush_verify(struct flush_run *r)
{
	const struct job *j = r->job;
	int e = 0;

	r->flushed = mem_temp_alloc(r->nblocks * sizeof(*r->flushed), 4096);
	if (!r->flushed) {
		job_error(j, "no memory to note %lu blocks", r->nblocks);
		return -GUEST_ENOMEM;
	}
	for (uint32_t round = 1; round <= j->round; round++)
		for (uint32_t i = 0; i < j->every; i++)
			r->flushed[flush_block(r, round, i)] = flush_generation(round);
	for (uint64_t b = 0; !e && b < r->nblocks; b++)
		e = flush_submit(r, FRONTEND_BLK_READ, b, 0);
	return e ? e : flush_drain(r);
}

static int flush_open(struct flush_run *r)
{
	const struct job *j = r->job;
	uint64_t sectors;
	int e = -GUEST_ENODEV;

	if (!strcmp(j->dev, "virtio-blk"))
		e = virtio_blk_open(j->dev_index, j->queues, &j->virtio, &r->blk);
	else if (!strcmp(j->dev, "ide"))
		e = ide_open(j->dev_index,
			strcmp(j->transfer, "pio") ? FRONTEND_IDE_DMA : FRONTEND_IDE_PIO, &r->blk);
	if (e || !r->blk->has_flush) {
		job_error(j, "dev=%s index=%u cannot be opened or flushed (%d)", j->dev,
			j->dev_index, e);
		return -GUEST_ENODEV;
	}
	sectors = j->span && j->span / 512 < r->blk->sectors ? j->span / 512 : r->blk->sectors;
	r->sectors = j->size / 512;
	for (r->nblocks = 1; r->nblocks * 2 * r->sectors <= sectors;)
		r->nblocks *= 2;
	if (r->nblocks * r->sectors > sectors || j->every > r->nblocks) {
		job_error(j, "span of %lu sectors is too small for every=%u", sectors, j->every);
		return -GUEST_EINVAL;
	}
	return 0;
}

int flush_job(const struct job *j, struct result *result)
{
	struct flush_run *r = &flush_run;
	uintptr_t mark = mem_temp_mark();
	int e;

	*r = (struct flush_run){.job = j, .result = result};
	e = flush_open(r);
	if (e)
		return e;
	for (r->nfree = 0; r->nfree < j->depth; r->nfree++) {
		r->free[r->nfree] = (uint16_t)r->nfree;
		r->bufs[r->nfree] = mem_temp_alloc(j->size, 4096);
		if (!r->bufs[r->nfree]) {
			job_error(j, "no memory for %u buffers of %u bytes", j->depth, j->size);
			return -GUEST_ENOMEM;
		}
	}
	e = j->work == JOB_FLUSHWRITE ? flush_write(r) : flush_verify(r);
	/* What a device still holds is not given to anybody else. */
	if (r->nfree == j->depth)
		mem_temp_release(mark);
	return e;
}
