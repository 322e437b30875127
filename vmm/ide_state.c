/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IDE: reset, quiescing, saving and loading. The controller is in the machine's list before its
 * disks, and does all of it that concerns a channel; a disk adds its registers and settings.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/ide_priv.h"

#define IDE_STATE_VERSION 2u

/* ------------------------------------------------------------------ reset */

void ide_disk_reset(struct ide_disk *disk)
{
	ide_geometry_default(disk);
	ide_signature_set(disk);
	disk->features = 0;
	disk->sense = 0;
	disk->intrq = false;
	disk->multiple = 0;
	disk->transfer_mode = 0x22; /* as firmware would leave it: multiword DMA 2 */
	disk->power = 0xff;
	disk->write_cache = true;
	disk->look_ahead = true;
}

static void ide_channel_reset(struct ide_channel *ch)
{
	memset(&ch->xfer, 0, sizeof(ch->xfer));
	memset(&ch->walk, 0, sizeof(ch->walk));
	memset(&ch->walk_before, 0, sizeof(ch->walk_before));
	ch->device = 0;
	ch->control = 0;
	ch->bm_command = 0;
	ch->bm_status = 0;
	ch->bm_active = false;
	ch->bm_table = 0;
	for (unsigned i = 0; i < IDE_UNITS; i++)
		if (ch->disks[i])
			ide_disk_reset(ch->disks[i]);
	ide_irq_update(ch);
}

void ide_controller_reset(struct ide_controller *ctl)
{
	pci_device_reset(&ctl->pci);
	for (unsigned i = 0; i < IDE_CHANNELS; i++) {
		/* There is no firmware to turn the channels' decoding on. */
		ctl->pci.config[IDE_CFG_TIMING + 2 * i + 1] |= IDE_TIMING_DECODE;
		ide_channel_reset(&ctl->channels[i]);
	}
}

/* ------------------------------------------------------------------ quiesce, destroy */

/* A command's requests follow each other until it needs the guest or is over. */
static void ide_channel_quiesce(struct ide_channel *ch)
{
	pthread_mutex_t *lock = &ch->controller->device.lock;
	struct legacy_disk *link;

	do {
		pthread_mutex_lock(lock);
		link = ch->xfer.inflight ? ch->xfer.disk->link : NULL;
		pthread_mutex_unlock(lock);
		if (link)
			legacy_disk_drain(link);
	} while (link);
}

static void ide_controller_op_quiesce(struct device *d)
{
	struct ide_controller *ctl = (struct ide_controller *)d;

	machine_coalesced_drain(d->machine);
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		ide_channel_quiesce(&ctl->channels[i]);
}

static void ide_controller_op_reset(struct device *d)
{
	/* A machine whose state could not be loaded counts as quiesced, and yet can be poked. */
	ide_controller_op_quiesce(d);
	pthread_mutex_lock(&d->lock);
	ide_controller_reset((struct ide_controller *)d);
	pthread_mutex_unlock(&d->lock);
}

/* The devices of a machine go in no promised order. */
void ide_controller_put(struct ide_controller *ctl)
{
	if (--ctl->users)
		return;
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		free(ctl->channels[i].buffer);
	pthread_mutex_destroy(&ctl->device.lock);
	free(ctl);
}

static void ide_controller_op_destroy(struct device *d)
{
	struct ide_controller *ctl = (struct ide_controller *)d;

	for (unsigned i = 0; i < IDE_CHANNELS; i++) {
		bus_unmap(d->machine, &ctl->channels[i].command_block);
		bus_unmap(d->machine, &ctl->channels[i].control_block);
		irq_source_set(&ctl->channels[i].irq, false);
	}
	if (ctl->pci.machine)
		pci_device_free(&ctl->pci);
	ide_controller_put(ctl);
}

static void ide_disk_op_destroy(struct device *d)
{
	struct ide_disk *disk = (struct ide_disk *)d;
	struct ide_controller *ctl = disk->channel->controller;

	posted_stop(&ctl->posted);
	ide_drain_stop(disk);
	disk->channel->disks[disk->unit] = NULL;
	legacy_disk_close(disk->link);
	pthread_mutex_destroy(&d->lock);
	free(disk);
	ide_controller_put(ctl);
}

