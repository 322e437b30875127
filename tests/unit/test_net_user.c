/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The port behind a NAT router, from the guest's side by frames and from the host's by sockets on
 * its loopback: content is verified in both directions. Needs no privilege and no network.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/unit/test_net_user_rig.h"

static char why[NET_WHY_MAX];

static struct net_port *user_open_as(const struct net_user_options *opts)
{
	struct net_port *port = NULL;
	int err = net_user_open(&port, opts, why);

	if (err)
		printf("\n%d: %s\n", err, why);
	CU_ASSERT_EQUAL_FATAL(err, 0);
	/* the router learns where the guest is, and the guest where the router is */
	arp_send(port, false, GUEST_IP, ROUTER_IP);
	CU_ASSERT_FATAL(frame_receive(port, PATIENCE_S * 1000));
	memcpy(router_mac, rx + 6, 6);
	return port;
}

static struct net_port *user_open(void)
{
	static const struct net_user_options plain;

	return user_open_as(&plain);
}

static void forward_add(
	struct net_user_options *o, const char *protocol, uint16_t host, uint16_t guest)
{
	char text[64];

	snprintf(text, sizeof(text), "%s::%u-:%u", protocol, host, guest);
	CU_ASSERT_EQUAL(net_user_forward_parse(&o->forwards[o->nforwards++], text, why), 0);
}

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void bytes_fill(uint8_t *to, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1664525 + 1013904223;
		to[i] = (uint8_t)(seed >> 24);
	}
}

/* ------------------------------------------------------------------ what users write */

static void test_forward_parse(void)
{
	static const struct {
		const char *text, *shown;
	} good[] = {
		{"tcp:127.0.0.1:8080-:80", "tcp:127.0.0.1:8080-:80"},
		{"tcp::8080-:80", "tcp:127.0.0.1:8080-:80"},
		{"udp:0.0.0.0:53-10.0.2.20:5353", "udp:0.0.0.0:53-10.0.2.20:5353"},
		{"udp:192.168.100.200:65535-255.255.255.254:65535",
			"udp:192.168.100.200:65535-255.255.255.254:65535"},
	};
	static const char *const bad[] = {"", "tcp", "tcp:", "tcp:80", "tcp:80-80", "tcp::80-80",
		"tcp::80:80", "sctp::80-:80", "tcp::0-:80", "tcp::80-:0", "tcp::65536-:80",
		"tcp::80-:-1", "tcp::+80-:80", "tcp:: 80-:80", "tcp::80-:80 ",
		"tcp::80-:", "tcp:localhost:80-:80", "tcp:[::1]:80-:80", "tcp:1.2.3:80-:80",
		"tcp::80-guest:80", "tcp:1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17:80-:80"};
	struct net_user_forward f;
	char text[64];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		CU_ASSERT_EQUAL(net_user_forward_parse(&f, good[i].text, why), 0);
		CU_ASSERT_STRING_EQUAL(net_user_forward_print(&f, text), good[i].shown);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		*why = '\0';
		CU_ASSERT_EQUAL(net_user_forward_parse(&f, bad[i], why), -EINVAL);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, "use "));
	}
}

