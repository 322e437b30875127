/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-vsock (virtio 1.2 section 5.10): the device, its table's memory, polling, state. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/split_vsock_priv.h"

#define CONFIG_SIZE        8u
#define EPOLL_BATCH        64
#define TRY_EVERY_NS       20000u  /* looking for events while awake costs a system call */
#define TRY_EVERY_IDLE_NS  500000u /* and there is no hurry for the first connection */
#define TICK_NS            250000000ull
#define FIRST_PORT         (1u << 30)
#define CONNECTIONS_NORMAL 1024u
#define CONNECTIONS_MAX    32768u
#define CID_MIN            3u

enum { VIRTIO_VSOCK_F_STREAM = 0 };

static struct vsock *vsock_of(struct split_device *d)
{
	return (struct vsock *)d;
}

/* ------------------------------------------------------------------ configuration */

/* 5.10.4: the guest's address. */
static void vsock_config_read(struct split_device *d, uint32_t offset, void *to, uint32_t len)
{
	uint64_t cid = htole64(vsock_of(d)->cid);

	memset(to, 0, len);
	if (offset < CONFIG_SIZE)
		memcpy(to, (uint8_t *)&cid + offset,
			len < CONFIG_SIZE - offset ? len : CONFIG_SIZE - offset);
}

static void vsock_config_write(
	struct split_device *d, uint32_t offset, const void *from, uint32_t len)
{
	(void)d;
	(void)offset;
	(void)from;
	(void)len;
}

/* ------------------------------------------------------------------ the host's sockets */

static void vsock_ready(struct io_watch *w)
{
	struct vsock *v = (struct vsock *)((char *)w - offsetof(struct vsock, watch));

	v->maybe = true;
}

static unsigned vsock_events(struct vsock *v)
{
	struct epoll_event ev[EPOLL_BATCH];
	int n;

	counter_add(&v->common.counters.system_calls, 1);
	n = epoll_wait(v->epoll, ev, EPOLL_BATCH, 0);
	for (int i = 0; i < n; i++) {
		if (ev[i].data.u64 < v->nconns)
			vsock_conn_event(v, &v->conns[ev[i].data.u64], ev[i].events);
		else
			vsock_accept(v);
	}
	v->maybe = n > 0;
	v->next_try_ns =
		io_thread_now_ns(v->common.io) + (v->nopen ? TRY_EVERY_NS : TRY_EVERY_IDLE_NS);
	return n > 0 ? (unsigned)n : 0;
}

static void vsock_tick(struct io_timer *t)
{
	struct vsock *v = (struct vsock *)((char *)t - offsetof(struct vsock, tick));
	uint64_t now = clock_now_ns();

	for (uint16_t i = 0; i < v->nconns && v->deadlines; i++) {
		struct vsock_conn *c = &v->conns[i];

		if (c->deadline_ns && c->deadline_ns <= now) {
			counter_add(&v->common.counters.dropped, 1);
			vsock_conn_kill(v, c);
		}
	}
	if (v->listener_off)
		vsock_listener_enable(v, true);
	if (v->deadlines && !t->at_ns)
		io_timer_set(v->common.io, t, now + TICK_NS);
}

/* ------------------------------------------------------------------ queues */

/* Bytes are copied by the time a call to a socket returns. */
static uint32_t vsock_inflight(struct split_device *d)
{
	(void)d;
	return 0;
}

static unsigned vsock_poll(struct split_device *d)
{
	struct vsock *v = vsock_of(d);
	unsigned n = 0;

	if (v->maybe || io_thread_now_ns(d->io) >= v->next_try_ns)
		n += vsock_events(v);
	n += vsock_tx_poll(v);
	n += vsock_rx_poll(v);
	return n + vsock_event_poll(v);
}

static bool vsock_sleep(struct split_device *d)
{
	struct vsock *v = vsock_of(d);

	/* buffers matter once there is something to put into them, and packets while there is room
	 * for the answers */
	d->queues[VSOCK_Q_RX].passive = !v->rx_dry;
	d->queues[VSOCK_Q_TX].passive = v->nrsts >= VSOCK_RST_HOLD;
	d->queues[VSOCK_Q_EVENT].passive = !v->event_owed;
	return false;
}

