/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ports of sluice-bridge. One that a virtual machine uses belongs to the switch for as long as it
 * is configured, whoever comes and goes at its socket: name, VLAN and counters stay.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend_priv.h"
#include "backend/bridge_priv.h"

/* ------------------------------------------------------------------ vhost-user */

static int device_create(void *ctx, unsigned connection, struct split_device **out,
	const struct ring_mem *mem, const struct split_signal *signal, char why[BACKEND_WHY_MAX])
{
	struct bridge_port *p = ctx;
	const struct split_net_options o = {
		.port = p->port,
		.pairs = p->spec.queues,
		.queue_size = 1024,
		.ring = p->spec.ring,
		.no_control = true,
		.in_order = true, /* frames are used as they come */
	};

	(void)connection;
	return split_net_create(
		out, p->bridge->workers[p->spec.sw.worker].io, mem, signal, &o, why);
}

static void port_note(void *ctx, unsigned connection, const char *line)
{
	struct bridge_port *p = ctx;

	(void)connection;
	fprintf(stderr, "sluice-bridge: port %s: %s\n", p->spec.sw.name, line);
}

/* The socket comes last: whoever finds it finds the port. */
static int vhost_open(struct bridge_port *p, char why[BACKEND_WHY_MAX])
{
	const struct vhost_server_options o = {
		.path = p->spec.target,
		.fd = -1,
		.mode = p->spec.mode,
		.create = device_create,
		.note = port_note,
		.ctx = p,
	};
	int rc = vhost_server_create(&p->server, &o, why);

	if (rc) {
		net_port_close(p->port);
		net_switch_port_remove(p->bridge->sw, p->spec.sw.name);
	}
	return rc;
}

/* ------------------------------------------------------------------ the others */

static int mem_open(const struct bridge_spec *s, struct net_port **out, char *why)
{
	struct net_mem_options o = {.kind = NET_MEM_SINK, .queues = s->queues};

	if (!strcmp(s->target, "source"))
		o.kind = NET_MEM_SOURCE;
	else if (!strcmp(s->target, "echo"))
		o.kind = NET_MEM_ECHO;
	return net_mem_open(out, &o, why);
}

static int join_open(const struct bridge_spec *s, struct net_port **out, char *why)
{
	const struct net_tap_options tap = {.name = s->target, .queues = s->queues};

	*out = NULL;
	switch (s->kind) {
	case BRIDGE_TAP:
		return net_tap_open(out, &tap, why);
	case BRIDGE_AF_XDP:
		return net_xdp_open(out, s->target, s->queues, why);
	case BRIDGE_DPDK:
		return net_dpdk_open(out, s->target, s->queues, why);
	case BRIDGE_MEM:
		return mem_open(s, out, why);
	default:
		return 0;
	}
}

/* ------------------------------------------------------------------ all of them */

struct bridge_port *bridge_port_find(struct bridge *b, const char *name)
{
	struct bridge_port *p = b->ports;

	while (p && strcmp(p->spec.sw.name, name))
		p = p->next;
	return p;
}

/* The worker that has the fewest ports. */
static unsigned worker_choose(const struct bridge *b)
{
	unsigned count[NET_SWITCH_WORKERS_MAX] = {0}, best = 0;

	for (const struct bridge_port *p = b->ports; p; p = p->next)
		count[p->spec.sw.worker]++;
	for (unsigned i = 1; i < b->nworkers; i++)
		if (count[i] < count[best])
			best = i;
	return best;
}

static void name_choose(struct bridge *b, char name[NET_SWITCH_NAME_MAX + 1])
{
	while (!*name || bridge_port_find(b, name))
		snprintf(name, NET_SWITCH_NAME_MAX + 1, "port%u", b->serial++);
}

static int spec_place(struct bridge *b, struct bridge_spec *s, char why[BACKEND_WHY_MAX])
{
	if (!*s->sw.name)
		name_choose(b, s->sw.name);
	if (bridge_port_find(b, s->sw.name)) {
		backend_why(why, "name=%s: there is such a port; use another name", s->sw.name);
		return -EEXIST;
	}
	if (s->sw.worker == BRIDGE_WORKER_ANY)
		s->sw.worker = worker_choose(b);
	if (s->sw.worker >= b->nworkers) {
		backend_why(why, "worker=%u: there are 0 to %u", s->sw.worker, b->nworkers - 1);
		return -EINVAL;
	}
	s->sw.queues = s->queues;
	return 0;
}

int bridge_port_add(struct bridge *b, const struct bridge_spec *spec, struct bridge_port **out,
	char why[BACKEND_WHY_MAX])
{
	struct bridge_port *p = calloc(1, sizeof(*p)), **at = &b->ports;
	int rc;

	if (!p) {
		backend_why(why, "no memory");
		return -ENOMEM;
	}
	p->bridge = b;
	p->spec = *spec;
	rc = spec_place(b, &p->spec, why);
	if (rc)
		goto fail;
	rc = join_open(&p->spec, &p->spec.sw.join, why);
	if (rc)
		goto fail;
	rc = net_switch_port_add(b->sw, &p->spec.sw, &p->port, why);
	if (rc) {
		if (p->spec.sw.join)
			net_port_close(p->spec.sw.join);
		goto fail;
	}
	p->spec.sw.join = NULL;
	rc = p->spec.kind == BRIDGE_VHOST_USER ? vhost_open(p, why) : 0;
	if (rc)
		goto fail;
	while (*at)
		at = &(*at)->next;
	*at = p;
	b->nports++;
	if (out)
		*out = p;
	return 0;
fail:
	free(p);
	return rc;
}

void bridge_port_remove(struct bridge *b, struct bridge_port *p)
{
	struct bridge_port **at = &b->ports;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	b->nports--;
	if (p->server) {
		vhost_server_destroy(p->server);
		net_port_close(p->port);
	}
	net_switch_port_remove(b->sw, p->spec.sw.name);
	free(p);
}

int bridge_port_change(
	struct bridge_port *p, const struct bridge_spec *spec, char why[BACKEND_WHY_MAX])
{
	int rc = net_switch_port_set(p->bridge->sw, &spec->sw, why);

	if (!rc)
		p->spec = *spec;
	return rc;
}
