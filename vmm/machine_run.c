/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Running: start, end, pause, resume, reset. Whoever wants the end, the guest or the user, sets it
 * once, kicks the vCPUs and makes end_fd readable, all of it async-signal-safe; the threads leave,
 * and machine_wait() or machine_destroy() does the rest: join, quiesce, sync.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

const char *machine_end_name(enum machine_end end)
{
	static const char *const names[] = {
		[MACHINE_RUNNING] = "running",
		[MACHINE_STOPPED] = "stopped",
		[MACHINE_POWEROFF] = "power-off",
		[MACHINE_RESET] = "reset",
		[MACHINE_TRIPLE_FAULT] = "triple fault",
		[MACHINE_HALTED] = "halted",
		[MACHINE_FAILED] = "failed",
	};

	return (unsigned)end < sizeof(names) / sizeof(names[0]) ? names[end] : "unknown";
}

/* ------------------------------------------------------------------ the end */

void machine_kick(struct machine *m)
{
	for (unsigned i = 0; m->vcpus && i < m->cfg.cpus; i++)
		if (m->vcpus[i].run)
			kvm_vcpu_kick(&m->vcpus[i]);
}

/* Async-signal-safe. */
void machine_request_end(struct machine *m, enum machine_end end)
{
	const uint64_t one = 1;
	int running = MACHINE_RUNNING;
	int saved = errno;
	ssize_t n;

	if (!atomic_compare_exchange_strong(&m->end, &running, end))
		return;
	machine_kick(m);
	n = write(m->end_fd, &one, sizeof(one));
	(void)n;
	errno = saved;
}

void machine_stop(struct machine *m)
{
	machine_request_end(m, MACHINE_STOPPED);
}

void machine_fail(struct machine *m, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&m->run_lock);
	if (!m->failure[0]) {
		va_start(ap, fmt);
		vsnprintf(m->failure, sizeof(m->failure), fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&m->run_lock);
	machine_request_end(m, MACHINE_FAILED);
}

const char *machine_failure(const struct machine *m)
{
	return m->failure;
}

int machine_end_fd(const struct machine *m)
{
	return m->end_fd;
}

/* ------------------------------------------------------------------ vCPU threads */

bool machine_vcpu_continue(struct vcpu *v)
{
	struct machine *m = v->machine;

	pthread_mutex_lock(&m->run_lock);
	while (m->pausing && !m->finishing) {
		v->parked = true;
		pthread_cond_broadcast(&m->run_cond);
		pthread_cond_wait(&m->run_cond, &m->run_lock);
	}
	v->parked = false;
	/* A kick sets the end or `pausing` first and this flag after: cleared, then looked again.
	 */
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&m->run_lock);
	return !machine_running_end(m);
}

static void machine_threads_join(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	m->finishing = true;
	pthread_cond_broadcast(&m->run_cond);
	pthread_mutex_unlock(&m->run_lock);
	machine_kick(m);
	for (unsigned i = 0; m->vcpus && i < m->cfg.cpus; i++) {
		if (!m->vcpus[i].joinable)
			continue;
		pthread_join(m->vcpus[i].thread, NULL);
		m->vcpus[i].joinable = false;
	}
}

static int machine_threads_start(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc = 0;

	kvm_signal_install();
	m->finishing = false;
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		m->vcpus[i].exited = false;
	for (unsigned i = 0; i < m->cfg.cpus && !rc; i++)
		rc = kvm_vcpu_start(&m->vcpus[i], why);
	return rc;
}

int machine_start(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc;

	if (!machine_has_kvm(m))
		return why_set(why, -ENOTSUP, "a machine without KVM has no vCPUs to start");
	pthread_mutex_lock(&m->control_lock);
	if (m->started) {
		pthread_mutex_unlock(&m->control_lock);
		return why_set(why, -EBUSY, "the machine was started already");
	}
	machine_devices_resume(m);
	m->started = true;
	rc = machine_threads_start(m, why);
	pthread_mutex_unlock(&m->control_lock);
	if (rc)
		machine_stop(m);
	return rc;
}

/* ------------------------------------------------------------------ quiescing */

void machine_devices_quiesce(struct machine *m)
{
	if (m->quiesced)
		return;
	m->quiesced = true;
	machine_coalesced_drain(m);
	for (struct device *d = m->devices; d; d = d->next)
		if (d->ops->quiesce)
			d->ops->quiesce(d);
}

void machine_devices_resume(struct machine *m)
{
	if (!m->quiesced)
		return;
	m->quiesced = false;
	for (struct device *d = m->devices; d; d = d->next)
		if (d->ops->resume)
			d->ops->resume(d);
}

