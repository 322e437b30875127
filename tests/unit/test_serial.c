/* SPDX-License-Identifier: BSD-2-Clause */
/* The serial ports by their registers, in a machine without KVM. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

enum { DATA = 0x3f8, IER, IIR, LCR, MCR, LSR, MSR, SCR };

struct port {
	struct machine *m;
	char out[4096];
	size_t nout;
	bool line, line3;
	unsigned rises;
};

static void port_output(void *ctx, const uint8_t *bytes, size_t n)
{
	struct port *p = ctx;

	for (size_t i = 0; i < n && p->nout < sizeof(p->out); i++)
		p->out[p->nout++] = (char)bytes[i];
}

static void port_interrupt(void *ctx, int gsi, bool level, uint64_t address, uint32_t data)
{
	struct port *p = ctx;

	(void)address;
	(void)data;
	if (gsi == 3)
		p->line3 = level;
	if (gsi != 4)
		return;
	p->line = level;
	p->rises += level;
}

/* cfg: as machine_config_init() made it, with serial ports. */
static void port_make_with(struct port *p, struct machine_config *cfg)
{
	char why[VMM_WHY_MAX];

	memset(p, 0, sizeof(*p));
	cfg->no_kvm = true;
	cfg->memory = 2 << 20;
	cfg->console_ctx = p;
	cfg->interrupt_hook = port_interrupt;
	cfg->interrupt_ctx = p;
	if (machine_create(&p->m, cfg, why)) {
		printf("\n%s\n", why);
		abort();
	}
}

static void port_make(struct port *p, int out)
{
	struct machine_config cfg;

	machine_config_init(&cfg);
	cfg.serials[0].line.out = out;
	if (out < 0)
		cfg.console_hook = port_output;
	port_make_with(p, &cfg);
}

static uint8_t get(struct port *p, uint16_t reg)
{
	return (uint8_t)machine_port_read(p->m, reg, 1);
}

static void put(struct port *p, uint16_t reg, uint8_t value)
{
	machine_port_write(p->m, reg, value, 1);
}

static size_t type(struct port *p, const char *text)
{
	return machine_console_input(p->m, (const uint8_t *)text, strlen(text));
}

static void test_registers(void)
{
	struct port p;

	port_make(&p, -1);
	CU_ASSERT_EQUAL(get(&p, LSR), 0x60);
	CU_ASSERT_EQUAL(get(&p, MSR), 0xb0);
	CU_ASSERT_EQUAL(get(&p, IIR), 0x01);
	put(&p, SCR, 0x5a);
	CU_ASSERT_EQUAL(get(&p, SCR), 0x5a);
	put(&p, LCR, 0x80);
	put(&p, DATA, 0x34);
	put(&p, IER, 0x12);
	CU_ASSERT_EQUAL(get(&p, DATA), 0x34);
	CU_ASSERT_EQUAL(get(&p, IER), 0x12);
	put(&p, LCR, 0x03);
	CU_ASSERT_EQUAL(get(&p, LCR), 0x03);
	CU_ASSERT_EQUAL(get(&p, IER), 0x00);
	put(&p, IER, 0xff);
	CU_ASSERT_EQUAL(get(&p, IER), 0x0f);
	CU_ASSERT_EQUAL(p.nout, 0);
	put(&p, IIR, 0x01);
	CU_ASSERT_EQUAL(get(&p, IIR) & 0xc0, 0xc0);
	put(&p, IIR, 0x00);
	CU_ASSERT_EQUAL(get(&p, IIR) & 0xc0, 0x00);
	/* a wide read shows consecutive registers */
	put(&p, IER, 0);
	CU_ASSERT_EQUAL(machine_port_read(p.m, LCR, 2), 0x0003);
	machine_destroy(p.m);
}

