/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that touches the IDE controller's ports as it likes: both channels, the bus master, the
 * controller's config space, and memory that descriptors may lie in. Three disks of 256 KiB, and a
 * CD.
 *
 * Input: operations of 6 bytes: what, where, value (4). A machine is made once and reset for each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define DISKS      4u
#define CD         3u
#define DISK_BYTES (256u << 10)
#define MEMORY     (2ull << 20)
#define OPS_MAX    512u

static struct machine *machine;

static void fuzz_open(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX];

	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = MEMORY;
	cfg.ndisks = DISKS;
	for (unsigned i = 0; i < DISKS; i++) {
		cfg.disks[i].fd = memfd_create("fuzz", MFD_CLOEXEC);
		cfg.disks[i].model = i == CD ? "ide-cd" : "ide";
		cfg.disks[i].readonly = i == 2;
		if (cfg.disks[i].fd < 0 || ftruncate(cfg.disks[i].fd, DISK_BYTES))
			abort();
		if (i == CD && pwrite(cfg.disks[i].fd, "\1CD001", 6, 32768) != 6)
			abort();
	}
	if (machine_create(&machine, &cfg, why))
		abort();
}

/* The ports worth trying: both command and control blocks, the bus master. */
static uint16_t fuzz_port(uint8_t where, uint16_t bus_master)
{
	switch (where & 0x30) {
	case 0x00:
		return 0x1f0 + (where & 7);
	case 0x10:
		return 0x170 + (where & 7);
	case 0x20:
		return where & 8 ? 0x3f6 : 0x376;
	default:
		return bus_master + (where & 15);
	}
}

static void fuzz_string(uint16_t port, uint32_t value)
{
	unsigned count = value % 300, size = 1u << (value >> 16) % 3;

	for (unsigned i = 0; i < count; i++) {
		if (value >> 31)
			machine_port_read(machine, port, size);
		else
			machine_port_write(machine, port, value + i, size);
	}
}

static void fuzz_memory(uint8_t where, uint32_t value)
{
	uint32_t at = (where & 0x7f) * 4u;
	uint8_t *host =
		ring_mem_translate(machine_memory(machine), 0x10000 - 0x100 + at, 4, RING_WRITE);

	if (host)
		memcpy(host, &value, 4);
}

/* Lets what is in flight come back, so that long transfers are gone through to their ends. */
static void fuzz_wait(void)
{
	machine_pause(machine);
	machine_resume(machine);
}

static void fuzz_move(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];

	machine_pause(machine);
	if (!machine_save(machine, &w)) {
		state_reader_init(&r, w.data, w.len);
		/* what was saved can be loaded */
		if (machine_load(machine, &r, why)) {
			fprintf(stderr, "saved, and not loadable: %s\n", why);
			abort();
		}
	}
	state_writer_free(&w);
	machine_resume(machine);
}

static void fuzz_op(const uint8_t op[6], uint16_t bus_master)
{
	uint16_t port = fuzz_port(op[1], bus_master);
	uint32_t value;

	memcpy(&value, op + 2, 4);
	switch (op[0] & 7) {
	case 0:
	case 1:
		machine_port_write(machine, port, value, 1);
		break;
	case 2:
		machine_port_read(machine, port, 1u << (value & 3) % 3);
		break;
	case 3:
		machine_port_write(machine, port, value, 1u << (op[0] >> 3) % 3);
		break;
	case 4:
		fuzz_string(op[1] & 1 ? 0x1f0 : 0x170, value);
		break;
	case 5:
		fuzz_memory(op[1], value);
		break;
	case 6:
		machine_port_write(machine, 0xcf8, 0x80000900 | (op[1] & 0xfc), 4);
		machine_port_write(machine, 0xcfc, value, 4);
		break;
	default:
		if (op[1] & 0x80)
			fuzz_move();
		else
			fuzz_wait();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char why[VMM_WHY_MAX];
	uint16_t bus_master;

	if (!machine)
		fuzz_open();
	machine_pause(machine);
	if (machine_reset(machine, why))
		abort();
	machine_resume(machine);
	/* nothing of the input before may be left, or a find could not be repeated */
	memset(ring_mem_translate(machine_memory(machine), 0, MEMORY, RING_WRITE), 0, MEMORY);
	machine_port_write(machine, 0xcf8, 0x80000920, 4);
	bus_master = machine_port_read(machine, 0xcfc, 4) & 0xfff0;
	for (unsigned n = 0; size >= 6 && n < OPS_MAX; n++, data += 6, size -= 6)
		fuzz_op(data, bus_master);
	fuzz_wait();
	return 0;
}
