/* SPDX-License-Identifier: BSD-2-Clause */
/* The io_uring engine on a borrowed ring, its registered files and its registered memory. */
#include <grp.h>
#include <liburing.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "tests/unit/test_blk_random.h"

#define MIB (1u << 20)

/* Other users of the ring, whose completions blk never sees. */
#define FOREIGN 5u

static unsigned foreign_seen;

static void borrowed_pump(struct rig *r, bool wait)
{
	struct __kernel_timespec second = {.tv_sec = 1};
	struct io_uring_cqe *cqe;

	io_uring_submit(r->ring);
	if (wait)
		io_uring_wait_cqe_timeout(r->ring, &cqe, &second);
	while (io_uring_peek_cqe(r->ring, &cqe) == 0) {
		uint64_t user_data = cqe->user_data;
		int res = cqe->res;

		io_uring_cqe_seen(r->ring, cqe);
		if (user_data == LIBURING_UDATA_TIMEOUT)
			continue;
		if (user_data & 7)
			foreign_seen++;
		else
			blk_uring_complete(user_data, res);
	}
}

static bool ring_make(struct io_uring *ring, unsigned entries)
{
	int rc = io_uring_queue_init(entries, ring, 0);

	if (rc)
		unit_skip("io_uring is not permitted here");
	return rc == 0;
}

/* The ring is smaller than the depth, so that it fills up; other entries run through it too. */
static void test_borrowed_random(void)
{
	struct rig_config config = {
		.engine = BLK_ENGINE_URING, .direct = BLK_DIRECT_AUTO, .pump = borrowed_pump};
	struct io_uring ring;
	struct rig r;

	for (int i = 0; i < 2; i++) {
		if (!ring_make(&ring, i ? 16 : 256))
			return;
		config.ring = &ring;
		config.direct = i ? BLK_DIRECT_OFF : BLK_DIRECT_AUTO;
		CU_ASSERT_FATAL(rig_open(&r, &config, RANDOM_SIZE, 8) == 0);
		CU_ASSERT(blk_channel_fd(r.ch) == -1);
		foreign_seen = 0;
		for (int k = 0; k < 4; k++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

			io_uring_prep_nop(sqe);
			io_uring_sqe_set_data64(sqe, FOREIGN);
		}
		random_test(&r, 8, 1500, 4711 + i);
		CU_ASSERT(foreign_seen == 4);
		rig_close(&r);
		io_uring_queue_exit(&ring);
	}
}

/* On a ring that has room, submitting costs blk no call at all, or all eights but the last. */
static void borrowed_cost(enum blk_direct direct)
{
	struct rig_config config = {
		.engine = BLK_ENGINE_URING, .direct = direct, .pump = borrowed_pump};
	static char buffer[32][512] __attribute__((aligned(4096)));
	struct rig_request requests[32];
	struct blk_channel_counters counters;
	struct io_uring ring;
	struct rig r;

	if (!ring_make(&ring, 64))
		return;
	config.ring = &ring;
	CU_ASSERT_FATAL(rig_open(&r, &config, MIB, 3) == 0);
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 32; i++) {
			rig_prepare(&requests[i], BLK_READ, i * 512u, buffer[i], 512);
			blk_submit(r.ch, &requests[i].req);
		}
		CU_ASSERT(rig_wait(&r, 0));
		for (int i = 0; i < 32; i++)
			CU_ASSERT(requests[i].calls == 1 && requests[i].result == 0);
	}
	blk_channel_counters_get(r.ch, &counters);
	CU_ASSERT(counters.system_calls == (r.info.direct ? 4 * 3 : 0));
	CU_ASSERT(counters.requests == 4 * 32);
	/* Failing checks end in the kick, without the ring. */
	rig_prepare(&requests[0], BLK_READ, 1, buffer[0], 512);
	blk_submit(r.ch, &requests[0].req);
	CU_ASSERT(requests[0].calls == 0);
	blk_kick(r.ch);
	CU_ASSERT(requests[0].calls == 1 && requests[0].result == -EINVAL);
	rig_close(&r);
	io_uring_queue_exit(&ring);
}

static void test_borrowed_cost(void)
{
	borrowed_cost(BLK_DIRECT_OFF);
	borrowed_cost(BLK_DIRECT_AUTO);
}

/* More images on one ring than its table of files has places for. */
static void test_borrowed_shared(void)
{
	enum { IMAGES = 70 };
	struct rig_config config = {.engine = BLK_ENGINE_URING, .pump = borrowed_pump};
	static struct rig rigs[IMAGES];
	static char buffer[4096];
	struct io_uring ring;

	if (!ring_make(&ring, 32))
		return;
	config.ring = &ring;
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < IMAGES; i++) {
			char name[32];

			snprintf(name, sizeof(name), "image-%d", i);
			rig_path(rigs[i].path, name);
			rig_file(rigs[i].path, 4096, i + 1);
			CU_ASSERT_FATAL(rig_open_path(&rigs[i], &config, rigs[i].path, -1) == 0);
		}
		for (int i = 0; i < 3 * IMAGES; i++) {
			CU_ASSERT(rig_do(&rigs[i % IMAGES], BLK_READ, 0, buffer, 4096) == 0);
			CU_ASSERT(rig_all(buffer, i % IMAGES + 1, 4096));
		}
		for (int i = 0; i < IMAGES; i++)
			rig_close(&rigs[i]);
	}
	io_uring_queue_exit(&ring);
}

