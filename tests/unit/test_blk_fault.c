/* SPDX-License-Identifier: BSD-2-Clause */
/* Faults on purpose: the write cache and what a kill leaves of it, errors, delays, specifications.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/test_blk_random.h"

#define KIB         1024u
#define MIB         (1u << 20)
#define KILL_RUNS   24
#define KILL_COUNT  256u /* sectors of the image that is killed */
#define KILL_STABLE 128u /* the first of them are flushed with generation 1 */

/* ------------------------------------------------------------------ specifications */

static void spec_good(const char *text)
{
	char why[BLK_WHY_MAX] = "";

	CU_ASSERT(blk_fault_check(text, why) == 0);
	CU_ASSERT_STRING_EQUAL(why, "");
}

static void spec_bad(const char *text, const char *word)
{
	char why[BLK_WHY_MAX] = "";

	CU_ASSERT(blk_fault_check(text, why) == -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "fault"));
	if (!strstr(why, word))
		printf("'%s' gave '%s' ", text, why);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, word));
	CU_ASSERT_PTR_NULL(strchr(why, '\n'));
}

static void test_specifications(void)
{
	char many[300], *end = many;

	spec_good("cache");
	spec_good("cache:seed=7:size=64K:torn=4096");
	spec_good("lose-flush");
	spec_good("eio:0x100000+4096");
	spec_good("eio=1M+64K:eio=0+1");
	spec_good("cache:eio-every=3:enospc-after=0:delay-us=1000000");
	spec_bad("", "unknown");
	spec_bad("cache:", "unknown");
	spec_bad("chache", "chache");
	spec_bad("cache=1", "known are");
	spec_bad("seed=1", "does nothing");
	spec_bad("cache:seed", "expected a number");
	spec_bad("cache:seed=-1", "seed=-1");
	spec_bad("cache:seed=99999999999999999999", "seed=9");
	spec_bad("cache:size=1K", "64K to 256M");
	spec_bad("cache:size=9999999999999G", "64K to 256M");
	spec_bad("cache:torn=1024", "512 or 4096");
	spec_bad("eio=5", "OFFSET+LENGTH");
	spec_bad("eio=5+0", "OFFSET+LENGTH");
	spec_bad("eio=5+1x", "OFFSET+LENGTH");
	spec_bad("eio", "OFFSET+LENGTH");
	spec_bad("eio-every=0", "from 1");
	spec_bad("delay-us=1000001", "1 to 1000000");
	spec_bad("enospc-after=x", "number of bytes");
	for (int i = 0; i < 9; i++)
		end += sprintf(end, "%seio=1+1", i ? ":" : "");
	spec_bad(many, "at most 8");
	memset(many, 'x', sizeof(many) - 1);
	many[sizeof(many) - 1] = 0;
	spec_bad(many, "longer");
}

static void test_open_refuses(void)
{
	struct rig_config config = {.fault = "cache:size=1"};
	struct rig r = {.path = ""};

	CU_ASSERT(rig_open(&r, &config, MIB, 1) == -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.why, "size=1"));
}

/* ------------------------------------------------------------------ the cache */

static bool rig_open_engine(struct rig *r, struct rig_config *config, int i, size_t size, int byte)
{
	config->engine = rig_engines[i % RIG_ENGINES];
	return rig_open(r, config, size, byte) == 0;
}

static void test_reads_see_writes(void)
{
	char *buffer = malloc(64 * KIB);

	for (int i = 0; i < RIG_ENGINES; i++) {
		struct rig_config config = {.fault = "cache:seed=1"};
		struct blk_fault_counters n;
		struct blk_channel *other;
		struct rig r = {.path = ""}, second;

		if (!rig_open_engine(&r, &config, i, MIB, 4))
			continue;
		memset(buffer, 9, 8 * KIB);
		CU_ASSERT(rig_do(&r, BLK_WRITE, 512, buffer, 8 * KIB) == 0);
		CU_ASSERT(rig_do(&r, BLK_WRITE_ZEROES, 1024, NULL, 512) == 0);
		CU_ASSERT(blk_channel_open(&other, r.image, NULL, r.why) == 0);
		second = r;
		second.ch = other;
		CU_ASSERT(rig_do(&second, BLK_READ, 0, buffer, 64 * KIB) == 0);
		CU_ASSERT(rig_all(buffer, 4, 512));
		CU_ASSERT(rig_all(buffer + 512, 9, 512));
		CU_ASSERT(rig_all(buffer + 1024, 0, 512));
		CU_ASSERT(rig_all(buffer + 1536, 9, 8 * KIB - 1024));
		CU_ASSERT(rig_all(buffer + 8 * KIB + 512, 4, 56 * KIB - 512));
		blk_channel_close(other);
		blk_fault_counters_get(r.image, &n);
		CU_ASSERT(n.requests == 3 && n.cached == 17 && n.hits > 0 && n.errors == 0);
		rig_close(&r);
	}
	free(buffer);
}

