/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One boot of the benchmark guest in a child process. The guest marks the measured period of each
 * job by a write to BENCH_MARK_PORT; the difference between the counters at the two marks is what
 * the job cost the host. The guest's own figures come as lines on its console.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "perf/bench_priv.h"

#define RUN_LINE_MAX    4096u
#define RUN_CMDLINE_MAX 8192u
#define RUN_WARM_MS     50u
/* How long the guest polls before it asks for an interrupt and halts: longer than a disk takes. */
#define RUN_GUEST_POLL_US 1000u

struct snapshot {
	uint64_t ns;
	uint64_t cpu_ns;
	uint64_t good, bad;
	struct machine_counters c;
};

struct run {
	const struct bench_work *works;
	unsigned nworks;
	struct bench_sample *samples;
	struct bench_peer *peer;
	struct machine *machine;
	struct snapshot begin[BENCH_WORKS_MAX], end[BENCH_WORKS_MAX];
	bool began[BENCH_WORKS_MAX], ended[BENCH_WORKS_MAX];
	char line[RUN_LINE_MAX];
	size_t line_len;
	bool done;
};

static uint64_t timeval_ns(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * 1000000000u + (uint64_t)tv->tv_usec * 1000u;
}

static void snapshot_take(struct run *r, struct snapshot *s)
{
	struct rusage u;

	s->ns = clock_now_ns();
	getrusage(RUSAGE_SELF, &u);
	s->cpu_ns = timeval_ns(&u.ru_utime) + timeval_ns(&u.ru_stime);
	if (r->peer)
		bench_peer_counts(r->peer, &s->good, &s->bad);
	machine_counters_get(r->machine, &s->c);
}

/* On the vCPU thread, within the exit that the guest's write caused. */
static void mark_write(void *ctx, uint16_t port, uint32_t value, unsigned size)
{
	struct run *r = ctx;
	uint32_t job = value >> 8;

	(void)port;
	(void)size;
	if (job >= r->nworks)
		return;
	if ((value & 0xff) == BENCH_MARK_BEGIN && !r->began[job]) {
		r->began[job] = true;
		snapshot_take(r, &r->begin[job]);
	} else if ((value & 0xff) == BENCH_MARK_END && !r->ended[job]) {
		r->ended[job] = true;
		snapshot_take(r, &r->end[job]);
	}
}

static bool field_get(const char *line, const char *key, uint64_t *out)
{
	size_t n = strlen(key);

	for (const char *p = line; (p = strstr(p, key)); p += n) {
		if ((p == line || p[-1] == ' ') && p[n] == '=') {
			*out = strtoull(p + n + 1, NULL, 10);
			return true;
		}
	}
	return false;
}

static void line_result(struct run *r, const char *line)
{
	struct bench_sample *s;
	uint64_t job;

	if (!field_get(line, "job", &job) || job >= r->nworks)
		return;
	s = &r->samples[job];
	if (!field_get(line, "requests", &s->requests) || !field_get(line, "bytes", &s->bytes) ||
		!field_get(line, "ns", &s->ns))
		return;
	field_get(line, "errors", &s->errors);
	field_get(line, "verified", &s->verified);
	field_get(line, "samples", &s->latency_samples);
	field_get(line, "p50_ns", &s->p50_ns);
	field_get(line, "p99_ns", &s->p99_ns);
	field_get(line, "p999_ns", &s->p999_ns);
	s->valid = true;
}

static void line_histogram(struct run *r, const char *line)
{
	struct bench_sample *s;
	const char *p;
	char *rest;
	uint64_t job;

	if (!field_get(line, "job", &job) || job >= r->nworks)
		return;
	s = &r->samples[job];
	p = strstr(line, "job=");
	p = p ? strchr(p, ' ') : NULL;
	for (; p && s->nbuckets < BENCH_BUCKETS_MAX; p = strchr(rest, ' ')) {
		uint64_t ns = strtoull(p + 1, &rest, 10);

		if (*rest != ':')
			break;
		s->buckets[s->nbuckets].ns = ns;
		s->buckets[s->nbuckets++].count = strtoull(rest + 1, &rest, 10);
	}
}

static void line_error(struct run *r, const char *line)
{
	const char *why;
	uint64_t job;

	if (!field_get(line, "job", &job) || job >= r->nworks)
		return;
	why = strchr(strstr(line, "job="), ' ');
	snprintf(r->samples[job].note, BENCH_NOTE_MAX, "%s",
		why ? why + 1 : "the guest reported an error");
}

