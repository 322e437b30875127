/* SPDX-License-Identifier: BSD-2-Clause */
/* The table behind `sluice run --counters`. */
#include <inttypes.h>
#include <stdio.h>

#include "vmm/cli_run_priv.h"

static void device_print(struct machine *m, unsigned i)
{
	struct device_report r;
	const struct device_counters *c;

	machine_device_report(m, i, &r);
	c = r.counters;
	fprintf(stderr,
		"%-14s %12" PRIu64 " %14" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64
		" %8" PRIu64 "\n",
		r.model, counter_get(&c->requests), counter_get(&c->bytes),
		counter_get(&c->doorbells), counter_get(&c->exits), counter_get(&c->interrupts),
		counter_get(&c->errors));
}

void run_counters_print(struct machine *m)
{
	struct machine_counters c;

	machine_counters_get(m, &c);
	fprintf(stderr, "\n%-34s %14s\n", "COUNTER", "VALUE");
#define ROW(name, value) fprintf(stderr, "%-34s %14" PRIu64 "\n", name, (uint64_t)(value))
	ROW("exits to user space", c.vcpu.exits);
	ROW("  port I/O", c.vcpu.exits_io);
	ROW("  memory-mapped I/O", c.vcpu.exits_mmio);
	ROW("  signals", c.vcpu.exits_signal);
	ROW("  others", c.vcpu.exits_other);
	ROW("vCPU system calls", c.vcpu.system_calls);
	ROW("vCPU time, microseconds", c.vcpu.cpu_ns / 1000);
	ROW("I/O thread system calls", c.io.system_calls);
	ROW("I/O thread sleeps", c.io.sleeps);
	ROW("I/O thread time, microseconds", c.io.cpu_ns / 1000);
	ROW("polling windows that paid", c.io.poll_hits);
	ROW("polling windows that did not", c.io.poll_misses);
	ROW("devices' own system calls", c.device_system_calls);
	ROW("interrupts", c.interrupts);
	ROW("doorbells", c.doorbells);
	ROW("posted writes", c.coalesced);
#undef ROW
	if (!machine_devices(m))
		return;
	fprintf(stderr, "\n%-14s %12s %14s %10s %10s %10s %8s\n", "DEVICE", "REQUESTS", "BYTES",
		"DOORBELLS", "EXITS", "INTERRUPTS", "ERRORS");
	for (unsigned i = 0; i < machine_devices(m); i++)
		device_print(m, i);
}
