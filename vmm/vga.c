/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VGA (IBM PS/2 Hardware Interface Technical Reference, Video Subsystem, 1992) with the Bochs
 * display interface (vbe_spec.txt), on PCI with a linear frame buffer, as Bochs' and QEMU's "std"
 * are: 1234:1111. Registers and memory lie in a file that a process which shows them may map.
 *
 * The window at A0000h is the machine's: each access comes here, writes by the batch, as KVM
 * collects them. The linear frame buffer is memory for KVM: nothing comes here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <unistd.h>

#include "vmm/vga_priv.h"

#define WINDOW_BASE   0xA0000u
#define WINDOW_SIZE   0x20000u
#define PORT_MONO     0x3B0u
#define PORT_VGA      0x3C0u
#define PORT_COLOR    0x3D0u
#define PORT_VBE      0x1CEu
#define VBE_ID_FIRST  0xB0C0u
#define VBE_ID_LAST   0xB0C5u
#define PCI_SLOT_VGA  2
#define CHUNK         65536u
#define STATE_VERSION 1u

/* Sixty pictures a second, of 525 lines as in the 640x480 and text modes. */
#define FRAME_NS    16683000u
#define LINES       525u
#define LINES_SHOWN 480u
#define LINE_NS     (FRAME_NS / LINES)

static struct vga *vga_of(struct device *d)
{
	return (struct vga *)d;
}

/* ------------------------------------------------------------------ the linear frame buffer */

static uint64_t linear_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint64_t value = 0;

	memcpy(&value, v->memory + offset, size);
	return value;
}

static void linear_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	memcpy(((struct vga *)opaque)->memory + offset, &value, size);
}

/* ------------------------------------------------------------------ registers */

/* Input status 1: retraces, by the clock. */
static uint8_t status_read(struct vga *v)
{
	uint32_t in_frame = (uint32_t)(clock_now_ns() % FRAME_NS), line = in_frame / LINE_NS;
	bool vertical = line >= LINES_SHOWN, horizontal = in_frame % LINE_NS > LINE_NS * 4 / 5;

	v->r->attr_data = 0;
	return (vertical || horizontal ? 0x01 : 0) | (vertical ? 0x08 : 0);
}

static void crtc_write(struct vga_regs *r, uint8_t value)
{
	if (r->crtc_index >= VGA_CRTC_N)
		return;
	/* the first eight are protected, but for a bit of the line compare register */
	if (r->crtc[0x11] & 0x80 && r->crtc_index < 8) {
		if (r->crtc_index == 7)
			r->crtc[7] = (uint8_t)((r->crtc[7] & ~0x10) | (value & 0x10));
		return;
	}
	r->crtc[r->crtc_index] = value;
}

static void attr_write(struct vga_regs *r, uint8_t value)
{
	uint8_t i = r->attr_index & 0x1f;

	r->attr_data ^= 1;
	if (r->attr_data) {
		r->attr_index = value & 0x3f;
		return;
	}
	/* the palette takes writes while the screen does not use it */
	if (i < 16 && r->attr_index & 0x20)
		return;
	if (i < VGA_ATTR_N)
		r->attr[i] = value;
}

static uint8_t dac_read(struct vga_regs *r)
{
	uint8_t value = r->dac[r->dac_read * 3u + r->dac_sub];

	if (++r->dac_sub == 3) {
		r->dac_sub = 0;
		r->dac_read++;
	}
	return value;
}

static void dac_write(struct vga_regs *r, uint8_t value)
{
	bool wide = r->vbe[VBE_ENABLE] & VBE_8BIT_DAC;

	r->dac[r->dac_write * 3u + r->dac_sub] = wide ? value : value & 0x3f;
	if (++r->dac_sub == 3) {
		r->dac_sub = 0;
		r->dac_write++;
	}
}

/* The ports that follow the colour bit of the miscellaneous output register. */
static uint8_t crtc_port_read(struct vga *v, unsigned port)
{
	const struct vga_regs *r = v->r;

	switch (port) {
	case 4:
		return r->crtc_index;
	case 5:
		return r->crtc_index < VGA_CRTC_N ? r->crtc[r->crtc_index] : 0xff;
	case 0xa:
		return status_read(v);
	default:
		return 0xff;
	}
}

static void crtc_port_write(struct vga *v, unsigned port, uint8_t value)
{
	switch (port) {
	case 4:
		v->r->crtc_index = value & 0x3f;
		break;
	case 5:
		crtc_write(v->r, value);
		break;
	case 0xa:
		v->r->feature = value;
		break;
	default:
		break;
	}
}

