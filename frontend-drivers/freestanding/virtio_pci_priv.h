/* SPDX-License-Identifier: BSD-2-Clause */
/* The modern virtio-pci transport (virtio 1.2, 4.1) and its queues. Private to this folder. */
#ifndef FRONTEND_VIRTIO_PCI_PRIV_H
#define FRONTEND_VIRTIO_PCI_PRIV_H

#include "frontend-drivers/frontend.h"

#define VIRTIO_QUEUES_MAX     32u
#define VIRTIO_QUEUE_SIZE_MAX 1024u

struct virtio_queue {
	struct ring_driver ring;
	uintptr_t notify;
	uint16_t index;
	uint8_t vector; /* with MSI-X, else 0 */
	uint32_t size;
	uint64_t *doorbells;
};

struct virtio_dev {
	struct pci_dev pci;
	struct pci_msix msix;
	uintptr_t common;
	uintptr_t isr;
	uintptr_t config;
	uintptr_t notify;
	uint32_t notify_multiplier;
	uint64_t features;
	bool use_msix;
	uint8_t line_vector; /* without MSI-X */
	uint32_t line_seen;  /* interrupts on the line answered so far */
	unsigned nqueues;
	struct virtio_queue queues[VIRTIO_QUEUES_MAX];
	uint64_t doorbells;
};

/* Finds the nth function with this virtio device type, resets it and negotiates `wanted`. */
int virtio_dev_open(struct virtio_dev *d, unsigned type, unsigned index, uint64_t wanted,
	const struct frontend_virtio_options *o);
/* Queue `n` (they are made in ascending order), indirect tables of `segs` entries when negotiated.
 */
int virtio_dev_queue(struct virtio_dev *d, unsigned n, unsigned segs);
void virtio_dev_start(struct virtio_dev *d);
bool virtio_dev_has(const struct virtio_dev *d, unsigned feature);
uint32_t virtio_dev_irqs(const struct virtio_dev *d);

/* Answers an interrupt on the line, if one came: reads the ISR, which quiets the device. */
void virtio_dev_line_ack(struct virtio_dev *d);

/* Publishes what was added, and rings when the device asks for it. */
static inline void virtio_queue_flush(struct virtio_queue *q)
{
	ring_driver_publish(&q->ring);
	if (ring_driver_needs_doorbell(&q->ring)) {
		++*q->doorbells;
		mmio_write16(q->notify, q->index);
	}
}

#endif
