/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-vsock: a driver that lies, the socket's path, reset, and the move to another host. */
#include <sys/resource.h>

#include "tests/unit/test_split_vsock_rig.h"

/* ------------------------------------------------------------------ hostile packets */

static void test_unknown(void)
{
	struct guest g;
	struct end e = {.port = 7, .peer = 8}, other;
	struct pkt p = {.op = 0};

	guest_open(&g, false, 0, 3, 0, 16);
	/* for no connection: a reset, except for a reset */
	for (uint16_t op = 0; op < 20; op++) {
		if (op == RST)
			continue;
		guest_send(&g, &e, op, 0);
		p = guest_expect(&g, NULL, RST);
		CU_ASSERT_EQUAL(p.src_port, 8);
		CU_ASSERT_EQUAL(p.dst_port, 7);
	}
	guest_send(&g, &e, RST, 0);
	/* a type there is none of */
	p = guest_hdr(&e, REQUEST);
	p.type = 9;
	guest_packet(&g, &p, NULL, 0);
	CU_ASSERT_EQUAL(guest_expect(&g, NULL, RST).type, 9);
	/* to somebody else: from him comes the reset; as somebody else: nothing */
	p = guest_hdr(&e, REQUEST);
	p.dst_cid = 77;
	guest_packet(&g, &p, NULL, 0);
	guest_take(&g, &p, true);
	CU_ASSERT_EQUAL(p.op, RST);
	CU_ASSERT_EQUAL(p.src_cid, 77);
	p = guest_hdr(&e, REQUEST);
	p.src_cid = CID | 1ull << 40;
	guest_packet(&g, &p, NULL, 0);
	/* an answer to a question never asked */
	other = (struct end){.port = 1, .peer = 1u << 30};
	guest_send(&g, &other, RESPONSE, 0);
	CU_ASSERT_EQUAL(guest_expect(&g, NULL, RST).dst_port, 1);
	guest_settle(&g);
	CU_ASSERT(!guest_take(&g, &p, false));
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
	guest_close(&g);
}

enum lie { LIE_LEN, LIE_CREDIT, LIE_FWD, LIE_OP, LIE_AGAIN, LIE_AFTER_SHUT, LIES };

/* Each ends the connection it is told on, and no other. */
static void test_lies(void)
{
	for (unsigned lie = 0; lie < LIES; lie++) {
		struct guest g;
		struct end e, good;
		int fd, fd2, len = 0;
		uint64_t malformed;
		struct pkt p;

		guest_open(&g, false, 0, lie & 1 ? 11 : 3, 0, 16);
		fd = pair_from_host(&g, &e, 5, 65536);
		fd2 = pair_from_host(&g, &good, 5, 65536);
		malformed = counter_get(&g.r.dev->counters.malformed);
		p = guest_hdr(&e, RW);
		switch (lie) {
		case LIE_LEN:
			p.len = 101; /* a byte more than there is */
			len = 100;
			break;
		case LIE_CREDIT:
			p.len = 0xffffffff;
			len = 100;
			break;
		case LIE_FWD:
			p.fwd_cnt = 1; /* of nothing sent */
			break;
		case LIE_OP:
			p.op = 99;
			break;
		case LIE_AGAIN:
			p.op = REQUEST;
			break;
		default:
			guest_send(&g, &e, SHUTDOWN, SHUT_NO_SEND);
			p.len = len = 10;
			break;
		}
		guest_packet(&g, &p, NULL, (uint32_t)len);
		guest_expect(&g, &e, RST);
		host_end(fd);
		CU_ASSERT_EQUAL(counter_get(&g.r.dev->counters.malformed), malformed + 1);
		guest_write(&g, &good, 100);
		host_read_all(fd2, &good, 0, 100);
		CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 1);
		close(fd);
		close(fd2);
		guest_close(&g);
	}
}

/* More than the credit, in packets that are each well-formed. */
static void test_overrun(void)
{
	struct guest g;
	struct end e;
	struct pkt p = {.op = 0};
	int fd;

	guest_open(&g, false, 0, 3, 0, 16);
	fd = pair_from_host(&g, &e, 5, 65536);
	do {
		guest_write(&g, &e, 60000);
		guest_settle(&g);
		CU_ASSERT_FATAL(e.sent < 16u << 20);
		while (guest_take(&g, &p, false) && p.op != RST)
			;
	} while (p.op != RST);
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
	close(fd);
	guest_close(&g);
}

