/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every operation of a disk once, on its first 64 KiB, which are overwritten. dev=virtio-blk|ide,
 * transfer=dma|pio. Prints what the disk is, then "blk ok", or what failed.
 */
#include "frontend-drivers/frontend.h"
#include "perf/pattern.h"

#define AREA       65536u
#define TIMEOUT_NS 10000000000ull

static struct frontend_blk *blk;
static uint8_t buffer[AREA] __attribute__((aligned(4096)));
static unsigned failed;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	print("blk failed: %s\n", what);
	failed++;
}

/* One request from submission to completion, sleeping in between. */
static int request(enum frontend_blk_op op, uint64_t sector, void *buf, uint32_t bytes)
{
	struct frontend_blk_done done = {0};
	uint64_t end = clock_now() + clock_from_ns(TIMEOUT_NS);
	int r = blk->ops->submit(blk, 0, op, sector, buf, bytes, 42);

	if (r)
		return r;
	blk->ops->kick(blk);
	while (!(r = blk->ops->poll(blk, &done, 1))) {
		uint32_t seen = cpu_irq_total();

		if (clock_now() > end)
			return -GUEST_ETIMEDOUT;
		if (!blk->ops->wait_begin(blk))
			cpu_idle_guarded(seen);
		blk->ops->wait_end(blk);
	}
	check(done.token == 42, "a completion carries its token");
	return r < 0 ? r : done.status;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	while (n)
		if (p[--n])
			return false;
	return true;
}

static void write_and_read(void)
{
	pattern_block_fill(buffer, AREA, 0, 9);
	check(!request(FRONTEND_BLK_WRITE, 0, buffer, AREA), "write");
	memset(buffer, 0x5a, AREA);
	check(!request(FRONTEND_BLK_READ, 0, buffer, AREA), "read");
	check(!pattern_block_check(buffer, AREA, 0), "what was written is read");
	/* One sector in the middle, neighbours untouched. */
	pattern_sector_fill(buffer, 7, 10);
	check(!request(FRONTEND_BLK_WRITE, 7, buffer, 512), "write of one sector");
	check(!request(FRONTEND_BLK_READ, 0, buffer, AREA), "read after it");
	check(!pattern_block_check(buffer, AREA, 0), "the neighbours are as they were");
	check(pattern_sector_check(buffer + 7 * 512, 7) == 10, "the sector is new");
	check(!request(FRONTEND_BLK_READ, blk->sectors - 1, buffer, 512),
		"read of the last sector");
	check(request(FRONTEND_BLK_READ, blk->sectors, buffer, 512), "a read past the end fails");
}

static void zeroes_and_discard(void)
{
	int r = request(FRONTEND_BLK_WRITE_ZEROES, 16, NULL, 8192);

	if (!blk->has_write_zeroes) {
		check(r == -GUEST_ENOTSUP, "write zeroes is refused when not offered");
	} else {
		check(!r, "write zeroes");
		check(!request(FRONTEND_BLK_READ, 0, buffer, AREA), "read after write zeroes");
		check(is_zero(buffer + 8192, 8192), "the range is zero");
		check(!pattern_block_check(buffer, 8192, 0), "what is before it is not");
		check(!pattern_block_check(buffer + 16384, AREA - 16384, 32),
			"nor what is behind it");
	}
	r = request(FRONTEND_BLK_DISCARD, 64, NULL, 4096);
	check(r == (blk->has_discard ? 0 : -GUEST_ENOTSUP), "discard");
}

static void identify(void)
{
	char id[21] = "";

	if (request(FRONTEND_BLK_GET_ID, 0, id, 20))
		print("blk id: none\n");
	else
		print("blk id: %s\n", id);
}

void guest_main(void)
{
	const struct frontend_virtio_options o = {true, true, true, true, true};
	char dev[16] = "virtio-blk", transfer[8] = "dma";
	int r;

	clock_init();
	cmdline_word("dev", 0, dev, sizeof(dev));
	cmdline_word("transfer", 0, transfer, sizeof(transfer));
	if (!strcmp(dev, "ide"))
		r = ide_open(
			0, strcmp(transfer, "pio") ? FRONTEND_IDE_DMA : FRONTEND_IDE_PIO, &blk);
	else
		r = virtio_blk_open(0, 1, &o, &blk);
	if (r) {
		print("blk failed: %s cannot be opened (%d)\n", dev, r);
		return;
	}
	print("blk sectors=%lu readonly=%d flush=%d discard=%d zeroes=%d\n", blk->sectors,
		blk->readonly, blk->has_flush, blk->has_discard, blk->has_write_zeroes);
	identify();
	if (blk->readonly) {
		check(request(FRONTEND_BLK_WRITE, 0, buffer, 512),
			"a write to a read-only disk fails");
	} else {
		write_and_read();
		zeroes_and_discard();
		if (blk->has_flush)
			check(!request(FRONTEND_BLK_FLUSH, 0, NULL, 0), "flush");
	}
	if (!failed)
		print("blk ok\n");
}
