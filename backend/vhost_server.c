/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost-user back-end: sockets, and the life of connections. Each possible connection has a
 * thread, which waits for a front-end, serves it, cleans up, and waits for the next.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/unix_socket_priv.h"
#include "backend/vhost_server_priv.h"

#define CONNECT_EVERY_MS 200
#define CONNECTIONS_MAX  256u

struct vhost_server {
	struct vhost_server_options opts;
	char *path;
	struct unix_socket socket; /* at the path, where it listens */
	int fd;                    /* listening; or the one connection there is; -1 */
	int stop_fd;
	bool called; /* with VHOST_CONNECT: its one thread's */
	_Atomic uint64_t connections, connected, messages, refused, resubmitted;
	unsigned nconns;
	struct vhost_conn *conns;
};

void vhost_note(struct vhost_conn *c, const char *fmt, ...)
{
	const struct vhost_server_options *o = &c->server->opts;
	char line[2 * BACKEND_WHY_MAX];
	va_list ap;

	if (!o->note)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	o->note(o->ctx, c->index, line);
}

/* ------------------------------------------------------------------ sockets */

static int address(struct sockaddr_un *sa, const char *path, char *why)
{
	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(sa->sun_path)) {
		backend_why(why, "%.120s...: too long for a socket; use at most %zu bytes", path,
			sizeof(sa->sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memcpy(sa->sun_path, path, strlen(path) + 1);
	return 0;
}

static int connect_try(const struct sockaddr_un *sa)
{
	/* one that listens and does not accept is not waited for here */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) && !fcntl(fd, F_SETFL, 0))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int given_check(struct vhost_server *s, char *why)
{
	int listening = 0;
	socklen_t len = sizeof(listening);

	if (getsockopt(s->opts.fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 ||
		!listening != (s->opts.mode == VHOST_CONNECT)) {
		backend_why(why, "fd %d: not a %s socket", s->opts.fd,
			s->opts.mode == VHOST_CONNECT ? "connected" : "listening");
		return -EINVAL;
	}
	s->fd = s->opts.fd;
	return 0;
}

/* False: the server is to end. */
static bool wait_readable(struct vhost_server *s, int fd, int timeout_ms)
{
	struct pollfd p[2] = {{.fd = s->stop_fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};

	while (poll(p, 2, timeout_ms) < 0 && errno == EINTR)
		;
	return !p[0].revents;
}

/* The next front-end; -1: the server is to end. */
static int next_socket(struct vhost_server *s)
{
	struct sockaddr_un sa;
	int fd;

	if (s->opts.mode == VHOST_LISTEN) {
		while (wait_readable(s, s->fd, -1)) {
			fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
			if (fd >= 0)
				return fd;
			/* another thread's, or nothing to be had at present */
			if (errno != EAGAIN && !wait_readable(s, -1, CONNECT_EVERY_MS))
				break;
		}
		return -1;
	}
	if (s->opts.fd >= 0) {
		fd = s->fd;
		s->fd = -1;
		if (fd < 0)
			wait_readable(s, -1, -1);
		return fd;
	}
	if (address(&sa, s->path, NULL))
		return -1;
	/* not at once after the last: a front-end may hang up as soon as it is called */
	while (wait_readable(s, -1, s->called ? CONNECT_EVERY_MS : 0)) {
		s->called = true;
		fd = connect_try(&sa);
		if (fd >= 0)
			return fd;
	}
	return -1;
}

/* ------------------------------------------------------------------ a connection */

static void device_set(struct vhost_conn *c, struct split_device *dev, int socket)
{
	pthread_mutex_lock(&c->lock);
	c->dev = dev;
	c->socket = socket;
	pthread_mutex_unlock(&c->lock);
}

static void messages(struct vhost_conn *c)
{
	struct vhost_server *s = c->server;
	int err = 0;

	while (!err && wait_readable(s, c->socket, -1)) {
		err = vhost_user_receive(c->socket, &c->rx);
		if (err == -EPROTO)
			backend_why(c->why, "no message of the protocol");
		if (err)
			break;
		atomic_fetch_add(&s->messages, 1);
		err = vhost_message(c, &c->rx.m);
	}
	if (atomic_load(&c->faulted)) {
		atomic_fetch_add(&s->refused, 1);
		vhost_note(c, "front-end took its memory away: connection closed");
	} else if (err && err != -ECONNRESET && err != -EPIPE) {
		atomic_fetch_add(&s->refused, 1);
		vhost_note(c, "connection closed: %s", c->why);
	} else {
		vhost_note(c, "front-end gone");
	}
}

static int device_make(struct vhost_conn *c)
{
	struct vhost_server *s = c->server;
	struct split_signal signal = vhost_signal;
	struct split_device *dev = NULL;
	int err;

	signal.ctx = c;
	err = s->opts.create(s->opts.ctx, c->index, &dev, &c->mem, &signal, c->why);
	if (err) {
		vhost_note(c, "connection closed: %s", c->why);
		return err;
	}
	device_set(c, dev, c->socket);
	return 0;
}

static void resubmitted_count(struct vhost_conn *c)
{
	atomic_fetch_add(&c->server->resubmitted, counter_get(&c->dev->resubmitted));
}

static void device_end(struct vhost_conn *c)
{
	struct split_device *dev = c->dev;

	vhost_queues_pause(c);
	resubmitted_count(c);
	vhost_backend_fd_set(c, -1);
	device_set(c, NULL, c->socket);
	split_destroy(dev);
	vhost_queues_close(c);
	if (c->server->opts.destroyed)
		c->server->opts.destroyed(c->server->opts.ctx, c->index);
}

/* What a connection begins with; thread, lock and socket stay. */
static void conn_clear(struct vhost_conn *c)
{
	vhost_memory_clear(c);
	vhost_unmap(&c->log);
	vhost_unmap(&c->inflight);
	c->log_bytes = c->inflight_bytes = 0;
	c->inflight_queues = 0;
	c->features = c->protocol = c->status = 0;
	c->featured = c->legacy_noted = false;
	c->backend_fd = -1;
	c->why[0] = '\0';
	atomic_store(&c->broken, false);
	atomic_store(&c->faulted, false);
	vhost_queues_init(c);
	memset(&c->rx, 0, sizeof(c->rx));
}

static void serve(struct vhost_conn *c, int socket)
{
	struct vhost_server *s = c->server;

	conn_clear(c);
	device_set(c, NULL, socket);
	atomic_fetch_add(&s->connections, 1);
	atomic_fetch_add(&s->connected, 1);
	vhost_note(c, "front-end connected");
	if (!device_make(c)) {
		messages(c);
		device_end(c);
	}
	conn_clear(c);
	device_set(c, NULL, -1);
	close(socket);
	atomic_fetch_sub(&s->connected, 1);
}

static void *conn_main(void *arg)
{
	struct vhost_conn *c = arg;
	int fd;

	while ((fd = next_socket(c->server)) >= 0)
		serve(c, fd);
	return NULL;
}

/* ------------------------------------------------------------------ life */

static void stop_all(struct vhost_server *s)
{
	uint64_t one = 1;

	/* never read: every poll from now on returns */
	while (write(s->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	for (unsigned i = 0; i < s->nconns; i++) {
		struct vhost_conn *c = &s->conns[i];

		/* a thread in the middle of a message */
		pthread_mutex_lock(&c->lock);
		if (c->socket >= 0)
			shutdown(c->socket, SHUT_RDWR);
		pthread_mutex_unlock(&c->lock);
	}
}

static void server_free(struct vhost_server *s)
{
	unix_socket_close(&s->socket);
	if (!s->path && s->fd >= 0)
		close(s->fd);
	if (s->stop_fd >= 0)
		close(s->stop_fd);
	free(s->conns);
	free(s->path);
	free(s);
}

void vhost_server_destroy(struct vhost_server *s)
{
	if (!s)
		return;
	stop_all(s);
	for (unsigned i = 0; i < s->nconns; i++) {
		pthread_join(s->conns[i].thread, NULL);
		pthread_mutex_destroy(&s->conns[i].lock);
	}
	server_free(s);
}

static int conn_start(struct vhost_server *s, unsigned i)
{
	struct vhost_conn *c = &s->conns[i];
	sigset_t all, old;
	char name[16];
	int err;

	c->server = s;
	c->index = i;
	c->socket = c->backend_fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a fault is the thread's own, see mem_guard.c */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(&c->thread, NULL, conn_main, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err) {
		pthread_mutex_destroy(&c->lock);
		return err;
	}
	snprintf(name, sizeof(name), "vhost%u", i);
	pthread_setname_np(c->thread, name);
	return 0;
}

static int server_open(struct vhost_server *s, char *why)
{
	int err = -ENOMEM;

	s->path = s->opts.path ? strdup(s->opts.path) : NULL;
	s->conns = calloc(s->opts.connections, sizeof(*s->conns));
	if (!s->conns || (s->opts.path && !s->path)) {
		backend_why(why, "vhost-user: no memory");
		return err;
	}
	s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->stop_fd < 0) {
		err = -errno;
		backend_why(why, "vhost-user: %s", strerror(-err));
		return err;
	}
	if (!s->path)
		return given_check(s, why);
	if (s->opts.mode != VHOST_LISTEN)
		return address(&(struct sockaddr_un){0}, s->path, why);
	err = unix_socket_listen(&s->socket, "socket=", s->path, true, why);
	s->fd = s->socket.fd;
	return err;
}

int vhost_server_create(struct vhost_server **out, const struct vhost_server_options *opts,
	char why[BACKEND_WHY_MAX])
{
	struct vhost_server *s = calloc(1, sizeof(*s));
	int err;

	if (!s) {
		backend_why(why, "vhost-user: no memory");
		return -ENOMEM;
	}
	s->opts = *opts;
	s->fd = s->stop_fd = s->socket.fd = -1;
	if (!s->opts.connections || opts->mode == VHOST_CONNECT)
		s->opts.connections = 1;
	if (s->opts.connections > CONNECTIONS_MAX)
		s->opts.connections = CONNECTIONS_MAX;
	err = server_open(s, why);
	if (err) {
		if (!opts->path)
			s->fd = -1; /* the caller's */
		server_free(s);
		return err;
	}
	while (s->nconns < s->opts.connections) {
		err = conn_start(s, s->nconns);
		if (err) {
			backend_why(why, "vhost-user: no thread: %s", strerror(-err));
			vhost_server_destroy(s);
			return err;
		}
		s->nconns++;
	}
	*out = s;
	return 0;
}

void vhost_server_counters_get(struct vhost_server *s, struct vhost_server_counters *out)
{
	*out = (struct vhost_server_counters){
		.connections = atomic_load(&s->connections),
		.connected = atomic_load(&s->connected),
		.messages = atomic_load(&s->messages),
		.refused = atomic_load(&s->refused),
		.resubmitted = atomic_load(&s->resubmitted),
	};
	for (unsigned i = 0; i < s->nconns; i++) {
		struct vhost_conn *c = &s->conns[i];

		pthread_mutex_lock(&c->lock);
		if (c->dev)
			out->resubmitted += counter_get(&c->dev->resubmitted);
		pthread_mutex_unlock(&c->lock);
	}
}

bool vhost_server_device(struct vhost_server *s, unsigned connection,
	void (*fn)(void *ctx, struct split_device *d), void *ctx)
{
	struct vhost_conn *c;
	bool there;

	if (connection >= s->nconns)
		return false;
	c = &s->conns[connection];
	pthread_mutex_lock(&c->lock);
	there = c->dev != NULL;
	if (there)
		fn(ctx, c->dev);
	pthread_mutex_unlock(&c->lock);
	return there;
}
