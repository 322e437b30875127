/* SPDX-License-Identifier: BSD-2-Clause */
/* The user's devices that are neither disk nor card: console, entropy, balloon, sockets. */
#include <errno.h>
#include <stdio.h>

#include "vmm/machine_priv.h"

#define PAGE ((uint64_t)SPLIT_BALLOON_PAGE)

/* Each of these is there once at most, and found by its name. */
#define NAME_HVC     "hvc0"
#define NAME_RNG     "rng0"
#define NAME_BALLOON "balloon0"
#define NAME_VSOCK   "vsock0"

static int other_create(struct machine *m, const char *model_name, const char *name, unsigned index,
	char why[VMM_WHY_MAX])
{
	const struct device_model *model = device_model_find("other", model_name);
	struct machine_unit *unit = &m->units[m->nunits];
	struct other_args args = {.cfg = &m->cfg, .io = m->io[m->nunits % m->nio], .index = index};
	char text[VMM_WHY_MAX] = "";
	int rc;

	snprintf(args.name, sizeof(args.name), "%s", name);
	rc = model->create_other(m, &args, &unit->device, text);
	if (rc)
		return why_set(why, rc, "%s %.200s", model->info.option, text);
	unit->model = model;
	unit->device->model = model;
	m->nunits++;
	return 0;
}

static int balloon_size_check(const struct machine *m, uint64_t bytes, char why[VMM_WHY_MAX])
{
	char size[24], memory[24];

	vmm_size_format(bytes, size);
	vmm_size_format(m->cfg.memory, memory);
	if (bytes % PAGE)
		return why_set(why, -EINVAL, "--balloon size=%s: use a multiple of 4K", size);
	if (bytes >= m->cfg.memory)
		return why_set(why, -EINVAL, "--balloon size=%s: the guest has %s in all; use less",
			size, memory);
	if (bytes / PAGE > UINT32_MAX)
		return why_set(why, -EINVAL, "--balloon size=%s: use less than 16T", size);
	/* pages of 4 KiB out of the host's large ones: nothing would go back */
	if (bytes && m->cfg.hugepages)
		return why_set(why, -EINVAL,
			"--balloon size=%s: not with --hugepages; leave one of them out", size);
	return 0;
}

static int balloon_check(const struct machine *m, char why[VMM_WHY_MAX])
{
	for (unsigned i = 0; i < m->cfg.ndisks; i++)
		if (m->cfg.disks[i].registered_memory)
			return why_set(why, -EINVAL,
				"--balloon: not with --disk registered=on, which pins the guest's "
				"memory; leave one of them out");
	return balloon_size_check(m, m->cfg.balloon.size, why);
}

int machine_others_create(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc = 0;

	if (m->cfg.hvc.on)
		rc = other_create(m, "virtio-console", NAME_HVC, 0, why);
	if (!rc && m->cfg.rng.on)
		rc = other_create(m, "virtio-rng", NAME_RNG, 0, why);
	if (!rc && m->cfg.balloon.on)
		rc = balloon_check(m, why);
	if (!rc && m->cfg.balloon.on)
		rc = other_create(m, "virtio-balloon", NAME_BALLOON, 0, why);
	if (!rc && m->cfg.vsock.socket)
		rc = other_create(m, "virtio-vsock", NAME_VSOCK, 0, why);
	for (unsigned i = 0; i < m->cfg.nfs && !rc; i++) {
		char name[16];

		snprintf(name, sizeof(name), "fs%u", i);
		rc = other_create(m, "vhost-user-fs", name, i, why);
	}
	return rc;
}

/* ------------------------------------------------------------------ what they are asked to do */

static struct split_device *other_split(const struct machine *m, const char *name)
{
	struct device *d = machine_device_find(m, name);

	return d ? virtio_pci_split(d) : NULL;
}

size_t machine_hvc_input(struct machine *m, const uint8_t *bytes, size_t n)
{
	struct split_device *d = other_split(m, NAME_HVC);

	return d ? split_console_input(d, bytes, n) : 0;
}

void machine_hvc_resume(struct machine *m)
{
	struct split_device *d = other_split(m, NAME_HVC);

	if (d)
		split_console_resume(d);
}

void machine_hvc_resize(struct machine *m, uint16_t cols, uint16_t rows)
{
	struct split_device *d = other_split(m, NAME_HVC);

	if (d)
		split_console_size_set(d, cols, rows);
}

int machine_balloon_set(struct machine *m, uint64_t bytes, char why[VMM_WHY_MAX])
{
	struct split_device *d = other_split(m, NAME_BALLOON);
	int rc;

	if (!d)
		return why_set(why, -ENODEV, "the machine has no balloon; add --balloon");
	rc = balloon_size_check(m, bytes, why);
	if (!rc)
		split_balloon_target_set(d, (uint32_t)(bytes / PAGE));
	return rc;
}

int machine_balloon_get(struct machine *m, struct split_balloon_info *out)
{
	struct split_device *d = other_split(m, NAME_BALLOON);

	if (!d)
		return -ENODEV;
	split_balloon_info_get(d, out);
	return 0;
}

/* ------------------------------------------------------------------ the screen */

int machine_screen_fd(const struct machine *m)
{
	return m->vga_fd;
}

void machine_screen_sync(struct machine *m)
{
	machine_coalesced_drain(m);
}

int machine_speaker_get(const struct machine *m, struct speaker_info *out)
{
	return machine_has_kvm(m) ? kvm_speaker_get(m, out) : -ENODEV;
}
