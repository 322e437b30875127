#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# The command line: every kind of mistake gives one line that names it and says what would do, with status 2 (the user's) or 1
# (the host's); help fits a terminal; the terminal comes back as it was.
. "$(dirname "$0")/lib.bash"

image=$TMP/disk.img
truncate -s 4M "$image"
truncate -s 300 "$TMP/short.img"
: >"$TMP/empty.img"
printf 'no kernel\n' >"$TMP/text"

# judge CASE STATUS PATTERN GOT: one line on standard error, nothing on standard output
judge() {
	local what=$1 want=$2 pattern=$3 got=$4
	if [ "$got" != "$want" ]; then
		fail "$what" "status $got, not $want: $(head -n 1 "$TMP/err")"
	elif [ "$(wc -l <"$TMP/err")" != 1 ]; then
		fail "$what" "$(wc -l <"$TMP/err") lines, not one: $(head -n 2 "$TMP/err" | tr '\n' '|')"
	elif [ -s "$TMP/out" ]; then
		fail "$what" "wrote on standard output: $(head -n 1 "$TMP/out")"
	elif ! grep -qE -- "^sluice.*: .*$pattern" "$TMP/err"; then
		fail "$what" "no '$pattern' in: $(cat "$TMP/err")"
	else
		pass "$what"
	fi
}

# bad CASE STATUS PATTERN ARGUMENTS...
bad() {
	local what=$1 want=$2 pattern=$3
	shift 3
	timeout 60 "$SLUICE" "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
	judge "$what" "$want" "$pattern" $?
}

run=(run --kernel "$GUEST")

bad "no command" 2 "use run, bench, devices, screen, watch, screenshot, type, key, version or help"
bad "unknown command" 2 "frob: unknown command; use" frob
bad "unknown option" 2 "--colour: unknown option; .*--help" "${run[@]}" --colour red
bad "a word that is no option" 2 "vmlinux: not an option" run vmlinux
bad "an option without its value" 2 "--cpus: a value is missing" run --cpus
bad "a flag with a value" 2 "--hugepages: takes no value" run --hugepages=on
bad "an option twice" 2 "--cpus: given twice" "${run[@]}" --cpus 1 --cpus=2
bad "no kernel" 2 "--kernel: missing; give --kernel FILE" run

bad "a boot order of no letters" 2 "--boot xyz: use up to three of the letters a, c, d and n" run --boot xyz
bad "firmware that is missing" 2 "--firmware $TMP/none: " run --firmware "$TMP/none"
bad "firmware of no size" 2 "--firmware $TMP/text: .*an image of 64 KiB to 12 MiB, a multiple of 4 KiB, would do" run --firmware "$TMP/text"
head -c 131072 /dev/zero >"$TMP/bios"
bad "a CD that is none" 2 "--disk path=$TMP/bios: no CD image: there is no ISO 9660 volume descriptor in it; for a disk use model=ide" "${run[@]}" --disk "path=$TMP/bios,model=ide-cd"
bad "variables that are missing" 2 "--firmware vars=$TMP/none: No such file" run --firmware "$TMP/bios,vars=$TMP/none"
bad "variables of no size" 2 "--firmware vars=$TMP/text: .*a multiple of 4 KiB, up to 4 MiB, would do" run --firmware "$TMP/bios,vars=$TMP/text"
bad "firmware without a name" 2 "--firmware: no file; use --firmware FILE or" run --firmware ",vars=$TMP/text"
bad "firmware and a kernel" 2 "--firmware $TMP/text: .*give one of them" "${run[@]}" --firmware "$TMP/text"
bad "a firmware's log without firmware" 2 "--firmware-log: there is no firmware" "${run[@]}" --firmware-log "$TMP/log"
bad "a firmware's log that cannot be written" 1 "--firmware-log $TMP/none/log: cannot be written" run --firmware "$TMP/text" --firmware-log "$TMP/none/log"
bad "kernel that is missing" 2 "--kernel $TMP/none: " run --kernel "$TMP/none"
bad "kernel that is a directory" 2 "--kernel $TMP: .*bzImage" run --kernel "$TMP"
bad "kernel that is neither kind" 2 "--kernel $TMP/text: not an ELF image and no bzImage" run --kernel "$TMP/text"
bad "kernel that is empty" 2 "--kernel $TMP/empty.img: " run --kernel "$TMP/empty.img"
bad "kernel without a PVH note" 2 "--kernel $SLUICE: .*" run --kernel "$SLUICE"