static void test_output(void)
{
	struct port p;

	port_make(&p, -1);
	for (const char *c = "hello"; *c; c++)
		put(&p, DATA, (uint8_t)*c);
	CU_ASSERT_EQUAL(p.nout, 5);
	CU_ASSERT_EQUAL(memcmp(p.out, "hello", 5), 0);
	CU_ASSERT_EQUAL(get(&p, LSR), 0x60);
	machine_destroy(p.m);
}

static void test_transmit_interrupt(void)
{
	struct port p;

	port_make(&p, -1);
	put(&p, IER, 0x02);
	CU_ASSERT_FALSE(p.line); /* OUT2 connects it */
	put(&p, MCR, 0x08);
	CU_ASSERT_TRUE(p.line);
	CU_ASSERT_EQUAL(get(&p, IIR), 0x02);
	CU_ASSERT_FALSE(p.line); /* reading IIR cleared it */
	CU_ASSERT_EQUAL(get(&p, IIR), 0x01);
	put(&p, DATA, 'x');
	CU_ASSERT_TRUE(p.line);
	CU_ASSERT_EQUAL(p.rises, 2);
	put(&p, IER, 0);
	CU_ASSERT_FALSE(p.line);
	machine_destroy(p.m);
}

static void test_receive(void)
{
	struct port p;

	port_make(&p, -1);
	put(&p, MCR, 0x08);
	put(&p, IER, 0x03);
	get(&p, IIR);
	CU_ASSERT_EQUAL(type(&p, "ab"), 2);
	CU_ASSERT_TRUE(p.line);
	CU_ASSERT_EQUAL(get(&p, LSR), 0x61);
	/* received data goes before an empty transmitter */
	put(&p, DATA, 'x');
	CU_ASSERT_EQUAL(get(&p, IIR), 0x04);
	CU_ASSERT_EQUAL(get(&p, DATA), 'a');
	CU_ASSERT_EQUAL(get(&p, IIR), 0x04);
	CU_ASSERT_EQUAL(get(&p, DATA), 'b');
	CU_ASSERT_EQUAL(get(&p, LSR), 0x60);
	CU_ASSERT_EQUAL(get(&p, IIR), 0x02);
	CU_ASSERT_FALSE(p.line);
	machine_destroy(p.m);
}

static void test_fifo_trigger(void)
{
	struct port p;

	port_make(&p, -1);
	put(&p, MCR, 0x08);
	put(&p, IER, 0x01);
	put(&p, IIR, 0x81); /* 8 characters */
	CU_ASSERT_EQUAL(type(&p, "1234567"), 7);
	CU_ASSERT_EQUAL(get(&p, IIR), 0xcc); /* below: as after the time-out */
	CU_ASSERT_EQUAL(type(&p, "8"), 1);
	CU_ASSERT_EQUAL(get(&p, IIR), 0xc4);
	put(&p, IIR, 0x83); /* clears the receiver's FIFO */
	CU_ASSERT_EQUAL(get(&p, LSR), 0x60);
	CU_ASSERT_FALSE(p.line);
	machine_destroy(p.m);
}

/* What does not fit is not taken, and nothing of what was taken is lost. */
static void test_input_bounded(void)
{
	uint8_t in[8192];
	struct port p;
	size_t taken, more;
	bool same = true;

	port_make(&p, -1);
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 7);
	put(&p, IIR, 0x01);
	taken = machine_console_input(p.m, in, sizeof(in));
	CU_ASSERT_TRUE(taken >= 16 && taken < sizeof(in));
	CU_ASSERT_EQUAL(machine_console_input(p.m, in, 1), 0);
	for (size_t i = 0; i < 100; i++)
		same &= get(&p, DATA) == in[i];
	more = machine_console_input(p.m, in + taken, sizeof(in) - taken);
	CU_ASSERT_EQUAL(more, 100);
	for (size_t i = 100; i < taken + more; i++)
		same &= get(&p, DATA) == in[i];
	CU_ASSERT_TRUE(same);
	CU_ASSERT_EQUAL(get(&p, LSR), 0x60);
	machine_destroy(p.m);
}

