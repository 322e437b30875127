/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intel 82540EM, after "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's
 * Manual" (317453-006, called the manual below): registers in chapter 13, descriptors in chapter 3.
 *
 * Threads: registers under the device's lock on vCPU threads; both rings are worked on the I/O
 * thread, which takes the same lock for a bounded batch.
 */
#ifndef E1000_PRIV_H
#define E1000_PRIV_H

#include "vmm/vmm_priv.h"

#define E1000_REGS_SIZE   0x6000u
#define E1000_MMIO_SIZE   0x20000u
#define E1000_IO_SIZE     0x40u
#define E1000_EEPROM_SIZE 64u
#define E1000_PHY_REGS    32u
#define E1000_FRAME_MAX   65600u /* headers and 64 KiB less what IP allows, with room for a tag */
#define E1000_DESC        16u

enum {
	REG_CTRL = 0x0000,
	REG_STATUS = 0x0008,
	REG_EECD = 0x0010,
	REG_EERD = 0x0014,
	REG_CTRL_EXT = 0x0018,
	REG_MDIC = 0x0020,
	REG_FCAL = 0x0028,
	REG_FCTTV = 0x0170,
	REG_ICR = 0x00c0,
	REG_ITR = 0x00c4,
	REG_ICS = 0x00c8,
	REG_IMS = 0x00d0,
	REG_IMC = 0x00d8,
	REG_RCTL = 0x0100,
	REG_TXCW = 0x0178,
	REG_TCTL = 0x0400,
	REG_TIPG = 0x0410,
	REG_AIT = 0x0458,
	REG_LEDCTL = 0x0e00,
	REG_PBA = 0x1000,
	REG_FCRTL = 0x2160,
	REG_FCRTH = 0x2168,
	REG_RDBAL = 0x2800,
	REG_RDBAH = 0x2804,
	REG_RDLEN = 0x2808,
	REG_RDH = 0x2810,
	REG_RDT = 0x2818,
	REG_RDTR = 0x2820,
	REG_RXDCTL = 0x2828,
	REG_RADV = 0x282c,
	REG_TDBAL = 0x3800,
	REG_TDBAH = 0x3804,
	REG_TDLEN = 0x3808,
	REG_TDH = 0x3810,
	REG_TDT = 0x3818,
	REG_TIDV = 0x3820,
	REG_TXDCTL = 0x3828,
	REG_TADV = 0x382c,
	REG_STATS = 0x4000,
	REG_STATS_END = 0x4100,
	REG_MPC = 0x4010,
	REG_GPRC = 0x4074,
	REG_GPTC = 0x4080,
	REG_GORCL = 0x4088,
	REG_GOTCL = 0x4090,
	REG_TPR = 0x40d0,
	REG_TPT = 0x40d4,
	REG_RXCSUM = 0x5000,
	REG_MTA = 0x5200,
	REG_MTA_END = 0x5400,
	REG_RA = 0x5400,
	REG_RA_END = 0x5480,
	REG_VFTA = 0x5600,
	REG_VFTA_END = 0x5800,
	REG_WUC = 0x5800,
	REG_WUFC = 0x5808,
	REG_MANC = 0x5820,

	CTRL_SLU = 1u << 6,
	CTRL_RST = 1u << 26,
	CTRL_VME = 1u << 30,
	CTRL_PHY_RST = 1u << 31,
	STATUS_FD = 1u << 0,
	STATUS_LU = 1u << 1,
	STATUS_SPEED_1000 = 2u << 6,

	EECD_SK = 1u << 0,
	EECD_CS = 1u << 1,
	EECD_DI = 1u << 2,
	EECD_DO = 1u << 3,
	EECD_REQ = 1u << 6,
	EECD_GNT = 1u << 7,
	EECD_PRES = 1u << 8,

	ICR_TXDW = 1u << 0,
	ICR_TXQE = 1u << 1,
	ICR_LSC = 1u << 2,
	ICR_RXDMT0 = 1u << 4,
	ICR_RXO = 1u << 6,
	ICR_RXT0 = 1u << 7,
	ICR_MDAC = 1u << 9,

	RCTL_EN = 1u << 1,
	RCTL_UPE = 1u << 3,
	RCTL_MPE = 1u << 4,
	RCTL_LPE = 1u << 5,
	RCTL_BAM = 1u << 15,
	RCTL_BSEX = 1u << 25,
	RCTL_SECRC = 1u << 26,
	TCTL_EN = 1u << 1,
	TCTL_PSP = 1u << 3,
};

/* The context a context descriptor sets up for the data descriptors after it (manual 3.3.6). */
struct e1000_context {
	uint8_t ipcss, ipcso, tucss, tucso, hdrlen;
	uint16_t ipcse, tucse, mss;
	uint32_t paylen;
	bool tcp, ipv4;
};

struct e1000 {
	struct device dev;
	struct pci_device pci;
	struct legacy_net *net;
	struct bus_region *mmio;
	uint8_t mac[6];
	uint32_t regs[E1000_REGS_SIZE / 4];
	uint16_t phy[E1000_PHY_REGS];
	uint16_t eeprom[E1000_EEPROM_SIZE];
	uint32_t ioaddr;
	/* Microwire: bits shifted in since chip select, and the word being shifted out */
	uint32_t ee_in;
	uint16_t ee_out;
	uint8_t ee_bits, ee_out_bits;
	bool ee_clock;
	/* the frame being gathered; on the I/O thread, or quiesced */
	struct e1000_context context;
	uint8_t *frame;
	uint32_t frame_len;
	bool frame_bad;     /* too long or outside memory: consumed, not sent */
	bool frame_started; /* offload bits of its first descriptor are known */
	bool frame_ready;   /* complete; the port would not take it yet */
	uint8_t frame_popts;
	bool frame_tse;
	struct net_vnet_hdr frame_hdr;
};

static inline uint32_t e1000_reg(const struct e1000 *e, unsigned reg)
{
	return e->regs[reg / 4];
}

static inline void e1000_reg_set(struct e1000 *e, unsigned reg, uint32_t v)
{
	e->regs[reg / 4] = v;
}

/* A descriptor ring as the guest set it up; n is 0 when it is unusable. */
struct e1000_ring {
	uint64_t base;
	uint32_t n, head, tail;
};
struct e1000_ring e1000_ring_get(const struct e1000 *e, unsigned base_reg);

/* Adds causes and drives INTx. Under the lock. */
void e1000_interrupt(struct e1000 *e, uint32_t causes);
void e1000_stat_add(struct e1000 *e, unsigned reg, uint32_t n);

/* e1000_tx.c, e1000_rx.c: legacy_net's callbacks (I/O thread). */
void e1000_transmit(void *ctx);
bool e1000_receive_room(void *ctx);
void e1000_received(void *ctx, const uint8_t *frame, uint32_t len);

#endif
