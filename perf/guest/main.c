/* SPDX-License-Identifier: BSD-2-Clause */
/* The benchmark guest: does the jobs of its command line one after the other, then powers off. */
#include "perf/guest/guest_priv.h"

static struct result result;

static int idle_job(const struct job *j, struct result *r)
{
	uint32_t irqs = cpu_irq_total();
	uint64_t start, end;

	job_mark(j, MARK_BEGIN);
	start = clock_now();
	end = start + clock_from_ns(j->ms * 1000000);
	while (clock_now() < end)
		cpu_idle_until(cpu_irq_total(), end);
	r->cycles = clock_now() - start;
	job_mark(j, MARK_END);
	r->irqs = cpu_irq_total() - irqs;
	return 0;
}

void guest_main(void)
{
	unsigned failed = 0;
	struct job job;

	clock_init();
	print("clock: %lu kHz from %s\n", clock_khz(), clock_source());
	for (unsigned i = 0;; i++) {
		int r = job_get(i, &job);

		if (!r)
			break;
		memset(&result, 0, sizeof(result));
		hist_reset(&result.hist);
		if (r > 0)
			r = !strcmp(job.kind, "blk")   ? blk_job(&job, &result)
			    : !strcmp(job.kind, "net") ? net_job(&job, &result)
						       : idle_job(&job, &result);
		if (r < 0)
			failed++;
		else
			job_result(&job, &result);
	}
	print("SLUICE-DONE failed=%u\n", failed);
	power_off(0);
}
