/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Realtek RTL8139C(L) (datasheet 1.4, 2002-03-22: registers of section 5, transmission of 6.1,
 * reception of 6.2; "programming guide": RTL8139(A/B) Programming guide V0.1). Four transmit
 * descriptors in registers, and one ring of bytes that frames are received into, each after a
 * header.
 *
 * Threads: registers under the device's lock on vCPU threads; frames come and go on the I/O thread,
 * which takes the same lock.
 */
#ifndef RTL8139_PRIV_H
#define RTL8139_PRIV_H

#include "vmm/vmm_priv.h"

#define RTL_SPACE     256u
#define RTL_TX        4u
#define RTL_TX_MAX    1792u /* what a descriptor sends at most */
#define RTL_FRAME_MAX 1518u /* received, with a VLAN tag, without CRC */
#define RTL_CRC       4u
#define RTL_HEADER    4u
#define RTL_EEPROM    64u

/* Registers, as they lie; those of a register file are bytes in little-endian order. */
enum {
	RTL_IDR = 0x00,
	RTL_MAR = 0x08,
	RTL_TSD = 0x10,
	RTL_TSAD = 0x20,
	RTL_RBSTART = 0x30,
	RTL_CR = 0x37,
	RTL_CAPR = 0x38,
	RTL_CBR = 0x3a,
	RTL_IMR = 0x3c,
	RTL_ISR = 0x3e,
	RTL_TCR = 0x40,
	RTL_RCR = 0x44,
	RTL_TCTR = 0x48,
	RTL_MPC = 0x4c,
	RTL_9346CR = 0x50,
	RTL_CONFIG0 = 0x51,
	RTL_CONFIG1 = 0x52,
	RTL_MSR = 0x58,
	RTL_CONFIG3 = 0x59,
	RTL_CONFIG4 = 0x5a,
	RTL_MULINT = 0x5c,
	RTL_TSUMMARY = 0x60,
	RTL_BMCR = 0x62,
	RTL_BMSR = 0x64,
	RTL_ANAR = 0x66,
	RTL_ANLPAR = 0x68,
	RTL_ANER = 0x6a,
	RTL_CONFIG5 = 0xd8,

	CR_BUFE = 0x01,
	CR_TE = 0x04,
	CR_RE = 0x08,
	CR_RST = 0x10,

	ISR_ROK = 0x0001,
	ISR_TOK = 0x0004,
	ISR_RXOVW = 0x0010,
	ISR_LINK = 0x0020,
	ISR_ALL = 0xe07f,

	TSD_SIZE = 0x1fff,
	TSD_OWN = 0x2000,
	TSD_TOK = 0x8000,
	TSD_KEPT = 0x003f1fff,

	RCR_AAP = 0x01,
	RCR_APM = 0x02,
	RCR_AM = 0x04,
	RCR_AB = 0x08,
	RCR_WRAP = 0x80,

	RX_ROK = 0x0001,
	RX_BAR = 0x2000,
	RX_PAM = 0x4000,
	RX_MAR = 0x8000,
};

/* The serial EEPROM (93C46), as far as its wires have got. */
struct rtl_eeprom {
	uint16_t words[RTL_EEPROM];
	uint16_t shift; /* bits in, or out */
	uint8_t bits;   /* of them */
	uint8_t lines;  /* CS, SK and DI as they were */
	bool out;       /* a word is read out */
	bool bit;       /* DO */
};

struct rtl8139 {
	struct device dev;
	struct pci_device pci;
	struct posted posted;
	struct legacy_net *net;
	uint8_t mac[6];
	bool cable; /* the port's link */
	uint8_t regs[RTL_SPACE];
	struct rtl_eeprom eeprom;
	uint8_t tx_next;    /* the descriptor that is sent next */
	uint8_t tx_pending; /* a bit for each that waits to be */
	uint64_t tctr_zero_ns;
	uint8_t frame[RTL_TX_MAX];
};

/* All under the lock. */
uint32_t rtl_get(const struct rtl8139 *e, unsigned reg, unsigned size);
void rtl_put(struct rtl8139 *e, unsigned reg, uint32_t v, unsigned size);
void rtl_raise(struct rtl8139 *e, uint16_t bits);
void rtl_irq_update(struct rtl8139 *e);
bool rtl_is_master(const struct rtl8139 *e);
/* Has the guest taken all that was received? */
bool rtl_rx_empty(const struct rtl8139 *e);
/* Has the largest frame room? */
bool rtl_rx_roomy(const struct rtl8139 *e);

/* rtl8139_frames.c: legacy_net's callbacks (I/O thread, no lock held). */
void rtl_transmit(void *ctx);
bool rtl_receive_room(void *ctx);
void rtl_received(void *ctx, const uint8_t *frame, uint32_t len);

#endif
