#!/usr/bin/env bash
# `sluice run` as a user meets it: every way a guest can end, every device doing verified work, a stop in the middle of writes.
. "$(dirname "$0")/lib.bash"
need_kvm

# ends CASE STATUS TEXT OPTIONS...: exit status, and a text that must be on standard output or error
ends() {
	local what=$1 want=$2 text=$3 status
	shift 3
	timeout 60 "$SLUICE" run "$@" >"$TMP/out" 2>&1 </dev/null
	status=$?
	if [ "$status" != "$want" ]; then
		fail "$what" "status $status, not $want: $(tail -n 1 "$TMP/out")"
	elif ! grep -q -- "$text" "$TMP/out"; then
		fail "$what" "no '$text' in: $(tail -n 3 "$TMP/out" | tr '\n' '|')"
	else
		pass "$what"
	fi
}

# works CASE JOBS OPTIONS...: the guest finishes without an error and has verified something
works() {
	local what=$1 jobs=$2
	shift 2
	timeout 120 "$SLUICE" run --kernel "$GUEST" --cmdline "$jobs" "$@" >"$TMP/out" 2>&1 </dev/null
	if ! grep -q 'SLUICE-DONE failed=0' "$TMP/out"; then
		fail "$what" "$(grep -v HIST "$TMP/out" | tail -n 2 | tr '\n' '|')"
	elif grep -q '^SLUICE-ERROR' "$TMP/out" || grep '^SLUICE-RESULT' "$TMP/out" | grep -qv ' errors=0 '; then
		fail "$what" "$(grep '^SLUICE-ERROR\|errors=[1-9]' "$TMP/out" | head -n 1)"
	else
		pass "$what"
	fi
}

ends "power-off" 0 "the guest powered off" --kernel build/tests/guest/reset.elf --cmdline how=poweroff
ends "reset by 0xCF9" 0 "asked for a reset" --kernel build/tests/guest/reset.elf --cmdline how=cf9 --no-reboot
ends "reset by the keyboard controller" 0 "asked for a reset" --kernel build/tests/guest/reset.elf --cmdline how=kbd --no-reboot
ends "triple fault" 3 "triple fault" --kernel build/tests/guest/reset.elf --cmdline how=triple --no-reboot
ends "four processors" 0 "smp cpus=4 ok" --kernel build/tests/guest/smp.elf --cmdline cpus=4 --cpus 4

image "$TMP/disk" 64M || fail "image" "could not be made"
ends "INTx, MSI-X masking and pending bits" 0 "irq ok" --kernel build/tests/guest/irq.elf --disk "path=$TMP/disk"

blk=size=4096,depth=32,ms=150
for ring in split packed; do
	works "virtio-blk ring=$ring" "job=blk,dev=virtio-blk,work=randwrite,$blk job=blk,dev=virtio-blk,work=randread,$blk job=blk,dev=virtio-blk,work=seqwrite,size=1048576,depth=4,ms=150 job=blk,dev=virtio-blk,work=seqread,size=512,depth=256,ms=150" \
		--disk "path=$TMP/disk,ring=$ring"
	for opt in indirect=off event-idx=off in-order=on queues=4; do
		works "virtio-blk ring=$ring,$opt" "job=blk,dev=virtio-blk,work=randwrite,$blk,queues=$([ $opt = queues=4 ] && echo 4 || echo 1)" \
			--disk "path=$TMP/disk,ring=$ring,$opt"
	done
	works "virtio-net ring=$ring" "job=net,dev=virtio-net,work=echo,size=64,depth=32,ms=150 job=net,dev=virtio-net,work=echo,size=1514,depth=8,ms=150 job=net,dev=virtio-net,work=echo,size=65536,depth=4,ms=150" \
		--net "mem=echo,ring=$ring"
	for opt in indirect=off event-idx=off in-order=on mergeable=off queues=2; do
		works "virtio-net ring=$ring,$opt" "job=net,dev=virtio-net,work=echo,size=1514,depth=16,ms=150,queues=$([ $opt = queues=2 ] && echo 2 || echo 1)" \
			--net "mem=echo,ring=$ring,$opt"
	done
