/* SPDX-License-Identifier: BSD-2-Clause */
/* Machines that run: exits, ends, pause, save and load, counters, and what a bad configuration
 * says. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "tests/unit/test_machine_rig.h"

/* ------------------------------------------------------------------ guests */

GUEST_CODE(hello,
	"mov $0x3f8, %dx\n"
	"mov $text_hello - hello_begin + 0x20000, %esi\n"
	"mov $6, %ecx\n"
	"1: lodsb\n out %al, %dx\n loop 1b\n" GUEST_POWEROFF "text_hello: .ascii \"hello\\n\"");

GUEST_CODE(string_io, "mov $0x3f8, %dx\n"
		      "mov $text_string - string_io_begin + 0x20000, %esi\n"
		      "mov $7, %ecx\n"
		      "cld\n rep outsb\n"
		      "mov $0x5e0, %dx\n mov $0x30000, %edi\n mov $3, %ecx\n rep insl\n"
		      "mov $0x30000, %esi\n mov $3, %ecx\n rep outsl\n" GUEST_POWEROFF
		      "text_string: .ascii \"string\\n\"");

/* The way to end is the first byte of the command line (start info's cmdline is at 24). */
GUEST_CODE(ends, "mov 24(%ebx), %esi\n"
		 "mov (%esi), %al\n"
		 "cmp $'c', %al\n je 1f\n"
		 "cmp $'k', %al\n je 2f\n"
		 "cmp $'a', %al\n je 3f\n"
		 "cmp $'t', %al\n je 4f\n"
		 "cmp $'x', %al\n je 5f\n" GUEST_POWEROFF
		 "1: mov $0xcf9, %dx\n mov $6, %al\n out %al, %dx\n jmp 9b\n"
		 "2: mov $0xfe, %al\n out %al, $0x64\n jmp 9b\n"
		 "3: mov $1, %al\n out %al, $0x92\n jmp 9b\n"
		 "4: lidt (%esp)\n ud2\n jmp 9b\n"
		 "5: mov $0xd0000000, %eax\n jmp *%eax\n");

GUEST_CODE(spin, "1: jmp 1b\n");

GUEST_CODE(sleeper, "cli\n 1: hlt\n jmp 1b\n");

/* Counts in memory and tells each number: 1 .. 2000. */
GUEST_CODE(counter, "movl $0, 0x30000\n"
		    "mov $0x5e0, %dx\n"
		    "1: incl 0x30000\n"
		    "mov 0x30000, %eax\n"
		    "out %eax, %dx\n"
		    "cmp $2000, %eax\n jne 1b\n" GUEST_POWEROFF);

/* The same without an end. */
GUEST_CODE(endless, "movl $0, 0x30000\n"
		    "mov $0x5e0, %dx\n"
		    "1: incl 0x30000\n"
		    "mov 0x30000, %eax\n"
		    "out %eax, %dx\n"
		    "jmp 1b\n");

/* Writes to registers that KVM may keep back, then reads one: every write must be there first. */
GUEST_CODE(posted, "mov $0x1f6, %dx\n mov $0xa0, %al\n out %al, %dx\n"
		   "mov $1, %ebx\n"
		   "1: mov $0x1f2, %dx\n mov %bl, %al\n out %al, %dx\n"
		   "mov $0x1f3, %dx\n not %al\n out %al, %dx\n"
		   "mov $0x1f4, %dx\n out %al, %dx\n"
		   "mov $0x1f2, %dx\n in %dx, %al\n shl $8, %eax\n"
		   "mov $0x1f3, %dx\n in %dx, %al\n"
		   "movzx %ax, %eax\n"
		   "mov $0x5e0, %dx\n out %eax, %dx\n"
		   "inc %ebx\n cmp $201, %ebx\n jne 1b\n" GUEST_POWEROFF);

