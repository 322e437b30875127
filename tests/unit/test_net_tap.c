/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taps, each case in a child with a network namespace of its own that goes with it: frames both
 * ways against a packet socket, offloads, queues, descriptors handed over, and what is said when it
 * cannot work.
 */
#include "tests/unit/unit.h"
#include "netbridge/netbridge.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME      "sluicetest0"
#define TYPE_OURS 0x88b5
#define WAIT_MS   10000

/* ------------------------------------------------------------------ children */

static unsigned failures;

#define CHECK(cond) check(cond, #cond, __LINE__)

static bool check(bool good, const char *what, int line)
{
	if (!good) {
		fprintf(stderr, "\n    test_net_tap.c:%d: %s (errno %d)", line, what, errno);
		failures++;
	}
	return good;
}

enum { CHILD_GOOD, CHILD_BAD, CHILD_NO_NAMESPACE = 77, CHILD_NO_TUN };

static void child_run(void (*run)(void))
{
	int fd;

	alarm(40);
	if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET))
		_exit(CHILD_NO_NAMESPACE);
	/* Without the kernel's own frames (router solicitations) it is easier to count. */
	fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);
	if (fd >= 0) {
		if (write(fd, "1", 1) < 0)
			errno = 0;
		close(fd);
	}
	fd = open("/dev/net/tun", O_RDWR);
	if (fd < 0)
		_exit(CHILD_NO_TUN);
	close(fd);
	run();
	_exit(failures ? CHILD_BAD : CHILD_GOOD);
}

static void in_namespace(void (*run)(void))
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	CU_ASSERT_FATAL(pid >= 0);
	if (!pid)
		child_run(run);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_TRUE(WIFEXITED(status));
	if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_NO_NAMESPACE)
		unit_skip("no network namespace can be made (run as root)");
	else if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_NO_TUN)
		unit_skip("no /dev/net/tun");
	else
		CU_ASSERT_EQUAL(WEXITSTATUS(status), CHILD_GOOD);
}

/* ------------------------------------------------------------------ the other side */

/* A packet socket on the interface; with vnet headers if asked. */
static int wire_open(const char *name, int vnet)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(name)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), one = 1;

	CHECK(fd >= 0 && at.sll_ifindex > 0);
	if (vnet)
		CHECK(!setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &vnet, sizeof(vnet)));
	setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one));
	CHECK(!bind(fd, (struct sockaddr *)&at, sizeof(at)));
	return fd;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, WAIT_MS) == 1 && p.revents == POLLIN;
}

static bool wire_is_ours(const uint8_t *frame, size_t len)
{
	return len >= 14 && frame[0] == 2 && frame[1] == 'S';
}

/* The next of our frames, its vnet header (10 bytes, the kernel's) in front if there is one. */
static ssize_t wire_receive(int fd, uint8_t *data, size_t room, size_t front)
{
	ssize_t got;

	do {
		if (!readable(fd))
			return -1;
		got = recv(fd, data, room, 0);
	} while (got >= 0 && !wire_is_ours(data + front, (size_t)got - front));
	return got;
}

static void interface_up(const char *name, bool up)
{
	struct ifreq ifr = {0};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	CHECK(!ioctl(fd, SIOCGIFFLAGS, &ifr));
	ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
	CHECK(!ioctl(fd, SIOCSIFFLAGS, &ifr));
	close(fd);
}

static void interface_delete(const char *name)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} req = {.h = {.nlmsg_len = sizeof(req),
			 .nlmsg_type = RTM_DELLINK,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK}};
	char ack[512];
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	req.i.ifi_index = (int)if_nametoindex(name);
	CHECK(send(fd, &req, sizeof(req), 0) == sizeof(req));
	CHECK(recv(fd, ack, sizeof(ack), 0) > 0);
	CHECK(!if_nametoindex(name));
	close(fd);
}

/* ------------------------------------------------------------------ frames */

struct frame {
	struct net_packet pkt;
	struct iovec segs[4];
	uint8_t data[9100];
	unsigned released;
};

static void frame_release(struct net_packet *pkt)
{
	((struct frame *)pkt->owner)->released++;
}