done
for engine in io_uring aio threads; do
	for direct in on off; do
		works "virtio-blk engine=$engine,direct=$direct" "job=blk,dev=virtio-blk,work=randwrite,$blk" \
			--disk "path=$TMP/disk,engine=$engine,direct=$direct"
	done
done
works "virtio-blk without io_uring anywhere" "job=blk,dev=virtio-blk,work=randwrite,$blk" \
	--no-io-uring --disk "path=$TMP/disk,engine=threads"
works "virtio-blk never polling" "job=blk,dev=virtio-blk,work=randwrite,$blk" --poll-us 0 --disk "path=$TMP/disk"
works "virtio-blk registered=on,sqpoll=on" "job=blk,dev=virtio-blk,work=randwrite,$blk" \
	--disk "path=$TMP/disk,registered=on,sqpoll=on"
for transfer in pio dma; do
	works "ide by $transfer" "job=blk,dev=ide,transfer=$transfer,work=randwrite,$blk job=blk,dev=ide,transfer=$transfer,work=seqread,size=65536,depth=2,ms=150" \
		--disk "path=$TMP/disk,model=ide"
done
for model in ne2k_pci e1000 rtl8139; do
	works "$model" "job=net,dev=$model,work=echo,size=64,depth=8,ms=150 job=net,dev=$model,work=echo,size=1514,depth=8,ms=150" \
		--net "mem=echo,model=$model"
	works "$model receives" "job=net,dev=$model,work=tx,size=64,depth=8,ms=150" --net "mem=sink,model=$model"
done
if command -v qemu-img >/dev/null; then
	# over a raw base, with the guest's pattern in it, and from nothing
	for what in base new; do
		if [ $what = base ]; then
			qemu-img create -q -f qcow2 -F raw -b disk "$TMP/$what.qcow2"
		else
			qemu-img create -q -f qcow2 "$TMP/$what.qcow2" 8M
		fi
		for model in virtio-blk ide; do
			works "$model on qcow2 ($what)" "job=blk,dev=$model,work=$([ $what = new ] && echo format || echo "randread,$blk") job=blk,dev=$model,work=randwrite,$blk job=blk,dev=$model,work=randread,$blk" \
				--disk "path=$TMP/$what.qcow2,model=$model"
		done
		check "qcow2 ($what) is whole" qemu-img check -q -f qcow2 "$TMP/$what.qcow2"
	done
else
	skip "qcow2" "qemu-img is missing (Debian: qemu-utils)"
fi
works "memory above 4 GiB" "job=blk,dev=virtio-blk,work=randread,$blk" --memory 5G --disk "path=$TMP/disk"

# a second writer is refused, while the first one runs
"$SLUICE" run --kernel "$GUEST" --cmdline job=idle,ms=30000 --disk "path=$TMP/disk" >"$TMP/first" 2>&1 </dev/null &
pid=$!
children+=("$pid")
for _ in $(seq 100); do
	[ -s "$TMP/first" ] && break
	sleep 0.1
done
ends "a second writer is refused" 1 "in use" --kernel "$GUEST" --disk "path=$TMP/disk"
kill -INT "$pid"
wait "$pid"
check "SIGINT ends with status 0" [ $? = 0 ]
children=()

# SIGTERM in the middle of writes: the monitor ends cleanly, and every block is whole, old or new
"$SLUICE" run --kernel "$GUEST" --cmdline job=blk,dev=virtio-blk,work=randwrite,size=4096,depth=32,ms=30000 \
	--disk "path=$TMP/disk" >"$TMP/first" 2>&1 </dev/null &
pid=$!
children+=("$pid")
for _ in $(seq 100); do
	[ -s "$TMP/first" ] && break
	sleep 0.1
done
sleep 0.5
kill -TERM "$pid"
wait "$pid"
check "SIGTERM in the middle of writes ends with status 0" [ $? = 0 ]
children=()
works "every block is whole after SIGTERM" job=blk,dev=virtio-blk,work=verify,size=131072,depth=8 --disk "path=$TMP/disk"
finish
