/* SPDX-License-Identifier: BSD-2-Clause */
/* Sockets in the file system that this process listens at. */
#ifndef UNIX_SOCKET_PRIV_H
#define UNIX_SOCKET_PRIV_H

#include <sys/types.h>
#include <sys/un.h>

#include "backend/backend_priv.h"

#define UNIX_SOCKET_PATH_MAX sizeof(((struct sockaddr_un *)0)->sun_path)

struct unix_socket {
	int fd; /* listening, non-blocking; -1: none */
	char path[UNIX_SOCKET_PATH_MAX];
	bool bound;
	dev_t dev;
	ino_t ino;
};

/*
 * Makes the socket, with mode 0600 from its first moment on. With replace one that nobody answers
 * at any more is taken away; else it is -EEXIST too. -EADDRINUSE: somebody answers; -EEXIST:
 * something else is there; -ENAMETOOLONG, -EACCES ... why begins with label and path
 * ("socket=PATH: ..."). Any thread.
 */
int unix_socket_listen(struct unix_socket *s, const char *label, const char *path, bool replace,
	char why[BACKEND_WHY_MAX]);

/* Closes it, and removes the path unless it has become somebody else's. */
void unix_socket_close(struct unix_socket *s);

#endif
