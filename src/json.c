/* json.c -- reading JSON, token by token.  Floor 1.  See worker/json.h.
 *
 * Where the time goes is strings: log chunks out, scripts in.  So both directions run over plain
 * bytes sixteen at a time where SSE2 is there and think only where a quote, a backslash, a control
 * character or a byte above ASCII stops them.  Numbers take the exact short cut of Clinger: a
 * mantissa below 2^53 and a power of ten up to 22 are both exact doubles, and one division or
 * multiplication of them rounds once, which is right; the C library gets what is left.
 *
 * The validator does not recurse: what is open (object or array) is a bit in a small stack.
 */
#include "worker/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/utf8.h"

#ifdef __SSE2__
#include <emmintrin.h>

/* A bit for each of sixteen bytes that cannot stand in a string as it is.  The comparison is
 * signed: "less than a space" takes in control characters and everything above ASCII. */
static unsigned special_mask(__m128i bytes)
{
	__m128i found = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
				     _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
	found = _mm_or_si128(found, _mm_cmplt_epi8(bytes, _mm_set1_epi8(' ')));
	return (unsigned)_mm_movemask_epi8(found);
}
#endif

static bool special(char c)
{
	return (signed char)c < ' ' || c == '"' || c == '\\';
}

void json_text_init(struct json_text *text, const char *start, size_t n, bool no_nul)
{
	*text = (struct json_text){.start = start, .at = start, .end = start + n, .no_nul = no_nul};
}

int json_fail(struct json_text *text, const char *at, const char *fault)
{
	text->at = at;
	text->fault = fault;
	text->cut = at == text->end;
	return -1;
}

/* A fault at the very end is one that more text could mend. */
static const char *fail_none(struct json_text *text, const char *at, const char *fault)
{
	json_fail(text, at, fault);
	return NULL;
}

void json_where(const struct json_text *text, size_t *line, size_t *column)
{
	const char *from = text->start, *newline;
	*line = 1;
	while ((newline = memchr(from, '\n', (size_t)(text->at - from))) != NULL) {
		from = newline + 1;
		++*line;
	}
	*column = (size_t)(text->at - from) + 1;
}

void json_explain(const struct json_text *text, struct err *err)
{
	size_t line, column;
	json_where(text, &line, &column);
	/* The sample begins a little before the fault; it is for eyes, so only plain bytes. */
	char sample[33];
	size_t before = (size_t)(text->at - text->start);
	const char *from = text->at - (before < 16 ? before : 16);
	size_t size = (size_t)(text->end - from);
	if (size > sizeof sample - 1)
		size = sizeof sample - 1;
	for (size_t i = 0; i < size; i++)
		sample[i] = (char)(from[i] < ' ' || from[i] > '~' ? '.' : from[i]);
	sample[size] = '\0';
	err_set(err, 0, "not JSON: line %zu, column %zu (byte %zu): %s%s, near '%s'", line, column,
		before + 1, text->fault, text->cut ? ", but the text ends" : "", sample);
}

size_t json_plain(const char *s, size_t n)
{
	const char *p = s, *end = s + n;
#ifdef __SSE2__
	for (; end - p >= 16; p += 16) {
		unsigned mask = special_mask(_mm_loadu_si128((const __m128i *)(const void *)p));
		if (mask != 0)
			return (size_t)(p - s) + (size_t)__builtin_ctz(mask);
	}
#endif
	while (p < end && !special(*p))
		p++;
	return (size_t)(p - s);
}

/* The last few bytes are looked at where they were copied to: there, reading sixteen at a time goes
 * past nothing but room. */
size_t json_copy_plain(char *to, const char *s, size_t n)
{
#ifdef __SSE2__
	size_t done = 0;
	unsigned mask = 0;
	for (; n - done >= 16 && mask == 0; done += 16) {
		__m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(s + done));
		_mm_storeu_si128((__m128i *)(void *)(to + done), bytes);
		mask = special_mask(bytes);
	}
	if (mask != 0)
		return done - 16 + (size_t)__builtin_ctz(mask);
	size_t left = n - done;
	memcpy(to + done, s + done, left);
	mask = special_mask(_mm_loadu_si128((const __m128i *)(const void *)(to + done)));
	return done + (size_t)__builtin_ctz(mask | 1u << left);
