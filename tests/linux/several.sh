#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run: three guests at once. One's kernel panics, one's monitor is killed, and the third's transfer
# and file system are looked at. several.sh INITRAMFS
. tests/linux/host.bash
initramfs=$1
MIB=24

ip tuntap add sl1 mode tap && ip addr add 10.4.1.1/24 dev sl1 && ip link set sl1 up
head -c ${MIB}M /dev/urandom >"$T/data"
sum=$(sha256sum "$T/data" | cut -d' ' -f1)
mkdir "$T/www"
"$BUSYBOX" httpd -f -p 10.4.1.1:8080 -h "$T/www" &
started+=($!)
# half of the data at once, the rest when all is over
mkfifo "$T/over"
cat >"$T/serve" <<-SERVE
	while read -r line && [ -n "\${line%?}" ]; do :; done
	printf 'HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n' $((MIB << 20))
	head -c $((MIB << 19)) "$T/data"
	read -r _ <"$T/over"
	tail -c $((MIB << 19)) "$T/data"
SERVE
socat TCP-LISTEN:8081,bind=10.4.1.1,reuseaddr SYSTEM:"bash $T/serve" &
started+=($!)

# guest ROLE OPTION...
guest() {
	local role=$1
	shift
	truncate -s 32M "$T/$role.img"
	mke2fs -q -t ext4 -F "$T/$role.img"
	exec build/sluice run --kernel "$LAB_KERNEL/vmlinux" --initrd "$initramfs" --memory=256M --disk "path=$T/$role.img" \
		--cmdline "console=ttyS0 quiet panic=-1 role=$role sum=$sum" "$@" 2>&1
}
# hear ROLE REGEX: reads its console until a line matches; what it says beside is passed on
hear() {
	local line
	while read -rt 120 line <&"${console[$1]}"; do
		line=${line%$'\r'}
		[[ $line =~ $2 ]] && return
		case $line in PASS* | FAIL*) echo "$line" ;; esac
	done
	echo "FAIL $1 never said $2"
}
declare -A console pid
for role in crash victim worker; do
	options=()
	[ $role != worker ] || options=(--net tap=sl1)
	[ $role != victim ] || options=(--net tap=sl2)
	[ $role != crash ] || options=(--no-reboot)
	mkfifo "$T/$role.out" "$T/$role.in"
	exec {typed}<>"$T/$role.in"
	declare "typed_$role=$typed"
	(guest $role "${options[@]}" <"$T/$role.in" >"$T/$role.out") &
	pid[$role]=$!
	started+=($!)
	exec {fd}<"$T/$role.out"
	console[$role]=$fd
done
hear crash READY
hear victim READY
hear worker WORKING
if ip link show sl2 >/dev/null 2>&1; then echo "PASS the victim's tap is there"; else echo "FAIL the victim's tap"; fi
before=$(sha256sum <"$T/data")

echo >&"$typed_crash"
hear crash "asked for a reset"
wait "${pid[crash]}"
same "the crashed guest's monitor reports it and ends well" $? 0
kill -KILL "${pid[victim]}"
wait "${pid[victim]}" 2>/dev/null
same "the victim's monitor was killed" $? 137
if ip link show sl2 >/dev/null 2>&1; then echo "FAIL the killed monitor's tap stays"; else echo "PASS the killed monitor's tap is gone"; fi
(guest again --disk "path=$T/victim.img" </dev/null) >"$T/again"
same "another guest takes the victim's image over at once" $? 0

: >"$T/www/gone"
echo >"$T/over"
hear worker "powered off"
wait "${pid[worker]}"
same "the worker powered off" $? 0
mkdir "$T/mnt"
e2fsck -fn "$T/worker.img" >"$T/fsck" 2>&1
same "the worker's file system is clean" $? 0
mount -o loop,ro "$T/worker.img" "$T/mnt"
(cd "$T/mnt" && sha256sum --quiet -c sums) >/dev/null 2>&1
same "the worker's files are whole" $? 0
umount "$T/mnt"
same "the host's data was not touched" "$(sha256sum <"$T/data")" "$before"
echo SEVERAL-DONE
