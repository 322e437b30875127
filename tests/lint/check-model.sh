#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Checks the model of the notification protocol, ring/notify.pml, with spin: the protocol as it is has
# to be free of errors over its whole state space, and each way of breaking it has to be found out.
#
# usage: check-model.sh [BUILDDIR]       prints a line for each check; exit status 1 when any failed
set -u

top=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$top/build}
bad=0

command -v spin >/dev/null || { echo "FAIL model: spin is not installed"; exit 1; }
mkdir -p "$build/spin" || exit 1
build=$(cd "$build/spin" && pwd)

report() { # PASS|FAIL name detail
	echo "$1 model $2: $3"
	[ "$1" = PASS ] || bad=1
}

# Runs one variant; its full output goes to $build/NAME/log.
search() { # name, macros...
	local dir=$build/$1
	shift
	rm -rf "$dir"
	mkdir -p "$dir" || return 1
	(
		cd "$dir" && cp "$top/ring/notify.pml" . &&
			spin "$@" -a notify.pml &&
			gcc -O1 -w -DSAFETY -DNOREDUCE -o pan pan.c &&
			./pan -m200000
	) >"$dir/log" 2>&1
}

# The last "errors:" line counts; a search that was cut short proves nothing.
errors() { sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$build/$1/log" | tail -1; }
states() { sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$build/$1/log" | tail -1; }
# A model that cannot reach part of itself proves less than it seems to; its loops never end, though.
unreached() { grep '^[[:space:]]*notify.pml:.*state' "$build/$1/log" | grep -vc -- '-end-'; }
cut_short() {
	grep -qiE 'search not completed|max search depth too small|out of memory|truncated|hash table full' \
		"$build/$1/log"
}

for mode in flags event_idx; do
	macro=()
	[ $mode = event_idx ] && macro=(-DEVENT_IDX)

	name=$mode
	search "$name" "${macro[@]}"
	if [ "$(errors "$name")" != 0 ]; then
		report FAIL "$name" "errors found, or the check did not run (see $build/$name/log)"
	elif cut_short "$name"; then
		report FAIL "$name" "the search was cut short (see $build/$name/log)"
	elif [ "$(unreached "$name")" != 0 ]; then
		report FAIL "$name" "$(unreached "$name") states of the model are never reached"
	else
		report PASS "$name" "no wake-up is lost in $(states "$name") states"
	fi

	for direction in doorbell interrupt; do
		number=0
		[ $direction = interrupt ] && number=1
		for broken in NO_BARRIER NO_BARRIER_PUBLISHER NO_BARRIER_SLEEPER NO_SECOND_LOOK; do
			name=$mode-$direction-${broken,,}
			search "$name" "${macro[@]}" -DDIRECTION=$number -D$broken
			if [ "$(errors "$name")" -gt 0 ] 2>/dev/null &&
				grep -q 'invalid end state' "$build/$name/log"; then
				report PASS "$name" "found out, a wake-up is lost"
			else
				report FAIL "$name" "must lose a wake-up and does not (see $build/$name/log)"
			fi
		done
	done
done
exit $bad