/* Nobody above can tell that there is a cache, even a small one, until the plug is pulled. */
static void test_random(void)
{
	static const char *const specs[] = {"cache:size=256K:seed=1",
		"cache:size=64K:torn=4096:seed=2", "cache:delay-us=50:seed=3", "lose-flush",
		"eio=1G+1"};

	for (unsigned i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		struct rig_config config = {.fault = specs[i]};
		struct rig r = {.path = ""};

		if (!rig_open_engine(&r, &config, (int)i, RANDOM_SIZE, 3))
			continue;
		random_test(&r, 3, 1500, 77 + i);
		rig_close(&r);
	}
}

static void test_direct(void)
{
	struct rig_config config = {.fault = "cache:size=256K", .direct = BLK_DIRECT_ON};
	struct rig r = {.path = ""};

	if (rig_open(&r, &config, RANDOM_SIZE, 3)) {
		unit_skip("no O_DIRECT here");
		return;
	}
	CU_ASSERT(r.info.direct);
	random_test(&r, 3, 300, 99);
	rig_close(&r);
}

/* Threads with channels of their own on one image, each with a part of it. */
#define THREADS       3u
#define THREAD_PART   (128u * KIB)
#define THREAD_ROUNDS 150

struct thread_part {
	pthread_t thread;
	struct rig rig;
	unsigned nth, bad;
};

static void *thread_main(void *arg)
{
	struct thread_part *part = arg;
	uint64_t base = (uint64_t)part->nth * THREAD_PART;
	unsigned char data[8 * KIB], got[8 * KIB];

	if (blk_channel_open(&part->rig.ch, part->rig.image, NULL, part->rig.why)) {
		part->bad++;
		return NULL;
	}
	for (unsigned i = 0; i < THREAD_ROUNDS; i++) {
		uint64_t at = base + i * 7919ull * BLK_SECTOR % (THREAD_PART - sizeof(data));

		memset(data, (int)(i + part->nth), sizeof(data));
		part->bad += rig_do(&part->rig, BLK_WRITE, at, data, sizeof(data)) != 0;
		part->bad += rig_do(&part->rig, BLK_READ, at, got, sizeof(got)) != 0;
		part->bad += memcmp(data, got, sizeof(data)) != 0;
		if (i % 16 == part->nth)
			part->bad += rig_do(&part->rig, BLK_FLUSH, 0, NULL, 0) != 0;
	}
	blk_channel_close(part->rig.ch);
	return NULL;
}

