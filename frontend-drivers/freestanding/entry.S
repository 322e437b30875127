/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the boot protocol (PVH: 32-bit, paging off, ebx = hvm_start_info) to C at CPL 3.
 *
 * Some hosts interpret ring 0 at a microsecond an instruction and run CPL 3 natively, so everything a
 * table can say is a table in the image: page tables, descriptors, the task segment with its I/O
 * bitmap, even the frame that iretq returns through.
 */
#include "frontend-drivers/freestanding/entry_priv.h"

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 8, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad entry_start32

/* ---------------------------------------------------------------- start */

	.section .text.start, "ax"
	.code32
	.globl entry_start32
entry_start32:
	lgdt	entry_gdtr
	mov	$entry_pml4, %eax
	mov	%eax, %cr3
	/* Not read first: other bits (SMEP, SMAP above all) must be off. */
	mov	$0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx
	mov	$0x101, %eax		/* LME, SCE */
	xor	%edx, %edx
	wrmsr
	mov	$0x80010033, %eax	/* PG, WP, NE, ET, MP, PE */
	mov	%eax, %cr0
	ljmp	$ENTRY_CODE0, $entry_start64

	.code64
entry_start64:
	mov	$entry_iret_boot, %esp
	/* Here, not later: at CPL 3 some hosts run cpuid natively, and it tells of the host. */
	mov	%ebx, %esi
	mov	$0x40000000, %eax
	cpuid
	mov	%eax, entry_hypervisor_leaf_max
	mov	$0x40000010, %eax
	cpuid
	mov	%eax, entry_hypervisor_tsc_khz
	mov	$ENTRY_TSS, %eax
	ltr	%ax
	lidt	entry_idtr3
	/* A timer left running by firmware would arrive on vector 8. */
	mov	$0xff, %al
	out	%al, $0x21
	out	%al, $0xa1
	iretq				/* through entry_iret_boot */

entry_boot3:
	mov	$ENTRY_DATA3, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%esi, %edi
	call	runtime_start
	ud2

/* ---------------------------------------------------------------- other CPUs */

/* Copied to a page below 1 MiB: real mode, cs = page >> 4, ip = 0. */
	.globl entry_ap16, entry_ap16_end
	.code16
entry_ap16:
	cli
	lgdtl	%cs:(entry_ap_gdtr - entry_ap16)
	mov	$0x11, %eax
	mov	%eax, %cr0
	ljmpl	$ENTRY_CODE32, $entry_ap32
	.balign 4
entry_ap_gdtr:
	.word	entry_gdt_end - entry_gdt - 1
	.long	entry_gdt
entry_ap16_end:

	.code32
entry_ap32:
	mov	$entry_pml4, %eax
	mov	%eax, %cr3
	mov	$0x620, %eax
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx
	mov	$0x101, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0x80010033, %eax
	mov	%eax, %cr0
	ljmp	$ENTRY_CODE0, $entry_ap64

	.code64
entry_ap64:
	mov	$entry_iret_ap, %esp
	mov	$ENTRY_DATA0, %eax
	mov	%eax, %ss
	/*
	 * One task segment serves all: nothing is ever switched, so "busy" means nothing here. But ltr
	 * sets it, and faults where it is set: from clearing it to there, one CPU at a time.
	 */
1:	pause
	lock btsl $0, entry_ap_lock
	jc	1b
	movb	$0x89, entry_gdt + ENTRY_TSS + 5
	mov	$ENTRY_TSS, %eax
	ltr	%ax
	movl	$0, entry_ap_lock
	lidt	entry_idtr3
	iretq				/* through entry_iret_ap */

entry_ap3:
	mov	$1, %edi
	lock xaddl %edi, entry_ap_count
	mov	%edi, %eax
	inc	%eax
	imul	$ENTRY_AP_STACK, %eax, %eax
	lea	entry_ap_stacks(%eax), %rsp
	cmp	$ENTRY_AP_MAX, %edi
	jae	1f
	mov	entry_ap_main, %rax
	test	%rax, %rax
	jz	1f
	call	*%rax
