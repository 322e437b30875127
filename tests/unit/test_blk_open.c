/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening and claiming images, hosts that forbid things, disks that are full. */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "tests/unit/test_blk_rig.h"

#define MIB (1u << 20)

static void test_names(void)
{
	enum blk_engine engine;

	for (int i = BLK_ENGINE_AUTO; i <= BLK_ENGINE_THREADS; i++) {
		CU_ASSERT(blk_engine_parse(blk_engine_name(i), &engine) == 0);
		CU_ASSERT((int)engine == i);
	}
	CU_ASSERT(blk_engine_parse("posix", &engine) == -EINVAL);
	CU_ASSERT(blk_engine_parse("", &engine) == -EINVAL);
}

/* Opening fails with this error, and the line names the object and holds this text. */
static void refuse(const char *path, int fd, bool readonly, int error, const char *text)
{
	struct blk_options opts = {.path = path, .fd = fd, .readonly = readonly};
	struct blk_image *image = NULL;
	char why[BLK_WHY_MAX] = "", name[32];
	int rc = blk_open(&image, &opts, why);

	snprintf(name, sizeof(name), "fd %d", fd);
	if (rc != error || !strstr(why, text))
		printf("[%d %s] ", rc, why);
	CU_ASSERT(rc == error);
	CU_ASSERT(strstr(why, text) != NULL);
	CU_ASSERT(strstr(why, path ? path : name) == why);
	CU_ASSERT(strchr(why, '\n') == NULL);
	if (rc == 0)
		blk_close(image);
}

