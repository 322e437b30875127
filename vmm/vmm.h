/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The monitor as a library: one virtual PC made, run, paused, saved, loaded and destroyed. This is
 * the only header of vmm/ that other folders include. Several machines can live in one process.
 *
 * Errors: 0 or -errno; functions that a user's option leads to also fill `why`: one line, no
 * newline, naming the option, the value and what would do. Units: bytes, microseconds (_us),
 * nanoseconds (_ns).
 */
#ifndef VMM_H
#define VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "blk/blk.h"
#include "netbridge/netbridge.h"
#include "ring/ring.h"
#include "vmm/vga.h"

#define VMM_WHY_MAX    256u
#define VMM_DISKS_MAX  16u
#define VMM_NETS_MAX   8u
#define VMM_OTHERS_MAX 8u
#define VMM_CPUS_MAX   64u
#define VMM_FS_MAX     4u

/* ------------------------------------------------------------------ configuration */

/* Three-valued options: what the user did not say is left to the model. */
enum vmm_choice { VMM_DEFAULT, VMM_ON, VMM_OFF };

/* A back-end in another process, behind a vhost-user socket. */
struct vhost_config {
	const char *socket; /* path; NULL: none, or fd */
	bool listen;        /* the back-end connects to this side */
	bool no_reconnect;  /* a lost back-end is the end of the device */
	unsigned wait_ms;   /* for the first back-end; 0: a default */
};

struct disk_config {
	const char *path;  /* or fd, or nbd */
	int fd;            /* -1: none; vhost-user: a connected socket */
	const char *nbd;   /* URI */
	const char *model; /* "virtio-blk" (default), "ide", "vhost-user-blk" */
	struct vhost_config vhost;
	enum blk_engine engine;
	enum blk_direct direct;
	enum blk_format format;
	bool readonly;
	bool sqpoll;
	bool registered_memory;
	const char *serial; /* at most 20 characters */
	const char *fault;  /* see blk_fault_check(); NULL: none */
	/* split devices */
	bool packed;         /* ring=packed */
	unsigned queues;     /* 0: 1 */
	unsigned queue_size; /* 0: the model's default */
	enum vmm_choice indirect, event_idx, in_order;
};

struct net_config {
	struct net_port *port; /* an open port, taken over on success; or one of: */
	const char *tap;       /* name */
	int fd;                /* tap descriptor; -1: none */
	const char *memory;    /* "sink", "source", "echo" */
	bool user;             /* behind NAT, as nat says */
	struct net_user_options nat;
	const char *model; /* "virtio-net" (default), "e1000", "ne2k_pci", "rtl8139",
			      "vhost-user-net" */
	struct vhost_config vhost;
	bool mac_set;
	uint8_t mac[6];
	bool packed;
	unsigned queues; /* queue pairs; 0: 1 */
	unsigned queue_size;
	enum vmm_choice indirect, event_idx, in_order, mergeable, offload;
};

/* What a guest's processors are: all that KVM offers, or an x86-64 level as a template, which is
 * the same on every host that has it. */
enum vmm_cpu { VMM_CPU_HOST, VMM_CPU_V2, VMM_CPU_V3 };
/* Letters of a (floppy), c (disk), d (CD), n (network), at most three, each once. -EINVAL. */
int vmm_boot_parse(const char *text, char out[4]);
/* "host", "v2", "v3". -EINVAL. */
int vmm_cpu_parse(const char *text, enum vmm_cpu *out);
/* What is at the other end of a port's cable. Descriptors stay the caller's. */
struct line_config {
	int out;      /* where output goes; -1: nowhere */
	int in;       /* read for input, on an I/O thread; must not block; -1: none */
	int listener; /* a listening socket, non-blocking: instead, whoever connects; -1: none */
};

/* A printer at LPT1. */
struct parallel_config {
	bool on;
	struct line_config line;
};

