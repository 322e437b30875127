/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user back-end that a test plays: a thread that answers the front-end's messages and
 * remembers them. It lives in the front-end's process, so that the addresses it is told are its own
 * too, and the test can take requests from the rings as a device would.
 */
#ifndef TEST_VHOST_CLIENT_RIG_H
#define TEST_VHOST_CLIENT_RIG_H

#include "tests/unit/test_vhost_rig.h"

#define PLAYED_QUEUES 8u
#define BLK_FEATURES                                                                               \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |                         \
		VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(F_FLUSH) | VIRTIO_BIT(F_MQ) |      \
		F_LOG_ALL | F_PROTOCOL)
/* MQ, REPLY_ACK, BACKEND_REQ, CONFIG */
#define BLK_PROTOCOL (1ull << 0 | 1ull << 3 | 1ull << 5 | 1ull << 9)

struct played_queue {
	uint32_t num, base;
	uint64_t desc, avail, used;
	int kick, call;
	int enabled; /* -1: not told */
	unsigned calls;
	bool started;
	struct ring_device ring;
	struct ring_device_slot slots[256];
};

struct played {
	struct rig *r;
	char path[80];
	int listener, socket, channel;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stop;
	/* how it is; changed while nobody is connected */
	uint64_t features, protocol;
	uint64_t queues;
	uint8_t config[60];
	/* changes an answer, by request; may say other bytes with other descriptors */
	void (*spoil)(struct played *p, struct fe_message *m);
	uint32_t spoil_request;
	/* what it was told */
	unsigned connections, gone;
	uint64_t features_told, protocol_told;
	unsigned requests[64];
	unsigned regions;
	struct played_queue q[PLAYED_QUEUES];
};

static inline void played_forget(struct played *p)
{
	for (unsigned i = 0; i < PLAYED_QUEUES; i++) {
		struct played_queue *q = &p->q[i];

		if (q->kick > 0)
			close(q->kick);
		if (q->call > 0)
			close(q->call);
		memset(q, 0, sizeof(*q));
		q->kick = q->call = q->enabled = -1;
	}
	if (p->channel >= 0)
		close(p->channel);
	p->channel = -1;
	p->features_told = p->protocol_told = p->regions = 0;
	memset(p->requests, 0, sizeof(p->requests));
}

static inline bool played_receive(int fd, struct fe_message *m)
{
	char control[CMSG_SPACE(sizeof(int) * FE_FDS)];
	struct iovec iov = {m, 12};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};

	memset(m, 0, sizeof(*m));
	if (recvmsg(fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != 12)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		m->nfds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(m->fds, CMSG_DATA(c), m->nfds * sizeof(int));
	}
	return !m->size || (m->size <= sizeof(m->payload) &&
				   recv(fd, m->payload, m->size, MSG_WAITALL) == (ssize_t)m->size);
}

static inline void played_u64(struct fe_message *m, uint64_t v)
{
	memcpy(m->payload, &v, sizeof(v));
	m->size = sizeof(v);
}

/* Under the lock. Has this request an answer of its own, left in m? */
static inline bool played_take(struct played *p, struct fe_message *m)
{
	uint32_t word[2];
	uint64_t u64[5];
	struct played_queue *q;

	memcpy(word, m->payload, sizeof(word));
	memcpy(u64, m->payload, sizeof(u64));
	q = &p->q[word[0] % PLAYED_QUEUES];
	switch (m->request) {
	case GET_FEATURES:
		played_u64(m, p->features);
		return true;
	case GET_PROTOCOL_FEATURES:
		played_u64(m, p->protocol);
		return true;
	case GET_QUEUE_NUM:
		played_u64(m, p->queues);
		return true;
	case GET_CONFIG:
		memcpy(m->payload + 12, p->config, sizeof(p->config));
		return true;
	case SET_FEATURES:
		p->features_told = u64[0];
		break;
	case SET_PROTOCOL_FEATURES:
		p->protocol_told = u64[0];
		break;
	case SET_MEM_TABLE:
		p->regions = word[0];
		break;
	case SET_VRING_NUM:
		q->num = word[1];
		break;
	case SET_VRING_BASE:
		q->base = word[1];
		break;
	case SET_VRING_ADDR:
		q->desc = u64[1];
		q->used = u64[2];
		q->avail = u64[3];
		break;
	case SET_VRING_ENABLE:
		q->enabled = (int)word[1];
		break;
	case SET_VRING_KICK:
	case SET_VRING_CALL: {
		int *fd = m->request == SET_VRING_KICK ? &q->kick : &q->call;

		if (*fd >= 0)
			close(*fd);
		*fd = m->nfds ? m->fds[0] : -1;
		m->nfds = 0;
		q->calls += m->request == SET_VRING_CALL;
		q->started |= m->request == SET_VRING_KICK;
		break;
	}
	case SET_BACKEND_REQ_FD:
		p->channel = m->fds[0];
		m->nfds = 0;
		break;
	case GET_VRING_BASE: {
		struct ring_device_state state = {.avail = (uint16_t)q->base};

		if (q->ring.mem)
			ring_device_state_get(&q->ring, &state);
		word[1] = state.avail;
		memcpy(m->payload, word, sizeof(word));
		q->started = false;
		return true;
	}
	}
	return false;
}

