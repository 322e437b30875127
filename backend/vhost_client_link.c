/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost-user front-end's socket: connecting or being connected to, again and again; sending and
 * receiving without ever waiting.
 */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/vhost_client_priv.h"

#define RETRY_FIRST_MS   10u
#define RECONNECT_MS     500u
#define SEND_RETRY_MS    5u
#define PATIENCE_MS      10000u /* for an answer */
#define PATIENCE_STOP_MS 30000u /* for one that must wait for storage */

#define LINK_OF(p, member)                                                                         \
	((struct vhost_client *)((char *)(p)-offsetof(struct vhost_client, member)))

/* ------------------------------------------------------------------ telling */

void vhost_note_line(struct vhost_client *c, const char *fmt, ...)
{
	char line[sizeof(c->noted)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* a back-end that is refused over and over is told of once */
	if (!strcmp(line, c->noted))
		return;
	memcpy(c->noted, line, sizeof(line));
	if (c->opts.note)
		c->opts.note(c->opts.ctx, line);
}

void vhost_created(struct vhost_client *c, int err, const char *why)
{
	if (c->created || c->failed)
		return;
	c->created = !err;
	c->failed = err != 0;
	c->create_err = err;
	snprintf(c->create_why, sizeof(c->create_why), "%s", why);
	if (c->create_sem)
		sem_post(c->create_sem);
	c->create_sem = NULL;
}

/* ------------------------------------------------------------------ sending */

void vhost_link_soon(struct vhost_client *c, uint32_t ms)
{
	io_timer_set(c->common.io, &c->retry, clock_now_ns() + ms * 1000000ull);
}

/* 0: all of it; -EAGAIN: later; else the connection is over. */
static int link_send(struct vhost_client *c)
{
	struct vhost_user_message *m = &c->out;
	size_t total = sizeof(m->h) + m->h.size;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * VHOST_USER_FDS_MAX)];
	} control = {0};

	while (c->out_sent < total) {
		size_t in = c->out_sent < sizeof(m->h) ? 0 : c->out_sent - sizeof(m->h);
		size_t head = c->out_sent < sizeof(m->h) ? sizeof(m->h) - c->out_sent : 0;
		struct iovec iov[2] = {
			{(uint8_t *)&m->h + sizeof(m->h) - head, head},
			{(uint8_t *)&m->p + in, m->h.size - in},
		};
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
		ssize_t n;

		if (m->nfds) {
			struct cmsghdr *cm = &control.align;

			cm->cmsg_level = SOL_SOCKET;
			cm->cmsg_type = SCM_RIGHTS;
			cm->cmsg_len = CMSG_LEN(sizeof(int) * m->nfds);
			memcpy(CMSG_DATA(cm), m->fds, sizeof(int) * m->nfds);
			msg.msg_control = &control;
			msg.msg_controllen = CMSG_SPACE(sizeof(int) * m->nfds);
		}
		n = sendmsg(c->socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		/* descriptors go with the first byte */
		m->nfds = 0;
		c->out_sent += (size_t)n;
	}
	return 0;
}

static void patience_begin(struct vhost_client *c)
{
	uint32_t ms = c->s.awaited == VHOST_USER_GET_VRING_BASE ? PATIENCE_STOP_MS : PATIENCE_MS;

	io_timer_set(c->common.io, &c->patience,
		c->s.awaited || c->out_pending ? clock_now_ns() + ms * 1000000ull : 0);
}

/* False: not now, or never. */
static bool link_flush(struct vhost_client *c)
{
	int err = link_send(c);

	c->out_pending = err != 0;
	if (!err)
		return true;
	if (err == -EAGAIN || err == -EWOULDBLOCK)
		vhost_link_soon(c, SEND_RETRY_MS);
	else
		vhost_link_lost(c, -ECONNRESET, "%s", strerror(-err));
	return false;
}

void vhost_link_advance(struct vhost_client *c)
{
	while (c->socket >= 0 && (c->out_pending || !c->s.awaited)) {
		if (!c->out_pending) {
			c->out.h = (struct vhost_user_header){.flags = VHOST_USER_VERSION};
			c->out.nfds = 0;
			c->out_sent = 0;
			if (!vhost_talk_next(c, &c->out))
				break;
			patience_begin(c);
		}
		if (!link_flush(c))
			return;
	}
	if (c->socket >= 0 && !c->s.awaited && !c->out_pending)
		io_timer_set(c->common.io, &c->patience, 0);
}

/* ------------------------------------------------------------------ receiving */

