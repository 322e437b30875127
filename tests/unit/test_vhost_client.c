/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost-user front-end against a back-end that the test plays, well and badly. */
#include "tests/unit/test_vhost_client_rig.h"

/* ------------------------------------------------------------------ setting up */

static void test_greeting(void)
{
	struct client c;
	uint8_t config[8];

	client_open(&c);
	c.o.queues = 2;
	client_start(&c, 2, 64);
	device_taken(&c, 0);
	device_taken(&c, 1);
	pthread_mutex_lock(&c.p.lock);
	CU_ASSERT_EQUAL(c.p.features_told, BLK_FEATURES & ~F_LOG_ALL);
	CU_ASSERT_EQUAL(c.p.protocol_told, BLK_PROTOCOL);
	CU_ASSERT_EQUAL(c.p.regions, 1);
	CU_ASSERT_EQUAL(c.p.requests[SET_OWNER], 1);
	CU_ASSERT_EQUAL(c.p.requests[SET_MEM_TABLE], 1);
	for (unsigned q = 0; q < 2; q++) {
		CU_ASSERT_EQUAL(c.p.q[q].num, 64);
		CU_ASSERT_EQUAL(c.p.q[q].base, 0);
		CU_ASSERT_EQUAL(c.p.q[q].desc, (uintptr_t)rig_host(&c.r, c.r.q[q].cfg.desc_gpa));
		CU_ASSERT(c.p.q[q].kick >= 0 && c.p.q[q].call >= 0);
	}
	pthread_mutex_unlock(&c.p.lock);
	/* of the back-end, but for the number of queues, which is the guest's to know */
	c.r.dev->ops->config_read(c.r.dev, 0, config, 8);
	CU_ASSERT_EQUAL(config[0], 77);
	c.r.dev->ops->config_read(c.r.dev, 34, config, 2);
	CU_ASSERT_EQUAL(config[0], 2);
	once(&c, 0, 5);
	once(&c, 1, 6);
	client_close(&c);
}

/* One that speaks no protocol extension at all: rings run as soon as they are kicked. */
static void test_old(void)
{
	struct client c;

	client_open(&c);
	c.o.virtio_id = VIRTIO_ID_NET;
	c.p.features &= ~(F_PROTOCOL | VIRTIO_BIT(F_FLUSH) | VIRTIO_BIT(F_MQ));
	client_start(&c, 2, 32);
	PLAYED_AWAIT(&c.p, c.p.q[0].started && c.p.q[1].started);
	played_ring(&c.p, 0);
	CU_ASSERT_EQUAL(c.p.q[0].enabled, -1);
	CU_ASSERT_EQUAL(c.p.requests[GET_PROTOCOL_FEATURES], 0);
	pthread_mutex_unlock(&c.p.lock);
	once(&c, 0, 1);
	client_close(&c);
}

static void test_create_fails(void)
{
	static const struct {
		uint64_t features, protocol;
		enum split_ring_choice ring;
		unsigned queues;
		bool in_order;
		int err;
		const char *why;
	} bad[] = {
		{F_PROTOCOL, BLK_PROTOCOL, 0, 1, false, -ENOTSUP, "legacy"},
		{BLK_FEATURES, 0, 0, 1, false, -ENOTSUP, "configuration space"},
		{BLK_FEATURES, BLK_PROTOCOL, SPLIT_RING_PACKED, 1, false, -ENOTSUP, "split rings"},
		{BLK_FEATURES | VIRTIO_BIT(VIRTIO_F_RING_PACKED), BLK_PROTOCOL, SPLIT_RING_PACKED,
			1, false, -ENOTSUP, "record"},
		{BLK_FEATURES, BLK_PROTOCOL, 0, 9, false, -ENOTSUP, "queues=9: the back-end has 8"},
		{BLK_FEATURES, BLK_PROTOCOL, 0, 1, true, -ENOTSUP, "in-order"},
	};
	char why[BACKEND_WHY_MAX];
	struct client c;

	client_open(&c);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		c.p.features = bad[i].features;
		c.p.protocol = bad[i].protocol;
		c.o.ring = bad[i].ring;
		c.o.queues = bad[i].queues;
		c.o.in_order = bad[i].in_order;
		CU_ASSERT_EQUAL(client_create(&c, why), bad[i].err);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, bad[i].why));
		PLAYED_WAIT(&c.p, c.p.gone == c.p.connections);
	}
	played_close(&c.p);
	/* nobody, and somebody who never answers */
	c.o.in_order = false;
	c.o.wait_ms = 60;
	CU_ASSERT_EQUAL(client_create(&c, why), -ETIMEDOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "no back-end listens"));
	c.o.fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CU_ASSERT(client_create(&c, why) < 0);
	c.o.fd = -1;
	c.o.mode = VHOST_LISTEN;
	CU_ASSERT_EQUAL(client_create(&c, why), -ETIMEDOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "no back-end connects"));
	CU_ASSERT_NOT_EQUAL(access(c.p.path, F_OK), 0);
	client_close(&c);
}

