/* SPDX-License-Identifier: BSD-2-Clause */
/* The I/O thread: its loop, work posted to it, pollers, watches and timers. */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define WINDOW_START_NS  4000u
#define CLOCK_EVERY      16u /* rounds between looks at the clock while there is work */
#define CROWDED_MISSES   3u
#define CROWDED_NS       1000000u /* no round takes so long */
#define CROWDED_SLEEPS   512u
#define TIMERS_EVERY_MAX 64u
#define LEAN_GAP_NS      64000u   /* some times what a sleep and a wake-up cost */
#define LEAN_GAP_MAX_NS  1000000u /* no pause counts for more */
#define LEAN_SHARE       10u
#define LEAN_WEIGHT      8u /* of all before, against the newest */
#define OVERDUE_TIMES    8u
#define OVERDUE_MIN_NS   30000u
#define OVERDUE_NEVER_NS 1000000000u

static _Thread_local const struct io_thread *io_current;

void backend_why(char why[BACKEND_WHY_MAX], const char *fmt, ...)
{
	va_list ap;

	if (!why)
		return;
	va_start(ap, fmt);
	vsnprintf(why, BACKEND_WHY_MAX, fmt, ap);
	va_end(ap);
}

/* ------------------------------------------------------------------ posted work */

bool io_thread_post(struct io_thread *io, struct io_work *work)
{
	struct io_work *head;
	uint64_t one = 1;

	/* pairs with the exchange in io_posted_run(): run() sees what was written before posting */
	if (atomic_exchange_explicit(&work->queued, true, memory_order_acq_rel))
		return false;
	head = atomic_load_explicit(&io->posted, memory_order_relaxed);
	do
		work->next = head;
	while (!atomic_compare_exchange_weak_explicit(
		&io->posted, &head, work, memory_order_release, memory_order_relaxed));
	/* the push before the look at `sleeping`; pairs with the fence in io_sleep() */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&io->sleeping, memory_order_relaxed))
		return false;
	/* of several posters one wakes */
	if (!atomic_exchange_explicit(&io->sleeping, false, memory_order_relaxed))
		return false;
	while (write(io->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	return true;
}

static unsigned io_posted_run(struct io_thread *io)
{
	struct io_work *list, *fifo = NULL, *w;
	unsigned n = 0;

	if (!atomic_load_explicit(&io->posted, memory_order_relaxed))
		return 0;
	list = atomic_exchange_explicit(&io->posted, NULL, memory_order_acquire);
	while (list) {
		w = list;
		list = w->next;
		w->next = fifo;
		fifo = w;
	}
	while (fifo) {
		w = fifo;
		fifo = w->next;
		/* from here on the owner may post it again; pairs with io_thread_post() */
		atomic_exchange_explicit(&w->queued, false, memory_order_acq_rel);
		w->run(w);
		n++;
	}
	return n;
}

struct io_call {
	struct io_work work;
	void (*fn)(void *ctx);
	void *ctx;
	sem_t done;
};

static void io_call_run(struct io_work *work)
{
	struct io_call *call = (struct io_call *)work;

	call->fn(call->ctx);
	sem_post(&call->done);
}

void io_thread_call(struct io_thread *io, void (*fn)(void *ctx), void *ctx)
{
	struct io_call call = {.work.run = io_call_run, .fn = fn, .ctx = ctx};

	if (io_thread_is_current(io)) {
		fn(ctx);
		return;
	}
	sem_init(&call.done, 0, 0);
	io_thread_post(io, &call.work);
	while (sem_wait(&call.done) < 0 && errno == EINTR)
		;
	sem_destroy(&call.done);
}

bool io_thread_is_current(const struct io_thread *io)
{
	return io_current == io;
}

/* ------------------------------------------------------------------ pollers */

void io_poller_add(struct io_thread *io, struct io_poller *p)
{
	struct io_poller **at = &io->pollers;

	while (*at)
		at = &(*at)->next;
	p->next = NULL;
	*at = p;
}

void io_poller_remove(struct io_thread *io, struct io_poller *p)
{
	for (struct io_poller **at = &io->pollers; *at; at = &(*at)->next) {
		if (*at != p)
			continue;
		if (io->cursor == p)
			io->cursor = p->next;
		*at = p->next;
		return;
	}
}

/* Walks that bear the removal of any poller, also the one being called. */
#define FOR_EACH_POLLER(io, p)                                                                     \
	for ((io)->cursor = (io)->pollers;                                                         \
		((p) = (io)->cursor) && ((io)->cursor = (p)->next, true);)

static unsigned io_pollers_poll(struct io_thread *io)
{
	struct io_poller *p;
	unsigned n = 0;

	FOR_EACH_POLLER(io, p)
	n += p->poll(p);
	return n;
}

static void io_pollers_batch_end(struct io_thread *io)
{
	struct io_poller *p;

	FOR_EACH_POLLER(io, p)
	if (p->batch_end)
		p->batch_end(p);
}

static void io_pollers_wake(struct io_thread *io)
{
	struct io_poller *p;

	FOR_EACH_POLLER(io, p)
	if (p->wake)
		p->wake(p);
}

static bool io_pollers_sleep(struct io_thread *io)
{
	struct io_poller *p;

	FOR_EACH_POLLER(io, p)
	if (p->sleep && p->sleep(p))
		return true;
	return false;
}

/* ------------------------------------------------------------------ watches */

int io_watch_add(struct io_thread *io, struct io_watch *w)
{
	struct io_slot *slot = calloc(1, sizeof(*slot));
	int err;

	if (!slot)
		return -ENOMEM;
	slot->watch = w;
	slot->fd = w->fd;
	err = io->wait->watch_add(io, slot);
	if (err) {
		free(slot);
		return err;
	}
	w->private_data[0] = (uint64_t)(uintptr_t)slot;
	slot->next = io->slots;
	io->slots = slot;
	return 0;
}

void io_watch_remove(struct io_thread *io, struct io_watch *w)
{
	struct io_slot *slot = (struct io_slot *)(uintptr_t)w->private_data[0];

	if (!slot)
		return;
	w->private_data[0] = 0;
	slot->watch = NULL;
	io->slots_dead = true;
	io->wait->watch_remove(io, slot);
}

void io_slots_sweep(struct io_thread *io)
{
	struct io_slot **at = &io->slots, *slot;
	bool left = false;

	if (!io->slots_dead)
		return;
	while ((slot = *at)) {
		if (slot->watch || slot->armed) {
			left |= !slot->watch;
			at = &slot->next;
			continue;
		}
		*at = slot->next;
		free(slot);
	}
	io->slots_dead = left;
}

void io_slot_event(struct io_thread *io, struct io_slot *slot)
{
	struct io_watch *w = slot->watch;
	uint64_t value = 0;

	if (!w)
		return;
	if (w->drain) {
		counter_add(&io->system_calls, 1);
		if (read(w->fd, &value, sizeof(value)) != sizeof(value))
			return; /* somebody else was faster */
		w->private_data[1] = value;
	}
	if (w->ready)
		w->ready(w);
}

/* ------------------------------------------------------------------ timers */

void io_timer_set(struct io_thread *io, struct io_timer *t, uint64_t at_ns)
{
	bool linked = t->at_ns != 0;

	t->at_ns = at_ns;
	if (at_ns && !linked) {
		t->next = io->timers;
		io->timers = t;
	} else if (!at_ns && linked) {
		for (struct io_timer **at = &io->timers; *at; at = &(*at)->next) {
			if (*at == t) {
				*at = t->next;
				break;
			}
		}
	}
}

/* Starts over after each call, for it may change the list; bounded for timers that re-arm at once.
 */
static unsigned io_timers_run(struct io_thread *io)
{
	struct io_timer *t;
	unsigned n = 0;

	for (t = io->timers; t && n < TIMERS_EVERY_MAX;) {
		if (t->at_ns > io->now_ns) {
			t = t->next;
			continue;
		}
		io_timer_set(io, t, 0);
		t->expired(t);
		n++;
		t = io->timers;
	}
	return n;
}

static uint64_t io_timers_next(const struct io_thread *io)
{
	uint64_t at = UINT64_MAX;

	for (const struct io_timer *t = io->timers; t; t = t->next)
		if (t->at_ns < at)
			at = t->at_ns;
	return at;
}

/* ------------------------------------------------------------------ the loop */

uint64_t io_thread_now_ns(const struct io_thread *io)
{
	return io->now_ns;
}

static unsigned io_clock_look(struct io_thread *io)
{
	io->now_ns = clock_now_ns();
	return io->timers ? io_timers_run(io) : 0;
}

/*
 * A sleep that polling for at most the longest window would have avoided makes the window longer;
 * a longer one makes it shorter, down to nothing.
 */
static void io_window_tune(struct io_thread *io, uint64_t slept_ns)
{
	uint64_t w = io->window_ns, max = io->window_max_ns;

	if (io->crowded) {
		io->crowded--;
		return;
	}
	if (slept_ns + w <= max)
		w = w ? w * 2 : WINDOW_START_NS;
	else
		w = w / 2 >= WINDOW_START_NS ? w / 2 : 0;
	io->window_ns = w < max ? w : max;
}

/* Who has polled gets the processor back late, who slept gets it at once. */
static void io_window_crowded(struct io_thread *io)
{
	io->misses = 0;
	io->window_ns = 0;
	io->crowded = CROWDED_SLEEPS;
}

/*
 * Windows about as long as may be are in vain, one after the other, and yet the sleeps are short:
 * somebody else wants this processor, perhaps who is to make the work that is polled for. For a
 * while it does not poll.
 */
static void io_window_missed(struct io_thread *io, uint64_t idle_since)
{
	counter_add(&io->poll_misses, 1);
	counter_add(&io->idle_ns, io->now_ns - idle_since);
	if (io->now_ns - idle_since < io->window_ns)
		return; /* given up early, as overdue */
	if (io->window_ns * 2 >= io->window_max_ns && ++io->misses >= CROWDED_MISSES)
		io_window_crowded(io);
}

/* Work came, but after longer than was polled: somebody else ran in the middle. */
static void io_window_hit(struct io_thread *io, uint64_t idle_since)
{
	uint64_t polled_ns = clock_now_ns() - idle_since;

	counter_add(&io->poll_hits, 1);
	/* up to the last look at the clock: the round that found work is work */
	counter_add(&io->idle_ns, io->now_ns - idle_since);
	io->misses = 0;
	if (polled_ns > 2 * io->window_max_ns + CROWDED_NS)
		io_window_crowded(io);
}

static void io_mean_add(uint64_t *mean_ns, uint64_t ns)
{
	*mean_ns += (ns < LEAN_GAP_MAX_NS ? ns : LEAN_GAP_MAX_NS) / LEAN_WEIGHT;
	*mean_ns -= *mean_ns / (LEAN_WEIGHT + 1);
}

/* Work is over, for now. */
static void io_pause_begin(struct io_thread *io)
{
	if (io->busy_since)
		io_mean_add(&io->busy_ns, io->now_ns - io->busy_since);
	io->busy_since = 0;
	io->pause_since = io->now_ns;
}

static void io_pause_end(struct io_thread *io, uint64_t now_ns)
{
	if (io->pause_since)
		io_mean_add(&io->pause_ns, now_ns - io->pause_since);
	io->pause_since = 0;
	io->busy_since = now_ns;
}

/*
 * Pauses that are long beside what a sleep costs, and beside the work between them, are slept
 * through: polling would be most of what the thread does, to save little.
 *
 * One that is many times as long as they are is no pause: who is to bring the work may be waiting
 * for this very processor.
 */
static uint64_t io_window(const struct io_thread *io)
{
	bool lean = io->pause_ns > LEAN_GAP_NS && io->pause_ns > LEAN_SHARE * io->busy_ns;
	uint64_t overdue = OVERDUE_TIMES * io->pause_ns;

	if (lean)
		return 0;
	if (io->window_max_ns >= OVERDUE_NEVER_NS)
		return io->window_ns; /* who asks for that much wants no sleep */
	if (overdue < OVERDUE_MIN_NS)
		overdue = OVERDUE_MIN_NS;
	return overdue < io->window_ns ? overdue : io->window_ns;
}

static void io_sleep(struct io_thread *io)
{
	uint64_t asleep_ns, next, timeout = IO_NO_TIMEOUT;

	if (io_pollers_sleep(io)) {
		io_pollers_wake(io);
		return;
	}
	atomic_store_explicit(&io->sleeping, true, memory_order_relaxed);
	/* `sleeping` before the last look at the queue; pairs with the fence in io_thread_post() */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&io->posted, memory_order_relaxed)) {
		atomic_store_explicit(&io->sleeping, false, memory_order_relaxed);
		io_pollers_wake(io);
		return;
	}
	next = io_timers_next(io);
	if (next != UINT64_MAX)
		timeout = next > io->now_ns ? next - io->now_ns : 1;
	asleep_ns = io->now_ns;
	counter_add(&io->sleeps, 1);
	io->wait->wait(io, timeout);
	atomic_store_explicit(&io->sleeping, false, memory_order_relaxed);
	counter_add(&io->wakeups, 1);
	io_pollers_wake(io);
	io->now_ns = clock_now_ns();
	io_window_tune(io, io->now_ns - asleep_ns);
	io_pollers_batch_end(io);
}