static void link_ready(struct io_watch *w)
{
	struct vhost_client *c = LINK_OF(w, watch);
	int err;

	while (c->socket >= 0) {
		err = vhost_user_receive(c->socket, &c->rx);
		if (err == -EAGAIN)
			break;
		if (err == -ECONNRESET || err == -EPIPE) {
			vhost_link_lost(c, -ECONNRESET, "the back-end has gone");
			return;
		}
		if (err) {
			vhost_link_lost(c, -EPROTO, "it does not speak vhost-user");
			return;
		}
		err = vhost_talk_reply(c, &c->rx.m);
		vhost_user_message_close(&c->rx.m);
		if (err)
			return;
	}
	vhost_link_advance(c);
}

/* The back-end's own requests: only one kind is expected. */
static void channel_ready(struct io_watch *w)
{
	struct vhost_client *c = LINK_OF(w, channel_watch);

	while (c->channel >= 0) {
		struct vhost_user_message *m = &c->channel_rx.m;
		int err = vhost_user_receive(c->channel, &c->channel_rx);

		if (err == -EAGAIN)
			break;
		vhost_user_message_close(m);
		if (err == -ECONNRESET) {
			io_watch_remove(c->common.io, &c->channel_watch);
			close(c->channel);
			c->channel = -1;
			break;
		}
		if (err) {
			vhost_link_lost(c, -EPROTO, "its own requests are malformed");
			return;
		}
		c->s.config_stale |= m->h.request == VHOST_USER_BACKEND_CONFIG_CHANGE_MSG;
		if (m->h.flags & VHOST_USER_NEED_REPLY) {
			const struct {
				struct vhost_user_header h;
				uint64_t u64;
			} __attribute__((packed))
			ack = {{m->h.request, VHOST_USER_VERSION | VHOST_USER_REPLY,
				       sizeof(uint64_t)},
				m->h.request != VHOST_USER_BACKEND_CONFIG_CHANGE_MSG};

			/* one that does not read its answers does not get them */
			(void)!send(c->channel, &ack, sizeof(ack), MSG_DONTWAIT | MSG_NOSIGNAL);
		}
	}
	vhost_link_advance(c);
}

int vhost_channel_open(struct vhost_client *c)
{
	int pair[2];

	/* only this end never waits: the back-end's is as it would expect one to be */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	c->channel = pair[0];
	c->channel_peer = pair[1];
	memset(&c->channel_rx, 0, sizeof(c->channel_rx));
	c->channel_watch = (struct io_watch){.fd = c->channel, .ready = channel_ready};
	if (!io_watch_add(c->common.io, &c->channel_watch))
		return 0;
	close(pair[0]);
	close(pair[1]);
	c->channel = c->channel_peer = -1;
	return -ENOMEM;
}

/* ------------------------------------------------------------------ connecting */

static void link_connected(struct vhost_client *c, int fd)
{
	memset(&c->s, 0, sizeof(c->s));
	memset(&c->rx, 0, sizeof(c->rx));
	c->out_pending = false;
	c->socket = fd;
	c->watch = (struct io_watch){.fd = fd, .ready = link_ready};
	io_timer_set(c->common.io, &c->retry, 0);
	if (io_watch_add(c->common.io, &c->watch)) {
		close(fd);
		c->socket = -1;
		vhost_link_soon(c, RECONNECT_MS);
		return;
	}
	vhost_link_advance(c);
}

static void link_try(struct vhost_client *c)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	uint32_t most = c->opts.reconnect_ms ? c->opts.reconnect_ms : RECONNECT_MS;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(sa.sun_path, c->path, sizeof(sa.sun_path));
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		link_connected(c, fd);
		return;
	}
	if (fd >= 0)
		close(fd);
	c->retry_ms = c->retry_ms ? c->retry_ms * 2 : RETRY_FIRST_MS;
	if (c->retry_ms > most)
		c->retry_ms = most;
	vhost_link_soon(c, c->retry_ms);
}

