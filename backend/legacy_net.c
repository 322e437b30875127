/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Emulated network cards' way to their port: frames queued by vCPU threads or gathered by the
 * card's own transmit work on the I/O thread; frames received are handed over one at a time.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "backend/backend_priv.h"

#define TX_SLOTS    64u
#define TX_BYTES    1536u /* of a frame: cards that queue have no larger ones */
#define TX_BURST    32u
#define TX_RETRY_NS 100000u
#define RX_BURST    32u

struct tx_slot {
	uint32_t len;
	uint8_t frame[TX_BYTES];
};

struct legacy_net_waiter {
	sem_t idle;
	struct legacy_net *net;
	struct legacy_net_waiter *next;
};

struct legacy_net {
	struct io_thread *io;
	struct net_port *port;
	struct legacy_net_callbacks cb;

	/* vCPU threads produce under the lock, the I/O thread consumes; positions run free */
	pthread_mutex_t tx_lock;
	_Atomic uint32_t tx_head; /* next to fill */
	_Atomic uint32_t tx_tail; /* next to send */
	struct tx_slot *tx_slots;
	_Atomic bool tx_kicked;
	_Atomic uint64_t tx_dropped;
	_Atomic bool rx_resumed;
	struct io_work work;

	/* the I/O thread's */
	struct io_poller poller;
	struct io_timer retry;
	struct port_rx rx;
	struct port_link link;
	_Atomic bool link_up;
	bool tx_blocked;  /* the port was full: not before the retry timer */
	bool tx_short;    /* transmit() could not hand everything over */
	bool tx_sent;     /* sent() is due */
	bool rx_no_room;  /* until legacy_net_rx_resume() */
	bool rx_quiesced; /* until legacy_net_resume() */
	bool tx_quiesced; /* likewise, from when all that the port would take is sent */
	struct legacy_net_waiter *waiters;
	uint8_t *rx_frame;
};

#define LEGACY_NET(p, member)                                                                      \
	((struct legacy_net *)((char *)(p)-offsetof(struct legacy_net, member)))

/* ------------------------------------------------------------------ transmit */

unsigned legacy_net_send(struct legacy_net *net, struct net_packet *const *pkts, unsigned n)
{
	unsigned sent = 0;

	if (!net->tx_blocked)
		sent = net_port_send(net->port, 0, pkts, n);
	if (sent)
		net->tx_sent = true;
	if (sent < n) {
		net->tx_short = true;
		if (!net->tx_blocked)
			io_timer_set(net->io, &net->retry, clock_now_ns() + TX_RETRY_NS);
		net->tx_blocked = true;
	}
	return sent;
}

static void legacy_net_retry(struct io_timer *t)
{
	struct legacy_net *net = LEGACY_NET(t, retry);

	net->tx_blocked = false;
}

static bool legacy_net_queued(struct legacy_net *net)
{
	return atomic_load_explicit(&net->tx_head, memory_order_acquire) !=
	       atomic_load_explicit(&net->tx_tail, memory_order_relaxed);
}

static unsigned legacy_net_send_queued(struct legacy_net *net)
{
	uint32_t tail = atomic_load_explicit(&net->tx_tail, memory_order_relaxed);
	/* pairs with the release in legacy_net_queue() */
	uint32_t head = atomic_load_explicit(&net->tx_head, memory_order_acquire);
	struct net_packet pkts[TX_BURST] = {0}, *list[TX_BURST];
	struct iovec iov[TX_BURST];
	unsigned n = 0, sent;

	while (n < TX_BURST && tail + n != head) {
		struct tx_slot *slot = &net->tx_slots[(tail + n) % TX_SLOTS];

		iov[n] = (struct iovec){slot->frame, slot->len};
		pkts[n].segs = &iov[n];
		pkts[n].nsegs = 1;
		pkts[n].len = slot->len;
		list[n] = &pkts[n];
		n++;
	}
	if (!n)
		return 0;
	sent = legacy_net_send(net, list, n);
	/* the slots may be filled again; pairs with the acquire in legacy_net_queue() */
	atomic_store_explicit(&net->tx_tail, tail + sent, memory_order_release);
	return sent;
}

static unsigned legacy_net_transmit(struct legacy_net *net)
{
	bool again = net->tx_short;
	unsigned n;

	if (net->tx_blocked || net->tx_quiesced)
		return 0;
	net->tx_short = false;
	n = legacy_net_send_queued(net);
	if (net->cb.transmit &&
		(again || atomic_load_explicit(&net->tx_kicked, memory_order_relaxed))) {
		/* acquire: what the card wrote before the kick is seen by transmit() */
		atomic_exchange_explicit(&net->tx_kicked, false, memory_order_acq_rel);
		net->cb.transmit(net->cb.ctx);
		n++;
	}
	return n;
}

