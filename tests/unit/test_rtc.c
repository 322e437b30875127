/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clock: the host's time in each format, setting it, memory sizes, and its three interrupts,
 * which come from an I/O thread: waits are generous, never exact.
 */
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

static struct machine *m;
static atomic_bool line;
static atomic_uint edges;

static void line_set(void *ctx, int gsi, bool level, uint64_t address, uint32_t data)
{
	(void)ctx;
	(void)address;
	(void)data;
	if (gsi != 8)
		return;
	if (level && !line)
		edges++;
	line = level;
}

static struct machine *machine_new(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX];
	struct machine *made;

	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = 64 << 20;
	cfg.cpus = 3;
	cfg.interrupt_hook = line_set;
	CU_ASSERT_EQUAL_FATAL(machine_create(&made, &cfg, why), 0);
	return made;
}

static void open_machine(void)
{
	line = false;
	edges = 0;
	m = machine_new();
}

static uint8_t rd(uint8_t reg)
{
	machine_port_write(m, 0x70, reg, 1);
	return (uint8_t)machine_port_read(m, 0x71, 1);
}

static void wr(uint8_t reg, uint8_t value)
{
	machine_port_write(m, 0x70, reg, 1);
	machine_port_write(m, 0x71, value, 1);
}

static unsigned bcd(uint8_t v)
{
	return (v >> 4) * 10u + (v & 15);
}

/* The clock as seconds since 1970, read twice until nothing changed in between. */
static time_t clock_read(void)
{
	struct tm tm;
	uint8_t s;

	do {
		s = rd(0);
		tm = (struct tm){.tm_sec = (int)bcd(s),
			.tm_min = (int)bcd(rd(2)),
			.tm_hour = (int)bcd(rd(4)),
			.tm_mday = (int)bcd(rd(7)),
			.tm_mon = (int)bcd(rd(8)) - 1,
			.tm_year = (int)(bcd(rd(0x32)) * 100 + bcd(rd(9))) - 1900};
	} while (rd(0) != s);
	return timegm(&tm);
}

static bool wait_edges(unsigned n)
{
	for (unsigned i = 0; i < 15000 && edges < n; i++)
		usleep(1000);
	return edges >= n;
}

static void test_host_time(void)
{
	time_t before, shown;

	open_machine();
	before = time(NULL);
	shown = clock_read();
	CU_ASSERT(shown >= before - 1 && shown <= time(NULL) + 1);
	CU_ASSERT_EQUAL(rd(0x0d), 0x80);
	CU_ASSERT_EQUAL(rd(0x0b), 0x02);
	CU_ASSERT_EQUAL(rd(0x0a) & 0x7f, 0x26);
	/* the top bit of the index masks NMIs, no more */
	machine_port_write(m, 0x70, 0x8d, 1);
	CU_ASSERT_EQUAL(machine_port_read(m, 0x71, 1), 0x80);
	machine_destroy(m);
}

/* 2001-02-03 23:04:05, as Linux writes it. */
static void set_clock(uint8_t control)
{
	bool binary = control & 4;

	wr(0x0b, 0x80 | control);
	wr(0x0a, 0x76);
	wr(0, 0x05);
	wr(2, 0x04);
	wr(4, control & 2 ? (binary ? 23 : 0x23) : 0x80 | (binary ? 11 : 0x11));
	wr(7, 0x03);
	wr(8, 0x02);
	wr(9, 0x01);
	wr(0x32, binary ? 20 : 0x20);
	wr(0x0a, 0x26);
	wr(0x0b, control);
}

static void test_set(void)
{
	static const uint8_t formats[] = {0x02, 0x06, 0x00, 0x04};
	const time_t wanted = 981241445;
	time_t shown;

	open_machine();
	for (unsigned i = 0; i < sizeof(formats); i++) {
		set_clock(formats[i]);
		CU_ASSERT_EQUAL(rd(0x0b), formats[i]);
		wr(0x0b, 0x02);
		shown = clock_read();
		CU_ASSERT(shown >= wanted && shown < wanted + 60);
		CU_ASSERT_EQUAL(rd(6), 7); /* a Saturday */
	}
	/* while it is being set, it stands */
	wr(0x0b, 0x82);
	wr(0, 0x59);
	wr(2, 0x59);
	CU_ASSERT_EQUAL(rd(0), 0x59);
	CU_ASSERT_EQUAL(rd(0x0a) & 0x80, 0);
	wr(0x0b, 0x02);
	machine_destroy(m);
}

