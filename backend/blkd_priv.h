/* SPDX-License-Identifier: BSD-2-Clause */
/* The program sluice-blkd: disks for other processes' guests. */
#ifndef BLKD_PRIV_H
#define BLKD_PRIV_H

#include "backend/backend.h"
#include "backend/program_priv.h"

#define BLKD_EXPORTS_MAX    64u
#define BLKD_IO_THREADS_MAX 16u

struct blkd_export_options {
	char *text; /* holds the strings */
	const char *socket;
	int listen_fd;
	enum vhost_socket_mode mode;
	struct blk_options image;
	const char *serial;
	unsigned queues, queue_size;
	enum split_ring_choice ring;
};

struct blkd_options {
	struct blkd_export_options exports[BLKD_EXPORTS_MAX];
	unsigned nexports;
	unsigned io_threads, poll_us;
	bool no_io_uring;
	const char *control;
	const char *pidfile;
};

/* PROGRAM_OK with *done: there is nothing more to do (help, version); else a status, and one line
 * was printed. */
int blkd_options_parse(struct blkd_options *o, int argc, char **argv, bool *done);
void blkd_options_free(struct blkd_options *o);

/* One line on stderr; returns status. */
int blkd_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A disk and who uses it. */
struct blkd_export {
	const struct blkd_export_options *opts;
	struct io_thread *io;
	struct blk_image *image;
	struct vhost_server *server;
};

struct blkd {
	struct blkd_options *opts;
	struct io_thread *io[BLKD_IO_THREADS_MAX];
	struct blkd_export exports[BLKD_EXPORTS_MAX];
	unsigned nexports;
	struct control_server *control;
};

/* GET /exports, /exports/N and /metrics. */
extern const struct control_route blkd_routes[];

#endif
