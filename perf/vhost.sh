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
TMP=build/tmp/perf-vhost.$$
FIGURES=$TMP/figures # CONTENDER ROUND VALUE
mkdir -p "$TMP"
failures=0
children=()
started= # the process that `serve` started last

cleanup() {
	local pid
	for pid in "${children[@]}"; do
		kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
	done
	rm -rf "$TMP" /var/run/dpdk/sluice-perf-$$-* # DPDK leaves the folders of its prefixes behind
}
trap cleanup EXIT
trap 'exit 1' INT TERM

bad() {
	echo "FAIL $1: $2"
	failures=$((failures + 1))
}
left_out() { echo "left out: $1: $2"; }

# serve LOG COMMAND...: in the background; ends with the script, or by `stop`
serve() {
	local log=$1
	shift
	"$@" >"$log" 2>&1 </dev/null &
	started=$!
	children+=("$started")
}
stop() {
	kill -TERM "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}
# until_true COMMAND...: for at most 15 seconds
until_true() {
	local end=$((SECONDS + 15))
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

# ------------------------------------------------------------------ figures

figure() { echo "$1 $2 $3" >>"$FIGURES"; }
# median CONTENDER
median() {
	awk -v who="$1" '$1 == who { print $3 }' "$FIGURES" | sort -g |
		awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
# raw CONTENDER UNIT: its line of figures
raw() {
	awk -v who="$1" -v unit="$2" '$1 == who { n++; list = list sprintf(" %.0f", $3) }
		END { if (n) printf "    %-44s%s %s\n", who, list, unit }' "$FIGURES"
}
# ratio TITLE A B GOAL: A by B, round by round; GOAL is the least it is to be
ratio() {
	[ -n "$(median "$2")" ] && [ -n "$(median "$3")" ] || return
	awk -v a="$2" -v b="$3" '$1 == a { x[$2] = $3 } $1 == b { y[$2] = $3 }
		END { for (r in x) if (r in y && y[r] > 0) print x[r] / y[r] }' "$FIGURES" | sort -g |
		awk -v title="$1" -v goal="$4" '{ v[NR] = $1 } END {
			m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
			word = m >= goal ? "pass" : "short"
			printf "  %-62s %5.2fx  (%.2f to %.2f)  goal %.2fx: %s\n", title, m, v[1], v[NR], goal, word
		}'
}

facts() {
	local kvm=hardware
	[ ! -d /sys/module/kvm_pvm ] || kvm='kvm-pvm (software only)'
	echo "host: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, $(uname -sr), KVM: $kvm"
	echo "against: $(dpkg-query -W -f '${Package} ${Version}, ' qemu-utils dpdk-dev openvswitch-switch-dpdk 2>/dev/null)"
	echo "image on: $(df --output=fstype "$TMP" | tail -n 1); $RUNS rounds of $MS ms each; date: $(date -u +%Y-%m-%d)"
}

# ------------------------------------------------------------------ disks

IMAGE=$TMP/disk
QSD=qemu-storage-daemon
SOCKET=$TMP/disk.sock

# key NAME LINE: its number in a guest's line
key() { sed -n "s/.* $1=\([0-9]*\).*/\1/p" <<<"$2"; }
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
		disk_measure "${CONTENDERS[(i + $1) % n]}" "$@"
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
