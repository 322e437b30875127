/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Doorbells of emulated devices that do not exit while they are rung often: vmm_priv.h says what
 * for. The rule, to combine while world switches are frequent, is that of Sugerman, Venkitachalam
 * and Lim, "Virtualizing I/O Devices on VMware Workstation's Hosted Virtual Machine Monitor"
 * (USENIX 2001), 4.2.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

#include "vmm/machine_priv.h"

#define WINDOW_NS  4000000u
#define OFTEN      8u      /* doorbells in a window: KVM is told to keep them */
#define SELDOM     4u      /* fewer: no longer */
#define OFTEN_MOST 4096u   /* OFTEN where that has not paid */
#define WORTHWHILE 64u     /* writes kept before KVM was told again: it has paid */
#define LINGER_NS  150000u /* awake for so long after the last: about a request with a few exits */
#define LOOK_NS    50000u  /* then asleep, but for a look now and then */

static struct posted *posted_of(struct io_poller *p)
{
	return (struct posted *)((char *)p - offsetof(struct posted, poller));
}

/* ------------------------------------------------------------------ telling KVM */

/*
 * That is a wait for every CPU in KVM, milliseconds where one runs the guest and does not exit, so
 * a thread of the machine's does it.
 */
static void *posted_teller(void *ctx)
{
	struct machine *m = ctx;
	struct posted_teller *t = &m->posted_teller;

	pthread_mutex_lock(&t->lock);
	while (!t->stop) {
		struct posted *p = t->queue;

		if (!p) {
			pthread_cond_wait(&t->changed, &t->lock);
			continue;
		}
		t->queue = p->next;
		pthread_mutex_unlock(&t->lock);
		for (unsigned i = 0; i < p->nregions; i++)
			bus_posted_change(m, p->regions[i].region,
				p->want ? p->regions[i].often : p->regions[i].seldom);
		io_thread_post(p->io, &p->told);
		pthread_mutex_lock(&t->lock);
		p->telling = false;
		pthread_cond_broadcast(&t->changed);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static int posted_teller_start(struct machine *m)
{
	struct posted_teller *t = &m->posted_teller;
	sigset_t all, before;
	int err;

	if (t->running)
		return 0;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
	/* signals are for others */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&t->thread, NULL, posted_teller, m);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err) {
		pthread_cond_destroy(&t->changed);
		pthread_mutex_destroy(&t->lock);
		return -err;
	}
	pthread_setname_np(t->thread, "posted");
	t->running = true;
	return 0;
}

void posted_teller_stop(struct machine *m)
{
	struct posted_teller *t = &m->posted_teller;

	if (!t->running)
		return;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	t->running = false;
}

static void posted_tell(struct posted *p, bool often)
{
	struct posted_teller *t = &p->machine->posted_teller;
	struct posted **at = &t->queue;

	p->busy = true;
	p->want = often;
	pthread_mutex_lock(&t->lock);
	while (*at)
		at = &(*at)->next;
	p->next = NULL;
	p->telling = true;
	*at = p;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
}

static unsigned posted_drain(struct posted *p)
{
	unsigned n = machine_coalesced_drain(p->machine);

	if (n)
		p->last_ns = clock_now_ns();
	p->saved += n;
	return n;
}

/* On the I/O thread: KVM knows. */
static void posted_told(struct io_work *work)
{
	struct posted *p = (struct posted *)((char *)work - offsetof(struct posted, told));

	p->busy = false;
	if (p->want)
		return;
	/* what was written before it knew; from now on they exit */
	posted_drain(p);
	p->looking = false;
	p->in_window = 0;
	p->threshold = p->saved >= WORTHWHILE ? OFTEN : p->threshold * 2;
	if (p->threshold > OFTEN_MOST)
		p->threshold = OFTEN_MOST;
}

/* ------------------------------------------------------------------ often or seldom */

/* Doorbells were rung, or there was a look: a window may be over. */
static void posted_weigh(struct posted *p)
{
	uint64_t rung = atomic_load_explicit(&p->rung, memory_order_relaxed), now;

	if (rung == p->seen && !p->looking)
		return;
	now = clock_now_ns();
	if (now - p->window_ns > WINDOW_NS) {
		if (p->looking && !p->busy && p->in_window < SELDOM)
			posted_tell(p, false);
		p->window_ns = now;
		p->in_window = 0;
	}
	p->in_window += rung - p->seen;
	p->seen = rung;
	if (p->looking || p->in_window < p->threshold)
		return;
	p->looking = true;
	p->last_ns = now;
	p->saved = 0;
	posted_tell(p, true);
}

static unsigned posted_poll(struct io_poller *poller)
{
	struct posted *p = posted_of(poller);
	unsigned n = 0;

	if (p->looking)
		n = posted_drain(p);
	/* the clock is not read in every round */
	if (!p->looking || ++p->rounds % 64 == 0)
		posted_weigh(p);
	return n;
}

static bool posted_sleep(struct io_poller *poller)
{
	struct posted *p = posted_of(poller);
	uint64_t now;

	if (!p->looking)
		return false;
	now = clock_now_ns();
	posted_weigh(p);
	if (now - p->last_ns < LINGER_NS)
		return true;
	io_timer_set(p->io, &p->look, now + LOOK_NS);
	return posted_drain(p) != 0;
}

/* The poll of this round looks. */
static void posted_look(struct io_timer *timer)
{
	(void)timer;
}

/* ------------------------------------------------------------------ life */

void posted_region_add(struct posted *p, struct bus_region *region, const struct bus_span *seldom,
	const struct bus_span *often)
{
	region->posted = seldom;
	p->regions[p->nregions++] = (struct posted_region){region, seldom, often};
}

static void posted_start_io(void *ctx)
{
	struct posted *p = ctx;

	io_poller_add(p->io, &p->poller);
}

static void posted_stop_io(void *ctx)
{
	struct posted *p = ctx;

	io_poller_remove(p->io, &p->poller);
	io_timer_set(p->io, &p->look, 0);
}

int posted_start(struct posted *p, struct machine *m, struct io_thread *io)
{
	const struct machine_config *cfg = &m->cfg;
	int rc;

	if (p->io || !machine_has_kvm(m) || cfg->no_coalesce || (cfg->poll_set && !cfg->poll_us))
		return 0;
	rc = posted_teller_start(m);
	if (rc)
		return rc;
	p->machine = m;
	p->io = io;
	p->threshold = OFTEN;
	p->poller = (struct io_poller){.poll = posted_poll, .sleep = posted_sleep};
	p->told.run = posted_told;
	p->look.expired = posted_look;
	io_thread_call(io, posted_start_io, p);
	return 0;
}

static void posted_nothing(void *ctx)
{
	(void)ctx;
}

void posted_stop(struct posted *p)
{
	struct posted_teller *t;

	if (!p->io)
		return;
	t = &p->machine->posted_teller;
	io_thread_call(p->io, posted_stop_io, p);
	pthread_mutex_lock(&t->lock);
	while (p->telling)
		pthread_cond_wait(&t->changed, &t->lock);
	pthread_mutex_unlock(&t->lock);
	/* posted_told() runs before this does */
	io_thread_call(p->io, posted_nothing, NULL);
	p->io = NULL;
}
