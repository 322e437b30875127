/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames to and from a tap, straight between the caller's segments and the kernel: one writev or
 * readv for each, the vnet header in front. A tap has no call for many frames at once.
 */
#include "netbridge/tap_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/*
 * The kernel says EBADFD for a queue without an interface. Either it is being detached at this
 * moment, or the interface has been deleted: its descriptor would poll as broken for ever and keep
 * its thread from sleeping, so that a quiet one takes its place.
 */
static void tap_gone(struct tap_port *t, unsigned queue)
{
	struct tap_queue *q = &t->queue[queue];

	if (queue >= atomic_load(&t->port.in_use))
		return;
	q->gone = true;
	dup3(t->quiet_fd, q->fd, O_CLOEXEC);
}

/* ------------------------------------------------------------------ sending */

/* 0: written. -EAGAIN: not now. Else: the frame is lost. */
static int tap_write(struct tap_port *t, unsigned queue, uint32_t niov)
{
	struct tap_queue *q = &t->queue[queue];

	net_count(&t->port.counters[queue].c.system_calls, 1);
	if (writev(q->fd, q->iov, (int)niov) >= 0)
		return 0;
	if (errno == EBADFD)
		tap_gone(t, queue);
	return errno == EINTR ? -EAGAIN : -errno;
}

/* A frame from the spill buffer, with no work left to do. */
static int tap_write_finished(
	struct tap_port *t, unsigned queue, const struct iovec *pieces, unsigned n)
{
	static const struct net_vnet_hdr none;
	struct iovec *iov = t->queue[queue].iov;
	uint32_t niov = 0;

	if (t->vnet)
		iov[niov++] = (struct iovec){(void *)&none, sizeof(none)};
	for (unsigned i = 0; i < n; i++)
		iov[niov++] = pieces[i];
	return tap_write(t, queue, niov);
}

/*
 * Finishes in software what this tap does not take: in a copy, for the segments may be a guest's
 * memory, which is not to be written to.
 */
static int tap_send_software(struct tap_port *t, unsigned queue, const struct net_packet *pkt)
{
	uint8_t *spill = t->queue[queue].spill;
	struct iovec whole = {spill, pkt->len}, pieces[2];
	struct net_packet copy = {.segs = &whole, .nsegs = 1, .len = pkt->len, .hdr = pkt->hdr};
	struct net_segmenter s;
	struct net_segment part;
	int err = 0, sent = 0;

	if (net_hdr_check(&pkt->hdr, pkt->len) ||
		net_segs_gather(spill, pkt->len, pkt->segs, pkt->nsegs) != pkt->len)
		return -EINVAL;
	if (pkt->hdr.gso_type == NET_GSO_NONE) {
		err = net_checksum_finish(&copy);
		return err ? err : tap_write_finished(t, queue, &whole, 1);
	}
	err = net_segment_begin(&s, spill, pkt->len, &pkt->hdr);
	while (!err && net_segment_next(&s, &part)) {
		pieces[0] = (struct iovec){part.headers, part.headers_len};
		pieces[1] = (struct iovec){(void *)part.payload, part.payload_len};
		err = tap_write_finished(t, queue, pieces, 2);
		sent += !err;
	}
	/* What is partly sent cannot be given back. */
	return err == -EAGAIN && sent ? -ENOBUFS : err;
}

static int tap_send_one(struct tap_port *t, unsigned queue, struct net_packet *pkt)
{
	struct tap_queue *q = &t->queue[queue];
	uint32_t niov = 0;

	if (pkt->len < NET_FRAME_MIN || pkt->len > NET_FRAME_MAX)
		return -EINVAL;
	if (net_hdr_offloads(&pkt->hdr) & ~t->port.offloads)
		return tap_send_software(t, queue, pkt);
	if (t->vnet)
		q->iov[niov++] = (struct iovec){&pkt->hdr, sizeof(pkt->hdr)};
	if (pkt->nsegs <= TAP_SEGS_MAX) {
		memcpy(q->iov + niov, pkt->segs, pkt->nsegs * sizeof(*pkt->segs));
		niov += pkt->nsegs;
	} else {
		if (net_segs_gather(q->spill, pkt->len, pkt->segs, pkt->nsegs) != pkt->len)
			return -EINVAL;
		q->iov[niov++] = (struct iovec){q->spill, pkt->len};
	}
	return tap_write(t, queue, niov);
}

static unsigned tap_send(
	struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n)
{
	struct tap_port *t = tap_of(port);
	struct net_counters *c = &port->counters[queue].c;
	uint64_t bytes = 0, dropped = 0;
	unsigned i;

	for (i = 0; i < n; i++) {
		/* EIO: the interface is down, as when a cable is out. EINVAL: not a frame. */
		int err = t->queue[queue].gone ? -ENODEV : tap_send_one(t, queue, pkts[i]);

		if (err == -EAGAIN)
			break;
		if (err)
			dropped++;
		else
			bytes += pkts[i]->len;
		net_packet_done(pkts[i]);
	}
	net_count(&c->tx_packets, i - dropped);
	net_count(&c->tx_bytes, bytes);
	if (dropped)
		net_count(&c->tx_dropped, dropped);
	return i;
}

/* ------------------------------------------------------------------ receiving */

/*
 * The buffer's room, a vnet header in front of it, a byte behind it that nobody wants: if it is
 * filled, the frame was longer than the room (the kernel cuts it without a word). Returns the
 * number of pieces.
 */
static int tap_iov_fill(
	struct tap_port *t, struct tap_queue *q, struct net_buffer *buf, char *spare)
{
	uint32_t left = buf->room;
	int niov = 0;

