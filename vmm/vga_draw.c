/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pictures of a VGA's registers and memory (vga.h): text with its font in plane 2, planar 16
 * colours, CGA's four, 256 colours, and the linear modes of the Bochs display interface.
 */
#include <string.h>
#include <sys/param.h>

#include "vmm/vga.h"

#define PLANE_MASK   0xffffu
#define MEMORY_MASK  (VGA_MEMORY - 1)
#define TEXT_COLUMNS 256u
#define FONT_ROWS    32u
#define FONT_BYTES   0x2000u

/* What the CRT controller makes of its registers. */
struct raster {
	uint32_t columns;      /* character clocks shown */
	uint32_t lines;        /* scan lines shown */
	uint32_t start, pitch; /* of the address counter */
	uint32_t split;        /* the line after which it is 0 again */
	uint32_t repeat;       /* scan lines of a row */
	unsigned shift;        /* byte, word, doubleword addressing: 0, 1, 2 */
	bool cga2, cga4;       /* the row's bits 0 and 1 in place of address bits 13 and 14 */
};

static struct raster raster_get(const struct vga_regs *r)
{
	const uint8_t *c = r->crtc;
	struct raster out = {
		.columns = c[1] + 1u,
		.lines = (c[0x12] | (c[7] & 0x02u) << 7 | (c[7] & 0x40u) << 3) + 1u,
		.start = c[0x0c] << 8 | c[0x0d],
		.pitch = c[0x13] * 2u,
		.split = c[0x18] | (c[7] & 0x10u) << 4 | (c[9] & 0x40u) << 3,
		.repeat = (c[9] & 0x1fu) + 1u,
		.shift = c[0x14] & 0x40   ? 2
			 : c[0x17] & 0x40 ? 0
					  : 1,
		.cga2 = !(c[0x17] & 1),
		.cga4 = !(c[0x17] & 2),
	};

	return out;
}

/* The offset in a plane of the address counter's value, in scan line `row` of a row. */
static uint32_t raster_offset(const struct raster *t, uint32_t counter, uint32_t row)
{
	uint32_t at = counter << t->shift;

	/* word mode: the bit that went out at the top comes in below */
	if (t->shift == 1)
		at |= counter >> 15 & 1;
	else if (t->shift == 2)
		at |= counter >> 14 & 3;
	if (t->cga2)
		at = (at & ~0x2000u) | (row & 1) << 13;
	if (t->cga4)
		at = (at & ~0x4000u) | (row >> 1 & 1) << 14;
	return at & PLANE_MASK;
}

/* ------------------------------------------------------------------ colours */

static uint32_t dac_color(const struct vga_regs *r, uint8_t index)
{
	const uint8_t *c = &r->dac[3u * (index & r->dac_mask)];
	bool wide = r->vbe[VBE_ENABLE] & VBE_8BIT_DAC;
	uint32_t rgb = 0;

	for (unsigned i = 0; i < 3; i++)
		rgb = rgb << 8 | (wide ? c[i] : (uint32_t)((c[i] & 0x3f) << 2 | (c[i] >> 4 & 3)));
	return rgb;
}

/* The attribute controller's 16, through the palette and the colour select register. */
static void attr_colors(const struct vga_regs *r, uint32_t colors[16])
{
	for (unsigned i = 0; i < 16; i++) {
		uint8_t v = r->attr[i] & 0x3f;

		if (r->attr[0x10] & 0x80)
			v = (uint8_t)((v & 0x0f) | (r->attr[0x14] & 3) << 4);
		v |= (uint8_t)((r->attr[0x14] & 0x0c) << 4);
		colors[i] = dac_color(r, v);
	}
}

static bool vbe_on(const struct vga_regs *r)
{
	return r->vbe[VBE_ENABLE] & VBE_ENABLED;
}

static bool screen_off(const struct vga_regs *r)
{
	return r->seq[1] & 0x20 || !(r->attr_index & 0x20);
}

/* ------------------------------------------------------------------ text */

struct text {
	struct raster t;
	uint32_t rows, width; /* of a character: 8 or 9 dots */
	uint32_t font[2];     /* offsets in plane 2 */
	uint32_t cursor;      /* the address counter's; ~0: none */
};

static bool text_get(const struct vga_regs *r, struct text *x)
{
	uint8_t map = r->seq[3];

	x->t = raster_get(r);
	x->t.cga2 = x->t.cga4 = false;
	x->t.columns = MIN(x->t.columns, TEXT_COLUMNS);
	x->rows = x->t.lines / x->t.repeat;
	x->width = r->seq[1] & 1 ? 8 : 9;
	/* three bits each: attribute bit 3 clear, and set */
	x->font[0] = ((map & 3u) * 2 + (map >> 4 & 1u)) * FONT_BYTES;
	x->font[1] = ((map >> 2 & 3u) * 2 + (map >> 5 & 1u)) * FONT_BYTES;
	x->cursor = r->crtc[0x0a] & 0x20 ? ~0u : (uint32_t)(r->crtc[0x0e] << 8 | r->crtc[0x0f]);
	return x->rows && x->t.columns * x->width * x->rows * x->t.repeat <= VGA_PICTURE_MAX;
}

