/* utf8.c -- characters: checking, repairing, never cutting one.  Floor 1.  See worker/utf8.h.
 *
 * Everything is built from two functions.  utf8_ascii runs over the bytes that need no thought,
 * sixteen at a time where SSE2 is there, eight elsewhere; utf8_char looks at one character and
 * knows Table 3-7 of the Unicode standard: only the second byte has a range that depends on the
 * first.  Logs are nearly all ASCII, so no cleverer validator has earned its lines here.
 */
#include "worker/utf8.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

size_t utf8_ascii(const char *s, size_t n)
{
	size_t i = 0;
#ifdef __SSE2__
	for (; n - i >= 16; i += 16) {
		int high =
			_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(const void *)(s + i)));
		if (high != 0)
			return i + (size_t)__builtin_ctz((unsigned)high);
	}
#else
	for (; n - i >= 8; i += 8) {
		uint64_t word;
		memcpy(&word, s + i, 8);
		if (word & UINT64_C(0x8080808080808080))
			break;
	}
#endif
	while (i < n && (unsigned char)s[i] < 0x80)
		i++;
	return i;
}

/* How many bytes a character with this first byte has; 0 when none begins so. */
static int utf8_need(unsigned char first)
{
	if (first < 0x80)
		return 1;
	if (first < 0xc2)
		return 0;
	if (first < 0xe0)
		return 2;
	if (first < 0xf0)
		return 3;
	return first < 0xf5 ? 4 : 0;
}

int utf8_char(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;
	int need = utf8_need(u[0]);
	if (need <= 1)
		return need ? 1 : -1;
	unsigned char least = 0x80, most = 0xbf;
	switch (u[0]) { /* overlong forms, surrogates, beyond U+10FFFF */
	case 0xe0:
		least = 0xa0;
		break;
	case 0xed:
		most = 0x9f;
		break;
	case 0xf0:
		least = 0x90;
		break;
	case 0xf4:
		most = 0x8f;
		break;
	}
	if (n < 2 || u[1] < least || u[1] > most)
		return -1;
	for (int i = 2; i < need; i++)
		if ((size_t)i >= n || (u[i] & 0xc0) != 0x80)
			return -i;
	return need;
}

size_t utf8_valid(const char *s, size_t n)
{
	for (size_t i = 0;;) {
		if (i == n)
			return n;
		int length = utf8_char(s + i, n - i);
		if (length < 0)
			return i;
		i += (size_t)length;
		/* One character of a script is mostly followed by another: ask before racing. */
		if (i < n && (unsigned char)s[i] < 0x80)
			i += utf8_ascii(s + i, n - i);
	}
}

size_t utf8_partial(const char *s, size_t n)
{
	for (size_t back = 1; back <= 3 && back <= n; back++) {
		const char *at = s + n - back;
		if ((*at & 0xc0) == 0x80)
			continue;
		int need = utf8_need((unsigned char)*at);
		return need > (int)back && utf8_char(at, back) == -(int)back ? back : 0;
	}
	return 0;
}

size_t utf8_floor(const char *s, size_t n, size_t at)
{
	if (at >= n)
		return n;
	for (size_t back = 1; back <= 3 && back <= at; back++) {
		int length = utf8_char(s + at - back, n - (at - back));
		if (length > (int)back)
			return at - back;
		if (length == (int)back)
			break;
	}
	return at;
}

size_t utf8_ceil(const char *s, size_t n, size_t at)
{
	size_t floor = utf8_floor(s, n, at);
	return floor == at || at >= n ? floor : floor + (size_t)utf8_char(s + floor, n - floor);
}

