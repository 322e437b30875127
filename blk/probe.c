/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the host allows for one image: direct I/O and its alignment, punching and zeroing, the
 * engine. Everything is found out while the image is opened; nothing here changes its content.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "blk/blk_priv.h"

/* The mask bit and the two words of struct statx that tell about direct I/O (Linux 6.1), by
 * number because the C library's headers may be older than the kernel. */
#define PROBE_STATX_DIOALIGN     0x2000u
#define PROBE_STATX_MEM_ALIGN    (0x98 / 4)
#define PROBE_STATX_OFFSET_ALIGN (0x9c / 4)

#define FS_MEMORY     1u /* content lives in memory only: O_DIRECT means nothing */
#define FS_ZERO_RANGE 2u /* fallocate ZERO_RANGE is there (there is no harmless way to try it) */

static const struct {
	uint32_t magic;
	const char *name;
	unsigned flags;
} probe_file_systems[] = {
	{0x0000ef53, "ext4", FS_ZERO_RANGE},
	{0x58465342, "xfs", FS_ZERO_RANGE},
	{0x9123683e, "btrfs", FS_ZERO_RANGE},
	{0xf2f52010, "f2fs", FS_ZERO_RANGE},
	{0xfe534d42, "smb2", FS_ZERO_RANGE},
	{0xff534d42, "cifs", FS_ZERO_RANGE},
	{0xca451a4e, "bcachefs", FS_ZERO_RANGE},
	{0x65735546, "fuse", FS_ZERO_RANGE},
	{0x794c7630, "overlayfs", FS_ZERO_RANGE},
	{0x01021994, "tmpfs", FS_MEMORY},
	{0x858458f6, "ramfs", FS_MEMORY},
	{0x958458f6, "hugetlbfs", FS_MEMORY},
	{0x00006969, "nfs", 0},
	{0x01021997, "9p", 0},
	{0x2fc12fc1, "zfs", 0},
	{0x00004d44, "vfat", 0},
	{0x2011bab0, "exfat", 0},
	{0x00c36400, "ceph", 0},
};

/* The entry's flags; the name goes to the image. */
static unsigned probe_fs(struct blk_image *image)
{
	size_t size = sizeof(image->info.file_system);
	struct statfs fs;

	if (image->block_device) {
		snprintf(image->info.file_system, size, "block device");
		return FS_ZERO_RANGE;
	}
	if (fstatfs(image->fd, &fs) < 0) {
		snprintf(image->info.file_system, size, "unknown");
		return 0;
	}
	for (size_t i = 0; i < sizeof(probe_file_systems) / sizeof(probe_file_systems[0]); i++) {
		if (probe_file_systems[i].magic == (uint32_t)fs.f_type) {
			snprintf(image->info.file_system, size, "%s", probe_file_systems[i].name);
			return probe_file_systems[i].flags;
		}
	}
	snprintf(image->info.file_system, size, "0x%lx", (unsigned long)fs.f_type);
	return 0;
}

void blk_probe_file_system(struct blk_image *image)
{
	image->inline_reads = probe_fs(image) & FS_MEMORY;
}

/* A number from the block layer's description of a device; 0 when there is none. */
static uint64_t probe_queue_limit(int fd, const char *name)
{
	unsigned long long value = 0;
	struct stat st;
	char path[128];
	FILE *file = NULL;

	if (fstat(fd, &st) < 0)
		return 0;
	/* A partition has its limits with the disk it belongs to. */
	for (int up = 0; up < 2 && !file; up++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s", major(st.st_rdev),
			minor(st.st_rdev), up ? "../" : "", name);
		file = fopen(path, "re");
	}
	if (!file)
		return 0;
	if (fscanf(file, "%llu", &value) != 1)
		value = 0;
	fclose(file);
	return value;
}

void blk_probe_ranges(struct blk_image *image)
{
	unsigned can = 0;

	if (!image->info.readonly && image->block_device) {
		if (probe_queue_limit(image->fd, "discard_max_bytes"))
			can |= BLK_CAN_DISCARD;
		if (probe_queue_limit(image->fd, "write_zeroes_max_bytes"))
			can |= BLK_CAN_PUNCH | BLK_CAN_ZERO_RANGE;
	} else if (!image->info.readonly) {
		/* Beyond the end there is nothing to lose. */
		if (fallocate(image->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    (off_t)image->info.size, 4096) == 0)
			can |= BLK_CAN_PUNCH;
		if (probe_fs(image) & FS_ZERO_RANGE)
			can |= BLK_CAN_ZERO_RANGE;
	}
	image->can = can;
	image->info.discard = can & (image->block_device ? BLK_CAN_DISCARD : BLK_CAN_PUNCH);
	image->info.write_zeroes = can & (BLK_CAN_PUNCH | BLK_CAN_ZERO_RANGE);
}

/* The unit of direct I/O as the kernel states it; false: it says nothing. */
static bool probe_align_stated(struct blk_image *image, uint32_t *unit)
{
	uint32_t words[256 / 4] = {0};
	int logical = 0;

	if (image->block_device) {
		if (ioctl(image->fd, BLKSSZGET, &logical) < 0 || logical <= 0)
			return false;
		*unit = (uint32_t)logical;
		image->mem_align = *unit;
		return true;
	}
	if (statx(image->fd, "", AT_EMPTY_PATH, PROBE_STATX_DIOALIGN, (struct statx *)words) < 0)
		return false;
	if (!(words[0] & PROBE_STATX_DIOALIGN))
		return false;
	*unit = words[PROBE_STATX_OFFSET_ALIGN];
	image->mem_align = words[PROBE_STATX_MEM_ALIGN];
	return true;
}

