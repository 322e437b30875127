/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a front-end may say, and what is done then. One table holds the shape of every message: what
 * does not fit it, or comes without the protocol feature it needs, ends the connection.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/vhost_server_priv.h"

#define MTU_MIN            68u
#define MTU_MAX            65535u
#define STATUS_NEEDS_RESET 0x40u
/* Legacy features that say nothing to a device of version 1; some front-ends leave them in. */
#define FEATURES_IGNORED (VIRTIO_BIT(24) | VIRTIO_BIT(27))
/* Of a network device, what a front-end's own control queue does (virtio 1.2, 5.1.3). */
#define FEATURES_CONTROL                                                                           \
	(VIRTIO_BIT(17) | VIRTIO_BIT(18) | VIRTIO_BIT(19) | VIRTIO_BIT(20) | VIRTIO_BIT(21) |      \
		VIRTIO_BIT(23))

/* Handlers return 0; 1: refused, which is the front-end's to hear, not a breach; or -errno with
 * c->why. A reply's payload is left in m->p. */
struct message_kind {
	const char *name;
	uint32_t min, max; /* of the payload */
	uint8_t fds_min, fds_max;
	bool reply;     /* has one of its own */
	uint64_t needs; /* protocol features, any of them; 0: none */
	int (*handle)(struct vhost_conn *c, struct vhost_user_message *m);
};

#define NEEDS(f) VIRTIO_BIT(VHOST_USER_PROTOCOL_F_##f)

/* ------------------------------------------------------------------ features */

static uint64_t features_offered(const struct vhost_conn *c)
{
	return c->dev->features | VIRTIO_BIT(VHOST_F_LOG_ALL) |
	       VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
}

static uint64_t protocol_offered(const struct vhost_conn *c)
{
	uint64_t f = NEEDS(MQ) | NEEDS(LOG_SHMFD) | NEEDS(REPLY_ACK) | NEEDS(BACKEND_REQ) |
		     NEEDS(RESET_DEVICE) | NEEDS(CONFIGURE_MEM_SLOTS) | NEEDS(STATUS);

	if (c->dev->ops->virtio_id == VIRTIO_ID_NET)
		return f | NEEDS(RARP) | NEEDS(MTU);
	return f | NEEDS(CONFIG) | NEEDS(INFLIGHT_SHMFD);
}

static void reply_u64(struct vhost_user_message *m, uint64_t v)
{
	m->p.u64 = v;
	m->h.size = sizeof(m->p.u64);
}

static int get_features(struct vhost_conn *c, struct vhost_user_message *m)
{
	reply_u64(m, features_offered(c));
	return 0;
}

static uint64_t features_ignored(const struct vhost_conn *c)
{
	if (c->dev->ops->virtio_id != VIRTIO_ID_NET)
		return FEATURES_IGNORED;
	return FEATURES_IGNORED | (FEATURES_CONTROL & ~c->dev->features);
}

