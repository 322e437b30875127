# SPDX-License-Identifier: BSD-2-Clause
# The network half of vhost.sh: DPDK's testpmd drives virtio_user ports on one core, the back-end runs on the other.
# shellcheck source=perf/ovs.bash
. perf/ovs.bash
PREFIX=sluice-perf-$$
SOCKETS=$PWD/$TMP
MAC_A=02:00:00:00:01:0a
MAC_B=02:00:00:00:01:0b
FRAME=64
declare -A PMD_IN PMD_PID
trap '' PIPE # whose testpmd has died has it in its log

# ------------------------------------------------------------------ testpmd

# pmd NAME CORE MODE ARGUMENT...: an interactive testpmd that forwards on that core; MODE may have options behind it
pmd() {
	local name=$1 core=$2 mode=$3 fd
	shift 3
	rm -f "$TMP/$name.in"
	mkfifo "$TMP/$name.in"
	: >"$TMP/$name.log"
	# shellcheck disable=SC2086
	timeout 60 stdbuf -oL dpdk-testpmd --no-huge -m 256 --no-pci --no-telemetry --file-prefix "$PREFIX-$name" \
		-l 0,1 --main-lcore $((1 - core)) "$@" -- -i --disable-link-check --total-num-mbufs=16384 --mbcache=512 --forward-mode=$mode <"$TMP/$name.in" >"$TMP/$name.log" 2>&1 &
	PMD_PID[$name]=$!
	children+=($!)
	exec {fd}>"$TMP/$name.in"
	PMD_IN[$name]=$fd
	until_true grep -q 'testpmd>' "$TMP/$name.log"
}
say() { echo "$2" 2>/dev/null >&"${PMD_IN[$1]}"; }
# pmd_end NAME: what it said is in NAME.log
pmd_end() {
	local fd=${PMD_IN[$1]:-}
	[ -n "$fd" ] || return
	say "$1" quit
	exec {fd}>&-
	unset "PMD_IN[$1]"
	wait "${PMD_PID[$1]}" 2>/dev/null
}
# said NAME TEXT TIMES: it has, by now so often; it answers when its processor lets it
said() { until_true sh -c '[ "$(grep -c "$2" "$1")" -ge "$3" ]' sh "$TMP/$1.log" "$2" "$3"; }
# begin NAME: it forwards from now on
begin() {
	say "$1" start
	said "$1" 'packet forwarding - ports' 1
}
# show NAME: statistics of all ports; the rates in them are testpmd's own, since it showed them last
show() {
	local before
	before=$(grep -c 'since last show' "$TMP/$1.log")
	say "$1" "show port stats all"
	said "$1" 'since last show' $((before + 1))
}
# shown NAME PORT FIELD: of the last statistics it showed
shown() {
	sed -n "/NIC statistics for port $2 /,/####\$/p" "$TMP/$1.log" | sed -n "s/.*$3: *\([0-9]*\).*/\1/p" | tail -n 1
}
# user_port N SOCKET RING MAC [OPTION]: a device of the driver's
user_port() {
	local packed=0
	[ "$3" = split ] || packed=1
	echo "--vdev=net_virtio_user$1,path=$2,mac=$4,queue_size=1024,packed_vq=$packed${5:-}"
}
# drive [""]: the driver works, already or from now on; then its rates are in `shown rates`, what it did in all in `shown driver`
drive() {
	local done
	[ -z "${1-start}" ] || begin driver
	sleep 0.4
	show driver
	sleep "$(awk "BEGIN { print $MS / 1000 }")"
	show driver
	cp "$TMP/driver.log" "$TMP/rates.log"
	done=$(grep -c '^Done\.' "$TMP/driver.log")
	say driver stop
	said driver '^Done\.' $((done + 1))
	show driver
}

# ------------------------------------------------------------------ the back-ends

backend_stop() {
	case $1 in
	testpmd) pmd_end backend ;;
	sluice-bridge) stop "$started" ;;
	ovs) ovs_stop "$SOCKETS/ovs" ;;
	esac
	rm -f "$SOCKETS/a" "$SOCKETS/b"
}
bridge() {
	serve "$TMP/backend.log" "$BRIDGE" --no-huge --memory 256 --file-prefix "$PREFIX" --cores 0 --control "$SOCKETS/control" "$@"
	until_true grep -q '^sluice-bridge: ready' "$TMP/backend.log"
}
# bridge_count PORT COUNTER
bridge_count() { curl -sS --unix-socket "$SOCKETS/control" "http://x/ports/$1" | jq ".counters.$2"; }

ovs() {
	local dir=$SOCKETS/ovs
	ovs_start "$dir" "$PREFIX-ovs" "unshare -n" pmd-cpu-mask=0x1 dpdk-lcore-mask=0x2 || return
	ovs_set "$dir" add-br br0 -- set Bridge br0 datapath_type=netdev \
		-- add-port br0 a -- set Interface a type=dpdkvhostuserclient "options:vhost-server-path=$SOCKETS/a" \
		-- add-port br0 b -- set Interface b type=dpdkvhostuserclient "options:vhost-server-path=$SOCKETS/b"
}

