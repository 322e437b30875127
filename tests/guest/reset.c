/* SPDX-License-Identifier: BSD-2-Clause */
/* Ends the machine in the way the command line asks for: how=cf9|kbd|triple|poweroff. */
#include "frontend-drivers/frontend.h"

#define KEYBOARD_COMMAND     0x64u
#define KEYBOARD_PULSE_RESET 0xfeu

extern uint64_t entry_idt3[512];

void guest_main(void)
{
	char how[16];

	if (!cmdline_word("how", 0, how, sizeof(how)))
		print_to(how, sizeof(how), "poweroff");
	print("reset how=%s\n", how);
	if (!strcmp(how, "cf9"))
		power_reset();
	if (!strcmp(how, "kbd")) {
		io_out8(KEYBOARD_COMMAND, KEYBOARD_PULSE_RESET);
		clock_spin_us(1000000);
	} else if (!strcmp(how, "triple")) {
		/* No gate is present: the fault of a fault of a fault. */
		memset(entry_idt3, 0, sizeof(entry_idt3));
		__asm__ volatile("ud2");
	} else if (!strcmp(how, "poweroff")) {
		power_off(0);
	}
	print("reset failed how=%s\n", how);
	power_off(4);
}
