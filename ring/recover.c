/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A queue whose device died and kept no record: which buffers are outstanding? The split layout;
 * the packed one is below.
 *
 * Of each head the ring shows, in order, some of its availabilities and some of its uses, which
 * take turns. In time a use with index k lies after every availability with an index up to k, for
 * nothing is used before it was made available. So when after some use of a head no more
 * availabilities than uses have a higher index, the head is certainly free. What is left are heads
 * that may be outstanding; how many are is known: the available index less the used index. When
 * both numbers are the same they are taken.
 *
 * The ring remembers as many availabilities as it is long. That is the limit: a buffer which so
 * many younger ones have overtaken is not seen, and as many as are not seen might be free ones that
 * are.
 *
 * A driver may be filling entries it has not published yet: they replace the oldest ones. The
 * oldest eighth is looked at only when the others do not hold enough heads.
 */
#include "ring/device_priv.h"

#define RECOVER_SEEN   1u
#define RECOVER_FREE   2u
#define RECOVER_PLACED 4u
#define RECOVER_MEMBER 8u /* of another's chain: no head */

struct recover {
	struct ring_device *dev;
	uint32_t size, used, avail; /* indices, counted on from 2^17 so that none is negative */
	uint32_t want;              /* outstanding */
	uint16_t *entry;            /* the available ring as it was */
	int16_t *balance;           /* of a head: availabilities less uses, of those looked at */
	uint16_t *flags;
	uint16_t *out;
};

static uint32_t recover_used_id(const struct recover *r, uint32_t index)
{
	return ring_load_relaxed(ring_used_entry(r->dev->device, index & (r->size - 1)));
}

static bool recover_avail_add(struct recover *r, uint32_t index)
{
	uint32_t head = r->entry[index & (r->size - 1)];

	if (head >= r->size)
		return false;
	r->balance[head]++;
	r->flags[head] |= RECOVER_SEEN;
	return true;
}

static bool recover_maybe(const struct recover *r, uint32_t head)
{
	return (r->flags[head] & (RECOVER_SEEN | RECOVER_FREE)) == RECOVER_SEEN;
}

/* Looks at availabilities from index `low` on; how many heads may be outstanding. */
static int recover_scan(struct recover *r, uint32_t low)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < r->size; i++)
		r->balance[i] = 0, r->flags[i] = 0;
	for (uint32_t i = r->avail; i-- > r->used;)
		if (!recover_avail_add(r, i))
			return -RING_EINVAL;
	for (uint32_t k = r->used; k-- > low - 1 && k >= r->used - r->size;) {
		uint32_t head = recover_used_id(r, k);

		if (head >= r->size)
			return -RING_EINVAL;
		if (r->balance[head] <= 0)
			r->flags[head] |= RECOVER_FREE;
		r->balance[head]--;
		if (k >= low && !recover_avail_add(r, k))
			return -RING_EINVAL;
	}
	for (uint32_t i = 0; i < r->size; i++)
		n += recover_maybe(r, i);
	return (int)n;
}

/* Marks what hangs on a head, so that it is not taken for a head itself. */
static void recover_chain_mark(struct recover *r, uint32_t head)
{
	const struct ring_desc *table = (const struct ring_desc *)r->dev->desc;
	uint32_t at = head;

	for (uint32_t n = 0; n < r->size; n++) {
		uint64_t rest = ring_load_relaxed(&table[at].rest);

		if (!(rest >> 32 & RING_DESC_NEXT) || rest >> 48 >= r->size)
			return;
		at = rest >> 48;
		r->flags[at] |= RECOVER_MEMBER;
	}
}

/*
 * Requests that a whole ring of later ones has overtaken: their entries are gone, their descriptors
 * are not. Taken when as many descriptors look like heads as are missing.
 */
static bool recover_old(struct recover *r, uint32_t missing)
{
	const struct ring_desc *table = (const struct ring_desc *)r->dev->desc;
	uint32_t found = 0;

	for (uint32_t i = 0; i < r->size; i++)
		if (!(r->flags[i] & RECOVER_SEEN) || recover_maybe(r, i))
			recover_chain_mark(r, i);
	for (uint32_t i = 0; i < r->size; i++) {
		if (r->flags[i] & (RECOVER_SEEN | RECOVER_MEMBER | RECOVER_FREE) ||
			!(uint32_t)ring_load_relaxed(&table[i].rest))
			continue;
		if (found++ == missing)
			return false;
		r->out[found - 1] = (uint16_t)i;
	}
	return found == missing;
}

/* Oldest first: those found in the table, then by their last availability. */
static void recover_order(struct recover *r, uint32_t low)
{
	uint32_t at = r->want;

	for (uint32_t i = r->avail; i-- > low;) {
		uint32_t head = r->entry[i & (r->size - 1)];

		if (!recover_maybe(r, head) || r->flags[head] & RECOVER_PLACED)
			continue;
		r->flags[head] |= RECOVER_PLACED;
		r->out[--at] = (uint16_t)head;
	}
}

static int recover_find(struct recover *r)
{
	uint32_t low = r->avail - (r->size - r->size / 8);
	int n;

	if (low > r->used)
		low = r->used;
	n = recover_scan(r, low);
	if (n >= 0 && (uint32_t)n < r->want) {
		low = r->avail - r->size;
		n = recover_scan(r, low);
	}
	if (n < 0)
		return n;
	if ((uint32_t)n > r->want ||
		((uint32_t)n < r->want && !recover_old(r, r->want - (uint32_t)n)))
		return -RING_EEXIST;
	recover_order(r, low);
	return 0;
}