static uint8_t vga_port_read(struct vga *v, unsigned port)
{
	struct vga_regs *r = v->r;
	uint8_t i = r->attr_index & 0x1f;

	switch (port) {
	case 0x0:
		return r->attr_data ? 0 : r->attr_index;
	case 0x1:
		return i < VGA_ATTR_N ? r->attr[i] : 0;
	case 0x2: /* input status 0: a colour monitor is sensed */
		return 0x10;
	case 0x4:
		return r->seq_index;
	case 0x5:
		return r->seq_index < VGA_SEQ_N ? r->seq[r->seq_index] : 0;
	case 0x6:
		return r->dac_mask;
	case 0x7:
		return r->dac_reading ? 0x03 : 0x00;
	case 0x8:
		return r->dac_write;
	case 0x9:
		return dac_read(r);
	case 0xa:
		return r->feature;
	case 0xc:
		return r->misc;
	case 0xe:
		return r->gc_index;
	case 0xf:
		return r->gc_index < VGA_GC_N ? r->gc[r->gc_index] : 0;
	default:
		return 0xff;
	}
}

static void vga_port_write(struct vga *v, unsigned port, uint8_t value)
{
	struct vga_regs *r = v->r;

	switch (port) {
	case 0x0:
	case 0x1:
		attr_write(r, value);
		break;
	case 0x2:
		r->misc = value;
		break;
	case 0x4:
		r->seq_index = value & 7;
		break;
	case 0x5:
		if (r->seq_index < VGA_SEQ_N)
			r->seq[r->seq_index] = value;
		break;
	case 0x6:
		r->dac_mask = value;
		break;
	case 0x7:
		r->dac_read = value;
		r->dac_sub = 0;
		r->dac_reading = 1;
		break;
	case 0x8:
		r->dac_write = value;
		r->dac_sub = 0;
		r->dac_reading = 0;
		break;
	case 0x9:
		dac_write(r, value);
		break;
	case 0xe:
		r->gc_index = value & 0x0f;
		break;
	case 0xf:
		if (r->gc_index < VGA_GC_N)
			r->gc[r->gc_index] = value;
		break;
	default:
		break;
	}
}

/* Of the two sets of CRTC ports one is there. */
static bool set_present(const struct vga *v, bool color)
{
	return (v->r->misc & 1) == color;
}

static uint64_t bytes_read(struct vga *v, uint8_t (*read)(struct vga *v, unsigned port),
	uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)read(v, (unsigned)offset + i) << (8 * i);
	return value;
}

static uint64_t mono_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;

	return set_present(v, false) ? bytes_read(v, crtc_port_read, offset, size) : ~0ull;
}

static uint64_t color_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;

	return set_present(v, true) ? bytes_read(v, crtc_port_read, offset, size) : ~0ull;
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	return bytes_read(opaque, vga_port_read, offset, size);
}

