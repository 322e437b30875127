/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random reads and writes of all sizes to every port and every base address register, for
 * s=SECONDS, from seed=N. Whatever interrupts or faults is swallowed. avoid=PORT[,PORT...]: ports
 * left alone, for those that end the machine at once; by default there are none.
 */
#include "frontend-drivers/frontend.h"

#define TARGETS_MAX 64u
#define AVOID_MAX   32u
#define BURST_MAX   64u
#define EOI_EVERY   64u
#define WINDOW_MAX  0x100000u

struct target {
	uint64_t addr;
	uint64_t size;
	bool io;
};

/* Ports where PC devices are: a uniform choice of 65,536 would hardly ever meet one. */
static const struct target legacy[] = {
	{0x000, 0x20, true},
	{0x020, 2, true},
	{0x040, 4, true},
	{0x060, 5, true},
	{0x070, 2, true},
	{0x0a0, 2, true},
	{0x0c0, 0x20, true},
	{0x170, 8, true},
	{0x1f0, 8, true},
	{0x376, 1, true},
	{0x3f0, 8, true},
	{0x3f8, 8, true},
	{0x4d0, 2, true},
	{0x510, 16, true},
	{0x5e0, 4, true},
	{0x600, 0x40, true},
	{0xae00, 0x20, true},
	{0xcf8, 8, true},
	{0xcd6, 2, true},
	{0xf4, 1, true},
};

static struct target targets[TARGETS_MAX];
static unsigned ntargets;
static uint16_t avoid[AVOID_MAX];
static unsigned navoid;
static uint64_t state;
static uint64_t end;
static uint64_t accesses, faults;

static uint64_t random_get(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dull;
}

static void target_add(const struct target *t)
{
	if (ntargets < TARGETS_MAX)
		targets[ntargets++] = *t;
}

static void targets_find(void)
{
	struct pci_dev d;
	unsigned cursor = 0;

	for (unsigned i = 0; i < sizeof(legacy) / sizeof(legacy[0]); i++)
		target_add(&legacy[i]);
	cpu_line_vector(4, false);
	cpu_line_vector(14, false);
	cpu_line_vector(15, false);
	while (pci_next(&cursor, &d)) {
		for (unsigned n = 0; n < 6; n++) {
			struct pci_bar bar;

			pci_bar_get(&d, n, true, &bar);
			if (!bar.addr || !bar.size)
				continue;
			target_add(&(struct target){
				bar.addr, bar.size < WINDOW_MAX ? bar.size : WINDOW_MAX, bar.io});
		}
		/* So that register writes reach the devices, and some of them this guest's memory.
		 */
		pci_command_set(&d,
			PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
				(random_get() & 1 ? PCI_COMMAND_MASTER : 0),
			0);
		cpu_line_vector(d.line, true);
	}
}

static void avoid_read(void)
{
	char list[128], item[8];
	unsigned n = 0;
	uint64_t v;

	if (!cmdline_word("avoid", 0, list, sizeof(list)))
		return;
	for (const char *s = list;; s++) {
		if (*s && *s != ',') {
			if (n + 1 < sizeof(item))
				item[n++] = *s;
			continue;
		}
		item[n] = '\0';
		n = 0;
		if (!text_u64(item, &v) && navoid < AVOID_MAX)
			avoid[navoid++] = (uint16_t)v;
		if (!*s)
			break;
	}
}

/* An access of `bytes` there would touch a port to be left alone. */
static bool avoided(uint16_t port, unsigned bytes)
{
	for (unsigned i = 0; i < navoid; i++)
		if (avoid[i] >= port && avoid[i] < port + bytes)
			return true;
	return false;
}

/* Mostly small or telling values: a random 32-bit number sets half of all bits. */
static uint32_t value_get(void)
{
	uint64_t r = random_get();

	switch (r & 7) {
	case 0:
		return 0;
	case 1:
		return 0xffffffffu;
	case 2:
		return 1u << (r >> 8 & 31);
	case 3:
	case 4:
		return r >> 8 & 0xff;
	default:
		return (uint32_t)(r >> 16);
	}
}

static void port_access(uint16_t port, unsigned bytes, bool write)
{
	uint32_t v = value_get();

	if (avoided(port, bytes))
		return;
	if (bytes == 1)
		write ? io_out8(port, (uint8_t)v) : (void)io_in8(port);
	else if (bytes == 2)
		write ? io_out16(port, (uint16_t)v) : (void)io_in16(port);
	else
		write ? io_out32(port, v) : (void)io_in32(port);
}

static void port_burst(uint16_t port, unsigned bytes, bool write, unsigned n)
{
	static uint32_t words[BURST_MAX];

	if (avoided(port, bytes))
		return;
	for (unsigned i = 0; i < n; i++)
		words[i] = value_get();
	if (bytes == 2)
		write ? io_out16_rep(port, words, n) : io_in16_rep(port, words, n);
	else
		write ? io_out32_rep(port, words, n) : io_in32_rep(port, words, n);
}

static void memory_access(uintptr_t a, unsigned bytes, bool write)
{
	uint32_t v = value_get();

	if (bytes == 1)
		write ? mmio_write8(a, (uint8_t)v) : (void)mmio_read8(a);
	else if (bytes == 2)
		write ? mmio_write16(a, (uint16_t)v) : (void)mmio_read16(a);
	else
		write ? mmio_write32(a, v) : (void)mmio_read32(a);
}

static void one(void)
{
	uint64_t r = random_get();
	const struct target *t = &targets[(r >> 32) % ntargets];
	unsigned bytes = 1u << (r & 3) % 3;
	bool write = r & 0x70;
	uint64_t at = t->addr + random_get() % t->size;

	accesses++;
	if ((r & 0x300) == 0) {
		port_access((uint16_t)(r >> 16), bytes, write);
		return;
	}
	/* Registers are aligned more often than not. */
	if (r & 0x400)
		at &= ~(uint64_t)(bytes - 1);
	if (!t->io)
		memory_access(at, bytes, write);
	else if ((r & 0xf800) == 0 && bytes > 1)
		port_burst((uint16_t)at, bytes, write, 1 + (r >> 24) % BURST_MAX);
	else
		port_access((uint16_t)at, bytes, write);
}

static void run(const struct cpu_exception *e) __attribute__((noreturn));

/* Also entered from each exception, on a fresh stack. */
static void run(const struct cpu_exception *e)
{
	faults += e != NULL;
	while (clock_now() < end) {
		one();
		/* The local APIC must stay usable whatever arrived: one end too many does no harm.
		 */
		if (accesses % EOI_EVERY == 0) {
			cpu_irq_eoi();
			mmio_write32(0xfee000b0, 0);
		}
	}
	cpu_exception_hook_set(NULL);
	/* Its divisor latch may be open, or its output looped back. */
	io_out8(0x3fb, 0x03);
	io_out8(0x3fc, 0x00);
	print("\nchaos done accesses=%lu faults=%lu irqs=%u\n", accesses, faults, cpu_irq_total());
	power_off(0);
}

void guest_main(void)
{
	uint64_t seed = cmdline_u64("seed", 1), seconds = cmdline_u64("s", 10);

	clock_init();
	state = seed * 0x9e3779b97f4a7c15ull | 1;
	avoid_read();
	targets_find();
	print("chaos seed=%lu s=%lu targets=%u avoided=%u\n", seed, seconds, ntargets, navoid);
	end = clock_now() + clock_from_ns(seconds * 1000000000);
	cpu_exception_hook_set(run);
	run(NULL);
}
