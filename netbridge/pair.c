/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two ports back to back. A lane is one direction of one queue: a queue of frames, an eventfd that
 * wakes the receiver and one that wakes a sender who met a full lane.
 *
 * Neither side makes a system call or contends for the lock while both are busy:
 * - ready_fd is written only when the receiver has found its lane empty and says so in `asleep`. It
 * stays readable until the lane is next found empty, so that it is readable whenever there may be
 * frames.
 * - room_fd polls writable unless its counter is at its highest. A sender that meets a full lane
 * puts it there and says so in `waiting`; the receiver resets it once the lane is half empty. Both
 * descriptors and flags change together, under the lane's lock, which senders hold anyway. The
 * receiver looks at the flags without it: `asleep` is its own doing, and `waiting` is looked at
 * after the tail was stored while the sender looks at the tail after it was stored (sequentially
 * consistent: one sees the other).
 */
#include "netbridge/net_priv.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTFD_FULL (UINT64_MAX - 1)

struct pair_lane {
	struct net_fifo fifo;
	/* Queues of the sender share a lane while the receiver uses fewer of them. */
	pthread_mutex_t lock;
	atomic_bool asleep;  /* ready_fd is not readable: write it with the next frame */
	atomic_bool waiting; /* room_fd is not writable: reset it when there is room */
	atomic_bool
		stale; /* receiver: forget the frames from before the queue was taken out of use */
	int ready_fd, room_fd;
};

struct pair_port {
	struct net_port port; /* first */
	struct pair_shared *shared;
	struct pair_port *peer;
	atomic_bool closed;
	struct pair_lane lanes[NET_QUEUES_MAX]; /* into this port */
};

/* Both ports go together, with the second to be closed. */
struct pair_shared {
	struct pair_port ends[2];
	atomic_uint open;
};

static struct pair_port *pair_of(const struct net_port *port)
{
	return (struct pair_port *)port;
}

