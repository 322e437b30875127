/* SPDX-License-Identifier: BSD-2-Clause */
/* The steps of one request: checks, pieces, aligned copies, fallbacks, continuation. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blk/blk_priv.h"

#define REQUEST_RETRIES_MAX 1000u

/* Never written: all of it is the kernel's one page of zeroes. */
#define REQUEST_ZEROES_SIZE (128u << 10)
static char request_zeroes[REQUEST_ZEROES_SIZE] __attribute__((aligned(4096)));

static bool request_iov_covers(const struct blk_request *req)
{
	uint64_t left = req->length;

	for (uint32_t i = 0; i < req->niov; i++) {
		if (req->iov[i].iov_len > left)
			return false;
		left -= req->iov[i].iov_len;
	}
	return left == 0;
}

static void request_zero_stage(struct blk_request *req, unsigned can)
{
	if (req->unmap && can & BLK_CAN_PUNCH)
		req->stage = BLK_STAGE_PUNCH;
	else if (can & BLK_CAN_ZERO_RANGE)
		req->stage = BLK_STAGE_ZERO;
	else
		req->stage = BLK_STAGE_ZEROES;
}

/* 0: to be started. 1: done already. */
int blk_request_check(struct blk_channel *ch, struct blk_request *req)
{
	const struct blk_info *info = &ch->image->info;
	unsigned can = atomic_load_explicit(&ch->image->can, memory_order_relaxed);

	req->checked = true;
	if (req->op == BLK_FLUSH) {
		req->stage = BLK_STAGE_SYNC;
		return info->readonly;
	}
	if (req->op < BLK_READ || req->op > BLK_WRITE_ZEROES)
		return -EINVAL;
	if ((req->offset | req->length) % BLK_SECTOR || req->offset > info->size ||
		req->length > info->size - req->offset)
		return -EINVAL;
	if (req->op != BLK_READ && info->readonly)
		return -EROFS;
	if ((req->op == BLK_READ || req->op == BLK_WRITE) && !request_iov_covers(req))
		return -EINVAL;
	if (!req->length)
		return 1;
	req->stage = BLK_STAGE_DATA;
	if (req->op == BLK_WRITE_ZEROES)
		request_zero_stage(req, can);
	if (req->op == BLK_DISCARD) {
		req->stage = ch->image->block_device ? BLK_STAGE_DISCARD : BLK_STAGE_PUNCH;
		return !ch->image->qcow2 &&
		       !(can & (ch->image->block_device ? BLK_CAN_DISCARD : BLK_CAN_PUNCH));
	}
	return 0;
}

static bool request_is_direct(const struct blk_request *req)
{
	const struct blk_image *image = req->channel->image;

	return image->info.direct && !((req->at | req->length) & (image->info.block_size - 1));
}

/* The rest of the vector after `moved` bytes; the middle of a segment goes alone. */
static void request_piece_vector(const struct blk_request *req, struct blk_piece *piece)
{
	uint64_t skip = req->moved;
	uint32_t i = 0;

	while (i < req->niov && req->iov[i].iov_len <= skip)
		skip -= req->iov[i++].iov_len;
	piece->iov = &req->iov[i];
	piece->niov = req->niov - i < BLK_IOV_MAX ? req->niov - i : BLK_IOV_MAX;
	if (skip || piece->niov == 1) {
		piece->one.iov_base = (char *)req->iov[i].iov_base + skip;
		piece->one.iov_len = req->iov[i].iov_len - skip;
		if (piece->one.iov_len > BLK_PIECE_MAX)
			piece->one.iov_len = BLK_PIECE_MAX;
		piece->niov = 1;
	}
}

void blk_request_piece(const struct blk_request *req, struct blk_piece *piece)
{
	const struct blk_image *image = req->channel->image;
	uint64_t left = req->length - req->moved;

	piece->write = req->op != BLK_READ;
	piece->offset = req->at + req->moved;
	piece->buffered = image->info.direct && !request_is_direct(req);
	piece->fd = piece->buffered ? image->fd_buffered : image->fd;
	piece->niov = 1;
	if (req->stage == BLK_STAGE_ZEROES) {
		piece->one.iov_base = request_zeroes;
		piece->one.iov_len = left < REQUEST_ZEROES_SIZE ? left : REQUEST_ZEROES_SIZE;
	} else if (req->bounce) {
		piece->one.iov_base = req->bounce;
		piece->one.iov_len = left < BLK_BOUNCE_SIZE ? left : BLK_BOUNCE_SIZE;
	} else {
		request_piece_vector(req, piece);
	}
	if (piece->niov == 1)
		piece->iov = &piece->one;
}

