/* SPDX-License-Identifier: BSD-2-Clause */
/* What the vhost-user front-end shares: guest memory, its log, and the record of what is in flight.
 */
#include <fcntl.h>

#include "tests/unit/test_vhost_client_rig.h"

/* ------------------------------------------------------------------ guest memory */

static void two_regions(struct client *c)
{
	c->r.mem.regions[0].size = 2u << 20;
	CU_ASSERT_EQUAL_FATAL(ring_mem_add(&c->r.mem, RIG_GPA + (2u << 20), 2u << 20,
				      c->r.ram + (2u << 20), false),
		0);
}

/* Region by region where the back-end has room for them, else as a table. */
static void test_slots(void)
{
	static const struct {
		uint64_t slots;
		unsigned added, table;
	} with[] = {{32, 2, 0}, {2, 2, 0}, {1, 0, 2}, {0, 0, 2}, {UINT64_MAX, 2, 0}};

	for (size_t i = 0; i < sizeof(with) / sizeof(with[0]); i++) {
		struct client c;

		client_open(&c);
		two_regions(&c);
		c.p.protocol |= P_SLOTS;
		c.p.slots = with[i].slots;
		client_start(&c, 1, 32);
		device_taken(&c, 0);
		pthread_mutex_lock(&c.p.lock);
		CU_ASSERT_EQUAL(c.p.added, with[i].added);
		CU_ASSERT_EQUAL(c.p.regions, with[i].table);
		for (unsigned k = 0; k < c.p.added; k++) {
			CU_ASSERT_EQUAL(c.p.region[k][0], RIG_GPA + k * (2u << 20));
			CU_ASSERT_EQUAL(c.p.region[k][1], 2u << 20);
			CU_ASSERT_EQUAL(c.p.region[k][2], (uintptr_t)c.r.ram + k * (2u << 20));
			CU_ASSERT_EQUAL(c.p.region[k][3], k * (2u << 20));
		}
		pthread_mutex_unlock(&c.p.lock);
		once(&c, 0, 7);
		client_close(&c);
	}
}

/* ------------------------------------------------------------------ the log */

static unsigned pages_dirty(struct client *c)
{
	unsigned n = 0;

	split_dirty_sync(c->r.dev);
	for (uint64_t at = 0; at < c->r.bytes; at += 4096)
		n += rig_page_dirty(&c->r, RIG_GPA + at);
	memset(c->r.dirty, 0, c->r.bytes / 4096 / 8);
	return n;
}

/* As migration begins: the queues stop, and go on with the log. */
static void log_begin(struct client *c)
{
	split_quiesce_wait(c->r.dev);
	c->r.mem.regions[0].dirty = c->r.dirty;
	split_queue_state_get(c->r.dev, 0, &c->r.q[0].cfg.state);
	c->r.q[0].cfg.restore = true;
	rig_queue_start(&c->r, 0);
	device_taken(c, 0);
}

