/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A back-end that dies at every single instruction. A child process serves a queue; its I/O thread
 * is stepped one instruction at a time, and each time shared memory has changed, that is a moment
 * at which it could have died: what a successor would find. For each such moment a successor is
 * made, and the driver must see every request completed once, none twice, none missing.
 */
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "tests/unit/test_split_blk_rig.h"

#define QUEUE     32u /* the largest */
#define REQUESTS  7u
#define FIRST     3u /* of them: the others are added when these have been completed */
#define RAM_BYTES (32u << 10)
#define MOMENTS   4000u
#define STEPS_MAX 3000000u

/* Rings, requests and the region of what is in flight, all of it in one shared mapping. */
struct memory {
	uint8_t ram[RAM_BYTES];
	uint8_t region[4096];
};

struct shared {
	struct memory m;
	pid_t tid;
	atomic_bool go;
};

struct world {
	struct shared *s;
	struct ring_mem mem;
	struct ring_driver drv;
	struct ring_driver_slot slots[QUEUE];
	struct before {
		struct ring_driver drv;
		struct ring_driver_slot slots[QUEUE];
	} before[2];
	struct split_queue_config cfg;
	enum ring_layout layout;
	uint16_t position;
	uint32_t size;
	int disk, doorbell;
};

/* Of a request: header, one sector, status. */
static uint64_t place(unsigned request)
{
	return RIG_GPA + (16u << 10) + request * 1024u;
}

static void driver_make(struct world *w)
{
	struct ring_geometry g;
	struct ring_driver_config c = {.layout = w->layout,
		.features = {.indirect = true, .event_idx = false},
		.size = w->size,
		.slots = w->slots,
		.indirect_max = 4};

	ring_geometry_get(w->layout, w->size, &g);
	w->cfg = (struct split_queue_config){.size = w->size,
		.desc_gpa = RIG_GPA + g.desc,
		.driver_gpa = RIG_GPA + g.driver,
		.device_gpa = RIG_GPA + g.device,
		.doorbell_fd = w->doorbell,
		.restore = true,
		.state = {w->position, w->position},
		.inflight = w->s->m.region,
		.inflight_bytes = sizeof(w->s->m.region)};
	c.desc = w->s->m.ram + g.desc;
	c.driver = w->s->m.ram + g.driver;
	c.device = w->s->m.ram + g.device;
	c.indirect = w->s->m.ram + 8192;
	c.indirect_gpa = RIG_GPA + 8192;
	CU_ASSERT_EQUAL_FATAL(ring_driver_init(&w->drv, &c), 0);
	CU_ASSERT_EQUAL_FATAL(ring_driver_position_set(&w->drv, w->position), 0);
}

/* Reads and writes, in one descriptor each (a table) or in several. */
static void request_add(struct world *w, unsigned i, bool direct)
{
	uint8_t *h = w->s->m.ram + (place(i) - RIG_GPA);
	const uint32_t type = i % 2 ? T_OUT : T_IN;
	const uint64_t sector = i;
	struct ring_sg sg[3] = {{place(i), 16}, {place(i) + 16, 512}, {place(i) + 528, 1}};

	memcpy(h, &type, 4);
	memcpy(h + 8, &sector, 8);
	memset(h + 16, i % 2 ? 0x40 + (int)i : 0, 512);
	h[528] = STATUS_NONE;
	w->drv.cfg.features.indirect = !direct;
	CU_ASSERT_EQUAL_FATAL(ring_driver_add(&w->drv, sg, i % 2 ? 2 : 1, i % 2 ? 1 : 2, i), 0);
	w->drv.cfg.features.indirect = true;
}

/* The driver looks by itself. */
static void signal_nobody(void *ctx, unsigned q)
{
	(void)ctx;
	(void)q;
}

static void signal_broken(void *ctx)
{
	(void)ctx;
	CU_FAIL("broken");
}

static struct split_device *device_make(
	struct world *w, struct io_thread *io, struct blk_image *image)
{
	static const struct split_signal signal = {.queue = signal_nobody, .broken = signal_broken};
	struct split_blk_options o = {.image = image,
		.queues = 1,
		.queue_size = QUEUE,
		.ring = w->layout == RING_PACKED ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT,
		.no_event_idx = true};
	struct split_device *d = NULL;
	char why[BACKEND_WHY_MAX];

	if (split_blk_create(&d, io, &w->mem, &signal, &o, why) ||
		split_features_set(d, d->features))
		return NULL;
	return d;
}

/* ------------------------------------------------------------------ the one that dies */

static void tid_get(void *ctx)
{
	*(pid_t *)ctx = (pid_t)syscall(SYS_gettid);
}

