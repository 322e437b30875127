/* SPDX-License-Identifier: BSD-2-Clause */
#include "frontend-drivers/freestanding/virtio_pci_priv.h"

#define VIRTIO_VENDOR      0x1af4u
#define VIRTIO_DEVICE_BASE 0x1040u
#define PCI_CAP_VENDOR     0x09u
#define NO_VECTOR          0xffffu

/* Capability types (4.1.4) */
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4 };

#define CAPS_MAX       16u
#define RESET_SPIN_MAX 100000u

static int caps_walk(struct virtio_dev *d)
{
	unsigned at = 0;

	for (unsigned i = 0; i < CAPS_MAX; i++) {
		struct pci_bar bar;
		uint32_t offset;
		unsigned type;
		uintptr_t *to;

		at = pci_cap_find(&d->pci, PCI_CAP_VENDOR, at);
		if (!at)
			break;
		type = pci_read(&d->pci, at + 3, 1);
		to = type == CAP_COMMON   ? &d->common
		     : type == CAP_NOTIFY ? &d->notify
		     : type == CAP_ISR    ? &d->isr
		     : type == CAP_DEVICE ? &d->config
					  : NULL;
		/* The first of each type is the device's preference. */
		if (!to || *to)
			continue;
		pci_bar_get(&d->pci, pci_read(&d->pci, at + 4, 1) % 6, false, &bar);
		if (!bar.addr || bar.io)
			continue;
		offset = pci_read(&d->pci, at + 8, 4);
		*to = bar.addr + offset;
		if (type == CAP_NOTIFY)
			d->notify_multiplier = pci_read(&d->pci, at + 16, 4);
	}
	return d->common && d->notify && d->isr ? 0 : -GUEST_ENODEV;
}

static uint64_t features_read(const struct virtio_dev *d)
{
	uint64_t f;

	mmio_write32(d->common + VIRTIO_C_DEVICE_FEATURE_SELECT, 0);
	f = mmio_read32(d->common + VIRTIO_C_DEVICE_FEATURE);
	mmio_write32(d->common + VIRTIO_C_DEVICE_FEATURE_SELECT, 1);
	return f | (uint64_t)mmio_read32(d->common + VIRTIO_C_DEVICE_FEATURE) << 32;
}

/* Steps 1 to 6 of device initialization (3.1.1). */
static int negotiate(struct virtio_dev *d, unsigned type, uint64_t wanted)
{
	uint8_t status = VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER;

	mmio_write8(d->common + VIRTIO_C_STATUS, 0);
	for (unsigned i = 0; mmio_read8(d->common + VIRTIO_C_STATUS); i++)
		if (i == RESET_SPIN_MAX)
			return -GUEST_EIO;
	mmio_write8(d->common + VIRTIO_C_STATUS, VIRTIO_S_ACKNOWLEDGE);
	mmio_write8(d->common + VIRTIO_C_STATUS, status);
	d->features = virtio_features_prune(features_read(d) & wanted, type);
	if (!virtio_dev_has(d, VIRTIO_F_VERSION_1))
		return -GUEST_ENOTSUP;
	mmio_write32(d->common + VIRTIO_C_DRIVER_FEATURE_SELECT, 0);
	mmio_write32(d->common + VIRTIO_C_DRIVER_FEATURE, (uint32_t)d->features);
	mmio_write32(d->common + VIRTIO_C_DRIVER_FEATURE_SELECT, 1);
	mmio_write32(d->common + VIRTIO_C_DRIVER_FEATURE, (uint32_t)(d->features >> 32));
	status |= VIRTIO_S_FEATURES_OK;
	mmio_write8(d->common + VIRTIO_C_STATUS, status);
	return mmio_read8(d->common + VIRTIO_C_STATUS) & VIRTIO_S_FEATURES_OK ? 0 : -GUEST_ENOTSUP;
}

int virtio_dev_open(struct virtio_dev *d, unsigned type, unsigned index, uint64_t wanted,
	const struct frontend_virtio_options *o)
{
	int r;

	*d = (struct virtio_dev){0};
	r = pci_find(VIRTIO_VENDOR, (uint16_t)(VIRTIO_DEVICE_BASE + type), index, &d->pci);
	if (r)
		return r;
	r = caps_walk(d);
	if (r)
		return r;
	pci_command_set(&d->pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, PCI_COMMAND_NO_INTX);
	r = negotiate(d, type, wanted | virtio_ring_features(o));
	if (r)
		return r;
	pci_msix_init(&d->pci, &d->msix);
	d->use_msix = o->msix && d->msix.entries;
	if (d->msix.entries)
		pci_msix_enable(&d->msix, d->use_msix, false);
	if (d->use_msix) {
		mmio_write16(d->common + VIRTIO_C_CONFIG_VECTOR, NO_VECTOR);
	} else {
		d->line_vector = cpu_line_vector(d->pci.line, true);
		if (!d->line_vector)
			return -GUEST_ENOTSUP;
	}
	return 0;
}

