#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs where stock kernels run: network cards of every kind, transfers compared, frames captured, cables pulled, queues
# changed, and another guest on a bridge. net.sh INITRAMFS BIG MIDDLE SMALL (sizes in bytes)
. tests/linux/host.bash
initramfs=$1 big=$2 middle=$3 small=$4
MTU_FRAME=1514

ip link add br0 type bridge && ip link set br0 up
for n in 0 1 2 3 4 5; do
	queues=$([ $n != 0 ] || echo multi_queue)
	ip tuntap add "sl$n" mode tap $queues && ip link set "sl$n" up
	if [ $n -lt 4 ]; then ip addr add "10.5.$n.1/24" dev "sl$n"; else ip link set "sl$n" master br0; fi
done
mkdir "$T/www"
file() { head -c "$2" /dev/urandom >"$T/www/$1"; }
sum() { sha256sum "$1" | cut -d' ' -f1; }
file big "$big" && file middle "$middle" && file small "$small" && file plain $((middle / 4)) && file shape 2M
sums=''
for f in big middle small plain shape; do
	sums="$sums $f=$(sum "$T/www/$f")"
done
"$BUSYBOX" httpd -f -p 8080 -h "$T/www" &
started+=($!)
iperf3 -s >/dev/null 2>&1 &
started+=($!)

run() { build/sluice run --kernel "$LAB_KERNEL/vmlinux" --initrd "$initramfs" --cpus 2 "$@" 2>&1 </dev/null; }
mkfifo "$T/lines" "$T/other"
run --memory=256M --net tap=sl5,mac=52:54:00:12:34:70 --cmdline "console=ttyS0 quiet panic=-1 role=B gg=8m" >"$T/other" &
other=$!
started+=($other)
exec 8<"$T/other"
while read -rt 100 line <&8 && [[ $line != READY* ]]; do :; done
cat <&8 >/dev/null &
started+=($!)

# In a stopped guest's stead: what does not come up is not to be waited for.
run --memory=$((384 + (big >> 21) * 2))M --net tap=sl0,queues=2 --net tap=sl1,model=e1000 --net tap=sl2,model=ne2k_pci \
	--net tap=sl3,offload=off --net tap=sl4 --net "user,hostfwd=tcp:127.0.0.1:8090-:8080" \
	--cmdline "console=ttyS0 quiet panic=-1 $sums" >"$T/lines" &
guest=$!
started+=($guest)

tell() { : >"$T/www/told-$1"; }
capture() { # N
	tcpdump -Z root -i "sl$1" -s 0 -B 16384 -w "$T/capture$1" tcp port 8080 >/dev/null 2>"$T/tcpdump" &
	tcpdump=$!
	# it says when it listens
	while kill -0 $tcpdump && ! grep -q listening "$T/tcpdump"; do read -rt 0.1 _ <>"$T/never"; done
	grep -q listening "$T/tcpdump" || echo "FAIL tcpdump: $(tail -n 1 "$T/tcpdump")"
	tell "capture$1"
}
mkfifo "$T/never"
# frames N FILTER: how many the capture has of them
frames() { tcpdump -nn -r "$T/capture$1" "$2" 2>/dev/null | wc -l; }
bad_sums() { tcpdump -nn -vv -r "$T/capture$1" "$2" 2>/dev/null | grep -c incorrect; }
positive() { if [ "$2" -gt 0 ]; then echo "PASS $1 ($2)"; else echo "FAIL $1 (none)"; fi; }
shape() { # N
	local in="dst host 10.5.$1.2" out="src host 10.5.$1.2"
	curl -sS -m 60 -o "$T/back" "http://10.5.$1.2:8080/shape"
	same "card $1: captured both ways, the data is right" "$(sum "$T/back")" "$(sum "$T/www/shape")"
	kill "$tcpdump"
	wait $tcpdump 2>/dev/null
	positive "card $1: frames captured in" "$(frames "$1" "$in")"
	positive "card $1: frames captured out" "$(frames "$1" "$out")"
	case $1 in
	0)
		positive "split: segments larger than the MTU come in whole" "$(frames 0 "$in and greater $((MTU_FRAME + 1))")"
		positive "split: segments larger than the MTU go out whole" "$(frames 0 "$out and greater $((MTU_FRAME + 1))")"
		positive "split: checksums are left to the other side" "$(bad_sums 0 "$out")"
		;;
	1)
		same "e1000: nothing larger than the MTU comes in" "$(frames 1 "$in and greater $((MTU_FRAME + 1))")" 0
		same "e1000: every checksum that comes in is right" "$(bad_sums 1 "$in")" 0
		positive "e1000: its segmentation goes on to the tap as a whole" "$(frames 1 "$out and greater $((MTU_FRAME + 1))")"
		;;
	3)
		same "split without offload: nothing larger than the MTU" "$(frames 3 "greater $((MTU_FRAME + 1))")" 0
		same "split without offload: every checksum is right" "$(bad_sums 3 tcp)" 0
		;;
	esac
}
while read -r line; do
	line=${line%$'\r'}
	case $line in
	FETCH*)
		read -r _ n file <<<"$line"
		curl -sS -m 2000 -o "$T/fetched" "http://10.5.$n.2:8080/$file"
		same "$file to the host" "$(sum "$T/fetched")" "$(sum "$T/www/$file")"
		rm -f "$T/fetched"
		tell "$file"
		;;
	CAPTURE*) capture "${line#CAPTURE }" ;;
	SHAPE*) shape "${line#SHAPE }" && tell "shape${line#SHAPE }" ;;
	PULL*) ip link set "sl$((${line#PULL } - 56))" down ;;
	PUT*)
		n=$((${line#PUT } - 56))
		ip link set "sl$n" up
		;;
	NAT*)
		curl -sS -m 60 -o "$T/nat" http://127.0.0.1:8090/nat
		same "NAT: a file by a forwarded port" "$(sum "$T/nat")" "$(sum "$T/www/shape")"
		tell nat
		;;
	*) echo "$line" ;;
	esac
done <"$T/lines"
wait $guest
same "the guest powered off" $? 0