static void test_options_check(void)
{
	struct net_user_options o = {0};

	CU_ASSERT_EQUAL(net_user_options_check(&o, why), 0);
	CU_ASSERT_EQUAL(o.net, 0x0a000200);
	CU_ASSERT_EQUAL(o.prefix, 24);
	CU_ASSERT_EQUAL(o.host, ROUTER_IP);
	CU_ASSERT_EQUAL(o.dns, DNS_IP);
	CU_ASSERT_EQUAL(o.dhcp_start, GUEST_IP);
	o.host = 0x0a000301;
	CU_ASSERT_EQUAL(net_user_options_check(&o, why), -EINVAL);
	CU_ASSERT_EQUAL(strncmp(why, "host=10.0.3.1: ", 15), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "10.0.2.1 to 10.0.2.254"));
	o.host = 0x0a0002ff;
	CU_ASSERT_EQUAL(net_user_options_check(&o, why), -EINVAL);
	o.host = DNS_IP;
	CU_ASSERT_EQUAL(net_user_options_check(&o, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "dns="));
	o.host = GUEST_IP;
	CU_ASSERT_EQUAL(net_user_options_check(&o, why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "dhcpstart="));
	o.host = ROUTER_IP;
	strcpy(o.hostname, "a b");
	CU_ASSERT_EQUAL(net_user_options_check(&o, why), -EINVAL);
	o = (struct net_user_options){0};
	CU_ASSERT_EQUAL(net_user_network_parse(&o.net, &o.prefix, "192.168.7.16/28", why), 0);
	CU_ASSERT_EQUAL(net_user_options_check(&o, why), 0);
	CU_ASSERT_EQUAL(o.dhcp_start, 0xc0a80714);
	CU_ASSERT_EQUAL(net_user_network_parse(&o.net, &o.prefix, "10.0.2.5/24", why), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "10.0.2.0/24"));
	CU_ASSERT_EQUAL(net_user_network_parse(&o.net, &o.prefix, "10.0.2.0/29", why), -EINVAL);
	CU_ASSERT_EQUAL(net_user_network_parse(&o.net, &o.prefix, "10.0.2.0", why), -EINVAL);
	CU_ASSERT_EQUAL(net_user_network_parse(&o.net, &o.prefix, "0.0.0.0/8", why), -EINVAL);
}

/* ------------------------------------------------------------------ the network itself */

static void test_arp(void)
{
	struct net_port *port = user_open();
	struct net_counters c;

	CU_ASSERT_EQUAL(get16(rx + 12), 0x0806);
	CU_ASSERT_EQUAL(rx[21], 2);
	CU_ASSERT_EQUAL(get32(rx + 28), ROUTER_IP);
	CU_ASSERT_EQUAL(get32(rx + 38), GUEST_IP);
	CU_ASSERT_EQUAL(memcmp(rx, guest_mac, 6), 0);
	CU_ASSERT_EQUAL(memcmp(rx + 22, rx + 6, 6), 0);
	CU_ASSERT_STRING_EQUAL(net_port_kind(port), "user");
	CU_ASSERT_EQUAL(net_port_queues(port), 1);
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.tx_packets, 1);
	CU_ASSERT_EQUAL(c.rx_packets, 1);
	CU_ASSERT_EQUAL(c.tx_dropped + c.rx_dropped + c.errors, 0);
	net_port_close(port);
}

/* Sends one DHCP message; the answer's type, with the option `code` at *value. */
static unsigned dhcp_ask(
	struct net_port *port, uint8_t type, uint8_t code, const uint8_t **value, uint8_t *len)
{
	static uint8_t m[300];
	static const uint8_t none[12];
	const uint8_t *o = rx + L4 + 8 + 240;
	unsigned got = 0;

	memset(m, 0, sizeof(m));
	memcpy(m, "\x01\x01\x06\x00\x12\x34\x56\x78", 8);
	memcpy(m + 28, guest_mac, 6);
	memcpy(m + 236, "\x63\x82\x53\x63\x35\x01", 6);
	m[242] = type;
	memcpy(m + 243, "\x32\x04", 2);
	put32(m + 245, GUEST_IP);
	m[249] = 0xff;
	udp_send(port, 68, 0xffffffff, 67, m, sizeof(m));
	CU_ASSERT_FATAL(ip_receive(port, IPPROTO_UDP, PATIENCE_S * 1000));
	CU_ASSERT_EQUAL(get16(rx + L4 + 2), 68);
	CU_ASSERT_EQUAL(get32(rx + L4 + 8 + 4), 0x12345678);
	CU_ASSERT_EQUAL(get32(rx + L4 + 8 + 16), GUEST_IP); /* yiaddr */
	*value = none;
	*len = 0;
	while (o + 2 < rx + rx_len && *o != 0xff) {
		if (o[0] == 53)
			got = o[2];
		if (o[0] == code) {
			*value = o + 2;
			*len = o[1];
		}
		o += 2 + o[1];
	}
	return got;
}

