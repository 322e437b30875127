/* SPDX-License-Identifier: BSD-2-Clause */
/* Network jobs: send to whoever takes it, receive and check, or send and check what comes back. */
#include "perf/guest/guest_priv.h"

#define PORTS_MAX    8u
#define SEQ_TABLE    65536u
#define ECHO_LOST_NS 200000000ull

struct port {
	char dev[16];
	uint32_t index, queues;
	struct frontend_net *net;
};

/* A frame of ours. With echo it is free again when it was both sent and received back. */
struct slot {
	uint8_t *frame;
	uint64_t seq;
	uint64_t queued;
	bool sending;
	bool awaited;
};

struct run {
	const struct job *job;
	struct result *result;
	struct frontend_net *net;
	bool tcp;
	uint16_t gso_size;
	bool timed;
	bool reported;
	uint64_t seq;
	unsigned nfree;
	unsigned queue;
	uint16_t free[JOB_DEPTH_MAX];
	struct slot slots[JOB_DEPTH_MAX];
	uint16_t *by_seq;  /* slot + 1 of an awaited frame, by the low bits of its number */
	uint64_t last[16]; /* receive: number last seen, for each queue */
	bool started[16];
};

static struct port ports[PORTS_MAX];
static struct run run;

static struct frontend_net *port_get(const struct job *j)
{
	struct port *p = ports;
	int r;

	while (p < ports + PORTS_MAX && p->dev[0] &&
		(strcmp(p->dev, j->dev) || p->index != j->dev_index))
		p++;
	if (p == ports + PORTS_MAX) {
		job_error(j, "too many ports");
		return NULL;
	}
	if (p->net && p->queues == j->queues)
		return p->net;
	if (!strcmp(j->dev, "virtio-net"))
		r = virtio_net_open(j->dev_index, j->queues, &j->virtio, &p->net);
	else if (!strcmp(j->dev, "e1000"))
		r = e1000_open(j->dev_index, &p->net);
	else if (!strcmp(j->dev, "ne2k_pci"))
		r = ne2000_open(j->dev_index, &p->net);
	else if (!strcmp(j->dev, "rtl8139"))
		r = rtl8139_open(j->dev_index, &p->net);
	else
		r = -GUEST_ENODEV;
	if (r) {
		job_error(j, "dev=%s index=%u queues=%u cannot be opened (%d)", j->dev,
			j->dev_index, j->queues, r);
		p->net = NULL;
		return NULL;
	}
	memcpy(p->dev, j->dev, sizeof(p->dev));
	p->index = j->dev_index;
	p->queues = j->queues;
	return p->net;
}

static void fault(struct run *r, const char *what, uint64_t seq, int code)
{
	r->result->errors++;
	if (r->reported)
		return;
	r->reported = true;
	job_error(r->job, "%s seq=%lu code=%d", what, seq, code);
}

/* ------------------------------------------------------------------ sending */

static int send_one(struct run *r, uint16_t n, uint64_t now)
{
	struct slot *s = &r->slots[n];
	struct frontend_net_tx tx = {
		.frame = s->frame,
		.len = r->job->size,
		.gso_size = r->gso_size,
		.gso_tcp = r->tcp,
		.token = n,
	};
	int e;

	pattern_frame_stamp(s->frame, r->job->size, r->tcp, r->seq);
	s->seq = r->seq;
	s->queued = now;
	e = r->net->ops->send(r->net, r->queue, &tx);
	if (e)
		return e;
	s->sending = true;
	if (r->by_seq) {
		s->awaited = true;
		r->by_seq[r->seq % SEQ_TABLE] = (uint16_t)(n + 1);
	}
	r->seq++;
	return 0;
}

static int send_all(struct run *r, uint64_t now)
{
	unsigned n = 0, full = 0;

	while (r->nfree && full < r->net->queues) {
		int e = send_one(r, r->free[r->nfree - 1], now);

		r->queue = r->queue + 1 < r->net->queues ? r->queue + 1 : 0;
		if (e == -GUEST_ENOSPC) {
			full++;
			continue;
		}
		if (e) {
			job_error(r->job, "the device refuses frames of %u bytes (%d)",
				r->job->size, e);
			return e;
		}
		r->nfree--;
		n++;
		full = 0;
	}
	/* Also when nothing is new: a device that takes one frame at a time is given its next. */
	r->net->ops->kick(r->net);
	return (int)n;
}

static void slot_release(struct run *r, uint16_t n)
{
	if (!r->slots[n].sending && !r->slots[n].awaited)
		r->free[r->nfree++] = n;
}

