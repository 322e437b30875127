/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include "blk/qcow2_priv.h"
int qcow2_repair(struct qcow2 *q, char *why)
{
	blk_why(why,
		"%s: marked dirty (its refcounts may be wrong); `qemu-img check -r all`, or use "
		"readonly=on",
		q->name);
	return -EIO;
}
