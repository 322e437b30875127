/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A link's thread: requests out of the inbox become commands, a piece at a time. When the
 * connection is lost it is made again, and every command that has had no answer is sent again: each
 * of them may be done twice (the same bytes to the same place), and none of them is ordered against
 * another, or it would have waited for the other's end.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "blk/nbd_priv.h"

static const char link_zeroes[NBD_PIECE_MAX];

/* ------------------------------------------------------------------ requests that end */

static void link_deliver(struct nbd_link *l, struct blk_request *req, int res)
{
	pthread_mutex_lock(&l->relay.lock);
	req->result = res;
	blk_relay_deliver(&l->relay, req);
	pthread_mutex_unlock(&l->relay.lock);
}

/* Copies between a command's data, at `moved`, and the segments. */
static void command_copy(const struct nbd_command *c, bool to_caller)
{
	const struct blk_request *req = c->req;
	uint64_t skip = req->moved;
	uint32_t left = c->length;
	char *copy = c->copy;

	for (uint32_t i = 0; i < req->niov && left; i++) {
		char *base = req->iov[i].iov_base;
		size_t n = req->iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		base += skip;
		n -= skip;
		skip = 0;
		if (n > left)
			n = left;
		memcpy(to_caller ? base : copy, to_caller ? copy : base, n);
		copy += n;
		left -= (uint32_t)n;
	}
}

/* What the protocol knows is passed on; all else is an I/O error. */
static int link_error(int error)
{
	switch (error) {
	case EPERM:
	case ENOSPC:
	case EINVAL:
	case ENOMEM:
	case EOPNOTSUPP:
		return -error;
	default:
		return -EIO;
	}
}

/* A command has its answer, and the connection still stands (or the answer came before its end). */
static void command_end(struct nbd_link *l, struct nbd_command *c)
{
	struct blk_request *req = c->req;

	if (!c->error && c->copy && req->op == BLK_READ)
		command_copy(c, true);
	free(c->copy);
	c->active = false;
	l->active--;
	if (c->error == ESHUTDOWN) {
		l->leaving = true;
		blk_queue_push_front(&l->waiting, req);
		return;
	}
	l->progress_ns = nbd_now_ns();
	l->retry_ns = NBD_RETRY_MIN_NS;
	req->moved += c->error ? 0 : c->length;
	if (c->error)
		/* discarding is advice */
		link_deliver(l, req, req->op == BLK_DISCARD ? 0 : link_error(c->error));
	else if (req->op == BLK_FLUSH || req->moved == req->length)
		link_deliver(l, req, 0);
	else
		blk_queue_push_front(&l->waiting, req);
}

static int command_done(void *ctx, int *error)
{
	struct nbd_command *c = ctx;

	/* called from within the library: only remembered */
	c->error = *error;
	c->finished = true;
	return 1;
}

/* ------------------------------------------------------------------ commands */

static struct nbd_command *command_get(struct nbd_link *l)
{
	for (unsigned i = 0; i < NBD_COMMANDS; i++)
		if (!l->commands[i].active)
			return &l->commands[i];
	return NULL;
}

/* Where the next piece lies, c->length bytes; NULL: no memory for a copy. */
static void *command_data(struct nbd_command *c, uint32_t max)
{
	const struct blk_request *req = c->req;
	uint64_t skip = req->moved, left = req->length - req->moved;
	uint32_t i = 0;

	while (req->iov[i].iov_len <= skip)
		skip -= req->iov[i++].iov_len;
	c->length = left < max ? (uint32_t)left : max;
	if (req->iov[i].iov_len - skip >= c->length)
		return (char *)req->iov[i].iov_base + skip;
	c->copy = malloc(c->length);
	if (c->copy && req->op == BLK_WRITE)
		command_copy(c, false);
	return c->copy;
}

static int64_t command_send_data(
	struct nbd_link *l, struct nbd_command *c, nbd_completion_callback cb)
{
	const struct nbd_export *e = &l->nbd->export;
	const struct nbd_library *lib = l->nbd->lib;
	struct blk_request *req = c->req;
	uint64_t at = req->offset + req->moved;
	/* a server that cannot flush may still write through */
	uint32_t flags = !e->flush && e->fua ? LIBNBD_CMD_FLAG_FUA : 0;
	void *data = command_data(c, e->piece_max);

	if (!data) {
		c->error = ENOMEM;
		return -1;
	}
	if (req->op == BLK_READ)
		return lib->aio_pread(l->handle, data, c->length, at, cb, 0);
	return lib->aio_pwrite(l->handle, data, c->length, at, cb, flags);
}

