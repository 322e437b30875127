/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PIIX3 IDE in compatibility mode (Intel 290550, 82371SB datasheet; ATA/ATAPI-6): one command at a
 * time, PIO by READ/WRITE MULTIPLE or bus-master DMA, requests queued here.
 *
 * Every register access may be an exit, so only those are made that the standards ask for: a DMA
 * command is 6 task file writes (10 with LBA48) and a start; its end is bus-master status, stop,
 * ATA status, clear.
 */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define IDE_VENDOR 0x8086u
#define IDE_DEVICE 0x7010u
#define IDE_QUEUE  256u
#define IDE_TIMING 0x40u /* one word for each channel; bit 15: decode the ports */

/* Offsets from the command block */
enum {
	IDE_DATA = 0,
	IDE_FEATURES = 1,
	IDE_COUNT = 2,
	IDE_LBA_LOW = 3,
	IDE_LBA_MID = 4,
	IDE_LBA_HIGH = 5,
	IDE_SELECT = 6,
	IDE_COMMAND = 7,
	IDE_STATUS = 7,
};

#define IDE_S_ERR  0x01u
#define IDE_S_DRQ  0x08u
#define IDE_S_DF   0x20u
#define IDE_S_DRDY 0x40u
#define IDE_S_BSY  0x80u

enum {
	IDE_C_READ_DMA_EXT = 0x25,
	IDE_C_READ_MULTIPLE_EXT = 0x29,
	IDE_C_WRITE_DMA_EXT = 0x35,
	IDE_C_WRITE_MULTIPLE_EXT = 0x39,
	IDE_C_READ_MULTIPLE = 0xc4,
	IDE_C_WRITE_MULTIPLE = 0xc5,
	IDE_C_SET_MULTIPLE = 0xc6,
	IDE_C_READ_DMA = 0xc8,
	IDE_C_WRITE_DMA = 0xca,
	IDE_C_FLUSH = 0xe7,
	IDE_C_FLUSH_EXT = 0xea,
	IDE_C_IDENTIFY = 0xec,
	IDE_C_SET_FEATURES = 0xef,
};

#define IDE_SELECT_BASE  0xa0u
#define IDE_SELECT_LBA   0x40u
#define IDE_LBA28_MAX    (1u << 28)
#define IDE_MULTIPLE_MAX 16u
#define IDE_SF_TRANSFER  0x03u
#define IDE_MWDMA2       0x22u

/* Bus master, offsets from its block of 8 for each channel */
enum { BM_COMMAND = 0, BM_STATUS = 2, BM_PRDT = 4 };
#define BM_START     0x01u
#define BM_TO_MEMORY 0x08u
#define BM_S_ERROR   0x02u
#define BM_S_IRQ     0x04u
#define BM_S_CAPABLE 0x60u
#define PRD_END      0x80000000u
#define PRD_SPAN     0x10000u
#define PRD_MAX      32u

#define IDE_INIT_TIMEOUT_US 2000000u
#define IDE_DRQ_TIMEOUT_US  5000000u

struct ide_prd {
	uint32_t addr;
	uint32_t count; /* 0: 64 KiB; bit 31: last */
};

struct ide_request {
	uint64_t token;
	uint64_t sector;
	uint8_t *buf;
	uint32_t bytes;
	enum frontend_blk_op op;
};

struct ide {
	struct frontend_blk blk;
	struct ide_prd *prds;
	uint16_t port;
	uint16_t control;
	uint16_t bm;
	uint8_t select; /* drive bits of the select register */
	uint8_t vector;
	bool pio;
	bool lba48;
	unsigned multiple;
	uint32_t irq_seen;
	/* requests head .. tail; the first is in the device when busy */
	unsigned head, tail;
	bool busy;
	uint8_t *at; /* PIO: where the next block goes */
	uint32_t left;
	unsigned ndone;
	struct ide_request queue[IDE_QUEUE];
	struct frontend_blk_done done[IDE_QUEUE];
};

static struct ide *ide_of(struct frontend_blk *b)
{
	return (struct ide *)((uint8_t *)b - offsetof(struct ide, blk));
}

/* Alternate status: does not quiet the interrupt. */
static int wait_status(const struct ide *d, uint8_t want, uint64_t timeout_us)
{
	uint64_t end = clock_now() + clock_from_ns(timeout_us * 1000);
	uint8_t s;

	do {
		s = io_in8(d->control);
		if (!(s & IDE_S_BSY) && (s & want) == want)
			return 0;
		if (!(s & IDE_S_BSY) && s & (IDE_S_ERR | IDE_S_DF))
			return -GUEST_EIO;
	} while (clock_now() < end);
	return -GUEST_ETIMEDOUT;
}

