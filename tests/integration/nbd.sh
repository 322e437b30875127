#!/usr/bin/env bash
# Disks of other people's NBD servers: nbdkit and qemu-nbd, over unix sockets and over TCP in a network namespace; a server that
# is killed under load, one that is gone when the monitor is to end, and mistakes.
. "$(dirname "$0")/lib.bash"
need_kvm
command -v nbdkit >/dev/null || { skip "all" "nbdkit is not installed"; finish; }

sock=$TMP/nbd.sock
uri="nbd+unix:///?socket=$sock"
blk=size=4096,depth=32
server=

# serve COMMAND...: starts a server, waits for its socket
serve() {
	rm -f "$sock"
	"$@" >>"$TMP/server" 2>&1 </dev/null &
	server=$!
	children+=("$server")
	for _ in $(seq 200); do
		[ -S "$sock" ] && return 0
		sleep 0.02
	done
	fail "server" "$*"
}

unserve() {
	kill -"${1:-KILL}" "$server" 2>/dev/null
	wait "$server" 2>/dev/null
	server=
}

kit() { serve nbdkit -f -U "$sock" "$@"; }

# works CASE JOBS OPTIONS...: the guest finishes without an error and has verified something
works() {
	local what=$1 jobs=$2
	shift 2
	timeout 60 ${inside:-} "$SLUICE" run --kernel "$GUEST" --cmdline "$jobs" "$@" >"$TMP/out" 2>&1 </dev/null
	verified "$what"
}

verified() {
	if ! grep -q 'SLUICE-DONE failed=0' "$TMP/out"; then
		fail "$1" "$(grep -v HIST "$TMP/out" | tail -n 2 | tr '\n' '|')"
	elif grep -q '^SLUICE-ERROR' "$TMP/out" || grep '^SLUICE-RESULT' "$TMP/out" | grep -qv ' errors=0 '; then
		fail "$1" "$(grep '^SLUICE-ERROR\|errors=[1-9]' "$TMP/out" | head -n 1)"
	else
		pass "$1"
	fi
}

# refused CASE STATUS TEXT OPTIONS...: one line on standard error that has the text
refused() {
	local what=$1 want=$2 text=$3 status
	shift 3
	timeout 30 "$SLUICE" run --kernel "$GUEST" "$@" >"$TMP/out" 2>&1 </dev/null
	status=$?
	if [ "$status" = "$want" ] && [ "$(wc -l <"$TMP/out")" = 1 ] && grep -qF -- "$text" "$TMP/out"; then
		pass "$what"
	else
		fail "$what" "status $status: $(head -n 3 "$TMP/out" | tr '\n' '|')"
	fi
}

image "$TMP/disk" 16M || fail "image" "could not be made"
kit file "$TMP/disk"
works "nbdkit, virtio-blk" "job=blk,dev=virtio-blk,work=randwrite,$blk,ms=300 job=blk,dev=virtio-blk,work=seqread,size=1048576,depth=4,ms=200" \
	--disk "nbd=$uri"
works "nbdkit, virtio-blk, packed ring, 4 queues" "job=blk,dev=virtio-blk,work=randwrite,$blk,ms=300,queues=4" \
	--disk "nbd=$uri,ring=packed,queues=4"
works "nbdkit, ide" "job=blk,dev=ide,work=randwrite,size=4096,depth=4,ms=300" --disk "nbd=$uri,model=ide"
works "a read-only disk" "job=blk,dev=virtio-blk,work=randread,$blk,ms=200" --disk "nbd=$uri,readonly=on"
unserve
works "what was written is in the file" "job=blk,dev=virtio-blk,work=verify,size=131072,depth=8" --disk "path=$TMP/disk"

if command -v qemu-nbd >/dev/null; then
	serve qemu-nbd -t -e 8 -k "$PWD/$sock" -f raw "$TMP/disk"
	works "qemu-nbd, unix socket" "job=blk,dev=virtio-blk,work=randwrite,$blk,ms=300" --disk "nbd=$uri"
	unserve TERM
	ns=sluice-nbd-$$
	trap 'ip netns del "$ns" 2>/dev/null; cleanup' EXIT
	if ip netns add "$ns" 2>/dev/null; then
		inside="ip netns exec $ns"
		$inside ip link set lo up
		ip netns exec "$ns" qemu-nbd -t -e 8 -b 127.0.0.1 -p 10809 -f raw -x web "$TMP/disk" >>"$TMP/server" 2>&1 </dev/null &
		server=$!
		children+=("$server")
		for _ in $(seq 200); do
			$inside bash -c '>/dev/tcp/127.0.0.1/10809' 2>/dev/null && break
			sleep 0.02
		done
		works "qemu-nbd, TCP over loopback" "job=blk,dev=virtio-blk,work=randwrite,$blk,ms=300" \
			--disk nbd=nbd://127.0.0.1:10809/web
		unserve TERM
		inside=
		ip netns del "$ns"
	else
		skip "qemu-nbd, TCP over loopback" "no network namespace can be made"
	fi
else
	skip "qemu-nbd" "not installed"
fi

# killed under load, again and again: the guest stalls, goes on, and finds every block as it wrote it
kit file "$TMP/disk"
timeout 60 "$SLUICE" run --kernel "$GUEST" --cmdline "job=blk,dev=virtio-blk,work=randwrite,$blk,ms=2500" \
	--disk "nbd=$uri" >"$TMP/out" 2>&1 </dev/null &
guest=$!
children+=("$guest")
for i in 1 2 3 4; do
	sleep 0.4
	[ $i != 1 ] || kill -0 "$guest" || fail "nbdkit killed and started again under load" "the guest has ended before"
	unserve
	sleep 0.1
	kit file "$TMP/disk"
done
wait "$guest"
verified "nbdkit killed and started again under load"
unserve
works "and what was written is in the file" "job=blk,dev=virtio-blk,work=verify,size=131072,depth=8" --disk "path=$TMP/disk"

# the server is gone for good, requests wait for it: SIGTERM ends the monitor all the same, and it says what is lost
kit file "$TMP/disk"
"$SLUICE" run --kernel "$GUEST" --cmdline "job=blk,dev=virtio-blk,work=randwrite,$blk,ms=60000" --disk "nbd=$uri" >"$TMP/out" 2>&1 </dev/null &
guest=$!
children+=("$guest")
sleep 0.5
unserve
sleep 0.2
kill -TERM "$guest"
timeout 30 tail --pid="$guest" -f /dev/null || kill -KILL "$guest"
wait "$guest"
status=$?
if [ "$status" = 1 ] && grep -q "what the guest wrote may not be on disk" "$TMP/out"; then
	pass "SIGTERM while the server is gone"
else
	fail "SIGTERM while the server is gone" "status $status: $(tail -n 1 "$TMP/out")"
fi

refused "nobody listens" 2 "--disk nbd=nbd+unix:///?socket=$TMP/none" --disk "nbd=nbd+unix:///?socket=$TMP/none"
refused "a URI of something else" 2 "expected nbd://HOST" --disk nbd=http://127.0.0.1/
refused "an engine with nbd=" 2 "takes no engine" --disk "nbd=$uri,engine=threads"
kit -r file "$TMP/disk"
refused "an export that is read-only" 1 "the export is read-only; use readonly=on" --disk "nbd=$uri"
unserve
kit memory 1000
refused "an odd size" 2 "not a multiple of 512" --disk "nbd=$uri"
unserve
finish
