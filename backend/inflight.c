/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests in flight, recorded so that another process can go on ("Inflight I/O tracking" in QEMU's
 * docs/interop/vhost-user.rst). The process may die between any two stores: their order is what
 * this file is about. Nothing is decided by what the region says later on: it is as hostile as
 * guest memory.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/backend_priv.h"
#include "backend/vhost_user_priv.h"

#define REGION_VERSION 1u
#define REGION_ALIGN   64u

/* Flags of a packed descriptor (virtio 1.2, 2.8.13). */
#define DESC_AVAIL (1u << 7)
#define DESC_USED  (1u << 15)
#define WRAP_BIT   0x8000u

/* The layouts of the specification, in native byte order. */
struct desc_split {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};

struct region_split {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct desc_split desc[];
};

struct desc_packed {
	uint8_t inflight;
	uint8_t padding;
	uint16_t next;
	uint16_t last;
	uint16_t num;
	uint64_t counter;
	uint16_t id;
	uint16_t flags;
	uint32_t len;
	uint64_t addr;
};

struct region_packed {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head;
	uint16_t old_free_head;
	uint16_t used_idx;
	uint16_t old_used_idx;
	uint8_t used_wrap_counter;
	uint8_t old_used_wrap_counter;
	uint8_t padding[7];
	struct desc_packed desc[];
};

_Static_assert(
	sizeof(struct desc_split) == 16 && sizeof(struct region_split) == 16, "as specified");
_Static_assert(
	sizeof(struct desc_packed) == 32 && sizeof(struct region_packed) == 32, "as specified");

/* An entry of the region as it is known here. */
struct inflight_entry {
	uint64_t counter; /* while it is sorted */
	uint16_t next;    /* packed: the next of its chain, or the next free one */
	uint16_t last;    /* packed: the last of its chain */
	uint16_t num;     /* heads: ring positions held; 0: not in flight */
	uint16_t id;      /* packed, heads */
	bool visited;     /* while a region is checked */
};

struct inflight {
	enum ring_layout layout;
	uint32_t num; /* entries, and positions of the queue at most */
	uint32_t size;
	struct region_split *split; /* one of the two */
	struct region_packed *packed;
	uint64_t counter;
	uint16_t used; /* where the driver will see the next used buffer */
	bool wrap;
	uint16_t batch_head; /* split */
	uint16_t free_head;  /* packed: num when there is none */
	struct inflight_entry *entry;
	uint16_t *head;  /* by buffer id: the entry of its head */
	uint16_t *again; /* heads to be done again, in order */
	uint32_t nagain, taken;
};

/* A store that neither the compiler nor the processor moves before what was stored earlier. */
#define put(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define get(p)    __atomic_load_n((p), __ATOMIC_RELAXED)

uint64_t vhost_inflight_queue_bytes(enum ring_layout layout, uint16_t queue_size)
{
	uint64_t bytes = layout == RING_PACKED
				 ? sizeof(struct region_packed) +
					   queue_size * (uint64_t)sizeof(struct desc_packed)
				 : sizeof(struct region_split) +
					   queue_size * (uint64_t)sizeof(struct desc_split);

	return (bytes + REGION_ALIGN - 1) & ~(uint64_t)(REGION_ALIGN - 1);
}

/* ------------------------------------------------------------------ split: what was left */

static int split_recover(struct inflight *f, uint16_t idx)
{
	struct region_split *r = f->split;
	uint16_t batch = idx - get(&r->used_idx), at = get(&r->last_batch_head);

	/* died between telling the driver and noting it: the last batch is done */
	if (batch > f->num)
		return -EINVAL;
	while (batch--) {
		if (at >= f->num)
			return -EINVAL;
		put(&r->desc[at].inflight, 0);
		at = get(&r->desc[at].next);
	}
	put(&r->used_idx, idx);
	f->batch_head = get(&r->last_batch_head);
	if (f->batch_head >= f->num)
		f->batch_head = 0;
	for (uint32_t i = 0; i < f->size; i++) {
		if (!get(&r->desc[i].inflight))
			continue;
		f->entry[i].num = 1;
		f->entry[i].counter = get(&r->desc[i].counter);
		f->head[i] = (uint16_t)i;
		f->again[f->nagain++] = (uint16_t)i;
	}
	return 0;
}

