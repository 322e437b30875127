/* SPDX-License-Identifier: BSD-2-Clause */
/* IDE: the task file, the data port, interrupts and software reset. */
#include <string.h>

#include "vmm/ide_priv.h"

enum {
	IDE_REG_DATA,
	IDE_REG_ERROR, /* written: features */
	IDE_REG_COUNT,
	IDE_REG_LBA_LOW,
	IDE_REG_LBA_MID,
	IDE_REG_LBA_HIGH,
	IDE_REG_DEVICE,
	IDE_REG_STATUS, /* written: command */
};

/*
 * Writing an address, a count or the device register does nothing a guest could see before it reads
 * a register or writes the command, so KVM collects them. Neither do words for the data port, but
 * for a block's last one: ide_drain.c sees to that. One span, for a 32-bit write must lie within
 * it.
 */
const struct bus_span ide_command_block_posted[] = {
	{IDE_REG_DATA, IDE_REG_STATUS - IDE_REG_DATA},
	{0, 0},
};
const struct bus_span ide_command_block_posted_often[] = {
	{IDE_REG_DATA, IDE_REG_STATUS - IDE_REG_DATA},
	{IDE_REG_STATUS, 1},
	{0, 0},
};

struct ide_disk *ide_selected(struct ide_channel *ch)
{
	return ch->disks[!!(ch->device & IDE_DEV_DEV)];
}

static bool ide_busy(const struct ide_channel *ch)
{
	return (ch->control & IDE_CTL_SRST) || ch->xfer.inflight;
}

/* 82371SB: ports are decoded with the command register's I/O bit and the channel's enable bit. */
static bool ide_decoded(const struct ide_channel *ch)
{
	const uint8_t *config = ch->controller->pci.config;

	return (config[4] & 0x01) &&
	       (config[IDE_CFG_TIMING + 2 * ch->index + 1] & IDE_TIMING_DECODE);
}

/* No disk on the cable: nobody drives the data lines, and everybody's probe knows FFh at once. */
static bool ide_floating(const struct ide_channel *ch)
{
	return !ch->disks[0] && !ch->disks[1];
}

/* ------------------------------------------------------------------ interrupts */

/* ATA-6, INTRQ: driven by the selected device alone, and only while nIEN is 0. */
static bool ide_irq_level(struct ide_channel *ch)
{
	struct ide_disk *disk = ide_selected(ch);

	return disk && disk->intrq && !(ch->control & IDE_CTL_NIEN);
}

void ide_irq_restore(struct ide_channel *ch)
{
	ch->irq_level = ide_irq_level(ch);
	irq_source_set(&ch->irq, ch->irq_level);
}

void ide_irq_update(struct ide_channel *ch)
{
	bool level = ide_irq_level(ch);

	if (level == ch->irq_level)
		return;
	ch->irq_level = level;
	if (level) {
		/* BMISX: set by the edge; a guest may clear it while the line is still high */
		ch->bm_status |= IDE_BM_ST_INTERRUPT;
		counter_add(&ide_selected(ch)->device.counters.interrupts, 1);
	}
	irq_source_set(&ch->irq, level);
}

void ide_intrq_set(struct ide_disk *disk, bool asserted)
{
	disk->intrq = asserted;
	ide_irq_update(disk->channel);
}

/* ------------------------------------------------------------------ reads */

/* ATA-6, Device 0 only configurations: for an absent device 1, device 0 answers with status 0 and
 * its own other registers. */
static uint8_t ide_status_read(struct ide_channel *ch)
{
	struct ide_disk *disk = ide_selected(ch);

	if (!disk)
		return 0;
	/* while BSY is set no other bit means anything */
	return ide_busy(ch) ? IDE_ST_BSY : disk->status;
}

static uint8_t ide_fifo_read(const struct ide_channel *ch, const struct ide_fifo *fifo)
{
	return ch->control & IDE_CTL_HOB ? fifo->before : fifo->now;
}

static uint8_t ide_register_read(struct ide_channel *ch, unsigned reg)
{
	struct ide_disk *disk = ide_selected(ch), *answering = disk;
	uint8_t status;

	if (!ide_decoded(ch) || ide_floating(ch))
		return 0xff;
	if (!answering)
		answering = ch->disks[!(ch->device & IDE_DEV_DEV)];
	switch (reg) {
	case IDE_REG_ERROR:
		return answering->error;
	case IDE_REG_COUNT:
		return ide_fifo_read(ch, &answering->count);
	case IDE_REG_LBA_LOW:
	case IDE_REG_LBA_MID:
	case IDE_REG_LBA_HIGH:
		return ide_fifo_read(ch, &answering->lba[reg - IDE_REG_LBA_LOW]);
	case IDE_REG_DEVICE:
		return ch->device;
	case IDE_REG_STATUS:
		status = ide_status_read(ch);
		if (disk)
			ide_intrq_set(disk, false);
		return status;
	default:
		return 0xff;
	}
}

/* The selected disk's DRQ block that the data port moves; false: no such thing now. */
static bool ide_data_ready(struct ide_channel *ch, bool write)
{
	const struct ide_transfer *x = &ch->xfer;

	return ide_decoded(ch) && x->disk && x->disk == ide_selected(ch) && !ide_busy(ch) &&
	       !x->dma && (x->disk->status & IDE_ST_DRQ) && ide_kind_takes(x->kind) == write;
}