static void event_add(int fd, uint64_t n, struct net_counters *c)
{
	/* Fails only where it is there already. */
	while (write(fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
	net_count(&c->system_calls, 1);
}

static void event_reset(int fd, struct net_counters *c)
{
	uint64_t n;

	while (read(fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
	net_count(&c->system_calls, 1);
}

/* The lane in which what this queue sends goes. */
static struct pair_lane *pair_lane_to(const struct net_port *port, unsigned queue)
{
	struct pair_port *peer = pair_of(port)->peer;

	return &peer->lanes[queue % atomic_load_explicit(&peer->port.in_use, memory_order_relaxed)];
}

/* ------------------------------------------------------------------ sending */

/* Pushes what fits; how many packets were taken. */
static unsigned lane_push(struct pair_lane *lane, const struct net_port *port,
	struct net_counters *c, struct net_packet *const *pkts, unsigned n)
{
	uint64_t bytes = 0, dropped = 0;
	unsigned i;

	for (i = 0; i < n; i++) {
		int err = net_fifo_push(&lane->fifo, pkts[i], port->offloads);

		if (err == -ENOSPC)
			break;
		if (err)
			dropped++;
		else
			bytes += pkts[i]->len;
		net_packet_done(pkts[i]);
	}
	net_fifo_publish(&lane->fifo);
	net_count(&c->tx_packets, i - dropped);
	net_count(&c->tx_bytes, bytes);
	if (dropped)
		net_count(&c->tx_dropped, dropped);
	return i;
}

/* The lane is full. true: it is not any more. false: room_fd will tell. */
static bool lane_wait(struct pair_lane *lane, struct net_counters *c)
{
	if (!atomic_load(&lane->waiting)) {
		event_add(lane->room_fd, EVENTFD_FULL, c);
		atomic_store(&lane->waiting, true); /* pairs with the look in pair_receive() */
	}
	if (net_fifo_used(&lane->fifo) > NET_FIFO_BYTES / 2)
		return false;
	event_reset(lane->room_fd, c);
	atomic_store(&lane->waiting, false);
	return true;
}

static void lane_wake_sender(struct pair_lane *lane, struct net_counters *c)
{
	pthread_mutex_lock(&lane->lock);
	if (atomic_load(&lane->waiting)) {
		event_reset(lane->room_fd, c);
		atomic_store(&lane->waiting, false);
	}
	pthread_mutex_unlock(&lane->lock);
}

static unsigned pair_send(
	struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n)
{
	struct net_counters *c = &port->counters[queue].c;
	struct pair_lane *lane = pair_lane_to(port, queue);
	unsigned done;

	pthread_mutex_lock(&lane->lock);
	if (atomic_load(&pair_of(port)->peer->closed)) {
		pthread_mutex_unlock(&lane->lock);
		return net_packets_drop(c, pkts, n);
	}
	done = lane_push(lane, port, c, pkts, n);
	if (done < n && lane_wait(lane, c))
		done += lane_push(lane, port, c, pkts + done, n - done);
	/* Full a second time, while the receiver runs. */
	if (done < n)
		lane_wait(lane, c);
	if (done && atomic_load(&lane->asleep)) {
		event_add(lane->ready_fd, 1, c);
		atomic_store(&lane->asleep, false);
	}
	pthread_mutex_unlock(&lane->lock);
	return done;
}

/* ------------------------------------------------------------------ receiving */

/* The lane is empty. true: it is not any more. false: ready_fd will tell. */
static bool lane_sleep(struct pair_lane *lane, struct net_counters *c)
{
	bool ready;

	if (atomic_load_explicit(&lane->asleep, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&lane->lock);
	ready = net_fifo_ready(&lane->fifo);
	if (!ready) {
		event_reset(lane->ready_fd, c);
		atomic_store(&lane->asleep, true);
	}
	pthread_mutex_unlock(&lane->lock);
	return ready;
}

static unsigned pair_receive(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n)
{
	struct pair_lane *lane = &pair_of(port)->lanes[queue];
	struct net_counters *c = &port->counters[queue].c;
	uint32_t accepted = atomic_load_explicit(&port->accepted, memory_order_relaxed);
	unsigned done;

	if (atomic_load_explicit(&lane->stale, memory_order_relaxed) &&
		atomic_exchange(&lane->stale, false))
		net_fifo_drain(&lane->fifo);
	done = net_fifo_receive(&lane->fifo, accepted, bufs, n, c);
	if (!done && n && lane_sleep(lane, c))
		done = net_fifo_receive(&lane->fifo, accepted, bufs, n, c);
	/* Pairs with the store in lane_wait(). */
	if (atomic_load(&lane->waiting) && net_fifo_used(&lane->fifo) <= NET_FIFO_BYTES / 2)
		lane_wake_sender(lane, c);
	return done;
}

/* ------------------------------------------------------------------ the rest */

static int pair_fd(const struct net_port *port, unsigned queue)
{
	return pair_of(port)->lanes[queue].ready_fd;
}

static int pair_tx_fd(const struct net_port *port, unsigned queue)
{
	return pair_lane_to(port, queue)->room_fd;
}

static bool pair_ready(const struct net_port *port, unsigned queue)
{
	return net_fifo_ready(&pair_of(port)->lanes[queue].fifo);
}

static int pair_queues_set(struct net_port *port, unsigned queues)
{
	struct pair_port *p = pair_of(port);

	atomic_store(&port->in_use, queues);
	for (unsigned q = queues; q < port->queues; q++) {
		atomic_store(&p->lanes[q].stale, true);
		lane_wake_sender(&p->lanes[q], &port->counters[q].c);
	}
	return 0;
}

static void pair_free(struct pair_shared *shared)
{
	for (unsigned e = 0; e < 2; e++)
		for (unsigned q = 0; q < shared->ends[e].port.queues; q++) {
			struct pair_lane *lane = &shared->ends[e].lanes[q];

			net_fifo_destroy(&lane->fifo);
			pthread_mutex_destroy(&lane->lock);
			if (lane->ready_fd >= 0)
				close(lane->ready_fd);
			if (lane->room_fd >= 0)
				close(lane->room_fd);
		}
	free(shared);
}

static void pair_close(struct net_port *port)
{
	struct pair_port *p = pair_of(port);
	struct pair_shared *shared = p->shared;

	atomic_store(&p->closed, true);
	/* Whoever waits for room in a lane nobody empties any more is to find out. */
	for (unsigned q = 0; q < port->queues; q++)
		lane_wake_sender(&p->lanes[q], &port->counters[q].c);
	if (atomic_fetch_sub(&shared->open, 1) == 1)
		pair_free(shared);
}

static const struct net_ops pair_ops = {
	.kind = "pair",
	.send = pair_send,
	.receive = pair_receive,
	.fd = pair_fd,
	.tx_fd = pair_tx_fd,
	.rx_ready = pair_ready,
	.queues_set = pair_queues_set,
	.close = pair_close,
};

static int lane_init(struct pair_lane *lane)
{
	int err = net_fifo_init(&lane->fifo);

	atomic_init(&lane->stale, false);
	pthread_mutex_init(&lane->lock, NULL);
	atomic_init(&lane->asleep, true);
	atomic_init(&lane->waiting, false);
	lane->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lane->ready_fd < 0 && !err)
		err = -errno;
	lane->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lane->room_fd < 0 && !err)
		err = -errno;
	return err;
}

int net_pair_open(struct net_port **a, struct net_port **b, unsigned queues, char why[NET_WHY_MAX])
{
	/* Without UFO: it cannot be finished in software here. */
	uint32_t offloads = NET_OFFLOAD_ALL & ~(uint32_t)NET_OFFLOAD_UFO;
	struct pair_shared *shared;
	int err = 0;

	if (queues < 1 || queues > NET_QUEUES_MAX)
		return net_why(why, -EINVAL, "pair: %u queues; 1 to %u are possible", queues,
			NET_QUEUES_MAX);
	shared = net_port_alloc(sizeof(*shared));
	if (!shared)
		return net_why(why, -ENOMEM, "pair: no memory");
	atomic_init(&shared->open, 2);
	for (unsigned e = 0; e < 2; e++) {
		struct pair_port *p = &shared->ends[e];

		net_port_init(&p->port, &pair_ops, queues, offloads);
		p->shared = shared;
		p->peer = &shared->ends[!e];
		for (unsigned q = 0; q < queues; q++) {
			int bad = lane_init(&p->lanes[q]);

			err = err ? err : bad;
		}
	}
	if (err) {
		pair_free(shared);
		return net_why(why, err, "pair: %s", strerror(-err));
	}
	*a = &shared->ends[0].port;
	*b = &shared->ends[1].port;
	return 0;
}
