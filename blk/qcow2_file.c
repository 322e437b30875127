/* SPDX-License-Identifier: BSD-2-Clause */
/* The file below a qcow2 image: whole transfers, counted. Any thread, blocking. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk/qcow2_priv.h"

/* Of this thread: a worker tells its pool how many calls a request took. */
static _Thread_local uint64_t file_calls;

uint64_t qcow2_calls_get(void)
{
	return file_calls;
}

int qcow2_file_read(int fd, void *to, uint64_t length, uint64_t offset)
{
	uint8_t *at = to;

	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return -EIO;
	while (length) {
		ssize_t n = pread(fd, at, qcow2_min(length, BLK_PIECE_MAX), (off_t)offset);

		file_calls++;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			memset(at, 0, length);
			return 0;
		}
		at += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

int qcow2_file_write(int fd, const void *from, uint64_t length, uint64_t offset)
{
	const uint8_t *at = from;

	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return -EIO;
	while (length) {
		ssize_t n = pwrite(fd, at, qcow2_min(length, BLK_PIECE_MAX), (off_t)offset);

		file_calls++;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		at += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

int qcow2_file_sync(struct qcow2 *q)
{
	int rc;

	do {
		rc = fdatasync(q->fd_data);
		file_calls++;
	} while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

/* Lock held. */
int qcow2_file_extend(struct qcow2 *q, uint64_t end)
{
	int rc;

	if (end <= q->file_end)
		return 0;
	if (q->block_device)
		return -ENOSPC;
	do {
		rc = ftruncate(q->fd, (off_t)end);
		file_calls++;
	} while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return errno == EFBIG ? -ENOSPC : -errno;
	q->file_end = end;
	return 0;
}

/* Advice: what goes wrong only keeps space in use. */
void qcow2_file_punch(struct qcow2 *q, uint64_t offset, uint64_t length)
{
	uint64_t range[2] = {offset, length};
	unsigned can = q->can ? atomic_load_explicit(q->can, memory_order_relaxed) : 0;
	int rc = 0;

	if (q->block_device && can & BLK_CAN_DISCARD) {
		rc = ioctl(q->fd_data, BLKDISCARD, range);
		file_calls++;
	} else if (!q->block_device && can & BLK_CAN_PUNCH) {
		rc = fallocate(q->fd_data, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)offset, (off_t)length);
		file_calls++;
	}
	(void)rc;
}

int qcow2_file_size(int fd, uint64_t *size)
{
	unsigned long long bytes = 0;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISREG(st.st_mode))
		bytes = (unsigned long long)st.st_size;
	else if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
		return -errno;
	*size = bytes;
	return 0;
}
