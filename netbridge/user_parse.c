/* SPDX-License-Identifier: BSD-2-Clause */
/* What a user writes about a network behind NAT, and whether its addresses fit together. */
#include "netbridge/net_priv.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FORWARD_HINT "use tcp:127.0.0.1:8080-:80, udp likewise"
#define DOTTED(a)    (a) >> 24, (a) >> 16 & 0xff, (a) >> 8 & 0xff, (a)&0xff
#define DOTTED_FMT   "%u.%u.%u.%u"

/* A piece of text up to `end`, which must be there; returns what follows it, or NULL. */
static const char *piece_take(char *to, size_t room, const char *text, char end)
{
	const char *stop = strchr(text, end);
	size_t len = stop ? (size_t)(stop - text) : strlen(text);

	if (!stop || len >= room)
		return NULL;
	memcpy(to, text, len);
	to[len] = '\0';
	return end ? stop + 1 : stop;
}

static int address_get(uint32_t *out, const char *text)
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) != 1)
		return -EINVAL;
	*out = ntohl(a.s_addr);
	return 0;
}

/* 1 to max in decimal, without sign or blanks; 0: it is not. */
static unsigned number_get(const char *text, unsigned max)
{
	unsigned v = 0;

	if (!*text || strlen(text) > 5)
		return 0;
	for (; *text; text++) {
		if (!isdigit((unsigned char)*text))
			return 0;
		v = v * 10 + (unsigned)(*text - '0');
	}
	return v <= max ? v : 0;
}

int net_user_forward_parse(struct net_user_forward *out, const char *text, char why[NET_WHY_MAX])
{
	char protocol[8], host[32], host_port[8], guest[32], guest_port[8];
	const char *s = text;

	memset(out, 0, sizeof(*out));
	s = piece_take(protocol, sizeof(protocol), s, ':');
	if (!s || (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0))
		return net_why(why, -EINVAL, "neither tcp: nor udp:; " FORWARD_HINT);
	out->udp = protocol[0] == 'u';
	s = piece_take(host, sizeof(host), s, ':');
	if (s)
		s = piece_take(host_port, sizeof(host_port), s, '-');
	if (s)
		s = piece_take(guest, sizeof(guest), s, ':');
	if (s)
		s = piece_take(guest_port, sizeof(guest_port), s, '\0');
	if (!s)
		return net_why(why, -EINVAL,
			"not of the form tcp:[ADDRESS]:PORT-[ADDRESS]:PORT; " FORWARD_HINT);
	if (address_get(&out->host, *host ? host : "127.0.0.1"))
		return net_why(why, -EINVAL,
			"%s is no IPv4 address of the host; use 127.0.0.1, or 0.0.0.0 for all",
			host);
	if (*guest && address_get(&out->guest, guest))
		return net_why(why, -EINVAL,
			"%s is no IPv4 address; use the guest's, or none for the one DHCP gives",
			guest);
	out->host_port = (uint16_t)number_get(host_port, 65535);
	out->guest_port = (uint16_t)number_get(guest_port, 65535);
	if (!out->host_port || !out->guest_port)
		return net_why(why, -EINVAL, "%s is no port; use 1 to 65535",
			out->host_port ? guest_port : host_port);
	return 0;
}

char *net_user_forward_print(const struct net_user_forward *f, char text[64])
{
	char guest[20] = "";

	if (f->guest)
		snprintf(guest, sizeof(guest), DOTTED_FMT, DOTTED(f->guest));
	snprintf(text, 64, "%s:" DOTTED_FMT ":%u-%s:%u", f->udp ? "udp" : "tcp", DOTTED(f->host),
		f->host_port, guest, f->guest_port);
	return text;
}

int net_user_address_parse(uint32_t *out, const char *text, char why[NET_WHY_MAX])
{
	if (address_get(out, text) || !*out)
		return net_why(why, -EINVAL, "no IPv4 address; write it as 10.0.2.2");
	return 0;
}

int net_user_network_parse(uint32_t *net, unsigned *prefix, const char *text, char why[NET_WHY_MAX])
{
	char address[32];
	const char *s = piece_take(address, sizeof(address), text, '/');
	uint32_t host_bits;

	if (!s || address_get(net, address) || !*net)
		return net_why(why, -EINVAL, "not a network; write it as 10.0.2.0/24");
	*prefix = number_get(s, 28);
	if (*prefix < 8)
		return net_why(why, -EINVAL, "/%.8s is not a length in range; use /8 to /28", s);
	host_bits = UINT32_MAX >> *prefix;
	if (*net & host_bits)
		return net_why(why, -EINVAL,
			"not the first address of a /%u; use " DOTTED_FMT "/%u", *prefix,
			DOTTED(*net & ~host_bits), *prefix);
	return 0;
}

/* Neither the network's own address nor its broadcast address. */
static int address_check(
	const struct net_user_options *o, const char *key, uint32_t a, char why[NET_WHY_MAX])
{
	uint32_t host_bits = UINT32_MAX >> o->prefix;

	if ((a & ~host_bits) == o->net && (a & host_bits) && (a & host_bits) != host_bits)
		return 0;
	return net_why(why, -EINVAL,
		"%s=" DOTTED_FMT ": outside the network; use " DOTTED_FMT " to " DOTTED_FMT, key,
		DOTTED(a), DOTTED(o->net + 1), DOTTED(o->net + host_bits - 1));
}

static int hostname_check(const char *name, char why[NET_WHY_MAX])
{
	if (strnlen(name, NET_USER_HOSTNAME_MAX + 1) > NET_USER_HOSTNAME_MAX)
		return net_why(why, -EINVAL, "hostname=: too long; use at most %u characters",
			NET_USER_HOSTNAME_MAX);
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-' && *c != '.')
			return net_why(why, -EINVAL,
				"hostname=%s: not a host's name; use letters, digits, - and .",
				name);
	return 0;
}

int net_user_options_check(struct net_user_options *o, char why[NET_WHY_MAX])
{
	int err;

	if (!o->net) {
		o->net = 0x0a000200;
		o->prefix = 24;
	}
	if (o->prefix < 8 || o->prefix > 28 || o->net & UINT32_MAX >> o->prefix)
		return net_why(why, -EINVAL,
			"net=" DOTTED_FMT "/%u: not a network; use 10.0.2.0/24", DOTTED(o->net),
			o->prefix);
	if (!o->host)
		o->host = o->net + 2;
	if (!o->dns)
		o->dns = o->net + 3;
	if (!o->dhcp_start)
		o->dhcp_start = o->net + (o->prefix < 28 ? 15 : 4);
	err = address_check(o, "host", o->host, why);
	if (!err)
		err = address_check(o, "dns", o->dns, why);
	if (!err)
		err = address_check(o, "dhcpstart", o->dhcp_start, why);
	if (!err && (o->dns == o->host || o->dhcp_start == o->host || o->dhcp_start == o->dns))
		err = net_why(why, -EINVAL,
			"%s=" DOTTED_FMT ": the %s has that address; use another",
			o->dns == o->host ? "dns" : "dhcpstart",
			DOTTED(o->dns == o->host ? o->dns : o->dhcp_start),
			o->dhcp_start == o->dns && o->dns != o->host ? "resolver" : "router");
	if (!err)
		err = hostname_check(o->hostname, why);
	for (unsigned i = 0; !err && i < o->nforwards; i++)
		if (o->forwards[i].guest)
			err = address_check(o, "hostfwd: guest", o->forwards[i].guest, why);
	return err;
}