/* Credit that comes out of order, shrinks, and wraps: bytes flow, and never too many. */
static void test_credit_games(void)
{
	struct guest g;
	struct end e, old;
	struct pkt p = {.op = 0};
	int fd;

	guest_open(&g, false, 0, 3, 0, 16);
	fd = pair_from_host(&g, &e, 5, 2000);
	CU_ASSERT_EQUAL(host_write(fd, &e, 0, 10000, 0), 10000);
	while (e.got < 2000)
		guest_expect(&g, &e, RW);
	old = e;
	e.fwd = 2000;
	guest_send(&g, &e, CREDIT_UPDATE, 0);
	guest_send(&g, &old, CREDIT_UPDATE, 0); /* overtaken */
	while (e.got < 4000) {
		guest_take(&g, &p, true);
		end_take(&g, &e, &p);
	}
	/* less than is on its way already: nothing more comes */
	old = e;
	old.fwd = 2500;
	old.alloc = 10;
	guest_send(&g, &old, CREDIT_UPDATE, 0);
	guest_settle(&g);
	while (guest_take(&g, &p, false))
		CU_ASSERT_NOT_EQUAL(p.op, RW);
	/* all there is */
	e.alloc = 0xffffffff;
	e.fwd = 4000;
	guest_send(&g, &e, CREDIT_UPDATE, 0);
	while (e.got < 10000) {
		guest_take(&g, &p, true);
		end_take(&g, &e, &p);
	}
	close(fd);
	guest_close(&g);
}

/* Answers nobody collects: the transmit queue rests, and all come later. */
static void test_rst_flood(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct end e = {.port = 1, .peer = 2};
		unsigned sent = 0, got = 0;
		struct guest g;
		struct pkt p;

		guest_open(&g, i, 100, i ? 11 : 3, 16, 0);
		for (; sent < 256 + 64; sent++) {
			e.port = sent;
			guest_send(&g, &e, CREDIT_UPDATE, 0);
		}
		guest_sleeps(&g);
		guest_rx_fill(&g, 0, 8);
		while (got < sent) {
			guest_take(&g, &p, true);
			CU_ASSERT_EQUAL(p.op, RST);
			CU_ASSERT_EQUAL(p.dst_port, got);
			got++;
		}
		CU_ASSERT_EQUAL(counter_get(&g.r.dev->counters.dropped), 0);
		guest_close(&g);
	}
}

/* Chains too short for a header are completed, and no more. */
static void test_short(void)
{
	struct guest g;

	guest_open(&g, false, 0, 3, 0, 16);
	for (uint32_t len = 1; len < 44; len++) {
		struct ring_sg sg = {g.tx, len};

		CU_ASSERT_EQUAL(ring_driver_add(&g.r.q[Q_TX].drv, &sg, 1, 0, 0), 0);
		g.tx_busy[0] = true;
		rig_kick(&g.r, Q_TX);
		while (g.tx_busy[0]) {
			struct ring_done d;

			CU_ASSERT_FATAL(rig_wait(&g.r, Q_TX, &d, 1) == 1);
			g.tx_busy[d.token] = false;
		}
	}
	CU_ASSERT_EQUAL(counter_get(&g.r.dev->counters.malformed), 43);
	guest_close(&g);
}

/* ------------------------------------------------------------------ the path */

static int create_err(struct guest *g, const char *path, uint32_t cid, char why[BACKEND_WHY_MAX])
{
	struct split_vsock_options o = {.socket = path, .cid = cid};
	struct split_device *d = NULL;
	int err;

	memset(why, 0, BACKEND_WHY_MAX);
	err = split_vsock_create(&d, g->r.io, &g->r.mem, &g->r.signal, &o, why);
	CU_ASSERT_PTR_NULL(d);
	CU_ASSERT_PTR_NULL(strchr(why, '\n'));
	return err;
}

