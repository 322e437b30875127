/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A split device for fuzzing: guest memory, and queues that are well-formed as rings while
 * everything in the requests comes from the input: how they are cut into segments, where those lie,
 * what they say.
 */
#ifndef FUZZ_SPLIT_RIG_H
#define FUZZ_SPLIT_RIG_H

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

#define FUZZ_GPA    0x10000ull
#define FUZZ_RAM    (512u << 10)
#define FUZZ_DATA   (256u << 10) /* data below, rings above */
#define FUZZ_SIZE   64u
#define FUZZ_SEGS   40u
#define FUZZ_QUEUES 5u

struct fuzz_input {
	const uint8_t *p;
	size_t n;
};

struct fuzz_queue {
	struct ring_driver drv;
	struct ring_driver_slot slots[FUZZ_SIZE];
	struct split_queue_config cfg;
	uint32_t added;
};

struct fuzz_rig {
	struct io_thread *io;
	struct ring_mem mem;
	uint8_t *ram;
	uint64_t dirty[FUZZ_RAM / 4096 / 64 + 1];
	struct fuzz_queue q[FUZZ_QUEUES];
	struct split_device *dev[16]; /* one for each choice of ring */
	sem_t done;
	bool broken;
};

static inline void fuzz_check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz: %s\n", what);
	abort();
}

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
	if (!in->n)
		return 0;
	in->n--;
	return *in->p++;
}

static inline uint16_t fuzz_u16(struct fuzz_input *in)
{
	uint16_t v = fuzz_u8(in);

	return (uint16_t)(v | fuzz_u8(in) << 8);
}

static inline void fuzz_signal_queue(void *ctx, unsigned q)
{
	(void)ctx;
	(void)q;
}

static inline void fuzz_signal_config(void *ctx)
{
	(void)ctx;
}

static inline void fuzz_signal_broken(void *ctx)
{
	((struct fuzz_rig *)ctx)->broken = true;
}

static inline struct split_signal fuzz_signal(struct fuzz_rig *r)
{
	return (struct split_signal){
		fuzz_signal_queue, fuzz_signal_config, fuzz_signal_broken, NULL, r};
}

static inline void fuzz_rig_open(struct fuzz_rig *r)
{
	/* long polling: the thread is awake when the next input comes */
	struct io_thread_options o = {.name = "fuzz", .poll_max_us = 2000, .no_uring = true};
	char why[BACKEND_WHY_MAX];

	fuzz_check(!io_thread_create(&r->io, &o, why), "I/O thread");
	r->ram = aligned_alloc(4096, FUZZ_RAM);
	fuzz_check(r->ram != NULL, "memory");
	fuzz_check(!ring_mem_add(&r->mem, FUZZ_GPA, FUZZ_RAM, r->ram, false), "memory region");
	r->mem.regions[0].dirty = r->dirty;
	sem_init(&r->done, 0, 0);
}

/* Features of the ring that a choice of 16 stands for. */
static inline struct ring_features fuzz_features(unsigned choice)
{
	return (struct ring_features){choice & 1, choice & 2, choice & 4};
}

static inline void fuzz_queues_init(struct fuzz_rig *r, unsigned choice, unsigned n)
{
	enum ring_layout layout = choice & 8 ? RING_PACKED : RING_SPLIT;
	uint32_t at = FUZZ_DATA;
	struct ring_geometry g;

	ring_geometry_get(layout, FUZZ_SIZE, &g);
	memset(r->ram + FUZZ_DATA, 0, FUZZ_RAM - FUZZ_DATA);
	for (unsigned i = 0; i < n; i++) {
		struct fuzz_queue *q = &r->q[i];
		struct ring_driver_config c = {.layout = layout,
			.features = fuzz_features(choice),
			.size = FUZZ_SIZE,
			.slots = q->slots};

		q->cfg = (struct split_queue_config){.size = FUZZ_SIZE,
			.desc_gpa = FUZZ_GPA + at + g.desc,
			.driver_gpa = FUZZ_GPA + at + g.driver,
			.device_gpa = FUZZ_GPA + at + g.device,
			.doorbell_fd = -1};
		c.desc = r->ram + at + g.desc;
		c.driver = r->ram + at + g.driver;
		c.device = r->ram + at + g.device;
		at += (uint32_t)(g.bytes + 4095) & ~4095u;
		if (c.features.indirect) {
			c.indirect = r->ram + at;
			c.indirect_gpa = FUZZ_GPA + at;
			c.indirect_max = FUZZ_SEGS;
			at += FUZZ_SIZE * FUZZ_SEGS * 16;
		}
		fuzz_check(at <= FUZZ_RAM, "room for rings");
		memset(q->slots, 0, sizeof(q->slots));
		fuzz_check(!ring_driver_init(&q->drv, &c), "driver");
		q->added = 0;
	}
}