static int64_t command_send_range(
	struct nbd_link *l, struct nbd_command *c, nbd_completion_callback cb)
{
	const struct nbd_export *e = &l->nbd->export;
	const struct nbd_library *lib = l->nbd->lib;
	struct blk_request *req = c->req;
	uint64_t at = req->offset + req->moved, left = req->length - req->moved;
	uint32_t fua = !e->flush && e->fua ? LIBNBD_CMD_FLAG_FUA : 0;
	uint32_t max = e->zero || req->op == BLK_DISCARD ? NBD_RANGE_MAX : e->piece_max;

	c->length = left < max ? (uint32_t)left : max;
	if (req->op == BLK_DISCARD)
		return lib->aio_trim(l->handle, c->length, at, cb, fua);
	if (e->zero)
		return lib->aio_zero(l->handle, c->length, at, cb,
			fua | (req->unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
	return lib->aio_pwrite(l->handle, link_zeroes, c->length, at, cb, fua);
}

static bool link_is_dead(const struct nbd_link *l)
{
	const struct nbd_library *lib = l->nbd->lib;

	return l->connected &&
	       (l->leaving || lib->aio_is_dead(l->handle) || lib->aio_is_closed(l->handle));
}

/* True: it needs nothing of the server. */
static bool request_is_nothing(const struct nbd_link *l, const struct blk_request *req)
{
	const struct nbd_export *e = &l->nbd->export;

	return (req->op == BLK_FLUSH && !e->flush) || (req->op == BLK_DISCARD && !e->trim);
}

static void link_start(struct nbd_link *l, struct blk_request *req)
{
	struct nbd_command *c = command_get(l);
	nbd_completion_callback cb = {.callback = command_done, .user_data = c};
	int64_t cookie;

	*c = (struct nbd_command){.link = l, .req = req, .active = true};
	l->active++;
	switch (req->op) {
	case BLK_READ:
	case BLK_WRITE:
		cookie = command_send_data(l, c, cb);
		break;
	case BLK_FLUSH:
		cookie = l->nbd->lib->aio_flush(l->handle, cb, 0);
		break;
	default:
		cookie = command_send_range(l, c, cb);
		break;
	}
	if (cookie >= 0)
		return;
	/* not taken: the connection is dead (link_drive() will see it), or it is a mistake */
	if (!c->error && link_is_dead(l))
		return;
	if (!c->error)
		c->error = EIO;
	c->finished = true;
}

/* An error that came with the connection's end is no answer: the command is sent again. */
static void link_reap(struct nbd_link *l)
{
	for (unsigned i = 0; l->active && i < NBD_COMMANDS; i++) {
		struct nbd_command *c = &l->commands[i];

		if (c->active && c->finished && !(c->error && link_is_dead(l)))
			command_end(l, c);
	}
}

static void link_pump(struct nbd_link *l)
{
	struct blk_request *req;

	while (l->connected && !link_is_dead(l) && l->active < NBD_COMMANDS &&
		(req = blk_queue_pop(&l->waiting))) {
		if (!l->active)
			l->progress_ns = nbd_now_ns();
		if (request_is_nothing(l, req))
			link_deliver(l, req, 0);
		else
			link_start(l, req);
		link_reap(l);
	}
}

/* ------------------------------------------------------------------ the connection */

/* The commands that have had no answer wait again. The library lets go of their memory. */
static void link_lost(struct nbd_link *l)
{
	if (l->handle)
		l->nbd->lib->close(l->handle);
	l->handle = NULL;
	l->connected = l->leaving = false;
	for (unsigned i = 0; i < NBD_COMMANDS; i++) {
		struct nbd_command *c = &l->commands[i];

		if (!c->active)
			continue;
		if (c->finished && !c->error) {
			command_end(l, c);
			continue;
		}
		free(c->copy);
		c->active = false;
		l->active--;
		blk_queue_push_front(&l->waiting, c->req);
	}
	l->retry_at_ns = nbd_now_ns() + l->retry_ns;
	l->retry_ns = l->retry_ns * 2 < NBD_RETRY_MAX_NS ? l->retry_ns * 2 : NBD_RETRY_MAX_NS;
}

/* May a disk that was one thing go on with what is there now? */
static bool export_fits(const struct nbd_link *l, const struct nbd_export *e)
{
	const struct nbd_export *was = &l->nbd->export;

	return e->size == was->size && e->block_min <= BLK_SECTOR &&
	       e->piece_max >= was->piece_max && e->flush >= was->flush && e->fua >= was->fua &&
	       e->trim >= was->trim && e->zero >= was->zero && e->multi >= was->multi &&
	       (l->nbd->image->info.readonly || !e->readonly);
}

static void link_connect(struct nbd_link *l)
{
	const struct nbd_library *lib = l->nbd->lib;
	char text[BLK_WHY_MAX];
	struct nbd_export e;
	int rc;

	if (!l->handle) {
		if (nbd_now_ns() < l->retry_at_ns)
			return;
		l->connect_until_ns = nbd_now_ns() + NBD_CONNECT_NS;
		l->handle = nbd_connect_begin(lib, l->nbd->uri, text);
	}
	rc = l->handle ? nbd_connect_check(lib, l->handle, &e, text) : -ENOTCONN;
	if (!rc && nbd_now_ns() < l->connect_until_ns)
		return;
	if (rc == 1 && export_fits(l, &e)) {
		l->connected = true;
		blk_count(&l->nbd->reconnects, 1);
		return;
	}
	link_lost(l);
}

/* Everything fails: nobody waits for this server any longer. */
static void link_give_up(struct nbd_link *l)
{
	struct blk_request *req;

	link_lost(l);
	l->retry_at_ns = UINT64_MAX;
	while ((req = blk_queue_pop(&l->waiting)))
		link_deliver(l, req, -EIO);
}

/* When an abandoned image's requests have waited long enough. */
static uint64_t link_patience(const struct nbd_link *l)
{
	uint64_t since = atomic_load(&l->nbd->abandoned_ns);

	if (!since || !(l->active || l->waiting.head))
		return UINT64_MAX;
	return (l->progress_ns > since ? l->progress_ns : since) + NBD_GRACE_NS;
}

static void link_drive(struct nbd_link *l)
{
	bool wants = l->active || l->waiting.head;

	link_reap(l);
	if (link_is_dead(l))
		link_lost(l);
	if (!wants)
		l->progress_ns = nbd_now_ns();
	if (nbd_now_ns() >= link_patience(l))
		link_give_up(l);
	/* an idle disk is connected again too: the guest's next request finds it so */
	if (!l->connected)
		link_connect(l);
	link_pump(l);
}

/* When there is something to do though nothing comes. */
static uint64_t link_deadline(const struct nbd_link *l)
{
	uint64_t until = link_patience(l), other = UINT64_MAX;

	if (link_is_dead(l))
		return 0;
	if (!l->connected)
		other = l->handle ? l->connect_until_ns : l->retry_at_ns;
	return other < until ? other : until;
}

static void *link_run(void *arg)
{
	struct nbd_link *l = arg;
	bool stop = false;

	l->progress_ns = nbd_now_ns();
	while (!stop) {
		blk_relay_woken(&l->relay);
		pthread_mutex_lock(&l->relay.lock);
		blk_queue_splice(&l->waiting, &l->relay.inbox);
		stop = l->stop;
		pthread_mutex_unlock(&l->relay.lock);
		link_drive(l);
		if (!stop)
			nbd_connect_wait(
				l->nbd->lib, l->handle, l->relay.event_fd, link_deadline(l));
	}
	if (l->connected)
		l->nbd->lib->aio_disconnect(l->handle, 0);
	if (l->handle)
		l->nbd->lib->close(l->handle);
	return NULL;
}

int nbd_link_open(struct nbd_link **out, struct blk_nbd *nbd, struct nbd_handle *connected)
{
	struct nbd_link *l = calloc(1, sizeof(*l));
	sigset_t all, old;
	int rc;

	if (!l)
		return -ENOMEM;
	l->nbd = nbd;
	l->handle = connected;
	l->connected = connected != NULL;
	l->retry_ns = NBD_RETRY_MIN_NS;
	rc = blk_relay_open(&l->relay);
	if (!rc) {
		/* signals are for the program's own threads */
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, &old);
		rc = -pthread_create(&l->thread, NULL, link_run, l);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (rc) {
		blk_relay_close(&l->relay);
		free(l);
		return rc;
	}
	*out = l;
	return 0;
}

void nbd_link_close(struct nbd_link *l)
{
	pthread_mutex_lock(&l->relay.lock);
	l->stop = true;
	pthread_mutex_unlock(&l->relay.lock);
	blk_relay_wake(&l->relay);
	pthread_join(l->thread, NULL);
	blk_relay_close(&l->relay);
	free(l);
}
