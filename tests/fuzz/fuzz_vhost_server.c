/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A front-end that says anything at all: each input is one connection's messages. Some are rough
 * (bytes as they come), most are made well enough to get past the first checks. The server must
 * survive, and end the connection or answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_split_rig.h"

#define IMAGE_BYTES (64u << 10)
#define MEMORY      (64u << 10)
#define USER        0x7f0000000000ull
#define MESSAGES    40u

static struct io_thread *io;
static struct blk_image *image;
static struct vhost_server *server;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int memory_fd;
static uint8_t *memory;

static int create(void *ctx, unsigned connection, struct split_device **out,
	const struct ring_mem *mem, const struct split_signal *signal, char why[BACKEND_WHY_MAX])
{
	const struct split_blk_options o = {
		.image = image, .queues = 2, .queue_size = 16, .ring = SPLIT_RING_PACKED};

	(void)ctx;
	(void)connection;
	return split_blk_create(out, io, mem, signal, &o, why);
}

static void fuzz_open(void)
{
	struct io_thread_options io_options = {.name = "fuzz", .no_uring = true};
	struct blk_options o = {
		.fd = (int)syscall(SYS_memfd_create, "disk", 0), .engine = BLK_ENGINE_THREADS};
	struct vhost_server_options so = {.fd = socket(AF_UNIX, SOCK_STREAM, 0), .create = create};
	char why[BACKEND_WHY_MAX];
	socklen_t len = sizeof(address);

	fuzz_check(o.fd >= 0 && !ftruncate(o.fd, IMAGE_BYTES), "image");
	fuzz_check(!blk_open(&image, &o, why), "image");
	fuzz_check(!io_thread_create(&io, &io_options, why), "I/O thread");
	memory_fd = (int)syscall(SYS_memfd_create, "guest", 0);
	fuzz_check(memory_fd >= 0 && !ftruncate(memory_fd, MEMORY), "memory");
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
	fuzz_check(memory != MAP_FAILED, "memory");
	/* a name of the kernel's choosing, in no file system */
	fuzz_check(!bind(so.fd, (struct sockaddr *)&address, sizeof(sa_family_t)) &&
			   !listen(so.fd, 4) &&
			   !getsockname(so.fd, (struct sockaddr *)&address, &len) &&
			   !fcntl(so.fd, F_SETFL, O_NONBLOCK),
		"socket");
	address.sun_path[0] = '\0';
	fuzz_check(!vhost_server_create(&server, &so, why), "server");
}

static uint64_t fuzz_u64(struct fuzz_input *in)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 8; i++)
		v |= (uint64_t)fuzz_u8(in) << 8 * i;
	return v;
}

/* A number that is likely to mean something: a page of memory, a small one, or any. */
static uint64_t likely(struct fuzz_input *in, uint64_t base)
{
	uint8_t how = fuzz_u8(in);

	switch (how & 3) {
	case 0:
		return base + (uint64_t)(how >> 2) * 1024;
	case 1:
		return how >> 2;
	case 2:
		return (uint64_t)(how >> 2) * 4096;
	default:
		return fuzz_u64(in);
	}
}

/* The payload of a message, and how long it should be. */
static uint32_t payload(struct fuzz_input *in, uint32_t request, uint64_t *w)
{
	memset(w, 0, 34 * sizeof(*w));
	switch (request) {
	case 2:
	case 16:
		w[0] = fuzz_u64(in);
		return 8;
	case 5:
	case 37:
	case 38: {
		unsigned n = request == 5 ? fuzz_u8(in) % 4 : 1;

		w[0] = request == 5 ? n : 0;
		for (unsigned i = 0; i < n; i++) {
			w[1 + 4 * i] = likely(in, FUZZ_GPA);
			w[2 + 4 * i] = likely(in, 4096);
			w[3 + 4 * i] = likely(in, USER);
			w[4 + 4 * i] = likely(in, 0);
		}
		return 8 + 32 * n;
	}
	case 9:
		w[0] = fuzz_u8(in) % 4;
		for (unsigned i = 1; i < 5; i++)
			w[i] = likely(in, USER);
		return 40;
	case 6:
		w[0] = likely(in, 4096);
		w[1] = likely(in, 0);
		return 16;
	case 31:
	case 32:
		w[0] = likely(in, 4096);
		w[1] = likely(in, 0);
		w[2] = fuzz_u8(in) % 4 | (uint64_t)fuzz_u8(in) << 16;
		return 24;
	case 24:
	case 25:
		w[0] = fuzz_u8(in) | (uint64_t)fuzz_u8(in) << 32;
		w[1] = fuzz_u64(in);
		return 12 + (uint32_t)(w[0] >> 32);
	case 8:
	case 10:
	case 11:
	case 18:
		w[0] = fuzz_u8(in) % 4 | (uint64_t)fuzz_u16(in) << 32;
		return 8;
	case 12:
	case 13:
	case 14:
		w[0] = fuzz_u8(in) % 4;
		return 8;
	case 39:
		w[0] = fuzz_u8(in);
		return 8;
	default:
		return 0;
	}
}

static void message(int fd, struct fuzz_input *in, const int event_fd)
{
	uint8_t how = fuzz_u8(in);
	uint32_t request = fuzz_u8(in) % 44;
	uint64_t words[34];
	uint32_t h[3] = {request, 1u | (how & 8), 0};
	uint8_t bytes[12 + sizeof(words)];
	char control[CMSG_SPACE(sizeof(int) * 4)] = {0};
	struct iovec iov = {bytes, 12};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	unsigned nfds = how >> 4 & 3;
	int fds[4] = {memory_fd, memory_fd, memory_fd, memory_fd};

	h[2] = payload(in, request, words);
	if (request == 5)
		nfds = (unsigned)words[0] & 3;
	if (request == 12 || request == 13 || request == 14)
		fds[0] = event_fd;
	if (!(how & 7)) { /* rough */
		h[1] = fuzz_u8(in);
		h[2] = fuzz_u16(in);
	}
	memcpy(bytes, h, 12);
	memcpy(bytes + 12, words, sizeof(words));
	iov.iov_len += h[2] < sizeof(words) ? h[2] : sizeof(words);
	if (nfds) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
	}
	(void)sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	/* guest memory meanwhile says something else */
	for (unsigned i = how & 3; i; i--) {
		uint16_t at = fuzz_u16(in);

		memory[at] = fuzz_u8(in);
		memory[(uint16_t)(at + 1)] = fuzz_u8(in);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct vhost_server_counters before, after;
	char discard[4096];
	int fd, event_fd;

	if (!server)
		fuzz_open();
	memset(memory, 0, MEMORY);
	vhost_server_counters_get(server, &before);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	event_fd = eventfd(1, EFD_NONBLOCK);
	fuzz_check(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(sa_family_t) + 6),
		"connection");
	for (unsigned i = 0; i < MESSAGES && in.n; i++)
		message(fd, &in, event_fd);
	shutdown(fd, SHUT_WR);
	/* descriptors that come along are the socket's to close: they are not asked for */
	while (recv(fd, discard, sizeof(discard), 0) > 0)
		;
	close(fd);
	close(event_fd);
	do
		vhost_server_counters_get(server, &after);
	while (after.connected || after.connections == before.connections);
	return 0;
}
