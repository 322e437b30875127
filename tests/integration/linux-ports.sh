#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A stock Linux guest's drivers of four serial ports, two of which send back what they get, and of the parallel port.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash

need_lab_user
guest_initramfs tests/linux/init-ports parport_pc lp
cat >"$TMP/run" <<END
dir=\$(mktemp -d)
$SLUICE run --kernel \$LAB_KERNEL/vmlinuz --initrd $initrd --memory 256M --cmdline "console=ttyS0 quiet panic=-1" --no-reboot \\
	--serial file=\$LAB_OUT/console --serial file=\$LAB_OUT/com2 --serial unix=\$dir/com3 --serial pty --parallel file=\$LAB_OUT/lpt1 \\
	2>\$dir/err &
guest=\$!
until [ -S \$dir/com3 ] && grep -q "serial 4" \$dir/err; do sleep 0.1; done
socat UNIX-CONNECT:\$dir/com3 EXEC:cat &
pty=\$(sed -n 's/^sluice: serial 4 is //p' \$dir/err)
cat <\$pty >\$pty &
wait \$guest
echo "guest's end: \$?"
cat \$LAB_OUT/console \$dir/err
sed 's/^/com2: /' \$LAB_OUT/com2
sed 's/^/lpt1: /' \$LAB_OUT/lpt1
kill \$(jobs -p) 2>/dev/null
END
lab_run 300 "bash $TMP/run" >"$TMP/log" 2>&1
tr -d '\r' <"$TMP/log" | sed -n "s/^\(PASS\|FAIL\) /\1 $name: /p" >"$TMP/lines"
cat "$TMP/lines"
failures=$((failures + $(grep -c ^FAIL "$TMP/lines")))
check "every part ran" [ "$(grep -c ^PASS "$TMP/lines")" = 13 ]
check "what COM2 said" grep -q "^com2: out of COM2" "$TMP/log"
check "what was printed" [ "$(grep -c "^lpt1: page$\|^lpt1: \.\{2000\}$\|^lpt1: end of page$" "$TMP/log")" = 3 ]
check "the guest powers off" grep -q "guest's end: 0" "$TMP/log"
[ $failures = 0 ] || tail -n 60 "$TMP/log"
finish
