/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine without KVM whose guest is the test: it finds a virtio device on PCI, sets it up by its
 * registers and drives its queues with ring/'s driver side.
 */
#ifndef TEST_VIRTIO_PCI_RIG_H
#define TEST_VIRTIO_PCI_RIG_H

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

#define RIG_MEMORY     (32ull << 20)
#define RIG_HEAP       (1ull << 20) /* where the guest's own allocations begin */
#define RIG_DISK       (4u << 20)
#define RIG_QUEUES     4u
#define RIG_TIMEOUT_NS (20ull * 1000000000)
#define RIG_MSI        0xfee00000u

/* common configuration */
enum {
	C_DFSELECT = 0x00,
	C_DF = 0x04,
	C_GFSELECT = 0x08,
	C_GF = 0x0c,
	C_MSIX = 0x10,
	C_NQUEUES = 0x12,
	C_STATUS = 0x14,
	C_GENERATION = 0x15,
	C_QSELECT = 0x16,
	C_QSIZE = 0x18,
	C_QMSIX = 0x1a,
	C_QENABLE = 0x1c,
	C_QNOTIFY = 0x1e,
	C_QDESC = 0x20,
	C_QDRIVER = 0x28,
	C_QDEVICE = 0x30,
};

struct rig_queue {
	struct ring_driver drv;
	struct ring_driver_slot *slots;
	uint64_t gpa;
};

struct rig {
	struct machine *m;
	struct machine_config cfg;
	int image; /* memfd */
	unsigned slot;
	uint64_t bar, msix_bar;
	uint64_t common, isr, device, notify;
	uint32_t notify_step;
	unsigned window, msix_cap;
	uint64_t heap;
	uint64_t features;
	struct rig_queue queues[RIG_QUEUES];
	/* by interrupt_hook, on any thread */
	atomic_uint msi[8];
	atomic_uint line_rises;
	atomic_bool line;
};

static inline void rig_interrupt(void *ctx, int gsi, bool level, uint64_t address, uint32_t data)
{
	struct rig *r = ctx;

	if (gsi < 0) {
		if (address == RIG_MSI && data < 8)
			atomic_fetch_add(&r->msi[data], 1);
		return;
	}
	if (level)
		atomic_fetch_add(&r->line_rises, 1);
	atomic_store(&r->line, level);
}

static inline uint64_t rig_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Waits for a condition, bounded. */
#define RIG_WAIT(cond)                                                                             \
	({                                                                                         \
		uint64_t until_ = rig_now_ns() + RIG_TIMEOUT_NS;                                   \
		bool met_;                                                                         \
		while (!(met_ = (cond)) && rig_now_ns() < until_)                                  \
			usleep(50);                                                                \
		met_;                                                                              \
	})

/* ------------------------------------------------------------------ PCI */

static inline uint32_t rig_config_read(struct rig *r, unsigned offset, unsigned size)
{
	machine_port_write(r->m, 0xcf8, 0x80000000u | r->slot << 11 | (offset & ~3u), 4);
	return machine_port_read(r->m, (uint16_t)(0xcfc + (offset & 3)), size);
}

static inline void rig_config_write(struct rig *r, unsigned offset, uint32_t value, unsigned size)
{
	machine_port_write(r->m, 0xcf8, 0x80000000u | r->slot << 11 | (offset & ~3u), 4);
	machine_port_write(r->m, (uint16_t)(0xcfc + (offset & 3)), value, size);
}

static inline void rig_capabilities(struct rig *r)
{
	uint64_t at[6] = {0};
	unsigned cap = rig_config_read(r, 0x34, 1);

	for (unsigned n = 0; cap && n < 16; n++) {
		unsigned type = rig_config_read(r, cap + 3, 1);

		if (rig_config_read(r, cap, 1) == 0x11)
			r->msix_cap = cap;
		if (rig_config_read(r, cap, 1) == 0x09 && type < 6) {
			at[type] = r->bar + rig_config_read(r, cap + 8, 4);
			if (type == 2)
				r->notify_step = rig_config_read(r, cap + 16, 4);
			if (type == 5)
				r->window = cap;
		}
		cap = rig_config_read(r, cap + 1, 1);
	}
	r->common = at[1];
	r->notify = at[2];
	r->isr = at[3];
	r->device = at[4];
}

