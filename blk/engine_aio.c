/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linux native AIO through libaio, for hosts that forbid io_uring. Transfers and flushes go to the
 * kernel's queue; the rest goes to workers. Both signal one eventfd. Completions are taken from
 * the ring the kernel shares, without a system call.
 */
#include <errno.h>
#include <libaio.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blk/blk_priv.h"

#define AIO_AGAIN_MAX 100
#define AIO_REAP_MAX  64

/* What io_setup() maps, from the kernel's fs/aio.c; events follow at header_length. */
#define AIO_RING_MAGIC 0xa10a10a1u
struct aio_shared_ring {
	unsigned id;
	unsigned nr;
	_Atomic unsigned head;
	_Atomic unsigned tail;
	unsigned magic;
	unsigned compat_features;
	unsigned incompat_features;
	unsigned header_length;
};

struct aio_engine {
	io_context_t context;
	struct iocb *iocbs;  /* depth of them */
	uint32_t *free;      /* indices of iocbs not used */
	struct iocb **batch; /* prepared, in order */
	uint32_t nfree, nbatch;
	bool no_fdsync; /* the file system cannot flush asynchronously */
};

int blk_aio_probe(char *reason, size_t size)
{
	io_context_t context = NULL;
	int rc = io_setup(1, &context);

	if (!rc)
		io_destroy(context);
	else if (rc == -EAGAIN)
		snprintf(reason, size, "all contexts in use (raise sysctl fs.aio-max-nr)");
	else if (rc == -ENOSYS)
		snprintf(reason, size, "not in this kernel");
	else
		snprintf(reason, size, "not available: %s", strerror(-rc));
	return rc;
}

static void aio_free(struct aio_engine *engine)
{
	if (engine->context)
		io_destroy(engine->context);
	free(engine->iocbs);
	free(engine->free);
	free(engine->batch);
	free(engine);
}

static int aio_setup(struct blk_channel *ch, struct aio_engine *engine)
{
	int rc;

	engine->iocbs = calloc(ch->depth, sizeof(*engine->iocbs));
	engine->free = calloc(ch->depth, sizeof(*engine->free));
	engine->batch = calloc(ch->depth, sizeof(*engine->batch));
	if (!engine->iocbs || !engine->free || !engine->batch)
		return -ENOMEM;
	for (uint32_t i = 0; i < ch->depth; i++)
		engine->free[engine->nfree++] = i;
	rc = io_setup((int)ch->depth, &engine->context);
	return rc ? rc : blk_pool_open(&ch->pool);
}

static int aio_open(struct blk_channel *ch, const struct blk_channel_options *opts, char *why)
{
	struct aio_engine *engine = calloc(1, sizeof(*engine));
	int rc;

	(void)opts;
	rc = engine ? aio_setup(ch, engine) : -ENOMEM;
	if (rc) {
		blk_why(why, "%s: aio: %s%s; or use engine=threads", ch->image->name, strerror(-rc),
			rc == -EAGAIN ? "; raise sysctl fs.aio-max-nr" : "");
		if (engine)
			aio_free(engine);
		return rc;
	}
	ch->engine = engine;
	if (!ch->image->info.direct)
		blk_image_note(ch->image, "aio blocks when submitting without direct I/O");
	return 0;
}

static void aio_close(struct blk_channel *ch)
{
	blk_pool_close(&ch->pool);
	aio_free(ch->engine);
}

static void aio_prepare_transfer(struct iocb *iocb, const struct blk_request *req)
{
	struct blk_piece piece;
	long long offset;

	blk_request_piece(req, &piece);
	offset = (long long)piece.offset;
	if (piece.niov == 1 && piece.write)
		io_prep_pwrite(iocb, piece.fd, piece.one.iov_base, piece.one.iov_len, offset);
	else if (piece.niov == 1)
		io_prep_pread(iocb, piece.fd, piece.one.iov_base, piece.one.iov_len, offset);
	else if (piece.write)
		io_prep_pwritev(iocb, piece.fd, piece.iov, (int)piece.niov, offset);
	else
		io_prep_preadv(iocb, piece.fd, piece.iov, (int)piece.niov, offset);
}

static bool aio_start(struct blk_channel *ch, struct blk_request *req)
{
	struct aio_engine *engine = ch->engine;
	struct iocb *iocb;

	if (req->stage != BLK_STAGE_DATA && req->stage != BLK_STAGE_ZEROES &&
		(req->stage != BLK_STAGE_SYNC || engine->no_fdsync)) {
		blk_pool_start(&ch->pool, req);
		return true;
	}
	if (!engine->nfree)
		return false;
	req->slot = engine->free[--engine->nfree];
	iocb = &engine->iocbs[req->slot];
	if (req->stage == BLK_STAGE_SYNC)
		io_prep_fdsync(iocb, ch->image->fd);
	else
		aio_prepare_transfer(iocb, req);
	io_set_eventfd(iocb, ch->pool.event_fd);
	iocb->data = req;
	engine->batch[engine->nbatch++] = iocb;
	return true;
}