static void test_loopback(void)
{
	struct port p;

	port_make(&p, -1);
	put(&p, MCR, 0x10);
	CU_ASSERT_EQUAL(get(&p, MSR) & 0xf0, 0x00);
	put(&p, MCR, 0x1a); /* RTS, OUT2 */
	CU_ASSERT_EQUAL(get(&p, MSR), 0x99);
	CU_ASSERT_EQUAL(get(&p, MSR), 0x90); /* the changes were read */
	put(&p, DATA, 'L');
	CU_ASSERT_EQUAL(p.nout, 0);
	CU_ASSERT_EQUAL(get(&p, LSR) & 1, 1);
	put(&p, DATA, 'M'); /* no FIFO: overrun */
	CU_ASSERT_EQUAL(get(&p, LSR) & 2, 2);
	CU_ASSERT_EQUAL(get(&p, LSR) & 2, 0);
	CU_ASSERT_EQUAL(get(&p, DATA), 'L');
	CU_ASSERT_EQUAL(type(&p, "z"), 0);
	put(&p, MCR, 0x00);
	CU_ASSERT_EQUAL(get(&p, MSR) & 0xf0, 0xb0);
	machine_destroy(p.m);
}

/* A reader that stalls costs nothing but its own text; one that comes back gets the rest. */
static void test_full_pipe(void)
{
	char buf[4096];
	int ends[2];
	struct port p;
	size_t total = 0;
	ssize_t n;

	CU_ASSERT_EQUAL_FATAL(pipe2(ends, O_CLOEXEC), 0);
	CU_ASSERT_TRUE(fcntl(ends[1], F_SETPIPE_SZ, 4096) >= 4096);
	port_make(&p, ends[1]);
	for (unsigned i = 0; i < 12000; i++)
		put(&p, DATA, (uint8_t)('a' + i % 26));
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	for (unsigned i = 0; i < 12000 && total < 12000; i++) {
		n = read(ends[0], buf, sizeof(buf));
		for (ssize_t k = 0; k < n; k++, total++)
			if (buf[k] != (char)('a' + total % 26))
				CU_FAIL("out of order");
		if (n <= 0)
			usleep(1000);
	}
	CU_ASSERT_EQUAL(total, 12000); /* without the guest writing anything more */
	for (unsigned i = 0; i < 100000; i++)
		put(&p, DATA, '.');
	machine_destroy(p.m);
	close(ends[0]);
	close(ends[1]);
}

static void test_reader_gone(void)
{
	int ends[2];
	struct port p;

	CU_ASSERT_EQUAL_FATAL(pipe2(ends, O_CLOEXEC), 0);
	close(ends[0]);
	port_make(&p, ends[1]);
	for (unsigned i = 0; i < 100; i++)
		put(&p, DATA, 'x');
	machine_destroy(p.m);
	close(ends[1]);
	CU_PASS("still here");
}

static void test_save_load(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];
	struct port a, b;

	port_make(&a, -1);
	put(&a, MCR, 0x08);
	put(&a, IER, 0x03);
	put(&a, IIR, 0x41);
	put(&a, SCR, 0x77);
	type(&a, "typed");
	CU_ASSERT_EQUAL(get(&a, DATA), 't');
	CU_ASSERT_EQUAL(machine_save(a.m, &w), 0);
	port_make(&b, -1);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL(machine_load(b.m, &r, why), 0);
	CU_ASSERT_TRUE(b.line);
	CU_ASSERT_EQUAL(get(&b, SCR), 0x77);
	CU_ASSERT_EQUAL(get(&b, IIR), 0xc4); /* four, the trigger level */
	CU_ASSERT_EQUAL(get(&b, DATA), 'y');
	CU_ASSERT_EQUAL(get(&b, IIR), 0xcc);
	CU_ASSERT_EQUAL(get(&b, DATA), 'p');
	machine_destroy(a.m);
	machine_destroy(b.m);
	state_writer_free(&w);
}

