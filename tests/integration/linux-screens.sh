#!/usr/bin/env bash
# Systems that SeaBIOS boots and that speak by the screen: pictures of them are in build/screens.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
need_lab
export LAB_KEEP=$PWD/$TMP/kept
guest_lines "$([ -n "${FULL:-}" ] && echo 1800 || echo 500)" SCREENS-DONE "bash tests/linux/screens.sh ${FULL:+full}"
mkdir -p build/screens
cp "$LAB_KEEP"/*.png build/screens/
check "pictures of each are kept" [ -s build/screens/memtest.png ]
finish
