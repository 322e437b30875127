/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * ring/ as a Linux kernel module: tests itself when it is loaded, and stays for frontends that want
 * its driver side.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/module.h>

#include "frontend-drivers/linux/selftest_priv.h"

EXPORT_SYMBOL_GPL(ring_size_valid);
EXPORT_SYMBOL_GPL(ring_geometry_get);
EXPORT_SYMBOL_GPL(ring_driver_init);
EXPORT_SYMBOL_GPL(ring_driver_position_set);
EXPORT_SYMBOL_GPL(ring_driver_add);
EXPORT_SYMBOL_GPL(ring_driver_free);
EXPORT_SYMBOL_GPL(ring_driver_publish);
EXPORT_SYMBOL_GPL(ring_driver_needs_doorbell);
EXPORT_SYMBOL_GPL(ring_driver_collect);
EXPORT_SYMBOL_GPL(ring_driver_has_done);
EXPORT_SYMBOL_GPL(ring_driver_interrupt_off);
EXPORT_SYMBOL_GPL(ring_driver_interrupt_on);

static int __init sluice_ring_init(void)
{
	long passed = sluice_ring_selftest();

	if (passed < 0) {
		pr_err("self-test failed (%ld)\n", passed);
		return (int)passed;
	}
	pr_info("self-test passed %ld\n", passed);
	return 0;
}

static void __exit sluice_ring_exit(void)
{
}

module_init(sluice_ring_init);
module_exit(sluice_ring_exit);

MODULE_DESCRIPTION("virtio 1.2 queues, split and packed, with a self-test");
MODULE_AUTHOR("The Sluice authors");
MODULE_LICENSE("Dual BSD/GPL");