head -c 100 "$GUEST" >"$TMP/cut"
bad "kernel that is cut short" 2 "--kernel $TMP/cut: a damaged ELF image: " run --kernel "$TMP/cut"
{ head -c 18 "$GUEST" && printf '\267\0' && tail -c +21 "$GUEST"; } >"$TMP/arm"
bad "kernel for another machine" 2 "--kernel $TMP/arm: an ELF image for another machine" run --kernel "$TMP/arm"
gzip -c "$GUEST" >"$TMP/gz"
bad "kernel that is packed" 2 "--kernel $TMP/gz: .*gunzip it first" run --kernel "$TMP/gz"
{ head -c 510 /dev/zero && printf '\125\252\353\146HdrS\017\002' && head -c 200 /dev/zero; } >"$TMP/bz"
bad "bzImage that is cut short" 2 "--kernel $TMP/bz: a bzImage " run --kernel "$TMP/bz"

bad "initrd that is missing" 2 "--initrd $TMP/none: No such" "${run[@]}" --initrd "$TMP/none"
bad "initrd that is empty" 2 "--initrd $TMP/empty.img: empty" "${run[@]}" --initrd "$TMP/empty.img"
bad "initrd that is a directory" 2 "--initrd $TMP: not a regular file" "${run[@]}" --initrd "$TMP"
truncate -s 100M "$TMP/large"
bad "initrd larger than memory" 2 "--initrd $TMP/large: .*room" "${run[@]}" --memory 64M --initrd "$TMP/large"
bad "processor nobody makes" 2 "--cpu v9: .*use host, v2 or v3" "${run[@]}" --cpu v9

bad "memory without a unit" 2 "--memory 5: .*unit, as in 512M" "${run[@]}" --memory 5
bad "memory that is no size" 2 "--memory lots: not a size; .*512M" "${run[@]}" --memory lots
bad "memory with an unknown unit" 2 "--memory 1X: not a size" "${run[@]}" --memory 1X
bad "memory that is no multiple" 2 "--memory 3M: .*multiple.*4M" "${run[@]}" --memory 3M
bad "memory that overflows" 2 "--memory 99999999999G: " "${run[@]}" --memory 99999999999G
bad "memory the host does not have" 1 "--memory 8T: " "${run[@]}" --memory 8T
bad "no processors" 2 "--cpus 0: .*1 to 64" "${run[@]}" --cpus 0
bad "too many processors" 2 "--cpus 65: .*1 to 64" "${run[@]}" --cpus 65
bad "processors that are no number" 2 "--cpus two: .*1 to 64" "${run[@]}" --cpus two
bad "no I/O threads" 2 "--io-threads 0: .*1 to 16" "${run[@]}" --io-threads 0
bad "polling for ever" 2 "--poll-us 9999999999: .*0 to 1000000" "${run[@]}" --poll-us 9999999999
bad "console nowhere" 2 "--console here: .*stdio, none, file=PATH, unix=PATH or pty" "${run[@]}" --console here
bad "console that cannot be written" 1 "--console file=$TMP: " "${run[@]}" --console "file=$TMP"
bad "serial port nowhere" 2 "--serial here: .*stdio, none, file=PATH, unix=PATH or pty" "${run[@]}" --serial here
bad "serial port that cannot be written" 1 "--serial 2 file=$TMP: cannot be written" "${run[@]}" --serial none --serial "file=$TMP"
bad "serial port at no socket" 1 "--serial unix=$TMP/none/s: No such file" "${run[@]}" --serial "unix=$TMP/none/s"
bad "serial port at a file for a socket" 1 "--serial unix=$TMP/text: exists and is no socket" "${run[@]}" --serial "unix=$TMP/text"
bad "two serial ports on one terminal" 2 "--serial stdio: another port has the terminal" "${run[@]}" --serial stdio --serial stdio
bad "a display of no kind" 2 "--display gtk: unknown display; use curses or none" "${run[@]}" --display gtk
bad "a display without a screen" 2 "--display curses: this guest has no screen" "${run[@]}" --display curses
bad "a display without a terminal" 2 "--display curses: standard input and output are to be a terminal" run --firmware "$TMP/text" --display curses
bad "a display and a console on one terminal" 2 "--console stdio: the display has the terminal" run --firmware "$TMP/text" --display curses --console stdio
bad "a printer on the terminal" 2 "--parallel stdio: a printer has no terminal; use none, file=PATH" "${run[@]}" --parallel stdio
bad "a printer nowhere" 2 "--parallel here: unknown place" "${run[@]}" --parallel here
bad "five serial ports" 2 "--serial pty: too many ports; at most 4" "${run[@]}" --serial none --serial none --serial none --serial none --serial pty
bad "a console that is a serial port" 2 "--console: the same as the first --serial" "${run[@]}" --console none --serial none

