/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests through every engine, with and without O_DIRECT, each channel by itself. */
#include <linux/loop.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "tests/unit/test_blk_random.h"

#define MIB (1u << 20)

/* Runs a body for each engine, direct on and off. */
static void each_engine(void (*body)(struct rig *r), size_t size, int byte)
{
	for (int i = 0; i < 2 * RIG_ENGINES; i++) {
		struct rig_config config = {.engine = rig_engines[i / 2],
			.direct = i % 2 ? BLK_DIRECT_ON : BLK_DIRECT_OFF};
		struct rig r;
		int rc = rig_open(&r, &config, size, byte);

		/* A host may forbid an engine, a file system direct I/O. */
		if (rc == -EPERM || rc == -ENOSYS || (rc == -EINVAL && strstr(r.why, "direct="))) {
			unit_skip(r.why);
			unit_skipped--;
			continue;
		}
		CU_ASSERT_FATAL(rc == 0);
		CU_ASSERT(r.info.engine == config.engine);
		CU_ASSERT(r.info.direct == (config.direct == BLK_DIRECT_ON));
		body(&r);
		rig_close(&r);
	}
}

static void random_body(struct rig *r)
{
	struct blk_channel_counters counters;

	random_test(r, 0x5a, 1500, 0x1234567 + r->info.engine);
	blk_channel_counters_get(r->ch, &counters);
	CU_ASSERT(counters.requests == 1500);
	CU_ASSERT(counters.system_calls > 0);
	/* without O_DIRECT only a write to the first sector, where another format could begin */
	CU_ASSERT(r->info.direct ? counters.bounced > 0 : counters.bounced < 50);
}

static void test_random(void)
{
	each_engine(random_body, RANDOM_SIZE, 0x5a);
}

static void test_sqpoll(void)
{
	struct rig_config config = {
		.engine = BLK_ENGINE_URING, .direct = BLK_DIRECT_AUTO, .sqpoll = true};
	struct rig r;

	if (rig_open(&r, &config, RANDOM_SIZE, 1)) {
		unit_skip(r.why);
		return;
	}
	random_test(&r, 1, 1000, 99);
	rig_close(&r);
}

static void test_small_depth(void)
{
	struct rig_config config = {.direct = BLK_DIRECT_AUTO, .depth = 3};
	struct rig r;

	for (int i = 0; i < RIG_ENGINES; i++) {
		config.engine = rig_engines[i];
		if (rig_open(&r, &config, RANDOM_SIZE, 2))
			continue;
		random_test(&r, 2, 600, 77);
		rig_close(&r);
	}
}

static void bad_body(struct rig *r)
{
	static char buffer[4096] __attribute__((aligned(4096)));
	const uint64_t size = r->info.size;
	struct rig_request one;

	for (int op = BLK_READ; op <= BLK_WRITE_ZEROES; op++) {
		if (op == BLK_FLUSH)
			continue;
		CU_ASSERT(rig_do(r, op, size, buffer, 512) == -EINVAL);
		CU_ASSERT(rig_do(r, op, size - 512, buffer, 1024) == -EINVAL);
		CU_ASSERT(rig_do(r, op, 1, buffer, 512) == -EINVAL);
		CU_ASSERT(rig_do(r, op, 0, buffer, 511) == -EINVAL);
		CU_ASSERT(rig_do(r, op, UINT64_MAX - 511, buffer, 512) == -EINVAL);
		CU_ASSERT(rig_do(r, op, 512, buffer, UINT64_MAX - 511) == -EINVAL);
		CU_ASSERT(rig_do(r, op, 0, buffer, 0) == 0);
	}
	CU_ASSERT(rig_do(r, 17, 0, buffer, 512) == -EINVAL);
	/* A vector shorter or longer than the length. */
	rig_prepare(&one, BLK_READ, 0, buffer, 512);
	one.iov.iov_len = 1024;
	CU_ASSERT(rig_run(r, &one) == -EINVAL);
	rig_prepare(&one, BLK_READ, 0, buffer, 1024);
	one.iov.iov_len = 512;
	CU_ASSERT(rig_run(r, &one) == -EINVAL);
	rig_prepare(&one, BLK_WRITE, 0, buffer, 512);
	one.req.niov = 0;
	CU_ASSERT(rig_run(r, &one) == -EINVAL);
	CU_ASSERT(rig_do(r, BLK_READ, size - 512, buffer, 512) == 0);
	CU_ASSERT(rig_all(buffer, 7, 512));
}

static void test_bad_requests(void)
{
	each_engine(bad_body, MIB, 7);
}

