/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening and closing one file of a chain, and an image in this format. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk/qcow2_priv.h"

#define HEADER_AUTOCLEAR   88u
#define DIRECT_CLUSTER_MIN 4096u

/* Closing writes what is left, and then frees what that made free; a few times must do. */
#define CLOSE_FLUSHES 3

static int open_table_read(struct qcow2 *q, uint64_t **table, uint64_t offset, uint32_t entries)
{
	int rc;

	*table = malloc(entries * 8ull + 1);
	if (!*table)
		return -ENOMEM;
	rc = qcow2_file_read(q->fd, *table, entries * 8ull, offset);
	for (uint32_t i = 0; !rc && i < entries; i++)
		(*table)[i] = qcow2_be64((*table)[i]);
	return rc;
}

static int open_tables(struct qcow2 *q, char *why)
{
	int rc = open_table_read(q, &q->l1, q->l1_offset, q->l1_used);

	if (!rc && !q->readonly)
		rc = open_table_read(q, &q->reftable, q->reftable_offset, q->reftable_size);
	q->l1_dirty = calloc(q->l1_used / 64 + 1, sizeof(bool));
	if (!rc && !q->l1_dirty)
		rc = -ENOMEM;
	if (rc)
		blk_why(why, "%s: its tables cannot be read: %s", q->name, strerror(-rc));
	return rc;
}

/* Before the first write: what others recorded and this does not keep up is declared void. */
static int open_for_writing(struct qcow2 *q, char *why)
{
	static const uint8_t none[8];
	int rc = 0;

	if (q->incompatible & QCOW2_INCOMPATIBLE_CORRUPT) {
		blk_why(why, "%s: marked corrupt; `qemu-img check -r all`, or use readonly=on",
			q->name);
		return -EIO;
	}
	if (q->incompatible & QCOW2_INCOMPATIBLE_DIRTY)
		rc = qcow2_repair(q, why);
	if (rc || !q->autoclear)
		return rc;
	rc = qcow2_file_write(q->fd, none, sizeof(none), HEADER_AUTOCLEAR);
	if (!rc)
		rc = qcow2_file_sync(q);
	if (rc)
		blk_why(why, "%s: cannot be written: %s", q->name, strerror(-rc));
	return rc;
}

static int node_fill(struct qcow2 *q, const char *directory, char *why)
{
	int rc = qcow2_header_read(q, why);

	if (!rc)
		rc = open_tables(q, why);
	if (!rc)
		rc = qcow2_backing_open(q, directory, why);
	if (!rc && !q->readonly)
		rc = open_for_writing(q, why);
	q->above = NULL;
	return rc;
}

int qcow2_node_open(struct qcow2 **out, int fd, const char *name, const char *directory,
	bool readonly, const struct qcow2 *above, char *why)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	struct stat st;
	int rc;

	if (!q) {
		blk_why(why, "%.100s: no memory", name);
		return -ENOMEM;
	}
	pthread_mutex_init(&q->flushing, NULL);
	pthread_mutex_init(&q->lock, NULL);
	pthread_mutex_init(&q->unpack_lock, NULL);
	pthread_cond_init(&q->settled, NULL);
	q->fd = q->fd_data = fd;
	q->align = 1;
	q->readonly = readonly;
	q->above = above;
	snprintf(q->name, sizeof(q->name), "%s", name);
	rc = fstat(fd, &st) < 0 ? -errno : qcow2_file_size(fd, &q->file_end);
	if (rc) {
		blk_why(why, "%s: %s", q->name, strerror(-rc));
	} else {
		q->block_device = S_ISBLK(st.st_mode);
		q->dev = st.st_dev;
		q->ino = st.st_ino;
		rc = node_fill(q, directory, why);
	}
	if (rc)
		qcow2_node_close(q);
	else
		*out = q;
	return rc;
}

void qcow2_node_close(struct qcow2 *q)
{
	qcow2_backing_close(q);
	qcow2_slices_free(q);
	pthread_cond_destroy(&q->settled);
	pthread_mutex_destroy(&q->unpack_lock);
	pthread_mutex_destroy(&q->lock);
	pthread_mutex_destroy(&q->flushing);
	if (q->fd_is_own)
		close(q->fd);
	free(q->l1);
	free(q->l1_dirty);
	free(q->reftable);
	free(q->pending);
	free(q->unpacked);
	free(q);
}

