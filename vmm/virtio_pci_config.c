/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers of a virtio PCI device: virtio 1.2, sections 4.1.4.3 to 4.1.4.9. */
#include <string.h>

#include "vmm/virtio_pci_priv.h"

/* Common configuration, 4.1.4.3. */
enum {
	C_DEVICE_FEATURE_SELECT = 0x00,
	C_DEVICE_FEATURE = 0x04,
	C_DRIVER_FEATURE_SELECT = 0x08,
	C_DRIVER_FEATURE = 0x0c,
	C_CONFIG_VECTOR = 0x10,
	C_NUM_QUEUES = 0x12,
	C_STATUS = 0x14,
	C_GENERATION = 0x15,
	C_QUEUE_SELECT = 0x16,
	C_QUEUE_SIZE = 0x18,
	C_QUEUE_VECTOR = 0x1a,
	C_QUEUE_ENABLE = 0x1c,
	C_QUEUE_NOTIFY_OFF = 0x1e,
	C_QUEUE_DESC = 0x20,
	C_QUEUE_DRIVER = 0x28,
	C_QUEUE_DEVICE = 0x30,
	C_SIZE = 0x3c, /* with queue_notify_data and queue_reset, which read 0: not offered */
};

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)v);
	put16(p + 2, (uint16_t)(v >> 16));
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get_bytes(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static struct virtio_pci_queue *queue_selected(struct virtio_pci *vp)
{
	return vp->queue_select < vp->nqueues ? &vp->queues[vp->queue_select] : NULL;
}

/* ------------------------------------------------------------------ common configuration */

static uint32_t feature_window(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

/* No common register has a side effect when read, so any width and offset is cut from an image. */
static uint64_t common_read(struct virtio_pci *vp, uint32_t offset, unsigned size)
{
	uint8_t image[C_SIZE + 8] = {0};
	const struct virtio_pci_queue *q = queue_selected(vp);

	if (offset + size > sizeof(image))
		return 0;
	put32(image + C_DEVICE_FEATURE_SELECT, vp->device_feature_select);
	put32(image + C_DEVICE_FEATURE,
		feature_window(vp->split->features, vp->device_feature_select));
	put32(image + C_DRIVER_FEATURE_SELECT, vp->driver_feature_select);
	put32(image + C_DRIVER_FEATURE,
		feature_window(vp->driver_features, vp->driver_feature_select));
	put16(image + C_CONFIG_VECTOR, vp->config_vector);
	put16(image + C_NUM_QUEUES, (uint16_t)vp->nqueues);
	image[C_STATUS] = vp->status;
	image[C_GENERATION] = vp->generation;
	put16(image + C_QUEUE_SELECT, vp->queue_select);
	if (q) {
		put16(image + C_QUEUE_SIZE, (uint16_t)q->size);
		put16(image + C_QUEUE_VECTOR, q->vector);
		put16(image + C_QUEUE_ENABLE, q->enabled);
		put16(image + C_QUEUE_NOTIFY_OFF, vp->queue_select);
		put64(image + C_QUEUE_DESC, q->desc);
		put64(image + C_QUEUE_DRIVER, q->driver);
		put64(image + C_QUEUE_DEVICE, q->device);
	} else {
		put16(image + C_QUEUE_VECTOR, VIRTIO_PCI_NO_VECTOR);
	}
	return get_bytes(image + offset, size);
}

static void driver_feature_write(struct virtio_pci *vp, uint32_t value)
{
	unsigned shift = 32 * vp->driver_feature_select;

	/* settled once accepted (3.1.1) */
	if (vp->driver_feature_select > 1 || vp->status & VP_FEATURES_OK)
		return;
	vp->driver_features &= ~(0xffffffffull << shift);
	vp->driver_features |= (uint64_t)value << shift;
}

static uint16_t vector_check(const struct virtio_pci *vp, uint16_t vector)
{
	/* 4.1.5.1.2: a vector the device cannot map reads back as none; one for each queue and
	 * one for the configuration */
	return vector <= vp->nqueues ? vector : VIRTIO_PCI_NO_VECTOR;
}

static void queue_size_write(struct virtio_pci *vp, struct virtio_pci_queue *q, uint16_t size)
{
	if (q->enabled)
		return;
	if (size > vp->split->queue_size_max || !ring_size_valid(virtio_pci_layout(vp), size)) {
		virtio_pci_mistake(vp);
		return;
	}
	q->size = size;
}

static void queue_enable_write(struct virtio_pci *vp, struct virtio_pci_queue *q, uint16_t value)
{
	/* 4.1.4.3.2: the driver must not write 0; only a device reset turns a queue off */
	if (value != 1 || q->enabled)
		return;
	q->enabled = true;
	virtio_pci_queue_start(vp, vp->queue_select);
	virtio_pci_bells_sync(vp);
}

static void half_write(struct virtio_pci_queue *q, uint64_t *address, bool high, uint32_t value)
{
	if (q->enabled)
		return;
	if (high)
		*address = (*address & 0xffffffffull) | (uint64_t)value << 32;
	else
		*address = (*address & ~0xffffffffull) | value;
}

static void queue_field_write(struct virtio_pci *vp, uint32_t offset, uint32_t value)
{
	struct virtio_pci_queue *q = queue_selected(vp);

	if (!q)
		return;
	switch (offset) {
	case C_QUEUE_SIZE:
		queue_size_write(vp, q, (uint16_t)value);
		break;
	case C_QUEUE_VECTOR:
		q->vector = vector_check(vp, (uint16_t)value);
		split_signal_changed(vp->split);
		break;
	case C_QUEUE_ENABLE:
		queue_enable_write(vp, q, (uint16_t)value);
		break;
	case C_QUEUE_DESC:
	case C_QUEUE_DESC + 4:
		half_write(q, &q->desc, offset != C_QUEUE_DESC, value);
		break;
	case C_QUEUE_DRIVER:
	case C_QUEUE_DRIVER + 4:
		half_write(q, &q->driver, offset != C_QUEUE_DRIVER, value);
		break;
	case C_QUEUE_DEVICE:
	case C_QUEUE_DEVICE + 4:
		half_write(q, &q->device, offset != C_QUEUE_DEVICE, value);
		break;
	}
}

static void common_field_write(struct virtio_pci *vp, uint32_t offset, uint32_t value)
{
	/* until the reset is over the driver may only look at the status */
	if (vp->resetting)
		return;
	switch (offset) {
	case C_DEVICE_FEATURE_SELECT:
		vp->device_feature_select = value;
		break;
	case C_DRIVER_FEATURE_SELECT:
		vp->driver_feature_select = value;
		break;
	case C_DRIVER_FEATURE:
		driver_feature_write(vp, value);
		break;
	case C_CONFIG_VECTOR:
		vp->config_vector = vector_check(vp, (uint16_t)value);
		break;
	case C_STATUS:
		virtio_pci_status_write(vp, (uint8_t)value);
		break;
	case C_QUEUE_SELECT:
		vp->queue_select = (uint16_t)value;
		break;
	default:
		queue_field_write(vp, offset, value);
		break;
	}
}

/* Writable fields in order; 64-bit ones are two halves, as drivers without 64-bit accesses see
 * them. */
static const struct {
	uint8_t offset, width;
} common_fields[] = {
	{C_DEVICE_FEATURE_SELECT, 4},
	{C_DRIVER_FEATURE_SELECT, 4},
	{C_DRIVER_FEATURE, 4},
	{C_CONFIG_VECTOR, 2},
	{C_STATUS, 1},
	{C_QUEUE_SELECT, 2},
	{C_QUEUE_SIZE, 2},
	{C_QUEUE_VECTOR, 2},
	{C_QUEUE_ENABLE, 2},
	{C_QUEUE_DESC, 4},
	{C_QUEUE_DESC + 4, 4},
	{C_QUEUE_DRIVER, 4},
	{C_QUEUE_DRIVER + 4, 4},
	{C_QUEUE_DEVICE, 4},
	{C_QUEUE_DEVICE + 4, 4},
};

/* Every field the write covers entirely is set; one that is covered in part is left alone
 * (4.1.3.1: drivers use a field's own width). */
static void common_write(struct virtio_pci *vp, uint32_t offset, uint64_t value, unsigned size)
{
	for (size_t i = 0; i < sizeof(common_fields) / sizeof(common_fields[0]); i++) {
		uint32_t at = common_fields[i].offset, width = common_fields[i].width;

		if (at < offset || at + width > offset + size)
			continue;
		value &= size == 8 ? ~0ull : (1ull << (8 * size)) - 1;
		common_field_write(vp, at,
			(uint32_t)(value >> (8 * (at - offset))) &
				(0xffffffffu >> (32 - 8 * width)));
	}
}

/* ------------------------------------------------------------------ ISR, device configuration */

static uint64_t isr_read(struct virtio_pci *vp, uint32_t offset)
{
	uint8_t isr = vp->isr;

	if (offset != 0)
		return 0;
	vp->isr = 0;
	if (isr)
		pci_intx_set(&vp->pci, false);
	return isr;
}

/* The part of an access that lies inside the device's configuration. */
static uint32_t config_room(const struct virtio_pci *vp, uint32_t offset, unsigned size)
{
	uint32_t total = vp->split->ops->config_size;

	if (offset >= total)
		return 0;
	return total - offset < size ? total - offset : size;
}

static uint64_t config_read(struct virtio_pci *vp, uint32_t offset, unsigned size)
{
	uint8_t bytes[8] = {0};
	uint32_t len = config_room(vp, offset, size);

	if (len && !vp->resetting)
		vp->split->ops->config_read(vp->split, offset, bytes, len);
	return get_bytes(bytes, size);
}

static void config_write(struct virtio_pci *vp, uint32_t offset, uint64_t value, unsigned size)
{
	uint8_t bytes[8];
	uint32_t len = config_room(vp, offset, size);

	if (!len || vp->resetting || !vp->split->ops->config_write)
		return;
	put64(bytes, value);
	vp->split->ops->config_write(vp->split, offset, bytes, len);
}

/* A doorbell that no ioeventfd caught. Which queue is told by the address alone. */
static void notify_write(struct virtio_pci *vp, uint32_t offset)
{
	unsigned q = offset / VP_NOTIFY_STEP;

	if (q < vp->nqueues && vp->queues[q].started)
		split_doorbell(vp->split, q);
}

uint64_t virtio_pci_bar_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *vp = opaque;
	uint32_t in = (uint32_t)offset & 0xfff;

	switch (offset & ~0xfffull) {
	case VP_COMMON:
		return common_read(vp, in, size);
	case VP_ISR:
		return isr_read(vp, in);
	case VP_DEVICE:
		return config_read(vp, in, size);
	default:
		return 0;
	}
}

void virtio_pci_bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *vp = opaque;
	uint32_t in = (uint32_t)offset & 0xfff;

	switch (offset & ~0xfffull) {
	case VP_COMMON:
		common_write(vp, in, value, size);
		break;
	case VP_DEVICE:
		config_write(vp, in, value, size);
		break;
	case VP_NOTIFY:
		notify_write(vp, in);
		break;
	}
}