/* Starts every other processor by INIT and SIPI; each adds one, in real mode, at 0x30000. */
GUEST_CODE(smp,
	"mov $ap_code - smp_begin + 0x20000, %esi\n"
	"mov $0x8000, %edi\n mov $ap_code_end - ap_code, %ecx\n cld\n rep movsb\n"
	"movl $0, 0x30000\n"
	"movl $0x1ff, 0xfee000f0\n"
	"movl $0xc4500, 0xfee00300\n"
	"mov $20000, %ecx\n 1: loop 1b\n"
	"movl $0xc4608, 0xfee00300\n"
	"2: pause\n cmpl $3, 0x30000\n jne 2b\n"
	"mov $0x5e0, %dx\n mov 0x30000, %eax\n out %eax, %dx\n" GUEST_POWEROFF
	"ap_code: .code16\n mov $0x3000, %ax\n mov %ax, %ds\n lock incw 0\n 3: cli\n hlt\n jmp 3b\n"
	"ap_code_end: .code32\n");

/* ------------------------------------------------------------------ running */

static void test_hello(void)
{
	struct machine_counters c;
	struct guest g;

	if (guest_kvm_missing())
		return;
	guest_init(&g, hello_begin, hello_end);
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(g.nout, 6);
	CU_ASSERT_EQUAL(memcmp(g.out, "hello\n", 6), 0);
	machine_counters_get(g.m, &c);
	CU_ASSERT_EQUAL(c.vcpu.exits_io, 7);
	CU_ASSERT_EQUAL(c.vcpu.exits,
		c.vcpu.exits_io + c.vcpu.exits_mmio + c.vcpu.exits_signal + c.vcpu.exits_other);
	CU_ASSERT_TRUE(c.vcpu.system_calls >= c.vcpu.exits);
	CU_ASSERT_TRUE(c.vcpu.cpu_ns > 0);
	/* ended is ended */
	CU_ASSERT_EQUAL(machine_wait(g.m, 0), MACHINE_POWEROFF);
	guest_destroy(&g);
}

static void test_string_io(void)
{
	struct guest g;

	if (guest_kvm_missing())
		return;
	guest_init(&g, string_io_begin, string_io_end);
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(g.nout, 7);
	CU_ASSERT_EQUAL(memcmp(g.out, "string\n", 7), 0);
	CU_ASSERT_EQUAL(g.nwords, 3);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(g.words[i], 0x600d0000);
	guest_destroy(&g);
}

static enum machine_end end_of(const char *how, char failure[VMM_WHY_MAX])
{
	enum machine_end end;
	struct guest g;

	guest_init(&g, ends_begin, ends_end);
	g.cfg.cmdline = how;
	if (!guest_create(&g) || !guest_start(&g))
		return MACHINE_RUNNING;
	end = machine_wait(g.m, GUEST_TIMEOUT);
	snprintf(failure, VMM_WHY_MAX, "%s", machine_failure(g.m));
	guest_destroy(&g);
	return end;
}

static void test_ends(void)
{
	char failure[VMM_WHY_MAX];

	if (guest_kvm_missing())
		return;
	CU_ASSERT_EQUAL(end_of("poweroff", failure), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(end_of("cf9", failure), MACHINE_RESET);
	CU_ASSERT_EQUAL(end_of("keyboard", failure), MACHINE_RESET);
	CU_ASSERT_EQUAL(end_of("a", failure), MACHINE_RESET);
	CU_ASSERT_EQUAL(end_of("triple", failure), MACHINE_TRIPLE_FAULT);
	CU_ASSERT_STRING_EQUAL(failure, "");
	/* instructions from where there is no memory */
	CU_ASSERT_EQUAL(end_of("x", failure), MACHINE_FAILED);
	CU_ASSERT_PTR_NOT_NULL(strstr(failure, "rip 0xd0000000"));
	CU_ASSERT_PTR_NULL(strchr(failure, '\n'));
}

static void *stopper(void *arg)
{
	usleep(20000);
	machine_stop(arg);
	return NULL;
}

static void stop_guest(const uint8_t *begin, const uint8_t *end, unsigned cpus)
{
	pthread_t thread;
	struct guest g;

	guest_init(&g, begin, end);
	g.cfg.cpus = cpus;
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	CU_ASSERT_EQUAL(machine_wait(g.m, 1), MACHINE_RUNNING);
	CU_ASSERT_EQUAL(pthread_create(&thread, NULL, stopper, g.m), 0);
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_STOPPED);
	pthread_join(thread, NULL);
	guest_destroy(&g);
}

