/* SPDX-License-Identifier: BSD-2-Clause */
/* Faults on purpose: what a specification says, and a layer's beginning and end. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blk/fault_priv.h"

#define FAULT_SPEC_MAX   256u
#define FAULT_CACHE_SIZE (4u << 20)
#define FAULT_CACHE_MIN  (64u << 10)
#define FAULT_CACHE_MAX  (256u << 20)
#define FAULT_DELAY_MAX  1000000u

/* ------------------------------------------------------------------ the specification */

static int spec_number(const char *text, char **end, uint64_t *out)
{
	static const char units[] = "KMG";
	const char *unit;
	unsigned shift = 0;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*out = strtoull(text, end, 0);
	if (errno)
		return -EINVAL;
	unit = **end ? strchr(units, **end) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		++*end;
	}
	if (*out > (uint64_t)INT64_MAX >> shift)
		return -EINVAL;
	*out <<= shift;
	return 0;
}

static int spec_range(struct fault_spec *spec, const char *value)
{
	struct fault_range *range = &spec->ranges[spec->nranges];
	char *end;

	if (spec->nranges == FAULT_RANGES_MAX || spec_number(value, &end, &range->offset) ||
		*end != '+' || spec_number(end + 1, &end, &range->length) || *end || !range->length)
		return -EINVAL;
	spec->nranges++;
	return 0;
}

enum spec_key { SPEC_SEED, SPEC_SIZE, SPEC_TORN, SPEC_EIO, SPEC_EVERY, SPEC_ENOSPC, SPEC_DELAY };

static const struct {
	const char *name, *hint;
	uint64_t min, max;
} spec_keys[] = {
	[SPEC_SEED] = {"seed", "expected a number", 0, INT64_MAX},
	[SPEC_SIZE] = {"size", "expected 64K to 256M", FAULT_CACHE_MIN, FAULT_CACHE_MAX},
	[SPEC_TORN] = {"torn", "expected 512 or 4096", 512, 4096},
	[SPEC_EIO] = {"eio", "expected OFFSET+LENGTH in bytes, at most 8 times", 0, 0},
	[SPEC_EVERY] = {"eio-every", "expected a number from 1", 1, INT64_MAX},
	[SPEC_ENOSPC] = {"enospc-after", "expected a number of bytes", 0, INT64_MAX},
	[SPEC_DELAY] = {"delay-us", "expected 1 to 1000000", 1, FAULT_DELAY_MAX},
};
#define SPEC_KEYS (sizeof(spec_keys) / sizeof(spec_keys[0]))

static int spec_value(struct fault_spec *spec, enum spec_key key, const char *value)
{
	uint64_t n;
	char *end;

	if (key == SPEC_EIO)
		return spec_range(spec, value);
	if (spec_number(value, &end, &n) || *end || n < spec_keys[key].min ||
		n > spec_keys[key].max || (key == SPEC_TORN && n != 512 && n != 4096))
		return -EINVAL;
	switch (key) {
	case SPEC_SEED:
		spec->seed = n;
		break;
	case SPEC_SIZE:
		spec->size = n & ~(uint64_t)4095;
		break;
	case SPEC_TORN:
		spec->torn = (uint32_t)n;
		break;
	case SPEC_EVERY:
		spec->eio_every = n;
		break;
	case SPEC_DELAY:
		spec->delay_us = (unsigned)n;
		break;
	default:
		spec->enospc = true;
		spec->enospc_left = n;
		break;
	}
	return 0;
}

/* One item, with its value as key=value or, after a colon, as the item that follows. */
static int spec_item(struct fault_spec *spec, char *item, char **rest, char *why)
{
	char *value = strchr(item, '=');

	if (value)
		*value++ = '\0';
	if (!value && (!strcmp(item, "cache") || !strcmp(item, "lose-flush"))) {
		spec->cache = true;
		spec->lose_flush |= *item == 'l';
		return 0;
	}
	for (unsigned i = 0; i < SPEC_KEYS; i++) {
		if (strcmp(item, spec_keys[i].name) != 0)
			continue;
		if (!value)
			value = strsep(rest, ":");
		if (value && !spec_value(spec, (enum spec_key)i, value))
			return 0;
		blk_why(why, "fault %s=%.40s: %s", item, value ? value : "", spec_keys[i].hint);
		return -EINVAL;
	}
	blk_why(why,
		"fault %.40s: unknown; known are cache, seed=, size=, torn=, lose-flush, eio=, "
		"eio-every=, enospc-after=, delay-us=",
		item);
	return -EINVAL;
}

