/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A back-end that answers anything at all: each input is the answers of one connection to the
 * front-end of a disk. Most are right but for what the input changes, so that they get past the
 * first checks. The front-end must survive, and end the connection or go on.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_split_rig.h"

#define ANSWERS 64u
#define FDS     8u
#define WAIT_MS 100u
/* VERSION_1, PACKED, EVENT_IDX, INDIRECT, protocol features; the last but one of virtio-blk: MQ */
#define FEATURES (1ull << 32 | 1ull << 34 | 1ull << 29 | 1ull << 28 | 1ull << 30 | 1ull << 12)
/* MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, CONFIGURE_MEM_SLOTS, STATUS */
#define PROTOCOL                                                                                   \
	(1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 5 | 1ull << 9 | 1ull << 12 | 1ull << 15 |     \
		1ull << 16)

enum {
	GET_FEATURES = 1,
	GET_VRING_BASE = 11,
	GET_PROTOCOL_FEATURES = 15,
	GET_QUEUE_NUM = 17,
	GET_CONFIG = 24,
	GET_INFLIGHT_FD = 31,
	GET_MAX_MEM_SLOTS = 36,
	GET_STATUS = 40,
};

struct message {
	uint32_t request, flags, size;
	uint8_t payload[512];
};

static struct fuzz_rig rig;
static int memory_fd;

struct talk {
	struct fuzz_input in;
	int fd;
	int channel; /* for requests of its own; -1: none yet */
};

/* False: the front-end has hung up. Descriptors are closed, but for the channel's. */
static bool receive(struct talk *t, struct message *m)
{
	char control[CMSG_SPACE(sizeof(int) * FDS)];
	struct iovec iov = {m, 12};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};

	memset(m, 0, sizeof(*m));
	if (recvmsg(t->fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != 12)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (m->request == 21 && t->channel < 0)
				t->channel = fd;
			else
				close(fd);
		}
	fuzz_check(m->size <= sizeof(m->payload), "a front-end's message of that size");
	return !m->size || recv(t->fd, m->payload, m->size, MSG_WAITALL) == (ssize_t)m->size;
}

static void put(struct message *m, uint64_t v)
{
	memcpy(m->payload, &v, sizeof(v));
	m->size = sizeof(v);
}

/* What a good back-end would say; false: nothing. */
static bool good(struct message *m, unsigned *nfds)
{
	const bool ack = m->flags & 8;
	uint64_t words[2] = {0};

	switch (m->request) {
	case GET_FEATURES:
		put(m, FEATURES);
		return true;
	case GET_PROTOCOL_FEATURES:
		put(m, PROTOCOL);
		return true;
	case GET_QUEUE_NUM:
		put(m, 2);
		return true;
	case GET_MAX_MEM_SLOTS:
		put(m, 8);
		return true;
	case GET_STATUS:
		put(m, 0);
		return true;
	case GET_VRING_BASE:
		return true;
	case GET_CONFIG:
		m->payload[12] = 100;
		m->payload[12 + 34] = 2;
		return true;
	case GET_INFLIGHT_FD:
		words[0] = 8192;
		memcpy(m->payload, words, sizeof(words));
		*nfds = 1;
		return true;
	default:
		put(m, 0);
		return ack;
	}
}

static void send_message(int fd, const struct message *m, uint32_t bytes, unsigned nfds)
{
	char control[CMSG_SPACE(sizeof(int) * 4)] = {0};
	struct iovec iov = {(void *)(uintptr_t)m, 12 + bytes};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[4] = {memory_fd, memory_fd, memory_fd, memory_fd};

	if (nfds) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
	}
	(void)sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A request of the back-end's own, on the channel or where it does not belong. */
static void own_request(struct talk *t)
{
	struct message m = {.request = fuzz_u8(&t->in) % 8, .flags = fuzz_u8(&t->in)};

	m.size = fuzz_u8(&t->in) % 64;
	send_message(t->channel >= 0 ? t->channel : t->fd, &m, m.size, fuzz_u8(&t->in) & 1);
}

