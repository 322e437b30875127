/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtual machine as KVM knows it: memory, interrupt controllers, and the registrations that
 * keep accesses in the kernel (ioeventfd, irqfd, coalesced zones).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define KVM_IDENTITY_MAP 0xfeffc000ull /* below firmware of 16 MiB */
#define KVM_TSS          0xfeffd000ul
#define KVM_PIC_LEVEL    0x0cu /* ELCR of the second 8259: lines 10 and 11, where PCI's are */

static const struct {
	int cap;
	const char *name;
} kvm_needed[] = {
	{KVM_CAP_IRQCHIP, "IRQCHIP"},
	{KVM_CAP_PIT2, "PIT2"},
	{KVM_CAP_USER_MEMORY, "USER_MEMORY"},
	{KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING"},
	{KVM_CAP_IRQFD, "IRQFD"},
	{KVM_CAP_IOEVENTFD, "IOEVENTFD"},
	{KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"},
};

static int kvm_host_open(struct machine *m, char why[VMM_WHY_MAX])
{
	struct kvm_facts facts;
	int rc, version;

	m->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (m->kvm_fd < 0) {
		rc = kvm_facts_get(&facts, why);
		return rc ? rc : why_set(why, -EAGAIN, "/dev/kvm: cannot be opened; try again");
	}
	version = ioctl(m->kvm_fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION)
		return why_set(why, -ENOTSUP, "/dev/kvm: API version %d; %d is needed", version,
			KVM_API_VERSION);
	for (size_t i = 0; i < sizeof(kvm_needed) / sizeof(kvm_needed[0]); i++)
		if (ioctl(m->kvm_fd, KVM_CHECK_EXTENSION, kvm_needed[i].cap) <= 0)
			return why_set(why, -ENOTSUP,
				"/dev/kvm: this kernel lacks KVM_CAP_%s; a newer one has it",
				kvm_needed[i].name);
	m->run_size = ioctl(m->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	return 0;
}

/* PCI's interrupt lines are level-triggered, which firmware would tell the 8259 pair. */
static int kvm_pic_level_set(struct machine *m)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_PIC_SLAVE};

	if (ioctl(m->vm_fd, KVM_GET_IRQCHIP, &chip))
		return -errno;
	chip.chip.pic.elcr = KVM_PIC_LEVEL;
	return ioctl(m->vm_fd, KVM_SET_IRQCHIP, &chip) ? -errno : 0;
}

static int kvm_chips_create(struct machine *m)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	uint64_t identity = KVM_IDENTITY_MAP;

	if (ioctl(m->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) ||
		ioctl(m->vm_fd, KVM_SET_TSS_ADDR, KVM_TSS) ||
		ioctl(m->vm_fd, KVM_CREATE_IRQCHIP, 0) || ioctl(m->vm_fd, KVM_CREATE_PIT2, &pit))
		return -errno;
	return kvm_pic_level_set(m);
}

