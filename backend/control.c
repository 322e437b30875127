/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A control socket: HTTP (libmicrohttpd) and JSON (cJSON). The library has one thread, which makes
 * the answers and waits for slow clients by poll(). (With epoll it forgets a client that sends and
 * shuts down at once.) A second one watches the clock: who keeps a connection too long without a
 * whole request is cut off, however busily it dribbles, so that the few there are come free again.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/control_library_priv.h"
#include "backend/unix_socket_priv.h"

#define CONNECTIONS_MAX  16u
#define CONNECTION_BYTES 32768u /* for headers and buffers of each */
#define BODY_MAX         65536u
#define REQUEST_NS       5000000000ull /* from one answer to the next */
#define IDLE_S           10u
#define PROMETHEUS_TEXT  "text/plain; version=0.0.4; charset=utf-8"
#define ALLOW_MAX        64u

struct control_peer {
	int fd;            /* -1: free */
	uint64_t since_ns; /* connected, or answered last */
	bool cut;
};

/* Set before the first server is there, by each that comes. */
static const struct control_library *mhd;

struct control_server {
	struct unix_socket socket;
	const struct control_route *routes;
	void *ctx;
	struct MHD_Daemon *daemon;
	pthread_t watchman;
	int wake_fd; /* for the watchman: a first connection, or the end */
	atomic_bool stop;
	pthread_mutex_t lock; /* of peers */
	struct control_peer peers[CONNECTIONS_MAX];
};

/* One request while it comes in. */
struct control_pending {
	char *body;
	size_t len;
	bool too_large, no_memory;
};

/* ------------------------------------------------------------------ answers */

void control_fault(struct control_request *req, unsigned status, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	cJSON_Delete(req->json);
	free(req->text);
	req->text = NULL;
	req->status = status;
	req->json = cJSON_CreateObject();
	cJSON_AddStringToObject(req->json, "fault_message", text);
}

void control_text_add(struct control_text *t, const char *fmt, ...)
{
	va_list args, again;
	int n;

	if (t->failed)
		return;
	va_start(args, fmt);
	va_copy(again, args);
	n = vsnprintf(t->data ? t->data + t->len : NULL, t->room - t->len, fmt, args);
	va_end(args);
	if (n >= 0 && (size_t)n >= t->room - t->len) {
		size_t room = (t->len + (size_t)n + 1) * 2;
		char *data = realloc(t->data, room);

		if (!data) {
			t->failed = true;
		} else {
			t->data = data;
			t->room = room;
			n = vsnprintf(t->data + t->len, t->room - t->len, fmt, again);
		}
	}
	va_end(again);
	if (n < 0)
		t->failed = true;
	if (!t->failed)
		t->len += (size_t)n;
}

static enum MHD_Result answer_send(
	struct MHD_Connection *connection, struct control_request *req, const char *allow)
{
	char *body = req->text;
	const char *type = req->text_type ? req->text_type : PROMETHEUS_TEXT;
	struct MHD_Response *response;
	enum MHD_Result result;

