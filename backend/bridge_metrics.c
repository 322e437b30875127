/* SPDX-License-Identifier: BSD-2-Clause */
/* The metrics of sluice-bridge, in Prometheus' text format. */
#include <inttypes.h>
#include <stdlib.h>

#include "backend/backend_priv.h"
#include "backend/bridge_priv.h"

static void metric_begin(
	struct control_text *t, const char *name, const char *type, const char *help)
{
	control_text_add(t, "# HELP sluice_bridge_%s %s\n# TYPE sluice_bridge_%s %s\n", name, help,
		name, type);
}

/* ------------------------------------------------------------------ ports */

#define PORT_METRIC(field) offsetof(struct net_switch_port_info, field)

static const struct {
	const char *name, *help;
	size_t offset; /* of a uint64_t */
} port_metrics[] = {
	{"rx_packets_total", "frames from the port", PORT_METRIC(counters.rx_packets)},
	{"rx_bytes_total", "bytes from the port", PORT_METRIC(counters.rx_bytes)},
	{"rx_dropped_total", "frames from the port that were too large",
		PORT_METRIC(counters.rx_dropped)},
	{"tx_packets_total", "frames to the port", PORT_METRIC(counters.tx_packets)},
	{"tx_bytes_total", "bytes to the port", PORT_METRIC(counters.tx_bytes)},
	{"tx_dropped_total", "frames to the port that were dropped",
		PORT_METRIC(counters.tx_dropped)},
	{"port_system_calls_total", "system calls for the port",
		PORT_METRIC(counters.system_calls)},
	{"limited_in_total", "frames from the port over its rate", PORT_METRIC(limited_in)},
	{"limited_out_total", "frames to the port over its rate", PORT_METRIC(limited_out)},
	{"filtered_total", "frames kept back by VLAN or isolation", PORT_METRIC(filtered)},
	{"flooded_total", "frames to addresses that were not known", PORT_METRIC(flooded)},
	{"full_total", "frames the port had no room for", PORT_METRIC(full)},
};

static void ports_add(struct control_text *t, const struct net_switch_port_info *infos, unsigned n)
{
	for (unsigned m = 0; m < sizeof(port_metrics) / sizeof(port_metrics[0]); m++) {
		metric_begin(t, port_metrics[m].name, "counter", port_metrics[m].help);
		for (unsigned i = 0; i < n; i++)
			control_text_add(t, "sluice_bridge_%s{port=\"%s\"} %" PRIu64 "\n",
				port_metrics[m].name, infos[i].options.name,
				*(const uint64_t *)((const char *)&infos[i] +
						    port_metrics[m].offset));
	}
}

/* ------------------------------------------------------------------ vhost-user devices */

struct device_facts {
	uint64_t doorbells, interrupts, suppressed, malformed;
	struct histogram latency; /* of all queues */
};

static void device_look(void *ctx, struct split_device *d)
{
	struct device_facts *f = ctx;

	f->doorbells = counter_get(&d->counters.doorbells);
	f->interrupts = counter_get(&d->counters.interrupts);
	f->suppressed = counter_get(&d->counters.interrupts_suppressed);
	f->malformed = counter_get(&d->counters.malformed);
	for (unsigned q = 0; q < d->nqueues; q++) {
		f->latency.count += d->queues[q].latency.count;
		for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
			f->latency.buckets[i] += d->queues[q].latency.buckets[i];
	}
}

static void vhost_line(struct control_text *t, const char *name, const char *port, uint64_t v)
{
	control_text_add(t, "sluice_bridge_%s{port=\"%s\"} %" PRIu64 "\n", name, port, v);
}