static bool legacy_net_unsent(struct legacy_net *net)
{
	return net->tx_short || legacy_net_queued(net) ||
	       atomic_load_explicit(&net->tx_kicked, memory_order_relaxed);
}

/* ------------------------------------------------------------------ receive */

static unsigned legacy_net_receive(struct legacy_net *net)
{
	struct iovec iov = {net->rx_frame, NET_FRAME_MAX};
	unsigned n = 0;

	if (atomic_load_explicit(&net->rx_resumed, memory_order_relaxed) &&
		atomic_exchange_explicit(&net->rx_resumed, false, memory_order_acq_rel))
		net->rx_no_room = false;
	if (net->rx_quiesced || net->rx_no_room || !port_rx_due(&net->rx))
		return 0;
	while (n < RX_BURST) {
		struct net_buffer buf = {.segs = &iov, .nsegs = 1, .room = NET_FRAME_MAX};
		unsigned got;

		if (!net->cb.receive_room(net->cb.ctx)) {
			net->rx_no_room = true;
			break;
		}
		got = net_port_receive(net->port, 0, &buf, 1);
		port_rx_asked(&net->rx, 1, got);
		if (!got)
			break;
		net->cb.received(net->cb.ctx, net->rx_frame, buf.len);
		n++;
	}
	return n;
}

/* ------------------------------------------------------------------ poller */

static unsigned legacy_net_poll(struct io_poller *p)
{
	struct legacy_net *net = LEGACY_NET(p, poller);
	unsigned n = legacy_net_transmit(net);

	return n + legacy_net_receive(net);
}

static bool legacy_net_sleep(struct io_poller *p)
{
	struct legacy_net *net = LEGACY_NET(p, poller);

	return port_rx_sleep(&net->rx, !net->rx_quiesced && !net->rx_no_room);
}

static void legacy_net_batch_end(struct io_poller *p)
{
	struct legacy_net *net = LEGACY_NET(p, poller);
	struct legacy_net_waiter *w;

	if (net->tx_sent && !net->tx_short && !legacy_net_queued(net)) {
		net->tx_sent = false;
		if (net->cb.sent)
			net->cb.sent(net->cb.ctx);
	}
	/* a full port may stay full for ever: its other side may be a guest that is stopped */
	while ((w = net->waiters) &&
		(net->tx_quiesced || net->tx_blocked || !legacy_net_unsent(net))) {
		net->tx_quiesced = true;
		net->waiters = w->next;
		sem_post(&w->idle);
	}
}

/* The poll of this round does it. */
static void legacy_net_work(struct io_work *work)
{
	(void)work;
}

/* ------------------------------------------------------------------ from any thread */

void legacy_net_kick(struct legacy_net *net)
{
	atomic_store_explicit(&net->tx_kicked, true, memory_order_release);
	io_thread_post(net->io, &net->work);
}

int legacy_net_queue(struct legacy_net *net, const void *frame, uint32_t len)
{
	struct tx_slot *slot;
	uint32_t head;
	int err = 0;

	if (!len || len > TX_BYTES)
		return -EINVAL;
	/* producers are vCPUs under their device's lock: there is one, or a short wait */
	pthread_mutex_lock(&net->tx_lock);
	head = atomic_load_explicit(&net->tx_head, memory_order_relaxed);
	if (head - atomic_load_explicit(&net->tx_tail, memory_order_acquire) == TX_SLOTS) {
		counter_add(&net->tx_dropped, 1);
		err = -ENOSPC;
	} else {
		slot = &net->tx_slots[head % TX_SLOTS];
		memcpy(slot->frame, frame, len);
		slot->len = len;
		/* the frame before the position; pairs with legacy_net_send_queued() */
		atomic_store_explicit(&net->tx_head, head + 1, memory_order_release);
	}
	pthread_mutex_unlock(&net->tx_lock);
	if (!err)
		io_thread_post(net->io, &net->work);
	return err;
}

unsigned legacy_net_waiting(const struct legacy_net *net)
{
	struct legacy_net *n = (struct legacy_net *)net; /* C11's loads take no const */
	uint32_t tail = atomic_load_explicit(&n->tx_tail, memory_order_acquire);

	return atomic_load_explicit(&n->tx_head, memory_order_relaxed) - tail;
}

const void *legacy_net_frame(const struct legacy_net *net, unsigned i, uint32_t *len)
{
	struct legacy_net *n = (struct legacy_net *)net;
	uint32_t tail = atomic_load_explicit(&n->tx_tail, memory_order_acquire);
	const struct tx_slot *slot = &net->tx_slots[(tail + i) % TX_SLOTS];

	*len = slot->len;
	return slot->frame;
}

