/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ACPI tables as an operating system walks them: every checksum, length and pointer from the
 * RSDP on, what they say of processors and ports, and the AML's packages.
 */
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

#define BASE 0xe0000u
#define ROOM 65536u

static uint8_t tables[ROOM];
static size_t len;

static uint64_t get(size_t at, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size && at + i < len; i++)
		v |= (uint64_t)tables[at + i] << (8 * i);
	return v;
}

static uint8_t sum(size_t at, size_t n)
{
	uint8_t s = 0;

	for (size_t i = 0; i < n && at + i < len; i++)
		s += tables[at + i];
	return s;
}

static void build_with(const struct acpi_config *cfg)
{
	memset(tables, 0xcc, sizeof(tables));
	len = acpi_tables_build(tables, sizeof(tables), BASE, cfg);
	CU_ASSERT_FATAL(len > 0 && len < sizeof(tables));
}

static void build(unsigned cpus)
{
	struct acpi_config cfg = {.cpus = cpus, .serials = 1};

	build_with(&cfg);
}

/* Checked, and where it is. */
static size_t table_at(uint64_t address, const char *signature)
{
	size_t at = (size_t)(address - BASE);

	CU_ASSERT_FATAL(address >= BASE && at + 36 <= len);
	CU_ASSERT(!memcmp(tables + at, signature, 4));
	CU_ASSERT_FATAL(get(at + 4, 4) >= 36 && at + get(at + 4, 4) <= len);
	CU_ASSERT_EQUAL(sum(at, get(at + 4, 4)), 0);
	return at;
}

static size_t xsdt_entry(unsigned i, const char *signature)
{
	size_t xsdt = table_at(get(24, 8), "XSDT");

	CU_ASSERT_FATAL(36 + 8 * (i + 1) <= get(xsdt + 4, 4));
	return table_at(get(xsdt + 36 + 8 * i, 8), signature);
}

static void test_rsdp(void)
{
	build(1);
	CU_ASSERT(!memcmp(tables, "RSD PTR ", 8));
	CU_ASSERT_EQUAL(get(15, 1), 2);
	CU_ASSERT_EQUAL(get(20, 4), 36);
	CU_ASSERT_EQUAL(sum(0, 20), 0);
	CU_ASSERT_EQUAL(sum(0, 36), 0);
}

static void test_fadt(void)
{
	size_t fadt, facs;

	build(2);
	fadt = xsdt_entry(0, "FACP");
	CU_ASSERT_EQUAL(get(fadt + 4, 4), 276);
	CU_ASSERT_EQUAL(get(fadt + 8, 1), 6);
	CU_ASSERT_EQUAL(get(fadt + 46, 2), 9);
	CU_ASSERT_EQUAL(get(fadt + 56, 4), 0x600);
	CU_ASSERT_EQUAL(get(fadt + 64, 4), 0x604);
	CU_ASSERT_EQUAL(get(fadt + 76, 4), 0x608);
	CU_ASSERT_EQUAL(get(fadt + 88, 1), 4);
	CU_ASSERT_EQUAL(get(fadt + 89, 1), 2);
	CU_ASSERT_EQUAL(get(fadt + 91, 1), 4);
	/* the reset register: system I/O, 8 bits, 0xCF9, 6; and that it counts */
	CU_ASSERT_EQUAL(get(fadt + 116, 4), 0x01000801);
	CU_ASSERT_EQUAL(get(fadt + 120, 8), 0xcf9);
	CU_ASSERT_EQUAL(get(fadt + 128, 1), 6);
	CU_ASSERT(get(fadt + 112, 4) & 1u << 10);
	/* no reduced hardware */
	CU_ASSERT(!(get(fadt + 112, 4) & 1u << 20));
	CU_ASSERT_EQUAL(get(fadt + 152, 8), get(fadt + 56, 4));
	CU_ASSERT_EQUAL(get(fadt + 176, 8), get(fadt + 64, 4));
	CU_ASSERT_EQUAL(get(fadt + 212, 8), get(fadt + 76, 4));
	CU_ASSERT_EQUAL(get(fadt + 140, 8), get(fadt + 40, 4));
	table_at(get(fadt + 40, 4), "DSDT");
	facs = get(fadt + 36, 4) - BASE;
	CU_ASSERT_FATAL(facs + 64 <= len);
	CU_ASSERT_EQUAL(facs % 64, 0);
	CU_ASSERT(!memcmp(tables + facs, "FACS", 4));
	CU_ASSERT_EQUAL(get(facs + 4, 4), 64);
}

struct madt {
	unsigned lapics, x2apics, ioapics, overrides, levels;
	uint64_t highest;
};

