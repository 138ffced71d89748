/* scalar.c -- what a plain YAML scalar means.  Floor 1.
 *
 * Each reader below looks at the whole text and takes it or leaves it; what nobody takes is text.
 * The shape is checked by hand before strtoll and strtod see it, since those accept more than YAML
 * does: leading blanks, "nan(...)", hexadecimal floats.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/scalar.h"

static bool is_word(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(text, *words) == 0)
			return true;
	return false;
}

static const char *skip_sign(const char *text)
{
	return text + (*text == '-' || *text == '+');
}

static size_t digits(const char *text)
{
	return strspn(text, "0123456789");
}

static bool read_null(const char *text)
{
	static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};
	return is_word(text, words);
}

static bool read_boolean(const char *text, struct scalar *scalar)
{
	static const char *const yes[] = {"true", "True", "TRUE", NULL};
	static const char *const no[] = {"false", "False", "FALSE", NULL};

	scalar->truth = is_word(text, yes);
	return scalar->truth || is_word(text, no);
}

/* Where the digits of an integer begin and in which base they are; NULL when it is none.  0755 is
 * none: whether a person means 755 or 493 cannot be known, and an identifier such as 007 must not
 * lose its zeros. */
static const char *integer_digits(const char *text, int *base)
{
	const char *from = text;
	size_t n;

	if (strncmp(text, "0x", 2) == 0) {
		*base = 16;
		from += 2;
		n = strspn(from, "0123456789abcdefABCDEF");
	} else if (strncmp(text, "0o", 2) == 0) {
		*base = 8;
		from += 2;
		n = strspn(from, "01234567");
	} else {
		*base = 10;
		from = skip_sign(text);
		n = digits(from);
		if (n > 1 && *from == '0')
			return NULL;
	}
	return n > 0 && from[n] == '\0' ? from : NULL;
}

static bool read_integer(const char *text, struct scalar *scalar)
{
	int base;
	const char *from = integer_digits(text, &base);

	if (from == NULL)
		return false;
	errno = 0;
	scalar->integer = strtoll(base == 10 ? text : from, NULL, base);
	return errno == 0;
}

/* Digits with a point, an exponent or both. */
static bool is_decimal(const char *text)
{
	const char *p = skip_sign(text);
	size_t whole = digits(p), fraction = 0;

	if (whole > 1 && *p == '0')
		return false;
	p += whole;
	bool point = *p == '.';
	if (point) {
		fraction = digits(++p);
		p += fraction;
	}
	if (whole + fraction == 0)
		return false;
	if (*p != 'e' && *p != 'E')
		return point && *p == '\0';
	p = skip_sign(p + 1);
	return digits(p) > 0 && p[digits(p)] == '\0';
}

static bool read_number(const char *text, struct scalar *scalar)
{
	static const char *const infinite[] = {".inf", ".Inf", ".INF", NULL};
	static const char *const nothing[] = {".nan", ".NaN", ".NAN", NULL};

	if (is_word(skip_sign(text), infinite)) {
		scalar->number = *text == '-' ? -HUGE_VAL : HUGE_VAL;
		return true;
	}
	if (is_word(text, nothing)) {
		scalar->number = (double)NAN;
		return true;
	}
	if (!is_decimal(text))
		return false;
	scalar->number = strtod(text, NULL);
	return isfinite(scalar->number);
}

enum scalar_kind scalar_read(const char *text, struct scalar *scalar)
{
	if (read_null(text))
		return SCALAR_NULL;
	if (read_boolean(text, scalar))
		return SCALAR_BOOLEAN;
	if (read_integer(text, scalar))
		return SCALAR_INTEGER;
	if (read_number(text, scalar))
		return SCALAR_NUMBER;
	return SCALAR_TEXT;
}
