#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# sluice-bridge: its command line, its control socket, DPDK's testpmd as a driver of vhost-user ports, taps in namespaces,
# and a stock guest under QEMU (plain emulation) whose bridge is killed under traffic.
. "$(dirname "$0")/lib.bash"
. tests/lab/lab.bash
BRIDGE=build/sluice-bridge
D=$PWD/$TMP
CONTROL=$D/control
ns=sluice-br-$$
# DPDK's programs leave the folder of their prefix behind.
trap '[ -z "${reserved:-}" ] || echo "$reserved" >/proc/sys/vm/nr_hugepages; ip netns del $ns 2>/dev/null; ip netns del $ns-b 2>/dev/null; cleanup; rm -rf /var/run/dpdk/"$ns"*' EXIT

# ------------------------------------------------------------------ the command line

# bad CASE STATUS PATTERN ARGUMENTS...: one line on standard error, nothing on standard output
bad() {
	local what=$1 want=$2 pattern=$3 got
	shift 3
	timeout 20 "$BRIDGE" "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
	got=$?
	if [ $got != "$want" ] || [ "$(wc -l <"$TMP/err")" != 1 ] || [ -s "$TMP/out" ] ||
		! grep -qF -- "$pattern" "$TMP/err"; then
		fail "$what" "status $got: $(head -n 2 "$TMP/err" | tr '\n' '|')"
	else
		pass "$what"
	fi
}

bad "nothing to do" 2 "--port: missing; give ports, or --control"
bad "an unknown option" 2 "--colour: unknown option" --colour
bad "processors that are none" 2 "--cores 0,x: use numbers of processors" --cores 0,x --port mem=sink
bad "more workers than processors" 2 "--workers 2: --cores names 1" --cores 0 --workers 2 --port mem=sink
bad "a worker that is not" 2 "worker=1: there are 0 to 0" --port mem=sink,worker=1
while IFS='|' read -r port says; do
	bad "--port $port" 2 "--port $says" --port "$port"
done <<-'END'
	name=x|give one of vhost-user=PATH
	tap|tap: write KEY=VALUE
	tap=|tap=: a value is missing
	tap=a,tap=b|tap=b: given twice
	tap=a,mem=sink|mem=sink: a port is one thing
	tap=a,colour=red|colour: unknown key; use vhost-user, tap
	mem=sinks|mem=sinks: use sink, source or echo
	mem=sink,name=a/b|name=a/b: use 1 to 31 letters
	mem=sink,queues=17|queues=17: use 1 to 16
	mem=sink,vlan=4095|vlan=4095: use 1 to 4094
	mem=sink,trunk=10+|trunk=10+: use VLANs like 10+20+30
	mem=sink,trunk=10+4095|trunk=10+4095: use VLANs
	mem=sink,native=5|native=5: only a trunk has it
	mem=sink,isolated=yes|isolated=yes: use on or off
	mem=sink,rate-in=5MB|rate-in=5MB: use a number like 100M
	mem=sink,pps-out=-5|pps-out=-5: use a number like 100M
	mem=sink,mode=listen|mem=sink: mode= and ring= are for vhost-user
	vhost-user=/a,mode=both|mode=both: use listen or connect
	vhost-user=/a,ring=round|ring=round: use split or packed
	dpdk,net_tap0,name=a,iface=x|iface: unknown key
END
check "--version" sh -c '"$1" --version | grep -q "^sluice-bridge [0-9]"' sh "$BRIDGE"
check "--help fits a terminal" sh -c '"$1" --help | awk "length > 80 { exit 1 }"' sh "$BRIDGE"

# ------------------------------------------------------------------ its life

# start NAME ARGUMENTS...: the bridge, ready, in the namespace $inside if that is set; $bridge is its process
start() {
	local log=$TMP/$1.log
	shift
	: >"$log"
	${inside:+ip netns exec $inside} "$BRIDGE" --no-huge --memory 128 --file-prefix "$ns" --control "$D/control" "$@" \
		2>"$log" </dev/null &
	bridge=$!
	children+=("$bridge")
	wait_for grep -q "^sluice-bridge: ready" "$log" || fail "start" "$(tail -n 1 "$log")"
}

stop() {
	kill -TERM "$bridge"
	wait "$bridge"
	check "$1: SIGTERM ends it well" [ $? = 0 ]
}

