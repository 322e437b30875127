/* SPDX-License-Identifier: BSD-2-Clause */
/* A worker of the switch: an I/O thread that is one of DPDK's lcores. */
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>

#include "backend/backend_priv.h"
#include "backend/bridge_priv.h"

static struct bridge_worker *worker_of(struct io_poller *p)
{
	return (struct bridge_worker *)((char *)p - offsetof(struct bridge_worker, poller));
}

static unsigned worker_poll(struct io_poller *p)
{
	struct bridge_worker *w = worker_of(p);

	return net_switch_poll(w->bridge->sw, w->index);
}

static bool worker_sleep(struct io_poller *p)
{
	struct bridge_worker *w = worker_of(p);

	return net_switch_sleep(w->bridge->sw, w->index);
}

static void worker_awake(struct io_poller *p)
{
	struct bridge_worker *w = worker_of(p);

	net_switch_awake(w->bridge->sw, w->index);
}

/* The thread is awake: that was all. */
static void worker_woken(struct io_work *work)
{
	(void)work;
}

void bridge_worker_wake(void *ctx, unsigned worker)
{
	struct bridge *b = ctx;

	io_thread_post(b->workers[worker].io, &b->workers[worker].wake);
}

static void worker_enter(void *ctx)
{
	struct bridge_worker *w = ctx;
	cpu_set_t set;

	CPU_ZERO(&set);
	if (w->core >= 0) {
		CPU_SET((size_t)w->core, &set);
		if (sched_setaffinity(0, sizeof(set), &set)) {
			w->error = -errno;
			return;
		}
	}
	w->error = net_dpdk_thread_enter();
	if (w->error)
		return;
	w->watch = (struct io_watch){.fd = net_switch_fd(w->bridge->sw, w->index)};
	w->error = io_watch_add(w->io, &w->watch);
	if (w->error) {
		net_dpdk_thread_leave();
		return;
	}
	w->poller = (struct io_poller){
		.poll = worker_poll, .sleep = worker_sleep, .wake = worker_awake};
	io_poller_add(w->io, &w->poller);
}

static void worker_leave(void *ctx)
{
	struct bridge_worker *w = ctx;

	io_poller_remove(w->io, &w->poller);
	io_watch_remove(w->io, &w->watch);
	net_dpdk_thread_leave();
}

static int worker_start(struct bridge *b, unsigned i, char why[BACKEND_WHY_MAX])
{
	struct bridge_worker *w = &b->workers[i];
	char name[16];
	const struct io_thread_options o = {
		.name = name,
		.poll_max_us = b->opts->poll_us,
		.no_uring = b->opts->no_io_uring,
	};
	int rc;

	w->bridge = b;
	w->index = i;
	w->core = b->opts->ncores ? (int)b->opts->cores[i] : -1;
	w->wake.run = worker_woken;
	snprintf(name, sizeof(name), "worker%u", i % NET_SWITCH_WORKERS_MAX);
	rc = io_thread_create(&w->io, &o, why);
	if (rc)
		return rc;
	io_thread_call(w->io, worker_enter, w);
	if (!w->error)
		return 0;
	if (w->error == -EINVAL)
		backend_why(why, "cores: this process may not run on processor %d", w->core);
	else
		backend_why(why, "workers: DPDK takes no further thread: %s", strerror(-w->error));
	io_thread_destroy(w->io);
	return w->error;
}

int bridge_workers_start(struct bridge *b, char why[BACKEND_WHY_MAX])
{
	for (; b->nworkers < b->opts->workers; b->nworkers++) {
		int rc = worker_start(b, b->nworkers, why);

		if (rc)
			return rc;
	}
	return 0;
}

void bridge_workers_stop(struct bridge *b)
{
	while (b->nworkers) {
		struct bridge_worker *w = &b->workers[--b->nworkers];

		io_thread_call(w->io, worker_leave, w);
		io_thread_destroy(w->io);
	}
}
