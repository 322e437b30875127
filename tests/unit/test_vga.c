/* SPDX-License-Identifier: BSD-2-Clause */
/* The VGA, by its registers and its window, and the pictures of it. */
#include "tests/unit/unit.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WINDOW 0xA0000u
#define TEXT   0xB8000u

static struct machine *m;
static const struct vga_regs *regs; /* the file, as another process sees it */
static const uint8_t *memory;
static char why[VMM_WHY_MAX], path[64];
static uint32_t pixels[VGA_PICTURE_MAX];
static struct vga_picture picture = {.pixels = pixels};

static struct machine *machine_make(enum vmm_choice vga)
{
	struct machine_config cfg;
	struct machine *made = NULL;
	FILE *f;

	snprintf(path, sizeof(path), "build/tmp/vga.%d.bin", getpid());
	f = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL_FATAL(ftruncate(fileno(f), 0x10000), 0);
	fclose(f);
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = 16u << 20;
	cfg.firmware = path;
	cfg.vga = vga;
	CU_ASSERT_EQUAL_FATAL(machine_create(&made, &cfg, why), 0);
	unlink(path);
	return made;
}

static void screen_open(void)
{
	void *file;

	m = machine_make(VMM_DEFAULT);
	file = mmap(NULL, VGA_FILE_SIZE, PROT_READ, MAP_SHARED, machine_screen_fd(m), 0);
	CU_ASSERT_FATAL(file != MAP_FAILED);
	regs = file;
	memory = (const uint8_t *)file + VGA_REGS_SPACE;
	CU_ASSERT_EQUAL(regs->magic, VGA_MAGIC);
}

static void screen_close(void)
{
	munmap((void *)(uintptr_t)regs, VGA_FILE_SIZE);
	machine_destroy(m);
}

static void out8(uint16_t port, uint8_t v)
{
	machine_port_write(m, port, v, 1);
}

static uint8_t in8(uint16_t port)
{
	return (uint8_t)machine_port_read(m, port, 1);
}

/* Index and data in one word, as drivers do. */
static void indexed(uint16_t port, uint8_t i, uint8_t v)
{
	machine_port_write(m, port, i | (unsigned)v << 8, 2);
}

static void attr(uint8_t i, uint8_t v)
{
	in8(0x3da);
	out8(0x3c0, i);
	out8(0x3c0, v);
}

struct mode {
	uint8_t misc, seq[5], crtc[25], gc[9], attr[21];
};

