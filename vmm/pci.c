/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PCI bus (PCI Local Bus 3.0): configuration mechanism #1 (3.2.2.3.2), type 0 headers (6.1),
 * BARs that follow the guest (6.2.5), INTx through the PIIX3's PIRQ registers.
 *
 * A configuration access takes the device's lock; the address register is a single atomic word.
 */
#include <errno.h>
#include <string.h>
#include <sys/param.h>

#include "vmm/machine_priv.h"

#define PCI_CONFIG_ADDRESS 0xcf8u
#define PCI_ADDRESS_ENABLE 0x80000000u

enum {
	PCI_VENDOR_ID = 0x00,
	PCI_DEVICE_ID = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09,
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBVENDOR = 0x2c,
	PCI_SUBSYSTEM = 0x2e,
	PCI_CAP_POINTER = 0x34,
	PCI_INT_LINE = 0x3c,
	PCI_INT_PIN = 0x3d,
	PCI_CAPS = 0x40,
};

#define PCI_COMMAND_IO       0x001u
#define PCI_COMMAND_MEMORY   0x002u
#define PCI_COMMAND_MASTER   0x004u
#define PCI_COMMAND_NO_INTX  0x400u
#define PCI_COMMAND_WRITABLE 0x547u /* also parity and SERR#, which have no effect */
#define PCI_STATUS_INTX      0x08u
#define PCI_STATUS_CAPS      0x10u
#define PCI_MULTIFUNCTION    0x80u
#define PCI_BAR_IO           1u
#define PCI_BAR_PREFETCH     8u
#define PCI_PIRQ_OFF         0x80u
#define PCI_STATE_VERSION    1u

static uint16_t pci_get16(const struct pci_device *pci, unsigned offset)
{
	return pci->config[offset] | pci->config[offset + 1] << 8;
}

static uint32_t pci_get32(const struct pci_device *pci, unsigned offset)
{
	return pci_get16(pci, offset) | (uint32_t)pci_get16(pci, offset + 2) << 16;
}

static void pci_put(uint8_t *bytes, unsigned offset, uint32_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		bytes[offset + i] = value >> (8 * i);
}

/* ------------------------------------------------------------------ INTx */

/* The wiring of i440FX boards: device 1, INTA# is PIRQA, and so on round. */
static unsigned pci_pirq(const struct pci_device *pci)
{
	return (pci->slot + 3u + pci->config[PCI_INT_PIN] - 1u) & 3u;
}

static unsigned pci_pirq_gsi(uint8_t value)
{
	return value & PCI_PIRQ_OFF ? IRQ_GSI_NONE : value & 0xfu;
}

static void pci_intx_update(struct pci_device *pci)
{
	bool disabled = pci_get16(pci, PCI_COMMAND) & PCI_COMMAND_NO_INTX;

	if (!pci->has_intx)
		return;
	if (pci->intx_asserted)
		pci->config[PCI_STATUS] |= PCI_STATUS_INTX;
	else
		pci->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
	irq_source_set(&pci->intx, pci->intx_asserted && !disabled);
}

void pci_intx_set(struct pci_device *pci, bool asserted)
{
	if (pci->intx_asserted == asserted)
		return;
	pci->intx_asserted = asserted;
	if (asserted && pci->counters)
		counter_add(&pci->counters->interrupts, 1);
	pci_intx_update(pci);
}

void pci_pirq_set(struct machine *m, unsigned pirq, uint8_t value)
{
	m->pirq[pirq] = value;
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		for (unsigned f = 0; f < PCI_FUNCTIONS; f++) {
			struct pci_device *pci = m->pci[slot][f];

			if (pci && pci->has_intx && pci_pirq(pci) == pirq)
				irq_source_move(&pci->intx, pci_pirq_gsi(value));
		}
}

/* ------------------------------------------------------------------ BARs */

static bool pci_bar_address_valid(struct machine *m, const struct pci_bar *bar, uint64_t base)
{
	uint64_t end = base + bar->size;

	/* all ones is a sizing cycle, zero is nothing yet */
	if (!base || end > (bar->io ? 0x10000ull : 0x100000000ull) ||
		base == ((bar->io ? 0x10000ull : 0x100000000ull) - bar->size))
		return false;
	if (bar->io)
		return true;
	/* RAM and the interrupt controllers hide a BAR from the CPU */
	for (uint32_t i = 0; i < m->mem.nregions; i++)
		if (base < m->mem.regions[i].gpa + m->mem.regions[i].size &&
			m->mem.regions[i].gpa < end)
			return false;
	return end <= 0xFEC00000ull || base >= 0xFEF00000ull;
}

