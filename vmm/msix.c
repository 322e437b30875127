/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MSI-X (PCI 3.0, 6.8.2). Each vector has an eventfd. While the vector may be delivered it is an
 * irqfd and KVM takes every event at once; while it is masked nobody reads it, and "readable" is
 * the pending bit.
 *
 * The table and the control word change under the device's lock. pci_msix_raise() takes none: it
 * looks at `enabled` and writes the eventfd. Routes and irqfds are made at the first unmasking,
 * not before: each costs the host a grace period.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define MSIX_CAP_ID      0x11u
#define MSIX_CAP_LEN     12u
#define MSIX_VECTORS_MAX 2048u
#define MSIX_ENTRY       16u
#define MSIX_ENTRY_CTRL  12u
#define MSIX_CTRL_MASKED 1u
#define MSIX_ENABLE      0x8000u
#define MSIX_MASK_ALL    0x4000u

struct msix_vector {
	int fd;
	int gsi;          /* -1: none yet */
	atomic_bool live; /* enabled and unmasked: events are delivered */
	bool irqfd;       /* KVM listens */
};

struct msix {
	unsigned nvectors;
	unsigned control; /* offset in config space */
	uint32_t pba;     /* offset in the BAR */
	atomic_bool enabled;
	uint8_t *table;
	struct msix_vector *vectors;
};

static uint32_t msix_entry_get(const struct msix *x, unsigned vector, unsigned offset)
{
	uint32_t v;

	memcpy(&v, x->table + vector * MSIX_ENTRY + offset, sizeof(v));
	return v;
}

static uint64_t msix_entry_address(const struct msix *x, unsigned vector)
{
	return msix_entry_get(x, vector, 0) | (uint64_t)msix_entry_get(x, vector, 4) << 32;
}

static uint16_t msix_control(const struct pci_device *pci)
{
	unsigned at = pci->msix->control;

	return pci->config[at] | pci->config[at + 1] << 8;
}

static bool msix_event_take(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n);
}

static void msix_event_put(int fd)
{
	const uint64_t one = 1;
	ssize_t n;

	/* EAGAIN: 2^64 - 2 events are pending already */
	n = write(fd, &one, sizeof(one));
	(void)n;
}

/* Without KVM, the hook is the interrupt controller. Whoever takes the event delivers it. */
static void msix_deliver_hook(struct pci_device *pci, unsigned vector)
{
	struct msix *x = pci->msix;
	struct machine *m = pci->machine;

	if (!atomic_load(&x->vectors[vector].live) || !msix_event_take(x->vectors[vector].fd))
		return;
	if (m->cfg.interrupt_hook)
		m->cfg.interrupt_hook(m->cfg.interrupt_ctx, -1, true, msix_entry_address(x, vector),
			msix_entry_get(x, vector, 8));
}

static void msix_vector_silence(struct pci_device *pci, struct msix_vector *v)
{
	atomic_store(&v->live, false);
	if (v->irqfd)
		irq_irqfd_set(pci->machine, v->gsi, v->fd, false);
	v->irqfd = false;
}

/* The route is set already. */
static void msix_vector_deliver(struct pci_device *pci, unsigned i)
{
	struct msix_vector *v = &pci->msix->vectors[i];

	if (atomic_load(&v->live))
		return;
	if (machine_has_kvm(pci->machine)) {
		if (v->gsi < 0 || irq_irqfd_set(pci->machine, v->gsi, v->fd, true))
			return; /* the vector stays pending */
		v->irqfd = true;
		atomic_store(&v->live, true);
		/*
		 * KVM has looked at the eventfd when it attached and delivers what was pending, but
		 * leaves the count. From then on it takes each event as it is written, so what can
		 * be read here is old.
		 */
		msix_event_take(v->fd);
		return;
	}
	atomic_store(&v->live, true);
	/* pairs with pci_msix_raise(): it puts the event, then looks at `live` */
	msix_deliver_hook(pci, i);
}

static bool msix_vector_wanted(const struct pci_device *pci, unsigned i)
{
	return (msix_control(pci) & (MSIX_ENABLE | MSIX_MASK_ALL)) == MSIX_ENABLE &&
	       !(msix_entry_get(pci->msix, i, MSIX_ENTRY_CTRL) & MSIX_CTRL_MASKED);
}

/* Brings vectors [first, first + n) to what table and control word say. */
static void msix_update(struct pci_device *pci, unsigned first, unsigned n)
{
	struct msix *x = pci->msix;
	struct machine *m = pci->machine;
	unsigned i;

	for (i = first; i < first + n; i++) {
		struct msix_vector *v = &x->vectors[i];

		if (!msix_vector_wanted(pci, i)) {
			msix_vector_silence(pci, v);
			continue;
		}
		if (v->gsi < 0)
			v->gsi = irq_msi_alloc(m);
		if (v->gsi >= 0)
			irq_msi_set(m, v->gsi, msix_entry_address(x, i), msix_entry_get(x, i, 8));
	}
	irq_msi_commit(m);
	for (i = first; i < first + n; i++)
		if (msix_vector_wanted(pci, i))
			msix_vector_deliver(pci, i);
}

