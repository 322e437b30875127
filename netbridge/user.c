/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A port behind a NAT router in this process. The port handed out is one end of a pair (pair.c),
 * with another name and another way to close; the router's thread holds the other end. So frames,
 * descriptors and waking are the pair's, and neither side ever waits for the other.
 *
 * All calls of the library are made on the router's thread, from opening to closing. It keeps a few
 * variables of its own for the whole process (its clock, the resolver's address), so that routers
 * take turns: user_turn is held around each call, never while asleep.
 */
#include "netbridge/user_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BURST       64u
#define FRAME_PLAIN 1518u /* without segmentation work: what the link carries, and a tag */
#define TIMERS_MAX  4u
#define BACKLOG     128 /* connections that wait for their first look; the library says 1 */
#define FLOWS_MAX   1024u
#define FLOWS_SPARE 64u   /* descriptors left to the rest of the process */
#define LAZY_MS     1000u /* what the library asks for when it wants nothing */

struct user_timer {
	bool used, armed;
	int64_t at_ms;
	SlirpTimerCb call;
	void *ctx;
};

struct user_port {
	struct net_ops ops;     /* of the outer end */
	struct net_port *outer; /* handed out */
	struct net_port *inner; /* the router's */
	void (*pair_close)(struct net_port *port);
	const struct user_library *lib;
	struct net_user_options opts;
	pthread_t thread;
	int stop_fd;
	_Atomic uint64_t lost;    /* found no room on the way to the guest */
	_Atomic uint64_t refused; /* from the guest: beyond a bound, or never right */
	_Atomic uint64_t errors;
	sem_t opened;
	int open_err;
	char *why; /* until opened */

	/* the router's thread alone */
	Slirp *slirp;
	struct user_timer timers[TIMERS_MAX];
	struct pollfd *fds; /* inner end, stop_fd, sockets */
	unsigned nfds, room;
	int listeners[NET_USER_FORWARDS_MAX];
	unsigned nlisteners;
	bool seen_listeners;
	bool crowded;  /* no new flows now */
	int flows_end; /* crowded when the lowest free descriptor is this or higher */
	uint8_t frame[NET_FRAME_MAX + 2];
};

static pthread_mutex_t user_turn = PTHREAD_MUTEX_INITIALIZER;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ------------------------------------------------------------------ what the library calls */

static ssize_t user_send_packet(const void *buf, size_t len, void *opaque)
{
	struct user_port *u = opaque;
	struct iovec seg = {(void *)buf, len};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = (uint32_t)len}, *p = &pkt;

	/* Dropped when the guest takes nothing: TCP sends it again, more slowly. */
	if (len > NET_FRAME_MAX || net_port_send(u->inner, 0, &p, 1) != 1)
		count(&u->lost, 1);
	return (ssize_t)len;
}

static void user_guest_error(const char *msg, void *opaque)
{
	struct user_port *u = opaque;

	(void)msg;
	count(&u->errors, 1);
}

static int64_t user_clock(void *opaque)
{
	(void)opaque;
	return now_ns();
}

static void *user_timer_new(SlirpTimerCb call, void *ctx, void *opaque)
{
	struct user_port *u = opaque;

	for (unsigned i = 0; i < TIMERS_MAX; i++)
		if (!u->timers[i].used) {
			u->timers[i] = (struct user_timer){.used = true, .call = call, .ctx = ctx};
			return &u->timers[i];
		}
	return NULL;
}

static void user_timer_free(void *timer, void *opaque)
{
	struct user_timer *t = timer;

	(void)opaque;
	if (t)
		t->used = t->armed = false;
}

static void user_timer_mod(void *timer, int64_t at_ms, void *opaque)
{
	struct user_timer *t = timer;

	(void)opaque;
	if (t) {
		t->at_ms = at_ms;
		t->armed = true;
	}
}

