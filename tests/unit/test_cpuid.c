/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CPU templates as a pure function: two made-up hosts that have little in common give guests the
 * same leaves; a host that lacks something is told what; the topology follows --cpus.
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

static void leaf_add(struct cpu_leaves *l, uint32_t function, int index, uint32_t eax, uint32_t ebx,
	uint32_t ecx, uint32_t edx)
{
	l->leaf[l->n++] = (struct cpu_leaf){.function = function,
		.index = index < 0 ? 0 : (uint32_t)index,
		.indexed = index >= 0,
		.eax = eax,
		.ebx = ebx,
		.ecx = ecx,
		.edx = edx};
}

/* All that a v3 guest needs, and much more. */
static void host_new(struct cpu_leaves *l)
{
	memset(l, 0, sizeof(*l));
	leaf_add(l, 0, -1, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69);
	leaf_add(l, 1, -1, 0xc06f2, 0x12345678, 0xffffffff, 0xffffffff);
	leaf_add(l, 4, 0, 0x1c004121, 0x02c0003f, 63, 0);
	leaf_add(l, 4, 3, 0xfc1fc163, 0x03c0003f, 0x1ffff, 4);
	leaf_add(l, 6, -1, 0x77, 2, 9, 0);
	leaf_add(l, 7, 0, 2, 0xffffffff, 0xffffffff, 0xffffffff);
	leaf_add(l, 0xb, 0, 1, 2, 0x100, 17);
	leaf_add(l, 0xd, 0, 0x602e7, 0x2b00, 0x2b00, 0);
	leaf_add(l, 0x1f, 0, 1, 2, 0x100, 17);
	leaf_add(l, 0x40000000, -1, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	leaf_add(l, 0x40000001, -1, 0x01007efb, 0, 0, 0);
	leaf_add(l, 0x80000000, -1, 0x80000008, 0, 0, 0);
	leaf_add(l, 0x80000001, -1, 0, 0, 0xffffffff, 0xffffffff);
	leaf_add(l, 0x80000008, -1, 0x3034, 0xff, 0, 0);
}

/* Just what v3 asks for, in another family, with other caches. */
static void host_old(struct cpu_leaves *l)
{
	memset(l, 0, sizeof(*l));
	leaf_add(l, 0, -1, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69);
	leaf_add(l, 1, -1, 0x306c3, 0, 0x35f83201, 0x078bfbfd);
	leaf_add(l, 7, 0, 0, 0x000001a8, 0, 0);
	leaf_add(l, 0xd, 0, 7, 832, 832, 0);
	leaf_add(l, 0x40000000, -1, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	leaf_add(l, 0x40000001, -1, 0x0100004b, 0, 0, 0);
	leaf_add(l, 0x80000000, -1, 0x80000008, 0, 0, 0);
	leaf_add(l, 0x80000001, -1, 0, 0, 0x21, 0x2c100800);
	leaf_add(l, 0x80000008, -1, 0x3027, 0, 0, 0);
}

static struct cpu_leaf *leaf_of(struct cpu_leaves *l, uint32_t function)
{
	return (struct cpu_leaf *)cpuid_find(l, function, 0);
}

static bool same(const struct cpu_leaves *a, const struct cpu_leaves *b)
{
	for (unsigned i = 0; i < a->n && i < b->n; i++) {
		const struct cpu_leaf *x = &a->leaf[i], *y = &b->leaf[i];

		if (x->function != y->function || x->index != y->index || x->eax != y->eax ||
			x->ebx != y->ebx || x->ecx != y->ecx || x->edx != y->edx ||
			x->indexed != y->indexed)
			return false;
	}
	return a->n == b->n;
}

static void test_same_on_both(void)
{
	static const enum vmm_cpu models[] = {VMM_CPU_V2, VMM_CPU_V3};
	struct cpu_leaves a, b, ga, gb;
	char why[VMM_WHY_MAX];

	host_new(&a);
	host_old(&b);
	for (unsigned i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(cpuid_build(&ga, &a, models[i], 2000000, why), 0);
		CU_ASSERT_EQUAL(cpuid_build(&gb, &b, models[i], 2000000, why), 0);
		cpuid_personalize(&ga, 3, 4);
		cpuid_personalize(&gb, 3, 4);
		CU_ASSERT(ga.n > 20 && same(&ga, &gb));
	}
}

/* Of another vendor, with leaves only that one has: the name in leaf 0 and, with cores, CmpLegacy
 * differ. */
static void test_other_vendor(void)
{
	static const enum vmm_cpu models[] = {VMM_CPU_V2, VMM_CPU_V3};
	struct cpu_leaves a, b, ga, gb;
	char why[VMM_WHY_MAX];

	host_old(&a);
	host_new(&b);
	*leaf_of(&b, 0) = (struct cpu_leaf){
		.eax = 0x10, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65};
	leaf_of(&b, 0x80000000)->eax = 0x80000026;
	leaf_add(&b, 0x8000001d, 0, 0x4121, 0x1c0003f, 63, 0);
	leaf_add(&b, 0x8000001e, -1, 9, 0x104, 1, 0);
	leaf_add(&b, 0x80000026, 0, 1, 2, 0x100, 17);
	for (unsigned i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(cpuid_build(&ga, &a, models[i], 2000000, why), 0);
		CU_ASSERT_EQUAL(cpuid_build(&gb, &b, models[i], 2000000, why), 0);
		cpuid_personalize(&ga, 1, 2);
		cpuid_personalize(&gb, 1, 2);
		CU_ASSERT_FALSE(same(&ga, &gb));
		CU_ASSERT_EQUAL(leaf_of(&gb, 0)->ebx, 0x68747541);
		CU_ASSERT_EQUAL(leaf_of(&gb, 0)->eax, leaf_of(&ga, 0)->eax);
		CU_ASSERT_EQUAL(leaf_of(&gb, 0x80000001)->ecx, leaf_of(&ga, 0x80000001)->ecx | 2);
		*leaf_of(&gb, 0) = *leaf_of(&ga, 0);
		leaf_of(&gb, 0x80000001)->ecx &= ~2u;
		CU_ASSERT(same(&ga, &gb));
	}
}

static void test_levels(void)
{
	struct cpu_leaves host, l;
	char why[VMM_WHY_MAX];

	host_new(&host);
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_V2, 1, why), 0);
	/* exactly this, whatever the host has */
	CU_ASSERT_EQUAL(cpuid_find(&l, 1, 0)->ecx, 0x81b82201);
	CU_ASSERT_EQUAL(cpuid_find(&l, 1, 0)->edx, 0x078bfbfd);
	CU_ASSERT_EQUAL(cpuid_find(&l, 7, 0)->ebx, 0);
	CU_ASSERT_EQUAL(cpuid_find(&l, 7, 0)->edx, 0);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0x80000001, 0)->ecx, 0x1);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0x80000001, 0)->edx, 0x20100800);
	CU_ASSERT_PTR_NULL(cpuid_find(&l, 0xd, 0));
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_V3, 1, why), 0);
	CU_ASSERT_EQUAL(cpuid_find(&l, 1, 0)->ecx, 0xb5f83201);
	CU_ASSERT_EQUAL(cpuid_find(&l, 7, 0)->ebx, 0x1a8);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0x80000001, 0)->ecx, 0x21);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0xd, 0)->eax, 7);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0, 0)->ebx, 0x756e6547);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0x40000001, 0)->eax, 0x0100004b);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0x40000010, 0)->eax, 1);
}