static struct madt madt_walk(void)
{
	size_t at = xsdt_entry(1, "APIC"), end = at + get(at + 4, 4), e;
	struct madt m = {0};
	uint64_t id;

	CU_ASSERT_EQUAL(get(at + 36, 4), 0xfee00000);
	for (e = at + 44; e + 2 <= end; e += get(e + 1, 1)) {
		CU_ASSERT_FATAL(get(e + 1, 1) >= 2 && e + get(e + 1, 1) <= end);
		switch (get(e, 1)) {
		case 0:
			id = get(e + 3, 1);
			CU_ASSERT_EQUAL(id, m.lapics);
			CU_ASSERT_EQUAL(get(e + 4, 4), 1);
			m.lapics++;
			m.highest = id;
			break;
		case 1:
			CU_ASSERT_EQUAL(get(e + 4, 4), 0xfec00000);
			CU_ASSERT_EQUAL(get(e + 8, 4), 0);
			m.ioapics++;
			break;
		case 2:
			/* never the timer: its GSI is its number */
			CU_ASSERT_EQUAL(get(e + 3, 1), get(e + 4, 4));
			CU_ASSERT(get(e + 3, 1) >= 9 && get(e + 3, 1) <= 11);
			m.overrides++;
			m.levels += get(e + 8, 2) == 0xd;
			break;
		case 9:
			m.x2apics++;
			m.highest = get(e + 4, 4);
			break;
		default:
			break;
		}
	}
	CU_ASSERT_EQUAL(e, end);
	return m;
}

static void test_madt(void)
{
	static const unsigned counts[] = {1, 8, 64, 255, 300};
	struct madt m;

	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		build(counts[i]);
		m = madt_walk();
		CU_ASSERT_EQUAL(m.lapics + m.x2apics, counts[i]);
		CU_ASSERT_EQUAL(m.highest, counts[i] - 1);
		CU_ASSERT_EQUAL(m.x2apics, counts[i] > 255 ? counts[i] - 255 : 0);
		CU_ASSERT_EQUAL(m.ioapics, 1);
		CU_ASSERT_EQUAL(m.overrides, 3);
		CU_ASSERT_EQUAL(m.levels, 3);
	}
}

/* The end of a package, buffer or device whose length is at `at`. */
static size_t package_end(size_t at)
{
	unsigned more = get(at, 1) >> 6;
	uint64_t n = more ? get(at, 1) & 0xf : get(at, 1) & 0x3f;

	for (unsigned i = 0; i < more; i++)
		n |= get(at + 1 + i, 1) << (4 + 8 * i);
	return at + n;
}

static size_t find(size_t from, size_t to, const char *what)
{
	size_t n = strlen(what);

	for (size_t i = from; i + n <= to; i++)
		if (!memcmp(tables + i, what, n))
			return i;
	return 0;
}

static uint64_t integer(size_t *at)
{
	uint64_t op = get(*at, 1), v = op;
	unsigned size = op == 0x0a ? 1 : op == 0x0b ? 2 : op == 0x0c ? 4 : 0;

	if (size)
		v = get(*at + 1, size);
	*at += 1 + size;
	return v;
}

static void test_dsdt_routing(void)
{
	static const unsigned gsi[4] = {10, 11, 10, 11};
	size_t dsdt, end, at, prt;

	build(1);
	dsdt = table_at(get(xsdt_entry(0, "FACP") + 40, 4), "DSDT");
	end = dsdt + get(dsdt + 4, 4);
	at = find(dsdt, end, "_PRT");
	CU_ASSERT_FATAL(at != 0);
	CU_ASSERT_EQUAL(get(at + 4, 1), 0x12);
	prt = package_end(at + 5);
	CU_ASSERT_FATAL(prt <= end);
	CU_ASSERT_EQUAL(get(at + 8, 1), 128);
	at += 9;
	for (unsigned i = 0; i < 128; i++) {
		size_t entry = package_end(at + 1);

		CU_ASSERT_EQUAL(get(at, 1), 0x12);
		CU_ASSERT_EQUAL(get(at + 4, 1), 4);
		at += 5;
		CU_ASSERT_EQUAL(integer(&at), (i / 4) << 16 | 0xffff);
		CU_ASSERT_EQUAL(integer(&at), i % 4);
		CU_ASSERT_EQUAL(integer(&at), 0);
		/* the board's wiring: device 1's INTA# is PIRQA */
		CU_ASSERT_EQUAL(integer(&at), gsi[(i / 4 + i % 4 + 3) & 3]);
		CU_ASSERT_EQUAL_FATAL(at, entry);
	}
	CU_ASSERT_EQUAL(at, prt);
}