static void test_stop(void)
{
	if (guest_kvm_missing())
		return;
	stop_guest(spin_begin, spin_end, 1);
	stop_guest(spin_begin, spin_end, 4);
	stop_guest(sleeper_begin, sleeper_end, 2);
}

static void test_destroy_running(void)
{
	struct guest g;

	if (guest_kvm_missing())
		return;
	guest_init(&g, spin_begin, spin_end);
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	guest_destroy(&g);
	/* and one that never ran, and one that is paused */
	guest_init(&g, spin_begin, spin_end);
	CU_ASSERT_FATAL(guest_create(&g));
	guest_destroy(&g);
	guest_init(&g, spin_begin, spin_end);
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	CU_ASSERT_EQUAL(machine_pause(g.m), 0);
	guest_destroy(&g);
}

static void test_smp(void)
{
	struct guest g;

	if (guest_kvm_missing())
		return;
	guest_init(&g, smp_begin, smp_end);
	g.cfg.cpus = 4;
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(g.nwords, 1);
	CU_ASSERT_EQUAL(g.words[0], 3);
	guest_destroy(&g);
}

static void test_pause(void)
{
	struct guest g;
	unsigned seen;

	if (guest_kvm_missing())
		return;
	guest_init(&g, counter_begin, counter_end);
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	for (unsigned i = 0; i < 20; i++) {
		CU_ASSERT_EQUAL(machine_pause(g.m), 0);
		seen = g.nwords;
		usleep(2000);
		CU_ASSERT_EQUAL(g.nwords, seen);
		CU_ASSERT_EQUAL(machine_resume(g.m), 0);
	}
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(g.nwords, 2000);
	for (unsigned i = 0; i < 2000; i++)
		if (g.words[i] != i + 1)
			CU_FAIL("a number is missing");
	guest_destroy(&g);
}

static void test_stop_while_paused(void)
{
	struct guest g;

	if (guest_kvm_missing())
		return;
	guest_init(&g, spin_begin, spin_end);
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	CU_ASSERT_EQUAL(machine_pause(g.m), 0);
	machine_stop(g.m);
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_STOPPED);
	guest_destroy(&g);
}

static void test_reset(void)
{
	char why[VMM_WHY_MAX];
	struct guest g;

	if (guest_kvm_missing())
		return;
	guest_init(&g, counter_begin, counter_end);
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	CU_ASSERT_EQUAL(machine_reset(g.m, why), -EBUSY);
	/* an ended one starts again */
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(machine_reset(g.m, why), 0);
	CU_ASSERT_EQUAL(machine_wait(g.m, 0), MACHINE_RUNNING);
	CU_ASSERT_TRUE(guest_start(&g));
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(g.nwords, 4000);
	CU_ASSERT_EQUAL(g.words[2000], 1);
	guest_destroy(&g);
	/* a paused one begins anew */
	guest_init(&g, endless_begin, endless_end);
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g) && guest_words_wait(&g, 50));
	CU_ASSERT_EQUAL(machine_pause(g.m), 0);
	CU_ASSERT_EQUAL(machine_reset(g.m, why), 0);
	g.nwords = 0;
	CU_ASSERT_EQUAL(machine_resume(g.m), 0);
	CU_ASSERT_TRUE(guest_words_wait(&g, 50));
	for (unsigned i = 0; i < 50; i++)
		CU_ASSERT_EQUAL(g.words[i], i + 1);
	guest_destroy(&g);
}

static void memory_copy(struct machine *to, struct machine *from)
{
	const struct ring_mem *a = machine_memory(to), *b = machine_memory(from);

	for (unsigned i = 0; i < b->nregions; i++)
		memcpy(a->regions[i].hva, b->regions[i].hva, b->regions[i].size);
}

