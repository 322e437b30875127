/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cable at a serial or parallel port (line_priv.h). Output is written on the vCPU's thread as
 * far as the other end takes it without making us wait; the rest is kept, and dropped when there is
 * too much, because a reader that has gone must not stop the guest. Input is read on the I/O
 * thread, as much as the device has room for.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/param.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/line_priv.h"

#define LINE_CHUNK    256u
#define LINE_RETRY_NS 5000000ull
#define LINE_FLUSH_MS 200

static int line_out(const struct line *l)
{
	return l->peer >= 0 ? l->peer : l->where.out;
}

static void line_call_count(struct line *l)
{
	machine_system_call_count();
	counter_add(&l->device->counters.system_calls, 1);
}

/* ------------------------------------------------------------------ output */

/* How many bytes the other end took without making us wait. */
static size_t line_put(struct line *l, const uint8_t *bytes, size_t n)
{
	struct pollfd p = {.fd = line_out(l), .events = POLLOUT};
	size_t done = 0;
	ssize_t rc;

	if (p.fd < 0)
		return n; /* nobody is there */
	while (done < n) {
		if (!l->regular || l->peer >= 0) {
			line_call_count(l);
			if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLOUT | POLLERR | POLLHUP)))
				break;
		}
		line_call_count(l);
		rc = write(p.fd, bytes + done, MIN(n - done, LINE_CHUNK));
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0 && errno == EAGAIN)
			break;
		if (rc <= 0)
			return n; /* nobody will ever read it */
		done += rc;
	}
	return done;
}

static void line_flush(struct line *l)
{
	size_t n, took;

	do {
		n = MIN(l->backlog_len, LINE_BACKLOG - l->backlog_head);
		took = n ? line_put(l, l->backlog + l->backlog_head, n) : 0;
		l->backlog_head = (l->backlog_head + took) % LINE_BACKLOG;
		l->backlog_len -= took;
	} while (took && took == n);
	if (!l->full || line_is_full(l))
		return;
	l->full = false;
	if (l->drained)
		l->drained(l);
}

static size_t line_keep(struct line *l, const uint8_t *bytes, size_t n)
{
	size_t kept = 0;

	if (!l->backlog)
		l->backlog = malloc(LINE_BACKLOG);
	for (; l->backlog && kept < n && !line_is_full(l); kept++)
		l->backlog[(l->backlog_head + l->backlog_len++) % LINE_BACKLOG] = bytes[kept];
	if (kept < n)
		counter_add(&l->device->counters.dropped, n - kept);
	l->full |= line_is_full(l);
	/* who is quiesced begins anew when he is resumed */
	if (l->backlog_len && l->io && !l->retry_armed && !l->quiesced) {
		l->retry_armed = true;
		io_thread_post(l->io, &l->retry_work);
	}
	return kept;
}

size_t line_write(struct line *l, const uint8_t *bytes, size_t n)
{
	size_t took = 0;

	counter_add(&l->device->counters.bytes, n);
	if (l->hook) {
		l->hook(l->hook_ctx, bytes, n);
		return n;
	}
	if (line_out(l) < 0)
		return n;
	line_flush(l);
	if (!l->backlog_len)
		took = line_put(l, bytes, n);
	if (took < n)
		took += line_keep(l, bytes + took, n - took);
	return took;
}

/* ------------------------------------------------------------------ input, on the I/O thread */

static void line_watch_set(struct line_watch *w, int fd, bool on)
{
	if (w->on == on || fd < 0)
		return;
	if (!on) {
		io_watch_remove(w->line->io, &w->watch);
		w->on = false;
		return;
	}
	w->watch.fd = fd;
	w->on = !io_watch_add(w->line->io, &w->watch);
}

/* Who is listened to: one connection at a time, and nobody while the device has no room. */
static void line_watches_set(struct line *l)
{
	bool on = !l->quiesced;

	line_watch_set(&l->in, l->where.in, on && !l->stalled);
	line_watch_set(&l->from_peer, l->peer, on && !l->stalled);
	line_watch_set(&l->listener, l->where.listener, on && l->peer < 0);
}

static void line_retry_expired(struct io_timer *t)
{
	struct line *l = (struct line *)((char *)t - offsetof(struct line, retry_timer));
	bool again;

	pthread_mutex_lock(&l->device->lock);
	line_flush(l);
	line_watches_set(l);
	again = l->backlog_len && l->retry_armed;
	l->retry_armed = again;
	pthread_mutex_unlock(&l->device->lock);
	if (again)
		io_timer_set(l->io, t, clock_now_ns() + LINE_RETRY_NS);
}

static void line_retry_start(struct io_work *w)
{
	struct line *l = (struct line *)((char *)w - offsetof(struct line, retry_work));

	io_timer_set(l->io, &l->retry_timer, clock_now_ns() + LINE_RETRY_NS);
}

