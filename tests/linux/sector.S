/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A boot sector: says through the BIOS which of its lives this is, as CMOS byte 50h counts them, and ends it: by
 * the reset control register, by the keyboard controller, by a triple fault, and at last by power management.
 */
	.code16
	.globl	_start
_start:
	ljmp	$0, $1f
1:	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	mov	$0x50, %al
	out	%al, $0x70
	in	$0x71, %al
	and	$3, %al
	mov	%al, %bl
	add	%al, digit
	mov	$0x50, %al
	out	%al, $0x70
	mov	%bl, %al
	inc	%al
	out	%al, $0x71
	mov	%bl, life
	mov	$text, %si
2:	lodsb
	test	%al, %al
	jz	3f
	mov	$0x0e, %ah
	mov	$7, %bx
	int	$0x10
	jmp	2b
3:	mov	life, %bl
	cmp	$0, %bl
	je	control
	cmp	$1, %bl
	je	keyboard
	cmp	$2, %bl
	je	triple
	mov	$0x604, %dx
	mov	$0x2000, %ax
	out	%ax, %dx
	jmp	stop
control:
	mov	$0xcf9, %dx
	mov	$6, %al
	out	%al, %dx
	jmp	stop
keyboard:
	mov	$0xfe, %al
	out	%al, $0x64
	jmp	stop
triple:
	cli
	lidt	nothing
	int3
stop:
	hlt
	jmp	stop
nothing:
	.word	0
	.long	0
life:
	.byte	0
text:
	.ascii	"BOOT SECTOR, LIFE "
digit:
	.asciz	"1. \r\n\r\n"
	.org	510
	.word	0xaa55
