/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupts of a virtio-blk: MSI-X with the entry masked, with the whole function masked, and the
 * line, with and without the bit that forbids it. Prints "irq ok", or what failed.
 */
#include "frontend-drivers/frontend.h"

#define WAIT_US  5000000u
#define QUIET_US 30000u /* how long an interrupt must stay away */

static struct frontend_blk *blk;
static uint8_t buffer[4096] __attribute__((aligned(4096)));
static unsigned failed;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	print("irq failed: %s\n", what);
	failed++;
}

/* Starts a read with interrupts asked for, and waits for its end by looking at memory only. */
static void read_complete(void)
{
	struct frontend_blk_done done;
	uint64_t end = clock_now() + clock_from_ns(WAIT_US * 1000ull);
	int n = 0;

	blk->ops->wait_begin(blk);
	if (blk->ops->submit(blk, 0, FRONTEND_BLK_READ, 0, buffer, sizeof(buffer), 0)) {
		check(false, "a request is accepted");
		return;
	}
	blk->ops->kick(blk);
	while (!n && clock_now() < end)
		n = blk->ops->poll(blk, &done, 1);
	check(n == 1 && !done.status, "a request completes");
}

static bool irq_wait(uint32_t seen, uint64_t us)
{
	uint8_t vector = virtio_blk_vector(blk);
	uint64_t end = clock_now() + clock_from_ns(us * 1000);

	while (clock_now() < end)
		if (cpu_irq_count(vector) != seen)
			return true;
	return false;
}

static bool pending_wait(bool want)
{
	uint64_t end = clock_now() + clock_from_ns(WAIT_US * 1000ull);

	while (clock_now() < end)
		if (pci_msix_pending(virtio_blk_msix(blk), 0) == want)
			return true;
	return false;
}

static uint32_t count(void)
{
	cpu_irq_eoi();
	return cpu_irq_count(virtio_blk_vector(blk));
}

static void msix_entry_test(void)
{
	struct pci_msix *m = virtio_blk_msix(blk);
	uint32_t seen = count();

	read_complete();
	check(irq_wait(seen, WAIT_US), "MSI-X: an interrupt arrives");
	check(pending_wait(false), "MSI-X: nothing is pending after delivery");

	pci_msix_mask(m, 0, true);
	seen = count();
	read_complete();
	check(pending_wait(true), "entry masked: the pending bit is set");
	check(!irq_wait(seen, QUIET_US), "entry masked: no interrupt arrives");
	pci_msix_mask(m, 0, false);
	check(irq_wait(seen, WAIT_US), "entry unmasked: the pending interrupt arrives");
	check(pending_wait(false), "entry unmasked: the pending bit is clear");
}

static void msix_function_test(void)
{
	struct pci_msix *m = virtio_blk_msix(blk);
	uint32_t seen;

	pci_msix_enable(m, true, true);
	seen = count();
	read_complete();
	check(pending_wait(true), "function masked: the pending bit is set");
	check(!irq_wait(seen, QUIET_US), "function masked: no interrupt arrives");
	pci_msix_enable(m, true, false);
	check(irq_wait(seen, WAIT_US), "function unmasked: the pending interrupt arrives");
	check(pending_wait(false), "function unmasked: the pending bit is clear");

	/* The entry's own mask stays in force below the function's. */
	pci_msix_mask(m, 0, true);
	pci_msix_enable(m, true, true);
	seen = count();
	read_complete();
	pci_msix_enable(m, true, false);
	check(!irq_wait(seen, QUIET_US), "function unmasked, entry masked: no interrupt arrives");
	pci_msix_mask(m, 0, false);
	check(irq_wait(seen, WAIT_US), "both unmasked: the pending interrupt arrives");
}

static void line_test(void)
{
	struct pci_dev *pci = &virtio_blk_msix(blk)->dev;
	uint32_t seen = count();

	read_complete();
	check(irq_wait(seen, WAIT_US), "line: an interrupt arrives");
	check(pci_read(pci, 0x06, 2) & PCI_STATUS_INTX, "line: the status register says so");
	check(virtio_blk_isr(blk) == 1, "line: the ISR says queue interrupt");
	check(virtio_blk_isr(blk) == 0, "line: the ISR is clear once read");
	check(!(pci_read(pci, 0x06, 2) & PCI_STATUS_INTX), "line: the status register is clear");
	seen = count();
	check(!irq_wait(seen, QUIET_US), "line: it is down once the ISR was read");

	pci_command_set(pci, PCI_COMMAND_NO_INTX, 0);
	seen = count();
	read_complete();
	check(!irq_wait(seen, QUIET_US), "line forbidden: no interrupt arrives");
	check(pci_read(pci, 0x06, 2) & PCI_STATUS_INTX,
		"line forbidden: the status register shows the wish");
	pci_command_set(pci, 0, PCI_COMMAND_NO_INTX);
	check(irq_wait(seen, WAIT_US), "line allowed again: the interrupt arrives");
	virtio_blk_isr(blk);
	count();
}

static bool open_with(bool msix)
{
	/* Without the event index, each completion interrupts when asked to at all. */
	const struct frontend_virtio_options o = {.indirect = true, .msix = msix};
	int r = virtio_blk_open(0, 1, &o, &blk);

	if (r)
		print("irq failed: virtio-blk cannot be opened (%d)\n", r);
	failed += r != 0;
	return !r;
}

void guest_main(void)
{
	clock_init();
	if (open_with(true)) {
		if (virtio_blk_msix(blk)->entries) {
			msix_entry_test();
			msix_function_test();
		} else {
			check(false, "the device has MSI-X");
		}
	}
	if (open_with(false))
		line_test();
	if (!failed)
		print("irq ok\n");
}
