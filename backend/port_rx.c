/* SPDX-License-Identifier: BSD-2-Clause */
/* When to ask a port for frames: shared by virtio-net and the emulated cards. I/O thread. */
#include "backend/backend.h"
#include "backend/backend_priv.h"

#define TRY_EVERY_NS 5000u /* a read of an empty tap costs a microsecond */

static void port_rx_ready(struct io_watch *w)
{
	struct port_rx *rx = (struct port_rx *)((char *)w - offsetof(struct port_rx, watch));

	rx->maybe = true;
}

/* Being awake is all that was wanted: the poll that follows asks. */
static void port_rx_expired(struct io_timer *t)
{
	(void)t;
}

void port_rx_init(struct port_rx *rx, struct io_thread *io, struct net_port *port, unsigned queue)
{
	*rx = (struct port_rx){
		.io = io,
		.port = port,
		.queue = queue,
		.fd = net_port_fd(port, queue),
		.maybe = true,
		.timer.expired = port_rx_expired,
	};
	rx->exact = rx->fd < 0;
	rx->watch = (struct io_watch){.fd = rx->fd, .ready = port_rx_ready};
}

bool port_rx_due(struct port_rx *rx)
{
	if (!net_port_rx_ready(rx->port, rx->queue)) {
		rx->exact = true; /* one that cannot tell would have said yes */
		/* its descriptor stays readable until it is asked once more */
		return rx->fd >= 0 && rx->maybe;
	}
	return rx->maybe || io_thread_now_ns(rx->io) >= rx->next_try_ns;
}

void port_rx_asked(struct port_rx *rx, unsigned asked, unsigned got)
{
	if (got == asked) {
		rx->maybe = true;
		return;
	}
	rx->maybe = false;
	/* One that tells the truth is asked again as soon as it says so, unless it says so now,
	 * having given nothing. */
	if (rx->exact && (got || !net_port_rx_ready(rx->port, rx->queue)))
		rx->next_try_ns = 0;
	else
		rx->next_try_ns = io_thread_now_ns(rx->io) + TRY_EVERY_NS;
}

static void port_rx_watch(struct port_rx *rx, bool on)
{
	if (rx->fd < 0 || rx->watching == on)
		return;
	if (on) {
		if (io_watch_add(rx->io, &rx->watch)) {
			rx->next_try_ns = 0;
			return;
		}
	} else {
		io_watch_remove(rx->io, &rx->watch);
	}
	rx->watching = on;
}

bool port_rx_sleep(struct port_rx *rx, bool room)
{
	port_rx_watch(rx, room);
	if (!room)
		return false;
	if (rx->fd >= 0 && rx->watching)
		return rx->maybe && net_port_rx_ready(rx->port, rx->queue);
	if (!net_port_rx_ready(rx->port, rx->queue))
		return false;
	/* ready, and yet it gave nothing a moment ago: ask again in a while, not in a circle */
	if (io_thread_now_ns(rx->io) >= rx->next_try_ns)
		return true;
	io_timer_set(rx->io, &rx->timer, rx->next_try_ns);
	return false;
}

void port_rx_stop(struct port_rx *rx)
{
	port_rx_watch(rx, false);
	io_timer_set(rx->io, &rx->timer, 0);
}
