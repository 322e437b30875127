#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A stock Linux guest and its own vsock driver: streams both ways between it and the host's programs.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
PEER=build/tests/linux/vsock

need_lab_user
guest_initramfs tests/linux/init-vsock virtio_pci vmw_vsock_virtio_transport $PEER

# In the laboratory: the host's programs, and the guest between them. $1: more keys of --vsock
cat >"$TMP/run" <<END
socket=/tmp/vsock.\$\$
$PEER echo \$socket &
$SLUICE run --kernel \$LAB_KERNEL/vmlinuz --initrd $initrd --memory 256M \\
	--cmdline "console=ttyS0 quiet panic=-1 program=/$PEER" --vsock "cid=7,socket=\$socket\$1" \\
	--console file=\$LAB_OUT/console --counters 2>\$LAB_OUT/counters >/dev/null &
guest=\$!
for _ in \$(seq 1200); do
	grep -qE "vsock listening|^FAIL|Power down" \$LAB_OUT/console && break
	sleep 0.1
done
stat -c 'mode %a' \$socket
$PEER dial \$socket
$PEER dial \$socket
wait \$guest
echo "guest's end: \$?"
ls \$socket* 2>/dev/null | sed 's/^/left behind: /'
cat \$LAB_OUT/console \$LAB_OUT/counters
END

for keys in "" ",ring=packed"; do
	what=${keys#,}
	lab_run 300 "bash $TMP/run '$keys'" >"$TMP/log" 2>&1
	tr -d '\r' <"$TMP/log" | sed -n "s/^\(PASS\|FAIL\) /\1 $name: ${what:-ring=split}: /p" >"$TMP/lines"
	cat "$TMP/lines"
	failures=$((failures + $(grep -c ^FAIL "$TMP/lines")))
	check "${what:-ring=split}: every part ran" [ "$(grep -c ^PASS "$TMP/lines")" = 5 ]
	check "${what:-ring=split}: the guest's address" grep -q 'vsock address 7' "$TMP/log"
	check "${what:-ring=split}: the socket is the user's alone" grep -q 'mode 600' "$TMP/log"
	check "${what:-ring=split}: and gone at the end" eval "! grep 'left behind' $TMP/log"
	check "${what:-ring=split}: the guest powers off" grep -q "guest's end: 0" "$TMP/log"
	# three times 4 MiB, both ways
	check "${what:-ring=split}: bytes counted" grep -qE '^virtio-vsock +[0-9]+ +25165824 ' "$TMP/log"
done
[ $failures = 0 ] || tail -n 60 "$TMP/log"
finish