static void pci_bar_unmap(struct pci_device *pci, unsigned i)
{
	struct pci_bar *bar = &pci->bars[i];

	if (!bar->region.mapped)
		return;
	if (pci->ops && pci->ops->bar_mapped)
		pci->ops->bar_mapped(pci, i, false);
	bus_unmap(pci->machine, &bar->region);
}

static void pci_bar_update(struct pci_device *pci, unsigned i)
{
	struct pci_bar *bar = &pci->bars[i];
	uint16_t command = pci_get16(pci, PCI_COMMAND);
	bool decode = command & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY);
	uint64_t base =
		pci_get32(pci, PCI_BAR0 + 4 * i) & ~(bar->size - 1) & (bar->io ? ~3u : ~15u);

	if (!bar->size)
		return;
	decode = decode && pci_bar_address_valid(pci->machine, bar, base);
	if (bar->region.mapped && decode && bar->region.base == base)
		return;
	pci_bar_unmap(pci, i);
	if (!decode)
		return;
	bar->region.base = base;
	if (!bar->region.lock)
		bar->region.lock = pci->lock;
	if (bus_map(pci->machine, &bar->region) == 0 && pci->ops && pci->ops->bar_mapped)
		pci->ops->bar_mapped(pci, i, true);
}

static void pci_bars_update(struct pci_device *pci)
{
	for (unsigned i = 0; i < PCI_BARS; i++)
		pci_bar_update(pci, i);
}

struct pci_bar *pci_bar_init(struct pci_device *pci, unsigned i, uint32_t size, bool io)
{
	struct pci_bar *bar = &pci->bars[i];
	unsigned offset = PCI_BAR0 + 4 * i;

	bar->size = size;
	bar->io = io;
	bar->region.kind = io ? BUS_PIO : BUS_MMIO;
	bar->region.size = size;
	bar->region.lock = pci->lock;
	bar->region.counters = pci->counters;
	pci_put(pci->config, offset, io ? PCI_BAR_IO : 0, 4);
	pci_put(pci->writable, offset, ~(size - 1), 4);
	return bar;
}

/* ------------------------------------------------------------------ devices */

void pci_init(struct pci_device *pci, struct machine *m, pthread_mutex_t *lock, uint16_t vendor,
	uint16_t device, uint32_t class_code, uint8_t revision, uint16_t subvendor,
	uint16_t subdevice, uint8_t pin)
{
	pci->machine = m;
	pci->lock = lock;
	memset(pci->config, 0, sizeof(pci->config));
	memset(pci->writable, 0, sizeof(pci->writable));
	pci_put(pci->config, PCI_VENDOR_ID, vendor, 2);
	pci_put(pci->config, PCI_DEVICE_ID, device, 2);
	pci_put(pci->config, PCI_REVISION, revision, 1);
	pci_put(pci->config, PCI_CLASS, class_code, 3);
	pci_put(pci->config, PCI_SUBVENDOR, subvendor, 2);
	pci_put(pci->config, PCI_SUBSYSTEM, subdevice, 2);
	pci->config[PCI_INT_PIN] = pin;
	pci_put(pci->writable, PCI_COMMAND, PCI_COMMAND_WRITABLE, 2);
	pci->writable[0x0c] = 0xff; /* cache line size and latency timer: kept, without effect */
	pci->writable[0x0d] = 0xff;
	pci->writable[PCI_INT_LINE] = 0xff;
	pci->has_intx = pin != 0;
	pci->cap_last = 0;
	pci->cap_next = PCI_CAPS;
}

int pci_capability_add(struct pci_device *pci, uint8_t id, uint8_t len)
{
	unsigned offset = pci->cap_next;
	unsigned next = (offset + len + 3u) & ~3u;

	if (len < 2 || !offset || next > PCI_CFG_SIZE)
		return -ENOSPC;
	pci->config[offset] = id;
	pci->config[pci->cap_last ? pci->cap_last + 1 : PCI_CAP_POINTER] = offset;
	pci->config[PCI_STATUS] |= PCI_STATUS_CAPS;
	pci->cap_last = offset;
	pci->cap_next = next; /* 256 wraps to 0: full */
	return offset;
}

