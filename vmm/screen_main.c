/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program `sluice-screen`, which `sluice screenshot`, `screen`, `watch`, `type` and `key` run:
 * it asks the monitor through its control socket (libcurl), maps the file the screen is, and draws
 * it (libpng; watch: screen_watch.c).
 */
#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cli_priv.h"
#include "vmm/screen_client_priv.h"
#include "vmm/screen_watch_priv.h"

#define WORDS_MAX  64
#define TYPE_PIECE 64u

static const char help[] =
	"Usage: sluice screenshot --control PATH FILE.png\n"
	"       sluice screen --control PATH\n"
	"       sluice watch --control PATH\n"
	"       sluice type --control PATH TEXT\n"
	"       sluice key --control PATH KEYS...\n"
	"\n"
	"A guest's screen and keyboard, through the socket of `sluice run --control`.\n"
	"\n"
	"  screenshot   writes a picture of the screen; - is standard output\n"
	"  screen       prints what a text screen says\n"
	"  watch        shows a text screen in this terminal, and is its keyboard, until\n"
	"               Ctrl-] is typed or the guest ends. Escape right before a key is\n"
	"               Alt; what no terminal sends, such as ctrl-alt-delete, is for key\n"
	"  type         types TEXT on a US keyboard; \\n is the return key, \\t the tab\n"
	"  key          presses keys, together those joined by dashes: ret, f1, up,\n"
	"               ctrl-alt-delete\n";

static const char *command;
static struct screen_client client;

/* ------------------------------------------------------------------ the screen */

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

static int screenshot(const char *path)
{
	struct vga_picture picture = {.pixels = malloc(VGA_PICTURE_MAX * sizeof(*picture.pixels))};
	bool out = !strcmp(path, "-");
	int status, rc;
	FILE *f;

	if (!picture.pixels)
		return cli_fail(command, CLI_HOST, "no memory");
	status = screen_map(&client);
	if (status) {
		free(picture.pixels);
		return status;
	}
	vga_draw(client.regs, client.memory, &picture);
	f = out ? stdout : fopen(path, "wb");
	rc = f ? picture_write(&picture, f) : -errno;
	if (f && !out && fclose(f) && !rc)
		rc = -errno;
	free(picture.pixels);
	if (rc)
		return cli_fail(
			command, CLI_HOST, "%.150s: cannot be written: %s", path, strerror(-rc));
	return CLI_OK;
}

static int screen_print(void)
{
	char *text = NULL;
	int status = screen_sync(&client, &text);

	if (status)
		return status;
	if (!text)
		return cli_fail(command, CLI_HOST,
			"the screen shows no text; `sluice screenshot` makes a picture of it");
	fputs(text, stdout);
	free(text);
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

static int keyboard_put(const char *key, const char *value)
{
	char *body = screen_body(key, value);
	int status;

	if (!body)
		return cli_fail(command, CLI_HOST, "no memory");
	status = screen_put(&client, "/keyboard", body);
	free(body);
	return status;
}

static int type(char *text)
{
	char piece[TYPE_PIECE + 1];
	int status = CLI_OK;
	size_t n;

	if (!unescape(text))
		return cli_fail(command, CLI_USAGE,
			"text: a backslash stands before n, t, b or another backslash");
	/* as much at a time as the monitor takes */
	for (size_t left = strlen(text); left && !status; text += n, left -= n) {
		n = left < TYPE_PIECE ? left : TYPE_PIECE;
		memcpy(piece, text, n);
		piece[n] = '\0';
		status = keyboard_put("text", piece);
	}
	return status;
}

/* ------------------------------------------------------------------ from start to end */

static int command_run(char **words, int n)
{
	static char none[1];
	char *word = words[0] ? words[0] : none; /* it is there where one is wanted */
	int status = CLI_OK;

	if (!strcmp(command, "screenshot"))
		return screenshot(word);
	if (!strcmp(command, "screen"))
		return screen_print();
	if (!strcmp(command, "watch"))
		return screen_watch(&client);
	if (!strcmp(command, "type"))
		return type(word);
	for (int i = 0; i < n && !status; i++)
		status = keyboard_put("keys", words[i]);
	return status;
}

int main(int argc, char **argv)
{
	static const struct cli_option options[] = {
		{"--control", true}, {"--help", false}, {"-h", false}, {NULL, false}};
	struct cli_args a = {.argc = argc - 1, .argv = argv + 1, .options = options};
	const char *socket = NULL;
	enum cli_next next;
	char *words[WORDS_MAX] = {NULL};
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
		else if (n < WORDS_MAX)
			words[n++] = (char *)(uintptr_t)a.word;
	}
	if (!socket)
		return cli_fail(command, CLI_USAGE,
			"--control: missing; give the PATH that `sluice run --control` was given");
	want = strcmp(command, "screen") && strcmp(command, "watch") ? 1 : 0;
	if (n < want || (n > want && strcmp(command, "key") != 0))
		return cli_fail(
			command, CLI_USAGE, "%d arguments; see `sluice %s --help`", n, command);
	status = screen_client_open(&client, command, socket);
	if (!status)
		status = command_run(words, n);
	screen_client_close(&client);
	return status;
}