static void test_readonly(void)
{
	static char buffer[512] __attribute__((aligned(512)));

	for (int i = 0; i < RIG_ENGINES; i++) {
		struct rig_config config = {.engine = rig_engines[i], .readonly = true};
		struct rig r;

		if (rig_open(&r, &config, MIB, 9))
			continue;
		CU_ASSERT(rig_do(&r, BLK_WRITE, 0, buffer, 512) == -EROFS);
		CU_ASSERT(rig_do(&r, BLK_DISCARD, 0, NULL, 512) == -EROFS);
		CU_ASSERT(rig_do(&r, BLK_WRITE_ZEROES, 0, NULL, 512) == -EROFS);
		CU_ASSERT(rig_do(&r, BLK_FLUSH, 0, NULL, 0) == 0);
		CU_ASSERT(rig_do(&r, BLK_READ, 0, buffer, 512) == 0);
		CU_ASSERT(rig_all(buffer, 9, 512));
		CU_ASSERT(!r.info.discard && !r.info.write_zeroes);
		rig_close(&r);
	}
}

static blkcnt_t blocks_of(const struct rig *r)
{
	struct stat st;

	CU_ASSERT(stat(r->path, &st) == 0);
	return st.st_blocks;
}

static void range_body(struct rig *r)
{
	char *buffer = aligned_alloc(4096, MIB);
	blkcnt_t full = blocks_of(r);
	struct rig_request one;

	CU_ASSERT(rig_do(r, BLK_DISCARD, MIB, NULL, MIB) == 0);
	if (r->info.discard) {
		CU_ASSERT(blocks_of(r) <= full - (blkcnt_t)(MIB / 512));
		CU_ASSERT(rig_do(r, BLK_READ, MIB, buffer, MIB) == 0);
		CU_ASSERT(rig_all(buffer, 0, MIB));
	}
	full = blocks_of(r);
	rig_prepare(&one, BLK_WRITE_ZEROES, 2 * MIB, NULL, MIB);
	one.req.unmap = true;
	CU_ASSERT(rig_run(r, &one) == 0);
	if (r->info.discard)
		CU_ASSERT(blocks_of(r) <= full - (blkcnt_t)(MIB / 512));
	/* Without unmap the space stays, the content goes; the neighbours stay too. */
	full = blocks_of(r);
	CU_ASSERT(rig_do(r, BLK_WRITE_ZEROES, 3 * MIB + 512, NULL, MIB - 1024) == 0);
	CU_ASSERT(blocks_of(r) >= full - 16);
	CU_ASSERT(rig_do(r, BLK_READ, 3 * MIB, buffer, MIB) == 0);
	CU_ASSERT(rig_all(buffer, 3, 512));
	CU_ASSERT(rig_all(buffer + 512, 0, MIB - 1024));
	CU_ASSERT(rig_all(buffer + MIB - 512, 3, 512));
	CU_ASSERT(rig_do(r, BLK_READ, 2 * MIB, buffer, MIB) == 0);
	CU_ASSERT(rig_all(buffer, 0, MIB));
	free(buffer);
}

static void test_ranges(void)
{
	each_engine(range_body, 5 * MIB, 3);
}

/* A file system in memory cannot zero ranges: zeroes are written, by every engine. */
static void test_zeroes_as_data(void)
{
	char *buffer = malloc(MIB);

	for (int i = 0; i < RIG_ENGINES; i++) {
		struct rig_config config = {.engine = rig_engines[i]};
		int fd = memfd_create("blk", MFD_CLOEXEC);
		struct rig r = {.path = ""};

		memset(buffer, 4, MIB);
		CU_ASSERT_FATAL(pwrite(fd, buffer, MIB, 0) == (ssize_t)MIB);
		if (rig_open_path(&r, &config, NULL, fd)) {
			close(fd);
			continue;
		}
		CU_ASSERT_STRING_EQUAL(r.info.file_system, "tmpfs");
		CU_ASSERT(!r.info.direct);
		CU_ASSERT(rig_do(&r, BLK_WRITE_ZEROES, 512, NULL, MIB - 1024) == 0);
		CU_ASSERT(rig_do(&r, BLK_READ, 0, buffer, MIB) == 0);
		CU_ASSERT(rig_all(buffer, 4, 512));
		CU_ASSERT(rig_all(buffer + 512, 0, MIB - 1024));
		CU_ASSERT(rig_all(buffer + MIB - 512, 4, 512));
		rig_close(&r);
	}
	free(buffer);
}