static inline bool rig_find(struct rig *r)
{
	for (r->slot = 0; r->slot < 32; r->slot++) {
		if (rig_config_read(r, 0, 2) != 0x1af4)
			continue;
		r->bar = rig_config_read(r, 0x20, 4) & ~15u;
		r->msix_bar = rig_config_read(r, 0x14, 4) & ~15u;
		rig_capabilities(r);
		return r->bar && r->common;
	}
	return false;
}

/* ------------------------------------------------------------------ life */

static inline void rig_init(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	machine_config_init(&r->cfg);
	r->cfg.no_kvm = true;
	r->cfg.memory = RIG_MEMORY;
	r->cfg.interrupt_hook = rig_interrupt;
	r->cfg.interrupt_ctx = r;
	r->image = -1;
	r->heap = RIG_HEAP;
}

/* Each block of 512 bytes begins with its number. */
static inline void rig_disk(struct rig *r, bool packed, unsigned queues)
{
	static char path[64];
	uint32_t *map;

	r->image = memfd_create("disk", MFD_CLOEXEC);
	if (r->image < 0 || ftruncate(r->image, RIG_DISK) < 0)
		abort();
	map = mmap(NULL, RIG_DISK, PROT_READ | PROT_WRITE, MAP_SHARED, r->image, 0);
	if (map == MAP_FAILED)
		abort();
	for (unsigned i = 0; i < RIG_DISK / 512; i++)
		map[i * 128] = i;
	munmap(map, RIG_DISK);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", r->image);
	r->cfg.disks[0] = (struct disk_config){
		.path = path, .fd = -1, .packed = packed, .queues = queues, .queue_size = 256};
	r->cfg.ndisks = 1;
}

static inline void rig_net(struct rig *r, bool packed)
{
	r->cfg.nets[0] = (struct net_config){.fd = -1, .memory = "echo", .packed = packed};
	r->cfg.nnets = 1;
}

static inline bool rig_create(struct rig *r)
{
	char why[VMM_WHY_MAX] = "";
	int err = machine_create(&r->m, &r->cfg, why);

	if (err) {
		printf("\nmachine_create: %s\n", why);
		return false;
	}
	return rig_find(r);
}

static inline void rig_machine_destroy(struct rig *r)
{
	if (r->m)
		machine_destroy(r->m);
	r->m = NULL;
}

static inline void rig_destroy(struct rig *r)
{
	rig_machine_destroy(r);
	for (unsigned i = 0; i < RIG_QUEUES; i++)
		free(r->queues[i].slots);
	if (r->image >= 0)
		close(r->image);
}

/* ------------------------------------------------------------------ registers and memory */

static inline uint64_t rig_read(struct rig *r, uint64_t addr, unsigned size)
{
	return machine_mmio_read(r->m, addr, size);
}

static inline void rig_write(struct rig *r, uint64_t addr, uint64_t value, unsigned size)
{
	machine_mmio_write(r->m, addr, value, size);
}

static inline unsigned rig_status(struct rig *r)
{
	return (unsigned)rig_read(r, r->common + C_STATUS, 1);
}

static inline void rig_status_set(struct rig *r, unsigned status)
{
	rig_write(r, r->common + C_STATUS, status, 1);
}

static inline void *rig_host(struct rig *r, uint64_t gpa, uint64_t len)
{
	void *p = ring_mem_translate(machine_memory(r->m), gpa, len, RING_WRITE);

	if (!p)
		abort();
	return p;
}