/* A device's counters begin anew with every connection: gauges. */
static void vhost_add(struct control_text *t, struct bridge *b)
{
	static const struct {
		const char *name, *type, *help;
	} metrics[] = {
		{"connected", "gauge", "a front-end is connected"},
		{"connections_total", "counter", "front-ends accepted"},
		{"refused_total", "counter", "connections closed for a breach of the protocol"},
		{"doorbells", "gauge", "doorbells heard of this front-end"},
		{"interrupts", "gauge", "interrupts raised"},
		{"interrupts_suppressed", "gauge", "interrupts not wanted"},
		{"malformed", "gauge", "descriptors that made no sense"},
		{"latency_p50_ns", "gauge", "from a frame's arrival to its end, half of them"},
		{"latency_p99_ns", "gauge", "99 of a hundred"},
	};

	for (unsigned m = 0; m < sizeof(metrics) / sizeof(metrics[0]); m++) {
		metric_begin(t, metrics[m].name, metrics[m].type, metrics[m].help);
		for (struct bridge_port *p = b->ports; p; p = p->next) {
			struct vhost_server_counters c;
			struct device_facts f = {0};

			if (!p->server)
				continue;
			vhost_server_counters_get(p->server, &c);
			vhost_server_device(p->server, 0, device_look, &f);
			const uint64_t values[] = {c.connected, c.connections, c.refused,
				f.doorbells, f.interrupts, f.suppressed, f.malformed,
				histogram_percentile_ns(&f.latency, 0.5),
				histogram_percentile_ns(&f.latency, 0.99)};

			vhost_line(t, metrics[m].name, p->spec.sw.name, values[m]);
		}
	}
}

/* ------------------------------------------------------------------ workers */

static const struct {
	const char *name, *help;
	size_t offset;
} worker_metrics[] = {
	{"worker_system_calls_total", "system calls of the worker",
		offsetof(struct io_thread_counters, system_calls)},
	{"worker_sleeps_total", "times it slept", offsetof(struct io_thread_counters, sleeps)},
	{"worker_wakeups_total", "times it was woken by another thread",
		offsetof(struct io_thread_counters, wakeups)},
	{"worker_poll_hits_total", "polling windows in which work came",
		offsetof(struct io_thread_counters, poll_hits)},
	{"worker_poll_misses_total", "polling windows that ended in sleep",
		offsetof(struct io_thread_counters, poll_misses)},
	{"worker_idle_ns_total", "time it polled for nothing",
		offsetof(struct io_thread_counters, idle_ns)},
	{"worker_cpu_ns_total", "processor time", offsetof(struct io_thread_counters, cpu_ns)},
};

static void workers_add(struct control_text *t, struct bridge *b)
{
	for (unsigned m = 0; m < sizeof(worker_metrics) / sizeof(worker_metrics[0]); m++) {
		metric_begin(t, worker_metrics[m].name, "counter", worker_metrics[m].help);
		for (unsigned i = 0; i < b->nworkers; i++) {
			struct io_thread_counters c;

			io_thread_counters_get(b->workers[i].io, &c);
			control_text_add(t, "sluice_bridge_%s{worker=\"%u\"} %" PRIu64 "\n",
				worker_metrics[m].name, i,
				*(const uint64_t *)((const char *)&c + worker_metrics[m].offset));
		}
	}
}

void bridge_metrics_answer(void *ctx, struct control_request *req)
{
	struct bridge *b = ctx;
	struct control_text t = {0};
	unsigned n = 0;
	struct net_switch_port_info *infos = bridge_infos_get(b, &n);

	if (infos) {
		metric_begin(&t, "ports", "gauge", "ports there are");
		control_text_add(&t, "sluice_bridge_ports %u\n", b->nports);
		metric_begin(&t, "macs", "gauge", "addresses that are known");
		control_text_add(
			&t, "sluice_bridge_macs %u\n", net_switch_macs_get(b->sw, NULL, 0));
		ports_add(&t, infos, n);
		vhost_add(&t, b);
		workers_add(&t, b);
	}
	free(infos);
	if (!infos || t.failed) {
		free(t.data);
		control_fault(req, 500, "no memory");
		return;
	}
	req->text = t.data;
}
