#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# This monitor against QEMU with KVM (perf/README.md): the same guest, the same files and taps, taking turns.
# monitors.sh [disk] [emulated] [net] [pair] [rate] [start] [many]: all, if nothing is said. RUNS=n (5) rounds, MS=n (500)
# milliseconds for each measurement, OUT=DIR (build/perf-monitors) for result.json and index.html.
# A ratio is the median of the rounds' ratios, between each side's best configuration. The exit status tells whether every
# measurement was made and its data was right; goals decide nothing but a word.
cd "$(dirname "$0")/.." || exit 1
SLUICE=build/sluice
BRIDGE=build/sluice-bridge
WIRE=build/perf/wire
GUEST=build/perf/guest.elf
RUNS=${RUNS:-5}
MS=${MS:-500}
OUT=${OUT:-build/perf-monitors}
WHO=monitors
PACKAGES="qemu-system-x86 seabios fio"
# shellcheck source=perf/ratios.bash
. perf/ratios.bash
# shellcheck source=perf/monitors-guest.bash
. perf/monitors-guest.bash
# shellcheck source=perf/monitors-net.bash
. perf/monitors-net.bash
IMAGE=$TMP/disk

# ------------------------------------------------------------------ disks

# a boot does all the jobs of a contender; the disks' jobs, in this order
DISK_JOBS=("randread,1" "randread,32" "randread,256" "randwrite,1" "randwrite,32" "randwrite,256")
disk_jobs() {
	local job text="poll_us=1000"
	for job in "${DISK_JOBS[@]}"; do text+=" job=blk,dev=virtio-blk,work=${job%,*},depth=${job#*,},size=4096,warm_ms=50,ms=$MS"; done
	echo "$text"
}
# disk_take CONTENDER ROUND: rates, and the tail at depth 1
disk_take() {
	local i job
	for i in "${!DISK_JOBS[@]}"; do
		job=${DISK_JOBS[i]}
		rate_take "$1" "$2" "$i" "$job" blk || return
		[ "${job#*,}" != 1 ] || figure "$1,$job,p99" "$2" "$(key p99_ns "$(result "$i")")"
	done
}
# disk_one CONTENDER ROUND cached|direct
disk_one() {
	local who=$1,$3 direct
	direct=$([ "$3" = direct ] && echo on || echo off)
	sync "$IMAGE"
	cat "$IMAGE" >/dev/null
	case $1 in
	sluice,*) run_sluice "$who" "$(disk_jobs)" --disk "path=$IMAGE,direct=$direct,ring=${1#*,}" ;;
	qemu,*)
		local aio=${1#qemu,} packed=off
		[ "${aio#*,}" != packed ] || packed=on
		run_qemu "$who" "$(disk_jobs)" -object iothread,id=t \
			-drive "if=none,id=d,file=$IMAGE,format=raw,aio=${aio%,*},cache.direct=$direct,cache.writeback=on" \
			-device "virtio-blk-pci,drive=d,iothread=t,num-queues=1,disable-legacy=on,packed=$packed"
		;;
	esac
	disk_take "$who" "$2"
}
# fio_one ENGINE ROUND cached|direct: random reads at depth 32
fio_one() {
	local json depth=32
	[ "$1" != psync ] || depth=1 # it has no other, and a note about that would be in the way
	command_line "fio,$1,$3" fio --rw=randread --bs=4k --iodepth=$depth --ioengine="$1" --direct="$([ "$3" = cached ]; echo $?)"
	if json=$(fio --name=x --filename="$IMAGE" --readonly --rw=randread --bs=4k --iodepth=$depth --ioengine="$1" \
		--direct="$([ "$3" = cached ]; echo $?)" --invalidate=0 --runtime="${MS}ms" --time_based --output-format=json 2>"$TMP/err"); then
		figure "fio,$1,$3" "$2" "$(jq '.jobs[0].read.iops' <<<"$json")"
	else
		bad "fio,$1" "$(tail -n 1 "$TMP/err")"
	fi
}

disk_report() {
	local cache=$1 text=$2 job ours theirs
	local -a s q
	for job in "${DISK_JOBS[@]}"; do
		s=(sluice,{split,packed},"$cache,$job")
		q=("qemu,io_uring,$cache,$job" "qemu,io_uring,packed,$cache,$job" "qemu,threads,$cache,$job")
		ours=$(best "${s[@]}")
		theirs=$(best "${q[@]}")
		if [ "${job#*,}" = 1 ]; then
			# latency: the smallest of theirs by the smallest of ours
			theirs=$(lowest "${q[@]/%/,p99}")
			ours=$(lowest "${s[@]/%/,p99}")
			ratio "${job%,*}, depth 1, $text: p99 of QEMU by ours" "$theirs" "$ours" "$([ "$cache" = cached ] && echo 1.3)"
		else
			ratio "${job%,*}, depth ${job#*,}, $text: by QEMU" "$ours" "$theirs" "$([ "$cache" = cached ] && echo 1.5)"
		fi
		for who in "${s[@]}" "${q[@]}"; do raw "$who" IOPS; done
	done
	ours=$(best sluice,{split,packed},"$cache,randread,32")
	ratio "randread, depth 32, $text: by fio outside any guest" "$ours" "$(best "fio,io_uring,$cache" "fio,libaio,$cache" "fio,psync,$cache")" \
		"$([ "$cache" = cached ] && echo 0.8 || echo 0.95)"
	for who in io_uring libaio psync; do raw "fio,$who,$cache" "IOPS (on the host, no guest)"; done
}

