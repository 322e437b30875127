/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One machine: made from a configuration, everything opened before anything runs, and taken apart
 * in reverse order.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

void machine_config_init(struct machine_config *cfg)
{
	memset(cfg, 0, sizeof(*cfg));
	cfg->firmware_log = -1;
	for (unsigned i = 0; i < VMM_SERIALS_MAX; i++)
		cfg->serials[i].line = (struct line_config){.out = -1, .in = -1, .listener = -1};
	cfg->parallel.line = cfg->serials[0].line;
	for (unsigned i = 0; i < VMM_DISKS_MAX; i++)
		cfg->disks[i].fd = -1;
	for (unsigned i = 0; i < VMM_NETS_MAX; i++)
		cfg->nets[i].fd = -1;
	for (unsigned i = 0; i < VMM_FS_MAX; i++)
		cfg->fs[i].fd = -1;
	cfg->hvc.out = cfg->hvc.in = -1;
}

bool machine_error_is_usage(int error)
{
	return error == -EINVAL || error == -ENOENT || error == -EISDIR || error == -ENOTDIR ||
	       error == -ENAMETOOLONG || error == -ELOOP || error == -EBADF;
}

void device_add(struct machine *m, struct device *d, const struct device_ops *ops, const char *name)
{
	struct device **at = &m->devices;

	d->ops = ops;
	d->machine = m;
	snprintf(d->name_buf, sizeof(d->name_buf), "%s", name);
	d->name = d->name_buf;
	pthread_mutex_init(&d->lock, NULL);
	while (*at)
		at = &(*at)->next;
	*at = d;
}

struct device *machine_device_find(const struct machine *m, const char *name)
{
	struct device *d = m->devices;

	while (d && strcmp(d->name, name))
		d = d->next;
	return d;
}

bool machine_has_kvm(const struct machine *m)
{
	return m->vm_fd >= 0;
}

void machine_note(const struct machine *m, const char *device, const char *line)
{
	if (m->cfg.note)
		m->cfg.note(m->cfg.note_ctx, device, line);
}

unsigned machine_coalesced_drain(struct machine *m)
{
	return kvm_coalesced_drain(m);
}

/* ------------------------------------------------------------------ what the user asked for */

static int machine_io_create(struct machine *m, char why[VMM_WHY_MAX])
{
	unsigned n = m->cfg.io_threads ? m->cfg.io_threads : 1;
	char name[16];
	int rc;

	for (; m->nio < n; m->nio++) {
		struct io_thread_options opts = {
			.name = name,
			.poll_max_us = m->cfg.poll_set ? m->cfg.poll_us : MACHINE_POLL_US_DEFAULT,
			.no_uring = m->cfg.no_io_uring,
		};

		snprintf(name, sizeof(name), "io%u", m->nio);
		rc = io_thread_create(&m->io[m->nio], &opts, why);
		if (rc)
			return rc;
	}
	return 0;
}

static unsigned machine_model_index(struct machine *m, const struct device_model *model)
{
	unsigned index = 0;

	for (unsigned i = 0; i < m->nunits; i++)
		index += m->units[i].model == model;
	return index;
}

static const struct device_model *machine_model_find(
	const char *kind, const char *name, const char *standard, char why[VMM_WHY_MAX])
{
	const struct device_model *model = device_model_find(kind, name ? name : standard);
	unsigned at;

	if (model)
		return model;
	at = snprintf(why, VMM_WHY_MAX, "--%s model=%.60s: no such model; one of", kind, name);
	for (unsigned i = 0; device_models[i] && at < VMM_WHY_MAX; i++)
		if (!strcmp(device_models[i]->info.kind, kind))
			at += snprintf(
				why + at, VMM_WHY_MAX - at, " %s", device_models[i]->info.name);
	return NULL;
}

/* What a folder below said of a path or descriptor, with the option that it came from. */
static int why_option(
	char why[VMM_WHY_MAX], int error, const char *option, const char *key, const char *value)
{
	char text[VMM_WHY_MAX];

	snprintf(text, sizeof(text), "%s", why);
	if (value && !strncmp(text, value, strlen(value)))
		return why_set(why, error, "%s %s=%.220s", option, key, text);
	return why_set(why, error, "%s %.230s", option, text);
}

