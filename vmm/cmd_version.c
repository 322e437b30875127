/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice version`. */
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cli_priv.h"
#include "vmm/vmm.h"

/* liburing tells its version only in the name of its file: liburing.so.2.3. */
static int uring_version(struct dl_phdr_info *info, size_t size, void *ctx)
{
	char real[PATH_MAX], *version = ctx;
	const char *so;

	(void)size;
	if (!strstr(info->dlpi_name, "liburing.so") || !realpath(info->dlpi_name, real))
		return 0;
	so = strstr(real, "liburing.so.");
	if (so)
		snprintf(version, 24, "%s", so + strlen("liburing.so."));
	return 1;
}

int cmd_version(int argc, char **argv)
{
	char uring[24] = "built in", why[VMM_WHY_MAX] = "";
	struct kvm_facts kvm = {0};

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		puts("Usage: sluice version\n\n"
		     "The version of sluice, of liburing, and of the host's KVM interface.");
		return CLI_OK;
	}
	if (argc > 1)
		return cli_fail("version", CLI_USAGE, "%.60s: takes no arguments", argv[1]);
	dl_iterate_phdr(uring_version, uring);
	if (kvm_facts_get(&kvm, why) || !kvm.present)
		printf("sluice %s (liburing %s, no KVM: %s)\n", SLUICE_VERSION, uring, why);
	else
		printf("sluice %s (liburing %s, KVM API %d, %s)\n", SLUICE_VERSION, uring,
			kvm.api_version, kvm.flavour);
	return CLI_OK;
}
