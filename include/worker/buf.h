/* buf.h -- a growable byte buffer that is born with a ceiling.  Floor 1.
 *
 * Bytes are appended at the tail and consumed at the head.  Growing past the ceiling fails with
 * EMSGSIZE, running out of memory with ENOMEM; a failed append leaves the buffer as it was.
 * A zeroed struct is not a buffer: call buf_init.  buf_free may be called twice.
 */
#ifndef WORKER_BUF_H
#define WORKER_BUF_H

#include <stddef.h>
#include <string.h>

struct buf {
	char *data;	/* the allocation, or NULL */
	size_t head;	/* bytes already consumed */
	size_t tail;	/* end of the bytes held; data[head .. tail) is the content */
	size_t room;	/* size of the allocation */
	size_t ceiling; /* most bytes the content may ever be */
};

void buf_init(struct buf *buf, size_t ceiling);
void buf_free(struct buf *buf);

/* The content. buf_head is never NULL, also not for an empty buffer. */
static inline const char *buf_head(const struct buf *buf)
{
	return buf->data ? buf->data + buf->head : "";
}
static inline size_t buf_size(const struct buf *buf)
{
	return buf->tail - buf->head;
}

/* How many more bytes the ceiling allows. */
static inline size_t buf_left(const struct buf *buf)
{
	return buf->ceiling - buf_size(buf);
}

/* buf_reserve(buf, n): room for ${n} bytes at the tail, to be written in place and then
 * buf_commit()ed; NULL with errno set.  Nearly always the room is there; buf_make_room is for when
 * it is not. */
char *buf_make_room(struct buf *buf, size_t n);
static inline char *buf_reserve(struct buf *buf, size_t n)
{
	if (n < buf->room - buf->tail && n <= buf_left(buf))
		return buf->data + buf->tail;
	return buf_make_room(buf, n);
}
static inline void buf_commit(struct buf *buf, size_t n)
{
	buf->tail += n;
}

/* buf_append(buf, data, n): copy ${n} bytes to the tail; 0, or -1 with errno set. */
static inline int buf_append(struct buf *buf, const void *data, size_t n)
{
	char *place = buf_reserve(buf, n);
	if (place == NULL)
		return -1;
	if (n > 0)
		memcpy(place, data, n);
	buf_commit(buf, n);
	return 0;
}

/* buf_printf(buf, fmt, ...): append formatted text; 0, or -1 with errno set. */
int buf_printf(struct buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* buf_consume(buf, n): drop ${n} bytes (at most all) from the head.  An emptied buffer gives a
 * large allocation back, so that one burst does not cost memory for ever. */
void buf_consume(struct buf *buf, size_t n);

#endif
