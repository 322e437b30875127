/* SPDX-License-Identifier: BSD-2-Clause */
/* Emulated devices' way to image and port: many vCPU threads, one I/O thread. */
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>

#include "tests/unit/test_backend_rig.h"

#define SECTORS 4096u
#define THREADS 4u
#define EACH    400u
#define BURST   12000u

/* ------------------------------------------------------------------ disk */

struct vcpu_request {
	struct legacy_request req; /* first */
	struct iovec iov;
	sem_t done;
	int res;
	bool on_io_thread;
	struct io_thread *io;
};

struct vcpu {
	struct legacy_disk *disk;
	struct io_thread *io;
	unsigned index;
	bool ok;
};

static void request_done(struct legacy_request *req, int res)
{
	struct vcpu_request *v = (struct vcpu_request *)req;

	v->res = res;
	v->on_io_thread = io_thread_is_current(v->io);
	sem_post(&v->done);
}

static int request_do(struct vcpu_request *v, struct legacy_disk *disk, enum blk_op op,
	uint64_t offset, void *data, uint64_t len)
{
	v->iov = (struct iovec){data, len};
	memset(&v->req, 0, sizeof(v->req));
	v->req.blk.op = op;
	v->req.blk.offset = offset;
	v->req.blk.length = len;
	v->req.blk.iov = &v->iov;
	v->req.blk.niov = 1;
	v->req.done = request_done;
	legacy_disk_submit(disk, &v->req);
	while (sem_wait(&v->done) < 0)
		;
	return v->res;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *c = arg;
	struct vcpu_request v = {.io = c->io};
	uint8_t out[4096], in[4096];

	sem_init(&v.done, 0, 0);
	c->ok = true;
	for (unsigned i = 0; i < EACH && c->ok; i++) {
		uint64_t offset = (c->index * EACH + i) % (SECTORS / 8) * 4096;

		if (i % 4)
			offset = c->index * (SECTORS / THREADS) * 512ull + i % 100 * 512;
		memset(out, (int)(c->index * 50 + i), sizeof(out));
		memset(in, 0, sizeof(in));
		if (i % 4 == 0)
			c->ok = !request_do(&v, c->disk, BLK_FLUSH, 0, NULL, 0);
		else
			c->ok = !request_do(&v, c->disk, BLK_WRITE, offset, out, 4096) &&
				!request_do(&v, c->disk, BLK_READ, offset, in, 4096) &&
				!memcmp(in, out, 4096);
		c->ok = c->ok && v.on_io_thread;
	}
	sem_destroy(&v.done);
	return NULL;
}

static struct blk_image *image_open(enum blk_engine engine, int *fd_out)
{
	struct blk_options o = {.fd = (int)syscall(SYS_memfd_create, "disk", 0), .engine = engine};
	struct blk_image *image;
	char why[BLK_WHY_MAX];

	CU_ASSERT_EQUAL_FATAL(ftruncate(o.fd, SECTORS * 512), 0);
	if (fd_out)
		*fd_out = dup(o.fd);
	if (!blk_open(&image, &o, why))
		return image;
	close(o.fd);
	if (fd_out)
		close(*fd_out);
	return NULL;
}

static void disk_threads(bool no_uring, uint32_t poll_us, enum blk_engine engine)
{
	struct blk_image *image = image_open(engine, NULL);
	struct blk_channel_counters n;
	struct legacy_disk *disk;
	struct vcpu vcpus[THREADS];
	pthread_t threads[THREADS];
	struct io_thread *io;
	char why[BACKEND_WHY_MAX];

	if (!image)
		return; /* not on this host */
	io = rig_io(no_uring, poll_us);
	CU_ASSERT_EQUAL_FATAL(legacy_disk_open(&disk, io, image, why), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		vcpus[i] = (struct vcpu){disk, io, i, false};
		pthread_create(&threads[i], NULL, vcpu_main, &vcpus[i]);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		CU_ASSERT(vcpus[i].ok);
	}
	legacy_disk_drain(disk);
	legacy_disk_counters_get(disk, &n);
	CU_ASSERT(n.requests >= THREADS * EACH);
	legacy_disk_close(disk);
	io_thread_destroy(io);
	blk_close(image);
}

static void test_disk_threads(void)
{
	disk_threads(false, 0, BLK_ENGINE_URING);
	disk_threads(false, 100, BLK_ENGINE_URING);
	disk_threads(true, 0, BLK_ENGINE_URING);
	disk_threads(false, 0, BLK_ENGINE_THREADS);
	disk_threads(true, 50, BLK_ENGINE_AIO);
}

