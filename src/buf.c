/* buf.c -- a growable byte buffer that is born with a ceiling.  Floor 1.  See worker/buf.h.
 *
 * The content is data[head .. tail).  Room is found in three steps, cheapest first: behind the
 * tail, by sliding the content to the front, by growing (doubling, never past what the ceiling can
 * need).  Sliding is only done when it frees at least half of the allocation, so that consuming
 * byte by byte costs amortised constant time.
 */
#include "worker/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An emptied allocation above this size is given back. */
#define BUF_KEEP  ((size_t)64 * 1024)
#define BUF_FIRST ((size_t)256)

void buf_init(struct buf *buf, size_t ceiling)
{
	*buf = (struct buf){.ceiling = ceiling};
}

void buf_free(struct buf *buf)
{
	free(buf->data);
	buf_init(buf, buf->ceiling);
}

static void buf_slide(struct buf *buf)
{
	memmove(buf->data, buf->data + buf->head, buf_size(buf));
	buf->tail -= buf->head;
	buf->head = 0;
}

static int buf_grow(struct buf *buf, size_t need)
{
	size_t room = buf->room ? buf->room : BUF_FIRST;
	while (room < need)
		room = room > SIZE_MAX / 2 ? need : room * 2;
	if (room > buf->ceiling)
		room = buf->ceiling > need ? buf->ceiling : need;
	char *data = realloc(buf->data, room);
	if (data == NULL)
		return -1;
	buf->data = data;
	buf->room = room;
	return 0;
}

char *buf_make_room(struct buf *buf, size_t n)
{
	if (n > buf_left(buf)) {
		errno = EMSGSIZE;
		return NULL;
	}
	if (buf->room - buf->tail < n && buf->head >= buf->room / 2 && buf->head > 0)
		buf_slide(buf);
	if (buf->room - buf->tail < n) {
		if (buf->head > 0)
			buf_slide(buf);
		if (buf->room - buf->tail < n && buf_grow(buf, buf->tail + n) == -1)
			return NULL;
	}
	/* A reservation of nothing in an empty buffer must not look like a failure. */
	return buf->data ? buf->data + buf->tail : (buf_grow(buf, 1) == -1 ? NULL : buf->data);
}

int buf_printf(struct buf *buf, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0)
		return -1;
	/* vsnprintf writes a NUL behind the text, so one byte more is reserved than committed. */
	char *place = buf_left(buf) > (size_t)n ? buf_reserve(buf, (size_t)n + 1) : NULL;
	if (place == NULL) {
		if (buf_left(buf) <= (size_t)n)
			errno = EMSGSIZE;
		return -1;
	}
	va_start(args, fmt);
	vsnprintf(place, (size_t)n + 1, fmt, args);
	va_end(args);
	buf_commit(buf, (size_t)n);
	return 0;
}

void buf_consume(struct buf *buf, size_t n)
{
	buf->head += n < buf_size(buf) ? n : buf_size(buf);
	if (buf->head < buf->tail)
		return;
	buf->head = buf->tail = 0;
	if (buf->room > BUF_KEEP)
		buf_free(buf);
}