static void test_dhcp(void)
{
	struct net_user_options opts = {.hostname = "sluice-guest"};
	struct net_port *port = user_open_as(&opts);
	const uint8_t *v;
	uint8_t len;

	CU_ASSERT_EQUAL(dhcp_ask(port, 1, 3, &v, &len), 2); /* DISCOVER: OFFER */
	CU_ASSERT_EQUAL(get32(v), ROUTER_IP);
	CU_ASSERT_EQUAL(dhcp_ask(port, 3, 6, &v, &len), 5); /* REQUEST: ACK */
	CU_ASSERT_EQUAL(get32(v), DNS_IP);
	CU_ASSERT_EQUAL(dhcp_ask(port, 3, 1, &v, &len), 5);
	CU_ASSERT_EQUAL(get32(v), 0xffffff00);
	CU_ASSERT_EQUAL(dhcp_ask(port, 3, 12, &v, &len), 5);
	CU_ASSERT_EQUAL(len, 12);
	CU_ASSERT_EQUAL(memcmp(v, "sluice-guest", 12), 0);
	net_port_close(port);
}

static void test_ping(void)
{
	struct net_port *port = user_open();
	uint8_t f[L4 + 8 + 56] = {0};

	f[L4] = 8; /* echo */
	put16(f + L4 + 4, 77);
	put16(f + L4 + 6, 1);
	bytes_fill(f + L4 + 8, 56, 3);
	put16(f + L4 + 2, (uint16_t)~sum_add(0, f + L4, 64));
	ip_build(f, IPPROTO_ICMP, ROUTER_IP, 64);
	frame_send(port, f, sizeof(f));
	CU_ASSERT_FATAL(ip_receive(port, IPPROTO_ICMP, PATIENCE_S * 1000));
	CU_ASSERT_EQUAL(rx[L4], 0);
	CU_ASSERT_EQUAL(get32(rx + ETH + 12), ROUTER_IP);
	CU_ASSERT_EQUAL(memcmp(rx + L4 + 4, f + L4 + 4, 60), 0);
	net_port_close(port);
}

/* ------------------------------------------------------------------ from the guest out */

static void test_udp_out(void)
{
	struct net_port *port = user_open();
	struct sockaddr_in from;
	socklen_t from_len = sizeof(from);
	uint8_t sent[1400], got[2000];
	uint16_t there;
	int fd = host_socket(SOCK_DGRAM, &there);

	for (uint32_t i = 0; i < 20; i++) {
		uint32_t len = i * 70 + 1;

		bytes_fill(sent, len, i);
		udp_send(port, 4000, ROUTER_IP, there, sent, len);
		CU_ASSERT_EQUAL_FATAL(
			recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&from, &from_len),
			(ssize_t)len);
		CU_ASSERT_EQUAL(memcmp(sent, got, len), 0);
		bytes_fill(sent, len, ~i);
		CU_ASSERT_EQUAL(
			sendto(fd, sent, len, 0, (struct sockaddr *)&from, from_len), (ssize_t)len);
		CU_ASSERT_FATAL(ip_receive(port, IPPROTO_UDP, PATIENCE_S * 1000));
		CU_ASSERT_EQUAL(get32(rx + ETH + 12), ROUTER_IP);
		CU_ASSERT_EQUAL(get32(rx + ETH + 16), GUEST_IP);
		CU_ASSERT_EQUAL(get16(rx + L4), there);
		CU_ASSERT_EQUAL(get16(rx + L4 + 2), 4000);
		CU_ASSERT_EQUAL(rx_l4_len(), 8 + len);
		CU_ASSERT_EQUAL(memcmp(rx + L4 + 8, sent, len), 0);
	}
	close(fd);
	net_port_close(port);
}

