#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A guest's screen, keyboard and mouse: the control socket, `sluice screen`, screenshot, type and key, and sluice-vnc. The guest is
# firmware that writes what its keyboard sends (tests/linux/screen.S); it runs on any KVM.
. "$(dirname "$0")/lib.bash"
CONTROL=$TMP/control
VNC=build/sluice-vnc

# bad CASE STATUS PATTERN COMMAND...: one line on standard error, nothing on standard output
bad() {
	local what=$1 want=$2 pattern=$3 got
	shift 3
	timeout 20 "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
	got=$?
	if [ $got != "$want" ] || [ "$(wc -l <"$TMP/err")" != 1 ] || [ -s "$TMP/out" ] || ! grep -q -- "$pattern" "$TMP/err"; then
		fail "$what" "status $got: $(head -n 2 "$TMP/err" | tr '\n' '|')"
	else
		pass "$what"
	fi
}
screen() { "$SLUICE" screen --control "$CONTROL" 2>/dev/null; }
# shows TEXT: without blanks and ends of lines, for it goes on where it comes to the edge
shows() { screen | tr -d '\n ' | grep -q -- "${1// /}"; }
# png FILE: width, height
png() { perl -e 'read(STDIN, $_, 24); print join("x", unpack("N2", substr($_, 16))), "\n" if /^\x89PNG/' <"$1"; }

bad "no socket" 2 "screenshot: --control: missing" "$SLUICE" screenshot "$TMP/x.png"
bad "no file" 2 "screenshot: 0 arguments" "$SLUICE" screenshot --control "$CONTROL"
bad "nobody there" 1 "$CONTROL: Couldn't connect to server; is .sluice run --control. running" "$SLUICE" screen --control "$CONTROL"
bad "an escape that is none" 2 "type: text: a backslash stands before n, t, b" "$SLUICE" type --control "$CONTROL" 'a\q'
bad "VNC: no socket" 2 "vnc: --control: missing" $VNC
bad "VNC: nobody there" 1 "is .sluice run --control. running" $VNC --control "$CONTROL"
bad "a screen without firmware" 2 "--vga std: it takes firmware" "$SLUICE" run --kernel "$GUEST" --vga std
bad "a screen of no model" 2 "--vga cga: unknown model; use std or none" "$SLUICE" run --kernel "$GUEST" --vga cga
bad "a control socket that cannot be" 1 "--control=$TMP/no/socket: " "$SLUICE" run --firmware build/tests/linux/screen.bin --control "$TMP/no/socket"
check "help" sh -c '"$1" type --help | grep -q "sluice type --control PATH TEXT"' sh "$SLUICE"
check "help fits a terminal" sh -c '{ "$1" key --help; "$2" --help; } | awk "length > 80 { exit 1 }"' sh "$SLUICE" $VNC

if [ ! -w /dev/kvm ]; then
	skip "a guest's screen" "no access to /dev/kvm"
	finish
fi
"$SLUICE" run --firmware build/tests/linux/screen.bin --control "$CONTROL" --serial none --serial pty --serial "file=$TMP/com3" \
	--serial "unix=$TMP/com4" --parallel "file=$TMP/lpt1" >"$TMP/run.out" 2>"$TMP/run.err" </dev/null &
