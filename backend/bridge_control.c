/* SPDX-License-Identifier: BSD-2-Clause */
/* What sluice-bridge is asked and told by its control socket. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend_priv.h"
#include "backend/bridge_priv.h"

#define VALUE_MAX 4096u

static unsigned status_of(int err)
{
	switch (-err) {
	case EEXIST:
	case EADDRINUSE:
	case EBUSY:
	case ENOSPC:
		return 409;
	default:
		return program_status_of(err) == PROGRAM_USAGE ? 400 : 500;
	}
}

/* ------------------------------------------------------------------ a port as JSON */

struct net_switch_port_info *bridge_infos_get(struct bridge *b, unsigned *n)
{
	struct net_switch_port_info *infos = calloc(b->nports + 1, sizeof(*infos));

	if (infos)
		*n = net_switch_ports_get(b->sw, infos, b->nports);
	if (infos && *n > b->nports)
		*n = b->nports;
	return infos;
}

static void number_add(struct cJSON *o, const char *key, uint64_t v)
{
	cJSON_AddNumberToObject(o, key, (double)v);
}

static void vlans_add(struct cJSON *o, const struct net_switch_port_options *sw)
{
	struct cJSON *list;
	bool any = false;

	if (!sw->trunk) {
		number_add(o, "vlan", sw->vlan ? sw->vlan : 1);
		return;
	}
	for (unsigned i = 0; i < 64; i++)
		any |= sw->allowed[i] != 0;
	if (!any) {
		cJSON_AddStringToObject(o, "trunk", "all");
	} else {
		list = cJSON_AddArrayToObject(o, "trunk");
		for (unsigned v = 1; v <= NET_VLAN_MAX; v++)
			if (sw->allowed[v / 64] >> v % 64 & 1)
				cJSON_AddItemToArray(list, cJSON_CreateNumber(v));
	}
	number_add(o, "native", sw->vlan);
}

static void vhost_add(struct cJSON *o, const struct bridge_port *p)
{
	struct vhost_server_counters c;

	vhost_server_counters_get(p->server, &c);
	cJSON_AddStringToObject(o, "mode", p->spec.mode == VHOST_LISTEN ? "listen" : "connect");
	cJSON_AddStringToObject(o, "ring", p->spec.ring == SPLIT_RING_PACKED ? "packed" : "split");
	cJSON_AddBoolToObject(o, "connected", c.connected != 0);
	number_add(o, "connections", c.connections);
	number_add(o, "refused", c.refused);
}

static void counters_add(struct cJSON *o, const struct net_switch_port_info *info)
{
	struct cJSON *c = cJSON_AddObjectToObject(o, "counters");

	number_add(c, "rx_packets", info->counters.rx_packets);
	number_add(c, "rx_bytes", info->counters.rx_bytes);
	number_add(c, "rx_dropped", info->counters.rx_dropped);
	number_add(c, "tx_packets", info->counters.tx_packets);
	number_add(c, "tx_bytes", info->counters.tx_bytes);
	number_add(c, "tx_dropped", info->counters.tx_dropped);
	number_add(c, "limited_in", info->limited_in);
	number_add(c, "limited_out", info->limited_out);
	number_add(c, "filtered", info->filtered);
	number_add(c, "flooded", info->flooded);
	number_add(c, "full", info->full);
}

static struct cJSON *port_json(
	const struct bridge_port *p, const struct net_switch_port_info *infos, unsigned n)
{
	const struct net_switch_port_options *sw = &p->spec.sw;
	struct cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "name", sw->name);
	cJSON_AddStringToObject(o, bridge_kind_name(p->spec.kind), p->spec.target);
	number_add(o, "queues", p->spec.queues);
	number_add(o, "worker", sw->worker);
	vlans_add(o, sw);
	cJSON_AddBoolToObject(o, "isolated", sw->isolated);
	number_add(o, "rate-in", sw->in.bytes_per_s * 8);
	number_add(o, "rate-out", sw->out.bytes_per_s * 8);
	number_add(o, "pps-in", sw->in.frames_per_s);
	number_add(o, "pps-out", sw->out.frames_per_s);
	if (p->server)
		vhost_add(o, p);
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(infos[i].options.name, sw->name))
			counters_add(o, &infos[i]);
	return o;
}

static void port_answer(
	struct bridge *b, struct control_request *req, const struct bridge_port *one)
{
	unsigned n = 0;
	struct net_switch_port_info *infos = bridge_infos_get(b, &n);

	if (!infos) {
		control_fault(req, 500, "no memory");
		return;
	}
	if (one) {
		req->json = port_json(one, infos, n);
	} else {
		req->json = cJSON_CreateArray();
		for (const struct bridge_port *p = b->ports; p; p = p->next)
			cJSON_AddItemToArray(req->json, port_json(p, infos, n));
	}
	free(infos);
}

/* ------------------------------------------------------------------ JSON as a port */

