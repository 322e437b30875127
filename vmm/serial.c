/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The first serial port: a 16550A (National Semiconductor PC16550D data sheet, sections 8.1-8.10)
 * at 0x3F8, interrupt 4. Characters leave at once, so the transmitter is always empty; what the
 * console cannot take now waits in a bounded buffer, and is dropped when that is full, because a
 * reader that has gone must not stop the guest.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define SERIAL_PORT     0x3f8u
#define SERIAL_IRQ      4u
#define SERIAL_FIFO     16u
#define SERIAL_INPUT    1024u
#define SERIAL_BACKLOG  16384u
#define SERIAL_CHUNK    256u
#define SERIAL_RETRY_NS 5000000ull
#define SERIAL_FLUSH_MS 200

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
	/* output the console could not take yet */
	uint8_t *backlog;
	unsigned backlog_head, backlog_len;
	bool out_regular; /* a file: never makes us wait */
	bool retry_armed;
	struct io_thread *io;
	struct io_work retry_work;
	struct io_timer retry_timer;
};

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

/* ------------------------------------------------------------------ output */

/* How many bytes the console took without making us wait. */
static size_t serial_console_write(struct serial *s, const uint8_t *bytes, size_t n)
{
	struct pollfd p = {.fd = s->device.machine->cfg.console_out, .events = POLLOUT};
	size_t done = 0;
	ssize_t rc;

	while (done < n) {
		if (!s->out_regular) {
			machine_system_call_count();
			counter_add(&s->device.counters.system_calls, 1);
			if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLOUT | POLLERR | POLLHUP)))
				break;
		}
		machine_system_call_count();
		counter_add(&s->device.counters.system_calls, 1);
		rc = write(p.fd, bytes + done, MIN(n - done, SERIAL_CHUNK));
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0 && errno == EAGAIN)
			break;
		if (rc <= 0)
			return n; /* nobody will ever read it */
		done += rc;
	}
	return done;
}

static void serial_backlog_flush(struct serial *s)
{
	while (s->backlog_len) {
		size_t n = MIN(s->backlog_len, SERIAL_BACKLOG - s->backlog_head);
		size_t took = serial_console_write(s, s->backlog + s->backlog_head, n);

		s->backlog_head = (s->backlog_head + took) % SERIAL_BACKLOG;
		s->backlog_len -= took;
		if (took < n)
			return;
	}
}

static void serial_retry_expired(struct io_timer *t)
{
	struct serial *s = (struct serial *)((char *)t - offsetof(struct serial, retry_timer));
	bool again;

	pthread_mutex_lock(&s->device.lock);
	serial_backlog_flush(s);
	again = s->backlog_len && s->retry_armed;
	s->retry_armed = again;
	pthread_mutex_unlock(&s->device.lock);
	if (again)
		io_timer_set(s->io, t, clock_now_ns() + SERIAL_RETRY_NS);
}

static void serial_retry_start(struct io_work *w)
{
	struct serial *s = (struct serial *)((char *)w - offsetof(struct serial, retry_work));

	io_timer_set(s->io, &s->retry_timer, clock_now_ns() + SERIAL_RETRY_NS);
}

static void serial_backlog_add(struct serial *s, const uint8_t *bytes, size_t n)
{
	if (!s->backlog)
		s->backlog = malloc(SERIAL_BACKLOG);
	for (size_t i = 0; i < n; i++) {
		if (!s->backlog || s->backlog_len == SERIAL_BACKLOG) {
			counter_add(&s->device.counters.dropped, n - i);
			break;
		}
		s->backlog[(s->backlog_head + s->backlog_len++) % SERIAL_BACKLOG] = bytes[i];
	}
	if (s->backlog_len && s->io && !s->retry_armed) {
		s->retry_armed = true;
		io_thread_post(s->io, &s->retry_work);
	}
}

static void serial_output(struct serial *s, const uint8_t *bytes, size_t n)
{
	const struct machine_config *cfg = &s->device.machine->cfg;
	size_t took = 0;

	counter_add(&s->device.counters.bytes, n);
	if (cfg->console_hook) {
		cfg->console_hook(cfg->console_ctx, bytes, n);
		return;
	}
	if (cfg->console_out < 0)
		return;
	serial_backlog_flush(s);
	if (!s->backlog_len)
		took = serial_console_write(s, bytes, n);
	if (took < n)
		serial_backlog_add(s, bytes + took, n - took);
}

/* ------------------------------------------------------------------ registers */

static void serial_input_put(struct serial *s, uint8_t byte)
{
	s->input[(s->input_head + s->input_len++) % SERIAL_INPUT] = byte;
}

