/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-blk requests of any shape and content, against a small image in memory. */
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_split_rig.h"

#define IMAGE_BYTES (64u << 10)

static struct fuzz_rig rig;
static struct blk_image *image;

static void fuzz_open(void)
{
	struct blk_options o = {
		.fd = (int)syscall(SYS_memfd_create, "disk", 0), .engine = BLK_ENGINE_THREADS};
	char why[BLK_WHY_MAX];

	fuzz_check(o.fd >= 0 && !ftruncate(o.fd, IMAGE_BYTES), "image");
	fuzz_check(!blk_open(&image, &o, why), "image");
	fuzz_rig_open(&rig);
}

static struct split_device *fuzz_device(unsigned choice)
{
	struct ring_features f = fuzz_features(choice);
	struct split_signal signal = fuzz_signal(&rig);
	struct split_blk_options o = {.image = image,
		.queues = 1,
		.queue_size = FUZZ_SIZE,
		.ring = choice & 8 ? SPLIT_RING_PACKED : SPLIT_RING_SPLIT,
		.no_event_idx = !f.event_idx,
		.no_indirect = !f.indirect,
		.in_order = f.in_order,
		.serial = "fuzz"};
	char why[BACKEND_WHY_MAX];

	if (!rig.dev[choice])
		fuzz_check(!split_blk_create(&rig.dev[choice], rig.io, &rig.mem, &signal, &o, why),
			"device");
	return rig.dev[choice];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct split_device *d;
	uint64_t features;
	uint8_t choice, wce;

	if (!rig.io)
		fuzz_open();
	choice = fuzz_u8(&in);
	wce = choice >> 4 & 1;
	d = fuzz_device(choice & 15);
	features = d->features;
	if (choice & 0x20)
		features &= ~VIRTIO_BIT(13); /* discard refused */
	if (choice & 0x40)
		features &= ~VIRTIO_BIT(9); /* no flush: write-through */
	fuzz_check(!split_features_set(d, features), "features");
	d->ops->config_write(d, 32, &wce, 1);
	memset(rig.ram, 0, FUZZ_DATA);
	fuzz_queues_init(&rig, choice & 15, 1);
	for (unsigned i = 0; i < 16 && in.n; i++)
		fuzz_request(&rig, &rig.q[0], &in, 48);
	fuzz_run(&rig, d, 1, true);
	return 0;
}
