/* SPDX-License-Identifier: BSD-2-Clause */
/* PIIX3 IDE: making the controller and the disks on it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/ide_priv.h"

/* Compatibility mode (82371SB, function 1; PCI IDE Controller specification 2.1). */
static const struct {
	uint16_t command_block;
	uint16_t control_block;
	uint8_t gsi;
} ide_legacy[IDE_CHANNELS] = {
	{0x1f0, 0x3f6, 14},
	{0x170, 0x376, 15},
};

static int ide_channel_init(struct ide_controller *ctl, unsigned index)
{
	struct ide_channel *ch = &ctl->channels[index];

	ch->controller = ctl;
	ch->index = index;
	/* aligned for O_DIRECT, so that whole chunks need no copy */
	ch->buffer = aligned_alloc(4096, IDE_BUFFER_BYTES);
	if (!ch->buffer)
		return -ENOMEM;
	memset(ch->buffer, 0, IDE_BUFFER_BYTES);
	irq_source_init(&ch->irq, ctl->device.machine, ide_legacy[index].gsi);

	ch->command_block = (struct bus_region){
		.base = ide_legacy[index].command_block,
		.size = 8,
		.kind = BUS_PIO,
		.read = ide_command_block_read,
		.write = ide_command_block_write,
		.read_string = ide_command_block_read_string,
		.write_string = ide_command_block_write_string,
		.opaque = ch,
		.lock = &ctl->device.lock,
		.counters = &ctl->device.counters,
	};
	posted_region_add(&ctl->posted, &ch->command_block, ide_command_block_posted,
		ide_command_block_posted_often);
	ch->control_block = (struct bus_region){
		.base = ide_legacy[index].control_block,
		.size = 1,
		.kind = BUS_PIO,
		.read = ide_control_block_read,
		.write = ide_control_block_write,
		.opaque = ch,
		.lock = &ctl->device.lock,
		.counters = &ctl->device.counters,
	};
	return 0;
}

static int ide_ports_map(struct ide_controller *ctl)
{
	struct machine *m = ctl->device.machine;
	int r = 0;

	for (unsigned i = 0; i < IDE_CHANNELS && !r; i++) {
		r = bus_map(m, &ctl->channels[i].command_block);
		if (!r)
			r = bus_map(m, &ctl->channels[i].control_block);
	}
	return r;
}

static void ide_pci_init(struct ide_controller *ctl)
{
	struct pci_device *pci = &ctl->pci;
	struct pci_bar *bar;

	/* Bus master IDE in compatibility mode; interrupts are IRQ 14 and 15, not a PCI pin. */
	pci_init(pci, ctl->device.machine, &ctl->device.lock, 0x8086, 0x7010, 0x010180, 0, 0, 0, 0);
	pci->counters = &ctl->device.counters;
	bar = pci_bar_init(pci, 4, 16, true);
	bar->region.read = ide_bus_master_read;
	bar->region.write = ide_bus_master_write;
	bar->region.opaque = ctl;
	bar->region.lock = &ctl->device.lock;
	bar->region.counters = &ctl->device.counters;
	posted_region_add(
		&ctl->posted, &bar->region, ide_bus_master_posted, ide_bus_master_posted_often);
	for (unsigned i = 0; i < IDE_CHANNELS; i++) {
		pci->writable[IDE_CFG_TIMING + 2 * i] = 0xff;
		pci->writable[IDE_CFG_TIMING + 2 * i + 1] = 0xf3;
	}
	pci->writable[IDE_CFG_SLAVE_TIMING] = 0xff;
}

static int ide_controller_create(struct machine *m, struct ide_controller **out)
{
	struct ide_controller *ctl = calloc(1, sizeof(*ctl));
	int r = 0;

	if (!ctl)
		return -ENOMEM;
	ctl->users = 1;
	device_add(m, &ctl->device, &ide_controller_ops, IDE_CONTROLLER_NAME);
	/* From here on the machine's list holds it, and frees it, also when this fails. */
	for (unsigned i = 0; i < IDE_CHANNELS && !r; i++)
		r = ide_channel_init(ctl, i);
	if (r)
		return r;
	ide_pci_init(ctl);
	/* Function 1 of the chip whose function 0 is the ISA bridge, where PCs have it. */
	r = pci_add(&ctl->pci, 1, 1);
	if (!r)
		r = ide_ports_map(ctl);
	if (r)
		return r;
	ide_controller_reset(ctl);
	*out = ctl;
	return 0;
}