static void serial_transmit(struct serial *s, const uint8_t *bytes, size_t n)
{
	counter_add(&s->device.counters.requests, n);
	if (s->mcr & MCR_LOOP) {
		for (size_t i = 0; i < n; i++) {
			if (serial_rx_level(s) < (s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1u))
				serial_input_put(s, bytes[i]);
			else
				s->lsr_errors |= LSR_OVERRUN;
		}
	} else {
		serial_output(s, bytes, n);
	}
	s->tx_pending = true;
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

	/* 8.5: changing the enable bit empties both FIFOs */
	if ((value & FCR_CLEAR_RX) || ((value ^ s->fcr) & FCR_ENABLE)) {
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
		if ((s->mcr & MCR_LOOP) && (value & LCR_BREAK) && !(s->lcr & LCR_BREAK))
			s->lsr_errors |= LSR_BREAK;
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

static uint64_t serial_read(void *opaque, uint64_t offset, unsigned size)
{
	struct serial *s = opaque;
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)serial_register_read(s, offset + i) << (8 * i);
	serial_irq_update(s);
	return value;
}

static void serial_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct serial *s = opaque;

	for (unsigned i = 0; i < size; i++)
		serial_register_write(s, offset + i, value >> (8 * i));
	serial_irq_update(s);
}

/* `rep outsb` to the data register is one write to the console. */
static void serial_write_string(
	void *opaque, uint64_t offset, const void *buf, unsigned size, unsigned count)
{
	struct serial *s = opaque;
	const uint8_t *bytes = buf;

	if (offset == R_DATA && size == 1 && !(s->lcr & LCR_DLAB)) {
		serial_transmit(s, bytes, count);
		serial_irq_update(s);
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
	size_t taken = 0;

	pthread_mutex_lock(&s->device.lock);
	while (taken < n && s->input_len < SERIAL_INPUT && !(s->mcr & MCR_LOOP))
		serial_input_put(s, bytes[taken++]);
	serial_irq_update(s);
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

static void serial_retry_cancel(void *ctx)
{
	struct serial *s = ctx;

	io_timer_set(s->io, &s->retry_timer, 0);
}

/* Gives the console a moment to take the rest. */
static void serial_quiesce(struct device *d)
{
	struct serial *s = serial_of(d);
	struct pollfd p = {.fd = d->machine->cfg.console_out, .events = POLLOUT};
	uint64_t give_up = clock_now_ns() + SERIAL_FLUSH_MS * 1000000ull;

	pthread_mutex_lock(&d->lock);
	serial_backlog_flush(s);
	while (s->backlog_len && clock_now_ns() < give_up) {
		poll(&p, 1, SERIAL_FLUSH_MS / 10);
		serial_backlog_flush(s);
	}
	s->retry_armed = false;
	pthread_mutex_unlock(&d->lock);
	if (s->io)
		io_thread_call(s->io, serial_retry_cancel, s);
}

static void serial_save(struct device *d, struct state_writer *w)
{
	struct serial *s = serial_of(d);
	const uint8_t regs[] = {
		s->ier, s->fcr, s->lcr, s->mcr, s->lsr_errors, s->msr, s->scr, s->dll, s->dlm};

	state_section_begin(w, d->name, 1);
	state_put_bytes(w, regs, sizeof(regs));
	state_put_u8(w, s->tx_pending);
	state_put_u32(w, s->input_len);
	for (unsigned i = 0; i < s->input_len; i++)
		state_put_u8(w, s->input[(s->input_head + i) % SERIAL_INPUT]);
	state_section_end(w);
}

static void serial_load(struct device *d, struct state_reader *r)
{
	struct serial *s = serial_of(d);
	uint8_t regs[9] = {0};
	uint32_t len;

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
}

static void serial_destroy(struct device *d)
{
	struct serial *s = serial_of(d);

	bus_unmap(d->machine, &s->region);
	free(s->backlog);
	free(s);
}

static const struct device_ops serial_ops = {
	.reset = serial_reset,
	.quiesce = serial_quiesce,
	.save = serial_save,
	.load = serial_load,
	.destroy = serial_destroy,
};

int serial_create(struct machine *m)
{
	struct serial *s = calloc(1, sizeof(*s));
	struct stat st;
	int rc;

	if (!s)
		return -ENOMEM;
	device_add(m, &s->device, &serial_ops, "serial0");
	irq_source_init(&s->irq, m, SERIAL_IRQ);
	m->serial = s;
	s->io = m->nio ? m->io[0] : NULL;
	s->retry_work.run = serial_retry_start;
	s->retry_timer.expired = serial_retry_expired;
	s->out_regular =
		m->cfg.console_out >= 0 && !fstat(m->cfg.console_out, &st) && S_ISREG(st.st_mode);
	s->region = (struct bus_region){
		.base = SERIAL_PORT,
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