/* ------------------------------------------------------------------ losing and finding */

/* Out of order, none kept by the back-end: what it left comes again, once, oldest first. */
static void test_resubmit(void)
{
	struct ring_chain chains[32], again[64];
	struct split_vhost_info info;
	bool left[64] = {false};
	struct ring_done done[64];
	unsigned n, got = 0;
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	for (uint64_t t = 0; t < 20; t++) {
		driver_add(&c, 0, t);
		left[t] = true;
	}
	rig_kick(&c.r, 0);
	CU_ASSERT_EQUAL_FATAL(device_pop(&c, 0, chains, 32), 20);
	/* every third, from behind */
	for (unsigned i = 20; i-- > 0;) {
		if (i % 3)
			continue;
		device_push(&c, 0, &chains[i]);
		left[chains[i].out_len] = false;
	}
	for (n = 0; n < 7;)
		n += rig_wait(&c.r, 0, done, 64);
	/* a guest at its full depth: what is outstanding can be told */
	for (uint64_t t = 20; t < 27; t++) {
		driver_add(&c, 0, t);
		left[t] = true;
	}
	ring_driver_publish(&c.r.q[0].drv);
	played_die(&c.p);
	PLAYED_WAIT(&c.p, c.p.connections == 2);
	/* the guest goes on meanwhile */
	driver_add(&c, 0, 40);
	left[40] = true;
	rig_kick(&c.r, 0);
	device_taken(&c, 0);
	for (n = 0; n < 21;)
		n += device_pop(&c, 0, again + n, 64 - n);
	CU_ASSERT_EQUAL(n, 21);
	for (unsigned i = 0; i < n; i++) {
		CU_ASSERT_TRUE(left[again[i].out_len]);
		left[again[i].out_len] = false;
		CU_ASSERT(!i || again[i].out_len > again[i - 1].out_len);
		device_push(&c, 0, &again[i]);
	}
	while (got < n)
		got += rig_wait(&c.r, 0, done, 64);
	CU_ASSERT_EQUAL(got, n);
	split_vhost_info_get(c.r.dev, &info);
	CU_ASSERT_EQUAL(info.connections, 2);
	CU_ASSERT(info.resubmitted == 20 || info.resubmitted == 21);
	CU_ASSERT(noted(&c, "back-end lost"));
	CU_ASSERT(noted(&c, "found again"));
	once(&c, 0, 50);
	client_close(&c);
}