# ------------------------------------------------------------------ one port

# one_start WHO DIRECTION: a back-end with the socket a, that takes (in) or gives (out) as fast as it can
one_start() {
	case $1-$2 in
	testpmd-in) pmd backend 0 rxonly --vdev="net_vhost0,iface=$SOCKETS/a" ;;
	testpmd-out) pmd backend 0 txonly --vdev="net_vhost0,iface=$SOCKETS/a" ;;
	sluice-bridge-in) bridge --port "vhost-user=$SOCKETS/a,name=a" --port mem=sink ;;
	sluice-bridge-out) bridge --port "vhost-user=$SOCKETS/a,name=a" --port mem=source ;;
	esac && until_true [ -S "$SOCKETS/a" ]
}
# one_taken WHO: frames the back-end has taken
one_taken() {
	if [ "$1" = testpmd ]; then
		show backend
		shown backend 0 RX-packets
	else
		bridge_count a rx_packets
	fi
}
# one WHO DIRECTION RING ROUND: what was sent has come, and no frame is of another size
one() {
	local who=$1 direction=$2 ring=$3 name=$1,$2,$3 mode=txonly rate sent taken
	[ "$direction" = in ] || mode=rxonly
	if ! one_start "$who" "$direction" || ! pmd driver 1 $mode "$(user_port 0 "$SOCKETS/a" "$ring" $MAC_A)"; then
		bad "$name" "$(tail -qn 1 "$TMP/backend.log" "$TMP/driver.log" | tr '\n' ' ')"
		pmd_end driver
		backend_stop "$who"
		return
	fi
	[ "$who" != testpmd ] || begin backend
	drive
	if [ "$direction" = in ]; then
		rate=$(shown rates 0 Tx-pps)
		sent=$(shown driver 0 TX-packets)
		taken=$(one_taken "$who")
		[ "$sent" = "$taken" ] || bad "$name" "$sent frames sent, $taken taken"
	else
		rate=$(shown rates 0 Rx-pps)
		sent=$(shown driver 0 RX-bytes)
		taken=$(shown driver 0 RX-packets)
		[ "$sent" = $((taken * FRAME)) ] || bad "$name" "$taken frames of $FRAME bytes are not $sent bytes"
	fi
	pmd_end driver
	backend_stop "$who"
	[ "${taken:-0}" -gt 0 ] || bad "$name" "no frame came"
	figure "$name" "$4" "${rate:-0}"
}

# ------------------------------------------------------------------ from port to port

