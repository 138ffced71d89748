/* sha256.c -- SHA-256 and HMAC-SHA-256.  Floor 1.  See worker/sha256.h.
 *
 * Written from the standard; its names (a to h, W, K, the sigmas) are kept so that it can be read
 * beside it.  The message schedule is a ring of sixteen words, computed as the rounds need it.
 */
#include "worker/sha256.h"

#include <string.h>

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t sha256_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2};

static uint32_t turn(uint32_t x, int by)
{
	return x >> by | x << (32 - by);
}

static uint32_t word_at(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void word_put(unsigned char *p, uint32_t word)
{
	p[0] = (unsigned char)(word >> 24);
	p[1] = (unsigned char)(word >> 16);
	p[2] = (unsigned char)(word >> 8);
	p[3] = (unsigned char)word;
}

static void sha256_block(uint32_t state[8], const unsigned char block[64])
{
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
	uint32_t w[16];
	for (int t = 0; t < 64; t++) {
		if (t < 16) {
			w[t] = word_at(block + 4 * t);
		} else {
			uint32_t w15 = w[(t - 15) & 15], w2 = w[(t - 2) & 15];
			w[t & 15] += (turn(w15, 7) ^ turn(w15, 18) ^ w15 >> 3) + w[(t - 7) & 15] +
				     (turn(w2, 17) ^ turn(w2, 19) ^ w2 >> 10);
		}
		uint32_t t1 = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) +
			      sha256_k[t] + w[t & 15];
		uint32_t t2 =
			(turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
		h = g, g = f, f = e, e = d + t1;
		d = c, c = b, b = a, a = t1 + t2;
	}
	state[0] += a, state[1] += b, state[2] += c, state[3] += d;
	state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

void sha256_start(struct sha256 *sha)
{
	/* The first 32 bits of the fractions of the square roots of the first 8 primes. */
	static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	memcpy(sha->state, first, sizeof first);
	sha->bytes = 0;
}

void sha256_feed(struct sha256 *sha, const void *data, size_t n)
{
	const unsigned char *p = data;
	size_t held = sha->bytes % 64;
	sha->bytes += n;
	if (held > 0) {
		size_t some = n < 64 - held ? n : 64 - held;
		memcpy(sha->block + held, p, some);
		p += some;
		n -= some;
		if (held + some < 64)
			return;
		sha256_block(sha->state, sha->block);
	}
	for (; n >= 64; n -= 64, p += 64)
		sha256_block(sha->state, p);
	if (n > 0)
		memcpy(sha->block, p, n);
}

void sha256_end(struct sha256 *sha, unsigned char digest[SHA256_SIZE])
{
	uint64_t bits = sha->bytes * 8;
	unsigned char tail[72] = {0x80};
	size_t padding = 64 - (sha->bytes + 8) % 64; /* 1 to 64 bytes in front of the length */
	word_put(tail + padding, (uint32_t)(bits >> 32));
	word_put(tail + padding + 4, (uint32_t)bits);
	sha256_feed(sha, tail, padding + 8);
	for (int i = 0; i < 8; i++)
		word_put(digest + 4 * i, sha->state[i]);
	explicit_bzero(sha, sizeof *sha);
}

void sha256_hmac(const void *key, size_t key_size, const void *data, size_t n,
		 unsigned char digest[SHA256_SIZE])
{
	unsigned char pad[64] = {0};
	struct sha256 sha;
	if (key_size > sizeof pad) {
		sha256_start(&sha);
		sha256_feed(&sha, key, key_size);
		sha256_end(&sha, pad);
	} else if (key_size > 0) {
		memcpy(pad, key, key_size);
	}
	for (size_t i = 0; i < sizeof pad; i++)
		pad[i] ^= 0x36;
	sha256_start(&sha);
	sha256_feed(&sha, pad, sizeof pad);
	sha256_feed(&sha, data, n);
	sha256_end(&sha, digest);
	for (size_t i = 0; i < sizeof pad; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	sha256_start(&sha);
	sha256_feed(&sha, pad, sizeof pad);
	sha256_feed(&sha, digest, SHA256_SIZE);
	sha256_end(&sha, digest);
	explicit_bzero(pad, sizeof pad);
}
