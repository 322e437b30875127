/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading libslirp, and keeping it quiet. */
#include "netbridge/user_priv.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#define LIBRARY "libslirp.so.0"

/* glib's GLogFunc, and its function that sets one */
typedef void log_func(const char *domain, int level, const char *text, void *ctx);
typedef unsigned log_set_handler(const char *domain, int levels, log_func *func, void *ctx);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct user_library library;
static bool loaded;
static char failure[NET_WHY_MAX];
static _Thread_local _Atomic uint64_t *complaints;

/* Guests can make the library complain as often as they like. */
static void library_log(const char *domain, int level, const char *text, void *ctx)
{
	(void)domain;
	(void)level;
	(void)text;
	(void)ctx;
	if (complaints)
		atomic_fetch_add_explicit(complaints, 1, memory_order_relaxed);
}

static void library_open(void)
{
	void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	log_set_handler *set_handler;

	if (!handle) {
		const char *text = dlerror();

		net_why(failure, 0, "user: %.120s; install Debian's package libslirp0",
			text ? text : LIBRARY " cannot be loaded");
		return;
	}
	library.open = dlsym(handle, "slirp_new");
	library.cleanup = dlsym(handle, "slirp_cleanup");
	library.pollfds_fill = dlsym(handle, "slirp_pollfds_fill");
	library.pollfds_poll = dlsym(handle, "slirp_pollfds_poll");
	library.input = dlsym(handle, "slirp_input");
	library.add_hostfwd = dlsym(handle, "slirp_add_hostfwd");
	loaded = library.open && library.cleanup && library.pollfds_fill && library.pollfds_poll &&
		 library.input && library.add_hostfwd;
	if (!loaded)
		net_why(failure, 0,
			"user: " LIBRARY " is too old; install Debian's package "
			"libslirp0, 4.7 or later");
	/* of glib, which came along */
	set_handler = (log_set_handler *)dlsym(handle, "g_log_set_handler");
	if (set_handler)
		set_handler("Slirp", ~0, library_log, NULL);
}

int user_library_load(const struct user_library **out, char why[NET_WHY_MAX])
{
	pthread_once(&once, library_open);
	*out = &library;
	return loaded ? 0 : net_why(why, -ELIBACC, "%s", failure);
}

void user_library_complaints(_Atomic uint64_t *counter)
{
	complaints = counter;
}