static inline void played_answer(struct played *p, struct fe_message *m, bool own)
{
	bool ack = m->flags & 8;

	for (unsigned i = 0; i < m->nfds; i++)
		close(m->fds[i]);
	m->nfds = 0;
	if (!own && !ack)
		return;
	if (!own)
		played_u64(m, 0);
	m->flags = 5;
	if (p->spoil && p->spoil_request == m->request)
		p->spoil(p, m);
	if (m->size != UINT32_MAX)
		fe_send(p->socket, m->request, m->flags, m->payload, m->size, m->fds, m->nfds);
}

static inline void *played_main(void *arg)
{
	struct played *p = arg;

	for (;;) {
		int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
		struct fe_message m;

		if (fd < 0)
			return NULL;
		pthread_mutex_lock(&p->lock);
		played_forget(p);
		p->socket = fd;
		p->connections++;
		pthread_mutex_unlock(&p->lock);
		while (played_receive(fd, &m)) {
			pthread_mutex_lock(&p->lock);
			played_answer(p, &m, played_take(p, &m));
			/* what is seen by the test has been answered */
			p->requests[m.request % 64]++;
			pthread_cond_broadcast(&p->cond);
			pthread_mutex_unlock(&p->lock);
		}
		pthread_mutex_lock(&p->lock);
		p->gone++;
		p->socket = -1;
		close(fd);
		pthread_cond_broadcast(&p->cond);
		pthread_mutex_unlock(&p->lock);
	}
}

static inline void played_open(struct played *p, struct rig *r)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	memset(p, 0, sizeof(*p));
	p->r = r;
	p->features = BLK_FEATURES;
	p->protocol = BLK_PROTOCOL;
	p->queues = PLAYED_QUEUES;
	p->config[0] = 77;
	p->socket = p->channel = -1;
	for (unsigned i = 0; i < PLAYED_QUEUES; i++)
		p->q[i].kick = p->q[i].call = p->q[i].enabled = -1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->cond, NULL);
	snprintf(p->path, sizeof(p->path), "build/tmp/played.%d.sock", (int)getpid());
	unlink(p->path);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", p->path);
	p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(bind(p->listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(p->listener, 4), 0);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&p->thread, NULL, played_main, p), 0);
}

/* Dies: the connection is closed, now. */
static inline void played_die(struct played *p)
{
	pthread_mutex_lock(&p->lock);
	if (p->socket >= 0)
		shutdown(p->socket, SHUT_RDWR);
	pthread_mutex_unlock(&p->lock);
}

static inline void played_close(struct played *p)
{
	shutdown(p->listener, SHUT_RDWR);
	played_die(p);
	pthread_join(p->thread, NULL);
	close(p->listener);
	unlink(p->path);
	played_forget(p);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->cond);
}

/* Until the condition holds, for RIG_WAIT_MS at most; leaves the lock taken. */
#define PLAYED_AWAIT(p, condition)                                                                 \
	do {                                                                                       \
		struct timespec until_;                                                            \
		int rc_ = 0;                                                                       \
		clock_gettime(CLOCK_REALTIME, &until_);                                            \
		until_.tv_sec += RIG_WAIT_MS / 1000;                                               \
		pthread_mutex_lock(&(p)->lock);                                                    \
		while (!(condition) && !rc_)                                                       \
			rc_ = pthread_cond_timedwait(&(p)->cond, &(p)->lock, &until_);             \
		if (!(condition))                                                                  \
			CU_FAIL("in time: " #condition);                                           \
	} while (0)

#define PLAYED_WAIT(p, condition)                                                                  \
	do {                                                                                       \
		PLAYED_AWAIT(p, condition);                                                        \
		pthread_mutex_unlock(&(p)->lock);                                                  \
	} while (0)

/* The ring as the back-end was told of it, at the position it was told. */
static inline void played_ring(struct played *p, unsigned i)
{
	struct played_queue *q = &p->q[i];
	const bool packed = p->features_told & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
	struct ring_device_config c = {
		.layout = packed ? RING_PACKED : RING_SPLIT,
		.features = {.event_idx = p->features_told & VIRTIO_BIT(VIRTIO_F_EVENT_IDX),
			.indirect = p->features_told & VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)},
		.size = q->num,
		.desc_gpa = q->desc - (uintptr_t)p->r->ram + RIG_GPA,
		.driver_gpa = q->avail - (uintptr_t)p->r->ram + RIG_GPA,
		.device_gpa = q->used - (uintptr_t)p->r->ram + RIG_GPA,
		.chain_max = 128,
		.slots = q->slots,
	};
	struct ring_device_state state = {(uint16_t)q->base, (uint16_t)(q->base >> 16)};

	CU_ASSERT_EQUAL_FATAL(ring_device_init(&q->ring, &c, &p->r->mem), 0);
	if (!packed)
		state.used = ring_device_split_used(&q->ring);
	CU_ASSERT_EQUAL_FATAL(ring_device_state_set(&q->ring, &state), 0);
}

#endif
