/* SPDX-License-Identifier: BSD-2-Clause */
/* One connection to an NBD server: how it is made, and what the server says of the export. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "blk/nbd_priv.h"

/* A server's host that has gone away unnoticed is given up after so long. */
#define DEAD_PEER_MS 30000

uint64_t nbd_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void connect_failed(const struct nbd_library *lib, char text[BLK_WHY_MAX])
{
	const char *error = lib->get_error();
	const char *colon = error ? strstr(error, ": ") : NULL;

	/* without the name of the library's function */
	blk_why(text, "%.160s", colon ? colon + 2 : error ? error : "cannot connect");
}

struct nbd_handle *nbd_connect_begin(
	const struct nbd_library *lib, const char *uri, char text[BLK_WHY_MAX])
{
	struct nbd_handle *h = lib->create();

	if (!h) {
		blk_why(text, "no memory");
		return NULL;
	}
	lib->set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX);
	lib->set_uri_allow_tls(h, LIBNBD_TLS_DISABLE);
	if (lib->aio_connect_uri(h, uri) >= 0)
		return h;
	connect_failed(lib, text);
	lib->close(h);
	return NULL;
}

/* Idle connections too; unix sockets have no such thing and need none. */
static void connect_watch_peer(int fd)
{
	int on = 1, idle_s = 10, every_s = 5, dead_ms = DEAD_PEER_MS;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof(every_s));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms));
}

int nbd_connect_check(const struct nbd_library *lib, struct nbd_handle *h, struct nbd_export *out,
	char text[BLK_WHY_MAX])
{
	int64_t size, min, max;

	if (lib->aio_is_dead(h) || lib->aio_is_closed(h)) {
		connect_failed(lib, text);
		return -(lib->get_errno() > 0 ? lib->get_errno() : ECONNREFUSED);
	}
	if (!lib->aio_is_ready(h))
		return 0;
	size = lib->get_size(h);
	if (size < 0) {
		connect_failed(lib, text);
		return -EPROTO;
	}
	min = lib->get_block_size(h, LIBNBD_SIZE_MINIMUM);
	max = lib->get_block_size(h, LIBNBD_SIZE_MAXIMUM);
	*out = (struct nbd_export){
		.size = (uint64_t)size,
		.block_min = min > 0 && min <= UINT32_MAX ? (uint32_t)min : 1,
		.piece_max = max > 0 && max < NBD_PIECE_MAX ? (uint32_t)max : NBD_PIECE_MAX,
		.readonly = lib->is_read_only(h) != 0,
		.flush = lib->can_flush(h) > 0,
		.fua = lib->can_fua(h) > 0,
		.trim = lib->can_trim(h) > 0,
		.zero = lib->can_zero(h) > 0,
		.multi = lib->can_multi_conn(h) > 0,
	};
	connect_watch_peer(lib->aio_get_fd(h));
	return 1;
}

void nbd_connect_wait(
	const struct nbd_library *lib, struct nbd_handle *h, int event_fd, uint64_t until_ns)
{
	unsigned direction = h ? lib->aio_get_direction(h) : 0;
	struct pollfd fds[2] = {{.fd = event_fd, .events = POLLIN}, {.fd = -1}};
	uint64_t now = nbd_now_ns();
	struct timespec ts = {0};

	if (h)
		fds[1].fd = lib->aio_get_fd(h);
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		fds[1].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		fds[1].events |= POLLOUT;
	if (until_ns > now) {
		ts.tv_sec = (time_t)((until_ns - now) / 1000000000u);
		ts.tv_nsec = (long)((until_ns - now) % 1000000000u);
	}
	if (ppoll(fds, 2, until_ns == UINT64_MAX ? NULL : &ts, NULL) <= 0 || !h)
		return;
	if (fds[1].revents & (POLLIN | POLLHUP | POLLERR) && direction & LIBNBD_AIO_DIRECTION_READ)
		lib->aio_notify_read(h);
	else if (fds[1].revents & (POLLOUT | POLLHUP | POLLERR) &&
		 direction & LIBNBD_AIO_DIRECTION_WRITE)
		lib->aio_notify_write(h);
}