/* A checksum left to do by the sender of the frame. */
static void test_udp_offload(void)
{
	struct net_port *port = user_open();
	const struct net_vnet_hdr hdr = {
		.flags = NET_HDR_F_NEEDS_CSUM, .csum_start = L4, .csum_offset = 6};
	uint8_t f[200], sent[64], got[100];
	uint16_t there;
	int fd = host_socket(SOCK_DGRAM, &there);
	uint32_t len;

	bytes_fill(sent, sizeof(sent), 5);
	len = udp_build(f, 4001, ROUTER_IP, there, sent, sizeof(sent));
	/* wrong as it is, it is dropped */
	put16(f + L4 + 6, 0x1234);
	frame_send(port, f, len);
	/* with the pseudo header's sum and the header that says so, it is finished */
	put16(f + L4 + 6, 0);
	put16(f + L4 + 6, l4_sum(f, 0) + 8 + sizeof(sent));
	frame_send_hdr(port, f, len, &hdr);
	CU_ASSERT_EQUAL(recv(fd, got, sizeof(got), 0), sizeof(sent));
	CU_ASSERT_EQUAL(memcmp(sent, got, sizeof(sent)), 0);
	CU_ASSERT_EQUAL(recv(fd, got, sizeof(got), MSG_DONTWAIT), -1);
	close(fd);
	net_port_close(port);
}

static struct tcp tcp_connect(struct net_port *port, uint16_t there, int listener, int *fd)
{
	struct tcp t = {.port = port, .to = ROUTER_IP, .here = 5000, .there = there, .seq = 1000};
	const uint8_t *data;

	tcp_send(&t, TCP_SYN, NULL, 0);
	tcp_continue(&t, TCP_SYN, &data);
	CU_ASSERT_EQUAL(rx[L4 + 13], TCP_SYN | TCP_ACK);
	CU_ASSERT_EQUAL(get32(rx + L4 + 8), t.seq);
	*fd = accept(listener, NULL, NULL);
	CU_ASSERT_FATAL(*fd >= 0);
	return t;
}

/* The stream from fd reaches the guest whole: len bytes. */
static void tcp_stream_check(struct tcp *t, int fd, const uint8_t *bytes, uint32_t len)
{
	uint32_t sent = 0, got = 0;

	while (got < len) {
		ssize_t n = send(fd, bytes + sent, len - sent, MSG_DONTWAIT);
		const uint8_t *data;
		uint32_t part;

		if (n > 0)
			sent += (uint32_t)n;
		part = tcp_continue(t, 0, &data);
		if (!part || part > len - got || memcmp(data, bytes + got, part) != 0) {
			CU_FAIL("the stream differs");
			return;
		}
		got += part;
	}
}

#define STREAM 200000u

static void test_tcp_out(void)
{
	static uint8_t bytes[STREAM], copy[STREAM];
	struct net_port *port = user_open();
	struct timeval patience = {.tv_sec = PATIENCE_S};
	const uint8_t *data;
	struct tcp t;
	uint16_t there;
	int listener = host_socket(SOCK_STREAM, &there), fd;

	bytes_fill(bytes, sizeof(bytes), 11);
	t = tcp_connect(port, there, listener, &fd);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	for (uint32_t at = 0; at < 14600; at += 1460) {
		tcp_send(&t, TCP_ACK | TCP_PSH, bytes + at, 1460);
		CU_ASSERT(host_read(fd, copy, 1460));
		CU_ASSERT_EQUAL(memcmp(copy, bytes + at, 1460), 0);
	}
	tcp_stream_check(&t, fd, bytes, sizeof(bytes));
	close(fd);
	tcp_continue(&t, TCP_FIN, &data);
	tcp_send(&t, TCP_FIN | TCP_ACK, NULL, 0);
	close(listener);
	net_port_close(port);
}

/* Frames that were to be cut, with lengths and checksums as senders leave them. */
static void test_tcp_large(void)
{
	static uint8_t f[65000], bytes[STREAM], copy[STREAM];
	struct net_port *port = user_open();
	struct net_vnet_hdr hdr = {.flags = NET_HDR_F_NEEDS_CSUM,
		.gso_type = NET_GSO_TCPV4,
		.gso_size = 1460,
		.hdr_len = 54,
		.csum_start = L4,
		.csum_offset = 16};
	uint16_t there;
	int listener = host_socket(SOCK_STREAM, &there), fd;
	struct tcp t = tcp_connect(port, there, listener, &fd);

	bytes_fill(bytes, sizeof(bytes), 13);
	for (uint32_t at = 0, len = 60000; at < STREAM; at += len, len = 28000) {
		uint32_t frame;

		if (len > STREAM - at)
			len = STREAM - at;
		frame = tcp_build(&t, f, TCP_ACK | TCP_PSH, bytes + at, len);
		put16(f + L4 + 16, 0xbeef);
		if (at) {
			put16(f + ETH + 2, 0);
			put16(f + ETH + 10, 0);
		}
		frame_send_hdr(port, f, frame, &hdr);
		t.seq += len;
		CU_ASSERT_FATAL(host_read(fd, copy, len));
		CU_ASSERT_EQUAL(memcmp(copy, bytes + at, len), 0);
	}
	close(fd);
	close(listener);
	net_port_close(port);
}