static void test_path(void)
{
	char why[BACKEND_WHY_MAX], longest[200], other[100];
	mode_t mask = umask(0);
	struct sockaddr_un sa;
	struct guest g;
	struct stat st;
	int fd;

	guest_open(&g, false, 0, 3, 0, 16);
	CU_ASSERT_EQUAL(stat(g.path, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
	CU_ASSERT(S_ISSOCK(st.st_mode));
	CU_ASSERT_EQUAL(umask(mask), 0);

	CU_ASSERT_EQUAL(create_err(&g, g.path, CID, why), -EEXIST);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "in use by another process"));
	CU_ASSERT_EQUAL(access(g.path, F_OK), 0); /* still there */
	snprintf(other, sizeof(other), "%s-stale", g.path);
	fd = host_socket(&sa, other);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
	CU_ASSERT_EQUAL(create_err(&g, other, CID, why), -EEXIST);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "left behind"));
	CU_ASSERT_EQUAL(access(other, F_OK), 0);
	unlink(other);
	fd = open(other, O_CREAT | O_WRONLY, 0600);
	close(fd);
	CU_ASSERT_EQUAL(create_err(&g, other, CID, why), -EEXIST);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "no socket"));
	unlink(other);
	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	CU_ASSERT_EQUAL(create_err(&g, longest, CID, why), -ENAMETOOLONG);
	CU_ASSERT_EQUAL(create_err(&g, "build/tmp/nowhere/at/all", CID, why), -ENOENT);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "build/tmp/nowhere"));
	for (uint32_t cid = 0; cid < 3; cid++)
		CU_ASSERT_EQUAL(create_err(&g, other, cid, why), -EINVAL);
	CU_ASSERT_EQUAL(create_err(&g, other, UINT32_MAX, why), -EINVAL);
	CU_ASSERT_NOT_EQUAL(access(other, F_OK), 0);
	guest_close(&g); /* which looks that the path is gone */

	/* another's file in its place is left alone */
	guest_open(&g, false, 0, 3, 0, 16);
	unlink(g.path);
	fd = open(g.path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	rig_close(&g.r);
	CU_ASSERT_EQUAL(access(g.path, F_OK), 0);
	unlink(g.path);
}

/* ------------------------------------------------------------------ reset and move */

static void noted(void *ctx)
{
	uint64_t one = 1;

	if (write(*(int *)ctx, &one, sizeof(one)) < 0)
		CU_FAIL("eventfd");
}

static void test_reset(void)
{
	int fd, bell = eventfd(0, 0);
	struct guest g;
	struct end e;
	uint64_t n;

	guest_open(&g, false, 50, 3, 8, 16);
	for (unsigned i = 0; i < 20; i++) {
		fd = pair_from_host(&g, &e, 5, 65536);
		CU_ASSERT(host_write(fd, &e, 0, 60000, 0) > 0);
		guest_write(&g, &e, 20000);
		split_reset(g.r.dev, noted, &bell);
		CU_ASSERT_EQUAL(read(bell, &n, sizeof(n)), 8);
		CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
		close(fd);
		CU_ASSERT_EQUAL(split_features_set(g.r.dev, g.r.dev->features), 0);
		memset(g.tx_busy, 0, sizeof(g.tx_busy));
		g.r.next = (size_t)(g.r.q[0].cfg.desc_gpa - RIG_GPA);
		for (unsigned q = 0; q < 3; q++) {
			rig_queue_init(&g.r, q, 64);
			rig_queue_start(&g.r, q);
		}
		guest_rx_fill(&g, 0, 16);
	}
	close(bell);
	guest_close(&g);
}

/* Nobody drives the device: a program that asks waits, and when it goes its slot is free. */
static void test_no_driver(void)
{
	struct guest g;
	unsigned left;
	int fd;

	guest_open(&g, false, 0, 3, 0, 16);
	split_quiesce_wait(g.r.dev);
	for (unsigned i = 0; i < 20; i++) {
		fd = host_connect(&g);
		host_say(fd, "CONNECT 5\n");
		if (i % 2)
			while (!split_vsock_connections(g.r.dev))
				usleep(1000);
		close(fd);
	}
	/* the last was accepted, so those before it were; sooner than any deadline they are gone */
	left = 5000;
	while (left && split_vsock_connections(g.r.dev)) {
		usleep(1000);
		left--;
	}
	CU_ASSERT(left > 0);
	guest_close(&g);
}

