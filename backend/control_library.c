/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading libmicrohttpd. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include "backend/backend_priv.h"
#include "backend/control_library_priv.h"

#define LIBRARY "libmicrohttpd.so.12"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct control_library library;
static bool loaded;
static char failure[BACKEND_WHY_MAX];

static void library_open(void)
{
	void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (!handle) {
		const char *text = dlerror();

		backend_why(failure, "%.120s; install Debian's package libmicrohttpd12",
			text ? text : LIBRARY " cannot be loaded");
		return;
	}
	library.start_daemon = dlsym(handle, "MHD_start_daemon");
	library.quiesce_daemon = dlsym(handle, "MHD_quiesce_daemon");
	library.stop_daemon = dlsym(handle, "MHD_stop_daemon");
	library.create_response_from_buffer = dlsym(handle, "MHD_create_response_from_buffer");
	library.add_response_header = dlsym(handle, "MHD_add_response_header");
	library.queue_response = dlsym(handle, "MHD_queue_response");
	library.destroy_response = dlsym(handle, "MHD_destroy_response");
	library.lookup_connection_value = dlsym(handle, "MHD_lookup_connection_value");
	library.get_connection_info = dlsym(handle, "MHD_get_connection_info");
	loaded = library.start_daemon && library.quiesce_daemon && library.stop_daemon &&
		 library.create_response_from_buffer && library.add_response_header &&
		 library.queue_response && library.destroy_response &&
		 library.lookup_connection_value && library.get_connection_info;
	if (!loaded)
		backend_why(failure, LIBRARY " lacks a function; install Debian's package "
					     "libmicrohttpd12");
}

int control_library_load(const struct control_library **out, char why[BACKEND_WHY_MAX])
{
	pthread_once(&once, library_open);
	*out = &library;
	if (loaded)
		return 0;
	backend_why(why, "%s", failure);
	return -ELIBACC;
}
