/* SPDX-License-Identifier: BSD-2-Clause */
/* The split models on PCI: a user's configuration to a backend's options. */
#include <errno.h>
#include <stdio.h>

#include "vmm/virtio_pci_priv.h"

#define QUEUE_SIZE_MIN 2u
#define QUEUE_SIZE_MAX 1024u

/* A power of two also with ring=packed: a driver may still choose the split layout (2.7). */
int virtio_pci_queue_size_check(const char *option, unsigned size, char why[VMM_WHY_MAX])
{
	if (!size || (size >= QUEUE_SIZE_MIN && size <= QUEUE_SIZE_MAX && !(size & (size - 1))))
		return 0;
	snprintf(why, VMM_WHY_MAX, "%s queue-size=%u: use a power of two from %u to %u", option,
		size, QUEUE_SIZE_MIN, QUEUE_SIZE_MAX);
	return -EINVAL;
}

int virtio_pci_queues_check(
	const char *option, unsigned queues, unsigned max, char why[VMM_WHY_MAX])
{
	if (queues <= max)
		return 0;
	snprintf(why, VMM_WHY_MAX, "%s queues=%u: out of range; use 1 to %u", option, queues, max);
	return -EINVAL;
}

static enum split_ring_choice ring_choice(bool packed)
{
	return packed ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
}

/* ------------------------------------------------------------------ virtio-blk */

static int blk_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct disk_args *args = ctx;
	const struct disk_config *cfg = args->cfg;
	struct split_blk_options opts = {
		.image = args->image,
		.queues = cfg->queues ? cfg->queues : 1,
		.queue_size = cfg->queue_size,
		.ring = ring_choice(cfg->packed),
		.no_indirect = cfg->indirect == VMM_OFF,
		.no_event_idx = cfg->event_idx == VMM_OFF,
		.in_order = cfg->in_order == VMM_ON,
		.serial = cfg->serial,
		.registered_memory = cfg->registered_memory,
	};

	return split_blk_create(
		&vp->split, args->io, machine_mem(vp->dev.machine), &vp->signal, &opts, why);
}

int virtio_pci_blk_create(
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

	if (!err)
		err = virtio_pci_queues_check("--disk", args->cfg->queues, BACKEND_QUEUES_MAX, why);
	return err ? err : virtio_pci_create(m, &maker, out, why);
}

/* ------------------------------------------------------------------ virtio-net */

static int net_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct net_args *args = ctx;
	const struct net_config *cfg = args->cfg;
	struct split_net_options opts = {
		.port = args->port,
		.pairs = cfg->queues ? cfg->queues : 1,
		.queue_size = cfg->queue_size,
		.ring = ring_choice(cfg->packed),
		.no_indirect = cfg->indirect == VMM_OFF,
		.no_event_idx = cfg->event_idx == VMM_OFF,
		.in_order = cfg->in_order == VMM_ON,
		.no_mergeable = cfg->mergeable == VMM_OFF,
		.no_offload = cfg->offload == VMM_OFF,
	};

	for (unsigned i = 0; i < sizeof(opts.mac); i++)
		opts.mac[i] = args->mac[i];
	return split_net_create(
		&vp->split, args->io, machine_mem(vp->dev.machine), &vp->signal, &opts, why);
}

int virtio_pci_net_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX])
{
	const struct virtio_pci_maker maker = {
		.virtio_id = VIRTIO_ID_NET,
		.class_code = 0x020000,
		.make = net_make,
		.args = args,
		.name = args->name,
	};
	unsigned queues = args->cfg->queues;
	int err = virtio_pci_queue_size_check("--net", args->cfg->queue_size, why);

	if (!err)
		err = virtio_pci_queues_check("--net", queues, NET_QUEUES_MAX, why);
	if (!err && queues > net_port_queues(args->port)) {
		snprintf(why, VMM_WHY_MAX, "--net queues=%u: the %s port has %u; use that or fewer",
			queues, net_port_kind(args->port), net_port_queues(args->port));
		err = -EINVAL;
	}
	return err ? err : virtio_pci_create(m, &maker, out, why);
}

/* ------------------------------------------------------------------ what is neither disk nor card
 */

