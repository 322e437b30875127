/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The plug is pulled: of what was written to the file and not synced since, any sectors may be
 * there and any may not. Every write to the file and every sync is recorded here, instead of in the
 * C library; then the file is made as a crash at any moment could have left it, with a random
 * choice. It must be whole but for leaked clusters, and hold what the guest had flushed.
 */
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/unit/test_qcow2_rig.h"

#define SECTORS    4096u
#define DEPTH      8
#define LOG_MAX    65536u
#define OPERATIONS 700u
#define CRASHES    20

enum event_kind { EVENT_WRITE, EVENT_PUNCH, EVENT_SYNC, EVENT_ISSUE, EVENT_FLUSHED };

struct event {
	enum event_kind kind;
	uint64_t offset, length;
	uint32_t value;  /* sync: what came before this event is stable; issue: the version */
	uint8_t *data;   /* of a write */
	uint32_t *lower; /* flushed: the versions that are safe */
};

static struct event events[LOG_MAX];
static uint32_t nevents;
static bool recording;
static pthread_mutex_t events_lock = PTHREAD_MUTEX_INITIALIZER;

/* Takes over what it points at. */
static void record(struct event *e)
{
	pthread_mutex_lock(&events_lock);
	if (recording && nevents < LOG_MAX) {
		events[nevents++] = *e;
	} else {
		free(e->data);
		free(e->lower);
	}
	pthread_mutex_unlock(&events_lock);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	ssize_t done = syscall(SYS_pwritev, fd, iov, n, offset, 0);
	struct event e = {.kind = EVENT_WRITE, .offset = (uint64_t)offset};
	size_t at = 0;

	if (done <= 0 || !recording)
		return done;
	e.length = (uint64_t)done;
	e.data = malloc((size_t)done);
	for (int i = 0; i < n && at < (size_t)done; i++) {
		size_t part =
			iov[i].iov_len < (size_t)done - at ? iov[i].iov_len : (size_t)done - at;

		memcpy(e.data + at, iov[i].iov_base, part);
		at += part;
	}
	record(&e);
	return done;
}

ssize_t pwrite(int fd, const void *from, size_t length, off_t offset)
{
	struct iovec iov = {(void *)(uintptr_t)from, length};

	return pwritev(fd, &iov, 1, offset);
}

int fdatasync(int fd)
{
	struct event e = {.kind = EVENT_SYNC};

	(void)fd;
	pthread_mutex_lock(&events_lock);
	e.value = nevents;
	pthread_mutex_unlock(&events_lock);
	/* Time for others to write something that this does not cover. */
	usleep(50);
	record(&e);
	return 0;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	int rc = (int)syscall(SYS_fallocate, fd, mode, offset, length);
	struct event e = {.kind = EVENT_PUNCH, .offset = (uint64_t)offset};

	e.length = (uint64_t)length;
	if (!rc)
		record(&e);
	return rc;
}

/* ------------------------------------------------------------------ the guest */

static uint32_t issued[SECTORS], completed[SECTORS];
static uint64_t state;

struct slot {
	struct blk_request req;
	struct iovec iov;
	uint32_t first, count, version;
	bool busy;
	uint8_t data[256 * BLK_SECTOR];
};

static struct slot slots[DEPTH];
static unsigned failed;

/* Every eighth version is zeroes. */
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

	failed += res != 0;
	/* A discard may have left things as they were. */
	for (uint32_t i = 0; i < s->count && req->op != BLK_DISCARD; i++)
		completed[s->first + i] = s->version;
	s->busy = false;
}

static void slot_wait(struct rig *r, const struct slot *s)
{
	time_t start = time(NULL);

	blk_kick(r->ch);
	while (s->busy && !rig_late(start)) {
		rig_pump(r, true);
		blk_kick(r->ch);
	}
	failed += s->busy;
}

