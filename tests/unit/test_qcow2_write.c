/* SPDX-License-Identifier: BSD-2-Clause */
/* What we write to qcow2 images: as the shadow has it, and whole in the eyes of qemu-img. */
#include <pthread.h>

#include "tests/unit/test_qcow2_rig.h"

#define DEPTH      16
#define LENGTH_MAX (192u << 10)

struct work;

struct slot {
	struct rig_request r;
	uint8_t *data;
	bool busy;
	struct work *work;
};

/* A channel with requests in flight that never overlap, and what the image must hold. */
struct work {
	struct blk_channel *ch;
	struct slot slots[DEPTH];
	uint8_t *shadow;
	uint8_t *unsure;             /* by sector: a discard may or may not have zeroed it */
	uint64_t first, size, state; /* the part of the image that is this channel's */
	unsigned failed;
};

static bool slot_overlaps(const struct work *w, uint64_t offset, uint64_t length)
{
	for (int i = 0; i < DEPTH; i++)
		if (w->slots[i].busy &&
			offset < w->slots[i].r.req.offset + w->slots[i].r.req.length &&
			w->slots[i].r.req.offset < offset + length)
			return true;
	return false;
}

static void wait_some(struct work *w, bool all)
{
	time_t start = time(NULL);
	bool any = true;

	while (any && !rig_late(start)) {
		unsigned busy = 0;

		blk_kick(w->ch);
		if (!blk_poll(w->ch)) {
			struct pollfd pfd = {.fd = blk_channel_fd(w->ch), .events = POLLIN};

			poll(&pfd, 1, 100);
		}
		for (int i = 0; i < DEPTH; i++)
			busy += w->slots[i].busy;
		any = all ? busy > 0 : busy == DEPTH;
	}
	if (any)
		w->failed++;
}

/* What was read is what was written, but for sectors that were discarded. */
static void verify(struct work *w, struct slot *s)
{
	uint64_t offset = s->r.req.offset;

	for (uint64_t i = 0; i < s->r.req.length; i += 512) {
		uint64_t at = offset + i - w->first;

		if (memcmp(s->data + i, w->shadow + at, 512) == 0)
			continue;
		if (w->unsure[at / 512] && rig_all(s->data + i, 0, 512))
			continue;
		w->failed++;
		return;
	}
}

static void slot_done(struct blk_request *req, int res)
{
	struct slot *s = req->owner;

	s->busy = false;
	if (res)
		s->work->failed++;
	else if (req->op == BLK_READ)
		verify(s->work, s);
}

static void start(struct work *w, struct slot *s)
{
	static const enum blk_op ops[] = {BLK_WRITE, BLK_WRITE, BLK_WRITE, BLK_READ, BLK_READ,
		BLK_DISCARD, BLK_WRITE_ZEROES, BLK_FLUSH};
	enum blk_op op = ops[q_random(&w->state) % 8];
	uint64_t limit = q_random(&w->state) % 4 ? 16384 : LENGTH_MAX;
	uint64_t length = (q_random(&w->state) % (limit / 512) + 1) * 512;
	uint64_t offset = q_random(&w->state) % (w->size / 512) * 512;

	if (length > w->size - offset)
		length = w->size - offset;
	if (op == BLK_FLUSH)
		offset = length = 0;
	else if (slot_overlaps(w, w->first + offset, length))
		return;
	rig_prepare(&s->r, op, op == BLK_FLUSH ? 0 : w->first + offset, s->data, length);
	s->r.req.done = slot_done;
	s->r.req.owner = s;
	s->work = w;
	s->r.req.unmap = q_random(&w->state) & 1;
	if (op == BLK_WRITE) {
		q_fill(s->data, length, q_random(&w->state));
		memcpy(w->shadow + offset, s->data, length);
	} else if (op == BLK_WRITE_ZEROES) {
		memset(w->shadow + offset, 0, length);
	}
	if (op == BLK_WRITE || op == BLK_WRITE_ZEROES || op == BLK_DISCARD)
		memset(w->unsure + offset / 512, op == BLK_DISCARD, length / 512);
	s->busy = true;
	blk_submit(w->ch, &s->r.req);
}

