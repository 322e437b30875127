/* SPDX-License-Identifier: BSD-2-Clause */
/* The parallel port by its registers, in a machine without KVM: what a printer's driver does. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

enum { DATA = 0x378, STATUS, CONTROL };

#define IDLE     0xdfu /* not busy, no acknowledge, paper, selected, no error, no interrupt */
#define PULSE    0x1fu /* busy, acknowledge */
#define BUSY     0x5fu
#define QUIET    0x0cu
#define STROBE   0x0du
#define WITH_IRQ 0x10u

struct port {
	struct machine *m;
	int ends[2]; /* of the pipe that the printer's line is */
	_Atomic bool line;
	_Atomic unsigned rises;
};

static void port_interrupt(void *ctx, int gsi, bool level, uint64_t address, uint32_t data)
{
	struct port *p = ctx;

	(void)address;
	(void)data;
	if (gsi != 7)
		return;
	p->rises += level && !p->line;
	p->line = level;
}

/* small: a pipe that is full soon. */
static void port_make(struct port *p, bool small)
{
	char why[VMM_WHY_MAX];
	struct machine_config cfg;

	memset(p, 0, sizeof(*p));
	if (pipe2(p->ends, O_CLOEXEC | O_NONBLOCK) ||
		(small && fcntl(p->ends[1], F_SETPIPE_SZ, 4096) < 0))
		abort();
	machine_config_init(&cfg);
	cfg.no_kvm = true;
	cfg.memory = 2 << 20;
	cfg.parallel.on = true;
	cfg.parallel.line.out = p->ends[1];
	cfg.interrupt_hook = port_interrupt;
	cfg.interrupt_ctx = p;
	if (machine_create(&p->m, &cfg, why)) {
		printf("\n%s\n", why);
		abort();
	}
}

static void port_free(struct port *p)
{
	machine_destroy(p->m);
	close(p->ends[0]);
	close(p->ends[1]);
}

static uint8_t get(struct port *p, uint16_t reg)
{
	return (uint8_t)machine_port_read(p->m, reg, 1);
}

static void put(struct port *p, uint16_t reg, uint8_t value)
{
	machine_port_write(p->m, reg, value, 1);
}

static void print(struct port *p, char c, uint8_t flags)
{
	put(p, DATA, (uint8_t)c);
	put(p, CONTROL, STROBE | flags);
	put(p, CONTROL, QUIET | flags);
}

static void test_registers(void)
{
	struct port p;

	port_make(&p, false);
	CU_ASSERT_EQUAL(get(&p, STATUS), IDLE);
	put(&p, DATA, 0xaa);
	CU_ASSERT_EQUAL(get(&p, DATA), 0xaa);
	put(&p, CONTROL, 0xff);
	CU_ASSERT_EQUAL(get(&p, CONTROL), 0xff);
	/* the other direction: nobody drives the lines */
	CU_ASSERT_EQUAL(get(&p, DATA), 0xff);
	put(&p, CONTROL, 0x0c);
	CU_ASSERT_EQUAL(get(&p, CONTROL), 0xcc);
	CU_ASSERT_EQUAL(get(&p, DATA), 0xaa);
	put(&p, STATUS, 0x00);
	get(&p, STATUS);
	CU_ASSERT_EQUAL(get(&p, STATUS), IDLE);
	CU_ASSERT_EQUAL(get(&p, CONTROL + 1), 0xff);
	port_free(&p);
}

/* As SeaBIOS and DOS print: strobe, then wait for the acknowledge. */
static void test_polled(void)
{
	char out[8];
	struct port p;

	port_make(&p, false);
	put(&p, CONTROL, QUIET);
	for (const char *c = "page\f"; *c; c++) {
		CU_ASSERT_EQUAL(get(&p, STATUS), IDLE);
		print(&p, *c, 0);
		CU_ASSERT_EQUAL(get(&p, STATUS), PULSE);
	}
	CU_ASSERT_EQUAL(read(p.ends[0], out, sizeof(out)), 5);
	CU_ASSERT(!memcmp(out, "page\f", 5));
	CU_ASSERT_EQUAL(p.rises, 0);
	/* the strobe's edge prints, not its level; and not in reset */
	put(&p, CONTROL, QUIET);
	put(&p, CONTROL, STROBE);
	put(&p, CONTROL, STROBE);
	CU_ASSERT_EQUAL(read(p.ends[0], out, sizeof(out)), -1);
	put(&p, CONTROL, QUIET & ~0x04u);
	CU_ASSERT_EQUAL(read(p.ends[0], out, sizeof(out)), -1);
	CU_ASSERT_EQUAL(get(&p, STATUS), IDLE);
	port_free(&p);
}

