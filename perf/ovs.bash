# SPDX-License-Identifier: BSD-2-Clause
# Open vSwitch with DPDK for a benchmark or a test: a database and a run directory of its own, taps in another network
# namespace, no huge pages, no service of the system. Who sources this has an array `children` of processes it ends.
OVS_VSWITCHD=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk

# ovs_reason: why it cannot run here; nothing, if it can
ovs_reason() {
	if [ ! -x $OVS_VSWITCHD ]; then
		echo "Open vSwitch with DPDK is not installed (make deps)"
	elif ! unshare -n true 2>/dev/null; then
		echo "no network namespace can be made"
	fi
}
# ovs_set DIR ARGUMENT...: ovs-vsctl
ovs_set() {
	local dir=$1
	shift
	OVS_RUNDIR=$dir timeout 20 ovs-vsctl --db="unix:$dir/db" "$@"
}
ovs_ready() { OVS_RUNDIR=$1 timeout 5 ovs-appctl -t "$1/ctl" version; }
ovs_until() {
	local n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 200 ] || return 1
		sleep 0.1
	done
}

# ovs_start DIR PREFIX INSIDE [KEY=VALUE...]: INSIDE is the command that leads into the namespace, PREFIX names DPDK's files,
# the rest is other_config. Its processes are in DIR/pids, what it says in DIR/log.
ovs_start() {
	local dir=$1 prefix=$2 inside=$3 key
	shift 3
	mkdir -p "$dir"
	: >"$dir/pids"
	OVS_RUNDIR=$dir ovsdb-tool create "$dir/conf.db" /usr/share/openvswitch/vswitch.ovsschema || return
	OVS_RUNDIR=$dir ovsdb-server "$dir/conf.db" --remote="punix:$dir/db" --unixctl="$dir/db.ctl" >"$dir/db.log" 2>&1 </dev/null &
	children+=($!)
	echo $! >>"$dir/pids"
	ovs_until [ -S "$dir/db" ] || return
	ovs_set "$dir" --no-wait init
	for key in dpdk-init=true per-port-memory=true \
		"dpdk-extra=\"--no-huge --legacy-mem -m 512 --no-pci --no-telemetry --file-prefix=$prefix\"" "$@"; do
		ovs_set "$dir" --no-wait set Open_vSwitch . "other_config:$key"
	done
	OVS_RUNDIR=$dir $inside $OVS_VSWITCHD "unix:$dir/db" --unixctl="$dir/ctl" >"$dir/log" 2>&1 </dev/null &
	children+=($!)
	echo $! >>"$dir/pids"
	ovs_until ovs_ready "$dir"
}
# ovs_stop DIR
ovs_stop() {
	local pid
	for pid in $(tac "$1/pids"); do
		kill "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	rm -rf "$1"
}
