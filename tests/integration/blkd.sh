#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# sluice-blkd: its command line, and its disks under QEMU from Debian (plain emulation, a stock kernel): data both ways, and
# a back-end that is killed under load and started again, with a hostile front-end beside it.
. "$(dirname "$0")/lib.bash"
. tests/lab/lab.bash
BLKD=build/sluice-blkd

# ------------------------------------------------------------------ the command line

truncate -s 4M "$TMP/disk.img"

# bad CASE STATUS PATTERN ARGUMENTS...: one line on standard error, nothing on standard output
bad() {
	local what=$1 want=$2 pattern=$3 got
	shift 3
	timeout 20 "$BLKD" "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
	got=$?
	if [ $got != "$want" ] || [ "$(wc -l <"$TMP/err")" != 1 ] || [ -s "$TMP/out" ] ||
		! grep -qE -- "^sluice-blkd: .*$pattern" "$TMP/err"; then
		fail "$what" "status $got: $(head -n 2 "$TMP/err" | tr '\n' '|')"
	else
		pass "$what"
	fi
}

good=socket=$TMP/s,path=$TMP/disk.img
bad "nothing to do" 2 "--export: missing; give"
bad "unknown option" 2 "--colour: unknown option" --colour
bad "an option without its value" 2 "--export: a value is missing" --export
bad "a flag with a value" 2 "--no-io-uring: takes no value" --no-io-uring=on
bad "an option twice" 2 "--poll-us: given twice" --poll-us 1 --poll-us 2
bad "a number out of range" 2 "--io-threads 17: .*1 to 16" --io-threads 17
bad "an unknown key" 2 "--export colour: unknown key; use socket" --export "$good,colour=red"
bad "a key without value" 2 "--export path=: write KEY=VALUE" --export "socket=$TMP/s,path="
bad "a key twice" 2 "--export queues: given twice" --export "$good,queues=1,queues=2"
bad "no socket" 2 "give socket=PATH or listen-fd=N" --export "path=$TMP/disk.img"
bad "no image" 2 "give path=FILE or fd=N" --export "socket=$TMP/s"
bad "an unknown format" 2 "format=vmdk: use raw, qcow2 or auto" --export "$good,format=vmdk"
bad "an unknown engine" 2 "engine=fast: use io_uring" --export "$good,engine=fast"
bad "an unknown mode" 2 "mode=call: use listen or connect" --export "$good,mode=call"
bad "a queue size that is no power of two" 2 "queue-size=100: use a power of two" --export "$good,queue-size=100"
bad "a fault that is none" 2 "--export .*fault" --export "$good,fault=fire"
bad "an image that is missing" 2 "$TMP/none: no such file" --export "socket=$TMP/s,path=$TMP/none"
bad "a socket in a folder that is missing" 2 "socket=$TMP/no/s: " --export "socket=$TMP/no/s,path=$TMP/disk.img"
bad "a socket's path that is a file" 2 "exists and is no socket" --export "socket=$TMP/disk.img,path=$TMP/disk.img"
bad "a descriptor that is no socket" 2 "fd 0: not a listening socket" --export "listen-fd=0,path=$TMP/disk.img"
check "--version" sh -c '"$1" --version | grep -q "^sluice-blkd [0-9]"' sh "$BLKD"
check "--help fits a terminal" sh -c '"$1" --help | awk "length > 80 { exit 1 }"' sh "$BLKD"

# ------------------------------------------------------------------ its life

# wait_line FILE PATTERN: until it is there
wait_line() {
	local n=0
	until grep -qE -- "$2" "$1" 2>/dev/null; do
		n=$((n + 1))
		[ $n -lt 400 ] || return 1
		sleep 0.05
	done
}

# start NAME ARGUMENTS...: sluice-blkd, ready; $blkd is its process
start() {
	local log=$TMP/$1.log
	shift
	: >"$log"
	"$BLKD" "$@" 2>"$log" </dev/null &
	blkd=$!
	children+=("$blkd")
	wait_line "$log" "^sluice-blkd: ready"
}

start life --export "$good" --control "$TMP/control" --pidfile "$TMP/pid"
check "the socket is nobody else's" [ "$(stat -c %a "$TMP/s")" = 600 ]
check "the pid file says who it is" [ "$(cat "$TMP/pid")" = "$blkd" ]
check "GET /exports" sh -c 'curl -sS --unix-socket "$1/control" http://x/exports/0 | jq -e ".size == 4194304" >/dev/null' sh "$TMP"
check "GET /metrics" sh -c 'curl -sS --unix-socket "$1/control" http://x/metrics | grep -q "^sluice_blkd_connected{export=\"0\"} 0"' sh "$TMP"
bad "a socket that is in use" 1 "in use by another process" --export "socket=$TMP/s,path=$TMP/disk.img,readonly=on,claim-wait=0"
bad "an image that is in use" 1 "disk.img: in use by another process" --export "socket=$TMP/t,path=$TMP/disk.img,claim-wait=0"
kill -TERM "$blkd"
wait "$blkd"
check "SIGTERM ends it well" [ $? = 0 ]
check "nothing is left" [ ! -e "$TMP/s" -a ! -e "$TMP/control" -a ! -e "$TMP/pid" ]

