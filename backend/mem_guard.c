/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SIGBUS in memory shared with others. The handler finds the mapping in a list that only grows
 * (entries are used again): it may run at any moment, on any thread, and takes no lock.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "backend/backend_priv.h"

struct mem_guard {
	_Atomic uint32_t generation; /* odd: being changed */
	_Atomic uintptr_t base;
	_Atomic size_t bytes; /* 0: free */
	void (*_Atomic hit)(void *ctx);
	void *_Atomic ctx;
	struct mem_guard *next;
};

static _Atomic(struct mem_guard *) guards;
static pthread_mutex_t guards_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static bool installed;

/* Zeroes in its place: whoever touched it goes on, and finds them. False: no guarded memory. */
static bool guard_hit(struct mem_guard *g, uintptr_t at)
{
	uint32_t generation = atomic_load(&g->generation);
	uintptr_t base = atomic_load(&g->base);
	size_t bytes = atomic_load(&g->bytes);
	void (*hit)(void *ctx) = atomic_load(&g->hit);
	void *ctx = atomic_load(&g->ctx);

	/* what is being changed is nobody's memory to touch */
	if (generation % 2 || generation != atomic_load(&g->generation))
		return false;
	if (at < base || at - base >= bytes)
		return false;
	if (mmap((void *)base, bytes, PROT_READ | PROT_WRITE,
		    MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		return false;
	hit(ctx);
	return true;
}

static void guard_signal(int number, siginfo_t *info, void *context)
{
	const int saved = errno;

	for (struct mem_guard *g = atomic_load(&guards); g; g = g->next) {
		if (guard_hit(g, (uintptr_t)info->si_addr)) {
			errno = saved;
			return;
		}
	}
	/* not ours: as it would have been */
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(number, info, context);
	} else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
		previous.sa_handler(number);
	} else {
		signal(number, SIG_DFL);
		raise(number);
	}
	errno = saved;
}

static int guard_install(void)
{
	struct sigaction sa = {.sa_sigaction = guard_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};

	if (installed)
		return 0;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGBUS, &sa, &previous) < 0)
		return -errno;
	installed = true;
	return 0;
}

static struct mem_guard *guard_free(void)
{
	struct mem_guard *g;

	for (g = atomic_load(&guards); g; g = g->next)
		if (!atomic_load(&g->bytes))
			return g;
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->next = atomic_load(&guards);
	atomic_store(&guards, g);
	return g;
}

static void guard_set(
	struct mem_guard *g, void *base, size_t bytes, void (*hit)(void *ctx), void *ctx)
{
	atomic_fetch_add(&g->generation, 1);
	atomic_store(&g->base, (uintptr_t)base);
	atomic_store(&g->bytes, bytes);
	atomic_store(&g->hit, hit);
	atomic_store(&g->ctx, ctx);
	atomic_fetch_add(&g->generation, 1);
}

int mem_guard_add(
	struct mem_guard **out, void *base, size_t bytes, void (*hit)(void *ctx), void *ctx)
{
	struct mem_guard *g = NULL;
	int err;

	pthread_mutex_lock(&guards_lock);
	err = guard_install();
	if (!err) {
		g = guard_free();
		err = g ? 0 : -ENOMEM;
	}
	if (!err)
		guard_set(g, base, bytes, hit, ctx);
	pthread_mutex_unlock(&guards_lock);
	*out = g;
	return err;
}

void mem_guard_remove(struct mem_guard *g)
{
	if (!g)
		return;
	pthread_mutex_lock(&guards_lock);
	guard_set(g, NULL, 0, NULL, NULL);
	pthread_mutex_unlock(&guards_lock);
}