1:	pause
	jmp	1b

/* ---------------------------------------------------------------- interrupts */

/*
 * One stub for each vector, the same code at CPL 3 (trap gate) and at CPL 0 (around a halt). It only
 * counts; whoever waits looks at the counts. Single instructions on memory: atomic against a nested
 * interrupt on the same CPU.
 */
	.section .text
	.balign ENTRY_STUB_BYTES
	.globl entry_irq_stubs
entry_irq_stubs:
	.set vec, 0
	.rept 256
	.balign ENTRY_STUB_BYTES
	incl	entry_irq_count + 4 * vec
	incl	entry_irq_in_service
	incl	entry_irq_total
	iretq
	.set vec, vec + 1
	.endr

/*
 * Level-triggered lines, one stub each, always at CPL 0 with interrupts off: some monitors do not hold an
 * interrupt in service, and a trap gate would then be entered again before its first instruction for as
 * long as the line is up. So the line is masked here and unmasked once the device is quiet. The
 * I/O APIC's select register is put back: whoever was interrupted may be between its two writes.
 */
	.balign ENTRY_LINE_STUB_BYTES
	.globl entry_line_stubs
entry_line_stubs:
	.set line, 0
	.rept ENTRY_LINES
	.balign ENTRY_LINE_STUB_BYTES
	push	%rax
	push	%rdx
	mov	$0xfec00000, %eax
	mov	(%rax), %edx
	movl	$(0x10 + 2 * line), (%rax)
	movl	$0x18000 + ENTRY_LINE_VECTOR + line, 0x10(%rax)
	mov	%edx, (%rax)
	mov	$0xfee000b0, %eax
	movl	$0, (%rax)
	btsl	$line, entry_line_masked
	incl	entry_irq_count + 4 * (ENTRY_LINE_VECTOR + line)
	incl	entry_irq_total
	pop	%rdx
	pop	%rax
	iretq
	.set line, line + 1
	.endr

	.balign 16
	.globl entry_irq_ignore
entry_irq_ignore:
	iretq

/* void entry_halt(uint32_t seen): hlt faults at CPL 3, and the #GP handler below halts on its behalf. */
	.globl entry_halt
entry_halt:
	hlt
	ret

/*
 * #GP, ring 0, interrupts off. edi: the number of interrupts the caller had seen. Comparing it here and
 * halting by sti; hlt leaves no room for an interrupt in between.
 */
	.globl entry_gp
entry_gp:
	cmpq	$entry_halt, 8(%rsp)
	jne	3f
	cmpl	%edi, entry_irq_total
	jne	1f
	lidt	entry_idtr0
	sti
	hlt
	cli
	lidt	entry_idtr3
1:	incq	8(%rsp)
	add	$8, %rsp
	iretq
3:	pushq	$13
	jmp	entry_exception

	.set vec, 0
	.rept 32
	.balign 16
	.if vec == 0
	.globl entry_exception_stubs
entry_exception_stubs:
	.endif
	.if (vec != 8) && (vec != 17) && (vec != 21) && (vec != 29) && (vec != 30) && ((vec < 10) || (vec > 14))
	pushq	$0
	.endif
	pushq	$vec
	jmp	entry_exception
	.set vec, vec + 1
	.endr

/* Saves what is known and goes on in C at CPL 3 on a stack of its own. */
	.balign 16
entry_exception:
	mov	%rax, entry_exception_rax
	popq	entry_exception_info + 0	/* vector */
	popq	entry_exception_info + 8	/* error code */
	popq	entry_exception_info + 16	/* rip */
	popq	entry_exception_info + 24	/* cs */
	pop	%rax				/* flags */
	popq	entry_exception_info + 32	/* rsp */
	mov	%cr2, %rax
	mov	%rax, entry_exception_info + 40
	lidt	entry_idtr3
	mov	$entry_iret_exception, %esp
	iretq

