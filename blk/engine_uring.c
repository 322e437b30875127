/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_uring, on a ring of the channel's own or on one that belongs to the thread. On a borrowed
 * ring this only prepares entries; the owner submits, reaps and calls blk_uring_complete().
 *
 * Entries that are no request of the caller's (a worker's eventfd, a nudge, the request for a
 * place in the ring's table of files) are struct blk_request in stage WAKE, so that user_data is
 * always a pointer to a request. They count as in flight: a ring must be drained of them too.
 */
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blk/blk_priv.h"

#define URING_SQPOLL_IDLE_MS 1000u
#define URING_SPARE_ENTRIES  4u
#define URING_FILES          64u
/* The kernel registers at most this much as one buffer. */
#define URING_BUFFER_MAX  (1ull << 30)
#define URING_BUFFERS_MAX 16384u
/* So often a submission is tried again when the kernel is short of memory just now. */
#define URING_AGAIN_MAX 100

struct uring_engine {
	struct io_uring own;
	struct io_uring *ring;
	bool borrowed, sqpoll;
	bool unflushed;        /* sqpoll: entries prepared since the last submission */
	int files[2];          /* the image's, in the order fd, fd_buffered */
	int slots[2];          /* their places in the ring's table; -1: none */
	struct iovec *buffers; /* registered memory, by index */
	unsigned nbuffers, last_hit;
	struct blk_request wake;      /* reads the workers' eventfd */
	struct blk_request nudge;     /* does nothing */
	struct blk_request enlist;    /* gets the files their places */
	bool wake_armed, nudge_armed; /* these entries are in the kernel */
	bool enlist_due;
	uint64_t signals;
};

/* What this needs to be there, all of it in Linux 5.6. */
static int uring_probe_operations(struct io_uring *ring)
{
	static const int needed[] = {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV,
		IORING_OP_WRITEV, IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IORING_OP_FSYNC,
		IORING_OP_FALLOCATE, IORING_OP_NOP};
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	int rc = probe ? 0 : -ENOSYS;

	for (size_t i = 0; !rc && i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!io_uring_opcode_supported(probe, needed[i]))
			rc = -ENOSYS;
	if (probe)
		io_uring_free_probe(probe);
	return rc;
}

int blk_uring_probe(char *reason, size_t size)
{
	struct io_uring ring;
	/* As large as a channel's, for its memory may count against a limit. */
	int rc = io_uring_queue_init(BLK_DEPTH_DEFAULT, &ring, 0);

	if (!rc) {
		rc = uring_probe_operations(&ring);
		io_uring_queue_exit(&ring);
	}
	if (rc == -EPERM || rc == -EACCES)
		snprintf(reason, size,
			"not permitted (sysctl kernel.io_uring_disabled, or a seccomp filter)");
	else if (rc == -ENOSYS)
		snprintf(reason, size, "not in this kernel (5.6 or later has it)");
	else if (rc == -ENOMEM)
		snprintf(reason, size, "no memory for a ring (raise ulimit -l)");
	else if (rc)
		snprintf(reason, size, "not available: %s", strerror(-rc));
	return rc;
}

static int uring_open_own(struct blk_channel *ch, struct uring_engine *engine)
{
	unsigned entries = ch->depth + URING_SPARE_ENTRIES;
	struct io_uring_params params = {0};
	int rc;

	if (ch->image->sqpoll) {
		params.flags = IORING_SETUP_SQPOLL | IORING_SETUP_CLAMP;
		params.sq_thread_idle = URING_SQPOLL_IDLE_MS;
		rc = io_uring_queue_init_params(entries, &engine->own, &params);
		engine->sqpoll = rc == 0;
		if (!rc)
			return 0;
		blk_image_note(ch->image, "sqpoll refused (%s)", strerror(-rc));
	}
	memset(&params, 0, sizeof(params));
	params.flags = IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
	rc = io_uring_queue_init_params(entries, &engine->own, &params);
	if (rc != -EINVAL)
		return rc;
	/* Before 5.19 completions interrupt the thread instead. */
	memset(&params, 0, sizeof(params));
	params.flags = IORING_SETUP_CLAMP;
	return io_uring_queue_init_params(entries, &engine->own, &params);
}

/*
 * The table of files of an own ring is filled at once. A borrowed ring's is shared with the
 * other images on it: the kernel is asked for free places by an entry of its own, and until that
 * has completed, or where it is refused, the plain descriptors do.
 */