/* The BIOS's tables for modes 3, 12h and 13h. */
static const struct mode mode3 = {0x67, {3, 0, 3, 0, 2},
	{0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c,
		0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
	{0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff},
	{0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f,
		8, 0}};
static const struct mode mode12 = {0xe3, {3, 1, 0x0f, 0, 6},
	{0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0, 0xea, 0x8c,
		0xdf, 0x28, 0, 0xe7, 0x04, 0xe3, 0xff},
	{0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff},
	{0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 1, 0, 0x0f, 0,
		0}};
static const struct mode mode13 = {0x63, {3, 1, 0x0f, 0, 0x0e},
	{0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e,
		0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
	{0, 0, 0, 0, 0, 0x40, 5, 0x0f, 0xff},
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0, 0x0f, 0, 0}};

static void mode_set(const struct mode *t)
{
	out8(0x3c2, t->misc);
	for (uint8_t i = 0; i < 5; i++)
		indexed(0x3c4, i, t->seq[i]);
	indexed(0x3d4, 0x11, 0);
	for (uint8_t i = 0; i < 25; i++)
		indexed(0x3d4, i, t->crtc[i]);
	for (uint8_t i = 0; i < 9; i++)
		indexed(0x3ce, i, t->gc[i]);
	for (uint8_t i = 0; i < 21; i++)
		attr(i, t->attr[i]);
	in8(0x3da);
	out8(0x3c0, 0x20); /* the screen on */
	/* colour n of the DAC is (n, n / 2, 63 - n), of 63 */
	out8(0x3c8, 0);
	for (unsigned i = 0; i < 256; i++) {
		out8(0x3c9, (uint8_t)i);
		out8(0x3c9, (uint8_t)(i / 2));
		out8(0x3c9, (uint8_t)(63 - i));
	}
}

static uint32_t dac_rgb(unsigned i)
{
	uint32_t rgb = 0;
	const unsigned c[3] = {i & 63, i / 2 & 63, (63 - i) & 63};

	for (unsigned k = 0; k < 3; k++)
		rgb = rgb << 8 | c[k] << 2 | c[k] >> 4;
	return rgb;
}

static uint32_t at(uint32_t x, uint32_t y)
{
	return pixels[(size_t)y * picture.width + x];
}

static void draw(uint32_t width, uint32_t height)
{
	memset(pixels, 0xee, sizeof(pixels));
	vga_draw(regs, memory, &picture);
	CU_ASSERT_EQUAL_FATAL(picture.width, width);
	CU_ASSERT_EQUAL_FATAL(picture.height, height);
}

/* ------------------------------------------------------------------ registers */

static void test_registers(void)
{
	screen_open();
	CU_ASSERT_EQUAL(in8(0x3b4), 0); /* monochrome after reset */
	CU_ASSERT_EQUAL(in8(0x3d4), 0xff);
	mode_set(&mode3);
	CU_ASSERT_EQUAL(in8(0x3b4), 0xff);
	CU_ASSERT_EQUAL(in8(0x3cc), 0x67);
	for (uint8_t i = 0; i < 25; i++) {
		out8(0x3d4, i);
		CU_ASSERT_EQUAL(in8(0x3d5), mode3.crtc[i]);
	}
	/* the first eight are protected now, but for line compare's bit */
	indexed(0x3d4, 1, 0x11);
	indexed(0x3d4, 7, 0x00);
	out8(0x3d4, 1);
	CU_ASSERT_EQUAL(in8(0x3d5), 0x4f);
	out8(0x3d4, 7);
	CU_ASSERT_EQUAL(in8(0x3d5), 0x0f);
	out8(0x3d4, 0x3f);
	CU_ASSERT_EQUAL(in8(0x3d5), 0xff);
	/* the palette is not to be written while it shows */
	attr(0x25, 0x2a);
	in8(0x3da);
	out8(0x3c0, 0x25);
	CU_ASSERT_EQUAL(in8(0x3c1), 5);
	attr(0x05, 0x2a);
	out8(0x3c0, 0x25);
	CU_ASSERT_EQUAL(in8(0x3c1), 0x2a);
	/* the DAC: six bits, three at a time, and it goes on by itself */
	out8(0x3c7, 2);
	CU_ASSERT_EQUAL(in8(0x3c7), 3);
	CU_ASSERT_EQUAL(in8(0x3c9), 2);
	CU_ASSERT_EQUAL(in8(0x3c9), 1);
	CU_ASSERT_EQUAL(in8(0x3c9), 61);
	CU_ASSERT_EQUAL(in8(0x3c9), 3);
	out8(0x3c8, 255);
	CU_ASSERT_EQUAL(in8(0x3c7), 0);
	for (unsigned i = 0; i < 4; i++)
		out8(0x3c9, 0xff); /* round the end */
	out8(0x3c7, 0);
	CU_ASSERT_EQUAL(in8(0x3c9), 63);
	screen_close();
}

static void test_retrace(void)
{
	unsigned seen = 0;

	screen_open();
	out8(0x3c2, 1);
	/* both, within the time of some pictures */
	for (unsigned i = 0; i < 2000000 && seen != 3; i++)
		seen |= in8(0x3da) & 8 ? 2 : 1;
	CU_ASSERT_EQUAL(seen, 3);
	screen_close();
}

/* ------------------------------------------------------------------ text */

static void text_put(unsigned row, unsigned column, const char *s, uint8_t attribute)
{
	for (uint64_t gpa = TEXT + 2 * (row * 80 + column); *s; s++, gpa += 2)
		machine_mmio_write(m, gpa, (uint8_t)*s | (unsigned)attribute << 8, 2);
}

/* A glyph of full rows but the first, as the BIOS loads fonts: plane 2, flat. */
static void glyph_load(uint8_t c, uint8_t row)
{
	indexed(0x3c4, 2, 4);
	indexed(0x3c4, 4, 6);
	indexed(0x3ce, 5, 0);
	indexed(0x3ce, 6, 4);
	for (unsigned y = 1; y < 16; y++)
		machine_mmio_write(m, WINDOW + c * 32u + y, row, 1);
	indexed(0x3c4, 2, 3);
	indexed(0x3c4, 4, 2);
	indexed(0x3ce, 5, 0x10);
	indexed(0x3ce, 6, 0x0e);
}

static void test_text(void)
{
	char text[16384];
	uint64_t value;

	screen_open();
	mode_set(&mode3);
	for (unsigned row = 0; row < 25; row++)
		for (unsigned column = 0; column < 80; column++)
			text_put(row, column, " ", 7);
	text_put(0, 0, "Hello, world", 0x1e);
	text_put(24, 79, "!", 0x07);
	text_put(2, 3, "\x81\xc9", 0x07); /* of code page 437 */
	CU_ASSERT_TRUE(vga_text(regs, memory, text, sizeof(text)) > 0);
	CU_ASSERT_EQUAL(strncmp(text, "Hello, world\n\n   \u00fc\u2554\n\n", 22), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "!\n"));
	CU_ASSERT_EQUAL(vga_text(regs, memory, text, 0), 0);
	value = machine_mmio_read(m, TEXT, 4);
	CU_ASSERT_EQUAL(value, 'H' | 0x1e << 8 | 'e' << 16 | 0x1eu << 24);
	glyph_load('H', 0x81);
	glyph_load(0xc9, 0x01);
	draw(720, 400);
	CU_ASSERT_TRUE(picture.text);
	/* yellow (14 is palette entry 3Eh) on blue; the first row of the glyph is empty */
	CU_ASSERT_EQUAL(at(0, 0), dac_rgb(1));
	CU_ASSERT_EQUAL(at(0, 1), dac_rgb(0x3e));
	CU_ASSERT_EQUAL(at(1, 1), dac_rgb(1));
	CU_ASSERT_EQUAL(at(7, 15), dac_rgb(0x3e));
	CU_ASSERT_EQUAL(at(8, 15), dac_rgb(1));
	/* of the box's corner the ninth dot goes on */
	CU_ASSERT_EQUAL(at(9 * 4 + 7, 33), dac_rgb(7));
	CU_ASSERT_EQUAL(at(9 * 4 + 8, 33), dac_rgb(7));
	/* the cursor: lines 13 and 14 of the cell */
	indexed(0x3d4, 0x0f, 5);
	draw(720, 400);
	CU_ASSERT_EQUAL(at(9 * 5, 12), dac_rgb(1));
	CU_ASSERT_EQUAL(at(9 * 5, 13), dac_rgb(0x3e));
	CU_ASSERT_EQUAL(at(9 * 5, 15), dac_rgb(1));
	indexed(0x3d4, 0x0a, 0x2d);
	draw(720, 400);
	CU_ASSERT_EQUAL(at(9 * 5, 13), dac_rgb(1));
	/* scrolled by a line */
	indexed(0x3d4, 0x0d, 80);
	CU_ASSERT_TRUE(vga_text(regs, memory, text, sizeof(text)) > 0);
	CU_ASSERT_EQUAL(text[0], '\n');
	/* off */
	indexed(0x3c4, 1, 0x20);
	draw(720, 400);
	CU_ASSERT_EQUAL(at(0, 1), 0);
	CU_ASSERT_EQUAL(vga_text(regs, memory, text, sizeof(text)), 0);
	screen_close();
}

