/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IDE: a command's data on its way between the disk image and the buffer the data port shows (or
 * guest memory, ide_dma.c).
 *
 * PIO commands move up to IDE_CHUNK sectors for one request to storage: reads are fetched ahead of
 * the DRQ blocks that hand them out, writes are gathered from them. So a write's DRQ blocks are
 * acknowledged as they come, and only its end tells that the data is with the image.
 *
 * When a request fails, it is tried again sector by sector: what is good is moved, and the first
 * sector that is not is reported with its address.
 */
#include <stddef.h>
#include <string.h>

#include "vmm/ide_priv.h"

static void ide_request_done(struct legacy_request *request, int res);

void ide_request_submit(struct ide_channel *ch, enum blk_op op)
{
	struct ide_transfer *x = &ch->xfer;
	struct blk_request *blk = &ch->request.blk;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < ch->niov; i++)
		bytes += ch->iov[i].iov_len;
	memset(&ch->request, 0, sizeof(ch->request));
	blk->op = op;
	blk->offset = op == BLK_FLUSH ? 0 : x->lba * BLK_SECTOR;
	blk->length = bytes;
	blk->iov = ch->iov;
	blk->niov = ch->niov;
	ch->request.done = ide_request_done;
	x->inflight = true;
	legacy_disk_submit(x->disk->link, &ch->request);
}

static void ide_flush_submit(struct ide_channel *ch)
{
	ch->xfer.flushing = true;
	ch->xfer.step = 0;
	ch->niov = 0;
	ide_request_submit(ch, BLK_FLUSH);
}

/* The part of the chunk that is not yet moved, or as much as one request may hold. */
static void ide_chunk_submit(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;
	uint32_t sectors = (x->chunk - x->moved) / BLK_SECTOR;

	x->step = sectors < x->limit ? sectors : x->limit;
	ch->iov[0] = (struct iovec){ch->buffer + x->moved, (size_t)x->step * BLK_SECTOR};
	ch->niov = 1;
	ide_request_submit(ch, x->kind == IDE_WRITE ? BLK_WRITE : BLK_READ);
}

/* ------------------------------------------------------------------ ends */

void ide_address_set(struct ide_disk *disk, enum ide_addressing addressing, uint64_t lba)
{
	uint32_t track = lba / disk->track_sectors;
	uint16_t cylinder = track / disk->heads;
	uint8_t *device = &disk->channel->device;

	if (addressing == IDE_CHS) {
		disk->lba[0].now = lba % disk->track_sectors + 1;
		disk->lba[1].now = cylinder;
		disk->lba[2].now = cylinder >> 8;
		*device = (*device & ~IDE_DEV_HEAD) | (track % disk->heads & IDE_DEV_HEAD);
		return;
	}
	for (unsigned i = 0; i < 3; i++) {
		disk->lba[i].now = lba >> 8 * i;
		if (addressing == IDE_LBA48)
			disk->lba[i].before = lba >> (24 + 8 * i);
	}
	if (addressing == IDE_LBA28)
		*device = (*device & ~IDE_DEV_HEAD) | (lba >> 24 & IDE_DEV_HEAD);
}

void ide_command_end(struct ide_disk *disk, uint8_t error, uint8_t status)
{
	disk->error = error;
	disk->status = IDE_ST_READY | status | (error ? IDE_ST_ERR : 0);
	if (error)
		counter_add(&disk->device.counters.errors, 1);
	ide_intrq_set(disk, true);
}

/* The command is no longer the channel's; how it ended is counted. */
struct ide_disk *ide_transfer_close(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;
	struct ide_disk *disk = x->disk;

	if (x->kind != IDE_IDENTIFY) {
		counter_add(&disk->device.counters.requests, 1);
		histogram_add(&disk->latency, clock_now_ns() - x->started_ns);
	}
	x->disk = NULL;
	return disk;
}

void ide_transfer_fail(struct ide_channel *ch, uint8_t error, uint8_t status)
{
	struct ide_transfer *x = &ch->xfer;

	if (x->kind != IDE_FLUSH)
		ide_address_set(x->disk, x->addressing, x->lba);
	ide_command_end(ide_transfer_close(ch), error, status);
}

