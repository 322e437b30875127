/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VGA: ports, the window, the display interface, with pictures, saving and loading in between.
 * Input: groups of four bytes. First byte: bits 0-3 what, bits 4-5 size (1, 2, 4; 3: a picture, or
 * save and load), bit 6 write; then where, and the value.
 */
#include "tests/fuzz/fuzz_machine_rig.h"

#define OPERATIONS_MAX 2048u
#define PICTURES_MAX   4u
#define TEXT_ROOM      4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct vga_regs *regs;

static struct machine *fuzz_machine(void)
{
	struct machine *m = fuzz_firmware_machine();
	void *file;

	if (regs)
		return m;
	file = mmap(NULL, VGA_FILE_SIZE, PROT_READ, MAP_SHARED, machine_screen_fd(m), 0);
	if (file == MAP_FAILED)
		abort();
	regs = file;
	return m;
}

static void fuzz_picture(void)
{
	static uint32_t pixels[VGA_PICTURE_MAX];
	const uint8_t *memory = (const uint8_t *)regs + VGA_REGS_SPACE;
	struct vga_picture p = {.pixels = pixels};
	char text[TEXT_ROOM];

	vga_draw(regs, memory, &p);
	if ((uint64_t)p.width * p.height > VGA_PICTURE_MAX ||
		vga_text(regs, memory, text, sizeof(text)) >= sizeof(text))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m = fuzz_machine();
	unsigned pictures = 0;

	for (size_t i = 0; i + 3 < size && i < 4 * OPERATIONS_MAX; i += 4) {
		unsigned what = data[i] & 15, shift = data[i] >> 4 & 3;
		uint32_t value = data[i + 2] | data[i + 3] << 8, at = data[i + 1];
		uint16_t port = (uint16_t)(what < 4 ? 0x1ce + at % 3 : 0x3b0 + at % 0x2c);
		uint64_t gpa = 0xa0000 + (at << 9 | (value & 0x1ff));

		if (shift == 3) {
			if (pictures++ >= PICTURES_MAX)
				continue;
			if (what & 1)
				fuzz_save_load(m);
			else
				fuzz_picture();
		} else if (what >= 12) {
			if (data[i] & 0x40)
				machine_mmio_write(m, gpa, value * 0x10001, 1u << shift);
			else
				machine_mmio_read(m, gpa, 1u << shift);
		} else if (data[i] & 0x40) {
			machine_port_write(m, port, value, 1u << shift);
		} else {
			machine_port_read(m, port, 1u << shift);
		}
	}
	fuzz_picture();
	return 0;
}
