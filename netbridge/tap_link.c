/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A tap's link is its interface on the host: set down there, or without carrier, the cable is out.
 * Changes are heard of through rtnetlink (rtnetlink(7), RTM_NEWLINK); what they say is not read,
 * for the interface is asked anyway.
 */
#include "netbridge/tap_priv.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINK_UP (IFF_UP | IFF_RUNNING)

/* -1: not known here, as of an interface in another network namespace. */
static int tap_flags(const struct tap_port *t)
{
	struct ifreq ifr = {0};

	memcpy(ifr.ifr_name, t->name, IFNAMSIZ);
	if (ioctl(t->link_fd, SIOCGIFFLAGS, &ifr))
		return -1;
	return (unsigned short)ifr.ifr_flags;
}

void net_tap_link_open(struct tap_port *t)
{
	struct sockaddr_nl sa = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};

	t->link_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (t->link_fd < 0)
		return;
	if (!bind(t->link_fd, (struct sockaddr *)&sa, sizeof(sa)) && tap_flags(t) >= 0)
		return;
	close(t->link_fd);
	t->link_fd = -1;
}

int net_tap_link_fd(const struct net_port *port)
{
	return tap_of(port)->link_fd;
}

bool net_tap_link(struct net_port *port)
{
	struct tap_port *t = tap_of(port);
	char message[512];
	int flags;

	if (t->link_fd < 0)
		return true;
	/* an overrun (ENOBUFS) is news as well, and is told once */
	while (recv(t->link_fd, message, sizeof(message), 0) >= 0 || errno == ENOBUFS)
		;
	flags = tap_flags(t);
	return flags >= 0 && (flags & LINK_UP) == LINK_UP;
}
