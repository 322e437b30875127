/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flash memory for the variables of UEFI firmware: 8 bits wide, blocks of 4 KiB, Intel's command
 * set (Intel 28F008SA data sheet, table 3 and section "Command definitions"; JEDEC JEP137, 0001h).
 * Read as memory it is one, read-only, without exits; everything else exits. Its contents are a
 * file's: written through when programmed or erased.
 *
 * One thing is not as in the data sheet: after "clear status" all of the status is 0, also "ready",
 * until the next operation. QEMU's model does that, and OVMF knows flash from RAM and ROM by it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define FLASH_BLOCK 4096u
#define FLASH_MAX   (4u << 20)
#define FLASH_MAKER 0x89u /* Intel */
#define FLASH_PART  0x18u

enum {
	CMD_PROGRAM = 0x10,
	CMD_ERASE = 0x20,
	CMD_PROGRAM_TOO = 0x40,
	CMD_STATUS_CLEAR = 0x50,
	CMD_STATUS = 0x70,
	CMD_ID = 0x90,
	CMD_CONFIRM = 0xd0,
	CMD_ARRAY = 0xff,

	ST_READY = 0x80,
	ST_ERASE_ERROR = 0x20,
	ST_PROGRAM_ERROR = 0x10,
};

struct flash {
	struct device device;
	struct bus_region region;
	uint8_t *bytes;
	uint32_t size;
	int fd;
	bool mapped;     /* KVM has it as memory */
	uint8_t shows;   /* CMD_ARRAY, CMD_STATUS or CMD_ID */
	uint8_t pending; /* a command whose second cycle is due; 0: none */
	uint8_t status;
};

/* Memory while the array is shown, else each read exits. */
static void flash_show(struct flash *f, uint8_t what)
{
	struct machine *m = f->device.machine;
	struct kvm_slot slot = {KVM_SLOT_FLASH, f->region.base, f->size, f->bytes, true};
	bool memory = what == CMD_ARRAY;
	int rc = 0;

	f->shows = what;
	if (memory == f->mapped)
		return;
	if (!memory)
		slot.size = 0;
	if (m->vm_fd >= 0)
		rc = kvm_slot_set(m, &slot);
	if (rc)
		machine_fail(m, "flash: KVM refuses it: %s", strerror(-rc));
	f->mapped = memory;
}

static void flash_store(struct flash *f, uint32_t at, uint32_t len, uint8_t error)
{
	f->status = ST_READY;
	if (pwrite(f->fd, f->bytes + at, len, at) == (ssize_t)len)
		return;
	counter_add(&f->device.counters.errors, 1);
	f->status |= error;
}

static void flash_second(struct flash *f, uint32_t at, uint8_t v)
{
	uint8_t command = f->pending;

	f->pending = 0;
	if (command == CMD_PROGRAM) {
		/* bits are cleared only */
		f->bytes[at] &= v;
		flash_store(f, at, 1, ST_PROGRAM_ERROR);
	} else if (v == CMD_CONFIRM) {
		at -= at % FLASH_BLOCK;
		memset(f->bytes + at, 0xff, FLASH_BLOCK);
		flash_store(f, at, FLASH_BLOCK, ST_ERASE_ERROR);
	} else {
		f->status = ST_READY | ST_ERASE_ERROR | ST_PROGRAM_ERROR; /* command sequence */
	}
	flash_show(f, CMD_STATUS);
}

static void flash_command(struct flash *f, uint8_t v)
{
	switch (v) {
	case CMD_PROGRAM:
	case CMD_PROGRAM_TOO:
	case CMD_ERASE:
		f->pending = v == CMD_ERASE ? v : CMD_PROGRAM;
		flash_show(f, CMD_STATUS);
		break;
	case CMD_STATUS_CLEAR:
		f->status = 0;
		break;
	case CMD_STATUS:
	case CMD_ID:
		flash_show(f, v);
		break;
	default:
		flash_show(f, CMD_ARRAY);
	}
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
	struct flash *f = opaque;
	uint64_t value = 0;

	for (unsigned i = 0; i < size && offset + i < f->size; i++) {
		uint8_t byte = f->status;

		if (f->shows == CMD_ARRAY)
			byte = f->bytes[offset + i];
		else if (f->shows == CMD_ID)
			byte = (offset + i) & 1 ? FLASH_PART : FLASH_MAKER;
		value |= (uint64_t)byte << (8 * i);
	}
	return value;
}