static void uring_register_files(struct blk_channel *ch, struct uring_engine *engine)
{
	unsigned n = ch->image->fd_buffered >= 0 ? 2 : 1;

	engine->files[0] = ch->image->fd;
	engine->files[1] = ch->image->fd_buffered;
	engine->slots[0] = engine->slots[1] = -1;
	if (engine->borrowed) {
		int rc = io_uring_register_files_sparse(engine->ring, URING_FILES);

		engine->enlist_due = rc == 0 || rc == -EBUSY;
	} else if (io_uring_register_files(engine->ring, engine->files, n) == 0) {
		engine->slots[0] = 0;
		engine->slots[1] = n == 2 ? 1 : -1;
	}
}

static void uring_internal_init(struct blk_channel *ch, struct blk_request *req)
{
	req->channel = ch;
	req->stage = BLK_STAGE_WAKE;
}

static int uring_open(struct blk_channel *ch, const struct blk_channel_options *opts, char *why)
{
	struct uring_engine *engine = calloc(1, sizeof(*engine));
	int rc = engine ? 0 : -ENOMEM;

	if (!rc && opts->ring) {
		engine->ring = opts->ring;
		engine->borrowed = true;
	} else if (!rc) {
		rc = uring_open_own(ch, engine);
		engine->ring = &engine->own;
	}
	if (rc) {
		blk_why(why, "%s: io_uring: %s; use engine=threads", ch->image->name,
			strerror(-rc));
		free(engine);
		return rc;
	}
	uring_internal_init(ch, &engine->wake);
	uring_internal_init(ch, &engine->nudge);
	uring_internal_init(ch, &engine->enlist);
	uring_register_files(ch, engine);
	ch->engine = engine;
	return 0;
}

static void uring_close(struct blk_channel *ch)
{
	struct uring_engine *engine = ch->engine;
	int none = -1;

	blk_pool_close(&ch->pool);
	if (!engine->borrowed) {
		/* The kernel takes a ring down later; until then its table would keep the claim. */
		if (engine->slots[0] >= 0)
			io_uring_unregister_files(&engine->own);
		io_uring_queue_exit(&engine->own);
	}
	for (int i = 0; engine->borrowed && i < 2; i++)
		if (engine->slots[i] >= 0)
			io_uring_register_files_update(
				engine->ring, (unsigned)engine->slots[i], &none, 1);
	free(engine->buffers);
	free(engine);
}

/* Submits what is prepared on the channel's own ring. */
static void uring_commit_own(struct blk_channel *ch, struct uring_engine *engine)
{
	struct io_uring *ring = engine->ring;
	int again = 0, rc;

	if (engine->sqpoll) {
		if (!engine->unflushed)
			return;
		engine->unflushed = false;
		rc = io_uring_submit(ring);
		/* The library enters the kernel only to wake its thread, as this flag says. */
		if (IO_URING_READ_ONCE(*ring->sq.kflags) & IORING_SQ_NEED_WAKEUP)
			blk_count(&ch->system_calls, 1);
		(void)rc;
		return;
	}
	while (io_uring_sq_ready(ring)) {
		blk_count(&ch->system_calls, 1);
		rc = io_uring_submit(ring);
		if (rc >= 0 || rc == -EINTR)
			continue;
		/* Short of memory. With entries in the kernel, the next completion tries again. */
		if (ch->started > io_uring_sq_ready(ring) || ++again > URING_AGAIN_MAX)
			break;
		sched_yield();
	}
}

/* Submits now, on a borrowed ring too. */
static void uring_push(struct blk_channel *ch)
{
	struct uring_engine *engine = ch->engine;

	if (!engine->borrowed) {
		uring_commit_own(ch, engine);
		return;
	}
	io_uring_submit(engine->ring);
	blk_count(&ch->system_calls, 1);
}

static struct io_uring_sqe *uring_entry(struct blk_channel *ch)
{
	struct uring_engine *engine = ch->engine;
	struct io_uring_sqe *sqe = io_uring_get_sqe(engine->ring);

	if (!sqe) {
		uring_push(ch);
		sqe = io_uring_get_sqe(engine->ring);
	}
	engine->unflushed |= sqe != NULL;
	return sqe;
}

/* The index of the registered region that holds all of a buffer; -1: none. */
static int uring_buffer_index(struct uring_engine *engine, const struct iovec *iov)
{
	uintptr_t start = (uintptr_t)iov->iov_base;

	for (unsigned i = 0, at = engine->last_hit; i < engine->nbuffers; i++, at++) {
		uintptr_t base;

		if (at >= engine->nbuffers)
			at = 0;
		base = (uintptr_t)engine->buffers[at].iov_base;
		if (start >= base && iov->iov_len <= engine->buffers[at].iov_len &&
			start - base <= engine->buffers[at].iov_len - iov->iov_len) {
			engine->last_hit = at;
			return (int)at;
		}
	}
	return -1;
}

