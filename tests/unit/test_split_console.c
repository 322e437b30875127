/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-console: every byte once and in order, however slow either side is; moves; hostile use. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

#include "tests/unit/test_split_small_rig.h"

enum { RXQ, TXQ };

#define SLOTS        32u
#define SLOT_BYTES   8192u
#define CONFIG_EMERG 8u

struct term {
	struct rig r;
	struct split_console_options o;
	uint64_t tx, rx;
	bool busy[SLOTS];
	uint64_t sent, got, typed, read; /* positions in the two streams */
	atomic_uint config_changes;
	uint32_t seed;

	/* the callback's end: under the lock */
	pthread_mutex_t lock;
	uint64_t room; /* bytes it takes before it is full */
	uint64_t out;  /* bytes it has taken */
	bool wrong;
};

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 131 + (at >> 8) * 7 + 1);
}

static uint32_t rnd(struct term *t, uint32_t below)
{
	t->seed = t->seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(t->seed >> 8) * below >> 24);
}

static size_t term_output(void *ctx, const uint8_t *bytes, size_t n)
{
	struct term *t = ctx;

	pthread_mutex_lock(&t->lock);
	if (n > t->room)
		n = t->room;
	for (size_t i = 0; i < n; i++)
		t->wrong |= bytes[i] != pattern(t->out + i);
	t->room -= n;
	t->out += n;
	pthread_mutex_unlock(&t->lock);
	return n;
}

static uint64_t term_out(struct term *t)
{
	uint64_t out;

	pthread_mutex_lock(&t->lock);
	out = t->out;
	pthread_mutex_unlock(&t->lock);
	return out;
}

static void term_room(struct term *t, uint64_t more)
{
	pthread_mutex_lock(&t->lock);
	t->room += more;
	pthread_mutex_unlock(&t->lock);
	split_console_resume(t->r.dev);
}

static void term_config(void *ctx)
{
	/* the rig is the first member */
	atomic_fetch_add(&((struct term *)ctx)->config_changes, 1);
}

static void term_create(void *ctx)
{
	struct term *t = ctx;
	char why[BACKEND_WHY_MAX] = "";

	t->o.ring = small_ring(&t->r);
	CU_ASSERT_EQUAL_FATAL(
		split_console_create(&t->r.dev, t->r.io, &t->r.mem, &t->r.signal, &t->o, why), 0);
}

/* out_fd -2: the callback. */
static void term_open(struct term *t, unsigned bits, int out_fd, int in_fd)
{
	memset(t, 0, sizeof(*t));
	t->seed = 42;
	pthread_mutex_init(&t->lock, NULL);
	small_open(&t->r, bits, 4u << 20);
	t->r.signal.config = term_config;
	t->o.out_fd = out_fd;
	t->o.in_fd = in_fd;
	if (out_fd == -2) {
		t->o.output = term_output;
		t->o.ctx = t;
	}
	term_create(t);
	t->tx = rig_alloc(&t->r, SLOTS * SLOT_BYTES, 4096);
	t->rx = rig_alloc(&t->r, SLOTS * SLOT_BYTES, 4096);
	small_start(&t->r, 2, 64);
	t->r.q[TXQ].silent = true;
}

static void term_close(struct term *t)
{
	CU_ASSERT_FALSE(t->wrong);
	small_close(&t->r);
	pthread_mutex_destroy(&t->lock);
}

/* ------------------------------------------------------------------ the driver */

static int tx_slot(struct term *t)
{
	struct ring_done done[SLOTS];
	int n = ring_driver_collect(&t->r.q[TXQ].drv, done, SLOTS);

	CU_ASSERT_FATAL(n >= 0);
	for (int i = 0; i < n; i++) {
		CU_ASSERT_EQUAL(done[i].len, 0);
		t->busy[done[i].token] = false;
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (!t->busy[i])
			return (int)i;
	return -1;
}

/* One buffer of the stream. False: no room. */
static bool tx_one(struct term *t, uint32_t len)
{
	int slot = tx_slot(t);
	uint64_t gpa = t->tx + (unsigned)slot * SLOT_BYTES;
	struct ring_sg sg[4];
	uint32_t n = 0, left = len;

	if (slot < 0)
		return false;
	for (uint32_t i = 0; i < len; i++)
		((uint8_t *)rig_host(&t->r, gpa))[i] = pattern(t->sent + i);
	while (left) {
		uint32_t part = n < 3 && left > 1 ? 1 + rnd(t, left) : left;

		sg[n++] = (struct ring_sg){gpa, part};
		gpa += part;
		left -= part;
	}
	if (ring_driver_add(&t->r.q[TXQ].drv, sg, n, 0, (unsigned)slot))
		return false;
	t->busy[slot] = true;
	t->sent += len;
	rig_kick(&t->r, TXQ);
	return true;
}

static void tx_drain(struct term *t)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		small_until((tx_slot(t), !t->busy[i]));
		CU_ASSERT_FALSE(t->busy[i]);
	}
}