static void test_restricted(void)
{
	struct net_user_options opts = {.restricted = true};
	struct net_port *port = user_open_as(&opts);
	uint16_t there;
	int fd = host_socket(SOCK_DGRAM, &there);
	const uint8_t *v;
	uint8_t got[10], len;

	udp_send(port, 4002, ROUTER_IP, there, "out", 3);
	/* DHCP is still served, after that datagram */
	CU_ASSERT_EQUAL(dhcp_ask(port, 1, 1, &v, &len), 2);
	CU_ASSERT_EQUAL(recv(fd, got, sizeof(got), MSG_DONTWAIT), -1);
	close(fd);
	net_port_close(port);
}

/* ------------------------------------------------------------------ from the host in */

static void test_udp_in(void)
{
	struct net_user_options opts = {0};
	uint16_t outside = host_port_free(SOCK_DGRAM), here;
	struct sockaddr_in to = host_address(outside);
	struct net_port *port;
	uint8_t bytes[1000], got[2000];
	int fd;

	forward_add(&opts, "udp", outside, 9000);
	port = user_open_as(&opts);
	fd = host_socket(SOCK_DGRAM, &here);
	for (uint32_t i = 0; i < 5; i++) {
		bytes_fill(bytes, sizeof(bytes), i);
		CU_ASSERT_EQUAL(
			sendto(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&to, sizeof(to)),
			sizeof(bytes));
		CU_ASSERT_FATAL(ip_receive(port, IPPROTO_UDP, PATIENCE_S * 1000));
		CU_ASSERT_EQUAL(get32(rx + ETH + 12), ROUTER_IP);
		CU_ASSERT_EQUAL(get32(rx + ETH + 16), GUEST_IP);
		CU_ASSERT_EQUAL(get16(rx + L4 + 2), 9000);
		CU_ASSERT_EQUAL(memcmp(rx + L4 + 8, bytes, sizeof(bytes)), 0);
		bytes_fill(bytes, 500, i + 100);
		udp_send(port, 9000, ROUTER_IP, get16(rx + L4), bytes, 500);
		CU_ASSERT_EQUAL(recv(fd, got, sizeof(got), 0), 500);
		CU_ASSERT_EQUAL(memcmp(got, bytes, 500), 0);
	}
	close(fd);
	net_port_close(port);
}

static void test_tcp_in(void)
{
	static uint8_t bytes[STREAM], copy[1460];
	struct net_user_options opts = {0};
	uint16_t outside = host_port_free(SOCK_STREAM);
	struct sockaddr_in to = host_address(outside);
	struct timeval patience = {.tv_sec = PATIENCE_S};
	struct tcp t = {.to = ROUTER_IP, .here = 80, .seq = 77777};
	const uint8_t *data;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	bytes_fill(bytes, sizeof(bytes), 17);
	forward_add(&opts, "tcp", outside, 80);
	t.port = user_open_as(&opts);
	CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	CU_ASSERT_FATAL(ip_receive(t.port, IPPROTO_TCP, PATIENCE_S * 1000));
	CU_ASSERT_EQUAL(get32(rx + ETH + 12), ROUTER_IP);
	CU_ASSERT_EQUAL(get32(rx + ETH + 16), GUEST_IP);
	CU_ASSERT_EQUAL(get16(rx + L4 + 2), 80);
	CU_ASSERT_EQUAL(rx[L4 + 13], TCP_SYN);
	t.there = get16(rx + L4);
	t.ack = get32(rx + L4 + 4) + 1;
	tcp_send(&t, TCP_SYN | TCP_ACK, NULL, 0);
	tcp_stream_check(&t, fd, bytes, sizeof(bytes));
	tcp_send(&t, TCP_ACK | TCP_PSH, bytes, sizeof(copy));
	CU_ASSERT(host_read(fd, copy, sizeof(copy)));
	CU_ASSERT_EQUAL(memcmp(copy, bytes, sizeof(copy)), 0);
	tcp_send(&t, TCP_FIN | TCP_ACK, NULL, 0);
	CU_ASSERT_EQUAL(recv(fd, copy, 1, 0), 0);
	close(fd);
	tcp_continue(&t, TCP_FIN, &data);
	net_port_close(t.port);
}

