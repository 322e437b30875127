/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest behind NAT: asks DHCP for an address, sends datagrams of all sizes to a server on the
 * host's loopback and checks what comes back, then answers datagrams at port 7 itself.
 * dev=virtio-net|e1000|ne2k_pci, to=PORT, n=DATAGRAMS, answer=DATAGRAMS.
 */
#include "frontend-drivers/frontend.h"

#define ETH          14u
#define L4           34u
#define PAYLOAD      42u
#define PAYLOAD_MAX  1472u
#define FRAME_MIN    60u
#define PROTO_UDP    17u
#define PORT_ECHO    7u
#define PORT_OWN     4000u
#define PATIENCE_NS  20000000000ull
#define AGAIN_NS     1000000000ull
#define BOOTP_LEN    300u
#define BOOTP_XID    0x534c5543u
#define ROUTER_GUESS 0x0a000202u

static struct frontend_net *net;
static uint8_t frame_memory[FRONTEND_NET_HEADROOM + 2048] __attribute__((aligned(64)));
static uint8_t *const out = frame_memory + FRONTEND_NET_HEADROOM;
static uint8_t in[2048];
static uint32_t in_len, own, router;
static uint8_t router_mac[6];

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static void failed(const char *what, unsigned n)
{
	print("nat failed: %s (%u)\n", what, n);
	power_off(0);
}

/* ------------------------------------------------------------------ frames */

/* Sends what is in `out`, and waits until it is free again. */
static void frame_send(uint32_t len)
{
	struct frontend_net_tx tx = {.frame = out, .len = len < FRAME_MIN ? FRAME_MIN : len};
	uint64_t end = clock_now() + clock_from_ns(PATIENCE_NS), token;

	if (len < FRAME_MIN)
		memset(out + len, 0, FRAME_MIN - len);
	while (net->ops->send(net, 0, &tx))
		if (clock_now() > end)
			failed("no room to send", 0);
	net->ops->kick(net);
	while (net->ops->sent(net, 0, &token, 1) != 1) {
		net->ops->kick(net);
		cpu_relax();
		if (clock_now() > end)
			failed("a frame is not sent", 0);
	}
}

