/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vCPUs: their CPUID and first registers, and the thread that runs each. The thread makes one
 * system call per exit, KVM_RUN, and whatever the device that answers needs.
 *
 * Stopping a vCPU: `immediate_exit` is set, then the signal sent. If the thread is inside KVM_RUN
 * the signal interrupts it; if it is about to enter, immediate_exit turns it round. The thread
 * looks at why only after KVM_RUN has returned EINTR, for only then has KVM finished the access
 * that the previous exit began.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define VCPU_STACK        (192u << 10)
#define VCPU_SIGNAL       (SIGRTMIN + 4)
#define CPUID_DEADLINE    (1u << 24)
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MTRR_ENABLED      0x800u
#define MTRR_WRITE_BACK   6u
#define MSR_MISC_ENABLE   0x1a0u
#define MISC_FAST_STRINGS 1u

static __thread struct vcpu *vcpu_self;

void machine_system_call_count(void)
{
	if (vcpu_self)
		counter_add(&vcpu_self->system_calls, 1);
}

/* ------------------------------------------------------------------ CPUID */

static struct kvm_cpuid2 *cpuid_alloc(void)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + CPU_LEAVES_MAX * sizeof(c->entries[0]));

	if (c)
		c->nent = CPU_LEAVES_MAX;
	return c;
}

/* What this host's KVM supports. A few places are left free for cpuid_build(). */
static int cpuid_host_get(struct machine *m, struct cpu_leaves *host)
{
	struct kvm_cpuid2 *c = cpuid_alloc();
	int rc = 0;

	if (!c)
		return -ENOMEM;
	c->nent -= 8;
	if (ioctl(m->kvm_fd, KVM_GET_SUPPORTED_CPUID, c))
		rc = -errno;
	host->n = rc ? 0 : c->nent;
	for (unsigned i = 0; i < host->n; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];

		host->leaf[i] = (struct cpu_leaf){
			.function = e->function,
			.index = e->index,
			.indexed = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = e->eax,
			.ebx = e->ebx,
			.ecx = e->ecx,
			.edx = e->edx,
		};
		if (e->function == 1 &&
			ioctl(m->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
			host->leaf[i].ecx |= CPUID_DEADLINE;
	}
	free(c);
	return rc;
}

/* Once for all vCPUs. */
static int cpuid_prepare(struct machine *m, char why[VMM_WHY_MAX])
{
	struct cpu_leaves *host = calloc(1, sizeof(*host));
	int rc = -ENOMEM;

	m->cpuid = calloc(1, sizeof(*m->cpuid));
	if (host && m->cpuid)
		rc = cpuid_host_get(m, host);
	if (!rc)
		rc = cpuid_build(m->cpuid, host, m->cfg.cpu, m->tsc_khz, why);
	free(host);
	return rc;
}

static int cpuid_set(struct machine *m, struct vcpu *v)
{
	struct kvm_cpuid2 *c = cpuid_alloc();
	int rc;

	if (!c)
		return -ENOMEM;
	cpuid_personalize(m->cpuid, v->index, m->cfg.cpus);
	c->nent = m->cpuid->n;
	for (unsigned i = 0; i < c->nent; i++) {
		const struct cpu_leaf *l = &m->cpuid->leaf[i];

		c->entries[i] = (struct kvm_cpuid_entry2){
			.function = l->function,
			.index = l->index,
			.flags = l->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = l->eax,
			.ebx = l->ebx,
			.ecx = l->ecx,
			.edx = l->edx,
		};
	}
	rc = ioctl(v->fd, KVM_SET_CPUID2, c) ? -errno : 0;
	free(c);
	return rc;
}

/*
 * What firmware would have done: memory is write-back where no register says otherwise, and string
 * instructions are fast. A KVM that lacks one of them does without.
 */
static void vcpu_msrs_set(struct vcpu *v)
{
	union {
		struct kvm_msrs head;
		uint8_t bytes[sizeof(struct kvm_msrs) + 2 * sizeof(struct kvm_msr_entry)];
	} msrs = {.head.nmsrs = 1};

	msrs.head.entries[0] = (struct kvm_msr_entry){
		.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED | MTRR_WRITE_BACK};
	ioctl(v->fd, KVM_SET_MSRS, &msrs);
	msrs.head.entries[0].index = MSR_MISC_ENABLE;
	if (ioctl(v->fd, KVM_GET_MSRS, &msrs) != 1)
		return;
	msrs.head.entries[0].data |= MISC_FAST_STRINGS;
	ioctl(v->fd, KVM_SET_MSRS, &msrs);
}

/* ------------------------------------------------------------------ creation */

static int vcpu_create(struct machine *m, struct vcpu *v, char why[VMM_WHY_MAX])
{
	int khz, rc;

	v->fd = ioctl(m->vm_fd, KVM_CREATE_VCPU, v->index);
	if (v->fd < 0)
		return -errno;
	v->run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return -errno;
	}
	if (!v->index) {
		khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
		m->tsc_khz = khz > 0 ? khz : 0;
		if (m->coalesced_max)
			m->coalesced =
				(void *)((uint8_t *)v->run + m->coalesced_max * MACHINE_PAGE);
	}
	rc = m->cpuid ? 0 : cpuid_prepare(m, why);
	if (!rc)
		rc = cpuid_set(m, v);
	if (!rc)
		vcpu_msrs_set(v);
	return rc;
}

