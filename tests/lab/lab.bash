# SPDX-License-Identifier: BSD-2-Clause
# The laboratory: an emulated machine with hardware virtualization, in which a stock Debian kernel runs a
# true KVM. A library for bash, to be sourced in the top folder of the tree; README.md says how it is used.
#
#   lab_reason                     prints why there can be no laboratory; nothing when there can be
#   lab_prepare                    makes what is missing below build/lab/
#   lab_run SECONDS COMMAND        runs a command in it (or on the host, where its own KVM will do)
#   lab_initramfs INIT MODULE...   prints the name of an initramfs for a guest
LAB=build/lab
LAB_CPUS=${LAB_CPUS:-1}
LAB_MEMORY=${LAB_MEMORY:-6144}
LAB_TIMED_OUT=124
LAB_BROKEN=125
# What a host of guests needs. Dependencies are found.
LAB_MODULES="virtio_pci virtio_console 9pnet_virtio 9p overlay kvm-amd tun tap bridge veth vhost_net
	vhost_vsock loop crc32c_generic ext4 dm-flakey dm-snapshot null_blk"

# The host's own KVM runs stock kernels: no laboratory needed. LAB_FORCE=1 uses it all the same.
lab_native() {
	[ -z "${LAB_FORCE:-}" ] && [ -r /dev/kvm ] && [ -w /dev/kvm ] && [ ! -e /sys/module/kvm_pvm ] &&
		{ [ -e /sys/module/kvm_amd ] || [ -e /sys/module/kvm_intel ]; }
}

lab_reason() {
	local tool
	for tool in dpkg-deb apt-get depmod cpio xz flock; do
		if ! command -v "$tool" >/dev/null && ! [ -x "/sbin/$tool" ]; then
			echo "$tool is not installed"
			return
		fi
	done
	if ! lab_native && ! command -v qemu-system-x86_64 >/dev/null; then
		echo "QEMU is not installed (apt-get install qemu-system-x86)"
	fi
}

# ------------------------------------------------------------------ Debian packages, unpacked only

