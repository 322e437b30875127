/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files that write ACPI tables share. No thread, no lock: bytes into a buffer. */
#ifndef ACPI_PRIV_H
#define ACPI_PRIV_H

#include "vmm/vmm.h"

struct acpi_out {
	uint8_t *bytes;
	size_t len, room;
	bool full; /* something did not fit */
};

/* Little-endian. At most 8 bytes are the value's, the rest zero. */
void acpi_put(struct acpi_out *o, uint64_t value, unsigned size);
void acpi_put_text(struct acpi_out *o, const char *text, unsigned size);
/* A table with the standard header (5.2.6), on 16 bytes: where it begins. */
size_t acpi_table_begin(struct acpi_out *o, const char *signature, unsigned revision);
/* Its length and checksum. */
void acpi_table_end(struct acpi_out *o, size_t table);

/* acpi_dsdt.c */
size_t acpi_dsdt(struct acpi_out *o, const struct acpi_config *cfg);

#endif
