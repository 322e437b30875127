/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost-user protocol (QEMU, docs/interop/vhost-user.rst; version 1): messages as they lie on
 * the socket, shared by the back-end (vhost_server*.c) and the front-end (vhost_client*.c). All
 * numbers are in native byte order; nothing in a received message is believed before it is checked.
 */
#ifndef VHOST_USER_PRIV_H
#define VHOST_USER_PRIV_H

#include "backend/backend.h"

/* Feature bits beside the device's own ("Multiple queue support", "Migration"). */
enum { VHOST_F_LOG_ALL = 26, VHOST_USER_F_PROTOCOL_FEATURES = 30 };

/* "Protocol features" */
enum {
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1,
	VHOST_USER_PROTOCOL_F_RARP = 2,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_MTU = 4,
	VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
	VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
	VHOST_USER_PROTOCOL_F_STATUS = 16,
};

/* "Front-end message types" */
enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_LOG_BASE = 6,
	VHOST_USER_SET_LOG_FD = 7,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SEND_RARP = 19,
	VHOST_USER_NET_SET_MTU = 20,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_GET_INFLIGHT_FD = 31,
	VHOST_USER_SET_INFLIGHT_FD = 32,
	VHOST_USER_RESET_DEVICE = 34,
	VHOST_USER_GET_MAX_MEM_SLOTS = 36,
	VHOST_USER_ADD_MEM_REG = 37,
	VHOST_USER_REM_MEM_REG = 38,
	VHOST_USER_SET_STATUS = 39,
	VHOST_USER_GET_STATUS = 40,
};

/* "Back-end message types" */
enum { VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2 };

/* "Header" */
enum {
	VHOST_USER_VERSION = 1,
	VHOST_USER_VERSION_MASK = 3,
	VHOST_USER_REPLY = 4,
	VHOST_USER_NEED_REPLY = 8,
};

#define VHOST_USER_REGIONS_MAX 8u /* in one SET_MEM_TABLE */
#define VHOST_USER_FDS_MAX     8u /* with one message */
#define VHOST_USER_CONFIG_MAX  256u
#define VHOST_USER_LOG_PAGE    4096u

/* Of SET_VRING_KICK, _CALL and _ERR: the queue, and whether a descriptor comes along. */
#define VHOST_USER_VRING_INDEX 0xffull
#define VHOST_USER_VRING_NOFD  0x100ull

struct vhost_user_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload */
};

struct vhost_user_vring_state {
	uint32_t index, num;
};

#define VHOST_USER_VRING_F_LOG 1u

/* Addresses are the front-end's own (user addresses). */
struct vhost_user_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};

struct vhost_user_region {
	uint64_t guest_addr, size, user_addr, mmap_offset;
};

struct vhost_user_memory {
	uint32_t nregions, padding;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
};

struct vhost_user_memory_one {
	uint64_t padding;
	struct vhost_user_region region;
};

struct vhost_user_log {
	uint64_t size, offset;
};

struct vhost_user_config {
	uint32_t offset, size, flags;
	uint8_t bytes[VHOST_USER_CONFIG_MAX];
};

struct vhost_user_inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t queues, queue_size;
};

union vhost_user_payload {
	uint64_t u64;
	struct vhost_user_vring_state state;
	struct vhost_user_vring_addr addr;
	struct vhost_user_memory memory;
	struct vhost_user_memory_one memory_one;
	struct vhost_user_log log;
	struct vhost_user_config config;
	struct vhost_user_inflight inflight;
};

/* One message with its descriptors, which belong to whoever holds the message. */
struct vhost_user_message {
	struct vhost_user_header h;
	union vhost_user_payload p;
	int fds[VHOST_USER_FDS_MAX];
	unsigned nfds;
};

/* vhost_user.c: both sides; any thread. */

/*
 * Receives one message. A payload larger than the union, more descriptors than fit, a wrong version
 * or a truncated message: -EPROTO, with nothing left open. -EAGAIN: nothing there (non-blocking
 * socket); -ECONNRESET: the peer has gone. A message begun is waited for on a blocking socket; on a
 * non-blocking one state is kept in rx, zeroed before the first call.
 */
struct vhost_user_rx {
	struct vhost_user_message m;
	size_t have; /* bytes of header and payload */
};
int vhost_user_receive(int socket, struct vhost_user_rx *rx);
/* Closes what descriptors are left. */
void vhost_user_message_close(struct vhost_user_message *m);

/* Sends one message with nfds descriptors (they stay the caller's). Whole or not at all; a peer
 * that does not read for a second is -ETIMEDOUT. Never raises SIGPIPE. */
int vhost_user_send(int socket, const struct vhost_user_message *m);

/* ------------------------------------------------------------------ inflight region */

/*
 * "Inflight I/O tracking": what a back-end has taken and not completed, in memory that outlives it.
 * The layout of the region is the specification's (struct QueueRegionSplit and QueueRegionPacked),
 * so that any back-end can go on from any other's. It is as hostile as guest memory.
 */
uint64_t vhost_inflight_queue_bytes(enum ring_layout layout, uint16_t queue_size);

#endif
