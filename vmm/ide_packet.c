/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IDE: a CD-ROM drive (ATA-6, PACKET Command feature set; SFF-8020i; the packets are MMC-3's and
 * SPC-2's). Its disc is an image and never changes. Data comes by PIO, in pieces as long as the
 * host says it takes (the byte count limit).
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/param.h>

#include "vmm/ide_priv.h"

#define CD_BLOCK        2048u
#define CD_SECTORS      (CD_BLOCK / BLK_SECTOR)
#define CD_PER_SECOND   75u /* blocks, as addresses in minutes, seconds and frames count */
#define CD_LEAD_IN      150u
#define CD_SIGNATURE_LO 0x14u
#define CD_SIGNATURE_HI 0xebu
#define ISO_PLACE       (16u * CD_BLOCK) /* ECMA-119, 8: the first volume descriptor */

/* ATA-6, interrupt reason: what the count register becomes. */
#define REASON_COMMAND 0x01u
#define REASON_TO_HOST 0x02u

/* SPC-2, sense keys, with the additional code above them. */
enum {
	SENSE_NONE = 0,
	SENSE_READ_ERROR = 0x110003,
	SENSE_OPCODE = 0x200005,
	SENSE_ADDRESS = 0x210005,
	SENSE_FIELD = 0x240005,
};

/* ------------------------------------------------------------------ registers */

void ide_packet_signature(struct ide_disk *disk)
{
	disk->lba[1].now = CD_SIGNATURE_LO;
	disk->lba[2].now = CD_SIGNATURE_HI;
	disk->status = 0; /* not ready for ATA's commands */
}

static void packet_end(struct ide_disk *disk, uint32_t sense)
{
	disk->sense = sense;
	disk->count.now = REASON_COMMAND | REASON_TO_HOST;
	ide_command_end(disk, (uint8_t)((sense & 0x0f) << 4), 0);
}

/* The packet is done; the channel is free again. */
static void packet_finish(struct ide_channel *ch, uint32_t sense)
{
	packet_end(ide_transfer_close(ch), sense);
}

void ide_packet_failed(struct ide_channel *ch)
{
	packet_finish(ch, SENSE_READ_ERROR);
}

void ide_packet_done(struct ide_channel *ch)
{
	packet_finish(ch, SENSE_NONE);
}

void ide_packet_shows(struct ide_disk *disk, uint32_t bytes)
{
	disk->count.now = REASON_TO_HOST;
	disk->lba[1].now = (uint8_t)bytes;
	disk->lba[2].now = (uint8_t)(bytes >> 8);
}

/* ------------------------------------------------------------------ answers */

static void put16(uint8_t *to, uint32_t v)
{
	to[0] = (uint8_t)(v >> 8);
	to[1] = (uint8_t)v;
}

static void put32(uint8_t *to, uint32_t v)
{
	put16(to, v >> 16);
	put16(to + 2, v);
}

static uint32_t get16(const uint8_t *from)
{
	return (uint32_t)from[0] << 8 | from[1];
}

static uint32_t get32(const uint8_t *from)
{
	return get16(from) << 16 | get16(from + 2);
}

static uint32_t cd_blocks(const struct ide_disk *disk)
{
	uint64_t n = disk->sectors / CD_SECTORS;

	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* Of len bytes in the buffer the host gets as many as it made room for. */
static void answer(struct ide_channel *ch, uint32_t len, uint32_t room)
{
	struct ide_transfer *x = &ch->xfer;

	len = MIN(len, room);
	if (!len) {
		packet_finish(ch, SENSE_NONE);
		return;
	}
	x->kind = IDE_PACKET_IN;
	x->chunk = len;
	x->left = 0;
	x->pos = 0;
	ide_block_begin(ch, true);
}

static uint8_t *answer_room(struct ide_channel *ch, uint32_t len)
{
	memset(ch->buffer, 0, len);
	return ch->buffer;
}

static void cmd_sense(struct ide_channel *ch, const uint8_t *cdb)
{
	uint32_t sense = ch->xfer.disk->sense;
	uint8_t *b = answer_room(ch, 18);

	b[0] = 0x70;
	b[2] = sense & 0x0f;
	b[7] = 10;
	b[12] = (uint8_t)(sense >> 16);
	b[13] = (uint8_t)(sense >> 8);
	answer(ch, 18, cdb[4]);
}

static void cmd_inquiry(struct ide_channel *ch, const uint8_t *cdb)
{
	uint8_t *b = answer_room(ch, 36);

	if (cdb[1] & 3 || cdb[2]) {
		packet_finish(ch, SENSE_FIELD);
		return;
	}
	b[0] = 0x05; /* CD-ROM */
	b[1] = 0x80; /* removable */
	b[3] = 0x21; /* ATAPI version 2, this format of answer */
	b[4] = 31;
	memcpy(b + 8, "SLUICE  CD-ROM          1.0 ", 28);
	answer(ch, 36, cdb[4]);
}

static void cmd_capacity(struct ide_channel *ch, const uint8_t *cdb)
{
	uint8_t *b = answer_room(ch, 8);

	(void)cdb;
	put32(b, cd_blocks(ch->xfer.disk) - 1);
	put32(b + 4, CD_BLOCK);
	answer(ch, 8, 8);
}

static void toc_address(uint8_t *to, uint32_t block, bool msf)
{
	if (!msf) {
		put32(to, block);
		return;
	}
	block += CD_LEAD_IN;
	to[0] = 0;
	to[1] = (uint8_t)(block / CD_PER_SECOND / 60);
	to[2] = (uint8_t)(block / CD_PER_SECOND % 60);
	to[3] = (uint8_t)(block % CD_PER_SECOND);
}

/* MMC-3, READ TOC/PMA/ATIP: one session of one data track. */
static void cmd_toc(struct ide_channel *ch, const uint8_t *cdb)
{
	bool msf = cdb[1] & 2;
	uint8_t format = cdb[2] & 0x0f ? cdb[2] & 0x0f : cdb[9] >> 6, *b = answer_room(ch, 20);
	uint32_t len = 4;

	if (format > 1 || (!format && cdb[6] > 1 && cdb[6] != 0xaa)) {
		packet_finish(ch, SENSE_FIELD);
		return;
	}
	b[2] = b[3] = 1; /* first and last track, or session */
	if (format || cdb[6] <= 1) {
		b[len + 1] = 0x14; /* data */
		b[len + 2] = 1;
		toc_address(b + len + 4, 0, msf);
		len += 8;
	}
	if (!format) {
		b[len + 1] = 0x14;
		b[len + 2] = 0xaa; /* the lead-out */
		toc_address(b + len + 4, cd_blocks(ch->xfer.disk), msf);
		len += 8;
	}
	put16(b, len - 2);
	answer(ch, len, get16(cdb + 7));
}

/* MMC-3, GET CONFIGURATION: a CD-ROM, and nothing but its profile. */
static void cmd_configuration(struct ide_channel *ch, const uint8_t *cdb)
{
	uint8_t *b = answer_room(ch, 16);
	uint32_t len = 8;

	put16(b + 6, 0x0008);
	if (!get16(cdb + 2)) {
		b[10] = 0x03; /* feature 0, persistent and current */
		b[11] = 4;
		put16(b + 12, 0x0008);
		b[14] = 1;
		len = 16;
	}
	put32(b, len - 4);
	answer(ch, len, get16(cdb + 7));
}

/* MMC-3, GET EVENT STATUS NOTIFICATION: asked by polling, for media: nothing happens. */
static void cmd_event(struct ide_channel *ch, const uint8_t *cdb)
{
	uint8_t *b = answer_room(ch, 8);
	bool media = cdb[4] & 0x10;

	if (!(cdb[1] & 1)) {
		packet_finish(ch, SENSE_FIELD);
		return;
	}
	put16(b, media ? 6 : 2);
	b[2] = media ? 0x04 : 0x80;
	b[3] = 0x10;
	b[5] = 0x02; /* a disc is in */
	answer(ch, media ? 8 : 4, get16(cdb + 7));
}

static void cmd_mode_sense(struct ide_channel *ch, const uint8_t *cdb)
{
	uint8_t page = cdb[2] & 0x3f, *b = answer_room(ch, 40);
	uint32_t len = 8;

	if (cdb[2] >> 6 == 3 || (page != 0x01 && page != 0x2a && page != 0x3f)) {
		packet_finish(ch, SENSE_FIELD);
		return;
	}
	if (page != 0x2a) {
		b[len] = 0x01; /* error recovery: the drive's own way */
		b[len + 1] = 6;
		b[len + 3] = 5;
		len += 8;
	}
	if (page != 0x01) {
		b[len] = 0x2a; /* capabilities: a tray that can be locked, 32 times as fast */
		b[len + 1] = 18;
		b[len + 6] = 0x29;
		put16(b + len + 8, 5632);
		put16(b + len + 12, 128);
		put16(b + len + 14, 5632);
		len += 20;
	}
	put16(b, len - 2);
	answer(ch, len, get16(cdb + 7));
}

static void cmd_disc(struct ide_channel *ch, const uint8_t *cdb)
{
	uint8_t *b = answer_room(ch, 34);

	put16(b, 32);
	b[2] = 0x0e; /* complete, its last session too */
	b[3] = b[4] = b[5] = b[6] = 1;
	b[7] = 0x20;
	memset(b + 16, 0xff, 8);
	answer(ch, 34, get16(cdb + 7));
}

static void cmd_mechanism(struct ide_channel *ch, const uint8_t *cdb)
{
	answer_room(ch, 8);
	answer(ch, 8, get16(cdb + 8));
}

/* ------------------------------------------------------------------ reading */

static void read_blocks(struct ide_channel *ch, uint32_t block, uint32_t n)
{
	struct ide_transfer *x = &ch->xfer;
	uint32_t blocks = cd_blocks(x->disk);

	if (block > blocks || n > blocks - block) {
		counter_add(&x->disk->device.counters.malformed, 1);
		packet_finish(ch, SENSE_ADDRESS);
		return;
	}
	/* as many as ATA's longest command, which no host comes near */
	if (n > 65536 / CD_SECTORS) {
		packet_finish(ch, SENSE_FIELD);
		return;
	}
	if (!n) {
		packet_finish(ch, SENSE_NONE);
		return;
	}
	x->kind = IDE_PACKET_IN;
	x->lba = (uint64_t)block * CD_SECTORS;
	x->left = n * CD_SECTORS;
	ide_chunk_begin(ch, true);
}

/* MMC-3, READ CD: user data alone, which is all there is. */
static void cmd_read_cd(struct ide_channel *ch, const uint8_t *cdb)
{
	uint32_t n = (uint32_t)cdb[6] << 16 | get16(cdb + 7);
	uint8_t type = cdb[1] >> 2 & 7;

	if ((cdb[9] & 0xf8) == 0)
		packet_finish(ch, SENSE_NONE);
	else if ((cdb[9] & 0xfe) != 0x10 || cdb[10] & 7 || type > 2 || type == 1)
		packet_finish(ch, SENSE_FIELD);
	else
		read_blocks(ch, get32(cdb + 2), n);
}

static void packet_run(struct ide_channel *ch, const uint8_t *cdb)
{
	switch (cdb[0]) {
	case 0x00: /* TEST UNIT READY */
	case 0x1b: /* START STOP UNIT: the tray is not ours to open */
	case 0x1e: /* PREVENT ALLOW MEDIUM REMOVAL */
	case 0xbb: /* SET CD SPEED */
		packet_finish(ch, SENSE_NONE);
		break;
	case 0x03:
		cmd_sense(ch, cdb);
		break;
	case 0x12:
		cmd_inquiry(ch, cdb);
		break;
	case 0x25:
		cmd_capacity(ch, cdb);
		break;
	case 0x28:
		read_blocks(ch, get32(cdb + 2), get16(cdb + 7));
		break;
	case 0x2b: /* SEEK */
		packet_finish(
			ch, get32(cdb + 2) < cd_blocks(ch->xfer.disk) ? SENSE_NONE : SENSE_ADDRESS);
		break;
	case 0x43:
		cmd_toc(ch, cdb);
		break;
	case 0x46:
		cmd_configuration(ch, cdb);
		break;
	case 0x4a:
		cmd_event(ch, cdb);
		break;
	case 0x51:
		cmd_disc(ch, cdb);
		break;
	case 0x5a:
		cmd_mode_sense(ch, cdb);
		break;
	case 0xa8:
		read_blocks(ch, get32(cdb + 2), get32(cdb + 6));
		break;
	case 0xbd:
		cmd_mechanism(ch, cdb);
		break;
	case 0xbe:
		cmd_read_cd(ch, cdb);
		break;
	default:
		packet_finish(ch, SENSE_OPCODE);
	}
}

void ide_packet_taken(struct ide_channel *ch)
{
	struct ide_transfer *x = &ch->xfer;
	uint32_t limit = x->disk->lba[1].now | (uint32_t)x->disk->lba[2].now << 8;
	uint8_t cdb[IDE_PACKET_BYTES];

	memcpy(cdb, ch->buffer, sizeof(cdb));
	/* pieces are even but for the last; no limit is the largest */
	x->block = limit >= 2 ? MIN(limit, 0xfffeu) & ~1u : 0xfffe;
	x->chunk = x->pos = x->end = 0;
	x->limit = IDE_CHUNK;
	x->left = 0;
	packet_run(ch, cdb);
}

/* ------------------------------------------------------------------ ATA's commands for it */

static void packet_start(struct ide_disk *disk)
{
	struct ide_channel *ch = disk->channel;

	ch->xfer = (struct ide_transfer){
		.disk = disk,
		.kind = IDE_PACKET,
		.addressing = IDE_LBA28,
		.limit = IDE_CHUNK,
		.block = IDE_PACKET_BYTES,
		.chunk = IDE_PACKET_BYTES,
		.started_ns = clock_now_ns(),
	};
	disk->count.now = REASON_COMMAND;
	/* the packet is asked for without an interrupt */
	ide_block_begin(ch, false);
}

/* ATA-6, IDENTIFY PACKET DEVICE. */
static void identify_fill(const struct ide_disk *disk, uint8_t to[BLK_SECTOR])
{
	uint16_t id[BLK_SECTOR / 2] = {0};

	/* a CD-ROM, removable, packets of 12 bytes, which it asks for within 50 us */
	id[0] = 0x85c0;
	ide_string_put(&id[10], 10, disk->serial);
	ide_string_put(&id[23], 4, "1.0");
	ide_string_put(&id[27], 20, "SLUICE CD-ROM");
	id[49] = 1u << 11 | 1u << 9; /* IORDY, LBA */
	id[53] = 0x0002;
	id[64] = 0x0003; /* PIO 3 and 4 */
	id[67] = 120;
	id[68] = 120;
	id[80] = 0x007e;
	id[82] = 1u << 14 | 1u << 9 | 1u << 4; /* NOP, DEVICE RESET, PACKET */
	id[83] = 1u << 14;
	id[84] = 1u << 14;
	id[85] = 1u << 14 | 1u << 9 | 1u << 4;
	id[87] = 1u << 14;
	for (unsigned i = 0; i < BLK_SECTOR / 2; i++)
		id[i] = htole16(id[i]);
	memcpy(to, id, BLK_SECTOR);
}

static void identify_start(struct ide_disk *disk)
{
	struct ide_channel *ch = disk->channel;

	ide_transfer_start(disk, IDE_IDENTIFY, IDE_LBA28, false, 0, 0, 1);
	identify_fill(disk, ch->buffer);
}

void ide_packet_command(struct ide_disk *disk, uint8_t opcode)
{
	switch (opcode) {
	case 0x08: /* DEVICE RESET: no interrupt */
		ide_signature_set(disk);
		disk->error = 0x01;
		break;
	case 0xa0:
		/* no DMA was offered */
		if (disk->features & 1)
			ide_command_end(disk, IDE_ER_ABRT, 0);
		else
			packet_start(disk);
		break;
	case 0xa1:
		identify_start(disk);
		break;
	case 0xe0: /* power management: it is always awake */
	case 0xe1:
	case 0xe2:
	case 0xe3:
	case 0xe6:
	case 0xef: /* SET FEATURES: any PIO mode will do */
		ide_command_end(disk, 0, 0);
		break;
	case 0xe5:
		disk->count.now = 0xff;
		ide_command_end(disk, 0, 0);
		break;
	case 0x20: /* READ SECTORS, IDENTIFY DEVICE: it tells what it is instead */
	case 0xec:
		ide_signature_set(disk);
		ide_command_end(disk, IDE_ER_ABRT, 0);
		break;
	default:
		ide_command_end(disk, IDE_ER_ABRT, 0);
	}
}

/* ------------------------------------------------------------------ the disc */

static void sector_read(struct blk_request *req, int res)
{
	*(int *)req->owner = res;
}

int ide_packet_disc_check(struct blk_image *image, const char *path, char why[VMM_WHY_MAX])
{
	const struct blk_channel_options opts = {.depth = 1};
	_Alignas(4096) uint8_t block[CD_BLOCK];
	struct iovec iov = {block, sizeof(block)};
	int res = -EINPROGRESS;
	struct blk_request req = {.op = BLK_READ,
		.offset = ISO_PLACE,
		.length = sizeof(block),
		.iov = &iov,
		.niov = 1,
		.done = sector_read,
		.owner = &res};
	struct blk_channel *channel;
	int rc = blk_channel_open(&channel, image, &opts, why);

	if (rc)
		return rc;
	blk_submit(channel, &req);
	blk_kick(channel);
	while (res == -EINPROGRESS) {
		poll(&(struct pollfd){blk_channel_fd(channel), POLLIN, 0}, 1, -1);
		blk_poll(channel);
	}
	blk_channel_close(channel);
	if (!res && !memcmp(block + 1, "CD001", 5))
		return 0;
	snprintf(why, VMM_WHY_MAX,
		"--disk path=%.150s: no CD image: there is no ISO 9660 volume descriptor in it; "
		"for a disk "
		"use model=ide",
		path ? path : "(fd)");
	return -EINVAL;
}
