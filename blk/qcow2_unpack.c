/* SPDX-License-Identifier: BSD-2-Clause */
/* Compressed clusters: read only; what is written to them becomes a plain cluster. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "blk/qcow2_priv.h"

/* As the format prescribes: raw deflate, whose window fits 4 KiB or the compressor's default. */
#define UNPACK_WINDOW_BITS (-15)

void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length)
{
	unsigned x = 62 - (q->cluster_bits - 8);
	uint64_t sectors = (entry >> x & ((1ull << (q->cluster_bits - 8)) - 1)) + 1;

	*offset = entry & ((1ull << x) - 1) & 0x00ffffffffffffffull;
	*length = sectors * 512 - (*offset & 511);
}

static int unpack_deflate(const uint8_t *from, size_t length, uint8_t *to, size_t size)
{
	z_stream z = {.next_in = (uint8_t *)(uintptr_t)from,
		.avail_in = (uInt)length,
		.next_out = to,
		.avail_out = (uInt)size};
	int rc;

	if (inflateInit2(&z, UNPACK_WINDOW_BITS) != Z_OK)
		return -ENOMEM;
	/* There is more input than is needed: the rest of the last sector. */
	rc = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return z.avail_out == 0 && (rc == Z_STREAM_END || rc == Z_BUF_ERROR) ? 0 : -EIO;
}

static int unpack_zstd(const uint8_t *from, size_t length, uint8_t *to, size_t size)
{
	ZSTD_inBuffer in = {from, length, 0};
	ZSTD_outBuffer out = {to, size, 0};
	ZSTD_DStream *z = ZSTD_createDStream();
	size_t rc = 1;

	if (!z)
		return -ENOMEM;
	/* A frame that asks for more memory than this for its window is none of a cluster's. */
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 27);
	while (out.pos < size && rc && !ZSTD_isError(rc)) {
		size_t in_before = in.pos, out_before = out.pos;

		rc = ZSTD_decompressStream(z, &out, &in);
		if (in.pos == in_before && out.pos == out_before)
			break;
	}
	ZSTD_freeDStream(z);
	return out.pos == size ? 0 : -EIO;
}

/* Under unpack_lock. */
static int unpack_cluster(struct qcow2 *q, uint64_t entry)
{
	uint64_t offset, length;
	uint8_t *packed;
	int rc;

	qcow2_packed_place(q, entry, &offset, &length);
	if (!q->unpacked)
		q->unpacked = malloc(q->cluster_size);
	packed = malloc(length);
	rc = packed && q->unpacked ? qcow2_file_read(q->fd, packed, length, offset) : -ENOMEM;
	q->unpacked_entry = 0;
	if (!rc && q->compression)
		rc = unpack_zstd(packed, length, q->unpacked, q->cluster_size);
	else if (!rc)
		rc = unpack_deflate(packed, length, q->unpacked, q->cluster_size);
	if (!rc)
		q->unpacked_entry = entry;
	free(packed);
	return rc;
}

int qcow2_unpack_read(
	struct qcow2 *q, uint64_t entry, void *to, uint64_t length, uint64_t offset_in_cluster)
{
	int rc = 0;

	pthread_mutex_lock(&q->unpack_lock);
	if (q->unpacked_entry != entry)
		rc = unpack_cluster(q, entry);
	if (!rc)
		memcpy(to, q->unpacked + offset_in_cluster, length);
	pthread_mutex_unlock(&q->unpack_lock);
	return rc;
}
