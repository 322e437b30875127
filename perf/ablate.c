/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each step buys: every contender as it is, and once without each thing that makes it fast, in
 * turn. Columns are ratios, with by without, run by run: 1.00 means that the step bought nothing
 * here.
 */
#include <stdlib.h>
#include <string.h>

#include "perf/bench_priv.h"

/* ------------------------------------------------------------------ the steps */

static void no_event_idx(struct machine_config *cfg)
{
	cfg->disks[0].event_idx = cfg->nets[0].event_idx = VMM_OFF;
}

static void no_indirect(struct machine_config *cfg)
{
	cfg->disks[0].indirect = cfg->nets[0].indirect = VMM_OFF;
}

static void no_mergeable(struct machine_config *cfg)
{
	cfg->nets[0].mergeable = VMM_OFF;
}

static void no_polling(struct machine_config *cfg)
{
	cfg->poll_us = 0;
	cfg->poll_set = true;
}

static void no_uring(struct machine_config *cfg)
{
	cfg->no_io_uring = true;
	if (cfg->ndisks)
		cfg->disks[0].engine = BLK_ENGINE_THREADS;
}

static void no_coalesce(struct machine_config *cfg)
{
	cfg->no_coalesce = true;
}

static void no_moderation(struct machine_config *cfg)
{
	cfg->no_moderation = true;
}

#define DISK(text, function)                                                                       \
	{                                                                                          \
		.device = "virtio-blk", .transfer = "ring", .ring = "split", .label = (text),      \
		.split = true, .change = (function)                                                \
	}
#define NET(text, function)                                                                        \
	{                                                                                          \
		.device = "virtio-net", .transfer = "ring", .ring = "split", .label = (text),      \
		.split = true, .net = true, .change = (function)                                   \
	}

#define EMULATED(name, how, text, network, function)                                               \
	{                                                                                          \
		.device = (name), .transfer = (how), .ring = "", .label = (text),                  \
		.net = (network), .change = (function)                                             \
	}

/* Of a device, the first is the whole; the others lack what their label says. */
const struct bench_contender bench_ablations[] = {
	DISK("virtio-blk", NULL),
	DISK("event indices", no_event_idx),
	DISK("indirect descriptors", no_indirect),
	DISK("polling", no_polling),
	DISK("io_uring", no_uring),
	NET("virtio-net", NULL),
	NET("event indices", no_event_idx),
	NET("indirect descriptors", no_indirect),
	NET("mergeable buffers", no_mergeable),
	NET("polling", no_polling),
	NET("io_uring", no_uring),
	EMULATED("ide", "pio", "ide (PIO)", false, NULL),
	EMULATED("ide", "pio", "coalesced registers", false, no_coalesce),
	EMULATED("ide", "dma", "ide (DMA)", false, NULL),
	EMULATED("ide", "dma", "coalesced registers", false, no_coalesce),
	EMULATED("ne2k_pci", "pio", "ne2k_pci", true, NULL),
	EMULATED("ne2k_pci", "pio", "coalesced registers", true, no_coalesce),
	EMULATED("e1000", "dma", "e1000", true, NULL),
	EMULATED("e1000", "dma", "coalesced registers", true, no_coalesce),
	EMULATED("e1000", "dma", "interrupt moderation", true, no_moderation),
};
const unsigned bench_nablations = sizeof(bench_ablations) / sizeof(bench_ablations[0]);

/* ------------------------------------------------------------------ what came of it */

const struct bench_result *bench_ablation_whole(
	const struct bench *b, const struct bench_result *without)
{
	for (unsigned i = 0; i < b->nresults; i++) {
		const struct bench_contender *c = b->results[i].contender;

		if (!c->change && !strcmp(c->device, without->contender->device) &&
			!strcmp(c->transfer, without->contender->transfer) &&
			bench_work_same(&b->results[i].work, &without->work))
			return &b->results[i];
	}
	return NULL;
}

static int double_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

bool bench_ablation_ratio(const struct bench_result *whole, const struct bench_result *without,
	double *median, double *least, double *most)
{
	double v[BENCH_RUNS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < whole->nsamples && i < without->nsamples; i++) {
		const struct bench_sample *a = &whole->samples[i], *z = &without->samples[i];

		if (a->valid && z->valid && a->ns && z->requests)
			v[n++] = (double)a->requests / (double)a->ns * (double)z->ns /
				 (double)z->requests;
	}
	if (!n)
		return false;
	qsort(v, n, sizeof(v[0]), double_compare);
	*median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
	*least = v[0];
	*most = v[n - 1];
	return true;
}

void bench_ablation_print(const struct bench *b, FILE *out)
{
	const char *device = "";

	for (unsigned i = 0; i < b->nresults; i++) {
		const struct bench_result *r = &b->results[i], *whole = bench_ablation_whole(b, r);
		struct bench_summary with, without;
		double median, least, most;
		char name[64];

		if (!r->contender->change || !whole)
			continue;
		if (strcmp(device, whole->contender->label) != 0) {
			device = whole->contender->label;
			fprintf(out,
				"\n%s, with each step by without it\n"
				"%-24s %-26s %7s %15s %19s %19s %19s\n",
				device, "without", "work", "rate", "(spread)", "exits", "doorbells",
				"interrupts");
		}
		bench_work_name(&r->work, name, sizeof(name));
		if (!bench_ablation_ratio(whole, r, &median, &least, &most)) {
			fprintf(out, "%-24s %-26s not measured: %s\n", r->contender->label, name,
				r->nsamples ? r->samples[0].note : "");
			continue;
		}
		bench_summarize(whole, &with);
		bench_summarize(r, &without);
		fprintf(out,
			"%-24s %-26s %6.2fx (%5.2f to %5.2f) %8.4f / %8.4f %8.4f / %8.4f %8.4f / "
			"%8.4f\n",
			r->contender->label, name, median, least, most, with.exits, without.exits,
			with.doorbells, without.doorbells, with.interrupts, without.interrupts);
	}
}
