/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtio-vsock driver for tests: packets made and taken one at a time; programs on the host. */
#ifndef TEST_SPLIT_VSOCK_RIG_H
#define TEST_SPLIT_VSOCK_RIG_H

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "tests/unit/test_backend_rig.h"

#define CID       42u
#define TX_SLOTS  64u
#define TX_BYTES  (44 + 66000u)
#define RX_BYTES  4096u
#define RX_MAX    64u
#define HOST_WAIT 15

enum { Q_RX, Q_TX, Q_EVENT };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { SHUT_NO_RCV = 1, SHUT_NO_SEND = 2 };

struct pkt {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

/* The guest's end of a connection. */
struct end {
	uint32_t port, peer;
	uint32_t sent, got;  /* bytes */
	uint32_t alloc, fwd; /* as it says */
	uint32_t peer_alloc, peer_fwd;
};

struct guest {
	struct rig r;
	struct split_vsock_options o;
	char path[80];
	uint64_t tx, rx, event;
	bool tx_busy[TX_SLOTS];
	uint8_t data[RX_BYTES]; /* of the packet taken last */
};

static inline uint8_t pattern(uint32_t seed, uint32_t at)
{
	return (uint8_t)(seed * 101 + at * 7 + (at >> 8) * 13 + (at >> 16));
}

/* ------------------------------------------------------------------ the guest */

static inline void guest_create(struct guest *g)
{
	char why[BACKEND_WHY_MAX] = "";
	int err;

	g->o.socket = g->path;
	g->o.cid = g->o.cid ? g->o.cid : CID;
	g->o.queue_size = 64;
	g->o.ring = g->r.layout == RING_PACKED ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
	g->o.no_event_idx = !g->r.features.event_idx;
	g->o.no_indirect = !g->r.features.indirect;
	g->o.in_order = g->r.features.in_order;
	err = split_vsock_create(&g->r.dev, g->r.io, &g->r.mem, &g->r.signal, &g->o, why);
	if (err)
		printf("%s\n", why);
	CU_ASSERT_EQUAL_FATAL(err, 0);
}

static inline void guest_rx_post(struct guest *g, unsigned i)
{
	uint64_t gpa = g->rx + (uint64_t)i * RX_BYTES;
	struct ring_sg sg[3] = {{gpa, RX_BYTES}};
	unsigned n = 1;

	if (g->r.features.indirect && i % 3) {
		/* the header may be cut anywhere */
		sg[0].len = i % 47 + 1;
		sg[1] = (struct ring_sg){gpa + sg[0].len, RX_BYTES - sg[0].len};
		n = 2;
	}
	CU_ASSERT_EQUAL(ring_driver_add(&g->r.q[Q_RX].drv, sg, 0, n, i), 0);
}

static inline void guest_rx_fill(struct guest *g, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		guest_rx_post(g, i);
	rig_kick(&g->r, Q_RX);
}

static inline void guest_event_post(struct guest *g)
{
	struct ring_sg sg = {g->event, 8};

	CU_ASSERT_EQUAL(ring_driver_add(&g->r.q[Q_EVENT].drv, &sg, 0, 1, 0), 0);
	rig_kick(&g->r, Q_EVENT);
}

/* bits: event index, indirect, in-order, packed; rx: buffers given at once. */
static inline void guest_open(struct guest *g, bool no_uring, uint32_t poll_us, unsigned bits,
	unsigned connections, unsigned rx)
{
	static unsigned serial;

	memset(g, 0, sizeof(*g));
	mkdir("build", 0777);
	mkdir("build/tmp", 0777);
	snprintf(g->path, sizeof(g->path), "build/tmp/vsock-%d-%u", (int)getpid(), serial++);
	rig_open(&g->r, no_uring, poll_us, 12u << 20);
	g->r.layout = bits & 8 ? RING_PACKED : RING_SPLIT;
	g->r.features = (struct ring_features){bits & 1, bits & 2, bits & 4};
	g->o.connections = connections;
	guest_create(g);
	CU_ASSERT_EQUAL_FATAL(split_features_set(g->r.dev, g->r.dev->features), 0);
	g->tx = rig_alloc(&g->r, TX_SLOTS * TX_BYTES, 4096);
	g->rx = rig_alloc(&g->r, (size_t)RX_MAX * RX_BYTES, 4096);
	g->event = rig_alloc(&g->r, 64, 64);
	for (unsigned q = 0; q < 3; q++) {
		rig_queue_init(&g->r, q, 64);
		g->r.q[q].silent = q == Q_TX;
		rig_queue_start(&g->r, q);
	}
	if (rx)
		guest_rx_fill(g, 0, rx);
}

static inline void guest_close(struct guest *g)
{
	CU_ASSERT_EQUAL(atomic_load(&g->r.broken), 0);
	rig_close(&g->r);
	CU_ASSERT_NOT_EQUAL(access(g->path, F_OK), 0);
}

static inline void nothing(void *ctx)
{
	(void)ctx;
}

/* Whatever the device could do by now, it has done. */
static inline void guest_settle(struct guest *g)
{
	for (unsigned i = 0; i < 4; i++)
		io_thread_call(g->r.io, nothing, NULL);
}

static inline unsigned guest_tx_slot(struct guest *g)
{
	for (;;) {
		struct ring_done done[TX_SLOTS];
		int n = ring_driver_collect(&g->r.q[Q_TX].drv, done, TX_SLOTS);

		CU_ASSERT_FATAL(n >= 0);
		for (int i = 0; i < n; i++)
			g->tx_busy[done[i].token] = false;
		for (unsigned i = 0; i < TX_SLOTS; i++)
			if (!g->tx_busy[i])
				return i;
		n = (int)rig_wait(&g->r, Q_TX, done, 1);
		CU_ASSERT_FATAL(n == 1);
		g->tx_busy[done[0].token] = false;
	}
}

/* A header, and room bytes behind it: data, or zeroes. */
static inline void guest_packet(
	struct guest *g, const struct pkt *p, const uint8_t *data, uint32_t room)
{
	unsigned slot = guest_tx_slot(g);
	uint64_t gpa = g->tx + (uint64_t)slot * TX_BYTES;
	uint8_t *b = rig_host(&g->r, gpa);
	struct ring_sg sg[4];
	unsigned n = 1;

