/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost-user front-end as a split device: made, asked about, ended. */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "backend/vhost_client_priv.h"

#define WAIT_MS     10000u
#define CHAIN_MAX   1024u
#define FS_TAG_MAX  36u
#define PAIRS_LIMIT 16u

/* ------------------------------------------------------------------ options */

static int options_check(const struct vhost_kind *kind, const struct split_vhost_options *o,
	char why[BACKEND_WHY_MAX])
{
	uint32_t size = o->queue_size;
	unsigned most = kind->ops.virtio_id == VIRTIO_ID_NET ? PAIRS_LIMIT : BACKEND_QUEUES_MAX - 1;

	if (size && (size < 2 || size > 1024 || (size & (size - 1)))) {
		backend_why(why, "queue-size=%u: a power of two from 2 to 1024 is possible", size);
		return -EINVAL;
	}
	if (o->queues > most) {
		backend_why(why, "queues=%u: 1 to %u are possible", o->queues, most);
		return -EINVAL;
	}
	if (kind->ops.virtio_id == VIRTIO_ID_FS &&
		(!o->tag || !*o->tag || strlen(o->tag) > FS_TAG_MAX)) {
		backend_why(why, "tag=: 1 to %u bytes are possible", FS_TAG_MAX);
		return -EINVAL;
	}
	if (!o->path && o->fd < 0) {
		backend_why(why, "a socket is needed");
		return -EINVAL;
	}
	return 0;
}

static void options_take(struct vhost_client *c, const struct split_vhost_options *o)
{
	struct split_device *d = &c->common;

	c->opts = *o;
	c->opts.queues = o->queues ? o->queues : 1;
	if (o->tag)
		snprintf(c->tag, sizeof(c->tag), "%s", o->tag);
	c->opts.tag = c->tag;
	c->opts.path = c->path;
	d->ops = &c->kind->ops;
	d->chain_max = CHAIN_MAX;
	d->queue_size_max = o->queue_size ? o->queue_size : c->kind->queue_size;
	d->nqueues = c->opts.queues;
	switch (c->kind->ops.virtio_id) {
	case VIRTIO_ID_NET:
		c->pairs = c->opts.queues;
		c->active = 1;
		/* two for each pair, and a control queue where there is something to control */
		d->nqueues = c->pairs > 1 ? 2 * c->pairs + 1 : 2;
		break;
	case VIRTIO_ID_FS:
		/* the first one is for urgent requests (5.11.2) */
		d->nqueues++;
		break;
	}
}

/* ------------------------------------------------------------------ creation */

static void client_start_io(void *ctx)
{
	struct vhost_client *c = ctx;
	int err = vhost_queues_open(c);

	if (err)
		vhost_created(c, err, strerror(-err));
	else
		vhost_link_start(c);
}

static void client_give_up_io(void *ctx)
{
	struct vhost_client *c = ctx;

	vhost_created(c, -ETIMEDOUT,
		c->socket >= 0                 ? "the back-end does not answer"
		: c->opts.mode == VHOST_LISTEN ? "no back-end connects to it"
					       : "no back-end listens there; start it first");
}

/* Waits for the first back-end's greeting. */
static int client_wait(struct vhost_client *c, char why[BACKEND_WHY_MAX])
{
	uint32_t ms = c->opts.wait_ms ? c->opts.wait_ms : WAIT_MS;
	struct timespec until;
	sem_t sem;

	sem_init(&sem, 0, 0);
	c->create_sem = &sem;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	io_thread_call(c->common.io, client_start_io, c);
	while (sem_clockwait(&sem, CLOCK_MONOTONIC, &until) < 0 && errno == EINTR)
		;
	/* nothing, if it has been decided */
	io_thread_call(c->common.io, client_give_up_io, c);
	sem_destroy(&sem);
	if (c->create_err)
		backend_why(why, "%.100s%s%.140s", c->path, *c->path ? ": " : "", c->create_why);
	return c->create_err;
}

static int client_make(struct vhost_client *c, const char *path, char why[BACKEND_WHY_MAX])
{
	struct split_device *d = &c->common;
	int err = split_init(d, why);

	if (err)
		return err;
	c->vqs = calloc(d->nqueues, sizeof(*c->vqs));
	c->scratch = calloc(d->queue_size_max, 4 * sizeof(*c->scratch));
	if (!c->vqs || !c->scratch) {
		backend_why(why, "%s: no memory", d->ops->name);
		return -ENOMEM;
	}
	for (unsigned q = 0; q < d->nqueues; q++)
		c->vqs[q].call_fd = -1;
	vhost_config_make(c);
	return vhost_link_open(c, path, why);
}

static void client_free_io(void *ctx)
{
	vhost_client_free(ctx);
}

int split_vhost_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_vhost_options *opts,
	char why[BACKEND_WHY_MAX])
{
	const struct vhost_kind *kind = vhost_kind_find(opts->virtio_id);
	struct vhost_client *c;
	int err;

	if (!kind) {
		backend_why(why, "no such kind of vhost-user device: %u", opts->virtio_id);
		return -EINVAL;
	}
	err = options_check(kind, opts, why);
	if (err)
		return err;
	c = calloc(1, sizeof(*c));
	if (!c) {
		backend_why(why, "%s: no memory", kind->ops.name);
		return -ENOMEM;
	}
	c->kind = kind;
	c->common.io = io;
	c->common.mem = mem;
	c->common.signal = *signal;
	c->kept.fd = c->log.fd = c->err_fd = -1;
	c->socket = c->channel = c->channel_peer = c->listener.fd = -1;
	pthread_mutex_init(&c->config_lock, NULL);
	options_take(c, opts);
	err = client_make(c, opts->path, why);
	if (!err)
		err = client_wait(c, why);
	if (err) {
		io_thread_call(io, client_free_io, c);
		return err;
	}
	split_attach(&c->common);
	*out = &c->common;
	return 0;
}

/* (io) */
void vhost_client_free(struct vhost_client *c)
{
	vhost_link_close(c);
	if (c->vqs)
		vhost_queues_close(c);
	vhost_kept_drop(c);
	vhost_log_drop(c);
	free(c->vqs);
	free(c->scratch);
	split_fini(&c->common);
	pthread_mutex_destroy(&c->config_lock);
	free(c);
}

void vhost_client_signal_changed(struct split_device *d)
{
	vhost_link_advance(vhost_client_of(d));
}

void split_vhost_info_get(struct split_device *d, struct split_vhost_info *out)
{
	struct vhost_client *c = vhost_client_of(d);

	*out = (struct split_vhost_info){
		.connected = atomic_load(&c->connected),
		.connections = counter_get(&c->connections),
		.resubmitted = counter_get(&c->resubmitted),
		.breaches = counter_get(&c->breaches),
		.inflight = atomic_load(&c->inflight),
	};
}
