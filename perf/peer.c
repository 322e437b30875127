/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The far ends of the network works. In memory: a sink that checks every frame, a source, an echo.
 * On a tap: an interface in a network namespace of this process's own, with a program behind it for
 * the echo; both go with the process.
 *
 * Threads: the hooks run on the machine's I/O thread; the tap's echo has a thread of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf/bench_priv.h"
#include "perf/pattern.h"

#define PEER_FLAT_MAX (PATTERN_FRAME_MAX + 64u)
#define ETH_P_IP_BE   htons(0x0800)

struct bench_peer {
	struct net_port *port;
	bool tap;
	uint32_t frame_len;
	uint64_t seq;
	_Atomic uint64_t good, bad;
	uint8_t *flat; /* a scattered frame, made contiguous to be checked */
	int packet_fd;
	char ifname[IFNAMSIZ];
	pthread_t thread;
	bool thread_made;
	atomic_bool stop;
};

static const struct pattern_peers source_peers = {
	.mac_to = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
	.mac_from = {0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc},
	.ip_to = 0x0a000002,
	.ip_from = 0x0a000001,
};

static bool sink_check(void *ctx, unsigned queue, const struct net_packet *pkt)
{
	struct bench_peer *p = ctx;
	const uint8_t *f = pkt->segs[0].iov_base;
	uint64_t seq;
	size_t at = 0;
	bool ok;

	(void)queue;
	if (pkt->nsegs > 1) {
		if (pkt->len > PEER_FLAT_MAX) {
			counter_add(&p->bad, 1);
			return false;
		}
		for (uint32_t i = 0; i < pkt->nsegs && at + pkt->segs[i].iov_len <= PEER_FLAT_MAX;
			i++) {
			memcpy(p->flat + at, pkt->segs[i].iov_base, pkt->segs[i].iov_len);
			at += pkt->segs[i].iov_len;
		}
		f = p->flat;
	}
	ok = pattern_frame_check(f, pkt->len, &seq) >= 0;
	counter_add(ok ? &p->good : &p->bad, 1);
	return ok;
}

static uint32_t source_fill(void *ctx, unsigned queue, struct net_buffer *buf)
{
	struct bench_peer *p = ctx;
	size_t at = 0;

	(void)queue;
	if (buf->room < p->frame_len)
		return 0;
	memset(&buf->hdr, 0, sizeof(buf->hdr));
	counter_add(&p->good, 1);
	if (buf->segs[0].iov_len >= p->frame_len) {
		pattern_frame_build(
			buf->segs[0].iov_base, p->frame_len, false, &source_peers, p->seq++);
		return p->frame_len;
	}
	pattern_frame_build(p->flat, p->frame_len, false, &source_peers, p->seq++);
	for (uint32_t i = 0; i < buf->nsegs && at < p->frame_len; i++) {
		size_t n = p->frame_len - at;

		n = n < buf->segs[i].iov_len ? n : buf->segs[i].iov_len;
		memcpy(buf->segs[i].iov_base, p->flat + at, n);
		at += n;
	}
	return p->frame_len;
}

static int peer_memory(
	struct bench_peer *p, const struct bench_work *w, unsigned queues, char why[VMM_WHY_MAX])
{
	struct net_mem_options o = {.queues = queues, .frame_len = w->size, .ctx = p};

	if (!strcmp(w->work, "tx")) {
		o.kind = NET_MEM_SINK;
		o.check = sink_check;
	} else if (!strcmp(w->work, "rx")) {
		o.kind = NET_MEM_SOURCE;
		o.fill = source_fill;
	} else {
		o.kind = NET_MEM_ECHO;
	}
	return net_mem_open(&p->port, &o, why);
}

/* Frames the kernel has taken from the tap, by its own count: in this namespace there is one tap.
 */
static uint64_t tap_received(const char *ifname)
{
	FILE *f = fopen("/proc/thread-self/net/dev", "re");
	unsigned long long packets = 0, bytes;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':'), *name = line + strspn(line, " ");

		if (!colon)
			continue;
		*colon = '\0';
		if (!strcmp(name, ifname) && sscanf(colon + 1, "%llu %llu", &bytes, &packets) == 2)
			break;
		packets = 0;
	}
	if (f)
		fclose(f);
	return packets;
}

