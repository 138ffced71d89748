/* json_write.h -- writing JSON, piece by piece.  Floor 1.
 *
 * What these write is ASCII or valid UTF-8, whatever comes in.
 */
#ifndef WORKER_JSON_WRITE_H
#define WORKER_JSON_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"

/* json_write_string(out, s, n, strict): append ${s} as a JSON string with its quotes.  Broken UTF-8
 * becomes U+FFFD, or with ${strict} fails with EILSEQ.  0, or -1 with errno; what was appended
 * until then stays. */
int json_write_string(struct buf *out, const char *s, size_t n, bool strict);

/* json_write_integer(to, integer), json_write_real(to, real): the length written, without a NUL.  A
 * double gets the fewest digits that read back as the same; a whole one gets no ".0", because a
 * server that wants an integer refuses it.  ${real} must be finite. */
size_t json_write_integer(char to[24], int64_t integer);
size_t json_write_real(char to[32], double real);

#endif
