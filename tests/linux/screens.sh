#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where real mode runs: systems that SeaBIOS boots and that speak by the screen, with keys typed at them. Each leaves pictures
# in $LAB_OUT. screens.sh [full]
. tests/linux/host.bash
bios=/usr/share/seabios/bios-256k.bin
full=${1:-}
guest=

screen() { build/sluice screen --control "$T/control" 2>/dev/null; }
# shows SECONDS TEXT: within that time
shows() {
	local end=$((SECONDS + $1))
	until screen | grep -q -- "$2"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.5
	done
}
# expect CASE SECONDS TEXT
expect() {
	if shows "$2" "$3"; then
		echo "PASS $1"
	else
		echo "FAIL $1: the screen says: $(screen | grep -v '^$' | tail -n 3 | tr '\n' '|')"
	fi
}
picture() { build/sluice screenshot --control "$T/control" "$LAB_OUT/$1.png" || echo "FAIL a picture of $1"; }
# start OPTION...
start() {
	build/sluice run --firmware $bios --control "$T/control" --console none "$@" >"$T/out" 2>&1 </dev/null &
	guest=$!
	started=("$guest")
}
stop() {
	kill -TERM "$guest"
	wait "$guest"
	same "$1: ended" $? 0
	started=()
}

# ------------------------------------------------------------------ nothing to boot: the BIOS alone

truncate -s 1M "$T/empty"
start --disk "path=$T/empty,model=ide"
expect "SeaBIOS on the screen" 60 "SeaBIOS (version"
expect "SeaBIOS finds nothing to boot" 60 "No bootable device"
picture seabios
stop SeaBIOS

# ------------------------------------------------------------------ isolinux from a CD, memtest86+ from isolinux

mkdir -p "$T/cd/isolinux"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$T/cd/isolinux/"
cp /boot/memtest86+x64.bin "$T/cd/isolinux/memtest"
cat >"$T/cd/isolinux/isolinux.cfg" <<END
SAY ISOLINUX SPEAKS FROM A CD
DEFAULT none
PROMPT 1
TIMEOUT 0
LABEL memtest
	LINUX memtest
END
xorriso -as mkisofs -quiet -o "$T/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
	-boot-info-table "$T/cd" 2>/dev/null || echo "FAIL a CD image"
start --memory 64M --boot d --disk "path=$T/empty,model=ide" --disk "path=$T/cd.iso,model=ide-cd"
expect "isolinux from a CD" 90 "ISOLINUX SPEAKS FROM A CD"
expect "isolinux: its prompt" 30 "boot:"
picture isolinux
build/sluice type --control "$T/control" 'memtest\n'
expect "memtest86+ from isolinux" 120 "Memtest86+"
build/sluice key --control "$T/control" ret
expect "memtest86+ runs" 120 "Status: Testing"
picture memtest
if [ "$full" = full ]; then
	expect "memtest86+: a full pass on 64 MiB" 1200 "Status: Pass"
	picture memtest-passed
fi
stop isolinux
# ------------------------------------------------------------------ iPXE over every model of card: DHCP, and a script by HTTP

mkdir "$T/www"
printf '#!ipxe\necho IPXE HAS A SCRIPT BY HTTP\nsleep 600\n' >"$T/www/boot.ipxe"
$BUSYBOX httpd -f -p 127.0.0.1:8099 -h "$T/www" &
httpd=$!
for model in virtio-net e1000 ne2k_pci rtl8139; do
	start --memory 64M --boot n --net "user,model=$model"
	expect "iPXE, $model: it starts" 90 "iPXE initialising devices\|iPXE .*-- Open Source"
	# while it waits for this very key, or later, when DHCP gave no file
	for _ in $(seq 20); do
		build/sluice key --control "$T/control" ctrl-b
		shows 2 'iPXE>' && break
	done
	expect "iPXE, $model: its prompt" 5 'iPXE>'
	build/sluice type --control "$T/control" 'dhcp\n'
	expect "iPXE, $model: DHCP" 60 'Configuring .* ok'
	build/sluice type --control "$T/control" 'chain http://10.0.2.2:8099/boot.ipxe\n'
	expect "iPXE, $model: a script by HTTP" 60 'IPXE HAS A SCRIPT BY HTTP'
	picture "ipxe-$model"
	stop "iPXE, $model"
done
kill $httpd
echo SCREENS-DONE
