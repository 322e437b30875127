/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The monitor's control socket (--control PATH): HTTP and JSON, on threads of the server's own.
 *
 *     GET /version     {"version": "..."}
 *     GET /screen      {"file": "/proc/PID/fd/N", "text": "..."}: vga.h's file, brought up to date
 *     GET /speaker     {"on": true, "hz": 440}: whether it sounds, and its tone (0: none is set)
 *
 *     PUT /keyboard    {"text": "root\n"} (64 characters), {"keys": "ctrl-alt-delete"}, or
 *                      {"key": "a", "down": true}: 204 when the guest has it
 *     PUT /mouse       {"dx": 1, "dy": -2, "buttons": 1}
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/cli_run_priv.h"

#define TEXT_ROOM   32768u
#define KEY_WAIT_MS 4000u /* who waits 5 s for an answer is cut off */

static void version_get(void *ctx, struct control_request *req)
{
	(void)ctx;
	req->json = cJSON_CreateObject();
	cJSON_AddStringToObject(req->json, "version", SLUICE_VERSION);
}

/* What the screen says, as long as it is text. */
static void text_add(cJSON *json, int fd)
{
	char *text = malloc(TEXT_ROOM);
	void *file = mmap(NULL, VGA_FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);

	if (text && file != MAP_FAILED &&
		vga_text(file, (uint8_t *)file + VGA_REGS_SPACE, text, TEXT_ROOM))
		cJSON_AddStringToObject(json, "text", text);
	else
		cJSON_AddNullToObject(json, "text");
	if (file != MAP_FAILED)
		munmap(file, VGA_FILE_SIZE);
	free(text);
}

static void screen_get(void *ctx, struct control_request *req)
{
	struct machine *m = ctx;
	char path[64];
	int fd = machine_screen_fd(m);

	if (fd < 0) {
		control_fault(req, 404, "screen: this guest has none");
		return;
	}
	machine_screen_sync(m);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	req->json = cJSON_CreateObject();
	cJSON_AddStringToObject(req->json, "file", path);
	text_add(req->json, fd);
}

static void speaker_get(void *ctx, struct control_request *req)
{
	struct speaker_info info;
	int rc = machine_speaker_get(ctx, &info);

	if (rc) {
		control_fault(req, 409, "speaker: %s", strerror(-rc));
		return;
	}
	req->json = cJSON_CreateObject();
	cJSON_AddBoolToObject(req->json, "on", info.on);
	cJSON_AddNumberToObject(req->json, "hz", info.hz);
}

static void keys_put(void *ctx, struct control_request *req)
{
	const cJSON *text = cJSON_GetObjectItemCaseSensitive(req->body, "text");
	const cJSON *keys = cJSON_GetObjectItemCaseSensitive(req->body, "keys");
	const cJSON *key = cJSON_GetObjectItemCaseSensitive(req->body, "key");
	const cJSON *down = cJSON_GetObjectItemCaseSensitive(req->body, "down");
	int given = cJSON_GetArraySize(req->body), rc;
	char why[VMM_WHY_MAX] = "";

	if (given == 1 && cJSON_IsString(text)) {
		rc = machine_type(ctx, text->valuestring, KEY_WAIT_MS, why);
	} else if (given == 1 && cJSON_IsString(keys)) {
		rc = machine_keys(ctx, keys->valuestring, KEY_WAIT_MS, why);
	} else if (given == 2 && cJSON_IsString(key) && cJSON_IsBool(down)) {
		rc = machine_key(ctx, key->valuestring, cJSON_IsTrue(down), KEY_WAIT_MS, why);
	} else {
		control_fault(req, 400,
			"body: give \"text\", or \"keys\", or \"key\" and \"down\", and nothing "
			"else");
		return;
	}
	if (rc)
		control_fault(req, rc == -EINVAL ? 400 : 409, "%s", why);
	else
		req->status = 204;
}

/* False: it is there, and no number in range. */
static bool number_get(const cJSON *body, const char *key, int min, int max, int *out)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, key);

	*out = 0;
	if (!item)
		return true;
	*out = item->valueint;
	return cJSON_IsNumber(item) && item->valueint >= min && item->valueint <= max;
}

static void mouse_put(void *ctx, struct control_request *req)
{
	int dx, dy, buttons, rc;

	if (!number_get(req->body, "dx", -255, 255, &dx) ||
		!number_get(req->body, "dy", -255, 255, &dy) ||
		!number_get(req->body, "buttons", 0, 7, &buttons)) {
		control_fault(req, 400,
			"body: \"dx\" and \"dy\" are numbers from -255 to 255, \"buttons\" from 0 "
			"to 7");
		return;
	}
	rc = machine_mouse(ctx, dx, dy, (uint8_t)buttons, KEY_WAIT_MS);
	if (rc)
		control_fault(req, 409, "the guest does not %s its mouse",
			rc == -ENODEV ? "use" : "read");
	else
		req->status = 204;
}

static const struct control_route routes[] = {
	{"GET", "/version", version_get},
	{"GET", "/screen", screen_get},
	{"GET", "/speaker", speaker_get},
	{"PUT", "/keyboard", keys_put},
	{"PUT", "/mouse", mouse_put},
	{NULL, NULL, NULL},
};

int run_control_open(
	struct control_server **out, const char *path, struct machine *m, char why[BACKEND_WHY_MAX])
{
	return control_server_create(out, path, routes, m, why);
}
