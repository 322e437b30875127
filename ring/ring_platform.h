/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The one place where ring/ meets the environment it is compiled in: fixed-width types, barriers
 * and the accessors for memory shared with the other side. Hosted and freestanding C share this
 * file; a Linux kernel build defines RING_PLATFORM_HEADER to name its own.
 *
 * Every access to shared memory goes through ring_load_* / ring_store_*: the other side may write
 * the same bytes at any moment, so each value is read exactly once.
 */
#ifndef RING_PLATFORM_H
#define RING_PLATFORM_H

#ifdef RING_PLATFORM_HEADER
#include RING_PLATFORM_HEADER
#else

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_CACHE_LINE 64u

/* errno values as Linux numbers them: freestanding guests have no <errno.h>. */
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

#define ring_load_relaxed(p)     __atomic_load_n((p), __ATOMIC_RELAXED)
#define ring_load_acquire(p)     __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define ring_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define ring_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

#define ring_or_release(p, v) ((void)__atomic_fetch_or((p), (v), __ATOMIC_RELEASE))

/* Orders an earlier store before a later load: the only barrier x86 does not give for free. */
static inline void ring_mb(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* memcpy and memset are the two functions a freestanding program must bring along. */
static inline void ring_copy(void *to, const void *from, size_t len)
{
	__builtin_memcpy(to, from, len);
}

static inline void ring_prefetch(const void *p)
{
	__builtin_prefetch(p, 0, 3);
}

/* With the right to write it, in one transfer (PREFETCHW, which processors without it take for
 * nothing). */
static inline void ring_prefetch_write(const void *p)
{
	__asm__ volatile("prefetchw %0" : : "m"(*(const unsigned char *)p));
}

#define RING_INLINE      static inline __attribute__((always_inline))
#define ring_likely(x)   __builtin_expect(!!(x), 1)
#define ring_unlikely(x) __builtin_expect(!!(x), 0)

#endif
#endif
