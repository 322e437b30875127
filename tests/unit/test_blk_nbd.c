/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks of NBD servers: nbdkit's, also one that is killed again and again, and a small one of this
 * test's own, which lies.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/test_blk_random.h"

#define ARGS_MAX  16
#define KILLS_MAX 12u

static char socket_path[128], uri[256];

static void paths_set(const char *name)
{
	rig_path(socket_path, name);
	unlink(socket_path);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", socket_path);
}

static int connect_once(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path, socket_path, strlen(socket_path) + 1);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* ------------------------------------------------------------------ nbdkit */

static bool nbdkit_missing(void)
{
	if (!access("/usr/sbin/nbdkit", X_OK) || !access("/usr/bin/nbdkit", X_OK))
		return false;
	unit_skip("nbdkit is not installed");
	return true;
}

/* nbdkit at socket_path with these arguments, answering. */
static pid_t nbdkit_start(const char *arg, ...)
{
	const char *argv[ARGS_MAX] = {"nbdkit", "-f", "-U", socket_path};
	unsigned n = 4;
	va_list args;
	pid_t pid;

	va_start(args, arg);
	for (; arg && n < ARGS_MAX - 1; arg = va_arg(args, const char *))
		argv[n++] = arg;
	va_end(args);
	unlink(socket_path);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* it says what it thinks of servers' ends */
		dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
		execvp("nbdkit", (char **)argv);
		_exit(127);
	}
	for (time_t start = time(NULL); !rig_late(start);) {
		int fd = connect_once();

		if (fd >= 0) {
			close(fd);
			break;
		}
		usleep(5000);
	}
	return pid;
}

static void nbdkit_stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int open_uri(struct rig *r, bool readonly)
{
	struct blk_options opts = {.nbd = uri, .fd = -1, .readonly = readonly};
	int rc;

	memset(r, 0, sizeof(*r));
	rc = blk_open(&r->image, &opts, r->why);
	if (rc)
		return rc;
	blk_info_get(r->image, &r->info);
	CU_ASSERT_EQUAL_FATAL(blk_channel_open(&r->ch, r->image, NULL, r->why), 0);
	return 0;
}

static void test_memory(void)
{
	static unsigned char data[3 << 20], back[3 << 20];
	struct rig r;
	pid_t pid;

	if (nbdkit_missing())
		return;
	paths_set("memory");
	pid = nbdkit_start("memory", "8M", NULL);
	CU_ASSERT_EQUAL_FATAL(open_uri(&r, false), 0);
	CU_ASSERT_EQUAL(r.info.size, 8u << 20);
	CU_ASSERT_EQUAL(r.info.engine, BLK_ENGINE_NBD);
	CU_ASSERT_STRING_EQUAL(blk_engine_name(r.info.engine), "nbd");
	CU_ASSERT_TRUE(r.info.discard && r.info.write_zeroes && !r.info.readonly);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 7 + i / 4096);
	/* longer than one command */
	CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, 512, data, sizeof(data)), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 512, back, sizeof(back)), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, sizeof(data)), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE_ZEROES, 1024, NULL, 4096), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 1024, back, 4608), 0);
	CU_ASSERT_TRUE(rig_all(back, 0, 4096));
	CU_ASSERT_EQUAL(memcmp(back + 4096, data + 4608, 512), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_DISCARD, 8192, NULL, 4096), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_FLUSH, 0, NULL, 0), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 8u << 20, back, 512), -EINVAL);
	CU_ASSERT_EQUAL(blk_sync(r.image), 0);
	rig_close(&r);
	nbdkit_stop(pid);
}

struct killer {
	pid_t pid;
	const char *path;
	atomic_bool stop;
	unsigned kills;
};

static void *killer_run(void *arg)
{
	struct killer *k = arg;

	while (!atomic_load(&k->stop)) {
		usleep(20000);
		/* not forever: on a host with much to do nothing would get done. The last server
		 * ends with the thread that made it. */
		if (k->kills == KILLS_MAX)
			continue;
		nbdkit_stop(k->pid);
		k->pid = nbdkit_start("file", k->path, NULL);
		k->kills++;
	}
	return NULL;
}