static void listen_ready(struct io_watch *w)
{
	struct vhost_client *c = LINK_OF(w, listen_watch);
	int fd;

	/* one at a time: another waits until this one has gone */
	if (c->socket >= 0)
		return;
	fd = accept4(c->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	io_watch_remove(c->common.io, &c->listen_watch);
	link_connected(c, fd);
}

static void link_again(struct vhost_client *c)
{
	if (c->ending || c->failed || c->one_connection)
		return;
	if (c->opts.mode == VHOST_CONNECT) {
		vhost_link_soon(c, c->retry_ms ? c->retry_ms : RETRY_FIRST_MS);
		return;
	}
	c->listen_watch = (struct io_watch){.fd = c->listener.fd, .ready = listen_ready};
	if (io_watch_add(c->common.io, &c->listen_watch))
		vhost_link_soon(c, RECONNECT_MS);
}

static void retry_expired(struct io_timer *t)
{
	struct vhost_client *c = LINK_OF(t, retry);

	if (c->socket >= 0) {
		vhost_queues_drain(c);
		vhost_link_advance(c);
	} else if (!c->ending && !c->failed && !c->one_connection) {
		if (c->opts.mode == VHOST_CONNECT)
			link_try(c);
		else
			link_again(c);
	}
}

static void patience_expired(struct io_timer *t)
{
	struct vhost_client *c = LINK_OF(t, patience);

	if (c->socket >= 0)
		vhost_link_lost(c, -ETIMEDOUT, "it does not answer");
}

/* ------------------------------------------------------------------ losing */

static void link_shut(struct vhost_client *c)
{
	struct io_thread *io = c->common.io;

	io_timer_set(io, &c->retry, 0);
	io_timer_set(io, &c->patience, 0);
	if (c->channel >= 0) {
		io_watch_remove(io, &c->channel_watch);
		close(c->channel);
		vhost_user_message_close(&c->channel_rx.m);
	}
	if (c->channel_peer >= 0)
		close(c->channel_peer);
	c->channel = c->channel_peer = -1;
	if (c->socket >= 0) {
		io_watch_remove(io, &c->watch);
		close(c->socket);
		vhost_user_message_close(&c->rx.m);
	}
	c->socket = -1;
	c->out_pending = false;
	atomic_store(&c->connected, false);
}

void vhost_link_lost(struct vhost_client *c, int err, const char *fmt, ...)
{
	char why[120];
	bool greeted = vhost_talk_greeted(c);
	va_list ap;

	if (c->socket < 0)
		return;
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	link_shut(c);
	memset(&c->s, 0, sizeof(c->s));
	if (err == -EPROTO)
		counter_add(&c->breaches, 1);
	vhost_queues_lost(c);
	if (!c->created) {
		/* one that is not there yet is waited for, a wrong one is not */
		if ((err != -ECONNRESET && err != -ETIMEDOUT) || c->one_connection)
			vhost_created(c, err, why);
	} else if (c->one_connection || c->opts.no_reconnect) {
		vhost_note_line(c, "back-end lost (%s): the device is gone", why);
		c->one_connection = true;
		if (!c->common.broken)
			split_break(&c->common);
		return;
	} else if (greeted || err != -ECONNRESET) {
		vhost_note_line(c, "back-end lost (%s): waiting for another", why);
		c->lost_noted = true;
	}
	link_again(c);
}

/* ------------------------------------------------------------------ beginning and end */

int vhost_link_open(struct vhost_client *c, const char *path, char why[BACKEND_WHY_MAX])
{
	const struct split_vhost_options *o = &c->opts;

	c->socket = c->channel = c->channel_peer = c->listener.fd = -1;
	c->retry.expired = retry_expired;
	c->patience.expired = patience_expired;
	if (o->fd >= 0) {
		int flags = fcntl(o->fd, F_GETFL);

		c->one_connection = true;
		if (flags >= 0 && !fcntl(o->fd, F_SETFL, flags | O_NONBLOCK))
			return 0;
		backend_why(why, "fd %d: not an open descriptor", o->fd);
		return -EBADF;
	}
	if (strlen(path) >= sizeof(c->path)) {
		backend_why(why, "%.150s: a socket's path has at most %zu characters", path,
			sizeof(c->path) - 1);
		return -ENAMETOOLONG;
	}
	snprintf(c->path, sizeof(c->path), "%s", path);
	return o->mode == VHOST_LISTEN ? unix_socket_listen(&c->listener, "", c->path, true, why)
				       : 0;
}

void vhost_link_start(struct vhost_client *c)
{
	if (c->one_connection)
		link_connected(c, c->opts.fd);
	else if (c->opts.mode == VHOST_CONNECT)
		link_try(c);
	else
		link_again(c);
}

void vhost_link_close(struct vhost_client *c)
{
	c->ending = true;
	link_shut(c);
	if (c->listener.fd >= 0) {
		io_watch_remove(c->common.io, &c->listen_watch);
		unix_socket_close(&c->listener);
	}
}
