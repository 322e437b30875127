/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The serial ports COM1 to COM4: 16550As (National Semiconductor PC16550D data sheet, sections
 * 8.1-8.10). Characters leave at once, so the transmitter is always empty; where they go, and from
 * where others come, is line.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#include "vmm/line_priv.h"
#include "vmm/machine_priv.h"

#define SERIAL_FIFO  16u
#define SERIAL_INPUT 1024u

enum { R_DATA, R_IER, R_IIR, R_LCR, R_MCR, R_LSR, R_MSR, R_SCR };

#define IER_RX       0x01u
#define IER_TX       0x02u
#define IER_LINE     0x04u
#define IER_MODEM    0x08u
#define IIR_NONE     0x01u
#define IIR_MODEM    0x00u
#define IIR_TX       0x02u
#define IIR_RX       0x04u
#define IIR_LINE     0x06u
#define IIR_TIMEOUT  0x0cu
#define IIR_FIFO     0xc0u
#define FCR_ENABLE   0x01u
#define FCR_CLEAR_RX 0x02u
#define LCR_BREAK    0x40u
#define LCR_DLAB     0x80u
#define MCR_DTR      0x01u
#define MCR_RTS      0x02u
#define MCR_OUT1     0x04u
#define MCR_OUT2     0x08u
#define MCR_LOOP     0x10u
#define LSR_DATA     0x01u
#define LSR_OVERRUN  0x02u
#define LSR_BREAK    0x10u
#define LSR_FIFO     0x80u /* a character in it has an error */
#define LSR_EMPTY    0x60u /* holding register and shift register */
#define LSR_ERRORS   0x1eu
#define MSR_DELTAS   0x0fu
#define MSR_RI_TRAIL 0x04u
#define MSR_CTS      0x10u
#define MSR_DSR      0x20u
#define MSR_RI       0x40u
#define MSR_DCD      0x80u

struct serial {
	struct device device;
	struct bus_region region;
	struct irq_source irq;
	uint8_t ier, fcr, lcr, mcr, lsr_errors, msr, scr, dll, dlm;
	bool tx_pending; /* the "holding register empty" interrupt waits to be seen */
	/* what was typed, oldest first; the guest's FIFO is its first 16 bytes (1 without FIFO) */
	uint8_t input[SERIAL_INPUT];
	unsigned input_head, input_len;
	struct line line;
};

/* Where a PC has them (IBM AT Technical Reference for the first two; the others by custom). Those
 * that share an interrupt share its line: it is high while either port asks for it. */
static const struct {
	uint16_t port;
	uint8_t irq;
} serial_places[VMM_SERIALS_MAX] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

static struct serial *serial_of(struct device *d)
{
	return (struct serial *)d;
}

/* ------------------------------------------------------------------ interrupts */

static unsigned serial_rx_level(const struct serial *s)
{
	return MIN(s->input_len, s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1u);
}

static uint8_t serial_interrupt_id(const struct serial *s)
{
	static const uint8_t trigger[4] = {1, 4, 8, 14};

	/* 8.6: in order of priority */
	if ((s->ier & IER_LINE) && s->lsr_errors)
		return IIR_LINE;
	if ((s->ier & IER_RX) && s->input_len) {
		/* below the trigger level the line counts as idle: no baud clock runs here */
		if (!(s->fcr & FCR_ENABLE) || serial_rx_level(s) >= trigger[s->fcr >> 6])
			return IIR_RX;
		return IIR_TIMEOUT;
	}
	if ((s->ier & IER_TX) && s->tx_pending)
		return IIR_TX;
	if ((s->ier & IER_MODEM) && (s->msr & MSR_DELTAS))
		return IIR_MODEM;
	return IIR_NONE;
}

