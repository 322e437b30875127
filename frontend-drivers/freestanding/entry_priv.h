/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers shared by entry.S and the C around it. Private to this folder. */
#ifndef FRONTEND_ENTRY_H
#define FRONTEND_ENTRY_H

/* kvm-pvm runs CPL 3 natively only with exactly these two ring 3 selectors. */
#define ENTRY_CODE0  0x08
#define ENTRY_DATA0  0x10
#define ENTRY_CODE32 0x18
#define ENTRY_DATA3  0x2b
#define ENTRY_CODE3  0x33
#define ENTRY_TSS    0x38

#define ENTRY_STUB_BYTES 32
/* Level-triggered lines have vectors and stubs of their own. */
#define ENTRY_LINES           24
#define ENTRY_LINE_VECTOR     0xc0
#define ENTRY_LINE_STUB_BYTES 64
#define ENTRY_AP_MAX          64
#define ENTRY_AP_STACK        1024

#endif