/* Polls all the time, so that nothing but its I/O thread is needed once it was told to go. */
static void child(struct world *w)
{
	struct io_thread_options io_options = {
		.name = "io", .poll_max_us = 60000000, .no_uring = true};
	struct blk_options o = {.fd = w->disk, .engine = BLK_ENGINE_THREADS};
	struct blk_image *image = NULL;
	struct io_thread *io = NULL;
	struct split_device *d;
	char why[BACKEND_WHY_MAX];
	pid_t tid = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (blk_open(&image, &o, why) || io_thread_create(&io, &io_options, why))
		_exit(1);
	d = device_make(w, io, image);
	if (!d || split_queue_start(d, 0, &w->cfg))
		_exit(2);
	io_thread_call(io, tid_get, &tid);
	w->s->tid = tid;
	atomic_store(&w->s->go, true);
	for (;;)
		pause();
}

static bool step(pid_t tid)
{
	int status;

	return !ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL) &&
	       waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status);
}

static unsigned completed(const struct world *w)
{
	struct ring_driver drv = w->drv;
	struct ring_driver_slot slots[QUEUE];
	struct ring_done done[QUEUE];
	int n;

	memcpy(slots, w->slots, sizeof(slots));
	drv.cfg.slots = slots;
	n = ring_driver_collect(&drv, done, QUEUE);
	return n < 0 ? UINT32_MAX : (unsigned)n;
}

/* The moments from now until all requests are completed and recorded as such. */
static unsigned moments_take(struct world *w, struct memory *moments, unsigned first, unsigned all)
{
	unsigned n = first, quiet = 0;
	const uint64_t one = 1;

	for (unsigned i = 0; i < STEPS_MAX && n < MOMENTS; i++) {
		/* it must not fall asleep: a step into that would not end */
		if (i % 8 == 0 && write(w->cfg.doorbell_fd, &one, sizeof(one)) < 0)
			CU_FAIL("doorbell");
		if (!step(w->s->tid))
			break;
		if (n == first || memcmp(&moments[n - 1], &w->s->m, sizeof(struct memory)) != 0) {
			moments[n++] = w->s->m;
			quiet = 0;
		} else if (++quiet > 3000 && completed(w) == all) {
			break;
		}
	}
	return n;
}

/* ------------------------------------------------------------------ the successor */

struct seen {
	unsigned again, most_again;
};

/* What is added in one of the two parts. */
static void part_add(struct world *w, unsigned part, bool direct)
{
	for (unsigned i = part ? FIRST : 0; i < (part ? REQUESTS : FIRST); i++)
		request_add(w, i, direct);
	ring_driver_publish(&w->drv);
	w->before[part].drv = w->drv;
	memcpy(w->before[part].slots, w->slots, sizeof(w->slots));
}

static void collect_all(struct world *w, unsigned *count, unsigned want)
{
	uint64_t end_ns = clock_now_ns() + RIG_WAIT_MS * 1000000ull;
	struct ring_done done[QUEUE];

	while (want && clock_now_ns() < end_ns) {
		int n = ring_driver_collect(&w->drv, done, QUEUE);

		CU_ASSERT_FATAL(n >= 0 && (unsigned)n <= want);
		for (int i = 0; i < n; i++)
			count[done[i].token]++;
		want -= (unsigned)n;
		if (!n)
			sched_yield();
	}
	CU_ASSERT_EQUAL_FATAL(want, 0);
}

static void successor(struct world *w, struct io_thread *io, struct blk_image *image,
	const struct memory *moment, unsigned part, struct seen *seen)
{
	const unsigned from = part ? FIRST : 0, to = part ? REQUESTS : FIRST;
	const uint64_t one = 1;
	unsigned count[REQUESTS] = {0}, again;
	struct ring_done done[QUEUE];
	struct split_device *d;

	w->s->m = *moment;
	w->drv = w->before[part].drv;
	memcpy(w->slots, w->before[part].slots, sizeof(w->slots));
	d = device_make(w, io, image);
	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	CU_ASSERT_EQUAL_FATAL(split_queue_start(d, 0, &w->cfg), 0);
	collect_all(w, count, to - from);
	/* and it goes on where it should */
	for (unsigned i = from; i < to; i++)
		request_add(w, i, false);
	ring_driver_publish(&w->drv);
	CU_ASSERT_EQUAL(write(w->cfg.doorbell_fd, &one, sizeof(one)), sizeof(one));
	collect_all(w, count, to - from);
	split_quiesce_wait(d);
	CU_ASSERT_EQUAL(ring_driver_collect(&w->drv, done, QUEUE), 0);
	for (unsigned i = from; i < to; i++) {
		CU_ASSERT_EQUAL(count[i], 2);
		CU_ASSERT_EQUAL(w->s->m.ram[place(i) - RIG_GPA + 528], 0);
	}
	again = (unsigned)counter_get(&d->resubmitted);
	seen->again += again;
	if (again > seen->most_again)
		seen->most_again = again;
	split_destroy(d);
}

/* ------------------------------------------------------------------ cases */

