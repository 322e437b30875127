/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The layer's thread, with its channel below, and the engine that channels above see: one that
 * hands every request to the thread.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "blk/fault_priv.h"

/* An eventfd never blocks a writer that adds 1 and a reader that takes all. */
static void fault_signal(int fd)
{
	uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void fault_drain(int fd)
{
	uint64_t n;

	while (read(fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
}

static uint64_t fault_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ------------------------------------------------------------------ requests that end */

static void fault_deliver(struct blk_fault *f, struct blk_request *req)
{
	struct fault_front *front = req->channel->engine;
	bool first;

	/* The signal under the lock too: afterwards the channel may close its descriptor. */
	pthread_mutex_lock(&f->lock);
	f->sum = f->counters;
	first = !front->finished.head;
	blk_queue_push(&front->finished, req);
	if (first)
		fault_signal(front->event_fd);
	pthread_mutex_unlock(&f->lock);
}

void fault_finish(struct blk_fault *f, struct blk_request *req, int res)
{
	req->result = res;
	if (!f->spec.delay_us) {
		fault_deliver(f, req);
		return;
	}
	req->moved = fault_now_ns() + f->spec.delay_us * 1000ull;
	blk_queue_push(&f->delayed, req);
}

/* In ns; -1: nothing is delayed. */
static int64_t fault_deliver_due(struct blk_fault *f)
{
	uint64_t now = f->delayed.head ? fault_now_ns() : 0;

	while (f->delayed.head && f->delayed.head->moved <= now)
		fault_deliver(f, blk_queue_pop(&f->delayed));
	return f->delayed.head ? (int64_t)(f->delayed.head->moved - now) : -1;
}

/* ------------------------------------------------------------------ the channel below */

static void fault_io_done(struct blk_request *req, int res)
{
	struct fault_io *io = req->owner;
	struct blk_fault *f = io->fault;

	if (io->parent) {
		fault_finish(f, io->parent, res);
	} else {
		f->batch_left--;
		if (res)
			f->batch_error = res;
		for (unsigned i = 0; !res && i < io->nentries; i++)
			fault_cache_drop(&f->cache, io->entries[i]);
		f->counters.written += res ? 0 : io->nentries;
	}
	io->next = f->free_ios;
	f->free_ios = io;
}

static void fault_pump(struct blk_fault *f)
{
	struct pollfd pfd = {.fd = blk_channel_fd(f->below), .events = POLLIN};

	blk_kick(f->below);
	if (!blk_poll(f->below) && blk_channel_inflight(f->below))
		poll(&pfd, 1, -1);
}

struct fault_io *fault_io_get(struct blk_fault *f)
{
	struct fault_io *io;

	while (!f->free_ios)
		fault_pump(f);
	io = f->free_ios;
	f->free_ios = io->next;
	return io;
}

void fault_io_start(struct blk_fault *f, struct fault_io *io, struct blk_request *parent)
{
	io->fault = f;
	io->parent = parent;
	io->req.owner = io;
	io->req.done = fault_io_done;
	if (!parent)
		f->batch_left++;
	blk_submit(f->below, &io->req);
}

int fault_batch_wait(struct blk_fault *f)
{
	int rc;

	while (f->batch_left)
		fault_pump(f);
	rc = f->batch_error;
	f->batch_error = 0;
	return rc;
}

/* ------------------------------------------------------------------ the thread */

static int fault_thread_open(struct blk_fault *f)
{
	int rc;

	for (unsigned i = 0; i < FAULT_IOS; i++) {
		f->ios[i].next = f->free_ios;
		f->free_ios = &f->ios[i];
	}
	pthread_mutex_lock(&f->lock);
	rc = blk_channel_open_below(&f->below, f->image, f->ready_why);
	f->ready_result = rc;
	f->ready = true;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

static void fault_thread_sync(struct blk_fault *f, unsigned asked)
{
	int rc = fault_write_back_all(f);

	if (!rc)
		rc = fault_below_flush(f);
	pthread_mutex_lock(&f->lock);
	f->synced = asked;
	f->sync_result = rc;
	f->sum = f->counters;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

static void fault_thread_sleep(struct blk_fault *f, int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	struct pollfd pfd[2] = {
		{.fd = f->event_fd, .events = POLLIN},
		{.fd = blk_channel_fd(f->below), .events = POLLIN},
	};

	ppoll(pfd, 2, ns < 0 ? NULL : &ts, NULL);
	if (pfd[0].revents)
		fault_drain(f->event_fd);
}

void *fault_thread(void *arg)
{
	struct blk_fault *f = arg;
	bool stop = fault_thread_open(f) != 0, failed = stop;

	while (!stop) {
		struct blk_queue todo;
		struct blk_request *req;
		unsigned asked, synced;
		int64_t ns;

		pthread_mutex_lock(&f->lock);
		todo = f->inbox;
		f->inbox = (struct blk_queue){NULL, NULL};
		stop = f->stop;
		asked = f->sync_asked;
		synced = f->synced;
		pthread_mutex_unlock(&f->lock);

		while ((req = blk_queue_pop(&todo)))
			fault_serve(f, req);
		if (asked != synced)
			fault_thread_sync(f, asked);
		blk_kick(f->below);
		if (blk_poll(f->below))
			ns = 0;
		else
			ns = fault_deliver_due(f);
		if (!stop && ns)
			fault_thread_sleep(f, ns);
	}
	if (!failed) {
		fault_write_back_all(f);
		blk_channel_close(f->below);
	}
	return NULL;
}

/* ------------------------------------------------------------------ the engine above */

static int front_open(struct blk_channel *ch, const struct blk_channel_options *opts, char *why)
{
	struct fault_front *front = calloc(1, sizeof(*front));
	int rc = -ENOMEM;

	(void)opts;
	if (!front)
		goto fail;
	front->fault = ch->image->fault;
	front->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = -errno;
	if (front->event_fd < 0)
		goto fail;
	ch->engine = front;
	return 0;
fail:
	blk_why(why, "%s: no descriptor or memory for a channel (errno %d)", ch->image->name, -rc);
	free(front);
	return rc;
}

static void front_close(struct blk_channel *ch)
{
	struct fault_front *front = ch->engine;

	/* The thread may still be about to give the lock back after its last signal. */
	pthread_mutex_lock(&front->fault->lock);
	pthread_mutex_unlock(&front->fault->lock);
	close(front->event_fd);
	free(front);
}

static bool front_start(struct blk_channel *ch, struct blk_request *req)
{
	struct fault_front *front = ch->engine;

	blk_queue_push(&front->batch, req);
	return true;
}

static void front_commit(struct blk_channel *ch)
{
	struct fault_front *front = ch->engine;
	struct blk_fault *f = front->fault;
	bool first;

	if (!front->batch.head)
		return;
	pthread_mutex_lock(&f->lock);
	first = !f->inbox.head;
	blk_queue_splice(&f->inbox, &front->batch);
	pthread_mutex_unlock(&f->lock);
	if (first) {
		fault_signal(f->event_fd);
		blk_count(&ch->system_calls, 1);
	}
}

static void front_reap(struct blk_channel *ch)
{
	struct fault_front *front = ch->engine;
	struct blk_queue finished;
	struct blk_request *req;

	fault_drain(front->event_fd);
	blk_count(&ch->system_calls, 1);
	pthread_mutex_lock(&front->fault->lock);
	finished = front->finished;
	front->finished = (struct blk_queue){NULL, NULL};
	pthread_mutex_unlock(&front->fault->lock);
	while ((req = blk_queue_pop(&finished))) {
		ch->started--;
		blk_request_finish(ch, req, req->result);
	}
}

static void front_nudge(struct blk_channel *ch)
{
	struct fault_front *front = ch->engine;

	fault_signal(front->event_fd);
}

static int front_fd(const struct blk_channel *ch)
{
	const struct fault_front *front = ch->engine;

	return front->event_fd;
}

const struct blk_engine_ops blk_engine_fault = {
	.open = front_open,
	.close = front_close,
	.start = front_start,
	.commit = front_commit,
	.push = front_commit,
	.reap = front_reap,
	.nudge = front_nudge,
	.fd = front_fd,
	.any_buffer = true,
};
