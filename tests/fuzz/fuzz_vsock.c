/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-vsock: packets of any header and shape, well-formed ones among them so that connections
 * come to be, buffers or none, and programs on the host that connect, write, read and leave at any
 * moment.
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_split_rig.h"

#define CID         3u
#define HOST_PORT   5u
#define HOST_FDS    6u
#define CONNECTIONS 6u
#define ACTIONS     64u

struct wire {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

static struct fuzz_rig rig;
static char path[64];
static int listener = -1;
static int host[HOST_FDS];

static void address(struct sockaddr_un *sa, const char *p, const char *suffix)
{
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	snprintf(sa->sun_path, sizeof(sa->sun_path), "%s%s", p, suffix);
}

static void fuzz_gone(void)
{
	struct sockaddr_un sa;

	for (unsigned k = 0; k < 16; k++) {
		char suffix[16];

		snprintf(suffix, sizeof(suffix), "-%u", k);
		address(&sa, path, suffix);
		unlink(sa.sun_path);
		snprintf(suffix, sizeof(suffix), "-%u_%u", k, HOST_PORT);
		address(&sa, path, suffix);
		unlink(sa.sun_path);
	}
}

static void fuzz_open(void)
{
	mkdir("build", 0777);
	mkdir("build/tmp", 0777);
	snprintf(path, sizeof(path), "build/tmp/fuzz-vsock-%d", (int)getpid());
	fuzz_rig_open(&rig);
	for (unsigned i = 0; i < HOST_FDS; i++)
		host[i] = -1;
	atexit(fuzz_gone);
}

static struct split_device *fuzz_device(unsigned choice)
{
	struct ring_features f = fuzz_features(choice);
	struct split_signal signal = fuzz_signal(&rig);
	struct sockaddr_un sa;
	char suffix[16], why[BACKEND_WHY_MAX];
	struct split_vsock_options o = {.socket = sa.sun_path,
		.cid = CID,
		.connections = CONNECTIONS,
		.queue_size = FUZZ_SIZE,
		.ring = choice & 8 ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT,
		.no_event_idx = !f.event_idx,
		.no_indirect = !f.indirect,
		.in_order = f.in_order};