static void registered_check(struct rig *r, char *memory)
{
	for (int i = 0; i < 64; i++) {
		uint64_t at = (uint64_t)i * 4096;

		memset(memory + at, i + 1, 4096);
		CU_ASSERT(rig_do(r, BLK_WRITE, at, memory + at, 4096) == 0);
		memset(memory + at, 0, 4096);
		CU_ASSERT(rig_do(r, BLK_READ, at, memory + at, 4096) == 0);
		CU_ASSERT(rig_all(memory + at, i + 1, 4096));
	}
}

static void registered_try(struct io_uring *ring)
{
	struct rig_config config = {.engine = BLK_ENGINE_URING,
		.registered_memory = true,
		.ring = ring,
		.pump = ring ? borrowed_pump : NULL};
	char *memory =
		mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct iovec regions[2] = {{memory, MIB}, {memory + MIB, MIB}};
	static char outside[4096] __attribute__((aligned(4096)));
	struct rig r;
	int rc;

	CU_ASSERT_FATAL(memory != MAP_FAILED);
	CU_ASSERT_FATAL(rig_open(&r, &config, RANDOM_SIZE, 1) == 0);
	rc = blk_channel_register_memory(r.ch, regions, 2);
	CU_ASSERT(rc == 0 || rc == -ENOMEM || rc == -EPERM);
	registered_check(&r, memory);
	/* Across two regions, across the end of the last, and outside. */
	memset(memory, 0x77, 4 * MIB);
	CU_ASSERT(rig_do(&r, BLK_WRITE, 0, memory + MIB - 4096, 8192) == 0);
	CU_ASSERT(rig_do(&r, BLK_READ, 0, memory + 2 * MIB - 4096, 8192) == 0);
	CU_ASSERT(rig_do(&r, BLK_READ, 0, outside, 4096) == 0);
	CU_ASSERT(rig_all(outside, 0x77, 4096));
	CU_ASSERT(rig_do(&r, BLK_WRITE, 0, memory, MIB) == 0);
	if (rc == 0)
		CU_ASSERT(blk_channel_register_memory(r.ch, regions, 2) == -EBUSY);
	rig_close(&r);
	munmap(memory, 4 * MIB);
}

static void test_registered(void)
{
	struct io_uring ring;

	if (!ring_make(&ring, 64))
		return;
	registered_try(NULL);
	registered_try(&ring);
	io_uring_queue_exit(&ring);
}

/* Not asked for: nothing is pinned. Other engines: said so. */
static void test_registered_not(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_THREADS, .registered_memory = true};
	static char memory[4096];
	struct iovec region = {memory, sizeof(memory)};
	struct rig r;

	CU_ASSERT_FATAL(rig_open(&r, &config, MIB, 1) == 0);
	CU_ASSERT(blk_channel_register_memory(r.ch, &region, 1) == -EOPNOTSUPP);
	blk_info_get(r.image, &r.info);
	CU_ASSERT(strstr(r.info.note, "io_uring only") != NULL);
	rig_close(&r);
	config.registered_memory = false;
	CU_ASSERT_FATAL(rig_open(&r, &config, MIB, 1) == 0);
	CU_ASSERT(blk_channel_register_memory(r.ch, &region, 1) == 0);
	rig_close(&r);
}

static bool become_nobody(void)
{
	if (getuid())
		return true;
	return setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0;
}

static int memlock_body(void *arg)
{
	struct rig *r = arg;
	struct blk_channel_options opts = {.depth = 32};
	struct rlimit little = {256 << 10, 256 << 10};
	char *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct iovec region = {memory, MIB};
	int rc;

	if (memory == MAP_FAILED || setrlimit(RLIMIT_MEMLOCK, &little) < 0)
		return RIG_SKIP_STATUS;
	if (!become_nobody())
		return RIG_SKIP_STATUS;
	/* The ring itself may count, too. */
	if (blk_channel_open(&r->ch, r->image, &opts, r->why))
		return RIG_SKIP_STATUS;
	rc = blk_channel_register_memory(r->ch, &region, 1);
	if (rc != -ENOMEM && rc != -EPERM)
		return 2;
	blk_info_get(r->image, &r->info);
	if (!strstr(r->info.note, "not registered"))
		return 3;
	memset(memory, 0x3c, 8192);
	if (rig_do(r, BLK_WRITE, 4096, memory, 8192) != 0)
		return 4;
	memset(memory, 0, 8192);
	if (rig_do(r, BLK_READ, 4096, memory, 8192) != 0 || !rig_all(memory, 0x3c, 8192))
		return 5;
	blk_channel_close(r->ch);
	return 0;
}

