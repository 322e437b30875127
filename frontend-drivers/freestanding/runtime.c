/* SPDX-License-Identifier: BSD-2-Clause */
#include "frontend-drivers/freestanding/runtime_priv.h"

void runtime_start(uint32_t start_info);
void runtime_exception(const struct cpu_exception *e);

static void (*exception_hook)(const struct cpu_exception *e);

/*
 * Called by entry.S. The order is for the first line to be out early: nothing before it takes more
 * than a few exits.
 */
void runtime_start(uint32_t start_info)
{
	const struct hvm_start_info *si = (const void *)(uintptr_t)start_info;
	static const char ready[] = "sluice guest ready\n";

	uart_init();
	uart_write(ready, sizeof(ready) - 1);
	if (si->magic != HVM_START_MAGIC) {
		print("boot: no PVH start information\n");
		power_off(2);
	}
	/* Both are copied: they may lie in memory that the allocator hands out later. */
	cmdline_init(si);
	mem_init(si);
	cpu_init();
	guest_main();
	power_off(0);
}

void cpu_exception_hook_set(void (*hook)(const struct cpu_exception *e))
{
	exception_hook = hook;
}

void runtime_exception(const struct cpu_exception *e)
{
	if (exception_hook)
		exception_hook(e);
	print("\nSLUICE-EXCEPTION vector=%lu error=0x%lx rip=0x%lx cs=0x%lx rsp=0x%lx "
	      "address=0x%lx\n",
		e->vector, e->error, e->rip, e->cs, e->rsp, e->address);
	power_off(3);
}