int pci_add(struct pci_device *pci, int slot, unsigned function)
{
	struct machine *m = pci->machine;

	if (slot < 0) {
		/* 0 is the host bridge, 1 the PIIX */
		for (slot = 2; slot < (int)PCI_SLOTS && m->pci[slot][function & 7]; slot++)
			;
		if (slot == PCI_SLOTS)
			return -ENOSPC;
	}
	if (slot >= (int)PCI_SLOTS || function >= PCI_FUNCTIONS)
		return -EINVAL;
	if (m->pci[slot][function])
		return -EEXIST;
	pci->slot = slot;
	pci->function = function;
	m->pci[slot][function] = pci;
	for (unsigned f = 1; f < PCI_FUNCTIONS; f++)
		if (m->pci[slot][f] && m->pci[slot][0])
			m->pci[slot][0]->config[PCI_HEADER_TYPE] |= PCI_MULTIFUNCTION;
	for (unsigned i = 0; i < PCI_BARS; i++) {
		if (!pci->bars[i].region.lock)
			pci->bars[i].region.lock = pci->lock;
		if (!pci->bars[i].region.counters)
			pci->bars[i].region.counters = pci->counters;
	}
	if (pci->has_intx)
		irq_source_init(&pci->intx, m, pci_pirq_gsi(m->pirq[pci_pirq(pci)]));
	return 0;
}

void pci_device_free(struct pci_device *pci)
{
	struct machine *m = pci->machine;

	for (unsigned i = 0; i < PCI_BARS; i++)
		pci_bar_unmap(pci, i);
	msix_free(pci);
	if (pci->has_intx)
		irq_source_set(&pci->intx, false);
	if (m && m->pci[pci->slot][pci->function] == pci)
		m->pci[pci->slot][pci->function] = NULL;
}

void pci_device_reset(struct pci_device *pci)
{
	for (unsigned i = 0; i < PCI_CFG_SIZE; i++)
		pci->config[i] &= (uint8_t)~pci->writable[i];
	pci->intx_asserted = false;
	pci_bars_update(pci);
	pci_intx_update(pci);
	msix_reset(pci);
}

/* In the section the caller has open, or else in one of its own. */
void pci_device_save(struct pci_device *pci, struct state_writer *w)
{
	bool own = !w->section;

	if (own)
		state_section_begin(w, "pci", PCI_STATE_VERSION);
	state_put_bytes(w, pci->config, sizeof(pci->config));
	state_put_u8(w, pci->intx_asserted);
	state_put_u8(w, pci->msix != NULL);
	if (pci->msix)
		msix_save(pci, w);
	if (own)
		state_section_end(w);
}

static void pci_fields_load(struct pci_device *pci, struct state_reader *r)
{
	uint8_t config[PCI_CFG_SIZE];
	bool asserted;

	memset(config, 0, sizeof(config));
	state_get_bytes(r, config, sizeof(config));
	asserted = state_get_u8(r);
	if ((state_get_u8(r) != 0) != (pci->msix != NULL) && !r->error)
		r->error = -EINVAL;
	if (!r->error && memcmp(config, pci->config, 4))
		r->error = -EINVAL; /* another device */
	if (r->error)
		return;
	/* what the guest could not have written stays as this machine made it */
	for (unsigned i = 0; i < PCI_CFG_SIZE; i++)
		pci->config[i] =
			(pci->config[i] & ~pci->writable[i]) | (config[i] & pci->writable[i]);
	pci->intx_asserted = pci->has_intx && asserted;
	pci_bars_update(pci);
	pci_intx_update(pci);
	if (pci->msix)
		msix_load(pci, r);
}

void pci_device_load(struct pci_device *pci, struct state_reader *r)
{
	bool own = !r->section_end;

	if (own)
		state_section_enter(r, "pci", PCI_STATE_VERSION);
	pci_fields_load(pci, r);
	if (own)
		state_section_leave(r);
}

/* ------------------------------------------------------------------ configuration space */

static bool pci_touches(unsigned offset, unsigned size, unsigned first, unsigned len)
{
	return offset < first + len && first < offset + size;
}

static uint32_t pci_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
	uint32_t value = 0;

	if (pci->ops && pci->ops->config_read && pci->ops->config_read(pci, offset, size, &value))
		return value;
	for (unsigned i = 0; i < size; i++)
		value |= (uint32_t)pci->config[offset + i] << (8 * i);
	return value;
}

static void pci_config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
	unsigned control = msix_control_offset(pci);

	if (pci->ops && pci->ops->config_write && pci->ops->config_write(pci, offset, size, value))
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t mask = pci->writable[offset + i];

		pci->config[offset + i] =
			(pci->config[offset + i] & ~mask) | ((value >> (8 * i)) & mask);
	}
	if (pci_touches(offset, size, PCI_COMMAND, 2)) {
		pci_bars_update(pci);
		pci_intx_update(pci);
	} else if (pci_touches(offset, size, PCI_BAR0, 4 * PCI_BARS)) {
		pci_bars_update(pci);
	}
	if (control && pci_touches(offset, size, control, 2))
		msix_control_changed(pci);
}

