/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests that one device popped are taken again by another. */
#include "tests/unit/unit.h"
#include "tests/unit/test_ring_rig.h"

#define SIZE 16u
#define MAX  8u

static void add(struct rig *r, unsigned i, unsigned nout, unsigned nin)
{
	struct ring_sg sg[8];

	for (unsigned k = 0; k < nout + nin; k++)
		sg[k] = (struct ring_sg){RIG_DATA_GPA + i * 8192 + k * 64, 16 + k};
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&r->drv, sg, nout, nin, i), 0);
}

static bool same_chain(const struct ring_chain *a, const struct ring_chain *b)
{
	return a->id == b->id && a->ndesc == b->ndesc && a->nout == b->nout && a->nin == b->nin &&
	       a->out_len == b->out_len && a->in_len == b->in_len &&
	       !memcmp(a->segs, b->segs, (a->nout + a->nin) * sizeof(*a->segs));
}

static int retake(struct rig *r, const struct ring_chain *old, const struct ring_packed_desc *descs,
	struct ring_chain *chain, struct ring_seg *segs)
{
	if (r->layout == RING_SPLIT)
		return ring_device_retake_split(&r->dev, old->id, chain, segs, MAX);
	return ring_device_retake_packed(&r->dev, descs, old->ndesc, chain, segs, MAX);
}

/* Some are completed out of order, the others go to the successor, which goes on from there. */
static void retake_all(enum ring_layout layout, unsigned features, uint16_t position)
{
	struct ring_chain chains[4], again, more[2];
	struct ring_seg segs[32], segs_again[MAX];
	struct ring_packed_desc descs[4][MAX];
	struct ring_device_state state;
	struct ring_used used[4];
	struct ring_done done[8];
	struct rig r;
	unsigned seen = 0;

	rig_new(&r, layout, SIZE, features);
	rig_start(&r, position);
	add(&r, 0, 1, 2);
	add(&r, 1, 2, 0);
	add(&r, 2, 0, 3);
	add(&r, 3, 1, 1);
	ring_driver_publish(&r.drv);
	ring_device_state_get(&r.dev, &state);
	CU_ASSERT_EQUAL_FATAL(ring_device_pop(&r.dev, chains, 4, segs, 32), 4);
	if (layout == RING_PACKED)
		for (unsigned i = 0, at = state.avail & 0x7fff; i < 4; i++)
			for (unsigned k = 0; k < chains[i].ndesc; k++, at = (at + 1) % SIZE)
				ring_device_packed_peek(&r.dev, (uint16_t)at, &descs[i][k]);
	/* the last one is done first: in a packed ring it is written over the first */
	used[0] = (struct ring_used){chains[3].id, 17};
	CU_ASSERT_EQUAL(ring_device_push(&r.dev, used, 1), 0);
	if (layout == RING_SPLIT)
		CU_ASSERT_EQUAL(ring_device_split_used(&r.dev), (uint16_t)(position + 1));
	ring_device_state_get(&r.dev, &state);

	CU_ASSERT_EQUAL_FATAL(ring_device_init(&r.dev, &r.dev_cfg, &r.mem), 0);
	CU_ASSERT_EQUAL_FATAL(ring_device_state_set(&r.dev, &state), 0);
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(retake(&r, &chains[i], descs[i], &again, segs_again), 0);
		CU_ASSERT(same_chain(&chains[i], &again));
		/* not twice */
		CU_ASSERT_EQUAL(retake(&r, &chains[i], descs[i], &again, segs_again), -RING_EEXIST);
		used[i] = (struct ring_used){chains[i].id, chains[i].in_len};
	}
	add(&r, 4, 1, 1);
	ring_driver_publish(&r.drv);
	CU_ASSERT_EQUAL(ring_device_pop(&r.dev, more, 2, segs, 32), 1);
	used[3] = (struct ring_used){more[0].id, more[0].in_len};
	CU_ASSERT_EQUAL(ring_device_push(&r.dev, used, 4), 0);
	CU_ASSERT_EQUAL(ring_driver_collect(&r.drv, done, 8), 5);
	for (unsigned i = 0; i < 5; i++)
		seen |= 1u << done[i].token;
	CU_ASSERT_EQUAL(seen, 31);
	CU_ASSERT_EQUAL(ring_device_pop(&r.dev, more, 2, segs, 32), 0);
	rig_free(&r);
}

static void test_retake(void)
{
	for (unsigned features = 0; features < 4; features++) {
		retake_all(RING_SPLIT, features, 0);
		retake_all(RING_SPLIT, features, 65534);
		retake_all(RING_PACKED, features, 0x8000);
		retake_all(RING_PACKED, features, 0x8000 | (SIZE - 2));
		retake_all(RING_PACKED, features, SIZE - 1);
	}
}

/* What is taken again is as hostile as what is popped. */
static void test_refused(void)
{
	struct ring_packed_desc d[2] = {{RIG_DATA_GPA, 64, 3, 0}, {RIG_DATA_GPA + 64, 64, 3, 2}};
	struct ring_chain chain;
	struct ring_seg segs[MAX];
	struct rig r;

	rig_new(&r, RING_SPLIT, SIZE, 0);
	CU_ASSERT_EQUAL(ring_device_retake_split(&r.dev, SIZE, &chain, segs, MAX), -RING_EINVAL);
	/* a descriptor of zeroes: no length */
	CU_ASSERT_EQUAL(ring_device_retake_split(&r.dev, 2, &chain, segs, MAX), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_device_retake_packed(&r.dev, d, 2, &chain, segs, MAX), -RING_EINVAL);
	add(&r, 0, 2, 1);
	CU_ASSERT_EQUAL(ring_device_retake_split(&r.dev, 0, &chain, segs, 2), -RING_ENOSPC);
	CU_ASSERT_EQUAL(ring_device_retake_split(&r.dev, 0, &chain, segs, 3), 0);
	rig_free(&r);

	rig_new(&r, RING_PACKED, SIZE, 0);
	CU_ASSERT_EQUAL(ring_device_retake_split(&r.dev, 0, &chain, segs, MAX), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_device_retake_packed(&r.dev, d, 0, &chain, segs, MAX), -RING_EINVAL);
	CU_ASSERT_EQUAL(
		ring_device_retake_packed(&r.dev, d, SIZE + 1, &chain, segs, MAX), -RING_EINVAL);
	CU_ASSERT_EQUAL(ring_device_retake_packed(&r.dev, d, 2, &chain, segs, 1), -RING_ENOSPC);
	d[1].addr = 1;
	CU_ASSERT_EQUAL(ring_device_retake_packed(&r.dev, d, 2, &chain, segs, MAX), -RING_EFAULT);
	d[1].addr = RIG_ROM_GPA;
	CU_ASSERT_EQUAL(ring_device_retake_packed(&r.dev, d, 2, &chain, segs, MAX), -RING_EFAULT);
	d[1].addr = RIG_DATA_GPA;
	d[1].id = SIZE;
	CU_ASSERT_EQUAL(ring_device_retake_packed(&r.dev, d, 2, &chain, segs, MAX), -RING_EINVAL);
	d[1].id = 3;
	CU_ASSERT_EQUAL(ring_device_retake_packed(&r.dev, d, 2, &chain, segs, MAX), 0);
	CU_ASSERT_EQUAL(chain.nout, 1);
	CU_ASSERT_EQUAL(chain.nin, 1);
	rig_free(&r);
}

static const struct unit_case cases[] = {
	{"taken again, equal, and the ring goes on", test_retake},
	{"what cannot be is refused", test_refused},
};

UNIT_MAIN("ring_retake", cases)
