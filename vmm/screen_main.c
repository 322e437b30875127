/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program `sluice-screen`, which `sluice screenshot`, `screen`, `type` and `key` run: it asks the
 * monitor through its control socket (libcurl), maps the file the screen is, and draws it (libpng).
 */
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cli_priv.h"
#include "vmm/vga.h"

#define ANSWER_MAX 262144u
#define TIMEOUT_S  120L

static const char help[] =
	"Usage: sluice screenshot --control PATH FILE.png\n"
	"       sluice screen --control PATH\n"
	"       sluice type --control PATH TEXT\n"
	"       sluice key --control PATH KEYS...\n"
	"\n"
	"A guest's screen and keyboard, through the socket of `sluice run --control`.\n"
	"\n"
	"  screenshot   writes a picture of the screen; - is standard output\n"
	"  screen       prints what a text screen says\n"
	"  type         types TEXT on a US keyboard; \\n is the return key, \\t the tab\n"
	"  key          presses keys, together those joined by dashes: ret, f1, up,\n"
	"               ctrl-alt-delete\n";

static const char *command;

/* ------------------------------------------------------------------ asking */

struct answer {
	char data[ANSWER_MAX];
	size_t len;
	long status;
};

static size_t answer_take(char *data, size_t size, size_t n, void *ctx)
{
	struct answer *a = ctx;

	if (size * n >= ANSWER_MAX - a->len)
		return 0;
	memcpy(a->data + a->len, data, size * n);
	a->len += size * n;
	a->data[a->len] = '\0';
	return size * n;
}

/* A fault's own words, or else the status. */
static int answer_fail(const struct answer *a)
{
	cJSON *json = cJSON_Parse(a->data);
	const char *text =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "fault_message"));
	int status = text ? cli_fail(command, a->status == 400 ? CLI_USAGE : CLI_HOST, "%.300s", text)
			  : cli_fail(command, CLI_HOST, "the monitor answers with status %ld",
				    a->status);

	cJSON_Delete(json);
	return status;
}

/* body NULL: GET. An exit status; what was wrong has been told. */
static int ask(const char *socket, const char *url, const char *body, struct answer *a)
{
	CURL *curl = curl_easy_init();
	CURLcode rc = CURLE_FAILED_INIT;

	a->len = 0;
	a->data[0] = '\0';
	if (curl) {
		curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
		curl_easy_setopt(curl, CURLOPT_URL, url);
		curl_easy_setopt(curl, CURLOPT_TIMEOUT, TIMEOUT_S);
		curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, answer_take);
		curl_easy_setopt(curl, CURLOPT_WRITEDATA, a);
		if (body) {
			curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "PUT");
			curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
		}
		rc = curl_easy_perform(curl);
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &a->status);
		curl_easy_cleanup(curl);
	}
	if (rc)
		return cli_fail(command, CLI_HOST, "--control %.150s: %s; is `sluice run --control` running?",
			socket, curl_easy_strerror(rc));
	return a->status / 100 == 2 ? CLI_OK : answer_fail(a);
}

/* ------------------------------------------------------------------ the screen */

struct screen {
	struct vga_regs *regs;
	const uint8_t *memory;
	char *text; /* NULL: it shows no text */
};

static int screen_open(struct screen *s, const char *socket)
{
	static struct answer a;
	int status = ask(socket, "http://sluice/screen", NULL, &a), fd = -1;
	cJSON *json = status ? NULL : cJSON_Parse(a.data);
	const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "file"));
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "text"));
	void *file = MAP_FAILED;
	struct stat st;

	if (status)
		return status;
	if (path)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && !fstat(fd, &st) && st.st_size == VGA_FILE_SIZE)
		file = mmap(NULL, VGA_FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	s->text = text ? strdup(text) : NULL;
	if (file == MAP_FAILED)
		status = cli_fail(command, CLI_HOST,
			"the screen's file %.80s cannot be mapped; be the user who runs the guest",
			path ? path : "");
	cJSON_Delete(json);
	s->regs = file;
	s->memory = (uint8_t *)file + VGA_REGS_SPACE;
	if (!status && (s->regs->magic != VGA_MAGIC || s->regs->version != VGA_VERSION))
		status = cli_fail(command, CLI_HOST, "the screen's file is another version's");
	return status;
}

