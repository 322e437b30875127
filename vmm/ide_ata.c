/* SPDX-License-Identifier: BSD-2-Clause */
/* IDE: commands (ATA-6, Command descriptions), all but the moving of their data. */
#include <string.h>

#include "vmm/ide_priv.h"

/* What a command handler is told of the opcode. */
struct ide_command {
	void (*run)(struct ide_disk *disk, const struct ide_command *cmd);
	uint8_t kind; /* enum ide_kind */
	bool ext;     /* 48-bit address and 16-bit count */
	bool dma;
	bool multiple;
};

static void ide_done(struct ide_disk *disk)
{
	ide_command_end(disk, 0, 0);
}

static void ide_abort(struct ide_disk *disk)
{
	ide_command_end(disk, IDE_ER_ABRT, 0);
}

/* ------------------------------------------------------------------ addresses */

static enum ide_addressing ide_addressing_get(const struct ide_disk *disk, bool ext)
{
	if (ext)
		return IDE_LBA48;
	return disk->channel->device & IDE_DEV_LBA ? IDE_LBA28 : IDE_CHS;
}

static uint32_t ide_count_get(const struct ide_disk *disk, bool ext)
{
	uint32_t count = disk->count.now;

	if (!ext)
		return count ? count : 256;
	count |= (uint32_t)disk->count.before << 8;
	return count ? count : 65536;
}

/* ATA-6, Device/Sector addressing, with the translation in force. UINT64_MAX: no such place. */
static uint64_t ide_chs_get(const struct ide_disk *disk)
{
	uint32_t cylinder = disk->lba[1].now | (uint32_t)disk->lba[2].now << 8;
	uint32_t head = disk->channel->device & IDE_DEV_HEAD;
	uint32_t sector = disk->lba[0].now;

	if (!sector || sector > disk->track_sectors || head >= disk->heads ||
		cylinder >= disk->cylinders)
		return UINT64_MAX;
	return ((uint64_t)cylinder * disk->heads + head) * disk->track_sectors + sector - 1;
}

static uint64_t ide_address_get(const struct ide_disk *disk, enum ide_addressing addressing)
{
	uint64_t lba = 0;

	if (addressing == IDE_CHS)
		return ide_chs_get(disk);
	for (unsigned i = 0; i < 3; i++) {
		lba |= (uint64_t)disk->lba[i].now << 8 * i;
		if (addressing == IDE_LBA48)
			lba |= (uint64_t)disk->lba[i].before << (24 + 8 * i);
	}
	if (addressing == IDE_LBA28)
		lba |= (uint64_t)(disk->channel->device & IDE_DEV_HEAD) << 24;
	return lba;
}

/* ------------------------------------------------------------------ data */

static void ide_cmd_transfer(struct ide_disk *disk, const struct ide_command *cmd)
{
	enum ide_addressing addressing = ide_addressing_get(disk, cmd->ext);
	uint64_t lba = ide_address_get(disk, addressing);
	uint32_t count = ide_count_get(disk, cmd->ext);

	if ((cmd->multiple && !disk->multiple) || (cmd->kind == IDE_WRITE && disk->readonly)) {
		ide_abort(disk);
		return;
	}
	if (lba >= disk->sectors || count > disk->sectors - lba) {
		/* the first sector that is not there; a CHS address that is none stays as it is */
		if (lba < disk->sectors)
			ide_address_set(disk, addressing, disk->sectors);
		counter_add(&disk->device.counters.malformed, 1);
		ide_command_end(disk, IDE_ER_IDNF, 0);
		return;
	}
	ide_transfer_start(disk, cmd->kind, addressing, cmd->dma, lba, count,
		cmd->multiple ? disk->multiple : 1);
}

static void ide_cmd_flush(struct ide_disk *disk, const struct ide_command *cmd)
{
	uint8_t power = disk->power;

	(void)cmd;
	ide_transfer_start(disk, IDE_FLUSH, IDE_LBA28, false, 0, 0, 0);
	disk->power = power;
}

static void ide_cmd_identify(struct ide_disk *disk, const struct ide_command *cmd)
{
	uint8_t power = disk->power;

	(void)cmd;
	ide_transfer_start(disk, IDE_IDENTIFY, IDE_LBA28, false, 0, 0, 1);
	disk->power = power;
}

