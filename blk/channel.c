/* SPDX-License-Identifier: BSD-2-Clause */
/* A channel: what was submitted, what may start, what is finished. The same for every engine. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "blk/blk_priv.h"

/*
 * done() may submit again, and what it submits may finish at once. So many times one kick goes
 * round; what is left then waits for the next poll, so that no kick lasts forever.
 */
#define CHANNEL_ROUNDS 8

static const struct blk_engine_ops *const channel_engines[] = {
	[BLK_ENGINE_URING] = &blk_engine_uring,
	[BLK_ENGINE_AIO] = &blk_engine_aio,
	[BLK_ENGINE_THREADS] = &blk_engine_threads,
	[BLK_ENGINE_NBD] = &blk_engine_nbd,
};

static int channel_open_engine(
	struct blk_channel *ch, const struct blk_channel_options *opts, bool below, char *why)
{
	enum blk_engine engine = blk_image_engine(ch->image);
	int rc;

	if (ch->image->fault && !below) {
		ch->ops = &blk_engine_fault;
		return ch->ops->open(ch, opts, why);
	}
	ch->ops = channel_engines[engine];
	rc = ch->ops->open(ch, opts, why);
	/* A limit was reached since the image was opened; threads ask for the least. */
	if (rc && ch->image->engine_auto && engine != BLK_ENGINE_THREADS && !ch->image->nbd) {
		blk_image_note(
			ch->image, "%s: %s: using threads", blk_engine_name(engine), strerror(-rc));
		blk_image_engine_set(ch->image, BLK_ENGINE_THREADS);
		ch->ops = &blk_engine_threads;
		rc = ch->ops->open(ch, opts, why);
	}
	return rc;
}

static int channel_open(struct blk_channel **out, struct blk_image *image,
	const struct blk_channel_options *opts, bool below, char *why)
{
	static const struct blk_channel_options defaults;
	struct blk_channel *ch = calloc(1, sizeof(*ch));
	int rc;

	if (!ch) {
		blk_why(why, "%s: no memory", image->name);
		return -ENOMEM;
	}
	if (!opts)
		opts = &defaults;
	ch->image = image;
	ch->depth = opts->depth ? opts->depth : BLK_DEPTH_DEFAULT;
	if (ch->depth > BLK_DEPTH_MAX)
		ch->depth = BLK_DEPTH_MAX;
	/* What is in memory already is best had with as few calls as can be. */
	ch->batch = opts->batch ? opts->batch : BLK_BATCH_DEFAULT;
	if (!image->info.direct)
		ch->batch = UINT32_MAX;
	ch->pool.event_fd = -1;
	rc = channel_open_engine(ch, opts, below, why);
	if (rc) {
		free(ch);
		return rc;
	}
	*out = ch;
	return 0;
}

int blk_channel_open(struct blk_channel **out, struct blk_image *image,
	const struct blk_channel_options *opts, char why[BLK_WHY_MAX])
{
	return channel_open(out, image, opts, false, why);
}

int blk_channel_open_below(struct blk_channel **out, struct blk_image *image, char why[BLK_WHY_MAX])
{
	return channel_open(out, image, NULL, true, why);
}

static void channel_wait(struct blk_channel *ch)
{
	struct pollfd pfd = {.fd = ch->ops->fd(ch), .events = POLLIN};

	poll(&pfd, 1, -1);
}

void blk_channel_close(struct blk_channel *ch)
{
	if (!ch)
		return;
	assert(!ch->inflight || ch->ops->fd(ch) >= 0);
	while (ch->inflight) {
		blk_kick(ch);
		if (!blk_poll(ch) && ch->inflight)
			channel_wait(ch);
	}
	ch->ops->close(ch);
	blk_bounce_free(ch);
	free(ch);
}

void blk_submit(struct blk_channel *ch, struct blk_request *req)
{
	req->channel = ch;
	req->bounce = NULL;
	req->moved = 0;
	req->retries = 0;
	req->stage = BLK_STAGE_DATA;
	req->checked = false;
	req->mapped = 0;
	req->result = 0;
	req->at = req->offset;
	ch->inflight++;
	blk_count(&ch->requests, 1);
	blk_queue_push(&ch->queue, req);
}

