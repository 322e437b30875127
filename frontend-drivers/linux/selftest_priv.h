/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Between the files of the module. */
#ifndef SLUICE_SELFTEST_PRIV_H
#define SLUICE_SELFTEST_PRIV_H

#include "ring/ring.h"

/* Driver against device in this kernel's memory. How many requests went through and were right, or
 * -errno after a line in the log that says what was wrong. Process context; sleeps. */
long sluice_ring_selftest(void);

#endif