# ------------------------------------------------------------------ a stock guest under QEMU

why=$(lab_reason)
[ -n "$why" ] || [ -d "$LAB/kernel" ] || lab_prepare >"$TMP/prepare" 2>&1 || why=$(tail -n 1 "$TMP/prepare")
if [ -n "$why" ]; then
	skip "a stock guest under QEMU" "$why"
	finish
fi
initramfs=$(lab_initramfs tests/linux/init-blkd virtio_pci virtio_blk)

# A front-end that lies: no message of the protocol, messages cut short, tables without memory.
hostile() {
	while :; do
		printf '\005\000\000\000\001\000\000\000\050\000\000\000\001\000\000\000' | socat -t 0.05 - "UNIX-CONNECT:$1"
		head -c 4096 /dev/urandom | socat -t 0.05 - "UNIX-CONNECT:$1"
		printf '\017\000\000' | socat -t 0.05 - "UNIX-CONNECT:$1"
		sleep 0.05
	done >/dev/null 2>&1
}

# guest NAME RING KILLS: a run of the guest, with so many deaths of its back-end
guest() {
	local what=$1 ring=$2 kills=$3 want exports qemu line bit=0 load='' word='' n mine
	head -c 16M /dev/urandom >"$TMP/guest.img"
	want=$(head -c 4M "$TMP/guest.img" | sha256sum | cut -d' ' -f1)
	[ "$ring" = off ] || bit=1
	[ "$kills" = 0 ] || load=load=1
	exports=(--export "socket=$TMP/g,path=$TMP/guest.img,queues=2,serial=blkd-$ring"
		--export "socket=$TMP/h,path=$TMP/disk.img")
	start "$what" "${exports[@]}"
	if [ "$kills" != 0 ]; then
		hostile "$TMP/h" &
		mine=$!
		children+=("$mine")
	fi
	rm -f "$TMP/in" "$TMP/lines"
	mkfifo "$TMP/in" "$TMP/lines"
	timeout 120 qemu-system-x86_64 -nodefaults -no-reboot -display none -machine q35,memory-backend=m -accel tcg,thread=multi \
		-cpu max -smp 2 -m 256 -object memory-backend-memfd,id=m,size=256M,share=on \
		-chardev "socket,id=c,path=$TMP/g,reconnect=1" \
		-device "vhost-user-blk-pci,chardev=c,num-queues=2,packed=$ring" \
		-kernel "$LAB/kernel/vmlinuz" -initrd "$initramfs" -serial stdio \
		-append "console=ttyS0 quiet panic=-1 queues=2 serial=blkd-$ring packed=$bit want=$want $load" \
		<>"$TMP/in" >"$TMP/lines" 2>&1 &
	qemu=$!
	children+=("$qemu")
	while read -r line; do
		line=${line%$'\r'}
		case $line in
		PASS*) pass "$what: ${line#PASS }" ;;
		FAIL*) fail "$what: ${line#FAIL }" ;;
		WROTE*) word=${line#WROTE } ;;
		LOAD)
			for ((n = 0; n < kills; n++)); do
				sleep 0.7
				kill -KILL "$blkd"
				wait "$blkd" 2>/dev/null
				start "$what-$n" "${exports[@]}"
				wait_line "$TMP/$what-$n.log" "/g: front-end connected" || fail "$what: the guest's monitor comes back"
			done
			sleep 0.7
			echo enough >"$TMP/in"
			;;
		esac
	done <"$TMP/lines"
	wait "$qemu"
	check "$what: the guest ended well" [ $? = 0 ]
	kill -TERM "$blkd"
	wait "$blkd"
	check "$what: sluice-blkd ended well" [ $? = 0 ]
	check "$what: what the guest wrote is in the image" \
		[ "$(dd if="$TMP/guest.img" bs=16k skip=256 count=512 2>/dev/null | sha256sum | cut -d' ' -f1)" = "$word" ]
	[ "$kills" = 0 ] || {
		kill "$mine"
		check "$what: the hostile front-end was turned away" grep -q "/h: connection closed" "$TMP/$what-0.log"
	}
}

guest split off 0
guest packed-killed on 3
if [ -n "${FULL:-}" ]; then
	guest packed on 0
	guest split-killed off 8
fi
finish