/* ------------------------------------------------------------------ save */

/* At rest: the command waits for the guest to move data or to start the bus master. */
static void ide_transfer_save(const struct ide_channel *ch, struct state_writer *w)
{
	const struct ide_transfer *x = &ch->xfer;

	state_put_u8(w, x->disk != NULL);
	if (!x->disk)
		return;
	state_put_u8(w, x->disk->unit);
	state_put_u8(w, x->kind);
	state_put_u8(w, x->addressing);
	state_put_u8(w, x->dma);
	state_put_u8(w, x->failed);
	state_put_u64(w, x->lba);
	state_put_u32(w, x->left);
	state_put_u32(w, x->limit);
	if (x->dma)
		return;
	state_put_u32(w, x->block);
	state_put_u32(w, x->chunk);
	state_put_u32(w, x->pos);
	state_put_u32(w, x->end);
	if (ide_kind_takes(x->kind))
		state_put_bytes(w, ch->buffer, x->pos);
	else
		state_put_bytes(w, ch->buffer + x->pos, x->chunk - x->pos);
}

static void ide_channel_save(const struct ide_channel *ch, struct state_writer *w)
{
	state_put_u8(w, ch->device);
	state_put_u8(w, ch->control);
	state_put_u8(w, ch->bm_command);
	state_put_u8(w, ch->bm_status);
	state_put_u8(w, ch->bm_active);
	state_put_u32(w, ch->bm_table);
	state_put_u32(w, ch->walk.next);
	state_put_u32(w, ch->walk.fetched);
	state_put_u32(w, ch->walk.address);
	state_put_u32(w, ch->walk.left);
	state_put_u8(w, ch->walk.last);
	ide_transfer_save(ch, w);
}

static void ide_controller_op_save(struct device *d, struct state_writer *w)
{
	struct ide_controller *ctl = (struct ide_controller *)d;

	pthread_mutex_lock(&d->lock);
	state_section_begin(w, d->name, IDE_STATE_VERSION);
	pci_device_save(&ctl->pci, w);
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		ide_channel_save(&ctl->channels[i], w);
	state_section_end(w);
	pthread_mutex_unlock(&d->lock);
}

static void ide_disk_op_save(struct device *d, struct state_writer *w)
{
	const struct ide_disk *disk = (struct ide_disk *)d;
	pthread_mutex_t *lock = &disk->channel->controller->device.lock;

	pthread_mutex_lock(lock);
	state_section_begin(w, d->name, IDE_STATE_VERSION);
	state_put_u64(w, disk->sectors);
	state_put_u8(w, disk->status);
	state_put_u8(w, disk->error);
	state_put_u8(w, disk->features);
	state_put_u8(w, disk->count.now);
	state_put_u8(w, disk->count.before);
	for (unsigned i = 0; i < 3; i++) {
		state_put_u8(w, disk->lba[i].now);
		state_put_u8(w, disk->lba[i].before);
	}
	state_put_u8(w, disk->intrq);
	state_put_u16(w, disk->cylinders);
	state_put_u8(w, disk->heads);
	state_put_u8(w, disk->track_sectors);
	state_put_u8(w, disk->multiple);
	state_put_u8(w, disk->transfer_mode);
	state_put_u8(w, disk->power);
	state_put_u8(w, disk->write_cache);
	state_put_u8(w, disk->look_ahead);
	state_put_u8(w, disk->cd);
	state_put_u32(w, disk->sense);
	state_section_end(w);
	pthread_mutex_unlock(lock);
}

/* ------------------------------------------------------------------ load */

static void ide_load_fail(struct state_reader *r)
{
	if (!r->error)
		r->error = -EINVAL;
}

