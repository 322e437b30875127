/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The key=value lists of --disk and --net. Which keys there are, and which of them a model takes,
 * is read from the table of models: a key that is listed there has its parser here. Every mistake
 * is told in one line that names the option, the key and the value, and what would do.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/vmm_priv.h"

#define VHOST_BLK   "vhost-user-blk"
#define VHOST_NET   "vhost-user-net"
#define SERIAL_MAX  20u
#define PAIRS_MAX   64u
#define VALUE_SHOWN 60 /* of a hostile value, in a message of one line */

/* ------------------------------------------------------------------ sizes and numbers */

int vmm_size_parse(const char *text, uint64_t *out)
{
	unsigned shift = 0;
	unsigned long long v;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;
	switch (toupper((unsigned char)*end)) {
	case 'K':
		shift = 10;
		break;
	case 'M':
		shift = 20;
		break;
	case 'G':
		shift = 30;
		break;
	case 'T':
		shift = 40;
		break;
	}
	if (shift) {
		end++;
		/* "1GiB" and "1GB" are read by people as the same thing here */
		if (!strcmp(end, "iB") || !strcmp(end, "B"))
			end += strlen(end);
	}
	if (*end || (shift && v > UINT64_MAX >> shift))
		return -EINVAL;
	*out = (uint64_t)v << shift;
	return 0;
}

static int number_parse(const char *text, unsigned long max, unsigned *out)
{
	unsigned long v;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno || *end || v > max)
		return -EINVAL;
	*out = (unsigned)v;
	return 0;
}

/* ------------------------------------------------------------------ a list of pairs */

struct pair {
	char *key;
	char *value; /* NULL: a key alone */
};

struct pairs {
	const char *option; /* "--disk" */
	char *text;         /* holds the strings */
	struct pair list[PAIRS_MAX];
	unsigned n;
	char *why;
};

/* One line whatever the value holds: control bytes are shown as '?'. */
__attribute__((format(printf, 2, 3))) static int complain(struct pairs *p, const char *fmt, ...)
{
	char text[VMM_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	snprintf(p->why, VMM_WHY_MAX, "%.16s %.*s", p->option, (int)VMM_WHY_MAX - 20, text);
	return -EINVAL;
}

static int complain_value(struct pairs *p, const struct pair *pair, const char *hint)
{
	return complain(p, "%.24s=%.*s: %s", pair->key, VALUE_SHOWN, pair->value, hint);
}

/* Ends the item at `s` (a doubled comma stands for one) and returns the start of the next, or NULL.
 */
static char *item_cut(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (*s == ',') {
			if (s[1] != ',') {
				*to = '\0';
				return s + 1;
			}
			s++;
		}
		*to++ = *s;
	}
	*to = '\0';
	return NULL;
}

static int pair_add(struct pairs *p, char *item)
{
	char *eq = strchr(item, '=');
	struct pair pair = {.key = item, .value = eq ? eq + 1 : NULL};

	if (eq)
		*eq = '\0';
	if (!*item)
		return complain(p, "=%.*s: a key is missing; write key=value,key=value",
			VALUE_SHOWN, eq ? eq + 1 : "");
	if (!strcmp(pair.key, "ro"))
		pair.key = (char *)"readonly";
	if (!pair.value && !strcmp(pair.key, "readonly"))
		pair.value = (char *)"on";
	/* --net user */
	if (!pair.value && !strcmp(pair.key, "user"))
		pair.value = (char *)"on";
	for (unsigned i = 0; i < p->n; i++)
		if (!strcmp(p->list[i].key, pair.key) && strcmp(pair.key, "hostfwd") != 0)
			return complain(p, "%.24s=: given twice; give it once", pair.key);
	if (p->n == PAIRS_MAX)
		return complain(p, "%.24s: too many keys", pair.key);
	p->list[p->n++] = pair;
	return 0;
}

static int pairs_split(struct pairs *p, const char *text)
{
	char *next;
	int err = 0;

	p->text = strdup(text);
	if (!p->text)
		return -ENOMEM;
	next = p->text;
	while (next && !err) {
		char *item = next;

		next = item_cut(item);
		err = pair_add(p, item);
	}
	return err;
}

