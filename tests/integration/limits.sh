#!/usr/bin/env bash
# Counts that must not grow: exits to user space per request of each device, and memory beyond the guest's.
. "$(dirname "$0")/lib.bash"
need_kvm

# most CASE LIMIT JOB-LINE OPTIONS...: exits of a run, less those of start-up and printing, per request
most() {
	local what=$1 limit=$2 job=$3 n exits idle
	shift 3
	timeout 60 "$SLUICE" run --counters --kernel "$GUEST" --cmdline "$job" "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
	n=$(field "$TMP/out" 0 requests)
	exits=$(awk '/^exits to user space/ {print $NF}' "$TMP/err")
	# every character the guest prints is an exit of its own, or two
	idle=$(($(wc -c <"$TMP/out") * 3 + 500))
	if ! grep -q 'SLUICE-DONE failed=0' "$TMP/out" || [ "${n:-0}" = 0 ]; then
		fail "$what" "the run failed: $(tail -n 1 "$TMP/out") $(tail -n 1 "$TMP/err")"
	elif awk -v e="$exits" -v i="$idle" -v n="$n" -v l="$limit" 'BEGIN {exit !((e - i) / n <= l)}'; then
		pass "$what: $exits exits for $n requests (at most $limit each)"
	else
		fail "$what" "$exits exits for $n requests (at most $limit each)"
	fi
}

image "$TMP/disk" 64M || fail "image" "could not be made"
most "ide by dma" 15 job=blk,dev=ide,work=randread,size=4096,depth=32,ms=300,warm_ms=0,transfer=dma \
	--disk "path=$TMP/disk,model=ide"
most "virtio-blk" 0.1 job=blk,dev=virtio-blk,work=randread,size=4096,depth=32,ms=300,warm_ms=0 --disk "path=$TMP/disk"
most "virtio-blk packed" 0.1 job=blk,dev=virtio-blk,work=randread,size=4096,depth=32,ms=300,warm_ms=0 \
	--disk "path=$TMP/disk,ring=packed"
most "ne2k_pci" 12 job=net,dev=ne2k_pci,work=tx,size=64,depth=32,ms=300,warm_ms=0 --net mem=sink,model=ne2k_pci
most "virtio-net" 0.01 job=net,dev=virtio-net,work=tx,size=64,depth=256,ms=300,warm_ms=0 --net mem=sink

# resident memory beyond the guest's own memfd
mkfifo "$TMP/in"
"$SLUICE" run --kernel "$GUEST" --cmdline job=idle,ms=30000 --disk "path=$TMP/disk" --net mem=sink \
	<"$TMP/in" >"$TMP/out" 2>"$TMP/err" &
pid=$!
children+=("$pid")
exec 9>"$TMP/in"
for _ in $(seq 100); do
	[ -s "$TMP/out" ] && break
	sleep 0.1
done
kib=$(awk '/^[0-9a-f]+-[0-9a-f]+ / {guest = /\/memfd:/} /^Rss:/ && !guest {sum += $2} END {print sum}' "/proc/$pid/smaps")
if [ -s "$TMP/out" ] && [ "${kib:-99999}" -le 8192 ]; then
	pass "resident memory beyond the guest's: $kib KiB (at most 8192)"
else
	fail "resident memory beyond the guest's" "$kib KiB (at most 8192)"
fi
kill -TERM "$pid"
wait "$pid"
status=$?
children=()
exec 9>&-
check "SIGTERM ends an idle guest with status 0" [ "$status" = 0 ]
finish
