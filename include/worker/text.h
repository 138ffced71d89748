/* text.h -- what logs need done to text, piece by piece as it comes.  Floor 1.
 *
 * Each of these is a small state and a function that takes the next chunk; a zeroed (or _init'ed)
 * state is at the beginning of a stream.  All are bounded, whatever comes.
 */
#ifndef WORKER_TEXT_H
#define WORKER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"

/* text_plain(ansi, to, s, n): copy without terminal escapes (colours, cursor, titles); returns the
 * length, at most ${n}; ${to} may be ${s}.  A title that is never ended ends with its line. */
struct text_ansi {
	unsigned char state;
};
size_t text_plain(struct text_ansi *ansi, char *to, const char *s, size_t n);

/* text_fold(fold, out, s, n): of a line that overwrites itself with carriage returns (a progress
 * bar) only the last state; CR LF becomes LF.  A line longer than ${most} is given out before its
 * end is known, so what comes behind its next CR begins a new line.  0, or -1 with errno. */
struct text_fold {
	struct buf line;
	bool returned; /* a CR came last */
	bool flowing;  /* the beginning of this line was given out already */
};
void text_fold_init(struct text_fold *fold, size_t most);
void text_fold_free(struct text_fold *fold);
int text_fold(struct text_fold *fold, struct buf *out, const char *s, size_t n);
int text_fold_end(struct text_fold *fold, struct buf *out);

/* text_keep_add(keep, s, n): keep the first and the last bytes of a stream. 0, or -1 with errno.
 * text_keep_get(keep, out): append what was kept, with a line that counts what was dropped. */
struct text_keep {
	struct buf head, tail;
	size_t head_most, tail_most;
	uint64_t bytes;	   /* of the whole stream */
	uint64_t newlines; /* in what came behind the head */
};
void text_keep_init(struct text_keep *keep, size_t head, size_t tail);
void text_keep_free(struct text_keep *keep);
int text_keep_add(struct text_keep *keep, const char *s, size_t n);
int text_keep_get(const struct text_keep *keep, struct buf *out);

/* text_keep_dropped(keep, lines): how many bytes, and lines, are in neither end. */
uint64_t text_keep_dropped(const struct text_keep *keep, uint64_t *lines);

/* text_distance(a, n, b, m): how many letters to change, add, drop or swap to get from one word to
 * the other, not counting case.  Only the first 64 bytes of each are looked at. */
unsigned text_distance(const char *a, size_t n, const char *b, size_t m);

/* text_width(s, n): columns on a terminal.  text_fit(s, n, columns): how many bytes fit into them.
 */
size_t text_width(const char *s, size_t n);
size_t text_fit(const char *s, size_t n, size_t columns);

#endif
