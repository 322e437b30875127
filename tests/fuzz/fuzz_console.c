/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-console: buffers of any shape, input, the emergency register, a reader that is full. */
#include "tests/fuzz/fuzz_split_rig.h"

static struct fuzz_rig rig;
static atomic_uint room; /* bytes that the reader takes */
static volatile uint8_t sink;

static size_t fuzz_output(void *ctx, const uint8_t *bytes, size_t n)
{
	unsigned left = atomic_load(&room);
	uint8_t sum = 0;

	(void)ctx;
	if (n > left)
		n = left;
	for (size_t i = 0; i < n; i++)
		sum += bytes[i];
	sink = sum; /* every byte is looked at */
	atomic_store(&room, left - (unsigned)n);
	return n;
}

static struct split_device *fuzz_device(unsigned choice)
{
	struct ring_features f = fuzz_features(choice);
	struct split_signal signal = fuzz_signal(&rig);
	struct split_console_options o = {
		.ring = {.queue_size = FUZZ_SIZE,
			.ring = choice & 8 ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT,
			.no_event_idx = !f.event_idx,
			.no_indirect = !f.indirect,
			.in_order = f.in_order},
		.out_fd = -1,
		.in_fd = -1,
		.output = fuzz_output};
	char why[BACKEND_WHY_MAX];

	if (!rig.dev[choice])
		fuzz_check(
			!split_console_create(&rig.dev[choice], rig.io, &rig.mem, &signal, &o, why),
			"device");
	return rig.dev[choice];
}

/* What a driver or the host does besides queueing buffers. */
static void fuzz_act(struct split_device *d, struct fuzz_input *in)
{
	uint8_t what = fuzz_u8(in), bytes[64];
	uint32_t n = 1 + what / 4 % sizeof(bytes);

	for (uint32_t i = 0; i < n; i++)
		bytes[i] = fuzz_u8(in);
	switch (what & 3) {
	case 0:
		fuzz_check(split_console_input(d, bytes, n) <= n, "input");
		break;
	case 1:
		d->ops->config_write(d, fuzz_u8(in) & 15, bytes, n < 8 ? n : 8);
		break;
	case 2:
		d->ops->config_read(d, fuzz_u8(in) & 15, bytes, n < 8 ? n : 8);
		break;
	default:
		atomic_store(&room, fuzz_u16(in));
		split_console_resume(d);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct split_device *d;
	uint8_t choice;

	if (!rig.io)
		fuzz_rig_open(&rig);
	choice = fuzz_u8(&in);
	d = fuzz_device(choice & 15);
	fuzz_check(!split_features_set(d, d->features), "features");
	memset(rig.ram, 'a', FUZZ_DATA);
	atomic_store(&room, choice & 0x10 ? 100 : UINT32_MAX);
	split_console_resume(d);
	fuzz_queues_init(&rig, choice & 15, 2);
	for (unsigned i = 0; i < 24 && in.n; i++) {
		uint8_t which = fuzz_u8(&in) % 3;

		if (which < 2)
			fuzz_request(&rig, &rig.q[which], &in, 0);
		else
			fuzz_act(d, &in);
	}
	fuzz_run(&rig, d, 2, false);
	return 0;
}
