/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user front-end in a test: a disk's driver whose memory is a memfd and whose device is a
 * connection away. Messages are made byte by byte, right and wrong ones.
 */
#ifndef TEST_VHOST_RIG_H
#define TEST_VHOST_RIG_H

#include <dirent.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/unit/test_split_blk_rig.h"

enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_LOG_BASE = 6,
	SET_LOG_FD = 7,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	SET_BACKEND_REQ_FD = 21,
	GET_CONFIG = 24,
	SET_CONFIG = 25,
	GET_INFLIGHT_FD = 31,
	SET_INFLIGHT_FD = 32,
	RESET_DEVICE = 34,
	GET_MAX_MEM_SLOTS = 36,
	ADD_MEM_REG = 37,
	REM_MEM_REG = 38,
	SET_STATUS = 39,
	GET_STATUS = 40,
};

#define F_LOG_ALL         (1ull << 26)
#define F_PROTOCOL        (1ull << 30)
#define VERSION_NEED_ACK  9u
#define NOFD              0x100ull
#define FE_FDS            8u
#define FE_USER           0x7f0000000000ull /* where the front-end says its memory is */
#define FE_INFLIGHT_BYTES 24u

struct fe_message {
	uint32_t request, flags, size;
	uint8_t payload[272];
	int fds[FE_FDS];
	unsigned nfds;
};

struct fe {
	struct disk d;
	struct vhost_server *server;
	char path[64];
	int socket, memfd, inflight_fd;
	struct fe_message inflight;
	uint64_t features, protocol;
	bool packed;
	uint32_t queue_size;
	char note[256]; /* the last one, under the lock */
	pthread_mutex_t lock;
};

static inline bool fe_send_raw(int fd, const void *bytes, size_t n, const int *fds, unsigned nfds)
{
	char control[CMSG_SPACE(sizeof(int) * 16)] = {0};
	struct iovec iov = {(void *)bytes, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)n;
}

static inline bool fe_send(int fd, uint32_t request, uint32_t flags, const void *payload,
	uint32_t size, const int *fds, unsigned nfds)
{
	uint8_t bytes[12 + 512];
	const uint32_t h[3] = {request, flags, size};

	memcpy(bytes, h, 12);
	if (size)
		memcpy(bytes + 12, payload, size);
	return fe_send_raw(fd, bytes, 12 + size, fds, nfds);
}

/* False: the connection was closed. */
static inline bool fe_receive(int fd, struct fe_message *m)
{
	char control[CMSG_SPACE(sizeof(int) * FE_FDS)];
	struct iovec iov = {m, 12};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = fd, .events = POLLIN};

	memset(m, 0, sizeof(*m));
	if (poll(&p, 1, RIG_WAIT_MS) != 1) {
		CU_FAIL("no answer in time");
		return false;
	}
	if (recvmsg(fd, &msg, MSG_WAITALL) != 12)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		m->nfds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(m->fds, CMSG_DATA(c), m->nfds * sizeof(int));
	}
	return !m->size || recv(fd, m->payload, m->size, MSG_WAITALL) == (ssize_t)m->size;
}

static inline uint64_t fe_u64(const struct fe_message *m)
{
	uint64_t v;

	memcpy(&v, m->payload, sizeof(v));
	return v;
}

/* A request with an answer of its own. */
static inline bool fe_ask(struct fe *f, uint32_t request, const void *payload, uint32_t size,
	struct fe_message *answer)
{
	return fe_send(f->socket, request, 1, payload, size, NULL, 0) &&
	       fe_receive(f->socket, answer) && answer->request == request && answer->flags == 5;
}

/* One without, acknowledged: what it says; UINT64_MAX: the connection was closed. */
static inline uint64_t fe_tell_fds(struct fe *f, uint32_t request, const void *payload,
	uint32_t size, const int *fds, unsigned nfds)
{
	struct fe_message m;

	if (!fe_send(f->socket, request, VERSION_NEED_ACK, payload, size, fds, nfds) ||
		!fe_receive(f->socket, &m))
		return UINT64_MAX;
	CU_ASSERT_EQUAL(m.request, request);
	return fe_u64(&m);
}