static void test_port_in_use(void)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
	unsigned before = descriptors();

	for (int i = 0; i < 2; i++) {
		struct net_user_options opts = {0};
		struct net_port *port = NULL;
		uint16_t taken;
		int fd = host_socket(types[i], &taken);

		/* what comes before it is closed again */
		forward_add(&opts, "tcp", host_port_free(SOCK_STREAM), 80);
		forward_add(&opts, i ? "udp" : "tcp", taken, 80);
		CU_ASSERT_EQUAL(net_user_open(&port, &opts, why), -EADDRINUSE);
		CU_ASSERT_PTR_NULL(port);
		CU_ASSERT_EQUAL(strncmp(why, i ? "hostfwd=udp:127" : "hostfwd=tcp:127", 15), 0);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, "in use; choose another"));
		close(fd);
		/* an address that this host does not have (RFC 5737) */
		opts.forwards[1].host = 0xc0000201;
		CU_ASSERT_EQUAL(net_user_open(&port, &opts, why), -EADDRNOTAVAIL);
	}
	CU_ASSERT_EQUAL(descriptors(), before);
}

/* ------------------------------------------------------------------ bounds and hostility */

static void test_several(void)
{
	enum { PORTS = 4 };
	struct net_port *ports[PORTS];
	unsigned before = descriptors();
	uint16_t there;
	int fd = host_socket(SOCK_DGRAM, &there);

	for (unsigned i = 0; i < PORTS; i++)
		ports[i] = user_open();
	for (unsigned round = 0; round < 50; round++)
		for (unsigned i = 0; i < PORTS; i++)
			udp_send(ports[i], (uint16_t)(6000 + i), ROUTER_IP, there, &i, sizeof(i));
	for (unsigned i = 0; i < PORTS; i++) {
		unsigned got;
		struct sockaddr_in from;
		socklen_t len = sizeof(from);

		CU_ASSERT_EQUAL(recvfrom(fd, &got, sizeof(got), 0, (struct sockaddr *)&from, &len),
			sizeof(got));
		CU_ASSERT(got < PORTS);
		/* its own sender gets it back, and nobody else */
		sendto(fd, &got, sizeof(got), 0, (struct sockaddr *)&from, len);
		CU_ASSERT(ip_receive(ports[got % PORTS], IPPROTO_UDP, PATIENCE_S * 1000));
		CU_ASSERT_EQUAL(get16(rx + L4 + 2), 6000 + got);
		CU_ASSERT_EQUAL(memcmp(rx + L4 + 8, &got, sizeof(got)), 0);
	}
	for (unsigned i = 0; i < PORTS; i++)
		net_port_close(ports[i]);
	close(fd);
	CU_ASSERT_EQUAL(descriptors(), before);
}

/* A guest that takes nothing: what comes for it is bounded, dropped and counted. */
static void test_queue_bounded(void)
{
	struct net_port *port = user_open();
	struct net_counters c;
	unsigned n = 0;

	/* each is answered with a frame of the same size */
	for (n = 0; n < 3000; n++) {
		uint8_t f[L4 + 8 + 1400] = {0};

		f[L4] = 8;
		put16(f + L4 + 2, (uint16_t)~sum_add(0, f + L4, 1408));
		ip_build(f, IPPROTO_ICMP, ROUTER_IP, 1408);
		frame_send(port, f, sizeof(f));
	}
	for (int64_t until = clock_s() + PATIENCE_S; clock_s() < until; usleep(1000)) {
		net_port_counters_get(port, &c);
		if (c.rx_dropped)
			break;
	}
	CU_ASSERT(c.rx_dropped > 0);
	/* it recovers as soon as it is emptied */
	for (n = 0; frame_receive(port, 200); n++)
		;
	CU_ASSERT(n > 1000 && n < 3000);
	arp_send(port, false, GUEST_IP, DNS_IP);
	CU_ASSERT(frame_receive(port, PATIENCE_S * 1000));
	CU_ASSERT_EQUAL(get32(rx + 28), DNS_IP);
	net_port_close(port);
}

