/* coding.c -- bytes as text: base64, hex, percent; masks; chance.  Floor 1.  See worker/coding.h.
 *
 * Tables of 256 entries would be faster for the readers; what is read here is headers and tokens,
 * so a function per character is kept, and the writers (which see attachments) use tables.
 */
#include "worker/coding.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CODING_NO_RANDOM 71 /* EX_OSERR */

static const char coding_std[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char coding_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t coding_base64(char *to, const char *s, size_t n, bool url)
{
	const unsigned char *u = (const unsigned char *)s;
	const char *digit = url ? coding_url : coding_std;
	char *start = to;
	for (; n >= 3; n -= 3, u += 3) {
		unsigned group = (unsigned)u[0] << 16 | (unsigned)u[1] << 8 | u[2];
		*to++ = digit[group >> 18];
		*to++ = digit[group >> 12 & 63];
		*to++ = digit[group >> 6 & 63];
		*to++ = digit[group & 63];
	}
	if (n > 0) {
		unsigned group = (unsigned)u[0] << 16 | (n > 1 ? (unsigned)u[1] << 8 : 0);
		*to++ = digit[group >> 18];
		*to++ = digit[group >> 12 & 63];
		if (n > 1)
			*to++ = digit[group >> 6 & 63];
		for (; !url && n < 3; n++)
			*to++ = '=';
	}
	return (size_t)(to - start);
}

static int coding_base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

ssize_t coding_unbase64(char *to, const char *s, size_t n)
{
	if (n % 4 == 0 && n > 0 && s[n - 1] == '=')
		n -= s[n - 2] == '=' ? 2 : 1;
	if (n % 4 == 1)
		return -1;
	char *start = to;
	unsigned bits = 0;
	int held = 0;
	for (size_t i = 0; i < n; i++) {
		int digit = coding_base64_digit(s[i]);
		if (digit == -1)
			return -1;
		bits = bits << 6 | (unsigned)digit;
		held += 6;
		if (held >= 8) {
			held -= 8;
			*to++ = (char)(bits >> held);
			bits &= (1u << held) - 1;
		}
	}
	/* Left-over bits that are not zero: two texts would mean the same bytes. */
	return bits == 0 ? to - start : -1;
}

size_t coding_hex(char *to, const char *s, size_t n)
{
	static const char digit[] = "0123456789abcdef";
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		to[2 * i] = digit[c >> 4];
		to[2 * i + 1] = digit[c & 15];
	}
	return 2 * n;
}

static int coding_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that two hex digits stand for, or -1. */
static int coding_hex_byte(const char *s)
{
	int high = coding_hex_digit(s[0]);
	if (high == -1)
		return -1;
	int low = coding_hex_digit(s[1]);
	return low == -1 ? -1 : high << 4 | low;
}

ssize_t coding_unhex(char *to, const char *s, size_t n)
{
	if (n % 2 != 0)
		return -1;
	for (size_t i = 0; i < n / 2; i++) {
		int byte = coding_hex_byte(s + 2 * i);
		if (byte == -1)
			return -1;
		to[i] = (char)byte;
	}
	return (ssize_t)(n / 2);
}

/* Of no locale: isalnum would ask one. */
static bool coding_unreserved(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

size_t coding_percent(char *to, const char *s, size_t n, const char *keep)
{
	static const char digit[] = "0123456789ABCDEF";
	char *start = to;
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		if (coding_unreserved(c) || (c != '\0' && strchr(keep, c) != NULL)) {
			*to++ = c;
			continue;
		}
		*to++ = '%';
		*to++ = digit[(unsigned char)c >> 4];
		*to++ = digit[(unsigned char)c & 15];
	}
	return (size_t)(to - start);
}

ssize_t coding_unpercent(char *to, const char *s, size_t n, bool plus)
{
	char *start = to;
	for (size_t i = 0; i < n; i++) {
		if (s[i] != '%') {
			*to++ = plus && s[i] == '+' ? ' ' : s[i];
			continue;
		}
		int byte = n - i > 2 ? coding_hex_byte(s + i + 1) : -1;
		if (byte == -1)
			return -1;
		*to++ = (char)byte;
		i += 2;
	}
	return to - start;
}

void coding_mask(char *to, const char *s, size_t n, const char key[4])
{
	uint64_t word, keys;
	size_t i = 0;
	memcpy(&keys, key, 4);
	memcpy((char *)&keys + 4, key, 4);
	for (; n - i >= sizeof word; i += sizeof word) {
		memcpy(&word, s + i, sizeof word);
		word ^= keys;
		memcpy(to + i, &word, sizeof word);
	}
	for (; i < n; i++)
		to[i] = (char)(s[i] ^ key[i % 4]);
}

void coding_bytes(void *to, size_t n)
{
	char *at = to;
	while (n > 0) {
		size_t some = n < 256 ? n : 256;
		/* At most 256 bytes never come short; a kernel without entropy makes us wait, and
		 * one without the call is none we can run on: predictable names would be worse. */
		ssize_t got;
		do
			got = getrandom(at, some, 0);
		while (got == -1 && errno == EINTR);
		if (got != (ssize_t)some) {
			dprintf(STDERR_FILENO, "worker: the kernel gives no random numbers: %s\n",
				strerror(errno));
			_exit(CODING_NO_RANDOM);
		}
		at += some;
		n -= some;
	}
}

void coding_random(char *to, size_t n)
{
	static const char digit[] = "0123456789abcdefghjkmnpqrstvwxyz";
	coding_bytes(to, n);
	for (size_t i = 0; i < n; i++)
		to[i] = digit[(unsigned char)to[i] & 31];
}