static inline uint64_t fe_tell(struct fe *f, uint32_t request, const void *payload, uint32_t size)
{
	return fe_tell_fds(f, request, payload, size, NULL, 0);
}

static inline uint64_t fe_tell_u64(struct fe *f, uint32_t request, uint64_t v)
{
	return fe_tell(f, request, &v, sizeof(v));
}

static inline uint64_t fe_tell_state(struct fe *f, uint32_t request, uint32_t index, uint32_t num)
{
	const uint32_t state[2] = {index, num};

	return fe_tell(f, request, state, sizeof(state));
}

static inline uint64_t fe_tell_fd(struct fe *f, uint32_t request, uint64_t index, int fd)
{
	return fe_tell_fds(f, request, &index, sizeof(index), &fd, 1);
}

/* ------------------------------------------------------------------ the server */

static inline int fe_create(void *ctx, unsigned connection, struct split_device **out,
	const struct ring_mem *mem, const struct split_signal *signal, char why[BACKEND_WHY_MAX])
{
	struct fe *f = ctx;
	struct split_blk_options o = {.image = f->d.image,
		.queues = f->d.queues,
		.queue_size = f->queue_size,
		.ring = SPLIT_RING_PACKED,
		.serial = "vhost"};

	(void)connection;
	return split_blk_create(out, f->d.r.io, mem, signal, &o, why);
}

static inline void fe_note(void *ctx, unsigned connection, const char *line)
{
	struct fe *f = ctx;

	(void)connection;
	pthread_mutex_lock(&f->lock);
	snprintf(f->note, sizeof(f->note), "%s", line);
	pthread_mutex_unlock(&f->lock);
}

/* What is noted follows what it is about, on another thread. */
static inline bool fe_noted(struct fe *f, const char *what)
{
	bool found = false;

	for (unsigned i = 0; i < RIG_WAIT_MS && !found; i++) {
		pthread_mutex_lock(&f->lock);
		found = strstr(f->note, what) != NULL;
		pthread_mutex_unlock(&f->lock);
		if (!found)
			usleep(1000);
	}
	return found;
}

static inline void fe_server_start(struct fe *f)
{
	struct vhost_server_options o = {
		.path = f->path, .fd = -1, .create = fe_create, .note = fe_note, .ctx = f};
	char why[BACKEND_WHY_MAX] = "";

	CU_ASSERT_EQUAL_FATAL(vhost_server_create(&f->server, &o, why), 0);
}

static inline int fe_socket(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static inline void fe_open(struct fe *f, unsigned queues, bool no_uring, uint32_t poll_us)
{
	static unsigned number;

	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->lock, NULL);
	f->queue_size = 64;
	f->inflight_fd = f->socket = -1;
	snprintf(f->path, sizeof(f->path), "build/tmp/vhost.%d.%u", (int)getpid(), number++);
	CU_ASSERT_FATAL(disk_open(&f->d, no_uring, poll_us, BLK_ENGINE_AUTO, false));
	f->d.queues = queues;
	f->memfd = (int)syscall(SYS_memfd_create, "guest", 1);
	CU_ASSERT_FATAL(f->memfd >= 0);
	CU_ASSERT_EQUAL_FATAL(ftruncate(f->memfd, (off_t)f->d.r.bytes), 0);
	CU_ASSERT_FATAL(mmap(f->d.r.ram, f->d.r.bytes, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_FIXED, f->memfd, 0) != MAP_FAILED);
	disk_memory(&f->d);
	fe_server_start(f);
}

static inline void fe_disconnect(struct fe *f)
{
	if (f->socket >= 0)
		close(f->socket);
	f->socket = -1;
}

