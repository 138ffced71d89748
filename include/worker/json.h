/* json.h -- reading JSON, token by token, strictly by RFC 8259.  Floor 1.
 *
 * There is no tree here.  A struct json_text is a place in a text; each json_* reader takes one
 * token from there, moves on and returns 0, or returns -1 with the fault and its place noted; the
 * decoder (which builds Lua tables) and the validator are both made of them, so what one takes the
 * other takes.  Strict means: UTF-8, no lone surrogates, no control characters in strings, no
 * comments, no NaN, no number whose value is infinite, one value.
 *
 * The byte behind the text must be readable and none that a number could go on with (Lua strings
 * end with a NUL): numbers are then converted in place.
 */
#ifndef WORKER_JSON_H
#define WORKER_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/err.h"

#define JSON_DEPTH	128  /* how deep values may nest where nobody said otherwise */
#define JSON_DEPTH_MOST 1000 /* and the most that may be said */

struct json_text {
	const char *start, *at, *end;
	const char *fault; /* what is wrong at ${at}; NULL while nothing is */
	bool cut;	   /* the fault is at the very end: more text could mend it */
	bool no_nul;	   /* refuse \u0000 */
};

void json_text_init(struct json_text *text, const char *start, size_t n, bool no_nul);

/* json_fail(text, at, fault): note a fault; returns -1. */
int json_fail(struct json_text *text, const char *at, const char *fault);

/* json_explain(text, err): the fault for a person: line, column, byte, what, and a sample. */
void json_explain(const struct json_text *text, struct err *err);

/* json_where(text, line, column): of ${text->at}; both count from 1, columns in bytes. */
void json_where(const struct json_text *text, size_t *line, size_t *column);

static inline void json_space(struct json_text *text)
{
	const char *p = text->at;
	while (p < text->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	text->at = p;
}

/* json_string(text, string): the string whose opening quote is at the place.  Its bytes lie in the
 * text; with ${escaped}, json_unescape(string, to) writes the real ones (never more than ${size})
 * and returns their number. */
struct json_string {
	const char *bytes;
	size_t size;
	bool escaped;
};
int json_string(struct json_text *text, struct json_string *string);
size_t json_unescape(const struct json_string *string, char *to);

/* json_number(text, number): an integer when it is written like one and fits 64 bits; BIG when it
 * does not fit; else a double. */
enum json_kind { JSON_INTEGER, JSON_REAL, JSON_BIG };
struct json_number {
	enum json_kind kind;
	int64_t integer;
	double real;
	const char *bytes; /* as written */
	size_t size;
};
int json_number(struct json_text *text, struct json_number *number);

/* json_word(text): true, false or null; returns its first letter, or -1. */
int json_word(struct json_text *text);

/* json_skip(text, depth): check one whole value of any kind and step behind it.  Space in front of
 * it is skipped. */
int json_skip(struct json_text *text, unsigned depth);

/* json_end(text): 0 when nothing but space follows. */
int json_end(struct json_text *text);

/* json_plain(s, n): how many bytes at the start a JSON string holds as they are: printable ASCII
 * without quote and backslash. */
size_t json_plain(const char *s, size_t n);

/* json_copy_plain(to, s, n): the same, and copies them.  There must be room for JSON_COPY_MORE
 * bytes more than ${n}: what is written there has no meaning. */
#define JSON_COPY_MORE 16
size_t json_copy_plain(char *to, const char *s, size_t n);

#endif
