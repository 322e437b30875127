#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run: Debian with nginx in Sluice, asked for a page over its split card and over its emulated
# one, then loaded with wrk by turns. demo.sh INITRAMFS DEBIAN [SECONDS]; lines begin with == (progress), PASS, FAIL or =.
. tests/linux/host.bash
. tests/lab/lab.bash
. tests/lab/debian.bash
initramfs=$1 debian=$2 seconds=${3:-6}
CARDS=(virtio-net e1000)
ROUNDS=3

for n in 1 2; do
	ip tuntap add "sl$n" mode tap && ip addr add "10.3.$n.1/24" dev "sl$n" && ip link set "sl$n" up
done
cp --sparse=always "$debian" "$T/disk"
seq -f 'Sluice served this line, which is number %.0f.' 100 >"$T/page"

echo "== booting Debian, unchanged, on virtio-blk with a split and an emulated network card"
build/sluice run --kernel "$LAB_KERNEL/vmlinux" --initrd "$initramfs" --memory=512M --disk "path=$T/disk" \
	--net tap=sl1,model=virtio-net --net tap=sl2,model=e1000 --cmdline "$(lab_debian_cmdline)" >"$T/console" 2>&1 </dev/null &
guest=$!
started+=($guest)

# fetch N: the page over card N, asked for until the guest serves it
fetch() {
	curl -sS -o "$T/got$1" --connect-timeout 2 --retry 100 --retry-delay 1 --retry-max-time 110 --retry-all-errors \
		"http://10.3.$1.2/" 2>"$T/curl"
}
for n in 1 2; do
	if fetch $n && cmp -s "$T/got$n" "$T/page"; then
		echo "PASS a page of $(stat -c %s "$T/page") bytes over ${CARDS[n - 1]}"
	else
		echo "FAIL a page over ${CARDS[n - 1]}: $(tail -n 1 "$T/curl") $(tail -n 2 "$T/console" | tr '\r\n' '  ')"
	fi
done

echo "== loading it with wrk, 8 connections, $ROUNDS times $seconds s each by turns"
for round in $(seq $ROUNDS); do
	for n in 1 2; do
		wrk -t1 -c8 -d"${seconds}s" "http://10.3.$n.2/" >"$T/wrk" 2>&1
		rate=$(sed -n 's,^Requests/sec: *,,p' "$T/wrk")
		if [ -z "$rate" ] || grep -q 'Non-2xx\|Socket errors' "$T/wrk"; then
			echo "FAIL wrk over ${CARDS[n - 1]}: $(grep -m 1 'Non-2xx\|Socket errors\|unable' "$T/wrk")"
		fi
		echo "   ${CARDS[n - 1]}: ${rate:-no} requests a second"
		echo "${rate:-0}" >>"$T/rates$n"
	done
done
median() { sort -n "$1" | sed -n "$(((ROUNDS + 1) / 2))p"; }
split=$(median "$T/rates1") emulated=$(median "$T/rates2")
if awk "BEGIN { exit !($split > 0 && $emulated > 0) }"; then
	echo "= requests a second: virtio-net (split) $split, e1000 (emulated) $emulated, ratio $(
		awk "BEGIN { printf \"%.2f\", $split / $emulated }")"
else
	echo "FAIL no figures"
fi
kill "$guest"
wait "$guest"
same "the guest ended when asked to" $? 0
echo DEMO-DONE
