/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that does arbitrary things to a virtio disk and a virtio network card: their registers,
 * configuration spaces, rings and buffers, and being paused, saved and loaded meanwhile. One
 * machine without KVM serves all inputs and is reset after each.
 *
 * Input: operations, one byte each with its arguments behind it, see operation().
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define MEMORY     (2u << 20)
#define DISK       (256u << 10)
#define OPERATIONS 256u
#define RINGS      0x10000u /* each queue has 64 KiB from here on */
#define RING_BYTES 0x10000u
#define QUEUE_SIZE 16u
#define DEVICES    2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *at;
	size_t left;
};

static struct machine *machine;
static unsigned slots[DEVICES];
static uint32_t bars[DEVICES][6]; /* as they were assigned */

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint64_t)*in->at++ << (8 * i);
	return v;
}

static void check(bool good)
{
	if (!good)
		abort();
}

/* ------------------------------------------------------------------ PCI */

static uint32_t config_read(unsigned device, unsigned offset, unsigned size)
{
	machine_port_write(machine, 0xcf8, 0x80000000u | slots[device] << 11 | (offset & 0xfc), 4);
	return machine_port_read(machine, (uint16_t)(0xcfc + (offset & 3)), size);
}

static void config_write(unsigned device, unsigned offset, uint32_t value, unsigned size)
{
	machine_port_write(machine, 0xcf8, 0x80000000u | slots[device] << 11 | (offset & 0xfc), 4);
	machine_port_write(machine, (uint16_t)(0xcfc + (offset & 3)), value, size);
}

/* Where the guest has put it. */
static uint64_t bar(unsigned device, unsigned i)
{
	return config_read(device, 0x10 + 4 * i, 4) & ~15u;
}

static void machine_make(void)
{
	static struct machine_config cfg;
	char why[VMM_WHY_MAX], path[64];
	unsigned found = 0;
	int fd = memfd_create("disk", MFD_CLOEXEC);

	check(fd >= 0 && ftruncate(fd, DISK) == 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = MEMORY;
	cfg.poll_set = true; /* never polls: two cores are few */
	cfg.disks[0] = (struct disk_config){.path = path, .fd = -1, .packed = true, .queues = 2};
	cfg.ndisks = 1;
	cfg.nets[0] = (struct net_config){.fd = -1, .memory = "echo", .packed = true, .queues = 2};
	cfg.nnets = 1;
	check(machine_create(&machine, &cfg, why) == 0);
	close(fd);
	for (unsigned slot = 0; slot < 32 && found < DEVICES; slot++) {
		slots[found] = slot;
		found += config_read(found, 0, 2) == 0x1af4;
	}
	check(found == DEVICES);
	for (unsigned i = 0; i < DEVICES * 6; i++)
		bars[i / 6][i % 6] = config_read(i / 6, 0x10 + 4 * (i % 6), 4);
}

/* Every BAR is where it was, and answers: a guest may well put one above another. */
static bool undisturbed(void)
{
	for (unsigned i = 0; i < DEVICES * 6; i++)
		if (bars[i / 6][i % 6] != config_read(i / 6, 0x10 + 4 * (i % 6), 4) ||
			!(config_read(i / 6, 4, 2) & 2))
			return false;
	return true;
}

/* ------------------------------------------------------------------ what a good driver does */

static void common_write(unsigned device, unsigned offset, uint64_t value, unsigned size)
{
	machine_mmio_write(machine, bar(device, 4) + offset, value, size);
}

static void status_reset(unsigned device)
{
	common_write(device, 0x14, 0, 1);
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t status = machine_mmio_read(machine, bar(device, 4) + 0x14, 1);

		if (!status || status == 0xff || !undisturbed())
			return;
		usleep(20);
	}
	abort(); /* a reset that never ends */
}

