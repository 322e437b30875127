/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queues of a vhost-user front-end: what a back-end is told of each, where it has stopped, and
 * where the next one starts.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/vhost_client_priv.h"

#define DRAIN_MS 1u
/* A driver that is just adding to a ring: looked at again. */
#define RECOVER_MS    5u
#define RECOVER_TRIES 400u
#define DRAIN_NS      30000000000ull /* as long as storage may take */
#define PACKED_WRAP   0x8000u

static bool packed(const struct vhost_client *c)
{
	return split_has(&c->common, VIRTIO_F_RING_PACKED);
}

static struct ring_device *ring_of(struct vhost_client *c, unsigned q)
{
	return &c->common.queues[q].ring;
}

bool vhost_queues_any(const struct vhost_client *c)
{
	for (unsigned q = 0; q < c->common.nqueues; q++)
		if (c->vqs[q].started)
			return true;
	return false;
}

uint32_t vhost_queues_stopping(const struct vhost_client *c)
{
	uint32_t n = 0;

	for (unsigned q = 0; q < c->common.nqueues; q++)
		n += c->vqs[q].stopping;
	return n;
}

/* ------------------------------------------------------------------ events */

static void event_write(int fd)
{
	const uint64_t one = 1;

	while (fd >= 0 && write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* Where the back-end's interrupts go: the transport's own, or here, to be passed on. */
static int call_wanted(struct vhost_client *c, unsigned q)
{
	const struct split_signal *s = &c->common.signal;
	int fd = s->queue_fd ? s->queue_fd(s->ctx, q) : -1;

	return fd >= 0 ? fd : c->vqs[q].call_fd;
}

static void call_ready(struct io_watch *w)
{
	struct vhost_client_queue *vq =
		(struct vhost_client_queue *)((char *)w -
					      offsetof(struct vhost_client_queue, call_watch));
	struct split_device *d = &vq->client->common;

	counter_add(&d->counters.interrupts, 1);
	d->signal.queue(d->signal.ctx, vq->index);
}

/* The driver looks at its queue once more than it must, at worst. */
void vhost_queue_interrupt(struct vhost_client *c, unsigned q)
{
	if (q < c->common.nqueues && c->vqs[q].started)
		event_write(call_wanted(c, q));
}

void vhost_queues_kick(struct split_device *d)
{
	struct vhost_client *c = vhost_client_of(d);

	for (unsigned q = 0; q < d->nqueues; q++)
		if (c->vqs[q].started)
			event_write(c->vqs[q].kick);
}

static void err_ready(struct io_watch *w)
{
	struct vhost_client *c =
		(struct vhost_client *)((char *)w - offsetof(struct vhost_client, err_watch));

	split_break(&c->common);
}

/* ------------------------------------------------------------------ beginning and end */

static int queue_open(struct vhost_client *c, unsigned q)
{
	struct vhost_client_queue *vq = &c->vqs[q];

	vq->client = c;
	vq->index = q;
	vq->call_told = -1;
	vq->enabled_told = -1;
	vq->enabled = q / 2 < c->active || c->kind->ops.virtio_id != VIRTIO_ID_NET;
	vq->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vq->call_fd < 0)
		return -errno;
	vq->call_watch = (struct io_watch){.fd = vq->call_fd, .drain = true, .ready = call_ready};
	return io_watch_add(c->common.io, &vq->call_watch);
}

int vhost_queues_open(struct vhost_client *c)
{
	int err = 0;

	c->err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->err_fd < 0)
		return -errno;
	c->err_watch = (struct io_watch){.fd = c->err_fd, .drain = true, .ready = err_ready};
	err = io_watch_add(c->common.io, &c->err_watch);
	for (unsigned q = 0; q < c->common.nqueues && !err; q++)
		err = queue_open(c, q);
	return err;
}

