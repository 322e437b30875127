/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening, checking and describing an image. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk/blk_priv.h"

/* The kernel lets go of a killed process's io_uring, and so of its files, a little late. */
#define IMAGE_CLAIM_WAIT_MS 200u
#define IMAGE_CLAIM_STEP_MS 20u

static const char *const image_engine_names[] = {
	[BLK_ENGINE_AUTO] = "auto",
	[BLK_ENGINE_URING] = "io_uring",
	[BLK_ENGINE_AIO] = "aio",
	[BLK_ENGINE_THREADS] = "threads",
	[BLK_ENGINE_NBD] = "nbd",
};

const char *blk_engine_name(enum blk_engine engine)
{
	if ((unsigned)engine >= sizeof(image_engine_names) / sizeof(image_engine_names[0]))
		return "unknown";
	return image_engine_names[engine];
}

int blk_engine_parse(const char *name, enum blk_engine *out)
{
	/* the last one is not a user's choice */
	for (unsigned i = 0; i < BLK_ENGINE_NBD; i++) {
		if (strcmp(name, image_engine_names[i]) == 0) {
			*out = (enum blk_engine)i;
			return 0;
		}
	}
	return -EINVAL;
}

void blk_why(char *why, const char *format, ...)
{
	va_list args;

	if (!why)
		return;
	va_start(args, format);
	vsnprintf(why, BLK_WHY_MAX, format, args);
	va_end(args);
}

void blk_image_note(struct blk_image *image, const char *format, ...)
{
	size_t size = sizeof(image->info.note), used;
	char text[128];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	pthread_mutex_lock(&image->lock);
	used = strlen(image->info.note);
	/* Every channel of an image may say the same. */
	if (!strstr(image->info.note, text))
		snprintf(image->info.note + used, size - used, "%s%s", used ? "; " : "", text);
	pthread_mutex_unlock(&image->lock);
}

enum blk_engine blk_image_engine(struct blk_image *image)
{
	enum blk_engine engine;

	pthread_mutex_lock(&image->lock);
	engine = image->info.engine;
	pthread_mutex_unlock(&image->lock);
	return engine;
}

void blk_image_engine_set(struct blk_image *image, enum blk_engine engine)
{
	pthread_mutex_lock(&image->lock);
	image->info.engine = engine;
	pthread_mutex_unlock(&image->lock);
}

static const char *image_kind(mode_t mode)
{
	if (S_ISDIR(mode))
		return "a directory";
	if (S_ISCHR(mode))
		return "a character device";
	if (S_ISFIFO(mode))
		return "a pipe";
	if (S_ISSOCK(mode))
		return "a socket";
	return "a special file";
}

static int image_check_kind(struct blk_image *image, mode_t mode, char *why)
{
	if (S_ISREG(mode) || S_ISBLK(mode)) {
		image->block_device = S_ISBLK(mode);
		return 0;
	}
	blk_why(why, "%s: is %s; expected a regular file or block device", image->name,
		image_kind(mode));
	return S_ISDIR(mode) ? -EISDIR : -EINVAL;
}

static int image_open_failed(struct blk_image *image, int rc, char *why)
{
	const char *name = image->name;

	if (rc == -ENOENT)
		blk_why(why,
			"%s: no such file; make one with `truncate -s 1G`, or correct the path",
			name);
	else if (rc == -EACCES || rc == -EPERM)
		blk_why(why, "%s: %s; give this user access%s", name, strerror(-rc),
			image->info.readonly ? "" : ", or use readonly=on");
	else if (rc == -EROFS)
		blk_why(why, "%s: read-only file system; use readonly=on", name);
	else if (rc == -EBUSY)
		blk_why(why, "%s: in use by this host (mounted?); unmount it or use readonly=on",
			name);
	else
		blk_why(why, "%s: %s", name, strerror(-rc));
	return rc;
}

