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
