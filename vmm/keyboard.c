/* SPDX-License-Identifier: BSD-2-Clause */
/* What people type, as keys of a US keyboard: characters, and names of keys. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "vmm/machine_priv.h"

#define KEYS_TOGETHER 6u
#define WAIT_NS       2000000u
#define PACE_NS       30000000u /* a BIOS holds 15 keys that nobody has asked for, and drops the rest */
#define KEY_SHIFT     0x2au
#define EXTENDED      0x100u

/* Set 1 codes; EXTENDED: E0h first. Names are QEMU's. */
static const struct key {
	const char *name;
	uint16_t code;
} keys[] = {
	{"esc", 0x01},
	{"minus", 0x0c},
	{"equal", 0x0d},
	{"backspace", 0x0e},
	{"tab", 0x0f},
	{"ret", 0x1c},
	{"enter", 0x1c},
	{"ctrl", 0x1d},
	{"shift", KEY_SHIFT},
	{"shift_r", 0x36},
	{"alt", 0x38},
	{"spc", 0x39},
	{"space", 0x39},
	{"caps_lock", 0x3a},
	{"f1", 0x3b},
	{"f2", 0x3c},
	{"f3", 0x3d},
	{"f4", 0x3e},
	{"f5", 0x3f},
	{"f6", 0x40},
	{"f7", 0x41},
	{"f8", 0x42},
	{"f9", 0x43},
	{"f10", 0x44},
	{"num_lock", 0x45},
	{"scroll_lock", 0x46},
	{"f11", 0x57},
	{"f12", 0x58},
	{"kp_enter", 0x1c | EXTENDED},
	{"ctrl_r", 0x1d | EXTENDED},
	{"alt_r", 0x38 | EXTENDED},
	{"home", 0x47 | EXTENDED},
	{"up", 0x48 | EXTENDED},
	{"pgup", 0x49 | EXTENDED},
	{"left", 0x4b | EXTENDED},
	{"right", 0x4d | EXTENDED},
	{"end", 0x4f | EXTENDED},
	{"down", 0x50 | EXTENDED},
	{"pgdn", 0x51 | EXTENDED},
	{"insert", 0x52 | EXTENDED},
	{"delete", 0x53 | EXTENDED},
};

/* The characters of codes 2 to 35h, without and with shift. */
static const char plain[] = "1234567890-=\b\tqwertyuiop[]\n\1asdfghjkl;'`\1\\zxcvbnm,./";
static const char shifted[] = "!@#$%^&*()_+\b\tQWERTYUIOP{}\n\1ASDFGHJKL:\"~\1|ZXCVBNM<>?";

/* 0: no key has it. */
static uint16_t key_of_char(char c, bool *shift)
{
	const char *at;

	*shift = false;
	if (c == ' ')
		return 0x39;
	if (c < ' ' && c != '\n' && c != '\t' && c != '\b')
		return 0;
	at = strchr(plain, c);
	if (!at) {
		at = strchr(shifted, c);
		*shift = true;
		return at ? (uint16_t)(at - shifted + 2) : 0;
	}
	return (uint16_t)(at - plain + 2);
}

static uint16_t key_of_name(const char *name, size_t len)
{
	bool shift;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strlen(keys[i].name) == len && !strncmp(keys[i].name, name, len))
			return keys[i].code;
	return len == 1 ? key_of_char(*name, &shift) : 0;
}

static uint64_t end_after(unsigned timeout_ms)
{
	return clock_now_ns() + timeout_ms * 1000000ull;
}

/* The guest has no room: -EAGAIN, try again, or -ETIMEDOUT. Other results as they are. */
static int room_await(int rc, uint64_t end_ns)
{
	const struct timespec wait = {.tv_nsec = WAIT_NS};

	if (rc != -EAGAIN)
		return rc;
	if (clock_now_ns() >= end_ns)
		return -ETIMEDOUT;
	nanosleep(&wait, NULL);
	return -EAGAIN;
}

