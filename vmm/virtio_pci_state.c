/* SPDX-License-Identifier: BSD-2-Clause */
/* Saved state of a virtio PCI device. What is loaded is as hostile as guest memory. */
#include <errno.h>
#include <stdlib.h>

#include "vmm/virtio_pci_priv.h"

#define STATE_VERSION 1u

static void queue_save(const struct virtio_pci_queue *q, struct state_writer *w)
{
	state_put_u32(w, q->size);
	state_put_u16(w, q->vector);
	state_put_u8(w, q->enabled);
	state_put_u64(w, q->desc);
	state_put_u64(w, q->driver);
	state_put_u64(w, q->device);
	state_put_u8(w, q->restore);
	state_put_u16(w, q->restore ? q->state.avail : 0);
	state_put_u16(w, q->restore ? q->state.used : 0);
}

void virtio_pci_save(struct device *d, struct state_writer *w)
{
	struct virtio_pci *vp = (struct virtio_pci *)d;

	pthread_mutex_lock(&d->lock);
	state_section_begin(w, "virtio-pci", STATE_VERSION);
	state_put_u32(w, vp->split->ops->virtio_id);
	state_put_u32(w, vp->nqueues);
	state_put_u8(w, vp->status);
	state_put_u8(w, vp->isr);
	state_put_u8(w, vp->generation);
	state_put_u32(w, vp->device_feature_select);
	state_put_u32(w, vp->driver_feature_select);
	state_put_u64(w, vp->driver_features);
	state_put_u16(w, vp->queue_select);
	state_put_u16(w, vp->config_vector);
	for (unsigned i = 0; i < vp->nqueues; i++)
		queue_save(&vp->queues[i], w);
	state_section_end(w);
	pci_device_save(&vp->pci, w);
	pthread_mutex_unlock(&d->lock);
	split_save(vp->split, w);
}

/* ------------------------------------------------------------------ load */

struct loaded_queue {
	uint32_t size;
	uint16_t vector;
	uint8_t enabled, restore;
	uint64_t desc, driver, device;
	struct ring_device_state state;
};

struct loaded {
	uint8_t status, isr, generation;
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select, config_vector;
	struct loaded_queue queues[BACKEND_QUEUES_MAX];
};

static void queue_get(struct loaded_queue *q, struct state_reader *r)
{
	q->size = state_get_u32(r);
	q->vector = state_get_u16(r);
	q->enabled = state_get_u8(r);
	q->desc = state_get_u64(r);
	q->driver = state_get_u64(r);
	q->device = state_get_u64(r);
	q->restore = state_get_u8(r);
	q->state.avail = state_get_u16(r);
	q->state.used = state_get_u16(r);
}

static bool vector_valid(const struct virtio_pci *vp, uint16_t vector)
{
	return vector <= vp->nqueues || vector == VIRTIO_PCI_NO_VECTOR;
}

static bool queue_valid(
	const struct virtio_pci *vp, const struct loaded *in, const struct loaded_queue *q)
{
	bool packed = in->driver_features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);

	if (q->enabled > 1 || q->restore > 1 || !vector_valid(vp, q->vector))
		return false;
	if (q->size > vp->split->queue_size_max ||
		!ring_size_valid(packed ? RING_PACKED : RING_SPLIT, q->size))
		return false;
	if (!q->restore)
		return true;
	/* only a queue that ran has a position to go on from */
	if (!q->enabled || !(in->status & VP_DRIVER_OK))
		return false;
	return !packed ||
	       ((q->state.avail & 0x7fff) < q->size && (q->state.used & 0x7fff) < q->size);
}

static bool loaded_valid(const struct virtio_pci *vp, const struct loaded *in)
{
	const uint8_t known = VP_ACKNOWLEDGE | VP_DRIVER | VP_DRIVER_OK | VP_FEATURES_OK |
			      VP_NEEDS_RESET | VP_FAILED;

	if (in->status & ~known || in->isr & ~(VP_ISR_QUEUE | VP_ISR_CONFIG))
		return false;
	if (in->status & (VP_DRIVER_OK | VP_NEEDS_RESET) && !(in->status & VP_FEATURES_OK))
		return false;
	if (!vector_valid(vp, in->config_vector))
		return false;
	for (unsigned i = 0; i < vp->nqueues; i++)
		if (!queue_valid(vp, in, &in->queues[i]))
			return false;
	return true;
}

/* Under the lock, with the backend freshly reset. */
static void loaded_apply(struct virtio_pci *vp, const struct loaded *in)
{
	vp->status = in->status;
	vp->isr = in->isr;
	vp->generation = in->generation;
	vp->device_feature_select = in->device_feature_select;
	vp->driver_feature_select = in->driver_feature_select;
	vp->driver_features = in->driver_features;
	vp->queue_select = in->queue_select;
	vp->config_vector = in->config_vector;
	for (unsigned i = 0; i < vp->nqueues; i++) {
		struct virtio_pci_queue *q = &vp->queues[i];
		const struct loaded_queue *l = &in->queues[i];

		q->size = l->size;
		q->vector = l->vector;
		q->enabled = l->enabled;
		q->desc = l->desc;
		q->driver = l->driver;
		q->device = l->device;
		q->restore = l->restore;
		q->state = l->state;
	}
}

static void registers_load(struct virtio_pci *vp, struct loaded *in, struct state_reader *r)
{
	state_section_enter(r, "virtio-pci", STATE_VERSION);
	if (state_get_u32(r) != vp->split->ops->virtio_id || state_get_u32(r) != vp->nqueues ||
		vp->nqueues > BACKEND_QUEUES_MAX)
		r->error = r->error ? r->error : -EINVAL;
	if (r->error)
		return;
	in->status = state_get_u8(r);
	in->isr = state_get_u8(r);
	in->generation = state_get_u8(r);
	in->device_feature_select = state_get_u32(r);
	in->driver_feature_select = state_get_u32(r);
	in->driver_features = state_get_u64(r);
	in->queue_select = state_get_u16(r);
	in->config_vector = state_get_u16(r);
	for (unsigned i = 0; i < vp->nqueues; i++)
		queue_get(&in->queues[i], r);
	state_section_leave(r);
	if (!r->error && !loaded_valid(vp, in))
		r->error = -EINVAL;
}

void virtio_pci_load(struct device *d, struct state_reader *r)
{
	struct virtio_pci *vp = (struct virtio_pci *)d;
	struct loaded *in = calloc(1, sizeof(*in));

	if (!in) {
		r->error = -ENOMEM;
		return;
	}
	registers_load(vp, in, r);
	if (r->error)
		goto out;
	virtio_pci_backend_reset_wait(vp);
	pthread_mutex_lock(&d->lock);
	/* the device first knows what was agreed: its own state may depend on it */
	if (in->status & VP_FEATURES_OK && split_features_set(vp->split, in->driver_features)) {
		r->error = -EINVAL;
	} else {
		loaded_apply(vp, in);
		vp->quiesced = true; /* queues start at resume */
		pci_device_load(&vp->pci, r);
		pci_intx_set(&vp->pci, vp->isr != 0);
		virtio_pci_bells_sync(vp);
	}
	pthread_mutex_unlock(&d->lock);
	if (!r->error)
		split_load(vp->split, r);
out:
	free(in);
}
