/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ports and addresses: who answers an access, and which writes KVM keeps for later or turns into an
 * eventfd. Regions are looked up under the bus lock and called without it: a region lives as long
 * as the machine, so one that is unmapped meanwhile still answers this last access.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

static struct bus_region *bus_find(struct machine *m, enum bus_kind kind, uint64_t addr)
{
	for (struct bus_region *r = m->regions[kind]; r && r->base <= addr; r = r->next)
		if (addr - r->base < r->size)
			return r;
	return NULL;
}

static bool bus_span_among(const struct bus_span *span, const struct bus_span *list)
{
	for (; list && list->len; list++)
		if (list->offset == span->offset && list->len == span->len)
			return true;
	return false;
}

/* KVM is told of those that are not among `other` too: each is a wait for all CPUs in there. */
static void bus_posted_set(struct machine *m, struct bus_region *region,
	const struct bus_span *spans, const struct bus_span *other, bool on)
{
	if (!spans || m->vm_fd < 0 || m->cfg.no_coalesce)
		return;
	/* A zone KVM refuses only means that these writes exit. */
	for (const struct bus_span *s = spans; s->len; s++)
		if (!bus_span_among(s, other))
			kvm_coalesced_zone(m, region->kind, region->base + s->offset, s->len, on);
}

int bus_map(struct machine *m, struct bus_region *region)
{
	struct bus_region **at = &m->regions[region->kind];
	uint64_t last = region->base + (region->size - 1);
	int rc = -EEXIST;

	if (!region->size || last < region->base)
		return -EINVAL;
	pthread_mutex_lock(&m->posted_lock);
	pthread_rwlock_wrlock(&m->bus_lock);
	while (*at && (*at)->base + ((*at)->size - 1) < region->base)
		at = &(*at)->next;
	if (!*at || (*at)->base > last) {
		region->next = *at;
		*at = region;
		region->mapped = true;
		rc = 0;
	}
	pthread_rwlock_unlock(&m->bus_lock);
	if (!rc)
		bus_posted_set(m, region, region->posted, NULL, true);
	pthread_mutex_unlock(&m->posted_lock);
	return rc;
}

void bus_unmap(struct machine *m, struct bus_region *region)
{
	struct bus_region **at = &m->regions[region->kind];

	if (!region->mapped)
		return;
	pthread_mutex_lock(&m->posted_lock);
	bus_posted_set(m, region, region->posted, NULL, false);
	pthread_rwlock_wrlock(&m->bus_lock);
	while (*at && *at != region)
		at = &(*at)->next;
	if (*at)
		*at = region->next;
	region->mapped = false;
	pthread_rwlock_unlock(&m->bus_lock);
	pthread_mutex_unlock(&m->posted_lock);
}

void bus_posted_change(struct machine *m, struct bus_region *region, const struct bus_span *posted)
{
	pthread_mutex_lock(&m->posted_lock);
	if (region->mapped && region->posted != posted) {
		bus_posted_set(m, region, region->posted, posted, false);
		bus_posted_set(m, region, posted, region->posted, true);
	}
	region->posted = posted;
	pthread_mutex_unlock(&m->posted_lock);
}

/* The region's lock is held. */
static void bus_region_call(struct bus_region *r, uint64_t offset, uint8_t *data, unsigned size,
	unsigned count, bool write)
{
	uint64_t value;

	if (write && count > 1 && r->write_string) {
		r->write_string(r->opaque, offset, data, size, count);
		return;
	}
	if (!write && count > 1 && r->read_string) {
		r->read_string(r->opaque, offset, data, size, count);
		return;
	}
	for (unsigned i = 0; i < count; i++, data += size) {
		if (write) {
			value = 0;
			memcpy(&value, data, size);
			if (r->write)
				r->write(r->opaque, offset, value, size);
		} else {
			value = r->read ? r->read(r->opaque, offset, size) : UINT64_MAX;
			memcpy(data, &value, size);
		}
	}
}

/* Odd sizes and accesses that cross the end of a region go byte by byte. */
static bool bus_access_bytes(struct machine *m, enum bus_kind kind, uint64_t addr, uint8_t *data,
	unsigned size, unsigned count, bool write, bool coalesced)
{
	bool answered = false;

	for (unsigned i = 0; i < count; i++)
		for (unsigned k = 0; k < size; k++)
			answered |= bus_access(
				m, kind, addr + k, data + i * size + k, 1, 1, write, coalesced);
	return answered;
}

