/* SPDX-License-Identifier: BSD-2-Clause */
/* DPDK's devices as ports, without huge pages: files of frames (net_pcap) on the switch. */
#include "tests/unit/unit.h"
#include "netbridge/netbridge.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define FRAMES 300u
#define ROOM   2048u

static char why[NET_WHY_MAX];
static char path_in[64], path_out[64];

/* ------------------------------------------------------------------ frames, files of them */

/* The n-th: broadcast, 60 to 1,514 bytes, told apart by every byte. */
static uint32_t frame_make(uint8_t *f, unsigned n)
{
	uint32_t len = 60 + n * 37 % 1455;

	for (uint32_t i = 0; i < len; i++)
		f[i] = (uint8_t)(i * 5 + n * 11 + n / 256);
	memset(f, 0xff, 6);
	memcpy(f + 6, "\x02\x00\x00\x00\x00\x01\x88\xb5", 8);
	return len;
}

struct pcap_head {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, digits, snap, link;
};

struct pcap_frame {
	uint32_t s, us, stored, len;
};

static void file_write(const char *path)
{
	const struct pcap_head head = {0xa1b2c3d4, 2, 4, 0, 0, 65535, 1};
	FILE *f = fopen(path, "w");
	uint8_t frame[ROOM];

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fwrite(&head, sizeof(head), 1, f);
	for (unsigned n = 0; n < FRAMES; n++) {
		uint32_t len = frame_make(frame, n);
		const struct pcap_frame at = {.stored = len, .len = len};

		fwrite(&at, sizeof(at), 1, f);
		fwrite(frame, len, 1, f);
	}
	CU_ASSERT_EQUAL_FATAL(fclose(f), 0);
}

/* How many frames of the file are, in order, from the first-th one on, what frame_make() makes. */
static unsigned file_check(const char *path, unsigned first)
{
	FILE *f = fopen(path, "r");
	uint8_t frame[ROOM], expected[ROOM];
	struct pcap_head head;
	struct pcap_frame at;
	unsigned n = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL_FATAL(fread(&head, sizeof(head), 1, f), 1);
	while (fread(&at, sizeof(at), 1, f) == 1) {
		uint32_t len = frame_make(expected, first + n);

		if (at.stored != len || at.len != len || fread(frame, len, 1, f) != 1 ||
			memcmp(frame, expected, len))
			break;
		n++;
	}
	fclose(f);
	return n;
}

/* ------------------------------------------------------------------ ports */

static struct net_port *dpdk_open(const char *fmt, const char *path)
{
	struct net_port *port = NULL;
	char device[128];
	int err;

	snprintf(device, sizeof(device), fmt, path);
	err = net_dpdk_open(&port, device, 1, why);
	if (err)
		printf("(%s) ", why);
	CU_ASSERT_EQUAL_FATAL(err, 0);
	return port;
}

static void test_start(void)
{
	const struct net_dpdk_options o = {.program = "test_net_dpdk", .no_huge = true};
	struct net_port *port;

	snprintf(path_in, sizeof(path_in), "build/tmp/net_dpdk.%d.in", getpid());
	snprintf(path_out, sizeof(path_out), "build/tmp/net_dpdk.%d.out", getpid());
	CU_ASSERT_EQUAL_FATAL(net_dpdk_init(&o, why), 0);
	CU_ASSERT_EQUAL(net_dpdk_init(&o, why), -EALREADY);
	CU_ASSERT_EQUAL_FATAL(net_dpdk_thread_enter(), 0);
	CU_ASSERT_TRUE(net_dpdk_open(&port, "nothing0", 1, why) < 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "nothing0: DPDK has no such device"));
	CU_ASSERT_EQUAL(net_dpdk_open(&port, "net_null0", 0, why), -EINVAL);
	CU_ASSERT_EQUAL(net_dpdk_open(&port, "net_null0", NET_QUEUES_MAX + 1, why), -EINVAL);
}

