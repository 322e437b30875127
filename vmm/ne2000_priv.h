/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * NE2000 on PCI: Realtek RTL8029AS (datasheet 1997-01-03), whose core is National's DP8390D
 * (datasheet 1995-07; register numbers and bits below are from its section 10). 16 KiB of packet
 * memory at 0x4000, the station address PROM at 0, one I/O BAR of 32 ports: the core's registers,
 * the data port at 0x10, the reset port at 0x18.
 *
 * Threads: registers under the device's lock on vCPU threads; frames come and go on the I/O thread,
 * which takes the same lock. A frame to be sent is copied out of packet memory when the guest says
 * so, and is then sent as far as the guest can see; only when too many wait for the port it waits.
 *
 * What is posted (see ne2000_posted): the registers and the port of remote DMA and of the frame to
 * be sent, whose writes only matter once the command register is written or something is read. Not
 * what starts or lets through reception, nor the interrupt status and mask: the guest may write one
 * of them last and then wait. On page 1 the same ports are parts of the station address and of the
 * multicast table: reception replays what is posted before it looks at them.
 */
#ifndef NE2000_PRIV_H
#define NE2000_PRIV_H

#include "vmm/vmm_priv.h"

#define NE_PORTS     32u
#define NE_RAM_START 0x4000u
#define NE_RAM_SIZE  0x4000u
#define NE_RAM_END   (NE_RAM_START + NE_RAM_SIZE)
#define NE_PROM_SIZE 32u
#define NE_PAGE      256u
#define NE_FRAME_MIN 60u
#define NE_FRAME_MAX 1518u /* with a VLAN tag */
#define NE_HEADER    4u
#define NE_FIFO      8u /* frames that are sent for the guest and not yet for the port */
#define NE_DATA_PORT 0x10u
#define NE_RESET     0x18u

enum {
	CR_STP = 0x01,
	CR_STA = 0x02,
	CR_TXP = 0x04,
	CR_RD_MASK = 0x38,
	CR_RD_READ = 0x08,
	CR_RD_WRITE = 0x10,
	CR_RD_SEND = 0x18,
	CR_RD_ABORT = 0x20,
	CR_PAGE_SHIFT = 6,

	ISR_PRX = 0x01,
	ISR_PTX = 0x02,
	ISR_RXE = 0x04,
	ISR_TXE = 0x08,
	ISR_OVW = 0x10,
	ISR_RDC = 0x40,
	ISR_RST = 0x80,

	DCR_WTS = 0x01,
	TCR_LOOPBACK = 0x06,
	TSR_PTX = 0x01,
	RSR_PRX = 0x01,
	RSR_PHY = 0x20,
	RCR_AB = 0x04,
	RCR_AM = 0x08,
	RCR_PRO = 0x10,
	RCR_MON = 0x20,
};

struct ne2000 {
	struct device dev;
	struct pci_device pci;
	struct legacy_net *net;
	uint8_t mac[6];
	uint8_t prom[NE_PROM_SIZE];
	uint8_t ram[NE_RAM_SIZE];
	uint8_t cr, isr, imr, dcr, rcr, tcr, tsr, rsr;
	uint8_t pstart, pstop, bnry, curr, tpsr;
	uint16_t tbcr, rsar, rbcr;
	uint8_t par[6], mar[8];
	bool sending; /* TXP waits: as many frames as the card holds wait for the port */
	/* Frames that waited for the port when the state was saved: to be queued again. */
	unsigned nloaded;
	struct {
		uint32_t len;
		uint8_t frame[NE_FRAME_MAX];
	} loaded[NE_FIFO];
};

/* Drives INTx from the interrupt status. Everything below under the device's lock. */
void ne2000_irq_update(struct ne2000 *n);
void ne2000_isr_raise(struct ne2000 *n, uint8_t bits);

/* ne2000_frames.c: packet memory, one access of the data port, the frame TPSR and TBCR describe. */
uint8_t ne2000_mem_read(const struct ne2000 *n, uint16_t addr);
uint32_t ne2000_data_read(struct ne2000 *n, unsigned size);
void ne2000_data_write(struct ne2000 *n, uint32_t v, unsigned size);
void ne2000_transmit(struct ne2000 *n);

/* ne2000_frames.c: the guest has seen these bits. */
void ne2000_isr_acknowledge(struct ne2000 *n, uint8_t bits);

/* ne2000_frames.c: legacy_net's callbacks (I/O thread, no lock held). */
void ne2000_sent(void *ctx);
bool ne2000_receive_room(void *ctx);
void ne2000_received(void *ctx, const uint8_t *frame, uint32_t len);

#endif
