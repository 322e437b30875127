#!/usr/bin/env bash
# Three stock guests side by side: one crashes, one's monitor is killed, the third notices nothing.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
need_lab
initramfs=$(lab_initramfs tests/linux/init-several virtio_pci virtio_blk virtio_net crc32c_generic ext4)
guest_lines 300 SEVERAL-DONE "bash tests/linux/several.sh $initramfs"
finish
