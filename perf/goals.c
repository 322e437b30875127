/* SPDX-License-Identifier: BSD-2-Clause */
/* What Sluice sets itself to reach, against what this run measured. A statement, not a test: hosts
 * differ. */
#include <stdlib.h>
#include <string.h>

#include "perf/bench_priv.h"

enum goal_sense { AT_LEAST, AT_MOST };

static const struct bench_result *find(const struct bench *b, const char *device,
	const char *transfer, const char *ring, const char *work, uint32_t size, bool deepest)
{
	const struct bench_result *best = NULL;

	for (unsigned i = 0; i < b->nresults; i++) {
		const struct bench_result *r = &b->results[i];

		if (strcmp(r->contender->device, device) ||
			strcmp(r->contender->transfer, transfer) ||
			strcmp(r->contender->ring, ring) || strcmp(r->work.work, work) ||
			r->work.size != size || r->work.port == BENCH_PORT_TAP)
			continue;
		if (deepest ? !best || r->work.depth > best->work.depth : r->work.depth == 32)
			best = r;
	}
	return best;
}

static void goal(
	FILE *out, const char *what, enum goal_sense sense, double limit, bool known, double value)
{
	if (!known) {
		fprintf(out, "  %-62s %s %-10g %12s  not measured\n", what,
			sense == AT_LEAST ? ">=" : "<=", limit, "-");
		return;
	}
	fprintf(out, "  %-62s %s %-10g %12.4g  %s\n", what, sense == AT_LEAST ? ">=" : "<=", limit,
		value,
		(sense == AT_LEAST ? value >= limit : value <= limit) ? "reached" : "NOT reached");
}

static void goals_disk(const struct bench *b, FILE *out)
{
	const struct bench_result *split =
		find(b, "virtio-blk", "ring", "split", "randread", 4096, false);
	const struct bench_result *pio = find(b, "ide", "pio", "", "randread", 4096, false);
	const struct bench_result *dma = find(b, "ide", "dma", "", "randread", 4096, false);
	struct bench_summary s = {0}, p = {0}, d = {0};
	double fio = 0;

	if (split)
		bench_summarize(split, &s);
	if (pio)
		bench_summarize(pio, &p);
	if (dma)
		bench_summarize(dma, &d);
	for (unsigned i = 0; split && i < b->nbaselines; i++)
		if (bench_work_same(&b->baselines[i].work, &split->work))
			fio = b->baselines[i].per_s;
	goal(out, "4 KiB random read, depth 32: split / IDE by PIO", AT_LEAST, 8, s.runs && p.runs,
		p.per_s > 0 ? s.per_s / p.per_s : 0);
	goal(out, "4 KiB random read, depth 32: split / IDE by DMA", AT_LEAST, 4, s.runs && d.runs,
		d.per_s > 0 ? s.per_s / d.per_s : 0);
	goal(out, "4 KiB random read, depth 32: split / fio (io_uring) on the host", AT_LEAST, 0.8,
		s.runs && fio > 0, fio > 0 ? s.per_s / fio : 0);
	goal(out, "exits to user space per split request, depth 32", AT_MOST, 0.1, s.runs, s.exits);
	goal(out, "interrupts per split request, depth 32", AT_MOST, 0.1, s.runs, s.interrupts);
	goal(out, "exits to user space per IDE request by DMA", AT_MOST, 15, d.runs, d.exits);
}

static void goals_net(const struct bench *b, FILE *out)
{
	const struct bench_result *split = find(b, "virtio-net", "ring", "split", "tx", 64, true);
	const struct bench_result *ne = find(b, "ne2k_pci", "pio", "", "tx", 64, true);
	struct bench_summary s = {0}, n = {0};

	if (split)
		bench_summarize(split, &s);
	if (ne)
		bench_summarize(ne, &n);
	goal(out, "64 B frames to an in-memory sink, split, millions a second", AT_LEAST, 5, s.runs,
		s.per_s / 1e6);
	goal(out, "64 B frames to an in-memory sink: split / NE2000", AT_LEAST, 300,
		s.runs && n.runs, n.per_s > 0 ? s.per_s / n.per_s : 0);
	goal(out, "exits to user space per split frame", AT_MOST, 0.01, s.runs, s.exits);
	goal(out, "exits to user space per NE2000 frame", AT_MOST, 12, n.runs, n.exits);
}

void bench_goals_print(const struct bench *b, FILE *out)
{
	const struct bench_monitor *m = &b->monitor;

	fprintf(out, "\nGoals, and this run\n");
	goals_disk(b, out);
	goals_net(b, out);
	goal(out, "exec to the guest's first output, ms", AT_MOST, 100, m->valid,
		m->first_output_ms);
	goal(out, "resident memory beyond the guest's, MiB", AT_MOST, 8, m->valid,
		m->resident_kib / 1024);
	goal(out, "CPU of an idle guest, percent of a core", AT_MOST, 1, m->valid,
		m->idle_cpu_percent);
}
