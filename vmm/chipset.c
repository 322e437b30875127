/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The chips a PC of this kind is known by: the i440FX host bridge (82441FX), the PIIX3 ISA bridge
 * (82371SB) with its four interrupt routing registers, and the PIIX4's power management function
 * (82371AB) whose block pm.c answers. They are configuration space and little else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/machine_priv.h"

#define CHIPSET_SUBVENDOR 0x1af4u
#define CHIPSET_SUBSYSTEM 0x1100u
#define PIIX3_PIRQ        0x60u
#define PIIX3_PIRQ_OFF    0x80u
#define PIIX4_PM_BASE     0x40u
#define PIIX4_PM_ENABLE   0x80u
#define PIIX4_DEVACTB     0x58u

struct chip {
	struct device device;
	struct pci_device pci;
	bool pirq;        /* has the PIIX3's routing registers */
	bool host_bridge; /* has the 82441FX's memory attributes */
};

static struct chip *chip_of_pci(struct pci_device *pci)
{
	return (struct chip *)((char *)pci - offsetof(struct chip, pci));
}

static void chip_pirq_update(struct chip *c)
{
	for (unsigned i = 0; i < 4; i++)
		pci_pirq_set(c->device.machine, i, c->pci.config[PIIX3_PIRQ + i]);
}

/* The PCI layer has no part in these four registers. */
static bool piix3_config_write(
	struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
	if (offset < PIIX3_PIRQ || offset + size > PIIX3_PIRQ + 4)
		return false;
	for (unsigned i = 0; i < size; i++)
		pci->config[offset + i] = (value >> (8 * i)) & pci->writable[offset + i];
	chip_pirq_update(chip_of_pci(pci));
	return true;
}

/* 82441FX: the attributes of memory between C0000h and FFFFFh. */
static bool host_bridge_config_write(
	struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
	if (offset + size <= PAM_FIRST || offset >= PAM_FIRST + PAM_REGISTERS)
		return false;
	for (unsigned i = 0; i < size; i++)
		pci->config[offset + i] = (pci->config[offset + i] & ~pci->writable[offset + i]) |
					  (value >> (8 * i) & pci->writable[offset + i]);
	firmware_pam_set(pci->machine, pci->config + PAM_FIRST);
	return true;
}

static const struct pci_ops host_bridge_ops = {.config_write = host_bridge_config_write};

static const struct pci_ops piix3_ops = {.config_write = piix3_config_write};

static void chip_reset(struct device *d)
{
	struct chip *c = (struct chip *)d;

	pci_device_reset(&c->pci);
	if (c->pirq) {
		memset(c->pci.config + PIIX3_PIRQ, PIIX3_PIRQ_OFF, 4);
		chip_pirq_update(c);
	}
	if (c->host_bridge) {
		memset(c->pci.config + PAM_FIRST, 0, PAM_REGISTERS);
		firmware_pam_set(d->machine, c->pci.config + PAM_FIRST);
	}
}

static void chip_save(struct device *d, struct state_writer *w)
{
	struct chip *c = (struct chip *)d;

	state_section_begin(w, d->name, 1);
	pci_device_save(&c->pci, w);
	state_section_end(w);
}

static void chip_load(struct device *d, struct state_reader *r)
{
	struct chip *c = (struct chip *)d;

	state_section_enter(r, d->name, 1);
	pci_device_load(&c->pci, r);
	state_section_leave(r);
	if (c->pirq)
		chip_pirq_update(c);
	if (c->host_bridge)
		firmware_pam_set(d->machine, c->pci.config + PAM_FIRST);
}

static void chip_destroy(struct device *d)
{
	struct chip *c = (struct chip *)d;

	pci_device_free(&c->pci);
	free(c);
}

static const struct device_ops chip_ops = {
	.reset = chip_reset,
	.save = chip_save,
	.load = chip_load,
	.destroy = chip_destroy,
};

static int chip_create(struct machine *m, const char *name, uint16_t device, uint32_t class_code,
	uint8_t revision, unsigned slot, unsigned function, struct chip **out)
{
	struct chip *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	device_add(m, &c->device, &chip_ops, name);
	c->pci.counters = &c->device.counters;
	pci_init(&c->pci, m, &c->device.lock, 0x8086, device, class_code, revision,
		CHIPSET_SUBVENDOR, CHIPSET_SUBSYSTEM, 0);
	*out = c;
	return pci_add(&c->pci, slot, function);
}

int chipset_create(struct machine *m)
{
	struct chip *c;
	int rc;

	rc = chip_create(m, "host-bridge", 0x1237, 0x060000, 2, 0, 0, &c);
	if (rc)
		return rc;
	c->host_bridge = true;
	c->pci.ops = &host_bridge_ops;
	/* PAM0's lower half is reserved; only read and write enable have an effect here */
	memset(c->pci.writable + PAM_FIRST, 0x33, PAM_REGISTERS);
	c->pci.writable[PAM_FIRST] = 0x30;
	rc = firmware_pam_set(m, c->pci.config + PAM_FIRST);
	if (rc)
		return rc;
	rc = chip_create(m, "isa-bridge", 0x7000, 0x060100, 0, 1, 0, &c);
	if (rc)
		return rc;
	c->pirq = true;
	c->pci.ops = &piix3_ops;
	memset(c->pci.config + PIIX3_PIRQ, PIIX3_PIRQ_OFF, 4);
	memset(c->pci.writable + PIIX3_PIRQ, 0x8f, 4);
	rc = chip_create(m, "pm-function", 0x7113, 0x068000, 3, 1, 3, &c);
	if (rc)
		return rc;
	/* where the block is, and that it answers; it does not move */
	c->pci.config[PIIX4_PM_BASE] = 0x01;
	c->pci.config[PIIX4_PM_BASE + 1] = 0x06;
	c->pci.config[PIIX4_PM_ENABLE] = 0x01;
	/* DEVACTB: SMIs by APMC are set up, so that firmware need not: there is no SMM */
	c->pci.config[PIIX4_DEVACTB + 3] = 0x02;
	return 0;
}