static int split_open(
	struct inflight *f, const struct ring_device *ring, struct ring_device_state *state)
{
	struct region_split *r = f->split;
	uint16_t idx = ring_device_split_used(ring);
	int err;

	if (!get(&r->version)) {
		for (uint32_t i = 0; i < f->num; i++)
			put(&r->desc[i].inflight, 0);
		put(&r->features, 0);
		put(&r->desc_num, (uint16_t)f->num);
		put(&r->last_batch_head, 0);
		put(&r->used_idx, idx);
		put(&r->version, REGION_VERSION);
		f->used = state->used = idx;
		return 0;
	}
	if (get(&r->version) != REGION_VERSION || get(&r->desc_num) != f->num)
		return -EINVAL;
	err = split_recover(f, idx);
	f->used = state->used = idx;
	state->avail = (uint16_t)(idx + f->nagain);
	return err;
}

/* ------------------------------------------------------------------ packed: what was left */

/* Died while telling the driver: either the driver has been told, or it was not. */
static int packed_settle(struct inflight *f, const struct ring_device *ring)
{
	struct region_packed *r = f->packed;
	uint16_t used = get(&r->old_used_idx);
	bool wrap = get(&r->old_used_wrap_counter);
	struct ring_packed_desc d;

	if (used >= f->size || get(&r->used_idx) >= f->size)
		return -EINVAL;
	if (get(&r->used_idx) != used || !!get(&r->used_wrap_counter) != wrap) {
		ring_device_packed_peek(ring, used, &d);
		if ((d.flags & (DESC_AVAIL | DESC_USED)) != (wrap ? DESC_AVAIL : DESC_USED)) {
			put(&r->old_free_head, get(&r->free_head));
			put(&r->old_used_idx, get(&r->used_idx));
			put(&r->old_used_wrap_counter, get(&r->used_wrap_counter));
		}
	}
	put(&r->free_head, get(&r->old_free_head));
	put(&r->used_idx, get(&r->old_used_idx));
	put(&r->used_wrap_counter, get(&r->old_used_wrap_counter));
	f->free_head = get(&r->old_free_head);
	f->used = get(&r->old_used_idx);
	f->wrap = get(&r->old_used_wrap_counter);
	return f->used < f->size ? 0 : -EINVAL;
}

/* Entries of all chains that say they are in flight. */
static uint32_t packed_claimed(const struct inflight *f)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < f->num; i++)
		if (get(&f->packed->desc[i].inflight))
			n += get(&f->packed->desc[i].num);
	return n;
}

/*
 * The free list, from its head: what is on it is not in flight, whatever its flag says. A list
 * with nothing on it has a head out of range here; other back-ends leave any number there, and then
 * only the count tells.
 */
static void packed_free_list(struct inflight *f)
{
	uint16_t at = f->free_head;
	uint32_t claimed = packed_claimed(f);

	if (at < f->num && get(&f->packed->desc[at].inflight) && claimed == f->num)
		at = (uint16_t)f->num;
	f->free_head = at < f->num ? at : (uint16_t)f->num;
	put(&f->packed->old_free_head, f->free_head);
	put(&f->packed->free_head, f->free_head);
	while (at < f->num && !f->entry[at].visited) {
		uint16_t next = get(&f->packed->desc[at].next);

		/* a list that another back-end closed into a ring, or that runs into a chain */
		if (next < f->num && (f->entry[next].visited || next == f->free_head))
			next = (uint16_t)f->num;
		f->entry[at].visited = true;
		put(&f->packed->desc[at].inflight, 0);
		f->entry[at].next = next;
		at = next;
	}
}

