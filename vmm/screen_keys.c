/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A terminal's keys, as curses reports them, as keys of the guest's keyboard. Escape before another
 * key is Alt, which is what terminals send for it.
 */
#define NCURSES_WIDECHAR 1
#include <curses.h>
#include <stdio.h>
#include <string.h>

#include "vmm/screen_watch_priv.h"

#define FUNCTION_KEYS 12u

static const struct {
	int code;
	const char *name;
} plain[] = {
	{KEY_UP, "up"},
	{KEY_DOWN, "down"},
	{KEY_LEFT, "left"},
	{KEY_RIGHT, "right"},
	{KEY_HOME, "home"},
	{KEY_END, "end"},
	{KEY_PPAGE, "pgup"},
	{KEY_NPAGE, "pgdn"},
	{KEY_IC, "insert"},
	{KEY_DC, "delete"},
	{KEY_BACKSPACE, "backspace"},
	{KEY_ENTER, "ret"},
	{KEY_BTAB, "shift-tab"},
	{KEY_SR, "shift-up"},
	{KEY_SF, "shift-down"},
	{KEY_SLEFT, "shift-left"},
	{KEY_SRIGHT, "shift-right"},
	{KEY_SHOME, "shift-home"},
	{KEY_SEND, "shift-end"},
	{KEY_SPREVIOUS, "shift-pgup"},
	{KEY_SNEXT, "shift-pgdn"},
	{KEY_SDC, "shift-delete"},
	{KEY_SIC, "shift-insert"},
};

/* Extended names of terminfo (user_caps(5)): kUP5 is Ctrl and up. */
static const struct {
	const char *from, *name;
} extended[] = {
	{"kUP", "up"},
	{"kDN", "down"},
	{"kLFT", "left"},
	{"kRIT", "right"},
	{"kHOM", "home"},
	{"kEND", "end"},
	{"kPRV", "pgup"},
	{"kNXT", "pgdn"},
	{"kIC", "insert"},
	{"kDC", "delete"},
};

/* Of a terminal that shows control characters in its own way. */
static const struct {
	unsigned code;
	const char *name;
} control[] = {
	{0x00, "ctrl-spc"},
	{'\t', "tab"},
	{'\r', "ret"},
	{0x1b, "esc"},
	{0x1c, "ctrl-\\"},
	{0x1e, "ctrl-6"},
	{0x1f, "ctrl-minus"},
	{0x7f, "backspace"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool name_set(char out[SCREEN_KEY_MAX], bool alt, unsigned modifiers, const char *name)
{
	int n = snprintf(out, SCREEN_KEY_MAX, "%s%s%s%s", modifiers & 4 ? "ctrl-" : "",
		alt || (modifiers & 2) ? "alt-" : "", modifiers & 1 ? "shift-" : "", name);

	return n > 0 && (unsigned)n < SCREEN_KEY_MAX;
}

/* F13 and on are F1 and on with Shift, Ctrl, Ctrl and Shift, and Alt, as xterm has them. */
static bool function_key(unsigned n, bool alt, char out[SCREEN_KEY_MAX])
{
	static const uint8_t modifiers[] = {0, 1, 4, 5, 2, 3};
	char name[8];

	if (!n || n > FUNCTION_KEYS * COUNT(modifiers))
		return false;
	snprintf(name, sizeof(name), "f%u", (n - 1) % FUNCTION_KEYS + 1);
	return name_set(out, alt, modifiers[(n - 1) / FUNCTION_KEYS], name);
}

static bool extended_key(unsigned code, bool alt, char out[SCREEN_KEY_MAX])
{
	const char *name = keyname((int)code);

	for (size_t i = 0; name && i < COUNT(extended); i++) {
		size_t len = strlen(extended[i].from);

		if (!strncmp(name, extended[i].from, len) && name[len] >= '2' && name[len] <= '8' &&
			!name[len + 1])
			return name_set(out, alt, (unsigned)(name[len] - '1'), extended[i].name);
	}
	return false;
}

static bool special_key(unsigned code, bool alt, char out[SCREEN_KEY_MAX])
{
	if (code >= KEY_F(1) && code <= KEY_F(63))
		return function_key(code - KEY_F(0), alt, out);
	for (size_t i = 0; i < COUNT(plain); i++)
		if ((unsigned)plain[i].code == code)
			return name_set(out, alt, 0, plain[i].name);
	return extended_key(code, alt, out);
}

static bool control_key(unsigned code, bool alt, char out[SCREEN_KEY_MAX])
{
	const char letter[2] = {(char)(code + 'a' - 1), '\0'};

	for (size_t i = 0; i < COUNT(control); i++)
		if (control[i].code == code)
			return name_set(out, alt, 0, control[i].name);
	return code >= 1 && code <= 26 && name_set(out, alt, 4, letter);
}

/* With Alt a character needs the name of its key, and Shift where that takes it. */
static bool alt_key(unsigned code, char out[SCREEN_KEY_MAX])
{
	static const char upper[] = "~!@#$%^&*()_+{}|:\"<>?";
	static const char lower[] = "`1234567890-=[]\\;',./";
	const char *at = strchr(upper, (int)code);
	char name[2] = {(char)code, '\0'};
	bool shift = at || (code >= 'A' && code <= 'Z');

	if (at)
		name[0] = lower[at - upper];
	else if (shift)
		name[0] = (char)(code - 'A' + 'a');
	return name_set(out, true, shift, name[0] == ' ' ? "spc" : name[0] == '-' ? "minus" : name);
}

enum screen_key screen_key_get(unsigned code, bool function, bool alt, char name[SCREEN_KEY_MAX])
{
	if (function && code == KEY_RESIZE)
		return SCREEN_KEY_WINDOW;
	if (function)
		return special_key(code, alt, name) ? SCREEN_KEY_NAME : SCREEN_KEY_NONE;
	if (code < 0x20 || code == 0x7f)
		return control_key(code, alt, name) ? SCREEN_KEY_NAME : SCREEN_KEY_NONE;
	if (code > 0x7f)
		return SCREEN_KEY_NONE;
	if (alt)
		return alt_key(code, name) ? SCREEN_KEY_NAME : SCREEN_KEY_NONE;
	name[0] = (char)code;
	return SCREEN_KEY_CHAR;
}