# port NAME FILTER: of a port, by jq
port() { ask GET "/ports/$1" | jq -r "$2"; }

start life --port "vhost-user=$D/a,name=a,vlan=10" --port mem=echo,trunk=10+20,native=3 --pidfile "$TMP/pid" --telemetry
check "sockets are nobody else's" [ "$(stat -c %a "$TMP/a" "$TMP/control" | tr '\n' ' ')" = "600 600 " ]
check "the pid file" [ "$(cat "$TMP/pid")" = "$bridge" ]
says "GET /version" 200 '"workers":1' GET /version
says "GET /ports" 200 '"name":"port0"' GET /ports
says "PUT a port" 201 '"isolated":true,"rate-in":100000000' PUT /ports/b '{"mem":"sink","vlan":7,"isolated":true,"rate-in":"100M"}'
says "PUT one of that name again" 409 'name=b: there is such a port' PUT /ports/b '{"mem":"sink"}'
says "PUT a socket in use" 409 'in use by another process' PUT /ports/c "{\"vhost-user\":\"$D/a\"}"
says "a port that failed leaves nothing" 404 'ports/c: no such port' GET /ports/c
says "PUT nonsense" 400 'mem=fast: use sink' PUT /ports/c '{"mem":"fast"}'
says "PUT an unknown key" 400 'colour: unknown key' PUT /ports/c '{"mem":"sink","colour":"red"}'
says "PATCH VLANs" 200 '"trunk":[10,30],"native":2' PATCH /ports/b '{"trunk":[10,30],"native":2}'
says "PATCH what cannot change" 400 'queues: cannot be changed' PATCH /ports/b '{"queues":2}'
says "no JSON" 400 'body: no JSON' PATCH /ports/b '{'
says "DELETE" 204 '' DELETE /ports/b
says "DELETE what is gone" 404 'no such port' DELETE /ports/b
says "a method that is not" 405 'fault_message' POST /ports/b '{}'
says "a path that is not" 404 'fault_message' GET /nothing
says "GET /macs" 200 '[]' GET /macs
says "DELETE /macs" 204 '' DELETE /macs
ask GET /metrics >"$TMP/metrics"
if grep -vqE '^(# (HELP|TYPE) sluice_bridge_[a-z0-9_]+ .+|sluice_bridge_[a-z0-9_]+(\{[a-z]+="[A-Za-z0-9_.-]+"\})? [0-9]+)$' "$TMP/metrics"; then
	fail "metrics" "$(grep -vE '^(#|sluice_bridge_[a-z0-9_]+)' "$TMP/metrics" | head -n 1)"
else
	check "metrics" grep -q '^sluice_bridge_rx_packets_total{port="a"} 0' "$TMP/metrics"
fi
telemetry=/var/run/dpdk/$ns/dpdk_telemetry.v2
[ -w /var/run/dpdk ] || telemetry=${XDG_RUNTIME_DIR:-/tmp}/dpdk/$ns/dpdk_telemetry.v2
# tells WHAT WORDS COMMAND: on the same socket
tells() {
	got=$(printf %s "$3" | timeout 5 socat -t 1 - "UNIX-CONNECT:$telemetry,type=5" 2>&1)
	check "telemetry: $1" grep -qF -e "$2" <<<"$got"
}
tells "DPDK's own" '{"/eal/params":["sluice-bridge"' /eal/params
tells "the ports" '{"/sluice/ports":["a","port0"]}' /sluice/ports
tells "a port" '"name":"a","kind":"offered","worker":0,"rx_packets":0' /sluice/port,a
tells "a port that is not" '{"/sluice/port":null}' /sluice/port,b
tells "no port's name" '{"/sluice/port":null}' /sluice/port
tells "addresses" '{"/sluice/macs":[]}' /sluice/macs
bad "a socket that is in use" 1 "in use by another process" --no-huge --file-prefix "$ns-2" --port "vhost-user=$D/a"
stop life
check "nothing is left" [ ! -e "$TMP/a" -a ! -e "$TMP/control" -a ! -e "$TMP/pid" ]

# ------------------------------------------------------------------ testpmd drives two ports

