/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio PCI device's life: status, queues, doorbells, interrupts, reset (virtio 1.2, sections
 * 2.1, 3.1, 4.1.4.4, 4.1.5). Its registers are in virtio_pci_config.c, its saved state in
 * virtio_pci_state.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/virtio_pci_priv.h"

enum ring_layout virtio_pci_layout(const struct virtio_pci *vp)
{
	return vp->driver_features & VIRTIO_BIT(VIRTIO_F_RING_PACKED) ? RING_PACKED : RING_SPLIT;
}

void virtio_pci_mistake(struct virtio_pci *vp)
{
	counter_add(&vp->split->counters.malformed, 1);
}

/* ------------------------------------------------------------------ interrupts */

/* 4.1.4.5.1: with MSI-X the ISR bits are not used; a queue or configuration without a vector
 * interrupts nobody. */
static void interrupt_locked(struct virtio_pci *vp, uint16_t vector, uint8_t isr)
{
	if (pci_msix_enabled(&vp->pci)) {
		pci_msix_raise(&vp->pci, vector);
		return;
	}
	vp->isr |= isr;
	pci_intx_set(&vp->pci, true);
}

static void config_changed_locked(struct virtio_pci *vp)
{
	/* the driver reads the generation before and after (4.1.4.3.1) */
	vp->generation++;
	if (vp->status & VP_DRIVER_OK && !vp->resetting)
		interrupt_locked(vp, vp->config_vector, VP_ISR_CONFIG);
}

static void broken_locked(struct virtio_pci *vp)
{
	if (vp->resetting || vp->status & VP_NEEDS_RESET)
		return;
	vp->status |= VP_NEEDS_RESET;
	config_changed_locked(vp);
}

/* Nothing is in flight any more, so the status may read 0 (2.4.1). */
static void reset_done_locked(struct virtio_pci *vp)
{
	virtio_pci_registers_reset(vp);
	vp->resetting = false;
	pthread_cond_broadcast(&vp->reset_cond);
}

/*
 * What the I/O thread has to tell under the device's lock. It must not wait for the lock: a vCPU
 * that holds it may be waiting for the I/O thread (to start a queue, say). When the lock is taken,
 * it comes back in its next round.
 */
static void deliver(struct io_work *work)
{
	struct virtio_pci *vp =
		(struct virtio_pci *)((char *)work - offsetof(struct virtio_pci, deliver));
	unsigned events;

	if (pthread_mutex_trylock(&vp->dev.lock)) {
		io_thread_post(vp->split->io, &vp->deliver);
		return;
	}
	events = atomic_exchange(&vp->events, 0);
	if (events & VP_EVENT_QUEUE && !vp->resetting && !pci_msix_enabled(&vp->pci))
		interrupt_locked(vp, VIRTIO_PCI_NO_VECTOR, VP_ISR_QUEUE);
	if (events & VP_EVENT_CONFIG)
		config_changed_locked(vp);
	if (events & VP_EVENT_BROKEN)
		broken_locked(vp);
	if (events & VP_EVENT_RESET)
		reset_done_locked(vp);
	pthread_mutex_unlock(&vp->dev.lock);
}

static void event(struct virtio_pci *vp, unsigned bit)
{
	atomic_fetch_or(&vp->events, bit);
	deliver(&vp->deliver);
}

static void signal_queue(void *ctx, unsigned i)
{
	struct virtio_pci *vp = ctx;

	counter_add(&vp->split->counters.system_calls, 1);
	if (pci_msix_enabled(&vp->pci))
		pci_msix_raise(&vp->pci,
			atomic_load_explicit(&vp->queues[i].vector, memory_order_relaxed));
	else
		event(vp, VP_EVENT_QUEUE);
}

static void signal_config(void *ctx)
{
	event(ctx, VP_EVENT_CONFIG);
}

static void signal_broken(void *ctx)
{
	event(ctx, VP_EVENT_BROKEN);
}