/* A vector longer than one system call takes, in segments of one sector. */
static void long_vector_body(struct rig *r)
{
	enum { SEGMENTS = 2600 };
	char *buffer = aligned_alloc(4096, SEGMENTS * 512);
	struct iovec *iov = calloc(SEGMENTS + 1, sizeof(*iov));
	struct rig_request one;

	for (int i = 0; i < SEGMENTS; i++)
		iov[SEGMENTS - 1 - i] = (struct iovec){buffer + i * 512, 512};
	iov[SEGMENTS] = (struct iovec){buffer, 0};
	for (int i = 0; i < SEGMENTS; i++)
		memset(buffer + i * 512, i % 251, 512);
	rig_prepare(&one, BLK_WRITE, 512, buffer, SEGMENTS * 512);
	one.req.iov = iov;
	one.req.niov = SEGMENTS + 1;
	CU_ASSERT(rig_run(r, &one) == 0);
	memset(buffer, 0, SEGMENTS * 512);
	CU_ASSERT(rig_do(r, BLK_READ, 512, buffer, SEGMENTS * 512) == 0);
	for (int i = 0; i < SEGMENTS; i++)
		CU_ASSERT(rig_all(buffer + i * 512, (SEGMENTS - 1 - i) % 251, 512));
	free(iov);
	free(buffer);
}

static void test_long_vector(void)
{
	each_engine(long_vector_body, 2 * MIB, 0);
}

static void shrunk_body(struct rig *r)
{
	char *buffer = aligned_alloc(4096, MIB);

	CU_ASSERT(truncate(r->path, MIB / 2) == 0);
	CU_ASSERT(rig_do(r, BLK_READ, MIB / 2, buffer, 4096) == -EIO);
	CU_ASSERT(rig_do(r, BLK_READ, MIB / 2 - 4096, buffer, 8192) == -EIO);
	CU_ASSERT(rig_do(r, BLK_READ, 0, buffer, MIB) == -EIO);
	CU_ASSERT(rig_do(r, BLK_READ, 0, buffer, MIB / 2) == 0);
	CU_ASSERT(rig_all(buffer, 6, MIB / 2));
	free(buffer);
}

static void test_shrunk_file(void)
{
	each_engine(shrunk_body, MIB, 6);
}

/* What a batch costs: one call to hand it over, or with direct I/O one for each eight. */
static void batch_body(struct rig *r)
{
	static char buffer[32][512] __attribute__((aligned(4096)));
	struct blk_channel_counters before, after;
	struct rig_request requests[32];

	if (r->info.engine == BLK_ENGINE_THREADS)
		return;
	CU_ASSERT(rig_do(r, BLK_READ, 0, buffer, 512) == 0);
	blk_channel_counters_get(r->ch, &before);
	for (int i = 0; i < 32; i++) {
		rig_prepare(&requests[i], BLK_READ, i * 512u, buffer[i], 512);
		blk_submit(r->ch, &requests[i].req);
	}
	blk_channel_counters_get(r->ch, &after);
	CU_ASSERT(after.system_calls == before.system_calls);
	blk_kick(r->ch);
	blk_channel_counters_get(r->ch, &after);
	CU_ASSERT(after.system_calls == before.system_calls + (r->info.direct ? 4 : 1));
	CU_ASSERT(after.requests == before.requests + 32);
	CU_ASSERT(rig_wait(r, 0));
	for (int i = 0; i < 32; i++)
		CU_ASSERT(requests[i].calls == 1 && requests[i].result == 0);
}

static void test_batch_cost(void)
{
	each_engine(batch_body, MIB, 5);
}

/* A flush reaches the kernel; looking for work when there is none costs nothing. */
static void idle_body(struct rig *r)
{
	static char buffer[4096] __attribute__((aligned(4096)));
	struct blk_channel_counters before, after;
	struct pollfd pfd = {.fd = blk_channel_fd(r->ch), .events = POLLIN};

	CU_ASSERT(rig_do(r, BLK_WRITE, 0, buffer, 4096) == 0);
	blk_channel_counters_get(r->ch, &before);
	CU_ASSERT(rig_do(r, BLK_FLUSH, 0, NULL, 0) == 0);
	blk_channel_counters_get(r->ch, &after);
	CU_ASSERT(after.system_calls > before.system_calls);
	/* The last signal may come after its completion: the workers fall asleep in their own time.
	 */
	for (time_t start = time(NULL); !rig_late(start);) {
		blk_channel_counters_get(r->ch, &before);
		usleep(20000);
		for (int i = 0; i < 10; i++)
			CU_ASSERT(blk_poll(r->ch) == 0);
		blk_channel_counters_get(r->ch, &after);
		if (after.system_calls == before.system_calls)
			break;
	}
	CU_ASSERT(after.system_calls == before.system_calls);
	CU_ASSERT(poll(&pfd, 1, 0) == 0);
}

