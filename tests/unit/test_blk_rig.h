/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of blk/ share: files below build/tmp, an image with a channel, waiting. */
#ifndef TEST_BLK_RIG_H
#define TEST_BLK_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "blk/blk.h"
#include "tests/unit/unit.h"

#define RIG_HANG_S 30

struct rig {
	struct blk_image *image;
	struct blk_channel *ch;
	struct blk_info info;
	struct io_uring *ring;                  /* borrowed, or NULL */
	void (*pump)(struct rig *r, bool wait); /* how completions are got; NULL: blk_poll */
	char path[128];                         /* "": nothing to remove */
	char why[BLK_WHY_MAX];
};

struct rig_config {
	enum blk_engine engine;
	enum blk_direct direct;
	bool readonly, sqpoll, registered_memory;
	uint32_t depth;
	struct io_uring *ring;
	void (*pump)(struct rig *r, bool wait);
	const char *fault;
};

__attribute__((unused)) static const enum blk_engine rig_engines[] = {
	BLK_ENGINE_URING, BLK_ENGINE_AIO, BLK_ENGINE_THREADS};
#define RIG_ENGINES 3

static inline void rig_path(char path[128], const char *name)
{
	mkdir("build", 0777);
	mkdir("build/tmp", 0777);
	snprintf(path, 128, "build/tmp/blk-%d-%s", (int)getpid(), name);
}

/* A file of random or given bytes, written, so that its blocks are there. */
static inline void rig_file(const char *path, size_t size, int byte)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	char *data = malloc(size + 1);

	memset(data, byte, size);
	CU_ASSERT_FATAL(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	CU_ASSERT(fsync(fd) == 0);
	close(fd);
	free(data);
}

static inline int rig_open_path(
	struct rig *r, const struct rig_config *config, const char *path, int fd)
{
	struct blk_options opts = {.path = path,
		.fd = fd,
		.readonly = config->readonly,
		.direct = config->direct,
		.engine = config->engine,
		.sqpoll = config->sqpoll,
		.registered_memory = config->registered_memory,
		.fault = config->fault};
	struct blk_channel_options ch_opts = {.ring = config->ring, .depth = config->depth};
	int rc;

	r->ring = config->ring;
	r->pump = config->pump;
	r->why[0] = 0;
	r->ch = NULL;
	rc = blk_open(&r->image, &opts, r->why);
	if (rc)
		return rc;
	blk_info_get(r->image, &r->info);
	rc = blk_channel_open(&r->ch, r->image, &ch_opts, r->why);
	if (rc)
		blk_close(r->image);
	return rc;
}

/* A fresh file of `size` bytes of value `byte`. */
static inline int rig_open(struct rig *r, const struct rig_config *config, size_t size, int byte)
{
	int rc;

	rig_path(r->path, "image");
	rig_file(r->path, size, byte);
	rc = rig_open_path(r, config, r->path, -1);
	if (rc)
		unlink(r->path);
	return rc;
}

static inline void rig_close(struct rig *r)
{
	blk_channel_close(r->ch);
	blk_close(r->image);
	if (r->path[0])
		unlink(r->path);
	r->path[0] = 0;
}

static inline void rig_pump(struct rig *r, bool wait)
{
	if (r->pump) {
		r->pump(r, wait);
		return;
	}
	if (!blk_poll(r->ch) && wait) {
		struct pollfd pfd = {.fd = blk_channel_fd(r->ch), .events = POLLIN};

		poll(&pfd, 1, 1000);
	}
}

static inline bool rig_late(time_t since)
{
	return time(NULL) - since > RIG_HANG_S;
}

/* Waits until at most `left` are in flight; false after half a minute. */
static inline bool rig_wait(struct rig *r, uint32_t left)
{
	time_t start = time(NULL);

	blk_kick(r->ch);
	while (blk_channel_inflight(r->ch) > left) {
		if (rig_late(start))
			return false;
		rig_pump(r, true);
		blk_kick(r->ch);
	}
	return true;
}

struct rig_request {
	struct blk_request req;
	struct iovec iov;
	int result, calls;
};

static inline void rig_done(struct blk_request *req, int res)
{
	struct rig_request *one = req->owner;

	one->result = res;
	one->calls++;
}

static inline void rig_prepare(
	struct rig_request *one, enum blk_op op, uint64_t offset, void *data, uint64_t length)
{
	memset(one, 0, sizeof(*one));
	one->iov = (struct iovec){data, length};
	one->req.op = op;
	one->req.offset = offset;
	one->req.length = length;
	one->req.iov = &one->iov;
	one->req.niov = 1;
	one->req.done = rig_done;
	one->req.owner = one;
	one->result = 1;
}

/* Submits it and waits; its result, or 1 when done() was not called just once, or too early. */
static inline int rig_run(struct rig *r, struct rig_request *one)
{
	int early;

	blk_submit(r->ch, &one->req);
	early = one->calls;
	rig_wait(r, 0);
	return early || one->calls != 1 ? 1 : one->result;
}

static inline int rig_do(
	struct rig *r, enum blk_op op, uint64_t offset, void *data, uint64_t length)
{
	struct rig_request one;

	rig_prepare(&one, op, offset, data, length);
	return rig_run(r, &one);
}

/* Runs a body in a child process and tells its exit status; 77 stands for "cannot run here". */
static inline int rig_child(int (*body)(void *arg), void *arg)
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		alarm(60);
		_exit(body(arg));
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define RIG_SKIP_STATUS 77

static inline bool rig_all(const void *data, int byte, size_t size)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < size; i++)
		if (p[i] != (unsigned char)byte)
			return false;
	return true;
}

#endif
