/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-console (virtio 1.2 section 5.3): one port on a pair of descriptors or a callback.
 *
 * Output goes from the guest's buffers to the host without a queue between: what the host does not
 * take stays in the guest's ring, and of a buffer that is half out the device remembers how far it
 * got. A stuck terminal so costs neither memory nor the thread's time, and nothing is lost or
 * doubled when the device is stopped, moved and started again. Input waits in a bounded buffer.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/split_console_priv.h"

#define VIRTIO_CONSOLE_F_SIZE        0
#define VIRTIO_CONSOLE_F_EMERG_WRITE 2
#define CON_CONFIG_SIZE              12u
#define CON_CONFIG_EMERG             8u
#define CON_QUEUE_SIZE               128u

/* ------------------------------------------------------------------ input */

static size_t vcon_input_put(struct vcon *v, const uint8_t *bytes, size_t n)
{
	size_t took = 0;

	pthread_mutex_lock(&v->lock);
	while (took < n && v->input_len < CON_INPUT)
		v->input[(v->input_head + v->input_len++) % CON_INPUT] = bytes[took++];
	pthread_mutex_unlock(&v->lock);
	return took;
}

static uint32_t vcon_input_len(struct vcon *v)
{
	uint32_t n;

	pthread_mutex_lock(&v->lock);
	n = v->input_len;
	pthread_mutex_unlock(&v->lock);
	return n;
}

/* Up to len bytes. */
static uint32_t vcon_input_take(struct vcon *v, uint8_t *to, uint32_t len)
{
	uint32_t n;

	pthread_mutex_lock(&v->lock);
	for (n = 0; n < len && v->input_len; n++, v->input_len--) {
		to[n] = v->input[v->input_head];
		v->input_head = (v->input_head + 1) % CON_INPUT;
	}
	pthread_mutex_unlock(&v->lock);
	return n;
}

static unsigned vcon_in_poll(struct vcon *v)
{
	size_t room = CON_INPUT - vcon_input_len(v);
	ssize_t n;

	if (v->in_fd < 0 || !room)
		return 0;
	if (!v->in_ready) {
		if (!v->in_armed) {
			v->in_armed = true;
			vcon_arm(v, v->in_fd, EPOLLIN);
		}
		return 0;
	}
	v->in_ready = !v->in_watched;
	counter_add(&v->common.counters.system_calls, 1);
	n = read(v->in_fd, v->bounce, room < CON_BOUNCE ? room : CON_BOUNCE);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		close(v->in_fd); /* the end of input is not the end of the device */
		v->in_fd = -1;
		return 0;
	}
	vcon_input_put(v, v->bounce, (size_t)n);
	return (unsigned)n;
}

static void vcon_rx_chain(struct vcon *v, struct split_queue *q, const struct ring_chain *chain)
{
	struct ring_used used = {.id = chain->id};

	if (chain->nout || !chain->nin)
		counter_add(&v->common.counters.malformed, 1);
	for (uint32_t i = 0; !chain->nout && i < chain->nin; i++) {
		const struct ring_seg *s = &chain->segs[i];
		uint32_t n = vcon_input_take(
			v, s->base, s->len < CON_INPUT ? (uint32_t)s->len : CON_INPUT);

		if (v->common.dirty_log)
			ring_mem_dirty(v->common.mem, s->base, n);
		used.len += n;
		if (n < s->len)
			break;
	}
	counter_add(&v->common.counters.requests, 1);
	counter_add(&v->common.counters.bytes, used.len);
	split_queue_push(q, &used, 1);
}

static unsigned vcon_rx_poll(struct vcon *v)
{
	struct split_queue *q = &v->common.queues[RXQ];
	unsigned n = 0;

	/* one at a time: a buffer is taken only when there is something to put into it */
	while (n < CON_BATCH && split_queue_live(q) && vcon_input_len(v) &&
		ring_device_has_work(&q->ring)) {
		if (!split_popped(
			    &v->common, ring_device_pop(&q->ring, v->chains, 1, v->segs, CON_SEGS)))
			break;
		vcon_rx_chain(v, q, &v->chains[0]);
		n++;
	}
	return n;
}

/* ------------------------------------------------------------------ the poller */

static unsigned vcon_poll(struct split_device *d)
{
	struct vcon *v = (struct vcon *)d;
	unsigned n;

	if (v->epoll_fd >= 0)
		vcon_look(v);
	n = vcon_emerg_poll(v);
	n += vcon_tx_poll(v);
	n += vcon_in_poll(v);
	return n + vcon_rx_poll(v);
}

static bool vcon_sleep(struct split_device *d)
{
	struct vcon *v = (struct vcon *)d;

	d->queues[TXQ].passive = v->out_blocked;
	d->queues[RXQ].passive = !vcon_input_len(v);
	return false;
}

static void vcon_work(struct io_work *work)
{
	struct vcon *v = (struct vcon *)((char *)work - offsetof(struct vcon, work));

	if (atomic_exchange(&v->resumed, false))
		v->out_blocked = false;
	if (atomic_exchange(&v->resized, false))
		v->common.signal.config(v->common.signal.ctx);
	/* input and emergency output are seen by the poll that follows */
}