/* Read without the lock: whoever changes the answer says so afterwards. */
static int signal_queue_fd(void *ctx, unsigned i)
{
	struct virtio_pci *vp = ctx;

	return pci_msix_fd(
		&vp->pci, atomic_load_explicit(&vp->queues[i].vector, memory_order_relaxed));
}

static void msix_changed(struct pci_device *pci)
{
	struct virtio_pci *vp = virtio_pci_of(pci);

	if (vp->split)
		split_signal_changed(vp->split);
}

static void reset_done(void *ctx)
{
	event(ctx, VP_EVENT_RESET);
}

/* ------------------------------------------------------------------ doorbells */

static bool queue_live(const struct virtio_pci *vp, const struct virtio_pci_queue *q)
{
	return q->enabled && vp->status & VP_DRIVER_OK && !vp->resetting;
}

static void bell_remove(struct virtio_pci *vp, struct virtio_pci_queue *q)
{
	if (!q->bell_on)
		return;
	bus_doorbell_remove(vp->dev.machine, &q->bell);
	q->bell_on = false;
}

static void bell_sync(struct virtio_pci *vp, unsigned i)
{
	struct virtio_pci_queue *q = &vp->queues[i];
	uint64_t addr = vp->pci.bars[VP_BAR].region.base + VP_NOTIFY + VP_NOTIFY_STEP * i;
	bool want = vp->bar_mapped && queue_live(vp, q);

	if (q->bell_on && (!want || q->bell.addr != addr))
		bell_remove(vp, q);
	if (!want || q->bell_on)
		return;
	q->bell = (struct bus_doorbell){.kind = BUS_MMIO, .addr = addr, .fd = q->bell_fd};
	/* where the host has no room for one more, writes are trapped and answered in
	 * notify_write(): slower, not wrong */
	q->bell_on = bus_doorbell_add(vp->dev.machine, &q->bell) == 0;
}

void virtio_pci_bells_sync(struct virtio_pci *vp)
{
	for (unsigned i = 0; i < vp->nqueues; i++)
		bell_sync(vp, i);
}

static void bar_mapped(struct pci_device *pci, unsigned bar, bool mapped)
{
	struct virtio_pci *vp = virtio_pci_of(pci);

	if (bar != VP_BAR)
		return;
	vp->bar_mapped = mapped;
	virtio_pci_bells_sync(vp);
}

/* ------------------------------------------------------------------ queues and status */

void virtio_pci_queue_start(struct virtio_pci *vp, unsigned i)
{
	struct virtio_pci_queue *q = &vp->queues[i];
	struct split_queue_config cfg = {
		.size = q->size,
		.desc_gpa = q->desc,
		.driver_gpa = q->driver,
		.device_gpa = q->device,
		.doorbell_fd = q->bell_fd,
		.state = q->state,
		.restore = q->restore,
	};

	if (!queue_live(vp, q) || q->started || vp->quiesced || vp->status & VP_NEEDS_RESET)
		return;
	if (split_queue_start(vp->split, i, &cfg)) {
		virtio_pci_mistake(vp);
		broken_locked(vp);
		return;
	}
	q->started = true;
	q->restore = false;
}

void virtio_pci_registers_reset(struct virtio_pci *vp)
{
	vp->status = 0;
	vp->isr = 0;
	vp->device_feature_select = 0;
	vp->driver_feature_select = 0;
	vp->driver_features = 0;
	vp->queue_select = 0;
	vp->config_vector = VIRTIO_PCI_NO_VECTOR;
	for (unsigned i = 0; i < vp->nqueues; i++) {
		struct virtio_pci_queue *q = &vp->queues[i];

		bell_remove(vp, q);
		q->size = vp->split->queue_size_max;
		q->desc = 0;
		q->driver = 0;
		q->device = 0;
		q->vector = VIRTIO_PCI_NO_VECTOR;
		q->enabled = false;
		q->started = false;
		q->restore = false;
	}
}

static void reset_begin(struct virtio_pci *vp)
{
	vp->isr = 0;
	pci_intx_set(&vp->pci, false);
	if (!vp->status) {
		virtio_pci_registers_reset(vp);
		return;
	}
	/* The status keeps its old value until reset_done(): the driver waits, the vCPU does not.
	 */
	vp->resetting = true;
	virtio_pci_bells_sync(vp);
	split_reset(vp->split, reset_done, vp);
}

