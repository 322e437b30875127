/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI as a guest sees it by ports: enumeration, BARs that move, INTx lines that are shared, MSI-X
 * with its mask and pending bits, without KVM and with its irqfds.
 */
#include "tests/unit/test_machine_rig.h"
#include "tests/unit/test_virtio_pci_rig.h"

/* 82540EM registers that raise and lower its interrupt by hand (manual, 13.4.17 - 13.4.21) */
#define E1000_ICR 0xc0u
#define E1000_ICS 0xc8u
#define E1000_IMS 0xd0u
#define E1000_IMC 0xd8u

struct bus {
	struct machine *m;
	struct machine_config cfg;
	atomic_uint rises[24];
	atomic_bool line[24];
};

static void bus_interrupt(void *ctx, int gsi, bool level, uint64_t address, uint32_t data)
{
	struct bus *b = ctx;

	(void)address;
	(void)data;
	if (gsi < 0 || gsi >= 24)
		return;
	b->line[gsi] = level;
	b->rises[gsi] += level;
}

static void bus_make(struct bus *b, const char *const *models, unsigned n)
{
	char why[VMM_WHY_MAX];

	memset(b, 0, sizeof(*b));
	machine_config_init(&b->cfg);
	b->cfg.no_kvm = true;
	b->cfg.memory = 16 << 20;
	b->cfg.interrupt_hook = bus_interrupt;
	b->cfg.interrupt_ctx = b;
	for (unsigned i = 0; i < n; i++) {
		b->cfg.nets[i].memory = "sink";
		b->cfg.nets[i].model = models[i];
	}
	b->cfg.nnets = n;
	if (machine_create(&b->m, &b->cfg, why)) {
		printf("\n%s\n", why);
		abort();
	}
}

static uint32_t cfg_read(struct machine *m, unsigned slot, unsigned f, unsigned reg, unsigned size)
{
	machine_port_write(m, 0xcf8, 0x80000000u | slot << 11 | f << 8 | (reg & 0xfc), 4);
	return machine_port_read(m, (uint16_t)(0xcfc + (reg & 3)), size);
}

static void cfg_write(
	struct machine *m, unsigned slot, unsigned f, unsigned reg, uint32_t value, unsigned size)
{
	machine_port_write(m, 0xcf8, 0x80000000u | slot << 11 | f << 8 | (reg & 0xfc), 4);
	machine_port_write(m, (uint16_t)(0xcfc + (reg & 3)), value, size);
}

static const char *const three[] = {"e1000", "ne2k_pci", "e1000"};

/* ------------------------------------------------------------------ configuration space */

static void test_enumerate(void)
{
	unsigned found = 0;
	struct bus b;

	bus_make(&b, three, 3);
	CU_ASSERT_EQUAL(cfg_read(b.m, 0, 0, 0, 4), 0x12378086);
	CU_ASSERT_EQUAL(cfg_read(b.m, 0, 0, 8, 4), 0x06000002);
	CU_ASSERT_EQUAL(cfg_read(b.m, 1, 0, 0, 4), 0x70008086);
	CU_ASSERT_EQUAL(cfg_read(b.m, 1, 0, 10, 2), 0x0601);
	CU_ASSERT_EQUAL(cfg_read(b.m, 1, 0, 14, 1), 0x80); /* more functions */
	CU_ASSERT_EQUAL(cfg_read(b.m, 1, 3, 0, 4), 0x71138086);
	CU_ASSERT_EQUAL(cfg_read(b.m, 1, 3, 0x40, 4), 0x0601);
	CU_ASSERT_EQUAL(cfg_read(b.m, 2, 0, 0, 4), 0x100e8086);
	CU_ASSERT_EQUAL(cfg_read(b.m, 3, 0, 0, 4), 0x802910ec);
	CU_ASSERT_EQUAL(cfg_read(b.m, 4, 0, 0, 4), 0x100e8086);
	for (unsigned slot = 0; slot < 32; slot++)
		for (unsigned f = 0; f < 8; f++)
			found += cfg_read(b.m, slot, f, 0, 2) != 0xffff;
	CU_ASSERT_EQUAL(found, 6);
	/* no such bus; the enable bit; an access across a doubleword */
	machine_port_write(b.m, 0xcf8, 0x80010000, 4);
	CU_ASSERT_EQUAL(machine_port_read(b.m, 0xcfc, 4), 0xffffffff);
	machine_port_write(b.m, 0xcf8, 0x00000000, 4);
	CU_ASSERT_EQUAL(machine_port_read(b.m, 0xcfc, 4), 0xffffffff);
	machine_port_write(b.m, 0xcf8, 0x80000000, 4);
	CU_ASSERT_EQUAL(machine_port_read(b.m, 0xcfe, 2), 0x1237);
	CU_ASSERT_EQUAL(machine_port_read(b.m, 0xcfd, 1), 0x80);
	/* read-only means so */
	cfg_write(b.m, 0, 0, 0, 0xdeadbeef, 4);
	CU_ASSERT_EQUAL(cfg_read(b.m, 0, 0, 0, 4), 0x12378086);
	machine_destroy(b.m);
}