static void vcon_batch_end(struct split_device *d)
{
	(void)d;
}

static uint32_t vcon_inflight(struct split_device *d)
{
	(void)d;
	return 0;
}

/* What a guest wrote before its end is to be seen, if there is room for it. */
static void vcon_queue_stop(struct split_device *d, unsigned index)
{
	if (index == TXQ)
		vcon_tx_poll((struct vcon *)d);
}

/* ------------------------------------------------------------------ from other threads */

size_t split_console_input(struct split_device *d, const uint8_t *bytes, size_t n)
{
	struct vcon *v = (struct vcon *)d;
	size_t took = vcon_input_put(v, bytes, n);

	if (took)
		io_thread_post(d->io, &v->work);
	return took;
}

void split_console_resume(struct split_device *d)
{
	struct vcon *v = (struct vcon *)d;

	atomic_store(&v->resumed, true);
	io_thread_post(d->io, &v->work);
}

void split_console_size_set(struct split_device *d, uint16_t cols, uint16_t rows)
{
	struct vcon *v = (struct vcon *)d;
	uint32_t size = cols | (uint32_t)rows << 16;

	if (atomic_exchange(&v->size, size) == size)
		return;
	atomic_store(&v->resized, true);
	io_thread_post(d->io, &v->work);
}

/* ------------------------------------------------------------------ configuration */

/* 5.3.4: struct virtio_console_config */
static void vcon_config_read(struct split_device *d, uint32_t offset, void *to, uint32_t len)
{
	struct vcon *v = (struct vcon *)d;
	uint32_t size = atomic_load(&v->size);
	uint16_t cols = htole16((uint16_t)size), rows = htole16((uint16_t)(size >> 16));
	uint8_t c[CON_CONFIG_SIZE] = {[4] = 1}; /* max_nr_ports */

	memcpy(c, &cols, sizeof(cols));
	memcpy(c + 2, &rows, sizeof(rows));
	memset(to, 0, len);
	if (offset < CON_CONFIG_SIZE)
		memcpy(to, c + offset,
			len < CON_CONFIG_SIZE - offset ? len : CON_CONFIG_SIZE - offset);
}

/* A byte for the console from a driver that can do no better; it may come before features are
 * negotiated (5.3.6.1). */
static void vcon_config_write(
	struct split_device *d, uint32_t offset, const void *from, uint32_t len)
{
	struct vcon *v = (struct vcon *)d;
	bool full;

	if (offset > CON_CONFIG_EMERG || CON_CONFIG_EMERG - offset >= len)
		return;
	pthread_mutex_lock(&v->lock);
	full = v->emerg_len == CON_EMERG;
	if (!full)
		v->emerg[v->emerg_len++] = ((const uint8_t *)from)[CON_CONFIG_EMERG - offset];
	pthread_mutex_unlock(&v->lock);
	if (!full)
		io_thread_post(d->io, &v->work);
}

/* ------------------------------------------------------------------ state */

static void vcon_reset(struct split_device *d)
{
	struct vcon *v = (struct vcon *)d;

	v->tx_done = 0;
	pthread_mutex_lock(&v->lock);
	v->input_head = v->input_len = 0;
	v->emerg_len = 0;
	pthread_mutex_unlock(&v->lock);
}

static void vcon_save(struct split_device *d, struct state_writer *w)
{
	struct vcon *v = (struct vcon *)d;

	state_section_begin(w, "virtio-console", 1);
	state_put_u32(w, v->tx_done);
	state_put_u32(w, atomic_load(&v->size));
	pthread_mutex_lock(&v->lock);
	state_put_u32(w, v->input_len);
	for (uint32_t i = 0; i < v->input_len; i++)
		state_put_u8(w, v->input[(v->input_head + i) % CON_INPUT]);
	state_put_u32(w, v->emerg_len);
	state_put_bytes(w, v->emerg, v->emerg_len);
	pthread_mutex_unlock(&v->lock);
	state_section_end(w);
}

static void vcon_load(struct split_device *d, struct state_reader *r)
{
	struct vcon *v = (struct vcon *)d;
	uint32_t tx_done, size, input_len, emerg_len;
	uint8_t input[CON_INPUT], emerg[CON_EMERG];

	state_section_enter(r, "virtio-console", 1);
	tx_done = state_get_u32(r);
	size = state_get_u32(r);
	input_len = state_get_u32(r);
	if (input_len > CON_INPUT && !r->error)
		r->error = -EINVAL;
	state_get_bytes(r, input, r->error ? 0 : input_len);
	emerg_len = state_get_u32(r);
	if (emerg_len > CON_EMERG && !r->error)
		r->error = -EINVAL;
	state_get_bytes(r, emerg, r->error ? 0 : emerg_len);
	state_section_leave(r);
	if (r->error)
		return;
	v->tx_done = tx_done;
	pthread_mutex_lock(&v->lock);
	memcpy(v->input, input, input_len);
	memcpy(v->emerg, emerg, emerg_len);
	v->input_head = 0;
	v->input_len = input_len;
	v->emerg_len = emerg_len;
	pthread_mutex_unlock(&v->lock);
	/* the terminal here is another one than the guest has seen */
	if (size != atomic_load(&v->size))
		d->signal.config(d->signal.ctx);
}