static inline uint64_t rig_alloc(struct rig *r, uint64_t len)
{
	uint64_t gpa = r->heap;

	r->heap += (len + 4095) & ~4095ull;
	memset(rig_host(r, gpa, len), 0, len);
	return gpa;
}

static inline bool rig_reset(struct rig *r)
{
	rig_status_set(r, 0);
	return RIG_WAIT(rig_status(r) == 0);
}

static inline uint64_t rig_offered(struct rig *r)
{
	uint64_t f;

	rig_write(r, r->common + C_DFSELECT, 0, 4);
	f = rig_read(r, r->common + C_DF, 4);
	rig_write(r, r->common + C_DFSELECT, 1, 4);
	return f | rig_read(r, r->common + C_DF, 4) << 32;
}

static inline void rig_accept(struct rig *r, uint64_t features)
{
	rig_write(r, r->common + C_GFSELECT, 0, 4);
	rig_write(r, r->common + C_GF, (uint32_t)features, 4);
	rig_write(r, r->common + C_GFSELECT, 1, 4);
	rig_write(r, r->common + C_GF, features >> 32, 4);
	r->features = features;
}

/* Reset, ACKNOWLEDGE, DRIVER, features. */
static inline bool rig_negotiate(struct rig *r, uint64_t features)
{
	if (!rig_reset(r))
		return false;
	rig_status_set(r, 1);
	rig_status_set(r, 3);
	rig_accept(r, features);
	rig_status_set(r, 0xb);
	return rig_status(r) == 0xb;
}

static inline bool rig_has(const struct rig *r, unsigned bit)
{
	return r->features >> bit & 1;
}

static inline void rig_queue_areas(
	struct rig *r, unsigned q, uint64_t desc, uint64_t driver, uint64_t device, unsigned size)
{
	rig_write(r, r->common + C_QSELECT, q, 2);
	rig_write(r, r->common + C_QSIZE, size, 2);
	rig_write(r, r->common + C_QDESC, desc, 8);
	rig_write(r, r->common + C_QDRIVER, (uint32_t)driver, 4);
	rig_write(r, r->common + C_QDRIVER + 4, driver >> 32, 4);
	rig_write(r, r->common + C_QDEVICE, device, 8);
}

/* Points the driver's half of a queue at the memory of the machine there is now. */
static inline bool rig_queue_attach(struct rig *r, unsigned q, unsigned size)
{
	struct rig_queue *rq = &r->queues[q];
	enum ring_layout layout = rig_has(r, VIRTIO_F_RING_PACKED) ? RING_PACKED : RING_SPLIT;
	struct ring_geometry g;
	struct ring_driver_config cfg = {.layout = layout, .size = size};
	uint8_t *host;

	ring_geometry_get(layout, size, &g);
	host = rig_host(r, rq->gpa, g.bytes);
	cfg.features.event_idx = rig_has(r, VIRTIO_F_EVENT_IDX);
	cfg.features.in_order = rig_has(r, VIRTIO_F_IN_ORDER);
	cfg.desc = host + g.desc;
	cfg.driver = host + g.driver;
	cfg.device = host + g.device;
	cfg.slots = rq->slots;
	return ring_driver_init(&rq->drv, &cfg) == 0;
}

static inline bool rig_queue_set(struct rig *r, unsigned q, unsigned size)
{
	struct rig_queue *rq = &r->queues[q];
	struct ring_geometry g;

	ring_geometry_get(rig_has(r, VIRTIO_F_RING_PACKED) ? RING_PACKED : RING_SPLIT, size, &g);
	rq->gpa = rig_alloc(r, g.bytes);
	free(rq->slots);
	rq->slots = calloc(size, sizeof(*rq->slots));
	if (!rq->slots || !rig_queue_attach(r, q, size))
		return false;
	rig_queue_areas(r, q, rq->gpa + g.desc, rq->gpa + g.driver, rq->gpa + g.device, size);
	rig_write(r, r->common + C_QENABLE, 1, 2);
	return true;
}