/* The same as characters with colours, for who shows it on a terminal. */
static void test_cells(void)
{
	static struct vga_cells cells;

	screen_open();
	CU_ASSERT_EQUAL(vga_cells_get(regs, memory, &cells), VGA_SHOWS_NOTHING);
	mode_set(&mode3);
	text_put(0, 0, "H", 0x1e);
	text_put(24, 79, "\xc9", 0x87);
	indexed(0x3d4, 0x0e, 7);
	indexed(0x3d4, 0x0f, 0xcf);
	CU_ASSERT_EQUAL(vga_cells_get(regs, memory, &cells), VGA_SHOWS_TEXT);
	CU_ASSERT_EQUAL(cells.columns, 80);
	CU_ASSERT_EQUAL(cells.rows, 25);
	CU_ASSERT_EQUAL(cells.cursor, 1999);
	CU_ASSERT_EQUAL(cells.cells[0].code, 'H');
	CU_ASSERT_EQUAL(cells.cells[0].fg, 14);
	CU_ASSERT_EQUAL(cells.cells[0].bg, 1);
	CU_ASSERT_FALSE(cells.cells[0].blink);
	CU_ASSERT_EQUAL(cells.cells[1999].code, 0x2554);
	CU_ASSERT_EQUAL(cells.cells[1999].fg, 7);
	CU_ASSERT_EQUAL(cells.cells[1999].bg, 0);
	CU_ASSERT_TRUE(cells.cells[1999].blink);
	/* bit 7 as a bright background instead */
	attr(0x10, 0x04);
	out8(0x3c0, 0x20);
	CU_ASSERT_EQUAL(vga_cells_get(regs, memory, &cells), VGA_SHOWS_TEXT);
	CU_ASSERT_EQUAL(cells.cells[1999].bg, 8);
	CU_ASSERT_FALSE(cells.cells[1999].blink);
	indexed(0x3d4, 0x0a, 0x2d);
	CU_ASSERT_EQUAL(vga_cells_get(regs, memory, &cells), VGA_SHOWS_TEXT);
	CU_ASSERT_EQUAL(cells.cursor, ~0u);
	mode_set(&mode13);
	CU_ASSERT_EQUAL(vga_cells_get(regs, memory, &cells), VGA_SHOWS_GRAPHICS);
	screen_close();
}

