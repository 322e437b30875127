/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory: one memfd, mapped once, shown to the guest below 3 GiB and from 4 GiB on. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

int why_set(char why[VMM_WHY_MAX], int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, VMM_WHY_MAX, fmt, ap);
	va_end(ap);
	for (char *c = why; *c; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	return error;
}

void vmm_size_format(uint64_t bytes, char out[24])
{
	static const char units[] = "KMGT";
	unsigned u = 0;

	if (!bytes || bytes % 1024) {
		snprintf(out, 24, "%llu", (unsigned long long)bytes);
		return;
	}
	for (bytes /= 1024; bytes % 1024 == 0 && u < 3; bytes /= 1024)
		u++;
	snprintf(out, 24, "%llu%c", (unsigned long long)bytes, units[u]);
}

/* The kernel promises more than it has: a guest this large would be killed half-way. */
static int memory_check_host(uint64_t size, char why[VMM_WHY_MAX])
{
	struct sysinfo si;
	uint64_t host;
	char text[24];

	if (sysinfo(&si))
		return 0;
	host = ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
	if (size <= host)
		return 0;
	vmm_size_format(size, text);
	return why_set(why, -ENOMEM,
		"--memory %s: this host has %llu MiB of memory and swap; give less", text,
		(unsigned long long)(host >> 20));
}

static int memory_map_file(struct machine *m, char why[VMM_WHY_MAX])
{
	uint64_t size = m->memory_size;
	char text[24];
	int error;
	void *p;

	vmm_size_format(size, text);
	m->memory_fd = memfd_create(
		"sluice-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING |
					 (m->cfg.hugepages ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
	if (m->memory_fd < 0) {
		error = -errno;
		return why_set(why, error, "--memory %s: no memory file: %s%s", text,
			strerror(-error), m->cfg.hugepages ? "; leave out huge pages" : "");
	}
	/* back-ends have it too: it is not theirs to shorten */
	if (ftruncate(m->memory_fd, size) ||
		fcntl(m->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		error = -errno;
		return why_set(
			why, error, "--memory %s: no room: %s; give less", text, strerror(-error));
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->memory_fd, 0);
	if (p == MAP_FAILED) {
		error = -errno;
		if (m->cfg.hugepages)
			return why_set(why, error,
				"--hugepages: %llu free pages of 2 MiB are needed (%s): sysctl "
				"vm.nr_hugepages=N reserves them",
				(unsigned long long)(size >> 21), strerror(-error));
		return why_set(
			why, error, "--memory %s: no room: %s; give less", text, strerror(-error));
	}
	m->memory = p;
	if (!m->cfg.hugepages)
		madvise(p, size, MADV_HUGEPAGE); /* where the host allows it for shared memory */
	madvise(p, size, MADV_DONTDUMP);
	return 0;
}

int memory_create(struct machine *m, char why[VMM_WHY_MAX])
{
	uint64_t low = MIN(m->cfg.memory, MACHINE_LOW_MEMORY_MAX);
	char text[24];
	int rc;

	m->memory_size = m->cfg.memory;
	if (m->memory_size % MACHINE_HUGE_PAGE || m->memory_size > 1ull << 46) {
		vmm_size_format(m->memory_size, text);
		return why_set(why, -EINVAL,
			"--memory %s: a multiple of 2M up to 64T is accepted, such as 256M or 1G",
			text);
	}
	rc = memory_check_host(m->memory_size, why);
	if (!rc)
		rc = memory_map_file(m, why);
	if (rc)
		return rc;
	rc = ring_mem_add(&m->mem, 0, low, m->memory, false);
	if (!rc && m->memory_size > low)
		rc = ring_mem_add(
			&m->mem, MACHINE_HIGH_MEMORY, m->memory_size - low, m->memory + low, false);
	return rc ? why_set(why, rc, "guest memory: %s", strerror(-rc)) : 0;
}

void memory_destroy(struct machine *m)
{
	if (m->memory)
		munmap(m->memory, m->memory_size);
	if (m->memory_fd >= 0)
		close(m->memory_fd);
	free(m->dirty);
	m->memory = NULL;
	m->memory_fd = -1;
	m->dirty = NULL;
}

void memory_zero(const struct ring_mem *mem, void *host, uint64_t len)
{
	uint8_t *at = host, *end = at + len;
	uint8_t *first = (uint8_t *)(((uintptr_t)at + MACHINE_PAGE - 1) & ~(MACHINE_PAGE - 1));
	uint8_t *last = (uint8_t *)((uintptr_t)end & ~(MACHINE_PAGE - 1));

	/* removing pages of a memfd leaves holes that read as zeros and take no room */
	if (last > first && madvise(first, last - first, MADV_REMOVE) == 0) {
		memset(at, 0, first - at);
		memset(last, 0, end - last);
	} else {
		memset(at, 0, len);
	}
	ring_mem_dirty(mem, host, len);
}

/* ------------------------------------------------------------------ dirty bitmap */

const struct ring_mem *machine_memory(const struct machine *m)
{
	return &m->mem;
}

const struct ring_mem *machine_mem(struct machine *m)
{
	return &m->mem;
}

struct split_vhost_memory machine_memory_file(const struct machine *m)
{
	return (struct split_vhost_memory){.fd = m->memory_fd, .base = m->memory};
}

/* Regions begin and end on 2 MiB, so each has whole words of the bitmap. */
int machine_dirty_log(struct machine *m, bool on)
{
	size_t words = m->memory_size / MACHINE_PAGE / 64;
	uint64_t *bitmap = NULL;

	if (on) {
		bitmap = calloc(words, sizeof(*bitmap));
		if (!bitmap)
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < m->mem.nregions; i++) {
		struct ring_mem_region *r = &m->mem.regions[i];

		r->dirty = on ? bitmap + (r->hva - m->memory) / MACHINE_PAGE / 64 : NULL;
	}
	free(m->dirty);
	m->dirty = bitmap;
	return 0;
}

void machine_dirty_fetch(struct machine *m, uint64_t *out, size_t bits)
{
	size_t words = m->memory_size / MACHINE_PAGE / 64;

	for (struct device *d = m->devices; m->dirty && d; d = d->next)
		if (d->ops->dirty_sync)
			d->ops->dirty_sync(d);
	memset(out, 0, (bits + 63) / 64 * sizeof(*out));
	for (size_t i = 0; m->dirty && i < words && i < (bits + 63) / 64; i++)
		if (__atomic_load_n(&m->dirty[i], __ATOMIC_RELAXED))
			/* pairs with ring_mem_dirty(): a bit taken here means its bytes are visible
			 */
			out[i] = __atomic_exchange_n(&m->dirty[i], 0, __ATOMIC_ACQUIRE);
}