static void rx_give(struct term *t, unsigned slot, uint32_t len)
{
	struct ring_sg sg[2] = {{t->rx + slot * SLOT_BYTES, len}};
	unsigned n = 1;

	memset(rig_host(&t->r, sg[0].gpa), 0, SLOT_BYTES);
	if (len > 4 && slot % 2) {
		sg[0].len = 3;
		sg[1] = (struct ring_sg){sg[0].gpa + 3, len - 3};
		n = 2;
	}
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&t->r.q[RXQ].drv, sg, 0, n, slot), 0);
	rig_kick(&t->r, RXQ);
}

/* At least one buffer of input, checked. */
static void rx_take(struct term *t, uint32_t len, bool again)
{
	struct ring_done done[SLOTS];
	unsigned n = rig_wait(&t->r, RXQ, done, SLOTS);

	CU_ASSERT_FATAL(n > 0);
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *b = rig_host(&t->r, t->rx + done[i].token * SLOT_BYTES);

		CU_ASSERT_FATAL(done[i].len > 0 && done[i].len <= len);
		for (uint32_t k = 0; k < done[i].len; k++)
			CU_ASSERT_EQUAL(b[k], pattern(t->read + k));
		CU_ASSERT_EQUAL(b[done[i].len], 0);
		t->read += done[i].len;
		if (again)
			rx_give(t, (unsigned)done[i].token, len);
	}
}

static size_t type_some(struct term *t, size_t n)
{
	uint8_t bytes[8192];
	size_t took;

	for (size_t i = 0; i < n; i++)
		bytes[i] = pattern(t->typed + i);
	took = split_console_input(t->r.dev, bytes, n);
	t->typed += took;
	return took;
}

/* ------------------------------------------------------------------ output */

static void test_output(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct term t;

		term_open(&t, bits, -2, -1);
		term_room(&t, UINT32_MAX);
		for (unsigned i = 0; i < 200; i++)
			while (!tx_one(&t, 1 + rnd(&t, i % 10 ? 100 : SLOT_BYTES)))
				;
		tx_drain(&t);
		CU_ASSERT_EQUAL(term_out(&t), t.sent);
		CU_ASSERT_EQUAL(counter_get(&t.r.dev->counters.bytes), t.sent);
		CU_ASSERT_EQUAL(counter_get(&t.r.dev->counters.requests), 200);
		term_close(&t);
	}
}

/* A callback that is full all the time, and takes odd numbers of bytes. */
static void test_flow(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct term t;

		term_open(&t, bits, -2, -1);
		while (t.sent < 40000) {
			if (!tx_one(&t, 1 + rnd(&t, 2000)))
				term_room(&t, 1 + rnd(&t, 1500));
			CU_ASSERT(term_out(&t) <= t.sent);
		}
		/* Room given before may still be in use: what is out is read once a round. */
		for (uint64_t before; (before = term_out(&t)) < t.sent;) {
			term_room(&t, 1 + rnd(&t, 3000));
			small_until(term_out(&t) > before);
			CU_ASSERT_FATAL(term_out(&t) > before);
		}
		tx_drain(&t);
		term_close(&t);
	}
}

static void fd_read(struct term *t, int fd, uint64_t until)
{
	uint8_t bytes[5000];
	uint64_t end_ns = clock_now_ns() + RIG_WAIT_MS * 1000000ull;

	while (t->got < until && clock_now_ns() < end_ns) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, 100) <= 0)
			continue;
		n = read(fd, bytes, sizeof(bytes));
		CU_ASSERT_FATAL(n > 0);
		for (ssize_t i = 0; i < n; i++)
			CU_ASSERT_EQUAL_FATAL(bytes[i], pattern(t->got + (uint64_t)i));
		t->got += (uint64_t)n;
	}
	CU_ASSERT_EQUAL_FATAL(t->got, until);
}

