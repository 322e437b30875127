/* SPDX-License-Identifier: BSD-2-Clause */
/* Channels whose requests another thread does: the way there and back. */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blk/blk_priv.h"

/* A channel's side. */
struct relay_front {
	struct blk_relay *relay;
	struct blk_queue batch;    /* channel's thread */
	struct blk_queue finished; /* under the relay's lock */
	int event_fd;
};

/* An eventfd never blocks a writer that adds 1 and a reader that takes all. */
static void relay_signal(int fd)
{
	uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void relay_drain(int fd)
{
	uint64_t n;

	while (read(fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
}

/* ------------------------------------------------------------------ the thread's side */

int blk_relay_open(struct blk_relay *relay)
{
	pthread_mutex_init(&relay->lock, NULL);
	relay->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return relay->event_fd < 0 ? -errno : 0;
}

void blk_relay_close(struct blk_relay *relay)
{
	if (relay->event_fd >= 0)
		close(relay->event_fd);
	pthread_mutex_destroy(&relay->lock);
}

void blk_relay_wake(struct blk_relay *relay)
{
	relay_signal(relay->event_fd);
}

void blk_relay_woken(struct blk_relay *relay)
{
	relay_drain(relay->event_fd);
}

void blk_relay_deliver(struct blk_relay *relay, struct blk_request *req)
{
	struct relay_front *front = req->channel->engine;
	bool first = !front->finished.head;

	(void)relay;
	blk_queue_push(&front->finished, req);
	/* with the lock held: afterwards the channel may close its descriptor */
	if (first)
		relay_signal(front->event_fd);
}

/* ------------------------------------------------------------------ the channel's side */

int blk_relay_attach(struct blk_channel *ch, struct blk_relay *relay, char *why)
{
	struct relay_front *front = calloc(1, sizeof(*front));
	int rc = -ENOMEM;

	if (!front)
		goto fail;
	front->relay = relay;
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

void blk_relay_detach(struct blk_channel *ch)
{
	struct relay_front *front = ch->engine;

	/* The thread may still be about to give the lock back after its last signal. */
	pthread_mutex_lock(&front->relay->lock);
	pthread_mutex_unlock(&front->relay->lock);
	close(front->event_fd);
	free(front);
}

bool blk_relay_start(struct blk_channel *ch, struct blk_request *req)
{
	struct relay_front *front = ch->engine;

	blk_queue_push(&front->batch, req);
	return true;
}

void blk_relay_commit(struct blk_channel *ch)
{
	struct relay_front *front = ch->engine;
	struct blk_relay *relay = front->relay;
	bool first;

	if (!front->batch.head)
		return;
	pthread_mutex_lock(&relay->lock);
	first = !relay->inbox.head;
	blk_queue_splice(&relay->inbox, &front->batch);
	pthread_mutex_unlock(&relay->lock);
	if (first) {
		blk_relay_wake(relay);
		blk_count(&ch->system_calls, 1);
	}
}

void blk_relay_reap(struct blk_channel *ch)
{
	struct relay_front *front = ch->engine;
	struct blk_queue finished;
	struct blk_request *req;

	relay_drain(front->event_fd);
	blk_count(&ch->system_calls, 1);
	pthread_mutex_lock(&front->relay->lock);
	finished = front->finished;
	front->finished = (struct blk_queue){NULL, NULL};
	pthread_mutex_unlock(&front->relay->lock);
	while ((req = blk_queue_pop(&finished))) {
		ch->started--;
		blk_request_finish(ch, req, req->result);
	}
}

void blk_relay_nudge(struct blk_channel *ch)
{
	struct relay_front *front = ch->engine;

	relay_signal(front->event_fd);
}

int blk_relay_fd(const struct blk_channel *ch)
{
	const struct relay_front *front = ch->engine;

	return front->event_fd;
}
