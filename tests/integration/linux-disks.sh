#!/usr/bin/env bash
# Stock Linux on its disks: fio deep and mixed over every kind, all verified; the plug pulled; hosts that are full or failing.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
. tests/lab/debian.bash
need_lab
why=$(lab_debian_reason)
if [ -n "$why" ]; then
	skip all "$why"
	exit 0
fi
if ! root=$(lab_debian_root 2>"$TMP/prepare") || ! initramfs=$(lab_initramfs tests/linux/init-disks virtio_pci virtio_blk \
	ata_piix ata_generic sd_mod crc32c_generic ext4 2>"$TMP/prepare"); then
	fail "the guest can be made" "$(tail -n 1 "$TMP/prepare")"
	finish
fi

run() { guest_lines_to "$TMP/$1" 500 "${3:-} bash tests/linux/disks.sh $2 $initramfs $root ${4:-}"; }
run verify verify &
children+=("$!")
run plugs plugs
run errors errors
wait
cases="verify plugs errors"
if [ -n "${FULL:-}" ]; then
	for engine in io_uring aio threads; do
		run "$engine" verify IO=64M $engine
		cases="$cases $engine"
	done
fi
for case in $cases; do
	guest_lines_from "$TMP/$case" DISKS-DONE "$case"
done
finish
