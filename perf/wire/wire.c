/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The far end of a tap, whoever has its near end, and what a program does on a tap without any
 * guest. One process, one thread, one thing:
 *
 *   wire source IF SIZE       frames into the tap, as fast as the kernel takes them, until it is
 * ended wire echo IF              every frame of the pattern back, its addresses exchanged, until
 * it is ended wire write TAP SIZE MS    opens the tap and writes frames to it; above 1514 bytes
 * segments to be made wire read TAP SIZE MS     opens the tap, and reads and checks frames from it
 *
 * write and read print "frames=N ns=N bad=N". Exit status: 0, 1 the host's, 2 the command line's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "perf/pattern.h"

#define ETH_P_IP_BE htons(0x0800)
#define BURST       64u
#define DEPTH       256u
#define WHOLE_MAX   1514u
#define TCP_MSS     1448u
#define HEADERS_TCP 54u

/* What says that a frame is to be cut into segments. */
static const struct virtio_net_hdr segments = {
	.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
	.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
	.hdr_len = HEADERS_TCP,
	.gso_size = TCP_MSS,
	.csum_start = 34,
	.csum_offset = 16,
};

static const struct pattern_peers peers = {
	.mac_to = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
	.mac_from = {0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc},
	.ip_to = 0x0a000002,
	.ip_from = 0x0a000001,
};

static uint8_t frames[BURST][PATTERN_FRAME_MAX + 64];

static int fail(const char *what)
{
	fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
	return 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------------ behind the interface */

static int packet_socket(const char *ifname, bool source)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = source ? 0 : ETH_P_IP_BE};
	int on = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	at.sll_ifindex = (int)if_nametoindex(ifname);
	if (fd < 0 || !at.sll_ifindex ||
		setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
		setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) ||
		bind(fd, (struct sockaddr *)&at, sizeof(at)))
		return -1;
	return fd;
}

static int source(const char *ifname, size_t size)
{
	static struct virtio_net_hdr whole;
	bool tcp = size > WHOLE_MAX;
	struct mmsghdr msgs[BURST] = {0};
	struct iovec iov[BURST][2];
	uint64_t seq = 0;
	int fd = packet_socket(ifname, true), on = 1;

	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)))
		return fail(ifname);
	if (tcp)
		whole = segments;
	for (unsigned i = 0; i < BURST; i++) {
		iov[i][0] = (struct iovec){&whole, sizeof(whole)};
		iov[i][1] = (struct iovec){frames[i], size};
		msgs[i].msg_hdr.msg_iov = iov[i];
		msgs[i].msg_hdr.msg_iovlen = 2;
	}
	for (;;) {
		for (unsigned i = 0; i < BURST; i++)
			pattern_frame_build(frames[i], size, tcp, &peers, seq++);
		/* a full queue loses frames, and says so: that is no error of a source's */
		if (sendmmsg(fd, msgs, BURST, 0) < 0 && errno != ENOBUFS && errno != EIO)
			return fail("sendmmsg");
	}
}

static int echo(const char *ifname)
{
	uint8_t *f = frames[0], mac[6];
	int fd = packet_socket(ifname, false);
	uint64_t seq;

	if (fd < 0)
		return fail(ifname);
	for (;;) {
		ssize_t n = recv(fd, f, sizeof(frames[0]), 0);

		if (n < 0)
			return fail("recv");
		if (pattern_frame_check(f, (size_t)n, &seq) < 0)
			continue;
		memcpy(mac, f, 6);
		memcpy(f, f + 6, 6);
		memcpy(f + 6, mac, 6);
		if (send(fd, f, (size_t)n, 0) < 0 && errno != ENOBUFS)
			return fail("send");
	}
}

/* ------------------------------------------------------------------ in front of it */

struct tap_frame {
	struct virtio_net_hdr hdr;
	uint8_t bytes[PATTERN_FRAME_MAX + 64];
} __attribute__((packed));

static int tap_open(const char *name)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr))
		return -1;
	return fd;
}

/* As many frames in turn as a driver has on their way: no cache is warmer than a guest's. */
static int tap_write(const char *name, size_t size, uint64_t ns)
{
	static struct tap_frame f[DEPTH];
	bool tcp = size > WHOLE_MAX;
	uint64_t n = 0, began;
	int fd = tap_open(name);

	if (fd < 0)
		return fail(name);
	for (unsigned i = 0; i < DEPTH; i++) {
		if (tcp)
			f[i].hdr = segments;
		pattern_frame_build(f[i].bytes, size, tcp, &peers, i);
	}
	began = now_ns();
	while (now_ns() - began < ns) {
		for (unsigned i = 0; i < DEPTH; i++, n++) {
			pattern_frame_stamp(f[i].bytes, size, tcp, n);
			if (write(fd, &f[i], sizeof(f[i].hdr) + size) < 0)
				return fail("write");
		}
	}
	printf("frames=%llu ns=%llu bad=0\n", (unsigned long long)n,
		(unsigned long long)(now_ns() - began));
	return 0;
}

static int tap_read(const char *name, size_t size, uint64_t ns)
{
	static struct tap_frame f;
	struct pollfd p = {.fd = tap_open(name), .events = POLLIN};
	uint64_t n = 0, bad = 0, seq, began;

	if (p.fd < 0 || ioctl(p.fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4))
		return fail(name);
	began = now_ns();
	while (now_ns() - began < ns && poll(&p, 1, 1000) >= 0) {
		for (unsigned i = 0; i < BURST && p.revents & POLLIN; i++) {
			ssize_t got = read(p.fd, &f, sizeof(f));

			if (got < 0)
				break;
			if ((size_t)got != sizeof(f.hdr) + size ||
				pattern_frame_check(f.bytes, size, &seq) < 0)
				bad++;
			else
				n++;
		}
	}
	printf("frames=%llu ns=%llu bad=%llu\n", (unsigned long long)n,
		(unsigned long long)(now_ns() - began), (unsigned long long)bad);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	size_t size = argc > 3 ? strtoul(argv[3], NULL, 10) : 64;
	uint64_t ns = argc > 4 ? strtoull(argv[4], NULL, 10) * 1000000u : 0;

	if (size >= 64 && size <= PATTERN_FRAME_MAX) {
		if (!strcmp(what, "source") && argc == 4)
			return source(argv[2], size);
		if (!strcmp(what, "echo") && argc == 3)
			return echo(argv[2]);
		if (!strcmp(what, "write") && argc == 5)
			return tap_write(argv[2], size, ns);
		if (!strcmp(what, "read") && argc == 5)
			return tap_read(argv[2], size, ns);
	}
	fputs("usage: wire source IF SIZE | echo IF | write TAP SIZE MS | read TAP SIZE MS\n",
		stderr);
	return 2;
}
