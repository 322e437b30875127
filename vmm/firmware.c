/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Firmware, and the memory a PC's firmware lives in: the image below 4 GiB, where the reset vector
 * is, its last 128 KiB again below 1 MiB, and the host bridge's programmable attributes (82441FX
 * data sheet, 3.2.18, PAM[6:0]) that put RAM in their place, to read, to write, or both.
 *
 * For KVM each of the 13 segments is a slot of its own: RAM, read-only RAM, the image, or nothing.
 * What a slot does not take comes here as an exit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define PAM_BASE      0xC0000u
#define PAM_SIZE      0x40000u
#define PAM_SEGMENTS  13u
#define PAM_SMALL     0x4000u
#define PAM_SYSTEM    0xF0000u
#define PAM_READ      1u
#define PAM_WRITE     2u
#define IMAGE_LOW     0xE0000u /* its last 128 KiB are here, too */
#define IMAGE_LOW_MAX 0x20000u
#define IMAGE_UNIT    0x1000u
#define IMAGE_MIN     0x10000u
#define IMAGE_MAX     0xC00000u /* with flash of 4 MiB it ends where KVM's pages are */
#define SLOT_SEGMENTS 8u

struct firmware {
	struct machine *m;
	uint8_t *image;
	uint32_t size;
	uint8_t pam[PAM_REGISTERS];
	uint8_t mode[PAM_SEGMENTS]; /* what KVM was told: PAM_READ and PAM_WRITE */
	bool mapped[PAM_SEGMENTS];
	struct bus_region region;
	pthread_mutex_t lock;
};

/* ------------------------------------------------------------------ segments */

static uint32_t segment_base(unsigned i)
{
	return i ? PAM_BASE + (i - 1) * PAM_SMALL : PAM_SYSTEM;
}

static uint32_t segment_size(unsigned i)
{
	return i ? PAM_SMALL : 0x100000u - PAM_SYSTEM;
}

/* PAM0's upper half is the system BIOS's; of the others each half is 16 KiB, from C0000h. */
static uint8_t segment_mode(const struct firmware *f, unsigned i)
{
	uint8_t reg = f->pam[(i + 1) / 2];

	return (i % 2 ? reg : reg >> 4) & (PAM_READ | PAM_WRITE);
}

static unsigned segment_of(uint64_t gpa)
{
	return gpa >= PAM_SYSTEM ? 0 : 1 + (unsigned)((gpa - PAM_BASE) / PAM_SMALL);
}

/* What lies there while RAM does not: the image; NULL: nothing. */
static uint8_t *image_at(const struct firmware *f, uint64_t gpa)
{
	uint64_t back = 0x100000 - gpa;

	return gpa >= IMAGE_LOW && back <= f->size ? f->image + f->size - back : NULL;
}

static int slot_set(struct firmware *f, unsigned slot, uint64_t gpa, uint64_t size, uint8_t *host,
	bool readonly)
{
	struct kvm_slot s = {slot, gpa, size, host, readonly};

	return f->m->vm_fd < 0 ? 0 : kvm_slot_set(f->m, &s);
}

static int segment_map(struct firmware *f, unsigned i)
{
	uint32_t base = segment_base(i), size = segment_size(i);
	uint8_t mode = segment_mode(f, i);
	uint8_t *host = mode & PAM_READ ? f->m->memory + base : image_at(f, base);
	int rc = 0;

	if (f->mapped[i] && f->mode[i] == mode)
		return 0;
	if (f->mapped[i])
		rc = slot_set(f, SLOT_SEGMENTS + i, base, 0, NULL, false);
	f->mapped[i] = false;
	if (!rc && host)
		rc = slot_set(
			f, SLOT_SEGMENTS + i, base, size, host, mode != (PAM_READ | PAM_WRITE));
	f->mapped[i] = !rc && host;
	f->mode[i] = mode;
	return rc;
}

