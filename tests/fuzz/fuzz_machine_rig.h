/* SPDX-License-Identifier: BSD-2-Clause */
/* What the fuzz targets of the machine's own devices share: the machine in the middle of an input.
 */
#ifndef FUZZ_MACHINE_RIG_H
#define FUZZ_MACHINE_RIG_H

#include <stdlib.h>

#include "vmm/vmm.h"

/* As for the next input. */
static inline void fuzz_machine_again(struct machine *m)
{
	char why[VMM_WHY_MAX];

	if (machine_reset(m, why) || machine_resume(m))
		abort();
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
