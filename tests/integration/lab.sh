#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# The laboratory as its user meets it: exit status, output as it comes, the tree as it is, nothing left behind, runs
# side by side, an end to what hangs, and what is said where there can be no laboratory.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash

# Without QEMU: every program but that one. Each script that needs a laboratory says so, once, and fails not.
mkdir "$TMP/bin"
IFS=: read -ra path <<<"$PATH:/usr/sbin:/sbin"
for dir in "${path[@]}"; do
	for program in "$dir"/*; do
		case ${program##*/} in
		qemu-system-*) ;;
		*) [ -e "$TMP/bin/${program##*/}" ] || ln -s "$program" "$TMP/bin/" 2>/dev/null ;;
		esac
	done
done
without_qemu() { LAB_FORCE=1 PATH=$TMP/bin "$@" >"$TMP/out" 2>"$TMP/err" </dev/null; }
for script in $(grep -l '^need_lab' tests/integration/linux-*.sh); do
	without_qemu "$script"
	check "without QEMU: $(basename "$script" .sh) is skipped, with the reason" \
		[ "$?/$(wc -l <"$TMP/out")/$(grep -c '^SKIP .*: all: QEMU is not installed (apt-get install ' "$TMP/out")" = 0/1/1 ]
done
without_qemu tests/lab/lab.sh prepare
check "without QEMU: preparing fails with one line" \
	[ "$?/$(cat "$TMP/err")" = "1/laboratory: QEMU is not installed (apt-get install qemu-system-x86)" ]
without_qemu tests/lab/lab.sh run true
check "without QEMU: a run fails with one line" \
	[ "$?/$(cat "$TMP/err")" = "125/laboratory: QEMU is not installed (apt-get install qemu-system-x86)" ]

need_lab
lab() { LAB_S=${LAB_S:-100} tests/lab/lab.sh run "$1" 2>&1 </dev/null; }

# what a run does to its command
began=$(date +%s%N)
lab 'echo "$FULL"; pwd; build/sluice version' >"$TMP/out"
check "status 0" [ $? = 0 ]
echo "a run takes $((($(date +%s%N) - began) / 1000000)) ms"
check "in the tree's folder, with what was built" grep -q '^sluice [0-9.]* (' "$TMP/out"
check "the folder has the same name" grep -qx "$PWD" "$TMP/out"
check "FULL reaches it" grep -qx all <(FULL=all lab 'echo "$FULL"')
lab 'exit 7'
check "status 7" [ $? = 7 ]
lab 'kill -KILL $$'
check "status of a command that was killed" [ $? = 137 ]
lab 'no-such-program' >"$TMP/out"
check "status of a command that is missing, and its error" [ $? = 127 -a "$(grep -c 'no-such-program.*not found' "$TMP/out")" = 1 ]
make --no-print-directory lab-run CMD="echo \"\$((6 * 7))\" 'a  b'; exit 7" >"$TMP/out" 2>"$TMP/err" </dev/null
check "make lab-run: quotes and dollars arrive" grep -qx '42 a  b' "$TMP/out"
check "make lab-run: names the status" grep -q 'lab-run] Error 7' "$TMP/err"

# the tree as it is now; what is changed there is gone
head -c 300000 /dev/urandom | base64 >"$TMP/new"
sum=$(sha256sum <"$TMP/new")
lab "cat $TMP/new; echo changed >$TMP/new; rm tests/check.sh; echo x >/etc/sluice-lab-was-here" >"$TMP/out"
check "a file made a moment ago is there" [ "$(sha256sum <"$TMP/out")" = "$sum" ]
if lab_native; then
	skip "changes are gone" "commands run on the host itself"
else
	check "changes are gone" [ "$(sha256sum <"$TMP/new")" = "$sum" -a -e tests/check.sh -a ! -e /etc/sluice-lab-was-here ]
fi
LAB_KEEP=$TMP/keep lab 'echo kept >$LAB_OUT/file'
check "LAB_KEEP: what is left in LAB_OUT is kept" grep -qx kept "$TMP/keep/file"

# Two runs at once, each of which ends only after both were seen to speak: output comes as it is written.
for n in 1 2; do
	mkfifo "$TMP/speaks$n"
	lab ": >\$LAB_OUT/run.$$.$n; echo one; until [ -e \$LAB_OUT/go ]; do sleep 0.1; done; echo two" >"$TMP/speaks$n" &
	children+=($!)
done
exec 5<"$TMP/speaks1" 6<"$TMP/speaks2"
read -rt 60 first <&5 && read -rt 60 second <&6
check "two runs speak while both go on" [ "$first $second" = "one one" ]
for n in 1 2; do
	for dir in "$LAB"/run.*; do
		[ ! -e "$dir/run.$$.$n" ] || : >"$dir/go"
	done
done
check "and end when told to" [ "$(cat <&5) $(cat <&6)" = "two two" ]
wait "${children[@]}"
check "both well" [ $? = 0 ]
children=()

LAB_S=2 lab 'echo hangs; sleep 1000' >"$TMP/out"
check "LAB_S ends a command that hangs" [ "$?/$(head -n 1 "$TMP/out")" = 124/hangs ]
check "a run's folder is removed" [ -z "$(find "$LAB" -maxdepth 2 -path "*/run.*/run.$$.*")" ]
finish
