/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A firmware image of 64 KiB that is nothing but a screen and a keyboard: it sets text mode, says so in the first line,
 * writes the codes its keyboard sends (and its mouse's bytes, with an M, and what comes at COM2, with a T) below, and powers
 * off when it gets F12. At the start it says 1 at COM1, 2 at COM2 and so on, and prints P.
 * F11 sets the speaker to 440 Hz and on, and shows port 61h with an S once both its bits that move have moved; F10, off.
 * F9 shows graphics, F8 text again. F7 moves the cursor to the last corner, and says so there.
 */
	.code16
	.globl	_start
	.org	0
_start:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	xor	%ax, %ax
	mov	%ax, %ss
	mov	$0x7000, %sp
	cld
	/* miscellaneous output, sequencer, CRT controller, graphics controller */
	mov	$0x3c2, %dx
	mov	$0x67, %al
	out	%al, %dx
	mov	$seq, %si
	mov	$0x3c4, %dx
	mov	$5, %cx
	call	indexed
	mov	$crtc, %si
	mov	$0x3d4, %dx
	mov	$25, %cx
	call	indexed
	mov	$gc, %si
	mov	$0x3ce, %dx
	mov	$9, %cx
	call	indexed
	mov	$0x3da, %dx
	in	%dx, %al
	mov	$attr, %si
	mov	$0x3c0, %dx
	xor	%bl, %bl
1:	mov	%bl, %al
	out	%al, %dx
	lodsb
	out	%al, %dx
	inc	%bl
	cmp	$21, %bl
	jne	1b
	mov	$0x20, %al
	out	%al, %dx
	/* light grey, and the others black */
	mov	$0x3c8, %dx
	mov	$7, %al
	out	%al, %dx
	inc	%dx
	mov	$42, %al
	out	%al, %dx
	out	%al, %dx
	out	%al, %dx
	/* one glyph for all that is written: a box, in the font of character X */
	mov	$0xa000, %ax
	mov	%ax, %es
	mov	$0x3c4, %dx
	mov	$0x0402, %ax
	out	%ax, %dx
	mov	$0x0604, %ax
	out	%ax, %dx
	mov	$0x3ce, %dx
	mov	$0x0005, %ax
	out	%ax, %dx
	mov	$0x0406, %ax
	out	%ax, %dx
	mov	$('X' * 32), %di
	mov	$16, %cx
	mov	$0xff, %al
	rep stosb
	mov	$0x3c4, %dx
	mov	$0x0302, %ax
	out	%ax, %dx
	mov	$0x0204, %ax
	out	%ax, %dx
	mov	$0x3ce, %dx
	mov	$0x1005, %ax
	out	%ax, %dx
	mov	$0x0e06, %ax
	out	%ax, %dx
	mov	$0xb800, %ax
	mov	%ax, %es
	mov	$text, %si
	xor	%di, %di
	mov	$0x07, %ah
2:	lodsb
	test	%al, %al
	jz	3f
	stosw
	jmp	2b
	/* serial ports */
3:	mov	$4, %cx
	mov	$coms, %si
	mov	$'1', %bl
9:	lodsw
	mov	%ax, %dx
	mov	%bl, %al
	out	%al, %dx
	inc	%bl
	loop	9b
	/* print: the data, the strobe */
	mov	$0x378, %dx
	mov	$'P', %al
	out	%al, %dx
	mov	$0x37a, %dx
	mov	$0x0d, %al
	out	%al, %dx
	mov	$0x0c, %al
	out	%al, %dx
	/* the mouse on, its port and the keyboard's, no interrupts, no translation: set 2 */
mouse:	mov	$160, %di
	mov	$0x60, %al
	out	%al, $0x64
	mov	$0x00, %al
	out	%al, $0x60
	mov	$0xd4, %al
	out	%al, $0x64
	mov	$0xf4, %al
	out	%al, $0x60
	/* a port that is not there has all bits set */
poll:	mov	$0x2fd, %dx
	in	%dx, %al
	cmp	$0xff, %al
	je	8f
	test	$1, %al
	jz	8f
	mov	$0x2f8, %dx
	in	%dx, %al
	mov	%al, %bh
	mov	$0x0754, %ax
	stosw
	jmp	4f
8:	in	$0x64, %al
	test	$1, %al
	jz	poll
	mov	%al, %bl
	in	$0x60, %al
	mov	%al, %bh
	test	$0x20, %bl
	jz	4f
	mov	$0x074d, %ax
	stosw
4:	mov	%bh, %al
	shr	$4, %al
	call	digit
	mov	%bh, %al
	and	$15, %al
	call	digit
	mov	$0x0720, %ax
	stosw
	cmp	$0x09, %bh
	jne	1f
	in	$0x61, %al
	and	$0xfc, %al
	out	%al, $0x61
1:	mov	$0, %cl
	cmp	$0x0a, %bh
	je	vbe
	mov	$0x81, %cl
	cmp	$0x01, %bh
	je	vbe
	cmp	$0x83, %bh
	je	corner
	cmp	$0x78, %bh
	je	sound
	cmp	$0x07, %bh
	jne	poll
	mov	$0x604, %dx
	mov	$0x2000, %ax
	out	%ax, %dx
5:	hlt
	jmp	5b

	/* channel 2, both bytes, mode 3: 1193182 / 2712 */
sound:	mov	$0xb6, %al
	out	%al, $0x43
	mov	$(2712 & 0xff), %al
	out	%al, $0x42
	mov	$(2712 >> 8), %al
	out	%al, $0x42
	in	$0x61, %al
	or	$3, %al
	out	%al, $0x61
	/* the refresh bit and the timer's output: seen set, and seen clear */
	mov	$0xff00, %cx
1:	in	$0x61, %al
	or	%al, %cl
	and	%al, %ch
	mov	%cl, %al
	xor	%ch, %al
	and	$0x30, %al
	cmp	$0x30, %al
	jne	1b
	in	$0x61, %al
	and	$0x0f, %al
	mov	%al, %bh
	mov	$0x0753, %ax
	stosw
	jmp	4b

	/* 640 by 480, 32 bits, and whether it is on (and clears nothing) */
vbe:	mov	$0x1ce, %dx
	mov	$1, %ax
	mov	$640, %bx
	call	word
	mov	$480, %bx
	call	word
	mov	$32, %bx
	call	word
	mov	%cl, %bl
	mov	$0, %bh
	call	word
	jmp	poll
word:	out	%ax, %dx
	inc	%dx
	xchg	%ax, %bx
	out	%ax, %dx
	xchg	%ax, %bx
	dec	%dx
	inc	%ax
	ret

corner:	push	%di
	mov	$(1994 * 2), %di
	mov	$last, %si
	mov	$6, %cx
1:	lodsb
	mov	$0x07, %ah
	stosw
	loop	1b
	pop	%di
	mov	$0x3d4, %dx
	mov	$0x070e, %ax
	out	%ax, %dx
	mov	$0xcf0f, %ax
	out	%ax, %dx
	jmp	poll

digit:	add	$'0', %al
	cmp	$'9', %al
	jbe	6f
	add	$7, %al
6:	mov	$0x07, %ah
	stosw
	ret

/* %cx bytes at %si to the registers behind index port %dx */
indexed:
	xor	%bl, %bl
7:	mov	%bl, %al
	mov	(%si), %ah
	out	%ax, %dx
	inc	%si
	inc	%bl
	loop	7b
	ret

coms:	.word	0x3f8, 0x2f8, 0x3e8, 0x2e8
seq:	.byte	0x03, 0x00, 0x03, 0x00, 0x02
crtc:	.byte	0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff
gc:	.byte	0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff
attr:	.byte	0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00
last:	.ascii	"CORNER"
text:	.asciz	"SCREEN READY X"
	.org	0xfff0
	ljmp	$0xf000, $0
	.org	0x10000
