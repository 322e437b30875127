/* SPDX-License-Identifier: BSD-2-Clause */
/* What the fuzz targets of the machine's own devices share: the machine in the middle of an input.
 */
#ifndef FUZZ_MACHINE_RIG_H
#define FUZZ_MACHINE_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define FUZZ_IMAGE  0x10000u
#define FUZZ_MEMORY (2u << 20)

/* As for the next input. */
static inline void fuzz_machine_again(struct machine *m)
{
	char why[VMM_WHY_MAX];

	if (machine_reset(m, why) || machine_resume(m))
		abort();
}

/* One that firmware starts, an image of zeros; made once, and again as for the next input. */
static inline struct machine *fuzz_firmware_machine(void)
{
	static struct machine *m;
	struct machine_config cfg;
	char why[VMM_WHY_MAX], path[32];
	int fd;

	if (m) {
		fuzz_machine_again(m);
		return m;
	}
	fd = memfd_create("image", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, FUZZ_IMAGE))
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = FUZZ_MEMORY;
	cfg.firmware = path;
	if (machine_create(&m, &cfg, why))
		abort();
	close(fd);
	return m;
}

/* Whatever the guest did, what is saved can be loaded. */
static inline void fuzz_save_load(struct machine *m)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];

	machine_pause(m);
	if (machine_save(m, &w))
		abort();
	state_reader_init(&r, w.data, w.len);
	if (machine_load(m, &r, why))
		abort();
	machine_resume(m);
	state_writer_free(&w);
}

#endif