bad "hvc nowhere" 2 "--hvc here: .*stdio, none or file=PATH" "${run[@]}" --hvc here
bad "hvc that cannot be written" 1 "--hvc file=$TMP: " "${run[@]}" --hvc "file=$TMP"
bad "two consoles on one terminal" 2 "--hvc stdio: .*leave --console stdio out" "${run[@]}" --hvc stdio --console stdio
bad "rng with a value" 2 "--rng: takes no value" "${run[@]}" --rng=fast
bad "balloon without a value" 2 "--balloon size=: a value is missing" "${run[@]}" --balloon size
bad "balloon that is no size" 2 "--balloon size=big: not a size" "${run[@]}" --balloon size=big
bad "balloon as large as the guest" 2 "--balloon size=64M: the guest has 64M" "${run[@]}" --memory 64M --balloon size=64M
bad "balloon that is no multiple" 2 "--balloon size=5000: .*multiple of 4K" "${run[@]}" --balloon size=5000
bad "balloon and pinned memory" 2 "--balloon: not with --disk registered=on" "${run[@]}" --balloon size=0 --disk "path=$image,registered=on"
bad "balloon key that is unknown" 2 "--balloon colour: unknown key; use size" "${run[@]}" --balloon colour=red
bad "balloon as a disk" 2 "model=virtio-balloon: that is no disk model; use --balloon" "${run[@]}" --disk "path=$image,model=virtio-balloon"

bad "disk without an image" 2 "--disk model: no image; add path=FILE, fd=N or nbd=URI" "${run[@]}" --disk model=ide
bad "disk that is missing" 2 "--disk path=$TMP/none: no such file" "${run[@]}" --disk "path=$TMP/none"
bad "disk that is a directory" 2 "--disk path=$TMP: is a directory" "${run[@]}" --disk "path=$TMP"
bad "disk that is short" 2 "--disk path=$TMP/short.img: .*512" "${run[@]}" --disk "path=$TMP/short.img"
bad "disk that is empty" 2 "--disk path=$TMP/empty.img: " "${run[@]}" --disk "path=$TMP/empty.img"
bad "disk of a closed descriptor" 2 "--disk fd.*99: not an open descriptor" "${run[@]}" --disk fd=99
bad "disk in use twice" 1 "--disk path=$image: in use" "${run[@]}" --disk "path=$image" --disk "path=$image"
bad "unknown model" 2 "model=floppy: unknown model; use one of virtio-blk, ide" "${run[@]}" --disk "path=$image,model=floppy"
bad "a network model for a disk" 2 "model=e1000: .*use it with --net" "${run[@]}" --disk "path=$image,model=e1000"
bad "unknown engine" 2 "engine=foo: unknown engine; use io_uring, aio, threads or auto" "${run[@]}" --disk "path=$image,engine=foo"
bad "unknown key" 2 "colour: unknown key; use path, fd, nbd, model" "${run[@]}" --disk "path=$image,colour=red"
bad "key of another model" 2 "ring=packed: model ide has no such option" "${run[@]}" --disk "path=$image,model=ide,ring=packed"
bad "key twice" 2 "path=: given twice" "${run[@]}" --disk "path=$image,path=$image"
bad "key without a value" 2 "ring=: a value is missing; use split.packed" "${run[@]}" --disk "path=$image,ring="
bad "queues out of range" 2 "queues=65: .*1 to 64" "${run[@]}" --disk "path=$image,queues=65"
bad "queue size that is no power of two" 2 "queue-size=100: .*power of two" "${run[@]}" --disk "path=$image,queue-size=100"
bad "serial number too long" 2 "serial=.*20" "${run[@]}" --disk "path=$image,serial=123456789012345678901"
bad "line feed in a value" 2 "serial=a.b: not printable" "${run[@]}" --disk "path=$image,serial=a"$'\n'"b"

