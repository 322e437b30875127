#!/usr/bin/env bash
# ring/ as a Linux kernel module: it builds against Debian's headers without a warning, and passes its self-test in the
# stock kernel that those headers belong to. It is never loaded into the host's own kernel.
. "$(dirname "$0")/lib.bash"
module=build/kmod/sluice_ring.ko

if ! dpkg-query -W linux-headers-amd64 >/dev/null 2>&1 && [ -z "${KDIR:-}" ]; then
	skip "build" "linux-headers-amd64 is not installed"
	exit 0
fi
before=$(git status --porcelain --ignored -- ring frontend-drivers 2>/dev/null)
if ! make kmod >"$TMP/log" 2>&1; then
	fail "build" "$(grep -m 1 -i 'error' "$TMP/log" || tail -n 1 "$TMP/log")"
	finish
fi
check "builds without a warning" eval "! grep -i 'warning:' $TMP/log"
check "nothing is written beside the sources" \
	[ "$before" = "$(git status --porcelain --ignored -- ring frontend-drivers 2>/dev/null)" ]
release=$(modinfo -F vermagic "$module" 2>/dev/null | cut -d' ' -f1)
check "licensed for the kernel" [ "$(modinfo -F license "$module")" = "Dual BSD/GPL" ]

passed='sluice_ring: self-test passed [1-9][0-9]*'
what="passes its self-test in Debian's kernel"
if [ ! -e tests/lab/lab.bash ]; then
	skip "$what" "no laboratory"
	finish
fi
. tests/lab/lab.bash
# Also where the host could run guests itself: its kernel is not the one to try modules on.
export LAB_FORCE=1
why=$(lab_reason)
if [ -n "$why" ]; then
	skip "$what" "$why"
	finish
fi
if ! lab_prepare >"$TMP/log" 2>&1; then
	fail "$what" "$(tail -n 1 "$TMP/log")"
elif [ "$release" != "$(cat "$LAB/kernel/release")" ]; then
	skip "$what" "the headers are for $release, the laboratory runs $(cat "$LAB/kernel/release"); apt-get install linux-headers-amd64"
else
	lab_run 120 "insmod $module && rmmod sluice_ring; dmesg | grep sluice_ring" >"$TMP/log" 2>&1
	if grep -q "$passed" "$TMP/log"; then
		pass "$what"
	else
		fail "$what" "$(grep -a 'self-test failed\|event index\|laboratory' "$TMP/log" | head -n 2 | tr '\n' '|')"
	fi
	what="passes it in a guest of Sluice with two processors"
	cat >"$TMP/init" <<-'END'
		#!/bin/busybox sh
		. /guest.sh
		insmod /build/kmod/sluice_ring.ko
		dmesg | grep sluice_ring
		poweroff -f
	END
	if ! initrd=$(lab_initramfs "$TMP/init" "$module") 2>"$TMP/log"; then
		fail "$what" "$(tail -n 1 "$TMP/log")"
	else
		lab_run 120 "$SLUICE run --kernel $LAB/kernel/vmlinuz --initrd $initrd --cmdline 'console=ttyS0 panic=-1 quiet' --cpus 2 --memory 256M" \
			>"$TMP/log" 2>&1 </dev/null
		if grep -q "$passed" "$TMP/log"; then
			pass "$what"
		else
			fail "$what" "$(tail -n 2 "$TMP/log" | tr '\n' '|')"
		fi
	fi
fi
finish
