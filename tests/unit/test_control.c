/* SPDX-License-Identifier: BSD-2-Clause */
/* The control socket, as clients meet it: good ones, wrong ones, and those that mean harm. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/backend.h"
#include "tests/unit/unit.h"

static char path[100];
static unsigned answers; /* written by the server's thread, read after its answer came */

static void answer_get(void *ctx, struct control_request *req)
{
	(void)ctx;
	answers++;
	if (!strcmp(req->path, "missing")) {
		control_fault(req, 404, "%s: no such thing", req->path);
		return;
	}
	req->json = cJSON_CreateObject();
	cJSON_AddStringToObject(req->json, "path", req->path);
}

static void answer_put(void *ctx, struct control_request *req)
{
	(void)ctx;
	answers++;
	req->status = 201;
	req->json = cJSON_CreateObject();
	cJSON_AddNumberToObject(
		req->json, "fields", req->body ? cJSON_GetArraySize(req->body) : -1);
}

static void answer_delete(void *ctx, struct control_request *req)
{
	(void)ctx;
	answers++;
	req->status = 204;
}

static void answer_metrics(void *ctx, struct control_request *req)
{
	struct control_text t = {0};

	(void)ctx;
	for (unsigned i = 0; i < 20000; i++)
		control_text_add(&t, "metric{n=\"%u\"} %u\n", i, i);
	req->text = t.data;
}

static const struct control_route routes[] = {
	{"GET", "/things", answer_get},
	{"PUT", "/things", answer_put},
	{"DELETE", "/things", answer_delete},
	{"GET", "/metrics", answer_metrics},
	{NULL, NULL, NULL},
};

static struct control_server *server_start(void)
{
	struct control_server *s = NULL;
	char why[BACKEND_WHY_MAX] = "";

	snprintf(path, sizeof(path), "build/tmp/control.%d", (int)getpid());
	CU_ASSERT_EQUAL_FATAL(control_server_create(&s, path, routes, NULL, why), 0);
	return s;
}

static int client(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Reads until the server closes; what came is a string. Not more than room - 1 bytes. */
static size_t read_all(int fd, char *to, size_t room)
{
	size_t len = 0;
	ssize_t n;

	while (len < room - 1 && (n = read(fd, to + len, room - 1 - len)) > 0)
		len += (size_t)n;
	to[len] = '\0';
	return len;
}

static char reply[2 << 20];

static int status_of(const char *text)
{
	return strncmp(text, "HTTP/1.1 ", 9) ? 0 : atoi(text + 9);
}

/* Sends bytes on a connection of its own; the status of the answer, 0: none. */
static int send_raw(const char *bytes, size_t n)
{
	int fd = client();

	CU_ASSERT_FATAL(fd >= 0);
	/* the server may have answered and closed before it has read everything */
	if (send(fd, bytes, n, MSG_NOSIGNAL) >= 0)
		shutdown(fd, SHUT_WR);
	read_all(fd, reply, sizeof(reply));
	close(fd);
	return status_of(reply);
}

static int ask(const char *method, const char *what, const char *body)
{
	char text[4096];
	int n = snprintf(text, sizeof(text),
		"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		method, what, body ? strlen(body) : 0, body ? body : "");

	return send_raw(text, (size_t)n);
}

static void test_answers(void)
{
	struct control_server *s = server_start();
	struct stat st;
	const char *p;

	CU_ASSERT_EQUAL(stat(path, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
	CU_ASSERT_EQUAL(ask("GET", "/things", NULL), 200);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "Content-Type: application/json"));
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "\r\n\r\n{\"path\":\"\"}"));
	CU_ASSERT_EQUAL(ask("GET", "/things/a%20b", NULL), 200);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "{\"path\":\"a b\"}"));
	CU_ASSERT_EQUAL(ask("GET", "/things/missing", NULL), 404);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "{\"fault_message\":\"missing: no such thing\"}"));
	CU_ASSERT_EQUAL(ask("PUT", "/things/x", "{\"a\": 1, \"b\": [2]}"), 201);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "{\"fields\":2}"));
	CU_ASSERT_EQUAL(ask("PUT", "/things/x", NULL), 201);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "{\"fields\":-1}"));
	CU_ASSERT_EQUAL(ask("DELETE", "/things/x", NULL), 204);
	CU_ASSERT_EQUAL(ask("GET", "/metrics", NULL), 200);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "Content-Type: text/plain; version=0.0.4"));
	p = strstr(reply, "metric{n=\"19999\"} 19999\n");
	CU_ASSERT_TRUE(p && !strcmp(p, "metric{n=\"19999\"} 19999\n"));
	control_server_destroy(s);
	CU_ASSERT_EQUAL(stat(path, &st), -1);
}