/* What is polled for others have to do, and they may want this processor for it. */
static void io_give_way(struct io_thread *io)
{
	counter_add(&io->system_calls, 1);
	sched_yield();
}

static void io_loop(struct io_thread *io)
{
	uint64_t idle_since = 0;

	while (!io->stop) {
		unsigned work = io_posted_run(io);

		io->polite = false;
		work += io_pollers_poll(io);
		work += io->wait->round(io);
		io_pollers_batch_end(io);
		if (work && idle_since) {
			io_window_hit(io, idle_since);
			idle_since = 0;
		}
		if (work && io->pause_since)
			io_pause_end(io, io->now_ns);
		if (work && ++io->rounds % CLOCK_EVERY != 0)
			continue;
		work += io_clock_look(io);
		if (work) {
			idle_since = 0;
			continue;
		}
		if (!idle_since)
			idle_since = io->now_ns;
		if (!io->pause_since)
			io_pause_begin(io);
		if (io->now_ns - idle_since < io_window(io)) {
			if (io->polite)
				io_give_way(io);
			else
				__builtin_ia32_pause();
			continue;
		}
		if (io_window(io))
			io_window_missed(io, idle_since);
		idle_since = 0;
		io_sleep(io);
	}
}

/* ------------------------------------------------------------------ life */

