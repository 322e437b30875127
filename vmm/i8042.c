/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keyboard controller of a PS/2 (Intel 8042 at ports 0x60 and 0x64; IBM PS/2 Hardware Interface
 * Technical Reference, "Keyboard and Auxiliary Device Controller") with a keyboard and a mouse.
 * They answer every command, and speak when keys are pressed (i8042_key) or the mouse is moved.
 * Answers are there at once, so the input buffer is always empty.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#include "vmm/machine_priv.h"

#define KBD_DATA    0x60u
#define KBD_COMMAND 0x64u
#define KBD_IRQ     1u
#define AUX_IRQ     12u
#define KBD_QUEUE   16u
#define KBD_RAM     32u

#define STATUS_FULL     0x01u /* something to read */
#define STATUS_SYSTEM   0x04u
#define STATUS_COMMAND  0x08u /* the last write was to 0x64 */
#define STATUS_UNLOCKED 0x10u
#define STATUS_AUX      0x20u /* it is the mouse's */

#define CONFIG_KBD_IRQ   0x01u
#define CONFIG_AUX_IRQ   0x02u
#define CONFIG_SYSTEM    0x04u
#define CONFIG_KBD_OFF   0x10u
#define CONFIG_AUX_OFF   0x20u
#define CONFIG_TRANSLATE 0x40u

#define OUTPUT_RUN 0x01u /* clear: the CPU is held in reset */
#define OUTPUT_A20 0x02u

#define PS2_ACK      0xfau
#define PS2_RESEND   0xfeu
#define PS2_PASSED   0xaau
#define KBD_PASSED   0x55u
#define PS2_SET_MAX  3u
#define MOUSE_STREAM 0x20u
#define NOTHING      0u

/* Answers wait in a queue each; the controller's own go before them. */
struct ps2_queue {
	uint8_t bytes[KBD_QUEUE];
	uint8_t head, len;
};

struct i8042 {
	struct device device;
	struct bus_region data, command;
	struct irq_source kbd_irq, aux_irq;
	uint8_t last_command; /* 0x64's, waiting for its byte at 0x60; 0: none */
	uint8_t written_command;
	uint8_t output_port;
	uint8_t ram[KBD_RAM]; /* byte 0 is the configuration */
	struct ps2_queue own, kbd, aux;
	bool own_is_aux;
	uint8_t data_byte;
	uint8_t kbd_pending, aux_pending; /* a command that takes a byte */
	uint8_t kbd_set;                  /* scan code set */
	bool kbd_on, aux_on;
	uint8_t aux_rate, aux_resolution, aux_scaling;
};

/* ------------------------------------------------------------------ answers */

static void queue_put(struct ps2_queue *q, uint8_t byte)
{
	if (q->len < KBD_QUEUE)
		q->bytes[(q->head + q->len++) % KBD_QUEUE] = byte;
}

static uint8_t queue_take(struct ps2_queue *q)
{
	uint8_t byte = q->bytes[q->head];

	q->head = (q->head + 1) % KBD_QUEUE;
	q->len--;
	return byte;
}

/* Whose byte is next; NULL: there is none. A port that is off keeps its bytes. */
static struct ps2_queue *i8042_next(struct i8042 *k)
{
	if (k->own.len)
		return &k->own;
	if (k->kbd.len && !(k->ram[0] & CONFIG_KBD_OFF))
		return &k->kbd;
	if (k->aux.len && !(k->ram[0] & CONFIG_AUX_OFF))
		return &k->aux;
	return NULL;
}

static bool i8042_is_aux(const struct i8042 *k, const struct ps2_queue *q)
{
	return q == &k->aux || (q == &k->own && k->own_is_aux);
}

static void i8042_line(struct i8042 *k, struct irq_source *irq, bool level)
{
	if (level && !irq->level)
		counter_add(&k->device.counters.interrupts, 1);
	irq_source_set(irq, level);
}

static void i8042_update(struct i8042 *k)
{
	struct ps2_queue *q = i8042_next(k);
	bool aux = q && i8042_is_aux(k, q);

	i8042_line(k, &k->kbd_irq, q && !aux && (k->ram[0] & CONFIG_KBD_IRQ));
	i8042_line(k, &k->aux_irq, q && aux && (k->ram[0] & CONFIG_AUX_IRQ));
}