# drive SECONDS MODE PACKED [VDEV-OPTION]: testpmd with two virtio_user ports for so long; its statistics are in $TMP/pmd
drive() {
	mkfifo "$TMP/commands.$$" 2>/dev/null
	(
		wait_for grep -q 'testpmd>' "$TMP/pmd"
		sleep 0.5
		echo "start tx_first"
		sleep "$1"
		printf 'stop\nshow port stats all\nquit\n'
	) >"$TMP/commands.$$" &
	: >"$TMP/pmd"
	timeout 60 dpdk-testpmd --no-huge -m 256 --no-pci --no-telemetry --file-prefix "$ns-pmd" -l 0,1 \
		--vdev="net_virtio_user0,path=$D/a,mac=02:00:00:00:01:0a,packed_vq=$3${4:-}" \
		--vdev="net_virtio_user1,path=$D/b,mac=02:00:00:00:01:0b,packed_vq=$3${4:-}" \
		-- -i --total-num-mbufs=8192 --forward-mode="$2" <"$TMP/commands.$$" >"$TMP/pmd" 2>&1
	rm -f "$TMP/commands.$$"
}

# pmd PORT FIELD: of its last statistics
pmd() {
	sed -n "/NIC statistics for port $1/,/####\$/p" "$TMP/pmd" | sed -n "s/.*$2: *\([0-9]*\).*/\1/p" | tail -n 1
}

if command -v dpdk-testpmd >/dev/null; then
	start pmd --port "vhost-user=$D/a,name=a" --port "vhost-user=$D/b,name=b" --port "vhost-user=$D/c,name=c,vlan=99"
	# a front-end that lies, beside them
	while :; do
		printf '\005\000\000\000\001\000\000\000\050\000\000\000\001\000\000\000' | socat -t 0.05 - "UNIX-CONNECT:$D/c"
		head -c 4096 /dev/urandom | socat -t 0.05 - "UNIX-CONNECT:$D/c"
		sleep 0.05
	done >/dev/null 2>&1 &
	hostile=$!
	children+=("$hostile")
	for packed in 0 1; do
		before=$(port a .counters.rx_packets)
		drive 1 io $packed
		what="testpmd, packed_vq=$packed"
		check "$what: both ports are connected to" grep -q "Bye" "$TMP/pmd"
		check "$what: frames went round" [ "$(pmd 0 RX-packets)" -gt 1000 ]
		check "$what: the switch has seen all that was sent" \
			[ "$(($(port a .counters.rx_packets) - before))" -ge "$(pmd 0 TX-packets)" ]
		check "$what: nothing came from nowhere" [ "$(pmd 1 RX-packets)" -le "$(pmd 0 TX-packets)" ]
	done
	kill "$hostile"
	check "the hostile front-end was turned away" [ "$(port c .refused)" -gt 0 ]
	check "and nobody else" [ "$(port a .refused)$(port b .refused)" = 00 ]
	check "a port outlives its front-ends" [ "$(port a .connections)" = 2 ]
	check "VLANs keep apart" [ "$(port c .counters.tx_packets)" = 0 ]
	stop pmd
	# here the front-ends listen: the bridge is killed, and its successor is connected to
	ports=(--port "vhost-user=$D/a,name=a,mode=connect" --port "vhost-user=$D/b,name=b,mode=connect")
	start killed "${ports[@]}"
	(
		wait_for sh -c 'grep -q "port b: front-end connected" "$1"' sh "$TMP/killed.log"
		sleep 1.5
		kill -KILL "$bridge"
		start again "${ports[@]}"
		wait_for sh -c 'curl -sS --unix-socket "$1" http://x/ports/a | jq -e ".counters.rx_packets > 1000"' sh "$D/control"
		port a .counters.rx_packets >"$TMP/after"
		# it outlives testpmd, which does not take the end of a back-end at its own end
		wait_for grep -q Bye "$TMP/pmd"
		kill -TERM "$bridge"
		wait "$bridge"
	) &
	killer=$!
	drive 4 txonly 0 ,server=1
	wait "$killer"
	check "traffic goes on with a new bridge" [ "$(cat "$TMP/after" 2>/dev/null || echo 0)" -gt 1000 ]
	rm -f "$TMP/a" "$TMP/b"
else
	skip "testpmd" "dpdk-testpmd is not installed"
fi

# ------------------------------------------------------------------ on huge pages

