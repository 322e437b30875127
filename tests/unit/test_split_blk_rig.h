/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtio-blk driver for tests: an image in memory, requests cut into segments any way, a shadow
 * to check against. */
#ifndef TEST_SPLIT_BLK_RIG_H
#define TEST_SPLIT_BLK_RIG_H

#include <sys/syscall.h>

#include "tests/unit/test_backend_rig.h"

#define DISK_SECTORS 8192u
#define SLOTS        24u
#define ZONE_SECTORS (DISK_SECTORS / SLOTS)
#define SLOT_BYTES   (64u << 10)
#define SLOT_SEGS    12u
#define STATUS_NONE  0xee

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { F_RO = 5, F_FLUSH = 9, F_WCE = 11, F_MQ = 12, F_DISCARD = 13, F_WZ = 14 };

/* One request's memory: the whole of it is one piece, cut up when it is queued. */
struct slot {
	uint64_t header, data, status;
	uint32_t type, sector, nsectors;
	bool busy;
};

struct disk {
	struct rig r;
	struct blk_image *image;
	int fd;
	unsigned queues;
	uint8_t *shadow;
	struct slot slots[SLOTS];
	uint32_t seed;
	uint64_t done;
};

static inline uint32_t rnd(struct disk *d, uint32_t below)
{
	d->seed = d->seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(d->seed >> 8) * below >> 24);
}

static inline struct blk_image *disk_image(struct disk *d, enum blk_engine engine, bool readonly)
{
	struct blk_options o = {.fd = dup(d->fd), .engine = engine, .readonly = readonly};
	struct blk_image *image = NULL;
	char why[BLK_WHY_MAX] = "";

	if (blk_open(&image, &o, why)) {
		printf(" %s ", why);
		close(o.fd);
	}
	return image;
}

/* False: the engine is not to be had on this host. */
static inline bool disk_open(
	struct disk *d, bool no_uring, uint32_t poll_us, enum blk_engine engine, bool readonly)
{
	memset(d, 0, sizeof(*d));
	d->seed = 12345;
	d->queues = 1;
	d->fd = (int)syscall(SYS_memfd_create, "disk", 0);
	CU_ASSERT_FATAL(d->fd >= 0);
	CU_ASSERT_EQUAL_FATAL(ftruncate(d->fd, DISK_SECTORS * 512), 0);
	d->shadow = calloc(DISK_SECTORS, 512);
	/* both ways requests go: in the thread's own ring, and through a channel with a descriptor
	 */
	if (engine == BLK_ENGINE_AUTO && !no_uring)
		d->image = disk_image(d, BLK_ENGINE_URING, readonly);
	if (!d->image)
		d->image = disk_image(d, engine, readonly);
	if (!d->image) {
		close(d->fd);
		free(d->shadow);
		return false;
	}
	rig_open(&d->r, no_uring, poll_us, 8u << 20);
	return true;
}

static inline void disk_memory(struct disk *d)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		d->slots[i].header = rig_alloc(&d->r, 16, 16);
		d->slots[i].data = rig_alloc(&d->r, SLOT_BYTES, 4096);
		d->slots[i].status = rig_alloc(&d->r, 1, 1);
	}
}

static inline void disk_create(struct disk *d, struct split_blk_options *o)
{
	char why[BACKEND_WHY_MAX];

	o->image = d->image;
	o->queues = d->queues;
	o->ring = d->r.layout == RING_PACKED ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT;
	o->no_event_idx = !d->r.features.event_idx;
	o->no_indirect = !d->r.features.indirect;
	o->in_order = d->r.features.in_order;
	if (!o->serial)
		o->serial = "serial-0123456789abcdef";
	CU_ASSERT_EQUAL_FATAL(
		split_blk_create(&d->r.dev, d->r.io, &d->r.mem, &d->r.signal, o, why), 0);
}

/* Device, features, queues: ready for requests. */
static inline void disk_start(struct disk *d, uint32_t queue_size)
{
	struct split_blk_options o = {.queue_size = queue_size};

	disk_memory(d);
	disk_create(d, &o);
	CU_ASSERT_EQUAL_FATAL(split_features_set(d->r.dev, d->r.dev->features), 0);
	for (unsigned q = 0; q < d->queues; q++) {
		rig_queue_init(&d->r, q, queue_size);
		rig_queue_start(&d->r, q);
	}
}

static inline void disk_close(struct disk *d)
{
	rig_close(&d->r);
	blk_close(d->image);
	close(d->fd);
	free(d->shadow);
}

/* Cuts [gpa, gpa + len) into up to `pieces` segments at random places. */
static inline unsigned cut(
	struct disk *d, struct ring_sg *sg, uint64_t gpa, uint32_t len, unsigned pieces)
{
	unsigned n = 0;

	while (len) {
		uint32_t part = n + 1 < pieces && len > 1 ? 1 + rnd(d, len) : len;

		sg[n++] = (struct ring_sg){gpa, part};
		gpa += part;
		len -= part;
	}
	return n;
}

