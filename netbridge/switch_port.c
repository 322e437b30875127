/* SPDX-License-Identifier: BSD-2-Clause */
/* Ports of the switch: added, changed, removed and counted while frames flow. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "netbridge/switch_priv.h"

/* ------------------------------------------------------------------ what the user of one sees */

static unsigned offered_send(
	struct net_port *port, unsigned queue, struct net_packet *const *pkts, unsigned n)
{
	struct switch_port *p = (struct switch_port *)port;

	(void)queue;
	switch_forward(p->worker, p, pkts, n);
	return n;
}

static unsigned offered_receive(
	struct net_port *port, unsigned queue, struct net_buffer *bufs, unsigned n)
{
	struct switch_port *p = (struct switch_port *)port;

	return net_fifo_receive(&p->q[queue].fifo,
		atomic_load_explicit(&port->accepted, memory_order_relaxed), bufs, n,
		&port->counters[queue].c);
}

static bool offered_rx_ready(const struct net_port *port, unsigned queue)
{
	return net_fifo_ready(&((const struct switch_port *)port)->q[queue].fifo);
}

static void offered_taker_set(struct net_port *port, unsigned queue, const struct net_taker *taker)
{
	struct switch_port *p = (struct switch_port *)port;

	p->q[queue].taker = taker ? *taker : (struct net_taker){0};
	/* what came while nobody was there is stale */
	net_fifo_drain(&p->q[queue].fifo);
}

static void offered_counters_add(const struct net_port *port, struct net_counters *sum)
{
	const struct switch_port *p = (const struct switch_port *)port;

	sum->tx_packets = __atomic_load_n(&p->c.rx_packets, __ATOMIC_RELAXED);
	sum->tx_bytes = __atomic_load_n(&p->c.rx_bytes, __ATOMIC_RELAXED);
	sum->tx_dropped = __atomic_load_n(&p->limited_in, __ATOMIC_RELAXED) +
			  __atomic_load_n(&p->filtered, __ATOMIC_RELAXED);
	sum->rx_packets = __atomic_load_n(&p->c.tx_packets, __ATOMIC_RELAXED);
	sum->rx_bytes = __atomic_load_n(&p->c.tx_bytes, __ATOMIC_RELAXED);
	sum->errors = __atomic_load_n(&p->c.errors, __ATOMIC_RELAXED);
}

static void offered_close(struct net_port *port)
{
	/* the memory is the switch's, until the port is removed */
	atomic_store(&((struct switch_port *)port)->closed, true);
}

const struct net_ops switch_offered_ops = {
	.kind = "offered",
	.send = offered_send,
	.receive = offered_receive,
	.rx_ready = offered_rx_ready,
	.taker_set = offered_taker_set,
	.counters_add = offered_counters_add,
	.close = offered_close,
};

/* ------------------------------------------------------------------ options */

static bool name_valid(const char *name)
{
	size_t n =
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

	return n && n <= NET_SWITCH_NAME_MAX && !name[n];
}

static int conf_make(
	struct switch_conf **out, const struct net_switch_port_options *o, char why[NET_WHY_MAX])
{
	static const uint64_t none[64];
	struct switch_conf *c;

	if (!name_valid(o->name))
		return net_why(why, -EINVAL, "name=%.40s: use 1 to %u letters, digits, - _ and .",
			o->name, NET_SWITCH_NAME_MAX);
	if (o->vlan > NET_VLAN_MAX)
		return net_why(why, -EINVAL, "vlan=%u: use 1 to %u", o->vlan, NET_VLAN_MAX);
	c = calloc(1, sizeof(*c));
	if (!c)
		return net_why(why, -ENOMEM, "no memory");
	c->o = *o;
	c->o.join = NULL;
	if (!o->trunk && !o->vlan)
		c->o.vlan = 1;
	c->all_vlans = o->trunk && !memcmp(o->allowed, none, sizeof(none));
	*out = c;
	return 0;
}

/* ------------------------------------------------------------------ life; `control` is held */

static struct switch_port *port_find(struct net_switch *sw, const char *name)
{
	unsigned end = atomic_load(&sw->ports_end);

