/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A qcow2 image of any content: the input is the file. Opened, read, written, zeroed, discarded,
 * flushed, and opened once more: errors are fine, crashes and growth are not.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blk/blk.h"

#define INPUT_MAX (256u << 10)
#define PIECE     (16u << 10)
#define PIECES    24u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_one {
	struct blk_request req;
	struct iovec iov;
	uint8_t memory[PIECE];
};

static void fuzz_done(struct blk_request *req, int res)
{
	if (res > 0)
		abort();
	*(unsigned *)req->owner -= 1;
}

static void fuzz_wait(struct blk_channel *ch, const unsigned *left)
{
	while (*left) {
		blk_kick(ch);
		if (!blk_poll(ch) && *left) {
			struct pollfd pfd = {.fd = blk_channel_fd(ch), .events = POLLIN};

			poll(&pfd, 1, 1000);
		}
	}
}

/* Some requests of one kind, spread over the image, together. */
static void fuzz_requests(struct blk_channel *ch, enum blk_op op, uint64_t size, unsigned skew)
{
	struct fuzz_one *all = calloc(PIECES, sizeof(*all));
	uint64_t step = size / PIECES / BLK_SECTOR * BLK_SECTOR;
	unsigned left = 0;

	if (!all)
		abort();
	for (unsigned i = 0; i < PIECES; i++) {
		struct fuzz_one *one = &all[i];
		uint64_t offset = i * (step && step < PIECE / 2 ? step : PIECE / 2);

		/* Half of them at the front, where the tables of a small file lead. */
		if (i & 1)
			offset = i * step;
		offset = (offset + skew * BLK_SECTOR) % size / BLK_SECTOR * BLK_SECTOR;
		one->iov = (struct iovec){one->memory, PIECE};
		if (one->iov.iov_len > size - offset)
			one->iov.iov_len = size - offset;
		one->req = (struct blk_request){.op = op,
			.unmap = i & 2,
			.offset = offset,
			.length = one->iov.iov_len,
			.iov = &one->iov,
			.niov = 1,
			.done = fuzz_done,
			.owner = &left};
		memset(one->memory, (int)i + 1, PIECE);
		left++;
		blk_submit(ch, &one->req);
	}
	fuzz_wait(ch, &left);
	free(all);
}

static void fuzz_flush(struct blk_channel *ch)
{
	unsigned left = 1;
	struct blk_request req = {.op = BLK_FLUSH, .done = fuzz_done, .owner = &left};

	blk_submit(ch, &req);
	fuzz_wait(ch, &left);
}

static void fuzz_use(struct blk_image *image, bool write)
{
	struct blk_channel *ch;
	struct blk_info info;
	char why[BLK_WHY_MAX];

	blk_info_get(image, &info);
	if (blk_channel_open(&ch, image, NULL, why))
		abort();
	fuzz_requests(ch, BLK_READ, info.size, 0);
	if (write) {
		fuzz_requests(ch, BLK_WRITE, info.size, 1);
		fuzz_requests(ch, BLK_WRITE_ZEROES, info.size, 5);
		fuzz_flush(ch);
		fuzz_requests(ch, BLK_DISCARD, info.size, 3);
		fuzz_flush(ch);
		fuzz_requests(ch, BLK_WRITE, info.size, 7);
		fuzz_requests(ch, BLK_READ, info.size, 0);
	}
	blk_channel_close(ch);
	if (write)
		(void)blk_sync(image);
}

static void fuzz_open(int fd, bool write)
{
	struct blk_options o = {
		.engine = BLK_ENGINE_THREADS, .format = BLK_FORMAT_QCOW2, .readonly = !write};
	char why[BLK_WHY_MAX];
	struct blk_image *image;

	memset(why, 'x', sizeof(why));
	o.fd = dup(fd);
	if (o.fd < 0)
		abort();
	if (blk_open(&image, &o, why)) {
		size_t length = strnlen(why, sizeof(why));

		if (length == sizeof(why) || !length || memchr(why, '\n', length))
			abort();
		close(o.fd);
		return;
	}
	fuzz_use(image, write);
	blk_close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd;

	if (!size || size > INPUT_MAX)
		return 0;
	fd = memfd_create("image", MFD_CLOEXEC);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	fuzz_open(fd, false);
	fuzz_open(fd, true);
	fuzz_open(fd, false);
	close(fd);
	return 0;
}