pages=/proc/sys/vm/nr_hugepages
free_pages() { sed -n 's/^HugePages_Free: *//p' /proc/meminfo; }
reserved=$(cat $pages)
if { echo $((reserved + 100)) >$pages; } 2>/dev/null && [ "$(cat $pages)" = $((reserved + 100)) ]; then
	before=$(free_pages)
	"$BRIDGE" --memory 128 --file-prefix "$ns-huge" --control "$D/control" --port mem=source --port mem=sink 2>"$TMP/huge.log" </dev/null &
	bridge=$!
	children+=("$bridge")
	check "on huge pages: it runs" wait_for grep -q "^sluice-bridge: ready" "$TMP/huge.log"
	check "on huge pages: they are in use" [ "$(free_pages)" -lt "$before" ]
	check "on huge pages: frames" wait_for sh -c 'curl -sS --unix-socket "$1" http://x/ports/port1 | jq -e ".counters.tx_packets > 1000"' sh "$D/control"
	stop "on huge pages"
	check "on huge pages: all are given back" [ "$(free_pages)" = "$before" ]
else
	skip "on huge pages" "the kernel reserves none"
fi
{ echo "$reserved" >$pages; } 2>/dev/null

# ------------------------------------------------------------------ taps in namespaces

if ! ip netns add "$ns" 2>/dev/null || ! ip netns add "$ns-b"; then
	skip "taps and guests" "no network namespace can be made"
	finish
fi
inside=$ns
ip netns exec "$ns" ip tuntap add t0 mode tap
ip -n "$ns" addr add 10.9.0.1/24 dev t0
ip -n "$ns" link set t0 up
start taps --port tap=t0 --port tap=t1
ip -n "$ns" link set t1 netns "$ns-b"
ip -n "$ns-b" addr add 10.9.0.3/24 dev t1
ip -n "$ns-b" link set t1 up
ip netns exec "$ns" socat TCP-LISTEN:4999,reuseaddr,fork OPEN:/dev/null 2>/dev/null &
children+=($!)
reach() { timeout 1 ip netns exec "$ns-b" bash -c '</dev/tcp/10.9.0.1/4999'; }
apart() { ! reach 2>/dev/null && ! reach 2>/dev/null; }
check "one tap reaches the other" wait_for reach
says "the MAC table knows both" 200 '"port":"t1"' GET /macs
ask PATCH /ports/t1 -d '{"vlan":20}' >/dev/null
check "another VLAN does not answer" apart
ask PATCH /ports/t1 -d '{"vlan":1,"isolated":true}' >/dev/null
check "one isolated port reaches the others" wait_for reach
ask PATCH /ports/t0 -d '{"isolated":true}' >/dev/null
check "two isolated ports do not reach each other" apart
ask PATCH /ports/t0 -d '{"isolated":false}' >/dev/null
head -c 8M /dev/urandom >"$TMP/data"
ip netns exec "$ns" timeout 30 socat -u "FILE:$TMP/data" TCP-LISTEN:5000,reuseaddr &
children+=($!)
wait_for sh -c 'ip netns exec "$1" ss -ltn | grep -q :5000' sh "$ns"
check "TCP from tap to tap" [ "$(ip netns exec "$ns-b" timeout 30 socat -u TCP:10.9.0.1:5000 - | sha256sum)" = "$(sha256sum <"$TMP/data")" ]
stop taps

# ------------------------------------------------------------------ DPDK's devices and AF_XDP, to the same tap