/* SEEK reaches nothing, but must tell an address that is none. */
static void ide_cmd_seek(struct ide_disk *disk, const struct ide_command *cmd)
{
	if (ide_address_get(disk, ide_addressing_get(disk, cmd->ext)) >= disk->sectors)
		ide_command_end(disk, IDE_ER_IDNF, 0);
	else
		ide_done(disk);
}

static void ide_cmd_native_max(struct ide_disk *disk, const struct ide_command *cmd)
{
	/* 28 bits hold at most 0FFFFFFFh sectors, whose last is one less */
	uint64_t last = disk->sectors - 1, most = 0xffffffe;

	ide_address_set(
		disk, cmd->ext ? IDE_LBA48 : IDE_LBA28, cmd->ext || last < most ? last : most);
	ide_done(disk);
}

/* ------------------------------------------------------------------ settings */

static void ide_cmd_set_multiple(struct ide_disk *disk, const struct ide_command *cmd)
{
	uint8_t count = disk->count.now;

	(void)cmd;
	if (count > IDE_MULTIPLE_MAX || (count & (count - 1))) {
		ide_abort(disk);
		return;
	}
	disk->multiple = count;
	ide_done(disk);
}

/* SET FEATURES 03h: PIO default and 0-4, multiword DMA 0-2, Ultra DMA 0-5. */
static bool ide_transfer_mode_valid(uint8_t mode)
{
	return mode <= 0x01 || (mode >= 0x08 && mode <= 0x0c) || (mode >= 0x20 && mode <= 0x22) ||
	       (mode >= 0x40 && mode <= 0x45);
}

static void ide_transfer_mode_set(struct ide_disk *disk, uint8_t mode)
{
	if (!ide_transfer_mode_valid(mode)) {
		ide_abort(disk);
		return;
	}
	/* a PIO mode leaves the DMA mode as it was */
	if (mode >= 0x20)
		disk->transfer_mode = mode;
	ide_done(disk);
}

static void ide_cmd_set_features(struct ide_disk *disk, const struct ide_command *cmd)
{
	switch (disk->features) {
	case 0x02:
		disk->write_cache = true;
		ide_done(disk);
		break;
	case 0x82: /* what is cached is written first */
		disk->write_cache = false;
		ide_cmd_flush(disk, cmd);
		break;
	case 0x03:
		ide_transfer_mode_set(disk, disk->count.now);
		break;
	case 0x55:
	case 0xaa:
		disk->look_ahead = disk->features == 0xaa;
		ide_done(disk);
		break;
	case 0x66: /* settings survive a software reset in any case */
	case 0xcc:
		ide_done(disk);
		break;
	default:
		ide_abort(disk);
	}
}

/* INITIALIZE DEVICE PARAMETERS (until ATA-5): another translation. */
static void ide_cmd_initialize(struct ide_disk *disk, const struct ide_command *cmd)
{
	uint32_t heads = (disk->channel->device & IDE_DEV_HEAD) + 1;
	uint32_t track = disk->count.now;
	uint64_t cylinders;

	(void)cmd;
	if (!track) {
		ide_abort(disk);
		return;
	}
	cylinders = disk->sectors / (heads * track);
	disk->heads = heads;
	disk->track_sectors = track;
	disk->cylinders = cylinders > 65535 ? 65535 : cylinders ? cylinders : 1;
	ide_done(disk);
}

/* ------------------------------------------------------------------ the rest */

static void ide_cmd_nothing(struct ide_disk *disk, const struct ide_command *cmd)
{
	(void)cmd;
	ide_done(disk);
}

static void ide_cmd_idle(struct ide_disk *disk, const struct ide_command *cmd)
{
	(void)cmd;
	disk->power = 0xff;
	ide_done(disk);
}

/* Spinning down takes the cache along. */
static void ide_cmd_standby(struct ide_disk *disk, const struct ide_command *cmd)
{
	disk->power = 0x00;
	ide_cmd_flush(disk, cmd);
}

static void ide_cmd_power_mode(struct ide_disk *disk, const struct ide_command *cmd)
{
	(void)cmd;
	disk->count.now = disk->power;
	ide_done(disk);
}

/* ATA-6, IDENTIFY PACKET DEVICE and PACKET for a device without packets: the signature tells which
 * kind it is. */
static void ide_cmd_packet(struct ide_disk *disk, const struct ide_command *cmd)
{
	(void)cmd;
	ide_signature_set(disk);
	ide_abort(disk);
}

