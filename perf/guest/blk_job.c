/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Block jobs. Every block read is checked against the pattern, and against the generation when this
 * boot wrote it; every block written is read back once the measurement is over.
 */
#include "perf/guest/guest_priv.h"

#define DISKS_MAX 8u

/* A sector's entry in the map: the generation last written here, and two marks on a block's first
 * sector. */
#define MAP_BUSY        0x8000u /* a write is under way: no second one to the same place */
#define MAP_WRITTEN     0x4000u /* by this job, not read back yet */
#define MAP_GENERATION  0x3fffu
#define GENERATION_BASE 1u

#define BLOCK_NONE ~0ull
#define CACHE_LINE 64u

/* What this boot knows of one disk, whichever driver it is used through. */
struct disk {
	char dev[16];
	char transfer[8];
	uint32_t index, queues;
	struct frontend_blk *blk;
	uint16_t *map;
	uint64_t mapped; /* sectors */
	uint16_t generation;
};

struct request {
	uint8_t *buf;
	uint64_t block;
	uint64_t queued;
	uint16_t generation; /* 0: a read */
};

struct run {
	const struct job *job;
	struct result *result;
	struct disk *disk;
	struct frontend_blk *blk;
	uint64_t nblocks;
	uint32_t sectors; /* in a block */
	uint64_t random;
	uint64_t next; /* sequential position */
	bool writes;   /* this phase writes */
	bool once;     /* this phase ends with the span */
	bool readback; /* this phase reads what was written */
	bool timed;
	bool reported;
	uint64_t due; /* with a rate: when the next request is to be queued */
	unsigned queue;
	unsigned nfree;
	uint16_t free[JOB_DEPTH_MAX];
	struct request requests[JOB_DEPTH_MAX];
};

static struct disk disks[DISKS_MAX];
static struct run run;

static int disk_open(const struct job *j, struct disk *d)
{
	int r;

	if (!strcmp(j->dev, "virtio-blk"))
		r = virtio_blk_open(j->dev_index, j->queues, &j->virtio, &d->blk);
	else if (!strcmp(j->dev, "ide"))
		r = ide_open(j->dev_index,
			strcmp(j->transfer, "pio") ? FRONTEND_IDE_DMA : FRONTEND_IDE_PIO, &d->blk);
	else
		r = -GUEST_ENODEV;
	if (r) {
		job_error(j, "dev=%s index=%u queues=%u cannot be opened (%d)", j->dev,
			j->dev_index, j->queues, r);
		d->blk = NULL;
		return r;
	}
	memcpy(d->transfer, j->transfer, sizeof(d->transfer));
	d->queues = j->queues;
	return 0;
}

/* The disk of a job; opened again when it is to be driven in another way. */
static struct disk *disk_get(const struct job *j)
{
	struct disk *d = disks;

	while (d < disks + DISKS_MAX && d->dev[0] &&
		(strcmp(d->dev, j->dev) || d->index != j->dev_index))
		d++;
	if (d == disks + DISKS_MAX) {
		job_error(j, "too many disks");
		return NULL;
	}
	memcpy(d->dev, j->dev, sizeof(d->dev));
	d->index = j->dev_index;
	if (d->blk && d->queues == j->queues && !strcmp(d->transfer, j->transfer))
		return d;
	return disk_open(j, d) ? NULL : d;
}

/* Two bytes for each sector, of the whole disk if there is room, else of what the job spans. */
static int map_make(const struct job *j, struct disk *d, uint64_t span_sectors)
{
	uint64_t want = d->blk->sectors;

	if (d->map && d->mapped >= span_sectors)
		return 0;
	if (want * 2 > mem_free_bytes() / 4)
		want = span_sectors;
	if (d->map || want * 2 > mem_free_bytes() / 2) {
		job_error(j, "no memory to note %lu sectors: give the guest more, or span=",
			span_sectors);
		return -GUEST_ENOMEM;
	}
	d->map = mem_alloc(want * 2, 4096);
	d->mapped = want;
	d->generation = GENERATION_BASE;
	return 0;
}