static const uint8_t *text_cell(
	const struct text *x, const uint8_t *memory, uint32_t row, uint32_t column)
{
	uint32_t counter = (x->t.start + row * x->t.pitch + column) & PLANE_MASK;

	return memory + 4 * raster_offset(&x->t, counter, 0);
}

static bool text_cursor_here(const struct vga_regs *r, const struct text *x, uint32_t row,
	uint32_t column, uint32_t line)
{
	uint32_t counter = (x->t.start + row * x->t.pitch + column) & PLANE_MASK;

	return counter == x->cursor && line >= (r->crtc[0x0a] & 0x1fu) &&
	       line <= (r->crtc[0x0b] & 0x1fu);
}

static void text_draw(const struct vga_regs *r, const uint8_t *memory, const struct text *x,
	struct vga_picture *p)
{
	bool blink = r->attr[0x10] & 0x08, ninth = r->attr[0x10] & 0x04;
	uint32_t colors[16];

	attr_colors(r, colors);
	p->width = x->t.columns * x->width;
	p->height = x->rows * x->t.repeat;
	for (uint32_t row = 0; row < x->rows; row++)
		for (uint32_t col = 0; col < x->t.columns; col++) {
			const uint8_t *cell = text_cell(x, memory, row, col);
			uint8_t c = cell[0], a = cell[1];
			uint32_t fg = colors[a & 0x0f], bg = colors[a >> 4 & (blink ? 7 : 15)];
			uint32_t font = x->font[a >> 3 & 1] + c * FONT_ROWS;

			for (uint32_t y = 0; y < x->t.repeat; y++) {
				uint32_t *to = p->pixels + (row * x->t.repeat + y) * p->width +
					       col * x->width;
				unsigned dots = memory[4 * (font + y) + 2] << 1;

				/* of the box drawing characters the last dot goes on */
				if (ninth && (c & 0xe0) == 0xc0)
					dots |= dots >> 1 & 1;
				if (text_cursor_here(r, x, row, col, y))
					dots = 0x1ff;
				for (uint32_t i = 0; i < x->width; i++)
					to[i] = dots >> (8 - i) & 1 ? fg : bg;
			}
		}
}

/* Code page 437: what is not ASCII. */
static const uint16_t cp437_low[32] = {0x20, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022,
	0x25d8, 0x25cb, 0x25d9, 0x2642, 0x2640, 0x266a, 0x266b, 0x263c, 0x25ba, 0x25c4, 0x2195,
	0x203c, 0xb6, 0xa7, 0x25ac, 0x21a8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2,
	0x25bc};
static const uint16_t cp437_high[129] = {0x2302, 0xc7, 0xfc, 0xe9, 0xe2, 0xe4, 0xe0, 0xe5, 0xe7,
	0xea, 0xeb, 0xe8, 0xef, 0xee, 0xec, 0xc4, 0xc5, 0xc9, 0xe6, 0xc6, 0xf4, 0xf6, 0xf2, 0xfb,
	0xf9, 0xff, 0xd6, 0xdc, 0xa2, 0xa3, 0xa5, 0x20a7, 0x192, 0xe1, 0xed, 0xf3, 0xfa, 0xf1, 0xd1,
	0xaa, 0xba, 0xbf, 0x2310, 0xac, 0xbd, 0xbc, 0xa1, 0xab, 0xbb, 0x2591, 0x2592, 0x2593,
	0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c,
	0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a,
	0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
	0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590,
	0x2580, 0x3b1, 0xdf, 0x393, 0x3c0, 0x3a3, 0x3c3, 0xb5, 0x3c4, 0x3a6, 0x398, 0x3a9, 0x3b4,
	0x221e, 0x3c6, 0x3b5, 0x2229, 0x2261, 0xb1, 0x2265, 0x2264, 0x2320, 0x2321, 0xf7, 0x2248,
	0xb0, 0x2219, 0xb7, 0x221a, 0x207f, 0xb2, 0x25a0, 0x20};

static uint16_t cp437_unicode(uint8_t c)
{
	return c < 32 ? cp437_low[c] : c < 127 ? c : cp437_high[c - 127];
}

