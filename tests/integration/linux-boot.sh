#!/usr/bin/env bash
# Debian's stock kernel boots on 1, 2 and 4 processors, below and above 4 GiB, and ends in every way.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
need_lab
guest_lines 500 BOOT-DONE "bash tests/linux/boot.sh $(lab_initramfs tests/linux/init-boot)"
finish
