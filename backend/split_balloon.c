/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-balloon (virtio 1.2 section 5.5): memory the guest gives up goes back to the host, before
 * the guest is told that it was taken: from then on it may use the pages again at any time.
 *
 * Queues: inflate 0, deflate 1, then statistics and reporting. The standard gives each its fixed
 * number; drivers number those they use without gaps. Both are understood: statistics are 2 where
 * they were negotiated; reporting is the next one, or 4.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

enum {
	VIRTIO_BALLOON_F_STATS_VQ = 1,
	VIRTIO_BALLOON_F_DEFLATE_ON_OOM = 2,
	VIRTIO_BALLOON_F_PAGE_POISON = 4,
	VIRTIO_BALLOON_F_REPORTING = 5,
};

/* 5.5.4: struct virtio_balloon_config */
enum { CONFIG_NUM_PAGES = 0, CONFIG_ACTUAL = 4, CONFIG_POISON = 12, CONFIG_SIZE = 16 };

enum { INFLATEQ, DEFLATEQ, STATSQ, FREEPAGEQ, REPORTINGQ, QUEUES };

#define BALLOON_QUEUE_SIZE   128u
#define BALLOON_CHAIN_MAX    256u
#define BALLOON_BATCH        8u
#define BALLOON_PFNS         1024u /* looked at together */
#define BALLOON_REQUEST_PFNS 4096u /* of one request; drivers send 256 */
#define BALLOON_STAT_BYTES   10u
#define BALLOON_STATS_MAX    64u /* entries looked at */

struct vballoon {
	struct split_device common;
	uint64_t host_page;
	uint32_t pages_max;
	_Atomic uint32_t num_pages, actual, poison; /* the configuration */
	struct io_work work;                        /* any thread has changed one of these: */
	atomic_bool target_changed, stats_wanted;

	bool stats_held; /* the driver's buffer is with us until new statistics are wanted */
	struct ring_chain stats_chain;
	_Atomic uint64_t released, reported, stats_updates;
	_Atomic uint64_t stats[SPLIT_BALLOON_STATS];

	/* scratch of one poll */
	struct ring_chain chains[BALLOON_BATCH];
	struct ring_seg segs[BALLOON_CHAIN_MAX];
	uint32_t pfns[BALLOON_PFNS];
};

/* ------------------------------------------------------------------ giving memory back */

/* Whole host pages inside the range. Bytes that went back. */
static uint64_t vballoon_release(struct vballoon *v, void *host, uint64_t len)
{
	uintptr_t mask = v->host_page - 1;
	uintptr_t first = ((uintptr_t)host + mask) & ~mask, end = ((uintptr_t)host + len) & ~mask;
	int rc;

	if (first >= end)
		return 0;
	len = end - first;
	counter_add(&v->common.counters.system_calls, 1);
	/* a hole in the file that is mapped, for everybody who maps it */
	rc = madvise((void *)first, len, MADV_REMOVE);
	if (rc < 0 && (errno == EINVAL || errno == EACCES || errno == EOPNOTSUPP)) {
		/* no file, or a private view of one: our copy alone */
		counter_add(&v->common.counters.system_calls, 1);
		rc = madvise((void *)first, len, MADV_DONTNEED);
	}
	if (rc < 0) {
		counter_add(&v->common.counters.errors, 1);
		return 0;
	}
	/* what is there now is not what was there */
	if (v->common.dirty_log)
		ring_mem_dirty(v->common.mem, (void *)first, len);
	counter_add(&v->released, len);
	counter_add(&v->common.counters.bytes, len);
	return len;
}

static int pfn_compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorted, so that neighbours go back with one system call. */
static void vballoon_pfns_release(struct vballoon *v, uint32_t n)
{
	uint8_t *run = NULL, *host;
	uint64_t len = 0;

	qsort(v->pfns, n, sizeof(v->pfns[0]), pfn_compare);
	for (uint32_t i = 0; i < n; i++) {
		if (i && v->pfns[i] == v->pfns[i - 1])
			continue;
		host = ring_mem_translate(v->common.mem, (uint64_t)v->pfns[i] * SPLIT_BALLOON_PAGE,
			SPLIT_BALLOON_PAGE, RING_WRITE);
		if (!host) {
			/* 5.5.6: not the driver's memory */
			counter_add(&v->common.counters.malformed, 1);
			continue;
		}
		if (run && host == run + len) {
			len += SPLIT_BALLOON_PAGE;
			continue;
		}
		if (run)
			vballoon_release(v, run, len);
		run = host;
		len = SPLIT_BALLOON_PAGE;
	}
	if (run)
		vballoon_release(v, run, len);
}

