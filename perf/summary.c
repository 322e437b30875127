/* SPDX-License-Identifier: BSD-2-Clause */
/* Figures over the repeated runs of one result: medians, spread, and sums for what is counted. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "perf/bench_priv.h"

/* A percentile counts only with ten samples beyond it. */
#define SAMPLES_P50  20u
#define SAMPLES_P99  1000u
#define SAMPLES_P999 10000u

static int double_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
	if (!n)
		return -1;
	qsort(v, n, sizeof(*v), double_compare);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Median over the runs of a percentile, or negative when the runs together had too few samples. */
static double percentile(
	const struct bench_result *r, size_t field, uint64_t samples, uint64_t needed)
{
	double v[BENCH_RUNS_MAX];
	unsigned n = 0;

	if (samples < needed)
		return -1;
	for (unsigned i = 0; i < r->nsamples; i++)
		if (r->samples[i].valid)
			v[n++] = (double)*(const uint64_t *)((const char *)&r->samples[i] + field) /
				 1e3;
	return median(v, n);
}

void bench_summarize(const struct bench_result *r, struct bench_summary *out)
{
	double per_s[BENCH_RUNS_MAX], bytes_per_s[BENCH_RUNS_MAX];
	uint64_t exits = 0, doorbells = 0, interrupts = 0, calls = 0, cpu_ns = 0;

	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < r->nsamples; i++) {
		const struct bench_sample *s = &r->samples[i];

		if (s->note[0])
			out->note = s->note;
		out->errors += s->errors;
		if (!s->valid || !s->ns)
			continue;
		per_s[out->runs] = (double)s->requests * 1e9 / (double)s->ns;
		bytes_per_s[out->runs] = (double)s->bytes * 1e9 / (double)s->ns;
		out->runs++;
		out->requests += s->requests;
		out->verified += s->verified;
		out->latency_samples += s->latency_samples;
		exits += s->exits;
		doorbells += s->doorbells;
		interrupts += s->interrupts;
		calls += s->system_calls;
		cpu_ns += s->cpu_ns;
		memcpy(out->engine, s->engine, sizeof(out->engine));
		out->direct = s->direct;
	}
	out->p50_us = percentile(
		r, offsetof(struct bench_sample, p50_ns), out->latency_samples, SAMPLES_P50);
	out->p99_us = percentile(
		r, offsetof(struct bench_sample, p99_ns), out->latency_samples, SAMPLES_P99);
	out->p999_us = percentile(
		r, offsetof(struct bench_sample, p999_ns), out->latency_samples, SAMPLES_P999);
	if (!out->runs)
		return;
	out->per_s = median(per_s, out->runs); /* sorts */
	out->bytes_per_s = median(bytes_per_s, out->runs);
	out->min_per_s = per_s[0];
	out->max_per_s = per_s[out->runs - 1];
	if (out->requests) {
		double n = (double)out->requests;

		out->exits = (double)exits / n;
		out->doorbells = (double)doorbells / n;
		out->interrupts = (double)interrupts / n;
		out->system_calls = (double)calls / n;
		out->cpu_us = (double)cpu_ns / 1e3 / n;
	}
}

static int bucket_compare(const void *a, const void *b)
{
	uint64_t x = ((const struct bench_bucket *)a)->ns, y = ((const struct bench_bucket *)b)->ns;

	return (x > y) - (x < y);
}

unsigned bench_histogram_merge(const struct bench_result *r, struct bench_bucket *out, unsigned max)
{
	unsigned n = 0, kept = 0;

	for (unsigned i = 0; i < r->nsamples; i++)
		for (unsigned k = 0; k < r->samples[i].nbuckets && n < max; k++)
			out[n++] = r->samples[i].buckets[k];
	qsort(out, n, sizeof(*out), bucket_compare);
	for (unsigned i = 0; i < n; i++) {
		if (kept && out[kept - 1].ns == out[i].ns)
			out[kept - 1].count += out[i].count;
		else
			out[kept++] = out[i];
	}
	return kept;
}

bool bench_work_same(const struct bench_work *a, const struct bench_work *b)
{
	return !strcmp(a->work, b->work) && a->size == b->size && a->depth == b->depth &&
	       a->queues == b->queues && a->port == b->port;
}

static void size_name(uint32_t size, char *out, size_t room)
{
	if (size >= 1 << 20 && size % (1 << 20) == 0)
		snprintf(out, room, "%u MiB", size >> 20);
	else if (size >= 1024 && size % 1024 == 0)
		snprintf(out, room, "%u KiB", size >> 10);
	else
		snprintf(out, room, "%u B", size);
}

void bench_work_name(const struct bench_work *w, char *out, size_t room)
{
	static const char *const long_names[][2] = {{"randread", "random read"},
		{"randwrite", "random write"}, {"seqread", "sequential read"},
		{"seqwrite", "sequential write"}, {"tx", "transmit"}, {"rx", "receive"}};
	const char *name = w->work;
	char size[24];

	for (size_t i = 0; i < sizeof(long_names) / sizeof(long_names[0]); i++)
		if (!strcmp(w->work, long_names[i][0]))
			name = long_names[i][1];
	size_name(w->size, size, sizeof(size));
	snprintf(out, room, "%s %s, depth %u%s", size, name, w->depth,
		w->port == BENCH_PORT_TAP ? ", tap" : "");
}
