/* SPDX-License-Identifier: BSD-2-Clause */
#include "perf/guest/guest_priv.h"

#define PRINT_BUCKETS 40u
#define COARSE_MAX    256u

void hist_reset(struct hist *h)
{
	memset(h, 0, sizeof(*h));
	h->min = ~0ull;
}

/* The lowest value of a bucket, and how many values it holds. */
static uint64_t bucket_low(unsigned i, uint64_t *width)
{
	unsigned shift = i < 128 ? 0 : i / 64 - 1;

	*width = 1ull << shift;
	return (uint64_t)(i - 64 * shift) << shift;
}

uint64_t hist_quantile_ns(const struct hist *h, unsigned per_100k)
{
	uint64_t rank = (h->samples * per_100k + 99999) / 100000, seen = 0, width, low;

	if (!h->samples)
		return 0;
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += h->count[i];
		if (seen < rank)
			continue;
		low = bucket_low(i, &width) + width / 2;
		return clock_to_ns(low > h->max ? h->max : low < h->min ? h->min : low);
	}
	return clock_to_ns(h->max);
}

/* Lower bound of coarse bucket `i` in ns, with `steps` (a power of two) in each octave. */
static uint64_t coarse_low(unsigned i, unsigned steps)
{
	return (steps + i % steps) * (1ull << i / steps) / steps;
}

static unsigned coarse_index(uint64_t ns, unsigned steps)
{
	unsigned octave = ns ? 63 - (unsigned)__builtin_clzll(ns) : 0;
	uint64_t above = ns - (1ull << octave);
	unsigned i = ns ? octave * steps + (unsigned)(above * steps >> octave) : 0;

	return i < COARSE_MAX ? i : COARSE_MAX - 1;
}

/* As fine as fits the line. */
void hist_print(const struct hist *h, unsigned job)
{
	static uint64_t coarse[COARSE_MAX];
	unsigned used = COARSE_MAX;
	unsigned steps = 8;
	char line[1600];
	int n;

	while (used > PRINT_BUCKETS && steps > 1) {
		uint64_t width;

		steps /= 2;
		used = 0;
		memset(coarse, 0, sizeof(coarse));
		for (unsigned i = 0; i < HIST_BUCKETS; i++)
			if (h->count[i])
				coarse[coarse_index(clock_to_ns(bucket_low(i, &width)), steps)] +=
					h->count[i];
		for (unsigned i = 0; i < COARSE_MAX; i++)
			used += coarse[i] != 0;
	}
	n = print_to(line, sizeof(line), "SLUICE-HIST job=%u", job);
	for (unsigned i = 0; i < COARSE_MAX && n < (int)sizeof(line) - 48; i++)
		if (coarse[i])
			n += print_to(line + n, sizeof(line) - (size_t)n, " %lu:%lu",
				coarse_low(i, steps), coarse[i]);
	print("%s\n", line);
}