/* Bit 4 of the modem control register: a break comes back as a zero character with an error. */
static void test_loopback_break(void)
{
	struct port p;

	port_make(&p, -1);
	put(&p, IIR, 0x01);
	put(&p, MCR, 0x10);
	put(&p, LCR, 0x43);
	CU_ASSERT_EQUAL(get(&p, LSR), 0xf1);
	CU_ASSERT_EQUAL(get(&p, LSR), 0x61);
	put(&p, LCR, 0x03);
	CU_ASSERT_EQUAL(get(&p, DATA), 0x00);
	CU_ASSERT_EQUAL(get(&p, LSR), 0x60);
	/* the other bits of FCR count with bit 0 alone: 8.5 */
	put(&p, IIR, 0x00);
	put(&p, DATA, 'k');
	put(&p, IIR, 0x02);
	CU_ASSERT_EQUAL(get(&p, LSR), 0x61);
	CU_ASSERT_EQUAL(get(&p, DATA), 'k');
	machine_destroy(p.m);
}

static const uint16_t com[VMM_SERIALS_MAX] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};

static void ports_make(struct port *p, unsigned mask)
{
	struct machine_config cfg;

	machine_config_init(&cfg);
	for (unsigned i = 0; i < VMM_SERIALS_MAX; i++)
		cfg.serials[i].on = mask >> i & 1;
	port_make_with(p, &cfg);
}

/* Each is there where it belongs, and nothing is where it is not wanted. */
static void test_four_ports(void)
{
	struct port p;

	for (unsigned mask = 0; mask < 16; mask++) {
		ports_make(&p, mask);
		for (unsigned i = 0; i < VMM_SERIALS_MAX; i++) {
			put(&p, com[i] + 7, (uint8_t)(0x50 + i));
			put(&p, com[i] + 4, 0);
		}
		for (unsigned i = 0; i < VMM_SERIALS_MAX; i++) {
			bool there = !i || (mask >> i & 1);

			CU_ASSERT_EQUAL(get(&p, com[i] + 7), there ? 0x50 + i : 0xff);
			CU_ASSERT_EQUAL(
				machine_serial_input(p.m, i, (const uint8_t *)"x", 1), there);
		}
		CU_ASSERT_EQUAL(machine_serial_input(p.m, VMM_SERIALS_MAX, NULL, 0), 0);
		machine_destroy(p.m);
	}
}

/* Two ports on one line: it is high while either wants it. */
static void test_shared_interrupt(void)
{
	const uint8_t a = 'a';
	struct port p;

	ports_make(&p, 15);
	for (unsigned i = 0; i < VMM_SERIALS_MAX; i++) {
		put(&p, com[i] + 4, 0x08);
		put(&p, com[i] + 1, 0x01);
	}
	CU_ASSERT_FALSE(p.line);
	CU_ASSERT_FALSE(p.line3);
	machine_serial_input(p.m, 0, &a, 1);
	CU_ASSERT_TRUE(p.line);
	CU_ASSERT_FALSE(p.line3);
	machine_serial_input(p.m, 2, &a, 1);
	get(&p, com[0]);
	CU_ASSERT_TRUE(p.line);
	get(&p, com[2]);
	CU_ASSERT_FALSE(p.line);
	CU_ASSERT_EQUAL(p.rises, 1);
	machine_serial_input(p.m, 3, &a, 1);
	CU_ASSERT_TRUE(p.line3);
	machine_serial_input(p.m, 1, &a, 1);
	get(&p, com[3]);
	CU_ASSERT_TRUE(p.line3);
	get(&p, com[1]);
	CU_ASSERT_FALSE(p.line3);
	CU_ASSERT_FALSE(p.line);
	machine_destroy(p.m);
}

static bool comes(struct port *p, uint16_t base, const char *text)
{
	for (; *text; text++) {
		for (unsigned i = 0; i < 5000 && !(get(p, base + 5) & 1); i++)
			usleep(1000);
		if (!(get(p, base + 5) & 1) || get(p, base) != (uint8_t)*text)
			return false;
	}
	return true;
}

