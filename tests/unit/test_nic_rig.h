/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the emulated network cards share: a machine without vCPUs and one card, the
 * other end of its port in the test's hands, and frames that say which they are.
 */
#ifndef TEST_NIC_RIG_H
#define TEST_NIC_RIG_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

#define NIC_HANG_S 30
#define NIC_MEMORY (4ull << 20)

static const uint8_t nic_mac[6] = {0x52, 0x54, 0x00, 0xab, 0xcd, 0xee};
static const uint8_t nic_other[6] = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};
static const uint8_t nic_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct nic_rig {
	struct machine *m;
	struct net_port *peer;
	unsigned slot;
	_Atomic uint32_t level, edges; /* of the only line that is used */
};

static inline void nic_hook(void *ctx, int gsi, bool level, uint64_t address, uint32_t data)
{
	struct nic_rig *r = ctx;

	(void)address;
	(void)data;
	if (gsi < 0)
		return;
	if (level)
		atomic_fetch_add(&r->edges, 1);
	atomic_store(&r->level, level);
}

static inline uint32_t nic_config(struct nic_rig *r, unsigned offset)
{
	machine_port_write(r->m, 0xcf8, 0x80000000u | r->slot << 11 | offset, 4);
	return machine_port_read(r->m, 0xcfc, 4);
}

static inline void nic_config_write(struct nic_rig *r, unsigned offset, uint32_t v)
{
	machine_port_write(r->m, 0xcf8, 0x80000000u | r->slot << 11 | offset, 4);
	machine_port_write(r->m, 0xcfc, v, 4);
}

/* offloads: what the peer takes unfinished. */
static inline void nic_open(struct nic_rig *r, const char *model, uint32_t id, uint32_t offloads)
{
	struct machine_config cfg;
	struct net_port *port;
	char why[VMM_WHY_MAX] = "";
	int rc;

	memset(r, 0, sizeof(*r));
	CU_ASSERT_EQUAL_FATAL(net_pair_open(&port, &r->peer, 1, why), 0);
	CU_ASSERT_EQUAL_FATAL(net_port_offloads_set(r->peer, offloads), 0);
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = NIC_MEMORY;
	cfg.interrupt_hook = nic_hook;
	cfg.interrupt_ctx = r;
	cfg.nnets = 1;
	cfg.nets[0].port = port;
	cfg.nets[0].model = model;
	cfg.nets[0].mac_set = true;
	memcpy(cfg.nets[0].mac, nic_mac, 6);
	rc = machine_create(&r->m, &cfg, why);
	if (rc)
		printf(" (%s) ", why);
	CU_ASSERT_EQUAL_FATAL(rc, 0);
	while (r->slot < 32 && nic_config(r, 0) != id)
		r->slot++;
	CU_ASSERT_FATAL(r->slot < 32);
}

static inline void nic_close(struct nic_rig *r)
{
	machine_destroy(r->m);
	net_port_close(r->peer);
}

/* A fresh machine with the state of this one, guest memory too. The old one goes with nic_close().
 */
static inline void nic_move(
	struct nic_rig *from, struct nic_rig *to, const char *model, uint32_t id, uint32_t offloads)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX] = "";
	int rc;

	nic_open(to, model, id, offloads);
	machine_pause(from->m);
	CU_ASSERT_EQUAL_FATAL(machine_save(from->m, &w), 0);
	memcpy(ring_mem_translate(machine_memory(to->m), 0, NIC_MEMORY, RING_WRITE),
		ring_mem_translate(machine_memory(from->m), 0, NIC_MEMORY, RING_READ), NIC_MEMORY);
	state_reader_init(&r, w.data, w.len);
	rc = machine_load(to->m, &r, why);
	if (rc)
		printf(" (%s) ", why);
	CU_ASSERT_EQUAL_FATAL(rc, 0);
	CU_ASSERT_EQUAL(r.pos, r.len);
	state_writer_free(&w);
}

