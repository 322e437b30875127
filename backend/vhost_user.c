/* SPDX-License-Identifier: BSD-2-Clause */
/* vhost-user messages on a socket: receiving and sending whole ones, with their descriptors. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/backend_priv.h"
#include "backend/vhost_user_priv.h"

#define SEND_PATIENCE_MS 1000

_Static_assert(sizeof(struct vhost_user_header) == 12, "no padding on the socket");
_Static_assert(
	offsetof(struct vhost_user_message, p) % 8 == 0, "the payload is aligned for its numbers");

void vhost_user_message_close(struct vhost_user_message *m)
{
	while (m->nfds)
		close(m->fds[--m->nfds]);
}

/* Takes the descriptors of one recvmsg(). False: more than any message may have. */
static bool fds_take(struct vhost_user_message *m, struct msghdr *msg)
{
	bool fit = !(msg->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (m->nfds < VHOST_USER_FDS_MAX) {
				m->fds[m->nfds++] = fd;
			} else {
				close(fd);
				fit = false;
			}
		}
	}
	return fit;
}

/* Reads up to `want` more bytes. Bytes read, 0: the peer has gone, or -errno. */
static ssize_t part_receive(int socket, struct vhost_user_message *m, void *to, size_t want)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * VHOST_USER_FDS_MAX)];
	} control;
	struct iovec iov = {to, want};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;

	do {
		n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return fds_take(m, &msg) ? n : -EPROTO;
}

static int header_check(const struct vhost_user_header *h)
{
	if ((h->flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION ||
		h->size > sizeof(union vhost_user_payload))
		return -EPROTO;
	return 0;
}

static int receive(int socket, struct vhost_user_rx *rx)
{
	const size_t header = sizeof(rx->m.h);

	for (;;) {
		uint8_t *to = rx->have < header ? (uint8_t *)&rx->m.h + rx->have
						: (uint8_t *)&rx->m.p + (rx->have - header);
		size_t want =
			rx->have < header ? header - rx->have : header + rx->m.h.size - rx->have;
		ssize_t n;

		if (!want)
			return 0;
		n = part_receive(socket, &rx->m, to, want);
		if (n <= 0)
			return n ? (int)n : rx->have ? -EPROTO : -ECONNRESET;
		rx->have += (size_t)n;
		if (rx->have == header && header_check(&rx->m.h))
			return -EPROTO;
	}
}

int vhost_user_receive(int socket, struct vhost_user_rx *rx)
{
	int err;

	if (!rx->have)
		memset(rx, 0, sizeof(*rx));
	err = receive(socket, rx);
	if (err == -EAGAIN || err == -EWOULDBLOCK)
		return -EAGAIN;
	rx->have = 0;
	if (err)
		vhost_user_message_close(&rx->m);
	return err;
}

int vhost_user_send(int socket, const struct vhost_user_message *m)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * VHOST_USER_FDS_MAX)];
	} control = {0};
	struct iovec iov[2] = {
		{(void *)&m->h, sizeof(m->h)},
		{(void *)&m->p, m->h.size},
	};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	size_t left = sizeof(m->h) + m->h.size;

	if (m->nfds) {
		struct cmsghdr *c = &control.align;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * m->nfds);
		memcpy(CMSG_DATA(c), m->fds, sizeof(int) * m->nfds);
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * m->nfds);
	}
	while (left) {
		ssize_t n = sendmsg(socket, &msg, MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			struct pollfd p = {.fd = socket, .events = POLLOUT};

			if (!poll(&p, 1, SEND_PATIENCE_MS))
				return -ETIMEDOUT;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		left -= (size_t)n;
		/* the descriptors went with the first byte */
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		for (size_t took = (size_t)n; took;) {
			size_t part = took < msg.msg_iov->iov_len ? took : msg.msg_iov->iov_len;

			msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + part;
			msg.msg_iov->iov_len -= part;
			took -= part;
			if (!msg.msg_iov->iov_len && msg.msg_iovlen > 1) {
				msg.msg_iov++;
				msg.msg_iovlen--;
			}
		}
	}
	return 0;
}
