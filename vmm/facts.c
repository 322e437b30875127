/* SPDX-License-Identifier: BSD-2-Clause */
/* What this host's KVM is. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/machine_priv.h"

/* Does the host's CPU show hardware virtualization? The flags line of the first CPU is enough. */
static bool facts_cpu_virtualizes(void)
{
	char buf[8192];
	bool found = false;
	ssize_t n;
	int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return true;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n > 0) {
		buf[n] = '\0';
		found = strstr(buf, " vmx ") || strstr(buf, " svm ") || strstr(buf, " svm\n");
	}
	return found;
}

static bool facts_module(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	return access(path, F_OK) == 0;
}

static void facts_flavour(struct kvm_facts *out)
{
	const char *name = "unknown";

	out->interprets_ring0 = false;
	if (facts_module("kvm_pvm")) {
		name = "kvm-pvm (software only)";
		out->interprets_ring0 = true;
	} else if (facts_module("kvm_amd")) {
		name = "kvm_amd";
	} else if (facts_module("kvm_intel")) {
		name = "kvm_intel";
	} else if (!facts_cpu_virtualizes()) {
		name = "software only";
		out->interprets_ring0 = true;
	}
	snprintf(out->flavour, sizeof(out->flavour), "%s", name);
}

int kvm_facts_get(struct kvm_facts *out, char why[VMM_WHY_MAX])
{
	int error, fd;

	memset(out, 0, sizeof(*out));
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		error = errno;
		snprintf(out->flavour, sizeof(out->flavour), "none");
		if (error == EACCES || error == EPERM)
			return why_set(why, -EACCES,
				"/dev/kvm: permission denied: add the user to group kvm");
		if (error == ENOENT || error == ENODEV || error == ENXIO)
			return why_set(why, -ENODEV,
				"/dev/kvm: not there: load kvm_intel or kvm_amd, or turn "
				"virtualization on in the firmware");
		return why_set(why, -error, "/dev/kvm: %s", strerror(error));
	}
	out->present = true;
	out->api_version = ioctl(fd, KVM_GET_API_VERSION, 0);
	close(fd);
	facts_flavour(out);
	return 0;
}
