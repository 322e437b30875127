#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Back-ends in processes of their own against other people's, and against the same in the monitor (perf/README.md).
# vhost.sh [disk] [net]: both, if nothing is said. RUNS=n (5) rounds, MS=n (1000) milliseconds for each measurement.
# Contenders take turns within a round; a ratio is the median of the rounds' ratios. The exit status tells whether
# every measurement was made and its data was right; goals decide nothing but a word.
cd "$(dirname "$0")/.." || exit 1
SLUICE=build/sluice
BLKD=build/sluice-blkd
BRIDGE=${BRIDGE:-build/sluice-bridge}
GUEST=build/perf/guest.elf
RUNS=${RUNS:-5}
MS=${MS:-1000}
WHO=vhost
PACKAGES="qemu-utils dpdk-dev openvswitch-switch-dpdk"
# shellcheck source=perf/ratios.bash
. perf/ratios.bash

# ------------------------------------------------------------------ disks

IMAGE=$TMP/disk
QSD=qemu-storage-daemon
SOCKET=$TMP/disk.sock

# guest CONTENDER ROUND WORK DISK: IOPS of the benchmark guest, which checks every block: read, or read back at the end
guest() {
	local out=$TMP/out line
	timeout 60 "$SLUICE" run --kernel "$GUEST" --disk "$4" </dev/null >"$out" 2>"$TMP/err" \
		--cmdline "poll_us=1000 job=blk,dev=virtio-blk,work=$3,size=4096,depth=32,warm_ms=100,ms=$MS"
	line=$(grep '^SLUICE-RESULT job=0 ' "$out")
	if ! grep -q 'SLUICE-DONE failed=0' "$out" || [ "$(key errors "$line")" != 0 ] || [ "$(key verified "$line")" = 0 ] ||
		[ "$3$(($(key verified "$line") < $(key requests "$line")))" = randread1 ]; then
		bad "$1" "$(grep -hv HIST "$out" "$TMP/err" | tail -n 2 | tr '\r\n' '  ')"
	else
		figure "$1" "$2" "$(($(key requests "$line") * 1000000 / ($(key ns "$line") / 1000)))"
	fi
}

# fio_round ROUND DIRECT NAME: what the host's own program gets out of the same image
fio_round() {
	local json
	if json=$(fio --name=x --filename="$IMAGE" --readonly --rw=randread --bs=4k --iodepth=32 --ioengine=io_uring --direct="$2" \
		--invalidate=0 --runtime="${MS}ms" --time_based --output-format=json 2>"$TMP/err"); then
		figure "fio,$3" "$1" "$(jq '.jobs[0].read.iops' <<<"$json")"
	else
		bad fio "$(tail -n 1 "$TMP/err")"
	fi
}

# in_process CONTENDER ROUND WORK COMMAND...: a guest whose disk is at the socket that the command makes
in_process() {
	local who=$1 round=$2 work=$3
	shift 3
	rm -f "$SOCKET"
	serve "$TMP/server.log" "$@"
	if until_true [ -S "$SOCKET" ]; then
		guest "$who" "$round" "$work" "vhost-user=$SOCKET"
	else
		bad "$who" "$(tail -n 1 "$TMP/server.log")"
	fi
	stop "$started"
}

# disk_measure CONTENDER ROUND WORK DIRECT NAME: with all of the image in the page cache, and nothing that must be written
disk_measure() {
	local who=$1 round=$2 work=$3 direct=$4 name=$1,$5
	sync "$IMAGE"
	cat "$IMAGE" >/dev/null
	case $who in
	monitor) guest "$name" "$round" "$work" "path=$IMAGE,direct=$direct" ;;
	sluice-blkd) in_process "$name" "$round" "$work" "$BLKD" --export "socket=$SOCKET,path=$IMAGE,direct=$direct" ;;
	fio) [ "$work" != randread ] || fio_round "$round" "$([ "$direct" = off ]; echo $?)" "$5" ;;
	*)
		in_process "$name" "$round" "$work" qemu-storage-daemon --object iothread,id=t \
			--blockdev "driver=file,node-name=f,filename=$IMAGE,aio=io_uring,cache.direct=$direct" \
			--export "type=vhost-user-blk,id=e,addr.type=unix,addr.path=$SOCKET,node-name=f,writable=on${who#"$QSD"}"
		;;
	esac
}
# disk_round ROUND WORK DIRECT NAME: in each round another begins
disk_round() {
	local n=${#CONTENDERS[@]} i
	for i in $(seq "$n"); do
		steady disk_measure "${CONTENDERS[(i + $1) % n]}" "$@"
	done
}

# disk_report NAME TEXT
disk_report() {
	local name=$1 qsd=$QSD
	awk -v a="$(median "$QSD,$name")" -v b="$(median "$QSD,iothread=t,$name")" 'BEGIN { exit a >= b }' && qsd=$QSD,iothread=t
	ratio "sluice-blkd by qemu-storage-daemon, $2" "sluice-blkd,$name" "$qsd,$name" 1.3
	ratio "sluice-blkd by the same in the monitor, $2" "sluice-blkd,$name" "monitor,$name" 0.95
	raw "sluice-blkd,$name" IOPS
	raw "monitor,$name" IOPS
	raw "$QSD,$name" IOPS
	raw "$QSD,iothread=t,$name" IOPS
	raw "fio,$name" "IOPS (on the host, no guest)"
}

disks() {
	local round
	[ -w /dev/kvm ] || { left_out disks "no access to /dev/kvm"; return; }
	# it works in its main loop, or in a thread that polls: the faster counts
	CONTENDERS=(monitor sluice-blkd)
	! command -v fio >/dev/null || CONTENDERS+=(fio)
	if command -v $QSD >/dev/null; then
		CONTENDERS+=($QSD $QSD,iothread=t)
	else
		left_out $QSD "it is not installed (make deps)"
	fi
	"$SLUICE" bench --make-image "$IMAGE" --image-size 256M || { bad "the image" "it cannot be made"; return; }
	for round in $(seq "$RUNS"); do
		disk_round "$round" randread off read,cached
		disk_round "$round" randwrite off write,cached
		disk_round "$round" randread on read,direct
	done
	echo
	echo "Disks: one vhost-user-blk queue, split ring, depth 32, 4 KiB; the guest checks every block."
	disk_report read,cached "random read, page cache"
	disk_report write,cached "random write, page cache"
	disk_report read,direct "random read, O_DIRECT"
	rm -f "$IMAGE"
}

# ------------------------------------------------------------------ from start to end

. perf/vhost-net.bash
facts
[ $# != 0 ] || set -- disk net
for part; do
	case $part in
	disk) disks ;;
	net) net ;;
	*)
		echo "vhost.sh: $part: use disk or net" >&2
		exit 2
		;;
	esac
done
exit $((failures != 0))
