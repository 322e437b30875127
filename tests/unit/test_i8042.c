/* SPDX-License-Identifier: BSD-2-Clause */
/* The keyboard controller as a driver probes it: self tests, configuration, keyboard, mouse,
 * resets. */
#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

static struct machine *m;
static bool lines[24];
static unsigned edges[24];

static void line_set(void *ctx, int gsi, bool level, uint64_t address, uint32_t data)
{
	(void)ctx;
	(void)address;
	(void)data;
	if (gsi < 0 || gsi >= 24)
		return;
	edges[gsi] += level && !lines[gsi];
	lines[gsi] = level;
}

static void open_machine(void)
{
	struct machine_config cfg;
	char why[VMM_WHY_MAX];

	memset(lines, 0, sizeof(lines));
	memset(edges, 0, sizeof(edges));
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = 2 << 20;
	cfg.interrupt_hook = line_set;
	CU_ASSERT_EQUAL_FATAL(machine_create(&m, &cfg, why), 0);
}

static void close_machine(void)
{
	machine_destroy(m);
}

static uint8_t status(void)
{
	return (uint8_t)machine_port_read(m, 0x64, 1);
}

static void command(uint8_t c)
{
	machine_port_write(m, 0x64, c, 1);
}

static void data(uint8_t b)
{
	machine_port_write(m, 0x60, b, 1);
}

/* The next byte, which must be there and from that device. */
static int next(bool aux)
{
	uint8_t s = status();

	if (!(s & 1))
		return -1;
	CU_ASSERT_EQUAL(!!(s & 0x20), aux);
	return (int)machine_port_read(m, 0x60, 1);
}

static void aux(uint8_t b)
{
	command(0xd4);
	data(b);
}

static void test_controller(void)
{
	unsigned before;

	open_machine();
	CU_ASSERT_EQUAL(status() & 1, 0);
	command(0xaa);
	CU_ASSERT_EQUAL(next(false), 0x55);
	command(0xab);
	CU_ASSERT_EQUAL(next(false), 0);
	command(0xa9);
	CU_ASSERT_EQUAL(next(false), 0);
	command(0x60);
	CU_ASSERT_EQUAL(status() & 9, 8);
	data(0x74);
	before = edges[1] + edges[12];
	CU_ASSERT_EQUAL(status() & 9, 0);
	command(0x20);
	CU_ASSERT_EQUAL(next(false), 0x74);
	/* what is looped back comes as the keyboard's or the mouse's, and no interrupt is on */
	command(0xd3);
	data(0x5a);
	CU_ASSERT_EQUAL(next(true), 0x5a);
	command(0xd2);
	data(0xa5);
	CU_ASSERT_EQUAL(next(false), 0xa5);
	CU_ASSERT_EQUAL(next(false), -1);
	CU_ASSERT_EQUAL(edges[1] + edges[12], before);
	/* ports off and on show in the configuration */
	command(0xa8);
	command(0x20);
	CU_ASSERT_EQUAL(next(false), 0x54);
	command(0xae);
	command(0x20);
	CU_ASSERT_EQUAL(next(false), 0x44);
	close_machine();
}

static void test_keyboard(void)
{
	open_machine();
	command(0x60);
	data(0x45);
	data(0xff);
	/* one interrupt for each byte */
	CU_ASSERT(lines[1]);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	CU_ASSERT(lines[1]);
	CU_ASSERT_EQUAL(next(false), 0xaa);
	CU_ASSERT(!lines[1]);
	CU_ASSERT_EQUAL(edges[1], 2);
	data(0xf2);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	CU_ASSERT_EQUAL(next(false), 0xab);
	CU_ASSERT_EQUAL(next(false), 0x41);
	data(0xed);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	data(7);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	data(0xf0);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	data(3);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	data(0xf0);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	data(0);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	CU_ASSERT_EQUAL(next(false), 3);
	data(0xee);
	CU_ASSERT_EQUAL(next(false), 0xee);
	data(0x99);
	CU_ASSERT_EQUAL(next(false), 0xfe);
	CU_ASSERT_EQUAL(next(false), -1);
	/* a port that is off keeps its bytes */
	data(0xf4);
	command(0xad);
	CU_ASSERT_EQUAL(next(false), -1);
	command(0xae);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	close_machine();
}