static void nothing(void *ctx)
{
	(void)ctx;
}

/* A pipe nobody reads: the thread goes on, the guest waits, and nothing is lost. A file, too. */
static void test_descriptors(void)
{
	for (unsigned i = 0; i < 12; i++) {
		struct io_thread_counters a, b;
		int fds[2], kind = i % 3;
		struct term t;

		if (kind == 2)
			CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		if (kind != 2)
			CU_ASSERT_EQUAL_FATAL(pipe2(fds, kind ? O_NONBLOCK : 0), 0);
		if (kind == 2) { /* either end of it */
			int x = fds[0];

			fds[0] = fds[1];
			fds[1] = x;
		}
		term_open(&t, i & 1 ? 19 : 11, fds[1], -1);
		/* until the other side has taken nothing for a while */
		for (unsigned full = 0; full < 20;) {
			if (tx_one(&t, 4000)) {
				full = 0;
				continue;
			}
			full++;
			usleep(500);
		}
		CU_ASSERT(t.sent > 16 * 4000);
		io_thread_call(t.r.io, nothing, NULL); /* not stuck */
		for (unsigned n = 0; n < 40; n++) {
			io_thread_counters_get(t.r.io, &a);
			usleep(100000);
			io_thread_counters_get(t.r.io, &b);
			if (a.system_calls == b.system_calls)
				break;
		}
		CU_ASSERT_EQUAL(a.sleeps, b.sleeps); /* waiting costs nothing */
		for (unsigned n = 0; n < 50; n++) {
			uint64_t until = t.sent;

			fd_read(&t, fds[0], until);
			while (tx_one(&t, 1 + rnd(&t, SLOT_BYTES)) && rnd(&t, 4))
				;
		}
		fd_read(&t, fds[0], t.sent);
		tx_drain(&t);
		/* nobody will ever read it: the guest goes on */
		close(fds[0]);
		for (unsigned n = 0; n < 40; n++) {
			small_until(tx_slot(&t) >= 0);
			CU_ASSERT(tx_one(&t, 4000));
		}
		tx_drain(&t);
		CU_ASSERT(counter_get(&t.r.dev->counters.dropped) >= 40 * 4000);
		term_close(&t);
		close(fds[1]);
	}
}

static void test_file(void)
{
	int fd = memfd_create("console", MFD_CLOEXEC);
	uint8_t *bytes = malloc(300000);
	struct term t;

	term_open(&t, 3, fd, -1);
	for (unsigned i = 0; i < 100; i++) {
		small_until(tx_slot(&t) >= 0);
		CU_ASSERT(tx_one(&t, 1 + rnd(&t, 3000)));
	}
	tx_drain(&t);
	CU_ASSERT_EQUAL_FATAL(pread(fd, bytes, 300000, 0), (ssize_t)t.sent);
	for (uint64_t i = 0; i < t.sent; i++)
		CU_ASSERT_EQUAL_FATAL(bytes[i], pattern(i));
	term_close(&t);
	free(bytes);
	close(fd);
}

/* What was written just before the stop is out, without anybody waiting for it. */
static void test_last_words(void)
{
	for (unsigned i = 0; i < 50; i++) {
		struct term t;

		term_open(&t, 0, -2, -1);
		term_room(&t, UINT32_MAX);
		usleep(rnd(&t, 300));
		CU_ASSERT(tx_one(&t, 100));
		split_quiesce_wait(t.r.dev);
		CU_ASSERT_EQUAL(term_out(&t), 100);
		term_close(&t);
	}
}

/* ------------------------------------------------------------------ input */

