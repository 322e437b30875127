/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PIIX3 IDE within vmm/: the controller (82371SB, function 1), its two channels and up to four
 * disks. "ATA-6" is ATA/ATAPI-6 (T13/1410D), "82371SB" Intel's datasheet of the PIIX3; places in
 * them are named by their headings, for drafts number them differently.
 *
 * Everything is under one lock, the controller's: registers are decoded on vCPU threads, what moves
 * data to and from storage runs on the I/O thread of the disk, which takes the lock to complete.
 */
#ifndef IDE_PRIV_H
#define IDE_PRIV_H

#include "vmm/vmm_priv.h"

#define IDE_CHANNELS 2u
#define IDE_UNITS    2u
#define IDE_DISKS    (IDE_CHANNELS * IDE_UNITS)

#define IDE_CONTROLLER_NAME "ide"

/* ATA-6, Status register and Error register. */
enum {
	IDE_ST_ERR = 0x01,
	IDE_ST_DRQ = 0x08,
	IDE_ST_DSC = 0x10, /* seek complete: obsolete since ATA-4, and still looked at */
	IDE_ST_DF = 0x20,
	IDE_ST_DRDY = 0x40,
	IDE_ST_BSY = 0x80,
	IDE_ST_READY = IDE_ST_DRDY | IDE_ST_DSC,

	IDE_ER_ABRT = 0x04,
	IDE_ER_IDNF = 0x10,
	IDE_ER_UNC = 0x40,
};

/* ATA-6, Device Control register and Device register. */
enum {
	IDE_CTL_NIEN = 0x02,
	IDE_CTL_SRST = 0x04,
	IDE_CTL_HOB = 0x80,

	IDE_DEV_HEAD = 0x0f,
	IDE_DEV_DEV = 0x10,
	IDE_DEV_LBA = 0x40,
};

/* 82371SB: BMICX, bus master command, and BMISX, its status. */
enum {
	IDE_BM_CMD_START = 0x01,
	IDE_BM_CMD_READ = 0x08,
	IDE_BM_CMD_MASK = IDE_BM_CMD_START | IDE_BM_CMD_READ,

	IDE_BM_ST_ACTIVE = 0x01,
	IDE_BM_ST_ERROR = 0x02,
	IDE_BM_ST_INTERRUPT = 0x04,
	IDE_BM_ST_CLEAR = IDE_BM_ST_ERROR | IDE_BM_ST_INTERRUPT,
	IDE_BM_ST_CAPABLE = 0x60,
};

/* 82371SB, function 1: IDETIM of each channel, whose bit 15 decodes its ports, and SIDETIM. */
#define IDE_CFG_TIMING       0x40u
#define IDE_CFG_SLAVE_TIMING 0x44u
#define IDE_TIMING_DECODE    0x80u /* in the upper byte */

#define IDE_MULTIPLE_MAX 16u  /* sectors in one DRQ block */
#define IDE_CHUNK        256u /* sectors moved between the buffer and storage in one request */
#define IDE_BUFFER_BYTES (IDE_CHUNK * BLK_SECTOR)
#define IDE_DMA_STEP     2048u /* sectors of one request straight to or from guest memory */
/* Enough for one sector in the smallest pieces a descriptor table can name: so a step always moves
 * something. */
#define IDE_IOVS 256u

/* What a command does to the disk. */
enum ide_kind {
	IDE_READ,
	IDE_WRITE,
	IDE_VERIFY,
	IDE_FLUSH,
	IDE_IDENTIFY,
	IDE_PACKET,    /* a packet is taken */
	IDE_PACKET_IN, /* its data is given */
	IDE_KINDS,
};

#define IDE_PACKET_BYTES 12u

/* How the command named its address, and so how an error's is reported. */
enum ide_addressing { IDE_CHS, IDE_LBA28, IDE_LBA48, IDE_ADDRESSINGS };

/*
 * The command a channel is working on. At rest (no request in flight) it waits for the guest: to
 * take or fill the DRQ block at [pos, end) of the buffer, or, with dma, to start the bus master.
 */