/* Queues one request: header, out bytes, in bytes, status. data serves as one or the other. */
static inline bool disk_add(struct disk *d, unsigned q, unsigned s, uint32_t type, uint64_t sector,
	uint32_t out_len, uint32_t in_len)
{
	struct slot *slot = &d->slots[s];
	struct ring_sg sg[4 * SLOT_SEGS];
	uint8_t *h = rig_host(&d->r, slot->header);
	unsigned nout, nin = 0;
	bool free_form = d->r.features.indirect;

	memset(h, 0, 16);
	memcpy(h, &type, 4);
	memcpy(h + 8, &sector, 8);
	*(uint8_t *)rig_host(&d->r, slot->status) = STATUS_NONE;
	nout = cut(d, sg, slot->header, 16, free_form ? 1 + rnd(d, 4) : 1);
	if (out_len)
		nout += cut(
			d, sg + nout, slot->data, out_len, free_form ? 1 + rnd(d, SLOT_SEGS) : 2);
	if (in_len)
		nin = cut(d, sg + nout, slot->data, in_len, free_form ? 1 + rnd(d, SLOT_SEGS) : 2);
	sg[nout + nin++] = (struct ring_sg){slot->status, 1};
	if (ring_driver_add(&d->r.q[q].drv, sg, nout, nin, s))
		return false;
	slot->type = type;
	slot->busy = true;
	return true;
}

/* One request alone: its status; *len what the device says it wrote. */
static inline uint8_t disk_do(struct disk *d, uint32_t type, uint64_t sector, uint32_t out_len,
	uint32_t in_len, uint32_t *len)
{
	struct ring_done done[1];

	CU_ASSERT_FATAL(disk_add(d, 0, 0, type, sector, out_len, in_len));
	rig_kick(&d->r, 0);
	CU_ASSERT_EQUAL_FATAL(rig_wait(&d->r, 0, done, 1), 1);
	CU_ASSERT_EQUAL(done[0].token, 0);
	d->slots[0].busy = false;
	if (len)
		*len = done[0].len;
	return *(uint8_t *)rig_host(&d->r, d->slots[0].status);
}

static inline void pattern(uint8_t *p, uint64_t sector, uint32_t n, uint64_t salt)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t w = 0; w < 64; w++) {
			uint64_t v = (sector + i) * 0x9e3779b97f4a7c15ull ^ salt << 8 ^ w;

			memcpy(p + i * 512 + w * 8, &v, 8);
		}
}

/* A random read, write or flush in the slot's own zone of the disk: slots never disturb each other.
 */
static inline bool disk_random(struct disk *d, unsigned q, unsigned s)
{
	struct slot *slot = &d->slots[s];
	uint32_t max = SLOT_BYTES / 512, kind = rnd(d, 16);
	bool write = kind < 8;

	slot->nsectors = 1 + rnd(d, rnd(d, 4) ? 8 : max);
	slot->sector = s * ZONE_SECTORS + rnd(d, ZONE_SECTORS - slot->nsectors);
	if (kind == 15) {
		return disk_add(d, q, s, T_FLUSH, 0, 0, 0);
	}
	if (write)
		pattern(rig_host(&d->r, slot->data), slot->sector, slot->nsectors, d->seed);
	else
		memset(rig_host(&d->r, slot->data), 0x55, slot->nsectors * 512);
	return disk_add(d, q, s, write ? T_OUT : T_IN, slot->sector,
		write ? slot->nsectors * 512 : 0, write ? 0 : slot->nsectors * 512);
}

static inline void disk_check(struct disk *d, const struct ring_done *done)
{
	struct slot *slot = &d->slots[done->token];
	uint8_t *data = rig_host(&d->r, slot->data);
	uint8_t *want = d->shadow + slot->sector * 512;

	CU_ASSERT_FATAL(slot->busy);
	slot->busy = false;
	d->done++;
	CU_ASSERT_EQUAL(*(uint8_t *)rig_host(&d->r, slot->status), 0);
	if (slot->type == T_OUT) {
		memcpy(want, data, slot->nsectors * 512);
		CU_ASSERT_EQUAL(done->len, 1);
	} else if (slot->type == T_IN) {
		CU_ASSERT_EQUAL(memcmp(want, data, slot->nsectors * 512), 0);
		CU_ASSERT_EQUAL(done->len, slot->nsectors * 512 + 1);
	}
}

/* n random requests over all queues, as many at once as there are slots; hook after half of them.
 */
static inline void disk_transfer(struct disk *d, unsigned n, void (*hook)(struct disk *d))
{
	struct ring_done done[SLOTS];
	unsigned started = 0, finished = 0, per = SLOTS / d->queues;

	while (finished < n) {
		for (unsigned q = 0; q < d->queues; q++) {
			for (unsigned s = q * per; s < (q + 1) * per && started < n; s++)
				if (!d->slots[s].busy && disk_random(d, q, s))
					started++;
			rig_kick(&d->r, q);
		}
		if (hook && finished >= n / 2) {
			hook(d);
			hook = NULL;
		}
		for (unsigned q = 0; q < d->queues; q++) {
			bool busy = false;
			unsigned got = 0;

			for (unsigned s = q * per; s < (q + 1) * per; s++)
				busy |= d->slots[s].busy;
			if (busy)
				got = rig_wait(&d->r, q, done, SLOTS);
			CU_ASSERT_FATAL(!busy || got);
			for (unsigned i = 0; i < got; i++)
				disk_check(d, &done[i]);
			finished += got;
		}
	}
}

/* The image holds what the shadow says. */
static inline void disk_compare(struct disk *d)
{
	uint8_t *all = malloc(DISK_SECTORS * 512);

	CU_ASSERT_EQUAL(pread(d->fd, all, DISK_SECTORS * 512, 0), (ssize_t)DISK_SECTORS * 512);
	CU_ASSERT_EQUAL(memcmp(all, d->shadow, DISK_SECTORS * 512), 0);
	free(all);
}

#endif
