/* SPDX-License-Identifier: BSD-2-Clause */
/* The host the figures come from: without it a figure means nothing. */
#include <inttypes.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "perf/bench_priv.h"

struct facts {
	struct bench_fact *out;
	unsigned n, max;
};

static void fact_add(struct facts *f, const char *key, const char *value)
{
	if (f->n == f->max)
		return;
	snprintf(f->out[f->n].key, sizeof(f->out[f->n].key), "%s", key);
	snprintf(f->out[f->n].value, sizeof(f->out[f->n].value), "%s", value);
	f->n++;
}

static void cpu_model(char *out, size_t size)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[256];

	snprintf(out, size, "unknown");
	while (f && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) || !colon)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(out, size, "%s", colon + 2);
		break;
	}
	if (f)
		fclose(f);
}

static void fact_image(const struct bench *b, struct facts *f)
{
	struct blk_options o = {
		.path = b->opts.image ? b->opts.image : b->image_path, .fd = -1, .readonly = true};
	struct blk_image *image;
	struct blk_info info;
	char why[BLK_WHY_MAX], text[160];

	if (!o.path[0] || blk_open(&image, &o, why))
		return;
	blk_info_get(image, &info);
	blk_close(image);
	snprintf(text, sizeof(text), "%" PRIu64 " MiB", info.size >> 20);
	fact_add(f, "image", text);
	fact_add(f, "file_system", info.file_system);
	fact_add(f, "engine", blk_engine_name(info.engine));
	fact_add(f, "direct", info.direct ? "on" : "off");
	if (info.note[0])
		fact_add(f, "engine_note", info.note);
}

unsigned bench_facts(const struct bench *b, struct bench_fact *out, unsigned max)
{
	struct facts f = {.out = out, .max = max};
	struct kvm_facts kvm;
	struct utsname u;
	struct tm tm;
	time_t now = time(NULL);
	char text[160], why[VMM_WHY_MAX];

	fact_add(&f, "sluice", SLUICE_VERSION);
	if (gmtime_r(&now, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		fact_add(&f, "date", text);
	cpu_model(text, sizeof(text));
	fact_add(&f, "cpu", text);
	snprintf(text, sizeof(text), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	fact_add(&f, "cpus", text);
	snprintf(text, sizeof(text), "%ld",
		sysconf(_SC_PHYS_PAGES) / 1024 * (sysconf(_SC_PAGESIZE) / 1024));
	fact_add(&f, "memory_mib", text);
	if (!uname(&u)) {
		snprintf(text, sizeof(text), "%.60s %.90s", u.sysname, u.release);
		fact_add(&f, "kernel", text);
	}
	if (!kvm_facts_get(&kvm, why)) {
		fact_add(&f, "kvm", kvm.flavour);
		fact_add(&f, "kvm_ring0", kvm.interprets_ring0 ? "interpreted" : "native");
	} else {
		fact_add(&f, "kvm", why);
	}
	fact_image(b, &f);
	return f.n;
}