# lab_package NAME: downloads and unpacks one into build/lab/NAME_VERSION, unless it is there; prints that folder
lab_package() {
	local name=$1 version dir work sandbox=()
	version=$(apt-cache show --no-all-versions "$name" 2>/dev/null | sed -n 's/^Version: //p')
	dir=$LAB/${name}_${version//[^a-zA-Z0-9.+~-]/_}
	if [ -n "$version" ] && [ -d "$dir" ]; then
		echo "$dir"
		return
	fi
	if [ -z "$version" ]; then
		# No lists: the newest that was unpacked before will do.
		dir=$(find "$LAB" -maxdepth 1 -name "${name}_*" ! -name '*.new' | sort -V | tail -n 1)
		echo "$dir"
		[ -n "$dir" ]
		return
	fi
	[ "$(id -u)" != 0 ] || sandbox=(-o APT::Sandbox::User=root)
	work=$(mktemp -d "$LAB/unpack.XXXXXX") || return
	if (cd "$work" && apt-get download -qq "${sandbox[@]}" "$name") >&2 &&
		dpkg-deb -x "$work"/*.deb "$work/x" && mv -T "$work/x" "$dir"; then
		rm -rf "$work"
		echo "$dir"
		return
	fi
	rm -rf "$work"
	return 1
}

lab_kernel_name() {
	apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' |
		head -n 1
}

# lab_vmlinux BZIMAGE FILE: the ELF image that a compressed kernel carries
lab_vmlinux() {
	local at
	at=$(LC_ALL=C grep -obaUP '\xfd7zXZ' "$1" | head -n 1 | cut -d: -f1)
	if [ -n "$at" ]; then
		tail -c "+$((at + 1))" "$1" | xz -dcq >"$2" 2>/dev/null
	else
		at=$(LC_ALL=C grep -obaUP '\x28\xb5\x2f\xfd' "$1" | head -n 1 | cut -d: -f1)
		tail -c "+$((at + 1))" "$1" | zstd -dcq >"$2" 2>/dev/null
	fi
	[ -s "$2" ]
}

# The kernel that both levels run: build/lab/kernel/{vmlinuz,vmlinux,config,release,lib/modules}, and busybox
lab_fetch() {
	local name dir release
	name=$(lab_kernel_name)
	if [ -z "$name" ] && [ "$(id -u)" = 0 ] && [ ! -d "$LAB/kernel" ]; then
		apt-get update -qq >&2
		name=$(lab_kernel_name)
	fi
	if [ -z "$name" ] && [ ! -d "$LAB/kernel" ]; then
		echo "apt knows no linux-image-amd64 (apt-get update)" >&2
		return 1
	fi
	if [ -n "$name" ]; then
		dir=$(lab_package "$name") || return
		if [ ! -e "$dir/complete" ]; then
			release=$(ls "$dir/lib/modules")
			depmod -b "$dir" "$release" &&
				lab_vmlinux "$dir/boot/vmlinuz-$release" "$dir/vmlinux" || return
			ln -sf "boot/vmlinuz-$release" "$dir/vmlinuz"
			ln -sf "boot/config-$release" "$dir/config"
			echo "$release" >"$dir/release"
			: >"$dir/complete"
		fi
		ln -sfn "$(basename "$dir")" "$LAB/kernel"
	fi
	dir=$(lab_package busybox-static) && ln -sfn "$(basename "$dir")" "$LAB/busybox"
}

# lab_modules DIR MODULE...: copies modules and what they need into DIR/modules, and writes their order
lab_modules() {
	local dir=$1 modules release
	shift
	release=$(cat "$LAB/kernel/release")
	modules=$LAB/kernel/lib/modules/$release
	mkdir -p "$dir/modules"
	# modules.dep names all that a module needs, what is needed first last.
	printf '%s\n' "$@" | awk '
		NR == FNR { if (NF) want[++n] = $1; next }
		{ path = $1; sub(/:$/, "", path); name = path; sub(/.*\//, "", name); sub(/\.ko.*/, "", name)
		  gsub(/-/, "_", name); needs[name] = path; for (i = 2; i <= NF; i++) needs[name] = $i " " needs[name] }
		END { for (w = 1; w <= n; w++) { name = want[w]; gsub(/-/, "_", name)
			if (!(name in needs)) { print "no module " want[w] >"/dev/stderr"; bad = 1; continue }
			k = split(needs[name], p, " "); for (i = 1; i <= k; i++) if (!seen[p[i]]++) print p[i] }
			exit bad }' - "$modules/modules.dep" >"$dir/modules/list" || return
	while read -r module; do
		cp "$modules/$module" "$dir/modules/" || return
	done <"$dir/modules/list"
	sed 's,.*/,,' "$dir/modules/list" >"$dir/modules/order"
	rm "$dir/modules/list"
}

lab_cpio() { (cd "$1" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0); }

# ------------------------------------------------------------------ the saved state

# What the saved state is made of, as one word.
lab_key() {
	{
		dpkg-query -W -f '${Version}' qemu-system-x86
		readlink "$LAB/kernel" "$LAB/busybox"
		cat tests/lab/init tests/lab/lab.bash
		echo "$LAB_CPUS $LAB_MEMORY"
	} 2>/dev/null | sha256sum | cut -c1-16
}

# lab_qemu DIR ARGUMENT...: becomes the emulated machine; its serial port goes to DIR/console, standard
# input and output to the program inside
lab_qemu() {
	local dir=$1 out
	shift
	out=$(readlink -f "$dir")
	exec setpriv --pdeathsig KILL qemu-system-x86_64 -accel tcg,thread=multi -cpu max,la57=off \
		-smp "$LAB_CPUS" -m "$LAB_MEMORY" -nodefaults -display none -no-reboot \
		-kernel "$LAB/kernel/vmlinux" -initrd "$LAB/initrd-$LAB_KEY" \
		-append "console=ttyS0 panic=-1 quiet mitigations=off" \
		-chardev "file,id=console,path=$out/console" -serial chardev:console \
		-device virtio-serial-pci -device virtserialport,chardev=lab,name=lab \
		-fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
		-device virtio-9p-pci,fsdev=host,mount_tag=host \
		-fsdev "local,id=out,path=$out,security_model=none" \
		-device virtio-9p-pci,fsdev=out,mount_tag=out "$@"
}

