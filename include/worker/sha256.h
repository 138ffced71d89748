/* sha256.h -- SHA-256 and HMAC-SHA-256 (FIPS 180-4, RFC 2104).  Floor 1.
 *
 * For checking what was downloaded, signing what is sent, naming what is cached.  Feed any number
 * of pieces between start and end.  Not hurried (some hundred MB/s) and not meant for passwords.
 */
#ifndef WORKER_SHA256_H
#define WORKER_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

struct sha256 {
	uint32_t state[8];
	uint64_t bytes;
	unsigned char block[64];
};

void sha256_start(struct sha256 *sha);
void sha256_feed(struct sha256 *sha, const void *data, size_t n);

/* sha256_end(sha, digest): and wipe ${sha}. */
void sha256_end(struct sha256 *sha, unsigned char digest[SHA256_SIZE]);

/* sha256_hmac(key, key_size, data, n, digest): the keyed digest of one text. */
void sha256_hmac(const void *key, size_t key_size, const void *data, size_t n,
		 unsigned char digest[SHA256_SIZE]);

#endif