static void work_run(struct work *w, unsigned operations)
{
	for (int i = 0; i < DEPTH; i++)
		w->slots[i].data = aligned_alloc(4096, LENGTH_MAX);
	for (unsigned n = 0; n < operations && !w->failed; n++) {
		struct slot *s = &w->slots[n % DEPTH];

		while (s->busy && !w->failed)
			wait_some(w, false);
		start(w, s);
		if (n % 5 == 0)
			blk_kick(w->ch);
	}
	wait_some(w, true);
	for (int i = 0; i < DEPTH; i++)
		free(w->slots[i].data);
}

/* The whole of the image against a shadow, afterwards, through QEMU. */
static void judge(const char *path, const struct work *w, unsigned n, uint64_t size)
{
	char raw[160];
	uint8_t *theirs;
	unsigned wrong = 0;

	snprintf(raw, sizeof(raw), "%s.raw", path);
	q_check(path, false);
	Q_RUN("qemu-img convert -f qcow2 -O raw %s %s", path, raw);
	theirs = q_file_read(raw, size);
	for (unsigned i = 0; i < n; i++)
		for (uint64_t at = 0; at < w[i].size; at += 512)
			if (memcmp(theirs + w[i].first + at, w[i].shadow + at, 512) &&
				!(w[i].unsure[at / 512] &&
					rig_all(theirs + w[i].first + at, 0, 512)))
				wrong++;
	CU_ASSERT_EQUAL(wrong, 0);
	free(theirs);
	unlink(raw);
}

static void work_open(struct work *w, uint64_t first, uint64_t size, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->first = first;
	w->size = size;
	w->state = seed * 0x9e3779b97f4a7c15ull + 99;
	w->shadow = calloc(1, size);
	w->unsure = calloc(1, size / 512);
}

static void work_close(struct work *w)
{
	free(w->shadow);
	free(w->unsure);
}

/* Random work on an image that is there; its content before is what QEMU says. */
static void random_work(
	const char *path, uint64_t size, const struct rig_config *config, unsigned operations)
{
	struct rig r = {.path = ""};
	struct work w;
	char raw[160];
	uint8_t *before;
	int rc;

	snprintf(raw, sizeof(raw), "%s.raw", path);
	Q_RUN("qemu-img convert -f qcow2 -O raw %s %s", path, raw);
	before = q_file_read(raw, size);
	unlink(raw);
	work_open(&w, 0, size, operations + size);
	memcpy(w.shadow, before, size);
	free(before);
	rc = rig_open_path(&r, config, path, -1);
	CU_ASSERT_EQUAL(rc, 0);
	if (!rc) {
		w.ch = r.ch;
		work_run(&w, operations);
		CU_ASSERT_EQUAL(w.failed, 0);
		rig_close(&r);
		judge(path, &w, 1, size);
	} else {
		printf("    %s\n", r.why);
	}
	work_close(&w);
}

static void every_engine(void)
{
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "engines.qcow2");
	for (int i = 0; i < RIG_ENGINES; i++) {
		struct rig_config config = {.engine = rig_engines[i]};

		Q_RUN("qemu-img create -f qcow2 %s 16M", path);
		random_work(path, 16u << 20, &config, 1500);
	}
	unlink(path);
}

static void every_size(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_AUTO};
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "sizes.qcow2");
	for (unsigned bits = 9; bits <= 21; bits += 2) {
		for (int v3 = 0; v3 < 2; v3++) {
			Q_RUN("qemu-img create -f qcow2 -o cluster_size=%u,compat=%s %s 5M",
				1u << bits, v3 ? "1.1" : "0.10", path);
			random_work(path, 5u << 20, &config, 600);
		}
	}
	unlink(path);
}

