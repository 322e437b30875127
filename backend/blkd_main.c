/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sluice-blkd: disk images served by vhost-user. The request code and the I/O thread are those of
 * the monitor; this file opens, waits for a signal, and closes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/blkd_priv.h"

/* ------------------------------------------------------------------ exports */

static int device_create(void *ctx, unsigned connection, struct split_device **out,
	const struct ring_mem *mem, const struct split_signal *signal, char why[BACKEND_WHY_MAX])
{
	struct blkd_export *e = ctx;
	const struct split_blk_options o = {
		.image = e->image,
		.queues = e->opts->queues,
		.queue_size = e->opts->queue_size,
		.ring = e->opts->ring,
		.serial = e->opts->serial ? e->opts->serial : "",
	};

	(void)connection;
	return split_blk_create(out, e->io, mem, signal, &o, why);
}

static const char *export_name(const struct blkd_export *e)
{
	return e->opts->socket ? e->opts->socket : "listen-fd";
}

static void export_note(void *ctx, unsigned connection, const char *line)
{
	(void)connection;
	fprintf(stderr, "sluice-blkd: %.100s: %s\n", export_name(ctx), line);
}

static int export_open(struct blkd *b, const struct blkd_export_options *opts)
{
	struct blkd_export *e = &b->exports[b->nexports];
	struct vhost_server_options so = {
		.path = opts->socket,
		.fd = opts->listen_fd,
		.mode = opts->mode,
		.create = device_create,
		.note = export_note,
		.ctx = e,
	};
	char why[BACKEND_WHY_MAX] = "";
	int err;

	e->opts = opts;
	e->io = b->io[b->nexports % b->opts->io_threads];
	err = blk_open(&e->image, &opts->image, why);
	if (err)
		return blkd_fail(program_status_of(err), "--export %s", why);
	/* only now: whoever finds the socket finds the image claimed */
	err = vhost_server_create(&e->server, &so, why);
	if (err) {
		blk_close(e->image);
		return blkd_fail(program_status_of(err), "--export %s", why);
	}
	b->nexports++;
	return PROGRAM_OK;
}

/* Every accepted write is on disk afterwards. */
static int export_close(struct blkd_export *e)
{
	int err;

	vhost_server_destroy(e->server);
	err = e->opts->image.readonly ? 0 : blk_sync(e->image);
	if (err)
		blkd_fail(
			PROGRAM_HOST, "%s: writes may be lost: %s", export_name(e), strerror(-err));
	blk_close(e->image);
	return err ? PROGRAM_HOST : PROGRAM_OK;
}

/* ------------------------------------------------------------------ from start to end */

static int threads_start(struct blkd *b)
{
	char why[BACKEND_WHY_MAX] = "";

	for (unsigned i = 0; i < b->opts->io_threads; i++) {
		char name[16];
		const struct io_thread_options o = {
			.name = name,
			.poll_max_us = b->opts->poll_us,
			.no_uring = b->opts->no_io_uring,
		};

		snprintf(name, sizeof(name), "io%u", i);
		if (io_thread_create(&b->io[i], &o, why))
			return blkd_fail(PROGRAM_HOST, "%s", why);
	}
	return PROGRAM_OK;
}

static int blkd_open(struct blkd *b)
{
	char why[BACKEND_WHY_MAX] = "";
	int status = threads_start(b);

	for (unsigned i = 0; !status && i < b->opts->nexports; i++)
		status = export_open(b, &b->opts->exports[i]);
	if (!status && b->opts->control) {
		int err = control_server_create(&b->control, b->opts->control, blkd_routes, b, why);

		if (err)
			status = blkd_fail(program_status_of(err), "--%s", why);
	}
	if (!status && b->opts->pidfile) {
		int err = program_pidfile_write(b->opts->pidfile);

		if (err)
			status = blkd_fail(program_status_of(err), "--pidfile %.100s: %s",
				b->opts->pidfile, strerror(-err));
	}
	return status;
}

static int blkd_close(struct blkd *b)
{
	int status = PROGRAM_OK;

	control_server_destroy(b->control);
	while (b->nexports) {
		int one = export_close(&b->exports[--b->nexports]);

		status = one ? one : status;
	}
	for (unsigned i = 0; i < b->opts->io_threads; i++)
		io_thread_destroy(b->io[i]);
	if (b->opts->pidfile)
		unlink(b->opts->pidfile);
	return status;
}

int main(int argc, char **argv)
{
	static struct blkd_options opts; /* large */
	static struct blkd b;
	sigset_t set;
	bool done;
	int number, closed, status = blkd_options_parse(&opts, argc, argv, &done);

	if (!status && !done) {
		program_signals_block(&set);
		b.opts = &opts;
		status = blkd_open(&b);
		if (!status) {
			fprintf(stderr, "sluice-blkd: ready\n");
			while (sigwait(&set, &number))
				;
			fprintf(stderr, "sluice-blkd: stopped by SIG%s\n", sigabbrev_np(number));
		}
		closed = blkd_close(&b);
		status = status ? status : closed;
	}
	blkd_options_free(&opts);
	return status;
}
