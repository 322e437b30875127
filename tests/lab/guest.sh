# SPDX-License-Identifier: BSD-2-Clause
# What the guests' init scripts share (busybox sh): . /guest.sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t tmpfs tmp /tmp
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -onlcr 2>/dev/null

# All modules that were taken along, in the order that they need
load_all() {
	local m
	for m in $(cat /modules/order); do
		insmod "/modules/$m" || echo "FAIL module $m does not load"
	done
}
# ok CASE COMMAND...: one line for each case
ok() {
	local what=$1
	shift
	if "$@"; then echo "PASS $what"; else echo "FAIL $what"; fi
}
# same CASE HAVE WANT
same() { if [ "$2" = "$3" ]; then echo "PASS $1"; else echo "FAIL $1 ($2, not $3)"; fi; }
# The value of name=VALUE on the kernel's command line
option() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
	local n=$(($1 * 10))
	shift
	until "$@" >/dev/null 2>&1; do
		n=$((n - 1))
		[ $n -gt 0 ] || return 1
		usleep 100000
	done
}
sum() { sha256sum "$@" | cut -d' ' -f1; }
