/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The filtering database (802.1Q 8.8): addresses by VLAN, learnt from sources, forgotten with age.
 *
 * Nothing a sender does makes it grow. Where an address hashes to is secret, so that nobody fills a
 * bucket on purpose; no port has more than three quarters; and in a full bucket the address of the
 * port that has most makes room, never one of a port that has fewer than the newcomer's.
 *
 * Readers take no lock. A writer frees the key, writes the value, then the new key; a reader looks
 * at key, value and key again.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "netbridge/switch_priv.h"

#define TAG_BITS   24u
#define SWEEP_STEP 64u

enum { VALUE_PORT_SHIFT = 56, VALUE_SECOND_SHIFT = TAG_BITS };

static uint64_t macs_hash(const struct switch_macs *m, uint64_t key)
{
	uint64_t h = (key ^ m->seed[0]) * 0x9e3779b97f4a7c15ull;

	h = (h ^ h >> 32 ^ m->seed[1]) * 0xd6e8feb86659fd93ull;
	return h ^ h >> 32;
}

static uint64_t value_make(uint64_t hash, unsigned port, uint32_t now_s)
{
	return (uint64_t)port << VALUE_PORT_SHIFT | (uint64_t)now_s << VALUE_SECOND_SHIFT |
	       hash >> (64 - TAG_BITS);
}

static unsigned value_port(uint64_t value)
{
	return (unsigned)(value >> VALUE_PORT_SHIFT);
}

static uint32_t value_second(uint64_t value)
{
	return (uint32_t)(value >> VALUE_SECOND_SHIFT);
}

static bool value_is_of(uint64_t value, uint64_t hash)
{
	return (value & ((1u << TAG_BITS) - 1)) == hash >> (64 - TAG_BITS);
}

static bool value_old(const struct switch_macs *m, uint64_t value, uint32_t now_s)
{
	/* Another worker's clock may be ahead. */
	return (int32_t)(now_s - value_second(value)) > (int32_t)m->ageing_s;
}

int switch_macs_init(struct switch_macs *m, unsigned macs, unsigned ageing_s)
{
	uint32_t n = 1;

	while (n * SWITCH_WAYS < macs)
		n *= 2;
	if (getrandom(m->seed, sizeof(m->seed), 0) != (ssize_t)sizeof(m->seed))
		return -EIO;
	m->buckets = aligned_alloc(NET_CACHE_LINE, n * sizeof(*m->buckets));
	if (!m->buckets)
		return -ENOMEM;
	memset((void *)m->buckets, 0, n * sizeof(*m->buckets));
	m->mask = n - 1;
	m->ageing_s = ageing_s;
	atomic_flag_clear(&m->writing);
	atomic_init(&m->generation, 1);
	return 0;
}

void switch_macs_fini(struct switch_macs *m)
{
	free(m->buckets);
	m->buckets = NULL;
}

/* ------------------------------------------------------------------ reading */

/* The way the key is in, SWITCH_WAYS: none. */
static unsigned bucket_find(const struct switch_bucket *b, uint64_t key)
{
	unsigned i = 0;

	while (i < SWITCH_WAYS && atomic_load_explicit(&b->key[i], memory_order_acquire) != key)
		i++;
	return i;
}

unsigned switch_macs_find(const struct switch_macs *m, uint64_t key, uint32_t now_s)
{
	uint64_t hash = macs_hash(m, key), value;
	const struct switch_bucket *b = &m->buckets[hash & m->mask];
	unsigned i = bucket_find(b, key);

	if (i == SWITCH_WAYS)
		return SWITCH_FLOOD;
	value = atomic_load_explicit(&b->value[i], memory_order_acquire);
	if (atomic_load_explicit(&b->key[i], memory_order_relaxed) != key ||
		!value_is_of(value, hash) || value_old(m, value, now_s))
		return SWITCH_FLOOD;
	return value_port(value);
}

/* ------------------------------------------------------------------ writing */

static bool macs_try(struct switch_macs *m)
{
	return !atomic_flag_test_and_set_explicit(&m->writing, memory_order_acquire);
}

static void macs_done(struct switch_macs *m)
{
	atomic_flag_clear_explicit(&m->writing, memory_order_release);
}

static void way_clear(struct switch_macs *m, struct switch_bucket *b, unsigned i)
{
	if (!atomic_load_explicit(&b->key[i], memory_order_relaxed))
		return;
	m->learnt[value_port(atomic_load_explicit(&b->value[i], memory_order_relaxed))]--;
	atomic_store_explicit(&b->key[i], 0, memory_order_release);
	atomic_fetch_add_explicit(&m->generation, 1, memory_order_release);
}

static void way_set(
	struct switch_macs *m, struct switch_bucket *b, unsigned i, uint64_t key, uint64_t value)
{
	way_clear(m, b, i);
	atomic_store_explicit(&b->value[i], value, memory_order_release);
	atomic_store_explicit(&b->key[i], key, memory_order_release);
	m->learnt[value_port(value)]++;
	atomic_fetch_add_explicit(&m->generation, 1, memory_order_release);
}

static void bucket_expire(struct switch_macs *m, struct switch_bucket *b, uint32_t now_s)
{
	for (unsigned i = 0; i < SWITCH_WAYS; i++)
		if (value_old(m, atomic_load_explicit(&b->value[i], memory_order_relaxed), now_s))
			way_clear(m, b, i);
}

