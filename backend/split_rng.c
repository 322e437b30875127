/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-rng (virtio 1.2 section 5.4): the host's getrandom() for the guest.
 *
 * Entropy is fetched for a batch of requests at once into a pool whose bytes are handed out once
 * and then wiped. The pool is no part of the saved state: two guests started from one snapshot must
 * not see the same bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define RNG_POOL       4096u
#define RNG_BATCH      16u
#define RNG_SEGS       64u
#define RNG_REQUEST    RNG_POOL /* most that one request gets: the device may give less (5.4.6.1) */
#define RNG_QUEUE_SIZE 64u
#define RNG_BURST_MIN  64u /* a driver's usual request */
#define RNG_RATE_MAX   (1ull << 32)
#define NS_PER_S       1000000000ull

struct vrng {
	struct split_device common;
	uint64_t rate;   /* bytes per second; 0: no limit */
	uint64_t burst;  /* most that can be saved up */
	uint64_t tokens; /* bytes that may be given now */
	uint64_t filled_ns;
	uint64_t retry_ns; /* out of tokens until then; 0: no */
	struct io_timer retry;
	uint32_t pool_left; /* the last bytes of the pool are those not yet given */
	uint8_t pool[RNG_POOL];

	/* scratch of one poll */
	struct ring_chain chains[RNG_BATCH];
	struct ring_seg segs[RNG_SEGS];
};

/* ------------------------------------------------------------------ rate */

static void vrng_tokens_fill(struct vrng *v, uint64_t now_ns)
{
	uint64_t ns = now_ns - v->filled_ns, more;

	if (now_ns < v->filled_ns)
		return;
	if (ns > NS_PER_S)
		ns = NS_PER_S;
	/* at most 2^32 a second (checked at creation): no overflow */
	more = v->rate * ns / NS_PER_S;
	if (!more)
		return;
	v->filled_ns = now_ns;
	v->tokens = v->tokens + more < v->burst ? v->tokens + more : v->burst;
}

/* How much of `want` may be given now. 0: none, and when to look again is set. */
static uint32_t vrng_allowed(struct vrng *v, uint32_t want)
{
	uint64_t now_ns;

	if (!v->rate)
		return want;
	now_ns = clock_now_ns();
	vrng_tokens_fill(v, now_ns);
	if (v->tokens)
		return want < v->tokens ? want : (uint32_t)v->tokens;
	want = want < v->burst ? want : (uint32_t)v->burst;
	v->retry_ns = now_ns + want * NS_PER_S / v->rate + 1;
	counter_add(&v->common.counters.throttled_ns, v->retry_ns - now_ns);
	return 0;
}

static void vrng_retry_expired(struct io_timer *t)
{
	(void)t; /* being awake is enough */
}

/* ------------------------------------------------------------------ requests */

/* False: the host gives nothing. */
static bool vrng_pool_fill(struct vrng *v)
{
	uint32_t have = 0;

	while (have < RNG_POOL) {
		ssize_t n = getrandom(v->pool + have, RNG_POOL - have, 0);

		counter_add(&v->common.counters.system_calls, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		have += (uint32_t)n;
	}
	v->pool_left = RNG_POOL;
	return true;
}

/* Gives bytes of the pool into the segments. */
static uint32_t vrng_give(struct vrng *v, struct ring_seg *segs, uint32_t nsegs, uint32_t len)
{
	uint32_t done = 0;

	for (uint32_t i = 0; i < nsegs && done < len; i++) {
		uint32_t room = len - done, at;

		if (segs[i].len < room)
			room = (uint32_t)segs[i].len;
		for (at = 0; at < room;) {
			uint32_t part = room - at;
			uint8_t *from;

			if (!v->pool_left && !vrng_pool_fill(v))
				return done;
			if (part > v->pool_left)
				part = v->pool_left;
			from = v->pool + RNG_POOL - v->pool_left;
			memcpy((uint8_t *)segs[i].base + at, from, part);
			explicit_bzero(from, part);
			v->pool_left -= part;
			at += part;
			done += part;
		}
		if (v->common.dirty_log)
			ring_mem_dirty(v->common.mem, segs[i].base, room);
	}
	return done;
}

static void vrng_request(
	struct vrng *v, struct split_queue *q, const struct ring_chain *chain, uint32_t len)
{
	struct ring_used used = {.id = chain->id};

	/* 5.4.6: a buffer is for the device to write, all of it */
	if (chain->nout || !len)
		counter_add(&v->common.counters.malformed, 1);
	else
		used.len = vrng_give(v, chain->segs, chain->nin, len);
	if (v->rate)
		v->tokens -= used.len;
	if (!used.len)
		counter_add(&v->common.counters.errors, 1);
	counter_add(&v->common.counters.requests, 1);
	counter_add(&v->common.counters.bytes, used.len);
	split_queue_push(q, &used, 1);
}

static unsigned vrng_poll(struct split_device *d)
{
	struct vrng *v = (struct vrng *)d;
	struct split_queue *q = &d->queues[0];
	uint64_t started_ns;
	unsigned n;

	if (v->retry_ns) {
		if (io_thread_now_ns(d->io) < v->retry_ns)
			return 0;
		v->retry_ns = 0;
	}
	if (!split_queue_live(q) || !ring_device_has_work(&q->ring))
		return 0;
	/* with a limit one by one: what has no tokens must go back before anything is pushed */
	n = split_popped(d,
		ring_device_pop(&q->ring, v->chains, v->rate ? 1 : RNG_BATCH, v->segs, RNG_SEGS));
	if (!n)
		return 0;
	started_ns = clock_now_ns();
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = v->chains[i].in_len;

		if (len > RNG_REQUEST)
			len = RNG_REQUEST;
		if (len && !v->chains[i].nout) {
			len = vrng_allowed(v, len);
			if (!len) {
				ring_device_unpop(&q->ring, &v->chains[i], 1);
				return 0;
			}
		}
		vrng_request(v, q, &v->chains[i], len);
	}
	histogram_add_n(&q->latency, clock_now_ns() - started_ns, n);
	return n;
}

