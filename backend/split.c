/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every split device shares: features, queues, doorbells, and the ways to stop. All of a
 * device's state belongs to its I/O thread; the functions a transport calls go there first.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define SPLIT_DEVICE(p) ((struct split_device *)((char *)(p)-offsetof(struct split_device, poller)))

uint64_t split_features_common(
	enum split_ring_choice ring, bool no_indirect, bool no_event_idx, bool in_order)
{
	uint64_t f = VIRTIO_BIT(VIRTIO_F_VERSION_1);

	if (ring == SPLIT_RING_PACKED)
		f |= VIRTIO_BIT(VIRTIO_F_RING_PACKED);
	if (!no_indirect)
		f |= VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
	if (!no_event_idx)
		f |= VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	if (in_order)
		f |= VIRTIO_BIT(VIRTIO_F_IN_ORDER);
	return f;
}

int split_ring_options_apply(struct split_device *d, const struct split_ring_options *o,
	uint32_t queue_size, char why[BACKEND_WHY_MAX])
{
	uint32_t size = o->queue_size ? o->queue_size : queue_size;

	if (size < 2 || size > 1024 || (size & (size - 1))) {
		backend_why(why, "queue-size=%u: a power of two from 2 to 1024 is possible", size);
		return -EINVAL;
	}
	d->queue_size_max = size;
	d->features |= split_features_common(o->ring, o->no_indirect, o->no_event_idx, o->in_order);
	return 0;
}

/* ------------------------------------------------------------------ for kinds */

void split_queue_push(struct split_queue *q, const struct ring_used *used, uint32_t n)
{
	if (!n)
		return;
	if (q->inflight)
		inflight_push_begin(q->inflight, used, n);
	ring_device_push(&q->ring, used, n);
	if (q->inflight)
		inflight_push_end(q->inflight, used, n);
	q->pushed = true;
}

void split_break(struct split_device *d)
{
	counter_add(&d->counters.malformed, 1);
	if (d->broken)
		return;
	d->broken = true;
	d->signal.broken(d->signal.ctx);
}

unsigned split_popped(struct split_device *d, int n)
{
	if (n < 0) {
		split_break(d);
		return 0;
	}
	return (unsigned)n;
}

static int split_pop_recorded(struct split_queue *q, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs)
{
	struct ring_device_state before;
	int n;

	if (inflight_waiting(q->inflight)) {
		n = inflight_retake(q->inflight, &q->ring, chains, max, segs, max_segs);
		if (n > 0)
			counter_add(&q->device->resubmitted, (uint64_t)n);
		return n;
	}
	ring_device_state_get(&q->ring, &before);
	n = ring_device_pop(&q->ring, chains, max, segs, max_segs);
	if (n > 0)
		inflight_popped(q->inflight, &q->ring, &before, chains, (uint32_t)n);
	return n;
}

unsigned split_queue_pop(struct split_queue *q, struct ring_chain *chains, uint32_t max,
	struct ring_seg *segs, uint32_t max_segs)
{
	if (!q->inflight)
		return split_popped(
			q->device, ring_device_pop(&q->ring, chains, max, segs, max_segs));
	return split_popped(q->device, split_pop_recorded(q, chains, max, segs, max_segs));
}

/* ------------------------------------------------------------------ poller */

static unsigned split_poll(struct io_poller *p)
{
	struct split_device *d = SPLIT_DEVICE(p);

	return d->ops->poll(d);
}

static bool split_sleep(struct io_poller *p)
{
	struct split_device *d = SPLIT_DEVICE(p);

	if (d->ops->sleep && d->ops->sleep(d))
		return true;
	for (unsigned i = 0; i < d->nqueues; i++) {
		struct split_queue *q = &d->queues[i];

		if (q->remote)
			continue;
		if (split_queue_live(q) && !q->passive && ring_device_doorbell_on(&q->ring))
			return true;
		if (q->inflight && split_queue_live(q) && inflight_waiting(q->inflight))
			return true;
	}
	return false;
}

static void split_wake(struct io_poller *p)
{
	struct split_device *d = SPLIT_DEVICE(p);

	for (unsigned i = 0; i < d->nqueues; i++)
		if (split_queue_live(&d->queues[i]) && !d->queues[i].remote)
			ring_device_doorbell_off(&d->queues[i].ring);
}

static void split_controls_run(struct split_device *d);

static void split_batch_end(struct io_poller *p)
{
	struct split_device *d = SPLIT_DEVICE(p);

	d->ops->batch_end(d);
	for (unsigned i = 0; i < d->nqueues; i++) {
		struct split_queue *q = &d->queues[i];

		if (!q->pushed)
			continue;
		q->pushed = false;
		if (ring_device_needs_interrupt(&q->ring)) {
			counter_add(&d->counters.interrupts, 1);
			d->signal.queue(d->signal.ctx, i);
		} else {
			counter_add(&d->counters.interrupts_suppressed, 1);
		}
	}
	if (d->controls)
		split_controls_run(d);
}