/* A word is an index and its data. */
static void mono_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size && set_present(opaque, false); i++)
		crtc_port_write(opaque, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

static void color_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size && set_present(opaque, true); i++)
		crtc_port_write(opaque, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		vga_port_write(opaque, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

/* ------------------------------------------------------------------ the display interface */

static uint64_t vbe_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct vga_regs *r = ((struct vga *)opaque)->r;
	uint16_t i = r->vbe_index;

	if (size != 2)
		return ~0ull;
	if (!offset)
		return i;
	if (r->vbe[VBE_ENABLE] & VBE_CAPS && i >= VBE_WIDTH && i <= VBE_BPP)
		return i == VBE_WIDTH ? VBE_WIDTH_MAX : i == VBE_HEIGHT ? VBE_HEIGHT_MAX : 32;
	return i < VBE_N ? r->vbe[i] : 0;
}

static bool vbe_bpp_valid(uint16_t bpp)
{
	return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* Bytes of a row of that many pixels. */
static uint32_t vbe_row(uint16_t bpp, uint32_t pixels)
{
	return bpp == 4 ? pixels / 2 : pixels * ((bpp + 7u) / 8);
}

/* How long a row may be, and how many there are then. */
static void vbe_pitch_set(struct vga_regs *r, uint32_t pixels)
{
	uint32_t row;

	pixels = MAX(pixels, r->vbe[VBE_WIDTH]) & ~7u;
	if (!pixels || vbe_row(r->vbe[VBE_BPP], pixels) * (uint64_t)r->vbe[VBE_HEIGHT] > VGA_MEMORY)
		return;
	row = vbe_row(r->vbe[VBE_BPP], pixels);
	r->vbe[VBE_PITCH] = (uint16_t)pixels;
	r->vbe[VBE_ROWS] = (uint16_t)MIN(VGA_MEMORY / row, 0xffffu);
}

static void vbe_enable(struct vga *v, uint16_t value)
{
	struct vga_regs *r = v->r;
	uint64_t bytes = vbe_row(r->vbe[VBE_BPP], r->vbe[VBE_WIDTH]) * (uint64_t)r->vbe[VBE_HEIGHT];

	if (value & VBE_ENABLED && !vga_vbe_on(v)) {
		if (!bytes || bytes > VGA_MEMORY)
			return;
		r->vbe[VBE_X] = r->vbe[VBE_Y] = r->vbe[VBE_BANK] = 0;
		vbe_pitch_set(r, r->vbe[VBE_WIDTH]);
		if (!(value & VBE_NO_CLEAR))
			memset(v->memory, 0, bytes);
	}
	r->vbe[VBE_ENABLE] =
		value & (VBE_ENABLED | VBE_CAPS | VBE_8BIT_DAC | VBE_LINEAR | VBE_NO_CLEAR);
}

static void vbe_write(void *opaque, uint64_t offset, uint64_t data, unsigned size)
{
	struct vga *v = opaque;
	struct vga_regs *r = v->r;
	uint16_t value = (uint16_t)data, i = r->vbe_index;

	if (size != 2)
		return;
	if (!offset) {
		r->vbe_index = value;
		return;
	}
	/* a mode is set while it is off */
	if (vga_vbe_on(v) && i >= VBE_WIDTH && i <= VBE_BPP)
		return;
	switch (i) {
	case VBE_ID:
		if (value >= VBE_ID_FIRST && value <= VBE_ID_LAST)
			r->vbe[i] = value;
		break;
	case VBE_WIDTH:
		if (value <= VBE_WIDTH_MAX && value % 8 == 0)
			r->vbe[i] = value;
		break;
	case VBE_HEIGHT:
		if (value <= VBE_HEIGHT_MAX)
			r->vbe[i] = value;
		break;
	case VBE_BPP:
		if (vbe_bpp_valid(value ? value : 8))
			r->vbe[i] = value ? value : 8;
		break;
	case VBE_ENABLE:
		vbe_enable(v, value);
		break;
	case VBE_BANK:
		r->vbe[i] = value & (VGA_MEMORY / 65536 - 1);
		break;
	case VBE_PITCH:
		vbe_pitch_set(r, value);
		break;
	case VBE_X:
	case VBE_Y:
		r->vbe[i] = value;
		break;
	default:
		break;
	}
}

/* ------------------------------------------------------------------ life */

static void linear_mapped(struct pci_device *pci, unsigned bar, bool mapped)
{
	struct vga *v = (struct vga *)((char *)pci - offsetof(struct vga, pci));
	struct kvm_slot s = {KVM_SLOT_VGA, pci->bars[bar].region.base, 0, v->memory, false};
	int rc = 0;

	if (pci->machine->vm_fd < 0 || v->slot == mapped)
		return;
	s.size = mapped ? VGA_MEMORY : 0;
	rc = kvm_slot_set(pci->machine, &s);
	/* without a slot each access comes here: slow, and right */
	v->slot = mapped && !rc;
}

static const struct pci_ops vga_pci_ops = {.bar_mapped = linear_mapped};

static void vga_reset(struct device *d)
{
	struct vga *v = vga_of(d);

	pthread_mutex_lock(&d->lock);
	/* the pages go back to the host, and are zero when they are touched again */
	if (fallocate(
		    v->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, VGA_REGS_SPACE, VGA_MEMORY))
		memset(v->memory, 0, VGA_MEMORY);
	*v->r = (struct vga_regs){
		.magic = VGA_MAGIC,
		.version = VGA_VERSION,
		.dac_mask = 0xff,
		.vbe = {[VBE_ID] = VBE_ID_LAST, [VBE_BPP] = 8, [VBE_MEMORY] = VGA_MEMORY / 65536},
	};
	pci_device_reset(&v->pci);
	pthread_mutex_unlock(&d->lock);
}

static bool chunk_empty(const uint8_t *bytes)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, CHUNK - 1);
}

static void vga_save(struct device *d, struct state_writer *w)
{
	struct vga *v = vga_of(d);

	state_section_begin(w, d->name, STATE_VERSION);
	state_put_bytes(w, v->r, sizeof(*v->r));
	for (uint32_t at = 0; at < VGA_MEMORY; at += CHUNK) {
		bool empty = chunk_empty(v->memory + at);

		state_put_u8(w, !empty);
		if (!empty)
			state_put_bytes(w, v->memory + at, CHUNK);
	}
	pci_device_save(&v->pci, w);
	state_section_end(w);
}

