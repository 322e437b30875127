/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of sluice-blkd. Every mistake is one line that names the option and what would do. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/blkd_priv.h"

#define CLAIM_WAIT_MS     10000u
#define CLAIM_WAIT_MS_MAX 3600000u
#define POLL_US_DEFAULT   500u
#define SERIAL_MAX        20u

static const char help[] =
	"Usage: sluice-blkd --export socket=PATH,path=FILE[,KEY=VALUE]... [OPTION]...\n"
	"\n"
	"Serves disk images to virtual machines of other processes by the vhost-user\n"
	"protocol (vhost-user-blk): Sluice, QEMU, Cloud Hypervisor and others. --export\n"
	"may be given several times. --key value and --key=value are the same.\n"
	"\n"
	"  --export KEY=VALUE,... a disk, see below\n"
	"  --io-threads N       threads that do the I/O, 1 to 16; exports take them in\n"
	"                       turn (1)\n"
	"  --poll-us N          longest time an I/O thread polls before it sleeps, in\n"
	"                       microseconds; 0: it never polls (500)\n"
	"  --no-io-uring        I/O threads wait with epoll instead\n"
	"  --control PATH       a control socket, HTTP: GET /exports, GET /metrics\n"
	"  --pidfile FILE       written when all sockets are there, removed at the end\n"
	"  --version, --help\n"
	"\n"
	"Keys of --export (a comma inside a value is written ,,):\n"
	"  socket=PATH          where the virtual machine connects to (mode 0600; one\n"
	"                       left behind is replaced); or listen-fd=N, listening\n"
	"  mode=listen|connect  connect: the virtual machine listens (listen)\n"
	"  path=FILE            an image or a block device; or fd=N, open already\n"
	"  format=FORMAT        raw, qcow2 or auto: by how the image begins (auto)\n"
	"  engine=ENGINE        io_uring, aio, threads or auto (auto)\n"
	"  direct=on|off|auto   past the host's page cache (auto)\n"
	"  readonly=on|off      (off)\n"
	"  serial=TEXT          up to 20 characters\n"
	"  queues=N             1 to 64 (1)\n"
	"  queue-size=N         requests in one queue: 2, 4, 8 ... 1024 (256)\n"
	"  ring=split|packed    packed: offered, not forced (packed)\n"
	"  claim-wait=MS        how long an image in use by a process that ends is\n"
	"                       waited for, in milliseconds (10000)\n"
	"  fault=SPEC           faults on purpose, for testing guests; see `sluice run`\n"
	"\n"
	"SIGTERM and SIGINT end it cleanly, with all accepted writes on disk. Exit\n"
	"status: 0 ended so, 1 the host would not, 2 a mistake in the options.\n"
	"\n"
	"Example:\n"
	"  sluice-blkd --export socket=/run/web.sock,path=web.img,queues=2\n"
	"  qemu-system-x86_64 ... -object memory-backend-memfd,id=m,size=1G,share=on \\\n"
	"             -machine memory-backend=m -chardev socket,id=c,path=/run/web.sock \\\n"
	"             -device vhost-user-blk-pci,chardev=c,num-queues=2\n";

int blkd_fail(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	program_vfail("sluice-blkd", status, fmt, ap);
	va_end(ap);
	return status;
}

/* ------------------------------------------------------------------ values */

static int bad(const char *key, const char *value, const char *use)
{
	return blkd_fail(PROGRAM_USAGE, "--export %s=%.60s: %s", key, value, use);
}

static int number_set(
	const char *option, const char *value, unsigned min, unsigned max, unsigned *out)
{
	if (program_number(value, min, max, out))
		return PROGRAM_OK;
	return blkd_fail(PROGRAM_USAGE, "%s %.40s: not a number in range; use %u to %u", option,
		value, min, max);
}

static int key_number(const char *key, const char *value, unsigned min, unsigned max, unsigned *out)
{
	char use[64];

	if (program_number(value, min, max, out))
		return PROGRAM_OK;
	snprintf(use, sizeof(use), "use %u to %u", min, max);
	return bad(key, value, use);
}

static int key_word(const char *key, const char *value, const char *const *words, int *out)
{
	char use[96] = "use ";

	for (int i = 0; words[i]; i++) {
		if (!strcmp(value, words[i])) {
			*out = i;
			return PROGRAM_OK;
		}
		snprintf(use + strlen(use), sizeof(use) - strlen(use), "%s%s",
			i ? words[i + 1] ? ", " : " or " : "", words[i]);
	}
	return bad(key, value, use);
}

/* ------------------------------------------------------------------ keys of an export */

static int set_socket(struct blkd_export_options *e, const char *k, const char *v)
{
	(void)k;
	e->socket = v;
	return PROGRAM_OK;
}

