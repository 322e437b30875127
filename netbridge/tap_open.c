/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening a tap by name or from descriptors, and what to tell the user when that fails. */
#include "netbridge/tap_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define TAP_DEVICE "/dev/net/tun"

/* An ioctl on the interface of this name. 0 or -errno. */
static int tap_interface_ioctl(const char *name, unsigned long request, struct ifreq *ifr)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return -errno;
	memset(ifr->ifr_name, 0, sizeof(ifr->ifr_name));
	strncpy(ifr->ifr_name, name, sizeof(ifr->ifr_name) - 1);
	if (ioctl(fd, request, ifr))
		err = -errno;
	close(fd);
	return err;
}

static bool tap_interface_is_tap(const char *name)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq ifr = {0};

	ifr.ifr_data = (void *)&info;
	return !tap_interface_ioctl(name, SIOCETHTOOL, &ifr) && !strcmp(info.driver, "tun") &&
	       !strcmp(info.bus_info, "tap");
}

static int tap_interface_up(const char *name, char why[NET_WHY_MAX])
{
	struct ifreq ifr = {0};
	int err = tap_interface_ioctl(name, SIOCGIFFLAGS, &ifr);

	ifr.ifr_flags |= IFF_UP;
	if (!err)
		err = tap_interface_ioctl(name, SIOCSIFFLAGS, &ifr);
	if (err)
		return net_why(why, err, "tap %s: cannot bring it up: %s", name, strerror(-err));
	return 0;
}

/* ------------------------------------------------------------------ by name */

static int tap_name_check(const char *name, char why[NET_WHY_MAX])
{
	size_t len = strlen(name);
	const char *percent = strchr(name, '%');

	if (len >= IFNAMSIZ)
		return net_why(why, -ENAMETOOLONG,
			"tap name \"%.40s\" has %zu characters; an interface's name has at most %d",
			name, len, IFNAMSIZ - 1);
	if (!len || strpbrk(name, "/: \t\n") || !strcmp(name, ".") || !strcmp(name, ".."))
		return net_why(why, -EINVAL,
			"tap name \"%s\": a name without '/', ':' and spaces is needed", name);
	/* The kernel counts for "%d". */
	if (percent && (percent[1] != 'd' || strchr(percent + 1, '%')))
		return net_why(why, -EINVAL, "tap name \"%s\": '%%' only as one \"%%d\"", name);
	return 0;
}

static int tap_device_error(int err, char why[NET_WHY_MAX])
{
	switch (err) {
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		return net_why(why, err,
			"tap: no " TAP_DEVICE " here; load the module (modprobe tun), or hand over "
			"an open tap with fd=N");
	case -EACCES:
	case -EPERM:
		return net_why(why, -EPERM,
			"tap: no permission to open " TAP_DEVICE
			"; run as root, or hand over an open tap with fd=N");
	default:
		return net_why(why, err, "tap: cannot open " TAP_DEVICE ": %s", strerror(-err));
	}
}

static int tap_attach_error(const char *name, unsigned queues, int err, char why[NET_WHY_MAX])
{
	switch (err) {
	case -EPERM:
		return net_why(why, err,
			"tap %s: no permission; run as root, or have root make it once with "
			"`ip tuntap add dev %s mode tap %suser $USER`, or hand over an open tap "
			"with fd=N",
			name, name, queues > 1 ? "multi_queue " : "");
	case -EBUSY:
		return net_why(why, err, "tap %s: in use by another program", name);
	case -E2BIG:
	case -ENFILE:
		return net_why(why, err, "tap %s: the kernel gives no %u queues", name, queues);
	case -EINVAL:
		if (if_nametoindex(name) && !tap_interface_is_tap(name))
			return net_why(why, err,
				"%s is an interface, but not a tap; name a tap, or one to create",
				name);
		if (if_nametoindex(name))
			return net_why(why, err,
				"tap %s was made for one queue, %u are asked for; make it with "
				"`ip tuntap add dev %s mode tap multi_queue`",
				name, queues, name);
		return net_why(why, err, "tap %s: the kernel refuses the name", name);
	default:
		return net_why(why, err, "tap %s: %s", name, strerror(-err));
	}
}