void msix_control_changed(struct pci_device *pci)
{
	struct msix *x = pci->msix;
	bool enabled = msix_control(pci) & MSIX_ENABLE;

	if (!x)
		return;
	atomic_store(&x->enabled, enabled);
	msix_update(pci, 0, x->nvectors);
	if (!enabled)
		for (unsigned i = 0; i < x->nvectors; i++)
			msix_event_take(x->vectors[i].fd);
	if (pci->ops && pci->ops->msix_changed)
		pci->ops->msix_changed(pci);
}

unsigned msix_control_offset(const struct pci_device *pci)
{
	return pci->msix ? pci->msix->control : 0;
}

/* ------------------------------------------------------------------ the BAR */

static void msix_pending_get(const struct msix *x, unsigned first, unsigned n, uint8_t *bits)
{
	struct pollfd fds[64];

	for (unsigned i = 0; i < n; i++)
		fds[i] = (struct pollfd){.fd = x->vectors[first + i].fd, .events = POLLIN};
	if (poll(fds, n, 0) <= 0)
		return;
	for (unsigned i = 0; i < n; i++)
		if (fds[i].revents & POLLIN && !x->vectors[first + i].irqfd)
			bits[i / 8] |= 1u << (i % 8);
}

static uint64_t msix_pba_read(const struct msix *x, uint32_t offset, unsigned size)
{
	unsigned first = offset * 8;
	uint8_t bits[8] = {0};
	uint64_t value;

	if (first < x->nvectors)
		msix_pending_get(x, first,
			x->nvectors - first < size * 8 ? x->nvectors - first : size * 8, bits);
	memcpy(&value, bits, sizeof(value));
	return value;
}

static uint64_t msix_bar_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_device *pci = opaque;
	struct msix *x = pci->msix;
	uint64_t value = 0;

	if (offset + size <= x->nvectors * MSIX_ENTRY)
		memcpy(&value, x->table + offset, size);
	else if (offset >= x->pba)
		value = msix_pba_read(x, offset - x->pba, size);
	return value;
}

static void msix_bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_device *pci = opaque;
	struct msix *x = pci->msix;
	unsigned vector = offset / MSIX_ENTRY;
	uint32_t ctrl;

	/* 6.8.2: only aligned doublewords and quadwords are defined */
	if (offset + size > x->nvectors * MSIX_ENTRY || size < 4 || offset % size)
		return;
	memcpy(x->table + offset, &value, size);
	ctrl = msix_entry_get(x, vector, MSIX_ENTRY_CTRL) & MSIX_CTRL_MASKED;
	memcpy(x->table + vector * MSIX_ENTRY + MSIX_ENTRY_CTRL, &ctrl, sizeof(ctrl));
	msix_update(pci, vector, 1);
}

/* ------------------------------------------------------------------ life */

static void msix_table_reset(struct msix *x)
{
	const uint32_t masked = MSIX_CTRL_MASKED;

	memset(x->table, 0, x->nvectors * MSIX_ENTRY);
	for (unsigned i = 0; i < x->nvectors; i++)
		memcpy(x->table + i * MSIX_ENTRY + MSIX_ENTRY_CTRL, &masked, sizeof(masked));
}

static int msix_capability(struct pci_device *pci, unsigned bar)
{
	struct msix *x = pci->msix;
	int at = pci_capability_add(pci, MSIX_CAP_ID, MSIX_CAP_LEN);
	uint32_t table = bar, pba = x->pba | bar;

	if (at < 0)
		return at;
	x->control = at + 2;
	pci->config[at + 2] = (x->nvectors - 1) & 0xff;
	pci->config[at + 3] = (x->nvectors - 1) >> 8;
	pci->writable[at + 3] = (MSIX_ENABLE | MSIX_MASK_ALL) >> 8;
	memcpy(pci->config + at + 4, &table, sizeof(table));
	memcpy(pci->config + at + 8, &pba, sizeof(pba));
	return 0;
}