/* ------------------------------------------------------------------ against the models */

static const struct model_option *option_find(const struct model_info *info, const char *key)
{
	for (const struct model_option *o = info->options; o->key; o++)
		if (!strcmp(o->key, key))
			return o;
	return NULL;
}

static void list_append(char *to, size_t room, const char *word)
{
	size_t len = strlen(to);

	snprintf(to + len, room - len, "%s%s", len ? ", " : "", word);
}

static int model_unknown(struct pairs *p, const char *kind, const struct pair *pair)
{
	char list[160] = "";

	for (unsigned i = 0; machine_model_info(i); i++) {
		const struct model_info *info = machine_model_info(i);

		if (!strcmp(info->name, pair->value) && strcmp(info->kind, kind) != 0)
			return info->option
				       ? complain(p, "model=%s: that is no %s model; use %s",
						 info->name, kind, info->option)
				       : complain(p,
						 "model=%s: that is a %s model; use it with --%s",
						 info->name, info->kind, info->kind);
		if (!strcmp(info->kind, kind))
			list_append(list, sizeof(list), info->name);
	}
	return complain(
		p, "model=%.*s: unknown model; use one of %s", VALUE_SHOWN, pair->value, list);
}

static const struct model_info *model_choose(
	struct pairs *p, const char *kind, const char *by_default)
{
	for (unsigned i = 0; i < p->n; i++) {
		const struct device_model *model;

		if (strcmp(p->list[i].key, "model") != 0 || !p->list[i].value)
			continue;
		model = device_model_find(kind, p->list[i].value);
		if (!model)
			model_unknown(p, kind, &p->list[i]);
		return model ? &model->info : NULL;
	}
	return &device_model_find(kind, by_default)->info;
}

/* A model that other keys have implied is written down as if it had been given. */
static int model_keep(const char **model, const struct model_info *info, const char *implied)
{
	if (*model || strcmp(info->name, implied) != 0)
		return 0;
	*model = strdup(implied);
	return *model ? 0 : -ENOMEM;
}

/* A key that this model does not take: does any model of the kind? */
static int key_refuse(struct pairs *p, const struct model_info *info, const struct pair *pair)
{
	char keys[200] = "";

	for (unsigned i = 0; machine_model_info(i); i++) {
		const struct model_info *other = machine_model_info(i);

		if (!strcmp(other->kind, info->kind) && !info->option &&
			option_find(other, pair->key))
			return complain(p,
				"%.24s=%.*s: model %s has no such option; leave it out, or "
				"use model=%s",
				pair->key, 24, pair->value ? pair->value : "", info->name,
				other->name);
	}
	for (const struct model_option *o = info->options; o->key; o++)
		list_append(keys, sizeof(keys), o->key);
	return complain(p, "%.24s: unknown key; use %s", pair->key, keys);
}

static int keys_check(struct pairs *p, const struct model_info *info)
{
	for (unsigned i = 0; i < p->n; i++) {
		const struct pair *pair = &p->list[i];
		const struct model_option *o = option_find(info, pair->key);

		if (!o)
			return key_refuse(p, info, pair);
		if (!pair->value || !*pair->value)
			return complain(p, "%s=: a value is missing; use %s", o->key, o->values);
	}
	return 0;
}

/* ------------------------------------------------------------------ values */

static int string_get(const struct pair *pair, const char **out)
{
	*out = strdup(pair->value);
	return *out ? 0 : -ENOMEM;
}

static int bool_get(struct pairs *p, const struct pair *pair, bool *out)
{
	if (!strcmp(pair->value, "on"))
		*out = true;
	else if (!strcmp(pair->value, "off"))
		*out = false;
	else
		return complain_value(p, pair, "neither on nor off; use on or off");
	return 0;
}

static int choice_get(struct pairs *p, const struct pair *pair, enum vmm_choice *out)
{
	bool on = false;
	int err = bool_get(p, pair, &on);

	*out = on ? VMM_ON : VMM_OFF;
	return err;
}

