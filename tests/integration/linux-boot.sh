#!/usr/bin/env bash
# Debian's stock kernel boots on 1 to 8 processors, below and above 4 GiB, as templates say, and ends in every way.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
need_lab
initramfs=$(lab_initramfs tests/linux/init-boot virtio_pci virtio_blk build/tests/linux/cpuid)
guest_lines "$([ -n "${FULL:-}" ] && echo 2000 || echo 500)" BOOT-DONE "bash tests/linux/boot.sh $initramfs"
finish
