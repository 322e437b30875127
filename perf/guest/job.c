/* SPDX-License-Identifier: BSD-2-Clause */
/* Jobs as the command line words them, and the lines that answer them. */
#include "perf/guest/guest_priv.h"

struct work_name {
	const char *kind;
	const char *name;
	enum job_work work;
};

static const struct work_name works[] = {
	{"blk", "randread", JOB_RANDREAD},
	{"blk", "randwrite", JOB_RANDWRITE},
	{"blk", "seqread", JOB_SEQREAD},
	{"blk", "seqwrite", JOB_SEQWRITE},
	{"blk", "verify", JOB_VERIFY},
	{"blk", "format", JOB_FORMAT},
	{"blk", "flushwrite", JOB_FLUSHWRITE},
	{"blk", "flushverify", JOB_FLUSHVERIFY},
	{"net", "tx", JOB_TX},
	{"net", "rx", JOB_RX},
	{"net", "echo", JOB_ECHO},
};

void job_error(const struct job *j, const char *fmt, ...)
{
	char why[200];
	va_list ap;

	va_start(ap, fmt);
	print_to_v(why, sizeof(why), fmt, ap);
	va_end(ap);
	print("SLUICE-ERROR job=%u %s\n", j->index, why);
}

static int number(const struct job *j, const char *text, const char *key, uint64_t fallback,
	uint64_t min, uint64_t max, uint64_t *out)
{
	char value[32];

	*out = fallback;
	if (!text_list_get(text, key, value, sizeof(value)))
		return 0;
	if (text_u64(value, out) || *out < min || *out > max) {
		job_error(j, "%s=%s is not a number from %lu to %lu", key, value, min, max);
		return -GUEST_EINVAL;
	}
	return 0;
}

static int number32(const struct job *j, const char *text, const char *key, uint32_t fallback,
	uint32_t min, uint32_t max, uint32_t *out)
{
	uint64_t v = 0;
	int r = number(j, text, key, fallback, min, max, &v);

	*out = (uint32_t)v;
	return r;
}

static int work_get(struct job *j, const char *text)
{
	char name[16] = "";

	text_list_get(text, "work", name, sizeof(name));
	for (unsigned i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
		if (strcmp(works[i].kind, j->kind) || strcmp(works[i].name, name))
			continue;
		j->work = works[i].work;
		return 0;
	}
	job_error(j, "work=%s is nothing a %s job does", name, j->kind);
	return -GUEST_EINVAL;
}

static void options_get(struct job *j)
{
	j->poll = clock_from_ns(cmdline_u64("poll_us", 50) * 1000);
	j->virtio = (struct frontend_virtio_options){
		.packed = cmdline_u64("packed", 1),
		.event_idx = cmdline_u64("event_idx", 1),
		.indirect = cmdline_u64("indirect", 1),
		.in_order = cmdline_u64("in_order", 1),
		.msix = cmdline_u64("msix", 1),
	};
}

int job_get(unsigned nth, struct job *j)
{
	const uint32_t forever = 0x7fffffff;
	char text[JOB_TEXT_MAX];
	bool blk;
	unsigned n = 0;

	if (!cmdline_word("job", nth, text, sizeof(text)))
		return 0;
	*j = (struct job){.index = nth};
	for (; text[n] && text[n] != ',' && n + 1 < sizeof(j->kind); n++)
		j->kind[n] = text[n];
	options_get(j);
	if (number(j, text, "ms", 500, 1, forever, &j->ms) ||
		number(j, text, "warm_ms", 50, 0, forever, &j->warm_ms))
		return -GUEST_EINVAL;
	if (!strcmp(j->kind, "idle"))
		return 1;
	blk = !strcmp(j->kind, "blk");
	if (!blk && strcmp(j->kind, "net")) {
		job_error(j, "%s is no kind of job; blk, net and idle are", j->kind);
		return -GUEST_EINVAL;
	}
	print_to(j->dev, sizeof(j->dev), blk ? "virtio-blk" : "virtio-net");
	text_list_get(text, "dev", j->dev, sizeof(j->dev));
	text_list_get(text, "transfer", j->transfer, sizeof(j->transfer));
	text_list_get(text, "gso", j->gso, sizeof(j->gso));
	if (work_get(j, text) || number32(j, text, "index", 0, 0, 255, &j->dev_index) ||
		number32(j, text, "depth", 32, 1, JOB_DEPTH_MAX, &j->depth) ||
		number32(j, text, "queues", 1, 1, 16, &j->queues) ||
		number(j, text, "span", 0, 0, ~0ull, &j->span) ||
		number32(j, text, "every", 64, 1, 1 << 20, &j->every) ||
		number32(j, text, "round", 0, 0, JOB_ROUND_MAX, &j->round) ||
		number(j, text, "rate", 0, 0, 1000000000, &j->rate))
		return -GUEST_EINVAL;
	if (blk ? number32(j, text, "size", 4096, 512, 1 << 20, &j->size)
		: number32(j, text, "size", 64, PATTERN_FRAME_MIN, PATTERN_FRAME_MAX, &j->size))
		return -GUEST_EINVAL;
	if (blk && j->size % 512) {
		job_error(j, "size=%u is no multiple of 512", j->size);
		return -GUEST_EINVAL;
	}
	return 1;
}

/* A 32-bit write: the harness takes its figures while this CPU waits for it. */
void job_mark(const struct job *j, unsigned mark)
{
	io_out32(MARK_PORT, j->index << 8 | mark);
}

void job_result(const struct job *j, const struct result *r)
{
	const struct hist *h = &r->hist;

	print("SLUICE-RESULT job=%u requests=%lu bytes=%lu ns=%lu errors=%lu verified=%lu irqs=%lu "
	      "doorbells=%lu samples=%lu p50_ns=%lu p99_ns=%lu p999_ns=%lu min_ns=%lu max_ns=%lu "
	      "lost=%lu "
	      "foreign=%lu\n",
		j->index, r->requests, r->bytes, clock_to_ns(r->cycles), r->errors, r->verified,
		r->irqs, r->doorbells, h->samples, hist_quantile_ns(h, 50000),
		hist_quantile_ns(h, 99000), hist_quantile_ns(h, 99900),
		h->samples ? clock_to_ns(h->min) : 0, clock_to_ns(h->max), r->lost, r->foreign);
	hist_print(h, j->index);
}