static void vsock_batch_end(struct split_device *d)
{
	(void)d; /* each packet was pushed; the common part signals once */
}

/* ------------------------------------------------------------------ state */

static void vsock_reset(struct split_device *d)
{
	struct vsock *v = vsock_of(d);

	vsock_conns_close(v);
	v->event_owed = false;
	v->rx_dry = false;
}

static void vsock_save(struct split_device *d, struct state_writer *w)
{
	struct vsock *v = vsock_of(d);

	state_section_begin(w, "virtio-vsock", 1);
	state_put_u64(w, v->cid);
	state_put_u8(w, v->event_owed);
	state_section_end(w);
}

/*
 * 5.10.6.7: connections end where the guest moves to another host, and it learns that from an
 * event. So may its address change: this host's is the one that holds.
 */
static void vsock_load(struct split_device *d, struct state_reader *r)
{
	struct vsock *v = vsock_of(d);
	uint64_t cid;
	uint8_t owed;

	state_section_enter(r, "virtio-vsock", 1);
	cid = state_get_u64(r);
	owed = state_get_u8(r);
	state_section_leave(r);
	if (!r->error && (cid < CID_MIN || cid >= UINT32_MAX || owed > 1))
		r->error = -EINVAL;
	if (r->error)
		return;
	vsock_conns_close(v);
	v->event_owed = owed || split_has(d, VIRTIO_F_VERSION_1);
}

/* ------------------------------------------------------------------ life */

static void vsock_free(struct vsock *v)
{
	vsock_listen_close(v);
	if (v->epoll >= 0)
		close(v->epoll);
	if (v->buffers)
		munmap(v->buffers, (size_t)v->nconns * VSOCK_BUFFER);
	free(v->conns);
	free(v->hash);
	free(v->rsts);
	free(v);
}

static void vsock_destroy(struct split_device *d)
{
	struct vsock *v = vsock_of(d);

	io_watch_remove(d->io, &v->watch);
	vsock_conns_close(v);
	io_timer_set(d->io, &v->tick, 0);
	split_fini(d);
	vsock_free(v);
}

static const struct split_ops vsock_ops = {
	.name = "virtio-vsock",
	.virtio_id = VIRTIO_ID_VSOCK,
	.config_size = CONFIG_SIZE,
	.config_read = vsock_config_read,
	.config_write = vsock_config_write,
	.inflight = vsock_inflight,
	.reset = vsock_reset,
	.poll = vsock_poll,
	.sleep = vsock_sleep,
	.batch_end = vsock_batch_end,
	.save = vsock_save,
	.load = vsock_load,
	.destroy = vsock_destroy,
};

static int vsock_options_check(const struct split_vsock_options *o, char why[BACKEND_WHY_MAX])
{
	if (o->cid < CID_MIN || o->cid == UINT32_MAX) {
		backend_why(why, "cid=%u: reserved; use %u to %u", o->cid, CID_MIN, UINT32_MAX - 1);
		return -EINVAL;
	}
	if (!o->socket || !*o->socket) {
		backend_why(why, "socket=: a path is missing");
		return -EINVAL;
	}
	if (strlen(o->socket) > VSOCK_PATH_MAX) {
		backend_why(why, "socket=%.100s: too long; use at most %zu characters", o->socket,
			VSOCK_PATH_MAX);
		return -ENAMETOOLONG;
	}
	if (o->queue_size && (o->queue_size < 2 || o->queue_size > 1024 ||
				     (o->queue_size & (o->queue_size - 1)))) {
		backend_why(why, "queue-size=%u: a power of two from 2 to 1024 is possible",
			o->queue_size);
		return -EINVAL;
	}
	if (o->connections > CONNECTIONS_MAX) {
		backend_why(why, "connections=%u: use 1 to %u", o->connections, CONNECTIONS_MAX);
		return -EINVAL;
	}
	return 0;
}

