/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of sluice-bridge. Every mistake is one line that names the option and what would do.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend_priv.h"
#include "backend/bridge_priv.h"

#define POLL_US_DEFAULT 500u

static const char help[] =
	"Usage: sluice-bridge --port KIND[,KEY=VALUE]... [OPTION]...\n"
	"\n"
	"A learning Ethernet switch on DPDK for virtual machines (vhost-user) and the\n"
	"host's networks. --port may be given many times; more can be added, changed and\n"
	"taken away by the control socket. --key value and --key=value are the same.\n"
	"\n"
	"  --port KIND[,KEY=VALUE]...  a port, see below\n"
	"  --workers N          threads that forward, 1 to 32 (1)\n"
	"  --cores N,N,...      the processors they run on, one worker on each\n"
	"  --no-huge            no huge pages (slower; for hosts that have none)\n"
	"  --memory MIB         of packet buffers\n"
	"  --mac-age S          seconds after which an address is forgotten (300)\n"
	"  --macs N             addresses that are remembered (16384)\n"
	"  --poll-us N          longest time a worker polls before it sleeps, in\n"
	"                       microseconds; 0: it never polls (500)\n"
	"  --no-io-uring        workers wait with epoll instead\n"
	"  --control PATH       a control socket, HTTP: /ports, /macs, /metrics, /version\n"
	"  --telemetry          DPDK's telemetry socket; its commands /sluice/ports,\n"
	"                       /sluice/port,NAME and /sluice/macs are the switch's\n"
	"  --file-prefix NAME   of DPDK's files in its run-time folder (sluice-bridge)\n"
	"  --pidfile FILE       written when all ports are there, removed at the end\n"
	"  --version, --help\n"
	"\n"
	"Kinds of port:\n"
	"  vhost-user=PATH      a virtual machine's; the socket is made with mode 0600\n"
	"                       mode=connect: the virtual machine listens;\n"
	"                       ring=split: packed rings are not offered\n"
	"  tap=NAME             a tap of the kernel, made when there is none\n"
	"  af_xdp=IFACE         an interface of the kernel, by an AF_XDP socket\n"
	"  dpdk,DEVICE[,ARGS]   a device of DPDK: net_tap0,iface=x or 0000:03:00.0\n"
	"  mem=sink|source|echo no network, for measuring\n"
	"\n"
	"Keys of every port (a comma inside a value is written ,,):\n"
	"  name=TEXT            31 letters, digits, - _ . (the interface's, or portN)\n"
	"  queues=N             queue pairs, 1 to 16 (1)\n"
	"  worker=N             whose it is (in turn)\n"
	"  vlan=N               untagged frames of this VLAN (1)\n"
	"  trunk=N+N...|all     tagged frames of these VLANs; native=N: untagged ones\n"
	"                       belong to this\n"
	"  isolated=on|off      no frames to or from other isolated ports (off)\n"
	"  rate-in=, rate-out=  bits a second from and to the port: 100M; 0: no limit\n"
	"  pps-in=, pps-out=    the same for frames\n"
	"\n"
	"SIGTERM and SIGINT end it cleanly. Exit status: 0 ended so, 1 the host would\n"
	"not, 2 a mistake in the options.\n"
	"\n"
	"Example:\n"
	"  sluice-bridge --no-huge --port vhost-user=/run/a.sock,vlan=10 \\\n"
	"                --port vhost-user=/run/b.sock,vlan=10 \\\n"
	"                --port tap=tap0,trunk=10+20\n";

int bridge_fail(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	program_vfail("sluice-bridge", status, fmt, ap);
	va_end(ap);
	return status;
}

enum {
	O_PORT,
	O_WORKERS,
	O_CORES,
	O_NO_HUGE,
	O_MEMORY,
	O_MAC_AGE,
	O_MACS,
	O_POLL_US,
	O_NO_IO_URING,
	O_CONTROL,
	O_TELEMETRY,
	O_FILE_PREFIX,
	O_PIDFILE,
	O_VERSION,
	O_HELP,
	O_HELP_SHORT,
	O_COUNT
};

static const struct program_option options[] = {
	[O_PORT] = {"--port", true, true},
	[O_WORKERS] = {"--workers", true, false},
	[O_CORES] = {"--cores", true, false},
	[O_NO_HUGE] = {"--no-huge", false, false},
	[O_MEMORY] = {"--memory", true, false},
	[O_MAC_AGE] = {"--mac-age", true, false},
	[O_MACS] = {"--macs", true, false},
	[O_POLL_US] = {"--poll-us", true, false},
	[O_NO_IO_URING] = {"--no-io-uring", false, false},
	[O_CONTROL] = {"--control", true, false},
	[O_TELEMETRY] = {"--telemetry", false, false},
	[O_FILE_PREFIX] = {"--file-prefix", true, false},
	[O_PIDFILE] = {"--pidfile", true, false},
	[O_VERSION] = {"--version", false, false},
	[O_HELP] = {"--help", false, false},
	[O_HELP_SHORT] = {"-h", false, false},
};

