/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The DSDT: devices that do not announce themselves, PCI's windows and interrupt routing, and the
 * way to switch off, in AML (ACPI 6.4, chapter 20; resource descriptors 6.4).
 */
#include "vmm/acpi_priv.h"

#define AML_ZERO    0x00u
#define AML_ONE     0x01u
#define AML_NAME    0x08u
#define AML_BYTE    0x0au
#define AML_WORD    0x0bu
#define AML_DWORD   0x0cu
#define AML_SCOPE   0x10u
#define AML_BUFFER  0x11u
#define AML_PACKAGE 0x12u
#define AML_EXT     0x5bu
#define AML_DEVICE  0x82u

#define RES_IO         0x47u
#define RES_IRQ        0x22u
#define RES_IRQ_FLAGS  0x23u
#define RES_IRQ_EDGE   0x01u
#define RES_IRQ_SHARED 0x10u
#define RES_END        0x79u
#define RES_WORD       0x88u
#define RES_DWORD      0x87u
#define RES_MEMORY     0u
#define RES_PORTS      1u
#define RES_BUSES      2u
#define RES_FIXED      0x0cu /* both ends */
#define RES_ALL_PORTS  0x03u
#define RES_RW         0x01u
#define RES_CACHEABLE  0x02u

#define PCI_WINDOW     0xc0000000u
#define PCI_WINDOW_END 0xfebfffffu
#define DSDT_SLOTS     32u
#define DSDT_PINS      4u

/* ------------------------------------------------------------------ AML */

/* A package length of three bytes, filled in by aml_end(). */
static size_t aml_begin(struct acpi_out *o, unsigned opcode)
{
	size_t at;

	if (opcode > 0xff)
		acpi_put(o, opcode >> 8, 1);
	acpi_put(o, opcode & 0xff, 1);
	at = o->len;
	acpi_put(o, 0, 3);
	return at;
}

static void aml_end(struct acpi_out *o, size_t at)
{
	size_t len = o->len - at;

	if (o->full)
		return;
	o->bytes[at] = 0x80 | (len & 0x0f);
	o->bytes[at + 1] = len >> 4;
	o->bytes[at + 2] = len >> 12;
}

static void aml_int(struct acpi_out *o, uint32_t v)
{
	if (v > 1)
		acpi_put(o, v > 0xffff ? AML_DWORD : v > 0xff ? AML_WORD : AML_BYTE, 1);
	acpi_put(o, v, v > 0xffff ? 4 : v > 0xff ? 2 : 1);
}

static void aml_name(struct acpi_out *o, const char *name)
{
	acpi_put(o, AML_NAME, 1);
	acpi_put_text(o, name, 4);
}

static void aml_name_int(struct acpi_out *o, const char *name, uint32_t v)
{
	aml_name(o, name);
	aml_int(o, v);
}

/* A plug and play id, such as PNP0A03, as ASL's EISAID() packs it. */
static void aml_hid(struct acpi_out *o, const char *name, uint16_t product)
{
	aml_name(o, name);
	acpi_put(o, AML_DWORD, 1);
	acpi_put(o, 0xd041, 2); /* "PNP" */
	acpi_put(o, product >> 8, 1);
	acpi_put(o, product & 0xff, 1);
}

static size_t aml_device(struct acpi_out *o, const char *name)
{
	size_t at = aml_begin(o, AML_EXT << 8 | AML_DEVICE);

	acpi_put_text(o, name, 4);
	return at;
}

/* ------------------------------------------------------------------ resources */

struct aml_crs {
	size_t buffer, size;
};

static struct aml_crs crs_begin(struct acpi_out *o)
{
	struct aml_crs crs;

	aml_name(o, "_CRS");
	crs.buffer = aml_begin(o, AML_BUFFER);
	acpi_put(o, AML_WORD, 1);
	crs.size = o->len;
	acpi_put(o, 0, 2);
	return crs;
}

static void crs_end(struct acpi_out *o, struct aml_crs crs)
{
	size_t len;

	acpi_put(o, RES_END, 1);
	acpi_put(o, 0, 1); /* no checksum */
	len = o->len - crs.size - 2;
	if (!o->full) {
		o->bytes[crs.size] = len;
		o->bytes[crs.size + 1] = len >> 8;
	}
	aml_end(o, crs.buffer);
}

static void crs_io(struct acpi_out *o, uint16_t port, uint8_t count)
{
	acpi_put(o, RES_IO, 1);
	acpi_put(o, 1, 1); /* 16 address lines */
	acpi_put(o, port, 2);
	acpi_put(o, port, 2);
	acpi_put(o, 1, 1);
	acpi_put(o, count, 1);
}

static void crs_irq(struct acpi_out *o, unsigned irq)
{
	acpi_put(o, RES_IRQ, 1);
	acpi_put(o, 1u << irq, 2);
}

/* Rising edge, and several devices may drive it (6.4.2.1, with the byte of flags). */
static void crs_irq_shared(struct acpi_out *o, unsigned irq)
{
	acpi_put(o, RES_IRQ_FLAGS, 1);
	acpi_put(o, 1u << irq, 2);
	acpi_put(o, RES_IRQ_EDGE | RES_IRQ_SHARED, 1);
}

/* A window the bridge passes on. */
static void crs_window(
	struct acpi_out *o, unsigned type, unsigned flags, uint32_t min, uint32_t max)
{
	bool wide = type == RES_MEMORY;
	unsigned size = wide ? 4 : 2;

