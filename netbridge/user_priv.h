/* SPDX-License-Identifier: BSD-2-Clause */
/* libslirp, loaded when it is first wanted: with the libraries it brings along it would cost every
 * process 1.3 MiB of memory and a third of a millisecond at start. */
#ifndef USER_PRIV_H
#define USER_PRIV_H

#include "netbridge/net_priv.h"

#include <slirp/libslirp.h>

struct user_library {
	__typeof__(slirp_new) *open;
	__typeof__(slirp_cleanup) *cleanup;
	__typeof__(slirp_pollfds_fill) *pollfds_fill;
	__typeof__(slirp_pollfds_poll) *pollfds_poll;
	__typeof__(slirp_input) *input;
	__typeof__(slirp_add_hostfwd) *add_hostfwd;
};

/* Any thread; stays loaded. -ELIBACC: why says which package. */
int user_library_load(const struct user_library **out, char why[NET_WHY_MAX]);

/* What the library has to say on this thread is counted here, not printed; NULL: not counted. */
void user_library_complaints(_Atomic uint64_t *counter);

/* Finishes in place what the vnet header leaves to do: checksum, lengths of a frame that was to be
 * cut (the router takes it whole). -EINVAL: not such a frame. */
int user_frame_finish(const struct net_vnet_hdr *hdr, uint8_t *frame, uint32_t len);

enum user_frame_kind {
	USER_FRAME_PLAIN,
	USER_FRAME_OPENS, /* may make the router open a socket */
	USER_FRAME_BAD,   /* not for the router */
};

/* Whole ARP, and whole plain IP with TCP, UDP or ICMP are not bad; their checksums may be. */
enum user_frame_kind user_frame_kind(const uint8_t *frame, uint32_t len);

#endif