static void frame_segs(struct frame *f, uint32_t len)
{
	f->segs[0] = (struct iovec){f->data, 14};
	f->segs[1] = (struct iovec){f->data + 14, 1};
	f->segs[2] = (struct iovec){f->data + 15, 0};
	f->segs[3] = (struct iovec){f->data + 15, len - 15};
	f->pkt = (struct net_packet){
		.segs = f->segs, .nsegs = 4, .len = len, .release = frame_release, .owner = f};
	f->released = 0;
}

static void frame_fill(struct frame *f, uint32_t len, unsigned seed)
{
	static const uint8_t macs[12] = {2, 'S', 0, 0, 0, 1, 2, 'S', 0, 0, 0, 2};

	for (uint32_t i = 0; i < len; i++)
		f->data[i] = (uint8_t)(seed * 29 + i * 3);
	memcpy(f->data, macs, 12);
	f->data[12] = TYPE_OURS >> 8;
	f->data[13] = TYPE_OURS & 0xff;
	frame_segs(f, len);
}

static uint32_t sum16(uint32_t sum, const uint8_t *p, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		sum += (uint32_t)p[i] << (i & 1 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

enum { L3 = 14, L4 = 34, TCP_HEADERS = 54, UDP_HEADERS = 42, MSS = 1400 };

/* IPv4 with TCP or UDP on it, the checksum left to whoever comes after. */
static void frame_ip(struct frame *f, bool tcp, uint32_t len, unsigned flow)
{
	uint8_t *ip = f->data + L3, *l4 = f->data + L4;

	frame_fill(f, len, flow);
	put16(f->data + 12, ETH_P_IP);
	memset(ip, 0, tcp ? TCP_HEADERS - L3 : UDP_HEADERS - L3);
	ip[0] = 0x45;
	put16(ip + 2, len - L3);
	ip[8] = 64;
	ip[9] = tcp ? 6 : 17;
	memcpy(ip + 12, (uint8_t[]){192, 0, 2, 1, 192, 0, 2, 2}, 8);
	put16(ip + 10, ~sum16(0, ip, 20) & 0xffff);
	put16(l4, 1000 + flow);
	put16(l4 + 2, 2000);
	if (tcp) {
		l4[12] = 0x50;
		l4[13] = 0x10;
	} else {
		put16(l4 + 4, len - L4);
	}
	put16(l4 + (tcp ? 16 : 6), sum16((tcp ? 6 : 17) + len - L4, ip + 12, 8));
	f->pkt.hdr = (struct net_vnet_hdr){
		.flags = NET_HDR_F_NEEDS_CSUM, .csum_start = L4, .csum_offset = tcp ? 16 : 6};
	if (tcp && len > TCP_HEADERS + MSS) {
		f->pkt.hdr.gso_type = NET_GSO_TCPV4;
		f->pkt.hdr.gso_size = MSS;
		f->pkt.hdr.hdr_len = TCP_HEADERS;
	}
}

static bool frame_checksum_good(const uint8_t *p, uint32_t len)
{
	return sum16(sum16(p[L3 + 9] + len - L4, p + L3 + 12, 8), p + L4, len - L4) == 0xffff &&
	       sum16(0, p + L3, 20) == 0xffff;
}

/* Room in odd pieces. */
struct room {
	uint8_t data[9100];
	struct iovec segs[3];
	struct net_buffer buf;
};

static void room_make(struct room *r, uint32_t room)
{
	r->segs[0] = (struct iovec){r->data, 7};
	r->segs[1] = (struct iovec){r->data + 7, 40};
	r->segs[2] = (struct iovec){r->data + 47, sizeof(r->data) - 47};
	r->buf = (struct net_buffer){.segs = r->segs, .nsegs = 3, .room = room};
}

/* The next of our frames out of the port. */
static bool port_receive(struct net_port *port, unsigned queue, struct room *r)
{
	for (;;) {
		room_make(r, sizeof(r->data));
		while (!net_port_receive(port, queue, &r->buf, 1))
			if (!readable(net_port_fd(port, queue)))
				return false;
		if (wire_is_ours(r->data, r->buf.len))
			return true;
	}
}

static struct net_port *tap_named(unsigned queues)
{
	struct net_tap_options o = {.name = NAME, .queues = queues};
	struct net_port *port = NULL;
	char why[NET_WHY_MAX] = "";

	if (!CHECK(!net_tap_open(&port, &o, why))) {
		fprintf(stderr, "\n    %s", why);
		_exit(CHILD_BAD);
	}
	return port;
}

/* Opening fails with this error, says this, and leaves no interface. */
static void tap_refused(const struct net_tap_options *o, int err, const char *says)
{
	struct net_port *port = NULL;
	char why[NET_WHY_MAX] = "";
	unsigned before = if_nametoindex(NAME);

	CHECK(net_tap_open(&port, o, why) == err);
	CHECK(!port);
	if (!CHECK(strstr(why, says)))
		fprintf(stderr, "\n    \"%s\" lacks \"%s\"", why, says);
	CHECK(if_nametoindex(NAME) == before);
}

/* ------------------------------------------------------------------ cases */

static struct frame frames[32];
static struct room rooms[32];
static uint8_t data[70000];

static void send_all(struct net_port *port, unsigned queue, unsigned n)
{
	struct net_packet *pkts[32];

	for (unsigned i = 0; i < n; i++)
		pkts[i] = &frames[i].pkt;
	CHECK(net_port_send(port, queue, pkts, n) == n);
	for (unsigned i = 0; i < n; i++)
		CHECK(frames[i].released == 1);
}

static void case_both_ways(void)
{
	struct net_port *port = tap_named(1);
	struct net_buffer bufs[32];
	struct net_counters c;
	uint64_t bytes = 0;
	int wire;

	CHECK(!strcmp(net_tap_name(port), NAME));
	CHECK(!strcmp(net_port_kind(port), "tap"));
	CHECK(net_port_queues(port) == 1);
	CHECK(net_port_offloads(port) & NET_OFFLOAD_TSO4);
	CHECK(net_port_tx_fd(port, 0) == net_port_fd(port, 0));
	wire = wire_open(NAME, 0);
	for (unsigned i = 0; i < 32; i++) {
		frame_fill(&frames[i], 60 + i * 46, i);
		bytes += frames[i].pkt.len;
	}
	send_all(port, 0, 32);
	for (unsigned i = 0; i < 32; i++) {
		CHECK(wire_receive(wire, data, sizeof(data), 0) == (ssize_t)frames[i].pkt.len);
		CHECK(!memcmp(data, frames[i].data, frames[i].pkt.len));
	}
	for (unsigned i = 0; i < 32; i++) {
		CHECK(send(wire, frames[i].data, frames[i].pkt.len, 0) ==
			(ssize_t)frames[i].pkt.len);
		room_make(&rooms[i], 1600);
		bufs[i] = rooms[i].buf;
	}
	CHECK(readable(net_port_fd(port, 0)));
	CHECK(net_port_receive(port, 0, bufs, 32) == 32);
	for (unsigned i = 0; i < 32; i++) {
		CHECK(bufs[i].len == frames[i].pkt.len && bufs[i].hdr.num_buffers == 1);
		CHECK(!memcmp(rooms[i].data, frames[i].data, bufs[i].len));
		CHECK(!bufs[i].hdr.gso_type && !(bufs[i].hdr.flags & NET_HDR_F_NEEDS_CSUM));
	}
	CHECK(net_port_receive(port, 0, bufs, 32) == 0);
	net_port_counters_get(port, &c);
	CHECK(c.tx_packets == 32 && c.rx_packets == 32 && c.tx_bytes == bytes);
	CHECK(c.rx_bytes == bytes && !c.tx_dropped && !c.rx_dropped);
	CHECK(c.system_calls == 65);
	close(wire);
	CHECK(if_nametoindex(NAME));
	net_port_close(port);
	CHECK(!if_nametoindex(NAME));
}

static void case_lengths(void)
{
	struct net_port *port = tap_named(1);
	struct net_counters c;
	int wire = wire_open(NAME, 0);

	/* Longer than the room by one, then just as long. */
	frame_fill(&frames[0], 1000, 0);
	frame_fill(&frames[1], 999, 1);
	for (unsigned i = 0; i < 2; i++)
		CHECK(send(wire, frames[i].data, frames[i].pkt.len, 0) > 0);
	for (unsigned i = 0; i < 2; i++) {
		CHECK(readable(net_port_fd(port, 0)));
		room_make(&rooms[0], 999);
		CHECK(net_port_receive(port, 0, &rooms[0].buf, 1) == i);
	}
	CHECK(rooms[0].buf.len == 999);
	CHECK(!memcmp(rooms[0].data, frames[1].data, 999));
	net_port_counters_get(port, &c);
	CHECK(c.rx_dropped == 1 && c.rx_packets == 1);
	/* What is not a frame is taken and dropped, the next goes through. */
	frame_fill(&frames[0], 60, 0);
	frames[0].pkt.len = 13;
	frame_fill(&frames[1], 60, 1);
	frames[1].pkt.hdr.gso_type = 77;
	frame_fill(&frames[2], 60, 2);
	frames[2].pkt.hdr.flags = NET_HDR_F_NEEDS_CSUM;
	frames[2].pkt.hdr.csum_start = 0xfff0;
	frame_fill(&frames[3], 60, 3);
	send_all(port, 0, 4);
	CHECK(wire_receive(wire, data, sizeof(data), 0) == 60);
	CHECK(!memcmp(data, frames[3].data, 60));
	net_port_counters_get(port, &c);
	CHECK(c.tx_dropped == 3 && c.tx_packets == 1);
	close(wire);
	net_port_close(port);
}

/* As many segments as a guest's chain can have. */
static void case_many_segments(void)
{
	static struct iovec segs[1500];
	struct net_port *port = tap_named(1);
	int wire = wire_open(NAME, 0);

	frame_fill(&frames[0], 1500, 9);
	for (unsigned i = 0; i < 1500; i++)
		segs[i] = (struct iovec){frames[0].data + i, 1};
	frames[0].pkt.segs = segs;
	frames[0].pkt.nsegs = 1500;
	send_all(port, 0, 1);
	CHECK(wire_receive(wire, data, sizeof(data), 0) == 1500);
	CHECK(!memcmp(data, frames[0].data, 1500));
	/* A buffer in 1,500 pieces: what does not fit the first 1,022 is dropped. */
	frame_fill(&frames[0], 1022, 3);
	frame_fill(&frames[1], 1023, 4);
	for (unsigned i = 0; i < 1500; i++)
		segs[i].iov_base = rooms[0].data + i;
	for (unsigned i = 0; i < 2; i++) {
		struct net_buffer buf = {.segs = segs, .nsegs = 1500, .room = 1500};

		CHECK(send(wire, frames[i].data, frames[i].pkt.len, 0) > 0);
		CHECK(readable(net_port_fd(port, 0)));
		CHECK(net_port_receive(port, 0, &buf, 1) == !i);
		CHECK(i || !memcmp(rooms[0].data, frames[0].data, 1022));
	}
	close(wire);
	net_port_close(port);
}

static void case_down_and_deleted(void)
{
	struct net_port *port = tap_named(1);
	int fd = net_port_fd(port, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	struct net_counters c;

	for (unsigned i = 0; i < 8; i++)
		frame_fill(&frames[i], 60, i);
	interface_up(NAME, false);
	send_all(port, 0, 8);
	net_port_counters_get(port, &c);
	CHECK(c.tx_dropped == 8 && c.tx_packets == 0);
	interface_up(NAME, true);
	frame_fill(&frames[0], 60, 0);
	send_all(port, 0, 1);
	net_port_counters_get(port, &c);
	CHECK(c.tx_packets == 1);

	interface_delete(NAME);
	room_make(&rooms[0], 1600);
	for (unsigned i = 0; i < 3; i++)
		CHECK(net_port_receive(port, 0, &rooms[0].buf, 1) == 0);
	/* The same descriptor, and it does not keep anybody awake. */
	CHECK(net_port_fd(port, 0) == fd);
	p.events = POLLIN;
	CHECK(poll(&p, 1, 0) == 0);
	for (unsigned i = 0; i < 8; i++)
		frame_fill(&frames[i], 60, i);
	send_all(port, 0, 8);
	net_port_counters_get(port, &c);
	CHECK(c.tx_dropped == 16 && c.tx_packets == 1);
	CHECK(net_port_offloads_set(port, 0) == 0);
	net_port_close(port);
}

/* The interface's state on the host is the cable: said by the descriptor, and by the port when
 * asked. */
static void case_link(void)
{
	struct net_port *port = tap_named(1), *pair, *other;
	char why[NET_WHY_MAX];

	if (!port)
		return;
	CHECK(net_port_link_fd(port) >= 0);
	while (!net_port_link(port))
		if (!CHECK(readable(net_port_link_fd(port))))
			return;
	for (unsigned i = 0; i < 3; i++) {
		interface_up(NAME, false);
		CHECK(readable(net_port_link_fd(port)));
		CHECK(!net_port_link(port));
		interface_up(NAME, true);
		/* it may be told of more than once on its way up */
		while (CHECK(readable(net_port_link_fd(port))) && !net_port_link(port))
			;
	}
	interface_delete(NAME);
	CHECK(readable(net_port_link_fd(port)));
	CHECK(!net_port_link(port));
	net_port_close(port);
	/* those that have no cable are always up */
	if (!CHECK(!net_pair_open(&pair, &other, 1, why)))
		return;
	CHECK(net_port_link(pair) && net_port_link_fd(pair) == -1);
	net_port_close(pair);
	net_port_close(other);
}

/* The kernel's header, ten bytes, in front of what goes through a packet socket. */
static ssize_t wire_send_offloaded(int wire, const struct frame *f)
{
	struct net_vnet_hdr hdr = f->pkt.hdr;
	struct iovec iov[2] = {{&hdr, 10}, {(void *)f->data, f->pkt.len}};

	return writev(wire, iov, 2);
}

static void case_checksum(void)
{
	struct net_port *port = tap_named(1);
	int wire = wire_open(NAME, 1);
	struct room *r = &rooms[0];

	/* Not accepted: the kernel finishes it. Accepted: it comes as it is. */
	frame_ip(&frames[0], false, 501, 1);
	CHECK(!frame_checksum_good(frames[0].data, 501));
	CHECK(wire_send_offloaded(wire, &frames[0]) == 511);
	CHECK(port_receive(port, 0, r));
	CHECK(!(r->buf.hdr.flags & NET_HDR_F_NEEDS_CSUM) && r->buf.len == 501);
	CHECK(frame_checksum_good(r->data, 501));
	CHECK(net_port_offloads_set(port, NET_OFFLOAD_CSUM) == 0);
	CHECK(wire_send_offloaded(wire, &frames[0]) == 511);
	CHECK(port_receive(port, 0, r));
	CHECK(r->buf.hdr.flags & NET_HDR_F_NEEDS_CSUM);
	CHECK(r->buf.hdr.csum_start == L4 && r->buf.hdr.csum_offset == 6);
	CHECK(!memcmp(r->data, frames[0].data, 501));
	/* To the tap: it arrives as unfinished as it was sent. */
	send_all(port, 0, 1);
	CHECK(wire_receive(wire, data, sizeof(data), 10) == 511);
	CHECK(data[0] & NET_HDR_F_NEEDS_CSUM);
	CHECK(!memcmp(data + 10, frames[0].data, 501));
	close(wire);
	net_port_close(port);
}

/* Do these TCP segments, from the port or the wire, make up the large frame? Returns how far they
 * go. */
static uint32_t segment_check(const struct frame *f, const uint8_t *p, uint32_t len, uint32_t at)
{
	const uint8_t *seq = p + L4 + 4;

	CHECK(len > TCP_HEADERS && len <= TCP_HEADERS + MSS);
	CHECK(frame_checksum_good(p, len));
	CHECK((uint32_t)(seq[0] << 24 | seq[1] << 16 | seq[2] << 8 | seq[3]) == at);
	CHECK(!memcmp(p + TCP_HEADERS, f->data + TCP_HEADERS + at, len - TCP_HEADERS));
	return at + len - TCP_HEADERS;
}

static void case_segmentation(void)
{
	struct net_port *port = tap_named(1);
	int wire = wire_open(NAME, 1);
	struct frame *f = &frames[0];
	struct room *r = &rooms[0];
	struct net_vnet_hdr hdr = {0};
	uint32_t at = 0;

	frame_ip(f, true, 9000, 1);
	CHECK(wire_send_offloaded(wire, f) == 9010);
	while (at < 9000 - TCP_HEADERS && port_receive(port, 0, r)) {
		CHECK(!r->buf.hdr.gso_type);
		at = segment_check(f, r->data, r->buf.len, at);
	}
	CHECK(at == 9000 - TCP_HEADERS);
	CHECK(net_port_offloads_set(port, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4) == 0);
	CHECK(wire_send_offloaded(wire, f) == 9010);
	CHECK(port_receive(port, 0, r));
	CHECK(r->buf.len == 9000 && !memcmp(r->data, f->data, 9000));
	CHECK(r->buf.hdr.gso_type == NET_GSO_TCPV4 && r->buf.hdr.gso_size == MSS);
	CHECK(r->buf.hdr.csum_start == L4 && r->buf.hdr.flags & NET_HDR_F_NEEDS_CSUM);
	send_all(port, 0, 1);
	CHECK(wire_receive(wire, data, sizeof(data), 10) == 9010);
	memcpy(&hdr, data, 10);
	CHECK(hdr.gso_type == NET_GSO_TCPV4 && hdr.gso_size == MSS);
	CHECK(hdr.flags & NET_HDR_F_NEEDS_CSUM && hdr.csum_start == L4);
	CHECK(!memcmp(data + 10, f->data, 9000));
	/* All bits that were offered, alone and together, are taken. */
	for (unsigned bit = 0; bit < 6; bit++)
		CHECK(net_port_offloads_set(port, 1u << bit) ==
			(net_port_offloads(port) & 1u << bit ? 0 : -ENOTSUP));
	CHECK(net_port_offloads_set(port, net_port_offloads(port)) == 0);
	close(wire);
	net_port_close(port);
}

/* Sends so many flows from the wire; how many arrived on the queue. */
static unsigned flows_arrived(struct net_port *port, int wire, unsigned flows, unsigned got[2])
{
	for (unsigned i = 0; i < flows; i++) {
		frame_ip(&frames[0], false, 100, i * 7);
		CHECK(send(wire, frames[0].data, 100, 0) == 100);
	}
	for (unsigned q = 0; q < 2; q++)
		for (got[q] = 0;; got[q]++) {
			room_make(&rooms[0], 1600);
			if (!net_port_receive(port, q, &rooms[0].buf, 1))
				break;
		}
	return got[0] + got[1];
}

static void case_queues(void)
{
	struct net_port *port = tap_named(2);
	int wire = wire_open(NAME, 0);
	struct net_counters c;
	unsigned got[2];

	CHECK(net_port_queues(port) == 2);
	CHECK(net_port_fd(port, 0) != net_port_fd(port, 1));
	CHECK(net_port_queues_set(port, 3) == -EINVAL);
	for (unsigned round = 0; round < 3; round++) {
		/* Both: either sends, and flows spread over both. */
		for (unsigned q = 0; q < 2; q++) {
			frame_fill(&frames[0], 60, q);
			send_all(port, q, 1);
			CHECK(wire_receive(wire, data, sizeof(data), 0) == 60);
			CHECK(!memcmp(data, frames[0].data, 60));
		}
		CHECK(flows_arrived(port, wire, 64, got) == 64);
		CHECK(got[0] && got[1]);
		/* One: the other is detached, all comes through the first. */
		CHECK(net_port_queues_set(port, 1) == 0);
		frame_fill(&frames[0], 60, 9);
		send_all(port, 1, 1);
		net_port_counters_get(port, &c);
		CHECK(c.tx_dropped == round + 1);
		CHECK(flows_arrived(port, wire, 64, got) == 64);
		CHECK(got[0] == 64);
		CHECK(net_port_queues_set(port, 1) == 0);
		CHECK(net_port_queues_set(port, 2) == 0);
	}
	close(wire);
	net_port_close(port);
	CHECK(!if_nametoindex(NAME));
}

static int tap_raw(short flags)
{
	struct ifreq ifr = {.ifr_name = NAME, .ifr_flags = flags};
	int fd = open("/dev/net/tun", O_RDWR);

	CHECK(fd >= 0 && !ioctl(fd, TUNSETIFF, &ifr));
	return fd;
}

static void case_descriptors(void)
{
	short flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
	int fds[2] = {tap_raw(flags), tap_raw(flags)}, twice[2] = {fds[0], fds[0]}, wire, bad;
	struct net_tap_options o = {.fds = twice, .nfds = 2};
	struct net_port *port = NULL;
	char why[NET_WHY_MAX];

	tap_refused(&o, -EINVAL, "given twice");
	o.fds = fds;
	o.queues = 1;
	tap_refused(&o, -EINVAL, "2 descriptors");
	o.queues = 0;
	o.name = NAME;
	tap_refused(&o, -EINVAL, "either a name or descriptors");
	o.name = NULL;
	CHECK(net_tap_open(&port, &o, why) == 0);
	CHECK(port && net_port_queues(port) == 2 && !strcmp(net_tap_name(port), NAME));
	CHECK(net_port_fd(port, 1) == fds[1] && net_port_offloads(port) & NET_OFFLOAD_CSUM);
	/* Somebody else's interface is left down or up, as it is. */
	interface_up(NAME, true);
	wire = wire_open(NAME, 0);
	for (unsigned q = 0; q < 2; q++) {
		frame_fill(&frames[0], 77, q);
		send_all(port, q, 1);
		CHECK(wire_receive(wire, data, sizeof(data), 0) == 77);
		CHECK(!memcmp(data, frames[0].data, 77));
	}
	room_make(&rooms[0], 1600);
	CHECK(net_port_receive(port, 0, &rooms[0].buf, 1) == 0); /* and does not block */
	close(wire);
	net_port_close(port);
	CHECK(fcntl(fds[0], F_GETFD) < 0 && fcntl(fds[1], F_GETFD) < 0);
	CHECK(!if_nametoindex(NAME));

	/* What is no tap of the right make stays the caller's. */
	bad = open("/dev/null", O_RDWR);
	o = (struct net_tap_options){.fds = &bad, .nfds = 1};
	tap_refused(&o, -EINVAL, "not a tap");
	CHECK(!close(bad));
	bad = 999;
	tap_refused(&o, -EBADF, "not an open descriptor");
	bad = tap_raw(IFF_TUN | IFF_NO_PI);
	tap_refused(&o, -EINVAL, "is a tun");
	CHECK(!close(bad));
	bad = tap_raw(IFF_TAP);
	tap_refused(&o, -EINVAL, "IFF_NO_PI");
	CHECK(!close(bad));
}

/* A tap without a vnet header: checksums and segments are finished before it, in a copy. */
static void case_no_vnet_header(void)
{
	int fd = tap_raw(IFF_TAP | IFF_NO_PI), wire;
	struct net_tap_options o = {.fds = &fd, .nfds = 1};
	static struct frame before;
	struct net_port *port = NULL;
	struct room *r = &rooms[0];
	char why[NET_WHY_MAX];
	uint32_t at = 0;
	ssize_t got;

	CHECK(net_tap_open(&port, &o, why) == 0);
	CHECK(net_port_offloads(port) == 0);
	CHECK(net_port_offloads_set(port, 0) == 0);
	CHECK(net_port_offloads_set(port, NET_OFFLOAD_CSUM) == -ENOTSUP);
	interface_up(NAME, true);
	wire = wire_open(NAME, 0);
	frame_ip(&frames[0], false, 333, 0);
	frame_ip(&frames[1], true, 9000, 1);
	before = frames[1];
	frame_fill(&frames[2], 60, 2);
	send_all(port, 0, 3);
	CHECK(wire_receive(wire, data, sizeof(data), 0) == 333);
	CHECK(frame_checksum_good(data, 333));
	while (at < 9000 - TCP_HEADERS) {
		got = wire_receive(wire, data, sizeof(data), 0);
		if (!CHECK(got > 0))
			break;
		at = segment_check(&frames[1], data, (uint32_t)got, at);
	}
	CHECK(wire_receive(wire, data, sizeof(data), 0) == 60);
	CHECK(!memcmp(before.data, frames[1].data, 9000));
	CHECK(send(wire, frames[2].data, 60, 0) == 60);
	CHECK(port_receive(port, 0, r));
	CHECK(r->buf.len == 60 && !memcmp(r->data, frames[2].data, 60));
	CHECK(r->buf.hdr.flags == 0 && r->buf.hdr.num_buffers == 1);
	close(wire);
	net_port_close(port);
	CHECK(!if_nametoindex(NAME));
}

static void case_refusals(void)
{
	struct net_tap_options o = {.name = "sixteen-letters!", .queues = 1};
	struct net_port *port, *other = NULL;
	char why[NET_WHY_MAX];

	tap_refused(&o, -ENAMETOOLONG, "has 16 characters; an interface's name has at most 15");
	o.name = "a/b";
	tap_refused(&o, -EINVAL, "\"a/b\"");
	o.name = "";
	tap_refused(&o, -EINVAL, "name");
	o.name = "t%s";
	tap_refused(&o, -EINVAL, "%d");
	o.name = NULL;
	tap_refused(&o, -EINVAL, "either a name or descriptors");
	o.name = "lo";
	tap_refused(&o, -EINVAL, "not a tap");
	o.name = NAME;
	o.queues = 0;
	tap_refused(&o, -EINVAL, "0 queues");
	o.queues = NET_QUEUES_MAX + 1;
	tap_refused(&o, -EINVAL, "17 queues");

	port = tap_named(1);
	o.queues = 1;
	tap_refused(&o, -EBUSY, "in use");
	o.queues = 2;
	tap_refused(&o, -EINVAL, "multi_queue");
	net_port_close(port);

	/* A tap made for several queues can be used with one; a name with %d is the kernel's
	 * choice. */
	port = tap_named(2);
	o.queues = 1;
	CHECK(net_tap_open(&other, &o, why) == 0);
	net_port_close(other);
	net_port_close(port);
	CHECK(!if_nametoindex(NAME));
	o.name = "sluice%d";
	CHECK(net_tap_open(&other, &o, why) == 0);
	CHECK(!strcmp(net_tap_name(other), "sluice0") && if_nametoindex("sluice0"));
	net_port_close(other);
	CHECK(!if_nametoindex("sluice0"));
}

static void case_permission(void)
{
	struct net_tap_options o = {.name = NAME, .queues = 1};

	CHECK(!setgroups(0, NULL) && !setgid(65534) && !setuid(65534));
	tap_refused(&o, -EPERM, "fd=N");
	if (!access("/dev/net/tun", R_OK | W_OK)) {
		tap_refused(&o, -EPERM, "`ip tuntap add dev " NAME " mode tap user $USER`");
		o.queues = 4;
		tap_refused(&o, -EPERM, "mode tap multi_queue user $USER`");
	}
}

static void case_no_device(void)
{
	struct net_tap_options o = {.name = NAME, .queues = 1};

	/* In a mount namespace of this child's own, an empty folder lies over the device. */
	CHECK(!unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK(!mount("none", "/dev/net", "tmpfs", 0, NULL));
	tap_refused(&o, -ENOENT, "no /dev/net/tun");
}

#define CASE(name)                                                                                 \
	static void test_##name(void)                                                              \
	{                                                                                          \
		in_namespace(case_##name);                                                         \
	}

#define CASE_ROOT(name)                                                                            \
	static void test_##name(void)                                                              \
	{                                                                                          \
		if (geteuid())                                                                     \
			unit_skip("needs root");                                                   \
		else                                                                               \
			in_namespace(case_##name);                                                 \
	}

CASE(both_ways)
CASE(lengths)
CASE(many_segments)
CASE(down_and_deleted)
CASE(link)
CASE(checksum)
CASE(segmentation)
CASE(queues)
CASE(descriptors)
CASE(no_vnet_header)
CASE(refusals)
CASE_ROOT(permission)
CASE_ROOT(no_device)

static const struct unit_case cases[] = {
	{"both ways", test_both_ways},
	{"lengths", test_lengths},
	{"many segments", test_many_segments},
	{"down, deleted", test_down_and_deleted},
	{"link", test_link},
	{"checksum", test_checksum},
	{"segmentation", test_segmentation},
	{"queues", test_queues},
	{"descriptors", test_descriptors},
	{"no vnet header", test_no_vnet_header},
	{"refusals", test_refusals},
	{"permission", test_permission},
	{"no device", test_no_device},
};

UNIT_MAIN("net_tap", cases)
