/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest at the level of frames: enough of ARP, IPv4, UDP and TCP to talk through a port. */
#ifndef TEST_NET_USER_RIG_H
#define TEST_NET_USER_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "netbridge/netbridge.h"
#include "tests/unit/unit.h"

#define GUEST_IP   0x0a00020fu
#define ROUTER_IP  0x0a000202u
#define DNS_IP     0x0a000203u
#define PATIENCE_S 15

#define ETH 14u
#define L4  34u /* behind 20 bytes of IPv4 */

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_PSH = 8, TCP_ACK = 16 };

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
static uint8_t router_mac[6];

static uint8_t rx[70000];
static uint32_t rx_len;

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

/* RFC 1071 over bytes in order, added to `sum`. */
static inline uint32_t sum_add(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

/* Of an IPv4 frame's transport: pseudo header and all; 0xffff when its checksum is right. */
static inline uint32_t l4_sum(const uint8_t *f, uint32_t l4_len)
{
	uint8_t rest[4] = {0, f[ETH + 9], (uint8_t)(l4_len >> 8), (uint8_t)l4_len};
	uint32_t sum = sum_add(0, f + ETH + 12, 8);

	sum = sum_add(sum, rest, sizeof(rest));
	return sum_add(sum, f + L4, l4_len);
}

static inline int64_t clock_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* ------------------------------------------------------------------ frames */

static inline void frame_send_hdr(
	struct net_port *port, const void *data, uint32_t len, const struct net_vnet_hdr *hdr)
{
	struct iovec seg = {(void *)data, len};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = len}, *p = &pkt;
	int64_t until = clock_s() + PATIENCE_S;

	if (hdr)
		pkt.hdr = *hdr;
	while (!net_port_send(port, 0, &p, 1)) {
		struct pollfd room = {.fd = net_port_tx_fd(port, 0), .events = POLLOUT};

		CU_ASSERT_FATAL(clock_s() < until);
		poll(&room, 1, 1000);
	}
}

static inline void frame_send(struct net_port *port, const void *data, uint32_t len)
{
	frame_send_hdr(port, data, len, NULL);
}

/* The next frame into rx; false: none for a while. */
static inline bool frame_receive(struct net_port *port, int wait_ms)
{
	struct iovec seg = {rx, sizeof(rx)};
	struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = sizeof(rx)};
	struct pollfd ready = {.fd = net_port_fd(port, 0), .events = POLLIN};

	while (!net_port_receive(port, 0, &buf, 1))
		if (poll(&ready, 1, wait_ms) == 0)
			return false;
	rx_len = buf.len;
	CU_ASSERT_EQUAL(buf.hdr.gso_type, NET_GSO_NONE);
	CU_ASSERT_EQUAL(buf.hdr.flags & NET_HDR_F_NEEDS_CSUM, 0);
	return true;
}