static int number_set(int option, const char *value, unsigned min, unsigned max, unsigned *out)
{
	if (program_number(value, min, max, out))
		return PROGRAM_OK;
	return bridge_fail(
		PROGRAM_USAGE, "%s %.40s: use %u to %u", options[option].name, value, min, max);
}

static int port_take(struct bridge_options *o, const char *value)
{
	char why[BACKEND_WHY_MAX] = "";

	if (o->nports == NET_SWITCH_PORTS_MAX)
		return bridge_fail(PROGRAM_USAGE, "--port %.60s: at most %u are possible", value,
			NET_SWITCH_PORTS_MAX);
	if (bridge_spec_parse(&o->ports[o->nports], value, why))
		return bridge_fail(PROGRAM_USAGE, "--port %s", why);
	o->nports++;
	return PROGRAM_OK;
}

static int cores_take(struct bridge_options *o, const char *value)
{
	const char *at = value;
	char *end;

	for (;; at = end + 1) {
		unsigned long core = isdigit((unsigned char)*at) ? strtoul(at, &end, 10) : 4096;

		if (core >= 4096 || (*end && *end != ',') || o->ncores == NET_SWITCH_WORKERS_MAX)
			return bridge_fail(PROGRAM_USAGE,
				"--cores %.60s: use numbers of processors like 0,1", value);
		o->cores[o->ncores++] = (unsigned)core;
		if (!*end)
			return PROGRAM_OK;
	}
}

static int option_set(struct bridge_options *o, int option, const char *value, bool *done)
{
	switch (option) {
	case O_PORT:
		return port_take(o, value);
	case O_WORKERS:
		return number_set(option, value, 1, NET_SWITCH_WORKERS_MAX, &o->workers);
	case O_CORES:
		return cores_take(o, value);
	case O_MEMORY:
		return number_set(option, value, 64, 1u << 20, &o->memory_mib);
	case O_MAC_AGE:
		return number_set(option, value, 1, 1000000, &o->mac_age_s);
	case O_MACS:
		return number_set(option, value, 16, 1u << 20, &o->macs);
	case O_POLL_US:
		return number_set(option, value, 0, 1000000, &o->poll_us);
	case O_NO_HUGE:
		o->no_huge = true;
		return PROGRAM_OK;
	case O_NO_IO_URING:
		o->no_io_uring = true;
		return PROGRAM_OK;
	case O_CONTROL:
		o->control = value;
		return PROGRAM_OK;
	case O_TELEMETRY:
		o->telemetry = true;
		return PROGRAM_OK;
	case O_FILE_PREFIX:
		o->file_prefix = value;
		return PROGRAM_OK;
	case O_PIDFILE:
		o->pidfile = value;
		return PROGRAM_OK;
	case O_VERSION:
		puts("sluice-bridge " SLUICE_VERSION);
		break;
	default:
		fputs(help, stdout);
		break;
	}
	*done = true;
	return PROGRAM_OK;
}

static int options_check(struct bridge_options *o)
{
	if (o->ncores && o->workers && o->workers != o->ncores)
		return bridge_fail(PROGRAM_USAGE,
			"--workers %u: --cores names %u processors; give as many", o->workers,
			o->ncores);
	if (!o->workers)
		o->workers = o->ncores ? o->ncores : 1;
	for (unsigned i = 0; i < o->nports; i++)
		if (o->ports[i].sw.worker != BRIDGE_WORKER_ANY &&
			o->ports[i].sw.worker >= o->workers)
			return bridge_fail(PROGRAM_USAGE, "--port worker=%u: there are 0 to %u",
				o->ports[i].sw.worker, o->workers - 1);
	if (!o->nports && !o->control)
		return bridge_fail(
			PROGRAM_USAGE, "--port: missing; give ports, or --control to add them by");
	return PROGRAM_OK;
}

int bridge_options_parse(struct bridge_options *o, int argc, char **argv, bool *done)
{
	uint32_t given = 0;

	*o = (struct bridge_options){.poll_us = POLL_US_DEFAULT, .file_prefix = "sluice-bridge"};
	*done = false;
	for (int i = 1; i < argc && !*done; i++) {
		const char *value = NULL;
		int option, status = program_option_take("sluice-bridge", options, O_COUNT, argv,
				    &i, &given, &option, &value);

		if (!status)
			status = option_set(o, option, value, done);
		if (status)
			return status;
	}
	return *done ? PROGRAM_OK : options_check(o);
}
