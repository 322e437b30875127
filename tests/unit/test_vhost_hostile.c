/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Front-ends that lie: each wrong message ends its own connection, with a reason, and nothing else:
 * another front-end of the same process goes on, and no descriptor is left open.
 */
#include <fcntl.h>

#include "tests/unit/test_vhost_rig.h"

static struct fe bad, good;

static void open_both(void)
{
	fe_open(&bad, 2, false, 0);
	fe_open(&good, 1, false, 0);
	fe_start(&good, 16);
}

static void close_both(void)
{
	fe_close(&good);
	fe_close(&bad);
}

/* The server has hung up: what comes, if anything, is a refusal, and then the end. */
static void expect_closed(const char *what)
{
	struct fe_message m;
	unsigned answers = 0;

	while (fe_receive(bad.socket, &m)) {
		for (unsigned i = 0; i < m.nfds; i++)
			close(m.fds[i]);
		if (++answers == 8)
			break;
	}
	if (answers == 8) {
		printf(" %s was taken ", what);
		CU_FAIL("a wrong message was taken");
	}
	fe_disconnect(&bad);
}

/* ------------------------------------------------------------------ one message */

struct wrong {
	const char *name;
	uint32_t request, flags, size;
	uint64_t words[9];
	unsigned fds;
	bool half; /* only half of the payload is sent, then nothing */
};

#define MEM  RIG_GPA, 8u << 20, FE_USER, 0
#define RING (FE_USER + 4096)

static const struct wrong wrongs[] = {
	{"version 0", GET_FEATURES, 0, 0, {0}, 0, false},
	{"version 2", GET_FEATURES, 2, 0, {0}, 0, false},
	{"a reply", GET_FEATURES, 5, 0, {0}, 0, false},
	{"request 0", 0, 1, 0, {0}, 0, false},
	{"a request nobody knows", 1000, 1, 0, {0}, 0, false},
	{"a request that was not offered", 22, 1, 8, {0}, 0, false},
	{"a payload that is too long", SET_FEATURES, 1, 4096, {0}, 0, true},
	{"a payload of 4 GiB", SET_FEATURES, 1, UINT32_MAX, {0}, 0, true},
	{"a payload where none belongs", GET_FEATURES, 1, 8, {0}, 0, false},
	{"a payload that is too short", SET_VRING_NUM, 1, 4, {0}, 0, false},
	{"a descriptor where none belongs", SET_OWNER, 1, 0, {0}, 1, false},
	{"features not offered", SET_FEATURES, 1, 8, {1ull << 63}, 0, false},
	{"protocol features not offered", SET_PROTOCOL_FEATURES, 1, 8, {1ull << 63}, 0, false},
	{"regions without descriptors", SET_MEM_TABLE, 1, 40, {1, MEM}, 0, false},
	{"more descriptors than regions", SET_MEM_TABLE, 1, 40, {1, MEM}, 2, false},
	{"nine regions", SET_MEM_TABLE, 1, 40, {9, MEM}, 1, false},
	{"regions beyond the message", SET_MEM_TABLE, 1, 40, {2, MEM}, 2, false},
	{"a region of nothing", SET_MEM_TABLE, 1, 40, {1, RIG_GPA, 0, FE_USER, 0}, 1, false},
	{"a region that wraps", SET_MEM_TABLE, 1, 40, {1, UINT64_MAX - 4095, 8192, FE_USER, 0}, 1,
		false},
	{"a region whose user address wraps", SET_MEM_TABLE, 1, 40,
		{1, RIG_GPA, 8192, UINT64_MAX - 4095, 0}, 1, false},
	{"half a page", SET_MEM_TABLE, 1, 40, {1, RIG_GPA + 512, 4096, FE_USER, 0}, 1, false},
	{"a region longer than its file", SET_MEM_TABLE, 1, 40, {1, RIG_GPA, 16u << 20, FE_USER, 0},
		1, false},
	{"a region behind its file", SET_MEM_TABLE, 1, 40, {1, RIG_GPA, 4096, FE_USER, 8u << 20}, 1,
		false},
	{"an offset that wraps", SET_MEM_TABLE, 1, 40,
		{1, RIG_GPA, 8192, FE_USER, UINT64_MAX - 4095}, 1, false},
	{"regions that overlap in the guest", SET_MEM_TABLE, 1, 72,
		{2, RIG_GPA, 8192, FE_USER, 0, RIG_GPA + 4096, 8192, FE_USER + (1u << 20), 0}, 2,
		false},
	{"regions that overlap in the front-end", SET_MEM_TABLE, 1, 72,
		{2, RIG_GPA, 8192, FE_USER, 0, RIG_GPA + (1u << 20), 8192, FE_USER + 4096, 0}, 2,
		false},
	{"a slot that is not there", REM_MEM_REG, 1, 40, {0, MEM}, 0, false},
	{"a slot without its descriptor", ADD_MEM_REG, 1, 40, {0, MEM}, 0, false},
	{"a log without its descriptor", SET_LOG_BASE, 1, 16, {4096, 0}, 0, false},
	{"a log longer than its file", SET_LOG_BASE, 1, 16, {1u << 30, 0}, 1, false},
	{"a log at an odd offset", SET_LOG_BASE, 1, 16, {4096, 3}, 1, false},
	{"a queue that is not there", SET_VRING_NUM, 1, 8, {2 | 16ull << 32}, 0, false},
	{"a queue of no entries", SET_VRING_NUM, 1, 8, {0}, 0, false},
	{"a queue that is too long", SET_VRING_NUM, 1, 8, {128ull << 32}, 0, false},
	{"the position of a queue that is not there", GET_VRING_BASE, 1, 8, {7}, 0, false},
	{"the kick of a queue that is not there", SET_VRING_KICK, 1, 8, {200}, 1, false},
	{"a kick without its descriptor", SET_VRING_KICK, 1, 8, {0}, 0, false},
	{"a kick with one it does not have", SET_VRING_KICK, 1, 8, {NOFD}, 1, false},
	{"a kick with bits of no meaning", SET_VRING_KICK, 1, 8, {1u << 9}, 1, false},
	{"a kick that is memory", SET_VRING_KICK, 1, 8, {0}, 1, false},
	{"a call that is memory", SET_VRING_CALL, 1, 8, {0}, 1, false},
	{"a channel that is memory", SET_BACKEND_REQ_FD, 1, 0, {0}, 1, false},
	{"a queue enabled twice over", SET_VRING_ENABLE, 1, 8, {2ull << 32}, 0, false},
	{"inflight memory for no queue", GET_INFLIGHT_FD, 1, 24, {0, 0, 16ull << 16}, 0, false},
	{"inflight memory for more than there are", GET_INFLIGHT_FD, 1, 24, {0, 0, 3 | 16ull << 16},
		0, false},
	{"inflight memory that is too short", SET_INFLIGHT_FD, 1, 24, {64, 0, 1 | 64ull << 16}, 1,
		false},
	{"inflight memory beyond its file", SET_INFLIGHT_FD, 1, 24, {1u << 30, 0, 1 | 64ull << 16},
		1, false},
	{"configuration beyond the message", SET_CONFIG, 1, 16, {200ull << 32, 0}, 0, false},
	{"a status of many bits", SET_STATUS, 1, 8, {1ull << 40}, 0, false},
};

