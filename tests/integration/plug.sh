#!/usr/bin/env bash
# Pulling the plug: a guest that writes and flushes is killed in mid-work over a disk with a volatile write cache; what
# was acknowledged as flushed must be there on the next boot. With a disk that only says it flushed, the same test must fail.
. "$(dirname "$0")/lib.bash"
need_kvm

job=size=4096,depth=16,every=32,span=8M

disk() {
	rm -f "$TMP/disk"
	image "$TMP/disk" 8M
}

# A qcow2 image of the same content, whose clusters are to be copied from the one below before they are written.
overlay() {
	disk && rm -f "$TMP/overlay" &&
		qemu-img create -q -f qcow2 -b disk -F raw "$TMP/overlay" && mv "$TMP/overlay" "$TMP/disk.qcow2"
}

# pull MODEL FAULT SEED [MAKE IMAGE]: boots, waits for some rounds, kills; sets `round` to the last one known to be flushed
pull() {
	local model=$1 fault=$2 seed=$3 pid want=$((10 + $3 * 7))
	"${4:-disk}" || return 1
	image=${5:-$TMP/disk}
	# the guest is not to end by itself first: its rounds are not bounded
	"$SLUICE" run --kernel "$GUEST" --cmdline "job=blk,dev=$model,work=flushwrite,$job" \
		--disk "path=$image,model=$model,fault=$fault:seed=$seed" >"$TMP/out" 2>&1 </dev/null &
	pid=$!
	children=("$pid")
	for _ in $(seq 600); do
		grep -q "^SLUICE-FLUSHED job=0 round=$want\b" "$TMP/out" && break
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.02
	done
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	children=()
	# a line that the kill cut short has no end, and is not believed
	[ -z "$(tail -c 1 "$TMP/out")" ] || sed -i '$d' "$TMP/out"
	round=$(sed -n 's/^SLUICE-FLUSHED job=0 round=\([0-9]*\)\r*$/\1/p' "$TMP/out" | tail -n 1)
	[ "${round:-0}" -ge 10 ]
}

# look MODEL: the verifying boot of the same image; its result is in $TMP/out
look() {
	timeout 60 "$SLUICE" run --kernel "$GUEST" --cmdline "job=blk,dev=$1,work=flushverify,$job,round=$round" \
		--disk "path=$image,model=$1" >"$TMP/out" 2>&1 </dev/null
	grep -q 'SLUICE-DONE failed=0' "$TMP/out"
}

for model in virtio-blk ide; do
	for seed in 1 2 3; do
		what="$model: everything flushed survives the plug, seed $seed"
		if ! pull $model cache $seed || ! look $model; then
			fail "$what" "$(grep -v HIST "$TMP/out" | tail -n 1)"
		elif [ "$(field "$TMP/out" 0 lost)" != 0 ] || [ "$(field "$TMP/out" 0 errors)" != 0 ]; then
			fail "$what" "$(grep '^SLUICE-ERROR' "$TMP/out" | head -n 1)"
		else
			pass "$what"
		fi
	done
	what="$model: a disk that loses flushes is found out"
	if ! pull $model lose-flush 4 || ! look $model; then
		fail "$what" "$(grep -v HIST "$TMP/out" | tail -n 1)"
	else
		check "$what" [ "$(field "$TMP/out" 0 lost)" -gt 0 ]
	fi
done

# the same on a qcow2 image: what a flush covers includes its tables
for seed in 1 2; do
	what="qcow2: everything flushed survives the plug, seed $seed"
	if ! command -v qemu-img >/dev/null; then
		skip "$what" "qemu-img is not installed"
	elif ! pull virtio-blk cache $seed overlay "$TMP/disk.qcow2" || ! look virtio-blk; then
		fail "$what" "$(grep -v HIST "$TMP/out" | tail -n 1)"
	elif [ "$(field "$TMP/out" 0 lost)" != 0 ] || [ "$(field "$TMP/out" 0 errors)" != 0 ]; then
		fail "$what" "$(grep '^SLUICE-ERROR' "$TMP/out" | head -n 1)"
	else
		qemu-img check -q "$TMP/disk.qcow2" >"$TMP/out" 2>&1
		# 3: clusters that nothing uses, which is all that a kill may leave wrong
		case $? in
		0 | 3) pass "$what" ;;
		*) fail "$what" "$(head -n 1 "$TMP/out")" ;;
		esac
	fi
done

# errors: the guest is told, goes on, and nothing else is wrong
for model in virtio-blk ide; do
	disk
	for fault in eio:1M+4096 enospc-after:64K; do
		what="$model: $fault reaches the guest, which goes on"
		timeout 60 "$SLUICE" run --kernel "$GUEST" --cmdline "job=blk,dev=$model,work=flushwrite,$job,round=40 job=blk,dev=$model,work=seqread,size=4096,span=1M,ms=50" \
			--disk "path=$TMP/disk,model=$model,fault=$fault" >"$TMP/out" 2>&1 </dev/null
		if ! grep -q 'SLUICE-DONE failed=0' "$TMP/out"; then
			fail "$what" "$(grep -v HIST "$TMP/out" | tail -n 1)"
		else
			check "$what" [ "$(field "$TMP/out" 0 errors)" -gt 0 -a "$(field "$TMP/out" 1 errors)" = 0 ]
		fi
	done
done
finish