int fault_spec_parse(struct fault_spec *spec, const char *text, char why[BLK_WHY_MAX])
{
	size_t length = strlen(text);
	char copy[FAULT_SPEC_MAX], *rest = copy, *item;
	int rc = 0;

	memset(spec, 0, sizeof(*spec));
	spec->size = FAULT_CACHE_SIZE;
	spec->torn = BLK_SECTOR;
	if (length >= sizeof(copy)) {
		blk_why(why, "fault: longer than %u characters", FAULT_SPEC_MAX - 1);
		return -EINVAL;
	}
	memcpy(copy, text, length + 1);
	while (!rc && (item = strsep(&rest, ":")))
		rc = spec_item(spec, item, &rest, why);
	if (!rc && !spec->cache && !spec->nranges && !spec->eio_every && !spec->enospc &&
		!spec->delay_us) {
		blk_why(why, "fault %.40s: does nothing; add cache, or an error to inject", text);
		rc = -EINVAL;
	}
	return rc;
}

int blk_fault_check(const char *text, char why[BLK_WHY_MAX])
{
	struct fault_spec spec;

	return fault_spec_parse(&spec, text, why);
}

/* ------------------------------------------------------------------ beginning and end */

static int fault_memory_get(struct blk_fault *f)
{
	int rc;

	if (!f->spec.cache)
		return 0;
	rc = fault_cache_open(&f->cache, f->spec.size);
	if (rc)
		return rc;
	f->order = calloc(f->cache.capacity, sizeof(*f->order));
	f->runs = calloc(f->cache.capacity, sizeof(*f->runs));
	return f->order && f->runs ? 0 : -ENOMEM;
}

static void fault_free(struct blk_fault *f)
{
	if (f->event_fd >= 0)
		close(f->event_fd);
	fault_cache_close(&f->cache);
	free(f->order);
	free(f->runs);
	pthread_cond_destroy(&f->cond);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static int fault_thread_start(struct blk_fault *f, char *why)
{
	sigset_t all, old;
	int rc;

	/* Signals are for the program's own threads. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* memory of a guest's that went away: its owner's to handle */
	pthread_sigmask(SIG_BLOCK, &all, &old);
	rc = -pthread_create(&f->thread, NULL, fault_thread, f);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc) {
		blk_why(why, "%s: no thread for fault=: %s", f->image->name, strerror(-rc));
		return rc;
	}
	pthread_mutex_lock(&f->lock);
	while (!f->ready)
		pthread_cond_wait(&f->cond, &f->lock);
	rc = f->ready_result;
	if (rc)
		blk_why(why, "%s", f->ready_why);
	pthread_mutex_unlock(&f->lock);
	if (rc)
		pthread_join(f->thread, NULL);
	return rc;
}

int blk_fault_open(struct blk_image *image, const char *text, char *why)
{
	struct blk_fault *f = calloc(1, sizeof(*f));
	int rc;

	if (!f) {
		blk_why(why, "%s: no memory for fault=", image->name);
		return -ENOMEM;
	}
	f->image = image;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->cond, NULL);
	f->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = f->event_fd < 0 ? -errno : fault_spec_parse(&f->spec, text, why);
	if (rc)
		goto fail;
	/* Never 0, and unlike for seeds that are close to each other. */
	f->random = (f->spec.seed + 1) * 0x9e3779b97f4a7c15ull | 1;
	rc = fault_memory_get(f);
	if (rc) {
		blk_why(why, "%s: no memory for fault=: use a smaller size=", image->name);
		goto fail;
	}
	rc = fault_thread_start(f, why);
	if (rc)
		goto fail;
	image->fault = f;
	blk_image_note(image, "faults on purpose: %s", text);
	return 0;
fail:
	fault_free(f);
	return rc;
}

void blk_fault_close(struct blk_fault *f)
{
	const uint64_t one = 1;

	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	f->stop = true;
	pthread_mutex_unlock(&f->lock);
	while (write(f->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(f->thread, NULL);
	fault_free(f);
}

int blk_fault_sync(struct blk_fault *f)
{
	const uint64_t one = 1;
	unsigned ticket;
	int rc;

	pthread_mutex_lock(&f->lock);
	ticket = ++f->sync_asked;
	while (write(f->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	while ((int)(f->synced - ticket) < 0)
		pthread_cond_wait(&f->cond, &f->lock);
	rc = f->sync_result;
	pthread_mutex_unlock(&f->lock);
	return rc;
}

void blk_fault_counters_get(const struct blk_image *image, struct blk_fault_counters *out)
{
	struct blk_fault *f = image->fault;

	memset(out, 0, sizeof(*out));
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	*out = f->sum;
	pthread_mutex_unlock(&f->lock);
}
