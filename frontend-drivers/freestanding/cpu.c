/* SPDX-License-Identifier: BSD-2-Clause */
/* Interrupt descriptor tables, the local APIC (xAPIC, by MMIO), the I/O APIC, halting. */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define LAPIC            0xfee00000u
#define LAPIC_TPR        (LAPIC + 0x80u)
#define LAPIC_EOI        (LAPIC + 0xb0u)
#define LAPIC_SVR        (LAPIC + 0xf0u)
#define LAPIC_ICR_LOW    (LAPIC + 0x300u)
#define LAPIC_LVT_TIMER  (LAPIC + 0x320u)
#define LAPIC_LVT_LINT0  (LAPIC + 0x350u)
#define LAPIC_TIMER_INIT (LAPIC + 0x380u)
#define LAPIC_TIMER_DIV  (LAPIC + 0x3e0u)
#define LAPIC_MASKED     0x10000u

#define IOAPIC_SELECT 0xfec00000u
#define IOAPIC_WINDOW 0xfec00010u
#define IOAPIC_TABLE  0x10u
#define IOAPIC_LEVEL  0x8000u

#define VECTOR_TIMER    0x30u
#define VECTOR_SPURIOUS 0xffu

#define GATE_INTERRUPT 0x8eu /* present, ring 0, interrupts off */
#define GATE_TRAP3     0xefu /* present, ring 3, interrupts stay on */

/* KVM's timer runs at 1 GHz; a wrong guess only makes a halt end early or late. */
#define TIMER_MAX_NS 4000000000u
#define TIMER_MIN_NS 2000u
#define GUARD_NS     2000000000u

extern uint64_t entry_idt3[512];
extern uint64_t entry_idt0[512];
extern uint32_t entry_irq_count[256];
extern uint32_t entry_irq_in_service;
extern uint32_t entry_irq_total;
extern uint32_t entry_line_masked;
extern const uint8_t entry_irq_stubs[];
extern const uint8_t entry_line_stubs[];
extern const uint8_t entry_exception_stubs[];
extern const uint8_t entry_gp[];
extern const uint8_t entry_irq_ignore[];
void entry_halt(uint32_t seen);

static uint8_t next_vector = CPU_VECTOR_FIRST;
static bool timer_ready;
static uint64_t guard_until; /* when the timer ends a halt that nothing else ends */
static uint8_t line_vectors[ENTRY_LINES];

static void gate_set(uint64_t *idt, unsigned vector, const void *to, uint16_t cs, uint8_t type)
{
	uint64_t a = (uintptr_t)to;

	idt[2 * vector] =
		(a & 0xffff) | (uint64_t)cs << 16 | (uint64_t)type << 40 | (a >> 16 & 0xffff) << 48;
	idt[2 * vector + 1] = a >> 32;
}

/*
 * Two tables: at CPL 3 a device's gate leads to ring 3, where handlers run natively on every host.
 * An interrupt taken at CPL 0, which happens only in the sti; hlt of entry_gp, may not go there:
 * the second table leads the same stubs through ring 0.
 */
void cpu_init(void)
{
	for (unsigned v = 0; v < 256; v++) {
		const uint8_t *stub = entry_irq_stubs + v * ENTRY_STUB_BYTES;

		if (v < 32) {
			stub = v == 13  ? entry_gp
			       : v == 2 ? entry_irq_ignore
					: entry_exception_stubs + v * 16;
			gate_set(entry_idt3, v, stub, ENTRY_CODE0, GATE_INTERRUPT);
			gate_set(entry_idt0, v, stub, ENTRY_CODE0, GATE_INTERRUPT);
			continue;
		}
		if (v == VECTOR_SPURIOUS)
			stub = entry_irq_ignore;
		gate_set(entry_idt3, v, stub, ENTRY_CODE3, GATE_TRAP3);
		gate_set(entry_idt0, v, stub, ENTRY_CODE0, GATE_INTERRUPT);
	}
	for (unsigned i = 0; i < ENTRY_LINES; i++) {
		const uint8_t *stub = entry_line_stubs + i * ENTRY_LINE_STUB_BYTES;

		gate_set(entry_idt3, ENTRY_LINE_VECTOR + i, stub, ENTRY_CODE0, GATE_INTERRUPT);
		gate_set(entry_idt0, ENTRY_LINE_VECTOR + i, stub, ENTRY_CODE0, GATE_INTERRUPT);
	}
	mmio_write32(LAPIC_SVR, 0x100u | VECTOR_SPURIOUS);
	mmio_write32(LAPIC_LVT_LINT0, LAPIC_MASKED);
	mmio_write32(LAPIC_TPR, 0);
}