#define VMM_SERIALS_MAX 4u
/* COM1 to COM4. */
struct serial_config {
	bool on; /* COM1 is always there */
	struct line_config line;
};

/* The console hvc0 (virtio-console); ttyS0 is the first serial port. */
struct hvc_config {
	bool on;
	int out; /* where output goes; -1: nowhere. Stays the caller's. */
	int in;  /* read for input; -1: machine_hvc_input() alone */
	/* Instead of out, as split_console_options.output; go on by machine_hvc_resume(). */
	size_t (*output)(void *ctx, const uint8_t *bytes, size_t n);
	void *ctx;
	uint16_t cols, rows; /* 0: not known */
	bool packed;
};

struct rng_config {
	bool on;
	uint64_t rate; /* bytes per second; 0: no limit */
	bool packed;
};

struct balloon_config {
	bool on;
	uint64_t size; /* bytes the guest is asked to give up at start, a multiple of 4 KiB */
	enum vmm_choice deflate_on_oom, reporting; /* default on */
	bool packed;
};

/* Stream connections between the guest and sockets of the host. */
struct vsock_config {
	const char *socket;   /* path; NULL: no such device */
	uint32_t cid;         /* the guest's address */
	unsigned connections; /* at once; 0: the model's default */
	bool packed;
	unsigned queue_size;
	enum vmm_choice indirect, event_idx, in_order;
};

/* A file system of the host, served by another process (virtiofsd). */
struct fs_config {
	const char *tag; /* what the guest mounts it by: 1 to 36 bytes */
	int fd;          /* a connected socket instead of vhost.socket; -1 */
	struct vhost_config vhost;
	unsigned queues;     /* 0: 1 */
	unsigned queue_size; /* 0: the model's default */
	bool packed;
	enum vmm_choice indirect, event_idx;
};

struct machine;

/* An I/O port range that the creator of the machine answers itself (test and benchmark devices).
 * Called on vCPU threads. */
struct port_hook {
	uint16_t port;
	uint16_t count;
	uint32_t (*read)(void *ctx, uint16_t port, unsigned size); /* NULL: all ones */
	void (*write)(void *ctx, uint16_t port, uint32_t value, unsigned size);
	void *ctx;
};

struct machine_config {
	unsigned cpus;             /* 0: 1 */
	enum vmm_cpu cpu;          /* what they are; default: all the host's KVM offers */
	uint64_t memory;           /* bytes, a multiple of 2 MiB; 0: 256 MiB */
	bool hugepages;            /* guest memory on 2 MiB pages */
	const char *kernel;        /* bzImage or ELF; NULL: nothing is loaded (tests) */
	const char *firmware;      /* a BIOS image, instead of a kernel; NULL: none */
	const char *firmware_vars; /* flash for its variables, below it: a file; NULL: none */
	int firmware_log;          /* what it says on its debug port; -1: nowhere */
	enum vmm_choice vga;       /* a screen; default: with firmware */
	char boot[4];              /* what firmware tries, in order, as vmm_boot_parse() takes it */
	const char *initrd;        /* NULL: none */
	const char *cmdline;       /* NULL: empty */
	struct disk_config disks[VMM_DISKS_MAX];
	unsigned ndisks;
	struct net_config nets[VMM_NETS_MAX];
	unsigned nnets;
	struct hvc_config hvc;
	struct rng_config rng;
	struct balloon_config balloon;
	struct vsock_config vsock;
	struct fs_config fs[VMM_FS_MAX];
	unsigned nfs;
	unsigned io_threads; /* 0: 1 */
	unsigned poll_us;    /* upper bound of the I/O threads' polling window */
	bool poll_set;       /* poll_us was given; else a default */
	bool no_io_uring;    /* I/O threads wait with epoll */
	bool no_coalesce;    /* do not let KVM coalesce posted registers */
	bool no_moderation;  /* cards interrupt at once, whatever their guests ask for */