static int console_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct other_args *args = ctx;
	const struct hvc_config *cfg = &args->cfg->hvc;
	struct split_console_options opts = {
		.ring.ring = ring_choice(cfg->packed),
		.out_fd = cfg->out,
		.output = cfg->output,
		.ctx = cfg->ctx,
		.in_fd = cfg->in,
		.cols = cfg->cols,
		.rows = cfg->rows,
	};

	return split_console_create(
		&vp->split, args->io, machine_mem(vp->dev.machine), &vp->signal, &opts, why);
}

int virtio_pci_console_create(struct machine *m, const struct other_args *args, struct device **out,
	char why[VMM_WHY_MAX])
{
	const struct virtio_pci_maker maker = {
		.virtio_id = VIRTIO_ID_CONSOLE,
		.class_code = 0x078000,
		.make = console_make,
		.args = args,
		.name = args->name,
	};

	return virtio_pci_create(m, &maker, out, why);
}

static int rng_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct other_args *args = ctx;
	struct split_rng_options opts = {
		.ring.ring = ring_choice(args->cfg->rng.packed),
		.rate_bytes_per_s = args->cfg->rng.rate,
	};

	return split_rng_create(
		&vp->split, args->io, machine_mem(vp->dev.machine), &vp->signal, &opts, why);
}

int virtio_pci_rng_create(struct machine *m, const struct other_args *args, struct device **out,
	char why[VMM_WHY_MAX])
{
	const struct virtio_pci_maker maker = {
		.virtio_id = VIRTIO_ID_RNG,
		.class_code = 0x00ff00,
		.make = rng_make,
		.args = args,
		.name = args->name,
	};

	return virtio_pci_create(m, &maker, out, why);
}

static int balloon_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct other_args *args = ctx;
	const struct machine_config *m = args->cfg;
	uint64_t pages = m->memory / SPLIT_BALLOON_PAGE;
	struct split_balloon_options opts = {
		.ring.ring = ring_choice(m->balloon.packed),
		.pages = (uint32_t)(m->balloon.size / SPLIT_BALLOON_PAGE),
		.pages_max = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX,
		.host_page_bytes = m->hugepages ? 2u << 20 : SPLIT_BALLOON_PAGE,
		.no_deflate_on_oom = m->balloon.deflate_on_oom == VMM_OFF,
		.no_reporting = m->balloon.reporting == VMM_OFF,
	};

	return split_balloon_create(
		&vp->split, args->io, machine_mem(vp->dev.machine), &vp->signal, &opts, why);
}

int virtio_pci_balloon_create(struct machine *m, const struct other_args *args, struct device **out,
	char why[VMM_WHY_MAX])
{
	const struct virtio_pci_maker maker = {
		.virtio_id = VIRTIO_ID_BALLOON,
		.class_code = 0x00ff00,
		.make = balloon_make,
		.args = args,
		.name = args->name,
	};

	return virtio_pci_create(m, &maker, out, why);
}

static int vsock_make(struct virtio_pci *vp, const void *ctx, char why[VMM_WHY_MAX])
{
	const struct other_args *args = ctx;
	const struct vsock_config *cfg = &args->cfg->vsock;
	struct split_vsock_options opts = {
		.socket = cfg->socket,
		.cid = cfg->cid,
		.connections = cfg->connections,
		.queue_size = cfg->queue_size,
		.ring = ring_choice(cfg->packed),
		.no_indirect = cfg->indirect == VMM_OFF,
		.no_event_idx = cfg->event_idx == VMM_OFF,
		.in_order = cfg->in_order == VMM_ON,
	};

	return split_vsock_create(
		&vp->split, args->io, machine_mem(vp->dev.machine), &vp->signal, &opts, why);
}

int virtio_pci_vsock_create(struct machine *m, const struct other_args *args, struct device **out,
	char why[VMM_WHY_MAX])
{
	const struct virtio_pci_maker maker = {
		.virtio_id = VIRTIO_ID_VSOCK,
		.class_code = 0x078000,
		.make = vsock_make,
		.args = args,
		.name = args->name,
	};

	return virtio_pci_create(m, &maker, out, why);
}

struct split_device *virtio_pci_split(struct device *d)
{
	return ((struct virtio_pci *)d)->split;
}
