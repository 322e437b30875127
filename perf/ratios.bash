# SPDX-License-Identifier: BSD-2-Clause
# What comparisons with others share: processes, figures round by round, ratios of them. The script that reads this file
# has set WHO (its name), RUNS, MS and PACKAGES (of those it compares with).
TMP=build/tmp/perf-$WHO.$$
DISTANCE=build/perf/distance
NEAR_NS=${NEAR_NS:-200} # those that share a cache are 30 to 150 ns apart, others 300 and more
FIGURES=$TMP/figures   # CONTENDER ROUND VALUE [DISTANCE]
RATIOS=$TMP/ratios     # part, title, median, least, most, rounds, relation, goal, word, A, B, divided by tabs
COMMANDS=$TMP/commands # contender, command line
LEFT_OUT=$TMP/left-out # what, why
part=
mkdir -p "$TMP"
touch "$TMP"/{figures,ratios,commands,left-out}
failures=0
children=()
started= # the process that `serve` started last

cleanup() {
	local pid
	for pid in "${children[@]}"; do
		kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
	done
	rm -rf "$TMP" /var/run/dpdk/sluice-perf-$$-* # DPDK leaves the folders of its prefixes behind
}
trap cleanup EXIT
trap 'exit 1' INT TERM

bad() {
	echo "FAIL $1: $2"
	printf '%s\t%s\n' "$1" "failed: $2" >>"$LEFT_OUT"
	failures=$((failures + 1))
}
left_out() {
	echo "left out: $1: $2"
	printf '%s\t%s\n' "$1" "$2" >>"$LEFT_OUT"
}

# serve LOG COMMAND...: in the background; ends with the script, or by `stop`
serve() {
	local log=$1
	shift
	"$@" >"$log" 2>&1 </dev/null &
	started=$!
	children+=("$started")
}
stop() {
	kill -TERM "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}
# until_true COMMAND...: for at most 15 seconds
until_true() {
	local end=$((SECONDS + 15))
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

# ------------------------------------------------------------------ processors that are moved about

# distance: nanoseconds that a cache line takes from one processor to the other and back; 0 where it cannot be told
distance() { distance=$("$DISTANCE" 2>/dev/null || echo 0); }
is_near() { [ "$distance" -le "$NEAR_NS" ]; }
# near_await: until the processors share a cache, for at most 20 seconds; where they never do, not for long
never_near=0
near_await() {
	local end=$((SECONDS + (never_near < 3 ? 20 : 0)))
	distance
	until is_near || [ $SECONDS -ge $end ]; do
		sleep 0.3
		distance
	done
	if is_near; then never_near=0; else never_near=$((never_near + 1)); fi
}
# steady COMMAND...: a measurement while the processors share a cache, tried again when they were moved apart meanwhile;
# how far apart they were is noted with its figures. `ratio` compares those that were near, or those that were not.
steady() {
	local before lines try
	for try in 1 2 3; do
		near_await
		before=$distance
		lines=$(wc -l <"$FIGURES")
		"$@"
		distance
		[ "$distance" -gt "$before" ] || distance=$before
		if is_near || [ "$before" -gt "$NEAR_NS" ] || [ $try = 3 ]; then break; fi
		sed -i "$((lines + 1)),\$d" "$FIGURES"
	done
	sed -i "$((lines + 1)),\$s/$/ $distance/" "$FIGURES"
}

# ------------------------------------------------------------------ figures

figure() { echo "$1 $2 $3" >>"$FIGURES"; }
# median CONTENDER
median() {
	awk -v who="$1" '$1 == who { print $3 }' "$FIGURES" | sort -g |
		awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
# raw CONTENDER UNIT: its line of figures; with a tilde, if the processors were apart
raw() {
	awk -v who="$1" -v unit="$2" -v near="$NEAR_NS" '$1 == who { n++; list = list sprintf(" %.0f%s", $3, $4 > near ? "~" : "") }
		END { if (n) printf "    %-44s%s %s\n", who, list, unit }' "$FIGURES"
}
# best CONTENDER...: the one with the highest median
best() {
	local who
	for who; do echo "$(median "$who") $who"; done | sort -g | tail -n 1 | cut -d ' ' -f 2-
}
# judged TITLE RELATION GOAL A B: of the values on standard input, one for each round; RELATION is least or most
judged() {
	sort -g | awk -v part="$part" -v title="$1" -v relation="$2" -v goal="$3" -v a="$4" -v b="$5" -v OFS='\t' '{ v[NR] = $1 } END {
		m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
		word = goal == "" ? "" : (relation == "least" ? m >= goal : m <= goal) ? "pass" : "short"
		if (NR) print part, title, m, v[1], v[NR], NR, relation, goal, word, a, b }' >>"$RATIOS"
	tail -n 1 "$RATIOS" | awk -F '\t' 'function short(v) { return sprintf(v != 0 && v < 0.01 ? "%.4f" : v < 1000 ? "%.2f" : "%.0f", v) } {
		unit = $11 == "" ? "" : "x"
		printf "  %-62s %6s%s  (%s to %s)", $2, short($3), unit, short($4), short($5)
		if ($8 != "") printf "  goal %s%s%s: %s", $7 == "most" ? "at most " : "", short($8), unit, $9
		print "" }'
}
# ratio TITLE A B GOAL [most]: A by B, of the rounds in which the processors were equally far apart for both; GOAL is the least (or most) it is to be
ratio() {
	if [ -z "$(median "$2")" ] || [ -z "$(median "$3")" ]; then
		left_out "$1" "not measured"
		return
	fi
	awk -v a="$2" -v b="$3" -v near="$NEAR_NS" '$1 == a { x[$2] = $3; dx[$2] = $4 > near } $1 == b { y[$2] = $3; dy[$2] = $4 > near }
		END { for (r in x) if (r in y && y[r] > 0 && dx[r] == dy[r]) print x[r] / y[r] }' "$FIGURES" >"$TMP/paired"
	if [ -s "$TMP/paired" ]; then
		judged "$1" "${5:-least}" "$4" "$2" "$3" <"$TMP/paired"
	else
		left_out "$1" "the processors were never equally far apart for both"
	fi
}
# absolute TITLE A GOAL: A itself, which is to be at most GOAL
absolute() {
	if [ -z "$(median "$2")" ]; then
		left_out "$1" "not measured"
		return
	fi
	awk -v a="$2" '$1 == a { print $3 }' "$FIGURES" | judged "$1" most "$3" "$2" ""
}

facts() {
	local kvm=hardware
	[ ! -d /sys/module/kvm_pvm ] || kvm='kvm-pvm (software only)'
	echo "host: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, $(uname -sr), KVM: $kvm"
	[ -z "$PACKAGES" ] || echo "against: $(dpkg-query -W -f '${Package} ${Version}, ' $PACKAGES 2>/dev/null)"
	distance
	echo "a cache line from one processor to the other and back: $distance ns just now"
	echo "image on: $(df --output=fstype "$TMP" | tail -n 1); $RUNS rounds of $MS ms each; date: $(date -u +%Y-%m-%d)"
}

# key NAME LINE: its number in a guest's line
key() { sed -n "s/.* $1=\([0-9]*\).*/\1/p" <<<"$2"; }