static void vga_load(struct device *d, struct state_reader *r)
{
	struct vga *v = vga_of(d);
	struct vga_regs regs = {0};

	state_section_enter(r, d->name, STATE_VERSION);
	state_get_bytes(r, &regs, sizeof(regs));
	for (uint32_t at = 0; at < VGA_MEMORY && !r->error; at += CHUNK) {
		if (state_get_u8(r) & 1)
			state_get_bytes(r, v->memory + at, CHUNK);
		else
			memset(v->memory + at, 0, CHUNK);
	}
	pci_device_load(&v->pci, r);
	state_section_leave(r);
	/* what is an index is checked where it is used, but for these */
	if (!r->error &&
		(regs.magic != VGA_MAGIC || regs.version != VGA_VERSION || regs.dac_sub > 2 ||
			regs.attr_data > 1 || !vbe_bpp_valid(regs.vbe[VBE_BPP]) ||
			regs.vbe[VBE_WIDTH] > VBE_WIDTH_MAX ||
			regs.vbe[VBE_HEIGHT] > VBE_HEIGHT_MAX))
		r->error = -EINVAL;
	if (!r->error)
		*v->r = regs;
}

static void vga_destroy(struct device *d)
{
	struct vga *v = vga_of(d);
	struct bus_region *regions[] = {&v->window, &v->mono, &v->port, &v->color, &v->vbe};

	for (size_t i = 0; i < sizeof(regions) / sizeof(regions[0]); i++)
		bus_unmap(d->machine, regions[i]);
	pci_device_free(&v->pci);
	if (v->r)
		munmap(v->r, VGA_FILE_SIZE);
	if (v->fd >= 0)
		close(v->fd);
	d->machine->vga_fd = -1;
	free(v);
}

static const struct device_ops vga_ops = {
	.reset = vga_reset,
	.save = vga_save,
	.load = vga_load,
	.destroy = vga_destroy,
};

static int vga_file_make(struct vga *v)
{
	void *file;

	v->fd = memfd_create("vga", MFD_CLOEXEC);
	if (v->fd < 0)
		return -errno;
	if (ftruncate(v->fd, VGA_FILE_SIZE))
		return -errno;
	file = mmap(NULL, VGA_FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (file == MAP_FAILED)
		return -errno;
	v->r = file;
	v->memory = (uint8_t *)file + VGA_REGS_SPACE;
	return 0;
}

static int vga_map(struct vga *v, struct bus_region *r, struct bus_region as)
{
	*r = as;
	r->opaque = v;
	r->lock = &v->device.lock;
	r->counters = &v->device.counters;
	return bus_map(v->device.machine, r);
}

static int vga_ports_map(struct vga *v)
{
	/* what is written shows up when somebody looks, and who reads gets it first */
	static const struct bus_span posted[] = {{0, WINDOW_SIZE}, {0, 0}};
	int rc = vga_map(v, &v->window,
		(struct bus_region){.base = WINDOW_BASE,
			.size = WINDOW_SIZE,
			.kind = BUS_MMIO,
			.read = vga_window_read,
			.write = vga_window_write,
			.posted = posted});

	if (!rc)
		rc = vga_map(v, &v->mono,
			(struct bus_region){.base = PORT_MONO,
				.size = 12,
				.read = mono_read,
				.write = mono_write});
	if (!rc)
		rc = vga_map(v, &v->port,
			(struct bus_region){.base = PORT_VGA,
				.size = 16,
				.read = port_read,
				.write = port_write});
	if (!rc)
		rc = vga_map(v, &v->color,
			(struct bus_region){.base = PORT_COLOR,
				.size = 12,
				.read = color_read,
				.write = color_write});
	if (!rc)
		rc = vga_map(v, &v->vbe,
			(struct bus_region){
				.base = PORT_VBE, .size = 3, .read = vbe_read, .write = vbe_write});
	return rc;
}

int vga_create(struct machine *m)
{
	struct vga *v = calloc(1, sizeof(*v));
	struct pci_bar *bar;
	int rc;

	if (!v)
		return -ENOMEM;
	v->fd = -1;
	rc = vga_file_make(v);
	if (rc) {
		if (v->fd >= 0)
			close(v->fd);
		free(v);
		return rc;
	}
	device_add(m, &v->device, &vga_ops, "vga");
	m->vga_fd = v->fd;
	pci_init(&v->pci, m, &v->device.lock, 0x1234, 0x1111, 0x030000, 2, 0x1af4, 0x1100, 0);
	v->pci.ops = &vga_pci_ops;
	bar = pci_bar_init(&v->pci, 0, VGA_MEMORY, false);
	bar->prefetch = true;
	bar->region.read = linear_read;
	bar->region.write = linear_write;
	bar->region.opaque = v;
	bar->region.counters = &v->device.counters;
	rc = pci_add(&v->pci, PCI_SLOT_VGA, 0);
	if (!rc)
		rc = vga_ports_map(v);
	if (!rc)
		vga_reset(&v->device);
	return rc;
}