/* All data is moved. A write with the cache off, as a flush, is over when it is on stable storage
 * (ATA-6, SET FEATURES, volatile write cache). */
static void ide_transfer_finish(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;

	if (x->kind == IDE_WRITE && !x->disk->write_cache && !x->flushing) {
		ide_flush_submit(ch);
		return;
	}
	ide_command_end(ide_transfer_close(ch), 0, 0);
}

/* A request that moved one sector, or a flush, has failed. */
static void ide_request_failed(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;

	if (x->kind == IDE_PACKET_IN)
		ide_packet_failed(ch);
	else if (x->kind == IDE_READ || x->kind == IDE_VERIFY)
		ide_transfer_fail(ch, IDE_ER_UNC, 0);
	else
		ide_transfer_fail(ch, IDE_ER_ABRT, IDE_ST_DF);
}

void ide_transfer_cancel(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;

	if (x->inflight)
		x->abandoned = true;
	else
		x->disk = NULL;
}

/* ------------------------------------------------------------------ DRQ blocks */

/* Shows the next block of the buffer. ATA-6, PIO data-in and PIO data-out protocols: an interrupt
 * for each block but the first of a write. */
void ide_block_begin(struct ide_channel *ch, bool interrupt)
{
	struct ide_transfer *x = &ch->xfer;
	uint32_t rest = x->chunk - x->pos;

	x->end = x->pos + (rest < x->block ? rest : x->block);
	x->disk->error = 0;
	x->disk->status = IDE_ST_READY | IDE_ST_DRQ;
	if (ide_kind_takes(x->kind))
		ide_drain_start(x->disk);
	if (x->kind == IDE_PACKET_IN)
		ide_packet_shows(x->disk, x->end - x->pos);
	if (interrupt)
		ide_intrq_set(x->disk, true);
}

/* Begins with the buffer's next load: fetches it, or has it gathered from the guest. */
void ide_chunk_begin(struct ide_channel *ch, bool first)
{
	struct ide_transfer *x = &ch->xfer;

	x->chunk = (x->left < IDE_CHUNK ? x->left : IDE_CHUNK) * BLK_SECTOR;
	x->moved = 0;
	x->pos = 0;
	x->end = 0;
	if (x->kind == IDE_WRITE)
		ide_block_begin(ch, !first);
	else
		ide_chunk_submit(ch);
}

void ide_block_end(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;

	if (x->pos < x->chunk) {
		ide_block_begin(ch, true);
		return;
	}
	x->disk->status = IDE_ST_READY;
	if (x->kind == IDE_WRITE)
		ide_chunk_submit(ch);
	else if (x->kind == IDE_PACKET)
		ide_packet_taken(ch);
	else if (x->kind == IDE_PACKET_IN && !x->left)
		ide_packet_done(ch);
	else if (x->failed)
		ide_transfer_fail(ch, IDE_ER_UNC, 0);
	else if (x->left)
		ide_chunk_begin(ch, false);
	else
		/* data-in: the last block was the command's interrupt */
		ide_transfer_close(ch);
}

/* The chunk is read from, or written to, the disk. */
static void ide_chunk_end(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;

	if (x->kind == IDE_READ || x->kind == IDE_PACKET_IN)
		ide_block_begin(ch, true);
	else if (x->left)
		ide_chunk_begin(ch, false);
	else
		ide_transfer_finish(ch);
}

/* ------------------------------------------------------------------ requests */

/* The whole blocks before a sector that cannot be read still go to the guest. */
static void ide_chunk_failed(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;
	uint32_t good = x->kind == IDE_READ ? x->moved / x->block * x->block : 0;

	if (!good) {
		ide_request_failed(ch);
		return;
	}
	x->failed = true;
	x->chunk = good;
	ide_block_begin(ch, true);
}

