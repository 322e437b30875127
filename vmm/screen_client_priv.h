/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The monitor's control socket from the other side: what the programs that show a screen share. One
 * thread. Functions that return a status have told what is wrong, as `command`.
 */
#ifndef SCREEN_CLIENT_PRIV_H
#define SCREEN_CLIENT_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/vga.h"

struct screen_client {
	const char *command; /* for messages */
	const char *socket;
	void *curl;
	struct screen_answer *answer;
	/* by screen_map() */
	const struct vga_regs *regs;
	const uint8_t *memory;
};

/* 0, or a status. */
int screen_client_open(struct screen_client *c, const char *command, const char *socket);
void screen_client_close(struct screen_client *c);
/* What the guest has written is in the mapped file then. text: NULL, or gets what the screen says,
 * to be freed; NULL for graphics. */
int screen_sync(struct screen_client *c, char **text);
/* The same; nothing is told. False: no answer, or none that is good. */
bool screen_sync_quietly(struct screen_client *c);
/* How long an answer may take. */
void screen_timeout_set(struct screen_client *c, long seconds);
/* Maps the screen's file. */
int screen_map(struct screen_client *c);
/* {"key": "value"}, to be freed; NULL: no memory. */
char *screen_body(const char *key, const char *value);
/* PUT, with a JSON body. */
int screen_put(struct screen_client *c, const char *path, const char *body);
/* The same; nothing is told, the HTTP status, 0: no answer. */
long screen_put_quietly(struct screen_client *c, const char *path, const char *body);

#endif
