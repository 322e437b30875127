/* SPDX-License-Identifier: BSD-2-Clause */
/* The split models whose backend is another process: a user's configuration to a front-end's. */
#include <errno.h>
#include <stdio.h>

#include "vmm/virtio_pci_priv.h"

#define FS_QUEUES_MAX (BACKEND_QUEUES_MAX - 1)

static void vhost_note(void *ctx, const char *line)
{
	struct virtio_pci *vp = ctx;

	/* the first lines may come before the device is on the machine's list */
	if (vp->dev.name)
		machine_note(vp->dev.machine, vp->dev.name, line);
}

/* What all of them have in common. */
static struct split_vhost_options vhost_options(
	struct virtio_pci *vp, uint32_t virtio_id, const struct vhost_config *cfg, int fd)
{
	return (struct split_vhost_options){
		.virtio_id = virtio_id,
		.path = cfg->socket,
		.fd = cfg->socket ? -1 : fd,
		.mode = cfg->listen ? VHOST_LISTEN : VHOST_CONNECT,
		.no_reconnect = cfg->no_reconnect,
		.wait_ms = cfg->wait_ms,
		.memory = machine_memory_file(vp->dev.machine),
		.note = vhost_note,
		.ctx = vp,
	};
}

static int vhost_make(struct virtio_pci *vp, struct io_thread *io,
	const struct split_vhost_options *opts, const char *option, char why[VMM_WHY_MAX])
{
	char text[VMM_WHY_MAX] = "";
	int err = split_vhost_create(
		&vp->split, io, machine_mem(vp->dev.machine), &vp->signal, opts, text);

	if (err)
		snprintf(why, VMM_WHY_MAX, "%s%.220s", option, text);
	return err;
}

/* ------------------------------------------------------------------ block */

static int blk_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct disk_args *args = ctx;
	const struct disk_config *cfg = args->cfg;
	struct split_vhost_options o = vhost_options(vp, VIRTIO_ID_BLOCK, &cfg->vhost, cfg->fd);

	o.queues = cfg->queues;
	o.queue_size = cfg->queue_size;
	o.ring = cfg->packed ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
	o.no_indirect = cfg->indirect == VMM_OFF;
	o.no_event_idx = cfg->event_idx == VMM_OFF;
	o.in_order = cfg->in_order == VMM_ON;
	return vhost_make(vp, args->io, &o, "--disk vhost-user=", why);
}

int virtio_pci_vhost_blk_create(
	struct machine *m, const struct disk_args *args, struct device **out, char why[VMM_WHY_MAX])
{
	const struct virtio_pci_maker maker = {
		.virtio_id = VIRTIO_ID_BLOCK,
		.class_code = 0x010000,
		.make = blk_make,
		.args = args,
		.name = args->name,
	};
	int err = virtio_pci_queue_size_check("--disk", args->cfg->queue_size, why);

	return err ? err : virtio_pci_create(m, &maker, out, why);
}

/* ------------------------------------------------------------------ network */

static int net_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct net_args *args = ctx;
	const struct net_config *cfg = args->cfg;
	struct split_vhost_options o = vhost_options(vp, VIRTIO_ID_NET, &cfg->vhost, cfg->fd);

	o.queues = cfg->queues;
	o.queue_size = cfg->queue_size;
	o.ring = cfg->packed ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
	o.no_indirect = cfg->indirect == VMM_OFF;
	o.no_event_idx = cfg->event_idx == VMM_OFF;
	o.in_order = cfg->in_order == VMM_ON;
	o.no_mergeable = cfg->mergeable == VMM_OFF;
	o.no_offload = cfg->offload == VMM_OFF;
	for (unsigned i = 0; i < sizeof(o.mac); i++)
		o.mac[i] = args->mac[i];
	return vhost_make(vp, args->io, &o, "--net vhost-user=", why);
}

int virtio_pci_vhost_net_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX])
{
	const struct virtio_pci_maker maker = {
		.virtio_id = VIRTIO_ID_NET,
		.class_code = 0x020000,
		.make = net_make,
		.args = args,
		.name = args->name,
	};
	int err = virtio_pci_queue_size_check("--net", args->cfg->queue_size, why);

	return err ? err : virtio_pci_create(m, &maker, out, why);
}

/* ------------------------------------------------------------------ file system */

static int fs_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct other_args *args = ctx;
	const struct fs_config *cfg = &args->cfg->fs[args->index];
	struct split_vhost_options o = vhost_options(vp, VIRTIO_ID_FS, &cfg->vhost, cfg->fd);

	o.tag = cfg->tag;
	o.queues = cfg->queues;
	o.queue_size = cfg->queue_size;
	o.ring = cfg->packed ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
	o.no_indirect = cfg->indirect == VMM_OFF;
	o.no_event_idx = cfg->event_idx == VMM_OFF;
	return vhost_make(vp, args->io, &o, "socket=", why);
}

int virtio_pci_vhost_fs_create(struct machine *m, const struct other_args *args,
	struct device **out, char why[VMM_WHY_MAX])
{
	const struct virtio_pci_maker maker = {
		.virtio_id = VIRTIO_ID_FS,
		.class_code = 0x018000,
		.make = fs_make,
		.args = args,
		.name = args->name,
	};
	int err = virtio_pci_queue_size_check("--fs", args->cfg->fs[args->index].queue_size, why);

	if (!err)
		err = virtio_pci_queues_check(
			"--fs", args->cfg->fs[args->index].queues, FS_QUEUES_MAX, why);
	return err ? err : virtio_pci_create(m, &maker, out, why);
}
