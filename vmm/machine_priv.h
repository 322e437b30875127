/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The inside of struct machine: for the core's own files (machine*.c, bus.c, irq.c, pci.c, msix.c,
 * memory.c, boot.c, serial.c, pm.c, chipset.c, kvm_*.c). Device models see vmm_priv.h alone.
 */
#ifndef MACHINE_PRIV_H
#define MACHINE_PRIV_H

#include <stdatomic.h>

#include "vmm/vmm_priv.h"

#define MACHINE_LOW_MEMORY_MAX  0xC0000000ull
#define MACHINE_HIGH_MEMORY     0x100000000ull
#define MACHINE_PCI_MMIO_BASE   0xC0000000ull
#define MACHINE_PCI_MMIO_END    0xFEB00000ull
#define MACHINE_PCI_IO_BASE     0xC000u
#define MACHINE_PCI_IO_END      0x10000u
#define MACHINE_POLL_US_DEFAULT 500u
#define MACHINE_PAGE            4096ull
#define MACHINE_HUGE_PAGE       (2ull << 20)

#define IRQ_GSI_NONE  (~0u)
#define IRQ_LINES     IRQ_GSI_MSI
#define PCI_FUNCTIONS 8u

struct kvm_run;
struct kvm_coalesced_mmio_ring;

struct vcpu {
	struct machine *machine;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool joinable;   /* under run_lock */
	bool parked;     /* under run_lock */
	bool exited;     /* under run_lock */
	_Atomic int tid; /* 0: no thread */
	_Atomic uint64_t exits, exits_io, exits_mmio, exits_signal, exits_other, system_calls;
	_Atomic uint64_t cpu_ns; /* final value, set when the thread ends */
};

struct msi_route {
	uint64_t address;
	uint32_t data;
	bool set;
};

/* One disk or net of the user. */
struct machine_unit {
	struct device *device;
	const struct device_model *model;
	struct blk_image *image;
	struct net_port *port;
	bool port_borrowed; /* the caller's until machine_create() has succeeded */
};

struct machine {
	struct machine_config cfg; /* its strings are not kept, but for cmdline */
	char *cmdline;
	char *kernel_path;
	int kernel_fd;
	bool kernel_is_big;
	char *firmware_path;
	int firmware_fd;
	int vars_fd;               /* of UEFI variables; -1: none */
	struct firmware *firmware; /* firmware.c; NULL: none */
	int vga_fd;                /* the screen's file, the device's; -1: none */
	char *initrd_path;
	int initrd_fd;
	uint64_t initrd_addr, initrd_size; /* where it was loaded; size 0: none */

	/* memory.c */
	int memory_fd;
	uint8_t *memory;
	uint64_t memory_size;
	struct ring_mem mem;
	uint64_t *dirty; /* one bit for each page of RAM, low memory first */

	/* bus.c: lists sorted by base */
	pthread_rwlock_t bus_lock;
	struct bus_region *regions[2];
	struct bus_doorbell *doorbells; /* for accesses without a vCPU */
	unsigned ndoorbells;
	pthread_mutex_t posted_lock; /* what KVM was told to keep: regions' posted and mapped */
	struct posted_teller {
		pthread_t thread;
		pthread_mutex_t lock;
		pthread_cond_t changed;
		struct posted *queue;
		bool running, stop;
	} posted_teller;
	pthread_mutex_t coalesced_lock; /* outermost of all: taken with no device lock held */

	/* irq.c */
	pthread_mutex_t irq_lock;
	unsigned line_sources[IRQ_LINES]; /* sources that hold the line high */
	pthread_mutex_t route_lock;
	struct msi_route *routes; /* GSI IRQ_GSI_MSI + i */
	unsigned nroutes;
	bool routes_changed;

	/* pci.c */
	struct pci_device *pci[PCI_SLOTS][PCI_FUNCTIONS];
	_Atomic uint32_t pci_address;
	struct bus_region pci_region;
	uint8_t pirq[4]; /* PIIX3 registers 0x60-0x63, under irq_lock */

	struct device *devices; /* in order of creation */
	struct machine_unit units[VMM_DISKS_MAX + VMM_NETS_MAX + VMM_OTHERS_MAX];
	unsigned nunits;
	struct io_thread *io[VMM_CPUS_MAX];
	unsigned nio;
	struct serial *serials[VMM_SERIALS_MAX]; /* NULL: no such port */
	struct bus_region *hook_regions;         /* cfg.hooks */

