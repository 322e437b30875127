/* SPDX-License-Identifier: BSD-2-Clause */
/* The result for programs: one object, described field by field in perf/README.md. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "perf/bench_priv.h"

#define JSON_SCHEMA_VERSION 1

static void number_or_null(cJSON *o, const char *key, double v)
{
	if (v < 0)
		cJSON_AddNullToObject(o, key);
	else
		cJSON_AddNumberToObject(o, key, v);
}

static cJSON *json_result(const struct bench_result *r)
{
	const struct bench_work *w = &r->work;
	struct bench_summary s;
	cJSON *o = cJSON_CreateObject();

	bench_summarize(r, &s);
	cJSON_AddStringToObject(o, "device", r->contender->device);
	if (r->contender->split)
		cJSON_AddStringToObject(o, "ring", r->contender->ring);
	else
		cJSON_AddNullToObject(o, "ring");
	if (r->contender->net)
		cJSON_AddNullToObject(o, "engine");
	else
		cJSON_AddStringToObject(o, "engine", s.engine);
	cJSON_AddStringToObject(o, "transfer", r->contender->transfer);
	if (r->contender->change)
		cJSON_AddStringToObject(o, "without", r->contender->label);
	cJSON_AddStringToObject(o, "work", w->work);
	if (r->contender->net)
		cJSON_AddStringToObject(o, "port", w->port == BENCH_PORT_TAP ? "tap" : "memory");
	cJSON_AddNumberToObject(o, "size_bytes", w->size);
	cJSON_AddNumberToObject(o, "depth", w->depth);
	cJSON_AddNumberToObject(o, "queues", w->queues);
	if (r->contender->net)
		cJSON_AddNullToObject(o, "direct");
	else
		cJSON_AddBoolToObject(o, "direct", s.direct);
	cJSON_AddNumberToObject(o, "requests_per_s", s.per_s);
	cJSON_AddNumberToObject(o, "bytes_per_s", s.bytes_per_s);
	cJSON_AddNumberToObject(o, "min_per_s", s.min_per_s);
	cJSON_AddNumberToObject(o, "max_per_s", s.max_per_s);
	cJSON_AddNumberToObject(o, "runs", s.runs);
	number_or_null(o, "p50_us", s.p50_us);
	number_or_null(o, "p99_us", s.p99_us);
	number_or_null(o, "p999_us", s.p999_us);
	cJSON_AddNumberToObject(o, "samples", (double)s.latency_samples);
	number_or_null(o, "exits_per_request", s.runs ? s.exits : -1);
	number_or_null(o, "doorbells_per_request", s.runs ? s.doorbells : -1);
	number_or_null(o, "irqs_per_request", s.runs ? s.interrupts : -1);
	number_or_null(o, "syscalls_per_request", s.runs ? s.system_calls : -1);
	number_or_null(o, "cpu_us_per_request", s.runs ? s.cpu_us : -1);
	cJSON_AddNumberToObject(o, "requests", (double)s.requests);
	cJSON_AddNumberToObject(o, "errors", (double)s.errors);
	cJSON_AddNumberToObject(o, "verified", (double)s.verified);
	if (s.note)
		cJSON_AddStringToObject(o, "note", s.note);
	return o;
}

static cJSON *json_baseline(const struct bench_baseline *f)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "program", f->program);
	cJSON_AddStringToObject(o, "engine", f->engine);
	cJSON_AddStringToObject(o, "work", f->work.work);
	cJSON_AddNumberToObject(o, "size_bytes", f->work.size);
	cJSON_AddNumberToObject(o, "depth", f->work.depth);
	number_or_null(o, "requests_per_s", f->runs ? f->per_s : -1);
	number_or_null(o, "min_per_s", f->runs ? f->min_per_s : -1);
	number_or_null(o, "max_per_s", f->runs ? f->max_per_s : -1);
	cJSON_AddNumberToObject(o, "runs", f->runs);
	if (f->note[0])
		cJSON_AddStringToObject(o, "note", f->note);
	return o;
}

int bench_json_write(const struct bench *b, const char *path, char why[VMM_WHY_MAX])
{
	struct bench_fact facts[24];
	unsigned n = bench_facts(b, facts, 24);
	cJSON *root = cJSON_CreateObject(), *host, *list;
	char *text;
	FILE *f;
	int err = 0;

	cJSON_AddNumberToObject(root, "schema_version", JSON_SCHEMA_VERSION);
	host = cJSON_AddObjectToObject(root, "host");
	for (unsigned i = 0; i < n; i++)
		cJSON_AddStringToObject(host, facts[i].key, facts[i].value);
	list = cJSON_AddArrayToObject(root, "results");
	for (unsigned i = 0; i < b->nresults; i++)
		cJSON_AddItemToArray(list, json_result(&b->results[i]));
	list = cJSON_AddArrayToObject(root, "baselines");
	for (unsigned i = 0; i < b->nbaselines; i++)
		cJSON_AddItemToArray(list, json_baseline(&b->baselines[i]));
	host = cJSON_AddObjectToObject(root, "monitor");
	number_or_null(host, "first_output_ms", b->monitor.valid ? b->monitor.first_output_ms : -1);
	number_or_null(host, "resident_kib", b->monitor.valid ? b->monitor.resident_kib : -1);
	number_or_null(
		host, "idle_cpu_percent", b->monitor.valid ? b->monitor.idle_cpu_percent : -1);
	list = cJSON_AddArrayToObject(root, "left_out");
	for (unsigned i = 0; i < b->nleft_out; i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(b->left_out[i]));
	text = cJSON_Print(root);
	cJSON_Delete(root);
	if (!text)
		return -ENOMEM;
	f = strcmp(path, "-") ? fopen(path, "we") : stdout;
	if (!f || fputs(text, f) < 0 || fputc('\n', f) < 0 || fflush(f))
		err = -errno;
	if (f && f != stdout && fclose(f) && !err)
		err = -errno;
	free(text);
	if (err)
		snprintf(why, VMM_WHY_MAX, "--json %s: %s", path, strerror(-err));
	return err;
}
