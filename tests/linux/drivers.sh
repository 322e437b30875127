#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run (see tests/lab): one guest with one of everything. drivers.sh INITRAMFS
# shellcheck disable=SC2086
. tests/linux/host.bash
initramfs=$1

head -c 48M /dev/urandom >"$T/virtio_blk"
head -c 16M /dev/urandom >"$T/ata_piix"
mkdir "$T/www" "$T/cd"
head -c 3M /dev/urandom >"$T/cd/file"
xorriso -as mkisofs -quiet -R -o "$T/cd.iso" "$T/cd" 2>/dev/null
head -c 16M /dev/urandom >"$T/www/big"
head -c 4M /dev/urandom >"$T/www/middle"
head -c 8K /dev/urandom >"$T/www/small"
for n in 1 2 3 4; do
	ip tuntap add "sl$n" mode tap && ip addr add "10.1.$n.1/24" dev "sl$n" && ip link set "sl$n" up
done
"$BUSYBOX" httpd -f -p 8080 -h "$T/www" &
started+=($!)
iperf3 -s >/dev/null 2>&1 &
started+=($!)
socat UNIX-LISTEN:"$T/vsock_1234" SYSTEM:'read x; [ "$x" = question ] && echo answer' &
started+=($!)

sum() { sha256sum "$1" | cut -d' ' -f1; }
# The guest says which files it has for the host; they are fetched while it runs.
mkfifo "$T/lines"
timeout 200 build/sluice run --kernel "$LAB_KERNEL/vmlinux" --initrd "$initramfs" --memory=512M --cpus 2 \
	--disk "path=$T/virtio_blk,model=virtio-blk" --disk "path=$T/ata_piix,model=ide" \
	--net tap=sl1,model=virtio-net --net tap=sl2,model=e1000 --net tap=sl3,model=ne2k_pci \
	--net tap=sl4,model=rtl8139 --disk "path=$T/cd.iso,model=ide-cd" \
	--hvc "file=$T/hvc" --rng --balloon size=64M,deflate-on-oom=off --vsock "cid=3,socket=$T/vsock" \
	--cmdline "console=ttyS0 quiet panic=-1 kib=468000 now=$(date +%s) virtio_blk=$(sum "$T/virtio_blk") \
ata_piix=$(sum "$T/ata_piix") big=$(sum "$T/www/big") middle=$(sum "$T/www/middle") small=$(sum "$T/www/small") cd=$(sum "$T/cd/file")" \
	>"$T/lines" 2>&1 </dev/null &
guest=$!
while read -r line; do
	line=${line%$'\r'}
	case $line in
	FETCH*)
		read -r _ card n want <<<"$line"
		curl -sS -m 60 -o "$T/fetched" "http://10.1.$n.2:8080/out$n"
		same "$card: to the host by TCP" "$(sum "$T/fetched")" "$want"
		: >"$T/www/fetched$n"
		;;
	WROTE*)
		read -r _ disk want <<<"$line"
		wrote[$((++wrotes))]="$disk $want"
		;;
	*) echo "$line" ;;
	esac
done <"$T/lines"
wait $guest
same "the guest powered off" $? 0
for w in "${wrote[@]}"; do
	size=$(stat -c %s "$T/${w% *}")
	same "${w% *}: what the guest wrote is in the image" "$(tail -c $((size / 2)) "$T/${w% *}" | sha256sum | cut -d' ' -f1)" "${w#* }"
done
same "both disks were written" "${#wrote[@]}" 2
same "virtio_console: 2000 lines" "$(tr -d '\r' <"$T/hvc" | sha256sum)" "$(seq 1 2000 | sha256sum)"