static void test_bars(void)
{
	uint32_t io, memory, size;
	struct bus b;

	bus_make(&b, three, 3);
	memory = cfg_read(b.m, 2, 0, 0x10, 4);
	io = cfg_read(b.m, 3, 0, 0x10, 4);
	CU_ASSERT_TRUE(memory >= 0xc0000000 && memory < 0xfeb00000 && !(memory & 0x1ffff));
	CU_ASSERT_EQUAL(io & 3, 1);
	CU_ASSERT_EQUAL(cfg_read(b.m, 2, 0, 4, 2) & 7, 7);
	/* sizing, with decoding on: nothing moves for good */
	cfg_write(b.m, 2, 0, 0x10, 0xffffffff, 4);
	size = cfg_read(b.m, 2, 0, 0x10, 4);
	CU_ASSERT_EQUAL(size, ~0x1ffffu);
	cfg_write(b.m, 2, 0, 0x10, memory, 4);
	cfg_write(b.m, 3, 0, 0x10, 0xffffffff, 4);
	CU_ASSERT_EQUAL(cfg_read(b.m, 3, 0, 0x10, 4), 0xffffffe1);
	cfg_write(b.m, 3, 0, 0x10, io, 4);
	cfg_write(b.m, 3, 0, 0x24, 0xffffffff, 4);
	CU_ASSERT_EQUAL(cfg_read(b.m, 3, 0, 0x24, 4), 0); /* absent */
	/* it answers where it is, and only there; STATUS (8) is never all ones */
	CU_ASSERT_NOT_EQUAL(machine_mmio_read(b.m, memory + 8, 4), 0xffffffff);
	cfg_write(b.m, 2, 0, 0x10, 0xd1000000, 4);
	CU_ASSERT_EQUAL(machine_mmio_read(b.m, memory + 8, 4), 0xffffffff);
	CU_ASSERT_NOT_EQUAL(machine_mmio_read(b.m, 0xd1000008, 4), 0xffffffff);
	/* byte by byte */
	cfg_write(b.m, 2, 0, 0x13, 0xd2, 1);
	CU_ASSERT_NOT_EQUAL(machine_mmio_read(b.m, 0xd2000008, 4), 0xffffffff);
	/* decoding off and on */
	cfg_write(b.m, 2, 0, 4, 0, 2);
	CU_ASSERT_EQUAL(machine_mmio_read(b.m, 0xd2000008, 4), 0xffffffff);
	cfg_write(b.m, 2, 0, 4, 7, 2);
	CU_ASSERT_NOT_EQUAL(machine_mmio_read(b.m, 0xd2000008, 4), 0xffffffff);
	/* over RAM, over the interrupt controllers, over another BAR: nobody is hidden */
	cfg_write(b.m, 2, 0, 0x10, 0x00100000, 4);
	CU_ASSERT_EQUAL(machine_mmio_read(b.m, 0x00100008, 4), 0xffffffff);
	cfg_write(b.m, 2, 0, 0x10, 0xfee00000, 4);
	CU_ASSERT_EQUAL(machine_mmio_read(b.m, 0xfee00008, 4), 0xffffffff);
	memory = cfg_read(b.m, 4, 0, 0x10, 4);
	cfg_write(b.m, 2, 0, 0x10, memory, 4);
	machine_mmio_write(b.m, memory + E1000_IMS, 4, 4);
	cfg_write(b.m, 2, 0, 0x10, 0xd3000000, 4);
	CU_ASSERT_EQUAL(machine_mmio_read(b.m, 0xd3000000 + E1000_IMS, 4), 0);
	CU_ASSERT_EQUAL(machine_mmio_read(b.m, memory + E1000_IMS, 4), 4);
	machine_destroy(b.m);
}

