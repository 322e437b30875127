/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest sees of its processors through CPUID: everything KVM offers, or one of the x86-64
 * levels as a template (System V ABI, AMD64 supplement, 3.1.1), with a topology of one package of
 * single-threaded cores. A template is written here from nothing, so that it is the same on
 * every host; the host only has to have what it promises. Leaves are the vendors' (Intel SDM volume
 * 2A, CPUID; AMD APM volume 3, appendix E); 0x400000xx are KVM's.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/vmm.h"

#define LEAF_KVM          0x40000000u
#define LEAF_KVM_FEATURES 0x40000001u
#define LEAF_TIMING       0x40000010u
#define LEAF_EXT          0x80000000u
#define LEAF_TOPOLOGY     0x0bu
#define EDX_HTT           (1u << 28)
#define ECX_CMP_LEGACY    (1u << 1)
#define CACHE_TYPE        0x1fu
#define CACHE_LEVEL(eax)  ((eax) >> 5 & 7)
#define CACHE_LAST        3u

#define TEMPLATE_SIGNATURE 0x00000f61u /* family 15, model 6, stepping 1: no model's quirks */
#define TEMPLATE_PHYSICAL  39u
#define TEMPLATE_VIRTUAL   48u
#define TEMPLATE_MAX       0x0du
#define TEMPLATE_MAX_EXT   0x80000008u
#define APIC_BUS_KHZ       1000000u

enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

/* A feature, and the level that brings it. Those without a name need not be asked for. */
static const struct cpu_bit {
	uint32_t function;
	uint8_t reg, bit;
	uint8_t level;
	const char *name;
} cpu_bits[] = {
	{1, REG_EDX, 0, 1, "fpu"},
	{1, REG_EDX, 2, 1, "de"},
	{1, REG_EDX, 3, 1, "pse"},
	{1, REG_EDX, 4, 1, "tsc"},
	{1, REG_EDX, 5, 1, "msr"},
	{1, REG_EDX, 6, 1, "pae"},
	{1, REG_EDX, 7, 1, "mce"},
	{1, REG_EDX, 8, 1, "cx8"},
	{1, REG_EDX, 9, 1, "apic"},
	{1, REG_EDX, 11, 1, "sep"},
	{1, REG_EDX, 12, 1, "mtrr"},
	{1, REG_EDX, 13, 1, "pge"},
	{1, REG_EDX, 14, 1, "mca"},
	{1, REG_EDX, 15, 1, "cmov"},
	{1, REG_EDX, 16, 1, "pat"},
	{1, REG_EDX, 17, 1, "pse36"},
	{1, REG_EDX, 19, 1, "clflush"},
	{1, REG_EDX, 23, 1, "mmx"},
	{1, REG_EDX, 24, 1, "fxsr"},
	{1, REG_EDX, 25, 1, "sse"},
	{1, REG_EDX, 26, 1, "sse2"},
	{LEAF_EXT + 1, REG_EDX, 11, 1, "syscall"},
	{LEAF_EXT + 1, REG_EDX, 20, 1, "nx"},
	{LEAF_EXT + 1, REG_EDX, 29, 1, "lm"},
	{1, REG_ECX, 31, 1, NULL}, /* under a hypervisor */
	{6, REG_EAX, 2, 1, NULL},  /* the APIC's timer never stops */
	{1, REG_ECX, 21, 1, "x2apic"},
	{1, REG_ECX, 24, 1, "tsc_deadline_timer"},
	{1, REG_ECX, 0, 2, "sse3"},
	{1, REG_ECX, 9, 2, "ssse3"},
	{1, REG_ECX, 13, 2, "cx16"},
	{1, REG_ECX, 19, 2, "sse4_1"},
	{1, REG_ECX, 20, 2, "sse4_2"},
	{1, REG_ECX, 23, 2, "popcnt"},
	{LEAF_EXT + 1, REG_ECX, 0, 2, "lahf_lm"},
	{1, REG_ECX, 12, 3, "fma"},
	{1, REG_ECX, 22, 3, "movbe"},
	{1, REG_ECX, 26, 3, "xsave"},
	{1, REG_ECX, 28, 3, "avx"},
	{1, REG_ECX, 29, 3, "f16c"},
	{7, REG_EBX, 3, 3, "bmi1"},
	{7, REG_EBX, 5, 3, "avx2"},
	{7, REG_EBX, 7, 3, "smep"},
	{7, REG_EBX, 8, 3, "bmi2"},
	{LEAF_EXT + 1, REG_ECX, 5, 3, "abm"},
	{LEAF_KVM_FEATURES, REG_EAX, 0, 1, "kvm_clock"},
	{LEAF_KVM_FEATURES, REG_EAX, 1, 1, "kvm_nop_io_delay"},
	{LEAF_KVM_FEATURES, REG_EAX, 3, 1, "kvm_clock2"},
	{LEAF_KVM_FEATURES, REG_EAX, 6, 1, "kvm_pv_eoi"},
	{LEAF_KVM_FEATURES, REG_EAX, 24, 1, "kvm_clock_stable"},
};