# fetch CASE: the data, from beside the tap t0 to the namespace at the other end
fetch() {
	ip netns exec "$ns" timeout 30 socat -u "FILE:$TMP/data" TCP-LISTEN:5000,reuseaddr &
	children+=($!)
	wait_for sh -c 'ip netns exec "$1" ss -ltn | grep -q :5000' sh "$ns"
	check "$1" [ "$(ip netns exec "$ns-b" timeout 30 socat -u TCP:10.9.0.1:5000 - | sha256sum)" = "$(sha256sum <"$TMP/data")" ]
}
ip -n "$ns-b" link del t1 2>/dev/null
start dpdk --port tap=t0 --port dpdk,net_tap0,iface=d0
ip -n "$ns" link set d0 netns "$ns-b"
ip -n "$ns-b" addr add 10.9.0.4/24 dev d0
ip -n "$ns-b" link set d0 up
fetch "TCP through a device of DPDK's (net_tap)"
says "a device that is not there" 500 'DPDK has no such device' PUT /ports/x '{"dpdk":"net_nothing0"}'
stop dpdk
ip -n "$ns" link add x0 type veth peer name x1
ip -n "$ns" link set x1 netns "$ns-b"
ip -n "$ns" link set x0 up
ip -n "$ns-b" addr add 10.9.0.5/24 dev x1
ip -n "$ns-b" link set x1 up
# An AF_XDP socket is given frames as they are: a veth would leave checksums to be done.
ip netns exec "$ns-b" ethtool -K x1 tx off >/dev/null
start xdp --port tap=t0
added=$(ask PUT /ports/x -d '{"af_xdp":"x0"}' -w '\n%{http_code}')
if [ "${added##*$'\n'}" = 201 ]; then
	fetch "TCP through an AF_XDP socket"
else
	skip "AF_XDP" "this kernel or user may not: $added"
fi
stop xdp

# ------------------------------------------------------------------ a stock guest under QEMU

why=$(lab_reason)
[ -n "$why" ] || [ -d "$LAB/kernel" ] || lab_prepare >"$TMP/prepare" 2>&1 || why=$(tail -n 1 "$TMP/prepare")
if [ -n "$why" ]; then
	skip "a stock guest under QEMU" "$why"
	finish
fi
initramfs=$(lab_initramfs tests/linux/init-bridge virtio_pci virtio_net)

# give PORT [SECONDS]: sends the file to who connects there, in sixteen parts, with so long a pause after each
give() {
	ip netns exec "$ns" timeout 100 socat -U "TCP-LISTEN:$1,reuseaddr" \
		"SYSTEM:for i in \$(seq 0 15); do dd if=$TMP/data bs=512k skip=\$i count=1 2>/dev/null; sleep ${2:-0}; done" &
	children+=($!)
}

# guest NAME RING. Without MSI-X: Debian 12's QEMU 7.2 crashes with it when a vhost network card starts without KVM.
guest() {
	local what=$1 ring=$2 bit=0 qemu sent='' line want
	[ "$ring" = off ] || bit=1
	want=$(sha256sum <"$TMP/data" | cut -d' ' -f1)
	start "$what" --port tap=t0 --port "vhost-user=$D/g,name=g"
	give 5001
	give 5003 0.25
	ip netns exec "$ns" timeout 100 socat -u TCP-LISTEN:5002,reuseaddr "CREATE:$TMP/up" &
	children+=($!)
	rm -f "$TMP/lines"
	mkfifo "$TMP/lines"
	timeout 120 qemu-system-x86_64 -nodefaults -no-reboot -display none -machine q35,memory-backend=m -accel tcg \
		-cpu max -m 256 -object memory-backend-memfd,id=m,size=256M,share=on \
		-chardev "socket,id=c,path=$D/g,reconnect=1" -netdev vhost-user,id=n,chardev=c \
		-device "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,packed=$ring,vectors=0,romfile=" \
		-kernel "$LAB/kernel/vmlinuz" -initrd "$initramfs" -serial stdio \
		-append "console=ttyS0 quiet panic=-1 packed=$bit want=$want" </dev/null >"$TMP/lines" 2>&1 &
	qemu=$!
	children+=("$qemu")
	while read -r line; do
		line=${line%$'\r'}
		case $line in
		PASS*) pass "$what: ${line#PASS }" ;;
		FAIL*) fail "$what: ${line#FAIL }" ;;
		SENT*) sent=${line#SENT } ;;
		LOAD)
			sleep 1
			kill -KILL "$bridge"
			wait "$bridge" 2>/dev/null
			start "$what-again" --port tap=t0 --port "vhost-user=$D/g,name=g"
			;;
		esac
	done <"$TMP/lines"
	wait "$qemu"
	check "$what: the guest ended well" [ $? = 0 ]
	check "$what: what it sent has come" [ -n "$sent" -a "$(sha256sum <"$TMP/up" | cut -d' ' -f1)" = "$sent" ]
	check "$what: it came back to the new bridge" grep -q "port g: front-end connected" "$TMP/$what-again.log"
	stop "$what"
}

guest split off
[ -z "${FULL:-}" ] || guest packed on
finish