/* ------------------------------------------------------------------ INTx */

static void test_intx_shared(void)
{
	uint64_t a, c;
	struct bus b;
	unsigned gsi;

	bus_make(&b, three, 3);
	a = cfg_read(b.m, 2, 0, 0x10, 4);
	c = cfg_read(b.m, 4, 0, 0x10, 4);
	gsi = cfg_read(b.m, 2, 0, 0x3c, 1);
	CU_ASSERT_TRUE(gsi == 10 || gsi == 11);
	CU_ASSERT_EQUAL(cfg_read(b.m, 4, 0, 0x3c, 1), gsi);
	CU_ASSERT_EQUAL(cfg_read(b.m, 3, 0, 0x3c, 1), 21 - gsi);
	CU_ASSERT_EQUAL(cfg_read(b.m, 2, 0, 0x3d, 1), 1);
	machine_mmio_write(b.m, a + E1000_IMS, 4, 4);
	machine_mmio_write(b.m, c + E1000_IMS, 4, 4);
	CU_ASSERT_FALSE(b.line[gsi]);
	machine_mmio_write(b.m, a + E1000_ICS, 4, 4);
	CU_ASSERT_TRUE(b.line[gsi]);
	CU_ASSERT_EQUAL(cfg_read(b.m, 2, 0, 6, 2) & 8, 8);
	CU_ASSERT_EQUAL(cfg_read(b.m, 4, 0, 6, 2) & 8, 0);
	machine_mmio_write(b.m, c + E1000_ICS, 4, 4);
	CU_ASSERT_EQUAL(b.rises[gsi], 1);
	/* one lets go, the other still holds it */
	machine_mmio_read(b.m, a + E1000_ICR, 4);
	CU_ASSERT_TRUE(b.line[gsi]);
	CU_ASSERT_EQUAL(cfg_read(b.m, 2, 0, 6, 2) & 8, 0);
	/* the disable bit hides the line, not the status */
	cfg_write(b.m, 4, 0, 4, 0x407, 2);
	CU_ASSERT_FALSE(b.line[gsi]);
	CU_ASSERT_EQUAL(cfg_read(b.m, 4, 0, 6, 2) & 8, 8);
	cfg_write(b.m, 4, 0, 4, 7, 2);
	CU_ASSERT_TRUE(b.line[gsi]);
	machine_mmio_read(b.m, c + E1000_ICR, 4);
	CU_ASSERT_FALSE(b.line[gsi]);
	machine_destroy(b.m);
}

static void test_pirq(void)
{
	struct bus b;
	uint64_t a;
	unsigned gsi;

	bus_make(&b, three, 1);
	a = cfg_read(b.m, 2, 0, 0x10, 4);
	gsi = cfg_read(b.m, 2, 0, 0x3c, 1);
	CU_ASSERT_EQUAL(cfg_read(b.m, 1, 0, 0x60, 4), 0x0b0a0b0a);
	machine_mmio_write(b.m, a + E1000_IMS, 4, 4);
	machine_mmio_write(b.m, a + E1000_ICS, 4, 4);
	CU_ASSERT_TRUE(b.line[gsi]);
	/* device 2's INTA# is PIRQB */
	cfg_write(b.m, 1, 0, 0x61, 5, 1);
	CU_ASSERT_FALSE(b.line[gsi]);
	CU_ASSERT_TRUE(b.line[5]);
	cfg_write(b.m, 1, 0, 0x61, 0x85, 1);
	CU_ASSERT_FALSE(b.line[5]);
	CU_ASSERT_EQUAL(cfg_read(b.m, 1, 0, 0x61, 1), 0x85);
	cfg_write(b.m, 1, 0, 0x61, 9, 1);
	CU_ASSERT_TRUE(b.line[9]);
	machine_mmio_read(b.m, a + E1000_ICR, 4);
	CU_ASSERT_FALSE(b.line[9]);
	machine_destroy(b.m);
}

/* ------------------------------------------------------------------ MSI-X */

#define VECTOR_FIRST 0x40u

static void entry_set(struct rig *r, unsigned vector, uint32_t data, bool masked)
{
	rig_write(r, r->msix_bar + 16 * vector + 12, 1, 4);
	rig_write(r, r->msix_bar + 16 * vector, RIG_MSI, 4);
	rig_write(r, r->msix_bar + 16 * vector + 4, 0, 4);
	rig_write(r, r->msix_bar + 16 * vector + 8, data, 4);
	rig_write(r, r->msix_bar + 16 * vector + 12, masked, 4);
}

