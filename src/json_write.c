/* json_write.c -- writing JSON, piece by piece.  Floor 1.  See worker/json_write.h.
 *
 * A string is runs of plain bytes with something between them; a run is found and copied with wide
 * instructions, so a log chunk costs little more than a memcpy.
 *
 * The shortest digits of a double would be a book of their own (Ryu, Grisu).  Nearly all doubles in
 * a worker are times and ratios with few decimals, so those are tried first: if x * 10^k is
 * near a whole number w below 2^53 and w / 10^k gives x again, then w with its point moved is what
 * reads back as x, because that division rounds once.  The rest pays for printf, up to three times.
 */
#include "worker/json_write.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/json.h"
#include "worker/utf8.h"

/* The escape of one ASCII byte that needs it; its length. */
static size_t escape(char *to, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	static const char names[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
	to[0] = '\\';
	const char *name = c ? strchr(names, c) : NULL;
	if (name != NULL) {
		to[1] = letters[name - names];
		return 2;
	}
	memcpy(to + 1, "u00", 3);
	to[4] = hex[c >> 4];
	to[5] = hex[c & 15];
	return 6;
}

/* Characters above ASCII are taken in portions, so that room for the worst (each byte broken, each
 * becoming three) is small. */
#define WRITE_PORTION 256
#define WRITE_WORST   (3 * WRITE_PORTION)

/* Copy a portion of the characters above ASCII at ${s}, at most up to the next ASCII byte; how many
 * bytes were read, or 0 with errno for broken ones when ${strict}. */
static size_t beyond_ascii(char **to, const char *s, size_t n, bool strict)
{
	size_t i = 0;
	while (i < n && i <= WRITE_PORTION - 4 && (unsigned char)s[i] >= 0x80) {
		int length = utf8_char(s + i, n - i);
		if (length < 0 && strict) {
			errno = EILSEQ;
			return 0;
		}
		const char *from = length < 0 ? UTF8_BAD : s + i;
		size_t size = length < 0 ? UTF8_BAD_SIZE : (size_t)length;
		memcpy(*to, from, size);
		*to += size;
		i += length < 0 ? (size_t)-length : (size_t)length;
	}
	return i;
}

/* Room for ${left} bytes at their plain size, one portion at its worst, and the closing quote. */
static char *room_for(struct buf *out, size_t left)
{
	return buf_reserve(out, left + WRITE_WORST + 1);
}

/* The rest of a string, from a byte on that is not plain, and the closing quote. */
static int write_rest(struct buf *out, const char *s, size_t n, bool strict)
{
	const char *end = s + n;
	char *to = room_for(out, n);
	if (to == NULL)
		return -1;
	/* Before each round, what is left fits in front of ${limit}; the worst portion behind it.
	 */
	char *from = to, *limit = to + n;
	while (s < end) {
		if ((unsigned char)*s < 0x80) {
			to += escape(to, (unsigned char)*s++);
		} else {
			size_t taken = beyond_ascii(&to, s, (size_t)(end - s), strict);
			if (taken == 0)
				return -1;
			s += taken;
		}
		if (limit - to < end - s) {
			buf_commit(out, (size_t)(to - from));
			if ((to = room_for(out, (size_t)(end - s))) == NULL)
				return -1;
			from = to;
			limit = to + (end - s);
		}
		size_t plain = json_copy_plain(to, s, (size_t)(end - s));
		to += plain;
		s += plain;
	}
	*to++ = '"';
	buf_commit(out, (size_t)(to - from));
	return 0;
}

int json_write_string(struct buf *out, const char *s, size_t n, bool strict)
{
	char *to = room_for(out, 1 + n);
	if (to == NULL)
		return -1;
	*to++ = '"';
	size_t plain = json_copy_plain(to, s, n);
	if (plain < n) {
		buf_commit(out, 1 + plain);
		return write_rest(out, s + plain, n - plain, strict);
	}
	to[n] = '"';
	buf_commit(out, n + 2);
	return 0;
}

size_t json_write_integer(char to[24], int64_t integer)
{
	char digits[24], *p = digits + sizeof digits;
	uint64_t left = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
	do
		*--p = (char)('0' + left % 10);
	while ((left /= 10) > 0);
	if (integer < 0)
		*--p = '-';
	size_t size = (size_t)(digits + sizeof digits - p);
	memcpy(to, p, size);
	return size;
}

/* The nearest whole number of one that is not negative. */
static int64_t nearest(double real)
{
	int64_t whole = (int64_t)real;
	return whole + (real - (double)whole >= 0.5);
}

/* Few decimals: see above.  0 when ${real} is not like that. */
static size_t few_decimals(char to[32], double real)
{
	double x = fabs(real), ten = 1;
	for (int k = 0; k <= 9; k++, ten *= 10) {
		if (x * ten >= 9007199254740992.0)
			return 0;
		int64_t whole = nearest(x * ten);
		if ((double)whole / ten != x)
			continue;
		char digits[24];
		size_t size = json_write_integer(digits, whole), at = 0;
		if (signbit(real))
			to[at++] = '-';
		if (size <= (size_t)k)
			to[at++] = '0';
		else
			for (size_t i = 0; i < size - (size_t)k; i++)
				to[at++] = digits[i];
		if (k == 0)
			return at;
		to[at++] = '.';
		for (size_t zeros = size < (size_t)k ? (size_t)k - size : 0; zeros > 0; zeros--)
			to[at++] = '0';
		size_t from = size > (size_t)k ? size - (size_t)k : 0;
		memcpy(to + at, digits + from, size - from);
		return at + size - from;
	}
	return 0;
}

size_t json_write_real(char to[32], double real)
{
	/* A tiny number would be "0.000000001": right, but from there on printf's form is shorter.
	 */
	if (real == 0 || fabs(real) >= 1e-5) {
		size_t size = few_decimals(to, real);
		if (size > 0)
			return size;
	}
	int size = 0;
	for (int digits = 15; digits <= 17; digits++) {
		size = snprintf(to, 32, "%.*g", digits, real);
		if (strtod(to, NULL) == real)
			break;
	}
	return (size_t)size;
}
