# SPDX-License-Identifier: BSD-2-Clause
# What the integration tests share. Each prints a PASS, FAIL or SKIP line for every case, and fails if any did.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
SLUICE=build/sluice
GUEST=build/perf/guest.elf
name=$(basename "$0" .sh)
TMP=build/tmp/$name.$$
mkdir -p "$TMP"
failures=0
children=()

cleanup() {
	local pid
	for pid in "${children[@]}"; do
		kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
	done
	rm -rf "$TMP"
}
trap cleanup EXIT

pass() { echo "PASS $name: $1"; }
fail() {
	echo "FAIL $name: $1: ${2:-}"
	failures=$((failures + 1))
}
skip() { echo "SKIP $name: $1: $2"; }

# check CASE CONDITION-COMMAND...: PASS or FAIL by its status
check() {
	local what=$1
	shift
	if "$@"; then pass "$what"; else fail "$what" "$*"; fi
}

# wait_for COMMAND...: until it succeeds, for at most 20 seconds
wait_for() {
	local n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 400 ] || return 1
		sleep 0.05
	done
}

# ask METHOD PATH [CURL-OPTION...]: on the control socket $CONTROL
ask() {
	local method=$1 path=$2
	shift 2
	curl -sS --unix-socket "$CONTROL" -X "$method" "http://x$path" "$@"
}
# says CASE STATUS TEXT METHOD PATH [DATA]: the answer's status, and what is in it
says() {
	local what=$1 want=$2 text=$3 got
	shift 3
	got=$(ask "$1" "$2" ${3:+-d "$3"} -w '\n%{http_code}')
	if [ "${got##*$'\n'}" = "$want" ] && [[ $got == *"$text"* ]]; then
		pass "$what"
	else
		fail "$what" "$got"
	fi
}

# An image of the benchmark's pattern: image FILE SIZE
image() { "$SLUICE" bench --make-image "$1" --image-size "$2"; }

# The value of key=VALUE in a guest's result line: field FILE JOB KEY
field() { sed -n "s/^SLUICE-RESULT job=$2 .*\b$3=\([0-9]*\).*/\1/p" "$1" | head -n 1; }

need_kvm() {
	if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
		skip "all" "no access to /dev/kvm"
		exit 0
	fi
}

finish() { exit $((failures != 0)); }