static int key_send(struct machine *m, uint16_t code, bool down, uint64_t end_ns)
{
	struct device *d = machine_device_find(m, "i8042");
	int rc;

	do
		rc = room_await(
			d ? i8042_key(d, (uint8_t)code, code & EXTENDED, down) : -ENODEV, end_ns);
	while (rc == -EAGAIN);
	return rc;
}

static int keyboard_why(int rc, char why[VMM_WHY_MAX])
{
	if (rc == -ETIMEDOUT)
		return why_set(why, rc, "the guest does not read its keyboard");
	if (rc == -ENODEV)
		return why_set(why, rc, "the guest has switched its keyboard off");
	return rc;
}

int machine_type(struct machine *m, const char *text, unsigned timeout_ms, char why[VMM_WHY_MAX])
{
	const struct timespec pace = {.tv_nsec = PACE_NS};
	uint64_t end_ns = end_after(timeout_ms);
	bool shift;
	int rc = 0;

	if (strlen(text) > MACHINE_TYPE_MAX)
		return why_set(why, -EINVAL, "text: longer than %u characters; give it in pieces",
			MACHINE_TYPE_MAX);
	for (const char *c = text; *c; c++)
		if (!key_of_char(*c, &shift))
			return why_set(why, -EINVAL,
				"text: byte %zu is no character of a US keyboard",
				(size_t)(c - text) + 1);
	for (const char *c = text; *c && !rc; c++) {
		uint16_t code = key_of_char(*c, &shift);

		if (shift)
			rc = key_send(m, KEY_SHIFT, true, end_ns);
		if (!rc)
			rc = key_send(m, code, true, end_ns);
		if (!rc)
			rc = key_send(m, code, false, end_ns);
		if (!rc && shift)
			rc = key_send(m, KEY_SHIFT, false, end_ns);
		if (c[1])
			nanosleep(&pace, NULL);
	}
	return keyboard_why(rc, why);
}

int machine_keys(struct machine *m, const char *names, unsigned timeout_ms, char why[VMM_WHY_MAX])
{
	uint64_t end_ns = end_after(timeout_ms);
	uint16_t codes[KEYS_TOGETHER];
	unsigned n = 0;
	int rc = 0;

	for (const char *at = names;; at++) {
		size_t len = strcspn(at, "-");
		uint16_t code = key_of_name(at, len);

		if (!code)
			return why_set(why, -EINVAL,
				"keys: %.40s: no such key; use names like a, f1, ret, esc, "
				"ctrl-alt-delete",
				at);
		if (n == KEYS_TOGETHER)
			return why_set(why, -EINVAL, "keys: %.80s: more than %u together", names,
				KEYS_TOGETHER);
		codes[n++] = code;
		at += len;
		if (!*at)
			break;
	}
	for (unsigned i = 0; i < n && !rc; i++)
		rc = key_send(m, codes[i], true, end_ns);
	for (unsigned i = n; i-- && !rc;)
		rc = key_send(m, codes[i], false, end_ns);
	return keyboard_why(rc, why);
}

int machine_key(
	struct machine *m, const char *name, bool down, unsigned timeout_ms, char why[VMM_WHY_MAX])
{
	uint16_t code = key_of_name(name, strlen(name));

	if (!code)
		return why_set(why, -EINVAL, "key: %.40s: no such key", name);
	return keyboard_why(key_send(m, code, down, end_after(timeout_ms)), why);
}

int machine_mouse(struct machine *m, int dx, int dy, uint8_t buttons, unsigned timeout_ms)
{
	struct device *d = machine_device_find(m, "i8042");
	uint64_t end_ns = end_after(timeout_ms);
	int rc;

	do
		rc = room_await(d ? i8042_mouse(d, dx, dy, buttons) : -ENODEV, end_ns);
	while (rc == -EAGAIN);
	return rc;
}
