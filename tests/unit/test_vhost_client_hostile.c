/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost-user front-end against back-ends that are wrong, slow, or gone at the worst moment. */
#include <fcntl.h>

#include "tests/unit/test_vhost_client_rig.h"

/* ------------------------------------------------------------------ hostile back-ends */

static void spoil_request(struct played *p, struct fe_message *m)
{
	(void)p;
	m->request++;
}

static void spoil_flag(struct played *p, struct fe_message *m)
{
	(void)p;
	m->flags = 1;
}

static void spoil_version(struct played *p, struct fe_message *m)
{
	(void)p;
	m->flags = 6;
}

static void spoil_short(struct played *p, struct fe_message *m)
{
	(void)p;
	m->size -= 4;
}

static void spoil_long(struct played *p, struct fe_message *m)
{
	(void)p;
	m->size += 8;
}

static void spoil_fd(struct played *p, struct fe_message *m)
{
	m->fds[0] = p->listener;
	m->nfds = 1;
}

static void spoil_twice(struct played *p, struct fe_message *m)
{
	fe_send(p->socket, m->request, m->flags, m->payload, m->size, NULL, 0);
}

static void spoil_huge(struct played *p, struct fe_message *m)
{
	const uint32_t h[3] = {m->request, 5, 0x7fffffff};

	fe_send_raw(p->socket, h, sizeof(h), NULL, 0);
	m->size = UINT32_MAX;
}

/* Half a header, and the end. */
static void spoil_half(struct played *p, struct fe_message *m)
{
	fe_send_raw(p->socket, m, 6, NULL, 0);
	shutdown(p->socket, SHUT_RDWR);
	m->size = UINT32_MAX;
}

static void spoil_mute(struct played *p, struct fe_message *m)
{
	(void)p;
	m->size = UINT32_MAX;
}

/* Byte by byte. */
static void spoil_slow(struct played *p, struct fe_message *m)
{
	uint8_t bytes[12 + sizeof(m->payload)];

	memcpy(bytes, m, 12);
	memcpy(bytes + 12, m->payload, m->size);
	for (uint32_t i = 0; i < 12 + m->size; i++) {
		fe_send_raw(p->socket, bytes + i, 1, m->fds, i ? 0 : m->nfds);
		usleep(i % 8 ? 0 : 200);
	}
	m->size = UINT32_MAX;
}

static void spoil_number(struct played *p, struct fe_message *m)
{
	(void)p;
	memset(m->payload + 4, 0x7f, 4);
}

static const struct {
	const char *name;
	uint32_t request;
	void (*spoil)(struct played *p, struct fe_message *m);
} spoils[] = {
	{"another request", GET_FEATURES, spoil_request},
	{"no reply flag", GET_PROTOCOL_FEATURES, spoil_flag},
	{"another version", GET_QUEUE_NUM, spoil_version},
	{"a short answer", GET_FEATURES, spoil_short},
	{"a long answer", GET_QUEUE_NUM, spoil_long},
	{"a descriptor nobody asked for", GET_CONFIG, spoil_fd},
	{"a short configuration space", GET_CONFIG, spoil_short},
	{"another offset in it", GET_CONFIG, spoil_number},
	{"an answer twice", GET_QUEUE_NUM, spoil_twice},
	{"an answer of 2 GiB", GET_FEATURES, spoil_huge},
	{"half an answer", GET_PROTOCOL_FEATURES, spoil_half},
	{"half a configuration space", GET_CONFIG, spoil_half},
	{"a short acknowledgement", SET_MEM_TABLE, spoil_short},
	{"a descriptor with one", SET_VRING_ADDR, spoil_fd},
	{"a refusal", SET_VRING_ADDR, spoil_number},
};