/* No date at all: the clock goes on from somewhere. */
static void test_nonsense(void)
{
	open_machine();
	for (unsigned v = 0; v < 256; v += 5) {
		for (uint8_t reg = 0; reg < 10; reg++)
			wr(reg, (uint8_t)(v + reg));
		wr(0x32, (uint8_t)v);
		wr(0x0b, (uint8_t)(v & 0x86));
		clock_read();
	}
	wr(0x0b, 0x02);
	set_clock(0x02);
	CU_ASSERT(clock_read() >= 981241445);
	machine_destroy(m);
}

static void test_memory_sizes(void)
{
	open_machine();
	CU_ASSERT_EQUAL(rd(0x15) | rd(0x16) << 8, 640);
	CU_ASSERT_EQUAL(rd(0x17) | rd(0x18) << 8, 63 << 10);
	CU_ASSERT_EQUAL(rd(0x34) | rd(0x35) << 8, 48 << 4);
	CU_ASSERT_EQUAL(rd(0x5b), 0);
	CU_ASSERT_EQUAL(rd(0x5f), 2);
	wr(0x60, 0xa7);
	CU_ASSERT_EQUAL(rd(0x60), 0xa7);
	machine_destroy(m);
}

static void test_periodic(void)
{
	open_machine();
	wr(0x0a, 0x2b); /* 32 Hz */
	rd(0x0c);
	wr(0x0b, 0x42);
	for (unsigned i = 1; i <= 5; i++) {
		CU_ASSERT(wait_edges(i));
		/* held until it is seen */
		CU_ASSERT(line);
		CU_ASSERT_EQUAL(rd(0x0c) & 0xc0, 0xc0);
		CU_ASSERT(!line || edges > i);
	}
	wr(0x0b, 0x02);
	rd(0x0c);
	CU_ASSERT(!line);
	machine_destroy(m);
}

static void test_update_and_alarm(void)
{
	open_machine();
	set_clock(0x02);
	rd(0x0c);
	wr(0x0b, 0x12);
	CU_ASSERT(wait_edges(1));
	CU_ASSERT_EQUAL(rd(0x0c) & 0x90, 0x90);
	wr(0x0b, 0x02);
	/* any hour, any minute, the next full minute's second 0: not before the time is set to 59
	 */
	wr(1, 0x00);
	wr(3, 0xff);
	wr(5, 0xc0);
	rd(0x0c);
	edges = 0;
	wr(0x0b, 0x22);
	wr(0, 0x58);
	CU_ASSERT(wait_edges(1));
	CU_ASSERT_EQUAL(rd(0x0c) & 0xa0, 0xa0);
	CU_ASSERT(bcd(rd(0)) < 58);
	machine_destroy(m);
}

/* Paused, nothing comes; afterwards it does. A reset disables, and keeps the time. */
static void test_pause(void)
{
	char why[VMM_WHY_MAX];
	unsigned n;

	open_machine();
	set_clock(0x02);
	wr(0x0a, 0x2d);
	rd(0x0c);
	wr(0x0b, 0x42);
	CU_ASSERT(wait_edges(1));
	machine_pause(m);
	rd(0x0c);
	n = edges;
	machine_resume(m);
	CU_ASSERT(wait_edges(n + 1));
	machine_pause(m);
	CU_ASSERT_EQUAL(machine_reset(m, why), 0);
	CU_ASSERT(!line);
	CU_ASSERT_EQUAL(rd(0x0b), 0x02);
	CU_ASSERT(clock_read() < 981241445 + 3600);
	machine_destroy(m);
}

static void test_state(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];
	struct machine *from;

	open_machine();
	set_clock(0x02);
	wr(0x0a, 0x2d);
	wr(0x70, 0x3c);
	wr(0x0b, 0x42);
	machine_pause(m);
	CU_ASSERT_EQUAL(machine_save(m, &w), 0);
	from = m;
	open_machine();
	state_reader_init(&r, w.data, w.len);
	machine_pause(m);
	CU_ASSERT_EQUAL(machine_load(m, &r, why), 0);
	machine_resume(m);
	CU_ASSERT(wait_edges(1) || line);
	CU_ASSERT_EQUAL(rd(0x0b), 0x42);
	CU_ASSERT_EQUAL(rd(0x70), 0x3c);
	CU_ASSERT(clock_read() >= 981241445 && clock_read() < 981241445 + 3600);
	machine_destroy(m);
	machine_destroy(from);
	state_writer_free(&w);
}

static const struct unit_case cases[] = {
	{"the host's time", test_host_time},
	{"setting it", test_set},
	{"no date", test_nonsense},
	{"memory sizes", test_memory_sizes},
	{"periodic interrupt", test_periodic},
	{"update and alarm interrupts", test_update_and_alarm},
	{"pause and reset", test_pause},
	{"save and load", test_state},
};

UNIT_MAIN("rtc", cases)
