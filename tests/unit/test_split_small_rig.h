/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the small split devices (console, rng, balloon) share, on the rig of backend/.
 * A choice of ring is five bits: event index, indirect, in-order, packed, epoll. */
#ifndef TEST_SPLIT_SMALL_RIG_H
#define TEST_SPLIT_SMALL_RIG_H

#include "tests/unit/test_backend_rig.h"

static struct io_thread *small_other; /* where a device is moved to */

/* Waits, with no limit that a slow machine could meet. */
#define small_until(condition)                                                                     \
	do {                                                                                       \
		uint64_t end_ns = clock_now_ns() + RIG_WAIT_MS * 1000000ull;                       \
                                                                                                   \
		while (!(condition) && clock_now_ns() < end_ns)                                    \
			usleep(200);                                                               \
	} while (0)

static inline void small_open(struct rig *r, unsigned bits, size_t bytes)
{
	rig_open(r, bits & 16, bits & 2 ? 50 : 0, bytes);
	r->layout = bits & 8 ? RING_PACKED : RING_SPLIT;
	r->features = (struct ring_features){bits & 1, bits & 2, bits & 4};
	small_other = rig_io(!(bits & 16), 0);
}

static inline void small_close(struct rig *r)
{
	rig_close(r);
	io_thread_destroy(small_other);
}

static inline struct split_ring_options small_ring(const struct rig *r)
{
	return (struct split_ring_options){
		.ring = r->layout == RING_PACKED ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT,
		.no_event_idx = !r->features.event_idx,
		.no_indirect = !r->features.indirect,
		.in_order = r->features.in_order,
	};
}

/* Everything offered is accepted; n queues. */
static inline void small_start(struct rig *r, unsigned n, uint32_t size)
{
	CU_ASSERT_EQUAL_FATAL(split_features_set(r->dev, r->dev->features), 0);
	for (unsigned i = 0; i < n; i++) {
		rig_queue_init(r, i, size);
		rig_queue_start(r, i);
	}
}

/* Into a new device on another thread, with all there is to move. */
static inline void small_move(struct rig *r, unsigned n, void (*create)(void *ctx), void *ctx)
{
	struct ring_device_state state[RIG_QUEUES];
	uint64_t features = r->dev->driver_features, one = 1;
	struct io_thread *io = r->io;
	struct state_writer w = {0};
	struct state_reader rd;

	split_quiesce_wait(r->dev);
	for (unsigned q = 0; q < n; q++)
		split_queue_state_get(r->dev, q, &state[q]);
	split_save(r->dev, &w);
	CU_ASSERT_EQUAL(w.error, 0);
	split_destroy(r->dev);
	r->dev = NULL;
	r->io = small_other;
	small_other = io;
	create(ctx);
	CU_ASSERT_EQUAL_FATAL(split_features_set(r->dev, features), 0);
	/* cut short anywhere it is refused, and does no harm */
	for (size_t len = 0; len < w.len; len++) {
		state_reader_init(&rd, w.data, len);
		split_load(r->dev, &rd);
		CU_ASSERT_EQUAL(rd.error, -EINVAL);
	}
	state_reader_init(&rd, w.data, w.len);
	split_load(r->dev, &rd);
	CU_ASSERT_EQUAL(rd.error, 0);
	state_writer_free(&w);
	for (unsigned q = 0; q < n; q++) {
		r->q[q].cfg.restore = true;
		r->q[q].cfg.state = state[q];
		rig_queue_start(r, q);
		/* as a transport does: a doorbell on the way may be lost */
		if (write(r->q[q].cfg.doorbell_fd, &one, sizeof(one)) < 0)
			CU_FAIL("doorbell eventfd");
	}
}

static inline void small_noted(void *ctx)
{
	uint64_t one = 1;

	if (write(*(int *)ctx, &one, sizeof(one)) < 0)
		CU_FAIL("eventfd");
}

/* A reset under load, and the queues anew. */
static inline void small_reset(struct rig *r, unsigned n, uint32_t size)
{
	int fd = eventfd(0, 0);
	uint64_t v;

	split_reset(r->dev, small_noted, &fd);
	CU_ASSERT_EQUAL(read(fd, &v, sizeof(v)), 8);
	close(fd);
	r->next = (size_t)(r->q[0].cfg.desc_gpa - RIG_GPA);
	small_start(r, n, size);
}

/* Dirty pages are marked from now on. */
static inline void small_dirty_log(struct rig *r, unsigned n)
{
	split_quiesce_wait(r->dev);
	r->mem.regions[0].dirty = r->dirty;
	for (unsigned q = 0; q < n; q++)
		rig_queue_start(r, q);
}

#endif
