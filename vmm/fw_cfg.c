/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fw_cfg: what firmware for virtual machines asks its machine (QEMU, docs/specs/fw_cfg.rst): a
 * selector at 510h, its bytes at 511h, and a DMA interface at 514h. Also what firmware says: the
 * last POST code (port 80h) and characters for whoever debugs it (port 402h).
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

#define FW_PORT       0x510u
#define FW_PORTS      12u
#define FW_DMA        4u
#define FW_DMA_LOW    8u
#define FW_POST_PORT  0x80u
#define FW_DEBUG_PORT 0x402u
#define FW_DEBUG_HERE 0xe9u

#define KEY_SIGNATURE 0x00u
#define KEY_ID        0x01u
#define KEY_RAM       0x03u
#define KEY_CPUS      0x05u
#define KEY_CPUS_MAX  0x0fu
#define KEY_DIRECTORY 0x19u
#define KEY_FILES     0x20u
#define KEY_MASK      0x3fffu
#define ROM_MAX       0x20000
#define NET_ROMS      "/usr/lib/ipxe/qemu/pxe-"
#define FILES_MAX     16u
#define FILE_NAME     56u
#define ID_DMA        3u /* the traditional interface, and DMA */

#define DMA_ERROR     0x01u
#define DMA_READ      0x02u
#define DMA_SKIP      0x04u
#define DMA_SELECT    0x08u
#define DMA_WRITE     0x10u
#define DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG" */

#define LOADER_ENTRY 128u
#define LOADER_ALLOC 1u
#define LOADER_PTR   2u
#define LOADER_SUM   3u
#define ZONE_HIGH    1u
#define ZONE_FSEG    2u
#define FILE_TABLES  "etc/acpi/tables"
#define FILE_RSDP    "etc/acpi/rsdp"
#define RSDP_LEN     36u
#define ACPI_MAX     0x4000u

struct fw_item {
	uint16_t key;
	uint32_t len;
	uint8_t *bytes;
	char name[FILE_NAME]; /* of a file; "": none */
};

struct fw_cfg {
	struct device device;
	struct bus_region ports, post, debug;
	struct fw_item items[FILES_MAX + 8];
	unsigned nitems, nfiles;
	uint16_t key;
	uint32_t at; /* next byte of the selected item */
	uint64_t dma;
	uint8_t post_code;
	int log_fd;
};

/* ------------------------------------------------------------------ items */

static int item_add(
	struct fw_cfg *fw, uint16_t key, const char *name, const void *bytes, size_t len)
{
	struct fw_item *item = &fw->items[fw->nitems];

	if (fw->nitems == sizeof(fw->items) / sizeof(fw->items[0]))
		return -ENOSPC;
	item->bytes = malloc(len ? len : 1);
	if (!item->bytes)
		return -ENOMEM;
	memcpy(item->bytes, bytes, len);
	item->key = key;
	item->len = (uint32_t)len;
	strncpy(item->name, name, FILE_NAME - 1);
	fw->nitems++;
	return 0;
}

static int file_add(struct fw_cfg *fw, const char *name, const void *bytes, size_t len)
{
	if (fw->nfiles == FILES_MAX)
		return -ENOSPC;
	return item_add(fw, (uint16_t)(KEY_FILES + fw->nfiles++), name, bytes, len);
}

static const struct fw_item *item_selected(const struct fw_cfg *fw)
{
	for (unsigned i = 0; i < fw->nitems; i++)
		if (fw->items[i].key == fw->key)
			return &fw->items[i];
	return NULL;
}

/* Names, sizes and keys of the files, big-endian. */
static int directory_add(struct fw_cfg *fw)
{
	uint8_t bytes[4 + FILES_MAX * 64] = {0};
	uint32_t n = htobe32(fw->nfiles);
	size_t len = sizeof(n);

	memcpy(bytes, &n, sizeof(n));
	for (unsigned i = 0; i < fw->nitems; i++) {
		const struct fw_item *item = &fw->items[i];
		uint32_t size = htobe32(item->len);
		uint16_t key = htobe16(item->key);

		if (!item->name[0])
			continue;
		memcpy(bytes + len, &size, 4);
		memcpy(bytes + len + 4, &key, 2);
		memcpy(bytes + len + 8, item->name, FILE_NAME);
		len += 64;
	}
	return item_add(fw, KEY_DIRECTORY, "", bytes, len);
}

/* ------------------------------------------------------------------ ACPI, by the table loader */

struct loader {
	uint8_t bytes[32 * LOADER_ENTRY];
	size_t len;
};

static uint8_t *loader_entry(struct loader *l, uint32_t command)
{
	uint8_t *at = l->bytes + l->len;

	if (l->len + LOADER_ENTRY > sizeof(l->bytes))
		return l->bytes; /* never: the tables are few */
	l->len += LOADER_ENTRY;
	memset(at, 0, LOADER_ENTRY);
	command = htole32(command);
	memcpy(at, &command, 4);
	return at + 4;
}