/* Descriptors are collected anew for each sleep, and the library only calls on its own thread. */
static void user_poll_fd(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

static void user_notify(void *opaque)
{
	(void)opaque;
}

static const SlirpCb callbacks = {
	.send_packet = user_send_packet,
	.guest_error = user_guest_error,
	.clock_get_ns = user_clock,
	.timer_new = user_timer_new,
	.timer_free = user_timer_free,
	.timer_mod = user_timer_mod,
	.register_poll_fd = user_poll_fd,
	.unregister_poll_fd = user_poll_fd,
	.notify = user_notify,
};

/* ------------------------------------------------------------------ bounds */

/* Descriptors are given out from the lowest free one up, to all of the process. */
static void user_crowd_look(struct user_port *u)
{
	int fd = fcntl(u->stop_fd, F_DUPFD_CLOEXEC, 0);

	u->crowded = fd < 0 || fd >= u->flows_end;
	if (fd >= 0)
		close(fd);
}

static void user_flows_bound(struct user_port *u)
{
	struct rlimit limit;
	int fd = fcntl(u->stop_fd, F_DUPFD_CLOEXEC, 0);
	rlim_t want = (rlim_t)fd + FLOWS_MAX + FLOWS_SPARE, have = want;

	if (fd < 0) {
		u->flows_end = 0;
		return;
	}
	close(fd);
	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < want) {
		have = limit.rlim_cur;
		limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
		if (!setrlimit(RLIMIT_NOFILE, &limit))
			have = limit.rlim_cur;
	}
	u->flows_end = have > FLOWS_SPARE ? (int)(have - FLOWS_SPARE) : 0;
}

/* ------------------------------------------------------------------ from the guest */

static void user_frame_take(struct user_port *u, const struct net_buffer *buf, bool *looked)
{
	bool ok = buf->hdr.gso_type != NET_GSO_NONE || buf->len <= FRAME_PLAIN;

	if (ok)
		ok = !user_frame_finish(&buf->hdr, u->frame, buf->len);
	if (ok)
		switch (user_frame_kind(u->frame, buf->len)) {
		case USER_FRAME_OPENS:
			if (!*looked)
				user_crowd_look(u);
			*looked = true;
			ok = !u->crowded;
			break;
		case USER_FRAME_PLAIN:
			break;
		default:
			ok = false;
			break;
		}
	if (ok)
		u->lib->input(u->slirp, u->frame, (int)buf->len);
	else
		count(&u->refused, 1);
}

/* A burst; true: there may be more. */
static bool user_frames_take(struct user_port *u)
{
	struct iovec seg = {u->frame, NET_FRAME_MAX};
	bool looked = false;
	unsigned n = 0;

	for (; n < BURST; n++) {
		struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = NET_FRAME_MAX};

		if (!net_port_receive(u->inner, 0, &buf, 1))
			break;
		user_frame_take(u, &buf, &looked);
	}
	return n == BURST;
}

/* ------------------------------------------------------------------ sockets and sleep */

/* The first look at the sockets, when there are no others: those that listen. */
static void user_listener_add(struct user_port *u, int fd)
{
	int listens = 0;
	socklen_t len = sizeof(listens);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) || !listens)
		return;
	listen(fd, BACKLOG);
	if (u->nlisteners < NET_USER_FORWARDS_MAX)
		u->listeners[u->nlisteners++] = fd;
}

static bool user_listens(const struct user_port *u, int fd)
{
	for (unsigned i = 0; i < u->nlisteners; i++)
		if (u->listeners[i] == fd)
			return true;
	return false;
}

static int user_poll_add(int fd, int events, void *opaque)
{
	struct user_port *u = opaque;
	struct pollfd *p;

	if (u->nfds == u->room) {
		unsigned room = u->room * 2;
		struct pollfd *more = realloc(u->fds, room * sizeof(*more));

		if (!more)
			return -1; /* not looked at this time */
		u->fds = more;
		u->room = room;
	}
	if (!u->seen_listeners)
		user_listener_add(u, fd);
	p = &u->fds[u->nfds];
	*p = (struct pollfd){.fd = fd};
	if (events & SLIRP_POLL_IN)
		p->events |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		p->events |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		p->events |= POLLPRI;
	/* Whoever connects waits until there is room for one more. */
	if (u->crowded && user_listens(u, fd))
		p->fd = -1;
	return (int)u->nfds++;
}