static void i8042_answer(struct i8042 *k, uint8_t byte, bool aux)
{
	k->own.len = 0;
	k->own_is_aux = aux;
	queue_put(&k->own, byte);
}

/* ------------------------------------------------------------------ the keyboard */

static void kbd_defaults(struct i8042 *k)
{
	k->kbd_set = 2;
	k->kbd_pending = NOTHING;
	k->kbd_on = true;
}

static void kbd_parameter(struct i8042 *k, uint8_t byte)
{
	uint8_t command = k->kbd_pending;

	k->kbd_pending = NOTHING;
	queue_put(&k->kbd, PS2_ACK);
	if (command != 0xf0)
		return; /* lights and repeat rates show nowhere */
	if (!byte)
		queue_put(&k->kbd, k->kbd_set);
	else if (byte <= PS2_SET_MAX)
		k->kbd_set = byte;
}

static void kbd_command(struct i8042 *k, uint8_t byte)
{
	switch (byte) {
	case 0xed: /* lights */
	case 0xf0: /* scan code set */
	case 0xf3: /* repeat rate */
		k->kbd_pending = byte;
		queue_put(&k->kbd, PS2_ACK);
		break;
	case 0xee: /* echo */
		queue_put(&k->kbd, 0xee);
		break;
	case 0xf2: /* identify: an MF2 keyboard, its second byte translated on the way */
		queue_put(&k->kbd, PS2_ACK);
		queue_put(&k->kbd, 0xab);
		queue_put(&k->kbd, k->ram[0] & CONFIG_TRANSLATE ? 0x41 : 0x83);
		break;
	case 0xf4:
	case 0xf5:
		if (byte == 0xf5)
			kbd_defaults(k);
		k->kbd_on = byte == 0xf4;
		queue_put(&k->kbd, PS2_ACK);
		break;
	case 0xf6:
		kbd_defaults(k);
		queue_put(&k->kbd, PS2_ACK);
		break;
	case 0xff:
		kbd_defaults(k);
		k->kbd.len = 0;
		queue_put(&k->kbd, PS2_ACK);
		queue_put(&k->kbd, PS2_PASSED);
		break;
	default:
		queue_put(&k->kbd, byte >= 0xf7 && byte <= 0xfa ? PS2_ACK : PS2_RESEND);
	}
}

static void kbd_write(struct i8042 *k, uint8_t byte)
{
	/* a command cannot be a parameter */
	if (k->kbd_pending && byte < 0x80)
		kbd_parameter(k, byte);
	else
		kbd_command(k, byte);
}

/* The set 2 code of each set 1 code (IBM PS/2 Hardware Interface Technical Reference, Keyboards).
 */
static const uint8_t set2_of[0x59] = {0, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46,
	0x45, 0x4e, 0x55, 0x66, 0x0d, 0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d,
	0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b, 0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52,
	0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a, 0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c,
	0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03, 0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e,
	0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69, 0x72, 0x7a, 0x70, 0x71, 0x84, 0, 0x61,
	0x78, 0x07};

int i8042_key(struct device *d, uint8_t code, bool extended, bool down)
{
	struct i8042 *k = (struct i8042 *)d;
	/* translated, and set 1 itself: bit 7 says that it was let go */
	bool set1 = k->ram[0] & CONFIG_TRANSLATE || k->kbd_set == 1;
	int rc = 0;

	if (!code || code >= sizeof(set2_of) || !set2_of[code])
		return -EINVAL;
	pthread_mutex_lock(&d->lock);
	if (!k->kbd_on) {
		rc = -ENODEV;
	} else if (k->kbd.len + 3u > KBD_QUEUE) {
		rc = -EAGAIN;
	} else {
		if (extended)
			queue_put(&k->kbd, 0xe0);
		if (!set1 && !down)
			queue_put(&k->kbd, 0xf0);
		queue_put(&k->kbd, !set1 ? set2_of[code] : (uint8_t)(code | (down ? 0 : 0x80)));
		i8042_update(k);
	}
	pthread_mutex_unlock(&d->lock);
	return rc;
}