	/* Serial ports. Input comes through machine_serial_input(), too. */
	struct serial_config serials[VMM_SERIALS_MAX];
	/* Gets what the guest writes to the first, instead of its line. */
	void (*console_hook)(void *ctx, const uint8_t *bytes, size_t n);
	void *console_ctx;

	struct parallel_config parallel;

	/* One line, no newline, about a device while the machine runs ("back-end lost ..."). On an
	 * I/O thread; must not block for long. NULL: nobody listens. */
	void (*note)(void *ctx, const char *device, const char *line);
	void *note_ctx;

	const struct port_hook *hooks; /* must outlive the machine */
	unsigned nhooks;

	/*
	 * No /dev/kvm: devices, buses and I/O threads without vCPUs. machine_run() is -ENOTSUP. For
	 * tests and fuzzing; interrupts go to interrupt_hook (on any thread): gsi lines with level,
	 * or MSI with gsi = -1.
	 */
	bool no_kvm;
	void (*interrupt_hook)(
		void *ctx, int gsi, bool level, uint64_t msi_address, uint32_t msi_data);
	void *interrupt_ctx;
};

/* All defaults, descriptors -1. */
void machine_config_init(struct machine_config *cfg);

/*
 * Opens everything the guest will use (images, taps, kernel), makes the machine. Nothing runs yet.
 * On failure nothing is left behind. -errno; -EINVAL for what the user got wrong, others for the
 * host (usage or host: see machine_error_is_usage()).
 */
int machine_create(struct machine **out, const struct machine_config *cfg, char why[VMM_WHY_MAX]);
bool machine_error_is_usage(int error);

/* Is the kernel a bzImage or of more than 4 MiB? A KVM that interprets it hardly gets through. */
bool machine_kernel_is_big(const struct machine *m);

/* ------------------------------------------------------------------ running */

enum machine_end {
	MACHINE_RUNNING,
	MACHINE_STOPPED,  /* machine_stop() */
	MACHINE_POWEROFF, /* the guest powered off */
	MACHINE_RESET,    /* the guest asked for a reset */
	MACHINE_TRIPLE_FAULT,
	MACHINE_HALTED, /* the guest can never run again (kept for later use) */
	MACHINE_FAILED, /* KVM could not go on: see machine_failure() */
};

/* Starts one thread for each vCPU. */
int machine_start(struct machine *m, char why[VMM_WHY_MAX]);
/* Waits for the end; timeout_ms -1: for ever. MACHINE_RUNNING on timeout. All accepted writes are
 * on disk afterwards. */
enum machine_end machine_wait(struct machine *m, int timeout_ms);
/* Asks for the end: any thread, async-signal-safe. */
void machine_stop(struct machine *m);
/* An eventfd, readable when the machine has ended. Stays the machine's. */
int machine_end_fd(const struct machine *m);
/* One line on why KVM could not go on (an instruction it cannot interpret, ...). */
const char *machine_failure(const struct machine *m);
const char *machine_end_name(enum machine_end end);

/* Stops all vCPUs and quiesces every device (waits for I/O in flight); resume undoes it. Not from a
 * vCPU or I/O thread. */
int machine_pause(struct machine *m);
int machine_resume(struct machine *m);

/* Full reset of a paused or ended machine: devices to power-on state, kernel loaded anew. */
int machine_reset(struct machine *m, char why[VMM_WHY_MAX]);

/* Not from a machine's thread. Stops it, syncs and closes images, closes ports. */
void machine_destroy(struct machine *m);

/* Bytes typed at a serial port, 0 is COM1; how many were taken (the rest later). 0: there is no
 * such port. Any thread. */
size_t machine_serial_input(struct machine *m, unsigned port, const uint8_t *bytes, size_t n);
/* At COM1. */
size_t machine_console_input(struct machine *m, const uint8_t *bytes, size_t n);

