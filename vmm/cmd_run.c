/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice run`: options to a machine, and the main thread's life while it runs: asleep in poll()
 * until somebody types, a signal comes or the guest ends.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/cli_run_priv.h"

/* The guest's serial port takes what it has room for; the rest is offered again after a while that
 * grows, for a guest may never read. */
#define TYPED_RETRY_MS     10
#define TYPED_RETRY_MS_MAX 640

struct session {
	struct run_options *opts;
	struct machine *m;
	struct control_server *control;
	struct terminal tty;
	struct run_display display;
	bool display_ended;
	int sig_fd;
	bool input_open;
	uint8_t typed[256];
	size_t ntyped;
	int retry_ms;
	char stopped_by[24]; /* empty: by the guest */
};

/* ------------------------------------------------------------------ events */

static void session_stop(struct session *s, const char *by)
{
	if (!*s->stopped_by)
		snprintf(s->stopped_by, sizeof(s->stopped_by), "%s", by);
	machine_stop(s->m);
}

static void session_signal(struct session *s)
{
	struct signalfd_siginfo info;
	uint16_t cols, rows;
	char name[24];

	if (read(s->sig_fd, &info, sizeof(info)) != sizeof(info))
		return;
	switch (info.ssi_signo) {
	case SIGTSTP:
		terminal_restore(&s->tty);
		kill(getpid(), SIGSTOP);
		terminal_raw(&s->tty);
		break;
	case SIGCONT:
		terminal_raw(&s->tty);
		break;
	case SIGWINCH:
		terminal_size_get(STDOUT_FILENO, &cols, &rows);
		if (run_hvc_has_terminal(s->opts))
			machine_hvc_resize(s->m, cols, rows);
		break;
	default:
		snprintf(name, sizeof(name), "SIG%s", sigabbrev_np((int)info.ssi_signo));
		session_stop(s, name);
		break;
	}
}

static void session_type(struct session *s)
{
	size_t taken =
		run_hvc_has_terminal(s->opts)
			? machine_hvc_input(s->m, s->typed, s->ntyped)
			: machine_serial_input(s->m, (unsigned)run_serial_of_terminal(s->opts),
				  s->typed, s->ntyped);

	s->ntyped -= taken;
	memmove(s->typed, s->typed + taken, s->ntyped);
	if (taken || s->retry_ms < TYPED_RETRY_MS)
		s->retry_ms = TYPED_RETRY_MS;
	else if (s->retry_ms < TYPED_RETRY_MS_MAX)
		s->retry_ms *= 2;
}

static void session_input(struct session *s)
{
	size_t room = sizeof(s->typed) - s->ntyped, n;
	uint8_t bytes[sizeof(s->typed)];
	ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0) {
		s->input_open = false; /* the end of input is not the end of the guest */
		return;
	}
	n = (size_t)got;
	if (terminal_filter(&s->tty, bytes, &n) == TERMINAL_QUIT)
		session_stop(s, "Ctrl-A x");
	/* keys pressed at a guest that has not read hundreds before are lost, as on a real line */
	if (n > room)
		n = room;
	memcpy(s->typed + s->ntyped, bytes, n);
	s->ntyped += n;
	s->retry_ms = 0;
}

/* A terminal is always read, for its way out; others wait until the guest has taken what there is.
 * A terminal that another process group uses is not ours to read. */
static bool session_listens(const struct session *s)
{
	if (!s->input_open)
		return false;
	return s->tty.is_tty ? s->tty.raw : !s->ntyped;
}

/* Until the machine has ended. */
static void session_loop(struct session *s)
{
	for (;;) {
		struct pollfd fds[4] = {
			{.fd = machine_end_fd(s->m), .events = POLLIN},
			{.fd = s->sig_fd, .events = POLLIN},
			{.fd = session_listens(s) ? STDIN_FILENO : -1, .events = POLLIN},
			{.fd = s->display_ended ? -1 : s->display.pid_fd, .events = POLLIN},
		};

		if (poll(fds, 4, s->ntyped ? s->retry_ms : -1) < 0 && errno != EINTR)
			return;
		if (fds[0].revents)
			return;
		if (fds[1].revents)
			session_signal(s);
		if (fds[2].revents)
			session_input(s);
		if (fds[3].revents) {
			s->display_ended = true;
			session_stop(s, "the end of its display");
		}
		if (s->ntyped)
			session_type(s);
	}
}

/* ------------------------------------------------------------------ from start to end */

static int session_ended(struct session *s, enum machine_end end)
{
	switch (end) {
	case MACHINE_FAILED:
		return cli_fail("run", CLI_HOST, "%s", machine_failure(s->m));
	case MACHINE_TRIPLE_FAULT:
		return cli_fail("run", CLI_TRIPLE, "the guest ended in a triple fault");
	case MACHINE_STOPPED:
		fprintf(stderr, "sluice: stopped by %s\n",
			*s->stopped_by ? s->stopped_by : "itself");
		return CLI_OK;
	case MACHINE_POWEROFF:
		fprintf(stderr, "sluice: the guest powered off\n");
		return CLI_OK;
	case MACHINE_RESET:
		fprintf(stderr, "sluice: the guest asked for a reset\n");
		return CLI_OK;
	default:
		fprintf(stderr, "sluice: ended: %s\n", machine_end_name(end));
		return CLI_OK;
	}
}

/* One life of the guest after the other, until it does not come back. */
static int session_lives(struct session *s)
{
	char why[VMM_WHY_MAX] = "";
	enum machine_end end;
	int err;

	for (;;) {
		err = machine_start(s->m, why);
		if (err)
			return cli_fail("run", CLI_HOST, "%s", why);
		session_loop(s);
		end = machine_wait(s->m, -1);
		/* on a PC a triple fault is a reset, and there are systems that reset by it */
		if (end == MACHINE_TRIPLE_FAULT && s->opts->cfg.firmware)
			end = MACHINE_RESET;
		if (end != MACHINE_RESET || s->opts->no_reboot || *s->stopped_by)
			return session_ended(s, end);
		fprintf(stderr, "sluice: the guest reboots\n");
		err = machine_reset(s->m, why);
		if (err)
			return cli_fail("run", CLI_HOST, "%s", why);
	}
}

/* Blocked in every thread, read by this one. */
static int signals_open(void)
{
	static const int stops[] = {
		SIGTERM,
		SIGINT,
		SIGHUP,
		SIGQUIT,
		SIGTSTP,
		SIGCONT,
		SIGWINCH,
	};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++)
		sigaddset(&set, stops[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	/* a console that went away is an error of write(), not the end */
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void disks_report(struct machine *m)
{
	for (unsigned i = 0; i < machine_devices(m); i++) {
		struct device_report r;

		machine_device_report(m, i, &r);
		if (r.vhost) {
			fprintf(stderr, "sluice: %s: back-end %s\n", r.model,
				r.vhost_info.connected ? "connected" : "lost");
			continue;
		}
		if (!strcmp(r.kind, "other")) {
			fprintf(stderr, "sluice: %s\n", r.model);
			continue;
		}
		if (strcmp(r.kind, "disk") != 0) {
			fprintf(stderr, "sluice: %s: port %s\n", r.model, r.port_kind);
			continue;
		}
		fprintf(stderr, "sluice: %s: engine=%s direct=%s format=%s on %s%s%s\n", r.model,
			blk_engine_name(r.blk.engine), r.blk.direct ? "on" : "off",
			blk_format_name(r.blk.format), r.blk.file_system, *r.blk.note ? ": " : "",
			r.blk.note);
	}
}

/* Each connection between guest and host is a descriptor: as many as the system allows. */
static void descriptors_allow(const struct run_options *o)
{
	struct rlimit limit;

	if (!o->cfg.vsock.socket || getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* On an I/O thread. */
static void device_note(void *ctx, const char *device, const char *line)
{
	(void)ctx;
	fprintf(stderr, "sluice: %s: %s\n", device, line);
}

/* On such a host a stock kernel is not wrong, only hopeless: said before the wait, not after. */
static void interpreter_warn(struct machine *m)
{
	struct kvm_facts facts;
	char why[VMM_WHY_MAX];

	if (machine_kernel_is_big(m) && !kvm_facts_get(&facts, why) && facts.interprets_ring0)
		fprintf(stderr, "sluice: this host's KVM has no hardware virtualization and "
				"interprets kernels: "
				"this one may take hours or stop; use a host with VT-x or AMD-V\n");
}

static int session_control_open(struct session *s)
{
	char why[BACKEND_WHY_MAX] = "";

	if (s->opts->control && run_control_open(&s->control, s->opts->control, s->m, why))
		return cli_fail("run", CLI_HOST, "--%s", why);
	return CLI_OK;
}

static int session_run(struct session *s)
{
	char why[VMM_WHY_MAX] = "";
	int err, status;

	descriptors_allow(s->opts);
	s->opts->cfg.note = device_note;
	err = machine_create(&s->m, &s->opts->cfg, why);
	if (err)
		return cli_fail("run", machine_error_is_usage(err) ? CLI_USAGE : CLI_HOST, "%s",
			*why ? why : strerror(-err));
	status = session_control_open(s);
	interpreter_warn(s->m);
	if (s->opts->verbose)
		disks_report(s->m);
	if (!status)
		status = run_display_start(&s->display, s->opts);
	if (status) {
		control_server_destroy(s->control);
		machine_destroy(s->m);
		return status;
	}
	if (run_serial_of_terminal(s->opts) >= 0 || run_hvc_has_terminal(s->opts)) {
		s->input_open = true;
		terminal_open(&s->tty, STDIN_FILENO);
		terminal_raw(&s->tty);
	}
	status = session_lives(s);
	terminal_restore(&s->tty);
	err = run_display_stop(&s->display);
	if (!status)
		status = err;
	control_server_destroy(s->control);
	if (s->opts->counters)
		run_counters_print(s->m);
	machine_destroy(s->m);
	return status;
}

int cmd_run(int argc, char **argv)
{
	static struct run_options opts; /* large */
	struct session s = {.opts = &opts, .sig_fd = -1};
	int status = run_options_parse(&opts, argc, argv);

	if (status != RUN_GO)
		goto out;
	s.sig_fd = signals_open();
	if (s.sig_fd < 0) {
		status = cli_fail("run", CLI_HOST, "signalfd: %s", strerror(errno));
		goto out;
	}
	status = run_display_prepare(&s.display, &opts);
	if (!status)
		status = run_consoles_open(&opts);
	if (!status)
		status = session_run(&s);
	run_consoles_close(&opts);
	run_display_free(&s.display);
	close(s.sig_fd);
out:
	machine_config_free(&opts.cfg);
	return status;
}