static int sent_all(struct run *r)
{
	uint64_t tokens[JOB_BURST];
	int total = 0;

	for (unsigned q = 0; q < r->net->queues; q++) {
		int n = r->net->ops->sent(r->net, q, tokens, JOB_BURST);
		uint64_t now;

		if (n < 0)
			return n;
		now = clock_now();
		for (int i = 0; i < n; i++) {
			struct slot *s = &r->slots[tokens[i]];

			s->sending = false;
			if (r->timed && !r->by_seq) {
				hist_add(&r->result->hist, now - s->queued);
				r->result->requests++;
				r->result->bytes += r->job->size;
			}
			slot_release(r, (uint16_t)tokens[i]);
		}
		total += n;
	}
	return total;
}

/* ------------------------------------------------------------------ receiving */

static void echo_take(struct run *r, uint64_t seq, uint32_t len, uint64_t now)
{
	uint16_t n = r->by_seq[seq % SEQ_TABLE];
	struct slot *s = n ? &r->slots[n - 1] : NULL;

	if (!s || !s->awaited || s->seq != seq) {
		/* Given up for lost before, or sent by an earlier phase. */
		r->result->foreign++;
		return;
	}
	if (len < r->job->size)
		fault(r, "frame came back shorter", seq, (int)len);
	r->by_seq[seq % SEQ_TABLE] = 0;
	s->awaited = false;
	r->result->verified++;
	if (r->timed) {
		hist_add(&r->result->hist, now - s->queued);
		r->result->requests++;
		r->result->bytes += r->job->size;
	}
	slot_release(r, (uint16_t)(n - 1));
}

/* Numbers go up in each queue; those left out were lost on the way, which is not an error. */
static void stream_take(struct run *r, unsigned queue, uint64_t seq, uint32_t len)
{
	if (r->started[queue] && seq <= r->last[queue])
		fault(r, "number not above the one before", seq, (int)(r->last[queue] - seq));
	else if (r->started[queue] && r->timed)
		r->result->lost += seq - r->last[queue] - 1;
	r->started[queue] = true;
	r->last[queue] = seq;
	r->result->verified++;
	if (r->timed) {
		r->result->requests++;
		r->result->bytes += len;
	}
}

static void frame_take(
	struct run *r, unsigned queue, const struct frontend_net_rx *rx, uint64_t now)
{
	uint64_t seq = 0;
	int at = pattern_frame_check(rx->frame, rx->len, &seq);

	if (at == PATTERN_EHEADER) {
		r->result->foreign++;
	} else if (at < 0) {
		fault(r, "frame damaged", seq, at);
	} else if (r->by_seq) {
		if (at == 0)
			echo_take(r, seq, rx->len, now);
	} else if (at == 0) {
		stream_take(r, queue, seq, rx->len);
	} else if (r->timed) {
		/* A later segment: whole and right, but without the number to put it in order. */
		r->result->requests++;
		r->result->bytes += rx->len;
		r->result->verified++;
	}
}

static int receive_all(struct run *r)
{
	struct frontend_net_rx rx[JOB_BURST];
	int total = 0;

	for (unsigned q = 0; q < r->net->queues; q++) {
		int n = r->net->ops->receive(r->net, q, rx, JOB_BURST);
		uint64_t now;

		if (n < 0)
			return n;
		now = n ? clock_now() : 0;
		for (int i = 0; i < n; i++)
			frame_take(r, q, &rx[i], now);
		total += n;
	}
	return total;
}

/* ------------------------------------------------------------------ phases */

static void rest(struct run *r, bool rx, bool tx, uint64_t until)
{
	uint32_t seen = cpu_irq_total();

	if (!r->net->ops->wait_begin(r->net, rx, tx)) {
		if (until)
			cpu_idle_until(seen, until);
		else
			cpu_idle_guarded(seen);
	}
	r->net->ops->wait_end(r->net);
}

/* Frames of an echo that did not come back: their slots are used again once sent. */
static void awaited_drop(struct run *r)
{
	for (unsigned i = 0; i < r->job->depth; i++) {
		struct slot *s = &r->slots[i];

		if (!s->awaited)
			continue;
		s->awaited = false;
		r->by_seq[s->seq % SEQ_TABLE] = 0;
		r->result->lost++;
		slot_release(r, (uint16_t)i);
	}
}

