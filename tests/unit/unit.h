/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every unit test shares: one suite, a table of cases, a summary line that the runner adds up.
 * Cases that cannot run here call unit_skip() with the reason and return.
 */
#ifndef UNIT_H
#define UNIT_H

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>

struct unit_case {
	const char *name;
	void (*run)(void);
};

static unsigned unit_skipped;

static inline void unit_skip(const char *why)
{
	unit_skipped++;
	printf(" SKIP: %s ", why);
}

/* Runs the cases in order; the exit status for main(). A case whose name is in argv[1..] alone runs
 * alone. */
static inline int unit_main(const char *suite, const struct unit_case *cases, size_t n)
{
	CU_pSuite s;
	unsigned failed, run;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	s = CU_add_suite(suite, NULL, NULL);
	if (!s)
		return 1;
	for (size_t i = 0; i < n; i++)
		if (!CU_add_test(s, cases[i].name, cases[i].run))
			return 1;
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	failed = CU_get_number_of_tests_failed();
	run = CU_get_number_of_tests_run();
	CU_cleanup_registry();
	printf("UNIT %s passed=%u failed=%u skipped=%u\n", suite, run - failed - unit_skipped,
		failed, unit_skipped);
	return failed != 0 || run != n;
}

#define UNIT_MAIN(suite, cases)                                                                    \
	int main(void)                                                                             \
	{                                                                                          \
		return unit_main(suite, cases, sizeof(cases) / sizeof((cases)[0]));                \
	}

#endif