	for (unsigned i = 0; i < end; i++) {
		struct switch_port *p = switch_port_at(sw, i);

		if (p && !strcmp(switch_conf(p)->o.name, name))
			return p;
	}
	return NULL;
}

static void port_free(struct switch_port *p)
{
	for (unsigned q = 0; q < p->queues && !p->join; q++)
		net_fifo_destroy(&p->q[q].fifo);
	free(atomic_load(&p->conf));
	free(p);
}

static int port_make(struct net_switch *sw, const struct net_switch_port_options *o,
	struct switch_port **out, char why[NET_WHY_MAX])
{
	struct switch_port *p = net_port_alloc(sizeof(*p));
	struct switch_conf *conf = NULL;
	int err = conf_make(&conf, o, why);

	if (!p || !conf) {
		free(p);
		free(conf);
		return err ? err : net_why(why, -ENOMEM, "no memory");
	}
	p->sw = sw;
	p->worker = &sw->workers[o->worker];
	p->join = o->join;
	p->queues = o->join ? net_port_queues(o->join) : o->queues ? o->queues : 1;
	atomic_init(&p->conf, conf);
	net_port_init(&p->port, &switch_offered_ops, p->queues, SWITCH_OFFLOADS);
	if (o->join)
		err = net_port_offloads_set(o->join, net_port_offloads(o->join) & SWITCH_OFFLOADS);
	for (unsigned q = 0; q < p->queues && !o->join && !err; q++)
		err = net_fifo_init(&p->q[q].fifo);
	if (err) {
		port_free(p);
		return net_why(why, err, "%s", strerror(-err));
	}
	*out = p;
	return 0;
}

static unsigned index_free(const struct net_switch *sw)
{
	unsigned i = 0;

	while (i < NET_SWITCH_PORTS_MAX && switch_port_at(sw, i))
		i++;
	return i;
}

static int port_add(struct net_switch *sw, const struct net_switch_port_options *o,
	struct switch_port **out, char why[NET_WHY_MAX])
{
	unsigned index = index_free(sw);
	struct switch_port *p = NULL;
	int err;

	if (port_find(sw, o->name))
		return net_why(why, -EEXIST, "name=%s: there is such a port", o->name);
	if (index == NET_SWITCH_PORTS_MAX)
		return net_why(why, -ENOSPC, "there are %u ports, which is the most",
			NET_SWITCH_PORTS_MAX);
	err = port_make(sw, o, &p, why);
	if (!p)
		return err;
	p->index = index;
	err = p->join ? switch_join_watch(p, true) : 0;
	if (err) {
		switch_join_watch(p, false);
		port_free(p);
		return net_why(why, err, "cannot watch the port: %s", strerror(-err));
	}
	atomic_store(&sw->ports[index], p);
	if (index >= atomic_load(&sw->ports_end))
		atomic_store(&sw->ports_end, index + 1);
	*out = p;
	return 0;
}

int net_switch_port_add(struct net_switch *sw, const struct net_switch_port_options *opts,
	struct net_port **out, char why[NET_WHY_MAX])
{
	struct switch_port *p = NULL;
	int err;

	if (opts->worker >= sw->o.workers)
		return net_why(why, -EINVAL, "worker=%u: there are 0 to %u", opts->worker,
			sw->o.workers - 1);
	if (opts->queues > NET_QUEUES_MAX)
		return net_why(
			why, -EINVAL, "queues=%u: use 1 to %u", opts->queues, NET_QUEUES_MAX);
	pthread_mutex_lock(&sw->control);
	err = port_add(sw, opts, &p, why);
	pthread_mutex_unlock(&sw->control);
	/* its worker may have gone to sleep without it, and a port that is polled wakes nobody */
	if (p && p->join && sw->o.wake)
		sw->o.wake(sw->o.ctx, opts->worker);
	if (p && out)
		*out = p->join ? NULL : &p->port;
	return err;
}