static void ide_step_failed(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;

	/* by its length: a DMA step may hold a part of one more sector */
	if (ch->request.blk.length > BLK_SECTOR) {
		x->limit = 1;
		if (x->dma) {
			ch->walk = ch->walk_before;
			ide_dma_run(ch);
		} else {
			ide_chunk_submit(ch);
		}
		return;
	}
	if (x->dma || x->flushing)
		ide_request_failed(ch);
	else
		ide_chunk_failed(ch);
}

static void ide_step_done(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;

	x->lba += x->step;
	x->left -= x->step;
	counter_add(&x->disk->device.counters.bytes, (uint64_t)x->step * BLK_SECTOR);
	if (x->dma) {
		ide_dma_step_end(ch);
		if (x->left)
			ide_dma_run(ch);
		else
			ide_transfer_finish(ch);
		return;
	}
	x->moved += x->step * BLK_SECTOR;
	if (x->moved < x->chunk)
		ide_chunk_submit(ch);
	else
		ide_chunk_end(ch);
}

/* What this disk alone cost the I/O thread: its channel's calls and the interrupt line's. */
static void ide_calls_count(struct ide_disk *disk, bool line_changed)
{
	struct blk_channel_counters c;
	uint64_t calls = line_changed && machine_has_kvm(disk->device.machine);

	legacy_disk_counters_get(disk->link, &c);
	calls += c.system_calls - disk->link_calls;
	disk->link_calls = c.system_calls;
	counter_add(&disk->device.counters.system_calls, calls);
}

static void ide_request_end(struct ide_channel *ch, int res)
{
	struct ide_transfer *x = &ch->xfer;

	x->inflight = false;
	if (x->dma)
		ide_dma_dirty(ch);
	if (x->abandoned) {
		x->abandoned = false;
		x->disk = NULL;
	} else if (res) {
		ide_step_failed(ch);
	} else if (x->flushing) {
		ide_transfer_finish(ch);
	} else {
		ide_step_done(ch);
	}
}

/* On the I/O thread. */
static void ide_request_done(struct legacy_request *request, int res)
{
	struct ide_channel *ch =
		(struct ide_channel *)((char *)request - offsetof(struct ide_channel, request));
	struct ide_controller *ctl = ch->controller;
	struct ide_disk *disk = ch->xfer.disk; /* nobody changes it while the request is out */
	bool level;

	/*
	 * What the guest wrote before this completion takes effect before it, although KVM still
	 * has it: a cleared interrupt bit must not wipe out the one set below.
	 */
	if (machine_has_kvm(ctl->device.machine))
		machine_coalesced_drain(ctl->device.machine);

	pthread_mutex_lock(&ctl->device.lock);
	level = ch->irq_level;
	ide_request_end(ch, res);
	ide_calls_count(disk, ch->irq_level != level);
	pthread_mutex_unlock(&ctl->device.lock);
}

/* ------------------------------------------------------------------ starts */

void ide_transfer_start(struct ide_disk *disk, enum ide_kind kind, enum ide_addressing addressing,
	bool dma, uint64_t lba, uint32_t sectors, uint32_t block_sectors)
{
	struct ide_channel *ch = disk->channel;

	ch->xfer = (struct ide_transfer){
		.disk = disk,
		.kind = kind,
		.addressing = addressing,
		.dma = dma,
		.lba = lba,
		.left = sectors,
		.limit = dma ? IDE_DMA_STEP : IDE_CHUNK,
		.block = block_sectors * BLK_SECTOR,
		.started_ns = clock_now_ns(),
	};
	disk->error = 0;
	disk->status = IDE_ST_READY;
	disk->power = 0xff;
	if (kind == IDE_FLUSH) {
		ide_flush_submit(ch);
	} else if (kind == IDE_IDENTIFY) {
		ide_identify_fill(disk, ch->buffer);
		ch->xfer.chunk = BLK_SECTOR;
		ide_block_begin(ch, true);
	} else if (dma) {
		/* the device asks for its data; the bus master may have been started before */
		disk->status |= IDE_ST_DRQ;
		ide_dma_run(ch);
	} else {
		ide_chunk_begin(ch, true);
	}
}