static void test_memlock(void)
{
	struct blk_options opts = {.fd = -1, .engine = BLK_ENGINE_URING, .registered_memory = true};
	struct rig r = {.path = ""};
	int status;

	rig_path(r.path, "memlock");
	rig_file(r.path, MIB, 0);
	opts.path = r.path;
	if (blk_open(&r.image, &opts, r.why)) {
		unit_skip(r.why);
		unlink(r.path);
		return;
	}
	status = rig_child(memlock_body, &r);
	if (status == RIG_SKIP_STATUS)
		unit_skip("cannot become an unprivileged user without locked memory");
	else
		CU_ASSERT(status == 0);
	blk_close(r.image);
	unlink(r.path);
}

/* No locked memory at all: whether there can be a ring depends on the kernel, the image works. */
static int no_memlock_body(void *arg)
{
	static char data[8192] __attribute__((aligned(4096)));
	struct rig_config config = {.registered_memory = true};
	struct iovec region = {data, sizeof(data)};
	struct rlimit none = {0, 0};
	struct rig r = {.path = ""};
	/* Opened before: the way to the image may be closed to others. */
	int fd = open(arg, O_RDWR | O_CLOEXEC);

	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 || !become_nobody())
		return RIG_SKIP_STATUS;
	if (rig_open_path(&r, &config, NULL, fd))
		return 2;
	if (r.info.engine != BLK_ENGINE_URING && !strstr(r.info.note, "io_uring"))
		return 3;
	if (blk_channel_register_memory(r.ch, &region, 1) == 0)
		return 4;
	memset(data, 0x3d, sizeof(data));
	if (rig_do(&r, BLK_WRITE, 4096, data, sizeof(data)) != 0)
		return 5;
	memset(data, 0, sizeof(data));
	if (rig_do(&r, BLK_READ, 4096, data, sizeof(data)) || !rig_all(data, 0x3d, sizeof(data)))
		return 6;
	rig_close(&r);
	return 0;
}

static void test_no_memlock(void)
{
	char path[128];
	int status;

	rig_path(path, "memlock");
	rig_file(path, MIB, 0);
	status = rig_child(no_memlock_body, path);
	if (status == RIG_SKIP_STATUS)
		unit_skip("cannot become an unprivileged user without locked memory");
	else
		CU_ASSERT(status == 0);
	unlink(path);
}

/* Discarding on a block device goes through a worker and comes back through the borrowed ring. */
static void test_borrowed_worker(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_URING, .pump = borrowed_pump};
	struct rig_request requests[40];
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n, loop = -1, file;
	struct loop_config setup = {.block_size = 512};
	char path[128], device[64];
	struct io_uring ring;
	struct rig r = {.path = ""};

	rig_path(path, "loop");
	rig_file(path, 4 * MIB, 1);
	file = open(path, O_RDWR | O_CLOEXEC);
	n = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	snprintf(device, sizeof(device), "/dev/loop%d", n);
	if (n >= 0)
		loop = open(device, O_RDWR | O_CLOEXEC);
	setup.fd = (uint32_t)file;
	setup.info.lo_flags = LO_FLAGS_AUTOCLEAR;
	if (loop < 0 || ioctl(loop, LOOP_CONFIGURE, &setup) < 0) {
		unit_skip("no loop device to be had");
	} else if (ring_make(&ring, 64)) {
		config.ring = &ring;
		CU_ASSERT_FATAL(rig_open_path(&r, &config, device, -1) == 0);
		for (int i = 0; i < 40; i++) {
			rig_prepare(&requests[i], BLK_DISCARD, i * 8192u, NULL, 4096);
			blk_submit(r.ch, &requests[i].req);
		}
		CU_ASSERT(rig_wait(&r, 0));
		for (int i = 0; i < 40; i++)
			CU_ASSERT(requests[i].calls == 1 && requests[i].result == 0);
		rig_close(&r);
		io_uring_queue_exit(&ring);
	}
	if (loop >= 0)
		close(loop);
	if (control >= 0)
		close(control);
	close(file);
	unlink(path);
}

static const struct unit_case cases[] = {
	{"borrowed ring, random", test_borrowed_random},
	{"borrowed ring, few calls", test_borrowed_cost},
	{"borrowed ring, many images", test_borrowed_shared},
	{"borrowed ring, workers", test_borrowed_worker},
	{"registered memory", test_registered},
	{"registered memory not asked for", test_registered_not},
	{"registered memory refused", test_memlock},
	{"no locked memory at all", test_no_memlock},
};

UNIT_MAIN("blk_uring", cases)
