/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Worker threads of one channel. Locking and sleeping are done with futexes directly, because a
 * channel tells exactly how many system calls it makes and the C library does not.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blk/blk_priv.h"

#define POOL_STACK_SIZE (128u << 10)

static void pool_called(struct blk_pool *pool, uint64_t n)
{
	atomic_fetch_add_explicit(&pool->system_calls, n, memory_order_relaxed);
}

static void pool_futex(struct blk_pool *pool, _Atomic uint32_t *word, int op, uint32_t value)
{
	syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
	pool_called(pool, 1);
}

static void pool_lock(struct blk_pool *pool)
{
	uint32_t was = 0;

	if (atomic_compare_exchange_strong(&pool->lock.state, &was, 1))
		return;
	while (atomic_exchange(&pool->lock.state, 2) != 0)
		pool_futex(pool, &pool->lock.state, FUTEX_WAIT, 2);
}

static void pool_unlock(struct blk_pool *pool)
{
	if (atomic_exchange(&pool->lock.state, 0) == 2)
		pool_futex(pool, &pool->lock.state, FUTEX_WAKE, 1);
}

static void pool_signal(struct blk_pool *pool)
{
	uint64_t one = 1;
	ssize_t n;

	do {
		n = write(pool->event_fd, &one, sizeof(one));
		pool_called(pool, 1);
	} while (n < 0 && errno == EINTR);
}

/* Called and returns with the lock held. NULL: stop. */
static struct blk_request *pool_next(struct blk_pool *pool)
{
	struct blk_request *req;

	while (!(req = blk_queue_pop(&pool->todo)) && !pool->stop) {
		/* Whoever adds work changes the sequence under the lock: no wake-up is lost. */
		uint32_t sequence = atomic_load(&pool->sequence);

		pool->idle++;
		pool_unlock(pool);
		pool_futex(pool, &pool->sequence, FUTEX_WAIT, sequence);
		pool_lock(pool);
		pool->idle--;
	}
	if (req)
		pool->ntodo--;
	return req;
}

static void *pool_worker(void *arg)
{
	struct blk_pool *pool = arg;
	struct blk_request *req;

	pool_lock(pool);
	while ((req = pool_next(pool))) {
		uint64_t calls = 0;
		bool first;

		pool_unlock(pool);
		/* A byte count fits: the kernel transfers less than 2 GiB at once. */
		req->result = (int)blk_request_run(req, &calls);
		pool_called(pool, calls);
		pool_lock(pool);
		first = !pool->finished.head;
		blk_queue_push(&pool->finished, req);
		atomic_store_explicit(&pool->any_finished, true, memory_order_relaxed);
		if (first) {
			pool_unlock(pool);
			pool_signal(pool);
			pool_lock(pool);
		}
	}
	pool_unlock(pool);
	return NULL;
}

static void pool_grow(struct blk_pool *pool)
{
	pthread_t *thread = &pool->threads[pool->nthreads];
	pthread_attr_t attr;
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* memory of a guest's that went away: its owner's to handle */
	/* Signals are for the program's own threads. */
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, POOL_STACK_SIZE);
	rc = pthread_create(thread, &attr, pool_worker, pool);
	if (rc == EINVAL) /* a build whose thread-local data needs more than that */
		rc = pthread_create(thread, NULL, pool_worker, pool);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!rc)
		pool->nthreads++;
}

int blk_pool_open(struct blk_pool *pool)
{
	pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return pool->event_fd < 0 ? -errno : 0;
}

/* Nothing is outstanding. */
void blk_pool_close(struct blk_pool *pool)
{
	if (pool->event_fd < 0)
		return;
	pool_lock(pool);
	pool->stop = true;
	atomic_fetch_add(&pool->sequence, 1);
	pool_unlock(pool);
	pool_futex(pool, &pool->sequence, FUTEX_WAKE, INT_MAX);
	for (unsigned i = 0; i < pool->nthreads; i++)
		pthread_join(pool->threads[i], NULL);
	close(pool->event_fd);
	pool->event_fd = -1;
}

void blk_pool_start(struct blk_pool *pool, struct blk_request *req)
{
	blk_queue_push(&pool->batch, req);
	pool->nbatch++;
	pool->outstanding++;
}

/* Not one thread could be made: slow, but nothing is lost. */
static void pool_run_here(struct blk_channel *ch)
{
	struct blk_pool *pool = &ch->pool;
	struct blk_request *req;

	pool_lock(pool);
	while ((req = blk_queue_pop(&pool->todo))) {
		uint64_t calls = 0;

		pool->ntodo--;
		req->result = (int)blk_request_run(req, &calls);
		pool_called(pool, calls);
		if (!pool->finished.head)
			pool_signal(pool);
		blk_queue_push(&pool->finished, req);
		atomic_store_explicit(&pool->any_finished, true, memory_order_relaxed);
	}
	pool_unlock(pool);
}

void blk_pool_commit(struct blk_channel *ch)
{
	struct blk_pool *pool = &ch->pool;
	unsigned want, idle, wake = pool->nbatch;

	if (!wake)
		return;
	pool_lock(pool);
	blk_queue_splice(&pool->todo, &pool->batch);
	pool->ntodo += wake;
	pool->nbatch = 0;
	want = pool->ntodo;
	idle = pool->idle;
	atomic_fetch_add(&pool->sequence, 1);
	pool_unlock(pool);
	if (idle)
		pool_futex(pool, &pool->sequence, FUTEX_WAKE, wake < idle ? wake : idle);
	while (want-- > idle && pool->nthreads < BLK_POOL_THREADS_MAX) {
		unsigned before = pool->nthreads;

		pool_grow(pool);
		if (pool->nthreads == before)
			break;
	}
	if (!pool->nthreads)
		pool_run_here(ch);
}

unsigned blk_pool_reap(struct blk_channel *ch)
{
	struct blk_pool *pool = &ch->pool;
	struct blk_queue finished;
	struct blk_request *req;
	unsigned n = 0;

	if (!atomic_load_explicit(&pool->any_finished, memory_order_relaxed))
		return 0;
	pool_lock(pool);
	finished = pool->finished;
	pool->finished = (struct blk_queue){NULL, NULL};
	atomic_store_explicit(&pool->any_finished, false, memory_order_relaxed);
	pool_unlock(pool);
	if (finished.head)
		pool->unread++;
	while ((req = blk_queue_pop(&finished))) {
		n++;
		pool->outstanding--;
		blk_request_advance(ch, req, req->result);
	}
	return n;
}

bool blk_pool_drain(struct blk_channel *ch)
{
	struct blk_pool *pool = &ch->pool;
	uint64_t signals;

	if (pool->unread <= 0)
		return false;
	blk_count(&ch->system_calls, 1);
	if (read(pool->event_fd, &signals, sizeof(signals)) != sizeof(signals))
		return false;
	pool->unread -= (int64_t)signals;
	return true;
}

void blk_pool_nudge(struct blk_channel *ch)
{
	pool_signal(&ch->pool);
	ch->pool.unread++;
}