static void every_refcount_width(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_THREADS, .direct = BLK_DIRECT_OFF};
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "widths.qcow2");
	for (unsigned order = 0; order <= 6; order++) {
		Q_RUN("qemu-img create -f qcow2 -o refcount_bits=%u,cluster_size=512 %s 6M",
			1u << order, path);
		random_work(path, 6u << 20, &config, 500);
	}
	unlink(path);
}

/* Overlay on overlay on raw; what is below does not change. */
static void over_backing(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_AUTO};
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "over.qcow2");
	for (int v3 = 0; v3 < 2; v3++) {
		Q_RUN("head -c 5000000 /dev/urandom >%s.a", path);
		Q_RUN("qemu-img create -f qcow2 -F raw -b $PWD/%s.a %s.b 6M", path, path);
		Q_RUN("qemu-io -f qcow2 -c 'write -P 0x66 1M 700k' -c 'write -z 3M 64k' %s.b",
			path);
		Q_RUN("qemu-img create -f qcow2 -o compat=%s -F qcow2 -b $PWD/%s.b %s 8M",
			v3 ? "1.1" : "0.10", path, path);
		Q_RUN("cat %s.a %s.b | sha256sum >%s.sum", path, path, path);
		random_work(path, 8u << 20, &config, 1200);
		Q_RUN("cat %s.a %s.b | sha256sum | cmp - %s.sum", path, path, path);
	}
	Q_RUN("rm %s %s.a %s.b %s.sum", path, path, path, path);
}

/* Compressed clusters become plain ones; those of a snapshot stay as they are. */
static void over_compressed_and_snapshots(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_AUTO};
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "packed.qcow2");
	for (unsigned bits = 12; bits <= 18; bits += 2) {
		Q_RUN("for i in $(seq 400000); do echo $i; done | head -c 2M >%s.a && "
		      "truncate -s 6M %s.a",
			path, path);
		Q_RUN("qemu-img convert -c -f raw -O qcow2 -o cluster_size=%u %s.a %s", 1u << bits,
			path, path);
		Q_RUN("qemu-img snapshot -c one %s", path);
		random_work(path, 6u << 20, &config, 400);
		Q_RUN("qemu-img snapshot -c two %s", path);
		Q_RUN("qemu-img convert -f qcow2 -O raw %s %s.two", path, path);
		random_work(path, 6u << 20, &config, 400);
		Q_RUN("qemu-img convert -l one -f qcow2 -O raw %s %s.b && cmp %s.a %s.b", path,
			path, path, path);
		Q_RUN("qemu-img convert -l two -f qcow2 -O raw %s %s.b && cmp %s.two %s.b", path,
			path, path, path);
	}
	Q_RUN("rm %s %s.a %s.b %s.two", path, path, path, path);
}

static void *work_thread(void *arg)
{
	work_run(arg, 1500);
	return NULL;
}

/* Two threads, each with its channel and its half of the image; clusters in between are shared. */
static void two_channels(void)
{
	struct blk_options opts = {.fd = -1};
	struct blk_image *image;
	char path[128], why[BLK_WHY_MAX];
	static struct work w[2];
	pthread_t threads[2];

	if (!q_tools())
		return;
	rig_path(path, "two.qcow2");
	Q_RUN("qemu-img create -f qcow2 -o cluster_size=1M %s 17M", path);
	opts.path = path;
	CU_ASSERT_EQUAL_FATAL(blk_open(&image, &opts, why), 0);
	work_open(&w[0], 0, (17u << 20) / 2 / 512 * 512, 1);
	work_open(&w[1], w[0].size, (17u << 20) - w[0].size, 2);
	for (int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(blk_channel_open(&w[i].ch, image, NULL, why), 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, work_thread, &w[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(w[i].failed, 0);
		blk_channel_close(w[i].ch);
	}
	blk_close(image);
	judge(path, w, 2, 17u << 20);
	for (int i = 0; i < 2; i++)
		work_close(&w[i]);
	unlink(path);
}

/* Requests of one batch to the same new cluster: one place, not two. */
static void same_new_cluster(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_AUTO};
	struct rig_request one[128];
	struct rig r = {.path = ""};
	uint8_t *data = aligned_alloc(4096, 65536), *back = aligned_alloc(4096, 65536);
	char path[128];
	struct stat st;

	if (!q_tools())
		return;
	rig_path(path, "same.qcow2");
	Q_RUN("qemu-img create -f qcow2 %s 1M", path);
	CU_ASSERT_EQUAL_FATAL(rig_open_path(&r, &config, path, -1), 0);
	q_fill(data, 65536, 5);
	for (unsigned i = 0; i < 128; i++) {
		rig_prepare(&one[i], BLK_WRITE, i * 512, data + i * 512, 512);
		blk_submit(r.ch, &one[i].req);
	}
	CU_ASSERT(rig_wait(&r, 0));
	for (unsigned i = 0; i < 128; i++)
		CU_ASSERT_EQUAL(one[i].result, 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 0, back, 65536), 0);
	CU_ASSERT(memcmp(data, back, 65536) == 0);
	rig_close(&r);
	q_check(path, false);
	/* header, two tables of refcounts, two of places, one cluster */
	CU_ASSERT(stat(path, &st) == 0 && st.st_size <= 6 * 65536);
	unlink(path);
	free(data);
	free(back);
}