bool bus_access(struct machine *m, enum bus_kind kind, uint64_t addr, void *data, unsigned size,
	unsigned count, bool write, bool coalesced)
{
	struct bus_region *r;
	uint64_t offset = 0, room = 0;

	pthread_rwlock_rdlock(&m->bus_lock);
	r = bus_find(m, kind, addr);
	if (r) {
		offset = addr - r->base;
		room = r->size - offset;
	}
	pthread_rwlock_unlock(&m->bus_lock);
	if (size > 1 && ((r && size > room) || (size & (size - 1))))
		return bus_access_bytes(m, kind, addr, data, size, count, write, coalesced);
	if (!r) {
		if (!write)
			memset(data, 0xff, (size_t)size * count);
		return false;
	}
	if (r->lock)
		pthread_mutex_lock(r->lock);
	if (r->counters)
		counter_add(coalesced ? &r->counters->coalesced : &r->counters->exits, 1);
	bus_region_call(r, offset, data, size, count, write);
	if (r->lock)
		pthread_mutex_unlock(r->lock);
	return true;
}

/* ------------------------------------------------------------------ doorbells */

static bool bus_doorbell_same(const struct bus_doorbell *a, const struct bus_doorbell *b)
{
	return a->kind == b->kind && a->addr == b->addr && a->size == b->size &&
	       a->match == b->match && (!a->match || a->datamatch == b->datamatch) &&
	       a->fd == b->fd;
}

int bus_doorbell_add(struct machine *m, const struct bus_doorbell *db)
{
	struct bus_doorbell *grown;
	int rc = 0;

	if (m->vm_fd >= 0)
		rc = kvm_ioeventfd(m, db, true);
	if (rc)
		return rc;
	pthread_rwlock_wrlock(&m->bus_lock);
	grown = realloc(m->doorbells, (m->ndoorbells + 1) * sizeof(*grown));
	if (grown) {
		m->doorbells = grown;
		m->doorbells[m->ndoorbells++] = *db;
	}
	pthread_rwlock_unlock(&m->bus_lock);
	if (!grown) {
		if (m->vm_fd >= 0)
			kvm_ioeventfd(m, db, false);
		return -ENOMEM;
	}
	return 0;
}

int bus_doorbell_remove(struct machine *m, const struct bus_doorbell *db)
{
	int rc = -ENOENT;

	pthread_rwlock_wrlock(&m->bus_lock);
	for (unsigned i = 0; i < m->ndoorbells; i++) {
		if (!bus_doorbell_same(&m->doorbells[i], db))
			continue;
		m->doorbells[i] = m->doorbells[--m->ndoorbells];
		rc = 0;
		break;
	}
	pthread_rwlock_unlock(&m->bus_lock);
	if (!rc && m->vm_fd >= 0)
		rc = kvm_ioeventfd(m, db, false);
	return rc;
}

/* What KVM does for a vCPU's write, for accesses made without one. */
bool bus_doorbell_ring(
	struct machine *m, enum bus_kind kind, uint64_t addr, uint64_t value, unsigned size)
{
	const uint64_t one = 1;
	bool rung = false;

	pthread_rwlock_rdlock(&m->bus_lock);
	for (unsigned i = 0; i < m->ndoorbells && !rung; i++) {
		const struct bus_doorbell *db = &m->doorbells[i];

		if (db->kind != kind || db->addr != addr || (db->size && db->size != size) ||
			(db->match && db->datamatch != value))
			continue;
		rung = write(db->fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN;
	}
	pthread_rwlock_unlock(&m->bus_lock);
	return rung;
}

/* ------------------------------------------------------------------ access without a vCPU */

static uint64_t bus_read(struct machine *m, enum bus_kind kind, uint64_t addr, unsigned size)
{
	uint64_t value = 0;

	if (size > sizeof(value))
		return UINT64_MAX;
	machine_coalesced_drain(m);
	bus_access(m, kind, addr, &value, size, 1, false, false);
	return value;
}

static void bus_write(
	struct machine *m, enum bus_kind kind, uint64_t addr, uint64_t value, unsigned size)
{
	if (size > sizeof(value))
		return;
	machine_coalesced_drain(m);
	if (!bus_doorbell_ring(m, kind, addr, value, size))
		bus_access(m, kind, addr, &value, size, 1, true, false);
}

uint32_t machine_port_read(struct machine *m, uint16_t port, unsigned size)
{
	return bus_read(m, BUS_PIO, port, MIN(size, 4u));
}

void machine_port_write(struct machine *m, uint16_t port, uint32_t value, unsigned size)
{
	bus_write(m, BUS_PIO, port, value, MIN(size, 4u));
}

uint64_t machine_mmio_read(struct machine *m, uint64_t gpa, unsigned size)
{
	return bus_read(m, BUS_MMIO, gpa, size);
}

void machine_mmio_write(struct machine *m, uint64_t gpa, uint64_t value, unsigned size)
{
	bus_write(m, BUS_MMIO, gpa, value, size);
}