/* The same for hvc0; 0 without one. */
size_t machine_hvc_input(struct machine *m, const uint8_t *bytes, size_t n);
/* hvc_config.output() may take more. Any thread. */
void machine_hvc_resume(struct machine *m);
/* The terminal behind hvc0 has another size. Any thread. */
void machine_hvc_resize(struct machine *m, uint16_t cols, uint16_t rows);

/*
 * Keys of the guest's keyboard. text: what is typed on a US keyboard, ASCII with newline, tab and
 * backspace, at most MACHINE_TYPE_MAX characters, at 30 a second. keys: names joined by dashes,
 * pressed together, "ctrl-alt-delete". Waits for the guest to read, timeout_ms for the whole call.
 * Any one thread. -EINVAL: no such key or character, or too many, nothing was typed, why says
 * which; -ETIMEDOUT: it does not read, a part may have been typed; -ENODEV: it has the keyboard
 * switched off.
 */
#define MACHINE_TYPE_MAX 64u
int machine_type(struct machine *m, const char *text, unsigned timeout_ms, char why[VMM_WHY_MAX]);
int machine_keys(struct machine *m, const char *keys, unsigned timeout_ms, char why[VMM_WHY_MAX]);
/* One key goes down, or up. */
int machine_key(
	struct machine *m, const char *name, bool down, unsigned timeout_ms, char why[VMM_WHY_MAX]);
/* The mouse moves right and down, buttons: left 1, right 2, middle 4. -ENODEV, -ETIMEDOUT. */
int machine_mouse(struct machine *m, int dx, int dy, uint8_t buttons, unsigned timeout_ms);

/*
 * The screen: a file as vga.h describes it, to be mapped and shown by who likes; the machine's, -1:
 * none. What the guest has written last is there after machine_screen_sync(). Any thread.
 */
int machine_screen_fd(const struct machine *m);
void machine_screen_sync(struct machine *m);

/*
 * The PC speaker: channel 2 of the interval timer through a gate and a switch (port 61h), all of it
 * in KVM. -ENODEV: a machine without KVM. Any thread.
 */
struct speaker_info {
	bool on;     /* it sounds */
	unsigned hz; /* the tone that is set; 0: none */
};
int machine_speaker_get(const struct machine *m, struct speaker_info *out);

/*
 * Asks the guest for memory, or gives it back: the balloon's new size in bytes. It takes its time;
 * machine_balloon_get() tells how far it is. -ENODEV: no balloon; -EINVAL: not a multiple of 4 KiB,
 * or not less than the guest's memory. Any thread.
 */
int machine_balloon_set(struct machine *m, uint64_t bytes, char why[VMM_WHY_MAX]);
int machine_balloon_get(struct machine *m, struct split_balloon_info *out);

/* ------------------------------------------------------------------ state */

/* Everything but guest memory: vCPUs, interrupt controllers, devices. The machine must be paused
 * (or never started). */
int machine_save(struct machine *m, struct state_writer *w);
/* Into a machine made with the same configuration and not yet started. Memory is the caller's to
 * copy first. */
int machine_load(struct machine *m, struct state_reader *r, char why[VMM_WHY_MAX]);

/* Guest memory as the devices see it. */
const struct ring_mem *machine_memory(const struct machine *m);
/* Turns the dirty bitmap on (cleared) or off. Paused or never started. */
int machine_dirty_log(struct machine *m, bool on);
/* Moves the bitmap of pages written by devices since the last call into out (one bit for each 4 KiB
 * of RAM below `bits`). */
void machine_dirty_fetch(struct machine *m, uint64_t *out, size_t bits);

/* ------------------------------------------------------------------ counters and inspection */

struct vcpu_counters {
	uint64_t exits; /* returns from KVM_RUN to user space, all reasons: what
			   kvm:kvm_userspace_exit counts */
	uint64_t exits_io;
	uint64_t exits_mmio;
	uint64_t exits_signal; /* interrupted */
	uint64_t exits_other;
	uint64_t system_calls; /* KVM_RUN and everything else done on the vCPU thread */
	uint64_t cpu_ns;
};