#define CPU_BITS (sizeof(cpu_bits) / sizeof(cpu_bits[0]))

static const char *const cpu_names[] = {
	[VMM_CPU_HOST] = "host", [VMM_CPU_V2] = "v2", [VMM_CPU_V3] = "v3"};

int vmm_cpu_parse(const char *text, enum vmm_cpu *out)
{
	for (unsigned i = 0; i < sizeof(cpu_names) / sizeof(cpu_names[0]); i++) {
		if (strcmp(text, cpu_names[i]) != 0)
			continue;
		*out = (enum vmm_cpu)i;
		return 0;
	}
	return -EINVAL;
}

/* ------------------------------------------------------------------ leaves */

const struct cpu_leaf *cpuid_find(const struct cpu_leaves *l, uint32_t function, uint32_t index)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->leaf[i].function == function &&
			(!l->leaf[i].indexed || l->leaf[i].index == index))
			return &l->leaf[i];
	return NULL;
}

static void cpuid_add(struct cpu_leaves *l, uint32_t function, uint32_t eax, uint32_t ebx,
	uint32_t ecx, uint32_t edx)
{
	if (l->n < CPU_LEAVES_MAX)
		l->leaf[l->n++] = (struct cpu_leaf){
			.function = function, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx};
}

static void cpuid_add_sub(struct cpu_leaves *l, uint32_t function, uint32_t index, uint32_t eax,
	uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	unsigned n = l->n;

	cpuid_add(l, function, eax, ebx, ecx, edx);
	if (l->n > n) {
		l->leaf[n].index = index;
		l->leaf[n].indexed = true;
	}
}

static void cpuid_remove(struct cpu_leaves *l, uint32_t function)
{
	unsigned n = 0;

	for (unsigned i = 0; i < l->n; i++)
		if (l->leaf[i].function != function)
			l->leaf[n++] = l->leaf[i];
	l->n = n;
}

static uint32_t *cpuid_reg(struct cpu_leaf *leaf, unsigned reg)
{
	switch (reg) {
	case REG_EAX:
		return &leaf->eax;
	case REG_EBX:
		return &leaf->ebx;
	case REG_ECX:
		return &leaf->ecx;
	default:
		return &leaf->edx;
	}
}

static struct cpu_leaf *cpuid_get(struct cpu_leaves *l, uint32_t function)
{
	return (struct cpu_leaf *)cpuid_find(l, function, 0);
}

static bool cpuid_is_amd(const struct cpu_leaves *l)
{
	const struct cpu_leaf *leaf = cpuid_find(l, 0, 0);

	/* "Auth", "Hygo" */
	return leaf && (leaf->ebx == 0x68747541 || leaf->ebx == 0x6f677948);
}

/* ------------------------------------------------------------------ templates */

static bool cpuid_has(const struct cpu_leaves *host, const struct cpu_bit *bit)
{
	const struct cpu_leaf *leaf = cpuid_find(host, bit->function, 0);

	return leaf && (*cpuid_reg((struct cpu_leaf *)leaf, bit->reg) >> bit->bit & 1);
}