static int set_listen_fd(struct blkd_export_options *e, const char *k, const char *v)
{
	unsigned n = 0;
	int status = key_number(k, v, 0, 1u << 20, &n);

	e->listen_fd = (int)n;
	return status;
}

static int set_mode(struct blkd_export_options *e, const char *k, const char *v)
{
	static const char *const words[] = {"listen", "connect", NULL};
	int n = 0, status = key_word(k, v, words, &n);

	e->mode = n ? VHOST_CONNECT : VHOST_LISTEN;
	return status;
}

static int set_path(struct blkd_export_options *e, const char *k, const char *v)
{
	(void)k;
	e->image.path = v;
	return PROGRAM_OK;
}

static int set_fd(struct blkd_export_options *e, const char *k, const char *v)
{
	unsigned n = 0;
	int status = key_number(k, v, 0, 1u << 20, &n);

	e->image.fd = (int)n;
	return status;
}

static int set_format(struct blkd_export_options *e, const char *k, const char *v)
{
	return blk_format_parse(v, &e->image.format) ? bad(k, v, "use raw, qcow2 or auto")
						     : PROGRAM_OK;
}

static int set_engine(struct blkd_export_options *e, const char *k, const char *v)
{
	return blk_engine_parse(v, &e->image.engine)
		       ? bad(k, v, "use io_uring, aio, threads or auto")
		       : PROGRAM_OK;
}

static int set_direct(struct blkd_export_options *e, const char *k, const char *v)
{
	static const char *const words[] = {"auto", "on", "off", NULL};
	int n = 0, status = key_word(k, v, words, &n);

	e->image.direct = (enum blk_direct)n;
	return status;
}

static int set_readonly(struct blkd_export_options *e, const char *k, const char *v)
{
	static const char *const words[] = {"off", "on", NULL};
	int n = 0, status = key_word(k, v, words, &n);

	e->image.readonly = n;
	return status;
}

static int set_serial(struct blkd_export_options *e, const char *k, const char *v)
{
	if (strlen(v) > SERIAL_MAX)
		return bad(k, v, "use up to 20 characters");
	e->serial = v;
	return PROGRAM_OK;
}

static int set_queues(struct blkd_export_options *e, const char *k, const char *v)
{
	return key_number(k, v, 1, BACKEND_QUEUES_MAX, &e->queues);
}

static int set_queue_size(struct blkd_export_options *e, const char *k, const char *v)
{
	if (!program_number(v, 2, 1024, &e->queue_size) || e->queue_size & (e->queue_size - 1))
		return bad(k, v, "use a power of two from 2 to 1024");
	return PROGRAM_OK;
}

static int set_ring(struct blkd_export_options *e, const char *k, const char *v)
{
	static const char *const words[] = {"split", "packed", NULL};
	int n = 0, status = key_word(k, v, words, &n);

	e->ring = n ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
	return status;
}

static int set_claim_wait(struct blkd_export_options *e, const char *k, const char *v)
{
	return key_number(k, v, 0, CLAIM_WAIT_MS_MAX, &e->image.claim_wait_ms);
}

static int set_fault(struct blkd_export_options *e, const char *k, const char *v)
{
	char why[BLK_WHY_MAX] = "";

	(void)k;
	if (blk_fault_check(v, why))
		return blkd_fail(PROGRAM_USAGE, "--export %s", why);
	e->image.fault = v;
	return PROGRAM_OK;
}

static const struct {
	const char *name;
	int (*set)(struct blkd_export_options *e, const char *key, const char *value);
} keys[] = {
	{"socket", set_socket},
	{"listen-fd", set_listen_fd},
	{"mode", set_mode},
	{"path", set_path},
	{"fd", set_fd},
	{"format", set_format},
	{"engine", set_engine},
	{"direct", set_direct},
	{"readonly", set_readonly},
	{"serial", set_serial},
	{"queues", set_queues},
	{"queue-size", set_queue_size},
	{"ring", set_ring},
	{"claim-wait", set_claim_wait},
	{"fault", set_fault},
};

#define NKEYS (sizeof(keys) / sizeof(keys[0]))

static int key_set(struct blkd_export_options *e, char *item, uint32_t *given)
{
	char *value = strchr(item, '=');

	if (!value || !value[1])
		return blkd_fail(PROGRAM_USAGE, "--export %.60s: write KEY=VALUE", item);
	*value++ = '\0';
	for (size_t i = 0; i < NKEYS; i++) {
		if (strcmp(item, keys[i].name) != 0)
			continue;
		if (*given & 1u << i)
			return blkd_fail(
				PROGRAM_USAGE, "--export %s: given twice; give it once", item);
		*given |= 1u << i;
		return keys[i].set(e, item, value);
	}
	return blkd_fail(PROGRAM_USAGE,
		"--export %.40s: unknown key; use socket, listen-fd, mode, path, fd, format, "
		"engine, direct, readonly, serial, queues, queue-size, ring, claim-wait or fault",
		item);
}

