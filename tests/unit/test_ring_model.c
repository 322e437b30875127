/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Both sides of a queue in one thread, driven by random interleavings and compared, step by step,
 * with a model that knows no ring: every size, feature combination and starting position.
 */
#include "tests/unit/unit.h"
#include "tests/unit/test_ring_rig.h"

#define SEGS_MAX  6u
#define BATCH_MAX 64u

enum state { FREE, ADDED, PUBLISHED, POPPED, PUSHED };

struct request {
	struct ring_sg sg[SEGS_MAX];
	uint32_t nout;
	uint32_t nin;
	uint32_t in_len;
	uint32_t done_len;
	uint32_t positions;
	uint64_t order;
	enum state state;
};

/* Indices into the requests, oldest first. */
struct line {
	uint32_t *at;
	uint32_t head;
	uint32_t count;
};

struct model {
	struct rig rig;
	uint64_t seed;
	uint32_t size;
	struct request *requests;
	uint32_t *spare;
	uint32_t nspare;
	uint16_t *by_id; /* id the device knows -> request */
	struct line added, published,
		visible;          /* visible: in the order the driver must see (in_order) */
	struct line popped, held; /* held: ids, nearly oldest first */
	uint32_t nvisible;
	uint32_t free_positions;
	uint64_t avail_at, used_at; /* positions ever published, ever used (as events count them) */
	uint64_t pop_at;            /* positions ever popped */
	uint64_t asked_avail, asked_used; /* the same at the last decision */
	uint64_t bell_at, intr_at;        /* the position asked for */
	bool bell_on, intr_on;
	bool bell_any, intr_any; /* on without naming a position, as zeroed packed memory says */
	bool loaded;             /* the first interrupt after a load is always wanted */
	uint64_t done;
	uint32_t wrong;
};

static struct ring_seg segs[BATCH_MAX * SEGS_MAX];