void legacy_net_rx_resume(struct legacy_net *net)
{
	atomic_store_explicit(&net->rx_resumed, true, memory_order_release);
	io_thread_post(net->io, &net->work);
}

uint64_t legacy_net_dropped(const struct legacy_net *net)
{
	return counter_get(&net->tx_dropped);
}

static void legacy_net_quiesce_io(void *ctx)
{
	struct legacy_net_waiter *w = ctx;

	w->net->rx_quiesced = true;
	w->next = w->net->waiters;
	w->net->waiters = w;
}

void legacy_net_quiesce(struct legacy_net *net)
{
	struct legacy_net_waiter w = {.net = net};

	sem_init(&w.idle, 0, 0);
	io_thread_call(net->io, legacy_net_quiesce_io, &w);
	while (sem_wait(&w.idle) < 0 && errno == EINTR)
		;
	sem_destroy(&w.idle);
}

static void legacy_net_resume_io(void *ctx)
{
	struct legacy_net *net = ctx;

	net->rx_quiesced = false;
	net->tx_quiesced = false;
}

void legacy_net_resume(struct legacy_net *net)
{
	io_thread_call(net->io, legacy_net_resume_io, net);
}

/* ------------------------------------------------------------------ life */

static void legacy_net_link_changed(struct port_link *l)
{
	struct legacy_net *net = LEGACY_NET(l, link);

	atomic_store(&net->link_up, l->up);
	net->rx_no_room = false; /* the card is asked anew */
	if (net->cb.link)
		net->cb.link(net->cb.ctx, l->up);
}

bool legacy_net_link(const struct legacy_net *net)
{
	return atomic_load(&((struct legacy_net *)net)->link_up);
}

struct legacy_net_open {
	struct legacy_net *net;
	int err;
};

static void legacy_net_open_io(void *ctx)
{
	struct legacy_net_open *o = ctx;
	struct legacy_net *net = o->net;

	/* a card of that age knows no vnet header: the port finishes all such work */
	o->err = net_port_offloads_set(net->port, 0);
	if (!o->err)
		o->err = net_port_queues_set(net->port, 1);
	if (!o->err)
		o->err = port_link_start(&net->link, net->io, net->port);
	if (o->err)
		return;
	atomic_store(&net->link_up, net->link.up);
	port_rx_init(&net->rx, net->io, net->port, 0);
	io_poller_add(net->io, &net->poller);
}

static void legacy_net_close_io(void *ctx)
{
	struct legacy_net *net = ctx;

	io_poller_remove(net->io, &net->poller);
	io_timer_set(net->io, &net->retry, 0);
	port_rx_stop(&net->rx);
	port_link_stop(&net->link);
}

static void legacy_net_free(struct legacy_net *net)
{
	pthread_mutex_destroy(&net->tx_lock);
	free(net->tx_slots);
	free(net->rx_frame);
	free(net);
}

int legacy_net_open(struct legacy_net **out, struct io_thread *io, struct net_port *port,
	const struct legacy_net_callbacks *cb, char why[BACKEND_WHY_MAX])
{
	struct legacy_net *net = calloc(1, sizeof(*net));
	struct legacy_net_open open = {.net = net};

	if (!net) {
		backend_why(why, "emulated network card: no memory");
		return -ENOMEM;
	}
	pthread_mutex_init(&net->tx_lock, NULL);
	net->tx_slots = calloc(TX_SLOTS, sizeof(*net->tx_slots));
	net->rx_frame = calloc(1, NET_FRAME_MAX);
	if (!net->tx_slots || !net->rx_frame) {
		backend_why(why, "emulated network card: no memory");
		open.err = -ENOMEM;
		goto fail;
	}
	net->io = io;
	net->port = port;
	net->cb = *cb;
	net->work.run = legacy_net_work;
	net->retry.expired = legacy_net_retry;
	net->link.changed = legacy_net_link_changed;
	net->poller = (struct io_poller){.poll = legacy_net_poll,
		.sleep = legacy_net_sleep,
		.batch_end = legacy_net_batch_end};
	io_thread_call(io, legacy_net_open_io, &open);
	if (open.err) {
		backend_why(why, "emulated network card: %s port: %s", net_port_kind(port),
			strerror(-open.err));
		goto fail;
	}
	*out = net;
	return 0;

fail:
	legacy_net_free(net);
	return open.err;
}

void legacy_net_close(struct legacy_net *net)
{
	if (!net)
		return;
	io_thread_call(net->io, legacy_net_close_io, net);
	legacy_net_free(net);
}
