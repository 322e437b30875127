/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory a front-end shares: guest memory and the log of what was written to it. Every size and
 * offset is checked against the file itself, which must be memory: a page of it must never be
 * waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "backend/vhost_server_priv.h"

/* ------------------------------------------------------------------ mappings */

/* In a signal handler: the connection ends, whatever its thread is doing. */
static void map_hit(void *ctx)
{
	struct vhost_conn *c = ctx;

	atomic_store(&c->faulted, true);
	shutdown(c->socket, SHUT_RDWR);
}

/* A file whose pages come from memory, or from a device as fast (DAX). */
static bool file_is_memory(int fd)
{
	struct statfs fs;
	struct statx sx;

	if (fstatfs(fd, &fs) < 0)
		return false;
	if (fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC)
		return true;
	return !statx(fd, "", AT_EMPTY_PATH, 0, &sx) && sx.stx_attributes & STATX_ATTR_DAX;
}

static int map_check(struct vhost_conn *c, int fd, uint64_t offset, uint64_t bytes, size_t *page)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !file_is_memory(fd)) {
		backend_why(c->why,
			"a descriptor that is no memory (a memfd, or a file on tmpfs or "
			"hugetlbfs)");
		return -EINVAL;
	}
	if (!bytes || offset > INT64_MAX - bytes || offset + bytes > (uint64_t)st.st_size) {
		backend_why(c->why, "%llu bytes at %llu of a file of %llu",
			(unsigned long long)bytes, (unsigned long long)offset,
			(unsigned long long)st.st_size);
		return -EINVAL;
	}
	/* a file on hugetlbfs says its page size so */
	*page = (size_t)st.st_blksize > VHOST_PAGE ? (size_t)st.st_blksize : VHOST_PAGE;
	if (*page & (*page - 1))
		*page = VHOST_PAGE;
	return 0;
}

int vhost_map(struct vhost_conn *c, struct vhost_map *map, int fd, uint64_t offset, uint64_t bytes)
{
	size_t page = VHOST_PAGE;
	uint64_t start, end;
	int err = map_check(c, fd, offset, bytes, &page);

	if (err)
		return err;
	start = offset & ~(uint64_t)(page - 1);
	end = (offset + bytes + page - 1) & ~(uint64_t)(page - 1);
	map->base = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		(off_t)start);
	if (map->base == MAP_FAILED) {
		err = -errno;
		map->base = NULL;
		backend_why(c->why, "memory cannot be mapped: %s", strerror(-err));
		return err;
	}
	map->bytes = end - start;
	map->at = (uint8_t *)map->base + (offset - start);
	/* not for the core file, nor for children */
	madvise(map->base, map->bytes, MADV_DONTDUMP);
	err = mem_guard_add(&map->guard, map->base, map->bytes, map_hit, c);
	if (err) {
		backend_why(c->why, "memory cannot be guarded: %s", strerror(-err));
		vhost_unmap(map);
	}
	return err;
}

void vhost_unmap(struct vhost_map *map)
{
	mem_guard_remove(map->guard);
	if (map->base)
		munmap(map->base, map->bytes);
	memset(map, 0, sizeof(*map));
}

/* ------------------------------------------------------------------ regions */

static int region_check(struct vhost_conn *c, const struct vhost_user_region *r)
{
	if ((r->guest_addr | r->size) % VHOST_PAGE || !r->size || r->mmap_offset % VHOST_PAGE ||
		r->size - 1 > UINT64_MAX - r->guest_addr ||
		r->size - 1 > UINT64_MAX - r->user_addr) {
		backend_why(c->why, "memory region 0x%llx + 0x%llx: not whole pages",
			(unsigned long long)r->guest_addr, (unsigned long long)r->size);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < c->mem.nregions; i++) {
		uint64_t other = c->regions[i].user_addr, last = other + c->mem.regions[i].size - 1;

		if (r->user_addr <= last && other <= r->user_addr + (r->size - 1)) {
			backend_why(c->why, "memory regions that overlap in the front-end");
			return -EINVAL;
		}
	}
	return 0;
}

