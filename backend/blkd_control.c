/* SPDX-License-Identifier: BSD-2-Clause */
/* What sluice-blkd tells by its control socket: its exports, and how busy they are. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backend/blkd_priv.h"

struct facts {
	struct vhost_server_counters server;
	struct device_counters device; /* of the connection there is; else zeroes */
	uint64_t features;
	bool connected;
};

static void facts_device(void *ctx, struct split_device *d)
{
	struct facts *f = ctx;

	f->connected = true;
	f->features = d->driver_features;
	/* each field by itself: they are read while they are written */
#define COPY(name) atomic_store(&f->device.name, counter_get(&d->counters.name))
	COPY(requests);
	COPY(bytes);
	COPY(doorbells);
	COPY(interrupts);
	COPY(interrupts_suppressed);
	COPY(system_calls);
	COPY(errors);
	COPY(malformed);
#undef COPY
}

static void facts_get(struct blkd_export *e, struct facts *f)
{
	memset(f, 0, sizeof(*f));
	vhost_server_counters_get(e->server, &f->server);
	vhost_server_device(e->server, 0, facts_device, f);
}

static const char *image_name(const struct blkd_export *e)
{
	return e->opts->image.path ? e->opts->image.path : "fd";
}

static struct cJSON *export_json(struct blkd_export *e, unsigned i)
{
	struct cJSON *o = cJSON_CreateObject();
	struct blk_info info;
	struct facts f;

	if (!o)
		return NULL;
	blk_info_get(e->image, &info);
	facts_get(e, &f);
	cJSON_AddNumberToObject(o, "id", i);
	cJSON_AddStringToObject(o, "socket", e->opts->socket ? e->opts->socket : "");
	cJSON_AddStringToObject(o, "path", image_name(e));
	cJSON_AddNumberToObject(o, "size", (double)info.size);
	cJSON_AddStringToObject(o, "format", blk_format_name(info.format));
	cJSON_AddStringToObject(o, "engine", blk_engine_name(info.engine));
	cJSON_AddBoolToObject(o, "direct", info.direct);
	cJSON_AddBoolToObject(o, "readonly", info.readonly);
	cJSON_AddNumberToObject(o, "queues", e->opts->queues);
	cJSON_AddBoolToObject(o, "connected", f.connected);
	cJSON_AddStringToObject(
		o, "ring", f.features & VIRTIO_BIT(VIRTIO_F_RING_PACKED) ? "packed" : "split");
	cJSON_AddNumberToObject(o, "connections", (double)f.server.connections);
	cJSON_AddNumberToObject(o, "refused", (double)f.server.refused);
	cJSON_AddNumberToObject(o, "resubmitted", (double)f.server.resubmitted);
	cJSON_AddNumberToObject(o, "requests", (double)counter_get(&f.device.requests));
	cJSON_AddNumberToObject(o, "bytes", (double)counter_get(&f.device.bytes));
	cJSON_AddNumberToObject(o, "errors", (double)counter_get(&f.device.errors));
	return o;
}

static void exports_answer(void *ctx, struct control_request *req)
{
	struct blkd *b = ctx;
	unsigned long n;
	char *end;

	if (*req->path) {
		errno = 0;
		n = strtoul(req->path, &end, 10);
		if (errno || *end || *req->path < '0' || *req->path > '9' || n >= b->nexports) {
			control_fault(req, 404, "export %.40s: there are 0 to %u", req->path,
				b->nexports - 1);
			return;
		}
		req->json = export_json(&b->exports[n], (unsigned)n);
	} else {
		req->json = cJSON_CreateArray();
		for (unsigned i = 0; i < b->nexports; i++)
			cJSON_AddItemToArray(req->json, export_json(&b->exports[i], i));
	}
	req->status = 200;
}

/* ------------------------------------------------------------------ metrics */

static uint64_t metric_value(const struct facts *f, unsigned which)
{
	const uint64_t values[] = {
		f->connected,
		f->server.connections,
		f->server.refused,
		f->server.resubmitted,
		counter_get(&f->device.requests),
		counter_get(&f->device.bytes),
		counter_get(&f->device.doorbells),
		counter_get(&f->device.interrupts),
		counter_get(&f->device.interrupts_suppressed),
		counter_get(&f->device.system_calls),
		counter_get(&f->device.errors),
		counter_get(&f->device.malformed),
	};

	return values[which];
}

/* In the order of metric_value(). A device's counters begin anew with every connection. */
static const struct {
	const char *name, *type, *help;
} metrics[] = {
	{"connected", "gauge", "a front-end is connected"},
	{"connections_total", "counter", "front-ends accepted"},
	{"refused_total", "counter", "connections closed for a breach of the protocol"},
	{"resubmitted_total", "counter", "requests of a dead back-end, done again"},
	{"requests", "gauge", "requests of this connection"},
	{"bytes", "gauge", "bytes read and written"},
	{"doorbells", "gauge", "doorbells heard"},
	{"interrupts", "gauge", "interrupts raised"},
	{"interrupts_suppressed", "gauge", "interrupts not wanted"},
	{"system_calls", "gauge", "system calls for this device alone"},
	{"errors", "gauge", "requests failed"},
	{"malformed", "gauge", "requests that made no sense"},
};

static void metrics_answer(void *ctx, struct control_request *req)
{
	struct blkd *b = ctx;
	struct control_text t = {0};
	struct facts *f = calloc(b->nexports, sizeof(*f));

	if (!f) {
		control_fault(req, 500, "no memory");
		return;
	}
	for (unsigned i = 0; i < b->nexports; i++)
		facts_get(&b->exports[i], &f[i]);
	for (unsigned m = 0; m < sizeof(metrics) / sizeof(metrics[0]); m++) {
		control_text_add(&t, "# HELP sluice_blkd_%s %s\n# TYPE sluice_blkd_%s %s\n",
			metrics[m].name, metrics[m].help, metrics[m].name, metrics[m].type);
		for (unsigned i = 0; i < b->nexports; i++)
			control_text_add(&t, "sluice_blkd_%s{export=\"%u\"} %" PRIu64 "\n",
				metrics[m].name, i, metric_value(&f[i], m));
	}
	free(f);
	if (t.failed) {
		free(t.data);
		control_fault(req, 500, "no memory");
		return;
	}
	req->status = 200;
	req->text = t.data;
}

const struct control_route blkd_routes[] = {
	{"GET", "/exports", exports_answer},
	{"GET", "/metrics", metrics_answer},
	{0},
};