guest=$!
children+=("$guest")
check "the screen's text" wait_for shows 'SCREEN READY X'
check "the socket is nobody else's" [ "$(stat -c %a "$CONTROL")" = 600 ]
pty=$(sed -n 's/^sluice: serial 2 is //p' "$TMP/run.err")
check "a serial port at a pseudo-terminal: from the guest" [ "$(timeout 10 head -c 1 "$pty")" = 2 ]
printf 'q' >"$pty"
check "a serial port at a pseudo-terminal: to the guest" wait_for shows 'T71'
check "a parallel port in a file" [ "$(cat "$TMP/lpt1")" = P ]
check "a serial port in a file" [ "$(cat "$TMP/com3")" = 3 ]
check "a serial port's socket is nobody else's" [ "$(stat -c %a "$TMP/com4")" = 600 ]
says "GET /version" 200 '"version"' GET /version
says "GET /screen" 200 'SCREEN READY X' GET /screen
"$SLUICE" type --control "$CONTROL" 'aB\n'
check "typed: make and break, shift around, the return key" wait_for shows '1C F0 1C 12 32 F0 32 F0 12 5A F0 5A$'
"$SLUICE" type --control "$CONTROL" "$(printf 'a%.0s' $(seq 180))"
check "typed: more than one request takes, and longer than one may take" [ "$(screen | tr -d '\n ' | grep -o '1CF01C' | wc -l)" = 181 ]
says "too much for one request" 400 'text: longer than 64 characters' PUT /keyboard "{\"text\":\"$(printf 'a%.0s' $(seq 65))\"}"
"$SLUICE" key --control "$CONTROL" ctrl-alt-delete up
check "keys pressed together, extended ones" wait_for shows 'F0 1C 14 11 E0 71 E0 F0 71 F0 11 F0 14 E0 75 E0 F0 75'
says "the speaker is silent" 200 '"on":false' GET /speaker
"$SLUICE" key --control "$CONTROL" f11
check "port 61h: gate and data, and what moves by itself" wait_for shows '78 S03'
says "the speaker sounds" 200 '"on":true,"hz":440' GET /speaker
"$SLUICE" key --control "$CONTROL" f10
check "a key" wait_for shows '09 F0 09'
says "the speaker is silent again" 200 '"on":false,"hz":440' GET /speaker
ask PUT /mouse -d '{"dx":3,"dy":-2,"buttons":1}'
check "the mouse" wait_for shows 'M09 M03 M02'
says "a key that is none" 400 'keys: blue: no such key' PUT /keyboard '{"keys":"ctrl-blue"}'
says "a character that no key has" 400 'text: byte 2 is no character' PUT /keyboard '{"text":"a\u00fc"}'
says "nothing to type" 400 'give \"text\"' PUT /keyboard '{}'
says "text and keys" 400 'give \"text\"' PUT /keyboard '{"text":"a","keys":"b"}'
says "a mouse that leaps" 400 'numbers from -255 to 255' PUT /mouse '{"dx":1000}'
bad "a name that is no key's" 2 "key: keys: blue: no such key" "$SLUICE" key --control "$CONTROL" blue
"$SLUICE" screenshot --control "$CONTROL" "$TMP/shot.png"
check "a screenshot is a picture of the screen" [ "$(png "$TMP/shot.png")" = 720x400 ]
"$SLUICE" screenshot --control "$CONTROL" - >"$TMP/shot2.png"
check "a screenshot to standard output" cmp "$TMP/shot.png" "$TMP/shot2.png"
bad "a screenshot that cannot be written" 1 "$TMP/no/x.png: cannot be written: No such file" "$SLUICE" screenshot --control "$CONTROL" "$TMP/no/x.png"

# ------------------------------------------------------------------ in a terminal

# terminal ROWS COLUMNS COMMAND: runs it on a pseudo-terminal of that size, with keys from descriptor 7
terminal() {
	rm -f "$TMP/keys" "$TMP/typescript" "$TMP/tty"
	mkfifo "$TMP/keys"
	TERM=xterm-256color LC_ALL=C.UTF-8 script -qefc "stty rows $1 cols $2; stty -a >$TMP/before; tty >$TMP/tty; sh -c 'echo \$\$ >$TMP/pid; exec $3'; echo ended \$?; stty -a >$TMP/after" \
		"$TMP/typescript" <"$TMP/keys" >/dev/null 2>&1 &
	terminal=$!
	children+=("$terminal")
	exec 7>"$TMP/keys"
}
# drawn TEXT: as bytes, control sequences and all
drawn() { grep -qaF -- "$1" "$TMP/typescript"; }
# restored CASE STATUS TEXT: the command has ended with it, and the terminal is as it was, but for its size
restored() {
	wait_for drawn "ended "
	exec 7>&-
	wait "$terminal"
	if drawn "ended $2" && drawn "$3" && drawn $'\033[?1049l' && same=$(diff <(tail -n +2 "$TMP/before") <(tail -n +2 "$TMP/after")); then
		pass "$1"
	else
		fail "$1" "$(tail -c 300 "$TMP/typescript" | cat -v | tr '\n' '|') ${same:-}"
	fi
}
watch="$SLUICE watch --control $CONTROL"
bad "watch: no terminal" 2 "watch: standard input and output are to be a terminal" $watch
terminal 30 100 "$watch"
check "watch: the screen's text" wait_for drawn "SCREEN READY X"
check "watch: how to leave" drawn "Ctrl-] leaves"
printf 'k\r' >&7
check "watch: characters" wait_for shows '42 F0 42 5A F0 5A'
check "watch: and what the guest makes of them is drawn" wait_for drawn "5A F0 5A"
printf '\003' >&7
check "watch: Ctrl" wait_for shows '14 21 F0 21 F0 14$'
printf '\033x' >&7
check "watch: Alt" wait_for shows '11 22 F0 22 F0 11$'
printf '\033OA' >&7
check "watch: an arrow" wait_for shows 'E0 75 E0 F0 75$'
printf '\033' >&7
check "watch: Escape alone" wait_for shows '76 F0 76$'
printf '\033[15~' >&7
check "watch: F5" wait_for shows '03 F0 03$'
printf '\303\244' >&7
check "watch: a key that the guest's keyboard has not" wait_for drawn "no key of a US keyboard"
"$SLUICE" key --control "$CONTROL" f9
check "watch: graphics" wait_for drawn "graphics mode 640x480"
"$SLUICE" key --control "$CONTROL" f8
stty -F "$(cat "$TMP/tty")" rows 40 cols 110
check "watch: the terminal's new size" wait_for drawn $'\033[40d'
printf '\035' >&7
restored "watch: Ctrl-] leaves, and the terminal is as before" 0 "ended"
terminal 5 20 "$watch"
check "watch: a small terminal" wait_for drawn "SCREEN READY X"
stty -F "$(cat "$TMP/tty")" rows 1 cols 1
stty -F "$(cat "$TMP/tty")" rows 7 cols 33
printf 'z' >&7
check "watch: its keys" wait_for shows '1A F0 1A$'
stty -F "$(cat "$TMP/tty")" rows 5 cols 20
printf '\033[18~' >&7
check "watch: a small terminal goes with the cursor" wait_for drawn "CORN"
kill -TERM "$(cat "$TMP/pid")"
restored "watch: SIGTERM leaves the terminal as before" 0 "ended"
terminal 24 80 "$SLUICE run --firmware build/tests/linux/screen.bin --display curses --serial pty"
check "--display curses: the screen" wait_for drawn "SCREEN READY X"
printf '\033[24~' >&7
restored "--display curses: the guest powers off" 0 "sluice: the guest powered off"
terminal 24 80 "$SLUICE run --firmware build/tests/linux/screen.bin --display curses"
wait_for drawn "SCREEN READY X"
printf '\035' >&7
restored "--display curses: Ctrl-] ends the guest" 0 "sluice: stopped by the end of its display"
# for later: it is there when the guest ends
terminal 25 80 "$watch"
wait_for drawn "SCREEN READY X"