/* Saved in mid-work, goes on in a fresh machine as if nothing had been. */
static void test_save_running(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];
	struct guest a, b;
	unsigned at;

	if (guest_kvm_missing())
		return;
	guest_init(&a, endless_begin, endless_end);
	a.cfg.cpus = 2;
	CU_ASSERT_FATAL(guest_create(&a) && guest_start(&a) && guest_words_wait(&a, 100));
	CU_ASSERT_EQUAL(machine_save(a.m, &w), -EBUSY);
	CU_ASSERT_EQUAL(machine_pause(a.m), 0);
	at = a.nwords;
	CU_ASSERT_EQUAL_FATAL(machine_save(a.m, &w), 0);
	guest_init(&b, endless_begin, endless_end);
	b.cfg.cpus = 2;
	CU_ASSERT_FATAL(guest_create(&b));
	memory_copy(b.m, a.m);
	guest_destroy(&a);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL_FATAL(machine_load(b.m, &r, why), 0);
	CU_ASSERT_EQUAL(r.pos, r.len);
	CU_ASSERT_TRUE(guest_start(&b) && guest_words_wait(&b, 200));
	for (unsigned i = 0; i < 200; i++)
		CU_ASSERT_EQUAL(b.words[i], at + 1 + i);
	guest_destroy(&b);
	state_writer_free(&w);
}

static void test_posted(void)
{
	static char path[64];
	struct machine_counters c;
	struct guest g;
	int image;

	if (guest_kvm_missing())
		return;
	image = memfd_create("disk", MFD_CLOEXEC);
	CU_ASSERT_EQUAL(ftruncate(image, 1 << 20), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", image);
	guest_init(&g, posted_begin, posted_end);
	g.cfg.disks[0].path = path;
	g.cfg.disks[0].model = "ide";
	g.cfg.ndisks = 1;
	CU_ASSERT_FATAL(guest_create(&g) && guest_start(&g));
	CU_ASSERT_EQUAL(machine_wait(g.m, GUEST_TIMEOUT), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(g.nwords, 200);
	for (unsigned i = 0; i < 200; i++)
		CU_ASSERT_EQUAL(g.words[i], ((i + 1) << 8 | (~(i + 1) & 0xff)));
	machine_counters_get(g.m, &c);
	CU_ASSERT_TRUE(c.coalesced >= 600);
	guest_destroy(&g);
	close(image);
}

/* ------------------------------------------------------------------ without KVM */

static void config_no_kvm(struct machine_config *cfg)
{
	machine_config_init(cfg);
	cfg->no_kvm = true;
	cfg->memory = 16ull << 20;
}

static void test_no_kvm(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX];
	struct machine *m[3];

	config_no_kvm(&cfg);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL_FATAL(machine_create(&m[i], &cfg, why), 0);
	CU_ASSERT_EQUAL(machine_start(m[0], why), -ENOTSUP);
	CU_ASSERT_EQUAL(machine_memory(m[0])->regions[0].size, 16ull << 20);
	/* the first machine's end is not the others' */
	machine_port_write(m[0], 0x604, 0x2000, 2);
	CU_ASSERT_EQUAL(machine_wait(m[0], 0), MACHINE_POWEROFF);
	CU_ASSERT_EQUAL(machine_wait(m[1], 0), MACHINE_RUNNING);
	machine_port_write(m[1], 0xcf9, 0x06, 1);
	CU_ASSERT_EQUAL(machine_wait(m[1], 0), MACHINE_RESET);
	machine_port_write(m[2], 0xcf9, 0x02, 1);
	machine_port_write(m[2], 0xcf8, 0x80000006, 4);
	machine_port_write(m[2], 0x64, 0xd1, 1);
	CU_ASSERT_EQUAL(machine_wait(m[2], 0), MACHINE_RUNNING);
	CU_ASSERT_EQUAL(machine_port_read(m[2], 0x64, 1), 0x1c); /* nothing to read */
	CU_ASSERT_EQUAL(machine_port_read(m[2], 0x1234, 4), 0xffffffff);
	CU_ASSERT_EQUAL(machine_mmio_read(m[2], 0xd0000000, 8), UINT64_MAX);
	for (unsigned i = 0; i < 3; i++)
		machine_destroy(m[i]);
}

static void test_pm_timer(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX];
	struct machine *m;
	struct timespec t0, t1;
	uint32_t a, b;
	double s;

	config_no_kvm(&cfg);
	CU_ASSERT_EQUAL_FATAL(machine_create(&m, &cfg, why), 0);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	a = machine_port_read(m, 0x608, 4);
	usleep(50000);
	b = machine_port_read(m, 0x608, 4);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	s = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
	CU_ASSERT_EQUAL(a >> 24, 0);
	/* at least the sleep, at most what passed outside */
	CU_ASSERT_TRUE(((b - a) & 0xffffff) >= (uint32_t)(0.049 * 3579545));
	CU_ASSERT_TRUE(((b - a) & 0xffffff) <= (uint32_t)(s * 3579545) + 2);
	machine_destroy(m);
}

