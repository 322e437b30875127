/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program `sluice-vnc`: a guest's screen, keyboard and mouse for VNC viewers (RFC 6143, by
 * libvncserver). It maps the file the screen is, asks the monitor 25 times a second to have it up
 * to date, and passes on what changed. Whoever is not its user or at its loopback does not reach
 * it, unless told so.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <rfb/keysym.h>
#include <rfb/rfb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/cli_priv.h"
#include "vmm/screen_client_priv.h"

#define FRAME_US     40000
#define PORT_DEFAULT 5900u
#define PASSWORD_MAX 8 /* VNC's own limit */
#define MOUSE_STEP   127

static const char help[] =
	"Usage: sluice-vnc --control PATH [--listen WHERE] [--password-file FILE]\n"
	"\n"
	"Shows the guest behind a control socket (`sluice run --control PATH`) to VNC\n"
	"viewers, until the guest ends.\n"
	"\n"
	"  --control PATH        the monitor's control socket\n"
	"  --listen WHERE        unix:PATH (mode 0600), or ADDRESS:PORT\n"
	"                        (127.0.0.1:5900)\n"
	"  --password-file FILE  viewers give its first line, 8 characters at most\n";

static struct vnc {
	struct screen_client client;
	rfbScreenInfoPtr rfb;
	struct vga_picture now;
	uint32_t *shown; /* what viewers have */
	int unix_fd;
	char unix_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char password[PASSWORD_MAX + 1];
	char *passwords[2];
	int x, y, buttons; /* of the pointer, last */
	bool pointed;
} vnc = {.unix_fd = -1};

static volatile sig_atomic_t stop;

static void stopped(int sig)
{
	(void)sig;
	stop = 1;
}

/* ------------------------------------------------------------------ keys and the pointer */

static const struct {
	rfbKeySym sym;
	const char *name;
} key_names[] = {
	{XK_Escape, "esc"},
	{XK_BackSpace, "backspace"},
	{XK_Tab, "tab"},
	{XK_ISO_Left_Tab, "tab"},
	{XK_Return, "ret"},
	{XK_KP_Enter, "kp_enter"},
	{XK_Control_L, "ctrl"},
	{XK_Control_R, "ctrl_r"},
	{XK_Shift_L, "shift"},
	{XK_Shift_R, "shift_r"},
	{XK_Alt_L, "alt"},
	{XK_Alt_R, "alt_r"},
	{XK_Meta_L, "alt"},
	{XK_Caps_Lock, "caps_lock"},
	{XK_Num_Lock, "num_lock"},
	{XK_Scroll_Lock, "scroll_lock"},
	{XK_F1, "f1"},
	{XK_F2, "f2"},
	{XK_F3, "f3"},
	{XK_F4, "f4"},
	{XK_F5, "f5"},
	{XK_F6, "f6"},
	{XK_F7, "f7"},
	{XK_F8, "f8"},
	{XK_F9, "f9"},
	{XK_F10, "f10"},
	{XK_F11, "f11"},
	{XK_F12, "f12"},
	{XK_Home, "home"},
	{XK_End, "end"},
	{XK_Up, "up"},
	{XK_Down, "down"},
	{XK_Left, "left"},
	{XK_Right, "right"},
	{XK_Page_Up, "pgup"},
	{XK_Page_Down, "pgdn"},
	{XK_Insert, "insert"},
	{XK_Delete, "delete"},
	{XK_space, "spc"},
	{XK_minus, "minus"},
	{XK_underscore, "minus"},
};

static void key_event(rfbBool down, rfbKeySym sym, rfbClientPtr cl)
{
	char one[2] = {(char)sym, '\0'}, body[64];
	const char *name = sym > ' ' && sym < 0x7f && sym != '"' && sym != '\\' ? one : NULL;

	(void)cl;
	for (size_t i = 0; i < sizeof(key_names) / sizeof(key_names[0]); i++)
		if (key_names[i].sym == sym)
			name = key_names[i].name;
	/* these two are written with a backslash in JSON */
	if (sym == '"' || sym == '\\')
		name = sym == '"' ? "\\\"" : "\\\\";
	if (!name)
		return;
	snprintf(body, sizeof(body), "{\"key\":\"%s\",\"down\":%s}", name, down ? "true" : "false");
	screen_put_quietly(&vnc.client, "/keyboard", body);
}

static int step(int distance)
{
	return distance > MOUSE_STEP ? MOUSE_STEP : distance < -MOUSE_STEP ? -MOUSE_STEP : distance;
}

