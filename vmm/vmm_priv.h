/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of vmm/ share: buses, interrupts, PCI, and the shape every device model has.
 *
 * Locks, outermost first: a device's own lock, then the bus lock or the interrupt lock. A bus
 * handler runs with its device's lock held and no other. I/O threads take a device's lock to
 * complete work. Nothing blocks on storage or network while holding any of them.
 */
#ifndef VMM_PRIV_H
#define VMM_PRIV_H

#include <pthread.h>

#include "vmm/vmm.h"

/* ------------------------------------------------------------------ buses */

enum bus_kind { BUS_PIO, BUS_MMIO };

/*
 * A range of ports or addresses with its handler. Embedded by its owner, which keeps it until the
 * machine is destroyed. Accesses may be narrower or wider than a register: the handler sees size as
 * the guest made it (1, 2, 4; MMIO also 8). They never cross the end of the region (the bus splits
 * or refuses).
 */
struct bus_region {
	uint64_t base;
	uint64_t size;
	enum bus_kind kind;
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
	/*
	 * String I/O, optional: `count` elements of `size` bytes at one port, from or to buf.
	 * Without it the bus calls read/write for each.
	 */
	void (*read_string)(
		void *opaque, uint64_t offset, void *buf, unsigned size, unsigned count);
	void (*write_string)(
		void *opaque, uint64_t offset, const void *buf, unsigned size, unsigned count);
	void *opaque;
	pthread_mutex_t *lock; /* held around the handler */
	struct device_counters
		*counters; /* exits and coalesced writes are counted here; NULL: not */
	/*
	 * Offsets whose writes have no effect the guest could see before its next access that
	 * exits: KVM collects them (KVM_CAP_COALESCED_PIO / _MMIO) and they are replayed, in order,
	 * before the next exit is handled. Pairs of offset and length; ends with length 0; NULL:
	 * none.
	 */
	const struct bus_span {
		uint32_t offset;
		uint32_t len;
	} * posted;
	bool mapped;
	struct bus_region *next;
};

/* Maps, and registers its posted spans with KVM. -EEXIST: overlaps a mapped region (it stays
 * unmapped). */
int bus_map(struct machine *m, struct bus_region *region);
void bus_unmap(struct machine *m, struct bus_region *region);
/* Changes what is posted; a mapped region stays mapped. Any thread; may wait milliseconds for KVM.
 */
void bus_posted_change(struct machine *m, struct bus_region *region, const struct bus_span *posted);
/*
 * Doorbells: registers whose writes must be seen soon. A PCI or ISA write is posted all the same,
 * its writer cannot know when it has arrived until it reads. While they are seldom rung each exits.
 * When the guest rings often, the I/O thread is awake anyway: they are then left with KVM, and the
 * thread looks there in every round (posted.c). So under load no doorbell exits, and those rung
 * meanwhile are combined; before the thread sleeps they exit again. An eventfd would not do where
 * the value written matters.
 *
 * Everything but posted_ring() before or after the device works, and not from the I/O thread.
 */
#define POSTED_REGIONS 3u
struct posted {
	struct machine *machine;
	struct io_thread *io; /* NULL: not in use */
	struct posted_region {
		struct bus_region *region;
		const struct bus_span *seldom, *often;
	} regions[POSTED_REGIONS];
	unsigned nregions;
	_Atomic uint64_t rung;
	/* the I/O thread's */
	struct io_poller poller;
	struct io_timer look;
	uint64_t seen; /* of rung */
	uint64_t window_ns, in_window, threshold;
	uint64_t saved;   /* writes that did not exit, since KVM was told */
	uint64_t last_ns; /* when the last of them was found */
	uint32_t rounds;
	bool looking; /* KVM may keep doorbells */
	bool busy;    /* it is being told: `want` stands */
	/* the teller's, while busy */
	struct posted *next;
	struct io_work told;
	bool want;    /* that it is to keep them */
	bool telling; /* under its lock */
};

/* seldom: always posted; often: that, and the doorbells. No span of one within one of the other's.
 */