static void test_refused(void)
{
	struct cpu_leaves host, l;
	char why[VMM_WHY_MAX] = "";

	host_old(&host);
	leaf_of(&host, 7)->ebx &= ~(1u << 5);
	leaf_of(&host, 1)->ecx &= ~(1u << 12);
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_V2, 1, why), 0);
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_V3, 1, why), -ENOTSUP);
	CU_ASSERT_STRING_EQUAL(why, "--cpu v3: this host lacks fma avx2; use --cpu v2 or host");
	leaf_of(&host, 1)->ecx &= ~(1u << 20);
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_V2, 1, why), -ENOTSUP);
	CU_ASSERT_STRING_EQUAL(why, "--cpu v2: this host lacks sse4_2; use --cpu host");
	host_old(&host);
	leaf_of(&host, 0x80000008)->eax = 0x3024;
	leaf_of(&host, 0xd)->eax = 3;
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_V3, 1, why), -ENOTSUP);
	CU_ASSERT_STRING_EQUAL(
		why, "--cpu v3: this host lacks 39-bit-addresses avx-state; use --cpu v2 or host");
	/* a host with nothing at all: one line, and no more than fits */
	host.n = 0;
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_V3, 1, why), -ENOTSUP);
	CU_ASSERT(strlen(why) < VMM_WHY_MAX);
}