/* Vector i of the table: message i, unmasked. */
static inline void rig_msix(struct rig *r, unsigned vectors)
{
	for (unsigned i = 0; i < vectors; i++) {
		rig_write(r, r->msix_bar + 16 * i, RIG_MSI, 4);
		rig_write(r, r->msix_bar + 16 * i + 4, 0, 4);
		rig_write(r, r->msix_bar + 16 * i + 8, i, 4);
		rig_write(r, r->msix_bar + 16 * i + 12, 0, 4);
	}
	rig_config_write(r, r->msix_cap + 2, 0x8000, 2);
}

static inline void rig_kick(struct rig *r, unsigned q)
{
	ring_driver_publish(&r->queues[q].drv);
	if (ring_driver_needs_doorbell(&r->queues[q].drv))
		rig_write(r, r->notify + r->notify_step * q, q, 2);
}

/* Waits for one completion; its token, or -1. */
static inline int64_t rig_done(struct rig *r, unsigned q, uint32_t *len)
{
	struct ring_done done;
	int n = 0;

	if (!RIG_WAIT((n = ring_driver_collect(&r->queues[q].drv, &done, 1)) != 0) || n < 0)
		return -1;
	if (len)
		*len = done.len;
	return (int64_t)done.token;
}

/* ------------------------------------------------------------------ block requests */

struct rig_blk {
	uint64_t header, data, status;
	uint32_t len;
};

enum { RIG_BLK_IN = 0, RIG_BLK_OUT = 1 };

static inline struct rig_blk rig_blk_add(
	struct rig *r, unsigned q, unsigned type, uint64_t sector, uint32_t len, uint64_t token)
{
	struct rig_blk b = {.len = len};
	struct ring_sg sg[3];
	uint32_t header[4] = {type, 0, (uint32_t)sector, (uint32_t)(sector >> 32)};

	b.header = rig_alloc(r, 16);
	b.data = rig_alloc(r, len);
	b.status = rig_alloc(r, 1);
	memcpy(rig_host(r, b.header, 16), header, 16);
	memset(rig_host(r, b.status, 1), 0xff, 1);
	sg[0] = (struct ring_sg){b.header, 16};
	sg[1] = (struct ring_sg){b.data, len};
	sg[2] = (struct ring_sg){b.status, 1};
	if (ring_driver_add(&r->queues[q].drv, sg, type == RIG_BLK_OUT ? 2 : 1,
		    type == RIG_BLK_OUT ? 1 : 2, token))
		abort();
	return b;
}

static inline uint8_t rig_blk_status(struct rig *r, const struct rig_blk *b)
{
	return *(uint8_t *)rig_host(r, b->status, 1);
}

static inline bool rig_blk_holds(struct rig *r, const struct rig_blk *b, uint32_t sector)
{
	const uint32_t *p = rig_host(r, b->data, b->len);

	for (uint32_t i = 0; i < b->len / 512; i++)
		if (p[i * 128] != sector + i)
			return false;
	return true;
}

/* What a driver that wants everything but offloads accepts. */
#define RIG_RING_FEATURES                                                                          \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |                         \
		VIRTIO_BIT(VIRTIO_F_RING_PACKED))

/* A block device in use: one queue, MSI-X or INTx. */
static inline bool rig_blk_up(struct rig *r, bool packed, bool msix)
{
	rig_init(r);
	rig_disk(r, packed, 1);
	if (!rig_create(r) || !rig_negotiate(r, rig_offered(r) & RIG_RING_FEATURES))
		return false;
	if (msix) {
		rig_msix(r, 2);
		rig_write(r, r->common + C_MSIX, 0, 2);
		rig_write(r, r->common + C_QSELECT, 0, 2);
		rig_write(r, r->common + C_QMSIX, 1, 2);
	}
	if (!rig_queue_set(r, 0, 128))
		return false;
	rig_status_set(r, 0xf);
	return rig_status(r) == 0xf;
}

#endif
