#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A stock Linux guest's drivers of --hvc, --rng and --balloon: lines and data over hvc0 both ways, bytes from the
# host's entropy, memory that goes back to the host when the guest gives it up and when it is only free.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash

need_lab_user
guest_initramfs tests/linux/init-devices virtio_pci virtio_console virtio-rng virtio_balloon

# In the laboratory: the host's end of hvc0, and what the guest holds of the host's memory, in KiB
cat >"$TMP/run" <<END
dir=\$(mktemp -d)
mkfifo \$dir/in
exec 5<>\$dir/in
$SLUICE run --kernel \$LAB_KERNEL/vmlinuz --initrd $initrd --memory 256M \\
	--cmdline "console=ttyS0 quiet panic=-1" --no-reboot --counters \\
	--console file=\$LAB_OUT/console --hvc stdio --rng --balloon size=32M\$1 \\
	<\$dir/in >\$dir/hvc 2>\$LAB_OUT/counters &
guest=\$!
hear() {
	for _ in \$(seq 600); do
		grep -q "^\$1" \$dir/hvc && return
		kill -0 \$guest 2>/dev/null || break
		sleep 0.1
	done
	echo "FAIL the guest says \$1"
	return 1
}
held() {
	local fd
	for fd in /proc/\$guest/fd/*; do
		case \$(readlink \$fd) in
		*sluice-memory*) echo "held \$1 \$((\$(stat -L -c %b \$fd) / 2))" ;;
		esac
	done
}
hear READY && echo "over to you" >&5
hear END && sed -n '/^BEGIN/,/^END/{/^BEGIN/d;/^END/d;p}' \$dir/hvc | base64 -d | sha256sum | cut -d' ' -f1 >&5
head -c 10000 /dev/urandom >\$dir/data
{ base64 \$dir/data; echo END; sha256sum <\$dir/data | cut -d' ' -f1; } >&5
for when in EMPTY FULL; do
	hear \$when && now=\$(held \$when) && echo "\$now"
	full=\${now##* }
	echo go on >&5
done
hear REMOVED
# what is free is reported within seconds
for _ in 1 2 3 4 5 6 7 8 9 10; do
	sleep 1
	now=\$(held REMOVED)
	[ "\${now##* }" -lt \$((full - 40 * 1024)) ] && break
done
echo "\$now"
echo go on >&5
wait \$guest
echo "guest's end: \$?"
cat \$LAB_OUT/console \$LAB_OUT/counters
END

held() { sed -n "s/^held $1 //p" "$TMP/log" | tail -n 1; }

runs=("")
[ -z "${FULL:-}" ] || runs+=(",ring=packed")
for keys in "${runs[@]}"; do
	what=${keys#,}
	what=${what:-ring=split}
	lab_run 300 "bash $TMP/run '$keys'" >"$TMP/log" 2>&1
	tr -d '\r' <"$TMP/log" | sed -n "s/^\(PASS\|FAIL\) /\1 $name: $what: /p" >"$TMP/lines"
	cat "$TMP/lines"
	failures=$((failures + $(grep -c ^FAIL "$TMP/lines")))
	check "$what: every part ran" [ "$(grep -c ^PASS "$TMP/lines")" = 13 ]
	empty=$(held EMPTY) full=$(held FULL) removed=$(held REMOVED)
	echo "# KiB held: $empty, with 48 MiB more in use $full, free again $removed"
	check "$what: not more than what the balloon left" [ "${empty:-999999}" -lt $((224 * 1024)) ]
	check "$what: memory in use is held" [ "${full:-0}" -gt $((${empty:-0} + 40 * 1024)) ]
	check "$what: free memory goes back" [ "${removed:-999999}" -lt $((${full:-0} - 40 * 1024)) ]
	check "$what: the guest powers off" grep -q "guest's end: 0" "$TMP/log"
	check "$what: nothing went wrong" [ "$(grep -cE '^virtio-(console|rng|balloon) .* 0$' "$TMP/log")" = 3 ]
	[ $failures = 0 ] || tail -n 60 "$TMP/log"
done
finish
