/* SPDX-License-Identifier: BSD-2-Clause */
/* The I/O thread alone: posted work, watches, timers, pollers, sleeping and not losing wake-ups. */
#include <pthread.h>
#include <semaphore.h>

#include "tests/unit/test_backend_rig.h"

#define POSTS 3000u

struct poster {
	struct io_work work;
	sem_t ran;
	atomic_uint runs;
};

static void poster_run(struct io_work *work)
{
	struct poster *p = (struct poster *)work;

	atomic_fetch_add(&p->runs, 1);
	sem_post(&p->ran);
}

static bool sem_wait_ms(sem_t *sem, unsigned ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += ms / 1000;
	return sem_timedwait(sem, &ts) == 0;
}

static void pause_us(long us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

static uint64_t sleeps(struct io_thread *io)
{
	struct io_thread_counters c;

	io_thread_counters_get(io, &c);
	return c.sleeps;
}

/* Until the thread has gone to sleep once more than `before` (it may be about to wake). */
static void await_sleep(struct io_thread *io, uint64_t before)
{
	for (unsigned i = 0; i < 200000 && sleeps(io) == before; i++)
		pause_us(50);
	CU_ASSERT_NOT_EQUAL(sleeps(io), before);
}

static void posts(bool no_uring, uint32_t poll_us, bool settle)
{
	struct io_thread *io = rig_io(no_uring, poll_us);
	struct poster p = {.work.run = poster_run};
	uint64_t before = 0;

	sem_init(&p.ran, 0, 0);
	for (unsigned i = 0; i < (settle ? POSTS / 10 : POSTS); i++) {
		if (settle)
			await_sleep(io, before);
		before = sleeps(io);
		io_thread_post(io, &p.work);
		CU_ASSERT_FATAL(sem_wait_ms(&p.ran, 10000));
	}
	io_thread_destroy(io);
	sem_destroy(&p.ran);
}

static void test_posts(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		posts(no_uring, 0, true);
		posts(no_uring, 0, false);
		posts(no_uring, 100, false);
	}
}

static void test_wait_names(void)
{
	struct io_thread *io = rig_io(true, 0);

	CU_ASSERT_STRING_EQUAL(io_thread_wait_name(io), "epoll");
	CU_ASSERT_PTR_NULL(io_thread_ring(io));
	CU_ASSERT_FALSE(io_thread_is_current(io));
	io_thread_destroy(io);
	io = rig_io(false, 0);
	CU_ASSERT_EQUAL(!strcmp(io_thread_wait_name(io), "io_uring"), io_thread_ring(io) != NULL);
	io_thread_destroy(io);
}

/* Many threads, each with work of its own; all of it runs, also what is posted while it runs. */
struct storm {
	struct io_thread *io;
	atomic_uint total;
};

static void nothing(void *ctx)
{
	(void)ctx;
}

static void *storm_main(void *arg)
{
	struct storm *s = arg;
	struct poster p = {.work.run = poster_run};

	sem_init(&p.ran, 0, 0);
	for (unsigned i = 0; i < POSTS; i++) {
		io_thread_post(s->io, &p.work);
		if (i % 7 == 0 && !sem_wait_ms(&p.ran, 10000))
			break;
		atomic_fetch_add(&s->total, 1);
	}
	/* the last post runs without another one to push it */
	for (unsigned i = 0; i < 10000 && atomic_load(&p.work.queued); i++)
		pause_us(1000);
	if (atomic_load(&p.work.queued))
		atomic_store(&s->total, 0);
	io_thread_call(s->io, nothing, NULL); /* behind it: its run() has returned */
	sem_destroy(&p.ran);
	return NULL;
}

static void test_storm(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct storm s = {.io = rig_io(no_uring, no_uring ? 0 : 50)};
		pthread_t t[4];

		for (unsigned i = 0; i < 4; i++)
			pthread_create(&t[i], NULL, storm_main, &s);
		for (unsigned i = 0; i < 4; i++)
			pthread_join(t[i], NULL);
		CU_ASSERT_EQUAL(atomic_load(&s.total), 4 * POSTS);
		io_thread_destroy(s.io);
	}
}

/* ------------------------------------------------------------------ watches */

struct watched {
	struct io_watch watch;
	struct io_thread *io;
	sem_t seen;
	atomic_uint events;
	bool reads;
};

static void watched_ready(struct io_watch *w)
{
	struct watched *d = (struct watched *)w;
	uint64_t v;

	if (d->reads && read(w->fd, &v, sizeof(v)) < 0)
		return;
	atomic_fetch_add(&d->events, 1);
	sem_post(&d->seen);
}

