/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the fuzz targets of the emulated network cards share: input, a machine with one card that is
 * made once and reset for each input, and the other end of its port.
 */
#ifndef FUZZ_NIC_RIG_H
#define FUZZ_NIC_RIG_H

#include <stdlib.h>
#include <string.h>

#include "vmm/vmm.h"

#define MEMORY  (2ull << 20)
#define OPS_MAX 400u

static struct machine *machine;
static struct net_port *peer;
static unsigned slot;

struct input {
	const uint8_t *at;
	size_t left;
};

static inline void check(bool good)
{
	if (!good)
		abort();
}

/* Little-endian; zeros behind the end. */
static inline uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->at++, in->left--)
		v |= (uint64_t)*in->at << (8 * i);
	return v;
}

static inline uint32_t config_read(unsigned offset)
{
	machine_port_write(machine, 0xcf8, 0x80000000u | slot << 11 | offset, 4);
	return machine_port_read(machine, 0xcfc, 4);
}

static inline void config_write(unsigned offset, uint32_t v)
{
	machine_port_write(machine, 0xcf8, 0x80000000u | slot << 11 | (offset & 0xfc), 4);
	machine_port_write(machine, 0xcfc, v, 4);
}

static inline void nic_make(const char *model, uint32_t id)
{
	struct machine_config cfg;
	struct net_port *port;
	char why[VMM_WHY_MAX];

	check(net_pair_open(&port, &peer, 1, why) == 0);
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = MEMORY;
	cfg.poll_set = true; /* never polls: two cores are few */
	cfg.nnets = 1;
	cfg.nets[0].port = port;
	cfg.nets[0].model = model;
	check(machine_create(&machine, &cfg, why) == 0);
	while (slot < 32 && config_read(0) != id)
		slot++;
	check(slot < 32);
}

/* Lets what is in flight come to its end. */
static inline void nic_wait(void)
{
	machine_pause(machine);
	machine_resume(machine);
}

/* The other end takes what has come: whole frames only. */
static inline void peer_drain(unsigned most)
{
	static uint8_t frame[NET_FRAME_MAX];
	struct iovec seg = {frame, sizeof(frame)};

	for (unsigned i = 0; i < most; i++) {
		struct net_buffer buf = {.segs = &seg, .nsegs = 1, .room = sizeof(frame)};

		if (!net_port_receive(peer, 0, &buf, 1))
			return;
		check(buf.len >= NET_FRAME_MIN && buf.len <= sizeof(frame));
	}
}

/* A frame with the input's first bytes, mostly to the card. */
static inline void peer_send(struct input *in)
{
	static uint8_t frame[17000];
	uint32_t len = NET_FRAME_MIN + take(in, 2) % (sizeof(frame) - NET_FRAME_MIN);
	struct iovec seg = {frame, len};
	struct net_packet pkt = {.segs = &seg, .nsegs = 1, .len = len}, *p = &pkt;
	unsigned kind = take(in, 1);

	if (kind & 1)
		len = pkt.len = NET_FRAME_MIN + len % 1505;
	seg.iov_len = len;
	memcpy(frame, "\x52\x54\0\x12\x34\x56", 6);
	if (kind & 2)
		memset(frame, 0xff, 6);
	if (kind & 4)
		frame[0] ^= take(in, 1);
	frame[12] = kind & 8 ? 0x81 : 0x08;
	frame[15] = kind >> 4;
	net_port_send(peer, 0, &p, 1);
}

/* Saves, spoils a byte or none, loads. What was saved whole can be loaded. */
static inline void nic_move(struct input *in)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];
	size_t at = take(in, 2);
	int rc;

	machine_pause(machine);
	check(machine_save(machine, &w) == 0);
	if (at & 1 && at < w.len)
		w.data[at] ^= (uint8_t)take(in, 1);
	state_reader_init(&r, w.data, w.len);
	rc = machine_load(machine, &r, why);
	check(!rc || at & 1);
	state_writer_free(&w);
	machine_resume(machine);
}

static inline void nic_reset(void)
{
	char why[VMM_WHY_MAX];

	machine_pause(machine);
	check(machine_reset(machine, why) == 0);
	machine_resume(machine);
	peer_drain(10000);
}

#endif
