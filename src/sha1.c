/* sha1.c -- SHA-1.  Floor 1.  See worker/sha1.h.
 *
 * Written from the standard, with its names.  The message schedule is a ring of sixteen words, as
 * in sha256.c.
 */
#include "worker/sha1.h"

#include <stdint.h>
#include <string.h>

static uint32_t turn_left(uint32_t x, int by)
{
	return x << by | x >> (32 - by);
}

/* The function and the constant of round ${t}: four kinds of twenty rounds each. */
static uint32_t sha1_f(int t, uint32_t b, uint32_t c, uint32_t d)
{
	switch (t / 20) {
	case 0:
		return ((b & c) ^ (~b & d)) + 0x5a827999;
	case 1:
		return (b ^ c ^ d) + 0x6ed9eba1;
	case 2:
		return ((b & c) ^ (b & d) ^ (c & d)) + 0x8f1bbcdc;
	default:
		return (b ^ c ^ d) + 0xca62c1d6;
	}
}

static void sha1_block(uint32_t state[5], const unsigned char *p)
{
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
	uint32_t w[16];
	for (int t = 0; t < 80; t++) {
		if (t < 16)
			w[t] = (uint32_t)p[4 * t] << 24 | (uint32_t)p[4 * t + 1] << 16 |
			       (uint32_t)p[4 * t + 2] << 8 | p[4 * t + 3];
		else
			w[t & 15] = turn_left(w[(t - 3) & 15] ^ w[(t - 8) & 15] ^ w[(t - 14) & 15] ^
						      w[t & 15],
					      1);
		uint32_t next = turn_left(a, 5) + sha1_f(t, b, c, d) + e + w[t & 15];
		e = d, d = c, c = turn_left(b, 30), b = a, a = next;
	}
	state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

void sha1_digest(const void *data, size_t n, unsigned char *digest)
{
	uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
	const unsigned char *p = data;
	unsigned char tail[128] = {0};
	size_t rest = n % 64;
	for (size_t left = n; left >= 64; left -= 64, p += 64)
		sha1_block(state, p);

	/* What is left, a one bit, and the length in bits at the end of a block: one block or two.
	 */
	size_t size = rest < 56 ? 64 : 128;
	if (rest > 0)
		memcpy(tail, p, rest);
	tail[rest] = 0x80;
	for (size_t i = 0; i < 8; i++)
		tail[size - 1 - i] = (unsigned char)((uint64_t)n * 8 >> (8 * i));
	for (size_t at = 0; at < size; at += 64)
		sha1_block(state, tail + at);

	for (size_t i = 0; i < SHA1_SIZE; i++)
		digest[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}
