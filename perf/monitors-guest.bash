# SPDX-License-Identifier: BSD-2-Clause
# The guests of monitors.sh: the benchmark guest below either monitor, what it said, what it cost.
NS=() # nsenter and its options: the network namespace of taps
QEMU_MACHINE=pc
# With KVM in software only its own model aborts; the guest looks at nothing but what both have.
[ -d /sys/module/kvm_pvm ] && QEMU_CPU=EPYC-Rome || QEMU_CPU=host

# command_line CONTENDER COMMAND...: what the report says it had
command_line() {
	local who=$1
	shift
	grep -q "^$who	" "$COMMANDS" || printf '%s\t%s\n' "$who" "$(sed "s|$TMP/||g" <<<"$*")" >>"$COMMANDS"
}
sluice_command() {
	local jobs=$1
	shift
	COMMAND=("$SLUICE" run --kernel "$GUEST" --cmdline "$jobs" "$@")
}
qemu_command() {
	local jobs=$1
	shift
	COMMAND=(qemu-system-x86_64 -enable-kvm -cpu "$QEMU_CPU" -machine "$QEMU_MACHINE" -m 256 -display none -nodefaults -no-reboot
		-serial stdio -kernel "$GUEST" -append "$jobs" "$@")
}
# run_sluice CONTENDER JOBS OPTION..., run_qemu CONTENDER JOBS OPTION...: until the guest has done them; it speaks in out
run_sluice() {
	sluice_command "${@:2}"
	run_command "$1"
}
run_qemu() {
	qemu_command "${@:2}"
	run_command "$1"
}
run_command() {
	command_line "$1" "${COMMAND[@]}"
	timeout 120 "${NS[@]}" "${COMMAND[@]}" </dev/null 2>"$TMP/err" | tr -d '\r' >"$TMP/out"
}
# begin_sluice, begin_qemu: the same in the background, as $started
begin_sluice() {
	sluice_command "${@:2}"
	begin_command "$1"
}
begin_qemu() {
	qemu_command "${@:2}"
	begin_command "$1"
}
begin_command() {
	command_line "$1" "${COMMAND[@]}"
	: >"$TMP/out"
	"${NS[@]}" "${COMMAND[@]}" </dev/null 2>"$TMP/err" >"$TMP/out" &
	started=$!
	children+=("$started")
}

# in_turn ROUND FUNCTION ARGUMENT CONTENDER...: FUNCTION CONTENDER ROUND ARGUMENT; in each round another begins
in_turn() {
	local round=$1 what=$2 argument=$3 n i
	shift 3
	local -a who=("$@")
	n=$#
	for i in $(seq "$n"); do steady "$what" "${who[(i + round) % n]}" "$round" "$argument"; done
}

# result JOB: the guest's line
result() { grep "^SLUICE-RESULT job=$1 " "$TMP/out"; }
per_s() { echo $(($(key requests "$1") * 1000000 / ($(key ns "$1") / 1000 + 1))); }
# result_good CONTENDER: it did all jobs without an error
result_good() {
	grep -q 'SLUICE-DONE failed=0' "$TMP/out" && ! grep -q '^SLUICE-RESULT .* errors=[1-9]' "$TMP/out" && return
	bad "$1" "$(grep -hv HIST "$TMP/out" "$TMP/err" | grep -v warning: | tail -n 2 | tr '\r\n' '  ')"
	return 1
}
# rate_take CONTENDER ROUND JOB NAME KIND: requests a second as a figure; of blocks and frames that arrive, each must have been checked
rate_take() {
	local line
	result_good "$1" || return
	line=$(result "$3")
	if [ "$(key requests "$line")" = 0 ] || { [[ $4 == randread* || $4 == rx* ]] &&
		[ "$(key verified "$line")" -lt "$(key requests "$line")" ]; } || { [[ $4 == randwrite* ]] && [ "$(key verified "$line")" = 0 ]; }; then
		bad "$1,$4" "$(key requests "$line") requests, $(key verified "$line") checked"
		return 1
	fi
	figure "$1,$4" "$2" "$(per_s "$line")"
}
# lowest CONTENDER...: the one with the lowest median
lowest() {
	local who
	for who; do [ -z "$(median "$who")" ] || echo "$(median "$who") $who"; done | sort -g | head -n 1 | cut -d ' ' -f 2-
}

# cpu_ns PID: user and system time of all its threads, guest time included
cpu_ns() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%.0f", ($12 + $13) * 1e9 / hz }' "/proc/$1/stat"; }
# private_kib PID: anonymous and private memory, resident, but the guest's own (a memfd here, one mapping of its size there)
private_kib() {
	awk '/^[0-9a-f]+-[0-9a-f]+ / { guest = /memfd:/ } /^Size:/ { if ($2 == 262144) guest = 1 }
		/^Private_(Clean|Dirty):/ { if (!guest) anon += $2 } END { print anon + 0 }' "/proc/$1/smaps"
}
