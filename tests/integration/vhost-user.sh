#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Disks that a process of their own serves: ours, which is killed under load and started again, and qemu-storage-daemon.
. "$(dirname "$0")/lib.bash"
need_kvm
BLKD=build/sluice-blkd
SOCKET=$TMP/disk.sock

# serve: starts sluice-blkd on the image and waits for its socket
serve() {
	"$BLKD" --export "socket=$SOCKET,path=$TMP/disk${1:-}" >>"$TMP/blkd" 2>&1 &
	server=$!
	children+=("$server")
}
# listens: there is somebody at the socket
listens() {
	for _ in $(seq 200); do
		[ -S "$SOCKET" ] && return
		sleep 0.05
	done
	return 1
}
run() { timeout 90 "$SLUICE" run --kernel "$GUEST" --cmdline "$1" --disk "vhost-user=$SOCKET${2:-}" >"$TMP/out" 2>"$TMP/err" </dev/null; }
# good CASE: the guest did its work, and every block was what it had to be
good() {
	if grep -q 'SLUICE-DONE failed=0' "$TMP/out" && [ "$(field "$TMP/out" 0 errors)" = 0 ] && [ "$(field "$TMP/out" 0 requests)" -gt 100 ]; then
		pass "$1 ($(field "$TMP/out" 0 requests) requests)"
	else
		fail "$1" "$(grep -hv HIST "$TMP/out" "$TMP/err" | tail -n 2 | tr '\r\n' '  ')"
	fi
}

image "$TMP/disk" 32M
serve && listens || fail "sluice-blkd listens" "$(tail -n 1 "$TMP/blkd")"
check "its socket is its owner's alone" [ "$(stat -c %a "$SOCKET")" = 600 ]
for ring in split packed; do
	run "job=blk,dev=virtio-blk,work=randread,size=4096,depth=32,ms=400" ",ring=$ring"
	good "sluice-blkd, $ring ring: what is read is right"
done

# killed_twice NAME RING SERVE: in mid-work; what was acknowledged and flushed is there, each request has an answer
job=size=4096,depth=16,every=32,span=8M
killed_twice() {
	local guest line kills=0
	mkfifo "$TMP/said"
	(
		exec timeout 90 "$SLUICE" run --kernel "$GUEST" --cmdline "job=blk,dev=virtio-blk,work=flushwrite,$job,round=400" \
			--disk "vhost-user=$SOCKET,ring=$2" 2>"$TMP/err" </dev/null
	) >"$TMP/said" &
	guest=$!
	children+=("$guest")
	: >"$TMP/out"
	while read -r line; do
		line=${line%$'\r'}
		echo "$line" >>"$TMP/out"
		case $line in
		"SLUICE-FLUSHED job=0 round=20" | "SLUICE-FLUSHED job=0 round=90")
			kill -KILL "$server"
			wait "$server" 2>/dev/null
			kills=$((kills + 1))
			"$3"
			;;
		esac
	done <"$TMP/said"
	wait "$guest"
	rm "$TMP/said"
	good "$1, $2 ring, killed under load: the guest goes on"
	check "$1, $2 ring: killed twice, lost and found" [ "$kills/$(grep -c 'back-end found again' "$TMP/err")" = 2/2 ]
	run "job=blk,dev=virtio-blk,work=flushverify,$job,round=400"
	good "$1, $2 ring, killed under load: nothing is lost"
	check "$1, $2 ring: no block of the wrong round" [ "$(field "$TMP/out" 0 lost)" = 0 ]
}
killed_twice sluice-blkd split serve
killed_twice sluice-blkd packed serve
kill "$server"
wait "$server"
check "it was started five times" [ "$(grep -c '^sluice-blkd: ready' "$TMP/blkd")" = 5 ]
check "sluice-blkd ends with status 0 when asked to" [ $? = 0 ]
check "and takes its socket with it" [ ! -e "$SOCKET" ]

run "job=idle,ms=1"
status=$?
check "nobody there: status 1" [ $status = 1 ]
check "nobody there: one line" [ "$(wc -l <"$TMP/err")" = 1 ]

# It keeps no record of what is in flight: that is given to it again.
serve_qemu() {
	rm -f "$SOCKET"
	qemu-storage-daemon --blockdev "driver=file,node-name=f,filename=$TMP/disk" \
		--export "type=vhost-user-blk,id=e,addr.type=unix,addr.path=$SOCKET,node-name=f,writable=on" >>"$TMP/qsd" 2>&1 &
	server=$!
	children+=("$server")
}
if command -v qemu-storage-daemon >/dev/null; then
	serve_qemu
	listens
	run "job=blk,dev=virtio-blk,work=randread,size=4096,depth=32,ms=400"
	good "qemu-storage-daemon: what is read is right"
	run "job=blk,dev=virtio-blk,work=flushwrite,$job,round=40"
	good "qemu-storage-daemon: writes and flushes"
	run "job=blk,dev=virtio-blk,work=flushverify,$job,round=40"
	good "qemu-storage-daemon: what was written is there"
	killed_twice qemu-storage-daemon split serve_qemu
	kill "$server"
	wait "$server"
else
	skip "qemu-storage-daemon" "it is not installed (apt-get install qemu-utils)"
fi
finish