static bool read_all(int fd, char *buf, size_t n)
{
	size_t got = 0;
	ssize_t rc;

	while (got < n && (rc = read(fd, buf + got, n - got)) > 0)
		got += (size_t)rc;
	return got == n;
}

/* A pair of descriptors at the second port: all that comes is taken, however slowly. */
static void test_line_input(void)
{
	struct machine_config cfg;
	uint8_t in[6000];
	int ends[2];
	struct port p;
	char out[5];
	bool same = true;

	CU_ASSERT_EQUAL_FATAL(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	fcntl(ends[0], F_SETFL, 0);
	machine_config_init(&cfg);
	cfg.serials[1].on = true;
	cfg.serials[1].line.in = cfg.serials[1].line.out = ends[1];
	port_make_with(&p, &cfg);
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)('A' + i % 57);
	put(&p, 0x2fa, 0x01);
	CU_ASSERT_EQUAL(write(ends[0], in, sizeof(in)), sizeof(in));
	for (size_t i = 0; i < sizeof(in) && same; i++) {
		char c[2] = {(char)in[i], 0};

		same = comes(&p, 0x2f8, c);
	}
	CU_ASSERT_TRUE(same);
	for (const char *c = "hello"; *c; c++)
		put(&p, 0x2f8, (uint8_t)*c);
	CU_ASSERT_TRUE(read_all(ends[0], out, 5) && !memcmp(out, "hello", 5));
	/* nothing is taken from a paused machine's line */
	CU_ASSERT_EQUAL(machine_pause(p.m), 0);
	CU_ASSERT_EQUAL(write(ends[0], "later", 5), 5);
	usleep(20000);
	CU_ASSERT_EQUAL(get(&p, 0x2fd), 0x60);
	CU_ASSERT_EQUAL(machine_resume(p.m), 0);
	CU_ASSERT_TRUE(comes(&p, 0x2f8, "later"));
	/* the other end goes: so be it */
	close(ends[0]);
	usleep(20000);
	put(&p, 0x2f8, 'x');
	CU_ASSERT_EQUAL(get(&p, 0x2fd), 0x60);
	machine_destroy(p.m);
	close(ends[1]);
}

static void socket_connect_with(int fd, const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		abort();
}

static int socket_connect(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	socket_connect_with(fd, path);
	return fd;
}

/* One after the other may connect; what the guest says while nobody is there is gone. */
static void test_line_socket(void)
{
	char why[BACKEND_WHY_MAX], path[64], out[3];
	struct machine_config cfg;
	struct unix_socket *s;
	struct port p;
	int fd;

	snprintf(path, sizeof(path), "build/tmp/serial.%d", getpid());
	CU_ASSERT_EQUAL_FATAL(unix_socket_open(&s, "serial ", path, why), 0);
	machine_config_init(&cfg);
	cfg.serials[3].on = true;
	cfg.serials[3].line.listener = unix_socket_fd(s);
	port_make_with(&p, &cfg);
	put(&p, 0x2e8, '0');
	for (unsigned i = 0; i < 3; i++) {
		fd = socket_connect(path);
		CU_ASSERT_EQUAL(write(fd, "hi", 2), 2);
		CU_ASSERT_TRUE(comes(&p, 0x2e8, "hi"));
		for (const char *c = "yes"; *c; c++)
			put(&p, 0x2e8, (uint8_t)*c);
		CU_ASSERT_TRUE(read_all(fd, out, 3) && !memcmp(out, "yes", 3));
		close(fd);
		put(&p, 0x2e8, 'n');
	}
	/* and one whose client never reads */
	fd = socket_connect(path);
	CU_ASSERT_EQUAL(write(fd, "x", 1), 1);
	CU_ASSERT_TRUE(comes(&p, 0x2e8, "x"));
	for (unsigned i = 0; i < 400000; i++)
		put(&p, 0x2e8, '.');
	CU_PASS("not blocked");
	machine_destroy(p.m);
	close(fd);
	unix_socket_free(s);
	CU_ASSERT_NOT_EQUAL(access(path, F_OK), 0);
}

