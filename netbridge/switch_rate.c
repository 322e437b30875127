/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rates: two token buckets a port and direction, in bytes and in frames. A burst is what a bucket
 * holds. (rte_meter knows bytes only, reads nothing but the processor's own counter as time, and
 * would tie every port to DPDK.)
 */
#include "netbridge/switch_priv.h"

#define NS_PER_S      1000000000ull
#define BURST_SHARE   10u /* of a second */
#define BURST_FRAMES  32u
#define REFILL_MAX_NS NS_PER_S

static uint64_t burst_bytes(const struct net_switch_rate *r)
{
	uint64_t burst = r->burst_bytes ? r->burst_bytes : r->bytes_per_s / BURST_SHARE;

	return burst > NET_FRAME_MAX ? burst : NET_FRAME_MAX;
}

static uint64_t burst_frames(const struct net_switch_rate *r)
{
	uint64_t burst = r->frames_per_s / BURST_SHARE;

	return burst > BURST_FRAMES ? burst : BURST_FRAMES;
}

/* tokens + what came in ns, at most the burst; both in 1 / 10^9. */
static uint64_t refill(uint64_t tokens, uint64_t per_s, uint64_t ns, uint64_t burst)
{
	unsigned __int128 sum = (unsigned __int128)per_s * ns + tokens;
	unsigned __int128 most = (unsigned __int128)burst * NS_PER_S;

	if (most > UINT64_MAX)
		most = UINT64_MAX;
	return (uint64_t)(sum < most ? sum : most);
}

bool switch_rate_take(
	struct switch_tokens *t, const struct net_switch_rate *rate, uint64_t now_ns, uint32_t len)
{
	uint64_t ns = now_ns > t->at_ns ? now_ns - t->at_ns : 0;
	uint64_t need = len * NS_PER_S;

	/* The first frame, or one after a long silence, finds full buckets. */
	if (!t->at_ns || ns > REFILL_MAX_NS * BURST_SHARE)
		t->bytes = t->frames = UINT64_MAX;
	if (ns || !t->at_ns) {
		t->bytes = refill(t->bytes, rate->bytes_per_s, ns, burst_bytes(rate));
		t->frames = refill(t->frames, rate->frames_per_s, ns, burst_frames(rate));
		t->at_ns = now_ns;
	}
	if (rate->bytes_per_s && t->bytes < need)
		return false;
	if (rate->frames_per_s && t->frames < NS_PER_S)
		return false;
	if (rate->bytes_per_s)
		t->bytes -= need;
	if (rate->frames_per_s)
		t->frames -= NS_PER_S;
	return true;
}
