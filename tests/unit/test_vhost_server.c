/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost-user back-end as a front-end meets it: a disk over a socket. */
#include <fcntl.h>

#include "tests/unit/test_vhost_rig.h"

static void test_transfer(void)
{
	for (unsigned bits = 0; bits < 8; bits++) {
		struct fe f;

		fe_open(&f, bits & 4 ? 3 : 1, bits & 2, bits & 2 ? 100 : 0);
		f.packed = bits & 1;
		fe_start(&f, bits & 4 ? 16 : 64);
		disk_transfer(&f.d, 300, NULL);
		fe_close(&f);
	}
}

/* ------------------------------------------------------------------ while it runs */

static struct fe *running;

/* Memory is set anew in the middle of everything; the driver does not notice. */
static void memory_again(struct disk *d)
{
	struct fe *f = running;
	const uint64_t half = d->r.bytes / 2;
	uint64_t regions[2][5] = {
		{0, RIG_GPA, half, FE_USER, 0}, {0, RIG_GPA + half, half, FE_USER + half, half}};
	const uint64_t whole[5] = {0, RIG_GPA, d->r.bytes, FE_USER, 0};

	CU_ASSERT_EQUAL(fe_region(f, RIG_GPA, d->r.bytes, 0), 0);
	/* slot by slot: no ring runs while its memory is away */
	CU_ASSERT_EQUAL(fe_tell(f, REM_MEM_REG, whole, sizeof(whole)), 0);
	for (unsigned i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(fe_tell_fds(f, ADD_MEM_REG, regions[i], 40, &f->memfd, 1), 0);
}

static void stop_and_go(struct disk *d)
{
	struct fe *f = running;

	for (unsigned q = 0; q < d->queues; q++) {
		uint32_t base = fe_base(f, q);

		CU_ASSERT_EQUAL(fe_base(f, q), base);
		if (f->packed)
			CU_ASSERT_EQUAL(base >> 16, base & 0xffff);
		fe_queue(f, q, base);
	}
	for (unsigned q = 0; q < d->queues; q++) {
		CU_ASSERT_EQUAL(fe_tell_state(f, SET_VRING_ENABLE, q, 0), 0);
		CU_ASSERT_EQUAL(fe_tell_state(f, SET_VRING_ENABLE, q, 1), 0);
	}
}

/* The front-end goes and comes again, from where the rings say they are. */
static void connect_again(struct disk *d)
{
	struct fe *f = running;
	uint32_t base[4];

	for (unsigned q = 0; q < d->queues; q++)
		base[q] = fe_base(f, q);
	fe_disconnect(f);
	fe_features(f, 0);
	CU_ASSERT_EQUAL(fe_region(f, RIG_GPA, f->d.r.bytes, 0), 0);
	for (unsigned q = 0; q < d->queues; q++) {
		fe_queue(f, q, base[q]);
		CU_ASSERT_EQUAL(fe_tell_state(f, SET_VRING_ENABLE, q, 1), 0);
	}
}

static void test_running(void)
{
	static void (*const hooks[])(struct disk * d) = {memory_again, stop_and_go, connect_again};

	for (unsigned bits = 0; bits < 6; bits++) {
		struct fe f;

		running = &f;
		fe_open(&f, 3, bits & 1, 50);
		f.packed = bits & 1;
		fe_start(&f, 16);
		disk_transfer(&f.d, 200, hooks[bits / 2]);
		disk_transfer(&f.d, 100, NULL);
		fe_close(&f);
	}
}

/* ------------------------------------------------------------------ configuration, features */

static void test_config(void)
{
	struct {
		uint32_t offset, size, flags;
		uint8_t bytes[60];
	} c = {0, 60, 0, {0}};
	struct fe_message m;
	struct fe f;
	uint64_t capacity;

	fe_open(&f, 3, false, 0);
	fe_features(&f, 0);
	CU_ASSERT_FATAL(fe_ask(&f, GET_QUEUE_NUM, NULL, 0, &m));
	CU_ASSERT_EQUAL(fe_u64(&m), 3);
	CU_ASSERT_FATAL(fe_ask(&f, GET_MAX_MEM_SLOTS, NULL, 0, &m));
	CU_ASSERT_EQUAL(fe_u64(&m), RING_MEM_REGIONS_MAX);
	CU_ASSERT_FATAL(fe_ask(&f, GET_CONFIG, &c, 72, &m));
	CU_ASSERT_EQUAL(m.size, 72);
	memcpy(&capacity, m.payload + 12, 8);
	CU_ASSERT_EQUAL(capacity, DISK_SECTORS);
	CU_ASSERT_EQUAL(m.payload[12 + 34], 3);
	CU_ASSERT_EQUAL(m.payload[12 + 32], 1);
	/* bytes that are not there, and those that cannot be asked for */
	c.offset = 250;
	CU_ASSERT_FATAL(fe_ask(&f, GET_CONFIG, &c, 72, &m));
	CU_ASSERT_EQUAL(m.size, 0);
	/* the cache mode is the driver's to set, once it has accepted the feature: with the queues
	 */
	c.offset = 32;
	c.size = 1;
	c.bytes[0] = 0;
	CU_ASSERT_EQUAL(fe_tell(&f, SET_CONFIG, &c, 13), 0);
	/* status */
	CU_ASSERT_EQUAL(fe_tell_u64(&f, SET_STATUS, 0xf), 0);
	CU_ASSERT_FATAL(fe_ask(&f, GET_STATUS, NULL, 0, &m));
	CU_ASSERT_EQUAL(fe_u64(&m), 0xf);
	CU_ASSERT_EQUAL(fe_tell(&f, RESET_DEVICE, NULL, 0), 0);
	CU_ASSERT_FATAL(fe_ask(&f, GET_STATUS, NULL, 0, &m));
	CU_ASSERT_EQUAL(fe_u64(&m), 0);
	fe_close(&f);
}

static void test_legacy_driver(void)
{
	struct fe f;

	fe_open(&f, 1, false, 0);
	fe_features(&f, VIRTIO_BIT(VIRTIO_F_VERSION_1));
	CU_ASSERT_EQUAL(fe_region(&f, RIG_GPA, f.d.r.bytes, 0), 0);
	rig_queue_init(&f.d.r, 0, 16);
	fe_queue(&f, 0, 0);
	CU_ASSERT_EQUAL(fe_tell_state(&f, SET_VRING_ENABLE, 0, 1), 0);
	CU_ASSERT(fe_noted(&f, "legacy"));
	fe_close(&f);
}

/* A driver that breaks the ring: told by the error descriptor; after a reset all is well. */
static void test_broken(void)
{
	struct ring_sg sg[2] = {{RIG_GPA + (1ull << 40), 16}, {RIG_GPA, 1}};
	struct pollfd p = {.events = POLLIN};
	struct fe_message m;
	struct fe f;

	fe_open(&f, 1, false, 0);
	fe_start(&f, 16);
	p.fd = eventfd(0, 0);
	CU_ASSERT_EQUAL(fe_tell_fd(&f, SET_VRING_ERR, 0, p.fd), 0);
	CU_ASSERT_EQUAL(ring_driver_add(&f.d.r.q[0].drv, sg, 1, 1, 0), 0);
	rig_kick(&f.d.r, 0);
	CU_ASSERT_EQUAL(poll(&p, 1, RIG_WAIT_MS), 1);
	CU_ASSERT(fe_noted(&f, "broke the protocol"));
	CU_ASSERT_FATAL(fe_ask(&f, GET_STATUS, NULL, 0, &m));
	CU_ASSERT_EQUAL(fe_u64(&m), 0x40);
	fe_base(&f, 0);
	rig_queue_init(&f.d.r, 0, 16);
	fe_queue(&f, 0, 0);
	disk_transfer(&f.d, 50, NULL);
	close(p.fd);
	fe_close(&f);
}

/* ------------------------------------------------------------------ the log */

static bool log_bit(const uint8_t *log, uint64_t gpa)
{
	return log[gpa / 4096 / 8] >> (gpa / 4096 % 8) & 1;
}

static void test_log(void)
{
	const uint64_t log_bytes = (RIG_GPA + (8u << 20)) / 4096 / 8, offset = 4096;
	const uint64_t base[2] = {log_bytes, offset};
	const uint64_t skew = 5 * 4096; /* memory begins with page 5 of 64: bits do too */
	struct fe_message m;
	struct fe f;
	int fd = (int)syscall(SYS_memfd_create, "log", 1);
	uint8_t *log;

	CU_ASSERT_EQUAL_FATAL(ftruncate(fd, (off_t)(log_bytes + offset)), 0);
	log = (uint8_t *)mmap(NULL, log_bytes + offset, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) +
	      offset;
	for (unsigned packed = 0; packed < 2; packed++) {
		fe_open(&f, 1, false, 0);
		f.packed = packed;
		f.d.r.next += skew;
		fe_features(&f, 0);
		CU_ASSERT_EQUAL(fe_region(&f, RIG_GPA + skew, f.d.r.bytes - skew, skew), 0);
		disk_memory(&f.d);
		rig_queue_init(&f.d.r, 0, 64);
		fe_queue(&f, 0, fe_base_start(&f));
		CU_ASSERT_EQUAL(fe_tell_state(&f, SET_VRING_ENABLE, 0, 1), 0);
		CU_ASSERT_EQUAL(disk_do(&f.d, T_IN, 0, 0, 4096, NULL), 0);
		memset(log, 0, log_bytes);
		CU_ASSERT(fe_send(f.socket, SET_LOG_BASE, 1, base, 16, &fd, 1));
		CU_ASSERT(fe_receive(f.socket, &m));
		CU_ASSERT_EQUAL(m.request, SET_LOG_BASE);
		CU_ASSERT_EQUAL(disk_do(&f.d, T_IN, 0, 0, 4096, NULL), 0);
		CU_ASSERT(!log_bit(log, f.d.slots[0].data));
		CU_ASSERT_EQUAL(fe_tell_u64(&f, SET_FEATURES, f.features | F_LOG_ALL), 0);
		CU_ASSERT_EQUAL(disk_do(&f.d, T_IN, 0, 0, 4096, NULL), 0);
		CU_ASSERT(log_bit(log, f.d.slots[0].data));
		CU_ASSERT(!log_bit(log, f.d.slots[0].data + 4096));
		CU_ASSERT(log_bit(log, f.d.slots[0].status));
		CU_ASSERT(!log_bit(log, f.d.slots[1].data));
		memset(log, 0, log_bytes);
		CU_ASSERT_EQUAL(disk_do(&f.d, T_OUT, 0, 4096, 0, NULL), 0);
		CU_ASSERT(!log_bit(log, f.d.slots[0].data));
		/* the ring's own pages are marked by the time it stands still */
		CU_ASSERT_EQUAL(fe_tell_u64(&f, SET_FEATURES, f.features), 0);
		CU_ASSERT(
			log_bit(log, packed ? f.d.r.q[0].cfg.desc_gpa : f.d.r.q[0].cfg.device_gpa));
		memset(log, 0, log_bytes);
		CU_ASSERT_EQUAL(disk_do(&f.d, T_IN, 0, 0, 4096, NULL), 0);
		for (uint64_t i = 0; i < log_bytes; i++)
			CU_ASSERT_EQUAL_FATAL(log[i], 0);
		fe_close(&f);
	}
	munmap(log - offset, log_bytes + offset);
	close(fd);
}

/* ------------------------------------------------------------------ requests in flight */

static void inflight_ask(struct fe *f)
{
	struct {
		uint64_t size, offset;
		uint16_t queues, queue_size;
		uint32_t padding;
	} i = {0, 0, (uint16_t)f->d.queues, 64, 0};

	CU_ASSERT_FATAL(fe_ask(f, GET_INFLIGHT_FD, &i, 24, &f->inflight));
	CU_ASSERT_EQUAL_FATAL(f->inflight.nfds, 1);
	f->inflight_fd = f->inflight.fds[0];
}

static void inflight_give(struct fe *f)
{
	CU_ASSERT_EQUAL(
		fe_tell_fds(f, SET_INFLIGHT_FD, f->inflight.payload, 24, &f->inflight_fd, 1), 0);
}

/* A region that says so has what is in flight done again, and only that. */
static void test_inflight(void)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		struct vhost_server_counters n;
		struct ring_done done[4];
		struct fe f;
		uint8_t *region;

		fe_open(&f, 1, false, 0);
		f.packed = packed;
		fe_features(&f, 0);
		inflight_ask(&f);
		inflight_give(&f);
		CU_ASSERT_EQUAL(fe_region(&f, RIG_GPA, f.d.r.bytes, 0), 0);
		rig_queue_init(&f.d.r, 0, 16);
		fe_queue(&f, 0, fe_base_start(&f));
		CU_ASSERT_EQUAL(fe_tell_state(&f, SET_VRING_ENABLE, 0, 1), 0);
		disk_transfer(&f.d, 100, NULL);
		fe_disconnect(&f);

		/* the region of one that died with a request taken: made by hand */
		region = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f.inflight_fd, 0);
		CU_ASSERT_FATAL(region != MAP_FAILED);
		CU_ASSERT_EQUAL(region[8], 1); /* the version */
		CU_ASSERT_FATAL(disk_add(&f.d, 0, 0, T_IN, 0, 0, 512));
		CU_ASSERT_FATAL(disk_add(&f.d, 0, 1, T_IN, 1, 0, 512));
		ring_driver_publish(&f.d.r.q[0].drv);
		if (!packed) {
			uint16_t *avail = rig_host(&f.d.r, f.d.r.q[0].cfg.driver_gpa);
			uint16_t head = avail[2 + (uint16_t)(avail[1] - 2) % 16];

			region[16 + 16 * head] = 1;
		}
		fe_features(&f, 0);
		inflight_give(&f);
		CU_ASSERT_EQUAL(fe_region(&f, RIG_GPA, f.d.r.bytes, 0), 0);
		/* the position told is none: the region decides */
		fe_queue(&f, 0, fe_base_start(&f));
		CU_ASSERT_EQUAL(fe_tell_state(&f, SET_VRING_ENABLE, 0, 1), 0);
		for (unsigned got = 0; got < 2;)
			got += rig_wait(&f.d.r, 0, done, 4);
		f.d.slots[0].busy = f.d.slots[1].busy = false;
		disk_transfer(&f.d, 100, NULL);
		vhost_server_counters_get(f.server, &n);
		CU_ASSERT_EQUAL(n.resubmitted, packed ? 0 : 1);

		/* lies in it: the queue is not started, the connection closed */
		fe_disconnect(&f);
		memset(region + 10, 0xff, 4000);
		fe_features(&f, 0);
		inflight_give(&f);
		CU_ASSERT_EQUAL(fe_region(&f, RIG_GPA, f.d.r.bytes, 0), 0);
		CU_ASSERT_EQUAL(fe_tell_state(&f, SET_VRING_ENABLE, 0, 1), 0);
		CU_ASSERT_EQUAL(fe_tell_state(&f, SET_VRING_NUM, 0, 16), 0);
		munmap(region, 4096);
		fe_close(&f);
	}
}