static int range_get(
	struct pairs *p, const struct pair *pair, unsigned min, unsigned max, unsigned *out)
{
	char hint[64];

	if (!number_parse(pair->value, max, out) && *out >= min)
		return 0;
	snprintf(hint, sizeof(hint), "not a number in range; use %u to %u", min, max);
	return complain_value(p, pair, hint);
}

static int fd_get(struct pairs *p, const struct pair *pair, int *out)
{
	unsigned v;

	if (number_parse(pair->value, INT_MAX, &v))
		return complain_value(
			p, pair, "not a descriptor; use the number of an open descriptor");
	*out = (int)v;
	return 0;
}

static int ring_get(struct pairs *p, const struct pair *pair, bool *packed)
{
	*packed = !strcmp(pair->value, "packed");
	if (!*packed && strcmp(pair->value, "split") != 0)
		return complain_value(p, pair, "unknown ring layout; use split or packed");
	return 0;
}

static int queue_size_get(struct pairs *p, const struct pair *pair, unsigned *out)
{
	int err = range_get(p, pair, 2, 1024, out);

	/* also with ring=packed: a driver may still choose the split layout */
	if (!err && *out & (*out - 1))
		return complain_value(p, pair, "not a power of two; use 2, 4, 8 ... 1024");
	return err;
}

static int fault_get(struct pairs *p, const struct pair *pair, const char **out)
{
	char why[BLK_WHY_MAX];

	if (blk_fault_check(pair->value, why))
		return complain(p, "%s", why);
	return string_get(pair, out);
}

static int serial_get(struct pairs *p, const struct pair *pair, const char **out)
{
	if (strlen(pair->value) > SERIAL_MAX)
		return complain_value(p, pair, "too long; use at most 20 characters");
	for (const char *c = pair->value; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			return complain_value(p, pair, "not printable; use ASCII characters");
	return string_get(pair, out);
}

static int engine_get(struct pairs *p, const struct pair *pair, enum blk_engine *out)
{
	if (blk_engine_parse(pair->value, out))
		return complain_value(
			p, pair, "unknown engine; use io_uring, aio, threads or auto");
	return 0;
}

static int format_get(struct pairs *p, const struct pair *pair, enum blk_format *out)
{
	if (blk_format_parse(pair->value, out))
		return complain_value(p, pair, "unknown format; use raw, qcow2 or auto");
	return 0;
}

static int direct_get(struct pairs *p, const struct pair *pair, enum blk_direct *out)
{
	if (!strcmp(pair->value, "auto"))
		*out = BLK_DIRECT_AUTO;
	else if (!strcmp(pair->value, "on"))
		*out = BLK_DIRECT_ON;
	else if (!strcmp(pair->value, "off"))
		*out = BLK_DIRECT_OFF;
	else
		return complain_value(p, pair, "unknown choice; use on, off or auto");
	return 0;
}

static int mac_get(struct pairs *p, const struct pair *pair, uint8_t mac[6])
{
	const char *s = pair->value;
	bool well = strlen(s) == 17;

	for (unsigned i = 0; well && i < 17; i++)
		well = i % 3 == 2 ? s[i] == ':' : isxdigit((unsigned char)s[i]);
	if (!well)
		return complain_value(
			p, pair, "not a hardware address; write it as 52:54:00:12:34:56");
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)strtoul(s + 3 * i, NULL, 16);
	if (mac[0] & 1)
		return complain_value(p, pair, "a group address; use one whose first byte is even");
	return 0;
}

/* ------------------------------------------------------------------ a back-end elsewhere */

static int socket_get(struct pairs *p, const struct pair *pair, const char **out)
{
	/* sizeof sun_path with its end */
	if (strlen(pair->value) > 107)
		return complain_value(p, pair, "too long; a socket's path has at most 107 bytes");
	return string_get(pair, out);
}

static bool is_vhost_key(const char *key)
{
	return !strcmp(key, "vhost-user") || !strcmp(key, "mode") || !strcmp(key, "reconnect") ||
	       !strcmp(key, "wait-s");
}