static void test_mouse(void)
{
	open_machine();
	command(0xa8);
	command(0x60);
	data(0x47);
	aux(0xff);
	CU_ASSERT(lines[12] && !lines[1]);
	CU_ASSERT_EQUAL(next(true), 0xfa);
	CU_ASSERT_EQUAL(next(true), 0xaa);
	CU_ASSERT_EQUAL(next(true), 0x00);
	CU_ASSERT_EQUAL(edges[12], 3);
	aux(0xf2);
	CU_ASSERT_EQUAL(next(true), 0xfa);
	CU_ASSERT_EQUAL(next(true), 0x00);
	aux(0xf3);
	CU_ASSERT_EQUAL(next(true), 0xfa);
	aux(40);
	CU_ASSERT_EQUAL(next(true), 0xfa);
	aux(0xf4);
	CU_ASSERT_EQUAL(next(true), 0xfa);
	aux(0xe9);
	CU_ASSERT_EQUAL(next(true), 0xfa);
	CU_ASSERT_EQUAL(next(true), 0x20);
	CU_ASSERT_EQUAL(next(true), 2);
	CU_ASSERT_EQUAL(next(true), 40);
	aux(0x77);
	CU_ASSERT_EQUAL(next(true), 0xfe);
	CU_ASSERT_EQUAL(next(true), -1);
	close_machine();
}

/* Commands nobody collects the answers of: the queue ends, the machine does not. */
static void test_flood(void)
{
	unsigned n = 0;

	open_machine();
	for (unsigned i = 0; i < 1000; i++)
		data(0xf2);
	while (next(false) >= 0 && n < 100)
		n++;
	CU_ASSERT(n > 0 && n <= 16);
	data(0xee);
	CU_ASSERT_EQUAL(next(false), 0xee);
	close_machine();
}

static void test_reset(void)
{
	open_machine();
	command(0xf1);
	CU_ASSERT_EQUAL(machine_wait(m, 0), MACHINE_RUNNING);
	command(0xfe);
	CU_ASSERT_EQUAL(machine_wait(m, 0), MACHINE_RESET);
	close_machine();
	open_machine();
	command(0xd1);
	data(0x03);
	CU_ASSERT_EQUAL(machine_wait(m, 0), MACHINE_RUNNING);
	command(0xd1);
	data(0x02);
	CU_ASSERT_EQUAL(machine_wait(m, 0), MACHINE_RESET);
	close_machine();
}

static void test_state(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];
	struct machine *from;

	open_machine();
	command(0x60);
	data(0x47);
	aux(0xf3);
	next(true);
	aux(80);
	data(0xf2);
	data(0xed);
	CU_ASSERT_EQUAL(machine_save(m, &w), 0);
	from = m;
	open_machine();
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL(machine_load(m, &r, why), 0);
	CU_ASSERT(lines[1]);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	CU_ASSERT_EQUAL(next(false), 0xab);
	CU_ASSERT_EQUAL(next(false), 0x41);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	/* the lights' byte is still awaited; the mouse's answer is still there */
	data(2);
	CU_ASSERT_EQUAL(next(false), 0xfa);
	CU_ASSERT_EQUAL(next(true), 0xfa);
	CU_ASSERT_EQUAL(next(true), -1);
	close_machine();
	machine_destroy(from);
	state_writer_free(&w);
}

static const struct unit_case cases[] = {
	{"controller", test_controller},
	{"keyboard", test_keyboard},
	{"mouse", test_mouse},
	{"more than fits", test_flood},
	{"resets", test_reset},
	{"save and load", test_state},
};

UNIT_MAIN("i8042", cases)