	acpi_put(o, wide ? RES_DWORD : RES_WORD, 1);
	acpi_put(o, 3 + 5 * size, 2);
	acpi_put(o, type, 1);
	acpi_put(o, RES_FIXED, 1);
	acpi_put(o, flags, 1);
	acpi_put(o, 0, size); /* granularity */
	acpi_put(o, min, size);
	acpi_put(o, max, size);
	acpi_put(o, 0, size); /* translation */
	acpi_put(o, max - min + 1, size);
}

/* ------------------------------------------------------------------ devices */

static void dsdt_pci_crs(struct acpi_out *o)
{
	struct aml_crs crs = crs_begin(o);

	crs_window(o, RES_BUSES, 0, 0, 0);
	crs_io(o, 0xcf8, 8);
	crs_window(o, RES_PORTS, RES_ALL_PORTS, 0, 0xcf7);
	crs_window(o, RES_PORTS, RES_ALL_PORTS, 0xd00, 0xffff);
	crs_window(o, RES_MEMORY, RES_RW | RES_CACHEABLE, 0xa0000, 0xbffff);
	crs_window(o, RES_MEMORY, RES_RW, PCI_WINDOW, PCI_WINDOW_END);
	crs_end(o, crs);
}

/* Straight to the GSI that pci.c's PIRQ registers say: the same number with PIC and IOAPIC. */
static void dsdt_pci_prt(struct acpi_out *o)
{
	static const uint8_t gsi[4] = {10, 11, 10, 11};
	size_t prt, entry;

	aml_name(o, "_PRT");
	prt = aml_begin(o, AML_PACKAGE);
	acpi_put(o, DSDT_SLOTS * DSDT_PINS, 1);
	for (unsigned slot = 0; slot < DSDT_SLOTS; slot++)
		for (unsigned pin = 0; pin < DSDT_PINS; pin++) {
			entry = aml_begin(o, AML_PACKAGE);
			acpi_put(o, 4, 1);
			aml_int(o, slot << 16 | 0xffff);
			aml_int(o, pin);
			aml_int(o, 0);
			aml_int(o, gsi[(slot + 3 + pin) & 3]);
			aml_end(o, entry);
		}
	aml_end(o, prt);
}

/* Four ports at most, and an interrupt. */
static void dsdt_isa(struct acpi_out *o, const char *name, uint16_t id, unsigned irq, uint16_t port,
	unsigned count, uint16_t second)
{
	size_t device = aml_device(o, name);
	struct aml_crs crs;

	aml_hid(o, "_HID", id);
	aml_name_int(o, "_STA", 0x0f);
	crs = crs_begin(o);
	if (count)
		crs_io(o, port, count);
	if (second)
		crs_io(o, second, 1);
	crs_irq(o, irq);
	crs_end(o, crs);
	aml_end(o, device);
}

/* Those that exist, as serial.c places them. */
static void dsdt_serials(struct acpi_out *o, unsigned present)
{
	static const struct {
		const char *name;
		uint16_t port;
		uint8_t irq;
	} places[VMM_SERIALS_MAX] = {
		{"COM1", 0x3f8, 4}, {"COM2", 0x2f8, 3}, {"COM3", 0x3e8, 4}, {"COM4", 0x2e8, 3}};

	for (unsigned i = 0; i < VMM_SERIALS_MAX; i++) {
		struct aml_crs crs;
		size_t device;

		if (!(present & 1u << i))
			continue;
		device = aml_device(o, places[i].name);
		aml_hid(o, "_HID", 0x0501);
		aml_name_int(o, "_UID", i + 1);
		aml_name_int(o, "_STA", 0x0f);
		crs = crs_begin(o);
		crs_io(o, places[i].port, 8);
		/* its line is another port's, too: two apart */
		if (present & (i < 2 ? 4u << i : 1u << (i - 2)))
			crs_irq_shared(o, places[i].irq);
		else
			crs_irq(o, places[i].irq);
		crs_end(o, crs);
		aml_end(o, device);
	}
}

static void dsdt_pci(struct acpi_out *o, const struct acpi_config *cfg)
{
	size_t pci = aml_device(o, "PCI0"), isa;

	aml_hid(o, "_HID", 0x0a03);
	aml_name_int(o, "_ADR", 0);
	aml_name_int(o, "_BBN", 0);
	aml_name_int(o, "_UID", 0);
	dsdt_pci_crs(o);
	dsdt_pci_prt(o);
	isa = aml_device(o, "ISA_");
	aml_name_int(o, "_ADR", 0x10000);
	dsdt_serials(o, cfg->serials);
	if (cfg->parallel)
		dsdt_isa(o, "LPT1", 0x0400, 7, 0x378, 3, 0);
	dsdt_isa(o, "RTC_", 0x0b00, 8, 0x70, 2, 0);
	dsdt_isa(o, "PS2K", 0x0303, 1, 0x60, 1, 0x64);
	dsdt_isa(o, "PS2M", 0x0f13, 12, 0, 0, 0);
	aml_end(o, isa);
	aml_end(o, pci);
}

size_t acpi_dsdt(struct acpi_out *o, const struct acpi_config *cfg)
{
	size_t table = acpi_table_begin(o, "DSDT", 2), scope, package;

	scope = aml_begin(o, AML_SCOPE);
	acpi_put_text(o, "\\_SB_", 5);
	dsdt_pci(o, cfg);
	aml_end(o, scope);
	/* any type switches off; 5 says what is meant */
	aml_name(o, "_S5_");
	package = aml_begin(o, AML_PACKAGE);
	acpi_put(o, 4, 1);
	aml_int(o, 5);
	aml_int(o, 5);
	aml_int(o, 0);
	aml_int(o, 0);
	aml_end(o, package);
	acpi_table_end(o, table);
	return table;
}