static size_t utf8_put(char *to, uint8_t c)
{
	unsigned u = cp437_unicode(c);

	if (u < 0x80) {
		to[0] = (char)u;
		return 1;
	}
	if (u < 0x800) {
		to[0] = (char)(0xc0 | u >> 6);
		to[1] = (char)(0x80 | (u & 0x3f));
		return 2;
	}
	to[0] = (char)(0xe0 | u >> 12);
	to[1] = (char)(0x80 | (u >> 6 & 0x3f));
	to[2] = (char)(0x80 | (u & 0x3f));
	return 3;
}

size_t vga_text(const struct vga_regs *regs, const uint8_t *memory, char *out, size_t room)
{
	const struct vga_regs r = *regs;
	size_t len = 0, end;
	struct text x;

	if (!room)
		return 0;
	out[0] = '\0';
	if (vbe_on(&r) || r.attr[0x10] & 1 || screen_off(&r) || !text_get(&r, &x))
		return 0;
	for (uint32_t row = 0; row < x.rows && len + 3u * x.t.columns + 2 <= room; row++) {
		end = len;
		for (uint32_t col = 0; col < x.t.columns; col++) {
			size_t n = utf8_put(out + len, *text_cell(&x, memory, row, col));

			if (n != 1 || out[len] != ' ')
				end = len + n;
			len += n;
		}
		len = end;
		out[len++] = '\n';
	}
	out[len] = '\0';
	return len;
}

static void cell_get(const struct vga_regs *r, const uint8_t *from, struct vga_cell *to)
{
	bool blink = r->attr[0x10] & 0x08;

	to->code = cp437_unicode(from[0]);
	to->fg = from[1] & 0x0f;
	to->bg = from[1] >> 4 & (blink ? 7 : 15);
	to->blink = blink && (from[1] & 0x80);
}

enum vga_shows vga_cells_get(
	const struct vga_regs *regs, const uint8_t *memory, struct vga_cells *out)
{
	const struct vga_regs r = *regs;
	uint32_t n = 0;
	struct text x;

	if (!vbe_on(&r) && screen_off(&r))
		return VGA_SHOWS_NOTHING;
	if (vbe_on(&r) || r.attr[0x10] & 1 || !text_get(&r, &x))
		return VGA_SHOWS_GRAPHICS;
	out->columns = x.t.columns;
	out->rows = MIN(x.rows, VGA_CELLS_MAX / x.t.columns);
	out->cursor = ~0u;
	for (uint32_t row = 0; row < out->rows; row++)
		for (uint32_t col = 0; col < out->columns; col++, n++) {
			cell_get(&r, text_cell(&x, memory, row, col), &out->cells[n]);
			if (text_cursor_here(&r, &x, row, col, r.crtc[0x0a] & 0x1fu))
				out->cursor = n;
		}
	return VGA_SHOWS_TEXT;
}

/* ------------------------------------------------------------------ graphics */

static void line_planar(const struct raster *t, const uint8_t *memory, const uint32_t colors[16],
	uint8_t planes, uint32_t counter, uint32_t row, uint32_t *to)
{
	for (uint32_t col = 0; col < t->columns; col++) {
		const uint8_t *b = memory + 4 * raster_offset(t, counter + col, row);

		for (unsigned bit = 8; bit--;) {
			unsigned v = (b[0] >> bit & 1) | (b[1] >> bit & 1) << 1 |
				     (b[2] >> bit & 1) << 2 | (b[3] >> bit & 1) << 3;

			*to++ = colors[v & planes];
		}
	}
}

/* Two bits a dot, even bytes in plane 0 and odd ones in plane 1 (graphics mode register, bit 5). */
static void line_cga(const struct raster *t, const uint8_t *memory, const uint32_t colors[16],
	uint8_t planes, uint32_t counter, uint32_t row, uint32_t *to)
{
	for (uint32_t col = 0; col < t->columns; col++) {
		const uint8_t *b = memory + 4 * raster_offset(t, counter + col, row);

		for (unsigned i = 0; i < 8; i++) {
			unsigned shift = 6 - 2 * (i & 3), at = i >> 2;

			*to++ = colors[((b[at] >> shift & 3) | (b[at + 2] >> shift & 3) << 2) &
				       planes];
		}
	}
}

/* Eight bits a dot, four dots a character clock, one from each plane. */
static void line_256(const struct raster *t, const uint8_t *memory, const uint32_t *palette,
	uint32_t counter, uint32_t row, uint32_t *to)
{
	for (uint32_t col = 0; col < t->columns; col++) {
		const uint8_t *b = memory + 4 * raster_offset(t, counter + col, row);

		for (unsigned i = 0; i < 4; i++)
			*to++ = palette[b[i]];
	}
}

