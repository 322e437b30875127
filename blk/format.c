/* SPDX-License-Identifier: BSD-2-Clause */
/* Formats: their names, and telling which one an image has. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blk/blk_priv.h"

static const char *const format_names[] = {
	[BLK_FORMAT_AUTO] = "auto",
	[BLK_FORMAT_RAW] = "raw",
	[BLK_FORMAT_QCOW2] = "qcow2",
};

#define FORMAT_COUNT (sizeof(format_names) / sizeof(format_names[0]))

const char *blk_format_name(enum blk_format format)
{
	return (unsigned)format < FORMAT_COUNT ? format_names[format] : "unknown";
}

int blk_format_parse(const char *name, enum blk_format *out)
{
	for (unsigned i = 0; i < FORMAT_COUNT; i++) {
		if (strcmp(name, format_names[i]) == 0) {
			*out = (enum blk_format)i;
			return 0;
		}
	}
	return -EINVAL;
}

bool blk_format_is_magic(const void *data)
{
	static const uint8_t magic[4] = {'Q', 'F', 'I', 0xfb};

	return memcmp(data, magic, sizeof(magic)) == 0;
}

/* What is not known to be another format is raw; a short file's size is complained of later. */
int blk_format_probe(struct blk_image *image, enum blk_format format, char *why)
{
	void *buffer;
	ssize_t n;

	image->info.format = format;
	if (format != BLK_FORMAT_AUTO)
		return 0;
	if (posix_memalign(&buffer, 4096, 4096)) {
		blk_why(why, "%s: no memory", image->name);
		return -ENOMEM;
	}
	do
		n = pread(image->fd, buffer, 4096, 0);
	while (n < 0 && errno == EINTR);
	if (n >= 4 && blk_format_is_magic(buffer)) {
		image->info.format = BLK_FORMAT_QCOW2;
	} else {
		image->info.format = BLK_FORMAT_RAW;
		image->guard_first = true;
	}
	free(buffer);
	return 0;
}