void posted_region_add(struct posted *p, struct bus_region *region, const struct bus_span *seldom,
	const struct bus_span *often);
/* io: the thread that does the device's work. Does nothing the second time, without KVM, or where
 * writes are not to be posted or nobody is to poll. -EAGAIN: no thread. */
int posted_start(struct posted *p, struct machine *m, struct io_thread *io);
void posted_stop(struct posted *p);
/* A doorbell was rung. Any thread. */
static inline void posted_ring(struct posted *p)
{
	counter_add(&p->rung, 1);
}

/* One access by a vCPU (or a test). True when somebody answered. Write: data is read; read: data is
 * filled (all ones when nobody did). */
bool bus_access(struct machine *m, enum bus_kind kind, uint64_t addr, void *data, unsigned size,
	unsigned count, bool write, bool coalesced);

/* A write to addr (PIO or MMIO) of `size` bytes that equals datamatch (if match) signals fd and
 * does not exit. size 0: any size (MMIO only). */
struct bus_doorbell {
	enum bus_kind kind;
	uint64_t addr;
	unsigned size;
	bool match;
	uint64_t datamatch;
	int fd;
};
int bus_doorbell_add(struct machine *m, const struct bus_doorbell *db);
int bus_doorbell_remove(struct machine *m, const struct bus_doorbell *db);

/* ------------------------------------------------------------------ interrupts */

#define IRQ_GSI_ISA_MAX 16u
#define IRQ_GSI_MSI     24u /* first GSI of the MSI routes */

/*
 * One device's connection to an interrupt line. Lines are shared: the line is high while any source
 * is. irq_source_set() may be called from any thread; it makes a system call only when the line
 * changes.
 */
struct irq_source {
	struct machine *machine;
	unsigned gsi;
	bool level; /* under the machine's interrupt lock */
};
void irq_source_init(struct irq_source *s, struct machine *m, unsigned gsi);
void irq_source_set(struct irq_source *s, bool level);

/* ------------------------------------------------------------------ PCI */

#define PCI_SLOTS    32u
#define PCI_BARS     6u
#define PCI_CFG_SIZE 256u

struct pci_device;

struct pci_bar {
	uint32_t size; /* 0: absent; a power of two, at least 4 (I/O) or 16 (memory; map at least
			  4096) */
	bool io;
	bool prefetch;
	struct bus_region region; /* handlers filled by the model; base follows the guest */
};

struct pci_ops {
	/* After a BAR has been mapped at its region's base, or unmapped: for doorbells. May be
	 * NULL. Under the device's lock. */
	void (*bar_mapped)(struct pci_device *pci, unsigned bar, bool mapped);
	/* Config space beyond what the PCI layer handles (capabilities with side effects). True:
	 * handled. May be NULL. */
	bool (*config_read)(
		struct pci_device *pci, unsigned offset, unsigned size, uint32_t *value);
	bool (*config_write)(
		struct pci_device *pci, unsigned offset, unsigned size, uint32_t value);
	/* MSI-X was turned on or off: pci_msix_fd() answers anew. May be NULL. Under the device's
	 * lock. */
	void (*msix_changed)(struct pci_device *pci);
};

struct msix; /* MSI-X state, pci_msix_init() */

/* Embedded by a device model. */
struct pci_device {
	struct machine *machine;
	const struct pci_ops *ops;
	unsigned slot, function; /* set by pci_add() */
	uint8_t config[PCI_CFG_SIZE];
	uint8_t writable[PCI_CFG_SIZE]; /* bits the guest may change */
	struct pci_bar bars[PCI_BARS];
	pthread_mutex_t *lock; /* the device's */
	struct irq_source intx;
	bool intx_asserted; /* what the model wants; the line follows unless INTx is disabled in the
			       command register */
	bool has_intx;
	struct msix *msix;
	struct device_counters *counters;
	uint8_t cap_last; /* offset of the last capability, for linking */
	uint8_t cap_next; /* free space for the next one */
};

