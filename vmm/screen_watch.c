/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `sluice watch`: a guest's text screen in a terminal, by curses. The screen's file is mapped; 25
 * times a second the monitor is asked to bring it up to date, and what differs from what is shown
 * is drawn. Where the terminal is smaller than the screen, the part around the cursor is shown.
 */
#define NCURSES_WIDECHAR 1
#include <curses.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/cli_priv.h"
#include "vmm/screen_watch_priv.h"

#define FRAME_MS    40
#define ESCAPE_MS   25
#define NOTE_FRAMES 100u
#define TYPED_MAX                                                                                  \
	8u /* in one request: it takes 30 ms a character, and nothing is drawn meanwhile */
#define TIMEOUT_S 10L

static const char hint[] = "Ctrl-] leaves";

struct watch {
	struct screen_client *client;
	SCREEN *curses;
	enum vga_shows shows, drawn;
	struct vga_cells now, shown;
	struct vga_regs regs; /* that the size in dots was taken of */
	uint32_t width, height;
	int top, left;     /* the screen's cell in the terminal's corner */
	unsigned note_for; /* frames */
	char note[80];
	char typed[TYPED_MAX + 1]; /* not sent yet */
	size_t ntyped;
	bool redraw, leave;
};

static volatile sig_atomic_t watch_signal;

static void watch_signalled(int sig)
{
	watch_signal = sig;
}

/* Not safe in a signal handler, but nothing is worse than a terminal left as it is. */
static void watch_crashed(int sig)
{
	endwin();
	raise(sig); /* SA_RESETHAND: the default action this time */
}

static void watch_note(struct watch *w, const char *text)
{
	snprintf(w->note, sizeof(w->note), "%s", text);
	w->note_for = NOTE_FRAMES;
	w->redraw = true;
}

/* ------------------------------------------------------------------ drawing */

/* Red and blue change places between a PC's colours and a terminal's; 7 on 0 is pair 0. */
static short color_of(uint8_t c)
{
	return (short)((c & 0x0a) | (c & 1) << 2 | (c >> 2 & 1));
}

static void style_get(const struct vga_cell *cell, attr_t *attrs, short *pair)
{
	short fg = color_of(cell->fg), bg = color_of(cell->bg);
	bool wide = COLORS >= 16 && COLOR_PAIRS >= 256;
	short n = wide ? 16 : 8;

	*attrs = cell->blink ? A_BLINK : A_NORMAL;
	*pair = 0;
	if (!wide) {
		*attrs |= fg & 8 ? A_BOLD : A_NORMAL;
		fg &= 7;
		bg &= 7;
	}
	if (COLORS < 8 || COLOR_PAIRS < 64) {
		*attrs |= bg ? A_REVERSE : A_NORMAL;
		return;
	}
	*pair = (short)(bg * n + (fg ^ 7));
	if (*pair)
		init_pair(*pair, fg, bg);
}

/* Where the terminal knows no more than ASCII. */
static wchar_t ascii_of(uint16_t code)
{
	if (code < 0x7f)
		return code;
	if (code == 0x2502 || code == 0x2551)
		return '|';
	if (code == 0x2500 || code == 0x2550)
		return '-';
	if (code >= 0x2500 && code < 0x2580)
		return '+';
	return code >= 0x2580 && code < 0x25a0 ? '#' : '?';
}

static void cell_draw(int y, int x, const struct vga_cell *cell)
{
	wchar_t text[2] = {MB_CUR_MAX > 1 ? cell->code : ascii_of(cell->code), 0};
	attr_t attrs;
	short pair;
	cchar_t c;

	style_get(cell, &attrs, &pair);
	if (setcchar(&c, text, attrs, pair, NULL) == OK)
		mvadd_wchnstr(y, x, &c, 1);
}