/* A command without data or, with DRQ wanted, up to its data, by polling. */
static int command_poll(
	const struct ide *d, uint8_t command, uint8_t features, uint8_t count, uint8_t want)
{
	io_out8(d->port + IDE_SELECT, IDE_SELECT_BASE | IDE_SELECT_LBA | d->select);
	if (wait_status(d, 0, IDE_INIT_TIMEOUT_US) == -GUEST_ETIMEDOUT)
		return -GUEST_ENODEV;
	io_out8(d->port + IDE_FEATURES, features);
	io_out8(d->port + IDE_COUNT, count);
	io_out8(d->port + IDE_COMMAND, command);
	return wait_status(d, want, IDE_INIT_TIMEOUT_US);
}

static void task_file_write(const struct ide *d, uint64_t sector, uint32_t n, bool ext)
{
	uint8_t select = IDE_SELECT_BASE | IDE_SELECT_LBA | d->select;

	if (ext) {
		/* Each register takes two writes, the previous content first. */
		io_out8(d->port + IDE_COUNT, (uint8_t)(n >> 8));
		io_out8(d->port + IDE_LBA_LOW, (uint8_t)(sector >> 24));
		io_out8(d->port + IDE_LBA_MID, (uint8_t)(sector >> 32));
		io_out8(d->port + IDE_LBA_HIGH, (uint8_t)(sector >> 40));
	} else {
		select |= sector >> 24 & 0xf;
	}
	io_out8(d->port + IDE_SELECT, select);
	io_out8(d->port + IDE_COUNT, (uint8_t)n);
	io_out8(d->port + IDE_LBA_LOW, (uint8_t)sector);
	io_out8(d->port + IDE_LBA_MID, (uint8_t)(sector >> 8));
	io_out8(d->port + IDE_LBA_HIGH, (uint8_t)(sector >> 16));
}

/* One PRD describes at most 64 KiB and does not cross a 64 KiB boundary. */
static void prds_fill(struct ide *d, const struct ide_request *q)
{
	uint32_t addr = (uint32_t)mem_phys(q->buf), left = q->bytes;
	unsigned n = 0;

	for (; left; n++) {
		uint32_t part = PRD_SPAN - (addr & (PRD_SPAN - 1));

		if (part > left)
			part = left;
		d->prds[n] = (struct ide_prd){addr, part & (PRD_SPAN - 1)};
		addr += part;
		left -= part;
	}
	d->prds[n - 1].count |= PRD_END;
}

static uint8_t transfer_command(const struct ide *d, bool write, bool ext)
{
	if (d->pio)
		return ext ? (write ? IDE_C_WRITE_MULTIPLE_EXT : IDE_C_READ_MULTIPLE_EXT)
			   : (write ? IDE_C_WRITE_MULTIPLE : IDE_C_READ_MULTIPLE);
	return ext ? (write ? IDE_C_WRITE_DMA_EXT : IDE_C_READ_DMA_EXT)
		   : (write ? IDE_C_WRITE_DMA : IDE_C_READ_DMA);
}

static void complete(struct ide *d, int status)
{
	d->done[d->ndone++] =
		(struct frontend_blk_done){d->queue[d->head % IDE_QUEUE].token, status};
	d->head++;
	d->busy = false;
}

static uint32_t pio_block(const struct ide *d)
{
	uint32_t block = d->multiple * 512;

	return d->left < block ? d->left : block;
}

static void pio_out(struct ide *d)
{
	uint32_t n = pio_block(d);

	io_out32_rep(d->port + IDE_DATA, d->at, n / 4);
	d->at += n;
	d->left -= n;
}

static void start(struct ide *d)
{
	const struct ide_request *q = &d->queue[d->head % IDE_QUEUE];
	const bool write = q->op == FRONTEND_BLK_WRITE;
	const uint32_t n = q->bytes / 512;
	bool ext;

	d->busy = true;
	d->blk.doorbells++;
	if (q->op == FRONTEND_BLK_FLUSH) {
		io_out8(d->port + IDE_SELECT, IDE_SELECT_BASE | IDE_SELECT_LBA | d->select);
		io_out8(d->port + IDE_COMMAND, d->lba48 ? IDE_C_FLUSH_EXT : IDE_C_FLUSH);
		return;
	}
	ext = n > 256 || q->sector + n > IDE_LBA28_MAX;
	d->at = q->buf;
	d->left = q->bytes;
	task_file_write(d, q->sector, n, ext);
	if (!d->pio)
		prds_fill(d, q);
	io_out8(d->port + IDE_COMMAND, transfer_command(d, write, ext));
	if (!d->pio) {
		/* The table's address is in its register since the start, the status clear since
		 * the last end. */
		io_out8(d->bm + BM_COMMAND, BM_START | (write ? 0 : BM_TO_MEMORY));
		return;
	}
	/* The first block of a PIO write is asked for without an interrupt. */
	if (!write)
		return;
	if (wait_status(d, IDE_S_DRQ, IDE_DRQ_TIMEOUT_US))
		complete(d, -GUEST_EIO);
	else
		pio_out(d);
}

