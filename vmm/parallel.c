/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parallel port LPT1 with a printer that is never out of paper: a standard port as in the IBM
 * PC (IBM PC Technical Reference, "Parallel printer adapter"; IEEE 1284-1994, compatibility mode,
 * clause 7.1, and annex on the registers), at 378h, interrupt 7. What is strobed goes to line.c;
 * the printer is busy while the line has more than it can keep, and takes nothing then.
 *
 * Time does not pass between the strobe and the printer's answer. Who asks for interrupts gets one
 * and finds the printer ready; who polls instead sees busy and acknowledge in the first look at the
 * status after the strobe, for there are programs (a BIOS is one) that wait for that pulse.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmm/line_priv.h"
#include "vmm/machine_priv.h"

#define PARALLEL_PORT  0x378u
#define PARALLEL_PORTS 3u
#define PARALLEL_IRQ   7u

enum { R_DATA, R_STATUS, R_CONTROL };

/* The pins' levels, but BUSY, which the port shows inverted. */
#define STATUS_UNUSED   0x03u
#define STATUS_NO_IRQ   0x04u /* of the IBM PS/2: 0 since an acknowledge, until it is read */
#define STATUS_NO_FAULT 0x08u
#define STATUS_SELECTED 0x10u
#define STATUS_NO_ACK   0x40u
#define STATUS_NO_BUSY  0x80u

/* Strobe, auto-feed and select are the pins' levels inverted. */
#define CONTROL_STROBE    0x01u
#define CONTROL_NO_INIT   0x04u /* the pin's level: low resets the printer */
#define CONTROL_IRQ       0x10u
#define CONTROL_DIRECTION 0x20u /* of the PS/2: data are read */
#define CONTROL_KEPT      0x3fu
#define CONTROL_UNUSED    0xc0u

struct parallel {
	struct device device;
	struct bus_region region;
	struct irq_source irq;
	uint8_t data, control;
	bool pulse;   /* the next look at the status sees busy and acknowledge */
	bool waiting; /* the printer has taken a byte and is busy until the line has room */
	struct line line;
};

static struct parallel *parallel_of(struct device *d)
{
	return (struct parallel *)d;
}

static void parallel_irq_set(struct parallel *p, bool level)
{
	if (level)
		counter_add(&p->device.counters.interrupts, 1);
	irq_source_set(&p->irq, level);
}

/* The printer has the byte and is ready for another. */
static void parallel_acknowledge(struct parallel *p)
{
	p->waiting = false;
	p->pulse = !(p->control & CONTROL_IRQ);
	if (p->pulse)
		return;
	/* an edge for each, also for who does not look at the status in between */
	parallel_irq_set(p, false);
	parallel_irq_set(p, true);
}

static void parallel_drained(struct line *l)
{
	struct parallel *p = (struct parallel *)((char *)l - offsetof(struct parallel, line));

	if (p->waiting)
		parallel_acknowledge(p);
}

/* The strobe's end. A printer that is busy does not look. */
static void parallel_strobe(struct parallel *p)
{
	if (p->waiting)
		return;
	counter_add(&p->device.counters.requests, 1);
	line_write(&p->line, &p->data, 1);
	if (line_is_full(&p->line))
		p->waiting = true;
	else
		parallel_acknowledge(p);
}

static uint8_t parallel_status_read(struct parallel *p)
{
	uint8_t value = STATUS_UNUSED | STATUS_NO_FAULT | STATUS_SELECTED;

	if (!p->irq.level)
		value |= STATUS_NO_IRQ;
	if (p->waiting)
		value |= STATUS_NO_ACK;
	else if (!p->pulse)
		value |= STATUS_NO_ACK | STATUS_NO_BUSY;
	p->pulse = false;
	parallel_irq_set(p, false);
	return value;
}

static void parallel_control_write(struct parallel *p, uint8_t value)
{
	uint8_t old = p->control;

	p->control = value & CONTROL_KEPT;
	if (!(p->control & CONTROL_IRQ))
		parallel_irq_set(p, false);
	if (!(p->control & CONTROL_NO_INIT))
		p->pulse = false; /* in reset */
	else if ((old & CONTROL_STROBE) && !(p->control & CONTROL_STROBE))
		parallel_strobe(p);
}