static int vhost_key(struct vhost_config *cfg, struct pairs *p, const struct pair *pair)
{
	unsigned s = 0;
	bool on = true;
	int err;

	if (!strcmp(pair->key, "vhost-user"))
		return socket_get(p, pair, &cfg->socket);
	if (!strcmp(pair->key, "mode")) {
		cfg->listen = !strcmp(pair->value, "listen");
		if (!cfg->listen && strcmp(pair->value, "connect") != 0)
			return complain_value(p, pair, "unknown mode; use connect or listen");
		return 0;
	}
	if (!strcmp(pair->key, "wait-s")) {
		err = range_get(p, pair, 1, 3600, &s);
		cfg->wait_ms = s * 1000;
		return err;
	}
	err = bool_get(p, pair, &on);
	cfg->no_reconnect = !on;
	return err;
}

/* A model that another process serves takes its socket in one of two ways. */
static int vhost_check(struct pairs *p, const struct vhost_config *cfg, const char *key, int fd)
{
	if (!cfg->socket && fd < 0)
		return complain(p, "%.*s: no socket; add %s=PATH or fd=N", VALUE_SHOWN,
			p->n ? p->list[0].key : "", key);
	if (cfg->socket && fd >= 0)
		return complain(p, "fd=%d: %s= is given too; use one of them", fd, key);
	if (fd >= 0 && cfg->listen)
		return complain(
			p, "mode=listen: not with fd=%d, a connected socket; use %s=PATH", fd, key);
	return 0;
}

/* The model that a list of keys asks for, if it does not say. */
static const char *model_implied(
	const struct pairs *p, const char *vhost_model, const char *by_default)
{
	for (unsigned i = 0; i < p->n; i++)
		if (!strcmp(p->list[i].key, "vhost-user"))
			return vhost_model;
	return by_default;
}

/* ------------------------------------------------------------------ --disk */

static int disk_ring_key(struct disk_config *cfg, struct pairs *p, const struct pair *pair)
{
	const char *key = pair->key;

	if (!strcmp(key, "ring"))
		return ring_get(p, pair, &cfg->packed);
	if (!strcmp(key, "queues"))
		return range_get(p, pair, 1, BACKEND_QUEUES_MAX, &cfg->queues);
	if (!strcmp(key, "queue-size"))
		return queue_size_get(p, pair, &cfg->queue_size);
	if (!strcmp(key, "indirect"))
		return choice_get(p, pair, &cfg->indirect);
	if (!strcmp(key, "event-idx"))
		return choice_get(p, pair, &cfg->event_idx);
	return choice_get(p, pair, &cfg->in_order);
}

static int disk_key(struct disk_config *cfg, struct pairs *p, const struct pair *pair)
{
	const char *key = pair->key;

	if (!strcmp(key, "path"))
		return string_get(pair, &cfg->path);
	if (!strcmp(key, "fd"))
		return fd_get(p, pair, &cfg->fd);
	if (!strcmp(key, "nbd"))
		return string_get(pair, &cfg->nbd);
	if (!strcmp(key, "model"))
		return string_get(pair, &cfg->model);
	if (!strcmp(key, "engine"))
		return engine_get(p, pair, &cfg->engine);
	if (!strcmp(key, "direct"))
		return direct_get(p, pair, &cfg->direct);
	if (!strcmp(key, "format"))
		return format_get(p, pair, &cfg->format);
	if (!strcmp(key, "readonly"))
		return bool_get(p, pair, &cfg->readonly);
	if (!strcmp(key, "serial"))
		return serial_get(p, pair, &cfg->serial);
	if (!strcmp(key, "sqpoll"))
		return bool_get(p, pair, &cfg->sqpoll);
	if (!strcmp(key, "registered"))
		return bool_get(p, pair, &cfg->registered_memory);
	if (!strcmp(key, "fault"))
		return fault_get(p, pair, &cfg->fault);
	if (is_vhost_key(key))
		return vhost_key(&cfg->vhost, p, pair);
	return disk_ring_key(cfg, p, pair);
}

static void disk_config_clear(struct disk_config *cfg)
{
	free((char *)cfg->path);
	free((char *)cfg->nbd);
	free((char *)cfg->model);
	free((char *)cfg->serial);
	free((char *)cfg->fault);
	free((char *)cfg->vhost.socket);
	*cfg = (struct disk_config){.fd = -1};
}