/* One descriptor attached to the interface `name`, which may get another name in the act. */
static int tap_attach(char name[IFNAMSIZ], short flags, int *out)
{
	struct ifreq ifr = {0};
	int err;

	*out = open(TAP_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (*out < 0)
		return -errno;
	memcpy(ifr.ifr_name, name, IFNAMSIZ);
	ifr.ifr_flags = flags;
	if (!ioctl(*out, TUNSETIFF, &ifr)) {
		memcpy(name, ifr.ifr_name, IFNAMSIZ);
		name[IFNAMSIZ - 1] = 0;
		return 0;
	}
	err = -errno;
	close(*out);
	*out = -1;
	return err;
}

static int tap_open_name(struct tap_port *t, const char *name, char why[NET_WHY_MAX])
{
	short flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	bool existed;
	int err;

	err = tap_name_check(name, why);
	if (err)
		return err;
	if (access(TAP_DEVICE, R_OK | W_OK))
		return tap_device_error(-errno, why);
	strncpy(t->name, name, IFNAMSIZ - 1);
	existed = if_nametoindex(name) != 0;
	if (t->port.queues > 1)
		flags |= IFF_MULTI_QUEUE;
	for (unsigned q = 0; q < t->port.queues; q++) {
		err = tap_attach(t->name, flags, &t->queue[q].fd);
		if (err == -EINVAL && existed && t->port.queues == 1) {
			/* Made for several queues: one of them will do. */
			flags |= IFF_MULTI_QUEUE;
			err = tap_attach(t->name, flags, &t->queue[q].fd);
		}
		if (err)
			return tap_attach_error(t->name, t->port.queues, err, why);
	}
	t->vnet = true;
	return existed ? 0 : tap_interface_up(t->name, why);
}

/* ------------------------------------------------------------------ by descriptor */

/*
 * TUNGETIFF's bit for "no packet information" is also its bit for "no filter", and so says the
 * former only while there is one: this attaches one that lets everything pass, for the time of the
 * question.
 */
static bool tap_fd_has_no_pi(int fd, struct ifreq *ifr)
{
	struct sock_filter pass = {.code = BPF_RET | BPF_K, .k = ~0u};
	struct sock_fprog filter = {.len = 1, .filter = &pass};
	bool no_pi;

	if (!(ifr->ifr_flags & IFF_NO_PI) || ioctl(fd, TUNATTACHFILTER, &filter))
		return ifr->ifr_flags & IFF_NO_PI;
	no_pi = !ioctl(fd, TUNGETIFF, ifr) && ifr->ifr_flags & IFF_NO_PI;
	ioctl(fd, TUNDETACHFILTER, &filter);
	return no_pi;
}

static int tap_fd_check(
	struct tap_port *t, const struct net_tap_options *opts, unsigned i, char why[NET_WHY_MAX])
{
	int fd = opts->fds[i], flags = fcntl(fd, F_GETFL);
	struct ifreq ifr = {0};

	if (flags < 0)
		return net_why(why, -EBADF, "tap fd=%d: not an open descriptor", fd);
	if (ioctl(fd, TUNGETIFF, &ifr))
		return net_why(why, -EINVAL,
			"tap fd=%d: not a tap, or not yet attached to an interface (TUNSETIFF)",
			fd);
	if (!(ifr.ifr_flags & IFF_TAP))
		return net_why(why, -EINVAL, "tap fd=%d: %s is a tun, not a tap", fd, ifr.ifr_name);
	if (!tap_fd_has_no_pi(fd, &ifr))
		return net_why(why, -EINVAL,
			"tap fd=%d: %s has packet information in front of frames; open it "
			"with IFF_NO_PI",
			fd, ifr.ifr_name);
	if (i && strncmp(t->name, ifr.ifr_name, IFNAMSIZ))
		return net_why(why, -EINVAL, "tap fd=%d: belongs to %s, fd=%d to %s", fd,
			ifr.ifr_name, opts->fds[0], t->name);
	for (unsigned j = 0; j < i; j++)
		if (opts->fds[j] == fd)
			return net_why(why, -EINVAL, "tap fd=%d is given twice", fd);
	if (!i)
		memcpy(t->name, ifr.ifr_name, IFNAMSIZ);
	t->vnet = ifr.ifr_flags & IFF_VNET_HDR;
	if (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return net_why(why, -errno, "tap fd=%d: %s", fd, strerror(errno));
	t->queue[i].fd = fd;
	return 0;
}

/* ------------------------------------------------------------------ both */

/* What the kernel can do, by asking for less and less; finally it is told to finish everything
 * itself. */
static int tap_offloads_probe(struct tap_port *t, char why[NET_WHY_MAX])
{
	static const uint32_t less[] = {NET_OFFLOAD_USO, NET_OFFLOAD_UFO, NET_OFFLOAD_ECN,
		NET_OFFLOAD_TSO6 | NET_OFFLOAD_TSO4, NET_OFFLOAD_CSUM};
	int fd = t->queue[0].fd, size = sizeof(struct net_vnet_hdr);
	uint32_t offloads = NET_OFFLOAD_ALL;

	t->port.offloads = 0;
	if (!t->vnet)
		return 0;
	if (ioctl(fd, TUNSETVNETHDRSZ, &size))
		return net_why(why, -errno, "tap %s: the kernel takes no vnet header of %d bytes",
			t->name, size);
	for (unsigned i = 0;
		i < sizeof(less) / sizeof(less[0]) &&
		ioctl(fd, TUNSETOFFLOAD, (unsigned long)net_tap_offload_bits(offloads));
		i++)
		offloads &= ~less[i];
	if (ioctl(fd, TUNSETOFFLOAD, 0ul))
		offloads = 0;
	t->port.offloads = offloads;
	return 0;
}

static void tap_unwind(struct tap_port *t, bool close_fds)
{
	for (unsigned q = 0; q < t->port.queues; q++) {
		if (close_fds && t->queue[q].fd >= 0)
			close(t->queue[q].fd);
		free(t->queue[q].spill);
	}
	if (t->quiet_fd >= 0)
		close(t->quiet_fd);
	free(t);
}

static struct tap_port *tap_alloc(unsigned queues)
{
	struct tap_port *t = net_port_alloc(sizeof(*t) + queues * sizeof(t->queue[0]));
	bool good;

	if (!t)
		return NULL;
	net_port_init(&t->port, &net_tap_ops, queues, 0);
	for (unsigned q = 0; q < queues; q++)
		t->queue[q].fd = -1;
	t->link_fd = -1;
	t->quiet_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	good = t->quiet_fd >= 0;
	for (unsigned q = 0; q < queues && good; q++) {
		t->queue[q].spill = malloc(NET_FRAME_MAX);
		good = t->queue[q].spill != NULL;
	}
	if (good)
		return t;
	tap_unwind(t, true);
	return NULL;
}

int net_tap_open(struct net_port **out, const struct net_tap_options *opts, char why[NET_WHY_MAX])
{
	bool by_fd = opts->fds != NULL;
	unsigned queues = by_fd ? opts->nfds : opts->queues;
	struct tap_port *t;
	int err = 0;

	if (queues < 1 || queues > NET_QUEUES_MAX)
		return net_why(why, -EINVAL, "tap: %u queues; 1 to %u are possible", queues,
			NET_QUEUES_MAX);
	if (by_fd && opts->queues && opts->queues != opts->nfds)
		return net_why(why, -EINVAL, "tap: %u queues but %u descriptors; one for each",
			opts->queues, opts->nfds);
	if (by_fd == (opts->name != NULL))
		return net_why(why, -EINVAL, "tap: either a name or descriptors are needed");
	t = tap_alloc(queues);
	if (!t)
		return net_why(why, -ENOMEM, "tap: no memory or descriptors left");
	if (!by_fd)
		err = tap_open_name(t, opts->name, why);
	for (unsigned i = 0; by_fd && i < queues && !err; i++)
		err = tap_fd_check(t, opts, i, why);
	if (!err)
		err = tap_offloads_probe(t, why);
	if (err) {
		tap_unwind(t, !by_fd);
		return err;
	}
	net_tap_link_open(t);
	*out = &t->port;
	return 0;
}
