/* SPDX-License-Identifier: BSD-2-Clause */
/* The model of a disk's volatile write cache: sectors by number, of bounded size. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk/fault_priv.h"

int fault_cache_open(struct fault_cache *c, uint64_t bytes)
{
	uint32_t capacity = (uint32_t)(bytes / BLK_SECTOR), buckets = 1;

	while (buckets < capacity)
		buckets *= 2;
	c->entries = calloc(capacity, sizeof(*c->entries));
	c->dense = calloc(capacity, sizeof(*c->dense));
	c->buckets = malloc(buckets * sizeof(*c->buckets));
	c->data = malloc((size_t)capacity * BLK_SECTOR);
	if (!c->entries || !c->dense || !c->buckets || !c->data) {
		fault_cache_close(c);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < capacity; i++)
		c->dense[i] = i;
	for (uint32_t i = 0; i < buckets; i++)
		c->buckets[i] = FAULT_NONE;
	c->capacity = capacity;
	c->mask = buckets - 1;
	c->used = 0;
	return 0;
}

void fault_cache_close(struct fault_cache *c)
{
	free(c->entries);
	free(c->dense);
	free(c->buckets);
	free(c->data);
	memset(c, 0, sizeof(*c));
}

static uint32_t *cache_bucket(const struct fault_cache *c, uint64_t sector)
{
	return &c->buckets[(sector * 0x9e3779b97f4a7c15ull >> 32) & c->mask];
}

uint32_t fault_cache_find(const struct fault_cache *c, uint64_t sector)
{
	uint32_t i = c->used ? *cache_bucket(c, sector) : FAULT_NONE;

	while (i != FAULT_NONE && c->entries[i].sector != sector)
		i = c->entries[i].next;
	return i;
}

uint32_t fault_cache_put(struct fault_cache *c, uint64_t sector, enum fault_kind kind)
{
	uint32_t i = fault_cache_find(c, sector), *bucket;

	if (i == FAULT_NONE) {
		bucket = cache_bucket(c, sector);
		i = c->dense[c->used];
		c->entries[i] =
			(struct fault_entry){.sector = sector, .next = *bucket, .pos = c->used};
		*bucket = i;
		c->used++;
	}
	c->entries[i].kind = kind;
	return i;
}

void fault_cache_drop(struct fault_cache *c, uint32_t entry)
{
	struct fault_entry *e = &c->entries[entry];
	uint32_t *link = cache_bucket(c, e->sector), last = c->dense[c->used - 1];

	while (*link != entry)
		link = &c->entries[*link].next;
	*link = e->next;
	c->dense[e->pos] = last;
	c->entries[last].pos = e->pos;
	c->used--;
	c->dense[c->used] = entry;
	e->pos = c->used;
}

void fault_cache_drop_range(struct fault_cache *c, uint64_t sector, uint64_t count)
{
	uint32_t i;

	if (count > c->used) {
		/* Backwards: what a drop moves has been looked at. */
		for (uint32_t k = c->used; k--;)
			if (c->entries[c->dense[k]].sector - sector < count)
				fault_cache_drop(c, c->dense[k]);
		return;
	}
	for (; count; count--, sector++) {
		i = fault_cache_find(c, sector);
		if (i != FAULT_NONE)
			fault_cache_drop(c, i);
	}
}
