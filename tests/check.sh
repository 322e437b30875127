#!/usr/bin/env bash
# Everything `make check` runs (and `make check-full`, which sets FULL), in order, and the one line at the end. Each
# step prints PASS, FAIL or SKIP lines (or, from a unit test, a UNIT line); a step that prints none counts as one
# test by its exit status.
set -u
cd "$(dirname "$0")/.."
jobs=$(nproc)
passed=0 failed=0 skipped=0 what=''
mkdir -p build/check build/tmp
began=$SECONDS

count() { grep -c "^$1 " "$2"; }

# failures NAME LOG: what failed there, for the end: of a unit test its name, the case and the assertions
failures() {
	awk -v name="$1" '
		/^FAIL / { print name ": " $0; next }
		/Test: .*FAILED/ { print name ": " $0; in_case = 1; next }
		/^ *Test: |^Suite|^Run Summary/ { in_case = 0 }
		in_case && /^ +[0-9]+\. / { print name ": " $0 }
		/^UNIT .* failed=[1-9]/ || /^no UNIT line/ { print name ": " $0 }' "$2" | cut -c1-200 | head -n 30
}

# step NAME COMMAND...
step() {
	local name=$1 log=build/check/${1//[^a-z0-9]/-}.log status p f s unit up uf us start=$SECONDS
	shift
	printf '== %s (%d s)\n' "$name" $((SECONDS - began))
	"$@" >"$log" 2>&1 </dev/null
	status=$?
	p=$(count PASS "$log") f=$(count FAIL "$log") s=$(count SKIP "$log")
	unit=$(sed -n 's/^UNIT .* passed=\([0-9]*\) failed=\([0-9]*\) skipped=\([0-9]*\)$/\1 \2 \3/p' "$log" |
		awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}')
	read -r up uf us <<<"$unit"
	p=$((p + up)) f=$((f + uf)) s=$((s + us))
	if [ "$status" != 0 ] && [ "$f" = 0 ]; then
		f=1
		echo "FAIL $name (status $status)" >>"$log"
	elif [ $((p + f + s)) = 0 ]; then
		p=1
	fi
	grep -h '^FAIL \|SKIP: \|^SKIP ' "$log" | cut -c1-200
	if [ "$f" != 0 ]; then
		echo "-- the end of $log:"
		tail -n 40 "$log"
		what+=$(failures "$name" "$log")$'\n'
	fi
	printf '   %d passed, %d failed, %d skipped, in %d s\n' "$p" "$f" "$s" $((SECONDS - start))
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

make_quiet() { make --no-print-directory -s -k -j"$jobs" "$@"; }

step "build with gcc" make_quiet build
step "build with clang" make_quiet CC=clang B=build/clang build
step "who may include what" make_quiet check-deps
step "format" make_quiet format-check
step "model of the notification protocol" make_quiet model
step "unit tests: build" make_quiet unit-build
step "unit tests" make --no-print-directory -s unit
step "unit tests, address and undefined: build" make_quiet SAN=address,undefined unit-build
step "unit tests, address and undefined" make --no-print-directory -s SAN=address,undefined unit
step "unit tests, thread: build" make_quiet SAN=thread unit-build
step "unit tests, thread" make --no-print-directory -s SAN=thread unit
step "corpora: build" make_quiet fuzz-build
step "corpora" make --no-print-directory -s fuzz-replay
for t in tests/integration/*.sh; do
	step "$(basename "$t" .sh)" "$t"
done

[ -z "$what" ] || printf -- '-- what failed:\n%s' "$what"
printf '%d s in all\n' $((SECONDS - began))
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