static void line_take(struct run *r)
{
	const char *line = r->line;

	r->line[r->line_len] = '\0';
	if (!strncmp(line, "SLUICE-RESULT ", 14))
		line_result(r, line + 14);
	else if (!strncmp(line, "SLUICE-HIST ", 12))
		line_histogram(r, line + 12);
	else if (!strncmp(line, "SLUICE-ERROR ", 13))
		line_error(r, line + 13);
	else if (!strncmp(line, "SLUICE-DONE", 11))
		r->done = true;
	if (getenv("SLUICE_BENCH_TRACE"))
		fprintf(stderr, "guest: %s\n", line);
	r->line_len = 0;
}

static void console_take(void *ctx, const uint8_t *bytes, size_t n)
{
	struct run *r = ctx;

	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\n')
			line_take(r);
		else if (bytes[i] != '\r' && r->line_len < RUN_LINE_MAX - 1)
			r->line[r->line_len++] = (char)bytes[i];
	}
}

static int cmdline_make(const struct bench *b, const struct bench_contender *c,
	const struct bench_work *works, unsigned nworks, char *out, size_t size)
{
	size_t at = (size_t)snprintf(out, size, "poll_us=%u ", RUN_GUEST_POLL_US);

	for (unsigned i = 0; i < nworks; i++) {
		const struct bench_work *w = &works[i];
		int n = snprintf(out + at, size - at,
			"job=%s,dev=%s,work=%s,size=%u,depth=%u,queues=%u,transfer=%s,ms=%u,warm_"
			"ms=%u ",
			c->net ? "net" : "blk", c->device, w->work, w->size, w->depth, w->queues,
			c->transfer, b->opts.run_ms, RUN_WARM_MS);

		if (n < 0 || (size_t)n >= size - at)
			return -E2BIG;
		at += (size_t)n;
	}
	return 0;
}

static void config_disk(const struct bench *b, const struct bench_contender *c,
	const struct bench_work *w, struct machine_config *cfg)
{
	struct disk_config *d = &cfg->disks[0];

	cfg->ndisks = 1;
	d->path = b->opts.image ? b->opts.image : b->image_path;
	d->model = c->device;
	blk_engine_parse(b->opts.engine ? b->opts.engine : "auto", &d->engine);
	if (b->opts.direct && !strcmp(b->opts.direct, "on"))
		d->direct = BLK_DIRECT_ON;
	if (b->opts.direct && !strcmp(b->opts.direct, "off"))
		d->direct = BLK_DIRECT_OFF;
	d->packed = !strcmp(c->ring, "packed");
	d->queues = c->split ? w->queues : 0;
}

static int config_net(const struct bench_contender *c, const struct bench_work *w, struct run *r,
	struct machine_config *cfg, char why[VMM_WHY_MAX])
{
	struct net_config *n = &cfg->nets[0];
	int err = bench_peer_create(&r->peer, w, w->queues, why);

	if (err)
		return err;
	cfg->nnets = 1;
	n->port = bench_peer_port(r->peer);
	n->model = c->device;
	n->packed = !strcmp(c->ring, "packed");
	n->queues = c->split ? w->queues : 0;
	return 0;
}

static void sample_finish(struct run *r, unsigned i, const struct blk_info *info)
{
	struct bench_sample *s = &r->samples[i];
	const struct snapshot *a = &r->begin[i], *z = &r->end[i];
	bool sink = !strcmp(r->works[i].work, "tx");

	if (info) {
		snprintf(s->engine, sizeof(s->engine), "%s", blk_engine_name(info->engine));
		s->direct = info->direct;
	}
	if (!s->valid || !r->began[i] || !r->ended[i]) {
		s->valid = false;
		if (!s->note[0])
			snprintf(s->note, sizeof(s->note), "the guest gave no result");
		return;
	}
	s->ns = z->ns - a->ns;
	s->cpu_ns = z->cpu_ns - a->cpu_ns;
	/* the exit of the end mark itself is in the difference */
	s->exits = z->c.vcpu.exits - a->c.vcpu.exits - 1;
	s->doorbells = z->c.doorbells - a->c.doorbells;
	s->interrupts = z->c.interrupts - a->c.interrupts;
	s->system_calls = z->c.vcpu.system_calls - a->c.vcpu.system_calls + z->c.io.system_calls -
			  a->c.io.system_calls + z->c.device_system_calls -
			  a->c.device_system_calls;
	if (sink && r->peer) {
		s->errors += z->bad - a->bad;
		s->verified = z->good - a->good;
	}
	if (s->errors && !s->note[0])
		snprintf(s->note, sizeof(s->note), "%" PRIu64 " errors", s->errors);
}