/* What no slot answers. */
static uint64_t segment_read(void *opaque, uint64_t offset, unsigned size)
{
	struct firmware *f = opaque;
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++) {
		uint64_t gpa = PAM_BASE + offset + i;
		uint8_t mode = segment_mode(f, segment_of(gpa));
		const uint8_t *at = mode & PAM_READ ? f->m->memory + gpa : image_at(f, gpa);

		value |= (uint64_t)(at ? *at : 0xff) << (8 * i);
	}
	return value;
}

static void segment_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct firmware *f = opaque;

	for (unsigned i = 0; i < size; i++) {
		uint64_t gpa = PAM_BASE + offset + i;

		if (!(segment_mode(f, segment_of(gpa)) & PAM_WRITE))
			continue;
		f->m->memory[gpa] = value >> (8 * i);
		ring_mem_dirty(&f->m->mem, f->m->memory + gpa, 1);
	}
}

int firmware_pam_set(struct machine *m, const uint8_t pam[PAM_REGISTERS])
{
	struct firmware *f = m->firmware;
	int rc = 0;

	if (!f)
		return 0;
	pthread_mutex_lock(&f->lock);
	memcpy(f->pam, pam, sizeof(f->pam));
	for (unsigned i = 0; i < PAM_SEGMENTS && !rc; i++)
		rc = segment_map(f, i);
	pthread_mutex_unlock(&f->lock);
	if (rc)
		machine_fail(m, "memory below 1 MiB: KVM refuses it: %s", strerror(-rc));
	return rc;
}

/* ------------------------------------------------------------------ the image */

int firmware_size_check(uint64_t size, const char *path, char why[VMM_WHY_MAX])
{
	if (size >= IMAGE_MIN && size % IMAGE_UNIT == 0 && size <= IMAGE_MAX)
		return 0;
	return why_set(why, -EINVAL,
		"--firmware %.150s: %llu bytes; an image of 64 KiB to 12 MiB, a multiple of 4 KiB, "
		"would do",
		path, (unsigned long long)size);
}

int firmware_create(struct machine *m, char why[VMM_WHY_MAX])
{
	struct firmware *f;
	struct stat st;
	uint32_t size;
	int rc;

	if (m->firmware_fd < 0)
		return 0;
	if (fstat(m->firmware_fd, &st))
		return why_set(why, -errno, "--firmware: %s", strerror(errno));
	rc = firmware_size_check(st.st_size, m->firmware_path, why);
	if (rc)
		return rc;
	f = calloc(1, sizeof(*f));
	if (!f)
		return why_set(why, -ENOMEM, "--firmware: no memory");
	f->m = m;
	f->size = (uint32_t)st.st_size;
	pthread_mutex_init(&f->lock, NULL);
	f->image = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m->firmware = f;
	if (f->image == MAP_FAILED) {
		f->image = NULL;
		return why_set(why, -ENOMEM, "--firmware: no memory");
	}
	rc = boot_pread(m->firmware_fd, f->image, f->size);
	if (rc)
		return why_set(why, rc, "--firmware %.150s: cannot be read: %s", m->firmware_path,
			strerror(-rc));
	f->region = (struct bus_region){
		.base = PAM_BASE,
		.size = PAM_SIZE,
		.kind = BUS_MMIO,
		.read = segment_read,
		.write = segment_write,
		.opaque = f,
		.lock = &f->lock,
	};
	rc = bus_map(m, &f->region);
	if (!rc)
		rc = slot_set(
			f, KVM_SLOT_FIRMWARE, 0x100000000ull - f->size, f->size, f->image, true);
	if (rc)
		return why_set(
			why, rc, "--firmware: KVM refuses read-only memory: %s", strerror(-rc));
	if (!m->cfg.firmware_vars)
		return 0;
	rc = flash_open(m->cfg.firmware_vars, &size, why);
	if (rc < 0)
		return rc;
	m->vars_fd = rc;
	return flash_create(m, m->vars_fd, size, 0x100000000ull - f->size, why);
}

void firmware_destroy(struct machine *m)
{
	struct firmware *f = m->firmware;

	if (!f)
		return;
	bus_unmap(m, &f->region);
	if (f->image)
		munmap(f->image, f->size);
	pthread_mutex_destroy(&f->lock);
	free(f);
	m->firmware = NULL;
}