static void test_threads(void)
{
	struct rig_config config = {.fault = "cache:size=128K:seed=6"};
	struct thread_part parts[THREADS] = {{.nth = 0}};
	struct rig r = {.path = ""};

	CU_ASSERT_FATAL(rig_open(&r, &config, THREADS * THREAD_PART, 0) == 0);
	for (unsigned i = 0; i < THREADS; i++) {
		parts[i].nth = i;
		parts[i].rig = r;
		CU_ASSERT_FATAL(
			pthread_create(&parts[i].thread, NULL, thread_main, &parts[i]) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		CU_ASSERT(blk_sync(r.image) == 0);
		pthread_join(parts[i].thread, NULL);
		CU_ASSERT(parts[i].bad == 0);
	}
	rig_close(&r);
}

/* An error while writing back is the flush's; the data stays until it can be written. */
static int late_error_body(void *arg)
{
	struct rig_config config = {.fault = "cache:seed=5", .engine = BLK_ENGINE_THREADS};
	struct rlimit limit, small;
	struct rig r = {.path = ""};
	char buffer[16 * KIB];
	int bad = 0;

	(void)arg;
	if (rig_open(&r, &config, MIB, 1))
		return 2;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &limit);
	small = limit;
	small.rlim_cur = 64 * KIB;
	setrlimit(RLIMIT_FSIZE, &small);
	memset(buffer, 7, sizeof(buffer));
	bad += rig_do(&r, BLK_WRITE, 512 * KIB, buffer, sizeof(buffer)) != 0;
	bad += rig_do(&r, BLK_FLUSH, 0, NULL, 0) != -EFBIG;
	bad += blk_sync(r.image) != -EFBIG;
	memset(buffer, 0, sizeof(buffer));
	bad += rig_do(&r, BLK_READ, 512 * KIB, buffer, sizeof(buffer)) != 0;
	bad += !rig_all(buffer, 7, sizeof(buffer));
	setrlimit(RLIMIT_FSIZE, &limit);
	bad += rig_do(&r, BLK_FLUSH, 0, NULL, 0) != 0;
	bad += blk_sync(r.image) != 0;
	rig_close(&r);
	return bad;
}

static void test_late_error(void)
{
	CU_ASSERT(rig_child(late_error_body, NULL) == 0);
}

/* ------------------------------------------------------------------ pulling the plug */

struct kill_run {
	char path[128], spec[64];
	enum blk_engine engine;
	unsigned step; /* sectors written by one request */
	int tell;
	unsigned char file[KILL_COUNT * BLK_SECTOR];
	unsigned lost, kept, reordered, torn, wrong, unflushed_old, unflushed_new;
};

static int kill_write(struct rig *r, unsigned first, unsigned end, unsigned step, int generation)
{
	unsigned char data[8 * BLK_SECTOR];
	int bad = 0;

	memset(data, generation, sizeof(data));
	for (unsigned at = first; at < end; at += step)
		bad += rig_do(r, BLK_WRITE, (uint64_t)at * BLK_SECTOR, data, step * BLK_SECTOR) !=
		       0;
	return bad;
}

/* Generation 1 to the stable part, a flush, generation 2 to everything, in order; then killed. */
static void kill_child(const struct kill_run *k)
{
	struct rig_config config = {.fault = k->spec, .engine = k->engine};
	struct rig r = {.path = ""};
	int bad = rig_open_path(&r, &config, k->path, -1) != 0;
	char byte;

	if (!bad)
		bad = kill_write(&r, 0, KILL_STABLE, k->step, 1) +
		      (rig_do(&r, BLK_FLUSH, 0, NULL, 0) != 0) +
		      kill_write(&r, 0, KILL_COUNT, k->step, 2);
	byte = (char)bad;
	if (write(k->tell, &byte, 1) == 1)
		for (;;)
			pause();
	_exit(1);
}

static void kill_look(struct kill_run *k)
{
	bool old_before = false, reordered = false;
	int fd = open(k->path, O_RDONLY | O_CLOEXEC);

	CU_ASSERT_FATAL(fd >= 0 && read(fd, k->file, sizeof(k->file)) == (ssize_t)sizeof(k->file));
	close(fd);
	for (unsigned i = 0; i < KILL_COUNT; i++) {
		const unsigned char *sector = k->file + i * BLK_SECTOR;
		int old = i < KILL_STABLE ? 1 : 0;

		if (!rig_all(sector, sector[0], BLK_SECTOR) || sector[0] > 2 ||
			(!old && sector[0] == 1))
			k->wrong++;
		if (i < KILL_STABLE)
			*(sector[0] ? &k->kept : &k->lost) += 1;
		if (sector[0] == 2)
			k->unflushed_new++;
		else
			k->unflushed_old++;
		reordered |= sector[0] == 2 && old_before;
		old_before |= sector[0] != 2;
		k->torn += i % 8 && sector[0] != sector[-(int)BLK_SECTOR];
	}
	k->reordered += reordered;
}

