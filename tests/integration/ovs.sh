#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Guests on ports of Open vSwitch with DPDK: on one switch, and on two that VXLAN or Geneve joins, as netbridge/README.md
# says. What is received is checked by the guest that receives it.
. "$(dirname "$0")/lib.bash"
. perf/ovs.bash
need_kvm
why=$(ovs_reason)
[ -z "$why" ] || { skip "all" "$why"; finish; }
D=$PWD/$TMP
ns=sluice-ovs-$$
# DPDK's programs leave the folder of their prefix behind.
trap 'ip netns del $ns-1 2>/dev/null; ip netns del $ns-2 2>/dev/null; cleanup; rm -rf /var/run/dpdk/"$ns"*' EXIT
if ! ip netns add $ns-1 2>/dev/null || ! ip netns add $ns-2; then
	skip "all" "no network namespace can be made"
	finish
fi
# the wire between two hosts
ip -n $ns-1 link add wire type veth peer name wire netns $ns-2
for n in 1 2; do
	ip -n $ns-$n link set lo up
	ip -n $ns-$n link set wire up
done

# host N: a switch with a bridge for guests, br-int, and a guest's port at the socket vmN.sock; the wire is on br-phy, whose
# address is where tunnels begin. A thread of it that has nothing to do sleeps: it is one of many here.
host() {
	local n=$1
	ovs_start "$D/host$n" "$ns-$n" "ip netns exec $ns-$n" pmd-cpu-mask=0x$n pmd-maxsleep=200 || return
	ovs_set "$D/host$n" add-br br-phy -- set Bridge br-phy datapath_type=netdev -- add-port br-phy wire
	ip -n $ns-$n addr add 10.99.0.$n/24 dev br-phy
	ip -n $ns-$n link set br-phy up
	ovs_set "$D/host$n" add-br br-int -- set Bridge br-int datapath_type=netdev
	port "$n" "vm$n"
}
# port N NAME: a guest's
port() {
	ovs_set "$D/host$1" add-port br-int "$2" -- set Interface "$2" type=dpdkvhostuserclient "options:vhost-server-path=$D/$2.sock"
}
# tunnel TYPE: between the two
tunnel() {
	local n
	for n in 1 2; do
		ovs_set "$D/host$n" --if-exists del-port br-int tun0 -- add-port br-int tun0 \
			-- set Interface tun0 type="$1" options:remote_ip=10.99.0.$((3 - n)) options:key=7
	done
}

# guest SOCKET JOB OUT [KEYS]
guest() {
	timeout 60 "$SLUICE" run --kernel "$GUEST" --cmdline "job=net,dev=virtio-net,$2" \
		--net "vhost-user=$D/$1.sock,mode=listen,wait-s=20${4:-}" </dev/null >"$TMP/$3" 2>"$TMP/$3.err"
}
# exchange CASE FROM TO SIZE [KEYS]: numbered frames go from one guest to the other
exchange() {
	local what=$1 from=$2 to=$3 keys=${5:-} receiver
	guest "$to" work=rx,ms=4000 rx "$keys" &
	receiver=$!
	guest "$from" "work=tx,size=$4,depth=32,warm_ms=0,ms=1500" tx "$keys"
	wait "$receiver"
	if ! grep -q 'SLUICE-DONE failed=0' "$TMP/rx" || ! grep -q 'SLUICE-DONE failed=0' "$TMP/tx"; then
		fail "$what" "$(grep -hv HIST "$TMP/rx" "$TMP/tx" "$TMP/rx.err" "$TMP/tx.err" | grep -v powered | tail -n 2 | tr '\r\n' '  ')"
	elif [ "$(field "$TMP/rx" 0 errors)" != 0 ] || [ "$(field "$TMP/rx" 0 verified)" -lt 200 ]; then
		fail "$what" "$(grep RESULT "$TMP/rx" | tr -d '\r')"
	elif [ "$(field "$TMP/rx" 0 verified)" -gt "$(field "$TMP/tx" 0 requests)" ]; then
		fail "$what" "more frames came than were sent"
	else
		pass "$what ($(field "$TMP/rx" 0 verified) frames are right)"
	fi
}
# carried TYPE HOST: by the switch's own count of what went through the tunnel
carried() {
	local n
	n=$(ovs_set "$D/host$2" get Interface tun0 statistics:rx_packets)
	check "$1: the tunnel carried it" [ "$n" -ge 200 ]
}

host 1 && port 1 vm3 || fail "a host" "$(tail -n 1 "$D/host1/log")"
exchange "one switch, split rings" vm1 vm3 64
exchange "one switch, packed rings, the other way" vm3 vm1 1514 ,ring=packed
host 2 || fail "another host" "$(tail -n 1 "$D/host2/log")"
tunnel vxlan
exchange "two switches, VXLAN" vm1 vm2 1400
carried VXLAN 2
tunnel geneve
exchange "two switches, Geneve, the other way" vm2 vm1 64 ,ring=packed
carried Geneve 1
for n in 1 2; do ovs_stop "$D/host$n"; done
finish