static void put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, 4);
}

static void loader_name(uint8_t *at, const char *file)
{
	memcpy(at, file, strlen(file) + 1); /* shorter than FILE_NAME, all of them */
}

static void loader_alloc(struct loader *l, const char *file, uint32_t align, uint8_t zone)
{
	uint8_t *at = loader_entry(l, LOADER_ALLOC);

	loader_name(at, file);
	put32(at + FILE_NAME, align);
	at[FILE_NAME + 4] = zone;
}

/* The value at offset of file is one into the tables: from now on an address. */
static void loader_pointer(struct loader *l, const char *file, uint32_t offset, uint8_t size)
{
	uint8_t *at = loader_entry(l, LOADER_PTR);

	loader_name(at, file);
	loader_name(at + FILE_NAME, FILE_TABLES);
	put32(at + 2 * FILE_NAME, offset);
	at[2 * FILE_NAME + 4] = size;
}

static void loader_sum(
	struct loader *l, const char *file, uint32_t offset, uint32_t start, uint32_t len)
{
	uint8_t *at = loader_entry(l, LOADER_SUM);

	loader_name(at, file);
	put32(at + FILE_NAME, offset);
	put32(at + FILE_NAME + 4, start);
	put32(at + FILE_NAME + 8, len);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, 4);
	return le32toh(v);
}

/*
 * Built for address 0, every pointer in the tables is an offset into them, as the loader wants it:
 * it adds where they came to lie, and then the checksums are due again.
 */
static int acpi_add(struct fw_cfg *fw)
{
	struct acpi_config cfg = machine_acpi_config(fw->device.machine);
	uint8_t *tables = malloc(ACPI_MAX);
	size_t len = tables ? acpi_tables_build(tables, ACPI_MAX, 0, &cfg) : 0;
	struct loader l = {.len = 0};
	uint32_t xsdt;
	int rc;

	if (!len) {
		free(tables);
		return -ENOMEM;
	}
	loader_alloc(&l, FILE_TABLES, 64, ZONE_HIGH);
	loader_alloc(&l, FILE_RSDP, 16, ZONE_FSEG);
	xsdt = get32(tables + 24);
	for (uint32_t at = 36; at < get32(tables + xsdt + 4); at += 8) {
		uint32_t table = get32(tables + xsdt + at);

		if (!memcmp(tables + table, "FACP", 4)) {
			loader_pointer(&l, FILE_TABLES, table + 36, 4);
			loader_pointer(&l, FILE_TABLES, table + 40, 4);
			loader_pointer(&l, FILE_TABLES, table + 140, 8);
			loader_sum(&l, FILE_TABLES, table + 9, table, get32(tables + table + 4));
		}
		loader_pointer(&l, FILE_TABLES, xsdt + at, 8);
	}
	loader_sum(&l, FILE_TABLES, xsdt + 9, xsdt, get32(tables + xsdt + 4));
	loader_pointer(&l, FILE_RSDP, 24, 8);
	loader_sum(&l, FILE_RSDP, 8, 0, 20);
	loader_sum(&l, FILE_RSDP, 32, 0, RSDP_LEN);
	rc = file_add(fw, FILE_TABLES, tables, len);
	if (!rc)
		rc = file_add(fw, FILE_RSDP, tables, RSDP_LEN);
	if (!rc)
		rc = file_add(fw, "etc/table-loader", l.bytes, l.len);
	free(tables);
	return rc;
}

static int memory_add(struct fw_cfg *fw)
{
	const struct ring_mem *mem = &fw->device.machine->mem;
	uint8_t map[2 * 20];
	size_t len = 0;

	/* RAM alone: holes and its own places firmware knows */
	for (unsigned i = 0; i < mem->nregions && len < sizeof(map); i++, len += 20) {
		uint64_t range[2] = {htole64(mem->regions[i].gpa), htole64(mem->regions[i].size)};

		memcpy(map + len, range, 16);
		put32(map + len + 16, BOOT_RAM);
	}
	return file_add(fw, "etc/e820", map, len);
}

/* A ROM of the host's; without it, what it would do is not there. */
static int rom_add(struct fw_cfg *fw, const char *name, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	struct stat st;
	uint8_t *rom;

	if (fd < 0)
		return 0;
	if (!fstat(fd, &st) && st.st_size > 0 && st.st_size <= ROM_MAX) {
		rom = malloc((size_t)st.st_size);
		rc = rom ? boot_pread(fd, rom, (uint64_t)st.st_size) : -ENOMEM;
		if (!rc)
			rc = file_add(fw, name, rom, (size_t)st.st_size);
		free(rom);
	}
	close(fd);
	return rc;
}

