/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the vhost-user front-end says next, and what it makes of the answers. First a greeting, in
 * steps; then whatever the guest wants and the back-end has not been told.
 */
#include <errno.h>
#include <stdio.h>

#include "backend/vhost_client_priv.h"

#define CONFIG_HEADER 12u

static void ask(struct vhost_client *c, struct vhost_user_message *m, uint32_t request)
{
	m->h.request = request;
	m->h.size = 0;
	c->s.awaited = request;
	c->s.awaited_ack = false;
}

/* ------------------------------------------------------------------ the greeting */

static bool greet_features(struct vhost_client *c, struct vhost_user_message *m)
{
	ask(c, m, VHOST_USER_GET_FEATURES);
	return true;
}

static bool greet_protocol(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!(c->s.features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
		return false;
	ask(c, m, VHOST_USER_GET_PROTOCOL_FEATURES);
	return true;
}

static bool greet_protocol_set(struct vhost_client *c, struct vhost_user_message *m)
{
	const uint64_t used = VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) |
			      VIRTIO_BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
			      VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
			      VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
			      VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) |
			      VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |
			      VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);

	if (!(c->s.features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
		return false;
	c->s.protocol &= used;
	if (!vhost_config_wanted(c))
		c->s.protocol &= ~(VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) |
				   VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ));
	if (!c->kind->keeps)
		c->s.protocol &= ~VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
	m->h.request = VHOST_USER_SET_PROTOCOL_FEATURES;
	m->h.size = sizeof(m->p.u64);
	m->p.u64 = c->s.protocol;
	return true;
}

static bool greet_owner(struct vhost_client *c, struct vhost_user_message *m)
{
	(void)c;
	m->h.request = VHOST_USER_SET_OWNER;
	m->h.size = 0;
	return true;
}

static bool greet_queues(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!vhost_offers(c, VHOST_USER_PROTOCOL_F_MQ))
		return false;
	ask(c, m, VHOST_USER_GET_QUEUE_NUM);
	return true;
}

static bool greet_channel(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!vhost_offers(c, VHOST_USER_PROTOCOL_F_BACKEND_REQ) ||
		!vhost_offers(c, VHOST_USER_PROTOCOL_F_CONFIG) || vhost_channel_open(c))
		return false;
	m->h.request = VHOST_USER_SET_BACKEND_REQ_FD;
	m->h.size = 0;
	m->fds[0] = c->channel_peer;
	m->nfds = 1;
	return true;
}

static bool config_ask(struct vhost_client *c, struct vhost_user_message *m)
{
	uint32_t n = vhost_config_wanted(c);

	if (!n || !vhost_offers(c, VHOST_USER_PROTOCOL_F_CONFIG))
		return false;
	ask(c, m, VHOST_USER_GET_CONFIG);
	memset(&m->p.config, 0, sizeof(m->p.config));
	m->p.config.size = n;
	m->h.size = CONFIG_HEADER + n;
	return true;
}

static bool (*const greeting[])(struct vhost_client *c, struct vhost_user_message *m) = {
	greet_features,
	greet_protocol,
	greet_protocol_set,
	greet_owner,
	greet_queues,
	greet_channel,
	config_ask,
};
#define GREETINGS (sizeof(greeting) / sizeof(greeting[0]))

bool vhost_talk_greeted(const struct vhost_client *c)
{
	return c->s.step > GREETINGS;
}

/* All is known of this back-end. False: it will not do. */
static bool greeted(struct vhost_client *c)
{
	char why[BACKEND_WHY_MAX];
	int err = c->created ? vhost_kind_fits(c, why) : vhost_kind_offer(c, why);

	if (err) {
		vhost_link_lost(c, err, "%.110s", why);
		return false;
	}
	c->s.step++;
	c->retry_ms = 0;
	counter_add(&c->connections, 1);
	atomic_store(&c->connected, true);
	if (c->lost_noted)
		vhost_note_line(c, "back-end found again");
	c->lost_noted = false;
	vhost_created(c, 0, "");
	return true;
}

/* ------------------------------------------------------------------ what the guest wants */

static bool next_config(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!c->s.config_stale)
		return false;
	c->s.config_stale = false;
	return config_ask(c, m);
}

