/* SPDX-License-Identifier: BSD-2-Clause */
/* What lies below an overlay: opened for reading, claimed so that nobody writes to it meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk/qcow2_priv.h"

static int backing_failed(struct qcow2 *q, int rc, const char *path, const char *what, char *why)
{
	blk_why(why, "%.70s: backing file %.90s: %s", q->name, path, what);
	return rc;
}

/* Names relative to the overlay's own folder; "json:" and the like are no files. */
static int backing_path(struct qcow2 *q, const char *directory, char path[PATH_MAX], char *why)
{
	const char *name = q->backing_name;
	size_t plain = strcspn(name, "/:");
	int n;

	if (!strncmp(name, "file:", 5))
		name += 5;
	else if (name[plain] == ':')
		return backing_failed(
			q, -ENOTSUP, name, "only plain file names are supported", why);
	n = snprintf(path, PATH_MAX, "%s%s%s", name[0] == '/' ? "" : directory,
		name[0] == '/' || !*directory ? "" : "/", name);
	if (n < 0 || n >= PATH_MAX)
		return backing_failed(q, -ENAMETOOLONG, name, "the name is too long", why);
	return 0;
}

static bool backing_loops(const struct qcow2 *q, const struct stat *st)
{
	for (unsigned i = 0; q && i <= QCOW2_CHAIN_MAX; i++, q = q->above)
		if (q->dev == st->st_dev && q->ino == st->st_ino)
			return true;
	return false;
}

static int backing_file_open(struct qcow2 *q, const char *path, int *fd, char *why)
{
	struct stat st;
	int rc;

	/* Opening some devices has consequences: an image must not be able to choose them. */
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return backing_failed(
			q, -EINVAL, path, "expected a regular file or block device", why);
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0 || fstat(*fd, &st) < 0)
		return backing_failed(q, -errno, path, strerror(errno), why);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return backing_failed(
			q, -EINVAL, path, "expected a regular file or block device", why);
	if (backing_loops(q, &st))
		return backing_failed(q, -ELOOP, path, "is in its own chain of backing files", why);
	rc = blk_claim(*fd, true);
	if (rc < 0)
		return backing_failed(q, rc, path,
			rc == -EBUSY ? "another process writes to it; stop that" : strerror(-rc),
			why);
	return 0;
}

static int backing_is_qcow2(struct qcow2 *q, int fd, const char *path, bool *is, char *why)
{
	uint32_t magic = 0;
	int rc = 0;

	if (!strcmp(q->backing_format, "qcow2"))
		*is = true;
	else if (!strcmp(q->backing_format, "raw"))
		*is = false;
	else if (q->backing_format[0])
		return backing_failed(
			q, -ENOTSUP, path, "its format is neither raw nor qcow2", why);
	else
		rc = qcow2_file_read(fd, &magic, sizeof(magic), 0);
	if (rc)
		return backing_failed(q, rc, path, strerror(-rc), why);
	if (!q->backing_format[0])
		*is = __builtin_bswap32(magic) == QCOW2_MAGIC;
	return 0;
}

static int backing_node_open(struct qcow2 *q, struct qcow2_backing *b, const char *path, char *why)
{
	char directory[PATH_MAX];
	char *slash;
	int rc;

	snprintf(directory, sizeof(directory), "%s", path);
	slash = strrchr(directory, '/');
	if (slash)
		slash[slash == directory] = 0;
	else
		snprintf(directory, sizeof(directory), ".");
	rc = qcow2_node_open(&b->qcow2, b->fd, path, directory, true, q, why);
	if (rc)
		return rc;
	b->size = b->qcow2->size;
	q->depth = b->qcow2->depth + 1;
	return 0;
}

static int backing_open_at(struct qcow2 *q, struct qcow2_backing *b, const char *path, char *why)
{
	bool is_qcow2 = false;
	int rc = backing_file_open(q, path, &b->fd, why);

	if (!rc)
		rc = backing_is_qcow2(q, b->fd, path, &is_qcow2, why);
	if (rc || is_qcow2)
		return rc ? rc : backing_node_open(q, b, path, why);
	q->depth = 1;
	rc = qcow2_file_size(b->fd, &b->size);
	return rc ? backing_failed(q, rc, path, strerror(-rc), why) : 0;
}

int qcow2_backing_open(struct qcow2 *q, const char *directory, char *why)
{
	struct qcow2_backing *b;
	unsigned above = 0;
	char *path;
	int rc;

	if (!q->backing_name[0])
		return 0;
	for (const struct qcow2 *up = q->above; up; up = up->above)
		above++;
	if (above >= QCOW2_CHAIN_MAX)
		return backing_failed(
			q, -ELOOP, q->backing_name, "the chain of backing files is too long", why);
	b = calloc(1, sizeof(*b));
	path = malloc(PATH_MAX);
	if (!b || !path) {
		free(b);
		free(path);
		return backing_failed(q, -ENOMEM, q->backing_name, "no memory", why);
	}
	b->fd = -1;
	q->backing = b;
	rc = backing_path(q, directory, path, why);
	if (!rc)
		rc = backing_open_at(q, b, path, why);
	free(path);
	return rc;
}

void qcow2_backing_close(struct qcow2 *q)
{
	if (!q->backing)
		return;
	if (q->backing->qcow2)
		qcow2_node_close(q->backing->qcow2);
	if (q->backing->fd >= 0)
		close(q->backing->fd);
	free(q->backing);
	q->backing = NULL;
}

/* Past its end, and without one, there are zeroes. */
int qcow2_backing_read(struct qcow2 *q, void *to, uint64_t length, uint64_t offset)
{
	struct qcow2_backing *b = q->backing;
	uint64_t there = b && offset < b->size ? qcow2_min(length, b->size - offset) : 0;

	memset((uint8_t *)to + there, 0, length - there);
	if (!there)
		return 0;
	if (b->qcow2)
		return qcow2_read(b->qcow2, to, there, offset);
	return qcow2_file_read(b->fd, to, there, offset);
}