static void test_high_memory(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX];
	const struct ring_mem *mem;
	struct machine *m;

	config_no_kvm(&cfg);
	cfg.memory = 4ull << 30;
	if (machine_create(&m, &cfg, why) == -ENOMEM) {
		unit_skip(why);
		return;
	}
	mem = machine_memory(m);
	CU_ASSERT_EQUAL(mem->nregions, 2);
	CU_ASSERT_EQUAL(mem->regions[0].size, 3ull << 30);
	CU_ASSERT_EQUAL(mem->regions[1].gpa, 4ull << 30);
	CU_ASSERT_EQUAL(mem->regions[1].size, 1ull << 30);
	machine_destroy(m);
}

/* Back-ends are given the memory file: none of them may shorten it under the machine. */
static void test_sealed(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX], path[32], name[64];
	struct machine *m;
	unsigned found = 0;

	config_no_kvm(&cfg);
	CU_ASSERT_EQUAL_FATAL(machine_create(&m, &cfg, why), 0);
	for (int fd = 0; fd < 64; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, name, sizeof(name) - 1);
		name[n < 0 ? 0 : n] = '\0';
		if (!strstr(name, "memfd:sluice-memory"))
			continue;
		found++;
		CU_ASSERT(ftruncate(fd, 4096) < 0);
		CU_ASSERT(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0);
	}
	CU_ASSERT_EQUAL(found, 1);
	machine_destroy(m);
}

static void test_dirty(void)
{
	uint64_t bits[16ull * 1024 * 1024 / 4096 / 64];
	struct machine_config cfg;
	char why[VMM_WHY_MAX];
	struct machine *m;

	config_no_kvm(&cfg);
	CU_ASSERT_EQUAL_FATAL(machine_create(&m, &cfg, why), 0);
	CU_ASSERT_EQUAL(ring_mem_write(machine_memory(m), 0x5000, "x", 1), 0);
	CU_ASSERT_EQUAL(machine_dirty_log(m, true), 0);
	CU_ASSERT_EQUAL(ring_mem_write(machine_memory(m), 0x12fff, "xy", 2), 0);
	machine_dirty_fetch(m, bits, sizeof(bits) * 8);
	CU_ASSERT_EQUAL(bits[0], 3ull << 0x12);
	machine_dirty_fetch(m, bits, sizeof(bits) * 8);
	CU_ASSERT_EQUAL(bits[0], 0);
	CU_ASSERT_EQUAL(machine_dirty_log(m, false), 0);
	machine_destroy(m);
}

/* Loading the kernel marks its pages too. */
static void test_dirty_kernel(void)
{
	uint64_t bits[8ull * 1024 * 1024 / 4096 / 64];
	char why[VMM_WHY_MAX];
	struct guest g;

	guest_init(&g, hello_begin, hello_end);
	g.cfg.no_kvm = true;
	CU_ASSERT_FATAL(guest_create(&g));
	CU_ASSERT_EQUAL(machine_dirty_log(g.m, true), 0);
	CU_ASSERT_EQUAL(machine_reset(g.m, why), 0);
	machine_dirty_fetch(g.m, bits, sizeof(bits) * 8);
	CU_ASSERT_TRUE(bits[0] >> (GUEST_BASE >> 12) & 1);
	CU_ASSERT_TRUE(bits[0] >> 6 & 1);
	guest_destroy(&g);
}

