/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers of the switch, a thread each, with a port each: frames from each to the next, in order
 * and whole, while other ports come, change and go, and workers fall asleep.
 */
#include "tests/unit/unit.h"
#include "netbridge/netbridge.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define WORKERS 3u
#define FRAMES  20000u
#define BURST   16u
/* More on their way than this would be lost on purpose. */
#define AHEAD 64u
#define ROOM  2048u

struct worker {
	struct net_switch *sw;
	unsigned index, to;
	struct net_port *port;
	pthread_t thread;
	sem_t wake;
	atomic_uint sent, received;
	struct worker *next;
	unsigned wrong, slept;
	bool sleepy;
};

static struct worker workers[WORKERS];
static atomic_bool stop;

static void mac_put(uint8_t *to, unsigned who)
{
	const uint8_t mac[6] = {0x02, 0, 0, 0, 1, (uint8_t)who};

	memcpy(to, mac, 6);
}

static uint32_t length_of(uint32_t seq)
{
	return 64 + seq * 37 % 1400;
}

static void frame_make(uint8_t *data, const struct worker *w, uint32_t seq)
{
	uint32_t len = length_of(seq);

	memset(data, (int)(seq + w->index), len);
	mac_put(data, w->to);
	mac_put(data + 6, w->index);
	data[12] = 0x88;
	data[13] = 0xb5;
	memcpy(data + 14, &seq, sizeof(seq));
}

static bool frame_good(const uint8_t *data, uint32_t len, const struct worker *from, uint32_t seq)
{
	uint8_t want[ROOM];

	frame_make(want, from, seq);
	return len == length_of(seq) && !memcmp(data, want, len);
}

static unsigned send_some(struct worker *w)
{
	static _Thread_local uint8_t data[BURST][ROOM];
	struct net_packet pkts[BURST], *list[BURST];
	struct iovec segs[BURST];
	uint32_t seq = atomic_load(&w->sent);
	unsigned n = 0;

	while (n < BURST && seq + n < FRAMES && seq + n < atomic_load(&w->next->received) + AHEAD) {
		frame_make(data[n], w, seq + n);
		segs[n] = (struct iovec){data[n], length_of(seq + n)};
		pkts[n] = (struct net_packet){
			.segs = &segs[n], .nsegs = 1, .len = length_of(seq + n)};
		list[n] = &pkts[n];
		n++;
	}
	if (n) {
		atomic_store(&w->sent, seq + n);
		net_port_send(w->port, 0, list, n);
	}
	return n;
}

/* From whoever sends to this one; what is flooded to it besides is not counted. */
static unsigned receive_some(struct worker *w)
{
	const struct worker *from = &workers[(w->index + WORKERS - 1) % WORKERS];
	static _Thread_local uint8_t data[ROOM];
	uint8_t me[6];
	unsigned n = 0;

	mac_put(me, w->index);
	for (;;) {
		struct iovec seg = {data, ROOM};
		struct net_buffer b = {.segs = &seg, .nsegs = 1, .room = ROOM};

		if (!net_port_receive(w->port, 0, &b, 1))
			return n;
		n++;
		if (memcmp(data, me, 6))
			continue;
		if (!frame_good(data, b.len, from, atomic_load(&w->received)) && !w->wrong++) {
			uint32_t seq;

			memcpy(&seq, data + 14, sizeof(seq));
			printf("\n    port%u: %u bytes of frame %u instead of %u ", w->index, b.len,
				seq, atomic_load(&w->received));
		}
		atomic_fetch_add(&w->received, 1);
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		unsigned n = net_switch_poll(w->sw, w->index);

		n += receive_some(w);
		n += send_some(w);
		if (n || !w->sleepy)
			continue;
		if (!net_switch_sleep(w->sw, w->index) && !net_port_rx_ready(w->port, 0)) {
			struct timespec until;

			/* a sender may also be waiting for its receiver */
			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_nsec += 2000000;
			until.tv_sec += until.tv_nsec / 1000000000;
			until.tv_nsec %= 1000000000;
			w->slept += !sem_timedwait(&w->wake, &until);
		}
		net_switch_awake(w->sw, w->index);
	}
	net_switch_sleep(w->sw, w->index);
	return NULL;
}

static void wake(void *ctx, unsigned worker)
{
	(void)ctx;
	sem_post(&workers[worker].wake);
}

static bool all_done(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		if (atomic_load(&workers[i].received) < FRAMES)
			return false;
	return true;
}

/* What a person at the control socket might do meanwhile. */
static void meddle(struct net_switch *sw, unsigned round)
{
	struct net_switch_port_options o = {.name = "other", .worker = round % WORKERS};
	struct net_switch_port_info infos[8];
	struct net_switch_mac macs[64];
	char why[NET_WHY_MAX];
	struct net_port *p;

	o.vlan = round % 2 ? 1 : 9;
	CU_ASSERT_EQUAL(net_switch_port_add(sw, &o, &p, why), 0);
	o.isolated = round % 3;
	o.trunk = round % 2;
	CU_ASSERT_EQUAL(net_switch_port_set(sw, &o, why), 0);
	CU_ASSERT_EQUAL(net_switch_ports_get(sw, infos, 8), WORKERS + 1);
	net_switch_macs_get(sw, macs, 64);
	if (round % 4 == 0)
		net_switch_macs_flush(sw);
	net_port_close(p);
	CU_ASSERT_EQUAL(net_switch_port_remove(sw, "other"), 0);
}

static void run(bool sleepy)
{
	const struct net_switch_options o = {.workers = WORKERS, .wake = wake};
	char why[NET_WHY_MAX], name[8];
	struct net_switch *sw;
	unsigned rounds = 0;

	CU_ASSERT_EQUAL_FATAL(net_switch_create(&sw, &o, why), 0);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < WORKERS; i++) {
		struct net_switch_port_options po = {.worker = i};
		struct worker *w = &workers[i];

		*w = (struct worker){.sw = sw,
			.index = i,
			.to = (i + 1) % WORKERS,
			.next = &workers[(i + 1) % WORKERS],
			.sleepy = sleepy};
		sem_init(&w->wake, 0, 0);
		snprintf(name, sizeof(name), "port%u", i);
		memcpy(po.name, name, sizeof(name));
		CU_ASSERT_EQUAL_FATAL(net_switch_port_add(sw, &po, &w->port, why), 0);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
	for (unsigned i = 0; i < 60000 && !all_done(); i++) {
		meddle(sw, rounds++);
		usleep(1000);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < WORKERS; i++) {
		struct worker *w = &workers[i];

		pthread_join(w->thread, NULL);
		CU_ASSERT_EQUAL(atomic_load(&w->received), FRAMES);
		CU_ASSERT_EQUAL(w->wrong, 0);
		snprintf(name, sizeof(name), "port%u", i);
		net_port_close(w->port);
		CU_ASSERT_EQUAL(net_switch_port_remove(sw, name), 0);
		sem_destroy(&w->wake);
	}
	CU_ASSERT(rounds > 1);
	net_switch_destroy(sw);
}

static void test_awake(void)
{
	run(false);
}

static void test_asleep(void)
{
	run(true);
	CU_ASSERT(workers[0].slept + workers[1].slept + workers[2].slept > 0);
}

static const struct unit_case cases[] = {
	{"frames in a circle of workers, ports coming and going", test_awake},
	{"the same with workers that sleep", test_asleep},
};

UNIT_MAIN("switch_workers", cases)
