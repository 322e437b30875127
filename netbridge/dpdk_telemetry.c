/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the switch has to say on DPDK's telemetry socket (DPDK Programmer's Guide, "Telemetry
 * Library"): three commands, answered on that library's thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <rte_telemetry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netbridge/net_priv.h"

/* Commands cannot be withdrawn and their thread is never joined: it finds no switch, then. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct net_switch *published;

/* One array for the answer, freed by the caller. NULL: none (no switch, no memory). */
static struct net_switch_port_info *ports_copy(unsigned *n)
{
	struct net_switch_port_info *infos = NULL;

	*n = 0;
	pthread_mutex_lock(&lock);
	if (published)
		infos = calloc(NET_SWITCH_PORTS_MAX, sizeof(*infos));
	if (infos)
		*n = net_switch_ports_get(published, infos, NET_SWITCH_PORTS_MAX);
	pthread_mutex_unlock(&lock);
	if (*n > NET_SWITCH_PORTS_MAX)
		*n = NET_SWITCH_PORTS_MAX;
	return infos;
}

static int ports_list(const char *command, const char *params, struct rte_tel_data *d)
{
	struct net_switch_port_info *infos;
	unsigned n;

	(void)command;
	(void)params;
	rte_tel_data_start_array(d, RTE_TEL_STRING_VAL);
	infos = ports_copy(&n);
	for (unsigned i = 0; i < n; i++)
		rte_tel_data_add_array_string(d, infos[i].options.name);
	free(infos);
	return 0;
}

static void port_describe(struct rte_tel_data *d, const struct net_switch_port_info *info)
{
	const struct {
		const char *name;
		uint64_t value;
	} counters[] = {
		{"rx_packets", info->counters.rx_packets},
		{"rx_bytes", info->counters.rx_bytes},
		{"rx_dropped", info->counters.rx_dropped},
		{"tx_packets", info->counters.tx_packets},
		{"tx_bytes", info->counters.tx_bytes},
		{"tx_dropped", info->counters.tx_dropped},
		{"limited_in", info->limited_in},
		{"limited_out", info->limited_out},
		{"filtered", info->filtered},
		{"flooded", info->flooded},
		{"full", info->full},
	};

	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_string(d, "name", info->options.name);
	rte_tel_data_add_dict_string(d, "kind", info->kind);
	rte_tel_data_add_dict_int(d, "worker", (int)info->options.worker);
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		rte_tel_data_add_dict_u64(d, counters[i].name, counters[i].value);
}

static int port_show(const char *command, const char *params, struct rte_tel_data *d)
{
	struct net_switch_port_info *infos;
	int rc = -EINVAL;
	unsigned n;

	(void)command;
	if (!params)
		return -EINVAL;
	infos = ports_copy(&n);
	for (unsigned i = 0; i < n && rc; i++) {
		if (strcmp(infos[i].options.name, params) != 0)
			continue;
		port_describe(d, &infos[i]);
		rc = 0;
	}
	free(infos);
	return rc;
}

/* "02:00:00:00:00:01 vlan=1 port=a age=3", as many as an answer holds. */
static int macs_list(const char *command, const char *params, struct rte_tel_data *d)
{
	static struct net_switch_mac macs[RTE_TEL_MAX_ARRAY_ENTRIES];
	unsigned n = 0;

	(void)command;
	(void)params;
	rte_tel_data_start_array(d, RTE_TEL_STRING_VAL);
	pthread_mutex_lock(&lock);
	if (published)
		n = net_switch_macs_get(published, macs, RTE_TEL_MAX_ARRAY_ENTRIES);
	for (unsigned i = 0; i < n && i < RTE_TEL_MAX_ARRAY_ENTRIES; i++) {
		const uint8_t *m = macs[i].mac;
		char text[RTE_TEL_MAX_STRING_LEN];

		snprintf(text, sizeof(text),
			"%02x:%02x:%02x:%02x:%02x:%02x vlan=%u port=%s age=%" PRIu32, m[0], m[1],
			m[2], m[3], m[4], m[5], macs[i].vlan, macs[i].port, macs[i].age_s);
		rte_tel_data_add_array_string(d, text);
	}
	pthread_mutex_unlock(&lock);
	return 0;
}

int net_dpdk_publish(struct net_switch *sw)
{
	static bool registered;
	int rc = 0;

	pthread_mutex_lock(&lock);
	published = sw;
	if (sw && !registered) {
		rc = rte_telemetry_register_cmd(
			"/sluice/ports", ports_list, "Names of the switch's ports. No parameters.");
		if (!rc)
			rc = rte_telemetry_register_cmd("/sluice/port", port_show,
				"What a port is and has counted. Parameter: its name.");
		if (!rc)
			rc = rte_telemetry_register_cmd("/sluice/macs", macs_list,
				"Addresses learnt: VLAN, port, age in seconds. No parameters.");
		registered = !rc;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}