static void test_input(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct term t;

		term_open(&t, bits, -1, -1);
		/* before there are buffers: kept, up to a limit */
		CU_ASSERT_EQUAL(type_some(&t, 1000), 1000);
		CU_ASSERT_EQUAL(type_some(&t, 8000), 3096);
		CU_ASSERT_EQUAL(type_some(&t, 1), 0);
		usleep(2000);
		for (unsigned i = 0; i < 16; i++)
			rx_give(&t, i, 100);
		while (t.read < 4096)
			rx_take(&t, 100, true);
		/* as a person types: the thread sleeps between */
		for (unsigned i = 0; i < 100; i++) {
			if (i % 10 == 0)
				usleep(300);
			CU_ASSERT_EQUAL(type_some(&t, 1 + i % 3), 1 + i % 3);
			while (t.read < t.typed)
				rx_take(&t, 100, true);
		}
		CU_ASSERT_EQUAL(counter_get(&t.r.dev->counters.errors), 0);
		term_close(&t);
	}
}

static void test_input_fd(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct io_thread_counters a, b;
		uint8_t bytes[60000];
		int fds[2];
		struct term t;
		size_t put = 0;

		for (size_t k = 0; k < sizeof(bytes); k++)
			bytes[k] = pattern(k);
		CU_ASSERT_EQUAL_FATAL(pipe2(fds, i & 1 ? O_NONBLOCK : 0), 0);
		term_open(&t, i & 2 ? 16 : 3, -1, fds[0]);
		CU_ASSERT_EQUAL(write(fds[1], bytes, 20000), 20000);
		put = 20000;
		/* more than there is room for, and nobody takes it: asleep */
		for (unsigned n = 0; n < 40; n++) {
			io_thread_counters_get(t.r.io, &a);
			usleep(100000);
			io_thread_counters_get(t.r.io, &b);
			if (a.system_calls == b.system_calls)
				break;
		}
		CU_ASSERT_EQUAL(a.sleeps, b.sleeps);
		for (unsigned k = 0; k < 16; k++)
			rx_give(&t, k, 500);
		while (t.read < put)
			rx_take(&t, 500, true);
		CU_ASSERT_EQUAL(write(fds[1], bytes + put, 40000), 40000);
		put += 40000;
		close(fds[1]);
		while (t.read < put)
			rx_take(&t, 500, true);
		/* the end of input is not the end */
		t.typed = put;
		CU_ASSERT_EQUAL(type_some(&t, 50), 50);
		while (t.read < t.typed)
			rx_take(&t, 500, true);
		term_close(&t);
		close(fds[0]);
	}
}

/* ------------------------------------------------------------------ configuration */

static uint32_t config32(struct term *t, uint32_t offset)
{
	uint32_t v = 0;

	t->r.dev->ops->config_read(t->r.dev, offset, &v, sizeof(v));
	return v;
}

static void test_config(void)
{
	struct term t;
	uint8_t c = 'x';

	term_open(&t, 3, -2, -1);
	CU_ASSERT_EQUAL(config32(&t, 0), 0);
	CU_ASSERT_EQUAL(config32(&t, 4), 1);
	split_console_size_set(t.r.dev, 132, 43);
	small_until(atomic_load(&t.config_changes));
	CU_ASSERT_EQUAL(atomic_load(&t.config_changes), 1);
	CU_ASSERT_EQUAL(config32(&t, 0), 132 | 43 << 16);
	split_console_size_set(t.r.dev, 132, 43);
	io_thread_call(t.r.io, nothing, NULL);
	CU_ASSERT_EQUAL(atomic_load(&t.config_changes), 1);
	/* beyond the end, and across it */
	CU_ASSERT_EQUAL(config32(&t, 12), 0);
	CU_ASSERT_EQUAL(config32(&t, 10), 0);
	CU_ASSERT_EQUAL(config32(&t, 0xfffffff0u), 0);
	t.r.dev->ops->config_write(t.r.dev, 0xfffffff0u, &c, 1);
	term_close(&t);
}

/* The emergency register: in order, bounded, never waiting. */
static void test_emergency(void)
{
	struct term t;
	uint32_t word;

	term_open(&t, 3, -2, -1);
	term_room(&t, 100);
	for (unsigned i = 0; i < 100; i++) {
		word = pattern(i);
		t.r.dev->ops->config_write(t.r.dev, CONFIG_EMERG, &word, 4);
	}
	small_until(term_out(&t) == 100);
	CU_ASSERT_EQUAL(term_out(&t), 100);
	/* nobody takes it: no more is kept than a little */
	for (unsigned i = 100; i < 100000; i++) {
		word = pattern(i);
		t.r.dev->ops->config_write(t.r.dev, CONFIG_EMERG, &word, 1);
	}
	term_room(&t, 100000);
	small_until(term_out(&t) >= 100 + 256);
	split_quiesce_wait(t.r.dev);
	CU_ASSERT(term_out(&t) >= 100 + 256 && term_out(&t) <= 100 + 2 * 256);
	term_close(&t);
}