/* ------------------------------------------------------------------ doorbells */

static void split_doorbell_ready(struct io_watch *w)
{
	struct split_queue *q =
		(struct split_queue *)((char *)w - offsetof(struct split_queue, doorbell));

	/* heard: the poll that follows looks at every queue */
	counter_add(&q->device->counters.doorbells, io_watch_value(w));
	counter_add(&q->device->counters.system_calls, 1);
}

static void split_doorbell_run(struct io_work *work)
{
	struct split_device *d =
		(struct split_device *)((char *)work -
					offsetof(struct split_device, doorbell_work));

	counter_add(&d->counters.doorbells,
		atomic_exchange_explicit(&d->doorbells_posted, 0, memory_order_relaxed));
	if (d->ops->remote)
		d->ops->remote->doorbell(d);
}

void split_doorbell(struct split_device *d, unsigned q)
{
	if (q >= d->nqueues)
		return;
	atomic_fetch_add_explicit(&d->doorbells_posted, 1, memory_order_relaxed);
	io_thread_post(d->io, &d->doorbell_work);
}

static void split_signal_run(struct io_work *work)
{
	struct split_device *d =
		(struct split_device *)((char *)work - offsetof(struct split_device, signal_work));

	d->ops->remote->signal_changed(d);
}

void split_signal_changed(struct split_device *d)
{
	if (d->ops->remote)
		io_thread_post(d->io, &d->signal_work);
}

/* ------------------------------------------------------------------ features and queues */

struct split_call {
	struct split_device *d;
	uint64_t features;
	unsigned q;
	const struct split_queue_config *cfg;
	bool on;
	struct ring_device_state *state;
	struct state_writer *writer;
	struct state_reader *reader;
	int err;
};

static void split_features_io(void *ctx)
{
	struct split_call *c = ctx;
	struct split_device *d = c->d;

	for (unsigned i = 0; i < d->nqueues; i++) {
		if (d->queues[i].running) {
			c->err = -EBUSY;
			return;
		}
	}
	d->driver_features = c->features;
	c->err = d->ops->negotiated ? d->ops->negotiated(d) : 0;
	if (c->err)
		d->driver_features = 0;
}

int split_features_set(struct split_device *d, uint64_t features)
{
	struct split_call c = {.d = d, .features = features};

	if (features & ~d->features || !(features & VIRTIO_BIT(VIRTIO_F_VERSION_1)))
		return -EINVAL;
	io_thread_call(d->io, split_features_io, &c);
	return c.err;
}

static bool split_dirty_logged(const struct ring_mem *mem)
{
	for (uint32_t i = 0; i < mem->nregions; i++)
		if (mem->regions[i].dirty)
			return true;
	return false;
}

/* A region for what is in flight: it decides where the queue is. */
static int split_queue_recover(struct split_queue *q, const struct split_queue_config *cfg)
{
	struct ring_device_state state;
	int err;

	if (split_has(q->device, VIRTIO_F_IN_ORDER))
		return -ENOTSUP;
	ring_device_state_get(&q->ring, &state);
	if (cfg->restore)
		state = cfg->state;
	err = inflight_open(&q->inflight, cfg->inflight, cfg->inflight_bytes, &q->ring, &state);
	return err ? err : ring_device_state_set(&q->ring, &state);
}

static void split_inflight_forget(struct split_queue *q)
{
	inflight_close(q->inflight);
	q->inflight = NULL;
}

static int split_queue_attach(
	struct split_device *d, struct split_queue *q, const struct split_queue_config *cfg)
{
	struct ring_device_config rc = {
		.layout = split_has(d, VIRTIO_F_RING_PACKED) ? RING_PACKED : RING_SPLIT,
		.features =
			{
				.event_idx = split_has(d, VIRTIO_F_EVENT_IDX),
				.indirect = split_has(d, VIRTIO_F_INDIRECT_DESC),
				.in_order = split_has(d, VIRTIO_F_IN_ORDER),
			},
		.size = cfg->size,
		.desc_gpa = cfg->desc_gpa,
		.driver_gpa = cfg->driver_gpa,
		.device_gpa = cfg->device_gpa,
		.chain_max = d->chain_max,
	};
	int err;

