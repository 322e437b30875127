/* SPDX-License-Identifier: BSD-2-Clause */
/* The result for people: emulated and split side by side, then every contender in detail. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "perf/bench_priv.h"

#define COLUMNS_MAX 8u

static const char *thousands(double v, char out[32])
{
	char digits[32];
	int n = snprintf(digits, sizeof(digits), "%.0f", v), k = 0;

	for (int i = 0; i < n && k < 30; i++) {
		if (i && (n - i) % 3 == 0)
			out[k++] = ',';
		out[k++] = digits[i];
	}
	out[k] = '\0';
	return out;
}

static const char *ratio(double a, double b, char out[32])
{
	if (a <= 0 || b <= 0)
		snprintf(out, 32, "-");
	else
		snprintf(out, 32, a / b >= 100 ? "%.0fx" : "%.1fx", a / b);
	return out;
}

static const char *fraction(double a, double b, char out[32])
{
	if (a <= 0 || b <= 0)
		snprintf(out, 32, "-");
	else
		snprintf(out, 32, "%.2f", a / b);
	return out;
}

static const struct bench_result *result_find(
	const struct bench *b, const struct bench_contender *c, const struct bench_work *w)
{
	for (unsigned i = 0; i < b->nresults; i++)
		if (b->results[i].contender == c && bench_work_same(&b->results[i].work, w))
			return &b->results[i];
	return NULL;
}

static double rate_of(
	const struct bench *b, const struct bench_contender *c, const struct bench_work *w)
{
	const struct bench_result *r = c ? result_find(b, c, w) : NULL;
	struct bench_summary s;

	if (!r)
		return 0;
	bench_summarize(r, &s);
	return s.per_s;
}

static double baseline_of(const struct bench *b, const struct bench_work *w)
{
	for (unsigned i = 0; i < b->nbaselines; i++)
		if (bench_work_same(&b->baselines[i].work, w))
			return b->baselines[i].per_s;
	return 0;
}

/* The works of one kind, each once, in the order measured. */
static unsigned works_of(
	const struct bench *b, bool net, const struct bench_work **out, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->nresults; i++) {
		const struct bench_work *w = &b->results[i].work;
		bool seen = b->results[i].contender->net != net;

		for (unsigned k = 0; k < n; k++)
			seen |= bench_work_same(out[k], w);
		if (!seen && n < max)
			out[n++] = w;
	}
	return n;
}

static unsigned columns_of(const struct bench *b, bool net, const struct bench_contender **out)
{
	unsigned n = 0;

	for (unsigned c = 0; c < b->ncontenders && n < COLUMNS_MAX; c++) {
		bool used = false;

		for (unsigned i = 0; i < b->nresults; i++)
			used |= b->results[i].contender == &b->contenders[c];
		if (used && b->contenders[c].net == net)
			out[n++] = &b->contenders[c];
	}
	return n;
}

static void side_by_side(const struct bench *b, bool net, FILE *out)
{
	const struct bench_work *works[BENCH_WORKS_MAX * 2];
	const struct bench_contender *cols[COLUMNS_MAX], *split = NULL;
	unsigned nworks = works_of(b, net, works, BENCH_WORKS_MAX * 2),
		 ncols = columns_of(b, net, cols);
	bool fio = !net && b->nbaselines;
	char text[32], name[64];

	if (!nworks)
		return;
	fprintf(out,
		"\n%s: emulated and split side by side, %s a second (median of %u runs)\n\n%-34s",
		net ? "Network" : "Disk", net ? "frames" : "requests", b->opts.runs, "");
	for (unsigned c = 0; c < ncols; c++) {
		fprintf(out, " %18s", cols[c]->label);
		if (cols[c]->split && !split)
			split = cols[c];
	}
	for (unsigned c = 0; split && c < ncols; c++)
		if (!cols[c]->split) {
			snprintf(name, sizeof(name), "split/%s",
				net ? cols[c]->device : cols[c]->transfer);
			fprintf(out, " %14s", name);
		}
	fprintf(out, fio ? " %12s %9s\n" : "\n", "fio on host", "split/fio");
	for (unsigned i = 0; i < nworks; i++) {
		double s = rate_of(b, split, works[i]);

		bench_work_name(works[i], name, sizeof(name));
		fprintf(out, "%-34s", name);
		for (unsigned c = 0; c < ncols; c++) {
			double v = rate_of(b, cols[c], works[i]);

			fprintf(out, " %18s", v > 0 ? thousands(v, text) : "-");
		}
		for (unsigned c = 0; split && c < ncols; c++)
			if (!cols[c]->split)
				fprintf(out, " %14s",
					ratio(s, rate_of(b, cols[c], works[i]), text));
		if (fio) {
			double f = baseline_of(b, works[i]);

			fprintf(out, " %12s", f > 0 ? thousands(f, text) : "-");
			fprintf(out, " %9s", fraction(s, f, text));
		}
		fputc('\n', out);
	}
}