int kvm_vcpus_create(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc;

	m->vcpus = calloc(m->cfg.cpus, sizeof(*m->vcpus));
	if (!m->vcpus)
		return why_set(why, -ENOMEM, "--cpus %u: no memory", m->cfg.cpus);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		m->vcpus[i] = (struct vcpu){.machine = m, .index = i, .fd = -1};
	for (unsigned i = 0; i < m->cfg.cpus; i++) {
		why[0] = '\0';
		rc = vcpu_create(m, &m->vcpus[i], why);
		if (rc && why[0])
			return rc;
		if (rc)
			return why_set(why, rc, "--cpus %u: KVM makes no vCPU %u: %s", m->cfg.cpus,
				i, strerror(-rc));
	}
	return 0;
}

void kvm_vcpus_destroy(struct machine *m)
{
	for (unsigned i = 0; m->vcpus && i < m->cfg.cpus; i++) {
		struct vcpu *v = &m->vcpus[i];

		if (v->run)
			munmap(v->run, m->run_size);
		if (v->fd >= 0)
			close(v->fd);
	}
	free(m->vcpus);
	free(m->cpuid);
	m->vcpus = NULL;
	m->cpuid = NULL;
	m->coalesced = NULL;
}

/* PVH: 32-bit protected mode, flat segments, no paging, EBX at the start information. */
int kvm_boot_registers(struct machine *m, uint64_t entry, uint64_t start_info)
{
	struct kvm_segment code = {
		.limit = 0xffffffff,
		.selector = 0x08,
		.type = 0xb,
		.present = 1,
		.s = 1,
		.db = 1,
		.g = 1,
	};
	struct kvm_segment data = code, tss = code;
	struct kvm_regs regs = {.rip = entry, .rbx = start_info, .rflags = 2};
	struct kvm_sregs sregs;
	int fd = m->vcpus[0].fd;

	data.selector = 0x10;
	data.type = 3;
	tss.selector = 0x18;
	tss.limit = 0x67;
	tss.type = 0xb;
	tss.s = tss.db = tss.g = 0;
	if (ioctl(fd, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = tss;
	sregs.gdt.base = sregs.gdt.limit = 0;
	sregs.idt.base = sregs.idt.limit = 0;
	sregs.cr0 = (sregs.cr0 & ~0x80000000ull) | 1;
	sregs.cr4 = 0;
	sregs.efer = 0;
	if (ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

/* Linux's 64-bit entry: long mode, flat segments at 0x10 and 0x18, RSI at the zero page. */
int kvm_boot_registers_long(
	struct machine *m, uint64_t entry, uint64_t params, uint64_t cr3, uint64_t gdt)
{
	struct kvm_segment code = {
		.limit = 0xffffffff,
		.selector = 0x10,
		.type = 0xb,
		.present = 1,
		.s = 1,
		.l = 1,
		.g = 1,
	};
	struct kvm_segment data = code, tss = code;
	struct kvm_regs regs = {.rip = entry, .rsi = params, .rflags = 2};
	struct kvm_sregs sregs;
	int fd = m->vcpus[0].fd;

	data.selector = 0x18;
	data.type = 3;
	data.l = 0;
	data.db = 1;
	tss.selector = 0x20;
	tss.limit = 0x67;
	tss.type = 0xb;
	tss.s = tss.l = tss.g = 0;
	if (ioctl(fd, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = tss;
	sregs.gdt.base = gdt;
	sregs.gdt.limit = 5 * 8 - 1;
	sregs.idt.base = sregs.idt.limit = 0;
	sregs.cr3 = cr3;
	sregs.cr4 = 1u << 5;                /* PAE */
	sregs.cr0 = 1u << 31 | 1u << 4 | 1; /* PG, ET, PE */
	sregs.efer = 1u << 8 | 1u << 10;    /* LME, LMA */
	if (ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

/* ------------------------------------------------------------------ exits */

/* The bytes at the instruction pointer, as text; KVM gives them or memory does. */
static void vcpu_instruction_text(
	struct vcpu *v, const uint8_t *bytes, unsigned n, uint64_t rip, char out[64])
{
	struct kvm_translation tr = {.linear_address = rip};
	uint8_t own[8];
	unsigned at = 0;

	if (!n && ioctl(v->fd, KVM_TRANSLATE, &tr) == 0 && tr.valid &&
		ring_mem_read(&v->machine->mem, tr.physical_address, own, sizeof(own)) == 0) {
		bytes = own;
		n = sizeof(own);
	}
	out[0] = '\0';
	for (unsigned i = 0; i < n && i < 15; i++)
		at += snprintf(out + at, 64 - at, "%s%02x", i ? " " : "", bytes[i]);
}

static void vcpu_internal_error(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	struct kvm_facts facts;
	struct kvm_regs regs = {0};
	char why[VMM_WHY_MAX], text[64];
	const uint8_t *bytes = NULL;
	unsigned n = 0;

	ioctl(v->fd, KVM_GET_REGS, &regs);
	if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
		machine_fail(v->machine,
			"vCPU %u: KVM internal error %u at rip 0x%llx; the kernel log may say more",
			v->index, run->internal.suberror, (unsigned long long)regs.rip);
		return;
	}
	if (run->emulation_failure.ndata >= 3 &&
		(run->emulation_failure.flags &
			KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
		bytes = run->emulation_failure.insn_bytes;
		n = run->emulation_failure.insn_size;
		if (n > sizeof(run->emulation_failure.insn_bytes))
			n = 0;
	}
	vcpu_instruction_text(v, bytes, n, regs.rip, text);
	kvm_facts_get(&facts, why);
	machine_fail(v->machine, "vCPU %u: KVM cannot emulate the instruction at rip 0x%llx (%s)%s",
		v->index, (unsigned long long)regs.rip, text[0] ? text : "bytes unknown",
		facts.interprets_ring0
			? "; this host's KVM has no hardware virtualization and interprets "
			  "ring 0: use a host with VT-x or AMD-V"
			: "");
}

static void vcpu_system_event(struct vcpu *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		machine_request_end(v->machine, MACHINE_POWEROFF);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		machine_request_end(v->machine, MACHINE_RESET);
		break;
	default:
		machine_request_end(v->machine, MACHINE_TRIPLE_FAULT);
	}
}

static void vcpu_exit_handle(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	kvm_coalesced_drain(v->machine);
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		counter_add(&v->exits_io, 1);
		bus_access(v->machine, BUS_PIO, run->io.port, (uint8_t *)run + run->io.data_offset,
			run->io.size, run->io.count, run->io.direction == KVM_EXIT_IO_OUT, false);
		break;
	case KVM_EXIT_MMIO:
		counter_add(&v->exits_mmio, 1);
		bus_access(v->machine, BUS_MMIO, run->mmio.phys_addr, run->mmio.data, run->mmio.len,
			1, run->mmio.is_write, false);
		break;
	case KVM_EXIT_INTR:
		counter_add(&v->exits_signal, 1);
		break;
	default:
		counter_add(&v->exits_other, 1);
		if (run->exit_reason == KVM_EXIT_SHUTDOWN)
			machine_request_end(v->machine, MACHINE_TRIPLE_FAULT);
		else if (run->exit_reason == KVM_EXIT_SYSTEM_EVENT)
			vcpu_system_event(v);
		else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
			vcpu_internal_error(v);
		else if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
			machine_fail(v->machine,
				"vCPU %u: the CPU refuses to enter the guest (0x%llx)", v->index,
				(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		else if (run->exit_reason != KVM_EXIT_IRQ_WINDOW_OPEN &&
			 run->exit_reason != KVM_EXIT_HLT)
			machine_fail(v->machine,
				"vCPU %u: KVM left the guest for an unknown reason %u", v->index,
				run->exit_reason);
	}
}

/* ------------------------------------------------------------------ the thread */

static void vcpu_loop(struct vcpu *v)
{
	struct machine *m = v->machine;

	while (machine_vcpu_continue(v)) {
		int error = 0;

		while (!error && !machine_running_end(m)) {
			error = ioctl(v->fd, KVM_RUN, 0) ? errno : 0;
			counter_add(&v->exits, 1);
			counter_add(&v->system_calls, 1);
			if (!error) {
				vcpu_exit_handle(v);
			} else if (error == EAGAIN) {
				/* a waiting vCPU was told to start */
				counter_add(&v->exits_other, 1);
				error = 0;
			}
		}
		if (error == EINTR) {
			counter_add(&v->exits_signal, 1);
		} else if (error) {
			counter_add(&v->exits_other, 1);
			machine_fail(m, "vCPU %u: KVM_RUN: %s", v->index, strerror(error));
		}
	}
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	struct machine *m = v->machine;
	struct timespec ts = {0};
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", v->index);
	prctl(PR_SET_NAME, name);
	vcpu_self = v;
	atomic_store(&v->tid, (int)syscall(SYS_gettid));
	vcpu_loop(v);
	atomic_store(&v->tid, 0);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	pthread_mutex_lock(&m->run_lock);
	counter_add(&v->cpu_ns, ts.tv_sec * 1000000000ull + ts.tv_nsec);
	v->exited = true;
	pthread_cond_broadcast(&m->run_cond);
	pthread_mutex_unlock(&m->run_lock);
	return NULL;
}

int kvm_vcpu_start(struct vcpu *v, char why[VMM_WHY_MAX])
{
	pthread_attr_t attr;
	sigset_t all, old;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, VCPU_STACK);
	/* the process's own signals are for its other threads */
	sigfillset(&all);
	sigdelset(&all, VCPU_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&v->thread, &attr, vcpu_thread, v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (rc)
		return why_set(why, -rc, "--cpus %u: no thread for vCPU %u: %s",
			v->machine->cfg.cpus, v->index, strerror(rc));
	v->joinable = true;
	return 0;
}

/* Async-signal-safe. */
void kvm_vcpu_kick(struct vcpu *v)
{
	int tid;

	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	tid = atomic_load(&v->tid);
	if (tid)
		syscall(SYS_tgkill, getpid(), tid, VCPU_SIGNAL);
}

static void vcpu_signal(int signal)
{
	(void)signal;
}

static void vcpu_signal_install_once(void)
{
	struct sigaction sa = {.sa_handler = vcpu_signal};

	sigemptyset(&sa.sa_mask);
	sigaction(VCPU_SIGNAL, &sa, NULL);
}

void kvm_signal_install(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, vcpu_signal_install_once);
}
