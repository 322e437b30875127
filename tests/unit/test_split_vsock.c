/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-vsock: connections both ways, bytes with small credits, ends, and a hostile driver. */
#include "tests/unit/test_split_vsock_rig.h"

/* ------------------------------------------------------------------ connecting */

static void test_from_host(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct guest g;
		struct end e;
		int fd;

		guest_open(&g, bits & 16, bits & 1 ? 50 : 0, bits, 0, 16);
		fd = pair_from_host(&g, &e, 52, 65536);
		CU_ASSERT_EQUAL(host_write(fd, &e, 0, 5000, 0), 5000);
		while (e.got < 5000)
			guest_expect(&g, &e, RW);
		guest_write(&g, &e, 3000);
		host_read_all(fd, &e, 0, 3000);
		CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 1);
		close(fd);
		CU_ASSERT_EQUAL(guest_expect(&g, &e, SHUTDOWN).flags, SHUT_NO_RCV | SHUT_NO_SEND);
		guest_send(&g, &e, RST, 0);
		guest_settle(&g);
		CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
		guest_close(&g);
	}
}

static void test_from_guest(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct guest g;
		struct end e;
		int fd, listener;

		guest_open(&g, bits & 16, bits & 1 ? 50 : 0, bits, 0, 16);
		listener = host_listen(&g, 1234);
		fd = pair_from_guest(&g, &e, listener, 5000, 1234, 65536);
		guest_write(&g, &e, 3000);
		CU_ASSERT_EQUAL(host_write(fd, &e, 0, 5000, 0), 5000);
		while (e.got < 5000)
			guest_expect(&g, &e, RW);
		host_read_all(fd, &e, 0, 3000);
		guest_write(&g, &e, 1);
		guest_send(&g, &e, SHUTDOWN, SHUT_NO_RCV | SHUT_NO_SEND);
		guest_expect(&g, &e, RST);
		host_read_all(fd, &e, 3000, 1);
		host_end(fd);
		close(fd);
		CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
		host_unlisten(&g, 1234, listener);
		/* nobody there any more */
		guest_send(&g, &e, REQUEST, 0);
		guest_expect(&g, &e, RST);
		CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
		guest_close(&g);
	}
}

/* What the host writes together with its line is the guest's; what is no line ends it. */
static void test_line(void)
{
	static const char *const bad[] = {"CONNECT\n", "CONNECT \n", "CONNECT x\n", "connect 1\n",
		"CONNECT 4294967295\n", "CONNECT 99999999999999999999\n", "CONNECT -1\n",
		"CONNECT 1 \n", "\n", "GET / HTTP/1.1\r\n",
		"CONNECT 00000000000000000000000000000000000000001\n"};
	char line[40];
	struct guest g;
	struct pkt p = {.op = 0};
	struct end e;
	int fd;

	guest_open(&g, false, 0, 3, 0, 16);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char b;

		fd = host_connect(&g);
		host_say(fd, bad[i]);
		/* an end, or a reset because of the unread rest */
		CU_ASSERT(recv(fd, &b, 1, 0) <= 0 && errno != EAGAIN);
		close(fd);
	}
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
	/* half a line, and no more */
	fd = host_connect(&g);
	host_say(fd, "CONNECT 7");
	while (!split_vsock_connections(g.r.dev))
		usleep(1000);
	guest_settle(&g);
	close(fd);
	for (unsigned i = 0; i < 5000 && split_vsock_connections(g.r.dev); i++)
		usleep(1000);
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
	/* in pieces, and with more behind it */
	fd = host_connect(&g);
	host_say(fd, "CONN");
	guest_settle(&g);
	host_say(fd, "ECT 7");
	guest_settle(&g);
	host_say(fd, "7\nhello");
	p = guest_expect(&g, NULL, REQUEST);
	CU_ASSERT_EQUAL(p.dst_port, 77);
	e = (struct end){.port = 77, .peer = p.src_port, .alloc = 1000};
	guest_send(&g, &e, RESPONSE, 0);
	guest_take(&g, &p, true);
	CU_ASSERT_EQUAL(p.op, RW);
	CU_ASSERT_EQUAL(p.len, 5);
	CU_ASSERT_EQUAL(memcmp(g.data, "hello", 5), 0);
	CU_ASSERT(recv(fd, line, sizeof(line), 0) > 4);
	close(fd);
	guest_expect(&g, NULL, SHUTDOWN);
	guest_send(&g, &e, RST, 0);
	/* refused by the guest: the host reads the end */
	fd = host_connect(&g);
	host_say(fd, "CONNECT 78\n");
	p = guest_expect(&g, NULL, REQUEST);
	e = (struct end){.port = 78, .peer = p.src_port};
	guest_send(&g, &e, RST, 0);
	host_end(fd);
	close(fd);
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
	guest_close(&g);
}