/* The table: all there will ever be. Pages of buffers come when they are first needed. */
static int vsock_table_make(struct vsock *v)
{
	uint32_t buckets = 1;

	while (buckets < v->nconns)
		buckets *= 2;
	v->hash_mask = buckets - 1;
	v->rst_room = VSOCK_RST_HOLD + v->nconns + 1;
	v->conns = calloc(v->nconns, sizeof(*v->conns));
	v->hash = malloc(buckets * sizeof(*v->hash));
	v->rsts = calloc(v->rst_room, sizeof(*v->rsts));
	v->buffers = mmap(NULL, (size_t)v->nconns * VSOCK_BUFFER, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v->buffers == MAP_FAILED)
		v->buffers = NULL;
	if (!v->conns || !v->hash || !v->rsts || !v->buffers)
		return -ENOMEM;
	memset(v->hash, 0xff, buckets * sizeof(*v->hash));
	v->free_list = v->list_head = v->list_tail = VSOCK_NONE;
	for (uint16_t i = v->nconns; i-- > 0;) {
		v->conns[i].fd = -1;
		v->conns[i].list_next = v->free_list;
		v->free_list = i;
	}
	return 0;
}

static void vsock_watch_add(void *ctx)
{
	struct vsock *v = ctx;

	v->watch = (struct io_watch){.fd = v->epoll, .ready = vsock_ready};
	if (io_watch_add(v->common.io, &v->watch))
		v->watch.fd = -1;
}

static int vsock_open(struct vsock *v, char why[BACKEND_WHY_MAX])
{
	int err;

	v->epoll = epoll_create1(EPOLL_CLOEXEC);
	err = v->epoll < 0 ? -errno : vsock_table_make(v);
	if (err) {
		backend_why(why, "virtio-vsock: %s", strerror(-err));
		return err;
	}
	err = split_init(&v->common, why);
	if (!err)
		err = vsock_listen(v, why);
	if (err)
		return err;
	io_thread_call(v->common.io, vsock_watch_add, v);
	if (v->watch.fd >= 0)
		return 0;
	backend_why(why, "virtio-vsock: the I/O thread cannot watch it");
	return -ENOMEM;
}

int split_vsock_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_vsock_options *opts,
	char why[BACKEND_WHY_MAX])
{
	int err = vsock_options_check(opts, why);
	struct vsock *v;

	if (err)
		return err;
	v = calloc(1, sizeof(*v));
	if (!v) {
		backend_why(why, "virtio-vsock: no memory");
		return -ENOMEM;
	}
	v->epoll = v->listener.fd = -1;
	v->common.ops = &vsock_ops;
	v->common.io = io;
	v->common.mem = mem;
	v->common.signal = *signal;
	v->common.nqueues = VSOCK_QUEUES;
	v->common.queue_size_max = opts->queue_size ? opts->queue_size : 256;
	v->common.chain_max = VSOCK_CHAIN_MAX;
	v->common.features = split_features_common(opts->ring, opts->no_indirect,
				     opts->no_event_idx, opts->in_order) |
			     VIRTIO_BIT(VIRTIO_VSOCK_F_STREAM);
	v->cid = opts->cid;
	v->nconns = (uint16_t)(opts->connections ? opts->connections : CONNECTIONS_NORMAL);
	v->next_port = FIRST_PORT;
	v->tick.expired = vsock_tick;
	memcpy(v->path, opts->socket, strlen(opts->socket));
	err = vsock_open(v, why);
	if (err) {
		split_fini(&v->common);
		vsock_free(v);
		return err;
	}
	split_attach(&v->common);
	*out = &v->common;
	return 0;
}

static void vsock_count(void *ctx)
{
	unsigned *n = ((void **)ctx)[1];

	*n = vsock_of(((void **)ctx)[0])->nopen;
}

unsigned split_vsock_connections(struct split_device *d)
{
	unsigned n = 0;
	void *ctx[2] = {d, &n};

	io_thread_call(d->io, vsock_count, ctx);
	return n;
}