disks() {
	local round cache
	part=disks
	"$SLUICE" bench --make-image "$IMAGE" --image-size 256M || { bad "the image" "it cannot be made"; return; }
	for round in $(seq "$RUNS"); do
		for cache in cached direct; do
			in_turn "$round" disk_one "$cache" sluice,split sluice,packed qemu,io_uring qemu,io_uring,packed qemu,threads
			in_turn "$round" fio_one "$cache" io_uring libaio psync
		done
	done
	echo
	echo "Disks: 4 KiB, one queue; every block is checked. QEMU: virtio-blk-pci with an iothread."
	disk_report cached "page cache"
	disk_report direct "O_DIRECT"
	exits_report
}

# What of a request crosses into the monitor: of the benchmark's own count, which is exact (tests/integration/exits.sh)
exits_report() {
	if "$SLUICE" bench --quick --quiet --no-tap --no-fio --runs 1 --only virtio-blk --json "$TMP/bench.json" >/dev/null 2>"$TMP/err"; then
		figure sluice,exits 1 "$(jq '[.results[] | select(.work == "randread" and .depth == 32) | .exits_per_request] | max' "$TMP/bench.json")"
		absolute "exits to user space for a request, split, depth 32" sluice,exits 0.001
	else
		bad "exits for a request" "$(tail -n 1 "$TMP/err")"
	fi
}

# ------------------------------------------------------------------ emulated devices

# emulated_one CONTENDER ROUND WHAT
emulated_one() {
	local who=$1,$3 jobs
	case $3 in
	ide-pio | ide-dma)
		sync "$IMAGE"
		cat "$IMAGE" >/dev/null
		jobs="job=blk,dev=ide,transfer=${3#ide-},work=randread,size=4096,depth=1,warm_ms=50,ms=$MS"
		jobs+=" job=blk,dev=ide,transfer=${3#ide-},work=randwrite,size=4096,depth=1,warm_ms=50,ms=$MS"
		if [ "$1" = sluice ]; then
			run_sluice "$who" "$jobs" --disk "path=$IMAGE,model=ide,direct=off"
		else
			run_qemu "$who" "$jobs" -drive "if=ide,index=0,file=$IMAGE,format=raw,aio=threads,cache.direct=off,cache.writeback=on"
		fi
		rate_take "$who" "$2" 0 randread blk && rate_take "$who" "$2" 1 randwrite blk
		;;
	esac
}

emulated() {
	local round what
	part=emulated
	[ -s "$IMAGE" ] || "$SLUICE" bench --make-image "$IMAGE" --image-size 64M || { bad "the image" "it cannot be made"; return; }
	for round in $(seq "$RUNS"); do
		for what in ide-pio ide-dma; do in_turn "$round" emulated_one "$what" sluice qemu; done
	done
	echo
	echo "Emulated IDE: 4 KiB, the same driver; every block is checked."
	for what in ide-pio ide-dma; do
		for work in randread randwrite; do
			ratio "$what, $work: by QEMU's piix3-ide" "sluice,$what,$work" "qemu,$what,$work" 2
			raw "sluice,$what,$work" IOPS
			raw "qemu,$what,$work" IOPS
		done
	done
}

# ------------------------------------------------------------------ a moderate rate, start and memory, several guests

# cpu_one CONTENDER ROUND: CPU time for a request at 10,000 a second, while the guest halts in between
cpu_one() {
	local jobs="poll_us=0 job=blk,dev=virtio-blk,work=randread,size=4096,depth=32,rate=10000,warm_ms=50,ms=6000" before
	case $1 in
	sluice) begin_sluice "$1,rate" "$jobs" --disk "path=$IMAGE,direct=off" ;;
	qemu)
		begin_qemu "$1,rate" "$jobs" -object iothread,id=t -drive "if=none,id=d,file=$IMAGE,format=raw,aio=io_uring,cache.direct=off" \
			-device virtio-blk-pci,drive=d,iothread=t,num-queues=1,disable-legacy=on
		;;
	esac
	until_true grep -q '^clock:' "$TMP/out"
	sleep 1
	before=$(cpu_ns "$started")
	sleep 3
	figure "$1,rate,cpu" "$2" $((($(cpu_ns "$started") - before) / 30000))
	wait "$started"
	result_good "$1,rate" && [ "$(key requests "$(result 0)")" -gt 55000 ] || bad "$1,rate" "$(key requests "$(result 0)") requests in 6 s"
}

