/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-vsock: how the host's programs and the guest's find each other. A program on the host
 * connects to the device's socket, writes "CONNECT <port>\n", and reads "OK <its port>\n" when the
 * guest has accepted. The guest's connections to (2, port) go to the socket of that path with
 * _<port> behind it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/split_vsock_priv.h"

#define ACCEPT_BATCH   16u
#define LINE_MAX_BYTES 32u
#define GREETING       "CONNECT "
#define HANDSHAKE_NS   10000000000ull
#define LOCAL_PORT_MIN (1u << 30)
#define LOCAL_PORT_MAX (1u << 31)
#define RETRY_NS       100000000ull

/* ------------------------------------------------------------------ the listening socket */

int vsock_listen(struct vsock *v, char why[BACKEND_WHY_MAX])
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
	int err;

	err = unix_socket_listen(&v->listener, "socket=", v->path, false, why);
	if (!err && epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->listener.fd, &ev) < 0) {
		err = -errno;
		backend_why(why, "socket=%.150s: epoll: %s", v->path, strerror(-err));
		vsock_listen_close(v);
	}
	return err == -EADDRINUSE ? -EEXIST : err;
}

void vsock_listen_close(struct vsock *v)
{
	unix_socket_close(&v->listener);
}

void vsock_listener_enable(struct vsock *v, bool on)
{
	struct epoll_event ev = {.events = on ? EPOLLIN : 0, .data.u64 = UINT64_MAX};

	v->listener_off = !on;
	epoll_ctl(v->epoll, EPOLL_CTL_MOD, v->listener.fd, &ev);
	if (!on && !v->tick.at_ns)
		io_timer_set(v->common.io, &v->tick, clock_now_ns() + RETRY_NS);
}

unsigned vsock_accept(struct vsock *v)
{
	unsigned n = 0;

	for (; n < ACCEPT_BATCH; n++) {
		int fd = accept4(v->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct vsock_conn *c;

		counter_add(&v->common.counters.system_calls, 1);
		if (fd < 0) {
			/* out of descriptors: the backlog stays readable, so look away a while */
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
				errno == ENOMEM)
				vsock_listener_enable(v, false);
			break;
		}
		c = vsock_conn_new(v, fd);
		if (!c) {
			counter_add(&v->common.counters.dropped, 1);
			close(fd); /* full: the program reads the end at once */
			continue;
		}
		c->state = VSOCK_HANDSHAKE;
		vsock_deadline_set(v, c, HANDSHAKE_NS);
	}
	return n;
}

/* ------------------------------------------------------------------ CONNECT and OK */

/* "CONNECT 1234": the port, or VSOCK_PORT_ANY. */
static uint32_t line_port(const char *line)
{
	const char *p = line + sizeof(GREETING) - 1;
	uint64_t port = 0;

	if (strncmp(line, GREETING, sizeof(GREETING) - 1) != 0 || !*p)
		return VSOCK_PORT_ANY;
	for (; *p; p++) {
		if (*p < '0' || *p > '9')
			return VSOCK_PORT_ANY;
		port = port * 10 + (uint64_t)(*p - '0');
		if (port >= VSOCK_PORT_ANY)
			return VSOCK_PORT_ANY;
	}
	return (uint32_t)port;
}

/* There are more ports than connections: one is free. */
static uint32_t port_alloc(struct vsock *v, uint32_t guest_port)
{
	uint32_t port;

	do {
		port = v->next_port;
		v->next_port = port + 1 < LOCAL_PORT_MAX ? port + 1 : LOCAL_PORT_MIN;
	} while (vsock_conn_find(v, guest_port, port));
	return port;
}

void vsock_handshake(struct vsock *v, struct vsock_conn *c, bool last)
{
	char line[LINE_MAX_BYTES + 1], *end;
	ssize_t n = recv(c->fd, line, LINE_MAX_BYTES, MSG_PEEK | MSG_DONTWAIT);

	counter_add(&v->common.counters.system_calls, 1);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		goto bad;
	line[n] = '\0';
	end = memchr(line, '\n', (size_t)n);
	if (!end) {
		if (n == LINE_MAX_BYTES || last)
			goto bad;
		return;
	}
	*end = '\0';
	c->guest_port = line_port(line);
	if (strlen(line) != (size_t)(end - line) || c->guest_port == VSOCK_PORT_ANY)
		goto bad;
	/* the line alone: what follows is for the guest */
	if (recv(c->fd, line, (size_t)(end - line) + 1, MSG_DONTWAIT) != end - line + 1)
		goto bad;
	c->host_port = port_alloc(v, c->guest_port);
	c->state = VSOCK_ASKED;
	c->readable = true;
	c->pending = VSOCK_P_REQUEST;
	vsock_conn_hash(v, c);
	vsock_deadline_set(v, c, HANDSHAKE_NS);
	vsock_conn_queue(v, c);
	return;
bad:
	counter_add(&v->common.counters.dropped, 1);
	vsock_conn_free(v, c);
}

void vsock_handshake_done(struct vsock *v, struct vsock_conn *c)
{
	char line[LINE_MAX_BYTES];
	int n = snprintf(line, sizeof(line), "OK %u\n", c->host_port);

	c->state = VSOCK_OPEN;
	vsock_deadline_set(v, c, 0);
	counter_add(&v->common.counters.system_calls, 1);
	/* the first bytes on this socket: there is room, unless the program has gone, which the
	 * first read will say */
	if (send(c->fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
		counter_add(&v->common.counters.dropped, 1);
	c->readable = true;
	vsock_conn_queue(v, c);
}

struct vsock_conn *vsock_connect(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct vsock_conn *c;
	int fd;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.*s_%u", (int)VSOCK_PATH_MAX, v->path,
		host_port);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	counter_add(&v->common.counters.system_calls, 2);
	if (fd < 0)
		return NULL;
	/* a full backlog counts as nobody there */
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		goto fail;
	c = vsock_conn_new(v, fd);
	if (!c)
		goto fail;
	c->guest_port = guest_port;
	c->host_port = host_port;
	c->state = VSOCK_OPEN;
	c->pending = VSOCK_P_RESPONSE;
	vsock_conn_hash(v, c);
	return c;
fail:
	close(fd);
	return NULL;
}