static void test_mistakes(void)
{
	struct control_server *s = server_start();
	static const char *const bad[] = {"{", "[]", "1", "nonsense", "{} {}", "{\"a\":}"};
	unsigned before;

	CU_ASSERT_EQUAL(ask("GET", "/", NULL), 404);
	CU_ASSERT_EQUAL(ask("GET", "/thingsx", NULL), 404);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "fault_message"));
	CU_ASSERT_EQUAL(ask("POST", "/things/x", "{}"), 405);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "Allow: GET, PUT, DELETE"));
	CU_ASSERT_EQUAL(ask("PATCH", "/metrics", "{}"), 405);
	before = answers;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CU_ASSERT_EQUAL(ask("PUT", "/things/x", bad[i]), 400);
		CU_ASSERT_PTR_NOT_NULL(strstr(reply, "{\"fault_message\":\"body: "));
	}
	CU_ASSERT_EQUAL(answers, before);
	CU_ASSERT_EQUAL(ask("GET", "/things", NULL), 200);
	control_server_destroy(s);
}

static void test_body_limit(void)
{
	struct control_server *s = server_start();
	static char text[200000];
	unsigned before = answers;
	size_t n, head;

	/* exactly 64 KiB is taken */
	n = (size_t)snprintf(text, sizeof(text),
		"PUT /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
		"65536\r\n\r\n");
	memset(text + n, ' ', 65536);
	memcpy(text + n, "{}", 2);
	CU_ASSERT_EQUAL(send_raw(text, n + 65536), 201);
	CU_ASSERT_EQUAL(answers, before + 1);
	/* one byte more is refused by its announcement */
	n = (size_t)snprintf(text, sizeof(text),
		"PUT /things HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n");
	CU_ASSERT_EQUAL(send_raw(text, n), 413);
	/* and without one when it has come */
	head = (size_t)snprintf(text, sizeof(text),
		"PUT /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: "
		"chunked\r\n\r\n11170\r\n");
	memset(text + head, ' ', 70000);
	n = head + 70000;
	n += (size_t)snprintf(text + n, sizeof(text) - n, "\r\n0\r\n\r\n");
	CU_ASSERT_EQUAL(send_raw(text, n), 413);
	CU_ASSERT_EQUAL(answers, before + 1);
	CU_ASSERT_EQUAL(ask("GET", "/things", NULL), 200);
	control_server_destroy(s);
}

static void test_garbage(void)
{
	struct control_server *s = server_start();
	static char text[300000];
	unsigned seed = 4711, before = answers;

	for (unsigned round = 0; round < 200; round++) {
		size_t n = 1 + (unsigned)rand_r(&seed) % 2000;

		for (size_t i = 0; i < n; i++)
			text[i] = (char)rand_r(&seed);
		CU_ASSERT(send_raw(text, n) != 200);
	}
	/* headers without end */
	memset(text, 'a', sizeof(text));
	memcpy(text, "GET /things HTTP/1.1\r\nX: ", 25);
	CU_ASSERT(send_raw(text, sizeof(text)) != 200);
	/* deep JSON */
	CU_ASSERT_EQUAL(ask("PUT", "/things", "[[[[[[[[[[[[[[[[[[[["), 400);
	CU_ASSERT_EQUAL(answers, before);
	CU_ASSERT_EQUAL(ask("GET", "/things", NULL), 200);
	control_server_destroy(s);
}