/* A number, a word, on or off, or a list of numbers, as after --port. False: none of these. */
static bool value_text(const struct cJSON *item, char text[VALUE_MAX])
{
	const struct cJSON *one;
	size_t used = 0;

	*text = '\0';
	if (cJSON_IsString(item) && strlen(item->valuestring) < VALUE_MAX)
		snprintf(text, VALUE_MAX, "%s", item->valuestring);
	else if (cJSON_IsNumber(item))
		snprintf(text, VALUE_MAX, "%.0f", item->valuedouble);
	else if (cJSON_IsBool(item))
		snprintf(text, VALUE_MAX, "%s", cJSON_IsTrue(item) ? "on" : "off");
	else if (cJSON_IsArray(item))
		cJSON_ArrayForEach(one, item)
		{
			if (!cJSON_IsNumber(one) || used + 32 > VALUE_MAX)
				return false;
			used += (size_t)snprintf(text + used, VALUE_MAX - used, "%s%d",
				used ? "+" : "", one->valueint);
		}
	else
		return false;
	return true;
}

static int body_apply(
	struct bridge_spec *spec, const struct cJSON *body, bool change, char why[BACKEND_WHY_MAX])
{
	const struct cJSON *item;
	char text[VALUE_MAX];
	int rc;

	cJSON_ArrayForEach(item, body)
	{
		if (!value_text(item, text)) {
			backend_why(why, "%.40s: use a word, a number, true, false or numbers",
				item->string);
			return -EINVAL;
		}
		rc = bridge_spec_set(spec, item->string, text, change, why);
		if (rc)
			return rc;
	}
	return 0;
}

static struct bridge_port *port_named(struct bridge *b, struct control_request *req)
{
	struct bridge_port *p = bridge_port_find(b, req->path);

	if (!p)
		control_fault(req, 404, "ports/%.60s: no such port", req->path);
	return p;
}

static void ports_get(void *ctx, struct control_request *req)
{
	struct bridge_port *one = *req->path ? port_named(ctx, req) : NULL;

	if (one || !*req->path)
		port_answer(ctx, req, one);
}

static void ports_put(void *ctx, struct control_request *req)
{
	char why[BACKEND_WHY_MAX] = "";
	struct bridge_port *p = NULL;
	struct bridge_spec spec;
	int rc;

	bridge_spec_init(&spec);
	rc = bridge_spec_set(&spec, "name", req->path, false, why);
	if (!rc)
		rc = body_apply(&spec, req->body, false, why);
	if (!rc && strcmp(spec.sw.name, req->path)) {
		backend_why(why, "name: the path says %.40s", req->path);
		rc = -EINVAL;
	}
	if (!rc)
		rc = bridge_spec_check(&spec, why);
	if (!rc)
		rc = bridge_port_add(ctx, &spec, &p, why);
	if (rc) {
		control_fault(req, status_of(rc), "%s", why);
		return;
	}
	req->status = 201;
	port_answer(ctx, req, p);
}

static void ports_patch(void *ctx, struct control_request *req)
{
	struct bridge_port *p = port_named(ctx, req);
	char why[BACKEND_WHY_MAX] = "";
	struct bridge_spec spec;
	int rc;

	if (!p)
		return;
	spec = p->spec;
	rc = body_apply(&spec, req->body, true, why);
	if (!rc)
		rc = bridge_port_change(p, &spec, why);
	if (rc)
		control_fault(req, status_of(rc), "%s", why);
	else
		port_answer(ctx, req, p);
}

static void ports_delete(void *ctx, struct control_request *req)
{
	struct bridge_port *p = port_named(ctx, req);

	if (!p)
		return;
	bridge_port_remove(ctx, p);
	req->status = 204;
}

/* ------------------------------------------------------------------ the MAC table */

static void macs_get(void *ctx, struct control_request *req)
{
	struct bridge *b = ctx;
	unsigned room = net_switch_macs_get(b->sw, NULL, 0) + 64, n;
	struct net_switch_mac *macs = calloc(room, sizeof(*macs));

	if (!macs) {
		control_fault(req, 500, "no memory");
		return;
	}
	n = net_switch_macs_get(b->sw, macs, room);
	req->json = cJSON_CreateArray();
	for (unsigned i = 0; i < n && i < room; i++) {
		const uint8_t *m = macs[i].mac;
		struct cJSON *o = cJSON_CreateObject();
		char text[18];

		snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2],
			m[3], m[4], m[5]);
		cJSON_AddStringToObject(o, "mac", text);
		number_add(o, "vlan", macs[i].vlan);
		cJSON_AddStringToObject(o, "port", macs[i].port);
		number_add(o, "age_s", macs[i].age_s);
		cJSON_AddItemToArray(req->json, o);
	}
	free(macs);
}

static void macs_delete(void *ctx, struct control_request *req)
{
	struct bridge *b = ctx;

	net_switch_macs_flush(b->sw);
	req->status = 204;
}

static void version_get(void *ctx, struct control_request *req)
{
	struct bridge *b = ctx;

	req->json = cJSON_CreateObject();
	cJSON_AddStringToObject(req->json, "program", "sluice-bridge");
	cJSON_AddStringToObject(req->json, "version", SLUICE_VERSION);
	number_add(req->json, "workers", b->nworkers);
}

const struct control_route bridge_routes[] = {
	{"GET", "/ports", ports_get},
	{"PUT", "/ports", ports_put},
	{"PATCH", "/ports", ports_patch},
	{"DELETE", "/ports", ports_delete},
	{"GET", "/macs", macs_get},
	{"DELETE", "/macs", macs_delete},
	{"GET", "/metrics", bridge_metrics_answer},
	{"GET", "/version", version_get},
	{0},
};