static void set_up(unsigned device, uint64_t refused, unsigned queues)
{
	uint64_t base = bar(device, 4), features;

	if (machine_mmio_read(machine, base + 0x12, 2) == 0xffff)
		return; /* moved away */
	status_reset(device);
	common_write(device, 0x14, 3, 1);
	common_write(device, 0x00, 0, 4);
	features = machine_mmio_read(machine, base + 4, 4);
	common_write(device, 0x00, 1, 4);
	features |= machine_mmio_read(machine, base + 4, 4) << 32;
	features &= ~(refused & ~(1ull << 32));
	common_write(device, 0x08, 0, 4);
	common_write(device, 0x0c, (uint32_t)features, 4);
	common_write(device, 0x08, 1, 4);
	common_write(device, 0x0c, features >> 32, 4);
	common_write(device, 0x14, 0xb, 1);
	for (unsigned q = 0; q < queues; q++) {
		uint64_t at = RINGS + (q + 8ull * device) * RING_BYTES;

		common_write(device, 0x16, q, 2);
		common_write(device, 0x18, QUEUE_SIZE, 2);
		common_write(device, 0x20, at, 8);
		common_write(device, 0x28, at + 0x1000, 8);
		common_write(device, 0x30, at + 0x2000, 8);
		common_write(device, 0x1c, 1, 2);
	}
	common_write(device, 0x14, 0xf, 1);
}

/* ------------------------------------------------------------------ operations */

static void memory_write(uint64_t gpa, const void *from, size_t len)
{
	(void)ring_mem_write(machine_memory(machine), gpa, from, len);
}

/* A descriptor, and for the split layout the available ring that leads to it. */
static void descriptor(struct input *in, unsigned device)
{
	unsigned q = (unsigned)take(in, 1) % 8, slot = (unsigned)take(in, 1) % QUEUE_SIZE;
	uint64_t at = RINGS + (q + 8ull * device) * RING_BYTES;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t a, b; /* split: flags, next; packed: id, flags */
	} d;
	uint16_t word;

	d.addr = take(in, 3);
	d.len = (uint32_t)take(in, 2);
	d.a = (uint16_t)take(in, 2);
	d.b = (uint16_t)take(in, 2);
	memory_write(at + 16 * slot, &d, sizeof(d));
	word = (uint16_t)slot;
	memory_write(at + 0x1000 + 4 + 2 * slot, &word, 2);
	word = (uint16_t)(slot + 1);
	memory_write(at + 0x1000 + 2, &word, 2);
}

static void save_and_load(struct input *in)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];
	size_t at;

	machine_pause(machine);
	check(machine_save(machine, &w) == 0);
	at = take(in, 2);
	if (at < w.len)
		w.data[at] ^= (uint8_t)take(in, 1);
	state_reader_init(&r, w.data, w.len);
	(void)machine_load(machine, &r, why);
	machine_resume(machine);
	state_writer_free(&w);
}

static void operation(struct input *in)
{
	static const uint16_t regions[] = {0x0000, 0x0000, 0x1000, 0x2000, 0x3000, 0x3ff0};
	unsigned op = (unsigned)take(in, 1), device = op >> 7, size = 1u << (op >> 4 & 3);
	uint64_t at;

	switch (op & 15) {
	case 0:
	case 1:
		at = regions[take(in, 1) % 6];
		at += take(in, 1);
		machine_mmio_write(machine, bar(device, 4) + at, take(in, size), size);
		break;
	case 2:
		at = take(in, 2) & 0x3fff;
		(void)machine_mmio_read(machine, bar(device, 4) + at, size);
		break;
	case 3:
		at = take(in, 1);
		config_write(device, (unsigned)at, (uint32_t)take(in, size), size > 4 ? 4 : size);
		break;
	case 4:
		at = take(in, 1);
		(void)config_read(device, (unsigned)at, size > 4 ? 4 : size);
		break;
	case 5:
		at = take(in, 3);
		size = (unsigned)take(in, 1);
		size = size < in->left ? size : (unsigned)in->left;
		memory_write(at, in->at, size);
		in->at += size;
		in->left -= size;
		break;
	case 6:
		at = take(in, 5);
		set_up(device, at, 1 + (unsigned)take(in, 1) % 5);
		break;
	case 7:
		at = 4 * (take(in, 1) % 8);
		machine_mmio_write(machine, bar(device, 4) + 0x3000 + at, at / 4, 2);
		break;
	case 8:
		descriptor(in, device);
		break;
	case 9:
		machine_pause(machine);
		machine_resume(machine);
		break;
	case 10:
		save_and_load(in);
		break;
	case 11:
		at = take(in, 1);
		machine_mmio_write(machine, bar(device, 1) + at * 4, take(in, 4), 4);
		break;
	default:
		status_reset(device);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {.at = data, .left = size};
	char why[VMM_WHY_MAX];

	if (!machine)
		machine_make();
	for (unsigned n = 0; n < OPERATIONS && in.left; n++)
		operation(&in);
	machine_pause(machine);
	check(machine_reset(machine, why) == 0);
	machine_resume(machine);
	return 0;
}
