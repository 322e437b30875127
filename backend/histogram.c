/* SPDX-License-Identifier: BSD-2-Clause */
/* Log-linear histograms, and the clock they are fed from. */
#include <time.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define SUB_BITS 2u
#define SUB      (1u << SUB_BITS)

uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* Values below SUB have a bucket each; above, SUB buckets to each power of two. */
static unsigned histogram_bucket(uint64_t ns)
{
	unsigned top, b;

	if (ns < SUB)
		return (unsigned)ns;
	top = 63u - (unsigned)__builtin_clzll(ns);
	b = ((top - SUB_BITS + 1) << SUB_BITS) + (unsigned)((ns >> (top - SUB_BITS)) & (SUB - 1));
	return b < HISTOGRAM_BUCKETS ? b : HISTOGRAM_BUCKETS - 1;
}

static uint64_t histogram_edge(unsigned b)
{
	unsigned top = (b >> SUB_BITS) + SUB_BITS - 1;

	if (b < SUB)
		return b;
	return ((uint64_t)(SUB + (b & (SUB - 1)) + 1) << (top - SUB_BITS)) - 1;
}

/* One writer, so a plain read-modify-write; atomic only so that no reader sees a torn value. */
static void histogram_bump(uint64_t *v, uint64_t n)
{
	__atomic_store_n(v, __atomic_load_n(v, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

void histogram_add_n(struct histogram *h, uint64_t ns, uint64_t n)
{
	histogram_bump(&h->buckets[histogram_bucket(ns)], n);
	histogram_bump(&h->count, n);
}

void histogram_add(struct histogram *h, uint64_t ns)
{
	histogram_add_n(h, ns, 1);
}

uint64_t histogram_percentile_ns(const struct histogram *h, double fraction)
{
	uint64_t total = 0, seen = 0, want;
	unsigned b, last = 0;

	/* the buckets are summed anew: the count may be ahead of or behind them */
	for (b = 0; b < HISTOGRAM_BUCKETS; b++)
		total += __atomic_load_n(&h->buckets[b], __ATOMIC_RELAXED);
	if (!total)
		return 0;
	if (fraction < 0)
		fraction = 0;
	want = (uint64_t)(fraction * (double)total);
	if ((double)want < fraction * (double)total)
		want++;
	if (want < 1)
		want = 1;
	if (want > total)
		want = total;
	for (b = 0; b < HISTOGRAM_BUCKETS; b++) {
		uint64_t n = __atomic_load_n(&h->buckets[b], __ATOMIC_RELAXED);

		if (!n)
			continue;
		last = b;
		seen += n;
		if (seen >= want)
			break;
	}
	return histogram_edge(last);
}
