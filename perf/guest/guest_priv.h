/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the benchmark guest share. One CPU, one thread. Times in TSC cycles unless _ns.
 */
#ifndef PERF_GUEST_PRIV_H
#define PERF_GUEST_PRIV_H

#include "frontend-drivers/frontend.h"
#include "perf/pattern.h"

#define JOB_TEXT_MAX  256u
#define JOB_DEPTH_MAX 256u
#define JOB_BURST     64u
#define JOB_ROUND_MAX 65000u /* a generation has 16 bits */

/* The port the monitor's harness listens to: job << 8 | mark. */
#define MARK_PORT  0x5e0u
#define MARK_BEGIN 1u
#define MARK_END   2u

/* A device that makes no progress for this long is given up: long also under a sanitizer on a busy
 * host. */
#define JOB_STALL_NS 30000000000ull

/* ------------------------------------------------------------------ hist.c */

/* 64 steps in each octave: exact to 1.6 %. */
#define HIST_BUCKETS 2624u

struct hist {
	uint64_t samples;
	uint64_t min, max;
	uint32_t count[HIST_BUCKETS];
};

void hist_reset(struct hist *h);
/* The value below which `per_100k` hundred-thousandths of the samples lie, in ns; 0 without
 * samples. */
uint64_t hist_quantile_ns(const struct hist *h, unsigned per_100k);
/* The line SLUICE-HIST. */
void hist_print(const struct hist *h, unsigned job);

static inline void hist_add(struct hist *h, uint64_t cycles)
{
	unsigned shift = 0;
	uint64_t at;

	if (cycles >= 128)
		shift = 63 - (unsigned)__builtin_clzll(cycles) - 6;
	at = 64ull * shift + (cycles >> shift);
	h->count[at < HIST_BUCKETS ? at : HIST_BUCKETS - 1]++;
	h->samples++;
	if (cycles < h->min)
		h->min = cycles;
	if (cycles > h->max)
		h->max = cycles;
}

/* ------------------------------------------------------------------ job.c */

enum job_work {
	JOB_RANDREAD,
	JOB_RANDWRITE,
	JOB_SEQREAD,
	JOB_SEQWRITE,
	JOB_VERIFY,
	JOB_FORMAT,
	JOB_FLUSHWRITE,
	JOB_FLUSHVERIFY,
	JOB_TX,
	JOB_RX,
	JOB_ECHO,
};

struct job {
	unsigned index;
	char kind[8]; /* "blk", "net", "idle" */
	char dev[16];
	char transfer[8];
	char gso[8];
	enum job_work work;
	uint32_t dev_index;
	uint32_t size;
	uint32_t depth;
	uint32_t queues;
	uint64_t ms, warm_ms;
	uint64_t span;
	uint64_t rate;
	uint32_t every; /* flush jobs: blocks in a round */
	uint32_t round; /* how many rounds to write; which was the last one flushed */
	/* from words of their own on the command line */
	uint64_t poll; /* cycles without progress before halting */
	struct frontend_virtio_options virtio;
};

struct result {
	uint64_t requests;
	uint64_t bytes;
	uint64_t cycles;
	uint64_t errors;
	uint64_t verified;
	uint64_t irqs;
	uint64_t doorbells;
	uint64_t lost;    /* network: numbers missing from the sequence */
	uint64_t foreign; /* network: frames that are not the benchmark's */
	struct hist hist;
};

/* The nth word `job=`. 1: there is one, 0: none, -GUEST_EINVAL: it cannot be understood (reported).
 */
int job_get(unsigned nth, struct job *j);
/* The line SLUICE-ERROR. */
void job_error(const struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void job_result(const struct job *j, const struct result *r);
void job_mark(const struct job *j, unsigned mark);

/* ------------------------------------------------------------------ works */

/* Negative: the job could not be done, and said so. */
int blk_job(const struct job *j, struct result *r);
int net_job(const struct job *j, struct result *r);
int flush_job(const struct job *j, struct result *r);

#endif