/* Millions of checks: counted here, and given to CUnit once for each run. */
#define CHECK(m, cond)                                                                             \
	do {                                                                                       \
		if (!(cond) && (m)->wrong++ == 0)                                                  \
			printf("\n  line %d: %s (size %u)\n", __LINE__, #cond, (m)->size);         \
	} while (0)

static void line_put(struct line *l, uint32_t size, uint32_t what)
{
	l->at[(l->head + l->count++) % size] = what;
}

static uint32_t line_get(struct line *l, uint32_t size)
{
	uint32_t what = l->at[l->head];

	l->head = (l->head + 1) % size;
	l->count--;
	return what;
}

static void model_new(struct model *m, enum ring_layout layout, uint32_t size, unsigned features)
{
	struct line *lines[] = {&m->added, &m->published, &m->visible, &m->popped, &m->held};

	memset(m, 0, sizeof(*m));
	rig_new(&m->rig, layout, size, features);
	m->seed = 0x9e3779b97f4a7c15ull ^ (uint64_t)size << 8 ^ features ^ (uint64_t)layout << 40;
	m->size = size;
	m->requests = calloc(size, sizeof(*m->requests));
	m->spare = calloc(size, sizeof(*m->spare));
	m->by_id = calloc(size, sizeof(*m->by_id));
	for (int i = 0; i < 5; i++)
		lines[i]->at = calloc(size, sizeof(uint32_t));
	for (uint32_t i = 0; i < size; i++)
		m->spare[m->nspare++] = i;
	m->free_positions = size;
	m->bell_on = m->intr_on = true;
	m->bell_any = m->intr_any = layout == RING_PACKED || !m->rig.features.event_idx;
}

static void model_free(struct model *m)
{
	rig_free(&m->rig);
	free(m->requests);
	free(m->spare);
	free(m->by_id);
	free(m->held.at);
	free(m->added.at);
	free(m->published.at);
	free(m->visible.at);
	free(m->popped.at);
}

/* Does a step of the counted side from `from` to `to` owe the other one a notification? */
static void model_check_event(
	struct model *m, bool got, uint64_t from, uint64_t to, bool on, bool any, uint64_t event)
{
	bool want = on && (any || (event >= from && event < to));
	uint64_t lap = m->rig.layout == RING_SPLIT ? 65536 : 2 * m->size;

	if (want || any || !m->rig.features.event_idx)
		CHECK(m, got == want);
	/* An event as old as this comes round again, and steps longer than this are not compared.
	 */
	else if (on && to - event < lap && to - from <= lap / 2)
		CHECK(m, !got);
}

static void model_add(struct model *m)
{
	uint32_t nsegs, index, gpa_room;
	struct request *q;
	bool table;
	int rc;

	if (!m->nspare) {
		struct ring_sg sg = {RIG_DATA_GPA, 1};

		if (!m->free_positions)
			CHECK(m, ring_driver_add(&m->rig.drv, &sg, 1, 0, 0) == -RING_ENOSPC);
		return;
	}
	index = m->spare[m->nspare - 1];
	q = &m->requests[index];
	nsegs = 1 + rig_below(&m->seed, SEGS_MAX);
	q->nout = rig_below(&m->seed, nsegs + 1);
	q->nin = nsegs - q->nout;
	q->in_len = 0;
	for (uint32_t i = 0; i < nsegs; i++) {
		bool rom = i < q->nout && rig_below(&m->seed, 8) == 0;

		q->sg[i].len = 1 + rig_below(&m->seed, 4000);
		gpa_room = (rom ? RIG_ROM_BYTES : RIG_DATA_BYTES) - q->sg[i].len;
		q->sg[i].gpa =
			(rom ? RIG_ROM_GPA : RIG_DATA_GPA) + rig_below(&m->seed, gpa_room + 1);
		if (i >= q->nout)
			q->in_len += q->sg[i].len;
	}
	table = m->rig.features.indirect && nsegs > 1;
	q->positions = table ? 1 : nsegs;
	rc = ring_driver_add(&m->rig.drv, q->sg, q->nout, q->nin, index | (uint64_t)index << 40);
	if (q->positions > m->size) {
		CHECK(m, rc == -RING_EINVAL);
		return;
	}
	CHECK(m, rc == (q->positions > m->free_positions ? -RING_ENOSPC : 0));
	if (rc)
		return;
	m->nspare--;
	m->free_positions -= q->positions;
	q->state = ADDED;
	line_put(&m->added, m->size, index);
	CHECK(m, ring_driver_free(&m->rig.drv) == m->free_positions);
}

static void model_publish(struct model *m)
{
	ring_driver_publish(&m->rig.drv);
	while (m->added.count) {
		uint32_t index = line_get(&m->added, m->size);

		m->requests[index].state = PUBLISHED;
		m->avail_at += m->rig.layout == RING_SPLIT ? 1 : m->requests[index].positions;
		line_put(&m->published, m->size, index);
	}
	CHECK(m, ring_device_has_work(&m->rig.dev) == (m->published.count > 0));
	if (rig_below(&m->seed, 4)) {
		bool got = ring_driver_needs_doorbell(&m->rig.drv);

		if (m->asked_avail == m->avail_at)
			CHECK(m, !got);
		else
			model_check_event(m, got, m->asked_avail, m->avail_at, m->bell_on,
				m->bell_any, m->bell_at);
		m->asked_avail = m->avail_at;
	}
}

static void model_check_chain(struct model *m, const struct ring_chain *c, const struct request *q)
{
	uint32_t out_len = 0;

	CHECK(m, c->nout == q->nout && c->nin == q->nin && c->ndesc == q->positions);
	for (uint32_t i = 0; i < q->nout + q->nin; i++) {
		void *host = ring_mem_translate(&m->rig.mem, q->sg[i].gpa, q->sg[i].len,
			i < q->nout ? RING_READ : RING_WRITE);

		CHECK(m, c->segs[i].base == host && c->segs[i].len == q->sg[i].len);
		if (i < q->nout)
			out_len += q->sg[i].len;
	}
	CHECK(m, c->out_len == out_len && c->in_len == q->in_len);
}

static void model_pop(struct model *m)
{
	static struct ring_chain chains[BATCH_MAX];
	uint32_t max = 1 + rig_below(&m->seed, BATCH_MAX), expect = 0, room = 0, n, back;
	uint32_t max_segs = rig_below(&m->seed, 3) ? BATCH_MAX * SEGS_MAX : rig_below(&m->seed, 20);
	int rc;

	for (; expect < max && expect < m->published.count; expect++) {
		uint32_t at = (m->published.head + expect) % m->size;
		const struct request *q = &m->requests[m->published.at[at]];

		if (room + q->nout + q->nin > max_segs)
			break;
		room += q->nout + q->nin;
	}
	rc = ring_device_pop(&m->rig.dev, chains, max, segs, max_segs);
	CHECK(m, rc == (int)expect);
	if (rc <= 0 || rc != (int)expect)
		return;
	n = rc;
	back = rig_below(&m->seed, 4) ? 0 : rig_below(&m->seed, n + 1);
	ring_device_unpop(&m->rig.dev, chains + (n - back), back);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = (m->published.head + (i < n - back ? 0 : i - (n - back))) % m->size;
		uint32_t index = m->published.at[at];

		model_check_chain(m, &chains[i], &m->requests[index]);
		if (i >= n - back)
			continue;
		line_get(&m->published, m->size);
		m->requests[index].state = POPPED;
		m->pop_at += m->rig.layout == RING_SPLIT ? 1 : m->requests[index].positions;
		CHECK(m, chains[i].id < m->size);
		m->by_id[chains[i].id] = index;
		line_put(&m->held, m->size, chains[i].id);
		line_put(&m->popped, m->size, index);
	}
}

