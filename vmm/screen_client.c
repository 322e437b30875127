/* SPDX-License-Identifier: BSD-2-Clause */
/* Asking the monitor by HTTP over its control socket (libcurl); the screen's file, mapped. */
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cli_priv.h"
#include "vmm/screen_client_priv.h"

#define ANSWER_MAX 262144u
#define TIMEOUT_S  120L
#define URL_MAX    64u

struct screen_answer {
	char data[ANSWER_MAX];
	size_t len;
	long status;
};

static size_t answer_take(char *data, size_t size, size_t n, void *ctx)
{
	struct screen_answer *a = ctx;

	if (size * n >= ANSWER_MAX - a->len)
		return 0;
	memcpy(a->data + a->len, data, size * n);
	a->len += size * n;
	a->data[a->len] = '\0';
	return size * n;
}

int screen_client_open(struct screen_client *c, const char *command, const char *socket)
{
	*c = (struct screen_client){.command = command, .socket = socket};
	c->curl = curl_easy_init();
	c->answer = calloc(1, sizeof(*c->answer));
	if (!c->curl || !c->answer)
		return cli_fail(command, CLI_HOST, "no memory");
	curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, socket);
	curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, TIMEOUT_S);
	curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, answer_take);
	curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c->answer);
	return CLI_OK;
}

void screen_client_close(struct screen_client *c)
{
	if (c->regs)
		munmap((void *)(uintptr_t)c->regs, VGA_FILE_SIZE);
	curl_easy_cleanup(c->curl);
	free(c->answer);
}

/* body NULL: GET. */
static CURLcode ask(struct screen_client *c, const char *path, const char *body)
{
	char url[URL_MAX];
	CURLcode rc;

	c->answer->len = 0;
	c->answer->data[0] = '\0';
	c->answer->status = 0;
	snprintf(url, sizeof(url), "http://sluice%s", path);
	curl_easy_setopt(c->curl, CURLOPT_URL, url);
	curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, body ? "PUT" : "GET");
	curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body);
	if (!body)
		curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
	rc = curl_easy_perform(c->curl);
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &c->answer->status);
	return rc;
}

/* A fault's own words, or else the status. */
static int answer_judge(const struct screen_client *c, CURLcode rc)
{
	const struct screen_answer *a = c->answer;
	const char *text;
	cJSON *json;
	int status;

	if (rc)
		return cli_fail(c->command, CLI_HOST,
			"--control %.150s: %s; is `sluice run --control` running?", c->socket,
			curl_easy_strerror(rc));
	if (a->status / 100 == 2)
		return CLI_OK;
	json = cJSON_Parse(a->data);
	text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "fault_message"));
	if (text)
		status = cli_fail(
			c->command, a->status == 400 ? CLI_USAGE : CLI_HOST, "%.300s", text);
	else
		status = cli_fail(
			c->command, CLI_HOST, "the monitor answers with status %ld", a->status);
	cJSON_Delete(json);
	return status;
}

char *screen_body(const char *key, const char *value)
{
	cJSON *json = cJSON_CreateObject();
	char *body;

	cJSON_AddStringToObject(json, key, value);
	body = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	return body;
}

int screen_put(struct screen_client *c, const char *path, const char *body)
{
	return answer_judge(c, ask(c, path, body));
}

long screen_put_quietly(struct screen_client *c, const char *path, const char *body)
{
	return ask(c, path, body) ? 0 : c->answer->status;
}

bool screen_sync_quietly(struct screen_client *c)
{
	return !ask(c, "/screen", NULL) && c->answer->status == 200;
}

void screen_timeout_set(struct screen_client *c, long seconds)
{
	curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, seconds);
}

int screen_sync(struct screen_client *c, char **text)
{
	int status = answer_judge(c, ask(c, "/screen", NULL));
	cJSON *json;

	if (status || !text)
		return status;
	json = cJSON_Parse(c->answer->data);
	*text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "text"));
	*text = *text ? strdup(*text) : NULL;
	cJSON_Delete(json);
	return CLI_OK;
}

int screen_map(struct screen_client *c)
{
	int status = screen_sync(c, NULL), fd;
	void *file = MAP_FAILED;
	const char *path;
	struct stat st;
	cJSON *json;

	if (status)
		return status;
	json = cJSON_Parse(c->answer->data);
	path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "file"));
	fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0 && !fstat(fd, &st) && st.st_size == VGA_FILE_SIZE)
		file = mmap(NULL, VGA_FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (file == MAP_FAILED)
		status = cli_fail(c->command, CLI_HOST,
			"the screen's file %.80s cannot be mapped; be the user who runs the guest",
			path ? path : "");
	cJSON_Delete(json);
	if (status)
		return status;
	c->regs = file;
	c->memory = (uint8_t *)file + VGA_REGS_SPACE;
	if (c->regs->magic != VGA_MAGIC || c->regs->version != VGA_VERSION)
		return cli_fail(c->command, CLI_HOST, "the screen's file is another version's");
	return CLI_OK;
}