static inline void fe_close(struct fe *f)
{
	fe_disconnect(f);
	vhost_server_destroy(f->server);
	if (f->inflight_fd >= 0)
		close(f->inflight_fd);
	close(f->memfd);
	disk_close(&f->d);
	pthread_mutex_destroy(&f->lock);
}

/* ------------------------------------------------------------------ steps of setting up */

static inline uint64_t fe_region(struct fe *f, uint64_t gpa, uint64_t size, uint64_t offset)
{
	const uint64_t table[5] = {1, gpa, size, FE_USER + offset, offset};

	return fe_tell_fds(f, SET_MEM_TABLE, table, sizeof(table), &f->memfd, 1);
}

static inline void fe_features(struct fe *f, uint64_t without)
{
	struct fe_message m;

	f->socket = fe_socket(f->path);
	CU_ASSERT_FATAL(fe_ask(f, GET_FEATURES, NULL, 0, &m));
	f->features = fe_u64(&m) & ~without;
	if (!f->packed)
		f->features &= ~VIRTIO_BIT(VIRTIO_F_RING_PACKED);
	f->features &= ~F_LOG_ALL;
	CU_ASSERT_FATAL(fe_ask(f, GET_PROTOCOL_FEATURES, NULL, 0, &m));
	f->protocol = fe_u64(&m);
	CU_ASSERT(fe_send(f->socket, SET_PROTOCOL_FEATURES, 1, &f->protocol, 8, NULL, 0));
	CU_ASSERT(fe_send(f->socket, SET_OWNER, 1, NULL, 0, NULL, 0));
	CU_ASSERT_EQUAL(fe_tell_u64(f, SET_FEATURES, f->features), 0);
	f->d.r.layout = f->packed ? RING_PACKED : RING_SPLIT;
	f->d.r.features = (struct ring_features){.event_idx = true, .indirect = true};
}

/* Addresses, position, descriptors: the ring runs when it is enabled. */
static inline void fe_queue(struct fe *f, unsigned q, uint32_t base)
{
	struct rig_queue *rq = &f->d.r.q[q];
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = {q, 0, rq->cfg.desc_gpa - RIG_GPA + FE_USER,
		rq->cfg.device_gpa - RIG_GPA + FE_USER, rq->cfg.driver_gpa - RIG_GPA + FE_USER, 0};

	CU_ASSERT_EQUAL(fe_tell_state(f, SET_VRING_NUM, q, rq->cfg.size), 0);
	CU_ASSERT_EQUAL(fe_tell_state(f, SET_VRING_BASE, q, base), 0);
	CU_ASSERT_EQUAL(fe_tell(f, SET_VRING_ADDR, &addr, sizeof(addr)), 0);
	CU_ASSERT_EQUAL(fe_tell_fd(f, SET_VRING_KICK, q, rq->cfg.doorbell_fd), 0);
	CU_ASSERT_EQUAL(fe_tell_fd(f, SET_VRING_CALL, q, rq->irq_fd), 0);
}

static inline uint32_t fe_base_start(const struct fe *f)
{
	return f->packed ? 0x80008000u : 0;
}

/* All of it, with new rings. */
static inline void fe_start(struct fe *f, uint32_t queue_size)
{
	fe_features(f, 0);
	CU_ASSERT_EQUAL_FATAL(fe_region(f, RIG_GPA, f->d.r.bytes, 0), 0);
	for (unsigned q = 0; q < f->d.queues; q++) {
		rig_queue_init(&f->d.r, q, queue_size);
		fe_queue(f, q, fe_base_start(f));
		CU_ASSERT_EQUAL(fe_tell_state(f, SET_VRING_ENABLE, q, 1), 0);
	}
}

static inline uint32_t fe_base(struct fe *f, unsigned q)
{
	const uint32_t state[2] = {q, 0};
	struct fe_message m;
	uint32_t num;

	CU_ASSERT_FATAL(fe_ask(f, GET_VRING_BASE, state, 8, &m));
	memcpy(&num, m.payload + 4, 4);
	return num;
}

static inline unsigned fe_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

#endif