static int disk_config_check(const struct disk_config *cfg, struct pairs *p)
{
	if (cfg->model && !strcmp(cfg->model, VHOST_BLK))
		return vhost_check(p, &cfg->vhost, "vhost-user", cfg->fd);
	if (!cfg->path && cfg->fd < 0 && !cfg->nbd)
		return complain(p, "%.*s: no image; add path=FILE, fd=N or nbd=URI", VALUE_SHOWN,
			p->n ? p->list[0].key : "");
	if (cfg->nbd && (cfg->path || cfg->fd >= 0))
		return complain(p, "nbd=%.*s: path= or fd= is given too; use one of them",
			VALUE_SHOWN, cfg->nbd);
	if (cfg->path && cfg->fd >= 0)
		return complain(p, "fd=%d: path= is given too; use one of them", cfg->fd);
	return 0;
}

int disk_config_parse(struct disk_config *cfg, const char *text, char why[VMM_WHY_MAX])
{
	struct pairs p = {.option = "--disk", .why = why};
	const struct model_info *info;
	int err;

	*cfg = (struct disk_config){.fd = -1};
	snprintf(why, VMM_WHY_MAX, "--disk: out of memory");
	err = pairs_split(&p, text);
	if (err)
		goto out;
	info = model_choose(&p, "disk", model_implied(&p, VHOST_BLK, "virtio-blk"));
	err = info ? keys_check(&p, info) : -EINVAL;
	for (unsigned i = 0; !err && i < p.n; i++)
		err = disk_key(cfg, &p, &p.list[i]);
	if (!err)
		err = model_keep(&cfg->model, info, VHOST_BLK);
	if (!err)
		err = disk_config_check(cfg, &p);
out:
	if (err)
		disk_config_clear(cfg);
	free(p.text);
	return err;
}

/* ------------------------------------------------------------------ --net */

static int net_ring_key(struct net_config *cfg, struct pairs *p, const struct pair *pair)
{
	const char *key = pair->key;

	if (!strcmp(key, "ring"))
		return ring_get(p, pair, &cfg->packed);
	if (!strcmp(key, "queues"))
		return range_get(p, pair, 1, NET_QUEUES_MAX, &cfg->queues);
	if (!strcmp(key, "queue-size"))
		return queue_size_get(p, pair, &cfg->queue_size);
	if (!strcmp(key, "indirect"))
		return choice_get(p, pair, &cfg->indirect);
	if (!strcmp(key, "event-idx"))
		return choice_get(p, pair, &cfg->event_idx);
	if (!strcmp(key, "in-order"))
		return choice_get(p, pair, &cfg->in_order);
	if (!strcmp(key, "mergeable"))
		return choice_get(p, pair, &cfg->mergeable);
	return choice_get(p, pair, &cfg->offload);
}

/* Keys of a port behind NAT. */
static const char *const user_keys[] = {
	"hostfwd", "net", "host", "dns", "dhcpstart", "hostname", "restrict", "ipv6"};

static bool is_user_key(const char *key)
{
	for (size_t i = 0; i < sizeof(user_keys) / sizeof(user_keys[0]); i++)
		if (!strcmp(key, user_keys[i]))
			return true;
	return false;
}

static int net_user_key(struct net_user_options *o, struct pairs *p, const struct pair *pair)
{
	const char *key = pair->key;
	char hint[NET_WHY_MAX];
	int err;

	if (!strcmp(key, "restrict"))
		return bool_get(p, pair, &o->restricted);
	if (!strcmp(key, "ipv6"))
		return bool_get(p, pair, &o->ipv6);
	if (!strcmp(key, "hostname")) {
		if (strlen(pair->value) > NET_USER_HOSTNAME_MAX)
			return complain_value(p, pair, "too long; use at most 63 characters");
		memcpy(o->hostname, pair->value, strlen(pair->value) + 1);
		return 0;
	}
	if (!strcmp(key, "hostfwd")) {
		if (o->nforwards == NET_USER_FORWARDS_MAX)
			return complain_value(p, pair, "too many; use at most 32");
		err = net_user_forward_parse(&o->forwards[o->nforwards++], pair->value, hint);
	} else if (!strcmp(key, "net")) {
		err = net_user_network_parse(&o->net, &o->prefix, pair->value, hint);
	} else {
		uint32_t *address = !strcmp(key, "host")  ? &o->host
				    : !strcmp(key, "dns") ? &o->dns
							  : &o->dhcp_start;

		err = net_user_address_parse(address, pair->value, hint);
	}
	return err ? complain_value(p, pair, hint) : 0;
}