static void entry_mask(struct rig *r, unsigned vector, bool masked)
{
	rig_write(r, r->msix_bar + 16 * vector + 12, masked, 4);
}

static bool pending(struct rig *r, unsigned vector)
{
	uint32_t pba = rig_config_read(r, r->msix_cap + 8, 4) & ~7u;

	return rig_read(r, r->msix_bar + pba, 8) >> vector & 1;
}

/* A block device whose queue has vector 1; each request is one interrupt. */
static bool device_up(struct rig *r)
{
	if (!rig_create(r))
		return false;
	if (!rig_negotiate(r, rig_offered(r) & VIRTIO_BIT(VIRTIO_F_VERSION_1)))
		return false;
	rig_write(r, r->common + C_MSIX, 0, 2);
	rig_write(r, r->common + C_QSELECT, 0, 2);
	rig_write(r, r->common + C_QMSIX, 1, 2);
	if (rig_read(r, r->common + C_QMSIX, 2) != 1 || !rig_queue_set(r, 0, 16))
		return false;
	rig_status_set(r, 0xf);
	return rig_status(r) == 0xf;
}

static bool request(struct rig *r)
{
	ring_driver_interrupt_on(&r->queues[0].drv, 1);
	rig_blk_add(r, 0, RIG_BLK_IN, 0, 512, 1);
	rig_kick(r, 0);
	return rig_done(r, 0, NULL) == 1;
}

static void test_msix_table(void)
{
	struct rig r;

	rig_init(&r);
	rig_disk(&r, false, 1);
	CU_ASSERT_FATAL(rig_create(&r));
	CU_ASSERT_EQUAL(rig_config_read(&r, r.msix_cap, 1), 0x11);
	CU_ASSERT_EQUAL(rig_config_read(&r, r.msix_cap + 2, 2), 1); /* two vectors, off */
	CU_ASSERT_EQUAL(rig_read(&r, r.msix_bar + 12, 4), 1);
	rig_write(&r, r.msix_bar, 0x11223344, 4);
	rig_write(&r, r.msix_bar + 8, 0xaabbccdd55667788, 8);
	CU_ASSERT_EQUAL(rig_read(&r, r.msix_bar, 8), 0x11223344);
	CU_ASSERT_EQUAL(rig_read(&r, r.msix_bar + 8, 8), 0x0000000155667788);
	/* other sizes, and beyond the table: nothing */
	rig_write(&r, r.msix_bar, 0xff, 1);
	rig_write(&r, r.msix_bar + 2, 0xffff, 2);
	rig_write(&r, r.msix_bar + 32, 0xffffffff, 4);
	CU_ASSERT_EQUAL(rig_read(&r, r.msix_bar, 4), 0x11223344);
	CU_ASSERT_EQUAL(rig_read(&r, r.msix_bar + 32, 4), 0);
	rig_config_write(&r, r.msix_cap + 2, 0xffff, 2);
	CU_ASSERT_EQUAL(rig_config_read(&r, r.msix_cap + 2, 2), 0xc001);
	rig_destroy(&r);
}

static void test_msix_hook(void)
{
	struct rig r;

	rig_init(&r);
	rig_disk(&r, false, 1);
	CU_ASSERT_FATAL(device_up(&r));
	entry_set(&r, 1, 3, true);
	rig_config_write(&r, r.msix_cap + 2, 0x8000, 2);
	/* masked: pending, once however often; unmasked: delivered, once */
	CU_ASSERT_TRUE(request(&r) && request(&r));
	CU_ASSERT_TRUE(RIG_WAIT(pending(&r, 1)));
	CU_ASSERT_EQUAL(r.msi[3], 0);
	entry_mask(&r, 1, false);
	CU_ASSERT_EQUAL(r.msi[3], 1);
	CU_ASSERT_FALSE(pending(&r, 1));
	CU_ASSERT_TRUE(request(&r) && RIG_WAIT(r.msi[3] == 2));
	/* the function mask */
	rig_config_write(&r, r.msix_cap + 2, 0xc000, 2);
	CU_ASSERT_TRUE(request(&r) && RIG_WAIT(pending(&r, 1)));
	CU_ASSERT_EQUAL(r.msi[3], 2);
	/* a message changed while masked goes to the new place */
	entry_set(&r, 1, 5, false);
	rig_config_write(&r, r.msix_cap + 2, 0x8000, 2);
	CU_ASSERT_EQUAL(r.msi[3], 2);
	CU_ASSERT_EQUAL(r.msi[5], 1);
	/* off forgets */
	entry_mask(&r, 1, true);
	CU_ASSERT_TRUE(request(&r) && RIG_WAIT(pending(&r, 1)));
	rig_config_write(&r, r.msix_cap + 2, 0, 2);
	rig_config_write(&r, r.msix_cap + 2, 0x8000, 2);
	CU_ASSERT_FALSE(pending(&r, 1));
	rig_destroy(&r);
}

