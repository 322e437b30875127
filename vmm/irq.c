/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupt lines and MSI routes. A line is high while any source holds it. KVM's default routing
 * (GSI n to PIC pin n and IOAPIC pin n) is kept as it is; MSI routes are added behind it, many with
 * one system call, because each change of the table costs the host a grace period.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmm/machine_priv.h"

int irq_init(struct machine *m)
{
	pthread_mutex_init(&m->irq_lock, NULL);
	pthread_mutex_init(&m->route_lock, NULL);
	return 0;
}

void irq_free(struct machine *m)
{
	free(m->routes);
	m->routes = NULL;
	pthread_mutex_destroy(&m->irq_lock);
	pthread_mutex_destroy(&m->route_lock);
}

/* irq_lock held. */
static void irq_line_hold(struct machine *m, unsigned gsi, bool hold)
{
	if (gsi >= IRQ_LINES)
		return;
	if (hold ? m->line_sources[gsi]++ : --m->line_sources[gsi])
		return;
	if (m->vm_fd >= 0)
		kvm_irq_line(m, gsi, hold);
	else if (m->cfg.interrupt_hook)
		m->cfg.interrupt_hook(m->cfg.interrupt_ctx, gsi, hold, 0, 0);
}

void irq_source_init(struct irq_source *s, struct machine *m, unsigned gsi)
{
	s->machine = m;
	s->gsi = gsi;
	s->level = false;
}

void irq_source_set(struct irq_source *s, bool level)
{
	struct machine *m = s->machine;

	if (!m)
		return;
	pthread_mutex_lock(&m->irq_lock);
	if (s->level != level) {
		s->level = level;
		irq_line_hold(m, s->gsi, level);
	}
	pthread_mutex_unlock(&m->irq_lock);
}

void irq_source_move(struct irq_source *s, unsigned gsi)
{
	struct machine *m = s->machine;

	if (!m)
		return;
	pthread_mutex_lock(&m->irq_lock);
	if (s->gsi != gsi) {
		if (s->level)
			irq_line_hold(m, s->gsi, false);
		s->gsi = gsi;
		if (s->level)
			irq_line_hold(m, gsi, true);
	}
	pthread_mutex_unlock(&m->irq_lock);
}

/* ------------------------------------------------------------------ MSI */

#define IRQ_ROUTES_MAX 4000u /* KVM takes 4096 in all; an ISA line is two */

int irq_msi_alloc(struct machine *m)
{
	struct msi_route *grown;
	int gsi = -ENOSPC;

	pthread_mutex_lock(&m->route_lock);
	if (m->nroutes < IRQ_ROUTES_MAX) {
		grown = realloc(m->routes, (m->nroutes + 1) * sizeof(*grown));
		if (grown) {
			m->routes = grown;
			m->routes[m->nroutes] = (struct msi_route){0};
			gsi = IRQ_GSI_MSI + m->nroutes++;
		} else {
			gsi = -ENOMEM;
		}
	}
	pthread_mutex_unlock(&m->route_lock);
	return gsi;
}

void irq_msi_set(struct machine *m, unsigned gsi, uint64_t address, uint32_t data)
{
	struct msi_route *r;

	pthread_mutex_lock(&m->route_lock);
	r = &m->routes[gsi - IRQ_GSI_MSI];
	if (!r->set || r->address != address || r->data != data) {
		*r = (struct msi_route){.address = address, .data = data, .set = true};
		m->routes_changed = true;
	}
	pthread_mutex_unlock(&m->route_lock);
}

int irq_msi_commit(struct machine *m)
{
	int rc = 0;

	pthread_mutex_lock(&m->route_lock);
	if (m->routes_changed && m->vm_fd >= 0)
		rc = kvm_routes_set(m, m->routes, m->nroutes);
	if (!rc)
		m->routes_changed = false;
	pthread_mutex_unlock(&m->route_lock);
	return rc;
}

int irq_irqfd_set(struct machine *m, unsigned gsi, int fd, bool on)
{
	return m->vm_fd >= 0 ? kvm_irqfd(m, gsi, fd, on) : 0;
}
