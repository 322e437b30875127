/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ACPI tables (ACPI 6.4, section 5.2): RSDP, XSDT, FADT, FACS, MADT, and the DSDT that
 * acpi_dsdt.c writes. They say what chipset.c, pm.c, irq.c and pci.c do; nothing in them changes
 * while the machine lives.
 */
#include <string.h>

#include "vmm/acpi_priv.h"

#define ACPI_HEADER     36u
#define ACPI_CPU_ID_MAX 254u /* of a local APIC entry; above, x2APIC entries */
#define ACPI_PM_BASE    0x600u
#define ACPI_SCI        9u
#define ACPI_RESET_PORT 0xcf9u
#define ACPI_RESET      6u
#define ACPI_LAPIC      0xfee00000u
#define ACPI_IOAPIC     0xfec00000u
#define ACPI_CENTURY    0x32u

/* FADT: boot architecture and fixed feature flags (5.2.9.3 and table 5.10). */
#define IAPC_LEGACY_DEVICES 0x01u
#define IAPC_8042           0x02u
#define IAPC_NO_VGA         0x04u
#define FADT_WBINVD         (1u << 0)
#define FADT_PROC_C1        (1u << 2)
#define FADT_NO_PWR_BUTTON  (1u << 4)
#define FADT_NO_SLP_BUTTON  (1u << 5)
#define FADT_NO_RTC_WAKE    (1u << 6)
#define FADT_RESET_REG      (1u << 10)

/* MADT entries (5.2.12). */
enum {
	MADT_LAPIC = 0,
	MADT_IOAPIC = 1,
	MADT_OVERRIDE = 2,
	MADT_LAPIC_NMI = 4,
	MADT_X2APIC = 9,
	MADT_X2APIC_NMI = 10,
};
#define MADT_PCAT_COMPAT 1u
#define MADT_ENABLED     1u
#define MADT_LEVEL_HIGH  0x0du

/* ------------------------------------------------------------------ bytes */

void acpi_put(struct acpi_out *o, uint64_t value, unsigned size)
{
	if (o->room - o->len < size) {
		o->full = true;
		return;
	}
	for (unsigned i = 0; i < size; i++)
		o->bytes[o->len++] = i < 8 ? value >> (8 * i) : 0;
}

void acpi_put_text(struct acpi_out *o, const char *text, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		acpi_put(o, (uint8_t)text[i], 1);
}

static void acpi_align(struct acpi_out *o, unsigned align)
{
	while (o->len % align && !o->full)
		acpi_put(o, 0, 1);
}

static void acpi_patch(struct acpi_out *o, size_t at, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size && at + i < o->len; i++)
		o->bytes[at + i] = value >> (8 * i);
}

static void acpi_checksum(struct acpi_out *o, size_t from, size_t to, size_t at)
{
	uint8_t sum = 0;

	if (o->full)
		return;
	for (size_t i = from; i < to; i++)
		sum += o->bytes[i];
	o->bytes[at] -= sum;
}

size_t acpi_table_begin(struct acpi_out *o, const char *signature, unsigned revision)
{
	size_t at;

	acpi_align(o, 16);
	at = o->len;
	acpi_put_text(o, signature, 4);
	acpi_put(o, 0, 4);
	acpi_put(o, revision, 1);
	acpi_put(o, 0, 1);
	acpi_put_text(o, "SLUICE", 6);
	acpi_put_text(o, "SLUICEPC", 8);
	acpi_put(o, 1, 4);
	acpi_put_text(o, "SLUI", 4);
	acpi_put(o, 1, 4);
	return at;
}

void acpi_table_end(struct acpi_out *o, size_t table)
{
	acpi_patch(o, table + 4, o->len - table, 4);
	acpi_checksum(o, table, o->len, table + 9);
}

/* ------------------------------------------------------------------ FADT, FACS */

