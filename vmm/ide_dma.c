/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IDE: the bus master (82371SB, Bus Master IDE registers and operation). Data goes between the disk
 * image and guest memory directly, in steps bounded by the channel's own vector.
 *
 * A table shorter than the command leaves the command waiting with its data requested and the bus
 * master idle: no interrupt, as the datasheet's table of states has it. A new start goes on from
 * the first sector that was not moved whole. A longer one leaves the bus master active.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "vmm/ide_priv.h"

#define IDE_PRD_BOUNDARY 0x10000u /* neither a table nor a region crosses it */

enum { IDE_BM_COMMAND = 0, IDE_BM_STATUS = 2, IDE_BM_TABLE = 4, IDE_BM_CHANNEL = 8 };

/*
 * The table's address does nothing before the start bit is written. Clearing status bits does
 * nothing before the next read or start either, and completions replay it before they set any.
 */
#define POSTED_ALWAYS                                                                              \
	{IDE_BM_STATUS, 1}, {IDE_BM_TABLE, 4}, {IDE_BM_CHANNEL + IDE_BM_STATUS, 1},                \
	{                                                                                          \
		IDE_BM_CHANNEL + IDE_BM_TABLE, 4                                                   \
	}
const struct bus_span ide_bus_master_posted[] = {POSTED_ALWAYS, {0, 0}};
const struct bus_span ide_bus_master_posted_often[] = {
	POSTED_ALWAYS, {IDE_BM_COMMAND, 1}, {IDE_BM_CHANNEL + IDE_BM_COMMAND, 1}, {0, 0}};

/* ------------------------------------------------------------------ descriptors */

/* The next descriptor, copied once and checked. */
static int ide_walk_fetch(struct ide_channel *ch)
{
	struct ide_walk *walk = &ch->walk;
	uint32_t prd[2], address, count;

	/* the end of the table must come before the boundary: at most 8,192 descriptors */
	if (walk->fetched && !(walk->next % IDE_PRD_BOUNDARY))
		return -EINVAL;
	if (ring_mem_read(
		    machine_mem(ch->controller->device.machine), walk->next, prd, sizeof(prd)))
		return -EFAULT;
	address = le32toh(prd[0]) & ~1u;
	count = le32toh(prd[1]) & 0xfffe;
	if (!count)
		count = IDE_PRD_BOUNDARY;
	if (address % IDE_PRD_BOUNDARY + count > IDE_PRD_BOUNDARY)
		return -EINVAL;
	walk->fetched++;
	walk->next += sizeof(prd);
	walk->address = address;
	walk->left = count;
	walk->last = le32toh(prd[1]) >> 31;
	return 0;
}

static bool ide_walk_ended(const struct ide_walk *walk)
{
	return walk->last && !walk->left;
}

/* Takes bytes of the current region into the request's vector. */
static int ide_region_take(struct ide_channel *ch, uint32_t bytes)
{
	struct iovec *last = ch->niov ? &ch->iov[ch->niov - 1] : NULL;
	enum ring_dir dir = ch->xfer.kind == IDE_READ ? RING_WRITE : RING_READ;
	uint8_t *host = ring_mem_translate(
		machine_mem(ch->controller->device.machine), ch->walk.address, bytes, dir);

	if (!host)
		return -EFAULT;
	if (last && (uint8_t *)last->iov_base + last->iov_len == host)
		last->iov_len += bytes;
	else if (ch->niov == IDE_IOVS)
		return -ENOSPC;
	else
		ch->iov[ch->niov++] = (struct iovec){host, bytes};
	ch->walk.address += bytes;
	ch->walk.left -= bytes;
	return 0;
}

/* Gathers whole sectors out of one region, or one sector out of several. The bytes taken: 0 or less
 * than a sector when the table has ended; or an error. */
static int64_t ide_sectors_take(struct ide_channel *ch, uint32_t max)
{
	struct ide_walk *walk = &ch->walk;
	uint32_t taken = 0, n;
	int r;

	do {
		if (!walk->left) {
			if (walk->last)
				return taken;
			r = ide_walk_fetch(ch);
			if (r)
				return r;
		}
		if (!taken && walk->left >= BLK_SECTOR) {
			n = walk->left / BLK_SECTOR;
			n = (n < max ? n : max) * BLK_SECTOR;
		} else {
			n = BLK_SECTOR - taken;
			n = n < walk->left ? n : walk->left;
		}
		r = ide_region_take(ch, n);
		if (r)
			return r;
		taken += n;
	} while (taken < BLK_SECTOR);
	return taken;
}

/* A table that ends within a sector: what it has room for is read all the same, the rest goes to
 * the buffer, which a DMA command does not use. */
static void ide_partial_take(struct ide_channel *ch, uint32_t taken)
{
	ch->iov[ch->niov++] = (struct iovec){ch->buffer, BLK_SECTOR - taken};
}

/* Gathers up to max sectors of guest memory. How many whole ones, or an error when the first
 * cannot be had. */
