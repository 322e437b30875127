/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vCPUs, interrupt controllers, timer and clock as KVM holds them, saved and loaded. KVM's own
 * structures are the format: a state is loaded by the same kind of host that saved it, and KVM
 * checks what it is given.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/machine_priv.h"

#define STATE_VERSION   1u
#define STATE_MSRS_MAX  1024u
#define STATE_XSAVE_MAX 65536u

/* One KVM structure of fixed size. */
struct state_part {
	unsigned long get, set;
	uint32_t size;
};

#define PART(get, set, type)                                                                       \
	{                                                                                          \
		get, set, sizeof(struct type)                                                      \
	}

/* Order matters: CPU mode before registers, local APIC after its base address (sregs), events and
 * run state last. */
static const struct state_part vcpu_parts[] = {
	PART(KVM_GET_SREGS, KVM_SET_SREGS, kvm_sregs),
	PART(KVM_GET_REGS, KVM_SET_REGS, kvm_regs),
	PART(KVM_GET_XCRS, KVM_SET_XCRS, kvm_xcrs),
	PART(KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, kvm_debugregs),
};
static const struct state_part vcpu_parts_late[] = {
	PART(KVM_GET_LAPIC, KVM_SET_LAPIC, kvm_lapic_state),
	PART(KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, kvm_vcpu_events),
	PART(KVM_GET_MP_STATE, KVM_SET_MP_STATE, kvm_mp_state),
};

#define PIT_HZ        1193182u
#define PIT_COUNT_MAX 0x10000u
#define COUNT(a)      (sizeof(a) / sizeof((a)[0]))

union state_any {
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_irqchip chip;
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
};

static void state_fail(int *error)
{
	if (!*error)
		*error = errno ? -errno : -EIO;
}

static void state_parts_save(
	struct state_writer *w, int fd, const struct state_part *parts, unsigned n)
{
	union state_any any;

	for (unsigned i = 0; i < n; i++) {
		memset(&any, 0, sizeof(any));
		if (ioctl(fd, parts[i].get, &any))
			state_fail(&w->error);
		state_put_bytes(w, &any, parts[i].size);
	}
}

static void state_parts_load(
	struct state_reader *r, int fd, const struct state_part *parts, unsigned n)
{
	union state_any any;

	for (unsigned i = 0; i < n && !r->error; i++) {
		memset(&any, 0, sizeof(any));
		state_get_bytes(r, &any, parts[i].size);
		if (!r->error && ioctl(fd, parts[i].set, &any))
			state_fail(&r->error);
	}
}

/* ------------------------------------------------------------------ extended CPU state */

