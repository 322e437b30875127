/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine that needs nothing from the host: blocking calls on worker threads. What is only a
 * copy from memory (the page cache, a file system in memory) is done in place, because handing
 * it to another thread costs more than the copy.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "blk/blk_priv.h"

/* Longer copies would keep the channel's thread from its other work. */
#define THREADS_INLINE_MAX (64u << 10)

struct threads_engine {
	bool no_nowait; /* the file system does not know "only if in memory" */
};

static int threads_open(struct blk_channel *ch, const struct blk_channel_options *opts, char *why)
{
	struct threads_engine *engine = calloc(1, sizeof(*engine));
	int rc;

	(void)opts;
	rc = engine ? blk_pool_open(&ch->pool) : -ENOMEM;
	if (rc) {
		blk_why(why, "%s: no descriptor or memory for a channel (errno %d)",
			ch->image->name, -rc);
		free(engine);
		return rc;
	}
	ch->engine = engine;
	return 0;
}

static void threads_close(struct blk_channel *ch)
{
	blk_pool_close(&ch->pool);
	free(ch->engine);
}

/* True: the step has ended here. */
static bool threads_start_inline(struct blk_channel *ch, struct blk_request *req)
{
	struct threads_engine *engine = ch->engine;
	uint64_t calls = 0;
	struct blk_piece piece;
	ssize_t n;

	if (req->stage != BLK_STAGE_DATA || req->length > THREADS_INLINE_MAX)
		return false;
	if (ch->image->inline_reads) {
		n = blk_request_run(req, &calls);
		blk_count(&ch->system_calls, calls);
		blk_request_advance(ch, req, n);
		return true;
	}
	if (ch->image->info.direct || req->op != BLK_READ || engine->no_nowait)
		return false;
	blk_request_piece(req, &piece);
	n = preadv2(piece.fd, piece.iov, (int)piece.niov, (off_t)piece.offset, RWF_NOWAIT);
	blk_count(&ch->system_calls, 1);
	if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		engine->no_nowait = true;
	/* Everything else, the end of the file too, is for a worker to find. */
	if (n <= 0)
		return false;
	blk_request_advance(ch, req, n);
	return true;
}

static bool threads_start(struct blk_channel *ch, struct blk_request *req)
{
	if (!threads_start_inline(ch, req))
		blk_pool_start(&ch->pool, req);
	return true;
}

static void threads_reap(struct blk_channel *ch)
{
	if (!blk_pool_reap(ch) && blk_pool_drain(ch))
		blk_pool_reap(ch);
}

static int threads_fd(const struct blk_channel *ch)
{
	return ch->pool.event_fd;
}

const struct blk_engine_ops blk_engine_threads = {
	.open = threads_open,
	.close = threads_close,
	.start = threads_start,
	.commit = blk_pool_commit,
	.push = blk_pool_commit,
	.reap = threads_reap,
	.nudge = blk_pool_nudge,
	.fd = threads_fd,
};
