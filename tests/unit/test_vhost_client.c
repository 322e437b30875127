/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost-user front-end against a back-end that the test plays, well and badly. */
#include "tests/unit/test_vhost_client_rig.h"

struct client {
	struct rig r;
	int memfd;
	struct played p;
	struct split_vhost_options o;
	pthread_mutex_t lock;
	char notes[2048];
	atomic_uint config_changes;
	int vector_fd; /* what signal.queue_fd() says */
};

static void note(void *ctx, const char *line)
{
	struct client *c = ctx;
	size_t at;

	pthread_mutex_lock(&c->lock);
	at = strlen(c->notes);
	snprintf(c->notes + at, sizeof(c->notes) - at, "%s\n", line);
	pthread_mutex_unlock(&c->lock);
}

static bool noted(struct client *c, const char *what)
{
	bool found;

	pthread_mutex_lock(&c->lock);
	found = strstr(c->notes, what) != NULL;
	pthread_mutex_unlock(&c->lock);
	return found;
}

static void config_changed(void *ctx)
{
	struct client *c = ctx;

	atomic_fetch_add(&c->config_changes, 1);
}

static int queue_fd(void *ctx, unsigned q)
{
	struct client *c = ctx;

	(void)q;
	return __atomic_load_n(&c->vector_fd, __ATOMIC_SEQ_CST);
}

static void client_open(struct client *c)
{
	memset(c, 0, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
	rig_open(&c->r, false, 0, 4u << 20);
	c->memfd = (int)syscall(SYS_memfd_create, "guest", 1);
	CU_ASSERT_FATAL(c->memfd >= 0 && !ftruncate(c->memfd, (off_t)c->r.bytes));
	CU_ASSERT_FATAL(mmap(c->r.ram, c->r.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				c->memfd, 0) != MAP_FAILED);
	c->vector_fd = -1;
	c->r.signal.config = config_changed;
	c->r.signal.queue_fd = queue_fd;
	played_open(&c->p, &c->r);
	c->o = (struct split_vhost_options){.virtio_id = VIRTIO_ID_BLOCK,
		.mode = VHOST_CONNECT,
		.path = c->p.path,
		.fd = -1,
		.reconnect_ms = 20,
		.memory = {c->memfd, c->r.ram},
		.note = note,
		.ctx = c};
}

static int client_create(struct client *c, char why[BACKEND_WHY_MAX])
{
	return split_vhost_create(&c->r.dev, c->r.io, &c->r.mem, &c->r.signal, &c->o, why);
}

static void client_close(struct client *c)
{
	if (c->r.dev)
		played_close(&c->p);
	rig_close(&c->r);
	close(c->memfd);
	pthread_mutex_destroy(&c->lock);
}

/* Device, features, queues, up to where the back-end has taken them over. */
static void client_start(struct client *c, unsigned queues, uint32_t size)
{
	char why[BACKEND_WHY_MAX] = "";

	if (client_create(c, why))
		printf(" %s ", why);
	CU_ASSERT_FATAL(c->r.dev != NULL);
	if (!c->r.dev)
		return;
	c->r.features = (struct ring_features){.event_idx = true, .indirect = true};
	CU_ASSERT_EQUAL_FATAL(split_features_set(c->r.dev, c->r.dev->features), 0);
	for (unsigned q = 0; q < queues; q++) {
		rig_queue_init(&c->r, q, size);
		rig_queue_start(&c->r, q);
	}
}

/* From here on the test is the device behind the queue. */
static void device_taken(struct client *c, unsigned q)
{
	PLAYED_AWAIT(&c->p, c->p.q[q].started && c->p.q[q].enabled == 1);
	played_ring(&c->p, q);
	pthread_mutex_unlock(&c->p.lock);
}

static void driver_add(struct client *c, unsigned q, uint64_t token)
{
	struct ring_sg sg = {RIG_GPA + (3u << 20) + token * 16, 16};

	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&c->r.q[q].drv, &sg, 1, 0, token), 0);
}

static unsigned device_pop(struct client *c, unsigned q, struct ring_chain *chains, unsigned max)
{
	static struct ring_seg segs[256];
	int n = ring_device_pop(&c->p.q[q].ring, chains, max, segs, 256);

	CU_ASSERT_FATAL(n >= 0);
	/* the segment says which request it is */
	for (int i = 0; i < n; i++)
		chains[i].out_len =
			(uint32_t)((uint8_t *)chains[i].segs[0].base - c->r.ram - (3u << 20)) / 16;
	return (unsigned)n;
}

static void device_push(struct client *c, unsigned q, const struct ring_chain *chain)
{
	struct ring_used used = {.id = chain->id};
	uint64_t one = 1;

	CU_ASSERT_EQUAL_FATAL(ring_device_push(&c->p.q[q].ring, &used, 1), 0);
	if (ring_device_needs_interrupt(&c->p.q[q].ring))
		CU_ASSERT_EQUAL(write(c->p.q[q].call, &one, 8), 8);
}

/* One request there and back. */
static void once(struct client *c, unsigned q, uint64_t token)
{
	struct ring_chain chain;
	struct ring_done done = {0};
	struct pollfd p = {.fd = c->p.q[q].kick, .events = POLLIN};

	ring_device_doorbell_on(&c->p.q[q].ring);
	driver_add(c, q, token);
	rig_kick(&c->r, q);
	CU_ASSERT_EQUAL(poll(&p, 1, RIG_WAIT_MS), 1);
	CU_ASSERT_EQUAL_FATAL(device_pop(c, q, &chain, 1), 1);
	device_push(c, q, &chain);
	CU_ASSERT_EQUAL_FATAL(rig_wait(&c->r, q, &done, 1), 1);
	CU_ASSERT_EQUAL(done.token, token);
}

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
	n = rig_wait(&c.r, 0, done, 64);
	CU_ASSERT_EQUAL(n, 7);
	/* the driver keeps its depth */
	for (uint64_t t = 20; t < 27; t++) {
		driver_add(&c, 0, t);
		left[t] = true;
	}
	rig_kick(&c.r, 0);
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
	struct ring_done done[32];
	struct client c;

	client_open(&c);
	client_start(&c, 1, 32);
	device_taken(&c, 0);
	/* younger ones overtake, and then there are fewer than there were */
	for (uint64_t t = 0; t < 20; t++)
		driver_add(&c, 0, t);
	rig_kick(&c.r, 0);
	CU_ASSERT_EQUAL_FATAL(device_pop(&c, 0, chains, 32), 20);
	for (unsigned i = 20; i-- > 0;)
		if (i % 3 == 0)
			device_push(&c, 0, &chains[i]);
	CU_ASSERT_EQUAL(rig_wait(&c.r, 0, done, 32), 7);
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
	{"hostile answers", test_hostile},
	{"a hostile position", test_hostile_base},
};

UNIT_MAIN("vhost_client", cases)
