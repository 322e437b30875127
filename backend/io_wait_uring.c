/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waiting in an io_uring that the thread shares with its block channels: one system call submits
 * requests, arms watches and waits.
 *
 * user_data: low three bits 0: a block channel's; low bit 1: a slot, or nothing (a cancellation).
 * Watches are one-shot polls, armed only on the way to sleep: they ride along in the call that
 * sleeps, and the kernel looks at readiness when it arms them, which makes them level-triggered.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define URING_SQ       256u
#define URING_CQ       2048u
#define URING_REAP_MAX 512u
#define URING_OWN      1u

static int uring_setup(struct io_uring *ring)
{
	/*
	 * Completions are delivered when the thread enters the kernel, and a flag says that there
	 * are some, instead of interrupting it for each. DEFER_TASKRUN is no faster here and costs
	 * twice the system calls: a thread that polls is never in the kernel by itself.
	 */
	static const unsigned flags[] = {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
	int err = -EINVAL;

	for (size_t i = 0; err == -EINVAL && i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct io_uring_params p = {
			.flags = flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = URING_CQ,
		};

		err = io_uring_queue_init_params(URING_SQ, ring, &p);
		if (!err && !(p.features & IORING_FEAT_EXT_ARG)) {
			io_uring_queue_exit(ring); /* no timeout in the call that waits */
			err = -ENOSYS;
		}
	}
	return err;
}

static int uring_open(struct io_thread *io)
{
	struct io_uring *ring = calloc(1, sizeof(*ring));
	int err;

	if (!ring)
		return -ENOMEM;
	err = uring_setup(ring);
	if (err) {
		free(ring);
		return err;
	}
	io->ring = ring;
	return 0;
}

static void uring_close(struct io_thread *io)
{
	io_uring_queue_exit(io->ring);
	free(io->ring);
	io->ring = NULL;
}

static void uring_submit(struct io_thread *io)
{
	counter_add(&io->system_calls, 1);
	io_uring_submit(io->ring);
}

static struct io_uring_sqe *uring_sqe(struct io_thread *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(io->ring);

	if (!sqe) {
		uring_submit(io);
		sqe = io_uring_get_sqe(io->ring);
	}
	return sqe;
}

static int uring_watch_add(struct io_thread *io, struct io_slot *slot)
{
	(void)io;
	(void)slot;
	return 0; /* armed on the way to sleep */
}

static void uring_watch_remove(struct io_thread *io, struct io_slot *slot)
{
	struct io_uring_sqe *sqe;

	if (!slot->armed)
		return;
	sqe = uring_sqe(io);
	if (!sqe)
		return; /* stays armed without a watch until it fires */
	io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)slot | URING_OWN);
	io_uring_sqe_set_data64(sqe, URING_OWN);
}

static void uring_arm(struct io_thread *io)
{
	for (struct io_slot *slot = io->slots; slot; slot = slot->next) {
		struct io_uring_sqe *sqe;

		if (slot->armed || !slot->watch)
			continue;
		sqe = uring_sqe(io);
		if (!sqe)
			return;
		io_uring_prep_poll_add(sqe, slot->fd, POLLIN);
		io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)slot | URING_OWN);
		slot->armed = true;
	}
}

static void uring_event(struct io_thread *io, uint64_t data)
{
	struct io_slot *slot = (struct io_slot *)(uintptr_t)(data & ~(uint64_t)URING_OWN);

	if (!slot || data == LIBURING_UDATA_TIMEOUT)
		return;
	slot->armed = false;
	io_slot_event(io, slot);
}

static unsigned uring_reap(struct io_thread *io)
{
	struct io_uring *ring = io->ring;
	unsigned n = 0;

	while (n < URING_REAP_MAX && io_uring_cq_ready(ring)) {
		struct io_uring_cqe *cqe = &ring->cq.cqes[*ring->cq.khead & *ring->cq.kring_mask];
		uint64_t data = cqe->user_data;
		int res = cqe->res;

		/* the entry is free again before anything is called that may submit */
		io_uring_cq_advance(ring, 1);
		if (data & URING_OWN)
			uring_event(io, data);
		else
			blk_uring_complete(data, res);
		n++;
	}
	io_slots_sweep(io);
	return n;
}

static unsigned uring_round(struct io_thread *io)
{
	unsigned pending = io_uring_sq_ready(io->ring);
	unsigned flags = __atomic_load_n(io->ring->sq.kflags, __ATOMIC_RELAXED);

	if (pending) {
		uring_submit(io);
	} else if (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) {
		counter_add(&io->system_calls, 1);
		io_uring_get_events(io->ring);
	}
	return uring_reap(io) + pending;
}

static void uring_wait(struct io_thread *io, uint64_t timeout_ns)
{
	struct __kernel_timespec ts = {
		.tv_sec = (int64_t)(timeout_ns / 1000000000ull),
		.tv_nsec = (int64_t)(timeout_ns % 1000000000ull),
	};
	struct io_uring_cqe *cqe;

	uring_arm(io);
	counter_add(&io->system_calls, 1);
	io_uring_submit_and_wait_timeout(
		io->ring, &cqe, 1, timeout_ns == IO_NO_TIMEOUT ? NULL : &ts, NULL);
	uring_reap(io);
}

const struct io_wait_ops io_wait_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.watch_add = uring_watch_add,
	.watch_remove = uring_watch_remove,
	.round = uring_round,
	.wait = uring_wait,
};
