/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-console: the guest's output to a descriptor or a callback, and waiting for descriptors. */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/split_console_priv.h"

#define CON_POLL_BYTES  (128u << 10) /* output of one poll: disks wait on this thread */
#define CON_WRITE_BYTES (64u << 10)
#define CON_WRITE_SLOW  512u     /* to what may block although it says it is ready */
#define CON_LOOK_NS     1000000u /* between looks at the descriptors of a thread that is awake */

/* ------------------------------------------------------------------ descriptors */

void vcon_arm(struct vcon *v, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events | EPOLLONESHOT, .data.u32 = events};

	counter_add(&v->common.counters.system_calls, 1);
	epoll_ctl(v->epoll_fd, EPOLL_CTL_MOD, fd, &ev);
}

static void vcon_events(struct vcon *v)
{
	struct epoll_event ev[2];
	int n;

	counter_add(&v->common.counters.system_calls, 1);
	n = epoll_wait(v->epoll_fd, ev, 2, 0);
	for (int i = 0; i < n; i++) {
		if (ev[i].data.u32 == EPOLLOUT) {
			v->out_blocked = false;
		} else if (ev[i].data.u32 == EPOLLIN) {
			v->in_armed = false;
			v->in_ready = true;
		}
	}
}

void vcon_watch_ready(struct io_watch *w)
{
	vcon_events((struct vcon *)((char *)w - offsetof(struct vcon, watch)));
}

/* Descriptors wake a sleeping thread; one that is kept awake by other work looks now and then. */
void vcon_look(struct vcon *v)
{
	uint64_t now_ns;

	if (!v->in_armed && !(v->out_blocked && v->out_watched))
		return;
	now_ns = io_thread_now_ns(v->common.io);
	if (now_ns < v->look_ns)
		return;
	v->look_ns = now_ns + CON_LOOK_NS;
	vcon_events(v);
}

/* ------------------------------------------------------------------ output */

static void vcon_block(struct vcon *v)
{
	v->out_blocked = true;
	if (v->out_watched)
		vcon_arm(v, v->o.out_fd, EPOLLOUT);
}