# two_start WHO
two_start() {
	case $1 in
	testpmd) pmd backend 0 io --vdev="net_vhost0,iface=$SOCKETS/a" --vdev="net_vhost1,iface=$SOCKETS/b" && begin backend ;;
	sluice-bridge) bridge --port "vhost-user=$SOCKETS/a,name=a" --port "vhost-user=$SOCKETS/b,name=b" ;;
	ovs)
		ovs
		return
		;;
	esac
	until_true [ -S "$SOCKETS/b" ]
}
# two_driver WHO RING MODE [DEVICE-BETWEEN DEVICE-BEHIND]: Open vSwitch is who connects
two_driver() {
	local listen='' devices
	[ "$1" != ovs ] || listen=,server=1
	devices=("$(user_port 0 "$SOCKETS/a" "$2" $MAC_A "$listen")" ${4:+"$4"}
		"$(user_port 1 "$SOCKETS/b" "$2" $MAC_B "$listen")" ${5:+"$5"})
	pmd driver 1 "$3" "${devices[@]}" || return
	[ "$1" != ovs ] || until_true ovs_enabled
}
# Both queues of both its ports.
ovs_enabled() { [ "$(grep -c "changed to 'enabled'" "$SOCKETS/ovs/log")" -ge 4 ]; }
# two_begun: frames go round in both directions; those that a port took before it was ready are sent anew
two_begun() {
	say driver stop
	say driver "start tx_first 8"
	sleep 0.4
	show driver
	[ "$(shown driver 0 RX-packets)" -gt 1000 ] && [ "$(shown driver 1 RX-packets)" -gt 1000 ]
}
# work_begin WHO, work_ns WHO: nanoseconds of work of the back-end's for each frame since then, polling for nothing left
# out, as the back-end counts it; nothing, if it does not
work_begin() {
	case $1 in
	ovs) ovs_ctl dpif-netdev/pmd-stats-clear >/dev/null ;;
	sluice-bridge) work_before=$(bridge_work) ;;
	esac
}
work_ns() {
	case $1 in
	ovs) # in ticks of the processor's clock, whose rate the kernel gives doubled
		awk -v hz="$(sed -n 's/^bogomips[^:]*: //p' /proc/cpuinfo | head -n 1)" '/^pmd/ { pmd = 1 } /^main/ { pmd = 0 }
			pmd && /avg processing cycles per packet/ { printf "%.0f", $6 * 2000 / hz }' < <(ovs_ctl dpif-netdev/pmd-stats-show)
		;;
	sluice-bridge)
		awk -v a="$work_before" -v b="$(bridge_work)" 'BEGIN { split(a, x); split(b, y)
			if (y[2] > x[2]) printf "%.0f", (y[1] - x[1]) / (y[2] - x[2]) }'
		;;
	esac
}
ovs_ctl() { OVS_RUNDIR=$SOCKETS/ovs ovs-appctl -t "$SOCKETS/ovs/ctl" "$@"; }
# bridge_work: nanoseconds, frames
bridge_work() {
	curl -sS --unix-socket "$SOCKETS/control" http://x/metrics | awk '/^sluice_bridge_worker_cpu_ns_total/ { ns += $2 }
		/^sluice_bridge_worker_idle_ns_total/ { ns -= $2; idle = 1 } /^sluice_bridge_rx_packets_total/ { n += $2 } END { printf "%.0f %.0f", ns, idle ? n : 0 }'
}
# two WHO RING ROUND: frames that go round, for ever, in both directions
two() {
	local who=$1 ring=$2 name=$1,forward,$2 port ns
	if ! two_start "$who" || ! two_driver "$who" "$ring" "io --eth-peer=0,$MAC_B --eth-peer=1,$MAC_A" || ! until_true two_begun; then
		bad "$name" "$(tail -qn 1 "$TMP/backend.log" "$TMP/driver.log" | tr '\n' ' ')"
	else
		work_begin "$who"
		drive ""
		ns=$(work_ns "$who")
		[ -z "$ns" ] || figure "$who,work,$ring" "$3" "$ns"
		figure "$name" "$3" $(($(shown rates 0 Rx-pps) + $(shown rates 1 Rx-pps)))
		for port in 0 1; do
			[ "$(shown driver $port RX-bytes)" = $(($(shown driver $port RX-packets) * FRAME)) ] || bad "$name" "frames of another size"
		done
	fi
	pmd_end driver
	backend_stop "$who"
}
two_came() { show driver && [ "$(shown driver 3 TX-packets)" -ge "$1" ]; }
# two_check WHO RING: numbered frames come out as they went in, in their order
two_check() {
	local who=$1 ring=$2 name=$1,forward,$2 says
	perf/vhost-frames.pl make $MAC_A $MAC_B 200 >"$TMP/in.pcap"
	: >"$TMP/out.pcap"
	two_start "$who" && two_driver "$who" "$ring" "io --no-flush-rx" "--vdev=net_pcap0,rx_pcap=$SOCKETS/in.pcap" \
		"--vdev=net_pcap1,tx_pcap=$SOCKETS/out.pcap" && begin driver && until_true two_came 200
	pmd_end driver
	backend_stop "$who"
	says=$(perf/vhost-frames.pl check $MAC_A $MAC_B 200 <"$TMP/out.pcap" 2>&1) || bad "$name" "content: $says"
}

# ------------------------------------------------------------------ all

net_round() {
	local ring direction who
	for ring in split packed; do
		for direction in in out; do
			for who in $ONE; do steady one "$who" $direction $ring "$1"; done
		done
		for who in $TWO; do steady two "$who" $ring "$1"; done
	done
}
net_report() {
	local ring direction who
	echo
	echo "Network: testpmd drives virtio_user with frames of $FRAME bytes on one core, the back-end is on the other."
	for ring in split packed; do
		for direction in in out; do
			ratio "sluice-bridge's port by net_vhost, $direction, $ring" sluice-bridge,$direction,$ring testpmd,$direction,$ring 1.2
		done
		ratio "port to port by Open vSwitch, $ring" sluice-bridge,forward,$ring ovs,forward,$ring 2
		ratio "  or work for a frame, Open vSwitch's by its own, $ring" ovs,work,$ring sluice-bridge,work,$ring 2
		ratio "port to port by testpmd, $ring" sluice-bridge,forward,$ring testpmd,forward,$ring 1.1
	done
	for ring in split packed; do
		for direction in in out forward; do
			for who in sluice-bridge testpmd ovs; do raw $who,$direction,$ring "frames/s"; done
		done
		for who in sluice-bridge ovs; do raw $who,work,$ring "ns of work for a frame"; done
	done
}
net() {
	local why round who ring
	command -v dpdk-testpmd >/dev/null || { left_out net "dpdk-testpmd is not installed (make deps)"; return; }
	[ "$(nproc)" -ge 2 ] || { left_out net "it takes two CPUs"; return; }
	ONE=testpmd TWO=testpmd
	[ ! -x "$BRIDGE" ] || { ONE="sluice-bridge testpmd" TWO="sluice-bridge testpmd"; }
	[ -x "$BRIDGE" ] || left_out sluice-bridge "$BRIDGE is not built"
	why=$(ovs_reason)
	[ -z "$why" ] || left_out "Open vSwitch" "$why"
	[ -n "$why" ] || TWO+=" ovs"
	for who in $TWO; do
		for ring in split packed; do two_check "$who" $ring; done
	done
	for round in $(seq "$RUNS"); do net_round "$round"; done
	net_report
}