static int user_poll_events(int i, void *opaque)
{
	const struct user_port *u = opaque;
	short got = i >= 0 && (unsigned)i < u->nfds ? u->fds[i].revents : 0;

	return (got & POLLIN ? SLIRP_POLL_IN : 0) | (got & POLLOUT ? SLIRP_POLL_OUT : 0) |
	       (got & POLLPRI ? SLIRP_POLL_PRI : 0) | (got & POLLERR ? SLIRP_POLL_ERR : 0) |
	       (got & POLLHUP ? SLIRP_POLL_HUP : 0);
}

/* How long the sleep may be, in milliseconds; -1: for ever. */
static int user_timeout(const struct user_port *u, uint32_t asked_ms)
{
	int64_t now_ms = now_ns() / 1000000, left = asked_ms;

	/* Nothing to look at, nothing that expires. */
	if (u->nfds == 2 && asked_ms >= LAZY_MS)
		left = -1;
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		int64_t t = u->timers[i].at_ms - now_ms;

		if (!u->timers[i].armed)
			continue;
		t = t < 0 ? 0 : t;
		if (left < 0 || t < left)
			left = t;
	}
	return left > 60000 ? 60000 : (int)left;
}

static void user_timers_run(struct user_port *u)
{
	int64_t now_ms = now_ns() / 1000000;

	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct user_timer *t = &u->timers[i];

		if (!t->armed || t->at_ms > now_ms)
			continue;
		t->armed = false;
		t->call(t->ctx);
	}
}

/* Collects what to sleep on; how long. */
static int user_sockets_collect(struct user_port *u)
{
	uint32_t timeout_ms = UINT32_MAX;

	u->fds[0] = (struct pollfd){.fd = net_port_fd(u->inner, 0), .events = POLLIN};
	u->fds[1] = (struct pollfd){.fd = u->stop_fd, .events = POLLIN};
	/* Those who come in from the host open flows too. */
	if (u->nlisteners && (u->crowded || u->nfds >= FLOWS_MAX / 2))
		user_crowd_look(u);
	u->nfds = 2;
	u->lib->pollfds_fill(u->slirp, &timeout_ms, user_poll_add, u);
	u->seen_listeners = true;
	return user_timeout(u, timeout_ms);
}

static void user_run(struct user_port *u)
{
	for (;;) {
		bool more;
		int timeout_ms, got;

		pthread_mutex_lock(&user_turn);
		more = user_frames_take(u);
		timeout_ms = user_sockets_collect(u);
		pthread_mutex_unlock(&user_turn);
		got = poll(u->fds, u->nfds, more ? 0 : timeout_ms);
		if (got > 0 && u->fds[1].revents)
			return;
		pthread_mutex_lock(&user_turn);
		u->lib->pollfds_poll(u->slirp, got < 0, user_poll_events, u);
		user_timers_run(u);
		pthread_mutex_unlock(&user_turn);
	}
}

/* ------------------------------------------------------------------ the router's life */

static struct in_addr address(uint32_t a)
{
	return (struct in_addr){htonl(a)};
}

static int user_forward_failed(const struct net_user_forward *f, int err, char *why)
{
	const char *hint;
	char text[64];

	switch (err) {
	case EADDRINUSE:
		hint = "the host's port is in use; choose another";
		break;
	case EADDRNOTAVAIL:
		hint = "no such address on this host; use 127.0.0.1, or 0.0.0.0 for all";
		break;
	case EACCES:
	case EPERM:
		hint = "not permitted; use a port above 1023";
		break;
	default:
		hint = strerror(err);
		break;
	}
	return net_why(why, -err, "hostfwd=%s: %s", net_user_forward_print(f, text), hint);
}

static int user_slirp_open(struct user_port *u)
{
	const struct net_user_options *o = &u->opts;
	SlirpConfig cfg = {
		.version = 1,
		.restricted = o->restricted,
		.in_enabled = true,
		.vnetwork = address(o->net),
		.vnetmask = address(~(UINT32_MAX >> o->prefix)),
		.vhost = address(o->host),
		.in6_enabled = o->ipv6,
		.vprefix_len = 64,
		.vhostname = *o->hostname ? o->hostname : NULL,
		.vdhcp_start = address(o->dhcp_start),
		.vnameserver = address(o->dns),
	};

	inet_pton(AF_INET6, "fec0::", &cfg.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &cfg.vhost6);
	inet_pton(AF_INET6, "fec0::3", &cfg.vnameserver6);
	u->slirp = u->lib->open(&cfg, &callbacks, u);
	if (!u->slirp)
		return net_why(u->why, -EINVAL, "user: libslirp refuses this network");
	for (unsigned i = 0; i < o->nforwards; i++) {
		const struct net_user_forward *f = &o->forwards[i];

		errno = 0;
		if (u->lib->add_hostfwd(u->slirp, f->udp, address(f->host), f->host_port,
			    address(f->guest), f->guest_port))
			return user_forward_failed(f, errno ? errno : EIO, u->why);
	}
	user_flows_bound(u);
	return 0;
}