static void serial_irq_update(struct serial *s)
{
	/* on a PC, OUT2 connects the interrupt to the bus; loopback cuts it off */
	bool connected = (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
	bool level = connected && serial_interrupt_id(s) != IIR_NONE;

	if (level && !s->irq.level)
		counter_add(&s->device.counters.interrupts, 1);
	irq_source_set(&s->irq, level);
}

static void serial_modem_update(struct serial *s)
{
	uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD, old = s->msr & ~MSR_DELTAS, delta;

	if (s->mcr & MCR_LOOP)
		lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
			(s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
	delta = (lines ^ old) >> 4;
	if (lines & MSR_RI)
		delta &= ~MSR_RI_TRAIL; /* ring counts at its trailing edge */
	s->msr = lines | (s->msr & MSR_DELTAS) | delta;
}

/* ------------------------------------------------------------------ registers */

static void serial_input_put(struct serial *s, uint8_t byte)
{
	s->input[(s->input_head + s->input_len++) % SERIAL_INPUT] = byte;
}

/* 8.6.7: what is sent comes back. */
static void serial_loop(struct serial *s, uint8_t byte)
{
	if (serial_rx_level(s) < (s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1u))
		serial_input_put(s, byte);
	else
		s->lsr_errors |= LSR_OVERRUN;
}

static void serial_transmit(struct serial *s, const uint8_t *bytes, size_t n)
{
	counter_add(&s->device.counters.requests, n);
	if (s->mcr & MCR_LOOP) {
		for (size_t i = 0; i < n; i++)
			serial_loop(s, bytes[i]);
	} else {
		line_write(&s->line, bytes, n);
	}
	s->tx_pending = true;
}

/* What may be typed now: in loopback the receiver is cut off. */
static size_t serial_room(struct line *l)
{
	struct serial *s = (struct serial *)((char *)l - offsetof(struct serial, line));

	return s->mcr & MCR_LOOP ? 0 : SERIAL_INPUT - s->input_len;
}

static void serial_line_input(struct line *l, const uint8_t *bytes, size_t n)
{
	struct serial *s = (struct serial *)((char *)l - offsetof(struct serial, line));

	for (size_t i = 0; i < n; i++)
		serial_input_put(s, bytes[i]);
	serial_irq_update(s);
}

static uint8_t serial_receive(struct serial *s)
{
	uint8_t byte;

	if (!s->input_len)
		return 0;
	byte = s->input[s->input_head];
	s->input_head = (s->input_head + 1) % SERIAL_INPUT;
	s->input_len--;
	return byte;
}

static void serial_fcr_write(struct serial *s, uint8_t value)
{
	unsigned level;

	/* 8.5: changing the enable bit empties both FIFOs; without it the other bits are not
	 * programmed */
	if (((value & FCR_ENABLE) && (value & FCR_CLEAR_RX)) || ((value ^ s->fcr) & FCR_ENABLE)) {
		level = s->input_len ? serial_rx_level(s) : 0;
		s->input_head = (s->input_head + level) % SERIAL_INPUT;
		s->input_len -= level;
	}
	s->fcr = value & (value & FCR_ENABLE ? 0xc1 : 0);
}

static uint8_t serial_register_read(struct serial *s, unsigned reg)
{
	uint8_t value;

	switch (reg) {
	case R_DATA:
		return s->lcr & LCR_DLAB ? s->dll : serial_receive(s);
	case R_IER:
		return s->lcr & LCR_DLAB ? s->dlm : s->ier;
	case R_IIR:
		value = serial_interrupt_id(s);
		if (value == IIR_TX)
			s->tx_pending = false;
		return value | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
	case R_LCR:
		return s->lcr;
	case R_MCR:
		return s->mcr;
	case R_LSR:
		value = LSR_EMPTY | s->lsr_errors | (s->input_len ? LSR_DATA : 0);
		if ((s->fcr & FCR_ENABLE) && (s->lsr_errors & LSR_BREAK))
			value |= LSR_FIFO;
		s->lsr_errors = 0;
		return value;
	case R_MSR:
		value = s->msr;
		s->msr &= ~MSR_DELTAS;
		return value;
	default:
		return s->scr;
	}
}

static void serial_register_write(struct serial *s, unsigned reg, uint8_t value)
{
	switch (reg) {
	case R_DATA:
		if (s->lcr & LCR_DLAB)
			s->dll = value;
		else
			serial_transmit(s, &value, 1);
		break;
	case R_IER:
		if (s->lcr & LCR_DLAB) {
			s->dlm = value;
			break;
		}
		/* turned on with an empty transmitter, it interrupts at once */
		if ((value & IER_TX) && !(s->ier & IER_TX))
			s->tx_pending = true;
		s->ier = value & 0x0f;
		break;
	case R_IIR:
		serial_fcr_write(s, value);
		break;
	case R_LCR:
		/* a break is received as one zero character */
		if ((s->mcr & MCR_LOOP) && (value & LCR_BREAK) && !(s->lcr & LCR_BREAK)) {
			s->lsr_errors |= LSR_BREAK;
			serial_loop(s, 0);
		}
		s->lcr = value;
		break;
	case R_MCR:
		s->mcr = value & 0x1f;
		serial_modem_update(s);
		break;
	case R_SCR:
		s->scr = value;
		break;
	default: /* line and modem status are read-only */
		break;
	}
}

/* After every access. */
static void serial_update(struct serial *s)
{
	serial_irq_update(s);
	/* not for every byte: each time is a wake-up of the I/O thread */
	if (s->line.stalled && serial_room(&s->line) >= SERIAL_INPUT / 2)
		line_input_resume(&s->line);
}

static uint64_t serial_read(void *opaque, uint64_t offset, unsigned size)
{
	struct serial *s = opaque;
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)serial_register_read(s, offset + i) << (8 * i);
	serial_update(s);
	return value;
}

static void serial_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct serial *s = opaque;

	for (unsigned i = 0; i < size; i++)
		serial_register_write(s, offset + i, value >> (8 * i));
	serial_update(s);
}

/* `rep outsb` to the data register is one write to the console. */
static void serial_write_string(
	void *opaque, uint64_t offset, const void *buf, unsigned size, unsigned count)
{
	struct serial *s = opaque;
	const uint8_t *bytes = buf;

	if (offset == R_DATA && size == 1 && !(s->lcr & LCR_DLAB)) {
		serial_transmit(s, bytes, count);
		serial_update(s);
		return;
	}
	for (unsigned i = 0; i < count; i++, bytes += size) {
		uint64_t value = 0;

		memcpy(&value, bytes, size);
		serial_write(s, offset, value, size);
	}
}

