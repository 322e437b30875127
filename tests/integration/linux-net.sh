#!/usr/bin/env bash
# Stock Linux on its network cards: transfers over each compared, offloads captured, cables pulled, several queues, two guests
# on a bridge, and NAT.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
need_lab
initramfs=$(lab_initramfs tests/linux/init-net virtio_pci virtio_net e1000 ne2k-pci /usr/bin/iperf3 /usr/sbin/ethtool)
# Full sizes take their time where every instruction is emulated.
sizes="8000000 2097152 131072" seconds=500
[ -z "${FULL:-}" ] || sizes="1000000000 67108864 1048576" seconds=3000
guest_lines $seconds NET-DONE "bash tests/linux/net.sh $initramfs $sizes"
finish