/* The answer, as the input wants it. */
static void answer(struct talk *t, struct message *m)
{
	uint8_t how = fuzz_u8(&t->in);
	unsigned nfds = 0, n;
	bool any = good(m, &nfds);
	uint32_t bytes;

	m->flags = 5;
	bytes = m->size;
	switch (how & 7) {
	case 1: /* some bytes say something else */
		for (n = 1 + (how >> 4); n; n--) {
			uint8_t at = fuzz_u8(&t->in);

			m->payload[at % (m->size ? m->size : 1)] = fuzz_u8(&t->in);
		}
		break;
	case 2:
		m->size = bytes = fuzz_u8(&t->in);
		break;
	case 3:
		m->flags = fuzz_u8(&t->in);
		m->request = fuzz_u8(&t->in) % 44;
		break;
	case 4:
		nfds = how >> 4 & 3;
		break;
	case 5:
		m->size = (uint32_t)fuzz_u16(&t->in) << (how >> 4);
		break;
	case 6:
		own_request(t);
		break;
	case 7:
		any ^= true;
		break;
	}
	if (any || (how & 7) == 4)
		send_message(t->fd, m, bytes < sizeof(m->payload) ? bytes : 0, nfds);
}

static void *back_end(void *arg)
{
	struct talk *t = arg;
	struct message m;

	/* what the input does not change is answered well, for as long as it lasts */
	for (unsigned i = 0; i < ANSWERS && t->in.n && receive(t, &m); i++)
		answer(t, &m);
	shutdown(t->fd, SHUT_RDWR);
	return NULL;
}

static void fuzz_open(void)
{
	fuzz_rig_open(&rig);
	memory_fd = (int)syscall(SYS_memfd_create, "guest", 0);
	fuzz_check(memory_fd >= 0 && !ftruncate(memory_fd, FUZZ_RAM), "memory");
}

/* doorbells: the driver's, closed when the device is gone */
static void drive(struct split_device *d, int doorbells[2])
{
	unsigned choice = d->features >> 34 & 1 ? 8 : 0;
	struct state_writer w = {0};
	struct ring_device_state state;
	uint8_t byte;

	fuzz_queues_init(&rig, choice, 2);
	if (split_features_set(d, d->features))
		return;
	for (unsigned q = 0; q < 2 && q < d->nqueues; q++) {
		struct split_queue_config cfg = rig.q[q].cfg;

		cfg.doorbell_fd = doorbells[q] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
		(void)split_queue_start(d, q, &cfg);
	}
	d->ops->config_read(d, 0, &byte, 1);
	split_quiesce_wait(d);
	for (unsigned q = 0; q < 2 && q < d->nqueues; q++)
		split_queue_state_get(d, q, &state);
	split_save(d, &w);
	state_writer_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct talk t = {.in = {data, size}, .channel = -1};
	struct split_signal signal = fuzz_signal(&rig);
	struct split_device *d = NULL;
	char why[BACKEND_WHY_MAX];
	pthread_t thread;
	int s[2], doorbells[2] = {-1, -1};

	if (!rig.io)
		fuzz_open();
	fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), "sockets");
	t.fd = s[1];
	fuzz_check(!pthread_create(&thread, NULL, back_end, &t), "thread");
	if (split_vhost_create(&d, rig.io, &rig.mem, &signal,
		    &(struct split_vhost_options){.virtio_id = VIRTIO_ID_BLOCK,
			    .fd = s[0],
			    .mode = VHOST_CONNECT,
			    .wait_ms = WAIT_MS,
			    .memory = {memory_fd, rig.ram}},
		    why) == 0) {
		drive(d, doorbells);
		split_destroy(d);
	}
	for (unsigned q = 0; q < 2; q++)
		if (doorbells[q] >= 0)
			close(doorbells[q]);
	pthread_join(thread, NULL);
	close(s[1]);
	if (t.channel >= 0)
		close(t.channel);
	return 0;
}
