/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The result as one self-contained HTML page: tables, and plots drawn by gnuplot as SVG inside the
 * page.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf/bench_priv.h"

#define PLOT_BUCKETS (BENCH_BUCKETS_MAX * BENCH_RUNS_MAX)

static void html_text(FILE *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			fputs("&lt;", out);
		else if (*s == '>')
			fputs("&gt;", out);
		else if (*s == '&')
			fputs("&amp;", out);
		else
			fputc(*s, out);
	}
}

/* Runs gnuplot on a script; its SVG goes into the page. 0, or -errno. */
static int plot_run(const char *script, size_t len, FILE *page)
{
	char buf[4096];
	int fds[2], status, in = memfd_create("plot", MFD_CLOEXEC);
	bool svg = false;
	pid_t pid;

	if (in < 0)
		return -errno;
	if (write(in, script, len) != (ssize_t)len || lseek(in, 0, SEEK_SET) || pipe(fds)) {
		close(in);
		return -EIO;
	}
	fflush(NULL);
	pid = fork();
	if (!pid) {
		dup2(in, 0);
		dup2(fds[1], 1);
		close(fds[0]);
		execlp("gnuplot", "gnuplot", (char *)NULL);
		_exit(127);
	}
	close(in);
	close(fds[1]);
	for (;;) {
		ssize_t n = pid > 0 ? read(fds[0], buf, sizeof(buf) - 1) : 0;
		char *start = buf;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		buf[n] = '\0';
		if (!svg) {
			start = strstr(buf, "<svg");
			svg = start != NULL;
		}
		if (svg)
			fwrite(start, 1, (size_t)(buf + n - start), page);
	}
	close(fds[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && !WEXITSTATUS(status) && svg ? 0 : -ENOENT;
}

struct plot {
	FILE *script;
	char *text;
	size_t len;
	unsigned series;
};

static bool plot_begin(struct plot *p, const char *title, const char *xlabel, const char *ylabel)
{
	memset(p, 0, sizeof(*p));
	p->script = open_memstream(&p->text, &p->len);
	if (!p->script)
		return false;
	fprintf(p->script,
		"set terminal svg noenhanced size 860,420 font 'sans-serif,12' background rgb "
		"'white'\n"
		"set title \"%s\"\nset xlabel \"%s\"\nset ylabel \"%s\"\nset grid\nset key outside "
		"right\n"
		"set style data linespoints\n",
		title, xlabel, ylabel);
	return true;
}

static void plot_end(struct plot *p, FILE *page)
{
	fclose(p->script);
	if (p->series) {
		fputs("<figure>\n", page);
		if (plot_run(p->text, p->len, page))
			fputs("<p>(no plot: gnuplot could not be run)</p>", page);
		fputs("</figure>\n", page);
	}
	free(p->text);
}

/* Do the works of this result lie on the line: same kind, everything equal but the axis? */
static bool on_axis(
	const struct bench_result *r, const char *work, bool by_depth, uint32_t fixed, bool net)
{
	if (r->contender->net != net || strcmp(r->work.work, work) ||
		r->work.port == BENCH_PORT_TAP)
		return false;
	return by_depth ? r->work.size == fixed : r->work.depth == fixed;
}

struct point {
	double x, y;
};

static int point_compare(const void *a, const void *b)
{
	double x = ((const struct point *)a)->x, y = ((const struct point *)b)->x;

	return (x > y) - (x < y);
}

static unsigned points_of(const struct bench *b, const struct bench_contender *c, const char *work,
	bool by_depth, uint32_t fixed, struct point *pts, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->nresults && n < max; i++) {
		const struct bench_result *r = &b->results[i];
		struct bench_summary s;

		if (r->contender != c || !on_axis(r, work, by_depth, fixed, c->net))
			continue;
		bench_summarize(r, &s);
		if (!s.runs || s.per_s <= 0)
			continue;
		pts[n].x = by_depth ? r->work.depth : r->work.size;
		pts[n++].y = by_depth || c->net ? s.per_s : s.bytes_per_s / 1e6;
	}
	qsort(pts, n, sizeof(*pts), point_compare);
	return n;
}

static void plot_throughput(const struct bench *b, FILE *page, bool net, const char *work,
	bool by_depth, uint32_t fixed, const char *title)
{
	struct point pts[BENCH_WORKS_MAX];
	struct plot p;
	unsigned most = 0;

	for (unsigned c = 0; c < b->ncontenders; c++) {
		unsigned n = b->contenders[c].net == net
				     ? points_of(b, &b->contenders[c], work, by_depth, fixed, pts,
					       BENCH_WORKS_MAX)
				     : 0;

		most = n > most ? n : most;
	}
	if (most < 2 || !plot_begin(&p, title, by_depth ? "queue depth" : "size in bytes",
				by_depth || net ? (net ? "frames/s" : "requests/s") : "MB/s"))
		return;
	fprintf(p.script, "set logscale x 2\nset logscale y\nset format y '%%.0s%%c'\n");
	for (unsigned c = 0; c < b->ncontenders; c++) {
		unsigned n = b->contenders[c].net == net
				     ? points_of(b, &b->contenders[c], work, by_depth, fixed, pts,
					       BENCH_WORKS_MAX)
				     : 0;

		if (!n)
			continue;
		fprintf(p.script, "$d%u << EOD\n", c);
		for (unsigned i = 0; i < n; i++)
			fprintf(p.script, "%g %g\n", pts[i].x, pts[i].y);
		fprintf(p.script, "EOD\n");
	}
	for (unsigned c = 0; c < b->ncontenders; c++) {
		if (b->contenders[c].net != net || !points_of(b, &b->contenders[c], work, by_depth,
							   fixed, pts, BENCH_WORKS_MAX))
			continue;
		fprintf(p.script, "%s $d%u title '%s' lw 2", p.series++ ? "," : "plot", c,
			b->contenders[c].label);
	}
	fputc('\n', p.script);
	plot_end(&p, page);
}

static void plot_latency(const struct bench *b, FILE *page, const struct bench_work *w, bool net)
{
	struct bench_bucket *buckets = calloc(PLOT_BUCKETS, sizeof(*buckets));
	char name[64], title[128];
	struct plot p;

	bench_work_name(w, name, sizeof(name));
	snprintf(title, sizeof(title), "Latency distribution: %s", name);
	if (!buckets || !plot_begin(&p, title, "latency in microseconds",
				"share of requests at most this late")) {
		free(buckets);
		return;
	}
	fprintf(p.script, "set logscale x 10\nset yrange [0:1.02]\nset style data steps\n");
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < b->nresults; i++) {
			const struct bench_result *r = &b->results[i];
			uint64_t total = 0, sum = 0;
			unsigned n;

			if (r->contender->net != net || !bench_work_same(&r->work, w))
				continue;
			n = bench_histogram_merge(r, buckets, PLOT_BUCKETS);
			for (unsigned k = 0; k < n; k++)
				total += buckets[k].count;
			if (!total)
				continue;
			if (pass) {
				fprintf(p.script, "%s $h%u title '%s' lw 2",
					p.series++ ? "," : "plot", i, r->contender->label);
				continue;
			}
			fprintf(p.script, "$h%u << EOD\n", i);
			for (unsigned k = 0; k < n; k++) {
				sum += buckets[k].count;
				fprintf(p.script, "%g %g\n", (double)buckets[k].ns / 1e3,
					(double)sum / (double)total);
			}
			fprintf(p.script, "EOD\n");
		}
	}
	fputc('\n', p.script);
	plot_end(&p, page);
	free(buckets);
}

