#!/usr/bin/env bash
# Debian's stock kernel with one of every device: its drivers bind and move data that is compared.
. "$(dirname "$0")/lib.bash"
. tests/linux/linux.bash
need_lab
initramfs=$(lab_initramfs tests/linux/init-drivers virtio_pci virtio_blk virtio_net ata_piix sd_mod ata_generic sr_mod isofs 8139too \
	e1000 ne2k-pci virtio_console virtio-rng virtio_balloon vmw_vsock_virtio_transport \
	/usr/bin/iperf3 /usr/bin/socat)
guest_lines 300 DRIVERS-DONE "bash tests/linux/drivers.sh $initramfs"
finish