	memcpy(b, p, sizeof(*p));
	if (data)
		memcpy(b + 44, data, room);
	else
		memset(b + 44, 0, room);
	sg[0] = (struct ring_sg){gpa, 44 + room};
	if (room > 10 && g->r.features.indirect) {
		sg[0].len = 20 + room % 40;
		if (sg[0].len > 44 + room - 1)
			sg[0].len = 20;
		sg[1] = (struct ring_sg){gpa + sg[0].len, 44 + room - sg[0].len};
		n = 2;
	}
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&g->r.q[Q_TX].drv, sg, n, 0, slot), 0);
	g->tx_busy[slot] = true;
	rig_kick(&g->r, Q_TX);
}

static inline struct pkt guest_hdr(const struct end *e, uint16_t op)
{
	return (struct pkt){.src_cid = CID,
		.dst_cid = 2,
		.src_port = e->port,
		.dst_port = e->peer,
		.type = 1,
		.op = op,
		.buf_alloc = e->alloc,
		.fwd_cnt = e->fwd};
}

static inline void guest_send(struct guest *g, const struct end *e, uint16_t op, uint32_t flags)
{
	struct pkt p = guest_hdr(e, op);

	p.flags = flags;
	guest_packet(g, &p, NULL, 0);
}

static inline uint32_t end_credit(const struct end *e)
{
	return e->peer_alloc - (e->sent - e->peer_fwd);
}

/* The next len bytes of the connection's pattern. */
static inline void guest_write(struct guest *g, struct end *e, uint32_t len)
{
	static uint8_t b[66000];
	struct pkt p = guest_hdr(e, RW);

	for (uint32_t i = 0; i < len; i++)
		b[i] = pattern(e->port, e->sent + i);
	p.len = len;
	e->sent += len;
	guest_packet(g, &p, b, len);
}

/* One packet from the device, into *p and g->data; false: there is none now. */
static inline bool guest_take(struct guest *g, struct pkt *p, bool wait)
{
	struct ring_done d;
	const uint8_t *b;
	int n = wait ? (int)rig_wait(&g->r, Q_RX, &d, 1)
		     : ring_driver_collect(&g->r.q[Q_RX].drv, &d, 1);

	CU_ASSERT_FATAL(n >= 0);
	if (!n) {
		CU_ASSERT_FATAL(!wait);
		return false;
	}
	b = rig_host(&g->r, g->rx + d.token * RX_BYTES);
	memcpy(p, b, sizeof(*p));
	CU_ASSERT_EQUAL_FATAL(d.len, 44 + p->len);
	memcpy(g->data, b + 44, p->len);
	CU_ASSERT_EQUAL(p->dst_cid, CID);
	guest_rx_post(g, (unsigned)d.token);
	rig_kick(&g->r, Q_RX);
	return true;
}

/* Data for an end: checked, counted. */
static inline void end_take(struct guest *g, struct end *e, const struct pkt *p)
{
	e->peer_alloc = p->buf_alloc;
	e->peer_fwd = p->fwd_cnt;
	if (p->op != RW)
		return;
	for (uint32_t i = 0; i < p->len; i++) {
		if (g->data[i] != pattern(e->port + 1, e->got + i)) {
			CU_FAIL("wrong bytes");
			break;
		}
	}
	e->got += p->len;
	/* never more than the guest has room for */
	CU_ASSERT(e->got - e->fwd <= e->alloc);
}

static inline struct pkt guest_expect(struct guest *g, struct end *e, uint16_t op)
{
	struct pkt p = {.op = 0};

	do
		guest_take(g, &p, true);
	while (p.op == CREDIT_UPDATE && op != CREDIT_UPDATE);
	CU_ASSERT_EQUAL(p.op, op);
	CU_ASSERT_EQUAL(p.src_cid, 2);
	if (e) {
		CU_ASSERT_EQUAL(p.dst_port, e->port);
		CU_ASSERT_EQUAL(p.src_port, e->peer);
		end_take(g, e, &p);
	}
	return p;
}