int vhost_memory_add(struct vhost_conn *c, const struct vhost_user_region *r, int fd)
{
	uint32_t n = c->mem.nregions;
	struct vhost_region *own = &c->regions[n];
	int err = region_check(c, r);

	if (err)
		return err;
	if (n == RING_MEM_REGIONS_MAX) {
		backend_why(c->why, "more than %u memory regions", RING_MEM_REGIONS_MAX);
		return -ENOSPC;
	}
	err = vhost_map(c, &own->map, fd, r->mmap_offset, r->size);
	if (err)
		return err;
	if (ring_mem_add(&c->mem, r->guest_addr, r->size, own->map.at, false)) {
		backend_why(c->why, "memory regions that overlap in the guest");
		vhost_unmap(&own->map);
		return -EINVAL;
	}
	own->user_addr = r->user_addr;
	return vhost_log_apply(c);
}

void vhost_memory_clear(struct vhost_conn *c)
{
	for (uint32_t i = 0; i < c->mem.nregions; i++)
		vhost_unmap(&c->regions[i].map);
	memset(&c->mem, 0, sizeof(c->mem));
}

int vhost_memory_set(
	struct vhost_conn *c, const struct vhost_user_region *regions, const int *fds, unsigned n)
{
	int err = 0;

	vhost_memory_clear(c);
	for (unsigned i = 0; i < n && !err; i++)
		err = vhost_memory_add(c, &regions[i], fds[i]);
	return err;
}

int vhost_memory_remove(struct vhost_conn *c, const struct vhost_user_region *r)
{
	for (uint32_t i = 0; i < c->mem.nregions; i++) {
		const struct ring_mem_region *have = &c->mem.regions[i];

		if (have->gpa != r->guest_addr || have->size != r->size ||
			c->regions[i].user_addr != r->user_addr)
			continue;
		vhost_unmap(&c->regions[i].map);
		c->mem.nregions--;
		c->mem.regions[i] = c->mem.regions[c->mem.nregions];
		c->regions[i] = c->regions[c->mem.nregions];
		memset(&c->regions[c->mem.nregions], 0, sizeof(c->regions[0]));
		memset(&c->mem.regions[c->mem.nregions], 0, sizeof(c->mem.regions[0]));
		return 0;
	}
	backend_why(c->why, "a memory region to be removed that is not there");
	return -EINVAL;
}

int vhost_memory_gpa(const struct vhost_conn *c, uint64_t user_addr, uint64_t *gpa)
{
	for (uint32_t i = 0; i < c->mem.nregions; i++) {
		uint64_t offset = user_addr - c->regions[i].user_addr;

		if (offset >= c->mem.regions[i].size)
			continue;
		*gpa = c->mem.regions[i].gpa + offset;
		return 0;
	}
	return -EFAULT;
}

/* ------------------------------------------------------------------ the log */

/* Bits are set in words of 64: the log must have the whole of each ("Migration"). */
int vhost_log_apply(struct vhost_conn *c)
{
	bool on = c->log.base && c->features & VIRTIO_BIT(VHOST_F_LOG_ALL);

	for (uint32_t i = 0; i < c->mem.nregions; i++) {
		struct ring_mem_region *r = &c->mem.regions[i];
		uint64_t page = r->gpa / VHOST_USER_LOG_PAGE;
		uint64_t last = (r->gpa + (r->size - 1)) / VHOST_USER_LOG_PAGE;

		r->dirty = NULL;
		if (!on)
			continue;
		if (last / 64 * 8 + 8 > c->log_bytes) {
			backend_why(c->why, "a log that does not cover guest memory");
			return -EINVAL;
		}
		r->dirty = (uint64_t *)(void *)c->log.at + page / 64;
		r->dirty_bit = page % 64;
	}
	return 0;
}

int vhost_log_set(struct vhost_conn *c, int fd, const struct vhost_user_log *log)
{
	int err;

	if (log->offset % 8) {
		backend_why(c->why, "a log at an odd offset");
		return -EINVAL;
	}
	for (uint32_t i = 0; i < c->mem.nregions; i++)
		c->mem.regions[i].dirty = NULL;
	vhost_unmap(&c->log);
	err = vhost_map(c, &c->log, fd, log->offset, log->size);
	if (err)
		return err;
	c->log_bytes = log->size;
	return vhost_log_apply(c);
}
