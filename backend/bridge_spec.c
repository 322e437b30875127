/* SPDX-License-Identifier: BSD-2-Clause */
/* What a port of sluice-bridge is to be: keys and values, from the command line or from JSON. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend_priv.h"
#include "backend/bridge_priv.h"

#define TEXT_MAX 4096u

static const char *const kind_names[] = {
	[BRIDGE_NONE] = "none",
	[BRIDGE_VHOST_USER] = "vhost-user",
	[BRIDGE_TAP] = "tap",
	[BRIDGE_AF_XDP] = "af_xdp",
	[BRIDGE_DPDK] = "dpdk",
	[BRIDGE_MEM] = "mem",
};

const char *bridge_kind_name(enum bridge_kind kind)
{
	return kind_names[kind];
}

void bridge_spec_init(struct bridge_spec *spec)
{
	*spec = (struct bridge_spec){.ring = SPLIT_RING_PACKED, .queues = 1};
	spec->sw.worker = BRIDGE_WORKER_ANY;
}

/* ------------------------------------------------------------------ values */

static int bad(char *why, const char *key, const char *value, const char *use)
{
	backend_why(why, "%s=%.60s: %s", key, value, use);
	return -EINVAL;
}

static int set_target(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	enum bridge_kind kind = BRIDGE_VHOST_USER;

	while (strcmp(kind_names[kind], key))
		kind++;
	if (s->kind)
		return bad(why, key, value,
			"a port is one thing; give one of vhost-user, tap, "
			"af_xdp, dpdk and mem");
	if (strlen(value) > BRIDGE_TARGET_MAX)
		return bad(why, key, value, "too long");
	if (kind == BRIDGE_MEM && strcmp(value, "sink") && strcmp(value, "source") &&
		strcmp(value, "echo"))
		return bad(why, key, value, "use sink, source or echo");
	s->kind = kind;
	memcpy(s->target, value, strlen(value) + 1);
	return 0;
}

static int set_name(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	size_t n =
		strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

	if (value[n] || !n || n > NET_SWITCH_NAME_MAX)
		return bad(why, key, value, "use 1 to 31 letters, digits, - _ and .");
	memcpy(s->sw.name, value, n + 1);
	return 0;
}

static int set_number(
	const char *key, const char *value, unsigned min, unsigned max, unsigned *out, char *why)
{
	char use[64];

	if (program_number(value, min, max, out))
		return 0;
	snprintf(use, sizeof(use), "use %u to %u", min, max);
	return bad(why, key, value, use);
}

static int set_queues(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	return set_number(key, value, 1, NET_QUEUES_MAX, &s->queues, why);
}

static int set_worker(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	return set_number(key, value, 0, NET_SWITCH_WORKERS_MAX - 1, &s->sw.worker, why);
}

static int set_mode(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	s->mode_set = true;
	s->mode = strcmp(value, "connect") ? VHOST_LISTEN : VHOST_CONNECT;
	if (s->mode == VHOST_CONNECT || !strcmp(value, "listen"))
		return 0;
	return bad(why, key, value, "use listen or connect");
}

static int set_ring(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	s->ring_set = true;
	s->ring = strcmp(value, "split") ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
	if (s->ring == SPLIT_RING_SPLIT || !strcmp(value, "packed"))
		return 0;
	return bad(why, key, value, "use split or packed");
}

static int set_vlan(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	unsigned vlan = 0;
	int rc = set_number(key, value, 1, NET_VLAN_MAX, &vlan, why);

	if (!rc) {
		s->sw.trunk = false;
		s->sw.vlan = (uint16_t)vlan;
		memset(s->sw.allowed, 0, sizeof(s->sw.allowed));
	}
	return rc;
}

/* "10+20+30", or "all" */
static int set_trunk(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	const char *at = value;
	char *end;

	if (!s->sw.trunk)
		s->sw.vlan = 0;
	s->sw.trunk = true;
	memset(s->sw.allowed, 0, sizeof(s->sw.allowed));
	if (!strcmp(value, "all"))
		return 0;
	for (;; at = end + 1) {
		unsigned long v = isdigit((unsigned char)*at) ? strtoul(at, &end, 10) : 0;

		if (!v || v > NET_VLAN_MAX || (*end && *end != '+'))
			return bad(why, key, value, "use VLANs like 10+20+30, or all");
		s->sw.allowed[v / 64] |= 1ull << v % 64;
		if (!*end)
			return 0;
	}
}

static int set_native(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	unsigned vlan = 0;
	int rc = set_number(key, value, 0, NET_VLAN_MAX, &vlan, why);

	if (!rc && !s->sw.trunk)
		return bad(why, key, value, "only a trunk has it; give trunk= before it");
	s->sw.vlan = (uint16_t)vlan;
	return rc;
}

static int set_isolated(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	s->sw.isolated = !strcmp(value, "on");
	if (s->sw.isolated || !strcmp(value, "off"))
		return 0;
	return bad(why, key, value, "use on or off");
}

/* A number with K, M or G (thousands); 0: no limit. */
static int rate_get(const char *key, const char *value, uint64_t *out, char *why)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end = NULL;
	uint64_t v = 0;

	errno = 0;
	if (isdigit((unsigned char)*value))
		v = strtoull(value, &end, 10);
	unit = end && *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (!end || errno || (*end && (!unit || end[1])) || v > 1000000000000ull)
		return bad(why, key, value, "use a number like 100M, or 0 for no limit");
	for (long i = unit ? unit - units + 1 : 0; i > 0; i--)
		v *= 1000;
	if (v > 1000000000000ull)
		return bad(why, key, value, "use at most 1000G");
	*out = v;
	return 0;
}

