/* mask_forms.c -- in which forms a secret may turn up in a log.  Floor 1.  See worker/mask_forms.h.
 *
 * Each form is written into one scratch buffer that is large enough for the longest (six bytes for
 * one: control characters in JSON) and is wiped at the end.  That forms repeat (for a plain token
 * most of them are the token) does not matter: whoever collects them has to see that anyway.
 */
#include "worker/mask_forms.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "worker/coding.h"

#define WRAP 76 /* of base64(1) and of MIME */

struct forms {
	int (*add)(void *arg, const char *s, size_t n);
	void *arg;
	char *scratch;
};

/* Two bytes may stand in front in a group of three, and "+ 8" covers the rounding of base64. */
static size_t scratch_size(size_t n)
{
	return 6 * n + 8;
}

static int emit(const struct forms *f, const char *end)
{
	return f->add(f->arg, f->scratch, (size_t)(end - f->scratch));
}

/* How each character that is not written as itself is written. */
typedef const char *spelling(char c, char room[8]);

static int spelled(const struct forms *f, const char *s, size_t n, spelling *spell)
{
	char *to = f->scratch, room[8];
	for (size_t i = 0; i < n; i++) {
		const char *other = spell(s[i], room);
		if (other == NULL) {
			*to++ = s[i];
			continue;
		}
		size_t size = strlen(other);
		memcpy(to, other, size);
		to += size;
	}
	return emit(f, to);
}

static const char *hex_escape(char c, char room[8])
{
	memcpy(room, "\\u00", 4);
	coding_hex(room + 4, &c, 1);
	room[6] = '\0';
	return room;
}

static const char *json_spelling(char c, char room[8])
{
	static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
	const char *name = c ? strchr(plain, c) : NULL;
	if (name != NULL) {
		room[0] = '\\';
		room[1] = letter[name - plain];
		room[2] = '\0';
		return room;
	}
	return (unsigned char)c < ' ' ? hex_escape(c, room) : NULL;
}

static const char *go_spelling(char c, char room[8])
{
	return c == '<' || c == '>' || c == '&' ? hex_escape(c, room) : json_spelling(c, room);
}

static const char *xml_spelling(char c, char room[8])
{
	(void)room;
	switch (c) {
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '"':
		return "&quot;";
	case '\'':
		return "&#39;";
	}
	return NULL;
}

static const char *shell_spelling(char c, char room[8])
{
	(void)room;
	return c == '\'' ? "'\\''" : NULL;
}

static const char *blank_spelling(char c, char room[8])
{
	(void)room;
	return c == '\n' ? " " : NULL;
}

static const char *crlf_spelling(char c, char room[8])
{
	(void)room;
	return c == '\n' ? "\r\n" : NULL;
}

/* Percent: with and without "/", "+" for a blank, upper and lower case digits. */
static int percent_forms(const struct forms *f, const char *s, size_t n)
{
	for (int kind = 0; kind < 8; kind++) {
		/* A blank is kept by the encoder in order to be turned into "+" afterwards. */
		bool plus = kind & 1, lower = kind & 4;
		const char *keep = kind & 2 ? (plus ? "/ " : "/") : (plus ? " " : "");
		size_t size = coding_percent(f->scratch, s, n, keep);
		for (size_t i = 0; i < size; i++) {
			char *c = &f->scratch[i];
			if (*c == ' ') {
				*c = '+';
			} else if (*c == '%' && lower) {
				c[1] |= c[1] >= 'A' ? 0x20 : 0;
				c[2] |= c[2] >= 'A' ? 0x20 : 0;
				i += 2;
			}
		}
		if (f->add(f->arg, f->scratch, size) == -1)
			return -1;
	}
	return 0;
}

/* Base64 with ${front} unknown bytes before the secret in its group of three: only the digits that
 * the secret alone decides. */
