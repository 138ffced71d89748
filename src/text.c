/* text.c -- what logs need done to text, piece by piece as it comes.  Floor 1.  See worker/text.h.
 *
 * Chunks end anywhere: inside an escape, between CR and LF, inside a character.  So each function
 * is a machine that has seen one byte when it looks at the next, and the fast road (a long run
 * without anything special, found by memchr) is taken between those bytes.
 */
#include "worker/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/utf8.h"

/* --- terminal escapes (ECMA-48) --- */

enum ansi { GROUND, ESCAPE, CHARSET, CONTROL, TITLE, TITLE_ESCAPE };

/* The state after ${c}; ${shown} tells whether the byte is text. */
static enum ansi ansi_next(enum ansi state, unsigned char c, bool *shown)
{
	*shown = false;
	switch (state) {
	case ESCAPE:
		if (c == '[')
			return CONTROL;
		if (c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_')
			return TITLE;
		*shown = c < 0x20 || c > 0x7e;
		return c >= 0x20 && c <= 0x2f ? CHARSET : GROUND;
	case CHARSET:
		return c >= 0x20 && c <= 0x2f ? CHARSET : GROUND;
	case CONTROL:
		if (c >= 0x20 && c <= 0x3f)
			return CONTROL;
		/* A byte that cannot be part of the sequence breaks it off and is text again. */
		*shown = c < 0x20 || c > 0x7e;
		return GROUND;
	case TITLE_ESCAPE:
		if (c == '\\')
			return GROUND;
		return c == 0x1b ? TITLE_ESCAPE : ansi_next(ESCAPE, c, shown);
	case TITLE:
		*shown = c == '\n';
		if (c == 0x1b)
			return TITLE_ESCAPE;
		return c == '\a' || c == '\n' || c == 0x18 || c == 0x1a ? GROUND : TITLE;
	default:
		*shown = true;
		return GROUND;
	}
}

size_t text_plain(struct text_ansi *ansi, char *to, const char *s, size_t n)
{
	char *start = to;
	for (size_t i = 0; i < n;) {
		if (ansi->state == GROUND) {
			const char *escape = memchr(s + i, 0x1b, n - i);
			size_t plain = escape ? (size_t)(escape - s) - i : n - i;
			memmove(to, s + i, plain);
			to += plain;
			i += plain + (escape != NULL);
			ansi->state = escape ? ESCAPE : GROUND;
			continue;
		}
		bool shown;
		char c = s[i++];
		ansi->state = c == 0x1b && ansi->state != TITLE && ansi->state != TITLE_ESCAPE
				      ? (shown = false, ESCAPE)
				      : ansi_next(ansi->state, (unsigned char)c, &shown);
		if (shown)
			*to++ = c;
	}
	return (size_t)(to - start);
}

/* --- carriage returns --- */

void text_fold_init(struct text_fold *fold, size_t most)
{
	*fold = (struct text_fold){.returned = false};
	buf_init(&fold->line, most);
}

void text_fold_free(struct text_fold *fold)
{
	buf_free(&fold->line);
}

static int fold_flush(struct text_fold *fold, struct buf *out)
{
	if (buf_append(out, buf_head(&fold->line), buf_size(&fold->line)) == -1)
		return -1;
	buf_consume(&fold->line, SIZE_MAX);
	return 0;
}

/* Some bytes without CR and LF. */
static int fold_piece(struct text_fold *fold, struct buf *out, const char *s, size_t n)
{
	if (fold->returned) {
		if (fold->flowing &&
		    (fold_flush(fold, out) == -1 || buf_append(out, "\n", 1) == -1))
			return -1;
		buf_consume(&fold->line, SIZE_MAX);
		fold->returned = fold->flowing = false;
	}
	if (n <= buf_left(&fold->line))
		return buf_append(&fold->line, s, n);
	fold->flowing = true;
	return fold_flush(fold, out) == -1 ? -1 : buf_append(out, s, n);
}

int text_fold(struct text_fold *fold, struct buf *out, const char *s, size_t n)
{
	const char *end = s + n;
	while (s < end) {
		const char *newline = memchr(s, '\n', (size_t)(end - s));
		const char *stop = newline ? newline : end;
		while (s < stop) {
			const char *back = memchr(s, '\r', (size_t)(stop - s));
			size_t piece = (size_t)((back ? back : stop) - s);
			if (piece > 0 && fold_piece(fold, out, s, piece) == -1)
				return -1;
			fold->returned = fold->returned || back != NULL;
			s += piece + (back != NULL);
		}
		if (newline == NULL)
			break;
		if (fold_flush(fold, out) == -1 || buf_append(out, "\n", 1) == -1)
			return -1;
		fold->returned = fold->flowing = false;
		s = newline + 1;
	}
	return 0;
}

int text_fold_end(struct text_fold *fold, struct buf *out)
{
	fold->returned = fold->flowing = false;
	return fold_flush(fold, out);
}

/* --- both ends of a stream --- */

void text_keep_init(struct text_keep *keep, size_t head, size_t tail)
{
	*keep = (struct text_keep){.head_most = head, .tail_most = tail};
	buf_init(&keep->head, head);
	buf_init(&keep->tail, tail);
}

void text_keep_free(struct text_keep *keep)
{
	buf_free(&keep->head);
	buf_free(&keep->tail);
}

static uint64_t count_newlines(const char *s, size_t n)
{
	uint64_t count = 0;
	for (size_t i = 0; i < n; i++)
		count += s[i] == '\n';
	return count;
}

int text_keep_add(struct text_keep *keep, const char *s, size_t n)
{
	size_t first = n < buf_left(&keep->head) ? n : buf_left(&keep->head);
	if (buf_append(&keep->head, s, first) == -1)
		return -1;
	keep->bytes += n;
	s += first;
	n -= first;
	if (n == 0)
		return 0;
	keep->newlines += count_newlines(s, n);
	size_t last = n < keep->tail_most ? n : keep->tail_most;
	if (last > buf_left(&keep->tail))
		buf_consume(&keep->tail, last - buf_left(&keep->tail));
	return buf_append(&keep->tail, s + n - last, last);
}

/* Which part of each end is shown: all of it when nothing is between them, else whole characters.
 */
static void keep_ends(const struct text_keep *keep, size_t *head, size_t *tail)
{
	*head = buf_size(&keep->head);
	*tail = buf_size(&keep->tail);
	if (keep->bytes == *head + *tail)
		return;
	*head -= utf8_partial(buf_head(&keep->head), *head);
	const char *from = buf_head(&keep->tail);
	for (int i = 0; i < 3 && *tail > 0 && (from[i] & 0xc0) == 0x80; i++)
		--*tail;
}

uint64_t text_keep_dropped(const struct text_keep *keep, uint64_t *lines)
{
	size_t head, tail;
	keep_ends(keep, &head, &tail);
	const char *end = buf_head(&keep->tail) + buf_size(&keep->tail);
	if (lines != NULL)
		*lines = keep->newlines - count_newlines(end - tail, tail);
	return keep->bytes - head - tail;
}

int text_keep_get(const struct text_keep *keep, struct buf *out)
{
	size_t head, tail;
	uint64_t lines, dropped = text_keep_dropped(keep, &lines);
	keep_ends(keep, &head, &tail);
	if (buf_append(out, buf_head(&keep->head), head) == -1)
		return -1;
	if (dropped > 0) {
		bool fresh = head == 0 || buf_head(&keep->head)[head - 1] == '\n';
		if (buf_printf(out, "%s... %" PRIu64 " bytes (%" PRIu64 " lines) dropped ...\n",
			       fresh ? "" : "\n", dropped, lines) == -1)
			return -1;
	}
	const char *end = buf_head(&keep->tail) + buf_size(&keep->tail);
	return buf_append(out, end - tail, tail);
}

/* --- words --- */

#define WORD_MOST 64

static unsigned char lower(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

unsigned text_distance(const char *a, size_t n, const char *b, size_t m)
{
	unsigned rows[3][WORD_MOST + 1]; /* this row, the one above, and the one above that */
	n = n < WORD_MOST ? n : WORD_MOST;
	m = m < WORD_MOST ? m : WORD_MOST;
	for (unsigned j = 0; j <= m; j++)
		rows[0][j] = j;
	for (unsigned i = 1; i <= n; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *over = rows[(i + 1) % 3];
		row[0] = i;
		for (unsigned j = 1; j <= m; j++) {
			bool same = lower(a[i - 1]) == lower(b[j - 1]);
			row[j] = least(least(row[j - 1], above[j]) + 1, above[j - 1] + !same);
			if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
			    lower(a[i - 2]) == lower(b[j - 1]))
				row[j] = least(row[j], over[j - 2] + 1);
		}
	}
	return rows[n % 3][m];
}

/* --- columns --- */

/* The length of the character at ${s}, and how many columns it takes; broken bytes take one each,
 * as terminals show them. */
static size_t column(const char *s, size_t n, size_t *width)
{
	int length = utf8_char(s, n);
	*width = length < 0 ? 1 : (size_t)utf8_width(utf8_decode(s, length));
	return (size_t)(length < 0 ? -length : length);
}

size_t text_width(const char *s, size_t n)
{
	size_t columns = 0, width;
	for (size_t i = 0; i < n; columns += width)
		i += column(s + i, n - i, &width);
	return columns;
}

size_t text_fit(const char *s, size_t n, size_t columns)
{
	size_t i = 0, width;
	while (i < n) {
		size_t length = column(s + i, n - i, &width);
		if (width > columns)
			break;
		columns -= width;
		i += length;
	}
	return i;
}