static void slot_start(struct rig *r, struct slot *s)
{
	uint32_t most = q_random(&state) % 4 ? 16 : 256, kind = (uint32_t)(q_random(&state) % 8);
	struct event e = {.kind = EVENT_ISSUE};

	s->count = (uint32_t)(q_random(&state) % most) + 1;
	s->first = (uint32_t)(q_random(&state) % (SECTORS - s->count));
	for (int i = 0; i < DEPTH; i++)
		if (slots[i].busy && s->first < slots[i].first + slots[i].count &&
			slots[i].first < s->first + s->count)
			return;
	s->version = 0;
	for (uint32_t i = 0; i < s->count; i++)
		if (issued[s->first + i] >= s->version)
			s->version = issued[s->first + i] + 1;
	if (kind < 2)
		s->version = (s->version + 7) & ~7u;
	else if (s->version % 8 == 0)
		s->version++;
	for (uint32_t i = 0; i < s->count; i++) {
		content(s->data + i * BLK_SECTOR, s->first + i, s->version);
		issued[s->first + i] = s->version;
	}
	e.offset = s->first;
	e.length = s->count;
	e.value = s->version;
	record(&e);
	s->iov = (struct iovec){s->data, s->count * BLK_SECTOR};
	s->req = (struct blk_request){.op = kind == 0   ? BLK_DISCARD
					    : kind == 1 ? BLK_WRITE_ZEROES
							: BLK_WRITE,
		.unmap = s->first & 1,
		.offset = (uint64_t)s->first * BLK_SECTOR,
		.length = (uint64_t)s->count * BLK_SECTOR,
		.iov = &s->iov,
		.niov = 1,
		.done = slot_done,
		.owner = s};
	s->busy = true;
	blk_submit(r->ch, &s->req);
}

static void flush(struct rig *r)
{
	struct event e = {.kind = EVENT_FLUSHED};

	/* What is completed now, although more is in flight. */
	e.lower = malloc(sizeof(completed));
	memcpy(e.lower, completed, sizeof(completed));
	failed += rig_do(r, BLK_FLUSH, 0, NULL, 0) != 0;
	record(&e);
}

static void guest_run(struct rig *r)
{
	for (unsigned n = 0; n < OPERATIONS && !failed; n++) {
		struct slot *s = &slots[n % DEPTH];

		if (s->busy)
			slot_wait(r, s);
		slot_start(r, s);
		if (n % 3 == 0)
			blk_kick(r->ch);
		if (n % 29 == 28)
			flush(r);
	}
	for (int i = 0; i < DEPTH; i++)
		if (slots[i].busy)
			slot_wait(r, &slots[i]);
}

/* ------------------------------------------------------------------ the crash */

/* The file as a crash after the first `end` events may have left it. */
static void crash_make(const char *from, const char *to, uint32_t end)
{
	uint32_t stable = 0;
	uint8_t zeroes[BLK_SECTOR] = {0};
	int fd;

	Q_RUN("cp --sparse=always %s %s", from, to);
	fd = open(to, O_RDWR | O_CLOEXEC);
	CU_ASSERT_FATAL(fd >= 0);
	for (uint32_t i = 0; i < end; i++)
		if (events[i].kind == EVENT_SYNC && events[i].value > stable)
			stable = events[i].value;
	for (uint32_t i = 0; i < end; i++) {
		const struct event *e = &events[i];
		bool punch = e->kind == EVENT_PUNCH && (i < stable || q_random(&state) & 1);
		uint64_t odds = q_random(&state) % 4;

		if (e->kind != EVENT_WRITE && !punch)
			continue;
		for (uint64_t at = 0; at < e->length;) {
			uint64_t n = BLK_SECTOR - (e->offset + at) % BLK_SECTOR;

			n = n < e->length - at ? n : e->length - at;
			if (i < stable || punch || q_random(&state) % 4 < odds)
				syscall(SYS_pwrite64, fd, punch ? zeroes : e->data + at, n,
					e->offset + at);
			at += n;
		}
	}
	close(fd);
}