static void fault(struct run *r, const struct request *q, const char *what, int code)
{
	r->result->errors++;
	if (r->reported)
		return;
	r->reported = true;
	job_error(r->job, "%s sector=%lu size=%u code=%d", what, q->block * r->sectors,
		r->job->size, code);
}

/* xorshift64*: the same sequence in every run. */
static uint64_t random_next(struct run *r)
{
	r->random ^= r->random >> 12;
	r->random ^= r->random << 25;
	r->random ^= r->random >> 27;
	return r->random * 0x2545f4914f6cdd1dull;
}

static uint64_t sequential_next(struct run *r)
{
	if (r->next == r->nblocks) {
		if (r->once)
			return BLOCK_NONE;
		r->next = 0;
	}
	return r->next++;
}

/* The next block of this phase; BLOCK_NONE: none, or none now. */
static uint64_t block_next(struct run *r)
{
	const bool sequential =
		r->once || r->job->work == JOB_SEQREAD || r->job->work == JOB_SEQWRITE;
	const uint16_t *map = r->disk->map;

	for (unsigned tries = 0; tries < 2 * JOB_DEPTH_MAX || r->readback; tries++) {
		uint64_t b =
			sequential
				? sequential_next(r)
				: (uint64_t)((unsigned __int128)random_next(r) * r->nblocks >> 64);

		if (b == BLOCK_NONE)
			return b;
		if (r->readback ? map[b * r->sectors] & MAP_WRITTEN
				: !r->writes || !(map[b * r->sectors] & MAP_BUSY))
			return b;
	}
	return BLOCK_NONE;
}

static void write_prepare(struct run *r, struct request *q)
{
	struct disk *d = r->disk;
	uint64_t first = q->block * r->sectors;

	if (r->job->work == JOB_FORMAT)
		q->generation = GENERATION_BASE;
	else
		q->generation = d->generation =
			d->generation < MAP_GENERATION ? d->generation + 1 : 2;
	pattern_block_fill(q->buf, r->job->size, first, q->generation);
	for (uint32_t i = 0; i < r->sectors; i++)
		d->map[first + i] = q->generation;
	d->map[first] |= MAP_BUSY | MAP_WRITTEN;
}

static void write_end(struct run *r, const struct request *q, int status)
{
	r->disk->map[q->block * r->sectors] &= (uint16_t)~MAP_BUSY;
	if (status)
		fault(r, q, "write failed", status);
}

static void read_end(struct run *r, const struct request *q, int status)
{
	uint64_t first = q->block * r->sectors;
	uint16_t *map =
		r->disk->map && first + r->sectors <= r->disk->mapped ? r->disk->map + first : NULL;

	if (r->readback)
		map[0] &= (uint16_t)~MAP_WRITTEN;
	if (status) {
		fault(r, q, "read failed", status);
		return;
	}
	for (uint32_t i = 0; i < r->sectors; i++) {
		const int g = pattern_sector_check(q->buf + i * PATTERN_SECTOR, first + i);
		const uint16_t known = map ? map[i] & MAP_GENERATION : 0;

		if (g < 0) {
			fault(r, q,
				g == PATTERN_EPLACE ? "read of another sector"
						    : "read of wrong data",
				(int)i);
			return;
		}
		if (known && known != g) {
			fault(r, q, "read of an old generation", (int)i);
			return;
		}
	}
	r->result->verified++;
}

