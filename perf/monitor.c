/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the monitor itself costs: from exec to the guest's first output, memory beyond the guest's,
 * and the CPU time of a guest that halts. Measured from outside, on `sluice run` as a user starts
 * it.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "perf/bench_priv.h"

#define IDLE_SETTLE_MS  300u
#define IDLE_MEASURE_MS 2000u
#define OUTPUT_WAIT_MS  10000

static const char *sluice_find(void)
{
	static const char *const places[] = {"sluice", "../../bin/sluice", "../sluice"};
	static char path[4096];
	char self[3072];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return NULL;
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", self, places[i]);
		if (!access(path, X_OK))
			return path;
	}
	return NULL;
}

static void sleep_ms(unsigned ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* utime + stime of a process, in nanoseconds. */
static uint64_t process_cpu_ns(pid_t pid)
{
	clockid_t clock;
	struct timespec ts;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Resident memory of all mappings but the guest's, in KiB. */
static uint64_t resident_kib(pid_t pid)
{
	char path[64], line[512];
	uint64_t sum = 0, v;
	bool guest = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *dash = strchr(line, '-'), *colon = strchr(line, ':');

		/* a mapping's first line begins with its addresses, a field's with its name */
		if (dash && (!colon || dash < colon) && line[0] >= '0' && line[0] <= 'f' &&
			(line[0] <= '9' || line[0] >= 'a'))
			guest = strstr(line, "/memfd:") != NULL;
		else if (!guest && sscanf(line, "Rss: %" SCNu64, &v) == 1)
			sum += v;
	}
	if (f)
		fclose(f);
	return sum;
}

static pid_t guest_start(const struct bench *b, const char *sluice, int *out_fd, uint64_t *began_ns)
{
	int fds[2];
	pid_t pid;

	if (pipe(fds))
		return -1;
	fflush(NULL);
	*began_ns = clock_now_ns();
	pid = fork();
	if (!pid) {
		dup2(fds[1], 1);
		close(fds[0]);
		close(fds[1]);
		if (freopen("/dev/null", "r", stdin) && freopen("/dev/null", "w", stderr))
			execl(sluice, "sluice", "run", "--kernel", b->opts.guest, "--cmdline",
				"job=idle,ms=60000", (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	*out_fd = fds[0];
	return pid;
}

static int monitor_once(
	const struct bench *b, const char *sluice, double *first_ms, double *resident, double *idle)
{
	struct pollfd p = {.events = POLLIN};
	uint64_t began, cpu, at;
	int status, err = 0;
	pid_t pid = guest_start(b, sluice, &p.fd, &began);
	char c;

	if (pid < 0)
		return -errno;
	if (poll(&p, 1, OUTPUT_WAIT_MS) == 1 && read(p.fd, &c, 1) == 1) {
		*first_ms = (double)(clock_now_ns() - began) / 1e6;
		sleep_ms(IDLE_SETTLE_MS);
		*resident = (double)resident_kib(pid);
		cpu = process_cpu_ns(pid);
		at = clock_now_ns();
		sleep_ms(idle ? IDLE_MEASURE_MS : 0);
		if (idle)
			*idle = (double)(process_cpu_ns(pid) - cpu) /
				(double)(clock_now_ns() - at) * 100;
	} else {
		err = -EIO;
	}
	kill(pid, SIGTERM);
	close(p.fd);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return err;
}

int bench_monitor(struct bench *b)
{
	const char *sluice = sluice_find();
	struct bench_monitor *m = &b->monitor;
	double first[5] = {0}, resident = 0, dummy = 0;

	if (!sluice)
		return -ENOENT;
	for (unsigned i = 0; i < 5; i++) {
		int err = monitor_once(b, sluice, &first[i], &resident, i ? NULL : &dummy);

		if (err)
			return err;
		if (!i)
			m->idle_cpu_percent = dummy;
		m->resident_kib = resident > m->resident_kib ? resident : m->resident_kib;
	}
	for (unsigned i = 1; i < 5; i++)
		for (unsigned k = i; k && first[k - 1] > first[k]; k--) {
			dummy = first[k];
			first[k] = first[k - 1];
			first[k - 1] = dummy;
		}
	m->first_output_ms = first[2];
	m->first_output_min_ms = first[0];
	m->first_output_max_ms = first[4];
	m->valid = true;
	return 0;
}