static int packed_chain(struct inflight *f, uint16_t head)
{
	struct desc_packed *desc = f->packed->desc;
	uint16_t num = get(&desc[head].num), at = head, next;

	if (!num || num > f->size)
		return -EINVAL;
	for (uint16_t k = 1;; k++, at = next) {
		if (at >= f->num || f->entry[at].visited)
			return -EINVAL;
		f->entry[at].visited = true;
		next = get(&desc[at].next);
		f->entry[at].next = next;
		if (k == num)
			break;
	}
	f->entry[head].last = at;
	f->entry[head].num = num;
	f->entry[head].id = get(&desc[at].id);
	f->entry[head].counter = get(&desc[head].counter);
	if (f->entry[head].id >= f->size)
		return -EINVAL;
	f->head[f->entry[head].id] = head;
	f->again[f->nagain++] = head;
	return 0;
}

/* What is on neither list (another back-end's end of its list, say) is free too. */
static void packed_collect(struct inflight *f)
{
	for (uint32_t i = 0; i < f->num; i++) {
		if (f->entry[i].visited)
			continue;
		f->entry[i].next = f->free_head;
		put(&f->packed->desc[i].next, f->free_head);
		put(&f->packed->old_free_head, (uint16_t)i);
		put(&f->packed->free_head, (uint16_t)i);
		f->free_head = (uint16_t)i;
	}
}

static void packed_start(struct inflight *f, const struct ring_device_state *state)
{
	struct region_packed *r = f->packed;

	f->used = state->used & (WRAP_BIT - 1);
	f->wrap = state->used & WRAP_BIT;
	f->free_head = 0;
	for (uint32_t i = 0; i < f->num; i++) {
		f->entry[i].next = (uint16_t)(i + 1);
		put(&r->desc[i].inflight, 0);
		put(&r->desc[i].next, (uint16_t)(i + 1)); /* the last one's is out of range */
	}
	put(&r->features, 0);
	put(&r->desc_num, (uint16_t)f->num);
	put(&r->free_head, 0);
	put(&r->old_free_head, 0);
	put(&r->used_idx, f->used);
	put(&r->old_used_idx, f->used);
	put(&r->used_wrap_counter, f->wrap);
	put(&r->old_used_wrap_counter, f->wrap);
	put(&r->version, REGION_VERSION);
}

static int packed_open(
	struct inflight *f, const struct ring_device *ring, struct ring_device_state *state)
{
	struct region_packed *r = f->packed;
	uint32_t held = 0, avail;
	bool wrap;
	int err;

	if (!get(&r->version)) {
		packed_start(f, state);
		return f->used < f->size ? 0 : -EINVAL;
	}
	if (get(&r->version) != REGION_VERSION || get(&r->desc_num) != f->num)
		return -EINVAL;
	err = packed_settle(f, ring);
	if (err)
		return err;
	packed_free_list(f);
	for (uint32_t i = 0; i < f->num; i++) {
		if (f->entry[i].visited || !get(&r->desc[i].inflight))
			continue;
		err = packed_chain(f, (uint16_t)i);
		if (err)
			return err;
		held += f->entry[i].num;
	}
	if (held > f->size)
		return -EINVAL;
	packed_collect(f);
	wrap = f->wrap;
	avail = f->used + held;
	if (avail >= f->size) {
		avail -= f->size;
		wrap = !wrap;
	}
	state->used = (uint16_t)(f->used | (f->wrap ? WRAP_BIT : 0));
	state->avail = (uint16_t)(avail | (wrap ? WRAP_BIT : 0));
	return 0;
}

/* ------------------------------------------------------------------ life */

static void again_sort(struct inflight *f)
{
	/* by insertion: it happens once, and what is there is nearly in order */
	for (uint32_t i = 1; i < f->nagain; i++) {
		uint16_t head = f->again[i];
		uint32_t k = i;

		while (k && f->entry[f->again[k - 1]].counter > f->entry[head].counter) {
			f->again[k] = f->again[k - 1];
			k--;
		}
		f->again[k] = head;
	}
	if (f->nagain)
		f->counter = f->entry[f->again[f->nagain - 1]].counter + 1;
}

void inflight_close(struct inflight *f)
{
	if (!f)
		return;
	free(f->entry);
	free(f->head);
	free(f->again);
	free(f);
}

