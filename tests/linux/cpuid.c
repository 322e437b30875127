/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What CPUID says in a stock Linux guest, on each of its processors. Prints, as hexadecimal words,
 * the features (leaf 1 ECX and EDX, 7 EBX, ECX and EDX, 0x80000001 ECX and EDX) and the extended
 * states (leaf 0xD EAX), without the bits that follow the number of processors or what the kernel
 * turned on. Status 1 when processors differ, or when leaf 0xB does not number them as the kernel
 * does. Static.
 */
#include <cpuid.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ECX_OSXSAVE    (1u << 27)
#define EDX_HTT        (1u << 28)
#define ECX_OSPKE      (1u << 4)
#define ECX_CMP_LEGACY (1u << 1)

struct words {
	uint32_t w[8];
};

static void words_get(struct words *out)
{
	uint32_t a, b, c = 0, d = 0;

	memset(out, 0, sizeof(*out));
	if (__get_cpuid(1, &a, &b, &c, &d)) {
		out->w[0] = c & ~ECX_OSXSAVE;
		out->w[1] = d & ~EDX_HTT;
	}
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
		out->w[2] = b;
		out->w[3] = c & ~ECX_OSPKE;
		out->w[4] = d;
	}
	if (__get_cpuid(0x80000001, &a, &b, &c, &d)) {
		out->w[5] = c & ~ECX_CMP_LEGACY;
		out->w[6] = d;
	}
	if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
		out->w[7] = a;
}

int main(void)
{
	int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN), status = 0;
	struct words first = {{0}}, now;

	for (int i = 0; i < cpus; i++) {
		uint32_t a, b, c, id = UINT32_MAX;
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(i, &set);
		if (sched_setaffinity(0, sizeof(set), &set)) {
			perror("sched_setaffinity");
			return 1;
		}
		words_get(i ? &now : &first);
		if (i && memcmp(&now, &first, sizeof(now))) {
			printf("processor %d differs\n", i);
			status = 1;
		}
		if (!__get_cpuid_count(0xb, 0, &a, &b, &c, &id) || id != (uint32_t)i) {
			printf("processor %d has the x2APIC id %u\n", i, id);
			status = 1;
		}
	}
	for (unsigned i = 0; i < 8; i++)
		printf("%x%s", first.w[i], i < 7 ? ":" : "\n");
	return status;
}