static void *slow_ask(void *arg)
{
	*(int *)arg = ask("GET", "/things", NULL);
	return NULL;
}

/*
 * Clients in every place that send a byte now and then and never a whole request: they are cut off,
 * and who waits is served.
 */
static void test_slow(void)
{
	struct control_server *s = server_start();
	int fds[16], status = 0;
	pthread_t asker;
	bool cut = false;

	for (unsigned i = 0; i < 16; i++) {
		fds[i] = client();
		CU_ASSERT_FATAL(fds[i] >= 0);
		CU_ASSERT_EQUAL(send(fds[i], "G", 1, MSG_NOSIGNAL), 1);
	}
	CU_ASSERT_EQUAL_FATAL(pthread_create(&asker, NULL, slow_ask, &status), 0);
	for (unsigned round = 0; round < 300 && !cut; round++) {
		usleep(100000);
		for (unsigned i = 0; i < 16; i++)
			cut |= send(fds[i], "G", 1, MSG_NOSIGNAL) < 0;
	}
	CU_ASSERT_TRUE(cut);
	for (unsigned i = 0; i < 16; i++)
		close(fds[i]);
	pthread_join(asker, NULL);
	CU_ASSERT_EQUAL(status, 200);
	control_server_destroy(s);
}

/* The end does not wait for clients. */
static void test_destroy_connected(void)
{
	struct control_server *s = server_start();
	static const char half[] = "PUT /things HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{";
	int fd = client();
	unsigned before = answers;

	CU_ASSERT_EQUAL(send(fd, half, sizeof(half) - 1, 0), (ssize_t)sizeof(half) - 1);
	CU_ASSERT_EQUAL(ask("GET", "/things", NULL), 200);
	control_server_destroy(s);
	read_all(fd, reply, sizeof(reply));
	CU_ASSERT_EQUAL(answers, before + 1);
	close(fd);
}

static void test_paths(void)
{
	struct control_server *s = server_start(), *other = NULL;
	char why[BACKEND_WHY_MAX], longest[300];
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct stat st;
	int fd;

	CU_ASSERT_EQUAL(control_server_create(&other, path, routes, NULL, why), -EADDRINUSE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "in use by another process"));
	CU_ASSERT_EQUAL(ask("GET", "/things", NULL), 200);
	control_server_destroy(s);
	/* left behind by the dead: replaced */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
	CU_ASSERT_EQUAL_FATAL(control_server_create(&s, path, routes, NULL, why), 0);
	CU_ASSERT_EQUAL(ask("GET", "/things", NULL), 200);
	/* somebody else's by now: left alone */
	CU_ASSERT_EQUAL(unlink(path), 0);
	CU_ASSERT_EQUAL(mkdir(path, 0700), 0);
	control_server_destroy(s);
	CU_ASSERT_EQUAL(stat(path, &st), 0);
	CU_ASSERT_EQUAL(control_server_create(&other, path, routes, NULL, why), -EEXIST);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "exists and is no socket"));
	CU_ASSERT_EQUAL(rmdir(path), 0);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	CU_ASSERT_EQUAL(control_server_create(&other, longest, routes, NULL, why), -ENAMETOOLONG);
	CU_ASSERT_EQUAL(
		control_server_create(&other, "build/tmp/no/such", routes, NULL, why), -ENOENT);
	CU_ASSERT_EQUAL(strncmp(why, "control=build/tmp/no/such: ", 27), 0);
}

static const struct unit_case cases[] = {
	{"answers and their types", test_answers},
	{"mistakes", test_mistakes},
	{"bodies over the limit", test_body_limit},
	{"garbage", test_garbage},
	{"slow clients in every place", test_slow},
	{"destroyed with a request half sent", test_destroy_connected},
	{"paths that are taken", test_paths},
};

UNIT_MAIN("control", cases)
