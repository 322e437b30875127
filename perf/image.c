/* SPDX-License-Identifier: BSD-2-Clause */
/* The image every disk contender works on: each sector says where it is, so that the guest can
 * verify all it reads. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/bench_priv.h"
#include "perf/pattern.h"

#define IMAGE_CHUNK (1u << 20)

static int image_fill(int fd, uint64_t size)
{
	uint8_t *buf = aligned_alloc(4096, IMAGE_CHUNK);
	int err = 0;

	if (!buf)
		return -ENOMEM;
	for (uint64_t at = 0; at < size && !err; at += IMAGE_CHUNK) {
		size_t n = size - at < IMAGE_CHUNK ? size - at : IMAGE_CHUNK;

		pattern_block_fill(buf, n, at / PATTERN_SECTOR, 1);
		for (size_t done = 0; done < n && !err;) {
			ssize_t put = pwrite(fd, buf + done, n - done, (off_t)(at + done));

			if (put < 0 && errno != EINTR)
				err = -errno;
			done += put > 0 ? (size_t)put : 0;
		}
	}
	free(buf);
	if (!err && fsync(fd))
		err = -errno;
	return err;
}

int bench_image_make(const char *path, uint64_t size, char why[VMM_WHY_MAX])
{
	int fd, err;

	if (!size || size % PATTERN_SECTOR) {
		snprintf(why, VMM_WHY_MAX,
			"--image-size: must be a multiple of 512 bytes, and not 0");
		return -EINVAL;
	}
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
	err = fd < 0 ? -errno : image_fill(fd, size);
	if (fd >= 0)
		close(fd);
	if (err && err != -EEXIST)
		unlink(path);
	if (err)
		snprintf(why, VMM_WHY_MAX, "%s: %s%s", path, strerror(-err),
			err == -EEXIST ? "; remove it first" : "");
	return err;
}

/* First, last and a few sectors between must carry the pattern: writing to any other file would
 * destroy it. */
static int image_check(int fd, const char *path, char why[VMM_WHY_MAX])
{
	uint64_t word[PATTERN_SECTOR / 8], sectors;
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	sectors = (uint64_t)st.st_size / PATTERN_SECTOR;
	for (unsigned i = 0; i <= 16 && sectors; i++) {
		uint64_t s = (sectors - 1) * i / 16;

		if (pread(fd, word, sizeof(word), (off_t)(s * PATTERN_SECTOR)) != sizeof(word) ||
			pattern_sector_check(word, s) < 0) {
			snprintf(why, VMM_WHY_MAX,
				"--image %s: not a benchmark image (make one with: sluice bench "
				"--make-image FILE)",
				path);
			return -EINVAL;
		}
	}
	return 0;
}

int bench_image_open(struct bench *b, char why[VMM_WHY_MAX])
{
	const char *dir = getenv("TMPDIR");
	int err;

	if (b->opts.image) {
		int fd = open(b->opts.image, O_RDONLY | O_CLOEXEC);

		if (fd < 0) {
			err = -errno;
			snprintf(why, VMM_WHY_MAX,
				"--image %s: %s (make one with: sluice bench --make-image FILE)",
				b->opts.image, strerror(-err));
			return err;
		}
		err = image_check(fd, b->opts.image, why);
		close(fd);
		return err;
	}
	if (!dir)
		dir = "/var/tmp";
	/* nameless: it goes with the process, however that ends */
	b->image_fd = open(dir, O_TMPFILE | O_RDWR, 0600);
	err = b->image_fd < 0 ? -errno : image_fill(b->image_fd, b->opts.image_size);
	if (err) {
		snprintf(why, VMM_WHY_MAX,
			"a temporary image in %s: %s (set TMPDIR, or give --image FILE)", dir,
			strerror(-err));
		return err;
	}
	snprintf(
		b->image_path, sizeof(b->image_path), "/proc/%d/fd/%d", (int)getpid(), b->image_fd);
	return 0;
}