# ------------------------------------------------------------------ VNC

# vnc ARGUMENTS...
vnc() {
	: >"$TMP/vnc.err"
	$VNC --control "$CONTROL" "$@" 2>"$TMP/vnc.err" </dev/null &
	vnc=$!
	children+=("$vnc")
	wait_for grep -q "^sluice-vnc: ready" "$TMP/vnc.err" || fail "sluice-vnc $*" "$(tail -n 1 "$TMP/vnc.err")"
}
bad "VNC: nowhere" 2 "listen 1.2.3.4: use unix:PATH or ADDRESS:PORT" $VNC --control "$CONTROL" --listen 1.2.3.4
bad "VNC: no password" 1 "password-file $TMP/none: No such file" $VNC --control "$CONTROL" --listen "unix:$TMP/vnc" --password-file "$TMP/none"
echo much-too-long >"$TMP/password"
bad "VNC: a password that is none" 2 "its first line is to be 1 to 8 characters" $VNC --control "$CONTROL" --listen "unix:$TMP/vnc" --password-file "$TMP/password"
vnc --listen "unix:$TMP/vnc"
check "VNC: the socket is nobody else's" [ "$(stat -c %a "$TMP/vnc")" = 600 ]
perl tests/integration/rfb.pl "$TMP/vnc" keys=62,ff0d move=5,0 >"$TMP/rfb.out" 2>&1
# of the box 8 by 16 dots, for only some characters have a ninth, and of the cursor 9 by 2
check "VNC: the picture" grep -qx 'name Sluice size 720x400 colors 000000:287854 aaaaaa:146' "$TMP/rfb.out"
check "VNC: keys" wait_for shows '32 F0 32 5A F0 5A'
check "VNC: the pointer" wait_for shows 'M09 M05 M00'
kill -TERM "$vnc"
wait "$vnc"
check "VNC: SIGTERM ends it well" [ $? = 0 ]
check "VNC: its socket is gone" [ ! -e "$TMP/vnc" ]
echo secret >"$TMP/password"
port=$((20000 + $$ % 20000))
vnc --listen "127.0.0.1:$port" --password-file "$TMP/password"
perl tests/integration/rfb.pl "127.0.0.1:$port" >"$TMP/rfb.out" 2>&1
check "VNC: a password is asked for" grep -qx "security 2" "$TMP/rfb.out"
"$SLUICE" key --control "$CONTROL" f12
wait "$guest"
restored "watch: ends with the guest, and the terminal is as before" 0 "sluice watch: the guest has ended"
check "the guest's end" grep -q 'the guest powered off' "$TMP/run.err"
wait "$vnc"
check "VNC: ends with the guest" [ $? = 0 ]
check "nothing is left" [ "$(ls "$CONTROL" "$TMP/com4" 2>/dev/null)" = "" ]
finish
