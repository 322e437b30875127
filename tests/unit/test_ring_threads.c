/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Driver against device on two threads, sleeping on eventfds whenever the protocol allows: a lost
 * wake-up hangs, and the watchdog ends the test. Every request's content is checked at both ends.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>

#include "tests/unit/unit.h"
#include "tests/unit/test_ring_rig.h"

#define WATCHDOG_S  100
#define REQUESTS    12000u
#define CELL        64u /* bytes of payload memory of one request: readable half, writable half */
#define YIELD_AFTER 64u /* empty looks: the machine may have one processor for both */
#define BATCH       32u
#define SEGS        4u
#define PATTERN_IN  0xabcdef0123456789ull
#define PATTERN_MUL 0x9e3779b97f4a7c15ull

struct side_stats {
	uint64_t sleeps;
	uint64_t wrong;
};

struct pair {
	struct rig rig;
	int doorbell;
	int interrupt;
	uint32_t cells;
	bool stop;
	struct side_stats driver, device;
	uint64_t seed;
	uint32_t spin; /* empty looks before going to sleep */
};

static void event_signal(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

static void event_wait(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		abort();
}

/* Reads the request's number from the readable part, answers it in the writable one. */
static uint32_t device_serve(struct pair *p, const struct ring_chain *c)
{
	uint64_t seq, value;
	uint32_t at = 0;

	if (c->nout < 1 || c->nin < 1 || c->segs[0].len != 8 || c->segs[c->nout].len < 8) {
		p->device.wrong++;
		return 0;
	}
	memcpy(&seq, c->segs[0].base, 8);
	for (uint32_t i = 1; i < c->nout; i++) {
		memcpy(&value, c->segs[i].base, 8);
		if (value != seq * PATTERN_MUL + i)
			p->device.wrong++;
	}
	for (uint32_t i = 0; i < c->nin; i++) {
		value = (seq ^ PATTERN_IN) + i;
		memcpy(c->segs[c->nout + i].base, &value, 8);
		at += c->segs[c->nout + i].len;
	}
	return at;
}

static void device_shuffle(struct ring_used *used, uint32_t n, uint64_t *seed)
{
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = rig_below(seed, i);
		struct ring_used t = used[j];

		used[j] = used[i - 1];
		used[i - 1] = t;
	}
}

static void *device_main(void *arg)
{
	static __thread struct ring_chain chains[BATCH];
	static __thread struct ring_seg segs[BATCH * SEGS];
	struct ring_used used[BATCH];
	struct pair *p = arg;
	uint64_t seed = p->seed * 77 + 1;
	uint32_t idle = 0;

	ring_device_doorbell_off(&p->rig.dev);
	while (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
		int n = ring_device_pop(
			&p->rig.dev, chains, 1 + rig_below(&seed, BATCH), segs, BATCH * SEGS);

		if (n < 0) {
			p->device.wrong++;
			break;
		}
		if (n == 0) {
			if (idle >= YIELD_AFTER)
				sched_yield();
			if (idle++ < p->spin || ring_device_doorbell_on(&p->rig.dev))
				continue;
			p->device.sleeps++;
			event_wait(p->doorbell);
			ring_device_doorbell_off(&p->rig.dev);
			idle = 0;
			continue;
		}
		idle = 0;
		for (int i = 0; i < n; i++)
			used[i] = (struct ring_used){chains[i].id, device_serve(p, &chains[i])};
		device_shuffle(used, n, &seed);
		if (ring_device_push(&p->rig.dev, used, n))
			p->device.wrong++;
		if (ring_device_needs_interrupt(&p->rig.dev))
			event_signal(p->interrupt);
	}
	return NULL;
}

/* Builds request `seq` in its cell; its shape follows from the number. */
static int driver_add(struct pair *p, uint64_t seq, uint32_t cell)
{
	uint64_t base = RIG_DATA_GPA + (uint64_t)cell * CELL;
	uint8_t *host = p->rig.data.at + (size_t)cell * CELL;
	bool wide = p->rig.size >= 4 || p->rig.features.indirect;
	uint32_t nout = wide ? 1 + seq % 2 : 1, nin = wide ? 1 + seq / 2 % 2 : 1;
	struct ring_sg sg[SEGS];

	for (uint32_t i = 0; i < nout; i++) {
		uint64_t value = i ? seq * PATTERN_MUL + i : seq;

		memcpy(host + 8 * i, &value, 8);
		sg[i] = (struct ring_sg){base + 8 * i, 8};
	}
	for (uint32_t i = 0; i < nin; i++)
		sg[nout + i] = (struct ring_sg){base + 32 + 16 * i, 16};
	return ring_driver_add(&p->rig.drv, sg, nout, nin, seq << 20 | cell);
}