/* What cannot be told breaks the device, and nothing is done twice. */
static void test_unknown(void)
{
	struct ring_chain chains[32];
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	/* the youngest first, and the guest asks for nothing more: any of these may be a free one
	 */
	for (uint64_t t = 0; t < 20; t++)
		driver_add(&c, 0, t);
	rig_kick(&c.r, 0);
	CU_ASSERT_EQUAL_FATAL(device_pop(&c, 0, chains, 32), 20);
	for (unsigned i = 19; i > 12; i--)
		device_push(&c, 0, &chains[i]);
	played_die(&c.p);
	for (unsigned i = 0; i < RIG_WAIT_MS && !c.r.broken; i++)
		usleep(1000);
	CU_ASSERT_EQUAL(c.r.broken, 1);
	CU_ASSERT(noted(&c, "needs a reset"));
	PLAYED_AWAIT(&c.p, c.p.connections == 2 && c.p.requests[GET_CONFIG]);
	CU_ASSERT_FALSE(c.p.q[0].started);
	pthread_mutex_unlock(&c.p.lock);
	client_close(&c);
}

/* A back-end that can less is sent away until one comes that can as much. */
static void test_lesser(void)
{
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	once(&c, 0, 1);
	pthread_mutex_lock(&c.p.lock);
	c.p.features &= ~VIRTIO_BIT(F_FLUSH);
	pthread_mutex_unlock(&c.p.lock);
	played_die(&c.p);
	PLAYED_AWAIT(&c.p, c.p.connections == 4);
	CU_ASSERT(noted(&c, "lacks features that the guest uses: 0x200"));
	c.p.features |= VIRTIO_BIT(F_FLUSH);
	pthread_mutex_unlock(&c.p.lock);
	device_taken(&c, 0);
	once(&c, 0, 2);
	client_close(&c);
}

static void test_no_reconnect(void)
{
	struct client c;

	client_open(&c);
	c.o.no_reconnect = true;
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	played_die(&c.p);
	for (unsigned i = 0; i < RIG_WAIT_MS && !c.r.broken; i++)
		usleep(1000);
	CU_ASSERT_EQUAL(c.r.broken, 1);
	CU_ASSERT(noted(&c, "the device is gone"));
	CU_ASSERT_EQUAL(c.p.connections, 1);
	client_close(&c);
}

/* ------------------------------------------------------------------ interrupts, configuration */

static bool same_event(int ours, int theirs)
{
	uint64_t one = 1, n = 0;

	while (read(ours, &n, sizeof(n)) == sizeof(n))
		;
	return write(theirs, &one, sizeof(one)) == sizeof(one) && read(ours, &n, 8) == 8 && n == 1;
}

/* The back-end is given the very descriptor that interrupts, and the next one when it changes. */
static void test_vectors(void)
{
	int fds[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)};
	struct client c;
	unsigned calls;
	uint64_t n;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	once(&c, 0, 1);
	for (unsigned i = 0; i < 2; i++) {
		pthread_mutex_lock(&c.p.lock);
		calls = c.p.q[0].calls;
		pthread_mutex_unlock(&c.p.lock);
		__atomic_store_n(&c.vector_fd, fds[i], __ATOMIC_SEQ_CST);
		split_signal_changed(c.r.dev);
		PLAYED_WAIT(&c.p, c.p.q[0].calls > calls);
		/* once the back-end has it, what it may have told the old one comes again */
		for (unsigned k = 0; k < RIG_WAIT_MS && read(fds[i], &n, 8) != 8; k++)
			usleep(1000);
		CU_ASSERT(n >= 1);
		CU_ASSERT(same_event(fds[i], c.p.q[0].call));
	}
	/* and back to this process, which passes it on */
	pthread_mutex_lock(&c.p.lock);
	calls = c.p.q[0].calls;
	pthread_mutex_unlock(&c.p.lock);
	__atomic_store_n(&c.vector_fd, -1, __ATOMIC_SEQ_CST);
	split_signal_changed(c.r.dev);
	PLAYED_WAIT(&c.p, c.p.q[0].calls > calls);
	once(&c, 0, 2);
	client_close(&c);
	close(fds[0]);
	close(fds[1]);
}

