/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice bench`: options, the order of measurement, progress, output. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/bench_priv.h"

enum { EXIT_HOST = 1, EXIT_USAGE = 2 };

static const char help[] =
	"usage: sluice bench [options]\n"
	"\n"
	"Boots a bare guest that drives the same disk image and the same network ports\n"
	"through emulated devices and through split devices, verifies every block and\n"
	"frame, and prints what each costs, side by side.\n"
	"\n"
	"  --quick            under a minute: fewer works, shorter runs\n"
	"  --full             every depth from 1 to 256 and every size up to 1 MiB\n"
	"  --ablate           what each step buys: one at a time taken away\n"
	"  --runs N           repeat everything N times, contenders taking turns\n"
	"                     (default 3; 1 to 16)\n"
	"  --time MS          measured milliseconds of each work in a run (default 300)\n"
	"  --only TEXT        only contenders or works whose name contains TEXT\n"
	"                     (ide, virtio-blk, packed, randread, echo, ...)\n"
	"  --image FILE       the disk image (made with --make-image; it is written to)\n"
	"                     default: a temporary one in $TMPDIR or /var/tmp\n"
	"  --image-size SIZE  of the temporary or made image (default 256M)\n"
	"  --make-image FILE  make an image in which sectors say where they are, and end\n"
	"  --engine NAME      io_uring, aio, threads or auto (default)\n"
	"  --direct WHICH     on, off or auto (default): bypass the host's page cache\n"
	"  --poll-us N        longest polling of an I/O thread before it sleeps\n"
	"  --no-tap           leave the works on a tap out (they need root)\n"
	"  --no-fio           leave the baseline by fio on the host out\n"
	"  --json FILE        the result as JSON too (- for standard output)\n"
	"  --report DIR       the result as an HTML page with plots too (DIR/index.html)\n"
	"  --guest FILE       the guest to boot (default: guest.elf beside this program)\n"
	"  --quiet            no progress\n"
	"  --help             this text\n"
	"\n"
	"Exit status: 0 all was measured without an error, 1 something failed or was\n"
	"wrong, 2 the command line.\n"
	"\n"
	"Example: sluice bench --quick --json result.json --report report\n";

enum {
	OPT_QUICK = 256,
	OPT_FULL,
	OPT_ABLATE,
	OPT_RUNS,
	OPT_TIME,
	OPT_ONLY,
	OPT_IMAGE,
	OPT_IMAGE_SIZE,
	OPT_MAKE_IMAGE,
	OPT_ENGINE,
	OPT_DIRECT,
	OPT_POLL_US,
	OPT_NO_TAP,
	OPT_NO_FIO,
	OPT_JSON,
	OPT_REPORT,
	OPT_GUEST,
	OPT_QUIET,
	OPT_HELP,
};

static const struct option options[] = {
	{"quick", no_argument, NULL, OPT_QUICK},
	{"full", no_argument, NULL, OPT_FULL},
	{"ablate", no_argument, NULL, OPT_ABLATE},
	{"runs", required_argument, NULL, OPT_RUNS},
	{"time", required_argument, NULL, OPT_TIME},
	{"only", required_argument, NULL, OPT_ONLY},
	{"image", required_argument, NULL, OPT_IMAGE},
	{"image-size", required_argument, NULL, OPT_IMAGE_SIZE},
	{"make-image", required_argument, NULL, OPT_MAKE_IMAGE},
	{"engine", required_argument, NULL, OPT_ENGINE},
	{"direct", required_argument, NULL, OPT_DIRECT},
	{"poll-us", required_argument, NULL, OPT_POLL_US},
	{"no-tap", no_argument, NULL, OPT_NO_TAP},
	{"no-fio", no_argument, NULL, OPT_NO_FIO},
	{"json", required_argument, NULL, OPT_JSON},
	{"report", required_argument, NULL, OPT_REPORT},
	{"guest", required_argument, NULL, OPT_GUEST},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

static void complain(const char *fmt, ...)
{
	va_list ap;

	fputs("sluice bench: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static bool number_parse(
	const char *option, const char *text, unsigned min, unsigned max, unsigned *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || v < min || v > max) {
		complain("%s %s: not a number from %u to %u", option, text, min, max);
		return false;
	}
	*out = (unsigned)v;
	return true;
}

static bool option_take(struct bench_options *o, int c, const char **make_image)
{
	enum blk_engine engine;

	switch (c) {
	case OPT_QUICK:
		o->quick = true;
		return true;
	case OPT_FULL:
		o->full = true;
		return true;
	case OPT_ABLATE:
		o->ablate = true;
		return true;
	case OPT_RUNS:
		return number_parse("--runs", optarg, 1, BENCH_RUNS_MAX, &o->runs);
	case OPT_TIME:
		return number_parse("--time", optarg, 10, 60000, &o->run_ms);
	case OPT_ONLY:
		o->only = optarg;
		return true;
	case OPT_IMAGE:
		o->image = optarg;
		return true;
	case OPT_IMAGE_SIZE:
		if (vmm_size_parse(optarg, &o->image_size) || o->image_size < 8 << 20) {
			complain("--image-size %s: not a size of at least 8M (as 256M or 1G)",
				optarg);
			return false;
		}
		return true;
	case OPT_MAKE_IMAGE:
		*make_image = optarg;
		return true;
	case OPT_ENGINE:
		o->engine = optarg;
		if (blk_engine_parse(optarg, &engine)) {
			complain("--engine %s: use io_uring, aio, threads or auto", optarg);
			return false;
		}
		return true;
	case OPT_DIRECT:
		o->direct = optarg;
		if (strcmp(optarg, "on") && strcmp(optarg, "off") && strcmp(optarg, "auto")) {
			complain("--direct %s: use on, off or auto", optarg);
			return false;
		}
		return true;
	case OPT_POLL_US:
		o->poll_set = true;
		return number_parse("--poll-us", optarg, 0, 1000000, &o->poll_us);
	case OPT_NO_TAP:
		o->no_tap = true;
		return true;
	case OPT_NO_FIO:
		o->no_fio = true;
		return true;
	case OPT_JSON:
		o->json = optarg;
		return true;
	case OPT_REPORT:
		o->report = optarg;
		return true;
	case OPT_GUEST:
		o->guest = optarg;
		return true;
	case OPT_QUIET:
		o->quiet = true;
		return true;
	default:
		return false;
	}
}

/* The guest lies beside this program when installed, and in perf/ below it in a build tree. */
static const char *guest_find(void)
{
	static const char *const places[] = {
		"guest.elf", "perf/guest.elf", "../perf/guest.elf", "../../perf/guest.elf"};
	static char path[4096];
	char self[3072];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return NULL;
	self[n] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", self, places[i]);
		if (!access(path, R_OK))
			return path;
	}
	return NULL;
}

static void leave_out(struct bench *b, const char *fmt, ...)
{
	va_list ap;

	if (b->nleft_out == 8)
		return;
	va_start(ap, fmt);
	vsnprintf(b->left_out[b->nleft_out++], BENCH_NOTE_MAX, fmt, ap);
	va_end(ap);
	if (!b->opts.quiet)
		complain("left out: %s", b->left_out[b->nleft_out - 1]);
}

static struct bench_result *result_of(
	struct bench *b, const struct bench_contender *c, const struct bench_work *w)
{
	struct bench_result *r;

	for (unsigned i = 0; i < b->nresults; i++)
		if (b->results[i].contender == c && bench_work_same(&b->results[i].work, w))
			return &b->results[i];
	if (b->nresults == BENCH_RESULTS_MAX)
		return NULL;
	r = &b->results[b->nresults];
	r->samples = calloc(BENCH_RUNS_MAX, sizeof(*r->samples));
	if (!r->samples)
		return NULL;
	r->contender = c;
	r->work = *w;
	b->nresults++;
	return r;
}

static bool wanted(
	const struct bench *b, const struct bench_contender *c, const struct bench_work *w)
{
	return !b->opts.only || strstr(c->label, b->opts.only) || strstr(c->device, b->opts.only) ||
	       strstr(w->work, b->opts.only);
}

/* Progress: one line that rewrites itself on a terminal, a line each elsewhere. */
static void progress(
	const struct bench *b, unsigned run, const struct bench_contender *c, enum bench_port port)
{
	static uint64_t began_ns;
	bool tty = isatty(2);

	if (b->opts.quiet)
		return;
	if (!began_ns)
		began_ns = clock_now_ns();
	fprintf(stderr, "%s[%3" PRIu64 " s] run %u of %u: %s%s%s", tty ? "\r\033[K" : "",
		(clock_now_ns() - began_ns) / 1000000000u, run + 1, b->opts.runs,
		c ? c->label : "fio on the host", port == BENCH_PORT_TAP ? ", tap" : "",
		tty ? "" : "\n");
	fflush(stderr);
}

/* One boot for disks; a boot for each work for networks, whose port differs. */
static int measure(
	struct bench *b, unsigned run, const struct bench_contender *c, enum bench_port port)
{
	static struct bench_sample samples[BENCH_WORKS_MAX];
	struct bench_work works[BENCH_WORKS_MAX];
	unsigned planned = bench_plan(&b->opts, c->net, port, c, works, BENCH_WORKS_MAX), n = 0,
		 step;
	char why[VMM_WHY_MAX] = "";
	int failed = 0;

	for (unsigned i = 0; i < planned; i++)
		if (wanted(b, c, &works[i]))
			works[n++] = works[i];
	if (!n)
		return 0;
	progress(b, run, c, port);
	step = c->net ? 1 : n;
	for (unsigned i = 0; i < n; i += step) {
		int err = bench_run(b, c, works + i, step, samples, why);

		for (unsigned k = 0; k < step; k++) {
			struct bench_result *r = result_of(b, c, &works[i + k]);

			if (!r || r->nsamples == BENCH_RUNS_MAX)
				continue;
			if (err && !samples[k].note[0])
				snprintf(samples[k].note, BENCH_NOTE_MAX, "%.150s", why);
			failed |= !samples[k].valid || samples[k].errors;
			r->samples[r->nsamples++] = samples[k];
		}
		if (err) {
			fprintf(stderr, "%s", isatty(2) && !b->opts.quiet ? "\r\033[K" : "");
			complain("%s", why);
			failed = 1;
		}
	}
	return failed;
}

static void baselines(struct bench *b, unsigned run)
{
	static const struct bench_work works[] = {
		{.work = "randread", .size = 4096, .depth = 32, .queues = 1},
		{.work = "randread", .size = 4096, .depth = 1, .queues = 1},
	};

	progress(b, run, NULL, BENCH_PORT_NONE);
	for (unsigned i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
		if (b->nbaselines <= i) {
			b->baselines[i].program = "fio";
			b->baselines[i].work = works[i];
			b->nbaselines = i + 1;
		}
		bench_fio(b, &works[i], &b->baselines[i]);
	}
}

static bool disks_wanted(const struct bench *b)
{
	struct bench_work works[BENCH_WORKS_MAX];

	for (unsigned c = 0; c < b->ncontenders; c++) {
		const struct bench_contender *k = &b->contenders[c];
		unsigned n = k->net ? 0
				    : bench_plan(&b->opts, false, BENCH_PORT_NONE, k, works,
					      BENCH_WORKS_MAX);

		for (unsigned i = 0; i < n; i++)
			if (wanted(b, k, &works[i]))
				return true;
	}
	return false;
}

static int measure_all(struct bench *b)
{
	char why[VMM_WHY_MAX];
	bool tap = !b->opts.no_tap && !b->opts.ablate, fio = !b->opts.no_fio && !b->opts.ablate,
	     disks = disks_wanted(b);
	int failed = 0;

	if (disks && bench_image_open(b, why)) {
		complain("%s", why);
		return EXIT_HOST;
	}
	if (tap && bench_tap_probe(why)) {
		leave_out(b, "works on a tap: %s", why);
		tap = false;
	}
	if (fio && disks && bench_fio_probe()) {
		leave_out(b, "the baseline on the host: fio is not installed");
		fio = false;
	}
	if (!b->opts.only && !b->opts.ablate && bench_monitor(b))
		leave_out(b, "start-up, memory and idling: `sluice run` could not be measured");
	for (unsigned run = 0; run < b->opts.runs; run++) {
		for (unsigned c = 0; c < b->ncontenders; c++) {
			const struct bench_contender *k = &b->contenders[c];

			failed |= measure(b, run, k, k->net ? BENCH_PORT_MEMORY : BENCH_PORT_NONE);
			/* beside the contender it is compared with, so that both meet the same disk
			 */
			if (fio && disks && k->split && !strcmp(k->ring, "split") && !k->net)
				baselines(b, run);
		}
		for (unsigned c = 0; tap && c < b->ncontenders; c++)
			if (b->contenders[c].net)
				failed |= measure(b, run, &b->contenders[c], BENCH_PORT_TAP);
	}
	if (!b->opts.quiet && isatty(2))
		fputs("\r\033[K", stderr);
	return failed ? EXIT_HOST : 0;
}

static int output(const struct bench *b)
{
	char why[VMM_WHY_MAX];
	int status = 0;

	if (!b->opts.json || strcmp(b->opts.json, "-"))
		bench_table_print(b, stdout);
	if (b->opts.json && bench_json_write(b, b->opts.json, why)) {
		complain("%s", why);
		status = EXIT_HOST;
	}
	if (b->opts.report && bench_report_write(b, b->opts.report, why)) {
		complain("%s", why);
		status = EXIT_HOST;
	} else if (b->opts.report && !b->opts.quiet) {
		fprintf(stderr, "report: %s/index.html\n", b->opts.report);
	}
	return status;
}

int main(int argc, char **argv)
{
	static struct bench b;
	const char *make_image = NULL;
	struct kvm_facts kvm;
	char why[VMM_WHY_MAX];
	int c, status;

	signal(SIGPIPE, SIG_IGN);
	b.image_fd = -1;
	b.opts.image_size = 256 << 20;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c == OPT_HELP) {
			fputs(help, stdout);
			return 0;
		}
		if (c == ':') {
			complain("%s: needs a value (sluice bench --help)", argv[optind - 1]);
			return EXIT_USAGE;
		}
		if (c == '?') {
			complain("%s: unknown option (sluice bench --help)", argv[optind - 1]);
			return EXIT_USAGE;
		}
		if (!option_take(&b.opts, c, &make_image))
			return EXIT_USAGE;
	}
	if (optind < argc) {
		complain("%s: unexpected argument (sluice bench --help)", argv[optind]);
		return EXIT_USAGE;
	}
	if (b.opts.quick && b.opts.full) {
		complain("--quick and --full: choose one");
		return EXIT_USAGE;
	}
	if (b.opts.ablate && (b.opts.quick || b.opts.full)) {
		complain("--ablate: has works of its own; leave --quick and --full out");
		return EXIT_USAGE;
	}
	b.contenders = b.opts.ablate ? bench_ablations : bench_contenders;
	b.ncontenders = b.opts.ablate ? bench_nablations : bench_ncontenders;
	if (make_image) {
		status = bench_image_make(make_image, b.opts.image_size, why);
		if (status)
			complain("--make-image %s", why);
		return status ? EXIT_HOST : 0;
	}
	b.opts.runs = b.opts.runs ? b.opts.runs : b.opts.quick ? 2 : 3;
	b.opts.run_ms = b.opts.run_ms ? b.opts.run_ms : b.opts.quick ? 200 : 300;
	if (!b.opts.guest)
		b.opts.guest = guest_find();
	if (!b.opts.guest) {
		complain("the benchmark guest (guest.elf) is not beside this program: run make, or "
			 "give --guest FILE");
		return EXIT_HOST;
	}
	if (kvm_facts_get(&kvm, why) || !kvm.present) {
		complain("%s", why);
		return EXIT_HOST;
	}
	status = measure_all(&b);
	if (b.nresults && output(&b))
		status = EXIT_HOST;
	return status;
}