/* The device and register the address register selects; NULL: nobody there. */
static struct pci_device *pci_selected(
	struct machine *m, uint64_t port, unsigned size, unsigned *reg)
{
	uint32_t address = atomic_load(&m->pci_address);

	*reg = (address & 0xfcu) + (port & 3u);
	if (!(address & PCI_ADDRESS_ENABLE) || (address & 0xff0000u) || (port & 3u) + size > 4)
		return NULL;
	return m->pci[(address >> 11) & 31u][(address >> 8) & 7u];
}

static uint64_t pci_port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct machine *m = opaque;
	struct pci_device *pci;
	uint32_t value;
	unsigned reg;

	if (offset < 4) {
		/* only whole doublewords reach the address register; 0xCF9 is the reset control */
		if (offset == 0 && size == 4)
			return atomic_load(&m->pci_address);
		return offset == 1 && size == 1 ? 0 : UINT64_MAX;
	}
	pci = pci_selected(m, offset, size, &reg);
	if (!pci)
		return UINT64_MAX;
	pthread_mutex_lock(pci->lock);
	value = pci_config_read(pci, reg, size);
	pthread_mutex_unlock(pci->lock);
	return value;
}

static void pci_port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct machine *m = opaque;
	struct pci_device *pci;
	unsigned reg;

	if (offset < 4) {
		if (offset == 0 && size == 4)
			atomic_store(&m->pci_address, (uint32_t)value & 0x80fffffcu);
		else if (offset == 1 && size == 1)
			pm_reset_control_write(m, value);
		return;
	}
	pci = pci_selected(m, offset, size, &reg);
	if (!pci)
		return;
	pthread_mutex_lock(pci->lock);
	pci_config_write(pci, reg, size, value);
	pthread_mutex_unlock(pci->lock);
}

int pci_bus_create(struct machine *m)
{
	memset(m->pirq, PCI_PIRQ_OFF, sizeof(m->pirq));
	m->pci_region = (struct bus_region){
		.base = PCI_CONFIG_ADDRESS,
		.size = 8,
		.kind = BUS_PIO,
		.read = pci_port_read,
		.write = pci_port_write,
		.opaque = m,
	};
	return bus_map(m, &m->pci_region);
}

/* ------------------------------------------------------------------ what firmware would do */

static int pci_assign(struct pci_device *pci, uint64_t *next_io, uint64_t *next_memory)
{
	uint16_t command = PCI_COMMAND_MASTER;

	for (unsigned i = 0; i < PCI_BARS; i++) {
		struct pci_bar *bar = &pci->bars[i];
		uint64_t *next = bar->io ? next_io : next_memory;
		uint64_t end = bar->io ? MACHINE_PCI_IO_END : MACHINE_PCI_MMIO_END;
		uint64_t align = bar->io ? bar->size : MAX((uint64_t)bar->size, MACHINE_PAGE);
		uint64_t base = (*next + align - 1) & ~(align - 1);

		if (!bar->size)
			continue;
		if (base + align > end)
			return -ENOSPC;
		*next = base + align;
		pci_put(pci->config, PCI_BAR0 + 4 * i,
			base | (bar->io                ? PCI_BAR_IO
				       : bar->prefetch ? PCI_BAR_PREFETCH
						       : 0),
			4);
		command |= bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	}
	/* legacy functions (IDE) answer fixed ports too, so decoding is on for all */
	pci_put(pci->config, PCI_COMMAND, command | PCI_COMMAND_IO, 2);
	if (pci->has_intx)
		pci->config[PCI_INT_LINE] = pci_pirq_gsi(pci->machine->pirq[pci_pirq(pci)]);
	pci_bars_update(pci);
	pci_intx_update(pci);
	return 0;
}

int pci_assign_all(struct machine *m)
{
	static const uint8_t pirq_default[4] = {10, 11, 10, 11};
	uint64_t next_io = MACHINE_PCI_IO_BASE, next_memory = MACHINE_PCI_MMIO_BASE;
	int rc = 0;

	for (unsigned i = 0; i < 4; i++) {
		/* the PIIX3 shows them at 0x60 */
		if (m->pci[1][0])
			m->pci[1][0]->config[0x60 + i] = pirq_default[i];
		pci_pirq_set(m, i, pirq_default[i]);
	}
	for (unsigned slot = 0; slot < PCI_SLOTS && !rc; slot++)
		for (unsigned f = 0; f < PCI_FUNCTIONS && !rc; f++) {
			struct pci_device *pci = m->pci[slot][f];

			if (!pci)
				continue;
			pthread_mutex_lock(pci->lock);
			rc = pci_assign(pci, &next_io, &next_memory);
			pthread_mutex_unlock(pci->lock);
		}
	return rc;
}