static int64_t ide_step_gather(struct ide_channel *ch, uint32_t max)
{
	struct ide_transfer *x = &ch->xfer;
	uint32_t sectors = 0;
	int64_t r;

	ch->niov = 0;
	while (sectors < max) {
		struct ide_walk walk = ch->walk;
		uint32_t niov = ch->niov;
		size_t len = niov ? ch->iov[niov - 1].iov_len : 0;

		r = ide_sectors_take(ch, max - sectors);
		if (r >= BLK_SECTOR) {
			sectors += r / BLK_SECTOR;
			continue;
		}
		if (r > 0 && x->kind == IDE_READ) {
			ide_partial_take(ch, r);
			return sectors;
		}
		/* a part of a sector, or an error: the sectors before are moved first, and an error
		 * is met again */
		ch->niov = niov;
		if (niov)
			ch->iov[niov - 1].iov_len = len;
		if (r < 0) {
			if (!sectors)
				return r;
			ch->walk = walk;
		}
		break;
	}
	return sectors;
}

/* ------------------------------------------------------------------ running */

void ide_dma_run(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;
	int64_t r;

	if (!x->disk || !x->dma || x->inflight || !ch->bm_active)
		return;
	ch->walk_before = ch->walk;
	r = ide_step_gather(ch, x->left < x->limit ? x->left : x->limit);
	if (r < 0) {
		/*
		 * A target abort. The device would wait for a bus master that has stopped; its
		 * command is ended, so that the guest does not have to time it out.
		 */
		ch->bm_active = false;
		ch->bm_status |= IDE_BM_ST_ERROR;
		counter_add(&x->disk->device.counters.malformed, 1);
		ide_transfer_fail(ch, IDE_ER_ABRT, 0);
		return;
	}
	x->step = r;
	if (!ch->niov) {
		ch->bm_active = false;
		return;
	}
	ide_request_submit(ch, x->kind == IDE_WRITE ? BLK_WRITE : BLK_READ);
}

void ide_dma_step_end(struct ide_channel *ch)
{
	if (ide_walk_ended(&ch->walk))
		ch->bm_active = false;
}

void ide_dma_dirty(struct ide_channel *ch)
{
	const struct ring_mem *mem = machine_mem(ch->controller->device.machine);

	if (ch->xfer.kind != IDE_READ)
		return;
	for (uint32_t i = 0; i < ch->niov; i++)
		ring_mem_dirty(mem, ch->iov[i].iov_base, ch->iov[i].iov_len);
}

/* ------------------------------------------------------------------ registers */

static uint8_t ide_bm_register_read(const struct ide_channel *ch, unsigned reg)
{
	const struct ide_transfer *x = &ch->xfer;

	switch (reg) {
	case IDE_BM_COMMAND:
		return ch->bm_command;
	case IDE_BM_STATUS:
		/* Stopped, but data is still on its way into guest memory: not idle yet. */
		return ch->bm_status |
		       (ch->bm_active || (x->inflight && x->dma) ? IDE_BM_ST_ACTIVE : 0);
	default:
		return reg < IDE_BM_TABLE ? 0 : ch->bm_table >> 8 * (reg - IDE_BM_TABLE);
	}
}

uint64_t ide_bus_master_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ide_controller *ctl = opaque;
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++) {
		unsigned at = (offset + i) % (IDE_CHANNELS * IDE_BM_CHANNEL);
		const struct ide_channel *ch = &ctl->channels[at / IDE_BM_CHANNEL];

		value |= (uint64_t)ide_bm_register_read(ch, at % IDE_BM_CHANNEL) << 8 * i;
	}
	return value;
}

/* BMICX: the edge of the start bit starts from the table's beginning; clearing it forgets where the
 * walk was. */
static void ide_bm_command_write(struct ide_channel *ch, uint8_t value)
{
	bool started = ch->bm_command & IDE_BM_CMD_START;
	bool master = ch->controller->pci.config[4] & 0x04;

	posted_ring(&ch->controller->posted);
	ch->bm_command = value & IDE_BM_CMD_MASK;
	if (!(value & IDE_BM_CMD_START)) {
		ch->bm_active = false;
	} else if (!started && master) {
		ch->walk = (struct ide_walk){.next = ch->bm_table};
		ch->walk_before = ch->walk;
		ch->bm_active = true;
		ide_dma_run(ch);
	}
}

static void ide_bm_register_write(struct ide_channel *ch, unsigned reg, uint8_t value)
{
	unsigned shift = 8 * (reg - IDE_BM_TABLE);

	switch (reg) {
	case IDE_BM_COMMAND:
		ide_bm_command_write(ch, value);
		break;
	case IDE_BM_STATUS:
		ch->bm_status &= ~(value & IDE_BM_ST_CLEAR) & ~IDE_BM_ST_CAPABLE;
		ch->bm_status |= value & IDE_BM_ST_CAPABLE;
		break;
	default:
		if (reg < IDE_BM_TABLE)
			break;
		ch->bm_table &= ~(0xffu << shift);
		ch->bm_table |= (uint32_t)value << shift;
		ch->bm_table &= ~3u;
	}
}

void ide_bus_master_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ide_controller *ctl = opaque;

	/* From the top: one wide write clears status bits and sets the table before it starts. */
	for (unsigned i = size; i-- > 0;) {
		unsigned at = (offset + i) % (IDE_CHANNELS * IDE_BM_CHANNEL);

		ide_bm_register_write(
			&ctl->channels[at / IDE_BM_CHANNEL], at % IDE_BM_CHANNEL, value >> 8 * i);
	}
}
