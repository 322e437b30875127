/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of all device models: what a user may put behind model=, in the order `sluice devices`
 * shows them. A new model is one entry here and one file beside it. The options an entry lists are
 * also those that the parser accepts for it.
 */
#include <string.h>

#include "vmm/vmm_priv.h"

#define DISK_OPTIONS                                                                               \
	{"path", "FILE", "the image: a raw or qcow2 file, or a block device"},                     \
		{"fd", "N", "an open descriptor instead of a path"},                               \
		{"nbd", "URI", "a disk of an NBD server: nbd://HOST/EXPORT, nbd+unix://..."},      \
		{"model", "virtio-blk|ide|ide-cd", "the device the guest sees (virtio-blk)"},      \
		{"engine", "io_uring|aio|threads|auto", "how the host does the I/O (auto)"},       \
		{"format", "raw|qcow2|auto", "of the image (auto: by how it begins)"},             \
		{"direct", "on|off|auto", "past the host's page cache: O_DIRECT (auto)"},          \
		{"readonly", "on|off", "the guest may not write; also ro (off)"},                  \
		{"serial", "TEXT", "serial number, up to 20 characters"},                          \
		{"sqpoll", "on|off", "io_uring: a kernel thread takes submissions (off)"},         \
		{"fault", "SPEC", "faults on purpose: cache, lose-flush, eio= ... (none)"},        \
	{                                                                                          \
		"registered", "on|off", "io_uring: guest memory registered, pinned (off)"          \
	}

#define RING_OPTIONS                                                                               \
	{"ring", "split|packed", "virtqueue layout offered (split)"},                              \
		{"queue-size", "2..1024", "requests in one queue, a power of two (256)"},          \
		{"indirect", "on|off", "offer indirect descriptors (on)"},                         \
		{"event-idx", "on|off", "offer event indices (on)"},                               \
	{                                                                                          \
		"in-order", "on|off", "offer in-order use of buffers (off)"                        \
	}

/* Of a back-end in another process. */
#define VHOST_OPTIONS                                                                              \
	{"mode", "connect|listen",                                                                 \
		"who listens at the socket: the other, or this side (connect)"},                   \
		{"reconnect", "on|off", "wait for another back-end when one is lost (on)"},        \
	{                                                                                          \
		"wait-s", "1..3600", "for the first back-end, at start (10)"                       \
	}

#define NET_OPTIONS                                                                                \
	{"tap", "NAME", "a tap interface, made when it does not exist"},                           \
		{"fd", "N", "an open tap descriptor instead"},                                     \
		{"mem", "sink|source|echo", "no network: a port in memory, for measuring"},        \
		{"user", "on|off", "behind NAT, without privilege: --net user,... (off)"},         \
		{"hostfwd", "tcp|udp:[ADDR]:PORT-[ADDR]:PORT",                                     \
			"user: port of the host (127.0.0.1) that leads to the guest; repeatable"}, \
		{"net", "ADDR/LENGTH", "user: the guest's network (10.0.2.0/24)"},                 \
		{"host", "ADDR", "user: the router, and the host's loopback (10.0.2.2)"},          \
		{"dns", "ADDR", "user: the host's resolver (10.0.2.3)"},                           \
		{"dhcpstart", "ADDR", "user: the first address DHCP gives (10.0.2.15)"},           \
		{"hostname", "TEXT", "user: the name DHCP gives (none)"},                          \
		{"restrict", "on|off", "user: nothing gets out (off)"},                            \
		{"ipv6", "on|off", "user: also fec0::/64 (off)"},                                  \
		{"model", "virtio-net|e1000|ne2k_pci|rtl8139",                                     \
			"the device the guest sees (virtio-net)"},                                 \
	{                                                                                          \
		"mac", "XX:XX:XX:XX:XX:XX", "hardware address (made up, locally unique)"           \
	}

static const struct model_option disk_options[] = {DISK_OPTIONS, {NULL, NULL, NULL}};
static const struct model_option net_options[] = {NET_OPTIONS, {NULL, NULL, NULL}};

static const struct model_option virtio_blk_options[] = {
	DISK_OPTIONS, {"queues", "1..64", "request queues (1)"}, RING_OPTIONS, {NULL, NULL, NULL}};

static const struct model_option virtio_net_options[] = {NET_OPTIONS,
	{"queues", "1..16", "pairs of a receive and a transmit queue (1)"}, RING_OPTIONS,
	{"mergeable", "on|off", "offer mergeable receive buffers (on)"},
	{"offload", "on|off", "offer checksum and segmentation offload (on)"}, {NULL, NULL, NULL}};

static const struct model_option vhost_blk_options[] = {
	{"vhost-user", "PATH", "the socket of a back-end in another process"},
	{"fd", "N", "a connected socket instead of a path"},
	{"model", "vhost-user-blk", "implied by vhost-user="}, VHOST_OPTIONS,
	{"queues", "1..63", "request queues (1)"}, RING_OPTIONS, {NULL, NULL, NULL}};

static const struct model_option vhost_net_options[] = {
	{"vhost-user", "PATH", "the socket of a back-end in another process"},
	{"fd", "N", "a connected socket instead of a path"},
	{"model", "vhost-user-net", "implied by vhost-user="},
	{"mac", "XX:XX:XX:XX:XX:XX", "hardware address (made up, locally unique)"}, VHOST_OPTIONS,
	{"queues", "1..16", "pairs of a receive and a transmit queue (1)"}, RING_OPTIONS,
	{"mergeable", "on|off", "offer mergeable receive buffers (on)"},
	{"offload", "on|off", "offer checksum and segmentation offload (on)"}, {NULL, NULL, NULL}};