/* EXECUTE DEVICE DIAGNOSTIC: both devices do it, device 0 is selected and interrupts. */
static void ide_diagnostic(struct ide_channel *ch)
{
	ch->device = 0;
	for (unsigned i = 0; i < IDE_UNITS; i++)
		if (ch->disks[i])
			ide_signature_set(ch->disks[i]);
	if (ch->disks[0])
		ide_intrq_set(ch->disks[0], true);
}

/* ------------------------------------------------------------------ the table */

#define IDE_OPCODE_DIAGNOSTIC 0x90

#define XFER(...)                                                                                  \
	{                                                                                          \
		.run = ide_cmd_transfer, __VA_ARGS__                                               \
	}

/* What is not here is aborted: NOP, DEVICE RESET (for packet devices), SMART, the security and
 * protected area sets ... */
static const struct ide_command ide_commands[256] = {
	[0x10 ... 0x1f] = {.run = ide_cmd_nothing}, /* RECALIBRATE */
	[0x20 ... 0x21] = XFER(.kind = IDE_READ),
	[0x24] = XFER(.kind = IDE_READ, .ext = true),
	[0x25] = XFER(.kind = IDE_READ, .ext = true, .dma = true),
	[0x27] = {.run = ide_cmd_native_max, .ext = true},
	[0x29] = XFER(.kind = IDE_READ, .ext = true, .multiple = true),
	[0x30 ... 0x31] = XFER(.kind = IDE_WRITE),
	[0x34] = XFER(.kind = IDE_WRITE, .ext = true),
	[0x35] = XFER(.kind = IDE_WRITE, .ext = true, .dma = true),
	[0x39] = XFER(.kind = IDE_WRITE, .ext = true, .multiple = true),
	[0x40 ... 0x41] = XFER(.kind = IDE_VERIFY),
	[0x42] = XFER(.kind = IDE_VERIFY, .ext = true),
	[0x70 ... 0x7f] = {.run = ide_cmd_seek},
	[0x91] = {.run = ide_cmd_initialize},
	[0x94] = {.run = ide_cmd_standby},
	[0x95] = {.run = ide_cmd_idle},
	[0x96] = {.run = ide_cmd_standby},
	[0x97] = {.run = ide_cmd_idle},
	[0x98] = {.run = ide_cmd_power_mode},
	[0x99] = {.run = ide_cmd_standby}, /* SLEEP, which a reset ends; here anything does */
	[0xa0 ... 0xa1] = {.run = ide_cmd_packet},
	[0xc4] = XFER(.kind = IDE_READ, .multiple = true),
	[0xc5] = XFER(.kind = IDE_WRITE, .multiple = true),
	[0xc6] = {.run = ide_cmd_set_multiple},
	[0xc8 ... 0xc9] = XFER(.kind = IDE_READ, .dma = true),
	[0xca ... 0xcb] = XFER(.kind = IDE_WRITE, .dma = true),
	[0xe0] = {.run = ide_cmd_standby},
	[0xe1] = {.run = ide_cmd_idle},
	[0xe2] = {.run = ide_cmd_standby},
	[0xe3] = {.run = ide_cmd_idle},
	[0xe5] = {.run = ide_cmd_power_mode},
	[0xe6] = {.run = ide_cmd_standby},
	[0xe7] = {.run = ide_cmd_flush},
	[0xea] = {.run = ide_cmd_flush, .ext = true},
	[0xec] = {.run = ide_cmd_identify},
	[0xef] = {.run = ide_cmd_set_features},
	[0xf8] = {.run = ide_cmd_native_max},
};

void ide_command_start(struct ide_channel *ch, uint8_t opcode)
{
	const struct ide_command *cmd = &ide_commands[opcode];
	struct ide_disk *disk = ide_selected(ch);

	/* Neither device is busy. One that still wants its data exchanged forgets about it. */
	if (opcode == IDE_OPCODE_DIAGNOSTIC) {
		ide_transfer_cancel(ch);
		ide_diagnostic(ch);
		return;
	}
	if (!disk)
		return;
	if (ch->xfer.disk) {
		ch->xfer.disk->status = IDE_ST_READY;
		ide_transfer_cancel(ch);
	}
	counter_add(&disk->device.counters.doorbells, 1);
	/* ATA-6, INTRQ: negated by a write to the command register. */
	ide_intrq_set(disk, false);
	if (disk->cd)
		ide_packet_command(disk, opcode);
	else if (cmd->run)
		cmd->run(disk, cmd);
	else
		ide_abort(disk);
}