/* ------------------------------------------------------------------ bytes */

struct flow {
	uint32_t host_sent, host_got;
};

/* A step of each side of a connection on which both send, total bytes each. */
static void flow_step(struct guest *g, struct end *e, struct flow *f, int fd, uint32_t total)
{
	uint32_t room = end_credit(e), want = total - e->sent;
	struct pkt p = {.op = 0};
	ssize_t n;

	CU_ASSERT_FATAL(room <= 65536);
	if (want > room)
		want = room;
	if (want > 9000)
		want = 9000;
	if (want)
		guest_write(g, e, want);
	if (f->host_sent < total) {
		want = total - f->host_sent < 20000 ? total - f->host_sent : 20000;
		n = host_write(fd, e, f->host_sent, want, MSG_DONTWAIT);
		f->host_sent += n > 0 ? (uint32_t)n : 0;
	}
	n = host_read(fd, e, f->host_got, 7000, MSG_DONTWAIT);
	f->host_got += n > 0 ? (uint32_t)n : 0;
	while (guest_take(g, &p, false)) {
		CU_ASSERT(p.op == RW || p.op == CREDIT_UPDATE || p.op == CREDIT_REQUEST);
		end_take(g, e, &p);
		if (p.op == CREDIT_REQUEST || e->got - e->fwd > e->alloc / 2) {
			e->fwd = e->got;
			guest_send(g, e, CREDIT_UPDATE, 0);
		}
	}
}

static void test_bulk(void)
{
	static const uint32_t allocs[] = {1, 1000, 5000, 262144};

	for (unsigned i = 0; i < 8; i++) {
		uint32_t alloc = allocs[i % 4], total = alloc == 1 ? 600 : 1500000;
		uint64_t end_ns = clock_now_ns() + 15000000000ull;
		struct flow f = {0, 0};
		struct guest g;
		struct end e;
		int fd;

		guest_open(&g, i & 1, i & 2 ? 100 : 0, i & 4 ? 11 : 3, 0, i & 1 ? 3 : 32);
		fd = pair_from_host(&g, &e, 9, alloc);
		while ((e.got < total || f.host_got < total) && clock_now_ns() < end_ns)
			flow_step(&g, &e, &f, fd, total);
		CU_ASSERT_EQUAL(e.got, total);
		CU_ASSERT_EQUAL(f.host_got, total);
		CU_ASSERT_EQUAL(counter_get(&g.r.dev->counters.bytes), 2 * (uint64_t)total);
		CU_ASSERT_EQUAL(counter_get(&g.r.dev->counters.dropped), 0);
		close(fd);
		guest_close(&g);
	}
}

/* A program that does not read: 64 KiB wait here, no more, and nobody spins. */
static void test_slow_host(void)
{
	for (unsigned i = 0; i < 2; i++) {
		uint32_t len;
		struct guest g;
		struct end e;
		struct pkt p;
		int fd;

		guest_open(&g, i, 200, i ? 11 : 3, 0, 16);
		fd = pair_from_host(&g, &e, 9, 65536);
		for (unsigned k = 0; k < 2000; k++) {
			guest_settle(&g);
			while (guest_take(&g, &p, false))
				end_take(&g, &e, &p);
			len = end_credit(&e);
			CU_ASSERT_FATAL(len <= 65536);
			if (!len)
				break;
			guest_write(&g, &e, len < 30000 ? len : 30000);
		}
		CU_ASSERT_EQUAL(end_credit(&e), 0);
		CU_ASSERT(e.sent > 65536 && e.sent < 8u << 20);
		guest_sleeps(&g);
		CU_ASSERT(!guest_take(&g, &p, false));
		/* the guest is done, and closed: nothing of what it sent is lost */
		if (i) {
			guest_send(&g, &e, SHUTDOWN, SHUT_NO_RCV | SHUT_NO_SEND);
			guest_expect(&g, &e, RST);
			CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 1);
		}
		host_read_all(fd, &e, 0, e.sent);
		if (i) {
			host_end(fd);
		} else {
			while (end_credit(&e) < 32768)
				guest_expect(&g, &e, CREDIT_UPDATE);
		}
		close(fd);
		guest_close(&g);
	}
}

