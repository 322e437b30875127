/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Killed in the middle of writing: the image is whole but for leaked clusters, and every block
 * holds what was flushed or something written later.
 */
#include <signal.h>
#include <sys/mman.h>

#include "tests/unit/test_qcow2_rig.h"

#define BLOCK   4096u
#define BLOCKS  4096u
#define PER     8u /* sectors in a block: what a crash leaves whole */
#define SECTORS (BLOCKS * PER)
#define DEPTH   16
#define KILLS   8

/* What the writer did, in memory that outlives it. Every eighth version is zeroes. */
struct ledger {
	uint32_t issued[SECTORS], durable[SECTORS]; /* by sector */
	uint64_t state;
	_Atomic uint64_t flushes;
};

struct slot {
	struct blk_request req;
	struct iovec iov;
	uint32_t block, version;
	bool busy;
	uint8_t *data;
};

static uint32_t completed[SECTORS];

static void content(uint8_t *data, uint32_t sector, uint32_t version)
{
	if (version % 8)
		q_fill(data, BLK_SECTOR, (uint64_t)sector << 32 | version);
	else
		memset(data, 0, BLK_SECTOR);
}

static void slot_done(struct blk_request *req, int res)
{
	struct slot *s = req->owner;

	if (res)
		_exit(3);
	for (uint32_t i = 0; i < PER; i++)
		completed[s->block * PER + i] = s->version;
	s->busy = false;
}

static void flush_done(struct blk_request *req, int res)
{
	if (res)
		_exit(4);
	*(bool *)req->owner = true;
}

static void pump(struct blk_channel *ch)
{
	blk_kick(ch);
	if (!blk_poll(ch)) {
		struct pollfd pfd = {.fd = blk_channel_fd(ch), .events = POLLIN};

		poll(&pfd, 1, 100);
	}
}

static void slot_start(struct ledger *l, struct blk_channel *ch, struct slot *slots, struct slot *s)
{
	uint32_t block = (uint32_t)(q_random(&l->state) % BLOCKS);

	for (int i = 0; i < DEPTH; i++)
		if (slots[i].busy && slots[i].block == block)
			return;
	s->block = block;
	s->version = 0;
	for (uint32_t i = 0; i < PER; i++)
		if (l->issued[block * PER + i] >= s->version)
			s->version = l->issued[block * PER + i] + 1;
	for (uint32_t i = 0; i < PER; i++)
		content(s->data + i * BLK_SECTOR, block * PER + i, s->version);
	s->iov = (struct iovec){s->data, BLOCK};
	s->req = (struct blk_request){.op = s->version % 8 ? BLK_WRITE : BLK_WRITE_ZEROES,
		.unmap = block & 1,
		.offset = (uint64_t)block * BLOCK,
		.length = BLOCK,
		.iov = &s->iov,
		.niov = 1,
		.done = slot_done,
		.owner = s};
	s->busy = true;
	for (uint32_t i = 0; i < PER; i++)
		l->issued[block * PER + i] = s->version;
	blk_submit(ch, &s->req);
}

/* Writes until it is killed. */
static int writer(struct ledger *l, const char *path)
{
	static struct slot slots[DEPTH];
	static uint32_t covered[SECTORS];
	struct blk_options opts = {.path = path, .fd = -1};
	struct blk_request flush;
	struct blk_channel *ch;
	struct blk_image *image;
	char why[BLK_WHY_MAX];
	bool flushed = true, flushing = false;

	if (blk_open(&image, &opts, why) || blk_channel_open(&ch, image, NULL, why))
		return 2;
	memcpy(completed, l->durable, sizeof(completed));
	for (int i = 0; i < DEPTH; i++)
		slots[i].data = aligned_alloc(4096, BLOCK);
	for (unsigned n = 0;; n++) {
		struct slot *s = &slots[n % DEPTH];

		while (s->busy)
			pump(ch);
		slot_start(l, ch, slots, s);
		if (flushing && flushed) {
			flushing = false;
			memcpy(l->durable, covered, sizeof(covered));
			l->flushes++;
		}
		if (!flushing && n % 40 == 0) {
			memcpy(covered, completed, sizeof(covered));
			flush = (struct blk_request){
				.op = BLK_FLUSH, .done = flush_done, .owner = &flushed};
			flushed = false;
			flushing = true;
			blk_submit(ch, &flush);
		}
		pump(ch);
	}
}