struct ide_transfer {
	struct ide_disk *disk; /* NULL: no command */
	enum ide_kind kind;
	enum ide_addressing addressing;
	bool dma;
	bool inflight;  /* a request is with the I/O thread: BSY */
	bool abandoned; /* the guest reset the channel meanwhile: only wait for the request's end */
	bool flushing;  /* the request is a flush, and the command ends with it */
	bool failed;    /* read: what the buffer holds is good, the sector at lba is not */
	uint64_t lba;   /* next sector to move between the disk and the buffer or guest memory */
	uint32_t left;  /* sectors still to be moved so */
	uint32_t limit; /* sectors in one request: 1 while looking for the one that fails */
	uint32_t step;  /* sectors of the request in flight */
	uint32_t block; /* bytes in a DRQ block */
	uint32_t chunk; /* bytes of the buffer in use; read: filled, write: to be filled */
	uint32_t moved; /* of them, moved between buffer and disk */
	uint32_t pos;
	uint32_t end;
	uint64_t started_ns;
};

/* The bus master's place in the table of physical region descriptors. */
struct ide_walk {
	uint32_t next;    /* address of the next descriptor */
	uint32_t fetched; /* since the start */
	uint32_t address; /* what is left of the current one */
	uint32_t left;
	bool last; /* the current one ends the table */
};

struct ide_channel {
	struct ide_controller *controller;
	unsigned index;
	struct ide_disk *disks[IDE_UNITS];
	struct bus_region command_block; /* 1F0h or 170h, 8 ports */
	struct bus_region control_block; /* 3F6h or 376h */
	struct irq_source irq;
	bool irq_level;
	uint8_t device;  /* the device register, the same in both disks */
	uint8_t control; /* device control */

	uint8_t bm_command;
	uint8_t bm_status; /* without ACTIVE */
	bool bm_active;
	uint32_t bm_table;
	struct ide_walk walk;
	struct ide_walk walk_before; /* the request in flight, to try it again */

	struct ide_transfer xfer;
	struct legacy_request request;
	struct iovec iov[IDE_IOVS + 1];
	uint32_t niov;
	uint8_t *buffer;
};

/* A register with the value it had before the last write, for 48-bit addresses
 * (ATA-6, 48-bit Address feature set). */
struct ide_fifo {
	uint8_t now;
	uint8_t before;
};

/* Replays what KVM collected for the data port while a block waits for it (ide_drain.c). */
struct ide_drain {
	struct io_thread *io;
	struct io_work work;
	struct io_timer timer; /* the I/O thread's */
	uint64_t interval_ns;  /* the I/O thread's */
	uint32_t pos;          /* the I/O thread's: where the transfer was */
	bool armed;            /* under the lock: work is posted, or the timer set */
};

/* One disk: a device of its own for reports. */
struct ide_disk {
	struct device device;
	struct ide_channel *channel;
	unsigned unit;
	struct legacy_disk *link;
	struct ide_drain drain;
	uint64_t link_calls; /* its system calls already counted */
	struct histogram latency;
	uint64_t sectors;
	bool readonly;
	bool cd;        /* a CD-ROM drive (ide_packet.c) */
	uint32_t sense; /* a CD-ROM's, of its last packet */
	char serial[21];

	/* task file */
	uint8_t status; /* without BSY */
	uint8_t error;
	uint8_t features;
	struct ide_fifo count;
	struct ide_fifo lba[3]; /* LBA low, mid, high; or sector, cylinder low, high */
	bool intrq;

	/* settings */
	uint16_t cylinders; /* of the current translation */
	uint8_t heads;
	uint8_t track_sectors;
	uint8_t multiple;      /* 0: off */
	uint8_t transfer_mode; /* as SET FEATURES took it: 20h.. MWDMA, 40h.. UDMA; else PIO */
	uint8_t power;         /* as CHECK POWER MODE tells it */
	bool write_cache;
	bool look_ahead;
};

struct ide_controller {
	struct device device; /* its lock is everybody's */
	struct pci_device pci;
	struct ide_channel channels[IDE_CHANNELS];
	struct posted posted; /* commands, of all channels; on the first disk's I/O thread */
	unsigned users;       /* itself and its disks: freed with the last */
};

/* ------------------------------------------------------------------ all under the lock */

/* ide_regs.c */
extern const struct bus_span ide_command_block_posted[], ide_command_block_posted_often[];
extern const struct bus_span ide_bus_master_posted[], ide_bus_master_posted_often[];
uint64_t ide_command_block_read(void *opaque, uint64_t offset, unsigned size);
void ide_command_block_write(void *opaque, uint64_t offset, uint64_t value, unsigned size);
void ide_command_block_read_string(
	void *opaque, uint64_t offset, void *buf, unsigned size, unsigned count);
void ide_command_block_write_string(
	void *opaque, uint64_t offset, const void *buf, unsigned size, unsigned count);
