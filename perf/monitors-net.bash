# SPDX-License-Identifier: BSD-2-Clause
# The network half of monitors.sh. All taps are in a namespace that ends with the process that holds it.
TAP=tap0
BIG=64000

# in_namespace FUNCTION
in_namespace() {
	part=$1
	if ! unshare -n true 2>/dev/null; then
		left_out "$1" "no network namespace can be made (run as root)"
		return
	fi
	serve /dev/null unshare -n sleep 3600
	until_true ns_ready "$started"
	NS=(nsenter -t "$started" -n)
	"${NS[@]}" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6' 2>/dev/null
	local holder=$started
	"$1"
	NS=()
	stop "$holder"
}
ns_ready() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
tap_make() {
	"${NS[@]}" ip tuntap add dev "$1" mode tap vnet_hdr
	"${NS[@]}" ip link set "$1" up
}
tap_drop() { "${NS[@]}" ip link del "$1"; }
# tap_count: frames the kernel took from the tap
tap_count() { "${NS[@]}" ip -s -j link show "$TAP" | jq '.[0].stats64.rx.packets'; }

# monitor CONTENDER JOBS: with a card on the tap; CONTENDER is sluice,RING, qemu,RING, sluice,MODEL or qemu,MODEL
net_monitor() {
	local device=virtio-net-pci,netdev=n,disable-legacy=on
	case $1 in
	sluice,split* | sluice,packed*) run_sluice "$1" "$2" --net "tap=$TAP,ring=$(cut -d , -f 2 <<<"$1")" ;;
	sluice,*) run_sluice "$1" "$2" --net "tap=$TAP,model=$(cut -d , -f 2 <<<"$1")" ;;
	qemu,split*) run_qemu "$1" "$2" -netdev "$QEMU_TAP" -device "$device" ;;
	qemu,packed*) run_qemu "$1" "$2" -netdev "$QEMU_TAP" -device "$device,packed=on" ;;
	qemu,*) run_qemu "$1" "$2" -netdev "$QEMU_TAP" -device "$(cut -d , -f 2 <<<"$1"),netdev=n" ;;
	esac
}
QEMU_TAP="tap,id=n,ifname=$TAP,script=no,downscript=no,vhost=$([ -e /dev/vhost-net ] && echo on || echo off)"

# net_job DEVICE WORK SIZE DEPTH
net_job() { echo "job=net,dev=$1,work=$2,size=$3,depth=$4,warm_ms=50,ms=$MS"; }