/* A guest without credit, or without buffers: the same. */
static void test_slow_guest(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct flow f = {0, 0};
		struct guest g;
		struct end e;
		struct pkt p;
		int fd;

		guest_open(&g, i & 1, 200, 3, 0, 1);
		fd = pair_from_host(&g, &e, 9, i & 2 ? 0 : 3000);
		for (;;) {
			ssize_t n = host_write(fd, &e, f.host_sent, 20000, MSG_DONTWAIT);

			if (n < 0)
				break;
			f.host_sent += (uint32_t)n;
			guest_settle(&g);
			while (guest_take(&g, &p, false))
				end_take(&g, &e, &p);
		}
		guest_sleeps(&g);
		while (guest_take(&g, &p, false))
			end_take(&g, &e, &p);
		CU_ASSERT_EQUAL(e.got, e.alloc);
		e.alloc = 4u << 20;
		guest_send(&g, &e, CREDIT_UPDATE, 0);
		while (e.got < f.host_sent) {
			guest_take(&g, &p, true);
			end_take(&g, &e, &p);
		}
		close(fd);
		guest_close(&g);
	}
}

/* ------------------------------------------------------------------ ends */

static void test_half_close(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct guest g;
		struct end e;
		int fd;

		guest_open(&g, i, 0, 3, 0, 16);
		/* the guest sends no more, and hears on */
		fd = pair_from_host(&g, &e, 9, 65536);
		guest_write(&g, &e, 20000);
		guest_send(&g, &e, SHUTDOWN, SHUT_NO_SEND);
		host_read_all(fd, &e, 0, 20000);
		host_end(fd);
		CU_ASSERT_EQUAL(host_write(fd, &e, 0, 1000, 0), 1000);
		guest_expect(&g, &e, RW);
		close(fd);
		guest_expect(&g, &e, SHUTDOWN);
		guest_send(&g, &e, SHUTDOWN, SHUT_NO_RCV | SHUT_NO_SEND);
		guest_expect(&g, &e, RST);
		/* the host sends no more, and hears on */
		fd = pair_from_host(&g, &e, 10, 65536);
		CU_ASSERT_EQUAL(host_write(fd, &e, 0, 3000, 0), 3000);
		shutdown(fd, SHUT_WR);
		guest_expect(&g, &e, RW);
		CU_ASSERT_EQUAL(guest_expect(&g, &e, SHUTDOWN).flags, SHUT_NO_SEND);
		CU_ASSERT_EQUAL(e.got, 3000);
		guest_write(&g, &e, 10000);
		host_read_all(fd, &e, 0, 10000);
		close(fd);
		CU_ASSERT_EQUAL(guest_expect(&g, &e, SHUTDOWN).flags, SHUT_NO_RCV | SHUT_NO_SEND);
		guest_send(&g, &e, RST, 0);
		/* the guest hears no more: the host cannot write */
		fd = pair_from_host(&g, &e, 11, 65536);
		guest_send(&g, &e, SHUTDOWN, SHUT_NO_RCV);
		guest_settle(&g);
		CU_ASSERT_EQUAL(host_write(fd, &e, 0, 1, 0), -1);
		guest_write(&g, &e, 100);
		host_read_all(fd, &e, 0, 100);
		guest_send(&g, &e, RST, 0);
		host_end(fd);
		close(fd);
		guest_settle(&g);
		CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
		guest_close(&g);
	}
}

/* The program goes away with bytes unread, and with bytes of its own unread. */
static void test_host_dies(void)
{
	struct guest g;
	struct end e;
	int fd;

	guest_open(&g, false, 0, 3, 0, 16);
	fd = pair_from_host(&g, &e, 9, 65536);
	CU_ASSERT_EQUAL(host_write(fd, &e, 0, 2000, 0), 2000);
	guest_expect(&g, &e, RW);
	guest_write(&g, &e, 100);
	guest_settle(&g);
	close(fd);
	guest_expect(&g, &e, RST);
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
	/* what comes for it now has nobody */
	guest_write(&g, &e, 100);
	guest_expect(&g, &e, RST);
	/* a program that reads no more */
	fd = pair_from_host(&g, &e, 9, 65536);
	shutdown(fd, SHUT_RD);
	guest_write(&g, &e, 100);
	CU_ASSERT_EQUAL(guest_expect(&g, &e, SHUTDOWN).flags, SHUT_NO_RCV);
	CU_ASSERT_EQUAL(host_write(fd, &e, 0, 700, 0), 700);
	guest_expect(&g, &e, RW);
	CU_ASSERT_EQUAL(e.got, 700);
	close(fd);
	CU_ASSERT_EQUAL(guest_expect(&g, &e, SHUTDOWN).flags, SHUT_NO_RCV | SHUT_NO_SEND);
	guest_send(&g, &e, RST, 0);
	guest_close(&g);
}