	/* kvm_*.c; fds are -1 without KVM */
	int kvm_fd;
	int vm_fd;
	uint32_t run_size;
	bool coalesced_pio;
	struct kvm_coalesced_mmio_ring *coalesced;
	uint32_t coalesced_max;
	uint32_t tsc_khz;
	struct cpu_leaves *cpuid;
	struct vcpu *vcpus;
	struct state_writer pristine; /* KVM's state before anything ran, for machine_reset() */

	/* running: machine_run.c */
	_Atomic int end; /* enum machine_end */
	int end_fd;
	pthread_mutex_t run_lock;
	pthread_cond_t run_cond;
	bool started;
	bool pausing;   /* vCPU threads park */
	bool finishing; /* vCPU threads leave, even when parked */
	bool finished;  /* ended, joined, synced */
	bool quiesced;
	pthread_mutex_t control_lock; /* one control operation at a time */
	char failure[VMM_WHY_MAX];    /* under run_lock until the end is set */
};

/* printf into why; returns error. */
int why_set(char why[VMM_WHY_MAX], int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* machine_others.c: what is neither disk nor card */
int machine_others_create(struct machine *m, char why[VMM_WHY_MAX]);

/* memory.c */
int memory_create(struct machine *m, char why[VMM_WHY_MAX]);
void memory_destroy(struct machine *m);
/* Zeroes guest memory, giving whole pages back to the host where that works. */
void memory_zero(const struct ring_mem *mem, void *host, uint64_t len);
void vmm_size_format(uint64_t bytes, char out[24]);

/* bus.c */
bool bus_doorbell_ring(
	struct machine *m, enum bus_kind kind, uint64_t addr, uint64_t value, unsigned size);

/* irq.c */
int irq_init(struct machine *m);
void irq_free(struct machine *m);
void irq_source_move(struct irq_source *s, unsigned gsi);
/* A GSI for an MSI route, or -ENOSPC. Routes take effect at the commit, one system call for all. */
int irq_msi_alloc(struct machine *m);
void irq_msi_set(struct machine *m, unsigned gsi, uint64_t address, uint32_t data);
int irq_msi_commit(struct machine *m);
int irq_irqfd_set(struct machine *m, unsigned gsi, int fd, bool on);

/* pci.c */
int pci_bus_create(struct machine *m);
/* A PIRQ register changed: moves the INTx lines. */
void pci_pirq_set(struct machine *m, unsigned pirq, uint8_t value);

/* msix.c */
void msix_control_changed(struct pci_device *pci);
unsigned msix_control_offset(const struct pci_device *pci); /* 0: no MSI-X */
void msix_reset(struct pci_device *pci);
void msix_save(struct pci_device *pci, struct state_writer *w);
void msix_load(struct pci_device *pci, struct state_reader *r);
void msix_free(struct pci_device *pci);

/* chipset.c, pm.c, serial.c, parallel.c ... */
int chipset_create(struct machine *m);
int pm_create(struct machine *m);
int serial_create(struct machine *m);
int parallel_create(struct machine *m);
int rtc_create(struct machine *m);
int i8042_create(struct machine *m);
/*
 * A key of the keyboard, by its set 1 code (extended: E0h before it). Any thread. -EAGAIN: the
 * guest has not read the last ones, later; -ENODEV: it wants none; -EINVAL: no such key.
 */
int i8042_key(struct device *d, uint8_t code, bool extended, bool down);
/* The mouse, by so many counts right and down; buttons: left 1, right 2, middle 4. */
int i8042_mouse(struct device *d, int dx, int dy, uint8_t buttons);
size_t serial_input(struct serial *s, const uint8_t *bytes, size_t n);
/* The reset control register, which lies among the PCI configuration ports. */
void pm_reset_control_write(struct machine *m, uint8_t value);

/* machine.c: what the ACPI tables say of the machine. */
struct acpi_config machine_acpi_config(const struct machine *m);

/* boot.c */
#define BOOT_RANGES_MAX 8u
#define BOOT_RAM        1u /* as in e820 */
#define BOOT_RESERVED   2u
#define BOOT_ACPI       0xE0000u /* the tables, RSDP first; in the BIOS area, which is reserved */
struct boot_range {
	uint64_t addr, size;
	uint32_t type;
};
unsigned boot_memory_map(const struct ring_mem *mem, struct boot_range map[BOOT_RANGES_MAX]);
int boot_open(struct machine *m, char why[VMM_WHY_MAX]);
int boot_load(struct machine *m, char why[VMM_WHY_MAX]);

/* Reads size bytes; a file cut short meanwhile is -EIO. */
int boot_pread(int fd, uint8_t *to, uint64_t size);

/* firmware.c */
#define PAM_REGISTERS 7u
#define PAM_FIRST     0x59u /* in the host bridge's configuration space */
int firmware_create(struct machine *m, char why[VMM_WHY_MAX]);
void firmware_destroy(struct machine *m);
/* -EINVAL and why: no image that would do has this size. */
int firmware_size_check(uint64_t size, const char *path, char why[VMM_WHY_MAX]);
/* The host bridge's attributes have changed. No firmware: nothing. */
int firmware_pam_set(struct machine *m, const uint8_t pam[PAM_REGISTERS]);

/* flash.c: the descriptor is locked, and the caller's; its size. -EBUSY, -EINVAL ...: why. */
int flash_open(const char *path, uint32_t *size, char why[VMM_WHY_MAX]);
/* Ends below `end`. */
int flash_create(struct machine *m, int fd, uint32_t size, uint64_t end, char why[VMM_WHY_MAX]);

/* vga.c */
#define VGA_BIOS "/usr/share/seabios/vgabios-stdvga.bin" /* Debian's package seabios */
int vga_create(struct machine *m);

/* fw_cfg.c */
int fw_cfg_create(struct machine *m);

/* kvm_vm.c */
/* Slots 0 to 2 are RAM. */
#define KVM_SLOT_FLASH    6u
#define KVM_SLOT_FIRMWARE 7u
/* 8 to 20 are firmware.c's */
#define KVM_SLOT_VGA 21u
struct kvm_slot {
	unsigned slot;
	uint64_t gpa, size; /* 0: it is taken away */
	uint8_t *host;
	bool readonly;
};
int kvm_slot_set(struct machine *m, const struct kvm_slot *s);
int kvm_vm_create(struct machine *m, char why[VMM_WHY_MAX]);
void kvm_vm_destroy(struct machine *m);
int kvm_memory_map(struct machine *m, char why[VMM_WHY_MAX]);
int kvm_irq_line(struct machine *m, unsigned gsi, bool level);
int kvm_routes_set(struct machine *m, const struct msi_route *routes, unsigned n);
int kvm_irqfd(struct machine *m, unsigned gsi, int fd, bool on);
int kvm_ioeventfd(struct machine *m, const struct bus_doorbell *db, bool on);
int kvm_coalesced_zone(
	struct machine *m, enum bus_kind kind, uint64_t addr, uint32_t size, bool on);
/* posted.c: when no device is left. */
void posted_teller_stop(struct machine *m);
unsigned kvm_coalesced_drain(struct machine *m);

/* kvm_vcpu.c */
int kvm_vcpus_create(struct machine *m, char why[VMM_WHY_MAX]);
void kvm_vcpus_destroy(struct machine *m);
int kvm_vcpu_start(struct vcpu *v, char why[VMM_WHY_MAX]);
void kvm_vcpu_kick(struct vcpu *v);
int kvm_boot_registers(struct machine *m, uint64_t entry, uint64_t start_info);
int kvm_boot_registers_long(
	struct machine *m, uint64_t entry, uint64_t params, uint64_t cr3, uint64_t gdt);
void kvm_signal_install(void);

/* kvm_state.c */
void kvm_state_save(struct machine *m, struct state_writer *w);
void kvm_state_load(struct machine *m, struct state_reader *r);
int kvm_speaker_get(const struct machine *m, struct speaker_info *out);

/* machine_run.c */
/* For vCPU threads, after KVM_RUN was interrupted: parks while the machine is paused. False: leave.
 */
bool machine_vcpu_continue(struct vcpu *v);
void machine_fail(struct machine *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void machine_kick(struct machine *m);
void machine_devices_quiesce(struct machine *m);
void machine_devices_resume(struct machine *m);
/* Ends the run: threads joined, devices quiesced, images synced. Once; control_lock held. */
void machine_finish(struct machine *m);

static inline bool machine_running_end(struct machine *m)
{
	return atomic_load(&m->end) != MACHINE_RUNNING;
}

#endif