void vhost_queues_close(struct vhost_client *c)
{
	for (unsigned q = 0; q < c->common.nqueues; q++) {
		io_watch_remove(c->common.io, &c->vqs[q].call_watch);
		if (c->vqs[q].call_fd >= 0)
			close(c->vqs[q].call_fd);
	}
	io_watch_remove(c->common.io, &c->err_watch);
	if (c->err_fd >= 0)
		close(c->err_fd);
}

/* ------------------------------------------------------------------ where a queue is */

/* No back-end keeps requests of this queue: it goes on from where the ring says. */
static int queue_recover(struct vhost_client *c, unsigned q)
{
	struct ring_device *ring = ring_of(c, q);
	struct ring_device_state state;
	int n = ring_device_recover(ring, c->scratch, !c->kind->keeps, &state);

	if (n < 0)
		return n;
	if (c->kind->keeps)
		counter_add(&c->resubmitted, (uint64_t)n);
	c->vqs[q].taken = false;
	c->vqs[q].tries = 0;
	return ring_device_state_set(ring, &state);
}

static void queue_unrecoverable(struct vhost_client *c, unsigned q)
{
	vhost_note_line(c,
		"queue %u: which requests the lost back-end left cannot be told; the device needs "
		"a reset",
		q);
	c->vqs[q].started = false;
	if (!c->common.broken)
		split_break(&c->common);
}