static void line_peer_lost(struct line *l)
{
	line_watch_set(&l->from_peer, l->peer, false);
	close(l->peer);
	l->peer = -1;
	l->backlog_head = l->backlog_len = 0;
}

/* False: the end. */
static bool line_read(struct line *l, int fd)
{
	size_t room = l->room ? l->room(l) : LINE_CHUNK;
	uint8_t bytes[LINE_CHUNK];
	ssize_t n;

	if (!room) {
		l->stalled = true;
		return true;
	}
	counter_add(&l->device->counters.system_calls, 1);
	n = read(fd, bytes, MIN(room, sizeof(bytes)));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n > 0 && l->input)
		l->input(l, bytes, (size_t)n);
	return n > 0;
}

static void line_in_ready(struct io_watch *w)
{
	struct line *l = (struct line *)((char *)w - offsetof(struct line, in.watch));

	pthread_mutex_lock(&l->device->lock);
	if (!line_read(l, l->where.in)) {
		line_watch_set(&l->in, l->where.in, false);
		l->where.in = -1; /* the end of input is not the end of output */
	}
	line_watches_set(l);
	pthread_mutex_unlock(&l->device->lock);
}

static void line_peer_ready(struct io_watch *w)
{
	struct line *l = (struct line *)((char *)w - offsetof(struct line, from_peer.watch));

	pthread_mutex_lock(&l->device->lock);
	if (!line_read(l, l->peer))
		line_peer_lost(l);
	line_watches_set(l);
	pthread_mutex_unlock(&l->device->lock);
}

static void line_listener_ready(struct io_watch *w)
{
	struct line *l = (struct line *)((char *)w - offsetof(struct line, listener.watch));

	pthread_mutex_lock(&l->device->lock);
	counter_add(&l->device->counters.system_calls, 1);
	if (l->peer < 0)
		l->peer = accept4(l->where.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (l->peer >= 0) {
		line_watches_set(l);
	} else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED && !l->quiesced) {
		/* out of descriptors: who waits is still there, so look away a while */
		line_watch_set(&l->listener, l->where.listener, false);
		l->retry_armed = true;
		io_timer_set(l->io, &l->retry_timer, clock_now_ns() + LINE_RETRY_NS);
	}
	pthread_mutex_unlock(&l->device->lock);
}

static void line_input_work(struct io_work *w)
{
	struct line *l = (struct line *)((char *)w - offsetof(struct line, input_work));

	pthread_mutex_lock(&l->device->lock);
	l->stalled = false;
	line_watches_set(l);
	pthread_mutex_unlock(&l->device->lock);
}

void line_input_resume(struct line *l)
{
	if (l->stalled)
		io_thread_post(l->io, &l->input_work);
}

/* ------------------------------------------------------------------ life */

void line_open(struct line *l, struct device *d, struct io_thread *io, const struct line_config *c)
{
	struct stat st;

	l->device = d;
	l->io = io;
	l->where = *c;
	l->peer = -1;
	l->regular = c->out >= 0 && !fstat(c->out, &st) && S_ISREG(st.st_mode);
	l->retry_work.run = line_retry_start;
	l->retry_timer.expired = line_retry_expired;
	l->input_work.run = line_input_work;
	l->in = (struct line_watch){.watch.ready = line_in_ready, .line = l};
	l->from_peer = (struct line_watch){.watch.ready = line_peer_ready, .line = l};
	l->listener = (struct line_watch){.watch.ready = line_listener_ready, .line = l};
	if (io && (c->in >= 0 || c->listener >= 0))
		io_thread_post(io, &l->input_work);
}

static void line_stop(void *ctx)
{
	struct line *l = ctx;

	io_timer_set(l->io, &l->retry_timer, 0);
	pthread_mutex_lock(&l->device->lock);
	line_watches_set(l);
	pthread_mutex_unlock(&l->device->lock);
}

void line_quiesce(struct line *l)
{
	uint64_t give_up = clock_now_ns() + LINE_FLUSH_MS * 1000000ull;

	pthread_mutex_lock(&l->device->lock);
	line_flush(l);
	while (l->backlog_len && clock_now_ns() < give_up) {
		struct pollfd p = {.fd = line_out(l), .events = POLLOUT};

		poll(&p, 1, LINE_FLUSH_MS / 10);
		line_flush(l);
	}
	l->retry_armed = false;
	l->quiesced = true;
	pthread_mutex_unlock(&l->device->lock);
	if (l->io)
		io_thread_call(l->io, line_stop, l);
}

void line_resume(struct line *l)
{
	pthread_mutex_lock(&l->device->lock);
	l->quiesced = false;
	if (l->backlog_len && l->io) {
		l->retry_armed = true;
		io_thread_post(l->io, &l->retry_work);
	}
	pthread_mutex_unlock(&l->device->lock);
	if (l->io)
		io_thread_post(l->io, &l->input_work);
}

void line_close(struct line *l)
{
	if (l->peer >= 0)
		close(l->peer);
	free(l->backlog);
}