void virtio_pci_status_write(struct virtio_pci *vp, uint8_t value)
{
	uint8_t set;

	if (!value) {
		reset_begin(vp);
		return;
	}
	/* bits are only ever added, but for a reset (2.1.1) */
	set = value & ~vp->status &
	      (VP_ACKNOWLEDGE | VP_DRIVER | VP_FEATURES_OK | VP_DRIVER_OK | VP_FAILED);
	if (set & VP_FEATURES_OK && split_features_set(vp->split, vp->driver_features)) {
		virtio_pci_mistake(vp);
		set &= (uint8_t)~VP_FEATURES_OK;
	}
	if (set & VP_DRIVER_OK && !((vp->status | set) & VP_FEATURES_OK)) {
		virtio_pci_mistake(vp);
		set &= (uint8_t)~VP_DRIVER_OK;
	}
	vp->status |= set;
	if (!(set & VP_DRIVER_OK))
		return;
	for (unsigned i = 0; i < vp->nqueues; i++)
		virtio_pci_queue_start(vp, i);
	virtio_pci_bells_sync(vp);
}

/* ------------------------------------------------------------------ the device's life */

void virtio_pci_backend_reset_wait(struct virtio_pci *vp)
{
	pthread_mutex_lock(&vp->dev.lock);
	if (!vp->resetting) {
		vp->resetting = true;
		virtio_pci_bells_sync(vp);
		split_reset(vp->split, reset_done, vp);
	}
	while (vp->resetting)
		pthread_cond_wait(&vp->reset_cond, &vp->dev.lock);
	pthread_mutex_unlock(&vp->dev.lock);
}

static void device_reset(struct device *d)
{
	struct virtio_pci *vp = (struct virtio_pci *)d;

	virtio_pci_backend_reset_wait(vp);
	pthread_mutex_lock(&d->lock);
	pci_intx_set(&vp->pci, false);
	vp->generation = 0;
	pci_device_reset(&vp->pci);
	pthread_mutex_unlock(&d->lock);
}

static void device_quiesce(struct device *d)
{
	struct virtio_pci *vp = (struct virtio_pci *)d;

	pthread_mutex_lock(&d->lock);
	while (vp->resetting)
		pthread_cond_wait(&vp->reset_cond, &d->lock);
	vp->quiesced = true;
	pthread_mutex_unlock(&d->lock);

	split_quiesce_wait(vp->split);

	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < vp->nqueues; i++) {
		struct virtio_pci_queue *q = &vp->queues[i];

		if (!q->started)
			continue;
		split_queue_state_get(vp->split, i, &q->state);
		q->restore = true;
		q->started = false;
	}
	pthread_mutex_unlock(&d->lock);
}

static void device_resume(struct device *d)
{
	struct virtio_pci *vp = (struct virtio_pci *)d;

	pthread_mutex_lock(&d->lock);
	if (vp->quiesced) {
		vp->quiesced = false;
		for (unsigned i = 0; i < vp->nqueues; i++)
			virtio_pci_queue_start(vp, i);
		virtio_pci_bells_sync(vp);
		/* a doorbell rung before or during the pause may be lost: look at every queue */
		for (unsigned i = 0; i < vp->nqueues; i++)
			if (vp->queues[i].started)
				split_doorbell(vp->split, i);
	}
	pthread_mutex_unlock(&d->lock);
}

static void free_all(struct virtio_pci *vp)
{
	if (vp->split)
		split_destroy(vp->split);
	for (unsigned i = 0; i < vp->nqueues; i++)
		if (vp->queues[i].bell_fd >= 0)
			close(vp->queues[i].bell_fd);
	pci_device_free(&vp->pci);
	pthread_cond_destroy(&vp->reset_cond);
	free(vp->queues);
	free(vp);
}

static void device_destroy(struct device *d)
{
	struct virtio_pci *vp = (struct virtio_pci *)d;

	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < vp->nqueues; i++)
		bell_remove(vp, &vp->queues[i]);
	pthread_mutex_unlock(&d->lock);
	free_all(vp);
}

