/* SPDX-License-Identifier: BSD-2-Clause */
/* What the VGA's files share: the device, and its window (vga_window.c). All under its lock. */
#ifndef VGA_PRIV_H
#define VGA_PRIV_H

#include "vmm/machine_priv.h"
#include "vmm/vga.h"

struct vga {
	struct device device;
	struct pci_device pci;
	struct bus_region window, mono, port, color, vbe;
	struct vga_regs *r; /* in the file */
	uint8_t *memory;
	int fd;
	bool slot; /* KVM has the linear frame buffer */
};

static inline bool vga_vbe_on(const struct vga *v)
{
	return v->r->vbe[VBE_ENABLE] & VBE_ENABLED;
}

/* The window at A0000h, as a bus region's handlers. */
uint64_t vga_window_read(void *opaque, uint64_t offset, unsigned size);
void vga_window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size);

#endif
