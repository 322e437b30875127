/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's halves: a small runtime for bare guests and the drivers that run on it. This is the
 * only header of frontend-drivers/ that other folders include.
 *
 * Threads: everything here belongs to the boot CPU; nothing is locked. Interrupt handlers only
 * count, so no driver code runs in interrupt context.
 *
 * Errors: 0 or a count on success, a negative GUEST_E* (numbered as Linux's errno) otherwise.
 * Units: addresses and lengths in bytes, sectors of 512 bytes, time in TSC cycles unless a name
 * says ns.
 */
#ifndef FRONTEND_H
#define FRONTEND_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/ring.h"

enum {
	GUEST_EIO = 5,
	GUEST_ENOMEM = 12,
	GUEST_ENODEV = 19,
	GUEST_EINVAL = 22,
	GUEST_ENOSPC = 28,
	GUEST_ENOTSUP = 95,
	GUEST_ETIMEDOUT = 110,
};

/* What a program on the runtime provides. Runs at CPL 3 with interrupts on; returning powers off.
 */
void guest_main(void);

/* ------------------------------------------------------------------ ports and registers */

static inline void io_out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void io_out16(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void io_out32(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline uint8_t io_in8(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint16_t io_in16(uint16_t port)
{
	uint16_t v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint32_t io_in32(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

/* String transfers: `n` words of 16 or 32 bits. */
static inline void io_in16_rep(uint16_t port, void *to, size_t n)
{
	__asm__ volatile("rep insw" : "+D"(to), "+c"(n) : "d"(port) : "memory");
}

static inline void io_out16_rep(uint16_t port, const void *from, size_t n)
{
	__asm__ volatile("rep outsw" : "+S"(from), "+c"(n) : "d"(port) : "memory");
}

static inline void io_in32_rep(uint16_t port, void *to, size_t n)
{
	__asm__ volatile("rep insl" : "+D"(to), "+c"(n) : "d"(port) : "memory");
}

static inline void io_out32_rep(uint16_t port, const void *from, size_t n)
{
	__asm__ volatile("rep outsl" : "+S"(from), "+c"(n) : "d"(port) : "memory");
}

/* Plain moves: monitors interpret them, and interpret little else. */
static inline void mmio_write8(uintptr_t a, uint8_t v)
{
	__asm__ volatile("movb %0, (%1)" : : "q"(v), "r"(a) : "memory");
}

static inline void mmio_write16(uintptr_t a, uint16_t v)
{
	__asm__ volatile("movw %0, (%1)" : : "r"(v), "r"(a) : "memory");
}

static inline void mmio_write32(uintptr_t a, uint32_t v)
{
	__asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(a) : "memory");
}

static inline uint8_t mmio_read8(uintptr_t a)
{
	uint8_t v;

	__asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(a) : "memory");
	return v;
}

static inline uint16_t mmio_read16(uintptr_t a)
{
	uint16_t v;

	__asm__ volatile("movw (%1), %0" : "=r"(v) : "r"(a) : "memory");
	return v;
}

static inline uint32_t mmio_read32(uintptr_t a)
{
	uint32_t v;

	__asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(a) : "memory");
	return v;
}

static inline void cpu_relax(void)
{
	__asm__ volatile("pause" : : : "memory");
}

/* ------------------------------------------------------------------ interrupts and idling */

/*
 * Interrupts are taken at CPL 3 through trap gates; the handler counts and leaves the interrupt in
 * service until cpu_irq_eoi(), which also unmasks level-triggered lines (their handler masks them).
 * So nothing interrupts a busy program again, on monitors that honour what is in service; on others
 * at most once for each event. A device on a line must be quieted before cpu_irq_eoi().
 */
#define CPU_VECTOR_FIRST 0x31u
#define CPU_VECTOR_LAST  0xbfu

/* A vector nobody has; 0 when none is left. */
uint8_t cpu_vector_alloc(void);

/* How often `vector` arrived since start (wraps). */
uint32_t cpu_irq_count(uint8_t vector);

/* How often any vector arrived, the timer's included (wraps). Read before the last look, hand to
 * cpu_idle(). */
uint32_t cpu_irq_total(void);

/* Ends every interrupt in service and unmasks lines. A few microseconds for each, nothing when
 * there is none. */
void cpu_irq_eoi(void);

/*
 * Halts until an interrupt, unless one arrived after cpu_irq_total() returned `seen`: no wake-up is
 * lost. Ends interrupts in service first. cpu_idle_until() also returns once the clock has reached
 * `deadline`.
 */
void cpu_idle(uint32_t seen);
void cpu_idle_until(uint32_t seen, uint64_t deadline);
/* As cpu_idle(), but never for more than 2 s: a device that forgets to interrupt is noticed. */
void cpu_idle_guarded(uint32_t seen);

/*
 * The vector of a legacy line (0 .. 23), routed through the I/O APIC, active high, on first use;
 * all devices on a line share it. 0: no such line, or no vector left.
 */
uint8_t cpu_line_vector(unsigned line, bool level);

/* What was running when an exception came. */
struct cpu_exception {
	uint64_t vector;
	uint64_t error;
	uint64_t rip;
	uint64_t cs;
	uint64_t rsp;
	uint64_t address; /* CR2 */
};

/* Called at CPL 3 on a fresh stack instead of reporting and stopping; must not return. NULL: report
 * and stop. */
void cpu_exception_hook_set(void (*hook)(const struct cpu_exception *e));

/* Starts the other CPUs at the trampoline page (physical, below 1 MiB, page-aligned). */
void cpu_others_start(uint32_t trampoline);

/* ------------------------------------------------------------------ clock */

static inline uint64_t clock_now(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return lo | (uint64_t)hi << 32;
}

/* Finds the clock's frequency; up to 30 ms when only the ACPI timer can tell. Safe to call again.
 */
void clock_init(void);
uint64_t clock_khz(void);
/* Where the frequency came from: "cpuid 0x40000010", "cpuid 0x15", "cpuid 0x16", "acpi timer",
 * "assumed". */
const char *clock_source(void);
uint64_t clock_to_ns(uint64_t cycles);
uint64_t clock_from_ns(uint64_t ns);
void clock_spin_us(uint64_t us);

/* ------------------------------------------------------------------ memory */

/*
 * Physical equals virtual below 4 GiB. mem_alloc() is for ever and grows up from the image;
 * mem_temp_alloc() grows down from the top and is given back with
 * mem_temp_release(mem_temp_mark()'s value). Both return zeroed memory, NULL when there is none.
 * align: a power of two.
 */
void *mem_alloc(size_t bytes, size_t align);
void *mem_temp_alloc(size_t bytes, size_t align);
uintptr_t mem_temp_mark(void);
void mem_temp_release(uintptr_t mark);
size_t mem_free_bytes(void);

static inline uint64_t mem_phys(const void *p)
{
	return (uintptr_t)p;
}

void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);

/* ------------------------------------------------------------------ text, command line, power */

/* To the UART. Conversions: %s %c %d %u %x %p %%, with l, ll, z, a width and a leading 0. */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int print_to(char *to, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int print_to_v(char *to, size_t size, const char *fmt, va_list ap);

/* 16550A at 0x3f8 (the datasheet's FIFO mode): writes up to 16 bytes for each look at the line
 * status. */
void uart_write(const char *s, size_t n);
/* Next received byte, -1 for none. */
int uart_read(void);

const char *cmdline_get(void);
/* Copies the value of the nth word `key=...`. False when there is none. */
bool cmdline_word(const char *key, unsigned nth, char *to, size_t size);
uint64_t cmdline_u64(const char *key, uint64_t fallback);
/* Reads a number, decimal or 0x, with an optional K, M or G; -GUEST_EINVAL unless all of s is one.
 */
int text_u64(const char *s, uint64_t *out);
/* The same for `key=value` inside a comma-separated list. */
bool text_list_get(const char *list, const char *key, char *to, size_t size);

/* ACPI power-off; then QEMU's exit device with `code`; then halt for ever. */
void power_off(uint8_t code) __attribute__((noreturn));
/* Hard reset by port 0xCF9. */
void power_reset(void) __attribute__((noreturn));

/* ------------------------------------------------------------------ PCI */

struct pci_dev {
	uint8_t slot;
	uint8_t fn;
	uint8_t line; /* interrupt line register, 0xff: none */
	uint16_t vendor;
	uint16_t device;
	uint32_t class; /* 24 bits: class, subclass, interface */
};

struct pci_bar {
	uint64_t addr; /* 0: not there */
	uint64_t size;
	bool io;
};

#define PCI_COMMAND         0x04u
#define PCI_COMMAND_IO      0x0001u
#define PCI_COMMAND_MEMORY  0x0002u
#define PCI_COMMAND_MASTER  0x0004u
#define PCI_COMMAND_NO_INTX 0x0400u
#define PCI_STATUS_INTX     0x0008u /* in the status register, 0x06 */

uint32_t pci_read(const struct pci_dev *d, unsigned reg, unsigned bytes);
void pci_write(const struct pci_dev *d, unsigned reg, unsigned bytes, uint32_t v);
/* Functions of bus 0 in order; *cursor starts at 0. False at the end. */
bool pci_next(unsigned *cursor, struct pci_dev *out);
/* The nth function with these ids. -GUEST_ENODEV. */
int pci_find(uint16_t vendor, uint16_t device, unsigned nth, struct pci_dev *out);
/* Base address register n, moved below 4 GiB when it is not there. The size is found only when
 * `sized`. */
void pci_bar_get(const struct pci_dev *d, unsigned n, bool sized, struct pci_bar *out);
/* Offset of capability `id`, after the one at `from` (0: the first); 0: none. */
unsigned pci_cap_find(const struct pci_dev *d, uint8_t id, unsigned from);
void pci_command_set(const struct pci_dev *d, uint16_t set, uint16_t clear);

/* MSI-X (PCI 3.0, 6.8.2). `entries` is 0 when the device has none. */
struct pci_msix {
	struct pci_dev dev;
	unsigned cap;
	unsigned entries;
	uintptr_t table;
	uintptr_t pending;
};

void pci_msix_init(const struct pci_dev *d, struct pci_msix *m);
/* Points entry n at a vector of the boot CPU, unmasked. */
void pci_msix_set(struct pci_msix *m, unsigned n, uint8_t vector);
void pci_msix_mask(struct pci_msix *m, unsigned n, bool masked);
void pci_msix_enable(struct pci_msix *m, bool on, bool function_mask);
bool pci_msix_pending(const struct pci_msix *m, unsigned n);

/* ------------------------------------------------------------------ block devices */

enum frontend_blk_op {
	FRONTEND_BLK_READ,
	FRONTEND_BLK_WRITE,
	FRONTEND_BLK_FLUSH,
	FRONTEND_BLK_DISCARD,
	FRONTEND_BLK_WRITE_ZEROES,
	FRONTEND_BLK_GET_ID, /* 20 bytes */
};

struct frontend_blk_done {
	uint64_t token;
	int status; /* 0 or -GUEST_E* */
};

struct frontend_blk;

struct frontend_blk_ops {
	/*
	 * Queues one request; the device need not see it before kick(). `buf` stays the device's
	 * until the request is returned by poll(). bytes: a multiple of 512 for reads and writes.
	 * -GUEST_ENOSPC: no room now; -GUEST_ENOTSUP: not something this device does;
	 * -GUEST_EINVAL: cannot be expressed.
	 */
	int (*submit)(struct frontend_blk *b, unsigned queue, enum frontend_blk_op op,
		uint64_t sector, void *buf, uint32_t bytes, uint64_t token);
	void (*kick)(struct frontend_blk *b);
	/* Completions, up to max; negative when the device misbehaves and cannot go on. */
	int (*poll)(struct frontend_blk *b, struct frontend_blk_done *done, unsigned max);
	/* Before halting: interrupts on, second look. True: there is something to poll, do not
	 * sleep. */
	bool (*wait_begin)(struct frontend_blk *b);
	void (*wait_end)(struct frontend_blk *b);
	/* Interrupts that arrived since start (wraps). */
	uint32_t (*irqs)(struct frontend_blk *b);
};

struct frontend_blk {
	const struct frontend_blk_ops *ops;
	const char *model; /* "virtio-blk", "ide" */
	uint64_t sectors;
	unsigned queues;
	bool readonly;
	bool has_flush;
	bool has_discard;
	bool has_write_zeroes;
	uint64_t doorbells; /* virtio: notifications; ide: commands */
};

/* Which virtio features to accept when offered, and how to be told of completions. */
struct frontend_virtio_options {
	bool packed;
	bool event_idx;
	bool indirect;
	bool in_order;
	bool msix;
};

enum frontend_ide_transfer { FRONTEND_IDE_DMA, FRONTEND_IDE_PIO };

/*
 * Finds the nth device of the kind, resets it and brings it up. The memory is for ever: opening
 * again (other options) takes new memory. -GUEST_ENODEV, -GUEST_ENOMEM, -GUEST_EIO, -GUEST_ENOTSUP.
 * IDE: index 0 primary master, 1 primary slave, 2 secondary master, 3 secondary slave.
 */
int virtio_blk_open(unsigned index, unsigned queues, const struct frontend_virtio_options *o,
	struct frontend_blk **out);
int ide_open(unsigned index, enum frontend_ide_transfer transfer, struct frontend_blk **out);

/* For interrupt tests: the MSI-X of a virtio-blk, the vector of its queue 0, and its ISR register.
 */
struct pci_msix *virtio_blk_msix(struct frontend_blk *b);
uint8_t virtio_blk_vector(struct frontend_blk *b);
uint8_t virtio_blk_isr(struct frontend_blk *b);

/* ------------------------------------------------------------------ network devices */

/* Bytes before each frame handed to send() that belong to the driver. */
#define FRONTEND_NET_HEADROOM  16u
#define FRONTEND_NET_FRAME_MAX 65550u

struct frontend_net_tx {
	uint8_t *frame; /* the driver may change checksum and length fields when gso_size is set */
	uint32_t len;
	uint16_t gso_size; /* payload bytes for each segment, 0: send as it is */
	bool gso_tcp;      /* TCP over IPv4, else UDP over IPv4; headers without options */
	uint64_t token;
};

struct frontend_net_rx {
	const uint8_t *frame;
	uint32_t len;
};

struct frontend_net;

struct frontend_net_ops {
	/* Queues one frame. -GUEST_ENOSPC: no room now; -GUEST_ENOTSUP: no such offload;
	 * -GUEST_EINVAL: length. */
	int (*send)(struct frontend_net *n, unsigned queue, const struct frontend_net_tx *tx);
	void (*kick)(struct frontend_net *n);
	/* Tokens of frames whose memory is the caller's again. */
	int (*sent)(struct frontend_net *n, unsigned queue, uint64_t *tokens, unsigned max);
	/* Received frames; they stay valid until the next receive() on that queue. */
	int (*receive)(
		struct frontend_net *n, unsigned queue, struct frontend_net_rx *rx, unsigned max);
	/* As for block devices; `rx`, `tx`: what to be woken for. */
	bool (*wait_begin)(struct frontend_net *n, bool rx, bool tx);
	void (*wait_end)(struct frontend_net *n);
	uint32_t (*irqs)(struct frontend_net *n);
};

struct frontend_net {
	const struct frontend_net_ops *ops;
	const char *model; /* "virtio-net", "e1000", "ne2k_pci", "rtl8139" */
	uint8_t mac[6];
	unsigned queues; /* pairs */
	unsigned tx_max; /* frames the driver can hold in one queue */
	bool gso_tcp;
	bool gso_udp;
	uint64_t doorbells; /* register writes that start the device on new work */
	uint64_t errors;    /* frames the device marked bad */
};

int virtio_net_open(unsigned index, unsigned queues, const struct frontend_virtio_options *o,
	struct frontend_net **out);
int e1000_open(unsigned index, struct frontend_net **out);
int ne2000_open(unsigned index, struct frontend_net **out);
int rtl8139_open(unsigned index, struct frontend_net **out);

/* ------------------------------------------------------------------ virtio, without a machine */

/*
 * Virtio 1.2 as a driver sees it: the numbers, and the logic that needs no machine below it
 * (common/; compiled for the host too, where the unit tests run it). Nothing here blocks, allocates
 * or keeps state.
 */

/* Device status (2.1) */
#define VIRTIO_S_ACKNOWLEDGE 1u
#define VIRTIO_S_DRIVER      2u
#define VIRTIO_S_DRIVER_OK   4u
#define VIRTIO_S_FEATURES_OK 8u
#define VIRTIO_S_NEEDS_RESET 64u
#define VIRTIO_S_FAILED      128u

/* Reserved feature bits (6) */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32
#define VIRTIO_F_RING_PACKED   34
#define VIRTIO_F_IN_ORDER      35

/* Network device (5.1.3) */
#define VIRTIO_NET_F_CSUM       0
#define VIRTIO_NET_F_GUEST_CSUM 1
#define VIRTIO_NET_F_MAC        5
#define VIRTIO_NET_F_GUEST_TSO4 7
#define VIRTIO_NET_F_HOST_TSO4  11
#define VIRTIO_NET_F_MRG_RXBUF  15
#define VIRTIO_NET_F_CTRL_VQ    17
#define VIRTIO_NET_F_MQ         22
#define VIRTIO_NET_F_HOST_USO   56

/* Block device (5.2.3) */
#define VIRTIO_BLK_F_RO           5
#define VIRTIO_BLK_F_FLUSH        9
#define VIRTIO_BLK_F_MQ           12
#define VIRTIO_BLK_F_DISCARD      13
#define VIRTIO_BLK_F_WRITE_ZEROES 14

/* Device types (5) */
#define VIRTIO_NET_TYPE 1u
#define VIRTIO_BLK_TYPE 2u

#define VIRTIO_BIT(n) (1ull << (n))

/* The common configuration structure (4.1.4.3), by offset. */
enum virtio_common {
	VIRTIO_C_DEVICE_FEATURE_SELECT = 0,
	VIRTIO_C_DEVICE_FEATURE = 4,
	VIRTIO_C_DRIVER_FEATURE_SELECT = 8,
	VIRTIO_C_DRIVER_FEATURE = 12,
	VIRTIO_C_CONFIG_VECTOR = 16,
	VIRTIO_C_NUM_QUEUES = 18,
	VIRTIO_C_STATUS = 20,
	VIRTIO_C_QUEUE_SELECT = 22,
	VIRTIO_C_QUEUE_SIZE = 24,
	VIRTIO_C_QUEUE_VECTOR = 26,
	VIRTIO_C_QUEUE_ENABLE = 28,
	VIRTIO_C_QUEUE_NOTIFY_OFF = 30,
	VIRTIO_C_QUEUE_DESC = 32,
	VIRTIO_C_QUEUE_DRIVER = 40,
	VIRTIO_C_QUEUE_DEVICE = 48,
};

/* ------------------------------------------------------------------ block requests (5.2.6) */

enum {
	VIRTIO_BLK_T_IN,
	VIRTIO_BLK_T_OUT,
	VIRTIO_BLK_T_FLUSH = 4,
	VIRTIO_BLK_T_GET_ID = 8,
	VIRTIO_BLK_T_DISCARD = 11,
	VIRTIO_BLK_T_WRITE_ZEROES = 13
};

#define VIRTIO_BLK_S_OK     0u
#define VIRTIO_BLK_S_IOERR  1u
#define VIRTIO_BLK_S_UNSUPP 2u
/* Not a status of the device's: proves that it wrote one. */
#define VIRTIO_BLK_S_UNSET 0xffu

/* What surrounds the data of one request, in memory the device reaches. 64 bytes: no false sharing.
 */
struct virtio_blk_frame {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
	uint64_t range_sector; /* discard and write zeroes take one range */
	uint32_t range_sectors;
	uint32_t range_flags;
	uint8_t status;
	uint8_t pad[31];
};

/*
 * Fills `f` and the segments of one request: sg[0 .. *nout) for the device to read, then *nin to
 * write. Four segments at most. -GUEST_ENOTSUP: no such operation; -GUEST_EINVAL: a length it
 * cannot have.
 */
int virtio_blk_request(struct virtio_blk_frame *f, enum frontend_blk_op op, uint64_t sector,
	void *buf, uint32_t bytes, struct ring_sg *sg, uint32_t *nout, uint32_t *nin);
/* 0 or -GUEST_E* for the status byte of a completed request. */
int virtio_blk_status(const struct virtio_blk_frame *f);

/* ------------------------------------------------------------------ network headers (5.1.6) */

#define VIRTIO_NET_HDR_F_NEEDS_CSUM 1u
#define VIRTIO_NET_HDR_GSO_TCPV4    1u
#define VIRTIO_NET_HDR_GSO_UDP_L4   5u

struct virtio_net_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
};

/* The header of one frame to send. For segmentation, also completes the frame's own sum over the
 * pseudo header. */
void virtio_net_header(struct virtio_net_hdr *h, const struct frontend_net_tx *tx);

/* ------------------------------------------------------------------ features */

/* The ring features among `options` that a driver wants, as feature bits. */
uint64_t virtio_ring_features(const struct frontend_virtio_options *o);

/* `features` without those whose prerequisites are missing from it, for a device type (5.1.3.1). */
uint64_t virtio_features_prune(uint64_t features, unsigned type);

/* ------------------------------------------------------------------ checksums */

/* Sum of 16-bit big-endian words, folded, not complemented. */
uint16_t net_sum16(const uint8_t *p, size_t n, uint32_t sum);
/* The IPv4 pseudo header's sum over addresses, protocol and `l4_len` (0: leave the length out). */
uint16_t net_pseudo_sum(const uint8_t *ip, uint32_t l4_len);

static inline void net_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

#endif
