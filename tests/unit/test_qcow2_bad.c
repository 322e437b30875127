/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Malformed and unsupported qcow2 images: one line that says what is wrong, or an error of the
 * request; and an image that is raw by its content alone cannot be made one of another format.
 */
#include "tests/unit/test_qcow2_rig.h"

#define CLUSTER 65536u

static void put(uint8_t *p, unsigned bytes, uint64_t v)
{
	while (bytes--) {
		p[bytes] = (uint8_t)v;
		v >>= 8;
	}
}

/* A whole image by hand, without the tools: header, refcounts, L1, L2, data. */
static uint8_t *image_make(size_t *size)
{
	uint8_t *image = calloc(6, CLUSTER);

	put(image, 4, 0x514649fb);
	put(image + 4, 4, 3);
	put(image + 20, 4, 16);
	put(image + 24, 8, 1u << 20);
	put(image + 36, 4, 1);
	put(image + 40, 8, 3 * CLUSTER);
	put(image + 48, 8, 1 * CLUSTER);
	put(image + 56, 4, 1);
	put(image + 96, 4, 4);
	put(image + 100, 4, 104);
	put(image + 1 * CLUSTER, 8, 2 * CLUSTER);
	for (unsigned i = 0; i < 6; i++)
		put(image + 2 * CLUSTER + 2 * i, 2, 1);
	put(image + 3 * CLUSTER, 8, 4 * CLUSTER | 1ull << 63);
	put(image + 4 * CLUSTER, 8, 5 * CLUSTER | 1ull << 63);
	memset(image + 5 * CLUSTER, 0x5a, CLUSTER);
	*size = 6 * CLUSTER;
	return image;
}

struct change {
	uint64_t offset;
	unsigned bytes;
	uint64_t value;
	const char *says;
};

static int open_changed(struct rig *r, const struct change *c, bool readonly)
{
	struct rig_config config = {.engine = BLK_ENGINE_THREADS, .readonly = readonly};
	char path[128];
	uint8_t *image;
	size_t size;
	int rc;

	rig_path(path, "bad.qcow2");
	image = image_make(&size);
	if (c)
		put(image + c->offset, c->bytes, c->value);
	q_file_write(path, image, size);
	free(image);
	rc = rig_open_path(r, &config, path, -1);
	snprintf(r->path, sizeof(r->path), "%s", path);
	return rc;
}

static void good(void)
{
	struct rig r;
	uint8_t data[512];

	CU_ASSERT_EQUAL_FATAL(open_changed(&r, NULL, false), 0);
	CU_ASSERT_EQUAL(r.info.size, 1u << 20);
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 1024, data, 512), 0);
	CU_ASSERT(rig_all(data, 0x5a, 512));
	CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 512u << 10, data, 512), 0);
	CU_ASSERT(rig_all(data, 0, 512));
	rig_close(&r);
}

static void refused(void)
{
	static const struct change changes[] = {
		{4, 4, 1, "version 1"},
		{4, 4, 4, "version 4"},
		{20, 4, 8, "cluster_bits"},
		{20, 4, 22, "cluster_bits"},
		{20, 4, 0xffffffff, "cluster_bits"},
		{24, 8, 0, "virtual size"},
		{24, 8, 1000, "virtual size"},
		{24, 8, ~511ull, "virtual size"},
		{24, 8, 1ull << 40, "L1 table is too small"},
		{32, 4, 1, "encryption"},
		{32, 4, 2, "LUKS"},
		{36, 4, 0, "L1 table is too small"},
		{36, 4, 0xffffffff, "L1 table"},
		{36, 4, 1u << 20, "L1 table is not inside"},
		{40, 8, 0, "L1 table is not inside"},
		{40, 8, 3 * CLUSTER + 512, "L1 table is not inside"},
		{40, 8, 1ull << 50, "L1 table is not inside"},
		{40, 8, ~0xffffull, "L1 table is not inside"},
		{40, 8, CLUSTER, "overlap"},
		{48, 8, 0, "refcount table"},
		{48, 8, 1ull << 60, "refcount table"},
		{56, 4, 0, "refcount table"},
		{56, 4, 0x10000000, "refcount table"},
		{60, 4, 0x7fffffff, "snapshots"},
		{72, 8, 2, "marked corrupt"},
		{72, 8, 4, "bit 2"},
		{72, 8, 16, "bit 4"},
		{72, 8, 32, "bit 5"},
		{72, 8, 1ull << 63, "bit 63"},
		{72, 8, 8, "compression"},
		{96, 4, 7, "refcount_order"},
		{100, 4, 96, "header_length"},
		{100, 4, 105, "header_length"},
		{100, 4, 1u << 20, "header_length"},
	};

	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		struct rig r;
		int rc = open_changed(&r, &changes[i], false);

		CU_ASSERT(rc < 0);
		if (rc == 0) {
			printf("    opened: %s\n", changes[i].says);
			rig_close(&r);
			continue;
		}
		CU_ASSERT(strstr(r.why, changes[i].says) != NULL);
		if (!strstr(r.why, changes[i].says))
			printf("    %s: %s\n", changes[i].says, r.why);
		CU_ASSERT(strstr(r.why, "bad.qcow2") != NULL && !strchr(r.why, '\n'));
		unlink(r.path);
	}
}