static int net_key(struct net_config *cfg, struct pairs *p, const struct pair *pair)
{
	const char *key = pair->key;

	if (!strcmp(key, "tap")) {
		/* IFNAMSIZ with its end */
		if (strlen(pair->value) > 15 || strchr(pair->value, '/'))
			return complain_value(
				p, pair, "not an interface name; use at most 15 characters, no /");
		return string_get(pair, &cfg->tap);
	}
	if (!strcmp(key, "fd"))
		return fd_get(p, pair, &cfg->fd);
	if (!strcmp(key, "mem")) {
		if (strcmp(pair->value, "sink") != 0 && strcmp(pair->value, "source") != 0 &&
			strcmp(pair->value, "echo") != 0)
			return complain_value(p, pair, "unknown port; use sink, source or echo");
		return string_get(pair, &cfg->memory);
	}
	if (!strcmp(key, "model"))
		return string_get(pair, &cfg->model);
	if (!strcmp(key, "mac")) {
		cfg->mac_set = true;
		return mac_get(p, pair, cfg->mac);
	}
	if (!strcmp(key, "user"))
		return bool_get(p, pair, &cfg->user);
	if (is_vhost_key(key))
		return vhost_key(&cfg->vhost, p, pair);
	if (is_user_key(key))
		return net_user_key(&cfg->nat, p, pair);
	return net_ring_key(cfg, p, pair);
}

static void net_config_clear(struct net_config *cfg)
{
	free((char *)cfg->tap);
	free((char *)cfg->memory);
	free((char *)cfg->model);
	free((char *)cfg->vhost.socket);
	*cfg = (struct net_config){.fd = -1};
}

static int net_user_check(struct net_config *cfg, struct pairs *p)
{
	char why[NET_WHY_MAX];

	if (cfg->queues > 1)
		return complain(p, "queues=%u: user carries one queue pair; use tap=NAME for more",
			cfg->queues);
	return net_user_options_check(&cfg->nat, why) ? complain(p, "%s", why) : 0;
}

static int net_config_check(struct net_config *cfg, struct pairs *p)
{
	unsigned ports = (cfg->tap != NULL) + (cfg->fd >= 0) + (cfg->memory != NULL) + cfg->user;

	if (cfg->model && !strcmp(cfg->model, VHOST_NET))
		return vhost_check(p, &cfg->vhost, "vhost-user", cfg->fd);
	for (unsigned i = 0; !cfg->user && i < p->n; i++)
		if (is_user_key(p->list[i].key))
			return complain(p, "%s=%.*s: only with user; write --net user,%s=...",
				p->list[i].key, VALUE_SHOWN, p->list[i].value, p->list[i].key);
	if (!ports)
		return complain(p,
			"%.*s: no port; add tap=NAME, fd=N, user, vhost-user=PATH or "
			"mem=sink|source|echo",
			VALUE_SHOWN, p->n ? p->list[0].key : "");
	if (ports > 1)
		return complain(p, "%s: more than one of tap=, fd=, mem= and user; use one of them",
			cfg->tap       ? "tap"
			: cfg->fd >= 0 ? "fd"
				       : "mem");
	if (cfg->user)
		return net_user_check(cfg, p);
	if (cfg->fd >= 0 && cfg->queues > 1)
		return complain(p,
			"queues=%u: one fd carries one queue pair; use tap=NAME for more",
			cfg->queues);
	return 0;
}

