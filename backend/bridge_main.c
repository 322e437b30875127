/* SPDX-License-Identifier: BSD-2-Clause */
/* sluice-bridge: from start to end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/backend_priv.h"
#include "backend/bridge_priv.h"

static int switch_open(struct bridge *b, char *why)
{
	const struct net_dpdk_options dpdk = {
		.program = "sluice-bridge",
		.no_huge = b->opts->no_huge,
		.memory_mib = b->opts->memory_mib,
		.file_prefix = b->opts->file_prefix,
		.telemetry = b->opts->telemetry,
	};
	const struct net_switch_options sw = {
		.workers = b->opts->workers,
		.macs = b->opts->macs,
		.ageing_s = b->opts->mac_age_s,
		.wake = bridge_worker_wake,
		.ctx = b,
	};
	int rc = net_dpdk_init(&dpdk, why);

	if (rc)
		return rc;
	b->dpdk = true;
	rc = net_switch_create(&b->sw, &sw, why);
	if (!rc && b->opts->telemetry) {
		rc = net_dpdk_publish(b->sw);
		if (rc)
			backend_why(why, "--telemetry: DPDK takes no commands");
	}
	return rc ? rc : bridge_workers_start(b, why);
}

static int bridge_open(struct bridge *b)
{
	char why[BACKEND_WHY_MAX] = "";
	int rc = switch_open(b, why);

	if (rc)
		return bridge_fail(program_status_of(rc), "%s", why);
	for (unsigned i = 0; i < b->opts->nports; i++) {
		rc = bridge_port_add(b, &b->opts->ports[i], NULL, why);
		if (rc)
			return bridge_fail(program_status_of(rc), "--port %s", why);
	}
	if (b->opts->control)
		rc = control_server_create(&b->control, b->opts->control, bridge_routes, b, why);
	if (rc)
		return bridge_fail(program_status_of(rc), "--%s", why);
	if (b->opts->pidfile)
		rc = program_pidfile_write(b->opts->pidfile);
	if (rc)
		return bridge_fail(program_status_of(rc), "--pidfile %.100s: %s", b->opts->pidfile,
			strerror(-rc));
	b->pidfile = b->opts->pidfile != NULL;
	return PROGRAM_OK;
}

static void bridge_close(struct bridge *b)
{
	control_server_destroy(b->control);
	while (b->ports)
		bridge_port_remove(b, b->ports);
	bridge_workers_stop(b);
	net_dpdk_publish(NULL);
	if (b->sw)
		net_switch_destroy(b->sw);
	if (b->dpdk)
		net_dpdk_exit();
	if (b->pidfile)
		unlink(b->opts->pidfile);
}

int main(int argc, char **argv)
{
	static struct bridge_options opts; /* large */
	static struct bridge b;
	sigset_t set;
	bool done;
	int number, status = bridge_options_parse(&opts, argc, argv, &done);

	if (status || done)
		return status;
	program_signals_block(&set);
	b.opts = &opts;
	status = bridge_open(&b);
	if (!status) {
		fprintf(stderr, "sluice-bridge: ready\n");
		while (sigwait(&set, &number))
			;
		fprintf(stderr, "sluice-bridge: stopped by SIG%s\n", sigabbrev_np(number));
	}
	bridge_close(&b);
	return status;
}