static void arp_send(bool reply, uint32_t to)
{
	memset(out, 0xff, 6);
	memcpy(out + 6, net->mac, 6);
	memcpy(out + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00", 9);
	out[21] = reply ? 2 : 1;
	memcpy(out + 22, net->mac, 6);
	put32(out + 28, own);
	memset(out + 32, 0, 6);
	if (reply) {
		memcpy(out, in + 6, 6);
		memcpy(out + 32, in + 22, 6);
	}
	put32(out + 38, to);
	frame_send(42);
}

/* One frame into `in`, if there is one. */
static bool frame_receive(void)
{
	struct frontend_net_rx rx;
	int n = net->ops->receive(net, 0, &rx, 1);

	if (n < 0)
		failed("receiving", (unsigned)-n);
	if (n != 1 || rx.len > sizeof(in))
		return false;
	memcpy(in, rx.frame, rx.len);
	in_len = rx.len;
	if (get16(in + 12) == 0x0806 && in[21] == 1 && own && get32(in + 38) == own)
		arp_send(true, get32(in + 28));
	return true;
}

/* A whole datagram for this port; false: none until `end`. */
static bool udp_receive(uint32_t port, uint64_t end)
{
	while (clock_now() < end) {
		if (frame_receive() && in_len >= PAYLOAD && get16(in + 12) == 0x0800 &&
			in[ETH] == 0x45 && in[ETH + 9] == PROTO_UDP && get16(in + L4 + 2) == port &&
			get16(in + ETH + 2) + ETH <= in_len &&
			get16(in + L4 + 4) + 20 == get16(in + ETH + 2))
			return true;
		cpu_relax();
	}
	return false;
}

/* Around `len` bytes at out + PAYLOAD. Without a checksum of UDP, which IPv4 allows. */
static void udp_send(uint32_t from, uint32_t to, uint32_t to_port, uint32_t len)
{
	uint32_t sum = 0;

	memcpy(out, router_mac, 6);
	memcpy(out + 6, net->mac, 6);
	put16(out + 12, 0x0800);
	memset(out + ETH, 0, PAYLOAD - ETH);
	out[ETH] = 0x45;
	put16(out + ETH + 2, 28 + len);
	out[ETH + 8] = 64;
	out[ETH + 9] = PROTO_UDP;
	put32(out + ETH + 12, own);
	put32(out + ETH + 16, to);
	for (uint32_t i = 0; i < 20; i += 2)
		sum += get16(out + ETH + i);
	sum = (sum & 0xffff) + (sum >> 16);
	put16(out + ETH + 10, ~((sum & 0xffff) + (sum >> 16)));
	put16(out + L4, from);
	put16(out + L4 + 2, to_port);
	put16(out + L4 + 4, 8 + len);
	frame_send(PAYLOAD + len);
}

/* ------------------------------------------------------------------ the subjects */

/* RFC 2131: the address of an offer is the guest's, and option 3 of it the router. */
static void address_get(void)
{
	uint64_t end = clock_now() + clock_from_ns(PATIENCE_NS);
	uint8_t *m = out + PAYLOAD;

	memset(router_mac, 0xff, sizeof(router_mac));
	do {
		if (clock_now() > end)
			failed("no DHCP offer", 0);
		memset(m, 0, BOOTP_LEN);
		memcpy(m, "\x01\x01\x06", 3);
		put32(m + 4, BOOTP_XID);
		memcpy(m + 28, net->mac, 6);
		memcpy(m + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8);
		udp_send(68, 0xffffffff, 67, BOOTP_LEN);
	} while (!udp_receive(68, clock_now() + clock_from_ns(AGAIN_NS)));
	m = in + PAYLOAD;
	if (get32(m + 4) != BOOTP_XID)
		failed("not the answer to this question", 0);
	own = get32(m + 16);
	router = ROUTER_GUESS;
	for (uint8_t *o = m + 240; o + 6 <= in + in_len && *o != 0xff; o += 2 + o[1])
		if (*o == 3)
			router = get32(o + 2);
	print("nat address %u.%u.%u.%u\n", own >> 24, own >> 16 & 255, own >> 8 & 255, own & 255);
}

static void router_find(void)
{
	uint64_t end = clock_now() + clock_from_ns(PATIENCE_NS);

	arp_send(false, router);
	while (!frame_receive() || get16(in + 12) != 0x0806 || in[21] != 2 ||
		get32(in + 28) != router)
		if (clock_now() > end)
			failed("no answer from the router", 0);
	memcpy(router_mac, in + 22, 6);
}

static uint8_t byte_of(uint32_t n, uint32_t i)
{
	uint32_t v = (n * 2654435761u) ^ (i * 2246822519u);

	return (uint8_t)(v >> 13 ^ v >> 24);
}

/* Whether the datagram in `in` is the nth; the server gives back what it got. */
static bool echo_right(uint32_t n, uint32_t len)
{
	if (get16(in + L4 + 4) != 8 + len || get32(in + ETH + 12) != router)
		return false;
	for (uint32_t i = 0; i < len; i++)
		if (in[PAYLOAD + i] != byte_of(n, i))
			return false;
	return true;
}

static void echo_ask(uint32_t port, uint32_t n)
{
	uint32_t len = 4 + n * 37 % (PAYLOAD_MAX - 3);

	for (unsigned tries = 0; tries < 10; tries++) {
		for (uint32_t i = 0; i < len; i++)
			out[PAYLOAD + i] = byte_of(n, i);
		udp_send(PORT_OWN, router, port, len);
		if (!udp_receive(PORT_OWN, clock_now() + clock_from_ns(AGAIN_NS)))
			continue;
		if (!echo_right(n, len))
			failed("the wrong datagram came back", n);
		return;
	}
	failed("nothing came back", n);
}

static void echo_answer(uint32_t n)
{
	uint32_t len;

	if (!udp_receive(PORT_ECHO, clock_now() + clock_from_ns(PATIENCE_NS)))
		failed("nobody asks", n);
	len = get16(in + L4 + 4) - 8;
	if (len > PAYLOAD_MAX)
		failed("too long", len);
	memcpy(out + PAYLOAD, in + PAYLOAD, len);
	udp_send(PORT_ECHO, get32(in + ETH + 12), get16(in + L4), len);
}

static int device_open(void)
{
	const struct frontend_virtio_options options = {.packed = true,
		.event_idx = true,
		.indirect = true,
		.in_order = true,
		.msix = true};
	char dev[16] = "virtio-net";

	cmdline_word("dev", 0, dev, sizeof(dev));
	if (!strcmp(dev, "e1000"))
		return e1000_open(0, &net);
	if (!strcmp(dev, "ne2k_pci"))
		return ne2000_open(0, &net);
	return virtio_net_open(0, 1, &options, &net);
}

void guest_main(void)
{
	uint32_t to = (uint32_t)cmdline_u64("to", 7), n = (uint32_t)cmdline_u64("n", 100);
	uint32_t answer = (uint32_t)cmdline_u64("answer", 0);

	clock_init();
	if (device_open())
		failed("the device cannot be opened", 0);
	address_get();
	router_find();
	for (uint32_t i = 0; i < n; i++)
		echo_ask(to, i);
	print("nat asked %u\n", n);
	for (uint32_t i = 0; i < answer; i++)
		echo_answer(i);
	print("nat ok\n");
	power_off(0);
}