/* The first of `room` that shows the cursor, moved no further than it must. */
static int part_begin(int first, int cursor, int room, int all)
{
	if (room >= all)
		return 0;
	if (cursor >= first + room)
		first = cursor - room + 1;
	if (cursor >= 0 && cursor < first)
		first = cursor;
	return first > all - room ? all - room : first;
}

static void text_draw(struct watch *w)
{
	const struct vga_cells *s = &w->now;
	int rows = (int)s->rows, columns = (int)s->columns;
	bool cursor = s->cursor != ~0u;
	int row = cursor ? (int)(s->cursor / s->columns) : -1;
	int column = cursor ? (int)(s->cursor % s->columns) : -1;

	w->top = part_begin(w->top, row, LINES, rows);
	w->left = part_begin(w->left, column, COLS, columns);
	for (int y = 0; y < LINES && w->top + y < rows; y++)
		for (int x = 0; x < COLS && w->left + x < columns; x++)
			cell_draw(y, x, &s->cells[(w->top + y) * columns + w->left + x]);
	if (LINES > rows && !w->note_for)
		mvaddnstr(LINES - 1, 0, hint, COLS);
	curs_set(cursor);
	if (cursor)
		move(row - w->top, column - w->left);
}

static void graphics_draw(struct watch *w)
{
	if (w->shows == VGA_SHOWS_NOTHING)
		mvprintw(0, 0, "the screen is off");
	else
		mvprintw(0, 0, "graphics mode %ux%u", w->width, w->height);
	mvaddnstr(1, 0, "`sluice screenshot` makes a picture of it, sluice-vnc shows it", COLS);
	mvaddnstr(2, 0, hint, COLS);
	curs_set(0);
}

static void watch_draw(struct watch *w)
{
	int y, x;

	erase();
	if (w->shows == VGA_SHOWS_TEXT)
		text_draw(w);
	else
		graphics_draw(w);
	getyx(stdscr, y, x);
	if (w->note_for) {
		attron(A_REVERSE);
		mvaddnstr(LINES - 1, 0, w->note, COLS);
		attroff(A_REVERSE);
		move(y, x);
	}
	refresh();
}

/* The size of what is no text, by drawing it: when its registers have changed, no more often. */
static void size_get(struct watch *w, const struct vga_regs *regs)
{
	struct vga_picture picture = {0};

	if (w->width && !memcmp(&w->regs, regs, sizeof(w->regs)))
		return;
	picture.pixels = malloc(VGA_PICTURE_MAX * sizeof(*picture.pixels));
	if (!picture.pixels)
		return;
	vga_draw(regs, w->client->memory, &picture);
	free(picture.pixels);
	w->redraw |= picture.width != w->width || picture.height != w->height;
	w->width = picture.width;
	w->height = picture.height;
	w->regs = *regs;
}

/* False: the guest is gone. */
static bool watch_frame(struct watch *w)
{
	const struct vga_cells *a = &w->now, *b = &w->shown;
	struct vga_regs regs;

	if (!screen_sync_quietly(w->client))
		return false;
	regs = *w->client->regs;
	w->shows = vga_cells_get(&regs, w->client->memory, &w->now);
	if (w->shows == VGA_SHOWS_GRAPHICS)
		size_get(w, &regs);
	if (w->shows == VGA_SHOWS_TEXT)
		w->redraw |=
			a->columns != b->columns || a->rows != b->rows || a->cursor != b->cursor ||
			memcmp(a->cells, b->cells, a->columns * a->rows * sizeof(a->cells[0])) != 0;
	w->redraw |= w->shows != w->drawn;
	if (w->note_for && !--w->note_for)
		w->redraw = true;
	if (!w->redraw)
		return true;
	watch_draw(w);
	w->redraw = false;
	w->drawn = w->shows;
	w->shown = w->now;
	return true;
}

/* ------------------------------------------------------------------ keys */

