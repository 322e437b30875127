/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice watch`: the screen in a terminal. One thread. */
#ifndef SCREEN_WATCH_PRIV_H
#define SCREEN_WATCH_PRIV_H

#include "vmm/screen_client_priv.h"

/* Until the guest ends, a signal comes or Ctrl-] is typed; a status. */
int screen_watch(struct screen_client *c);

/* screen_keys.c */
#define SCREEN_KEY_LEAVE 0x1d /* Ctrl-] */
#define SCREEN_KEY_MAX   32u

/* What a key of the terminal is to the guest. */
enum screen_key { SCREEN_KEY_NONE, SCREEN_KEY_CHAR, SCREEN_KEY_NAME, SCREEN_KEY_WINDOW };
/*
 * code: curses'; function: it is a KEY_..., else a character. alt: Escape came right before. CHAR:
 * a character to be typed is in name[0]; NAME: what PUT /keyboard takes as "keys"; WINDOW: the
 * terminal has another size; NONE: no key of the guest's.
 */
enum screen_key screen_key_get(unsigned code, bool function, bool alt, char name[SCREEN_KEY_MAX]);

#endif