/* A PS/2 mouse knows no places, only ways. */
static void pointer_event(int mask, int x, int y, rfbClientPtr cl)
{
	int buttons = (mask & 1) | (mask & 2 ? 4 : 0) | (mask & 4 ? 2 : 0);
	char body[64];

	(void)cl;
	if (!vnc.pointed) {
		vnc.x = x;
		vnc.y = y;
		vnc.pointed = true;
	}
	do {
		int dx = step(x - vnc.x), dy = step(y - vnc.y);

		if (!dx && !dy && buttons == vnc.buttons)
			break;
		vnc.x += dx;
		vnc.y += dy;
		vnc.buttons = buttons;
		snprintf(body, sizeof(body), "{\"dx\":%d,\"dy\":%d,\"buttons\":%d}", dx, dy,
			buttons);
		/* one that uses no mouse misses nothing */
		if (screen_put_quietly(&vnc.client, "/mouse", body) != 204)
			vnc.x = x, vnc.y = y;
	} while (vnc.x != x || vnc.y != y);
}

/* ------------------------------------------------------------------ pictures */

/* A picture of another size: viewers get a new frame buffer. */
static int size_follow(void)
{
	size_t bytes = (size_t)vnc.now.width * vnc.now.height * sizeof(uint32_t);
	uint32_t *shown;

	if ((int)vnc.now.width == vnc.rfb->width && (int)vnc.now.height == vnc.rfb->height)
		return CLI_OK;
	shown = calloc(1, bytes);
	if (!shown)
		return cli_fail("vnc", CLI_HOST, "no memory");
	rfbNewFramebuffer(vnc.rfb, (char *)shown, (int)vnc.now.width, (int)vnc.now.height, 8, 3, 4);
	free(vnc.shown);
	vnc.shown = shown;
	return CLI_OK;
}

/* Rows that changed, by the run. */
static void changes_pass(void)
{
	size_t row = (size_t)vnc.now.width * sizeof(uint32_t);
	uint32_t first = 0, end = 0;

	for (uint32_t y = 0; y < vnc.now.height; y++) {
		uint32_t *to = vnc.shown + (size_t)y * vnc.now.width;
		const uint32_t *from = vnc.now.pixels + (size_t)y * vnc.now.width;

		if (!memcmp(to, from, row))
			continue;
		memcpy(to, from, row);
		if (end != y || end == 0) {
			if (end)
				rfbMarkRectAsModified(
					vnc.rfb, 0, (int)first, (int)vnc.now.width, (int)end);
			first = y;
		}
		end = y + 1;
	}
	if (end)
		rfbMarkRectAsModified(vnc.rfb, 0, (int)first, (int)vnc.now.width, (int)end);
}

/* The guest's end is the end. */
static int frame_pass(void)
{
	int status;

	if (access(vnc.client.socket, F_OK)) {
		stop = 1;
		return CLI_OK;
	}
	status = screen_sync(&vnc.client, NULL);
	if (status)
		return status;
	vga_draw(vnc.client.regs, vnc.client.memory, &vnc.now);
	status = size_follow();
	if (!status)
		changes_pass();
	return status;
}

/* ------------------------------------------------------------------ viewers */

static int unix_listen(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	mode_t before;
	int rc;

	if (strlen(path) >= sizeof(a.sun_path))
		return cli_fail("vnc", CLI_USAGE, "--listen unix:%.100s: too long", path);
	memcpy(a.sun_path, path, strlen(path) + 1);
	vnc.unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* one that nobody answers at any more is replaced */
	if (vnc.unix_fd >= 0 && connect(vnc.unix_fd, (struct sockaddr *)&a, sizeof(a)) &&
		errno == ECONNREFUSED)
		unlink(path);
	close(vnc.unix_fd);
	vnc.unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	before = umask(0177);
	rc = vnc.unix_fd < 0 ? -1 : bind(vnc.unix_fd, (struct sockaddr *)&a, sizeof(a));
	umask(before);
	if (rc || listen(vnc.unix_fd, 8))
		return cli_fail("vnc", CLI_HOST, "--listen unix:%.100s: %s", path, strerror(errno));
	memcpy(vnc.unix_path, a.sun_path, sizeof(a.sun_path));
	return CLI_OK;
}

/* ADDRESS:PORT */
static int tcp_listen(const char *where)
{
	const char *colon = strrchr(where, ':');
	char address[64] = "", *end = NULL;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
	struct in_addr in;

	if (colon && (size_t)(colon - where) < sizeof(address))
		memcpy(address, where, (size_t)(colon - where));
	if (!end || *end || !port || port > 65535 || inet_pton(AF_INET, address, &in) != 1)
		return cli_fail("vnc", CLI_USAGE,
			"--listen %.60s: use unix:PATH or ADDRESS:PORT, such as 127.0.0.1:5900",
			where);
	vnc.rfb->listenInterface = in.s_addr;
	vnc.rfb->port = (int)port;
	return CLI_OK;
}

