#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A guest behind NAT: DHCP, datagrams to a server on the host and back, and a forwarded port, over every network card and
# without any privilege.
. "$(dirname "$0")/lib.bash"
need_kvm

NAT_GUEST=build/tests/guest/nat.elf
ASKED=200
ANSWERED=50

# Gives back every datagram; its port is in the file.
perl -MIO::Socket::INET -e '
	$SIG{TERM} = sub { exit 0 };
	my $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1") or die $!;
	open my $f, ">", "$ARGV[0].new" or die $!; print $f $s->sockport, "\n"; close $f;
	rename "$ARGV[0].new", $ARGV[0];
	while (defined(my $from = $s->recv(my $d, 65536))) { $s->send($d, 0, $from) }' "$TMP/port" &
children+=("$!")

# Ports that nobody has just now.
ports_free() {
	perl -MIO::Socket::INET -e '
		print join(" ", map { $_->sockport } map {
			IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1") } 1 .. $ARGV[0]), "\n"' "$1"
}

# ask PORT COUNT: datagrams to 127.0.0.1:PORT until COUNT of them came back right
ask() {
	timeout 60 perl -MIO::Socket::INET -e '
		my ($port, $n) = @ARGV;
		my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "127.0.0.1", PeerPort => $port) or die $!;
		for my $i (0 .. $n - 1) {
			my $sent = pack("N", $i) . chr($i) x ($i * 29 % 1400);
			$s->send($sent);
			$s->recv(my $got, 65536);
			die "datagram $i differs\n" if $got ne $sent;
		}' "$1" "$2"
}

# behind CASE MODEL COMMAND...: the guest does both, run by the command
behind() {
	local what=$1 model=$2 pid out=$TMP/out asked=1 status
	shift 2
	read -r forward < <(ports_free 1)
	timeout 120 "$@" "$SLUICE" run --kernel "$NAT_GUEST" --cmdline "dev=$model to=$server n=$ASKED answer=$ANSWERED" \
		--net "user,hostfwd=udp:127.0.0.1:$forward-:7,model=$model" >"$out" 2>"$TMP/err" </dev/null &
	pid=$!
	children+=("$pid")
	for _ in $(seq 600); do
		grep -q '^nat asked\|^nat failed' "$out" && break
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	if grep -q "^nat asked $ASKED" "$out"; then
		ask "$forward" "$ANSWERED" 2>"$TMP/ask"
		asked=$?
	fi
	wait "$pid"
	status=$?
	if [ "$status" = 0 ] && [ "$asked" = 0 ] && grep -q '^nat ok' "$out" && grep -q '^nat address 10.0.2.15' "$out"; then
		pass "$what: $ASKED datagrams out and back, $ANSWERED in and back"
	else
		fail "$what" "status $status: $(tail -n 1 "$out") $(tail -n 1 "$TMP/err") $(tail -n 1 "$TMP/ask" 2>/dev/null)"
	fi
}

for _ in $(seq 100); do
	[ -s "$TMP/port" ] && break
	sleep 0.1
done
read -r server <"$TMP/port"

for model in virtio-net e1000 ne2k_pci; do
	behind "$model" "$model" env
done

# nobody, with the group that may use /dev/kvm, and no capability at all
group=$(stat -c %g /dev/kvm)
nobody=(setpriv --reuid=65534 --regid=65534 --groups="$group" --inh-caps=-all --bounding-set=-all --no-new-privs)
if [ "$(id -u)" != 0 ]; then
	pass "without privilege: all of the above"
elif "${nobody[@]}" test -x "$SLUICE" -a -r "$NAT_GUEST" -a -r /dev/kvm -a -w /dev/kvm 2>/dev/null; then
	behind "without privilege" virtio-net "${nobody[@]}"
else
	skip "without privilege" "needs a tree that others may read, and /dev/kvm open to its group"
fi

# its port is given back with the process, and its memory is in bounds
read -r forward < <(ports_free 1)
mkfifo "$TMP/in"
"$SLUICE" run --kernel "$GUEST" --cmdline job=idle,ms=60000 --net "user,hostfwd=tcp:127.0.0.1:$forward-:80" \
	<"$TMP/in" >"$TMP/out" 2>"$TMP/err" &
pid=$!
children+=("$pid")
exec 9>"$TMP/in"
for _ in $(seq 100); do
	[ -s "$TMP/out" ] && break
	sleep 0.1
done
check "the port is open" bash -c "exec 8<>/dev/tcp/127.0.0.1/$forward"
timeout 60 "$SLUICE" run --kernel "$GUEST" --cmdline job=idle,ms=1 --net "user,hostfwd=tcp:127.0.0.1:$forward-:80" \
	>/dev/null 2>"$TMP/err" </dev/null
[ $? = 1 ] && grep -q "hostfwd=tcp:127.0.0.1:$forward-:80: the host's port is in use" "$TMP/err"
check "another process is told that it is in use" [ $? = 0 ]
kib=$(awk '/^[0-9a-f]+-[0-9a-f]+ / {guest = /\/memfd:/} /^Rss:/ && !guest {sum += $2} END {print sum}' "/proc/$pid/smaps")
check "resident memory beyond the guest's: ${kib:-no} KiB (at most 8192)" [ "${kib:-99999}" -le 8192 ]
kill -TERM "$pid"
wait "$pid"
check "SIGTERM ends it with status 0" [ $? = 0 ]
exec 9>&-
timeout 60 "$SLUICE" run --kernel "$GUEST" --cmdline job=idle,ms=1 --net "user,hostfwd=tcp:127.0.0.1:$forward-:80" \
	>/dev/null 2>"$TMP/err" </dev/null
check "and its port is free again" [ $? = 0 ]
finish