static void *user_thread(void *arg)
{
	struct user_port *u = arg;
	int err;

	user_library_complaints(&u->errors);
	pthread_mutex_lock(&user_turn);
	err = user_slirp_open(u);
	pthread_mutex_unlock(&user_turn);
	u->open_err = err;
	sem_post(&u->opened);
	if (!err)
		user_run(u);
	if (u->slirp) {
		pthread_mutex_lock(&user_turn);
		u->lib->cleanup(u->slirp);
		pthread_mutex_unlock(&user_turn);
	}
	user_library_complaints(NULL);
	return NULL;
}

static void user_free(struct user_port *u)
{
	if (u->inner) {
		u->pair_close(u->inner);
		u->pair_close(u->outer);
	}
	if (u->stop_fd >= 0)
		close(u->stop_fd);
	sem_destroy(&u->opened);
	free(u->fds);
	free(u);
}

static struct user_port *user_of(const struct net_port *port)
{
	return (struct user_port *)((char *)port->ops - offsetof(struct user_port, ops));
}

static void user_close(struct net_port *port)
{
	struct user_port *u = user_of(port);
	uint64_t one = 1;

	while (write(u->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(u->thread, NULL);
	user_free(u);
}

static void user_counters_add(const struct net_port *port, struct net_counters *sum)
{
	const struct user_port *u = user_of(port);

	sum->tx_dropped += atomic_load_explicit(&u->refused, memory_order_relaxed);
	sum->rx_dropped += atomic_load_explicit(&u->lost, memory_order_relaxed);
	sum->errors += atomic_load_explicit(&u->errors, memory_order_relaxed);
}

/* Signals are for others. */
static int user_thread_start(struct user_port *u)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&u->thread, NULL, user_thread, u);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

static int user_port_make(struct user_port *u, char why[NET_WHY_MAX])
{
	int err;

	u->room = 16;
	u->fds = calloc(u->room, sizeof(*u->fds));
	if (!u->fds)
		return net_why(why, -ENOMEM, "user: no memory");
	u->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (u->stop_fd < 0)
		return net_why(why, -errno, "user: eventfd: %s", strerror(errno));
	err = net_pair_open(&u->outer, &u->inner, 1, why);
	if (err)
		return err;
	u->pair_close = u->outer->ops->close;
	u->ops = *u->outer->ops;
	u->ops.kind = "user";
	u->ops.counters_add = user_counters_add;
	u->ops.close = user_close;
	/* Segments of one frame would only be put together again. */
	return net_port_offloads_set(
		u->inner, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN);
}

int net_user_open(struct net_port **out, const struct net_user_options *opts, char why[NET_WHY_MAX])
{
	const struct user_library *lib;
	struct user_port *u;
	int err = user_library_load(&lib, why);

	if (err)
		return err;
	u = calloc(1, sizeof(*u));
	if (!u)
		return net_why(why, -ENOMEM, "user: no memory");
	u->lib = lib;
	u->opts = *opts;
	u->why = why;
	u->stop_fd = -1;
	sem_init(&u->opened, 0, 0);
	err = net_user_options_check(&u->opts, why);
	if (!err)
		err = user_port_make(u, why);
	if (err)
		goto fail;
	err = user_thread_start(u);
	if (err) {
		net_why(why, err, "user: thread: %s", strerror(-err));
		goto fail;
	}
	while (sem_wait(&u->opened) && errno == EINTR)
		;
	err = u->open_err;
	if (err) {
		pthread_join(u->thread, NULL);
		goto fail;
	}
	u->outer->ops = &u->ops;
	*out = u->outer;
	return 0;
fail:
	user_free(u);
	return err;
}
