/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost-user back-end as a front-end meets it: a disk over a socket. */
#include "tests/unit/test_vhost_rig.h"

static void test_transfer(void)
{
	for (unsigned bits = 0; bits < 8; bits++) {
		struct fe f;

		fe_open(&f, bits & 4 ? 3 : 1, bits & 2, bits & 2 ? 100 : 0);
		f.packed = bits & 1;
		fe_start(&f, bits & 4 ? 16 : 64);
		disk_transfer(&f.d, 300, NULL);
		fe_close(&f);
	}
}

static const struct unit_case cases[] = {
	{"reads and writes over a socket, split and packed, several queues", test_transfer},
};

UNIT_MAIN("vhost_server", cases)