static int base64_form(const struct forms *f, char *raw, const char *s, size_t n, size_t front,
		       bool url)
{
	memset(raw, 0, front);
	memcpy(raw + front, s, n);
	coding_base64(f->scratch, raw, front + n, url);
	size_t from = (front * 8 + 5) / 6, to = (front + n) * 8 / 6;
	if (f->add(f->arg, f->scratch + from, to - from) == -1)
		return -1;
	for (size_t at = 0; front == 0 && to > WRAP && at + MASK_FORMS_LINE <= to; at += WRAP) {
		size_t size = to - at < WRAP ? to - at : WRAP;
		if (f->add(f->arg, f->scratch + at, size) == -1)
			return -1;
	}
	return 0;
}

static int base64_forms(const struct forms *f, const char *s, size_t n)
{
	char *raw = malloc(n + 2);
	if (raw == NULL)
		return -1;
	int rc = 0;
	for (size_t front = 0; front < 3 && rc == 0; front++) {
		rc = base64_form(f, raw, s, n, front, false);
		if (rc == 0)
			rc = base64_form(f, raw, s, n, front, true);
	}
	explicit_bzero(raw, n + 2);
	free(raw);
	return rc;
}

/* The forms of a text as a whole. */
static int whole_forms(const struct forms *f, const char *s, size_t n)
{
	static spelling *const spellings[] = {json_spelling, go_spelling, xml_spelling,
					      shell_spelling};
	if (f->add(f->arg, s, n) == -1 || base64_forms(f, s, n) == -1 ||
	    percent_forms(f, s, n) == -1)
		return -1;
	for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
		if (spelled(f, s, n, spellings[i]) == -1)
			return -1;
	return 0;
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* One line on its own.  The first and last line of a PEM file are no secret, and every other key
 * has the same. */
static int line_forms(const struct forms *f, const char *s, size_t n)
{
	while (n > 0 && blank(s[0]))
		s++, n--;
	while (n > 0 && blank(s[n - 1]))
		n--;
	if (n < MASK_FORMS_LINE || (n > 10 && memcmp(s, "-----", 5) == 0))
		return 0;
	if (f->add(f->arg, s, n) == -1)
		return -1;
	return spelled(f, s, n, json_spelling);
}

static int many_lines(const struct forms *f, char *text, size_t n)
{
	for (const char *at = text, *end = text + n; at < end;) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *stop = newline ? newline : end;
		if (line_forms(f, at, (size_t)(stop - at)) == -1)
			return -1;
		at = stop + 1;
	}
	/* The text with the other kind of newlines is written behind the scratch of its forms. */
	struct forms crlf = *f;
	if (spelled(f, text, n, blank_spelling) == -1 || spelled(f, text, n, crlf_spelling) == -1)
		return -1;
	size_t size = n;
	for (size_t i = 0; i < n; i++)
		size += text[i] == '\n';
	char *other = malloc(size + scratch_size(size));
	if (other == NULL)
		return -1;
	memcpy(other, f->scratch, size);
	crlf.scratch = other + size;
	int rc = whole_forms(&crlf, other, size);
	explicit_bzero(other, size + scratch_size(size));
	free(other);
	return rc;
}

int mask_forms(const char *s, size_t n, int (*add)(void *arg, const char *s, size_t n), void *arg)
{
	char *text = malloc(n + scratch_size(n));
	if (text == NULL)
		return -1;
	struct forms f = {.add = add, .arg = arg, .scratch = text + n};
	size_t size = 0;
	for (size_t i = 0; i < n; i++) /* all newlines alike */
		if (s[i] != '\r' || i + 1 == n || s[i + 1] != '\n')
			text[size++] = s[i];
	int rc = whole_forms(&f, text, size);
	if (rc == 0 && memchr(text, '\n', size) != NULL)
		rc = many_lines(&f, text, size);
	explicit_bzero(text, n + scratch_size(n));
	free(text);
	return rc;
}
