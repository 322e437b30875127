/* SPDX-License-Identifier: BSD-2-Clause */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define PM1_CONTROL   0x604u
#define PM1_SLEEP_S5  0x2000u /* SLP_EN, SLP_TYP 0 */
#define QEMU_EXIT     0xf4u
#define RESET_CONTROL 0xcf9u

/* A monitor may act on the register only when its main loop comes round: some 100 ms, without a
 * clock. */
#define POWER_OFF_CYCLES 300000000u

static void stop(void) __attribute__((noreturn));

static void stop(void)
{
	for (;;)
		cpu_idle(cpu_irq_total());
}

void power_off(uint8_t code)
{
	/* QEMU's exit device can carry a code, the ACPI register cannot: it comes first for
	 * failures. */
	if (code)
		io_out32(QEMU_EXIT, code);
	io_out16(PM1_CONTROL, PM1_SLEEP_S5);
	for (uint64_t start = clock_now(); clock_now() - start < POWER_OFF_CYCLES;)
		cpu_relax();
	io_out32(QEMU_EXIT, code);
	stop();
}

void power_reset(void)
{
	io_out8(RESET_CONTROL, 0x02);
	io_out8(RESET_CONTROL, 0x06);
	stop();
}