/* ------------------------------------------------------------------ state */

/* The sections of a state but those that hold a running clock. */
static size_t state_without_clock(const struct state_writer *w, uint8_t *out)
{
	size_t at = 0, n = 0;

	while (at < w->len) {
		size_t name = w->data[at], len;
		uint32_t body;

		memcpy(&body, w->data + at + 1 + name + 4, sizeof(body));
		len = 1 + name + 8 + body;
		if (!(name == 2 && !memcmp(w->data + at + 1, "pm", 2)) &&
			!(name == 3 && !memcmp(w->data + at + 1, "rtc", 3))) {
			memcpy(out + n, w->data + at, len);
			n += len;
		}
		at += len;
	}
	return n;
}

static void test_save_idle(void)
{
	static uint8_t before[1 << 20], after[1 << 20];
	struct state_writer w = {0}, again = {0};
	struct machine_config cfg;
	struct state_reader r;
	char why[VMM_WHY_MAX];
	struct machine *a, *b;
	size_t n;

	config_no_kvm(&cfg);
	cfg.nets[0].memory = "sink";
	cfg.nets[1].memory = "sink";
	cfg.nets[1].model = "ne2k_pci";
	cfg.nets[2].memory = "echo";
	cfg.nets[2].model = "e1000";
	cfg.nnets = 3;
	CU_ASSERT_EQUAL_FATAL(machine_create(&a, &cfg, why), 0);
	CU_ASSERT_EQUAL_FATAL(machine_create(&b, &cfg, why), 0);
	/* something that differs from power-on: PCI's address register, a BAR, PIRQ, the serial
	 * port */
	machine_port_write(a, 0x3ff, 0x42, 1);
	machine_port_write(a, 0xcf8, 0x80000860, 4);
	machine_port_write(a, 0xcfc, 0x0b0a8005, 4);
	machine_port_write(a, 0xcf8, 0x80002014, 4);
	machine_port_write(a, 0xcfc, 0xd0000000, 4);
	CU_ASSERT_EQUAL_FATAL(machine_save(a, &w), 0);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL_FATAL(machine_load(b, &r, why), 0);
	CU_ASSERT_EQUAL(r.pos, r.len);
	CU_ASSERT_EQUAL(machine_port_read(b, 0xcf8, 4), 0x80002014);
	CU_ASSERT_EQUAL(machine_port_read(b, 0x3ff, 1), 0x42);
	CU_ASSERT_EQUAL_FATAL(machine_save(b, &again), 0);
	CU_ASSERT_TRUE_FATAL(w.len <= sizeof(before) && again.len == w.len);
	n = state_without_clock(&w, before);
	CU_ASSERT_EQUAL(state_without_clock(&again, after), n);
	CU_ASSERT_EQUAL(memcmp(before, after, n), 0);
	machine_destroy(a);
	machine_destroy(b);
	state_writer_free(&w);
	state_writer_free(&again);
}

/* A damaged state is refused, whatever byte it ends at or is changed in. */
static void test_load_damaged(void)
{
	struct state_writer w = {0};
	struct machine_config cfg;
	struct state_reader r;
	char why[VMM_WHY_MAX];
	struct machine *m;
	unsigned refused = 0;

	config_no_kvm(&cfg);
	cfg.nets[0].memory = "sink";
	cfg.nnets = 1;
	CU_ASSERT_EQUAL_FATAL(machine_create(&m, &cfg, why), 0);
	CU_ASSERT_EQUAL_FATAL(machine_save(m, &w), 0);
	for (size_t len = 0; len < w.len; len += 7) {
		state_reader_init(&r, w.data, len);
		why[0] = '\0';
		refused += machine_load(m, &r, why) < 0 && why[0];
	}
	CU_ASSERT_EQUAL(refused, (w.len + 6) / 7);
	for (size_t i = 0; i < w.len; i += 3) {
		w.data[i] ^= 0xff;
		state_reader_init(&r, w.data, w.len);
		machine_load(m, &r, why);
		w.data[i] ^= 0xff;
	}
	machine_destroy(m);
	state_writer_free(&w);
}