/* Tries what works, on kernels that do not say. 0: nothing does. */
static uint32_t probe_align_tried(struct blk_image *image)
{
	void *buffer;
	uint32_t unit, found = 0;

	if (posix_memalign(&buffer, 4096, 4096))
		return 0;
	for (unit = 512; unit <= 4096 && !found; unit *= 8) {
		ssize_t n;

		do
			n = pread(image->fd, buffer, unit, 0);
		while (n < 0 && errno == EINTR);
		if (n > 0)
			found = unit;
	}
	free(buffer);
	image->mem_align = found;
	return found;
}

/* With O_DIRECT set: finds the unit; 0 when direct I/O does not work after all. */
static uint32_t probe_unit(struct blk_image *image)
{
	uint32_t unit;

	if (!probe_align_stated(image, &unit))
		unit = probe_align_tried(image);
	if (!unit || unit & (unit - 1) || unit > 65536 || !image->mem_align ||
		image->mem_align & (image->mem_align - 1) || image->mem_align > 4096)
		return 0;
	return unit < BLK_SECTOR ? BLK_SECTOR : unit;
}

static int probe_flags(int fd, int set, int clear)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, (flags | set) & ~clear) < 0)
		return -errno;
	return 0;
}

/* A second description without O_DIRECT, for what is finer than the unit. */
static int probe_open_buffered(struct blk_image *image)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", image->fd);
	image->fd_buffered = open(path, (image->info.readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	return image->fd_buffered < 0 ? -errno : 0;
}

int blk_probe_direct(struct blk_image *image, enum blk_direct direct, char *why)
{
	bool memory = probe_fs(image) & FS_MEMORY;
	uint32_t unit = 0;
	/* The two flags would make a transfer land at the end, or fail instead of waiting. */
	int clear = O_APPEND | O_NONBLOCK, rc;

	image->info.block_size = BLK_SECTOR;
	image->mem_align = 1;
	if (direct != BLK_DIRECT_OFF && !memory && probe_flags(image->fd, O_DIRECT, clear) == 0)
		unit = probe_unit(image);
	if (!unit && direct == BLK_DIRECT_ON) {
		blk_why(why, "%s: direct=on: no direct I/O on %s; use direct=auto or direct=off",
			image->name, image->info.file_system);
		return -EINVAL;
	}
	if (unit)
		image->info.block_size = unit;
	if (unit && (unit == BLK_SECTOR || direct == BLK_DIRECT_ON)) {
		image->info.direct = true;
		rc = unit > BLK_SECTOR ? probe_open_buffered(image) : 0;
		if (rc)
			blk_why(why, "%s: cannot be opened a second time: %s; use direct=off",
				image->name, strerror(-rc));
		return rc;
	}
	rc = probe_flags(image->fd, 0, clear | O_DIRECT);
	if (rc) {
		blk_why(why, "%s: %s", image->name, strerror(-rc));
		return rc;
	}
	image->mem_align = 1;
	if (direct == BLK_DIRECT_AUTO && unit)
		blk_image_note(image, "direct I/O needs units of %u: not used", unit);
	else if (direct == BLK_DIRECT_AUTO)
		blk_image_note(image, "no direct I/O on %s", image->info.file_system);
	return 0;
}

static int probe_one(enum blk_engine engine, char *reason, size_t size)
{
	if (engine == BLK_ENGINE_URING)
		return blk_uring_probe(reason, size);
	if (engine == BLK_ENGINE_AIO)
		return blk_aio_probe(reason, size);
	return 0;
}

int blk_probe_engine(struct blk_image *image, enum blk_engine engine, char *why)
{
	/* libaio blocks in its submission without O_DIRECT, so threads come first there. */
	static const enum blk_engine direct[] = {
		BLK_ENGINE_URING, BLK_ENGINE_AIO, BLK_ENGINE_THREADS};
	static const enum blk_engine buffered[] = {BLK_ENGINE_URING, BLK_ENGINE_THREADS};
	const enum blk_engine *order = image->info.direct ? direct : buffered;
	char reason[BLK_WHY_MAX / 2];
	int rc;

	if (engine != BLK_ENGINE_AUTO) {
		rc = probe_one(engine, reason, sizeof(reason));
		if (rc)
			blk_why(why, "engine=%s: %s; use engine=auto", blk_engine_name(engine),
				reason);
		image->info.engine = engine;
		return rc;
	}
	if (image->inline_reads) {
		blk_image_note(image, "%s is memory: threads copy in place, which is fastest",
			image->info.file_system);
		image->info.engine = BLK_ENGINE_THREADS;
		return 0;
	}
	for (;; order++) {
		if (probe_one(*order, reason, sizeof(reason)) == 0)
			break;
		blk_image_note(image, "%s: %s", blk_engine_name(*order), reason);
	}
	image->info.engine = *order;
	return 0;
}
