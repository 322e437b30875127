/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * distance: how far apart the first two processors are that this process may use, as the
 * nanoseconds that a cache line takes from one to the other and back.
 *
 * Below a host that moves virtual processors about, this changes from second to second: two that
 * share a cache are 60 to 90 ns apart, two that do not 350 ns and more, and whatever passes lines
 * between them (every ring) follows. Comparisons are made at one distance (ratios.bash).
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCHES 9u
#define ROUNDS  4000u

struct line {
	_Alignas(128) _Atomic uint32_t turn;
};

struct far_end {
	struct line *line;
	int cpu;
	_Atomic int error;
};

static int cpu_take(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	return -pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void turn_await(struct line *line, uint32_t turn)
{
	while (atomic_load_explicit(&line->turn, memory_order_acquire) != turn)
		__builtin_ia32_pause();
}

static void *far_main(void *arg)
{
	struct far_end *far = arg;

	far->error = cpu_take(far->cpu);
	for (uint32_t i = 0; i < BATCHES * ROUNDS; i++) {
		turn_await(far->line, 2 * i + 1);
		atomic_store_explicit(&far->line->turn, 2 * i + 2, memory_order_release);
	}
	return NULL;
}

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of several batches the one in the middle: somebody may have run in between. */
static double round_trip_ns(struct line *line)
{
	double batch[BATCHES], began;
	uint32_t i = 0;

	for (unsigned b = 0; b < BATCHES; b++) {
		began = now_ns();
		for (unsigned n = 0; n < ROUNDS; n++, i++) {
			atomic_store_explicit(&line->turn, 2 * i + 1, memory_order_release);
			turn_await(line, 2 * i + 2);
		}
		batch[b] = (now_ns() - began) / ROUNDS;
	}
	qsort(batch, BATCHES, sizeof(batch[0]), by_value);
	return batch[BATCHES / 2];
}

/* The n-th processor this process may use; -1: it has fewer. */
static int cpu_nth(int n)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return -1;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET((size_t)cpu, &set) && n-- == 0)
			return cpu;
	return -1;
}

int main(void)
{
	static struct line line;
	struct far_end far = {.line = &line, .cpu = cpu_nth(1)};
	int near = cpu_nth(0), err;
	pthread_t thread;
	double ns;

	if (far.cpu < 0) {
		fprintf(stderr, "distance: it takes two processors\n");
		return 1;
	}
	err = pthread_create(&thread, NULL, far_main, &far);
	if (err) {
		fprintf(stderr, "distance: no thread: %s\n", strerror(err));
		return 1;
	}
	err = cpu_take(near);
	ns = round_trip_ns(&line);
	pthread_join(thread, NULL);
	if (err || far.error) {
		fprintf(stderr, "distance: processors %d and %d cannot be had\n", near, far.cpu);
		return 1;
	}
	printf("%.0f\n", ns);
	return 0;
}