static void test_idle(void)
{
	each_engine(idle_body, MIB, 5);
}

struct chain {
	struct rig *rig;
	struct rig_request one;
	unsigned left, depth, deepest;
};

static void chain_done(struct blk_request *req, int res)
{
	struct chain *chain = req->owner;

	CU_ASSERT(res == 0 || res == -EINVAL);
	if (++chain->depth > chain->deepest)
		chain->deepest = chain->depth;
	if (chain->left) {
		chain->left--;
		/* Every other one fails its checks, which is known at once. */
		req->offset ^= 1;
		blk_submit(chain->rig->ch, req);
		blk_kick(chain->rig->ch);
	}
	chain->depth--;
}

/* done() that submits again, for ever, neither nests nor keeps a kick from returning. */
static void chain_body(struct rig *r)
{
	static char buffer[512] __attribute__((aligned(512)));
	struct chain chain = {.rig = r, .left = 1u << 30};

	rig_prepare(&chain.one, BLK_READ, 0, buffer, 512);
	chain.one.req.done = chain_done;
	chain.one.req.owner = &chain;
	blk_submit(r->ch, &chain.one.req);
	for (int i = 0; i < 200; i++) {
		blk_kick(r->ch);
		rig_pump(r, true);
	}
	CU_ASSERT((1u << 30) - chain.left > 100);
	CU_ASSERT(chain.deepest == 1);
	chain.left = 0;
	CU_ASSERT(rig_wait(r, 0));
}

static void test_done_submits(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_AUTO};
	struct rig r = {.path = ""};
	int fd = memfd_create("blk", MFD_CLOEXEC);

	each_engine(chain_body, MIB, 5);
	CU_ASSERT_FATAL(ftruncate(fd, MIB) == 0);
	CU_ASSERT_FATAL(rig_open_path(&r, &config, NULL, fd) == 0);
	chain_body(&r);
	rig_close(&r);
}

/* A channel is closed with requests in flight: they end first. */
static void close_body(struct rig *r)
{
	static char buffer[64][4096] __attribute__((aligned(4096)));
	static struct rig_request requests[64];
	struct blk_channel *ch;

	CU_ASSERT_FATAL(blk_channel_open(&ch, r->image, NULL, r->why) == 0);
	for (int i = 0; i < 64; i++) {
		rig_prepare(&requests[i], BLK_WRITE, i * 4096u, buffer[i], 4096);
		blk_submit(ch, &requests[i].req);
		if (i == 40)
			blk_kick(ch);
	}
	blk_channel_close(ch);
	for (int i = 0; i < 64; i++)
		CU_ASSERT(requests[i].calls == 1 && requests[i].result == 0);
}

static void test_close_in_flight(void)
{
	each_engine(close_body, MIB, 5);
}

struct two {
	struct blk_image *image;
	unsigned half;
	int bad;
};

/* Writes and reads back its own half of the image, on its own channel. */
static void *two_thread(void *arg)
{
	struct two *two = arg;
	struct rig r = {.image = two->image};
	char *buffer = aligned_alloc(4096, 65536);

	if (blk_channel_open(&r.ch, two->image, NULL, r.why)) {
		two->bad = 1;
		free(buffer);
		return NULL;
	}
	for (unsigned i = 0; i < 64 && !two->bad; i++) {
		uint64_t at = two->half * 4ull * MIB + (i % 64) * 65536ull;

		memset(buffer, (int)(i + two->half * 100), 65536);
		two->bad |= rig_do(&r, BLK_WRITE, at, buffer, 65536) != 0;
		two->bad |= rig_do(&r, BLK_FLUSH, 0, NULL, 0) != 0;
		memset(buffer, 0, 65536);
		two->bad |= rig_do(&r, BLK_READ, at, buffer, 65536) != 0;
		two->bad |= !rig_all(buffer, (int)(i + two->half * 100) & 255, 65536);
		two->bad |= rig_do(&r, BLK_DISCARD, at, NULL, 4096) != 0;
	}
	blk_channel_close(r.ch);
	free(buffer);
	return NULL;
}