static void vballoon_inflate(struct vballoon *v, const struct ring_chain *chain)
{
	struct ring_seg *segs = chain->segs;
	uint32_t nsegs = chain->nout, left = chain->out_len / sizeof(uint32_t);

	if (chain->out_len % sizeof(uint32_t) || left > BALLOON_REQUEST_PFNS)
		counter_add(&v->common.counters.malformed, 1);
	/* the rest of a request without end stays the guest's */
	if (left > BALLOON_REQUEST_PFNS)
		left = BALLOON_REQUEST_PFNS;
	while (left) {
		uint32_t n = left < BALLOON_PFNS ? left : BALLOON_PFNS;

		segs_pull(&segs, &nsegs, v->pfns, n * sizeof(v->pfns[0]));
		for (uint32_t i = 0; i < n; i++)
			v->pfns[i] = le32toh(v->pfns[i]);
		vballoon_pfns_release(v, n);
		left -= n;
	}
}

/* Pages come back when they are touched. */
static void vballoon_deflate(struct vballoon *v, const struct ring_chain *chain)
{
	if (!chain->nout || chain->out_len % sizeof(uint32_t))
		counter_add(&v->common.counters.malformed, 1);
}

/* 5.5.6.7: free pages, which the driver keeps away from everybody until the buffer is used. */
static void vballoon_report(struct vballoon *v, const struct ring_chain *chain)
{
	if (chain->nout) {
		counter_add(&v->common.counters.malformed, 1);
		return;
	}
	/* a page that must read as poison may not become zeros (5.5.6.7.1) */
	if (split_has(&v->common, VIRTIO_BALLOON_F_PAGE_POISON) && atomic_load(&v->poison))
		return;
	for (uint32_t i = 0; i < chain->nin; i++)
		counter_add(
			&v->reported, vballoon_release(v, chain->segs[i].base, chain->segs[i].len));
}

/* ------------------------------------------------------------------ queues */

static struct split_queue *vballoon_statsq(struct vballoon *v)
{
	return split_has(&v->common, VIRTIO_BALLOON_F_STATS_VQ) ? &v->common.queues[STATSQ] : NULL;
}

static bool vballoon_is_reportingq(const struct vballoon *v, unsigned index)
{
	unsigned next = split_has(&v->common, VIRTIO_BALLOON_F_STATS_VQ) ? STATSQ + 1 : STATSQ;

	return split_has(&v->common, VIRTIO_BALLOON_F_REPORTING) &&
	       (index == REPORTINGQ || index == next);
}

static unsigned vballoon_queue_poll(struct vballoon *v, unsigned index,
	void (*request)(struct vballoon *v, const struct ring_chain *chain))
{
	struct split_queue *q = &v->common.queues[index];
	uint64_t started_ns;
	unsigned n;

	if (!split_queue_live(q) || !ring_device_has_work(&q->ring))
		return 0;
	started_ns = clock_now_ns();
	n = split_popped(&v->common,
		ring_device_pop(&q->ring, v->chains, BALLOON_BATCH, v->segs, BALLOON_CHAIN_MAX));
	for (unsigned i = 0; i < n; i++) {
		struct ring_used used = {.id = v->chains[i].id};

		request(v, &v->chains[i]);
		split_queue_push(q, &used, 1);
	}
	counter_add(&v->common.counters.requests, n);
	if (n)
		histogram_add_n(&q->latency, clock_now_ns() - started_ns, n);
	return n;
}

/* 5.5.6.3: pairs of a tag and a value. Tags that are not known here are left alone. */
static void vballoon_stats_read(struct vballoon *v, const struct ring_chain *chain)
{
	struct ring_seg *segs = chain->segs;
	uint32_t nsegs = chain->nout;
	uint8_t entry[BALLOON_STAT_BYTES];

	for (unsigned i = 0; i < BALLOON_STATS_MAX; i++) {
		uint16_t tag;
		uint64_t value;

		if (!segs_pull(&segs, &nsegs, entry, sizeof(entry)))
			break;
		memcpy(&tag, entry, sizeof(tag));
		memcpy(&value, entry + sizeof(tag), sizeof(value));
		tag = le16toh(tag);
		if (tag < SPLIT_BALLOON_STATS)
			atomic_store(&v->stats[tag], le64toh(value));
	}
	atomic_fetch_add(&v->stats_updates, 1);
}

/* One buffer goes to and fro: giving it back asks for fresh statistics. */
static unsigned vballoon_stats_poll(struct vballoon *v)
{
	struct split_queue *q = vballoon_statsq(v);
	unsigned n = 0;

	if (!q || !split_queue_live(q))
		return 0;
	if (v->stats_held && atomic_exchange(&v->stats_wanted, false)) {
		struct ring_used used = {.id = v->stats_chain.id};

		v->stats_held = false;
		split_queue_push(q, &used, 1);
		n++;
	}
	if (v->stats_held || !ring_device_has_work(&q->ring))
		return n;
	if (!split_popped(&v->common,
		    ring_device_pop(&q->ring, &v->stats_chain, 1, v->segs, BALLOON_CHAIN_MAX)))
		return n;
	v->stats_held = true;
	counter_add(&v->common.counters.requests, 1);
	if (!v->stats_chain.nout)
		counter_add(&v->common.counters.malformed, 1);
	vballoon_stats_read(v, &v->stats_chain);
	return n + 1;
}

