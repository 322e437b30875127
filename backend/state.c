/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Saved state: sections of little-endian values.
 *
 * A section is: length of name (1 byte), name, version (4), length of content (4), content.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"

#define STATE_BYTES_MAX (64u << 20)
#define STATE_NAME_MAX  64u

static void *state_room(struct state_writer *w, size_t n)
{
	uint8_t *p;

	if (w->error)
		return NULL;
	if (n > STATE_BYTES_MAX - w->len) {
		w->error = -EFBIG;
		return NULL;
	}
	if (w->room - w->len < n) {
		size_t room = w->room ? w->room : 256;

		while (room - w->len < n)
			room *= 2;
		p = realloc(w->data, room);
		if (!p) {
			w->error = -ENOMEM;
			return NULL;
		}
		w->data = p;
		w->room = room;
	}
	p = w->data + w->len;
	w->len += n;
	return p;
}

void state_writer_free(struct state_writer *w)
{
	free(w->data);
	memset(w, 0, sizeof(*w));
}

void state_put_bytes(struct state_writer *w, const void *from, size_t n)
{
	void *p = n ? state_room(w, n) : NULL;

	if (p)
		memcpy(p, from, n);
}

void state_put_u8(struct state_writer *w, uint8_t v)
{
	state_put_bytes(w, &v, 1);
}

void state_put_u16(struct state_writer *w, uint16_t v)
{
	v = htole16(v);
	state_put_bytes(w, &v, sizeof(v));
}

void state_put_u32(struct state_writer *w, uint32_t v)
{
	v = htole32(v);
	state_put_bytes(w, &v, sizeof(v));
}

void state_put_u64(struct state_writer *w, uint64_t v)
{
	v = htole64(v);
	state_put_bytes(w, &v, sizeof(v));
}

void state_section_begin(struct state_writer *w, const char *name, uint32_t version)
{
	size_t n = strlen(name);

	if (!n || n > STATE_NAME_MAX || w->section) {
		if (!w->error)
			w->error = -EINVAL;
		return;
	}
	state_put_u8(w, (uint8_t)n);
	state_put_bytes(w, name, n);
	state_put_u32(w, version);
	w->section = w->len; /* never 0: the name is in front of it */
	state_put_u32(w, 0);
}

void state_section_end(struct state_writer *w)
{
	uint32_t len;

	if (w->error)
		return;
	if (!w->section) {
		w->error = -EINVAL;
		return;
	}
	len = htole32((uint32_t)(w->len - w->section - sizeof(len)));
	memcpy(w->data + w->section, &len, sizeof(len));
	w->section = 0;
}

void state_reader_init(struct state_reader *r, const void *data, size_t len)
{
	memset(r, 0, sizeof(*r));
	r->data = data;
	r->len = len;
}

/* Inside a section up to its end, between sections up to the end of all. */
static const uint8_t *state_take(struct state_reader *r, size_t n)
{
	size_t end = r->section_end ? r->section_end : r->len;
	const uint8_t *p;

	if (r->error)
		return NULL;
	if (n > end - r->pos) {
		r->error = -EINVAL;
		return NULL;
	}
	p = r->data + r->pos;
	r->pos += n;
	return p;
}

void state_get_bytes(struct state_reader *r, void *to, size_t n)
{
	const uint8_t *p;

	if (!n)
		return;
	p = state_take(r, n);
	if (p)
		memcpy(to, p, n);
	else
		memset(to, 0, n);
}

uint8_t state_get_u8(struct state_reader *r)
{
	uint8_t v;

	state_get_bytes(r, &v, sizeof(v));
	return v;
}

uint16_t state_get_u16(struct state_reader *r)
{
	uint16_t v;

	state_get_bytes(r, &v, sizeof(v));
	return le16toh(v);
}

uint32_t state_get_u32(struct state_reader *r)
{
	uint32_t v;

	state_get_bytes(r, &v, sizeof(v));
	return le32toh(v);
}

uint64_t state_get_u64(struct state_reader *r)
{
	uint64_t v;

	state_get_bytes(r, &v, sizeof(v));
	return le64toh(v);
}

uint32_t state_section_enter(struct state_reader *r, const char *name, uint32_t max_version)
{
	size_t want = strlen(name);
	const uint8_t *p;
	uint32_t version, len;

	if (!r->error && r->section_end)
		r->error = -EINVAL;
	if (state_get_u8(r) != want && !r->error)
		r->error = -EINVAL;
	p = state_take(r, want);
	if (p && memcmp(p, name, want) != 0)
		r->error = -EINVAL;
	version = state_get_u32(r);
	len = state_get_u32(r);
	if (!r->error && len > r->len - r->pos)
		r->error = -EINVAL;
	if (!r->error && version == 0)
		r->error = -EINVAL;
	if (!r->error && version > max_version)
		r->error = -ENOTSUP;
	if (r->error)
		return 0;
	r->section_end = r->pos + len;
	return version;
}

void state_section_leave(struct state_reader *r)
{
	if (r->error)
		return;
	if (!r->section_end || r->pos != r->section_end)
		r->error = -EINVAL;
	r->section_end = 0;
}
