/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VGA's window: which planes an access reaches and where (IBM PS/2 Hardware Interface Technical
 * Reference, Video Subsystem, Memory Maps), and what the graphics controller makes of it.
 */
#include <string.h>

#include "vmm/vga_priv.h"

/* Graphics controller 6, bits 3 and 2: which part of the window answers, and where it begins.
 * False: not there. */
static bool window_offset(const struct vga *v, uint64_t at, uint32_t *offset)
{
	static const struct {
		uint32_t base, size;
	} maps[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};
	unsigned m = v->r->gc[6] >> 2 & 3;

	if (!(v->r->misc & 0x02) || at < maps[m].base || at >= maps[m].base + maps[m].size)
		return false;
	*offset = (uint32_t)at - maps[m].base;
	return true;
}

/* A linear mode of a byte or more for a dot: the window is 64 KiB of memory. */
static bool vbe_linear(const struct vga *v, uint32_t offset, uint32_t *at)
{
	*at = (v->r->vbe[VBE_BANK] * 65536u + offset) & (VGA_MEMORY - 1);
	return vga_vbe_on(v) && v->r->vbe[VBE_BPP] >= 8;
}

/*
 * Which planes an access reaches, and at which offset. Chain 4: the low two bits choose the plane;
 * odd/even: the lowest does.
 */
static uint32_t plane_offset(const struct vga *v, uint32_t offset, bool odd_even, uint8_t *planes)
{
	uint32_t bank = vga_vbe_on(v) ? v->r->vbe[VBE_BANK] * 65536u : 0;

	if (v->r->seq[4] & 0x08) {
		*planes = (uint8_t)(1u << (offset & 3));
		offset &= ~3u;
	} else if (odd_even) {
		*planes = offset & 1 ? 0x0a : 0x05;
		offset &= ~1u;
	} else {
		*planes = 0x0f;
	}
	return (bank + offset) & (VGA_MEMORY / 4 - 1);
}

static uint8_t byte_read(struct vga *v, uint32_t offset)
{
	const struct vga_regs *r = v->r;
	uint8_t planes, plane, value = 0xff;
	uint32_t at;

	if (vbe_linear(v, offset, &at))
		return v->memory[at];
	at = plane_offset(v, offset, r->gc[5] & 0x10, &planes) * 4;
	memcpy(v->r->latch, v->memory + at, 4);
	if (r->gc[5] & 0x08) { /* read mode 1: where all colours that are cared for agree */
		for (unsigned p = 0; p < 4; p++)
			if (r->gc[7] >> p & 1)
				value &= (uint8_t)(r->latch[p] ^ (r->gc[2] >> p & 1 ? 0 : 0xff));
		return value;
	}
	if (r->seq[4] & 0x08)
		plane = offset & 3;
	else if (r->gc[5] & 0x10)
		plane = (r->gc[4] & 2) | (offset & 1);
	else
		plane = r->gc[4] & 3;
	return r->latch[plane];
}

static uint8_t rotated(const struct vga_regs *r, uint8_t value)
{
	unsigned n = r->gc[3] & 7;

	return (uint8_t)(value >> n | value << (8 - n));
}

/* The logical unit: what a plane's byte becomes before the bit mask. */
static uint8_t combined(const struct vga_regs *r, uint8_t value, uint8_t latch)
{
	switch (r->gc[3] >> 3 & 3) {
	case 1:
		return value & latch;
	case 2:
		return value | latch;
	case 3:
		return value ^ latch;
	default:
		return value;
	}
}

static uint8_t plane_value(const struct vga_regs *r, unsigned p, uint8_t value)
{
	uint8_t set = r->gc[0] >> p & 1 ? 0xff : 0, mask = r->gc[8], latch = r->latch[p];

	switch (r->gc[5] & 3) {
	case 0:
		value = r->gc[1] >> p & 1 ? set : rotated(r, value);
		break;
	case 1:
		return latch;
	case 2:
		value = value >> p & 1 ? 0xff : 0;
		break;
	default:
		mask &= rotated(r, value);
		value = set;
		break;
	}
	return (uint8_t)((combined(r, value, latch) & mask) | (latch & ~mask));
}

static void byte_write(struct vga *v, uint32_t offset, uint8_t value)
{
	uint8_t planes;
	uint32_t at;

	if (vbe_linear(v, offset, &at)) {
		v->memory[at] = value;
		return;
	}
	at = plane_offset(v, offset, !(v->r->seq[4] & 0x04), &planes) * 4;
	planes &= v->r->seq[2];
	for (unsigned p = 0; p < 4; p++)
		if (planes >> p & 1)
			v->memory[at + p] = plane_value(v->r, p, value);
}

uint64_t vga_window_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint64_t value = 0;
	uint32_t at;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)(window_offset(v, offset + i, &at) ? byte_read(v, at) : 0xff)
			 << (8 * i);
	return value;
}

void vga_window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = opaque;
	uint32_t at;

	for (unsigned i = 0; i < size; i++)
		if (window_offset(v, offset + i, &at))
			byte_write(v, at, (uint8_t)(value >> (8 * i)));
}