int blk_request_falloc_mode(const struct blk_request *req)
{
	if (req->stage == BLK_STAGE_PUNCH)
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

static ssize_t request_run_once(const struct blk_request *req)
{
	const struct blk_image *image = req->channel->image;
	uint64_t range[2] = {req->offset, req->length};
	struct blk_piece piece;

	switch (req->stage) {
	case BLK_STAGE_DATA:
	case BLK_STAGE_ZEROES:
		blk_request_piece(req, &piece);
		if (piece.write)
			return pwritev(piece.fd, piece.iov, (int)piece.niov, (off_t)piece.offset);
		return preadv(piece.fd, piece.iov, (int)piece.niov, (off_t)piece.offset);
	case BLK_STAGE_PUNCH:
	case BLK_STAGE_ZERO:
		return fallocate(image->fd, blk_request_falloc_mode(req), (off_t)req->offset,
			(off_t)req->length);
	case BLK_STAGE_DISCARD:
		return ioctl(image->fd, BLKDISCARD, range);
	default:
		return fdatasync(image->fd);
	}
}

ssize_t blk_request_run(const struct blk_request *req, uint64_t *system_calls)
{
	ssize_t res;

	if (req->stage == BLK_STAGE_FORMAT)
		return blk_qcow2_run(req->channel->image, req, system_calls);
	do {
		res = request_run_once(req);
		++*system_calls;
	} while (res < 0 && errno == EINTR);
	return res < 0 ? -errno : res;
}

/* Copies between the aligned copy, of the piece at `moved`, and the caller's vector. */
static void request_copy(struct blk_request *req, size_t length, bool to_caller)
{
	char *copy = req->bounce;
	uint64_t skip = req->moved;

	for (uint32_t i = 0; i < req->niov && length; i++) {
		size_t n = req->iov[i].iov_len;
		char *base = req->iov[i].iov_base;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		base += skip;
		n -= skip;
		skip = 0;
		if (n > length)
			n = length;
		if (to_caller)
			memcpy(base, copy, n);
		else
			memcpy(copy, base, n);
		copy += n;
		length -= n;
	}
}

/* May turn an image that is raw by its content into one that is not. */
static bool request_is_guarded(const struct blk_request *req)
{
	return req->channel->image->guard_first && req->op == BLK_WRITE && !req->offset &&
	       !req->moved && req->stage == BLK_STAGE_DATA && !req->channel->ops->any_buffer;
}

static bool request_needs_bounce(const struct blk_request *req)
{
	const struct blk_image *image = req->channel->image;
	uintptr_t base_mask = image->mem_align - 1, length_mask = image->info.block_size - 1;

	if (request_is_guarded(req))
		return true;
	if (req->stage != BLK_STAGE_DATA || !request_is_direct(req) ||
		req->channel->ops->any_buffer)
		return false;
	for (uint32_t i = 0; i < req->niov; i++)
		if ((uintptr_t)req->iov[i].iov_base & base_mask ||
			req->iov[i].iov_len & length_mask)
			return true;
	return false;
}

static void *bounce_get(struct blk_bounce *bounce)
{
	void *copy;

	if (bounce->nfree)
		return bounce->free[--bounce->nfree];
	if (bounce->nmade == BLK_BOUNCE_COUNT)
		return NULL;
	copy = mmap(
		NULL, BLK_BOUNCE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED)
		return NULL;
	bounce->nmade++;
	return copy;
}

void blk_bounce_free(struct blk_channel *ch)
{
	while (ch->bounce.nfree)
		munmap(ch->bounce.free[--ch->bounce.nfree], BLK_BOUNCE_SIZE);
}

bool blk_request_bounce(struct blk_channel *ch, struct blk_request *req)
{
	uint64_t left = req->length - req->moved;

	if (!req->bounce) {
		if (!request_needs_bounce(req))
			return true;
		req->bounce = bounce_get(&ch->bounce);
		if (!req->bounce)
			return false;
		blk_count(&ch->bounced, 1);
	}
	if (req->op == BLK_WRITE)
		request_copy(req, left < BLK_BOUNCE_SIZE ? left : BLK_BOUNCE_SIZE, false);
	/* Of the copy, which is what will be written: the guest may change its memory meanwhile. */
	if (request_is_guarded(req) && blk_format_is_magic(req->bounce)) {
		req->result = -EPERM;
		return false;
	}
	return true;
}

void blk_request_finish(struct blk_channel *ch, struct blk_request *req, int res)
{
	if (req->bounce) {
		ch->bounce.free[ch->bounce.nfree++] = req->bounce;
		req->bounce = NULL;
	}
	if (req->mapped)
		blk_qcow2_end(ch->image, req);
	req->result = res;
	blk_queue_push(&ch->finished, req);
}

/* Another way to do the range, when the host does not know this one; false: there is none. */
static bool request_fall_back(struct blk_channel *ch, struct blk_request *req, int error)
{
	static const unsigned ways[] = {
		[BLK_STAGE_PUNCH] = BLK_CAN_PUNCH,
		[BLK_STAGE_ZERO] = BLK_CAN_ZERO_RANGE,
		[BLK_STAGE_DISCARD] = BLK_CAN_DISCARD,
	};
	unsigned can, way;

	if (req->stage != BLK_STAGE_PUNCH && req->stage != BLK_STAGE_ZERO &&
		req->stage != BLK_STAGE_DISCARD)
		return false;
	if (error != -EOPNOTSUPP && error != -ENOSYS && error != -ENOTTY && error != -EINVAL &&
		error != -EPERM)
		return false;
	way = ways[req->stage];
	/* -EINVAL may mean only this range: finer than the device's unit. */
	if (error != -EINVAL)
		atomic_fetch_and_explicit(&ch->image->can, ~way, memory_order_relaxed);
	can = atomic_load_explicit(&ch->image->can, memory_order_relaxed);
	if (req->op == BLK_WRITE_ZEROES && req->stage == BLK_STAGE_PUNCH &&
		can & BLK_CAN_ZERO_RANGE)
		req->stage = BLK_STAGE_ZERO;
	else
		req->stage = BLK_STAGE_ZEROES;
	return true;
}

static void request_go_on(struct blk_channel *ch, struct blk_request *req)
{
	blk_queue_push_front(&ch->queue, req);
	ch->starved = true;
}

static void request_failed(struct blk_channel *ch, struct blk_request *req, int error)
{
	if ((error == -EINTR || error == -EAGAIN) && ++req->retries < REQUEST_RETRIES_MAX) {
		request_go_on(ch, req);
	} else if (request_fall_back(ch, req, error)) {
		/* A discard is advice: without a way to do it, it is done. */
		if (req->op == BLK_DISCARD)
			blk_request_finish(ch, req, 0);
		else
			request_go_on(ch, req);
	} else {
		blk_request_finish(ch, req, error == -EAGAIN ? -EIO : error);
	}
}

void blk_request_advance(struct blk_channel *ch, struct blk_request *req, int64_t res)
{
	uint64_t left = req->length - req->moved;

	ch->started--;
	if (res < 0) {
		request_failed(ch, req, (int)res);
		return;
	}
	if (req->stage != BLK_STAGE_DATA && req->stage != BLK_STAGE_ZEROES) {
		blk_request_finish(ch, req, 0);
		return;
	}
	/* The rest of a direct transfer must begin at a whole unit again. */
	if (request_is_direct(req))
		res &= ~(int64_t)(ch->image->info.block_size - 1);
	if (res == 0 || (uint64_t)res > left) {
		blk_request_finish(ch, req, -EIO);
		return;
	}
	if (req->bounce && req->op == BLK_READ)
		request_copy(req, (size_t)res, true);
	req->moved += (uint64_t)res;
	if ((uint64_t)res == left)
		blk_request_finish(ch, req, 0);
	else
		request_go_on(ch, req);
}
