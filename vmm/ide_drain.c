/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IDE: who looks after data that KVM keeps. Writes to the data port are collected (`rep outs` would
 * exit for each element), so the last word of a DRQ block, which starts the write, causes no exit,
 * and a guest that then waits for its interrupt would wait for ever. While a DRQ block waits to be
 * filled, the disk's I/O thread replays what was collected: often while words keep coming, ever
 * more seldom for a guest that has stopped in the middle.
 */
#include <stddef.h>

#include "vmm/ide_priv.h"

#define IDE_DRAIN_LEAST_NS 100000u
#define IDE_DRAIN_MOST_NS  5000000u

static void ide_drain_expired(struct io_timer *timer)
{
	struct ide_disk *disk =
		(struct ide_disk *)((char *)timer - offsetof(struct ide_disk, drain.timer));
	struct ide_drain *drain = &disk->drain;
	struct ide_transfer *x = &disk->channel->xfer;
	pthread_mutex_t *lock = &disk->channel->controller->device.lock;

	machine_coalesced_drain(disk->device.machine);
	pthread_mutex_lock(lock);
	drain->armed = x->disk == disk && ide_kind_takes(x->kind) && !x->dma && !x->inflight;
	if (x->pos != drain->pos)
		drain->interval_ns = IDE_DRAIN_LEAST_NS;
	else if (drain->interval_ns < IDE_DRAIN_MOST_NS)
		drain->interval_ns *= 2;
	drain->pos = x->pos;
	if (drain->armed)
		io_timer_set(drain->io, timer, clock_now_ns() + drain->interval_ns);
	pthread_mutex_unlock(lock);
}

static void ide_drain_run(struct io_work *work)
{
	struct ide_drain *drain =
		(struct ide_drain *)((char *)work - offsetof(struct ide_drain, work));

	drain->interval_ns = IDE_DRAIN_LEAST_NS;
	io_timer_set(drain->io, &drain->timer, clock_now_ns() + drain->interval_ns);
}

void ide_drain_start(struct ide_disk *disk)
{
	struct ide_drain *drain = &disk->drain;

	if (drain->armed || !machine_has_kvm(disk->device.machine))
		return;
	drain->armed = true;
	io_thread_post(drain->io, &drain->work);
}

void ide_drain_init(struct ide_disk *disk, struct io_thread *io)
{
	disk->drain.io = io;
	disk->drain.work.run = ide_drain_run;
	disk->drain.timer.expired = ide_drain_expired;
}

static void ide_drain_stop_io(void *ctx)
{
	struct ide_drain *drain = ctx;

	io_timer_set(drain->io, &drain->timer, 0);
}

void ide_drain_stop(struct ide_disk *disk)
{
	/* work posted before this call has run by then */
	io_thread_call(disk->drain.io, ide_drain_stop_io, &disk->drain);
}
