# SPDX-License-Identifier: BSD-2-Clause
# What the host's halves of these tests share: they run in the laboratory, or in a network namespace of
# their own on a host that runs stock kernels. Lines begin with PASS or FAIL.
BUSYBOX=build/lab/busybox/bin/busybox
T=$(mktemp -d /tmp/linux.XXXXXX)
started=()
done_with() {
	[ ${#started[@]} = 0 ] || kill "${started[@]}" 2>/dev/null
	rm -rf "$T"
}
trap done_with EXIT
same() { if [ "$2" = "$3" ]; then echo "PASS $1"; else echo "FAIL $1 ($2, not $3)"; fi; }