/* ------------------------------------------------------------------ graphics */

static void test_planar(void)
{
	screen_open();
	mode_set(&mode12);
	/* set/reset into all planes, through the bit mask */
	indexed(0x3ce, 0, 0x0b);
	indexed(0x3ce, 1, 0x0f);
	indexed(0x3ce, 8, 0xf0);
	machine_mmio_read(m, WINDOW + 80, 1);
	machine_mmio_write(m, WINDOW + 80, 0, 1);
	draw(640, 480);
	CU_ASSERT_FALSE(picture.text);
	CU_ASSERT_EQUAL(at(3, 1), dac_rgb(0x3b));
	CU_ASSERT_EQUAL(at(4, 1), dac_rgb(0));
	/* read mode 1 finds the colour */
	indexed(0x3ce, 2, 0x0b);
	indexed(0x3ce, 5, 0x08);
	CU_ASSERT_EQUAL(machine_mmio_read(m, WINDOW + 80, 1), 0xf0);
	/* write mode 2: the byte is a colour; exclusive or with what is there */
	indexed(0x3ce, 5, 0x02);
	indexed(0x3ce, 3, 0x18);
	indexed(0x3ce, 8, 0x80);
	machine_mmio_read(m, WINDOW + 80, 1);
	machine_mmio_write(m, WINDOW + 80, 0x0f, 1);
	draw(640, 480);
	CU_ASSERT_EQUAL(at(0, 1), dac_rgb(4));
	CU_ASSERT_EQUAL(at(1, 1), dac_rgb(0x3b));
	/* write mode 1: the latches, to the last line */
	indexed(0x3ce, 5, 0x01);
	machine_mmio_read(m, WINDOW + 80, 1);
	machine_mmio_write(m, WINDOW + 80 * 479, 0, 1);
	/* write mode 3: the byte is a mask; rotated by one */
	indexed(0x3ce, 5, 0x03);
	indexed(0x3ce, 3, 0x01);
	indexed(0x3ce, 8, 0xff);
	machine_mmio_read(m, WINDOW + 80 * 479 + 1, 1);
	machine_mmio_write(m, WINDOW + 80 * 479 + 1, 0x01, 1);
	draw(640, 480);
	CU_ASSERT_EQUAL(at(0, 479), dac_rgb(4));
	CU_ASSERT_EQUAL(at(3, 479), dac_rgb(0x3b));
	CU_ASSERT_EQUAL(at(8, 479), dac_rgb(0x3b));
	CU_ASSERT_EQUAL(at(9, 479), dac_rgb(0));
	/* map mask: one plane; the split line starts over at 0 */
	indexed(0x3ce, 0, 0);
	indexed(0x3ce, 1, 0);
	indexed(0x3ce, 5, 0);
	indexed(0x3ce, 3, 0);
	indexed(0x3c4, 2, 0x02);
	machine_mmio_write(m, WINDOW, 0x80, 1);
	indexed(0x3d4, 0x18, 99);
	indexed(0x3d4, 0x07, regs->crtc[7] & ~0x10);
	indexed(0x3d4, 0x09, 0x00);
	draw(640, 480);
	CU_ASSERT_EQUAL(at(0, 0), dac_rgb(2));
	CU_ASSERT_EQUAL(at(0, 100), dac_rgb(2));
	CU_ASSERT_EQUAL(at(0, 101), dac_rgb(4));
	screen_close();
}