/* A packet, or its data, of a CD-ROM: pieces of any length. */
static bool ide_packet_valid(const struct ide_transfer *x)
{
	if (x->dma || x->failed || x->limit == 0 || x->limit > IDE_CHUNK || x->pos >= x->end ||
		x->end > x->chunk)
		return false;
	if (x->kind == IDE_PACKET)
		return x->chunk == IDE_PACKET_BYTES && x->block == IDE_PACKET_BYTES && !x->left;
	return x->chunk <= IDE_BUFFER_BYTES && x->block >= 2 && x->block <= 0xfffe;
}

/* Could a command at rest look like this? */
static bool ide_transfer_valid(const struct ide_transfer *x)
{
	const struct ide_disk *disk = x->disk;

	if (x->addressing >= IDE_ADDRESSINGS || x->lba > disk->sectors ||
		x->left > disk->sectors - x->lba || x->left > 65536)
		return false;
	if (x->kind == IDE_PACKET || x->kind == IDE_PACKET_IN)
		return disk->cd && ide_packet_valid(x);
	if (disk->cd && x->kind != IDE_IDENTIFY)
		return false;
	if (x->kind == IDE_WRITE ? disk->readonly : x->kind != IDE_READ && x->kind != IDE_IDENTIFY)
		return false;
	if (x->dma)
		return x->kind != IDE_IDENTIFY && x->left && x->limit && x->limit <= IDE_DMA_STEP;
	if (x->limit == 0 || x->limit > IDE_CHUNK || x->chunk > IDE_BUFFER_BYTES ||
		x->end > x->chunk || x->pos >= x->end || x->block == 0 ||
		x->block > IDE_MULTIPLE_MAX * BLK_SECTOR)
		return false;
	if (x->chunk % BLK_SECTOR || x->end % BLK_SECTOR || x->block % BLK_SECTOR)
		return false;
	if (x->kind == IDE_WRITE)
		return x->chunk / BLK_SECTOR <= x->left && !x->failed;
	if (x->kind == IDE_IDENTIFY)
		return x->chunk == BLK_SECTOR && !x->left && !x->failed;
	return !x->failed || x->left;
}

static void ide_transfer_load(struct ide_channel *ch, struct state_reader *r)
{
	struct ide_transfer *x = &ch->xfer;
	uint8_t unit;

	memset(x, 0, sizeof(*x));
	if (!state_get_u8(r))
		return;
	unit = state_get_u8(r);
	x->kind = state_get_u8(r);
	x->addressing = state_get_u8(r);
	x->dma = state_get_u8(r);
	x->failed = state_get_u8(r);
	x->lba = state_get_u64(r);
	x->left = state_get_u32(r);
	x->limit = state_get_u32(r);
	if (!x->dma) {
		x->block = state_get_u32(r);
		x->chunk = state_get_u32(r);
		x->pos = state_get_u32(r);
		x->end = state_get_u32(r);
	}
	x->disk = unit < IDE_UNITS ? ch->disks[unit] : NULL;
	x->started_ns = clock_now_ns();
	if (r->error || !x->disk || !ide_transfer_valid(x)) {
		ide_load_fail(r);
		return;
	}
	if (x->dma)
		return;
	if (ide_kind_takes(x->kind))
		state_get_bytes(r, ch->buffer, x->pos);
	else
		state_get_bytes(r, ch->buffer + x->pos, x->chunk - x->pos);
}

static void ide_channel_load(struct ide_channel *ch, struct state_reader *r)
{
	struct ide_walk *walk = &ch->walk;

	ch->device = state_get_u8(r);
	ch->control = state_get_u8(r) & (IDE_CTL_NIEN | IDE_CTL_SRST | IDE_CTL_HOB);
	ch->bm_command = state_get_u8(r) & IDE_BM_CMD_MASK;
	ch->bm_status = state_get_u8(r) & (IDE_BM_ST_CLEAR | IDE_BM_ST_CAPABLE);
	ch->bm_active = state_get_u8(r);
	ch->bm_table = state_get_u32(r) & ~3u;
	walk->next = state_get_u32(r);
	walk->fetched = state_get_u32(r);
	walk->address = state_get_u32(r);
	walk->left = state_get_u32(r);
	walk->last = state_get_u8(r);
	if (walk->left > 0x10000 || walk->address % 0x10000 + walk->left > 0x10000)
		ide_load_fail(r);
	ch->walk_before = *walk;
	ide_transfer_load(ch, r);
}

