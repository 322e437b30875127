/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The files of the vhost-user front-end. All of it runs on the I/O thread unless said otherwise,
 * and nothing in it waits for the back-end.
 *
 * There is no queue of messages. What the guest wants is in struct vhost_client and its queues;
 * what this back-end has said and been told is in struct vhost_session, which begins anew with each
 * connection. vhost_talk_next() makes the next message that brings the second closer to the first;
 * while an answer is awaited nothing is sent.
 */
#ifndef VHOST_CLIENT_PRIV_H
#define VHOST_CLIENT_PRIV_H

#include "backend/backend_priv.h"
#include "backend/split_net_priv.h"
#include "backend/unix_socket_priv.h"
#include "backend/vhost_user_priv.h"

#define VHOST_CLIENT_CONFIG_MAX 64u

/* What is told of a queue, in this order; KICK is where it starts. */
enum vhost_told {
	TOLD_NOTHING,
	TOLD_NUM,
	TOLD_BASE,
	TOLD_ADDR,
	TOLD_CALL,
	TOLD_ERR,
	TOLD_KICK,
};

struct vhost_client_queue {
	struct vhost_client *client;
	unsigned index;
	/* wanted */
	bool started;
	bool enabled;
	int kick; /* the transport's */
	/* known */
	bool taken;     /* a back-end may have gone on from the positions in the ring */
	unsigned tries; /* to find that out from the ring */
	bool stopping;  /* its position is asked for, or its requests are waited for */
	bool drains;
	uint32_t base; /* drains: where it will be */
	/* told */
	enum vhost_told told;
	int call_told;       /* -1: none */
	int8_t enabled_told; /* -1: nothing */
	/* interrupts that this process passes on */
	int call_fd;
	struct io_watch call_watch;
	bool call_watched;
};

/* What this back-end has said, and what it has been told. */
struct vhost_session {
	unsigned step; /* of the greeting */
	uint64_t features, protocol;
	uint64_t queues_max;
	uint64_t slots_max;
	uint64_t features_told;
	bool features_any; /* told */
	bool slots_asked;
	uint32_t regions_told;
	bool inflight_told, log_told;
	bool config_stale;
	/* the answer that is awaited; 0: none */
	uint32_t awaited;
	unsigned awaited_queue;
	bool awaited_ack;
};

/* Memory of the back-end's in which it keeps what is in flight: it outlives it. */
struct vhost_kept {
	int fd; /* -1: none */
	struct vhost_user_inflight desc;
};

struct vhost_log_memory {
	int fd; /* -1: none */
	uint64_t *words;
	size_t bytes;
};

/* A kind of device, as far as its front-end must know it. */
struct vhost_kind {
	struct split_ops ops;
	uint64_t passed; /* features that are the back-end's to offer */
	uint64_t own;    /* offered whatever the back-end says */
	uint64_t protocol_needed;
	bool keeps; /* requests must not be lost: inflight region, or the ring */
	uint32_t queue_size;
};

struct vhost_client {
	struct split_device common; /* first */
	const struct vhost_kind *kind;
	struct split_vhost_options opts;
	char path[UNIX_SOCKET_PATH_MAX];
	char tag[40];
	unsigned pairs, active; /* net */
	bool one_connection;

	/* configuration space: read by vCPUs */
	pthread_mutex_t config_lock;
	uint8_t config[VHOST_CLIENT_CONFIG_MAX];

	struct vhost_client_queue *vqs;
	uint16_t *scratch;
	struct vhost_kept kept;
	struct vhost_log_memory log;
	bool unlogged; /* a back-end that keeps no log has been at work */
	int err_fd;    /* the back-end says that the driver broke the protocol */
	struct io_watch err_watch;

	/* the link */
	int socket; /* -1: none */
	struct io_watch watch;
	struct unix_socket listener;
	struct io_watch listen_watch;
	int channel; /* the back-end's own requests; -1 */
	int channel_peer;
	struct io_watch channel_watch;
	struct vhost_user_rx rx, channel_rx;
	struct vhost_user_message out;
	size_t out_sent;
	bool out_pending;
	struct io_timer retry;    /* to connect, to send, to look at a ring */
	struct io_timer patience; /* for an answer */
	uint32_t retry_ms;
	uint64_t drain_until_ns;
	struct vhost_session s;

	/* creation: its caller waits */
	bool created;
	bool failed; /* for good */
	int create_err;
	char create_why[BACKEND_WHY_MAX];
	void *create_sem; /* NULL: nobody waits (any more) */

