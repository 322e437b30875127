#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run: disks under load, without their plug, and on hosts that fail. disks.sh CASE INITRAMFS DEBIAN
. tests/linux/host.bash
case=$1 initramfs=$2 debian=$3
engine=${4:-auto}
mounted=() mapped=() looped=()
tidy() {
	local x
	for x in "${mounted[@]}"; do umount -l "$x"; done
	for x in "${mapped[@]}"; do dmsetup --noudevsync remove --retry "$x"; done
	for x in "${looped[@]}"; do losetup -d "$x"; done
	done_with
}
trap tidy EXIT

# guest WORDS-OF-ITS-COMMAND-LINE DISK...
guest() {
	local words=$1 disk disks=()
	shift
	for disk in "$@"; do
		disks+=(--disk "$disk")
	done
	exec build/sluice run --kernel "$LAB_KERNEL/vmlinux" --initrd "$initramfs" --memory=512M --cpus 2 \
		"${disks[@]}" --cmdline "console=ttyS0 quiet panic=-1 $words" 2>&1 </dev/null
}
disk() { truncate -s "$2M" "$T/$1"; }

verify() {
	local tools status
	disk split 40 && disk packed 41 && disk ide 42
	head -c 39M /dev/urandom >"$T/discard"
	tools=$(($(stat -c %s "$debian") >> 20))
	(guest "do=verify tools=$tools last=42 io=${IO:-12M}" "path=$debian,readonly=on" \
		"path=$T/split,queues=2,engine=$engine" "path=$T/packed,ring=packed,engine=$engine" \
		"path=$T/ide,model=ide,engine=$engine" "path=$T/discard,engine=$engine")
	same "the guest powered off" $? 0
	before=$((39 * 2048))
	after=$(stat -c %b "$T/discard")
	if [ "$after" -le $((before - 16 * 2048)) ]; then
		echo "PASS discarded blocks went back to the host ($before to $after)"
	else
		echo "FAIL discarded blocks stayed ($before to $after)"
	fi
	same "discarded and zeroed ranges read as zeroes" \
		"$( (tail -c +$((4 * 1048576 + 1)) "$T/discard" | head -c 16M; tail -c +$((24 * 1048576 + 1)) "$T/discard" | head -c 8M) | tr -d '\0' | wc -c)" 0
}

# ext4 takes blocks of 4 KiB to be written whole or not at all (its superblock's checksum covers two sectors).
# plug FAULT: sets `whole` to the file systems that are whole after the plug was pulled
plug() {
	local fault=$1 pid line n
	for n in 40 41; do
		rm -f "$T/fs$n"
		disk "fs$n" $n && mke2fs -q -t ext4 -F "$T/fs$n"
	done
	mkfifo "$T/lines"
	(guest "do=plug last=41" "path=$T/fs40,fault=$fault:torn=4096:seed=$RANDOM" \
		"path=$T/fs41,model=ide,fault=$fault:torn=4096:seed=$RANDOM") >"$T/lines" &
	pid=$!
	started+=($pid)
	while read -r line; do
		case $line in
		SYNCED*) kill -KILL "$pid" ;;
		*) echo "$line" ;;
		esac
	done <"$T/lines"
	wait "$pid" 2>/dev/null
	rm "$T/lines"
	whole=""
	for n in 40 41; do
		mkdir -p "$T/mnt$n"
		if ! mount -t ext4 -o loop "$T/fs$n" "$T/mnt$n" 2>"$T/why"; then
			echo "$fault, $n MiB: $(tail -n 1 "$T/why") $(dmesg | tail -n 2)"
			continue
		fi
		mounted+=("$T/mnt$n")
		if (cd "$T/mnt$n" && [ "$(wc -l <sums)" = 6 ] && sha256sum --quiet -c sums) >"$T/why" 2>&1 &&
			umount "$T/mnt$n" && e2fsck -fn "$T/fs$n" >"$T/why" 2>&1; then
			whole="$whole $n"
		else
			echo "$fault, $n MiB: $(head -n 3 "$T/why" | tr '\n' ' ')"
			umount "$T/mnt$n" 2>/dev/null
		fi
		mounted=()
	done
}
plugs() {
	plug cache
	same "virtio-blk and IDE: synced files and file systems are whole after the plug was pulled" "$whole" " 40 41"
	plug lose-flush
	same "virtio-blk and IDE: disks that lose flushes are found out" "$whole" ""
}

flaky_table() { # NAME MIB up|down
	local table="0 $(($2 * 2048)) flakey $(cat "$T/$1.loop") 0"
	if [ "$3" = up ]; then echo "$table 3600 0"; else echo "$table 0 3600"; fi
}
flaky() { # NAME MIB: a mapped device that can be told to fail
	disk "$1" "$2"
	losetup -f --show "$T/$1" >"$T/$1.loop" || return
	looped+=("$(cat "$T/$1.loop")")
	dmsetup --noudevsync --noudevrules create "sl-$1" --table "$(flaky_table "$1" "$2" up)" || return
	mapped+=("sl-$1")
	ln -s "/dev/$(dmsetup info -c --noheadings -o blkdevname "sl-$1")" "$T/$1.dm"
}
flaky_set() {
	dmsetup --noudevsync suspend --nolockfs "sl-$1" &&
		dmsetup --noudevsync load "sl-$1" --table "$(flaky_table "$1" "$2" "$3")" &&
		dmsetup --noudevsync resume "sl-$1"
}
errors() {
	local line pid
	disk a 30 && disk b 31 && disk c 32 && disk d 33
	mkdir "$T/small" && mount -t tmpfs -o size=6M tmpfs "$T/small" || return
	mounted+=("$T/small")
	truncate -s 34M "$T/small/full"
	head -c 5M /dev/zero >"$T/small/filler"
	flaky e 35 && flaky f 36 || return
	mkfifo "$T/lines"
	(guest "do=errors last=36" "path=$T/a,fault=eio:2M+4096" "path=$T/b,fault=enospc-after:1M" \
		"path=$T/c,model=ide,fault=eio:2M+4096" "path=$T/d,model=ide,fault=enospc-after:1M" \
		"path=$T/small/full,direct=off" "path=$T/e.dm" "path=$T/f.dm,model=ide") >"$T/lines" &
	pid=$!
	started+=($pid)
	while read -r line; do
		case $line in
		SEEN-FULL*) rm "$T/small/filler" && mount -o remount,size=40M "$T/small" ;;
		SEEN-UP*) flaky_set e 35 down && flaky_set f 36 down || echo "FAIL dm-flakey" ;;
		SEEN-DOWN*) flaky_set e 35 up && flaky_set f 36 up || echo "FAIL dm-flakey" ;;
		*) echo "$line" ;;
		esac
	done <"$T/lines"
	wait "$pid"
	same "the guest powered off" $? 0
}

"$case"
echo DISKS-DONE