static void test_config(void)
{
	const uint32_t change[3] = {2, 1 | 8, 0};
	struct fe_message m;
	struct client c;
	uint8_t byte = 0;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	pthread_mutex_lock(&c.p.lock);
	c.p.config[0] = 99;
	pthread_mutex_unlock(&c.p.lock);
	CU_ASSERT_FATAL(fe_send_raw(c.p.channel, change, sizeof(change), NULL, 0));
	CU_ASSERT(fe_receive(c.p.channel, &m) && m.request == 2 && m.flags == 5 && !fe_u64(&m));
	for (unsigned i = 0; i < RIG_WAIT_MS && !c.config_changes; i++)
		usleep(1000);
	CU_ASSERT_EQUAL(c.config_changes, 1);
	c.r.dev->ops->config_read(c.r.dev, 0, &byte, 1);
	CU_ASSERT_EQUAL(byte, 99);
	once(&c, 0, 1);
	client_close(&c);
}

/* ------------------------------------------------------------------ stopping */

static void test_stop(void)
{
	struct ring_device_state state;
	struct ring_chain chains[8];
	struct ring_done done[8];
	struct state_writer w = {0};
	struct state_reader r;
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	for (uint64_t t = 0; t < 5; t++)
		once(&c, 0, t);
	split_quiesce_wait(c.r.dev);
	split_queue_state_get(c.r.dev, 0, &state);
	CU_ASSERT_EQUAL(state.avail, 5);
	CU_ASSERT_EQUAL(state.used, 5);
	split_save(c.r.dev, &w);
	state_reader_init(&r, w.data, w.len);
	split_load(c.r.dev, &r);
	CU_ASSERT_EQUAL(r.error, 0);
	state_writer_free(&w);
	/* from there on */
	c.r.q[0].cfg.restore = true;
	c.r.q[0].cfg.state = state;
	rig_queue_start(&c.r, 0);
	device_taken(&c, 0);
	CU_ASSERT_EQUAL(c.p.q[0].base, 5);
	once(&c, 0, 6);
	/* stopped while the back-end is away: the ring knows what it left */
	for (uint64_t t = 10; t < 14; t++)
		driver_add(&c, 0, t);
	rig_kick(&c.r, 0);
	CU_ASSERT_EQUAL(device_pop(&c, 0, chains, 8), 4);
	device_push(&c, 0, &chains[0]);
	CU_ASSERT_EQUAL(rig_wait(&c.r, 0, done, 8), 1);
	pthread_mutex_lock(&c.p.lock);
	c.p.features = 0;
	pthread_mutex_unlock(&c.p.lock);
	played_die(&c.p);
	PLAYED_WAIT(&c.p, c.p.connections > 1);
	split_quiesce_wait(c.r.dev);
	split_queue_state_get(c.r.dev, 0, &state);
	CU_ASSERT_EQUAL(state.avail, 7);
	CU_ASSERT_EQUAL(state.used, 7);
	c.r.q[0].cfg.state = state;
	rig_queue_start(&c.r, 0);
	pthread_mutex_lock(&c.p.lock);
	c.p.features = BLK_FEATURES;
	pthread_mutex_unlock(&c.p.lock);
	device_taken(&c, 0);
	CU_ASSERT_EQUAL(device_pop(&c, 0, chains, 8), 3);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(chains[i].out_len, 11 + i);
	client_close(&c);
}

static void reset_done(void *ctx)
{
	atomic_store((atomic_bool *)ctx, true);
}