rate() {
	local round
	part=rate
	[ -s "$IMAGE" ] || "$SLUICE" bench --make-image "$IMAGE" --image-size 64M || { bad "the image" "it cannot be made"; return; }
	for round in $(seq "$RUNS"); do in_turn "$round" cpu_one "" sluice qemu; done
	echo
	echo "10,000 random reads a second, the guest halting in between: host CPU for each, the guest's own work included."
	ratio "host CPU for a request: by QEMU" sluice,rate,cpu qemu,rate,cpu 0.7 most
	raw sluice,rate,cpu ns
	raw qemu,rate,cpu ns
}

# start_one CONTENDER ROUND: milliseconds from exec to the guest's first output, and what is resident beyond the guest's memory
start_one() {
	local began fd line=
	case $1 in
	sluice) sluice_command job=idle,ms=4000 ;;
	microvm)
		QEMU_MACHINE="microvm,x-option-roms=off,rtc=off,pit=off,pic=off,isa-serial=on" qemu_command job=idle,ms=4000
		;;
	esac
	command_line "$1,start" "${COMMAND[@]}"
	began=$(date +%s%N)
	# read as it comes: to look again and again would cost more than the start
	exec {fd}< <(exec "${COMMAND[@]}" </dev/null 2>"$TMP/err")
	started=$!
	children+=("$started")
	while [[ $line != *'sluice guest ready'* ]] && IFS= read -r -t 20 -u "$fd" line; do :; done
	figure "$1,start,ms" "$2" "$(awk -v ns=$(($(date +%s%N) - began)) 'BEGIN {printf "%.1f", ns / 1e6}')"
	sleep 0.3
	figure "$1,start,kib" "$2" "$(private_kib "$started")"
	[[ $line == *'sluice guest ready'* ]] || bad "$1,start" "$(tail -n 1 "$TMP/err")"
	stop "$started"
	exec {fd}<&-
}

start() {
	local round
	part=start
	for round in $(seq "$RUNS"); do in_turn "$round" start_one "" sluice microvm; done
	echo
	echo "From exec to the guest's first line; memory beyond the guest's: anonymous and private, resident."
	ratio "time to the first line: by QEMU microvm" sluice,start,ms microvm,start,ms 0.2 most
	raw sluice,start,ms ms
	raw microvm,start,ms ms
	ratio "memory beyond the guest's: by QEMU microvm" sluice,start,kib microvm,start,kib 0.2 most
	absolute "memory beyond the guest's, KiB" sluice,start,kib 4096
	raw sluice,start,kib KiB
	raw microvm,start,kib KiB
}

# many_one N ROUND: what N guests do together, each with an image of its own
many_one() {
	local i sum=0 pids=()
	for i in $(seq "$1"); do
		"$SLUICE" run --kernel "$GUEST" --disk "path=$TMP/many.$i,direct=off" </dev/null >"$TMP/many.$i.out" 2>&1 \
			--cmdline "poll_us=1000 job=blk,dev=virtio-blk,work=randread,size=4096,depth=32,warm_ms=500,ms=$((MS * 4))" &
		pids+=($!)
	done
	wait "${pids[@]}"
	for i in $(seq "$1"); do
		cp "$TMP/many.$i.out" "$TMP/out"
		result_good "many,$1" || return
		sum=$((sum + $(per_s "$(result 0)")))
	done
	figure "many,$1" "$2" "$sum"
}

many() {
	local round i
	part=many
	for i in 1 2 3 4; do "$SLUICE" bench --make-image "$TMP/many.$i" --image-size 64M || return; done
	for round in $(seq "$RUNS"); do in_turn "$round" many_one "" 1 4; done
	echo
	echo "Guests on the same CPUs, random reads at depth 32 from the page cache."
	ratio "four guests together: by one alone" many,4 many,1 0.9
	raw many,1 IOPS
	raw many,4 IOPS
	rm -f "$TMP"/many.*
}

# ------------------------------------------------------------------ from start to end

[ -w /dev/kvm ] || { left_out everything "no access to /dev/kvm"; exit 0; }
command -v qemu-system-x86_64 >/dev/null || { left_out everything "QEMU is not installed (make deps)"; exit 0; }
facts | tee "$TMP/facts"
[ $# != 0 ] || set -- disk emulated rate start many net pair
for what; do
	case $what in
	disk) disks ;;
	emulated) emulated ;;
	rate | start | many) $what ;;
	net | pair) in_namespace "$what" ;;
	*)
		echo "monitors.sh: $what: use disk, emulated, rate, start, many, net or pair" >&2
		exit 2
		;;
	esac
done
mkdir -p "$OUT"
perf/monitors-report.sh "$TMP" "$OUT" && echo && echo "written: $OUT/result.json, $OUT/index.html"
exit $((failures != 0))