/* Stopped and started where it is: connections go on. */
static void test_pause(void)
{
	struct guest g;
	struct end e;
	int fd;

	guest_open(&g, false, 0, 11, 0, 16);
	fd = pair_from_host(&g, &e, 5, 65536);
	for (unsigned i = 0; i < 20; i++) {
		split_quiesce_wait(g.r.dev);
		CU_ASSERT_EQUAL(host_write(fd, &e, i * 300, 300, 0), 300);
		for (unsigned q = 0; q < 3; q++) {
			g.r.q[q].cfg.restore = true;
			split_queue_state_get(g.r.dev, q, &g.r.q[q].cfg.state);
			rig_queue_start(&g.r, q);
		}
		while (e.got < (i + 1) * 300)
			guest_expect(&g, &e, RW);
		guest_write(&g, &e, 200);
		host_read_all(fd, &e, i * 200, 200);
	}
	close(fd);
	guest_close(&g);
}

static struct io_thread *other_io;

static void move(struct guest *g, bool running)
{
	struct ring_device_state state[3];
	uint64_t features = g->r.dev->driver_features;
	struct io_thread *io = g->r.io;
	struct state_writer w = {0};
	struct state_reader r;

	split_quiesce_wait(g->r.dev);
	for (unsigned q = 0; q < 3; q++)
		split_queue_state_get(g->r.dev, q, &state[q]);
	split_save(g->r.dev, &w);
	CU_ASSERT_EQUAL(w.error, 0);
	split_destroy(g->r.dev);
	g->r.io = other_io;
	other_io = io;
	guest_create(g);
	CU_ASSERT_EQUAL_FATAL(split_features_set(g->r.dev, features), 0);
	state_reader_init(&r, w.data, w.len);
	split_load(g->r.dev, &r);
	CU_ASSERT_EQUAL(r.error, 0);
	for (unsigned q = 0; running && q < 3; q++) {
		g->r.q[q].cfg.restore = true;
		g->r.q[q].cfg.state = state[q];
		rig_queue_start(&g->r, q);
	}
	for (size_t len = 0; len < w.len; len++) {
		state_reader_init(&r, w.data, len);
		split_load(g->r.dev, &r);
		CU_ASSERT_EQUAL(r.error, -EINVAL);
	}
	state_writer_free(&w);
}

/* Connections end, the guest hears of it, and new ones can be made. */
static void test_move(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct ring_done d;
		struct guest g;
		struct end e;
		int fd;

		guest_open(&g, bits & 16, bits & 1 ? 50 : 0, bits, 0, 16);
		other_io = rig_io(!(bits & 16), 0);
		if (bits & 1)
			guest_event_post(&g);
		for (unsigned i = 0; i < 3; i++) {
			fd = pair_from_host(&g, &e, 5, 65536);
			CU_ASSERT(host_write(fd, &e, 0, 1000, 0) > 0);
			guest_expect(&g, &e, RW);
			CU_ASSERT(!ring_driver_has_done(&g.r.q[Q_EVENT].drv));
			move(&g, true);
			host_end(fd);
			close(fd);
			if (!(bits & 1))
				guest_event_post(&g);
			memset(rig_host(&g.r, g.event), 0xcc, 8);
			CU_ASSERT_EQUAL_FATAL(rig_wait(&g.r, Q_EVENT, &d, 1), 1);
			CU_ASSERT_EQUAL(d.len, 4);
			CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
			if (bits & 1)
				guest_event_post(&g);
			/* what the guest still sends on it has nobody */
			guest_send(&g, &e, CREDIT_UPDATE, 0);
			guest_expect(&g, NULL, RST);
		}
		guest_close(&g);
		io_thread_destroy(other_io);
	}
}