static void test_chained(void)
{
	screen_open();
	mode_set(&mode13);
	for (unsigned i = 0; i < 256; i++)
		machine_mmio_write(m, WINDOW + 320 * 7 + i, i, 1);
	draw(320, 200);
	for (unsigned i = 0; i < 256; i++)
		CU_ASSERT_EQUAL(at(i, 7), dac_rgb(i));
	CU_ASSERT_EQUAL(machine_mmio_read(m, WINDOW + 320 * 7 + 4, 4), 0x07060504);
	/* planes of their own, bytes one after the other: what is called mode X */
	indexed(0x3c4, 4, 0x06);
	indexed(0x3d4, 0x14, 0x00);
	indexed(0x3d4, 0x17, 0xe3);
	indexed(0x3c4, 2, 0x02);
	machine_mmio_write(m, WINDOW + 80 * 9 + 5, 0x33, 1);
	draw(320, 200);
	CU_ASSERT_EQUAL(at(21, 9), dac_rgb(0x33));
	screen_close();
}

/* ------------------------------------------------------------------ linear modes */

static void vbe(uint16_t i, uint16_t v)
{
	machine_port_write(m, 0x1ce, i, 2);
	machine_port_write(m, 0x1cf, v, 2);
}

static uint16_t vbe_get(uint16_t i)
{
	machine_port_write(m, 0x1ce, i, 2);
	return (uint16_t)machine_port_read(m, 0x1cf, 2);
}

static void vbe_mode(uint16_t width, uint16_t height, uint16_t bpp)
{
	vbe(VBE_ENABLE, 0);
	vbe(VBE_WIDTH, width);
	vbe(VBE_HEIGHT, height);
	vbe(VBE_BPP, bpp);
	vbe(VBE_ENABLE, VBE_ENABLED | VBE_LINEAR);
}

static void test_linear(void)
{
	char text[64];

	screen_open();
	mode_set(&mode13);
	CU_ASSERT_EQUAL(vbe_get(VBE_ID), 0xb0c5);
	CU_ASSERT_EQUAL(vbe_get(VBE_MEMORY), 256);
	vbe(VBE_ENABLE, VBE_CAPS);
	CU_ASSERT_EQUAL(vbe_get(VBE_WIDTH), VBE_WIDTH_MAX);
	vbe_mode(1024, 768, 32);
	CU_ASSERT_EQUAL(vbe_get(VBE_ENABLE), VBE_ENABLED | VBE_LINEAR);
	vbe(VBE_WIDTH, 640); /* not now */
	CU_ASSERT_EQUAL(vbe_get(VBE_WIDTH), 1024);
	/* by the window, in its second bank */
	vbe(VBE_BANK, 1);
	machine_mmio_write(m, WINDOW + 8, 0x00123456, 4);
	draw(1024, 768);
	CU_ASSERT_EQUAL(at(2, 16), 0x123456);
	CU_ASSERT_EQUAL(vga_text(regs, memory, text, sizeof(text)), 0);
	/* moved */
	vbe(VBE_Y, 10);
	vbe(VBE_X, 1);
	draw(1024, 768);
	CU_ASSERT_EQUAL(at(1, 6), 0x123456);
	vbe_mode(800, 600, 16);
	CU_ASSERT_EQUAL(vbe_get(VBE_Y), 0);
	vbe(VBE_PITCH, 1024);
	CU_ASSERT_EQUAL(vbe_get(VBE_PITCH), 1024);
	CU_ASSERT_EQUAL(vbe_get(VBE_ROWS), (16 << 20) / 2048);
	machine_mmio_write(m, WINDOW + 2048 * 3 + 2, 0xf81f, 2);
	draw(800, 600);
	CU_ASSERT_EQUAL(at(1, 3), 0xff00ff);
	vbe_mode(640, 400, 8);
	machine_mmio_write(m, WINDOW + 640, 9, 1);
	draw(640, 400);
	CU_ASSERT_EQUAL(at(0, 1), dac_rgb(9));
	vbe_mode(320, 200, 15);
	machine_mmio_write(m, WINDOW, 0x7fff, 2);
	draw(320, 200);
	CU_ASSERT_EQUAL(at(0, 0), 0xffffff);
	/* what does not fit does not begin */
	vbe(VBE_ENABLE, 0);
	vbe(VBE_WIDTH, 4000);
	CU_ASSERT_EQUAL(vbe_get(VBE_WIDTH), 320);
	vbe(VBE_BPP, 7);
	CU_ASSERT_EQUAL(vbe_get(VBE_BPP), 15);
	vbe(VBE_WIDTH, 0);
	vbe(VBE_ENABLE, VBE_ENABLED);
	CU_ASSERT_EQUAL(vbe_get(VBE_ENABLE), 0);
	screen_close();
}