	if (!body && req->json) {
		/* MHD frees with free(), and so does cJSON without hooks */
		body = cJSON_PrintUnformatted(req->json);
		type = "application/json";
		if (!body)
			req->status = MHD_HTTP_INTERNAL_SERVER_ERROR;
	}
	response = mhd->create_response_from_buffer(body ? strlen(body) : 0, body,
		body ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	if (!response) {
		free(body);
		return MHD_NO;
	}
	if (body)
		mhd->add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (allow)
		mhd->add_response_header(response, MHD_HTTP_HEADER_ALLOW, allow);
	result = mhd->queue_response(connection, req->status, response);
	mhd->destroy_response(response);
	return result;
}

/* What follows a route's path, without the slash; NULL: not this route. */
static const char *route_rest(const struct control_route *r, const char *path)
{
	size_t n = strlen(r->path);

	if (strncmp(path, r->path, n))
		return NULL;
	if (!path[n])
		return path + n;
	return path[n] == '/' ? path + n + 1 : NULL;
}

static const struct control_route *route_find(const struct control_server *s, const char *method,
	const char *path, const char **rest, char allow[ALLOW_MAX])
{
	const struct control_route *found = NULL;

	allow[0] = '\0';
	for (const struct control_route *r = s->routes; r->method; r++) {
		const char *follows = route_rest(r, path);
		size_t used = strlen(allow);

		if (!follows)
			continue;
		snprintf(allow + used, ALLOW_MAX - used, "%s%s", used ? ", " : "", r->method);
		if (!found && !strcmp(r->method, method)) {
			found = r;
			*rest = follows;
		}
	}
	return found;
}

/* False: answered with what is wrong. */
static bool body_parse(const struct control_pending *p, struct control_request *req)
{
	const char *end = NULL;

	if (p->too_large) {
		control_fault(
			req, MHD_HTTP_CONTENT_TOO_LARGE, "body: longer than %u bytes", BODY_MAX);
		return false;
	}
	if (p->no_memory) {
		control_fault(req, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
		return false;
	}
	if (!p->len)
		return true;
	if (strlen(p->body) == p->len)
		req->body = cJSON_ParseWithLengthOpts(p->body, p->len + 1, &end, true);
	if (!req->body)
		control_fault(req, MHD_HTTP_BAD_REQUEST, "body: no JSON (near byte %zu)",
			end && end > p->body ? (size_t)(end - p->body) : 0);
	else if (!cJSON_IsObject(req->body))
		control_fault(req, MHD_HTTP_BAD_REQUEST, "body: not a JSON object");
	return cJSON_IsObject(req->body);
}

static enum MHD_Result request_answer(struct control_server *s, struct MHD_Connection *connection,
	const char *method, const char *path, const struct control_pending *p)
{
	struct control_request req = {.method = method, .status = MHD_HTTP_OK};
	char allow[ALLOW_MAX];
	const struct control_route *r = route_find(s, method, path, &req.path, allow);
	enum MHD_Result result;
	bool wrong = !r && allow[0];

	if (wrong)
		control_fault(&req, MHD_HTTP_METHOD_NOT_ALLOWED,
			"%.16s: not for %.100s, which takes %s", method, path, allow);
	else if (!r)
		control_fault(&req, MHD_HTTP_NOT_FOUND, "%.100s: no such path", path);
	else if (body_parse(p, &req))
		r->answer(s->ctx, &req);
	result = answer_send(connection, &req, wrong ? allow : NULL);
	cJSON_Delete(req.body);
	cJSON_Delete(req.json);
	return result;
}

/* ------------------------------------------------------------------ the library's calls */

/* A length that is announced is refused before it is sent. */
static bool length_too_large(struct MHD_Connection *connection)
{
	const char *text = mhd->lookup_connection_value(
		connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return text && strtoull(text, NULL, 10) > BODY_MAX;
}

static void body_append(struct control_pending *p, const char *data, size_t n)
{
	char *body;

	if (p->too_large || p->no_memory)
		return;
	if (n > BODY_MAX - p->len) {
		p->too_large = true;
		return;
	}
	body = realloc(p->body, p->len + n + 1);
	if (!body) {
		p->no_memory = true;
		return;
	}
	memcpy(body + p->len, data, n);
	p->body = body;
	p->len += n;
	p->body[p->len] = '\0';
}

static enum MHD_Result control_access(void *ctx, struct MHD_Connection *connection,
	const char *path, const char *method, const char *version, const char *data, size_t *n,
	void **slot)
{
	struct control_pending *p = *slot;

	(void)version;
	if (!p) {
		p = *slot = calloc(1, sizeof(*p));
		if (!p)
			return MHD_NO;
		p->too_large = length_too_large(connection);
		/* answered before the body: the library closes the connection then */
		return p->too_large ? request_answer(ctx, connection, method, path, p) : MHD_YES;
	}
	if (*n) {
		body_append(p, data, *n);
		*n = 0;
		return MHD_YES;
	}
	return request_answer(ctx, connection, method, path, p);
}

/* Called with the lock held. */
static struct control_peer *peer_find(struct control_server *s, int fd)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (s->peers[i].fd == fd)
			return &s->peers[i];
	return NULL;
}

static void watchman_wake(struct control_server *s)
{
	uint64_t one = 1;

	while (write(s->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static int connection_fd(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		mhd->get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	return info ? info->connect_fd : -1;
}

static void control_completed(void *ctx, struct MHD_Connection *connection, void **slot,
	enum MHD_RequestTerminationCode code)
{
	struct control_server *s = ctx;
	struct control_pending *p = *slot;
	struct control_peer *peer;

	(void)code;
	pthread_mutex_lock(&s->lock);
	peer = peer_find(s, connection_fd(connection));
	if (peer)
		peer->since_ns = clock_now_ns();
	pthread_mutex_unlock(&s->lock);
	if (p)
		free(p->body);
	free(p);
	*slot = NULL;
}

/* The end is told before the descriptor is closed: one that is in the table is open. */
static void control_connection(void *ctx, struct MHD_Connection *connection, void **slot,
	enum MHD_ConnectionNotificationCode code)
{
	bool started = code == MHD_CONNECTION_NOTIFY_STARTED;
	struct control_server *s = ctx;
	int fd = connection_fd(connection);
	struct control_peer *peer;

	(void)slot;
	pthread_mutex_lock(&s->lock);
	peer = peer_find(s, started ? -1 : fd);
	if (peer)
		*peer = (struct control_peer){.fd = started ? fd : -1, .since_ns = clock_now_ns()};
	pthread_mutex_unlock(&s->lock);
	if (started)
		watchman_wake(s);
}

/* ------------------------------------------------------------------ the watchman */

/* Shuts down who takes too long; milliseconds until the next would be, -1: none. */
static int peers_sweep(struct control_server *s)
{
	uint64_t now = clock_now_ns(), next = UINT64_MAX;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		struct control_peer *p = &s->peers[i];
		uint64_t end = p->since_ns + REQUEST_NS;

		if (p->fd < 0 || p->cut)
			continue;
		if (now >= end) {
			/* the library sees the end of it and closes */
			p->cut = true;
			shutdown(p->fd, SHUT_RDWR);
		} else if (end < next) {
			next = end;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return next == UINT64_MAX ? -1 : (int)((next - now) / 1000000u) + 1;
}

static void *watchman_run(void *arg)
{
	struct control_server *s = arg;
	struct pollfd pfd = {.fd = s->wake_fd, .events = POLLIN};
	uint64_t count;

	while (!atomic_load(&s->stop)) {
		poll(&pfd, 1, peers_sweep(s));
		if (read(s->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN &&
			errno != EINTR)
			break;
	}
	return NULL;
}

/* The library's thread and the watchman. Signals are for the program's own threads. */
static int control_threads_start(struct control_server *s, char *why)
{
	const char *path = s->socket.path;
	sigset_t all, old;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	s->daemon = mhd->start_daemon(MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL,
		control_access, s, MHD_OPTION_LISTEN_SOCKET, s->socket.fd,
		MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
		MHD_OPTION_NOTIFY_COMPLETED, control_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
		control_connection, s, MHD_OPTION_END);
	if (!s->daemon) {
		rc = -ENOMEM;
		backend_why(why, "control=%.150s: libmicrohttpd does not start", path);
	} else {
		rc = -pthread_create(&s->watchman, NULL, watchman_run, s);
		if (rc)
			backend_why(why, "control=%.150s: no thread: %s", path, strerror(-rc));
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

/* Ends the library's thread; it would close the listening socket too. */
static void control_daemon_stop(struct control_server *s)
{
	mhd->quiesce_daemon(s->daemon);
	mhd->stop_daemon(s->daemon);
}

int control_server_create(struct control_server **out, const char *path,
	const struct control_route *routes, void *ctx, char why[BACKEND_WHY_MAX])
{
	struct control_server *s = calloc(1, sizeof(*s));
	char library_why[BACKEND_WHY_MAX] = "";
	int rc;

	if (!s) {
		backend_why(why, "control=%.150s: no memory", path);
		return -ENOMEM;
	}
	s->routes = routes;
	s->ctx = ctx;
	rc = control_library_load(&mhd, library_why);
	if (rc) {
		backend_why(why, "control=%.80s: %.150s", path, library_why);
		free(s);
		return rc;
	}
	pthread_mutex_init(&s->lock, NULL);
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		s->peers[i].fd = -1;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = s->wake_fd < 0 ? -errno : 0;
	if (rc)
		backend_why(why, "control=%.150s: %s", path, strerror(-rc));
	else
		rc = unix_socket_listen(&s->socket, "control=", path, true, why);
	if (rc)
		goto fail_fd;
	rc = control_threads_start(s, why);
	if (rc)
		goto fail_daemon;
	*out = s;
	return 0;
fail_daemon:
	if (s->daemon)
		control_daemon_stop(s);
	unix_socket_close(&s->socket);
fail_fd:
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	free(s);
	return rc;
}

void control_server_destroy(struct control_server *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, true);
	watchman_wake(s);
	pthread_join(s->watchman, NULL);
	control_daemon_stop(s);
	unix_socket_close(&s->socket);
	close(s->wake_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