static const char *micros(double us, char out[32])
{
	if (us < 0)
		snprintf(out, 32, "-");
	else
		snprintf(out, 32, us >= 1000 ? "%.0f" : "%.1f", us);
	return out;
}

static const char *small(double v, char out[32])
{
	if (v == 0)
		snprintf(out, 32, "0");
	else if (v < 0.0001)
		snprintf(out, 32, "%.1e", v);
	else
		snprintf(out, 32, v < 1 ? "%.4f" : "%.2f", v);
	return out;
}

static void detail_row(const struct bench_result *r, FILE *out)
{
	struct bench_summary s;
	char a[32], p50[32], p99[32], p999[32], e[32], d[32], q[32], c[32], u[32];

	bench_summarize(r, &s);
	if (!s.runs) {
		fprintf(out, "  %-18s not measured: %s\n", r->contender->label,
			s.note ? s.note : "no result");
		return;
	}
	fprintf(out, "  %-18s %12s %4.0f%% %9.1f %9s %9s %9s %9s %9s %9s %9s %9s %8s\n",
		r->contender->label, thousands(s.per_s, a),
		s.per_s > 0 ? (s.max_per_s - s.min_per_s) / s.per_s * 100 : 0, s.bytes_per_s / 1e6,
		micros(s.p50_us, p50), micros(s.p99_us, p99), micros(s.p999_us, p999),
		small(s.exits, e), small(s.doorbells, d), small(s.interrupts, q),
		small(s.system_calls, c), small(s.cpu_us, u),
		s.errors     ? "ERRORS"
		: s.verified ? "yes"
			     : "no");
	if (s.note)
		fprintf(out, "  %-18s note: %s\n", "", s.note);
}

static void details(const struct bench *b, bool net, FILE *out)
{
	const struct bench_work *works[BENCH_WORKS_MAX * 2];
	unsigned nworks = works_of(b, net, works, BENCH_WORKS_MAX * 2);
	char name[64];

	if (!nworks)
		return;
	fprintf(out,
		"\n%s in detail: spread = (max - min) / median over the runs; per request: exits "
		"to user space, "
		"doorbells, interrupts, host system calls, host CPU\n",
		net ? "Network" : "Disk");
	fprintf(out, "\n  %-18s %12s %5s %9s %9s %9s %9s %9s %9s %9s %9s %9s %8s\n", "",
		net ? "frames/s" : "requests/s", "sprd", "MB/s", "p50 us", "p99 us", "p99.9 us",
		"exits", "doorbells", "irqs", "syscalls", "cpu us", "verified");
	for (unsigned i = 0; i < nworks; i++) {
		bench_work_name(works[i], name, sizeof(name));
		fprintf(out, "%s\n", name);
		for (unsigned c = 0; c < b->ncontenders; c++) {
			const struct bench_result *r = result_find(b, &b->contenders[c], works[i]);

			if (r)
				detail_row(r, out);
		}
	}
}

void bench_table_print(const struct bench *b, FILE *out)
{
	struct bench_fact facts[24];
	unsigned n = bench_facts(b, facts, 24);

	fprintf(out, "\nHost\n");
	for (unsigned i = 0; i < n; i++)
		fprintf(out, "  %-12s %s\n", facts[i].key, facts[i].value);
	if (b->opts.ablate) {
		bench_ablation_print(b, out);
		fflush(out);
		return;
	}
	details(b, false, out);
	details(b, true, out);
	side_by_side(b, false, out);
	side_by_side(b, true, out);
	if (b->monitor.valid)
		fprintf(out,
			"\nMonitor\n  first output %.0f ms after exec (%.0f to %.0f); %.1f MiB "
			"resident beyond "
			"guest memory; idle guest %.2f%% of a core\n",
			b->monitor.first_output_ms, b->monitor.first_output_min_ms,
			b->monitor.first_output_max_ms, b->monitor.resident_kib / 1024,
			b->monitor.idle_cpu_percent);
	bench_goals_print(b, out);
	if (b->nleft_out)
		fprintf(out, "\nLeft out\n");
	for (unsigned i = 0; i < b->nleft_out; i++)
		fprintf(out, "  %s\n", b->left_out[i]);
	fflush(out);
}