lab_save() {
	local dir monitor pid tries=0
	dir=$(mktemp -d "$LAB/save.XXXXXX") || return
	mkdir -p "$dir"/root/{bin,dev,proc,sys,host,upper,new} "$dir/share"
	cp "$LAB/busybox/bin/busybox" "$dir/root/bin/"
	cp tests/lab/init "$dir/root/init"
	chmod 755 "$dir/root/init"
	# shellcheck disable=SC2086
	lab_modules "$dir/root" $LAB_MODULES || return
	lab_cpio "$dir/root" >"$LAB/initrd-$LAB_KEY" || return
	mkfifo "$dir/monitor"
	(lab_qemu "$dir" -chardev file,id=lab,path=/dev/null -monitor stdio <>"$dir/monitor" >"$dir/log" 2>&1) &
	pid=$!
	until grep -q LAB-READY "$dir/console" 2>/dev/null; do
		sleep 0.1
		if [ $((tries += 1)) = 1200 ] || ! kill -0 $pid 2>/dev/null; then
			kill $pid 2>/dev/null
			wait $pid
			echo "the laboratory's machine did not come up:" >&2
			tail -n 20 "$dir/log" "$dir/console" >&2
			return 1
		fi
	done
	sleep 0.3
	{
		echo "migrate_set_parameter max-bandwidth 100g"
		echo "migrate \"exec:cat >$dir/state\""
		echo "quit"
	} 1<>"$dir/monitor"
	wait $pid
	if [ ! -s "$dir/state" ]; then
		echo "the laboratory's state could not be saved:" >&2
		tail -n 20 "$dir/log" >&2
		return 1
	fi
	mv "$dir/state" "$LAB/saved-$LAB_KEY"
	rm -rf "$dir"
}

# Makes what is missing. Several may ask at once; one does the work.
lab_prepare() {
	local why
	why=$(lab_reason)
	if [ -n "$why" ]; then
		echo "laboratory: $why" >&2
		return 1
	fi
	mkdir -p "$LAB"
	(
		flock 9
		rm -rf "$LAB"/unpack.* "$LAB"/save.*
		lab_fetch || exit 1
		! lab_native || exit 0
		LAB_KEY=$(lab_key)
		[ -s "$LAB/saved-$LAB_KEY" ] || lab_save
	) 9>"$LAB/lock"
}

# ------------------------------------------------------------------ one run

# What the command sees, on either kind of host.
lab_environment() {
	local v
	for v in FULL V SAN; do
		[ -z "${!v:-}" ] || printf 'export %s=%q\n' "$v" "${!v}"
	done
	printf 'export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n'
	printf 'export LAB_OUT=%q LAB_KERNEL=%q\n' "$1" "$(readlink -f "$LAB/kernel")"
	printf 'cd %q || exit\n' "$PWD"
}

