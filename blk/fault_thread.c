/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The layer's thread, with its channel below, and the engine that channels above see: one that
 * hands every request to the thread.
 */
#include <poll.h>
#include <time.h>

#include "blk/fault_priv.h"

static uint64_t fault_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ------------------------------------------------------------------ requests that end */

static void fault_deliver(struct blk_fault *f, struct blk_request *req)
{
	pthread_mutex_lock(&f->relay.lock);
	f->sum = f->counters;
	blk_relay_deliver(&f->relay, req);
	pthread_mutex_unlock(&f->relay.lock);
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
	pthread_mutex_lock(&f->relay.lock);
	rc = blk_channel_open_below(&f->below, f->image, f->ready_why);
	f->ready_result = rc;
	f->ready = true;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->relay.lock);
	return rc;
}

static void fault_thread_sync(struct blk_fault *f, unsigned asked)
{
	int rc = fault_write_back_all(f);

	if (!rc)
		rc = fault_below_flush(f);
	pthread_mutex_lock(&f->relay.lock);
	f->synced = asked;
	f->sync_result = rc;
	f->sum = f->counters;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->relay.lock);
}

static void fault_thread_sleep(struct blk_fault *f, int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	struct pollfd pfd[2] = {
		{.fd = f->relay.event_fd, .events = POLLIN},
		{.fd = blk_channel_fd(f->below), .events = POLLIN},
	};

	ppoll(pfd, 2, ns < 0 ? NULL : &ts, NULL);
	if (pfd[0].revents)
		blk_relay_woken(&f->relay);
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

		pthread_mutex_lock(&f->relay.lock);
		todo = f->relay.inbox;
		f->relay.inbox = (struct blk_queue){NULL, NULL};
		stop = f->stop;
		asked = f->sync_asked;
		synced = f->synced;
		pthread_mutex_unlock(&f->relay.lock);

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
	(void)opts;
	return blk_relay_attach(ch, &ch->image->fault->relay, why);
}

const struct blk_engine_ops blk_engine_fault = {
	.open = front_open,
	.close = blk_relay_detach,
	.start = blk_relay_start,
	.commit = blk_relay_commit,
	.push = blk_relay_commit,
	.reap = blk_relay_reap,
	.nudge = blk_relay_nudge,
	.fd = blk_relay_fd,
	.any_buffer = true,
};
