/* SPDX-License-Identifier: BSD-2-Clause */
/* Strings, formatted output, the command line. */
#include "frontend-drivers/freestanding/runtime_priv.h"

#define LINE_MAX    2048u
#define CMDLINE_MAX 4096u

static char cmdline[CMDLINE_MAX];

size_t strlen(const char *s)
{
	size_t n = 0;

	/* The volatile read keeps the compiler from turning this into a call of itself. */
	while (*(const volatile char *)(s + n))
		n++;
	return n;
}

int strcmp(const char *a, const char *b)
{
	return strncmp(a, b, ~(size_t)0);
}

int strncmp(const char *a, const char *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (a[i] != b[i])
			return (uint8_t)a[i] < (uint8_t)b[i] ? -1 : 1;
		if (!a[i])
			return 0;
	}
	return 0;
}

struct sink {
	char *to;
	size_t size;
	size_t used;
};

static void sink_char(struct sink *k, char c)
{
	if (k->used + 1 < k->size)
		k->to[k->used] = c;
	k->used++;
}

static void sink_number(
	struct sink *k, uint64_t v, unsigned base, bool negative, int width, char pad)
{
	char digits[24];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	if (negative && pad == '0')
		sink_char(k, '-');
	for (int i = n + negative; i < width; i++)
		sink_char(k, pad);
	if (negative && pad != '0')
		sink_char(k, '-');
	while (n)
		sink_char(k, digits[--n]);
}

static void sink_string(struct sink *k, const char *s, int width)
{
	int n = 0;

	for (; s && s[n]; n++)
		sink_char(k, s[n]);
	for (; n < width; n++)
		sink_char(k, ' ');
}

int print_to_v(char *to, size_t size, const char *fmt, va_list ap)
{
	struct sink k = {to, size, 0};

	for (; *fmt; fmt++) {
		char pad = ' ';
		int width = 0;
		bool wide = false;
		int64_t d;

		if (*fmt != '%') {
			sink_char(&k, *fmt);
			continue;
		}
		if (*++fmt == '0')
			pad = *fmt++;
		while (*fmt >= '0' && *fmt <= '9')
			width = width * 10 + *fmt++ - '0';
		for (; *fmt == 'l' || *fmt == 'z'; fmt++)
			wide = true;
		switch (*fmt) {
		case 's':
			sink_string(&k, va_arg(ap, const char *), width);
			break;
		case 'c':
			sink_char(&k, (char)va_arg(ap, int));
			break;
		case 'd':
			d = wide ? va_arg(ap, int64_t) : va_arg(ap, int);
			sink_number(
				&k, d < 0 ? 0 - (uint64_t)d : (uint64_t)d, 10, d < 0, width, pad);
			break;
		case 'u':
			sink_number(&k, wide ? va_arg(ap, uint64_t) : va_arg(ap, unsigned), 10,
				false, width, pad);
			break;
		case 'x':
		case 'p':
			if (*fmt == 'p')
				wide = true;
			sink_number(&k, wide ? va_arg(ap, uint64_t) : va_arg(ap, unsigned), 16,
				false, width, pad);
			break;
		case '\0':
			fmt--;
			break;
		default:
			sink_char(&k, *fmt);
		}
	}
	if (size)
		to[k.used < size ? k.used : size - 1] = '\0';
	return (int)k.used;
}

int print_to(char *to, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = print_to_v(to, size, fmt, ap);
	va_end(ap);
	return n;
}

void print(const char *fmt, ...)
{
	static char line[LINE_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = print_to_v(line, sizeof(line), fmt, ap);
	va_end(ap);
	uart_write(line, n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1);
}

void cmdline_init(const struct hvm_start_info *si)
{
	const char *s = (const char *)(uintptr_t)si->cmdline;

	for (size_t i = 0; s && i + 1 < sizeof(cmdline) && s[i]; i++)
		cmdline[i] = s[i];
}

const char *cmdline_get(void)
{
	return cmdline;
}

/* Finds `key=` in a list of items that end at `sep`; the value runs to the next `sep`. */
static bool value_find(
	const char *s, char sep, const char *key, unsigned nth, char *to, size_t size)
{
	size_t klen = strlen(key);

	while (*s) {
		while (*s == sep)
			s++;
		if (!strncmp(s, key, klen) && s[klen] == '=' && !nth--) {
			size_t n = 0;

			for (s += klen + 1; *s && *s != sep; s++)
				if (n + 1 < size)
					to[n++] = *s;
			if (size)
				to[n] = '\0';
			return true;
		}
		while (*s && *s != sep)
			s++;
	}
	return false;
}

bool cmdline_word(const char *key, unsigned nth, char *to, size_t size)
{
	return value_find(cmdline, ' ', key, nth, to, size);
}

bool text_list_get(const char *list, const char *key, char *to, size_t size)
{
	return value_find(list, ',', key, 0, to, size);
}

int text_u64(const char *s, uint64_t *out)
{
	unsigned base = 10, shift = 0;
	uint64_t v = 0;

	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	if (!*s)
		return -GUEST_EINVAL;
	for (; *s; s++) {
		unsigned d;

		if (*s >= '0' && *s <= '9')
			d = *s - '0';
		else if (base == 16 && (*s | 32) >= 'a' && (*s | 32) <= 'f')
			d = (*s | 32) - 'a' + 10;
		else
			break;
		if (v > (~0ull - d) / base)
			return -GUEST_EINVAL;
		v = v * base + d;
	}
	if (*s) {
		shift = *s == 'K' ? 10 : *s == 'M' ? 20 : *s == 'G' ? 30 : 0;
		if (!shift || s[1] || v > ~0ull >> shift)
			return -GUEST_EINVAL;
	}
	*out = v << shift;
	return 0;
}

uint64_t cmdline_u64(const char *key, uint64_t fallback)
{
	char word[32];
	uint64_t v;

	if (!cmdline_word(key, 0, word, sizeof(word)) || text_u64(word, &v))
		return fallback;
	return v;
}