# lab_run SECONDS COMMAND: its output, as it comes; its status, or 124 after SECONDS, or 125 when the
# laboratory itself did not do. What it leaves in $LAB_OUT is in the folder named by LAB_KEEP, if that is set.
lab_run() {
	local seconds=$1 command=$2 why
	why=$(lab_reason)
	if [ -n "$why" ]; then
		echo "laboratory: $why" >&2
		return $LAB_BROKEN
	fi
	[ -d "$LAB/kernel" ] || lab_prepare || return $LAB_BROKEN
	if lab_native; then
		lab_run_native "$seconds" "$command"
		return
	fi
	LAB_KEY=$(lab_key)
	[ -s "$LAB/saved-$LAB_KEY" ] || lab_prepare || return $LAB_BROKEN
	(
		dir=$(mktemp -d "$LAB/run.XXXXXX") || exit $LAB_BROKEN
		qemu='' feeder=''
		trap 'kill $feeder $qemu 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM HUP
		{
			lab_environment /out
			printf '%s\n' "$command"
		} >"$dir/command"
		mkfifo "$dir/in" "$dir/fifo" "$dir/never"
		cat "$dir/fifo" &
		copier=$!
		(lab_qemu "$dir" -chardev stdio,id=lab,signal=off -incoming "exec:cat $LAB/saved-$LAB_KEY" \
			<>"$dir/in" >"$dir/fifo" 2>"$dir/errors") &
		qemu=$!
		# It may be asked before it listens, so it is asked until it begins. And it is nudged for as long as it runs:
		# README.md, "What the emulator loses".
		(
			ticks=0
			# A shell that was killed takes its run with it.
			while kill -0 $$ && [ $((ticks += 1)) -le $((seconds * 10)) ]; do
				echo >&8
				read -rt 0.1 _ <&7
			done
			: >"$dir/late"
			kill $qemu
		) 8<>"$dir/in" 7<>"$dir/never" >/dev/null 2>&1 &
		feeder=$!
		wait $qemu
		qemu=''
		wait $copier
		[ -z "${LAB_KEEP:-}" ] || { mkdir -p "$LAB_KEEP" && cp -r "$dir/." "$LAB_KEEP/"; }
		if [ -s "$dir/status" ]; then
			exit "$(cat "$dir/status")"
		elif [ -e "$dir/late" ]; then
			echo "laboratory: ended after $seconds s"
			exit $LAB_TIMED_OUT
		fi
		echo "laboratory: it ended by itself; its console's last words:"
		tail -n 20 "$dir/errors" "$dir/console"
		exit $LAB_BROKEN
	)
}

lab_run_native() {
	local seconds=$1 command=$2 unshare=()
	[ "$(id -u)" != 0 ] || unshare=(unshare -n -m)
	(
		dir=$(mktemp -d "$LAB/run.XXXXXX") || exit $LAB_BROKEN
		trap 'rm -rf "$dir"' EXIT
		{
			lab_environment "$(readlink -f "$dir")"
			[ ${#unshare[@]} = 0 ] || echo "ip link set lo up"
			printf '%s\n' "$command"
		} >"$dir/command"
		timeout -k 5 "$seconds" "${unshare[@]}" bash "$dir/command" </dev/null 2>&1
		status=$?
		[ -z "${LAB_KEEP:-}" ] || { mkdir -p "$LAB_KEEP" && cp -r "$dir/." "$LAB_KEEP/"; }
		exit $status
	)
}

# ------------------------------------------------------------------ pieces of guests

# lab_initramfs INIT MODULE...: an initramfs of busybox, modules of the stock kernel (loaded by name with
# `load`, in guest.sh) and the script INIT. Words with a slash are host files or programs to take along,
# with the libraries they need. Made once, kept below build/lab; prints its name.
lab_initramfs() {
	local init=$1 word key out dir modules=() files=()
	shift
	for word in "$@"; do
		case $word in
		*/*) files+=("$word") ;;
		*) modules+=("$word") ;;
		esac
	done
	key=$({
		readlink "$LAB/kernel" "$LAB/busybox"
		cat "$init" tests/lab/guest.sh tests/lab/lab.bash
		echo "$*"
		[ ${#files[@]} = 0 ] || stat -L -c '%n %s %Y' "${files[@]}"
	} | sha256sum | cut -c1-16)
	out=$LAB/initramfs-$key
	if [ ! -s "$out" ]; then
		dir=$(mktemp -d "$LAB/unpack.XXXXXX") || return
		mkdir -p "$dir"/{bin,dev,proc,sys,tmp,mnt,etc,root}
		cp "$LAB/busybox/bin/busybox" "$dir/bin/"
		cp tests/lab/guest.sh "$dir/guest.sh"
		cp "$init" "$dir/init" && chmod 755 "$dir/init"
		lab_modules "$dir" "${modules[@]}" || return
		for word in "${files[@]}"; do
			mkdir -p "$dir/$(dirname "$word")"
			cp -L "$word" "$dir/$word" || return
			ldd "$word" 2>/dev/null | grep -o '/[^ ]*' | while read -r lib; do
				mkdir -p "$dir/$(dirname "$lib")"
				cp -L "$lib" "$dir/$lib"
			done
		done
		lab_cpio "$dir" >"$out.$$" && mv "$out.$$" "$out" || return
		rm -rf "$dir"
	fi
	echo "$out"
}
