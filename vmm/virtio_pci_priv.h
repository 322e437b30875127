/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio over PCI transport (virtio 1.2 section 4.1), modern interface only: joins one split
 * device of backend/ to the PCI bus. Shared by the virtio_pci*.c files.
 *
 * Threads: registers are used by vCPU threads under the device's lock, and may wait for the I/O
 * thread to take note of features or a queue (never for storage). The signal functions run on that
 * thread, and so never wait for the lock.
 */
#ifndef VIRTIO_PCI_PRIV_H
#define VIRTIO_PCI_PRIV_H

#include "vmm/vmm_priv.h"

#define VIRTIO_PCI_VENDOR    0x1af4u
#define VIRTIO_PCI_DEVICE    0x1040u /* plus the virtio device id */
#define VIRTIO_PCI_SUBSYSTEM 0x1100u
#define VIRTIO_PCI_NO_VECTOR 0xffffu

/* BARs, and what lies where in the memory BAR. */
enum {
	VP_BAR_MSIX = 1,
	VP_BAR = 4,
	VP_COMMON = 0x0000,
	VP_ISR = 0x1000,
	VP_DEVICE = 0x2000,
	VP_NOTIFY = 0x3000,
	VP_BAR_SIZE = 0x4000,
	VP_NOTIFY_STEP = 4, /* notify_off_multiplier */
};

/* Device status, 2.1. */
enum {
	VP_ACKNOWLEDGE = 1,
	VP_DRIVER = 2,
	VP_DRIVER_OK = 4,
	VP_FEATURES_OK = 8,
	VP_NEEDS_RESET = 0x40,
	VP_FAILED = 0x80,
};

/* ISR status, 4.1.4.5. */
enum { VP_ISR_QUEUE = 1, VP_ISR_CONFIG = 2 };

/* What the I/O thread has to tell. */
enum { VP_EVENT_QUEUE = 1, VP_EVENT_CONFIG = 2, VP_EVENT_BROKEN = 4, VP_EVENT_RESET = 8 };

struct virtio_pci_queue {
	uint32_t size;
	uint64_t desc, driver, device;
	_Atomic uint16_t vector; /* read by the I/O thread without the lock */
	bool enabled;
	bool started; /* the backend runs it */
	bool restore; /* state is where it stopped, to go on from there */
	struct ring_device_state state;
	int bell_fd;
	bool bell_on; /* bell is with KVM */
	struct bus_doorbell bell;
};

struct virtio_pci {
	struct device dev; /* first */
	struct pci_device pci;
	struct split_device *split;
	struct split_signal signal;
	struct io_work deliver;
	_Atomic unsigned events;
	unsigned nqueues;
	struct virtio_pci_queue *queues;

	uint8_t status;
	uint8_t isr;
	uint8_t generation;
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select;
	_Atomic uint16_t config_vector;

	bool resetting; /* the driver wrote 0 and the backend is not done yet */
	pthread_cond_t reset_cond;
	bool quiesced;
	bool bar_mapped;
	uint8_t window; /* offset of the PCI_CFG capability */
};

static inline struct virtio_pci *virtio_pci_of(struct pci_device *pci)
{
	return (struct virtio_pci *)((char *)pci - offsetof(struct virtio_pci, pci));
}

/* virtio_pci.c; all under the device's lock unless said otherwise */

/* The driver wrote the status register. */
void virtio_pci_status_write(struct virtio_pci *vp, uint8_t value);
/* Starts a queue the driver has enabled, when the device is live; else does nothing. */
void virtio_pci_queue_start(struct virtio_pci *vp, unsigned i);
/* Brings the ioeventfds in line with what is enabled and where the BAR is. */
void virtio_pci_bells_sync(struct virtio_pci *vp);
/* Registers to power-on values; the backend is told elsewhere. */
void virtio_pci_registers_reset(struct virtio_pci *vp);
/* The driver broke the protocol: counted. */
void virtio_pci_mistake(struct virtio_pci *vp);
/* Waits until the backend has forgotten everything. No lock held; not on vCPU or I/O threads. */
void virtio_pci_backend_reset_wait(struct virtio_pci *vp);
enum ring_layout virtio_pci_layout(const struct virtio_pci *vp);

/* Builds the device around a split device made by make(), which is given vp->signal. */
struct virtio_pci_maker {
	uint32_t virtio_id;
	uint32_t class_code;
	int (*make)(struct virtio_pci *vp, const void *args, char why[VMM_WHY_MAX]);
	const void *args;
	const char *name;
};
int virtio_pci_create(struct machine *m, const struct virtio_pci_maker *maker, struct device **out,
	char why[VMM_WHY_MAX]);

/* virtio_pci_models.c: for the makers of all models */
int virtio_pci_queue_size_check(const char *option, unsigned size, char why[VMM_WHY_MAX]);
int virtio_pci_queues_check(
	const char *option, unsigned queues, unsigned max, char why[VMM_WHY_MAX]);

/* virtio_pci_config.c: register accesses, under the device's lock */
uint64_t virtio_pci_bar_read(void *opaque, uint64_t offset, unsigned size);
void virtio_pci_bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size);
bool virtio_pci_window_read(
	struct pci_device *pci, unsigned offset, unsigned size, uint32_t *value);
bool virtio_pci_window_write(
	struct pci_device *pci, unsigned offset, unsigned size, uint32_t value);
/* Adds the five vendor capabilities. */
int virtio_pci_capabilities_add(struct virtio_pci *vp);

/* virtio_pci_state.c: quiesced, no lock held */
void virtio_pci_save(struct device *d, struct state_writer *w);
void virtio_pci_load(struct device *d, struct state_reader *r);

#endif