/* Sends every frame of ours back with its addresses exchanged. */
static void *tap_echo(void *arg)
{
	struct bench_peer *p = arg;
	uint8_t *f = p->flat, mac[6];
	uint64_t seq;

	while (!atomic_load(&p->stop)) {
		struct pollfd pfd = {.fd = p->packet_fd, .events = POLLIN};
		ssize_t n = poll(&pfd, 1, 100) > 0
				    ? recv(p->packet_fd, f, PEER_FLAT_MAX, MSG_DONTWAIT)
				    : 0;

		if (n <= 0)
			continue;
		if (pattern_frame_check(f, (size_t)n, &seq) < 0) {
			counter_add(&p->bad, 1);
			continue;
		}
		memcpy(mac, f, 6);
		memcpy(f, f + 6, 6);
		memcpy(f + 6, mac, 6);
		if (send(p->packet_fd, f, (size_t)n, 0) == n)
			counter_add(&p->good, 1);
	}
	return NULL;
}

static int tap_socket(struct bench_peer *p, char why[VMM_WHY_MAX])
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = ETH_P_IP_BE};
	int ignore = 1;

	to.sll_ifindex = (int)if_nametoindex(p->ifname);
	p->packet_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, ETH_P_IP_BE);
	if (p->packet_fd < 0 || !to.sll_ifindex || bind(p->packet_fd, (void *)&to, sizeof(to)) ||
		setsockopt(p->packet_fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &ignore,
			sizeof(ignore))) {
		int err = errno ? errno : ENODEV;

		snprintf(why, VMM_WHY_MAX, "packet socket on %s: %s", p->ifname, strerror(err));
		return -err;
	}
	return 0;
}

static int interface_up(const char *name)
{
	struct ifreq ifr = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;
	FILE *f;

	if (fd < 0)
		return -errno;
	/* no router solicitations between the measured frames */
	f = fopen("/proc/sys/net/ipv6/conf/all/disable_ipv6", "we");
	if (f) {
		fputs("1", f);
		fclose(f);
	}
	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &ifr))
		err = -errno;
	ifr.ifr_flags |= IFF_UP;
	if (!err && ioctl(fd, SIOCSIFFLAGS, &ifr))
		err = -errno;
	close(fd);
	return err;
}

static int peer_tap(
	struct bench_peer *p, const struct bench_work *w, unsigned queues, char why[VMM_WHY_MAX])
{
	struct net_tap_options o = {.name = "sluice0", .queues = queues};
	int err;

	if (unshare(CLONE_NEWNET)) {
		err = -errno;
		snprintf(why, VMM_WHY_MAX, "no network namespace for a tap: %s (run as root)",
			strerror(-err));
		return err;
	}
	err = net_tap_open(&p->port, &o, why);
	if (err)
		return err;
	snprintf(p->ifname, sizeof(p->ifname), "%s", net_tap_name(p->port));
	err = interface_up(p->ifname);
	if (err) {
		snprintf(why, VMM_WHY_MAX, "tap %s: cannot be brought up: %s", p->ifname,
			strerror(-err));
		return err;
	}
	p->tap = true;
	if (strcmp(w->work, "echo"))
		return 0;
	err = tap_socket(p, why);
	if (!err)
		err = -pthread_create(&p->thread, NULL, tap_echo, p);
	p->thread_made = !err;
	return err;
}

int bench_peer_create(struct bench_peer **out, const struct bench_work *work, unsigned queues,
	char why[VMM_WHY_MAX])
{
	struct bench_peer *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->packet_fd = -1;
	p->frame_len = work->size;
	p->flat = malloc(PEER_FLAT_MAX);
	err = !p->flat                       ? -ENOMEM
	      : work->port == BENCH_PORT_TAP ? peer_tap(p, work, queues, why)
					     : peer_memory(p, work, queues, why);
	if (err) {
		if (p->port)
			net_port_close(p->port);
		p->port = NULL;
		bench_peer_destroy(p);
		return err;
	}
	*out = p;
	return 0;
}

struct net_port *bench_peer_port(struct bench_peer *p)
{
	return p->port;
}

void bench_peer_counts(const struct bench_peer *p, uint64_t *good, uint64_t *bad)
{
	*good = p->tap && !p->thread_made ? tap_received(p->ifname) : counter_get(&p->good);
	*bad = counter_get(&p->bad);
}

void bench_peer_destroy(struct bench_peer *p)
{
	atomic_store(&p->stop, true);
	if (p->thread_made)
		pthread_join(p->thread, NULL);
	if (p->packet_fd >= 0)
		close(p->packet_fd);
	free(p->flat);
	free(p);
}

int bench_tap_probe(char why[VMM_WHY_MAX])
{
	struct bench_work w = {
		.work = "tx", .size = 64, .depth = 1, .queues = 1, .port = BENCH_PORT_TAP};
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		struct bench_peer *p;

		_exit(bench_peer_create(&p, &w, 1, why) ? 1 : 0);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid > 0 && WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	snprintf(why, VMM_WHY_MAX,
		geteuid() ? "a tap needs root (or CAP_NET_ADMIN)"
			  : "this host allows no tap in a network namespace");
	return -EPERM;
}