uint32_t utf8_decode(const char *s, int length)
{
	static const unsigned char first[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	uint32_t code = (unsigned char)s[0] & first[length];
	for (int i = 1; i < length; i++)
		code = code << 6 | ((unsigned char)s[i] & 0x3f);
	return code;
}

int utf8_encode(char to[4], uint32_t code)
{
	if (code < 0x80) {
		to[0] = (char)code;
		return 1;
	}
	int length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	static const unsigned char mark[] = {0, 0, 0xc0, 0xe0, 0xf0};
	for (int i = length - 1; i > 0; i--) {
		to[i] = (char)(0x80 | (code & 0x3f));
		code >>= 6;
	}
	to[0] = (char)(mark[length] | code);
	return length;
}

/* Blocks, not single characters: good for lining up a table, and it fits on a screen. */
static const uint32_t utf8_zero[][2] = {
	{0x0300, 0x036f}, {0x0483, 0x0489},   {0x0591, 0x05bd},	  {0x0610, 0x061a},
	{0x064b, 0x065f}, {0x06d6, 0x06dc},   {0x0900, 0x0902},	  {0x093c, 0x093c},
	{0x0941, 0x0948}, {0x0e31, 0x0e31},   {0x0e34, 0x0e3a},	  {0x0e47, 0x0e4e},
	{0x1ab0, 0x1aff}, {0x1dc0, 0x1dff},   {0x200b, 0x200f},	  {0x2028, 0x202e},
	{0x2060, 0x2064}, {0x20d0, 0x20ff},   {0xfe00, 0xfe0f},	  {0xfe20, 0xfe2f},
	{0xfeff, 0xfeff}, {0x1f3fb, 0x1f3ff}, {0xe0001, 0xe007f}, {0xe0100, 0xe01ef}};
static const uint32_t utf8_wide[][2] = {
	{0x1100, 0x115f},   {0x231a, 0x231b},	{0x23e9, 0x23ec},   {0x2614, 0x2615},
	{0x26a1, 0x26a1},   {0x26d4, 0x26d4},	{0x2705, 0x2705},   {0x274c, 0x274e},
	{0x2753, 0x2757},   {0x2b50, 0x2b55},	{0x2e80, 0x303e},   {0x3041, 0x33ff},
	{0x3400, 0x4dbf},   {0x4e00, 0x9fff},	{0xa000, 0xa4cf},   {0xa960, 0xa97f},
	{0xac00, 0xd7a3},   {0xf900, 0xfaff},	{0xfe30, 0xfe6f},   {0xff00, 0xff60},
	{0xffe0, 0xffe6},   {0x1f004, 0x1f004}, {0x1f18e, 0x1f19a}, {0x1f200, 0x1f320},
	{0x1f32d, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f7e0, 0x1f7eb}, {0x1f900, 0x1f9ff},
	{0x1fa70, 0x1faff}, {0x20000, 0x3fffd}};

static int utf8_among(const uint32_t table[][2], size_t count, uint32_t code)
{
	size_t low = 0, high = count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (code > table[middle][1])
			low = middle + 1;
		else if (code < table[middle][0])
			high = middle;
		else
			return 1;
	}
	return 0;
}

int utf8_width(uint32_t code)
{
	if (code < 0x20 || (code >= 0x7f && code < 0xa0))
		return 0;
	if (code < 0x300)
		return 1;
	if (utf8_among(utf8_zero, sizeof utf8_zero / sizeof *utf8_zero, code))
		return 0;
	return utf8_among(utf8_wide, sizeof utf8_wide / sizeof *utf8_wide, code) ? 2 : 1;
}

/* Append ${n} bytes, of which the last may not be the beginning of a character to come. */
static int utf8_mend_whole(struct buf *out, const char *s, size_t n)
{
	while (n > 0) {
		size_t good = utf8_valid(s, n);
		if (buf_append(out, s, good) == -1)
			return -1;
		s += good;
		n -= good;
		if (n == 0)
			return 0;
		size_t bad = (size_t)-utf8_char(s, n);
		if (buf_append(out, UTF8_BAD, UTF8_BAD_SIZE) == -1)
			return -1;
		s += bad;
		n -= bad;
	}
	return 0;
}

/* Complete the held character from ${s}; gives how many bytes of ${s} it took, or -1.  A byte that
 * does not go on makes what is held a maximal subpart, and stays for the next character. */
static int utf8_mend_held(struct utf8_mender *mender, struct buf *out, const char *s, size_t n)
{
	int taken = 0;
	while (mender->count > 0 && (size_t)taken < n) {
		mender->held[mender->count] = s[taken];
		int length = utf8_char(mender->held, mender->count + 1);
		if (length == -(int)mender->count) {
			mender->count = 0;
			return buf_append(out, UTF8_BAD, UTF8_BAD_SIZE) == -1 ? -1 : taken;
		}
		taken++;
		mender->count++;
		if (length > 0) {
			mender->count = 0;
			return buf_append(out, mender->held, (size_t)length) == -1 ? -1 : taken;
		}
	}
	return taken;
}

int utf8_mend(struct utf8_mender *mender, struct buf *out, const char *s, size_t n)
{
	int taken = utf8_mend_held(mender, out, s, n);
	if (taken == -1)
		return -1;
	s += taken;
	n -= (size_t)taken;
	if (n == 0)
		return 0;
	size_t rest = utf8_partial(s, n);
	memcpy(mender->held, s + n - rest, rest);
	mender->count = (unsigned)rest;
	return utf8_mend_whole(out, s, n - rest);
}

int utf8_mend_end(struct utf8_mender *mender, struct buf *out)
{
	if (mender->count == 0)
		return 0;
	mender->count = 0;
	return buf_append(out, UTF8_BAD, UTF8_BAD_SIZE);
}
