#!/usr/bin/env bash
# make install, below DESTDIR, is complete: what is installed runs from there.
. "$(dirname "$0")/lib.bash"

make --no-print-directory -s install DESTDIR="$PWD/$TMP/root" PREFIX=/usr >"$TMP/log" 2>&1
check "make install" [ $? = 0 ]
check "sluice version" sh -c '"$1/root/usr/bin/sluice" version | grep -q "^sluice [0-9]"' sh "$TMP"
check "sluice bench finds its program" sh -c '"$1/root/usr/bin/sluice" bench --help | grep -q "sluice bench"' sh "$TMP"
if [ -w /dev/kvm ]; then
	check "the installed guest boots" sh -c 'timeout 60 "$1/root/usr/bin/sluice" run --kernel "$1/root/usr/libexec/sluice/guest.elf" \
		--cmdline job=idle,ms=10 </dev/null | grep -q SLUICE-DONE' sh "$TMP"
else
	skip "the installed guest boots" "no access to /dev/kvm"
fi
check "make help" sh -c 'make help | grep -q "  demo "'
finish
