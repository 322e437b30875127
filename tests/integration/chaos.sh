#!/usr/bin/env bash
# A guest that writes random values to every port and BAR it finds, for ten seconds: it may end itself (reset, power-off, triple
# fault), and the monitor must say so; it must not crash, hang or grow.
. "$(dirname "$0")/lib.bash"
need_kvm

chaos() {
	local seed=$1 pid status peak
	shift
	timeout -k 5 60 "$SLUICE" run --no-reboot --kernel build/tests/guest/chaos.elf --cmdline "seed=$seed s=10" "$@" \
		>"$TMP/out" 2>"$TMP/err" </dev/null
	status=$?
	case $status in
	0 | 3) pass "seed $seed, $(echo "$@" | grep -o 'model=[a-z0-9_-]*' | tr '\n' ' '): $(tail -n 1 "$TMP/err" | cut -c1-80)" ;;
	*) fail "seed $seed" "status $status: $(tail -n 1 "$TMP/err")" ;;
	esac
}

truncate -s 16M "$TMP/a" "$TMP/b"
chaos 1 --disk "path=$TMP/a,model=virtio-blk" --disk "path=$TMP/b,model=ide" --net mem=echo,model=virtio-net \
	--net mem=source,model=e1000 --net mem=source,model=ne2k_pci
chaos $RANDOM --disk "path=$TMP/a,model=virtio-blk,ring=packed" --disk "path=$TMP/b,model=ide" \
	--net mem=source,model=virtio-net,ring=packed --net mem=echo,model=e1000 --net mem=echo,model=ne2k_pci
finish
