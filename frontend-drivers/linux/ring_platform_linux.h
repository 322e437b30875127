/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * ring/ in a Linux kernel: what ring/ring_platform.h asks of its environment. Named by
 * RING_PLATFORM_HEADER when a module is built (see Kbuild). Any context; nothing sleeps.
 *
 * The other side of a queue runs on another processor even when this kernel was built for a single
 * one, so the barriers are the virt_ ones, which such a kernel does not drop.
 */
#ifndef SLUICE_RING_PLATFORM_LINUX_H
#define SLUICE_RING_PLATFORM_LINUX_H

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/limits.h>
#include <linux/prefetch.h>
#include <linux/string.h>
#include <linux/types.h>
#include <asm/barrier.h>

#define RING_CACHE_LINE 64u

/* The kernel's own names are macros of the same values: these are what ring/ is written in. */
enum {
	RING_EAGAIN = 11,
	RING_EFAULT = 14,
	RING_EEXIST = 17,
	RING_EINVAL = 22,
	RING_ENOSPC = 28,
	RING_ELOOP = 40,
	RING_EPROTO = 71,
	RING_EOVERFLOW = 75,
};

#define UINT32_MAX U32_MAX
#define UINT64_MAX U64_MAX

#define ring_load_relaxed(p)     READ_ONCE(*(p))
#define ring_load_acquire(p)     virt_load_acquire(p)
#define ring_store_relaxed(p, v) WRITE_ONCE(*(p), v)
#define ring_store_release(p, v) virt_store_release(p, v)

/* Only ever used on 64-bit words of a bitmap. */
static inline void ring_or_release(uint64_t *p, uint64_t v)
{
	smp_mb__before_atomic();
	atomic64_or((s64)v, (atomic64_t *)p);
}

/* Orders an earlier store before a later load. */
static inline void ring_mb(void)
{
	virt_mb();
}

static inline void ring_copy(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
}

static inline void ring_prefetch(const void *p)
{
	prefetch(p);
}

static inline void ring_prefetch_write(const void *p)
{
	prefetchw(p);
}

#define RING_INLINE      static __always_inline
#define ring_likely(x)   likely(x)
#define ring_unlikely(x) unlikely(x)

#endif
