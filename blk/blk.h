/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk images and the engines that read and write them. This is the only header of blk/ that other
 * folders include; it knows no guest, no ring and no device.
 *
 * An image is opened once, claimed, and used through channels, one for each thread that uses it:
 * submit, kick, poll, and a descriptor to wait on. Every disk model, emulated or split, ends here.
 *
 * Errors: 0 or -errno. Functions that a user's option leads to also fill `why`, one line without a
 * newline that names what was wrong and what would do.
 * Units: offsets and lengths in bytes.
 */
#ifndef BLK_H
#define BLK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define BLK_SECTOR  512u
#define BLK_WHY_MAX 256u

enum blk_engine {
	BLK_ENGINE_AUTO,
	BLK_ENGINE_URING,
	BLK_ENGINE_AIO,
	BLK_ENGINE_THREADS,
	BLK_ENGINE_NBD, /* of an image that is a URI, never of another; not a user's to choose */
};
enum blk_direct { BLK_DIRECT_AUTO, BLK_DIRECT_ON, BLK_DIRECT_OFF };
enum blk_format { BLK_FORMAT_AUTO, BLK_FORMAT_RAW, BLK_FORMAT_QCOW2 };

/* "auto", "io_uring", "aio", "threads". blk_engine_parse: -EINVAL for anything else. */
const char *blk_engine_name(enum blk_engine engine);
int blk_engine_parse(const char *name, enum blk_engine *out);

/* "auto", "raw", "qcow2". blk_format_parse: -EINVAL for anything else. */
const char *blk_format_name(enum blk_format format);
int blk_format_parse(const char *name, enum blk_format *out);

struct blk_options {
	const char *path; /* NULL: use fd */
	int fd;           /* an open descriptor to use instead, taken over on success; -1: none */
	/*
	 * Instead of both: a disk served by the NBD protocol, "nbd://host:port/export",
	 * "nbd+unix:///export?socket=PATH" (libnbd, loaded when first used). The claim is the
	 * server's business. A lost connection is made again, for as long as it takes, and what
	 * had no answer is asked again; requests meanwhile wait. (What a server had acknowledged
	 * and not flushed when it died may be lost, as with a disk that loses power.) Opening
	 * waits 10 s: -ETIMEDOUT, -ECONNREFUSED, -ENOENT, -EROFS: the export is read-only;
	 * -ENOTSUP: it has no blocks of 512 bytes; -ELIBACC: no libnbd.
	 */
	const char *nbd;
	/* -EBUSY is waited out up to so long: for the claim of a process that is about to die. */
	unsigned claim_wait_ms;
	bool readonly;
	enum blk_direct direct;
	enum blk_engine engine;
	/*
	 * AUTO: qcow2 if the image begins as one, else raw. Of an image that is raw by that alone,
	 * the guest may not make a qcow2 image: a write that would is refused (-EPERM), for with
	 * the next start it would choose files of the host to be read. RAW writes anything.
	 */
	enum blk_format format;
	bool sqpoll; /* io_uring: a kernel thread picks submissions up (private ring only) */
	bool registered_memory; /* io_uring: register guest memory; falls back when refused */
	const char *fault;      /* faults on purpose, see blk_fault_check(); NULL: none */
};

/* What was found and chosen, for tables, reports and the guest's geometry. */
struct blk_info {
	uint64_t size;          /* bytes, a multiple of BLK_SECTOR; what the guest sees */
	enum blk_format format; /* never AUTO */
	uint32_t cluster_size;  /* 0: raw */
	uint32_t backing_files; /* in the chain below; 0: none */
	char backing[128];      /* the first of them, as the image names it, maybe cut */
	uint32_t block_size;    /* smallest offset/length unit that needs no help: 512 or 4096 */
	enum blk_engine engine; /* never AUTO */
	bool direct;
	bool readonly;
	bool discard;         /* the host can punch holes or discard */
	bool write_zeroes;    /* the host can zero ranges without data */
	char file_system[24]; /* "ext4", "tmpfs", "block device" ... */
	char note[128]; /* why not the best: "io_uring not permitted: using libaio"; empty when all
			   is best */
};

struct blk_image;
struct blk_channel;

/*
 * Opens, checks and claims an image: a regular file or block device whose size is a multiple of
 * 512 bytes and not 0. The claim is an OFD lock on the byte range QEMU uses (shared for readers,
 * exclusive for a writer): -EBUSY when somebody else has it. A directory, a short or missing
 * image, direct=on where O_DIRECT is impossible, an engine the host forbids: -errno and `why`.
 * engine=auto takes the best the host allows (io_uring, then aio, then threads), probing it.
 * Any thread; blocks.
 */
int blk_open(struct blk_image **out, const struct blk_options *opts, char why[BLK_WHY_MAX]);

/* Every channel must be closed before. Does not flush, but for the tables of a qcow2 image. Any
 * thread. */
void blk_close(struct blk_image *image);

void blk_info_get(const struct blk_image *image, struct blk_info *out);

/*
 * Faults on purpose, for testing guests. A specification is a list of items with colons between.
 *
 * "cache": a volatile write cache. What was written, discarded or zeroed and not flushed is in
 * memory only, but for a random part that is written back early, in random order; so SIGKILL is
 * pulling the plug. blk_sync() and blk_close() write everything back. With it "size=BYTES" (4M),
 * "seed=N" (0), and "torn=512|4096" (512), the unit that is written whole or not at all.
 *
 * "lose-flush": such a cache, whose flushes succeed and do nothing: a test must notice.
 *
 * "eio=OFFSET+LENGTH": what touches the range fails with -EIO; up to 8 times.
 *
 * "eio-every=N": every Nth request does (flushes never, and they are not counted).
 *
 * "enospc-after=N": when N bytes were written or zeroed, any more of it fails with -ENOSPC.
 *
 * "delay-us=N": every answer comes so much later.
 *
 * A number may be hexadecimal and end in K, M or G; key:value is the same as key=value. An error
 * while writing back stays with the data: the next flush reports it. 0, or -EINVAL and `why`.
 */