	if (t->vnet)
		q->iov[niov++] = (struct iovec){&buf->hdr, sizeof(buf->hdr)};
	for (uint32_t i = 0; i < buf->nsegs && i < TAP_SEGS_MAX && left; i++) {
		size_t len = buf->segs[i].iov_len < left ? buf->segs[i].iov_len : left;

		q->iov[niov++] = (struct iovec){buf->segs[i].iov_base, len};
		left -= (uint32_t)len;
	}
	buf->room -= left;
	q->iov[niov++] = (struct iovec){spare, 1};
	return niov;
}

/* 1: a frame. 0: one was lost. -errno: nothing there. */
static int tap_receive_one(struct tap_port *t, unsigned queue, struct net_buffer *buf)
{
	struct tap_queue *q = &t->queue[queue];
	size_t front = t->vnet ? sizeof(buf->hdr) : 0;
	ssize_t got;
	char spare;
	int niov;

	memset(&buf->hdr, 0, sizeof(buf->hdr));
	niov = tap_iov_fill(t, q, buf, &spare);
	net_count(&t->port.counters[queue].c.system_calls, 1);
	got = readv(q->fd, q->iov, niov);
	if (got < 0) {
		if (errno == EBADFD)
			tap_gone(t, queue);
		/* The kernel has let go of a frame it could not copy. */
		return errno == EFAULT || errno == EINVAL ? 0 : -errno;
	}
	if ((size_t)got <= front || (size_t)got > front + buf->room)
		return 0;
	buf->len = (uint32_t)((size_t)got - front);
	/* The kernel fills ten of the header's twelve bytes. */
	buf->hdr.num_buffers = 1;
	return 1;
}

static unsigned tap_receive(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n)
{
	struct tap_port *t = tap_of(port);
	struct net_counters *c = &port->counters[queue].c;
	uint64_t bytes = 0, dropped = 0;
	unsigned done = 0;

	if (t->queue[queue].gone)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		int got = tap_receive_one(t, queue, &bufs[done]);

		if (got < 0)
			break;
		if (got)
			bytes += bufs[done++].len;
		else
			dropped++;
	}
	net_count(&c->rx_packets, done);
	net_count(&c->rx_bytes, bytes);
	if (dropped)
		net_count(&c->rx_dropped, dropped);
	return done;
}

/* ------------------------------------------------------------------ the rest */

static int tap_fd(const struct net_port *port, unsigned queue)
{
	return tap_of(port)->queue[queue].fd;
}

static bool tap_ready(const struct net_port *port, unsigned queue)
{
	(void)port;
	(void)queue;
	return true;
}

unsigned net_tap_offload_bits(uint32_t offloads)
{
	unsigned bits = 0;

	/* The kernel refuses segmentation without checksums. */
	if (!(offloads & NET_OFFLOAD_CSUM))
		return 0;
	bits |= TAP_F_CSUM;
	if (offloads & NET_OFFLOAD_TSO4)
		bits |= TAP_F_TSO4;
	if (offloads & NET_OFFLOAD_TSO6)
		bits |= TAP_F_TSO6;
	if (offloads & NET_OFFLOAD_ECN)
		bits |= TAP_F_TSO_ECN;
	if (offloads & NET_OFFLOAD_UFO)
		bits |= TAP_F_UFO;
	if (offloads & NET_OFFLOAD_USO)
		bits |= TAP_F_USO4 | TAP_F_USO6;
	return bits;
}

static int tap_offloads_set(struct net_port *port, uint32_t offloads)
{
	struct tap_port *t = tap_of(port);

	/* Without a vnet header the kernel has never been told of any. */
	if (!t->vnet || t->queue[0].gone)
		return 0;
	return ioctl(t->queue[0].fd, TUNSETOFFLOAD, (unsigned long)net_tap_offload_bits(offloads))
		       ? -errno
		       : 0;
}

static int tap_queue_attach(struct tap_port *t, unsigned queue, bool attach)
{
	struct ifreq ifr = {0};

	ifr.ifr_flags = attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
	return ioctl(t->queue[queue].fd, TUNSETQUEUE, &ifr) ? -errno : 0;
}

static int tap_queues_set(struct net_port *port, unsigned queues)
{
	struct tap_port *t = tap_of(port);
	unsigned now = atomic_load(&port->in_use);
	int err = 0;

	/* in_use never counts a detached queue, or tap_gone() would take it for a deleted
	 * interface. */
	if (queues < now)
		atomic_store(&port->in_use, queues);
	for (unsigned q = queues; q < now && !err; q++)
		err = tap_queue_attach(t, q, false);
	if (queues < now)
		return err;
	for (unsigned q = now; q < queues; q++) {
		err = tap_queue_attach(t, q, true);
		if (err) {
			while (q-- > now)
				tap_queue_attach(t, q, false);
			return err;
		}
	}
	atomic_store(&port->in_use, queues);
	return 0;
}

static void tap_close(struct net_port *port)
{
	struct tap_port *t = tap_of(port);

	/* A tap that was made with its first descriptor goes with its last. */
	for (unsigned q = 0; q < port->queues; q++) {
		close(t->queue[q].fd);
		free(t->queue[q].spill);
	}
	close(t->quiet_fd);
	if (t->link_fd >= 0)
		close(t->link_fd);
	free(t);
}

const char *net_tap_name(const struct net_port *port)
{
	return port->ops == &net_tap_ops ? tap_of(port)->name : NULL;
}

const struct net_ops net_tap_ops = {
	.kind = "tap",
	.send = tap_send,
	.receive = tap_receive,
	.fd = tap_fd,
	.tx_fd = tap_fd,
	.rx_ready = tap_ready,
	.link = net_tap_link,
	.link_fd = net_tap_link_fd,
	.offloads_set = tap_offloads_set,
	.queues_set = tap_queues_set,
	.close = tap_close,
};
