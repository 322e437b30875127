#!/usr/bin/env bash
# Network cards whose frames another process carries (--net vhost-user=): DPDK's testpmd, which sends everything back, and
# sluice-bridge between two guests; each killed under load and started again. Frames may be lost and nothing else.
. "$(dirname "$0")/lib.bash"
SLUICE=build/sluice
GUEST=build/perf/guest.elf
D=$PWD/$TMP
prefix=sluice-vn-$$
# DPDK's programs leave the folder of their prefix behind.
trap 'cleanup; rm -rf /var/run/dpdk/"$prefix"*' EXIT
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
	skip all "/dev/kvm may not be opened"
	exit 0
fi

# guest OUT SOCKET JOB [KEYS]
guest() {
	timeout 60 "$SLUICE" run --kernel "$GUEST" --memory=64M --cmdline "job=net,dev=virtio-net,$3" \
		--net "vhost-user=$D/$2,wait-s=20${4:-}" </dev/null >"$TMP/$1" 2>"$TMP/$1.err"
}
# field FILE NAME: of the job's result
field() { sed -n "s/.*SLUICE-RESULT job=0 .*\b$2=\([0-9]*\).*/\1/p" "$TMP/$1" | tail -n 1; }
# right CASE OUT LEAST: nothing but right frames came, at least so many
right() {
	local n
	n=$(field "$2" verified)
	if grep -q 'SLUICE-DONE failed=0' "$TMP/$2" && [ "$(field "$2" errors)" = 0 ] && [ "${n:-0}" -ge "$3" ]; then
		pass "$1 ($n frames are right, $(field "$2" lost) lost)"
	else
		fail "$1" "$(grep -hv HIST "$TMP/$2" "$TMP/$2.err" | tail -n 3 | tr '\r\n' '  ')"
	fi
}
# seen FILE TEXT
seen() {
	local n=0
	until grep -q "$2" "$1" 2>/dev/null; do
		n=$((n + 1))
		[ $n -lt 400 ] || return 1
		sleep 0.05
	done
}

# ------------------------------------------------------------------ testpmd

# pmd: sends back what comes at the socket t; its process is $server
pmd() {
	rm -f "$TMP/t"
	dpdk-testpmd --no-huge -m 256 --no-pci --no-telemetry --no-shconf --file-prefix "$prefix" -l 0,1 \
		--vdev="net_vhost0,iface=$D/t,queues=1" -- --auto-start --disable-link-check --total-num-mbufs=8192 \
		--forward-mode=io --no-flush-rx <>"$TMP/never" >"$TMP/pmd" 2>&1 &
	server=$!
	children+=("$server")
	for _ in $(seq 200); do
		[ ! -S "$TMP/t" ] || break
		sleep 0.05
	done
}
pmd_kill() {
	kill -KILL "$server"
	wait "$server" 2>/dev/null
}
mkfifo "$TMP/never"
if command -v dpdk-testpmd >/dev/null; then
	for ring in split packed; do
		pmd
		guest echo t work=echo,size=200,ms=700 ",ring=$ring"
		right "testpmd, $ring ring" echo 200
		guest killed t work=echo,size=64,ms=5000 ",ring=$ring" &
		running=$!
		sleep 1.5
		pmd_kill
		pmd
		wait "$running"
		right "testpmd killed under load, $ring ring" killed 500
		check "and the guest went on, $ring ring" grep -q "found again" "$TMP/killed.err"
		pmd_kill
	done
else
	skip testpmd "dpdk-testpmd is not installed"
fi

# ------------------------------------------------------------------ sluice-bridge

bridge() {
	: >"$TMP/bridge"
	build/sluice-bridge --no-huge --memory 64 --file-prefix "$prefix" --port "vhost-user=$D/a" --port "vhost-user=$D/b" \
		--port mem=echo,name=e,vlan=9 --port "vhost-user=$D/e9,vlan=9" 2>"$TMP/bridge" &
	server=$!
	children+=("$server")
	seen "$TMP/bridge" ready || fail "the bridge starts" "$(tail -n 1 "$TMP/bridge")"
}
bridge
for ring in split packed; do
	guest rx b work=rx,ms=6000 ",ring=$ring" &
	receiver=$!
	guest tx a work=tx,size=300,depth=32,ms=3000 ",ring=$ring" &
	sender=$!
	sleep 1.5
	kill -KILL "$server"
	wait "$server" 2>/dev/null
	bridge
	wait "$sender" "$receiver"
	right "sluice-bridge from guest to guest, killed under load, $ring ring" rx 500
	check "both guests went on, $ring ring" [ "$(cat "$TMP/rx.err" "$TMP/tx.err" | grep -c "found again")" = 2 ]
	check "no more came than was sent, $ring ring" [ "$(field rx verified)" -le "$(field tx requests)" ]
done
kill "$server"
wait "$server"
check "SIGTERM ends it well" [ $? = 0 ]
finish