# net_tx CONTENDER ROUND DEVICE,SIZE: out of the guest; the kernel must have got what the guest says it sent
net_tx() {
	local size=${3#*,} before sent
	tap_make "$TAP"
	before=$(tap_count)
	if [ "$1" = host ]; then
		host_take "$1,tx,$size" "$2" "$WIRE" write "$TAP" "$size" "$MS"
	else
		net_monitor "$1,tx,$size" "poll_us=1000 $(net_job "${3%,*}" tx "$size" 256)"
		sent=$(($(tap_count) - before))
		if [ "$sent" -lt "$(key requests "$(result 0)")" ]; then
			bad "$1,tx,$size" "$(key requests "$(result 0)") frames sent, $sent arrived"
		else
			rate_take "$1,tx,$size" "$2" 0 tx net
		fi
	fi
	tap_drop "$TAP"
}
# net_rx CONTENDER ROUND DEVICE,SIZE: into the guest, from a source that never ends
net_rx() {
	local size=${3#*,} source
	tap_make "$TAP"
	serve "$TMP/source.log" "${NS[@]}" "$WIRE" source "$TAP" "$size"
	source=$started
	if [ "$1" = host ]; then
		host_take "$1,rx,$size" "$2" "$WIRE" read "$TAP" "$size" "$MS"
	else
		net_monitor "$1,rx,$size" "poll_us=1000 $(net_job "${3%,*}" rx "$size" 256)"
		rate_take "$1,rx,$size" "$2" 0 rx net
	fi
	stop "$source"
	tap_drop "$TAP"
}
# host_take CONTENDER ROUND COMMAND...: the host's own program on the tap
host_take() {
	local who=$1 round=$2 said
	shift 2
	command_line "$who" "$@"
	said=$("${NS[@]}" "$@" 2>&1)
	if [[ $said != frames=* ]] || [ "$(key bad "x $said")" != 0 ] || [ "$(key frames "x $said")" = 0 ]; then
		bad "$who" "$said"
	else
		figure "$who,${who#*,}" "$round" "$(awk -F '[= ]' '{ printf "%.0f", $2 * 1e9 / $4 }' <<<"$said")"
	fi
}
# net_echo CONTENDER ROUND: one UDP datagram at a time, there and back
net_echo() {
	local peer
	tap_make "$TAP"
	serve "$TMP/echo.log" "${NS[@]}" "$WIRE" echo "$TAP"
	peer=$started
	net_monitor "$1,echo" "poll_us=1000 $(net_job virtio-net echo 64 1)"
	if rate_take "$1,echo" "$2" 0 echo net; then
		figure "$1,echo,p50" "$2" "$(key p50_ns "$(result 0)")"
		figure "$1,echo,p999" "$2" "$(key p999_ns "$(result 0)")"
	fi
	stop "$peer"
	tap_drop "$TAP"
}

# way_report TEXT WAY SIZE
way_report() {
	local ours theirs who
	ours=$(best "sluice,split,$2,$3,$2" "sluice,packed,$2,$3,$2")
	theirs=$(best "qemu,split,$2,$3,$2" "qemu,packed,$2,$3,$2")
	ratio "$1: by a program on the host" "$ours" "host,$2,$3,$2,$3" 0.9
	ratio "$1: by QEMU's virtio-net" "$ours" "$theirs" 1.2
	for who in {sluice,qemu},{split,packed},"$2,$3,$2" "host,$2,$3,$2,$3"; do raw "$who" frames/s; done
}

net() {
	local round model
	for round in $(seq "$RUNS"); do
		in_turn "$round" net_tx virtio-net,64 sluice,split sluice,packed qemu,split qemu,packed host
		in_turn "$round" net_rx virtio-net,64 sluice,split sluice,packed qemu,split qemu,packed host
		in_turn "$round" net_tx virtio-net,$BIG sluice,split sluice,packed qemu,split qemu,packed host
		in_turn "$round" net_rx virtio-net,$BIG sluice,split sluice,packed qemu,split qemu,packed host
		in_turn "$round" net_echo "" sluice,split qemu,split
		for model in e1000 ne2k_pci rtl8139; do in_turn "$round" net_tx "$model,64" "sluice,$model" "qemu,$model"; done
	done
	echo
	echo "A tap: frames are numbered and checked where they arrive, of those sent the kernel's count. QEMU: vhost=${QEMU_TAP##*=}."
	way_report "64 B frames out of the guest" tx 64
	way_report "64 B frames into the guest" rx 64
	way_report "$BIG B frames out, to be segmented" tx $BIG
	way_report "$BIG B frames in, segmented" rx $BIG
	ratio "UDP echo, p50: QEMU's by ours" qemu,split,echo,p50 sluice,split,echo,p50 1.5
	ratio "UDP echo, p99.9: QEMU's by ours" qemu,split,echo,p999 sluice,split,echo,p999 1.5
	for model in p50 p999; do
		raw "sluice,split,echo,$model" ns
		raw "qemu,split,echo,$model" ns
	done
	for model in e1000 ne2k_pci rtl8139; do
		ratio "$model, 64 B frames out: by QEMU's" "sluice,$model,tx,64,tx" "qemu,$model,tx,64,tx" 2
		raw "sluice,$model,tx,64,tx" frames/s
		raw "qemu,$model,tx,64,tx" frames/s
	done
}

# ------------------------------------------------------------------ two guests joined

# pair_one CONTENDER ROUND: one sends for as long as the other counts
pair_one() {
	local tx rx sender bridge= card=virtio-net-pci,netdev=n,disable-legacy=on,rx_queue_size=1024
	tx="poll_us=1000 job=net,dev=virtio-net,work=tx,size=64,depth=256,warm_ms=50,ms=60000"
	rx="poll_us=1000 $(net_job virtio-net rx 64 256)"
	case $1 in
	sluice)
		rm -f "$TMP"/{a,b}.sock
		serve "$TMP/bridge.log" "$BRIDGE" --no-huge --memory 256 --file-prefix "sluice-perf-$$-pair" \
			--port "vhost-user=$TMP/a.sock,name=a" --port "vhost-user=$TMP/b.sock,name=b"
		bridge=$started
		until_true [ -S "$TMP/b.sock" ]
		begin_sluice pair,sluice,sender "$tx" --net "vhost-user=$TMP/a.sock,queue-size=1024"
		;;
	qemu,stream) begin_qemu "pair,$1,sender" "$tx" -netdev "stream,id=n,server=on,addr.type=unix,addr.path=$TMP/pair.sock" -device $card ;;
	qemu,dgram)
		begin_qemu "pair,$1,sender" "$tx" -device $card \
			-netdev "dgram,id=n,local.type=unix,local.path=$TMP/a.dgram,remote.type=unix,remote.path=$TMP/b.dgram"
		;;
	qemu,taps)
		"${NS[@]}" ip link add br0 type bridge
		"${NS[@]}" ip link set br0 up
		for tap in tapa tapb; do tap_make $tap; "${NS[@]}" ip link set $tap master br0; done
		begin_qemu "pair,$1,sender" "$tx" -netdev "${QEMU_TAP/$TAP/tapa}" -device $card
		;;
	esac
	sender=$started
	until_true grep -q '^clock:' "$TMP/out"
	sleep 0.3
	case $1 in
	sluice) run_sluice "pair,$1" "$rx" --net "vhost-user=$TMP/b.sock,queue-size=1024" ;;
	qemu,stream) run_qemu "pair,$1" "$rx" -netdev "stream,id=n,server=off,addr.type=unix,addr.path=$TMP/pair.sock" -device $card ;;
	qemu,dgram)
		run_qemu "pair,$1" "$rx" -device $card \
			-netdev "dgram,id=n,local.type=unix,local.path=$TMP/b.dgram,remote.type=unix,remote.path=$TMP/a.dgram"
		;;
	qemu,taps) run_qemu "pair,$1" "$rx" -netdev "${QEMU_TAP/$TAP/tapb}" -device $card ;;
	esac
	rate_take "pair,$1" "$2" 0 rx net
	stop "$sender"
	[ -z "$bridge" ] || stop "$bridge"
	if [ "$1" = qemu,taps ]; then
		for tap in tapa tapb br0; do tap_drop $tap; done
	fi
	rm -f "$TMP"/*.sock "$TMP"/*.dgram
}

pair() {
	local round who
	for round in $(seq "$RUNS"); do in_turn "$round" pair_one "" sluice qemu,stream qemu,dgram qemu,taps; done
	echo
	echo "64 B frames from one guest to another: sluice-bridge here; QEMU's stream and dgram sockets, two taps on the kernel's bridge."
	ratio "between two guests: by QEMU's best" pair,sluice,rx "$(best pair,qemu,{stream,dgram,taps},rx)" 3
	for who in sluice qemu,stream qemu,dgram qemu,taps; do raw "pair,$who,rx" frames/s; done
}
