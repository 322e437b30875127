#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run: Debian on one kind of disk, from power-on to login, worked with, its plug pulled, and
# started again. debian.sh MODEL IMAGE INITRAMFS [raw|qcow2]
. tests/linux/host.bash
. tests/lab/lab.bash
. tests/lab/debian.bash
model=$1 base=$2 initramfs=$3 format=${4:-raw}
ROUNDS=3
image=$T/root.$format

# steps LINE...: the script of a visit to the console, from power-on
steps() {
	printf '%s\n' "expect 120 login:" "send root" "expect 30 assword:" "send sluice" "expect 60 root@sluice-guest.*# " \
		"$@" >"$T/steps"
}
# visit NAME DISK-OPTION...: Debian from power-on, and what the steps say
visit() {
	local name=$1
	shift
	perl tests/linux/console.pl "$T/steps" build/sluice run --kernel "$LAB_KERNEL/vmlinux" --initrd "$initramfs" \
		--memory=512M --disk "path=$image,model=$model$*" \
		--cmdline "$(lab_debian_cmdline)" >"$T/$name" 2>&1
}
said() { tr -d '\r' <"$T/$1" | grep -q "$2"; }
saw() { if said "$2" "$3"; then echo "PASS $model: $1"; else echo "FAIL $model: $1: $(tail -n 3 "$T/$2" | tr '\r\n' '  ')"; fi; }
needs_recovery() { dumpe2fs -h "$T/raw" 2>/dev/null | grep -q needs_recovery; }
# The image as a file system, whatever its format.
as_raw() {
	if [ "$format" = raw ]; then
		ln -f "$image" "$T/raw"
	else
		qemu-img convert -O raw "$image" "$T/raw"
	fi
}

cp --sparse=always "$base" "$T/base"
debugfs -w -f /dev/stdin "$T/base" >/dev/null 2>&1 <<-'COMMANDS'
	write tests/linux/debian-work usr/local/bin/debian-work
	set_inode_field usr/local/bin/debian-work mode 0100755
COMMANDS
if [ "$format" = raw ]; then
	mv "$T/base" "$image"
else
	qemu-img create -q -f qcow2 -b "$T/base" -F raw "$image"
fi

steps "send debian-work look" "expect 60 STATE .*\." "send debian-work write" "expect 120 SYNCED $ROUNDS\." "kill"
visit first ",fault=cache:torn=4096:seed=$RANDOM"
same "$model: the plug was pulled" $? 137
saw "boots to a login on the console" first "login:"
disk=$([ "$model" = ide ] && echo sda || echo vda)
saw "the root file system is ext4 on /dev/$disk" first "ROOT /dev/$disk ext4 KERNEL Linux"
saw "every unit of Debian has started" first "STATE running\."

as_raw
if needs_recovery; then echo "PASS $model: the journal has something to replay"; else echo "FAIL $model: the journal is empty"; fi
steps "send debian-work check $ROUNDS" "expect 60 ROUNDS $ROUNDS LOST [0-9]+\." "send systemctl poweroff" "wait 90"
visit second
same "$model: shut down by Debian itself" $? 0
saw "the journal was replayed" second JOURNAL-REPLAYED
saw "every synced file is there" second "ROUNDS $ROUNDS LOST 0\."
as_raw
e2fsck -fn "$T/raw" >"$T/fsck" 2>&1
same "$model: fsck finds nothing ($(tail -n 1 "$T/fsck"))" $? 0
if needs_recovery; then echo "FAIL $model: the journal was not closed"; else echo "PASS $model: the journal was closed"; fi
echo DEBIAN-DONE