static void test_log(void)
{
	const uint64_t page = RIG_GPA / 4096;
	struct client c;
	uint64_t *words;

	client_open(&c);
	c.p.protocol |= P_LOG;
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	once(&c, 0, 1);
	CU_ASSERT_EQUAL(c.p.requests[SET_LOG_BASE], 0);
	log_begin(&c);
	pthread_mutex_lock(&c.p.lock);
	CU_ASSERT_FATAL(c.p.log_fd >= 0);
	CU_ASSERT(c.p.features_told & F_LOG_ALL);
	CU_ASSERT_EQUAL(c.p.q[0].flags, 1);
	CU_ASSERT_EQUAL(c.p.q[0].log, c.r.q[0].cfg.device_gpa);
	CU_ASSERT_FATAL(c.p.log_bytes >= (RIG_GPA + c.r.bytes) / 4096 / 8);
	words = mmap(NULL, c.p.log_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c.p.log_fd, 0);
	CU_ASSERT_FATAL(words != MAP_FAILED);
	/* it is not the back-end's to take away */
	CU_ASSERT(ftruncate(c.p.log_fd, 0) < 0);
	CU_ASSERT(fcntl(c.p.log_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0);
	pthread_mutex_unlock(&c.p.lock);
	once(&c, 0, 2);
	/* the ring that the test itself works on has marked its own */
	pages_dirty(&c);
	CU_ASSERT_EQUAL(pages_dirty(&c), 0);
	/* the sixth page, the last one, and one that is not the guest's */
	words[(page + 5) / 64] |= 1ull << (page + 5) % 64;
	words[(page + 1023) / 64] |= 1ull << (page + 1023) % 64;
	words[0] |= 8;
	split_dirty_sync(c.r.dev);
	CU_ASSERT(rig_page_dirty(&c.r, RIG_GPA + 5 * 4096));
	CU_ASSERT(rig_page_dirty(&c.r, RIG_GPA + 1023 * 4096));
	CU_ASSERT_EQUAL(pages_dirty(&c), 2);
	CU_ASSERT_EQUAL(pages_dirty(&c), 0);
	/* one that dies leaves what it logged; one without a log may write anywhere */
	words[page / 64] |= 3;
	pthread_mutex_lock(&c.p.lock);
	c.p.features &= ~F_LOG_ALL;
	pthread_mutex_unlock(&c.p.lock);
	played_die(&c.p);
	PLAYED_WAIT(&c.p, c.p.connections == 2);
	device_taken(&c, 0);
	CU_ASSERT_FALSE(c.p.features_told & F_LOG_ALL);
	CU_ASSERT_EQUAL(pages_dirty(&c), 1024);
	CU_ASSERT_EQUAL(pages_dirty(&c), 1024);
	pthread_mutex_lock(&c.p.lock);
	c.p.features |= F_LOG_ALL;
	pthread_mutex_unlock(&c.p.lock);
	played_die(&c.p);
	PLAYED_WAIT(&c.p, c.p.connections == 3);
	device_taken(&c, 0);
	CU_ASSERT_EQUAL(pages_dirty(&c), 1024);
	CU_ASSERT_EQUAL(pages_dirty(&c), 0);
	words[page / 64] |= 16;
	CU_ASSERT_EQUAL(pages_dirty(&c), 1);
	once(&c, 0, 3);
	munmap(words, c.p.log_bytes);
	client_close(&c);
}

/* ------------------------------------------------------------------ what is in flight */

static void kept_is(struct client *c, unsigned asked)
{
	struct stat st;

	CU_ASSERT_EQUAL_FATAL(fstat(c->p.kept_fd, &st), 0);
	PLAYED_AWAIT(&c->p, c->p.requests[SET_INFLIGHT_FD] == 1);
	CU_ASSERT_EQUAL(c->p.requests[GET_INFLIGHT_FD], asked);
	CU_ASSERT_EQUAL(c->p.kept_ino, st.st_ino);
	CU_ASSERT_EQUAL(c->p.kept_told[0], PLAYED_KEPT_BYTES);
	CU_ASSERT_EQUAL(c->p.kept_told[1], 0);
	/* queues, and how long they may be */
	CU_ASSERT_EQUAL((uint32_t)c->p.kept_told[2], 1 | 256 << 16);
	pthread_mutex_unlock(&c->p.lock);
}

static void reset_done(void *ctx)
{
	atomic_store((atomic_bool *)ctx, true);
}

/* The successor is given the same record, and goes on behind the last completion. */
static void test_kept(void)
{
	struct ring_chain chains[32];
	struct split_vhost_info info;
	struct ring_done done[32];
	atomic_bool reset = false;
	struct client c;
	unsigned n = 0;

	client_open(&c);
	c.p.protocol |= P_INFLIGHT;
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	kept_is(&c, 1);
	for (uint64_t t = 0; t < 20; t++)
		driver_add(&c, 0, t);
	rig_kick(&c.r, 0);
	CU_ASSERT_EQUAL_FATAL(device_pop(&c, 0, chains, 32), 20);
	/* the youngest first: from the ring alone nobody could tell */
	for (unsigned i = 19; i > 12; i--)
		device_push(&c, 0, &chains[i]);
	while (n < 7)
		n += rig_wait(&c.r, 0, done, 32);
	played_die(&c.p);
	PLAYED_WAIT(&c.p, c.p.connections == 2);
	device_taken(&c, 0);
	kept_is(&c, 0);
	CU_ASSERT_EQUAL(c.p.q[0].base, 7);
	split_vhost_info_get(c.r.dev, &info);
	CU_ASSERT_TRUE(info.inflight);
	CU_ASSERT_EQUAL(info.resubmitted, 0);
	/* another life of the device knows nothing of it */
	split_reset(c.r.dev, reset_done, &reset);
	for (unsigned i = 0; i < RIG_WAIT_MS && !reset; i++)
		usleep(1000);
	CU_ASSERT_TRUE_FATAL(reset);
	pthread_mutex_lock(&c.p.lock);
	c.p.requests[SET_INFLIGHT_FD] = 0;
	pthread_mutex_unlock(&c.p.lock);
	CU_ASSERT_EQUAL(split_features_set(c.r.dev, c.r.dev->features), 0);
	rig_queue_init(&c.r, 0, 32);
	rig_queue_start(&c.r, 0);
	device_taken(&c, 0);
	kept_is(&c, 1);
	once(&c, 0, 9);
	client_close(&c);
}

/* Of a packed ring the record says where the last completion was, if it can be believed. */
static void position_say(struct client *c, uint16_t used, uint8_t wrap)
{
	const uint8_t head[4] = {(uint8_t)used, (uint8_t)(used >> 8), wrap, wrap};

	CU_ASSERT_EQUAL(pwrite(c->p.kept_fd, head, sizeof(head), 18), sizeof(head));
}

static uint32_t base_of_next(struct client *c)
{
	unsigned seen;
	uint32_t base;

	pthread_mutex_lock(&c->p.lock);
	seen = c->p.connections;
	pthread_mutex_unlock(&c->p.lock);
	played_die(&c->p);
	PLAYED_AWAIT(&c->p, c->p.connections > seen && c->p.q[0].started && c->p.q[0].enabled == 1);
	base = c->p.q[0].base;
	pthread_mutex_unlock(&c->p.lock);
	return base;
}

static void test_kept_packed(void)
{
	struct ring_chain chains[8];
	struct ring_done done[8];
	struct client c;

	client_open(&c);
	c.p.protocol |= P_INFLIGHT;
	c.p.features |= VIRTIO_BIT(VIRTIO_F_RING_PACKED);
	c.o.ring = SPLIT_RING_PACKED;
	c.r.layout = RING_PACKED;
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	CU_ASSERT_EQUAL(c.p.q[0].base, 0x80008000);
	for (uint64_t t = 0; t < 4; t++)
		driver_add(&c, 0, t);
	rig_kick(&c.r, 0);
	CU_ASSERT_EQUAL_FATAL(device_pop(&c, 0, chains, 8), 4);
	device_push(&c, 0, &chains[0]);
	device_push(&c, 0, &chains[1]);
	CU_ASSERT(rig_wait(&c.r, 0, done, 8) >= 1);
	position_say(&c, 2, 1);
	CU_ASSERT_EQUAL(base_of_next(&c), 0x80028002);
	position_say(&c, 3, 0);
	CU_ASSERT_EQUAL(base_of_next(&c), 0x00030003);
	/* lies, and a record that is gone: where it was before */
	position_say(&c, 32, 1);
	CU_ASSERT_EQUAL(base_of_next(&c), 0x00030003);
	CU_ASSERT_EQUAL(ftruncate(c.p.kept_fd, 0), 0);
	CU_ASSERT_EQUAL(base_of_next(&c), 0x00030003);
	CU_ASSERT_EQUAL(c.r.broken, 0);
	client_close(&c);
}

/* ------------------------------------------------------------------ records that are none */

static void kept_without(struct played *p, struct fe_message *m)
{
	(void)p;
	m->nfds = 0;
}

static void kept_twice(struct played *p, struct fe_message *m)
{
	m->fds[m->nfds++] = p->listener;
}

static void kept_socket(struct played *p, struct fe_message *m)
{
	m->fds[0] = p->listener;
}

static void kept_empty(struct played *p, struct fe_message *m)
{
	(void)p;
	memset(m->payload, 0, 8);
}

static void kept_larger(struct played *p, struct fe_message *m)
{
	(void)p;
	m->payload[1] += 1;
}

static void kept_behind(struct played *p, struct fe_message *m)
{
	(void)p;
	memset(m->payload + 8, 0xff, 8);
}

static void kept_overflows(struct played *p, struct fe_message *m)
{
	(void)p;
	memset(m->payload, 0xff, 16);
}

static void kept_short(struct played *p, struct fe_message *m)
{
	(void)p;
	m->size = 8;
}

static void test_kept_hostile(void)
{
	static void (*const bad[])(struct played * p, struct fe_message * m) = {kept_without,
		kept_twice, kept_socket, kept_empty, kept_larger, kept_behind, kept_overflows,
		kept_short};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct split_vhost_info info;
		struct client c;

		client_open(&c);
		c.p.protocol |= P_INFLIGHT;
		c.p.spoil_request = GET_INFLIGHT_FD;
		c.p.spoil = bad[i];
		client_start(&c, 1, 32);
		PLAYED_AWAIT(&c.p, c.p.gone >= 2);
		c.p.spoil = NULL;
		pthread_mutex_unlock(&c.p.lock);
		device_taken(&c, 0);
		kept_is(&c, 1);
		once(&c, 0, i);
		split_vhost_info_get(c.r.dev, &info);
		CU_ASSERT(info.breaches >= 2);
		client_close(&c);
	}
}

static const struct unit_case cases[] = {
	{"memory region by region", test_slots},
	{"the log", test_log},
	{"what is in flight is kept", test_kept},
	{"the same of a packed ring", test_kept_packed},
	{"records that are none", test_kept_hostile},
};

UNIT_MAIN("vhost_client_memory", cases)