static const struct histogram *device_latency(struct device *d, unsigned queue)
{
	struct virtio_pci *vp = (struct virtio_pci *)d;

	return queue < vp->nqueues ? &vp->split->queues[queue].latency : NULL;
}

static void device_dirty_sync(struct device *d)
{
	split_dirty_sync(((struct virtio_pci *)d)->split);
}

static const struct device_ops virtio_pci_device_ops = {
	.reset = device_reset,
	.quiesce = device_quiesce,
	.resume = device_resume,
	.save = virtio_pci_save,
	.load = virtio_pci_load,
	.destroy = device_destroy,
	.latency = device_latency,
	.dirty_sync = device_dirty_sync,
};

/* ------------------------------------------------------------------ creation */

static const struct pci_ops virtio_pci_ops = {
	.bar_mapped = bar_mapped,
	.config_read = virtio_pci_window_read,
	.config_write = virtio_pci_window_write,
	.msix_changed = msix_changed,
};

static int queues_create(struct virtio_pci *vp)
{
	struct virtio_pci_queue *queues = calloc(vp->split->nqueues, sizeof(*queues));

	if (!queues)
		return -ENOMEM;
	vp->queues = queues;
	for (unsigned i = 0; i < vp->split->nqueues; i++) {
		queues[i].bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (queues[i].bell_fd < 0)
			return -errno;
		vp->nqueues = i + 1;
	}
	return 0;
}

static int pci_create(struct virtio_pci *vp)
{
	struct pci_bar *bar;
	int err;

	vp->pci.ops = &virtio_pci_ops;
	/* the backend counts interrupts itself */
	vp->pci.counters = &vp->dev.counters;
	err = pci_msix_init(&vp->pci, VP_BAR_MSIX, vp->nqueues + 1);
	if (err)
		return err;
	bar = pci_bar_init(&vp->pci, VP_BAR, VP_BAR_SIZE, false);
	bar->region.read = virtio_pci_bar_read;
	bar->region.write = virtio_pci_bar_write;
	bar->region.opaque = vp;
	bar->region.lock = &vp->dev.lock;
	bar->region.counters = &vp->split->counters;
	err = virtio_pci_capabilities_add(vp);
	if (err)
		return err;
	virtio_pci_registers_reset(vp);
	return pci_add(&vp->pci, -1, 0);
}

int virtio_pci_create(struct machine *m, const struct virtio_pci_maker *maker, struct device **out,
	char why[VMM_WHY_MAX])
{
	struct virtio_pci *vp = calloc(1, sizeof(*vp));
	int err;

	if (!vp) {
		snprintf(why, VMM_WHY_MAX, "%s: out of memory", maker->name);
		return -ENOMEM;
	}
	vp->dev.machine = m;
	vp->signal = (struct split_signal){
		.queue = signal_queue,
		.config = signal_config,
		.broken = signal_broken,
		.queue_fd = signal_queue_fd,
		.ctx = vp,
	};
	vp->deliver.run = deliver;
	pthread_cond_init(&vp->reset_cond, NULL);
	pci_init(&vp->pci, m, &vp->dev.lock, VIRTIO_PCI_VENDOR,
		(uint16_t)(VIRTIO_PCI_DEVICE + maker->virtio_id), maker->class_code, 1,
		VIRTIO_PCI_VENDOR, VIRTIO_PCI_SUBSYSTEM, 1);
	err = maker->make(vp, maker->args, why);
	if (err)
		goto fail;
	err = queues_create(vp);
	if (!err)
		err = pci_create(vp);
	if (err) {
		snprintf(why, VMM_WHY_MAX, "%s: cannot be put on the PCI bus: %s", maker->name,
			strerror(-err));
		goto fail;
	}
	device_add(m, &vp->dev, &virtio_pci_device_ops, maker->name);
	vp->dev.counters_elsewhere = &vp->split->counters;
	*out = &vp->dev;
	return 0;
fail:
	free_all(vp);
	return err;
}
