/* SPDX-License-Identifier: BSD-2-Clause */
/* What a program on the host reaches on the same image: the line no guest can cross. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf/bench_priv.h"

#define FIO_OUTPUT_MAX (1u << 20)

static int spawn_read(char *const argv[], char *out, size_t size)
{
	size_t len = 0;
	int fds[2], status;
	pid_t pid;

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
		dup2(fds[1], 1);
		dup2(fds[1], 2);
		close(fds[0]);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(fds[1]);
	for (;;) {
		ssize_t n = read(fds[0], out + len, size - 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	out[len] = '\0';
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

int bench_fio_probe(void)
{
	char out[256];
	char *argv[] = {"fio", "--version", NULL};

	return spawn_read(argv, out, sizeof(out));
}

static double fio_iops(const char *json, const char *side)
{
	const char *start = strchr(json, '{');
	cJSON *root = start ? cJSON_Parse(start) : NULL;
	cJSON *jobs = cJSON_GetObjectItem(root, "jobs");
	cJSON *part = cJSON_GetObjectItem(cJSON_GetArrayItem(jobs, 0), side);
	cJSON *iops = cJSON_GetObjectItem(part, "iops");
	double value = cJSON_IsNumber(iops) ? iops->valuedouble : -1;

	cJSON_Delete(root);
	return value;
}

/* One run; its figure is added to out, whose median is of all so far. */
int bench_fio(const struct bench *b, const struct bench_work *work, struct bench_baseline *out)
{
	static double seen[16][BENCH_RUNS_MAX];
	bool direct = true, write = strstr(work->work, "write") != NULL;
	char file[128], bs[32], depth[32], runtime[32], rw[32], dio[32];
	char *text = malloc(FIO_OUTPUT_MAX);
	double iops, *v = seen[out - b->baselines];
	int err;

	if (!text)
		return -ENOMEM;
	for (unsigned i = 0; i < b->nresults; i++)
		if (!b->results[i].contender->net && b->results[i].nsamples &&
			b->results[i].samples[0].valid)
			direct = b->results[i].samples[0].direct;
	snprintf(
		file, sizeof(file), "--filename=%s", b->opts.image ? b->opts.image : b->image_path);
	snprintf(bs, sizeof(bs), "--bs=%u", work->size);
	snprintf(depth, sizeof(depth), "--iodepth=%u", work->depth);
	snprintf(runtime, sizeof(runtime), "--runtime=%ums",
		b->opts.run_ms < 500 ? 500 : b->opts.run_ms);
	snprintf(rw, sizeof(rw), "--rw=%s", !strcmp(work->work, "seqread") ? "read" : work->work);
	snprintf(dio, sizeof(dio), "--direct=%d", direct);
	char *argv[] = {"fio", "--name=baseline", "--ioengine=io_uring", "--output-format=json",
		"--time_based", "--allow_file_create=0", "--readonly", "--eta=never", file, bs,
		depth, runtime, rw, dio, NULL};
	snprintf(out->engine, sizeof(out->engine), "io_uring");
	err = write ? -EINVAL : spawn_read(argv, text, FIO_OUTPUT_MAX);
	iops = err ? -1 : fio_iops(text, "read");
	free(text);
	if (iops <= 0) {
		snprintf(out->note, sizeof(out->note), "fio did not run to its end");
		return -EIO;
	}
	if (out->runs < BENCH_RUNS_MAX)
		v[out->runs++] = iops;
	out->min_per_s = out->max_per_s = v[0];
	for (unsigned i = 1; i < out->runs; i++) {
		double x = v[i];
		unsigned k = i;

		for (; k && v[k - 1] > x; k--)
			v[k] = v[k - 1];
		v[k] = x;
	}
	out->min_per_s = v[0];
	out->max_per_s = v[out->runs - 1];
	out->per_s =
		out->runs % 2 ? v[out->runs / 2] : (v[out->runs / 2 - 1] + v[out->runs / 2]) / 2;
	return 0;
}
