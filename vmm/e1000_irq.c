/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 82540EM: its interrupt line, and how often it rises (Intel 8254x software developer's manual,
 * 13.4.17, ITR): not before ITR times 256 ns have passed since it last did. What happens meanwhile
 * waits in ICR, and the guest finds it there with the next interrupt, or when it reads.
 */
#include <stddef.h>

#include "vmm/e1000_priv.h"
#include "vmm/machine_priv.h"

#define ITR_UNIT_NS 256u
#define ITR_MASK    0xffffu

static uint64_t interval_ns(const struct e1000 *e)
{
	if (e->dev.machine->cfg.no_moderation)
		return 0;
	return (uint64_t)(e1000_reg(e, REG_ITR) & ITR_MASK) * ITR_UNIT_NS;
}

/* Too soon after the last: a timer will look again. */
static bool held_back(struct e1000 *e)
{
	uint64_t interval = interval_ns(e), now;

	if (!interval)
		return false;
	now = clock_now_ns();
	if (now - e->rose_ns >= interval) {
		e->rose_ns = now;
		return false;
	}
	atomic_store(&e->rise_at_ns, e->rose_ns + interval);
	io_thread_post(e->io, &e->rise_work);
	return true;
}

void e1000_irq_update(struct e1000 *e)
{
	bool level = (e1000_reg(e, REG_ICR) & e1000_reg(e, REG_IMS)) != 0;

	if (level && !e->level && held_back(e))
		return;
	e->level = level;
	pci_intx_set(&e->pci, level);
}

void e1000_interrupt(struct e1000 *e, uint32_t causes)
{
	e->regs[REG_ICR / 4] |= causes;
	e1000_irq_update(e);
}

/* ----------------------------------------------------------------- the timer, on the I/O thread */

static void rise_arm(struct io_work *w)
{
	struct e1000 *e = (struct e1000 *)((char *)w - offsetof(struct e1000, rise_work));

	io_timer_set(e->io, &e->rise_timer, atomic_load(&e->rise_at_ns));
}

static void rise_expired(struct io_timer *t)
{
	struct e1000 *e = (struct e1000 *)((char *)t - offsetof(struct e1000, rise_timer));

	pthread_mutex_lock(&e->dev.lock);
	e1000_irq_update(e);
	pthread_mutex_unlock(&e->dev.lock);
}

static void rise_cancel(void *ctx)
{
	struct e1000 *e = ctx;

	io_timer_set(e->io, &e->rise_timer, 0);
}

void e1000_irq_init(struct e1000 *e, struct io_thread *io)
{
	e->io = io;
	e->rise_work.run = rise_arm;
	e->rise_timer.expired = rise_expired;
}

void e1000_irq_fini(struct e1000 *e)
{
	io_thread_call(e->io, rise_cancel, e);
}