static void kill_once(struct kill_run *k)
{
	int pipe_fd[2], status = 0;
	char byte = 1;
	pid_t pid;

	rig_path(k->path, "killed");
	rig_file(k->path, KILL_COUNT * BLK_SECTOR, 0);
	CU_ASSERT_FATAL(pipe2(pipe_fd, O_CLOEXEC) == 0);
	k->tell = pipe_fd[1];
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		alarm(60);
		kill_child(k);
	}
	close(pipe_fd[1]);
	CU_ASSERT(pid > 0 && read(pipe_fd[0], &byte, 1) == 1 && byte == 0);
	kill(pid, SIGKILL);
	CU_ASSERT(waitpid(pid, &status, 0) == pid);
	CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(pipe_fd[0]);
	kill_look(k);
	unlink(k->path);
}

static struct kill_run *kill_many(const char *spec, unsigned step, int runs)
{
	struct kill_run *k = calloc(1, sizeof(*k));

	k->step = step;
	for (int i = 0; i < runs; i++) {
		snprintf(k->spec, sizeof(k->spec), "%s:seed=%d", spec, i);
		k->engine = rig_engines[i % RIG_ENGINES];
		/* Where a host forbids one of them, the others do. */
		if (k->engine != BLK_ENGINE_THREADS && i >= RIG_ENGINES)
			k->engine = BLK_ENGINE_AUTO;
		kill_once(k);
	}
	return k;
}

static void test_plug(void)
{
	struct kill_run *k = kill_many("cache", 1, KILL_RUNS);

	CU_ASSERT(k->wrong == 0);
	CU_ASSERT(k->lost == 0);
	CU_ASSERT(k->kept == KILL_RUNS * KILL_STABLE);
	CU_ASSERT(k->unflushed_old > 0 && k->unflushed_new > 0);
	CU_ASSERT(k->reordered > KILL_RUNS / 2);
	free(k);
}

static void test_plug_torn(void)
{
	struct kill_run *k = kill_many("cache", 8, 6);

	CU_ASSERT(k->wrong == 0 && k->lost == 0);
	CU_ASSERT(k->torn > 0);
	free(k);
	k = kill_many("cache:torn=4096", 8, 6);
	CU_ASSERT(k->wrong == 0 && k->lost == 0);
	CU_ASSERT(k->unflushed_old > 0 && k->unflushed_new > 0);
	CU_ASSERT(k->torn == 0);
	free(k);
}

static void test_lose_flush(void)
{
	struct kill_run *k = kill_many("lose-flush", 1, 6);

	CU_ASSERT(k->lost > 0);
	CU_ASSERT(k->wrong == 0);
	free(k);
}

/* ------------------------------------------------------------------ errors and delays */

static void test_eio(void)
{
	char *buffer = calloc(1, 64 * KIB);

	for (int i = 0; i < 2 * RIG_ENGINES; i++) {
		struct rig_config config = {
			.fault = i % 2 ? "eio:64K+4096" : "cache:eio=64K+4K:eio=0xff000+512"};
		struct blk_fault_counters n;
		struct rig r = {.path = ""};

		if (!rig_open_engine(&r, &config, i / 2, MIB, 4))
			continue;
		CU_ASSERT(rig_do(&r, BLK_READ, 0, buffer, 64 * KIB) == 0);
		CU_ASSERT(rig_do(&r, BLK_READ, 68 * KIB, buffer, 64 * KIB) == 0);
		CU_ASSERT(rig_do(&r, BLK_READ, 512, buffer, 64 * KIB) == -EIO);
		CU_ASSERT(rig_do(&r, BLK_WRITE, 67 * KIB, buffer, KIB) == -EIO);
		CU_ASSERT(rig_do(&r, BLK_WRITE_ZEROES, 65 * KIB, NULL, 512) == -EIO);
		CU_ASSERT(rig_do(&r, BLK_FLUSH, 0, NULL, 0) == 0);
		blk_fault_counters_get(r.image, &n);
		CU_ASSERT(n.errors == 3 && n.requests == 6);
		CU_ASSERT(rig_do(&r, BLK_READ, MIB, buffer, 512) == -EINVAL);
		rig_close(&r);
	}
	free(buffer);
}