/* ------------------------------------------------------------------ bad configurations */

static void refused(const struct machine_config *cfg, int error, const char *expected)
{
	char why[VMM_WHY_MAX] = "";
	struct machine *m;
	int rc = machine_create(&m, cfg, why);

	if (rc != error || strcmp(why, expected))
		printf("\n  %d \"%s\"\n  not %d \"%s\"\n", rc, why, error, expected);
	CU_ASSERT_EQUAL(rc, error);
	CU_ASSERT_STRING_EQUAL(why, expected);
	CU_ASSERT_PTR_NULL(strchr(why, '\n'));
	CU_ASSERT_PTR_NULL(m);
	if (!rc)
		machine_destroy(m);
}

static void test_refused(void)
{
	static const char junk[] =
		"#!/bin/sh\necho this is no kernel; it is only long enough to be read\n";
	static char longest[40000];
	struct machine_config cfg;
	char path[64];
	int fd = memfd_create("junk", MFD_CLOEXEC);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	config_no_kvm(&cfg);
	cfg.kernel = "/nonexistent/vmlinux";
	refused(&cfg, -ENOENT, "--kernel /nonexistent/vmlinux: No such file or directory");
	cfg.kernel = "/proc";
	refused(&cfg, -EINVAL,
		"--kernel /proc: not a regular file; a bzImage or an ELF image would do");
	cfg.kernel = path;
	snprintf(longest, sizeof(longest), "--kernel %s: empty; a bzImage or an ELF image would do",
		path);
	refused(&cfg, -EINVAL, longest);
	CU_ASSERT_EQUAL(write(fd, junk, sizeof(junk)), sizeof(junk));
	snprintf(longest, sizeof(longest),
		"--kernel %s: not an ELF image and no bzImage; vmlinuz or vmlinux would do", path);
	refused(&cfg, -EINVAL, longest);
	close(fd);
	config_no_kvm(&cfg);
	memset(longest, 'x', sizeof(longest) - 1);
	cfg.cmdline = longest;
	refused(&cfg, -EINVAL, "--cmdline: 39999 bytes; at most 32767 are accepted");
	config_no_kvm(&cfg);
	cfg.memory = 3 << 20;
	refused(&cfg, -EINVAL,
		"--memory 3M: a multiple of 2M up to 64T is accepted, such as 256M or 1G");
	config_no_kvm(&cfg);
	cfg.cpus = 65;
	refused(&cfg, -EINVAL, "--cpus 65: 1 to 64 are accepted");
	config_no_kvm(&cfg);
	cfg.ndisks = 1;
	cfg.disks[0].path = "x.img";
	cfg.disks[0].model = "floppy";
	refused(&cfg, -EINVAL,
		"--disk model=floppy: no such model; one of virtio-blk ide ide-cd vhost-user-blk");
	config_no_kvm(&cfg);
	cfg.nnets = 1;
	cfg.nets[0].memory = "hole";
	refused(&cfg, -EINVAL, "--net mem=hole: one of sink source echo");
}

