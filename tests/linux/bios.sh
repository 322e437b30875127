#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where real mode runs: SeaBIOS starts a boot sector and GRUB, which starts Linux, from an IDE disk and from the same disk
# as virtio-blk. bios.sh INITRAMFS
. tests/linux/host.bash
initramfs=$1
bios=/usr/share/seabios/bios-256k.bin

# said NAME TEXT FILE
said() {
	if grep -qa "$2" "$3"; then echo "PASS $1"; else echo "FAIL $1: $(tail -n 2 "$3" | tr '\r\n' '  ')"; fi
}
# start NAME OPTION...: to $T/out, what the firmware has to say to $T/log
start() {
	local name=$1
	shift
	timeout 120 build/sluice run --firmware $bios --firmware-log "$T/log" "$@" >"$T/out" 2>&1 </dev/null
	same "$name: status" $? 0
}

truncate -s 16M "$T/sector"
dd if=build/tests/linux/sector of="$T/sector" conv=notrunc status=none
for model in ide virtio-blk; do
	start "boot sector, $model" --disk "path=$T/sector,model=$model"
	said "boot sector, $model: it ran" "BOOT SECTOR, LIFE 1" "$T/out"
	said "boot sector, $model: reset by 0xCF9" "BOOT SECTOR, LIFE 2" "$T/out"
	said "boot sector, $model: reset by the keyboard controller" "BOOT SECTOR, LIFE 3" "$T/out"
	said "boot sector, $model: reset by a triple fault" "BOOT SECTOR, LIFE 4" "$T/out"
	said "boot sector, $model: powered off" "powered off" "$T/out"
done
said "the tables by the table loader" "via xsdt" "$T/log"
truncate -s 1M "$T/empty"
timeout 20 build/sluice run --firmware $bios --disk "path=$T/empty,model=ide" >"$T/out" 2>&1 </dev/null
said "a disk without a boot sector: the firmware says so" "not a bootable disk" "$T/out"

# A disk with GRUB ahead of one partition, put together without mounting anything.
mkdir "$T/files"
cp "$LAB_KERNEL/vmlinuz" "$T/files/vmlinuz"
cp "$initramfs" "$T/files/initrd"
cat >"$T/grub.cfg" <<END
linux (hd0,msdos1)/vmlinuz console=ttyS0 quiet panic=-1 cpus=2 mib=1024 end=off by=114 xsetbv=lost
initrd (hd0,msdos1)/initrd
boot
END
mib=$((($(du -sk "$T/files" | cut -f 1) >> 10) + 16))
mkfs.ext2 -q -d "$T/files" "$T/part" "${mib}M" || exit 1
grub-mkimage -O i386-pc -o "$T/core" -c "$T/grub.cfg" -p '(hd0,msdos1)/' biosdisk part_msdos ext2 linux || exit 1
cp /usr/lib/grub/i386-pc/boot.img "$T/grub"
# one active partition of type 83h, from sector 2048; there is code for floppies where the table goes
dd if=/dev/zero of="$T/grub" bs=1 seek=446 count=64 conv=notrunc status=none
printf '\x80\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00' | dd of="$T/grub" bs=1 seek=446 conv=notrunc status=none
perl -e 'print pack("L", shift)' $((mib * 2048)) | dd of="$T/grub" bs=1 seek=458 conv=notrunc status=none
dd if="$T/core" of="$T/grub" bs=512 seek=1 conv=notrunc status=none
dd if="$T/part" of="$T/grub" bs=1M seek=1 conv=notrunc status=none
for model in ide virtio-blk; do
	start "GRUB, $model" --cpus 2 --memory 1G --disk "path=$T/grub,model=$model,ro=on"
	sed -n "s/\r*$//; s/^\(PASS\|FAIL\) /\1 GRUB, $model: /p" "$T/out"
	said "GRUB, $model: powered off" "powered off" "$T/out"
done
echo BIOS-DONE