/* False: the interrupt was not this channel's. */
static bool dma_end(struct ide *d)
{
	uint8_t bm = io_in8(d->bm + BM_STATUS);
	uint8_t s;

	if (!(bm & BM_S_IRQ))
		return false;
	io_out8(d->bm + BM_COMMAND, 0);
	s = io_in8(d->port + IDE_STATUS);
	io_out8(d->bm + BM_STATUS, (bm & BM_S_CAPABLE) | BM_S_IRQ | BM_S_ERROR);
	complete(d, (bm & BM_S_ERROR) || (s & (IDE_S_ERR | IDE_S_DF)) ? -GUEST_EIO : 0);
	return true;
}

static void pio_step(struct ide *d)
{
	const struct ide_request *q = &d->queue[d->head % IDE_QUEUE];
	uint8_t s = io_in8(d->port + IDE_STATUS);

	if (s & IDE_S_BSY)
		return;
	if (s & (IDE_S_ERR | IDE_S_DF)) {
		complete(d, -GUEST_EIO);
		return;
	}
	if (q->op == FRONTEND_BLK_WRITE && d->left) {
		if (s & IDE_S_DRQ)
			pio_out(d);
		return;
	}
	if (q->op == FRONTEND_BLK_READ && d->left) {
		uint32_t n = pio_block(d);

		if (!(s & IDE_S_DRQ))
			return;
		io_in32_rep(d->port + IDE_DATA, d->at, n / 4);
		d->at += n;
		d->left -= n;
	}
	if (!d->left || q->op == FRONTEND_BLK_FLUSH)
		if (q->op != FRONTEND_BLK_WRITE || !(s & IDE_S_DRQ))
			complete(d, 0);
}

static int ide_submit(struct frontend_blk *b, unsigned queue, enum frontend_blk_op op,
	uint64_t sector, void *buf, uint32_t bytes, uint64_t token)
{
	struct ide *d = ide_of(b);

	if (op != FRONTEND_BLK_READ && op != FRONTEND_BLK_WRITE && op != FRONTEND_BLK_FLUSH)
		return -GUEST_ENOTSUP;
	if (queue || sector + bytes / 512 > b->sectors || bytes > (PRD_MAX - 1) * PRD_SPAN ||
		(op != FRONTEND_BLK_FLUSH && (!bytes || bytes % 512)))
		return -GUEST_EINVAL;
	if (!d->lba48 && bytes > 256 * 512)
		return -GUEST_ENOTSUP;
	if (d->tail - d->head + d->ndone >= IDE_QUEUE)
		return -GUEST_ENOSPC;
	d->queue[d->tail++ % IDE_QUEUE] = (struct ide_request){token, sector, buf, bytes, op};
	return 0;
}

static void ide_kick(struct frontend_blk *b)
{
	struct ide *d = ide_of(b);

	if (!d->busy && d->head != d->tail)
		start(d);
}

/* Looks at the device only when it has interrupted: waiting costs no exits. */
static int ide_poll(struct frontend_blk *b, struct frontend_blk_done *done, unsigned max)
{
	struct ide *d = ide_of(b);
	uint32_t irqs = cpu_irq_count(d->vector);
	unsigned n;

	if (irqs != d->irq_seen) {
		d->irq_seen = irqs;
		if (d->busy && (d->pio || d->queue[d->head % IDE_QUEUE].op == FRONTEND_BLK_FLUSH))
			pio_step(d);
		else if (d->busy)
			dma_end(d);
		else
			io_in8(d->port + IDE_STATUS);
		/* Only now may the next one come. */
		cpu_irq_eoi();
		ide_kick(b);
	}
	n = d->ndone < max ? d->ndone : max;
	for (unsigned i = 0; i < n; i++)
		done[i] = d->done[i];
	for (unsigned i = n; i < d->ndone; i++)
		d->done[i - n] = d->done[i];
	d->ndone -= n;
	return (int)n;
}

static bool ide_wait_begin(struct frontend_blk *b)
{
	struct ide *d = ide_of(b);

	return d->ndone || cpu_irq_count(d->vector) != d->irq_seen;
}