static unsigned vballoon_poll(struct split_device *d)
{
	struct vballoon *v = (struct vballoon *)d;
	unsigned n;

	n = vballoon_queue_poll(v, DEFLATEQ, vballoon_deflate);
	n += vballoon_queue_poll(v, INFLATEQ, vballoon_inflate);
	for (unsigned i = STATSQ; i < QUEUES; i++)
		if (vballoon_is_reportingq(v, i))
			n += vballoon_queue_poll(v, i, vballoon_report);
	return n + vballoon_stats_poll(v);
}

static bool vballoon_sleep(struct split_device *d)
{
	struct vballoon *v = (struct vballoon *)d;

	/* nobody takes from a queue that means nothing, nor from statistics while one is held */
	for (unsigned i = STATSQ; i < QUEUES; i++)
		d->queues[i].passive = !vballoon_is_reportingq(v, i);
	if (vballoon_statsq(v))
		vballoon_statsq(v)->passive = v->stats_held;
	return false;
}

static void vballoon_batch_end(struct split_device *d)
{
	(void)d;
}

/* The buffer of statistics is not work to wait for: it goes back where it came from. */
static uint32_t vballoon_inflight(struct split_device *d)
{
	(void)d;
	return 0;
}

static void vballoon_queue_stop(struct split_device *d, unsigned index)
{
	struct vballoon *v = (struct vballoon *)d;

	if (index != STATSQ || !v->stats_held)
		return;
	ring_device_unpop(&d->queues[STATSQ].ring, &v->stats_chain, 1);
	v->stats_held = false;
}

/* ------------------------------------------------------------------ from other threads */

static void vballoon_work(struct io_work *work)
{
	struct vballoon *v = (struct vballoon *)((char *)work - offsetof(struct vballoon, work));

	if (atomic_exchange(&v->target_changed, false))
		v->common.signal.config(v->common.signal.ctx);
	/* statistics: the poll that follows sees the wish */
}

void split_balloon_target_set(struct split_device *d, uint32_t pages)
{
	struct vballoon *v = (struct vballoon *)d;

	if (pages > v->pages_max)
		pages = v->pages_max;
	if (atomic_exchange(&v->num_pages, pages) == pages)
		return;
	atomic_store(&v->target_changed, true);
	io_thread_post(d->io, &v->work);
}

void split_balloon_info_get(struct split_device *d, struct split_balloon_info *out)
{
	struct vballoon *v = (struct vballoon *)d;

	out->target_pages = atomic_load(&v->num_pages);
	out->actual_pages = atomic_load(&v->actual);
	out->released = counter_get(&v->released);
	out->reported = counter_get(&v->reported);
	out->stats_updates = atomic_load(&v->stats_updates);
	for (unsigned i = 0; i < SPLIT_BALLOON_STATS; i++)
		out->stats[i] = atomic_load(&v->stats[i]);
	atomic_store(&v->stats_wanted, true);
	io_thread_post(d->io, &v->work);
}

/* ------------------------------------------------------------------ configuration */

static void vballoon_config_fill(struct vballoon *v, uint8_t c[CONFIG_SIZE])
{
	uint32_t num_pages = htole32(atomic_load(&v->num_pages)),
		 actual = htole32(atomic_load(&v->actual)),
		 poison = htole32(atomic_load(&v->poison));

	memset(c, 0, CONFIG_SIZE);
	memcpy(c + CONFIG_NUM_PAGES, &num_pages, sizeof(num_pages));
	memcpy(c + CONFIG_ACTUAL, &actual, sizeof(actual));
	memcpy(c + CONFIG_POISON, &poison, sizeof(poison));
}

static void vballoon_config_read(struct split_device *d, uint32_t offset, void *to, uint32_t len)
{
	uint8_t c[CONFIG_SIZE];

	vballoon_config_fill((struct vballoon *)d, c);
	memset(to, 0, len);
	if (offset < CONFIG_SIZE)
		memcpy(to, c + offset, len < CONFIG_SIZE - offset ? len : CONFIG_SIZE - offset);
}

static void vballoon_config_write(
	struct split_device *d, uint32_t offset, const void *from, uint32_t len)
{
	struct vballoon *v = (struct vballoon *)d;
	uint32_t actual, poison;
	uint8_t c[CONFIG_SIZE];

