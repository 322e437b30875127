/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of virtio-vsock (virtio 1.2 section 5.10) share. All of it belongs to the device's
 * I/O thread.
 *
 * Nothing here grows with what the guest sends: connections are slots of a table made at creation,
 * what a connection has for the guest is a set of bits, bytes that a host socket does not take yet
 * wait in the slot's own buffer (its size is the credit the guest is given), and resets of
 * connections that have no slot wait in a ring; when that is full the transmit queue rests.
 */
#ifndef SPLIT_VSOCK_PRIV_H
#define SPLIT_VSOCK_PRIV_H

#include <limits.h>
#include <sys/un.h>

#include "backend/unix_socket_priv.h"

#define VSOCK_HDR_BYTES  44u
#define VSOCK_BUFFER     65536u /* bytes a connection holds for its host socket */
#define VSOCK_PACKET_MAX 65536u
#define VSOCK_CHAIN_MAX  64u
#define VSOCK_RST_HOLD   256u /* resets waiting before the transmit queue rests */
#define VSOCK_NONE       UINT16_MAX
#define VSOCK_CID_HOST   2u
#define VSOCK_PORT_ANY   UINT32_MAX

/* Room for _4294967295 behind it. */
#define VSOCK_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 12)

enum { VSOCK_Q_RX, VSOCK_Q_TX, VSOCK_Q_EVENT, VSOCK_QUEUES };

/* 5.10.6 */
enum { VSOCK_TYPE_STREAM = 1 };
enum {
	VSOCK_OP_REQUEST = 1,
	VSOCK_OP_RESPONSE = 2,
	VSOCK_OP_RST = 3,
	VSOCK_OP_SHUTDOWN = 4,
	VSOCK_OP_RW = 5,
	VSOCK_OP_CREDIT_UPDATE = 6,
	VSOCK_OP_CREDIT_REQUEST = 7,
};
enum { VSOCK_SHUT_RCV = 1, VSOCK_SHUT_SEND = 2, VSOCK_SHUT_BOTH = 3 };
enum { VSOCK_EVENT_TRANSPORT_RESET = 0 };

struct vsock_hdr {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

_Static_assert(sizeof(struct vsock_hdr) == VSOCK_HDR_BYTES, "virtio 1.2, 5.10.6");

enum vsock_state {
	VSOCK_FREE,
	VSOCK_HANDSHAKE, /* the host has connected and not yet said to which port */
	VSOCK_ASKED,     /* the guest was asked, or will be (VSOCK_P_REQUEST) */
	VSOCK_OPEN,
	VSOCK_DRAIN, /* the guest is done with it; what it sent is still on its way to the host */
};

/* What the guest has to be told. */
enum {
	VSOCK_P_REQUEST = 1,
	VSOCK_P_RESPONSE = 2,
	VSOCK_P_CREDIT = 4,
	VSOCK_P_CREDIT_ASK = 8,
	VSOCK_P_SHUTDOWN = 16,
};

struct vsock_conn {
	int fd;
	uint8_t state;
	uint8_t pending;
	uint8_t guest_shut; /* directions the guest has closed, as VSOCK_SHUT_* */
	uint8_t host_shut;  /* the same of the host, as the guest was or will be told */
	bool listed;
	bool readable; /* the socket has not said EAGAIN since its last event */
	bool eof;      /* the host sends no more */
	bool wants_out;
	bool credit_asked;
	bool buffer_used;
	uint16_t list_next, hash_next;
	uint32_t guest_port, host_port;
	uint32_t got;         /* bytes from the guest */
	uint32_t forwarded;   /* of those, what the host socket took: fwd_cnt */
	uint32_t told;        /* forwarded, as the guest last heard */
	uint32_t sent;        /* bytes to the guest */
	uint32_t guest_alloc; /* its buf_alloc and fwd_cnt, as it says */
	uint32_t guest_fwd;
	uint32_t head, held; /* what the buffer holds */
	uint64_t deadline_ns;
};

struct vsock_rst {
	uint64_t src_cid;
	uint32_t src_port, dst_port;
	uint16_t type;
};

struct vsock {
	struct split_device common;
	uint32_t cid;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct unix_socket listener;
	int epoll;
	bool listener_off; /* no descriptors left: tried again later */
	struct io_watch watch;
	struct io_timer tick;
	bool maybe; /* the epoll descriptor may have events */
	uint64_t next_try_ns;