static void watched_add(void *ctx)
{
	struct watched *d = ctx;

	CU_ASSERT_EQUAL(io_watch_add(d->io, &d->watch), 0);
}

static void watched_remove(void *ctx)
{
	struct watched *d = ctx;

	io_watch_remove(d->io, &d->watch);
}

static void watches(bool no_uring, bool drain)
{
	struct watched d = {.io = rig_io(no_uring, 0), .reads = !drain};
	uint64_t one = 1;
	unsigned events;

	d.watch = (struct io_watch){
		.fd = eventfd(0, EFD_NONBLOCK), .drain = drain, .ready = watched_ready};
	sem_init(&d.seen, 0, 0);
	io_thread_call(d.io, watched_add, &d);
	for (unsigned i = 0; i < 500; i++) {
		CU_ASSERT_EQUAL(write(d.watch.fd, &one, sizeof(one)), 8);
		CU_ASSERT_FATAL(sem_wait_ms(&d.seen, 10000));
	}
	/* removed while armed, with an event on its way: not called again */
	io_thread_call(d.io, watched_remove, &d);
	events = atomic_load(&d.events);
	CU_ASSERT_EQUAL(write(d.watch.fd, &one, sizeof(one)), 8);
	pause_us(20000);
	CU_ASSERT_EQUAL(atomic_load(&d.events), events);
	/* and added again: readable already, so at once */
	io_thread_call(d.io, watched_add, &d);
	CU_ASSERT(sem_wait_ms(&d.seen, 10000));
	io_thread_call(d.io, watched_remove, &d);
	io_thread_destroy(d.io);
	close(d.watch.fd);
	sem_destroy(&d.seen);
}

static void test_watches(void)
{
	for (int i = 0; i < 4; i++)
		watches(i & 1, i & 2);
}

/* ------------------------------------------------------------------ timers */

struct timed {
	struct io_timer timer;
	struct io_thread *io;
	uint64_t after_ns, set_ns, fired_ns;
	unsigned left;
	sem_t done;
};

static void timed_expired(struct io_timer *t)
{
	struct timed *d = (struct timed *)t;

	d->fired_ns = clock_now_ns();
	if (d->left && --d->left) {
		io_timer_set(d->io, t, d->fired_ns + d->after_ns);
		return;
	}
	sem_post(&d->done);
}

static void timed_start(void *ctx)
{
	struct timed *d = ctx;

	d->set_ns = clock_now_ns();
	io_timer_set(d->io, &d->timer, d->set_ns + d->after_ns);
}

static void timed_stop(void *ctx)
{
	struct timed *d = ctx;

	io_timer_set(d->io, &d->timer, 0);
}

static void test_timers(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct io_thread *io = rig_io(no_uring, 0);
		struct timed d[3] = {{.after_ns = 30000000}, {.after_ns = 1000000, .left = 20},
			{.after_ns = 50000000}};

		for (unsigned i = 0; i < 3; i++) {
			d[i].timer.expired = timed_expired;
			d[i].io = io;
			sem_init(&d[i].done, 0, 0);
			io_thread_call(io, timed_start, &d[i]);
		}
		io_thread_call(io, timed_stop, &d[2]);
		CU_ASSERT(sem_wait_ms(&d[0].done, 10000));
		CU_ASSERT(sem_wait_ms(&d[1].done, 10000));
		CU_ASSERT(d[0].fired_ns >= d[0].set_ns + d[0].after_ns);
		CU_ASSERT(d[1].fired_ns >= d[1].set_ns + 20 * d[1].after_ns);
		pause_us(60000);
		CU_ASSERT_EQUAL(sem_trywait(&d[2].done), -1);
		io_thread_destroy(io);
		for (unsigned i = 0; i < 3; i++)
			sem_destroy(&d[i].done);
	}
}

/* ------------------------------------------------------------------ sleep */

/* A poller with work that comes from another thread, rung for only when it asked. */
struct source {
	struct io_poller poller;
	struct io_thread *io;
	struct io_work bell;
	atomic_uint given, taken, asked;
	atomic_bool stopped;
};

static unsigned source_poll(struct io_poller *p)
{
	struct source *s = (struct source *)p;
	unsigned n = atomic_load(&s->given) - atomic_load(&s->taken);

	atomic_fetch_add(&s->taken, n);
	return n;
}

static bool source_sleep(struct io_poller *p)
{
	struct source *s = (struct source *)p;

	atomic_store(&s->asked, 1);
	return atomic_load(&s->given) != atomic_load(&s->taken);
}

