/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading libnbd when the first disk needs it. */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "blk/nbd_priv.h"

#define LIBRARY "libnbd.so.0"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct nbd_library library;
static bool loaded;
static char failure[BLK_WHY_MAX];

#define NBD_LOAD(name)                                                                             \
	library.name = (__typeof__(library.name))dlsym(handle, "nbd_" #name);                      \
	loaded = loaded && library.name;

static void library_open(void)
{
	void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (!handle) {
		const char *text = dlerror();

		blk_why(failure, "%.120s; install Debian's package libnbd0",
			text ? text : LIBRARY " cannot be loaded");
		return;
	}
	loaded = true;
	NBD_FUNCTIONS(NBD_LOAD)
	if (!loaded)
		blk_why(failure,
			LIBRARY " is too old; install Debian's package libnbd0, 1.14 or later");
}

int nbd_library_load(const struct nbd_library **out, char *why)
{
	pthread_once(&once, library_open);
	*out = &library;
	if (!loaded)
		blk_why(why, "%s", failure);
	return loaded ? 0 : -ELIBACC;
}
