#!/usr/bin/env bash
# clang-tidy over the files named, with the project's checks (.clang-tidy); every warning is an error.
# shellcheck disable=SC2046
out=$(clang-tidy --quiet --warnings-as-errors='*' "$@" -- -std=gnu11 -I. -D_GNU_SOURCE $(pkg-config --cflags libdpdk) \
	'-DSLUICE_VERSION="lint"' '-DSLUICE_LIBEXEC="lint"' 2>/dev/null)
status=$?
[ -z "$out" ] || printf '%s\n' "$out"
exit $status