/* iPXE, to boot from the network: of Debian's package ipxe-qemu, one for each model of card. */
static const struct {
	const char *model, *name, *path;
} net_roms[] = {
	{"virtio-net", "pci1af4,1041.rom", NET_ROMS "virtio.rom"},
	{"vhost-user-net", "pci1af4,1041.rom", NET_ROMS "virtio.rom"},
	{"e1000", "pci8086,100e.rom", NET_ROMS "e1000.rom"},
	{"ne2k_pci", "pci10ec,8029.rom", NET_ROMS "ne2k_pci.rom"},
	{"rtl8139", "pci10ec,8139.rom", NET_ROMS "rtl8139.rom"},
};

static bool item_there(const struct fw_cfg *fw, const char *name)
{
	for (unsigned i = 0; i < fw->nitems; i++)
		if (!strcmp(fw->items[i].name, name))
			return true;
	return false;
}

static int net_roms_add(struct fw_cfg *fw)
{
	const struct machine_config *cfg = &fw->device.machine->cfg;
	int rc = 0;

	for (unsigned i = 0; i < cfg->nnets && !rc; i++) {
		const char *model = cfg->nets[i].model ? cfg->nets[i].model : "virtio-net";

		for (size_t k = 0; k < sizeof(net_roms) / sizeof(net_roms[0]) && !rc; k++)
			if (!strcmp(net_roms[k].model, model) && !item_there(fw, net_roms[k].name))
				rc = rom_add(fw, net_roms[k].name, net_roms[k].path);
	}
	return rc;
}

static int items_fill(struct fw_cfg *fw)
{
	struct machine *m = fw->device.machine;
	const uint8_t id[4] = {ID_DMA};
	uint64_t ram = htole64(m->memory_size), sercon = htole64(0x3f8);
	uint16_t cpus = htole16((uint16_t)m->cfg.cpus);
	int rc = item_add(fw, KEY_SIGNATURE, "", "QEMU", 4);

	if (!rc)
		rc = item_add(fw, KEY_ID, "", id, sizeof(id));
	if (!rc)
		rc = item_add(fw, KEY_RAM, "", &ram, sizeof(ram));
	if (!rc)
		rc = item_add(fw, KEY_CPUS, "", &cpus, sizeof(cpus));
	if (!rc)
		rc = item_add(fw, KEY_CPUS_MAX, "", &cpus, sizeof(cpus));
	if (!rc)
		rc = memory_add(fw);
	if (!rc)
		rc = acpi_add(fw);
	if (!rc && m->cfg.vga != VMM_OFF)
		rc = rom_add(fw, "vgaroms/vgabios.bin", VGA_BIOS);
	if (!rc)
		rc = net_roms_add(fw);
	/* what is shown by INT 10h goes to the serial port, too */
	if (!rc)
		rc = file_add(fw, "etc/sercon-port", &sercon, sizeof(sercon));
	return rc ? rc : directory_add(fw);
}

/* ------------------------------------------------------------------ registers */

static uint8_t data_read(struct fw_cfg *fw)
{
	const struct fw_item *item = item_selected(fw);

	return item && fw->at < item->len ? item->bytes[fw->at++] : 0;
}

static void dma_run(struct fw_cfg *fw)
{
	const struct ring_mem *mem = machine_mem(fw->device.machine);
	struct {
		uint32_t control, length;
		uint64_t address;
	} access;
	const struct fw_item *item;
	uint64_t gpa = fw->dma;
	uint32_t control, left, done = 0;
	uint64_t to;

	fw->dma = 0;
	if (ring_mem_read(mem, gpa, &access, sizeof(access))) {
		counter_add(&fw->device.counters.malformed, 1);
		return;
	}
	control = be32toh(access.control);
	left = be32toh(access.length);
	to = be64toh(access.address);
	if (control & DMA_SELECT) {
		fw->key = control >> 16 & KEY_MASK;
		fw->at = 0;
	}
	item = item_selected(fw);
	if (control & DMA_READ) {
		uint32_t have = item && fw->at < item->len ? MIN(item->len - fw->at, left) : 0;

		if (have && ring_mem_write(mem, to, item->bytes + fw->at, have))
			done = DMA_ERROR;
		/* beyond the end there are zeros */
		if (!done && left > have) {
			uint8_t *host = ring_mem_translate(mem, to + have, left - have, RING_WRITE);

			if (host)
				memory_zero(mem, host, left - have);
			else
				done = DMA_ERROR;
		}
		fw->at += have;
	} else if (control & DMA_SKIP) {
		fw->at = item && left < item->len - MIN(fw->at, item->len) ? fw->at + left
			 : item                                            ? item->len
									   : 0;
	} else if (control & DMA_WRITE) {
		done = DMA_ERROR; /* nothing here is the guest's to change */
	}
	done = htobe32(done);
	if (ring_mem_write(mem, gpa, &done, sizeof(done)))
		counter_add(&fw->device.counters.malformed, 1);
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct fw_cfg *fw = opaque;
	uint64_t value = 0;

	if (offset == 1 && size == 1)
		return data_read(fw);
	for (unsigned i = 0; i < size && offset + i < FW_PORTS; i++) {
		unsigned at = (unsigned)(offset + i);

		value |= (at < FW_DMA ? 0xffull : DMA_SIGNATURE >> (8 * (FW_DMA + 7 - at)) & 0xff)
			 << (8 * i);
	}
	return value;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *fw = opaque;

	if (offset == 0 && size == 2) {
		fw->key = value & KEY_MASK;
		fw->at = 0;
	} else if (offset == FW_DMA && size == 4) {
		fw->dma = (uint64_t)be32toh((uint32_t)value) << 32;
	} else if (offset == FW_DMA_LOW && size == 4) {
		fw->dma |= be32toh((uint32_t)value);
		dma_run(fw);
	}
}