/* The driver never reads its available entries again, so they can be put in another order. */
static void recover_write(struct recover *r)
{
	for (uint32_t i = 0; i < r->want; i++) {
		uint16_t *e = ring_avail_entry(r->dev->driver, (r->used + i) & (r->size - 1));

		ring_store_relaxed(e, r->out[i]);
		ring_mem_dirty(r->dev->mem, e, sizeof(*e));
	}
}

/* ------------------------------------------------------------------ packed */

/*
 * Of a packed ring whose device died. Used descriptors lie in the place of available ones, so what
 * was used out of turn has destroyed others: this is for devices that use buffers in the order of
 * the ring, and drivers that need one position for each. Then the ring is two arcs, one of
 * available descriptors and one of used ones, and every position is looked at to see that it is.
 *
 * The AVAIL bit of every position is that of the lap in which the driver last wrote it: where it
 * changes is where the driver goes on.
 */
static uint16_t recover_flags(const struct ring_device *dev, uint32_t i)
{
	return ring_load_relaxed(&((const struct ring_desc *)dev->desc)[i].rest) >> 48;
}

/* -RING_EAGAIN: a driver in the middle of making descriptors available, the first one last. */
static int recover_driver(const struct ring_device *dev, uint32_t *at, bool *wrap)
{
	const uint32_t size = dev->cfg.size;
	bool first = recover_flags(dev, 0) & RING_DESC_AVAIL, now = first;
	uint32_t changes = 0;

	*at = 0;
	*wrap = !first;
	for (uint32_t i = 1; i < size; i++) {
		bool bit = recover_flags(dev, i) & RING_DESC_AVAIL;

		if (bit == now)
			continue;
		now = bit;
		*at = i;
		*wrap = first;
		if (++changes > 1)
			return -RING_EAGAIN;
	}
	return 0;
}

/*
 * Marks as used what lies available behind used descriptors, from the youngest on: the driver goes
 * on at the oldest, which it must see last. (2.8.21: the first of a batch is what others wait for.)
 */
static void recover_mark(struct ring_device *dev, uint32_t at, uint32_t n)
{
	struct ring_desc *table = (struct ring_desc *)dev->desc;
	const uint32_t size = dev->cfg.size;

	for (uint32_t back = n + 1; back <= size; back++) {
		struct ring_desc *d = &table[(at + size - back) % size];
		uint64_t rest = ring_load_relaxed(&d->rest);
		uint16_t flags = rest >> 48;

		if (!(flags & RING_DESC_AVAIL) == !(flags & RING_DESC_USED))
			continue;
		flags ^= RING_DESC_USED;
		ring_store_release(&d->rest, (rest & 0xffffffffffffull) | (uint64_t)flags << 48);
		ring_mem_dirty(dev->mem, d, sizeof(*d));
	}
}

static int recover_packed(struct ring_device *dev, bool lossy, struct ring_device_state *state)
{
	const uint32_t size = dev->cfg.size;
	uint32_t at, n = 0, holes = 0;
	bool wrap;
	int rc = size ? recover_driver(dev, &at, &wrap) : -RING_EINVAL;

	if (rc)
		return rc;
	if (dev->cfg.features.in_order || !dev->cfg.features.indirect)
		return -RING_EEXIST;
	for (uint32_t back = 1; back <= size; back++) {
		uint16_t flags = recover_flags(dev, (at + size - back) % size);
		bool used = !(flags & RING_DESC_AVAIL) == !(flags & RING_DESC_USED);

		if (!used && (flags & RING_DESC_NEXT || (n != back - 1 && !lossy)))
			return -RING_EEXIST;
		if (!used && n != back - 1)
			holes++;
		else
			n += !used;
	}
	if (holes)
		recover_mark(dev, at, n);
	if (n > at)
		wrap = !wrap;
	at = (at + size - n) % size;
	state->avail = state->used = (uint16_t)(at | (wrap ? RING_WRAP_BIT : 0));
	return (int)n;
}

int ring_device_recover(
	struct ring_device *dev, uint16_t *scratch, bool lossy, struct ring_device_state *state)
{
	const uint32_t size = dev->cfg.size;
	struct recover r = {
		.dev = dev,
		.size = size,
		.entry = scratch,
		.balance = (int16_t *)(scratch + size),
		.flags = scratch + 2 * size,
		.out = scratch + 3 * size,
	};
	uint16_t avail, used;
	int rc;

	if (dev->cfg.layout != RING_SPLIT)
		return recover_packed(dev, lossy, state);
	used = ring_load_relaxed(ring_used_idx(dev->device));
	/* Pairs with the release store in ring_split_driver_publish(). */
	avail = ring_load_acquire(ring_avail_idx(dev->driver));
	r.want = (uint16_t)(avail - used);
	if (r.want > size)
		return -RING_EPROTO;
	r.used = (1u << 17) + used;
	r.avail = r.used + r.want;
	for (uint32_t i = 0; i < size; i++)
		scratch[i] = ring_load_relaxed(ring_avail_entry(dev->driver, i));
	/* in order nothing is out of place */
	if (!dev->cfg.features.in_order && r.want) {
		rc = recover_find(&r);
		if (rc)
			return rc;
		recover_write(&r);
	}
	*state = (struct ring_device_state){.avail = used, .used = used};
	return (int)r.want;
}