bad "card without a port" 2 "--net model: no port; add tap=NAME" "${run[@]}" --net model=e1000
bad "unknown network model" 2 "model=tulip: unknown model; use one of virtio-net, e1000, ne2k_pci" "${run[@]}" --net mem=sink,model=tulip
bad "unknown memory port" 2 "mem=void: .*sink, source or echo" "${run[@]}" --net mem=void
bad "hardware address of a group" 2 "mac=01:.*even" "${run[@]}" --net mem=sink,mac=01:00:5e:00:00:01
bad "card of a closed descriptor" 2 "--net .*99: not an open descriptor" "${run[@]}" --net fd=99
bad "forward of an unknown protocol" 2 "hostfwd=ftp::1-:2: neither tcp: nor udp:; use tcp:127.0.0.1:8080-:80" "${run[@]}" --net user,hostfwd=ftp::1-:2
bad "forward without user" 2 "hostfwd=tcp::1-:2: only with user; write --net user,hostfwd=" "${run[@]}" --net tap=t,hostfwd=tcp::1-:2
bad "user's network that is none" 2 "net=10.0.2.7/24: not the first address of a /24; use 10.0.2.0/24" "${run[@]}" --net user,net=10.0.2.7/24
bad "user with several queues" 2 "queues=2: user carries one queue pair" "${run[@]}" --net user,queues=2
bad "one port forwarded twice" 1 "--net hostfwd=tcp:127.0.0.1:47999-:80: the host's port is in use; choose another" \
	"${run[@]}" --net user,hostfwd=tcp::47999-:80 --net user,hostfwd=tcp::47999-:80
bad "card on an interface that is no tap" 2 "--net tap=lo .*tap" "${run[@]}" --net tap=lo

bad "vsock without an address" 2 "--vsock socket=.*add cid=3" "${run[@]}" --vsock "socket=$TMP/v"
bad "vsock with the host's address" 2 "--vsock cid=2: .*use 3 to" "${run[@]}" --vsock "cid=2,socket=$TMP/v"
bad "vsock where there is no folder" 2 "--vsock socket=$TMP/none/v: No such file" "${run[@]}" --vsock "cid=3,socket=$TMP/none/v"
bad "vsock on a file" 1 "--vsock socket=.*exists and is no socket" "${run[@]}" --vsock "cid=3,socket=$image"
bad "vsock given twice" 2 "--vsock: given twice" "${run[@]}" --vsock cid=3,socket=a --vsock cid=4,socket=b

bad "devices: unknown model" 2 "tulip: unknown model; use one of" devices tulip
bad "version: arguments" 2 "takes no arguments" version now
SLUICE_LIBEXEC=$TMP bad "bench: program missing" 1 "sluice-bench is not there; build it" bench --quick

# the host's refusals
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
	timeout 60 unshare -m bash -c 'mount -t tmpfs none /dev && exec "$@"' - "$SLUICE" "${run[@]}" \
		>"$TMP/out" 2>"$TMP/err" </dev/null
	judge "no /dev/kvm" 1 "/dev/kvm" $?
else
	skip "no /dev/kvm" "needs root and mount namespaces"
fi
nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
if [ "$(id -u)" = 0 ] && "${nobody[@]}" test -x "$SLUICE" -a -r "$GUEST" 2>/dev/null && ! "${nobody[@]}" test -r /dev/kvm; then
	timeout 60 "${nobody[@]}" "$SLUICE" "${run[@]}" >"$TMP/out" 2>"$TMP/err" </dev/null
	judge "no permission for /dev/kvm" 1 "/dev/kvm" $?
else
	skip "no permission for /dev/kvm" "needs root, and a tree that others may read"
fi
if [ "$(id -u)" = 0 ] && unshare -n true 2>/dev/null && [ -c /dev/net/tun ]; then
	# the second card fails: the first one's tap must be gone
	unshare -n bash -c '
		timeout 60 "$1" run --kernel "$2" --net tap=clitap0 --net tap=lo >"$3/out" 2>"$3/err" </dev/null
		[ $? = 2 ] && [ "$(wc -l <"$3/err")" = 1 ] && [ ! -e /sys/class/net/clitap0 ] &&
			! ip link show clitap0 >/dev/null 2>&1' - "$SLUICE" "$GUEST" "$TMP"
	check "no half-made tap is left" [ $? = 0 ]