int i8042_mouse(struct device *d, int dx, int dy, uint8_t buttons)
{
	struct i8042 *k = (struct i8042 *)d;
	int rc = 0;

	pthread_mutex_lock(&d->lock);
	if (!k->aux_on) {
		rc = -ENODEV;
	} else if (k->aux.len + 3u > KBD_QUEUE) {
		rc = -EAGAIN;
	} else {
		/* up is positive for a mouse */
		dx = MAX(-255, MIN(dx, 255));
		dy = MAX(-255, MIN(-dy, 255));
		queue_put(&k->aux, (uint8_t)(0x08 | (buttons & 7) | (dx < 0 ? 0x10 : 0) |
					     (dy < 0 ? 0x20 : 0)));
		queue_put(&k->aux, (uint8_t)dx);
		queue_put(&k->aux, (uint8_t)dy);
		i8042_update(k);
	}
	pthread_mutex_unlock(&d->lock);
	return rc;
}

/* ------------------------------------------------------------------ the mouse */

static void mouse_defaults(struct i8042 *k)
{
	k->aux_pending = NOTHING;
	k->aux_rate = 100;
	k->aux_resolution = 2;
	k->aux_scaling = 1;
	k->aux_on = false;
}

static void mouse_parameter(struct i8042 *k, uint8_t byte)
{
	if (k->aux_pending == 0xe8)
		k->aux_resolution = byte & 3;
	else
		k->aux_rate = byte;
	k->aux_pending = NOTHING;
	queue_put(&k->aux, PS2_ACK);
}

static void mouse_status(struct i8042 *k)
{
	queue_put(&k->aux, PS2_ACK);
	queue_put(&k->aux, (k->aux_on ? MOUSE_STREAM : 0) | (k->aux_scaling == 2 ? 0x10 : 0));
	queue_put(&k->aux, k->aux_resolution);
	queue_put(&k->aux, k->aux_rate);
}

static void mouse_write(struct i8042 *k, uint8_t byte)
{
	if (k->aux_pending) {
		mouse_parameter(k, byte);
		return;
	}
	switch (byte) {
	case 0xe6:
	case 0xe7:
		k->aux_scaling = byte - 0xe5;
		queue_put(&k->aux, PS2_ACK);
		break;
	case 0xe8: /* resolution */
	case 0xf3: /* rate */
		k->aux_pending = byte;
		queue_put(&k->aux, PS2_ACK);
		break;
	case 0xe9:
		mouse_status(k);
		break;
	case 0xeb: /* a report: nothing moved */
		queue_put(&k->aux, PS2_ACK);
		queue_put(&k->aux, 0x08);
		queue_put(&k->aux, 0);
		queue_put(&k->aux, 0);
		break;
	case 0xf2: /* identify: two or three buttons */
		queue_put(&k->aux, PS2_ACK);
		queue_put(&k->aux, 0);
		break;
	case 0xf4:
	case 0xf5:
		k->aux_on = byte == 0xf4;
		queue_put(&k->aux, PS2_ACK);
		break;
	case 0xf6:
		mouse_defaults(k);
		queue_put(&k->aux, PS2_ACK);
		break;
	case 0xff:
		mouse_defaults(k);
		k->aux.len = 0;
		queue_put(&k->aux, PS2_ACK);
		queue_put(&k->aux, PS2_PASSED);
		queue_put(&k->aux, 0);
		break;
	default: /* stream, wrap and remote modes */
		queue_put(&k->aux, byte == 0xea || byte == 0xec || byte == 0xee || byte == 0xf0
					   ? PS2_ACK
					   : PS2_RESEND);
	}
}

/* ------------------------------------------------------------------ the controller */

static void i8042_output_port_write(struct i8042 *k, uint8_t value)
{
	k->output_port = value | OUTPUT_RUN | OUTPUT_A20; /* the A20 gate is always open */
	if (!(value & OUTPUT_RUN))
		machine_request_end(k->device.machine, MACHINE_RESET);
}

