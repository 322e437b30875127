/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks served by the NBD protocol (the NBD project's doc/proto.md), through libnbd. An image has
 * links: a connection and a thread each, which does the requests of its channels. Where the server
 * promises that a flush covers what other connections wrote (CAN_MULTI_CONN) there is a link for
 * each channel; else one for all.
 *
 * A channel's thread never waits for the server: it only puts requests into the link's inbox.
 */
#ifndef BLK_NBD_PRIV_H
#define BLK_NBD_PRIV_H

#include <libnbd.h>

#include "blk/blk_priv.h"

#define NBD_LINKS_MAX    16u
#define NBD_COMMANDS     64u          /* on their way at once, each link */
#define NBD_PIECE_MAX    (1u << 20)   /* bytes of data in one command */
#define NBD_RANGE_MAX    (128u << 20) /* bytes one command discards or zeroes */
#define NBD_CONNECT_NS   10000000000ull
#define NBD_GRACE_NS     3000000000ull /* without progress, once the image is abandoned */
#define NBD_RETRY_MIN_NS 50000000ull
#define NBD_RETRY_MAX_NS 2000000000ull

/* The functions that are used, by their names without "nbd_". */
#define NBD_FUNCTIONS(F)                                                                           \
	F(create)                                                                                  \
	F(close)                                                                                   \
	F(get_error)                                                                               \
	F(get_errno)                                                                               \
	F(set_uri_allow_transports)                                                                \
	F(set_uri_allow_tls)                                                                       \
	F(aio_connect_uri)                                                                         \
	F(aio_get_fd)                                                                              \
	F(aio_get_direction)                                                                       \
	F(aio_notify_read)                                                                         \
	F(aio_notify_write)                                                                        \
	F(aio_is_connecting)                                                                       \
	F(aio_is_dead)                                                                             \
	F(aio_is_closed)                                                                           \
	F(aio_is_ready)                                                                            \
	F(aio_pread)                                                                               \
	F(aio_pwrite)                                                                              \
	F(aio_flush)                                                                               \
	F(aio_trim)                                                                                \
	F(aio_zero)                                                                                \
	F(aio_disconnect)                                                                          \
	F(get_size)                                                                                \
	F(get_block_size)                                                                          \
	F(is_read_only)                                                                            \
	F(can_flush)                                                                               \
	F(can_fua)                                                                                 \
	F(can_trim)                                                                                \
	F(can_zero)                                                                                \
	F(can_multi_conn)

#define NBD_MEMBER(name) __typeof__(nbd_##name) *name;
struct nbd_library {
	NBD_FUNCTIONS(NBD_MEMBER)
};

/* What a server says when it is connected to. */
struct nbd_export {
	uint64_t size;
	uint32_t piece_max; /* bytes of data in one command */
	uint32_t block_min;
	bool readonly, flush, fua, trim, zero, multi;
};

struct nbd_link;

/* One command on its way. */
struct nbd_command {
	struct nbd_link *link;
	struct blk_request *req;
	uint32_t length;
	void *copy; /* of data that lies in several segments; NULL: none */
	int error;  /* positive errno; 0: none */
	bool active, finished;
};

struct nbd_link {
	struct blk_nbd *nbd;
	struct blk_relay relay;
	bool stop; /* under the relay's lock */
	pthread_t thread;

	/* the thread's */
	struct nbd_handle *handle; /* NULL: not connected */
	bool connected;
	bool leaving; /* the server has said that it is about to end */
	uint64_t connect_until_ns, retry_at_ns, retry_ns;
	uint64_t progress_ns; /* something came, or nothing was waited for */
	struct blk_queue waiting;
	unsigned active;
	struct nbd_command commands[NBD_COMMANDS];
};

struct blk_nbd {
	struct blk_image *image;
	const struct nbd_library *lib;
	char *uri;
	struct nbd_export export;      /* of the first connection: later ones must be like it */
	_Atomic uint64_t abandoned_ns; /* when; 0: not */
	_Atomic uint64_t reconnects;
	pthread_mutex_t lock; /* of links */
	struct nbd_link *links[NBD_LINKS_MAX];
	unsigned nlinks;
	unsigned attached; /* channels so far */
};

/* nbd_library.c */
int nbd_library_load(const struct nbd_library **out, char *why);

/* nbd_connect.c */
/* A handle that has begun to connect; NULL: text says why. */
struct nbd_handle *nbd_connect_begin(
	const struct nbd_library *lib, const char *uri, char text[BLK_WHY_MAX]);
/* 1: connected, and *out filled; 0: not yet; -errno and text. */
int nbd_connect_check(const struct nbd_library *lib, struct nbd_handle *h, struct nbd_export *out,
	char text[BLK_WHY_MAX]);
/* Reads or writes what the socket lets it, after waiting for it or for event_fd (-1: none). */
void nbd_connect_wait(
	const struct nbd_library *lib, struct nbd_handle *h, int event_fd, uint64_t until_ns);

/* nbd_link.c */
int nbd_link_open(struct nbd_link **out, struct blk_nbd *nbd, struct nbd_handle *connected);
/* Nothing is asked any more. */
void nbd_link_close(struct nbd_link *link);
uint64_t nbd_now_ns(void);

#endif
