/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Emulated disks' way to their image: requests made on vCPU threads go through a lock-free list to
 * the I/O thread and its channel. A request is counted from submission until done() has returned.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

struct legacy_waiter {
	sem_t idle;
	struct legacy_disk *disk;
	struct legacy_waiter *next;
};

struct legacy_disk {
	/* any thread */
	_Atomic(struct legacy_request *) submitted __attribute__((aligned(64)));
	_Atomic uint32_t inflight;
	struct io_work work;

	/* the I/O thread's */
	struct io_thread *io __attribute__((aligned(64)));
	struct blk_image *image;
	struct blk_channel *channel;
	bool shared_ring;
	bool readable; /* the channel's descriptor has woken us */
	struct io_watch watch;
	struct io_poller poller;
	struct legacy_waiter *waiters;
};

static void legacy_done(struct blk_request *blk, int res)
{
	struct legacy_request *req = blk->owner;
	struct legacy_disk *disk = (struct legacy_disk *)req->next; /* see legacy_take() */

	req->done(req, res);
	atomic_fetch_sub_explicit(&disk->inflight, 1, memory_order_release);
}

/* Hands what was submitted to the channel, oldest first. */
static unsigned legacy_take(struct legacy_disk *disk)
{
	struct legacy_request *list, *fifo = NULL, *req;
	unsigned n = 0;

	if (!atomic_load_explicit(&disk->submitted, memory_order_relaxed))
		return 0;
	list = atomic_exchange_explicit(&disk->submitted, NULL, memory_order_acquire);
	while (list) {
		req = list;
		list = req->next;
		req->next = fifo;
		fifo = req;
	}
	while (fifo) {
		req = fifo;
		fifo = req->next;
		/* off the list: the link leads back to the disk until the request is done */
		req->next = (struct legacy_request *)disk;
		req->blk.done = legacy_done;
		req->blk.owner = req;
		blk_submit(disk->channel, &req->blk);
		n++;
	}
	return n;
}

static unsigned legacy_poll(struct io_poller *p)
{
	struct legacy_disk *disk =
		(struct legacy_disk *)((char *)p - offsetof(struct legacy_disk, poller));
	unsigned n = legacy_take(disk);
	bool inflight = atomic_load_explicit(&disk->inflight, memory_order_relaxed);

	if (inflight)
		blk_kick(disk->channel);
	/* a descriptor that became readable is read even if its completions were seen before */
	if (!disk->shared_ring && (inflight || disk->readable)) {
		disk->readable = false;
		n += blk_poll(disk->channel);
	}
	return n;
}

static void legacy_readable(struct io_watch *w)
{
	struct legacy_disk *disk =
		(struct legacy_disk *)((char *)w - offsetof(struct legacy_disk, watch));

	disk->readable = true;
}

static void legacy_batch_end(struct io_poller *p)
{
	struct legacy_disk *disk =
		(struct legacy_disk *)((char *)p - offsetof(struct legacy_disk, poller));
	struct legacy_waiter *w;

	while ((w = disk->waiters) &&
		!atomic_load_explicit(&disk->inflight, memory_order_relaxed)) {
		disk->waiters = w->next;
		sem_post(&w->idle);
	}
}

/* Posted for each submission that found the list empty; the poll of this round takes it. */
static void legacy_work(struct io_work *work)
{
	(void)work;
}

void legacy_disk_submit(struct legacy_disk *disk, struct legacy_request *req)
{
	struct legacy_request *head = atomic_load_explicit(&disk->submitted, memory_order_relaxed);

	req->started_ns = clock_now_ns();
	atomic_fetch_add_explicit(&disk->inflight, 1, memory_order_relaxed);
	do
		req->next = head;
	while (!atomic_compare_exchange_weak_explicit(
		&disk->submitted, &head, req, memory_order_release, memory_order_relaxed));
	io_thread_post(disk->io, &disk->work);
}

static void legacy_wait_io(void *ctx)
{
	struct legacy_waiter *w = ctx;

	w->next = w->disk->waiters;
	w->disk->waiters = w;
	/* the batch_end of this round looks first */
}

void legacy_disk_drain(struct legacy_disk *disk)
{
	struct legacy_waiter w = {.disk = disk};

	sem_init(&w.idle, 0, 0);
	io_thread_call(disk->io, legacy_wait_io, &w);
	while (sem_wait(&w.idle) < 0 && errno == EINTR)
		;
	sem_destroy(&w.idle);
}

struct legacy_open {
	struct legacy_disk *disk;
	char *why;
	int err;
};

static void legacy_open_io(void *ctx)
{
	struct legacy_open *o = ctx;
	struct legacy_disk *disk = o->disk;
	struct blk_channel_options co = {.ring = io_thread_ring(disk->io)};

	o->err = blk_channel_open(&disk->channel, disk->image, &co, o->why);
	if (o->err)
		return;
	disk->watch.fd = blk_channel_fd(disk->channel);
	disk->watch.ready = legacy_readable;
	disk->shared_ring = disk->watch.fd < 0;
	if (!disk->shared_ring) {
		o->err = io_watch_add(disk->io, &disk->watch);
		if (o->err) {
			backend_why(o->why, "cannot watch the disk: %s", strerror(-o->err));
			blk_channel_close(disk->channel);
			return;
		}
	}
	io_poller_add(disk->io, &disk->poller);
}

int legacy_disk_open(struct legacy_disk **out, struct io_thread *io, struct blk_image *image,
	char why[BACKEND_WHY_MAX])
{
	struct legacy_disk *disk = aligned_alloc(64, (sizeof(*disk) + 63) & ~(size_t)63);
	struct legacy_open open = {.disk = disk, .why = why};

	if (!disk) {
		backend_why(why, "emulated disk: no memory");
		return -ENOMEM;
	}
	memset(disk, 0, sizeof(*disk));
	disk->io = io;
	disk->image = image;
	disk->work.run = legacy_work;
	disk->poller = (struct io_poller){.poll = legacy_poll, .batch_end = legacy_batch_end};
	io_thread_call(io, legacy_open_io, &open);
	if (open.err) {
		free(disk);
		return open.err;
	}
	*out = disk;
	return 0;
}

static void legacy_close_io(void *ctx)
{
	struct legacy_disk *disk = ctx;

	io_poller_remove(disk->io, &disk->poller);
	if (!disk->shared_ring)
		io_watch_remove(disk->io, &disk->watch);
	blk_channel_close(disk->channel);
}

void legacy_disk_close(struct legacy_disk *disk)
{
	if (!disk)
		return;
	/* posted work runs before what is posted later: none of the disk's is left after this */
	legacy_disk_drain(disk);
	io_thread_call(disk->io, legacy_close_io, disk);
	free(disk);
}

struct legacy_counters {
	struct legacy_disk *disk;
	struct blk_channel_counters *out;
};

static void legacy_counters_io(void *ctx)
{
	struct legacy_counters *c = ctx;

	blk_channel_counters_get(c->disk->channel, c->out);
}

void legacy_disk_counters_get(struct legacy_disk *disk, struct blk_channel_counters *out)
{
	struct legacy_counters c = {.disk = disk, .out = out};

	io_thread_call(disk->io, legacy_counters_io, &c);
}