/* In a process with few descriptors: a flood of flows leaves it some, and ends. */
static int flows_flood(void)
{
	const struct rlimit few = {120, 120};
	struct net_user_options opts = {0};
	struct net_counters c;
	struct net_port *port;
	unsigned spare = 0;

	if (setrlimit(RLIMIT_NOFILE, &few) || net_user_open(&port, &opts, why))
		return 1;
	arp_send(port, false, GUEST_IP, ROUTER_IP);
	if (!frame_receive(port, PATIENCE_S * 1000))
		return 2;
	memcpy(router_mac, rx + 6, 6);
	for (uint16_t i = 0; i < 2000; i++)
		udp_send(port, (uint16_t)(10000 + i), ROUTER_IP, 9, "x", 1);
	/* answered after all of them */
	arp_send(port, false, GUEST_IP, DNS_IP);
	do
		if (!frame_receive(port, PATIENCE_S * 1000))
			return 3;
	while (get16(rx + 12) != 0x0806);
	net_port_counters_get(port, &c);
	if (c.tx_dropped < 1000)
		return 4;
	/* a burst may be let in before the next look */
	if (descriptors() > 120)
		return 5;
	net_port_close(port);
	while (spare < 200 && dup(0) >= 0)
		spare++;
	return spare > 60 ? 0 : 6;
}

static void test_flows_bounded(void)
{
	int status = -1;
	pid_t pid = fork();

	CU_ASSERT_FATAL(pid >= 0);
	if (!pid)
		_exit(flows_flood());
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT(WIFEXITED(status));
	CU_ASSERT_EQUAL(WEXITSTATUS(status), 0);
}

/* The library's reassembly is not for guests. */
static void test_fragments_refused(void)
{
	static uint8_t f[L4 + 1480];
	struct net_port *port = user_open();
	struct net_counters c;

	for (unsigned i = 0; i < 1000; i++) {
		ip_build(f, IPPROTO_UDP, ROUTER_IP, 1480);
		put16(f + ETH + 6, i & 1 ? 0x2000 : i);
		put16(f + ETH + 10, 0);
		put16(f + ETH + 10, (uint16_t)~sum_add(0, f + ETH, 20));
		frame_send(port, f, sizeof(f));
	}
	arp_send(port, false, GUEST_IP, DNS_IP);
	CU_ASSERT(frame_receive(port, PATIENCE_S * 1000));
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.tx_dropped, 1000);
	CU_ASSERT_EQUAL(c.tx_packets, 1002);
	net_port_close(port);
}