static void test_event_content(void)
{
	struct ring_done d;
	struct guest g;
	uint32_t id;

	guest_open(&g, false, 0, 3, 0, 16);
	other_io = rig_io(false, 0);
	memset(rig_host(&g.r, g.event), 0xcc, 8);
	move(&g, true);
	guest_sleeps(&g); /* without a buffer it waits */
	guest_event_post(&g);
	CU_ASSERT_EQUAL_FATAL(rig_wait(&g.r, Q_EVENT, &d, 1), 1);
	memcpy(&id, rig_host(&g.r, g.event), 4);
	CU_ASSERT_EQUAL(id, 0); /* VIRTIO_VSOCK_EVENT_TRANSPORT_RESET */
	/* once */
	guest_event_post(&g);
	guest_settle(&g);
	CU_ASSERT(!ring_driver_has_done(&g.r.q[Q_EVENT].drv));
	guest_close(&g);
	io_thread_destroy(other_io);
}

/* ------------------------------------------------------------------ dirty pages, descriptors */

static void test_dirty(void)
{
	struct ring_done d;
	struct guest g;
	struct end e;
	uint64_t first;
	int fd;

	guest_open(&g, false, 0, 1, 0, 0);
	split_quiesce_wait(g.r.dev);
	g.r.mem.regions[0].dirty = g.r.dirty;
	for (unsigned q = 0; q < 3; q++)
		rig_queue_start(&g.r, q);
	guest_rx_fill(&g, 0, 8);
	fd = pair_from_host(&g, &e, 5, 65536);
	CU_ASSERT_EQUAL(host_write(fd, &e, 0, 100, 0), 100);
	CU_ASSERT_EQUAL_FATAL(rig_wait(&g.r, Q_RX, &d, 1), 1);
	split_quiesce_wait(g.r.dev);
	first = g.rx + d.token * RX_BYTES;
	CU_ASSERT(rig_page_dirty(&g.r, first));
	/* two packets have come */
	for (unsigned i = 2; i < 8; i++)
		CU_ASSERT(!rig_page_dirty(&g.r, g.rx + i * RX_BYTES));
	for (uint64_t page = g.tx; page < g.tx + TX_SLOTS * TX_BYTES - 4096; page += 4096)
		CU_ASSERT(!rig_page_dirty(&g.r, page));
	close(fd);
	guest_close(&g);
}

/* No descriptors left: the guest gets a reset, the host waits, and both go on later. */
static void test_no_descriptors(void)
{
	struct rlimit old, few;
	struct guest g;
	struct end e;
	int fd, listener, probe;

	guest_open(&g, false, 100, 3, 0, 16);
	listener = host_listen(&g, 80);
	fd = host_connect(&g); /* accepted by now or later */
	guest_settle(&g);
	while (split_vsock_connections(g.r.dev) != 1)
		usleep(1000);
	close(fd);
	while (split_vsock_connections(g.r.dev) != 0)
		usleep(1000);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	getrlimit(RLIMIT_NOFILE, &old);
	probe = dup(fd);
	close(probe);
	few = old;
	few.rlim_cur = (rlim_t)probe;
	setrlimit(RLIMIT_NOFILE, &few);
	e = (struct end){.port = 3, .peer = 80};
	guest_send(&g, &e, REQUEST, 0);
	guest_expect(&g, &e, RST);
	{
		struct sockaddr_un sa = {.sun_family = AF_UNIX};

		memcpy(sa.sun_path, g.path, sizeof(g.path));
		CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	}
	usleep(300000);
	setrlimit(RLIMIT_NOFILE, &old);
	host_say(fd, "CONNECT 5\n");
	guest_expect(&g, NULL, REQUEST);
	close(fd);
	host_unlisten(&g, 80, listener);
	guest_close(&g);
}

static const struct unit_case cases[] = {
	{"packets for nobody", test_unknown},
	{"lies", test_lies},
	{"more than the credit", test_overrun},
	{"credit games", test_credit_games},
	{"a flood of resets", test_rst_flood},
	{"no room for a header", test_short},
	{"the socket's path", test_path},
	{"reset under load", test_reset},
	{"no driver", test_no_driver},
	{"paused", test_pause},
	{"moved", test_move},
	{"the event", test_event_content},
	{"dirty pages", test_dirty},
	{"no descriptors left", test_no_descriptors},
};

UNIT_MAIN("split_vsock_state", cases)