/*
 * One request: how many segments of each kind, then place and length of each. The first readable
 * one is preceded by `head` bytes of the input, stored there.
 */
static inline void fuzz_request(
	struct fuzz_rig *r, struct fuzz_queue *q, struct fuzz_input *in, unsigned head)
{
	struct ring_sg sg[FUZZ_SEGS] = {0};
	uint8_t shape = fuzz_u8(in);
	unsigned nout = shape & 7, nin = shape >> 3 & 7, n = nout + nin;

	if (shape & 0x80)
		nin += 16;
	n = nout + nin;
	for (unsigned i = 0; i < n; i++) {
		uint32_t at = fuzz_u16(in) * 4u, len = fuzz_u16(in);

		/* high bits of the length: small ones, or all there is */
		sg[i].len = len & 0x8000 ? (len & 0x7fff) + 1 : (len & 0x3ff) + 1;
		if (at == 0xffff * 4u)
			at = FUZZ_RAM; /* outside memory: the ring's to refuse */
		sg[i].gpa = FUZZ_GPA + at;
		if (at < FUZZ_DATA && at + sg[i].len > FUZZ_DATA)
			sg[i].len = FUZZ_DATA - at;
	}
	for (unsigned i = 0, k = 0; i < nout && head; i++) {
		uint64_t at = sg[i].gpa - FUZZ_GPA;

		for (k = 0; k < sg[i].len && head && at + k < FUZZ_DATA; k++, head--)
			r->ram[at + k] = fuzz_u8(in);
	}
	if (n && !ring_driver_add(&q->drv, sg, nout, nin, q->added))
		q->added++;
}

static inline void fuzz_nothing(void *ctx)
{
	(void)ctx;
}

static inline void fuzz_done(void *ctx)
{
	sem_post(ctx);
}

static inline void fuzz_wait(struct fuzz_rig *r)
{
	while (sem_wait(&r->done) < 0)
		;
}

/* Starts the queues, lets the device work, stops it; every request must have come back, and once.
 */
static inline void fuzz_run(struct fuzz_rig *r, struct split_device *d, unsigned n, bool all)
{
	r->broken = false;
	for (unsigned i = 0; i < n; i++)
		ring_driver_publish(&r->q[i].drv);
	for (unsigned i = 0; i < n; i++) {
		int err = split_queue_start(d, i, &r->q[i].cfg);

		/* refused only where an earlier queue has already broken the device */
		fuzz_check(!err || r->broken, "queue start");
	}
	/* a call runs at the start of a round: after the third, two rounds have polled to their end
	 */
	for (unsigned i = 0; i < 3; i++)
		io_thread_call(d->io, fuzz_nothing, NULL);
	split_quiesce(d, fuzz_done, &r->done);
	fuzz_wait(r);
	for (unsigned i = 0; i < n; i++) {
		struct ring_done done[FUZZ_SIZE];
		uint64_t seen = 0;
		int got = ring_driver_collect(&r->q[i].drv, done, FUZZ_SIZE);

		fuzz_check(got >= 0, "a completion of nothing in flight");
		for (int k = 0; k < got; k++) {
			fuzz_check(!(seen >> done[k].token & 1), "completed twice");
			seen |= 1ull << done[k].token;
		}
		fuzz_check(!all || r->broken || (uint32_t)got == r->q[i].added, "not completed");
	}
	split_reset(d, fuzz_done, &r->done);
	fuzz_wait(r);
}

#endif