/* Pending bits and masks live through save and load. */
static void test_msix_state(void)
{
	struct state_writer w = {0};
	struct state_reader reader;
	char why[VMM_WHY_MAX];
	struct rig r;

	rig_init(&r);
	rig_disk(&r, false, 1);
	CU_ASSERT_FATAL(device_up(&r));
	entry_set(&r, 1, 3, true);
	rig_config_write(&r, r.msix_cap + 2, 0x8000, 2);
	CU_ASSERT_TRUE(request(&r) && RIG_WAIT(pending(&r, 1)));
	CU_ASSERT_EQUAL(machine_pause(r.m), 0);
	CU_ASSERT_EQUAL(machine_save(r.m, &w), 0);
	rig_machine_destroy(&r);
	CU_ASSERT_FATAL(rig_create(&r));
	state_reader_init(&reader, w.data, w.len);
	CU_ASSERT_EQUAL(machine_load(r.m, &reader, why), 0);
	CU_ASSERT_TRUE(pending(&r, 1));
	CU_ASSERT_EQUAL(r.msi[3], 0);
	entry_mask(&r, 1, false);
	CU_ASSERT_EQUAL(r.msi[3], 1);
	rig_destroy(&r);
	state_writer_free(&w);
}

/*
 * With KVM the guest is the interrupt controller's other end: it enables its local APIC, tells each
 * vector that arrives, and does nothing else; it never returns from a handler, because interpreters
 * of ring 0 know no IRET in protected mode. The test drives the device from outside.
 */
GUEST_CODE(listener, "mov $0x28000, %esp\n"
		     "lgdt gdtr_value - listener_begin + 0x20000\n"
		     "ljmp $8, $1f - listener_begin + 0x20000\n"
		     "1: mov $16, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n"
		     /* vectors 0x40 to 0x47, code segment 8, interrupt gates */
		     "xor %ecx, %ecx\n"
		     "2: lea handlers - listener_begin + 0x20000(,%ecx,8), %eax\n"
		     "mov %eax, %edx\n and $0xffff, %eax\n or $0x80000, %eax\n"
		     "mov %eax, 0x29200(,%ecx,8)\n"
		     "and $0xffff0000, %edx\n or $0x8e00, %edx\n mov %edx, 0x29204(,%ecx,8)\n"
		     "inc %ecx\n cmp $8, %ecx\n jne 2b\n"
		     "lidt idtr_value - listener_begin + 0x20000\n"
		     "movl $0x1ff, 0xfee000f0\n"
		     "mov $0x5e0, %dx\n xor %eax, %eax\n out %eax, %dx\n"
		     "3: sti\n hlt\n jmp 3b\n"
		     ".balign 8\n"
		     "handlers:\n"
		     ".set vector, 0x40\n .rept 8\n push $vector\n jmp tell\n .balign 8\n .set "
		     "vector, vector + 1\n"
		     ".endr\n"
		     "tell: mov (%esp), %eax\n mov $0x5e0, %dx\n out %eax, %dx\n"
		     "movl $0, 0xfee000b0\n mov $0x28000, %esp\n jmp 3b\n"
		     ".balign 8\n"
		     "gdt_value: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
		     "gdtr_value: .word 23\n .long gdt_value - listener_begin + 0x20000\n"
		     "idtr_value: .word 0x7ff\n .long 0x29000\n");

static unsigned heard(const struct guest *g, uint32_t vector)
{
	unsigned n = 0;

	for (unsigned i = 0; i < g->nwords; i++)
		n += g->words[i] == vector;
	return n;
}