static int picture_write(const struct vga_picture *p, FILE *f)
{
	png_image png = {
		.version = PNG_IMAGE_VERSION,
		.width = p->width,
		.height = p->height,
		.format = PNG_FORMAT_BGR,
	};
	uint8_t *bytes = malloc((size_t)p->width * p->height * 3);
	int ok;

	if (!bytes)
		return -ENOMEM;
	for (size_t i = 0; i < (size_t)p->width * p->height; i++) {
		bytes[3 * i] = (uint8_t)p->pixels[i];
		bytes[3 * i + 1] = (uint8_t)(p->pixels[i] >> 8);
		bytes[3 * i + 2] = (uint8_t)(p->pixels[i] >> 16);
	}
	ok = png_image_write_to_stdio(&png, f, 0, bytes, 0, NULL);
	free(bytes);
	return ok && !fflush(f) ? 0 : -EIO;
}

static int screenshot(const char *socket, const char *path)
{
	struct vga_picture picture = {
		.pixels = malloc(VGA_PICTURE_MAX * sizeof(*picture.pixels))};
	bool out = !strcmp(path, "-");
	struct screen s;
	int status, rc;
	FILE *f;

	if (!picture.pixels)
		return cli_fail(command, CLI_HOST, "no memory");
	status = screen_open(&s, socket);
	if (status)
		return status;
	vga_draw(s.regs, s.memory, &picture);
	f = out ? stdout : fopen(path, "wb");
	rc = f ? picture_write(&picture, f) : -errno;
	if (f && !out && fclose(f) && !rc)
		rc = -errno;
	if (rc)
		return cli_fail(command, CLI_HOST, "%.150s: cannot be written: %s", path, strerror(-rc));
	return CLI_OK;
}

static int screen_print(const char *socket)
{
	struct screen s;
	int status = screen_open(&s, socket);

	if (status)
		return status;
	if (!s.text)
		return cli_fail(command, CLI_HOST,
			"the screen shows no text; `sluice screenshot` makes a picture of it");
	fputs(s.text, stdout);
	return CLI_OK;
}

/* ------------------------------------------------------------------ the keyboard */

/* \n, \t, \b and \\ for what is hard to write in a shell; in place. False: another escape. */
static bool unescape(char *text)
{
	static const char from[] = "ntb\\", to[] = "\n\t\b\\";
	char *out = text;

	for (; *text; text++) {
		const char *at;

		if (*text != '\\') {
			*out++ = *text;
			continue;
		}
		at = text[1] ? strchr(from, text[1]) : NULL;
		if (!at)
			return false;
		*out++ = to[at - from];
		text++;
	}
	*out = '\0';
	return true;
}

static int keyboard_put(const char *socket, const char *key, const char *value)
{
	static struct answer a;
	cJSON *json = cJSON_CreateObject();
	char *body;
	int status;

	cJSON_AddStringToObject(json, key, value);
	body = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	if (!body)
		return cli_fail(command, CLI_HOST, "no memory");
	status = ask(socket, "http://sluice/keyboard", body, &a);
	free(body);
	return status;
}

static int type(const char *socket, char *text)
{
	if (!unescape(text))
		return cli_fail(command, CLI_USAGE,
			"text: a backslash stands before n, t, b or another backslash");
	return keyboard_put(socket, "text", text);
}

/* ------------------------------------------------------------------ from start to end */

int main(int argc, char **argv)
{
	static const struct cli_option options[] = {
		{"--control", true}, {"--help", false}, {"-h", false}, {NULL, false}};
	struct cli_args a = {.argc = argc - 1, .argv = argv + 1, .options = options};
	const char *socket = NULL;
	enum cli_next next;
	char *words[64];
	int n = 0, status = CLI_OK, want;

	if (argc < 2) {
		fputs(help, stderr);
		return CLI_USAGE;
	}
	a.command = command = argv[1];
	while ((next = cli_args_next(&a)) != CLI_END) {
		if (next == CLI_BAD)
			return CLI_USAGE;
		if (next == CLI_OPTION && a.option) {
			fputs(help, stdout);
			return CLI_OK;
		}
		if (next == CLI_OPTION)
			socket = a.value;
		else if (n < 64)
			words[n++] = (char *)(uintptr_t)a.word;
	}
	if (!socket)
		return cli_fail(command, CLI_USAGE,
			"--control: missing; give the PATH that `sluice run --control` was given");
	want = !strcmp(command, "screen") ? 0 : 1;
	if (n < want || (n > want && strcmp(command, "key") != 0))
		return cli_fail(command, CLI_USAGE, "%d arguments; see `sluice %s --help`", n, command);
	if (!strcmp(command, "screenshot"))
		return screenshot(socket, words[0]);
	if (!strcmp(command, "screen"))
		return screen_print(socket);
	if (!strcmp(command, "type"))
		return type(socket, words[0]);
	for (int i = 0; i < n && !status; i++)
		status = keyboard_put(socket, "keys", words[i]);
	return status;
}