/* Fills the type 0 header. pin: 0 none, 1 INTA#. */
void pci_init(struct pci_device *pci, struct machine *m, pthread_mutex_t *lock, uint16_t vendor,
	uint16_t device, uint32_t class_code, uint8_t revision, uint16_t subvendor,
	uint16_t subdevice, uint8_t pin);
/* Declares a BAR; region.read, .write, .opaque ... are set by the caller afterwards. */
struct pci_bar *pci_bar_init(struct pci_device *pci, unsigned bar, uint32_t size, bool io);
/* Reserves config space for a capability and links it; its offset, or -ENOSPC. Body is filled by
 * the caller. */
int pci_capability_add(struct pci_device *pci, uint8_t id, uint8_t len);
/* slot < 0: the next free one. function as given. -ENOSPC, -EEXIST. */
int pci_add(struct pci_device *pci, int slot, unsigned function);
/* The device's INTx wish; any thread holding the device's lock. Counts a raised interrupt on a
 * rising edge. */
void pci_intx_set(struct pci_device *pci, bool asserted);
/* Gives every BAR an address and turns decoding and bus mastering on (no firmware does it). */
int pci_assign_all(struct machine *m);
void pci_device_reset(struct pci_device *pci);
/* Config space, BARs, INTx, MSI-X: in the section that is open, or else in one of their own. */
void pci_device_save(struct pci_device *pci, struct state_writer *w);
void pci_device_load(struct pci_device *pci, struct state_reader *r);
void pci_device_free(struct pci_device *pci);

/*
 * MSI-X (PCI 3.0, 6.8.2): table and pending bits in a memory BAR of their own. Each vector has an
 * eventfd that is an irqfd while it may be delivered; while it is masked the eventfd keeps the
 * event, and that is the pending bit.
 */
int pci_msix_init(struct pci_device *pci, unsigned bar, unsigned vectors);
bool pci_msix_enabled(const struct pci_device *pci);
/* Raises a vector. Any thread, no lock, never blocks. vector out of range (0xFFFF: none): nothing.
 */
void pci_msix_raise(struct pci_device *pci, unsigned vector);
/* The vector's eventfd, for another process to raise it by; -1: there is none, or nobody listens to
 * it. Any thread, no lock. */
int pci_msix_fd(const struct pci_device *pci, unsigned vector);

/* ------------------------------------------------------------------ devices */

struct device;

struct device_ops {
	void (*reset)(struct device *d);   /* quiesced: to power-on state */
	void (*quiesce)(struct device *d); /* wait until nothing is in flight; not on vCPU or I/O
					      threads; no lock held */
	void (*resume)(struct device *d);
	/* quiesced; save and load begin and end a section of their own, named d->name */
	void (*save)(struct device *d, struct state_writer *w);
	void (*load)(struct device *d,
		struct state_reader *r);   /* quiesced; errors through r->error, hostile input */
	void (*destroy)(struct device *d); /* quiesced; frees d */
	const struct histogram *(*latency)(struct device *d, unsigned queue); /* NULL: none */
	/* What others wrote for the device goes into the dirty bitmap. NULL: nobody does. */
	void (*dirty_sync)(struct device *d);
};

/* Embedded first by every model, the machine's own (serial, PM ...) and the user's. */
struct device {
	const struct device_ops *ops;
	const struct device_model *model;
	struct machine *machine;
	const char *name; /* unique within the machine, names its section in a saved state; e.g.
			     "serial0", "disk0" */
	char name_buf[16];
	pthread_mutex_t lock;
	struct device_counters counters;
	/* Where this device really counts, when not above (split devices count in the backend);
	 * NULL: above. Read through device_counters_of(). Set after device_add(). */
	struct device_counters *counters_elsewhere;
	struct device *next;
};

static inline const struct device_counters *device_counters_of(const struct device *d)
{
	return d->counters_elsewhere ? d->counters_elsewhere : &d->counters;
}

/* Initialises the common part and puts d at the end of the machine's list (the order of save, load
 * and reset). */
void device_add(
	struct machine *m, struct device *d, const struct device_ops *ops, const char *name);