static void world_open(struct world *w, enum ring_layout layout, uint32_t size, uint16_t position)
{
	memset(w, 0, sizeof(*w));
	w->layout = layout;
	w->size = size;
	w->position = position;
	w->s = mmap(NULL, sizeof(*w->s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	w->disk = (int)syscall(SYS_memfd_create, "disk", 0);
	w->doorbell = eventfd(0, EFD_NONBLOCK);
	CU_ASSERT_FATAL(w->s != MAP_FAILED && w->disk >= 0 && w->doorbell >= 0);
	CU_ASSERT_EQUAL_FATAL(ftruncate(w->disk, 1 << 20), 0);
	CU_ASSERT_EQUAL_FATAL(ring_mem_add(&w->mem, RIG_GPA, RAM_BYTES, w->s->m.ram, false), 0);
	driver_make(w);
	ring_driver_interrupt_off(&w->drv);
}

/* There when the program was built to look for data races: its run-time is not one to be stepped.
 */
void __tsan_init(void) __attribute__((weak));

/* direct: three descriptors for each request in a ring of 32, else a table for each in one of 8,
 * which that nearly fills. */
static void die_everywhere(enum ring_layout layout, uint16_t position, bool direct)
{
	struct memory *moments = calloc(MOMENTS, sizeof(*moments));
	struct blk_options o = {.engine = BLK_ENGINE_THREADS};
	struct blk_image *image = NULL;
	struct io_thread *io;
	struct world w;
	struct seen seen = {0};
	char why[BLK_WHY_MAX];
	unsigned n = 0, first = 0, count[REQUESTS];
	int status;
	pid_t pid;

	if (__tsan_init) {
		unit_skip("not under the thread sanitizer");
		free(moments);
		return;
	}
	world_open(&w, layout, direct ? QUEUE : 8, position);
	pid = fork();
	if (!pid)
		child(&w);
	while (!atomic_load(&w.s->go)) {
		CU_ASSERT_EQUAL_FATAL(waitpid(pid, &status, WNOHANG), 0);
		sched_yield();
	}
	if (ptrace(PTRACE_SEIZE, w.s->tid, NULL, NULL) < 0) {
		unit_skip("processes cannot be traced here");
		goto out;
	}
	CU_ASSERT_EQUAL(ptrace(PTRACE_INTERRUPT, w.s->tid, NULL, NULL), 0);
	CU_ASSERT_EQUAL(waitpid(w.s->tid, &status, __WALL), w.s->tid);
	part_add(&w, 0, direct);
	first = moments_take(&w, moments, 0, FIRST);
	CU_ASSERT_EQUAL(completed(&w), FIRST);
	memset(count, 0, sizeof(count));
	collect_all(&w, count, FIRST);
	part_add(&w, 1, direct);
	n = moments_take(&w, moments, first, REQUESTS - FIRST);
	CU_ASSERT_FATAL(first > 10 && n > first + 10 && n < MOMENTS);
	CU_ASSERT_EQUAL(completed(&w), REQUESTS - FIRST);
out:
	kill(pid, SIGKILL);
	while (waitpid(w.s->tid, &status, __WALL) == w.s->tid && WIFSTOPPED(status))
		;
	waitpid(pid, &status, 0);
	/* the kernel's account of who holds the image ends with the process */
	o.fd = dup(w.disk);
	CU_ASSERT_EQUAL_FATAL(blk_open(&image, &o, why), 0);
	io = rig_io(true, 100);
	for (unsigned i = 0; i < n; i++)
		successor(&w, io, image, &moments[i], i >= first, &seen);
	printf(" %u moments, %u requests done again, at most %u ", n, seen.again, seen.most_again);
	if (n) {
		CU_ASSERT(seen.again > REQUESTS);
		CU_ASSERT_EQUAL(seen.most_again, REQUESTS - FIRST);
	}
	io_thread_destroy(io);
	blk_close(image);
	close(w.disk);
	close(w.doorbell);
	munmap(w.s, sizeof(*w.s));
	free(moments);
}

static void test_split(void)
{
	die_everywhere(RING_SPLIT, 0, false);
}

static void test_split_wrap(void)
{
	die_everywhere(RING_SPLIT, 65533, false);
}

static void test_packed(void)
{
	die_everywhere(RING_PACKED, 0x8000, false);
}

static void test_packed_wrap(void)
{
	die_everywhere(RING_PACKED, 0x8000 | 5, false);
}

static void test_split_chains(void)
{
	die_everywhere(RING_SPLIT, 7, true);
}

static void test_packed_chains(void)
{
	die_everywhere(RING_PACKED, 0x8000 | 20, true);
}

static const struct unit_case cases[] = {
	{"split: dead at every instruction", test_split},
	{"split: where the index wraps", test_split_wrap},
	{"packed: dead at every instruction", test_packed},
	{"packed: where the ring wraps", test_packed_wrap},
	{"split: chains of several descriptors", test_split_chains},
	{"packed: the same, across the end of the ring", test_packed_chains},
};

UNIT_MAIN("inflight", cases)
