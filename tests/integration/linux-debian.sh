#!/usr/bin/env bash
# Debian as its mirror has it, on an ext4 root disk: boots to a login on the console from virtio-blk and from IDE, loses its
# plug while it writes, and has everything that was synced when it starts again.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
. tests/lab/debian.bash
need_lab
why=$(lab_debian_reason)
if [ -n "$why" ]; then
	skip all "$why"
	exit 0
fi
if ! root=$(lab_debian_root 2>"$TMP/prepare") || ! initramfs=$(lab_debian_initramfs 2>"$TMP/prepare"); then
	fail "the Debian root disk can be made" "$(tail -n 1 "$TMP/prepare")"
	finish
fi

# Two machines of two kinds, side by side: the laboratory has one processor.
kinds="virtio-blk:raw ide:raw"
[ -z "${FULL:-}" ] || kinds="$kinds virtio-blk:qcow2 ide:qcow2"
for kind in $kinds; do
	guest_lines_to "$TMP/${kind/:/-}" 400 "bash tests/linux/debian.sh ${kind%:*} $root $initramfs ${kind#*:}" &
	children+=("$!")
	[ "$kind" != ide:raw ] || wait
done
wait
for kind in $kinds; do
	guest_lines_from "$TMP/${kind/:/-}" DEBIAN-DONE "$kind"
done
finish