static void test_pci(void)
{
	uint32_t bar;

	screen_open();
	machine_port_write(m, 0xcf8, 0x80001000, 4);
	CU_ASSERT_EQUAL(machine_port_read(m, 0xcfc, 4), 0x11111234);
	machine_port_write(m, 0xcf8, 0x80001010, 4);
	bar = machine_port_read(m, 0xcfc, 4);
	CU_ASSERT_EQUAL(bar & 0xf, 8);
	bar &= ~0xfu;
	CU_ASSERT_FATAL(bar != 0);
	machine_mmio_write(m, bar + VGA_MEMORY - 4, 0xdeadbeef, 4);
	CU_ASSERT_EQUAL(machine_mmio_read(m, bar + VGA_MEMORY - 4, 4), 0xdeadbeef);
	CU_ASSERT_EQUAL(memory[VGA_MEMORY - 1], 0xde);
	screen_close();
}

static void test_move(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	struct machine *other;
	char before[16384], after[16384];
	void *file;

	screen_open();
	mode_set(&mode3);
	text_put(3, 0, "moved", 7);
	vga_text(regs, memory, before, sizeof(before));
	CU_ASSERT_EQUAL_FATAL(machine_save(m, &w), 0);
	other = machine_make(VMM_DEFAULT);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL_FATAL(machine_load(other, &r, why), 0);
	file = mmap(NULL, VGA_FILE_SIZE, PROT_READ, MAP_SHARED, machine_screen_fd(other), 0);
	CU_ASSERT_FATAL(file != MAP_FAILED);
	CU_ASSERT_TRUE(vga_text(file, (uint8_t *)file + VGA_REGS_SPACE, after, sizeof(after)) > 0);
	CU_ASSERT_STRING_EQUAL(before, after);
	munmap(file, VGA_FILE_SIZE);
	machine_destroy(other);
	state_writer_free(&w);
	screen_close();
}

/* Whatever is in the registers, a picture stays in its place. */
static void test_any(void)
{
	static struct vga_regs any;
	static struct vga_cells cells;
	static uint8_t noise[VGA_MEMORY];
	char text[300];
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)(i * 131 >> 3);
	for (unsigned n = 0; n < 150; n++) {
		for (size_t i = 0; i < sizeof(any); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			((uint8_t *)&any)[i] = (uint8_t)(x >> 24);
		}
		if (n % 3)
			any.vbe[VBE_ENABLE] = 0;
		else
			any.vbe[VBE_BPP] = 8 * (n % 5);
		vga_draw(&any, noise, &picture);
		CU_ASSERT_TRUE((uint64_t)picture.width * picture.height <= VGA_PICTURE_MAX);
		CU_ASSERT_TRUE(vga_text(&any, noise, text, sizeof(text)) < sizeof(text));
		if (vga_cells_get(&any, noise, &cells) == VGA_SHOWS_TEXT)
			CU_ASSERT_TRUE(cells.columns * cells.rows <= VGA_CELLS_MAX);
	}
}

static void test_none(void)
{
	struct machine *dark = machine_make(VMM_OFF);

	CU_ASSERT_EQUAL(machine_screen_fd(dark), -1);
	CU_ASSERT_EQUAL(machine_port_read(dark, 0x3cc, 1), 0xff);
	machine_destroy(dark);
}

static const struct unit_case cases[] = {
	{"registers", test_registers},
	{"retrace", test_retrace},
	{"text", test_text},
	{"text by its cells", test_cells},
	{"planes", test_planar},
	{"256 colours", test_chained},
	{"linear modes", test_linear},
	{"on PCI", test_pci},
	{"saved and loaded", test_move},
	{"pictures of any registers", test_any},
	{"no screen", test_none},
};

UNIT_MAIN("vga", cases)
