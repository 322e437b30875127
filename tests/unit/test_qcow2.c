/* SPDX-License-Identifier: BSD-2-Clause */
/* Images that qemu-img made are read as it reads them itself. */
#include "tests/unit/test_qcow2_rig.h"

#define MIB (1ull << 20)

/* Some content in an image through QEMU's own tool: data, zeroes both ways, holes. */
static void content_write(const char *path)
{
	Q_RUN("qemu-io -f qcow2 -c 'write -P 0x11 0 3M' -c 'write -P 0x22 1500k 512' "
	      "-c 'write -z 2M 256k' -c 'write -z -u 1M 128k' -c 'discard 512k 128k' "
	      "-c 'write -P 0x33 6M 1M' -c 'write -P 0x44 7777k 1k' "
	      "-c 'write -P 0x55 8388096 512' %s",
		path);
}

static void sizes_and_versions(void)
{
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "made.qcow2");
	for (unsigned bits = 9; bits <= 21; bits++) {
		for (int v3 = 0; v3 < 2; v3++) {
			Q_RUN("qemu-img create -f qcow2 -o cluster_size=%u,compat=%s %s 8M",
				1u << bits, v3 ? "1.1" : "0.10", path);
			content_write(path);
			q_compare(path, BLK_DIRECT_AUTO);
		}
	}
	unlink(path);
}

static void refcount_widths(void)
{
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "widths.qcow2");
	for (unsigned order = 0; order <= 6; order++) {
		Q_RUN("qemu-img create -f qcow2 -o refcount_bits=%u %s 8M", 1u << order, path);
		content_write(path);
		q_compare(path, BLK_DIRECT_OFF);
	}
	unlink(path);
}

static void preallocated(void)
{
	static const char *const kinds[] = {"metadata", "falloc", "full", "off"};
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "pre.qcow2");
	for (unsigned i = 0; i < 4; i++) {
		Q_RUN("qemu-img create -f qcow2 -o preallocation=%s %s 8M", kinds[i], path);
		q_compare(path, BLK_DIRECT_AUTO);
		content_write(path);
		q_compare(path, BLK_DIRECT_AUTO);
	}
	unlink(path);
}

static void compressed(void)
{
	char path[128], packed[140];
	static const char *const options[] = {"cluster_size=64k", "cluster_size=512",
		"cluster_size=2M", "compat=0.10", "compression_type=zstd",
		"compression_type=zstd,cluster_size=4k"};

	if (!q_tools())
		return;
	rig_path(path, "plain.qcow2");
	snprintf(packed, sizeof(packed), "%s.c", path);
	Q_RUN("qemu-img create -f qcow2 %s 8M", path);
	content_write(path);
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		Q_RUN("qemu-img convert -c -f qcow2 -O qcow2 -o %s %s %s", options[i], path,
			packed);
		q_compare(packed, BLK_DIRECT_AUTO);
	}
	unlink(path);
	unlink(packed);
}

static void chains(void)
{
	char base[128], middle[140], top[140], name[128];

	if (!q_tools())
		return;
	rig_path(base, "base.img");
	snprintf(middle, sizeof(middle), "%s.mid", base);
	snprintf(top, sizeof(top), "%s.top", base);
	/* Names relative to the overlay's folder, not to ours. */
	snprintf(name, sizeof(name), "%s", strrchr(base, '/') + 1);
	/* The lowest is raw, smaller than the rest, and no multiple of a sector. */
	Q_RUN("head -c 3000001 /dev/urandom >%s", base);
	Q_RUN("qemu-img create -f qcow2 -F raw -b %s %s 6M", name, middle);
	Q_RUN("qemu-io -f qcow2 -c 'write -P 0x66 1M 70k' -c 'write -z 2M 64k' %s", middle);
	Q_RUN("qemu-img create -f qcow2 -F qcow2 -b %s.mid -o cluster_size=4k %s 9M", name, top);
	Q_RUN("qemu-io -f qcow2 -c 'write -P 0x77 1040k 3k' -c 'write -z 0 8k' -c 'write -P 1 8M "
	      "64k' %s",
		top);
	q_compare(middle, BLK_DIRECT_AUTO);
	q_compare(top, BLK_DIRECT_AUTO);
	/* Without its format in the header a backing file is looked at. */
	Q_RUN("qemu-img rebase -u -f qcow2 -b %s.mid %s || qemu-img rebase -u -f qcow2 -F qcow2 -b "
	      "%s.mid %s",
		name, top, name, top);
	q_compare(top, BLK_DIRECT_OFF);
	unlink(base);
	unlink(middle);
	unlink(top);
}

static void snapshots_and_lazy(void)
{
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "snap.qcow2");
	Q_RUN("qemu-img create -f qcow2 -o lazy_refcounts=on %s 8M", path);
	content_write(path);
	Q_RUN("qemu-img snapshot -c one %s", path);
	Q_RUN("qemu-io -f qcow2 -c 'write -P 0x99 100k 1M' %s", path);
	Q_RUN("qemu-img snapshot -c two %s", path);
	q_compare(path, BLK_DIRECT_AUTO);
	unlink(path);
}

static void described(void)
{
	struct rig_config config = {.readonly = true};
	struct rig r = {.path = ""};
	char path[128];

	if (!q_tools())
		return;
	rig_path(path, "info.qcow2");
	Q_RUN("truncate -s 1M %s.base && qemu-img create -f qcow2 -F raw -b %s.base %s 5G", path,
		strrchr(path, '/') + 1, path);
	CU_ASSERT_EQUAL_FATAL(rig_open_path(&r, &config, path, -1), 0);
	CU_ASSERT_EQUAL(r.info.size, 5ull << 30);
	CU_ASSERT_EQUAL(r.info.cluster_size, 65536);
	CU_ASSERT_EQUAL(r.info.backing_files, 1);
	CU_ASSERT(strstr(r.info.backing, "info.qcow2.base") != NULL);
	rig_close(&r);
	unlink(path);
	Q_RUN("rm %s.base", path);
	q_log_remove();
}

int main(void)
{
	static const struct unit_case cases[] = {
		{"cluster sizes and versions", sizes_and_versions},
		{"refcounts of 1 to 64 bits", refcount_widths},
		{"preallocated", preallocated},
		{"compressed: deflate, zstd", compressed},
		{"chains of backing files", chains},
		{"snapshots, lazy refcounts", snapshots_and_lazy},
		{"described", described},
	};

	return unit_main("qcow2", cases, sizeof(cases) / sizeof(cases[0]));
}