static uint32_t state_xsave_size(struct machine *m)
{
	int size = ioctl(m->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	return size > (int)sizeof(struct kvm_xsave) ? (uint32_t)size : sizeof(struct kvm_xsave);
}

static void state_xsave_save(struct machine *m, struct vcpu *v, struct state_writer *w)
{
	uint32_t size = state_xsave_size(m);
	void *area = size <= STATE_XSAVE_MAX ? calloc(1, size) : NULL;
	unsigned long get = size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;

	if (!area) {
		w->error = w->error ? w->error : -ENOMEM;
		return;
	}
	if (ioctl(v->fd, get, area))
		state_fail(&w->error);
	state_put_u32(w, size);
	state_put_bytes(w, area, size);
	free(area);
}

static void state_xsave_load(struct machine *m, struct vcpu *v, struct state_reader *r)
{
	uint32_t size = state_get_u32(r), own = state_xsave_size(m);
	void *area;

	if (!r->error && size != own)
		r->error = -EINVAL;
	if (r->error)
		return;
	area = calloc(1, own);
	if (!area) {
		r->error = -ENOMEM;
		return;
	}
	state_get_bytes(r, area, own);
	if (!r->error && ioctl(v->fd, KVM_SET_XSAVE, area))
		state_fail(&r->error);
	free(area);
}

/* ------------------------------------------------------------------ MSRs */

/* Those this KVM says a saved state needs; NULL when there are none or no memory. */
static struct kvm_msr_list *state_msr_list(struct machine *m)
{
	struct kvm_msr_list *list =
		calloc(1, sizeof(*list) + STATE_MSRS_MAX * sizeof(list->indices[0]));

	if (!list)
		return NULL;
	list->nmsrs = STATE_MSRS_MAX;
	if (ioctl(m->kvm_fd, KVM_GET_MSR_INDEX_LIST, list)) {
		free(list);
		return NULL;
	}
	return list;
}

static struct kvm_msrs *state_msrs_alloc(uint32_t n)
{
	return calloc(1, sizeof(struct kvm_msrs) + n * sizeof(struct kvm_msr_entry));
}

/* KVM stops at one it cannot give: that one is left out and the rest tried again. */
static uint32_t state_msrs_get(
	struct vcpu *v, const struct kvm_msr_list *list, struct kvm_msrs *all)
{
	struct kvm_msrs *part = state_msrs_alloc(list->nmsrs);
	uint32_t at = 0, n = 0;

	while (part && at < list->nmsrs) {
		int got;

		part->nmsrs = list->nmsrs - at;
		for (uint32_t i = 0; i < part->nmsrs; i++)
			part->entries[i].index = list->indices[at + i];
		got = ioctl(v->fd, KVM_GET_MSRS, part);
		if (got < 0)
			break;
		memcpy(all->entries + n, part->entries, got * sizeof(part->entries[0]));
		n += got;
		at += got + 1;
	}
	free(part);
	return n;
}

static void state_msrs_save(struct machine *m, struct vcpu *v, struct state_writer *w)
{
	struct kvm_msr_list *list = state_msr_list(m);
	struct kvm_msrs *msrs = list ? state_msrs_alloc(list->nmsrs) : NULL;
	uint32_t n = 0;

	if (!msrs)
		w->error = w->error ? w->error : -ENOMEM;
	else
		n = state_msrs_get(v, list, msrs);
	state_put_u32(w, n);
	for (uint32_t i = 0; i < n; i++) {
		state_put_u32(w, msrs->entries[i].index);
		state_put_u64(w, msrs->entries[i].data);
	}
	free(msrs);
	free(list);
}

/* Some that can be read cannot be written back with the value they have: skipped, as by all
 * monitors. */
static void state_msrs_set(struct vcpu *v, const struct kvm_msrs *all)
{
	struct kvm_msrs *part = state_msrs_alloc(all->nmsrs);
	uint32_t at = 0;

	while (part && at < all->nmsrs) {
		int set;

		part->nmsrs = all->nmsrs - at;
		memcpy(part->entries, all->entries + at, part->nmsrs * sizeof(part->entries[0]));
		set = ioctl(v->fd, KVM_SET_MSRS, part);
		if (set < 0)
			break;
		at += set + 1;
	}
	free(part);
}

static void state_msrs_load(struct vcpu *v, struct state_reader *r)
{
	uint32_t n = state_get_u32(r);
	struct kvm_msrs *msrs;

	if (!r->error && n > STATE_MSRS_MAX)
		r->error = -EINVAL;
	if (r->error)
		return;
	msrs = state_msrs_alloc(n);
	if (!msrs) {
		r->error = -ENOMEM;
		return;
	}
	msrs->nmsrs = n;
	for (uint32_t i = 0; i < n; i++) {
		msrs->entries[i].index = state_get_u32(r);
		msrs->entries[i].data = state_get_u64(r);
	}
	if (!r->error)
		state_msrs_set(v, msrs);
	free(msrs);
}

/* ------------------------------------------------------------------ a vCPU, the machine */

static void state_vcpu_save(struct machine *m, struct vcpu *v, struct state_writer *w)
{
	state_section_begin(w, "vcpu", STATE_VERSION);
	state_put_u32(w, v->index);
	state_parts_save(w, v->fd, vcpu_parts, COUNT(vcpu_parts));
	state_xsave_save(m, v, w);
	state_msrs_save(m, v, w);
	state_parts_save(w, v->fd, vcpu_parts_late, COUNT(vcpu_parts_late));
	state_section_end(w);
}

static void state_vcpu_load(struct machine *m, struct vcpu *v, struct state_reader *r)
{
	state_section_enter(r, "vcpu", STATE_VERSION);
	if (state_get_u32(r) != v->index && !r->error)
		r->error = -EINVAL;
	state_parts_load(r, v->fd, vcpu_parts, COUNT(vcpu_parts));
	state_xsave_load(m, v, r);
	state_msrs_load(v, r);
	state_parts_load(r, v->fd, vcpu_parts_late, COUNT(vcpu_parts_late));
	state_section_leave(r);
}

void kvm_state_save(struct machine *m, struct state_writer *w)
{
	struct kvm_irqchip chip;
	struct kvm_pit_state2 pit = {0};
	struct kvm_clock_data clock = {0};

	state_section_begin(w, "kvm", STATE_VERSION);
	state_put_u32(w, m->cfg.cpus);
	state_put_u32(w, m->tsc_khz);
	for (unsigned i = 0; i < 3; i++) {
		memset(&chip, 0, sizeof(chip));
		chip.chip_id = i;
		if (ioctl(m->vm_fd, KVM_GET_IRQCHIP, &chip))
			state_fail(&w->error);
		state_put_bytes(w, &chip, sizeof(chip));
	}
	if (ioctl(m->vm_fd, KVM_GET_PIT2, &pit) || ioctl(m->vm_fd, KVM_GET_CLOCK, &clock))
		state_fail(&w->error);
	state_put_bytes(w, &pit, sizeof(pit));
	state_put_u64(w, clock.clock);
	state_section_end(w);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		state_vcpu_save(m, &m->vcpus[i], w);
}

void kvm_state_load(struct machine *m, struct state_reader *r)
{
	struct kvm_irqchip chip;
	struct kvm_pit_state2 pit = {0};
	struct kvm_clock_data clock = {0};
	uint32_t khz;

	state_section_enter(r, "kvm", STATE_VERSION);
	if (state_get_u32(r) != m->cfg.cpus && !r->error)
		r->error = -EINVAL;
	khz = state_get_u32(r);
	/* a host whose counter runs at another speed scales it where it can */
	if (!r->error && khz && khz != m->tsc_khz)
		for (unsigned i = 0; i < m->cfg.cpus; i++)
			ioctl(m->vcpus[i].fd, KVM_SET_TSC_KHZ, khz);
	for (unsigned i = 0; i < 3; i++) {
		memset(&chip, 0, sizeof(chip));
		state_get_bytes(r, &chip, sizeof(chip));
		chip.chip_id = i;
		if (!r->error && ioctl(m->vm_fd, KVM_SET_IRQCHIP, &chip))
			state_fail(&r->error);
	}
	state_get_bytes(r, &pit, sizeof(pit));
	clock.clock = state_get_u64(r);
	if (!r->error &&
		(ioctl(m->vm_fd, KVM_SET_PIT2, &pit) || ioctl(m->vm_fd, KVM_SET_CLOCK, &clock)))
		state_fail(&r->error);
	state_section_leave(r);
	for (unsigned i = 0; i < m->cfg.cpus && !r->error; i++)
		state_vcpu_load(m, &m->vcpus[i], r);
}

/*
 * KVM's timer answers port 61h, too (KVM_PIT_SPEAKER_DUMMY); whether bit 1 is set it says since
 * Linux 5.19. Modes 2 and 3 (82C54 data sheet, "Mode definitions"; 6 and 7 are the same) repeat,
 * and only that is a tone.
 */
int kvm_speaker_get(const struct machine *m, struct speaker_info *out)
{
	struct kvm_pit_state2 pit = {0};
	const struct kvm_pit_channel_state *c = &pit.channels[2];
	uint32_t count;

	if (ioctl(m->vm_fd, KVM_GET_PIT2, &pit))
		return -errno;
	count = c->count ? c->count : PIT_COUNT_MAX;
	out->hz = c->mode & 2 ? (PIT_HZ + count / 2) / count : 0;
	out->on = out->hz && c->gate && (pit.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON);
	return 0;
}
