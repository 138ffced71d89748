/* coding.h -- bytes as text: base64, hex, percent; masks; chance.  Floor 1.
 *
 * Writers write into memory of the caller's; the *_SIZE macros say how much is enough.  Readers are
 * strict: what they take, the writer would have written (base64 padding may be left out), and what
 * they refuse is told by -1.
 */
#ifndef WORKER_CODING_H
#define WORKER_CODING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define CODING_BASE64_SIZE(n)  (((n) + 2) / 3 * 4)
#define CODING_HEX_SIZE(n)     ((n)*2)
#define CODING_PERCENT_SIZE(n) ((n)*3)

/* coding_base64(to, s, n, url): the length written, padding included; the ${url} alphabet ("-_")
 * goes without padding. */
size_t coding_base64(char *to, const char *s, size_t n, bool url);

/* coding_unbase64(to, s, n): either alphabet, padded or not; ${to} has room for n / 4 * 3 + 3.
 * The length, or -1. */
ssize_t coding_unbase64(char *to, const char *s, size_t n);

size_t coding_hex(char *to, const char *s, size_t n);
ssize_t coding_unhex(char *to, const char *s, size_t n);

/* coding_percent(to, s, n, keep): RFC 3986: everything but letters, digits and "-._~" becomes
 * %XX, except the characters of the string ${keep}. */
size_t coding_percent(char *to, const char *s, size_t n, const char *keep);

/* coding_unpercent(to, s, n, plus): ${plus} reads "+" as a space (forms).  ${to} may be ${s}.
 * The length, or -1 for a "%" that two hex digits do not follow. */
ssize_t coding_unpercent(char *to, const char *s, size_t n, bool plus);

/* coding_mask(to, s, n, key): ${s} with each byte changed by the next of the four of ${key}, over
 * and over; twice gives ${s} again (frames of WebSockets).  ${to} may be ${s}. */
void coding_mask(char *to, const char *s, size_t n, const char key[4]);

/* coding_bytes(to, n): ${n} bytes that nobody can foretell. */
void coding_bytes(void *to, size_t n);

/* coding_random(to, n): ${n} random characters of 0-9 a-z without i l o u (five bits each): names
 * that nobody guesses and that fit into file names and host names. */
void coding_random(char *to, size_t n);

#endif