static void uring_prepare_single(
	struct uring_engine *engine, struct io_uring_sqe *sqe, const struct blk_piece *piece)
{
	unsigned length = (unsigned)piece->iov->iov_len;
	void *base = piece->iov->iov_base;
	int index = engine->nbuffers ? uring_buffer_index(engine, piece->iov) : -1;

	if (index >= 0 && piece->write)
		io_uring_prep_write_fixed(sqe, piece->fd, base, length, piece->offset, index);
	else if (index >= 0)
		io_uring_prep_read_fixed(sqe, piece->fd, base, length, piece->offset, index);
	else if (piece->write)
		io_uring_prep_write(sqe, piece->fd, base, length, piece->offset);
	else
		io_uring_prep_read(sqe, piece->fd, base, length, piece->offset);
}

static void uring_prepare_transfer(struct uring_engine *engine, struct io_uring_sqe *sqe,
	const struct blk_request *req, bool *buffered)
{
	struct blk_piece piece;

	blk_request_piece(req, &piece);
	*buffered = piece.buffered;
	/* A vector belongs to the caller until done(); a single segment may be in `piece`. */
	if (piece.niov == 1)
		uring_prepare_single(engine, sqe, &piece);
	else if (piece.write)
		io_uring_prep_writev(sqe, piece.fd, piece.iov, piece.niov, piece.offset);
	else
		io_uring_prep_readv(sqe, piece.fd, piece.iov, piece.niov, piece.offset);
}

static void uring_use_slot(struct uring_engine *engine, struct io_uring_sqe *sqe, bool buffered)
{
	int slot = engine->slots[buffered];

	if (slot < 0)
		return;
	sqe->fd = slot;
	sqe->flags |= IOSQE_FIXED_FILE;
}

/* One-off entries: asked for when there is something to ask. */
static void uring_start_internal(
	struct blk_channel *ch, struct blk_request *req, struct io_uring_sqe *sqe)
{
	io_uring_sqe_set_data(sqe, req);
	ch->inflight++;
	ch->started++;
}

static void uring_enlist(struct blk_channel *ch, struct uring_engine *engine)
{
	struct io_uring_sqe *sqe;

	if (!engine->enlist_due || !(sqe = uring_entry(ch)))
		return;
	engine->enlist_due = false;
	io_uring_prep_files_update(sqe, engine->files, ch->image->fd_buffered >= 0 ? 2 : 1, 0);
	/* As an unsigned it says "anywhere"; the library's parameter is a signed one. */
	sqe->off = IORING_FILE_INDEX_ALLOC;
	uring_start_internal(ch, &engine->enlist, sqe);
}

static void uring_wake_arm(struct blk_channel *ch, struct uring_engine *engine)
{
	struct io_uring_sqe *sqe;

	if (engine->wake_armed || !ch->pool.outstanding || !(sqe = uring_entry(ch)))
		return;
	io_uring_prep_read(sqe, ch->pool.event_fd, &engine->signals, sizeof(engine->signals), 0);
	engine->wake_armed = true;
	uring_start_internal(ch, &engine->wake, sqe);
}

/* BLKDISCARD is an ioctl, which the ring cannot do: a worker does it. */
static bool uring_start_worker(struct blk_channel *ch, struct blk_request *req)
{
	uint64_t calls = 0;

	if (ch->pool.event_fd < 0 && blk_pool_open(&ch->pool) < 0) {
		blk_request_advance(ch, req, blk_request_run(req, &calls));
		blk_count(&ch->system_calls, calls);
		return true;
	}
	blk_pool_start(&ch->pool, req);
	return true;
}

static bool uring_start(struct blk_channel *ch, struct blk_request *req)
{
	struct uring_engine *engine = ch->engine;
	struct io_uring_sqe *sqe;
	bool buffered = false;

	if (engine->enlist_due)
		uring_enlist(ch, engine);
	if (req->stage == BLK_STAGE_DISCARD || req->stage == BLK_STAGE_FORMAT)
		return uring_start_worker(ch, req);
	sqe = uring_entry(ch);
	if (!sqe)
		return false;
	if (req->stage == BLK_STAGE_DATA || req->stage == BLK_STAGE_ZEROES)
		uring_prepare_transfer(engine, sqe, req, &buffered);
	else if (req->stage == BLK_STAGE_SYNC)
		io_uring_prep_fsync(sqe, ch->image->fd, IORING_FSYNC_DATASYNC);
	else
		io_uring_prep_fallocate(sqe, ch->image->fd, blk_request_falloc_mode(req),
			(off_t)req->offset, (off_t)req->length);
	uring_use_slot(engine, sqe, buffered);
	io_uring_sqe_set_data(sqe, req);
	return true;
}