/* ------------------------------------------------------------------ capabilities */

/* struct virtio_pci_cap, 4.1.4. */
enum { CAP_LEN = 2, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_BODY = 16 };
enum {
	CAP_COMMON_CFG = 1,
	CAP_NOTIFY_CFG = 2,
	CAP_ISR_CFG = 3,
	CAP_DEVICE_CFG = 4,
	CAP_PCI_CFG = 5,
};

static int capability_add(
	struct virtio_pci *vp, uint8_t type, uint8_t len, uint32_t offset, uint32_t length)
{
	int at = pci_capability_add(&vp->pci, 0x09, len);
	uint8_t *cap;

	if (at < 0)
		return at;
	cap = vp->pci.config + at;
	cap[CAP_LEN] = len;
	cap[CAP_TYPE] = type;
	cap[CAP_BAR] = VP_BAR;
	put32(cap + CAP_OFFSET, offset);
	put32(cap + CAP_LENGTH, length);
	return at;
}

int virtio_pci_capabilities_add(struct virtio_pci *vp)
{
	uint32_t config_size = vp->split->ops->config_size;
	int at;

	at = capability_add(vp, CAP_COMMON_CFG, 16, VP_COMMON, C_SIZE);
	if (at < 0)
		return at;
	at = capability_add(vp, CAP_ISR_CFG, 16, VP_ISR, 4);
	if (at < 0)
		return at;
	/* a device without configuration has no such capability: drivers refuse an empty one */
	if (config_size)
		at = capability_add(vp, CAP_DEVICE_CFG, 16, VP_DEVICE, (config_size + 3) & ~3u);
	if (at < 0)
		return at;
	at = capability_add(vp, CAP_NOTIFY_CFG, 20, VP_NOTIFY, VP_NOTIFY_STEP * vp->nqueues);
	if (at < 0)
		return at;
	put32(vp->pci.config + at + CAP_BODY, VP_NOTIFY_STEP);
	at = capability_add(vp, CAP_PCI_CFG, 20, 0, 0);
	if (at < 0)
		return at;
	vp->pci.config[at + CAP_BAR] = 0;
	vp->pci.writable[at + CAP_BAR] = 0xff;
	memset(vp->pci.writable + at + CAP_OFFSET, 0xff, 8);
	vp->window = (uint8_t)at;
	return 0;
}