static int password_read(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[64] = "";

	if (!f)
		return cli_fail(
			"vnc", CLI_HOST, "--password-file %.150s: %s", path, strerror(errno));
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	line[strcspn(line, "\r\n")] = '\0';
	if (!*line || strlen(line) > PASSWORD_MAX)
		return cli_fail("vnc", CLI_USAGE,
			"--password-file %.150s: its first line is to be 1 to %d characters", path,
			PASSWORD_MAX);
	memcpy(vnc.password, line, strlen(line) + 1);
	vnc.passwords[0] = vnc.password;
	vnc.rfb->authPasswdData = vnc.passwords;
	vnc.rfb->passwordCheck = rfbCheckPasswordByList;
	return CLI_OK;
}

static void log_nothing(const char *format, ...)
{
	(void)format;
}

static int server_make(const char *listen, const char *password)
{
	int status = screen_map(&vnc.client);

	if (status)
		return status;
	vga_draw(vnc.client.regs, vnc.client.memory, &vnc.now);
	rfbLog = log_nothing;
	rfbErr = log_nothing;
	vnc.rfb = rfbGetScreen(NULL, NULL, (int)vnc.now.width, (int)vnc.now.height, 8, 3, 4);
	vnc.shown = vnc.rfb ? calloc(vnc.now.width, vnc.now.height * sizeof(uint32_t)) : NULL;
	if (!vnc.shown)
		return cli_fail("vnc", CLI_HOST, "no memory");
	vnc.rfb->frameBuffer = (char *)vnc.shown;
	vnc.rfb->desktopName = "Sluice";
	/* 0x00RRGGBB */
	vnc.rfb->serverFormat.redShift = 16;
	vnc.rfb->serverFormat.greenShift = 8;
	vnc.rfb->serverFormat.blueShift = 0;
	vnc.rfb->alwaysShared = TRUE;
	vnc.rfb->kbdAddEvent = key_event;
	vnc.rfb->ptrAddEvent = pointer_event;
	vnc.rfb->cursor = NULL;
	vnc.rfb->ipv6port = -1;
	vnc.rfb->port = -1;
	status = strncmp(listen, "unix:", 5) ? tcp_listen(listen) : unix_listen(listen + 5);
	if (!status && password)
		status = password_read(password);
	if (status)
		return status;
	rfbInitServer(vnc.rfb);
	if (vnc.unix_fd < 0 && vnc.rfb->listenSock < 0)
		return cli_fail(
			"vnc", CLI_HOST, "--listen %.60s: cannot be bound; is it in use?", listen);
	return CLI_OK;
}

static void unix_accept(void)
{
	int fd;

	while (vnc.unix_fd >= 0 && (fd = accept4(vnc.unix_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		rfbNewClient(vnc.rfb, fd);
}

static int serve(void)
{
	int status = CLI_OK;

	while (!stop && !status) {
		unix_accept();
		rfbProcessEvents(vnc.rfb, FRAME_US);
		status = frame_pass();
	}
	return status;
}

int main(int argc, char **argv)
{
	enum { CONTROL, LISTEN, PASSWORD, HELP, HELP_SHORT };
	static const struct cli_option options[] = {
		[CONTROL] = {"--control", true},
		[LISTEN] = {"--listen", true},
		[PASSWORD] = {"--password-file", true},
		[HELP] = {"--help", false},
		[HELP_SHORT] = {"-h", false},
		{NULL, false},
	};
	struct cli_args a = {.command = "vnc", .argc = argc, .argv = argv, .options = options};
	const struct sigaction action = {.sa_handler = stopped};
	const char *given[3] = {NULL, "127.0.0.1:5900", NULL};
	enum cli_next next;
	int status;

	while ((next = cli_args_next(&a)) != CLI_END) {
		if (next == CLI_BAD)
			return CLI_USAGE;
		if (next == CLI_WORD)
			return cli_fail("vnc", CLI_USAGE, "%.60s: not an option", a.word);
		if (a.option >= HELP) {
			fputs(help, stdout);
			return CLI_OK;
		}
		given[a.option] = a.value;
	}
	if (!given[CONTROL])
		return cli_fail("vnc", CLI_USAGE,
			"--control: missing; give the PATH that `sluice run --control` was given");
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	vnc.now.pixels = malloc(VGA_PICTURE_MAX * sizeof(uint32_t));
	status = vnc.now.pixels ? screen_client_open(&vnc.client, "vnc", given[CONTROL])
				: cli_fail("vnc", CLI_HOST, "no memory");
	if (!status)
		status = server_make(given[LISTEN], given[PASSWORD]);
	if (!status) {
		fprintf(stderr, "sluice-vnc: ready\n");
		status = serve();
	}
	if (vnc.rfb)
		rfbScreenCleanup(vnc.rfb);
	if (*vnc.unix_path)
		unlink(vnc.unix_path);
	screen_client_close(&vnc.client);
	free(vnc.shown);
	free(vnc.now.pixels);
	return status;
}