static void aio_ended(struct blk_channel *ch, struct blk_request *req, int64_t res)
{
	struct aio_engine *engine = ch->engine;

	engine->free[engine->nfree++] = req->slot;
	blk_request_advance(ch, req, res);
}

/* The kernel refused the first entry of the batch for itself. */
static void aio_refused(struct blk_channel *ch, struct iocb *iocb, int error)
{
	struct aio_engine *engine = ch->engine;
	struct blk_request *req = iocb->data;

	if (req->stage == BLK_STAGE_SYNC && error == -EINVAL) {
		engine->no_fdsync = true;
		error = -EAGAIN; /* the next try goes to a worker */
	}
	aio_ended(ch, req, error);
}

static void aio_submit_batch(struct blk_channel *ch, struct aio_engine *engine)
{
	uint32_t sent = 0, again = 0;

	while (sent < engine->nbatch) {
		int n = io_submit(engine->context, engine->nbatch - sent, engine->batch + sent);

		blk_count(&ch->system_calls, 1);
		if (n > 0) {
			sent += (uint32_t)n;
		} else if (n == -EAGAIN || n == -EINTR || n == 0) {
			/* With others in the kernel, their completion tries again. */
			if (n != -EINTR && ch->depth - engine->nfree > engine->nbatch - sent)
				break;
			if (++again > AIO_AGAIN_MAX)
				break;
			sched_yield();
		} else {
			aio_refused(ch, engine->batch[sent++], n);
		}
	}
	engine->nbatch -= sent;
	memmove(engine->batch, engine->batch + sent, engine->nbatch * sizeof(engine->batch[0]));
}

static void aio_commit(struct blk_channel *ch)
{
	struct aio_engine *engine = ch->engine;

	blk_pool_commit(ch);
	if (engine->nbatch)
		aio_submit_batch(ch, engine);
}

static unsigned aio_reap_shared(struct blk_channel *ch, struct aio_shared_ring *ring)
{
	struct io_event *events = (struct io_event *)((char *)ring + ring->header_length);
	/* Pairs with the kernel's write barrier between an event and the tail. */
	unsigned tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
	unsigned head = atomic_load_explicit(&ring->head, memory_order_relaxed), n = 0;

	while (head != tail) {
		struct io_event event = events[head];

		head = head + 1 == ring->nr ? 0 : head + 1;
		n++;
		/* The entry is free for the kernel only after it has been copied. */
		atomic_store_explicit(&ring->head, head, memory_order_release);
		aio_ended(ch, event.data, (long)event.res);
	}
	return n;
}

static unsigned aio_reap_called(struct blk_channel *ch, struct aio_engine *engine)
{
	struct io_event events[AIO_REAP_MAX];
	struct timespec now = {0, 0};
	int n = io_getevents(engine->context, 0, AIO_REAP_MAX, events, &now);

	blk_count(&ch->system_calls, 1);
	for (int i = 0; i < n; i++)
		aio_ended(ch, events[i].data, (long)events[i].res);
	return n > 0 ? (unsigned)n : 0;
}

static unsigned aio_reap_once(struct blk_channel *ch)
{
	struct aio_engine *engine = ch->engine;
	struct aio_shared_ring *ring = (struct aio_shared_ring *)engine->context;
	unsigned n = 0;

	if (engine->nfree + engine->nbatch < ch->depth) {
		if (ring->magic == AIO_RING_MAGIC && !ring->incompat_features)
			n = aio_reap_shared(ch, ring);
		else
			n = aio_reap_called(ch, engine);
	}
	/* Each of these writes the eventfd once, each round of the workers too. */
	ch->pool.unread += n;
	return n + blk_pool_reap(ch);
}

static void aio_reap(struct blk_channel *ch)
{
	struct aio_engine *engine = ch->engine;

	if (!aio_reap_once(ch) && blk_pool_drain(ch))
		aio_reap_once(ch);
	if (engine->nbatch)
		aio_submit_batch(ch, engine);
}

static int aio_fd(const struct blk_channel *ch)
{
	return ch->pool.event_fd;
}

const struct blk_engine_ops blk_engine_aio = {
	.open = aio_open,
	.close = aio_close,
	.start = aio_start,
	.commit = aio_commit,
	.push = aio_commit,
	.reap = aio_reap,
	.nudge = blk_pool_nudge,
	.fd = aio_fd,
};