static bool next_slots(struct vhost_client *c, struct vhost_user_message *m)
{
	if (c->s.slots_asked || !vhost_offers(c, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
		return false;
	c->s.slots_asked = true;
	ask(c, m, VHOST_USER_GET_MAX_MEM_SLOTS);
	return true;
}

static bool next_features(struct vhost_client *c, struct vhost_user_message *m)
{
	/* what the guest accepted and the back-end knows: the rest is answered here */
	uint64_t f = c->common.driver_features & c->s.features;

	f |= c->s.features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	if (vhost_log_wanted(c))
		f |= VIRTIO_BIT(VHOST_F_LOG_ALL);
	if (c->s.features_any && c->s.features_told == f)
		return false;
	c->s.features_any = true;
	c->s.features_told = f;
	m->h.request = VHOST_USER_SET_FEATURES;
	m->h.size = sizeof(m->p.u64);
	m->p.u64 = f;
	return true;
}

/* In this order: what a later one says may rest on what an earlier one did. */
static const struct {
	bool (*next)(struct vhost_client *c, struct vhost_user_message *m);
	bool idle; /* also while the guest uses no queue */
} wishes[] = {
	{next_config, true},
	{vhost_queue_stop_next, true},
	{next_slots, false},
	{vhost_memory_next, false},
	{vhost_log_next, false},
	{next_features, false},
	{vhost_kept_get_next, false},
	{vhost_kept_set_next, false},
	{vhost_queue_next, false},
	{vhost_queue_call_next, false},
	{vhost_queue_enable_next, false},
};

/* Messages whose failure would leave the device dead without a word. */
static bool wants_ack(uint32_t request)
{
	return request == VHOST_USER_SET_MEM_TABLE || request == VHOST_USER_ADD_MEM_REG ||
	       request == VHOST_USER_SET_VRING_ADDR || request == VHOST_USER_SET_BACKEND_REQ_FD ||
	       request == VHOST_USER_SET_VRING_CALL || request == VHOST_USER_SET_INFLIGHT_FD;
}

static bool talk_make(struct vhost_client *c, struct vhost_user_message *m)
{
	while (c->s.step < GREETINGS)
		if (greeting[c->s.step++](c, m))
			return true;
	if (c->s.step == GREETINGS && !greeted(c))
		return false;
	for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]) && c->socket >= 0; i++)
		if ((wishes[i].idle || vhost_queues_any(c)) && wishes[i].next(c, m))
			return true;
	return false;
}

bool vhost_talk_next(struct vhost_client *c, struct vhost_user_message *m)
{
	if (!talk_make(c, m))
		return false;
	if (!c->s.awaited && wants_ack(m->h.request) &&
		vhost_offers(c, VHOST_USER_PROTOCOL_F_REPLY_ACK)) {
		m->h.flags |= VHOST_USER_NEED_REPLY;
		c->s.awaited = m->h.request;
		c->s.awaited_ack = true;
	}
	return true;
}

/* ------------------------------------------------------------------ answers */

static int breach(struct vhost_client *c, uint32_t request)
{
	vhost_link_lost(c, -EPROTO, "a wrong answer to request %u", request);
	return -EPROTO;
}

static int reply_config(struct vhost_client *c, const struct vhost_user_message *m)
{
	uint32_t n = vhost_config_wanted(c);

	if (m->h.size != CONFIG_HEADER + n || m->p.config.offset || m->p.config.size != n) {
		/* an empty one says: no */
		if (!m->h.size) {
			vhost_link_lost(c, -ENOTSUP, "its configuration space is too small");
			return -ENOTSUP;
		}
		return breach(c, VHOST_USER_GET_CONFIG);
	}
	vhost_config_take(c, m->p.config.bytes, n);
	return 0;
}

static int reply_u64(struct vhost_client *c, uint32_t request, uint64_t v)
{
	switch (request) {
	case VHOST_USER_GET_FEATURES:
		c->s.features = v;
		return 0;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		c->s.protocol = v;
		return 0;
	case VHOST_USER_GET_QUEUE_NUM:
		c->s.queues_max = v;
		return 0;
	case VHOST_USER_GET_MAX_MEM_SLOTS:
		c->s.slots_max = v;
		return 0;
	}
	if (!v)
		return 0;
	vhost_link_lost(c, -ENOTSUP, "it refuses request %u", request);
	return -ENOTSUP;
}

static int reply_take(struct vhost_client *c, struct vhost_user_message *m, bool ack)
{
	uint32_t request = m->h.request;

	if (m->nfds && (request != VHOST_USER_GET_INFLIGHT_FD || ack))
		return breach(c, request);
	if (!ack) {
		switch (request) {
		case VHOST_USER_GET_CONFIG:
			return reply_config(c, m);
		case VHOST_USER_GET_INFLIGHT_FD:
			return vhost_kept_take(c, m) ? breach(c, request) : 0;
		case VHOST_USER_GET_VRING_BASE:
			if (m->h.size != sizeof(m->p.state) ||
				m->p.state.index != c->s.awaited_queue ||
				vhost_queue_based(c, m->p.state.index, m->p.state.num))
				return breach(c, request);
			return 0;
		case VHOST_USER_SET_LOG_BASE:
			return 0; /* what it holds is said nowhere */
		}
	}
	return m->h.size == sizeof(m->p.u64) ? reply_u64(c, request, m->p.u64) : breach(c, request);
}

int vhost_talk_reply(struct vhost_client *c, struct vhost_user_message *m)
{
	uint32_t request = c->s.awaited;
	bool ack = c->s.awaited_ack;
	unsigned queue = c->s.awaited_queue;
	int err;

	if (!request || m->h.request != request || !(m->h.flags & VHOST_USER_REPLY)) {
		vhost_link_lost(c, -EPROTO, "an answer (%u) that nobody asked for", m->h.request);
		return -EPROTO;
	}
	c->s.awaited = 0;
	c->s.awaited_ack = false;
	err = reply_take(c, m, ack);
	/* what the old descriptor was told may have been lost */
	if (!err && request == VHOST_USER_SET_VRING_CALL)
		vhost_queue_interrupt(c, queue);
	return err;
}