int net_config_parse(struct net_config *cfg, const char *text, char why[VMM_WHY_MAX])
{
	struct pairs p = {.option = "--net", .why = why};
	const struct model_info *info;
	int err;

	*cfg = (struct net_config){.fd = -1};
	snprintf(why, VMM_WHY_MAX, "--net: out of memory");
	err = pairs_split(&p, text);
	if (err)
		goto out;
	info = model_choose(&p, "net", model_implied(&p, VHOST_NET, "virtio-net"));
	err = info ? keys_check(&p, info) : -EINVAL;
	for (unsigned i = 0; !err && i < p.n; i++)
		err = net_key(cfg, &p, &p.list[i]);
	if (!err)
		err = model_keep(&cfg->model, info, VHOST_NET);
	if (!err)
		err = net_config_check(cfg, &p);
out:
	if (err)
		net_config_clear(cfg);
	free(p.text);
	return err;
}

/* ------------------------------------------------------------------ --balloon */

static int size_get(struct pairs *p, const struct pair *pair, uint64_t *out)
{
	if (vmm_size_parse(pair->value, out))
		return complain_value(
			p, pair, "not a size; use a number with a unit, as in 512M or 1G");
	if (*out % SPLIT_BALLOON_PAGE)
		return complain_value(p, pair, "not a multiple of 4K; use one, as in 512M");
	return 0;
}

static int balloon_key(struct balloon_config *cfg, struct pairs *p, const struct pair *pair)
{
	if (!strcmp(pair->key, "size"))
		return size_get(p, pair, &cfg->size);
	if (!strcmp(pair->key, "deflate-on-oom"))
		return choice_get(p, pair, &cfg->deflate_on_oom);
	if (!strcmp(pair->key, "free-page-reporting"))
		return choice_get(p, pair, &cfg->reporting);
	return ring_get(p, pair, &cfg->packed);
}

int balloon_config_parse(struct balloon_config *cfg, const char *text, char why[VMM_WHY_MAX])
{
	const struct model_info *info = &device_model_find("other", "virtio-balloon")->info;
	struct pairs p = {.option = "--balloon", .why = why};
	int err;

	*cfg = (struct balloon_config){.on = true};
	snprintf(why, VMM_WHY_MAX, "--balloon: out of memory");
	err = pairs_split(&p, text);
	/* deflate_on_oom, as other monitors spell it; a key without _ may be a constant ("ro") */
	for (unsigned i = 0; !err && i < p.n; i++)
		for (char *c = p.list[i].key; (c = strchr(c, '_')); c++)
			*c = '-';
	if (!err)
		err = keys_check(&p, info);
	for (unsigned i = 0; !err && i < p.n; i++)
		err = balloon_key(cfg, &p, &p.list[i]);
	free(p.text);
	if (err)
		*cfg = (struct balloon_config){0};
	return err;
}

/* ------------------------------------------------------------------ --vsock */

static int vsock_key(struct vsock_config *cfg, struct pairs *p, const struct pair *pair)
{
	const char *key = pair->key;

	if (!strcmp(key, "socket"))
		return string_get(pair, &cfg->socket);
	if (!strcmp(key, "cid"))
		return range_get(p, pair, 3, UINT_MAX - 1, &cfg->cid);
	if (!strcmp(key, "connections"))
		return range_get(p, pair, 1, 32768, &cfg->connections);
	if (!strcmp(key, "ring"))
		return ring_get(p, pair, &cfg->packed);
	if (!strcmp(key, "queue-size"))
		return queue_size_get(p, pair, &cfg->queue_size);
	if (!strcmp(key, "indirect"))
		return choice_get(p, pair, &cfg->indirect);
	if (!strcmp(key, "event-idx"))
		return choice_get(p, pair, &cfg->event_idx);
	return choice_get(p, pair, &cfg->in_order);
}

static void vsock_config_clear(struct vsock_config *cfg)
{
	free((char *)cfg->socket);
	*cfg = (struct vsock_config){.socket = NULL};
}

static int vsock_config_check(const struct vsock_config *cfg, struct pairs *p)
{
	if (!cfg->socket)
		return complain(p, "%.*s: no socket; add socket=PATH", VALUE_SHOWN,
			p->n ? p->list[0].key : "");
	if (!cfg->cid)
		return complain(p, "socket=%.*s: no address for the guest; add cid=3 or above",
			VALUE_SHOWN, cfg->socket);
	return 0;
}

