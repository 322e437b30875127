/* SPDX-License-Identifier: BSD-2-Clause */
/* The time stamp counter as clock, and where its frequency comes from. */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define PM_TIMER_PORT   0x608u
#define PM_TIMER_HZ     3579545u
#define PM_TIMER_MASK   0xffffffu
#define CALIBRATE_TICKS (PM_TIMER_HZ / 50)
#define ASSUMED_KHZ     2400000u

/* Read by entry.S in ring 0. */
extern uint32_t entry_hypervisor_leaf_max;
extern uint32_t entry_hypervisor_tsc_khz;

static uint64_t khz;
static const char *source = "none";
static uint64_t ns_per_cycle_32; /* 32.32 fixed point */
static uint64_t cycles_per_ns_32;

static bool from_cpuid(void)
{
	uint32_t r[4], max;

	/* Only monitors answer there; bare hardware repeats its highest leaf, whose eax is no such
	 * maximum. */
	if (entry_hypervisor_leaf_max >= 0x40000010 && entry_hypervisor_leaf_max < 0x40010000 &&
		entry_hypervisor_tsc_khz >= 100000) {
		khz = entry_hypervisor_tsc_khz;
		source = "cpuid 0x40000010";
		return true;
	}
	cpuid(0, r);
	max = r[0];
	if (max >= 0x15) {
		cpuid(0x15, r);
		if (r[0] && r[1] && r[2]) {
			khz = (uint64_t)r[2] * r[1] / r[0] / 1000;
			source = "cpuid 0x15";
			return true;
		}
	}
	if (max >= 0x16) {
		cpuid(0x16, r);
		if (r[0] & 0xffff) {
			khz = (r[0] & 0xffff) * 1000ull;
			source = "cpuid 0x16";
			return true;
		}
	}
	return false;
}

/* One reading is an exit of uncertain length: of several, the shortest is the most exact. */
static uint32_t pm_timer_read(uint64_t *at)
{
	uint64_t best = ~0ull;
	uint32_t value = 0;

	for (unsigned i = 0; i < 8; i++) {
		uint64_t a = clock_now();
		uint32_t v = io_in32(PM_TIMER_PORT) & PM_TIMER_MASK;
		uint64_t b = clock_now();

		if (b - a < best) {
			best = b - a;
			*at = a + (b - a) / 2;
			value = v;
		}
	}
	return value;
}

static bool from_pm_timer(void)
{
	uint64_t t0 = 0, t1 = 0, start;
	uint32_t v0 = pm_timer_read(&t0);
	uint32_t v1, ticks;

	/* 20 ms at 10 GHz at most, should the timer stand still. */
	start = clock_now();
	do {
		v1 = io_in32(PM_TIMER_PORT) & PM_TIMER_MASK;
		ticks = (v1 - v0) & PM_TIMER_MASK;
		if (clock_now() - start > 200000000u)
			break;
	} while (ticks < CALIBRATE_TICKS);
	v1 = pm_timer_read(&t1);
	ticks = (v1 - v0) & PM_TIMER_MASK;
	if (ticks < CALIBRATE_TICKS || ticks > 50 * CALIBRATE_TICKS)
		return false;
	khz = (t1 - t0) * (PM_TIMER_HZ / 1000) / ticks;
	/* PM_TIMER_HZ / 1000 dropped 545 Hz of 3,579,545. */
	khz += khz * 545 / PM_TIMER_HZ;
	source = "acpi timer";
	return khz >= 100000;
}

void clock_init(void)
{
	if (khz)
		return;
	if (!from_cpuid() && !from_pm_timer()) {
		khz = ASSUMED_KHZ;
		source = "assumed";
		print("clock: no source tells the frequency, assuming %u MHz\n",
			ASSUMED_KHZ / 1000);
	}
	ns_per_cycle_32 = (1000000ull << 32) / khz;
	cycles_per_ns_32 = (khz << 32) / 1000000;
}

uint64_t clock_khz(void)
{
	clock_init();
	return khz;
}

const char *clock_source(void)
{
	clock_init();
	return source;
}

uint64_t clock_to_ns(uint64_t cycles)
{
	clock_init();
	return (unsigned __int128)cycles * ns_per_cycle_32 >> 32;
}

uint64_t clock_from_ns(uint64_t ns)
{
	clock_init();
	return (unsigned __int128)ns * cycles_per_ns_32 >> 32;
}

void clock_spin_us(uint64_t us)
{
	uint64_t end = clock_now() + clock_from_ns(us * 1000);

	while (clock_now() < end)
		cpu_relax();
}