#else
	size_t plain = json_plain(s, n);
	memcpy(to, s, plain);
	return plain;
#endif
}

/* The value of four hex digits, or -1. */
static int hex4(const char *p, const char *end)
{
	if (end - p < 4)
		return -1;
	int value = 0;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;
		if (digit == -1)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/* Could what follows the first half of a pair, up to the end, become the second half? */
static bool half_open(const char *p, const char *end)
{
	size_t left = (size_t)(end - p);
	return left < 6 && memcmp(p, "\\u", left < 2 ? left : 2) == 0;
}

/* Check the escape at ${p}; where it ends, or NULL. */
static const char *escape_end(struct json_text *text, const char *p)
{
	if (text->end - p < 2)
		return fail_none(text, text->end, "expected an escape");
	if (p[1] != 'u') {
		if (p[1] != '\0' && strchr("\"\\/bfnrt", p[1]) != NULL)
			return p + 2;
		return fail_none(text, p, "no such escape");
	}
	int code = hex4(p + 2, text->end);
	if (code == -1)
		return fail_none(text, text->end - p < 6 ? text->end : p,
				 "\\u needs four hex digits");
	if (code == 0 && text->no_nul)
		return fail_none(text, p, "\\u0000 is not allowed here");
	if (code < 0xd800 || code > 0xdfff)
		return p + 6;
	int low = code < 0xdc00 && text->end - p >= 12 && p[6] == '\\' && p[7] == 'u'
			  ? hex4(p + 8, text->end)
			  : -1;
	if (low >= 0xdc00 && low <= 0xdfff)
		return p + 12;
	bool open = code < 0xdc00 && half_open(p + 6, text->end);
	return fail_none(text, open ? text->end : p, "half of a surrogate pair");
}

/* Broken UTF-8 at ${p}; a character that only the end cut short is a fault of the end. */
static const char *bad_place(const char *p, const char *end)
{
	return utf8_partial(p, (size_t)(end - p)) == (size_t)(end - p) ? end : p;
}

int json_string(struct json_text *text, struct json_string *string)
{
	const char *p = text->at + 1;
	string->bytes = p;
	string->escaped = false;
	for (;;) {
		p += json_plain(p, (size_t)(text->end - p));
		if (p == text->end)
			return json_fail(text, text->end, "expected the end of a string");
		if (*p == '"')
			break;
		if (*p == '\\') {
			string->escaped = true;
			if ((p = escape_end(text, p)) == NULL)
				return -1;
		} else if ((unsigned char)*p < ' ') {
			return json_fail(text, p, "a control character must be escaped");
		} else {
			int length = utf8_char(p, (size_t)(text->end - p));
			if (length < 0)
				return json_fail(text, bad_place(p, text->end),
						 "bytes that are not UTF-8");
			p += length;
		}
	}
	string->size = (size_t)(p - string->bytes);
	text->at = p + 1;
	return 0;
}

/* Write what the \u escape at ${p} means; how far it went. */
static const char *unescape_unicode(const char *p, char **to)
{
	uint32_t code = (uint32_t)hex4(p + 2, p + 6);
	p += 6;
	if (code >= 0xd800 && code <= 0xdfff) {
		code = 0x10000 + ((code - 0xd800) << 10) + ((uint32_t)hex4(p + 2, p + 6) - 0xdc00);
		p += 6;
	}
	*to += utf8_encode(*to, code);
	return p;
}

size_t json_unescape(const struct json_string *string, char *to)
{
	static const char names[] = "bfnrt", means[] = "\b\f\n\r\t";
	const char *p = string->bytes, *end = p + string->size;
	char *start = to;
	while (p < end) {
		const char *slash = memchr(p, '\\', (size_t)(end - p));
		size_t plain = (size_t)((slash ? slash : end) - p);
		memcpy(to, p, plain);
		to += plain;
		if (slash == NULL)
			break;
		if (slash[1] == 'u') {
			p = unescape_unicode(slash, &to);
			continue;
		}
		const char *name = strchr(names, slash[1]);
		*to++ = name ? means[name - names] : slash[1];
		p = slash + 2;
	}
	return (size_t)(to - start);
}

static bool digit_at(const char *p, const char *end)
{
	return p < end && *p >= '0' && *p <= '9';
}

/* What scanning a number found.  ${mantissa} holds all digits unless ${digits} > 19. */
struct scan {
	uint64_t mantissa;
	int digits;
	int64_t exponent;
	bool whole;
};

static const char *scan_digits(const char *p, const char *end, struct scan *scan)
{
	for (; digit_at(p, end); p++) {
		/* Leading zeros carry nothing; behind 19 digits the mantissa is given up. */
		if (scan->mantissa == 0 && *p == '0')
			continue;
		if (scan->digits < 20)
			scan->digits++;
		if (scan->digits <= 19)
			scan->mantissa = scan->mantissa * 10 + (uint64_t)(*p - '0');
	}
	return p;
}

/* The exponent behind ${p}; where it ends, or NULL. */
static const char *scan_exponent(const char *p, const char *end, struct scan *scan)
{
	bool negative = p < end && *p == '-';
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	if (!digit_at(p, end))
		return NULL;
	int64_t exponent = 0;
	for (; digit_at(p, end); p++)
		if (exponent < 1000000)
			exponent = exponent * 10 + (*p - '0');
	scan->exponent += negative ? -exponent : exponent;
	return p;
}

static const char *scan_number(struct json_text *text, struct scan *scan)
{
	const char *p = text->at, *end = text->end;
	if (p == end || (*p != '-' && !digit_at(p, end)))
		return fail_none(text, p, "expected a value");
	p += *p == '-';
	if (!digit_at(p, end))
		return fail_none(text, p, "expected a digit");
	if (*p == '0' && digit_at(p + 1, end))
		return fail_none(text, p, "a number must not begin with 0");
	p = scan_digits(p, end, scan);
	if (p < end && *p == '.') {
		scan->whole = false;
		const char *point = ++p;
		p = scan_digits(p, end, scan);
		if (p == point)
			return fail_none(text, p, "expected a digit");
		scan->exponent = -(int64_t)(p - point);
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		scan->whole = false;
		const char *after = scan_exponent(p + 1, end, scan);
		if (after == NULL) {
			p += 1 + (p + 1 < end && (p[1] == '-' || p[1] == '+'));
			return fail_none(text, p, "expected a digit");
		}
		p = after;
	}
	return p;
}

static double real_value(const struct scan *scan, const char *bytes)
{
	static const double tens[] = {1e0,  1e1,  1e2,	1e3,  1e4,  1e5,  1e6,	1e7,
				      1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
				      1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
	if (scan->digits > 19 || scan->mantissa > UINT64_C(1) << 53 || scan->exponent < -22 ||
	    scan->exponent > 22)
		return strtod(bytes, NULL);
	double value = (double)scan->mantissa;
	value = scan->exponent < 0 ? value / tens[-scan->exponent] : value * tens[scan->exponent];
	return *bytes == '-' ? -value : value;
}

int json_number(struct json_text *text, struct json_number *number)
{
	struct scan scan = {.whole = true};
	const char *from = text->at, *end = scan_number(text, &scan);
	if (end == NULL)
		return -1;
	bool negative = *from == '-';
	number->bytes = from;
	number->size = (size_t)(end - from);
	/* "-0" is a double: an integer would lose the sign. */
	if (scan.whole && !(negative && scan.mantissa == 0)) {
		uint64_t most = (uint64_t)INT64_MAX + negative;
		if (scan.digits > 19 || scan.mantissa > most) {
			number->kind = JSON_BIG;
		} else {
			number->kind = JSON_INTEGER;
			number->integer = (int64_t)(negative ? 0 - scan.mantissa : scan.mantissa);
		}
		text->at = end;
		return 0;
	}
	number->kind = JSON_REAL;
	number->real = real_value(&scan, from);
	if (!isfinite(number->real))
		return json_fail(text, from, "a number too large for a double");
	text->at = end;
	return 0;
}

int json_word(struct json_text *text)
{
	static const char *const words[] = {"true", "false", "null"};
	size_t left = (size_t)(text->end - text->at);
	for (int i = 0; i < 3 && left > 0; i++) {
		size_t size = strlen(words[i]);
		if (left >= size && memcmp(text->at, words[i], size) == 0) {
			text->at += size;
			return words[i][0];
		}
		if (left < size && memcmp(text->at, words[i], left) == 0)
			return json_fail(text, text->end, "expected a value");
	}
	return json_fail(text, text->at, "expected a value");
}

/* What the validator has open: one bit a level, set for objects. */
struct levels {
	uint64_t bits[JSON_DEPTH_MOST / 64 + 1];
	unsigned count, most;
};

static bool level_is_object(const struct levels *levels)
{
	unsigned top = levels->count - 1;
	return levels->bits[top / 64] >> top % 64 & 1;
}

static int level_open(struct json_text *text, struct levels *levels, bool object)
{
	if (levels->count == levels->most)
		return json_fail(text, text->at, "values nested too deep");
	uint64_t bit = UINT64_C(1) << levels->count % 64;
	uint64_t *word = &levels->bits[levels->count / 64];
	*word = object ? *word | bit : *word & ~bit;
	levels->count++;
	text->at++;
	return 0;
}

static int skip_key(struct json_text *text)
{
	struct json_string string;
	json_space(text);
	if (text->at == text->end || *text->at != '"')
		return json_fail(text, text->at, "expected a key in quotes");
	if (json_string(text, &string) == -1)
		return -1;
	json_space(text);
	if (text->at == text->end || *text->at != ':')
		return json_fail(text, text->at, "expected ':'");
	text->at++;
	return 0;
}

/* Step over a scalar, or into an object or array up to its first value; empty ones are stepped
 * over too.  Returns 1 when a value must follow, 0 when one is complete, or -1. */
static int skip_begin(struct json_text *text, struct levels *levels)
{
	struct json_string string;
	struct json_number number;
	json_space(text);
	switch (text->at < text->end ? *text->at : '\0') {
	case '{':
	case '[': {
		bool object = *text->at == '{';
		if (level_open(text, levels, object) == -1)
			return -1;
		json_space(text);
		if (text->at < text->end && *text->at == (object ? '}' : ']')) {
			levels->count--;
			text->at++;
			return 0;
		}
		return object && skip_key(text) == -1 ? -1 : 1;
	}
	case '"':
		return json_string(text, &string);
	case 't':
	case 'f':
	case 'n':
		return json_word(text) == -1 ? -1 : 0;
	default:
		return json_number(text, &number);
	}
}

/* A value is complete: close what ends here.  Returns 1 when another value must follow, 0 when the
 * outermost is complete, or -1. */
static int skip_end(struct json_text *text, struct levels *levels)
{
	while (levels->count > 0) {
		bool object = level_is_object(levels);
		const char *expected = object ? "expected ',' or '}'" : "expected ',' or ']'";
		json_space(text);
		if (text->at < text->end && *text->at == ',') {
			text->at++;
			return object && skip_key(text) == -1 ? -1 : 1;
		}
		if (text->at == text->end || *text->at != (object ? '}' : ']'))
			return json_fail(text, text->at, expected);
		text->at++;
		levels->count--;
	}
	return 0;
}

int json_skip(struct json_text *text, unsigned depth)
{
	struct levels levels;
	levels.count = 0;
	levels.most = depth < JSON_DEPTH_MOST ? depth : JSON_DEPTH_MOST;
	memset(levels.bits, 0, sizeof levels.bits);
	for (;;) {
		int more = skip_begin(text, &levels);
		if (more == 0)
			more = skip_end(text, &levels);
		if (more != 1)
			return more;
	}
}

int json_end(struct json_text *text)
{
	json_space(text);
	return text->at == text->end
		       ? 0
		       : json_fail(text, text->at, "something follows the end of the value");
}