/* What a model is made from. */
struct disk_args {
	const struct disk_config *cfg;
	struct blk_image *image; /* the machine's; NULL: another process's (vhost-user) */
	struct io_thread *io;
	unsigned index; /* among the disks of this model */
	char name[16];
};
struct net_args {
	const struct net_config *cfg;
	struct net_port *port; /* the machine's; NULL: another process's (vhost-user) */
	struct io_thread *io;
	unsigned index;
	uint8_t mac[6];
	char name[16];
};
/* A device that is neither disk nor card: what it is made from is in the machine's configuration.
 */
struct other_args {
	const struct machine_config *cfg;
	struct io_thread *io;
	unsigned index; /* among those that there may be several of */
	char name[16];
};

struct device_model {
	struct model_info info;
	int (*create_disk)(struct machine *m, const struct disk_args *args, struct device **out,
		char why[VMM_WHY_MAX]);
	int (*create_net)(struct machine *m, const struct net_args *args, struct device **out,
		char why[VMM_WHY_MAX]);
	int (*create_other)(struct machine *m, const struct other_args *args, struct device **out,
		char why[VMM_WHY_MAX]);
};

/* The explicit, ordered table of all models (models.c). */
extern const struct device_model *const device_models[];
const struct device_model *device_model_find(const char *kind, const char *name);

int ide_create(struct machine *m, const struct disk_args *args, struct device **out,
	char why[VMM_WHY_MAX]);
int ide_cd_create(struct machine *m, const struct disk_args *args, struct device **out,
	char why[VMM_WHY_MAX]);
int rtl8139_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX]);
/* The six bits by which the multicast filters of National's and Realtek's cards look an address up.
 */
unsigned ether_multicast_hash(const uint8_t *mac);
int ne2000_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX]);
int e1000_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX]);
int virtio_pci_blk_create(struct machine *m, const struct disk_args *args, struct device **out,
	char why[VMM_WHY_MAX]);
int virtio_pci_net_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX]);
int virtio_pci_console_create(struct machine *m, const struct other_args *args, struct device **out,
	char why[VMM_WHY_MAX]);
int virtio_pci_rng_create(struct machine *m, const struct other_args *args, struct device **out,
	char why[VMM_WHY_MAX]);
int virtio_pci_balloon_create(struct machine *m, const struct other_args *args, struct device **out,
	char why[VMM_WHY_MAX]);
int virtio_pci_vsock_create(struct machine *m, const struct other_args *args, struct device **out,
	char why[VMM_WHY_MAX]);
int virtio_pci_vhost_blk_create(struct machine *m, const struct disk_args *args,
	struct device **out, char why[VMM_WHY_MAX]);
int virtio_pci_vhost_net_create(
	struct machine *m, const struct net_args *args, struct device **out, char why[VMM_WHY_MAX]);
int virtio_pci_vhost_fs_create(struct machine *m, const struct other_args *args,
	struct device **out, char why[VMM_WHY_MAX]);
/* The backend's half of a device made by one of these. */
struct split_device *virtio_pci_split(struct device *d);

/* ------------------------------------------------------------------ the machine */

/* What models may ask of the machine. */
const struct ring_mem *machine_mem(struct machine *m);
/* The file that guest memory is, for processes that share it. */
struct split_vhost_memory machine_memory_file(const struct machine *m);
/* A line about a device while the machine runs. Any thread. */
void machine_note(const struct machine *m, const char *device, const char *line);
bool machine_has_kvm(const struct machine *m);
/* A device of this machine by its name; NULL: none (yet). For models that share a controller. */
struct device *machine_device_find(const struct machine *m, const char *name);
/* The guest asked for its end (reset register, PM, triple fault). From a vCPU thread, under a
 * device lock. */
void machine_request_end(struct machine *m, enum machine_end end);
/* Replays the posted writes KVM holds; how many. Called by vCPU threads before each exit is
 * handled, by device quiesce, and by I/O threads that look for doorbells. */
unsigned machine_coalesced_drain(struct machine *m);
/* Counts one system call made on the calling thread, if that is a vCPU's; else does nothing. */
void machine_system_call_count(void);

#endif