static void test_host(void)
{
	struct cpu_leaves host, l;
	char why[VMM_WHY_MAX];

	host_new(&host);
	leaf_of(&host, 1)->ecx &= ~(1u << 31);
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_HOST, 2100000, why), 0);
	CU_ASSERT_EQUAL(cpuid_find(&l, 1, 0)->ecx, 0xffffffff);
	CU_ASSERT_EQUAL(cpuid_find(&l, 7, 0)->edx, 0xffffffff);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0x40000000, 0)->eax, 0x40000010);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0x40000001, 0)->eax, 0x01007efb);
	CU_ASSERT_EQUAL(cpuid_find(&l, 0x40000010, 0)->eax, 2100000);
	CU_ASSERT_PTR_NULL(cpuid_find(&l, 0x1f, 0));
}

static void test_topology(void)
{
	static const unsigned counts[] = {1, 2, 3, 8, 64}, shifts[] = {0, 1, 2, 3, 6};
	struct cpu_leaves host, l;
	char why[VMM_WHY_MAX];

	host_new(&host);
	CU_ASSERT_EQUAL(cpuid_build(&l, &host, VMM_CPU_V2, 1, why), 0);
	for (unsigned i = 0; i < 5; i++)
		for (unsigned id = 0; id < counts[i]; id++) {
			cpuid_personalize(&l, id, counts[i]);
			CU_ASSERT_EQUAL(cpuid_find(&l, 1, 0)->ebx >> 24, id);
			CU_ASSERT_EQUAL(cpuid_find(&l, 1, 0)->ebx >> 16 & 0xff, counts[i]);
			CU_ASSERT_EQUAL(cpuid_find(&l, 0xb, 0)->ebx, 1);
			CU_ASSERT_EQUAL(cpuid_find(&l, 0xb, 0)->ecx, 0x100);
			CU_ASSERT_EQUAL(cpuid_find(&l, 0xb, 1)->eax, shifts[i]);
			CU_ASSERT_EQUAL(cpuid_find(&l, 0xb, 1)->ebx, counts[i]);
			CU_ASSERT_EQUAL(cpuid_find(&l, 0xb, 1)->edx, id);
			CU_ASSERT_EQUAL(cpuid_find(&l, 0xb, 2)->ebx, 0);
			/* the first level is each core's, the last everybody's */
			CU_ASSERT_EQUAL(cpuid_find(&l, 4, 0)->eax >> 14 & 0xfff, 0);
			CU_ASSERT_EQUAL(
				cpuid_find(&l, 4, 3)->eax >> 14 & 0xfff, (1u << shifts[i]) - 1);
			CU_ASSERT_EQUAL(cpuid_find(&l, 4, 3)->eax >> 26, (1u << shifts[i]) - 1);
			CU_ASSERT_EQUAL(cpuid_find(&l, 0x80000008, 0)->ecx & 0xff, counts[i] - 1);
		}
	CU_ASSERT(cpuid_find(&l, 1, 0)->edx & 1u << 28);
}

static void test_names(void)
{
	enum vmm_cpu cpu = VMM_CPU_HOST;

	CU_ASSERT_EQUAL(vmm_cpu_parse("v3", &cpu), 0);
	CU_ASSERT_EQUAL(cpu, VMM_CPU_V3);
	CU_ASSERT_EQUAL(vmm_cpu_parse("host", &cpu), 0);
	CU_ASSERT_EQUAL(cpu, VMM_CPU_HOST);
	CU_ASSERT_EQUAL(vmm_cpu_parse("v4", &cpu), -EINVAL);
	CU_ASSERT_EQUAL(vmm_cpu_parse("", &cpu), -EINVAL);
}

static const struct unit_case cases[] = {
	{"the same on two hosts", test_same_on_both},
	{"the same but for the vendor's name", test_other_vendor},
	{"levels", test_levels},
	{"hosts that lack something", test_refused},
	{"the host's own", test_host},
	{"topology", test_topology},
	{"names", test_names},
};

UNIT_MAIN("cpuid", cases)