	if (!cfg->size || cfg->size > d->queue_size_max)
		return -EINVAL;
	if (!q->slots) {
		/* the largest size at once: pages not used are never touched */
		q->slots = calloc(d->queue_size_max, sizeof(*q->slots));
		if (!q->slots)
			return -ENOMEM;
	}
	rc.slots = q->slots;
	if (d->ops->fetch)
		rc.fetch = d->ops->fetch(d, q->index);
	err = ring_device_init(&q->ring, &rc, d->mem);
	if (err)
		return err;
	if (cfg->inflight)
		return split_queue_recover(q, cfg);
	return cfg->restore ? ring_device_state_set(&q->ring, &cfg->state) : 0;
}

static void split_queue_start_io(void *ctx)
{
	struct split_call *c = ctx;
	struct split_device *d = c->d;
	struct split_queue *q = &d->queues[c->q];

	if (q->running || d->controls) {
		c->err = -EBUSY;
		return;
	}
	if (d->broken || !split_has(d, VIRTIO_F_VERSION_1)) {
		c->err = -EINVAL;
		return;
	}
	split_inflight_forget(q);
	c->err = split_queue_attach(d, q, c->cfg);
	if (c->err)
		return;
	d->dirty_log = split_dirty_logged(d->mem);
	q->pushed = false;
	q->passive = false;
	q->remote = d->ops->remote && !d->ops->remote->here(d, c->q);
	if (q->remote) {
		c->err = d->ops->remote->queue_start(d, c->q, c->cfg->doorbell_fd);
		q->running = !c->err;
		return;
	}
	q->disabled = c->cfg->disabled;
	q->doorbell = (struct io_watch){
		.fd = c->cfg->doorbell_fd, .drain = true, .ready = split_doorbell_ready};
	if (q->doorbell.fd >= 0) {
		c->err = io_watch_add(d->io, &q->doorbell);
		if (c->err)
			return;
	}
	c->err = d->ops->queue_start ? d->ops->queue_start(d, c->q) : 0;
	if (c->err) {
		io_watch_remove(d->io, &q->doorbell);
		return;
	}
	q->running = true;
	if (d->ops->queue_enable)
		d->ops->queue_enable(d, c->q);
	ring_device_doorbell_off(&q->ring);
}

int split_queue_start(struct split_device *d, unsigned q, const struct split_queue_config *cfg)
{
	struct split_call c = {.d = d, .q = q, .cfg = cfg};

	if (q >= d->nqueues)
		return -EINVAL;
	io_thread_call(d->io, split_queue_start_io, &c);
	return c.err;
}

static void split_enable_io(void *ctx)
{
	struct split_call *c = ctx;

	c->d->queues[c->q].disabled = !c->on;
	c->d->ops->queue_enable(c->d, c->q);
}

void split_queue_enable(struct split_device *d, unsigned q, bool on)
{
	struct split_call c = {.d = d, .q = q, .on = on};

	if (q < d->nqueues && d->ops->queue_enable)
		io_thread_call(d->io, split_enable_io, &c);
}

static void split_state_io(void *ctx)
{
	struct split_call *c = ctx;
	struct split_queue *q = &c->d->queues[c->q];

	/* never started: the ring has no layout to say its beginning in */
	if (q->ring.mem)
		ring_device_state_get(&q->ring, c->state);
}

void split_queue_state_get(struct split_device *d, unsigned q, struct ring_device_state *out)
{
	struct split_call c = {.d = d, .q = q, .state = out};

	memset(out, 0, sizeof(*out));
	if (q < d->nqueues)
		io_thread_call(d->io, split_state_io, &c);
}

static void split_save_io(void *ctx)
{
	struct split_call *c = ctx;

	c->d->ops->save(c->d, c->writer);
}

void split_save(struct split_device *d, struct state_writer *w)
{
	struct split_call c = {.d = d, .writer = w};

	io_thread_call(d->io, split_save_io, &c);
}

static void split_load_io(void *ctx)
{
	struct split_call *c = ctx;

	c->d->ops->load(c->d, c->reader);
}

void split_load(struct split_device *d, struct state_reader *r)
{
	struct split_call c = {.d = d, .reader = r};

	io_thread_call(d->io, split_load_io, &c);
}

static void split_dirty_io(void *ctx)
{
	struct split_device *d = ctx;

	d->ops->remote->dirty_sync(d);
}

void split_dirty_sync(struct split_device *d)
{
	if (d->ops->remote)
		io_thread_call(d->io, split_dirty_io, d);
}

/* ------------------------------------------------------------------ quiesce and reset */

struct split_control {
	struct io_work work;
	struct split_device *d;
	bool reset;
	bool heap; /* else a waiting caller's, gone once done() was called */
	void (*done)(void *ctx);
	void *ctx;
	struct split_control *next;
};