/* Everything the guest asked to be sent is sent when this returns, if the port took it. */
static inline void nic_sync(struct nic_rig *r)
{
	machine_pause(r->m);
	machine_resume(r->m);
}

/* ------------------------------------------------------------------ waiting */

#define NIC_UNTIL(condition)                                                                       \
	do {                                                                                       \
		time_t nic_end = time(NULL) + NIC_HANG_S;                                          \
		while (!(condition)) {                                                             \
			if (time(NULL) >= nic_end)                                                 \
				CU_FAIL_FATAL("never: " #condition);                               \
			usleep(20);                                                                \
		}                                                                                  \
	} while (0)

/* ------------------------------------------------------------------ frames */

/* Frame number n, of len bytes, all of which depend on n. */
static inline void nic_frame(uint8_t *f, const uint8_t to[6], uint32_t n, uint32_t len)
{
	uint32_t x = n * 2654435761u + 12345;

	memcpy(f, to, 6);
	memcpy(f + 6, nic_other, 6);
	f[12] = 0x88;
	f[13] = 0xb5; /* for experiments */
	for (uint32_t i = 14; i < len; i++) {
		x = x * 1664525u + 1013904223u;
		f[i] = (uint8_t)(x >> 24);
	}
}

static inline bool nic_peer_try(struct nic_rig *r, const uint8_t *f, uint32_t len)
{
	struct iovec seg = {.iov_base = (void *)f, .iov_len = len};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = len};
	struct net_packet *p = &pkt;

	return net_port_send(r->peer, 0, &p, 1) == 1;
}

static inline void nic_peer_send(struct nic_rig *r, const uint8_t *f, uint32_t len)
{
	CU_ASSERT_FATAL(nic_peer_try(r, f, len));
}

/* The length of what has arrived; 0: nothing. */
static inline uint32_t nic_peer_poll(
	struct nic_rig *r, uint8_t *to, uint32_t room, struct net_vnet_hdr *hdr)
{
	struct iovec seg = {.iov_base = to, .iov_len = room};
	struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = room};

	if (!net_port_receive(r->peer, 0, &buf, 1))
		return 0;
	if (hdr)
		*hdr = buf.hdr;
	return buf.len;
}

static inline uint32_t nic_peer_take(
	struct nic_rig *r, uint8_t *to, uint32_t room, struct net_vnet_hdr *hdr)
{
	uint32_t len;

	NIC_UNTIL((len = nic_peer_poll(r, to, room, hdr)) != 0);
	return len;
}

static inline bool nic_peer_silent(struct nic_rig *r)
{
	uint8_t frame[2048];

	nic_sync(r);
	return nic_peer_poll(r, frame, sizeof(frame), NULL) == 0;
}

/* Number n to this address must be the next frame that arrives. */
static inline void nic_peer_expect(struct nic_rig *r, const uint8_t to[6], uint32_t n, uint32_t len)
{
	static uint8_t want[65536], got[65536];
	uint32_t got_len = nic_peer_take(r, got, sizeof(got), NULL);

	nic_frame(want, to, n, len);
	CU_ASSERT_EQUAL(got_len, len);
	CU_ASSERT_FATAL(got_len == len && !memcmp(want, got, len));
}

static inline uint16_t nic_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void nic_put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* No page of guest memory was marked but [first, end). */
static inline bool nic_dirty_is(struct nic_rig *r, uint64_t first, uint64_t end)
{
	uint64_t map[NIC_MEMORY / 4096 / 64];
	bool good = true;

	machine_dirty_fetch(r->m, map, NIC_MEMORY / 4096);
	for (uint64_t page = 0; page < NIC_MEMORY / 4096; page++) {
		bool set = map[page / 64] >> (page % 64) & 1;

		if (set != (page >= first / 4096 && page < end / 4096)) {
			printf(" (page %llu) ", (unsigned long long)page);
			good = false;
		}
	}
	return good;
}

#endif
