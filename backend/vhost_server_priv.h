/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The files of the vhost-user back-end. A connection's state is its own thread's; what its device's
 * I/O thread looks at (the descriptors to interrupt by) is changed on that thread.
 */
#ifndef VHOST_SERVER_PRIV_H
#define VHOST_SERVER_PRIV_H

#include <pthread.h>
#include <sys/types.h>

#include "backend/backend_priv.h"
#include "backend/vhost_user_priv.h"

#define VHOST_PAGE 4096u

/* Shared memory of the front-end's, mapped and guarded. */
struct vhost_map {
	void *base; /* page-aligned; NULL: none */
	size_t bytes;
	uint8_t *at; /* what was asked for */
	struct mem_guard *guard;
};

/* A region of guest memory; gpa, size and hva are in the connection's ring_mem, at the same index.
 */
struct vhost_region {
	uint64_t user_addr;
	struct vhost_map map;
};

struct vhost_queue {
	uint32_t num;
	uint64_t desc, driver, device; /* the front-end's addresses */
	bool addressed;
	struct ring_device_state state;
	bool restore;
	bool kicked; /* a kick was set, be it no descriptor: the ring is to run */
	int kick, err;
	int call; /* read on the I/O thread */
	bool enabled;
	bool running;
};

struct vhost_conn {
	struct vhost_server *server;
	unsigned index;
	pthread_t thread;

	pthread_mutex_t lock; /* of the next two, against other threads */
	struct split_device *dev;
	int socket; /* -1: nobody is connected */

	atomic_bool faulted; /* memory went away; in a signal handler */
	struct ring_mem mem;
	struct vhost_region regions[RING_MEM_REGIONS_MAX];
	struct vhost_map log;
	uint64_t log_bytes;
	struct vhost_map inflight;
	uint64_t inflight_bytes;
	uint16_t inflight_queues;
	uint64_t features; /* as set, with VHOST_F_LOG_ALL */
	bool featured;     /* the device has taken them */
	uint64_t protocol;
	uint64_t status;
	int backend_fd; /* read on the I/O thread */
	struct vhost_queue queues[BACKEND_QUEUES_MAX + 1];
	bool legacy_noted;
	_Atomic bool broken;
	char why[BACKEND_WHY_MAX];
	struct vhost_user_rx rx;
};

void vhost_note(struct vhost_conn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline bool vhost_has(const struct vhost_conn *c, unsigned protocol_feature)
{
	return c->protocol & VIRTIO_BIT(protocol_feature);
}

/* ------------------------------------------------------------------ vhost_server_message.c */

/* One message: checked, done, answered; descriptors it did not keep are closed. An error, told in
 * c->why, ends the connection. */
int vhost_message(struct vhost_conn *c, struct vhost_user_message *m);

/* ------------------------------------------------------------------ vhost_server_mem.c */

/* Maps [offset, offset + bytes) of a regular file. -EINVAL with c->why: it has no such bytes. */
int vhost_map(struct vhost_conn *c, struct vhost_map *map, int fd, uint64_t offset, uint64_t bytes);
void vhost_unmap(struct vhost_map *map);
/* No queue runs. Errors with c->why. */
int vhost_memory_set(
	struct vhost_conn *c, const struct vhost_user_region *regions, const int *fds, unsigned n);
int vhost_memory_add(struct vhost_conn *c, const struct vhost_user_region *region, int fd);
int vhost_memory_remove(struct vhost_conn *c, const struct vhost_user_region *region);
void vhost_memory_clear(struct vhost_conn *c);
/* Where a front-end's address is in the guest; -EFAULT. */
int vhost_memory_gpa(const struct vhost_conn *c, uint64_t user_addr, uint64_t *gpa);
/* Points the regions at the log, or nowhere, as features and log are. */
int vhost_log_apply(struct vhost_conn *c);
int vhost_log_set(struct vhost_conn *c, int fd, const struct vhost_user_log *log);

/* ------------------------------------------------------------------ vhost_server_queue.c */

void vhost_queues_init(struct vhost_conn *c);
/* Stops what runs and remembers where it was; resume starts it again from there. */
void vhost_queues_pause(struct vhost_conn *c);
/* Starts every queue that is ready and does not run. */
int vhost_queues_resume(struct vhost_conn *c);
/* One queue is stopped for good, until it is kicked again. */
void vhost_queue_stop(struct vhost_conn *c, unsigned q);
/* A change of enabled. */
int vhost_queue_enable(struct vhost_conn *c, unsigned q, bool on);
/* Replace a descriptor of the queue; the fd (-1: none) is taken over. */
void vhost_queue_call_set(struct vhost_conn *c, unsigned q, int fd);
void vhost_queue_err_set(struct vhost_conn *c, unsigned q, int fd);
void vhost_queue_kick_set(struct vhost_conn *c, unsigned q, int fd);
void vhost_backend_fd_set(struct vhost_conn *c, int fd);
/* Stopped, disabled, without descriptors: as at the beginning. The device forgets all. */
void vhost_device_reset(struct vhost_conn *c);
void vhost_queues_close(struct vhost_conn *c);
/* The device's signals. */
extern const struct split_signal vhost_signal;

#endif
