/* SPDX-License-Identifier: BSD-2-Clause */
/* An image that an NBD server has: opening it, and its channels. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk/nbd_priv.h"

#define URI_FORMS "nbd://HOST[:PORT][/EXPORT] or nbd+unix:///[EXPORT]?socket=PATH"

static int nbd_check_options(const struct blk_options *opts, char *why)
{
	if (strncmp(opts->nbd, "nbd://", 6) && strncmp(opts->nbd, "nbd+unix://", 11)) {
		blk_why(why, "%.80s: expected " URI_FORMS, opts->nbd);
		return -EINVAL;
	}
	if (opts->engine != BLK_ENGINE_AUTO || opts->direct != BLK_DIRECT_AUTO || opts->sqpoll ||
		opts->registered_memory || opts->format == BLK_FORMAT_QCOW2) {
		blk_why(why,
			"%.80s: takes no engine, direct, sqpoll, registered or format=qcow2: they "
			"are the server's to choose",
			opts->nbd);
		return -EINVAL;
	}
	return 0;
}

static int nbd_check_export(
	struct blk_image *image, const struct nbd_export *e, const char *uri, char *why)
{
	if (!e->size || e->size % BLK_SECTOR) {
		blk_why(why, "%.100s: its size %llu is not a multiple of %u", uri,
			(unsigned long long)e->size, BLK_SECTOR);
		return -EINVAL;
	}
	if (e->block_min > BLK_SECTOR || e->piece_max < BLK_SECTOR) {
		blk_why(why,
			"%.100s: the server takes no blocks of %u bytes; put nbdkit "
			"--filter=blocksize in front",
			uri, BLK_SECTOR);
		return -ENOTSUP;
	}
	if (e->readonly && !image->info.readonly) {
		blk_why(why, "%.100s: the export is read-only; use readonly=on", uri);
		return -EROFS;
	}
	image->info.size = e->size;
	image->info.format = BLK_FORMAT_RAW;
	image->info.block_size = BLK_SECTOR;
	image->info.engine = BLK_ENGINE_NBD;
	image->info.discard = e->trim;
	image->info.write_zeroes = e->zero;
	strcpy(image->info.file_system, "nbd");
	/* what a request may become is for the link to say */
	atomic_store(&image->can, BLK_CAN_PUNCH | BLK_CAN_ZERO_RANGE);
	image->mem_align = 1;
	if (!e->multi)
		blk_image_note(image, "one connection: the server offers no multi-conn");
	if (!e->flush && !e->fua && !image->info.readonly)
		blk_image_note(image, "the server cannot flush");
	return 0;
}

/* Connects while the caller waits. */
static int nbd_first_connection(struct blk_nbd *nbd, struct nbd_handle **out, char *why)
{
	uint64_t until = nbd_now_ns() + NBD_CONNECT_NS;
	char text[BLK_WHY_MAX];
	struct nbd_handle *h = nbd_connect_begin(nbd->lib, nbd->uri, text);
	int rc = h ? 0 : -nbd->lib->get_errno();

	while (h && !(rc = nbd_connect_check(nbd->lib, h, &nbd->export, text))) {
		if (nbd_now_ns() >= until) {
			blk_why(text, "the server does not answer");
			rc = -ETIMEDOUT;
			break;
		}
		nbd_connect_wait(nbd->lib, h, -1, until);
	}
	if (rc == 1) {
		*out = h;
		return 0;
	}
	if (h)
		nbd->lib->close(h);
	blk_why(why, "%.90s: %.150s", nbd->uri, text);
	return rc < 0 ? rc : -EINVAL;
}

int blk_nbd_open(struct blk_image *image, const struct blk_options *opts, char *why)
{
	struct nbd_handle *h = NULL;
	struct blk_nbd *nbd;
	int rc = nbd_check_options(opts, why);

	if (rc)
		return rc;
	nbd = calloc(1, sizeof(*nbd));
	if (!nbd)
		return -ENOMEM;
	pthread_mutex_init(&nbd->lock, NULL);
	nbd->image = image;
	nbd->uri = strdup(opts->nbd);
	rc = nbd->uri ? nbd_library_load(&nbd->lib, why) : -ENOMEM;
	if (!rc)
		rc = nbd_first_connection(nbd, &h, why);
	if (!rc)
		rc = nbd_check_export(image, &nbd->export, nbd->uri, why);
	if (!rc) {
		rc = nbd_link_open(&nbd->links[0], nbd, h);
		if (rc)
			blk_why(why, "%.100s: no thread: %s", nbd->uri, strerror(-rc));
	}
	if (rc) {
		if (h)
			nbd->lib->close(h);
		blk_nbd_close(nbd);
		return rc;
	}
	nbd->nlinks = 1;
	image->nbd = nbd;
	return 0;
}

void blk_nbd_close(struct blk_nbd *nbd)
{
	if (!nbd)
		return;
	for (unsigned i = 0; i < nbd->nlinks; i++)
		nbd_link_close(nbd->links[i]);
	pthread_mutex_destroy(&nbd->lock);
	free(nbd->uri);
	free(nbd);
}

void blk_nbd_abandon(struct blk_nbd *nbd)
{
	atomic_store(&nbd->abandoned_ns, nbd_now_ns());
	pthread_mutex_lock(&nbd->lock);
	for (unsigned i = 0; i < nbd->nlinks; i++)
		blk_relay_wake(&nbd->links[i]->relay);
	pthread_mutex_unlock(&nbd->lock);
}

static void sync_done(struct blk_request *req, int res)
{
	*(int *)req->owner = res;
}

int blk_nbd_sync(struct blk_image *image)
{
	int result = -EIO;
	struct blk_request req = {.op = BLK_FLUSH, .done = sync_done, .owner = &result};
	struct blk_channel *ch;
	int rc = blk_channel_open_below(&ch, image, NULL);

	if (rc)
		return rc;
	blk_submit(ch, &req);
	blk_channel_close(ch);
	return result;
}

/* A link for each channel, as far as that is sound; its thread connects it. */
static struct nbd_link *nbd_link_choose(struct blk_nbd *nbd)
{
	unsigned n = nbd->attached++;

	if (nbd->export.multi && n && nbd->nlinks < NBD_LINKS_MAX && n >= nbd->nlinks &&
		!nbd_link_open(&nbd->links[nbd->nlinks], nbd, NULL))
		nbd->nlinks++;
	return nbd->links[n % nbd->nlinks];
}

static int nbd_channel_open(
	struct blk_channel *ch, const struct blk_channel_options *opts, char *why)
{
	struct blk_nbd *nbd = ch->image->nbd;
	struct nbd_link *link;

	(void)opts;
	pthread_mutex_lock(&nbd->lock);
	link = nbd_link_choose(nbd);
	pthread_mutex_unlock(&nbd->lock);
	return blk_relay_attach(ch, &link->relay, why);
}

const struct blk_engine_ops blk_engine_nbd = {
	.open = nbd_channel_open,
	.close = blk_relay_detach,
	.start = blk_relay_start,
	.commit = blk_relay_commit,
	.push = blk_relay_commit,
	.reap = blk_relay_reap,
	.nudge = blk_relay_nudge,
	.fd = blk_relay_fd,
	.any_buffer = true,
};
