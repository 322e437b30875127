/* SPDX-License-Identifier: BSD-2-Clause */
/* Starts the other CPUs; each drops to CPL 3 and counts. cpus=N: how many there are in all. */
#include "frontend-drivers/frontend.h"

#define TRAMPOLINE 0x8000u
#define CPUS_MAX   64u
#define ENOUGH     1000u
#define TIMEOUT_US 20000000u

/* One cache line for each: they count at the same time. */
struct counter {
	volatile uint64_t n;
	uint64_t pad[7];
};

extern const uint8_t entry_ap16[], entry_ap16_end[];
extern uint32_t entry_ap_count;
extern void (*entry_ap_main)(uint32_t index);

static struct counter counters[CPUS_MAX];

static void other_main(uint32_t index)
{
	uint16_t cs;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	if ((cs & 3) != 3)
		return;
	for (;;) {
		counters[index].n++;
		cpu_relax();
	}
}

static unsigned counting(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < CPUS_MAX; i++)
		n += counters[i].n > ENOUGH;
	return n;
}

void guest_main(void)
{
	const unsigned cpus = (unsigned)cmdline_u64("cpus", 2);
	uint64_t end;

	clock_init();
	memcpy((void *)(uintptr_t)TRAMPOLINE, entry_ap16, (size_t)(entry_ap16_end - entry_ap16));
	entry_ap_main = other_main;
	cpu_others_start(TRAMPOLINE);
	end = clock_now() + clock_from_ns(TIMEOUT_US * 1000ull);
	while (counting() + 1 < cpus && clock_now() < end)
		clock_spin_us(1000);
	/* Time for one too many to show. */
	clock_spin_us(20000);
	if (counting() + 1 == cpus &&
		__atomic_load_n(&entry_ap_count, __ATOMIC_RELAXED) + 1 == cpus)
		print("smp cpus=%u ok\n", cpus);
	else
		print("smp cpus=%u failed: %u started, %u counting\n", cpus, entry_ap_count + 1,
			counting() + 1);
}