struct machine_counters {
	struct vcpu_counters vcpu;    /* sum over vCPUs */
	struct io_thread_counters io; /* sum over I/O threads */
	uint64_t interrupts;          /* raised by all devices */
	uint64_t doorbells;
	uint64_t coalesced;
	uint64_t device_system_calls; /* by disks' channels and ports */
};

void machine_counters_get(struct machine *m, struct machine_counters *out); /* any thread */

/* What became of device i (0 .. machine_devices()-1): disks in order, then nets,
 * then others. */
struct device_report {
	const char *model;
	const char *kind;      /* "disk", "net" or "other" */
	struct blk_info blk;   /* disks */
	const char *port_kind; /* nets; NULL: another process's */
	bool vhost;            /* another process serves it: */
	struct split_vhost_info vhost_info;
	const struct device_counters *counters; /* lives as long as the machine */
};
unsigned machine_devices(const struct machine *m);
void machine_device_report(const struct machine *m, unsigned i, struct device_report *out);
/* The latency histogram of a split device's queue, or of an emulated disk (queue 0); NULL: none. */
const struct histogram *machine_device_latency(const struct machine *m, unsigned i, unsigned queue);
/* The CPU time used by the whole process's vCPU and I/O threads is in machine_counters. */

/* ------------------------------------------------------------------ access without a vCPU (tests,
 * fuzzing, debugging) */

/* As a vCPU would, on the calling thread. size 1, 2 or 4 (mmio: also 8). Unclaimed reads give all
 * ones. */
uint32_t machine_port_read(struct machine *m, uint16_t port, unsigned size);
void machine_port_write(struct machine *m, uint16_t port, uint32_t value, unsigned size);
uint64_t machine_mmio_read(struct machine *m, uint64_t gpa, unsigned size);
void machine_mmio_write(struct machine *m, uint64_t gpa, uint64_t value, unsigned size);

/* ------------------------------------------------------------------ device models */

struct model_option {
	const char *key;
	const char *values; /* "on|off", "1..16", ... */
	const char *help;
};

/* For `sluice devices`. NULL at the end of the table. */
struct model_info {
	const char *name;
	const char *kind; /* "disk", "net", "other" */
	const char *way;  /* "emulated" or "split" */
	const char *help;
	const struct model_option *options; /* ends with a NULL key */
	const char *option;                 /* kind "other": what `sluice run` calls it, "--rng" */
};
const struct model_info *machine_model_info(unsigned i);

/* Parses one --disk or --net value into cfg; strings are allocated and freed by
 * machine_config_free(). */
int disk_config_parse(struct disk_config *cfg, const char *text, char why[VMM_WHY_MAX]);
int net_config_parse(struct net_config *cfg, const char *text, char why[VMM_WHY_MAX]);
int balloon_config_parse(struct balloon_config *cfg, const char *text, char why[VMM_WHY_MAX]);
/* Freed by machine_config_free(). */
int vsock_config_parse(struct vsock_config *cfg, const char *text, char why[VMM_WHY_MAX]);
int fs_config_parse(struct fs_config *cfg, const char *text, char why[VMM_WHY_MAX]);
void machine_config_free(struct machine_config *cfg);
/* "512M", "1G", "4096K", plain bytes. -EINVAL. */
int vmm_size_parse(const char *text, uint64_t *out);

/* What this host's KVM is: for reports and messages. */
struct kvm_facts {
	bool present;
	int api_version;
	bool interprets_ring0; /* no hardware virtualization below: only CPL 3 long mode code runs
				  natively */
	char flavour[64];      /* "kvm_amd", "kvm_intel", "kvm-pvm (software only)" ... */
};
int kvm_facts_get(struct kvm_facts *out, char why[VMM_WHY_MAX]);

/* ------------------------------------------------------------------ parsers that take hostile
 * bytes (fuzzed) */