else
	skip "no half-made tap is left" "needs root, network namespaces and /dev/net/tun"
fi

# help
for command in "" run bench devices version; do
	# shellcheck disable=SC2086
	timeout 60 "$SLUICE" $command --help >"$TMP/out" 2>"$TMP/err" </dev/null
	status=$?
	if [ $status != 0 ] || [ -s "$TMP/err" ] || ! grep -qi '^usage: sluice' "$TMP/out"; then
		fail "help ${command:-of sluice}" "status $status, $(head -n 1 "$TMP/err")"
	elif [ "$(awk 'length > 80' "$TMP/out" | wc -l)" != 0 ]; then
		fail "help ${command:-of sluice}" "wider than 80 columns: $(awk 'length > 80' "$TMP/out" | head -n 1)"
	else
		pass "help ${command:-of sluice}"
	fi
done
check "version tells" grep -qE '^sluice [0-9.]+ \(liburing ' <("$SLUICE" version)
check "devices lists all models" [ "$("$SLUICE" devices | grep -cE '^(virtio-blk|ide|ide-cd|virtio-net|e1000|ne2k_pci|rtl8139) ')" = 7 ]
check "devices virtio-blk lists its options" grep -q 'queue-size=' <("$SLUICE" devices virtio-blk)
check "devices --json is JSON" jq -e 'length > 5' < <("$SLUICE" devices --json)

need_kvm

# what is right
timeout 60 "$SLUICE" run --kernel="$GUEST" --memory=64M --disk fd=9,ro --console "file=$TMP/console" 9<>"$image" >"$TMP/out" 2>"$TMP/err" </dev/null
status=$?
check "fd=, --key=value and --console file=" [ "$status/$(grep -c SLUICE-DONE "$TMP/console")/$(grep -v "powered off" "$TMP/out" "$TMP/err" | wc -c)" = 0/1/0 ]
timeout 60 "$SLUICE" "${run[@]}" --disk "path=$image" --verbose --counters --console none >"$TMP/out" 2>"$TMP/err" </dev/null
check "--verbose names engine and direct" grep -qE 'virtio-blk: engine=(io_uring|aio|threads) direct=(on|off)' "$TMP/err"
check "--counters prints a table" grep -qE '^exits to user space +[1-9][0-9]*$' "$TMP/err"
check "--console none prints nothing" [ ! -s "$TMP/out" ]

for signal in TERM INT HUP; do
	"$SLUICE" "${run[@]}" --cmdline job=idle,ms=30000 >"$TMP/out" 2>"$TMP/err" </dev/null &
	pid=$!
	children=("$pid")
	for _ in $(seq 200); do
		[ -s "$TMP/out" ] && break
		sleep 0.05
	done
	kill -"$signal" "$pid"
	wait "$pid"
	status=$?
	children=()
	check "SIG$signal stops cleanly" [ "$status/$(cat "$TMP/err")" = "0/sluice: stopped by SIG$signal" ]
done

# on a terminal of its own
if command -v script >/dev/null; then
	cat >"$TMP/tty.sh" <<-EOF
		stty -g >$TMP/before
		$SLUICE run --kernel $GUEST --cmdline job=idle,ms=30000
		echo "status=\$?"
		stty -g >$TMP/after
	EOF
	{
		for _ in $(seq 200); do
			grep -q 'guest ready' "$TMP/typescript" 2>/dev/null && break
			sleep 0.05
		done
		sleep 0.2
		printf '\001hq\001x'
		sleep 1
	} | timeout 60 script -qefc "bash $TMP/tty.sh" "$TMP/typescript" >/dev/null 2>&1
	check "Ctrl-A x quits" grep -q 'stopped by Ctrl-A x' "$TMP/typescript"
	check "Ctrl-A h helps" grep -q 'Ctrl-A a' "$TMP/typescript"
	check "quitting has status 0" grep -q 'status=0' "$TMP/typescript"
	check "the terminal is as it was" cmp -s "$TMP/before" "$TMP/after"
else
	skip "terminal" "no script(1)"
fi
finish
