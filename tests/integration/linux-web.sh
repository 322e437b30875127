#!/usr/bin/env bash
# Debian's nginx in a guest serves a page, byte for byte, over its split card and over its emulated one, and goes on under
# load: what `make demo-linux` shows, with less of it.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
. tests/lab/debian.bash
need_lab
why=$(lab_debian_reason)
[ -n "$why" ] || command -v wrk >/dev/null || why="wrk is not installed"
if [ -n "$why" ]; then
	skip all "$why"
	exit 0
fi
if ! root=$(lab_debian_root 2>"$TMP/prepare") || ! initramfs=$(lab_debian_initramfs 2>"$TMP/prepare"); then
	fail "the Debian root disk can be made" "$(tail -n 1 "$TMP/prepare")"
	finish
fi
seconds=$([ -n "${FULL:-}" ] && echo 10 || echo 2)
guest_lines 300 DEMO-DONE "bash tests/linux/demo.sh $initramfs $root $seconds"
check "both cards answered under load" grep -q '^= requests a second: .*ratio' "$TMP/lines"
finish
