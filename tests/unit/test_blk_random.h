/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random reads, writes, zeroing, discarding and flushing against a shadow of the image: ranges in
 * flight never overlap, so every read has one right answer. The file itself is compared at the end.
 */
#ifndef TEST_BLK_RANDOM_H
#define TEST_BLK_RANDOM_H

#include "tests/unit/test_blk_rig.h"

#define RANDOM_SIZE  (16u << 20)
#define RANDOM_DEPTH 300u
#define RANDOM_IOVS  9u

struct random_request {
	struct blk_request req;
	struct random_run *run;
	struct iovec iov[RANDOM_IOVS];
	char *arena; /* where the vector points */
	bool busy;
};

struct random_run {
	struct rig *rig;
	uint64_t state; /* of the generator */
	unsigned char *shadow;
	bool *taken; /* by sector */
	struct random_request requests[RANDOM_DEPTH];
	unsigned left, in_flight, errors, mismatches, reads;
	bool submitting;
};

static inline uint32_t random_next(struct random_run *run)
{
	run->state ^= run->state << 13;
	run->state ^= run->state >> 7;
	run->state ^= run->state << 17;
	return (uint32_t)(run->state >> 16);
}

static inline void random_check_read(struct random_run *run, const struct blk_request *req)
{
	uint64_t at = req->offset;

	run->reads++;
	for (uint32_t i = 0; i < req->niov; at += req->iov[i++].iov_len) {
		if (memcmp(req->iov[i].iov_base, run->shadow + at, req->iov[i].iov_len)) {
			run->mismatches++;
			return;
		}
	}
}

static inline void random_apply_write(struct random_run *run, const struct blk_request *req)
{
	uint64_t at = req->offset;

	for (uint32_t i = 0; i < req->niov; at += req->iov[i++].iov_len)
		memcpy(run->shadow + at, req->iov[i].iov_base, req->iov[i].iov_len);
}

static inline void random_done(struct blk_request *req, int res)
{
	struct random_request *one = req->owner;
	struct random_run *run = one->run;

	run->errors += res != 0 || run->submitting || !one->busy;
	if (req->op == BLK_READ)
		random_check_read(run, req);
	else if (req->op == BLK_WRITE)
		random_apply_write(run, req);
	else if (req->op == BLK_WRITE_ZEROES || (req->op == BLK_DISCARD && run->rig->info.discard))
		memset(run->shadow + req->offset, 0, req->length);
	if (req->op != BLK_FLUSH)
		memset(run->taken + req->offset / BLK_SECTOR, 0, req->length / BLK_SECTOR);
	free(one->arena);
	one->arena = NULL;
	one->busy = false;
	run->in_flight--;
}

/* A free range; false when the dice found none. */
static inline bool random_range(struct random_run *run, struct blk_request *req)
{
	uint32_t sectors = RANDOM_SIZE / BLK_SECTOR, n, at;
	uint32_t dice = random_next(run) % 100;

	n = dice < 2 ? 2048 : dice < 20 ? 1 + random_next(run) % 256 : 1 + random_next(run) % 16;
	if (dice > 60)
		n = (n + 7) & ~7u;
	at = random_next(run) % (sectors - n + 1);
	if (dice > 60)
		at &= ~7u;
	for (uint32_t i = 0; i < n; i++)
		if (run->taken[at + i])
			return false;
	memset(run->taken + at, 1, n);
	req->offset = (uint64_t)at * BLK_SECTOR;
	req->length = (uint64_t)n * BLK_SECTOR;
	return true;
}

/* Cuts the buffer into segments, sometimes of odd lengths at odd addresses. */
static inline void random_vector(struct random_run *run, struct random_request *one)
{
	uint64_t left = one->req.length;
	uint32_t parts = 1 + random_next(run) % RANDOM_IOVS, n = 0;
	bool odd = random_next(run) % 3 == 0;
	char *at;

	one->arena = aligned_alloc(4096, (one->req.length + RANDOM_IOVS * 512 + 8191) & ~4095ull);
	at = one->arena;
	while (left) {
		uint64_t part = n + 1 >= parts ? left : random_next(run) % (left + 1);

		if (odd && n + 1 < parts)
			at += random_next(run) % 64;
		if (!odd && n + 1 < parts)
			part &= ~511ull;
		one->iov[n].iov_base = at;
		one->iov[n++].iov_len = part;
		at += part;
		left -= part;
	}
	one->req.iov = one->iov;
	one->req.niov = n;
	for (uint32_t i = 0; i < n; i++)
		for (size_t k = 0; k < one->iov[i].iov_len; k++)
			((char *)one->iov[i].iov_base)[k] = (char)(run->state >> (k % 57));
}

static inline bool random_submit(struct random_run *run, struct random_request *one)
{
	uint32_t dice = random_next(run) % 100;

	memset(&one->req, 0, sizeof(one->req));
	one->req.op = dice < 45   ? BLK_READ
		      : dice < 85 ? BLK_WRITE
		      : dice < 91 ? BLK_WRITE_ZEROES
		      : dice < 95 ? BLK_DISCARD
				  : BLK_FLUSH;
	one->req.unmap = dice & 1;
	one->req.done = random_done;
	one->req.owner = one;
	one->run = run;
	if (one->req.op != BLK_FLUSH && !random_range(run, &one->req))
		return false;
	if (one->req.op == BLK_READ || one->req.op == BLK_WRITE)
		random_vector(run, one);
	one->busy = true;
	run->in_flight++;
	run->submitting = true;
	blk_submit(run->rig->ch, &one->req);
	run->submitting = false;
	return true;
}

static inline void random_compare_file(struct random_run *run)
{
	unsigned char *file = malloc(RANDOM_SIZE);
	int fd = open(run->rig->path, O_RDONLY | O_CLOEXEC);

	CU_ASSERT(blk_sync(run->rig->image) == 0);
	CU_ASSERT(fd >= 0 && pread(fd, file, RANDOM_SIZE, 0) == (ssize_t)RANDOM_SIZE);
	CU_ASSERT(memcmp(file, run->shadow, RANDOM_SIZE) == 0);
	close(fd);
	free(file);
}

static inline void random_loop(struct random_run *run, unsigned count)
{
	time_t start = time(NULL);

	for (run->left = count; run->left || run->in_flight;) {
		/* Depth rises and falls, so that full and empty queues both happen. */
		unsigned depth = 1 + random_next(run) % RANDOM_DEPTH;

		for (unsigned i = 0; i < depth && run->left; i++)
			if (!run->requests[i].busy && random_submit(run, &run->requests[i]))
				run->left--;
		blk_kick(run->rig->ch);
		rig_pump(run->rig, run->in_flight != 0);
		if (rig_late(start))
			break;
	}
}

/* rig is open on a file of RANDOM_SIZE bytes of value `byte`. */
static inline void random_test(struct rig *rig, int byte, unsigned count, uint64_t seed)
{
	struct random_run *run = calloc(1, sizeof(*run));

	run->rig = rig;
	run->state = seed;
	run->shadow = malloc(RANDOM_SIZE);
	run->taken = calloc(RANDOM_SIZE / BLK_SECTOR, 1);
	memset(run->shadow, byte, RANDOM_SIZE);
	random_loop(run, count);
	CU_ASSERT(run->in_flight == 0 && run->left == 0);
	CU_ASSERT(blk_channel_inflight(rig->ch) == 0);
	CU_ASSERT(run->errors == 0);
	CU_ASSERT(run->mismatches == 0);
	CU_ASSERT(run->reads > count / 4);
	random_compare_file(run);
	free(run->shadow);
	free(run->taken);
	free(run);
}

#endif
