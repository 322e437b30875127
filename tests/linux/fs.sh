#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run: a tree of the host's, served by virtiofsd, in a stock guest. fs.sh INITRAMFS VIRTIOFSD
. tests/linux/host.bash
initramfs=$1 virtiofsd=$2
mkdir -p "$T/tree/deep/er"
head -c 5000000 /dev/urandom >"$T/tree/big"
echo deep >"$T/tree/deep/er/ä name"
: >"$T/tree/gone"
want=$(sha256sum <"$T/tree/big" | cut -d' ' -f1)
# run OUT KEYS: a guest, and a virtiofsd for it
run() {
	"$virtiofsd" -f -o source="$T/tree" -o sandbox=chroot -o cache=auto --socket-path="$T/socket" >"$T/fsd" 2>&1 &
	fsd=$!
	started+=($fsd)
	build/sluice run --kernel "$LAB_KERNEL/vmlinux" --initrd "$initramfs" --memory=256M \
		--fs "tag=tree,socket=$T/socket,wait-s=20$2" --cmdline "console=ttyS0 quiet panic=-1 want=$want" >"$T/$1" 2>&1 </dev/null
	status=$?
	kill $fsd 2>/dev/null
	wait $fsd
}
run out ""
sed -n "s/\r*$//; /^\(PASS\|FAIL\) /p" "$T/out"
same "the guest ended well" $status 0
[ $status = 0 ] || tail -n 4 "$T/out" "$T/fsd"
sent=$(sed -n 's/\r*$//; s/^SENT //p' "$T/out")
same "what the guest wrote is here" "$(sha256sum "$T/tree/up" | cut -d' ' -f1)" "${sent:-something}"
same "with its mode" "$(stat -c %a "$T/tree/up")" 640
same "the link is here" "$(readlink "$T/tree/newer/link")" ../up
same "what it removed is gone" "$(ls "$T/tree/gone" 2>/dev/null)" ""
# Debian's virtiofsd knows split rings only.
run packed ,ring=packed
same "packed rings: refused in one line" "$status $(grep -c 'ring=packed: the back-end has split rings only' "$T/packed")" "1 1"
echo FS-DONE