static void split_stop(struct split_device *d)
{
	for (unsigned i = 0; i < d->nqueues; i++) {
		struct split_queue *q = &d->queues[i];

		if (!q->running)
			continue;
		if (q->remote) {
			q->running = false;
			d->ops->remote->queue_stop(d, i);
			continue;
		}
		/* a kind's last words go through a queue that still runs */
		if (d->ops->queue_stop)
			d->ops->queue_stop(d, i);
		q->running = false;
		if (d->ops->queue_enable)
			d->ops->queue_enable(d, i);
		io_watch_remove(d->io, &q->doorbell);
	}
}

static void split_power_on(struct split_device *d)
{
	d->ops->reset(d);
	d->driver_features = 0;
	d->broken = false;
	for (unsigned i = 0; i < d->nqueues; i++) {
		split_inflight_forget(&d->queues[i]);
		memset(&d->queues[i].ring, 0, sizeof(d->queues[i].ring));
	}
}

/* Called after every batch while somebody waits: completions have been pushed and signalled. */
static void split_controls_run(struct split_device *d)
{
	struct split_control *c;

	while ((c = d->controls) && !d->ops->inflight(d)) {
		void (*done)(void *ctx) = c->done;
		void *ctx = c->ctx;

		d->controls = c->next;
		if (c->reset)
			split_power_on(d);
		if (c->heap)
			free(c);
		if (done)
			done(ctx);
	}
}

static void split_control_run(struct io_work *work)
{
	struct split_control *c = (struct split_control *)work, **at;
	struct split_device *d = c->d;

	split_stop(d);
	c->next = NULL;
	for (at = &d->controls; *at; at = &(*at)->next)
		;
	*at = c;
	/* the batch_end of this round finishes it, at the earliest */
}

static void split_control_wait_done(void *ctx)
{
	sem_post(ctx);
}

static void split_control_wait(struct split_device *d, bool reset)
{
	struct split_control c = {.work.run = split_control_run, .d = d, .reset = reset};
	sem_t sem;

	sem_init(&sem, 0, 0);
	c.done = split_control_wait_done;
	c.ctx = &sem;
	io_thread_post(d->io, &c.work);
	while (sem_wait(&sem) < 0 && errno == EINTR)
		;
	sem_destroy(&sem);
}

static void split_control_start(
	struct split_device *d, bool reset, void (*done)(void *ctx), void *ctx)
{
	struct split_control *c = calloc(1, sizeof(*c));

	if (!c) {
		/* slower, never lost */
		split_control_wait(d, reset);
		if (done)
			done(ctx);
		return;
	}
	c->work.run = split_control_run;
	c->d = d;
	c->reset = reset;
	c->heap = true;
	c->done = done;
	c->ctx = ctx;
	io_thread_post(d->io, &c->work);
}

void split_quiesce(struct split_device *d, void (*done)(void *ctx), void *ctx)
{
	split_control_start(d, false, done, ctx);
}

void split_quiesce_wait(struct split_device *d)
{
	split_control_wait(d, false);
}

void split_reset(struct split_device *d, void (*done)(void *ctx), void *ctx)
{
	split_control_start(d, true, done, ctx);
}

/* ------------------------------------------------------------------ life */

int split_init(struct split_device *d, char why[BACKEND_WHY_MAX])
{
	d->queues = calloc(d->nqueues, sizeof(*d->queues));
	if (!d->queues) {
		backend_why(why, "%s: no memory for %u queues", d->ops->name, d->nqueues);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < d->nqueues; i++) {
		d->queues[i].device = d;
		d->queues[i].index = i;
	}
	d->doorbell_work.run = split_doorbell_run;
	d->signal_work.run = split_signal_run;
	d->poller = (struct io_poller){.poll = split_poll,
		.sleep = split_sleep,
		.wake = split_wake,
		.batch_end = split_batch_end};
	return 0;
}

static void split_attach_io(void *ctx)
{
	struct split_device *d = ctx;

	io_poller_add(d->io, &d->poller);
}

void split_attach(struct split_device *d)
{
	io_thread_call(d->io, split_attach_io, d);
}

void split_fini(struct split_device *d)
{
	for (unsigned i = 0; d->queues && i < d->nqueues; i++) {
		split_inflight_forget(&d->queues[i]);
		free(d->queues[i].slots);
	}
	free(d->queues);
	d->queues = NULL;
}

static void split_destroy_io(void *ctx)
{
	struct split_device *d = ctx;

	io_poller_remove(d->io, &d->poller);
	d->ops->destroy(d);
}

void split_destroy(struct split_device *d)
{
	if (!d)
		return;
	/* after the wait nothing of the device is posted any more: work runs in order */
	split_control_wait(d, false);
	io_thread_call(d->io, split_destroy_io, d);
}
