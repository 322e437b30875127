#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# What the working tree costs or gains against a commit, on the hot paths (perf/README.md).
# regress.sh COMMIT. RUNS=n (11) rounds, MS=n (200) milliseconds for each measurement.
# Both take turns, each boot doing all works. A loss counts if the median of the rounds' ratios is below 0.95 and so many
# rounds lost that chance alone would do it less than once in a hundred (sign test). Exit status: 1 after such a loss.
cd "$(dirname "$0")/.." || exit 1
[ $# = 1 ] && commit=$(git rev-parse --verify --quiet "$1^{commit}") || {
	echo "usage: perf/regress.sh COMMIT" >&2
	exit 2
}
RUNS=${RUNS:-11}
MS=${MS:-200}
WHO=regress
PACKAGES=
# shellcheck source=perf/ratios.bash
. perf/ratios.bash
# shellcheck source=perf/monitors-guest.bash
. perf/monitors-guest.bash
GUEST=build/perf/guest.elf # the same for both: what is compared is the host's side

NAMES=("randread,1" "randread,32" "randwrite,32" "randread,32,packed" "ide-dma,randread" "ide-pio,randread"
	"tx,sink" "tx,sink,packed" "echo,1" "e1000,tx" "ne2k,tx")
blk() { echo "job=blk,dev=$1,work=$2,depth=$3,size=4096,warm_ms=20,ms=$MS$4"; }
nic() { echo "job=net,dev=$1,work=$2,depth=$3,size=64,warm_ms=20,ms=$MS,index=$4"; }
jobs="poll_us=1000 $(blk virtio-blk randread 1) $(blk virtio-blk randread 32) $(blk virtio-blk randwrite 32) $(blk virtio-blk randread 32 ,index=1)"
jobs+=" $(blk ide randread 1 ,transfer=dma) $(blk ide randread 1 ,transfer=pio) $(nic virtio-net tx 256 0) $(nic virtio-net tx 256 1)"
jobs+=" $(nic virtio-net echo 1 2) $(nic e1000 tx 32 0) $(nic ne2k_pci tx 32 0)"

# side before|after ROUND
side() {
	local i
	SLUICE=$TMP/before/build/sluice
	[ "$1" = before ] || SLUICE=build/sluice
	run_sluice "$1" "$jobs" --disk "path=$TMP/disk,direct=off" --disk "path=$TMP/disk2,direct=off,ring=packed" \
		--disk "path=$TMP/disk3,direct=off,model=ide" --net mem=sink --net mem=sink,ring=packed --net mem=echo \
		--net mem=sink,model=e1000 --net mem=sink,model=ne2k_pci
	for i in "${!NAMES[@]}"; do rate_take "$1" "$2" "$i" "${NAMES[i]}" || return; done
}

[ -w /dev/kvm ] || { left_out everything "no access to /dev/kvm"; exit 1; }
mkdir "$TMP/before"
git archive "$commit" | tar -x -C "$TMP/before"
make -C "$TMP/before" --no-print-directory -s -j2 build >"$TMP/make.log" 2>&1 || { tail -n 5 "$TMP/make.log"; bad "$1" "it cannot be built"; exit 1; }
for disk in disk disk2 disk3; do build/sluice bench --make-image "$TMP/$disk" --image-size 64M || exit 1; done
facts
for round in $(seq "$RUNS"); do in_turn "$round" side "" before after; done
echo
echo "The working tree by $(git log -1 --format='%h %s' "$commit"):"
lost=0
for name in "${NAMES[@]}"; do
	ratio "$name" "after,$name" "before,$name"
	if awk -v a="after,$name" -v b="before,$name" '$1 == a { x[$2] = $3 } $1 == b { y[$2] = $3 } END {
		for (r in x) if (r in y) { n++; v[n] = x[r] / y[r]; less += v[n] < 1; below += v[n] < 0.95 }
		p = 0; c = 1 # of n rounds, at least so many lost: by chance
		for (k = 0; k <= n; k++) { if (k >= less) p += c; c = c * (n - k) / (k + 1) }
		exit !(n && below > n / 2 && p / 2 ^ n < 0.01) }' "$FIGURES"; then
		echo "    LOSS: slower in nearly all rounds"
		lost=$((lost + 1))
	fi
done
[ $lost = 0 ] && echo "no significant loss" || echo "$lost of ${#NAMES[@]} works are significantly slower"
exit $((failures + lost != 0))
