/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rings of a connection ("Ring states"): a ring runs from its kick on until GET_VRING_BASE. It
 * is started as soon as a kick is set and all else is known: looking at a ring that is still empty
 * costs nothing, and a front-end that polls never kicks.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/vhost_server_priv.h"

/* ------------------------------------------------------------------ the device's signals */

/* A full eventfd has been signalled, and never waits: its descriptor does not block. */
static void event_write(int fd)
{
	uint64_t one = 1;

	while (fd >= 0 && write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void signal_queue(void *ctx, unsigned q)
{
	struct vhost_conn *c = ctx;

	if (c->queues[q].call < 0)
		return;
	counter_add(&c->dev->counters.system_calls, 1);
	event_write(c->queues[q].call);
}

static void signal_config(void *ctx)
{
	struct vhost_conn *c = ctx;
	const struct vhost_user_header h = {
		.request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, .flags = VHOST_USER_VERSION};

	/* a front-end that does not read it does not get it: the next one says the same */
	if (c->backend_fd >= 0 && vhost_has(c, VHOST_USER_PROTOCOL_F_CONFIG))
		(void)send(c->backend_fd, &h, sizeof(h), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void signal_broken(void *ctx)
{
	struct vhost_conn *c = ctx;

	atomic_store(&c->broken, true);
	vhost_note(c, "the guest's driver broke the protocol; its device stops until it is reset");
	for (unsigned q = 0; q < c->dev->nqueues; q++)
		event_write(c->queues[q].err);
}

const struct split_signal vhost_signal = {
	.queue = signal_queue,
	.config = signal_config,
	.broken = signal_broken,
};

/* ------------------------------------------------------------------ descriptors */

struct swap {
	int *at;
	int fd;
};

static void swap_io(void *ctx)
{
	struct swap *s = ctx;
	int old = *s->at;

	*s->at = s->fd;
	s->fd = old;
}

/* Puts fd where the I/O thread looks, and closes what was there when it no longer does. */
static void fd_swap(struct vhost_conn *c, int *at, int fd)
{
	struct swap s = {at, fd};

	io_thread_call(c->dev->io, swap_io, &s);
	if (s.fd >= 0)
		close(s.fd);
}

void vhost_queue_call_set(struct vhost_conn *c, unsigned q, int fd)
{
	fd_swap(c, &c->queues[q].call, fd);
	/* what was completed while there was nowhere to say so */
	if (c->queues[q].running)
		event_write(fd);
}

void vhost_queue_err_set(struct vhost_conn *c, unsigned q, int fd)
{
	fd_swap(c, &c->queues[q].err, fd);
}

void vhost_backend_fd_set(struct vhost_conn *c, int fd)
{
	fd_swap(c, &c->backend_fd, fd);
}

void vhost_queue_kick_set(struct vhost_conn *c, unsigned q, int fd)
{
	struct vhost_queue *vq = &c->queues[q];

	/* only what does not run lets go of its descriptor */
	if (vq->running)
		vhost_queues_pause(c);
	if (vq->kick >= 0)
		close(vq->kick);
	vq->kick = fd;
	vq->kicked = true;
}

/* ------------------------------------------------------------------ starting */

static bool packed(const struct vhost_conn *c)
{
	return c->features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
}

static bool queue_ready(const struct vhost_conn *c, const struct vhost_queue *vq)
{
	return vq->kicked && vq->addressed && vq->num && c->mem.nregions &&
	       (vq->enabled || c->dev->ops->queue_enable);
}

static int queue_addresses(
	struct vhost_conn *c, const struct vhost_queue *vq, struct split_queue_config *cfg)
{
	if (vhost_memory_gpa(c, vq->desc, &cfg->desc_gpa) ||
		vhost_memory_gpa(c, vq->driver, &cfg->driver_gpa) ||
		vhost_memory_gpa(c, vq->device, &cfg->device_gpa))
		return -EFAULT;
	return 0;
}

/*
 * A split ring's front-end tells one position; the other is where the driver sees it. Without a
 * record of what is in flight nothing is: what a back-end had taken when it died is taken again. A
 * front-end that could not ask the dead for its position may tell any (DPDK's virtio_user: 0).
 */
static int queue_position(
	const struct vhost_conn *c, const struct vhost_queue *vq, struct split_queue_config *cfg)
{
	int err;

	cfg->state = vq->state;
	cfg->restore = true;
	if (packed(c) || vq->restore)
		return 0;
	err = ring_mem_read(&c->mem, cfg->device_gpa + 2, &cfg->state.used, 2);
	if (!cfg->inflight)
		cfg->state.avail = cfg->state.used;
	return err;
}

static void queue_inflight(
	const struct vhost_conn *c, unsigned q, uint32_t num, struct split_queue_config *cfg)
{
	uint64_t stride;

	if (!c->inflight.base || q >= c->inflight_queues || !num)
		return;
	stride = c->inflight_bytes / c->inflight_queues & ~UINT64_C(7);
	cfg->inflight = c->inflight.at + q * stride;
	cfg->inflight_bytes = stride;
}

static int queue_start(struct vhost_conn *c, unsigned q)
{
	struct vhost_queue *vq = &c->queues[q];
	struct split_queue_config cfg = {
		.size = vq->num,
		.doorbell_fd = vq->kick,
		.disabled = !vq->enabled,
	};
	int err;

	queue_inflight(c, q, vq->num, &cfg);
	err = queue_addresses(c, vq, &cfg);
	if (!err)
		err = queue_position(c, vq, &cfg);
	if (!err)
		err = split_queue_start(c->dev, q, &cfg);
	if (err) {
		backend_why(c->why, "queue %u cannot be started: %s", q, strerror(-err));
		return err;
	}
	vq->running = true;
	/* a completion told before somebody died may not have been heard */
	event_write(vq->call);
	return 0;
}

static bool any_running(const struct vhost_conn *c)
{
	for (unsigned q = 0; q < c->dev->nqueues; q++)
		if (c->queues[q].running)
			return true;
	return false;
}

static void reset_done(void *ctx)
{
	sem_post(ctx);
}

static void device_power_on(struct vhost_conn *c)
{
	sem_t sem;

	sem_init(&sem, 0, 0);
	split_reset(c->dev, reset_done, &sem);
	while (sem_wait(&sem) < 0 && errno == EINTR)
		;
	sem_destroy(&sem);
	atomic_store(&c->broken, false);
	c->featured = false;
}

/* Features reach the device when a queue is about to run: before, they may come in any order. */
static int features_apply(struct vhost_conn *c)
{
	const uint64_t own =
		VIRTIO_BIT(VHOST_F_LOG_ALL) | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	int err;

	if (atomic_load(&c->broken) && !any_running(c))
		device_power_on(c);
	if (c->featured)
		return 0;
	err = split_features_set(c->dev, c->features & ~own);
	if (err)
		backend_why(c->why, "features 0x%llx: %s", (unsigned long long)c->features,
			strerror(-err));
	c->featured = !err;
	return err;
}

int vhost_queues_resume(struct vhost_conn *c)
{
	for (unsigned q = 0; q < c->dev->nqueues; q++) {
		int err;

		if (c->queues[q].running || !queue_ready(c, &c->queues[q]))
			continue;
		if (!(c->features & VIRTIO_BIT(VIRTIO_F_VERSION_1))) {
			if (!c->legacy_noted)
				vhost_note(c, "the guest's driver is a legacy one (no "
					      "VIRTIO_F_VERSION_1): its queues are not served");
			c->legacy_noted = true;
			return 0;
		}
		err = features_apply(c);
		if (!err)
			err = queue_start(c, q);
		if (err)
			return err;
	}
	return 0;
}

/* ------------------------------------------------------------------ stopping */

void vhost_queues_pause(struct vhost_conn *c)
{
	if (!any_running(c))
		return;
	split_quiesce_wait(c->dev);
	for (unsigned q = 0; q < c->dev->nqueues; q++) {
		struct vhost_queue *vq = &c->queues[q];

		if (!vq->running)
			continue;
		split_queue_state_get(c->dev, q, &vq->state);
		vq->restore = true;
		vq->running = false;
	}
}

void vhost_queue_stop(struct vhost_conn *c, unsigned q)
{
	struct vhost_queue *vq = &c->queues[q];

	vhost_queues_pause(c);
	vq->kicked = false;
	if (vq->kick >= 0)
		close(vq->kick);
	vq->kick = -1;
}

int vhost_queue_enable(struct vhost_conn *c, unsigned q, bool on)
{
	struct vhost_queue *vq = &c->queues[q];

	if (vq->enabled == on)
		return 0;
	vq->enabled = on;
	if (!vq->running)
		return vhost_queues_resume(c);
	if (c->dev->ops->queue_enable) {
		split_queue_enable(c->dev, q, on);
		return 0;
	}
	vhost_queues_pause(c);
	return vhost_queues_resume(c);
}

/* ------------------------------------------------------------------ beginning and end */

void vhost_queues_init(struct vhost_conn *c)
{
	memset(c->queues, 0, sizeof(c->queues));
	for (unsigned q = 0; q < sizeof(c->queues) / sizeof(c->queues[0]); q++)
		c->queues[q].kick = c->queues[q].call = c->queues[q].err = -1;
}

void vhost_queues_close(struct vhost_conn *c)
{
	for (unsigned q = 0; q < sizeof(c->queues) / sizeof(c->queues[0]); q++) {
		const int fds[3] = {c->queues[q].kick, c->queues[q].call, c->queues[q].err};

		for (unsigned i = 0; i < 3; i++)
			if (fds[i] >= 0)
				close(fds[i]);
	}
	vhost_queues_init(c);
}

void vhost_device_reset(struct vhost_conn *c)
{
	vhost_queues_pause(c);
	device_power_on(c);
	for (unsigned q = 0; q < c->dev->nqueues; q++) {
		vhost_queue_stop(c, q);
		c->queues[q].enabled = false;
		c->queues[q].restore = false;
		c->queues[q].addressed = false;
		c->queues[q].state = (struct ring_device_state){0};
	}
	c->legacy_noted = false;
}
