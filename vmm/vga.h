/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a screen consists of: the display adapter's registers and memory, in a file that other
 * processes of the same user may map (read only) to show it; and what makes a picture of them. No
 * lock: who looks takes a copy of the registers, and whatever it finds there it must bear.
 *
 * Sources: IBM VGA as in "IBM PS/2 Hardware Interface Technical Reference, Video Subsystem" (1992);
 * the Bochs display interface (VBE DISPI) as in Bochs' vbe_spec.txt.
 */
#ifndef VMM_VGA_H
#define VMM_VGA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VGA_MAGIC      0x53564741u /* "SVGA" */
#define VGA_VERSION    1u
#define VGA_MEMORY     (16u << 20)
#define VGA_REGS_SPACE 4096u /* the registers' page; memory follows */
#define VGA_FILE_SIZE  (VGA_REGS_SPACE + VGA_MEMORY)

#define VGA_CRTC_N 25u
#define VGA_SEQ_N  5u
#define VGA_GC_N   9u
#define VGA_ATTR_N 21u
#define VBE_N      11u

enum {
	VBE_ID,
	VBE_WIDTH,
	VBE_HEIGHT,
	VBE_BPP,
	VBE_ENABLE,
	VBE_BANK,
	VBE_PITCH, /* in pixels */
	VBE_ROWS,
	VBE_X,
	VBE_Y,
	VBE_MEMORY, /* in 64 KiB */
};

#define VBE_ENABLED     0x01u
#define VBE_CAPS        0x02u
#define VBE_8BIT_DAC    0x20u
#define VBE_LINEAR      0x40u
#define VBE_NO_CLEAR    0x80u
#define VBE_WIDTH_MAX   2560u
#define VBE_HEIGHT_MAX  1600u
#define VGA_PICTURE_MAX (VBE_WIDTH_MAX * VBE_HEIGHT_MAX)

struct vga_regs {
	uint32_t magic, version;
	uint8_t misc, feature;
	uint8_t seq_index, seq[VGA_SEQ_N];
	uint8_t crtc_index, crtc[VGA_CRTC_N];
	uint8_t gc_index, gc[VGA_GC_N];
	uint8_t attr_index, attr[VGA_ATTR_N]; /* index: bit 5, the palette's address source */
	uint8_t attr_data;                    /* the next write to 3C0h is data */
	uint8_t dac_mask, dac_read, dac_write, dac_sub, dac_reading;
	uint8_t dac[256 * 3]; /* 6 bits each, or 8 with VBE_8BIT_DAC */
	uint8_t latch[4];
	uint16_t vbe_index, vbe[VBE_N];
};

_Static_assert(sizeof(struct vga_regs) <= VGA_REGS_SPACE, "one page");

/* A picture: rows of 0x00RRGGBB, width each. */
struct vga_picture {
	uint32_t width, height;
	bool text;
	uint32_t *pixels; /* VGA_PICTURE_MAX of them, the caller's */
};

/*
 * Draws what the screen shows. Memory: VGA_MEMORY bytes; plane p's byte at offset o is byte 4 * o +
 * p. A screen that is off is black. Any registers will do. The caller's thread.
 */
void vga_draw(const struct vga_regs *regs, const uint8_t *memory, struct vga_picture *out);

/*
 * What a text screen says, as UTF-8: lines without trailing blanks, each with a newline, at most
 * `room` bytes with the final zero (16 KiB are enough for the usual ones). Bytes; 0: it shows
 * graphics, or is off.
 */
size_t vga_text(const struct vga_regs *regs, const uint8_t *memory, char *out, size_t room);

/* A text screen by its characters. */
#define VGA_CELLS_MAX 32768u
struct vga_cell {
	uint16_t code;  /* Unicode */
	uint8_t fg, bg; /* as a PC numbers its 16 colours: blue 1, green 2, red 4, bright 8 */
	bool blink;
};
struct vga_cells {
	uint32_t columns, rows;
	uint32_t cursor; /* the cell that it is at; ~0: there is none to be seen */
	struct vga_cell cells[VGA_CELLS_MAX]; /* rows of columns */
};

enum vga_shows { VGA_SHOWS_NOTHING, VGA_SHOWS_TEXT, VGA_SHOWS_GRAPHICS };
/* Fills out for text. Rows that are too many are left out. Any registers will do. */
enum vga_shows vga_cells_get(
	const struct vga_regs *regs, const uint8_t *memory, struct vga_cells *out);

#endif