static uint32_t region_entries(enum ring_layout layout, size_t bytes)
{
	size_t header =
		layout == RING_PACKED ? sizeof(struct region_packed) : sizeof(struct region_split);
	size_t each =
		layout == RING_PACKED ? sizeof(struct desc_packed) : sizeof(struct desc_split);
	size_t n = bytes > header ? (bytes - header) / each : 0;

	return n < RING_SIZE_MAX ? (uint32_t)n : RING_SIZE_MAX;
}

int inflight_open(struct inflight **out, void *region, size_t bytes, const struct ring_device *ring,
	struct ring_device_state *state)
{
	struct inflight *f = calloc(1, sizeof(*f));
	uint32_t room = region_entries(ring->cfg.layout, bytes);
	int err;

	if (!f)
		return -ENOMEM;
	f->layout = ring->cfg.layout;
	f->size = ring->cfg.size;
	f->split = f->layout == RING_SPLIT ? region : NULL;
	f->packed = f->layout == RING_PACKED ? region : NULL;
	/* the region is for the largest queue: how many entries that makes is in it */
	f->num = f->layout == RING_SPLIT ? get(&f->split->desc_num) : get(&f->packed->desc_num);
	if (!(f->layout == RING_SPLIT ? get(&f->split->version) : get(&f->packed->version)))
		f->num = f->size;
	err = -EINVAL;
	if (f->num < f->size || f->num > room)
		goto fail;
	f->entry = calloc(f->num, sizeof(*f->entry));
	f->head = calloc(f->num, sizeof(*f->head));
	f->again = calloc(f->num, sizeof(*f->again));
	err = -ENOMEM;
	if (!f->entry || !f->head || !f->again)
		goto fail;
	err = f->split ? split_open(f, ring, state) : packed_open(f, ring, state);
	if (err)
		goto fail;
	again_sort(f);
	*out = f;
	return 0;

fail:
	inflight_close(f);
	return err;
}

/* ------------------------------------------------------------------ doing again */

uint32_t inflight_waiting(const struct inflight *f)
{
	return f->nagain - f->taken;
}

static int retake_packed(struct inflight *f, struct ring_device *ring, uint16_t head,
	struct ring_chain *chain, struct ring_seg *segs, uint32_t max_segs)
{
	const uint32_t n = f->entry[head].num;
	struct ring_packed_desc *descs = calloc(n, sizeof(*descs));
	int err;

	if (!descs)
		return -ENOMEM;
	for (uint32_t i = 0, at = head; i < n; i++, at = f->entry[at].next) {
		const struct desc_packed *d = &f->packed->desc[at];

		descs[i] = (struct ring_packed_desc){
			get(&d->addr), get(&d->len), get(&d->id), get(&d->flags)};
	}
	descs[n - 1].id = f->entry[head].id;
	err = ring_device_retake_packed(ring, descs, n, chain, segs, max_segs);
	free(descs);
	return err;
}

int inflight_retake(struct inflight *f, struct ring_device *ring, struct ring_chain *chains,
	uint32_t max, struct ring_seg *segs, uint32_t max_segs)
{
	uint32_t n = 0;

	while (n < max && f->taken < f->nagain) {
		uint16_t head = f->again[f->taken];
		int err = f->split
				  ? ring_device_retake_split(ring, head, &chains[n], segs, max_segs)
				  : retake_packed(f, ring, head, &chains[n], segs, max_segs);

		if (err)
			return n ? (int)n : err;
		segs += chains[n].nout + chains[n].nin;
		max_segs -= (uint32_t)chains[n].nout + chains[n].nin;
		f->taken++;
		n++;
	}
	return (int)n;
}

/* ------------------------------------------------------------------ recording */

static void popped_split(struct inflight *f, const struct ring_chain *chain)
{
	struct desc_split *d = &f->split->desc[chain->id];

	put(&d->counter, f->counter++);
	put(&d->inflight, 1);
	f->head[chain->id] = chain->id;
	f->entry[chain->id].num = 1;
}

