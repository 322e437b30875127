/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs one fuzz target over every file of its corpus, without a fuzzer: what `make check` does with
 * what fuzzing found. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REPLAY_MAX (1u << 20)

static int replay_file(const char *dir, const char *name)
{
	char path[4096];
	uint8_t *data;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "rb");
	data = malloc(REPLAY_MAX);
	if (!f || !data) {
		perror(path);
		exit(1);
	}
	n = fread(data, 1, REPLAY_MAX, f);
	fclose(f);
	/* a block of exactly this size, so that one byte too far is seen */
	data = realloc(data, n ? n : 1);
	LLVMFuzzerTestOneInput(data, n);
	free(data);
	return 1;
}

int main(int argc, char **argv)
{
	const char *dir = argc == 2 ? argv[1] : ".";
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			n += (unsigned)replay_file(dir, e->d_name);
	if (d)
		closedir(d);
	if (!n) {
		printf("FAIL corpus %s: empty or missing\n", dir);
		return 1;
	}
	printf("PASS corpus %s: %u inputs\n", dir, n);
	return 0;
}