static void crash_judge(const char *path, uint32_t end)
{
	static uint32_t upper[SECTORS], lower[SECTORS];
	uint8_t want[BLK_SECTOR], *raw;
	unsigned wrong = 0;
	char name[160];

	memset(upper, 0, sizeof(upper));
	memset(lower, 0, sizeof(lower));
	for (uint32_t i = 0; i < end; i++) {
		const struct event *e = &events[i];

		for (uint64_t s = 0; e->kind == EVENT_ISSUE && s < e->length; s++)
			upper[e->offset + s] = e->value;
		if (e->kind == EVENT_FLUSHED)
			memcpy(lower, e->lower, sizeof(lower));
	}
	q_check(path, true);
	snprintf(name, sizeof(name), "%s.raw", path);
	Q_RUN("qemu-img convert -f qcow2 -O raw %s %s", path, name);
	raw = q_file_read(name, SECTORS * BLK_SECTOR);
	for (uint32_t s = 0; s < SECTORS; s++) {
		bool found = false;

		for (uint32_t v = lower[s]; v <= upper[s] && !found; v++) {
			content(want, s, v);
			found = memcmp(want, raw + (size_t)s * BLK_SECTOR, BLK_SECTOR) == 0;
		}
		wrong += !found;
	}
	CU_ASSERT_EQUAL(wrong, 0);
	free(raw);
	unlink(name);
}

static void events_free(void)
{
	for (uint32_t i = 0; i < nevents; i++) {
		free(events[i].data);
		free(events[i].lower);
	}
	nevents = 0;
}

static void pulled(const char *options, bool snapshot)
{
	struct rig_config config = {.engine = BLK_ENGINE_THREADS, .direct = BLK_DIRECT_OFF};
	struct rig r = {.path = ""};
	char path[128], before[140], after[140];

	if (!q_tools())
		return;
	rig_path(path, "plug.qcow2");
	snprintf(before, sizeof(before), "%s.before", path);
	snprintf(after, sizeof(after), "%s.after", path);
	Q_RUN("qemu-img create -f qcow2 %s %s 2M", options, path);
	if (snapshot)
		Q_RUN("qemu-io -f qcow2 -c 'write -z 0 1M' -c 'write -P 0 1M 1M' %s && "
		      "qemu-img snapshot -c one %s",
			path, path);
	Q_RUN("cp %s %s", path, before);
	memset(issued, 0, sizeof(issued));
	memset(completed, 0, sizeof(completed));
	memset(slots, 0, sizeof(slots));
	state = 12345;
	failed = 0;
	recording = true;
	CU_ASSERT_EQUAL_FATAL(rig_open_path(&r, &config, path, -1), 0);
	guest_run(&r);
	rig_close(&r);
	recording = false;
	CU_ASSERT_EQUAL(failed, 0);
	CU_ASSERT(nevents > OPERATIONS && nevents < LOG_MAX);
	for (int i = 0; i < CRASHES; i++) {
		uint32_t end = (uint32_t)(q_random(&state) % nevents) + 1;

		crash_make(before, after, end);
		crash_judge(after, end);
	}
	events_free();
	unlink(path);
	unlink(before);
	unlink(after);
	q_log_remove();
}

static void pulled_4k(void)
{
	pulled("-o cluster_size=4k", false);
}

static void pulled_512(void)
{
	pulled("-o cluster_size=512", false);
}

static void pulled_64k(void)
{
	pulled("-o cluster_size=64k", false);
}

static void pulled_v2(void)
{
	pulled("-o cluster_size=1k,compat=0.10", false);
}

static void pulled_snapshot(void)
{
	pulled("-o cluster_size=2k", true);
}

int main(void)
{
	static const struct unit_case cases[] = {
		{"clusters of 4 KiB", pulled_4k},
		{"clusters of 512 bytes", pulled_512},
		{"clusters of 64 KiB", pulled_64k},
		{"version 2", pulled_v2},
		{"with a snapshot", pulled_snapshot},
	};

	return unit_main("qcow2 plug pulled", cases, sizeof(cases) / sizeof(cases[0]));
}