/* What the host lacks, as one line; 0 when it lacks nothing. */
static int cpuid_check(
	const struct cpu_leaves *host, enum vmm_cpu cpu, unsigned level, char why[VMM_WHY_MAX])
{
	const struct cpu_leaf *widths = cpuid_find(host, TEMPLATE_MAX_EXT, 0);
	const struct cpu_leaf *states = cpuid_find(host, 0xd, 0);
	char lacks[160] = "";
	size_t at = 0;

	for (unsigned i = 0; i < CPU_BITS; i++)
		if (cpu_bits[i].name && cpu_bits[i].level <= level &&
			!cpuid_has(host, &cpu_bits[i]) && at < sizeof(lacks))
			at += snprintf(lacks + at, sizeof(lacks) - at, " %s", cpu_bits[i].name);
	if ((!widths || (widths->eax & 0xff) < TEMPLATE_PHYSICAL) && at < sizeof(lacks))
		at += snprintf(
			lacks + at, sizeof(lacks) - at, " %u-bit-addresses", TEMPLATE_PHYSICAL);
	if (level >= 3 && (!states || (states->eax & 7) != 7) && at < sizeof(lacks))
		at += snprintf(lacks + at, sizeof(lacks) - at, " avx-state");
	if (!at)
		return 0;
	snprintf(why, VMM_WHY_MAX, "--cpu %s: this host lacks%.160s; use --cpu %s", cpu_names[cpu],
		lacks, cpu == VMM_CPU_V3 ? "v2 or host" : "host");
	return -ENOTSUP;
}

static void template_features(struct cpu_leaves *l, unsigned level)
{
	for (unsigned i = 0; i < CPU_BITS; i++) {
		struct cpu_leaf *leaf = cpuid_get(l, cpu_bits[i].function);

		if (leaf && cpu_bits[i].level <= level)
			*cpuid_reg(leaf, cpu_bits[i].reg) |= 1u << cpu_bits[i].bit;
	}
}

/* 32 KiB twice, 256 KiB, 16 MiB, in lines of 64 bytes: as both vendors write it. */
static void template_caches(struct cpu_leaves *l)
{
	cpuid_add_sub(l, 4, 0, 0x121, 0x01c0003f, 63, 0);
	cpuid_add_sub(l, 4, 1, 0x122, 0x01c0003f, 63, 0);
	cpuid_add_sub(l, 4, 2, 0x143, 0x01c0003f, 511, 0);
	cpuid_add_sub(l, 4, 3, 0x163, 0x03c0003f, 16383, 0);
	cpuid_add_sub(l, 4, 4, 0, 0, 0, 0);
	cpuid_add(l, LEAF_EXT + 5, 0, 0, 0x20080140, 0x20080140);
	cpuid_add(l, LEAF_EXT + 6, 0, 0, 0x01006140, 0x00808140);
}

static void template_brand(struct cpu_leaves *l, unsigned level)
{
	char text[49];
	uint32_t words[12];

	memset(text, 0, sizeof(text));
	snprintf(text, sizeof(text), "Sluice virtual processor x86-64-v%u", level);
	memcpy(words, text, sizeof(words));
	for (unsigned i = 0; i < 3; i++)
		cpuid_add(l, LEAF_EXT + 2 + i, words[4 * i], words[4 * i + 1], words[4 * i + 2],
			words[4 * i + 3]);
}

static void template_build(struct cpu_leaves *l, const struct cpu_leaf *vendor, unsigned level)
{
	cpuid_add(l, 0, TEMPLATE_MAX, vendor->ebx, vendor->ecx, vendor->edx);
	cpuid_add(l, 1, TEMPLATE_SIGNATURE, 8 << 8, 0, 0);
	cpuid_add(l, 2, 0x00ff0001, 0, 0, 0); /* caches are in leaf 4 */
	cpuid_add(l, 6, 0, 0, 0, 0);
	cpuid_add_sub(l, 7, 0, 0, 0, 0, 0);
	if (level >= 3) {
		cpuid_add_sub(l, 0xd, 0, 7, 832, 832, 0);
		cpuid_add_sub(l, 0xd, 1, 0, 0, 0, 0);
		cpuid_add_sub(l, 0xd, 2, 256, 576, 0, 0);
	}
	cpuid_add(l, LEAF_KVM_FEATURES, 0, 0, 0, 0);
	cpuid_add(l, LEAF_EXT, TEMPLATE_MAX_EXT, 0, 0, 0);
	cpuid_add(l, LEAF_EXT + 1, TEMPLATE_SIGNATURE, 0, 0, 0);
	template_brand(l, level);
	template_caches(l);
	cpuid_add(l, LEAF_EXT + 7, 0, 0, 0, 0);
	cpuid_add(l, LEAF_EXT + 8, TEMPLATE_VIRTUAL << 8 | TEMPLATE_PHYSICAL, 0, 0, 0);
	template_features(l, level);
}

/* ------------------------------------------------------------------ what all vCPUs share */

