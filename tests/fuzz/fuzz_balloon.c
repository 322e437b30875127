/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-balloon: page numbers, reports and statistics of any shape and content. */
#include <sys/mman.h>

#include "tests/fuzz/fuzz_split_rig.h"

#define QUEUES 5u

static struct fuzz_rig rig;

static void fuzz_open(void)
{
	fuzz_rig_open(&rig);
	/* A guest may give up the pages its rings are in; the driver here then no longer knows
	 * what it has asked. Locked pages cannot be given up. */
	fuzz_check(!mlock(rig.ram + FUZZ_DATA, FUZZ_RAM - FUZZ_DATA), "locked memory");
}

static struct split_device *fuzz_device(unsigned choice)
{
	struct ring_features f = fuzz_features(choice);
	struct split_signal signal = fuzz_signal(&rig);
	struct split_balloon_options o = {
		.ring = {.queue_size = FUZZ_SIZE,
			.ring = choice & 8 ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT,
			.no_event_idx = !f.event_idx,
			.no_indirect = !f.indirect,
			.in_order = f.in_order},
		.pages_max = FUZZ_RAM / 4096};
	char why[BACKEND_WHY_MAX];

	if (!rig.dev[choice])
		fuzz_check(
			!split_balloon_create(&rig.dev[choice], rig.io, &rig.mem, &signal, &o, why),
			"device");
	return rig.dev[choice];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct split_balloon_info info;
	struct split_device *d;
	uint64_t features;
	uint8_t choice, bytes[8];

	if (!rig.io)
		fuzz_open();
	choice = fuzz_u8(&in);
	d = fuzz_device(choice & 15);
	features = d->features;
	if (choice & 0x10)
		features &= ~VIRTIO_BIT(1);
	if (choice & 0x20)
		features &= ~VIRTIO_BIT(5);
	fuzz_check(!split_features_set(d, features), "features");
	memset(rig.ram, 1, FUZZ_DATA);
	fuzz_queues_init(&rig, choice & 15, QUEUES);
	if (choice & 0x40) {
		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = fuzz_u8(&in);
		d->ops->config_write(d, fuzz_u8(&in) & 31, bytes, 1 + bytes[0] % 8);
		split_balloon_target_set(d, fuzz_u16(&in));
	}
	for (unsigned i = 0; i < 24 && in.n; i++) {
		uint8_t which = fuzz_u8(&in);

		fuzz_request(&rig, &rig.q[which % QUEUES], &in, 48);
		if (which & 0x80)
			split_balloon_info_get(d, &info);
	}
	fuzz_run(&rig, d, QUEUES, false);
	return 0;
}