/* 4.1.4.9: the window shows `length` bytes at `offset` of a BAR. Only what 4.1.4.9.1 allows is
 * looked at; the rest of what a guest may put there shows nothing. */
static bool window_open(const struct virtio_pci *vp, uint32_t *offset, unsigned *size)
{
	const uint8_t *cap = vp->pci.config + vp->window;
	uint32_t length = get32(cap + CAP_LENGTH);

	*offset = get32(cap + CAP_OFFSET);
	*size = length;
	if (cap[CAP_BAR] != VP_BAR || (length != 1 && length != 2 && length != 4))
		return false;
	return *offset % length == 0 && *offset <= VP_BAR_SIZE - length;
}

static bool window_hit(const struct virtio_pci *vp, unsigned offset, unsigned size)
{
	unsigned at = vp->window + CAP_BODY;

	return vp->window && offset < at + 4 && offset + size > at;
}

bool virtio_pci_window_read(struct pci_device *pci, unsigned offset, unsigned size, uint32_t *value)
{
	struct virtio_pci *vp = virtio_pci_of(pci);
	uint32_t at;
	unsigned len;

	(void)value;
	if (!window_hit(vp, offset, size) || !window_open(vp, &at, &len))
		return false;
	put32(pci->config + vp->window + CAP_BODY, (uint32_t)virtio_pci_bar_read(vp, at, len));
	return false; /* the PCI layer now reads the bytes from config space */
}

bool virtio_pci_window_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
	struct virtio_pci *vp = virtio_pci_of(pci);
	unsigned data = vp->window + CAP_BODY;
	uint32_t at;
	unsigned len;

	if (!window_hit(vp, offset, size))
		return false;
	for (unsigned i = 0; i < size; i++)
		if (offset + i >= data && offset + i < data + 4)
			pci->config[offset + i] = (uint8_t)(value >> (8 * i));
	if (window_open(vp, &at, &len))
		virtio_pci_bar_write(vp, at, get_bytes(pci->config + data, len), len);
	return offset >= data && offset + size <= data + 4;
}