static bool vrng_sleep(struct split_device *d)
{
	struct vrng *v = (struct vrng *)d;

	/* out of tokens: only time helps */
	d->queues[0].passive = v->retry_ns != 0;
	io_timer_set(d->io, &v->retry, v->retry_ns);
	return false;
}

/* Requests are served when they are popped. */
static uint32_t vrng_inflight(struct split_device *d)
{
	(void)d;
	return 0;
}

static void vrng_batch_end(struct split_device *d)
{
	(void)d;
}

/* ------------------------------------------------------------------ configuration, state */

/* There is no configuration (5.4.4). */
static void vrng_config_read(struct split_device *d, uint32_t offset, void *to, uint32_t len)
{
	(void)d;
	(void)offset;
	memset(to, 0, len);
}

static void vrng_config_write(
	struct split_device *d, uint32_t offset, const void *from, uint32_t len)
{
	(void)d;
	(void)offset;
	(void)from;
	(void)len;
}

static void vrng_queue_stop(struct split_device *d, unsigned index)
{
	struct vrng *v = (struct vrng *)d;

	(void)index;
	v->retry_ns = 0;
	io_timer_set(d->io, &v->retry, 0);
}

static void vrng_reset(struct split_device *d)
{
	vrng_queue_stop(d, 0);
}

static void vrng_save(struct split_device *d, struct state_writer *w)
{
	struct vrng *v = (struct vrng *)d;

	state_section_begin(w, "virtio-rng", 1);
	state_put_u64(w, v->tokens);
	state_section_end(w);
}

static void vrng_load(struct split_device *d, struct state_reader *r)
{
	struct vrng *v = (struct vrng *)d;
	uint64_t tokens;

	state_section_enter(r, "virtio-rng", 1);
	tokens = state_get_u64(r);
	state_section_leave(r);
	if (r->error)
		return;
	v->tokens = tokens < v->burst ? tokens : v->burst;
	v->filled_ns = clock_now_ns();
	/* a pool made before the load may be shared with a copy of this process */
	explicit_bzero(v->pool, sizeof(v->pool));
	v->pool_left = 0;
}

/* ------------------------------------------------------------------ life */

static void vrng_destroy(struct split_device *d)
{
	struct vrng *v = (struct vrng *)d;

	io_timer_set(d->io, &v->retry, 0);
	split_fini(d);
	explicit_bzero(v->pool, sizeof(v->pool));
	free(v);
}

static const struct split_ops vrng_ops = {
	.name = "virtio-rng",
	.virtio_id = VIRTIO_ID_RNG,
	.config_size = 0,
	.config_read = vrng_config_read,
	.config_write = vrng_config_write,
	.queue_stop = vrng_queue_stop,
	.inflight = vrng_inflight,
	.reset = vrng_reset,
	.poll = vrng_poll,
	.sleep = vrng_sleep,
	.batch_end = vrng_batch_end,
	.save = vrng_save,
	.load = vrng_load,
	.destroy = vrng_destroy,
};

int split_rng_create(struct split_device **out, struct io_thread *io, const struct ring_mem *mem,
	const struct split_signal *signal, const struct split_rng_options *opts,
	char why[BACKEND_WHY_MAX])
{
	struct vrng *v;
	int err;

	if (opts->rate_bytes_per_s > RNG_RATE_MAX) {
		backend_why(why, "rate=%llu: at most %llu bytes a second",
			(unsigned long long)opts->rate_bytes_per_s, RNG_RATE_MAX);
		return -EINVAL;
	}
	v = calloc(1, sizeof(*v));
	if (!v) {
		backend_why(why, "virtio-rng: no memory");
		return -ENOMEM;
	}
	v->common.ops = &vrng_ops;
	v->common.io = io;
	v->common.mem = mem;
	v->common.signal = *signal;
	v->common.nqueues = 1;
	v->common.chain_max = RNG_SEGS;
	v->rate = opts->rate_bytes_per_s;
	v->burst = v->rate / 10 > RNG_BURST_MIN ? v->rate / 10 : RNG_BURST_MIN;
	v->tokens = v->rate ? v->burst : 0;
	v->filled_ns = clock_now_ns();
	v->retry.expired = vrng_retry_expired;
	err = split_ring_options_apply(&v->common, &opts->ring, RNG_QUEUE_SIZE, why);
	if (!err)
		err = split_init(&v->common, why);
	if (err) {
		free(v);
		return err;
	}
	split_attach(&v->common);
	*out = &v->common;
	return 0;
}