size_t serial_input(struct serial *s, const uint8_t *bytes, size_t n)
{
	size_t taken;

	pthread_mutex_lock(&s->device.lock);
	taken = MIN(n, serial_room(&s->line));
	serial_line_input(&s->line, bytes, taken);
	pthread_mutex_unlock(&s->device.lock);
	return taken;
}

/* ------------------------------------------------------------------ life */

static void serial_reset(struct device *d)
{
	struct serial *s = serial_of(d);

	pthread_mutex_lock(&d->lock);
	s->ier = s->fcr = s->lcr = s->mcr = s->lsr_errors = s->scr = s->dlm = 0;
	s->dll = 12; /* 9600 baud, as firmware would leave it */
	s->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	s->tx_pending = false;
	s->input_head = s->input_len = 0;
	serial_irq_update(s);
	pthread_mutex_unlock(&d->lock);
}

static void serial_quiesce(struct device *d)
{
	line_quiesce(&serial_of(d)->line);
}

static void serial_resume(struct device *d)
{
	line_resume(&serial_of(d)->line);
}

static void serial_save(struct device *d, struct state_writer *w)
{
	struct serial *s = serial_of(d);

	pthread_mutex_lock(&d->lock);
	const uint8_t regs[] = {
		s->ier, s->fcr, s->lcr, s->mcr, s->lsr_errors, s->msr, s->scr, s->dll, s->dlm};

	state_section_begin(w, d->name, 1);
	state_put_bytes(w, regs, sizeof(regs));
	state_put_u8(w, s->tx_pending);
	state_put_u32(w, s->input_len);
	for (unsigned i = 0; i < s->input_len; i++)
		state_put_u8(w, s->input[(s->input_head + i) % SERIAL_INPUT]);
	state_section_end(w);
	pthread_mutex_unlock(&d->lock);
}

static void serial_load(struct device *d, struct state_reader *r)
{
	struct serial *s = serial_of(d);
	uint8_t regs[9] = {0};
	uint32_t len;

	pthread_mutex_lock(&d->lock);
	state_section_enter(r, d->name, 1);
	state_get_bytes(r, regs, sizeof(regs));
	s->ier = regs[0] & 0x0f;
	s->fcr = regs[1] & (regs[1] & FCR_ENABLE ? 0xc1 : 0);
	s->lcr = regs[2];
	s->mcr = regs[3] & 0x1f;
	s->lsr_errors = regs[4] & LSR_ERRORS;
	s->msr = regs[5];
	s->scr = regs[6];
	s->dll = regs[7];
	s->dlm = regs[8];
	s->tx_pending = state_get_u8(r) & 1;
	len = state_get_u32(r);
	if (len > SERIAL_INPUT && !r->error)
		r->error = -EINVAL;
	s->input_head = s->input_len = 0;
	for (uint32_t i = 0; i < len && !r->error; i++)
		serial_input_put(s, state_get_u8(r));
	state_section_leave(r);
	serial_irq_update(s);
	pthread_mutex_unlock(&d->lock);
}

static void serial_destroy(struct device *d)
{
	struct serial *s = serial_of(d);

	bus_unmap(d->machine, &s->region);
	line_close(&s->line);
	free(s);
}

static const struct device_ops serial_ops = {
	.reset = serial_reset,
	.quiesce = serial_quiesce,
	.resume = serial_resume,
	.save = serial_save,
	.load = serial_load,
	.destroy = serial_destroy,
};

static int serial_port_create(struct machine *m, unsigned i)
{
	struct serial *s = calloc(1, sizeof(*s));
	char name[16];
	int rc;

	if (!s)
		return -ENOMEM;
	snprintf(name, sizeof(name), "serial%u", i);
	device_add(m, &s->device, &serial_ops, name);
	irq_source_init(&s->irq, m, serial_places[i].irq);
	m->serials[i] = s;
	s->line.room = serial_room;
	s->line.input = serial_line_input;
	if (!i) {
		s->line.hook = m->cfg.console_hook;
		s->line.hook_ctx = m->cfg.console_ctx;
	}
	line_open(&s->line, &s->device, m->nio ? m->io[0] : NULL, &m->cfg.serials[i].line);
	s->region = (struct bus_region){
		.base = serial_places[i].port,
		.size = 8,
		.kind = BUS_PIO,
		.read = serial_read,
		.write = serial_write,
		.write_string = serial_write_string,
		.opaque = s,
		.lock = &s->device.lock,
		.counters = &s->device.counters,
	};
	rc = bus_map(m, &s->region);
	serial_reset(&s->device);
	return rc;
}

int serial_create(struct machine *m)
{
	int rc = serial_port_create(m, 0);

	for (unsigned i = 1; i < VMM_SERIALS_MAX && !rc; i++)
		if (m->cfg.serials[i].on)
			rc = serial_port_create(m, i);
	return rc;
}
