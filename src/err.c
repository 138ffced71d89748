/* err.c -- what went wrong, on the caller's stack.  Floor 1.  See worker/err.h.
 *
 * The text lives inside the struct: no allocation, so nothing to free and nothing that can fail
 * while a failure is being told.
 */
#include "worker/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
	if (err == NULL)
		return -1;
	va_list args;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof err->text, fmt, args);
	va_end(args);
	err->code = code;
	return -1;
}

int err_errno(struct err *err, const char *fmt, ...)
{
	int code = errno;
	if (err == NULL)
		return -1;
	va_list args;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof err->text, fmt, args);
	va_end(args);
	size_t used = strlen(err->text);
	snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(code));
	err->code = code;
	return -1;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	if (err == NULL)
		return -1;
	char inner[sizeof err->text];
	memcpy(inner, err->text, sizeof inner);
	va_list args;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof err->text, fmt, args);
	va_end(args);
	size_t used = strlen(err->text);
	snprintf(err->text + used, sizeof err->text - used, ": %s", inner);
	return -1;
}
