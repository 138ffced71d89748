/* scalar.h -- what a plain (unquoted) YAML scalar means.  Floor 1.
 *
 * The core schema of YAML 1.2, so `yes`, `on`, `1_000`, `1:30` and `2026-11-21` are text.  Where a
 * number would not be what was written, it stays text as well: integers beyond 64 bits, floats
 * beyond a double, and decimal numbers with leading zeros (0755, 007).
 */
#ifndef WORKER_SCALAR_H
#define WORKER_SCALAR_H

#include <stdbool.h>
#include <stdint.h>

enum scalar_kind { SCALAR_TEXT, SCALAR_NULL, SCALAR_BOOLEAN, SCALAR_INTEGER, SCALAR_NUMBER };

struct scalar {
	union {
		bool truth;
		int64_t integer;
		double number;
	};
};

/* scalar_read(text, scalar): the kind of ${text}; ${scalar} holds the value where there is one. */
enum scalar_kind scalar_read(const char *text, struct scalar *scalar);

#endif