static void test_receive(void)
{
	struct net_port *port;
	uint8_t memory[ROOM], expected[ROOM];
	/* in pieces */
	struct iovec segs[2] = {{memory, 33}, {memory + 33, ROOM - 33}};
	struct net_buffer buf = {.segs = segs, .nsegs = 2, .room = ROOM};
	struct net_port *twice = NULL;
	struct net_counters c;

	file_write(path_in);
	port = dpdk_open("net_pcap0,rx_pcap=%s", path_in);
	CU_ASSERT_EQUAL(net_dpdk_open(&twice, "net_pcap0,rx_pcap=x", 1, why), -EEXIST);
	for (unsigned n = 0; n < FRAMES; n++) {
		uint32_t len = frame_make(expected, n);

		/* the last has too little room */
		if (n == FRAMES - 1)
			buf.room = len - 1;
		CU_ASSERT_EQUAL_FATAL(net_port_receive(port, 0, &buf, 1), n == FRAMES - 1 ? 0 : 1);
		if (n == FRAMES - 1)
			break;
		CU_ASSERT_EQUAL_FATAL(buf.len, len);
		CU_ASSERT_EQUAL_FATAL(memcmp(memory, expected, len), 0);
	}
	net_port_counters_get(port, &c);
	CU_ASSERT_EQUAL(c.rx_packets, FRAMES - 1);
	CU_ASSERT_EQUAL(c.rx_dropped, 1);
	net_port_close(port);
}

static void test_send(void)
{
	struct net_port *port = dpdk_open("net_pcap0,tx_pcap=%s", path_out);
	uint8_t memory[ROOM];

	for (unsigned n = 0; n < FRAMES; n++) {
		uint32_t len = frame_make(memory, n);
		struct iovec segs[3] = {{memory, 1}, {memory + 1, 20}, {memory + 21, len - 21}};
		struct net_packet pkt = {.segs = segs, .nsegs = 3, .len = len}, *list = &pkt;

		CU_ASSERT_EQUAL_FATAL(net_port_send(port, 0, &list, 1), 1);
		memset(memory, 0, sizeof(memory)); /* it has been copied */
	}
	net_port_close(port);
	CU_ASSERT_EQUAL(file_check(path_out, 0), FRAMES);
}

/* ------------------------------------------------------------------ on the switch */

static void joined_add(struct net_switch *sw, const char *name, struct net_port *port)
{
	struct net_switch_port_options o = {.join = port};

	snprintf(o.name, sizeof(o.name), "%s", name);
	CU_ASSERT_EQUAL_FATAL(net_switch_port_add(sw, &o, NULL, why), 0);
}

static unsigned guest_take(struct net_port *guest, unsigned n)
{
	uint8_t memory[ROOM], expected[ROOM];
	struct iovec seg = {memory, ROOM};
	struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = ROOM};

	while (net_port_receive(guest, 0, &buf, 1) == 1) {
		uint32_t len = frame_make(expected, n);

		if (buf.len != len || memcmp(memory, expected, len))
			break;
		n++;
	}
	return n;
}

/*
 * Frames of one device go out by two others and into a guest, lent by the first: each gets all,
 * unchanged and in order. Then the guest's own go out, copied.
 */
