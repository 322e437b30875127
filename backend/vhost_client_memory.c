/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a vhost-user front-end shares with its back-end: guest memory, the log of what was written
 * to it, and the memory in which the back-end keeps what is in flight.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/vhost_client_priv.h"

/* ------------------------------------------------------------------ guest memory */

static struct vhost_user_region region_of(const struct vhost_client *c, uint32_t i)
{
	const struct ring_mem_region *r = &c->common.mem->regions[i];

	return (struct vhost_user_region){
		.guest_addr = r->gpa,
		.size = r->size,
		.user_addr = (uintptr_t)r->hva,
		.mmap_offset = (uint64_t)(r->hva - (uint8_t *)c->opts.memory.base),
	};
}

static bool region_add_next(struct vhost_client *c, struct vhost_user_message *m)
{
	m->h.request = VHOST_USER_ADD_MEM_REG;
	m->h.size = sizeof(m->p.memory_one);
	m->p.memory_one = (struct vhost_user_memory_one){
		.region = region_of(c, c->s.regions_told++),
	};
	m->fds[0] = c->opts.memory.fd;
	m->nfds = 1;
	return true;
}

bool vhost_memory_next(struct vhost_client *c, struct vhost_user_message *m)
{
	uint32_t n = c->common.mem->nregions;

	if (c->s.regions_told == n)
		return false;
	/* region by region, for as many as the back-end has room for */
	if (vhost_offers(c, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) && c->s.slots_max >= n)
		return region_add_next(c, m);
	if (n > VHOST_USER_REGIONS_MAX) {
		vhost_link_lost(c, -ENOTSUP, "it has no room for %u regions of memory", n);
		return false;
	}
	m->h.request = VHOST_USER_SET_MEM_TABLE;
	m->p.memory.nregions = n;
	m->p.memory.padding = 0;
	for (uint32_t i = 0; i < n; i++) {
		m->p.memory.regions[i] = region_of(c, i);
		m->fds[i] = c->opts.memory.fd;
	}
	m->nfds = n;
	m->h.size = (uint32_t)(8 + n * sizeof(m->p.memory.regions[0]));
	c->s.regions_told = n;
	return true;
}

/* ------------------------------------------------------------------ what is in flight */

/* In order, the ring itself says what is in flight. */
static bool kept_wanted(const struct vhost_client *c)
{
	return vhost_offers(c, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) &&
	       !split_has(&c->common, VIRTIO_F_IN_ORDER);
}

bool vhost_kept_get_next(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!kept_wanted(c) || c->kept.fd >= 0)
		return false;
	m->h.request = VHOST_USER_GET_INFLIGHT_FD;
	m->h.size = sizeof(m->p.inflight);
	m->p.inflight = (struct vhost_user_inflight){
		.queues = (uint16_t)c->common.nqueues,
		.queue_size = (uint16_t)c->common.queue_size_max,
	};
	c->s.awaited = m->h.request;
	return true;
}

/* The memory stays untouched but for a look at positions; it is for the next back-end. */
int vhost_kept_take(struct vhost_client *c, struct vhost_user_message *m)
{
	const struct vhost_user_inflight *in = &m->p.inflight;
	struct stat st;

	if (m->h.size < offsetof(struct vhost_user_inflight, queue_size) + 2 || m->nfds != 1 ||
		fstat(m->fds[0], &st) < 0 || !S_ISREG(st.st_mode) || !in->mmap_size ||
		in->mmap_offset > INT64_MAX - in->mmap_size ||
		in->mmap_offset + in->mmap_size > (uint64_t)st.st_size)
		return -EPROTO;
	c->kept.fd = m->fds[0];
	m->nfds = 0;
	c->kept.desc = (struct vhost_user_inflight){
		.mmap_size = in->mmap_size,
		.mmap_offset = in->mmap_offset,
		.queues = (uint16_t)c->common.nqueues,
		.queue_size = (uint16_t)c->common.queue_size_max,
	};
	return 0;
}

bool vhost_kept_set_next(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!kept_wanted(c) || c->s.inflight_told)
		return false;
	c->s.inflight_told = true;
	atomic_store(&c->inflight, true);
	m->h.request = VHOST_USER_SET_INFLIGHT_FD;
	m->h.size = sizeof(m->p.inflight);
	m->p.inflight = c->kept.desc;
	m->fds[0] = c->kept.fd;
	m->nfds = 1;
	return true;
}

void vhost_kept_drop(struct vhost_client *c)
{
	if (c->kept.fd >= 0)
		close(c->kept.fd);
	c->kept.fd = -1;
	c->s.inflight_told = false;
}

