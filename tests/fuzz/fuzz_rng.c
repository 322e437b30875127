/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-rng requests of any shape, with a limit and without. */
#include "tests/fuzz/fuzz_split_rig.h"

static struct fuzz_rig rig;

static struct split_device *fuzz_device(unsigned choice, bool limited)
{
	static struct split_device *limited_dev[16];
	struct split_device **at = limited ? &limited_dev[choice] : &rig.dev[choice];
	struct ring_features f = fuzz_features(choice);
	struct split_signal signal = fuzz_signal(&rig);
	struct split_rng_options o = {
		.ring = {.queue_size = FUZZ_SIZE,
			.ring = choice & 8 ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT,
			.no_event_idx = !f.event_idx,
			.no_indirect = !f.indirect,
			.in_order = f.in_order},
		.rate_bytes_per_s = limited ? 100000 : 0};
	char why[BACKEND_WHY_MAX];

	if (!*at)
		fuzz_check(!split_rng_create(at, rig.io, &rig.mem, &signal, &o, why), "device");
	return *at;
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
	d = fuzz_device(choice & 15, choice & 0x10);
	fuzz_check(!split_features_set(d, d->features), "features");
	memset(rig.ram, 0, FUZZ_DATA);
	fuzz_queues_init(&rig, choice & 15, 1);
	for (unsigned i = 0; i < 16 && in.n; i++)
		fuzz_request(&rig, &rig.q[0], &in, 0);
	/* without a limit each round serves one at least */
	fuzz_run(&rig, d, 1, !(choice & 0x10) && rig.q[0].added <= 2);
	return 0;
}