static int set_features(struct vhost_conn *c, struct vhost_user_message *m)
{
	uint64_t f = m->p.u64 & ~features_ignored(c), changed = f ^ c->features;
	const uint64_t own =
		VIRTIO_BIT(VHOST_F_LOG_ALL) | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	int err = 0;

	if (f & ~features_offered(c)) {
		backend_why(c->why, "features 0x%llx that were not offered",
			(unsigned long long)(f & ~features_offered(c)));
		return -EINVAL;
	}
	if (changed) {
		vhost_queues_pause(c);
		c->features = f;
		if (changed & ~own)
			c->featured = false;
		err = vhost_log_apply(c);
		if (!err)
			err = vhost_queues_resume(c);
	}
	/* without protocol features rings know no disabled state */
	for (unsigned q = 0; q < c->dev->nqueues && !err; q++)
		if (!(f & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
			err = vhost_queue_enable(c, q, true);
	return err;
}

static int get_protocol(struct vhost_conn *c, struct vhost_user_message *m)
{
	reply_u64(m, protocol_offered(c));
	return 0;
}

static int set_protocol(struct vhost_conn *c, struct vhost_user_message *m)
{
	if (m->p.u64 & ~protocol_offered(c)) {
		backend_why(c->why, "protocol features 0x%llx that were not offered",
			(unsigned long long)(m->p.u64 & ~protocol_offered(c)));
		return -EINVAL;
	}
	c->protocol = m->p.u64;
	return 0;
}

static int nothing(struct vhost_conn *c, struct vhost_user_message *m)
{
	(void)c;
	(void)m;
	return 0;
}

static int reset_owner(struct vhost_conn *c, struct vhost_user_message *m)
{
	(void)m;
	for (unsigned q = 0; q < c->dev->nqueues; q++) {
		int err = vhost_queue_enable(c, q, false);

		if (err)
			return err;
	}
	return 0;
}

static int reset_device(struct vhost_conn *c, struct vhost_user_message *m)
{
	(void)m;
	vhost_device_reset(c);
	c->status = 0;
	return 0;
}

static int get_queue_num(struct vhost_conn *c, struct vhost_user_message *m)
{
	/* of a network device, front-ends take it for pairs */
	reply_u64(
		m, c->dev->ops->virtio_id == VIRTIO_ID_NET ? c->dev->nqueues / 2 : c->dev->nqueues);
	return 0;
}

static int get_status(struct vhost_conn *c, struct vhost_user_message *m)
{
	reply_u64(m, c->status | (atomic_load(&c->broken) ? STATUS_NEEDS_RESET : 0));
	return 0;
}

static int set_status(struct vhost_conn *c, struct vhost_user_message *m)
{
	if (m->p.u64 > 0xff) {
		backend_why(c->why, "a status of more than 8 bits");
		return -EINVAL;
	}
	if (!m->p.u64)
		return reset_device(c, m);
	c->status = m->p.u64;
	return 0;
}

/* ------------------------------------------------------------------ memory */

static int set_mem_table(struct vhost_conn *c, struct vhost_user_message *m)
{
	const struct vhost_user_memory *t = &m->p.memory;
	int err;

	if (t->nregions > VHOST_USER_REGIONS_MAX || t->nregions != m->nfds ||
		m->h.size < 8 + t->nregions * sizeof(t->regions[0])) {
		backend_why(c->why, "a table of %u memory regions with %u descriptors in %u bytes",
			t->nregions, m->nfds, m->h.size);
		return -EINVAL;
	}
	vhost_queues_pause(c);
	err = vhost_memory_set(c, t->regions, m->fds, t->nregions);
	return err ? err : vhost_queues_resume(c);
}

static int get_max_mem_slots(struct vhost_conn *c, struct vhost_user_message *m)
{
	(void)c;
	reply_u64(m, RING_MEM_REGIONS_MAX);
	return 0;
}

static int add_mem_reg(struct vhost_conn *c, struct vhost_user_message *m)
{
	int err;

	vhost_queues_pause(c);
	err = vhost_memory_add(c, &m->p.memory_one.region, m->fds[0]);
	return err ? err : vhost_queues_resume(c);
}

static int rem_mem_reg(struct vhost_conn *c, struct vhost_user_message *m)
{
	int err;

	vhost_queues_pause(c);
	err = vhost_memory_remove(c, &m->p.memory_one.region);
	return err ? err : vhost_queues_resume(c);
}

static int set_log_base(struct vhost_conn *c, struct vhost_user_message *m)
{
	int err;

	vhost_queues_pause(c);
	err = vhost_log_set(c, m->fds[0], &m->p.log);
	if (!err)
		err = vhost_queues_resume(c);
	reply_u64(m, 0); /* nothing, in the form that front-ends read */
	return err;
}

/* ------------------------------------------------------------------ rings */

static int queue_check(struct vhost_conn *c, uint64_t q)
{
	if (q < c->dev->nqueues)
		return 0;
	backend_why(c->why, "queue %llu of %u", (unsigned long long)q, c->dev->nqueues);
	return -EINVAL;
}

static int queue_idle(struct vhost_conn *c, uint32_t q)
{
	int err = queue_check(c, q);

	if (err || !c->queues[q].running)
		return err;
	backend_why(c->why, "queue %u: set up while it runs", q);
	return -EBUSY;
}

static int set_vring_num(struct vhost_conn *c, struct vhost_user_message *m)
{
	const uint32_t q = m->p.state.index, num = m->p.state.num;
	int err = queue_idle(c, q);

	if (!err && (!num || num > c->dev->queue_size_max)) {
		backend_why(c->why, "queue %u: %u entries; 1 to %u are possible", q, num,
			c->dev->queue_size_max);
		err = -EINVAL;
	}
	if (!err)
		c->queues[q].num = num;
	return err;
}

/* May come while the ring runs, to turn logging on or off: it then says the same addresses. */
static int set_vring_addr(struct vhost_conn *c, struct vhost_user_message *m)
{
	const struct vhost_user_vring_addr a = m->p.addr;
	struct vhost_queue *vq;
	int err = queue_check(c, a.index);

	if (err)
		return err;
	vq = &c->queues[a.index];
	if (vq->addressed && vq->desc == a.desc && vq->driver == a.avail && vq->device == a.used)
		return 0;
	if (vq->running)
		vhost_queues_pause(c);
	vq->desc = a.desc;
	vq->driver = a.avail;
	vq->device = a.used;
	vq->addressed = true;
	return vhost_queues_resume(c);
}

static int set_vring_base(struct vhost_conn *c, struct vhost_user_message *m)
{
	const uint32_t q = m->p.state.index, num = m->p.state.num;
	struct ring_device_state state = {.avail = (uint16_t)num, .used = (uint16_t)(num >> 16)};
	int err = queue_idle(c, q);

	if (err)
		return err;
	/* a front-end that knows one position of a packed ring: nothing is in flight then */
	if (!state.used)
		state.used = state.avail;
	c->queues[q].state = state;
	c->queues[q].restore = false;
	return 0;
}

static int get_vring_base(struct vhost_conn *c, struct vhost_user_message *m)
{
	const uint32_t q = m->p.state.index;
	struct ring_device_state state;
	int err = queue_check(c, q);

	if (err)
		return err;
	vhost_queue_stop(c, q);
	state = c->queues[q].state;
	m->p.state.num = state.avail;
	if (c->features & VIRTIO_BIT(VIRTIO_F_RING_PACKED))
		m->p.state.num |= (uint32_t)state.used << 16;
	m->h.size = sizeof(m->p.state);
	return vhost_queues_resume(c);
}

static int set_vring_enable(struct vhost_conn *c, struct vhost_user_message *m)
{
	const struct vhost_user_vring_state *s = &m->p.state;
	int err = queue_check(c, s->index);

	if (!err && s->num > 1) {
		backend_why(c->why, "queue %u: enabled %u", s->index, s->num);
		err = -EINVAL;
	}
	return err ? err : vhost_queue_enable(c, s->index, s->num);
}

/*
 * The descriptor of a kick, call or error message: taken over, -1 for none. An eventfd or a pipe,
 * which must never make the I/O thread wait.
 */
static int vring_fd(struct vhost_conn *c, struct vhost_user_message *m, unsigned *q, int *fd)
{
	const bool none = m->p.u64 & VHOST_USER_VRING_NOFD;
	struct stat st;
	int flags;

	if (m->p.u64 & ~(VHOST_USER_VRING_INDEX | VHOST_USER_VRING_NOFD) ||
		m->nfds != (none ? 0u : 1u)) {
		backend_why(c->why, "a ring's descriptor: 0x%llx with %u",
			(unsigned long long)m->p.u64, m->nfds);
		return -EINVAL;
	}
	*q = (unsigned)(m->p.u64 & VHOST_USER_VRING_INDEX);
	*fd = -1;
	if (queue_check(c, *q))
		return -EINVAL;
	if (none)
		return 0;
	if (fstat(m->fds[0], &st) < 0 || (st.st_mode & S_IFMT && !S_ISFIFO(st.st_mode))) {
		backend_why(c->why, "queue %u: a descriptor that is neither eventfd nor pipe", *q);
		return -EINVAL;
	}
	flags = fcntl(m->fds[0], F_GETFL);
	if (flags < 0 || fcntl(m->fds[0], F_SETFL, flags | O_NONBLOCK) < 0) {
		backend_why(c->why, "queue %u: a descriptor that cannot be used", *q);
		return -EINVAL;
	}
	*fd = m->fds[0];
	m->nfds = 0;
	return 0;
}

static int set_vring_kick(struct vhost_conn *c, struct vhost_user_message *m)
{
	unsigned q;
	int fd, err = vring_fd(c, m, &q, &fd);

	if (err)
		return err;
	vhost_queue_kick_set(c, q, fd);
	return vhost_queues_resume(c);
}

static int set_vring_call(struct vhost_conn *c, struct vhost_user_message *m)
{
	unsigned q;
	int fd, err = vring_fd(c, m, &q, &fd);

	if (!err)
		vhost_queue_call_set(c, q, fd);
	return err;
}

static int set_vring_err(struct vhost_conn *c, struct vhost_user_message *m)
{
	unsigned q;
	int fd, err = vring_fd(c, m, &q, &fd);

	if (!err)
		vhost_queue_err_set(c, q, fd);
	return err;
}

/* ------------------------------------------------------------------ inflight */

static enum ring_layout layout(const struct vhost_conn *c)
{
	return c->features & VIRTIO_BIT(VIRTIO_F_RING_PACKED) ? RING_PACKED : RING_SPLIT;
}

static int inflight_check(struct vhost_conn *c, const struct vhost_user_inflight *i)
{
	if (i->queues && i->queues <= c->dev->nqueues && i->queue_size &&
		i->queue_size <= RING_SIZE_MAX)
		return 0;
	backend_why(c->why, "inflight memory for %u queues of %u", i->queues, i->queue_size);
	return -EINVAL;
}

static int get_inflight_fd(struct vhost_conn *c, struct vhost_user_message *m)
{
	struct vhost_user_inflight *i = &m->p.inflight;
	int fd, err = inflight_check(c, i);

	if (err)
		return err;
	i->mmap_offset = 0;
	i->mmap_size = i->queues * vhost_inflight_queue_bytes(layout(c), i->queue_size);
	fd = (int)syscall(SYS_memfd_create, "sluice-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)i->mmap_size) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
		backend_why(c->why, "no memory for requests in flight: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return -ENOMEM;
	}
	m->fds[0] = fd;
	m->nfds = 1;
	return 0;
}

static int set_inflight_fd(struct vhost_conn *c, struct vhost_user_message *m)
{
	const struct vhost_user_inflight *i = &m->p.inflight;
	int err = inflight_check(c, i);

	if (err)
		return err;
	if (i->mmap_offset % 8 ||
		i->mmap_size < i->queues * vhost_inflight_queue_bytes(layout(c), i->queue_size)) {
		backend_why(c->why, "inflight memory of %llu bytes for %u queues of %u",
			(unsigned long long)i->mmap_size, i->queues, i->queue_size);
		return -EINVAL;
	}
	vhost_queues_pause(c);
	vhost_unmap(&c->inflight);
	err = vhost_map(c, &c->inflight, m->fds[0], i->mmap_offset, i->mmap_size);
	if (err)
		return err;
	c->inflight_bytes = i->mmap_size;
	c->inflight_queues = i->queues;
	return vhost_queues_resume(c);
}

/* ------------------------------------------------------------------ configuration */

static bool config_valid(const struct vhost_user_message *m)
{
	const struct vhost_user_config *g = &m->p.config;

	return g->size && g->size <= VHOST_USER_CONFIG_MAX &&
	       g->offset <= VHOST_USER_CONFIG_MAX - g->size && m->h.size >= 12 + g->size;
}

static int get_config(struct vhost_conn *c, struct vhost_user_message *m)
{
	struct vhost_user_config *g = &m->p.config;

	/* what cannot be is answered by nothing */
	if (!config_valid(m)) {
		m->h.size = 0;
		return 0;
	}
	memset(g->bytes, 0, sizeof(g->bytes));
	c->dev->ops->config_read(c->dev, g->offset, g->bytes, g->size);
	m->h.size = 12 + g->size;
	return 0;
}

static int set_config(struct vhost_conn *c, struct vhost_user_message *m)
{
	const struct vhost_user_config *g = &m->p.config;

	if (!config_valid(m) || g->flags > 1) {
		backend_why(c->why, "configuration bytes %u + %u in a message of %u", g->offset,
			g->size, m->h.size);
		return -EINVAL;
	}
	/* a device takes what its driver may write and leaves the rest */
	c->dev->ops->config_write(c->dev, g->offset, g->bytes, g->size);
	return 0;
}

static int set_backend_req_fd(struct vhost_conn *c, struct vhost_user_message *m)
{
	struct stat st;

	if (fstat(m->fds[0], &st) < 0 || !S_ISSOCK(st.st_mode)) {
		backend_why(c->why, "a channel for requests that is no socket");
		return -EINVAL;
	}
	vhost_backend_fd_set(c, m->fds[0]);
	m->nfds = 0;
	return 0;
}

static int net_set_mtu(struct vhost_conn *c, struct vhost_user_message *m)
{
	(void)c;
	return m->p.u64 < MTU_MIN || m->p.u64 > MTU_MAX;
}

/* ------------------------------------------------------------------ the table */

#define STATE   sizeof(struct vhost_user_vring_state)
#define U64     sizeof(uint64_t)
#define REGION  sizeof(struct vhost_user_memory_one)
#define PAYLOAD sizeof(union vhost_user_payload)

static const struct message_kind kinds[] = {
	[VHOST_USER_GET_FEATURES] = {"GET_FEATURES", 0, 0, 0, 0, true, 0, get_features},
	[VHOST_USER_SET_FEATURES] = {"SET_FEATURES", U64, U64, 0, 0, false, 0, set_features},
	[VHOST_USER_SET_OWNER] = {"SET_OWNER", 0, 0, 0, 0, false, 0, nothing},
	[VHOST_USER_RESET_OWNER] = {"RESET_OWNER", 0, 0, 0, 0, false, 0, reset_owner},
	[VHOST_USER_SET_MEM_TABLE] = {"SET_MEM_TABLE", 8, sizeof(struct vhost_user_memory), 0,
		VHOST_USER_REGIONS_MAX, false, 0, set_mem_table},
	[VHOST_USER_SET_LOG_BASE] = {"SET_LOG_BASE", 16, 16, 1, 1, true, NEEDS(LOG_SHMFD),
		set_log_base},
	[VHOST_USER_SET_LOG_FD] = {"SET_LOG_FD", 0, U64, 1, 1, false, 0, nothing},
	[VHOST_USER_SET_VRING_NUM] = {"SET_VRING_NUM", STATE, STATE, 0, 0, false, 0, set_vring_num},
	[VHOST_USER_SET_VRING_ADDR] = {"SET_VRING_ADDR", sizeof(struct vhost_user_vring_addr),
		sizeof(struct vhost_user_vring_addr), 0, 0, false, 0, set_vring_addr},
	[VHOST_USER_SET_VRING_BASE] = {"SET_VRING_BASE", STATE, STATE, 0, 0, false, 0,
		set_vring_base},
	[VHOST_USER_GET_VRING_BASE] = {"GET_VRING_BASE", STATE, STATE, 0, 0, true, 0,
		get_vring_base},
	[VHOST_USER_SET_VRING_KICK] = {"SET_VRING_KICK", U64, U64, 0, 1, false, 0, set_vring_kick},
	[VHOST_USER_SET_VRING_CALL] = {"SET_VRING_CALL", U64, U64, 0, 1, false, 0, set_vring_call},
	[VHOST_USER_SET_VRING_ERR] = {"SET_VRING_ERR", U64, U64, 0, 1, false, 0, set_vring_err},
	[VHOST_USER_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", 0, 0, 0, 0, true, 0,
		get_protocol},
	[VHOST_USER_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", U64, U64, 0, 0, false, 0,
		set_protocol},
	[VHOST_USER_GET_QUEUE_NUM] = {"GET_QUEUE_NUM", 0, 0, 0, 0, true, 0, get_queue_num},
	[VHOST_USER_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", STATE, STATE, 0, 0, false, 0,
		set_vring_enable},
	[VHOST_USER_SEND_RARP] = {"SEND_RARP", U64, U64, 0, 0, false, NEEDS(RARP), nothing},
	[VHOST_USER_NET_SET_MTU] = {"NET_SET_MTU", U64, U64, 0, 0, false, NEEDS(MTU), net_set_mtu},
	[VHOST_USER_SET_BACKEND_REQ_FD] = {"SET_BACKEND_REQ_FD", 0, U64, 1, 1, false,
		NEEDS(BACKEND_REQ), set_backend_req_fd},
	[VHOST_USER_GET_CONFIG] = {"GET_CONFIG", 12, sizeof(struct vhost_user_config), 0, 0, true,
		NEEDS(CONFIG), get_config},
	[VHOST_USER_SET_CONFIG] = {"SET_CONFIG", 12, sizeof(struct vhost_user_config), 0, 0, false,
		NEEDS(CONFIG), set_config},
	/* 20 bytes and, of some compilers, padding */
	[VHOST_USER_GET_INFLIGHT_FD] = {"GET_INFLIGHT_FD", 20, 24, 0, 0, true,
		NEEDS(INFLIGHT_SHMFD), get_inflight_fd},
	[VHOST_USER_SET_INFLIGHT_FD] = {"SET_INFLIGHT_FD", 20, 24, 1, 1, false,
		NEEDS(INFLIGHT_SHMFD), set_inflight_fd},
	[VHOST_USER_RESET_DEVICE] = {"RESET_DEVICE", 0, 0, 0, 0, false, NEEDS(RESET_DEVICE),
		reset_device},
	[VHOST_USER_GET_MAX_MEM_SLOTS] = {"GET_MAX_MEM_SLOTS", 0, 0, 0, 0, true,
		NEEDS(CONFIGURE_MEM_SLOTS), get_max_mem_slots},
	[VHOST_USER_ADD_MEM_REG] = {"ADD_MEM_REG", REGION, REGION, 1, 1, false,
		NEEDS(CONFIGURE_MEM_SLOTS), add_mem_reg},
	[VHOST_USER_REM_MEM_REG] = {"REM_MEM_REG", REGION, REGION, 0, 1, false,
		NEEDS(CONFIGURE_MEM_SLOTS), rem_mem_reg},
	[VHOST_USER_SET_STATUS] = {"SET_STATUS", U64, U64, 0, 0, false, NEEDS(STATUS), set_status},
	[VHOST_USER_GET_STATUS] = {"GET_STATUS", 0, 0, 0, 0, true, NEEDS(STATUS), get_status},
};

static const struct message_kind *kind_find(
	struct vhost_conn *c, const struct vhost_user_message *m)
{
	const struct message_kind *k;

	if (m->h.request >= sizeof(kinds) / sizeof(kinds[0]) || !kinds[m->h.request].handle) {
		backend_why(c->why, "request %u, which was not negotiated", m->h.request);
		return NULL;
	}
	k = &kinds[m->h.request];
	if (m->h.size < k->min || m->h.size > k->max || m->nfds < k->fds_min ||
		m->nfds > k->fds_max || m->h.flags & VHOST_USER_REPLY) {
		backend_why(c->why, "%s with %u bytes, %u descriptors and flags 0x%x", k->name,
			m->h.size, m->nfds, m->h.flags);
		return NULL;
	}
	if (k->needs && !(c->protocol & k->needs)) {
		backend_why(c->why, "%s, which was not negotiated", k->name);
		return NULL;
	}
	return k;
}

/* The reply goes by the same message; descriptors are closed when they were sent. */
static int reply(struct vhost_conn *c, struct vhost_user_message *m)
{
	int err;

	m->h.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
	err = vhost_user_send(c->socket, m);
	if (err)
		backend_why(c->why, "%s", strerror(-err));
	return err;
}

int vhost_message(struct vhost_conn *c, struct vhost_user_message *m)
{
	const struct message_kind *k = kind_find(c, m);
	const bool ack =
		m->h.flags & VHOST_USER_NEED_REPLY && vhost_has(c, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	int rc = k ? k->handle(c, m) : -EPROTO;

	if (rc >= 0 && k->reply) {
		/* what came along does not go back */
		if (k->fds_max)
			vhost_user_message_close(m);
		rc = reply(c, m);
	} else if (k && ack) {
		/* also before the connection is closed: it says why */
		vhost_user_message_close(m);
		reply_u64(m, rc != 0);
		if (rc >= 0)
			rc = reply(c, m);
		else
			(void)reply(c, m);
	}
	vhost_user_message_close(m);
	return rc < 0 ? rc : 0;
}