int blk_fault_check(const char *text, char why[BLK_WHY_MAX]);

struct blk_fault_counters {
	uint64_t requests;
	uint64_t errors;       /* made on purpose */
	uint64_t cached;       /* sectors that went into the cache */
	uint64_t hits;         /* sectors read from it */
	uint64_t written;      /* sectors that went to the file */
	uint64_t early;        /* of these, before a flush asked */
	uint64_t full;         /* times that the cache had no room */
	uint64_t lost_flushes; /* that did nothing */
};

/* All 0 without faults. Any thread. */
void blk_fault_counters_get(const struct blk_image *image, struct blk_fault_counters *out);

/*
 * The image's user is about to go: requests that wait for a server which is gone, or gives no
 * answer for 5 s, end with -EIO from now on, so that channels can be closed. No effect on files.
 * Any thread, never blocks.
 */
void blk_abandon(struct blk_image *image);

/* Data and metadata to stable storage, synchronously (for shutdown). Blocks. */
int blk_sync(struct blk_image *image);

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES };

/*
 * One request. The caller owns it, and iov with what it points at, until done() is called, exactly
 * once, on the channel's thread, from blk_poll(), blk_uring_complete() or blk_kick(); never from
 * blk_submit(). res: 0, or -errno (-EINVAL out of range or not a multiple of 512, -EROFS, -ENOSPC,
 * -EIO ...). Short transfers are continued inside; a read past a concurrently shrunk end is -EIO.
 */
struct blk_request {
	enum blk_op op;
	bool unmap; /* BLK_WRITE_ZEROES: the range may be deallocated */
	uint64_t offset;
	uint64_t length; /* read and write: the sum of iov; flush: ignored */
	const struct iovec *iov;
	uint32_t niov;
	void (*done)(struct blk_request *req, int res);
	void *owner; /* the caller's */

	/* blk's own: not to be touched while submitted */
	struct blk_channel *channel;
	struct blk_request *next;
	void *bounce;
	uint64_t moved;
	uint32_t slot;
	uint16_t retries;
	uint8_t stage;
	bool checked;
	uint8_t mapped; /* holds its place in a qcow2 image; 0: no */
	int result;
	uint64_t at; /* where it is in the file */
};

struct io_uring;

struct blk_channel_options {
	/*
	 * The thread's own io_uring, or NULL. With it an io_uring image submits through that ring,
	 * so that one system call serves everything the thread does: blk prepares entries with
	 * user_data = a pointer whose low 3 bits are 0 and the ring's owner submits, reaps, and
	 * hands those completions to blk_uring_complete(). Without it the channel makes a ring of
	 * its own. Ignored by other engines.
	 */
	struct io_uring *ring;
	/*
	 * With direct I/O a longer batch goes to the kernel in parts of this size, so that the
	 * device starts while the rest is prepared, and its answers do not come all at once either:
	 * on a disk that answers a batch as a whole, 32 in flight move 15 % more so. 0: 8.
	 */
	uint32_t batch;
	uint32_t depth; /* requests in the kernel at once; 0: 256. More are queued inside, without
			   limit of their own */
};

struct blk_channel_counters {
	uint64_t requests;
	uint64_t system_calls; /* made for requests by this channel and its worker threads */
	uint64_t bounced;      /* requests that went through an aligned copy */
};

/* Opens a channel for the calling thread, which is then the only one to use it. */
int blk_channel_open(struct blk_channel **out, struct blk_image *image,
	const struct blk_channel_options *opts, char why[BLK_WHY_MAX]);

/* Waits for everything in flight (calling done()), then frees. Not with a borrowed ring that has
 * requests in flight: its owner drains first (blk_channel_inflight() == 0). */
void blk_channel_close(struct blk_channel *channel);

/* Queues a request. Never blocks, never fails: errors come through done(). */
void blk_submit(struct blk_channel *channel, struct blk_request *req);

/* Hands everything queued to the kernel as a batch; with a borrowed ring only prepares the entries
 * (the owner submits), but for whole parts of a long batch and a full ring, which it submits.
 * Also finishes requests that failed checks, and those that needed no waiting. */
void blk_kick(struct blk_channel *channel);

/* Reaps completions without blocking; the number of done() calls made. */
unsigned blk_poll(struct blk_channel *channel);

/* Becomes readable when blk_poll() has work; -1 with a borrowed ring. */
int blk_channel_fd(const struct blk_channel *channel);

uint32_t blk_channel_inflight(const struct blk_channel *channel);
void blk_channel_counters_get(const struct blk_channel *channel, struct blk_channel_counters *out);

/* One completion of a borrowed ring, user_data as blk put it there. On the ring's thread. The owner
 * submits afterwards, before it sleeps: the rest of a short transfer, or what had to wait, may have
 * been prepared. A few completions are blk's own and belong to no request. */
void blk_uring_complete(uint64_t user_data, int res);

/*
 * Registers guest memory (regions of host addresses) for transfers through this channel, if
 * blk_options.registered_memory asked for it; else does nothing (0). Channels that share a borrowed
 * ring give the same regions: the first one's are registered for all. Or -errno, where the memlock
 * limit or the kernel refuses: the channel then works as before and blk_info's note says so.
 */
int blk_channel_register_memory(
	struct blk_channel *channel, const struct iovec *regions, unsigned n);

#endif