static void graphics_draw(const struct vga_regs *r, const uint8_t *memory, struct vga_picture *p)
{
	struct raster t = raster_get(r);
	bool wide = r->gc[5] & 0x40, cga = r->gc[5] & 0x20, twice = r->crtc[9] & 0x80;
	uint32_t palette[256], colors[16], rows = t.repeat * (twice ? 2 : 1);
	uint8_t planes = r->attr[0x12] & 0x0f;

	p->width = t.columns * (wide ? 4 : 8);
	/* CGA's two or four banks of lines are lines, not repetitions */
	if (t.cga2)
		rows = twice ? 2 : 1;
	p->height = t.lines / rows;
	attr_colors(r, colors);
	for (unsigned i = 0; i < 256; i++)
		palette[i] = dac_color(r, (uint8_t)i);
	for (uint32_t y = 0; y < p->height; y++) {
		uint32_t line = y * rows, from = line > t.split ? line - t.split - 1 : line;
		uint32_t per_row = t.repeat * (twice ? 2 : 1), row = from / per_row;
		uint32_t counter = (line > t.split ? 0 : t.start) + row * t.pitch;
		uint32_t scan = from % per_row / (twice ? 2 : 1);
		uint32_t *to = p->pixels + (size_t)y * p->width;

		if (wide)
			line_256(&t, memory, palette, counter, scan, to);
		else if (cga)
			line_cga(&t, memory, colors, planes, counter, scan, to);
		else
			line_planar(&t, memory, colors, planes, counter, scan, to);
	}
}

/* ------------------------------------------------------------------ linear */

static uint32_t vbe_pixel(const struct vga_regs *r, const uint8_t *b, unsigned bpp)
{
	uint32_t v = b[0] | (uint32_t)b[1] << 8;

	switch (bpp) {
	case 8:
		return dac_color(r, b[0]);
	case 15:
		return (v & 0x7c00) << 9 | (v & 0x7000) << 4 | (v & 0x03e0) << 6 |
		       (v & 0x0380) << 1 | (v & 0x1f) << 3 | (v & 0x1c) >> 2;
	case 16:
		return (v & 0xf800) << 8 | (v & 0xe000) << 3 | (v & 0x07e0) << 5 |
		       (v & 0x0600) >> 1 | (v & 0x1f) << 3 | (v & 0x1c) >> 2;
	default:
		return v | (uint32_t)b[2] << 16;
	}
}

static uint32_t vbe_pixel4(const uint8_t *b, unsigned bit, const uint32_t colors[16])
{
	return colors[(b[0] >> bit & 1) | (b[1] >> bit & 1) << 1 | (b[2] >> bit & 1) << 2 |
		      (b[3] >> bit & 1) << 3];
}

static void vbe_draw(const struct vga_regs *r, const uint8_t *memory, struct vga_picture *p)
{
	unsigned bpp = r->vbe[VBE_BPP], bytes = (bpp + 7) / 8;
	uint32_t colors[16];
	uint64_t pitch;

	p->width = MIN(r->vbe[VBE_WIDTH], VBE_WIDTH_MAX);
	p->height = MIN(r->vbe[VBE_HEIGHT], VBE_HEIGHT_MAX);
	attr_colors(r, colors);
	pitch = MAX(r->vbe[VBE_PITCH], p->width);
	pitch = bpp == 4 ? pitch / 8 * 4 : pitch * bytes;
	for (uint32_t y = 0; y < p->height; y++) {
		uint64_t line = (uint64_t)(y + r->vbe[VBE_Y]) * pitch;
		uint32_t *to = p->pixels + (size_t)y * p->width;

		for (uint32_t i = 0; i < p->width; i++) {
			uint32_t x = i + r->vbe[VBE_X];
			uint32_t at = (line + (bpp == 4 ? x / 8 * 4 : x * bytes)) & MEMORY_MASK;

			/* nothing follows the last bytes */
			if (at > VGA_MEMORY - 4)
				to[i] = 0;
			else if (bpp == 4)
				to[i] = vbe_pixel4(memory + at, 7 - x % 8, colors);
			else
				to[i] = vbe_pixel(r, memory + at, bpp);
		}
	}
}

/* ------------------------------------------------------------------ the screen */

void vga_draw(const struct vga_regs *regs, const uint8_t *memory, struct vga_picture *p)
{
	const struct vga_regs r = *regs;
	struct text x;

	p->text = false;
	if (vbe_on(&r) && r.vbe[VBE_WIDTH] && r.vbe[VBE_HEIGHT]) {
		vbe_draw(&r, memory, p);
		return;
	}
	if (!(r.attr[0x10] & 1) && text_get(&r, &x)) {
		p->text = true;
		text_draw(&r, memory, &x, p);
	} else {
		graphics_draw(&r, memory, p);
	}
	if (screen_off(&r))
		memset(p->pixels, 0, (size_t)p->width * p->height * sizeof(*p->pixels));
}