/* The byte that a controller command waited for. */
static void i8042_parameter(struct i8042 *k, uint8_t byte)
{
	uint8_t command = k->last_command;

	k->last_command = NOTHING;
	switch (command) {
	case 0xd1:
		i8042_output_port_write(k, byte);
		break;
	case 0xd2:
		i8042_answer(k, byte, false);
		break;
	case 0xd3:
		i8042_answer(k, byte, true);
		break;
	case 0xd4:
		mouse_write(k, byte);
		break;
	default: /* 0x60 to 0x7f */
		k->ram[command & (KBD_RAM - 1)] = byte;
	}
}

static void i8042_command_other(struct i8042 *k, uint8_t command)
{
	if (command >= 0x20 && command < 0x20 + KBD_RAM)
		i8042_answer(k, k->ram[command - 0x20], false);
	else if ((command >= 0x60 && command < 0x60 + KBD_RAM) ||
		 (command >= 0xd1 && command <= 0xd4))
		k->last_command = command;
	else if (command >= 0xf0 && !(command & OUTPUT_RUN))
		machine_request_end(k->device.machine, MACHINE_RESET); /* pulses the reset line */
}

static void i8042_command(struct i8042 *k, uint8_t command)
{
	k->last_command = NOTHING;
	switch (command) {
	case 0xa7:
		k->ram[0] |= CONFIG_AUX_OFF;
		break;
	case 0xa8:
		k->ram[0] &= (uint8_t)~CONFIG_AUX_OFF;
		break;
	case 0xa9: /* port tests: no fault */
	case 0xab:
		i8042_answer(k, 0, false);
		break;
	case 0xaa:
		k->ram[0] |= CONFIG_SYSTEM;
		i8042_answer(k, KBD_PASSED, false);
		break;
	case 0xad:
		k->ram[0] |= CONFIG_KBD_OFF;
		break;
	case 0xae:
		k->ram[0] &= (uint8_t)~CONFIG_KBD_OFF;
		break;
	case 0xc0: /* the input port: nothing is locked */
		i8042_answer(k, 0x80, false);
		break;
	case 0xd0:
		i8042_answer(k, k->output_port, false);
		break;
	default:
		i8042_command_other(k, command);
	}
}

/* ------------------------------------------------------------------ ports */

static uint64_t i8042_data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8042 *k = opaque;
	struct ps2_queue *q = i8042_next(k);

	(void)offset;
	(void)size;
	if (q) {
		k->data_byte = queue_take(q);
		/* the next byte is a new edge */
		i8042_line(k, &k->kbd_irq, false);
		i8042_line(k, &k->aux_irq, false);
		i8042_update(k);
	}
	return k->data_byte;
}

static void i8042_data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *k = opaque;

	(void)offset;
	(void)size;
	k->written_command = 0;
	if (k->last_command) {
		i8042_parameter(k, value);
	} else {
		/* a byte for the keyboard turns its port on */
		k->ram[0] &= (uint8_t)~CONFIG_KBD_OFF;
		kbd_write(k, value);
	}
	i8042_update(k);
}

static uint64_t i8042_status_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8042 *k = opaque;
	struct ps2_queue *q = i8042_next(k);

	(void)offset;
	(void)size;
	return (q ? STATUS_FULL : 0) | (q && i8042_is_aux(k, q) ? STATUS_AUX : 0) |
	       (k->ram[0] & CONFIG_SYSTEM) | k->written_command | STATUS_UNLOCKED;
}

static void i8042_command_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *k = opaque;

	(void)offset;
	(void)size;
	k->written_command = STATUS_COMMAND;
	i8042_command(k, value);
	i8042_update(k);
}

/* ------------------------------------------------------------------ life */

static void i8042_reset(struct device *d)
{
	struct i8042 *k = (struct i8042 *)d;

	pthread_mutex_lock(&d->lock);
	k->last_command = k->written_command = k->data_byte = 0;
	k->output_port = 0xc0 | OUTPUT_RUN | OUTPUT_A20;
	memset(k->ram, 0, sizeof(k->ram));
	/* as firmware leaves it */
	k->ram[0] = CONFIG_KBD_IRQ | CONFIG_SYSTEM | CONFIG_AUX_OFF | CONFIG_TRANSLATE;
	k->own = k->kbd = k->aux = (struct ps2_queue){.len = 0};
	k->own_is_aux = false;
	kbd_defaults(k);
	mouse_defaults(k);
	i8042_update(k);
	pthread_mutex_unlock(&d->lock);
}