/* What a sector holds is one of the versions it may hold; that is then the one it has. */
static bool settle(struct ledger *l, const uint8_t *raw, uint32_t sector)
{
	uint8_t want[BLK_SECTOR];

	for (uint32_t v = l->issued[sector]; v + 1 > l->durable[sector]; v--) {
		content(want, sector, v);
		if (memcmp(raw + (size_t)sector * BLK_SECTOR, want, BLK_SECTOR) == 0) {
			l->issued[sector] = l->durable[sector] = v;
			return true;
		}
		if (!v)
			break;
	}
	return false;
}

static void judge(struct ledger *l, const char *path)
{
	struct rig_config config = {.engine = BLK_ENGINE_THREADS};
	time_t start = time(NULL);
	unsigned wrong = 0;
	int rc;
	struct rig r = {.path = ""};
	char name[160];
	uint8_t *raw;

	/* When it can be claimed, the killed process's last transfers have ended. */
	while ((rc = rig_open_path(&r, &config, path, -1)) == -EBUSY && !rig_late(start))
		usleep(10000);
	CU_ASSERT_EQUAL_FATAL(rc, 0);
	rig_close(&r);
	q_check(path, true);
	Q_RUN("qemu-img convert -f qcow2 -O raw %s %s.raw", path, path);
	snprintf(name, sizeof(name), "%s.raw", path);
	raw = q_file_read(name, (size_t)BLOCKS * BLOCK);
	unlink(name);
	for (uint32_t i = 0; i < SECTORS; i++)
		wrong += !settle(l, raw, i);
	CU_ASSERT_EQUAL(wrong, 0);
	free(raw);
}

static void kill_some(const char *options)
{
	struct ledger *l =
		mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char path[128];

	CU_ASSERT_FATAL(l != MAP_FAILED);
	rig_path(path, "killed.qcow2");
	Q_RUN("qemu-img create -f qcow2 %s %s 16M", options, path);
	l->state = 7;
	for (int i = 0; i < KILLS; i++) {
		uint64_t before = l->flushes, more = 1 + q_random(&l->state) % 6;
		time_t start = time(NULL);
		int status;
		pid_t pid;

		fflush(NULL);
		pid = fork();
		if (pid == 0) {
			alarm(60);
			_exit(writer(l, path));
		}
		/* In the middle: so many flushes later, and then a little. */
		while (l->flushes < before + more && !rig_late(start) &&
			waitpid(pid, &status, WNOHANG) == 0)
			usleep(300);
		CU_ASSERT(l->flushes >= before + more);
		usleep((unsigned)(q_random(&l->state) % 3000));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		judge(l, path);
	}
	unlink(path);
	munmap(l, sizeof(*l));
	q_log_remove();
}

static void killed_64k(void)
{
	if (q_tools())
		kill_some("-o cluster_size=64k");
}

static void killed_512(void)
{
	if (q_tools())
		kill_some("-o cluster_size=512");
}

static void killed_v2(void)
{
	if (q_tools())
		kill_some("-o cluster_size=4k,compat=0.10");
}

int main(void)
{
	static const struct unit_case cases[] = {
		{"killed, clusters of 64 KiB", killed_64k},
		{"killed, clusters of 512 bytes", killed_512},
		{"killed, version 2", killed_v2},
	};

	return unit_main("qcow2 killed", cases, sizeof(cases) / sizeof(cases[0]));
}