static void acpi_gas(struct acpi_out *o, uint64_t port, unsigned bytes)
{
	acpi_put(o, port ? 1 : 0, 1); /* system I/O */
	acpi_put(o, bytes * 8, 1);
	acpi_put(o, 0, 1);
	acpi_put(o, bytes == 4 ? 3 : bytes, 1); /* access size: byte, word, dword */
	acpi_put(o, port, 8);
}

static void acpi_fadt_fixed(struct acpi_out *o, uint32_t facs, uint32_t dsdt)
{
	acpi_put(o, facs, 4);
	acpi_put(o, dsdt, 4);
	acpi_put(o, 0, 1);
	acpi_put(o, 0, 1); /* power profile: unspecified */
	acpi_put(o, ACPI_SCI, 2);
	acpi_put(o, 0, 8); /* no SMI: ACPI mode from the start */
	acpi_put(o, ACPI_PM_BASE, 4);
	acpi_put(o, 0, 4);
	acpi_put(o, ACPI_PM_BASE + 4, 4);
	acpi_put(o, 0, 8);
	acpi_put(o, ACPI_PM_BASE + 8, 4);
	acpi_put(o, 0, 8); /* no general purpose events */
	acpi_put(o, 4, 1);
	acpi_put(o, 2, 1);
	acpi_put(o, 0, 1);
	acpi_put(o, 4, 1);
	acpi_put(o, 0, 4);
	acpi_put(o, 0xffff, 2); /* no C2 */
	acpi_put(o, 0xffff, 2); /* no C3 */
	acpi_put(o, 0, 8);      /* flush, duty, alarms */
	acpi_put(o, ACPI_CENTURY, 1);
	acpi_put(o, IAPC_LEGACY_DEVICES | IAPC_8042 | IAPC_NO_VGA, 2);
	acpi_put(o, 0, 1);
	acpi_put(o,
		FADT_WBINVD | FADT_PROC_C1 | FADT_NO_PWR_BUTTON | FADT_NO_SLP_BUTTON |
			FADT_NO_RTC_WAKE | FADT_RESET_REG,
		4);
}

static size_t acpi_fadt(struct acpi_out *o, uint64_t facs, uint64_t dsdt)
{
	size_t at = acpi_table_begin(o, "FACP", 6);

	acpi_fadt_fixed(o, facs, dsdt);
	acpi_gas(o, ACPI_RESET_PORT, 1);
	acpi_put(o, ACPI_RESET, 1);
	acpi_put(o, 0, 2);
	acpi_put(o, 4, 1); /* 6.4 */
	acpi_put(o, 0, 8); /* the FACS is below 4 GiB: above */
	acpi_put(o, dsdt, 8);
	acpi_gas(o, ACPI_PM_BASE, 4);
	acpi_gas(o, 0, 0);
	acpi_gas(o, ACPI_PM_BASE + 4, 2);
	acpi_gas(o, 0, 0);
	acpi_gas(o, 0, 0);
	acpi_gas(o, ACPI_PM_BASE + 8, 4);
	for (unsigned i = 0; i < 4; i++)
		acpi_gas(o, 0, 0); /* GPE0, GPE1, sleep control and status */
	acpi_put(o, 0, 8);
	acpi_table_end(o, at);
	return at;
}

static size_t acpi_facs(struct acpi_out *o)
{
	size_t at;

	acpi_align(o, 64);
	at = o->len;
	acpi_put_text(o, "FACS", 4);
	acpi_put(o, 64, 4);
	acpi_put(o, 0, 8); /* hardware signature, waking vector */
	acpi_put(o, 0, 8); /* global lock, flags */
	acpi_put(o, 0, 8);
	acpi_put(o, 2, 1);
	while (o->len - at < 64 && !o->full)
		acpi_put(o, 0, 1);
	return at;
}

/* ------------------------------------------------------------------ MADT */