static void test_interrupts(void)
{
	struct port p;

	port_make(&p, false);
	put(&p, CONTROL, QUIET | WITH_IRQ);
	CU_ASSERT_FALSE(p.line);
	print(&p, 'a', WITH_IRQ);
	CU_ASSERT_TRUE(p.line);
	/* ready already, and bit 2 says why it came */
	CU_ASSERT_EQUAL(get(&p, STATUS), IDLE & ~0x04u);
	CU_ASSERT_FALSE(p.line);
	CU_ASSERT_EQUAL(get(&p, STATUS), IDLE);
	/* an edge for each byte, looked at or not */
	print(&p, 'b', WITH_IRQ);
	print(&p, 'c', WITH_IRQ);
	CU_ASSERT_EQUAL(p.rises, 3);
	CU_ASSERT_TRUE(p.line);
	put(&p, CONTROL, QUIET);
	CU_ASSERT_FALSE(p.line);
	print(&p, 'd', 0);
	CU_ASSERT_FALSE(p.line);
	CU_ASSERT_EQUAL(p.rises, 3);
	port_free(&p);
}

/* Nobody reads what is printed: the printer is busy, and nothing is lost of what it took. */
static void test_busy(void)
{
	unsigned printed = 0, got = 0, before;
	char buf[4096];
	struct port p;
	ssize_t n;

	port_make(&p, true);
	put(&p, CONTROL, QUIET | WITH_IRQ);
	while (printed < 100000 && (get(&p, STATUS) & 0x80)) {
		print(&p, (char)('a' + printed % 26), WITH_IRQ);
		printed++;
	}
	CU_ASSERT_TRUE(printed > 4096 && printed < 100000);
	CU_ASSERT_EQUAL(get(&p, STATUS), BUSY);
	print(&p, '!', WITH_IRQ);
	CU_ASSERT_EQUAL(get(&p, STATUS), BUSY);
	before = p.rises;
	for (unsigned i = 0; i < 5000 && got < printed; i++) {
		n = read(p.ends[0], buf, sizeof(buf));
		for (ssize_t k = 0; k < n; k++, got++)
			if (buf[k] != (char)('a' + got % 26))
				CU_FAIL("not what was printed");
		if (n <= 0)
			usleep(1000);
	}
	CU_ASSERT_EQUAL(got, printed);
	CU_ASSERT_EQUAL(get(&p, STATUS), IDLE & ~0x04u);
	CU_ASSERT_EQUAL(p.rises, before + 1);
	port_free(&p);
}

/* b is made, of what is saved of a. */
static void port_move(struct port *a, struct port *b)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];

	CU_ASSERT_EQUAL(machine_save(a->m, &w), 0);
	port_make(b, false);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL(machine_load(b->m, &r, why), 0);
	state_writer_free(&w);
}

static void test_save_load(void)
{
	struct port a, b;
	char out[2];

	port_make(&a, false);
	put(&a, CONTROL, QUIET | WITH_IRQ);
	print(&a, 'x', WITH_IRQ);
	put(&a, CONTROL, STROBE | WITH_IRQ);
	put(&a, DATA, 'y');
	port_move(&a, &b);
	CU_ASSERT_TRUE(b.line);
	CU_ASSERT_EQUAL(get(&b, DATA), 'y');
	/* in the middle of a strobe */
	put(&b, CONTROL, QUIET | WITH_IRQ);
	CU_ASSERT_EQUAL(read(b.ends[0], out, sizeof(out)), 1);
	CU_ASSERT_EQUAL(out[0], 'y');
	port_free(&a);
	port_free(&b);
}

/* Loaded where the line has room: what the printer owed is there. */
static void test_save_busy(void)
{
	struct port a, b;

	port_make(&a, true);
	put(&a, CONTROL, QUIET | WITH_IRQ);
	for (unsigned i = 0; i < 100000 && (get(&a, STATUS) & 0x80); i++)
		print(&a, 'z', WITH_IRQ);
	CU_ASSERT_EQUAL(get(&a, STATUS), BUSY);
	port_move(&a, &b);
	CU_ASSERT_TRUE(b.line);
	CU_ASSERT_EQUAL(get(&b, STATUS), IDLE & ~0x04u);
	port_free(&a);
	port_free(&b);
}

static const struct unit_case cases[] = {
	{"registers", test_registers},
	{"printing, polled", test_polled},
	{"printing with interrupts", test_interrupts},
	{"a busy printer", test_busy},
	{"save and load", test_save_load},
	{"save when busy", test_save_busy},
};

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	return unit_main("parallel", cases, sizeof(cases) / sizeof(cases[0]));
}