static void write64(uintptr_t a, uint64_t v)
{
	mmio_write32(a, (uint32_t)v);
	mmio_write32(a + 4, (uint32_t)(v >> 32));
}

/* With too few MSI-X entries, the last is shared. */
static int queue_vector(struct virtio_dev *d, struct virtio_queue *q)
{
	unsigned entry = q->index < d->msix.entries ? q->index : d->msix.entries - 1;

	if (!d->queues[entry].vector) {
		d->queues[entry].vector = cpu_vector_alloc();
		if (!d->queues[entry].vector)
			return -GUEST_ENOSPC;
		pci_msix_set(&d->msix, entry, d->queues[entry].vector);
	}
	q->vector = d->queues[entry].vector;
	mmio_write16(d->common + VIRTIO_C_QUEUE_VECTOR, (uint16_t)entry);
	return mmio_read16(d->common + VIRTIO_C_QUEUE_VECTOR) == entry ? 0 : -GUEST_EIO;
}

int virtio_dev_queue(struct virtio_dev *d, unsigned n, unsigned segs)
{
	const bool packed = virtio_dev_has(d, VIRTIO_F_RING_PACKED);
	struct virtio_queue *q = &d->queues[n];
	struct ring_driver_config cfg = {.layout = packed ? RING_PACKED : RING_SPLIT};
	struct ring_geometry g;
	uint8_t *block;
	int r;

	if (n >= VIRTIO_QUEUES_MAX)
		return -GUEST_ENOSPC;
	*q = (struct virtio_queue){.index = (uint16_t)n, .doorbells = &d->doorbells};
	mmio_write16(d->common + VIRTIO_C_QUEUE_SELECT, (uint16_t)n);
	q->size = mmio_read16(d->common + VIRTIO_C_QUEUE_SIZE);
	if (!q->size)
		return -GUEST_ENODEV;
	if (q->size > VIRTIO_QUEUE_SIZE_MAX) {
		q->size = VIRTIO_QUEUE_SIZE_MAX;
		mmio_write16(d->common + VIRTIO_C_QUEUE_SIZE, (uint16_t)q->size);
	}
	cfg.size = q->size;
	cfg.features.event_idx = virtio_dev_has(d, VIRTIO_F_EVENT_IDX);
	cfg.features.indirect = segs > 1 && virtio_dev_has(d, VIRTIO_F_INDIRECT_DESC);
	cfg.features.in_order = virtio_dev_has(d, VIRTIO_F_IN_ORDER);
	ring_geometry_get(cfg.layout, cfg.size, &g);
	block = mem_alloc(g.bytes, 4096);
	cfg.slots = mem_alloc(q->size * sizeof(*cfg.slots), 64);
	if (!block || !cfg.slots)
		return -GUEST_ENOMEM;
	cfg.desc = block + g.desc;
	cfg.driver = block + g.driver;
	cfg.device = block + g.device;
	if (cfg.features.indirect) {
		cfg.indirect_max = segs;
		cfg.indirect = mem_alloc((size_t)q->size * segs * 16, 64);
		if (!cfg.indirect)
			return -GUEST_ENOMEM;
		cfg.indirect_gpa = mem_phys(cfg.indirect);
	}
	if (ring_driver_init(&q->ring, &cfg))
		return -GUEST_EINVAL;
	ring_driver_interrupt_off(&q->ring);
	write64(d->common + VIRTIO_C_QUEUE_DESC, mem_phys(cfg.desc));
	write64(d->common + VIRTIO_C_QUEUE_DRIVER, mem_phys(cfg.driver));
	write64(d->common + VIRTIO_C_QUEUE_DEVICE, mem_phys(cfg.device));
	if (d->use_msix) {
		r = queue_vector(d, q);
		if (r)
			return r;
	}
	q->notify = d->notify +
		    mmio_read16(d->common + VIRTIO_C_QUEUE_NOTIFY_OFF) * d->notify_multiplier;
	mmio_write16(d->common + VIRTIO_C_QUEUE_ENABLE, 1);
	d->nqueues = n + 1;
	return 0;
}

void virtio_dev_start(struct virtio_dev *d)
{
	mmio_write8(d->common + VIRTIO_C_STATUS,
		VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_FEATURES_OK | VIRTIO_S_DRIVER_OK);
}

bool virtio_dev_has(const struct virtio_dev *d, unsigned feature)
{
	return d->features >> feature & 1;
}

uint32_t virtio_dev_irqs(const struct virtio_dev *d)
{
	uint32_t sum = 0;

	if (!d->use_msix)
		return cpu_irq_count(d->line_vector);
	for (unsigned i = 0; i < d->nqueues && i < d->msix.entries; i++)
		sum += cpu_irq_count(d->queues[i].vector);
	return sum;
}

void virtio_dev_line_ack(struct virtio_dev *d)
{
	uint32_t n;

	if (d->use_msix)
		return;
	n = cpu_irq_count(d->line_vector);
	if (n == d->line_seen)
		return;
	d->line_seen = n;
	mmio_read8(d->isr);
}