static inline void arp_send(struct net_port *port, bool reply, uint32_t from, uint32_t to)
{
	uint8_t f[42];

	memset(f, reply ? 0 : 0xff, 6);
	if (reply)
		memcpy(f, rx + 6, 6);
	memcpy(f + 6, guest_mac, 6);
	memcpy(f + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00", 9);
	f[21] = reply ? 2 : 1;
	memcpy(f + 22, guest_mac, 6);
	put32(f + 28, from);
	memset(f + 32, 0, 6);
	if (reply)
		memcpy(f + 32, rx + 22, 6);
	put32(f + 38, to);
	frame_send(port, f, sizeof(f));
}

/* The next IPv4 frame of a protocol that is for the guest; answers ARP on the way. */
static inline bool ip_receive(struct net_port *port, uint8_t protocol, int wait_ms)
{
	int64_t until = clock_s() + PATIENCE_S;

	while (clock_s() < until && frame_receive(port, wait_ms)) {
		if (get16(rx + 12) == 0x0806 && rx[21] == 1 && get32(rx + 38) == GUEST_IP)
			arp_send(port, true, GUEST_IP, get32(rx + 28));
		if (get16(rx + 12) != 0x0800 || rx[ETH + 9] != protocol)
			continue;
		CU_ASSERT_EQUAL(rx[ETH], 0x45);
		CU_ASSERT_EQUAL(sum_add(0, rx + ETH, 20), 0xffff);
		CU_ASSERT(ETH + get16(rx + ETH + 2) <= rx_len);
		return true;
	}
	return false;
}

static inline uint32_t rx_l4_len(void)
{
	return get16(rx + ETH + 2) - 20u;
}

/* Addresses and IPv4 header; the transport and what it carries is there already. */
static inline void ip_build(uint8_t *f, uint8_t protocol, uint32_t to, uint32_t l4_len)
{
	static uint16_t id;

	memcpy(f, router_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, 0x0800);
	memset(f + ETH, 0, 20);
	f[ETH] = 0x45;
	put16(f + ETH + 2, 20 + l4_len);
	put16(f + ETH + 4, ++id);
	f[ETH + 8] = 64;
	f[ETH + 9] = protocol;
	put32(f + ETH + 12, GUEST_IP);
	put32(f + ETH + 16, to);
	put16(f + ETH + 10, (uint16_t)~sum_add(0, f + ETH, 20));
}

static inline uint32_t udp_build(
	uint8_t *f, uint16_t from, uint32_t to, uint16_t to_port, const void *data, uint32_t len)
{
	put16(f + L4, from);
	put16(f + L4 + 2, to_port);
	put16(f + L4 + 4, 8 + len);
	put16(f + L4 + 6, 0);
	memcpy(f + L4 + 8, data, len);
	ip_build(f, IPPROTO_UDP, to, 8 + len);
	put16(f + L4 + 6, (uint16_t)~l4_sum(f, 8 + len));
	return L4 + 8 + len;
}

static inline void udp_send(struct net_port *port, uint16_t from, uint32_t to, uint16_t to_port,
	const void *data, uint32_t len)
{
	static uint8_t f[2048];

	frame_send(port, f, udp_build(f, from, to, to_port, data, len));
}

/* ------------------------------------------------------------------ TCP */

struct tcp {
	struct net_port *port;
	uint32_t to;
	uint16_t here, there;
	uint32_t seq, ack;
};

static inline uint32_t tcp_build(
	const struct tcp *t, uint8_t *f, uint8_t flags, const void *data, uint32_t len)
{
	put16(f + L4, t->here);
	put16(f + L4 + 2, t->there);
	put32(f + L4 + 4, t->seq);
	put32(f + L4 + 8, flags & TCP_ACK ? t->ack : 0);
	f[L4 + 12] = 0x50;
	f[L4 + 13] = flags;
	put16(f + L4 + 14, 60000);
	put32(f + L4 + 16, 0);
	if (len)
		memcpy(f + L4 + 20, data, len);
	ip_build(f, IPPROTO_TCP, t->to, 20 + len);
	put16(f + L4 + 16, (uint16_t)~l4_sum(f, 20 + len));
	return L4 + 20 + len;
}

static inline void tcp_send(struct tcp *t, uint8_t flags, const void *data, uint32_t len)
{
	static uint8_t f[2048];

	frame_send(t->port, f, tcp_build(t, f, flags, data, len));
	t->seq += len + !!(flags & (TCP_SYN | TCP_FIN));
}

/* The next segment of this connection, its checksum right: its flags; 0: none came. */
static inline uint8_t tcp_receive(struct tcp *t, const uint8_t **data, uint32_t *len)
{
	while (ip_receive(t->port, IPPROTO_TCP, PATIENCE_S * 1000)) {
		uint32_t headers = 4u * (rx[L4 + 12] >> 4);

		if (get16(rx + L4) != t->there || get16(rx + L4 + 2) != t->here)
			continue;
		CU_ASSERT_EQUAL(l4_sum(rx, rx_l4_len()), 0xffff);
		CU_ASSERT_EQUAL(get32(rx + ETH + 12), t->to);
		*data = rx + L4 + headers;
		*len = rx_l4_len() - headers;
		return rx[L4 + 13];
	}
	return 0;
}

/* The next segment with bytes or a flag of `wanted` that continues what came; acknowledged. */
static inline uint32_t tcp_continue(struct tcp *t, uint8_t wanted, const uint8_t **data)
{
	uint32_t len;
	uint8_t flags;

	while ((flags = tcp_receive(t, data, &len))) {
		if (!(flags & TCP_SYN) && get32(rx + L4 + 4) != t->ack)
			continue;
		if (!len && !(flags & wanted))
			continue;
		t->ack = get32(rx + L4 + 4) + len + !!(flags & (TCP_SYN | TCP_FIN));
		tcp_send(t, TCP_ACK, NULL, 0);
		return len;
	}
	CU_FAIL("no segment came");
	return 0;
}

/* ------------------------------------------------------------------ the host's side */

/* A socket at a free port of 127.0.0.1, with a limit to its patience. */
static inline int host_socket(int type, uint16_t *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval patience = {.tv_sec = PATIENCE_S};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	CU_ASSERT_FATAL(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	CU_ASSERT_EQUAL(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	if (type == SOCK_STREAM)
		CU_ASSERT_EQUAL(listen(fd, 16), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

static inline struct sockaddr_in host_address(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port)};
}

/* A port that was free a moment ago. */
static inline uint16_t host_port_free(int type)
{
	uint16_t port;

	close(host_socket(type, &port));
	return port;
}

/* All of len bytes of a stream. */
static inline bool host_read(int fd, uint8_t *to, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = recv(fd, to + done, len - done, 0);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

#endif
