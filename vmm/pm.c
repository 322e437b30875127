/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Power management and the ways to a reset: the ACPI fixed hardware block at 0x600 (ACPI 6.4, 4.8;
 * PIIX4 data sheet, 7.2), the reset control register 0xCF9 (PIIX3, 2.5.5) and port 0x92.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmm/machine_priv.h"

#define PM_BASE          0x600u
#define PM_SIZE          0x40u
#define PM_TIMER_HZ      3579545ull
#define PM1_STATUS       0x00u
#define PM1_ENABLE       0x02u
#define PM1_CONTROL      0x04u
#define PM_TIMER         0x08u
#define PM1_SCI_EN       0x0001u
#define PM1_SLEEP_ENABLE 0x2000u
#define PM1_SLEEP_TYPE   0x1c00u
#define PM1_ENABLE_BITS  0x0721u
#define PORT_A           0x92u
#define PORT_A_RESET     0x01u
#define PORT_A_A20       0x02u
#define RESET_CPU        0x04u
#define RESET_HARD       0x02u

struct pm {
	struct device device;
	struct bus_region block, port_a;
	uint16_t enable, control;
	uint8_t port_a_value;
	uint64_t timer_offset; /* ticks at host time 0 */
};

static uint64_t pm_host_ticks(void)
{
	uint64_t ns = clock_now_ns();

	return ns / 1000000000ull * PM_TIMER_HZ + ns % 1000000000ull * PM_TIMER_HZ / 1000000000ull;
}

static uint8_t pm_byte_read(struct pm *pm, uint64_t offset, uint32_t timer)
{
	switch (offset) {
	case PM1_ENABLE:
	case PM1_ENABLE + 1:
		return pm->enable >> (8 * (offset & 1));
	case PM1_CONTROL:
	case PM1_CONTROL + 1:
		return pm->control >> (8 * (offset & 1));
	case PM_TIMER:
	case PM_TIMER + 1:
	case PM_TIMER + 2:
		return timer >> (8 * (offset - PM_TIMER)); /* 24 bits */
	default:
		return 0;
	}
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pm *pm = opaque;
	uint32_t timer = pm_host_ticks() + pm->timer_offset;
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)pm_byte_read(pm, offset + i, timer) << (8 * i);
	return value;
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pm *pm = opaque;

	for (unsigned i = 0; i < size; i++, value >>= 8) {
		unsigned shift = 8 * ((offset + i) & 1);
		uint16_t keep = 0xff00u >> shift, byte = (value & 0xff) << shift;

		if ((offset + i) / 2 == PM1_ENABLE / 2)
			pm->enable = ((pm->enable & keep) | byte) & PM1_ENABLE_BITS;
		else if ((offset + i) / 2 == PM1_CONTROL / 2)
			pm->control = (pm->control & keep) | byte;
	}
	/* there is one sleep to wake from nowhere: every type is "off" */
	if (pm->control & PM1_SLEEP_ENABLE) {
		pm->control &= (uint16_t)~PM1_SLEEP_ENABLE;
		machine_request_end(pm->device.machine, MACHINE_POWEROFF);
	}
	pm->control &= PM1_SLEEP_TYPE | PM1_SCI_EN;
}

void pm_reset_control_write(struct machine *m, uint8_t value)
{
	if (value & RESET_CPU)
		machine_request_end(m, MACHINE_RESET);
}

static uint64_t pm_port_a_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pm *pm = opaque;

	(void)offset;
	(void)size;
	return pm->port_a_value;
}

static void pm_port_a_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pm *pm = opaque;

	(void)offset;
	(void)size;
	/* the address line 20 gate is always open */
	pm->port_a_value = PORT_A_A20;
	if (value & PORT_A_RESET)
		machine_request_end(pm->device.machine, MACHINE_RESET);
}

/* ------------------------------------------------------------------ life */

static void pm_reset(struct device *d)
{
	struct pm *pm = (struct pm *)d;

	pm->enable = 0;
	pm->control = PM1_SCI_EN; /* there is no firmware to hand over from */
	pm->port_a_value = PORT_A_A20;
	pm->timer_offset = -pm_host_ticks();
}

static void pm_save(struct device *d, struct state_writer *w)
{
	struct pm *pm = (struct pm *)d;

	state_section_begin(w, d->name, 1);
	state_put_u16(w, pm->enable);
	state_put_u16(w, pm->control);
	/* the timer stands still while the machine is saved */
	state_put_u64(w, pm->timer_offset + pm_host_ticks());
	state_section_end(w);
}

static void pm_load(struct device *d, struct state_reader *r)
{
	struct pm *pm = (struct pm *)d;

	state_section_enter(r, d->name, 1);
	pm->enable = state_get_u16(r) & PM1_ENABLE_BITS;
	pm->control = state_get_u16(r) & (PM1_SLEEP_TYPE | PM1_SCI_EN);
	pm->timer_offset = state_get_u64(r) - pm_host_ticks();
	state_section_leave(r);
}

static void pm_destroy(struct device *d)
{
	struct pm *pm = (struct pm *)d;

	bus_unmap(d->machine, &pm->block);
	bus_unmap(d->machine, &pm->port_a);
	free(pm);
}

static const struct device_ops pm_ops = {
	.reset = pm_reset,
	.save = pm_save,
	.load = pm_load,
	.destroy = pm_destroy,
};

static int pm_map(struct pm *pm, struct bus_region *r, uint16_t port, uint16_t count,
	uint64_t (*read)(void *, uint64_t, unsigned),
	void (*write)(void *, uint64_t, uint64_t, unsigned))
{
	*r = (struct bus_region){
		.base = port,
		.size = count,
		.kind = BUS_PIO,
		.read = read,
		.write = write,
		.opaque = pm,
		.lock = &pm->device.lock,
		.counters = &pm->device.counters,
	};
	return bus_map(pm->device.machine, r);
}

int pm_create(struct machine *m)
{
	struct pm *pm = calloc(1, sizeof(*pm));
	int rc;

	if (!pm)
		return -ENOMEM;
	device_add(m, &pm->device, &pm_ops, "pm");
	pm_reset(&pm->device);
	rc = pm_map(pm, &pm->block, PM_BASE, PM_SIZE, pm_read, pm_write);
	if (!rc)
		rc = pm_map(pm, &pm->port_a, PORT_A, 1, pm_port_a_read, pm_port_a_write);
	return rc;
}