/* One call: how many bytes are out; 0: no room. What cannot be written is lost, and counted. */
static size_t vcon_write(struct vcon *v, struct iovec *iov, uint32_t n, size_t len)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
	struct pollfd p = {.fd = v->o.out_fd, .events = POLLOUT};
	ssize_t rc;

	do {
		counter_add(&v->common.counters.system_calls, 1);
		if (v->out == CON_SOCKET) {
			rc = sendmsg(v->o.out_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		} else if (v->out == CON_WRITE) {
			rc = writev(v->o.out_fd, iov, (int)n);
		} else {
			rc = poll(&p, 1, 0);
			if (rc == 0)
				return 0;
			len = iov->iov_len < CON_WRITE_SLOW ? iov->iov_len : CON_WRITE_SLOW;
			rc = write(v->o.out_fd, iov->iov_base, len);
		}
	} while (rc < 0 && errno == EINTR);
	if (rc > 0)
		return (size_t)rc;
	if (rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	counter_add(&v->common.counters.errors, 1);
	counter_add(&v->common.counters.dropped, len);
	return len;
}

/* The same to a callback, which sees a copy that the guest cannot change. */
static size_t vcon_call(struct vcon *v, const struct iovec *iov, uint32_t n)
{
	size_t have = 0, took;

	for (uint32_t i = 0; i < n && have < CON_BOUNCE; i++) {
		size_t part = iov[i].iov_len;

		if (part > CON_BOUNCE - have)
			part = CON_BOUNCE - have;
		memcpy(v->bounce + have, iov[i].iov_base, part);
		have += part;
	}
	took = v->o.output(v->o.ctx, v->bounce, have);
	return took < have ? took : have;
}

/*
 * Bytes from `done` on, as many as the host takes and `budget` allows. Returns how far it got;
 * short of len the host is full or the budget is used up.
 */
static uint32_t vcon_out(
	struct vcon *v, const struct ring_seg *segs, uint32_t n, uint32_t done, size_t *budget)
{
	struct iovec iov[CON_CHAIN_MAX];
	uint64_t skip = done;

	while (n && *budget) {
		size_t len = 0, took;
		uint32_t niov = 0;

		while (n && skip >= segs->len) {
			skip -= segs->len;
			segs++;
			n--;
		}
		for (uint32_t i = 0; i < n && len < CON_WRITE_BYTES && len < *budget; i++) {
			size_t part = segs[i].len - (i ? 0 : skip), most = *budget - len;

			iov[niov].iov_base = (uint8_t *)segs[i].base + (i ? 0 : skip);
			iov[niov].iov_len = part < most ? part : most;
			len += iov[niov++].iov_len;
		}
		if (!niov)
			break;
		if (v->out == CON_NOWHERE)
			took = len;
		else if (v->out == CON_HOOK)
			took = vcon_call(v, iov, niov);
		else
			took = vcon_write(v, iov, niov, len);
		if (!took) {
			vcon_block(v);
			break;
		}
		skip += took;
		done += (uint32_t)took;
		*budget -= took < *budget ? took : *budget;
	}
	return done;
}

/* How many of n buffers are out entirely. */
static unsigned vcon_tx_batch(struct vcon *v, unsigned n, size_t *budget)
{
	for (unsigned i = 0; i < n; i++) {
		const struct ring_chain *chain = &v->chains[i];
		uint32_t before = v->tx_done;

		if (!chain->nout || before > chain->out_len) {
			/* nothing to read, or not the buffer that it was */
			counter_add(&v->common.counters.malformed, 1);
		} else {
			v->tx_done = vcon_out(v, chain->segs, chain->nout, before, budget);
			counter_add(&v->common.counters.bytes, v->tx_done - before);
			if (v->tx_done < chain->out_len)
				return i;
		}
		v->tx_done = 0;
		v->used[i] = (struct ring_used){.id = chain->id};
	}
	return n;
}

unsigned vcon_tx_poll(struct vcon *v)
{
	struct split_queue *q = &v->common.queues[TXQ];
	size_t budget = CON_POLL_BYTES;
	unsigned total = 0, n, done;

	while (budget && !v->out_blocked && split_queue_live(q) && ring_device_has_work(&q->ring)) {
		uint64_t started_ns = clock_now_ns();

		n = split_popped(&v->common,
			ring_device_pop(&q->ring, v->chains, CON_BATCH, v->segs, CON_SEGS));
		if (!n)
			break;
		done = vcon_tx_batch(v, n, &budget);
		if (done < n)
			ring_device_unpop(&q->ring, v->chains + done, n - done);
		split_queue_push(q, v->used, done);
		counter_add(&v->common.counters.requests, done);
		histogram_add_n(&q->latency, clock_now_ns() - started_ns, done);
		/* part of a buffer is work too */
		total += done ? done : !v->out_blocked;
	}
	return total;
}

/* What was written to the emergency register (5.3.4), ahead of anything that waits in the queue. */
unsigned vcon_emerg_poll(struct vcon *v)
{
	struct ring_seg seg = {v->bounce, 0};
	size_t budget = CON_EMERG;
	uint8_t copy[CON_EMERG];
	uint32_t done;

	/* in the middle of a buffer it would tear the line */
	if (v->out_blocked || v->tx_done)
		return 0;
	pthread_mutex_lock(&v->lock);
	seg.len = v->emerg_len;
	memcpy(copy, v->emerg, seg.len);
	pthread_mutex_unlock(&v->lock);
	if (!seg.len)
		return 0;
	seg.base = copy;
	done = vcon_out(v, &seg, 1, 0, &budget);
	pthread_mutex_lock(&v->lock);
	v->emerg_len -= done;
	memmove(v->emerg, v->emerg + done, v->emerg_len);
	pthread_mutex_unlock(&v->lock);
	counter_add(&v->common.counters.bytes, done);
	return done;
}