entry_exception3:
	mov	$entry_exception_info, %edi
	call	runtime_exception
	ud2

/* ---------------------------------------------------------------- tables */

	.section .data.tables, "aw"
	.balign 4096
/* Present, writable, user, accessed, dirty: nothing left for the hardware to set. */
entry_pml4:
	.quad	entry_pdpt + 0x67
	.fill	511, 8, 0
entry_pdpt:
	.quad	entry_pd + 0x67, entry_pd + 0x1067, entry_pd + 0x2067, entry_pd + 0x3067
	.fill	508, 8, 0
entry_pd:
	.set page, 0
	.rept 2048
	.quad	(page << 21) + 0xe7
	.set page, page + 1
	.endr

	.balign 4096
	.globl entry_tss
entry_tss:
	.long	0
	.quad	entry_stack0_top	/* RSP0 */
	.fill	0x66 - 12, 1, 0
	.word	0x68			/* I/O bitmap: every port open at CPL 3 */
	.fill	8192, 1, 0
	.byte	0xff
entry_tss_end:

	.balign 16
	.globl entry_gdt
entry_gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* 0x08 code, 64 bits, ring 0 */
	.quad	0x00cf93000000ffff	/* 0x10 data, ring 0 */
	.quad	0x00cf9b000000ffff	/* 0x18 code, 32 bits, ring 0 */
	.quad	0x00cffb000000ffff	/* 0x20 */
	.quad	0x00cff3000000ffff	/* 0x28 data, ring 3 */
	.quad	0x00affb000000ffff	/* 0x30 code, 64 bits, ring 3 */
	.word	0x2068, entry_tss_0_15	/* 0x38; the parts of the address come from the linker script */
	.byte	entry_tss_16_23, 0x89, 0, entry_tss_24_31
	.quad	0
entry_gdt_end:

	.balign 8
	.word	0
entry_gdtr:
	.word	entry_gdt_end - entry_gdt - 1
	.quad	entry_gdt
	.balign 8
entry_idtr3:
	.word	4095
	.quad	entry_idt3
	.balign 8
entry_idtr0:
	.word	4095
	.quad	entry_idt0

	.balign 16
entry_iret_boot:
	.quad	entry_boot3, ENTRY_CODE3, 0x202, entry_stack3_top, ENTRY_DATA3
	.balign 16
entry_iret_ap:
	.quad	entry_ap3, ENTRY_CODE3, 0x002, entry_ap_stacks, ENTRY_DATA3
	.balign 16
entry_iret_exception:
	.quad	entry_exception3, ENTRY_CODE3, 0x202, entry_stackx_top, ENTRY_DATA3

	.globl entry_hypervisor_leaf_max, entry_hypervisor_tsc_khz
entry_hypervisor_leaf_max:
	.long	0
entry_hypervisor_tsc_khz:
	.long	0
	.globl entry_ap_count, entry_ap_main
	.balign 8
entry_ap_main:
	.quad	0
entry_ap_lock:
	.long	0
entry_ap_count:
	.long	0

	.section .bss
	.balign 4096
	.globl entry_idt3, entry_idt0, entry_irq_count, entry_irq_in_service, entry_irq_total
	.globl entry_line_masked
entry_idt3:
	.skip	4096
entry_idt0:
	.skip	4096
entry_irq_count:
	.skip	4 * 256
entry_irq_in_service:
	.skip	4
entry_irq_total:
	.skip	4
entry_line_masked:
	.skip	4
	.balign 8
entry_exception_rax:
	.skip	8
entry_exception_info:
	.skip	48
	.balign 4096
	.skip	4096
entry_stack0_top:
	.skip	16384
entry_stackx_top:
	.skip	65536
entry_stack3_top:
	.skip	64
entry_ap_stacks:
	.skip	ENTRY_AP_STACK * (ENTRY_AP_MAX + 1)

	.section .note.GNU-stack, "", @progbits