static void wrong_send(const struct wrong *w)
{
	uint8_t bytes[12 + sizeof(w->words)];
	const uint32_t h[3] = {w->request, w->flags, w->size};
	const int fds[2] = {bad.memfd, bad.memfd};
	size_t n = w->half ? sizeof(w->words) / 2 : w->size;

	memcpy(bytes, h, 12);
	memcpy(bytes + 12, w->words, sizeof(w->words));
	CU_ASSERT(fe_send_raw(bad.socket, bytes, 12 + n, fds, w->fds));
}

static void test_messages(void)
{
	unsigned fds = 0;

	open_both();
	for (unsigned round = 0; round < 2; round++) {
		struct vhost_server_counters n;

		for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
			fe_features(&bad, 0);
			wrong_send(&wrongs[i]);
			expect_closed(wrongs[i].name);
		}
		disk_transfer(&good.d, 50, NULL);
		vhost_server_counters_get(bad.server, &n);
		CU_ASSERT_EQUAL(n.refused, (round + 1) * sizeof(wrongs) / sizeof(wrongs[0]));
		/* what the last one had is gone when the next is served */
		fe_features(&bad, 0);
		fe_disconnect(&bad);
		fe_features(&bad, 0);
		if (round)
			CU_ASSERT_EQUAL(fe_open_fds(), fds);
		fds = fe_open_fds();
		fe_disconnect(&bad);
	}
	close_both();
}

/* ------------------------------------------------------------------ order, and what runs */

static void start_bad(void)
{
	bad.d.r.next = 0;
	fe_start(&bad, 16);
}

static void ring_addr(uint32_t q, uint64_t desc, uint64_t used, uint64_t avail)
{
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} a = {q, 0, desc, used, avail, 0};

	CU_ASSERT(fe_send(bad.socket, SET_VRING_ADDR, 1, &a, sizeof(a), NULL, 0));
}