/* Until old_free_head moves on, none of this has happened. */
static void popped_packed(struct inflight *f, const struct ring_device *ring,
	const struct ring_chain *chain, uint32_t position)
{
	struct region_packed *r = f->packed;
	const uint16_t head = f->free_head;
	uint16_t at = head;

	put(&r->desc[head].num, 0);
	put(&r->desc[head].counter, f->counter++);
	put(&r->desc[head].inflight, 1);
	for (uint16_t k = 0; k < chain->ndesc; k++) {
		struct desc_packed *d = &r->desc[f->free_head];
		struct ring_packed_desc from;

		ring_device_packed_peek(ring, (uint16_t)position, &from);
		position = position + 1 < f->size ? position + 1 : 0;
		/* the driver may have changed it since: what was checked is what counts */
		if (k + 1 == chain->ndesc)
			from.id = chain->id;
		put(&d->addr, from.addr);
		put(&d->len, from.len);
		put(&d->flags, from.flags);
		put(&d->id, from.id);
		at = f->free_head;
		f->free_head = f->entry[at].next;
		put(&r->desc[head].num, (uint16_t)(k + 1));
	}
	put(&r->desc[head].last, at);
	put(&r->free_head, f->free_head);
	put(&r->old_free_head, f->free_head);
	f->entry[head].last = at;
	f->entry[head].num = chain->ndesc;
	f->entry[head].id = chain->id;
	f->head[chain->id] = head;
}

void inflight_popped(struct inflight *f, const struct ring_device *ring,
	const struct ring_device_state *before, const struct ring_chain *chains, uint32_t n)
{
	uint32_t position = before->avail & (WRAP_BIT - 1);

	for (uint32_t i = 0; i < n; i++) {
		if (f->split) {
			popped_split(f, &chains[i]);
			continue;
		}
		popped_packed(f, ring, &chains[i], position);
		position = (position + chains[i].ndesc) % f->size;
	}
}

/* The entry of a buffer that is in flight; NULL: it is not, and the ring will refuse it. */
static struct inflight_entry *entry_of(struct inflight *f, uint16_t id)
{
	struct inflight_entry *e;

	if (id >= f->size)
		return NULL;
	e = &f->entry[f->head[id]];
	return e->num && (f->split || e->id == id) ? e : NULL;
}

static void batch_add_packed(struct inflight *f, struct inflight_entry *e)
{
	uint32_t used = f->used + e->num;

	f->entry[e->last].next = f->free_head;
	put(&f->packed->desc[e->last].next, f->free_head);
	f->free_head = (uint16_t)(e - f->entry);
	put(&f->packed->free_head, f->free_head);
	if (used >= f->size) {
		used -= f->size;
		f->wrap = !f->wrap;
	}
	f->used = (uint16_t)used;
}

void inflight_push_begin(struct inflight *f, const struct ring_used *used, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct inflight_entry *e = entry_of(f, used[i].id);

		if (!e)
			continue;
		if (f->packed) {
			batch_add_packed(f, e);
			continue;
		}
		put(&f->split->desc[used[i].id].next, f->batch_head);
		put(&f->split->last_batch_head, used[i].id);
		f->batch_head = used[i].id;
		f->used++;
	}
	if (f->packed) {
		put(&f->packed->used_idx, f->used);
		put(&f->packed->used_wrap_counter, f->wrap);
	}
}

void inflight_push_end(struct inflight *f, const struct ring_used *used, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct inflight_entry *e = entry_of(f, used[i].id);

		if (!e)
			continue;
		e->num = 0;
		if (f->split)
			put(&f->split->desc[used[i].id].inflight, 0);
		else
			put(&f->packed->desc[f->head[used[i].id]].inflight, 0);
	}
	if (f->split) {
		put(&f->split->used_idx, f->used);
		return;
	}
	/* in this order: see packed_settle() */
	put(&f->packed->old_free_head, f->free_head);
	put(&f->packed->old_used_idx, f->used);
	put(&f->packed->old_used_wrap_counter, f->wrap);
}
