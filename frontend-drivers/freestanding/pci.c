/* SPDX-License-Identifier: BSD-2-Clause */
/* PCI configuration by mechanism 1 (PCI 3.0, 3.2.2.3.2), bus 0, and MSI-X (6.8.2). */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define PCI_ADDRESS 0xcf8u
#define PCI_DATA    0xcfcu

#define PCI_REG_CLASS  0x08u
#define PCI_REG_HEADER 0x0eu
#define PCI_REG_BAR0   0x10u
#define PCI_REG_CAPS   0x34u
#define PCI_REG_LINE   0x3cu

#define PCI_CAP_MSIX       0x11u
#define PCI_CAPS_MAX       48u
#define MSIX_ENABLE        0x8000u
#define MSIX_FUNCTION_MASK 0x4000u
#define MSIX_ENTRY_BYTES   16u
#define MSIX_ENTRY_CONTROL 12u
#define MSI_ADDRESS        0xfee00000u

/* Where base address registers go that firmware left above the 4 GiB that are mapped, 1 MiB for
 * each. */
static uint32_t bar_spare = 0xd0000000u;

static void select(const struct pci_dev *d, unsigned reg)
{
	io_out32(PCI_ADDRESS,
		0x80000000u | (uint32_t)d->slot << 11 | (uint32_t)d->fn << 8 | (reg & 0xfcu));
}

uint32_t pci_read(const struct pci_dev *d, unsigned reg, unsigned bytes)
{
	select(d, reg);
	if (bytes == 1)
		return io_in8(PCI_DATA + (reg & 3));
	if (bytes == 2)
		return io_in16(PCI_DATA + (reg & 2));
	return io_in32(PCI_DATA);
}

void pci_write(const struct pci_dev *d, unsigned reg, unsigned bytes, uint32_t v)
{
	select(d, reg);
	if (bytes == 1)
		io_out8(PCI_DATA + (reg & 3), (uint8_t)v);
	else if (bytes == 2)
		io_out16(PCI_DATA + (reg & 2), (uint16_t)v);
	else
		io_out32(PCI_DATA, v);
}

static bool probe(unsigned slot, unsigned fn, struct pci_dev *d)
{
	uint32_t id;

	*d = (struct pci_dev){.slot = (uint8_t)slot, .fn = (uint8_t)fn};
	id = pci_read(d, 0, 4);
	if (id == 0xffffffffu || id == 0)
		return false;
	d->vendor = (uint16_t)id;
	d->device = (uint16_t)(id >> 16);
	d->class = pci_read(d, PCI_REG_CLASS, 4) >> 8;
	d->line = (uint8_t)pci_read(d, PCI_REG_LINE, 1);
	return true;
}

/* cursor: slot * 8 + function. Functions above 0 are looked at only where function 0 says there are
 * some. */
bool pci_next(unsigned *cursor, struct pci_dev *out)
{
	while (*cursor < 32 * 8) {
		unsigned slot = *cursor / 8, fn = *cursor % 8;
		bool there = probe(slot, fn, out);

		if (fn)
			++*cursor;
		else if (there && pci_read(out, PCI_REG_HEADER, 1) & 0x80)
			++*cursor;
		else
			*cursor += 8;
		if (there)
			return true;
	}
	return false;
}

int pci_find(uint16_t vendor, uint16_t device, unsigned nth, struct pci_dev *out)
{
	unsigned cursor = 0;

	while (pci_next(&cursor, out))
		if (out->vendor == vendor && out->device == device && !nth--)
			return 0;
	return -GUEST_ENODEV;
}

void pci_bar_get(const struct pci_dev *d, unsigned n, bool sized, struct pci_bar *out)
{
	unsigned reg = PCI_REG_BAR0 + 4 * n;
	uint32_t low = pci_read(d, reg, 4);
	uint32_t mask;
	bool wide;

	*out = (struct pci_bar){.io = low & 1};
	wide = !out->io && (low & 6) == 4;
	out->addr = low & (out->io ? ~3u : ~15u);
	if (wide && n < 5 && pci_read(d, reg + 4, 4)) {
		bar_spare += 0x100000;
		pci_write(d, reg, 4, bar_spare);
		pci_write(d, reg + 4, 4, 0);
		out->addr = bar_spare;
	}
	if (!sized || !out->addr)
		return;
	pci_write(d, reg, 4, 0xffffffffu);
	mask = pci_read(d, reg, 4) & (out->io ? 0xfffcu : ~15u);
	pci_write(d, reg, 4, (uint32_t)out->addr | (low & 15));
	out->size = mask & (0 - mask);
}

unsigned pci_cap_find(const struct pci_dev *d, uint8_t id, unsigned from)
{
	unsigned at = pci_read(d, from ? from + 1 : PCI_REG_CAPS, 1) & 0xfc;

	for (unsigned i = 0; at >= 0x40 && i < PCI_CAPS_MAX; i++) {
		uint32_t head = pci_read(d, at, 2);

		if ((head & 0xff) == id)
			return at;
		at = head >> 8 & 0xfc;
	}
	return 0;
}

void pci_command_set(const struct pci_dev *d, uint16_t set, uint16_t clear)
{
	uint32_t was = pci_read(d, PCI_COMMAND, 2);
	uint32_t is = (was | set) & ~(uint32_t)clear;

	if (is != was)
		pci_write(d, PCI_COMMAND, 2, is);
}

void pci_msix_init(const struct pci_dev *d, struct pci_msix *m)
{
	struct pci_bar bar;
	uint32_t table, pending;

	*m = (struct pci_msix){.dev = *d};
	m->cap = pci_cap_find(d, PCI_CAP_MSIX, 0);
	if (!m->cap)
		return;
	table = pci_read(d, m->cap + 4, 4);
	pending = pci_read(d, m->cap + 8, 4);
	pci_bar_get(d, table & 7, false, &bar);
	if (!bar.addr)
		return;
	m->table = bar.addr + (table & ~7u);
	if ((pending & 7) != (table & 7))
		pci_bar_get(d, pending & 7, false, &bar);
	m->pending = bar.addr + (pending & ~7u);
	m->entries = (pci_read(d, m->cap + 2, 2) & 0x7ff) + 1;
}

void pci_msix_set(struct pci_msix *m, unsigned n, uint8_t vector)
{
	uintptr_t e = m->table + n * MSIX_ENTRY_BYTES;

	mmio_write32(e, MSI_ADDRESS);
	mmio_write32(e + 4, 0);
	mmio_write32(e + 8, vector);
	mmio_write32(e + MSIX_ENTRY_CONTROL, 0);
}

void pci_msix_mask(struct pci_msix *m, unsigned n, bool masked)
{
	mmio_write32(m->table + n * MSIX_ENTRY_BYTES + MSIX_ENTRY_CONTROL, masked);
}

void pci_msix_enable(struct pci_msix *m, bool on, bool function_mask)
{
	pci_write(&m->dev, m->cap + 2, 2,
		(on ? MSIX_ENABLE : 0) | (function_mask ? MSIX_FUNCTION_MASK : 0));
}

bool pci_msix_pending(const struct pci_msix *m, unsigned n)
{
	return mmio_read32(m->pending + n / 32 * 4) >> (n % 32) & 1;
}
