#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run: boots of different machines, and the ways they end. boot.sh INITRAMFS
. tests/linux/host.bash
initramfs=$1
# The emulated machine of the laboratory loses XSETBV: tests/lab/README.md
xsetbv=
! grep -q 'QEMU TCG' /proc/cpuinfo || xsetbv=" xsetbv=lost"

# boot NAME KERNEL CPUS MIB END OPTION...: prints the guest's lines with NAME before each case
boot() {
	local name=$1 kernel=$LAB_KERNEL/$2 cpus=$3 mib=$4 end=$5
	local by=255
	shift 5
	[ "${kernel##*/}" != vmlinux ] || by=176
	[ "${kernel##*/}" != plain ] || kernel=$T/plain
	timeout 120 build/sluice run --kernel "$kernel" --initrd "$initramfs" --memory="${mib}M" --cpus "$cpus" \
		--cmdline "console=ttyS0 quiet panic=-1 cpus=$cpus mib=$mib end=$end by=$by$xsetbv$words" "$@" >"$T/out" 2>&1 </dev/null
	status=$?
	sed -n "s/\r*$//; s/^\(PASS\|FAIL\) /\1 $name: /p" "$T/out"
	same "$name: status" $status 0
	[ $status = 0 ] || tail -n 3 "$T/out"
}
# A vmlinux whose PVH note nobody finds: its PT_NOTE headers are of no type.
plain() {
	perl -0777 -ne 'my ($at, $n) = (unpack("x32 Q", $_), unpack("x56 S", $_));
		for my $i (1 .. $n) { substr($_, $at, 4) = pack("L", 0) if unpack("L", substr($_, $at, 4)) == 4; $at += 56 }
		print' "$LAB_KERNEL/vmlinux" >"$T/plain"
}
# said NAME TEXT: the monitor's last words
said() {
	if grep -q "^sluice: .*$2" "$T/out"; then echo "PASS $1"; else echo "FAIL $1: $(tail -n 3 "$T/out" | tr '\r\n' '  ')"; fi
}

words=" cpu=v2" boot "bzImage, 1 processor, 512 MiB, v2" vmlinuz 1 512 off --cpu v2
said "poweroff is reported" "powered off"
boot "PVH, 2 processors, 1 GiB" vmlinux 2 1024 reboot --no-reboot
said "reboot is reported" "asked for a reset"
plain
words=" cpu=v3" boot "plain ELF, 4 processors, 5 GiB, v3" plain 4 5120 off --cpu v3
truncate -s 1M "$T/disk"
boot "PVH, 1 processor, panic=-1" vmlinux 1 512 again --disk "path=$T/disk"
said "a panic's reboot is reported" "the guest reboots"
said "and the end of the life after it" "powered off"
if [ -n "${FULL:-}" ]; then
	boot "PVH, panic=-1, --no-reboot" vmlinux 1 512 panic --no-reboot
	said "PVH: a panic with --no-reboot is reported" "asked for a reset"
	for cpus in 1 2 3 4 5 6 7 8; do
		boot "bzImage, $cpus processors, 5 GiB" vmlinuz $cpus 5120 off
	done
	for cpus in 3 8; do
		words=" cpu=v3" boot "bzImage, $cpus processors, 512 MiB, v3" vmlinuz $cpus 512 off --cpu v3
	done
	words=" cpu=v2" boot "PVH, 4 processors, v2" vmlinux 4 512 off --cpu v2
fi
echo BOOT-DONE