static int ide_controller_get(struct machine *m, struct ide_controller **out)
{
	struct device *d = machine_device_find(m, IDE_CONTROLLER_NAME);

	if (!d)
		return ide_controller_create(m, out);
	*out = (struct ide_controller *)d;
	return 0;
}

/* Disks from the first channel on, a CD-ROM where PCs have it; -1: all are taken. */
static int ide_place_find(const struct ide_controller *ctl, bool cd)
{
	for (unsigned i = 0; i < IDE_DISKS; i++) {
		unsigned place = cd ? (i + IDE_UNITS) % IDE_DISKS : i;

		if (!ctl->channels[place / IDE_UNITS].disks[place % IDE_UNITS])
			return (int)place;
	}
	return -1;
}

static void ide_disk_init(
	struct ide_disk *disk, const struct disk_args *args, unsigned place, bool cd)
{
	struct blk_info info;

	blk_info_get(args->image, &info);
	disk->unit = place % IDE_UNITS;
	disk->cd = cd;
	disk->sectors = info.size / BLK_SECTOR;
	disk->readonly = info.readonly;
	if (args->cfg->serial)
		snprintf(disk->serial, sizeof(disk->serial), "%s", args->cfg->serial);
	else
		snprintf(disk->serial, sizeof(disk->serial), "SL%08u", args->index);
}

static int ide_create_one(struct machine *m, const struct disk_args *args, bool cd,
	struct device **out, char why[VMM_WHY_MAX])
{
	struct ide_controller *ctl;
	struct ide_channel *ch;
	struct ide_disk *disk;
	int r, place = 0;

	r = ide_controller_get(m, &ctl);
	if (!r)
		place = ide_place_find(ctl, cd);
	if (place < 0) {
		snprintf(why, VMM_WHY_MAX,
			"--disk model=%s: at most %u such disks; use model=virtio-blk for more",
			cd ? "ide-cd" : "ide", IDE_DISKS);
		return -EINVAL;
	}
	if (r) {
		snprintf(why, VMM_WHY_MAX, "--disk model=ide: no controller: %s", strerror(-r));
		return r;
	}
	disk = calloc(1, sizeof(*disk));
	if (!disk) {
		snprintf(why, VMM_WHY_MAX, "--disk model=ide: no memory");
		return -ENOMEM;
	}
	ide_disk_init(disk, args, (unsigned)place, cd);
	ide_drain_init(disk, args->io);
	r = legacy_disk_open(&disk->link, args->io, args->image, why);
	if (r) {
		free(disk);
		return r;
	}
	ch = &ctl->channels[(unsigned)place / IDE_UNITS];
	disk->channel = ch;
	device_add(m, &disk->device, &ide_disk_ops, args->name);
	pthread_mutex_lock(&ctl->device.lock);
	ch->disks[disk->unit] = disk;
	ctl->users++;
	ide_disk_reset(disk);
	/* exits are counted where the report looks for them: at the channel's first disk */
	if (ch->command_block.counters == &ctl->device.counters) {
		ch->command_block.counters = &disk->device.counters;
		ch->control_block.counters = &disk->device.counters;
	}
	if (ctl->pci.bars[4].region.counters == &ctl->device.counters)
		ctl->pci.bars[4].region.counters = &disk->device.counters;
	pthread_mutex_unlock(&ctl->device.lock);
	*out = &disk->device;
	return posted_start(&ctl->posted, m, args->io);
}

int ide_create(
	struct machine *m, const struct disk_args *args, struct device **out, char why[VMM_WHY_MAX])
{
	return ide_create_one(m, args, false, out, why);
}

int ide_cd_create(
	struct machine *m, const struct disk_args *args, struct device **out, char why[VMM_WHY_MAX])
{
	int r = ide_packet_disc_check(args->image, args->cfg->path, why);

	return r ? r : ide_create_one(m, args, true, out, why);
}
