# SPDX-License-Identifier: BSD-2-Clause
# For the scripts in tests/integration/ that need a stock kernel; sourced after lib.bash.
. tests/lab/lab.bash

need_lab() {
	local why
	why=$(lab_reason)
	if [ -n "$why" ]; then
		skip all "$why"
		exit 0
	fi
	if [ "$(id -u)" != 0 ]; then
		skip all "taps and file systems for the guests need root"
		exit 0
	fi
	if ! lab_prepare >"$TMP/prepare" 2>&1; then
		fail "the laboratory can be prepared" "$(tail -n 1 "$TMP/prepare")"
		exit 1
	fi
}

# guest_lines SECONDS LAST COMMAND: the PASS and FAIL lines of a run in the laboratory, which must have
# got as far as the line LAST and end well
guest_lines() {
	local line seconds=$1 last=$2 status
	lab_run "$seconds" "$3" >"$TMP/lines" 2>&1
	status=$?
	while read -r line; do
		line=${line%$'\r'}
		case $line in
		PASS*) pass "${line#PASS }" ;;
		FAIL*) fail "${line#FAIL }" ;;
		SKIP*) skip "${line#SKIP }" "see the log" ;;
		*) echo "$line" ;;
		esac
	done <"$TMP/lines"
	check "the run ended well (status $status)" [ $status = 0 ]
	check "it got as far as $last" grep -q "^$last" "$TMP/lines"
}
