/* SPDX-License-Identifier: BSD-2-Clause */
/* DPDK's environment (EAL), as a part of a program that has threads of its own. */
#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "netbridge/net_priv.h"

#define ARGS_MAX    32
#define NO_HUGE_MIB 256u
#define RUNTIME_DIR "/var/run/dpdk"
#define PREFIX_MAX  64

static struct {
	bool up;
	bool files; /* has a folder of its own */
	char prefix[PREFIX_MAX];
	char *args[ARGS_MAX]; /* EAL may look at them for as long as it lives */
	int nargs;
} dpdk;

struct arguments {
	const char *v[ARGS_MAX];
	int n;
};

static void argument(struct arguments *a, const char *text)
{
	if (a->n < ARGS_MAX - 1)
		a->v[a->n++] = text;
}

static int first_cpu(const cpu_set_t *set)
{
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET((size_t)i, set))
			return i;
	return 0;
}

static int init_fail(const struct net_dpdk_options *o, int err, char *why)
{
	if (!o->no_huge)
		return net_why(why, -ENOMEM,
			"DPDK finds no huge pages (%s): reserve some, or use --no-huge",
			strerror(err));
	return net_why(why, -err, "DPDK does not start: %s", strerror(err));
}

/* The main lcore is one that the process may use, and is left as it was: workers are others. */
int net_dpdk_init(const struct net_dpdk_options *o, char why[NET_WHY_MAX])
{
	struct arguments a = {0};
	char core[16], memory[16], *argv[ARGS_MAX];
	cpu_set_t before;
	int rc;

	if (dpdk.up)
		return net_why(why, -EALREADY, "DPDK has been started");
	sched_getaffinity(0, sizeof(before), &before);
	snprintf(core, sizeof(core), "%d", first_cpu(&before));
	snprintf(memory, sizeof(memory), "%u", o->memory_mib ? o->memory_mib : NO_HUGE_MIB);
	snprintf(
		dpdk.prefix, sizeof(dpdk.prefix), "%s", o->file_prefix ? o->file_prefix : "sluice");
	argument(&a, o->program ? o->program : "sluice");
	argument(&a, "-l");
	argument(&a, core);
	/* no device by itself, any when it is named: a list of one that there is not */
	argument(&a, "--allow=ffff:ff:1f.7");
	argument(&a, "--log-level=*:critical");
	if (o->no_huge)
		argument(&a, "--no-huge");
	if (o->no_huge || o->memory_mib) {
		argument(&a, "-m");
		argument(&a, memory);
	}
	if (o->telemetry) {
		argument(&a, "--file-prefix");
		argument(&a, dpdk.prefix);
	} else {
		argument(&a, o->no_huge ? "--no-shconf" : "--in-memory");
		argument(&a, "--no-telemetry");
	}
	for (int i = 0; o->args && o->args[i]; i++)
		argument(&a, o->args[i]);
	/* EAL permutes its vector */
	for (dpdk.nargs = 0; dpdk.nargs < a.n; dpdk.nargs++)
		argv[dpdk.nargs] = dpdk.args[dpdk.nargs] = strdup(a.v[dpdk.nargs]);
	argv[a.n] = NULL;
	rte_log_set_global_level(RTE_LOG_CRIT);
	rc = rte_eal_init(a.n, argv);
	sched_setaffinity(0, sizeof(before), &before);
	if (rc < 0)
		return init_fail(o, rte_errno ? rte_errno : EINVAL, why);
	dpdk.up = true;
	dpdk.files = o->telemetry;
	return 0;
}

void net_dpdk_exit(void)
{
	char path[sizeof(RUNTIME_DIR) + PREFIX_MAX + 64];
	static const char *const names[] = {"config", "hugepage_info", "fbarray_memzone",
		"mp_socket", "dpdk_telemetry.v2", "telemetry"};

	if (!dpdk.up)
		return;
	rte_eal_cleanup();
	while (dpdk.nargs)
		free(dpdk.args[--dpdk.nargs]);
	dpdk.up = false;
	if (!dpdk.files)
		return;
	/* what it leaves of its folder is nobody's */
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), RUNTIME_DIR "/%s/%s", dpdk.prefix, names[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), RUNTIME_DIR "/%s", dpdk.prefix);
	rmdir(path);
}

int net_dpdk_thread_enter(void)
{
	return rte_thread_register() ? -rte_errno : 0;
}

void net_dpdk_thread_leave(void)
{
	rte_thread_unregister();
}