static int machine_disk_create(struct machine *m, unsigned i, char why[VMM_WHY_MAX])
{
	const struct disk_config *cfg = &m->cfg.disks[i];
	struct machine_unit *unit = &m->units[m->nunits];
	struct blk_options opts = {
		.path = cfg->path,
		.fd = cfg->path ? -1 : cfg->fd,
		.nbd = cfg->nbd,
		.readonly = cfg->readonly,
		.direct = cfg->direct,
		.engine = cfg->engine,
		.format = cfg->format,
		.sqpoll = cfg->sqpoll,
		.registered_memory = cfg->registered_memory,
		.fault = cfg->fault,
	};
	struct disk_args args = {.cfg = cfg, .io = m->io[m->nunits % m->nio]};
	const struct device_model *model;
	int rc;

	model = machine_model_find("disk", cfg->model, "virtio-blk", why);
	if (!model)
		return -EINVAL;
	if (!cfg->path && cfg->fd < 0 && !cfg->nbd && !cfg->vhost.socket)
		return why_set(why, -EINVAL, "--disk: path=FILE, fd=N or nbd=URI is needed");
	if (cfg->serial && strlen(cfg->serial) > 20)
		return why_set(why, -EINVAL, "--disk serial=%.60s: longer than 20 characters",
			cfg->serial);
	args.index = machine_model_index(m, model);
	opts.readonly |= model->create_disk == ide_cd_create;
	snprintf(args.name, sizeof(args.name), "disk%u", i);
	if (model->create_disk != virtio_pci_vhost_blk_create) {
		rc = blk_open(&unit->image, &opts, why);
		if (rc)
			return why_option(why, rc, "--disk", cfg->nbd ? "nbd" : "path",
				cfg->nbd ? cfg->nbd : cfg->path);
	}
	args.image = unit->image;
	unit->model = model;
	m->nunits++;
	rc = model->create_disk(m, &args, &unit->device, why);
	if (!rc)
		unit->device->model = model;
	return rc;
}

static int machine_port_open(
	const struct net_config *cfg, struct net_port **out, char why[VMM_WHY_MAX])
{
	unsigned queues = cfg->queues ? cfg->queues : 1;
	struct net_tap_options tap = {.name = cfg->tap, .queues = queues};
	struct net_mem_options mem = {.queues = queues};

	if (cfg->memory) {
		if (!strcmp(cfg->memory, "sink"))
			mem.kind = NET_MEM_SINK;
		else if (!strcmp(cfg->memory, "source"))
			mem.kind = NET_MEM_SOURCE;
		else if (!strcmp(cfg->memory, "echo"))
			mem.kind = NET_MEM_ECHO;
		else
			return why_set(why, -EINVAL, "--net mem=%.60s: one of sink source echo",
				cfg->memory);
		return net_mem_open(out, &mem, why);
	}
	if (cfg->user)
		return net_user_open(out, &cfg->nat, why);
	if (!cfg->tap && cfg->fd < 0)
		return why_set(why, -EINVAL, "--net: tap=NAME, fd=N, user or mem=KIND is needed");
	if (!cfg->tap) {
		tap.fds = &cfg->fd;
		tap.nfds = 1;
	}
	return net_tap_open(out, &tap, why);
}

static int machine_net_create(struct machine *m, unsigned i, char why[VMM_WHY_MAX])
{
	const struct net_config *cfg = &m->cfg.nets[i];
	struct machine_unit *unit = &m->units[m->nunits];
	struct net_args args = {.cfg = cfg, .io = m->io[m->nunits % m->nio]};
	const uint8_t mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56 + i};
	const struct device_model *model;
	int rc;

	model = machine_model_find("net", cfg->model, "virtio-net", why);
	if (!model)
		return -EINVAL;
	if (cfg->mac_set && (cfg->mac[0] & 1))
		return why_set(why, -EINVAL,
			"--net mac=%02x:...: a group address; the first byte must be even",
			cfg->mac[0]);
	args.index = machine_model_index(m, model);
	memcpy(args.mac, cfg->mac_set ? cfg->mac : mac, sizeof(args.mac));
	snprintf(args.name, sizeof(args.name), "net%u", i);
	if (cfg->port) {
		unit->port = cfg->port;
		unit->port_borrowed = true;
	} else if (model->create_net != virtio_pci_vhost_net_create) {
		rc = machine_port_open(cfg, &unit->port, why);
		if (rc)
			return strncmp(why, "--", 2) ? why_option(why, rc, "--net", "tap", cfg->tap)
						     : rc;
	}
	args.port = unit->port;
	unit->model = model;
	m->nunits++;
	rc = model->create_net(m, &args, &unit->device, why);
	if (!rc)
		unit->device->model = model;
	return rc;
}

/* ------------------------------------------------------------------ the creator's own ports */

static uint64_t hook_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct port_hook *hook = opaque;

	return hook->read ? hook->read(hook->ctx, hook->port + offset, size) : UINT32_MAX;
}

static void hook_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	const struct port_hook *hook = opaque;

	if (hook->write)
		hook->write(hook->ctx, hook->port + offset, value, size);
}