struct io_start {
	struct io_thread *io;
	sem_t ready;
};

static int io_wait_open(struct io_thread *io)
{
	int err = -ENOSYS;

	if (!io->opts.no_uring) {
		io->wait = &io_wait_uring;
		err = io->wait->open(io);
	}
	if (err) {
		io->wait = &io_wait_epoll;
		err = io->wait->open(io);
	}
	return err;
}

static void *io_main(void *arg)
{
	struct io_start *start = arg;
	struct io_thread *io = start->io;

	io_current = io;
	/* the ring belongs to the thread that makes it */
	io->error = io_wait_open(io);
	if (!io->error) {
		io->error = io_watch_add(io, &io->wake_watch);
		if (io->error)
			io->wait->close(io);
	}
	if (io->error) {
		sem_post(&start->ready);
		return NULL;
	}
	io->now_ns = clock_now_ns();
	sem_post(&start->ready);
	io_loop(io);
	io_watch_remove(io, &io->wake_watch);
	io->wait->close(io);
	return NULL;
}

static int io_thread_start(struct io_thread *io)
{
	struct io_start start = {.io = io};
	sigset_t all, old;
	int err;

	sem_init(&start.ready, 0, 0);
	/* signals are for the program's own threads */
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a fault is the thread's own, see mem_guard.c */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(&io->thread, NULL, io_main, &start);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err) {
		while (sem_wait(&start.ready) < 0 && errno == EINTR)
			;
		err = io->error;
		if (err)
			pthread_join(io->thread, NULL);
	}
	sem_destroy(&start.ready);
	return err;
}

