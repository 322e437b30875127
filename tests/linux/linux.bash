# SPDX-License-Identifier: BSD-2-Clause
# For the scripts in tests/integration/ that need a stock kernel; sourced after lib.bash.
. tests/lab/lab.bash

# For who needs root where the laboratory is the host itself
need_lab() {
	if lab_native && [ "$(id -u)" != 0 ]; then
		skip all "taps and file systems for the guests need root"
		exit 0
	fi
	need_lab_user
}

need_lab_user() {
	local why
	why=$(lab_reason)
	if [ -n "$why" ]; then
		skip all "$why"
		exit 0
	fi
	if ! lab_prepare >"$TMP/prepare" 2>&1; then
		fail "the laboratory can be prepared" "$(tail -n 1 "$TMP/prepare")"
		exit 1
	fi
}

# guest_initramfs INIT MODULE...: the initramfs in $initrd
guest_initramfs() {
	initrd=$(lab_initramfs "$@") || {
		fail "the guest's initramfs" "status $?"
		finish
	}
}

# guest_lines SECONDS LAST COMMAND: the PASS and FAIL lines of a run in the laboratory, which must have
# got as far as the line LAST and end well
guest_lines() {
	guest_lines_to "$TMP/lines" "$1" "$3"
	guest_lines_from "$TMP/lines" "$2"
}

# The same in two halves, for runs side by side: guest_lines_to FILE SECONDS COMMAND, guest_lines_from FILE LAST [NAME]
guest_lines_to() {
	lab_run "$2" "$3" >"$1" 2>&1
	echo $? >"$1.status"
}
guest_lines_from() {
	local line run=${3:+$3: } status
	status=$(cat "$1.status" 2>/dev/null)
	while read -r line; do
		line=${line%$'\r'}
		case $line in
		PASS*) pass "${line#PASS }" ;;
		FAIL*) fail "${line#FAIL }" ;;
		SKIP*) skip "${line#SKIP }" "see the log" ;;
		*) echo "$line" ;;
		esac
	done <"$1"
	check "${run}the run ended well (status $status)" [ "$status" = 0 ]
	check "${run}it got as far as $2" grep -q "^$2" "$1"
}
