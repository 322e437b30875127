/* SPDX-License-Identifier: BSD-2-Clause */
/* IDE: what a disk says of itself (ATA-6, IDENTIFY DEVICE), and its geometry. */
#include <endian.h>
#include <string.h>

#include "vmm/ide_priv.h"

#define IDE_HEADS         16u
#define IDE_TRACK_SECTORS 63u
#define IDE_CYLINDERS_MAX 16383u
#define IDE_LBA28_MAX     0x0fffffffu

#define IDE_MODEL    "SLUICE IDE DISK"
#define IDE_FIRMWARE "1.0"

static uint16_t ide_cylinders_default(const struct ide_disk *disk)
{
	uint64_t cylinders = disk->sectors / (IDE_HEADS * IDE_TRACK_SECTORS);

	if (cylinders > IDE_CYLINDERS_MAX)
		return IDE_CYLINDERS_MAX;
	return cylinders ? cylinders : 1;
}

void ide_geometry_default(struct ide_disk *disk)
{
	disk->cylinders = ide_cylinders_default(disk);
	disk->heads = IDE_HEADS;
	disk->track_sectors = IDE_TRACK_SECTORS;
}

/* Two characters to a word, the first in the upper byte; padded with spaces. */
void ide_string_put(uint16_t *words, unsigned n, const char *text)
{
	size_t len = strlen(text);

	for (unsigned i = 0; i < 2 * n; i++) {
		uint16_t c = i < len ? (uint8_t)text[i] : ' ';

		words[i / 2] |= i % 2 ? c : c << 8;
	}
}

static void ide_modes_put(const struct ide_disk *disk, uint16_t *id)
{
	uint8_t mode = disk->transfer_mode;

	id[63] = 0x0007; /* multiword DMA 0-2 */
	id[64] = 0x0003; /* PIO 3 and 4 */
	id[65] = 120;    /* nanoseconds a cycle takes: DMA least, DMA recommended, PIO, PIO IORDY */
	id[66] = 120;
	id[67] = 120;
	id[68] = 120;
	id[88] = 0x003f; /* Ultra DMA 0-5 */
	if (mode >= 0x40)
		id[88] |= 0x100 << (mode - 0x40);
	else
		id[63] |= 0x100 << (mode - 0x20);
}

static void ide_sets_put(const struct ide_disk *disk, uint16_t *id)
{
	id[80] = 0x007e;                                 /* ATA-1 to ATA/ATAPI-6 */
	id[82] = 1u << 14 | 1u << 6 | 1u << 5 | 1u << 3; /* NOP, look-ahead, write cache, power */
	id[83] =
		1u << 14 | 1u << 13 | 1u << 12 | 1u << 10; /* FLUSH CACHE EXT, FLUSH CACHE, LBA48 */
	id[84] = 1u << 14;
	id[85] = 1u << 14 | disk->look_ahead << 6 | disk->write_cache << 5 | 1u << 3;
	id[86] = 1u << 13 | 1u << 12 | 1u << 10;
	id[87] = 1u << 14;
	/* hardware reset result: an 80-conductor cable; number by jumper; diagnostics passed */
	id[93] = disk->unit ? 0x6b00 : 0x600b;
}

static void ide_capacity_put(const struct ide_disk *disk, uint16_t *id)
{
	uint32_t current = (uint32_t)disk->cylinders * disk->heads * disk->track_sectors;
	uint32_t lba28 = disk->sectors < IDE_LBA28_MAX ? disk->sectors : IDE_LBA28_MAX;

	id[1] = ide_cylinders_default(disk);
	id[3] = IDE_HEADS;
	id[6] = IDE_TRACK_SECTORS;
	id[54] = disk->cylinders;
	id[55] = disk->heads;
	id[56] = disk->track_sectors;
	id[57] = current;
	id[58] = current >> 16;
	id[60] = lba28;
	id[61] = lba28 >> 16;
	for (unsigned i = 0; i < 4; i++)
		id[100 + i] = disk->sectors >> 16 * i;
}

void ide_identify_fill(const struct ide_disk *disk, uint8_t to[BLK_SECTOR])
{
	uint16_t id[BLK_SECTOR / 2] = {0};
	uint8_t sum = 0;

	id[0] = 0x0040; /* a fixed disk */
	ide_string_put(&id[10], 10, disk->serial);
	ide_string_put(&id[23], 4, IDE_FIRMWARE);
	ide_string_put(&id[27], 20, IDE_MODEL);
	id[47] = 0x8000 | IDE_MULTIPLE_MAX;
	id[48] = 0x0001; /* 32-bit data port, as ATA-1 had it: old systems look */
	id[49] = 1u << 13 | 1u << 11 | 1u << 9 | 1u << 8; /* timers, IORDY, LBA, DMA */
	id[50] = 0x4000;
	id[51] = 0x0200;
	id[53] = 0x0007; /* words 54-58, 64-70 and 88 are valid */
	id[59] = disk->multiple ? 0x0100 | disk->multiple : 0;
	ide_capacity_put(disk, id);
	ide_modes_put(disk, id);
	ide_sets_put(disk, id);

	for (unsigned i = 0; i < BLK_SECTOR / 2; i++)
		id[i] = htole16(id[i]);
	memcpy(to, id, BLK_SECTOR);
	/* integrity word: all 512 bytes sum to 0 */
	to[510] = 0xa5;
	for (unsigned i = 0; i < BLK_SECTOR - 1; i++)
		sum += to[i];
	to[511] = -sum;
}