static int machine_hooks_map(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc;

	if (!m->cfg.nhooks)
		return 0;
	m->hook_regions = calloc(m->cfg.nhooks, sizeof(*m->hook_regions));
	if (!m->hook_regions)
		return why_set(why, -ENOMEM, "port hooks: no memory");
	for (unsigned i = 0; i < m->cfg.nhooks; i++) {
		m->hook_regions[i] = (struct bus_region){
			.base = m->cfg.hooks[i].port,
			.size = m->cfg.hooks[i].count,
			.kind = BUS_PIO,
			.read = hook_read,
			.write = hook_write,
			.opaque = (void *)&m->cfg.hooks[i],
		};
		rc = bus_map(m, &m->hook_regions[i]);
		if (rc)
			return why_set(
				why, rc, "port hook 0x%x: overlaps a device", m->cfg.hooks[i].port);
	}
	return 0;
}

/* ------------------------------------------------------------------ making */

static int machine_config_take(
	struct machine *m, const struct machine_config *cfg, char why[VMM_WHY_MAX])
{
	m->cfg = *cfg;
	if (!m->cfg.cpus)
		m->cfg.cpus = 1;
	if (!m->cfg.memory)
		m->cfg.memory = 256ull << 20;
	if (m->cfg.cpus > VMM_CPUS_MAX)
		return why_set(
			why, -EINVAL, "--cpus %u: 1 to %u are accepted", m->cfg.cpus, VMM_CPUS_MAX);
	if (m->cfg.io_threads > VMM_CPUS_MAX)
		return why_set(why, -EINVAL, "--io-threads %u: 1 to %u are accepted",
			m->cfg.io_threads, VMM_CPUS_MAX);
	if (m->cfg.ndisks > VMM_DISKS_MAX)
		return why_set(why, -EINVAL, "--disk: %u given; at most %u are accepted",
			m->cfg.ndisks, VMM_DISKS_MAX);
	if (m->cfg.nnets > VMM_NETS_MAX)
		return why_set(why, -EINVAL, "--net: %u given; at most %u are accepted",
			m->cfg.nnets, VMM_NETS_MAX);
	m->cmdline = strdup(cfg->cmdline ? cfg->cmdline : "");
	m->kernel_path = cfg->kernel ? strdup(cfg->kernel) : NULL;
	m->initrd_path = cfg->initrd ? strdup(cfg->initrd) : NULL;
	m->firmware_path = cfg->firmware ? strdup(cfg->firmware) : NULL;
	if (cfg->firmware && !m->firmware_path)
		return why_set(why, -ENOMEM, "no memory");
	m->cfg.firmware = m->firmware_path;
	if (!m->cmdline || (cfg->kernel && !m->kernel_path) || (cfg->initrd && !m->initrd_path))
		return why_set(why, -ENOMEM, "no memory");
	m->cfg.cmdline = m->cmdline;
	m->cfg.kernel = m->kernel_path;
	m->cfg.initrd = m->initrd_path;
	return 0;
}

static struct machine *machine_alloc(void)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->vga_fd = m->vars_fd = m->firmware_fd = m->kernel_fd = m->initrd_fd = m->memory_fd =
		m->kvm_fd = m->vm_fd = m->end_fd = -1;
	pthread_rwlock_init(&m->bus_lock, NULL);
	pthread_mutex_init(&m->coalesced_lock, NULL);
	pthread_mutex_init(&m->posted_lock, NULL);
	pthread_mutex_init(&m->run_lock, NULL);
	pthread_cond_init(&m->run_cond, NULL);
	pthread_mutex_init(&m->control_lock, NULL);
	irq_init(m);
	return m;
}

/* The machine's own devices, then the user's. */
static int machine_devices_create(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc = pci_bus_create(m);

	if (!rc)
		rc = chipset_create(m);
	if (!rc && m->firmware_fd >= 0)
		rc = fw_cfg_create(m);
	if (!rc)
		rc = pm_create(m);
	if (!rc)
		rc = serial_create(m);
	if (!rc && m->cfg.parallel.on)
		rc = parallel_create(m);
	if (!rc)
		rc = rtc_create(m);
	if (!rc)
		rc = i8042_create(m);
	if (!rc && m->firmware_fd >= 0 && m->cfg.vga != VMM_OFF)
		rc = vga_create(m);
	if (rc)
		return why_set(why, rc, "the machine's own devices: %s", strerror(-rc));
	rc = machine_hooks_map(m, why);
	for (unsigned i = 0; i < m->cfg.ndisks && !rc; i++)
		rc = machine_disk_create(m, i, why);
	for (unsigned i = 0; i < m->cfg.nnets && !rc; i++)
		rc = machine_net_create(m, i, why);
	if (!rc)
		rc = machine_others_create(m, why);
	if (rc)
		return rc;
	rc = pci_assign_all(m);
	return rc ? why_set(why, rc, "PCI: no room for all devices: %s", strerror(-rc)) : 0;
}

