/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest in a test: memory, the driver's side of queues, doorbells and interrupts by eventfd. The
 * test thread is the driver.
 */
#ifndef TEST_BACKEND_RIG_H
#define TEST_BACKEND_RIG_H

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "backend/backend.h"
#include "tests/unit/unit.h"

#define RIG_GPA     0x40000000ull
#define RIG_QUEUES  16u
#define RIG_WAIT_MS 20000

struct rig_queue {
	struct ring_driver drv;
	struct ring_driver_slot *slots;
	struct split_queue_config cfg;
	int irq_fd;
	bool silent; /* look for completions without interrupts */
};

struct rig {
	struct io_thread *io;
	struct ring_mem mem;
	uint8_t *ram;
	size_t bytes, next;
	uint64_t *dirty;
	struct split_device *dev;
	struct split_signal signal;
	enum ring_layout layout;
	struct ring_features features;
	struct rig_queue q[RIG_QUEUES];
	atomic_uint broken;
};

static inline void rig_signal_queue(void *ctx, unsigned q)
{
	struct rig *r = ctx;
	uint64_t one = 1;

	if (write(r->q[q].irq_fd, &one, sizeof(one)) < 0)
		CU_FAIL("interrupt eventfd");
}

static inline void rig_signal_config(void *ctx)
{
	(void)ctx;
}

static inline void rig_signal_broken(void *ctx)
{
	atomic_fetch_add(&((struct rig *)ctx)->broken, 1);
}

static inline struct io_thread *rig_io(bool no_uring, uint32_t poll_us)
{
	struct io_thread_options o = {.name = "io", .poll_max_us = poll_us, .no_uring = no_uring};
	struct io_thread *io = NULL;
	char why[BACKEND_WHY_MAX];

	CU_ASSERT_EQUAL_FATAL(io_thread_create(&io, &o, why), 0);
	return io;
}

static inline void rig_open(struct rig *r, bool no_uring, uint32_t poll_us, size_t bytes)
{
	memset(r, 0, sizeof(*r));
	r->bytes = bytes;
	r->ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CU_ASSERT_FATAL(r->ram != MAP_FAILED);
	r->dirty = calloc(bytes / 4096 / 64 + 1, 8);
	CU_ASSERT_EQUAL_FATAL(ring_mem_add(&r->mem, RIG_GPA, bytes, r->ram, false), 0);
	r->io = rig_io(no_uring, poll_us);
	r->signal = (struct split_signal){
		rig_signal_queue, rig_signal_config, rig_signal_broken, NULL, r};
	for (unsigned i = 0; i < RIG_QUEUES; i++) {
		r->q[i].cfg.doorbell_fd = -1;
		r->q[i].irq_fd = -1;
	}
}

static inline void rig_close(struct rig *r)
{
	split_destroy(r->dev);
	io_thread_destroy(r->io);
	for (unsigned i = 0; i < RIG_QUEUES; i++) {
		if (r->q[i].cfg.doorbell_fd >= 0)
			close(r->q[i].cfg.doorbell_fd);
		if (r->q[i].irq_fd >= 0)
			close(r->q[i].irq_fd);
		free(r->q[i].slots);
	}
	free(r->dirty);
	munmap(r->ram, r->bytes);
}

static inline uint64_t rig_alloc(struct rig *r, size_t bytes, size_t align)
{
	size_t at = (r->next + align - 1) / align * align;

	CU_ASSERT_FATAL(at + bytes <= r->bytes);
	r->next = at + bytes;
	return RIG_GPA + at;
}

static inline void *rig_host(struct rig *r, uint64_t gpa)
{
	return r->ram + (gpa - RIG_GPA);
}

static inline bool rig_page_dirty(struct rig *r, uint64_t gpa)
{
	uint64_t page = (gpa - RIG_GPA) >> 12;

	return __atomic_load_n(&r->dirty[page / 64], __ATOMIC_RELAXED) >> (page % 64) & 1;
}

