# SPDX-License-Identifier: BSD-2-Clause
# A Debian root disk for guests: made by debootstrap from the host's own mirror, kept below build/lab under the
# name of what it was made of. To be sourced after lab.bash.
#
#   lab_debian_reason            prints why there can be none; nothing when there can be
#   lab_debian_root              prints the image's name (raw, ext4 without partitions); makes it if it is missing
#   lab_debian_initramfs         prints the initramfs that boots from it, on whatever disk it is
#   lab_debian_cmdline WORD...   prints the kernel's command line, with more words behind it
#
# The image is never written: tests use a copy (cp --sparse=always) or an overlay. Root's password is `sluice`.
# Network cards are 10.3.N.2/24, N from their hardware address 52:54:00:12:34:5(5+N), as Sluice numbers them.
DEBIAN_SUITE=bookworm
DEBIAN_LABEL=sluice-root
DEBIAN_PACKAGES=systemd-sysv,udev,kmod,iproute2,ethtool,nginx-light,fio,iperf3,e2fsprogs,login
DEBIAN_MODULES="virtio_pci virtio_blk virtio_net virtio_console virtio-rng virtio_balloon ata_piix ata_generic
	sd_mod e1000 ne2k-pci ext4 vmw_vsock_virtio_transport virtiofs"
# Nothing a test wants, and each a second or so in the laboratory.
DEBIAN_MASKED="systemd-networkd-wait-online.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer
	e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer systemd-update-utmp.service
	systemd-update-utmp-runlevel.service systemd-pstore.service dev-hugepages.mount dev-mqueue.mount
	sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount systemd-random-seed.service
	systemd-journal-flush.service iperf3.service getty-static.service getty@tty1.service logrotate.timer
	modprobe@configfs.service modprobe@dm_mod.service modprobe@loop.service modprobe@drm.service
	modprobe@efi_pstore.service modprobe@fuse.service kmod-static-nodes.service systemd-modules-load.service
	systemd-network-generator.service systemd-repart.service systemd-sysusers.service sys-kernel-config.mount
	systemd-firstboot.service systemd-machine-id-commit.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount"

lab_debian_reason() {
	local tool
	for tool in debootstrap mke2fs chroot depmod; do
		if ! command -v "$tool" >/dev/null && ! [ -x "/usr/sbin/$tool" ] && ! [ -x "/sbin/$tool" ]; then
			echo "$tool is not installed"
			return
		fi
	done
	[ "$(id -u)" = 0 ] || echo "debootstrap needs root"
}

# The mirror that this host's apt uses.
lab_debian_mirror() {
	apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(ORIGIN)' |
		awk -v s="$DEBIAN_SUITE" '$2 == s && $3 == "main" && $4 == "Debian" { print $1; exit }'
}

lab_debian_key() {
	{
		readlink "$LAB/kernel"
		cat tests/lab/debian.bash
	} | sha256sum | cut -c1-16
}

# What makes of a debootstrap folder a guest: names, accounts, network, a page to serve, modules.
lab_debian_furnish() {
	local root=$1 n unit release
	release=$(cat "$LAB/kernel/release")
	echo sluice-guest >"$root/etc/hostname"
	echo 00000000000000000000000000000001 >"$root/etc/machine-id"
	echo "LABEL=$DEBIAN_LABEL / ext4 errors=remount-ro 0 1" >"$root/etc/fstab"
	echo root:sluice | chroot "$root" chpasswd || return
	for n in 1 2 3 4 5 6; do
		printf '[Match]\nMACAddress=52:54:00:12:34:%x\n[Network]\nAddress=10.3.%d.2/24\nLinkLocalAddressing=no\n' \
			$((0x55 + n)) $n >"$root/etc/systemd/network/10-sluice-$n.network"
	done
	mkdir -p "$root/var/www/html"
	seq -f 'Sluice served this line, which is number %.0f.' 100 >"$root/var/www/html/index.html"
	rm -f "$root"/var/www/html/index.nginx-debian.html
	sed -i 's/^worker_processes.*/worker_processes 1;/; s/access_log .*/access_log off;/' "$root/etc/nginx/nginx.conf"
	chroot "$root" systemctl -q enable systemd-networkd nginx || return
	for unit in $DEBIAN_MASKED; do
		ln -sf /dev/null "$root/etc/systemd/system/$unit"
	done
	rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info}/* \
		"$root"/var/log/*.log "$root/etc/resolv.conf"
	mkdir -p "$root/lib/modules/$release"
	cp "$LAB/kernel/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$release/"
	# shellcheck disable=SC2086
	lab_modules "$root/lib/modules/$release" $DEBIAN_MODULES &&
		rm "$root/lib/modules/$release/modules/order" && depmod -b "$root" "$release"
}

lab_debian_make() {
	local out=$1 work mirror
	mirror=$(lab_debian_mirror)
	if [ -z "$mirror" ]; then
		echo "apt knows no mirror of Debian $DEBIAN_SUITE (apt-get update)" >&2
		return 1
	fi
	work=$(mktemp -d "$LAB/debian.XXXXXX") || return
	if debootstrap --variant=minbase --include="$DEBIAN_PACKAGES" "$DEBIAN_SUITE" "$work/root" "$mirror" \
		>"$work/log" 2>&1 && lab_debian_furnish "$work/root" >>"$work/log" 2>&1 &&
		mke2fs -q -t ext4 -L "$DEBIAN_LABEL" -E lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0 \
			-O ^metadata_csum_seed -d "$work/root" "$work/image" 640M >>"$work/log" 2>&1; then
		mv "$work/image" "$out"
		rm -rf "$work"
		return
	fi
	tail -n 5 "$work/log" >&2
	rm -rf "$work"
	return 1
}

lab_debian_root() {
	local why image
	why=$(lab_debian_reason)
	if [ -n "$why" ]; then
		echo "Debian root disk: $why" >&2
		return 1
	fi
	[ -d "$LAB/kernel" ] || lab_prepare || return
	image=$LAB/debian-$(lab_debian_key).img
	(
		flock 9
		[ -s "$image" ] || lab_debian_make "$image"
	) 9>"$LAB/debian-lock" || return
	echo "$image"
}

lab_debian_initramfs() {
	lab_initramfs tests/linux/init-debian virtio_pci virtio_blk ata_piix ata_generic sd_mod crc32c_generic ext4
}

lab_debian_cmdline() {
	echo "console=ttyS0 quiet panic=-1 root=LABEL=$DEBIAN_LABEL systemd.show_status=false net.ifnames=0 \
audit=0 mitigations=off $*"
}
