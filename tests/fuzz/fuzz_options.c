/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parsers of --disk, --net, --balloon and sizes. Input: byte 0 which one, the rest is the text.
 * A refusal is one line that begins with its option and leaves nothing behind.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/vmm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
	if (!good)
		abort();
}

static void line_check(const char why[VMM_WHY_MAX], const char *option)
{
	size_t len = strnlen(why, VMM_WHY_MAX);

	check(len < VMM_WHY_MAX && !strncmp(why, option, strlen(option)));
	for (size_t i = 0; i < len; i++)
		check((unsigned char)why[i] >= 0x20 && why[i] != 0x7f);
}

static void disk(const char *text)
{
	struct machine_config m;
	char why[VMM_WHY_MAX];

	machine_config_init(&m);
	if (disk_config_parse(&m.disks[0], text, why)) {
		line_check(why, "--disk ");
		check(!m.disks[0].path && !m.disks[0].model && !m.disks[0].serial);
		return;
	}
	check((m.disks[0].path != NULL) != (m.disks[0].fd >= 0));
	check(m.disks[0].queues <= BACKEND_QUEUES_MAX && m.disks[0].queue_size <= 1024);
	check(!m.disks[0].serial || strlen(m.disks[0].serial) <= 20);
	m.ndisks = 1;
	machine_config_free(&m);
}

static void net(const char *text)
{
	struct machine_config m;
	char why[VMM_WHY_MAX];

	machine_config_init(&m);
	if (net_config_parse(&m.nets[0], text, why)) {
		line_check(why, "--net ");
		check(!m.nets[0].tap && !m.nets[0].model && !m.nets[0].memory);
		return;
	}
	check(m.nets[0].queues <= NET_QUEUES_MAX && m.nets[0].queue_size <= 1024);
	check(!(m.nets[0].mac[0] & 1));
	m.nnets = 1;
	machine_config_free(&m);
}

static void balloon(const char *text)
{
	struct balloon_config cfg;
	char why[VMM_WHY_MAX];

	if (balloon_config_parse(&cfg, text, why)) {
		line_check(why, "--balloon ");
		check(!cfg.on && !cfg.size);
		return;
	}
	check(cfg.on && cfg.size % SPLIT_BALLOON_PAGE == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t bytes;
	char *text;

	if (!size)
		return 0;
	text = strndup((const char *)data + 1, size - 1);
	check(text != NULL);
	switch (data[0] == 'b' ? 3 : data[0] % 3) {
	case 0:
		disk(text);
		break;
	case 1:
		net(text);
		break;
	case 3:
		balloon(text);
		break;
	default:
		(void)vmm_size_parse(text, &bytes);
		break;
	}
	free(text);
	return 0;
}
