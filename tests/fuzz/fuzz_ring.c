/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device side of both layouts on rings made of arbitrary bytes. Every area has a heap block of
 * its exact size, so that the address sanitizer sees the first byte outside.
 *
 * Input: byte 0 features (bits 0-2), layout (bit 3); byte 1 size; byte 2 chain_max; byte 3 how many
 * operations follow, three bytes each; the rest fills descriptors, driver area, tables and data.
 */
#include <stdlib.h>
#include <string.h>

#include "ring/ring.h"

#define SIZE_MAX_FUZZED 64u
#define MEMORY_BYTES    768u
#define HELD_MAX        SIZE_MAX_FUZZED
#define SEGS_MAX        96u
#define BATCH           16u

#define MEMORY_GPA 0u
#define DESC_GPA   0x10000u
#define DRIVER_GPA 0x20000u
#define DEVICE_GPA 0x30000u

struct input {
	const uint8_t *at;
	size_t left;
};

struct fuzz {
	struct ring_mem mem;
	struct ring_device dev;
	struct ring_device_config cfg;
	struct ring_device_slot *slots;
	uint8_t *areas[4];
	size_t bytes[4];
	uint64_t dirty[4];
	uint16_t held[HELD_MAX];
	uint32_t nheld;
	struct ring_chain chains[BATCH];
	uint32_t npopped; /* chains that may still be given back */
	struct ring_seg *segs;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t input_byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

static void check(bool good)
{
	if (!good)
		abort();
}

/* Reads what the device may read and writes what it may write, at both ends. */
static void fuzz_use(struct fuzz *f, const struct ring_chain *c)
{
	static volatile uint8_t sink;
	uint64_t lens[2] = {0};

	check(c->id < f->cfg.size && f->nheld < f->cfg.size);
	check(c->nout + c->nin >= 1 && c->nout + c->nin <= f->cfg.chain_max);
	for (uint32_t i = 0; i < (uint32_t)c->nout + c->nin; i++) {
		uint8_t *base = c->segs[i].base;
		size_t len = c->segs[i].len;

		check(len > 0);
		sink = base[0];
		sink = base[len - 1];
		if (i >= c->nout) {
			base[len - 1] ^= 1;
			ring_mem_dirty(&f->mem, base, len);
		}
		lens[i >= c->nout] += len;
	}
	(void)sink;
	check(lens[0] == c->out_len && lens[1] == c->in_len);
	f->held[f->nheld++] = c->id;
}

static void fuzz_pop(struct fuzz *f, uint8_t a, uint8_t b)
{
	uint32_t max_segs = b % (SEGS_MAX + 1);
	int n = ring_device_pop(&f->dev, f->chains, a % (BATCH + 1), f->segs, max_segs);

	f->npopped = n > 0 ? n : 0;
	if (n < 0)
		check(ring_device_pop(&f->dev, f->chains, 1, f->segs, max_segs) == -RING_EPROTO);
	for (int i = 0; i < n; i++)
		fuzz_use(f, &f->chains[i]);
}

static void fuzz_unpop(struct fuzz *f, uint8_t a)
{
	uint32_t n = f->npopped ? a % (f->npopped + 1) : 0;

	ring_device_unpop(&f->dev, &f->chains[f->npopped - n], n);
	f->npopped -= n;
	f->nheld -= n;
}

static void fuzz_push(struct fuzz *f, uint8_t a, uint8_t b)
{
	struct ring_used used[4];
	uint32_t n = a % 5;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t pick = f->nheld ? (b + i) % f->nheld : 0;

		used[i] = (struct ring_used){f->nheld ? f->held[pick] : b * 257u, a * 1000u};
		if (f->nheld)
			f->held[pick] = f->held[--f->nheld];
	}
	ring_device_push(&f->dev, used, n);
	f->npopped = 0;
}

/* The driver writes while the device runs; often one of the words that matter. */
static void fuzz_scribble(struct fuzz *f, uint8_t where, uint8_t what)
{
	uint32_t area = where % 4;
	size_t at = (size_t)(where / 4) * 7 % f->bytes[area];

	if (area == 2 && f->cfg.layout == RING_SPLIT && where < 128)
		at = 2;
	f->areas[area][at] = what;
}