/* Negotiates everything offered (and wanted), in the layout and with the ring features of the rig.
 */
static inline uint64_t rig_features(struct rig *r, uint64_t want)
{
	uint64_t f = want | VIRTIO_BIT(VIRTIO_F_VERSION_1);

	if (r->layout == RING_PACKED)
		f |= VIRTIO_BIT(VIRTIO_F_RING_PACKED);
	if (r->features.event_idx)
		f |= VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	if (r->features.indirect)
		f |= VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
	if (r->features.in_order)
		f |= VIRTIO_BIT(VIRTIO_F_IN_ORDER);
	return f;
}

static inline void rig_queue_init(struct rig *r, unsigned i, uint32_t size)
{
	struct rig_queue *q = &r->q[i];
	struct ring_geometry g;
	uint64_t base;
	struct ring_driver_config c = {.layout = r->layout, .features = r->features, .size = size};

	ring_geometry_get(r->layout, size, &g);
	base = rig_alloc(r, g.bytes, 4096);
	memset(rig_host(r, base), 0, g.bytes);
	if (q->cfg.doorbell_fd < 0) {
		q->cfg.doorbell_fd = eventfd(0, EFD_NONBLOCK);
		q->irq_fd = eventfd(0, EFD_NONBLOCK);
	}
	q->cfg.size = size;
	q->cfg.desc_gpa = base + g.desc;
	q->cfg.driver_gpa = base + g.driver;
	q->cfg.device_gpa = base + g.device;
	q->cfg.restore = false;
	free(q->slots);
	q->slots = calloc(size, sizeof(*q->slots));
	c.slots = q->slots;
	c.desc = rig_host(r, q->cfg.desc_gpa);
	c.driver = rig_host(r, q->cfg.driver_gpa);
	c.device = rig_host(r, q->cfg.device_gpa);
	if (r->features.indirect) {
		c.indirect_max = 32;
		c.indirect_gpa = rig_alloc(r, (size_t)size * 32 * 16, 16);
		c.indirect = rig_host(r, c.indirect_gpa);
	}
	CU_ASSERT_EQUAL_FATAL(ring_driver_init(&q->drv, &c), 0);
}

static inline void rig_queue_start(struct rig *r, unsigned i)
{
	CU_ASSERT_EQUAL_FATAL(split_queue_start(r->dev, i, &r->q[i].cfg), 0);
}

static inline void rig_kick(struct rig *r, unsigned i)
{
	uint64_t one = 1;

	ring_driver_publish(&r->q[i].drv);
	if (ring_driver_needs_doorbell(&r->q[i].drv) &&
		write(r->q[i].cfg.doorbell_fd, &one, sizeof(one)) < 0)
		CU_FAIL("doorbell eventfd");
}

/* Completions, at least one; 0 when none came in RIG_WAIT_MS: a lost wake-up. */
static inline unsigned rig_wait(struct rig *r, unsigned i, struct ring_done *done, unsigned max)
{
	struct rig_queue *q = &r->q[i];
	uint64_t end_ns = clock_now_ns() + RIG_WAIT_MS * 1000000ull;

	while (clock_now_ns() < end_ns) {
		struct pollfd p = {.fd = q->irq_fd, .events = POLLIN};
		uint64_t n;
		int got = ring_driver_collect(&q->drv, done, max);

		CU_ASSERT_FATAL(got >= 0);
		if (got)
			return (unsigned)got;
		if (q->silent) {
			struct timespec ts = {0, 50000};

			nanosleep(&ts, NULL);
			continue;
		}
		if (ring_driver_interrupt_on(&q->drv, 1))
			continue;
		poll(&p, 1, RIG_WAIT_MS);
		if (read(q->irq_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
			CU_FAIL("interrupt eventfd");
	}
	CU_FAIL("nothing was completed in time");
	return 0;
}

#endif