static void flash_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct flash *f = opaque;

	for (unsigned i = 0; i < size && offset + i < f->size; i++) {
		if (f->pending)
			flash_second(f, (uint32_t)offset + i, (uint8_t)(value >> (8 * i)));
		else
			flash_command(f, (uint8_t)(value >> (8 * i)));
	}
}

/* ------------------------------------------------------------------ life */

static void flash_reset(struct device *d)
{
	struct flash *f = (struct flash *)d;

	f->pending = 0;
	f->status = ST_READY;
	flash_show(f, CMD_ARRAY);
}

static void flash_save(struct device *d, struct state_writer *w)
{
	struct flash *f = (struct flash *)d;

	state_section_begin(w, d->name, 1);
	state_put_u8(w, f->shows);
	state_put_u8(w, f->pending);
	state_put_u8(w, f->status);
	state_put_u32(w, f->size);
	state_put_bytes(w, f->bytes, f->size);
	state_section_end(w);
}

static void flash_load(struct device *d, struct state_reader *r)
{
	struct flash *f = (struct flash *)d;
	uint8_t shows, pending, status;

	if (!state_section_enter(r, d->name, 1))
		return;
	shows = state_get_u8(r);
	pending = state_get_u8(r);
	status = state_get_u8(r);
	if ((shows != CMD_ARRAY && shows != CMD_STATUS && shows != CMD_ID) ||
		(pending && pending != CMD_PROGRAM && pending != CMD_ERASE) ||
		state_get_u32(r) != f->size)
		r->error = r->error ? r->error : -EINVAL;
	if (!r->error) {
		state_get_bytes(r, f->bytes, f->size);
		flash_store(f, 0, f->size, 0);
		f->pending = pending;
		f->status = status;
		flash_show(f, shows);
	}
	state_section_leave(r);
}

static void flash_destroy(struct device *d)
{
	struct flash *f = (struct flash *)d;

	bus_unmap(d->machine, &f->region);
	if (f->bytes)
		munmap(f->bytes, f->size);
	free(f);
}

static const struct device_ops flash_ops = {
	.reset = flash_reset,
	.save = flash_save,
	.load = flash_load,
	.destroy = flash_destroy,
};

int flash_open(const char *path, uint32_t *size, char why[VMM_WHY_MAX])
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK), rc = 0;
	struct stat st;

	if (fd < 0)
		return why_set(why, -errno, "--firmware vars=%.150s: %s", path, strerror(errno));
	if (fstat(fd, &st))
		st.st_size = 0;
	if (!st.st_size || !S_ISREG(st.st_mode) || st.st_size % FLASH_BLOCK ||
		st.st_size > FLASH_MAX)
		rc = why_set(why, -EINVAL,
			"--firmware vars=%.150s: a file of a multiple of 4 KiB, up to 4 MiB, would "
			"do, "
			"such as a copy of OVMF_VARS.fd",
			path);
	else if (fcntl(fd, F_OFD_SETLK, &lock))
		rc = why_set(why, -EBUSY, "--firmware vars=%.150s: in use by another guest", path);
	if (rc) {
		close(fd);
		return rc;
	}
	*size = (uint32_t)st.st_size;
	return fd;
}

int flash_create(struct machine *m, int fd, uint32_t size, uint64_t end, char why[VMM_WHY_MAX])
{
	struct flash *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return why_set(why, -ENOMEM, "--firmware: no memory");
	f->fd = fd;
	f->size = size;
	f->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f->bytes == MAP_FAILED)
		f->bytes = NULL;
	device_add(m, &f->device, &flash_ops, "flash");
	if (!f->bytes)
		return why_set(why, -ENOMEM, "--firmware: no memory");
	rc = boot_pread(fd, f->bytes, size);
	if (rc)
		return why_set(
			why, rc, "--firmware: the variables cannot be read: %s", strerror(-rc));
	f->region = (struct bus_region){
		.base = end - size,
		.size = size,
		.kind = BUS_MMIO,
		.read = flash_read,
		.write = flash_write,
		.opaque = f,
		.lock = &f->device.lock,
		.counters = &f->device.counters,
	};
	rc = bus_map(m, &f->region);
	if (rc)
		return why_set(why, rc, "--firmware: flash: %s", strerror(-rc));
	flash_reset(&f->device);
	return 0;
}