static int phase(struct run *r, uint64_t end)
{
	const bool tx = r->job->work != JOB_RX, rx = r->job->work != JOB_TX;
	const uint64_t stall = clock_from_ns(JOB_STALL_NS), lost = clock_from_ns(ECHO_LOST_NS);
	uint64_t progress = clock_now();

	for (;;) {
		uint64_t now = clock_now();
		const bool stop = now >= end;
		int sent = tx ? sent_all(r) : 0;
		int got = rx ? receive_all(r) : 0;
		int queued = tx && !stop ? send_all(r, now) : 0;

		if (stop && tx)
			r->net->ops->kick(r->net);
		if (sent < 0 || got < 0) {
			job_error(r->job, "the device failed (%d)", sent < 0 ? sent : got);
			return -GUEST_EIO;
		}
		if (queued < 0)
			return queued;
		if (stop && (!tx || r->nfree == r->job->depth))
			return 0;
		if (sent || got || queued) {
			progress = now;
			continue;
		}
		if (rx && tx && now - progress > lost)
			awaited_drop(r);
		if (tx && now - progress > stall) {
			job_error(r->job, "no progress for %lu s",
				(unsigned long)(JOB_STALL_NS / 1000000000));
			return -GUEST_ETIMEDOUT;
		}
		if (now - progress > r->job->poll)
			rest(r, rx, tx, !tx ? end : rx ? progress + lost + stall / 1000 : 0);
		else
			cpu_relax();
	}
}

static int slots_make(struct run *r)
{
	const struct pattern_peers peers = {
		.mac_to = {0x02, 0, 0, 0, 0, 0xfe},
		.mac_from = {r->net->mac[0], r->net->mac[1], r->net->mac[2], r->net->mac[3],
			r->net->mac[4], r->net->mac[5]},
		.ip_to = 0x0a5c0001,   /* 10.92.0.1 */
		.ip_from = 0x0a5c0002, /* 10.92.0.2 */
	};
	const size_t room = (FRONTEND_NET_HEADROOM + r->job->size + 63) & ~63ul;

	r->nfree = r->job->depth;
	for (unsigned i = 0; i < r->nfree; i++) {
		/* The frame begins 16 bytes into a cache line: header and a small frame stay within
		 * two. */
		uint8_t *p = mem_temp_alloc(room, 64);

		if (!p) {
			job_error(r->job, "no memory for %u frames", r->job->depth);
			return -GUEST_ENOMEM;
		}
		r->free[i] = (uint16_t)(r->nfree - 1 - i);
		r->slots[i].frame = p + FRONTEND_NET_HEADROOM;
		pattern_frame_build(r->slots[i].frame, r->job->size, r->tcp, &peers, 0);
	}
	if (r->job->work != JOB_ECHO)
		return 0;
	r->by_seq = mem_temp_alloc(SEQ_TABLE * sizeof(*r->by_seq), 64);
	return r->by_seq ? 0 : -GUEST_ENOMEM;
}

static int gso_choose(struct run *r)
{
	const struct job *j = r->job;

	if (j->size <= PATTERN_FRAME_PLAIN || j->work == JOB_RX)
		return 0;
	if (!strcmp(j->gso, "udp") ? r->net->gso_udp : r->net->gso_tcp) {
		r->tcp = strcmp(j->gso, "udp");
		r->gso_size = PATTERN_MSS;
		return 0;
	}
	job_error(j, "size=%u needs segmentation, which %s does not offer", j->size, j->dev);
	return -GUEST_ENOTSUP;
}

static int measure(struct run *r)
{
	const struct job *j = r->job;
	uint64_t doorbells, start;
	uint32_t irqs;
	int e;

	if (j->warm_ms) {
		e = phase(r, clock_now() + clock_from_ns(j->warm_ms * 1000000));
		if (e)
			return e;
	}
	r->timed = true;
	r->result->lost = r->result->foreign = 0;
	irqs = r->net->ops->irqs(r->net);
	doorbells = r->net->doorbells;
	job_mark(j, MARK_BEGIN);
	start = clock_now();
	e = phase(r, start + clock_from_ns(j->ms * 1000000));
	r->result->cycles = clock_now() - start;
	job_mark(j, MARK_END);
	r->result->irqs = r->net->ops->irqs(r->net) - irqs;
	r->result->doorbells = r->net->doorbells - doorbells;
	return e;
}

int net_job(const struct job *j, struct result *result)
{
	struct run *r = &run;
	uintptr_t mark;
	int e;

	memset(r, 0, sizeof(*r));
	r->job = j;
	r->result = result;
	r->net = port_get(j);
	if (!r->net)
		return -GUEST_ENODEV;
	mark = mem_temp_mark();
	result->errors = 0 - r->net->errors;
	e = gso_choose(r);
	if (!e)
		e = slots_make(r);
	if (!e)
		e = measure(r);
	result->errors += r->net->errors;
	if (r->nfree == j->depth)
		mem_temp_release(mark);
	return e;
}