/* Many at once; drain waits for all of them, close too; an error comes through. */
static void test_disk_drain(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		static uint8_t data[64][4096];
		static struct vcpu_request v[64];
		int fd = -1;
		struct blk_image *image = image_open(BLK_ENGINE_AUTO, &fd);
		struct io_thread *io = rig_io(no_uring, 0);
		struct legacy_disk *disk;
		char why[BACKEND_WHY_MAX];

		CU_ASSERT_EQUAL_FATAL(legacy_disk_open(&disk, io, image, why), 0);
		for (unsigned round = 0; round < 20; round++) {
			for (unsigned i = 0; i < 64; i++) {
				memset(data[i], (int)(i + round), 4096);
				memset(&v[i], 0, sizeof(v[i]));
				sem_init(&v[i].done, 0, 0);
				v[i].io = io;
				v[i].res = 1;
				v[i].iov = (struct iovec){data[i], 4096};
				v[i].req.blk.op = BLK_WRITE;
				v[i].req.blk.offset = i * 8192;
				v[i].req.blk.length = 4096;
				v[i].req.blk.iov = &v[i].iov;
				v[i].req.blk.niov = 1;
				v[i].req.done = request_done;
				legacy_disk_submit(disk, &v[i].req);
			}
			legacy_disk_drain(disk);
			for (unsigned i = 0; i < 64; i++) {
				uint8_t have[4096];

				CU_ASSERT_EQUAL(v[i].res, 0);
				CU_ASSERT_EQUAL(pread(fd, have, 4096, i * 8192), 4096);
				CU_ASSERT_EQUAL(memcmp(have, data[i], 4096), 0);
				sem_destroy(&v[i].done);
			}
		}
		sem_init(&v[0].done, 0, 0);
		CU_ASSERT(request_do(&v[0], disk, BLK_READ, SECTORS * 512, data[0], 512) < 0);
		CU_ASSERT(request_do(&v[0], disk, BLK_READ, 0, data[0], 511) < 0);
		CU_ASSERT_EQUAL(request_do(&v[0], disk, BLK_READ, 0, data[0], 512), 0);
		sem_destroy(&v[0].done);
		legacy_disk_close(disk);
		io_thread_destroy(io);
		blk_close(image);
		close(fd);
	}
}

/* ------------------------------------------------------------------ network */

struct nic {
	struct legacy_net *net;
	atomic_uint received, sent, rooms;
	_Atomic uint64_t bytes;
	atomic_uint wrong;
	unsigned burst;     /* frames that transmit() is to send */
	atomic_uint handed; /* ... and has */
};

static bool nic_room(void *ctx)
{
	struct nic *n = ctx;
	unsigned room = atomic_load(&n->rooms);

	if (!room)
		return false;
	atomic_fetch_sub(&n->rooms, 1);
	return true;
}

/* Frames are numbered in their first bytes behind the header, the rest follows from the number. */
static void nic_frame(uint8_t *f, uint32_t number, uint32_t *len)
{
	*len = 64 + number % 1400;
	memset(f, (int)(number * 7), *len);
	memcpy(f + 14, &number, 4);
}

static void nic_received(void *ctx, const uint8_t *frame, uint32_t len)
{
	struct nic *n = ctx;
	uint8_t want[1536];
	uint32_t want_len;

	nic_frame(want, atomic_load(&n->received), &want_len);
	if (len != want_len || memcmp(want, frame, len))
		atomic_fetch_add(&n->wrong, 1);
	atomic_fetch_add(&n->received, 1);
}

static void nic_sent(void *ctx)
{
	atomic_fetch_add(&((struct nic *)ctx)->sent, 1);
}

static void nic_transmit(void *ctx)
{
	struct nic *n = ctx;

	while (atomic_load(&n->handed) < n->burst) {
		uint8_t f[1536];
		struct iovec iov = {f, 0};
		struct net_packet pkt = {.segs = &iov, .nsegs = 1}, *list = &pkt;

		nic_frame(f, atomic_load(&n->handed), &pkt.len);
		iov.iov_len = pkt.len;
		if (!legacy_net_send(n->net, &list, 1))
			return;
		atomic_fetch_add(&n->handed, 1);
	}
}

static bool until(atomic_uint *v, unsigned n)
{
	for (unsigned i = 0; i < 100000 && atomic_load(v) < n; i++)
		usleep(100);
	return atomic_load(v) >= n;
}

static struct net_port *echo(void)
{
	struct net_mem_options o = {.kind = NET_MEM_ECHO, .queues = 1};
	struct net_port *port;
	char why[NET_WHY_MAX];

	CU_ASSERT_EQUAL_FATAL(net_mem_open(&port, &o, why), 0);
	return port;
}

static void test_net_queue(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct io_thread *io = rig_io(no_uring, 20);
		struct net_port *port = echo();
		struct nic n = {.rooms = UINT32_MAX / 2};
		const struct legacy_net_callbacks cb = {
			.receive_room = nic_room,
			.received = nic_received,
			.sent = nic_sent,
			.ctx = &n,
		};
		char why[BACKEND_WHY_MAX];
		uint8_t f[2048];
		uint32_t len;

		CU_ASSERT_EQUAL_FATAL(legacy_net_open(&n.net, io, port, &cb, why), 0);
		for (unsigned i = 0; i < 3000; i++) {
			nic_frame(f, i, &len);
			while (legacy_net_queue(n.net, f, len) == -ENOSPC)
				usleep(10);
			/* the echo holds a bounded number of frames */
			if (i % 16 == 15)
				CU_ASSERT_FATAL(until(&n.received, i - 15));
		}
		legacy_net_quiesce(n.net);
		legacy_net_resume(n.net);
		CU_ASSERT(until(&n.received, 3000));
		CU_ASSERT_EQUAL(atomic_load(&n.wrong), 0);
		CU_ASSERT(until(&n.sent, 1));
		CU_ASSERT_EQUAL(legacy_net_queue(n.net, f, 0), -EINVAL);
		CU_ASSERT_EQUAL(legacy_net_queue(n.net, f, 1537), -EINVAL);
		legacy_net_close(n.net);
		io_thread_destroy(io);
		net_port_close(port);
	}
}

