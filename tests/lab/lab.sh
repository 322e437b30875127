#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# The laboratory from the command line: lab.sh prepare | debian-root | run COMMAND
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lab/lab.bash

case ${1:-} in
prepare)
	began=$SECONDS
	lab_prepare || exit 1
	if lab_native; then
		echo "the host's own KVM runs stock kernels: tests run on it directly ($((SECONDS - began)) s)"
	else
		echo "laboratory ready: $LAB/saved-$(lab_key) ($((SECONDS - began)) s)"
	fi
	;;
debian-root)
	. tests/lab/debian.bash
	lab_debian_root
	;;
run) lab_run "${LAB_S:-600}" "${2:?a command}" ;;
*)
	echo "Usage: lab.sh prepare | debian-root | run COMMAND (LAB_S=seconds, LAB_KEEP=folder, LAB_CPUS=n, LAB_MEMORY=MiB)" >&2
	exit 2
	;;
esac
