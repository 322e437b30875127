/* SPDX-License-Identifier: BSD-2-Clause */
/* A port's link, watched: shared by virtio-net and the emulated cards. I/O thread. */
#include "backend/backend.h"
#include "backend/backend_priv.h"

static void port_link_ready(struct io_watch *w)
{
	struct port_link *l = (struct port_link *)((char *)w - offsetof(struct port_link, watch));
	bool up = net_port_link(l->port);

	if (up == l->up)
		return;
	l->up = up;
	l->changed(l);
}

int port_link_start(struct port_link *l, struct io_thread *io, struct net_port *port)
{
	l->io = io;
	l->port = port;
	l->watch = (struct io_watch){.fd = net_port_link_fd(port), .ready = port_link_ready};
	l->up = net_port_link(port);
	return l->watch.fd < 0 ? 0 : io_watch_add(io, &l->watch);
}

void port_link_stop(struct port_link *l)
{
	if (l->watch.fd >= 0)
		io_watch_remove(l->io, &l->watch);
}