	if (offset >= CONFIG_SIZE)
		return;
	vballoon_config_fill(v, c);
	memcpy(c + offset, from, len < CONFIG_SIZE - offset ? len : CONFIG_SIZE - offset);
	memcpy(&actual, c + CONFIG_ACTUAL, sizeof(actual));
	memcpy(&poison, c + CONFIG_POISON, sizeof(poison));
	atomic_store(&v->actual, le32toh(actual));
	atomic_store(&v->poison, le32toh(poison));
}

/* ------------------------------------------------------------------ state */

static void vballoon_stats_forget(struct vballoon *v)
{
	for (unsigned i = 0; i < SPLIT_BALLOON_STATS; i++)
		atomic_store(&v->stats[i], UINT64_MAX);
}

/* The target is the host's and stays. */
static void vballoon_reset(struct split_device *d)
{
	struct vballoon *v = (struct vballoon *)d;

	atomic_store(&v->actual, 0);
	atomic_store(&v->poison, 0);
	v->stats_held = false;
	vballoon_stats_forget(v);
}

static void vballoon_save(struct split_device *d, struct state_writer *w)
{
	struct vballoon *v = (struct vballoon *)d;

	state_section_begin(w, "virtio-balloon", 1);
	state_put_u32(w, atomic_load(&v->num_pages));
	state_put_u32(w, atomic_load(&v->actual));
	state_put_u32(w, atomic_load(&v->poison));
	state_section_end(w);
}

static void vballoon_load(struct split_device *d, struct state_reader *r)
{
	struct vballoon *v = (struct vballoon *)d;
	uint32_t num_pages, actual, poison;

	state_section_enter(r, "virtio-balloon", 1);
	num_pages = state_get_u32(r);
	actual = state_get_u32(r);
	poison = state_get_u32(r);
	state_section_leave(r);
	if (r->error)
		return;
	if (num_pages > v->pages_max) {
		r->error = -EINVAL;
		return;
	}
	atomic_store(&v->num_pages, num_pages);
	atomic_store(&v->actual, actual);
	atomic_store(&v->poison, poison);
}

/* ------------------------------------------------------------------ life */

static void vballoon_destroy(struct split_device *d)
{
	split_fini(d);
	free(d);
}

static const struct split_ops vballoon_ops = {
	.name = "virtio-balloon",
	.virtio_id = VIRTIO_ID_BALLOON,
	.config_size = CONFIG_SIZE,
	.config_read = vballoon_config_read,
	.config_write = vballoon_config_write,
	.queue_stop = vballoon_queue_stop,
	.inflight = vballoon_inflight,
	.reset = vballoon_reset,
	.poll = vballoon_poll,
	.sleep = vballoon_sleep,
	.batch_end = vballoon_batch_end,
	.save = vballoon_save,
	.load = vballoon_load,
	.destroy = vballoon_destroy,
};

static uint64_t vballoon_features(const struct split_balloon_options *o)
{
	uint64_t f = 0;

	if (!o->no_stats)
		f |= VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ);
	if (!o->no_deflate_on_oom)
		f |= VIRTIO_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	if (!o->no_reporting)
		f |= VIRTIO_BIT(VIRTIO_BALLOON_F_REPORTING) |
		     VIRTIO_BIT(VIRTIO_BALLOON_F_PAGE_POISON);
	return f;
}

int split_balloon_create(struct split_device **out, struct io_thread *io,
	const struct ring_mem *mem, const struct split_signal *signal,
	const struct split_balloon_options *opts, char why[BACKEND_WHY_MAX])
{
	uint32_t page = opts->host_page_bytes ? opts->host_page_bytes : SPLIT_BALLOON_PAGE;
	struct vballoon *v;
	int err;

	if (page < SPLIT_BALLOON_PAGE || (page & (page - 1))) {
		backend_why(why, "host pages of %u bytes: a power of two from %u on", page,
			SPLIT_BALLOON_PAGE);
		return -EINVAL;
	}
	if (opts->pages > opts->pages_max) {
		backend_why(
			why, "size: %u pages, and the guest has %u", opts->pages, opts->pages_max);
		return -EINVAL;
	}
	v = calloc(1, sizeof(*v));
	if (!v) {
		backend_why(why, "virtio-balloon: no memory");
		return -ENOMEM;
	}
	v->common.ops = &vballoon_ops;
	v->common.io = io;
	v->common.mem = mem;
	v->common.signal = *signal;
	v->common.nqueues = QUEUES;
	v->common.chain_max = BALLOON_CHAIN_MAX;
	v->common.features = vballoon_features(opts);
	v->host_page = page;
	v->pages_max = opts->pages_max;
	v->work.run = vballoon_work;
	atomic_init(&v->num_pages, opts->pages);
	vballoon_stats_forget(v);
	err = split_ring_options_apply(&v->common, &opts->ring, BALLOON_QUEUE_SIZE, why);
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
