/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net: frames, receive buffers and control commands of any shape and content, over an echo.
 */
#include "tests/fuzz/fuzz_split_rig.h"

#define PAIRS 2u

static struct fuzz_rig rig;
static struct net_port *port;

static void fuzz_open(void)
{
	struct net_mem_options o = {.kind = NET_MEM_ECHO, .queues = PAIRS};
	char why[NET_WHY_MAX];

	fuzz_check(!net_mem_open(&port, &o, why), "port");
	fuzz_rig_open(&rig);
}

static struct split_device *fuzz_device(unsigned choice)
{
	struct ring_features f = fuzz_features(choice);
	struct split_signal signal = fuzz_signal(&rig);
	struct split_net_options o = {.port = port,
		.pairs = PAIRS,
		.queue_size = FUZZ_SIZE,
		.ring = choice & 8 ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT,
		.no_event_idx = !f.event_idx,
		.no_indirect = !f.indirect,
		.in_order = f.in_order,
		.mac = {2, 0, 0, 0, 0, 1}};
	char why[BACKEND_WHY_MAX];

	if (!rig.dev[choice])
		fuzz_check(!split_net_create(&rig.dev[choice], rig.io, &rig.mem, &signal, &o, why),
			"device");
	return rig.dev[choice];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct split_device *d;
	uint64_t features;
	uint8_t choice;

	if (!rig.io)
		fuzz_open();
	choice = fuzz_u8(&in);
	d = fuzz_device(choice & 15);
	features = d->features & ~VIRTIO_BIT(22); /* without MQ the control queue is the third */
	if (choice & 0x10)
		features &= ~VIRTIO_BIT(15);
	if (choice & 0x20)
		features &= VIRTIO_BIT(0) | VIRTIO_BIT(1) | VIRTIO_BIT(15) | VIRTIO_BIT(17) |
			    0x0fffffffull << 28;
	if (split_features_set(d, features))
		return 0;
	memset(rig.ram, 0, FUZZ_DATA);
	fuzz_queues_init(&rig, choice & 15, 3);
	for (unsigned i = 0; i < 24 && in.n; i++) {
		uint8_t which = fuzz_u8(&in) % 3;

		fuzz_request(&rig, &rig.q[which], &in, which == 1 ? 64 : 8);
	}
	fuzz_run(&rig, d, 3, false);
	return 0;
}