/* Each ends its connection; a better back-end goes on, and nothing is left open. */
static void test_hostile(void)
{
	struct split_vhost_info info;
	unsigned open_before, seen;
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	once(&c, 0, 1);
	open_before = fe_open_fds();
	for (size_t i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
		pthread_mutex_lock(&c.p.lock);
		c.p.spoil_request = spoils[i].request;
		c.p.spoil = spoils[i].spoil;
		seen = c.p.gone;
		pthread_mutex_unlock(&c.p.lock);
		played_die(&c.p);
		/* it came, was wrong, and was sent away */
		PLAYED_AWAIT(&c.p, c.p.gone >= seen + 3);
		c.p.spoil = NULL;
		pthread_mutex_unlock(&c.p.lock);
		device_taken(&c, 0);
		once(&c, 0, 2 + i);
	}
	split_vhost_info_get(c.r.dev, &info);
	CU_ASSERT(info.breaches >= 2 * (sizeof(spoils) / sizeof(spoils[0]) - 1));
	CU_ASSERT_EQUAL(fe_open_fds(), open_before);
	CU_ASSERT_EQUAL(c.r.broken, 0);
	client_close(&c);
}

/* A position that cannot be: the ring is believed instead. */
static void test_hostile_base(void)
{
	struct ring_device_state state;
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	for (uint64_t t = 0; t < 3; t++)
		once(&c, 0, t);
	pthread_mutex_lock(&c.p.lock);
	c.p.spoil_request = GET_VRING_BASE;
	c.p.spoil = spoil_number;
	pthread_mutex_unlock(&c.p.lock);
	split_quiesce_wait(c.r.dev);
	split_queue_state_get(c.r.dev, 0, &state);
	CU_ASSERT_EQUAL(state.avail, 3);
	CU_ASSERT_EQUAL(state.used, 3);
	client_close(&c);
}

/* ------------------------------------------------------------------ slow, silent, gone */

static void test_slow(void)
{
	struct client c;

	client_open(&c);
	c.p.protocol |= P_LOG | P_INFLIGHT | P_SLOTS;
	c.p.spoil_request = SPOIL_ALL;
	c.p.spoil = spoil_slow;
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	once(&c, 0, 1);
	CU_ASSERT_EQUAL(c.p.connections, 1);
	client_close(&c);
}

/* One that is connected and says nothing holds nothing up but its own device. */
static void test_mute(void)
{
	char why[BACKEND_WHY_MAX] = "";
	struct ring_device_state state;
	struct client c;

	client_open(&c);
	c.p.spoil_request = GET_FEATURES;
	c.p.spoil = spoil_mute;
	c.o.wait_ms = 60;
	CU_ASSERT_EQUAL(client_create(&c, why), -ETIMEDOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "the back-end does not answer"));
	pthread_mutex_lock(&c.p.lock);
	c.p.spoil = NULL;
	pthread_mutex_unlock(&c.p.lock);
	c.o.wait_ms = 0;
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	once(&c, 0, 1);
	pthread_mutex_lock(&c.p.lock);
	c.p.spoil = spoil_mute;
	pthread_mutex_unlock(&c.p.lock);
	played_die(&c.p);
	PLAYED_WAIT(&c.p, c.p.connections == 3 && c.p.requests[GET_FEATURES]);
	split_quiesce_wait(c.r.dev);
	split_queue_state_get(c.r.dev, 0, &state);
	CU_ASSERT_EQUAL(state.avail, 1);
	client_close(&c);
}

/* Everything a front-end may use is in use, so that there is more to say. */
static void client_full(struct client *c)
{
	client_open(c);
	c->p.protocol |= P_LOG | P_INFLIGHT | P_SLOTS;
	c->p.slots = 8;
	c->r.mem.regions[0].dirty = c->r.dirty;
}

/* Taken over by a connection that has said all and stays: the one before may have got that far too.
 */
static void settled(struct client *c, unsigned total)
{
	PLAYED_AWAIT(&c->p, c->p.socket >= 0 && c->p.received == total);
	played_ring(&c->p, 0);
	pthread_mutex_unlock(&c->p.lock);
}