static void test_switch(void)
{
	const struct net_switch_options o = {.workers = 1};
	struct net_switch_port_options guest_options = {.name = "guest"};
	struct net_port *guest = NULL;
	struct net_switch *sw;
	unsigned taken = 0;
	char second[80];

	snprintf(second, sizeof(second), "%s2", path_out);
	CU_ASSERT_EQUAL_FATAL(net_switch_create(&sw, &o, why), 0);
	net_switch_sleep(sw, 0);
	CU_ASSERT_EQUAL_FATAL(net_switch_port_add(sw, &guest_options, &guest, why), 0);
	joined_add(sw, "out", dpdk_open("net_pcap1,tx_pcap=%s", path_out));
	joined_add(sw, "second", dpdk_open("net_pcap2,tx_pcap=%s", second));
	joined_add(sw, "in", dpdk_open("net_pcap0,rx_pcap=%s", path_in));
	net_switch_awake(sw, 0);
	for (unsigned i = 0; i < 1000 && taken < FRAMES; i++) {
		net_switch_poll(sw, 0);
		taken = guest_take(guest, taken);
	}
	CU_ASSERT_EQUAL(taken, FRAMES);
	for (unsigned n = FRAMES; n < 2 * FRAMES; n++) {
		uint8_t memory[ROOM];
		struct iovec seg = {memory, frame_make(memory, n)};
		struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = (uint32_t)seg.iov_len};
		struct net_packet *list = &pkt;

		CU_ASSERT_EQUAL_FATAL(net_port_send(guest, 0, &list, 1), 1);
	}
	net_switch_sleep(sw, 0);
	net_port_close(guest);
	CU_ASSERT_EQUAL(net_switch_port_remove(sw, "guest"), 0);
	CU_ASSERT_EQUAL(net_switch_port_remove(sw, "in"), 0);
	CU_ASSERT_EQUAL(net_switch_port_remove(sw, "out"), 0);
	CU_ASSERT_EQUAL(net_switch_port_remove(sw, "second"), 0);
	net_switch_destroy(sw);
	CU_ASSERT_EQUAL(file_check(path_out, 0), 2 * FRAMES);
	CU_ASSERT_EQUAL(file_check(second, 0), 2 * FRAMES);
	unlink(second);
}

/* A device that is handed frames sees them where the other device put them: lent, not copied. */
static unsigned lent_take(void *ctx, struct net_packet *const *pkts, unsigned n)
{
	unsigned *lent = ctx;

	for (unsigned i = 0; i < n; i++) {
		uint8_t expected[ROOM];
		uint32_t len = frame_make(expected, *lent);

		if (pkts[i]->lender && pkts[i]->nsegs == 1 && pkts[i]->len == len &&
			!memcmp(pkts[i]->segs[0].iov_base, expected, len))
			(*lent)++;
	}
	return n;
}

static void test_lent(void)
{
	const struct net_switch_options o = {.workers = 1};
	struct net_switch_port_options guest_options = {.name = "guest"};
	struct net_port *guest = NULL;
	struct net_switch *sw;
	unsigned lent = 0;
	const struct net_taker taker = {.offer = lent_take, .ctx = &lent};

	CU_ASSERT_EQUAL_FATAL(net_switch_create(&sw, &o, why), 0);
	net_switch_sleep(sw, 0);
	CU_ASSERT_EQUAL_FATAL(net_switch_port_add(sw, &guest_options, &guest, why), 0);
	net_port_taker_set(guest, 0, &taker);
	joined_add(sw, "in", dpdk_open("net_pcap0,rx_pcap=%s", path_in));
	net_switch_awake(sw, 0);
	for (unsigned i = 0; i < 1000 && lent < FRAMES; i++)
		net_switch_poll(sw, 0);
	CU_ASSERT_EQUAL(lent, FRAMES);
	net_switch_sleep(sw, 0);
	net_port_taker_set(guest, 0, NULL);
	net_port_close(guest);
	CU_ASSERT_EQUAL(net_switch_port_remove(sw, "guest"), 0);
	CU_ASSERT_EQUAL(net_switch_port_remove(sw, "in"), 0);
	net_switch_destroy(sw);
}

static void test_end(void)
{
	net_dpdk_thread_leave();
	net_dpdk_exit();
	unlink(path_in);
	unlink(path_out);
}

static const struct unit_case cases[] = {
	{"start, devices that are none", test_start},
	{"received", test_receive},
	{"sent", test_send},
	{"on the switch, lent and copied", test_switch},
	{"lent, where the device put them", test_lent},
	{"end", test_end},
};

UNIT_MAIN("net_dpdk", cases)