	struct vsock_conn *conns;
	uint8_t *buffers; /* VSOCK_BUFFER each */
	uint16_t nconns, nopen;
	uint16_t free_list;
	uint16_t *hash;
	uint32_t hash_mask;
	uint16_t list_head, list_tail; /* those with something for the guest */
	uint32_t next_port;
	unsigned deadlines;

	struct vsock_rst *rsts;
	uint32_t rst_head, nrsts, rst_room;
	bool event_owed; /* the driver has to hear of a transport reset */
	bool rx_dry;     /* there is something for the guest and no buffer */

	struct ring_seg segs[VSOCK_CHAIN_MAX];
	struct iovec iov[VSOCK_CHAIN_MAX];
};

/* split_vsock_conn.c: the table, and the host's sockets */
struct vsock_conn *vsock_conn_find(struct vsock *v, uint32_t guest_port, uint32_t host_port);
/* A slot for a socket, which it takes over; NULL: none (the caller closes). */
struct vsock_conn *vsock_conn_new(struct vsock *v, int fd);
void vsock_conn_hash(struct vsock *v, struct vsock_conn *c);
/* Closes the socket; the guest is not told. */
void vsock_conn_free(struct vsock *v, struct vsock_conn *c);
/* Tells the guest with a reset, if it knows of the connection, and frees. */
void vsock_conn_kill(struct vsock *v, struct vsock_conn *c);
void vsock_conns_close(struct vsock *v);
/* Puts it in line when there is something for the guest. */
void vsock_conn_queue(struct vsock *v, struct vsock_conn *c);
bool vsock_conn_may_read(const struct vsock_conn *c);
uint32_t vsock_credit(const struct vsock_conn *c);
void vsock_deadline_set(struct vsock *v, struct vsock_conn *c, uint64_t after_ns);
/* len bytes, within credit, of pieces. Any of them may be freed on return. */
void vsock_conn_write(
	struct vsock *v, struct vsock_conn *c, struct iovec *iov, uint32_t niov, uint32_t len);
void vsock_conn_event(struct vsock *v, struct vsock_conn *c, uint32_t events);
/* The guest closed directions. */
void vsock_conn_guest_shut(struct vsock *v, struct vsock_conn *c, uint8_t flags);
/* The host's socket is at its end. */
void vsock_conn_eof(struct vsock *v, struct vsock_conn *c);
void vsock_rst_queue(
	struct vsock *v, uint64_t src_cid, uint32_t src_port, uint32_t dst_port, uint16_t type);

/* split_vsock_host.c: the listening socket and what is said on it */
int vsock_listen(struct vsock *v, char why[BACKEND_WHY_MAX]);
void vsock_listen_close(struct vsock *v);
unsigned vsock_accept(struct vsock *v);
void vsock_listener_enable(struct vsock *v, bool on);
/* The program has written something: its line, perhaps; last: it writes no more. The connection may
 * be gone afterwards. */
void vsock_handshake(struct vsock *v, struct vsock_conn *c, bool last);
/* The guest has accepted. */
void vsock_handshake_done(struct vsock *v, struct vsock_conn *c);
/* The guest's request: a connection to the host's socket for that port, or NULL. */
struct vsock_conn *vsock_connect(struct vsock *v, uint32_t guest_port, uint32_t host_port);

/* split_vsock_tx.c, split_vsock_rx.c: the queues */
unsigned vsock_tx_poll(struct vsock *v);
unsigned vsock_rx_poll(struct vsock *v);
unsigned vsock_event_poll(struct vsock *v);

#endif
