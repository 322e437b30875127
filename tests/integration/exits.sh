#!/usr/bin/env bash
# Are our figures true? Exits to user space as Sluice counts them against the kernel's own count of the same run (the tracepoint
# kvm:kvm_userspace_exit, which is exact): they may differ by 1 %.
. "$(dirname "$0")/lib.bash"
need_kvm

# A mount namespace of its own, where tracefs can be mounted if nobody did.
traced() {
	unshare -m bash -c 'mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing || exit 90
		[ -d /sys/kernel/tracing/events/kvm/kvm_userspace_exit ] || exit 90
		out=$1; shift
		perf stat -x, -e kvm:kvm_userspace_exit -o "$out" -- "$@"' traced "$@"
}

compare() {
	local what=$1 ours theirs status
	compared=("$@")
	shift
	traced "$TMP/perf" timeout 60 "$SLUICE" run --counters --kernel "$GUEST" "$@" \
		>"$TMP/out" 2>"$TMP/err" </dev/null
	status=$?
	if [ $status = 90 ]; then
		skip "$what" "no tracefs here, or no right to mount it"
		return
	fi
	ours=$(awk '/^exits to user space/ {print $NF}' "$TMP/err")
	theirs=$(awk -F, '$3 == "kvm:kvm_userspace_exit" {print $1}' "$TMP/perf")
	if [ $status != 0 ] || ! grep -q 'SLUICE-DONE failed=0' "$TMP/out"; then
		fail "$what" "the run failed (status $status): $(tail -n 1 "$TMP/err")"
	elif [ -z "$ours" ] || [ -z "$theirs" ] || [ "$theirs" = 0 ]; then
		fail "$what" "no counts (ours '$ours', the kernel's '$theirs')"
	elif awk -v a="$ours" -v b="$theirs" 'BEGIN {d = a - b; if (d < 0) d = -d; exit !(d <= b / 100)}'; then
		pass "$what: $ours counted here, $theirs by the kernel"
	else
		fail "$what" "$ours counted here, $theirs by the kernel"
	fi
}

# What the run before cost: exits to user space for a request, fewer than N, at least N
per_request() {
	awk -v requests="$(field "$TMP/out" 0 requests)" '/^exits to user space/ {print requests ? $NF / requests : "none"}' "$TMP/err"
}
# Doorbells are kept while they come often: where another program has the processor they do not, so such a run is made anew.
fewer() {
	local exits try
	exits=$(per_request)
	for try in 2 3; do
		awk -v x="$exits" -v n="$2" 'BEGIN {exit !(x >= n)}' || break
		compare "${compared[0]/%, run ?/}, run $try" "${compared[@]:1}"
		exits=$(per_request)
	done
	check "$1 ($exits)" awk -v x="$exits" -v n="$2" 'BEGIN {exit !(x ~ /^[0-9.e-]+$/ && x + 0 < n)}'
}
more() {
	local exits
	exits=$(per_request)
	check "$1 ($exits)" awk -v x="$exits" -v n="$2" 'BEGIN {exit !(x ~ /^[0-9.e-]+$/ && x + 0 >= n)}'
}

if ! command -v perf >/dev/null; then
	skip "all" "perf is not installed"
	exit 0
fi
image "$TMP/disk" 64M || fail "image" "could not be made"
job=work=randread,size=4096,depth=32,ms=200
compare "ide by pio" --disk "path=$TMP/disk,model=ide" --cmdline "job=blk,dev=ide,transfer=pio,$job"
compare "ide by dma" --disk "path=$TMP/disk,model=ide" --cmdline "job=blk,dev=ide,transfer=dma,$job"
fewer "ide by dma: commands without exits, less than five for a read" 5
compare "virtio-blk" --disk "path=$TMP/disk" --cmdline "job=blk,dev=virtio-blk,$job"
compare "ne2k_pci" --net mem=sink,model=ne2k_pci --cmdline "job=net,dev=ne2k_pci,work=tx,size=64,depth=32,ms=200"
compare "e1000" --net mem=echo,model=e1000 --cmdline "job=net,dev=e1000,work=echo,size=64,depth=1,ms=200"
fewer "e1000: doorbells without exits, less than half an exit for an echo" 0.5
compare "e1000, every write by an exit" --no-coalesce --net mem=echo,model=e1000 --cmdline "job=net,dev=e1000,work=echo,size=64,depth=1,ms=200"
more "e1000: with them at least two" 2
check "e1000: nothing is kept then" awk '/^posted writes/ {n = $NF} END {exit !(n == 0)}' "$TMP/err"
compare "virtio-net" --net mem=sink --cmdline "job=net,dev=virtio-net,work=tx,size=64,depth=256,ms=200"
finish