/* Who cannot be let in for want of a descriptor waits, and costs little meanwhile. */
static void test_line_descriptors(void)
{
	char why[BACKEND_WHY_MAX], path[64], out[1];
	struct rlimit limit, none;
	struct machine_config cfg;
	struct machine_counters before, after;
	struct unix_socket *s;
	struct port p;
	int fd;

	snprintf(path, sizeof(path), "build/tmp/serial.%d", getpid());
	CU_ASSERT_EQUAL_FATAL(unix_socket_open(&s, "serial ", path, why), 0);
	machine_config_init(&cfg);
	cfg.serials[1].on = true;
	cfg.serials[1].line.listener = unix_socket_fd(s);
	port_make_with(&p, &cfg);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	getrlimit(RLIMIT_NOFILE, &limit);
	none = limit;
	none.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &none);
	machine_counters_get(p.m, &before);
	socket_connect_with(fd, path);
	usleep(200000);
	machine_counters_get(p.m, &after);
	CU_ASSERT(after.device_system_calls > before.device_system_calls + 1);
	CU_ASSERT(after.device_system_calls < before.device_system_calls + 1000);
	setrlimit(RLIMIT_NOFILE, &limit);
	CU_ASSERT_EQUAL(write(fd, "x", 1), 1);
	CU_ASSERT_TRUE(comes(&p, 0x2f8, "x"));
	put(&p, 0x2f8, 'y');
	CU_ASSERT_TRUE(read_all(fd, out, 1) && *out == 'y');
	machine_destroy(p.m);
	close(fd);
	unix_socket_free(s);
}

/* Every port's state goes with it. */
static void test_save_load_four(void)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX];
	struct port a, b;

	ports_make(&a, 15);
	for (unsigned i = 0; i < VMM_SERIALS_MAX; i++) {
		uint8_t c = (uint8_t)('a' + i);

		put(&a, com[i] + 7, (uint8_t)(0x70 + i));
		machine_serial_input(a.m, i, &c, 1);
	}
	put(&a, com[3] + 4, 0x08);
	put(&a, com[3] + 1, 0x01);
	CU_ASSERT_EQUAL(machine_save(a.m, &w), 0);
	ports_make(&b, 15);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_EQUAL(machine_load(b.m, &r, why), 0);
	CU_ASSERT_TRUE(b.line3);
	CU_ASSERT_FALSE(b.line);
	for (unsigned i = 0; i < VMM_SERIALS_MAX; i++) {
		CU_ASSERT_EQUAL(get(&b, com[i] + 7), 0x70 + i);
		CU_ASSERT_EQUAL(get(&b, com[i]), 'a' + i);
	}
	machine_destroy(b.m);
	/* a machine with fewer ports is another machine */
	ports_make(&b, 3);
	state_reader_init(&r, w.data, w.len);
	CU_ASSERT_NOT_EQUAL(machine_load(b.m, &r, why), 0);
	machine_destroy(a.m);
	machine_destroy(b.m);
	state_writer_free(&w);
}

static const struct unit_case cases[] = {
	{"registers", test_registers},
	{"output", test_output},
	{"transmit interrupt", test_transmit_interrupt},
	{"receive", test_receive},
	{"FIFO trigger levels", test_fifo_trigger},
	{"input is bounded", test_input_bounded},
	{"loopback", test_loopback},
	{"a full pipe", test_full_pipe},
	{"a reader that has gone", test_reader_gone},
	{"save and load", test_save_load},
	{"a break in loopback", test_loopback_break},
	{"four ports", test_four_ports},
	{"shared interrupts", test_shared_interrupt},
	{"input by descriptor", test_line_input},
	{"a socket", test_line_socket},
	{"a socket, out of descriptors", test_line_descriptors},
	{"save and load of four", test_save_load_four},
};

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	return unit_main("serial", cases, sizeof(cases) / sizeof(cases[0]));
}
