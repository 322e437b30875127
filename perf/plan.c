/* SPDX-License-Identifier: BSD-2-Clause */
/* Who is measured, doing what. The order is the order of the tables. */
#include <string.h>

#include "perf/bench_priv.h"

const struct bench_contender bench_contenders[] = {
	{.device = "ide", .transfer = "pio", .ring = "", .label = "ide (PIO)"},
	{.device = "ide", .transfer = "dma", .ring = "", .label = "ide (DMA)"},
	{.device = "virtio-blk",
		.transfer = "ring",
		.ring = "split",
		.label = "virtio-blk split",
		.split = true},
	{.device = "virtio-blk",
		.transfer = "ring",
		.ring = "packed",
		.label = "virtio-blk packed",
		.split = true},
	{.device = "ne2k_pci", .transfer = "pio", .ring = "", .label = "ne2k_pci", .net = true},
	{.device = "e1000", .transfer = "dma", .ring = "", .label = "e1000", .net = true},
	{.device = "virtio-net",
		.transfer = "ring",
		.ring = "split",
		.label = "virtio-net split",
		.net = true,
		.split = true},
	{.device = "virtio-net",
		.transfer = "ring",
		.ring = "packed",
		.label = "virtio-net packed",
		.net = true,
		.split = true},
};
const unsigned bench_ncontenders = sizeof(bench_contenders) / sizeof(bench_contenders[0]);

struct plan {
	struct bench_work *works;
	unsigned n, max;
};

static void plan_add(
	struct plan *p, const char *work, uint32_t size, uint32_t depth, enum bench_port port)
{
	struct bench_work w = {
		.work = work, .size = size, .depth = depth, .queues = 1, .port = port};

	for (unsigned i = 0; i < p->n; i++)
		if (bench_work_same(&p->works[i], &w))
			return;
	if (p->n < p->max)
		p->works[p->n++] = w;
}

static void plan_disk(struct plan *p, const struct bench_options *o)
{
	plan_add(p, "randread", 4096, 32, BENCH_PORT_NONE);
	plan_add(p, "randread", 4096, 1, BENCH_PORT_NONE);
	plan_add(p, "randwrite", 4096, 32, BENCH_PORT_NONE);
	plan_add(p, "seqread", 128 << 10, 8, BENCH_PORT_NONE);
	plan_add(p, "seqwrite", 128 << 10, 8, BENCH_PORT_NONE);
	if (o->quick)
		return;
	for (uint32_t depth = 2; depth <= 256; depth *= 2)
		plan_add(p, "randread", 4096, depth, BENCH_PORT_NONE);
	for (uint32_t size = 512; size <= 1 << 20; size *= o->full ? 2 : 4)
		plan_add(p, "seqread", size, 32, BENCH_PORT_NONE);
	if (!o->full)
		return;
	for (uint32_t depth = 1; depth <= 256; depth *= 4)
		plan_add(p, "randwrite", 4096, depth, BENCH_PORT_NONE);
	for (uint32_t size = 512; size <= 1 << 20; size *= 2) {
		plan_add(p, "randread", size, 32, BENCH_PORT_NONE);
		plan_add(p, "seqwrite", size, 32, BENCH_PORT_NONE);
	}
}

static bool plan_offloads(const struct bench_contender *c)
{
	return strcmp(c->device, "ne2k_pci") != 0;
}

static void plan_net_memory(
	struct plan *p, const struct bench_options *o, const struct bench_contender *c)
{
	enum bench_port port = BENCH_PORT_MEMORY;

	plan_add(p, "tx", 64, 256, port);
	plan_add(p, "rx", 64, 256, port);
	plan_add(p, "echo", 64, 1, port);
	plan_add(p, "tx", 1514, 256, port);
	if (plan_offloads(c))
		plan_add(p, "tx", 65536, 64, port);
	if (o->quick)
		return;
	plan_add(p, "rx", 1514, 256, port);
	plan_add(p, "echo", 64, 32, port);
	for (uint32_t size = 128; size <= 1024; size *= o->full ? 2 : 8)
		plan_add(p, "tx", size, 256, port);
	if (!o->full)
		return;
	for (uint32_t depth = 1; depth <= 256; depth *= 4) {
		plan_add(p, "tx", 64, depth, port);
		plan_add(p, "echo", 64, depth, port);
	}
}

static void plan_net_tap(
	struct plan *p, const struct bench_options *o, const struct bench_contender *c)
{
	plan_add(p, "tx", 64, 256, BENCH_PORT_TAP);
	plan_add(p, "echo", 64, 1, BENCH_PORT_TAP);
	if (plan_offloads(c))
		plan_add(p, "tx", 65536, 64, BENCH_PORT_TAP);
	if (!o->quick)
		plan_add(p, "tx", 1514, 256, BENCH_PORT_TAP);
}

static void plan_ablation(struct plan *p, bool net)
{
	if (net) {
		plan_add(p, "tx", 64, 256, BENCH_PORT_MEMORY);
		plan_add(p, "rx", 64, 256, BENCH_PORT_MEMORY);
		plan_add(p, "echo", 64, 1, BENCH_PORT_MEMORY);
	} else {
		plan_add(p, "randread", 4096, 1, BENCH_PORT_NONE);
		plan_add(p, "randread", 4096, 32, BENCH_PORT_NONE);
		plan_add(p, "randwrite", 4096, 32, BENCH_PORT_NONE);
	}
}

unsigned bench_plan(const struct bench_options *opts, bool net, enum bench_port port,
	const struct bench_contender *contender, struct bench_work *works, unsigned max)
{
	struct plan p = {.works = works, .max = max};

	if (opts->ablate)
		plan_ablation(&p, net);
	else if (!net)
		plan_disk(&p, opts);
	else if (port == BENCH_PORT_TAP)
		plan_net_tap(&p, opts, contender);
	else
		plan_net_memory(&p, opts, contender);
	return p.n;
}