static void model_make_visible(struct model *m, uint32_t index)
{
	const struct request *q = &m->requests[index];

	m->used_at += m->rig.layout == RING_SPLIT ? 1 : q->positions;
	m->nvisible++;
	if (m->rig.features.in_order)
		line_put(&m->visible, m->size, index);
}

static void model_push(struct model *m)
{
	struct ring_used used[BATCH_MAX];
	uint32_t n = rig_below(&m->seed, BATCH_MAX + 1);

	if (n > m->held.count)
		n = m->held.count;
	for (uint32_t i = 0; i < n; i++) {
		/* Mostly in order, as real devices are. */
		uint32_t pick = rig_below(&m->seed, 2) ? rig_below(&m->seed, m->held.count) : 0;
		uint32_t *at = &m->held.at[(m->held.head + pick) % m->size], id = *at;
		struct request *q = &m->requests[m->by_id[id]];

		*at = m->held.at[m->held.head];
		line_get(&m->held, m->size);
		used[i].id = id;
		used[i].len = rig_below(&m->seed, q->in_len + 1);
		q->done_len = used[i].len;
		if (q->in_len && rig_below(&m->seed, 50) == 0)
			used[i].len = UINT32_MAX, q->done_len = q->in_len;
		q->state = PUSHED;
		if (!m->rig.features.in_order)
			model_make_visible(m, q - m->requests);
	}
	CHECK(m, ring_device_push(&m->rig.dev, used, n) == 0);
	while (m->rig.features.in_order && m->popped.count &&
		m->requests[m->popped.at[m->popped.head]].state == PUSHED)
		model_make_visible(m, line_get(&m->popped, m->size));
	if (!m->rig.features.in_order)
		m->popped.count = 0;
	CHECK(m, ring_driver_has_done(&m->rig.drv) == (m->nvisible > 0));
	if (rig_below(&m->seed, 4)) {
		bool got = ring_device_needs_interrupt(&m->rig.dev);

		if (m->asked_used == m->used_at)
			CHECK(m, !got);
		else if (m->loaded)
			CHECK(m, got);
		else
			model_check_event(m, got, m->asked_used, m->used_at, m->intr_on,
				m->intr_any, m->intr_at);
		if (m->asked_used != m->used_at)
			m->loaded = false;
		m->asked_used = m->used_at;
	}
}

static void model_collect(struct model *m)
{
	static struct ring_done done[BATCH_MAX];
	uint32_t max = 1 + rig_below(&m->seed, BATCH_MAX);
	int rc = ring_driver_collect(&m->rig.drv, done, max);

	CHECK(m, rc == (int)(max < m->nvisible ? max : m->nvisible));
	for (int i = 0; i < rc; i++) {
		uint32_t index = (uint32_t)done[i].token;
		struct request *q = &m->requests[index % m->size];

		CHECK(m, index < m->size && done[i].token >> 40 == index && q->state == PUSHED);
		CHECK(m, done[i].len == q->done_len);
		if (m->rig.features.in_order)
			CHECK(m, line_get(&m->visible, m->size) == index);
		if (m->wrong)
			return;
		q->state = FREE;
		m->free_positions += q->positions;
		m->spare[m->nspare++] = index;
		m->nvisible--;
		m->done++;
	}
	CHECK(m, ring_driver_free(&m->rig.drv) == m->free_positions);
}