/* No guest waits for them any more: a server that is gone shall not keep the monitor. */
static void machine_images_abandon(struct machine *m)
{
	for (unsigned i = 0; i < m->nunits; i++)
		if (m->units[i].image)
			blk_abandon(m->units[i].image);
}

void machine_finish(struct machine *m)
{
	if (m->finished)
		return;
	machine_threads_join(m);
	m->pausing = false;
	machine_images_abandon(m);
	machine_devices_quiesce(m);
	for (unsigned i = 0; i < m->nunits; i++) {
		struct blk_info info;
		int rc;

		if (!m->units[i].image)
			continue;
		blk_info_get(m->units[i].image, &info);
		rc = info.readonly ? 0 : blk_sync(m->units[i].image);
		if (!rc)
			continue;
		pthread_mutex_lock(&m->run_lock);
		if (!m->failure[0])
			snprintf(m->failure, sizeof(m->failure),
				"disk %u: what the guest wrote may not be on disk: %s", i,
				strerror(-rc));
		pthread_mutex_unlock(&m->run_lock);
		atomic_store(&m->end, MACHINE_FAILED);
	}
	m->finished = true;
}

enum machine_end machine_wait(struct machine *m, int timeout_ms)
{
	struct pollfd p = {.fd = m->end_fd, .events = POLLIN};
	uint64_t until = clock_now_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000000u;
	int left = timeout_ms;

	while (poll(&p, 1, left) < 0 && errno == EINTR) {
		uint64_t now = clock_now_ns();

		if (timeout_ms >= 0)
			left = now < until ? (int)((until - now) / 1000000u) : 0;
	}
	if (!machine_running_end(m))
		return MACHINE_RUNNING;
	pthread_mutex_lock(&m->control_lock);
	machine_finish(m);
	pthread_mutex_unlock(&m->control_lock);
	return atomic_load(&m->end);
}

static bool machine_threads_parked(const struct machine *m)
{
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		if (m->vcpus[i].joinable && !m->vcpus[i].parked && !m->vcpus[i].exited)
			return false;
	return true;
}

int machine_pause(struct machine *m)
{
	pthread_mutex_lock(&m->control_lock);
	if (m->started && !m->finished && !m->pausing) {
		pthread_mutex_lock(&m->run_lock);
		m->pausing = true;
		pthread_mutex_unlock(&m->run_lock);
		machine_kick(m);
		pthread_mutex_lock(&m->run_lock);
		while (!machine_threads_parked(m))
			pthread_cond_wait(&m->run_cond, &m->run_lock);
		pthread_mutex_unlock(&m->run_lock);
	}
	machine_devices_quiesce(m);
	pthread_mutex_unlock(&m->control_lock);
	return 0;
}

int machine_resume(struct machine *m)
{
	pthread_mutex_lock(&m->control_lock);
	if (!m->finished) {
		machine_devices_resume(m);
		pthread_mutex_lock(&m->run_lock);
		m->pausing = false;
		pthread_cond_broadcast(&m->run_cond);
		pthread_mutex_unlock(&m->run_lock);
	}
	pthread_mutex_unlock(&m->control_lock);
	return 0;
}

/* ------------------------------------------------------------------ reset */

static int machine_reset_locked(struct machine *m, char why[VMM_WHY_MAX])
{
	struct state_reader r;
	uint64_t n;
	int rc;

	if (machine_running_end(m))
		machine_finish(m);
	if (m->started && !m->finished && !m->pausing)
		return why_set(why, -EBUSY, "a running machine is not reset: pause it first");
	machine_devices_quiesce(m);
	for (struct device *d = m->devices; d; d = d->next)
		if (d->ops->reset)
			d->ops->reset(d);
	rc = pci_assign_all(m);
	if (rc)
		return why_set(why, rc, "PCI: %s", strerror(-rc));
	if (machine_has_kvm(m)) {
		state_reader_init(&r, m->pristine.data, m->pristine.len);
		kvm_state_load(m, &r);
		if (r.error)
			return why_set(why, r.error, "/dev/kvm: the vCPUs cannot be reset: %s",
				strerror(-r.error));
	}
	rc = boot_load(m, why);
	if (rc || !m->finished)
		return rc;
	/* a machine that had ended can be started again */
	while (read(m->end_fd, &n, sizeof(n)) > 0)
		;
	m->started = m->finished = m->finishing = false;
	m->failure[0] = '\0';
	atomic_store(&m->end, MACHINE_RUNNING);
	return 0;
}

int machine_reset(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc;

	why[0] = '\0';
	pthread_mutex_lock(&m->control_lock);
	rc = machine_reset_locked(m, why);
	pthread_mutex_unlock(&m->control_lock);
	return rc;
}