static int submit_all(struct run *r, uint64_t now)
{
	unsigned queued = 0;

	while (r->nfree && (!r->job->rate || now >= r->due)) {
		uint16_t n = r->free[r->nfree - 1];
		struct request *q = &r->requests[n];
		uint64_t was = r->next;
		int e;

		q->block = block_next(r);
		if (q->block == BLOCK_NONE)
			break;
		q->generation = 0;
		if (r->writes)
			write_prepare(r, q);
		q->queued = now;
		e = r->blk->ops->submit(r->blk, r->queue,
			r->writes ? FRONTEND_BLK_WRITE : FRONTEND_BLK_READ, q->block * r->sectors,
			q->buf, r->job->size, n);
		if (e == -GUEST_ENOSPC) {
			/* Not sent after all: the block stays free, and a sequence goes on with it.
			 */
			if (r->writes)
				r->disk->map[q->block * r->sectors] &= (uint16_t)~MAP_BUSY;
			r->next = was;
			break;
		}
		if (e) {
			fault(r, q, "request refused", e);
			return e;
		}
		r->nfree--;
		queued++;
		r->queue = r->queue + 1 < r->blk->queues ? r->queue + 1 : 0;
		if (r->job->rate)
			r->due += clock_from_ns(1000000000ull / r->job->rate);
	}
	if (queued)
		r->blk->ops->kick(r->blk);
	return (int)queued;
}

/* What was read lies in another processor's cache: it is on its way while the one before is
 * checked. */
static void block_prefetch(const struct run *r, const struct request *q)
{
	for (uint32_t at = 0; at < r->job->size; at += CACHE_LINE)
		__builtin_prefetch(q->buf + at, 0, 2);
}

static int collect_all(struct run *r)
{
	struct frontend_blk_done done[JOB_BURST];
	int n = r->blk->ops->poll(r->blk, done, JOB_BURST);
	uint64_t now;

	if (n <= 0)
		return n;
	now = clock_now();
	for (int i = 0; i < n; i++) {
		struct request *q = &r->requests[done[i].token];

		if (i + 1 < n && !r->writes)
			block_prefetch(r, &r->requests[done[i + 1].token]);
		if (r->timed) {
			hist_add(&r->result->hist, now - q->queued);
			r->result->requests++;
			r->result->bytes += r->job->size;
		}
		if (q->generation)
			write_end(r, q, done[i].status);
		else
			read_end(r, q, done[i].status);
		r->free[r->nfree++] = (uint16_t)done[i].token;
	}
	return n;
}

/* Halts until the device interrupts, or until the next request of a rate is due. */
static void rest(struct run *r, bool due)
{
	uint32_t seen = cpu_irq_total();

	if (!r->blk->ops->wait_begin(r->blk)) {
		if (due)
			cpu_idle_until(seen, r->due);
		else
			cpu_idle_guarded(seen);
	}
	r->blk->ops->wait_end(r->blk);
}

/* One phase: until `end`, or the span's end. Returns with nothing in flight; negative: given up. */
static int phase(struct run *r, uint64_t end)
{
	uint64_t progress = clock_now();
	const uint64_t stall = clock_from_ns(JOB_STALL_NS);

	r->due = progress;
	for (;;) {
		uint64_t now = clock_now();
		bool stop = !r->once && now >= end;
		int queued = stop ? 0 : submit_all(r, now);
		int got;

		if (queued < 0)
			return queued;
		got = collect_all(r);
		if (got < 0) {
			job_error(r->job, "the device failed (%d)", got);
			return got;
		}
		if (queued || got) {
			progress = now;
			continue;
		}
		if (r->nfree == r->job->depth) {
			if (stop || r->once)
				return 0;
			if (r->job->rate && now < r->due)
				rest(r, true);
			progress = clock_now();
			continue;
		}
		if (now - progress > stall) {
			job_error(r->job, "no progress for %lu s with %u in flight",
				(unsigned long)(JOB_STALL_NS / 1000000000),
				r->job->depth - r->nfree);
			return -GUEST_ETIMEDOUT;
		}
		if (now - progress > r->job->poll)
			rest(r, r->job->rate && !stop && r->nfree && now < r->due);
		else
			cpu_relax();
	}
}

