/* SPDX-License-Identifier: BSD-2-Clause */
/* The switch: workers, their rounds, and their sleep. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "netbridge/switch_priv.h"

#define MACS_DEFAULT     16384u
#define MACS_MAX         (1u << 22)
#define AGEING_DEFAULT_S 300u /* IEEE 802.1Q, table 8-6 */
#define NS_PER_S         1000000000ull
#define LOOK_EVERY_NS    10000u
#define HUGE_PAGE        ((size_t)2 << 20)

static void worker_clock(struct switch_worker *w)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	w->now_ns = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
	if (w->now_s != (uint32_t)t.tv_sec) {
		w->now_s = (uint32_t)t.tv_sec;
		switch_macs_sweep(&w->sw->macs, w->now_s);
	}
}

/* ------------------------------------------------------------------ rounds */

/*
 * A worker's round ends with the next one's beginning. The store that begins one comes after all
 * accesses of the one before, but not necessarily before its own: hence two.
 */
void switch_rounds_wait(struct net_switch *sw)
{
	for (unsigned i = 0; i < sw->o.workers; i++) {
		struct switch_worker *w = &sw->workers[i];
		uint64_t round = atomic_load(&w->round);

		while (!atomic_load(&w->asleep) && atomic_load(&w->round) < round + 2)
			sched_yield();
	}
}

unsigned net_switch_poll(struct net_switch *sw, unsigned worker)
{
	struct switch_worker *w = &sw->workers[worker];
	unsigned n, end = atomic_load_explicit(&sw->ports_end, memory_order_acquire);

	if (atomic_load_explicit(&w->asleep, memory_order_relaxed))
		net_switch_awake(sw, worker);
	atomic_store_explicit(&w->round, atomic_load_explicit(&w->round, memory_order_relaxed) + 1,
		memory_order_release);
	worker_clock(w);
	n = switch_lanes_poll(w);
	if (w->now_ns - w->looked_ns >= LOOK_EVERY_NS &&
		atomic_load_explicit(&w->nfds, memory_order_relaxed)) {
		w->looked_ns = w->now_ns;
		switch_join_look(w);
	}
	for (unsigned i = 0; i < end; i++) {
		struct switch_port *p = switch_port_at(sw, i);

		if (p && p->worker == w && p->join)
			n += switch_join_poll(w, p);
	}
	return n;
}

bool net_switch_sleep(struct net_switch *sw, unsigned worker)
{
	struct switch_worker *w = &sw->workers[worker];
	unsigned end = atomic_load_explicit(&sw->ports_end, memory_order_acquire);
	bool work = switch_lanes_ready(w);

	/* descriptors that are ready end the sleep by themselves */
	for (unsigned i = 0; i < end && !work; i++) {
		struct switch_port *p = switch_port_at(sw, i);

		work = p && p->worker == w && p->join && switch_join_ready(p);
	}
	w->looked_ns = 0;
	/* pairs with the look at it after frames were published for this worker */
	atomic_store(&w->asleep, true);
	return work || switch_lanes_ready(w);
}

void net_switch_awake(struct net_switch *sw, unsigned worker)
{
	struct switch_worker *w = &sw->workers[worker];

	/* pairs with the look at it after a port was taken out */
	atomic_store(&w->asleep, false);
	worker_clock(w);
}

int net_switch_fd(const struct net_switch *sw, unsigned worker)
{
	return sw->workers[worker].epoll_fd;
}

/* ------------------------------------------------------------------ life */

/* A frame of any size has its place there, but most are short: on huge pages they do not cost a
 * translation each. */
static uint8_t *receive_memory(void)
{
	size_t bytes = (size_t)SWITCH_BATCH * NET_FRAME_MAX;
	uint8_t *p = NULL;

	bytes = (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
	if (posix_memalign((void **)&p, HUGE_PAGE, bytes))
		return NULL;
	madvise(p, bytes, MADV_HUGEPAGE);
	memset(p, 0, bytes);
	return p;
}

static int worker_init(struct net_switch *sw, unsigned i)
{
	struct switch_worker *w = &sw->workers[i];
	int err;

	w->sw = sw;
	w->index = i;
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	atomic_init(&w->asleep, true);
	w->lanes = net_port_alloc(sw->o.workers * sizeof(*w->lanes));
	w->memory = receive_memory();
	w->finish_memory = net_port_alloc(NET_FRAME_MAX);
	if (w->epoll_fd < 0 || !w->lanes || !w->memory || !w->finish_memory)
		return -ENOMEM;
	for (unsigned k = 0; k < SWITCH_BATCH; k++)
		w->in_list[k] = &w->in[k];
	err = net_fifo_init(&w->finish);
	for (unsigned k = 0; k < sw->o.workers && !err; k++)
		err = net_fifo_init(&w->lanes[k]);
	worker_clock(w);
	return err;
}

static void worker_fini(struct net_switch *sw, unsigned i)
{
	struct switch_worker *w = &sw->workers[i];

	for (unsigned k = 0; w->lanes && k < sw->o.workers; k++)
		net_fifo_destroy(&w->lanes[k]);
	net_fifo_destroy(&w->finish);
	if (w->sw && w->epoll_fd >= 0)
		close(w->epoll_fd);
	free(w->lanes);
	free(w->memory);
	free(w->finish_memory);
}

void net_switch_destroy(struct net_switch *sw)
{
	if (!sw)
		return;
	for (unsigned i = 0; sw->workers && i < sw->o.workers; i++)
		worker_fini(sw, i);
	switch_macs_fini(&sw->macs);
	pthread_mutex_destroy(&sw->control);
	free(sw->workers);
	free(sw);
}

static int options_check(const struct net_switch_options *o, char why[NET_WHY_MAX])
{
	if (o->workers < 1 || o->workers > NET_SWITCH_WORKERS_MAX)
		return net_why(why, -EINVAL, "workers=%u: use 1 to %u", o->workers,
			NET_SWITCH_WORKERS_MAX);
	if (o->macs > MACS_MAX)
		return net_why(why, -EINVAL, "macs=%u: use at most %u", o->macs, MACS_MAX);
	return 0;
}

int net_switch_create(
	struct net_switch **out, const struct net_switch_options *opts, char why[NET_WHY_MAX])
{
	struct net_switch *sw;
	int err = options_check(opts, why);

	if (err)
		return err;
	sw = net_port_alloc(sizeof(*sw));
	if (!sw)
		return net_why(why, -ENOMEM, "switch: no memory");
	sw->o = *opts;
	pthread_mutex_init(&sw->control, NULL);
	sw->workers = net_port_alloc(opts->workers * sizeof(*sw->workers));
	err = sw->workers ? switch_macs_init(&sw->macs, opts->macs ? opts->macs : MACS_DEFAULT,
				    opts->ageing_s ? opts->ageing_s : AGEING_DEFAULT_S)
			  : -ENOMEM;
	for (unsigned i = 0; i < opts->workers && !err; i++)
		err = worker_init(sw, i);
	if (err) {
		net_switch_destroy(sw);
		return net_why(why, err, "switch: %s", strerror(-err));
	}
	*out = sw;
	return 0;
}