static void test_kernel_too_large(void)
{
	char why[VMM_WHY_MAX] = "", image[sizeof(struct guest_elf) + 16];
	struct guest_elf *e = (struct guest_elf *)image;
	struct ring_mem mem = {0};
	static uint8_t room[1 << 16];
	struct elf_info info;
	size_t n;

	ring_mem_add(&mem, 0, sizeof(room), room, false);
	n = guest_elf_build(image, (const uint8_t *)"\xf4", 1, 0x8000);
	CU_ASSERT_EQUAL(elf_load(&mem, image, n, &info, why), 0);
	CU_ASSERT_EQUAL(info.entry, 0x8000);
	CU_ASSERT_EQUAL(info.lowest, 0x8000);
	CU_ASSERT_EQUAL(room[0x8000], 0xf4);
	e->load.p_memsz = 1 << 20;
	CU_ASSERT_EQUAL(elf_load(&mem, image, n, &info, why), -EINVAL);
	CU_ASSERT_STRING_EQUAL(why, "too large for the guest's memory: a segment goes to 0x8000, "
				    "1024 KiB long; --memory takes more");
	e->load.p_memsz = 4097;
	e->nhdr.n_type = 17;
	CU_ASSERT_EQUAL(elf_load(&mem, image, n, &info, why), -EINVAL);
	CU_ASSERT_STRING_EQUAL(
		why, "an ELF image without a PVH note; Linux has one with CONFIG_PVH=y");
	e->nhdr.n_type = 18;
	e->entry = 0x7fff;
	CU_ASSERT_EQUAL(elf_load(&mem, image, n, &info, why), -EINVAL);
	CU_ASSERT_STRING_EQUAL(why, "its PVH entry 0x7fff is not in what it loads");
	e->ehdr.e_machine = EM_ARM;
	CU_ASSERT_EQUAL(elf_load(&mem, image, n, &info, why), -EINVAL);
	CU_ASSERT_STRING_EQUAL(why, "an ELF image for another machine than x86");
}

static void test_no_room(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX] = "";
	struct machine *m;

	config_no_kvm(&cfg);
	cfg.memory = 1ull << 46;
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -ENOMEM);
	CU_ASSERT_EQUAL(strncmp(why, "--memory 64T: this host has ", 28), 0);
	CU_ASSERT_FALSE(machine_error_is_usage(-ENOMEM));
	CU_ASSERT_TRUE(machine_error_is_usage(-EINVAL));
	config_no_kvm(&cfg);
	cfg.hugepages = true;
	cfg.memory = 16ull << 30;
	CU_ASSERT_TRUE(machine_create(&m, &cfg, why) < 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "huge"));
}

static unsigned open_files(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Nothing stays open, whether making failed late or all went well. */
static void test_nothing_left(void)
{
	unsigned before = open_files();
	struct machine_config cfg;
	char why[VMM_WHY_MAX];
	struct machine *m;
	struct guest g;

	config_no_kvm(&cfg);
	cfg.nets[0].memory = "sink";
	cfg.nets[1].memory = "hole";
	cfg.nnets = 2;
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), -EINVAL);
	CU_ASSERT_EQUAL(open_files(), before);
	cfg.nets[1].memory = "echo";
	CU_ASSERT_EQUAL(machine_create(&m, &cfg, why), 0);
	machine_destroy(m);
	CU_ASSERT_EQUAL(open_files(), before);
	if (kvm_facts_get(&(struct kvm_facts){0}, why))
		return;
	guest_init(&g, hello_begin, hello_end);
	g.cfg.cpus = 4;
	CU_ASSERT_TRUE(guest_create(&g) && guest_start(&g));
	guest_destroy(&g);
	CU_ASSERT_EQUAL(open_files(), before);
}

static const struct unit_case cases[] = {
	{"hello", test_hello},
	{"string I/O", test_string_io},
	{"ways to end", test_ends},
	{"stop from another thread", test_stop},
	{"destroy in every state", test_destroy_running},
	{"four processors", test_smp},
	{"pause and resume", test_pause},
	{"stop while paused", test_stop_while_paused},
	{"reset", test_reset},
	{"save in mid-work, load in a fresh machine", test_save_running},
	{"posted writes come first", test_posted},
	{"machines without KVM", test_no_kvm},
	{"power management timer", test_pm_timer},
	{"memory above 4 GiB", test_high_memory},
	{"memory that cannot be taken away", test_sealed},
	{"dirty bitmap", test_dirty},
	{"dirty bitmap of the kernel's pages", test_dirty_kernel},
	{"save, load, save: the same bytes", test_save_idle},
	{"damaged states", test_load_damaged},
	{"refused configurations", test_refused},
	{"kernels that do not fit", test_kernel_too_large},
	{"no room for memory", test_no_room},
	{"nothing is left behind", test_nothing_left},
};

UNIT_MAIN("machine", cases)