/* What is wrong deeper down is an error where it is met, and nothing is written after. */
static void errors_of_requests(void)
{
	static const struct change changes[] = {
		{3 * CLUSTER, 8, 1ull << 40 | 1ull << 63, "L2 outside"},
		{3 * CLUSTER, 8, (4 * CLUSTER + 512) | 1ull << 63, "L2 misaligned"},
		{3 * CLUSTER, 8, CLUSTER | 1ull << 63, "L2 over the refcount table"},
		{4 * CLUSTER, 8, 1ull << 50 | 1ull << 63, "cluster outside"},
		{4 * CLUSTER, 8, (5 * CLUSTER + 1024) | 1ull << 63, "cluster misaligned"},
		{4 * CLUSTER, 8, 3 * CLUSTER | 1ull << 63, "cluster over the L1 table"},
		{4 * CLUSTER, 8, 1ull << 62 | 5 * CLUSTER, "compressed nonsense"},
	};

	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		uint8_t data[512] = {1};
		struct rig r;

		CU_ASSERT_EQUAL_FATAL(open_changed(&r, &changes[i], false), 0);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 0, data, 512), -EIO);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, 0, data, 512), -EIO);
		rig_close(&r);
	}
}

/* A refcount of 0 for a table in use: it is not given away. */
static void lying_refcounts(void)
{
	static const struct change lies[] = {
		{2 * CLUSTER, 2, 0, "header"},
		{2 * CLUSTER + 2, 2, 0, "refcount table"},
		{2 * CLUSTER + 4, 2, 0, "refcount block"},
		{2 * CLUSTER + 6, 2, 0, "L1"},
		{2 * CLUSTER + 8, 2, 0, "L2"},
		{CLUSTER, 8, 4 * CLUSTER, "refcounts in the L2 table"},
		{CLUSTER, 8, 3 * CLUSTER, "refcounts in the L1 table"},
		{CLUSTER, 8, 1ull << 50, "refcounts outside"},
	};

	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint8_t data[512] = {1};
		struct rig r;

		CU_ASSERT_EQUAL_FATAL(open_changed(&r, &lies[i], false), 0);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 512, data, 512), 0);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, 256u << 10, data, 512), -EIO);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 0, data, 512), 0);
		CU_ASSERT(rig_all(data, 0x5a, 512));
		rig_close(&r);
	}
}

static void truncated(void)
{
	static const size_t sizes[] = {4, 71, 72, 103, 104, 512, CLUSTER, 2 * CLUSTER + 1};
	struct rig_config config = {.engine = BLK_ENGINE_THREADS};
	char path[128];
	uint8_t *image;
	size_t size;

	rig_path(path, "short.qcow2");
	image = image_make(&size);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct rig r;
		int rc;

		q_file_write(path, image, sizes[i]);
		rc = rig_open_path(&r, &config, path, -1);
		CU_ASSERT(rc < 0 && strstr(r.why, path));
		if (rc == 0)
			rig_close(&r);
	}
	unlink(path);
	free(image);
}

static int open_backed(struct rig *r, const char *path, const char *name, const char *format)
{
	struct rig_config config = {.engine = BLK_ENGINE_THREADS};
	size_t size, n = strlen(name);
	uint8_t *image = image_make(&size);

	put(image + 8, 8, 1024);
	put(image + 16, 4, n);
	memcpy(image + 1024, name, n);
	if (format) {
		put(image + 104, 4, 0xe2792aca);
		put(image + 108, 4, strlen(format));
		memcpy(image + 112, format, strlen(format));
	}
	q_file_write(path, image, size);
	free(image);
	return rig_open_path(r, &config, path, -1);
}

static void bad_backing(void)
{
	static const struct {
		const char *name, *format, *says;
	} cases[] = {
		{"no-such-file", NULL, "No such file"},
		{"/dev/null", "raw", "regular file"},
		{"/tmp", "raw", "regular file"},
		{"json:{}", NULL, "plain file names"},
		{"nbd://host/disk", "raw", "plain file names"},
		{"loop.qcow2", "qcow2", "its own chain"},
		{"raw.img", "vmdk", "neither raw nor qcow2"},
		{"raw.img", "qcow2", "not a qcow2 image"},
	};
	char path[128], loop[160], raw[160];

	rig_path(path, "loop.qcow2");
	snprintf(loop, sizeof(loop), "%s", strrchr(path, '/') + 1);
	rig_path(raw, "raw.img");
	rig_file(raw, 4096, 7);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *name = cases[i].name;
		struct rig r;
		int rc;

		if (!strcmp(name, "loop.qcow2"))
			name = loop;
		else if (!strcmp(name, "raw.img"))
			name = strrchr(raw, '/') + 1;
		rc = open_backed(&r, path, name, cases[i].format);
		CU_ASSERT(rc < 0 && strstr(r.why, cases[i].says));
		if (rc == 0)
			rig_close(&r);
		else if (!strstr(r.why, cases[i].says))
			printf("    %s: %s\n", cases[i].says, r.why);
	}
	unlink(path);
	unlink(raw);
}