	if (rig.dev[choice])
		return rig.dev[choice];
	snprintf(suffix, sizeof(suffix), "-%u", choice);
	address(&sa, path, suffix);
	fuzz_check(!split_vsock_create(&rig.dev[choice], rig.io, &rig.mem, &signal, &o, why),
		"device");
	return rig.dev[choice];
}

static uint32_t fuzz_u32(struct fuzz_input *in)
{
	uint32_t v = fuzz_u16(in);

	return v | (uint32_t)fuzz_u16(in) << 16;
}

/* ------------------------------------------------------------------ the host's side */

static void listen_at(unsigned choice)
{
	struct sockaddr_un sa;
	char suffix[16];

	snprintf(suffix, sizeof(suffix), "-%u_%u", choice, HOST_PORT);
	address(&sa, path, suffix);
	unlink(sa.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	fuzz_check(listener >= 0 && !bind(listener, (struct sockaddr *)&sa, sizeof(sa)) &&
			   !listen(listener, 8),
		"listener");
}

static void host_close(unsigned i)
{
	if (host[i] >= 0)
		close(host[i]);
	host[i] = -1;
}

static void host_open(unsigned i, unsigned choice, bool accepting, uint8_t port)
{
	struct sockaddr_un sa;
	char text[32];
	int n;

	host_close(i);
	if (accepting) {
		host[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		return;
	}
	snprintf(text, sizeof(text), "-%u", choice);
	address(&sa, path, text);
	host[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (host[i] < 0 || connect(host[i], (struct sockaddr *)&sa, sizeof(sa)))
		return;
	n = snprintf(text, sizeof(text), port & 0x80 ? "CONNECT %u" : "CONNECT %u\n", port & 7u);
	send(host[i], text, (size_t)n, MSG_NOSIGNAL);
}

static void host_act(struct fuzz_input *in, unsigned choice)
{
	static uint8_t bytes[8192];
	uint8_t what = fuzz_u8(in);
	unsigned i = what % HOST_FDS;

	switch (what / HOST_FDS % 6) {
	case 0:
		host_open(i, choice, true, 0);
		break;
	case 1:
		host_open(i, choice, false, fuzz_u8(in));
		break;
	case 2:
		host_close(i);
		break;
	case 3:
		if (host[i] >= 0)
			send(host[i], bytes, fuzz_u16(in) % sizeof(bytes) + 1,
				MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	case 4:
		if (host[i] >= 0)
			recv(host[i], bytes, fuzz_u16(in) % sizeof(bytes) + 1, MSG_DONTWAIT);
		break;
	default:
		if (host[i] >= 0)
			shutdown(host[i], what & 1 ? SHUT_WR : SHUT_RD);
		break;
	}
}

/* ------------------------------------------------------------------ the guest's side */

/* What the device has said: each packet must be one the specification knows. Its REQUESTs teach
 * the port to answer. */
static void guest_collect(uint64_t rx[FUZZ_SIZE], uint32_t ports[8])
{
	struct ring_done done[FUZZ_SIZE];
	int n = ring_driver_collect(&rig.q[0].drv, done, FUZZ_SIZE);

	fuzz_check(n >= 0, "receive queue");
	for (int i = 0; i < n; i++) {
		uint64_t at = rx[done[i].token % FUZZ_SIZE];
		struct wire w;

		fuzz_check(done[i].len >= sizeof(w), "a packet without a header");
		if (at + sizeof(w) > FUZZ_DATA)
			continue;
		memcpy(&w, rig.ram + at, sizeof(w));
		/* another buffer may lie over it: then it says anything */
		if (w.op == 1 && w.src_cid == 2)
			ports[w.dst_port & 7] = w.src_port;
	}
	for (unsigned q = 1; q < 3; q++)
		fuzz_check(ring_driver_collect(&rig.q[q].drv, done, FUZZ_SIZE) >= 0, "queue");
}

static void guest_buffer(struct fuzz_input *in, uint64_t rx[FUZZ_SIZE])
{
	struct fuzz_queue *q = &rig.q[0];
	uint8_t shape = fuzz_u8(in);
	uint32_t at = (uint32_t)(q->added % 32) * 4096 + 65536;
	struct ring_sg sg[2] = {{FUZZ_GPA + at, 44}, {FUZZ_GPA + at + 44, 16u << (shape & 7)}};
	unsigned n = 2;

	if (shape & 8) {
		sg[0].len += sg[1].len;
		n = 1;
	}
	if (shape & 16)
		sg[0].len = (shape >> 5) * 20 + 1;
	if (!ring_driver_add(&q->drv, sg, 0, n, q->added % FUZZ_SIZE)) {
		rx[q->added % FUZZ_SIZE] = at;
		q->added++;
	}
}

static void guest_packet(struct fuzz_input *in, const uint32_t ports[8])
{
	struct fuzz_queue *q = &rig.q[1];
	uint32_t at = (uint32_t)(q->added % 15) * 4096;
	uint8_t kind = fuzz_u8(in), port = fuzz_u8(in);
	struct wire w = {.src_cid = CID,
		.dst_cid = 2,
		.src_port = port & 7u,
		.dst_port = port & 0x40 ? ports[port & 7] : HOST_PORT,
		.type = 1,
		.op = kind & 7,
		.buf_alloc = 4096};
	uint32_t room = 0;
	struct ring_sg sg[2];

	if (kind & 8)
		w.buf_alloc = fuzz_u32(in);
	if (kind & 16)
		w.fwd_cnt = fuzz_u32(in);
	if (w.op == 5)
		w.len = room = fuzz_u16(in) & 0xfff;
	if (w.op == 4)
		w.flags = port >> 3 & 3;
	if (kind & 32)
		w.len = fuzz_u32(in);
	if (kind & 64) /* anything, anywhere in the header */
		((uint8_t *)&w)[fuzz_u8(in) % sizeof(w)] ^= fuzz_u8(in);
	memcpy(rig.ram + at, &w, sizeof(w));
	sg[0] = (struct ring_sg){FUZZ_GPA + at, 44};
	sg[1] = (struct ring_sg){FUZZ_GPA + at + 44, room};
	if (!ring_driver_add(&q->drv, sg, room ? 2 : 1, 0, q->added % FUZZ_SIZE))
		q->added++;
}

static void guest_act(struct fuzz_input *in, uint8_t what, uint64_t rx[FUZZ_SIZE], uint32_t *ports)
{
	switch (what % 8) {
	case 0:
		guest_buffer(in, rx);
		break;
	case 1:
		fuzz_request(&rig, &rig.q[1], in, 50);
		break;
	case 2:
		fuzz_request(&rig, &rig.q[2], in, 0);
		break;
	default:
		guest_packet(in, ports);
		break;
	}
}

static void settle(struct split_device *d)
{
	for (unsigned q = 0; q < 3; q++) {
		ring_driver_publish(&rig.q[q].drv);
		split_doorbell(d, q);
	}
	for (unsigned i = 0; i < 2; i++)
		io_thread_call(d->io, fuzz_nothing, NULL);
}

/* Into a state and back: the saved one, then the input's own. */
static void state_act(struct split_device *d, struct fuzz_input *in)
{
	struct state_writer w = {0};
	struct state_reader r;

	split_save(d, &w);
	fuzz_check(!w.error, "save");
	if (fuzz_u8(in) & 1 && w.len)
		w.data[fuzz_u8(in) % w.len] ^= fuzz_u8(in);
	state_reader_init(&r, w.data, w.len);
	split_load(d, &r);
	state_writer_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint64_t rx[FUZZ_SIZE] = {0};
	uint32_t ports[8] = {0};
	struct split_device *d;
	uint8_t choice;

	if (!rig.io)
		fuzz_open();
	choice = fuzz_u8(&in) & 15;
	d = fuzz_device(choice);
	fuzz_check(!split_features_set(d, d->features), "features");
	memset(rig.ram, 0, FUZZ_DATA);
	fuzz_queues_init(&rig, choice, 3);
	rig.broken = false;
	for (unsigned q = 0; q < 3; q++)
		fuzz_check(!split_queue_start(d, q, &rig.q[q].cfg), "queue start");
	listen_at(choice);
	for (unsigned i = 0; i < ACTIONS && in.n; i++) {
		uint8_t what = fuzz_u8(&in);

		if ((what & 0xc0) == 0xc0) {
			host_act(&in, choice);
		} else if (what == 0xbf) {
			state_act(d, &in);
		} else if ((what & 0xf8) == 0xb0) {
			settle(d);
			guest_collect(rx, ports);
		} else {
			guest_act(&in, what, rx, ports);
		}
	}
	settle(d);
	guest_collect(rx, ports);
	fuzz_check(split_vsock_connections(d) <= CONNECTIONS, "more connections than slots");
	for (unsigned i = 0; i < HOST_FDS; i++)
		host_close(i);
	close(listener);
	split_reset(d, fuzz_done, &rig.done);
	fuzz_wait(&rig);
	/* those still in the backlog are accepted, and found at their end */
	for (unsigned i = 0; split_vsock_connections(d); i++) {
		fuzz_check(i < 5000, "connections after a reset");
		usleep(1000);
	}
	return 0;
}