static void test_eio_every(void)
{
	struct rig_config config = {.fault = "eio-every=3"};
	struct rig r = {.path = ""};
	char buffer[512];

	CU_ASSERT_FATAL(rig_open(&r, &config, MIB, 4) == 0);
	for (int i = 1; i <= 9; i++) {
		CU_ASSERT(rig_do(&r, BLK_READ, 0, buffer, 512) == (i % 3 ? 0 : -EIO));
		CU_ASSERT(rig_do(&r, BLK_FLUSH, 0, NULL, 0) == 0);
	}
	rig_close(&r);
}

static void test_enospc(void)
{
	struct rig_config config = {.fault = "cache:enospc-after=10K"};
	struct rig r = {.path = ""};
	char buffer[4 * KIB];

	memset(buffer, 5, sizeof(buffer));
	CU_ASSERT_FATAL(rig_open(&r, &config, MIB, 4) == 0);
	CU_ASSERT(rig_do(&r, BLK_WRITE, 0, buffer, 4 * KIB) == 0);
	CU_ASSERT(rig_do(&r, BLK_WRITE_ZEROES, 8 * KIB, NULL, 4 * KIB) == 0);
	CU_ASSERT(rig_do(&r, BLK_WRITE, 4 * KIB, buffer, 4 * KIB) == -ENOSPC);
	CU_ASSERT(rig_do(&r, BLK_WRITE, 4 * KIB, buffer, 2 * KIB) == 0);
	CU_ASSERT(rig_do(&r, BLK_WRITE_ZEROES, 4 * KIB, NULL, 512) == -ENOSPC);
	CU_ASSERT(rig_do(&r, BLK_FLUSH, 0, NULL, 0) == 0);
	CU_ASSERT(rig_do(&r, BLK_READ, 4 * KIB, buffer, 4 * KIB) == 0);
	CU_ASSERT(rig_all(buffer, 5, 2 * KIB) && rig_all(buffer + 2 * KIB, 4, 2 * KIB));
	rig_close(&r);
}

static void test_delay(void)
{
	struct rig_config config = {.fault = "delay-us=20000"};
	struct timespec from, to;
	struct rig r = {.path = ""};
	char buffer[512];

	CU_ASSERT_FATAL(rig_open(&r, &config, MIB, 4) == 0);
	clock_gettime(CLOCK_MONOTONIC, &from);
	CU_ASSERT(rig_do(&r, BLK_READ, 0, buffer, 512) == 0);
	clock_gettime(CLOCK_MONOTONIC, &to);
	/* Never early; how late is the host's affair. */
	CU_ASSERT((to.tv_sec - from.tv_sec) * 1000000000l + to.tv_nsec - from.tv_nsec >= 20000000l);
	CU_ASSERT(rig_all(buffer, 4, 512));
	rig_close(&r);
}

static void test_readonly(void)
{
	struct rig_config config = {.fault = "cache", .readonly = true};
	struct rig r = {.path = ""};
	char buffer[512];

	CU_ASSERT_FATAL(rig_open(&r, &config, MIB, 4) == 0);
	CU_ASSERT(rig_do(&r, BLK_READ, 0, buffer, 512) == 0 && rig_all(buffer, 4, 512));
	CU_ASSERT(rig_do(&r, BLK_WRITE, 0, buffer, 512) == -EROFS);
	CU_ASSERT(rig_do(&r, BLK_FLUSH, 0, NULL, 0) == 0);
	CU_ASSERT(blk_sync(r.image) == 0);
	rig_close(&r);
}

static const struct unit_case cases[] = {
	{"specifications", test_specifications},
	{"a bad specification does not open", test_open_refuses},
	{"reads see what is cached", test_reads_see_writes},
	{"nobody above can tell", test_random},
	{"over direct I/O", test_direct},
	{"several threads", test_threads},
	{"an error while writing back", test_late_error},
	{"pulling the plug", test_plug},
	{"pulling the plug tears", test_plug_torn},
	{"a lost flush is noticed", test_lose_flush},
	{"EIO in a range", test_eio},
	{"EIO every third time", test_eio_every},
	{"ENOSPC", test_enospc},
	{"delay", test_delay},
	{"read-only", test_readonly},
};

UNIT_MAIN("blk_fault", cases)