static void plot_switches(const struct bench *b, FILE *page, const struct bench_work *w, bool net)
{
	char name[64], title[128];
	struct plot p;

	bench_work_name(w, name, sizeof(name));
	snprintf(title, sizeof(title), "World switches per request: %s", name);
	if (!plot_begin(&p, title, "", "per request (log scale; 0 is drawn at 0.00001)"))
		return;
	fprintf(p.script,
		"set style data histograms\nset style histogram cluster gap 1\nset style fill "
		"solid 0.8\n"
		"set logscale y\nset yrange [0.00001:*]\nset xtics rotate by -20\n$s << EOD\n");
	for (unsigned i = 0; i < b->nresults; i++) {
		const struct bench_result *r = &b->results[i];
		struct bench_summary s;

		if (r->contender->net != net || !bench_work_same(&r->work, w))
			continue;
		bench_summarize(r, &s);
		if (!s.runs)
			continue;
		fprintf(p.script, "\"%s\" %g %g %g\n", r->contender->label,
			s.exits > 1e-5 ? s.exits : 1e-5, s.doorbells > 1e-5 ? s.doorbells : 1e-5,
			s.interrupts > 1e-5 ? s.interrupts : 1e-5);
		p.series++;
	}
	fprintf(p.script, "EOD\nplot $s using 2:xtic(1) title 'exits to user space', '' using 3 "
			  "title 'doorbells', "
			  "'' using 4 title 'interrupts'\n");
	plot_end(&p, page);
}