static int export_check(const struct blkd_export_options *e, const char *text)
{
	if (!e->socket == (e->listen_fd < 0))
		return blkd_fail(PROGRAM_USAGE,
			"--export %.80s: give socket=PATH or listen-fd=N, one of them", text);
	if (!e->image.path == (e->image.fd < 0))
		return blkd_fail(
			PROGRAM_USAGE, "--export %.80s: give path=FILE or fd=N, one of them", text);
	if (e->listen_fd >= 0 && e->mode == VHOST_CONNECT)
		return blkd_fail(PROGRAM_USAGE,
			"--export listen-fd=%d: mode=connect takes socket=PATH", e->listen_fd);
	return PROGRAM_OK;
}

static int export_add(struct blkd_options *o, const char *text)
{
	struct blkd_export_options *e = &o->exports[o->nexports];
	uint32_t given = 0;
	int status;

	if (o->nexports == BLKD_EXPORTS_MAX)
		return blkd_fail(PROGRAM_USAGE, "--export %.60s: at most %u are possible", text,
			BLKD_EXPORTS_MAX);
	*e = (struct blkd_export_options){
		.text = strdup(text),
		.listen_fd = -1,
		.image = {.fd = -1, .claim_wait_ms = CLAIM_WAIT_MS},
		.queues = 1,
		.queue_size = 256,
		.ring = SPLIT_RING_PACKED,
	};
	if (!e->text)
		return blkd_fail(PROGRAM_HOST, "no memory");
	o->nexports++;
	for (char *item = e->text, *next; item; item = next) {
		next = program_item_cut(item);
		status = key_set(e, item, &given);
		if (status)
			return status;
	}
	return export_check(e, text);
}

/* ------------------------------------------------------------------ options */

enum {
	O_EXPORT,
	O_IO_THREADS,
	O_POLL_US,
	O_NO_IO_URING,
	O_CONTROL,
	O_PIDFILE,
	O_VERSION,
	O_HELP,
	O_HELP_SHORT,
	O_COUNT
};

static const struct program_option options[] = {
	[O_EXPORT] = {"--export", true, true},
	[O_IO_THREADS] = {"--io-threads", true, false},
	[O_POLL_US] = {"--poll-us", true, false},
	[O_NO_IO_URING] = {"--no-io-uring", false, false},
	[O_CONTROL] = {"--control", true, false},
	[O_PIDFILE] = {"--pidfile", true, false},
	[O_VERSION] = {"--version", false, false},
	[O_HELP] = {"--help", false, false},
	[O_HELP_SHORT] = {"-h", false, false},
};

static int option_set(struct blkd_options *o, int option, const char *value, bool *done)
{
	switch (option) {
	case O_EXPORT:
		return export_add(o, value);
	case O_IO_THREADS:
		return number_set("--io-threads", value, 1, BLKD_IO_THREADS_MAX, &o->io_threads);
	case O_POLL_US:
		return number_set("--poll-us", value, 0, 1000000, &o->poll_us);
	case O_NO_IO_URING:
		o->no_io_uring = true;
		return PROGRAM_OK;
	case O_CONTROL:
		o->control = value;
		return PROGRAM_OK;
	case O_PIDFILE:
		o->pidfile = value;
		return PROGRAM_OK;
	case O_VERSION:
		puts("sluice-blkd " SLUICE_VERSION);
		*done = true;
		return PROGRAM_OK;
	default:
		fputs(help, stdout);
		*done = true;
		return PROGRAM_OK;
	}
}

int blkd_options_parse(struct blkd_options *o, int argc, char **argv, bool *done)
{
	uint32_t given = 0;

	*o = (struct blkd_options){.io_threads = 1, .poll_us = POLL_US_DEFAULT};
	*done = false;
	for (int i = 1; i < argc && !*done; i++) {
		const char *value = NULL;
		int option, status = program_option_take("sluice-blkd", options, O_COUNT, argv, &i,
				    &given, &option, &value);

		if (!status)
			status = option_set(o, option, value, done);
		if (status)
			return status;
	}
	if (!*done && !o->nexports)
		return blkd_fail(
			PROGRAM_USAGE, "--export: missing; give --export socket=PATH,path=FILE");
	return PROGRAM_OK;
}

void blkd_options_free(struct blkd_options *o)
{
	for (unsigned i = 0; i < o->nexports; i++)
		free(o->exports[i].text);
	o->nexports = 0;
}