uint64_t ide_control_block_read(void *opaque, uint64_t offset, unsigned size);
void ide_control_block_write(void *opaque, uint64_t offset, uint64_t value, unsigned size);
/* The selected disk; NULL: absent. */
struct ide_disk *ide_selected(struct ide_channel *ch);
void ide_intrq_set(struct ide_disk *disk, bool asserted);
void ide_irq_update(struct ide_channel *ch);
/* After loading: the line as the registers have it, without an edge to be counted. */
void ide_irq_restore(struct ide_channel *ch);
/* ATA-6, Signature and persistence: of a disk, with the diagnostic code. */
void ide_signature_set(struct ide_disk *disk);

/* ide_ata.c */
void ide_command_start(struct ide_channel *ch, uint8_t opcode);

/* ide_xfer.c */
void ide_transfer_start(struct ide_disk *disk, enum ide_kind kind, enum ide_addressing addressing,
	bool dma, uint64_t lba, uint32_t sectors, uint32_t block_sectors);
/* The guest has moved pos to the end of the DRQ block. */
void ide_block_end(struct ide_channel *ch);
/* Ends the command with the error, reporting lba. */
void ide_transfer_fail(struct ide_channel *ch, uint8_t error, uint8_t status);
/* SRST, or a command that ends another. */
void ide_transfer_cancel(struct ide_channel *ch);
/* Sends iov[0 .. niov) to the I/O thread. */
void ide_request_submit(struct ide_channel *ch, enum blk_op op);
void ide_address_set(struct ide_disk *disk, enum ide_addressing addressing, uint64_t lba);
/* Shows the next block of the buffer; begins with its next load. */
void ide_block_begin(struct ide_channel *ch, bool interrupt);
void ide_chunk_begin(struct ide_channel *ch, bool first);
/* The command is no longer the channel's. Its disk. */
struct ide_disk *ide_transfer_close(struct ide_channel *ch);
/* The guest, not the disk, fills the block. */
static inline bool ide_kind_takes(enum ide_kind kind)
{
	return kind == IDE_WRITE || kind == IDE_PACKET;
}
/* A command without data is over; status is what it leaves beside READY. */
void ide_command_end(struct ide_disk *disk, uint8_t error, uint8_t status);

/* ide_identify.c */
void ide_identify_fill(const struct ide_disk *disk, uint8_t to[BLK_SECTOR]);
/* The translation a disk starts with. */
void ide_geometry_default(struct ide_disk *disk);

void ide_string_put(uint16_t *words, unsigned n, const char *text);

/* ide_packet.c */
/* A command, for a CD-ROM. */
void ide_packet_command(struct ide_disk *disk, uint8_t opcode);
void ide_packet_signature(struct ide_disk *disk);
/* The packet is in the buffer; its data is all given; it cannot be read. */
void ide_packet_taken(struct ide_channel *ch);
void ide_packet_done(struct ide_channel *ch);
void ide_packet_failed(struct ide_channel *ch);
/* So many bytes are shown. */
void ide_packet_shows(struct ide_disk *disk, uint32_t bytes);
/* -EINVAL: it is none, why says so. Before the I/O thread has it. */
int ide_packet_disc_check(struct blk_image *image, const char *path, char why[VMM_WHY_MAX]);

/* ide_dma.c */
uint64_t ide_bus_master_read(void *opaque, uint64_t offset, unsigned size);
void ide_bus_master_write(void *opaque, uint64_t offset, uint64_t value, unsigned size);
/* Goes on with the command if it is a DMA one and the bus master is started. */
void ide_dma_run(struct ide_channel *ch);
/* The request in flight has moved its data; before the command goes on or ends. */
void ide_dma_step_end(struct ide_channel *ch);
/* Marks what a read wrote into guest memory. */
void ide_dma_dirty(struct ide_channel *ch);

/* ide_drain.c */
/* A DRQ block waits for the guest's words. */
void ide_drain_start(struct ide_disk *disk);
void ide_drain_init(struct ide_disk *disk, struct io_thread *io);
/* Without the lock; not on the I/O thread. Nothing starts it any more. */
void ide_drain_stop(struct ide_disk *disk);

/* ide_state.c */
extern const struct device_ops ide_controller_ops;
extern const struct device_ops ide_disk_ops;
void ide_disk_reset(struct ide_disk *disk);
void ide_controller_reset(struct ide_controller *ctl);
/* One user less; frees the controller with the last. */
void ide_controller_put(struct ide_controller *ctl);

#endif
