#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run: boots of different machines, and the ways they end. boot.sh INITRAMFS
. tests/linux/host.bash
initramfs=$1

# boot NAME KERNEL CPUS MIB END OPTION...: prints the guest's lines with NAME before each case
boot() {
	local name=$1 kernel=$2 cpus=$3 mib=$4 end=$5
	shift 5
	timeout 120 build/sluice run --kernel "$LAB_KERNEL/$kernel" --initrd "$initramfs" --memory="${mib}M" --cpus "$cpus" \
		--cmdline "console=ttyS0 quiet panic=-1 cpus=$cpus mib=$mib end=$end" "$@" >"$T/out" 2>&1 </dev/null
	status=$?
	sed -n "s/\r*$//; s/^\(PASS\|FAIL\) /\1 $name: /p" "$T/out"
	same "$name: status" $status 0
	[ $status = 0 ] || tail -n 3 "$T/out"
}
# said NAME TEXT: the monitor's last words
said() {
	if grep -q "^sluice: .*$2" "$T/out"; then echo "PASS $1"; else echo "FAIL $1: $(tail -n 3 "$T/out" | tr '\r\n' '  ')"; fi
}

boot "bzImage, 1 processor, 512 MiB" vmlinuz 1 512 off
said "poweroff is reported" "powered off"
boot "ELF, 2 processors, 1 GiB" vmlinux 2 1024 reboot --no-reboot
said "reboot is reported" "asked for a reset"
boot "ELF, 4 processors, 5 GiB" vmlinux 4 5120 off
boot "ELF, 1 processor, panic=-1" vmlinux 1 512 panic --no-reboot
said "a panic's reboot is reported" "asked for a reset"
if [ -n "${FULL:-}" ]; then
	boot "bzImage, 8 processors, 5 GiB" vmlinuz 8 5120 off
	boot "bzImage, 4 processors, 512 MiB" vmlinuz 4 512 off
fi
echo BOOT-DONE