static const struct model_option vhost_fs_options[] = {
	{"tag", "TEXT", "what the guest mounts it by, 1 to 36 bytes"},
	{"socket", "PATH", "of virtiofsd, or another back-end"},
	{"fd", "N", "a connected socket instead of a path"}, VHOST_OPTIONS,
	{"queues", "1..62", "request queues (1)"},
	{"ring", "split|packed", "virtqueue layout offered (split)"},
	{"queue-size", "2..1024", "requests in one queue, a power of two (128)"},
	{"indirect", "on|off", "offer indirect descriptors (on)"},
	{"event-idx", "on|off", "offer event indices (on)"}, {NULL, NULL, NULL}};

static const struct device_model vhost_blk = {
	.info = {"vhost-user-blk", "disk", "split", "virtio-blk served by another process",
		vhost_blk_options, NULL},
	.create_disk = virtio_pci_vhost_blk_create,
};

static const struct device_model vhost_net = {
	.info = {"vhost-user-net", "net", "split", "virtio-net served by another process",
		vhost_net_options, NULL},
	.create_net = virtio_pci_vhost_net_create,
};

static const struct device_model vhost_fs = {
	.info = {"vhost-user-fs", "other", "split", "virtio-fs: a host's tree, served by virtiofsd",
		vhost_fs_options, "--fs"},
	.create_other = virtio_pci_vhost_fs_create,
};

static const struct device_model virtio_blk = {
	.info = {"virtio-blk", "disk", "split", "virtio 1.2 block device on PCI",
		virtio_blk_options, NULL},
	.create_disk = virtio_pci_blk_create,
};

static const struct device_model ide = {
	.info = {"ide", "disk", "emulated", "Intel PIIX3 IDE: PIO and bus-master DMA, up to 4",
		disk_options, NULL},
	.create_disk = ide_create,
};

static const struct device_model ide_cd = {
	.info = {"ide-cd", "disk", "emulated", "ATAPI CD-ROM drive on IDE: an ISO 9660 image",
		disk_options, NULL},
	.create_disk = ide_cd_create,
};

static const struct device_model virtio_net = {
	.info = {"virtio-net", "net", "split", "virtio 1.2 network device on PCI",
		virtio_net_options, NULL},
	.create_net = virtio_pci_net_create,
};

static const struct device_model e1000 = {
	.info = {"e1000", "net", "emulated", "Intel 82540EM gigabit Ethernet", net_options, NULL},
	.create_net = e1000_create,
};

static const struct device_model ne2k_pci = {
	.info = {"ne2k_pci", "net", "emulated", "NE2000 on PCI: Realtek RTL8029", net_options,
		NULL},
	.create_net = ne2000_create,
};

static const struct device_model rtl8139 = {
	.info = {"rtl8139", "net", "emulated", "Realtek RTL8139C fast Ethernet", net_options, NULL},
	.create_net = rtl8139_create,
};

static const struct model_option no_options[] = {{NULL, NULL, NULL}};

static const struct model_option balloon_options[] = {
	{"size", "SIZE", "memory asked back from the guest at start (0)"},
	{"deflate-on-oom", "on|off", "a guest out of memory takes pages back (on)"},
	{"free-page-reporting", "on|off", "free pages go back to the host unasked (on)"},
	{"ring", "split|packed", "virtqueue layout offered (split)"},
	{NULL, NULL, NULL},
};

static const struct device_model virtio_console = {
	.info = {"virtio-console", "other", "split", "virtio 1.2 console on PCI: hvc0", no_options,
		"--hvc"},
	.create_other = virtio_pci_console_create,
};

static const struct device_model virtio_rng = {
	.info = {"virtio-rng", "other", "split", "virtio 1.2 entropy device on PCI", no_options,
		"--rng"},
	.create_other = virtio_pci_rng_create,
};

static const struct model_option vsock_options[] = {{"cid", "3..4294967294", "the guest's address"},
	{"socket", "PATH", "the host's socket; the guest's port P of the host is PATH_P"},
	{"connections", "1..32768", "at once, both ways together (1024)"}, RING_OPTIONS,
	{NULL, NULL, NULL}};

static const struct device_model virtio_vsock = {
	.info = {"virtio-vsock", "other", "split", "virtio 1.2 sockets between guest and host",
		vsock_options, "--vsock"},
	.create_other = virtio_pci_vsock_create,
};

static const struct device_model virtio_balloon = {
	.info = {"virtio-balloon", "other", "split", "virtio 1.2 memory balloon on PCI",
		balloon_options, "--balloon"},
	.create_other = virtio_pci_balloon_create,
};

const struct device_model *const device_models[] = {
	&virtio_blk,
	&ide,
	&ide_cd,
	&vhost_blk,
	&virtio_net,
	&e1000,
	&ne2k_pci,
	&rtl8139,
	&vhost_net,
	&virtio_console,
	&virtio_rng,
	&virtio_balloon,
	&virtio_vsock,
	&vhost_fs,
	NULL,
};

const struct device_model *device_model_find(const char *kind, const char *name)
{
	for (unsigned i = 0; device_models[i]; i++)
		if (!strcmp(device_models[i]->info.kind, kind) &&
			!strcmp(device_models[i]->info.name, name))
			return device_models[i];
	return NULL;
}

const struct model_info *machine_model_info(unsigned i)
{
	unsigned n = sizeof(device_models) / sizeof(device_models[0]);

	return i < n && device_models[i] ? &device_models[i]->info : NULL;
}