/* ------------------------------------------------------------------ life */

static void vcon_free(struct vcon *v)
{
	if (v->epoll_fd >= 0)
		close(v->epoll_fd);
	if (v->in_fd >= 0)
		close(v->in_fd);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static void vcon_destroy(struct split_device *d)
{
	struct vcon *v = (struct vcon *)d;

	if (v->epoll_fd >= 0)
		io_watch_remove(d->io, &v->watch);
	split_fini(d);
	vcon_free(v);
}

static const struct split_ops vcon_ops = {
	.name = "virtio-console",
	.virtio_id = VIRTIO_ID_CONSOLE,
	.config_size = CON_CONFIG_SIZE,
	.config_read = vcon_config_read,
	.config_write = vcon_config_write,
	.queue_stop = vcon_queue_stop,
	.inflight = vcon_inflight,
	.reset = vcon_reset,
	.poll = vcon_poll,
	.sleep = vcon_sleep,
	.batch_end = vcon_batch_end,
	.save = vcon_save,
	.load = vcon_load,
	.destroy = vcon_destroy,
};

static enum con_out vcon_out_kind(const struct split_console_options *o)
{
	struct stat st;

	if (o->output)
		return CON_HOOK;
	if (o->out_fd < 0 || fstat(o->out_fd, &st) < 0)
		return CON_NOWHERE;
	if (S_ISSOCK(st.st_mode))
		return CON_SOCKET;
	if (S_ISREG(st.st_mode) || fcntl(o->out_fd, F_GETFL) & O_NONBLOCK)
		return CON_WRITE;
	return CON_SLOW;
}

/* 0 when the descriptor can be waited for, 1 when it is of a kind that is always ready. */
static int vcon_watch(struct vcon *v, int fd)
{
	struct epoll_event ev = {.events = EPOLLONESHOT};

	if (!epoll_ctl(v->epoll_fd, EPOLL_CTL_ADD, fd, &ev))
		return 0;
	return errno == EPERM ? 1 : -errno;
}

static int vcon_open(struct vcon *v)
{
	bool out = v->out > CON_HOOK;
	int rc = 0;

	if (!out && v->o.in_fd < 0)
		return 0;
	v->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (v->epoll_fd < 0)
		return -errno;
	if (out) {
		rc = vcon_watch(v, v->o.out_fd);
		if (rc < 0)
			return rc;
		v->out_watched = !rc;
	}
	if (v->o.in_fd < 0)
		return 0;
	/* a duplicate: it may be the descriptor that output goes to */
	v->in_fd = fcntl(v->o.in_fd, F_DUPFD_CLOEXEC, 3);
	if (v->in_fd < 0)
		return -errno;
	rc = vcon_watch(v, v->in_fd);
	if (rc < 0)
		return rc;
	v->in_watched = !rc;
	v->in_ready = rc;
	return 0;
}

struct vcon_start {
	struct vcon *v;
	int err;
};

static void vcon_start_io(void *ctx)
{
	struct vcon_start *s = ctx;

	s->v->watch = (struct io_watch){.fd = s->v->epoll_fd, .ready = vcon_watch_ready};
	s->err = io_watch_add(s->v->common.io, &s->v->watch);
}

int split_console_create(struct split_device **out, struct io_thread *io,
	const struct ring_mem *mem, const struct split_signal *signal,
	const struct split_console_options *opts, char why[BACKEND_WHY_MAX])
{
	struct vcon_start start = {.err = 0};
	struct vcon *v = calloc(1, sizeof(*v));
	int err;

	if (!v) {
		backend_why(why, "virtio-console: no memory");
		return -ENOMEM;
	}
	pthread_mutex_init(&v->lock, NULL);
	v->epoll_fd = v->in_fd = -1;
	v->o = *opts;
	v->out = vcon_out_kind(opts);
	v->common.ops = &vcon_ops;
	v->common.io = io;
	v->common.mem = mem;
	v->common.signal = *signal;
	v->common.nqueues = QUEUES;
	v->common.chain_max = CON_CHAIN_MAX;
	v->common.features =
		VIRTIO_BIT(VIRTIO_CONSOLE_F_SIZE) | VIRTIO_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
	v->work.run = vcon_work;
	atomic_init(&v->size, opts->cols | (uint32_t)opts->rows << 16);
	err = split_ring_options_apply(&v->common, &opts->ring, CON_QUEUE_SIZE, why);
	if (!err)
		err = split_init(&v->common, why);
	if (err)
		goto free_device;
	err = vcon_open(v);
	if (!err && v->epoll_fd >= 0) {
		start.v = v;
		io_thread_call(io, vcon_start_io, &start);
		err = start.err;
	}
	if (err) {
		backend_why(
			why, "virtio-console: cannot watch its descriptors: %s", strerror(-err));
		goto fini;
	}
	split_attach(&v->common);
	*out = &v->common;
	return 0;

fini:
	split_fini(&v->common);
free_device:
	vcon_free(v);
	return err;
}
