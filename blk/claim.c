/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Claiming an image with the locks QEMU's file driver uses, so that its tools and this program
 * see one another. Each permission has a byte at 100 + n, locked by whoever uses it, and one at
 * 200 + n, locked by whoever does not want others to use it. All locks are shared ones; whether
 * somebody is in the way is asked afterwards, so that of two racing claimants at least one sees
 * the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "blk/blk_priv.h"

#define PERM_BASE     100
#define UNSHARED_BASE 200

#define PERM_READ            (1u << 0) /* consistent reads */
#define PERM_WRITE           (1u << 1)
#define PERM_WRITE_UNCHANGED (1u << 2)
#define PERM_RESIZE          (1u << 3)
#define PERM_COUNT           4

static int claim_lock(int fd, int command, short type, off_t start, off_t length)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start};
	int rc;

	lock.l_len = length;
	do
		rc = fcntl(fd, command, &lock);
	while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
	return command == F_OFD_GETLK && lock.l_type != F_UNLCK ? -EBUSY : 0;
}

static int claim_each(int fd, int command, short type, off_t base, unsigned perms)
{
	for (int i = 0; i < PERM_COUNT; i++) {
		int rc = perms & 1u << i ? claim_lock(fd, command, type, base + i, 1) : 0;

		if (rc)
			return rc;
	}
	return 0;
}

void blk_claim_release(int fd)
{
	claim_lock(fd, F_OFD_SETLK, F_UNLCK, PERM_BASE, PERM_COUNT);
	claim_lock(fd, F_OFD_SETLK, F_UNLCK, UNSHARED_BASE, PERM_COUNT);
}

int blk_claim(int fd, bool readonly)
{
	unsigned used = PERM_READ | (readonly ? 0 : PERM_WRITE);
	unsigned unshared = PERM_WRITE | PERM_RESIZE;
	int rc;

	rc = claim_each(fd, F_OFD_SETLK, F_RDLCK, PERM_BASE, used);
	if (!rc)
		rc = claim_each(fd, F_OFD_SETLK, F_RDLCK, UNSHARED_BASE, unshared);
	if (!rc)
		rc = claim_each(fd, F_OFD_GETLK, F_WRLCK, UNSHARED_BASE, used);
	if (!rc)
		rc = claim_each(fd, F_OFD_GETLK, F_WRLCK, PERM_BASE, unshared);
	if (!rc)
		return 0;
	blk_claim_release(fd);
	if (rc == -ENOLCK || rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -EINVAL)
		return 1;
	return rc;
}