/* ------------------------------------------------------------------ sockets */

static bool answers(int fd)
{
	struct fe_message m;

	return fe_send(fd, GET_FEATURES, 1, NULL, 0, NULL, 0) && fe_receive(fd, &m) &&
	       m.request == GET_FEATURES;
}

static int listen_at(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fd, 4), 0);
	return fd;
}

static void test_listening(void)
{
	struct vhost_server_options o = {.fd = -1, .create = fe_create, .connections = 2};
	struct vhost_server *second = NULL;
	char why[BACKEND_WHY_MAX] = "";
	struct stat st;
	struct fe f;
	int a, b;

	fe_open(&f, 1, false, 0);
	o.path = f.path;
	o.ctx = &f;
	CU_ASSERT_EQUAL(vhost_server_create(&second, &o, why), -EADDRINUSE);
	CU_ASSERT(strstr(why, "in use by another process") != NULL);
	CU_ASSERT_EQUAL(stat(f.path, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
	vhost_server_destroy(f.server);
	CU_ASSERT_EQUAL(stat(f.path, &st), -1);
	/* left behind by the dead: replaced */
	close(listen_at(f.path));
	CU_ASSERT_EQUAL_FATAL(vhost_server_create(&f.server, &o, why), 0);
	/* two at once */
	a = fe_socket(f.path);
	b = fe_socket(f.path);
	CU_ASSERT(answers(a));
	CU_ASSERT(answers(b));
	CU_ASSERT(answers(a));
	close(a);
	close(b);
	fe_close(&f);
}

static void test_given(void)
{
	struct vhost_server_options o = {.create = fe_create};
	struct vhost_server *s = NULL;
	char why[BACKEND_WHY_MAX] = "", path[80];
	int pair[2], fd;
	struct fe f;

	fe_open(&f, 1, false, 0);
	o.ctx = &f;
	/* a listening one */
	snprintf(path, sizeof(path), "%s.fd", f.path);
	o.fd = listen_at(path);
	CU_ASSERT_EQUAL(fcntl(o.fd, F_SETFL, O_NONBLOCK), 0);
	CU_ASSERT_EQUAL_FATAL(vhost_server_create(&s, &o, why), 0);
	fd = fe_socket(path);
	CU_ASSERT(answers(fd));
	close(fd);
	vhost_server_destroy(s);
	unlink(path);
	/* a connected one, which must be said */
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	o.fd = pair[0];
	CU_ASSERT_EQUAL(vhost_server_create(&s, &o, why), -EINVAL);
	o.mode = VHOST_CONNECT;
	CU_ASSERT_EQUAL_FATAL(vhost_server_create(&s, &o, why), 0);
	CU_ASSERT(answers(pair[1]));
	vhost_server_destroy(s);
	CU_ASSERT(!answers(pair[1]));
	close(pair[1]);
	/* this side connects, when there is somebody, and again */
	o.fd = -1;
	o.path = path;
	CU_ASSERT_EQUAL_FATAL(vhost_server_create(&s, &o, why), 0);
	fd = listen_at(path);
	for (unsigned i = 0; i < 2; i++) {
		int one = accept(fd, NULL, NULL);

		CU_ASSERT(answers(one));
		close(one);
	}
	vhost_server_destroy(s);
	close(fd);
	unlink(path);
	fe_close(&f);
}

static const struct unit_case cases[] = {
	{"reads and writes over a socket, split and packed, several queues", test_transfer},
	{"memory, stops and connections anew while it works", test_running},
	{"configuration, numbers, status", test_config},
	{"a legacy driver is not served, and it is said", test_legacy_driver},
	{"a ring that was broken: told, and mended by starting anew", test_broken},
	{"written pages in the log, to the page", test_log},
	{"what was in flight is done again", test_inflight},
	{"sockets of its own", test_listening},
	{"sockets given, and of others", test_given},
};

UNIT_MAIN("vhost_server", cases)