/* A file behind a server that dies every few milliseconds: everything ends, once, and is right. */
static void random_server(bool deadly, const char *filter, unsigned count)
{
	struct killer k = {0};
	struct rig r, file;
	pthread_t thread;
	char path[128];

	if (nbdkit_missing())
		return;
	paths_set("random");
	rig_path(path, "file");
	rig_file(path, RANDOM_SIZE, 0x5a);
	k.path = path;
	k.pid = filter ? nbdkit_start(filter, "file", path, NULL)
		       : nbdkit_start("file", path, NULL);
	CU_ASSERT_EQUAL_FATAL(open_uri(&r, false), 0);
	if (deadly)
		pthread_create(&thread, NULL, killer_run, &k);
	memcpy(r.path, path, sizeof(path));
	file = r;
	random_test(&file, 0x5a, count, 4711);
	if (deadly) {
		atomic_store(&k.stop, true);
		pthread_join(thread, NULL);
		CU_ASSERT(k.kills > 2);
	}
	rig_close(&r);
	nbdkit_stop(k.pid);
	unlink(socket_path);
}

static void test_random(void)
{
	random_server(false, NULL, 4000);
}

/* Neither zeroing nor trimming by the server, nor many connections, nor large commands. */
static void test_random_poor(void)
{
	random_server(false, "--filter=nozero", 2000);
	random_server(false, "--filter=noparallel", 2000);
	random_server(false, "--filter=blocksize-policy", 2000);
}

static void test_random_killed(void)
{
	random_server(true, NULL, 3000);
}

/* What one channel writes another reads, each with a connection of its own, or with one for all. */
static void channels(bool multi)
{
	struct rig r;
	struct blk_channel *more[3];
	unsigned char data[4096], back[4096];
	pid_t pid;

	paths_set("channels");
	pid = nbdkit_start("--filter=multi-conn", "memory", "1M",
		multi ? "multi-conn-mode=unsafe" : "multi-conn-mode=disable", NULL);
	CU_ASSERT_EQUAL_FATAL(open_uri(&r, false), 0);
	CU_ASSERT_EQUAL(strstr(r.info.note, "no multi-conn") != NULL, !multi);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL_FATAL(blk_channel_open(&more[i], r.image, NULL, r.why), 0);
	for (unsigned i = 0; i < 12; i++) {
		struct rig writer = {.image = r.image, .ch = more[i % 3]};
		struct rig reader = {.image = r.image, .ch = more[(i + 1) % 3]};

		memset(data, (int)i + 1, sizeof(data));
		CU_ASSERT_EQUAL(rig_do(&writer, BLK_WRITE, 4096, data, sizeof(data)), 0);
		CU_ASSERT_EQUAL(rig_do(&reader, BLK_READ, 4096, back, sizeof(back)), 0);
		CU_ASSERT_TRUE(rig_all(back, (int)i + 1, sizeof(back)));
	}
	for (unsigned i = 0; i < 3; i++)
		blk_channel_close(more[i]);
	rig_close(&r);
	nbdkit_stop(pid);
}

static void test_channels(void)
{
	if (nbdkit_missing())
		return;
	channels(true);
	channels(false);
}

static void test_readonly(void)
{
	struct rig r;
	char data[512];
	pid_t pid;

	if (nbdkit_missing())
		return;
	paths_set("readonly");
	pid = nbdkit_start("-r", "memory", "1M", NULL);
	CU_ASSERT_EQUAL(open_uri(&r, false), -EROFS);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.why, "the export is read-only; use readonly=on"));
	CU_ASSERT_EQUAL_FATAL(open_uri(&r, true), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 0, data, 512), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, 0, data, 512), -EROFS);
	CU_ASSERT_EQUAL(blk_sync(r.image), 0);
	rig_close(&r);
	nbdkit_stop(pid);
}