static void fuzz_load(struct fuzz *f, uint8_t a, uint8_t b)
{
	struct ring_device_state s = {a | b << 8, b};

	if (ring_device_init(&f->dev, &f->cfg, &f->mem))
		abort();
	f->nheld = f->npopped = 0;
	ring_device_state_set(&f->dev, &s);
	ring_device_state_get(&f->dev, &s);
}

static void fuzz_step(struct fuzz *f, uint8_t op, uint8_t a, uint8_t b)
{
	switch (op % 8) {
	case 0:
	case 1:
		fuzz_pop(f, a, b);
		break;
	case 2:
		fuzz_push(f, a, b);
		break;
	case 3:
		fuzz_unpop(f, a);
		break;
	case 4:
		if (a & 1)
			ring_device_doorbell_on(&f->dev);
		else
			ring_device_doorbell_off(&f->dev);
		break;
	case 5:
		ring_device_needs_interrupt(&f->dev);
		ring_device_has_work(&f->dev);
		break;
	case 6:
		fuzz_scribble(f, a, b);
		break;
	default:
		if (b < 64)
			fuzz_load(f, a, b);
		else
			fuzz_scribble(f, a, b);
		break;
	}
}

static bool fuzz_new(struct fuzz *f, struct input *in)
{
	static const uint64_t gpas[] = {MEMORY_GPA, DESC_GPA, DRIVER_GPA, DEVICE_GPA};
	uint8_t flags = input_byte(in);
	uint32_t size = input_byte(in) % SIZE_MAX_FUZZED + 1;
	bool split = !(flags & 8), event = flags & 1;

	if (split)
		while (size & (size - 1))
			size &= size - 1;
	f->cfg = (struct ring_device_config){
		.layout = split ? RING_SPLIT : RING_PACKED,
		.features = {.event_idx = event, .indirect = flags & 2, .in_order = flags & 4},
		.size = size,
		.desc_gpa = DESC_GPA,
		.driver_gpa = DRIVER_GPA,
		.device_gpa = DEVICE_GPA,
		.chain_max = input_byte(in) % 80 + 1,
	};
	f->bytes[0] = MEMORY_BYTES;
	f->bytes[1] = 16 * size;
	f->bytes[2] = split ? 4 + 2 * size + 2 * event : 4;
	f->bytes[3] = split ? 4 + 8 * size + 2 * event : 4;
	f->slots = malloc(size * sizeof(*f->slots));
	f->segs = malloc(SEGS_MAX * sizeof(*f->segs));
	f->cfg.slots = f->slots;
	for (int i = 0; i < 4; i++) {
		f->areas[i] = calloc(1, f->bytes[i]);
		if (!f->areas[i] || ring_mem_add(&f->mem, gpas[i], f->bytes[i], f->areas[i], false))
			return false;
		f->mem.regions[i].dirty = flags & 16 ? &f->dirty[i] : NULL;
	}
	return f->slots && f->segs && ring_device_init(&f->dev, &f->cfg, &f->mem) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int order[] = {1, 2, 0, 3};
	struct input in = {data, size};
	struct fuzz *f = calloc(1, sizeof(*f));
	const uint8_t *ops;
	uint32_t nops;

	if (!f || !fuzz_new(f, &in))
		abort();
	nops = input_byte(&in) % 64;
	if (nops > in.left / 3)
		nops = in.left / 3;
	ops = in.at;
	in.at += 3 * nops;
	in.left -= 3 * nops;
	for (int i = 0; i < 4; i++) {
		size_t n = in.left < f->bytes[order[i]] ? in.left : f->bytes[order[i]];

		if (n)
			memcpy(f->areas[order[i]], in.at, n);
		in.at += n;
		in.left -= n;
	}
	fuzz_pop(f, BATCH, SEGS_MAX);
	for (uint32_t i = 0; i < nops; i++)
		fuzz_step(f, ops[3 * i], ops[3 * i + 1], ops[3 * i + 2]);

	for (int i = 0; i < 4; i++)
		free(f->areas[i]);
	free(f->slots);
	free(f->segs);
	free(f);
	return 0;
}