static int image_open_path(struct blk_image *image, const char *path, char *why)
{
	/* Without O_NONBLOCK, opening a pipe waits for its other end. */
	int flags = (image->info.readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK;
	struct stat st;
	int rc;

	/* The kind comes first: a directory opened for writing only says EISDIR. */
	if (stat(path, &st) < 0)
		return image_open_failed(image, -errno, why);
	rc = image_check_kind(image, st.st_mode, why);
	if (rc)
		return rc;
	/* A block device opened so is refused while mounted, and cannot be mounted while used. */
	if (S_ISBLK(st.st_mode) && !image->info.readonly)
		flags |= O_EXCL;
	image->fd = open(path, flags);
	return image->fd < 0 ? image_open_failed(image, -errno, why) : 0;
}

static int image_check_fd(struct blk_image *image, char *why)
{
	int flags = fcntl(image->fd, F_GETFL);

	if (flags < 0) {
		blk_why(why, "%s: not an open descriptor", image->name);
		return -EBADF;
	}
	if (flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY) {
		blk_why(why, "%s: not open for reading; open it read-write", image->name);
		return -EBADF;
	}
	if (!image->info.readonly && (flags & O_ACCMODE) != O_RDWR) {
		blk_why(why, "%s: open for reading only; open it read-write or use readonly=on",
			image->name);
		return -EBADF;
	}
	return 0;
}

static int image_check_size(struct blk_image *image, char *why)
{
	unsigned long long size = 0;
	struct stat st;

	if (fstat(image->fd, &st) < 0) {
		blk_why(why, "%s: %s", image->name, strerror(errno));
		return -errno;
	}
	/* Again: the path may lead to another file by now, or a descriptor was given. */
	if (image_check_kind(image, st.st_mode, why))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (!image->block_device)
		size = (unsigned long long)st.st_size;
	else if (ioctl(image->fd, BLKGETSIZE64, &size) < 0)
		size = 0;
	if (!size) {
		blk_why(why, "%s: empty; expected a multiple of %u bytes (`truncate -s 1G`)",
			image->name, BLK_SECTOR);
		return -EINVAL;
	}
	/* Of a file in a format of its own, what matters is the size it says. */
	if (size % BLK_SECTOR && image->info.format == BLK_FORMAT_RAW) {
		blk_why(why,
			"%s: size %llu is not a multiple of %u; `truncate -s %%%u` rounds it up",
			image->name, size, BLK_SECTOR, BLK_SECTOR);
		return -EINVAL;
	}
	image->info.size = size;
	return 0;
}

static int image_claim(struct blk_image *image, unsigned wait_ms, char *why)
{
	int rc;

	if (wait_ms < IMAGE_CLAIM_WAIT_MS)
		wait_ms = IMAGE_CLAIM_WAIT_MS;
	/* asked again and again: a lock that is waited for would keep the claims of others away */
	while ((rc = blk_claim(image->fd, image->info.readonly)) == -EBUSY && wait_ms) {
		unsigned step = wait_ms < IMAGE_CLAIM_STEP_MS ? wait_ms : IMAGE_CLAIM_STEP_MS;

		usleep(step * 1000);
		wait_ms -= step;
	}
	if (rc == -EBUSY)
		blk_why(why, "%s: in use by another process; stop it%s", image->name,
			image->info.readonly ? " (it writes to the image)"
					     : ", or use readonly=on in all of them");
	else if (rc < 0)
		blk_why(why, "%s: cannot be locked: %s", image->name, strerror(-rc));
	else if (rc > 0)
		blk_image_note(image, "no locks on %s: unclaimed", image->info.file_system);
	image->claimed = rc == 0;
	return rc < 0 ? rc : 0;
}

static int image_prepare(struct blk_image *image, const struct blk_options *opts, char *why)
{
	int rc;

	if (opts->nbd)
		return blk_nbd_open(image, opts, why);
	rc = opts->path ? image_open_path(image, opts->path, why) : image_check_fd(image, why);
	if (rc)
		return rc;
	rc = blk_format_probe(image, opts->format, why);
	if (rc)
		return rc;
	rc = image_check_size(image, why);
	if (rc)
		return rc;
	blk_probe_file_system(image);
	rc = image_claim(image, opts->claim_wait_ms, why);
	if (rc)
		return rc;
	/* With faults the page cache is the disk: it outlives the process. */
	rc = blk_probe_direct(image,
		opts->fault && opts->direct == BLK_DIRECT_AUTO ? BLK_DIRECT_OFF : opts->direct,
		why);
	if (rc)
		return rc;
	blk_probe_ranges(image);
	if (image->info.format == BLK_FORMAT_QCOW2)
		rc = blk_qcow2_open(image, opts, why);
	if (rc)
		return rc;
	return blk_probe_engine(image, opts->engine, why);
}

int blk_open(struct blk_image **out, const struct blk_options *opts, char why[BLK_WHY_MAX])
{
	struct blk_image *image = calloc(1, sizeof(*image));
	bool given = !opts->path && !opts->nbd;
	int rc, flags = -1;

	if (!image) {
		blk_why(why, "no memory");
		return -ENOMEM;
	}
	pthread_mutex_init(&image->lock, NULL);
	image->fd = given ? opts->fd : -1;
	image->fd_buffered = -1;
	image->info.readonly = opts->readonly;
	image->engine_auto = opts->engine == BLK_ENGINE_AUTO;
	image->sqpoll = opts->sqpoll;
	image->registered_memory = opts->registered_memory;
	if (given)
		snprintf(image->name, sizeof(image->name), "fd %d", opts->fd);
	else
		snprintf(
			image->name, sizeof(image->name), "%s", opts->nbd ? opts->nbd : opts->path);
	if (given)
		flags = fcntl(opts->fd, F_GETFL);
	rc = image_prepare(image, opts, why);
	if (!rc && opts->fault)
		rc = blk_fault_open(image, opts->fault, why);
	if (!rc) {
		*out = image;
		return 0;
	}
	if (given && flags >= 0) {
		/* The caller keeps it, as it was. */
		if (image->claimed)
			blk_claim_release(image->fd);
		fcntl(image->fd, F_SETFL, flags);
		image->fd = -1;
	}
	blk_close(image);
	return rc;
}

void blk_close(struct blk_image *image)
{
	if (!image)
		return;
	blk_fault_close(image->fault);
	blk_qcow2_close(image);
	blk_nbd_close(image->nbd);
	if (image->fd_buffered >= 0)
		close(image->fd_buffered);
	/* an io_uring that ends holds on to its files for a while yet, and locks go with the last
	 */
	if (image->fd >= 0 && image->claimed)
		blk_claim_release(image->fd);
	if (image->fd >= 0)
		close(image->fd);
	pthread_mutex_destroy(&image->lock);
	free(image);
}

void blk_info_get(const struct blk_image *image, struct blk_info *out)
{
	struct blk_image *writable = (struct blk_image *)image;

	pthread_mutex_lock(&writable->lock);
	*out = image->info;
	pthread_mutex_unlock(&writable->lock);
}

int blk_sync(struct blk_image *image)
{
	int rc = image->fault ? blk_fault_sync(image->fault) : 0;

	if (!rc && image->qcow2)
		rc = blk_qcow2_sync(image);
	if (rc)
		return rc;
	if (image->nbd)
		return image->info.readonly ? 0 : blk_nbd_sync(image);
	do
		rc = fsync(image->fd);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

void blk_abandon(struct blk_image *image)
{
	if (image->nbd)
		blk_nbd_abandon(image->nbd);
}