static void test_refused(void)
{
	char path[128];
	int fd;

	rig_path(path, "bad");
	refuse(path, -1, false, -ENOENT, "no such file");
	refuse("build", -1, false, -EISDIR,
		"is a directory; expected a regular file or block device");
	refuse("build", -1, true, -EISDIR, "is a directory");
	refuse("/dev/null", -1, false, -EINVAL, "is a character device; expected a regular file");
	refuse("/dev/full", -1, true, -EINVAL, "is a character device");
	refuse("build/nowhere/x.img", -1, true, -ENOENT, "no such file");
	CU_ASSERT(mkfifo(path, 0600) == 0);
	refuse(path, -1, false, -EINVAL, "is a pipe");
	unlink(path);
	rig_file(path, 1000, 1);
	refuse(path, -1, false, -EINVAL, "size 1000 is not a multiple of 512");
	refuse(path, -1, true, -EINVAL, "size 1000 is not a multiple of 512");
	CU_ASSERT(truncate(path, 0) == 0);
	refuse(path, -1, false, -EINVAL, "empty");
	CU_ASSERT(truncate(path, 512) == 0);
	refuse(NULL, 999, false, -EBADF, "not an open descriptor");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	refuse(NULL, fd, false, -EBADF, "open for reading only; open it read-write");
	close(fd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	refuse(NULL, fd, false, -EBADF, "not open for reading");
	refuse(NULL, fd, true, -EBADF, "not open for reading");
	close(fd);
	fd = open("build", O_RDONLY | O_CLOEXEC);
	refuse(NULL, fd, true, -EISDIR, "is a directory");
	CU_ASSERT(fcntl(fd, F_GETFD) >= 0);
	close(fd);
	unlink(path);
}

static void test_direct_refused(void)
{
	struct blk_options opts = {.direct = BLK_DIRECT_ON, .fd = memfd_create("blk", 0)};
	struct blk_image *image;
	char why[BLK_WHY_MAX];
	struct blk_info info;

	CU_ASSERT_FATAL(ftruncate(opts.fd, MIB) == 0);
	CU_ASSERT(blk_open(&image, &opts, why) == -EINVAL);
	CU_ASSERT(strstr(why, "direct=on") != NULL && strstr(why, "direct=off") != NULL);
	/* The descriptor is still the caller's; now it is taken over. */
	opts.direct = BLK_DIRECT_AUTO;
	CU_ASSERT_FATAL(blk_open(&image, &opts, why) == 0);
	blk_info_get(image, &info);
	CU_ASSERT(!info.direct && info.block_size == 512 && info.size == MIB);
	CU_ASSERT(info.engine == BLK_ENGINE_THREADS);
	CU_ASSERT(strstr(info.note, "tmpfs") != NULL);
	blk_close(image);
	CU_ASSERT(fcntl(opts.fd, F_GETFD) < 0);
}

/* A descriptor with flags that would spoil transfers works all the same. */
static void test_descriptor(void)
{
	static char buffer[512] __attribute__((aligned(512)));

	for (int i = 0; i < RIG_ENGINES; i++) {
		struct rig_config config = {.engine = rig_engines[i]};
		struct rig r;
		int fd;

		rig_path(r.path, "fd");
		rig_file(r.path, MIB, 1);
		fd = open(r.path, O_RDWR | O_APPEND | O_NONBLOCK | O_CLOEXEC);
		if (rig_open_path(&r, &config, NULL, fd)) {
			close(fd);
			unlink(r.path);
			continue;
		}
		memset(buffer, 2, 512);
		CU_ASSERT(rig_do(&r, BLK_WRITE, 512, buffer, 512) == 0);
		CU_ASSERT(rig_do(&r, BLK_READ, 512, buffer, 512) == 0);
		CU_ASSERT(rig_all(buffer, 2, 512));
		CU_ASSERT(rig_do(&r, BLK_READ, 1024, buffer, 512) == 0);
		CU_ASSERT(rig_all(buffer, 1, 512));
		rig_close(&r);
	}
}

static int open_one(const char *path, bool readonly, struct blk_image **out, char *why)
{
	struct blk_options opts = {.path = path, .fd = -1, .readonly = readonly};

	return blk_open(out, &opts, why);
}

static void test_claim(void)
{
	struct blk_image *first, *second, *third;
	char path[128], why[BLK_WHY_MAX];

	rig_path(path, "claim");
	rig_file(path, MIB, 1);
	CU_ASSERT_FATAL(open_one(path, false, &first, why) == 0);
	CU_ASSERT(open_one(path, false, &second, why) == -EBUSY);
	CU_ASSERT(strstr(why, path) == why && strstr(why, "in use by another process"));
	CU_ASSERT(open_one(path, true, &second, why) == -EBUSY);
	blk_close(first);
	CU_ASSERT_FATAL(open_one(path, true, &first, why) == 0);
	CU_ASSERT_FATAL(open_one(path, true, &second, why) == 0);
	CU_ASSERT(open_one(path, false, &third, why) == -EBUSY);
	blk_close(first);
	CU_ASSERT(open_one(path, false, &third, why) == -EBUSY);
	blk_close(second);
	CU_ASSERT_FATAL(open_one(path, false, &third, why) == 0);
	blk_close(third);
	unlink(path);
}

/* Closed is free, also while something else still holds the file open, as an io_uring does for a
 * while. */
static void test_claim_ends(void)
{
	struct blk_options opts = {.fd = -1};
	struct blk_image *first, *second;
	char path[128], why[BLK_WHY_MAX];
	int other;

	rig_path(path, "ends");
	rig_file(path, MIB, 1);
	opts.fd = open(path, O_RDWR | O_CLOEXEC);
	other = dup(opts.fd);
	CU_ASSERT_FATAL(blk_open(&first, &opts, why) == 0);
	CU_ASSERT(open_one(path, false, &second, why) == -EBUSY);
	blk_close(first);
	CU_ASSERT_FATAL(open_one(path, false, &second, why) == 0);
	blk_close(second);
	close(other);
	unlink(path);
}

struct dying {
	struct blk_image *image;
	atomic_bool gone;
};

static void *dying_run(void *arg)
{
	struct dying *d = arg;

	usleep(400000);
	atomic_store(&d->gone, true);
	blk_close(d->image);
	return NULL;
}

/* Whoever is about to let go of the image is waited for, as long as was asked and no longer. */
static void test_claim_wait(void)
{
	struct blk_options opts = {.fd = -1, .claim_wait_ms = 300};
	struct blk_image *second;
	struct dying first = {0};
	char path[128], why[BLK_WHY_MAX];
	pthread_t thread;

	rig_path(path, "wait");
	rig_file(path, MIB, 1);
	opts.path = path;
	CU_ASSERT_FATAL(open_one(path, false, &first.image, why) == 0);
	CU_ASSERT(blk_open(&second, &opts, why) == -EBUSY);
	opts.claim_wait_ms = 60000;
	CU_ASSERT_FATAL(pthread_create(&thread, NULL, dying_run, &first) == 0);
	CU_ASSERT_FATAL(blk_open(&second, &opts, why) == 0);
	CU_ASSERT(atomic_load(&first.gone));
	pthread_join(thread, NULL);
	blk_close(second);
	unlink(path);
}

/* A channel's end lets go of the image at once, whatever the kernel still has to tear down. */
static void test_claim_released(void)
{
	static char buffer[4096] __attribute__((aligned(4096)));
	char path[128];

	for (int i = 0; i < 5 * RIG_ENGINES; i++) {
		struct rig_config config = {.engine = rig_engines[i % RIG_ENGINES]};
		struct rig r;

		rig_path(r.path, "image");
		if (i < RIG_ENGINES)
			rig_file(r.path, MIB, 1);
		if (rig_open_path(&r, &config, r.path, -1))
			continue;
		CU_ASSERT(rig_do(&r, BLK_WRITE, 0, buffer, 4096) == 0);
		blk_channel_close(r.ch);
		blk_close(r.image);
	}
	rig_path(path, "image");
	unlink(path);
}

static int qemu(const char *format, const char *path)
{
	char command[512];
	int status;

	snprintf(command, sizeof(command), format, path);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_claim_qemu(void)
{
	struct blk_image *image;
	char path[128], why[BLK_WHY_MAX];

	if (system("command -v qemu-io >/dev/null && command -v qemu-img >/dev/null")) {
		unit_skip("qemu-io and qemu-img are not installed");
		return;
	}
	rig_path(path, "qemu");
	rig_file(path, MIB, 1);
	/* Ours writes: nobody else may write or resize; ours reads: readers may, too. */
	CU_ASSERT_FATAL(open_one(path, false, &image, why) == 0);
	CU_ASSERT(qemu("qemu-io -f raw -c 'write 0 512' %s >/dev/null 2>&1", path) != 0);
	CU_ASSERT(qemu("qemu-img resize -f raw %s 2M >/dev/null 2>&1", path) != 0);
	CU_ASSERT(qemu("qemu-img info -U -f raw %s >/dev/null 2>&1", path) == 0);
	blk_close(image);
	CU_ASSERT_FATAL(open_one(path, true, &image, why) == 0);
	CU_ASSERT(qemu("qemu-io -f raw -c 'write 0 512' %s >/dev/null 2>&1", path) != 0);
	CU_ASSERT(qemu("qemu-img info -f raw %s >/dev/null 2>&1", path) == 0);
	blk_close(image);
	CU_ASSERT(qemu("qemu-io -f raw -c 'write 0 512' %s >/dev/null 2>&1", path) == 0);
	unlink(path);
}

/*
 * The other way round: theirs is open, and sleeps until this end of the pipe is closed. Its prompt
 * tells that it has its locks: to try ours before would turn theirs away.
 */
static void test_claim_qemu_first(void)
{
	struct blk_image *image;
	char path[128], prompt[128], why[BLK_WHY_MAX], command[512];
	struct stat said = {0};
	FILE *pipe;

	if (system("command -v qemu-io >/dev/null")) {
		unit_skip("qemu-io is not installed");
		return;
	}
	rig_path(path, "qemu");
	rig_path(prompt, "qemu-prompt");
	rig_file(path, MIB, 1);
	rig_file(prompt, 0, 1);
	snprintf(command, sizeof(command), "qemu-io -f raw %s >%s 2>/dev/null", path, prompt);
	pipe = popen(command, "w");
	CU_ASSERT_FATAL(pipe != NULL);
	for (time_t start = time(NULL); time(NULL) - start < 60 && !said.st_size; usleep(20000))
		CU_ASSERT_FATAL(stat(prompt, &said) == 0);
	CU_ASSERT(said.st_size > 0);
	CU_ASSERT(open_one(path, false, &image, why) == -EBUSY);
	CU_ASSERT(open_one(path, true, &image, why) == -EBUSY);
	pclose(pipe);
	CU_ASSERT_FATAL(open_one(path, false, &image, why) == 0);
	blk_close(image);
	unlink(prompt);
	unlink(path);
}

/* From now on these system calls fail with this error. */
static int forbid(const int *calls, unsigned n, int error)
{
	struct sock_filter filter[16];
	struct sock_fprog program = {.filter = filter};
	unsigned k = 0;

	filter[k++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < n; i++) {
		filter[k++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		filter[k++] = (struct sock_filter)BPF_STMT(
			BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error);
	}
	filter[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program.len = (unsigned short)k;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/* Opens with engine=auto and moves some data; the engine, or -1. */
static int auto_engine(const char *path, enum blk_direct direct, struct blk_info *info)
{
	static char buffer[4096] __attribute__((aligned(4096)));
	struct rig_config config = {.direct = direct};
	struct rig r;

	r.path[0] = 0;
	if (rig_open_path(&r, &config, path, -1))
		return -1;
	*info = r.info;
	memset(buffer, 0x42, sizeof(buffer));
	if (rig_do(&r, BLK_WRITE, 8192, buffer, 4096) != 0)
		return -1;
	memset(buffer, 0, sizeof(buffer));
	if (rig_do(&r, BLK_READ, 8192, buffer, 4096) != 0 || !rig_all(buffer, 0x42, 4096))
		return -1;
	rig_close(&r);
	return (int)info->engine;
}

static int forbidden_body(void *arg)
{
	const char *path = arg;
	struct blk_options opts = {.path = path, .fd = -1, .engine = BLK_ENGINE_URING};
	struct blk_image *image;
	char why[BLK_WHY_MAX] = "";
	struct blk_info info = {0};
	int engine;

	if (forbid((int[]){SYS_io_uring_setup}, 1, EPERM) < 0)
		return RIG_SKIP_STATUS;
	engine = auto_engine(path, BLK_DIRECT_AUTO, &info);
	if (engine != (info.direct ? BLK_ENGINE_AIO : BLK_ENGINE_THREADS))
		return 2;
	if (!strstr(info.note, "io_uring: not permitted"))
		return 3;
	if (auto_engine(path, BLK_DIRECT_OFF, &info) != BLK_ENGINE_THREADS)
		return 4;
	if (blk_open(&image, &opts, why) != -EPERM)
		return 5;
	if (!strstr(why, "engine=io_uring: not permitted") || !strstr(why, "engine=auto"))
		return 6;
	if (forbid((int[]){SYS_io_setup}, 1, ENOSYS) < 0)
		return RIG_SKIP_STATUS;
	if (auto_engine(path, BLK_DIRECT_AUTO, &info) != BLK_ENGINE_THREADS)
		return 7;
	opts.engine = BLK_ENGINE_AIO;
	if (blk_open(&image, &opts, why) != -ENOSYS || !strstr(why, "engine=aio: "))
		return 8;
	return 0;
}

static void test_forbidden(void)
{
	struct blk_info info;
	char path[128];
	int status;

	rig_path(path, "forbidden");
	rig_file(path, MIB, 0);
	status = rig_child(forbidden_body, path);
	if (status == RIG_SKIP_STATUS)
		unit_skip("no seccomp here");
	else
		CU_ASSERT(status == 0);
	CU_ASSERT(auto_engine(path, BLK_DIRECT_AUTO, &info) >= 0);
	unlink(path);
}

struct forbid_ranges {
	char path[128];
	enum blk_engine engine;
};

/* The host turns out not to know ranges after the image was opened: zeroes are still zeroes. */
static int ranges_body(void *arg)
{
	struct forbid_ranges *test = arg;
	struct rig_config config = {.engine = test->engine};
	char *buffer = aligned_alloc(4096, MIB);
	struct rig_request one;
	struct rig r;

	if (rig_open_path(&r, &config, test->path, -1))
		return RIG_SKIP_STATUS;
	if (forbid((int[]){SYS_fallocate}, 1, EOPNOTSUPP) < 0)
		return RIG_SKIP_STATUS;
	rig_prepare(&one, BLK_WRITE_ZEROES, 4096, NULL, MIB - 8192);
	one.req.unmap = true;
	if (rig_run(&r, &one) || rig_do(&r, BLK_WRITE_ZEROES, 512, NULL, 1024))
		return 2;
	if (rig_do(&r, BLK_DISCARD, 0, NULL, MIB))
		return 3;
	if (rig_do(&r, BLK_READ, 0, buffer, MIB))
		return 4;
	if (!rig_all(buffer, 1, 512) || !rig_all(buffer + 512, 0, 1024) ||
		!rig_all(buffer + 1536, 1, 4096 - 1536))
		return 5;
	if (!rig_all(buffer + 4096, 0, MIB - 8192) || !rig_all(buffer + MIB - 4096, 1, 4096))
		return 6;
	free(buffer);
	blk_channel_close(r.ch);
	blk_close(r.image);
	return 0;
}

static void test_ranges_unsupported(void)
{
	/* io_uring makes no system call that a filter sees. */
	static const enum blk_engine engines[] = {BLK_ENGINE_AIO, BLK_ENGINE_THREADS};

	for (int i = 0; i < 2; i++) {
		struct forbid_ranges test = {.engine = engines[i]};
		int status;

		rig_path(test.path, "ranges");
		rig_file(test.path, MIB, 1);
		status = rig_child(ranges_body, &test);
		CU_ASSERT(status == 0 || status == RIG_SKIP_STATUS);
		unlink(test.path);
	}
}

/* A flush that fails says so. */
static int flush_body(void *arg)
{
	struct rig_config config = {.engine = BLK_ENGINE_THREADS};
	struct rig r = {.path = ""};

	if (rig_open_path(&r, &config, arg, -1) ||
		forbid((int[]){SYS_fdatasync, SYS_fsync}, 2, EIO) < 0)
		return RIG_SKIP_STATUS;
	if (rig_do(&r, BLK_FLUSH, 0, NULL, 0) != -EIO || blk_sync(r.image) != -EIO)
		return 2;
	rig_close(&r);
	return 0;
}

static void test_flush_fails(void)
{
	char path[128];
	int status;

	rig_path(path, "flush");
	rig_file(path, MIB, 0);
	status = rig_child(flush_body, path);
	if (status == RIG_SKIP_STATUS)
		unit_skip("no seccomp here");
	else
		CU_ASSERT(status == 0);
	unlink(path);
}

static int full_try(const char *path, enum blk_engine engine)
{
	struct rig_config config = {.engine = engine};
	char *buffer = malloc(MIB);
	struct rig r;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	r.path[0] = 0;
	if (fd < 0 || ftruncate(fd, 8 * MIB) < 0)
		return 2;
	close(fd);
	if (rig_open_path(&r, &config, path, -1))
		return 0; /* this engine is not to be had here */
	memset(buffer, 0x21, MIB);
	if (rig_do(&r, BLK_WRITE, 0, buffer, MIB) != 0)
		return 3;
	/* The disk has two MiB less a little. */
	if (rig_do(&r, BLK_WRITE, MIB, buffer, MIB) != -ENOSPC)
		return 4;
	if (rig_do(&r, BLK_WRITE, 4 * MIB, buffer, 512) != -ENOSPC)
		return 5;
	if (rig_do(&r, BLK_WRITE_ZEROES, 5 * MIB, NULL, MIB) != -ENOSPC)
		return 6;
	memset(buffer, 0, MIB);
	if (rig_do(&r, BLK_READ, 0, buffer, MIB) != 0 || !rig_all(buffer, 0x21, MIB))
		return 7;
	if (rig_do(&r, BLK_DISCARD, 0, NULL, MIB) != 0)
		return 8;
	if (rig_do(&r, BLK_WRITE, 4 * MIB, buffer, 512) != 0)
		return 9;
	rig_close(&r);
	free(buffer);
	return unlink(path) ? 10 : 0;
}

static int full_body(void *arg)
{
	const char *directory = arg;
	char path[160];
	int rc = 0;

	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return RIG_SKIP_STATUS;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("blk", directory, "tmpfs", 0, "size=2040k") < 0)
		return RIG_SKIP_STATUS;
	snprintf(path, sizeof(path), "%s/image", directory);
	for (int i = 0; i < RIG_ENGINES && !rc; i++) {
		rc = full_try(path, rig_engines[i]);
		if (rc)
			rc += 20 * i;
	}
	return rc;
}

static void test_full(void)
{
	char path[128];
	int status;

	rig_path(path, "full");
	CU_ASSERT_FATAL(mkdir(path, 0700) == 0);
	status = rig_child(full_body, path);
	if (status == RIG_SKIP_STATUS)
		unit_skip("may not mount a small file system in a namespace");
	else
		CU_ASSERT(status == 0);
	if (status)
		printf("[status %d] ", status);
	rmdir(path);
}

static const struct unit_case cases[] = {
	{"engine names", test_names},
	{"refused images", test_refused},
	{"direct=on refused", test_direct_refused},
	{"a descriptor with flags", test_descriptor},
	{"claims", test_claim},
	{"claims end when the image is closed", test_claim_ends},
	{"claims that are waited for", test_claim_wait},
	{"claims are released", test_claim_released},
	{"claims against QEMU", test_claim_qemu},
	{"claims of QEMU", test_claim_qemu_first},
	{"forbidden engines", test_forbidden},
	{"ranges not supported", test_ranges_unsupported},
	{"a flush that fails", test_flush_fails},
	{"a full disk", test_full},
};

UNIT_MAIN("blk_open", cases)
