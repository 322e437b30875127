/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting with epoll, for hosts that forbid io_uring: block channels bring descriptors of their
 * own. */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define EPOLL_EVENTS 64

static int epoll_of(const struct io_thread *io)
{
	return (int)(intptr_t)io->wait_data;
}

static int epoll_open(struct io_thread *io)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return -errno;
	io->wait_data = (void *)(intptr_t)fd;
	return 0;
}

static void epoll_close(struct io_thread *io)
{
	close(epoll_of(io));
}

static int epoll_watch_add(struct io_thread *io, struct io_slot *slot)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = slot};

	counter_add(&io->system_calls, 1);
	return epoll_ctl(epoll_of(io), EPOLL_CTL_ADD, slot->fd, &ev) < 0 ? -errno : 0;
}

static void epoll_watch_remove(struct io_thread *io, struct io_slot *slot)
{
	counter_add(&io->system_calls, 1);
	epoll_ctl(epoll_of(io), EPOLL_CTL_DEL, slot->fd, NULL);
}

/* Nothing is submitted here, and what pollers wait for they see in memory. */
static unsigned epoll_round(struct io_thread *io)
{
	io_slots_sweep(io);
	return 0;
}

static void epoll_wait_events(struct io_thread *io, uint64_t timeout_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(timeout_ns / 1000000000ull),
		.tv_nsec = (long)(timeout_ns % 1000000000ull),
	};
	struct epoll_event ev[EPOLL_EVENTS];
	int n, fd = epoll_of(io);

	counter_add(&io->system_calls, 1);
	n = epoll_pwait2(fd, ev, EPOLL_EVENTS, timeout_ns == IO_NO_TIMEOUT ? NULL : &ts, NULL);
	if (n < 0 && errno == ENOSYS) {
		int ms = -1;

		if (timeout_ns != IO_NO_TIMEOUT)
			ms = timeout_ns < 1000000000ull ? (int)((timeout_ns + 999999) / 1000000)
							: 1000;
		counter_add(&io->system_calls, 1);
		n = epoll_wait(fd, ev, EPOLL_EVENTS, ms);
	}
	/* slots live until the sweep, so those removed by an earlier event can be looked at */
	for (int i = 0; i < n; i++)
		io_slot_event(io, ev[i].data.ptr);
	io_slots_sweep(io);
}

const struct io_wait_ops io_wait_epoll = {
	.name = "epoll",
	.open = epoll_open,
	.close = epoll_close,
	.watch_add = epoll_watch_add,
	.watch_remove = epoll_watch_remove,
	.round = epoll_round,
	.wait = epoll_wait_events,
};