/* Somebody writes to what lies below: not to be read meanwhile. */
static void backing_in_use(void)
{
	struct rig_config config = {.engine = BLK_ENGINE_THREADS};
	char path[128], raw[128];
	struct rig writer = {.path = ""}, r;

	rig_path(path, "overlay.qcow2");
	rig_path(raw, "below.img");
	rig_file(raw, 4096, 7);
	CU_ASSERT_EQUAL_FATAL(rig_open_path(&writer, &config, raw, -1), 0);
	CU_ASSERT_EQUAL(open_backed(&r, path, strrchr(raw, '/') + 1, "raw"), -EBUSY);
	rig_close(&writer);
	CU_ASSERT_EQUAL_FATAL(open_backed(&r, path, strrchr(raw, '/') + 1, "raw"), 0);
	/* and nobody may begin to */
	CU_ASSERT_EQUAL(rig_open_path(&writer, &config, raw, -1), -EBUSY);
	r.path[0] = 0;
	rig_close(&r);
	unlink(path);
	unlink(raw);
}

static int guarded_write(enum blk_format format, enum blk_engine engine, uint64_t offset)
{
	struct blk_options opts = {.fd = -1, .format = format, .engine = engine};
	struct blk_channel *ch;
	struct rig r = {.path = ""};
	uint8_t *data = aligned_alloc(4096, 131072);
	int rc;

	rig_path(r.path, "guarded.img");
	rig_file(r.path, 1 << 20, 0);
	opts.path = r.path;
	memset(data, 0, 131072);
	put(data, 4, 0x514649fb);
	CU_ASSERT_EQUAL_FATAL(blk_open(&r.image, &opts, r.why), 0);
	CU_ASSERT_EQUAL_FATAL(blk_channel_open(&ch, r.image, NULL, r.why), 0);
	r.ch = ch;
	rc = rig_do(&r, BLK_WRITE, offset, data, 131072);
	if (rc) {
		CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 0, data, 4096), 0);
		CU_ASSERT(rig_all(data, 0, 4096));
		/* anything else may be written there */
		memset(data, 9, 131072);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_WRITE, 0, data, 131072), 0);
		CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, 0, data, 131072), 0);
		CU_ASSERT(rig_all(data, 9, 131072));
	}
	rig_close(&r);
	free(data);
	return rc;
}

static void raw_stays_raw(void)
{
	for (int i = 0; i < RIG_ENGINES; i++) {
		CU_ASSERT_EQUAL(guarded_write(BLK_FORMAT_AUTO, rig_engines[i], 0), -EPERM);
		CU_ASSERT_EQUAL(guarded_write(BLK_FORMAT_AUTO, rig_engines[i], 4096), 0);
		CU_ASSERT_EQUAL(guarded_write(BLK_FORMAT_RAW, rig_engines[i], 0), 0);
	}
}

/* format=raw shows a qcow2 image as the bytes it is; format=qcow2 does not take another. */
static void format_given(void)
{
	struct blk_options opts = {.fd = -1, .format = BLK_FORMAT_RAW};
	struct blk_image *image;
	struct blk_info info;
	char path[128], why[BLK_WHY_MAX];
	uint8_t *bytes;
	size_t size;

	rig_path(path, "given.img");
	bytes = image_make(&size);
	q_file_write(path, bytes, size);
	opts.path = path;
	CU_ASSERT_EQUAL_FATAL(blk_open(&image, &opts, why), 0);
	blk_info_get(image, &info);
	CU_ASSERT(info.format == BLK_FORMAT_RAW && info.size == size);
	blk_close(image);
	memset(bytes, 0, 512);
	q_file_write(path, bytes, size);
	opts.format = BLK_FORMAT_QCOW2;
	CU_ASSERT(blk_open(&image, &opts, why) < 0 && strstr(why, "not a qcow2 image"));
	unlink(path);
	free(bytes);
}

int main(void)
{
	static const struct unit_case cases[] = {
		{"a good one", good},
		{"refused when opened", refused},
		{"errors of requests", errors_of_requests},
		{"refcounts that lie", lying_refcounts},
		{"truncated", truncated},
		{"bad backing files", bad_backing},
		{"backing files in use", backing_in_use},
		{"raw stays raw", raw_stays_raw},
		{"the format that is given", format_given},
	};

	return unit_main("qcow2 malformed", cases, sizeof(cases) / sizeof(cases[0]));
}