/* The connection ends at every message there is, also while the device is being created. */
static void test_closing(void)
{
	unsigned total, seen, open_before;
	struct split_vhost_info info;
	struct client c;

	client_full(&c);
	c.p.closing = 7;
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	once(&c, 0, 1);
	CU_ASSERT_EQUAL(c.p.connections, 8);
	/* what is kept for good is there once the next connection is */
	played_die(&c.p);
	PLAYED_WAIT(&c.p, c.p.connections == 9);
	device_taken(&c, 0);
	open_before = fe_open_fds();
	total = c.p.received;
	CU_ASSERT(total >= 18);
	for (unsigned n = 1; n <= total; n++) {
		pthread_mutex_lock(&c.p.lock);
		c.p.close_after = n;
		seen = c.p.gone;
		pthread_mutex_unlock(&c.p.lock);
		played_die(&c.p);
		PLAYED_AWAIT(&c.p, c.p.gone >= seen + 2);
		c.p.close_after = 0;
		pthread_mutex_unlock(&c.p.lock);
		settled(&c, total);
		once(&c, 0, n % 64);
	}
	split_vhost_info_get(c.r.dev, &info);
	CU_ASSERT_EQUAL(info.breaches, 0);
	CU_ASSERT_EQUAL(fe_open_fds(), open_before);
	CU_ASSERT_EQUAL(c.r.broken, 0);
	client_close(&c);
}

/* ------------------------------------------------------------------ what it offers and asks */

/* One that offers everything is told only what is meant. */
static void test_everything(void)
{
	const uint64_t known = BLK_PROTOCOL | P_LOG | P_INFLIGHT | P_SLOTS;
	struct client c;

	client_open(&c);
	c.p.features = c.p.protocol = c.p.queues = c.p.slots = UINT64_MAX;
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	/* VIRTIO_BLK_F_*, the ring's, VERSION_1; no packed ring, no in-order: nobody asked for them
	 */
	CU_ASSERT_EQUAL(c.r.dev->features & ~0x130007e76ull, 0);
	CU_ASSERT_EQUAL(c.p.features_told, c.r.dev->features | F_PROTOCOL);
	CU_ASSERT_EQUAL(c.p.protocol_told, known);
	once(&c, 0, 1);
	client_close(&c);
}

static void channel_say(struct client *c, uint32_t request, uint32_t flags, uint32_t size)
{
	const uint32_t h[5] = {request, flags, size};

	CU_ASSERT(fe_send_raw(c->p.channel, h, size <= 8 ? 12 + size : 12, NULL, 0));
}

/* Requests of its own: unknown ones are refused, wrong ones end the connection. */
static void test_channel(void)
{
	struct fe_message m;
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	channel_say(&c, 3, 1 | 8, 8);
	CU_ASSERT(fe_receive(c.p.channel, &m) && m.request == 3 && m.flags == 5 && fe_u64(&m));
	CU_ASSERT_FALSE(fcntl(c.p.channel, F_GETFL) & O_NONBLOCK);
	/* more questions than it reads answers to */
	for (unsigned i = 0; i < 3000; i++)
		channel_say(&c, 2, 1 | 8, 0);
	once(&c, 0, 1);
	channel_say(&c, 2, 1, 0x7fffffff);
	PLAYED_WAIT(&c.p, c.p.connections == 2);
	device_taken(&c, 0);
	CU_ASSERT(noted(&c, "its own requests are malformed"));
	once(&c, 0, 2);
	/* without the channel there is still the device */
	shutdown(c.p.channel, SHUT_RDWR);
	once(&c, 0, 3);
	CU_ASSERT_EQUAL(c.p.connections, 2);
	client_close(&c);
}

/* It says that the driver broke the protocol. */
static void test_error(void)
{
	const uint64_t one = 1;
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	CU_ASSERT_EQUAL(write(c.p.q[0].err, &one, sizeof(one)), sizeof(one));
	for (unsigned i = 0; i < RIG_WAIT_MS && !c.r.broken; i++)
		usleep(1000);
	CU_ASSERT_EQUAL(c.r.broken, 1);
	client_close(&c);
}

static const struct unit_case cases[] = {
	{"hostile answers", test_hostile},
	{"a hostile position", test_hostile_base},
	{"answers byte by byte", test_slow},
	{"no answer at all", test_mute},
	{"gone at every message", test_closing},
	{"one that offers everything", test_everything},
	{"its own requests", test_channel},
	{"a driver that it complains of", test_error},
};

UNIT_MAIN("vhost_client_hostile", cases)