static void test_refused(void)
{
	struct blk_options opts = {.fd = -1};
	struct rig r;
	pid_t pid;

	paths_set("nobody");
	CU_ASSERT_EQUAL(open_uri(&r, false), -ENOENT);
	CU_ASSERT_EQUAL(strncmp(r.why, uri, strlen(uri)), 0);
	opts.nbd = "http://x/";
	CU_ASSERT_EQUAL(blk_open(&r.image, &opts, r.why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.why, "expected nbd://HOST"));
	opts.nbd = uri;
	opts.engine = BLK_ENGINE_URING;
	CU_ASSERT_EQUAL(blk_open(&r.image, &opts, r.why), -EINVAL);
	if (nbdkit_missing())
		return;
	pid = nbdkit_start("memory", "1000", NULL);
	CU_ASSERT_EQUAL(open_uri(&r, false), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.why, "not a multiple of 512"));
	nbdkit_stop(pid);
	pid = nbdkit_start("--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096",
		"blocksize-error-policy=error", NULL);
	CU_ASSERT_EQUAL(open_uri(&r, false), -ENOTSUP);
	nbdkit_stop(pid);
}

/* ------------------------------------------------------------------ a server that lies */

enum lie { LIE_NONE, LIE_GARBAGE, LIE_CLOSE, LIE_COOKIE, LIE_SHUTDOWN, LIE_SIZE, LIE_MUTE };

/* A connection each; the last one stays as it is. */
struct liar {
	const enum lie *lies;
	unsigned nlies;
	int listener;
	atomic_uint connections;
	int error; /* of every answer */
	pthread_t thread;
};

/* Before fixed newstyle: all is said at once. */
struct __attribute__((packed)) old_hello {
	uint64_t magic, client_magic, size;
	uint32_t flags;
	char zeroes[124];
};

struct __attribute__((packed)) nbd_ask {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
};

struct __attribute__((packed)) nbd_answer {
	uint32_t magic, error;
	uint64_t cookie;
};

static bool take(int fd, void *to, size_t n)
{
	return recv(fd, to, n, MSG_WAITALL) == (ssize_t)n;
}

static bool give(int fd, const void *from, size_t n)
{
	return send(fd, from, n, MSG_NOSIGNAL) == (ssize_t)n;
}

/* False: the connection is over. */
static bool liar_answer(struct liar *l, int fd, enum lie lie)
{
	static char data[1 << 20];
	struct nbd_ask ask;
	struct nbd_answer answer = {.magic = htonl(0x67446698)};
	uint16_t type;

	if (!take(fd, &ask, sizeof(ask)))
		return false;
	type = ntohs(ask.type);
	if (type == 1 && !take(fd, data, ntohl(ask.length)))
		return false;
	answer.cookie = ask.cookie;
	answer.error = htonl((uint32_t)l->error);
	switch (lie) {
	case LIE_GARBAGE:
		memset(data, 0xee, 4096);
		give(fd, data, 4096);
		return false;
	case LIE_CLOSE:
		return false;
	case LIE_COOKIE:
		answer.cookie ^= 0x55;
		break;
	case LIE_SHUTDOWN:
		answer.error = htonl(108);
		break;
	case LIE_MUTE:
		return true;
	default:
		break;
	}
	if (!give(fd, &answer, sizeof(answer)))
		return false;
	memset(data, 0x77, sizeof(data));
	return type != 0 || answer.error || give(fd, data, ntohl(ask.length));
}