static void uring_commit(struct blk_channel *ch)
{
	struct uring_engine *engine = ch->engine;

	blk_pool_commit(ch);
	uring_wake_arm(ch, engine);
	if (!engine->borrowed)
		uring_commit_own(ch, engine);
}

static void uring_complete_internal(struct blk_channel *ch, struct blk_request *req, int res)
{
	struct uring_engine *engine = ch->engine;

	ch->inflight--;
	ch->started--;
	if (req == &engine->enlist && res > 0) {
		/* The kernel has put the places where the descriptors were. */
		engine->slots[0] = engine->files[0];
		engine->slots[1] = res == 2 ? engine->files[1] : -1;
	} else if (req == &engine->nudge) {
		engine->nudge_armed = false;
	} else if (req == &engine->wake) {
		engine->wake_armed = false;
		blk_pool_reap(ch);
		uring_wake_arm(ch, engine);
	}
}

static void uring_complete(struct blk_request *req, int res)
{
	if (req->stage == BLK_STAGE_WAKE)
		uring_complete_internal(req->channel, req, res);
	else
		blk_request_advance(req->channel, req, res);
}

static void uring_reap(struct blk_channel *ch)
{
	struct uring_engine *engine = ch->engine;
	struct io_uring *ring = engine->ring;
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	if (engine->borrowed)
		return;
	/* Completions that wait for this thread to enter the kernel. */
	if (IO_URING_READ_ONCE(*ring->sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) {
		blk_count(&ch->system_calls, 1);
		io_uring_get_events(ring);
	}
	io_uring_for_each_cqe(ring, head, cqe)
	{
		uring_complete(io_uring_cqe_get_data(cqe), cqe->res);
		n++;
	}
	io_uring_cq_advance(ring, n);
	/* Entries left over from a refused submission, or made just now. */
	if (engine->sqpoll ? engine->unflushed : io_uring_sq_ready(ring))
		uring_commit_own(ch, engine);
}

void blk_uring_complete(uint64_t user_data, int res)
{
	struct blk_request *req = (struct blk_request *)(uintptr_t)user_data;
	struct blk_channel *ch = req->channel;

	uring_complete(req, res);
	blk_channel_go_on(ch);
}

static void uring_nudge(struct blk_channel *ch)
{
	struct uring_engine *engine = ch->engine;
	struct io_uring_sqe *sqe;

	if (engine->nudge_armed || !(sqe = uring_entry(ch)))
		return;
	io_uring_prep_nop(sqe);
	engine->nudge_armed = true;
	uring_start_internal(ch, &engine->nudge, sqe);
	if (!engine->borrowed)
		uring_commit_own(ch, engine);
}

static int uring_fd(const struct blk_channel *ch)
{
	const struct uring_engine *engine = ch->engine;

	return engine->borrowed ? -1 : engine->ring->ring_fd;
}

/* Splits regions into pieces the kernel takes; 0 when there are too many. */
static unsigned uring_split(const struct iovec *regions, unsigned n, struct iovec *out)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		for (size_t at = 0; at < regions[i].iov_len; at += URING_BUFFER_MAX) {
			size_t left = regions[i].iov_len - at;

			if (count == URING_BUFFERS_MAX)
				return 0;
			if (out) {
				out[count].iov_base = (char *)regions[i].iov_base + at;
				out[count].iov_len =
					left < URING_BUFFER_MAX ? left : URING_BUFFER_MAX;
			}
			count++;
		}
	}
	return count;
}

static int uring_register_memory(struct blk_channel *ch, const struct iovec *regions, unsigned n)
{
	struct uring_engine *engine = ch->engine;
	unsigned count = uring_split(regions, n, NULL);
	struct iovec *buffers;
	int rc;

	if (!count || engine->buffers)
		return engine->buffers ? -EBUSY : -EINVAL;
	buffers = calloc(count, sizeof(*buffers));
	if (!buffers)
		return -ENOMEM;
	uring_split(regions, n, buffers);
	rc = io_uring_register_buffers(engine->ring, buffers, count);
	/* Another channel on the same ring was first, with the same guest's memory. */
	if (rc == -EBUSY && engine->borrowed)
		rc = 0;
	if (rc) {
		blk_image_note(
			ch->image, "guest memory not registered: %s (ulimit -l)", strerror(-rc));
		free(buffers);
		return rc;
	}
	engine->buffers = buffers;
	engine->nbuffers = count;
	return 0;
}

const struct blk_engine_ops blk_engine_uring = {
	.open = uring_open,
	.close = uring_close,
	.start = uring_start,
	.commit = uring_commit,
	.push = uring_push,
	.reap = uring_reap,
	.nudge = uring_nudge,
	.fd = uring_fd,
	.register_memory = uring_register_memory,
};