static void test_dsdt_devices(void)
{
	static const char *const names[] = {"PCI0", "ISA_", "COM1", "RTC_", "PS2K", "PS2M", "_S5_"};
	size_t dsdt, end;

	build(1);
	dsdt = table_at(get(xsdt_entry(0, "FACP") + 40, 4), "DSDT");
	end = dsdt + get(dsdt + 4, 4);
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		CU_ASSERT(find(dsdt, end, names[i]) != 0);
	/* \_SB is one scope, and _S5 follows it */
	CU_ASSERT_EQUAL(get(dsdt + 36, 1), 0x10);
	CU_ASSERT_EQUAL(package_end(dsdt + 37) + 1, find(dsdt, end, "_S5_"));
}

/* What a port is said to have: its ports and its interrupt, which two may share. */
static void test_dsdt_ports(void)
{
	static const struct {
		const char *name;
		unsigned port, irq;
	} com[4] = {{"COM1", 0x3f8, 4}, {"COM2", 0x2f8, 3}, {"COM3", 0x3e8, 4}, {"COM4", 0x2e8, 3}};
	struct acpi_config cfg = {.cpus = 1};

	for (cfg.serials = 0; cfg.serials < 16; cfg.serials++) {
		size_t dsdt, end, at, io;

		build_with(&cfg);
		dsdt = table_at(get(xsdt_entry(0, "FACP") + 40, 4), "DSDT");
		end = dsdt + get(dsdt + 4, 4);
		for (unsigned i = 0; i < 4; i++) {
			bool shared = cfg.serials & 1u << (i ^ 2);

			at = find(dsdt, end, com[i].name);
			CU_ASSERT_EQUAL(at != 0, (cfg.serials >> i & 1) != 0);
			if (!at)
				continue;
			io = find(at, package_end(at - 3), "\x47\x01");
			CU_ASSERT_FATAL(io != 0);
			CU_ASSERT_EQUAL(get(io + 2, 2), com[i].port);
			CU_ASSERT_EQUAL(get(io + 4, 2), com[i].port);
			CU_ASSERT_EQUAL(get(io + 7, 1), 8);
			CU_ASSERT_EQUAL(get(io + 8, 1), shared ? 0x23 : 0x22);
			CU_ASSERT_EQUAL(get(io + 9, 2), 1u << com[i].irq);
			CU_ASSERT_EQUAL(get(io + 11, 1), shared ? 0x11 : 0x79);
		}
	}
}

static void test_dsdt_parallel(void)
{
	struct acpi_config cfg = {.cpus = 1, .parallel = true};
	size_t dsdt, end, io;

	build_with(&cfg);
	dsdt = table_at(get(xsdt_entry(0, "FACP") + 40, 4), "DSDT");
	end = dsdt + get(dsdt + 4, 4);
	io = find(find(dsdt, end, "LPT1"), end, "\x47\x01");
	CU_ASSERT_FATAL(io != 0);
	CU_ASSERT_EQUAL(get(io + 2, 2), 0x378);
	CU_ASSERT_EQUAL(get(io + 7, 1), 3);
	CU_ASSERT_EQUAL(get(io + 8, 1), 0x22);
	CU_ASSERT_EQUAL(get(io + 9, 2), 1u << 7);
	build(1);
	dsdt = table_at(get(xsdt_entry(0, "FACP") + 40, 4), "DSDT");
	CU_ASSERT_EQUAL(find(dsdt, dsdt + get(dsdt + 4, 4), "LPT1"), 0);
}

static void test_no_room(void)
{
	struct acpi_config cfg = {.cpus = 4, .serials = 15, .parallel = true};
	size_t whole;

	whole = acpi_tables_build(tables, sizeof(tables), BASE, &cfg);
	CU_ASSERT_FATAL(whole > 0);
	for (size_t room = 0; room < whole; room++) {
		uint8_t *exact = malloc(room + 1);

		if (!exact)
			abort();
		exact[room] = 0x5a;
		CU_ASSERT_EQUAL(acpi_tables_build(exact, room, BASE, &cfg), 0);
		CU_ASSERT_EQUAL(exact[room], 0x5a);
		free(exact);
	}
	CU_ASSERT_EQUAL(acpi_tables_build(tables, whole, BASE, &cfg), whole);
}

static const struct unit_case cases[] = {
	{"RSDP", test_rsdp},
	{"FADT and FACS", test_fadt},
	{"MADT", test_madt},
	{"DSDT: interrupt routing", test_dsdt_routing},
	{"DSDT: devices", test_dsdt_devices},
	{"DSDT: serial ports", test_dsdt_ports},
	{"DSDT: parallel port", test_dsdt_parallel},
	{"too little room", test_no_room},
};

UNIT_MAIN("acpi", cases)