static void acpi_madt_cpu(struct acpi_out *o, uint32_t id)
{
	if (id <= ACPI_CPU_ID_MAX) {
		acpi_put(o, MADT_LAPIC, 1);
		acpi_put(o, 8, 1);
		acpi_put(o, id, 1);
		acpi_put(o, id, 1);
		acpi_put(o, MADT_ENABLED, 4);
		return;
	}
	acpi_put(o, MADT_X2APIC, 1);
	acpi_put(o, 16, 1);
	acpi_put(o, 0, 2);
	acpi_put(o, id, 4);
	acpi_put(o, MADT_ENABLED, 4);
	acpi_put(o, id, 4);
}

/*
 * GSI n is the IOAPIC's pin n and the PIC's pin n, the timer's too: no override for interrupt 0.
 * The SCI and the lines PCI uses are level-triggered.
 */
static size_t acpi_madt(struct acpi_out *o, const struct acpi_config *cfg)
{
	static const uint8_t level[] = {ACPI_SCI, 10, 11};
	size_t at = acpi_table_begin(o, "APIC", 5);

	acpi_put(o, ACPI_LAPIC, 4);
	acpi_put(o, MADT_PCAT_COMPAT, 4);
	for (unsigned i = 0; i < cfg->cpus && !o->full; i++)
		acpi_madt_cpu(o, i);
	acpi_put(o, MADT_IOAPIC, 1);
	acpi_put(o, 12, 1);
	acpi_put(o, 0, 2); /* id */
	acpi_put(o, ACPI_IOAPIC, 4);
	acpi_put(o, 0, 4);
	for (unsigned i = 0; i < sizeof(level); i++) {
		acpi_put(o, MADT_OVERRIDE, 1);
		acpi_put(o, 10, 1);
		acpi_put(o, 0, 1); /* ISA */
		acpi_put(o, level[i], 1);
		acpi_put(o, level[i], 4);
		acpi_put(o, MADT_LEVEL_HIGH, 2);
	}
	acpi_put(o, MADT_LAPIC_NMI, 1);
	acpi_put(o, 6, 1);
	acpi_put(o, 0xff, 1); /* all */
	acpi_put(o, 0, 2);
	acpi_put(o, 1, 1); /* LINT1 */
	if (cfg->cpus > ACPI_CPU_ID_MAX + 1) {
		acpi_put(o, MADT_X2APIC_NMI, 1);
		acpi_put(o, 12, 1);
		acpi_put(o, 0, 2);
		acpi_put(o, UINT32_MAX, 4);
		acpi_put(o, 1, 4); /* LINT1 and three bytes of nothing */
	}
	acpi_table_end(o, at);
	return at;
}

/* ------------------------------------------------------------------ all */

size_t acpi_tables_build(uint8_t *out, size_t room, uint64_t base, const struct acpi_config *cfg)
{
	struct acpi_out o = {.bytes = out, .room = room};
	size_t facs, dsdt, fadt, madt, xsdt;

	/* the RSDP is filled in last */
	acpi_put_text(&o, "RSD PTR ", 8);
	acpi_put(&o, 0, 1);
	acpi_put_text(&o, "SLUICE", 6);
	acpi_put(&o, 2, 1);
	acpi_put(&o, 0, 4); /* no RSDT */
	acpi_put(&o, 36, 4);
	acpi_put(&o, 0, 12);
	facs = acpi_facs(&o);
	dsdt = acpi_dsdt(&o, cfg);
	fadt = acpi_fadt(&o, base + facs, base + dsdt);
	madt = acpi_madt(&o, cfg);
	xsdt = acpi_table_begin(&o, "XSDT", 1);
	acpi_put(&o, base + fadt, 8);
	acpi_put(&o, base + madt, 8);
	acpi_table_end(&o, xsdt);
	if (o.full)
		return 0;
	acpi_patch(&o, 24, base + xsdt, 8);
	acpi_checksum(&o, 0, 20, 8);
	acpi_checksum(&o, 0, ACPI_HEADER, 32);
	return o.len;
}