	bool ending;
	bool lost_noted;
	char noted[160];
	_Atomic bool connected;
	_Atomic bool inflight;
	_Atomic uint64_t connections, resubmitted, breaches;
};

static inline struct vhost_client *vhost_client_of(struct split_device *d)
{
	return (struct vhost_client *)d;
}

static inline bool vhost_offers(const struct vhost_client *c, unsigned protocol)
{
	return c->s.protocol & VIRTIO_BIT(protocol);
}

/* vhost_client.c */
void vhost_client_free(struct vhost_client *c);
void vhost_client_signal_changed(struct split_device *d);

/* vhost_client_link.c */
int vhost_link_open(
	struct vhost_client *c, const char *path, char why[BACKEND_WHY_MAX]); /* any thread */
void vhost_link_start(struct vhost_client *c);
void vhost_link_close(struct vhost_client *c);
/* Sends what there is to say, until an answer is awaited. */
void vhost_link_advance(struct vhost_client *c);
/* The connection ends. err: why; -ECONNRESET: the back-end has gone. */
void vhost_link_lost(struct vhost_client *c, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Look again soon. */
void vhost_link_soon(struct vhost_client *c, uint32_t ms);
void vhost_note_line(struct vhost_client *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Tells the caller of split_vhost_create(), once. */
void vhost_created(struct vhost_client *c, int err, const char *why);
int vhost_channel_open(struct vhost_client *c);

/* vhost_client_talk.c: false: nothing to say now */
bool vhost_talk_next(struct vhost_client *c, struct vhost_user_message *m);
/* An answer; -errno: a breach, with why told. */
int vhost_talk_reply(struct vhost_client *c, struct vhost_user_message *m);
bool vhost_talk_greeted(const struct vhost_client *c);

/* vhost_client_queue.c */
int vhost_queue_begin(struct split_device *d, unsigned q, int doorbell_fd);
void vhost_queue_end(struct split_device *d, unsigned q);
bool vhost_queue_next(struct vhost_client *c, struct vhost_user_message *m);
bool vhost_queue_stop_next(struct vhost_client *c, struct vhost_user_message *m);
bool vhost_queue_call_next(struct vhost_client *c, struct vhost_user_message *m);
bool vhost_queue_enable_next(struct vhost_client *c, struct vhost_user_message *m);
int vhost_queue_based(struct vhost_client *c, unsigned q, uint32_t base);
/* Requests of stopped queues that are still being completed: have they been? */
void vhost_queues_drain(struct vhost_client *c);
void vhost_queues_lost(struct vhost_client *c);
bool vhost_queues_any(const struct vhost_client *c);
uint32_t vhost_queues_stopping(const struct vhost_client *c);
void vhost_queue_interrupt(struct vhost_client *c, unsigned q);
void vhost_queues_kick(struct split_device *d);
int vhost_queues_open(struct vhost_client *c);
void vhost_queues_close(struct vhost_client *c);

/* vhost_client_kind.c */
const struct vhost_kind *vhost_kind_find(uint32_t virtio_id);
/* The first back-end has said what it can: what the guest is offered. -ENOTSUP with why. */
int vhost_kind_offer(struct vhost_client *c, char why[BACKEND_WHY_MAX]);
/* Can this back-end go on where the last one stopped? -ENOTSUP. */
int vhost_kind_fits(struct vhost_client *c, char why[BACKEND_WHY_MAX]);
uint32_t vhost_config_wanted(const struct vhost_client *c); /* bytes to fetch; 0: made here */
void vhost_config_take(struct vhost_client *c, const uint8_t *bytes, uint32_t n);
void vhost_config_make(struct vhost_client *c);

/* vhost_client_memory.c */
bool vhost_memory_next(struct vhost_client *c, struct vhost_user_message *m);
bool vhost_kept_get_next(struct vhost_client *c, struct vhost_user_message *m);
bool vhost_kept_set_next(struct vhost_client *c, struct vhost_user_message *m);
int vhost_kept_take(struct vhost_client *c, struct vhost_user_message *m);
void vhost_kept_drop(struct vhost_client *c);
/* Where a packed queue is, as the region says. */
bool vhost_kept_position(struct vhost_client *c, unsigned q, uint16_t *position);
bool vhost_log_wanted(const struct vhost_client *c);
bool vhost_log_next(struct vhost_client *c, struct vhost_user_message *m);
void vhost_log_sync(struct split_device *d);
void vhost_log_drop(struct vhost_client *c);

#endif