static void model_switch_notifications(struct model *m)
{
	uint32_t after = 1 + rig_below(&m->seed, 8), inflight = m->size - m->nspare;

	switch (rig_below(&m->seed, 4)) {
	case 0:
		ring_device_doorbell_off(&m->rig.dev);
		m->bell_on = false;
		break;
	case 1:
		CHECK(m, ring_device_doorbell_on(&m->rig.dev) == (m->published.count > 0));
		m->bell_on = true;
		m->bell_any = !m->rig.features.event_idx;
		m->bell_at = m->pop_at;
		break;
	case 2:
		ring_driver_interrupt_off(&m->rig.drv);
		m->intr_on = false;
		break;
	default:
		if (m->nvisible) /* the driver's own position is known to the model when all is
				    collected */
			return;
		CHECK(m, !ring_driver_interrupt_on(&m->rig.drv, after));
		m->intr_on = true;
		m->intr_any = !m->rig.features.event_idx;
		m->intr_at =
			m->used_at + (after > inflight ? (inflight ? inflight : 1) : after) - 1;
		break;
	}
}

static void model_run(enum ring_layout layout, uint32_t size, unsigned features, uint16_t start,
	uint64_t requests)
{
	static struct model m;
	uint32_t burst = size < 4 ? 4 : size / 4 + 1;

	model_new(&m, layout, size, features);
	if (start) {
		rig_start(&m.rig, start);
		m.loaded = true;
		/* What the queue did before it was moved here is not known: notifications start
		 * fresh. */
		m.avail_at = m.used_at = m.pop_at = m.asked_avail = m.asked_used = 1 << 20;
		m.bell_at = m.intr_at = m.avail_at;
	}
	while (m.done < requests && !m.wrong) {
		switch (rig_below(&m.seed, 8)) {
		case 0:
		case 1:
			for (uint32_t i = rig_below(&m.seed, burst < 200 ? burst : 200) + 1; i; i--)
				model_add(&m);
			break;
		case 2:
			model_publish(&m);
			break;
		case 3:
		case 4:
			model_pop(&m);
			break;
		case 5:
			model_push(&m);
			break;
		case 6:
			model_collect(&m);
			break;
		default:
			model_switch_notifications(&m);
			break;
		}
	}
	if (m.wrong)
		printf("  layout %d size %u features %u start %u: %u wrong after %llu\n", layout,
			size, features, start, m.wrong, (unsigned long long)m.done);
	CU_ASSERT_EQUAL(m.wrong, 0);
	CU_ASSERT_EQUAL(m.rig.dev.counters.malformed, 0);
	model_free(&m);
}

/* Large queues do not need every combination to go round twice. */
static uint64_t laps(uint32_t size)
{
	return size <= 1024 ? 1200 : size + size / 8;
}

static void test_split(void)
{
	for (uint32_t size = 1; size <= 32768; size *= 2)
		for (unsigned features = 0; features < 8; features++)
			model_run(RING_SPLIT, size, features, 0, laps(size));
}

static void test_split_wrap(void)
{
	for (uint32_t size = 1; size <= 32768; size *= 2)
		for (unsigned features = 0; features < 8; features++)
			model_run(RING_SPLIT, size, features, 65536 - 1 - features * 3, 2000);
}

/* Past 65,536 on foot. */
static void test_split_long(void)
{
	for (unsigned features = 0; features < 8; features++)
		model_run(RING_SPLIT, 256, features, 0, 70000);
}

static const uint32_t packed_sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 31, 32, 33, 64, 100, 127,
	255, 256, 257, 1000, 1024, 4097, 20001, 32767, 32768};

static void test_packed(void)
{
	for (size_t i = 0; i < sizeof(packed_sizes) / sizeof(packed_sizes[0]); i++)
		for (unsigned features = 0; features < 8; features++)
			model_run(RING_PACKED, packed_sizes[i], features, 0, laps(packed_sizes[i]));
}

static void test_packed_wrap(void)
{
	for (size_t i = 0; i < sizeof(packed_sizes) / sizeof(packed_sizes[0]); i++)
		for (unsigned features = 0; features < 8; features++)
			for (unsigned wrap = 0; wrap < 2; wrap++)
				model_run(RING_PACKED, packed_sizes[i], features,
					(packed_sizes[i] - 1) | wrap << 15, 1000);
}

static void test_packed_any(void)
{
	for (uint32_t size = 1; size <= 300; size++)
		model_run(RING_PACKED, size, size % 8, 0, 500);
}

static const struct unit_case cases[] = {
	{"split: every size and feature combination", test_split},
	{"split: starting just below 65,536", test_split_wrap},
	{"split: past 65,536 requests", test_split_long},
	{"packed: many sizes, every feature combination", test_packed},
	{"packed: starting just below the wrap, both counters", test_packed_wrap},
	{"packed: every size up to 300", test_packed_any},
};

UNIT_MAIN("ring_model", cases)