uint8_t cpu_vector_alloc(void)
{
	return next_vector > CPU_VECTOR_LAST ? 0 : next_vector++;
}

uint32_t cpu_irq_count(uint8_t vector)
{
	return __atomic_load_n(&entry_irq_count[vector], __ATOMIC_ACQUIRE);
}

uint32_t cpu_irq_total(void)
{
	return __atomic_load_n(&entry_irq_total, __ATOMIC_ACQUIRE);
}

static void ioapic_write(unsigned reg, uint32_t v)
{
	mmio_write32(IOAPIC_SELECT, reg);
	mmio_write32(IOAPIC_WINDOW, v);
}

/*
 * Bounded by the number found at entry: a device that keeps interrupting would otherwise keep this
 * loop going. The count goes down before the APIC's does, in one instruction, since a new interrupt
 * may come between.
 */
void cpu_irq_eoi(void)
{
	uint32_t n = __atomic_load_n(&entry_irq_in_service, __ATOMIC_ACQUIRE);

	while (n--) {
		__asm__ volatile("decl %0" : "+m"(entry_irq_in_service) : : "memory");
		mmio_write32(LAPIC_EOI, 0);
	}
	if (!__atomic_load_n(&entry_line_masked, __ATOMIC_ACQUIRE))
		return;
	n = __atomic_exchange_n(&entry_line_masked, 0, __ATOMIC_ACQ_REL);
	for (unsigned line = 0; n; line++, n >>= 1)
		if (n & 1)
			ioapic_write(
				IOAPIC_TABLE + 2 * line, IOAPIC_LEVEL | (ENTRY_LINE_VECTOR + line));
}

void cpu_idle(uint32_t seen)
{
	cpu_irq_eoi();
	entry_halt(seen);
}

static void timer_arm(uint64_t ns)
{
	if (!timer_ready) {
		timer_ready = true;
		mmio_write32(LAPIC_TIMER_DIV, 0xb); /* by 1 */
		mmio_write32(LAPIC_LVT_TIMER, VECTOR_TIMER);
	}
	mmio_write32(LAPIC_TIMER_INIT, (uint32_t)ns);
}

void cpu_idle_until(uint32_t seen, uint64_t deadline)
{
	uint64_t now = clock_now();
	uint64_t ns;

	if (now >= deadline)
		return;
	ns = clock_to_ns(deadline - now);
	if (ns < TIMER_MIN_NS) {
		cpu_relax();
		return;
	}
	if (ns > TIMER_MAX_NS)
		ns = TIMER_MAX_NS;
	guard_until = 0;
	timer_arm(ns);
	cpu_idle(seen);
	mmio_write32(LAPIC_TIMER_INIT, 0);
}

void cpu_idle_guarded(uint32_t seen)
{
	uint64_t now = clock_now();

	if (now + clock_from_ns(GUARD_NS / 2) > guard_until) {
		guard_until = now + clock_from_ns(GUARD_NS);
		timer_arm(GUARD_NS);
	}
	cpu_idle(seen);
}

uint8_t cpu_line_vector(unsigned line, bool level)
{
	if (line >= ENTRY_LINES)
		return 0;
	if (!line_vectors[line]) {
		line_vectors[line] =
			level ? (uint8_t)(ENTRY_LINE_VECTOR + line) : cpu_vector_alloc();
		if (!line_vectors[line])
			return 0;
		ioapic_write(IOAPIC_TABLE + 2 * line + 1, 0);
		ioapic_write(
			IOAPIC_TABLE + 2 * line, line_vectors[line] | (level ? IOAPIC_LEVEL : 0));
	}
	return line_vectors[line];
}

void cpu_others_start(uint32_t trampoline)
{
	/* All excluding self: INIT, 10 ms, start-up (Intel SDM volume 3, 8.4.4). */
	mmio_write32(LAPIC_ICR_LOW, 0x000c4500);
	clock_spin_us(10000);
	mmio_write32(LAPIC_ICR_LOW, 0x000c4600 | trampoline >> 12);
}