/* ------------------------------------------------------------------ move, reset, hostile use */

static void test_move(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		struct term t;
		unsigned moves = 0;

		term_open(&t, bits, -2, -1);
		while (moves < 12) {
			while (tx_one(&t, 500 + rnd(&t, 3000)))
				;
			type_some(&t, rnd(&t, 300));
			term_room(&t, 1 + rnd(&t, 5000)); /* stops inside a buffer */
			if (rnd(&t, 2))
				usleep(rnd(&t, 200));
			small_move(&t.r, 2, term_create, &t);
			moves++;
		}
		term_room(&t, UINT32_MAX);
		tx_drain(&t);
		CU_ASSERT_EQUAL(term_out(&t), t.sent);
		for (unsigned i = 0; i < 8; i++)
			rx_give(&t, i, 64);
		while (t.read < t.typed)
			rx_take(&t, 64, true);
		CU_ASSERT_EQUAL(atomic_load(&t.r.broken), 0);
		CU_ASSERT_EQUAL(atomic_load(&t.config_changes), 0);
		t.o.cols = 80; /* to a terminal of another size: the guest is told */
		small_move(&t.r, 2, term_create, &t);
		CU_ASSERT_EQUAL(atomic_load(&t.config_changes), 1);
		term_close(&t);
	}
}

static void test_load_hostile(void)
{
	static const uint32_t lengths[][2] = {
		{4097, 0}, {UINT32_MAX, 0}, {0, 257}, {0, UINT32_MAX}};
	uint8_t zeros[8192] = {0};
	struct term t;

	term_open(&t, 3, -2, -1);
	split_quiesce_wait(t.r.dev);
	for (unsigned i = 0; i < 4; i++) {
		struct state_writer w = {0};
		struct state_reader r;

		state_section_begin(&w, "virtio-console", 1);
		state_put_u32(&w, UINT32_MAX);
		state_put_u32(&w, 0);
		state_put_u32(&w, lengths[i][0]);
		state_put_bytes(&w, zeros, lengths[i][0] < 8192 ? lengths[i][0] : 8192);
		state_put_u32(&w, lengths[i][1]);
		state_put_bytes(&w, zeros, lengths[i][1] < 8192 ? lengths[i][1] : 8192);
		state_section_end(&w);
		state_reader_init(&r, w.data, w.len);
		split_load(t.r.dev, &r);
		CU_ASSERT_EQUAL(r.error, -EINVAL);
		state_writer_free(&w);
	}
	term_close(&t);
}

/* A state that says more of a buffer is out than there is of it. */
static void test_buffer_changed(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	struct term t;

	term_open(&t, 3, -2, -1);
	split_quiesce_wait(t.r.dev);
	state_section_begin(&w, "virtio-console", 1);
	state_put_u32(&w, 5000);
	state_put_u32(&w, 0);
	state_put_u32(&w, 0);
	state_put_u32(&w, 0);
	state_section_end(&w);
	state_reader_init(&r, w.data, w.len);
	split_load(t.r.dev, &r);
	CU_ASSERT_EQUAL(r.error, 0);
	state_writer_free(&w);
	rig_queue_start(&t.r, TXQ);
	term_room(&t, UINT32_MAX);
	CU_ASSERT(tx_one(&t, 100)); /* shorter than what is out already */
	t.sent = 0;
	CU_ASSERT(tx_one(&t, 100));
	tx_drain(&t);
	CU_ASSERT_EQUAL(term_out(&t), 100);
	CU_ASSERT_EQUAL(counter_get(&t.r.dev->counters.malformed), 1);
	term_close(&t);
}

