#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# one.sh TEST: runs one unit test and prints what it said as a whole, so that several may run at once.
log=build/tmp/${1##*/}.$$
"$1" >"$log" 2>&1 </dev/null
status=$?
[ $status -lt 128 ] || echo "no UNIT line from $1: status $status" >>"$log"
flock build/tmp cat "$log"
rm -f "$log"
exit $status