struct elf_info {
	bool pvh;         /* it has a PVH note; else it is Linux's, for long mode */
	uint64_t entry;   /* PVH's or the header's */
	uint64_t lowest;  /* first byte loaded */
	uint64_t highest; /* first byte after the last one loaded */
};
/*
 * Loads an ELF image into guest memory: any with a PVH note (32- or 64-bit), and Linux's vmlinux
 * without one.
 */
int elf_load(const struct ring_mem *mem, const void *image, size_t size, struct elf_info *out,
	char why[VMM_WHY_MAX]);

/*
 * A bzImage (Linux, Documentation/arch/x86/boot.rst: protocol 2.12 or later, 64-bit entry). load
 * copies the kernel to its preferred address; params_write adds, below 640 KiB, what it is entered
 * with: the zero page, the command line, identity-mapping page tables and a GDT.
 */
#define BZIMAGE_HEADER_MAX 0x9fu /* bytes 0x1f1 to 0x28f of the zero page */

struct bzimage {
	uint64_t load;
	uint64_t entry;        /* 64-bit */
	uint64_t end;          /* first byte after what it needs to unpack itself */
	uint64_t initrd_limit; /* first byte after where an initrd may be */
	uint32_t cmdline_max;  /* bytes, without the zero byte */
	uint64_t params, page_tables, gdt;
	uint8_t header[BZIMAGE_HEADER_MAX];
};

struct linux_boot {
	const char *cmdline; /* at most cmdline_max bytes, and at most 32767 */
	uint64_t initrd, initrd_size;
	uint64_t rsdp;
};

/* The same for an ELF image that was loaded, to be entered as Linux is by its 64-bit entry. */
void bzimage_from_elf(const struct elf_info *elf, struct bzimage *out);
bool bzimage_is(const void *image, size_t size);
int bzimage_load(const struct ring_mem *mem, const void *image, size_t size, struct bzimage *out,
	char why[VMM_WHY_MAX]);
/* -EINVAL: memory lacks the first MiB, or the command line is too long. */
int bzimage_params_write(
	const struct ring_mem *mem, const struct bzimage *bz, const struct linux_boot *boot);

/* ------------------------------------------------------------------ ACPI */

struct acpi_config {
	unsigned cpus;    /* APIC ids 0 .. cpus - 1 */
	unsigned serials; /* a bit for each serial port there is, 0: COM1 */
	bool parallel;    /* there is LPT1 */
};
/*
 * The ACPI tables of this PC (ACPI 6.4) as they lie at guest address base, a multiple of 64 below 4
 * GiB: the RSDP first. How many bytes; 0 when room is too small.
 */
size_t acpi_tables_build(uint8_t *out, size_t room, uint64_t base, const struct acpi_config *cfg);

/* ------------------------------------------------------------------ CPU identification */

#define CPU_LEAVES_MAX 256u

struct cpu_leaf {
	uint32_t function, index;
	bool indexed; /* index counts */
	uint32_t eax, ebx, ecx, edx;
};
struct cpu_leaves {
	unsigned n;
	struct cpu_leaf leaf[CPU_LEAVES_MAX];
};

/*
 * What all vCPUs share, from what the host's KVM supports. Of a template's leaves only the vendor's
 * name (leaf 0) and the time stamp counter's frequency (0x40000010) are the host's. -ENOTSUP: the
 * host lacks something, why says what.
 */
int cpuid_build(struct cpu_leaves *out, const struct cpu_leaves *host, enum vmm_cpu cpu,
	uint32_t tsc_khz, char why[VMM_WHY_MAX]);
/* APIC id and topology of one of them; again for the next. */
void cpuid_personalize(struct cpu_leaves *l, unsigned id, unsigned cpus);
/* NULL: there is none. */
const struct cpu_leaf *cpuid_find(const struct cpu_leaves *l, uint32_t function, uint32_t index);

#endif