/* ------------------------------------------------------------------ an image */

/* The folder of the image's file, by its path or by what the descriptor leads to. */
static void image_directory(
	const struct blk_image *image, const char *path, char directory[PATH_MAX])
{
	char link[32];
	ssize_t n = -1;
	char *slash;

	if (path) {
		snprintf(directory, PATH_MAX, "%s", path);
	} else {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", image->fd);
		n = readlink(link, directory, PATH_MAX - 1);
		directory[n > 0 ? n : 0] = 0;
	}
	slash = strrchr(directory, '/');
	if (slash)
		slash[slash == directory] = 0;
	else
		snprintf(directory, PATH_MAX, ".");
}

/* Below a page, clusters and tables share pages, which direct and buffered transfers must not. */
static int image_settle_direct(struct blk_image *image, enum blk_direct direct, char *why)
{
	struct qcow2 *q = image->qcow2;
	int flags;

	q->fd_data = image->fd;
	if (!image->info.direct)
		return 0;
	if (q->cluster_size < DIRECT_CLUSTER_MIN && direct == BLK_DIRECT_ON) {
		blk_why(why, "%s: direct=on: clusters of %u bytes are too small; use direct=auto",
			image->name, (unsigned)q->cluster_size);
		return -EINVAL;
	}
	q->align = image->mem_align > image->info.block_size ? image->mem_align
							     : image->info.block_size;
	if (q->cluster_size >= DIRECT_CLUSTER_MIN)
		return 0;
	flags = fcntl(image->fd, F_GETFL);
	if (flags < 0 || fcntl(image->fd, F_SETFL, flags & ~O_DIRECT) < 0) {
		blk_why(why, "%s: %s", image->name, strerror(errno));
		return -errno;
	}
	image->info.direct = false;
	image->info.block_size = BLK_SECTOR;
	image->mem_align = q->align = 1;
	blk_image_note(image, "clusters too small for direct I/O");
	return 0;
}

static void image_info_fill(struct blk_image *image)
{
	struct qcow2 *q = image->qcow2;

	image->info.size = q->size;
	image->info.format = BLK_FORMAT_QCOW2;
	image->info.cluster_size = (uint32_t)q->cluster_size;
	image->info.backing_files = q->depth;
	snprintf(image->info.backing, sizeof(image->info.backing), "%.*s",
		(int)sizeof(image->info.backing) - 1, q->backing_name);
	image->info.discard = !q->readonly;
	image->info.write_zeroes = !q->readonly;
}

int blk_qcow2_open(struct blk_image *image, const struct blk_options *opts, char *why)
{
	char *directory = malloc(PATH_MAX);
	char again[32];
	int fd = image->fd, rc;

	/* Tables are smaller than what O_DIRECT asks for, and better kept in the page cache. */
	if (directory && image->info.direct) {
		snprintf(again, sizeof(again), "/proc/self/fd/%d", image->fd);
		fd = open(again, (image->info.readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	}
	if (!directory || fd < 0) {
		blk_why(why, "%s: cannot be opened a second time: %s; use direct=off", image->name,
			strerror(errno));
		free(directory);
		return -errno;
	}
	image_directory(image, opts->path, directory);
	rc = qcow2_node_open(
		&image->qcow2, fd, image->name, directory, image->info.readonly, NULL, why);
	free(directory);
	if (rc) {
		if (fd != image->fd)
			close(fd);
		return rc;
	}
	image->qcow2->fd_is_own = fd != image->fd;
	image->qcow2->can = &image->can;
	rc = image_settle_direct(image, opts->direct, why);
	if (!rc)
		image_info_fill(image);
	return rc;
}

void blk_qcow2_close(struct blk_image *image)
{
	struct qcow2 *q = image->qcow2;

	for (int i = 0; q && !q->readonly && i < CLOSE_FLUSHES && !qcow2_is_clean(q); i++)
		if (qcow2_flush(q))
			break;
	if (q)
		qcow2_node_close(q);
	image->qcow2 = NULL;
}

int blk_qcow2_sync(struct blk_image *image)
{
	return qcow2_flush(image->qcow2);
}