static void macs_sweep_some(struct switch_macs *m, uint32_t now_s, uint32_t n)
{
	while (n--)
		bucket_expire(m, &m->buckets[m->sweep++ & m->mask], now_s);
}

static bool macs_too_many(const struct switch_macs *m, unsigned port)
{
	return m->learnt[port] >= (m->mask + 1) * (SWITCH_WAYS - 1);
}

/* The port's own address in the bucket that was seen least lately; SWITCH_WAYS: it has none. */
static unsigned bucket_own(const struct switch_bucket *b, unsigned port, uint32_t now_s)
{
	unsigned best = SWITCH_WAYS;
	int32_t age, best_age = -1;

	for (unsigned i = 0; i < SWITCH_WAYS; i++) {
		uint64_t value = atomic_load_explicit(&b->value[i], memory_order_relaxed);

		age = (int32_t)(now_s - value_second(value));
		if (!atomic_load_explicit(&b->key[i], memory_order_relaxed) ||
			value_port(value) != port || age < best_age)
			continue;
		best = i;
		best_age = age;
	}
	return best;
}

/* Where a new address of the port may go; SWITCH_WAYS: nowhere. */
static unsigned bucket_victim(
	struct switch_macs *m, const struct switch_bucket *b, unsigned port, uint32_t now_s)
{
	unsigned best = SWITCH_WAYS;
	uint32_t most = m->learnt[port];

	if (macs_too_many(m, port))
		return bucket_own(b, port, now_s);
	for (unsigned i = 0; i < SWITCH_WAYS; i++) {
		uint32_t has;

		if (!atomic_load_explicit(&b->key[i], memory_order_relaxed))
			return i;
		has = m->learnt[value_port(
			atomic_load_explicit(&b->value[i], memory_order_relaxed))];
		if (has > most) {
			most = has;
			best = i;
		}
	}
	return best < SWITCH_WAYS ? best : bucket_own(b, port, now_s);
}

static void macs_learn_new(
	struct switch_macs *m, uint64_t key, uint64_t hash, unsigned port, uint32_t now_s)
{
	struct switch_bucket *b = &m->buckets[hash & m->mask];
	unsigned i = bucket_find(b, key);

	/* An address that moved counts for its new port: it is taken out and comes in again. */
	if (i < SWITCH_WAYS)
		way_clear(m, b, i);
	bucket_expire(m, b, now_s);
	if (macs_too_many(m, port))
		macs_sweep_some(m, now_s, SWEEP_STEP / 4);
	i = bucket_victim(m, b, port, now_s);
	if (i < SWITCH_WAYS)
		way_set(m, b, i, key, value_make(hash, port, now_s));
}

void switch_macs_learn(struct switch_macs *m, uint64_t key, unsigned port, uint32_t now_s)
{
	uint64_t hash = macs_hash(m, key), value;
	struct switch_bucket *b = &m->buckets[hash & m->mask];
	unsigned i = bucket_find(b, key);

	if (i < SWITCH_WAYS) {
		value = atomic_load_explicit(&b->value[i], memory_order_acquire);
		if (value_is_of(value, hash) && value_port(value) == port &&
			value_second(value) == now_s)
			return;
	}
	if (!macs_try(m))
		return;
	/* Looked at again: now nobody else writes. */
	i = bucket_find(b, key);
	value = i < SWITCH_WAYS ? atomic_load_explicit(&b->value[i], memory_order_relaxed) : 0;
	if (i < SWITCH_WAYS && value_port(value) == port && !value_old(m, value, now_s))
		atomic_store_explicit(
			&b->value[i], value_make(hash, port, now_s), memory_order_release);
	else
		macs_learn_new(m, key, hash, port, now_s);
	macs_done(m);
}

void switch_macs_sweep(struct switch_macs *m, uint32_t now_s)
{
	if (!macs_try(m))
		return;
	macs_sweep_some(m, now_s, SWEEP_STEP);
	macs_done(m);
}

/* ------------------------------------------------------------------ control */

static void macs_wait(struct switch_macs *m)
{
	while (!macs_try(m))
		sched_yield();
}

void switch_macs_forget(struct switch_macs *m, unsigned port)
{
	for (uint32_t at = 0; at <= m->mask; at++) {
		/* A bucket at a time: workers learn in between. */
		macs_wait(m);
		for (unsigned i = 0; i < SWITCH_WAYS; i++)
			if (port == SWITCH_FLOOD ||
				value_port(atomic_load_explicit(
					&m->buckets[at].value[i], memory_order_relaxed)) == port)
				way_clear(m, &m->buckets[at], i);
		macs_done(m);
	}
}

unsigned switch_macs_list(
	struct switch_macs *m, uint32_t now_s, struct switch_mac_seen *out, unsigned max)
{
	unsigned n = 0;

	for (uint32_t at = 0; at <= m->mask; at++)
		for (unsigned i = 0; i < SWITCH_WAYS; i++) {
			struct switch_bucket *b = &m->buckets[at];
			uint64_t key = atomic_load_explicit(&b->key[i], memory_order_acquire);
			uint64_t value = atomic_load_explicit(&b->value[i], memory_order_acquire);

			if (!key || !value_is_of(value, macs_hash(m, key)) ||
				value_old(m, value, now_s))
				continue;
			if (n < max)
				out[n] = (struct switch_mac_seen){
					key, value_port(value), now_s - value_second(value)};
			n++;
		}
	return n;
}