/* What is discarded is free again, in the file and on the host. */
static void discard_frees(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_AUTO};
	struct rig r = {.path = ""};
	uint8_t *data = aligned_alloc(4096, 1 << 20);
	struct stat full, empty, again;
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "discard.qcow2");
	Q_RUN("qemu-img create -f qcow2 %s 64M", path);
	CU_ASSERT_EQUAL_FATAL(rig_open_path(&r, &config, path, -1), 0);
	q_fill(data, 1 << 20, 3);
	for (uint64_t at = 0; at < 16u << 20; at += 1u << 20)
		CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, at, data, 1 << 20), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_FLUSH, 0, NULL, 0), 0);
	CU_ASSERT(stat(path, &full) == 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_DISCARD, 0, NULL, 16u << 20), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_FLUSH, 0, NULL, 0), 0);
	CU_ASSERT(stat(path, &empty) == 0);
	if (r.info.discard && strcmp(r.info.file_system, "tmpfs") != 0)
		CU_ASSERT(empty.st_blocks < full.st_blocks / 4);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 5u << 20, data, 4096), 0);
	CU_ASSERT(rig_all(data, 0, 4096));
	q_fill(data, 1 << 20, 4);
	for (uint64_t at = 32u << 20; at < 48u << 20; at += 1u << 20)
		CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, at, data, 1 << 20), 0);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_FLUSH, 0, NULL, 0), 0);
	CU_ASSERT(stat(path, &again) == 0 && again.st_size <= full.st_size + (1 << 20));
	rig_close(&r);
	q_check(path, false);
	unlink(path);
	free(data);
	q_log_remove();
}

/* Beyond 4 GiB, across the ends of tables, up to the last sector; we read QEMU's there and QEMU
 * reads ours. */