/* KVM's signature, and the frequency of the time stamp counter behind it. */
static void cpuid_hypervisor(struct cpu_leaves *l, uint32_t tsc_khz)
{
	struct cpu_leaf *leaf = cpuid_get(l, LEAF_KVM);

	if (!leaf)
		/* "KVMKVMKVM" */
		cpuid_add(l, LEAF_KVM, LEAF_TIMING, 0x4b4d564b, 0x564b4d56, 0x4d);
	else if (leaf->eax < LEAF_TIMING)
		leaf->eax = LEAF_TIMING;
	cpuid_remove(l, LEAF_TIMING);
	cpuid_add(l, LEAF_TIMING, tsc_khz, APIC_BUS_KHZ, 0, 0);
}

/* Filled for each vCPU by cpuid_personalize(); 0x1f would only say the same. */
static void cpuid_topology_room(struct cpu_leaves *l)
{
	struct cpu_leaf *leaf = cpuid_get(l, 0);

	if (leaf && leaf->eax < LEAF_TOPOLOGY)
		leaf->eax = LEAF_TOPOLOGY;
	cpuid_remove(l, LEAF_TOPOLOGY);
	cpuid_remove(l, 0x1f);
	cpuid_remove(l, LEAF_EXT + 0x26);
	for (unsigned i = 0; i < 3; i++)
		cpuid_add_sub(l, LEAF_TOPOLOGY, i, 0, 0, 0, 0);
}

int cpuid_build(struct cpu_leaves *out, const struct cpu_leaves *host, enum vmm_cpu cpu,
	uint32_t tsc_khz, char why[VMM_WHY_MAX])
{
	const struct cpu_leaf *vendor = cpuid_find(host, 0, 0);
	unsigned level = cpu == VMM_CPU_V3 ? 3 : 2;
	struct cpu_leaf *leaf;
	int rc;

	out->n = 0;
	if (cpu == VMM_CPU_HOST) {
		*out = *host;
		leaf = cpuid_get(out, 1);
		if (leaf)
			leaf->ecx |= 1u << 31;
	} else {
		rc = cpuid_check(host, cpu, level, why);
		if (rc)
			return rc;
		template_build(out, vendor, level);
	}
	cpuid_hypervisor(out, tsc_khz);
	cpuid_topology_room(out);
	return 0;
}

/* ------------------------------------------------------------------ the vCPU's own part */

static void cpuid_topology_level(struct cpu_leaf *e, unsigned id, unsigned cpus, unsigned shift)
{
	e->edx = id;
	e->ecx = e->index & 0xff;
	e->eax = e->ebx = 0;
	if (e->index == 0) {
		e->ebx = 1;
		e->ecx |= 1u << 8; /* threads */
	} else if (e->index == 1) {
		e->eax = shift;
		e->ebx = cpus;
		e->ecx |= 2u << 8; /* cores */
	}
}

/* Who shares a cache: nobody, but for the last level. */
static uint32_t cpuid_cache(uint32_t eax, unsigned shift)
{
	uint32_t all = (1u << shift) - 1;

	if (!(eax & CACHE_TYPE))
		return eax;
	return (eax & 0x3fffu) | (CACHE_LEVEL(eax) >= CACHE_LAST ? all << 14 : 0);
}

void cpuid_personalize(struct cpu_leaves *l, unsigned id, unsigned cpus)
{
	bool amd = cpuid_is_amd(l);
	unsigned shift = 0;

	while ((1u << shift) < cpus)
		shift++;
	for (unsigned i = 0; i < l->n; i++) {
		struct cpu_leaf *e = &l->leaf[i];

		switch (e->function) {
		case 1:
			e->ebx = (e->ebx & 0xffffu) | (cpus & 0xff) << 16 | id << 24;
			if (cpus > 1)
				e->edx |= EDX_HTT;
			break;
		case 4:
			e->eax = cpuid_cache(e->eax, shift);
			if (e->eax & CACHE_TYPE)
				e->eax |= ((1u << shift) - 1) << 26;
			break;
		case LEAF_TOPOLOGY:
			cpuid_topology_level(e, id, cpus, shift);
			break;
		case LEAF_EXT + 1:
			if (amd && cpus > 1)
				e->ecx |= ECX_CMP_LEGACY;
			break;
		case LEAF_EXT + 8:
			e->ecx = (cpus - 1) | shift << 12;
			break;
		case LEAF_EXT + 0x1d:
			e->eax = cpuid_cache(e->eax, shift);
			break;
		case LEAF_EXT + 0x1e:
			e->eax = id;
			e->ebx = id;
			e->ecx = 0;
			break;
		default:
			break;
		}
	}
}
