/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program sluice-bridge: the switch of netbridge/, with vhost-user ports from this folder. It
 * adds no way for a frame: workers are I/O threads, on which both the switch's ports and the
 * vhost-user devices live.
 */
#ifndef BRIDGE_PRIV_H
#define BRIDGE_PRIV_H

#include <pthread.h>

#include "backend/backend.h"
#include "backend/program_priv.h"

#define BRIDGE_TARGET_MAX 255u
#define BRIDGE_WORKER_ANY UINT32_MAX

enum bridge_kind {
	BRIDGE_NONE,
	BRIDGE_VHOST_USER,
	BRIDGE_TAP,
	BRIDGE_AF_XDP,
	BRIDGE_DPDK,
	BRIDGE_MEM,
};

/* What a port is to be: of --port, or of a PUT's body; the keys are the same. */
struct bridge_spec {
	enum bridge_kind kind;
	char target[BRIDGE_TARGET_MAX + 1]; /* socket, interface, device; sink, source or echo */
	unsigned queues;
	enum vhost_socket_mode mode;       /* vhost-user */
	enum split_ring_choice ring;       /* vhost-user: packed is offered, not forced */
	bool mode_set, ring_set;           /* given: only vhost-user takes them */
	struct net_switch_port_options sw; /* name "": to be made up; worker: or ANY */
};

/* "vhost-user", "tap", "af_xdp", "dpdk", "mem". */
const char *bridge_kind_name(enum bridge_kind kind);
void bridge_spec_init(struct bridge_spec *spec);
/* One key and its value, as after --port. change: only what a port may change while it lives.
 * -EINVAL and why. */
int bridge_spec_set(struct bridge_spec *spec, const char *key, const char *value, bool change,
	char why[BACKEND_WHY_MAX]);
/* Does it all go together? Makes up a name where there is none, but for "". */
int bridge_spec_check(struct bridge_spec *spec, char why[BACKEND_WHY_MAX]);
/* "vhost-user=/run/a.sock,queues=2", "dpdk,net_tap0,iface=x,name=y" */
int bridge_spec_parse(struct bridge_spec *spec, const char *text, char why[BACKEND_WHY_MAX]);

struct bridge_options {
	struct bridge_spec ports[NET_SWITCH_PORTS_MAX];
	unsigned nports;
	unsigned workers, poll_us, mac_age_s, macs, memory_mib;
	unsigned cores[NET_SWITCH_WORKERS_MAX];
	unsigned ncores; /* 0: wherever the scheduler likes */
	bool no_huge, no_io_uring, telemetry;
	const char *control, *pidfile, *file_prefix;
};

/* PROGRAM_OK with *done: there is nothing more to do (help, version); else a status, and one line
 * was printed. */
int bridge_options_parse(struct bridge_options *o, int argc, char **argv, bool *done);
/* One line on stderr; returns status. */
int bridge_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct bridge;

struct bridge_worker {
	struct bridge *bridge;
	unsigned index;
	struct io_thread *io;
	struct io_poller poller;
	struct io_watch watch; /* joined ports may have frames */
	struct io_work wake;   /* does nothing but end the sleep */
	int core;              /* -1: any */
	int error;             /* of entering */
};

struct bridge_port {
	struct bridge *bridge;
	struct bridge_spec spec;
	struct net_port *port; /* vhost-user: what the device is given */
	struct vhost_server *server;
	struct bridge_port *next;
};

struct bridge {
	struct bridge_options *opts;
	struct net_switch *sw;
	bool dpdk;
	unsigned nworkers; /* running */
	struct bridge_worker workers[NET_SWITCH_WORKERS_MAX];
	/* Main thread before and after the control server lives, and its thread meanwhile. */
	struct bridge_port *ports;
	unsigned nports;
	unsigned serial; /* of names made up */
	struct control_server *control;
	bool pidfile; /* written */
};

/* bridge_worker.c */
int bridge_workers_start(struct bridge *b, char why[BACKEND_WHY_MAX]);
void bridge_workers_stop(struct bridge *b);
/* Of net_switch_options. */
void bridge_worker_wake(void *ctx, unsigned worker);

/* bridge_port.c */
/* -EEXIST, -EINVAL ... and why. */
int bridge_port_add(struct bridge *b, const struct bridge_spec *spec, struct bridge_port **out,
	char why[BACKEND_WHY_MAX]);
void bridge_port_remove(struct bridge *b, struct bridge_port *p);
/* The spec's VLANs, rates and isolation are the port's from now on. */
int bridge_port_change(
	struct bridge_port *p, const struct bridge_spec *spec, char why[BACKEND_WHY_MAX]);
struct bridge_port *bridge_port_find(struct bridge *b, const char *name);

/* bridge_control.c, bridge_metrics.c */
extern const struct control_route bridge_routes[];
void bridge_metrics_answer(void *ctx, struct control_request *req);

/* Everything that is known of all ports; freed by the caller. NULL: no memory. */
struct net_switch_port_info *bridge_infos_get(struct bridge *b, unsigned *n);

#endif