static void two_body(struct rig *r)
{
	struct two two[2] = {{r->image, 0, 0}, {r->image, 1, 0}};
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		CU_ASSERT_FATAL(pthread_create(&threads[i], NULL, two_thread, &two[i]) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT(!two[0].bad && !two[1].bad);
}

static void test_two_channels(void)
{
	each_engine(two_body, 8 * MIB, 0);
}

/* A loop device with sectors of 4096 bytes over a file; -1 when there can be none. */
static int loop_attach(const char *path, char device[64])
{
	struct loop_config config = {.block_size = 4096};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n = -1, fd;

	config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
	if (control < 0)
		return -1;
	n = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(device, 64, "/dev/loop%d", n);
	fd = n < 0 ? -1 : open(device, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	config.fd = (uint32_t)open(path, O_RDWR | O_CLOEXEC);
	if (ioctl(fd, LOOP_CONFIGURE, &config) < 0) {
		close((int)config.fd);
		close(fd);
		return -1;
	}
	close((int)config.fd);
	return fd;
}

static void loop_try(const char *device, enum blk_engine engine, enum blk_direct direct)
{
	struct rig_config config = {.engine = engine, .direct = direct};
	char *buffer = aligned_alloc(4096, 65536);
	struct rig r = {.path = ""};
	int rc = rig_open_path(&r, &config, device, -1);

	CU_ASSERT(rc == 0);
	if (rc) {
		free(buffer);
		return;
	}
	CU_ASSERT_STRING_EQUAL(r.info.file_system, "block device");
	CU_ASSERT(r.info.block_size == 4096 && r.info.size == 8 * MIB);
	CU_ASSERT(r.info.direct == (direct == BLK_DIRECT_ON));
	/* Whole units, odd sectors, a buffer at an odd address. */
	memset(buffer, 1, 65536);
	CU_ASSERT(rig_do(&r, BLK_WRITE, 0, buffer, 65536) == 0);
	memset(buffer, 2, 512);
	CU_ASSERT(rig_do(&r, BLK_WRITE, 4096 + 512, buffer, 512) == 0);
	memset(buffer, 9, 65536);
	CU_ASSERT(rig_do(&r, BLK_READ, 4096, buffer + 1, 8192) == 0);
	CU_ASSERT(rig_all(buffer + 1, 1, 512));
	CU_ASSERT(rig_all(buffer + 513, 2, 512));
	CU_ASSERT(rig_all(buffer + 1025, 1, 8192 - 1024));
	CU_ASSERT(rig_do(&r, BLK_READ, 4096 + 512, buffer, 512) == 0);
	CU_ASSERT(rig_all(buffer, 2, 512));
	CU_ASSERT(rig_do(&r, BLK_WRITE_ZEROES, 512, NULL, 8192) == 0);
	CU_ASSERT(rig_do(&r, BLK_READ, 0, buffer, 16384) == 0);
	CU_ASSERT(rig_all(buffer, 1, 512));
	CU_ASSERT(rig_all(buffer + 512, 0, 8192));
	CU_ASSERT(rig_all(buffer + 8704, 1, 16384 - 8704));
	CU_ASSERT(rig_do(&r, BLK_DISCARD, 16384, NULL, 16384) == 0);
	CU_ASSERT(rig_do(&r, BLK_DISCARD, 512, NULL, 512) == 0);
	if (r.info.discard) {
		CU_ASSERT(rig_do(&r, BLK_READ, 16384, buffer, 16384) == 0);
		CU_ASSERT(rig_all(buffer, 0, 16384));
	}
	CU_ASSERT(rig_do(&r, BLK_FLUSH, 0, NULL, 0) == 0);
	rig_close(&r);
	free(buffer);
}

static void test_block_device(void)
{
	char path[128], device[64];
	int fd;

	rig_path(path, "loop");
	rig_file(path, 8 * MIB, 0);
	fd = loop_attach(path, device);
	if (fd < 0) {
		unit_skip("no loop device to be had");
		unlink(path);
		return;
	}
	for (int i = 0; i < RIG_ENGINES; i++) {
		loop_try(device, rig_engines[i], BLK_DIRECT_AUTO);
		loop_try(device, rig_engines[i], BLK_DIRECT_ON);
	}
	close(fd);
	unlink(path);
}

static const struct unit_case cases[] = {
	{"random against a shadow", test_random},
	{"random with sqpoll", test_sqpoll},
	{"random with a small depth", test_small_depth},
	{"bad requests", test_bad_requests},
	{"read-only", test_readonly},
	{"discard and zeroes", test_ranges},
	{"zeroes as data", test_zeroes_as_data},
	{"a long vector", test_long_vector},
	{"a file that shrank", test_shrunk_file},
	{"a batch is few calls", test_batch_cost},
	{"flushing, and idling", test_idle},
	{"done() submits", test_done_submits},
	{"closed in flight", test_close_in_flight},
	{"two channels, two threads", test_two_channels},
	{"block device with large sectors", test_block_device},
};

UNIT_MAIN("blk_io", cases)
