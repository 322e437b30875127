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
#define SPOIL_ALL         UINT32_MAX
#define P_LOG             (1ull << 1)
#define P_INFLIGHT        (1ull << 12)
#define P_SLOTS           (1ull << 15)
#define PLAYED_KEPT_BYTES 8192u
/* MQ, REPLY_ACK, BACKEND_REQ, CONFIG */
#define BLK_PROTOCOL (1ull << 0 | 1ull << 3 | 1ull << 5 | 1ull << 9)

struct played_queue {
	uint32_t num, base;
	uint64_t desc, avail, used;
	int kick, call, err;
	uint32_t flags;
	uint64_t log;
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
	/* how it is; changed while nobody is connected */
	uint64_t features, protocol;
	uint64_t queues, slots;
	uint8_t config[60];
	unsigned close_after; /* messages of a connection; 0: never */
	unsigned closing;     /* so many connections end after as many messages each */
	/* changes an answer, by request; may say other bytes with other descriptors */
	void (*spoil)(struct played *p, struct fe_message *m);
	uint32_t spoil_request;
	/* what it was told */
	unsigned connections, gone;
	uint64_t features_told, protocol_told;
	unsigned requests[64], received; /* on this connection */
	unsigned regions, added;
	uint64_t region[8][4]; /* added ones: guest address, size, its own address, offset */
	int log_fd;
	uint64_t log_bytes;
	int kept_fd; /* made once: it outlives connections */
	ino_t kept_ino;
	uint64_t kept_told[3];
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
		if (q->err > 0)
			close(q->err);
		memset(q, 0, sizeof(*q));
		q->kick = q->call = q->err = q->enabled = -1;
	}
	if (p->channel >= 0)
		close(p->channel);
	if (p->log_fd >= 0)
		close(p->log_fd);
	p->channel = p->log_fd = -1;
	p->features_told = p->protocol_told = p->log_bytes = 0;
	p->regions = p->added = p->received = 0;
	p->kept_ino = 0;
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
		q->flags = word[1];
		q->log = u64[4];
		q->desc = u64[1];
		q->used = u64[2];
		q->avail = u64[3];
		break;
	case SET_VRING_ENABLE:
		q->enabled = (int)word[1];
		break;
	case SET_VRING_KICK:
	case SET_VRING_CALL:
	case SET_VRING_ERR: {
		int *fd = m->request == SET_VRING_KICK   ? &q->kick
			  : m->request == SET_VRING_CALL ? &q->call
							 : &q->err;

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
	case SET_LOG_BASE:
		p->log_fd = m->fds[0];
		p->log_bytes = u64[0];
		m->nfds = 0;
		m->size = 0;
		return true;
	case GET_MAX_MEM_SLOTS:
		played_u64(m, p->slots);
		return true;
	case ADD_MEM_REG:
		memcpy(p->region[p->added++ % 8], u64 + 1, 32);
		break;
	case GET_INFLIGHT_FD:
		u64[0] = PLAYED_KEPT_BYTES;
		memcpy(m->payload, u64, 16);
		m->fds[0] = p->kept_fd;
		m->nfds = 1;
		return true;
	case SET_INFLIGHT_FD: {
		struct stat st = {0};

		memcpy(p->kept_told, u64, sizeof(p->kept_told));
		if (m->nfds == 1 && !fstat(m->fds[0], &st))
			p->kept_ino = st.st_ino;
		break;
	}
	case GET_VRING_BASE: {
		struct ring_device_state state = {.avail = (uint16_t)q->base};

		if (q->ring.mem)
			ring_device_state_get(&q->ring, &state);
		word[1] = state.avail;
		if (p->features_told & VIRTIO_BIT(VIRTIO_F_RING_PACKED))
			word[1] |= (uint32_t)state.used << 16;
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

	if (!own) {
		for (unsigned i = 0; i < m->nfds; i++)
			close(m->fds[i]);
		m->nfds = 0;
	}
	if (!own && !ack)
		return;
	if (!own)
		played_u64(m, 0);
	m->flags = 5;
	if (p->spoil && (p->spoil_request == m->request || p->spoil_request == SPOIL_ALL))
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
		unsigned left;

		if (fd < 0)
			return NULL;
		pthread_mutex_lock(&p->lock);
		played_forget(p);
		p->socket = fd;
		p->connections++;
		left = p->connections <= p->closing ? p->connections : p->close_after;
		pthread_mutex_unlock(&p->lock);
		while (played_receive(fd, &m)) {
			pthread_mutex_lock(&p->lock);
			if (left && !--left) {
				for (unsigned i = 0; i < m.nfds; i++)
					close(m.fds[i]);
				pthread_mutex_unlock(&p->lock);
				break;
			}
			played_answer(p, &m, played_take(p, &m));
			/* what is seen by the test has been answered */
			p->requests[m.request % 64]++;
			p->received++;
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
	p->socket = p->channel = p->log_fd = -1;
	p->kept_fd = (int)syscall(SYS_memfd_create, "kept", 1);
	CU_ASSERT_FATAL(p->kept_fd >= 0 && !ftruncate(p->kept_fd, PLAYED_KEPT_BYTES));
	for (unsigned i = 0; i < PLAYED_QUEUES; i++)
		p->q[i].kick = p->q[i].call = p->q[i].err = p->q[i].enabled = -1;
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
	close(p->kept_fd);
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

/* ------------------------------------------------------------------ the front-end under test */

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

static inline void note(void *ctx, const char *line)
{
	struct client *c = ctx;

	pthread_mutex_lock(&c->lock);
	snprintf(c->notes + strlen(c->notes), sizeof(c->notes) - strlen(c->notes), "%s\n", line);
	pthread_mutex_unlock(&c->lock);
}

static inline bool noted(struct client *c, const char *what)
{
	bool found;

	pthread_mutex_lock(&c->lock);
	found = strstr(c->notes, what) != NULL;
	pthread_mutex_unlock(&c->lock);
	return found;
}

static inline void config_changed(void *ctx)
{
	struct client *c = ctx;

	atomic_fetch_add(&c->config_changes, 1);
}

static inline int queue_fd(void *ctx, unsigned q)
{
	struct client *c = ctx;

	(void)q;
	return __atomic_load_n(&c->vector_fd, __ATOMIC_SEQ_CST);
}

static inline void client_open(struct client *c)
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
		.path = c->p.path,
		.mode = VHOST_CONNECT,
		.fd = -1,
		.reconnect_ms = 20,
		.memory = {c->memfd, c->r.ram},
		.note = note,
		.ctx = c};
}

static inline int client_create(struct client *c, char why[BACKEND_WHY_MAX])
{
	return split_vhost_create(&c->r.dev, c->r.io, &c->r.mem, &c->r.signal, &c->o, why);
}

static inline void client_close(struct client *c)
{
	if (c->r.dev)
		played_close(&c->p);
	rig_close(&c->r);
	close(c->memfd);
	pthread_mutex_destroy(&c->lock);
}

/* Device, features, queues, up to where the back-end has taken them over. */
static inline void client_start(struct client *c, unsigned queues, uint32_t size)
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
static inline void device_taken(struct client *c, unsigned q)
{
	PLAYED_AWAIT(&c->p, c->p.q[q].started && c->p.q[q].enabled == 1);
	played_ring(&c->p, q);
	pthread_mutex_unlock(&c->p.lock);
}

static inline void driver_add(struct client *c, unsigned q, uint64_t token)
{
	struct ring_sg sg = {RIG_GPA + (3u << 20) + token * 16, 16};

	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&c->r.q[q].drv, &sg, 1, 0, token), 0);
}

static inline unsigned device_pop(
	struct client *c, unsigned q, struct ring_chain *chains, unsigned max)
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

static inline void device_push(struct client *c, unsigned q, const struct ring_chain *chain)
{
	struct ring_used used = {.id = chain->id};
	uint64_t one = 1;

	CU_ASSERT_EQUAL_FATAL(ring_device_push(&c->p.q[q].ring, &used, 1), 0);
	if (ring_device_needs_interrupt(&c->p.q[q].ring))
		CU_ASSERT_EQUAL(write(c->p.q[q].call, &one, 8), 8);
}

/* One request there and back. */
static inline void once(struct client *c, unsigned q, uint64_t token)
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

#endif