/* A back-end may say where it stops before it has done what it took: that is waited for. */
static void test_drain(void)
{
	atomic_bool done = false;
	struct ring_chain chains[4];
	struct ring_done got[4];
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	driver_add(&c, 0, 1);
	driver_add(&c, 0, 2);
	rig_kick(&c.r, 0);
	CU_ASSERT_EQUAL(device_pop(&c, 0, chains, 4), 2);
	split_reset(c.r.dev, reset_done, &done);
	PLAYED_WAIT(&c.p, c.p.requests[GET_VRING_BASE] == 1);
	usleep(20000);
	CU_ASSERT_FALSE(done);
	device_push(&c, 0, &chains[1]);
	device_push(&c, 0, &chains[0]);
	for (unsigned i = 0; i < RIG_WAIT_MS && !done; i++)
		usleep(1000);
	CU_ASSERT_TRUE(done);
	CU_ASSERT_EQUAL(ring_driver_collect(&c.r.q[0].drv, got, 4), 2);
	/* a new life, on the same connection */
	CU_ASSERT_EQUAL(split_features_set(c.r.dev, VIRTIO_BIT(VIRTIO_F_VERSION_1)), 0);
	c.r.features = (struct ring_features){0};
	rig_queue_init(&c.r, 0, 16);
	rig_queue_start(&c.r, 0);
	PLAYED_AWAIT(&c.p, c.p.requests[SET_FEATURES] == 2 && c.p.q[0].started);
	CU_ASSERT_EQUAL(c.p.features_told, VIRTIO_BIT(VIRTIO_F_VERSION_1) | F_PROTOCOL);
	CU_ASSERT_EQUAL(c.p.q[0].base, 0);
	CU_ASSERT_EQUAL(c.p.q[0].num, 16);
	pthread_mutex_unlock(&c.p.lock);
	device_taken(&c, 0);
	once(&c, 0, 9);
	CU_ASSERT_EQUAL(c.p.connections, 1);
	client_close(&c);
}

/* ------------------------------------------------------------------ a network card */

static void test_control_queue(void)
{
	const uint8_t set[2][4] = {{4, 0, 2, 0}, {4, 0, 1, 0}};
	struct client c;

	client_open(&c);
	c.o.virtio_id = VIRTIO_ID_NET;
	c.o.queues = 2;
	c.p.features = VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(15) | F_PROTOCOL;
	c.p.protocol = 1 | 8;
	client_start(&c, 0, 0);
	CU_ASSERT_EQUAL(c.r.dev->nqueues, 5);
	c.r.features = (struct ring_features){0};
	for (unsigned q = 0; q < 5; q++) {
		rig_queue_init(&c.r, q, 32);
		rig_queue_start(&c.r, q);
	}
	/* the first pair is used, the other waits */
	PLAYED_AWAIT(&c.p, c.p.q[0].enabled == 1 && c.p.q[1].enabled == 1 && c.p.q[3].enabled == 0);
	CU_ASSERT_FALSE(c.p.q[4].started);
	CU_ASSERT_EQUAL(c.p.features_told, c.p.features);
	pthread_mutex_unlock(&c.p.lock);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t at = rig_alloc(&c.r, 16, 16);
		const struct ring_sg sg[2] = {{at, 4}, {at + 8, 1}};
		struct ring_done done;

		memcpy(rig_host(&c.r, at), set[i], 4);
		*(uint8_t *)rig_host(&c.r, at + 8) = 0xff;
		CU_ASSERT_EQUAL(ring_driver_add(&c.r.q[4].drv, sg, 1, 1, 1), 0);
		rig_kick(&c.r, 4);
		CU_ASSERT_EQUAL(rig_wait(&c.r, 4, &done, 1), 1);
		CU_ASSERT_EQUAL(*(uint8_t *)rig_host(&c.r, at + 8), 0);
		PLAYED_WAIT(&c.p, c.p.q[2].enabled == !i && c.p.q[3].enabled == !i);
	}
	client_close(&c);
}

static const struct unit_case cases[] = {
	{"greeting, memory, queues", test_greeting},
	{"a back-end without protocol features", test_old},
	{"creation that fails", test_create_fails},
	{"lost: what was left is done again", test_resubmit},
	{"lost: what cannot be told", test_unknown},
	{"a lesser back-end is sent away", test_lesser},
	{"reconnect=off", test_no_reconnect},
	{"interrupts by the transport's own descriptor", test_vectors},
	{"configuration that changes", test_config},
	{"stopped, saved, loaded, also while the back-end is away", test_stop},
	{"reset waits for what is in flight", test_drain},
	{"the control queue of a network card", test_control_queue},
};

UNIT_MAIN("vhost_client", cases)