int io_thread_create(
	struct io_thread **out, const struct io_thread_options *opts, char why[BACKEND_WHY_MAX])
{
	struct io_thread *io = aligned_alloc(64, (sizeof(*io) + 63) & ~(size_t)63);
	int err = -ENOMEM;

	if (!io)
		goto fail;
	memset(io, 0, sizeof(*io));
	io->opts = *opts;
	snprintf(io->name, sizeof(io->name), "%.15s", opts->name ? opts->name : "io");
	io->opts.name = io->name;
	io->window_max_ns = (uint64_t)opts->poll_max_us * 1000;
	io->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (io->wake_fd < 0) {
		err = -errno;
		goto free_io;
	}
	io->wake_watch = (struct io_watch){.fd = io->wake_fd, .drain = true};
	err = io_thread_start(io);
	if (err)
		goto close_wake;
	pthread_setname_np(io->thread, io->name);
	*out = io;
	return 0;

close_wake:
	close(io->wake_fd);
free_io:
	free(io);
fail:
	backend_why(why, "cannot start the I/O thread: %s", strerror(-err));
	return err;
}

static void io_stop_run(void *ctx)
{
	((struct io_thread *)ctx)->stop = true;
}

void io_thread_destroy(struct io_thread *io)
{
	struct io_slot *slot;

	if (!io)
		return;
	io_thread_call(io, io_stop_run, io);
	pthread_join(io->thread, NULL);
	while ((slot = io->slots)) {
		io->slots = slot->next;
		free(slot);
	}
	close(io->wake_fd);
	free(io);
}

void io_thread_counters_get(struct io_thread *io, struct io_thread_counters *out)
{
	struct timespec ts = {0};
	clockid_t clock;

	out->system_calls = counter_get(&io->system_calls);
	out->sleeps = counter_get(&io->sleeps);
	out->wakeups = counter_get(&io->wakeups);
	out->poll_hits = counter_get(&io->poll_hits);
	out->poll_misses = counter_get(&io->poll_misses);
	out->idle_ns = counter_get(&io->idle_ns);
	out->cpu_ns = 0;
	if (!pthread_getcpuclockid(io->thread, &clock) && !clock_gettime(clock, &ts))
		out->cpu_ns = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

struct io_uring *io_thread_ring(struct io_thread *io)
{
	return io->ring;
}

const char *io_thread_wait_name(const struct io_thread *io)
{
	return io->wait->name;
}
