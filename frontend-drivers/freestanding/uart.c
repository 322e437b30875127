/* SPDX-License-Identifier: BSD-2-Clause */
/* 16550A at the first legacy address, polled, with its FIFO. */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define UART_DATA 0x3f8u
#define UART_FCR  0x3fau
#define UART_LCR  0x3fbu
#define UART_LSR  0x3fdu

#define UART_LSR_DATA  0x01u
#define UART_LSR_EMPTY 0x20u
#define UART_FIFO      16u

/* An absent UART reads 0xff, which is "empty": output then goes nowhere at full speed. */
#define UART_SPIN_MAX 100000u

void uart_init(void)
{
	io_out8(UART_LCR, 0x03);
	io_out8(UART_FCR, 0x07);
}

void uart_write(const char *s, size_t n)
{
	while (n) {
		size_t part = n < UART_FIFO ? n : UART_FIFO;

		for (unsigned i = 0; i < UART_SPIN_MAX; i++) {
			if (io_in8(UART_LSR) & UART_LSR_EMPTY)
				break;
			cpu_relax();
		}
		for (size_t i = 0; i < part; i++)
			io_out8(UART_DATA, (uint8_t)s[i]);
		s += part;
		n -= part;
	}
}

int uart_read(void)
{
	return io_in8(UART_LSR) & UART_LSR_DATA ? io_in8(UART_DATA) : -1;
}