static uint64_t post_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)offset;
	(void)size;
	return ((struct fw_cfg *)opaque)->post_code;
}

static void post_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	(void)offset;
	(void)size;
	((struct fw_cfg *)opaque)->post_code = (uint8_t)value;
}

static uint64_t debug_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return FW_DEBUG_HERE;
}

static void debug_write_string(
	void *opaque, uint64_t offset, const void *buf, unsigned size, unsigned count)
{
	struct fw_cfg *fw = opaque;

	(void)offset;
	/* a log that cannot be written is no reason to stop */
	if (fw->log_fd >= 0 && size == 1 && write(fw->log_fd, buf, count) < 0)
		counter_add(&fw->device.counters.errors, 1);
}

static void debug_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	uint8_t c = (uint8_t)value;

	(void)size;
	debug_write_string(opaque, offset, &c, 1, 1);
}

/* ------------------------------------------------------------------ life */

static void fw_reset(struct device *d)
{
	struct fw_cfg *fw = (struct fw_cfg *)d;

	fw->key = 0;
	fw->at = 0;
	fw->dma = 0;
	fw->post_code = 0;
}

static void fw_save(struct device *d, struct state_writer *w)
{
	struct fw_cfg *fw = (struct fw_cfg *)d;

	state_section_begin(w, d->name, 1);
	state_put_u16(w, fw->key);
	state_put_u32(w, fw->at);
	state_put_u64(w, fw->dma);
	state_put_u8(w, fw->post_code);
	state_section_end(w);
}

static void fw_load(struct device *d, struct state_reader *r)
{
	struct fw_cfg *fw = (struct fw_cfg *)d;

	state_section_enter(r, d->name, 1);
	fw->key = state_get_u16(r) & KEY_MASK;
	fw->at = state_get_u32(r);
	fw->dma = state_get_u64(r);
	fw->post_code = state_get_u8(r);
	state_section_leave(r);
}

static void fw_destroy(struct device *d)
{
	struct fw_cfg *fw = (struct fw_cfg *)d;

	bus_unmap(d->machine, &fw->ports);
	bus_unmap(d->machine, &fw->post);
	bus_unmap(d->machine, &fw->debug);
	for (unsigned i = 0; i < fw->nitems; i++)
		free(fw->items[i].bytes);
	free(fw);
}

static const struct device_ops fw_ops = {
	.reset = fw_reset,
	.save = fw_save,
	.load = fw_load,
	.destroy = fw_destroy,
};

static int fw_map(struct fw_cfg *fw, struct bus_region *r)
{
	r->kind = BUS_PIO;
	r->opaque = fw;
	r->lock = &fw->device.lock;
	r->counters = &fw->device.counters;
	return bus_map(fw->device.machine, r);
}

int fw_cfg_create(struct machine *m)
{
	struct fw_cfg *fw = calloc(1, sizeof(*fw));
	int rc;

	if (!fw)
		return -ENOMEM;
	fw->log_fd = m->cfg.firmware_log;
	device_add(m, &fw->device, &fw_ops, "fw-cfg");
	fw->ports = (struct bus_region){
		.base = FW_PORT, .size = FW_PORTS, .read = ports_read, .write = ports_write};
	fw->post = (struct bus_region){
		.base = FW_POST_PORT, .size = 1, .read = post_read, .write = post_write};
	fw->debug = (struct bus_region){.base = FW_DEBUG_PORT,
		.size = 1,
		.read = debug_read,
		.write = debug_write,
		.write_string = debug_write_string};
	rc = items_fill(fw);
	if (!rc)
		rc = fw_map(fw, &fw->ports);
	if (!rc)
		rc = fw_map(fw, &fw->post);
	if (!rc)
		rc = fw_map(fw, &fw->debug);
	return rc;
}