static void test_reset(void)
{
	struct term t;

	term_open(&t, 3, -2, -1);
	for (unsigned i = 0; i < 30; i++) {
		while (tx_one(&t, 1000))
			;
		type_some(&t, 100);
		term_room(&t, 1500);
		small_reset(&t.r, 2, 64);
		memset(t.busy, 0, sizeof(t.busy));
		t.sent = 0;
		pthread_mutex_lock(&t.lock);
		t.out = 0;
		pthread_mutex_unlock(&t.lock);
		t.typed = t.read = 0;
	}
	/* after it everything is as at the beginning */
	rx_give(&t, 0, 50);
	CU_ASSERT_EQUAL(type_some(&t, 20), 20);
	rx_take(&t, 50, false);
	CU_ASSERT_EQUAL(t.read, 20);
	term_room(&t, UINT32_MAX);
	CU_ASSERT(tx_one(&t, 700));
	tx_drain(&t);
	CU_ASSERT_EQUAL(term_out(&t), 700);
	term_close(&t);
}

static void test_hostile(void)
{
	for (unsigned bits = 0; bits < 16; bits++) {
		struct ring_done done[4];
		struct ring_sg sg[2];
		struct term t;

		term_open(&t, bits, -2, -1);
		term_room(&t, UINT32_MAX);
		sg[0] = sg[1] = (struct ring_sg){t.tx + 31 * SLOT_BYTES, 64};
		/* output that is for writing; input that is for reading, or both */
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&t.r.q[TXQ].drv, sg, 0, 1, 31), 0);
		t.busy[31] = true;
		rig_kick(&t.r, TXQ);
		tx_drain(&t);
		CU_ASSERT_EQUAL(type_some(&t, 10), 10);
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&t.r.q[RXQ].drv, sg, 1, 0, 0), 0);
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&t.r.q[RXQ].drv, sg, 1, 1, 1), 0);
		rig_kick(&t.r, RXQ);
		for (unsigned n = 0; n < 2;) {
			unsigned got = rig_wait(&t.r, RXQ, done, 4);

			CU_ASSERT_FATAL(got > 0);
			for (unsigned i = 0; i < got; i++)
				CU_ASSERT_EQUAL(done[i].len, 0);
			n += got;
		}
		CU_ASSERT_EQUAL(counter_get(&t.r.dev->counters.malformed), 3);
		/* nothing of the input was lost by that */
		rx_give(&t, 2, 50);
		rx_take(&t, 50, false);
		CU_ASSERT_EQUAL(t.read, 10);
		CU_ASSERT(tx_one(&t, 100));
		tx_drain(&t);
		sg[0].gpa = RIG_GPA - 4096;
		CU_ASSERT_EQUAL_FATAL(ring_driver_add(&t.r.q[TXQ].drv, sg, 1, 0, 9), 0);
		rig_kick(&t.r, TXQ);
		small_until(atomic_load(&t.r.broken));
		CU_ASSERT_EQUAL(atomic_load(&t.r.broken), 1);
		term_close(&t);
	}
}

static void test_dirty(void)
{
	for (unsigned layout = 0; layout < 2; layout++) {
		struct term t;

		term_open(&t, layout ? 8 : 0, -2, -1);
		small_dirty_log(&t.r, 2);
		term_room(&t, UINT32_MAX);
		rx_give(&t, 5, 8000);
		CU_ASSERT_EQUAL(type_some(&t, 100), 100);
		rx_take(&t, 8000, false);
		CU_ASSERT(tx_one(&t, 5000));
		tx_drain(&t);
		split_quiesce_wait(t.r.dev);
		for (uint64_t page = t.tx; page < t.rx + SLOTS * SLOT_BYTES; page += 4096)
			CU_ASSERT_EQUAL(rig_page_dirty(&t.r, page), page == t.rx + 5 * SLOT_BYTES);
		term_close(&t);
	}
}

static const struct unit_case cases[] = {
	{"output", test_output},
	{"a callback that is full", test_flow},
	{"pipes and sockets nobody reads", test_descriptors},
	{"a file", test_file},
	{"last words", test_last_words},
	{"input", test_input},
	{"input from a descriptor", test_input_fd},
	{"configuration", test_config},
	{"emergency write", test_emergency},
	{"moved in mid-buffer", test_move},
	{"hostile state", test_load_hostile},
	{"a buffer that changed", test_buffer_changed},
	{"reset", test_reset},
	{"hostile buffers", test_hostile},
	{"dirty pages", test_dirty},
};

UNIT_MAIN("split_console", cases)