static void ide_controller_op_load(struct device *d, struct state_reader *r)
{
	struct ide_controller *ctl = (struct ide_controller *)d;

	ide_controller_op_quiesce(d);
	pthread_mutex_lock(&d->lock);
	state_section_enter(r, d->name, IDE_STATE_VERSION);
	pci_device_load(&ctl->pci, r);
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		ide_channel_load(&ctl->channels[i], r);
	state_section_leave(r);
	if (r->error)
		ide_controller_reset(ctl);
	pthread_mutex_unlock(&d->lock);
}

static void ide_disk_registers_load(struct ide_disk *disk, struct state_reader *r)
{
	if (state_get_u64(r) != disk->sectors)
		ide_load_fail(r);
	disk->status = state_get_u8(r) & ~IDE_ST_BSY;
	disk->error = state_get_u8(r);
	disk->features = state_get_u8(r);
	disk->count.now = state_get_u8(r);
	disk->count.before = state_get_u8(r);
	for (unsigned i = 0; i < 3; i++) {
		disk->lba[i].now = state_get_u8(r);
		disk->lba[i].before = state_get_u8(r);
	}
	disk->intrq = state_get_u8(r);
	disk->cylinders = state_get_u16(r);
	disk->heads = state_get_u8(r);
	disk->track_sectors = state_get_u8(r);
	disk->multiple = state_get_u8(r);
	disk->transfer_mode = state_get_u8(r);
	disk->power = state_get_u8(r);
	disk->write_cache = state_get_u8(r);
	disk->look_ahead = state_get_u8(r);
	if (state_get_u8(r) != disk->cd)
		ide_load_fail(r);
	disk->sense = state_get_u32(r) & 0xffff0f;
}

static void ide_disk_op_load(struct device *d, struct state_reader *r)
{
	struct ide_disk *disk = (struct ide_disk *)d;
	pthread_mutex_t *lock = &disk->channel->controller->device.lock;

	pthread_mutex_lock(lock);
	state_section_enter(r, d->name, IDE_STATE_VERSION);
	ide_disk_registers_load(disk, r);
	if (!disk->cylinders || !disk->heads || disk->heads > 16 || !disk->track_sectors ||
		disk->multiple > IDE_MULTIPLE_MAX || (disk->multiple & (disk->multiple - 1)) ||
		!((disk->transfer_mode >= 0x20 && disk->transfer_mode <= 0x22) ||
			(disk->transfer_mode >= 0x40 && disk->transfer_mode <= 0x45)))
		ide_load_fail(r);
	state_section_leave(r);
	if (r->error) {
		ide_disk_reset(disk);
		disk->channel->xfer.disk = NULL;
	}
	ide_irq_restore(disk->channel);
	if (disk->channel->xfer.disk == disk && ide_kind_takes(disk->channel->xfer.kind))
		ide_drain_start(disk);
	pthread_mutex_unlock(lock);
}

static const struct histogram *ide_disk_op_latency(struct device *d, unsigned queue)
{
	return queue ? NULL : &((struct ide_disk *)d)->latency;
}

static void ide_disk_op_reset(struct device *d)
{
	struct ide_disk *disk = (struct ide_disk *)d;
	pthread_mutex_t *lock = &disk->channel->controller->device.lock;

	pthread_mutex_lock(lock);
	ide_disk_reset(disk);
	ide_irq_update(disk->channel);
	pthread_mutex_unlock(lock);
}

const struct device_ops ide_controller_ops = {
	.reset = ide_controller_op_reset,
	.quiesce = ide_controller_op_quiesce,
	.save = ide_controller_op_save,
	.load = ide_controller_op_load,
	.destroy = ide_controller_op_destroy,
};

const struct device_ops ide_disk_ops = {
	.reset = ide_disk_op_reset,
	.save = ide_disk_op_save,
	.load = ide_disk_op_load,
	.destroy = ide_disk_op_destroy,
	.latency = ide_disk_op_latency,
};
