#!/usr/bin/env bash
# SeaBIOS, a boot sector, GRUB and Debian's stock kernel, from IDE and from virtio-blk.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
need_lab
initramfs=$(lab_initramfs tests/linux/init-boot virtio_pci virtio_blk build/tests/linux/cpuid)
guest_lines 500 BIOS-DONE "bash tests/linux/bios.sh $initramfs"
finish
