/* utf8.h -- characters: checking, repairing, never cutting one.  Floor 1.
 *
 * What counts as a character is RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
 * Broken bytes are dealt with by "maximal subparts" (Unicode 3.9, the way browsers do it): each
 * longest run that could still have become a character is replaced by one U+FFFD.
 *
 * A stream is repaired with a struct utf8_mender: a character that a chunk cuts in two waits there
 * (at most three bytes) for the chunk that completes it.  A zeroed one is ready for use.
 */
#ifndef WORKER_UTF8_H
#define WORKER_UTF8_H

#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"

#define UTF8_BAD      "\xef\xbf\xbd" /* U+FFFD */
#define UTF8_BAD_SIZE 3

/* utf8_ascii(s, n): how many bytes at the start are plain ASCII; the fast road of all others. */
size_t utf8_ascii(const char *s, size_t n);

/* utf8_char(s, n): the length (1 to 4) of the character at ${s}; or minus the length of the
 * maximal subpart that is none.  ${n} must not be 0. */
int utf8_char(const char *s, size_t n);

/* utf8_valid(s, n): the length of the valid prefix; ${n} when all of it is. */
size_t utf8_valid(const char *s, size_t n);

/* utf8_partial(s, n): how many bytes (0 to 3) at the end begin a character without ending it. */
size_t utf8_partial(const char *s, size_t n);

/* utf8_floor(s, n, at) / utf8_ceil(s, n, at): the nearest place at or before / at or after ${at}
 * that is not inside a character. */
size_t utf8_floor(const char *s, size_t n, size_t at);
size_t utf8_ceil(const char *s, size_t n, size_t at);

/* utf8_decode(s, length): the code of a valid character of that length.
 * utf8_encode(to, code): the other way; the length written. */
uint32_t utf8_decode(const char *s, int length);
int utf8_encode(char to[4], uint32_t code);

/* utf8_width(code): columns on a terminal: 0 for combining and control characters, 2 for East
 * Asian wide ones and emoji, else 1. */
int utf8_width(uint32_t code);

struct utf8_mender {
	char held[4];
	unsigned count;
};

/* utf8_mend(mender, out, s, n): append ${s}, repaired, to ${out}; 0, or -1 with errno.
 * utf8_mend_end(mender, out): nothing more comes; a held half character becomes one U+FFFD. */
int utf8_mend(struct utf8_mender *mender, struct buf *out, const char *s, size_t n);
int utf8_mend_end(struct utf8_mender *mender, struct buf *out);

#endif