/* ------------------------------------------------------------------ many */

#define MANY 200u

static void test_many(void)
{
	static struct end e[MANY];
	static int fd[MANY];
	struct guest g;
	int listener;

	guest_open(&g, false, 50, 11, MANY, 32);
	listener = host_listen(&g, 80);
	for (unsigned i = 0; i < MANY; i++)
		fd[i] = i % 2 ? pair_from_host(&g, &e[i], 1000, 65536)
			      : pair_from_guest(&g, &e[i], listener, 2000 + i, 80, 65536);
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), MANY);
	for (unsigned i = 0; i < MANY; i++)
		for (unsigned k = 0; k < i; k++)
			CU_ASSERT(e[i].port != e[k].port || e[i].peer != e[k].peer);
	for (unsigned round = 0; round < 3; round++) {
		uint32_t left = MANY * 500;
		struct pkt p;

		for (unsigned i = 0; i < MANY; i++) {
			guest_write(&g, &e[i], 300);
			CU_ASSERT_EQUAL(host_write(fd[i], &e[i], round * 500, 500, 0), 500);
		}
		while (left) {
			unsigned i = 0;

			guest_take(&g, &p, true);
			while (i < MANY && (e[i].port != p.dst_port || e[i].peer != p.src_port))
				i++;
			CU_ASSERT_FATAL(i < MANY);
			end_take(&g, &e[i], &p);
			left -= p.len;
		}
		for (unsigned i = 0; i < MANY; i++)
			host_read_all(fd[i], &e[i], round * 300, 300);
	}
	for (unsigned i = 0; i < MANY; i++) {
		if (i % 3) {
			guest_send(&g, &e[i], SHUTDOWN, SHUT_NO_RCV | SHUT_NO_SEND);
			guest_expect(&g, &e[i], RST);
		} else {
			guest_send(&g, &e[i], RST, 0);
		}
		host_end(fd[i]);
		close(fd[i]);
	}
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 0);
	host_unlisten(&g, 80, listener);
	guest_close(&g);
}

static void test_full(void)
{
	struct guest g;
	struct end e[5];
	int fd[5], listener, late;

	guest_open(&g, false, 0, 3, 4, 16);
	listener = host_listen(&g, 80);
	for (unsigned i = 0; i < 4; i++)
		fd[i] = pair_from_guest(&g, &e[i], listener, 100 + i, 80, 1000);
	e[4] = (struct end){.port = 104, .peer = 80};
	guest_send(&g, &e[4], REQUEST, 0);
	guest_expect(&g, &e[4], RST);
	late = host_connect(&g);
	host_end(late);
	close(late);
	/* those there are are none the worse, and one that goes makes room */
	for (unsigned i = 0; i < 4; i++) {
		guest_write(&g, &e[i], 10);
		host_read_all(fd[i], &e[i], 0, 10);
	}
	guest_send(&g, &e[1], RST, 0);
	host_end(fd[1]);
	close(fd[1]);
	close(host_accept(listener)); /* of the fifth: connected before the table was found full */
	fd[1] = pair_from_host(&g, &e[1], 77, 1000);
	CU_ASSERT_EQUAL(split_vsock_connections(g.r.dev), 4);
	for (unsigned i = 0; i < 4; i++)
		close(fd[i]);
	host_unlisten(&g, 80, listener);
	guest_close(&g);
}

static const struct unit_case cases[] = {
	{"the host connects", test_from_host},
	{"the guest connects", test_from_guest},
	{"the line CONNECT", test_line},
	{"bulk both ways, any credit", test_bulk},
	{"a program that does not read", test_slow_host},
	{"a guest that does not read", test_slow_guest},
	{"half closed", test_half_close},
	{"a program that dies", test_host_dies},
	{"many connections", test_many},
	{"a full table", test_full},
};

UNIT_MAIN("split_vsock", cases)
