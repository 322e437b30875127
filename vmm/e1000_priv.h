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
#define E1000_CRC         4u
#define E1000_FRAME_MIN   60u /* without CRC, as all lengths here */
#define E1000_FRAME_STD   1518u
#define E1000_FRAME_LONG  16384u

enum {
	REG_CTRL = 0x0000,
	REG_STATUS = 0x0008,
	REG_EECD = 0x0010,
	REG_EERD = 0x0014,
	REG_CTRL_EXT = 0x0018,
	REG_MDIC = 0x0020,
	REG_FCAL = 0x0028,
	REG_VET = 0x0038,
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
	REG_PRC64 = 0x405c,
	REG_GPRC = 0x4074,
	REG_BPRC = 0x4078,
	REG_MPRC = 0x407c,
	REG_GPTC = 0x4080,
	REG_GORCL = 0x4088,
	REG_GOTCL = 0x4090,
	REG_RNBC = 0x40a0,
	REG_ROC = 0x40ac,
	REG_TORL = 0x40c0,
	REG_TOTL = 0x40c8,
	REG_TPR = 0x40d0,
	REG_TPT = 0x40d4,
	REG_PTC64 = 0x40d8,
	REG_MPTC = 0x40f0,
	REG_BPTC = 0x40f4,
	REG_TSCTC = 0x40f8,
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
	RCTL_LBM = 3u << 6,
	RCTL_BAM = 1u << 15,
	RCTL_VFE = 1u << 18,
	RCTL_BSEX = 1u << 25,
	RCTL_SECRC = 1u << 26,
	TCTL_EN = 1u << 1,
	TCTL_PSP = 1u << 3,
	PHY_CTRL_LOOPBACK = 0x4000,
};

/* The context a context descriptor sets up for the data descriptors after it (manual 3.3.6). */
struct e1000_context {
	uint8_t ipcss, ipcso, tucss, tucso, hdrlen;
	uint16_t ipcse, tucse, mss;
	uint32_t paylen;
	bool tcp, ipv4;
};

/* A cause that is set when nothing more has come for a while. */
struct e1000_delay {
	uint64_t first_ns, due_ns; /* due 0: there is none */
};

struct e1000 {
	struct device dev;
	struct pci_device pci;
	struct legacy_net *net;
	uint32_t port_offloads; /* what the port finishes by itself */
	uint8_t mac[6];
	uint32_t regs[E1000_REGS_SIZE / 4];
	/* e1000_irq.c */
	struct io_thread *io;
	struct io_work wake_work;
	struct io_timer wake_timer; /* the I/O thread's */
	uint64_t wake_ns;           /* when it is to expire; 0: not */
	struct e1000_delay tx_delay, rx_delay;
	uint64_t rose_ns; /* when the line last rose, if that was counted */
	bool level;       /* of the line */
	struct posted posted;
	uint16_t phy[E1000_PHY_REGS];
	bool cable; /* the port's link */
	uint16_t eeprom[E1000_EEPROM_SIZE];
	uint32_t ioaddr;
	/* Microwire: bits shifted in since chip select, and the word being shifted out */
	uint32_t ee_in;
	uint16_t ee_out;
	uint8_t ee_bits, ee_out_bits;
	bool ee_clock;
	/* The frame being gathered, then sent: on the I/O thread, or quiesced. */
	struct e1000_context context;
	uint8_t *frame;   /* E1000_FRAME_MAX bytes */
	uint8_t *segment; /* likewise */
	uint32_t frame_len;
	bool frame_bad;     /* too long or outside memory: consumed, not sent */
	bool frame_started; /* offload bits of its first descriptor are known */
	bool frame_ready;   /* complete; what is left of it the port did not take yet */
	bool frame_tse;
	bool frame_cut;      /* segmented here, not by the port */
	bool frame_tagged;   /* all offsets of the context are 4 more */
	uint8_t frame_popts; /* of its first descriptor */
	uint32_t frame_sent; /* bytes of payload gone in segments */
	uint16_t frame_index;
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

/* e1000_irq.c: fini from any thread but the I/O thread, when nothing raises interrupts any more. */
void e1000_irq_init(struct e1000 *e, struct io_thread *io);
void e1000_irq_fini(struct e1000 *e);
/* Delays are over early, and no timer runs until it is resumed. Not from the I/O thread. */
void e1000_irq_quiesce(struct e1000 *e);
void e1000_irq_resume(struct e1000 *e);
/* Adds causes and drives INTx. Everything below under the device's lock. */
void e1000_interrupt(struct e1000 *e, uint32_t causes);
/* A frame was sent whose descriptor asks for a delay; one was received. */
void e1000_interrupt_sent(struct e1000 *e);
void e1000_interrupt_received(struct e1000 *e);
/* Causes that would be set in a while; forget: they will not. */
uint32_t e1000_interrupts_due(const struct e1000 *e);
void e1000_interrupts_forget(struct e1000 *e);
void e1000_stat_add(struct e1000 *e, unsigned reg, uint32_t n);
/* One frame of len bytes that was sent or received well. */
void e1000_stat_frame(struct e1000 *e, const uint8_t *frame, uint32_t len, bool sent);
/* Fills the EEPROM from the address. */
void e1000_eeprom_fill(struct e1000 *e);
/* Brings the link in line with cable and CTRL.SLU; a change is an interrupt. Under the lock. */
void e1000_link_check(struct e1000 *e);
void e1000_irq_update(struct e1000 *e);
/* e1000_state.c */
void e1000_save(struct device *d, struct state_writer *w);
void e1000_load(struct device *d, struct state_reader *r);
/* May the device use memory? (PCI command register) */
bool e1000_is_master(const struct e1000 *e);
/* What is sent comes back instead of leaving. */
bool e1000_is_loopback(const struct e1000 *e);

/*
 * e1000_offload.c. finish: does to the gathered frame what can be done in place and leaves the rest
 * in frame_hdr, for the port, or in frame_cut. -EINVAL: the context does not fit the frame.
 * segment: builds segment number frame_index, at byte frame_sent of the payload, with all sums; its
 * length, 0 when there is no sense in it.
 */
int e1000_frame_finish(struct e1000 *e);
void e1000_frame_tag(struct e1000 *e, uint16_t tag);
uint32_t e1000_frame_segment(const struct e1000 *e, uint8_t to[E1000_FRAME_MAX], uint32_t *payload);
/* The sum over [start, end) into the two bytes at `at`, which count too. */
void e1000_checksum(uint8_t *frame, uint32_t start, uint32_t end, uint32_t at);

/* e1000_tx.c: the frame being gathered or sent is given up. */
void e1000_frame_forget(struct e1000 *e);

/* e1000_rx.c: a frame from the wire, or back from the transmitter. */
void e1000_frame_receive(struct e1000 *e, const uint8_t *frame, uint32_t len);

/* e1000_tx.c, e1000_rx.c: legacy_net's callbacks (I/O thread, no lock held). */
void e1000_transmit(void *ctx);
bool e1000_receive_room(void *ctx);
void e1000_received(void *ctx, const uint8_t *frame, uint32_t len);

enum {
	E1000_POPTS_IXSM = 1u << 0,
	E1000_POPTS_TXSM = 1u << 1,
};

static inline uint16_t e1000_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void e1000_put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

#endif