static void source_wake(struct io_poller *p)
{
	atomic_store(&((struct source *)p)->asked, 0);
}

static void source_bell(struct io_work *w)
{
	(void)w;
}

static void source_add(void *ctx)
{
	struct source *s = ctx;

	io_poller_add(s->io, &s->poller);
}

static void source_remove(void *ctx)
{
	struct source *s = ctx;

	io_poller_remove(s->io, &s->poller);
}

static void poller_wakes(bool no_uring, uint32_t poll_us)
{
	struct source s = {
		.poller = {.poll = source_poll, .sleep = source_sleep, .wake = source_wake},
		.bell.run = source_bell};
	uint64_t end_ns = clock_now_ns() + 15000000000ull;

	s.io = rig_io(no_uring, poll_us);
	io_thread_call(s.io, source_add, &s);
	for (unsigned i = 0; i < POSTS; i++) {
		atomic_fetch_add(&s.given, 1);
		if (atomic_load(&s.asked))
			io_thread_post(s.io, &s.bell);
		while (atomic_load(&s.taken) != atomic_load(&s.given) && clock_now_ns() < end_ns)
			;
	}
	CU_ASSERT_EQUAL(atomic_load(&s.taken), POSTS);
	io_thread_call(s.io, source_remove, &s);
	io_thread_destroy(s.io);
}

static void test_poller_wakes(void)
{
	for (int i = 0; i < 4; i++)
		poller_wakes(i & 1, i & 2 ? 100 : 0);
}

static void test_idle(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct io_thread *io = rig_io(no_uring, 200);
		struct poster p = {.work.run = poster_run};
		struct io_thread_counters a, b;

		sem_init(&p.ran, 0, 0);
		for (unsigned i = 0; i < 100; i++) {
			io_thread_post(io, &p.work);
			CU_ASSERT(sem_wait_ms(&p.ran, 10000));
		}
		pause_us(50000);
		/* nothing wakes a thread that has nothing to do: no call at all in all that time */
		for (unsigned i = 0; i < 40; i++) {
			io_thread_counters_get(io, &a);
			pause_us(200000);
			io_thread_counters_get(io, &b);
			if (a.system_calls == b.system_calls)
				break; /* it had not yet gone to sleep, on a slow host */
		}
		CU_ASSERT_EQUAL(a.system_calls, b.system_calls);
		CU_ASSERT_EQUAL(a.wakeups, b.wakeups);
		CU_ASSERT_EQUAL(a.cpu_ns, b.cpu_ns);
		CU_ASSERT(b.sleeps > 0);
		io_thread_destroy(io);
		sem_destroy(&p.ran);
	}
}

/* Work that comes only once the thread sleeps, as from who needs the same processor: polling is
 * given up. */
static void test_crowded(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct io_thread *io = rig_io(no_uring, 500);
		struct poster p = {.work.run = poster_run};
		struct io_thread_counters c;
		uint64_t before = 0;

		sem_init(&p.ran, 0, 0);
		for (unsigned i = 0; i < 400; i++) {
			await_sleep(io, before);
			before = sleeps(io);
			io_thread_post(io, &p.work);
			CU_ASSERT_FATAL(sem_wait_ms(&p.ran, 10000));
		}
		io_thread_counters_get(io, &c);
		CU_ASSERT(c.sleeps >= 400);
		CU_ASSERT(c.poll_misses < c.sleeps / 2);
		CU_ASSERT(c.idle_ns > 0);
		io_thread_destroy(io);
		sem_destroy(&p.ran);
	}
}

/* Pauses that a window would cover, but long beside the work between them, are slept through. */
static void test_long_pauses(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct io_thread *io = rig_io(no_uring, 100000);
		struct poster p = {.work.run = poster_run};

		sem_init(&p.ran, 0, 0);
		for (unsigned i = 0; i < 200; i++) {
			pause_us(300);
			io_thread_post(io, &p.work);
			CU_ASSERT_FATAL(sem_wait_ms(&p.ran, 10000));
		}
		CU_ASSERT(sleeps(io) > 100);
		io_thread_destroy(io);
		sem_destroy(&p.ran);
	}
}

static const struct unit_case cases[] = {
	{"names", test_wait_names},
	{"posts to a sleeping thread", test_posts},
	{"posts from many threads", test_storm},
	{"watches", test_watches},
	{"timers", test_timers},
	{"pollers are not left asleep", test_poller_wakes},
	{"idle costs nothing", test_idle},
	{"polling that never pays is given up", test_crowded},
	{"long pauses are slept through", test_long_pauses},
};

UNIT_MAIN("io_thread", cases)
