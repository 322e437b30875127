/* SPDX-License-Identifier: BSD-2-Clause */
/* Saving and loading a machine, and everything that can be asked about one. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "vmm/machine_priv.h"

#define MACHINE_STATE_VERSION 1u

/* ------------------------------------------------------------------ state */

int machine_save(struct machine *m, struct state_writer *w)
{
	bool quiesced;

	pthread_mutex_lock(&m->control_lock);
	if (m->started && !m->finished && !m->pausing) {
		pthread_mutex_unlock(&m->control_lock);
		return -EBUSY;
	}
	quiesced = m->quiesced;
	machine_devices_quiesce(m);
	state_section_begin(w, "machine", MACHINE_STATE_VERSION);
	state_put_u64(w, m->memory_size);
	state_put_u8(w, machine_has_kvm(m));
	state_put_u32(w, atomic_load(&m->pci_address));
	state_section_end(w);
	/* Devices first: saving them waits for interrupts that are on their way to the vCPUs. */
	for (struct device *d = m->devices; d; d = d->next)
		if (d->ops->save)
			d->ops->save(d, w);
	if (machine_has_kvm(m))
		kvm_state_save(m, w);
	if (!quiesced)
		machine_devices_resume(m);
	pthread_mutex_unlock(&m->control_lock);
	return w->error;
}

static void machine_state_load(struct machine *m, struct state_reader *r)
{
	bool kvm;

	state_section_enter(r, "machine", MACHINE_STATE_VERSION);
	if (state_get_u64(r) != m->memory_size && !r->error)
		r->error = -EINVAL;
	kvm = state_get_u8(r);
	if (kvm != machine_has_kvm(m) && !r->error)
		r->error = -EINVAL;
	atomic_store(&m->pci_address, state_get_u32(r) & 0x80fffffcu);
	state_section_leave(r);
}

int machine_load(struct machine *m, struct state_reader *r, char why[VMM_WHY_MAX])
{
	bool quiesced;
	int rc = 0;

	why[0] = '\0';
	pthread_mutex_lock(&m->control_lock);
	quiesced = m->quiesced;
	if (m->started) {
		rc = why_set(why, -EBUSY, "a state is loaded into a machine that was not started");
		goto out;
	}
	machine_devices_quiesce(m);
	machine_state_load(m, r);
	if (r->error)
		rc = why_set(why, r->error, "the saved state is not of a machine like this one");
	for (struct device *d = m->devices; d && !rc; d = d->next) {
		if (d->ops->load)
			d->ops->load(d, r);
		if (r->error)
			rc = why_set(why, r->error, "the saved state of %s: %s", d->name,
				strerror(-r->error));
	}
	if (!rc && machine_has_kvm(m)) {
		kvm_state_load(m, r);
		if (r->error)
			rc = why_set(why, r->error, "the saved state of the vCPUs: %s",
				strerror(-r->error));
	}
	/* a machine that took half a state in stays quiet until it is reset or destroyed */
	if (!rc && !quiesced)
		machine_devices_resume(m);
out:
	pthread_mutex_unlock(&m->control_lock);
	return rc;
}

/* ------------------------------------------------------------------ counters */

static uint64_t vcpu_cpu_ns(struct machine *m, struct vcpu *v)
{
	uint64_t ns = counter_get(&v->cpu_ns);
	struct timespec ts;
	clockid_t clock;

	pthread_mutex_lock(&m->run_lock);
	if (v->joinable && !v->exited && !pthread_getcpuclockid(v->thread, &clock) &&
		!clock_gettime(clock, &ts))
		ns += ts.tv_sec * 1000000000ull + ts.tv_nsec;
	pthread_mutex_unlock(&m->run_lock);
	return ns;
}

static void machine_vcpu_counters(struct machine *m, struct vcpu_counters *out)
{
	for (unsigned i = 0; m->vcpus && i < m->cfg.cpus; i++) {
		struct vcpu *v = &m->vcpus[i];

		out->exits += counter_get(&v->exits);
		out->exits_io += counter_get(&v->exits_io);
		out->exits_mmio += counter_get(&v->exits_mmio);
		out->exits_signal += counter_get(&v->exits_signal);
		out->exits_other += counter_get(&v->exits_other);
		out->system_calls += counter_get(&v->system_calls);
		out->cpu_ns += vcpu_cpu_ns(m, v);
	}
}

void machine_counters_get(struct machine *m, struct machine_counters *out)
{
	memset(out, 0, sizeof(*out));
	machine_vcpu_counters(m, &out->vcpu);
	for (unsigned i = 0; i < m->nio; i++) {
		struct io_thread_counters io;

		io_thread_counters_get(m->io[i], &io);
		out->io.system_calls += io.system_calls;
		out->io.sleeps += io.sleeps;
		out->io.wakeups += io.wakeups;
		out->io.poll_hits += io.poll_hits;
		out->io.poll_misses += io.poll_misses;
		out->io.idle_ns += io.idle_ns;
		out->io.cpu_ns += io.cpu_ns;
	}
	for (struct device *d = m->devices; d; d = d->next) {
		const struct device_counters *c = device_counters_of(d);

		out->interrupts += counter_get(&c->interrupts);
		out->doorbells += counter_get(&c->doorbells);
		out->coalesced += counter_get(&c->coalesced);
		out->device_system_calls += counter_get(&c->system_calls);
		/* signals are the transport's, wherever requests are counted */
		if (c != &d->counters)
			out->device_system_calls += counter_get(&d->counters.system_calls);
	}
	for (unsigned i = 0; i < m->nunits; i++) {
		struct net_counters net;

		if (!m->units[i].port)
			continue;
		net_port_counters_get(m->units[i].port, &net);
		out->device_system_calls += net.system_calls;
	}
}

unsigned machine_devices(const struct machine *m)
{
	return m->nunits;
}

void machine_device_report(const struct machine *m, unsigned i, struct device_report *out)
{
	const struct machine_unit *unit;

	memset(out, 0, sizeof(*out));
	if (i >= m->nunits)
		return;
	unit = &m->units[i];
	out->model = unit->model->info.name;
	out->kind = unit->model->info.kind;
	out->counters = device_counters_of(unit->device);
	if (unit->image)
		blk_info_get(unit->image, &out->blk);
	if (unit->port)
		out->port_kind = net_port_kind(unit->port);
	out->vhost = !strncmp(unit->model->info.name, "vhost-user", 10);
	if (out->vhost)
		split_vhost_info_get(virtio_pci_split(unit->device), &out->vhost_info);
}

const struct histogram *machine_device_latency(const struct machine *m, unsigned i, unsigned queue)
{
	struct device *d = i < m->nunits ? m->units[i].device : NULL;

	return d && d->ops->latency ? d->ops->latency(d, queue) : NULL;
}