int kvm_vm_create(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc = kvm_host_open(m, why);

	if (rc)
		return rc;
	do {
		m->vm_fd = ioctl(m->kvm_fd, KVM_CREATE_VM, 0);
	} while (m->vm_fd < 0 && errno == EINTR);
	if (m->vm_fd < 0) {
		rc = -errno;
		return why_set(why, rc, "/dev/kvm: no virtual machine: %s", strerror(-rc));
	}
	rc = kvm_chips_create(m);
	if (rc)
		return why_set(why, rc, "/dev/kvm: no interrupt controllers: %s", strerror(-rc));
	if (!m->cfg.no_coalesce) {
		rc = ioctl(m->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
		m->coalesced_max = rc > 0 ? rc : 0; /* page offset in a vCPU's mapping */
		m->coalesced_pio = ioctl(m->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO) > 0;
	}
	return 0;
}

void kvm_vm_destroy(struct machine *m)
{
	if (m->vm_fd >= 0)
		close(m->vm_fd);
	if (m->kvm_fd >= 0)
		close(m->kvm_fd);
	m->vm_fd = m->kvm_fd = -1;
}

int kvm_slot_set(struct machine *m, const struct kvm_slot *s)
{
	struct kvm_userspace_memory_region slot = {
		.slot = s->slot,
		.flags = s->readonly ? KVM_MEM_READONLY : 0,
		.guest_phys_addr = s->gpa,
		.memory_size = s->size,
		.userspace_addr = (uintptr_t)s->host,
	};

	return ioctl(m->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
}

int kvm_memory_map(struct machine *m, char why[VMM_WHY_MAX])
{
	const struct ring_mem_region *low = &m->mem.regions[0];
	struct kvm_slot slots[3];
	unsigned n = 0;

	/* a PC that its firmware starts has a screen and firmware between 640 KiB and 1 MiB */
	slots[n++] =
		(struct kvm_slot){0, 0, m->firmware_fd >= 0 ? 0xA0000 : low->size, low->hva, false};
	if (m->firmware_fd >= 0)
		slots[n++] = (struct kvm_slot){
			1, 0x100000, low->size - 0x100000, low->hva + 0x100000, false};
	if (m->mem.nregions > 1)
		slots[n++] = (struct kvm_slot){2, m->mem.regions[1].gpa, m->mem.regions[1].size,
			m->mem.regions[1].hva, false};
	for (unsigned i = 0; i < n; i++) {
		int rc = kvm_slot_set(m, &slots[i]);

		if (rc) {
			char text[24];

			vmm_size_format(m->memory_size, text);
			return why_set(why, rc, "--memory %s: KVM refuses it: %s; give less", text,
				strerror(-rc));
		}
	}
	return 0;
}

/* ------------------------------------------------------------------ interrupts */

int kvm_irq_line(struct machine *m, unsigned gsi, bool level)
{
	struct kvm_irq_level line = {.irq = gsi, .level = level};

	machine_system_call_count();
	return ioctl(m->vm_fd, KVM_IRQ_LINE, &line) ? -errno : 0;
}

static void kvm_route_chip(struct kvm_irq_routing *table, uint32_t gsi, uint32_t chip, uint32_t pin)
{
	table->entries[table->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin},
	};
}

int kvm_routes_set(struct machine *m, const struct msi_route *routes, unsigned n)
{
	struct kvm_irq_routing *table;
	unsigned i;
	int rc;

	table = calloc(
		1, sizeof(*table) + (IRQ_GSI_ISA_MAX + IRQ_LINES + n) * sizeof(table->entries[0]));
	if (!table)
		return -ENOMEM;
	for (i = 0; i < IRQ_GSI_ISA_MAX; i++)
		kvm_route_chip(
			table, i, i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, i & 7);
	for (i = 0; i < IRQ_LINES; i++)
		kvm_route_chip(table, i, KVM_IRQCHIP_IOAPIC, i);
	for (i = 0; i < n; i++) {
		if (!routes[i].set)
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = IRQ_GSI_MSI + i,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = (uint32_t)routes[i].address,
				.address_hi = routes[i].address >> 32,
				.data = routes[i].data},
		};
	}
	machine_system_call_count();
	rc = ioctl(m->vm_fd, KVM_SET_GSI_ROUTING, table) ? -errno : 0;
	free(table);
	return rc;
}

int kvm_irqfd(struct machine *m, unsigned gsi, int fd, bool on)
{
	struct kvm_irqfd irqfd = {.fd = fd, .gsi = gsi, .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN};

	machine_system_call_count();
	return ioctl(m->vm_fd, KVM_IRQFD, &irqfd) ? -errno : 0;
}

/* ------------------------------------------------------------------ accesses */

int kvm_ioeventfd(struct machine *m, const struct bus_doorbell *db, bool on)
{
	struct kvm_ioeventfd io = {
		.addr = db->addr,
		.len = db->size,
		.fd = db->fd,
		.datamatch = db->datamatch,
		.flags = (db->kind == BUS_PIO ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (db->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
			 (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	machine_system_call_count();
	return ioctl(m->vm_fd, KVM_IOEVENTFD, &io) ? -errno : 0;
}

int kvm_coalesced_zone(struct machine *m, enum bus_kind kind, uint64_t addr, uint32_t size, bool on)
{
	struct kvm_coalesced_mmio_zone zone = {.addr = addr, .size = size, .pio = kind == BUS_PIO};

	if (!m->coalesced_max || (kind == BUS_PIO && !m->coalesced_pio))
		return -ENOTSUP;
	machine_system_call_count();
	return ioctl(m->vm_fd, on ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO,
		       &zone)
		       ? -errno
		       : 0;
}

/*
 * KVM appends to the ring and moves `last`; here entries are replayed and only then `first` moves,
 * so "first == last" says that everything is done, not just taken. The ring is memory shared with
 * the kernel, not with the guest.
 */
unsigned kvm_coalesced_drain(struct machine *m)
{
	struct kvm_coalesced_mmio_ring *ring = m->coalesced;
	const uint32_t max = (4096u - sizeof(*ring)) / sizeof(struct kvm_coalesced_mmio);
	uint32_t first, last;
	unsigned n = 0;

	if (!ring)
		return 0;
	/* own entries are always seen; pairs with the release below for those another thread did */
	if (__atomic_load_n(&ring->first, __ATOMIC_ACQUIRE) ==
		__atomic_load_n(&ring->last, __ATOMIC_ACQUIRE))
		return 0;
	pthread_mutex_lock(&m->coalesced_lock);
	first = ring->first;
	last = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
	while (first != last) {
		struct kvm_coalesced_mmio entry = ring->coalesced_mmio[first];

		bus_access(m, entry.pio ? BUS_PIO : BUS_MMIO, entry.phys_addr, entry.data,
			entry.len, 1, true, true);
		first = (first + 1) % max;
		__atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
		n++;
	}
	pthread_mutex_unlock(&m->coalesced_lock);
	return n;
}