static int machine_make(struct machine *m, char why[VMM_WHY_MAX])
{
	int rc;

	m->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->end_fd < 0)
		return why_set(why, -errno, "eventfd: %s", strerror(errno));
	rc = boot_open(m, why);
	if (!rc)
		rc = memory_create(m, why);
	if (!rc && !m->cfg.no_kvm)
		rc = kvm_vm_create(m, why);
	if (!rc && !m->cfg.no_kvm)
		rc = kvm_vcpus_create(m, why);
	if (!rc && !m->cfg.no_kvm)
		rc = kvm_memory_map(m, why);
	if (!rc)
		rc = machine_io_create(m, why);
	if (!rc)
		rc = firmware_create(m, why);
	if (!rc)
		rc = machine_devices_create(m, why);
	if (!rc && !m->cfg.no_kvm) {
		kvm_state_save(m, &m->pristine);
		rc = m->pristine.error;
		if (rc)
			why_set(why, rc, "/dev/kvm: the vCPUs' state cannot be read: %s",
				strerror(-rc));
	}
	return rc ? rc : boot_load(m, why);
}

int machine_create(struct machine **out, const struct machine_config *cfg, char why[VMM_WHY_MAX])
{
	struct machine *m = machine_alloc();
	int rc;

	*out = NULL;
	why[0] = '\0';
	if (!m)
		return why_set(why, -ENOMEM, "no memory");
	rc = machine_config_take(m, cfg, why);
	if (!rc)
		rc = machine_make(m, why);
	if (rc) {
		if (!why[0])
			why_set(why, rc, "%s", strerror(-rc));
		machine_destroy(m);
		return rc;
	}
	for (unsigned i = 0; i < m->nunits; i++)
		m->units[i].port_borrowed = false;
	*out = m;
	return 0;
}

static void machine_units_close(struct machine *m)
{
	for (unsigned i = m->nunits; i-- > 0;) {
		if (m->units[i].port && !m->units[i].port_borrowed)
			net_port_close(m->units[i].port);
		if (m->units[i].image)
			blk_close(m->units[i].image);
	}
}

static void machine_device_destroy(struct machine *m, struct device *d)
{
	struct device **at = &m->devices;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	d->ops->destroy(d);
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	machine_stop(m);
	pthread_mutex_lock(&m->control_lock);
	machine_finish(m);
	pthread_mutex_unlock(&m->control_lock);
	/* last made, first gone */
	while (m->devices) {
		struct device *last = m->devices;

		while (last->next)
			last = last->next;
		machine_device_destroy(m, last);
	}
	posted_teller_stop(m);
	free(m->hook_regions);
	while (m->nio)
		io_thread_destroy(m->io[--m->nio]);
	machine_units_close(m);
	kvm_vcpus_destroy(m);
	firmware_destroy(m);
	kvm_vm_destroy(m);
	memory_destroy(m);
	state_writer_free(&m->pristine);
	free(m->doorbells);
	irq_free(m);
	if (m->kernel_fd >= 0)
		close(m->kernel_fd);
	if (m->initrd_fd >= 0)
		close(m->initrd_fd);
	if (m->firmware_fd >= 0)
		close(m->firmware_fd);
	if (m->vars_fd >= 0)
		close(m->vars_fd);
	if (m->end_fd >= 0)
		close(m->end_fd);
	free(m->cmdline);
	free(m->kernel_path);
	free(m->firmware_path);
	free(m->initrd_path);
	pthread_rwlock_destroy(&m->bus_lock);
	pthread_mutex_destroy(&m->posted_lock);
	pthread_mutex_destroy(&m->coalesced_lock);
	pthread_mutex_destroy(&m->run_lock);
	pthread_cond_destroy(&m->run_cond);
	pthread_mutex_destroy(&m->control_lock);
	free(m);
}

struct acpi_config machine_acpi_config(const struct machine *m)
{
	struct acpi_config cfg = {.cpus = m->cfg.cpus, .parallel = m->cfg.parallel.on};

	for (unsigned i = 0; i < VMM_SERIALS_MAX; i++)
		cfg.serials |= m->serials[i] ? 1u << i : 0;
	return cfg;
}

size_t machine_serial_input(struct machine *m, unsigned port, const uint8_t *bytes, size_t n)
{
	if (port >= VMM_SERIALS_MAX || !m->serials[port])
		return 0;
	return serial_input(m->serials[port], bytes, n);
}

size_t machine_console_input(struct machine *m, const uint8_t *bytes, size_t n)
{
	return machine_serial_input(m, 0, bytes, n);
}