/* A card without room gets nothing until it says so; then what waited, in order. */
static void test_net_room(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct io_thread *io = rig_io(no_uring, 0);
		struct net_port *port, *peer;
		struct nic n = {.burst = 0};
		const struct legacy_net_callbacks cb = {
			.receive_room = nic_room,
			.received = nic_received,
			.transmit = nic_transmit,
			.sent = nic_sent,
			.ctx = &n,
		};
		struct io_thread_counters x, y;
		char why[BACKEND_WHY_MAX];

		CU_ASSERT_EQUAL_FATAL(net_pair_open(&port, &peer, 1, why), 0);
		CU_ASSERT_EQUAL_FATAL(legacy_net_open(&n.net, io, port, &cb, why), 0);
		for (unsigned i = 0; i < 40; i++) {
			uint8_t f[1536];
			struct iovec iov = {f, 0};
			struct net_packet pkt = {.segs = &iov, .nsegs = 1}, *list = &pkt;

			nic_frame(f, i, &pkt.len);
			iov.iov_len = pkt.len;
			CU_ASSERT_EQUAL(net_port_send(peer, 0, &list, 1), 1);
		}
		usleep(20000);
		CU_ASSERT_EQUAL(atomic_load(&n.received), 0);
		/* nor does the full card keep the thread awake */
		for (unsigned i = 0; i < 40; i++) {
			io_thread_counters_get(io, &x);
			usleep(100000);
			io_thread_counters_get(io, &y);
			if (x.system_calls == y.system_calls)
				break;
		}
		CU_ASSERT_EQUAL(x.system_calls, y.system_calls);
		for (unsigned i = 1; i <= 20; i++) {
			atomic_fetch_add(&n.rooms, 2);
			legacy_net_rx_resume(n.net);
			CU_ASSERT_FATAL(until(&n.received, 2 * i));
			CU_ASSERT_EQUAL(atomic_load(&n.received), 2 * i);
		}
		CU_ASSERT_EQUAL(atomic_load(&n.wrong), 0);
		legacy_net_close(n.net);
		io_thread_destroy(io);
		net_port_close(port);
		net_port_close(peer);
	}
}

/* A card that gathers its own frames, towards a port that fills up. */
static void test_net_transmit(void)
{
	for (int no_uring = 0; no_uring < 2; no_uring++) {
		struct io_thread *io = rig_io(no_uring, 50);
		struct net_port *port, *peer;
		struct nic n = {.burst = BURST};
		const struct legacy_net_callbacks cb = {
			.receive_room = nic_room,
			.received = nic_received,
			.transmit = nic_transmit,
			.sent = nic_sent,
			.ctx = &n,
		};
		uint64_t end_ns = clock_now_ns() + 15000000000ull;
		char why[BACKEND_WHY_MAX];
		unsigned taken = 0;

		CU_ASSERT_EQUAL_FATAL(net_pair_open(&port, &peer, 1, why), 0);
		CU_ASSERT_EQUAL_FATAL(legacy_net_open(&n.net, io, port, &cb, why), 0);
		legacy_net_kick(n.net);
		usleep(5000); /* full by now, and not all handed over */
		CU_ASSERT(atomic_load(&n.handed) < BURST);
		while (taken < BURST && clock_now_ns() < end_ns) {
			uint8_t f[1536], want[1536];
			struct iovec iov = {f, sizeof(f)};
			struct net_buffer buf = {.segs = &iov, .nsegs = 1, .room = sizeof(f)};
			uint32_t len;

			if (!net_port_receive(peer, 0, &buf, 1))
				continue;
			nic_frame(want, taken++, &len);
			CU_ASSERT_EQUAL(buf.len, len);
			CU_ASSERT_EQUAL(memcmp(f, want, len), 0);
		}
		CU_ASSERT_EQUAL(taken, BURST);
		legacy_net_quiesce(n.net);
		CU_ASSERT_EQUAL(atomic_load(&n.handed), BURST);
		CU_ASSERT(until(&n.sent, 1));
		legacy_net_close(n.net);
		io_thread_destroy(io);
		net_port_close(port);
		net_port_close(peer);
	}
}

static const struct unit_case cases[] = {
	{"disk: vCPU threads at once", test_disk_threads},
	{"disk: drain, errors", test_disk_drain},
	{"net: queued frames", test_net_queue},
	{"net: room to receive", test_net_room},
	{"net: transmit work", test_net_transmit},
};

UNIT_MAIN("legacy", cases)