int vsock_config_parse(struct vsock_config *cfg, const char *text, char why[VMM_WHY_MAX])
{
	const struct model_info *info = &device_model_find("other", "virtio-vsock")->info;
	struct pairs p = {.option = "--vsock", .why = why};
	int err;

	*cfg = (struct vsock_config){.socket = NULL};
	snprintf(why, VMM_WHY_MAX, "--vsock: out of memory");
	err = pairs_split(&p, text);
	if (!err)
		err = keys_check(&p, info);
	for (unsigned i = 0; !err && i < p.n; i++)
		err = vsock_key(cfg, &p, &p.list[i]);
	if (!err)
		err = vsock_config_check(cfg, &p);
	if (err)
		vsock_config_clear(cfg);
	free(p.text);
	return err;
}

/* ------------------------------------------------------------------ --fs */

#define FS_TAG_MAX 36u

static int fs_key(struct fs_config *cfg, struct pairs *p, const struct pair *pair)
{
	const char *key = pair->key;

	if (!strcmp(key, "tag")) {
		if (strlen(pair->value) > FS_TAG_MAX)
			return complain_value(p, pair, "too long; use at most 36 bytes");
		return string_get(pair, &cfg->tag);
	}
	if (!strcmp(key, "socket"))
		return socket_get(p, pair, &cfg->vhost.socket);
	if (!strcmp(key, "fd"))
		return fd_get(p, pair, &cfg->fd);
	if (is_vhost_key(key))
		return vhost_key(&cfg->vhost, p, pair);
	if (!strcmp(key, "queues"))
		return range_get(p, pair, 1, BACKEND_QUEUES_MAX - 2, &cfg->queues);
	if (!strcmp(key, "queue-size"))
		return queue_size_get(p, pair, &cfg->queue_size);
	if (!strcmp(key, "ring"))
		return ring_get(p, pair, &cfg->packed);
	if (!strcmp(key, "indirect"))
		return choice_get(p, pair, &cfg->indirect);
	return choice_get(p, pair, &cfg->event_idx);
}

static void fs_config_clear(struct fs_config *cfg)
{
	free((char *)cfg->tag);
	free((char *)cfg->vhost.socket);
	*cfg = (struct fs_config){.fd = -1};
}

static int fs_config_check(const struct fs_config *cfg, struct pairs *p)
{
	if (!cfg->tag)
		return complain(p, "%.*s: no name for the guest to mount; add tag=TEXT",
			VALUE_SHOWN, p->n ? p->list[0].key : "");
	return vhost_check(p, &cfg->vhost, "socket", cfg->fd);
}

int fs_config_parse(struct fs_config *cfg, const char *text, char why[VMM_WHY_MAX])
{
	const struct model_info *info = &device_model_find("other", "vhost-user-fs")->info;
	struct pairs p = {.option = "--fs", .why = why};
	int err;

	*cfg = (struct fs_config){.fd = -1};
	snprintf(why, VMM_WHY_MAX, "--fs: out of memory");
	err = pairs_split(&p, text);
	if (!err)
		err = keys_check(&p, info);
	for (unsigned i = 0; !err && i < p.n; i++)
		err = fs_key(cfg, &p, &p.list[i]);
	if (!err)
		err = fs_config_check(cfg, &p);
	if (err)
		fs_config_clear(cfg);
	free(p.text);
	return err;
}

void machine_config_free(struct machine_config *cfg)
{
	for (unsigned i = 0; i < cfg->ndisks; i++)
		disk_config_clear(&cfg->disks[i]);
	for (unsigned i = 0; i < cfg->nnets; i++)
		net_config_clear(&cfg->nets[i]);
	vsock_config_clear(&cfg->vsock);
	for (unsigned i = 0; i < cfg->nfs; i++)
		fs_config_clear(&cfg->fs[i]);
	cfg->nfs = 0;
	cfg->ndisks = 0;
	cfg->nnets = 0;
}
