/* sha1.h -- SHA-1 (FIPS 180-4).  Floor 1.
 *
 * Broken for everything that an attacker may choose; the opening of a WebSocket asks for it all the
 * same, as a proof that the other side read the question.  Use sha256.h for the rest.
 */
#ifndef WORKER_SHA1_H
#define WORKER_SHA1_H

#include <stddef.h>

#define SHA1_SIZE 20

/* sha1_digest(data, n, digest): of a whole text; ${digest} has room for SHA1_SIZE bytes. */
void sha1_digest(const void *data, size_t n, unsigned char *digest);

#endif