/* Where the next back-end starts: before it is told. False: nowhere. */
static bool queue_position(struct vhost_client *c, unsigned q)
{
	struct ring_device_state state;

	if (!c->vqs[q].taken)
		return true;
	if (c->kept.fd < 0 || !vhost_offers(c, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) {
		int err = queue_recover(c, q);

		if (err == -RING_EAGAIN && c->vqs[q].tries++ < RECOVER_TRIES)
			vhost_link_soon(c, RECOVER_MS);
		else if (err)
			queue_unrecoverable(c, q);
		return !err;
	}
	/* the region says what is in flight; the position is that of the last completion */
	if (!packed(c))
		state.used = ring_device_split_used(ring_of(c, q));
	else if (!vhost_kept_position(c, q, &state.used))
		return true;
	state.avail = state.used;
	ring_device_state_set(ring_of(c, q), &state);
	return true;
}

/* The back-end has none of the queue's requests any more. */
static void queue_stopped(struct vhost_client *c, unsigned q)
{
	struct vhost_client_queue *vq = &c->vqs[q];

	vq->stopping = vq->drains = false;
	vq->told = TOLD_NOTHING;
	vq->call_told = -1;
	vq->enabled_told = -1;
}

static bool queue_drained(struct vhost_client *c, unsigned q)
{
	struct ring_device *ring = ring_of(c, q);
	uint16_t base = (uint16_t)c->vqs[q].base;
	struct ring_device_state state = {.avail = base, .used = base};

	if (packed(c)) {
		state.used = c->vqs[q].base >> 16 ? (uint16_t)(c->vqs[q].base >> 16) : base;
		/* a request in flight would have to be waited for, and nobody could tell */
		if (state.used != state.avail)
			return false;
	} else if (ring_device_split_used(ring) != base) {
		return false;
	}
	if (ring_device_state_set(ring, &state))
		return false;
	c->vqs[q].taken = false;
	queue_stopped(c, q);
	return true;
}

int vhost_queue_based(struct vhost_client *c, unsigned q, uint32_t base)
{
	struct vhost_client_queue *vq = &c->vqs[q];
	struct ring_device_state state = {.avail = (uint16_t)base};

	state.used = packed(c) ? (uint16_t)(base >> 16) : ring_device_split_used(ring_of(c, q));
	if (!packed(c) && (base > UINT16_MAX ||
				  (uint16_t)(state.avail - state.used) > ring_of(c, q)->cfg.size))
		return -EPROTO;
	if (packed(c) && ((state.avail & ~PACKED_WRAP) >= ring_of(c, q)->cfg.size ||
				 (state.used & ~PACKED_WRAP) >= ring_of(c, q)->cfg.size))
		return -EPROTO;
	vq->base = base;
	vq->drains = true;
	c->drain_until_ns = clock_now_ns() + DRAIN_NS;
	vhost_queues_drain(c);
	return 0;
}

/* A back-end may say where it stopped taking requests before it has done what it took. */
void vhost_queues_drain(struct vhost_client *c)
{
	bool again = false;

	for (unsigned q = 0; q < c->common.nqueues; q++)
		if (c->vqs[q].drains && !queue_drained(c, q))
			again = true;
	if (again && clock_now_ns() > c->drain_until_ns)
		vhost_link_lost(c, -ETIMEDOUT, "it does not finish what it has begun");
	else if (again)
		vhost_link_soon(c, DRAIN_MS);
}

/* ------------------------------------------------------------------ starting and stopping */

int vhost_queue_begin(struct split_device *d, unsigned q, int doorbell_fd)
{
	struct vhost_client *c = vhost_client_of(d);
	struct vhost_client_queue *vq = &c->vqs[q];

	vq->started = true;
	vq->taken = false;
	vq->kick = doorbell_fd;
	vhost_link_advance(c);
	return 0;
}

/* Nobody can be asked: the ring says where it is. */
static void queue_end_alone(struct vhost_client *c, unsigned q)
{
	if (c->vqs[q].taken) {
		if (queue_recover(c, q) && !c->common.broken)
			vhost_note_line(c,
				"queue %u: which requests the lost back-end left cannot be told: "
				"they are lost",
				q);
		/* what it says has become wrong */
		vhost_kept_drop(c);
	}
	c->vqs[q].taken = false;
	queue_stopped(c, q);
}

void vhost_queue_end(struct split_device *d, unsigned q)
{
	struct vhost_client *c = vhost_client_of(d);
	struct vhost_client_queue *vq = &c->vqs[q];

	vq->started = false;
	if (c->socket >= 0 && vq->told == TOLD_KICK) {
		vq->stopping = true;
		vhost_link_advance(c);
		return;
	}
	queue_end_alone(c, q);
}

void vhost_queues_lost(struct vhost_client *c)
{
	for (unsigned q = 0; q < c->common.nqueues; q++) {
		struct vhost_client_queue *vq = &c->vqs[q];

		vq->taken |= vq->told == TOLD_KICK;
		if (vq->stopping)
			queue_end_alone(c, q);
		queue_stopped(c, q);
		/* what it had completed and not said */
		vhost_queue_interrupt(c, q);
	}
}

/* ------------------------------------------------------------------ telling */

bool vhost_queue_stop_next(struct vhost_client *c, struct vhost_user_message *m)
{
	for (unsigned q = 0; q < c->common.nqueues; q++) {
		if (!c->vqs[q].stopping || c->vqs[q].drains)
			continue;
		m->h.request = VHOST_USER_GET_VRING_BASE;
		m->h.size = sizeof(m->p.state);
		m->p.state = (struct vhost_user_vring_state){.index = q};
		c->s.awaited = m->h.request;
		c->s.awaited_queue = q;
		return true;
	}
	return false;
}

static void say_state(struct vhost_user_message *m, uint32_t request, uint32_t q, uint32_t num)
{
	m->h.request = request;
	m->h.size = sizeof(m->p.state);
	m->p.state = (struct vhost_user_vring_state){q, num};
}

static void say_fd(struct vhost_user_message *m, uint32_t request, unsigned q, int fd)
{
	m->h.request = request;
	m->h.size = sizeof(m->p.u64);
	m->p.u64 = q | (fd < 0 ? VHOST_USER_VRING_NOFD : 0);
	m->fds[0] = fd;
	m->nfds = fd >= 0;
}

static void say_base(struct vhost_client *c, struct vhost_user_message *m, unsigned q)
{
	struct ring_device_state state;
	uint32_t num;

	ring_device_state_get(ring_of(c, q), &state);
	num = state.avail;
	if (packed(c))
		num |= (uint32_t)state.used << 16;
	say_state(m, VHOST_USER_SET_VRING_BASE, q, num);
}

/* Addresses as this process sees them: that is what they are to the back-end ("Memory access"). */
static void say_addr(struct vhost_client *c, struct vhost_user_message *m, unsigned q)
{
	const struct ring_device *ring = ring_of(c, q);
	bool log = vhost_log_wanted(c);

	m->h.request = VHOST_USER_SET_VRING_ADDR;
	m->h.size = sizeof(m->p.addr);
	m->p.addr = (struct vhost_user_vring_addr){
		.index = q,
		.flags = log ? VHOST_USER_VRING_F_LOG : 0,
		.desc = (uintptr_t)ring->desc,
		.avail = (uintptr_t)ring->driver,
		.used = (uintptr_t)ring->device,
		.log = log ? ring->cfg.device_gpa : 0,
	};
}

static void call_say(struct vhost_client *c, struct vhost_user_message *m, unsigned q)
{
	c->vqs[q].call_told = call_wanted(c, q);
	c->s.awaited_queue = q;
	say_fd(m, VHOST_USER_SET_VRING_CALL, q, c->vqs[q].call_told);
}

static void queue_say(struct vhost_client *c, struct vhost_user_message *m, unsigned q)
{
	switch (++c->vqs[q].told) {
	case TOLD_NUM:
		say_state(m, VHOST_USER_SET_VRING_NUM, q, ring_of(c, q)->cfg.size);
		break;
	case TOLD_BASE:
		say_base(c, m, q);
		break;
	case TOLD_ADDR:
		say_addr(c, m, q);
		break;
	case TOLD_CALL:
		call_say(c, m, q);
		break;
	case TOLD_ERR:
		say_fd(m, VHOST_USER_SET_VRING_ERR, q, c->err_fd);
		break;
	default:
		say_fd(m, VHOST_USER_SET_VRING_KICK, q, c->vqs[q].kick);
		c->unlogged |= c->common.dirty_log && !vhost_log_wanted(c);
		/* what was rung, and what was completed, while nobody listened */
		event_write(c->vqs[q].kick);
		vhost_queue_interrupt(c, q);
		break;
	}
}

bool vhost_queue_next(struct vhost_client *c, struct vhost_user_message *m)
{
	for (unsigned q = 0; q < c->common.nqueues; q++) {
		struct vhost_client_queue *vq = &c->vqs[q];

		if (!vq->started || vq->stopping || vq->told == TOLD_KICK)
			continue;
		if (vq->told == TOLD_NOTHING && !queue_position(c, q))
			continue;
		queue_say(c, m, q);
		return true;
	}
	return false;
}

bool vhost_queue_call_next(struct vhost_client *c, struct vhost_user_message *m)
{
	for (unsigned q = 0; q < c->common.nqueues; q++) {
		struct vhost_client_queue *vq = &c->vqs[q];

		if (!vq->started || vq->told != TOLD_KICK || vq->call_told == call_wanted(c, q))
			continue;
		call_say(c, m, q);
		if (!vhost_offers(c, VHOST_USER_PROTOCOL_F_REPLY_ACK))
			vhost_queue_interrupt(c, q);
		return true;
	}
	return false;
}

bool vhost_queue_enable_next(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!(c->s.features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
		return false;
	for (unsigned q = 0; q < c->common.nqueues; q++) {
		struct vhost_client_queue *vq = &c->vqs[q];

		if (!vq->started || vq->told != TOLD_KICK || vq->enabled_told == vq->enabled)
			continue;
		vq->enabled_told = vq->enabled;
		say_state(m, VHOST_USER_SET_VRING_ENABLE, q, vq->enabled);
		return true;
	}
	return false;
}