static void keys_put(struct watch *w, const char *key, const char *value)
{
	char *body = screen_body(key, value);
	long status;

	if (!body)
		return;
	status = screen_put_quietly(w->client, "/keyboard", body);
	if (status == 409)
		watch_note(w, "the guest does not read its keyboard");
	else if (status == 400)
		watch_note(w, "no key of a US keyboard");
	free(body);
}

static void typed_flush(struct watch *w)
{
	w->typed[w->ntyped] = '\0';
	if (w->ntyped)
		keys_put(w, "text", w->typed);
	w->ntyped = 0;
}

static void watch_key(struct watch *w, unsigned code, bool function, bool alt)
{
	char name[SCREEN_KEY_MAX];

	if (!function && code == SCREEN_KEY_LEAVE) {
		w->leave = true;
		return;
	}
	switch (screen_key_get(code, function, alt, name)) {
	case SCREEN_KEY_CHAR:
		w->typed[w->ntyped++] = name[0];
		break;
	case SCREEN_KEY_NAME:
		typed_flush(w);
		keys_put(w, "keys", name);
		break;
	case SCREEN_KEY_WINDOW:
		w->redraw = true;
		break;
	default:
		watch_note(w, "no key of a US keyboard");
		break;
	}
}

/* What was typed, as far as one request takes it. */
static void watch_keys(struct watch *w)
{
	bool alt = false;
	wint_t code;
	int rc;

	for (unsigned n = 0; n < TYPED_MAX && !w->leave; n++) {
		timeout(alt ? ESCAPE_MS : 0);
		rc = get_wch(&code);
		if (rc == ERR) {
			if (alt)
				watch_key(w, 0x1b, false, false);
			break;
		}
		if (rc == OK && code == 0x1b && !alt) {
			alt = true;
			n--;
			continue;
		}
		watch_key(w, code, rc == KEY_CODE_YES, alt);
		alt = false;
	}
	typed_flush(w);
}

/* ------------------------------------------------------------------ from start to end */

static void signals_catch(void)
{
	static const int stops[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
	struct sigaction stop = {.sa_handler = watch_signalled};
	struct sigaction crash = {.sa_handler = watch_crashed, .sa_flags = (int)SA_RESETHAND};

	for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++)
		sigaction(stops[i], &stop, NULL);
	for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		sigaction(crashes[i], &crash, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static bool curses_open(struct watch *w)
{
	setlocale(LC_ALL, "");
	w->curses = newterm(NULL, stdout, stdin);
	if (!w->curses)
		return false;
	set_term(w->curses);
	raw();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	set_escdelay(ESCAPE_MS);
	start_color();
	return true;
}

static void watch_loop(struct watch *w, bool *gone)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};

	watch_note(w, hint);
	while (!w->leave && !watch_signal) {
		if (!watch_frame(w)) {
			*gone = true;
			return;
		}
		if (poll(&in, 1, FRAME_MS) > 0 && in.revents & (POLLHUP | POLLERR | POLLNVAL))
			return;
		watch_keys(w); /* also for the terminal's new size, which is no byte */
	}
}

int screen_watch(struct screen_client *c)
{
	struct watch *w = calloc(1, sizeof(*w));
	bool gone = false;
	int status;

	if (!w)
		return cli_fail(c->command, CLI_HOST, "no memory");
	w->client = c;
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		free(w);
		return cli_fail(c->command, CLI_USAGE,
			"standard input and output are to be a terminal; `sluice screen` prints "
			"text");
	}
	screen_timeout_set(c, TIMEOUT_S);
	status = screen_map(c);
	if (!status) {
		signals_catch();
		if (!curses_open(w))
			status = cli_fail(c->command, CLI_HOST,
				"TERM=%.40s: no terminal that is known",
				getenv("TERM") ? getenv("TERM") : "");
	}
	if (!status) {
		watch_loop(w, &gone);
		endwin();
		delscreen(w->curses);
	}
	free(w);
	if (gone)
		fprintf(stderr, "sluice %s: the guest has ended\n", c->command);
	return status;
}