/* ------------------------------------------------------------------ the host's programs */

static inline int host_socket(struct sockaddr_un *sa, const char *path)
{
	struct timeval tv = {HOST_WAIT, 0};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CU_ASSERT_FATAL(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	snprintf(sa->sun_path, sizeof(sa->sun_path), "%s", path);
	return fd;
}

static inline int host_connect(struct guest *g)
{
	struct sockaddr_un sa;
	int fd = host_socket(&sa, g->path);

	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static inline int host_listen(struct guest *g, uint32_t port)
{
	struct sockaddr_un sa;
	char path[100];
	int fd;

	snprintf(path, sizeof(path), "%s_%u", g->path, port);
	fd = host_socket(&sa, path);
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fd, 64), 0);
	return fd;
}

static inline void host_unlisten(struct guest *g, uint32_t port, int fd)
{
	char path[100];

	snprintf(path, sizeof(path), "%s_%u", g->path, port);
	unlink(path);
	close(fd);
}

static inline int host_accept(int listener)
{
	struct timeval tv = {HOST_WAIT, 0};
	int fd = accept(listener, NULL, NULL);

	CU_ASSERT_FATAL(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	return fd;
}

static inline void host_say(int fd, const char *text)
{
	CU_ASSERT_EQUAL(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* The next len bytes of the host's pattern for an end. */
static inline ssize_t host_write(int fd, const struct end *e, uint32_t at, uint32_t len, int flags)
{
	static uint8_t b[66000];

	for (uint32_t i = 0; i < len; i++)
		b[i] = pattern(e->port + 1, at + i);
	return send(fd, b, len, flags | MSG_NOSIGNAL);
}

/* Reads up to len bytes of the guest's pattern; how many, 0: the end, negative: errno. */
static inline ssize_t host_read(int fd, const struct end *e, uint32_t at, uint32_t len, int flags)
{
	static uint8_t b[66000];
	ssize_t n = recv(fd, b, len, flags);

	for (ssize_t i = 0; i < n; i++) {
		if (b[i] != pattern(e->port, at + (uint32_t)i)) {
			CU_FAIL("wrong bytes");
			break;
		}
	}
	return n < 0 ? -errno : n;
}

static inline void host_read_all(int fd, const struct end *e, uint32_t at, uint32_t len)
{
	while (len) {
		ssize_t n = host_read(fd, e, at, len < 65536 ? len : 65536, 0);

		CU_ASSERT_FATAL(n > 0);
		at += (uint32_t)n;
		len -= (uint32_t)n;
	}
}

static inline void host_end(int fd)
{
	char b;

	CU_ASSERT_EQUAL(recv(fd, &b, 1, 0), 0);
}

/* ------------------------------------------------------------------ both */

/* A connection the host asked for. */
static inline int pair_from_host(struct guest *g, struct end *e, uint32_t port, uint32_t alloc)
{
	char line[40], want[40];
	int fd = host_connect(g);
	struct pkt p;
	ssize_t n;

	snprintf(line, sizeof(line), "CONNECT %u\n", port);
	host_say(fd, line);
	p = guest_expect(g, NULL, REQUEST);
	CU_ASSERT_EQUAL(p.dst_port, port);
	CU_ASSERT_EQUAL(p.type, 1);
	CU_ASSERT_EQUAL(p.buf_alloc, 65536);
	*e = (struct end){
		.port = port, .peer = p.src_port, .alloc = alloc, .peer_alloc = p.buf_alloc};
	guest_send(g, e, RESPONSE, 0);
	n = snprintf(want, sizeof(want), "OK %u\n", e->peer);
	memset(line, 0, sizeof(line));
	CU_ASSERT_EQUAL(recv(fd, line, (size_t)n, MSG_WAITALL), n);
	CU_ASSERT_EQUAL(strcmp(line, want), 0);
	return fd;
}

/* A connection the guest asked for. */
static inline int pair_from_guest(
	struct guest *g, struct end *e, int listener, uint32_t port, uint32_t host, uint32_t alloc)
{
	*e = (struct end){.port = port, .peer = host, .alloc = alloc};
	guest_send(g, e, REQUEST, 0);
	guest_expect(g, e, RESPONSE);
	return host_accept(listener);
}

/* In the end the thread sleeps, whatever is still open. */
static inline void guest_sleeps(struct guest *g)
{
	struct io_thread_counters x, y;

	for (unsigned n = 0; n < 40; n++) {
		io_thread_counters_get(g->r.io, &x);
		usleep(200000);
		io_thread_counters_get(g->r.io, &y);
		if (x.system_calls == y.system_calls)
			break;
	}
	CU_ASSERT_EQUAL(x.system_calls, y.system_calls);
	CU_ASSERT_EQUAL(x.sleeps, y.sleeps);
}

#endif
