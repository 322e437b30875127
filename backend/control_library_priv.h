/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmicrohttpd, loaded when the first control socket is opened: linked, it and what it needs (TLS
 * among others) would be mapped and bound in each monitor, also those without such a socket.
 */
#ifndef CONTROL_LIBRARY_PRIV_H
#define CONTROL_LIBRARY_PRIV_H

#include <microhttpd.h>

#include "backend/backend.h"

struct control_library {
	__typeof__(MHD_start_daemon) *start_daemon;
	__typeof__(MHD_quiesce_daemon) *quiesce_daemon;
	__typeof__(MHD_stop_daemon) *stop_daemon;
	__typeof__(MHD_create_response_from_buffer) *create_response_from_buffer;
	__typeof__(MHD_add_response_header) *add_response_header;
	__typeof__(MHD_queue_response) *queue_response;
	__typeof__(MHD_destroy_response) *destroy_response;
	__typeof__(MHD_lookup_connection_value) *lookup_connection_value;
	__typeof__(MHD_get_connection_info) *get_connection_info;
};

/* Stays loaded. Any thread. -ELIBACC: why says what to install. */
int control_library_load(const struct control_library **out, char why[BACKEND_WHY_MAX]);

#endif