/* Frames that were right once, with bytes changed: nothing is printed, and the router lives. */
static void test_hostile(void)
{
	static uint8_t f[3000], good[3000];
	struct net_port *port = user_open();
	uint32_t len = 0, seed = 99;
	int saved = dup(2), fd = memfd_create("stderr", MFD_CLOEXEC);

	CU_ASSERT_FATAL(saved >= 0 && fd >= 0);
	dup2(fd, 2);
	for (unsigned i = 0; i < 20000; i++) {
		struct tcp t = {.to = ROUTER_IP, .here = 5000, .there = 9, .seq = i};
		struct net_vnet_hdr hdr = {0};

		bytes_fill(f, 100, i);
		switch (i % 4) {
		case 0:
			len = tcp_build(&t, good, (uint8_t)(i >> 2), f, i % 97);
			break;
		case 1:
			len = udp_build(good, 68, 0xffffffff, 67, f, 100);
			break;
		case 2:
			len = udp_build(good, 4003, DNS_IP, i & 8 ? 53 : 69, f, i % 97);
			break;
		default:
			hdr = (struct net_vnet_hdr){.flags = NET_HDR_F_NEEDS_CSUM,
				.gso_type = i & 4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6,
				.gso_size = (uint16_t)i,
				.csum_start = L4,
				.csum_offset = 16};
			len = tcp_build(&t, good, TCP_ACK, f, i % 97);
			break;
		}
		for (unsigned k = 0; k < 4; k++) {
			seed = seed * 1664525 + 1013904223;
			good[(seed >> 8) % (len < 80 ? len : 80)] = (uint8_t)(seed >> 24);
		}
		if (i & 16)
			put16(good + ETH + 10, 0);
		if (i & 16)
			put16(good + ETH + 10, (uint16_t)~sum_add(0, good + ETH, 20));
		if (i & 32 && i % 4 != 3) {
			uint32_t at = L4 + (good[ETH + 9] == IPPROTO_UDP ? 6 : 16);

			put16(good + at, 0);
			put16(good + at, (uint16_t)~l4_sum(good, len - L4));
		}
		seed = seed * 1664525 + 1013904223;
		if (seed >> 31)
			len -= (seed >> 16) % (len - NET_FRAME_MIN);
		frame_send_hdr(port, good, len, &hdr);
		while (i % 64 == 0 && frame_receive(port, 0))
			;
	}
	arp_send(port, false, GUEST_IP, DNS_IP);
	do {
		CU_ASSERT_FATAL(frame_receive(port, PATIENCE_S * 1000));
	} while (get16(rx + 12) != 0x0806 || get32(rx + 28) != DNS_IP);
	net_port_close(port);
	dup2(saved, 2);
	CU_ASSERT_EQUAL(lseek(fd, 0, SEEK_END), 0);
	close(saved);
	close(fd);
}

static void test_ipv6(void)
{
	static const uint8_t from[16] = {0xfe, 0x80, [8] = 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34,
		0x56},
			     to[16] = {0xff, 2, [15] = 2};
	struct net_user_options opts = {.ipv6 = true};
	struct net_port *port = user_open_as(&opts);
	int64_t until = clock_s() + PATIENCE_S;
	uint8_t f[ETH + 40 + 16] = {0x33, 0x33, 0, 0, 0, 2};
	bool advertised = false;
	uint32_t sum;

	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, 0x86dd);
	f[ETH] = 0x60;
	put16(f + ETH + 4, 16);
	f[ETH + 6] = IPPROTO_ICMPV6;
	f[ETH + 7] = 255;
	memcpy(f + ETH + 8, from, 16);
	memcpy(f + ETH + 24, to, 16);
	f[ETH + 40] = 133; /* router solicitation, with the sender's hardware address */
	memcpy(f + ETH + 48, "\x01\x01", 2);
	memcpy(f + ETH + 50, guest_mac, 6);
	sum = sum_add(16 + IPPROTO_ICMPV6, f + ETH + 8, 32 + 16);
	put16(f + ETH + 42, (uint16_t)~sum);
	frame_send(port, f, sizeof(f));
	while (!advertised && clock_s() < until && frame_receive(port, 1000))
		advertised = get16(rx + 12) == 0x86dd && rx[ETH + 6] == IPPROTO_ICMPV6 &&
			     rx[ETH + 40] == 134;
	CU_ASSERT(advertised);
	net_port_close(port);
}

static const struct unit_case cases[] = {
	{"forwards as written", test_forward_parse},
	{"options as given", test_options_check},
	{"ARP", test_arp},
	{"DHCP", test_dhcp},
	{"ping", test_ping},
	{"UDP out and back", test_udp_out},
	{"UDP with its checksum to do", test_udp_offload},
	{"TCP out and back", test_tcp_out},
	{"TCP in large frames", test_tcp_large},
	{"restricted", test_restricted},
	{"UDP forwarded", test_udp_in},
	{"TCP forwarded", test_tcp_in},
	{"port in use", test_port_in_use},
	{"several routers", test_several},
	{"queue bounded", test_queue_bounded},
	{"flows bounded", test_flows_bounded},
	{"fragments refused", test_fragments_refused},
	{"hostile frames", test_hostile},
	{"IPv6 advertised", test_ipv6},
};

UNIT_MAIN("net_user", cases)