/* With each step by without it, work by work. */
static void plot_ablation(const struct bench *b, FILE *page, const char *label)
{
	char name[64];
	struct plot p;

	if (!plot_begin(&p, label, "", "rate with the step by without it"))
		return;
	fprintf(p.script,
		"set style fill solid 0.8\nset boxwidth 0.6\nset xtics rotate by -40\nset key off\n"
		"set arrow from graph 0,first 1 to graph 1,first 1 nohead\nset yrange [0:*]\n"
		"set errorbars 1\n$s << EOD\n");
	for (unsigned i = 0; i < b->nresults; i++) {
		const struct bench_result *r = &b->results[i], *whole = bench_ablation_whole(b, r);
		double median, least, most;

		if (!r->contender->change || !whole || strcmp(whole->contender->label, label) ||
			!bench_ablation_ratio(whole, r, &median, &least, &most))
			continue;
		bench_work_name(&r->work, name, sizeof(name));
		fprintf(p.script, "%u %g %g %g \"%s: %s\"\n", p.series++, median, least, most,
			r->contender->label, name);
	}
	fputs("EOD\nplot $s using 1:2:xtic(5) with boxes, '' using 1:2:3:4 with yerrorbars lc "
	      "black\n",
		p.script);
	plot_end(&p, page);
}

static void report_ablations(const struct bench *b, FILE *page)
{
	fputs("<h2>What each step buys</h2>\n", page);
	for (unsigned c = 0; c < b->ncontenders; c++)
		if (!b->contenders[c].change)
			plot_ablation(b, page, b->contenders[c].label);
}

static void report_table(const struct bench *b, FILE *page)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return;
	bench_table_print(b, f);
	fclose(f);
	fputs("<h2>Figures</h2>\n<pre>", page);
	html_text(page, text);
	fputs("</pre>\n", page);
	free(text);
}

static void report_plots(const struct bench *b, FILE *page)
{
	static const struct bench_work reads[] = {
		{.work = "randread", .size = 4096, .depth = 1, .queues = 1},
		{.work = "randread", .size = 4096, .depth = 32, .queues = 1}};
	static const struct bench_work echo = {
		.work = "echo", .size = 64, .depth = 1, .queues = 1, .port = BENCH_PORT_MEMORY};
	static const struct bench_work tx = {
		.work = "tx", .size = 64, .depth = 256, .queues = 1, .port = BENCH_PORT_MEMORY};

	fputs("<h2>Throughput</h2>\n", page);
	plot_throughput(
		b, page, false, "randread", true, 4096, "4 KiB random reads against queue depth");
	plot_throughput(
		b, page, false, "seqread", false, 32, "Sequential reads against size, depth 32");
	plot_throughput(
		b, page, false, "seqread", false, 8, "Sequential reads against size, depth 8");
	plot_throughput(b, page, true, "tx", false, 256, "Frames transmitted against size");
	plot_throughput(b, page, true, "echo", true, 64, "64 B frames echoed against depth");
	fputs("<h2>Latency</h2>\n", page);
	plot_latency(b, page, &reads[0], false);
	plot_latency(b, page, &reads[1], false);
	plot_latency(b, page, &echo, true);
	fputs("<h2>World switches</h2>\n", page);
	plot_switches(b, page, &reads[1], false);
	plot_switches(b, page, &tx, true);
	plot_switches(b, page, &echo, true);
}

int bench_report_write(const struct bench *b, const char *dir, char why[VMM_WHY_MAX])
{
	char path[4096];
	FILE *page;

	if (mkdir(dir, 0755) && errno != EEXIST) {
		snprintf(why, VMM_WHY_MAX, "--report %s: %s", dir, strerror(errno));
		return -errno;
	}
	snprintf(path, sizeof(path), "%s/index.html", dir);
	page = fopen(path, "we");
	if (!page) {
		snprintf(why, VMM_WHY_MAX, "--report %s: %s", dir, strerror(errno));
		return -errno;
	}
	fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>Sluice: "
	      "emulated against split</title>\n"
	      "<style>body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;padding:0 "
	      "1em;color:#222}"
	      "pre{overflow-x:auto;font-size:12px;line-height:1.35;background:#f6f6f6;padding:1em}"
	      "figure{margin:1em 0}svg{max-width:100%;height:auto}</style></head><body>\n"
	      "<h1>Sluice: emulated against split</h1>\n<p>The same guest, the same image and the "
	      "same ports; only the device model "
	      "differs. Medians over the runs; both axes of the throughput plots are "
	      "logarithmic.</p>\n",
		page);
	if (b->opts.ablate)
		report_ablations(b, page);
	else
		report_plots(b, page);
	report_table(b, page);
	fputs("</body></html>\n", page);
	if (fclose(page)) {
		snprintf(why, VMM_WHY_MAX, "--report %s: %s", dir, strerror(errno));
		return -EIO;
	}
	return 0;
}