bool vhost_kept_position(struct vhost_client *c, unsigned q, uint16_t *position)
{
	uint64_t stride = c->kept.desc.mmap_size / c->common.nqueues & ~UINT64_C(7);
	/* struct QueueRegionPacked: old_used_idx and old_used_wrap_counter */
	struct {
		uint8_t before[18];
		uint16_t used;
		uint8_t used_wrap, old_wrap;
	} head;
	struct stat st;

	/* read, not mapped: whose memory it is may shorten it */
	if (stride < sizeof(head) || fstat(c->kept.fd, &st) < 0 ||
		pread(c->kept.fd, &head, sizeof(head),
			(off_t)(c->kept.desc.mmap_offset + q * stride)) != sizeof(head) ||
		head.used >= c->common.queues[q].ring.cfg.size)
		return false;
	*position = head.used | (head.old_wrap ? 0x8000u : 0);
	return true;
}

/* ------------------------------------------------------------------ the log */

static uint64_t log_pages(const struct vhost_client *c)
{
	const struct ring_mem *mem = c->common.mem;
	uint64_t end = 0;

	for (uint32_t i = 0; i < mem->nregions; i++)
		if (mem->regions[i].gpa + mem->regions[i].size > end)
			end = mem->regions[i].gpa + mem->regions[i].size;
	return end / VHOST_USER_LOG_PAGE;
}

static bool log_possible(const struct vhost_client *c)
{
	return c->s.features & VIRTIO_BIT(VHOST_F_LOG_ALL) &&
	       vhost_offers(c, VHOST_USER_PROTOCOL_F_LOG_SHMFD);
}

bool vhost_log_wanted(const struct vhost_client *c)
{
	return c->common.dirty_log && log_possible(c);
}

static int log_make(struct vhost_client *c)
{
	struct vhost_log_memory *l = &c->log;
	int fd;

	if (l->words)
		return 0;
	/* whole words of 64 pages, and whole pages of them */
	l->bytes = (log_pages(c) / 8 + 4096) & ~UINT64_C(4095);
	fd = (int)syscall(SYS_memfd_create, "sluice-log", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	/* the back-end has it too, and could shorten it under us */
	if (ftruncate(fd, (off_t)l->bytes) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		goto fail;
	l->words = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (l->words == MAP_FAILED)
		goto fail;
	l->fd = fd;
	return 0;
fail:
	l->words = NULL;
	close(fd);
	return -ENOMEM;
}

bool vhost_log_next(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!vhost_log_wanted(c) || c->s.log_told)
		return false;
	if (log_make(c)) {
		vhost_link_lost(c, -ENOMEM, "no memory for its log");
		return false;
	}
	c->s.log_told = true;
	m->h.request = VHOST_USER_SET_LOG_BASE;
	m->h.size = sizeof(m->p.log);
	m->p.log = (struct vhost_user_log){.size = c->log.bytes};
	m->fds[0] = c->log.fd;
	m->nfds = 1;
	c->s.awaited = m->h.request;
	return true;
}

static void log_region(struct vhost_client *c, const struct ring_mem_region *r, bool all)
{
	uint64_t first = r->gpa / VHOST_USER_LOG_PAGE, n = r->size / VHOST_USER_LOG_PAGE;

	for (uint64_t i = 0; i < n; i += 64) {
		uint64_t bits = all ? ~UINT64_C(0) : 0;

		/* regions begin and end on 2 MiB: whole words */
		if (c->log.words)
			bits |= __atomic_exchange_n(
				&c->log.words[(first + i) / 64], 0, __ATOMIC_ACQUIRE);
		if (bits)
			__atomic_fetch_or(&r->dirty[i / 64], bits, __ATOMIC_RELEASE);
	}
}

/* A back-end without a log may have written anywhere. */
void vhost_log_sync(struct split_device *d)
{
	struct vhost_client *c = vhost_client_of(d);
	bool all = c->unlogged;

	for (uint32_t i = 0; i < d->mem->nregions; i++)
		if (d->mem->regions[i].dirty)
			log_region(c, &d->mem->regions[i], all);
	c->unlogged = false;
	for (unsigned q = 0; q < d->nqueues; q++)
		c->unlogged |= d->dirty_log && c->vqs[q].told == TOLD_KICK && !log_possible(c);
}

void vhost_log_drop(struct vhost_client *c)
{
	if (c->log.words)
		munmap(c->log.words, c->log.bytes);
	if (c->log.fd >= 0)
		close(c->log.fd);
	c->log = (struct vhost_log_memory){.fd = -1};
}