static void queue_save(const struct ps2_queue *q, struct state_writer *w)
{
	state_put_u8(w, q->len);
	for (unsigned i = 0; i < q->len; i++)
		state_put_u8(w, q->bytes[(q->head + i) % KBD_QUEUE]);
}

static void queue_load(struct ps2_queue *q, struct state_reader *r)
{
	uint8_t len = state_get_u8(r);

	q->head = q->len = 0;
	if (len > KBD_QUEUE && !r->error)
		r->error = -EINVAL;
	for (unsigned i = 0; i < len && !r->error; i++)
		queue_put(q, state_get_u8(r));
}

static void i8042_save(struct device *d, struct state_writer *w)
{
	struct i8042 *k = (struct i8042 *)d;
	const uint8_t bytes[] = {k->last_command, k->written_command, k->output_port, k->own_is_aux,
		k->data_byte, k->kbd_pending, k->aux_pending, k->kbd_set, k->kbd_on, k->aux_on,
		k->aux_rate, k->aux_resolution, k->aux_scaling};

	state_section_begin(w, d->name, 1);
	state_put_bytes(w, bytes, sizeof(bytes));
	state_put_bytes(w, k->ram, sizeof(k->ram));
	queue_save(&k->own, w);
	queue_save(&k->kbd, w);
	queue_save(&k->aux, w);
	state_section_end(w);
}

static void i8042_load(struct device *d, struct state_reader *r)
{
	struct i8042 *k = (struct i8042 *)d;
	uint8_t b[13] = {0};

	state_section_enter(r, d->name, 1);
	state_get_bytes(r, b, sizeof(b));
	k->last_command = b[0];
	k->written_command = b[1] & STATUS_COMMAND;
	k->output_port = b[2] | OUTPUT_RUN | OUTPUT_A20;
	k->own_is_aux = b[3] & 1;
	k->data_byte = b[4];
	k->kbd_pending = b[5];
	k->aux_pending = b[6];
	k->kbd_set = b[7];
	k->kbd_on = b[8] & 1;
	k->aux_on = b[9] & 1;
	k->aux_rate = b[10];
	k->aux_resolution = b[11] & 3;
	k->aux_scaling = b[12];
	state_get_bytes(r, k->ram, sizeof(k->ram));
	queue_load(&k->own, r);
	queue_load(&k->kbd, r);
	queue_load(&k->aux, r);
	state_section_leave(r);
	i8042_update(k);
}

static void i8042_destroy(struct device *d)
{
	struct i8042 *k = (struct i8042 *)d;

	bus_unmap(d->machine, &k->data);
	bus_unmap(d->machine, &k->command);
	free(k);
}

static const struct device_ops i8042_ops = {
	.reset = i8042_reset,
	.save = i8042_save,
	.load = i8042_load,
	.destroy = i8042_destroy,
};

int i8042_create(struct machine *m)
{
	struct i8042 *k = calloc(1, sizeof(*k));
	struct bus_region region = {.size = 1, .kind = BUS_PIO};
	int rc;

	if (!k)
		return -ENOMEM;
	device_add(m, &k->device, &i8042_ops, "i8042");
	irq_source_init(&k->kbd_irq, m, KBD_IRQ);
	irq_source_init(&k->aux_irq, m, AUX_IRQ);
	region.opaque = k;
	region.lock = &k->device.lock;
	region.counters = &k->device.counters;
	k->data = k->command = region;
	k->data.base = KBD_DATA;
	k->data.read = i8042_data_read;
	k->data.write = i8042_data_write;
	k->command.base = KBD_COMMAND;
	k->command.read = i8042_status_read;
	k->command.write = i8042_command_write;
	i8042_reset(&k->device);
	rc = bus_map(m, &k->data);
	return rc ? rc : bus_map(m, &k->command);
}