static void driver_check(struct pair *p, const struct ring_done *done)
{
	uint64_t seq = done->token >> 20, value;
	uint32_t cell = done->token & 0xfffff, nin = done->len / 16;

	if (nin < 1 || nin > 2)
		p->driver.wrong++;
	for (uint32_t i = 0; i < nin && i < 2; i++) {
		memcpy(&value, p->rig.data.at + (size_t)cell * CELL + 32 + 16 * i, 8);
		if (value != (seq ^ PATTERN_IN) + i)
			p->driver.wrong++;
	}
}

static void driver_main(struct pair *p)
{
	uint32_t *spare = calloc(p->cells, sizeof(*spare)), nspare = 0, idle = 0;
	uint64_t seed = p->seed * 13 + 5, sent = 0, got = 0;
	struct ring_done done[BATCH];

	for (uint32_t i = 0; i < p->cells; i++)
		spare[nspare++] = i;
	ring_driver_interrupt_off(&p->rig.drv);
	while (got < REQUESTS && !p->driver.wrong) {
		uint32_t want = rig_below(&seed, BATCH) + 1, added = 0;
		int n;

		while (added < want && nspare && sent < REQUESTS &&
			driver_add(p, sent, spare[nspare - 1]) == 0) {
			nspare--;
			sent++;
			added++;
		}
		ring_driver_publish(&p->rig.drv);
		if (ring_driver_needs_doorbell(&p->rig.drv))
			event_signal(p->doorbell);
		n = ring_driver_collect(&p->rig.drv, done, 1 + rig_below(&seed, BATCH));
		if (n < 0) {
			p->driver.wrong++;
			break;
		}
		for (int i = 0; i < n; i++) {
			driver_check(p, &done[i]);
			spare[nspare++] = done[i].token & 0xfffff;
		}
		got += n;
		idle = n || added ? 0 : idle + 1;
		if (idle >= YIELD_AFTER)
			sched_yield();
		if (got < REQUESTS && idle > p->spin &&
			!ring_driver_interrupt_on(&p->rig.drv, 1 + rig_below(&seed, 4))) {
			p->driver.sleeps++;
			event_wait(p->interrupt);
			ring_driver_interrupt_off(&p->rig.drv);
			idle = 0;
		}
	}
	free(spare);
}

static void pair_run(enum ring_layout layout, uint32_t size, unsigned features, uint32_t spin)
{
	static struct pair p;
	pthread_t thread;

	memset(&p, 0, sizeof(p));
	rig_new(&p.rig, layout, size, features);
	if (layout == RING_SPLIT)
		rig_start(&p.rig, 65536 - 100);
	p.cells = size;
	p.seed = 1 + size * 8 + features;
	p.spin = spin;
	p.doorbell = eventfd(0, EFD_CLOEXEC);
	p.interrupt = eventfd(0, EFD_CLOEXEC);
	if (p.doorbell < 0 || p.interrupt < 0 || pthread_create(&thread, NULL, device_main, &p))
		abort();
	driver_main(&p);
	__atomic_store_n(&p.stop, true, __ATOMIC_RELEASE);
	event_signal(p.doorbell);
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(p.driver.wrong, 0);
	CU_ASSERT_EQUAL(p.device.wrong, 0);
	CU_ASSERT_EQUAL(p.rig.dev.counters.malformed, 0);
	CU_ASSERT_EQUAL(p.rig.dev.counters.pushed, REQUESTS);
	printf("\n    size %u features %u spin %u: slept %llu + %llu, doorbells %llu, interrupts "
	       "%llu",
		size, features, spin, (unsigned long long)p.driver.sleeps,
		(unsigned long long)p.device.sleeps, (unsigned long long)p.rig.drv.doorbells_wanted,
		(unsigned long long)p.rig.dev.counters.interrupts_wanted);
	close(p.doorbell);
	close(p.interrupt);
	rig_free(&p.rig);
}

static void run_all(enum ring_layout layout)
{
	static const uint32_t sizes[] = {2, 8, 256};

	alarm(WATCHDOG_S);
	for (unsigned features = 0; features < 8; features++)
		for (int i = 0; i < 3; i++)
			pair_run(layout, sizes[i], features, i == 1 ? 20 : 0);
	if (layout == RING_PACKED)
		pair_run(layout, 7, 1, 0);
	/* Hardly ever asleep: all ordering comes from the ring. */
	for (unsigned features = 0; features < 8; features++)
		pair_run(layout, 256, features, 1u << 20);
	alarm(0);
}

static void test_split(void)
{
	run_all(RING_SPLIT);
}

static void test_packed(void)
{
	run_all(RING_PACKED);
}

static const struct unit_case cases[] = {
	{"split: two threads that sleep", test_split},
	{"packed: two threads that sleep", test_packed},
};

UNIT_MAIN("ring_threads", cases)