static void far_offsets(void)
{
	static const uint64_t places[] = {0, (512ull << 20) - 4096, (4ull << 30) - 4096,
		(1ull << 40) - 512, (2ull << 40) + 512, (8ull << 40) - 8192};
	struct rig_config config = {.engine = BLK_ENGINE_AUTO};
	uint8_t *data = aligned_alloc(4096, 8192);
	struct rig r = {.path = ""};
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "far.qcow2");
	for (int v3 = 0; v3 < 2; v3++) {
		Q_RUN("qemu-img create -f qcow2 -o compat=%s %s 8T", v3 ? "1.1" : "0.10", path);
		CU_ASSERT_EQUAL_FATAL(rig_open_path(&r, &config, path, -1), 0);
		CU_ASSERT_EQUAL(r.info.size, 8ull << 40);
		for (unsigned i = 0; i < 6; i++) {
			memset(data, 0x10 + i, 8192);
			CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, places[i], data, 8192), 0);
		}
		CU_ASSERT_NOT_EQUAL(rig_do(&r, BLK_WRITE, 8ull << 40, data, 512), 0);
		rig_close(&r);
		q_check(path, false);
		for (unsigned i = 0; i < 6; i++)
			Q_RUN("qemu-io -f qcow2 -c 'read -P %u %llu 8k' %s"
			      "&& qemu-io -f qcow2 -c 'write -P %u %llu 1k' %s",
				0x10 + i, (unsigned long long)places[i], path, 0x20 + i,
				(unsigned long long)places[i] + 1024, path);
		CU_ASSERT_EQUAL_FATAL(rig_open_path(&r, &config, path, -1), 0);
		for (unsigned i = 0; i < 6; i++) {
			CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, places[i], data, 8192), 0);
			CU_ASSERT(rig_all(data, 0x10 + i, 1024));
			CU_ASSERT(rig_all(data + 1024, 0x20 + i, 1024));
			CU_ASSERT(rig_all(data + 2048, 0x10 + i, 6144));
		}
		CU_ASSERT_EQUAL(rig_do(&r, BLK_DISCARD, places[5] - 65536, NULL, 65536 + 8192), 0);
		rig_close(&r);
		q_check(path, false);
	}
	unlink(path);
	free(data);
}

/* Marked dirty, with refcounts that were never written: opened, made anew, and written to. */
static void dirty_is_repaired(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_AUTO};
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "dirty.qcow2");
	for (unsigned bits = 9; bits <= 16; bits += 7) {
		Q_RUN("qemu-img create -f qcow2 -o lazy_refcounts=on,cluster_size=%u %s 6M",
			1u << bits, path);
		Q_RUN("qemu-io -f qcow2 -c 'write -P 1 1M 900k' %s && qemu-img snapshot -c one %s",
			path, path);
		Q_RUN("qemu-img convert -l one -f qcow2 -O raw %s %s.one", path, path);
		/* Ends without closing, so with the mark set. */
		CU_ASSERT(q_run("ulimit -c 0; qemu-io -f qcow2 -c 'write -P 5 512k 2M' -c 'write "
				"-P 6 4M 1M' "
				"-c flush -c abort %s",
				  path) != 0);
		Q_RUN("qemu-img info -U %s | grep -q 'lazy refcounts: true'", path);
		CU_ASSERT(q_run("qemu-img check -f qcow2 %s", path) != 0);
		Q_RUN("cp %s %s.copy && qemu-img check -q -f qcow2 -r all %s.copy; qemu-img "
		      "convert -f "
		      "qcow2 -O raw %s.copy %s.want",
			path, path, path, path, path);
		{
			struct rig r = {.path = ""};
			int rc = rig_open_path(&r, &config, path, -1);

			CU_ASSERT_EQUAL(rc, 0);
			if (rc)
				printf("    %s\n", r.why);
			else
				rig_close(&r);
		}
		q_check(path, false);
		Q_RUN("qemu-img convert -f qcow2 -O raw %s %s.have && cmp %s.have %s.want", path,
			path, path, path);
		random_work(path, 6u << 20, &config, 400);
		Q_RUN("qemu-img convert -l one -f qcow2 -O raw %s %s.have && cmp %s.have %s.one",
			path, path, path, path);
	}
	Q_RUN("rm %s %s.copy %s.want %s.have %s.one", path, path, path, path, path);
	q_log_remove();
}

int main(void)
{
	static const struct unit_case cases[] = {
		{"every engine", every_engine},
		{"cluster sizes and versions", every_size},
		{"refcounts of 1 to 64 bits", every_refcount_width},
		{"over backing files", over_backing},
		{"over compressed clusters and snapshots", over_compressed_and_snapshots},
		{"two channels", two_channels},
		{"one new cluster, many requests", same_new_cluster},
		{"discarding frees", discard_frees},
		{"far offsets", far_offsets},
		{"a dirty image is repaired", dirty_is_repaired},
	};

	return unit_main("qcow2 writing", cases, sizeof(cases) / sizeof(cases[0]));
}
