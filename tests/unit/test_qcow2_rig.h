/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of qcow2 share: images made and judged by qemu-img, and a shadow of their content.
 */
#ifndef TEST_QCOW2_RIG_H
#define TEST_QCOW2_RIG_H

#include <stdarg.h>

#include "tests/unit/test_blk_rig.h"

/* Runs a command quietly; its exit status. */
__attribute__((format(printf, 1, 2))) static inline int q_run(const char *format, ...)
{
	char command[2048], all[2200];
	va_list args;
	int status;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	/* What it prints goes where the next complaint can show it. */
	snprintf(all, sizeof(all), "{ %s; } >build/tmp/qcow2-%d.log 2>&1", command, (int)getpid());
	status = system(all);
	status = WIFEXITED(status) ? WEXITSTATUS(status) : 255;
	return status;
}

static inline void q_log_show(void)
{
	char line[256];
	FILE *f;

	snprintf(line, sizeof(line), "build/tmp/qcow2-%d.log", (int)getpid());
	f = fopen(line, "r");
	while (f && fgets(line, sizeof(line), f))
		printf("    %s", line);
	if (f)
		fclose(f);
}

static inline void q_log_remove(void)
{
	char path[64];

	snprintf(path, sizeof(path), "build/tmp/qcow2-%d.log", (int)getpid());
	unlink(path);
}

/* False, with the reason told: the tools are missing. */
static inline bool q_tools(void)
{
	static int known = -1;

	mkdir("build", 0777);
	mkdir("build/tmp", 0777);
	if (known < 0)
		known = q_run("qemu-img --version && qemu-io --version") == 0;
	if (!known)
		unit_skip("qemu-img or qemu-io is missing (Debian: qemu-utils)");
	return known;
}

/* Must succeed. */
#define Q_RUN(...)                                                                                 \
	do {                                                                                       \
		int status_ = q_run(__VA_ARGS__);                                                  \
		CU_ASSERT_EQUAL(status_, 0);                                                       \
		if (status_)                                                                       \
			q_log_show();                                                              \
	} while (0)

/* No errors; leaked clusters only where they are allowed. */
static inline void q_check(const char *path, bool leaks)
{
	int status = q_run("qemu-img check -U -f qcow2 %s", path);

	CU_ASSERT(status == 0 || (leaks && status == 3));
	if (status && !(leaks && status == 3))
		q_log_show();
}

/* Deterministic, so that a failure can be had again. */
static inline uint64_t q_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void q_fill(void *data, size_t size, uint64_t seed)
{
	uint8_t *p = data;
	uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i + 8 <= size; i += 8) {
		uint64_t v = q_random(&state);

		memcpy(p + i, &v, 8);
	}
}

static inline void q_file_write(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	CU_ASSERT_FATAL(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
}

static inline void *q_file_read(const char *path, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *data = calloc(1, size);

	CU_ASSERT(fd >= 0 && read(fd, data, size) == (ssize_t)size);
	close(fd);
	return data;
}

/* What we read is what qemu-img reads. */
static inline void q_compare(const char *path, enum blk_direct direct)
{
	struct rig_config config = {.direct = direct, .readonly = true};
	char raw[160];
	struct rig r = {.path = ""};
	uint8_t *ours, *theirs;
	int rc;

	snprintf(raw, sizeof(raw), "%s.raw", path);
	Q_RUN("qemu-img convert -U -f qcow2 -O raw %s %s", path, raw);
	rc = rig_open_path(&r, &config, path, -1);
	CU_ASSERT_EQUAL(rc, 0);
	if (rc) {
		printf("    %s\n", r.why);
		return;
	}
	CU_ASSERT_EQUAL(r.info.format, BLK_FORMAT_QCOW2);
	theirs = q_file_read(raw, r.info.size);
	ours = aligned_alloc(4096, r.info.size + 4096);
	/* Uneven pieces, so that transfers begin and end anywhere. */
	for (uint64_t at = 0, n, i = 0; at < r.info.size; at += n, i++) {
		n = ((i * 37) % 300 + 1) * 512;
		if (n > r.info.size - at)
			n = r.info.size - at;
		CU_ASSERT_EQUAL(rig_do(&r, BLK_READ, at, ours + at, n), 0);
	}
	CU_ASSERT(memcmp(ours, theirs, r.info.size) == 0);
	free(ours);
	free(theirs);
	rig_close(&r);
	unlink(raw);
}

#endif