static void *liar_run(void *arg)
{
	struct liar *l = arg;
	int fd;

	while ((fd = accept4(l->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		unsigned n = atomic_fetch_add(&l->connections, 1);
		enum lie lie = l->lies[n < l->nlies ? n : l->nlies - 1];
		struct old_hello hello = {
			.magic = htobe64(0x4e42444d41474943),
			.client_magic = htobe64(0x00420281861253),
			.size = htobe64(lie == LIE_SIZE ? 4096 : 1 << 20),
			.flags = htonl(1 | 1 << 2 | 1 << 5), /* has flags, flush, trim */
		};

		if (give(fd, &hello, sizeof(hello)))
			while (liar_answer(l, fd, lie))
				;
		close(fd);
	}
	return NULL;
}

static void liar_start(struct liar *l, const enum lie *lies, unsigned n)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	paths_set("liar");
	memset(l, 0, sizeof(*l));
	l->lies = lies;
	l->nlies = n;
	l->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	memcpy(sa.sun_path, socket_path, strlen(socket_path) + 1);
	CU_ASSERT_EQUAL_FATAL(bind(l->listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(l->listener, 16), 0);
	pthread_create(&l->thread, NULL, liar_run, l);
}

static void liar_stop(struct liar *l)
{
	shutdown(l->listener, SHUT_RDWR);
	pthread_join(l->thread, NULL);
	close(l->listener);
	unlink(socket_path);
}

static void test_liar(void)
{
	static const enum lie lies[] = {
		LIE_GARBAGE, LIE_CLOSE, LIE_COOKIE, LIE_SHUTDOWN, LIE_SIZE, LIE_NONE};
	struct liar l;
	struct rig r;
	char data[4096];

	liar_start(&l, lies, sizeof(lies) / sizeof(lies[0]));
	CU_ASSERT_EQUAL_FATAL(open_uri(&r, false), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 0, data, sizeof(data)), 0);
	CU_ASSERT_TRUE(rig_all(data, 0x77, sizeof(data)));
	CU_ASSERT_EQUAL(atomic_load(&l.connections), 6);
	rig_close(&r);
	liar_stop(&l);
}

static void test_errors(void)
{
	static const enum lie lies[] = {LIE_NONE};
	/* of the protocol, and of nobody */
	static const int errors[][2] = {{1, -EPERM}, {5, -EIO}, {12, -ENOMEM}, {22, -EINVAL},
		{28, -ENOSPC}, {95, -EOPNOTSUPP}, {4711, -EINVAL}};
	struct liar l;
	struct rig r;
	char data[512];

	liar_start(&l, lies, 1);
	CU_ASSERT_EQUAL_FATAL(open_uri(&r, false), 0);
	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		l.error = errors[i][0];
		CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, 0, data, 512), errors[i][1]);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_FLUSH, 0, NULL, 0), errors[i][1]);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_DISCARD, 0, NULL, 512), 0);
	}
	l.error = 0;
	/* zeroing by data */
	CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE_ZEROES, 0, NULL, 1 << 20), 0);
	CU_ASSERT_EQUAL(atomic_load(&l.connections), 1);
	rig_close(&r);
	liar_stop(&l);
}

/* A server that takes requests and says nothing keeps nobody who wants to leave. */
static void test_abandon(void)
{
	static const enum lie lies[] = {LIE_MUTE};
	struct rig_request one;
	struct liar l;
	struct rig r;
	char data[512];

	liar_start(&l, lies, 1);
	CU_ASSERT_EQUAL_FATAL(open_uri(&r, false), 0);
	rig_prepare(&one, BLK_READ, 0, data, 512);
	blk_submit(r.ch, &one.req);
	blk_kick(r.ch);
	usleep(100000);
	CU_ASSERT_EQUAL(blk_poll(r.ch), 0);
	blk_abandon(r.image);
	CU_ASSERT_TRUE(rig_wait(&r, 0));
	CU_ASSERT_EQUAL(one.result, -EIO);
	CU_ASSERT_EQUAL(blk_sync(r.image), -EIO);
	rig_close(&r);
	liar_stop(&l);
}

static const struct unit_case cases[] = {
	{"a disk in nbdkit's memory", test_memory},
	{"random requests", test_random},
	{"random requests to servers that can less", test_random_poor},
	{"random requests to a server that is killed", test_random_killed},
	{"channels with and without connections of their own", test_channels},
	{"read-only exports", test_readonly},
	{"what is refused", test_refused},
	{"a server that lies", test_liar},
	{"errors of the server", test_errors},
	{"a mute server, abandoned", test_abandon},
};

UNIT_MAIN("blk_nbd", cases)