int pci_msix_init(struct pci_device *pci, unsigned bar, unsigned vectors)
{
	struct msix *x;
	struct pci_bar *b;
	uint32_t size = 4096;
	int rc = -ENOMEM;

	if (!vectors || vectors > MSIX_VECTORS_MAX || bar >= PCI_BARS || pci->bars[bar].size)
		return -EINVAL;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	pci->msix = x;
	x->nvectors = vectors;
	x->pba = (vectors * MSIX_ENTRY + 2047u) & ~2047u;
	while (size < x->pba + (vectors + 63u) / 64u * 8u)
		size *= 2;
	x->table = calloc(vectors, MSIX_ENTRY);
	x->vectors = calloc(vectors, sizeof(*x->vectors));
	if (!x->table || !x->vectors)
		goto fail;
	for (unsigned i = 0; i < vectors; i++) {
		x->vectors[i].gsi = -1;
		x->vectors[i].fd = -1;
	}
	for (unsigned i = 0; i < vectors; i++) {
		x->vectors[i].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (x->vectors[i].fd < 0) {
			rc = -errno;
			goto fail;
		}
	}
	msix_table_reset(x);
	rc = msix_capability(pci, bar);
	if (rc)
		goto fail;
	b = pci_bar_init(pci, bar, size, false);
	b->region.read = msix_bar_read;
	b->region.write = msix_bar_write;
	b->region.opaque = pci;
	return 0;
fail:
	msix_free(pci);
	return rc;
}

void msix_free(struct pci_device *pci)
{
	struct msix *x = pci->msix;

	if (!x)
		return;
	for (unsigned i = 0; x->vectors && i < x->nvectors; i++) {
		msix_vector_silence(pci, &x->vectors[i]);
		if (x->vectors[i].fd >= 0)
			close(x->vectors[i].fd);
	}
	free(x->vectors);
	free(x->table);
	free(x);
	pci->msix = NULL;
}

bool pci_msix_enabled(const struct pci_device *pci)
{
	return pci->msix && atomic_load_explicit(&pci->msix->enabled, memory_order_relaxed);
}

int pci_msix_fd(const struct pci_device *pci, unsigned vector)
{
	const struct msix *x = pci->msix;

	/* without KVM the hook must be called */
	if (!x || vector >= x->nvectors || !pci_msix_enabled(pci) || !machine_has_kvm(pci->machine))
		return -1;
	return x->vectors[vector].fd;
}

void pci_msix_raise(struct pci_device *pci, unsigned vector)
{
	struct msix *x = pci->msix;

	if (!x || vector >= x->nvectors || !pci_msix_enabled(pci))
		return;
	if (pci->counters) {
		/* raised by the I/O thread and, for configuration changes, by others */
		atomic_fetch_add_explicit(&pci->counters->interrupts, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&pci->counters->system_calls, 1, memory_order_relaxed);
	}
	machine_system_call_count();
	msix_event_put(x->vectors[vector].fd);
	if (!machine_has_kvm(pci->machine))
		msix_deliver_hook(pci, vector);
}

void msix_reset(struct pci_device *pci)
{
	if (!pci->msix)
		return;
	msix_table_reset(pci->msix);
	msix_control_changed(pci);
}

/* ------------------------------------------------------------------ state */

void msix_save(struct pci_device *pci, struct state_writer *w)
{
	struct msix *x = pci->msix;

	state_put_u32(w, x->nvectors);
	state_put_bytes(w, x->table, x->nvectors * MSIX_ENTRY);
	for (unsigned i = 0; i < x->nvectors; i++) {
		struct msix_vector *v = &x->vectors[i];

		/* KVM may still be handing an event to the interrupt controller; detaching waits */
		if (v->irqfd) {
			irq_irqfd_set(pci->machine, v->gsi, v->fd, false);
			if (irq_irqfd_set(pci->machine, v->gsi, v->fd, true)) {
				v->irqfd = false;
				atomic_store(&v->live, false);
			}
		}
		state_put_u8(w, msix_pba_read(x, i / 8, 1) >> (i % 8) & 1);
	}
}

void msix_load(struct pci_device *pci, struct state_reader *r)
{
	struct msix *x = pci->msix;

	if (state_get_u32(r) != x->nvectors && !r->error)
		r->error = -EINVAL;
	if (r->error)
		return;
	for (unsigned i = 0; i < x->nvectors; i++) {
		msix_vector_silence(pci, &x->vectors[i]);
		msix_event_take(x->vectors[i].fd);
	}
	state_get_bytes(r, x->table, x->nvectors * MSIX_ENTRY);
	for (unsigned i = 0; i < x->nvectors; i++) {
		uint8_t *ctrl = x->table + i * MSIX_ENTRY + MSIX_ENTRY_CTRL;

		ctrl[0] &= MSIX_CTRL_MASKED;
		memset(ctrl + 1, 0, 3);
		if (state_get_u8(r) && !r->error)
			msix_event_put(x->vectors[i].fd);
	}
	if (r->error)
		msix_table_reset(x);
	atomic_store(&x->enabled, msix_control(pci) & MSIX_ENABLE);
	msix_update(pci, 0, x->nvectors);
	if (pci->ops && pci->ops->msix_changed)
		pci->ops->msix_changed(pci);
}