/* In the child: everything it holds goes with the process. */
static int run_child(const struct bench *b, const struct bench_contender *c,
	const struct bench_work *works, unsigned nworks, struct bench_sample *samples,
	char why[VMM_WHY_MAX])
{
	static struct run r;
	struct port_hook hook = {
		.port = BENCH_MARK_PORT, .count = 4, .write = mark_write, .ctx = &r};
	struct machine_config cfg;
	struct device_report rep = {0};
	enum machine_end end;
	char *cmdline = malloc(RUN_CMDLINE_MAX);
	int err;

	r.works = works;
	r.nworks = nworks;
	r.samples = samples;
	machine_config_init(&cfg);
	err = cmdline ? cmdline_make(b, c, works, nworks, cmdline, RUN_CMDLINE_MAX) : -ENOMEM;
	if (err) {
		snprintf(why, VMM_WHY_MAX, "too many works for one boot");
		goto out;
	}
	cfg.kernel = b->opts.guest;
	cfg.cmdline = cmdline;
	cfg.console_hook = console_take;
	cfg.console_ctx = &r;
	cfg.hooks = &hook;
	cfg.nhooks = 1;
	cfg.poll_us = b->opts.poll_us;
	cfg.poll_set = b->opts.poll_set;
	if (c->net)
		err = config_net(c, &works[0], &r, &cfg, why);
	else
		config_disk(b, c, &works[0], &cfg);
	if (err)
		goto out;
	if (c->change)
		c->change(&cfg);
	err = machine_create(&r.machine, &cfg, why);
	if (err)
		goto out;
	machine_device_report(r.machine, 0, &rep);
	err = machine_start(r.machine, why);
	if (err)
		goto out;
	/* Every job: warm-up, the measured period, verification of what was written. */
	end = machine_wait(r.machine, (int)(20000 + nworks * (b->opts.run_ms * 4 + 5000)));
	for (unsigned i = 0; i < nworks; i++)
		sample_finish(&r, i, c->net ? NULL : &rep.blk);
	if (end != MACHINE_POWEROFF || !r.done) {
		const char *failure = end == MACHINE_FAILED ? machine_failure(r.machine) : "";

		snprintf(why, VMM_WHY_MAX, "%s: the guest did not finish (%s%s%s)", c->label,
			machine_end_name(end), failure && *failure ? ": " : "",
			failure ? failure : "");
		err = -EIO;
	}
	machine_destroy(r.machine);
out:
	if (r.peer)
		bench_peer_destroy(r.peer);
	free(cmdline);
	return err;
}

static bool read_all(int fd, void *to, size_t n)
{
	for (char *p = to; n;) {
		ssize_t got = read(fd, p, n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

static bool write_all(int fd, const void *from, size_t n)
{
	for (const char *p = from; n;) {
		ssize_t put = write(fd, p, n);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		p += put;
		n -= (size_t)put;
	}
	return true;
}

struct run_answer {
	int error;
	char why[VMM_WHY_MAX];
};

int bench_run(const struct bench *b, const struct bench_contender *contender,
	const struct bench_work *works, unsigned nworks, struct bench_sample *samples,
	char why[VMM_WHY_MAX])
{
	struct run_answer answer = {0};
	int fds[2], status;
	pid_t pid;
	bool whole;

	memset(samples, 0, nworks * sizeof(*samples));
	if (nworks > BENCH_WORKS_MAX)
		return -E2BIG;
	if (pipe(fds))
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		close(fds[0]);
		close(fds[1]);
		return -errno;
	}
	if (!pid) {
		close(fds[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		answer.error = run_child(b, contender, works, nworks, samples, answer.why);
		whole = write_all(fds[1], &answer, sizeof(answer)) &&
			write_all(fds[1], samples, nworks * sizeof(*samples));
		_exit(whole ? 0 : 1);
	}
	close(fds[1]);
	whole = read_all(fds[0], &answer, sizeof(answer)) &&
		read_all(fds[0], samples, nworks * sizeof(*samples));
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!whole) {
		memset(samples, 0, nworks * sizeof(*samples));
		snprintf(why, VMM_WHY_MAX, "%s: the run's process ended early (%s %d)",
			contender->label, WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		return -EIO;
	}
	snprintf(why, VMM_WHY_MAX, "%s", answer.why);
	return answer.error;
}
