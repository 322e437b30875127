#!/usr/bin/env bash
# A guest that writes random values to every port and BAR it finds, for ten seconds: it may end itself (reset, power-off, triple
# fault), and the monitor must say so; it must not crash, hang or grow.
. "$(dirname "$0")/lib.bash"
need_kvm

devices=(--disk "path=$TMP/a,model=virtio-blk" --disk "path=$TMP/b,model=ide" --net mem=echo,model=virtio-net
	--net mem=source,model=e1000 --net mem=source,model=ne2k_pci)
packed=(--disk "path=$TMP/a,model=virtio-blk,ring=packed,in-order=on" --disk "path=$TMP/b,model=ide"
	--net mem=source,model=virtio-net,ring=packed --net mem=echo,model=e1000 --net mem=echo,model=ne2k_pci)

# once SEED CMDLINE OPTIONS...: 0 if the guest's end was its own, and said so
once() {
	local seed=$1 words=$2 status
	shift 2
	timeout -k 5 60 "$SLUICE" run --no-reboot --kernel build/tests/guest/chaos.elf --cmdline "seed=$seed $words" "$@" \
		>"$TMP/out" 2>"$TMP/err" </dev/null
	status=$?
	last=$(tail -n 1 "$TMP/err" | tr -cd '[:print:]' | cut -c1-100)
	case "$status $last" in
	"0 "*"powered off"* | "0 "*reset* | "3 "*"triple fault"*) return 0 ;;
	*) last="status $status: $last" && return 1 ;;
	esac
}

# Ten seconds of it, the ports that would end the guest at once left alone.
endure() {
	local what=$1 seed=$2
	shift 2
	if once "$seed" "s=10 avoid=0xcf9,0x604,0x605,0xf4,0x64,0x92" "$@"; then
		pass "ten seconds, $what, seed $seed: $last"
	else
		fail "ten seconds, $what, seed $seed" "$last"
	fi
}

# Ends of every kind, one after the other, also for ten seconds.
many() {
	local what=$1 seed=$2 until=$((SECONDS + 10)) n=0
	shift 2
	while [ $SECONDS -lt $until ]; do
		if ! once "$seed" "s=10" "$@"; then
			fail "any end, $what, seed $seed" "$last"
			return
		fi
		n=$((n + 1)) seed=$((seed + 1))
	done
	pass "any end, $what: $n guests, none ended but by itself"
}

truncate -s 16M "$TMP/a" "$TMP/b"
endure "split" 1 "${devices[@]}"
endure "packed" $((RANDOM + 1)) "${packed[@]}"
many "split" 1 "${devices[@]}"
many "packed" $((RANDOM * 1000 + 1)) "${packed[@]}"
finish