static void ide_data_read(struct ide_channel *ch, void *buf, size_t bytes)
{
	struct ide_transfer *x = &ch->xfer;
	uint8_t *to = buf;

	while (bytes && ide_data_ready(ch, false)) {
		size_t n = x->end - x->pos < bytes ? x->end - x->pos : bytes;

		memcpy(to, ch->buffer + x->pos, n);
		x->pos += n;
		to += n;
		bytes -= n;
		if (x->pos == x->end)
			ide_block_end(ch);
	}
	memset(to, 0xff, bytes);
}

static void ide_data_write(struct ide_channel *ch, const void *buf, size_t bytes)
{
	struct ide_transfer *x = &ch->xfer;
	const uint8_t *from = buf;

	while (bytes && ide_data_ready(ch, true)) {
		size_t n = x->end - x->pos < bytes ? x->end - x->pos : bytes;

		memcpy(ch->buffer + x->pos, from, n);
		x->pos += n;
		from += n;
		bytes -= n;
		if (x->pos == x->end)
			ide_block_end(ch);
	}
}

uint64_t ide_command_block_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ide_channel *ch = opaque;
	uint64_t value = 0;

	if (offset == IDE_REG_DATA) {
		/* wider than the device's 16 lines: the controller makes several cycles */
		ide_data_read(ch, &value, size);
		return value;
	}
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)ide_register_read(ch, offset + i) << 8 * i;
	return value;
}

void ide_command_block_read_string(
	void *opaque, uint64_t offset, void *buf, unsigned size, unsigned count)
{
	uint8_t *to = buf;

	if (offset == IDE_REG_DATA) {
		ide_data_read(opaque, buf, (size_t)size * count);
		return;
	}
	for (unsigned i = 0; i < count; i++, to += size) {
		uint64_t value = ide_command_block_read(opaque, offset, size);

		memcpy(to, &value, size);
	}
}

/* ------------------------------------------------------------------ writes */

static void ide_fifo_write(struct ide_fifo *fifo, uint8_t value)
{
	fifo->before = fifo->now;
	fifo->now = value;
}

/* Both devices on the cable take every write (ATA-6, Device register). */
static void ide_disk_register_write(struct ide_disk *disk, unsigned reg, uint8_t value)
{
	switch (reg) {
	case IDE_REG_ERROR:
		disk->features = value;
		break;
	case IDE_REG_COUNT:
		ide_fifo_write(&disk->count, value);
		break;
	default:
		ide_fifo_write(&disk->lba[reg - IDE_REG_LBA_LOW], value);
		break;
	}
}

static void ide_register_write(struct ide_channel *ch, unsigned reg, uint8_t value)
{
	/* Hardware ignores writes to a busy device, whose own hands are on the registers. */
	if (reg > IDE_REG_STATUS || !ide_decoded(ch) || ide_floating(ch) || ide_busy(ch))
		return;
	/* ATA-6, Device Control register: HOB ends with a write to the command block. */
	ch->control &= ~IDE_CTL_HOB;
	switch (reg) {
	case IDE_REG_DEVICE:
		ch->device = value;
		ide_irq_update(ch);
		break;
	case IDE_REG_STATUS:
		posted_ring(&ch->controller->posted);
		ide_command_start(ch, value);
		break;
	default:
		for (unsigned i = 0; i < IDE_UNITS; i++)
			if (ch->disks[i])
				ide_disk_register_write(ch->disks[i], reg, value);
	}
}

void ide_command_block_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ide_channel *ch = opaque;

	if (offset == IDE_REG_DATA) {
		ide_data_write(ch, &value, size);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		ide_register_write(ch, offset + i, value >> 8 * i);
}

void ide_command_block_write_string(
	void *opaque, uint64_t offset, const void *buf, unsigned size, unsigned count)
{
	const uint8_t *from = buf;

	if (offset == IDE_REG_DATA) {
		ide_data_write(opaque, buf, (size_t)size * count);
		return;
	}
	for (unsigned i = 0; i < count; i++, from += size) {
		uint64_t value = 0;

		memcpy(&value, from, size);
		ide_command_block_write(opaque, offset, value, size);
	}
}

/* ------------------------------------------------------------------ control block */

void ide_signature_set(struct ide_disk *disk)
{
	disk->status = IDE_ST_READY;
	disk->error = 0x01; /* diagnostic code: passed; and so did device 1, or it is absent */
	disk->count = (struct ide_fifo){1, 0};
	disk->lba[0] = (struct ide_fifo){1, 0};
	disk->lba[1] = (struct ide_fifo){0, 0};
	disk->lba[2] = (struct ide_fifo){0, 0};
	if (disk->cd)
		ide_packet_signature(disk);
}

/* ATA-6, Software reset. BSY stays until the request in flight, if any, is back. */
static void ide_srst(struct ide_channel *ch)
{
	ide_transfer_cancel(ch);
	ch->device = 0;
	for (unsigned i = 0; i < IDE_UNITS; i++)
		if (ch->disks[i]) {
			ide_signature_set(ch->disks[i]);
			ch->disks[i]->power = 0xff;
			ch->disks[i]->intrq = false;
		}
}

uint64_t ide_control_block_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ide_channel *ch = opaque;

	(void)offset;
	(void)size;
	/* Alternate Status: the status without its side effect */
	return !ide_decoded(ch) || ide_floating(ch) ? 0xff : ide_status_read(ch);
}

void ide_control_block_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ide_channel *ch = opaque;
	uint8_t before = ch->control;

	(void)offset;
	(void)size;
	if (!ide_decoded(ch))
		return;
	ch->control = value & (IDE_CTL_NIEN | IDE_CTL_SRST | IDE_CTL_HOB);
	if ((ch->control & IDE_CTL_SRST) && !(before & IDE_CTL_SRST))
		ide_srst(ch);
	ide_irq_update(ch);
}