static void test_msix_kvm(void)
{
	struct guest g;
	struct rig r;

	if (guest_kvm_missing())
		return;
	guest_init(&g, listener_begin, listener_end);
	rig_init(&r);
	rig_disk(&r, false, 1);
	r.cfg.no_kvm = false;
	r.cfg.kernel = g.path;
	r.cfg.hooks = &g.hook;
	r.cfg.nhooks = 1;
	CU_ASSERT_FATAL(device_up(&r));
	g.m = r.m;
	CU_ASSERT_FATAL(guest_start(&g) && guest_words_wait(&g, 1));
	entry_set(&r, 1, VECTOR_FIRST + 1, false);
	rig_config_write(&r, r.msix_cap + 2, 0x8000, 2);
	for (unsigned i = 1; i <= 20; i++) {
		CU_ASSERT_TRUE(request(&r));
		CU_ASSERT_TRUE(RIG_WAIT(heard(&g, 0x41) == i));
		CU_ASSERT_FALSE(pending(&r, 1));
	}
	entry_mask(&r, 1, true);
	CU_ASSERT_TRUE(request(&r) && request(&r) && RIG_WAIT(pending(&r, 1)));
	usleep(5000);
	CU_ASSERT_EQUAL(heard(&g, 0x41), 20);
	entry_mask(&r, 1, false);
	CU_ASSERT_TRUE(RIG_WAIT(heard(&g, 0x41) == 21));
	/* what was delivered on unmasking is not pending afterwards */
	entry_mask(&r, 1, true);
	CU_ASSERT_FALSE(pending(&r, 1));
	entry_mask(&r, 1, false);
	usleep(5000);
	CU_ASSERT_EQUAL(heard(&g, 0x41), 21);
	/* function mask, another vector */
	rig_config_write(&r, r.msix_cap + 2, 0xc000, 2);
	entry_set(&r, 1, VECTOR_FIRST + 6, false);
	CU_ASSERT_TRUE(request(&r) && RIG_WAIT(pending(&r, 1)));
	CU_ASSERT_EQUAL(heard(&g, 0x46), 0);
	rig_config_write(&r, r.msix_cap + 2, 0x8000, 2);
	CU_ASSERT_TRUE(RIG_WAIT(heard(&g, 0x46) == 1));
	CU_ASSERT_EQUAL(heard(&g, 0x41), 21);
	close(g.kernel);
	rig_destroy(&r);
}

/* Masked interrupts race with unmasking from another thread: none is lost. */
static void test_msix_race(void)
{
	struct guest g;
	struct rig r;

	if (guest_kvm_missing())
		return;
	guest_init(&g, listener_begin, listener_end);
	rig_init(&r);
	rig_disk(&r, false, 1);
	r.cfg.no_kvm = false;
	r.cfg.kernel = g.path;
	r.cfg.hooks = &g.hook;
	r.cfg.nhooks = 1;
	CU_ASSERT_FATAL(device_up(&r));
	g.m = r.m;
	CU_ASSERT_FATAL(guest_start(&g) && guest_words_wait(&g, 1));
	entry_set(&r, 1, VECTOR_FIRST, true);
	rig_config_write(&r, r.msix_cap + 2, 0x8000, 2);
	for (unsigned i = 0; i < 300; i++) {
		unsigned before = heard(&g, 0x40);

		rig_blk_add(&r, 0, RIG_BLK_IN, 0, 512, 1);
		r.heap = RIG_HEAP + (1 << 20);
		rig_kick(&r, 0);
		entry_mask(&r, 1, false);
		CU_ASSERT_EQUAL(rig_done(&r, 0, NULL), 1);
		if (!RIG_WAIT(heard(&g, 0x40) > before)) {
			CU_FAIL("an interrupt was lost");
			break;
		}
		entry_mask(&r, 1, true);
	}
	close(g.kernel);
	rig_destroy(&r);
}

static const struct unit_case cases[] = {
	{"enumeration", test_enumerate},
	{"BARs: size, move, refuse", test_bars},
	{"INTx: a shared line", test_intx_shared},
	{"INTx: PIRQ registers", test_pirq},
	{"MSI-X: table", test_msix_table},
	{"MSI-X: mask and pending", test_msix_hook},
	{"MSI-X: saved and loaded", test_msix_state},
	{"MSI-X: mask and pending with KVM", test_msix_kvm},
	{"MSI-X: unmasking races with events", test_msix_race},
};

UNIT_MAIN("pci", cases)
