/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 82540EM: its interrupt line, and how often it rises (Intel 8254x software developer's manual,
 * 13.4.17, ITR): not before ITR times 256 ns have passed since it last did. What happens meanwhile
 * waits in ICR, and the guest finds it there with the next interrupt, or when it reads.
 *
 * Before that, frames may be waited for: a cause is set a while after the last frame, but not
 * longer than so much after the first (13.4.30, RDTR and RADV; 13.4.44, TIDV and TADV, for
 * descriptors that ask for a delay). The four are in units of 1.024 us.
 */
#include <stddef.h>

#include "vmm/e1000_priv.h"
#include "vmm/machine_priv.h"

#define ITR_UNIT_NS   256u
#define ITR_MASK      0xffffu
#define DELAY_UNIT_NS 1024u
#define DELAY_MASK    0xffffu

static bool moderated(const struct e1000 *e)
{
	return !e->dev.machine->cfg.no_moderation;
}

static uint64_t delay_ns(const struct e1000 *e, unsigned reg)
{
	return (uint64_t)(e1000_reg(e, reg) & DELAY_MASK) * DELAY_UNIT_NS;
}

/* The timer is to expire then, or before. */
static void wake_at(struct e1000 *e, uint64_t at)
{
	if (e->wake_ns && e->wake_ns <= at)
		return;
	e->wake_ns = at;
	io_thread_post(e->io, &e->wake_work);
}

/* Too soon after the last: a timer will look again. */
static bool held_back(struct e1000 *e)
{
	uint64_t interval = (uint64_t)(e1000_reg(e, REG_ITR) & ITR_MASK) * ITR_UNIT_NS, now;

	if (!interval || !moderated(e))
		return false;
	now = clock_now_ns();
	if (now - e->rose_ns >= interval) {
		e->rose_ns = now;
		return false;
	}
	wake_at(e, e->rose_ns + interval);
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
	/* said now, not again later */
	if (causes & ICR_TXDW)
		e->tx_delay.due_ns = 0;
	if (causes & ICR_RXT0)
		e->rx_delay.due_ns = 0;
	e->regs[REG_ICR / 4] |= causes;
	e1000_irq_update(e);
}

/* ------------------------------------------------------------------ delays */

static bool delayed(struct e1000 *e, struct e1000_delay *d, uint64_t wait, uint64_t most)
{
	uint64_t now;

	if (!wait || !moderated(e))
		return false;
	now = clock_now_ns();
	if (!d->due_ns)
		d->first_ns = now;
	d->due_ns = now + wait;
	if (most && d->due_ns > d->first_ns + most)
		d->due_ns = d->first_ns + most;
	wake_at(e, d->due_ns);
	return true;
}

void e1000_interrupt_sent(struct e1000 *e)
{
	if (!delayed(e, &e->tx_delay, delay_ns(e, REG_TIDV), delay_ns(e, REG_TADV)))
		e1000_interrupt(e, ICR_TXDW);
}

void e1000_interrupt_received(struct e1000 *e)
{
	if (!delayed(e, &e->rx_delay, delay_ns(e, REG_RDTR), delay_ns(e, REG_RADV)))
		e1000_interrupt(e, ICR_RXT0);
}

uint32_t e1000_interrupts_due(const struct e1000 *e)
{
	return (e->tx_delay.due_ns ? ICR_TXDW : 0) | (e->rx_delay.due_ns ? ICR_RXT0 : 0);
}

void e1000_interrupts_forget(struct e1000 *e)
{
	e->tx_delay.due_ns = e->rx_delay.due_ns = 0;
}

static uint32_t delay_over(struct e1000 *e, struct e1000_delay *d, uint64_t now, uint32_t cause)
{
	if (!d->due_ns)
		return 0;
	if (d->due_ns <= now)
		return cause;
	/* there were more frames */
	wake_at(e, d->due_ns);
	return 0;
}

/* ----------------------------------------------------------------- the timer, on the I/O thread */

static void wake_arm(struct io_work *w)
{
	struct e1000 *e = (struct e1000 *)((char *)w - offsetof(struct e1000, wake_work));

	pthread_mutex_lock(&e->dev.lock);
	io_timer_set(e->io, &e->wake_timer, e->wake_ns);
	pthread_mutex_unlock(&e->dev.lock);
}

static void wake_expired(struct io_timer *t)
{
	struct e1000 *e = (struct e1000 *)((char *)t - offsetof(struct e1000, wake_timer));
	uint64_t now = clock_now_ns();
	uint32_t causes;

	pthread_mutex_lock(&e->dev.lock);
	e->wake_ns = 0;
	causes = delay_over(e, &e->tx_delay, now, ICR_TXDW) |
		 delay_over(e, &e->rx_delay, now, ICR_RXT0);
	e1000_interrupt(e, causes);
	pthread_mutex_unlock(&e->dev.lock);
}

static void wake_cancel(void *ctx)
{
	struct e1000 *e = ctx;

	pthread_mutex_lock(&e->dev.lock);
	e->wake_ns = 0;
	io_timer_set(e->io, &e->wake_timer, 0);
	pthread_mutex_unlock(&e->dev.lock);
}

void e1000_irq_quiesce(struct e1000 *e)
{
	pthread_mutex_lock(&e->dev.lock);
	e->regs[REG_ICR / 4] |= e1000_interrupts_due(e);
	e1000_interrupts_forget(e);
	pthread_mutex_unlock(&e->dev.lock);
	/* work posted before has run then */
	io_thread_call(e->io, wake_cancel, e);
}

void e1000_irq_resume(struct e1000 *e)
{
	pthread_mutex_lock(&e->dev.lock);
	e1000_irq_update(e);
	pthread_mutex_unlock(&e->dev.lock);
}

void e1000_irq_init(struct e1000 *e, struct io_thread *io)
{
	e->io = io;
	e->wake_work.run = wake_arm;
	e->wake_timer.expired = wake_expired;
}

void e1000_irq_fini(struct e1000 *e)
{
	io_thread_call(e->io, wake_cancel, e);
}