static int set_rate(struct bridge_spec *s, const char *key, const char *value, char *why)
{
	struct net_switch_rate *rate = strstr(key, "-in") ? &s->sw.in : &s->sw.out;
	uint64_t v = 0;
	int rc = rate_get(key, value, &v, why);

	if (rc)
		return rc;
	if (*key == 'p')
		rate->frames_per_s = v;
	else
		rate->bytes_per_s = (v + 7) / 8;
	return 0;
}

static const struct {
	const char *name;
	bool change; /* of a port that lives */
	int (*set)(struct bridge_spec *s, const char *key, const char *value, char *why);
} keys[] = {
	{"vhost-user", false, set_target},
	{"tap", false, set_target},
	{"af_xdp", false, set_target},
	{"dpdk", false, set_target},
	{"mem", false, set_target},
	{"name", false, set_name},
	{"queues", false, set_queues},
	{"worker", false, set_worker},
	{"mode", false, set_mode},
	{"ring", false, set_ring},
	{"vlan", true, set_vlan},
	{"trunk", true, set_trunk},
	{"native", true, set_native},
	{"isolated", true, set_isolated},
	{"rate-in", true, set_rate},
	{"rate-out", true, set_rate},
	{"pps-in", true, set_rate},
	{"pps-out", true, set_rate},
};

#define NKEYS (sizeof(keys) / sizeof(keys[0]))

/* Its place in the table; -1: none. */
static int key_find(const char *key, size_t len)
{
	for (unsigned i = 0; i < NKEYS; i++)
		if (strlen(keys[i].name) == len && !strncmp(keys[i].name, key, len))
			return (int)i;
	return -1;
}

int bridge_spec_set(struct bridge_spec *spec, const char *key, const char *value, bool change,
	char why[BACKEND_WHY_MAX])
{
	int i = key_find(key, strlen(key));

	if (i < 0 || (change && !keys[i].change)) {
		backend_why(why, "%.40s: %s; use %s%s", key,
			i < 0 ? "unknown key" : "cannot be changed",
			change ? ""
			       : "vhost-user, tap, af_xdp, dpdk, mem, name, queues, worker, "
				 "mode, ring, ",
			"vlan, trunk, native, isolated, rate-in, rate-out, pps-in or pps-out");
		return -EINVAL;
	}
	if (!*value)
		return bad(why, key, value, "a value is missing");
	return keys[i].set(spec, key, value, why);
}

int bridge_spec_check(struct bridge_spec *s, char why[BACKEND_WHY_MAX])
{
	if (!s->kind) {
		backend_why(why, "give one of vhost-user=PATH, tap=NAME, af_xdp=IFACE, "
				 "dpdk,DEVICE and mem=KIND");
		return -EINVAL;
	}
	if (s->kind != BRIDGE_VHOST_USER && (s->mode_set || s->ring_set))
		return bad(why, kind_names[s->kind], s->target,
			"mode= and ring= are for vhost-user ports");
	if (!*s->sw.name && (s->kind == BRIDGE_TAP || s->kind == BRIDGE_AF_XDP))
		return set_name(s, "name", s->target, why);
	return 0;
}

/* ------------------------------------------------------------------ the command line's spelling */

/*
 * "dpdk,net_tap0,iface=x,name=y": what follows is the device's, with its arguments, up to the first
 * key of ours. Cuts it out of text; what is left to parse.
 */
static char *device_cut(struct bridge_spec *s, char *text, char *why)
{
	char *device = text + 5, *at = device;

	while (*at) {
		size_t len = strcspn(at, "=,");

		if (at > device && at[len] == '=' && key_find(at, len) >= 0)
			break;
		at += strcspn(at, ",");
		at += *at == ',';
	}
	if (*at)
		at[-1] = '\0';
	return set_target(s, "dpdk", device, why) ? NULL : at;
}

static int items_parse(struct bridge_spec *s, char *item, char *why)
{
	uint32_t given = 0;

	for (char *next; item; item = next) {
		char *value;
		int i, rc;

		next = program_item_cut(item);
		value = strchr(item, '=');
		if (!value) {
			backend_why(why, "%.60s: write KEY=VALUE", item);
			return -EINVAL;
		}
		*value++ = '\0';
		i = key_find(item, strlen(item));
		if (i >= 0 && given & 1u << i)
			return bad(why, item, value, "given twice; give it once");
		given |= i >= 0 ? 1u << i : 0;
		rc = bridge_spec_set(s, item, value, false, why);
		if (rc)
			return rc;
	}
	return 0;
}

int bridge_spec_parse(struct bridge_spec *spec, const char *text, char why[BACKEND_WHY_MAX])
{
	char copy[TEXT_MAX], *rest = copy;
	int rc = 0;

	bridge_spec_init(spec);
	if (strlen(text) >= sizeof(copy)) {
		backend_why(why, "%.60s...: too long", text);
		return -EINVAL;
	}
	memcpy(copy, text, strlen(text) + 1);
	if (!strncmp(copy, "dpdk,", 5)) {
		rest = device_cut(spec, copy, why);
		if (!rest)
			return -EINVAL;
	}
	if (*rest)
		rc = items_parse(spec, rest, why);
	return rc ? rc : bridge_spec_check(spec, why);
}