int net_switch_port_remove(struct net_switch *sw, const char *name)
{
	struct switch_port *p;
	struct net_port *join = NULL;
	int err = 0;

	pthread_mutex_lock(&sw->control);
	p = port_find(sw, name);
	if (!p) {
		err = -ENOENT;
	} else if (!p->join && !atomic_load(&p->closed)) {
		err = -EBUSY;
	} else {
		if (p->join)
			switch_join_watch(p, false);
		atomic_store(&sw->ports[p->index], NULL);
		switch_rounds_wait(sw);
		switch_macs_forget(&sw->macs, p->index);
		join = p->join;
		port_free(p);
	}
	pthread_mutex_unlock(&sw->control);
	net_port_close(join);
	return err;
}

int net_switch_port_set(
	struct net_switch *sw, const struct net_switch_port_options *opts, char why[NET_WHY_MAX])
{
	struct switch_conf *conf = NULL, *old;
	struct switch_port *p;
	int err;

	pthread_mutex_lock(&sw->control);
	p = port_find(sw, opts->name);
	err = p ? conf_make(&conf, opts, why)
		: net_why(why, -ENOENT, "name=%.40s: there is no such port", opts->name);
	if (p && conf) {
		conf->o.worker = p->worker->index;
		conf->o.queues = p->queues;
		old = atomic_exchange(&p->conf, conf);
		switch_rounds_wait(sw);
		free(old);
		/* in another VLAN it is another's address */
		switch_macs_forget(&sw->macs, p->index);
	}
	pthread_mutex_unlock(&sw->control);
	return err;
}

/* ------------------------------------------------------------------ what there is */

static uint64_t load(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void info_fill(const struct switch_port *p, struct net_switch_port_info *out)
{
	*out = (struct net_switch_port_info){
		.options = switch_conf(p)->o,
		.kind = p->join ? net_port_kind(p->join) : "offered",
		.counters =
			{
				.tx_packets = load(&p->c.tx_packets),
				.tx_bytes = load(&p->c.tx_bytes),
				.tx_dropped = load(&p->c.tx_dropped),
				.rx_packets = load(&p->c.rx_packets),
				.rx_bytes = load(&p->c.rx_bytes),
				.errors = load(&p->c.errors),
			},
		.limited_in = load(&p->limited_in),
		.limited_out = load(&p->limited_out),
		.filtered = load(&p->filtered),
		.flooded = load(&p->flooded),
		.full = load(&p->full),
	};
	if (p->join) {
		struct net_counters join;

		net_port_counters_get(p->join, &join);
		out->counters.system_calls = join.system_calls;
		out->counters.rx_dropped = join.rx_dropped;
	}
}

unsigned net_switch_ports_get(struct net_switch *sw, struct net_switch_port_info *out, unsigned max)
{
	unsigned n = 0, end;

	pthread_mutex_lock(&sw->control);
	end = atomic_load(&sw->ports_end);
	for (unsigned i = 0; i < end; i++) {
		struct switch_port *p = switch_port_at(sw, i);

		if (!p)
			continue;
		if (n < max)
			info_fill(p, &out[n]);
		n++;
	}
	pthread_mutex_unlock(&sw->control);
	return n;
}

unsigned net_switch_macs_get(struct net_switch *sw, struct net_switch_mac *out, unsigned max)
{
	struct switch_mac_seen *seen = calloc(max ? max : 1, sizeof(*seen));
	struct timespec t;
	unsigned n, k = 0;

	if (!seen)
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &t);
	pthread_mutex_lock(&sw->control);
	n = switch_macs_list(&sw->macs, (uint32_t)t.tv_sec, seen, max);
	for (unsigned i = 0; i < n && i < max; i++) {
		const struct switch_port *p = switch_port_at(sw, seen[i].port);
		uint64_t mac = seen[i].key >> 12;

		if (!p)
			continue;
		for (unsigned b = 0; b < 6; b++)
			out[k].mac[b] = (uint8_t)(mac >> (40 - 8 * b));
		out[k].vlan = seen[i].key & 0xfff;
		out[k].age_s = seen[i].age_s;
		memcpy(out[k].port, switch_conf(p)->o.name, sizeof(out[k].port));
		k++;
	}
	pthread_mutex_unlock(&sw->control);
	free(seen);
	return n > max ? n : k;
}

void net_switch_macs_flush(struct net_switch *sw)
{
	switch_macs_forget(&sw->macs, SWITCH_FLOOD);
}