static void ide_wait_end(struct frontend_blk *b)
{
	(void)b;
}

static uint32_t ide_irqs(struct frontend_blk *b)
{
	return cpu_irq_count(ide_of(b)->vector);
}

static const struct frontend_blk_ops ide_ops = {
	.submit = ide_submit,
	.kick = ide_kick,
	.poll = ide_poll,
	.wait_begin = ide_wait_begin,
	.wait_end = ide_wait_end,
	.irqs = ide_irqs,
};

static int identify(struct ide *d)
{
	uint16_t w[256];
	uint8_t s;
	int r;

	/* A floating bus reads all ones; a missing drive 0. */
	io_out8(d->port + IDE_SELECT, IDE_SELECT_BASE | d->select);
	s = io_in8(d->port + IDE_STATUS);
	if (s == 0xff || s == 0)
		return -GUEST_ENODEV;
	r = command_poll(d, IDE_C_IDENTIFY, 0, 0, IDE_S_DRQ);
	if (r)
		return -GUEST_ENODEV; /* an ATAPI drive refuses */
	io_in8(d->port + IDE_STATUS);
	io_in16_rep(d->port + IDE_DATA, w, 256);
	d->lba48 = w[83] & 0x0400;
	d->blk.sectors = w[60] | (uint32_t)w[61] << 16;
	if (d->lba48)
		d->blk.sectors = w[100] | (uint64_t)w[101] << 16 | (uint64_t)w[102] << 32 |
				 (uint64_t)w[103] << 48;
	d->multiple = w[47] & 0xff;
	if (!d->multiple)
		return -GUEST_ENOTSUP;
	if (d->multiple > IDE_MULTIPLE_MAX)
		d->multiple = IDE_MULTIPLE_MAX;
	return 0;
}

static int controller_find(struct ide *d, unsigned channel)
{
	struct pci_dev pci;
	struct pci_bar bar;
	int r;

	r = pci_find(IDE_VENDOR, IDE_DEVICE, 0, &pci);
	if (r)
		return r;
	pci_command_set(&pci, PCI_COMMAND_IO | PCI_COMMAND_MASTER, 0);
	if (!(pci_read(&pci, IDE_TIMING + 2 * channel, 2) & 0x8000))
		pci_write(&pci, IDE_TIMING + 2 * channel, 2, 0x8000);
	pci_bar_get(&pci, 4, false, &bar);
	if (!bar.addr && !d->pio) {
		print("ide: the bus master has no address\n");
		return -GUEST_ENODEV;
	}
	d->bm = (uint16_t)(bar.addr + 8 * channel);
	d->port = channel ? 0x170 : 0x1f0;
	d->control = channel ? 0x376 : 0x3f6;
	return 0;
}

int ide_open(unsigned index, enum frontend_ide_transfer transfer, struct frontend_blk **out)
{
	const unsigned channel = index / 2;
	struct ide *d;
	int r;

	if (index > 3)
		return -GUEST_ENODEV;
	d = mem_alloc(sizeof(*d), 64);
	if (!d)
		return -GUEST_ENOMEM;
	d->pio = transfer == FRONTEND_IDE_PIO;
	d->select = index % 2 ? 0x10 : 0;
	r = controller_find(d, channel);
	if (r)
		return r;
	r = identify(d);
	if (r)
		return r;
	r = command_poll(d, IDE_C_SET_MULTIPLE, 0, (uint8_t)d->multiple, 0);
	if (r)
		return r;
	/* Refused by drives that know no such mode; they then choose for themselves. */
	if (!d->pio)
		command_poll(d, IDE_C_SET_FEATURES, IDE_SF_TRANSFER, IDE_MWDMA2, 0);
	io_in8(d->port + IDE_STATUS);
	/* Within 64 KiB, aligned to its size. */
	d->prds = mem_alloc(PRD_MAX * sizeof(*d->prds), PRD_MAX * sizeof(*d->prds));
	d->vector = cpu_line_vector(channel ? 15 : 14, false);
	if (!d->prds || !d->vector)
		return -GUEST_ENOMEM;
	if (!d->pio) {
		io_out8(d->bm + BM_COMMAND, 0);
		io_out8(d->bm + BM_STATUS, BM_S_IRQ | BM_S_ERROR);
		io_out32(d->bm + BM_PRDT, (uint32_t)mem_phys(d->prds));
	}
	io_out8(d->control, 0);
	d->irq_seen = cpu_irq_count(d->vector);
	d->blk.ops = &ide_ops;
	d->blk.model = "ide";
	d->blk.queues = 1;
	d->blk.has_flush = true;
	*out = &d->blk;
	return 0;
}