/* False: nothing more can be started now. */
static bool channel_start_one(struct blk_channel *ch, struct blk_request *req)
{
	bool checked = req->checked;
	int rc = checked ? 0 : blk_request_check(ch, req);

	/* A layer above the format passes requests on as they are. */
	if (!rc && !checked && ch->image->qcow2 && ch->ops != &blk_engine_fault)
		rc = blk_qcow2_start(ch->image, req);
	if (rc) {
		blk_request_finish(ch, req, rc < 0 ? rc : 0);
		return true;
	}
	if (!blk_request_bounce(ch, req)) {
		if (req->result == -EPERM) {
			blk_request_finish(ch, req, -EPERM);
			return true;
		}
		if (ch->bounce.nmade > ch->bounce.nfree) {
			/* One of those in use will come free. */
			blk_queue_push_front(&ch->queue, req);
			return false;
		}
		blk_request_finish(ch, req, -ENOMEM);
		return true;
	}
	ch->started++;
	if (ch->ops->start(ch, req))
		return true;
	ch->started--;
	blk_queue_push_front(&ch->queue, req);
	return false;
}

static void channel_start(struct blk_channel *ch)
{
	uint32_t n = 0;

	while (ch->queue.head && ch->started < ch->depth) {
		if (n++ >= ch->batch) {
			ch->ops->push(ch);
			n = 1;
		}
		if (!channel_start_one(ch, blk_queue_pop(&ch->queue)))
			break;
	}
	ch->starved = ch->queue.head != NULL;
	ch->ops->commit(ch);
}

/* Calls done() for what is finished now, not for what these calls add. */
static unsigned channel_deliver(struct blk_channel *ch)
{
	struct blk_queue now = ch->finished;
	struct blk_request *req;
	unsigned n = 0;

	if (ch->delivering || !now.head)
		return 0;
	ch->finished = (struct blk_queue){NULL, NULL};
	ch->delivering = true;
	while ((req = blk_queue_pop(&now))) {
		ch->inflight--;
		n++;
		req->done(req, req->result);
	}
	ch->delivering = false;
	return n;
}

void blk_kick(struct blk_channel *ch)
{
	if (!ch->queue.head && !ch->finished.head)
		return;
	channel_start(ch);
	if (ch->delivering)
		return;
	for (int i = 0; i < CHANNEL_ROUNDS && channel_deliver(ch); i++)
		if (ch->queue.head && !ch->starved)
			channel_start(ch);
	/* What the last done() added starts with the next completion, or with a nudge. */
	ch->starved = ch->queue.head != NULL;
	if (ch->finished.head || (ch->queue.head && !ch->started))
		ch->ops->nudge(ch);
}

unsigned blk_channel_go_on(struct blk_channel *ch)
{
	if (ch->starved)
		channel_start(ch);
	return channel_deliver(ch);
}

unsigned blk_poll(struct blk_channel *ch)
{
	if (ch->delivering)
		return 0;
	ch->ops->reap(ch);
	return blk_channel_go_on(ch);
}

int blk_channel_fd(const struct blk_channel *ch)
{
	return ch->ops->fd(ch);
}

uint32_t blk_channel_inflight(const struct blk_channel *ch)
{
	return ch->inflight;
}

void blk_channel_counters_get(const struct blk_channel *ch, struct blk_channel_counters *out)
{
	out->requests = atomic_load_explicit(&ch->requests, memory_order_relaxed);
	out->bounced = atomic_load_explicit(&ch->bounced, memory_order_relaxed);
	out->system_calls = atomic_load_explicit(&ch->system_calls, memory_order_relaxed) +
			    atomic_load_explicit(&ch->pool.system_calls, memory_order_relaxed);
}

int blk_channel_register_memory(struct blk_channel *ch, const struct iovec *regions, unsigned n)
{
	if (!ch->image->registered_memory)
		return 0;
	if (!ch->ops->register_memory) {
		blk_image_note(ch->image, "guest memory is registered with io_uring only");
		return -EOPNOTSUPP;
	}
	return ch->ops->register_memory(ch, regions, n);
}
