#!/usr/bin/env bash
# A tree of the host's in a stock guest: virtiofsd serves it (--fs), the guest mounts it.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
need_lab
virtiofsd=
for f in /usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd; do
	[ ! -x $f ] || virtiofsd=$f
done
if [ -z "$virtiofsd" ]; then
	skip all "virtiofsd is not installed (qemu-system-common has it)"
	exit 0
fi
initramfs=$(lab_initramfs tests/linux/init-fs virtio_pci virtiofs)
guest_lines 300 FS-DONE "bash tests/linux/fs.sh $initramfs $virtiofsd"
finish