static uint8_t parallel_register_read(struct parallel *p, uint64_t reg)
{
	switch (reg) {
	case R_DATA:
		/* nobody drives the lines when this side does not */
		return p->control & CONTROL_DIRECTION ? 0xff : p->data;
	case R_STATUS:
		return parallel_status_read(p);
	default:
		return p->control | CONTROL_UNUSED;
	}
}

static void parallel_register_write(struct parallel *p, uint64_t reg, uint8_t value)
{
	if (reg == R_DATA)
		p->data = value;
	else if (reg == R_CONTROL)
		parallel_control_write(p, value);
}

static uint64_t parallel_read(void *opaque, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)parallel_register_read(opaque, offset + i) << (8 * i);
	return value;
}

static void parallel_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		parallel_register_write(opaque, offset + i, (uint8_t)(value >> (8 * i)));
}

/* ------------------------------------------------------------------ life */

static void parallel_reset(struct device *d)
{
	struct parallel *p = parallel_of(d);

	pthread_mutex_lock(&d->lock);
	p->data = p->control = 0;
	p->pulse = p->waiting = false;
	parallel_irq_set(p, false);
	pthread_mutex_unlock(&d->lock);
}

static void parallel_quiesce(struct device *d)
{
	line_quiesce(&parallel_of(d)->line);
}

static void parallel_resume(struct device *d)
{
	line_resume(&parallel_of(d)->line);
}

static void parallel_save(struct device *d, struct state_writer *w)
{
	struct parallel *p = parallel_of(d);

	state_section_begin(w, d->name, 1);
	pthread_mutex_lock(&d->lock);
	state_put_u8(w, p->data);
	state_put_u8(w, p->control);
	state_put_u8(w, p->pulse);
	state_put_u8(w, p->waiting);
	state_put_u8(w, p->irq.level);
	pthread_mutex_unlock(&d->lock);
	state_section_end(w);
}

static void parallel_load(struct device *d, struct state_reader *r)
{
	struct parallel *p = parallel_of(d);
	bool waiting, level;

	pthread_mutex_lock(&d->lock);
	state_section_enter(r, d->name, 1);
	p->data = state_get_u8(r);
	p->control = state_get_u8(r) & CONTROL_KEPT;
	p->pulse = state_get_u8(r) & 1;
	waiting = state_get_u8(r) & 1;
	level = state_get_u8(r) & 1;
	state_section_leave(r);
	p->waiting = false;
	irq_source_set(&p->irq, level && (p->control & CONTROL_IRQ));
	/* the line here has room */
	if (waiting)
		parallel_acknowledge(p);
	pthread_mutex_unlock(&d->lock);
}

static void parallel_destroy(struct device *d)
{
	struct parallel *p = parallel_of(d);

	bus_unmap(d->machine, &p->region);
	line_close(&p->line);
	free(p);
}

static const struct device_ops parallel_ops = {
	.reset = parallel_reset,
	.quiesce = parallel_quiesce,
	.resume = parallel_resume,
	.save = parallel_save,
	.load = parallel_load,
	.destroy = parallel_destroy,
};

int parallel_create(struct machine *m)
{
	struct parallel *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	device_add(m, &p->device, &parallel_ops, "parallel0");
	irq_source_init(&p->irq, m, PARALLEL_IRQ);
	p->line.drained = parallel_drained;
	line_open(&p->line, &p->device, m->nio ? m->io[0] : NULL, &m->cfg.parallel.line);
	p->region = (struct bus_region){
		.base = PARALLEL_PORT,
		.size = PARALLEL_PORTS,
		.kind = BUS_PIO,
		.read = parallel_read,
		.write = parallel_write,
		.opaque = p,
		.lock = &p->device.lock,
		.counters = &p->device.counters,
	};
	return bus_map(m, &p->region);
}