static int requests_make(struct run *r)
{
	r->nfree = r->job->depth;
	for (unsigned i = 0; i < r->nfree; i++) {
		r->free[i] = (uint16_t)(r->nfree - 1 - i);
		r->requests[i].buf = mem_temp_alloc(r->job->size, 4096);
		if (!r->requests[i].buf) {
			job_error(r->job, "no memory for %u buffers of %u bytes", r->job->depth,
				r->job->size);
			return -GUEST_ENOMEM;
		}
	}
	return 0;
}

static int measure(struct run *r)
{
	const struct job *j = r->job;
	uint32_t irqs;
	uint64_t doorbells, start;
	int e;

	if (!r->once && j->warm_ms) {
		e = phase(r, clock_now() + clock_from_ns(j->warm_ms * 1000000));
		if (e)
			return e;
		r->next = 0;
	}
	r->timed = true;
	irqs = r->blk->ops->irqs(r->blk);
	doorbells = r->blk->doorbells;
	job_mark(j, MARK_BEGIN);
	start = clock_now();
	e = phase(r, start + clock_from_ns(j->ms * 1000000));
	r->result->cycles = clock_now() - start;
	job_mark(j, MARK_END);
	r->timed = false;
	r->result->irqs = r->blk->ops->irqs(r->blk) - irqs;
	r->result->doorbells = r->blk->doorbells - doorbells;
	return e;
}

static int flush(struct run *r)
{
	struct frontend_blk_done done;
	uint64_t end = clock_now() + clock_from_ns(2 * JOB_STALL_NS);
	int e;

	if (!r->blk->has_flush)
		return 0;
	e = r->blk->ops->submit(r->blk, 0, FRONTEND_BLK_FLUSH, 0, NULL, 0, 0);
	if (e)
		return e;
	r->blk->ops->kick(r->blk);
	while (!(e = r->blk->ops->poll(r->blk, &done, 1))) {
		if (clock_now() > end)
			return -GUEST_ETIMEDOUT;
		rest(r, false);
	}
	return e < 0 ? e : done.status;
}

static int read_back(struct run *r)
{
	int e = flush(r);

	if (e) {
		job_error(r->job, "flush failed (%d)", e);
		return e;
	}
	r->writes = false;
	r->once = r->readback = true;
	r->next = 0;
	return phase(r, 0);
}

int blk_job(const struct job *j, struct result *result)
{
	struct run *r = &run;
	uintptr_t mark;
	uint64_t span;
	int e;

	if (j->work == JOB_FLUSHWRITE || j->work == JOB_FLUSHVERIFY)
		return flush_job(j, result);
	memset(r, 0, sizeof(*r));
	r->job = j;
	r->result = result;
	r->random = 0x9e3779b97f4a7c15ull;
	r->disk = disk_get(j);
	if (!r->disk)
		return -GUEST_ENODEV;
	r->blk = r->disk->blk;
	span = j->span && j->span / 512 < r->blk->sectors ? j->span / 512 : r->blk->sectors;
	r->sectors = j->size / 512;
	r->nblocks = span / r->sectors;
	if (!r->nblocks) {
		job_error(j, "span of %lu sectors holds no block of %u bytes", span, j->size);
		return -GUEST_EINVAL;
	}
	r->writes = j->work == JOB_RANDWRITE || j->work == JOB_SEQWRITE || j->work == JOB_FORMAT;
	r->once = j->work == JOB_FORMAT || j->work == JOB_VERIFY;
	if (r->writes && r->blk->readonly) {
		job_error(j, "the disk is read-only");
		return -GUEST_EINVAL;
	}
	mark = mem_temp_mark();
	e = r->writes ? map_make(j, r->disk, span) : 0;
	if (!e)
		e = requests_make(r);
	if (!e)
		e = measure(r);
	if (!e && r->writes)
		e = read_back(r);
	/* What a device still holds is not given to anybody else. */
	if (r->nfree == j->depth)
		mem_temp_release(mark);
	return e;
}