static void test_order(void)
{
	const uint32_t num[2] = {0, 8};

	open_both();
	/* what was not negotiated */
	bad.socket = fe_socket(bad.path);
	CU_ASSERT(fe_send(bad.socket, GET_INFLIGHT_FD, 1, bad.inflight.payload, 24, NULL, 0));
	expect_closed("inflight memory before it was negotiated");
	/* changes of a ring that runs */
	start_bad();
	CU_ASSERT(fe_send(bad.socket, SET_VRING_NUM, 1, num, 8, NULL, 0));
	expect_closed("the size of a ring that runs");
	start_bad();
	CU_ASSERT(fe_send(bad.socket, SET_VRING_BASE, 1, num, 8, NULL, 0));
	expect_closed("the position of a ring that runs");
	/* rings outside memory, or across its end */
	start_bad();
	ring_addr(0, 0, RING, RING);
	expect_closed("a table outside memory");
	start_bad();
	ring_addr(0, RING, RING, FE_USER + (8u << 20) - 2);
	expect_closed("an available ring across the end");
	start_bad();
	ring_addr(0, RING + 1, RING, RING);
	expect_closed("a table that is not aligned");
	/* memory taken from under a ring: it waits, and goes on when there is some again */
	start_bad();
	{
		const uint64_t none = 0;

		CU_ASSERT_EQUAL(fe_tell(&bad, SET_MEM_TABLE, &none, 8), 0);
		CU_ASSERT_EQUAL(fe_region(&bad, RIG_GPA, bad.d.r.bytes, 0), 0);
		CU_ASSERT(fe_send(bad.socket, 1000, 1, NULL, 0, NULL, 0));
	}
	expect_closed("the end of it");
	disk_transfer(&good.d, 50, NULL);
	close_both();
}

/* Bytes of no sense at all, and connections left in the middle of a message. */
static void test_noise(void)
{
	uint8_t noise[512];

	open_both();
	for (unsigned i = 0; i < 200; i++) {
		for (unsigned k = 0; k < sizeof(noise); k++)
			noise[k] = (uint8_t)rnd(&bad.d, 256);
		if (i % 2) {
			noise[1] = noise[2] = noise[3] = noise[5] = noise[6] = noise[7] = 0;
			noise[0] %= 41;
			noise[4] = 1 | (noise[4] & 8);
			noise[9] = noise[10] = noise[11] = 0;
		}
		bad.socket = fe_socket(bad.path);
		(void)fe_send_raw(bad.socket, noise, 1 + rnd(&bad.d, sizeof(noise)), &bad.memfd,
			rnd(&bad.d, 2));
		fe_disconnect(&bad);
	}
	disk_transfer(&good.d, 50, NULL);
	close_both();
}

/* ------------------------------------------------------------------ memory that goes away */

/* Shortened while the device works on it: its end, and nobody else's. */
static void test_truncated(void)
{
	struct vhost_server_counters n;

	open_both();
	for (unsigned i = 0; i < 4; i++) {
		struct fe_message m;

		CU_ASSERT_EQUAL(ftruncate(bad.memfd, (off_t)bad.d.r.bytes), 0);
		bad.packed = i & 1;
		start_bad();
		/* the requests' pages, or the rings themselves */
		for (unsigned s = 0; s < 8; s++)
			CU_ASSERT_FATAL(disk_add(&bad.d, 0, s, T_GET_ID, 0, 0, 20));
		ring_driver_publish(&bad.d.r.q[0].drv);
		CU_ASSERT_EQUAL(ftruncate(bad.memfd, i & 2 ? 4096 : 0), 0);
		CU_ASSERT_EQUAL(write(bad.d.r.q[0].cfg.doorbell_fd, &(uint64_t){1}, 8), 8);
		while (fe_receive(bad.socket, &m))
			;
		fe_disconnect(&bad);
		disk_transfer(&good.d, 50, NULL);
	}
	vhost_server_counters_get(bad.server, &n);
	CU_ASSERT_EQUAL(n.refused, 4);
	CU_ASSERT(fe_noted(&bad, "took its memory away"));
	close_both();
}

/* Memory that comes from a disk, a device or nowhere. */
static void test_not_memory(void)
{
	static const char *const paths[] = {"/dev/zero", "/proc/self/exe", "/dev/null", "build"};
	const uint64_t table[5] = {1, RIG_GPA, 4096, FE_USER, 0};

	open_both();
	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		int fd = open(paths[i], O_RDONLY);

		CU_ASSERT_FATAL(fd >= 0);
		fe_features(&bad, 0);
		CU_ASSERT(fe_send(bad.socket, SET_MEM_TABLE, 1, table, 40, &fd, 1));
		expect_closed(paths[i]);
		close(fd);
	}
	disk_transfer(&good.d, 50, NULL);
	close_both();
}

static const struct unit_case cases[] = {
	{"one wrong message each", test_messages},
	{"right messages at the wrong time, rings outside memory", test_order},
	{"noise", test_noise},
	{"memory that is taken away", test_truncated},
	{"memory that is none", test_not_memory},
};

UNIT_MAIN("vhost_hostile", cases)
